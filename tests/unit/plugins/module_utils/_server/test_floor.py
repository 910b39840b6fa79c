"""A floor for TLS versions in the engine: a stand-in with a real port, and what a plan shows."""

import os
import ssl

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import facts, sockets
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import LogPlaces
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import Listener, Transport
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.server import POSTFIX_SESSIONS
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.permits import Permit, Permits
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import Sides, WayOut
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.version_tests import versions_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

from tests.support.fake_mail import BRIEF, PATIENT, FakeMail
from tests.support.smtp_server import Face, refused_port, serving

pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion")  # the old versions are what this is about
NAMES = {"": ssl.TLSVersion.TLSv1, "TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def face(certificate, least=ssl.TLSVersion.TLSv1, most=ssl.TLSVersion.TLSv1_3):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.minimum_version, context.maximum_version = least, most
    context.load_cert_chain(certificate)
    return Face(context=context)


class Mail(FakeMail):
    """A mail server whose settings have a floor."""

    deaf_to_floors = False
    other_permits = ()

    plaintext_at_once = True

    def __init__(self, *args):
        self.log = None
        super().__init__(*args)

    def text(self, inbound, outbound, floor=None):
        now = self.settings.get("floor", "") if self.config.exists() else ""
        return super().text(inbound, outbound) + f"floor={now if floor is None else floor}\n"

    def follow(self):
        super().follow()
        if self.settings["inbound"] == "offered":
            floor = "" if self.deaf_to_floors else self.settings["floor"]
            self.port.face = face(self.certificate, NAMES[floor])

    def plan(self, desired):
        now = self.settings
        floor = desired.min_tls or now["floor"]
        text = self.text(desired.inbound or now["inbound"], desired.outbound or now["outbound"], floor)
        return Change.of([FileImage(str(self.config), text.encode(), 0o644, os.getuid(), os.getgid())])

    def permits(self, floor, change=None):
        assert floor in NAMES
        text = change.after[0].content.decode() if change else self.config.read_text()
        oldest = dict(line.split("=") for line in text.splitlines())["floor"] or "TLSv1"
        one = Permit("smtp", oldest)
        return Permits((one, *self.other_permits), (Permit("smtp/unix", oldest),))

    def log_of_versions(self):
        return LogPlaces((str(self.log),), (), ()), POSTFIX_SESSIONS

    def sides(self, _change=None):
        served = (str(self.certificate),) if self.settings["inbound"] != "disabled" else ()
        own = Listener("smtp", self.port.host, self.port.port, "offered", served)
        ways = [
            WayOut(Transport("relayhost", "smtp", one.host, one.port, "encrypt"), self.settings["outbound"])
            for one in self.hops
        ]
        return Sides((own,), tuple(ways))


@pytest.fixture
def mail(tmp_path, authority, monkeypatch):
    server = Mail(tmp_path, authority)
    monkeypatch.setattr(sockets, "listening", lambda *_args, **_more: None)
    monkeypatch.setattr(facts, "disk_space", lambda _paths: [])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    yield server.start("offered", "opportunistic")
    server.port.close()


def accepts(mail):
    [answers] = versions_of([mail.desired().own_port], ["TLSv1.1", "TLSv1.2", "TLSv1.3"], PATIENT)
    return [version for version, agreed in answers.items() if agreed]


def notes(mail, min_tls="TLSv1.2", **more):
    result = mail.read("offered", "opportunistic", min_tls=min_tls, **more)
    assert result["obstacles"] == []
    return {one["code"]: one["message"] for one in result["notes"] if one["code"].startswith("tls_floor")}


@pytest.mark.parametrize(("floor", "left"), [("TLSv1.2", ["TLSv1.2", "TLSv1.3"]), ("TLSv1.3", ["TLSv1.3"])])
def test_the_port_refuses_older_versions_afterwards_and_the_second_run_changes_nothing(mail, floor, left):
    assert accepts(mail) == ["TLSv1.1", "TLSv1.2", "TLSv1.3"]
    assert mail.set("offered", "opportunistic", min_tls=floor).changed
    assert accepts(mail) == left
    assert not mail.set("offered", "opportunistic", min_tls=floor).changed


def test_a_server_that_goes_on_to_agree_on_an_old_version_gets_its_former_files_back(mail):
    mail.deaf_to_floors = True
    before = mail.config.read_bytes()
    with pytest.raises(
        TransactionError, match=r"still agrees on TLSv1 and TLSv1.1, which is older than TLSv1.2"
    ) as caught:
        mail.set("offered", "opportunistic", min_tls="TLSv1.2", settings=BRIEF)
    assert caught.value.restored
    assert mail.config.read_bytes() == before


def test_check_mode_makes_no_change(mail):
    assert mail.set("offered", "opportunistic", min_tls="TLSv1.2", check_mode=True).changed
    assert accepts(mail)[0] == "TLSv1.1"


def test_a_kind_that_has_no_floor_says_so(tmp_path, authority):
    server = FakeMail(tmp_path, authority).start("offered")
    with pytest.raises(
        EngineError,
        match=r"^starttls_min_tls is TLSv1.2, and the collection cannot set that for this kind of mail server",
    ):
        server.set("offered", min_tls="TLSv1.2")
    server.port.close()


@pytest.mark.parametrize("value", ["TLSv1", "SSLv3\nx", "1.2"])
def test_another_word_is_refused(value):
    with pytest.raises(EngineError, match=r"is not one of TLSv1\.2, TLSv1\.3, none"):
        Desired(min_tls=value).check()


# Next hops


def test_a_next_hop_that_does_not_reach_the_floor_refuses_it_where_tls_is_required(mail):
    mail.start("offered", "required")
    with serving(face(mail.certificate, most=ssl.TLSVersion.TLSv1_1)) as old:
        mail.hops = [Target(old.host, old.port)]
        with pytest.raises(
            EngineError,
            match=r"^starttls_min_tls TLSv1.2 is refused, .*: it does not speak TLSv1.2\. Renew the accepting",
        ):
            set_remote(mail, "required")
        assert mail.settings["floor"] == ""
        assert (
            set_remote(mail, "opportunistic")
            .warnings[-1]
            .endswith("it does not speak TLSv1.2, so mail would go there in plaintext")
        )


def test_a_server_that_keeps_mail_back_before_it_goes_on_in_plaintext_refuses_it_in_any_case(mail):
    mail.plaintext_at_once = False
    mail.start("offered", "opportunistic")
    with serving(face(mail.certificate, most=ssl.TLSVersion.TLSv1_1)) as old:
        mail.hops = [Target(old.host, old.port)]
        with pytest.raises(
            EngineError, match=r"because mail would be deferred: .*: it does not speak TLSv1\.2\. Renew"
        ):
            set_remote(mail, "opportunistic")
        assert mail.settings["floor"] == ""
    mail.hops = [Target("127.0.0.1", refused_port())]
    said = set_remote(mail, "opportunistic").warnings[-1]
    assert said.endswith("; if it offers STARTTLS and does not, mail waits, and then goes there in plaintext")


def set_remote(mail, outbound):
    """Set the floor, with next hops that are not taken for the loopback."""
    hops = mail.hops
    ways = [WayOut(Remote("relayhost", "smtp", one.host, one.port, "encrypt"), outbound) for one in hops]
    mail.sides = lambda _change=None: Sides((), tuple(ways))
    return mail.set("offered", outbound, min_tls="TLSv1.2")


class Remote(Transport):
    """A next hop on another host."""

    loopback = False


def test_a_next_hop_that_does_not_answer_is_not_known(mail):
    mail.start("offered", "required")
    mail.hops = [Target("127.0.0.1", refused_port())]
    with pytest.raises(EngineError, match=r"it is not known whether it speaks TLSv1\.2"):
        set_remote(mail, "required")


@pytest.mark.parametrize("hard", [True, False])
def test_a_peer_is_asked_whose_transport_gets_the_floor_as_well(mail, hard):
    with serving(face(mail.certificate, most=ssl.TLSVersion.TLSv1_1)) as old:
        mail.peer_hops = lambda: [(Target(old.host, old.port), hard)]
        if hard:
            with pytest.raises(EngineError, match=r"it does not speak TLSv1\.2\. Renew the accepting side"):
                mail.set("offered", "opportunistic", min_tls="TLSv1.2")
            assert mail.settings["floor"] == ""
            [said] = [one["message"] for one in mail.read("offered", "opportunistic", min_tls="TLSv1.2")["obstacles"]]
            assert said.startswith(
                f"starttls_min_tls TLSv1.2 is refused, because mail would be deferred: {old.host}:{old.port}"
            )
        else:
            found = mail.set("offered", "opportunistic", min_tls="TLSv1.2")
            assert found.warnings[-1].endswith("it does not speak TLSv1.2, so mail would go there in plaintext")


# What the plan shows


def test_the_plan_names_who_would_be_shut_out(mail, tmp_path):
    mail.log = tmp_path / "mail.log"
    line = (
        "2026-11-29T10:00:00 mx postfix/{}[7]: Anonymous TLS connection established {}: {} with cipher X (1/1 bits)\n"
    )
    clients = [line.format("smtpd", f"from h{number}.example.com[192.0.2.{number}]", "TLSv1.1") for number in range(7)]
    servers = [line.format("smtp", "to relay.example.com[192.0.2.9]:25", version) for version in ("TLSv1", "TLSv1.3")]
    mail.log.write_text("".join(clients + servers))
    result = mail.read("offered", "opportunistic", min_tls="TLSv1.2")
    said = [one["message"] for one in result["notes"] if one["code"] == "tls_floor_shuts_out"]
    assert said == [
        "the floor TLSv1.2 would shut out 7 clients that used TLSv1.1 (h2.example.com[192.0.2.2], h3.example.com[192.0.2.3], "
        "h4.example.com[192.0.2.4], h5.example.com[192.0.2.5], h6.example.com[192.0.2.6] and 2 more); log from 2026-11-29T10:00 to "
        "2026-11-29T10:00",
        "the floor TLSv1.2 would shut out 1 server that used TLSv1 (relay.example.com[192.0.2.9]); log from 2026-11-29T10:00 to "
        "2026-11-29T10:00",
    ]


def test_nobody_and_not_told_are_two_things(mail, tmp_path):
    mail.log = tmp_path / "mail.log"
    mail.log.write_text(
        "2026-11-29T10:00:00 mx postfix/smtpd[7]: Anonymous TLS connection established from a[192.0.2.1]: TLSv1.3 with cipher X (1/1)\n"
    )
    assert notes(mail) == {
        "tls_floor_nobody": "the floor TLSv1.2 would shut out no client (log from 2026-11-29T10:00 to 2026-11-29T10:00, 1 sessions)",
        "tls_floor_not_told": "the log tells no TLS version of servers, so it is not known which of them the floor TLSv1.2 would shut out",
    }


def test_the_plan_says_what_of_the_log_was_not_read(mail, tmp_path):
    mail.log = tmp_path / "mail.log*"
    for number in range(5):
        (tmp_path / f"mail.log.{number}.gz").write_bytes(b"\x1f\x8b\x08")
    said = notes(mail)["tls_floor_not_told"]
    assert said.count("; not read: ") == 1
    assert said.count(str(tmp_path)) == 3
    assert said.endswith(" and 2 more")


def test_with_the_floor_there_nothing_is_foretold(mail):
    mail.set("offered", "opportunistic", min_tls="TLSv1.2")
    assert notes(mail) == {}


def test_what_the_floor_does_not_hold_for_is_named(mail):
    mail.other_permits = (Permit("submission/inet", "TLSv1", "take it out"), Permit("tls", None))
    mail.set("offered", "opportunistic", min_tls="TLSv1.2")
    result = mail.read("offered", "opportunistic", min_tls="TLSv1.2")
    assert [one["message"] for one in result["notes"] if one["code"] == "tls_floor_not_reached"] == [
        "submission/inet goes on to permit TLSv1, which is older than TLSv1.2; take it out",
        "it cannot be told which TLS versions are permitted by tls",
    ]


def test_a_direction_that_is_switched_off_has_no_floor(mail):
    assert Desired("disabled", "opportunistic", min_tls="TLSv1.2").floor_in("inbound") == ""
    assert Desired("offered", None, min_tls="TLSv1.2").floor_in("outbound") == ""
    assert mail.set("disabled", "disabled").changed
