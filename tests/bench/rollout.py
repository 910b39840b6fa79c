# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a roll-out costs over SSH on the lab's fleet, beside roles that prove nothing (rival.yml). docs/bench.md says how.

    run.py rollout [--quick] [--rounds N] [--servers N ...] [--no-rival] [--json FILE] [--keep]
    run.py rollout --profile [--servers N ...] [--keep]

Exit status: 0 no limit is missed, 1 one is or could not be measured, 2 the roll-out failed or could not be measured at all.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import rollout_goals, rollout_profile, rollout_table
from tests.bench.host_trace import HostCounts, HostTrace
from tests.bench.measure import BenchError, measure, say
from tests.bench.rollout_fleet import GATEWAYS, MOST_SERVERS, SERVERS, TOP, Fleet
from tests.bench.rollout_table import Cost, Key

WORD = "rollout"
BENCH = TOP / "tests/bench"
FORKS = 10  # for everything; the lab's setting
ALL_SERVERS = (4, 12)
PRODUCT, RIVAL = "product", "rival"
PING, FIRST, RERUN, MESSAGES = "ping", "first", "rerun", "messages"
RERUN_MESSAGES, PING_ONE, READ = "rerun_messages", "ping_one", "read"
VERIFY, VERIFY_2 = "verify", "verify_2"
ONE_SERVER = "mx1"
SINGLE_TURNS = 2  # of ping and read on one host, for each round: they are short, and their difference is small
PLAN_ROUNDS = 3
SECONDS_A_SERVER = 60  # that a run may take at most; the rival is slow
WITHOUT_MESSAGES = {"starttls_outside_host": ""}
RIVAL_OPTIONS = {
    "rival_group": f"{GATEWAYS}:{SERVERS}",
    "rival_key": "{{ starttls_private_key_file }}",
    "rival_certificate": "{{ starttls_certificate_file }}",
}

