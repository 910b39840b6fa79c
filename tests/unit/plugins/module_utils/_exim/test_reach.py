"""How far a change of Exim reaches: every port of the daemon, and each router that hands mail to Debian's transports."""

from types import SimpleNamespace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.reach import Overlaid, sides
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.server import _off
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import demanding, fault, places
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target

OPTIONS = {
    "local_interfaces": "127.0.0.1", "daemon_smtp_ports": "25 : 587 : 465", "tls_on_connect_ports": "465",
    "tls_advertise_hosts": "", "tls_certificate": "/old.pem",
}  # fmt: skip
SMTP = {"driver": "smtp", "hosts_avoid_tls": "", "hosts_require_tls": ""}
REACHED = ("REMOTE_SMTP", "REMOTE_SMTP_SMARTHOST")
SMARTHOST = {"remote_smtp_smarthost": [("relay.example.net", 587)]}
REQUIRE = {f"{name}_HOSTS_REQUIRE_TLS": "*" for name in REACHED}


def router(name, **options):
    lines = {
        "driver": "manualroute",
        "transport": "remote_smtp",
        "domains": "",
        "route_list": "",
        "route_data": "",
        **options,
    }
    return f"{name} router:\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())


def look(macros, routers="", hops=SMARTHOST, present=None, port="smtp"):
    """Both sides of a change to these macros."""
    printed = SimpleNamespace(
        options=OPTIONS,
        transports={
            "remote_smtp": {**SMTP, "port": port},
            "remote_smtp_smarthost": SMTP,
            "filter": {**SMTP, "hosts_avoid_tls": "*"},
        },
    )

    def run(words):
        assert words == ["exim4", "-bP", "routers"]
        return 0, routers, ""

    names = [name.lower() for name in REACHED]
    return [
        sides(run, shown, "", False, hops, names) for shown in (printed, Overlaid(printed, macros, REACHED, present))
    ]


def demanded(*given, **more):
    before, after = look(REQUIRE, *given, **more)
    return sorted(f"{one.transport.setting} {one.target}" for one in demanding(before, after)), list(after.unread)


def test_all_ports_share_the_certificate_and_the_filter_keeps_its_level():
    before, after = look({"MAIN_TLS_ENABLE": "yes", "MAIN_TLS_CERTKEY": "/new.pem", **REQUIRE})
    assert {one.port: one.tls for one in before.listeners} == {25: "none", 587: "none", 465: "implicit"}
    assert {one.port: (one.tls, one.certificates) for one in after.listeners} == {
        25: ("offered", ("/new.pem",)),
        587: ("offered", ("/new.pem",)),
        465: ("implicit", ("/new.pem",)),
    }
    assert {one.transport.transport: one.kind for one in after.ways}["filter"] == "disabled"


def test_the_smart_host_is_proved():
    assert demanded() == (["transport remote_smtp_smarthost relay.example.net:587"], [])


def test_without_a_smart_host_nobody_knows_the_hosts():
    assert demanded("", {}) == (["transport remote_smtp None", "transport remote_smtp_smarthost None"], [])


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"route_list": "* hub.example.com::26:b.example.com byname"}, ["hub.example.com:26", "b.example.com:25"]),
        ({"driver": "dnslookup"}, ["None"]),
        ({"domains": "${if exists{/nowhere/hubbed_hosts}{x}fail}", "route_data": "${x}"}, []),
    ],
)
def test_the_hosts_of_a_router(options, found):
    ways, unread = demanded(router("hub", **options))
    assert sorted(ways) == sorted(
        [*(f"router hub {one}" for one in found), "transport remote_smtp_smarthost relay.example.net:587"]
    )
    assert unread == []


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"route_list": "* hub.example.com"}, ["hub.example.com:2525"]),
        ({"route_list": "* hub.example.com::26"}, ["hub.example.com:26"]),
        ({"route_data": "<; hub.example.com ; b.example.com"}, ["b.example.com:2525", "hub.example.com:2525"]),
        ({"route_list": '* "<+ hub.example.com + [2001:db8::1]:26"'}, ["2001:db8::1 26", "hub.example.com:2525"]),
    ],
)
def test_the_port_of_the_transport_and_another_separator_count(options, found):
    before, after = look(REQUIRE, router("hub", **options), port="2525")
    ways = [one.transport for one in demanding(before, after) if one.transport.setting == "router hub"]
    assert sorted(f"{one.next_hop}{' ' if ':' in one.next_hop else ':'}{one.port}" for one in ways) == found
    assert after.unread == ()


def test_the_hosts_of_a_table(tmp_path):
    (tmp_path / "hubbed").write_text("# hosts\nexample.org: mx.example.org::2525\nexample.net:\n  mx.example.net\n")
    ways, _unread = demanded(router("hub", route_data=f"${{lookup{{$domain}}partial-lsearch{{{tmp_path}/hubbed}}}}"))
    assert [one for one in ways if "hub" in one] == ["router hub mx.example.net:25", "router hub mx.example.org:2525"]


def test_routes_that_cannot_be_listed_are_named():
    _ways, (said,) = demanded(router("hub", route_data="${lookup mysql{x}}"))
    assert said == "mail also leaves by the router hub (${lookup mysql{x}}), and its routes cannot all be tested"


OURS = {"MAIN_TLS_ENABLE": "yes", "MAIN_TLS_CERTKEY": "/old.pem", "MAIN_TLS_ADVERTISE_HOSTS": "*"}


@pytest.mark.parametrize(
    ("macros", "tls", "certificates"),
    [
        (_off({}, 25), "offered", ()),  # Exim makes a certificate of its own
        ({}, "offered", ()),
        ({"MAIN_TLS_ENABLE": "yes"}, "offered", ("/etc/exim4/exim.crt",)),
        ({"MAIN_TLS_ENABLE": "yes", "MAIN_TLS_CERTIFICATE": "CONFDIR/own.pem"}, "offered", ("/etc/exim4/own.pem",)),
        ({"MAIN_TLS_ENABLE": "yes", "MAIN_TLS_CERTKEY": "", "MAIN_TLS_CERTIFICATE": "/own.pem"}, "offered", ()),
        ({"MAIN_TLS_ENABLE": "yes", "MAIN_TLS_ADVERTISE_HOSTS": ""}, "none", ()),
    ],
)
def test_a_change_that_takes_the_certificate_back_is_not_judged_by_it(macros, tls, certificates):
    """The other ports serve what Debian's configuration makes of the macros, whatever that is."""
    before, after = look(macros, present=OURS)
    found = {one.port: one for one in after.listeners}
    assert (found[587].tls, found[587].certificates) == (tls, certificates)
    own = Target("127.0.0.1")
    (place,) = (one for one in places(before, after, own) if one.after.port == 587)
    served = Handshake(place.target, Stage.EHLO if tls == "none" else Stage.EHLO_TLS, chain=(b"another one",))
    known = {"/old.pem": "b" * 64}
    assert not fault(place, None, served, lambda paths: {known[one] for one in paths if one in known}, "/old.pem")


def test_without_macros_of_tls_the_options_stay_as_they_are():
    _before, after = look({})
    assert {one.port: one.tls for one in after.listeners} == {25: "none", 587: "none", 465: "implicit"}
