# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet that roll-outs are measured on: the lab's programs bring it up and down, and reset it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from tests.bench.measure import BenchError

TOP = Path(__file__).resolve().parents[2]
NAME = "bench"
LAB_DIR = f".lab/{NAME}"
LAB = TOP / "tools/lab"
GATEWAYS, SERVERS = "mail_gateways", "mail_servers"
LISTED = Path(__file__).with_suffix(".yml")
MOST_SERVERS = 200
"""The lab counts addresses from the tenth of a network of 254."""
MODES = ("match_sender", "required", "opportunistic", "match_sender")

# Ansible's module for packages needs it, and nearly every Debian server has it.
PACKAGE = "python3-apt"
INSTALL = f"""
dpkg-query --show {PACKAGE} >/dev/null 2>&1 && exit
install() {{ DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends {PACKAGE}; }}
install || {{ apt-get update -qq && install; }}
"""


def fleet_of(servers: int) -> dict[str, Any]:
    """The list of hosts that tools/lab/fleet reads, with at least so many mail servers.

    Those that rollout_fleet.yml does not have are Postfix on Debian 12, each with an email config of its own.
    """
    fleet: dict[str, Any] = yaml.safe_load(LISTED.read_text())
    hosts, configs = fleet["lab_hosts"], fleet["email_configs"]
    listed = sum(host["group"] == SERVERS for host in hosts.values())
    for number in range(listed + 1, servers + 1):
        name, domain = f"mx{number}", f"d{number}.test"
        hosts[name] = {
            "image": "bookworm-postfix", "fqdn": f"{name}.fleet.test", "group": SERVERS, "domain": domain,
        }  # fmt: skip
        mode = MODES[(number - 1) % len(MODES)]
        configs.append({"name": f"d{number}", "domains": [domain], "servers": [name], "delivery_mode": mode})
    return fleet


