#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_lock
short_description: Take or release the lock of the fleet, so that only one run changes it
version_added: 0.1.0
description:
  - A note on one host says which run changes the fleet. Another run that wants to change it stops before its first change, and says who
    has the lock and since when.
  - The playbooks take the lock after their plan, and release it when their tests are over, or when they stop. A run that changes nothing
    takes none.
  - A lock does not count any more if its run has ended on the same controller, or is older than O(hours).
options:
  state:
    description:
      - V(held) takes the lock, and fails if another run has it. A run that has it already changes nothing.
      - V(released) releases it. A lock of another run stays.
    type: str
    choices: [held, released]
    default: held
  playbook:
    description: What the run does. Another run that is refused shows it.
    type: str
    default: a run
  hours:
    description: After this time a lock does not count any more. The clock of the host counts.
    type: raw
    default: 6
  break_lock:
    description: Take the lock although another run has it. That run is not stopped by it.
    type: bool
    default: false
  user:
    description: Who runs it. The controller's part of this module sets it. Tasks cannot set it.
    type: str
    default: ''
  controller:
    description: Where it runs. Tasks cannot set it.
    type: str
    default: ''
  run:
    description: The name of the run. Tasks cannot set it.
    type: str
    default: ''
  process:
    description: Its process on the controller. Tasks cannot set it.
    type: str
    default: ''
  over:
    description: The name of a run that has ended, whose lock does not count. Tasks cannot set it.
    type: str
    default: ''
extends_documentation_fragment:
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
notes:
  - In check mode no lock is taken, and one of another run is a warning.
seealso:
  - module: mailfleet.starttls.tls_plan
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Let no other run change the fleet
  mailfleet.starttls.fleet_lock:
    playbook: my own change
  delegate_to: gw1.example.com
  run_once: true

- name: Let others change it again
  mailfleet.starttls.fleet_lock:
    state: released
  delegate_to: gw1.example.com
  run_once: true
"""

RETURN = r"""
held:
  description: Whether this run has the lock now.
  type: bool
  returned: success
  sample: true
host:
  description: The host on which the lock is, by its name in the inventory.
  type: str
  returned: success
  sample: gw1.example.com
former:
  description:
    - The lock of another run, which did not count any more, or which this run was not allowed to take or to release. Empty without one.
    - C(user), C(controller), C(playbook), C(run) and C(process) say whose it is, C(since) is the time in seconds since 1970, C(age) is in
      seconds. C(unreadable) is there instead if the note cannot be read.
  type: dict
  returned: success
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.fleet_lock import release_lock, take_lock
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["held", "released"], "default": "held"},
    "playbook": {"type": "str", "default": "a run"},
    "hours": {"type": "raw", "default": 6},
    "break_lock": {"type": "bool", "default": False},
}
"""The options for users. The action plugin reads them."""

HOST_SPEC: dict[str, dict[str, Any]] = {
    **ARGUMENT_SPEC,
    "user": {"type": "str", "default": ""},
    "controller": {"type": "str", "default": ""},
    "run": {"type": "str", "default": ""},
    "process": {"type": "str", "default": ""},
    "over": {"type": "str", "default": ""},
}
"""For the host: which run it is. over: a run that has ended, whose lock does not count."""


def _work(module: AnsibleModule) -> dict[str, Any]:
    given = module.params
    if given["state"] == "released":
        taken = release_lock(given["run"], time.time(), module.check_mode)
    else:
        holder = {name: given[name] for name in ("user", "controller", "playbook", "run", "process")}
        taken = take_lock(
            holder, time.time(), float(given["hours"]), given["break_lock"], given["over"], check_mode=module.check_mode
        )
    return {"changed": taken.changed, "held": taken.held, "former": dict(taken.former)}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(HOST_SPEC, supports_check_mode=True)
    fail_on_engine_errors(module, lambda: _work(module))


if __name__ == "__main__":
    main()
