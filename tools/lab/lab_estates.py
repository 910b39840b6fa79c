"""Other inventories of the same hosts."""

from __future__ import annotations

from typing import Any

import yaml
from lab_testinfra import STATE, Fleet


def other_inventory(
    name: str, groups: dict[str, list[str]], hosts: dict[str, dict[str, Any]] | None = None, **variables: Any
) -> Fleet:
    """The fleet with another inventory: only these groups, each with some of its hosts. What is not named is not in it.

    hosts: variables of single hosts, besides those of the lab. variables: those of all hosts.
    """
    given = yaml.safe_load((STATE / "inventory.yml").read_text())["all"]
    known = {host: data or {} for group in given["children"].values() for host, data in group["hosts"].items()}
    mine = hosts or {}
    children = {
        group: {
            "vars": {"ansible_become": True},
            "hosts": {host: {**known.get(host, {}), **mine.get(host, {})} for host in members},
        }
        for group, members in groups.items()
    }
    made = {"all": {"vars": {**given["vars"], **variables}, "children": children}}
    fleet = Fleet()
    fleet.inventory = STATE / f"{name}.yml"
    fleet.inventory.write_text(yaml.safe_dump(made))
    return fleet
