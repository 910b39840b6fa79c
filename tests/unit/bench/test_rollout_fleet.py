"""The fleet of the roll-out bench, and larger ones."""

from __future__ import annotations

import ipaddress
import re
import subprocess

import pytest
import yaml

from tests.bench import rollout_fleet
from tests.bench.rollout_fleet import Fleet, fleet_of


@pytest.mark.parametrize("servers", [1, 4, 12])
def test_up_to_twelve_it_is_as_listed(servers):
    assert fleet_of(servers) == yaml.safe_load(rollout_fleet.LISTED.read_text())


def test_forty():
    listed, fleet = fleet_of(12), fleet_of(40)
    hosts, configs = fleet["lab_hosts"], fleet["email_configs"]
    assert list(hosts)[: len(listed["lab_hosts"])] == list(listed["lab_hosts"])  # addresses go by the order
    servers = {name: host for name, host in hosts.items() if host["group"] == "mail_servers"}
    assert list(servers) == [f"mx{number}" for number in range(1, 41)]
    assert {host["image"] for name, host in hosts.items() if name not in listed["lab_hosts"]} == {"bookworm-postfix"}
    assert [config["servers"] for config in configs] == [[name] for name in servers]
    assert [config["domains"] for config in configs] == [[host["domain"]] for host in servers.values()]
    assert {config["delivery_mode"] for config in configs[12:]} == {"match_sender", "required", "opportunistic"}
    domains = [host["domain"] for host in servers.values()]
    assert len(set(domains)) == 40 and all(domain.endswith(".test") for domain in domains)
    assert len({host["fqdn"] for host in hosts.values()}) == 42


def test_the_largest_has_an_address_for_each():
    hosts = fleet_of(rollout_fleet.MOST_SERVERS)["lab_hosts"]
    assert 9 + len(hosts) <= len(list(ipaddress.ip_network("10.89.0.0/24").hosts()))


def test_the_lab_programs_can_read_its_file(tmp_path):
    fleet = Fleet(tmp_path, 40)
    file = fleet.environment()["MAILFLEET_FLEET"]
    assert yaml.safe_load((tmp_path / "fleet.yml").read_text()) == fleet_of(40)
    # tools/lab/images looks for its images line by line.
    text = (rollout_fleet.LAB / "images").read_text()
    (expression,) = re.findall(r"sed -n '(s/[^']*image[^']*)'", text)
    done = subprocess.run(["sed", "-n", expression, file], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == sorted(host["image"] for host in fleet_of(40)["lab_hosts"].values())


def test_a_fleet_of_another_size_goes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(rollout_fleet, "TOP", tmp_path)
    inventory = tmp_path / rollout_fleet.LAB_DIR / "inventory.yml"
    inventory.parent.mkdir(parents=True)
    ran = []

    class Stopped(Exception):
        pass

    def program(self, *command):
        ran.append(command[-1] if command[0] != rollout_fleet.LAB / "images" else "images")
        if ran[-1] == "images":
            raise Stopped
        return ""

    monkeypatch.setattr(Fleet, "_program", program)

    def up(servers, left):
        groups = {"any": {"hosts": {name: {} for name in fleet_of(left)["lab_hosts"]}}}
        inventory.write_text(yaml.safe_dump({"all": {"children": groups}}))
        ran.clear()
        with pytest.raises(Stopped):
            Fleet(tmp_path, servers).up()
        return ran

    assert up(4, left=12) == ["images"]
    assert up(40, left=12) == ["down", "images"]
    assert up(4, left=40) == ["down", "images"]


def test_slices_are_those_of_awx(tmp_path):
    """Hosts by their names in turns; the variables, and so the email configs, are whole in each."""
    hosts = {"mail_gateways": ["gw"], "mail_servers": ["mx2", "mx1", "mx3"], "mail_outside": ["outside"]}
    groups = {group: {"hosts": {name: {"x": name} for name in names}} for group, names in hosts.items()}
    path = tmp_path / "inventory-3.yml"
    path.write_text(
        yaml.safe_dump({"all": {"vars": {"email_configs": ["whole"]}, "children": groups}}, sort_keys=False)
    )
    fleet = Fleet(tmp_path, 4)
    assert fleet.slices(path, 1) == [path]
    found = [yaml.safe_load(one.read_text())["all"] for one in fleet.slices(path, 2)]
    assert [[host for group in one["children"].values() for host in group["hosts"]] for one in found] == [
        ["gw", "mx2", "outside"], ["mx1", "mx3"],
    ]  # fmt: skip
    assert [one["vars"] for one in found] == [{"email_configs": ["whole"]}] * 2
