"""Entries of starttls_peers become connectors, or are refused by name."""

from __future__ import annotations

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.peers import sent_to
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import ExchangePeer
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import Peer
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

RELAY = {
    "name": "relay2",
    "hosts": ["relay2.example.com:2525", "192.0.2.9:2525"],
    "domains": ["example.org"],
    "direction": "both",
}


def peer(**change):
    return Peer.from_dict({**RELAY, **change})


def test_both_directions():
    assert sent_to(peer()) == ExchangePeer("relay2", ("relay2.example.com", "192.0.2.9"), ("example.org",), 2525)


def test_one_direction():
    assert sent_to(peer(direction="inbound")) is None


def test_a_name_to_compare():
    assert sent_to(peer(check="hostname", names=["mx.example.org"])).tls_domain == "mx.example.org"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "exchange_online"}, "hybrid wizard"),
        ({"check": "pin", "pin_fingerprints": ["a" * 64]}, "cannot check by pin"),
        ({"client_certificate": "/etc/ssl/a.pem"}, "client_certificate has no counterpart"),
        ({"servername": "x.example"}, "servername has no counterpart"),
        ({"hosts": ["a.example", "b.example:26"]}, "different ports"),
        ({"check": "hostname", "names": [".example.org"]}, "TlsDomain is one"),
        ({"check": "hostname", "names": ["a.example", "b.example"]}, "TlsDomain is one"),
    ],
)
def test_what_exchange_cannot_do_is_refused(change, words):
    with pytest.raises(EngineError, match=rf"starttls_peers: peer relay2: .*{words}"):
        sent_to(peer(**change))
