#!/usr/bin/env python3
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench of the STARTTLS probe, what it costs beside its peers, and of the log readers. docs/bench.md says what is measured and how.

    run.py [--quick] [--rounds N] [--only NAME ...] [--json FILE]
    run.py rollout [--quick | --profile] [--servers N ...] [--no-rival] [--json FILE]    what a roll-out costs, see rollout.py
    run.py logs [--megabytes N] [--rounds N]    the log readers alone, which need no other program

Exit status: 0 all goals are met, 1 one is missed or could not be measured, 2 the bench could not run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import ssl
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP), str(TOP / ".lab/collections")]

from tests.bench import goals, log_lines, rollout
from tests.bench.certificates import write_pki
from tests.bench.contenders import HOST_CHECKS, Contender, Workshop, module_results
from tests.bench.measure import BenchError, Server, Usage, measure, say, spread
from tests.bench.targets import make_targets

IN_NAMESPACE = "MAILFLEET_BENCH_NAMESPACE"
PORT, RSA_PORT, DELAY_PORT, FAR_PORT, INJECTABLE_PORT = 25, 2501, 2502, 2503, 2504
GREETING_DELAY = 500  # milliseconds: the usual pause before the greeting
ROUND_TRIP = 200  # milliseconds
MANY = 10_000
PARALLEL = 2  # processes at a time of the programs that test one target each


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    rounds: int = 5
    targets: int = 2000
    process_per_target: int = 200
    sslyze: int = 200
    hosts: int = 50
    role_hosts: int = 10
    wall_rounds: int = 3

    @classmethod
    def quick(cls) -> Sizes:
        """For a look in between: the same work, fewer rounds and fewer targets for those that take long."""
        return cls(rounds=2, process_per_target=50, sslyze=50, hosts=10, role_hosts=3, wall_rounds=1)


@dataclass
class Measured:
    """A contender's runs, each with the C client's run right before it, or the reason why there are none."""

    contender: Optional[Contender]
    name: str
    label: str
    runs: list[tuple[Usage, Usage]] = field(default_factory=list)  # (of the contender, of the C client)
    c_targets: int = 0
    reason: str = ""

    @property
    def ratios(self) -> list[float]:
        """CPU per target, relative to the C client's, for each round."""
        return self._relative(lambda usage: usage.cpu)

    def _relative(self, cost: Callable[[Usage], float]) -> list[float]:
        if not self.contender:
            return []
        return [cost(own) / self.contender.targets / (cost(yardstick) / self.c_targets) for own, yardstick in self.runs]

    def to_dict(self) -> dict[str, Any]:
        """As it goes into the JSON."""
        entry: dict[str, Any] = {"name": self.name, "label": self.label, "measured": bool(self.runs)}
        if not self.runs or not self.contender:
            return {**entry, "reason": self.reason}
        targets = self.contender.targets
        cpu = [1000 * own.cpu / targets for own, _c in self.runs]
        wall = [own.wall for own, _c in self.runs]
        return {
            **entry,
            "note": self.contender.note,
            "targets": targets,
            "cpu_ms_per_target": spread(cpu),
            "ratio_to_c": spread(self.ratios),
            "wall_seconds": spread(wall),
            "wall_ratio_to_c": spread(self._relative(lambda usage: usage.wall)),
            "targets_per_second": round(targets / statistics.median(wall), 1),
        }


