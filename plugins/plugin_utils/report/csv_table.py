# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as CSV: a row for each host, peer domain and direction. A host without activity has one row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.peers import levels

COLUMNS = (
    "host",
    "daemon",
    "verdict",
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
        head = {name: host[name] for name in ("host", "daemon", "verdict")}
        peers = host["activity"]["peers"] if host["activity"] else []
        if not peers:
            yield head
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


def _pairs(table: Mapping[str, int]) -> str:
    return " ".join(f"{name}:{count}" for name, count in sorted(table.items(), key=lambda item: -item[1]))
