# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Explains how a proof with a peer ended, and what Exchange says in its queues: a table of known replies.

A reply that is not in the table is quoted as unknown, never guessed. The meaning of each row, and what to do, is in the
catalogue of findings. Private to this collection. Runs on the controller only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import PEER_KINDS, Peer
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.envelope import PROOF_STEPS, EnvelopeProof
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import NOT_TESTED
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import says_busy
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import ENVELOPE_REPLY_CHARS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import printable_text
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import CATALOGUE, Finding, entry_of

QUEUE = "queue"
"""The stage of words from the peer's own queue, about mail that it wants to deliver to this side."""

_ENVELOPE = ("mail", "rcpt")
_EXCHANGE, _ONLINE = ("exchange",), ("exchange_online",)
_BOTH = _EXCHANGE + _ONLINE
_REPLY = re.compile(r"\s*([245][0-9]{2})[ -]+(?:([245]\.[0-9]{1,3}\.[0-9]{1,3})(?![0-9.]))?")
_LAST_ERROR = re.compile(
    r"\s*\[?\{LED="
)  # Get-Queue: [{LED=reply};{MSG=what lies behind it};{FQDN=...};{IP=...};{LRT=...}]
_COMMAND_OF = {"greeting": "the connection", "ehlo": "EHLO", "starttls": "STARTTLS", "mail": "MAIL", "rcpt": "RCPT"}


@dataclass(frozen=True)
class Symptom:
    """A row of the table. kinds: of peers. stages: those of a proof, or QUEUE. codes: of the reply; none means any.

    enhanced: the enhanced status that the reply has; empty means any. words: a pattern that its text has, in any case; empty
    means any. finding: a code of the catalogue.
    """

    finding: str
    kinds: tuple[str, ...]
    stages: tuple[str, ...]
    codes: tuple[int, ...] = ()
    enhanced: str = ""
    words: str = ""

    def fits(self, kind: str, stage: str, code: int, enhanced: str, text: str) -> bool:
        """Whether a reply is the one of this row."""
        return (
            kind in self.kinds
            and stage in self.stages
            and (not self.codes or code in self.codes)
            and self.enhanced in ("", enhanced)
            and bool(re.search(self.words, text, re.IGNORECASE))
        )


SYMPTOMS = (
    Symptom("peer_not_attributed", _ONLINE, _ENVELOPE, (550,), "5.7.64"),
    Symptom("peer_untrusted_root", _ONLINE, _ENVELOPE, (454,), "4.7.0", r"appropriate TLS channel.*\bUntrustedRoot\b"),
    Symptom("peer_outdated_exchange", _ONLINE, _ENVELOPE, (450,), "4.7.230"),
    Symptom("peer_outdated_exchange", _ONLINE, _ENVELOPE, (550,), "5.7.230"),
    Symptom("peer_wants_starttls", _BOTH, _ENVELOPE, (451,), "5.7.3", "STARTTLS is required"),
    Symptom("peer_not_anonymous", _BOTH, _ENVELOPE, (530,), "5.7.57"),
    Symptom("peer_relay_denied", _BOTH, _ENVELOPE, (550,), "5.7.54", "unable to relay"),
    Symptom("peer_unavailable", _EXCHANGE, ("greeting", "ehlo", "starttls", *_ENVELOPE), (421,), "4.3.2", "not available"),
    Symptom("peer_hello_lost", _BOTH, ("ehlo", *_ENVELOPE), (503,), "5.5.2", "send hello first"),
    # Any server: RFC 3463, section 3.2; the words of Postfix and of Exim; greylisting daemons.
    Symptom("peer_recipient_unknown", PEER_KINDS, ("rcpt",), (550, 551, 553, 554), "5.1.1"),
    Symptom("peer_relay_denied", ("smtp",), ("rcpt",), (454, 550, 554), "", "relay access denied|relay not permitted"),
    Symptom("peer_greylisted", PEER_KINDS, _ENVELOPE, (421, 450, 451), "", "gr[ea]ylist"),
    # What Exchange says in its own queue.
    Symptom("peer_connector_certificate", _EXCHANGE, (QUEUE,), (454,), "4.7.5", "TlsCertificateName"),
    Symptom("peer_connector_certificate", _EXCHANGE, (QUEUE,), (), "", r"TLS negotiation failed with error (?:Unknown|No)Credentials"),
    Symptom("peer_served_name", _ONLINE, (QUEUE,), (450,), "4.4.317", r"Message=SubjectMismatch"),
    Symptom("peer_met_no_starttls", _ONLINE, (QUEUE,), (450,), "4.4.317", r"Message=451 5\.7\.3"),
    Symptom("peer_met_no_starttls", _BOTH, (QUEUE,), (451,), "5.7.3", "STARTTLS is required"),
)  # fmt: skip
"""What is known, the first row that fits counts. Sources: Microsoft's documentation of Exchange and Exchange Online."""

# Faults of the handshake that mean more with a peer of this kind, or need another advice there.
_FAULT_OF = {("exchange", "starttls_not_offered"): "peer_starttls_gone"}
_ADVICE_OF = {
    "client_certificate_required": "set client_certificate of the peer in starttls_peers, and client_key if the key is in another file",
    "untrusted": "correct check or pin_issuer_file of the peer in starttls_peers, or let the host know the root of the peer",
}


