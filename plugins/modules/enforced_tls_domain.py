#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: enforced_tls_domain
short_description: Insist on TLS for mail from or to single domains on a gateway
version_added: 0.1.0
description:
  - Mail from an inbound enforced domain is taken over TLS only, and goes on to the mail servers over TLS only. In plaintext it is
    refused for the time being, with C(451) and C(STARTTLS is required for this sender), so that the sender keeps it and tries again.
  - Mail to an outbound enforced domain is sent over TLS only, and only to a host whose certificate passes the check. It waits in the queue
    until one does.
  - Domains match exactly. Subdomains do not match. An enforced domain overrides every delivery mode.
  - All domains of a call are set in one transaction.
options:
  domain:
    description:
      - The domain, in ASCII. Use O(enforced_domains) to set several in one call.
    type: str
  direction:
    description:
      - V(inbound) is about mail whose envelope sender is of the domain, V(outbound) about mail whose recipient is.
    type: str
    choices: [inbound, outbound]
  certificate_check:
    description:
      - What is asked of the certificate of the recipient's mail server, with O(direction=outbound).
      - V(encryption_only) asks nothing, and is what is done if nothing is said. V(trusted_chain) asks for a valid chain up to a known
        authority. V(hostname) asks for that and for the name of the server.
    type: str
    choices: [encryption_only, trusted_chain, hostname]
  servers:
    description:
      - With O(direction=outbound), the hosts that mail for the domain is handed to, each as C(host), C(host:port) or C([address]:port).
      - Without it, those that the gateway hands it to already when the module runs, by its own routes, its relay host or the domain's MX.
    type: list
    elements: str
  enforced_domains:
    description:
      - Several enforced domains at once.
    type: list
    elements: dict
    suboptions:
      domain:
        description: The domain.
        type: str
        required: true
      direction:
        description: The direction.
        type: str
        choices: [inbound, outbound]
        required: true
      certificate_check:
        description: The check of the certificate.
        type: str
        choices: [encryption_only, trusted_chain, hostname]
      servers:
        description: The hosts that mail for the domain is handed to.
        type: list
        elements: str
  ca_file:
    description:
      - Path on the gateway of the PEM file with the authorities for V(trusted_chain) and V(hostname), for all enforced domains of
        the gateway.
      - Without it that stays as it is. It begins with what the gateway uses anyway, or else the system's; an empty path goes back
        to that.
    type: path
  state:
    description:
      - V(absent) no longer insists on TLS for the domains.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment:
  - mailfleet.starttls.gateway
  - mailfleet.starttls.gateway.change
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
    details:
      - Handshakes are made in check mode too. What a real run would refuse is a warning.
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - Not every kind of gateway supports this. C(docs/kinds.md) of the collection lists those that do.
  - An inbound domain is refused unless the gateway itself and every mail server of its email configs completes a handshake with
    this gateway. An outbound domain is refused unless a host of the domain passes the check. O(require_without_evidence) overrides both.
  - The onward hop of an inbound domain is TLS for the domains of email configs, see M(mailfleet.starttls.inbound_tls_mode).
    What the gateway delivers itself has no onward hop.
  - Every connection counts, those of the gateway's own networks too. Only what is submitted on the gateway itself, without a
    connection, is not asked for TLS.
  - If the gateway's own route to an outbound domain changes, run the module again.
  - On Postfix, an entry for a single address, C(user@domain), in a transport table of yours overrides an outbound domain.
seealso:
  - module: mailfleet.starttls.inbound_tls_mode
  - module: mailfleet.starttls.inbound_tls_mode_info
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Take mail of a partner over TLS only
  mailfleet.starttls.enforced_tls_domain:
    domain: partner.example.com
    direction: inbound

- name: Send mail to a bank over TLS only, to a server that proves its name
  mailfleet.starttls.enforced_tls_domain:
    domain: bank.example.com
    direction: outbound
    certificate_check: hostname

- name: No longer insist
  mailfleet.starttls.enforced_tls_domain:
    domain: partner.example.com
    direction: inbound
    state: absent
"""

RETURN = r"""
before:
  description: The enforced domains before, see RV(enforced_domains).
  type: list
  elements: dict
  returned: success
enforced_domains:
  description: The enforced domains that the gateway holds now, or would hold in check mode, in order of direction and domain.
  type: list
  elements: dict
  returned: success
  sample:
    - {domain: partner.example.com, direction: inbound}
    - {domain: bank.example.com, direction: outbound, certificate_check: hostname, servers: []}
evidence:
  description:
    - The handshakes, made from the gateway, that speak for the change or against it, see
      RV(mailfleet.starttls.starttls_probe#module:results).
  type: list
  elements: dict
  returned: success
recovered:
  description: Whether a change that a killed run had left half done was undone first.
  type: bool
  returned: success
restored:
  description: Whether the former state is back and proved.
  type: bool
  returned: when a change failed after it began
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.enforced import enforced_result, set_enforced
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import CERTIFICATE_CHECKS, DIRECTIONS
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_gateway import (
    CHANGE_SPEC,
    change_options,
    gateway_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors

DOMAIN_SPEC: dict[str, dict[str, Any]] = {
    "domain": {"type": "str"},
    "direction": {"type": "str", "choices": list(DIRECTIONS)},
    "certificate_check": {"type": "str", "choices": list(CERTIFICATE_CHECKS)},
    "servers": {"type": "list", "elements": "str"},
}
REQUIRED = ("domain", "direction")
ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    **DOMAIN_SPEC,
    "enforced_domains": {
        "type": "list",
        "elements": "dict",
        "options": {**DOMAIN_SPEC, **{name: {**DOMAIN_SPEC[name], "required": True} for name in REQUIRED}},
    },
    "ca_file": {"type": "path"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    **CHANGE_SPEC,
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        ARGUMENT_SPEC,
        mutually_exclusive=[("enforced_domains", option) for option in DOMAIN_SPEC],
        required_one_of=[("domain", "enforced_domains")],
        required_by={"domain": "direction"},
        supports_check_mode=True,
    )
    options = module.params
    several = options["enforced_domains"]
    wanted = [{key: options[key] for key in DOMAIN_SPEC}] if several is None else several

    def work() -> dict[str, Any]:
        gateway, settings = gateway_of(module)
        outcome = set_enforced(gateway, wanted, settings, ca_file=options["ca_file"], **change_options(module))
        return enforced_result(outcome)

    fail_on_engine_errors(module, work)


if __name__ == "__main__":
    main()
