# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles found out on each host: the tests, the messages, the rows of the verdict, and whether a step was made.

Read are the results that roles and playbooks registered as host variables: certificate_result, mail_server_result,
mail_server_observed, gateway_accept_result, verify_probe, verify_from_gateways, verify_controller_probe, verify_messages, verify_trace,
verify_outside and verify_activity.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import LEVELS
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import PRODUCTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Estate, HostVars, target_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import failing


def tests_of(host: str, hostvars: HostVars) -> list[dict[str, Any]]:
    """The handshake tests that the role verify registered for a host, each with where it was made (C(seen_from))."""
    facts = hostvars[host]
    target = target_of(host, hostvars)
    tests = [{**one, "seen_from": host} for one in (facts.get("verify_probe") or {}).get("results", ())]
    from_gateways = (facts.get("verify_from_gateways") or {}).get("results", ())
    places = [(str(item.get("item")), item) for item in from_gateways]
    places.append(("the controller", facts.get("verify_controller_probe") or {}))
    for place, probe in places:
        tests += [
            {**one, "seen_from": place}
            for one in probe.get("results", ())
            if (one["name"], one["port"]) == (target.server_name, target.port)
        ]
    return tests


def failed_tests(host: str, hostvars: HostVars, fail_on: str = "error") -> list[str]:
    """The findings on one host that are at least as bad as fail_on, each with where the test was made."""
    return [
        f"{host} ({one['host']}:{one['port']}, seen from {one['seen_from']}): {finding['message']}"
        for one in tests_of(host, hostvars)
        for finding in failing(one["findings"], fail_on)
    ]


def verdict_rows(
    hosts: Sequence[str],
    hostvars: HostVars,
    groups: Mapping[str, Sequence[str]],
    wanted: Mapping[str, Any],
    expected: str = "offered",
) -> list[dict[str, Any]]:
    """What tls_verdict shows, gathered from the results that the roles registered on each host.

    wanted is an estate as plain data (Estate.to_json). expected is C(offered), C(disabled) or C(either), which checks the
    messages only. With C(disabled) the delivery mode counts as plaintext.
    """
    parsed = Estate.from_json(wanted)
    if expected == "disabled":
        parsed = parsed.in_plaintext()
    return [_row(host, hostvars, groups, parsed, expected) for host in hosts]


def _row(
    host: str,
    hostvars: HostVars,
    groups: Mapping[str, Sequence[str]],
    wanted: Estate,
    expected: str,
) -> dict[str, Any]:
    facts = hostvars[host]
    is_gateway = host in groups.get("mail_gateways", ())
    modes = wanted.modes_of(host)
    probes = tests_of(host, hostvars)
    possible = expected != "either" or all(one.get("completed") for one in probes)
    inbound = [
        check_trace(trace, "in", inbound_expectations(trace, modes, possible))
        for trace in (facts.get("verify_trace") or {}).get("received", ())
    ]
    outbound = [
        check_trace(trace, "out", [None if expected == "either" else expected == "offered"])
        for trace in (facts.get("verify_outside") or {}).get("received", ())
        if trace["marker"].startswith(_mark("out", host))
    ]
    return {
        "host": host,
        "daemon": _title(facts, is_gateway),
        "expected": expected,
        "probes": probes,
        "traces": inbound + outbound,
        "delivery_modes": modes,
        "errors": _errors(host, facts),
        "activity": (facts.get("verify_activity") or {}).get("activity"),
        "enforced": list(facts.get("starttls_enforced_domains") or ()) if is_gateway else [],
        "own_domains": wanted.domains if is_gateway else {},
    }


def _title(facts: Mapping[str, Any], is_gateway: bool) -> str:
    """The product on a host, as far as the host has said or the inventory says; a neutral word if neither does."""
    results = (facts.get("mail_server_result"), facts.get("gateway_accept_result"), facts.get("mail_server_observed"))
    kinds = [(result or {}).get("kind") for result in results]
    kinds.append(((facts.get("verify_activity") or {}).get("activity") or {}).get("daemon"))
    kinds.append(facts.get("starttls_kind", "postfix" if is_gateway else None))
    product = next((PRODUCTS[kind] for kind in kinds if kind in PRODUCTS), None)
    title = product.title if product else "mail server"
    return f"{title} gateway" if is_gateway and "gateway" not in title.lower() else title


def _errors(host: str, facts: Mapping[str, Any]) -> list[str]:
    """What could not be gathered about a host, and why; a place that nothing is known of must not pass."""
    tests = (facts.get("verify_from_gateways") or {}).get("results", ())
    steps = [
        ("the handshake test", host, facts.get("verify_probe")),
        *(("the handshake test", str(item.get("item")), item) for item in tests),
        ("the handshake test", "the controller", facts.get("verify_controller_probe")),
        ("the test message", host, facts.get("verify_trace")),
        (
            "the test message",
            "the outside host",
            facts.get("verify_outside") if "starttls_trace_address" in facts else None,
        ),
        ("the count from the log", host, facts.get("verify_activity")),
    ]
    return [
        f"{what} could not be made on {place}: {result.get('msg', 'it failed')}"
        for what, place, result in steps
        if result and (result.get("failed") or result.get("unreachable"))
    ]


