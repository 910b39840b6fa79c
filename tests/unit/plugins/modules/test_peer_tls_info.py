import pytest
from ansible_collections.mailfleet.starttls.plugins.modules import peer_tls_info as module

from tests.support.ansible_module import run_module
from tests.support.smtp_server import PLAIN, refused_port, serving

ADDRESSES = {"proof_sender": "a@example.com", "proof_recipient": "b@example.org"}


def peer(port, **changes):
    return {"name": "one", "hosts": [f"127.0.0.1:{port}"], "domains": ["*"], **changes}


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_peer_without_starttls(check_mode):
    with serving(PLAIN) as server:
        result = run_module(
            module.main,
            check_mode=check_mode,
            peers=[peer(server.port, **ADDRESSES)],
            helo_name="relay.example.com",
            timeout=5,
        )
        assert server.heard(b"EHLO relay.example.com") == 1
    assert result["changed"] is False and "failed" not in result
    (seen,) = result["peers"]
    assert (seen["proofs"][0]["proof"]["stage"], seen["proofs"][0]["proof"]["fault"]) == (
        "starttls",
        "starttls_not_offered",
    )


def test_nobody_listens():
    (seen,) = run_module(module.main, peers=[peer(refused_port())])["peers"]
    assert seen["proofs"][0]["proof"]["stage"] == "connect"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"peers": [{"name": "A B"}]}, "starttls_peers: the name 'A B'"),
        ({"peers": [peer(25, proof_sender="a@example.com\r\nDATA")]}, "peers.proof_sender holds a line break"),
        ({"peers": [peer(25, proof_sender="a@example.com>")]}, "is not an e-mail address"),
        ({"peers": [peer(25), peer(26)]}, "two peers have the name one"),
        ({"peers": [], "helo_name": "relay\r\nDATA"}, "control character"),
        ({"peers": [], "address": "no host"}, "neither a host name nor an IP address"),
    ],
)
def test_options_that_cannot_be_used(options, says):
    result = run_module(module.main, **options)
    assert result["failed"] and says in result["msg"]
