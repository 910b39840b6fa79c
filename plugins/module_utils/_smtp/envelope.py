# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof that reaches to RCPT: the handshake test with a client certificate, then MAIL, RCPT and RSET. No message is sent.

Some servers complete every handshake and judge the client certificate at RCPT only. Some forget it when a TLS session is
resumed, as mail servers do. So the proof is made once more on a resumed session. Standard library only, Python 3.9 or newer.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp import patience
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import (
    Dialogue,
    DialogueError,
    Reply,
    Stage,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    NOT_TESTED,
    DialogueSession,
    Settings,
    Trust,
    make_context,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, TargetError, is_domain
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.wire import Ended, Task, drive
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import ENVELOPE_REPLY_CHARS, MAX_CERTIFICATES

PROOF_STEPS = ("connect", "greeting", "ehlo", "starttls", "handshake", "mail", "rcpt", "done")
"""Where a proof can end, in the order of the dialogue."""
REFUSED = "refused"
"""The fault of a proof that ended with the server's answer to MAIL or RCPT."""
CERTIFICATE_REFUSED = "client_certificate_refused"

_ENDS_AT = {
    Stage.GREETING: "ehlo",
    Stage.EHLO: "starttls",
    Stage.STARTTLS_ADVERTISED: "starttls",
    Stage.STARTTLS_ANSWERED: "handshake",
    Stage.EHLO_TLS: "mail",
    Stage.MAIL: "rcpt",
    Stage.RCPT: "done",
}
_OF_A_REPLY = frozenset({"greeting_rejected", "ehlo_rejected", "starttls_refused", "ehlo_tls_rejected"})
_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])")
_LOCAL_PART = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}\Z")


class EnvelopeError(TargetError):
    """An address or a certificate file cannot be used. The text names the fault, and what to do."""


