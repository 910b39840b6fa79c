# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a roll-out costs over SSH on the lab's fleet, beside roles that prove nothing (rival.yml). docs/bench.md says how.

    run.py rollout [--quick] [--rounds N] [--servers N ...] [--json FILE] [--keep]

Exit status: 0 it was measured, 2 it could not be.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import rollout_table
from tests.bench.host_trace import HostCounts, HostTrace
from tests.bench.measure import BenchError, measure, say
from tests.bench.rollout_fleet import GATEWAYS, SERVERS, TOP, Fleet
from tests.bench.rollout_table import Cost, Key

WORD = "rollout"
BENCH = TOP / "tests/bench"
FORKS = 10  # for everything; the lab's setting
ALL_SERVERS = (4, 12)
PRODUCT, RIVAL = "product", "rival"
PING, FIRST, RERUN, MESSAGES = "ping", "first", "rerun", "messages"
WITHOUT_MESSAGES = {"starttls_outside_host": ""}
RIVAL_OPTIONS = {
    "rival_group": f"{GATEWAYS}:{SERVERS}",
    "rival_key": "{{ starttls_private_key_file }}",
    "rival_certificate": "{{ starttls_certificate_file }}",
}

_RECAP = re.compile(r"^(\S+) +: ok=\d+ +changed=(\d+) ", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """A run that is measured. changes: whether every host has to be changed by it, or none may be; None if it does not matter."""

    contender: str
    name: str
    playbook: Path
    variables: dict[str, Any] = field(default_factory=dict)
    changes: bool | None = None

    @property
    def key(self) -> Key:
        """What it is kept under."""
        return self.contender, self.name


class Rollout:
    """The measurement with a number of mail servers."""

    def __init__(self, fleet: Fleet, directory: Path, servers: int, started: float) -> None:
        """started: when the whole began, for the clock that is shown."""
        self.servers = servers
        self._started = started
        self.costs: dict[Key, list[Cost]] = {}
        self.counts: dict[Key, dict[str, HostCounts]] = {}
        self._fleet = fleet
        self._directory = directory
        self._inventory = fleet.inventory(servers)
        enable = TOP / "playbooks/enable_tls.yml"
        ping, rival, messages = BENCH / "ping.yml", BENCH / "rival.yml", self._messages()
        self._steps = {
            RIVAL: [
                Step(RIVAL, PING, ping),
                Step(RIVAL, FIRST, rival, RIVAL_OPTIONS, changes=True),
                Step(RIVAL, RERUN, rival, RIVAL_OPTIONS, changes=False),
            ],
            PRODUCT: [
                Step(PRODUCT, PING, ping),
                Step(PRODUCT, FIRST, enable, WITHOUT_MESSAGES, changes=True),
                Step(PRODUCT, RERUN, enable, WITHOUT_MESSAGES, changes=False),
                Step(PRODUCT, MESSAGES, messages),
            ],
        }

    def warm_up(self) -> None:
        """One turn of each, which is not timed; that is when the hosts are watched."""
        server = {"mail server": f"mx{self.servers}"}
        for contender, steps in self._steps.items():
            self._begin(contender, "warm-up")
            for step in steps:
                watched = server | ({"host outside": "outside"} if step.name == MESSAGES else {"gateway": "gw"})
                with contextlib.ExitStack() as stack:
                    traces = {
                        role: stack.enter_context(HostTrace(self._fleet.init(host), self._directory / f"{host}.trace"))
                        for role, host in watched.items()
                    }
                    self._run(step)
                self.counts[step.key] = {role: trace.counts for role, trace in traces.items()}

    def round(self, number: int, rounds: int) -> None:
        """One turn of each; who begins changes from round to round."""
        order = (RIVAL, PRODUCT) if number % 2 else (PRODUCT, RIVAL)
        for contender in order:
            self._begin(contender, f"round {number} of {rounds}")
            for step in self._steps[contender]:
                self.costs.setdefault(step.key, []).append(self._run(step))

    def _begin(self, contender: str, when: str) -> None:
        minutes, seconds = divmod(round(time.monotonic() - self._started), 60)
        say(f"{minutes:2}:{seconds:02} {self.servers} mail servers, {when}: {contender}")
        self._fleet.reset(self._inventory)

    def _run(self, step: Step) -> Cost:
        """One run, and a look at whether it did its work. Raises BenchError."""
        hosts = ["gw", *(f"mx{number}" for number in range(1, self.servers + 1))]
        output = self._directory / f"{step.contender}-{step.name}.out"
        command = ["ansible-playbook", "-i", str(self._inventory), "--forks", str(FORKS)]
        command += [str(step.playbook), "--extra-vars", json.dumps(step.variables)]
        before = self._fleet.cpu(hosts)
        usage = measure(command, output, env=self._fleet.environment(), watch_memory=False)
        cost = Cost(usage.wall, usage.cpu, self._fleet.cpu(hosts) - before)
        changed = {host: int(count) for host, count in _RECAP.findall(output.read_text(errors="replace"))}
        if step.changes is not None:
            wrong = [host for host in hosts if (changed.get(host, 0) > 0) is not step.changes]
            if wrong:
                what = "changed nothing" if step.changes else "was not without change"
                raise BenchError(f"the {step.name} run of the {step.contender} {what} on {', '.join(wrong)}")
        return cost

    def _messages(self) -> Path:
        """The test messages of enable_tls as a play of their own. It fails unless all of them arrive."""
        arrived = "received | selectattr('arrived') | length"
        play = {
            "name": "A message in each direction",
            "hosts": SERVERS,
            "gather_facts": False,
            "tasks": [
                {
                    "name": "Send them and read the way they took",
                    "ansible.builtin.import_role": {"name": "mailfleet.starttls.verify", "tasks_from": "message"},
                },
                {
                    "name": "See that they arrived",
                    "ansible.builtin.assert": {
                        "that": [f"verify_trace.{arrived} == 1", f"verify_outside.{arrived} == {self.servers}"],
                        "quiet": True,
                    },
                },
            ],
        }
        path = self._directory / f"messages-{self.servers}.json"
        path.write_text(json.dumps([play]))
        return path


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count() or 0,
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "ansible_core": importlib.metadata.version("ansible-core"),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


@contextlib.contextmanager
def bench_fleet(directory: Path, keep: bool) -> Iterator[Fleet]:
    """The fleet, which is removed at the end, whatever happens."""
    fleet = Fleet(directory)
    try:
        yield fleet
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the end is not to be interrupted
        if not keep:
            say("removing the fleet")
            fleet.down()


def _interrupted(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def main(words: Sequence[str]) -> int:
    """Run it, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(
        prog=f"run.py {WORD}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round, four mail servers: a look, not a result")
    parser.add_argument("--rounds", type=int, help="how many rounds (5)")
    parser.add_argument("--servers", type=int, nargs="+", help="how many mail servers, up to 12 (4 and then 12)")
    parser.add_argument(
        "--json", type=Path, default=TOP / "tests/output/rollout.json", help="where the figures go (%(default)s)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the fleet, so that the next run need not build it")
    arguments = parser.parse_args(words)
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    sizes = arguments.servers or (ALL_SERVERS[:1] if arguments.quick else ALL_SERVERS)
    for one_of_them in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one_of_them, _interrupted)

    started = time.monotonic()
    measured: list[Rollout] = []
    try:
        about = machine()
        for program, part in ((TOP / "tools/lab/bootstrap", "packages"), (BENCH / "setup", WORD)):
            subprocess.run([program, part], check=True, stdout=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="bench-") as name, bench_fleet(Path(name), arguments.keep) as fleet:
            say("bringing up the fleet")
            fleet.up()
            for servers in sizes:
                one = Rollout(fleet, Path(name), servers, started)
                one.warm_up()
                for number in range(1, rounds + 1):
                    one.round(number, rounds)
                measured.append(one)
    except (BenchError, subprocess.CalledProcessError, OSError) as error:
        say(str(error))
        return 2
    data = {
        "version": 1,
        "quick": arguments.quick,
        "rounds": rounds,
        "forks": FORKS,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "machine": {**about, "load_at_end": round(os.getloadavg()[0], 2)},
        "sizes": [rollout_table.size(one.servers, one.costs, one.counts) for one in measured],
    }
    rollout_table.check_schema(data)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(data, indent=2) + "\n")
    print(rollout_table.render(data))
    return 0
