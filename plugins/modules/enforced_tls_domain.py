#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: enforced_tls_domain
short_description: Require TLS for mail from or to single domains on a gateway
version_added: 0.1.0
description:
  - The gateway accepts mail from an inbound enforced domain over TLS only, and delivers it to the mail servers over TLS only. It
    refuses such mail in plaintext with C(451) and C(STARTTLS is required for this sender). The refusal is temporary, so the sender
    keeps the mail and tries again.
  - Mail to an outbound enforced domain is sent over TLS only, and only to a host whose certificate passes the check. Otherwise the mail
    waits in the queue.
  - Domains match exactly. Subdomains do not match. An enforced domain overrides every delivery mode.
  - All domains of a call are set in one transaction.
options:
  domain:
    description:
      - The domain, in ASCII. Use O(enforced_domains) to set several in one call.
    type: str
  direction:
    description:
      - V(inbound) applies to mail whose envelope sender is in the domain, V(outbound) to mail whose recipient is in the domain.
    type: str
    choices: [inbound, outbound]
  certificate_check:
    description:
      - The check of the certificate of the recipient's mail server, with O(direction=outbound).
      - V(encryption_only) does not check the certificate, and is the default. V(trusted_chain) requires a valid chain up to a known
        authority. V(hostname) requires this and the name of the server.
    type: str
    choices: [encryption_only, trusted_chain, hostname]
  servers:
    description:
      - With O(direction=outbound), the next hops for mail to the domain, each as C(host), C(host:port) or C([address]:port).
      - By default, the next hops that the gateway uses when the module runs, by its own routes, its relay host or the domain's MX.
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
        description: The next hops for mail to the domain.
        type: list
        elements: str
      state:
        description: V(absent) stops to require TLS for the domain.
        type: str
        choices: [present, absent]
        default: present
  ca_file:
    description:
      - Path on the gateway of the PEM file with the authorities for V(trusted_chain) and V(hostname), for all enforced domains of
        the gateway.
      - If this is not given, the setting stays as it is. Initially it is the file that the gateway uses anyway, or else that of
        the system. An empty path restores the initial setting.
    type: path
  state:
    description:
      - V(absent) removes the requirement of TLS for the domains.
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
      - Handshakes are made in check mode too. A change that a real run would refuse is a warning.
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - Not every kind of gateway supports this. C(docs/kinds.md) of the collection lists those that do.
  - An inbound domain is refused unless the gateway itself and every mail server of its email configs complete a handshake with
    this gateway. An outbound domain is refused unless a host of the domain passes the check. O(require_without_evidence) overrides both.
  - For an inbound domain, the hop to the mail servers uses TLS for the recipient domains of email configs, see
    M(mailfleet.starttls.inbound_tls_mode). Mail that the gateway delivers locally has no such hop.
  - The requirement applies to every connection, also from the gateway's own networks. Mail that is submitted on the gateway
    itself without a connection needs no TLS.
  - If the gateway's own route to an outbound domain changes, run the module again.
  - On Postfix, an entry for a single address, C(user@domain), in your own transport table overrides an outbound domain.
seealso:
  - module: mailfleet.starttls.inbound_tls_mode
  - module: mailfleet.starttls.inbound_tls_mode_info
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Accept mail of a partner over TLS only
  mailfleet.starttls.enforced_tls_domain:
    domain: partner.example.com
    direction: inbound

- name: Send mail to a bank over TLS only, to a server whose certificate has its name
  mailfleet.starttls.enforced_tls_domain:
    domain: bank.example.com
    direction: outbound
    certificate_check: hostname

- name: No longer require TLS
  mailfleet.starttls.enforced_tls_domain:
    domain: partner.example.com
    direction: inbound
    state: absent
"""

RETURN = r"""
before:
  description: The enforced domains before the change, see RV(enforced_domains).
  type: list
  elements: dict
  returned: success
enforced_domains:
  description: The enforced domains after the change, or as predicted in check mode, in order of direction and domain.
  type: list
  elements: dict
  returned: success
  sample:
    - {domain: partner.example.com, direction: inbound}
    - {domain: bank.example.com, direction: outbound, certificate_check: hostname, servers: []}
evidence:
  description:
    - The handshakes from the gateway that support or refute the change, see
      RV(mailfleet.starttls.starttls_probe#module:results).
  type: list
  elements: dict
  returned: success
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
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.enforced import enforced_result, set_enforced
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_gateway import (
    CHANGE_SPEC,
    DOMAIN_SPEC,
    DOMAINS_SPEC,
    STATE_SPEC,
    change_options,
    gateway_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    **DOMAIN_SPEC,
    **DOMAINS_SPEC,
    "ca_file": {"type": "path"},
    **STATE_SPEC,
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
