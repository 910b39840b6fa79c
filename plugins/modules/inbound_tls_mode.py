#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: inbound_tls_mode
short_description: Set the inbound TLS delivery mode of email configs on a gateway
version_added: 0.1.0
description:
  - An email config is a name, its recipient domains, and the mail servers that the gateway delivers them to.
    Its delivery mode decides when the gateway uses TLS to those mail servers.
  - All email configs of a call are set in one transaction. The gateway is never left between two modes.
  - The delivery mode does not check the certificate of a mail server.
options:
  name:
    description:
      - Name of the email config. Use O(email_configs) to set several in one call.
    type: str
  domains:
    description:
      - Its recipient domains. Optional if the gateway knows the email config.
    type: list
    elements: str
  servers:
    description:
      - Its mail servers, in the order of the delivery attempts, each as C(host), C(host:port) or C([address]:port).
      - Optional if the gateway knows the email config.
    type: list
    elements: str
  delivery_mode:
    description:
      - V(plaintext) never uses TLS to the mail server.
      - V(match_sender), recommended, uses TLS if possible for mail that reached the gateway over TLS, and plaintext for other mail.
      - V(match_sender_strict) uses TLS for mail that reached the gateway over TLS, and plaintext for other mail. Mail that
        arrived over TLS stays in the queue while the mail server does not offer TLS.
      - V(opportunistic) uses TLS if possible for all mail.
      - V(required) uses TLS for all mail. Mail for a server that does not offer TLS stays in the queue and is sent
        when the server offers TLS. It is never sent in plaintext.
    type: str
    choices: [plaintext, match_sender, match_sender_strict, opportunistic, required]
  email_configs:
    description:
      - Several email configs at once.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the email config.
        type: str
        required: true
      domains:
        description: Its recipient domains.
        type: list
        elements: str
      servers:
        description: Its mail servers.
        type: list
        elements: str
      delivery_mode:
        description: Its delivery mode.
        type: str
        choices: [plaintext, match_sender, match_sender_strict, opportunistic, required]
      state:
        description: V(absent) removes the email config, see O(state).
        type: str
        choices: [present, absent]
        default: present
  state:
    description:
      - V(absent) removes the email config O(name) with its route, once no mail waits for its domains in any queue of the gateway. The
        gateway then handles these domains like any other one. If mail still waits after O(queue_timeout), nothing is changed, and the
        message names queue ID, recipient and the reason of each message.
      - With O(email_configs), the entries have a state of their own. Nothing else removes an email config.
      - For plaintext to the mail servers with the route kept, set O(delivery_mode) to V(plaintext).
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment:
  - mailfleet.starttls.gateway
  - mailfleet.starttls.gateway.change
  - mailfleet.starttls.gateway.queue
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
    details:
      - Handshakes with the servers are made in check mode too. A change that a real run would refuse is a warning.
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - Not every gateway supports every mode. An unsupported mode is refused, and the message has the reason and the supported
    modes; see M(mailfleet.starttls.inbound_tls_mode_info) and the guide on delivery modes.
  - V(required) and V(match_sender_strict) are refused unless every server of the email config completes a handshake
    with this gateway. A new route is refused unless one of its servers answers. A mode that may deliver in plaintext is
    refused while a server accepts mail over TLS only, because that mail would bounce.
  - On Postfix, each mode has its own transport, selected by C(transport_maps). The module puts its entry there
    before your own entries. The domains of an email config must be in C(relay_domains), as before.
  - For V(match_sender) on Postfix, mail that arrived over TLS goes to a second instance, C(postfix-mailfleet), that
    listens on 127.0.0.1 only. Copies for recipients of other domains return from there on the port
    after O(reinjection_port). C(postqueue -c /etc/postfix-mailfleet -p) shows its queue. Mail that the
    gateway's own users submit with C(sendmail) counts as arrived in plaintext. The mode is refused if a
    listener has its own C(smtpd_recipient_restrictions), or if mail would bypass a filter.
  - With an after-queue C(content_filter) on Postfix, mail that arrived over TLS takes a second port of the filter and comes back on a port
    of its own. For Debian's amavis the module sets this up; for another filter see O(tls_filter).
  - An entry for a single address, C(user@domain), in your own transport table overrides the mode of its
    domain.
  - If an email config gets a domain of another email config, the domain is removed there. So you can rename or split email configs.
  - On Exim, a router before Debian's handles the domains of the email configs and selects the transport by the arrival of
    the message. In the unsplit configuration, the module adds C(.include) lines to C(exim4.conf.template). The
    domains must be in C(dc_relay_domains), as before. Mail that cannot be delivered as required is returned after
    five days.
  - On Haraka, Proxmox Mail Gateway and mailcow, the product has its own routes, and O(servers) are only the targets of the
    handshakes. Proxmox Mail Gateway and mailcow store no names of email configs, so O(domains) are needed unless O(name) is a
    relay domain, and O(servers) are optional unless mail goes to the MX of the domain. There O(state=absent) removes the TLS
    policies of the next hops that no other mail uses. Haraka, too, goes on to route the domain as its own files say.
