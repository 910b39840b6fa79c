#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deferred_mail
short_description: Have a mail server try again the mail that waits for want of TLS
version_added: 0.1.0
description:
  - Has the daemon try again the messages that wait for want of TLS, of every instance, and waits until they are gone.
    Other messages stay as they are.
  - A message that somebody holds stays held, and one that Exim has frozen stays frozen. So does a message of which one recipient is held.
  - Make the next hops accept TLS first. The playbook C(recover_deferred_mail) of the collection does both.
options:
  kind:
    description:
      - The kind of mail server or gateway. V(auto) detects a mail server on the host.
        An unknown kind is refused, and the message lists the kinds.
    type: str
    default: auto
  next_hops:
    description:
      - Only messages for these next hops, named as C(next_hop) of M(mailfleet.starttls.deferred_mail_info). By default all of them.
    type: list
    elements: str
  timeout:
    description:
      - Seconds to wait until the messages are gone. What then still waits is in RV(left), and the task does not fail.
    type: int
    default: 60
extends_documentation_fragment:
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
    details:
      - RV(messages) has what would be tried. RV(left) is empty.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details:
      - Without a message that waits for want of TLS nothing is done. What cannot be delivered is tried by each call.
notes:
  - For Postfix the module uses C(postqueue -i), for Exim C(exim4 -M), which overrides its retry times.
seealso:
  - module: mailfleet.starttls.deferred_mail_info
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Deliver what waited until the gateway accepted TLS
  mailfleet.starttls.deferred_mail:
    next_hops: [gw1.example.com]
"""

RETURN = r"""
tried:
  description: How many messages the daemon was asked to try.
  type: int
  returned: success
delivered:
  description: How many of them are gone from the queue.
  type: int
  returned: success
held:
  description: How many messages wait for want of TLS and were left alone, because somebody holds them.
  type: int
  returned: success
messages:
  description: What was tried, as it waited before, in the shape of RV(mailfleet.starttls.deferred_mail_info#module:messages).
  type: list
  elements: dict
  returned: success
left:
  description: What still waits of it, with the reason that it has now.
  type: list
  elements: dict
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.waiting_mail import try_again
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors, runner
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import AUTO
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.queue import queue_of

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "kind": {"type": "str", "default": AUTO},
    "next_hops": {"type": "list", "elements": "str"},
    "timeout": {"type": "int", "default": 60},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    fail_on_engine_errors(
        module,
        lambda: try_again(
            queue_of(options["kind"], runner(module)), options["next_hops"], options["timeout"], module.check_mode
        ),
    )


if __name__ == "__main__":
    main()
