# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks know of a fleet: email configs as the inventory words them, targets, and the rows of the verdict.

The host variables read here are those that the roles document: mail_hostname, mail_port, mail_inbound,
gateway_kind, certificate_result, and what the role verify registers (verify_probe, verify_from_gateways,
verify_controller_probe, verify_messages, verify_trace, verify_outside, verify_activity).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import LEVELS, MODES, EmailConfig
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import merge
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import failing

HostVars = Mapping[str, Mapping[str, Any]]


def target_of(host: str, hostvars: HostVars) -> Target:
    """Where other hosts reach this host's mail server. Raises EngineError."""
    facts = hostvars[host]
    try:
        target = Target(str(facts.get("mail_hostname", host)).rstrip("."), int(facts.get("mail_port", 25)))
        target.check()
    except (TypeError, ValueError) as error:  # a TargetError is a ValueError
        raise EngineError(f"mail_hostname or mail_port of {host}: {error}") from error
    return target


def resolve_servers(
    email_configs: Sequence[Mapping[str, Any]], hostvars: HostVars, hosts: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Email configs with each server's inventory name turned into the address that the gateway connects to.

    Raises EngineError naming the email config for whatever is wrong with it: a server that is not in the
    inventory, an unknown mode, a domain that is none or is in two email configs, and a server that is to require
    TLS (mail_inbound) behind a mode that may deliver in plaintext, or, of hosts, behind no email config at all.
    """
    resolved: list[dict[str, Any]] = []
    for config in email_configs:
        if not isinstance(config, Mapping):
            raise EngineError(f"an email config has to be a mapping with name, domains and servers, not {config!r}")
        names = config.get("servers") or ()
        for server in names if not isinstance(names, str) else ():
            if server not in hostvars:
                raise EngineError(
                    f"email config {config.get('name')}: the mail server {server!r} is not in the inventory; add the host "
                    "or correct the name"
                )
        servers = names if isinstance(names, str) else [str(target_of(server, hostvars)) for server in names]
        resolved.append({**config, "servers": servers})
        mode = EmailConfig.from_dict(resolved[-1]).delivery_mode
        for server in names:
            if hostvars[server].get("mail_inbound") == "required" and LEVELS[mode][0] != "encrypt":
                raise EngineError(
                    f"email config {config.get('name')}: {server} is to require TLS (mail_inbound), and '{mode}' may deliver "
                    "to it in plaintext, so mail would bounce; choose 'required' or let the server offer TLS"
                )
    merge({}, resolved)
    served = {server for config in email_configs for server in config["servers"]}
    for host in hosts:
        if hostvars[host].get("mail_inbound") == "required" and host not in served:
            raise EngineError(
                f"{host} is to require TLS (mail_inbound), and no email config says that its mail comes over TLS only; add "
                "it to one with the delivery mode 'required', or let it offer TLS"
            )
    return resolved


def with_delivery_mode(
    email_configs: Sequence[Mapping[str, Any]], email_config: Any, delivery_mode: Any
) -> list[dict[str, Any]]:
    """The one email config of this name, alone, with another delivery mode.

    The answers may come from a person or a survey: blanks around them do not count, and none at all is an error that
    says what there is to choose from. Raises EngineError.
    """
    name, mode = (str("" if answer is None else answer).strip() for answer in (email_config, delivery_mode))
    names = [str(one.get("name")) for one in email_configs if isinstance(one, Mapping)]
    if name not in names:
        what = f"there is no email config {name!r} in the inventory" if name else "email_config has to be given"
        raise EngineError(f"{what}; choose one of: {', '.join(names) or 'none, email_configs is empty'}")
    if mode not in MODES:
        what = f"{mode!r} is not a delivery mode" if mode else "delivery_mode has to be given"
        raise EngineError(f"{what}; choose one of: {', '.join(MODES)}")
    return [{**one, "delivery_mode": mode} for one in email_configs if one.get("name") == name]


def handshake_targets(hosts: Iterable[str], hostvars: HostVars, from_controller: bool = False) -> list[dict[str, Any]]:
    """Targets of starttls_probe for these hosts: the served certificate has to be the one installed.

    from_controller: connect to C(mail_address), for a controller that does not know the hosts by the names that they
    have among each other. Raises EngineError.
    """
    targets = []
    for host in hosts:
        target = target_of(host, hostvars)
        targets.append(
            {
                "host": str(hostvars[host].get("mail_address") or target.host) if from_controller else target.host,
                "port": target.port,
                "name": target.host,
                "fingerprint_sha256": (hostvars[host].get("certificate_result") or {}).get("fingerprint_sha256", ""),
            }
        )
    return targets


def own_target(host: str, hostvars: HostVars, address: str = "127.0.0.1") -> list[dict[str, Any]]:
    """The target of starttls_probe for a host that tests its own mail server, whatever other hosts call it.

    For the check C(mta_sts), the recipient domain is C(mail_domain), of a host that the MX records of the domain name.
    """
    domain = str(hostvars[host].get("mail_domain") or "")
    return [{**handshake_targets([host], hostvars)[0], "host": address, **({"domain": domain} if domain else {})}]


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


def modes_of(host: str, email_configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The delivery modes of the email configs that are delivered to a host."""
    modes = (config.get("delivery_mode") or "plaintext" for config in email_configs if host in config["servers"])
    return list(dict.fromkeys(modes))


def verdict_rows(
    hosts: Sequence[str],
    hostvars: HostVars,
    groups: Mapping[str, Sequence[str]],
    email_configs: Sequence[Mapping[str, Any]],
    expected: str = "offered",
) -> list[dict[str, Any]]:
    """What tls_verdict shows, gathered from the results that the roles registered on each host.

    expected is C(offered), C(disabled) or C(either), which judges no more than the messages; with C(disabled) the
    delivery mode counts as plaintext.
    """
    if expected == "disabled":
        email_configs = [{**config, "delivery_mode": "plaintext"} for config in email_configs]
    return [_row(host, hostvars, groups, email_configs, expected) for host in hosts]


def _row(
    host: str,
    hostvars: HostVars,
    groups: Mapping[str, Sequence[str]],
    email_configs: Sequence[Mapping[str, Any]],
    expected: str,
) -> dict[str, Any]:
    facts = hostvars[host]
    is_gateway = host in groups.get("mail_gateways", ())
    is_exim = host in groups.get("exim_servers", ()) or (is_gateway and facts.get("gateway_kind") == "exim")
    daemon = "Exim" if is_exim else "Postfix"
    modes = modes_of(host, email_configs)
    probes = tests_of(host, hostvars)
    possible = expected != "either" or all(one.get("completed") for one in probes)
    inbound = [
        judge_trace(trace, "in", inbound_expectations(trace, modes, possible))
        for trace in (facts.get("verify_trace") or {}).get("received", ())
    ]
    outbound = [
        judge_trace(trace, "out", [None if expected == "either" else expected == "offered"])
        for trace in (facts.get("verify_outside") or {}).get("received", ())
        if trace["marker"].startswith(_mark("out", host))
    ]
    return {
        "host": host,
        "daemon": f"{daemon} gateway" if is_gateway else daemon,
        "expected": expected,
        "probes": probes,
        "traces": inbound + outbound,
        "delivery_modes": modes,
        "errors": _errors(host, facts),
        "activity": (facts.get("verify_activity") or {}).get("activity"),
        "enforced": list(facts.get("gateway_enforced_domains") or ()) if is_gateway else [],
        "own_domains": {
            domain: config.get("delivery_mode") or "plaintext"
            for config in email_configs
            for domain in config["domains"]
            if is_gateway
        },
    }


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
            facts.get("verify_outside") if "mail_trace_address" in facts else None,
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
    return [None] * (len(hops) - 1) + [level == "encrypt" or (level == "may" and possible)]


def judge_trace(trace: Mapping[str, Any], direction: str, wanted: Sequence[Any]) -> dict[str, Any]:
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

    Hosts without C(mail_trace_address) are left out; without an outside host there are none. run makes the
    markers unique.
    """
    if not outside or "mail_trace_address" not in hostvars.get(outside, {}):
        return []
    there = str(hostvars[outside]["mail_trace_address"])
    messages = []
    for host in hosts:
        if "mail_trace_address" not in hostvars[host]:
            continue
        here = str(hostvars[host]["mail_trace_address"])
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

    That is C(verify_landing) of the host (mailbox, imap or command, as message_trace takes them), or its
    C(verify_mailbox). It may hold a password, so it is made when it is needed and not kept. Raises EngineError.
    """
    facts = hostvars[host]
    place = facts.get("verify_landing") or {"mailbox": str(facts.get("verify_mailbox", "/var/mail/trace"))}
    if not isinstance(place, Mapping):
        raise EngineError(f"verify_landing of {host} has to be a mapping with mailbox, imap or command")
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
        raise EngineError("report_directory is empty; name a directory on the controller")
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
