"""The turns of the roll-out bench, on a fleet that is not there: ansible-playbook is a program that prints a recap."""

from __future__ import annotations

import contextlib
import json
import os
import sys

import pytest

from tests.bench import rollout
from tests.bench.measure import BenchError
from tests.bench.rollout import MESSAGES, PING, PING_ONE, PRODUCT, READ, RERUN, RERUN_MESSAGES, RIVAL, Rollout

# Says that it ran, does what FAULT asks for, and prints the recap that the run has to have.
PROGRAM = r"""
import json, os, sys, time
words = sys.argv[1:]
book = os.path.basename(next(word for word in words if word.endswith((".yml", ".json")) and "inventory" not in word))
limit = words[words.index("--limit") + 1] if "--limit" in words else ""
state, fault = os.environ["FAKE"] + "/" + book, os.environ.get("FAULT", "")
first = book in ("enable_tls.yml", "rival.yml") and not os.path.exists(state)
open(state, "w").close()
with open(os.environ["FAKE"] + "/runs", "a") as runs:
    runs.write(json.dumps([book, limit, "--extra-vars" in words and words[words.index("--extra-vars") + 1]]) + "\n")
if "TASK_TIMES" in os.environ:
    with open(os.environ["TASK_TIMES"], "w") as times:
        for kind, name in (("play", "P"), ("task", "T"), ("result", "mx1"), ("end", "")):
            times.write(json.dumps({"event": kind, "at": time.time(), "name": name}) + "\n")
if "-v" in words and book == "read.yml":
    print('ok: [mx1] => {"changed": false, "changes": %s, "digests": {}}' % ("[1]" if fault == "drift" else "[]"))
for host in [limit] if limit else ["gw", "mx1", "mx2"]:
    if fault == "left out" and host == "mx2":
        continue
    changed = 1 if first or (fault == "changes" and host == "mx2") else 0
    ignored, unreachable = (int(fault == one and book == "read.yml") for one in ("ignored", "unreachable"))
    print(f"{host}   : ok=3    changed={changed}    unreachable={unreachable}    failed=0    skipped=0    rescued=0    ignored={ignored}")
"""


class FakeFleet:
    """Two mail servers and a gateway that are not there."""

    def __init__(self, directory):
        self.directory = directory
        program = directory / "bin/ansible-playbook"
        program.parent.mkdir()
        program.write_text(f"#!{sys.executable}\n{PROGRAM}")
        program.chmod(0o755)
        self.fault = ""
        self.used = 0.0

    def inventory(self, servers):
        return self.directory / f"inventory-{servers}.yml"

    def slices(self, inventory, count):
        return [inventory] * count

    def environment(self):
        path = f"{self.directory / 'bin'}:{os.environ['PATH']}"
        return {"PATH": path, "FAKE": str(self.directory), "FAULT": self.fault}

    def reset(self, inventory):
        for state in self.directory.glob("*.yml"):
            state.unlink()
        with (self.directory / "runs").open("a") as runs:
            runs.write('"reset"\n')

    def cpu(self, hosts):
        self.used += len(list(hosts))
        return self.used

    def up(self):
        pass

    def runs(self):
        return [json.loads(line) for line in (self.directory / "runs").read_text().splitlines()]


@pytest.fixture
def fleet(tmp_path):
    return FakeFleet(tmp_path)


def bench(fleet, **options):
    return Rollout(fleet, fleet.directory, 2, 0.0, **options)


def test_a_round(fleet):
    one = bench(fleet)
    one.round(2, 2)
    runs = fleet.runs()
    assert [run if run == "reset" else run[0] for run in runs] == [
        "reset", "ping.yml", "enable_tls.yml", "enable_tls.yml", "enable_tls.yml", "messages-2.json", *["verify_tls.yml"] * 3,
        *["ping.yml", "read.yml"] * 2, "reset", "ping.yml", "rival.yml", "rival.yml",
    ]  # fmt: skip
    assert [run[1] for run in runs if run[0] == "read.yml"] == ["mx1", "mx1"]
    without = {"starttls_outside_host": ""}
    assert [json.loads(run[2]) for run in runs if run[0] == "enable_tls.yml"] == [without, without, {}]
    assert {key: len(costs) for key, costs in one.costs.items()} == {
        **{(PRODUCT, step): 1 for step in (PING, "first", RERUN, RERUN_MESSAGES, MESSAGES, "verify", "verify_2")},
        **{(PRODUCT, step): 2 for step in (PING_ONE, READ)},
        **{(RIVAL, step): 1 for step in (PING, "first", RERUN)},
    }


