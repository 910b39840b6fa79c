"""Whether Exim still enforces and sends as the record says, after somebody edited its configuration by hand."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.server import MAIL_ACL, NEXT_MAIL_ACL
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import describe
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import OutboundTls

from tests.support.exim_host import EximHost, inbound, outbound, routed

FROM, TO = "partner.example", "bank.example"
INSISTS = "driver = smtp\nhosts_avoid_tls =\nhosts_require_tls = *\n"
VERIFIES = f"{INSISTS}tls_verify_hosts = *\ntls_verify_cert_hostnames = *\n"
MAY, NEVER, PARTLY = (
    f"driver = smtp\nhosts_avoid_tls ={avoid}\nhosts_require_tls ={require}\n"
    for avoid, require in (("", ""), (" *", ""), ("", " 192.0.2.1"))
)
ROUTERS = {"own": "domains = own.example\nsenders = a@b.example", "mailfleet_enforced": "senders =\nlocal_parts ="}


@pytest.fixture
def host(monkeypatch, tmp_path):
    made = EximHost(monkeypatch, tmp_path, split=True)
    usual = made.run

    def run(arguments):
        if list(arguments[:2]) == ["exim4", "-be"]:
            return 0, "no\n" * len(arguments[2:]), ""
        return usual(arguments)

    made.run = run
    made.renew()
    return made


def shows(host, transports=(), routers=ROUTERS, **settings):
    """What exim -bP prints. The macros are where Debian's configuration has them."""
    present = host.read_macros()
    following = present.get(NEXT_MAIL_ACL, "acl_check_mail")
    acl = present.get(MAIL_ACL, "acl_check_mail").replace(NEXT_MAIL_ACL, following)
    options = {"acl_smtp_mail": acl, "tls_advertise_hosts": present.get("MAIN_TLS_ADVERTISE_HOSTS", "*"), **settings}
    text = f"{host.generated}\n" + "".join(f"{name} = {value}\n" for name, value in options.items())
    text += "".join(f"\n{name} transport:\n{more}\n" for name, more in dict(transports).items())
    text += "".join(f"\n{name} router:\n{more}\n" for name, more in routers.items())
    host.answers[("exim4", "-bP")] = (0, text, "")
    host.renew()


def in_force(host):
    return describe(host.adapter)["in_force"]


class TestSenders:
    @pytest.fixture(autouse=True)
    def enforced(self, host):
        host.write(enforced=inbound("other.example", FROM), outbound=OutboundTls("tls_only", None, ("192.0.2.0/24",)))
        shows(host)

    def test_as_written(self, host):
        assert in_force(host) == {"inbound": {"other.example": True, FROM: True}, "accept": {"tls_only": True}}

    def test_macros_that_were_taken_out(self, host):
        host.macros.write_text("")
        shows(host)
        assert in_force(host) == {"inbound": {"other.example": False, FROM: False}, "accept": {"tls_only": False}}

    def test_a_list_before_ours_cannot_be_told(self, host):
        own = "${if eq{$sender_host_address}{192.0.2.1}{accept}{" + host.read_macros()[MAIL_ACL] + "}}"
        shows(host, acl_smtp_mail=own)
        assert in_force(host) == {"inbound": {"other.example": None, FROM: None}, "accept": {"tls_only": None}}

    def test_what_exim_does_not_print_cannot_be_told(self, host):
        host.answers[("exim4", "-bP", "acl_smtp_mail")] = (1, "", "exim: no")
        host.answers = dict(sorted(host.answers.items(), reverse=True))
        assert in_force(host)["inbound"] == {"other.example": None, FROM: None}

    @pytest.mark.parametrize(
        ("file", "old", "new", "answer"),
        [
            ("SENDERS", FROM, "gone.example", False),
            ("SENDERS", "other", "more.example:\nother", None),
            ("SENDER_ACL", "defer", "warn", False),
            ("SENDER_ACL", "defer", "accept hosts = 192.0.2.9\ndefer", None),
        ],
    )
    def test_edited_files(self, host, file, old, new, answer):
        path = host.directory / getattr(gateway, file).rpartition("/")[2]
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
        assert in_force(host)["inbound"][FROM] is answer


