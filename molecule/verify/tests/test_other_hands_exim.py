"""Other hands at an Exim gateway: verify fails and names the cause, a rerun repairs it, and mail goes as the table of the modes says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_modes import of_the_table, ways
from lab_testinfra import DOMAINS, Fleet, Played, of_kind

GATEWAY = "gx12"
MODES = {"pf12": "match_sender_strict", "pf13": "required", "ex12": "opportunistic", "ex13": "match_sender"}
CONFIGS = [
    {"name": DOMAINS[host].partition(".")[0], "domains": [DOMAINS[host]], "servers": [host], "delivery_mode": mode}
    for host, mode in MODES.items()
]
SETTINGS = "/etc/exim4/update-exim4.conf.conf"
ROUTERS = "/etc/exim4/conf.d/router/050_mailfleet-starttls"
RESTART = "update-exim4.conf && systemctl restart exim4"
ELSEWHERE = "the router hubbed_hosts leads mail for alpha.test to the transport remote_smtp"


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A further inventory, in which the Exim gateway is one of the run."""
    path: Path = tmp_path_factory.mktemp("inventory") / "also.yml"
    path.write_text(f"all: {{children: {{mail_gateways: {{hosts: {{{GATEWAY}: {{}}}}}}}}}}\n")
    return str(path)


@pytest.fixture
def gateway(fleet: Fleet, inventory: str) -> Gateway:
    return Gateway(fleet, inventory)


class Gateway:
    """The Exim gateway of the fleet."""

    def __init__(self, fleet: Fleet, inventory: str) -> None:
        self._fleet, self._inventory = fleet, inventory

    def run(self, command: str) -> str:
        return self._fleet.run(GATEWAY, command)

    def play(self, name: str, **variables: Any) -> Played:
        return self._fleet.play(
            f"playbooks/{name}.yml", "-i", self._inventory, "--limit", f"{GATEWAY},{','.join(MODES)}",
            variables={"email_configs": CONFIGS, "starttls_send_messages": False, **variables},
        )  # fmt: skip

    def refused(self, *texts: str) -> None:
        """verify_tls fails and says so."""
        played = self.play("verify_tls")
        assert played.status != 0
        for text in texts:
            assert f"{GATEWAY}: error: {text}" in played.output, played.output

    def repaired(self) -> None:
        played = self.play("enable_tls")
        assert played.status == 0, played.output
        assert ways(self._fleet, GATEWAY, MODES) == of_the_table(MODES)


@pytest.fixture(scope="module", autouse=True)
def modes(fleet: Fleet, inventory: str) -> Iterator[None]:
    """Every mode but plaintext is in use, and there is a backup from before. Without consent the plan refuses before anything changes."""
    one = Gateway(fleet, inventory)
    # Other tests of the scenario may have moved it.
    gone = fleet.result(GATEWAY, "gateway_tls", {**of_kind("exim"), "state": "absent", "queue_timeout": 0})
    assert not gone["failed"], gone
    one.run("rm -rf /root/old && cp -a /etc/exim4 /root/old")
    before = fleet.digests([GATEWAY])
    refused = one.play("enable_tls", starttls_exim_split=False)
    assert refused.status != 0
    assert "/etc/exim4/exim4.conf.template. That is a conffile of the package exim4-config" in refused.output, (
        refused.output
    )
    assert "Set starttls_exim_split: true" in refused.output
    assert fleet.digests([GATEWAY]) == before
    one.repaired()
    yield
    one.run("rm -rf /root/old")


def test_no_conffile_of_dpkg_was_edited(gateway: Gateway) -> None:
    """The settings and the local macros are none."""
    changed = "cd /root/old && find . -type f | while read -r one; do cmp -s $one /etc/exim4/$one || echo $one; done"
    assert sorted(gateway.run(changed).split()) == ["./exim4.conf.localmacros", "./update-exim4.conf.conf"]


def test_switched_back_to_the_unsplit_configuration(gateway: Gateway) -> None:
    gateway.run(f"sed -i s/^dc_use_split_config=.*/dc_use_split_config=false/ {SETTINGS} && {RESTART}")
    gateway.refused(
        f"email config alpha: {SETTINGS} has Exim read the unsplit configuration now (dc_use_split_config), and the collection's "
        f"routers are in {ROUTERS}; {ELSEWHERE}"
    )
    gateway.repaired()


def test_an_old_backup_and_an_emptied_router(gateway: Gateway) -> None:
    gateway.run(f"rm -rf /etc/exim4 && cp -a /root/old /etc/exim4 && {RESTART}")
    gateway.refused("/etc/exim4/mailfleet-starttls/gateway.json is not as the last run left it")
    gateway.repaired()
    front = "site_first:\\n  driver = manualroute\\n  domains = alpha.test\\n  route_data = pf12.fleet.test\\n  transport = remote_smtp\\n"
    gateway.run(f": >{ROUTERS}; printf '{front}' >/etc/exim4/conf.d/router/010_site; {RESTART}")
    try:
        gateway.refused(
            f"email config alpha: {ROUTERS} has no router mailfleet_inbound; the router site_first leads mail"
        )
    finally:
        gateway.run(f"rm /etc/exim4/conf.d/router/010_site; {RESTART}")
    gateway.repaired()
