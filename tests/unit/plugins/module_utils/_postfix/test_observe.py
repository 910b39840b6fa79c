"""What a Postfix instance listens on, and where its mail goes: read from settings as people write them."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import Listener, Transport
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.observe import (
    Configuration,
    listeners,
    observe,
    transports,
)

from tests.support.fake_postfix import DEFAULTS, FakePostfix

CLIENTS = """\
smtp      unix  -       -       y       -       -       smtp
relay     unix  -       -       y       -       -       smtp
lmtp      unix  -       -       y       -       -       lmtp
virtual   unix  -       n       n       -       -       virtual
"""
SMTP = "smtp      inet  n       -       y       -       -       smtpd\n"
SERVER = {
    "inet_interfaces": "all", "smtpd_use_tls": "no", "smtpd_enforce_tls": "no", "smtpd_tls_wrappermode": "no",
    "smtpd_tls_cert_file": "", "smtpd_tls_dcert_file": "", "smtpd_tls_eccert_file": "",
    "postscreen_tls_security_level": "$smtpd_tls_security_level", "postscreen_use_tls": "$smtpd_use_tls",
    "postscreen_enforce_tls": "$smtpd_enforce_tls",
}  # fmt: skip
CLIENT = {
    f"{client}_{name}": value
    for client, port in (("smtp", "smtp"), ("lmtp", "24"))
    for name, value in {
        "tls_security_level": "", "use_tls": "no", "enforce_tls": "no", "tls_enforce_peername": "yes",
        "tls_wrappermode": "no", "tcp_port": port,
    }.items()
}  # fmt: skip
WAYS = {
    "virtual_transport": "virtual", "local_transport": "local:$myhostname", "mailbox_transport": "", "fallback_transport": "",
    "relay_transport": "relay", "smtp_fallback_relay": "$fallback_relay", "fallback_relay": "",
}  # fmt: skip


@pytest.fixture
def read(tmp_path):
    """Reads a configuration: read(main.cf, master.cf without the clients)."""

    def configuration(main="", master=SMTP):
        fake = FakePostfix(
            tmp_path / "etc", main=main, master=master + CLIENTS, defaults={**DEFAULTS, **SERVER, **CLIENT, **WAYS}
        )
        return Configuration(Postconf(fake, str(tmp_path / "etc")))

    return configuration


class TestListeners:
    @pytest.mark.parametrize(
        ("main", "tls", "certificates"),
        [
            ("", "none", ()),
            ("smtpd_tls_security_level = may\nsmtpd_tls_cert_file = /a.pem\n", "offered", ("/a.pem",)),
            ("smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = /a.pem\n", "required", ("/a.pem",)),
            ("smtpd_tls_security_level = none\nsmtpd_tls_cert_file = /a.pem\n", "none", ()),
            ("smtpd_tls_security_level = may\n", "none", ()),  # Postfix does not offer TLS without a certificate
            ("smtpd_tls_security_level = secure\nsmtpd_tls_cert_file = /a.pem\n", "unknown", ("/a.pem",)),
            ("smtpd_enforce_tls = yes\nsmtpd_tls_cert_file = /a.pem\n", "required", ("/a.pem",)),
            ("smtpd_use_tls = yes\nsmtpd_tls_cert_file = /a.pem\n", "offered", ("/a.pem",)),
            (
                "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = /rsa.pem\nsmtpd_tls_eccert_file = /ec.pem\n",
                "offered",
                ("/rsa.pem", "/ec.pem"),
            ),
            (
                "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = /a.pem\nsmtpd_tls_chain_files = /b.key, /b.pem\n",
                "offered",
                ("/b.pem",),
            ),
        ],
    )
    def test_the_levels_of_main_cf(self, read, main, tls, certificates):
        assert listeners(read(main)) == [Listener("smtp/inet", "", 25, tls, certificates)]

    def test_settings_of_their_own(self, read):
        master = SMTP + (
            "submission inet n - n - - smtpd\n -o smtpd_tls_security_level=encrypt\n -o smtpd_tls_cert_file=/sub.pem\n"
            "465 inet n - n - - smtpd\n -o smtpd_tls_wrappermode=yes\n"
            "127.0.0.1:10025 inet n - n - - smtpd\n -o smtpd_tls_security_level=none\n"
            "[::1]:2525 inet n - n - - smtpd\n"
        )
        found = listeners(read("smtpd_tls_security_level = may\nsmtpd_tls_cert_file = /a.pem\n", master))
        assert [(one.service, one.host, one.port, one.tls, one.certificates) for one in found] == [
            ("smtp/inet", "", 25, "offered", ("/a.pem",)),
            ("submission/inet", "", 587, "required", ("/sub.pem",)),
            ("465/inet", "", 465, "implicit", ("/a.pem",)),
            ("127.0.0.1:10025/inet", "127.0.0.1", 10025, "none", ()),
            ("[::1]:2525/inet", "::1", 2525, "offered", ("/a.pem",)),
        ]
        assert found[2].overrides == {"smtpd_tls_wrappermode": "yes"}

    def test_settings_that_may_hold_a_password_are_not_shown(self, read):
        master = "25 inet n - n - - smtpd\n -o smtpd_sasl_x=static:user:hunter2\n -o smtpd_tls_loglevel=2\n"
        assert listeners(read(master=master))[0].overrides == {"smtpd_tls_loglevel": "2"}

    def test_postscreen_stands_before_smtpd(self, read):
        master = "smtp inet n - y - 1 postscreen\nsmtpd pass - - y - - smtpd\n10026 inet n n n - 0 spawn user=nobody argv=/x\n"
        main = "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = /a.pem\n"
        assert listeners(read(main, master)) == [Listener("smtp/inet", "", 25, "offered", ("/a.pem",))]

    def test_one_interface(self, read):
        assert listeners(read("inet_interfaces = loopback-only\n"))[0].host == "loopback-only"

    def test_a_file_of_the_chain_that_can_be_read_is_told_by_its_text(self, read, tmp_path):
        key, both = tmp_path / "one.pem", tmp_path / "two.key"
        key.write_text("-----BEGIN PRIVATE KEY-----\n")
        both.write_text("-----BEGIN PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\n")
        main = f"smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {key} {both}\n"
        assert listeners(read(main))[0].certificates == (str(both),)


class TestTransports:
    def test_without_any_setting_mail_goes_to_the_mx(self, read):
        assert transports(read()) == [Transport("default_transport", "smtp", None, None, "none")]

    @pytest.mark.parametrize(
        ("hop", "host", "port"),
        [
            ("[relay.example.net]", "relay.example.net", 25), ("[relay.example.net]:587", "relay.example.net", 587),
            ("relay.example.net:submission", "relay.example.net", 587), ("example.net", "example.net", 25),
            ("[2001:db8::1]:26", "2001:db8::1", 26), ("[192.0.2.1]", "192.0.2.1", 25),
            ("[relay.example.net]:nosuchport", "relay.example.net", None), ("a:b:c", "a:b:c", None),
            ("[ipv6:::1]:10025", "::1", 10025), ("[relay.example.net],", "relay.example.net", 25), ("[a]:²", "a", None),
        ],
    )  # fmt: skip
    def test_the_relay_host(self, read, hop, host, port):
        [found] = transports(read(f"relayhost = {hop}\nsmtp_tls_security_level = may\n"))
        assert found == Transport("relayhost", "smtp", host, port, "may")

    def test_several_relay_hosts(self, read):
        found = transports(read("relayhost = [a.example.net], [b.example.net]:26\n"))
        assert [(one.next_hop, one.port) for one in found] == [("a.example.net", 25), ("b.example.net", 26)]

    def test_tls_from_the_first_byte(self, read):
        main = "relayhost = [smtp.example.net]:465\nsmtp_tls_wrappermode = yes\nsmtp_tls_security_level = encrypt\n"
        assert transports(read(main)) == [Transport("relayhost", "smtp", "smtp.example.net", 465, "encrypt", True)]

    @pytest.mark.parametrize(
        ("main", "level"),
        [
            ("smtp_enforce_tls = yes\n", "verify"), ("smtp_enforce_tls = yes\nsmtp_tls_enforce_peername = no\n", "encrypt"),
            ("smtp_use_tls = yes\n", "may"), ("smtp_use_tls = yes\nsmtp_tls_security_level = dane\n", "dane"),
        ],
    )  # fmt: skip
    def test_older_spellings_count_where_the_level_is_empty(self, read, main, level):
        assert transports(read(main))[0].level == level

    def test_all_settings_that_name_a_transport(self, read):
        master = SMTP + (
            "filter unix - - n - 2 smtp\n -o smtp_tls_security_level=none\n"
            "submission inet n - n - - smtpd\n -o content_filter=filter:[127.0.0.1]:10026\n"
            "10025 inet n - n - - smtpd\n -o content_filter=\n"
        )
        main = (
            "smtp_tls_security_level = may\nrelayhost = [relay.example.net]\ncontent_filter = filter:[127.0.0.1]:10024\n"
            "virtual_transport = smtp:[store.example.com]:2525\nlocal_transport = lmtp:[::1]\nmailbox_transport = procmail\n"
            "relay_transport = relay:[inner.example.com]\nsmtp_fallback_relay = [old.example.net]\n"
        )
        own = {"smtp_tls_security_level": "none"}
        assert transports(read(main, master)) == [
            Transport("relayhost", "smtp", "relay.example.net", 25, "may"),
            Transport("content_filter", "filter", "127.0.0.1", 10024, "none", False, own),
            Transport("virtual_transport", "smtp", "store.example.com", 2525, "may"),
            Transport("local_transport", "lmtp", "::1", 24, "none"),
            Transport("relay_transport", "relay", "inner.example.com", 25, "may"),
            Transport("content_filter of submission/inet", "filter", "127.0.0.1", 10026, "none", False, own),
            Transport("smtp_fallback_relay", "smtp", "old.example.net", 25, "may"),
        ]

    @pytest.mark.parametrize(
        ("hop", "loopback"),
        [
            ("127.0.0.1", True),
            ("::1", True),
            ("localhost", True),
            ("192.0.2.1", False),
            ("mx.example.com", False),
            (None, False),
        ],
    )
    def test_the_host_itself(self, hop, loopback):
        assert Transport("x", "smtp", hop, 25, "may").loopback is loopback

    @pytest.mark.parametrize(
        ("value", "host", "port", "loopback"),
        [
            ("lmtp:inet:127.0.0.1:24", "127.0.0.1", 24, True), ("lmtp:inet:mailstore", "mailstore", 24, False),
            ("lmtp:unix:private/lmtp", "unix:private/lmtp", None, True), ("smtp", None, None, False),
        ],
    )  # fmt: skip
    def test_the_ways_to_a_mail_store(self, read, value, host, port, loopback):
        found = transports(read(f"virtual_transport = {value}\nrelayhost = [relay.example.net]\n"))[1]
        assert (found.next_hop, found.port, found.loopback) == (host, port, loopback)

    def test_the_next_hop_of_default_transport_precedes_relayhost(self, read):
        [found] = transports(read("default_transport = smtp:[gw.example.net]:26\nrelayhost = [old.example.net]\n"))
        assert found == Transport("default_transport", "smtp", "gw.example.net", 26, "none")

    def test_relay_transport_falls_back_to_relayhost(self, read):
        found = transports(read("relay_transport = relay\nrelayhost = [relay.example.net]\n"))[1]
        assert (found.setting, found.next_hop) == ("relay_transport", "relay.example.net")

    def test_mail_that_leaves_by_another_program_is_no_transport(self, read):
        assert transports(read("default_transport = error:no mail\n")) == []


def test_as_plain_data(tmp_path):
    others = (
        "127.0.0.1:10023 inet n n n - 0 spawn user=nobody\n[::1]:10024 inet n - n - - cleanup\nno-such-port inet n - n - - spawn\n"
        "2525 inet n - y - 1 postscreen\nlocal unix - n n - - local\n"
    )
    fake = FakePostfix(tmp_path, master=SMTP + CLIENTS, defaults={**DEFAULTS, **SERVER, **CLIENT, **WAYS})
    assert observe(Postconf(fake, str(tmp_path))) == {
        "listeners": [{"service": "smtp/inet", "host": "", "port": 25, "tls": "none", "certificates": [], "overrides": {}}],
        "transports": [
            {
                "setting": "default_transport", "transport": "smtp", "next_hop": None, "port": None, "level": "none",
                "implicit_tls": False, "loopback": False, "overrides": {},
            }
        ],
        "other_places": [],
    }  # fmt: skip
    fake = FakePostfix(tmp_path, master=SMTP + others + CLIENTS, defaults={**DEFAULTS, **SERVER, **CLIENT, **WAYS})
    found = observe(Postconf(fake, str(tmp_path)))
    # What listens for something else than mail, so that its sockets are no finding.
    assert found["other_places"] == [["127.0.0.1", 10023], ["::1", 10024], ["", None]]
    assert [one["port"] for one in found["listeners"]] == [25, 2525]