class Fleet:
    """The fleet and its inventories. directory is where Ansible keeps its files. servers: how many mail servers it has at least."""

    def __init__(self, directory: Path, servers: int) -> None:
        self._directory = directory
        self._wanted = fleet_of(servers)
        self._file = directory / "fleet.yml"
        self._file.write_text(
            yaml.safe_dump(self._wanted, sort_keys=False, default_flow_style=None, width=200)
        )  # tools/lab/images wants a line for each host
        self._inits: dict[str, int] = {}
        self._accounts: dict[str, Path] = {}

    def environment(self) -> dict[str, str]:
        """What the lab's programs and Ansible are run with. Connections last, so that each measured run finds them open."""
        return {
            **os.environ,
            "PATH": f"{TOP / '.venv/bin'}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "MAILFLEET_LAB": NAME,
            "MAILFLEET_LAB_DIR": LAB_DIR,
            "MAILFLEET_FLEET": str(self._file),
            "ANSIBLE_CONFIG": str(TOP / ".lab/ansible.cfg"),
            "ANSIBLE_HOME": str(self._directory / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_SSH_ARGS": "-C -o ControlMaster=auto -o ControlPersist=30m",
        }

    def up(self) -> None:
        """Bring it up in its starting state, with a partner outside who has TLS. Raises BenchError.

        A fleet of another size that was left goes first: its hosts do not know each other's names.
        """
        if (TOP / LAB_DIR / "inventory.yml").exists() and set(self._hosts()) != set(self._wanted["lab_hosts"]):
            self.down()
        self._program(LAB / "images")
        self._program(LAB / "fleet", "up")
        hosts = self._hosts()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._look_at, hosts))
        inventory = TOP / LAB_DIR / "inventory.yml"
        self.play(inventory, LAB / "playbooks/prepare.yml", {"lab_reset": True})
        self.play(inventory, LAB / "playbooks/partner.yml")

    def down(self) -> None:
        """Remove the fleet. Raises BenchError."""
        self._program(LAB / "fleet", "down")

    def inventory(self, servers: int) -> Path:
        """The inventory of a fleet that has only the first of the mail servers, and knows nothing of the others."""
        data = self._inventory()
        everything = data["all"]["children"][SERVERS]["hosts"]
        kept = dict(list(everything.items())[:servers])
        data["all"]["children"][SERVERS]["hosts"] = kept
        names = {host["starttls_hostname"] for host in kept.values()}
        variables = data["all"]["vars"]
        variables["email_configs"] = [one for one in variables["email_configs"] if set(one["servers"]) <= set(kept)]
        variables["lab_routes"] = "\n".join(
            line for line in variables["lab_routes"].splitlines() if set(line.split()[1:]) <= names
        )
        path = self._directory / f"inventory-{servers}.yml"
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return path

    def slices(self, inventory: Path, count: int) -> list[Path]:
        """The inventory divided as AWX divides that of a job: hosts by their names, in turns. Its variables stay whole."""
        if count == 1:
            return [inventory]
        paths = [inventory.with_name(f"{inventory.stem}-{number + 1}-of-{count}.yml") for number in range(count)]
        groups = yaml.safe_load(inventory.read_text())["all"]["children"].values()
        names = sorted(host for group in groups for host in group["hosts"])
        for number, path in enumerate(paths):
            data = yaml.safe_load(inventory.read_text())
            mine = set(names[number::count])
            for group in data["all"]["children"].values():
                group["hosts"] = {host: facts for host, facts in group["hosts"].items() if host in mine}
            path.write_text(yaml.safe_dump(data, sort_keys=False))
        return paths

    def reset(self, inventory: Path) -> None:
        """Back to plaintext, all but the partner outside. Raises BenchError."""
        self.play(inventory, LAB / "playbooks/prepare.yml", {"lab_reset": True}, "--limit=!mail_outside")

    def play(self, inventory: Path, playbook: Path, variables: Mapping[str, Any] | None = None, *options: str) -> None:
        """Run a playbook that is not measured. Raises BenchError."""
        words = ["--extra-vars", json.dumps(dict(variables or {})), *options]
        self._program("ansible-playbook", "-i", str(inventory), str(playbook), *words)

    def init(self, host: str) -> int:
        """The number that the first process of a host has on this machine."""
        return self._inits[host]

    def cpu(self, hosts: Iterable[str]) -> float:
        """CPU seconds that all processes of these hosts took since the hosts started."""
        return sum(_cpu_seconds(self._accounts[host]) for host in hosts)

    def _look_at(self, host: str) -> None:
        container = f"mailfleet-{NAME}-{host}"
        self._program("podman", "exec", container, "sh", "-c", INSTALL)
        seen = self._program("podman", "inspect", "--format", "{{.State.Pid}} {{.State.CgroupPath}}", container).split()
        self._inits[host] = int(seen[0])
        self._accounts[host] = _account(seen[1])

    def _hosts(self) -> list[str]:
        groups = self._inventory()["all"]["children"].values()
        return [host for group in groups for host in group["hosts"]]

    def _inventory(self) -> dict[str, Any]:
        data: dict[str, Any] = yaml.safe_load((TOP / LAB_DIR / "inventory.yml").read_text())
        return data

    def _program(self, *command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=TOP, env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )  # fmt: skip
        if done.returncode:
            said = " ".join((done.stdout + done.stderr).split())[-600:]
            raise BenchError(f"{Path(command[0]).name} {Path(command[-1]).name}: {said}")
        return done.stdout


def _account(group: str) -> Path:
    """Where the kernel counts the CPU of a control group; version 1 has a tree of its own for that."""
    top = Path("/sys/fs/cgroup")
    for path in (top / "cpuacct" / group.lstrip("/") / "cpuacct.usage", top / group.lstrip("/") / "cpu.stat"):
        if path.exists():
            return path
    raise BenchError(f"the kernel does not count the CPU of {group}")


def _cpu_seconds(account: Path) -> float:
    text = account.read_text()
    if account.name == "cpuacct.usage":
        return int(text) / 1e9
    return int(dict(line.split() for line in text.splitlines())["usage_usec"]) / 1e6
