"""What a peer's reply means: each row of the table, and that nothing else is guessed at."""

import json
import re
from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import PEER_KINDS, Peer
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.envelope import PROOF_STEPS, EnvelopeProof
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import CATALOGUE, entry_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peer_replies import (
    SYMPTOMS,
    explain,
    explain_queue,
    known_reply,
    missing_proof,
    not_tested,
)

TAIL = " [HOST.prod.exchange.example 2026-01-01T00:00:00.000Z 08DE0123456789AB]"
DONE = EnvelopeProof("192.0.2.25", 25, "done", 250, "2.1.5", "2.1.5 Recipient OK", asked=True, resumed=False)

# kind, stage, reply, finding
ROWS = [
    ("exchange_online", "rcpt", "550 5.7.64 TenantAttribution; Relay Access Denied" + TAIL, "peer_not_attributed"),
    ("exchange_online", "rcpt", "550 5.7.64 Relay Access Denied ATTR36. For more details" + TAIL, "peer_not_attributed"),
    (
        "exchange_online", "rcpt", "454 4.7.0 Failed to establish appropriate TLS channel: [UntrustedRoot:] Access Denied" + TAIL,
        "peer_untrusted_root",
    ),
    (
        "exchange_online", "rcpt", "454 4.7.0 Failed to establish appropriate TLS channel: UntrustedRoot: Access Denied" + TAIL,
        "peer_untrusted_root",
    ),
    ("exchange_online", "mail", "450 4.7.230 Connecting Exchange server version is out-of-date" + TAIL, "peer_outdated_exchange"),
    ("exchange_online", "rcpt", "550 5.7.230 Connecting Exchange server version is out-of-date" + TAIL, "peer_outdated_exchange"),
    ("exchange_online", "mail", "451 5.7.3 STARTTLS is required to send mail" + TAIL, "peer_wants_starttls"),
    ("exchange", "mail", "451 5.7.3 STARTTLS is required to send mail", "peer_wants_starttls"),
    ("exchange", "mail", "530 5.7.57 Client not authenticated to send mail", "peer_not_anonymous"),
    ("exchange_online", "mail", "530 5.7.57 Client not authenticated to send mail" + TAIL, "peer_not_anonymous"),
    ("exchange", "rcpt", "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", "peer_relay_denied"),
    ("exchange", "greeting", "421 4.3.2 Service not available", "peer_unavailable"),
    ("exchange", "rcpt", "421 4.3.2 Service not available", "peer_unavailable"),
    ("exchange", "mail", "503 5.5.2 Send hello first", "peer_hello_lost"),
    ("exchange_online", "ehlo", "503 5.5.2 Send hello first" + TAIL, "peer_hello_lost"),
    ("exchange_online", "mail", "451 4.7.500 Server busy. Please try again later from [192.0.2.1]." + TAIL, "peer_busy"),
    ("smtp", "greeting", "421 4.7.0 mx.example.test Error: too many connections from 192.0.2.1", "peer_busy"),
    ("smtp", "rcpt", "550 5.1.1 <nobody@example.com>: Recipient address rejected: User unknown", "peer_recipient_unknown"),
    ("smtp", "rcpt", "554 5.7.1 <a@example.com>: Relay access denied", "peer_relay_denied"),
    ("smtp", "rcpt", "454 4.7.1 <a@example.com>: Relay access denied", "peer_relay_denied"),
    ("smtp", "rcpt", "550 relay not permitted", "peer_relay_denied"),
    ("smtp", "rcpt", "450 4.2.0 <a@example.com>: Recipient address rejected: Greylisted for 300 seconds", "peer_greylisted"),
]  # fmt: skip
QUEUES = [
    (
        "exchange", "454 4.7.5 The certificate specified in TlsCertificateName of the SendConnector could not be found",
        "peer_connector_certificate",
    ),
    ("exchange", "TLS negotiation failed with error UnknownCredentials", "peer_connector_certificate"),
    ("exchange", "TLS negotiation failed with error NoCredentials", "peer_connector_certificate"),
    ("exchange", "451 5.7.3 STARTTLS is required to send mail", "peer_met_no_starttls"),
    (
        "exchange",
        "[{LED=451 5.7.3 STARTTLS is required to send mail};{MSG=};{FQDN=relay.example.com};{IP=192.0.2.25};{LRT=1/31/2026 8:38:21 PM}]",
        "peer_met_no_starttls",
    ),
    (
        "exchange_online", "450 4.4.317 Cannot connect to remote server [Message=SubjectMismatch Expected Subject: mail.example.com]",
        "peer_served_name",
    ),
    (
        "exchange_online", "450 4.4.317 Cannot connect to remote server [Message=451 5.7.3 STARTTLS is required to send mail]",
        "peer_met_no_starttls",
    ),
]  # fmt: skip

