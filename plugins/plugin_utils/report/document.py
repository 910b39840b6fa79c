# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report document, from which every format is rendered.

C({version, title, generated_at, window, fail_on, summary, hosts, alerts, tls_reports}); docs/schema/report.schema.json
has the whole shape. This file makes text from hosts and logs printable, cuts it and checks its types. So the formats
can rely on the shape.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import EVENTS
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import MAX_COUNT, whole_number
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import (
    SEVERITIES,
    of_result,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.places import tested_from
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.alerts import alerts_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import MALFORMED
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import findings_of, one_line, verdict_of

REPORT_VERSION = 1
_DIRECTIONS = ("inbound", "outbound")
EXPECTED = ("offered", "disabled", "either")
TRANSPORTS = ("tls", "plaintext", "unknown")
_VERDICTS = ("pass", "unproven", "FAIL")
PEER_RESULTS = ("proved", "not tested", "failed", "TLS off", "keeps TLS")
COUNTED = tuple(f"{what}_{how}" for what in ("sessions", "messages") for how in TRANSPORTS)

_TEXT_LENGTH = 2_000
_DEPTH = 10
_MAX_PEERS = 50_000
_MAX_NAMES = 100


class ReportError(EngineError):
    """The input cannot become a report. The message gives the reason."""


def build(
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str,
    window: Optional[Mapping[str, Any]] = None,
    tls_reports: Sequence[Mapping[str, Any]] = (),
    previous: Optional[Mapping[str, Any]] = None,
    certificate_days: Optional[int] = None,
    fail_on: str = "error",
    not_in_run: Sequence[str] = (),
    parts: Sequence[Mapping[str, Any]] = (),
    now: Optional[datetime] = None,
) -> dict[str, Any]:
    """Return the report on these rows (the module tls_report documents them). Raises ReportError.

    not_in_run: hosts of which nothing is said. parts: reports on other hosts of the fleet, which become a part of this one.
    certificate_days: a certificate with fewer days left causes an alert; None for a share of its life. fail_on: the
    lowest severity of a finding that makes a host fail. previous: a former report. tls_reports: the result of tls_rpt.read_reports().
    """
    if not rows and not parts:
        raise ReportError("there is no host to report on")
    hosts = [_host(row, fail_on) for row in rows]
    if len({host["host"] for host in hosts}) < len(hosts):
        raise ReportError("a host has more than one of the rows; give each host one")
    hosts = _each_once([*hosts, *_of_parts(parts, fail_on)])
    reports = [clean(one) for one in tls_reports]
    reports += [one for part in parts for one in clean(_mappings(part.get("tls_reports"))) if one not in reports]
    there = {host["host"] for host in hosts}
    left_out = [*not_in_run, *(one for part in parts for one in _sequence(part.get("not_in_this_run")))]
    alerts = alerts_of(hosts, reports, previous, certificate_days, now)
    return {
        "version": REPORT_VERSION,
        "title": clean(title),
        "generated_at": _iso(now or datetime.now(timezone.utc)),
        "window": _window(window, hosts),
        "fail_on": fail_on,
        "summary": _summary(hosts, alerts),
        "not_in_this_run": [one for one in dict.fromkeys(clean(str(one)) for one in left_out) if one not in there],
        "hosts": hosts,
        "alerts": alerts,
        "tls_reports": reports,
    }


def load_previous(text: bytes) -> dict[str, Any]:
    """Read a former report from its JSON. Raises ReportError if the text is not a report."""
    try:
        document = json.loads(text, parse_int=whole_number)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"it is not readable JSON ({type(error).__name__})") from None
    if (
        not isinstance(document, dict)
        or document.get("version") != REPORT_VERSION
        or not isinstance(document.get("hosts"), list)
    ):
        raise ReportError("it is not a report of this collection in its JSON form")
    return document


def render_json(document: Mapping[str, Any]) -> str:
    """Return the document as JSON text."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def clean(value: Any, depth: int = _DEPTH) -> Any:
    """Return the value as plain JSON data: texts printable and cut, no key material, depth limited."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return max(-MAX_COUNT, min(int(value), MAX_COUNT))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (Mapping, list, tuple)) and not depth:
        return "..."
    if isinstance(value, Mapping):
        # Keep the key of hidden text: text from other people must not remove a member.
        return {
            clean(str(key)): "..." if _is_pem(item) else clean(item, depth - 1)
            for key, item in value.items()
            if key != "chain_pem"
        }
    if isinstance(value, (list, tuple)):
        return [clean(item, depth - 1) for item in value if not _is_pem(item)]
    # A lone surrogate is not printable, so the text can be encoded afterwards.
    return one_line(str(value)[:_TEXT_LENGTH])


def with_warnings(count: int) -> str:
    """Return the words that follow a number of hosts that pass; empty without warnings."""
    return f", with {count} warning{'s' if count > 1 else ''}" if count else ""


