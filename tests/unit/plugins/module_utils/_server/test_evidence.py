"""The evidence for a change is as wide as the change: every listener and next hop that inherits a setting."""

import ssl
from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import Listener, Transport
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import (
    Reached,
    Sides,
    WayOut,
    fewer,
    is_loopback,
    shut,
    target_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import fault as fault_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reading import Reading
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

from tests.support.fake_mail import BRIEF, NAME, FakeMail
from tests.support.smtp_server import PLAIN, Face, SmtpServer, refused_port, server_context, serving


class WideMail(FakeMail):
    """A mail server with a second listener, a submission port, and ways of outgoing mail that it names."""

    def __init__(self, directory, authority):
        super().__init__(directory, authority)
        self.own = directory / "own.pem"
        issued = authority.issue(["submission.example.com"])
        self.own.write_bytes(issued.key_pem + issued.fullchain_pem)
        self.second = SmtpServer(PLAIN)
        self.inherits = True
        """Whether the second listener has the certificate of the first."""
        self.spoils = False
        """Whether a change makes the second listener serve another certificate than its configuration says."""
        self.ways = ()
        self.unread = ()
        self.closed = {}
        self.names = ()
        self.follow_second(offered=False)

    def follow_second(self, offered=True):
        path = self.certificate if self.inherits != self.spoils else self.own
        if not offered and self.inherits:
            self.second.face = PLAIN
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path if offered else self.own)
        self.second.face = Face(context=context)

    def follow(self):
        super().follow()
        self.follow_second(self.settings["inbound"] != "disabled")

    def sides(self, change=None):
        after = change is not None and any(b"inbound=disabled" not in (one.content or b"") for one in change.after)
        on = after or self.settings["inbound"] != "disabled"
        certificate = str(self.certificate) if self.inherits else str(self.own)
        second = ("offered", (certificate,)) if on or not self.inherits else ("none", ())
        required = change is not None and any(b"outbound=required" in (one.content or b"") for one in change.after)
        return Sides(
            (
                Listener("smtp", self.port.host, self.port.port, "offered" if on else "none"),
                Listener("submission", self.second.host, self.second.port, *second),
            ),
            tuple(self.way(one, required) for one in self.ways),
            self.closed,
            self.names,
            self.unread if required else (),
        )

    @staticmethod
    def way(given, required):
        setting, hop, port, more = given
        transport = Transport(setting, "smtp", hop, port, "encrypt" if required else "may", more.pop("implicit", False))
        return WayOut(transport, "required" if required else "opportunistic", **more)


@pytest.fixture
def mail(tmp_path, authority):
    server = WideMail(tmp_path, authority)
    yield server
    server.port.close()
    server.second.close()


@pytest.fixture
def acceptor(authority, tmp_path):
    with serving(Face(context=server_context(tmp_path, authority.issue(["gw.example.com"])))) as server:
        yield server


