# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Alerts: what somebody has to do something about, on whose side the cause is, and what to do.

An alert is C({code, severity, host, domain, direction, cause, count, last, message, action}). cause C(remote) means that
the other side would not do TLS, C(local) that one's own servers would not. Everything here is computed from the hosts of
a report document; nothing is asked and nothing is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import OTHER
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import SEVERITIES, entry_of, of_group

CAUSES = ("remote", "local")
CODES = tuple(one.code for one in of_group("alert"))
_URGENT_DAYS = 7

# What activity says of a delivery or refusal for which this side is to blame, whoever the other side is.
_OWN_FAULTS = frozenset(
    {"certificate_required", "key_unusable", "mail_server_in_plaintext", "peer_requires_tls", "tls_unavailable"}
)
_NO_TLS_OFFERED = frozenset({"no_starttls_offered", "starttls_refused"})

_TLSRPT_ACTIONS = {
    "starttls-not-supported": "See that every MX host of the domain offers STARTTLS, and that nothing in front of it strips it.",
    "certificate-host-mismatch": "Install a certificate that names the MX host as the MX record has it.",
    "certificate-expired": "Renew the certificate on the MX host and see that the daemon serves the new one.",
    "certificate-not-trusted": "Serve the whole chain of a certificate of a public authority.",
    "validation-failure": "Run the handshake test against the MX host and read the reason that the report gives.",
    "tlsa-invalid": "Publish TLSA records that match the certificate which is served now.",
    "dnssec-invalid": "Have the zone's signatures repaired; they do not validate.",
    "dane-required": "Publish TLSA records in a signed zone; the sender insists on DANE.",
    "sts-policy-fetch-error": "See that the policy can be fetched over HTTPS from the mta-sts host of the domain.",
    "sts-policy-invalid": "Correct the MTA-STS policy; it cannot be parsed.",
    "sts-webpki-invalid": "Renew the certificate of the mta-sts host; it does not validate.",
}


def alerts_of(
    hosts: Sequence[Mapping[str, Any]],
    tls_reports: Iterable[Mapping[str, Any]] = (),
    previous: Optional[Mapping[str, Any]] = None,
    certificate_days: int = 21,
) -> list[dict[str, Any]]:
    """The alerts of these hosts of a report document, worst first.

    previous is a former report, of which nothing is believed but what has the right type; certificate_days is how many
    days before its end a certificate earns an alert.
    """
    before = _hosts_by_name(previous)
    still = {
        (one.get("host"), one.get("domain"), one.get("direction"))
        for one in _dicts(previous.get("alerts") if previous else None)
        if one.get("code") == "starttls_lost"
        and all(isinstance(one.get(key), str) for key in ("host", "domain", "direction"))
    }
    found: list[dict[str, Any]] = []
    for host in hosts:
        found += _blocked(host)
        found += _lost_on_own_server(host, before.get(host["host"], {}), (host["host"], "", "") in still)
        named = {(one["domain"], one["direction"]) for one in found if one["host"] == host["host"]}
        found += (
            one
            for one in _lost_on_peers(host, before.get(host["host"], {}), still)
            if (one["domain"], one["direction"]) not in named
        )
    found += _tlsrpt(tls_reports)
    found.sort(key=lambda one: (one["host"], one["domain"], one["direction"]))
    ending = [one for host in hosts for one in _certificates(host, certificate_days)]
    found += (alert for _days, alert in sorted(ending, key=lambda one: (one[0], one[1]["host"])))
    return sorted(found, key=lambda one: (SEVERITIES.index(one["severity"]), CODES.index(one["code"])))


def _alert(code: str, cause: str, message: str, action: str, **more: Any) -> dict[str, Any]:
    alert = {
        "code": code, "severity": entry_of(code).severity, "host": "", "domain": "", "direction": "", "cause": cause,
        "count": 1, "last": None, "message": message, "action": action,
    }  # fmt: skip
    return {**alert, **more}


# --- mail that was refused or waits ----------------------------------------------------------------------------------


