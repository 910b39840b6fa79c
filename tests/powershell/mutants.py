"""Tries mutants of the module in PowerShell processes of its own; one that hangs counts as found."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

from tests.support import powershell

SCRIPT = Path(__file__).with_name("mutants.ps1")
PATIENCE = 90.0
"""Seconds of the processor for one mutant: all tests take some 25. What hangs is a loop without an end."""


@dataclass(frozen=True)
class Mutant:
    """A change of the module, and the first test that found it; None if none did."""

    line: int
    what: str
    killed: Optional[str] = None


def every() -> list[Mutant]:
    """All mutants there are."""
    done = powershell.run("-File", str(SCRIPT), "-List")
    assert done.returncode == 0, done.stdout + done.stderr
    listed = [json.loads(line) for line in done.stdout.splitlines()]
    return [Mutant(one["line"], one["what"]) for one in listed]


def tried(
    numbers: Sequence[int],
    mutants: Sequence[Mutant],
    workers: int = 2,
    shown: Callable[[Mutant], None] = lambda _mutant: None,
) -> list[Mutant]:
    """Try the mutants with these numbers. shown: called with each when it is done, from the thread of a worker."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in numbers:
        waiting.put(number)
    found: dict[int, Optional[str]] = {}

    def done(number: int, killed: Optional[str]) -> None:
        found[number] = killed
        shown(replace(mutants[number], killed=killed))

    threads = [threading.Thread(target=_work, args=(waiting, done)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [replace(mutants[number], killed=found[number]) for number in numbers]


def _work(waiting: queue.SimpleQueue[int], done: Callable[[int, Optional[str]], None]) -> None:
    process: Optional[subprocess.Popen[str]] = None
    while True:
        try:
            number = waiting.get_nowait()
        except queue.Empty:
            break
        if process is None:
            process = _start()
        answer = _answer(process, number)
        done(number, answer["killed"] if answer else "it hung, or ended PowerShell")
        if answer is None:
            process.kill()
            process.wait()
            process = None
    if process is not None:
        assert process.stdin
        process.stdin.close()
        process.wait()


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [powershell.required(), "-NoProfile", "-NonInteractive", "-File", str(SCRIPT)],
        cwd=powershell.TOP, env=powershell.environment(), text=True, errors="replace",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _answer(process: subprocess.Popen[str], number: int) -> Optional[dict[str, Any]]:
    """What came of a mutant; None if the process hangs or is gone."""
    assert process.stdin and process.stdout
    answered = threading.Event()
    watch = threading.Thread(target=_watch, args=(process, answered))
    watch.start()
    try:
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith('{"') and json.loads(line).get("number") == number:
                return dict(json.loads(line))
    except OSError:
        pass
    finally:
        answered.set()
        watch.join()
    return None


def _watch(process: subprocess.Popen[str], answered: threading.Event) -> None:
    began = _used(process.pid)
    while not answered.wait(2):
        if _used(process.pid) - began > PATIENCE:
            process.kill()


def _used(pid: int) -> float:
    """Seconds of the processor that a process has used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(words: Sequence[str]) -> None:
    """Try all mutants, or those of a slice (START STOP STEP), and show each that survives."""
    mutants = every()
    numbers = range(len(mutants))[slice(*map(int, words))] if words else range(len(mutants))
    seen: list[Mutant] = []

    def shown(mutant: Mutant) -> None:
        seen.append(mutant)
        if mutant.killed is None:
            print(f"survived: line {mutant.line}: {mutant.what}", flush=True)
        if len(seen) % 20 == 0 or len(seen) == len(numbers):
            killed = sum(one.killed is not None for one in seen)
            print(f"{killed} of {len(seen)} killed, {len(numbers)} to be tried", flush=True)

    tried(numbers, mutants, shown=shown)


if __name__ == "__main__":
    main(sys.argv[1:])
