# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns the results of the roles on each host into tests, messages and verdict rows.

The functions read the results that roles and playbooks registered as host variables: certificate_result, mail_server_result,
mail_server_observed, gateway_accept_result, verify_probe, verify_from_gateway, verify_controller_probe, verify_messages, verify_sent,
verify_trace, verify_outside and verify_activity.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import LEVELS
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import DEFAULT_GATEWAY, PRODUCTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import (
    Estate,
    HostVars,
    installed_fingerprint,
    target_of,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding, failing
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.outcome import STEP_RESULTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.task import OBSERVED, observed_of


def tests_of(host: str, hostvars: HostVars, gateways: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the handshake tests with a host in this run, each with its origin (C(seen_from)).

    A test of the role verify counts. Without one, that of the host's change counts, and without a change that of its read.
    """
    facts = hostvars[host]
    target = target_of(host, hostvars)
    tests = [{**one, "seen_from": host} for one in _own_tests(facts)]
    places = [(gateway, _gateway_tests(hostvars[gateway])) for gateway in gateways]
    places.append(("the controller", (facts.get("verify_controller_probe") or {}).get("results", ())))
    for place, results in places:
        tests += [{**one, "seen_from": place} for one in results if is_of(one, target)]
    expected = installed_fingerprint(facts)
    return [_compared(one, expected) for one in tests]


def is_of(test: Mapping[str, Any], target: Target) -> bool:
    """Return whether a handshake test was made with this target. Case and a dot at the end of the name do not matter."""
    return (_bare(test["name"]), test["port"]) == (_bare(target.server_name), target.port)


def _bare(name: Any) -> str:
    return str(name).lower().rstrip(".")


def _compared(test: Mapping[str, Any], expected: str) -> dict[str, Any]:
    """Return a test with a finding if it served another certificate than the installed one, and nobody compared them yet."""
    served, findings = test.get("fingerprint_sha256"), test.get("findings") or []
    if (
        not (expected and served)
        or served == expected
        or any(one.get("code") == "wrong_certificate" for one in findings)
    ):
        return dict(test)
    said = f"the certificate served ({served[:16]}...) is not the one that was installed ({expected[:16]}...)"
    return {**test, "findings": [*findings, Finding.advised("wrong_certificate", said).as_dict()]}


def _own_tests(facts: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the tests of a host with its own port."""
    made = facts.get("verify_probe") or {}
    if made and not made.get("skipped"):
        return list(made.get("results", ()))
    change = facts.get("mail_server_result") or {}
    if change.get("changed"):  # the read is older than this
        return list((change.get("probe") or {}).get("results", ()))
    return [one for one in _read_tests(facts) if one.get("own")]


def _gateway_tests(facts: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the tests that a gateway made with other hosts."""
    made = facts.get("verify_from_gateway") or {}
    if made and not made.get("skipped"):
        return list(made.get("results", ()))
    return [one for one in _read_tests(facts) if not one.get("own")]


def _read_tests(facts: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return list((observed_of([facts.get(name) for name in OBSERVED]).get("probe") or {}).get("results", ()))


def failed_tests(host: str, hostvars: HostVars, fail_on: str = "error", gateways: Sequence[str] = ()) -> list[str]:
    """Return the findings on one host that are at least as severe as fail_on, each with the origin of its test."""
    return [
        f"{host} ({one['host']}:{one['port']}, seen from {one['seen_from']}): {finding['message']}"
        for one in tests_of(host, hostvars, gateways)
        for finding in failing(one["findings"], fail_on)
    ]


def verdict_rows(
    hosts: Sequence[str],
    hostvars: HostVars,
    groups: Mapping[str, Sequence[str]],
    wanted: Mapping[str, Any],
    expected: str = "offered",
) -> list[dict[str, Any]]:
    """Return the rows for tls_verdict, from the results that the roles registered on each host.

    wanted is an estate as plain data (Estate.to_json). expected is C(offered), C(disabled) or C(either). C(either)
    checks the messages only. With C(disabled) the delivery mode counts as plaintext.
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
    gateways = [one for one in groups.get("mail_gateways", ()) if one in hostvars]
    probes = tests_of(host, hostvars, gateways)
    possible = expected != "either" or all(one.get("completed") for one in probes)
    inbound = [
        check_trace(trace, "in", inbound_expectations(trace, modes, possible))
        for trace in (facts.get("verify_trace") or {}).get("received", ())
    ]
    outbound = [
        check_trace(trace, "out", [None if expected == "either" else expected == "offered"])
        for trace in _seen_outside(facts).get("received") or ()
        if trace["marker"].startswith(_mark("out", host))
    ]
    return {
        "host": host,
        "daemon": _title(facts, is_gateway),
        "expected": expected,
        "probes": probes,
        "traces": inbound + outbound,
        "delivery_modes": modes,
        "untested": _untested(host, probes, gateways) if not is_gateway else [],
        "errors": _errors(
            host,
            facts,
            _seen_outside(facts),
            {one: hostvars[one].get("verify_from_gateway") for one in gateways},
        ),
        "activity": (facts.get("verify_activity") or {}).get("activity"),
        "enforced": list(facts.get("starttls_enforced_domains") or ()) if is_gateway else [],
        "own_domains": wanted.domains if is_gateway else {},
    }


def _title(facts: Mapping[str, Any], is_gateway: bool) -> str:
    """Return the title of the product on a host, from its results or the inventory; a neutral word if both lack it."""
    results = (facts.get("mail_server_result"), observed_of([facts.get(name) for name in OBSERVED]))
    kinds = [(result or {}).get("kind") for result in results]
    kinds.append(facts.get("starttls_kind"))
    kinds.append(((facts.get("verify_activity") or {}).get("activity") or {}).get("daemon"))
    kinds.append(DEFAULT_GATEWAY if is_gateway else None)
    product = next((PRODUCTS[kind] for kind in kinds if kind in PRODUCTS), None)
    title = product.title if product else "mail server"
    return f"{title} gateway" if is_gateway and "gateway" not in title.lower() else title


def _untested(host: str, probes: Sequence[Mapping[str, Any]], gateways: Sequence[str]) -> list[str]:
    """Return which gateways did not test a mail server. They connect to it, so its own test is not the whole proof."""
    missing = [one for one in gateways if one not in {probe.get("seen_from") for probe in probes}]
    return [f"{host} was not tested from the gateway {', '.join(missing)}"] if missing else []


def _seen_outside(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the result of message_trace outside: the sending if it failed, else what arrived there."""
    sent, seen = (facts.get(name) or {} for name in ("verify_sent", "verify_outside"))
    return sent if sent.get("failed") or sent.get("unreachable") else {} if seen.get("skipped") else seen


def _errors(
    host: str, facts: Mapping[str, Any], outside: Mapping[str, Any], from_gateways: Mapping[str, Any]
) -> list[str]:
    """Return the steps that failed on a host, with reasons. A host with missing results must not pass."""
    steps = [
        ("the handshake test", host, facts.get("verify_probe")),
        *(("the handshake test", gateway, result) for gateway, result in from_gateways.items()),
        ("the handshake test", "the controller", facts.get("verify_controller_probe")),
        ("the test message", host, facts.get("verify_trace")),
        (
            "the test message",
            "the outside host",
            outside if "starttls_trace_address" in facts else None,
        ),
        ("the count from the log", host, facts.get("verify_activity")),
    ]
    return [
        f"{what} could not be made on {place}: {result.get('msg', 'it failed')}"
        for what, place, result in steps
        if result and (result.get("failed") or result.get("unreachable"))
    ]


def inbound_expectations(trace: Mapping[str, Any], modes: Sequence[str], possible: bool = True) -> list[Any]:
    """Return whether each network hop of an inbound message must use TLS; None if TLS and plaintext are both allowed.

    possible: whether the mail server completes a handshake, for the modes that use TLS if possible. The outside sender
    decides about the first hop. The delivery mode decides about the last hop.
    """
    hops = [hop for hop in trace["hops"] if hop["network"]]
    if len(hops) < 2 or len(modes) != 1:
        return [None] * len(hops)
    level = LEVELS[modes[0]][1 if hops[0]["tls"] else 0]
    return [None] * (len(hops) - 1) + [level == "required" or (level == "opportunistic" and possible)]


def check_trace(trace: Mapping[str, Any], direction: str, wanted: Sequence[Any]) -> dict[str, Any]:
    """Return a result of message_trace with C(direction) and C(findings). wanted has one entry for each network hop, in order."""
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
    """Return the prefix of a host's markers: readable, unique for the host, of characters that message_trace accepts."""
    readable = re.sub(r"[^A-Za-z0-9-]", "-", host)[:20]
    return f"{direction}-{readable}-{hashlib.sha256(host.encode()).hexdigest()[:8]}-"


def trace_messages(hosts: Sequence[str], hostvars: HostVars, outside: str, run: str) -> list[dict[str, Any]]:
    """Return the test messages of a run: for each host one from outside (C(inbound)) and one to the outside (C(outbound)).

    Hosts without C(starttls_trace_address) are left out. Without an outside host there are no messages. run makes the
    markers unique.
    """
    if not outside:
        return []
    if outside not in hostvars:
        raise EngineError(
            f"starttls_outside_host {outside!r} is not in the inventory; add the host or correct the name"
        )
    if "starttls_trace_address" not in hostvars[outside]:
        return []
    there = str(hostvars[outside]["starttls_trace_address"])
    messages = []
    for host in hosts:
        if host == outside or "starttls_trace_address" not in hostvars[host]:
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


def trace_work(messages: Sequence[Mapping[str, Any]], host: str, hostvars: HostVars) -> dict[str, list[dict[str, Any]]]:
    """Return what message_trace has to C(send) and to C(receive) on a mail server. Both are empty without messages of it.

    Raises EngineError.
    """
    mine = [one for one in messages if one["host"] == host]
    landings = trace_landings(mine, "inbound", host, hostvars) if mine else []
    return {"send": [dict(one["outbound"]) for one in mine], "receive": landings}


def trace_landings(
    messages: Sequence[Mapping[str, Any]], direction: str, host: str, hostvars: HostVars
) -> list[dict[str, Any]]:
    """Return the landings for message_trace on a host: the messages of one direction, and their place on that host.

    The place is C(starttls_landing) of the host (mailbox, imap or command, as in message_trace), or its
    C(starttls_mailbox). The result may hold a password, so playbooks compute it when needed and do not store it. Raises
    EngineError.
    """
    facts = hostvars[host]
    place = facts.get("starttls_landing") or {"mailbox": str(facts.get("starttls_mailbox", "/var/mail/trace"))}
    if not isinstance(place, Mapping):
        raise EngineError(f"starttls_landing of {host} has to be a mapping with mailbox, imap or command")
    return [{"marker": one[direction]["marker"], **place} for one in messages]


# The file name for each format of tls_report.
REPORT_FILES = {
    "html": "report.html",
    "json": "report.json",
    "csv": "report.csv",
    "junit": "report.junit.xml",
    "prometheus": "mailfleet_starttls.prom",
}


def report_outputs(formats: Union[str, Sequence[str]], directory: str) -> list[dict[str, str]]:
    """Return the outputs of tls_report: one file for each format, in a directory on the controller.

    formats is a list or, from a survey, text with commas or blanks between. Raises EngineError.
    """
    words = re.split(r"[,\s]+", formats.strip()) if isinstance(formats, str) else [str(one) for one in formats]
    unknown = [one for one in words if one not in REPORT_FILES]
    if unknown:
        raise EngineError(f"{unknown[0]!r} is not a format of a report; choose one of: {', '.join(REPORT_FILES)}")
    if not str(directory).strip():
        raise EngineError("starttls_report_directory is empty; name a directory on the controller")
    return [
        {"format": one, "path": f"{str(directory).rstrip('/')}/{REPORT_FILES[one]}"} for one in dict.fromkeys(words)
    ]


def _tests_from_a_gateway(host: str, hostvars: HostVars) -> list[dict[str, Any]]:
    """Return the tests that a gateway made with a host after its change. A test that could not be made is one with a finding."""
    made = hostvars[host].get("verify_from_a_gateway") or {}
    if not made or made.get("skipped"):
        return []
    target = target_of(host, hostvars)
    found = [one for one in made.get("results", ()) if is_of(one, target)]
    if not found:
        finding = Finding("not_gathered", f"the gateway did not test it: {made.get('msg', 'there is no result')}")
        found = [{"findings": [finding.as_dict()]}]
    return [{**one, "inventory_host": host} for one in found]


def outcome_input(options: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of check_step: the options of tls_outcome, completed by what the roles of this run registered.

    variables: those of the task, with hostvars and ansible_play_batch. Raises EngineError if the run has no plan.
    """
    hostvars: HostVars = variables.get("hostvars") or {}
    plan = options["plan"] or hostvars["localhost"].get("tls_plan")
    if not plan:
        raise EngineError("this run has no plan; start the playbook at its beginning, without --start-at-task")
    step = options["step"]
    hosts = plan["steps"].get(step, {}).get("hosts", ())
    variable = STEP_RESULTS[step][0] if step in STEP_RESULTS else ""
    results = options["results"] or {host: dict(hostvars[host].get(variable) or {}) for host in hosts}
    tests = options["tests"] or [one for host in hosts for one in _tests_from_a_gateway(host, hostvars)]
    return {
        "plan": plan,
        "step": step,
        "results": results,
        "tests": tests,
        "batch": list(variables.get("ansible_play_batch") or ()),
        "fail_on": str(variables.get("starttls_fail_on") or "error"),
    }
