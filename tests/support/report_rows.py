# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows for reports: a small fleet with every kind of trouble, and fleets of any size. The same arguments give the same rows."""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta, timezone

NOW = datetime(2026, 3, 9, 6, 0, 12, tzinfo=timezone.utc)
WINDOW = {"since": "2026-03-02T00:00:00Z", "until": "2026-03-09T00:00:00Z"}
CIPHERS = {
    "TLSv1.3": ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
    "TLSv1.2": ("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    "TLSv1": ("ECDHE-RSA-AES128-SHA",),
}


def probe(name: str, days: int = 74, **changes: object) -> dict:
    """A handshake test that found nothing."""
    end = NOW + timedelta(days=days, hours=3)
    number = sum(map(ord, name))
    return {
        "host": name, "port": 25, "name": name, "stage": "ehlo_tls", "completed": True, "code": "", "message": "", "protocol": "smtp",
        "mode": "full", "greeting": f"220 {name} ESMTP", "starttls_advertised": True, "starttls_reply": "220 2.0.0 Ready",
        "tls_version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "group": "x25519", "trusted": True, "verify_error": "",
        "fingerprint_sha256": f"{number:064x}", "chain_pem": ["-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"],
        "certificate": {
            "subject": f"CN={name}", "sans": [f"DNS:{name}"], "not_after": end.isoformat(), "days_left": days,
            "fingerprint_sha256": f"{number:064x}",
        },
        "findings": [], "passed": True, "seen_from": "", "seconds": 0.042,
        **changes,
    }  # fmt: skip


def failed_probe(name: str, code: str, message: str, **changes: object) -> dict:
    """A handshake test that ended at EHLO."""
    plain = {
        "stage": "ehlo", "completed": False, "code": code, "message": message, "starttls_advertised": False, "tls_version": "",
        "cipher": "", "trusted": None, "certificate": None, "chain_pem": [], "fingerprint_sha256": "",
    }  # fmt: skip
    return probe(
        name, findings=[{"code": code, "severity": "error", "message": message}], passed=False, **{**plain, **changes}
    )


def counts(tls: int = 0, plaintext: int = 0, old: int = 0, **events: list) -> dict:
    """COUNTS: so many messages; old of the sessions over TLS 1.0."""
    versions = {"TLSv1.3": tls * 4 // 5, "TLSv1.2": tls - tls * 4 // 5 - old, "TLSv1": old}
    ciphers = {
        name: share
        for version, total in versions.items()
        for place, name in enumerate(CIPHERS[version])
        if (share := total * (6, 3, 1)[place] // 10)
    }
    return {
        "sessions_tls": tls, "sessions_plaintext": plaintext, "sessions_unknown": 0, "messages_tls": tls,
        "messages_plaintext": plaintext, "messages_unknown": 0, "versions": {name: one for name, one in versions.items() if one},
        "ciphers": ciphers, "failures": [], "refusals": [], "deferrals": [], **events,
    }  # fmt: skip


def event(reason: str, count: int, detail: str, last: str = "2026-03-08T21:14:03Z") -> dict:
    """EVENT."""
    return {"reason": reason, "detail": detail, "count": count, "first": "2026-03-02T07:30:00Z", "last": last}


def activity(daemon: str, peers: list[dict]) -> dict:
    """What tls_activity_info counts, with the totals that go with the peers."""
    totals = {}
    for direction in ("inbound", "outbound"):
        total = counts()
        for peer in peers:
            if peer["direction"] == direction:
                for key, value in peer.items():
                    if isinstance(value, int):
                        total[key] += value
                    elif isinstance(value, dict):
                        total[key] = {
                            name: total[key].get(name, 0) + value.get(name, 0) for name in {**total[key], **value}
                        }
                    elif isinstance(value, list):
                        total[key] = total[key] + value
        totals[direction] = total
    return {
        "version": 1, "daemon": daemon, "since": WINDOW["since"], "until": WINDOW["until"], "sources": ["/var/log/mail.log*"],
        "lines": 184_201, "bytes": 31_882_004, "skipped_lines": 3, "seconds": 1.2, "truncated": False, "totals": totals,
        "peers": sorted(peers, key=lambda one: -(one["messages_tls"] + one["messages_plaintext"])),
    }  # fmt: skip


def peer(domain: str, direction: str, *arguments: int, **events: list) -> dict:
    """One entry of peers."""
    return {"domain": domain, "direction": direction, **counts(*arguments, **events)}


def trace(direction: str, *hops: bool, findings: tuple = ()) -> dict:
    """A message that arrived over these hops, True for TLS."""
    return {
        "marker": f"{direction}-trace-1", "arrived": bool(hops), "direction": direction, "findings": list(findings),
        "hops": [{"network": True, "tls": tls, "by": "mx.example.test", "protocol": "ESMTPS" if tls else "ESMTP"} for tls in hops],
    }  # fmt: skip


def demo_rows() -> list[dict]:
    """A gateway and four mail servers: most is well, some is not."""
    gateway = [
        peer("partner.example.com", "inbound", 4_212, 0),
        peer("partner.example.com", "outbound", 3_871, 0),
        peer("bank.example.net", "inbound", 1_904, 0, 0,
             refusals=[event("enforced_sender", 17, "451 4.7.0 STARTTLS is required for this sender (mx2.bank.example.net)")]),
        peer("bank.example.net", "outbound", 1_377, 0),
        peer("supplier.example.org", "inbound", 1_288, 96, 41),
        peer("supplier.example.org", "outbound", 1_011, 0, 0,
             deferrals=[event("no_starttls_offered", 6, "TLS is required, but was not offered by host mx.supplier.example.org")]),
        peer("news.example.com", "inbound", 9_410, 0),
        peer("clinic.example.org", "inbound", 611, 12),
        peer("clinic.example.org", "outbound", 590, 0),
        peer("printer.example.net", "inbound", 0, 402),
        peer("university.example.org", "inbound", 2_230, 0),
        peer("university.example.org", "outbound", 1_842, 18,
             failures=[event("certificate_expired", 4, "certificate verification failed: certificate has expired")]),
        peer("city.example.net", "inbound", 377, 4), peer("city.example.net", "outbound", 402, 9),
        peer("tickets.example.com", "inbound", 1_120, 0), peer("law.example.org", "outbound", 288, 0),
        peer("alpha.test", "outbound", 6_020, 31), peer("bravo.test", "outbound", 7_804, 0),
        peer("charlie.test", "outbound", 3_950, 0),
        peer("delta.test", "outbound", 2_011, 640,
             deferrals=[event("no_starttls_offered", 23, "TLS is required, but was not offered by host ex13.fleet.test[198.51.100.13]")]),
    ]  # fmt: skip
    own = {
        "alpha.test": "match_sender",
        "bravo.test": "required",
        "charlie.test": "opportunistic",
        "delta.test": "match_sender",
    }
    lost = "the server does not offer STARTTLS; switch STARTTLS on at the server; if it is on, a device on the path removes it"
    return [
        {
            "host": "gw1", "daemon": "Postfix gateway", "probes": [probe("gw1.fleet.test", 74)], "delivery_modes": [],
            "activity": activity("postfix", gateway), "own_domains": own,
            "enforced": [
                {"domain": "bank.example.net", "direction": "inbound"}, {"domain": "bank.example.net", "direction": "outbound"},
                {"domain": "supplier.example.org", "direction": "outbound"},
            ],
        },
        {
            "host": "pf12", "daemon": "Postfix", "delivery_modes": ["match_sender"],
            "probes": [probe("pf12.fleet.test", 63), probe("pf12.fleet.test", 63, seen_from="gw1")],
            "traces": [trace("in", True, True), trace("out", True, True)],
            "activity": activity("postfix", [
                peer("gw1.fleet.test", "inbound", 6_020, 31), peer("partner.example.com", "outbound", 2_204, 0)]),
        },
        {
            "host": "pf13", "daemon": "Postfix", "delivery_modes": ["required"],
            "probes": [probe("pf13.fleet.test", 5), probe("pf13.fleet.test", 5, seen_from="gw1")],
            "traces": [trace("in", True, True), trace("out", True, True)],
            "activity": activity("postfix", [
                peer("gw1.fleet.test", "inbound", 7_804, 0), peer("bank.example.net", "outbound", 1_377, 0)]),
        },
        {
            "host": "ex12", "daemon": "Exim", "delivery_modes": ["opportunistic"],
            "probes": [probe("ex12.fleet.test", 18), probe("ex12.fleet.test", 18, seen_from="gw1")],
            "traces": [trace("in", True, True), trace("out", True, True)],
            "activity": activity("exim", [
                peer("gw1.fleet.test", "inbound", 3_950, 0), peer("university.example.org", "outbound", 1_842, 0)]),
        },
        {
            "host": "ex13", "daemon": "Exim", "delivery_modes": ["match_sender"],
            "probes": [
                failed_probe("ex13.fleet.test", "starttls_not_offered", lost),
                failed_probe("ex13.fleet.test", "starttls_not_offered", lost, seen_from="gw1"),
            ],
            "traces": [trace("in", True, False, findings=("the message from outside reached ex13 in plaintext (ESMTP)",))],
            "activity": activity("exim", [
                peer("gw1.fleet.test", "inbound", 2_011, 640), peer("city.example.net", "outbound", 402, 9)]),
        },
    ]  # fmt: skip


def previous_document() -> dict:
    """A former report in which ex13 still offered STARTTLS."""
    return {"version": 1, "hosts": [{"host": "ex13", "tests": [probe("ex13.fleet.test")], "activity": None}]}


def tls_report(
    organization: str = "Example Mail", report_id: str = "2026-03-08-1", failed: int = 12, **policy: object
) -> dict:
    """A report as RFC 8460 has it."""
    details = {
        "result-type": "certificate-host-mismatch", "sending-mta-ip": "2001:db8::25", "receiving-mx-hostname": "mx1.alpha.test",
        "failed-session-count": failed,
    }  # fmt: skip
    return {
        "organization-name": organization,
        "date-range": {"start-datetime": "2026-03-08T00:00:00Z", "end-datetime": "2026-03-08T23:59:59Z"},
        "contact-info": "tls-reports@example.com", "report-id": report_id,
        "policies": [{
            "policy": {"policy-type": "sts", "policy-string": ["version: STSv1"], "policy-domain": "alpha.test", **policy},
            "summary": {"total-successful-session-count": 5_300, "total-failure-session-count": failed},
            "failure-details": [details] if failed else [],
        }],
    }  # fmt: skip


def demo_tls_reports() -> list[bytes]:
    """Reports about the demo fleet's domains, as JSON."""
    good = tls_report("Another Provider", "b-77", 0, **{"policy-type": "tlsa", "policy-domain": "bravo.test"})
    return [json.dumps(one).encode() for one in (tls_report(), good)]


def large_rows(hosts: int, peers: int) -> list[dict]:
    """A fleet of so many hosts that exchange mail with so many domains; one host in twenty fails."""
    chance = random.Random(8460)
    rows = []
    for number in range(hosts):
        name = f"mx{number:03}"
        mine = [
            peer(
                f"domain{one:04}.example.org",
                direction,
                chance.randrange(2_000),
                chance.choice((0, 0, 0, chance.randrange(90))),
            )
            for one in range(number, peers, hosts)
            for direction in ("inbound", "outbound")
        ]
        bad = number % 20 == 7
        test = (
            failed_probe(
                f"{name}.fleet.test", "timeout", "no answer within 10 s; see that the server is not overloaded"
            )
            if bad
            else (probe(f"{name}.fleet.test", chance.randrange(9, 89)))
        )
        rows.append({"host": name, "daemon": ("Postfix", "Exim")[number % 2], "probes": [test], "delivery_modes": ["match_sender"],
                     "activity": activity("postfix", mine)})  # fmt: skip
    return rows


def hop(name: str, days: int = 74, **changes: object) -> dict:
    """A hop to a peer that has accepted a recipient."""
    certificate = {"subject": f"CN={name}", "days_left": days, "not_after": (NOW + timedelta(days=days)).isoformat()}
    return {
        "name": name, "kind": "exchange", "direction": "outbound", "server": f"{name}:25", "level": "required", "result": "proved",
        "reason": "", "starttls": True, "tls_version": "TLSv1.2", "certificate": certificate, "trusted": None, "findings": [], **changes,
    }  # fmt: skip


def hostile(text: str) -> tuple[list[dict], list[dict]]:
    """Rows and entries of TLS reports in which everything that may be said by a stranger is this text."""
    bad = {**failed_probe(text, text, text), "seen_from": text, "cipher": text, "tls_version": text}
    served = {**probe(text, 3), "name": text, "certificate": {"subject": text, "days_left": 3, "not_after": text}}
    peers = [
        {
            **peer(text, "inbound", 3, 1, failures=[event(text, 1, text, text)]),
            "versions": {text: 1},
            "ciphers": {text: 1},
        },
        peer(text, "outbound", 1, deferrals=[event(text, 1, text)]),
    ]
    row = {
        "host": f"h{text}", "daemon": text, "probes": [bad, served], "delivery_modes": [text],
        "activity": {**activity(text, peers), "notes": [{"message": text}]},
        "traces": [trace("in", True, findings=(text,))], "own_domains": {text: text},
        "enforced": [{"domain": text, "direction": "inbound"}],
        "peers": [hop(text, kind=text, server=text, level=text, result=text, reason=text, tls_version=text), hop(text, 3)],
    }  # fmt: skip
    entry = {
        "organization": text, "report_id": text, "start": text, "end": text, "domain": text, "policy_type": "sts", "successful": 1,
        "failed": 1, "failures": [{"result_type": text, "sending_mta_ip": text, "receiving_mx": text, "count": 1, "reason": text}],
    }  # fmt: skip
    return [row], [entry]
