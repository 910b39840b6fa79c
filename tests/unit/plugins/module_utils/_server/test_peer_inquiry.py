"""The proofs that a mail server makes with its peers, in one call, and what it says of their certificates."""

import shutil

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import peers_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_inquiry import ask_peers
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.envelope import EnvelopeProof
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target

from tests.support.smtp_server import Face, server_context, serving

NAME = "mail.example.com"
YES = {b"MAIL": b"250 2.1.0 Ok\r\n", b"RCPT": b"250 2.1.5 Ok\r\n", b"RSET": b"250 2.0.0 Ok\r\n"}
ADDRESSES = {"proof_sender": "a@example.com", "proof_recipient": "b@example.org"}
OWN = Target("127.0.0.1", 9)


@pytest.fixture(scope="module")
def files(authority, tmp_path_factory):
    directory = tmp_path_factory.mktemp("host")
    issued = authority.issue(["example.com"])
    for name, content in {
        "client.pem": issued.fullchain_pem + issued.key_pem,
        "root.pem": authority.root_pem,
    }.items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture(scope="module")
def server(authority, files):
    context = server_context(files, authority.issue([NAME]), client_ca=authority.root_pem)
    context.verify_mode = 1  # asks, and takes all
    with serving(Face(context=context, answers_tls=YES)) as server:
        yield server


@pytest.fixture
def settings():
    return Settings(helo_name="relay.example.com", timeout=10, total_timeout=20)


def entry(server, **changes):
    hosts = [f"{server.host}:{server.port}"] if server else []
    return {"name": "one", "kind": "smtp", "hosts": hosts, "domains": ["*"], **changes}


@pytest.mark.parametrize(
    ("changes", "unfit"),
    [
        ({}, ""),
        ({"check": "trusted_chain"}, "check trusted_chain: "),
        ({"check": "hostname"}, "check hostname: "),
        ({"check": "pin", "pin_issuer_file": "root.pem"}, ""),
        ({"check": "pin", "pin_fingerprints": ["ab" * 32]}, "check pin: its fingerprint is "),
    ],
)
def test_the_certificate_is_judged_on_the_host_as_the_peer_says(changes, unfit, server, settings, files):
    if "pin_issuer_file" in changes:
        changes = {**changes, "pin_issuer_file": str(files / changes["pin_issuer_file"])}
    (one,) = ask_peers(peers_of([entry(server, **ADDRESSES, **changes)]), settings, OWN)
    (test,) = one["proofs"]
    assert EnvelopeProof.from_dict(test["proof"]).accepted
    assert test["unfit"].startswith(unfit) and bool(test["unfit"]) is bool(unfit)


def test_an_issuer_file_that_cannot_be_read(server, settings, files):
    missing = entry(server, check="pin", pin_issuer_file=str(files / "missing.pem"))
    (one,) = ask_peers(peers_of([missing]), settings, OWN)
    assert one["proofs"] == [] and one["message"].endswith("missing.pem: No such file or directory")


@pytest.mark.skipif(not shutil.which("openssl"), reason="the program openssl is not here")
def test_all_peers_in_one_call(server, settings, files, authority):
    client = str(files / "client.pem")
    peers = peers_of(
        [
            entry(server, client_certificate=client, **ADDRESSES),
            entry(server, name="two", domains=["two.test"], proof_sender="a@example.com"),
            entry(server, name="broken", domains=["three.test"], client_certificate=str(files / "missing.pem")),
            entry(None, name="inward", domains=[], direction="inbound", tls_domain=NAME),
        ]
    )
    one, two, broken, inward = ask_peers(peers, settings, Target(server.host, server.port))
    assert [entry["name"] for entry in (one, two, broken, inward)] == ["one", "two", "broken", "inward"]
    proof = EnvelopeProof.from_dict(one["proofs"][0]["proof"])
    assert (proof.accepted, proof.asked, proof.resumed, one["message"]) == (True, True, True, "")
    assert one["client_certificate"]["pem"].count("BEGIN CERTIFICATE") == 2
    assert "PRIVATE" not in str([one, two, broken, inward])
    assert (two["proofs"][0]["proof"]["stage"], two["proofs"][0]["proof"]["fault"]) == ("mail", "not_tested")
    assert two["client_certificate"] is two["served_pem"] is None
    assert broken["proofs"] == [] and "missing.pem" in broken["message"] and broken["client_certificate"]["message"]
    assert (inward["proofs"], len(inward["served_pem"])) == ([], 2)