UNKNOWN = [
    ("exchange_online", "rcpt", "550 5.7.51 TenantInboundAttribution; Rejecting" + TAIL),
    ("exchange_online", "rcpt", "550 5.7.68 TenantInboundAttribution" + TAIL),
    ("exchange_online", "rcpt", "550 5.7.711 Access denied" + TAIL),
    ("exchange_online", "rcpt", "421 4.4.2 Connection dropped" + TAIL),
    (
        "exchange_online",
        "rcpt",
        "454 4.7.0 Failed to establish appropriate TLS channel: [CertExpired:] Access Denied" + TAIL,
    ),
    ("exchange_online", "rcpt", "550 5.7.640 not the one of the table"),
    ("exchange", "rcpt", "550 5.7.64 TenantAttribution; Relay Access Denied"),
    ("smtp", "mail", "530 5.7.57 Client not authenticated to send mail"),
    ("smtp", "rcpt", "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain"),
    ("smtp", "rcpt", "550 no"),
]


def refused(stage, reply):
    """A proof that ended with this reply."""
    code, _, text = reply.partition(" ")
    found = re.match(r"[245]\.\d+\.\d+(?!\.)", text)
    enhanced = found.group() if found else ""
    faults = {"greeting": "greeting_rejected", "ehlo": "ehlo_tls_rejected", "starttls": "starttls_refused"}
    return EnvelopeProof(
        "192.0.2.25",
        25,
        stage,
        int(code),
        enhanced,
        text,
        faults.get(stage, "refused"),
        f"{stage}: {reply}",
        asked=True,
    )


@pytest.mark.parametrize(("kind", "stage", "reply", "code"), ROWS)
def test_a_known_reply_is_explained(kind, stage, reply, code):
    (found,) = explain(kind, refused(stage, reply).to_dict())
    assert found.code == code
    assert found.message.startswith("192.0.2.25:25 answers ")
    assert f'"{reply}"' in found.message and found.message.endswith(entry_of(code).advice)


@pytest.mark.parametrize(("kind", "words", "code"), QUEUES)
def test_known_words_of_a_queue_are_explained(kind, words, code):
    found = explain_queue(kind, words)
    assert found.code == code and words in found.message and found.message.endswith(entry_of(code).advice)


def test_each_row_of_the_table_is_provoked_here():
    seen = set()
    for kind, stage, reply, _code in [*ROWS, *((kind, "queue", words, code) for kind, words, code in QUEUES)]:
        proof = refused(stage, reply) if reply[:3].isdigit() else EnvelopeProof("", 1, "rcpt", text=reply)
        fitting = [row for row in SYMPTOMS if row.fits(kind, stage, proof.code, proof.enhanced, proof.text)]
        seen |= set(fitting[:1])
    assert seen == set(SYMPTOMS)


def test_the_table_is_made_of_what_exists():
    for row in SYMPTOMS:
        assert row.finding in CATALOGUE and set(row.kinds) <= set(PEER_KINDS), row
        assert set(row.stages) <= {*PROOF_STEPS, "queue"} and (row.enhanced or row.words), row
        if row.enhanced and row.codes:
            assert len(row.enhanced.split(".")) == 3, row


@pytest.mark.parametrize(("kind", "stage", "reply"), UNKNOWN)
def test_another_reply_is_quoted_and_not_guessed_at(kind, stage, reply):
    (found,) = explain(kind, refused(stage, reply).to_dict())
    assert found.code == "peer_unknown_reply"
    assert f'unknown reply: "{reply}"' in found.message


def test_other_words_of_a_queue_are_quoted():
    found = explain_queue("exchange_online", "450 4.4.101 Proxy session setup failed on Frontend \x1b[2J")
    assert found.code == "peer_unknown_reply"
    assert '"450 4.4.101 Proxy session setup failed on Frontend \\x1b[2J"' in found.message
    assert explain_queue("smtp", "").code == "peer_unknown_reply"
    assert len(explain_queue("exchange", "450 4.4.317 [" * 1_000_000).message) < 1000


def test_no_answer_is_said_as_that():
    proof = EnvelopeProof("192.0.2.25", 25, "rcpt", fault="timeout", message="no progress for 15 s after mail")
    (found,) = explain("exchange_online", proof.to_dict())
    assert found.code == "timeout" and "ended at rcpt" in found.message and "no progress" in found.message