def warnings_of(hosts: Iterable[Mapping[str, Any]]) -> int:
    """Return the number of warnings on these hosts. A host with warnings passes, and they are said wherever it is said that it does."""
    return sum(one["severity"] == "warning" for host in hosts for one in host["findings"])


def test_name(test: Mapping[str, Any]) -> str:
    """Return the name of a handshake test for users."""
    name = f"{test.get('name') or test.get('host')}:{test.get('port', 25)}"
    return f"{name} seen from {test['seen_from']}" if test.get("seen_from") else name


def _is_pem(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip().startswith("-----BEGIN")


def _each_once(hosts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each host once. Of one that several reports are about, such as a gateway, the worst entry counts."""
    found: dict[str, dict[str, Any]] = {}
    for host in hosts:
        known = found.setdefault(host["host"], host)
        if _VERDICTS.index(host["verdict"]) > _VERDICTS.index(known["verdict"]):
            found[host["host"]] = host
    return list(found.values())


def _of_parts(parts: Sequence[Mapping[str, Any]], fail_on: str) -> list[dict[str, Any]]:
    try:
        return [_of_part(entry, fail_on) for part in parts for entry in _mappings(part["hosts"])]
    except MALFORMED as error:
        raise ReportError(f"one of parts is not a whole report ({type(error).__name__}: {str(error)[:200]})") from error


def _of_part(entry: Mapping[str, Any], fail_on: str) -> dict[str, Any]:
    """Return a host of another report. Its findings and who tested it are said there."""
    made = _host({**entry, "probes": entry.get("tests")}, fail_on)
    findings = [_finding(one) for one in _mappings(entry.get("findings"))]
    tested = clean(str(entry.get("tested_from") or ""))
    return {**made, "findings": findings, "verdict": verdict_of(findings, fail_on), "tested_from": tested}


def _host(row: Mapping[str, Any], fail_on: str) -> dict[str, Any]:
    if not isinstance(row, Mapping) or not isinstance(row.get("host"), str) or not row["host"]:
        raise ReportError("each of rows needs the name of its host")
    expected = row.get("expected") or "offered"
    if expected not in EXPECTED:
        raise ReportError(f"expected of {row['host']} has to be one of {', '.join(EXPECTED)}")
    sends_only = row.get("send_only") is True
    # The certificate of a relay is no certificate of the host.
    tests = [{**_test(one), **({"certificate": None} if sends_only else {})} for one in _mappings(row.get("probes"))]
    traces = [clean(one) for one in _mappings(row.get("traces"))]
    activity = _activity(row["activity"]) if isinstance(row.get("activity"), Mapping) else None
    errors = [str(one) for one in _sequence(row.get("errors"))]
    own = [_finding(one) for one in _mappings(row.get("findings"))]
    gathered = {
        "send_only": sends_only,
        "expected": expected, "errors": errors, "findings": own, "probes": tests, "traces": traces, "activity": activity,
    }  # fmt: skip
    findings = [_finding(one) for one in findings_of({"host": row["host"], **gathered})]
    return {
        "host": clean(row["host"]),
        "daemon": clean(str(row.get("daemon") or "")),
        "send_only": sends_only,
        "expected": expected,
        "verdict": verdict_of(findings, fail_on),
        "tested_from": clean(
            tested_from(row["host"], tests, [str(one) for one in _sequence(row.get("not_seen_from"))])
        ),
        "findings": findings,
        "delivery_modes": [clean(str(one)) for one in _sequence(row.get("delivery_modes"))],
        "enforced": [
            {"domain": clean(str(one["domain"])).lower(), "direction": one["direction"]}
            for one in _mappings(row.get("enforced"))
            if one.get("domain") and one.get("direction") in _DIRECTIONS
        ],
        "own_domains": {
            clean(str(domain)).lower(): clean(str(mode)) for domain, mode in mapping(row.get("own_domains")).items()
        },
        "tests": tests,
        "peers": [_peer(one) for one in _mappings(row.get("peers"))],
        "traces": traces,
        "activity": activity,
    }


def _peer(entry: Mapping[str, Any]) -> dict[str, Any]:
    peer = clean(entry)
    return {
        **{name: str(peer.get(name) or "") for name in ("name", "kind", "server", "level", "reason", "tls_version")},
        "result": peer["result"] if peer.get("result") in PEER_RESULTS else "not tested",
        "direction": peer["direction"] if peer.get("direction") in _DIRECTIONS else "outbound",
        "starttls": peer["starttls"] if isinstance(peer.get("starttls"), bool) else None,
        "trusted": peer["trusted"] if isinstance(peer.get("trusted"), bool) else None,
        "certificate": peer["certificate"] if isinstance(peer.get("certificate"), dict) else None,
        "findings": [_finding(one) for one in _mappings(entry.get("findings"))],
    }


def peer_name(peer: Mapping[str, Any]) -> str:
    """Return the name of a hop to or from a peer for users."""
    way = "to" if peer["direction"] == "outbound" else "from"
    return f"{way} {peer['name']} {peer['server']}".rstrip()


def _test(probe: Mapping[str, Any]) -> dict[str, Any]:
    test = clean(probe)
    findings = [_finding(one) for one in _mappings(probe.get("findings"))]
    return {
        **test,
        "host": str(test.get("host") or ""),
        "port": _port(test.get("port")),
        "name": str(test.get("name") or test.get("host") or ""),
        "seen_from": str(test.get("seen_from") or ""),
        "passed": bool(test.get("passed", not findings)),
        "certificate": test["certificate"] if isinstance(test.get("certificate"), dict) else None,
        "findings": findings,
    }


def _port(value: Any) -> int:
    is_port = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 16
    return value if is_port else 25


def _finding(finding: Mapping[str, Any]) -> dict[str, Any]:
    return {name: clean(value) for name, value in of_result(finding).items()}


def _activity(given: Mapping[str, Any]) -> dict[str, Any]:
    totals = mapping(given.get("totals"))
    peers = [one for one in _mappings(given.get("peers")) if one.get("direction") in _DIRECTIONS]
    return {
        "version": 1,
        "daemon": clean(str(given.get("daemon") or "")),
        "since": _text_or_none(given.get("since")),
        "until": _text_or_none(given.get("until")),
        "sources": [clean(str(one)) for one in _sequence(given.get("sources"))],
        "notes": [clean(one) for one in _mappings(given.get("notes"))],
        "lines": _count(given.get("lines")),
        "bytes": _count(given.get("bytes")),
        "skipped_lines": _count(given.get("skipped_lines")),
        "truncated": bool(given.get("truncated")) or len(peers) > _MAX_PEERS,
        "totals": {direction: _counts(mapping(totals.get(direction))) for direction in _DIRECTIONS},
        "peers": [
            {
                "domain": clean(str(one.get("domain") or ""))[:255],
                "direction": one["direction"],
                **_counts(one),
            }
            for one in peers[:_MAX_PEERS]
        ],
    }


def _counts(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: _count(given.get(name)) for name in COUNTED},
        **{name: _table(given.get(name)) for name in ("versions", "ciphers")},
        **{name: [_event(one) for one in _mappings(given.get(name))[:_MAX_NAMES]] for name in EVENTS},
    }


def _event(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "reason": clean(str(given.get("reason") or "unknown"))[:100],
        "detail": clean(str(given.get("detail") or ""))[:400],
        "count": _count(given.get("count", 1)),
        "first": _text_or_none(given.get("first")),
        "last": _text_or_none(given.get("last")),
        **({"side": "local"} if given.get("side") == "local" else {}),
    }


def _table(given: Any) -> dict[str, int]:
    return {clean(str(name))[:100]: _count(count) for name, count in list(mapping(given).items())[:_MAX_NAMES]}


def _count(value: Any) -> int:
    return max(0, min(int(value), MAX_COUNT)) if isinstance(value, int) else 0


def _text_or_none(value: Any) -> Optional[str]:
    return clean(value)[:64] if isinstance(value, str) and value else None


def mapping(value: Any) -> Mapping[str, Any]:
    """Return the value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in _sequence(value) if isinstance(one, Mapping)]


def _window(window: Optional[Mapping[str, Any]], hosts: Sequence[Mapping[str, Any]]) -> Optional[dict[str, Any]]:
    """Return the given window, or the one of the hosts' logs; None without logs."""
    if window:
        return {name: _text_or_none(window.get(name)) for name in ("since", "until")}
    seen = [host["activity"] for host in hosts if host["activity"]]
    if not seen:
        return None
    return {
        "since": min((one["since"] for one in seen if one["since"]), default=None),
        "until": max((one["until"] for one in seen if one["until"]), default=None),
    }


def _summary(hosts: Sequence[Mapping[str, Any]], alerts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    failed = sum(host["verdict"] != "pass" for host in hosts)
    totals = [host["activity"]["totals"] for host in hosts if host["activity"]]
    return {
        "hosts": len(hosts),
        "passed": len(hosts) - failed,
        "failed": failed,
        "alerts": {severity: sum(one["severity"] == severity for one in alerts) for severity in SEVERITIES},
        **{
            what: {
                direction: {how: sum(one[direction][f"{what}_{how}"] for one in totals) for how in TRANSPORTS}
                for direction in _DIRECTIONS
            }
            for what in ("messages", "sessions")
        },
    }


def _iso(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).replace(microsecond=0, tzinfo=None).isoformat() + "Z"
