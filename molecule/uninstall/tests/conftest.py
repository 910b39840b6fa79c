"""What a host is, as far as the collection could leave something on it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from lab_testinfra import Fleet

Snapshot = Callable[[str], list[str]]

# The tools that add and remove users keep the former file beside each.
KEPT_BY_SHADOW = ["passwd-", "group-", "shadow-", "gshadow-", "subuid-", "subgid-"]
_LOOK = r"""
cd /etc
find . -xdev {names} -printf '%p %y %m %U:%G %l\n' | LC_ALL=C sort
find . -xdev {names} -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
echo "# directories"
ls -1d /var/lib/* /var/spool/* /usr/local/lib/* /usr/local/bin/* | LC_ALL=C sort
echo "# unit files"
systemctl list-unit-files --no-legend --no-pager --plain | LC_ALL=C sort
echo "# units"
systemctl list-units --all --no-legend --no-pager --plain | awk '{{print $1, $2, $3, $4}}' | LC_ALL=C sort
echo "# ports"
ss -Hltnu | awk '{{print $1, $5}}' | LC_ALL=C sort -u
"""
# What comes and goes by itself on a host that is used.
_PASSING = re.compile(
    r"^(session-|user@|user-|run-|sys-|dev-|ssh@|sshd@|systemd-|proc-|logrotate|apt-|e2scrub|fstrim|dpkg-|man-db|exim4-base|init\.scope)"
)


@pytest.fixture(scope="session")
def snapshot(fleet: Fleet) -> Snapshot:
    """The whole of /etc with owners, modes and digests, the units, the users (in /etc) and the listening ports, as lines."""
    names = " ".join(f"! -name {name}" for name in KEPT_BY_SHADOW)

    def look(host: str) -> list[str]:
        lines = fleet.run(host, _LOOK.format(names=names)).splitlines()
        return [line for line in lines if not _PASSING.match(line)]

    return look
