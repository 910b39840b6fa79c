#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_info
short_description: Read a gateway, and what a change would do there
version_added: 0.1.0
description:
  - Reads the email configs, the enforced domains and the outbound side of a gateway, and what the gateway supports.
  - With the options of M(mailfleet.starttls.gateway_tls), it also returns the lines that the same call of that module would
    change, and what stands in the way on this host.
  - Makes a handshake with the gateway's own port and with each mail server of its email configs. Whether their results allow the
    change is not decided here, because an earlier step may change them.
  - Changes nothing.
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
      - A server towards which TLS is required, and that does not reach this version, refuses it.
      - For the kinds V(postfix) and V(exim) only. For another one, a note or a warning says where to set it by hand.
    type: str
    choices: [TLSv1.2, TLSv1.3, none]
  targets:
    description: Further mail servers to make the handshake test with, besides those of the email configs.
    type: list
    elements: dict
    default: []
    suboptions:
      host: {description: Name or address., type: str, required: true}
      port: {description: Port., type: int, default: 25}
  domains:
    description:
      - Further recipient domains to look up for RV(gateway.accepted_domains).
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - mailfleet.starttls.mail_server.install
  - mailfleet.starttls.mail_server.handshake
  - mailfleet.starttls.gateway.wanted
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
  - module: mailfleet.starttls.gateway_tls
  - module: mailfleet.starttls.inbound_tls_mode_info
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Read the gateway
  mailfleet.starttls.gateway_info:
  register: gateway_observed

- name: See what a delivery mode would change
  mailfleet.starttls.gateway_info:
    email_configs:
      - name: main
        delivery_mode: required
"""

RETURN = r"""
fingerprints_sha256:
  description: The fingerprints of all certificates, if there are several for different algorithms.
  type: list
  elements: str
  returned: with several certificates
published_tlsa:
  description: As RV(mailfleet.starttls.mail_server_info#module:published_tlsa).
  type: list
  elements: dict
  returned: if the certificate is renewed on the host (O(certificate_source)), and O(inbound) offers TLS
gateway:
  description: The gateway. Null if its state cannot be read; RV(obstacles) then says why.
  type: dict
  returned: success
  contains:
    title:
      description: The name of the product.
      type: str
      sample: a Postfix gateway
    email_configs:
      description: The email configs of the gateway, in order of their names, see M(mailfleet.starttls.inbound_tls_mode).
      type: list
      elements: dict
    delivery_modes:
      description: The delivery modes that the gateway supports.
      type: list
      elements: str
    verifying_modes:
      description: The modes in which the gateway also verifies the certificate of the mail server.
      type: list
      elements: str
    softens_refusals:
      description: Whether mail waits, and does not bounce, if a mail server refuses plaintext.
      type: bool
    limits:
      description: The features that the gateway does not support (a mode, V(enforced) or V(outbound)), each with the reason.
      type: dict
    capabilities:
      description: Some of V(accept), V(enforced) and V(outbound).
      type: list
      elements: str
    enforced_domains:
      description: The enforced domains, see M(mailfleet.starttls.enforced_tls_domain).
      type: list
      elements: dict
    outbound:
      description: The outbound settings, see M(mailfleet.starttls.outbound_tls_mode); none if they were never set.
      type: dict
    accepted_domains:
      description:
        - Recipient domain to whether the gateway takes mail for it, for the domains of O(email_configs) and O(domains). Null if
          that is not known.
      type: dict
      sample: {example.com: true}
    delivered_modes:
      description:
        - Recipient domain to the delivery mode in which the gateway hands on its mail now, for the domains of the gateway's email
          configs, O(email_configs) and O(domains). Null if that cannot be told.
        - It is read from the daemon, not from what the collection noted, so it can differ from RV(gateway.email_configs).
          C(docs/delivery_modes.md) says how far.
      type: dict
      sample: {example.com: match_sender}
    in_force:
      description: Whether the daemon does what is noted, see M(mailfleet.starttls.inbound_tls_mode_info).
      type: dict
    differences:
      description:
        - Where the daemon does not do what the collection noted there, or where that cannot be told, each with its cause, see
          M(mailfleet.starttls.inbound_tls_mode_info).
      type: list
      elements: dict
    keeps_names:
      description: Whether the gateway knows email configs by name. A gateway with an API knows relay domains only.
      type: bool
    changes:
      description: What the wanted state would change, without secrets.
      type: list
      elements: dict
      contains:
        path:
          description: The file, or the title of the entries for a gateway with an API.
          type: str
        lines:
          description: The changed lines.
          type: str
    before:
      description: Delivery mode of each email config, by name.
      type: dict
    after:
      description: Delivery mode of each email config with the wanted state, by name.
      type: dict
digests:
  description:
    - The files that the change depends on, path to SHA-256 or V(absent), for O(mailfleet.starttls.gateway_tls#module:digests).
    - Empty if nothing is wanted.
  type: dict
  returned: success
obstacles:
  description: What stands in the way on this host.
  type: list
  elements: dict
  returned: success
  contains:
    code:
      description: A word for the kind of obstacle, see C(docs/findings.md) of the collection.
      type: str
      sample: mode_not_expressible
    message:
      description: What is wrong, and what to do.
      type: str
fleet_lock:
  description: The run that holds the lock of the fleet on this host, see RV(mailfleet.starttls.fleet_lock#module:former).
  type: dict
  returned: if a run holds it
interrupted:
  description: Whether a killed run has left a change, which the next run undoes.
  type: bool
  returned: success
probe:
  description: The handshakes.
  type: dict
  returned: success
  contains:
    results:
      description: The results, see RV(mailfleet.starttls.starttls_probe#module:results).
      type: list
      elements: dict
    certificates:
      description: The certificates of all chains, SHA-256 to PEM.
      type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.fleet_lock import with_lock
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_gateway import ACCESS_SPEC, WANTED_SPEC
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_gateway_host import (
    STARTTLS_SPEC,
    read_gateway_host,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_server import (
    HANDSHAKE_SPEC,
    HOST_SPEC,
    INSTALL_SPEC,
)

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    **STARTTLS_SPEC,
    **INSTALL_SPEC,
    **HANDSHAKE_SPEC,
    **WANTED_SPEC,
    "domains": {"type": "list", "elements": "str", "default": []},
    "targets": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"host": {"type": "str", "required": True}, "port": {"type": "int", "default": 25}},
    },
    **ACCESS_SPEC,
}
"""The options for users. The action plugin reads them."""


def main() -> None:
    """Run the module."""
    module = AnsibleModule({**ARGUMENT_SPEC, **HOST_SPEC, "ca_content": {"type": "str"}}, supports_check_mode=True)
    fail_on_engine_errors(module, lambda: with_lock({"changed": False, **read_gateway_host(module)}))


if __name__ == "__main__":
    main()
