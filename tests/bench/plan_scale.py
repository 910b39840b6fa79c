#!/usr/bin/env python3
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan of a large fleet costs, from what its hosts said when they were read. Prints JSON.

    plan_scale.py [HOSTS]

Counted: the recorded states and the inventory are parsed, the plan is made, its text and its JSON written and read again.
It needs a process of its own, because the peak of memory is that of the process, the recorded states included.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
HOSTS = 1000
GATEWAYS = 4
SERVERS_A_CONFIG = 4


def plan_cost(hosts: int) -> dict[str, Any]:
    """Seconds by the clock, megabytes at the peak, and whether the plan is what it has to be: a change on each host."""
    # Only here: the path is set by then, and whoever imports this file does not load the planner.
    from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Estate  # noqa: PLC0415
    from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.fleet import PlanRequest  # noqa: PLC0415
    from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.making import make_plan  # noqa: PLC0415
    from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.text import plan_text  # noqa: PLC0415
    from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import Plan  # noqa: PLC0415

    from tests.support.plan_states import config, gateway, plain, server  # noqa: PLC0415

    names = [f"m{number}" for number in range(hosts - GATEWAYS)]
    gateways = [f"gw{number}" for number in range(GATEWAYS)]
    starts = range(0, len(names), SERVERS_A_CONFIG)
    configs = [config(f"c{start}", *names[start : start + SERVERS_A_CONFIG], mode="required") for start in starts]
    tests = [plain(f"{name}.test") for name in names]
    recorded = {name: json.dumps(gateway(name, drift=True, probes=tests)) for name in gateways}
    recorded |= {name: json.dumps(server(name, drift=True)) for name in names}
    hostvars = {name: {"starttls_hostname": f"{name}.test"} for name in recorded}
    targets = {name: f"{name}.test:25" for name in recorded}
    groups = {"mail_gateways": gateways, "mail_servers": names}

    started = time.perf_counter()
    observed = {name: json.loads(text) for name, text in recorded.items()}
    wanted = Estate.parse(configs, hostvars, list(recorded))
    loaded = time.perf_counter()
    plan = make_plan(wanted, observed, PlanRequest("enable", groups, targets))
    made = time.perf_counter()
    text = plan_text(plan)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    ended = time.perf_counter()

    rows = sum(line.split()[:1] != [] and line.split()[0] in recorded for line in text.splitlines())
    if again != plan or plan.result != "drift" or len(plan.hosts) != hosts or rows < hosts:
        raise SystemExit(f"the plan is not one of {hosts} hosts with a change: {plan.result}, {rows} rows")
    return {
        "hosts": hosts,
        "seconds": round(ended - started, 3),
        "parse_seconds": round(loaded - started, 3),
        "plan_seconds": round(made - loaded, 3),
        "output_seconds": round(ended - made, 3),
        "megabytes": round(peak() / 1e6, 1),
        "recorded_bytes": sum(map(len, recorded.values())),
    }


def peak() -> int:
    """The most memory that this process held, in bytes. Not ru_maxrss: that counts what the parent held before exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    sys.path[:0] = [str(TOP), str(TOP / ".lab/collections")]
    print(json.dumps(plan_cost(int(sys.argv[1]) if sys.argv[1:] else HOSTS)))
