# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The change of a mail server to the wanted state, in one transaction, proved at the server's own port.

The engine contains no product: an adapter (contract.Server) plans the files and reloads the daemon.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import Look
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import opened
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import load, texts
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Startable
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import facts
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import evidence, floor, reach
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.algorithm import or_in_tls13
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.contract import (
    NoticesCertificates,
    Server,
    ServerTransaction,
    ServesByPort,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import (
    FLOORS,
    SEND_ONLY,
    Desired,
    Outcome,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import same_face
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    ALGORITHMS,
    NOT_TESTED,
    Handshake,
    Settings,
    Target,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import (
    handshake_one,
    wait_until,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError


@dataclass(frozen=True)
class Computed:
    """A change before it is made: the states, the change, and the certificate file.

    desired: the wanted state with what the present state decides. look: the comparison of the certificate file; None if
    the change installs none. others: those of further files. fingerprint: that of the certificate to serve, empty if the state needs
    none, None if the file is not there yet.
    """

    before: dict[str, str]
    after: dict[str, str]
    desired: Desired
    change: Any
    look: Optional[Look]
    fingerprint: Optional[str]
    others: tuple[tuple[str, Look], ...] = ()

    def installed(self) -> list[tuple[str, Look]]:
        """Return path and comparison of each certificate file that differs."""
        first = [(self.desired.certificate, self.look)] if self.look else []
        return [(path, look) for path, look in (*first, *self.others) if look.differs]

    def diff(self) -> list[dict[str, str]]:
        """Return the change in Ansible's diff format, without secrets."""
        return [*(look.diff for _path, look in self.installed()), *self.change.diff()]


class Made(NamedTuple):
    """A change that was made and proved. prove and prove_old raise EngineError unless the daemon shows the state after and before it."""

    change: Any
    prove: Callable[[], None]
    prove_old: Callable[[], None]


def compute(server: Server, desired: Desired, check_mode: bool, warnings: list[str], store: str = STORE) -> Computed:
    """Return the change that brings the server to the wanted state. Changes nothing. Raises EngineError.

    store: the directory of the record of what was there.
    """
    before = state_of(server, desired)
    was, edited = texts(load(store, server.name), server.files())
    desired = replace(desired, was=was)
    if "disabled" in (desired.inbound, desired.outbound):
        warnings.extend(
            f"{one}, so its TLS settings stay as they are; only the mail port goes without TLS" for one in edited
        )
    if not desired.relax and desired.inbound == "offered" and before["inbound"] == "required":
        desired = replace(desired, inbound="required")
    if desired.only_relax and desired.inbound == "offered" and before["inbound"] != "required":
        desired = replace(desired, inbound=None)
    if desired.only_renew:
        desired = replace(desired, inbound=before["inbound"] if before["inbound"] in ("offered", "required") else None)
    if desired.of_ports and desired.offers and not isinstance(server, ServesByPort):
        raise EngineError(
            f"starttls_more_certificates: {server.name} serves one certificate on all ports; take the entry with ports away"
        )
    change: Any = server.plan(desired)
    looks: dict[str, Look] = {}
    for bundle in desired.bundles if desired.offers else ():
        looks[bundle.path] = bundle.look()
        if looks[bundle.path].differs and bundle.content:
            change = change.preceded_by(bundle.image())
    look = looks.pop(desired.bundle.path, None) if desired.bundle else None
    fingerprint = _fingerprint(desired, check_mode, warnings)
    return Computed(before, _after(before, desired), desired, change, look, fingerprint, tuple(looks.items()))


def state_of(server: Server, desired: Desired) -> dict[str, str]:
    """Return the state of the server in the words of the options. The inbound side of a send-only host is none."""
    return server.state() if desired.listens else {**server.state(), "inbound": SEND_ONLY}


def set_starttls(
    server: Server,
    desired: Desired,
    settings: Settings,
    check_mode: bool = False,
    store: str = STORE,
    digests: Optional[Mapping[str, str]] = None,
) -> Outcome:
    """Bring the server to the wanted state and prove it at its own port, or leave the server unchanged.

    digests: path -> SHA-256 or C(absent), as the plan saw the files. The change is refused if one of them differs now.
    Raises EngineError (nothing was changed) or TransactionError (the change failed and was rolled back; see restored).
    """
    transaction = server.transaction(store)
    answers = _answers(server, desired.own_port, settings, desired.listens, transaction)
    with transaction.opened(check_mode, answers) as (recovered, warnings):
        facts.refuse_changed(digests or {})
        outcome, _made = change_within(transaction, server, desired, settings, check_mode, warnings, store)
        return replace(outcome, changed=outcome.changed or recovered, recovered=recovered, warnings=tuple(warnings))


def undo_killed_run(
    server: Server, own_port: Target, settings: Settings, store: str = STORE, listens: bool = True
) -> tuple[bool, list[str]]:
    """Undo the change of a killed run, and prove that the server answers. Return whether there was one, and warnings.

    listens: see Desired. Raises EngineError.
    """
    transaction = server.transaction(store)
    answers = _answers(server, own_port, settings, listens, transaction)
    with transaction.opened(False, answers) as (recovered, warnings):
        return recovered, warnings


def _answers(
    server: Server, own_port: Target, settings: Settings, listens: bool, transaction: ServerTransaction
) -> Callable[[], None]:
    """Return the proof that a mail server answers on its port; that it runs, if it takes no mail. It raises EngineError.

    After a change of certificates that the daemon takes up by itself, it is waited for, and told if it does not.
    """

    def prove() -> None:
        if not listens:
            return require_alive(server)
        former = {one for path in transaction.unasked_files() for one in evidence.fingerprints(path)[:1]}
        if former and isinstance(server, NoticesCertificates):
            look = replace(settings, verify_trust=False)
            seconds = server.certificate_seconds
            if wait_until(lambda now: now.fingerprint in former, own_port, look, seconds).fingerprint not in former:
                server.resume()
        seen = wait_until(lambda now: now.stage >= Stage.EHLO, own_port, settings, settings.timeout)
        if seen.stage < Stage.EHLO:
            raise EngineError(f"no mail server answers on {own_port} ({seen.message})")
        return None

    return prove


def require_alive(server: Server, outbound: Optional[str] = None) -> None:
    """Raise EngineError unless the daemon of a host without a port runs, and has the wanted outbound state."""
    if isinstance(server, Startable) and server.has_ended():
        raise EngineError("the mail server has ended")
    server.require_running()
    present = server.state()["outbound"]
    if outbound not in (None, present):
        raise EngineError(f"the mail server does not show the wanted state: outbound is {present}, not {outbound}")


def relays_of(server: Server, settings: Settings) -> tuple[list[Handshake], str]:
    """Return the tests of the next hops of all outgoing mail, made from here; and why there are none, if they are not known."""
    try:
        found = evidence.ways_out(server, settings)
    except (EngineError, OSError) as error:
        return [], str(error)
    return [one.seen for one in found.hops], "; ".join(found.problems)


def require_greeting(own_port: Target, seen: Handshake) -> None:
    """Raise EngineError if nothing greeted in a test of the own port."""
    if seen.stage < Stage.GREETING:
        raise EngineError(
            f"no mail server answers on {own_port} ({seen.message}); start it, or name the address and port it listens on, because a "
            "change that cannot be proved is not made"
        )


def change_within(
    transaction: ServerTransaction,
    server: Server,
    desired: Desired,
    settings: Settings,
    check_mode: bool,
    warnings: list[str],
    store: str = STORE,
    hold: bool = False,
) -> tuple[Outcome, Optional[Made]]:
    """Make the change in an open transaction, and return its outcome and what was made. Errors: see set_starttls.

    hold: keep its way back, for a later change of the same call.
    """
    desired.check()  # every change comes through here, that of a gateway's own mail server too
    settings = replace(settings, ask_plaintext=True, verify_trust=False)
    server.require_running()
    computed = compute(server, desired, check_mode, warnings, store)
    desired, change = computed.desired, computed.change
    seen = handshake_one(desired.own_port, settings)
    answers = seen.stage >= Stage.GREETING
    if desired.listens:
        require_greeting(desired.own_port, seen)
    floors = floor.floors(server, desired, change)
    sides = None
    if insists(desired, computed.before) or (change and (floors or not check_mode)):
        sides = evidence.both(server, change)
    if sides:
        _refuse_shut(sides, desired, check_mode, warnings)
    _guard_outbound(server, computed, sides, settings, check_mode, warnings)
    _guard_floor(desired, floors, sides, settings, check_mode, warnings)
    fingerprint = computed.fingerprint
    looks = desired.listens and not change and fingerprint is not None
    if looks and is_stale(server, desired, fingerprint or "", seen, settings):
        change = replace(change, reload=True)
    notices = _seconds_to_notice(server, desired, change, seen)
    if notices:
        change = replace(change, unasked=True)
    outcome = Outcome(bool(change), computed.before, computed.after, seen, computed.diff(), look=computed.look)
    if check_mode or not change:
        return outcome, None
    old_chain = _chain(desired)
    others = evidence.Listening(sides or evidence.both(server, change), desired, settings)
    above = floor.Proof(desired, floor.listeners(desired, floors, sides), settings)
    warnings.extend(one for one in others.warnings if one not in warnings)

    def prove_within(seconds: float) -> None:
        nonlocal seen
        if not (answers or desired.listens):
            require_alive(server, desired.outbound)
            return others.prove(seconds)
        within = replace(settings, timeout=seconds)
        seen = prove_at(desired, desired.own_port, within, lambda: isinstance(server, Startable) and server.has_ended())
        said = [
            *prove_algorithms(desired, desired.own_port, within),
            *prove_floor(desired, desired.own_port, within),
        ]
        for at, prints in others.several(desired):
            said += prove_algorithms(desired, at, within, prints)
        above.prove()
        warnings.extend(one for one in dict.fromkeys([*said, *above.warnings]) if one not in warnings)
        return others.prove(seconds)

    def prove_old_within(seconds: float, old: Handshake = seen) -> None:
        if not (answers or desired.listens):
            require_alive(server, computed.before["outbound"])
            return others.prove_old(seconds)
        # If the old files name a certificate that was renewed before this run, the daemon serves the new one
        # after the first reload. So the proof of the old state accepts both.
        replaced = bool(computed.installed())
        installed = old_chain if replaced or change.mentioned_before(desired.certificate) else ()
        faces = [old, replace(old, chain=installed)] if old.chain and installed else [old]
        now = wait_until(lambda look: any(same_face(face, look) for face in faces), desired.own_port, settings, seconds)
        if not any(same_face(face, now) for face in faces):
            raise EngineError(f"{desired.own_port} does not show its former state: {now.message or now.stage.label}")
        return others.prove_old(seconds)

    prove, prove_old = _noticed(server, notices, settings, prove_within, prove_old_within)
    transaction.apply(change, prove, prove_old, hold)
    relays = () if desired.listens else tuple(relays_of(server, settings)[0])
    return replace(
        outcome, handshake=seen, relays=relays, digests=facts.known_digests([*server.files(), *desired.certificates])
    ), Made(change, prove, prove_old)


def _seconds_to_notice(server: Server, desired: Desired, change: Any, seen: Handshake) -> float:
    """Return how long the daemon may take to serve the change without being told; 0 if it has to be told.

    That is a change of certificates alone, or a certificate that is installed and not served yet.
    """
    if not (change and desired.offers and isinstance(server, NoticesCertificates)):
        return 0.0
    is_right = seen.completed and bool(seen.requires_tls) == (desired.inbound == "required")
    return (
        server.certificate_seconds
        if is_right and {one.path for one in change.after} <= {*desired.certificates}
        else 0.0
    )


def _noticed(
    server: Server,
    notices: float,
    settings: Settings,
    prove: Callable[[float], None],
    prove_old: Callable[[float], None],
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return the two proofs. They first wait until the daemon notices the change, for these seconds, and tell it only then."""

    def patient(prove: Callable[[float], None], tell: Optional[Callable[[], None]]) -> Callable[[], None]:
        def proved() -> None:
            if tell:
                with contextlib.suppress(EngineError):
                    return prove(notices)
                tell()
            return prove(settings.timeout)

        return proved

    if notices and isinstance(server, NoticesCertificates):
        return patient(prove, server.reload), patient(prove_old, server.resume)
    return patient(prove, None), patient(prove_old, None)


def prove_at(
    desired: Desired, target: Target, settings: Settings, ended: Callable[[], bool] = lambda: False
) -> Handshake:
    """Wait until a daemon shows the wanted inbound state. Raises EngineError if it does not within the timeout, or has ended."""
    settings = replace(settings, ask_plaintext=True, verify_trust=False)
    fingerprint = _fingerprint(desired, False, []) or ""
    seen = wait_until(lambda now: satisfies(desired, fingerprint, now), target, settings, settings.timeout, ended)
    if not satisfies(desired, fingerprint, seen):
        raise EngineError(f"{target} does not show the wanted state: {_why_not(desired, fingerprint, seen)}")
    return seen


def prove_floor(desired: Desired, target: Target, settings: Settings) -> list[str]:
    """Prove that a daemon with the wanted state agrees on no TLS version below the floor. Raises EngineError, or returns warnings."""
    if desired.floor_in("inbound") not in FLOORS or not desired.offers:
        return []
    proof = floor.Proof(desired, [target], settings)
    proof.prove()
    return proof.warnings


def prove_algorithms(desired: Desired, target: Target, settings: Settings, of_port: Collection[str] = ()) -> list[str]:
    """Prove that each certificate is served to a client that takes its algorithm only. Raises EngineError, or returns warnings.

    One handshake for each algorithm. What could not be tested is a warning, and not proved. of_port: the fingerprints of the
    certificates that the target serves in the place of the host's own.
    """
    if not desired.offers or not (desired.more or of_port):
        return []
    wanted = {*of_port} or {*_other_fingerprints(desired), _fingerprint(desired, False, []) or ""}
    deadline = time.monotonic() + settings.timeout
    while True:
        seen = _by_algorithm(target, settings)
        served = {one.fingerprint for one in seen.values() if one.completed}
        if served == wanted:
            return []
        untested = next((one.message for one in seen.values() if one.code == NOT_TESTED), "")
        if untested or not served:  # GnuTLS that speaks TLS 1.3 alone says no more than that the handshake failed
            untested = (
                untested
                or "not tested: no handshake of such a client succeeds, neither in TLS 1.2 nor by openssl in TLS 1.3"
            )
            return [
                f"{target}: it is not proved that each of its {len(wanted)} certificates is served to clients that take one algorithm "
                f"only ({untested})"
            ]
        if time.monotonic() >= deadline:
            said = ", ".join(f"{kind}: {one.fingerprint[:16] or one.message}" for kind, one in seen.items())
            raise EngineError(
                f"{target} does not serve each certificate that is installed to a client of its algorithm ({said})"
            )
        time.sleep(0.1)


def _by_algorithm(target: Target, settings: Settings) -> dict[str, Handshake]:
    """Make a handshake for each algorithm, as a client that takes nothing else."""
    settings = replace(settings, ask_plaintext=False, verify_trust=False)
    return {
        kind: or_in_tls13(
            handshake_one(target, replace(settings, algorithm=kind)),
            kind,
            settings,
            lambda: handshake_one(target, settings),
        )
        for kind in ALGORITHMS
    }


def is_stale(server: Server, desired: Desired, fingerprint: str, seen: Handshake, settings: Settings) -> bool:
    """Whether the daemon has to read its files again, although they say what is wanted.

    seen: a test of its own port. A client chooses one of several certificates; another one may have been renewed by somebody else.
    """
    if not satisfies(desired, fingerprint, seen) or evidence.stale_ports(server, desired, settings):
        return True
    if not (desired.on_host and desired.more and desired.offers):
        return False
    served = {one.fingerprint for one in _by_algorithm(desired.own_port, settings).values() if one.completed}
    return bool(served) and served != {fingerprint, *_other_fingerprints(desired)}


def satisfies(desired: Desired, fingerprint: str, seen: Handshake) -> bool:
    """Whether a test of the own port shows the wanted inbound state, with the installed certificate."""
    if desired.inbound is None:
        return seen.stage >= Stage.EHLO
    if not desired.offers:
        return seen.stage >= Stage.EHLO and not seen.advertised
    return (
        seen.completed
        and _is_wanted(desired, fingerprint, seen)
        and bool(seen.requires_tls) == (desired.inbound == "required")
    )


def _why_not(desired: Desired, fingerprint: str, seen: Handshake) -> str:
    if seen.message and (desired.offers or seen.stage < Stage.EHLO):
        return seen.message
    if not desired.offers:
        return "STARTTLS is still offered"
    if not _is_wanted(desired, fingerprint, seen):
        return (
            f"the certificate served ({seen.fingerprint[:16]}...) is not the one installed ({fingerprint[:16]}...); "
            "another setting names another certificate"
        )
    return f"mail without TLS is {'refused' if seen.requires_tls else 'not refused'}"


def _is_wanted(desired: Desired, fingerprint: str, seen: Handshake) -> bool:
    """Whether the certificate served is one of those to serve."""
    return not desired.names_certificates or seen.fingerprint in (fingerprint, *_other_fingerprints(desired))


def _after(before: dict[str, str], desired: Desired) -> dict[str, str]:
    return {
        "inbound": desired.inbound or before["inbound"],
        "outbound": desired.outbound or before["outbound"],
    }


def _fingerprint(desired: Desired, check_mode: bool, warnings: list[str]) -> Optional[str]:
    """Return the fingerprint of the certificate to serve: of the one that the change installs, else of the installed one.

    Empty if the wanted state names no certificate. None, with a warning, if check mode finds no file yet.
    Raises EngineError if the file is missing or cannot be used.
    """
    if not (desired.offers and desired.names_certificates):
        return ""
    if desired.bundle:
        return next(iter(desired.bundle.fingerprints), "")  # not known if it will be issued
    if desired.on_host:
        for certificate, key in desired.pairs[1:]:
            _leaf_of(certificate, key, "correct that entry of starttls_more_certificates")
    advice = (
        "correct starttls_certificate_path or starttls_private_key_path"
        if desired.on_host
        else f"install it first (module tls_certificate, role certificate), or correct the path {desired.certificate}"
    )
    try:
        return _leaf_of(desired.certificate, desired.private_key, advice)
    except NotThereError:
        if not check_mode or desired.on_host:
            raise
    warnings.append(f"{desired.certificate} is not there yet; a real run needs it before STARTTLS is offered")
    return None


class NotThereError(EngineError):
    """There is no file with the certificate, or with its key."""


def _leaf_of(certificate: str, private_key: str, advice: str) -> str:
    """Return the fingerprint of a certificate whose files a daemon can use. Raises EngineError, which ends with the advice.

    private_key: the path of its own file; empty if it comes first in that of the certificate.
    """
    try:
        with contextlib.ExitStack() as stack:
            file, key = (stack.enter_context(opened(path)) for path in (certificate, private_key or certificate))
            bundle = file.read(pem.MAX_BYTES)
            blocks = pem.split(bundle)
            if not private_key and (not blocks or not blocks[0].is_private_key):
                raise ValueError("it does not begin with a private key")
            fingerprint = pem.leaf_fingerprint(bundle)
            # By its descriptor: the path may lead elsewhere by now.
            chain, private = (f"/dev/fd/{one.fileno()}" for one in (file, key))
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, private, password=_no_password)
    except FileNotFoundError as error:
        what = f"there is no private key at {private_key}" if str(error.filename) == private_key else ""
        raise NotThereError(f"{what or f'there is no certificate at {certificate}'}; {advice}") from None
    except (OSError, ValueError) as error:
        mismatch = getattr(error, "reason", "") == "KEY_VALUES_MISMATCH"
        reason = (
            "the key belongs to another certificate" if mismatch else getattr(error, "strerror", None) or str(error)
        )
        raise EngineError(f"the certificate file {certificate} cannot be used: {reason}; {advice}") from None
    return fingerprint


def _other_fingerprints(desired: Desired) -> list[str]:
    """Return the fingerprints of the further certificates: those that the change installs, else of the files that are there."""
    planned = {bundle.path: bundle.fingerprints for bundle in desired.others}
    found = (planned.get(path) or evidence.fingerprints(path) for path in desired.more)
    return [prints[0] for prints in found if prints]


def _chain(desired: Desired) -> tuple[bytes, ...]:
    """Return the installed certificates as DER; none if they cannot be read."""
    try:
        image = FileImage.read(desired.certificate, max_bytes=pem.MAX_BYTES, trust=LOOK)
        blocks = pem.certificates(pem.split(image.content or b""))
    except (EngineError, OSError, ValueError):
        return ()
    return tuple(block.der for block in blocks)


def _no_password() -> str:
    raise ValueError("the private key is encrypted, and a daemon cannot ask for its passphrase")


def _guard_floor(
    desired: Desired,
    floors: Optional[floor.Floors],
    sides: Optional[evidence.Both],
    settings: Settings,
    check_mode: bool,
    warnings: list[str],
) -> None:
    """Refuse a floor that a next hop does not reach of which TLS is required. Check mode warns instead."""
    if floors is None:
        return
    warnings.extend(floor.not_reached(desired, floors))
    problem, weaker = floor.refusal(desired, sides, floors, settings)
    warnings.extend(weaker)
    if problem and desired.require_without_evidence:
        warnings.append(problem)
    elif problem:
        message = floor_refusal(desired, problem)
        if not check_mode:
            raise EngineError(message)
        warnings.append(message)


def floor_refusal(desired: Desired, problem: str) -> str:
    """Return the message that refuses a floor which next hops do not reach."""
    return (
        f"starttls_min_tls {desired.min_tls} is refused, because mail would be deferred: {problem}. Renew the accepting side first, "
        "or choose a lower floor; to set it anyway, set require_without_evidence"
    )


def _refuse_shut(sides: evidence.Both, desired: Desired, check_mode: bool, warnings: list[str]) -> None:
    """Refuse to require TLS from what hands mail in on this host alone. Check mode warns instead."""
    found = "; ".join(reach.shut(*sides, desired.own_port))
    if found and not check_mode:
        raise EngineError(found)
    warnings.extend([found] if found else [])


def _guard_outbound(
    server: Server,
    computed: Computed,
    sides: Optional[evidence.Both],
    settings: Settings,
    check_mode: bool,
    warnings: list[str],
) -> None:
    """Refuse outbound 'required' unless every next hop that the change reaches completes a handshake. Check mode warns instead."""
    if not insists(computed.desired, computed.before):
        if sides and computed.desired.outbound == "required":
            warnings.extend(reach.undercut(sides.after))
        return
    try:
        found = evidence.outgoing(server, sides, settings)
        problem, notes = found.refusal, found.notes
    except EngineError as error:
        problem, notes = str(error), ()
    warnings.extend(notes)
    if not problem:
        return
    message = refusal(problem)
    if not check_mode:
        raise EngineError(message)
    warnings.append(message)


def insists(desired: Desired, before: Mapping[str, str]) -> bool:
    """Whether the change would require TLS from the next hops, so that it needs evidence that they accept it."""
    return desired.outbound == "required" != before["outbound"] and not desired.require_without_evidence


def refusal(problem: str) -> str:
    """Return the message that refuses to require TLS from the next hops."""
    return (
        f"outbound 'required' is refused, because mail would be deferred: {problem}. Switch TLS on at the "
        "accepting side first; to require TLS anyway, set require_without_evidence"
    )
