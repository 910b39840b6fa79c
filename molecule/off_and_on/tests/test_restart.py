"""A host is restarted, and comes back as it was: the lab's promise, and that of what the collection left there."""

from __future__ import annotations

import pytest
from lab_testinfra import DOMAINS, Fleet, wait_for


@pytest.mark.parametrize("host", ["gw1", "pf13", "ex12", "ex13"])
def test_a_restarted_host_comes_back_as_it_was(fleet: Fleet, host: str) -> None:
    verify = ("-CAfile", str(fleet.ca), "-verify_return_error", "-verify_hostname", f"{host}.fleet.test")
    assert fleet.s_client(host, *verify).status == 0
    before, boot = fleet.digests()[host], fleet.run(host, "cut -d' ' -f22 /proc/1/stat")
    fleet.restart(host)
    assert fleet.run(host, "cut -d' ' -f22 /proc/1/stat") != boot, "it was not restarted"
    assert fleet.digests()[host] == before
    seen = wait_for(lambda: played if (played := fleet.s_client(host, *verify)).status == 0 else None)
    assert seen, fleet.s_client(host, *verify).output
    # The same address, port, host key and user as before.
    answer = fleet.play(f"- hosts: {host}\n  gather_facts: false\n  tasks:\n    - ansible.builtin.ping:\n")
    assert answer.status == 0, answer.output


def test_mail_flows_as_before_when_all_of_its_path_was_restarted(fleet: Fleet) -> None:
    """The gateway's mode needs its second instance and its policy service, which a start of the host has to bring back."""
    for tls in (True, False):
        mark = fleet.send("outside", [f"trace@{DOMAINS['ex13']}"], tls=tls)
        assert fleet.arrived_over_tls("ex13", mark) == tls
