#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_tls
short_description: Set the TLS modes of a gateway in one transaction
version_added: 0.1.0
description:
  - Sets the delivery modes of email configs, the outbound side and the enforced domains of a gateway in one transaction. The gateway
    is never left between two states. If anything fails, the former state is restored and proved.
  - What is not given stays as it is.
options:
  inbound:
    description:
      - The use of TLS on the connections that the gateway accepts, in the words of M(mailfleet.starttls.mail_server_tls). Without this
        option that side stays as it is. Kinds whose product sets this itself are refused by name.
      - V(disabled) is refused while the gateway requires TLS from enforced domains or from the mail servers. An existing V(required) stays
        with V(offered).
    type: str
    choices: [disabled, offered, required, renewed]
  min_tls:
    description:
      - The oldest TLS version that the gateway permits on the connections that it accepts, where O(inbound) is given, as
        O(mailfleet.starttls.mail_server_tls#module:min_tls). Where O(email_configs), O(send) or O(enforced_domains) is given, also of the
        transports of delivery modes and outbound enforced domains. What else it sends with keeps its versions; a read names what permits
        older ones.
      - A server that does not reach this version refuses it if mail for it would wait, that is where TLS is required, and on V(postfix)
        wherever TLS is offered.
      - For the kinds V(postfix) and V(exim) only. For another one, a note or a warning says where to set it by hand.
    type: str
    choices: [TLSv1.2, TLSv1.3, none]
  digests:
    description:
      - The files that a plan was made from, path to SHA-256 in hexadecimal or V(absent), see
        RV(mailfleet.starttls.gateway_info#module:digests). If one of them differs now, nothing is changed, and the module fails.
    type: dict
  only_recover:
    description:
      - Only undo the change of a killed run, if there is one. The other options that change something have no effect.
    type: bool
    default: false
extends_documentation_fragment:
  - mailfleet.starttls.mail_server.install
  - mailfleet.starttls.gateway.wanted
  - mailfleet.starttls.gateway
  - mailfleet.starttls.gateway.change
  - mailfleet.starttls.gateway.queue
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
    details:
      - Handshakes are made in check mode too. A change that a real run would refuse is a warning.
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - The change of each part is refused for the same reasons as in its own module. A reason that another part of the same call
    removes does not count, because the final state is assessed. Each target is tested once.
  - A gateway that does not support a part refuses it only if it is given. M(mailfleet.starttls.gateway_info) returns the limits.
seealso:
  - module: mailfleet.starttls.gateway_info
  - module: mailfleet.starttls.inbound_tls_mode
  - module: mailfleet.starttls.outbound_tls_mode
  - module: mailfleet.starttls.enforced_tls_domain
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Deliver mail as it arrived, use TLS to the internet, and require TLS from a partner
  mailfleet.starttls.gateway_tls:
    email_configs:
      - name: main
        domains: [example.com]
        servers: [mail1.example.com, mail2.example.com]
        delivery_mode: match_sender
    accept: both
    send: opportunistic
    enforced_domains:
      - {domain: partner.example.com, direction: inbound}

- name: Go back to plaintext
  mailfleet.starttls.gateway_tls:
    email_configs:
      - name: main
    state: plaintext
    send: plaintext

- name: Remove an email config and its route, once no mail waits for it
  mailfleet.starttls.gateway_tls:
    email_configs:
      - {name: former, state: absent}

- name: Remove everything from the gateway, and put back what was there
  mailfleet.starttls.gateway_tls:
    state: absent

- name: Undo the change of a killed run
  mailfleet.starttls.gateway_tls:
    only_recover: true
"""

RETURN = r"""
fingerprints_sha256:
  description: The fingerprints of all certificates, if there are several for different algorithms.
  type: list
  elements: str
  returned: with several certificates
before:
  description: Delivery mode of each email config before the change, by name; V(mixed) if its domains have different modes.
  type: dict
  returned: success, without O(only_recover)
  sample: {main: plaintext}
after:
  description: Delivery mode of each email config after the change, or as predicted in check mode, by name.
  type: dict
  returned: success, without O(only_recover)
  sample: {main: match_sender}
email_configs:
  description: The email configs of the gateway after the change.
  type: list
  elements: dict
  returned: success, without O(only_recover)
  sample:
    - {name: main, domains: [example.com], servers: ['mail1.example.com:25'], delivery_mode: match_sender}
outbound:
  description: The outbound settings, see M(mailfleet.starttls.outbound_tls_mode).
  type: dict
  returned: success, without O(only_recover)
  contains:
    before:
      description: The settings before the change, none if they were never set.
      type: dict
      sample: {}
    after:
      description: The settings after the change, or as predicted in check mode.
      type: dict
      sample: {accept: both, send: opportunistic, mail_servers: []}
enforced_domains:
  description: The enforced domains after the change, see M(mailfleet.starttls.enforced_tls_domain).
  type: list
  elements: dict
  returned: success, without O(only_recover)
  sample:
    - {domain: partner.example.com, direction: inbound}
evidence:
  description:
    - The handshakes from the gateway that support or refute the change, see
      RV(mailfleet.starttls.starttls_probe#module:results).
  type: list
  elements: dict
  returned: success, without O(only_recover)
recovered:
  description: Whether the module first undid an incomplete change of a killed run.
  type: bool
  returned: success
restored:
  description: Whether the former state was restored and proved.
  type: bool
  returned: when a change failed after it began
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_gateway import (
    CHANGE_SPEC,
    QUEUE_SPEC,
    WANTED_SPEC,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_gateway_host import (
    STARTTLS_SPEC,
    change_gateway_host,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_server import HOST_SPEC, INSTALL_SPEC

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    **STARTTLS_SPEC,
    **INSTALL_SPEC,
    **WANTED_SPEC,
    "digests": {"type": "dict"},
    "only_recover": {"type": "bool", "default": False},
    **CHANGE_SPEC,
    **QUEUE_SPEC,
}
"""The options for users. The action plugin reads them."""


def main() -> None:
    """Run the module."""
    module = AnsibleModule({**ARGUMENT_SPEC, **HOST_SPEC}, supports_check_mode=True)
    fail_on_engine_errors(module, lambda: change_gateway_host(module))


if __name__ == "__main__":
    main()
