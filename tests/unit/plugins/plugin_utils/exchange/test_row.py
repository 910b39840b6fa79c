"""The row of an Exchange server in the verdict."""

from __future__ import annotations

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Estate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.table import summarize
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.rows import verdict_rows


def row(expected, **facts):
    hostvars = {"ex1": {"starttls_kind": "exchange", **facts}}
    [found] = verdict_rows(["ex1"], hostvars, {"mail_servers": ["ex1"]}, Estate(("ex1",)).to_json(), expected=expected)
    return found


@pytest.mark.parametrize(
    ("kind", "after", "expected"),
    [
        ("exchange", "offered", "either"),  # its logins need STARTTLS, so it goes on offering that
        ("exchange", "disabled", "disabled"),
        ("postfix", "offered", "disabled"),
    ],
)
def test_what_is_expected_once_tls_is_off(kind, after, expected):
    read = {"kind": kind, "before": {"inbound": "offered"}, "after": {"inbound": after}}
    assert row("disabled", mail_server_observed=read)["expected"] == expected


def test_a_server_that_nobody_tested_does_not_pass():
    made = {"skipped": True, "msg": "no module in Python runs on an Exchange server"}
    found = row("offered", mail_server_observed={"kind": "exchange"}, verify_probe=made)
    assert (found["daemon"], found["probes"], found["errors"]) == ("Exchange Server", [], [])
    assert summarize(found)["verdict"] != "pass", summarize(found)