def _blocked(host: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One alert for each peer domain, direction and side that is to blame."""
    enforced = {(one["domain"], one["direction"]) for one in host["enforced"]}
    for peer in host["activity"]["peers"] if host["activity"] else ():
        for kind in ("refusals", "deferrals"):
            for cause in CAUSES:
                events = [one for one in peer[kind] if (one["reason"] in _OWN_FAULTS) == (cause == "local")]
                if events:
                    yield _of_events(host, peer, kind, cause, events, enforced)


def _of_events(
    host: Mapping[str, Any],
    peer: Mapping[str, Any],
    kind: str,
    cause: str,
    events: Sequence[Mapping[str, Any]],
    enforced: set[tuple[str, str]],
) -> dict[str, Any]:
    name, domain, direction = host["host"], _spoken(peer["domain"]), peer["direction"]
    reasons = {one["reason"] for one in events}
    sample = max(events, key=lambda one: one["last"] or "")
    facts = {
        "host": name,
        "domain": peer["domain"],
        "direction": direction,
        "count": sum(one["count"] for one in events),
        "last": sample["last"],
    }
    said = f" The log says: {sample['detail']}" if sample["detail"] else ""
    own_mode = host["own_domains"].get(domain)
    if "mail_server_in_plaintext" in reasons:
        return _alert(
            "enforced_outbound_local",
            "local",
            f"{name} refused mail of {domain}, because the mail server that sent it used no TLS.{said}",
            "Let the mail server use TLS towards the gateway (outbound: offered or required), and then send the mail again; "
            "until it does, its mail to domains that insist on TLS waits there.",
            **facts,
        )
    if kind == "refusals" and "enforced_sender" in reasons:
        return _alert(
            "enforced_inbound_remote",
            "remote",
            f"{name} put off mail from {domain}: the domain has to use TLS, and its mail server sent in plaintext.{said}",
            f"Ask the administrator of {domain} to switch on TLS for mail to you. The sender tries again by itself; take the "
            "domain off the enforced ones only if its mail may come in plaintext.",
            **facts,
        )
    if direction == "outbound" and own_mode is not None and "peer_requires_tls" in reasons:
        return _alert(
            "tls_deferrals",
            "local",
            f"Mail to your own {domain} waits on {name}: your mail server takes mail over TLS only, and it was sent in plaintext "
            f"(delivery mode {own_mode}).{said}",
            "Set the delivery mode of its email config to 'required', or let the mail server offer TLS and not insist on it "
            "(starttls_inbound: offered).",
            **facts,
        )
    by_arrival = own_mode is not None and own_mode not in ("required", "match_sender_strict")
    if cause == "remote" and direction == "outbound" and by_arrival:
        return _alert(
            "enforced_inbound_local",
            "local",
            f"Mail from an enforced domain to your own {domain} waits on {name}, because your mail server would not do TLS."
            f"{said}",
            f"Run the handshake test against the mail servers of {domain} and switch STARTTLS on there; the mail that waits "
            "is delivered then.",
            **facts,
        )
    if (domain, direction) in enforced and direction == "outbound":
        if cause == "local":
            return _alert(
                "enforced_outbound_local",
                "local",
                f"Mail to {domain} waits on {name}: the domain is reached over TLS only, and your own server could not do it."
                f"{said}",
                f"Repair TLS on {name}: see that it can read its key and certificate and that TLS towards the outside is on.",
                **facts,
            )
        return _alert(
            "enforced_outbound_remote",
            "remote",
            f"Mail to {domain} waits on {name}: the domain is reached over TLS only, and its mail server would not do it as "
            f"it has to.{said}",
            f"Ask the administrator of {domain} to offer STARTTLS with a certificate that passes. If that takes longer, a "
            "lower certificate check for the domain lets the mail go.",
            **facts,
        )
    waits = (
        f"Mail {'from' if direction == 'inbound' else 'to'} {domain} {'was put off' if kind == 'refusals' else 'waits'}"
    )
    own = own_mode is not None or cause == "local"
    return _alert(
        "tls_deferrals",
        "local" if own else "remote",
        f"{waits} on {name} for want of TLS.{said}",
        (
            f"Run the handshake test against {name if cause == 'local' else 'the mail servers of ' + domain} and "
            "repair TLS there; the queue empties by itself then."
        )
        if own
        else f"Ask the administrator of {domain} about TLS, or allow plaintext for the domain if its mail may go so.",
        **facts,
    )


def _spoken(domain: str) -> str:
    return {"": "an unknown domain", OTHER: "several other domains"}.get(domain, domain)


# --- certificates ----------------------------------------------------------------------------------------------------


def _certificates(host: Mapping[str, Any], certificate_days: int) -> Iterator[tuple[float, dict[str, Any]]]:
    """Days left and alert of each certificate of the host, however many tests saw it."""
    seen: set[str] = set()
    for test in host["tests"]:
        certificate = test["certificate"] or {}
        days = certificate.get("days_left", test.get("days_left"))
        key = str(certificate.get("fingerprint_sha256") or test.get("fingerprint_sha256") or certificate.get("subject"))
        if not _is_number(days) or days >= certificate_days or key in seen:
            continue
        seen.add(key)
        who = f"The certificate {certificate.get('subject') or test['name']} on {host['host']}, port {test['port']},"
        end = str(certificate.get("not_after") or "")[:10]
        action = "Renew it and run enable_tls.yml, which installs it; the handshake test then has to see the new one."
        if days < 0:
            when = f" on {end}" if end else ""
            message = f"{who} expired{when}; senders that check it defer their mail."
            yield days, _alert("certificate_expired", "local", message, action, host=host["host"])
        else:
            when = f" (until {end})" if end else ""
            message = f"{who} has {days} {'day' if days == 1 else 'days'} left{when}."
            severity = "error" if days < _URGENT_DAYS else "warning"
            yield days, _alert("certificate_expiring", "local", message, action, host=host["host"], severity=severity)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# --- TLS that was there ----------------------------------------------------------------------------------------------


def _lost_on_own_server(host: Mapping[str, Any], before: Mapping[str, Any], still: bool) -> Iterator[dict[str, Any]]:
    """A server that offered STARTTLS in the former report and does not now, though it answers.

    still is whether the former report said so already: then the alert stays until STARTTLS is back.
    """
    if host["expected"] == "disabled":
        return
    offered = {_place(one) for one in _dicts(before.get("tests")) if one.get("starttls_advertised") is True}
    lost = {
        _place(test)[0]: test
        for test in host["tests"]
        if test.get("starttls_advertised") is False
        and test.get("stage") == "ehlo"
        and (still or _place(test) in offered)
    }
    for where, test in sorted(lost.items()):
        yield _alert(
            "starttls_lost", "local",
            f"{host['host']} ({where}) no longer offers STARTTLS, which it did in a former report.",
            f"See what was changed on {host['host']}; its log says why TLS is off. If TLS was switched off on purpose, bring "
            "the delivery mode back too, or mail waits.",
            host=host["host"], severity="error", last=test.get("time"),
        )  # fmt: skip


def _place(test: Mapping[str, Any]) -> tuple[str, str]:
    return f"{test.get('name') or test.get('host')}:{test.get('port', 25)}", str(test.get("seen_from") or "")


def _lost_on_peers(
    host: Mapping[str, Any], before: Mapping[str, Any], still: set[tuple[Any, Any, Any]]
) -> Iterator[dict[str, Any]]:
    """Peer domains with which all mail was over TLS at some time, and none is now."""
    activity = before.get("activity")
    used = {
        (one.get("domain"), one.get("direction"))
        for one in _dicts(activity.get("peers") if isinstance(activity, dict) else None)
        if isinstance(one.get("domain"), str)
        and isinstance(one.get("direction"), str)
        and _positive(one, "messages_tls")
    } | {(domain, direction) for name, domain, direction in still if name == host["host"]}
    # Where lines are missing, what went over TLS may be counted as plaintext.
    is_sure = not any(note.get("code") == "lines_lost" for note in (host["activity"] or {}).get("notes") or ())
    for peer in host["activity"]["peers"] if host["activity"] else ():
        domain, direction = peer["domain"], peer["direction"]
        if domain in ("", OTHER):
            continue
        refused = [one for kind in ("failures", "deferrals") for one in peer[kind] if one["reason"] in _NO_TLS_OFFERED]
        if is_sure and peer["messages_plaintext"] and not peer["messages_tls"] and (domain, direction) in used:
            since, count, last = "in a former report", peer["messages_plaintext"], None
        elif direction == "outbound" and refused and peer["messages_tls"]:
            since, count = "earlier in this window", sum(one["count"] for one in refused)
            last = max((one["last"] for one in refused if one["last"]), default=None)
        else:
            continue
        own = domain in host["own_domains"]
        whose = "your own" if own else "the"
        where = "to" if direction == "outbound" else "from"
        yield _alert(
            "starttls_lost",
            "local" if own else "remote",
            f"Mail {where} {domain} through {host['host']} went over TLS {since} and no longer does.",
            f"Look at {whose} mail server of {domain}: run the handshake test, see its log."
            if own
            else f"Ask the administrator of {domain} whether TLS was switched off; if not, something between strips it.",
            host=host["host"],
            domain=domain,
            direction=direction,
            count=count,
            last=last,
        )


def _positive(of: Mapping[str, Any], name: str) -> bool:
    value = of.get(name)
    return isinstance(value, int) and value > 0


def _hosts_by_name(document: Optional[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    hosts = _dicts(document.get("hosts")) if document else []
    return {one["host"]: one for one in hosts if isinstance(one.get("host"), str)}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


# --- what others report ----------------------------------------------------------------------------------------------


def _tlsrpt(reports: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One alert for each domain and result type, over all the organizations that report it."""
    found: dict[tuple[str, str], list[tuple[Mapping[str, Any], int]]] = {}
    for report in reports:
        if report["failures"]:
            for one in report["failures"]:
                found.setdefault((report["domain"], one["result_type"]), []).append((report, one["count"]))
        elif report["failed"]:
            found.setdefault((report["domain"], "unknown"), []).append((report, report["failed"]))
    for (domain, result_type), seen in found.items():
        organizations = sorted({report["organization"] for report, _count in seen})
        named = ", ".join(organizations[:3]) + (f" and {len(organizations) - 3} more" if len(organizations) > 3 else "")
        count = sum(one for _report, one in seen)
        yield _alert(
            "tlsrpt_failures", "local",
            f"{named} could not set up TLS with {domain}: {count} {'session' if count == 1 else 'sessions'} failed "
            f"({result_type}).",
            _TLSRPT_ACTIONS.get(result_type, _TLSRPT_ACTIONS["validation-failure"]),
            domain=domain, direction="inbound", count=count, last=max(report["end"] for report, _count in seen),
        )  # fmt: skip
