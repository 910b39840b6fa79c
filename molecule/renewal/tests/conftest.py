"""What the tests of the scenario share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_renewal import Renewing, acme_fleet
from lab_testinfra import Played


@pytest.fixture(scope="session")
def renewing() -> Iterator[Renewing]:
    """The mail servers with an inventory that says where their certificates come from."""
    fleet = acme_fleet()
    yield Renewing(fleet)
    fleet.end()


@pytest.fixture(scope="session")
def first(renewing: Renewing) -> Played:
    """The first certificates, by the playbook. From here on a renewal happens only when a test has it happen."""
    played = renewing.fleet.play("playbooks/enable_tls.yml")
    renewing.on_each(lambda host: renewing.run(host, "systemctl stop mailfleet-starttls-renew.timer"))
    return played
