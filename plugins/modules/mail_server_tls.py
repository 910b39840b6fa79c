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
  - Sets how the mail server of a host uses TLS, inbound and outbound, and leaves every other setting alone.
  - The kinds of mail servers, and the settings that are changed on each, are listed in C(docs/kinds.md) of the collection.
  - The certificate is a setting of the whole mail server. Its submission services serve the same certificate from then on, unless
    they have one of their own. O(inbound=disabled) leaves the certificate settings in place for them.
  - The change is a transaction. The files are saved, written and checked by the daemon's own means. The daemon is reloaded,
    never restarted, and its own port has to show the wanted state by a handshake. If anything fails, the former files
    come back, the daemon is reloaded and the former state is proved.
extends_documentation_fragment:
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Only the lines that change are shown.
  idempotent:
    support: full
options:
  kind:
    description:
      - The kind of mail server. V(auto) finds out on the host. If there are two, the module refuses to choose.
      - An unknown kind is refused, and the message lists the kinds.
    type: str
    default: auto
  inbound:
    description:
      - What the daemon does with TLS on the connections it accepts.
      - V(disabled) does not offer STARTTLS. V(offered) offers it and takes plaintext too.
        V(required) takes mail over TLS only.
      - Without this option the inbound side stays as it is.
    type: str
    choices: [disabled, offered, required]
  outbound:
    description:
      - What the daemon does with TLS on the connections it makes.
      - V(opportunistic) uses TLS wherever the other side offers it and checks no certificate.
        V(required) defers mail to a side that does not offer it.
      - A stronger setting of the same kind that is there already, such as DANE, stays.
      - Without this option the outbound side stays as it is.
    type: str
    choices: [disabled, opportunistic, required]
  certificate:
    description:
      - Absolute path, on the host, of one PEM file that holds the key, the leaf and the chain, in this order,
        as M(mailfleet.starttls.tls_certificate) writes it.
      - The certificate that the daemon serves is compared with it; if it changed, the daemon is reloaded.
    type: path
    default: /etc/mailfleet/starttls.pem
  address:
    description:
      - The daemon's own address, where the change is proved by a handshake.
    type: str
    default: 127.0.0.1
  port:
    description:
      - The daemon's own port, where the change is proved by a handshake.
    type: int
    default: 25
  timeout:
    description:
      - Seconds to wait for the reloaded daemon to show the wanted state, and for each stage of a handshake.
    type: int
    default: 20
  require_without_evidence:
    description:
      - Set O(outbound=required) although the next hop has not shown by a handshake that it accepts TLS.
      - Mail that cannot be sent over TLS then stays in the queue.
    type: bool
    default: false
  relax:
    description:
      - Whether O(inbound=offered) may take back an O(inbound=required) that is there already.
    type: bool
    default: true
  only_relax:
    description:
      - With O(inbound=offered), change the inbound side only if it is O(inbound=required) now.
    type: bool
    default: false
notes:
  - A journal in C(/var/lib/mailfleet-starttls) lets the next run undo what a killed run left half done.
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
  description: The kind of mail server that was found on the host, or named.
  type: str
  returned: success
  sample: postfix
before:
  description: What was configured before, in the words of the options, or V(custom).
  type: dict
  returned: success
  sample: {inbound: disabled, outbound: disabled}
after:
  description: What is configured now, or would be in check mode.
  type: dict
  returned: success
  sample: {inbound: offered, outbound: opportunistic}
handshake:
  description:
    - The test of the daemon's own port at the end. Its fields are those of RV(mailfleet.starttls.starttls_probe#module:results).
  type: dict
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