class Bench:
    """One run of everything."""

    def __init__(self, programs: Path, directory: Path, sizes: Sizes, only: list[str]) -> None:
        self._programs = programs
        self._directory = directory
        self._sizes = sizes
        self._only = only
        self._workshop = Workshop(directory, programs)
        self.measured: dict[str, Measured] = {}
        self.figures: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def run(self) -> None:
        """Measure everything; what fails is noted and does not stop the rest."""
        certificates = self._programs / "pki"
        with (
            self._server(PORT, "ec") as server,
            Server(self._programs / "server", RSA_PORT, certificates / "rsa") as rsa,
        ):
            self._rounds(self._enlist(), {PORT: server, RSA_PORT: rsa})
            self._note("memory", self._memory)
            self._note("module_calls", self._module_calls)
        with self._server(DELAY_PORT, "ec", "--greeting-delay", str(GREETING_DELAY)) as server:
            self._note("delay", lambda: self._delay(server))
        with (
            self._server(FAR_PORT, "ec", "--greeting-delay", str(ROUND_TRIP), "--reply-delay", str(ROUND_TRIP)) as far,
            self._server(INJECTABLE_PORT, "ec", "--injectable"),
        ):
            self._note("injection", lambda: self._injection(far))
        self._note("logs", self._logs)

    def _server(self, port: int, kind: str, *options: str) -> Server:
        return Server(self._programs / "server", port, self._programs / "pki" / kind, *options)

    def _note(self, name: str, work: Callable[[], dict[str, Any]]) -> None:
        if self._only and name not in self._only:
            self.reasons[name] = goals.NOT_ASKED
            return
        say(f"measuring {name}")
        try:
            self.figures[name] = work()
        except BenchError as error:
            say(f"{name}: {error}")
            self.reasons[name] = str(error)

    def _enlist(self) -> list[Measured]:
        """Everything that is compared with the C client, in the order of the table."""
        make, sizes = self._workshop, self._sizes
        targets = make_targets(sizes.targets, PORT)
        rsa_targets = make_targets(sizes.targets, RSA_PORT)
        several = make_targets(sizes.process_per_target, PORT)
        entries: dict[str, Callable[[], Contender]] = {
            "full": lambda: make.module("full", "starttls_probe, full test", targets),
            "full_rsa": lambda: make.module("full_rsa", "  the same, RSA certificates", rsa_targets),
            "full_one": lambda: make.module("full_one", "  the same, one target alone", targets[:1]),
            "checks": lambda: make.module("checks", "  with all checks", targets, checks=list(HOST_CHECKS)),
            "survey": lambda: make.module("survey", "starttls_probe, survey", targets, mode="survey"),
            "survey_judged": lambda: make.judged_survey(targets),
            "task": lambda: make.module_through_ansible("task", "one Ansible task, full test", targets),
            "task_survey": lambda: make.module_through_ansible(
                "task_survey", "one Ansible task, survey", targets, mode="survey"
            ),
            "go": lambda: make.go_client(targets),
            "nmap": lambda: make.nmap(targets),
            "sslyze": lambda: make.sslyze(make_targets(sizes.sslyze, PORT)),
            "s_client": lambda: make.s_client(several, PARALLEL),
            "posttls_finger": lambda: make.posttls_finger(several, PARALLEL),
            "ansible": lambda: make.task_per_host(make_targets(sizes.hosts, PORT), forks=20),
        }
        enlisted = []
        for name, build in entries.items():
            one = Measured(None, name, name)
            self.measured[name] = one
            if self._only and name not in self._only:
                one.reason = goals.NOT_ASKED
                continue
            try:
                one.contender = build()
                one.label = one.contender.label
                enlisted.append(one)
            except BenchError as error:
                say(f"{name} takes no part: {error}")
                one.reason = str(error)
        return enlisted

    def _rounds(self, enlisted: list[Measured], servers: dict[int, Server]) -> None:
        yardsticks = {
            port: self._workshop.c_client(make_targets(self._sizes.targets, port)) for port in (PORT, RSA_PORT)
        }
        for number in range(1, self._sizes.rounds + 1):
            say(f"round {number} of {self._sizes.rounds}")
            for one in enlisted:
                if one.reason or not one.contender:
                    continue
                port = RSA_PORT if one.name == "full_rsa" else PORT
                yardstick = yardsticks[port]
                try:
                    c_usage = self._run(yardstick, servers[port])
                    usage = self._run(one.contender, servers[port])
                except BenchError as error:
                    say(f"{one.name}: {error}")
                    one.reason, one.runs = str(error), []
                else:
                    one.c_targets = yardstick.targets
                    one.runs.append((usage, c_usage))

    def _run(self, contender: Contender, server: Optional[Server] = None) -> Usage:
        """One run, and a look at whether the work was done: by the server's counters and by the output."""
        output = self._directory / f"{contender.name}.out"
        before = server.counters() if server else None
        usage = measure(contender.command, output, stdin=contender.stdin, env=contender.environment())
        if server and before:
            seen = server.counters() - before
            for what, needed in (("handshakes", contender.handshakes), ("ehlo_tls", contender.ehlo_tls)):
                if getattr(seen, what) < needed * contender.targets:
                    raise BenchError(
                        f"the server saw {what} {getattr(seen, what)} times from {contender.targets} targets of {contender.name}"
                    )
        contender.check(output)
        return usage

    def _memory(self) -> dict[str, Any]:
        """One module call for 10,000 targets, after the C client with the same."""
        targets = make_targets(MANY, PORT)
        c_usage = self._run(self._workshop.c_client(targets))
        usage = self._run(self._workshop.module("memory", "10,000 targets", targets))
        return {
            "targets": MANY,
            "peak_rss_mb": round(usage.peak_rss / 1e6, 1),
            "wall_seconds": round(usage.wall, 2),
            "cpu_ms_per_target": round(1000 * usage.cpu / MANY, 3),
            "ratio_to_c": round(usage.cpu / c_usage.cpu, 3),
        }

    def _delay(self, server: Server) -> dict[str, Any]:
        """Servers that pause before the greeting: what counts is how many are waited for at a time."""
        make = self._workshop
        targets = make_targets(1000, DELAY_PORT)
        contenders = [
            make.module("full", "starttls_probe, full test", targets, concurrency=1000),
            make.c_client(targets, concurrency=1000),
            make.go_client(targets, concurrency=1000),
            make.s_client(targets, parallel=200),
        ]
        walls: dict[str, list[float]] = {one.name: [] for one in contenders}
        for _round in range(self._sizes.wall_rounds):
            for one in contenders:
                walls[one.name].append(self._run(one, server).wall)
        return {
            "targets": len(targets),
            "greeting_delay_ms": GREETING_DELAY,
            "wall_seconds": {name: spread(values) for name, values in walls.items()},
        }

    def _injection(self, server: Server) -> dict[str, Any]:
        """How long the check takes, by the server's clock, where every answer takes a round trip; and whether it is right."""
        make = self._workshop
        target, injectable = make_targets(1, FAR_PORT), make_targets(1, INJECTABLE_PORT)
        plain = make.module("far", "without checks", target)
        checked = make.module("far_injection", "with the injection check", target, checks=["injection"])
        handshakes: list[float] = []
        checks: list[float] = []
        for _round in range(self._sizes.wall_rounds):
            for contender, seconds in ((plain, handshakes), (checked, checks)):
                before = server.settled()
                self._run(contender)
                seconds.append((server.settled() - before).seconds)
        verdict = module_results(self._directory / "far_injection.out")[0].get("injection")
        self._run(make.module("injectable", "an injectable server", injectable, checks=["injection"]))
        injected = module_results(self._directory / "injectable.out")[0].get("injection")
        if verdict is not False or injected is not True:
            raise BenchError(f"the verdicts are {verdict} and {injected} instead of False and True")
        handshake = statistics.median(handshakes)
        check = statistics.median(checks) - handshake
        return {
            "round_trip_ms": ROUND_TRIP,
            "handshake_seconds": round(handshake, 3),
            "check_seconds": round(check, 3),
            "round_trips_more": round((check - handshake) / (ROUND_TRIP / 1000), 2),
        }

    def _logs(self) -> dict[str, Any]:
        """The log readers: the whole call of tls_activity_info on a file."""
        return log_lines.figures(rounds=self._sizes.rounds)

    def _module_calls(self) -> dict[str, Any]:
        """The role verify on every host of a play: Ansible leaves the program of each module call in the host's directory."""
        contender, calls = self._workshop.verify_role(make_targets(self._sizes.role_hosts, PORT))
        self._run(contender)
        per_host = [len(list(host.glob("*/AnsiballZ_*.py"))) for host in calls.iterdir()]
        if len(per_host) != contender.targets:
            raise BenchError(f"{len(per_host)} of {contender.targets} hosts ran a module")
        return {"hosts": len(per_host), "most_per_host": max(per_host), "all": sum(per_host)}