_RECAP = re.compile(
    r"^(?P<host>\S+) +: ok=\d+ +changed=(?P<changed>\d+) +unreachable=(?P<unreachable>\d+) .*\bignored=(?P<ignored>\d+)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Step:
    """A run that is measured.

    changes: whether every host has to be changed by it, or none may be; None if it does not matter. host: the only one that it runs on.
    slices: into how many runs at once the inventory is divided, as AWX divides that of a job.
    """

    contender: str
    name: str
    playbook: Path
    variables: dict[str, Any] = field(default_factory=dict)
    changes: bool | None = None
    host: str = ""
    slices: int = 1

    @property
    def key(self) -> Key:
        """What it is kept under."""
        return self.contender, self.name


class Rollout:
    """The measurement with a number of mail servers."""

    def __init__(self, fleet: Fleet, directory: Path, servers: int, started: float, rival: bool = True) -> None:
        """started: when the whole began, for the clock that is shown. rival: whether it takes part."""
        self.servers = servers
        self._started = started
        self.costs: dict[Key, list[Cost]] = {}
        self.counts: dict[Key, dict[str, HostCounts]] = {}
        self._fleet = fleet
        self._directory = directory
        self._inventory = fleet.inventory(servers)
        enable = TOP / "playbooks/enable_tls.yml"
        ping, theirs, messages = BENCH / "ping.yml", BENCH / "rival.yml", self._messages()
        verify = TOP / "playbooks/verify_tls.yml"
        self._steps = {
            RIVAL: [
                Step(RIVAL, PING, ping),
                Step(RIVAL, FIRST, theirs, RIVAL_OPTIONS, changes=True),
                Step(RIVAL, RERUN, theirs, RIVAL_OPTIONS, changes=False),
            ],
            PRODUCT: [
                Step(PRODUCT, PING, ping),
                Step(PRODUCT, FIRST, enable, WITHOUT_MESSAGES, changes=True),
                Step(PRODUCT, RERUN, enable, WITHOUT_MESSAGES, changes=False),
                Step(PRODUCT, RERUN_MESSAGES, enable, changes=False),
                Step(PRODUCT, MESSAGES, messages),
                Step(PRODUCT, VERIFY, verify, WITHOUT_MESSAGES, changes=False),
                Step(PRODUCT, VERIFY_2, verify, WITHOUT_MESSAGES, changes=False, slices=2),
            ],
        }
        if not rival:
            del self._steps[RIVAL]
        self._single = [
            Step(PRODUCT, PING_ONE, ping, host=ONE_SERVER),
            Step(PRODUCT, READ, BENCH / "read.yml", changes=False, host=ONE_SERVER),
        ]

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
            if contender == PRODUCT:
                self._see_nothing_to_change()

    def round(self, number: int, rounds: int) -> None:
        """One turn of each; who begins changes from round to round."""
        order = list(self._steps) if number % 2 else list(reversed(self._steps))
        for contender in order:
            self._begin(contender, f"round {number} of {rounds}")
            steps = self._steps[contender] + (self._single * SINGLE_TURNS if contender == PRODUCT else [])
            for step in steps:
                self.costs.setdefault(step.key, []).append(self._run(step))

    def profile(self) -> str:
        """How the time of the product's runs is spread over their tasks, each run once."""
        self._begin(PRODUCT, "profile")
        tables = []
        for step in self._steps[PRODUCT]:
            if step.name == PING:
                self._run(step)  # opens the connections
            elif step.name not in (MESSAGES, VERIFY, VERIFY_2):
                times = self._directory / f"{step.name}.times"
                began = time.time()
                self._run(step, rollout_profile.environment(times))
                rows = rollout_profile.read_times(times.read_text().splitlines(), began, time.time())
                times.unlink()
                title = f"{rollout_table.LABELS[step.name]}, {self.servers} mail servers"
                tables.append(rollout_profile.render(title, rows))
        return "\n\n".join(tables)

    def _see_nothing_to_change(self) -> None:
        """The call that is measured alone has to be one on a host where everything is as wanted. Raises BenchError."""
        for step in self._single:
            self._run(step, verbose=True)
        if '"changes": []' not in self._output(self._single[-1]).read_text():
            raise BenchError(f"reading {ONE_SERVER} after a rerun shows a change")

    def _begin(self, contender: str, when: str) -> None:
        minutes, seconds = divmod(round(time.monotonic() - self._started), 60)
        say(f"{minutes:2}:{seconds:02} {self.servers} mail servers, {when}: {contender}")
        self._fleet.reset(self._inventory)

    def _output(self, step: Step) -> Path:
        return self._directory / f"{step.contender}-{step.name}.out"

    def _run(self, step: Step, environment: Mapping[str, str] | None = None, verbose: bool = False) -> Cost:
        """One run, and a look at whether it did its work. Raises BenchError."""
        every = ["gw", *(f"mx{number}" for number in range(1, self.servers + 1))]
        hosts = [step.host] if step.host else every
        output = self._output(step)
        inventories = self._fleet.slices(self._inventory, step.slices)
        words = [str(step.playbook), "--extra-vars", json.dumps(step.variables)]
        words += ["--limit", step.host] if step.host else []
        words += ["-v"] if verbose else []
        command = _at_once([["ansible-playbook", "-i", str(one), "--forks", str(FORKS), *words] for one in inventories])
        before = self._fleet.cpu(hosts)
        usage = measure(
            command, output, env={**self._fleet.environment(), **(environment or {})}, watch_memory=False,
            limit=max(600, SECONDS_A_SERVER * self.servers),
        )  # fmt: skip
        cost = Cost(usage.wall, usage.cpu, self._fleet.cpu(hosts) - before)
        recap = {one["host"]: one for one in _RECAP.finditer(output.read_text(errors="replace"))}
        if step.changes is not None:
            if missing := [host for host in hosts if host not in recap]:
                raise BenchError(f"the {step.name} run of the {step.contender} left out {', '.join(missing)}")
            wrong = [host for host in hosts if (int(recap[host]["changed"]) > 0) is not step.changes]
            if wrong:
                what = "changed nothing" if step.changes else "was not without change"
                raise BenchError(f"the {step.name} run of the {step.contender} {what} on {', '.join(wrong)}")
        if step.host and recap[step.host].group("unreachable", "ignored") != ("0", "0"):
            raise BenchError(f"the {step.name} run of the {step.contender} failed on {step.host}")
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


def _at_once(commands: Sequence[Sequence[str]]) -> list[str]:
    """Return the command that runs all of these at once, and fails if one of them does."""
    if len(commands) == 1:
        return list(commands[0])
    begin = " ".join(f'{shlex.join(one)} & pids="$pids $!";' for one in commands)
    return ["sh", "-c", f"{begin} status=0; for pid in $pids; do wait $pid || status=$?; done; exit $status"]


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


def plan_cost(directory: Path) -> dict[str, Any]:
    """What the plan alone costs: the run with the median of the seconds. Raises BenchError."""
    output = directory / "plan.out"
    runs = []
    for _round in range(PLAN_ROUNDS):
        measure([sys.executable, str(BENCH / "plan_scale.py")], output, watch_memory=False)
        runs.append(json.loads(output.read_text()))
    middle = statistics.median_low(one["seconds"] for one in runs)
    return next(one for one in runs if one["seconds"] == middle)


@contextlib.contextmanager
def bench_fleet(directory: Path, servers: int, keep: bool) -> Iterator[Fleet]:
    """The fleet, which is removed at the end, whatever happens."""
    fleet = Fleet(directory, servers)
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


def _servers(word: str) -> int:
    if not word.isdigit() or not 1 <= int(word) <= MOST_SERVERS:
        raise argparse.ArgumentTypeError(f"is to be 1 to {MOST_SERVERS}")
    return int(word)


def main(words: Sequence[str]) -> int:
    """Run it, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(
        prog=f"run.py {WORD}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round, four mail servers: a look, not a result")
    parser.add_argument("--rounds", type=int, help="how many rounds (5)")
    parser.add_argument(
        "--servers", type=_servers, nargs="+", help="how many mail servers (4 and then 12); 40 needs 3 GB of memory"
    )
    parser.add_argument("--no-rival", action="store_true", help="measure the product alone")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="measure nothing, but show how the time of a run is spread over its tasks",
    )
    parser.add_argument(
        "--json", type=Path, default=TOP / "tests/output/rollout.json", help="where the figures go (%(default)s)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the fleet, so that the next run need not build it")
    arguments = parser.parse_args(words)
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    sizes = arguments.servers or (ALL_SERVERS[:1] if arguments.quick or arguments.profile else ALL_SERVERS)
    for one_of_them in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one_of_them, _interrupted)

    started = time.monotonic()
    measured: list[Rollout] = []
    plan: dict[str, Any] | None = None
    reasons: dict[str, str] = {}
    try:
        about = machine()
        for program, part in ((TOP / "tools/lab/bootstrap", "packages"), (BENCH / "setup", WORD)):
            subprocess.run([program, part], check=True, stdout=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            directory = Path(name)
            if not arguments.profile:
                say("planning for 1,000 hosts")
                try:
                    plan = plan_cost(directory)
                except BenchError as error:
                    say(f"the plan alone: {error}")
                    reasons |= dict.fromkeys(("plan_seconds", "plan_memory"), str(error))
            with bench_fleet(directory, max(sizes), arguments.keep) as fleet:
                say("bringing up the fleet")
                fleet.up()
                for servers in sizes:
                    one = Rollout(fleet, directory, servers, started, rival=not arguments.no_rival)
                    if arguments.profile:
                        print(one.profile(), end="\n\n")
                        continue
                    one.warm_up()
                    for number in range(1, rounds + 1):
                        one.round(number, rounds)
                    measured.append(one)
    except (BenchError, subprocess.CalledProcessError, OSError) as error:
        say(str(error))
        return 2
    if arguments.profile:
        return 0
    data: dict[str, Any] = {
        "version": 2,
        "quick": arguments.quick,
        "rounds": rounds,
        "forks": FORKS,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "machine": {**about, "load_at_end": round(os.getloadavg()[0], 2)},
        "sizes": [rollout_table.size(one.servers, one.costs, one.counts) for one in measured],
        "plan": plan,
    }
    judged = rollout_goals.judge(data, reasons)
    data |= {"goals": judged, "passed": rollout_goals.passed(judged)}
    rollout_table.check_schema(data)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(data, indent=2) + "\n")
    print(rollout_table.render(data))
    return 0 if data["passed"] else 1
