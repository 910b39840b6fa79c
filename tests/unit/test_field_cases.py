"""Each case from the field (tests/cases), through the public modules and plugins, compared exactly with expected.json."""

import json
import time

import pytest

from tests.support import field_cases, field_host
from tests.support.field_cases import Material

NOT_RIGHT: dict[str, tuple[str, ...]] = {}
"""Kind -> the cases of it that are not right yet. A mend takes its cases out."""


LISTENERS = json.loads((field_cases.CASES / "postfix_listeners.json").read_text())
"""What Postfix 3.7.11 and 3.10.13 did with each configuration, and with a certificate and the level may in main.cf."""

WAITS = ("servers-F19-S17",)
"""Cases that wait for a time limit, which is in whole seconds."""


def _parameters():
    wrong = {name: kind for kind, names in NOT_RIGHT.items() for name in names}
    for section, name, row in field_cases.rows():
        marks = [pytest.mark.xfail(strict=True, reason=f"{wrong[name]} is not mended")] if name in wrong else []
        marks += [pytest.mark.exhaustive] if name in WAITS else []
        yield pytest.param(section, row, id=name, marks=marks)


def test_every_case_that_is_not_right_is_one():
    named = [name for names in NOT_RIGHT.values() for name in names]
    assert set(named) <= {name for _section, name, _row in field_cases.rows()}
    assert len(field_cases.rows()) == 145


@pytest.fixture
def in_utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield monkeypatch
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("changed", [False, True], ids=["before", "changed"])
@pytest.mark.parametrize("directory", LISTENERS)
def test_the_listeners_without_a_daemon_do_what_those_of_a_real_postfix_did(directory, changed, authority, tmp_path):
    seen = LISTENERS[directory]["changed" if changed else "before"]
    assert field_host.served(f"postfix/{directory}", tmp_path, authority, changed) == seen


@pytest.mark.parametrize(("section", "row"), [*_parameters()])
def test_case(section, row, authority, tmp_path, in_utc):
    if section == "headers":
        reason = field_cases.headers(row, tmp_path)
    elif section == "logs":
        reason = field_cases.logs(row, tmp_path, in_utc)
    elif section == "tlsrpt":
        reason = field_cases.tlsrpt(row, tmp_path)
    elif section == "certificates":
        reason = field_cases.certificates(row, Material(authority, tmp_path))
    elif section == "servers":
        reason = field_cases.servers(row, Material(authority, tmp_path), in_utc)
    else:
        reason = field_host.hosts(row, tmp_path, authority)
    assert not reason, reason
