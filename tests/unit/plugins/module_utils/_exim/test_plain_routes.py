"""Where the routers of any Exim configuration lead mail."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_routes import only_hops, ways

TRANSPORTS = {
    "out": {"driver": "smtp"},
    "submission": {"driver": "smtp", "port": "587"},
    "fixed": {"driver": "smtp", "hosts": "relay.example.com", "port": "2525"},
    "odd": {"driver": "smtp", "port": "${if def:x{25}{26}}"},
    "local": {"driver": "appendfile"},
}


def manual(route="* mx.example.com", transport="out", **more):
    return {"driver": "manualroute", "transport": transport, "route_list": route, **more}


@pytest.mark.parametrize(
    ("router", "hops"),
    [
        (manual(), [("mx.example.com", 25)]),
        (manual("* mx.example.com::587 byname"), [("mx.example.com", 587)]),
        (manual("* [192.0.2.1]::26"), [("192.0.2.1", 26)]),
        (manual('* "<+ [2001:db8::1]:26 + mx.example.com"'), [("2001:db8::1", 26), ("mx.example.com", 25)]),
        (manual('* "a.example.com : b.example.com" randomize'), [("a.example.com", 25), ("b.example.com", 25)]),
        (manual("a.test a.example.com ; b.test b.example.com"), [("a.example.com", 25), ("b.example.com", 25)]),
        (manual(transport="submission"), [("mx.example.com", 587)]),
        (manual("", route_data="mx.example.com"), [("mx.example.com", 25)]),
        ({"driver": "accept", "transport": "fixed"}, [("relay.example.com", 2525)]),
    ],
)  # fmt: skip
def test_next_hops(router, hops):
    assert only_hops(ways({"r": router}, TRANSPORTS)) == hops


@pytest.mark.parametrize(
    "router",
    [
        manual("* ${lookup{$domain}lsearch{/etc/routes}}"), manual("* mx.example.com/MX"), manual("", route_data="$domain"),
        manual(transport="odd"), manual("*"), manual("* -oProxyCommand"), manual("* [192.0.2.1]:26"),
        manual(transport="${if def:x{out}{fixed}}"),
        {"driver": "queryprogram", "transport": "out"},
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_unknown(router):
    found = ways({"r": router}, TRANSPORTS)
    assert list(found.unknown) == ["r"]
    with pytest.raises(ValueError, match="the router r may lead mail to other hosts"):
        only_hops(found)


def test_mail_to_the_mx_has_no_next_hops():
    routers = {"dns": {"driver": "dnslookup", "transport": "out"}, "local": {"driver": "accept", "transport": "local"}}
    found = ways(routers, TRANSPORTS)
    assert (list(only_hops(found)), found.used) == ([], {"out", "local"})
    with pytest.raises(ValueError, match="by the MX of each domain"):
        only_hops(ways({**routers, "m": manual(transport="submission")}, TRANSPORTS))


@pytest.mark.parametrize("host", ["127.0.0.1::10025", "localhost", '"<+ [::1]:10025"'])
def test_a_filter_on_this_host_is_no_next_hop(host):
    found = ways({"f": manual(f"* {host}", "submission"), "r": manual()}, TRANSPORTS)
    assert found.is_local("submission") and not found.is_local("out")
    assert only_hops(found) == [("mx.example.com", 25)]