class TestRecipients:
    CHECKS = (("encryption_only", INSISTS), ("trusted_chain", VERIFIES), ("hostname", VERIFIES))

    @pytest.mark.parametrize(("check", "options"), CHECKS)
    def test_as_written(self, host, check, options):
        host.write(enforced=[outbound(TO, check, "mx.bank.example")])
        shows(host, {f"mailfleet_{check}": options})
        assert in_force(host) == {"outbound": {TO: True}}

    @pytest.mark.parametrize(
        ("transport", "options", "answer"),
        [
            ("mailfleet_hostname", MAY, False),
            ("mailfleet_hostname", PARTLY, False),
            ("mailfleet_hostname", INSISTS, False),
            ("remote_smtp", VERIFIES, False),
        ],
    )
    def test_another_transport(self, host, transport, options, answer):
        host.write(enforced=[outbound(TO, "hostname", "mx.bank.example")])
        shows(host, {transport: options})
        host.answers[("exim4", "-bt")] = (0, routed(f"postmaster@{TO}", transport, "mailfleet_enforced"), "")
        assert in_force(host) == {"outbound": {TO: answer}}

    def test_a_domain_that_cannot_be_routed_now(self, host):
        host.write(enforced=[outbound(TO)])
        shows(host)
        host.answers[("exim4", "-bt")] = (1, f"postmaster@{TO} cannot be resolved at this time\n", "")
        assert in_force(host) == {"outbound": {TO: None}}

    @pytest.mark.parametrize(
        "routers",
        [
            {**ROUTERS, "own": "domains =\nsenders = a@b.example"},
            {**ROUTERS, "mailfleet_enforced": "senders = !a@b.example\nlocal_parts ="},
            {},
        ],
    )
    def test_routers_that_may_look_at_the_sender(self, host, routers):
        host.write(enforced=[outbound(TO, "encryption_only", "mx.bank.example")])
        shows(host, {"mailfleet_encryption_only": INSISTS}, routers)
        assert in_force(host) == {"outbound": {TO: None}}


@pytest.mark.parametrize(
    ("accept", "hosts", "answer"),
    [
        ("plaintext", None, True),
        ("plaintext", "*", False),
        ("plaintext", "<; ! 192.0.2.1 ; *", None),
        ("both", "*", True),
    ],
)
def test_accept(host, accept, hosts, answer):
    host.write(outbound=OutboundTls(accept, None, ("192.0.2.0/24", "2001:db8::/32")))
    shows(host, **({"tls_advertise_hosts": hosts} if hosts else {}))
    assert in_force(host) == {"accept": {accept: answer}}


@pytest.mark.parametrize(
    ("send", "options", "answer"),
    [
        ("required", INSISTS, True),
        ("required", MAY, False),
        ("required", PARTLY, None),
        ("opportunistic", MAY, True),
        ("opportunistic", NEVER, False),
        ("required", "driver = lmtp\n", None),
    ],
)
def test_send(host, send, options, answer):
    host.write(outbound=OutboundTls(None, send))
    shows(host, {"remote_smtp": options})
    assert in_force(host) == {"send": {send: answer}}


@pytest.mark.parametrize(
    ("routers", "over_tls", "answer"),
    [
        ({"mailfleet_over_tls_dnslookup": ""}, INSISTS, True),
        ({"mailfleet_over_tls_dnslookup": ""}, MAY, False),
        ({}, INSISTS, False),
    ],
)
def test_send_by_how_mail_arrived(host, routers, over_tls, answer):
    host.write(outbound=OutboundTls(None, "match_sender_strict"))
    shows(host, {"remote_smtp": NEVER, "mailfleet_over_tls": over_tls}, routers)
    assert in_force(host) == {"send": {"match_sender_strict": answer}}
