# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe: a handshake test or a survey of each target, then the checks that need connections of their own.

Made for long lists. Each result becomes a line of JSON at once, each certificate is stored once, and the lines
are kept compressed, so the results of ten thousand targets fit into a few megabytes. Long lists are shared among
several processes, one for each CPU core.
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
    LargeHelloSession,
    Survey,
    SurveySession,
    VersionSession,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.wire import SPARE_FILES, Task, drive
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    PACKED_BYTES,
    PACKED_TARGET_BYTES,
    whole_number,
)

PROBE_MODES = ("full", "survey")
CHECKS = ("versions", "injection", "resumption", "large_hello")
"""Checks that need connections of their own. The controller makes the checks that need DNS."""
PROBED_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")

WORTH_A_FORK = 500
MAX_PROCESSES = 8

_FLUSH = 1 << 15

Progress = Callable[[int], None]
Emit = Callable[[bytes], None]


@dataclass(frozen=True)
class Probe:
    """The tests to make of each target. mode: one of PROBE_MODES. checks: some of CHECKS."""

    settings: Settings
    mode: str = "full"
    checks: Collection[str] = ()


# One target


def examine(target: Target, probe: Probe, trust: Trust) -> Task[Handshake]:
    """Make all tests of one target, one connection after the other. Returns the complete result."""
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
    if "large_hello" in probe.checks and (result.stage >= Stage.TLS or result.chain):
        large = LargeHelloSession(target, settings)
        ended = yield large
        result, seconds = replace(result, large_hello=large.understood(ended.error)), seconds + ended.seconds
    return replace(result, seconds=seconds) if seconds != result.seconds else result


def _versions(target: Target, settings: Settings, seen: Handshake) -> Task[tuple[dict[str, Optional[bool]], float]]:
    versions: dict[str, Optional[bool]] = dict.fromkeys(PROBED_VERSIONS)
    spent = 0.0
    for version in versions if _came_to_tls(seen) else ():
        if version == seen.tls_version and seen.stage >= Stage.TLS:
            versions[version] = True  # the handshake test has used it already
            continue
        session = VersionSession(target, settings, version)
        ended = yield session
        versions[version] = session.result(ended.seconds, ended.error).offered
        spent += ended.seconds
    return versions, spent


def _came_to_tls(seen: Handshake) -> bool:
    """Whether the client could begin the TLS handshake."""
    if seen.target.protocol == "smtps":
        return "connect" in seen.timings
    return seen.stage >= Stage.STARTTLS_ANSWERED


def _resumption(target: Target, settings: Settings, earlier: DialogueSession) -> Task[tuple[Optional[bool], float]]:
    saved = earlier.take_session()
    if saved is None:
        return False, 0.0
    session = DialogueSession(target, settings, earlier.context, resume=saved)
    ended = yield session
    if session.tls is None or session.dialogue.stage < Stage.TLS:
        return None, ended.seconds
    return session.tls.session_reused, ended.seconds


# Many targets


def record(result: Handshake) -> dict[str, Any]:
    """Return a result as plain data, with the fingerprints of its certificates instead of the certificates."""
    data = result.record()
    del data["requires_tls"]  # unknown: a probe sends no MAIL
    if isinstance(result, Survey) and result.key_exchange:
        data["key_exchange"] = result.key_exchange.to_dict()
    return data


def _examine_all(
    targets: Sequence[Target], places: Sequence[int], probe: Probe, emit: Emit, progress: Progress
) -> None:
    """Examine the targets at these indexes in this process. emit: called with lines that unpack() reads."""
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
    """Examine every target and return the results as a text that unpack() reads.

    progress: called with the number of finished targets. A fault of a peer never raises; it is in the result.
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


def unpack(packed: str, targets: Optional[int] = None) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the results in the order of their targets, and the certificates: SHA-256 fingerprint -> PEM.

    targets: how many were tested; None if this process tested them. Raises ValueError if probe_all() has not written the
    text, if it unpacks to more bytes than so many targets need, or if it holds the results of other targets.
    """
    most = PACKED_BYTES if targets is None else min(PACKED_BYTES, (targets + 4) * PACKED_TARGET_BYTES)
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(base64.b64decode(packed, validate=True), most)
        if not unpacker.eof:
            raise ValueError("they are too large, or incomplete")
        results: dict[int, dict[str, Any]] = {}
        certificates: dict[str, str] = {}
        for line in text.split(b"\n"):
            kind, rest = line[:1], line[1:]
            if kind == b"C":
                der = base64.b64decode(rest, validate=True)
                certificates[hashlib.sha256(der).hexdigest()] = ssl.DER_cert_to_PEM_cert(der)
            elif kind == b"R":
                place, _space, data = rest.partition(b" ")
                results[whole_number(place.decode("ascii"))] = json.loads(data, parse_int=whole_number)
        if targets is not None and set(results) != set(range(targets)):
            raise ValueError(f"there are {len(results)} of them for {targets} targets")
    except (zlib.error, ValueError, RecursionError) as error:
        raise ValueError(f"the packed results cannot be read: {error}") from error
    return [results[place] for place in sorted(results)], certificates


@contextlib.contextmanager
def _calm_collector() -> Iterator[None]:
    """Run the garbage collector less often, and exclude the objects that exist already: almost none of them is garbage."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _within_file_limit(settings: Settings, targets: int, processes: int) -> Settings:
    """Return the settings for one process, with a concurrency that its limit of open files allows.

    The soft limit is raised first if it is too low, but not above the hard limit.
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
    """Return the number of processes for a list: one if it is short, if fork is missing, or if threads make fork unsafe."""
    if targets <= WORTH_A_FORK or not hasattr(os, "fork") or threading.active_count() > 1:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_PROCESSES, cores)


def _in_processes(
    processes: int, targets: Sequence[Target], probe: Probe, emit: Emit, progress: Progress
) -> Sequence[int]:
    """Share the targets with child processes. Return the indexes of the targets without a result.

    This process examines the first share itself. Meanwhile a thread reads the results of the children.
    """
    shares = [range(share, len(targets), processes) for share in range(processes)]
    children: dict[int, int] = {}  # pipe to read from -> process ID
    for share in shares[1:]:
        with contextlib.suppress(OSError):  # no more processes: this one examines the missing targets
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
    """Fork like os.fork(), but return -1 if no more processes are possible."""
    try:
        return os.fork()
    except OSError:
        return -1


def _collect(children: dict[int, int], missing: bytearray, emit: Emit, progress: Progress) -> None:
    """Emit the lines of the children until all have ended. The incomplete line of a killed child is dropped."""
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
                with contextlib.suppress(ChildProcessError):  # a process that ignores SIGCHLD has no child to wait for
                    os.waitpid(children[pipe], 0)


def _tick_off(lines: bytes, missing: bytearray) -> int:
    count = 0
    for line in lines.split(b"\n"):
        if line.startswith(b"R"):
            missing[int(line[1 : line.index(b" ")])] = 0
            count += 1
    return count


def _be_child(pipe: int, targets: Sequence[Target], places: Sequence[int], probe: Probe) -> None:
    """Examine the targets and end this child process. Never returns, so that the parent's exit handlers do not run here."""
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
