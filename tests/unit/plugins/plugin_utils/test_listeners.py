"""Which listeners of a host differ from its main one."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.listeners import (
    WORDS,
    loopback_ports,
    not_as_configured,
    other_listeners,
)

OWN, OTHER = "aa" * 32, "bb" * 32
CERTIFICATES = [
    {"path": "/own.pem", "certificate": {"subject": "CN=mx", "fingerprint_sha256": OWN, "days_left": 60}},
    {"path": "/copy.pem", "certificate": {"subject": "CN=mx", "fingerprint_sha256": OWN, "days_left": 60}},
    {"path": "/other.pem", "certificate": {"subject": "CN=mx", "fingerprint_sha256": OTHER, "days_left": 3}},
    {"path": "/unread.pem", "message": "it cannot be read"},
]


def listener(port, tls="offered", *certificates, host="", service="smtp/inet"):
    return {
        "service": service,
        "host": host,
        "port": port,
        "tls": tls,
        "certificates": list(certificates),
        "overrides": {},
    }


def differing(*listeners, port=25):
    found = other_listeners({"listeners": listeners, "certificates": CERTIFICATES}, port)
    return [(one["address"], one["tls"], one["fingerprint_sha256"], one["days_left"]) for one in found]


MAIN = listener(25, "offered", "/own.pem")


@pytest.mark.parametrize(
    ("other", "rows"),
    [
        (listener(587, "offered", "/own.pem"), []),
        (listener(587, "offered", "/copy.pem"), []),
        (listener(587, "offered", "/other.pem"), [(":587", "offered", OTHER, 3)]),
        (listener(465, "implicit", "/own.pem"), [(":465", "implicit TLS", OWN, 60)]),
        (listener(587, "none"), [(":587", "not offered", None, None)]),
        (listener(587, "unknown", "/own.pem"), [(":587", "unknown", OWN, 60)]),
        (listener(587, "offered", "/unread.pem"), [(":587", "offered", None, None)]),
        (listener(None, "none", host="192.0.2.1", service="odd/inet"), [("192.0.2.1:odd/inet", "not offered", None, None)]),
        (listener(10125, "none", host="127.0.0.1"), []),
        (listener(10125, "none", host="[::1]"), []),
        (listener(10125, "none", host="localhost"), []),
    ],
)  # fmt: skip
def test_a_listener_beside_the_main_one(other, rows):
    assert differing(MAIN, other) == rows


@pytest.mark.parametrize("others", [1, -1])
def test_another_address_at_the_same_port_without_tls(others):
    """The handshake test is about one of them, whichever the configuration names first."""
    both = [listener(25, "offered", "/own.pem", host="192.0.2.1"), listener(25, "none", host="192.0.2.2")][::others]
    assert differing(*both) == [("192.0.2.2:25", "not offered", None, None)]
    assert differing(listener(25, "none", host="192.0.2.1"), listener(25, "none", host="192.0.2.2")) == []


def test_without_a_main_one_every_listener_is_another():
    assert [one[0] for one in differing(MAIN, listener(587), port=2525)] == [":25", ":587"]


def test_what_could_not_be_read():
    assert other_listeners({}, 25) == other_listeners({"listeners": None, "certificates": None}, 25) == []


def test_each_mode_has_a_word():
    assert set(WORDS) == {"none", "offered", "required", "implicit", "unknown"}


@pytest.mark.parametrize(
    ("hosts", "alone"),
    [
        (["127.0.0.1"], True),
        (["127.0.0.1", "::1"], True),
        (["127.0.0.1", "192.0.2.1"], False),
        (["127.0.0.1", ""], False),
        ([""], False),
    ],
)
def test_whether_only_the_host_itself_reaches_a_port(hosts, alone):
    """What listens counts, and not what the configuration says."""
    sockets = [{"host": one, "port": 25, "pid": 1, "program": "master"} for one in hosts]
    seen = {"sockets": [*sockets, {"host": "", "port": 587, "pid": 1, "program": "master"}]}
    assert (25 in loopback_ports(seen), 587 in loopback_ports(seen)) == (alone, False)
    assert loopback_ports({**seen, "listeners": [listener(587, host="127.0.0.1")]}) == loopback_ports(seen)


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("loopback-only", True),
        ("127.0.0.1 [::1]", True),
        ("127.0.0.1, localhost", True),
        ("127.0.0.1, 192.0.2.1", False),
        ("", False),
        ("all", False),
        ("mx.example", False),
    ],
)
@pytest.mark.parametrize("sockets", [None, []])
def test_without_sockets_the_configuration_tells_it(host, alone, sockets):
    seen = {"sockets": sockets, "listeners": [listener(25, host=host), listener(None, host="127.0.0.1")]}
    assert loopback_ports(seen) == ({25} if alone else frozenset())


def test_a_listener_that_does_not_do_what_its_configuration_says():
    test = {
        "service": "submission/inet",
        "host": "127.0.0.1",
        "port": 587,
        "tls": "required",
        "message": "it is silent",
    }
    (finding,) = not_as_configured({"listener_tests": [test, {**test, "message": ""}]})
    assert finding.code == "listener_without_tls"
    assert finding.as_dict()["message"].startswith(
        "submission/inet (127.0.0.1:587) is to have TLS (required): it is silent"
    )
    assert not_as_configured({}) == []
