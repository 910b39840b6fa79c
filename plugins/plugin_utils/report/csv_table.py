# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as CSV. Each host has a row for each handshake test, then one for each peer domain and direction of its log.

A row begins with what is known of the host. A host without either has that row alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.peers import levels
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import hops_over_tls, offers_starttls

COLUMNS = (
    "host",
    "daemon",
    "verdict",
    "errors",
    "warnings",
    "delivery_modes",
    "message_in",
    "message_out",
    "server",
    "seen_from",
    "peer",
    "peer_kind",
    "peer_level",
    "peer_result",
    "starttls",
    "tls_version",
    "cipher",
    "group",
    "trusted",
    "certificate",
    "serial",
    "fingerprint_sha256",
    "not_after",
    "days_left",
    "domain",
    "direction",
    "sender_tls",
    "recipient_tls",
    "messages_tls",
    "messages_plaintext",
    "messages_unknown",
    "sessions_tls",
    "sessions_plaintext",
    "sessions_unknown",
    "versions",
    "ciphers",
    "failures",
    "refusals",
    "deferrals",
    "reasons",
    "last_event",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


def render_csv(document: Mapping[str, Any]) -> str:
    """Return the document as CSV (RFC 4180)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in _rows(document):
        writer.writerow([harmless(row.get(column, "")) for column in COLUMNS])
    return out.getvalue()


def harmless(cell: Any) -> Any:
    """Return the cell with an apostrophe in front if a spreadsheet could read it as a formula."""
    if not isinstance(cell, str):
        return cell
    return f"'{cell}" if cell.lstrip(" \u00a0\ufeff").startswith(_FORMULA) else cell


def _rows(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for host in document["hosts"]:
        head = _head(host)
        peers = host["activity"]["peers"] if host["activity"] else []
        if not peers and not host["tests"] and not host["peers"]:
            yield head
        for test in host["tests"]:
            yield {**head, **_of_test(test)}
        for hop in host["peers"]:
            yield {**head, **_of_hop(host["host"], hop)}
        for peer in peers:
            events = [one for kind in ("failures", "refusals", "deferrals") for one in peer[kind]]
            sender, recipient = levels(host, peer)
            yield {
                **head,
                **{name: peer[name] for name in COLUMNS if isinstance(peer.get(name), (str, int))},
                "sender_tls": sender,
                "recipient_tls": recipient,
                "versions": _pairs(peer["versions"]),
                "ciphers": _pairs(peer["ciphers"]),
                **{kind: sum(one["count"] for one in peer[kind]) for kind in ("failures", "refusals", "deferrals")},
                "reasons": " ".join(dict.fromkeys(one["reason"] for one in events)),
                "last_event": max((one["last"] for one in events if one["last"]), default=""),
            }


def _head(host: Mapping[str, Any]) -> dict[str, Any]:
    severities = [one["severity"] for one in host["findings"]]
    return {
        **{name: host[name] for name in ("host", "daemon", "verdict")},
        "errors": severities.count("error"),
        "warnings": severities.count("warning"),
        "delivery_modes": "send_only" if host.get("send_only") else " ".join(host["delivery_modes"]),
        **{f"message_{one.get('direction')}": hops_over_tls(one) for one in host["traces"]},
    }


def _of_test(test: Mapping[str, Any]) -> dict[str, Any]:
    certificate = test["certificate"] or {}
    return {
        "server": f"{test['name']}:{test['port']}",
        "seen_from": test["seen_from"],
        "starttls": {True: "offered", False: "not offered", None: "unproven"}[offers_starttls(test)],
        **{name: _cell(test.get(name)) for name in ("tls_version", "cipher", "group", "trusted", "fingerprint_sha256")},
        "certificate": _cell(certificate.get("subject")),
        **{name: _cell(certificate.get(name)) for name in ("serial", "not_after", "days_left")},
    }


def _of_hop(host: str, hop: Mapping[str, Any]) -> dict[str, Any]:
    certificate = hop["certificate"] or {}
    return {
        "server": hop["server"],
        "seen_from": host,
        "direction": hop["direction"],
        "peer": hop["name"],
        **{f"peer_{name}": hop[name] for name in ("kind", "level", "result")},
        "starttls": {True: "offered", False: "not offered", None: "unproven"}[hop["starttls"]],
        "tls_version": hop["tls_version"],
        "trusted": _cell(hop["trusted"]),
        "certificate": _cell(certificate.get("subject")),
        **{name: _cell(certificate.get(name)) for name in ("serial", "fingerprint_sha256", "not_after", "days_left")},
    }


def _cell(value: Any) -> Any:
    """Return a value of a test as a cell; an empty one for what is unknown."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, (str, int, float)) else ""


def _pairs(table: Mapping[str, int]) -> str:
    return " ".join(f"{name}:{count}" for name, count in sorted(table.items(), key=lambda item: -item[1]))
