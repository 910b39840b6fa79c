"""A thousand hosts: the plan and its text in seconds and megabytes, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[5]
GOAL_SECONDS, GOAL_MEGABYTES = 5, 300

PROGRAM = r"""
import json, sys, time
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Estate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.fleet import PlanRequest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.making import make_plan
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.text import plan_text
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import Plan
from tests.support.plan_states import config, gateway, plain, server

names = [f"m{number}" for number in range(996)]
gateways = [f"gw{number}" for number in range(4)]
configs = [config(f"c{number}", *names[number : number + 4], mode="required") for number in range(0, 996, 4)]
tests = [plain(f"{name}.test") for name in names]
recorded = {name: json.dumps(gateway(name, drift=True, probes=tests)) for name in gateways}
recorded.update((name, json.dumps(server(name, drift=True))) for name in names)
hostvars = {name: {"starttls_hostname": f"{name}.test"} for name in recorded}
targets = {name: f"{name}.test:25" for name in recorded}

started = time.process_time()
observed = {name: json.loads(text) for name, text in recorded.items()}
loaded = time.process_time()
wanted = Estate.parse(configs, hostvars, list(recorded))
request = PlanRequest("enable", {"mail_gateways": gateways, "mail_servers": names}, targets)
plan = make_plan(wanted, observed, request)
made = time.process_time()
text = plan_text(plan)
assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
ended = time.process_time()
# Not ru_maxrss, which begins with that of the process that started this one.
[peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(json.dumps({
    "seconds": ended - started, "loading": loaded - started, "plan": made - loaded, "text and JSON": ended - made,
    "megabytes": int(peak.split()[1]) / 1024, "bytes": sum(map(len, recorded.values())),
    "hosts": len(plan.hosts), "result": plan.result, "rows": text.count("mail server  Postfix"), "batches": plan.steps["offer"].batches,
}))
"""


def test_a_thousand_hosts():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT), str(ROOT / ".lab/collections")],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["hosts"], found["result"], found["rows"]) == (1000, "drift", 996)
    assert found["batches"][:2] == [1, 249] and sum(found["batches"]) == 996
    assert found["seconds"] < GOAL_SECONDS and found["megabytes"] < GOAL_MEGABYTES