def machine(python: str) -> dict[str, Any]:
    """What the figures depend on."""
    version = subprocess.run([python, "-c", "import ssl, sys; print(sys.version.split()[0], ssl.OPENSSL_VERSION)"],
                             check=True, capture_output=True, text=True).stdout.split(maxsplit=1)  # fmt: skip
    return {
        "cores": os.cpu_count() or 0,
        "load": round(os.getloadavg()[0], 2),
        "machine": platform.machine(),
        "python": version[0],
        "openssl": version[1].strip(),
        "python_of_the_bench": f"{platform.python_version()} {ssl.OPENSSL_VERSION}",
    }


def report(bench: Bench, sizes: Sizes, quick: bool, load: float) -> dict[str, Any]:
    """Everything as data; tests/bench/bench.schema.json describes it."""
    ratios = {name: one.ratios for name, one in bench.measured.items()}
    judged = goals.judge(ratios, bench.figures, {**{n: m.reason for n, m in bench.measured.items()}, **bench.reasons})
    return {
        "version": 1,
        "quick": quick,
        "rounds": sizes.rounds,
        "machine": {**machine(Workshop(Path(), Path()).python), "load_at_start": load},
        "contenders": [one.to_dict() for one in bench.measured.values()],
        "figures": bench.figures,
        "not_measured": bench.reasons,
        "goals": [one.to_dict() for one in judged],
        "passed": all(one.met for one in judged),
    }


