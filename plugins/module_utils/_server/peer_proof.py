# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The evidence that a peer accepts what a change would send there, from this host, with the client certificate of the change."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import opened, roots_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import UntrustedPathError
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import Peer
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.envelope import prove_envelope
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target, Trust
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import TargetError
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_AFTER_HANDSHAKE = ("mail", "rcpt", "done")


@dataclass(frozen=True)
class PeerProof:
    """The test of one host of a peer. proof: the result of prove_envelope as plain data.

    problem: why the change has to be refused; empty if it need not be. may_insist: whether require_without_evidence may go on in
    spite of it; not if the peer refuses mail for good. warning: what the test shows besides. unfit: why the peer's certificate does
    not pass the check of its entry; empty if it does, or if it came to no certificate.
    """

    peer: str
    kind: str
    proof: dict[str, Any]
    problem: str = ""
    warning: str = ""
    may_insist: bool = True
    unfit: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the test as plain data."""
        return {
            "peer": self.peer,
            "kind": self.kind,
            "proof": self.proof,
            "problem": self.problem,
            "warning": self.warning,
            "unfit": self.unfit,
        }


def prove_peers(peers: Sequence[Peer], settings: Settings, roots: str = "") -> tuple[PeerProof, ...]:
    """Test every host of these peers that TLS is used with. Nothing is raised for a fault of a peer. Raises EngineError, OSError.

    roots: path of the roots by which the daemon judges a peer's certificate; empty for the system's.
    """
    return tuple(_prove(one, host, settings, roots) for one in peers if one.level != "disabled" for host in one.hosts)


def unusable(certificate: str, key: str) -> str:
    """Return why a file cannot be presented as the client certificate; empty if it can. key: its private key's own file, or empty."""
    try:
        with opened(certificate) as file:
            text = file.read(pem.MAX_BYTES).decode("ascii", "ignore")
        first = text.partition("-----BEGIN ")[2].partition("\n")[0]
        if not key and "PRIVATE KEY" not in first:
            return f"client_certificate {certificate} does not begin with a private key; put the key first, or name its file in client_key"
        with _presented(certificate, key) as (chain, private):
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(chain, private or chain, password=_no_password)
    except UntrustedPathError as error:
        return f"client_certificate {certificate} cannot be used: {error}"
    except FileNotFoundError as error:
        return f"there is no file {error.filename or certificate} on this host; install it, or correct client_certificate or client_key"
    except (OSError, ValueError) as error:
        mismatch = getattr(error, "reason", "") == "KEY_VALUES_MISMATCH"
        why = "the key belongs to another certificate" if mismatch else getattr(error, "strerror", None) or str(error)
        return f"client_certificate {certificate} cannot be used: {why}"
    return ""


@contextlib.contextmanager
def _presented(certificate: str, key: str) -> Iterator[tuple[str, str]]:
    """Yield the paths of their descriptors: by now a path may lead elsewhere. An empty one stays so. Raises as opened does."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(opened(path)) if path else None for path in (certificate, key)]
        chain, private = (f"/dev/fd/{one.fileno()}" if one else "" for one in files)
        yield chain, private


def _no_password() -> str:
    raise ValueError("the private key is encrypted, and a daemon cannot ask for its passphrase")


def _prove(peer: Peer, host: Target, settings: Settings, roots: str) -> PeerProof:
    addresses = (peer.proof_sender, peer.proof_recipient)
    sender, recipient = addresses if all(addresses) else ("", "")
    target = replace(host, name=peer.servername)
    try:
        with _presented(peer.client_certificate, peer.client_key) as (chain, key):
            seen = prove_envelope(target, replace(settings, verify_trust=False), sender, recipient, chain, key)
    except (EngineError, TargetError, OSError):
        if peer.client_certificate and (why := unusable(peer.client_certificate, peer.client_key)):
            raise EngineError(why) from None  # it names the path
        raise
    proof = seen.to_dict()
    where = f"peer {peer.name}, {host}"
    completed = seen.stage in _AFTER_HANDSHAKE
    refused = seen if seen.stage in ("mail", "rcpt") and seen.code else None
    if refused and 500 <= refused.code < 600:
        text = f"{where} refuses the proof for good ({refused.code} {refused.text}), so mail would bounce; see docs/exchange.md"
        return PeerProof(peer.name, peer.kind, proof, text, may_insist=False)
    if not completed or refused:
        why = f"{refused.code} {refused.text}" if refused else seen.message
        text = f"{where} does not accept what this host would send: {why}"
        if peer.level != "required":
            return PeerProof(peer.name, peer.kind, proof, warning=text)
        advice = "switch TLS on at that side first; to require TLS anyway, set require_without_evidence"
        return PeerProof(
            peer.name, peer.kind, proof, f"{text}; mail would be deferred. {advice[0].upper()}{advice[1:]}"
        )
    if peer.level == "required" and (why := _unfit(peer, target, seen.chain, settings, roots)):
        text = f"{where}: its certificate does not pass the check {peer.check} ({why}); mail would be deferred"
        return PeerProof(peer.name, peer.kind, proof, text, unfit=f"check {peer.check}: {why}")
    warning = "" if sender else f"{where} is not tested to RCPT: there is no proof_sender or no proof_recipient"
    if seen.second and seen.second.code >= 400:  # the transport of a peer with a client certificate resumes no session
        warning = f"{where} does not accept it on a resumed session: {seen.second.code} {seen.second.text}"
    return PeerProof(peer.name, peer.kind, proof, warning=warning)


def _unfit(peer: Peer, target: Target, chain: Sequence[bytes], settings: Settings, roots: str) -> str:
    """Return why the served certificate does not pass the peer's check; empty if it does."""
    if peer.check == "encryption_only":
        return ""
    if peer.pin_fingerprints:
        seen = hashlib.sha256(chain[0]).hexdigest() if chain else ""
        return "" if seen in peer.pin_fingerprints else f"its fingerprint is {seen or 'unknown'}"
    file = peer.pin_issuer_file or roots
    ca_pem = roots_of(file) if file else None
    named = peer.check == "hostname"
    trust = Trust(replace(settings, ca_pem=ca_pem, verify_trust=True, verify_name=named))
    verdicts = [trust.verdict(chain, name) for name in (_names(peer, target) if named else [target.server_name])]
    if "" in verdicts:
        return ""
    return next(filter(None, verdicts), "") or "OpenSSL cannot read the served chain"


def _names(peer: Peer, target: Target) -> Iterator[str]:
    """Yield the names of which the certificate has to cover one. For C(.example.com): the host below it, and any name below it."""
    if not peer.names:
        yield target.host
    for name in peer.names:
        if not name.startswith("."):
            yield name
            continue
        if target.host.endswith(name):
            yield target.host
        yield f"any{name}"
