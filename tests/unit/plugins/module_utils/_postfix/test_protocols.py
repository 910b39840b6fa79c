"""A floor for TLS versions on Postfix, against a stand-in for its commands."""

from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import Record, texts
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import protocols, server
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.permits import below
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.fake_postfix import MAIN, MASTER, TLS_DEFAULTS, FakePostfix

LISTS = {
    f"{program}_tls_{name}": f"$smtpd_tls_{name}" if program == "tlsproxy" else ">=TLSv1"
    for program in ("smtpd", "smtp", "tlsproxy")
    for name in ("protocols", "mandatory_protocols")
}
DEFAULTS = {**TLS_DEFAULTS, **LISTS}
SUBMISSION = "submission inet n  -  y  -  -  smtpd\n"
FLOOR = dict.fromkeys((*protocols.RECEIVING_LISTS, *protocols.SENDING_LISTS), ">=TLSv1.2")


class Host:
    """A host with what the record knows of its files."""

    def __init__(self, monkeypatch, directory, main="", master=MASTER, defaults=DEFAULTS):
        self.fake = FakePostfix(directory, MAIN + main, master, defaults)
        self.files = (self.fake.main, self.fake.master)
        monkeypatch.setattr(server, "Postconf", lambda run, _config_dir: Postconf(run, str(directory)))
        self.first = [path.read_bytes() for path in self.files]
        self.record = Record()

    def plan(self, min_tls, inbound="offered", outbound="opportunistic"):
        known, _edited = texts(self.record, map(str, self.files))
        return server.Postfix(self.fake).plan(Desired(inbound, outbound, was=known, min_tls=min_tls))

    def apply(self, *args):
        change = self.plan(*args)
        self.record = self.record.noted([(FileImage.read(image.path), image) for image in change.after])
        for image in change.after:
            image.write()
        assert not self.plan(*args)
        return change

    @property
    def set(self):
        return {name: value for name, value in self.fake.explicit().items() if name.endswith("_protocols")}

    def permits(self):
        return server.Postfix(self.fake).permits("TLSv1.2")


@pytest.fixture
def make(monkeypatch, tmp_path):
    return lambda *args, **more: Host(monkeypatch, tmp_path / "postfix", *args, **more)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", "SSLv2"), (">=TLSv1", "TLSv1"), (">=TLSv1.2", "TLSv1.2"), (">= TLSv1.2", None), (">=0303", "TLSv1.2"),
        ("!SSLv2, !SSLv3", "TLSv1"), ("!SSLv2:!SSLv3:!TLSv1:!TLSv1.1", "TLSv1.2"), ("TLSv1.2, TLSv1.3", "TLSv1.2"),
        ("tlsv1.1 tlsv1.3", "TLSv1.1"), (">=TLSv1.1, !TLSv1.1", "TLSv1.2"), (">=TLSv1.1 <=TLSv1.2", "TLSv1.1"),
        ("<=TLSv1.1", "SSLv2"), ("TLSv1, !TLSv1", ""), (">=0x0304", "TLSv1.3"), ("TLSv1.4", None), ("$mine", None), ("!TLSv1; x", None),
    ],
)  # fmt: skip
def test_the_oldest_version_of_a_list(value, expected):
    assert protocols.oldest(value) == expected


@pytest.mark.parametrize(
    ("version", "floor", "expected"),
    [
        ("3.7.11", "TLSv1.2", ">=TLSv1.2"),
        ("3.6.0", "TLSv1.3", ">=TLSv1.3"),
        ("3.11-20260101", "TLSv1.2", ">=TLSv1.2"),
        ("3.5.25", "TLSv1.2", "!SSLv2, !SSLv3, !TLSv1, !TLSv1.1"),
        ("3.4.14", "TLSv1.3", "!SSLv2, !SSLv3, !TLSv1, !TLSv1.1, !TLSv1.2"),
        ("", "TLSv1.2", "!SSLv2, !SSLv3, !TLSv1, !TLSv1.1"),
    ],
)
def test_each_postfix_gets_what_it_understands(version, floor, expected):
    assert protocols.spelled(version, floor) == expected
    assert protocols.oldest(expected) == floor


