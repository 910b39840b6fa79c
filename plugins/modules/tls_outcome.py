#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION. The work is done on the controller, in plugins/action/tls_outcome.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_outcome
short_description: Stop a run after a failure, and show where every host stands
version_added: 0.1.0
description:
  - Looks at the results of one step of a plan. If the step failed on a host, or a host was unreachable, the task fails and shows a table
    of all hosts - done, failed with the reason, restored, not started.
  - The task runs on the controller. Give it C(run_once), and the tasks before it C(ignore_errors) and C(ignore_unreachable).
options:
  step:
    description: The step of the plan that ran.
    type: str
    required: true
  plan:
    description: The plan, see M(mailfleet.starttls.tls_plan). By default the plan of this run, C(hostvars.localhost.tls_plan).
    type: dict
  results:
    description: Host -> the result of the step on that host. By default what the collection's roles registered.
    type: dict
  tests:
    description:
      - Handshake tests with the changed hosts, each with C(inventory_host) and C(findings). A finding that is an error stops the run.
      - By default what the role C(verify) registered.
    type: list
    elements: dict
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
seealso:
  - module: mailfleet.starttls.tls_plan
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Stop here if a mail server failed
  mailfleet.starttls.tls_outcome:
    step: offer
  run_once: true
"""

RETURN = r"""
hosts:
  description: Host -> C(role), C(state) and C(reason).
  type: dict
  returned: success
  sample:
    mail1: {host: mail1, role: mail_server, state: "done: offer", reason: ""}
"""

from typing import Any

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "step": {"type": "str", "required": True},
    "plan": {"type": "dict"},
    "results": {"type": "dict"},
    "tests": {"type": "list", "elements": "dict"},
}
"""The options. The action plugin reads them."""
