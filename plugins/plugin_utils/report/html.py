# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as one HTML page without external resources: no script, no font, no image.

This file selects the content of the page and limits its amount. page.html.j2 and page.css define the layout. The
template escapes all text. The page's Content Security Policy allows the style sheet by its hash and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import of_group
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.places import looked
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report import peers as peer_domains
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.document import peer_name, warnings_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import hops_over_tls, offers_starttls
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

HERE = Path(__file__).parent
ALERTS_SHOWN, ALERTS_FOLDED = 8, 192
ALERTS_ALIKE, ALIKE_SHOWN, ALIKE_FOLDED = 4, 3, 97
"""From ALERTS_ALIKE alerts of one kind on, the page groups them. ALIKE_SHOWN are shown at once, ALIKE_FOLDED can be unfolded."""
BARS_SHOWN = 20
HOSTS_SHOWN, HOSTS_FOLDED = 40, 460
PEERS_SHOWN, PEERS_FOLDED = 25, 275
REPORTS_SHOWN = 40
NOTES_SHOWN = 5
FINDINGS_SHOWN = 4
DAYS_SCALE = 90
"""The number of days left at which a certificate's bar is full."""
_WEAK = ("TLSv1", "TLSv1.1", "SSLv3", "SSLv2")
_CELL_LENGTH = 160


class Share(NamedTuple):
    """The share of TLS. percent is rounded down, so it is 100 only if all is proved to be TLS. unknown: what is unproven."""

    tls: int
    plaintext: int
    unknown: int = 0

    @property
    def total(self) -> int:
        """The count over TLS, in plaintext, and of what is unproven."""
        return self.tls + self.plaintext + self.unknown

    @property
    def percent(self) -> float:
        """The share of TLS in percent, with one decimal digit, rounded down."""
        return self.tls * 1000 // self.total / 10 if self.total else 0.0

    @property
    def rest(self) -> float:
        """The rest of the bar, in percent."""
        return round(100 - self.percent, 1)

    @property
    def open(self) -> float:
        """The part of the rest that is unproven, in percent."""
        return round(self.rest * self.unknown / (self.plaintext + self.unknown), 1) if self.unknown else 0.0

    @property
    def plain(self) -> float:
        """The part of the rest that is plaintext, in percent."""
        return round(self.rest - self.open, 1) if self.plaintext else 0.0

    @property
    def counts(self) -> str:
        """What is not TLS, or that all is, as text for users."""
        plain = f"{_number(self.plaintext)} of {_number(self.total)} plain" if self.plaintext else ""
        unproven = f"{_number(self.unknown)} of {_number(self.total)} unproven" if self.unknown else ""
        return ", ".join(filter(None, (plain, unproven))) or f"all {_number(self.total)}"

    @property
    def text(self) -> str:
        """The share as text for users."""
        if self.tls or self.plaintext:
            return f"{self.percent:g} %"
        return "unproven" if self.unknown else "no mail"


class Folded(NamedTuple):
    """A long list: the items that are shown at once, those that can be unfolded, and the number of the others."""

    shown: Sequence[Any]
    folded: Sequence[Any]
    left: int

    @classmethod
    def cut(cls, items: Sequence[Any], shown: int, folded: int) -> Folded:
        """Cut the list. If only a few items are left after the shown ones, all are shown."""
        if len(items) <= shown * 5 // 4:
            shown = len(items)
        return cls(items[:shown], items[shown : shown + folded], max(0, len(items) - shown - folded))


def render_html(document: Mapping[str, Any]) -> str:
    """Return the document as an HTML page."""
    _licence, _, style = (HERE / "page.css").read_text(encoding="utf-8").partition("*/\n")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # The style sheet is a file of this collection, so it is the only text that is not escaped.
    return _template().render(style=Markup(style), style_hash=digest, **_view(document))  # noqa: S704  (this file's own style sheet)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = _number
    environment.filters["moment"] = _moment
    environment.filters["cut"] = _cut
    environment.filters["breakable"] = _breakable
    return environment.get_template("page.html.j2")


