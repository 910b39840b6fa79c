#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION. The work is done on the controller, in plugins/action/tls_recovery.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_recovery
short_description: Show the mail that waits for want of TLS, and what has to be done
version_added: 0.1.0
description:
  - Looks at the queues of all hosts of a run. Says which side is at fault, and which steps bring the two sides into an order that delivers.
  - Shows one table. O(stage=after) shows the queues before and after.
  - The playbook C(recover_deferred_mail) uses it. The task runs on the controller. Give it C(run_once).
options:
  stage:
    description: V(before) plans. V(after) compares with what was registered since.
    type: str
    choices: [before, after]
    default: before
  hosts:
    description: The hosts of the run.
    type: list
    elements: str
    required: true
  json_file:
    description: A file on the controller for the same facts as JSON.
    type: path
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
  - module: mailfleet.starttls.deferred_mail_info
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Show what waits, and what has to be done
  mailfleet.starttls.tls_recovery:
    hosts: "{{ ansible_play_hosts_all }}"
  run_once: true
"""

RETURN = r"""
run:
  description: With O(stage=before), the steps and their hosts, and what is tried again.
  type: dict
  returned: O(stage=before)
queue:
  description:
    - One entry for each host, instance, next hop and cause, with the number of recipients C(before) and, with O(stage=after), C(after).
  type: list
  elements: dict
  returned: success
by_hand:
  description: What the run cannot change, and what to do there.
  type: list
  elements: str
  returned: success
unknown:
  description: Host -> why its queue is not known.
  type: dict
  returned: success
stops:
  description: With O(stage=after), whether mail still waits that was tried again, something is to be done by hand, or a host was not read.
  type: bool
  returned: O(stage=after)
msg:
  description: The result in words.
  type: str
  returned: O(stage=after)
"""

from typing import Any

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "stage": {"type": "str", "choices": ["before", "after"], "default": "before"},
    "hosts": {"type": "list", "elements": "str", "required": True},
    "json_file": {"type": "path"},
}
"""The options. The action plugin reads them."""
