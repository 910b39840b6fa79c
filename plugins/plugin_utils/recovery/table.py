# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of recover_deferred_mail: what waits and what will be done, and the queues before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._server.deferred import WAIT_CAUSES
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import QUEUE_SHOWN_MESSAGES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import HostVars
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.json_file import write_json_file
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.recovery.plan import (
    STEP_WORDS,
    Group,
    Recovery,
    make_recovery,
    queue_groups,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import one_line, render_table

BEFORE, AFTER = "before", "after"
_COLUMNS = {"host": "HOST", "instance": "INSTANCE", "next_hop": "NEXT HOP", "before": "BEFORE", "after": "AFTER", "next_try": "NEXT TRY",
            "state": "STATE"}  # fmt: skip
NOTHING = "no mail waits for want of TLS"


def recovery_result(
    stage: str, hosts: Sequence[str], hostvars: HostVars, groups: Mapping[str, Sequence[str]], check_mode: bool = False
) -> tuple[dict[str, Any], str]:
    """Return the result of tls_recovery and the text to show. Raises EngineError."""
    recovery = make_recovery(hosts, hostvars, groups)
    if stage == BEFORE:
        rows = [_row(one, recovery) for one in recovery.groups]
        text = "\n".join(_plan_lines(recovery, rows, check_mode))
        return {
            "changed": False,
            "run": recovery.to_json(),
            "queue": rows,
            "by_hand": _by_hand(recovery),
            "unknown": recovery.unknown,
        }, text
    # Without a repair the queues were not read again.
    now, unknown, _failed = queue_groups(hosts, hostvars, "deferred_after" if recovery.repairs else "deferred_before")
    rows = _both(recovery, now, unknown, check_mode)
    made = (hostvars["localhost"].get("tls_recovery") or {}).get("steps_of") or ()
    for row, steps in zip(rows, made):  # by now the next hops serve, so the steps are those of the first look
        row["steps"] = list(steps)
    problems = _problems(recovery, now, check_mode)
    text = "\n".join(
        [
            "MAIL THAT WAITED, BEFORE AND AFTER",
            "",
            _table(rows),
            *_details(now),
            *_notes(recovery, unknown),
        ]
    )
    result = {
        "changed": False, "queue": rows, "by_hand": _by_hand(recovery), "unknown": unknown, "stops": bool(problems),
        "msg": one_line("; ".join(problems)) or ("the mail that waited for want of TLS is delivered" if recovery.repairs else NOTHING),
    }  # fmt: skip
    return result, text if recovery.repairs else ""


def _row(one: Group, recovery: Recovery) -> dict[str, Any]:
    repair = next((two for two in recovery.repairs if two.group is one), None)
    return {
        "host": one.host, "instance": one.instance, "next_hop": one.next_hop, "next_hop_address": one.address, "next_hop_port": one.port,
        "cause": one.cause, "said": WAIT_CAUSES[one.cause].said, "side": WAIT_CAUSES[one.cause].side, "for_tls": one.for_tls,
        "before": one.count, "held": one.held, "next_try": one.next_try, "reasons": list(one.reasons[:QUEUE_SHOWN_MESSAGES]),
        "steps": recovery.steps_of(one), "try_again": bool(repair and repair.flush), "by_hand": repair.by_hand if repair else "",
    }  # fmt: skip


def _plan_lines(recovery: Recovery, rows: Sequence[Mapping[str, Any]], check_mode: bool) -> Iterator[str]:
    yield "MAIL THAT WAITS"
    yield ""
    shown = [{**one, "after": "", "state": _state_before(one)} for one in rows]
    yield _table(shown) if rows else "The queues are empty."
    yield from _details(recovery.groups)
    if not recovery.repairs:
        yield from ("", f"{NOTHING[0].upper()}{NOTHING[1:]}. Nothing is changed.")
    for number, (step, host) in enumerate(
        ((s, h) for s in recovery.to_json()["steps"] for h in recovery.hosts_of(s)), 1
    ):
        yield f"{'' if number > 1 else chr(10)}{'Would do' if check_mode else 'Step'} {number}: {STEP_WORDS[step].format(host=host)}"
    yield from _notes(recovery, recovery.unknown)


def _state_before(row: Mapping[str, Any]) -> str:
    if row["by_hand"]:
        return "by hand"
    if row["held"]:
        return "held, left alone"
    if not row["for_tls"]:
        return "left alone"
    return "will be tried again" if row["try_again"] else "waits"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    return render_table(_COLUMNS, rows, whole="state") if rows else "The queues were empty, and are."


def _details(groups: Sequence[Group]) -> Iterator[str]:
    """Yield which side is at fault, and the daemon's own words, for each group."""
    for number, one in enumerate(groups):
        hop = f" to {one.next_hop}" if one.next_hop else ""
        place = f" ({one.instance})" if one.instance else ""
        why = "somebody holds it, or it is frozen" if one.held else WAIT_CAUSES[one.cause].said
        yield from ([""] if number == 0 else [])
        yield one_line(f"{one.host}{place}{hop}: {why}")
        yield from (one_line(f"  {reason}") for reason in one.reasons[:2])


def _both(
    recovery: Recovery, now: Sequence[Group], unknown: Mapping[str, str], check_mode: bool
) -> list[dict[str, Any]]:
    """Return a row for each group of before and of now."""
    left = {one.key: one for one in now}
    rows = []
    for one in recovery.groups:
        still = left.pop(one.key, None)
        after = None if one.host in unknown else still.count if still else 0
        row = {**_row(one, recovery), "after": after, "next_try": still.next_try if still else ""}
        rows.append({**row, "state": _state_after(row, check_mode)})
    for one in left.values():
        row = {**_row(one, recovery), "before": 0, "after": one.count}
        rows.append({**row, "state": f"new: {WAIT_CAUSES[one.cause].said}"})
    return rows


def _state_after(row: Mapping[str, Any], check_mode: bool) -> str:
    if row["after"] is None:
        return "could not look"
    if row["held"] and row["after"]:
        return "held, left alone"
    if row["after"] == 0:
        return "delivered" if row["for_tls"] else "gone"
    if check_mode and row["try_again"]:
        return "would be tried again"
    if row["by_hand"]:
        return "waits, by hand"
    return "waits" if row["for_tls"] else "left alone"


def _problems(recovery: Recovery, now: Sequence[Group], check_mode: bool) -> list[str]:
    """Return why the run fails: what only the user can do, what still waits, and hosts that could not be read."""
    tried = {one.group.key: one.hint for one in recovery.repairs if one.flush}
    still = [one for one in now if one.key in tried and not check_mode]
    waits = [
        f"{one.count} on {one.host} still wait for {one.next_hop}: {(one.reasons or ('no reason',))[0]}"
        + (f" ({tried[one.key]})" if tried[one.key] else "")
        for one in still
    ]
    before = {one.key for one in recovery.groups}
    new = [
        f"{one.count} wait on {one.host} for {one.next_hop} now: {WAIT_CAUSES[one.cause].said}; run again"
        for one in now
        if one.for_tls and one.key not in before and recovery.repairs
    ]
    return [
        *_by_hand(recovery),
        *waits,
        *new,
        *(f"the queue of {host} is not known: {recovery.unknown[host]}" for host in recovery.unreachable),
    ]


def _by_hand(recovery: Recovery) -> list[str]:
    """Return what only the user can do, each once."""
    return list(dict.fromkeys(one.by_hand for one in recovery.repairs if one.by_hand))


def _notes(recovery: Recovery, unknown: Mapping[str, str]) -> Iterator[str]:
    for said in _by_hand(recovery):
        yield one_line(f"By hand: {said}")
    for host, why in unknown.items():
        yield one_line(f"Could not look at the queue of {host}: {why}")


def write_json(path: str, result: Mapping[str, Any]) -> None:
    """Write the facts of the table to a file on the controller. Raises EngineError that names the user's variable."""
    facts = {name: result[name] for name in ("queue", "by_hand", "unknown")}
    write_json_file(path, facts, "starttls_recovery_file")