@contextlib.contextmanager
def own_directory() -> Iterator[Path]:
    """A directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="starttls-bench-") as name:
        yield Path(name)


def enter_namespace(arguments: list[str]) -> None:
    """Go on in a network namespace of our own, where port 25 is free and nothing else uses loopback."""
    if os.environ.get(IN_NAMESPACE):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        say("no network namespace can be made here; the bench listens on port 25 of this machine's loopback")
        return
    os.environ[IN_NAMESPACE] = "1"
    os.execvp(unshare[0], [*unshare, sys.executable, str(Path(__file__).resolve()), *arguments])


def main() -> int:
    """Run the bench, print the table, write the JSON."""
    if sys.argv[1:2] == [rollout.WORD]:
        return rollout.main(sys.argv[2:])
    if sys.argv[1:2] == [log_lines.WORD]:
        return log_lines.main(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and targets: a look, not a result")
    parser.add_argument("--rounds", type=int, help="how many rounds")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="contenders and figures, by their names in the JSON"
    )
    parser.add_argument("--json", type=Path, default=TOP / ".cache" / "bench.json", help="where the figures go")
    arguments = parser.parse_args()
    enter_namespace(sys.argv[1:])

    load = round(os.getloadavg()[0], 2)
    sizes = Sizes.quick() if arguments.quick else Sizes()
    if arguments.rounds:
        sizes = Sizes(**{**sizes.__dict__, "rounds": arguments.rounds})
    try:
        programs = Path(
            subprocess.run([TOP / "tests/bench/setup"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        )
        write_pki(programs / "pki")
        with own_directory() as directory:
            bench = Bench(programs, directory, sizes, arguments.only)
            bench.run()
    except (BenchError, subprocess.CalledProcessError, OSError) as error:
        say(str(error))
        return 2
    data = report(bench, sizes, arguments.quick, load)
    goals.check_schema(data)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(data, indent=2) + "\n")
    print(goals.render(data))
    return 0 if data["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
