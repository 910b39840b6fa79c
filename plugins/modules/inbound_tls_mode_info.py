#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: inbound_tls_mode_info
short_description: Read the inbound TLS delivery modes of a gateway
version_added: 0.1.0
description:
  - Tells which email configs a gateway holds, and which delivery modes it can express.
options:
  gateway:
    description:
      - What kind of gateway the host is.
    type: str
    choices: [postfix, exim]
    default: postfix
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
  - module: mailfleet.starttls.inbound_tls_mode
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Read the delivery modes
  mailfleet.starttls.inbound_tls_mode_info:
  register: gateway
"""

RETURN = r"""
email_configs:
  description: The email configs that the gateway holds, in order of their names.
  type: list
  elements: dict
  returned: success
  sample:
    - {name: main, domains: [example.com], servers: ['mail1.example.com:25'], delivery_mode: match_sender}
delivery_modes:
  description: The delivery modes that the gateway can express.
  type: list
  elements: str
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils.gateway.factory import GATEWAYS, make_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.run import fail_on_engine_errors, runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"gateway": {"type": "str", "choices": list(GATEWAYS), "default": "postfix"}},
        supports_check_mode=True,
    )

    def work() -> dict[str, Any]:
        gateway = make_gateway(module.params["gateway"], runner(module), Settings(), Target("127.0.0.1"), 0)
        held = gateway.read()
        return {
            "changed": False,
            "email_configs": [held[name].to_dict() for name in sorted(held)],
            "delivery_modes": list(gateway.modes),
        }

    fail_on_engine_errors(module, work)


if __name__ == "__main__":
    main()