def test_without_the_variable_nothing_is_touched(make):
    host = make()
    host.apply("")
    assert host.set == {}


def test_both_directions_get_the_floor_and_none_puts_all_back(make):
    host = make("smtp_tls_protocols = !SSLv2, !SSLv3\n")
    host.apply("")
    offered = [path.read_bytes() for path in host.files]
    host.apply("TLSv1.3")
    assert set(host.set.values()) == {">=TLSv1.3"}
    host.apply("TLSv1.2")
    assert host.set == FLOOR
    host.apply("")  # without the variable, it stays
    assert host.set == FLOOR
    host.apply("none")
    assert [path.read_bytes() for path in host.files] == offered


def test_switched_off_everything_is_as_it_was_byte_for_byte(make):
    host = make("smtpd_tls_mandatory_protocols=TLSv1 ,TLSv1.1\n")
    host.apply("TLSv1.2")
    assert host.set == FLOOR
    host.apply("TLSv1.2", "disabled", "disabled")
    assert [path.read_bytes() for path in host.files] == host.first


def test_one_direction_alone(make):
    host = make()
    host.apply("TLSv1.2", None, "opportunistic")
    assert host.set == dict.fromkeys(protocols.SENDING_LISTS, ">=TLSv1.2")


def test_what_is_as_strict_stays(make):
    host = make(
        "smtpd_tls_protocols = TLSv1.3\nsmtp_tls_mandatory_protocols = $mine\nmine = !SSLv2 !SSLv3 !TLSv1 !TLSv1.1\n"
    )
    host.apply("TLSv1.2")
    assert host.set == {**FLOOR, "smtpd_tls_protocols": "TLSv1.3", "smtp_tls_mandatory_protocols": "$mine"}


def test_an_older_postfix_gets_exclusions(make):
    host = make(defaults={**DEFAULTS, "mail_version": "3.5.25"})
    host.apply("TLSv1.2")
    assert set(host.set.values()) == {"!SSLv2, !SSLv3, !TLSv1, !TLSv1.1"}


def test_a_list_that_is_not_understood_is_refused_with_the_line_to_write(make):
    host = make("smtp_tls_protocols = TLSv9\n")
    with pytest.raises(
        EngineError,
        match=r"^smtp_tls_protocols is 'TLSv9', .*write '>=TLSv1.2' there, or take it out: postconf -X smtp_tls",
    ):
        host.plan("TLSv1.2")


@pytest.mark.parametrize("service", ["smtp/inet", "smtp/unix"])
def test_a_looser_override_of_the_own_port_or_client_is_refused(make, service):
    name = "smtpd_tls_protocols" if service.endswith("inet") else "smtp_tls_protocols"
    host = make()
    host.fake(["postconf", "-c", str(host.fake.main.parent), "-P", f"{service}/{name}=>=TLSv1"])
    with pytest.raises(
        EngineError, match=rf"master.cf sets {name}=>=TLSv1, .*remove it first: postconf -PX '{service}/{name}'$"
    ):
        host.plan("TLSv1.2")


def test_a_stricter_override_stays(make):
    host = make(master=MASTER + SUBMISSION + "  -o smtpd_tls_protocols=TLSv1.3\n")
    change = host.apply("TLSv1.2")
    assert [
        image.path for image in change.after if image.path.endswith("master.cf") and image.content != host.first[1]
    ] == []


def test_a_looser_override_of_another_port_is_named_with_the_line(make):
    main = "smtpd_tls_security_level = may\nsmtpd_tls_chain_files = /srv/own.pem\n"
    host = make(main, MASTER + SUBMISSION + "  -o smtpd_tls_protocols=>=TLSv1.1\n")
    host.apply("TLSv1.2")
    assert below(host.permits().inbound, "TLSv1.2") == [
        "submission/inet goes on to permit TLSv1.1, which is older than TLSv1.2; master.cf sets smtpd_tls_protocols for submission/inet: "
        "take it out (postconf -PX 'submission/inet/smtpd_tls_protocols')"
    ]


