# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns the results of the roles on each host into tests, messages and verdict rows.

The functions read the results that roles and playbooks registered as host variables: certificate_result, mail_server_result,
mail_server_observed, gateway_accept_result, verify_probe, verify_from_gateway, verify_controller_probe, verify_messages, verify_sent,
verify_trace, verify_outside, verify_queue, verify_activity, verify_peers_result, mail_server_peers_result and gateway_now.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import CERTIFICATE
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, is_domain
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.controller import CONTROLLERS
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import DEFAULT_GATEWAY, PRODUCTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.as_wanted import (
    bare_name,
    enforced_there,
    is_outdated,
    lacking,
    not_in_force,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.causes import EDITS, explained
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import (
    Estate,
    HostVars,
    installed_fingerprint,
    is_send_only,
    relay_tests,
    target_of,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding, failing, of_group, of_result
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.listeners import (
    loopback_only,
    loopback_ports,
    not_as_configured,
    other_listeners,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.messages import (
    check_trace,
    inbound_expectations,
    mark_of,
    outbound_expectations,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.outcome import STEP_RESULTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peer_rows import peer_entries
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.places import (
    CONTROLLER,
    looked,
    of_controller,
    without_proof,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.by_hand import confirmed_by
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.delivery import Routing, known_modes
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import (
    Observation,
    bare,
    read_result,
    why_it_failed,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.task import OBSERVED, observed_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import GATEWAY
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import readable, understood
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.waits import why_it_waits

_ALIKE = (
    "{} and {} have one name and port for other hosts, so it is not known which of them a gateway tested",
    "give each its own starttls_hostname, which leads to no other host",
)
_DAEMON = {"broken": "configuration_broken", "stopped": "daemon_not_running"}


def tests_of(
    host: str, hostvars: HostVars, gateways: Sequence[str] = (), namesakes: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the handshake tests with a host in this run, each with its origin (C(seen_from)).

    A test of the role verify counts. Without one, that of the host's change counts, and without a change that of its read.
    namesakes: other hosts at the same name and port. A test by that name that passed may be one of them, so it is left out. Of a
    send-only host, these are its own tests of its next hops.
    """
    facts = hostvars[host]
    if is_send_only(facts):
        return [{**one, "seen_from": host} for one in _relay_tests(facts)]
    target = target_of(host, hostvars)
    tests = [{**one, "seen_from": host} for one in _own_tests(facts)]
    from_gateways = [
        {**one, "seen_from": gateway}
        for gateway in gateways
        for one in _gateway_tests(hostvars[gateway])
        if is_of(one, target) and not (namesakes and one.get("completed"))
    ]
    tests += [one if one["seen_from"] == host else _same_server(host, one, tests) for one in from_gateways]
    result = readable(facts.get("verify_controller_probe"))
    mine = [one for one in result.get("results") or () if is_of(one, target)]
    if namesakes:
        address = facts.get("starttls_address") or ""
        mine = [one for one in mine if one.get("host") == address or not (address or one.get("completed"))]
    tests += [{**one, "seen_from": CONTROLLER} for one in of_controller(result, mine, target, from_gateways)]
    expected = installed_fingerprint(facts)
    return _explained(host, facts, [_compared(one, expected) for one in tests])


def _explained(host: str, facts: Mapping[str, Any], tests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tests with their causes, if the host was read and nothing of it has changed since."""
    if is_outdated(facts) or readable(facts.get("certificate_result")).get("changed"):
        return tests
    seen = readable(observed_of(facts.get(name) for name in OBSERVED))
    if seen.get("kind") in CONTROLLERS or not seen.get("listeners"):
        return tests
    with understood(f"what {host} returned"):
        default = str((seen.get("layout") or {}).get("certificate") or CERTIFICATE)
        return explained(tests, host, seen, str(facts.get("starttls_certificate_path") or default))


def namesakes_of(hosts: Sequence[str], hostvars: HostVars) -> dict[str, list[str]]:
    """Return for each host the others that are reached by the same name and port. Two inventory names of one machine are one."""
    named: dict[tuple[Any, int], dict[str, Any]] = {}
    for host in dict.fromkeys(hosts):
        with contextlib.suppress(EngineError):  # its own row says what is wrong with it
            target = target_of(host, hostvars)
            machine = hostvars[host].get("ansible_host") or host
            named.setdefault((bare_name(target.server_name), target.port), {})[host] = machine
    return {
        host: [one for one, other in found.items() if other != machine]
        for found in named.values()
        if len(found) > 1
        for host, machine in found.items()
    }


def is_of(test: Mapping[str, Any], target: Target) -> bool:
    """Return whether a handshake test was made with this target. Case and a dot at the end of the name do not matter."""
    return (bare_name(test["name"]), test["port"]) == (bare_name(target.server_name), target.port)


def _compared(test: Mapping[str, Any], expected: str) -> dict[str, Any]:
    """Return a test with a finding if it served another certificate than the installed one, and nobody compared them yet."""
    served, findings = test.get("fingerprint_sha256"), test.get("findings") or []
    if (
        not (expected and served)
        or served in expected.split(",")
        or any(one.get("code") == "wrong_certificate" for one in findings)
    ):
        return dict(test)
    said = f"the certificate served ({served[:16]}...) is not the one that was installed ({expected[:16]}...)"
    return {**test, "findings": [*findings, Finding.advised("wrong_certificate", said).as_dict()]}


def _same_server(host: str, test: Mapping[str, Any], own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a gateway's test with a finding if another server answered than in the host's own tests of that port.

    Hosts that share a certificate can be told apart by the name with which they greet only.
    """
    seen = _greets_as(test)
    here = {_greets_as(one) for one in own if one.get("port") == test.get("port")} - {""}
    if not seen or not here or seen in here:
        return dict(test)
    said = f"{seen} answered {test['seen_from']}, and {' and '.join(sorted(here))} answered {host} itself"
    return {**test, "findings": [*(test.get("findings") or ()), Finding.advised("another_server", said).as_dict()]}


def _greets_as(test: Mapping[str, Any]) -> str:
    """Return the name with which the server of a completed test greets; empty if it cannot be told.

    It begins a line. Of several lines the last one counts: postscreen of Postfix sends one of its own first, and not to everybody.
    """
    lines = str(test.get("greeting") or "").partition(" ")[2].split(" / ") if test.get("completed") else []
    names = [bare_name(line.partition(" ")[0]) for line in lines]
    return next((one for one in reversed(names) if "." in one and is_domain(one)), "")


_ON_CERTIFICATES = frozenset(one.code for one in of_group("certificate"))


def _relay_tests(facts: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """Return the tests of the next hops of a send-only host, without findings on certificates: its daemon looks at none."""
    made = readable(facts.get("verify_probe"))
    tests = made.get("results") or () if made and not made.get("skipped") else relay_tests(facts)
    found = []
    for one in tests:
        findings = [two for two in one.get("findings") or () if two.get("code") not in _ON_CERTIFICATES]
        found.append({**one, "findings": findings, "passed": bool(one.get("completed")) and not failing(findings)})
    return found


def _own_tests(facts: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the tests of a host with its own port."""
    made = readable(facts.get("verify_probe"))
    if made and not made.get("skipped"):
        return list(made.get("results") or ())
    change = readable(facts.get("mail_server_result"))
    if change.get("changed"):  # the read is older than this
        return list((change.get("probe") or {}).get("results") or ())
    return [one for one in _read_tests(facts) if one.get("own")]


def _gateway_tests(facts: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the tests that a gateway made with other hosts."""
    made = readable(facts.get("verify_from_gateway"))
    if made and not made.get("skipped"):
        return list(made.get("results") or ())
    return [one for one in _read_tests(facts) if not one.get("own")]


def _read_tests(facts: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    observed = readable(observed_of([facts.get(name) for name in OBSERVED]))
    return list((observed.get("probe") or {}).get("results") or ())


def failed_tests(
    host: str,
    hostvars: HostVars,
    fail_on: str = "error",
    gateways: Sequence[str] = (),
    namesakes: Mapping[str, Sequence[str]] = {},
) -> list[str]:
    """Return the findings on one host that are at least as severe as fail_on, each with the origin of its test.

    namesakes: what namesakes_of returns.
    """
    others = namesakes.get(host) or ()
    tests = tests_of(host, hostvars, gateways, others)
    of_host = without_proof(host, tests, host in gateways)
    if is_send_only(hostvars[host]):
        others = ()
        of_host += _without_relay(hostvars[host]) if not tests else []
    if others and host not in gateways and _missing(tests, gateways):
        of_host.append(_alike(host, others))
    return [
        f"{host} ({one.get('host') or one['name']}:{one['port']}, seen from {one['seen_from']}): {finding['message']}"
        for one in tests
        for finding in failing([of_result(two) for two in one.get("findings") or ()], fail_on)
    ] + [f"{host}: {one['message']}" for one in failing(of_host, fail_on)]


def verdict_rows(
    hosts: Sequence[str],
    hostvars: HostVars,
    groups: Mapping[str, Sequence[str]],
    wanted: Mapping[str, Any],
    expected: str = "offered",
) -> list[dict[str, Any]]:
    """Return the rows for tls_verdict, from the results that the roles registered on each host.

    wanted is an estate as plain data (Estate.to_json). expected is C(offered), C(disabled), C(either) or C(removed). C(either)
    checks the messages only. With C(disabled) the delivery mode counts as plaintext. With C(removed) the inventory's delivery modes
    do not count either.
    """
    parsed = Estate.from_json(wanted)
    if expected == "disabled":
        parsed = parsed.in_plaintext()
    elif expected == "removed":
        parsed, expected = parsed.without_modes(), "either"
    gateways = [one for one in groups.get("mail_gateways") or () if one in hostvars]
    confirmed = bool(hosts) and "modes" in confirmed_by(hostvars[hosts[0]])
    routing = Routing.of(parsed, {one: _gateway_read(hostvars[one]) for one in gateways}, gateways, confirmed)
    mail_hosts = [one for one in (*gateways, *(groups.get("mail_servers") or ())) if one in hostvars]
    namesakes = namesakes_of(mail_hosts, hostvars)
    return [_row_or_fault(host, hostvars, groups, routing, expected, namesakes.get(host) or ()) for host in hosts]


def _gateway_read(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the newest read of a gateway. That of the plan is older than a change of the modes, so it no longer counts after one."""
    newest = facts.get("gateway_now") or {}
    if newest and not newest.get("skipped"):
        return {**newest, "gateway": newest}
    return {} if (facts.get("gateway_result") or {}).get("changed") else facts.get("gateway_observed") or {}


def _row_or_fault(
    host: str,
    hostvars: HostVars,
    groups: Mapping[str, Sequence[str]],
    routing: Routing,
    expected: str,
    namesakes: Sequence[str],
) -> dict[str, Any]:
    """Return the row of a host; one that says why, if its results cannot be understood. Others keep theirs."""
    try:
        with understood(f"what {host} returned"):
            return _row(host, hostvars, groups, routing, expected, namesakes)
    except EngineError as error:
        return {
            "host": host, "daemon": "mail server", "expected": expected, "probes": [], "traces": [], "delivery_modes": [],
            "findings": [], "not_seen_from": [], "errors": [str(error)], "activity": None, "enforced": [], "own_domains": {},
            "peers": [], "send_only": False,
        }  # fmt: skip


def _row(
    host: str,
    hostvars: HostVars,
    groups: Mapping[str, Sequence[str]],
    routing: Routing,
    expected: str,
    namesakes: Sequence[str],
) -> dict[str, Any]:
    facts = hostvars[host]
    is_gateway = host in groups.get("mail_gateways", ())
    sends_only = not is_gateway and is_send_only(facts)
    if expected == "disabled" and not is_gateway and _goes_on_offering(facts):
        expected = "either"
    shown = [] if is_gateway else routing.modes(host, str(target_of(host, {host: facts})))
    # A mode that somebody has to set by hand is none as long as nobody has confirmed it.
    modes = known_modes(shown, routing.estate.modes_of(host) if routing.seen or routing.confirmed else [])
    gateways = [one for one in groups.get("mail_gateways", ()) if one in hostvars]
    probes = tests_of(host, hostvars, gateways, namesakes)
    missing = [] if is_gateway or sends_only else _missing(probes, gateways)
    possible = expected != "either" or all(one.get("completed") for one in probes)
    sends = [hostvars[one].get("starttls_send") for one in gateways]
    asked = [one for one in hostvars if "verify_queue" in hostvars[one]]
    looked_at = [one for one in asked if readable(hostvars[one]["verify_queue"]).get("looked")]

    def queued(trace: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
        missed = asked and not trace["arrived"]
        return why_it_waits(trace["marker"], list(hostvars), hostvars) if missed else {}, looked_at

    inbound = [
        check_trace(trace, "in", inbound_expectations(trace, modes, possible), *queued(trace))
        for trace in readable(facts.get("verify_trace")).get("received") or ()
    ]
    outbound = [
        check_trace(trace, "out", outbound_expectations(expected, sends), *queued(trace))
        for trace in _seen_outside(facts).get("received") or ()
        if trace["marker"].startswith(mark_of("out", host))
    ]
    wanted = () if is_gateway else routing.estate.peers.get(host, ())
    routed = _of_routing(host, is_gateway, hostvars, groups, routing, expected)
    peers = peer_entries(wanted, facts, observed_of(facts.get(name) for name in OBSERVED), expected) if wanted else []
    return {
        "host": host,
        "daemon": _title(facts, is_gateway),
        # Whether its relay still offers TLS is the relay's affair.
        "expected": "either" if sends_only and expected == "disabled" else expected,
        "send_only": sends_only,
        "probes": probes,
        "traces": inbound + outbound,
        "delivery_modes": shown,
        "listeners": [] if sends_only else _listeners(facts, target_of(host, hostvars).port),
        "findings": [
            *(one for one in _of_daemon(facts) if one["code"] != EDITS or EDITS not in [two.code for two in routed]),
            *without_proof(host, probes, is_gateway),
            *_not_reached(
                host, facts, probes, target_of(host, hostvars).port if expected == "offered" and not sends_only else 0
            ),
            *(_without_relay(facts) if sends_only and not probes else ()),
            *_of_listeners(facts),
            *_untested(host, missing, routing.estate, namesakes),
            *(one.as_dict() for one in routed),
            *(Finding.advised("not_as_wanted", one).as_dict() for one in lacking(host, facts, is_gateway, expected)),
            *(finding for one in peers for finding in one["findings"]),
            *(one.as_dict() for one in not_in_force(host, facts if is_gateway and expected == "offered" else {})),
        ],
        "peers": peers,
        "not_seen_from": missing,
        "errors": _errors(
            host,
            facts,
            _seen_outside(facts),
            {one: hostvars[one].get("verify_from_gateway") for one in gateways},
        ),
        "activity": readable(facts.get("verify_activity")).get("activity"),
        "enforced": enforced_there(facts) if is_gateway else [],
        "own_domains": routing.domains() if is_gateway else {},
    }


def _goes_on_offering(facts: Mapping[str, Any]) -> bool:
    """Return whether a host still offers TLS once it is switched off, because it always has: Exchange, whose logins need it."""
    change, seen = (readable(facts.get(name)) for name in ("mail_server_result", "mail_server_observed"))
    if seen.get("kind") not in CONTROLLERS:
        return False
    after = change.get("after") or seen.get("after") or seen.get("before") or {}
    return after.get("inbound") in ("offered", "custom")


def _listeners(facts: Mapping[str, Any], port: int) -> list[dict[str, Any]]:
    """Return the listeners that differ from the main one."""
    if is_outdated(facts):
        return []
    return other_listeners(readable(observed_of(facts.get(name) for name in OBSERVED)), port)


def _of_listeners(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a finding for each listener that does not do what its configuration says, as its own host sees it."""
    if is_outdated(facts):
        return []
    return [one.as_dict() for one in not_as_configured(readable(observed_of(facts.get(name) for name in OBSERVED)))]


def _not_reached(
    host: str, facts: Mapping[str, Any], probes: Sequence[Mapping[str, Any]], port: int
) -> list[dict[str, Any]]:
    """Return a finding if the server takes mail from the host itself only, and no other place got through (by an address translation)."""
    others = [one for one in probes if one.get("seen_from") != host]
    reached = any(looked(one) and one.get("stage", "connect") != "connect" for one in others)
    observed = readable(observed_of(facts.get(name) for name in OBSERVED))  # a change does not touch the addresses
    if reached or port not in loopback_ports(observed):
        return []
    return [loopback_only(port).as_dict()]


def _without_relay(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return why a send-only host has no test: it has no relay, or nobody has read it."""
    reads = (readable(facts.get(name)) for name in ("mail_server_observed", "verify_read"))
    notes = [one for read in reads for one in read.get("notes") or () if one.get("code") == "relay_not_tested"]
    if notes:
        return [Finding.advised("relay_not_tested", str(notes[0].get("message"))).as_dict()]
    return [Finding.advised("not_tested", "the handshake test with its relay was not made").as_dict()]


def _of_daemon(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the read said of the daemon, if it is broken or stopped, or has not read what somebody edited."""
    if is_outdated(facts):
        return []
    seen = read_result(observed_of(facts.get(name) for name in OBSERVED))
    if not isinstance(seen, Observation):
        return []
    if seen.state not in _DAEMON:
        edits = [one.message.partition("; ")[0] for one in seen.notes if one.code == EDITS]
        return [Finding.advised(EDITS, one).as_dict() for one in edits]
    runs = {True: "; the daemon runs", False: "; the daemon does not run", None: ""}[seen.running]
    said = seen.message or "it gave no reason"
    return [Finding(_DAEMON[seen.state], f"{said}{runs if seen.state == 'broken' else ''}").as_dict()]


def _of_routing(
    host: str,
    is_gateway: bool,
    hostvars: HostVars,
    groups: Mapping[str, Sequence[str]],
    routing: Routing,
    expected: str,
) -> list[Finding]:
    if not is_gateway:
        return routing.of_host(host)
    if host not in routing.views:
        return []
    servers = [one for one in groups.get("mail_servers") or () if one in hostvars]
    hosts_of = {bare(target_of(one, hostvars)): one for one in servers}
    return routing.of_gateway(host, hosts_of, whole=expected != "either")


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


def _missing(probes: Sequence[Mapping[str, Any]], gateways: Sequence[str]) -> list[str]:
    """Return which gateways did not test a mail server. They connect to it, so its own test is not the whole proof."""
    there = {probe.get("seen_from") for probe in probes if looked(probe)}
    return [one for one in gateways if one not in there]


def _untested(host: str, missing: Sequence[str], wanted: Estate, namesakes: Sequence[str]) -> list[dict[str, Any]]:
    outside = [one for one in missing if wanted.hosts and one not in wanted.hosts]
    inside = [one for one in missing if one not in outside]
    if inside and namesakes:
        return [_alike(host, namesakes)]
    found = {
        f"{host} was not tested from the gateway {', '.join(inside)}": missing != outside,
        f"{host} was not tested from the gateway {', '.join(outside)}, which is not in this run": bool(outside),
    }
    return [Finding.advised("not_tested_from_gateway", text).as_dict() for text, holds in found.items() if holds]


def _alike(host: str, namesakes: Sequence[str]) -> dict[str, Any]:
    said, advice = _ALIKE
    return Finding.advised("not_tested_from_gateway", said.format(host, ", ".join(namesakes)), advice).as_dict()


def _seen_outside(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the result of message_trace outside: the sending if it failed, else what arrived there."""
    sent, seen = (readable(facts.get(name)) for name in ("verify_sent", "verify_outside"))
    return sent if sent.get("failed") or sent.get("unreachable") else {} if seen.get("skipped") else seen


def _errors(
    host: str, facts: Mapping[str, Any], outside: Mapping[str, Any], from_gateways: Mapping[str, Any]
) -> list[str]:
    """Return the steps that failed on a host, with reasons. A host with missing results must not pass."""
    steps = [
        ("the handshake test", host, facts.get("verify_probe")),
        *(("the handshake test", gateway, result) for gateway, result in from_gateways.items()),
        ("the test message", host, facts.get("verify_trace")),
        (
            "the test message",
            "the outside host",
            outside if "starttls_trace_address" in facts else None,
        ),
        ("the count from the log", host, facts.get("verify_activity")),
        ("the read of the gateway", host, facts.get("gateway_now")),
        ("the proof with the peers", host, facts.get("verify_peers_result")),
    ]
    reads = (facts.get("mail_server_result"), observed_of(facts.get(name) for name in OBSERVED))
    odd = [f"{host} cannot be judged: {readable(one)['msg']}" for one in reads if one and readable(one) is not one]
    return odd + [
        f"{what} could not be made on {place}: {_why(result)}"
        for what, place, result in ((what, place, readable(result)) for what, place, result in steps)
        if result and (result.get("failed") or result.get("unreachable"))
    ]


def _why(result: Mapping[str, Any]) -> str:
    """Return the message of a failed step, or what the module wrote if it ended without one."""
    if "module_stderr" in result or "module_stdout" in result:
        return why_it_failed(result)
    return str(result.get("msg", "it failed"))


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
        raise EngineError(
            f"starttls_report_formats: {unknown[0]!r} is not a format of a report; choose one of: {', '.join(REPORT_FILES)}"
        )
    if not str(directory).strip():
        raise EngineError("starttls_report_directory is empty; name a directory on the controller")
    return [
        {"format": one, "path": f"{str(directory).rstrip('/')}/{REPORT_FILES[one]}"} for one in dict.fromkeys(words)
    ]


def _tests_from_a_gateway(
    host: str, hostvars: HostVars, in_run: bool, namesakes: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the tests that a gateway made with a host after its change. A test that could not be made is one with a finding.

    in_run: whether a gateway is in the run. One that was left out may be down, and that is no fault of the run.
    namesakes: other hosts at the same name and port. A test that passed may be one of them, so it is one with a warning.
    """
    made = readable(hostvars[host].get("verify_from_a_gateway"))
    if not made or made.get("skipped") or (made.get("unreachable") and not in_run):
        return []
    if is_send_only(hostvars[host]):
        return []
    target = target_of(host, hostvars)
    found = [one for one in made.get("results") or () if is_of(one, target)]
    if not found:
        finding = Finding("not_gathered", f"the gateway did not test it: {made.get('msg', 'there is no result')}")
        found = [{"findings": [finding.as_dict()]}]
    elif namesakes:
        found = [one for one in found if not one.get("completed")] or [{"findings": [_alike(host, namesakes)]}]
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
    has_gateway = any(one.get("role") == GATEWAY for one in (plan.get("hosts") or {}).values())
    in_run = has_gateway or not plan.get("not_in_this_run")
    tests = options["tests"]
    if not tests:
        known = (*(plan.get("hosts") or ()), *(plan.get("not_in_this_run") or ()))
        alike = namesakes_of([one for one in known if one in hostvars], hostvars)
        tests = [one for host in hosts for one in _tests_from_a_gateway(host, hostvars, in_run, alike.get(host) or ())]
    return {
        "plan": plan,
        "step": step,
        "results": results,
        "tests": tests,
        "batch": list(variables.get("ansible_play_batch") or ()),
        "fail_on": str(variables.get("starttls_fail_on") or "error"),
    }