def inbound_expectations(trace: Mapping[str, Any], modes: Sequence[str], possible: bool = True) -> list[Any]:
    """Whether each network hop of an inbound message has to use TLS; None where either will do.

    possible is whether the mail server completes a handshake, for the modes that use TLS if possible. The outside
    sender's choice on the first hop is its own; what the gateway makes of it on the last one is the delivery mode's.
    """
    hops = [hop for hop in trace["hops"] if hop["network"]]
    if len(hops) < 2 or len(modes) != 1:
        return [None] * len(hops)
    level = LEVELS[modes[0]][1 if hops[0]["tls"] else 0]
    return [None] * (len(hops) - 1) + [level == "required" or (level == "opportunistic" and possible)]


def check_trace(trace: Mapping[str, Any], direction: str, wanted: Sequence[Any]) -> dict[str, Any]:
    """A result of message_trace with C(direction) and C(findings). wanted goes with the network hops in order."""
    findings = []
    hops = [hop for hop in trace["hops"] if hop["network"]]
    what = "the message from outside" if direction == "in" else "the message to the outside"
    if not trace["arrived"]:
        findings.append(f"{what} did not arrive in time; look at the queues of the gateway and the servers")
    elif not hops:
        findings.append(f"{what} arrived without crossing a network, so it proves nothing")
    for hop, tls in zip(hops, wanted):
        if not hop.get("clear", True):
            findings.append(
                f"the Received header of {hop['by']} for {what} can be read in more than one way, so it proves nothing"
            )
        elif tls is not None and hop["tls"] != tls:
            findings.append(f"{what} reached {hop['by']} {'in plaintext' if tls else 'over TLS'} ({hop['protocol']})")
    return {**trace, "direction": direction, "findings": findings}


def _mark(direction: str, host: str) -> str:
    """The beginning of a marker: readable, of letters that message_trace takes, and no other host's."""
    readable = re.sub(r"[^A-Za-z0-9-]", "-", host)[:20]
    return f"{direction}-{readable}-{hashlib.sha256(host.encode()).hexdigest()[:8]}-"


def trace_messages(hosts: Sequence[str], hostvars: HostVars, outside: str, run: str) -> list[dict[str, Any]]:
    """The test messages of a run: for each host one from outside (C(inbound)) and one to the outside (C(outbound)).

    Hosts without C(starttls_trace_address) are left out; without an outside host there are none. run makes the
    markers unique.
    """
    if not outside or "starttls_trace_address" not in hostvars.get(outside, {}):
        return []
    there = str(hostvars[outside]["starttls_trace_address"])
    messages = []
    for host in hosts:
        if "starttls_trace_address" not in hostvars[host]:
            continue
        here = str(hostvars[host]["starttls_trace_address"])
        into, out = _mark("in", host) + run, _mark("out", host) + run
        messages.append(
            {
                "host": host,
                "inbound": {"marker": into, "sender": there, "recipient": here},
                "outbound": {"marker": out, "sender": here, "recipient": there},
            }
        )
    return messages


def trace_landings(
    messages: Sequence[Mapping[str, Any]], direction: str, host: str, hostvars: HostVars
) -> list[dict[str, Any]]:
    """What message_trace waits for on a host: the messages of one direction, where they land on that host.

    That is C(starttls_landing) of the host (mailbox, imap or command, as message_trace takes them), or its
    C(starttls_mailbox). It may hold a password, so it is made when it is needed and not kept. Raises EngineError.
    """
    facts = hostvars[host]
    place = facts.get("starttls_landing") or {"mailbox": str(facts.get("starttls_mailbox", "/var/mail/trace"))}
    if not isinstance(place, Mapping):
        raise EngineError(f"starttls_landing of {host} has to be a mapping with mailbox, imap or command")
    return [{"marker": one[direction]["marker"], **place} for one in messages]


# The file that each format of tls_report is written to.
REPORT_FILES = {
    "html": "report.html",
    "json": "report.json",
    "csv": "report.csv",
    "junit": "report.junit.xml",
    "prometheus": "mailfleet_starttls.prom",
}


def report_outputs(formats: Union[str, Sequence[str]], directory: str) -> list[dict[str, str]]:
    """Outputs of tls_report, one file a format, in a directory on the controller.

    formats may be a list or, as the answer of a survey, text with commas or blanks between. Raises EngineError.
    """
    words = re.split(r"[,\s]+", formats.strip()) if isinstance(formats, str) else [str(one) for one in formats]
    unknown = [one for one in words if one not in REPORT_FILES]
    if unknown:
        raise EngineError(f"{unknown[0]!r} is not a format of a report; choose among: {', '.join(REPORT_FILES)}")
    if not str(directory).strip():
        raise EngineError("starttls_report_directory is empty; name a directory on the controller")
    return [
        {"format": one, "path": f"{str(directory).rstrip('/')}/{REPORT_FILES[one]}"} for one in dict.fromkeys(words)
    ]


def came_through(hosts: Iterable[str], hostvars: HostVars, results: Sequence[str], inbound: Sequence[str] = ()) -> bool:
    """True if each host has one of these registered results and none of them failed; EngineError names those without.

    With inbound, the result has to end in one of these states. Ansible goes on with the next play although a host
    became unreachable; a step of the order must not.
    """
    lost = []
    for host in hosts:
        given = [hostvars[host][name] for name in results if name in hostvars[host]]
        done = [one for one in given if not one.get("skipped")]
        good = [
            one
            for one in done
            if not one.get("failed")
            and not one.get("unreachable")
            and (not inbound or (one.get("after") or {}).get("inbound") in inbound)
        ]
        if not good or len(good) < len(done):
            lost.append(host)
    if lost:
        raise EngineError(
            f"the step before did not end well on {', '.join(lost)}, and the safe order does not go on without it; "
            "repair that and run again: what is done already stays and is not done twice"
        )
    return True
