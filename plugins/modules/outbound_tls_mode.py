#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: outbound_tls_mode
short_description: Set the TLS modes of a gateway for mail from the mail servers and for mail to the internet
version_added: 0.1.0
description:
  - The outbound side of a gateway has two settings, the accepted connections from the mail servers (O(accept)) and the TLS mode for
    mail to the internet (O(send)). Both are set in one transaction.
  - The settings do not apply to mail for the domains of email configs, see M(mailfleet.starttls.inbound_tls_mode). Outbound
    enforced domains override O(send), see M(mailfleet.starttls.enforced_tls_domain).
options:
  accept:
    description:
      - V(plaintext) does not offer STARTTLS to O(mail_servers). V(both) offers STARTTLS to them, as to all clients.
      - V(tls_only) refuses mail from them in plaintext. The refusal is temporary, so they keep the mail.
      - The setting does not apply to mail from the internet. If it is not given, it stays as it is.
    type: str
    choices: [plaintext, both, tls_only]
  send:
    description:
      - V(plaintext) never uses TLS towards the internet.
      - V(match_sender) uses TLS if possible for mail that reached the gateway over TLS, and plaintext for other mail.
      - V(match_sender_strict) uses TLS for mail that reached the gateway over TLS, and plaintext for other mail. Mail that arrived
        over TLS waits if the recipient's server does not offer TLS.
      - V(opportunistic) uses TLS if possible for all mail. V(required) uses TLS for all mail. Mail for a server without TLS
        waits in the queue.
      - If it is not given, the setting stays as it is.
    type: str
    choices: [plaintext, match_sender, match_sender_strict, opportunistic, required]
  mail_servers:
    description:
      - The addresses and networks that your mail servers connect from, like V(192.0.2.10) or V(192.0.2.0/24). Needed for the
        first O(accept=plaintext) or O(accept=tls_only). The gateway keeps them.
    type: list
    elements: str
  state:
    description:
      - V(absent) restores the defaults, V(plaintext) for O(send) and, if O(mail_servers) are known, for O(accept).
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
  - V(both) and V(tls_only) are refused while the gateway does not complete a handshake itself. V(required) and V(match_sender_strict) are
    refused unless all outgoing mail goes to relay hosts that complete a handshake. O(require_without_evidence) overrides both.
  - On Postfix, O(send) is C(smtp_tls_security_level); with a mode that depends on arrival, mail that arrived over TLS goes to the second
    instance, see M(mailfleet.starttls.inbound_tls_mode), which then uses the gateway's own routes.
  - On Exim, O(send) is Debian's macros C(REMOTE_SMTP_..._TLS); with a mode that depends on arrival, mail that arrived over TLS
    uses copies of Debian's own remote routers and transports.
seealso:
  - module: mailfleet.starttls.inbound_tls_mode
  - module: mailfleet.starttls.enforced_tls_domain
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Accept TLS and plaintext from the mail servers, and send mail as it arrived
  mailfleet.starttls.outbound_tls_mode:
    accept: both
    send: match_sender

- name: Accept mail of the mail servers over TLS only
  mailfleet.starttls.outbound_tls_mode:
    accept: tls_only
    mail_servers: [192.0.2.10, 192.0.2.11]
"""

RETURN = r"""
before:
  description: The settings before the change, none if they were never set.
  type: dict
  returned: success
  sample: {accept: both, send: opportunistic, mail_servers: []}
after:
  description: The settings after the change, or as predicted in check mode.
  type: dict
  returned: success
  sample: {accept: both, send: match_sender, mail_servers: []}
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
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.outbound import outbound_result, set_outbound
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_gateway import (
    CHANGE_SPEC,
    OUTBOUND_SPEC,
    STATE_SPEC,
    change_options,
    gateway_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {**OUTBOUND_SPEC, **STATE_SPEC, **CHANGE_SPEC}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        ARGUMENT_SPEC, required_if=[("state", "present", ("accept", "send"), True)], supports_check_mode=True
    )
    wanted = {key: module.params[key] for key in OUTBOUND_SPEC}

    def work() -> dict[str, Any]:
        gateway, settings = gateway_of(module)
        return outbound_result(set_outbound(gateway, wanted, settings, **change_options(module)))

    fail_on_engine_errors(module, work)


if __name__ == "__main__":
    main()
