# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way from what a mail server does to what is wanted, in one transaction, proved by the server's own port.

The engine knows no product: an adapter (contract.Server) says what makes the wanted state and how the daemon takes it up.
"""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.contract import Server
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired, Outcome
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Handshake,
    Settings,
    Target,
    handshake_all,
    handshake_one,
    wait_until,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError


def set_starttls(
    server: Server, desired: Desired, settings: Settings, check_mode: bool = False, store: str = STORE
) -> Outcome:
    """Bring the server to the wanted state and prove it with its own port, or leave it as it was.

    Raises EngineError (nothing was touched) or TransactionError (it was, and is put back).
    """
    desired.check()
    settings = replace(settings, ask_plaintext=True, judge_trust=False)
    transaction = server.transaction(store)
    with transaction.opened(check_mode) as (recovered, warnings):
        server.require_running()
        before = server.state()
        if not desired.relax and desired.inbound == "offered" and before["inbound"] == "required":
            desired = replace(desired, inbound="required")
        if desired.only_relax and desired.inbound == "offered" and before["inbound"] != "required":
            desired = replace(desired, inbound=None)
        change: Any = server.plan(desired)
        fingerprint = _installed(desired, check_mode, warnings)
        seen = handshake_one(desired.own_port, settings)
        if seen.stage < Stage.GREETING:
            raise EngineError(
                f"no mail server answers on {desired.own_port} ({seen.message}); start it, or name the address "
                "and port it listens on, because a change that cannot be proved is not made"
            )
        _guard_outbound(server, desired, before, settings, check_mode, warnings)
        pending = fingerprint is not None and not satisfies(desired, fingerprint, seen)
        if not change and pending:
            change = replace(change, reload=True)
        after = _after(before, desired)
        if check_mode or not change:
            return Outcome(bool(change) or recovered, before, after, seen, change.diff(), recovered, tuple(warnings))

        def prove() -> None:
            nonlocal seen
            seen = prove_at(desired, desired.own_port, settings)

        def prove_old(old: Handshake = seen) -> None:
            # A certificate renewed before this run is served from the first reload on, if the old files name it.
            installed = _chain(desired) if change.mentioned_before(desired.certificate) else ()
            faces = [old, replace(old, chain=installed)] if old.chain and installed else [old]
            now = wait_until(
                lambda look: any(same_face(face, look) for face in faces), desired.own_port, settings, settings.timeout
            )
            if not any(same_face(face, now) for face in faces):
                raise EngineError(
                    f"{desired.own_port} does not show its former state: {now.message or now.stage.label}"
                )

        transaction.apply(change, prove, prove_old)
        return Outcome(True, before, after, seen, change.diff(), recovered, tuple(warnings))


def prove_at(desired: Desired, target: Target, settings: Settings) -> Handshake:
    """Wait until a daemon shows the wanted inbound state; raise EngineError if it does not in time."""
    settings = replace(settings, ask_plaintext=True, judge_trust=False)
    fingerprint = _installed(desired, False, []) or ""
    seen = wait_until(lambda now: satisfies(desired, fingerprint, now), target, settings, settings.timeout)
    if not satisfies(desired, fingerprint, seen):
        raise EngineError(f"{target} does not show the wanted state: {_why_not(desired, fingerprint, seen)}")
    return seen


def satisfies(desired: Desired, fingerprint: str, seen: Handshake) -> bool:
    """Whether the own port shows the wanted inbound state: the served certificate is the installed one."""
    if desired.inbound is None:
        return seen.stage >= Stage.EHLO
    if not desired.offers:
        return seen.stage >= Stage.EHLO and not seen.advertised
    return (
        seen.completed
        and seen.fingerprint == fingerprint
        and bool(seen.requires_tls) == (desired.inbound == "required")
    )


def same_face(old: Handshake, new: Handshake) -> bool:
    """Whether two tests of a port show the same to a client."""
    return (old.stage, old.code, old.fingerprint, bool(old.requires_tls)) == (
        new.stage,
        new.code,
        new.fingerprint,
        bool(new.requires_tls),
    )


def _why_not(desired: Desired, fingerprint: str, seen: Handshake) -> str:
    if seen.message and (desired.offers or seen.stage < Stage.EHLO):
        return seen.message
    if not desired.offers:
        return "STARTTLS is still offered"
    if seen.fingerprint != fingerprint:
        return (
            f"the certificate served ({seen.fingerprint[:16]}...) is not the one installed ({fingerprint[:16]}...); "
            "another setting names another certificate"
        )
    return f"mail without TLS is {'refused' if seen.requires_tls else 'not refused'}"


def _after(before: dict[str, str], desired: Desired) -> dict[str, str]:
    return {
        "inbound": desired.inbound or before["inbound"],
        "outbound": desired.outbound or before["outbound"],
    }


def _installed(desired: Desired, check_mode: bool, warnings: list[str]) -> Optional[str]:
    """The fingerprint of the installed certificate; "" when none is needed, None when not there yet."""
    if not desired.offers:
        return ""
    advice = f"install it first (module tls_certificate, role certificate), or correct the path {desired.certificate}"
    try:
        bundle = Path(desired.certificate).read_bytes()
        blocks = pem.split(bundle)
        if not blocks or not blocks[0].is_private_key:
            raise ValueError("it does not begin with a private key")
        fingerprint = pem.leaf_fingerprint(bundle)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(desired.certificate, password=_no_password)
    except FileNotFoundError:
        if check_mode:
            warnings.append(f"{desired.certificate} is not there yet; a real run needs it before STARTTLS is offered")
            return None
        raise EngineError(f"there is no certificate at {desired.certificate}; {advice}") from None
    except (OSError, ValueError) as error:
        mismatch = getattr(error, "reason", "") == "KEY_VALUES_MISMATCH"
        reason = "the key is not the certificate's" if mismatch else getattr(error, "strerror", None) or str(error)
        raise EngineError(f"the certificate file {desired.certificate} is no use: {reason}; {advice}") from None
    return fingerprint


def _chain(desired: Desired) -> tuple[bytes, ...]:
    """The installed certificates, DER; none if they cannot be read."""
    try:
        blocks = pem.certificates(pem.split(Path(desired.certificate).read_bytes()))
    except (OSError, ValueError):
        return ()
    return tuple(block.der for block in blocks)


def _no_password() -> str:
    raise ValueError("the private key is encrypted, and a daemon cannot ask for its passphrase")


def _guard_outbound(
    server: Server,
    desired: Desired,
    before: dict[str, str],
    settings: Settings,
    check_mode: bool,
    warnings: list[str],
) -> None:
    """The one rule: no insisting on TLS before the side that accepts has shown that it does."""
    if desired.outbound != "required" or before["outbound"] == "required" or desired.require_without_evidence:
        return
    try:
        hops = list(server.next_hops())
        problem = "" if hops else "it hands its mail to the MX of each recipient domain, and those cannot all be tested"
    except EngineError as error:
        hops, problem = [], str(error)
    if hops:
        failed = [one for one in handshake_all(hops, replace(settings, ask_plaintext=False)) if not one.completed]
        problem = "; ".join(f"{one.target}: {one.message}" for one in failed)
    if not problem:
        return
    message = (
        f"outbound 'required' is refused, because mail would be deferred: {problem}. Switch TLS on at the "
        "accepting side first; to insist all the same, set require_without_evidence"
    )
    if not check_mode:
        raise EngineError(message)
    warnings.append(message)
