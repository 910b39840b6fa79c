"""Hosts on which TLS is on become Debian 13, and Debian's tools go over them: no question, no drift, and mail takes the same ways."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from lab_upgrade import UNATTENDED, WHOLE, Estate, unsettled, upgrade

REINSTALL = f"{UNATTENDED} apt-get -y install --reinstall -o Dpkg::Options::=--force-"
TOOLS = {
    "reinstalled, new files": {
        "postfix": f"{REINSTALL}confnew -o Dpkg::Options::=--force-confask postfix",
        "exim": f"{REINSTALL}confnew -o Dpkg::Options::=--force-confask exim4-daemon-heavy exim4-base exim4-config",
    },
    "reinstalled, old files": {
        "postfix": f"{REINSTALL}confold postfix",
        "exim": f"{REINSTALL}confold exim4-daemon-heavy exim4-base exim4-config",
    },
    "configured again": {
        "postfix": "dpkg-reconfigure -f noninteractive postfix",
        "exim": "dpkg-reconfigure -f noninteractive exim4-config",
    },
    "upgrade-configuration": {"postfix": "postfix upgrade-configuration"},
}
"""What is done to a host -> kind -> the command."""
ROUNDS = {name: [tools] for name, tools in TOOLS.items()} if WHOLE else {"all of them": list(TOOLS.values())}


def go_over(estate: Estate, tools: list[dict[str, str]]) -> None:
    """Run Debian's tools on the hosts, unattended; then mail takes the same ways, and a rerun changes nothing."""
    for host in estate.upgraded():
        for tool in tools:
            if command := tool.get(estate.kinds[host]):
                estate.fleet.run(
                    host, f"{command} </dev/null >/var/log/tool.log 2>&1 || {{ cat /var/log/tool.log; exit 1; }}"
                )
    estate.holds()
    estate.rerun()


@pytest.mark.skipif(not WHOLE, reason="LAB_UPGRADE=all")
@pytest.mark.parametrize("tools", [pytest.param(tools, id=name) for name, tools in ROUNDS.items()])
def test_tools_of_debian_12_change_nothing(estate: Estate, tools: list[dict[str, str]]) -> None:
    go_over(estate, tools)


def test_the_upgrade_asks_nothing_and_leaves_nothing_undone(estate: Estate) -> None:
    assert estate.ways() == estate.of_the_table()
    hosts = estate.upgraded()
    with ThreadPoolExecutor(2) as pool:
        said = dict(zip(hosts, pool.map(lambda host: upgrade(estate.fleet, host, estate.kinds[host]), hosts)))
    for host in hosts:
        assert "Configuration file '" not in said[host], said[host]  # with it dpkg asks
        assert not estate.fleet.run(host, "dpkg --audit"), said[host]
        program = "exim4-base" if estate.kinds[host] == "exim" else "postfix"
        version = estate.fleet.run(host, f"dpkg-query --show --showformat='${{Version}}' {program}")
        assert version.startswith(("3.10", "4.98")), said[host]


def test_after_the_reboot_everything_runs_and_mail_takes_the_same_ways(estate: Estate) -> None:
    for host in estate.upgraded():
        estate.fleet.restart(host)
        assert not unsettled(estate.fleet, host)
    estate.holds()


def test_verify_passes(estate: Estate) -> None:
    verified = estate.fleet.play("playbooks/verify_tls.yml")
    assert verified.status == 0, verified.output


@pytest.mark.skipif(not WHOLE, reason="the next test has a rerun, too")
def test_a_rerun_changes_nothing(estate: Estate) -> None:
    estate.rerun()


@pytest.mark.parametrize("tools", [pytest.param(tools, id=name) for name, tools in ROUNDS.items()])
def test_tools_of_debian_13_change_nothing(estate: Estate, tools: list[dict[str, str]]) -> None:
    go_over(estate, tools)
