"""Each case from the field (tests/cases), through the public modules and plugins, compared exactly with expected.json."""

import json
import time

import pytest

from tests.support import field_cases, field_host
from tests.support.field_cases import Material

NOT_RIGHT: dict[str, tuple[str, ...]] = {
    "F01": (
        "logs-F01-L10-F01_filter_stuck",
        "hosts-F01-P03-3",
        "hosts-F01-P05",
        "hosts-F01-P04-3",
        "hosts-F01-P04-4",
        "hosts-F01-P04-5",
    ),
    "F02": (
        "certificates-F02-C31",
        "servers-F02-S24",
    ),
    "F03": (
        "hosts-F03-P06",
        "hosts-F03-P06-4",
    ),
    "F04": (
        "hosts-F04-P09-2",
        "hosts-F04-P10-2",
    ),
    "F05": ("logs-F05-L25-F05_postfix_311",),
    "F06": ("logs-F06-L33-F06_exim_close_notify",),
    "F10": (
        "logs-F10-L59-rfc3339",
        "logs-F10-L59",
    ),
    "F11": (
        "tlsrpt-F11-T05-detail-members-null",
        "tlsrpt-F11-T24-gzip-ctype-noext",
        "tlsrpt-F11-T07-mixed-no-policy-domain",
        "tlsrpt-F11-T06-no-policy-domain",
        "tlsrpt-F11-T24-octet-nofile",
        "tlsrpt-F11-T08-v-count-string",
        "tlsrpt-F11-T10-v-no-failure-summary",
        "tlsrpt-F11-T09-v-type-upper",
    ),
    "F12": (
        "logs-F12-L15-F12_postfix_wordings",
        "logs-F12-L21-F12_postfix_wordings",
        "logs-F12-L23-F12_refusals",
        "logs-F12-L40-F12_exim_499",
    ),
    "F13": ("logs-F13-L02-F13_postscreen_tlsproxy",),
    "F14": ("logs-F14-L28-F14_port_logging",),
    "F15": (
        "logs-F15-bokysan-json",
        "logs-F15-bokysan-plain",
        "logs-F15-compose-prefix",
        "logs-F15-crlf",
        "logs-F15-docker-no-header",
        "logs-F15-freebsd-v",
        "logs-F15-iso-space-tz",
        "logs-F15-iso-space",
        "logs-F15-journal-short-full",
        "logs-F15-journal-short-iso-old",
        "logs-F15-journal-short-precise",
        "logs-F15-k8s-cri",
        "logs-F15-msg-repeated",
        "logs-F15-pri",
        "logs-F15-rsyslog-two-hosts",
        "logs-F15-year-bsd",
    ),
    "F16": (
        "logs-F16-L45-F16_exim_reasons",
        "logs-F16-L47-F16_exim_reasons",
        "logs-F16-L48-F16_exim_reasons",
        "logs-F16-L47-F16_exim_reasons-2",
        "logs-F16-F16_exim_reasons",
        "logs-F16-L49-F16_exim_reasons",
        "logs-F16-F16_exim_reasons-2",
        "logs-F16-F16_exim_reasons-3",
    ),
    "F17": (
        "certificates-F17-C26",
        "certificates-F17",
        "certificates-F17-3",
        "servers-F17-S27",
    ),
    "F18": ("servers-F18-S14",),
    "F19": (
        "certificates-F19-C11",
        "certificates-F19-C33",
        "servers-F19-S20",
        "servers-F19-S21",
        "servers-F19-S17",
    ),
    "F20": (
        "certificates-F20-C21",
        "servers-F20-S26",
    ),
    "F21": (
        "hosts-F21-P12-3",
        "hosts-F21-P12-4",
    ),
    "F23": (
        "hosts-F23-P13-3",
        "hosts-F23-P13-4",
    ),
    "F24": ("hosts-F24-P16-2",),
}
"""Kind -> the cases of it that are not right yet. A mend takes its cases out."""


LISTENERS = json.loads((field_cases.CASES / "postfix_listeners.json").read_text())
"""What Postfix 3.7.11 and 3.10.13 did with each configuration, and with a certificate and the level may in main.cf."""

WAITS = ("servers-F19-S17", "hosts-F04-P10-2", "hosts-F23-P13-3")
"""Cases that wait for a time limit, which is in whole seconds. Those of hosts no longer do so once they are right: then they go."""


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