def _view(document: Mapping[str, Any]) -> dict[str, Any]:
    hosts = sorted(document["hosts"], key=lambda one: (one["verdict"] == "pass", one["host"]))
    summary = document["summary"]
    peers = peer_domains.merged(hosts)
    has_activity = any(host["activity"] for host in hosts)
    certificates = _certificates(hosts)
    return {
        "document": document,
        "summary": summary,
        "codes": {one.code: one.title for one in of_group("alert")},
        "severity": _severity(document),
        "warnings": warnings_of(document["hosts"]),
        "messages": {
            direction: Share(counts["tls"], counts["plaintext"], counts["unknown"])
            for direction, counts in summary["messages"].items()
        },
        "has_activity": has_activity,
        "alerts": Folded.cut(_alike(document["alerts"]), ALERTS_SHOWN, ALERTS_FOLDED),
        "shares": Folded.cut(_shares(hosts), BARS_SHOWN, 0),
        "versions": _bars(hosts, "versions"),
        "ciphers": _bars(hosts, "ciphers"),
        "certificates": Folded.cut(certificates, BARS_SHOWN, 0),
        "hosts": Folded.cut([_host(one) for one in hosts], HOSTS_SHOWN, HOSTS_FOLDED),
        "peers": Folded.cut(peers, PEERS_SHOWN, PEERS_FOLDED),
        "peer_kinds": Counter(_kind(one) for one in peers),
        "reports": Folded.cut(
            sorted(document["tls_reports"], key=lambda one: (-one["failed"], one["domain"])), REPORTS_SHOWN, 0
        ),
        "notes": _notes(hosts)[:NOTES_SHOWN],
        "unproven": any(counts["unknown"] for counts in summary["messages"].values()),
        "truncated": [one["host"] for one in hosts if one["activity"] and one["activity"]["truncated"]],
    }


def _severity(document: Mapping[str, Any]) -> str:
    """Return the state of the whole report: C(error), C(warning) or C(good)."""
    if document["summary"]["failed"] or document["summary"]["alerts"]["error"]:
        return "error"
    return "warning" if document["summary"]["alerts"]["warning"] or warnings_of(document["hosts"]) else "good"


def _alike(alerts: Iterable[Mapping[str, Any]]) -> list[Folded]:
    """Return the alerts in their order. Many alerts of one kind form one group."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for alert in alerts:
        groups.setdefault((alert["code"], alert["severity"], alert["cause"]), []).append(alert)
    told: list[Folded] = []
    for group in groups.values():
        if len(group) < ALERTS_ALIKE:
            told += (Folded([one], [], 0) for one in group)
        else:
            told.append(Folded.cut(group, ALIKE_SHOWN, ALIKE_FOLDED))
    return told


def _shares(hosts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the share of TLS of each host and direction. Those with most plaintext messages come first."""
    rows = []
    for host in hosts:
        totals = host["activity"]["totals"] if host["activity"] else {}
        sides = [
            (direction, Share(counts["messages_tls"], counts["messages_plaintext"], counts["messages_unknown"]))
            for direction, counts in totals.items()
        ]
        sides = [(direction, share) for direction, share in sides if share.total]
        if sides:
            rows.append({"host": host["host"], "sides": sides})
    return sorted(rows, key=lambda row: (-sum(share.plaintext for _direction, share in row["sides"]), row["host"]))


