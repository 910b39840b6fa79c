#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_server_tls
short_description: Set STARTTLS on a mail server and prove it
version_added: 0.1.0
description:
  - Sets the use of TLS by the mail server of a host, inbound and outbound. Changes no other setting.
  - C(docs/kinds.md) of the collection lists the kinds of mail servers, and the settings that the module changes on each.
  - The certificate is a setting of the whole mail server. After the change its submission services serve the same certificate, unless
    they have their own. O(inbound=disabled) leaves the certificate settings in place for them.
  - The change is a transaction. The module saves and writes the files, and the daemon's own tools check them. The daemon is reloaded,
    never restarted, and a handshake with its own port has to prove the wanted state. If a step fails, the module restores
    the former files, reloads the daemon and proves the former state.
extends_documentation_fragment:
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Only the changed lines are shown.
  idempotent:
    support: full
options:
  kind:
    description:
      - The kind of mail server. V(auto) detects it on the host. If there are two mail servers, the module fails.
      - An unknown kind is refused, and the message lists the kinds.
    type: str
    default: auto
  inbound:
    description:
      - The use of TLS on accepted connections.
      - V(disabled) does not offer STARTTLS. V(offered) offers STARTTLS and accepts plaintext too.
        V(required) accepts mail over TLS only.
      - Without this option the inbound side stays as it is.
    type: str
    choices: [disabled, offered, required]
  outbound:
    description:
      - The use of TLS on outgoing connections.
      - V(opportunistic) uses TLS if the other side offers it, and checks no certificate.
        V(required) defers mail to a server that does not offer TLS.
      - A stronger existing setting, such as DANE, stays.
      - Without this option the outbound side stays as it is.
    type: str
    choices: [disabled, opportunistic, required]
  certificate:
    description:
      - Absolute path, on the host, of one PEM file that holds the key, the leaf and the chain, in this order,
        as M(mailfleet.starttls.tls_certificate) writes it.
      - The module compares the served certificate with this file. If they differ, the daemon is reloaded.
    type: path
    default: /etc/mailfleet/starttls.pem
  address:
    description:
      - The daemon's own address. A handshake there proves the change.
    type: str
    default: 127.0.0.1
  port:
    description:
      - The daemon's own port. A handshake there proves the change.
    type: int
    default: 25
  timeout:
    description:
      - Seconds to wait for the reloaded daemon to show the wanted state, and for each stage of a handshake.
    type: int
    default: 20
  require_without_evidence:
    description:
      - Set O(outbound=required) even if no handshake has proved that the next hop accepts TLS.
      - Mail that cannot be sent over TLS then stays in the queue.
    type: bool
    default: false
  relax:
    description:
      - Whether O(inbound=offered) may relax an existing O(inbound=required).
    type: bool
    default: true
  only_relax:
    description:
      - With O(inbound=offered), change the inbound side only if it is O(inbound=required) now.
    type: bool
    default: false
notes:
  - A journal in C(/var/lib/mailfleet-starttls) lets the next run undo an incomplete change of a killed run.
seealso:
  - module: mailfleet.starttls.tls_certificate
  - module: mailfleet.starttls.starttls_probe
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Offer STARTTLS and use it when sending
  mailfleet.starttls.mail_server_tls:
    inbound: offered
    outbound: opportunistic

- name: Go back to plaintext
  mailfleet.starttls.mail_server_tls:
    inbound: disabled
    outbound: disabled
"""

RETURN = r"""
kind:
  description: The kind of mail server, detected on the host or given.
  type: str
  returned: success
  sample: postfix
before:
  description: The settings before the change, in the words of the options, or V(custom).
  type: dict
  returned: success
  sample: {inbound: disabled, outbound: disabled}
after:
  description: The settings after the change, or as predicted in check mode.
  type: dict
  returned: success
  sample: {inbound: offered, outbound: opportunistic}
handshake:
  description:
    - The handshake test of the daemon's own port after the change. Its fields are those of
      RV(mailfleet.starttls.starttls_probe#module:results).
  type: dict
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
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import CERTIFICATE
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import INBOUND, OUTBOUND
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_server import change_mail_server
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import AUTO

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "kind": {"type": "str", "default": AUTO},
    "inbound": {"type": "str", "choices": list(INBOUND)},
    "outbound": {"type": "str", "choices": list(OUTBOUND)},
    "certificate": {"type": "path", "default": CERTIFICATE},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 25},
    "timeout": {"type": "int", "default": 20},
    "require_without_evidence": {"type": "bool", "default": False},
    "relax": {"type": "bool", "default": True},
    "only_relax": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENT_SPEC, required_one_of=[("inbound", "outbound")], supports_check_mode=True)
    fail_on_engine_errors(module, lambda: change_mail_server(module))


if __name__ == "__main__":
    main()
