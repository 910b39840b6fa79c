"""The lock of the fleet: one note on a host, taken by one run at a time."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import fleet_lock, lock
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.fleet_lock import (
    path_of,
    read_lock,
    release_lock,
    take_lock,
    with_lock,
)

NOW = 1_800_000_000.0
HOUR = 3600.0


def holder(run: str, **words: str) -> dict[str, str]:
    """The run that takes the lock."""
    return {
        "user": "alice",
        "controller": "control.example.com",
        "playbook": "enable_tls",
        "process": "",
        "run": run,
        **words,
    }


@pytest.fixture
def store(tmp_path: Path) -> str:
    """The directory of locks, which the first run makes."""
    return str(tmp_path / "store")


def test_nobody_holds_it_at_first(store: str) -> None:
    assert read_lock(NOW, store) == {}
    assert with_lock({"kind": "postfix"}, store) == {"kind": "postfix"}
    assert not Path(store).exists()


def test_a_run_takes_it_and_another_is_told_whose_it_is(store: str) -> None:
    assert take_lock(holder("a"), NOW, 6, store=store) == fleet_lock.Taken(held=True, changed=True, former={})
    refused = take_lock(holder("b"), NOW + 90, 6, store=store)
    assert (refused.held, refused.changed) == (False, False)
    assert refused.former == {**holder("a"), "since": NOW, "age": 90.0}
    assert with_lock({}, store)["fleet_lock"]["run"] == "a"


def test_the_same_run_takes_it_once(store: str) -> None:
    take_lock(holder("a"), NOW, 6, store=store)
    before = Path(path_of(store)).stat().st_mtime_ns
    assert take_lock(holder("a"), NOW + 5, 6, store=store) == fleet_lock.Taken(held=True, changed=False, former={})
    assert Path(path_of(store)).stat().st_mtime_ns == before


def test_only_root_reads_and_writes_it_whatever_the_umask(store: str) -> None:
    before = os.umask(0)
    try:
        take_lock(holder("a"), NOW, 6, store=store)
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path(path_of(store)).stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(store).stat().st_mode) == 0o700


def test_a_release_leaves_nothing(store: str) -> None:
    take_lock(holder("a"), NOW, 6, store=store)
    assert release_lock("a", NOW, store=store) == fleet_lock.Taken(held=False, changed=True, former={})
    assert not Path(store).exists()
    assert release_lock("a", NOW, store=store) == fleet_lock.Taken(held=False, changed=False, former={})


def test_a_release_leaves_what_others_have_in_the_store(store: str) -> None:
    take_lock(holder("a"), NOW, 6, store=store)
    Path(store, "postfix.before").write_text("{}")
    release_lock("a", NOW, store=store)
    assert sorted(os.listdir(store)) == ["host.lock", "postfix.before"]


def test_the_last_daemon_that_leaves_the_store_leaves_the_lock_of_the_run(store: str) -> None:
    """An uninstall removes the store with the last thing in it, while the run still has the lock."""
    take_lock(holder("a"), NOW, 6, store=store)
    lock.leave_store("postfix", store)
    lock.leave_store("fleet", store)
    assert read_lock(NOW, store)["run"] == "a"


def test_a_run_does_not_release_the_lock_of_another(store: str) -> None:
    take_lock(holder("a"), NOW, 6, store=store)
    broken = take_lock(holder("b"), NOW, 6, break_it=True, store=store)
    assert (broken.held, broken.former["run"]) == (True, "a")
    kept = release_lock("a", NOW, store=store)
    assert (kept.changed, kept.former["run"]) == (False, "b")
    assert read_lock(NOW, store)["run"] == "b"


def test_an_old_lock_does_not_count(store: str) -> None:
    take_lock(holder("a"), NOW, 6, store=store)
    assert not take_lock(holder("b"), NOW + 6 * HOUR - 1, 6, store=store).held
    assert take_lock(holder("b"), NOW + 6 * HOUR, 6, store=store).former["run"] == "a"
    assert read_lock(NOW + 6 * HOUR, store)["age"] == 0


def test_a_clock_that_was_put_back_makes_no_lock_old(store: str) -> None:
    take_lock(holder("a"), NOW, 6, store=store)
    assert read_lock(NOW - 50 * HOUR, store)["age"] == 0
    assert not take_lock(holder("b"), NOW - 50 * HOUR, 6, store=store).held


def test_the_lock_of_a_run_that_is_over_does_not_count_but_only_that_one(store: str) -> None:
    take_lock(holder("a"), NOW, 6, store=store)
    assert not take_lock(holder("b"), NOW, 6, over="c", store=store).held
    assert not take_lock(holder("b"), NOW, 6, over="", store=store).held
    assert take_lock(holder("b"), NOW, 6, over="a", store=store).held


def test_check_mode_writes_nothing(store: str) -> None:
    assert take_lock(holder("a"), NOW, 6, check_mode=True, store=store) == fleet_lock.Taken(False, True, {})
    assert not Path(store).exists()
    take_lock(holder("a"), NOW, 6, store=store)
    assert take_lock(holder("b"), NOW, 6, check_mode=True, store=store).former["run"] == "a"
    assert release_lock("a", NOW, check_mode=True, store=store).changed
    assert read_lock(NOW, store)["run"] == "a"


def test_of_many_runs_at_once_one_gets_it(store: str) -> None:
    runs = [f"run{number}" for number in range(16)]
    with ThreadPoolExecutor(len(runs)) as pool:
        taken = list(pool.map(lambda run: take_lock(holder(run), NOW, 6, store=store), runs))
    winners = [run for run, one in zip(runs, taken) if one.held]
    assert len(winners) == 1
    assert {one.former["run"] for one in taken if not one.held} == set(winners)


def test_of_many_runs_that_take_over_an_old_lock_one_gets_it(store: str) -> None:
    take_lock(holder("old"), NOW, 6, store=store)
    runs = [f"run{number}" for number in range(8)]
    with ThreadPoolExecutor(len(runs)) as pool:
        taken = list(pool.map(lambda run: take_lock(holder(run), NOW + 7 * HOUR, 6, store=store), runs))
    assert sum(one.held for one in taken) == 1


UNREADABLE: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{",
    "no object": b"[1]",
    "no text": b"\xff\xfe",
    "no time": b'{"format": 1, "run": "a"}',
    "time that is none": b'{"format": 1, "since": NaN}',
    "endless time": b'{"format": 1, "since": Infinity}',
    "true as time": b'{"format": 1, "since": true}',
    "too long": b" " * 5000,
    "deep": b"[" * 4000,
    "of a newer version": b'{"format": 99, "since": 1}',
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_a_note_that_cannot_be_read_counts_as_held_until_it_is_old(store: str, content: bytes) -> None:
    Path(store).mkdir(mode=0o700)
    path = Path(path_of(store))
    path.write_bytes(content)
    os.utime(path, (NOW, NOW))
    found = read_lock(NOW + 60, store)
    assert (found["age"], bool(found["unreadable"]), len(found)) == (60.0, True, 2)
    assert not take_lock(holder("b"), NOW + 60, 6, store=store).held
    assert take_lock(holder("b"), NOW + 60, 6, break_it=True, store=store).held


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to("/dev/zero"), os.mkfifo])
def test_what_is_no_file_is_held(store: str, make: Callable[[Path], Any]) -> None:
    Path(store).mkdir(mode=0o700)
    make(Path(path_of(store)))
    assert "unreadable" in read_lock(NOW, store)


def test_who_may_not_look_is_told_of_no_lock(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan of a host without privilege says that, and not that another run is under way."""

    def refused(*_args: Any, **_kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileImage, "read", refused)
    assert read_lock(NOW, store) == {}


def test_what_a_note_says_is_one_printable_line(store: str) -> None:
    Path(store).mkdir(mode=0o700)
    data = {
        "format": 1,
        "since": 5,
        "user": "al\nice\x1b[31m",
        "controller": ["x"],
        "playbook": "p" * 3000,
        "run": "\u202er",
        "process": 7,
    }
    Path(path_of(store)).write_text(json.dumps(data))
    found = read_lock(NOW, store)
    assert {name: found[name] for name in ("user", "controller", "run", "process")} == {
        "user": "al?ice?[31m",
        "controller": "",
        "run": "?r",
        "process": "",
    }
    assert len(found["playbook"]) == 120


def test_a_lock_of_the_first_format_is_read(store: str) -> None:
    Path(store).mkdir(mode=0o700)
    kept = Path(__file__).resolve().parents[3] / "formats/fleet_lock_1.json"
    Path(path_of(store)).write_bytes(kept.read_bytes())
    found = read_lock(NOW + 61, store)
    assert (found["user"], found["playbook"], found["age"]) == ("alice", "enable_tls", 60.75)
