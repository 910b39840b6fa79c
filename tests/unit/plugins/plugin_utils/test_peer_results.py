"""What the controller adds to the proofs of a host, and that it believes no host too much."""

import base64
import json
import ssl
from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import peers_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.envelope import EnvelopeProof
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peer_results import with_findings, with_read_peers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ADDRESSES = {"proof_sender": "a@example.com", "proof_recipient": "b@example.org"}
PEER = {"name": "one", "kind": "smtp", "hosts": ["192.0.2.25"], "domains": ["*"], **ADDRESSES}
OPTIONS = {"accepted_domains": [], "min_days_left": 0}
DONE = EnvelopeProof("192.0.2.25", 25, "done", 250, "2.1.5", "2.1.5 Ok", asked=True, resumed=False)


def answer(*proofs, unfit="", **changes):
    proofs = [{"proof": one.to_dict(), "unfit": unfit} for one in proofs]
    return {"name": "one", "proofs": proofs, "message": "", "client_certificate": None, "served_pem": None, **changes}


def judged(peer, entry, **options):
    """The entry of the only peer, and the codes of its findings."""
    result = json.loads(json.dumps({"changed": False, "peers": [entry]}))
    done = with_findings(result, peers_of([{**PEER, **peer}]), {**OPTIONS, **options})
    assert done["passed"] is done["peers"][0]["passed"]
    return done["peers"][0], [one["code"] for one in done["peers"][0]["findings"]]


def presented(issued, **changes):
    public = issued.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "certificate": "/etc/c.pem", "private_key": "/etc/c.pem", "pem": issued.fullchain_pem.decode(),
        "public_key": base64.b64encode(public).decode(), "message": "", **changes,
    }  # fmt: skip


def der(issued):
    return tuple(one.public_bytes(Encoding.DER) for one in (issued.certificate, *issued.chain))


def test_a_good_proof():
    seen, found = judged({}, answer(DONE))
    assert (seen["passed"], seen["tested"], seen["reason"], found) == (True, True, "", [])
    assert (seen["name"], seen["kind"], seen["client_certificate"]) == ("one", "smtp", None)
    assert {**seen["proofs"][0], "trusted": None} == {**DONE.to_dict(), "findings": []}


def test_a_refusal_is_explained():
    refused = replace(DONE, stage="rcpt", code=550, enhanced="5.7.64", text="5.7.64 TenantAttribution", fault="refused")
    seen, found = judged({"kind": "exchange_online"}, answer(refused))
    assert (seen["passed"], seen["tested"], found) == (False, True, ["peer_not_attributed"])


@pytest.mark.parametrize(
    ("peer", "reason", "codes", "passed"),
    [
        ({"proof_sender": ""}, "not tested to RCPT, because proof_sender is not set", ["peer_not_tested"], True),
        (
            {"proof_sender": "", "proof_recipient": ""},
            "not tested to RCPT, because proof_sender and proof_recipient are not set", ["peer_not_tested"], True,
        ),
        (
            {"proof_sender": "", "kind": "exchange_online"}, "not tested to RCPT, because proof_sender is not set",
            ["peer_proof_missing"], False,
        ),
    ],
)  # fmt: skip
def test_without_addresses(peer, reason, codes, passed):
    ended = replace(DONE, stage="mail", code=0, enhanced="", text="", fault="not_tested", message="no addresses")
    seen, found = judged(peer, answer(ended))
    assert (seen["tested"], seen["reason"], found, seen["passed"]) == (False, reason, codes, passed)


def test_a_handshake_that_fails_without_addresses_is_told_too():
    ended = replace(DONE, stage="starttls", code=0, enhanced="", text="", fault="starttls_not_offered", message="no")
    assert judged({"proof_sender": "", "kind": "exchange"}, answer(ended))[1] == [
        "peer_not_tested",
        "peer_starttls_gone",
    ]


def test_a_proof_that_could_not_be_made():
    seen, found = judged({}, answer(message="pin_issuer_file /x: No such file\x1b[1m"))
    assert (seen["tested"], found) == (False, ["certificate_not_read"])
    assert "No such file\\x1b" in seen["reason"]
    unread = {
        "certificate": "/c.pem",
        "private_key": "/c.pem",
        "pem": "",
        "public_key": "",
        "message": "/c.pem cannot be read",
    }
    seen, found = judged({"client_certificate": "/c.pem"}, answer(message="it", client_certificate=unread))
    assert found == ["certificate_not_read"] and seen["client_certificate"] is None


def test_the_client_certificate_is_judged_by_the_senders_domain(authority):
    peer = {"kind": "exchange_online", "client_certificate": "/etc/c.pem"}
    entry = answer(DONE, client_certificate=presented(authority.issue(["other.test"])))
    seen, found = judged(peer, entry)
    assert found == ["client_not_public", "client_name_not_accepted"]
    assert seen["client_certificate"]["purposes"] == ["clientAuth", "serverAuth"]
    assert "client_name_not_accepted" not in judged(peer, entry, accepted_domains=["other.test"])[1]
    assert judged({"client_certificate": "/etc/c.pem"}, entry)[1] == ["client_root_unknown"]


