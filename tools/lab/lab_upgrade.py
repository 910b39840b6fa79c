"""Hosts of the lab that Debian's own tools change under TLS, and what has to be as before: the ways of mail, the settings, the units."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from lab_modes import USES_TLS
from lab_testinfra import Fleet, Played, wait_for

WHOLE = os.environ.get("LAB_UPGRADE") == "all"
"""Whether every host becomes Debian 13, all of it. Otherwise one gateway and its mail packages."""
UNATTENDED = "DEBIAN_FRONTEND=noninteractive"
PACKAGES = {"postfix": "postfix python3", "exim": "exim4-daemon-heavy exim4-config python3"}
"""Kind -> what is upgraded if not the whole system: the mail packages, and the language of what the collection leaves on a host."""


@dataclass(frozen=True)
class Estate:
    """The hosts. kinds: host -> postfix or exim. modes: domain -> delivery mode. homes: domain -> mail server."""

    fleet: Fleet
    kinds: dict[str, str]
    gateways: tuple[str, ...]
    modes: dict[str, str]
    homes: dict[str, str]

    def upgraded(self) -> tuple[str, ...]:
        """The hosts that become Debian 13."""
        return tuple(self.kinds) if WHOLE else self.gateways

    def ways(self) -> dict[tuple[str, str, bool], bool]:
        """Send a message over TLS and one in plaintext to each mode; (gateway, mode, how it was sent) -> whether it went on over TLS."""
        marks = {
            (gateway, domain, tls): self.fleet.send("outside", [f"trace@{domain}"], tls=tls, to=gateway)
            for gateway in self.gateways
            for domain in self.modes
            for tls in (False, True)
        }
        return {
            (gateway, self.modes[domain], tls): self.fleet.arrived_over_tls(self.homes[domain], mark, 90)
            for (gateway, domain, tls), mark in marks.items()
        }

    def of_the_table(self) -> dict[tuple[str, str, bool], bool]:
        """What ways() has to return."""
        return {
            (gateway, mode, tls): USES_TLS[mode][tls]
            for gateway in self.gateways
            for mode in self.modes.values()
            for tls in (False, True)
        }

    def waiting(self) -> dict[str, str]:
        """Host -> what its queues hold, of the hosts where that is anything."""
        found = {}
        for host, kind in self.kinds.items():
            look = (
                "exim4 -bp"
                if kind == "exim"
                else "for d in /etc/postfix /etc/postfix-*; do [ ! -d $d ] || postqueue -c $d -j; done"
            )
            if text := self.fleet.run(host, look).strip():
                found[host] = text
        return found

    def rerun(self) -> Played:
        """Switch TLS on once more: nothing changes."""
        again = self.fleet.play("playbooks/enable_tls.yml")
        assert again.status == 0, again.output
        assert set(again.changed) >= set(self.kinds), again.output
        assert not any(again.changed.values()), again.output
        return again

    def holds(self) -> None:
        """Mail takes the ways of the table, and no message waits."""
        assert self.ways() == self.of_the_table()
        assert wait_for(lambda: not self.waiting()), self.waiting()


def estate_of(fleet: Fleet, lab: dict[str, Any]) -> tuple[Estate, dict[str, Any]]:
    """The estate on the lab's fleet, and its inventory: all gateways in the group of the gateways, a domain for each delivery mode."""
    groups = lab["all"]["children"]
    groups["mail_gateways"]["hosts"].update(groups.pop("other_gateways", {"hosts": {}})["hosts"])
    groups = {name: groups[name] for name in ("mail_gateways", "mail_servers", "mail_outside")}
    gateways, servers = groups["mail_gateways"]["hosts"], groups["mail_servers"]["hosts"]
    homes = {domain: host for host, data in servers.items() for domain in data["lab_domain"].split()}
    # Where there are fewer domains than modes, those that a gateway needs its wiring for come first.
    modes = dict(zip(homes, ("match_sender", "required", "match_sender_strict", "opportunistic", "plaintext")))
    lab["all"]["children"] = groups
    lab["all"]["vars"]["email_configs"] = [
        {"name": domain.partition(".")[0], "domains": [domain], "servers": [homes[domain]], "delivery_mode": mode}
        for domain, mode in modes.items()
    ]
    kinds = {
        host: "exim" if "lab_exim_split_config" in data else "postfix" for host, data in {**gateways, **servers}.items()
    }
    return Estate(fleet, kinds, tuple(gateways), modes, homes), lab


AS_PACKAGED = (
    "sed -i '/^host_lookup_order = byaddr:bydns$/d' /etc/exim4/exim4.conf.template /etc/exim4/conf.d/main/* "
    "&& update-exim4.conf && systemctl reload exim4"
)
"""Takes a line of prepare/exim.sh out of files of the package: dpkg would ask about it, whatever the collection does."""


def upgrade(fleet: Fleet, host: str, kind: str) -> str:
    """Debian 12 becomes Debian 13, as in a job that nobody watches; returns what apt-get said."""
    sources = "/etc/apt/sources.list $(ls /etc/apt/sources.list.d/* 2>/dev/null)"
    what = "dist-upgrade" if WHOLE else f"install {PACKAGES[kind]}"
    # The container's time zone is mounted over the file of tzdata.
    return fleet.run(
        host,
        f"sed -i s/bookworm/trixie/g {sources} && apt-mark hold tzdata && apt-get update -qq && "
        f"{UNATTENDED} apt-get -y {what} </dev/null 2>&1",
    )


def unsettled(fleet: Fleet, host: str) -> str:
    """What dpkg left unpacked or unconfigured, and units that failed."""
    return fleet.run(host, "dpkg --audit; systemctl --failed --no-legend --plain", check=False).strip()
