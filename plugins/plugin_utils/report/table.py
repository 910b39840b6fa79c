# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of tls_verdict: one row for each host, and the findings below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import failing
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.outcome import MOST_REASONS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.places import looked, tested_from
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.document import warnings_of, with_warnings
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import (
    findings_of,
    network_hops,
    offers_starttls,
    one_line,
    render_table,
    tls_of,
    verdict_of,
    word_for_lost,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.workflow import result_of, worst_first

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
    rows: Sequence[dict[str, Any]], title: str, fail_on: str, fail: bool = True, not_in_run: Sequence[str] = ()
) -> tuple[dict[str, Any], str]:
    """Return the result of tls_verdict, and the text to show: title, table, the hosts of not_in_run, and the findings of each host.

    rows have the form that summarize() takes. fail: whether a host that does not pass fails the task. Raises EngineError if there
    is no row, or if a row lacks its host name.
    """
    if not all(isinstance(row.get("host"), str) for row in rows):
        raise EngineError("each of rows needs the name of its host")
    if not rows:
        raise EngineError("there is no host to give a verdict on")
    shown = [summarize(row, fail_on) for row in rows]
    bad = [row for row in shown if not row["verdict"].startswith("pass")]
    warnings = warnings_of([row for row in shown if row["verdict"].startswith("pass")])
    passing = f"{len(shown) - len(bad)} of {len(shown)} hosts pass{with_warnings(warnings)}"
    # The title says what was wanted. It does not stand over anything else without a word.
    heading = f"NOT PROVED: {title}" if bad else f"{title}, with warnings" if warnings else title
    table = _table(shown)
    result = {
        "changed": False,
        "failed": bool(bad) and fail,
        "stops": bool(bad),
        "msg": "; ".join([passing, *_reasons(bad, fail_on)]),
        "table": table,
        "rows": shown,
        "handed_on": _handed_on(shown, len(bad)),
    }
    outside = (
        [one_line(f"Not in this run, so nothing is said of them: {', '.join(map(str, not_in_run))}")]
        if not_in_run
        else []
    )
    return result, "\n".join([heading, "", table, *outside, *_lines(shown)])


def _handed_on(shown: Sequence[Mapping[str, Any]], failed: int) -> dict[str, Any]:
    """Return the verdict as C(starttls_result)."""
    found = [{**one, "host": row["host"]} for row in shown for one in row["findings"]]
    return result_of({"hosts": len(shown), "passed": len(shown) - failed, "failed": failed}, worst_first(found))


def _table(shown: Sequence[Mapping[str, Any]]) -> str:
    """Return the table: a row for each host, then one for each of its listeners that differs and for each hop to a peer.

    Fingerprints are shown if two certificates could be meant: those with one subject, or what one host serves.
    """
    lines, served = [], set()
    is_clear = True
    for row in shown:
        mine = [row, *row["others"]]
        lines += [*mine, *row["peers"]]
        served |= {(one["certificate"], one["fingerprint_sha256"]) for one in mine if one["fingerprint_sha256"]}
        is_clear = is_clear and len({one["fingerprint_sha256"] for one in mine if one["fingerprint_sha256"]}) < 2
        is_clear = is_clear and all(one["code"] != "wrong_certificate" for one in row["findings"])
    columns = HEADINGS
    if not is_clear or len({subject for subject, _fingerprint in served}) < len(served):
        columns = {}
        for name, heading in HEADINGS.items():
            columns |= {name: heading} | ({"fingerprint": "FINGERPRINT"} if name == "certificate" else {})
    return render_table(columns, [{**one, "fingerprint": str(one["fingerprint_sha256"] or "")[:16]} for one in lines])


def _reasons(bad: Sequence[Mapping[str, Any]], fail_on: str) -> list[str]:
    """Return why the first hosts do not pass, a text each. The lines below the table have the rest, and the advice."""
    told = []
    for row in bad[:MOST_REASONS]:
        first, *others = failing(row["findings"], fail_on) or row["findings"]
        more = f" (and {len(others)} more)" if others else ""
        told.append(one_line(f"{row['host']}: {first['message'].partition('; ')[0][:200]}{more}"))
    return told if len(told) == len(bad) else [*told, f"{len(bad) - len(told)} more hosts do not"]


def _lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = [(row["host"], one) for row in rows for one in row["findings"]]
    lines = [one_line(f"{host}: {one['severity']}: {one['message']}") for host, one in found]
    return ["", *lines] if lines else []


