# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tls_verdict runs on the controller only: it shows a table and fails where a host did not pass."""

from __future__ import annotations

from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import (
    SEVERITIES,
    failing,
    findings_of,
    one_line,
    render_table,
)

COLUMNS = {
    "host": "HOST",
    "daemon": "DAEMON",
    "starttls": "STARTTLS",
    "tls_version": "TLS",
    "certificate": "CERTIFICATE",
    "days_left": "DAYS LEFT",
    "trusted": "TRUSTED",
    "delivery_mode": "DELIVERY MODE",
    "messages": "MESSAGES",
    "verdict": "VERDICT",
}


class ActionModule(ActionBase):
    """Shows one row for each host, then the findings of those that failed."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """See ActionBase."""
        super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(
            argument_spec={
                "rows": {"type": "list", "elements": "dict", "required": True},
                "title": {"type": "str", "default": "TLS on the mail fleet"},
                "fail_on": {"type": "str", "choices": list(SEVERITIES), "default": "error"},
            }
        )
        if not all(isinstance(row.get("host"), str) for row in options["rows"]):
            raise AnsibleActionFail("each of rows needs the name of its host")
        rows = [summarize(row, options["fail_on"]) for row in options["rows"]]
        if not rows:
            raise AnsibleActionFail("there is no host to give a verdict on")
        failed = [row for row in rows if row["verdict"] == "FAIL"]
        table = render_table(COLUMNS, rows)
        lines = [options["title"], "", table]
        found = [(row["host"], finding) for row in rows for finding in row["findings"]]
        if found:
            lines += ["", *(one_line(f"{host}: {one['severity']}: {one['message']}") for host, one in found)]
        Display().display("\n" + "\n".join(lines) + "\n")
        return {
            "changed": False,
            "failed": bool(failed),
            "msg": f"{len(rows) - len(failed)} of {len(rows)} hosts pass",
            "table": table,
            "rows": rows,
        }


def summarize(row: dict[str, Any], fail_on: str = "error") -> dict[str, Any]:
    """One row of the table from what was gathered on a host: handshake tests, traces, delivery modes.

    Takes C(host), C(daemon), C(expected) (V(offered), V(disabled) or V(either)), C(probes) (results of
    starttls_probe), C(traces) (of message_trace), C(errors) (text) and C(delivery_modes).
    """
    probes = row.get("probes") or []
    traces = row.get("traces") or []
    findings = findings_of(row)
    first = probes[0] if probes else {}
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
        "verdict": _verdict(findings, fail_on),
        "findings": findings,
    }


def _offered(probe: dict[str, Any]) -> str:
    if probe.get("starttls_advertised"):
        return "offered"
    return "not offered" if probe.get("stage") == "ehlo" else ""  # who did not answer EHLO did not say


def _verdict(findings: list[dict[str, Any]], fail_on: str) -> str:
    if failing(findings, fail_on):
        return "FAIL"
    warnings = sum(one["severity"] == "warning" for one in findings)
    return f"pass, {warnings} warning{'s' if warnings > 1 else ''}" if warnings else "pass"


def _messages(traces: list[dict[str, Any]]) -> str:
    def one(trace: dict[str, Any]) -> str:
        if not trace["arrived"]:
            return f"{trace.get('direction')} lost"
        hops = [hop for hop in trace["hops"] if hop["network"]]
        return f"{trace.get('direction')} {sum(hop['tls'] for hop in hops)}/{len(hops)} TLS"

    return ", ".join(map(one, traces))
