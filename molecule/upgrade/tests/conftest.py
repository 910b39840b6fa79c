"""The estate of this scenario: gateways and mail servers, with an email config for each delivery mode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from lab_testinfra import Fleet
from lab_upgrade import AS_PACKAGED, Estate, estate_of


@pytest.fixture(scope="session")
def estate(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    """The fleet with TLS on."""
    there = Fleet()
    found, inventory = estate_of(there, yaml.safe_load(fleet.inventory.read_text()))
    there.inventory = Path(tmp_path_factory.mktemp("upgrade"), "inventory.yml")
    there.inventory.write_text(yaml.safe_dump(inventory, sort_keys=False))
    for host, kind in found.kinds.items():
        if kind == "exim":
            there.run(host, AS_PACKAGED)
    on = there.play("playbooks/enable_tls.yml")
    assert on.status == 0, on.output
    yield found
    there.end()
