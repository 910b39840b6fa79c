# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as a file for the textfile collector of Prometheus' node exporter.

Other people choose some label values (peer domains, versions, ciphers), so their number is limited. The busiest domains
have their own series. The series C(other) is the sum of the rest. Domains of TLS reports are the inventory's; the first
ones by name have their own series, because strangers choose every number in a report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import OTHER
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import SEVERITIES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.places import looked
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.peers import merged
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import offers_starttls

_PREFIX = "mailfleet_starttls"
MAX_DOMAINS = 50
_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
HELP = {
    "report_generated_timestamp_seconds": "When the report was made.",
    "host_passed": "Whether the host passes (1) or has findings that fail it (0).",
    "host_findings": "Findings on the host, by severity.",
    "test_passed": "Whether the handshake test found nothing that fails.",
    "test_starttls_offered": "Whether the server offered STARTTLS; missing if it did not answer EHLO.",
    "test_duration_seconds": "Duration of the handshake test.",
    "certificate_expiry_timestamp_seconds": "When the served certificate expires.",
    "peer_proved": "Whether a peer accepted a recipient over TLS from the mail server (1), or refused (0); missing if that was not tested.",
    "peer_certificate_expiry_timestamp_seconds": "When the certificate that the peer served expires.",
    "alerts": "Alerts, by code, severity and the side of the cause.",
    "window_messages": "Messages in the window of the report.",
    "window_sessions": "SMTP sessions in the window of the report.",
    "window_sessions_by_version": "SMTP sessions over TLS in the window of the report, by version.",
    "window_events": "TLS failures, refusals and deferrals in the window of the report.",
    "window_peer_messages": f"Messages in the window with the {MAX_DOMAINS} busiest peer domains; the rest is 'other'.",
    "tlsrpt_sessions": "Sessions with own domains in received TLS reports (RFC 8460), by result.",
}
"""Metric without its prefix -> help text. Each metric is a gauge, because the window moves and values can fall."""


class Sample(NamedTuple):
    """One value. metric is a key of HELP."""

    metric: str
    value: float
    labels: dict[str, str]


def render_prometheus(document: Mapping[str, Any]) -> str:
    """Return the document in Prometheus' text format."""
    series: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for metric, value, labels in _samples(document):
        # Two tests may have the same labels. Then one series keeps the worst value or the sum.
        values = series.setdefault(metric, {})
        key = tuple(labels.items())
        values[key] = _merge(metric, values[key], value) if key in values else value
    lines = []
    for metric, text in HELP.items():
        if metric in series:
            lines += [f"# HELP {_PREFIX}_{metric} {text}", f"# TYPE {_PREFIX}_{metric} gauge"]
            lines += [f"{_PREFIX}_{metric}{_labels(key)} {_number(value)}" for key, value in series[metric].items()]
    return "\n".join(lines) + "\n"


def _merge(metric: str, one: float, other: float) -> float:
    if metric.startswith("window_") or metric == "tlsrpt_sessions":
        return one + other
    return max(one, other) if metric == "test_duration_seconds" else min(one, other)


def _samples(document: Mapping[str, Any]) -> Iterator[Sample]:
    yield Sample("report_generated_timestamp_seconds", _seconds(document["generated_at"]) or 0, {})
    for host in document["hosts"]:
        name = {"host": host["host"]}
        yield Sample("host_passed", host["verdict"] == "pass", {**name, "daemon": host["daemon"]})
        for severity in SEVERITIES:
            count = sum(one["severity"] == severity for one in host["findings"])
            yield Sample("host_findings", count, {**name, "severity": severity})
        for test in host["tests"]:
            labels = {**name, "server": f"{test['name']}:{test['port']}", "seen_from": test["seen_from"]}
            yield from _of_test(test, labels)
        for hop in host["peers"]:
            yield from _of_hop(hop, {**name, "peer": hop["name"], "server": hop["server"], "level": hop["level"]})
        if host["activity"]:
            yield from _of_activity(host["activity"]["totals"], name)
    counted: dict[tuple[str, str, str], int] = {}
    for alert in document["alerts"]:
        key = alert["code"], alert["severity"], alert["cause"]
        counted[key] = counted.get(key, 0) + 1
    for (code, severity, cause), count in sorted(counted.items()):
        yield Sample("alerts", count, {"code": code, "severity": severity, "cause": cause})
    for rank, peer in enumerate(merged(document["hosts"])):
        domain = peer.domain if rank < MAX_DOMAINS and peer.domain else OTHER
        for direction, side in (("inbound", peer.sender), ("outbound", peer.recipient)):
            for transport, value in (("tls", side.tls), ("plaintext", side.plaintext), ("unproven", side.unknown)):
                yield Sample(
                    "window_peer_messages", value, {"domain": domain, "direction": direction, "transport": transport}
                )
    domains = sorted({one["domain"] for one in document["tls_reports"]})[:MAX_DOMAINS]
    for report in document["tls_reports"]:
        domain = report["domain"] if report["domain"] in domains else OTHER
        for result in ("successful", "failed"):
            yield Sample("tlsrpt_sessions", report[result], {"domain": domain, "result": result})


def _of_test(test: Mapping[str, Any], labels: dict[str, str]) -> Iterator[Sample]:
    if not looked(test):
        return
    yield Sample("test_passed", test["passed"], labels)
    offered = offers_starttls(test)
    if offered is not None:
        yield Sample("test_starttls_offered", offered, labels)
    if isinstance(test.get("seconds"), (int, float)):
        yield Sample("test_duration_seconds", test["seconds"], labels)
    end = _seconds((test["certificate"] or {}).get("not_after"))
    if end is not None:
        yield Sample("certificate_expiry_timestamp_seconds", end, labels)


def _of_hop(hop: Mapping[str, Any], labels: dict[str, str]) -> Iterator[Sample]:
    if hop["result"] in ("proved", "failed"):
        yield Sample("peer_proved", hop["result"] == "proved", labels)
    end = _seconds((hop["certificate"] or {}).get("not_after"))
    if end is not None:
        yield Sample("peer_certificate_expiry_timestamp_seconds", end, labels)


def _of_activity(totals: Mapping[str, Any], name: dict[str, str]) -> Iterator[Sample]:
    for direction, counts in totals.items():
        labels = {**name, "direction": direction}
        for what in ("messages", "sessions"):
            for transport, name_of in (("tls", "tls"), ("plaintext", "plaintext"), ("unproven", "unknown")):
                yield Sample(f"window_{what}", counts[f"{what}_{name_of}"], {**labels, "transport": transport})
        for version, count in counts["versions"].items():
            known = version if version in _VERSIONS else OTHER
            yield Sample("window_sessions_by_version", count, {**labels, "version": known})
        for kind in ("failures", "refusals", "deferrals"):
            yield Sample("window_events", sum(one["count"] for one in counts[kind]), {**labels, "kind": kind})


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _seconds(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None
