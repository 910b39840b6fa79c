#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and options of the action plugin tls_verdict."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_verdict
short_description: Show the results of each host in one table, and fail if a host did not pass
version_added: 0.1.0
description:
  - Shows host, daemon, STARTTLS, TLS version, certificate, delivery mode, test messages and the verdict in a table.
    Fails if a host did not pass.
  - Runs on the controller only.
options:
  rows:
    description:
      - The results, one entry for each host.
      - C(host) and C(daemon) are text. C(expected) is V(offered), V(disabled) or V(either).
        C(probes) are results of M(mailfleet.starttls.starttls_probe), each with a text C(seen_from).
        C(traces) are results of M(mailfleet.starttls.message_trace), each with C(direction) and C(findings).
        C(errors) is a list of text about missing results. C(delivery_modes) is a list of text.
        C(listeners) are further listeners of the host, each with C(address), C(tls), C(certificate), C(fingerprint_sha256) and
        C(days_left).
    type: list
    elements: dict
    required: true
  title:
    description:
      - The heading of the table.
    type: str
    default: TLS on the mail fleet
  not_in_run:
    description:
      - Hosts of the inventory that are not in this run. They are named below the table, and neither pass nor fail.
    type: list
    elements: str
    default: []
  fail_on:
    description:
      - The lowest severity of a finding that makes a host fail.
    type: str
    choices: [error, warning, notice]
    default: error
  fail:
    description:
      - Whether the task fails if a host did not pass. With V(false) the result has it as RV(stops), and the next task can fail with RV(msg)
        alone. Then nothing that was shown is shown a second time.
    type: bool
    default: true
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
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Show the verdict
  mailfleet.starttls.tls_verdict:
    rows:
      - host: "{{ inventory_hostname }}"
        daemon: Postfix
        probes: "{{ probe.results }}"
    fail: false
  register: verdict
  run_once: true

- name: Fail if a host did not pass
  ansible.builtin.fail:
    msg: "{{ verdict.msg }}"
  when: verdict.stops
  run_once: true
"""

RETURN = r"""
table:
  description: The table as text.
  type: str
  returned: always
rows:
  description:
    - The rows of the table, each with its findings (C(severity) and C(message)), and with what stands below it, C(others), which are
      its listeners that differ and what other hosts were served by it, and C(peers), the hops to and from its peers.
  type: list
  elements: dict
  returned: always
handed_on:
  description:
    - What a job hands on to the next one of a workflow as C(starttls_result) - C(summary), and the first C(findings) and C(alerts). Small.
  type: dict
  returned: always
stops:
  description: Whether a host did not pass. The task has then failed, unless O(fail) is V(false).
  type: bool
  returned: success
"""

from typing import Any

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "rows": {"type": "list", "elements": "dict", "required": True},
    "title": {"type": "str", "default": "TLS on the mail fleet"},
    "not_in_run": {"type": "list", "elements": "str", "default": []},
    "fail_on": {"type": "str", "choices": ["error", "warning", "notice"], "default": "error"},
    "fail": {"type": "bool", "default": True},
}
"""The options. The action plugin reads them."""