class TestListeners:
    def test_one_that_inherits_the_certificate_is_proved_to_serve_it(self, mail):
        assert mail.set("offered").changed is True

    def test_one_that_does_not_serve_it_undoes_the_change_by_name(self, mail):
        before = mail.config.read_bytes()
        mail.spoils = True
        with pytest.raises(
            TransactionError, match=rf"submission \(127.0.0.1:{mail.second.port}\) does not show the wanted state"
        ) as error:
            mail.set("offered", settings=BRIEF)
        assert "is none of" in str(error.value) and error.value.restored is True
        assert mail.config.read_bytes() == before

    def test_one_with_a_certificate_of_its_own_keeps_serving_it(self, mail):
        mail.inherits = False
        mail.follow()
        assert mail.set("offered").changed is True

    def test_one_that_loses_its_own_certificate_undoes_the_change_by_name(self, mail):
        """What Postfix does if smtpd_tls_chain_files appears in main.cf."""
        mail.inherits = False
        mail.follow()
        mail.spoils = True
        with pytest.raises(
            TransactionError, match=r"submission .* it serves another certificate .* than before"
        ) as error:
            mail.set("offered", settings=BRIEF)
        assert error.value.restored is True

    def test_one_whose_own_file_is_gone_goes_on_without_tls(self, mail):
        """What was broken before the first change is no reason to refuse the way back to it."""
        old, now = (Handshake(Target("127.0.0.1", 587), stage) for stage in (Stage.EHLO_TLS, Stage.EHLO))
        listener = Listener("submission", "", 587, "offered", ("/new.pem",))
        for tls, fault in (("offered", False), ("implicit", False), ("required", True)):
            former = replace(listener, tls=tls, certificates=("/gone.pem",))
            place = Reached(listener, former, old.target)
            assert bool(fault_of(place, old, now, lambda _paths: (), "/new.pem")) is fault

    def test_one_that_has_no_certificate_after_the_change_may_close_the_connection(self):
        """Port 465 that had TLS from the first byte and no certificate before the collection came, once TLS is switched off again."""
        old, now = (Handshake(Target("127.0.0.1", 465), stage) for stage in (Stage.EHLO_TLS, Stage.CONNECT))
        former = Listener("smtps", "", 465, "implicit", ("/new.pem",))
        place = Reached(former, replace(former, certificates=()), old.target)
        assert fault_of(place, old, now, lambda _paths: (), "/new.pem") == ""

    def test_one_that_insists_on_a_certificate_of_its_client_is_no_fault(self):
        """A test without one ends in the handshake, before and after the change."""
        seen = Handshake(Target("127.0.0.1", 587), Stage.EHLO, code="client_certificate_required")
        former = Listener("submission", "", 587, "required", ("/old.pem",))
        place = Reached(former, replace(former, certificates=("/new.pem",)), seen.target)
        assert fault_of(place, seen, seen, lambda _paths: ("a" * 64,), "/new.pem") == ""

    def test_a_renewed_file_of_its_own_is_no_difference(self, mail, authority):
        mail.inherits = False
        mail.follow()
        issued = authority.issue(["submission.example.com"])
        mail.own.write_bytes(issued.key_pem + issued.fullchain_pem)
        assert mail.set("offered").changed is True

    def test_one_that_did_not_answer_before_is_said_and_not_proved(self, mail):
        mail.second.close()
        outcome = mail.set("offered")
        assert any(
            one.startswith(f"submission (127.0.0.1:{mail.second.port}) does not answer") for one in outcome.warnings
        )

    def test_one_that_cannot_be_tested_is_said(self, mail):
        mail.closed = {"submission": "it wants a proxy's header before each session"}
        mail.spoils = True
        outcome = mail.set("offered")
        assert "submission is not proved: it wants a proxy's header before each session" in outcome.warnings

    def test_the_read_tells_what_the_change_reaches(self, mail):
        reached = mail.read("offered")["reach"]
        assert [(one["service"], one["before"], one["after"]) for one in reached["listeners"]] == [
            ("smtp", "none", "offered"),
            ("submission", "none", "offered"),
        ]
        assert reached["transports"] == []
        assert mail.read()["reach"] is None

    def test_one_on_the_loopback_is_not_shut(self):
        """A content filter hands mail back there, and may know no TLS."""
        before = Sides((Listener("127.0.0.1:10025", "127.0.0.1", 10025, "offered"), Listener("x", "", 587, "offered")))
        after = Sides((Listener("127.0.0.1:10025", "127.0.0.1", 10025, "required"), Listener("x", "", 587, "required")))
        (said,) = shut(before, after, Target("127.0.0.1"))
        assert said.startswith("127.0.0.1:10025 takes mail from this host only, and would begin to require TLS")
        assert shut(after, after, Target("127.0.0.1")) == shut(before, after, Target("127.0.0.1", 10025)) == []

    def test_an_algorithm_that_would_be_gone_is_said(self):
        before = Sides((Listener("smtp", "", 25, "offered", ("/rsa.pem", "/ec.pem")),))
        after = Sides((Listener("smtp", "", 25, "offered", ("/new.pem",)),))
        (said,) = fewer(before, after)
        assert said.startswith("smtp has 2 certificates now (/rsa.pem, /ec.pem) and 1 after the change")
        assert fewer(after, before) == []

    def test_a_name_with_a_certificate_of_its_own_is_served_as_before(self, mail, authority):
        mail.inherits = False
        mail.names = (NAME,)
        mail.follow()
        assert mail.set("offered").changed is True

    @pytest.mark.parametrize(
        ("host", "target"),
        [
            ("", "192.0.2.1:587"),
            ("all", "192.0.2.1:587"),
            ("loopback-only", "127.0.0.1:587"),
            ("198.51.100.1, 127.0.0.1", "127.0.0.1:587"),
            ("192.0.2.1 localhost", "192.0.2.1:587"),
            ("2001:db8::1", "[2001:db8::1]:587"),
            ("$odd", "None"),
        ],
    )
    def test_where_a_listener_is_tested(self, host, target):
        assert str(target_of(Listener("x", host, 587, "offered"), "192.0.2.1")) == target
        assert target_of(Listener("x", host, None, "offered"), "192.0.2.1") is None
        assert is_loopback("::1") and not is_loopback("192.0.2.1")


