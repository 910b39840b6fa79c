# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan as text: one table, then what stands in the way, the diffs, the order and the cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.by_hand import go_on
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import FileDiff
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.rules import HANDSHAKE_CPU_MS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import (
    CERTIFICATES_ONLY,
    HostPlan,
    Located,
    Plan,
    PlanStep,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import one_line, render_table

PLAN_HEADINGS = {"host": "HOST", "role": "ROLE", "is": "IS", "change": "WILL CHANGE", "obstacles": "IN THE WAY"}
WIDTH = 64
"""Most characters of a cell, except the last one of a row: it names every obstacle."""
MOST_LINES = 30
"""Most lines that are shown of a file. The JSON file of the plan has all of them."""
MOST_NAMES = 8
"""Most names of hosts in a line."""

_WORDS = {
    "accept": "the gateways accept TLS, one at a time",
    "offer": "the mail servers get their certificates and offer STARTTLS",
    "peers": "the mail servers use TLS with their peers",
    "modes": "the gateways set the delivery modes, one at a time",
    "require": "the mail servers take mail over TLS only",
    "relax": "the mail servers that require TLS take plaintext again",
    "peers_off": "the mail servers stop using TLS with their peers",
    "off": "the mail servers switch STARTTLS off",
    "back": "the mail servers go back to what they were before the workflow",
    "remove": "everything goes from the gateways, one at a time, once their other queues are empty",
    "put_back": "the mail servers get back what was there before",
    "stop_accepting": "the gateways stop accepting TLS, one at a time",
}
"""Step -> what happens in it."""
_RENEWED = {
    "accept": "the gateways get their certificates, one at a time",
    "offer": "the mail servers get their certificates, a canary first",
}
"""The same where certificates are renewed, and nothing else changes."""
_SENDS = {"offer": "send over TLS", "off": "send in plaintext", "back": "send as before"}
"""Step -> what a send-only host does in it."""


def plan_table(plan: Plan) -> str:
    """Return the table: one row for each host of the run, then one for each host outside it that stands in the way."""
    rows = [
        {
            "host": host,
            "role": one.role.replace("_", " "),
            "is": one.present,
            "change": _change(one, host in plan.recover),
            "obstacles": list(dict.fromkeys(finding.code for finding in one.obstacles)),
        }
        for host, one in plan.hosts.items()
    ]
    outside: dict[str, list[str]] = {}
    for host, finding in plan.obstacles:
        if host and host not in plan.hosts:
            outside.setdefault(host, []).append(finding.code)
    rows += [
        {"host": host, "is": "not in this run", "obstacles": list(dict.fromkeys(found))}
        for host, found in outside.items()
    ]
    return render_table(PLAN_HEADINGS, rows, WIDTH, whole="obstacles")


def plan_text(plan: Plan) -> str:
    """Return the whole plan for people. Every line of it is printable, whatever a host said."""
    parts = [
        plan_table(plan),
        not_in_run(plan.outside),
        "\n".join(_findings("In the way", plan.obstacles)),
        "\n".join(_findings("Warnings", plan.warnings)),
        "\n".join(_diffs(plan.hosts)),
        "\n".join(_order(plan)),
        "\n".join(_by_hand(plan)),
        "\n".join(_cost(plan)),
    ]
    return "\n\n".join(part for part in parts if part)


def _change(host: HostPlan, interrupted: bool) -> str:
    if host.state == "unknown":
        return "unknown"
    files = len({one.path for one in host.changes})
    what = f"{files} file{'s' if files > 1 else ''}" if files else "reload" if host.steps else ""
    words_of = _SENDS if host.send_only else {}
    steps = ", ".join(words_of.get(step, step.replace("_", " ")) for step in host.steps)
    words = [f"{steps} ({what})" if steps and what else steps or what]
    if interrupted:
        words.insert(0, "undo the killed run")
    return "; ".join(word for word in words if word) or "no change"


def _findings(heading: str, found: Sequence[Located]) -> Iterator[str]:
    """Yield a line for each finding. Hosts with the same one share its line."""
    hosts_of: dict[str, list[str]] = {}
    for host, finding in found:
        hosts_of.setdefault(finding.message, []).append(host)
    if found:
        yield heading
    for message, hosts in hosts_of.items():
        named = names([host for host in hosts if host])
        yield one_line(f"  {named}: {message}" if named else f"  {message}")


def _diffs(hosts: Mapping[str, HostPlan]) -> Iterator[str]:
    """Yield each diff once, below the hosts that have it."""
    hosts_of: dict[FileDiff, list[str]] = {}
    for host, one in hosts.items():
        for change in one.changes:
            hosts_of.setdefault(change, []).append(host)
    if hosts_of:
        yield "Changes"
    for change, changed in hosts_of.items():
        yield one_line(f"  {change.path} on {names(changed)}")
        # Only a line feed ends a line: with any other character a host could begin one of its own.
        lines = change.lines.strip("\n").split("\n")
        for line in lines[:MOST_LINES]:
            yield f"    {one_line(line.expandtabs())}".rstrip()
        if len(lines) > MOST_LINES:
            yield f"    ... {len(lines) - MOST_LINES} more lines; starttls_plan_file has them"


def _order(plan: Plan) -> Iterator[str]:
    if plan.steps:
        yield "Order"
    for number, (step, planned) in enumerate(plan.steps.items(), 1):
        one_at_a_time = set(planned.batches) == {1}
        batches = names(planned.hosts) if one_at_a_time else "; ".join(_batches(planned))
        yield one_line(f"  {number} {step.replace('_', ' ')}: {_meaning(plan, step, planned)}: {batches}")


def _by_hand(plan: Plan) -> Iterator[str]:
    """Yield what somebody has to set at a gateway that is not in the inventory, and how the run goes on then."""
    if plan.by_hand:
        yield "By hand"
    for step, lines in plan.by_hand.items():
        for line in lines:
            yield one_line(f"  {step}: {line}")
        yield f"  The run ends before that step. Set it at the gateway, then run again with {go_on(plan.by_hand)}"


def _meaning(plan: Plan, step: str, planned: PlanStep) -> str:
    """Return what happens in a step, in words. Send-only hosts have words of their own."""
    if plan.action in CERTIFICATES_ONLY:
        return _RENEWED[step]
    senders = [host for host in planned.hosts if host in plan.hosts and plan.hosts[host].send_only]
    if not senders or step not in _SENDS:
        return _WORDS[step]
    said = f"send-only hosts {_SENDS[step]}"
    return said if len(senders) == len(planned.hosts) else f"{_WORDS[step]}, and {said}"


def _batches(planned: PlanStep) -> Iterator[str]:
    """Yield the batches in words, a few of them."""
    start, count = 0, len(planned.batches)
    for number, size in enumerate(planned.batches):
        hosts = planned.hosts[start : start + size]
        start += size
        if number >= MOST_NAMES:
            yield f"{count - number} more batches"
            return
        what = "first" if number == 0 else "then"
        yield f"{what} {size} ({names(hosts)})" if size > 1 else f"{what} {names(hosts)}"


def _cost(plan: Plan) -> Iterator[str]:
    cost = plan.cost
    yield "Cost"
    senders = names(cost.senders) or "no mail server"
    yield one_line(f"  sending through a gateway, which has to accept TLS for these only: {senders}")
    known = {host: number for host, number in cost.sessions.items() if number is not None}
    if known:
        busiest = sorted(known, key=lambda host: -known[host])
        told = names([f"{host} {known[host]:.0f}" for host in busiest])
        unknown = len(cost.sessions) - len(known)
        yield one_line(f"  sessions an hour: {told}{f'; not known of {unknown} others' if unknown else ''}")
    elif cost.sessions:
        yield "  sessions an hour: not known"
    seen = (
        f"{cost.handshake_ms:g} ms in the tests of this run"
        if cost.handshake_ms is not None
        else "not tested in this run"
    )
    yield f"  a TLS handshake: {seen}; about {HANDSHAKE_CPU_MS:g} ms of CPU on a mail server"


def not_in_run(hosts: Sequence[str]) -> str:
    """Return the line on the hosts that a run leaves out, so that nobody takes them for good or bad; empty if there are none."""
    return one_line(f"Not in this run, so nothing is said of them: {names(hosts)}") if hosts else ""


def names(hosts: Iterable[str]) -> str:
    """Return the names in a line, only some of them if there are many."""
    every = list(hosts)
    more = len(every) - MOST_NAMES
    return ", ".join(every[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
