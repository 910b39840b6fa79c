#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: inbound_tls_mode_info
short_description: Read the delivery modes, enforced domains and outbound settings of a gateway
version_added: 0.1.0
description:
  - Reads the email configs of a gateway, and the delivery modes that it supports.
  - Reads its enforced domains and its outbound settings as well.
options:
  domains:
    description:
      - Further recipient domains to look up for RV(accepted_domains) and RV(delivered_modes).
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - mailfleet.starttls.gateway
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
  description: The email configs of the gateway, in order of their names.
  type: list
  elements: dict
  returned: success
  sample:
    - {name: main, domains: [example.com], servers: ['mail1.example.com:25'], delivery_mode: match_sender}
delivery_modes:
  description: The delivery modes that the gateway supports.
  type: list
  elements: str
  returned: success
limits:
  description: The features that the gateway does not support (a mode, V(enforced) or V(outbound)), each with the reason.
  type: dict
  returned: success
  sample: {match_sender: it does not know how a message arrived}
enforced_domains:
  description: The enforced domains, see M(mailfleet.starttls.enforced_tls_domain).
  type: list
  elements: dict
  returned: success
  sample:
    - {domain: partner.example.com, direction: inbound}
    - {domain: bank.example.com, direction: outbound, certificate_check: hostname, servers: []}
outbound:
  description: The outbound settings, see M(mailfleet.starttls.outbound_tls_mode); none if they were never set.
  type: dict
  returned: success
  sample: {accept: both, send: opportunistic, mail_servers: []}
accepted_domains:
  description: Recipient domain to whether the gateway takes mail for it, for O(domains). Null if that is not known.
  type: dict
  returned: success
  sample: {example.com: true}
delivered_modes:
  description:
    - Recipient domain to the delivery mode in which the gateway hands on its mail now, for the domains of RV(email_configs) and
      O(domains). Null if that cannot be told. None at all if the gateway does not run.
    - It is read from the daemon, not from what the collection noted, so it can differ from RV(email_configs).
      C(docs/delivery_modes.md) says how far.
  type: dict
  returned: success
  sample: {example.com: match_sender}
in_force:
  description:
    - Whether the daemon does what RV(enforced_domains) and RV(outbound) say, which is what the collection noted. V(inbound) and
      V(outbound) have the enforced domains, V(accept) and V(send) the value that was set.
    - False if what it takes is gone from the daemon's configuration. Null if that cannot be told. None at all if the gateway does
      not run.
  type: dict
  returned: success
  sample: {inbound: {partner.example.com: true}, outbound: {bank.example.com: true}, send: {opportunistic: true}}
differences:
  description:
    - Where the daemon does not do what the collection noted there, or where that cannot be told, each with its cause. None if all is as
      it was set, and if the gateway does not run.
    - C(docs/findings.md) has the codes.
  type: list
  elements: dict
  returned: success
  contains:
    what:
      description: V(email config NAME), V(inbound DOMAIN), V(outbound DOMAIN), V(accept), V(send), or V(gateway).
      type: str
    code:
      description: The code of the finding.
      type: str
    severity:
      description: V(error) or V(warning).
      type: str
    message:
      description: The cause.
      type: str
  sample:
    - what: email config main
      code: gateway_differs
      severity: error
      message: the mode 'required' was set, and example.com is delivered in the mode 'plaintext'
keeps_names:
  description: Whether the gateway knows email configs by name. A gateway with an API knows relay domains only.
  type: bool
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import describe
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_gateway import ACCESS_SPEC, gateway_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors

ARGUMENT_SPEC = {**ACCESS_SPEC, "domains": {"type": "list", "elements": "str", "default": []}}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)
    fail_on_engine_errors(
        module, lambda: {"changed": False, **describe(gateway_of(module)[0], module.params["domains"])}
    )


if __name__ == "__main__":
    main()
