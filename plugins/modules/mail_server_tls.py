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
    they have their own, which they keep. Every listener is proved on its own port, in its own TLS mode. O(inbound=disabled) concerns
    O(port) alone; every other port is as before the first change.
  - Before the first change of a file the module keeps it, in a directory that only root can read. O(state=absent) puts it back.
    C(docs/undo.md) of the collection says what comes back, and what somebody has edited by hand since.
  - With O(install) the certificate is a part of the change. If the daemon cannot serve it, certificate and settings are both restored.
  - The change is a transaction. The module saves and writes the files, and the daemon's own tools check them. The daemon is reloaded,
    never restarted, and a handshake with its own port has to prove the wanted state. If a step fails, the module restores
    the former files, reloads the daemon and proves the former state.
extends_documentation_fragment:
  - mailfleet.starttls.mail_server
  - mailfleet.starttls.mail_server.install
  - mailfleet.starttls.mail_server.handshake
  - mailfleet.starttls.gateway.queue
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
  digests:
    description:
      - Path on the host -> SHA-256 of the file as a plan saw it, or V(absent). The change is refused if a file differs now.
    type: dict
    default: {}
  only_recover:
    description:
      - Undo the change of a killed run, and do nothing else.
    type: bool
    default: false
  settings_only:
    description:
      - The host is not to be changed. The module fails before it changes anything, unless the host has the wanted state already.
      - For the kinds V(postfix) and V(exim) only.
    type: bool
    default: false
  prove_later:
    description:
      - On a host of the kind V(exchange), leave the proof to the caller, see O(mailfleet.starttls.exchange_tls#module:prove_later). On
        every other kind the module proves the change before it returns, as always.
    type: bool
    default: false
notes:
  - A journal in C(/var/lib/mailfleet-starttls) lets the next run undo an incomplete change of a killed run.
  - On a host of the kind C(exchange) the module works as M(mailfleet.starttls.exchange_tls), from the controller. O(certificate),
    O(certificate_source) and O(address) do not matter there.
seealso:
  - module: mailfleet.starttls.exchange_tls
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

- name: Remove everything, and put back what was there before the first change
  mailfleet.starttls.mail_server_tls:
    state: absent

- name: Go back to plaintext
  mailfleet.starttls.mail_server_tls:
    inbound: disabled
    outbound: disabled
"""

RETURN = r"""
fingerprints_sha256:
  description: The fingerprints of all certificates, if there are several for different algorithms.
  type: list
  elements: str
  returned: with several certificates
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
  description: The settings after the change, or as predicted in check mode. Empty with O(state=absent).
  type: dict
  returned: success
  sample: {inbound: offered, outbound: opportunistic}
send_only:
  description: Whether the inbound side is none. Then C(probe) has the tests of the next hops after the change.
  type: bool
  returned: success
handshake:
  description:
    - The handshake test of the daemon's own port after the change. Its fields are those of
      RV(mailfleet.starttls.starttls_probe#module:results).
  type: dict
  returned: success
probe:
  description: The same test, judged. C(results) as in M(mailfleet.starttls.starttls_probe).
  type: dict
  returned: success
recovered:
  description: Whether the module first undid an incomplete change of a killed run.
  type: bool
  returned: success
pending:
  description: Whether the change waits for its proof, see RV(mailfleet.starttls.exchange_tls#module:pending).
  type: bool
  returned: on a host of the kind V(exchange)
restored:
  description: Whether the former state was restored and proved.
  type: bool
  returned: when a change failed after it began
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_server import (
    HANDSHAKE_SPEC,
    HOST_SPEC,
    INSTALL_SPEC,
    SERVER_SPEC,
    change_mail_server,
)

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    **SERVER_SPEC,
    **INSTALL_SPEC,
    **HANDSHAKE_SPEC,
    "digests": {"type": "dict", "default": {}},
    "only_recover": {"type": "bool", "default": False},
    "settings_only": {"type": "bool", "default": False},
    "prove_later": {"type": "bool", "default": False},
    "queue_timeout": {"type": "int", "default": 300},
}
"""The options for users. The action plugin reads them."""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {**ARGUMENT_SPEC, **HOST_SPEC, "ca_content": {"type": "str"}},
        supports_check_mode=True,
    )
    wanted = ("inbound", "outbound", "only_recover")
    if module.params["state"] == "present" and not any(module.params[name] for name in wanted):
        module.fail_json(msg="nothing is wanted: set inbound or outbound, or state to absent")
    fail_on_engine_errors(module, lambda: change_mail_server(module))


if __name__ == "__main__":
    main()