def explain(kind: str, proof: Mapping[str, Any], presents: bool = False) -> tuple[Finding, ...]:
    """Return what the result of a proof means and what to do, as findings; none if nothing is wrong.

    kind: of the peer. proof: as of EnvelopeProof.to_dict. presents: whether a client certificate was at hand. Raises ValueError if
    it is not the result of a proof.
    """
    return tuple(_explained(kind, EnvelopeProof.from_dict(proof), presents))


def _explained(kind: str, proof: EnvelopeProof, presents: bool) -> Iterator[Finding]:
    where = f"{proof.host}:{proof.port}"
    if presents and proof.asked is False:
        yield _finding("peer_certificate_not_asked", where)
    if proof.stage != "done":
        yield _ended(kind, proof, where)
    second = proof.second
    if second is None or second.stage == "done":
        return
    if proof.resumed is None:
        yield _finding("peer_resumed_unknown", where, second.reply or second.message)
        return
    found = _ended(kind, second, f"{where}, in a {'resumed' if proof.resumed else 'second'} session,")
    if proof.resumed and presents and found.code not in ("peer_busy", "peer_greylisted"):
        found = _finding("peer_refuses_resumed", where, second.reply or second.message)
    yield found


def _ended(kind: str, proof: EnvelopeProof, where: str) -> Finding:
    """Return the finding for a proof that did not reach its end."""
    fault = _FAULT_OF.get((kind, proof.fault), proof.fault)
    if fault == NOT_TESTED:
        return _finding("peer_not_tested", where)
    if fault not in CATALOGUE:
        fault = "peer_unknown_reply"  # refused; or another version of the collection is on the host
    if proof.code:
        known = known_reply(kind, proof.stage, proof.code, proof.enhanced, proof.text)
        said = f"{where} answers {_COMMAND_OF.get(proof.stage, proof.stage)}"
        if known:
            return Finding.advised(known, f'{said} with "{proof.reply}": {_meaning(known)}')
        return Finding.advised(fault, f'{said} with an unknown reply: "{proof.reply}"')
    if fault in _FAULT_OF.values() or fault == "client_certificate_refused":
        return _finding(fault, where, proof.message)
    return Finding.advised(
        fault, f"{where}: {proof.message} (the proof ended at {proof.stage})", _ADVICE_OF.get(fault, "")
    )


def known_reply(kind: str, stage: str, code: int, enhanced: str, text: str) -> str:
    """Return the code of the finding for a reply of a peer; empty if the table does not have it.

    kind: of the peer. stage: one of PROOF_STEPS, or QUEUE. text: may begin with the enhanced status.
    """
    for row in SYMPTOMS:
        if row.fits(kind, stage, code, enhanced, text):
            return row.finding
    return "peer_busy" if stage in PROOF_STEPS and says_busy(f"{code} {text}") else ""


def explain_queue(kind: str, words: str) -> Finding:
    """Return what the words in a queue of Exchange mean, about mail that it wants to deliver to this side, and what to do there.

    kind: C(exchange) or C(exchange_online). words: as the queue shows them, also as the whole LastError of Get-Queue; hostile.
    """
    text = printable_text(words, ENVELOPE_REPLY_CHARS)
    form = _LAST_ERROR.match(text)
    begins = _REPLY.match(text, form.end() if form else 0)
    code, enhanced = (int(begins.group(1)), begins.group(2) or "") if begins else (0, "")
    known = known_reply(kind, QUEUE, code, enhanced, text)
    if known:
        return Finding.advised(known, f'the queue says "{text}": {_meaning(known)}')
    return Finding.advised("peer_unknown_reply", f'unknown words of a queue: "{text}"')


def missing_proof(peer: Peer) -> str:
    """Return why a peer must not be required without a proof that reaches to RCPT; empty if it may, or if the proof is possible."""
    if not peer.sends_to_it or (peer.proof_sender and peer.proof_recipient):
        return ""
    if peer.kind != "exchange_online" or peer.level != "required":
        return ""
    lacking = [name for name in ("proof_sender", "proof_recipient") if not getattr(peer, name)]
    entry = entry_of("peer_proof_missing")
    return (
        f"the peer {peer.name} lacks {' and '.join(lacking)}: Exchange Online refuses at RCPT, for good, after a perfect handshake, so "
        f"level: required needs a proof that reaches to RCPT; {entry.advice}"
    )


def not_tested(peer: Peer) -> Finding:
    """Return the finding for a peer without addresses for a proof."""
    missing = missing_proof(peer)
    if missing:
        return Finding("peer_proof_missing", missing)
    return Finding.advised("peer_not_tested", f"the peer {peer.name} is not tested to RCPT")


def _finding(code: str, where: str, said: str = "") -> Finding:
    return Finding.advised(code, f"{where}: {_meaning(code)}{f' ({said})' if said else ''}")


def _meaning(code: str) -> str:
    """Return the sentence of the catalogue as a part of another one."""
    text = entry_of(code).description.rstrip(".")
    return text if text.startswith("Exchange") else text[0].lower() + text[1:]
