#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postfix_starttls
short_description: Set STARTTLS on Postfix and prove it
version_added: 0.1.0
description:
  - Sets what the default Postfix instance of a host offers and uses, and leaves every other setting alone.
  - The settings are C(smtpd_tls_security_level), C(smtpd_tls_chain_files), C(smtpd_tls_received_header),
    C(smtpd_tls_loglevel), C(smtp_tls_security_level) and C(smtp_tls_loglevel) of C(main.cf). The older pairs of certificate and
    key settings are emptied, because Postfix ignores them beside C(smtpd_tls_chain_files) and warns.
  - C(smtpd_tls_chain_files) is a setting of the whole instance, so its submission services on 587 and 465 serve the same
    certificate from then on, unless C(master.cf) says otherwise for them; its names should cover what their users connect to.
    O(inbound=disabled) leaves the certificate settings in place for them.
  - Needs Postfix 3.4 or newer.
extends_documentation_fragment:
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
  - mailfleet.starttls.starttls
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Only the lines that change are shown.
  idempotent:
    support: full
seealso:
  - module: mailfleet.starttls.tls_certificate
  - module: mailfleet.starttls.starttls_probe
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Offer STARTTLS and use it when sending
  mailfleet.starttls.postfix_starttls:
    inbound: offered
    outbound: opportunistic

- name: Go back to plaintext
  mailfleet.starttls.postfix_starttls:
    inbound: disabled
    outbound: disabled
"""

RETURN = r"""
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
    - The test of the daemon's own port at the end, see the return value RV(mailfleet.starttls.starttls_probe#module:results).
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

from typing import TYPE_CHECKING

from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.server import Postfix
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import run_starttls, runner

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import Desired, Server
    from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings


def make_server(module: AnsibleModule, desired: Desired, _settings: Settings) -> Server:
    """The Postfix of this host."""
    return Postfix(runner(module), desired.own_port.port)


def main() -> None:
    """Run the module."""
    run_starttls(make_server)


if __name__ == "__main__":
    main()
