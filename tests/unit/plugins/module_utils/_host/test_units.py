import os

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import units
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.units import not_running, start_again, unit_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, NotRunningError

UNIT = "postfix@-.service"


@pytest.mark.parametrize(
    ("lines", "unit"),
    [
        ("0::/system.slice/exim4.service\n", "exim4.service"),
        ("0::/system.slice/system-postfix.slice/postfix@-.service\n", UNIT),
        (
            "9:name=systemd:/box/box-1/system.slice/postfix.service\n8:pids:/box/box-1\n0::/box/box-1\n",
            "postfix.service",
        ),
        ("0::/user.slice/user-0.slice/user@0.service/app.slice/mail.service\n", "mail.service"),
        ("0::/system.slice/docker-12.scope\n", ""),
        ("0::/\n", ""),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_the_unit_of_a_process(tmp_path, lines, unit):
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text(lines)
    assert unit_of(7, str(tmp_path)) == unit


def test_a_process_that_is_not_there():
    assert unit_of(None) == unit_of(1 << 30) == ""
    assert isinstance(unit_of(os.getpid()), str)


class Systemd:
    """Answers systemctl: the states that it goes through, and what starting says."""

    def __init__(self, *states, loaded="loaded", fails=""):
        self.states, self.loaded, self.fails = list(states), loaded, fails
        self.calls = []

    def __call__(self, words):
        self.calls.append(words[1])
        if words[1] != "show":
            return (1, "", self.fails) if self.fails and words[1] in ("start", "restart") else (0, "", "")
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return 0, f"LoadState={self.loaded}\nActiveState={state}\nSubState=whatever\n", ""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(units.time, "sleep", lambda _seconds: None)


@pytest.mark.parametrize(
    ("states", "calls"),
    [
        (["failed"], ["show", "reset-failed", "start"]),
        (["deactivating", "deactivating", "failed"], ["show"] * 3 + ["reset-failed", "start"]),
        (["active"], ["show", "reset-failed", "restart"]),  # Exim's unit in Debian 12
    ],
)
def test_a_daemon_that_has_ended_by_itself_is_started(states, calls):
    systemd = Systemd(*states)
    start_again(systemd, UNIT, "Postfix")
    assert systemd.calls == calls


@pytest.mark.parametrize("states", [["inactive"], ["deactivating", "inactive"]])
def test_one_that_somebody_has_stopped_stays_stopped(states):
    systemd = Systemd(*states)
    with pytest.raises(
        NotRunningError, match=f"Postfix is not running: somebody has stopped {UNIT}; start it, then run"
    ):
        start_again(systemd, UNIT, "Postfix")
    assert set(systemd.calls) == {"show"}


def test_one_that_does_not_start():
    systemd = Systemd("failed", fails="Job for it failed.\n")
    with pytest.raises(
        EngineError, match=r"Postfix has ended and does not start again: .*Job for it failed\.; see its log"
    ):
        start_again(systemd, UNIT, "Postfix")


@pytest.mark.parametrize("unit", ["", "--help", "a b.service", "x.service\n"])
def test_a_unit_that_is_not_known(unit):
    systemd = Systemd("failed")
    with pytest.raises(NotRunningError, match="no unit of systemd is known"):
        start_again(systemd, unit, "Postfix")
    assert systemd.calls == []


@pytest.mark.parametrize("loaded", ["not-found", "masked"])
def test_a_unit_that_is_gone(loaded):
    with pytest.raises(NotRunningError, match="does not know"):
        start_again(Systemd("failed", loaded=loaded), UNIT, "Postfix")


@pytest.mark.parametrize("answer", [(1, "", "no bus"), FileNotFoundError()])
def test_without_systemd(answer):
    def run(_words):
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(NotRunningError, match="systemd cannot be asked about it; start it"):
        start_again(run, UNIT, "Postfix")


def test_a_unit_that_never_settles(monkeypatch):
    monkeypatch.setattr(units, "SETTLE_SECONDS", 0.0)
    with pytest.raises(NotRunningError):
        start_again(Systemd("activating"), UNIT, "Postfix")


@pytest.mark.parametrize("how", ["link", "empty file"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_masked_unit_is_the_cause(tmp_path, monkeypatch, how, place):
    """The advice to start it is of no use then."""
    places = [tmp_path / "etc", tmp_path / "run"]
    monkeypatch.setattr(units, "PLACES", tuple(map(str, places)))
    for one in places:
        one.mkdir()
    (places[0] / "postfix.service").write_text("[Service]\n")
    masked = places[place] / UNIT
    masked.symlink_to("/dev/null") if how == "link" else masked.touch()
    error = not_running("Postfix", ("postfix.service", UNIT))
    assert str(error) == (
        f"Postfix is not running: the unit {UNIT} is masked; allow it and start it: systemctl unmask {UNIT}; systemctl start {UNIT}"
    )
    masked.unlink()
    assert str(not_running("Postfix", ("postfix.service", UNIT), " (no process)")) == (
        "Postfix is not running (no process); start it first, because a change is proved by its own port"
    )
