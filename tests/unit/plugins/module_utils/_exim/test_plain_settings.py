"""The settings of Exim's own options for a wanted state."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_settings import REQUIRES, inbound, outbound
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_text import ByHandError, Edit
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired

OURS = "/etc/mailfleet/starttls.pem"
ON = {"tls_certificate": OURS, "tls_privatekey": OURS}
REFUSE = "{defer message = 430 4.7.0 Must issue a STARTTLS command first}}"


def main(kind, is_ours=False, **before):
    edit = inbound(Desired(kind), before, is_ours)
    return None if edit is None else dict(edit.settings)


@pytest.mark.parametrize(
    ("before", "hosts"),
    [
        ({}, "*"),
        ({"tls_advertise_hosts": ""}, "${if eq{$received_port}{25}{*}{}}"),
        ({"tls_advertise_hosts": "10.0.0.0/8"}, "10.0.0.0/8"),  # a list of the administrator
        ({"tls_advertise_hosts": "${if eq{$received_port}{587}{*}{}}"},
         "${if eq{$received_port}{25}{*}{${if eq{$received_port}{587}{*}{}}}}"),
    ],
)  # fmt: skip
def test_offered(before, hosts):
    assert main("offered", **before) == {"tls_advertise_hosts": hosts, **ON}


def test_certificates_of_several_algorithms_are_lists_of_the_same_order():
    edit = inbound(Desired("offered", more=("/etc/mailfleet/starttls-2.pem",)), {}, False)
    listed = f"{OURS} : /etc/mailfleet/starttls-2.pem"
    assert (edit.settings["tls_certificate"], edit.settings["tls_privatekey"]) == (listed, listed)


def test_required_keeps_the_list_for_mail():
    assert main("required")["acl_smtp_mail"] == f"{REQUIRES}accept hosts = *}}{REFUSE}"
    assert main("required", acl_smtp_mail="acl_check_mail")["acl_smtp_mail"] == f"{REQUIRES}acl_check_mail}}{REFUSE}"
    for odd in ('"quoted"', "${if"):
        with pytest.raises(ByHandError, match="cannot stand within another one"):
            main("required", acl_smtp_mail=odd)


def test_what_the_file_says_by_itself_is_enough():
    assert main("offered", tls_certificate=OURS, tls_advertise_hosts="*") is None
    assert main("offered", True, tls_certificate=OURS, tls_advertise_hosts="*") is not None
    required = f"{REQUIRES}acl_check_mail}}{REFUSE}"
    assert main("required", tls_certificate=OURS, tls_advertise_hosts="*", acl_smtp_mail=required) is None
    for kind in ("offered", "disabled"):
        with pytest.raises(ByHandError, match="acl_smtp_mail refuses mail without TLS"):
            main(kind, tls_advertise_hosts="*", acl_smtp_mail=required)


def test_disabled_excepts_the_port_only():
    assert main("disabled", tls_advertise_hosts="") is None
    assert main("disabled") == {"tls_advertise_hosts": "${if eq{$received_port}{25}{}{*}}"}


@pytest.mark.parametrize("option", ["tls_certificate", "tls_privatekey"])
def test_a_certificate_by_name_is_not_replaced(option):
    with pytest.raises(ByHandError, match=f"{option} depends on the connection"):
        main("offered", **{option: "/etc/ssl/$tls_in_sni.pem"})
    assert main(None, **{option: "/etc/ssl/$tls_in_sni.pem"}) is None


AVOID, REQUIRE = "hosts_avoid_tls", "hosts_require_tls"


@pytest.mark.parametrize(
    ("kind", "before", "edit"),
    [
        ("opportunistic", {}, None),
        ("opportunistic", {AVOID: "*"}, Edit({}, [AVOID])),
        ("opportunistic", {REQUIRE: "*"}, Edit({}, [REQUIRE])),
        ("opportunistic", {AVOID: "old.example.com"}, None),
        ("required", {}, Edit({REQUIRE: "*"}, [])),
        ("required", {AVOID: "*"}, Edit({REQUIRE: "*"}, [AVOID])),
        ("required", {REQUIRE: "*"}, None),
        ("required", {AVOID: "old.example.com"}, ByHandError),
        ("disabled", {}, Edit({AVOID: "*"}, [])),
        ("disabled", {AVOID: "old.example.com"}, Edit({AVOID: "*"}, [])),
        ("disabled", {REQUIRE: "*"}, Edit({AVOID: "*"}, [REQUIRE])),
        ("disabled", {REQUIRE: "bank.example.com"}, ByHandError),
    ],
)
def test_outbound(kind, before, edit):
    if edit is ByHandError:
        with pytest.raises(ByHandError, match="holds a list of yours"):
            outbound(kind, before, "out")
    else:
        assert outbound(kind, before, "out") == edit
