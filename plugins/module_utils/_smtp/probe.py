# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe: the handshake test or a survey of each target, then the checks that take connections of their own.

Made for long lists. A result becomes a line of JSON as soon as it is there, certificates are told once,
and the lines are kept compressed until all are told, so ten thousand targets fit into few megabytes. They
are shared among a process per processor where that is worth a fork.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import hashlib
import json
import os
import select
import ssl
import threading
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import InjectionDialogue, Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    DialogueSession,
    Handshake,
    Settings,
    Target,
    Trust,
    full_test,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.raw_session import (
    Survey,
    SurveySession,
    VersionSession,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.wire import SPARE_FILES, Task, drive

PROBE_MODES = ("full", "survey")
CHECKS = ("versions", "injection", "resumption")
"""What takes connections of its own. Checks that need DNS are made by the controller."""
PROBED_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")

WORTH_A_FORK = 500
MAX_PROCESSES = 8
MAX_UNPACKED = 1 << 30

_FLUSH = 1 << 15

Progress = Callable[[int], None]
Emit = Callable[[bytes], None]


@dataclass(frozen=True)
class Probe:
    """What is to be found out of each target."""

    settings: Settings
    mode: str = "full"
    checks: Collection[str] = ()


# One target


def examine(target: Target, probe: Probe, trust: Trust) -> Task[Handshake]:
    """All that the probe wants to know of a target, one connection after the other."""
    settings = probe.settings
    result: Handshake
    session: Optional[DialogueSession] = None
    if probe.mode == "survey":
        survey = SurveySession(target, settings)
        ended = yield survey
        seen = survey.result(ended.seconds, ended.error)
        result = replace(seen, timings=ended.timings)
        if seen.needs_full_test:
            result, session = yield from full_test(target, settings, trust)
            result = replace(result, seconds=result.seconds + seen.seconds)
    else:
        result, session = yield from full_test(target, settings, trust)
    seconds = result.seconds
    if "versions" in probe.checks:
        versions, spent = yield from _versions(target, settings, result)
        result, seconds = replace(result, versions=versions), seconds + spent
    if "injection" in probe.checks and result.stage >= Stage.STARTTLS_ANSWERED and target.protocol != "smtps":
        dialogue = InjectionDialogue(settings.helo_name, target.protocol)
        ended = yield DialogueSession(target, settings, trust.lax, dialogue)
        injected = dialogue.injected(ended.error, tls_works=result.stage >= Stage.TLS)
        result, seconds = replace(result, injection=injected), seconds + ended.seconds
    if "resumption" in probe.checks and result.completed and session and session.tls:
        resumed, spent = yield from _resumption(target, settings, session)
        result, seconds = replace(result, resumption=resumed), seconds + spent
    return replace(result, seconds=seconds) if seconds != result.seconds else result


def _versions(target: Target, settings: Settings, seen: Handshake) -> Task[tuple[dict[str, Optional[bool]], float]]:
    versions: dict[str, Optional[bool]] = dict.fromkeys(PROBED_VERSIONS)
    spent = 0.0
    for version in versions if _came_to_tls(seen) else ():
        if version == seen.tls_version and seen.stage >= Stage.TLS:
            versions[version] = True  # no need to ask again
            continue
        session = VersionSession(target, settings, version)
        ended = yield session
        versions[version] = session.result(ended.seconds, ended.error).offered
        spent += ended.seconds
    return versions, spent


def _came_to_tls(seen: Handshake) -> bool:
    """Whether the server let the client begin with TLS."""
    if seen.target.protocol == "smtps":
        return "connect" in seen.timings
    return seen.stage >= Stage.STARTTLS_ANSWERED


def _resumption(target: Target, settings: Settings, earlier: DialogueSession) -> Task[tuple[Optional[bool], float]]:
    saved, earlier.tls = earlier.tls.session if earlier.tls else None, None
    # The session ID is what TLS 1.2 without tickets goes by; in TLS 1.3 the library makes one up.
    if saved is None or not (saved.has_ticket or saved.id):
        return False, 0.0
    session = DialogueSession(target, settings, earlier.context, resume=saved)
    ended = yield session
    if session.tls is None or session.dialogue.stage < Stage.TLS:
        return None, ended.seconds
    return session.tls.session_reused, ended.seconds


# Many targets


def record(result: Handshake) -> dict[str, Any]:
    """A result as plain data that names its certificates by their fingerprints."""
    chain = [hashlib.sha256(der).hexdigest() for der in result.chain]
    data = {**result.summary(), "fingerprint_sha256": chain[0] if chain else "", "chain_sha256": chain}
    del data["requires_tls"]  # a probe sends no MAIL, so it cannot tell
    if isinstance(result, Survey) and result.key_exchange:
        data["key_exchange"] = result.key_exchange.to_dict()
    return data


def _examine_all(
    targets: Sequence[Target], places: Sequence[int], probe: Probe, emit: Emit, progress: Progress
) -> None:
    """Examine the targets at these places in this process; emit gets lines for unpack()."""
    trust = Trust(probe.settings, len(places))
    told: set[bytes] = set()
    encode = json.JSONEncoder(separators=(",", ":")).encode

    def deliver(index: int, result: Handshake) -> None:
        lines = b""
        for der in result.chain:
            digest = hashlib.sha256(der).digest()
            if digest not in told:
                told.add(digest)
                lines += b"C" + base64.b64encode(der) + b"\n"
        emit(lines + b"R%d " % places[index] + encode(record(result)).encode("ascii") + b"\n")
        progress(1)

    drive(((targets[place], examine(targets[place], probe, trust)) for place in places), probe.settings.limits, deliver)


def probe_all(targets: Sequence[Target], probe: Probe, progress: Optional[Progress] = None) -> str:
    """Examine every target, and return the results as a text for unpack().

    progress is called with the number of targets that are finished. Never raises for what a peer does.
    """
    packer = zlib.compressobj(1)
    packed = bytearray()
    finished = 0

    lock = threading.Lock()

    def emit(lines: bytes) -> None:
        with lock:
            packed.extend(packer.compress(lines))

    def count(more: int) -> None:
        nonlocal finished
        with lock:
            finished += more
            if progress:
                progress(finished)

    processes = min(_processes(len(targets)), max(1, probe.settings.concurrency))
    probe = replace(probe, settings=_within_file_limit(probe.settings, len(targets), processes))
    with _calm_collector():
        places: Sequence[int] = range(len(targets))
        if processes > 1:
            places = _in_processes(processes, targets, probe, emit, count)
        if places:
            _examine_all(targets, places, probe, emit, count)
    packed.extend(packer.flush())
    return base64.b64encode(packed).decode("ascii")


def unpack(packed: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The results in the order of their targets, and the certificates: PEM by SHA-256 fingerprint.

    Raises ValueError on a text that is not from probe_all(), or is larger than anything it would return.
    """
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(base64.b64decode(packed, validate=True), MAX_UNPACKED)
        if not unpacker.eof:
            raise ValueError("it is too large, or cut off")
        results: dict[int, dict[str, Any]] = {}
        certificates: dict[str, str] = {}
        for line in text.split(b"\n"):
            kind, rest = line[:1], line[1:]
            if kind == b"C":
                der = base64.b64decode(rest, validate=True)
                certificates[hashlib.sha256(der).hexdigest()] = ssl.DER_cert_to_PEM_cert(der)
            elif kind == b"R":
                place, _space, data = rest.partition(b" ")
                results[int(place)] = json.loads(data)
    except (zlib.error, ValueError) as error:
        raise ValueError(f"the packed results cannot be read: {error}") from error
    return [results[place] for place in sorted(results)], certificates


@contextlib.contextmanager
def _calm_collector() -> Iterator[None]:
    """What exists already need not be looked through for garbage over and over; there is next to none."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _within_file_limit(settings: Settings, targets: int, processes: int) -> Settings:
    """The settings for one process, with no more connections at a time than it may have open files.

    The limit is raised as far as it may be, and only if it has to.
    """
    wanted = max(1, min(settings.concurrency, targets) // processes)
    try:
        import resource  # noqa: PLC0415  (not on every system)

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < wanted + SPARE_FILES:
            goal = wanted + SPARE_FILES if hard == resource.RLIM_INFINITY else min(wanted + SPARE_FILES, hard)
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
                soft = goal
            wanted = max(1, min(wanted, soft - SPARE_FILES))
    except ImportError:
        pass
    return replace(settings, concurrency=wanted)


# Several processes


def _processes(targets: int) -> int:
    """How many processes a list is worth: one where a fork is not possible, or not safe because of threads."""
    if targets <= WORTH_A_FORK or not hasattr(os, "fork") or threading.active_count() > 1:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_PROCESSES, cores)


def _in_processes(
    processes: int, targets: Sequence[Target], probe: Probe, emit: Emit, progress: Progress
) -> Sequence[int]:
    """Share the targets with child processes; return the places for which there is no result after all.

    This process takes the first share itself, while a thread reads what the children have found.
    """
    shares = [range(share, len(targets), processes) for share in range(processes)]
    children: dict[int, int] = {}  # the pipe to read from, and the process
    for share in shares[1:]:
        with contextlib.suppress(OSError):  # no more processes: what is missing then is for this one
            reading, writing = os.pipe()
            process = _fork()
            if process == 0:
                _be_child(writing, targets, share, probe)
            os.close(writing)
            if process < 0:
                os.close(reading)
            else:
                children[reading] = process
    missing = bytearray(b"\1") * len(targets)
    missing[::processes] = bytes(len(shares[0]))
    collector = threading.Thread(target=_collect, args=(children, missing, emit, progress), daemon=True)
    collector.start()
    _examine_all(targets, shares[0], probe, emit, progress)
    collector.join()
    return [place for place, lacks in enumerate(missing) if lacks]


def _fork() -> int:
    """As os.fork(), but -1 if there can be no more processes."""
    try:
        return os.fork()
    except OSError:
        return -1


def _collect(children: dict[int, int], missing: bytearray, emit: Emit, progress: Progress) -> None:
    """Hand on the lines of the children until all have ended; half a line of one that was killed is dropped."""
    poller = select.poll()
    for pipe in children:
        poller.register(pipe, select.POLLIN)
    rests = dict.fromkeys(children, b"")
    while rests:
        for pipe, _event in poller.poll():
            data = os.read(pipe, 1 << 16)
            lines, newline, rests[pipe] = (rests[pipe] + data).rpartition(b"\n")
            if lines:
                emit(lines + newline)
                progress(_tick_off(lines, missing))
            if not data:
                poller.unregister(pipe)
                del rests[pipe]
                os.close(pipe)
                with contextlib.suppress(ChildProcessError):  # whoever ignores SIGCHLD has none left to wait for
                    os.waitpid(children[pipe], 0)


def _tick_off(lines: bytes, missing: bytearray) -> int:
    count = 0
    for line in lines.split(b"\n"):
        if line.startswith(b"R"):
            missing[int(line[1 : line.index(b" ")])] = 0
            count += 1
    return count


def _be_child(pipe: int, targets: Sequence[Target], places: Sequence[int], probe: Probe) -> None:
    """Never returns: a child must not run what its parent has registered to be run at exit."""
    status = 1
    waiting = bytearray()

    def emit(lines: bytes) -> None:
        waiting.extend(lines)
        if len(waiting) >= _FLUSH:
            flush()

    def flush() -> None:
        with memoryview(bytes(waiting)) as data:
            sent = 0
            while sent < len(data):
                sent += os.write(pipe, data[sent:])
        waiting.clear()

    try:
        _examine_all(targets, places, probe, emit, lambda _count: None)
        flush()
        status = 0
    finally:
        os._exit(status)