@pytest.mark.parametrize(
    ("kind", "fault", "code", "says"),
    [
        ("exchange", "starttls_not_offered", "peer_starttls_gone", "event 12014"),
        ("exchange_online", "starttls_not_offered", "starttls_not_offered", "a device on the path"),
        ("smtp", "client_certificate_required", "client_certificate_required", "set client_certificate of the peer"),
        ("smtp", "client_certificate_refused", "client_certificate_refused", "alert unknown ca"),
        ("exchange", "untrusted", "untrusted", "starttls_peers"),
        ("exchange", "connect_failed", "connect_failed", "listens on this address"),
        ("exchange", "something new", "peer_unknown_reply", "alert unknown ca"),
    ],
)
def test_faults_of_the_handshake(kind, fault, code, says):
    proof = EnvelopeProof("192.0.2.25", 25, "handshake", fault=fault, message="the reason: alert unknown ca")
    (found,) = explain(kind, proof.to_dict())
    assert found.code == code and says in found.message


def test_a_good_proof_has_no_finding():
    for proof in (DONE, replace(DONE, resumed=True, second=replace(DONE, asked=None)), replace(DONE, asked=None)):
        for kind in PEER_KINDS:
            assert explain(kind, proof.to_dict(), presents=True) == ()


def test_a_certificate_that_was_not_asked_for():
    proof = replace(DONE, asked=False).to_dict()
    assert [one.code for one in explain("exchange_online", proof, presents=True)] == ["peer_certificate_not_asked"]
    assert explain("exchange_online", proof) == ()


@pytest.mark.parametrize(
    ("resumed", "second", "code", "says"),
    [
        (True, refused("rcpt", "550 5.7.64 TenantAttribution" + TAIL), "peer_refuses_resumed", "resumes none"),
        (True, refused("rcpt", "550 5.7.51 unknown"), "peer_refuses_resumed", "5.7.51 unknown"),
        (True, refused("mail", "451 4.7.500 Server busy. Please try again later"), "peer_busy", "in a resumed session"),
        (False, refused("rcpt", "550 5.7.64 TenantAttribution" + TAIL), "peer_not_attributed", "in a second session"),
        (None, refused("greeting", "421 4.3.2 Service not available"), "peer_resumed_unknown", "421 4.3.2"),
    ],
)
def test_the_second_session(resumed, second, code, says):
    proof = replace(DONE, resumed=resumed, second=replace(second, resumed=resumed))
    (found,) = explain("exchange_online", proof.to_dict(), presents=True)
    assert found.code == code and says in found.message


def test_a_refusal_of_a_resumed_session_without_a_certificate_is_one():
    second = replace(refused("rcpt", "550 5.7.64 TenantAttribution" + TAIL), resumed=True)
    (found,) = explain("exchange_online", replace(DONE, resumed=True, second=second).to_dict())
    assert found.code == "peer_not_attributed" and "in a resumed session" in found.message


@pytest.mark.parametrize("text", ["\x1b[31m{{ 1 }}\n\r\x00", "x" * 10_000_000, "5.7.64 a / 5.7.64 b " * 100_000])
def test_a_hostile_reply_stays_printable_and_short(text):
    for kind in PEER_KINDS:
        proof = {**refused("rcpt", "550 x").to_dict(), "text": text, "enhanced": text[:9]}
        (found,) = explain(kind, json.loads(json.dumps(proof)))
        assert found.code == "peer_unknown_reply"
        assert found.message.isprintable() and len(found.message) < 1000


def test_what_a_host_makes_up():
    for proof in (None, [], "x", {}, {"stage": "rcpt"}):
        with pytest.raises(ValueError):
            explain("smtp", proof)
    (found,) = explain("smtp", replace(refused("rcpt", "550 x"), stage="connect").to_dict())
    assert found.code == "peer_unknown_reply" and "answers connect with" in found.message
    assert known_reply("new", "new", 550, "5.7.64", "x") == ""


# Peers without addresses

PEER = {"name": "online", "kind": "exchange_online", "hosts": ["192.0.2.25"], "domains": ["*"]}


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({}, "proof_sender and proof_recipient"),
        ({"proof_sender": "a@example.com"}, "lacks proof_recipient"),
        ({"proof_recipient": "a@example.com"}, "lacks proof_sender"),
        ({"proof_sender": "a@example.com", "proof_recipient": "a@example.com"}, ""),
        ({"level": "opportunistic"}, ""),
        ({"kind": "exchange"}, ""),
        ({"kind": "smtp"}, ""),
        ({"direction": "inbound", "hosts": [], "domains": []}, ""),
    ],
)
def test_a_required_exchange_online_needs_addresses(changes, missing):
    peer = Peer.from_dict({**PEER, **changes})
    assert missing in missing_proof(peer) and bool(missing_proof(peer)) is bool(missing)
    assert not_tested(peer).code == ("peer_proof_missing" if missing else "peer_not_tested")
    assert "online" in not_tested(peer).message