def summarize(row: dict[str, Any], fail_on: str = "error") -> dict[str, Any]:
    """Return one row of the table from the results of a host: handshake tests, traces, delivery modes.

    Uses C(host), C(daemon), C(expected) (V(offered), V(disabled) or V(either)), C(probes) (results of starttls_probe),
    C(traces) (of message_trace), C(errors) (text), C(findings) (of the host as a whole), C(not_seen_from) (places that did not
    test it), C(send_only), C(delivery_modes), C(listeners) (of other_listeners()) and C(peers) (of peer_entries()).
    """
    probes = row.get("probes") or []
    traces = row.get("traces") or []
    findings = findings_of(row)
    first: dict[str, Any] = next((one for one in probes if looked(one)), {})
    sends_only = bool(row.get("send_only"))
    # The certificate is that of the relay, which has its own row if it is a host of the fleet.
    certificate = {} if sends_only else first.get("certificate") or {}
    if sends_only:
        first = {name: first.get(name) for name in ("tls_version",)}
    return {
        "host": row["host"],
        "daemon": row.get("daemon", ""),
        "starttls": "send only" if sends_only else _offered(first),
        "tls_version": first.get("tls_version"),
        "certificate": certificate.get("subject"),
        "fingerprint_sha256": certificate.get("fingerprint_sha256") or first.get("fingerprint_sha256"),
        "days_left": certificate.get("days_left"),
        "trusted": first.get("trusted"),
        "delivery_mode": [f"to {one.get('name') or one.get('host')}" for one in probes]
        if sends_only
        else row.get("delivery_modes") or [],
        "messages": _messages(traces),
        "tested_from": tested_from(row["host"], probes, row.get("not_seen_from") or ()),
        "verdict": _verdict(findings, fail_on),
        "findings": findings,
        "others": [] if sends_only else [*_other_views(row["host"], probes), *_other_listeners(row)],
        "peers": list(_peers(row, fail_on)),
    }


def _other_views(host: str, probes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each test that was served another certificate than the first one."""
    found = {}
    for one in probes[1:]:
        served, first = (two.get("fingerprint_sha256") for two in (one, probes[0]))
        if served and first and served != first:
            certificate = one.get("certificate") or {}
            found[served] = {
                "host": f"{host} from {one.get('seen_from')}", "starttls": _offered(dict(one)), "tls_version": one.get("tls_version"),
                "certificate": certificate.get("subject"), "fingerprint_sha256": served, "days_left": certificate.get("days_left"),
                "trusted": one.get("trusted"),
            }  # fmt: skip
    return list(found.values())


def _other_listeners(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "host": f"{row['host']} {one['address']}", "starttls": one["tls"], "certificate": one["certificate"],
            "fingerprint_sha256": one["fingerprint_sha256"], "days_left": one["days_left"], "verdict": "not tested",
        }
        for one in row.get("listeners") or ()
    ]  # fmt: skip


def _peers(row: Mapping[str, Any], fail_on: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each hop between a mail server and a peer. Only a proof that reached to RCPT is called one."""
    for one in row.get("peers") or ():
        certificate = one["certificate"] or {}
        way = "to" if one["direction"] == "outbound" else "from"
        yield {
            "host": f"{row['host']} {way} {one['name']}{f' {one_server}' if (one_server := one['server']) else ''}",
            "daemon": one["kind"].replace("_", " "),
            "starttls": {True: "offered", False: "not offered", None: ""}[one["starttls"]],
            "tls_version": one["tls_version"],
            "certificate": certificate.get("subject"),
            "fingerprint_sha256": certificate.get("fingerprint_sha256"),
            "days_left": certificate.get("days_left"),
            "trusted": one["trusted"],
            "tested_from": "host" if one["result"] in ("proved", "failed") or one["tls_version"] else "",
            "verdict": peer_verdict(one, fail_on),
        }


def peer_verdict(entry: Mapping[str, Any], fail_on: str) -> str:
    """Return the verdict on a hop to or from a peer, in words."""
    if failing(entry["findings"], fail_on):
        return "FAIL"
    result = str(entry["result"])
    if result == "not tested":
        return "not tested to RCPT" if entry["direction"] == "outbound" else "not tested"
    return {"proved": "proved to RCPT", "failed": "not proved"}.get(result, result)


def _offered(probe: dict[str, Any]) -> str:
    return {True: "offered", False: "not offered", None: ""}[offers_starttls(probe)]


def _verdict(findings: list[dict[str, Any]], fail_on: str) -> str:
    verdict = verdict_of(findings, fail_on)
    warnings = sum(one["severity"] == "warning" for one in findings)
    return f"pass, {warnings} warning{'s' if warnings > 1 else ''}" if verdict == "pass" and warnings else verdict


def _messages(traces: list[dict[str, Any]]) -> str:
    def one(trace: dict[str, Any]) -> str:
        if not trace["arrived"]:
            return f"{trace.get('direction')} {word_for_lost(trace)}"
        used = [tls_of(hop) for hop in network_hops(trace)]
        unproven = f", {used.count(None)} unproven" if None in used else ""
        return f"{trace.get('direction')} {used.count(True)}/{len(used)} TLS{unproven}"

    return ", ".join(map(one, traces))
