#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: exim_starttls
short_description: Set STARTTLS on Debian's Exim and prove it
version_added: 0.1.0
description:
  - Sets what Debian's Exim 4 offers and uses through the macros of its packaged configuration, split or unsplit,
    and leaves every other line alone.
  - The macros are C(MAIN_TLS_ENABLE), C(MAIN_TLS_ADVERTISE_HOSTS), C(MAIN_TLS_CERTKEY), C(MAIN_ACL_CHECK_MAIL) (for O(inbound=required))
    and, for C(REMOTE_SMTP) and C(REMOTE_SMTP_SMARTHOST), C(..._HOSTS_AVOID_TLS) and C(..._HOSTS_REQUIRE_TLS).
  - C(REMOTE_SMTP_SMARTHOST_TLS_VERIFY_HOSTS) is emptied unless you set it, because Debian's default falls back to plaintext without
    a word when it cannot verify the smarthost.
  - With O(inbound=required), mail without TLS is put off (430), not refused for good, so that no sender bounces it.
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
  mailfleet.starttls.exim_starttls:
    inbound: offered
    outbound: opportunistic

- name: Go back to plaintext
  mailfleet.starttls.exim_starttls:
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

from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.server import Exim
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import prove_at
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import run_starttls, runner

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import Desired, Server
    from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings


def make_server(module: AnsibleModule, _desired: Desired, settings: Settings) -> Server:
    """The Exim of this host, whose trial daemon has to show the wanted state as well."""
    return Exim(runner(module), lambda planned, target: prove_at(planned, target, settings))


def main() -> None:
    """Run the module."""
    run_starttls(make_server)


if __name__ == "__main__":
    main()