@dataclass(frozen=True)
class EnvelopeProof:
    """The result of one proof.

    stage: the step that was not passed, one of PROOF_STEPS; C(done) if the recipient was accepted. code, enhanced, text: the
    server's answer there, for example 550, C(5.7.64) and the text, which begins with the enhanced status; 0 and empty if it
    gave none. fault: C(refused), C(not_tested), or the code of a handshake test; empty if there is none. message: the fault
    in words. asked: whether the server asked for a client certificate; None if that is unknown. trusted: whether OpenSSL
    trusts the served chain; None if it was not asked. chain: DER, leaf first. resumed: whether the second session resumed
    the first one; None if there was no second session, or if it failed before that was known. second: its result.
    """

    host: str
    port: int
    stage: str
    code: int = 0
    enhanced: str = ""
    text: str = ""
    fault: str = ""
    message: str = ""
    tls_version: str = ""
    cipher: str = ""
    asked: Optional[bool] = None
    trusted: Optional[bool] = None
    chain: tuple[bytes, ...] = ()
    resumed: Optional[bool] = None
    second: Optional[EnvelopeProof] = None

    @property
    def accepted(self) -> bool:
        """Whether the server accepted the recipient, and did so again if it came to a second session."""
        second = self.second
        return self.stage == "done" and (second is None or second.stage == "done" or second.resumed is None)

    @property
    def reply(self) -> str:
        """The server's answer, for example C(550 5.7.64 TenantAttribution); empty if there is none."""
        return f"{self.code} {self.text}".rstrip() if self.code else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the proof as plain data for from_dict, with the certificates as PEM."""
        return {
            "host": self.host,
            "port": self.port,
            "stage": self.stage,
            "code": self.code,
            "enhanced": self.enhanced,
            "text": self.text,
            "fault": self.fault,
            "message": self.message,
            "tls_version": self.tls_version,
            "cipher": self.cipher,
            "asked": self.asked,
            "trusted": self.trusted,
            "chain_pem": [ssl.DER_cert_to_PEM_cert(der) for der in self.chain],
            "resumed": self.resumed,
            "second": self.second.to_dict() if self.second else None,
        }

    @classmethod
    def from_dict(cls, data: Any, inner: bool = False) -> EnvelopeProof:
        """Read plain data, which a host sent: texts are cut and made printable. Raises ValueError if it is no proof."""
        if not isinstance(data, Mapping) or data.get("stage") not in PROOF_STEPS:
            raise ValueError("it is not the result of a proof")
        code, port, chain, second = (data.get(key) for key in ("code", "port", "chain_pem", "second"))
        if type(code) is not int or type(port) is not int or not (code == 0 or 100 <= code <= 999):
            raise ValueError("the code or the port is not a number that can be one")
        if not isinstance(chain, (list, tuple)) or len(chain) > MAX_CERTIFICATES:
            raise ValueError("the chain is not a list of certificates")
        texts = ("enhanced", "text", "fault", "message", "tls_version", "cipher")
        shown: dict[str, Any] = {key: _shown(data.get(key)) for key in texts}
        truths: dict[str, Any] = {key: _truth(data.get(key)) for key in ("asked", "trusted", "resumed")}
        return cls(
            host=_shown(data.get("host")),
            port=port,
            stage=data["stage"],
            code=code,
            **shown,
            **truths,
            chain=tuple(ssl.PEM_cert_to_DER_cert(str(one)) for one in chain),
            second=cls.from_dict(second, inner=True) if second is not None and not inner else None,
        )


def _shown(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is missing")
    return "".join(one if one.isprintable() else "?" for one in value[:ENVELOPE_REPLY_CHARS])


def _truth(value: Any) -> Optional[bool]:
    if value is not None and not isinstance(value, bool):
        raise ValueError("a truth value is something else")
    return value


def check_address(what: str, address: str) -> None:
    """Raise EnvelopeError unless it is a plain e-mail address in ASCII. So no newline and no other command reaches the wire."""
    local, at, domain = address.rpartition("@")
    if not (at and _LOCAL_PART.match(local) and is_domain(domain.lower())):
        raise EnvelopeError(f"{what} {address[:320]!r} is not an e-mail address (write it in ASCII)")


def client_context(client_certificate: str = "", client_key: str = "") -> ssl.SSLContext:
    """Return a TLS context that presents this certificate, with the chain as it is in the file. It accepts every served chain.

    Paths of PEM files; client_key: of the private key if it is not in the file of the certificate. A context belongs to one
    certificate: a session that it holds must never be resumed for another one. Raises EnvelopeError.
    """
    # Without roots: with them, OpenSSL would complete the chain from the host's store, and the proof would hide what is missing.
    context = make_context(None, verify=False)
    if not client_certificate:
        return context
    key = client_key or client_certificate
    where = client_certificate if key == client_certificate else f"{client_certificate} with the key in {key}"
    try:
        context.load_cert_chain(client_certificate, key, password=_no_passphrase)
    except OSError as error:  # SSLError is one of these
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        said = reason.replace("_", " ").lower() if reason else "it is not PEM, or has no certificate or no key"
        raise EnvelopeError(
            f"client_certificate {where} cannot be used: {said}; the file has to hold the "
            "certificate, its intermediates and the private key (or name the key's file in client_key), without a passphrase"
        ) from None
    return context


def _no_passphrase() -> str:
    """OpenSSL would ask the terminal for it."""
    return ""


# The dialogue


class EnvelopeDialogue(Dialogue):
    """Goes on inside TLS with MAIL, RCPT and RSET, then QUIT. Without addresses it ends like a handshake test.

    answer: the server's answer to MAIL or RCPT, the last of them. A refusal is no DialogueError.
    """

    def __init__(self, helo_name: str, sender: str, recipient: str, protocol: str = "smtp") -> None:
        super().__init__(helo_name, protocol=protocol)
        self.answer: Optional[Reply] = None
        self._sender = sender
        self._recipient = recipient

    def _on_ehlo_tls(self, reply: Reply) -> None:
        if reply.code != 250 or not self._sender:
            super()._on_ehlo_tls(reply)
            return
        self.stage = Stage.EHLO_TLS
        self.capabilities_tls = reply.lines[1:]
        self._say(f"MAIL FROM:<{self._sender}>".encode("ascii"), type(self)._on_sender)

    def _on_sender(self, reply: Reply) -> None:
        self.answer = reply
        if _is_yes(reply):
            self.stage = Stage.MAIL
            self._say(f"RCPT TO:<{self._recipient}>".encode("ascii"), type(self)._on_recipient)
        else:
            self._quit(reply)

    def _on_recipient(self, reply: Reply) -> None:
        self.answer = reply
        if _is_yes(reply):
            self.stage = Stage.RCPT
        if reply.code == 421:  # the server closes the connection
            self._quit(reply)
        else:
            self._say(b"RSET", type(self)._quit)

    def _quit(self, _reply: Reply) -> None:
        self._output += b"QUIT\r\n"
        self.done = True


def _is_yes(reply: Reply) -> bool:
    return 200 <= reply.code < 300


class EnvelopeSession(DialogueSession):
    """One attempt. If the settings ask for trust, it ends before MAIL with a server whose chain OpenSSL refuses."""

    def __init__(self, target: Target, settings: Settings, way: _Way, resume: Optional[ssl.SSLSession] = None) -> None:
        """Prepare the attempt. resume: a TLS session of the same context."""
        self._envelope = EnvelopeDialogue(settings.helo_name, way.sender, way.recipient, target.protocol)
        super().__init__(target, settings, way.context, self._envelope, resume)
        self._way = way
        self._verify = settings.verify_trust and resume is None
        self._trusted: Optional[bool] = None

    def proof(self, ended: Ended) -> EnvelopeProof:
        """Return the result of the attempt."""
        seen = self.result(0.0)
        dialogue, error = self._envelope, ended.error
        stage = self._stage(ended)
        reply, fault, message = dialogue.answer, "", ""
        if stage == "done":
            pass
        elif reply and not _is_yes(reply):
            fault, message = REFUSED, f"{stage.upper()} is answered with {reply}"
        elif error:
            reply = dialogue.last_reply if error.code in _OF_A_REPLY else None
            fault, message = error.code, str(error)
        else:
            fault, message = NOT_TESTED, "there are no addresses for the proof, so it ended before MAIL"
        text = " / ".join(reply.lines) if reply else ""
        enhanced = _ENHANCED.match(text)
        return EnvelopeProof(
            self._target.host,
            self._target.port,
            stage,
            reply.code if reply else 0,
            enhanced.group() if enhanced else "",
            _shown(text),
            fault,
            _shown(message),
            seen.tls_version,
            seen.cipher,
            {"requested": True, "required": True, "not_requested": False}.get(seen.client_certificate or ""),
            self._trusted,
            seen.chain,
        )

    def _stage(self, ended: Ended) -> str:
        stage, error = self.dialogue.stage, ended.error
        if stage is Stage.CONNECT:
            if self.tls is not None:  # TLS from the start
                return "handshake"
            return "greeting" if "connect" in ended.timings else "connect"
        if stage is Stage.TLS:  # TLS 1.3: a server refuses a client certificate after the handshake
            return "ehlo" if error is None or error.code == "ehlo_tls_rejected" else "handshake"
        return _ENDS_AT[stage]

    def _note_tls(self, tls: ssl.SSLObject) -> None:
        super()._note_tls(tls)
        if not (self._verify and self._seen["chain"]):
            return
        name = self._target.server_name
        error = self._way.trust.verdict(self._seen["chain"], name)
        self._trusted = error == ""
        if error != "":
            raise DialogueError("untrusted", error or "OpenSSL cannot read the served chain")

    def _failed(self, tls: ssl.SSLObject, error: ssl.SSLError) -> DialogueError:
        fault = super()._failed(tls, error)
        if fault.code == "client_certificate_required" and self._way.has_certificate:
            return DialogueError(CERTIFICATE_REFUSED, str(fault).replace("insists on a", "refuses the"))
        return fault


# The proof


@dataclass(frozen=True)
class _Way:
    """What all sessions of one proof share."""

    context: ssl.SSLContext
    trust: Trust
    sender: str
    recipient: str
    has_certificate: bool


def prove_envelope(
    target: Target,
    settings: Settings,
    sender: str,
    recipient: str,
    client_certificate: str = "",
    client_key: str = "",
    resume: bool = True,
) -> EnvelopeProof:
    """Connect as a mail server would, with the client certificate, and go as far as RCPT; then once more on a resumed session.

    Never DATA: RSET follows. With empty sender and recipient the proof ends before MAIL, as C(not_tested). settings.verify_trust
    and verify_name: OpenSSL has to trust the served chain, and the name, else the proof ends before MAIL. settings.total_timeout
    is for both sessions. A server that says that it is busy is asked once more; settings.told gets a sentence. A fault of the
    server never raises. Raises EnvelopeError for an address or a certificate file that cannot be used.
    """
    target.check()
    if sender or recipient:
        check_address("proof_sender", sender)
        check_address("proof_recipient", recipient)
    context = client_context(client_certificate, client_key)
    way = _Way(context, Trust(settings), sender, recipient, bool(client_certificate))
    proof = _prove(target, settings, way, resume)
    if _is_busy(proof):
        time.sleep(patience.PAUSE)
        first, proof = proof, _prove(target, settings, way, resume)
        settings.told.append(patience.told(target, first.message, proof.message if _is_busy(proof) else ""))
    return proof


def _prove(target: Target, settings: Settings, way: _Way, resume: bool) -> EnvelopeProof:
    made: list[EnvelopeProof] = []
    drive([(target, _both(target, settings, way, resume))], settings.limits, lambda _index, proof: made.append(proof))
    return made[0]


def _both(target: Target, settings: Settings, way: _Way, resume: bool) -> Task[EnvelopeProof]:
    session = EnvelopeSession(target, settings, way)
    ended = yield session
    proof = session.proof(ended)
    if proof.stage != "done" or not resume:
        return proof
    saved = session.take_session()
    if saved is None:
        return replace(proof, resumed=False)
    again = EnvelopeSession(target, settings, way, saved)
    ended = yield again
    resumed = again.tls.session_reused if again.tls and again.dialogue.stage >= Stage.TLS else None
    second = again.proof(ended)
    if resumed:
        second = replace(second, asked=None)  # nobody asks again
    return replace(proof, resumed=resumed, second=replace(second, resumed=resumed))


def _is_busy(proof: EnvelopeProof) -> bool:
    if proof.fault == "timeout":
        return proof.stage == "greeting"  # it took the connection, and did not greet
    return patience.says_busy(proof.reply)
