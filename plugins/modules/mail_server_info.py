#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_server_info
short_description: Say which product a host runs
version_added: 0.1.0
description:
  - Finds the mail server of a host, and returns its kind and the places of its files.
  - The page C(docs/kinds.md) of the collection lists the kinds, and how each is recognised.
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
options:
  kind:
    description:
      - The kind of the host. V(auto) detects it. An unknown kind is refused, and the message lists the kinds.
    type: str
    default: auto
seealso:
  - module: mailfleet.starttls.mail_server_tls
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: See which product each host runs
  mailfleet.starttls.mail_server_info:
  register: mail_server_observed
"""

RETURN = r"""
kind:
  description: The kind. Empty if V(auto) finds no mail server, or more than one.
  type: str
  returned: success
  sample: postfix
title:
  description: The name of the product.
  type: str
  returned: when the kind is known
  sample: Postfix
layout:
  description:
    - The places of the product on this host, and what differs from platform to platform. C(platform), C(programs), C(unit),
      C(config_dir), C(config_file), C(user), C(logs), C(certificate), C(certificate_group), C(certificate_mode) as a number,
      C(ca_bundle), C(security_context) and C(sign).
  type: dict
  returned: when the product is on this host
  sample: {platform: Debian, config_dir: /etc/postfix, unit: postfix.service}
message:
  description: Why the kind is empty.
  type: str
  returned: when the kind is empty
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import AUTO, describe

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {"kind": {"type": "str", "default": AUTO}}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)
    fail_on_engine_errors(module, lambda: {"changed": False, **describe(module.params["kind"])})


if __name__ == "__main__":
    main()
