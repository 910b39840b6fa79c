# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a run stands: for each host the steps that are done, failed, or not started. A pure function of the plan and the results."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import failing, of_result
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import MALFORMED
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import one_line, render_table

STEP_RESULTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "accept": ("gateway_accept_result", ("offered", "required")),
    "offer": ("mail_server_result", ("offered", "required", "none")),
    "peers": ("mail_server_peers_result", ()),
    "modes": ("gateway_result", ()),
    "require": ("mail_server_result", ("required",)),
    "relax": ("mail_server_result", ("offered",)),
    "peers_off": ("mail_server_peers_result", ()),
    "off": ("mail_server_result", ("disabled", "none")),
    "back": ("mail_server_result", ()),
    "remove": ("gateway_removed", ()),
    "put_back": ("mail_server_put_back", ()),
    "stop_accepting": ("gateway_accept_result", ("disabled",)),
}
"""Step -> the variable that its role registers, and the inbound states in which it ends; none if it has no such state.

A host that goes back ends in the state that was planned for it.
"""

MOST_REASONS = 3
"""Most hosts whose fault is in the message of a run that stops."""
_COLUMNS = {"host": "HOST", "role": "ROLE", "state": "STATE", "reason": "REASON"}


@dataclass(frozen=True)
class Standing:
    """Where a host stands. state: C(no change), C(done), C(failed), C(failed, restored) or C(not started), with its step."""

    host: str
    role: str
    state: str
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Whether a step failed on this host."""
        return self.state.startswith("failed") or self.state.startswith("unreachable")

    def to_json(self) -> dict[str, Any]:
        """Return the standing as plain data."""
        return {"host": self.host, "role": self.role, "state": self.state, "reason": self.reason}


def standings(
    plan: Mapping[str, Any],
    step: str,
    results: Mapping[str, Mapping[str, Any]],
    tests: Sequence[Mapping[str, Any]] = (),
    batch: Collection[str] = (),
    fail_on: str = "error",
) -> list[Standing]:
    """Return where each host of the plan stands while a step runs.

    plan: Plan.to_json. step: the step that runs; the steps before it are done. results: host -> the result that the step's role
    registered there. tests: results of starttls_probe with the changed hosts, each with C(inventory_host). batch: the hosts in
    which the step has just run, so a host of it without a result has failed. fail_on: the lowest severity of a finding that stops
    the run. Raises EngineError for an unknown step.
    """
    if step not in plan["steps"] or step not in STEP_RESULTS:
        raise EngineError(f"step {step!r} is not one of the plan: {', '.join(plan['steps'])}")
    order = list(plan["steps"])
    before, after = order[: order.index(step)], order[order.index(step) + 1 :]
    found = []
    for host, part in plan["hosts"].items():
        mine = [one for one in order if host in plan["steps"][one]["hosts"]]
        mine_tests = [one for one in tests if one.get("inventory_host") == host]
        try:
            state, reason = _now(step, results.get(host) or {}, mine_tests, fail_on, part.get("after") or {})
        except MALFORMED as error:
            state, reason = (
                "failed, its state is unknown",
                f"its result cannot be understood ({type(error).__name__}: {error})",
            )
        if state == "not started" and host in batch:
            state, reason = (
                "failed, its state is unknown",
                "the step gave no result, or another state than the planned one",
            )
        if not mine:
            state, reason = "no change", ""
        elif step not in mine:
            past = [one for one in mine if one in before]
            state, reason = "; ".join([*([f"done: {past[-1]}"] if past else []), *_rest(mine, after)]), ""
        elif state == "done":
            state = "; ".join([f"done: {step}", *_rest(mine, after)])
        else:
            state = f"{state}: {step}"
        found.append(Standing(host, part["role"], state, reason))
    return found


def _rest(mine: Sequence[str], after: Sequence[str]) -> list[str]:
    rest = [one for one in mine if one in after]
    return [f"not started: {', '.join(rest)}"] if rest else []


def _now(
    step: str, result: Mapping[str, Any], tests: Sequence[Mapping[str, Any]], fail_on: str, planned: Mapping[str, Any]
) -> tuple[str, str]:
    """Return the state and the reason of a host in the present step. planned: the state in which it ends when all steps are over."""
    if result.get("unreachable"):
        return "unreachable, its state is unknown", str(result.get("msg", ""))
    if result.get("failed"):
        if result.get("restored") is None:
            # A module that ended without its own message says nothing of what it did before.
            state = "failed, its state is unknown" if _crashed(result) else "failed, nothing changed"
        else:
            state = "failed, restored" if result["restored"] else "failed, NOT restored"
        return state, str(result.get("msg", ""))
    if not result or result.get("skipped"):
        return "not started", ""
    if result.get("waiting"):  # for a certificate that is issued by hand
        return "done", str(result.get("msg", ""))
    ends = STEP_RESULTS[step][1]
    after = result.get("after") or {}
    # Exchange may go on offering STARTTLS when it is switched off, so it says what was asked for.
    asked = (result.get("asked") or {}).get("inbound")
    if ends and after.get("inbound") not in ends and asked not in ends:
        return "not started", ""  # the result is that of an earlier step
    if step == "back" and after != planned:
        return "not started", ""
    bad = [
        finding for one in tests for finding in failing([of_result(two) for two in one.get("findings") or ()], fail_on)
    ]
    if bad:
        return "failed the handshake test", "; ".join(one["message"] for one in bad)
    return "done", ""


def _crashed(result: Mapping[str, Any]) -> bool:
    return "module_stdout" in result or "module_stderr" in result or bool(result.get("timedout"))


def standing_table(found: Sequence[Standing]) -> str:
    """Return the table of all hosts, and the whole reasons below it."""
    rows = [{**one.to_json(), "reason": one_line(one.reason)[:60]} for one in found]
    reasons = [f"{one.host}: {one_line(one.reason)}" for one in found if one.reason]
    return "\n".join([render_table(_COLUMNS, rows), *(["", *reasons] if reasons else [])])


def check_step(
    plan: Mapping[str, Any],
    step: str,
    results: Mapping[str, Mapping[str, Any]],
    tests: Sequence[Mapping[str, Any]] = (),
    batch: Collection[str] = (),
    fail_on: str = "error",
) -> tuple[dict[str, Any], str]:
    """Return the result of tls_outcome, and the text to show: empty as long as no host failed. Raises EngineError."""
    found = standings(plan, step, results, tests, batch, fail_on)
    failed = [one for one in found if one.failed]
    if not failed:
        return {"changed": False, "failed": False, "hosts": {one.host: one.to_json() for one in found}}, ""
    # The message is all that the result of a failure has: the table below says the rest, once.
    reasons = [one_line(f"{one.host}: {one.state}: {one.reason}".rstrip(": ")) for one in failed[:MOST_REASONS]]
    more = [f"{len(failed) - MOST_REASONS} more hosts failed"] if len(failed) > MOST_REASONS else []
    message = (
        f"the run stops at the step {step}, because of {'; '.join([*reasons, *more])}. Hosts that are not started are unchanged. Repair "
        "that and run again: completed steps are not repeated"
    )
    outside = list(plan.get("not_in_this_run") or ())
    text = f"THE RUN STOPPED\n\n{standing_table(found)}"
    if outside:
        rest = f" and {len(outside) - 8} more" if len(outside) > 8 else ""
        text += f"\n\n{one_line('not in this run: ' + ', '.join(outside[:8]) + rest)}"
    return {"changed": False, "failed": True, "msg": message}, text