def test_the_certificate_of_the_peer_was_judged_on_the_host():
    seen, found = judged(
        {"check": "trusted_chain"}, answer(DONE, unfit="check trusted_chain: self-signed\x1b certificate")
    )
    assert found == ["peer_certificate_unfit"]
    assert (
        "192.0.2.25:25 does not pass check trusted_chain: self-signed\\x1b certificate"
        in seen["findings"][0]["message"]
    )


def test_what_is_served_to_a_peer_that_looks_for_a_name(authority):
    peer = {"direction": "inbound", "hosts": [], "domains": [], "tls_domain": "mail.example.com"}
    issued = authority.issue(["other.test"])
    seen, found = judged(peer, answer(served_pem=[issued.certificate_pem.decode()]))
    assert found == ["name_mismatch", "untrusted"]
    assert seen["reason"] == "not tested to RCPT, because no mail goes to this peer"
    assert judged(peer, answer(served_pem=[]))[1] == ["bad_certificate"]


@pytest.mark.parametrize(
    "result",
    [
        {}, {"peers": None}, {"peers": []}, {"peers": ["x"]}, {"peers": [answer(DONE, name="two")]}, {"peers": [answer()]},
        {"peers": [answer(replace(DONE, host="192.0.2.26"))]}, {"peers": [answer(DONE, DONE)]}, {"peers": [answer(DONE, proofs=["x"])]},
        {"peers": [answer(DONE, client_certificate="x")]}, {"peers": [answer(DONE, proofs=[{"proof": DONE.to_dict()}])]},
    ],
)  # fmt: skip
def test_a_host_that_lies(result):
    with pytest.raises(EngineError, match="what the host returned about its peers"):
        with_findings(result, peers_of([PEER]), OPTIONS)


def test_a_failure_stays_as_it_is():
    assert with_findings({"failed": True, "msg": "no"}, peers_of([PEER]), OPTIONS) == {"failed": True, "msg": "no"}


# In the read of a mail server


def read(peer=None, proofs=(), certificates=(), served=()):
    """The codes of what the tests mean, and of what is said of the certificates; and the tests as peer_tls_info returns them."""
    result = {"obstacles": [], "notes": [], "peer_proofs": [*proofs], "peer_certificates": [*certificates]}
    options = {"peers": [{**PEER, **(peer or {})}], "peers_state": "present", "handshake": {"min_days_left": 7}}
    done = with_read_peers(json.loads(json.dumps(result)), options, served)
    assert "peer_certificates" not in done and done["obstacles"] == done["notes"] == []
    codes = [[one["code"] for one in test["findings"]] for test in done["peer_proofs"]]
    return codes, [(one["peer"], one["code"]) for one in done["peer_findings"]], done["peer_tests"]


REFUSED = replace(
    DONE, stage="rcpt", code=550, enhanced="5.7.64", text="5.7.64 TenantAttribution", fault="refused"
).to_dict()
ONLINE = {"kind": "exchange_online", "client_certificate": "/etc/c.pem"}


def test_a_read_explains_what_the_peers_say():
    proof = {
        "peer": "one",
        "kind": "exchange_online",
        "proof": REFUSED,
        "problem": "it refuses",
        "unfit": "",
        "refused": True,
    }
    codes, found, [test] = read(ONLINE, [proof])
    assert (codes, found) == ([["peer_not_attributed"]], [])
    assert (test["name"], test["tested"], test["passed"]) == ("one", True, False)
    assert [one["code"] for one in test["proofs"][0]["findings"]] == ["peer_not_attributed"]


def test_a_read_judges_the_client_certificate_before_the_change(authority):
    shown = {"peer": "one", **presented(authority.issue(["other.test"]))}
    assert read(ONLINE, certificates=[shown])[1] == [("one", "client_not_public"), ("one", "client_name_not_accepted")]
    assert read({"client_certificate": "/etc/c.pem"}, certificates=[shown])[1] == [("one", "client_root_unknown")]


def test_a_read_judges_what_it_is_going_to_serve(authority):
    peer = {"direction": "inbound", "hosts": [], "domains": [], "tls_domain": "mail.example.com"}
    chain = [ssl.PEM_cert_to_DER_cert(authority.issue(["other.test"]).certificate_pem.decode())]
    assert read(peer, served=chain)[1] == [("one", "name_mismatch"), ("one", "untrusted")]


def test_a_read_without_wanted_peers_stays_as_it_is():
    said = {"obstacles": [], "notes": [], "peers": None, "peer_proofs": []}
    for result, options in (
        ({"failed": True, "msg": "no"}, {"peers": [PEER], "peers_state": "present"}),
        (said, {"peers": None}), (said, {"peers": [PEER], "peers_state": "disabled"}),
        ({"peers": []}, {"peers": [PEER], "peers_state": "present"}),
    ):  # fmt: skip
        assert with_read_peers(result, options) == result


@pytest.mark.parametrize(
    "more", [{"peer_proofs": [{"peer": "two"}]}, {"peer_proofs": [], "peer_certificates": ["x"]}, {"peer_proofs": "x"}]
)
def test_a_read_that_lies(more):
    with pytest.raises(EngineError, match="about its peers"):
        with_read_peers({"obstacles": [], "notes": [], **more}, {"peers": [PEER], "peers_state": "present"})