class TestTheReadOfEveryListener:
    def read(self, mail, ports=()):
        server = mail
        reading = Reading(server, mail.desired(), BRIEF, str(mail.store), ports=ports)
        tests = reading.read(["nobody"])["listener_tests"]
        return [(one["service"], one["port"], one["completed"], one["message"]) for one in tests]

    @pytest.fixture
    def wide(self, mail):
        listed = [*mail.sides().listeners]
        mail.observe = lambda: {
            "listeners": [one.to_json() for one in mail.sides().listeners or listed],
            "transports": [],
        }
        return mail

    def test_one_that_does_what_its_configuration_says(self, wide):
        wide.start("offered")
        assert self.read(wide) == [("submission", wide.second.port, True, "")]

    def test_one_that_does_not(self, wide):
        wide.start("offered")
        wide.second.face = PLAIN
        ((*_who, message),) = self.read(wide)
        assert message == "the server does not offer STARTTLS"

    def test_one_that_serves_another_certificate_than_its_file_has(self, wide):
        wide.spoils = True
        wide.start("offered")
        ((*_who, message),) = self.read(wide)
        assert "is none of" in message

    def test_only_the_ports_that_are_named(self, wide):
        wide.start("offered")
        assert self.read(wide, [wide.second.port]) != []
        assert self.read(wide, [587]) == self.read(wide, None) == []


class TestOutgoing:
    def refused(self, mail):
        with pytest.raises(EngineError) as error:
            mail.set(outbound="required")
        assert mail.settings["outbound"] == "disabled"
        return str(error.value)

    def test_each_way_is_tested_and_named(self, mail, acceptor):
        with serving(PLAIN) as plain:
            mail.ways = (
                ("relayhost", "127.0.0.1", acceptor.port, {}),
                ("filter", "127.0.0.1", plain.port, {"advice": "do this"}),
            )
            said = self.refused(mail)
        assert f"127.0.0.1:{plain.port}: the server does not offer STARTTLS (filter); do this" in said
        assert str(acceptor.port) not in said

    def test_what_undercuts_the_level_is_found_before_the_change(self, mail, acceptor):
        mail.ways = (("relayhost", "127.0.0.1", acceptor.port, {"undercut": "the table x says may"}),)
        assert "relayhost (to 127.0.0.1:" in self.refused(mail)
        assert "the table x says may" in self.refused(mail)

    def test_what_undercuts_the_level_is_said_where_it_is_no_obstacle(self, mail, acceptor):
        mail.ways = (("relayhost", "127.0.0.1", acceptor.port, {"undercut": "the table x says may"}),)
        outcome = mail.set(outbound="required", require_without_evidence=True)
        assert "the table x says may" in outcome.warnings[0]

    def test_what_cannot_be_listed_is_named(self, mail, acceptor):
        mail.ways, mail.unread = (("relayhost", "127.0.0.1", acceptor.port, {}),), ("the table y cannot be listed",)
        assert "the table y cannot be listed" in self.refused(mail)

    def test_the_read_says_the_same_before_any_change(self, mail, acceptor):
        port = refused_port()
        mail.ways, mail.unread = (
            (("relayhost", "127.0.0.1", acceptor.port, {}), ("old", "127.0.0.1", port, {})),
            ("table y",),
        )
        read = mail.read(outbound="required")
        assert [one["code"] for one in read["obstacles"]] == ["change_refused"] and "table y" in read["obstacles"][0][
            "message"
        ]
        assert [(one["port"], one["completed"], one["settings"]) for one in read["next_hops"]] == [
            (acceptor.port, True, "relayhost"),
            (port, False, "old"),
        ]

    def test_a_domain_and_the_mx_of_each_domain_are_no_hosts(self, mail):
        mail.ways = (("relayhost", "example.net", 25, {"by_domain": True}), ("relay_transport", None, None, {}))
        said = self.refused(mail)
        assert "example.net is a domain whose MX is looked up" in said and "relay_transport" in said

    def test_implicit_tls_is_tested_as_that(self):
        way = WayOut(Transport("relayhost", "smtp", "r.example.net", 465, "encrypt", True), "required")
        assert way.target == Target("r.example.net", 465, protocol="smtps")
