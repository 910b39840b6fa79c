"""What Exim listens on, and its transports: read from what exim -bP prints."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.config import Printed
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log_places import LOG_OPTIONS
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.observe import listeners, observe, transports
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import BrokenConfigurationError

LISTENING = {
    "local_interfaces": "<; ::0 ; 0.0.0.0", "daemon_smtp_ports": "smtp", "tls_on_connect_ports": "",
    "tls_advertise_hosts": "*", "tls_certificate": "/etc/mailfleet/starttls.pem",
}  # fmt: skip


def said(transports=None, **options):
    """What Exim says with exim4 -bP: options of the main part, and transports by name."""

    def settings(of):
        return "".join(f"{name} = {value}\n" for name, value in of.items())

    def run(words):
        assert words == ["exim4", "-bP", "configure_file", "exim_version", *LISTENING, *LOG_OPTIONS, "transports"]
        blocks = (f"\n{name} transport:\nno_body_only\n{settings(of)}" for name, of in (transports or {}).items())
        return 0, "/etc/exim4/exim.conf\n" + settings({**LISTENING, **options}) + "".join(blocks), ""

    return Printed(run)


def ports(found):
    return [(one.host, one.port, one.tls) for one in found]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [("", 25, "offered")]),
        ({"tls_advertise_hosts": ""}, [("", 25, "none")]),
        ({"tls_advertise_hosts": "192.0.2.0/24"}, [("", 25, "unknown")]),
        (
            {"daemon_smtp_ports": "25 : 465 : 587", "tls_on_connect_ports": "465"},
            [("", 25, "offered"), ("", 465, "implicit"), ("", 587, "offered")],
        ),
        ({"local_interfaces": "127.0.0.1"}, [("127.0.0.1", 25, "offered")]),
        ({"local_interfaces": "<; 127.0.0.1 ; ::1"}, [("127.0.0.1", 25, "offered"), ("::1", 25, "offered")]),
        ({"local_interfaces": "<; [::1]:26 ; 192.0.2.1.2525"}, [("::1", 26, "offered"), ("192.0.2.1", 2525, "offered")]),
        ({"daemon_smtp_ports": "nosuchport"}, [("", None, "offered")]),
    ],
)  # fmt: skip
def test_where_it_listens(options, expected):
    assert ports(listeners(said(**options))) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-bd", "-q30m"], [("", 25, "offered")]),
        (["-bd", "-oX", "587:465:25", "-q30m"], [("", 587, "offered"), ("", 465, "offered"), ("", 25, "offered")]),
        (["-bd", "-oX", "127.0.0.1.2525"], [("127.0.0.1", 2525, "offered")]),
        (["-bd", "-oX"], [("", 25, "offered")]),
        (["-bdf", "-q30m"], [("", 25, "offered")]),
        (["-oP", "/run/exim4/exim.pid", "-q30m"], []),
        (["-bd", "-oX", "127.0.0.1 : 587"], [("127.0.0.1", 587, "offered")]),
    ],
)
def test_the_command_line_of_the_daemon_overrides_the_configuration(words, expected):
    assert ports(listeners(said(), "\0".join(["/usr/sbin/exim4", *words, ""]))) == expected


def test_the_certificate_is_served_where_tls_is():
    assert listeners(said())[0].certificates == ("/etc/mailfleet/starttls.pem",)
    assert listeners(said(tls_certificate="/rsa.pem : /ec.pem"))[0].certificates == ("/rsa.pem", "/ec.pem")
    assert listeners(said(tls_advertise_hosts=""))[0].certificates == ()


@pytest.mark.parametrize(
    ("options", "level", "implicit"),
    [
        ({}, "opportunistic", False),
        ({"hosts_avoid_tls": "*"}, "disabled", False),
        ({"hosts_require_tls": "*"}, "required", False),
        ({"hosts_require_tls": "mx.example.com"}, "unknown", False),
        ({"hosts_avoid_tls": "old.example.com"}, "unknown", False),
        ({"protocol": "smtps"}, "opportunistic", True),
    ],
)
def test_the_level_of_a_transport(options, level, implicit):
    fake = said({"remote_smtp": {"driver": "smtp", **options}, "mail_spool": {"driver": "appendfile"}})
    [found] = transports(fake, {})
    assert (found.transport, found.next_hop, found.level, found.implicit_tls) == ("remote_smtp", None, level, implicit)


def test_a_next_hop_that_is_known():
    fake = said({"remote_smtp_smarthost": {"driver": "smtp"}})
    [found] = transports(fake, {"remote_smtp_smarthost": [("relay.example.net", 587)]})
    assert (found.next_hop, found.port) == ("relay.example.net", 587)


def test_a_configuration_that_cannot_be_read():
    for answer in ((1, "", "2026 error\n"), (1, "2026 error\n", "")):
        with pytest.raises(BrokenConfigurationError, match=r"^Exim does not read its configuration: 2026 error$"):
            observe(Printed(lambda _words, answer=answer: answer), None, {})


def test_several_next_hops_are_several_transports():
    fake = said({"remote_smtp_smarthost": {"driver": "smtp"}})
    hops = [("a.example.net", 25), ("b.example.net", 26)]
    assert [(one.next_hop, one.port) for one in transports(fake, {"remote_smtp_smarthost": hops})] == hops


def test_access_control_lists_that_refuse_plaintext():
    assert ports(listeners(said(), requires=True)) == [("", 25, "required")]
    assert ports(listeners(said(tls_advertise_hosts=""), requires=True)) == [("", 25, "none")]


def test_a_certificate_that_depends_on_the_connection_stays_whole():
    text = "${if eq{$tls_in_sni}{a.example}{/a:1.pem}{/b.pem}}"
    assert listeners(said(tls_certificate=text))[0].certificates == (text,)
