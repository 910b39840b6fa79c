"""Let testinfra's ansible:// hosts speak to the lab's containers directly: 0.1 s a command instead of 5 s."""

from __future__ import annotations

from typing import Any

import testinfra
from testinfra.utils import ansible_runner

_original = ansible_runner.get_ansible_host


def _get_ansible_host(config: Any, inventory: Any, host: str, *args: Any, **kwargs: Any) -> Any:
    variables = inventory["_meta"]["hostvars"].get(host, {})
    if variables.get("ansible_connection") == "containers.podman.podman":
        return testinfra.get_host(f"podman://{variables['ansible_host']}")
    return _original(config, inventory, host, *args, **kwargs)


ansible_runner.get_ansible_host = _get_ansible_host