def test_of_two_runs_at_once_each_has_to_succeed(fleet):
    both = rollout._at_once([["sh", "-c", "exit 0"], ["sh", "-c", "echo 'not so' >&2; exit 3"]])
    with pytest.raises(BenchError, match="ended with status 3: not so"):
        rollout.measure(both, fleet.directory / "out", watch_memory=False)
    usage = rollout.measure(rollout._at_once([["sleep", "0.1"]] * 2), fleet.directory / "out", watch_memory=False)
    assert usage.wall >= 0.1


def test_who_begins_changes(fleet):
    one = bench(fleet)
    one.round(1, 2)
    assert fleet.runs()[2][0] == "rival.yml"


def test_without_the_rival(fleet):
    one = bench(fleet, rival=False)
    one.round(1, 1)
    assert {contender for contender, _step in one.costs} == {PRODUCT}
    assert "rival.yml" not in [run[0] for run in fleet.runs()]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("changes", "the rerun run of the product was not without change on mx2"),
        ("left out", "the first run of the product left out mx2"),
        ("ignored", "the read run of the product failed on mx1"),
        ("unreachable", "the read run of the product failed on mx1"),
    ],
)
def test_a_run_that_did_not_do_its_work(fleet, fault, message):
    fleet.fault = fault
    with pytest.raises(BenchError, match=message):
        bench(fleet, rival=False).round(1, 1)


def test_the_call_that_is_measured_alone_is_one_without_change(fleet):
    one = bench(fleet)
    one._see_nothing_to_change()
    fleet.fault = "drift"
    with pytest.raises(BenchError, match="reading mx1 after a rerun shows a change"):
        one._see_nothing_to_change()


def test_the_profile(fleet):
    shown = bench(fleet).profile()
    titles = [line.split("  ")[0] for line in shown.splitlines() if "wall s" in line]
    assert titles == [f"{step}, 2 mail servers" for step in ("first run", "rerun", "rerun with messages")]
    assert shown.count("ansible-playbook starts") == 3


@pytest.fixture
def whole(fleet, monkeypatch, tmp_path):
    """main() on that fleet. Returns a function: words -> exit status."""

    @contextlib.contextmanager
    def bench_fleet(directory, servers, keep):
        assert servers == 2
        yield fleet

    plan = {
        "hosts": 1000, "seconds": 1.0, "parse_seconds": 0.5, "plan_seconds": 0.3, "output_seconds": 0.2, "megabytes": 80.0,
        "recorded_bytes": 5,
    }  # fmt: skip
    monkeypatch.setattr(rollout, "bench_fleet", bench_fleet)
    monkeypatch.setattr(rollout, "plan_cost", lambda directory: plan)
    monkeypatch.setattr(rollout.subprocess, "run", lambda *words, **options: None)
    monkeypatch.setattr(rollout.signal, "signal", lambda *words: None)
    monkeypatch.setattr(Rollout, "warm_up", lambda self: None)
    return lambda *words: rollout.main(
        ["--servers", "2", "--rounds", "1", "--json", str(tmp_path / "out.json"), *words]
    )


def test_the_whole(whole, capsys, tmp_path):
    assert whole("--no-rival") == 0
    data = json.loads((tmp_path / "out.json").read_text())
    assert data["passed"] and data["plan"]["megabytes"] == 80.0
    assert data["sizes"][0]["messages_to_ping"] and data["sizes"][0]["call_above_ping_seconds"] is not None
    assert "the plan of 1,000 hosts " in capsys.readouterr().out


def test_a_plan_that_cannot_be_measured(whole, monkeypatch, capsys):
    def broken(directory):
        raise BenchError("plan_scale.py ended with status 1")

    monkeypatch.setattr(rollout, "plan_cost", broken)
    assert whole() == 1
    assert "not measured  (plan_scale.py ended with status 1)" in capsys.readouterr().out


def test_a_run_that_fails(whole, fleet, capsys):
    fleet.fault = "left out"
    assert whole() == 2


def test_only_the_profile(whole, capsys, tmp_path):
    assert whole("--profile") == 0
    assert "rerun, 2 mail servers" in capsys.readouterr().out
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("word", ["0", "201", "-1", "many"])
def test_sizes_that_cannot_be(word, capsys):
    with pytest.raises(SystemExit):
        rollout.main([f"--servers={word}"])
    assert "is to be 1 to 200" in capsys.readouterr().err