seealso:
  - module: mailfleet.starttls.inbound_tls_mode_info
  - module: mailfleet.starttls.enforced_tls_domain
  - module: mailfleet.starttls.outbound_tls_mode
  - module: mailfleet.starttls.starttls_probe
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Deliver to the mail servers as mail arrived
  mailfleet.starttls.inbound_tls_mode:
    name: main
    domains: [example.com, example.org]
    servers: [mail1.example.com, mail2.example.com]
    delivery_mode: match_sender

- name: Change the mode of an email config that the gateway knows
  mailfleet.starttls.inbound_tls_mode:
    name: main
    delivery_mode: required

- name: Go back to plaintext and keep the route
  mailfleet.starttls.inbound_tls_mode:
    name: main
    delivery_mode: plaintext

- name: Remove an email config and its route, once no mail waits for it
  mailfleet.starttls.inbound_tls_mode:
    email_configs:
      - {name: former, state: absent}
    queue_timeout: 600
"""

RETURN = r"""
before:
  description: Delivery mode of each email config before the change, by name; V(mixed) if its domains have different modes.
  type: dict
  returned: success
  sample: {main: plaintext}
after:
  description: Delivery mode of each email config after the change, or as predicted in check mode, by name.
  type: dict
  returned: success
  sample: {main: match_sender}
email_configs:
  description: The email configs of the gateway after the change.
  type: list
  elements: dict
  returned: success
  sample:
    - {name: main, domains: [example.com], servers: ['mail1.example.com:25'], delivery_mode: match_sender}
evidence:
  description:
    - The handshakes from the gateway with the servers of the changed email configs, see
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
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import modes_result, set_modes
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_gateway import (
    CHANGE_SPEC,
    CONFIG_SPEC,
    CONFIGS_SPEC,
    QUEUE_SPEC,
    STATE_SPEC,
    gateway_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    **CONFIG_SPEC,
    **CONFIGS_SPEC,
    **STATE_SPEC,
    **CHANGE_SPEC,
    **QUEUE_SPEC,
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        ARGUMENT_SPEC,
        mutually_exclusive=[("email_configs", option) for option in CONFIG_SPEC],
        required_one_of=[("name", "email_configs")],
        supports_check_mode=True,
    )
    options = module.params
    own = {key: options[key] for key in (*CONFIG_SPEC, *STATE_SPEC)}

    def work() -> dict[str, Any]:
        if options["email_configs"] and options["state"] == "absent":
            raise EngineError(
                "state absent is for name; with email_configs, write it into each entry that is to be removed"
            )
        gateway, settings = gateway_of(module)
        outcome = set_modes(
            gateway,
            options["email_configs"] or [own],
            settings,
            options["require_without_evidence"],
            module.check_mode,
            queue_seconds=options["queue_timeout"],
        )
        return modes_result(outcome)

    fail_on_engine_errors(module, work)


if __name__ == "__main__":
    main()
