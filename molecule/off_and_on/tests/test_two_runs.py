"""Two runs at once, from two controllers: one has the lock of the fleet, the other one stops before its first change."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lab_testinfra import Fleet, Played, wait_for

NOTE = "/var/lib/mailfleet-starttls/fleet.run"
QUIET = {"starttls_send_messages": False}
SERVERS = ("pf12", "pf13", "ex12", "ex13")


def digests(fleet: Fleet) -> dict[str, str]:
    """What the configuration of each mail server is."""
    return {
        host: fleet.run(host, "find /etc/postfix /etc/exim4 -type f 2>/dev/null | sort | xargs cat | sha256sum")
        for host in SERVERS
    }


def other_controller(fleet: Fleet, playbook: str, variables: dict[str, Any]) -> Played:
    """Play it from a process of its own."""
    return fleet.play(playbook, variables=variables, environment={"ANSIBLE_NOCOLOR": "1"})


def test_the_second_run_stops_before_its_first_change_and_the_first_one_is_complete(fleet: Fleet) -> None:
    """TLS is on. One controller switches it off; another one wants it on, with other modes, while the first one has the lock."""
    configs = [{**one, "delivery_mode": "opportunistic"} for one in fleet.variables["email_configs"]]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(other_controller, fleet, "playbooks/disable_tls.yml", QUIET)
        assert wait_for(lambda: first.done() or fleet.run("gw1", f"test -e {NOTE} && echo there", check=False), 240)
        assert fleet.run("gw1", f"stat -c '%a %U' {NOTE}").split() == ["600", "root"]
        refused = fleet.play("playbooks/enable_tls.yml", variables={**QUIET, "email_configs": configs})
        assert not first.done()
        disabled = first.result()
    assert refused.status != 0, refused.output
    said = " ".join(refused.output.split())
    who = r"another run changes the fleet, and holds its lock on gw1: disable_tls, run by \S+ on \S+, since [\d-]+ [\d:]+ UTC, \d+ s ago"
    assert re.search(who, said), refused.output
    assert "run once with -e starttls_lock_break=true" in said
    assert not any(refused.changed.values()), refused.output
    assert disabled.status == 0, disabled.output
    assert "TLS is off" in disabled.output
    assert not any(fleet.offers_starttls(host) for host in SERVERS)
    assert fleet.run("gw1", f"ls {NOTE}", check=False) == ""
    back = fleet.play("playbooks/enable_tls.yml", variables=QUIET)
    assert back.status == 0, back.output


def test_the_lock_of_another_controller_can_be_broken_and_a_plan_shows_it(fleet: Fleet) -> None:
    """That of another machine, of which nobody knows whether it still runs."""
    lock = {
        "format": 1,
        "user": "alice",
        "controller": "control.example.com",
        "playbook": "uninstall",
        "run": "a1",
        "process": "",
    }
    since = int(fleet.run("gw1", "date +%s"))
    fleet.run("gw1", f"umask 077; cat > {NOTE}", json.dumps({**lock, "since": since}))
    wish = {"starttls_email_config": "alpha", "starttls_delivery_mode": "opportunistic", **QUIET}
    before = digests(fleet)
    planned = fleet.play("playbooks/plan_tls.yml")
    assert planned.status == 0, planned.output
    assert "holds its lock on gw1: uninstall, run by alice on control.example.com" in " ".join(planned.output.split())
    refused = fleet.play("playbooks/set_delivery_mode.yml", variables=wish)
    assert refused.status != 0, refused.output
    broken = fleet.play("playbooks/set_delivery_mode.yml", variables={**wish, "starttls_lock_break": True})
    assert broken.status == 0, broken.output
    assert "does not count, because starttls_lock_break is set: uninstall, run by alice" in " ".join(
        broken.output.split()
    )
    assert fleet.run("gw1", f"ls {NOTE}", check=False) == ""
    assert digests(fleet) == before
    back = fleet.play("playbooks/set_delivery_mode.yml", variables={**wish, "starttls_delivery_mode": "match_sender"})
    assert back.status == 0, back.output
