"""The fleet of the scenario obstacles: what is put in the way on every host, and what a run shows that ends with its plan."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from lab_testinfra import STATE, TOP, Fleet, Played, environment, wait_for

from tests.support.pki import Authority, Issued

MACHINES = ("gw1", "hk", "stopped", "badmain", "badmacro", "full", "killed")
"""The containers. Other names of the inventory are other ways to reach one of them, or no way at all."""
MACROS = "/etc/exim4/exim4.conf.localmacros"
OTHER = "/etc/postfix/other.pem"
OVERRIDE = "smtp/inet/smtpd_tls_chain_files"
CHANGING = """
for one in /proc/[0-9]*; do
    ls -l $one/fd 2>/dev/null | grep -q mailfleet-starttls/postfix.lock && echo ${one#/proc/}
done
:
"""
"""Prints the processes that make a change: they hold the lock."""
JOURNALS = "find /var/lib/mailfleet-starttls -name '*.journal'"

FILES = r"""
paths='/etc /usr/local/lib /var/lib/mailfleet-starttls'
find $paths \( -type f -o -type l \) -printf '%p %m %U %G %T@ %l\n' 2>/dev/null | sort
find $paths -type f -exec sha256sum {} + 2>/dev/null | sort -k2
:
"""
DAEMONS = "for pid in $(pgrep -x 'master|qmgr|exim4|node'); do cut -d' ' -f1,2,22 /proc/$pid/stat; done"


VALIDATOR = jsonschema.Draft202012Validator(json.loads((TOP / "docs/schema/plan.schema.json").read_text()))


def state(fleet: Fleet) -> dict[str, list[str]]:
    """Each machine: every file below /etc and where the collection keeps its own, and when the mail daemons started."""
    return {host: fleet.run(host, FILES + DAEMONS).splitlines() for host in MACHINES}


def differing(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, list[str]]:
    """The lines in which two states differ, of the machines that do."""
    found = {host: sorted(set(before[host]) ^ set(after[host])) for host in MACHINES}
    return {host: lines for host, lines in found.items() if lines}


@contextlib.contextmanager
def unchanged(fleet: Fleet) -> Iterator[None]:
    """Nothing on any machine changes in here, and no daemon is started anew."""
    before = state(fleet)
    yield
    assert differing(before, state(fleet)) == {}


def lab_inventory(fleet: Fleet) -> dict[str, Any]:
    """The lab's inventory, with both gateways in the group of the gateways."""
    lab: dict[str, Any] = yaml.safe_load(fleet.inventory.read_text())
    groups = lab["all"]["children"]
    groups["mail_gateways"]["hosts"].update(groups.pop("haraka_gateways")["hosts"])
    lab["all"]["vars"]["starttls_send_messages"] = False
    return lab


class Obstacles:
    """Puts things in the way, and takes them away in the reverse order."""

    def __init__(self, fleet: Fleet, place: Path) -> None:
        self._fleet = fleet
        self._place = place
        self._away = contextlib.ExitStack()

    def _put(self, host: str, command: str, away: str) -> None:
        self._away.callback(functools.partial(self._fleet.run, host, away))
        self._fleet.run(host, command)

    def put(self) -> None:
        """Put everything in the way that is a matter of the machines."""
        fleet = self._fleet
        self._put("stopped", "systemctl stop postfix", "systemctl start postfix")
        self._put(
            "badmain",
            "cp -p /etc/postfix/main.cf /root/ && echo 'this is no setting' >>/etc/postfix/main.cf",
            "mv /root/main.cf /etc/postfix/main.cf && systemctl restart postfix",  # its smtpd is throttled by now
        )
        self._put(
            "badmacro",
            f"cp -p {MACROS} /root/macros && echo MAIN_TLS_VERIFY_CERTIFICATES >>{MACROS}",
            f"mv /root/macros {MACROS}",
        )
        self._put(
            "full",
            "mkdir -p /etc/mailfleet && mount -t tmpfs -o size=64k,mode=755 tmpfs /etc/mailfleet "
            "&& head -c 65536 /dev/zero >/etc/mailfleet/notes || :",
            "umount /etc/mailfleet && rmdir /etc/mailfleet",
        )
        route = f"unreachable {fleet.address('full')}"
        self._put("gw1", f"ip route add {route}", f"ip route del {route}")
        listen = "systemd-run --quiet --unit=stranger /usr/bin/python3 -m http.server --bind 127.0.0.1 10125"
        self._put("gw1", listen, "systemctl stop stranger")
        assert wait_for(lambda: fleet.run("gw1", "ss -Hltn 'sport = :10125'").strip(), 20)
        self._away.callback(undo_killed_run, fleet, "killed")
        kill_a_run(fleet, "killed")

    def take_away(self) -> None:
        """Take everything away again."""
        self._away.close()

    def inventory(self) -> Path:
        """The inventory with what is in the way in it: accounts, interpreters, names, certificates, email configs."""
        lab = lab_inventory(self._fleet)
        gateways = lab["all"]["children"]["mail_gateways"]["hosts"]
        servers = lab["all"]["children"]["mail_servers"]["hosts"]
        where = {host: {"ansible_host": one["ansible_host"]} for host, one in servers.items()}
        servers["gone"] = {"ansible_host": self._fleet.variables["lab_subnet"].replace(".0/24", ".250")}
        servers["nopython"] = {**where["stopped"], "ansible_python_interpreter": "/opt/nowhere/bin/python3"}
        servers["nosudo"] = {**where["killed"], "ansible_user": "guest"}
        pki = self._fleet.pki
        servers["noroot"] = {
            **where["killed"],
            "ansible_become": False,
            "starttls_hostname": "killed.fleet.test",
            "starttls_private_key_file": str(pki / "killed.key"),
            "starttls_certificate_file": str(pki / "killed.pem"),
        }
        servers["killed"]["starttls_hostname"] = "nowhere.fleet.test"
        servers["killed"]["starttls_private_key_file"] = str(self._place / "missing.key")
        gateways["gw1"] |= {"starttls_private_key_file": "", "starttls_certificate_file": ""}
        authority = Authority.create()
        expired = authority.expired(["full.fleet.test"])
        servers["full"] |= written(self._place, "expired", expired, authority)
        lab["all"]["vars"]["email_configs"] = [
            {"name": "stopped", "domains": ["stopped.test"], "servers": ["stopped"], "delivery_mode": "match_sender"},
            {"name": "full", "domains": ["full.test"], "servers": ["full"], "delivery_mode": "opportunistic"},
            {
                "name": "killed",
                "domains": ["killed.test", "stranger.test"],
                "servers": ["killed"],
                "delivery_mode": "opportunistic",
            },
        ]
        path = self._place / "inventory.yml"
        path.write_text(yaml.safe_dump(lab, sort_keys=False))
        return path


def written(place: Path, name: str, issued: Issued, authority: Authority) -> dict[str, str]:
    """The variables of a host with this certificate."""
    parts = {
        "private_key_file": issued.key_pem,
        "certificate_file": issued.certificate_pem,
        "chain_file": issued.chain_pem,
        "ca_file": authority.root_pem,
    }
    for part, content in parts.items():
        (place / f"{name}.{part}").write_bytes(content)
    return {f"starttls_{part}": str(place / f"{name}.{part}") for part in parts}


def serve_another(fleet: Fleet, host: str) -> None:
    """Have a Postfix serve another certificate than the installed one, so that no change can be proved."""
    fleet.run(host, f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=other -keyout {OTHER} -out /root/other 2>&1")
    fleet.run(host, f"cat /root/other >>{OTHER}; rm /root/other; postconf -P {OVERRIDE}={OTHER} && postfix reload 2>&1")


def kill_a_run(fleet: Fleet, host: str) -> None:
    """Kill a change of a Postfix host in its middle: it is written and not yet proved."""
    serve_another(fleet, host)
    source = {"private_key_file": f"{host}.key", "certificate_file": f"{host}.pem", "chain_file": "chain.pem"}
    install = {name: str(fleet.pki / file) for name, file in source.items()}
    install |= {"ca_file": str(fleet.ca), "names": [f"{host}.fleet.test"]}
    options = {"inbound": "offered", "timeout": 60, "install": install}
    command = [
        str(Path(sys.executable).parent / "ansible"), "-i", str(STATE / "inventory.yml"), host,
        "-m", "mailfleet.starttls.mail_server_tls", "-a", json.dumps(options),
    ]  # fmt: skip
    run = subprocess.Popen(
        command, cwd=TOP, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        seen = wait_for(lambda: fleet.run(host, "postconf -h smtpd_tls_security_level").strip() == "may", 120)
        journal = fleet.run(host, JOURNALS, check=False).strip()
        pids = fleet.run(host, CHANGING).split()
        assert seen and journal and pids, f"no change was seen: {journal} {pids}"
        fleet.run(host, f"kill -KILL {' '.join(pids)}")
    finally:
        output = run.communicate(timeout=600)[0]
    assert fleet.run(host, JOURNALS).strip() == journal, output
    fleet.run(host, f"postconf -PX {OVERRIDE} && rm {OTHER}")


def undo_killed_run(fleet: Fleet, host: str) -> None:
    """Undo what a killed run left, if there is anything."""
    undone = fleet.module(host, "mail_server_tls", {"only_recover": True})
    assert undone.status == 0, undone.output


@dataclass(frozen=True)
class Planned:
    """A run that ended with its plan."""

    played: Played
    plan: dict[str, Any]

    def codes(self, what: str) -> dict[str, set[str]]:
        """Host -> codes of its obstacles or warnings, as the JSON file has them."""
        found: dict[str, set[str]] = {}
        for one in self.plan[what]:
            found.setdefault(one["host"], set()).add(one["code"])
        return found

    def rows(self) -> dict[str, list[str]]:
        """Host -> the cells of its row, from what was printed."""
        _title, _plan, text = self.played.output.partition("\nPlan: ")
        table = text.split("\n\n")[1].splitlines()
        return {line.split()[0]: re.split(r"  +", line)[1:] for line in table[2:]}


def planned(fleet: Fleet, place: Path, playbook: str, *arguments: str, **variables: Any) -> Planned:
    """Play something that ends with its plan, and read the file that it writes."""
    path = place / "plan.json"
    path.unlink(missing_ok=True)
    played = fleet.play(
        f"playbooks/{playbook}.yml", *arguments, variables={**variables, "starttls_plan_file": str(path)}
    )
    assert path.exists(), played.output
    plan = json.loads(path.read_text())
    VALIDATOR.validate(plan)
    return Planned(played, plan)
