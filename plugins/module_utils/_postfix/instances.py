# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The further instances of a Postfix gateway, and the units that start them.

Debian 12 makes a unit for every instance by a generator, Debian 13 has a template without one, and both give the unit another name.
So each instance has a unit of ours, a plain file under the name that Debian 13 expects: the same before and after an upgrade.
The generated one of Debian 12 stays off by a condition. Sources: systemd.unit(5), systemd.service(5), postmulti(1), the package postfix.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.units import unit_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.master import running, runs
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target

UNITS = "/etc/systemd/system"
_TARGETS = ("multi-user.target", "postfix.service")
"""What wants the units: the boot, and Postfix itself, because a start of it after a stop has to bring them back."""

# What Debian 13 gives to Postfix. An instance has no chroot, and no file of its own outside its queue and data.
_UNIT = """\
# Written by mailfleet.starttls; a change made here is lost. Make it in a drop-in.
[Unit]
Description=Postfix, instance {name} (mailfleet.starttls)
Documentation=man:postfix(1)
After=network.target nss-lookup.target
Before=postfix.service postfix@-.service
PartOf=postfix.service
ReloadPropagatedFrom=postfix.service
ConditionPathExists={directory}/main.cf

[Service]
Type=forking
PIDFile={queue}/pid/master.pid
Environment=MAIL_CONFIG={directory}
ExecStartPre=+/usr/sbin/postfix check
ExecStart=/usr/sbin/postfix start
ExecStop=/usr/sbin/postfix stop
ExecReload=/usr/sbin/postfix reload
CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_SETGID CAP_SETUID CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_CHOWN
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=no
PrivateDevices=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=full
RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=no
SystemCallFilter=@system-service @setuid chroot

[Install]
WantedBy={targets}
"""
_OFF = """\
# Written by mailfleet.starttls: the unit {unit} starts this instance.
[Unit]
ConditionPathExists=!{path}
"""


@dataclass(frozen=True)
class Instance:
    """One of the loopback-only instances. port: its listener. arrival: the kind of arrival that it serves, see PostfixGateway."""

    name: str
    directory: str
    port: Target
    arrival: int

    @property
    def exists(self) -> bool:
        """Whether it has a configuration."""
        return Path(self.directory, "main.cf").exists()

    @property
    def queue(self) -> str:
        """Its queue directory."""
        return f"/var/spool/{self.name}"

    @property
    def data(self) -> str:
        """Its data directory."""
        return f"/var/lib/{self.name}"

    @property
    def runs(self) -> bool:
        """Whether its master runs, whoever has started it."""
        return runs(self.queue)

    @property
    def unit(self) -> str:
        """Its unit, under the name of Debian 13, whose postfix@.service takes the part behind the hyphen."""
        return f"postfix@{self.name.partition('-')[2]}.service"

    @property
    def former_unit(self) -> str:
        """The unit that Debian 12 makes for it, and that earlier versions used there."""
        return f"postfix@{self.name}.service"

    @property
    def has_unit(self) -> bool:
        """Whether our unit is there."""
        return Path(UNITS, self.unit).exists()

    @property
    def is_masked(self) -> bool:
        """Whether somebody has put a link to nothing in the place of the unit."""
        return Path(UNITS, self.unit).is_symlink()

    @property
    def is_enabled(self) -> bool:
        """Whether the boot and a start of Postfix start our unit."""
        return self.has_unit and all(Path(UNITS, f"{one}.wants", self.unit).is_symlink() for one in _TARGETS)

    @property
    def runs_elsewhere(self) -> bool:
        """Whether another unit than ours has started it."""
        return unit_of(running(self.queue)) not in ("", self.unit)

    @property
    def has_left_overs(self) -> bool:
        """Whether it may have been started or enabled at some time."""
        places = any(Path(one).exists() for one in (self.queue, self.data))
        return places or any(map(_links, (self.unit, self.former_unit)))

    def unit_files(self) -> list[FileImage]:
        """Return its unit, and what keeps the generated one of Debian 12 off."""
        path = f"{UNITS}/{self.unit}"
        unit = _UNIT.format(name=self.name, directory=self.directory, queue=self.queue, targets=" ".join(_TARGETS))
        return [
            FileImage(path, unit.encode()),
            FileImage(f"{UNITS}/{self.former_unit}.d/mailfleet.conf", _OFF.format(unit=self.unit, path=path).encode()),
        ]


def _links(unit: str) -> list[Path]:
    """Return the links by which something wants a unit, also those whose unit is gone."""
    return [path for path in Path(UNITS).glob("*.wants/postfix@*.service") if path.name == unit]


def not_enabled(instances: Sequence[Instance]) -> list[str]:
    """Return the units that systemd does not want yet."""
    return [one.unit for one in instances if one.has_unit and not one.is_enabled]


def stop_elsewhere(run: Runner, instance: Instance) -> None:
    """Stop an instance that another unit has started, so that ours can. Its queue stays, and its clients try again.

    Only the unit that is for this instance alone is stopped: Postfix's own start brings up all instances in one unit.
    """
    if unit_of(running(instance.queue)) == instance.former_unit:
        run(["systemctl", "--quiet", "stop", instance.former_unit])
    else:
        run(["postfix", "-c", instance.directory, "stop"])


def remove_units(run: Runner, instances: Sequence[Instance]) -> None:
    """Stop and disable the units under both names, whether their files are still there or not."""
    for one in instances:
        for unit in (one.unit, one.former_unit):
            for verb in ("stop", "disable", "reset-failed"):
                run(["systemctl", "--quiet", verb, unit])
            for link in _links(unit):
                with contextlib.suppress(FileNotFoundError):
                    link.unlink()
    if instances:
        run(["systemctl", "daemon-reload"])
    for target in _TARGETS:
        with contextlib.suppress(OSError):  # others want something there, too
            Path(UNITS, f"{target}.wants").rmdir()
