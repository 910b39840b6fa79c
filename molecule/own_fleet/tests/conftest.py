"""The hosts of this scenario are an administrator's who trusts nobody: no programs in /tmp, and root's own umask takes nothing away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_newcomer import FQDN
from lab_testinfra import Fleet

STRICT = """
for place in /tmp /var/tmp; do
    mountpoint -q $place || mount -t tmpfs -o noexec,nosuid,nodev,mode=1777 tmpfs $place
    mount -o remount,noexec,nosuid,nodev $place
done
printf '%s\\n' 'Defaults umask=0000' 'Defaults umask_override' >/etc/sudoers.d/umask
chmod 440 /etc/sudoers.d/umask
cp /bin/true /tmp/true && ! /tmp/true 2>/dev/null && rm /tmp/true
"""


@pytest.fixture(scope="session", autouse=True)
def _strict(fleet: Fleet) -> Iterator[None]:
    for host in FQDN:
        fleet.run(host, STRICT)
    yield
    for host in FQDN:
        fleet.run(host, "rm /etc/sudoers.d/umask; umount /tmp /var/tmp")
