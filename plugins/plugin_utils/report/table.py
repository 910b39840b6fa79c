# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of tls_verdict: one row for each host, and the findings below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.places import looked, tested_from
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import (
    findings_of,
    network_hops,
    offers_starttls,
    one_line,
    render_table,
    tls_of,
    verdict_of,
)

HEADINGS = {
    "host": "HOST",
    "daemon": "DAEMON",
    "starttls": "STARTTLS",
    "tls_version": "TLS",
    "certificate": "CERTIFICATE",
    "days_left": "DAYS LEFT",
    "trusted": "TRUSTED",
    "delivery_mode": "DELIVERY MODE",
    "messages": "MESSAGES",
    "tested_from": "TESTED FROM",
    "verdict": "VERDICT",
}


def fleet_verdict(
    rows: Sequence[dict[str, Any]], title: str, fail_on: str, not_in_run: Sequence[str] = ()
) -> tuple[dict[str, Any], str]:
    """Return the result of tls_verdict, and the text to show: title, table, the hosts of not_in_run, and the findings of each host.

    rows have the form that summarize() takes. Raises EngineError if there is no row, or if a row lacks its host name.
    """
    if not all(isinstance(row.get("host"), str) for row in rows):
        raise EngineError("each of rows needs the name of its host")
    if not rows:
        raise EngineError("there is no host to give a verdict on")
    shown = [summarize(row, fail_on) for row in rows]
    passed = sum(row["verdict"].startswith("pass") for row in shown)
    table = render_table(HEADINGS, shown)
    result = {
        "changed": False,
        "failed": passed < len(shown),
        "msg": f"{passed} of {len(shown)} hosts pass",
        "table": table,
        "rows": shown,
    }
    outside = (
        [one_line(f"Not in this run, so nothing is said of them: {', '.join(map(str, not_in_run))}")]
        if not_in_run
        else []
    )
    return result, "\n".join([title, "", table, *outside, *_lines(shown)])


def _lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = [(row["host"], one) for row in rows for one in row["findings"]]
    lines = [one_line(f"{host}: {one['severity']}: {one['message']}") for host, one in found]
    return ["", *lines] if lines else []


def summarize(row: dict[str, Any], fail_on: str = "error") -> dict[str, Any]:
    """Return one row of the table from the results of a host: handshake tests, traces, delivery modes.

    Uses C(host), C(daemon), C(expected) (V(offered), V(disabled) or V(either)), C(probes) (results of starttls_probe),
    C(traces) (of message_trace), C(errors) (text), C(findings) (of the host as a whole), C(not_seen_from) (places that did not
    test it) and C(delivery_modes).
    """
    probes = row.get("probes") or []
    traces = row.get("traces") or []
    findings = findings_of(row)
    first: dict[str, Any] = next((one for one in probes if looked(one)), {})
    certificate = first.get("certificate") or {}
    return {
        "host": row["host"],
        "daemon": row.get("daemon", ""),
        "starttls": _offered(first),
        "tls_version": first.get("tls_version"),
        "certificate": certificate.get("subject"),
        "days_left": certificate.get("days_left"),
        "trusted": first.get("trusted"),
        "delivery_mode": row.get("delivery_modes") or [],
        "messages": _messages(traces),
        "tested_from": tested_from(row["host"], probes, row.get("not_seen_from") or ()),
        "verdict": _verdict(findings, fail_on),
        "findings": findings,
    }


def _offered(probe: dict[str, Any]) -> str:
    return {True: "offered", False: "not offered", None: ""}[offers_starttls(probe)]


def _verdict(findings: list[dict[str, Any]], fail_on: str) -> str:
    verdict = verdict_of(findings, fail_on)
    warnings = sum(one["severity"] == "warning" for one in findings)
    return f"pass, {warnings} warning{'s' if warnings > 1 else ''}" if verdict == "pass" and warnings else verdict


def _messages(traces: list[dict[str, Any]]) -> str:
    def one(trace: dict[str, Any]) -> str:
        if not trace["arrived"]:
            return f"{trace.get('direction')} lost"
        used = [tls_of(hop) for hop in network_hops(trace)]
        unproven = f", {used.count(None)} unproven" if None in used else ""
        return f"{trace.get('direction')} {used.count(True)}/{len(used)} TLS{unproven}"

    return ", ".join(map(one, traces))
