"""Each row of the table of symptoms, provoked on the stand-in and explained: by the proof that reaches to RCPT, or in its queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp import patience
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.envelope import EnvelopeProof, prove_envelope
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding, entry_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peer_replies import (
    QUEUE,
    SYMPTOMS,
    explain,
    explain_queue,
)

from tests.support.exchange import Exchange, exchange, wait_for
from tests.support.pki import Authority, Issued

SENDER, MAILBOX, ELSEWHERE = "anna@fleet.test", "joe@echo.test", "you@partner.test"
SETTINGS = Settings(helo_name="relay.fleet.test", timeout=15, verify_trust=False)
QUEUE_TEXTS = [row for row in SYMPTOMS if "Unknown|No" in row.words]
"""Words of a log of Exchange, which the stand-in does not write."""


@pytest.fixture(scope="module")
def premises_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    with exchange(tmp_path_factory.mktemp("premises"), "on_premises") as made:
        yield made


@pytest.fixture(scope="module")
def online_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    with exchange(tmp_path_factory.mktemp("online"), "online") as made:
        yield made


@pytest.fixture
def stand_ins(premises_once: Exchange, online_once: Exchange) -> Iterator[dict[str, Exchange]]:
    """Kind of the peer -> stand-in; any other kind has that on premises. What a test changes is taken back."""
    both = {"exchange": premises_once, "exchange_online": online_once}
    states = {kind: one.state() for kind, one in both.items()}
    yield {**both, "smtp": premises_once}
    for kind, one in both.items():
        state = states[kind]
        one.change(lambda now, state=state: (now.clear(), now.update(state)))


def says(at: str, reply: str, **more: Any) -> Callable[[Exchange], None]:
    """Have the stand-in answer so."""
    return lambda one: one.change(lambda state: state.update(Replies=[{"At": at, "Reply": reply, **more}]))


def sets(kind: str, **properties: Any) -> Callable[[Exchange], None]:
    """Set properties, as a cmdlet does."""
    return lambda one: one.set(kind, **properties)


def not_active(one: Exchange) -> None:
    one.change(lambda state: state.update(ServerComponentState={"FrontendTransport": "Inactive"}))


def certificate_gone(one: Exchange) -> None:
    one.set("ReceiveConnectors", TlsCertificateName="<I>CN=gone<S>CN=gone")


def as_usual(_one: Exchange) -> None:
    pass


def of_the_connector(one: Exchange) -> Issued:
    return one.authority.issue(["relay.fleet.test"])


CLIENTS: dict[str, Callable[[Exchange], Issued]] = {
    "good": of_the_connector,
    "leaf alone": of_the_connector,
    "lost its name": lambda one: one.authority.issue(["relay.elsewhere.test"]),
    "unknown authority": lambda _one: Authority.create("unknown").issue(["relay.fleet.test"]),
}


def proved(one: Exchange, recipient: str, client: str = "") -> EnvelopeProof:
    """The proof with a stand-in; client: one of CLIENTS, or empty for none."""
    path = str(one.bundle("client", CLIENTS[client](one), client != "leaf alone")) if client else ""
    return prove_envelope(Target("127.0.0.1", one.port), SETTINGS, SENDER, recipient, path)


OUTDATED = "Connecting Exchange server version is out-of-date; connection to Exchange Online"
# kind, what is changed, recipient, client certificate, finding
CASES = [
    ("exchange_online", as_usual, ELSEWHERE, "", "peer_not_attributed"),
    ("exchange_online", as_usual, ELSEWHERE, "leaf alone", "peer_not_attributed"),
    ("exchange_online", as_usual, ELSEWHERE, "lost its name", "peer_not_attributed"),
    ("exchange_online", as_usual, ELSEWHERE, "unknown authority", "peer_untrusted_root"),
    ("exchange_online", says("mail", f"450 4.7.230 {OUTDATED} throttled"), MAILBOX, "", "peer_outdated_exchange"),
    ("exchange_online", says("rcpt", f"550 5.7.230 {OUTDATED} blocked"), MAILBOX, "", "peer_outdated_exchange"),
    ("exchange", says("mail", "451 5.7.3 STARTTLS is required to send mail"), MAILBOX, "", "peer_wants_starttls"),
    ("exchange", sets("ReceiveConnectors", PermissionGroups="ExchangeUsers"), MAILBOX, "", "peer_not_anonymous"),
    ("exchange", as_usual, ELSEWHERE, "", "peer_relay_denied"),
    ("exchange", not_active, MAILBOX, "", "peer_unavailable"),
    ("exchange", says("mail", "503 5.5.2 Send hello first"), MAILBOX, "", "peer_hello_lost"),
    ("exchange", says("rcpt", "550 5.1.1 User unknown"), MAILBOX, "", "peer_recipient_unknown"),
    ("smtp", says("rcpt", "554 5.7.1 <you@partner.test>: Relay access denied"), MAILBOX, "", "peer_relay_denied"),
    ("smtp", says("rcpt", "450 4.2.0 Greylisted, try again later"), MAILBOX, "", "peer_greylisted"),
    # Not replies, but what the proof itself meets.
    ("exchange", certificate_gone, MAILBOX, "", "peer_starttls_gone"),
    ("exchange", as_usual, MAILBOX, "good", "peer_certificate_not_asked"),
    ("exchange_online", says("rcpt", "550 5.7.64 Relay Access Denied", Resumed=True), ELSEWHERE, "good", "peer_refuses_resumed"),
]  # fmt: skip
UNKNOWN = [
    "550 5.7.51 TenantInboundAttribution; Rejecting",
    "550 5.7.711 Access denied, bad inbound connector",
    "421 4.4.2 Connection dropped",
]
# kind, kind of its connectors, what it wants of the smart host, which offers no STARTTLS, finding
QUEUES = [
    ("on_premises", "SendConnectors", {"RequireTLS": True}, "peer_met_no_starttls"),
    ("on_premises", "SendConnectors", {"RequireTLS": True, "TlsCertificateName": "<I>CN=old<S>CN=old"}, "peer_connector_certificate"),
    ("online", "OutboundConnectors", {"TlsSettings": "EncryptionOnly"}, "peer_met_no_starttls"),
    ("online", "OutboundConnectors", {"TlsSettings": "DomainValidation", "TlsDomain": "other.test"}, "peer_served_name"),
]  # fmt: skip


def row_of(kind: str, stage: str, code: int, enhanced: str, text: str) -> Any:
    return next(row for row in SYMPTOMS if row.fits(kind, stage, code, enhanced, text))


PROVOKED: set[Any] = set()


@pytest.mark.parametrize(("kind", "change", "recipient", "client", "code"), CASES)
def test_a_refusal_is_explained(
    stand_ins: dict[str, Exchange],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    change: Callable[[Exchange], None],
    recipient: str,
    client: str,
    code: str,
) -> None:
    monkeypatch.setattr(patience, "PAUSE", 0)
    change(stand_ins[kind])
    proof = proved(stand_ins[kind], recipient, client)
    (found,) = explain(kind, proof.to_dict(), bool(client))
    assert found.code == code and found.message.endswith(entry_of(code).advice)
    if proof.code and proof.stage != "done":
        assert proof.reply in found.message
        PROVOKED.add(row_of(kind, proof.stage, proof.code, proof.enhanced, proof.text))


@pytest.mark.parametrize("reply", UNKNOWN)
def test_a_reply_that_nobody_listed_is_quoted(stand_ins: dict[str, Exchange], reply: str) -> None:
    online = stand_ins["exchange_online"]
    says("rcpt", reply, Close=reply.startswith("421"))(online)
    (found,) = explain("exchange_online", proved(online, ELSEWHERE, "good").to_dict(), True)
    assert found.code == "peer_unknown_reply" and f'unknown reply: "{reply}"' in found.message


def test_silence_at_rcpt_is_said_as_that(stand_ins: dict[str, Exchange]) -> None:
    online = stand_ins["exchange_online"]
    online.change(lambda state: state.update(Replies=[{"At": "rcpt", "Silence": True}]))
    target = Target("127.0.0.1", online.port)
    proof = prove_envelope(target, Settings(timeout=1, verify_trust=False), SENDER, ELSEWHERE)
    (found,) = explain("exchange_online", proof.to_dict())
    assert found.code == "timeout" and "ended at rcpt" in found.message


@pytest.mark.parametrize("keeps", [True, False])
def test_a_resumed_session_keeps_its_certificate_or_loses_it(stand_ins: dict[str, Exchange], keeps: bool) -> None:
    online = stand_ins["exchange_online"]
    online.change(lambda state: state.update(ResumedSessionKeepsAttribution=keeps))
    proof = proved(online, ELSEWHERE, "good")
    assert proof.stage == "done" and proof.resumed
    found = explain("exchange_online", proof.to_dict(), True)
    assert [one.code for one in found] == ([] if keeps else ["peer_refuses_resumed"])


@pytest.mark.parametrize(("behaviour", "connectors", "wanted", "code"), QUEUES)
def test_words_of_its_queue_are_explained(
    tmp_path: Path, behaviour: str, connectors: str, wanted: dict[str, Any], code: str
) -> None:
    kind = {"on_premises": "exchange", "online": "exchange_online"}[behaviour]
    for name in ("sender", "relay"):
        (tmp_path / name).mkdir()
    with (
        exchange(tmp_path / "relay", "on_premises") as relay,
        exchange(tmp_path / "sender", behaviour, relay.port) as sender,
    ):
        if code == "peer_met_no_starttls":
            relay.set("ReceiveConnectors", AuthMechanism="Integrated")
        relay.serve("served", sender.authority.issue(["exch.fleet.test"]))
        sender.set(connectors, **wanted)
        sender.submit(ELSEWHERE)
        waiting = wait_for(lambda: [one for one in sender.queues() if one["Status"] == "Retry"])
        said = waiting[0]["LastError"]
    found: Finding = explain_queue(kind, said)
    assert found.code == code and said in found.message
    reply = said.partition("LED=")[2]
    PROVOKED.add(row_of(kind, QUEUE, int(reply[:3]), reply.split()[1], said))


def test_nothing_of_the_table_was_left_out() -> None:
    """Every row but those that the stand-in does not say. tests/unit/plugins/plugin_utils/test_peer_replies.py has their words."""
    if len(PROVOKED) > 1:  # a run of one test alone proves nothing of the others
        assert set(SYMPTOMS) - PROVOKED - set(QUEUE_TEXTS) == set()