def _notes(hosts: Iterable[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return the notes on missing log data with their hosts. The notes that concern most hosts come first."""
    found: dict[str, list[str]] = {}
    for host in hosts:
        for note in host["activity"]["notes"] if host["activity"] else ():
            message = str(note.get("message") or "")
            if message and host["host"] not in found.setdefault(message, []):
                found[message].append(host["host"])
    return sorted(found.items(), key=lambda item: -len(item[1]))


def _bars(hosts: Iterable[Mapping[str, Any]], what: str, most: int = 8) -> list[dict[str, Any]]:
    """Return bars for a table of names and counts over all hosts. percent is the share of the total."""
    counted: Counter[str] = Counter()
    for host in hosts:
        for counts in host["activity"]["totals"].values() if host["activity"] else ():
            counted.update(counts[what])
    total = sum(counted.values())
    names = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    bars = [
        {"name": name, "count": count, "percent": count * 1000 // total / 10, "weak": name in _WEAK}
        for name, count in names[:most]
        if count
    ]
    rest = sum(count for _name, count in names[most:])
    if rest:
        bars.append(
            {"name": f"{len(names) - most} others", "count": rest, "percent": rest * 1000 // total / 10, "weak": False}
        )
    return bars


def _certificates(hosts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the served certificates. The next one to expire comes first."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for host in hosts:
        for test in host["tests"]:
            certificate = test["certificate"] or {}
            days = certificate.get("days_left")
            if not isinstance(days, (int, float)) or isinstance(days, bool):
                continue
            key = host["host"], str(certificate.get("fingerprint_sha256") or certificate.get("subject"))
            state = "expired" if days < 0 else "urgent" if days < 7 else "soon" if days < 21 else "good"
            found.setdefault(
                key,
                {
                    "host": host["host"],
                    "subject": str(certificate.get("subject") or test["name"]),
                    "days": int(days),
                    "until": str(certificate.get("not_after") or "")[:10],
                    "width": round(max(1.0, min(100.0, days * 100 / DAYS_SCALE)), 1),
                    "state": state,
                },
            )
    return sorted(found.values(), key=lambda one: (one["days"], one["host"]))


def _host(host: Mapping[str, Any]) -> dict[str, Any]:
    tests = [one for one in host["tests"] if looked(one)]
    offered = [offers_starttls(test) for test in tests]
    days = [one["days"] for one in _certificates([host])]
    totals = host["activity"]["totals"] if host["activity"] else {}
    return {
        "host": host["host"],
        "daemon": host["daemon"],
        "passes": host["verdict"] == "pass",
        "verdict": host["verdict"],
        "tested_from": host["tested_from"],
        "starttls": _offered(offered),
        "tested": bool(tests) and not (set(offered) == {None} and any(test.get("completed") for test in tests)),
        "versions": ", ".join(sorted({str(test["tls_version"]) for test in tests if test.get("tls_version")})),
        "days": min(days, default=None),
        "modes": ["send only"]
        if host.get("send_only")
        else [mode.replace("_", " ") for mode in host["delivery_modes"]],
        "shares": [
            (direction, Share(counts["messages_tls"], counts["messages_plaintext"], counts["messages_unknown"]))
            for direction, counts in totals.items()
        ],
        "traces": [_trace(one) for one in host["traces"]],
        "hops": [_hop(one) for one in host["peers"]],
        "findings": host["findings"][:FINDINGS_SHOWN],
        "findings_left": max(0, len(host["findings"]) - FINDINGS_SHOWN),
    }


def _offered(offered: Sequence[Optional[bool]]) -> str:
    if True in offered:
        return "offered" if all(offered) else f"{offered.count(True)} of {len(offered)}"
    return "not offered" if False in offered else "unproven"


def _trace(trace: Mapping[str, Any]) -> str:
    return f"{'in' if trace.get('direction') == 'in' else 'out'}: {hops_over_tls(trace)}"


def _hop(hop: Mapping[str, Any]) -> str:
    said = {"proved": "proved to RCPT", "failed": "not proved", "not tested": "not tested to RCPT"}
    words = said.get(hop["result"], hop["result"]) if hop["direction"] == "outbound" else "not tested"
    return f"{peer_name(hop)}: {words}"


def _kind(peer: peer_domains.Peer) -> str:
    tls, plaintext = (peer.sender.tls + peer.recipient.tls), (peer.sender.plaintext + peer.recipient.plaintext)
    if tls and plaintext:
        return "mixed"
    if peer.sender.unknown or peer.recipient.unknown:
        return "unproven"
    return "tls" if tls else "plaintext" if plaintext else "none"


def _number(value: float) -> str:
    return f"{value:,}"


def _moment(text: Optional[str]) -> str:
    """Return an ISO 8601 time in a readable form. Other text is returned unchanged."""
    try:
        return datetime.fromisoformat(str(text or "").replace("Z", "+00:00")).strftime("%-d %b %Y, %H:%M UTC")
    except ValueError:
        return text or ""


def _cut(text: str, length: int = _CELL_LENGTH) -> str:
    return text if len(text) <= length else text[: length - 1] + "\u2026"


def _breakable(text: str) -> Markup:
    """Return the escaped text, with a possible line break after each underscore."""
    return Markup("_<wbr>").join(escape(part) for part in text.split("_"))