def test_the_list_that_counts_depends_on_the_level(make):
    main = "smtpd_tls_security_level = may\nsmtpd_tls_chain_files = /srv/own.pem\nsmtpd_tls_protocols = >=TLSv1.2\n"
    wrapped = "465 inet n  -  y  -  -  smtpd\n  -o smtpd_tls_wrappermode=yes\n"
    host = make(main, MASTER + SUBMISSION + "  -o smtpd_tls_security_level=encrypt\n" + wrapped)
    found = {one.name: one.oldest for one in host.permits().inbound}
    assert found == {"smtp/inet": "TLSv1.2", "submission/inet": "TLSv1", "465/inet": "TLSv1"}


def test_postscreen_does_its_tls_in_tlsproxy(make):
    master = (
        MASTER.replace("smtpd\n", "postscreen\n", 1) + "smtpd pass - - y - - smtpd\ntlsproxy unix - - y - 0 tlsproxy\n"
    )
    host = make("smtpd_tls_security_level = may\ntlsproxy_tls_protocols = >=TLSv1\n", master)
    host.apply("TLSv1.2")
    assert below(host.permits().inbound, "TLSv1.2") == [
        "smtp/inet goes on to permit TLSv1, which is older than TLSv1.2; main.cf decides that: postconf -e "
        "'tlsproxy_tls_protocols=>=TLSv1.2'"
    ]


def test_a_table_of_policies_that_permits_more_is_named_by_its_entry(make):
    host = make("smtp_tls_policy_maps = hash:/etc/postfix/policy\n")
    host.fake.answers[("postmap", "-s", "hash:/etc/postfix/policy")] = (
        0,
        "old.example.com\tencrypt protocols=TLSv1:TLSv1.1\nnew.example.com\tencrypt protocols=>=TLSv1.3\nmay.example.com\tmay\n",
        "",
    )
    host.apply("TLSv1.2")
    assert below(host.permits().outbound, "TLSv1.2") == [
        "the entry 'old.example.com' of smtp_tls_policy_maps = hash:/etc/postfix/policy goes on to permit TLSv1, which is older than "
        "TLSv1.2; take protocols=TLSv1:TLSv1.1 out of that entry"
    ]


def test_a_table_that_cannot_be_listed_is_no_proof(make):
    host = make("smtp_tls_policy_maps = ldap:/etc/postfix/policy\n")
    host.fake.answers[("postmap", "-s")] = (1, "", "unsupported")
    assert host.permits().notes == (
        "smtp_tls_policy_maps = ldap:/etc/postfix/policy cannot be listed, so it is not known whether it permits older TLS versions",
    )


def test_the_transports_of_a_gateway_are_not_main_cfs_and_those_of_peers_are(make):
    more = "".join(
        f"{name} unix - - y - - smtp\n  -o smtp_tls_security_level=encrypt\n"
        for name in ("mailfleet-required", "mailfleet_peer_ex")
    )
    assert [one.name for one in make(master=MASTER + more).permits().outbound] == ["mailfleet_peer_ex/unix"]


def test_the_peers_that_the_floor_holds_for_as_well(make, tmp_path):
    own = tmp_path / "postfix/mailfleet-peers/transport"
    master = MASTER + "".join(
        f"mailfleet_peer_{name} unix - - y - - smtp\n  -o smtp_tls_security_level={level}\n"
        for name, level in (("hard", "verify"), ("soft", "may"), ("off", "none"), ("all", "encrypt"))
    )
    host = make(f"transport_maps = texthash:{own}\ndefault_transport = mailfleet_peer_all:[192.0.2.9]\n", master)
    own.parent.mkdir()
    own.write_text(
        "a.example mailfleet_peer_hard:[mx.example]:25,[2001:db8::1]:2525\n"
        "b.example mailfleet_peer_soft:[soft.example]:25\nc.example mailfleet_peer_off:[off.example]:25\n"
    )
    adapter = server.Postfix(host.fake, layout=replace(DEBIAN, config_dir=str(own.parents[1])))
    assert {str(target): hard for target, hard in adapter.peer_hops()} == {
        "192.0.2.9:25": True, "mx.example:25": True, "[2001:db8::1]:2525": True, "soft.example:25": False,
    }  # fmt: skip
