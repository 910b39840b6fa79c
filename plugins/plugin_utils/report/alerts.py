# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Alerts: problems that need an action, with the side of the cause and the action.

An alert is C({code, severity, host, domain, direction, cause, count, last, message, action}). cause is C(remote) if the
other side did not use TLS, and C(local) if one's own servers did not. All alerts are computed from the hosts of a
report document. The functions query no host and store nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import OTHER
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import (
    FALLBACK_DAYS,
    error_limit,
    renewal_limit,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import MAX_COUNT, TLS_REPORT_ALERTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import SEVERITIES, entry_of, of_group

CAUSES = ("remote", "local")
CODES = tuple(one.code for one in of_group("alert"))
_URGENT = 3
"""Of fixed days, the last third is urgent."""
_UNPROVEN_PERCENT = 1
"""A session that goes on at the end of the log is unproven, too. So a smaller share is shown, but is no alert."""
_NOT_LOGGED = ("inbound_not_logged", "outbound_not_logged")

# Reasons in activity for which one's own side is always the cause.
_OWN_FAULTS = frozenset(
    {"certificate_required", "key_unusable", "mail_server_in_plaintext", "peer_requires_tls", "tls_unavailable"}
)
_NO_TLS_OFFERED = frozenset({"no_starttls_offered", "starttls_refused"})

_TLSRPT_ACTIONS = {
    "starttls-not-supported": "Check that every MX host of the domain offers STARTTLS, and that no device in front removes it.",
    "certificate-host-mismatch": "Install a certificate with the MX host's name from the MX record.",
    "certificate-expired": "Renew the certificate on the MX host and check that the daemon serves the new one.",
    "certificate-not-trusted": "Serve the whole chain of a certificate of a public authority.",
    "validation-failure": "Run the handshake test against the MX host and read the reason in the report.",
    "tlsa-invalid": "Publish TLSA records that match the served certificate.",
    "dnssec-invalid": "Repair the zone's signatures; they do not validate.",
    "dane-required": "Publish TLSA records in a signed zone; the sender requires DANE.",
    "sts-policy-fetch-error": "Check that the policy can be fetched over HTTPS from the mta-sts host of the domain.",
    "sts-policy-invalid": "Correct the MTA-STS policy; it cannot be parsed.",
    "sts-webpki-invalid": "Renew the certificate of the mta-sts host; it does not validate.",
}


def alerts_of(
    hosts: Sequence[Mapping[str, Any]],
    tls_reports: Iterable[Mapping[str, Any]] = (),
    previous: Optional[Mapping[str, Any]] = None,
    certificate_days: Optional[int] = None,
    now: Optional[datetime] = None,
) -> list[dict[str, Any]]:
    """Return the alerts of these hosts of a report document, worst first.

    previous is a former report; members of a wrong type are ignored. certificate_days: a certificate with fewer days
    left causes an alert; None for a share of its life.
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
        found += _unproven(host)
    found += _tlsrpt(tls_reports)
    found.sort(key=lambda one: (one["host"], one["domain"], one["direction"]))
    ending = [one for host in hosts for one in _certificates(host, certificate_days, now or datetime.now(timezone.utc))]
    found += (alert for _days, alert in sorted(ending, key=lambda one: (one[0], one[1]["host"])))
    return sorted(found, key=lambda one: (SEVERITIES.index(one["severity"]), CODES.index(one["code"])))


def _alert(code: str, cause: str, message: str, action: str, **more: Any) -> dict[str, Any]:
    alert = {
        "code": code, "severity": entry_of(code).severity, "host": "", "domain": "", "direction": "", "cause": cause,
        "count": 1, "last": None, "message": message, "action": action,
    }  # fmt: skip
    return {**alert, **more}


# --- refused and waiting mail ----------------------------------------------------------------------------------------


def _blocked(host: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield one alert for each peer domain, direction and side of the cause."""
    enforced = {(one["domain"], one["direction"]) for one in host["enforced"]}
    for peer in host["activity"]["peers"] if host["activity"] else ():
        for kind in ("refusals", "deferrals"):
            for cause in CAUSES:
                events = [one for one in peer[kind] if _is_own_fault(one) == (cause == "local")]
                if events:
                    yield _of_events(host, peer, kind, cause, events, enforced)


def _is_own_fault(event: Mapping[str, Any]) -> bool:
    """Whether one's own side is the cause: always with these reasons, and where the host is on both sides of the connection."""
    return event["reason"] in _OWN_FAULTS or event.get("side") == "local"


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
    if reasons <= _NO_TLS_OFFERED and all(one.get("side") == "local" for one in events):
        return _alert(
            "tls_deferrals",
            "local",
            f"Mail to {domain} waits on {name}: a service on {name} itself, such as a content filter, did not use TLS.{said}",
            "Give the transport that leads to this service a TLS level of its own that does not require TLS; the waiting mail is then "
            "delivered.",
            **facts,
        )
    if "mail_server_in_plaintext" in reasons:
        return _alert(
            "enforced_outbound_local",
            "local",
            f"{name} refused mail of {domain}, because the mail server that sent it used no TLS.{said}",
            "Let the mail server use TLS towards the gateway (outbound: offered or required), and then send the mail again; "
            "until then, its mail to domains that require TLS waits there.",
            **facts,
        )
    if kind == "refusals" and "enforced_sender" in reasons:
        return _alert(
            "enforced_inbound_remote",
            "remote",
            f"{name} deferred mail from {domain}: the domain must use TLS, but its mail server sent in plaintext.{said}",
            f"Ask the administrator of {domain} to switch on TLS for mail to you. The sender retries automatically; remove the "
            "domain from the enforced domains only if its mail may arrive in plaintext.",
            **facts,
        )
    if direction == "outbound" and own_mode is not None and "peer_requires_tls" in reasons:
        return _alert(
            "tls_deferrals",
            "local",
            f"Mail to your own {domain} waits on {name}: your mail server accepts mail over TLS only, but the mail was sent "
            f"in plaintext (delivery mode {own_mode}).{said}",
            "Set the delivery mode of its email config to 'required', or let the mail server offer TLS without requiring it "
            "(starttls_inbound: offered).",
            **facts,
        )
    by_arrival = own_mode is not None and own_mode not in ("required", "match_sender_strict")
    if cause == "remote" and direction == "outbound" and by_arrival:
        return _alert(
            "enforced_inbound_local",
            "local",
            f"Mail from an enforced domain to your own {domain} waits on {name}, because your mail server did not use TLS."
            f"{said}",
            f"Run the handshake test against the mail servers of {domain} and switch STARTTLS on there; the waiting mail "
            "is then delivered.",
            **facts,
        )
    if (domain, direction) in enforced and direction == "outbound":
        if cause == "local":
            return _alert(
                "enforced_outbound_local",
                "local",
                f"Mail to {domain} waits on {name}: TLS is enforced for the domain, but your own server could not use it."
                f"{said}",
                f"Repair TLS on {name}: check that its daemon can read key and certificate and that outbound TLS is on.",
                **facts,
            )
        return _alert(
            "enforced_outbound_remote",
            "remote",
            f"Mail to {domain} waits on {name}: TLS is enforced for the domain, but its mail server did not fulfil the "
            f"required level.{said}",
            f"Ask the administrator of {domain} to offer STARTTLS with a certificate that passes. If this takes longer, a "
            "lower certificate check for the domain releases the mail.",
            **facts,
        )
    waits = f"Mail {'from' if direction == 'inbound' else 'to'} {domain} {'was deferred' if kind == 'refusals' else 'waits'}"
    own = own_mode is not None or cause == "local"
    return _alert(
        "tls_deferrals",
        "local" if own else "remote",
        f"{waits} on {name} because TLS failed.{said}",
        (
            f"Run the handshake test against {name if cause == 'local' else 'the mail servers of ' + domain} and "
            "repair TLS there; the waiting mail is then delivered."
        )
        if own
        else f"Ask the administrator of {domain} about TLS, or allow plaintext for the domain if its mail may be sent in plaintext.",
        **facts,
    )


def _spoken(domain: str) -> str:
    return {"": "an unknown domain", OTHER: "several other domains"}.get(domain, domain)


# --- mail whose TLS the log does not tell ----------------------------------------------------------------------------


def _unproven(host: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield an alert for each direction in which the log does not tell TLS of more than the tolerated share."""
    activity = host["activity"] or {}
    for direction, counts in activity.get("totals", {}).items():
        for what in ("messages", "sessions"):
            unknown = counts[f"{what}_unknown"]
            total = unknown + counts[f"{what}_tls"] + counts[f"{what}_plaintext"]
            if unknown * 100 > total * _UNPROVEN_PERCENT:
                notes = [
                    one
                    for one in activity["notes"]
                    if one.get("code") in _NOT_LOGGED and one.get("direction") == direction
                ]
                causes = " ".join(f"Cause: {one.get('message')}." for one in notes)
                yield _alert(
                    "mail_unproven", "local",
                    f"The log of {host['host']} does not tell whether {unknown} of {total} {direction} {what} used TLS.",
                    f"{causes or 'Check what the log of the host lacks.'} Until then they are unproven, not plaintext.",
                    host=host["host"], direction=direction, count=unknown,
                )  # fmt: skip
                break


# --- certificates ----------------------------------------------------------------------------------------------------


def _urgency(certificate: Mapping[str, Any], days: float, fixed: Optional[int], now: datetime) -> str:
    """Return the severity of the alert of a certificate with these days left; empty if there is none yet. fixed: the given days."""
    begin, end = (_moment(certificate.get(name)) for name in ("not_before", "not_after"))
    if fixed is not None or begin is None or end is None or end <= begin:
        soon: float = FALLBACK_DAYS if fixed is None else fixed
        urgent, left = soon / _URGENT, days
    else:
        soon, urgent, left = (
            one / timedelta(days=1) for one in (renewal_limit(end - begin), error_limit(end - begin), end - now)
        )
    return "error" if left < urgent else "warning" if left < soon else ""


def _moment(value: Any) -> Optional[datetime]:
    try:
        return datetime.fromisoformat(str(value).replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def _certificates(
    host: Mapping[str, Any], certificate_days: Optional[int], now: datetime
) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield the days left and the alert of each certificate of the host, once for each certificate."""
    seen: set[str] = set()
    for test in host["tests"]:
        certificate = test["certificate"] or {}
        days = certificate.get("days_left", test.get("days_left"))
        key = str(certificate.get("fingerprint_sha256") or test.get("fingerprint_sha256") or certificate.get("subject"))
        severity = _urgency(certificate, days, certificate_days, now) if _is_number(days) else ""
        if not severity or key in seen:
            continue
        seen.add(key)
        who = f"The certificate {certificate.get('subject') or test['name']} on {host['host']}, port {test['port']},"
        end = str(certificate.get("not_after") or "")[:10]
        action = "Renew it and run enable_tls.yml, which installs it; the handshake test then checks the new one."
        if days < 0:
            when = f" on {end}" if end else ""
            message = f"{who} expired{when}; senders that check it defer their mail."
            yield days, _alert("certificate_expired", "local", message, action, host=host["host"])
        else:
            when = f" (until {end})" if end else ""
            message = f"{who} has {days} {'day' if days == 1 else 'days'} left{when}."
            yield days, _alert("certificate_expiring", "local", message, action, host=host["host"], severity=severity)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# --- lost TLS --------------------------------------------------------------------------------------------------------


def _lost_on_own_server(host: Mapping[str, Any], before: Mapping[str, Any], still: bool) -> Iterator[dict[str, Any]]:
    """Yield an alert for a server that offered STARTTLS in the former report and does not offer it now, although it answers.

    still: whether the former report has this alert. Then the alert stays until STARTTLS is offered again.
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
            f"{host['host']} ({where}) no longer offers STARTTLS. A previous report shows that it did.",
            f"Check the recent changes on {host['host']}; its log shows why TLS is off. If TLS was switched off on purpose, set "
            "a delivery mode that allows plaintext too, or mail waits.",
            host=host["host"], severity="error", last=test.get("time"),
        )  # fmt: skip


def _place(test: Mapping[str, Any]) -> tuple[str, str]:
    return f"{test.get('name') or test.get('host')}:{test.get('port', 25)}", str(test.get("seen_from") or "")


def _lost_on_peers(
    host: Mapping[str, Any], before: Mapping[str, Any], still: set[tuple[Any, Any, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield an alert for each peer domain whose mail went over TLS before and now does not."""
    activity = before.get("activity")
    used = {
        (one.get("domain"), one.get("direction"))
        for one in _dicts(activity.get("peers") if isinstance(activity, dict) else None)
        if isinstance(one.get("domain"), str)
        and isinstance(one.get("direction"), str)
        and _positive(one, "messages_tls")
    } | {(domain, direction) for name, domain, direction in still if name == host["host"]}
    # If log lines are missing, messages over TLS may be counted as plaintext.
    is_sure = not any(note.get("code") == "lines_lost" for note in (host["activity"] or {}).get("notes") or ())
    for peer in host["activity"]["peers"] if host["activity"] else ():
        domain, direction = peer["domain"], peer["direction"]
        if domain in ("", OTHER):
            continue
        refused = [one for kind in ("failures", "deferrals") for one in peer[kind] if one["reason"] in _NO_TLS_OFFERED]
        if is_sure and _all_in_plaintext(peer) and (domain, direction) in used:
            since, count, last = "in a previous report", peer["messages_plaintext"], None
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
            f"Check {whose} mail server of {domain}: run the handshake test and read its log."
            if own
            else f"Ask the administrator of {domain} whether TLS was switched off; if not, a device on the path removes it.",
            host=host["host"],
            domain=domain,
            direction=direction,
            count=count,
            last=last,
        )


def _all_in_plaintext(peer: Mapping[str, Any]) -> bool:
    return bool(peer["messages_plaintext"]) and not (peer["messages_tls"] or peer["messages_unknown"])


def _positive(of: Mapping[str, Any], name: str) -> bool:
    value = of.get(name)
    return isinstance(value, int) and value > 0


def _hosts_by_name(document: Optional[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    hosts = _dicts(document.get("hosts")) if document else []
    return {one["host"]: one for one in hosts if isinstance(one.get("host"), str)}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


# --- received TLS reports --------------------------------------------------------------------------------------------


def _tlsrpt(reports: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield one alert for each domain and result type, over all reporting organizations; if these are many, one a domain.

    None is left out for a stranger who sends many others.
    """
    found: dict[tuple[str, str], list[tuple[Mapping[str, Any], int]]] = {}
    for report in reports:
        if report["failures"]:
            for one in report["failures"]:
                found.setdefault((report["domain"], one["result_type"]), []).append((report, one["count"]))
        elif report["failed"]:
            found.setdefault((report["domain"], "unknown"), []).append((report, report["failed"]))
    if len(found) > TLS_REPORT_ALERTS:
        merged: dict[str, list[tuple[Mapping[str, Any], int]]] = {}
        for (domain, _result_type), seen in found.items():
            merged.setdefault(domain, []).extend(seen)
        found = {(domain, "of several kinds"): seen for domain, seen in merged.items()}
    for (domain, result_type), seen in found.items():
        organizations = sorted({report["organization"] for report, _count in seen})
        named = ", ".join(organizations[:3]) + (f" and {len(organizations) - 3} more" if len(organizations) > 3 else "")
        count = min(sum(one for _report, one in seen), MAX_COUNT)
        yield _alert(
            "tlsrpt_failures", "local",
            f"{named} could not set up TLS with {domain}: {count} {'session' if count == 1 else 'sessions'} failed "
            f"({result_type}).",
            _TLSRPT_ACTIONS.get(result_type, _TLSRPT_ACTIONS["validation-failure"]),
            domain=domain, direction="inbound", count=count, last=max(report["end"] for report, _count in seen),
        )  # fmt: skip
