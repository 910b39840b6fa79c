#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and options of the action plugin tls_plan."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_plan
short_description: Show what a run would change on all hosts, in which order, and what stands in the way
version_added: 0.1.0
description:
  - Compares what the inventory wants with what was read on every host, and shows one table with what there is, what will change and
    what stands in the way. Below it are the reasons, every diff once, the order of the hosts and what TLS costs.
  - A host that could not be read is unknown, and never left out.
  - Runs on the controller only, and changes nothing.
options:
  estate:
    description:
      - What the inventory wants, from the filter C(mailfleet.starttls.estate). Its hosts are those of the run.
    type: dict
    required: true
  action:
    description:
      - What the run is to do. V(enable) and V(disable) switch TLS on and off on all its hosts. V(set_delivery_mode) changes the gateways
        only. V(uninstall) removes everything from all its hosts. V(undo) puts back what C(starttls_changes) of the hosts names.
        V(rotate) renews certificates, and leaves who uses TLS with whom as it is.
    type: str
    choices: [enable, disable, set_delivery_mode, uninstall, undo, rotate]
    default: enable
  observed:
    description:
      - Names of the variables in which the hosts have the results of M(mailfleet.starttls.mail_server_info) and of its counterpart for
        gateways. A host needs one of them. The results may have failed.
    type: list
    elements: str
    default: [mail_server_observed, gateway_observed]
  batches:
    description:
      - Sizes of the canary and of the batches of mail servers, as numbers or as shares of the hosts that change. The last one is repeated.
      - By default C(starttls_batches) of the mail servers, else a canary, a quarter, and the rest.
      - No batch holds all mail servers of an email config that has more than one. Gateways change one at a time.
    type: list
    elements: raw
  only_these_hosts:
    description:
      - Plan as if the hosts of O(estate) were all hosts of the inventory. A role that is used alone does so.
    type: bool
    default: false
  recovered:
    description:
      - The hosts with the journal of a killed run were undone and read again. One that still has a journal stops the run.
    type: bool
    default: false
  plan_only:
    description:
      - Whether the plan is all that is wanted. Check mode counts as such.
      - Otherwise changes follow, and a plan that is blocked or unknown fails, whatever O(fail_on) says.
    type: bool
    default: false
  fail_on:
    description:
      - The result of a plan with which the task fails if only the plan is wanted. V(drift) fails if anything has to change.
        V(blocked) fails if something stands in the way or a host is unknown.
    type: str
    choices: [drift, blocked, never]
    default: blocked
  fail:
    description:
      - Whether the task fails if the run has to stop. With V(false) the result has it as RV(stops), and the next task can fail with RV(msg)
        alone. Then nothing that was shown is shown a second time.
    type: bool
    default: true
  json_file:
    description:
      - A file on the controller for the plan as JSON. It is written even if the task fails, also in check mode.
      - A relative path starts where Ansible was started.
      - The file C(docs/schema/plan.schema.json) of the collection describes it.
    type: path
extends_documentation_fragment:
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details:
      - The plan shows the diffs itself, each once, with and without C(--diff).
  idempotent:
    support: full
notes:
  - The task reads the variables of all hosts itself, so it needs C(run_once).
seealso:
  - module: mailfleet.starttls.mail_server_info
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Read every host
  mailfleet.starttls.mail_server_info:
  register: mail_server_observed
  ignore_errors: true
  ignore_unreachable: true

- name: Show the plan
  mailfleet.starttls.tls_plan:
    estate: "{{ email_configs | mailfleet.starttls.estate(hostvars, ansible_play_hosts_all) }}"
    fail: false
  register: tls_plan
  run_once: true

- name: Stop if something stands in the way
  ansible.builtin.fail:
    msg: "{{ tls_plan.msg }}"
  when: tls_plan.stops
  run_once: true
"""

RETURN = r"""
plan:
  description:
    - The plan. C(result) is V(clean), V(drift), V(blocked) or V(unknown). C(hosts) has an entry for each host of the run, and C(steps) one
      for each step, with its hosts in order and the sizes of its batches.
    - The file C(docs/schema/plan.schema.json) of the collection describes it.
  type: dict
  returned: always
table:
  description: The table as text.
  type: str
  returned: always
handed_on:
  description:
    - What a job hands on to the next one of a workflow as C(starttls_result) - C(summary), and the first C(findings) and C(alerts). Small.
  type: dict
  returned: if the plan is shown
run:
  description:
    - What the steps of a playbook read. C(changes) is what the workflow has changed once the run is over, together with what its
      former jobs have handed on as C(starttls_changes).
  type: dict
  returned: success
stops:
  description: Whether the run has to stop. The task has then failed, unless O(fail) is V(false).
  type: bool
  returned: success
"""

from typing import Any

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "estate": {"type": "dict", "required": True},
    "action": {
        "type": "str",
        "choices": ["enable", "disable", "set_delivery_mode", "uninstall", "undo", "rotate"],
        "default": "enable",
    },
    "observed": {"type": "list", "elements": "str", "default": ["mail_server_observed", "gateway_observed"]},
    "batches": {"type": "list", "elements": "raw"},
    "plan_only": {"type": "bool", "default": False},
    "only_these_hosts": {"type": "bool", "default": False},
    "recovered": {"type": "bool", "default": False},
    "fail_on": {"type": "str", "choices": ["drift", "blocked", "never"], "default": "blocked"},
    "fail": {"type": "bool", "default": True},
    "json_file": {"type": "path"},
}
"""The options. The action plugin reads them."""
