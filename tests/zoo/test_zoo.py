"""The whole zoo in one call: every animal gets its verdict, in time, and nothing else is said of it."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, handshake_one
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target

from tests.zoo.animals import TIMEOUT, TOTAL_TIMEOUT, ZOO, Animal
from tests.zoo.certificates import NAME
from tests.zoo.conftest import CALLS, Entries, Play, Zoo, named, of_severity

STARTUP = 60.0
"""Seconds that Ansible itself may take on a busy machine."""
MEMORY = 1 << 20
"""Bytes for one target, without what OpenSSL keeps to itself."""
each_animal = pytest.mark.parametrize("animal", ZOO, ids=lambda animal: animal.name)


def test_the_names_are_unique() -> None:
    names = [animal.name for animal in ZOO]
    assert sorted(set(names)) == sorted(names)


def test_the_calls_end_in_time(play: Play) -> None:
    assert play.seconds < STARTUP + len(CALLS) * TOTAL_TIMEOUT


@each_animal
def test_verdict(probed: Entries, animal: Animal) -> None:
    entry = probed[animal.name]
    assert (entry["stage"], entry["code"]) == (animal.stage, animal.code), entry["message"]
    said = {severity: of_severity(entry, severity) for severity in ("error", "warning", "notice")}
    assert said == animal.findings, entry["findings"]
    assert entry["passed"] == (not animal.findings["error"])


@each_animal
def test_more_of_the_result(probed: Entries, animal: Animal) -> None:
    entry = probed[animal.name]
    assert {key: entry[key] for key in animal.also} == dict(animal.also)


@each_animal
def test_time(probed: Entries, animal: Animal) -> None:
    """Of a busy machine the good server beside it has the same share."""
    assert probed[animal.name]["seconds"] < animal.seconds + probed["good"]["seconds"]


@pytest.mark.parametrize(
    "name",
    [
        "greeting that never ends",
        "line of a megabyte",
        "bytes without a line",
        "capabilities without end",
        "endless inside TLS",
        "900 names in the certificate",
    ],
)
def test_memory_is_bounded(zoo: Zoo, name: str) -> None:
    """Alone, the endless get the same verdict, and no more than some buffers."""
    animal = named(name)
    settings = Settings(ca_pem=zoo.keeper.authority.root_pem.decode(), timeout=TIMEOUT, total_timeout=TOTAL_TIMEOUT)
    target = Target("127.0.0.1", zoo.ports[name], NAME)
    handshake_one(Target("127.0.0.1", zoo.ports["good"], NAME), settings)  # what is made once is made
    tracemalloc.start()
    try:
        seen = handshake_one(target, settings)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (seen.stage.label, seen.code) == (animal.stage, animal.code)
    assert peak < MEMORY


@each_animal
def test_nothing_unprintable_is_said(probed: Entries, animal: Animal) -> None:
    def texts(value: object) -> list[str]:
        if isinstance(value, dict):
            return [text for one in value.values() for text in texts(one)]
        if isinstance(value, list):
            return [text for one in value for text in texts(one)]
        return [value] if isinstance(value, str) else []

    entry = {key: value for key, value in probed[animal.name].items() if key != "chain_pem"}
    for text in texts(entry):
        assert text.isascii() and text.isprintable(), text
        assert len(text) < 20_000


@pytest.mark.parametrize("animal", [one for one in ZOO if one.code or one.errors], ids=lambda animal: animal.name)
def test_a_finding_says_what_to_do(probed: Entries, animal: Animal) -> None:
    for finding in probed[animal.name]["findings"]:
        what, _, advice = finding["message"].partition("; ")
        assert what and advice, finding


@each_animal
def test_survey(surveyed: Entries, animal: Animal) -> None:
    entry = surveyed[animal.name]
    expected = animal.findings["error"] if animal.surveyed is None else set(animal.surveyed.split())
    assert of_severity(entry, "error") == expected, entry["findings"]
    assert entry["seconds"] < animal.seconds + surveyed["good"]["seconds"]


@pytest.mark.parametrize(
    ("severity", "passing"), [("warning", {"good", "TLS 1.2 only"}), ("notice", {"good"})], ids=["warning", "notice"]
)
def test_fail_on_moves_the_line(play: Play, severity: str, passing: set[str]) -> None:
    entries = play.calls[f"fail_on {severity}"]
    assert {name for name, entry in entries.items() if entry["passed"]} == passing


def test_a_minimum_is_one(play: Play) -> None:
    entries = play.calls["TLS 1.3"]
    assert {name for name, entry in entries.items() if "old_tls" in of_severity(entry, "error")} == {"TLS 1.2 only"}


def test_a_chain_that_is_only_trusted_here(play: Play) -> None:
    (entry,) = play.calls["known intermediate"].values()
    assert (entry["trusted"], entry["passed"]) == (True, True)
    assert of_severity(entry, "warning") == {"incomplete_chain"}


def test_the_calls_leave_no_key_and_no_noise(play: Play) -> None:
    for word in ("Traceback", "DEPRECAT"):
        assert word not in play.output
    # A server that says nothing may be busy, and is asked once more.
    assert not [line for line in play.output.splitlines() if "WARNING" in line and "was busy" not in line]
    assert "PRIVATE KEY" not in json.dumps(play.calls)
