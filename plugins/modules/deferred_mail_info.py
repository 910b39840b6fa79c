#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deferred_mail_info
short_description: Read the mail that waits in the queues of a host, and why
version_added: 0.1.0
description:
  - Reads every message that waits, of every instance, with the daemon's own reason, the next hop and the time of the next try.
  - Says of each whether it waits for want of TLS, and which side of the hop is at fault.
  - Works on mail servers and on gateways. Changes nothing.
options:
  kind:
    description:
      - The kind of mail server or gateway. V(auto) detects a mail server on the host.
        An unknown kind is refused, and the message lists the kinds.
    type: str
    default: auto
  recipients:
    description:
      - Only messages for these addresses. By default all messages.
    type: list
    elements: str
    default: []
  message_ids:
    description:
      - C(Message-ID) headers, without the angle brackets. RV(returned) tells which of these messages the host gave up, from the end of its
        log.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
notes:
  - A queue with more than 20,000 messages is not listed. RV(looked) is false then.
  - On Exim, the next hop of a message that was not tried, because its host failed before, is that of its domain.
seealso:
  - module: mailfleet.starttls.deferred_mail
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Read what waits
  mailfleet.starttls.deferred_mail_info:
  register: queue

- name: Show what waits for want of TLS
  ansible.builtin.debug:
    msg: "{{ queue.messages | selectattr('for_tls') | map(attribute='reason') | unique }}"
"""

RETURN = r"""
looked:
  description: Whether the queues could be read. If not, RV(message) says why, and nothing is known of them.
  type: bool
  returned: success
message:
  description: Why the queues could not be read.
  type: str
  returned: success
waiting:
  description: How many recipients of messages wait; C(null) if that is not known.
  type: int
  returned: success
for_tls:
  description: How many of them wait for want of TLS.
  type: int
  returned: success
held:
  description: How many of them somebody holds, or are frozen.
  type: int
  returned: success
instances:
  description: C(instance) and C(waiting) of each instance that has mail.
  type: list
  elements: dict
  returned: success
causes:
  description: Cause -> how many wait for it.
  type: dict
  returned: success
  sample: {not_offered: 3, greylisted: 1}
messages:
  description:
    - One entry for each recipient of a message. Of at most 1,000 of them; those that wait for want of TLS come first.
    - C(reason) has the daemon's own words. They may quote what another server said. C(cause) is V(not_offered), V(handshake_failed),
      V(certificate), V(tls_unavailable), V(peer_requires), V(enforced_sender), V(greylisted), V(not_relayed), V(not_tried) or
      V(unknown), and C(said) says it in words. C(for_tls) tells whether it waits for want of TLS, and C(side) on which side of the
      hop the repair is, V(this_host) or V(next_hop).
    - C(next_hop) is a host name, or C(MX of) a domain, and empty if it is not known. C(arrived) and C(next_try) are in UTC, and C(null)
      if they are not known. C(instance) is empty if there is one queue, and for the first instance of Postfix.
    - C(held) is true for a message that somebody holds, or that is frozen.
  type: list
  elements: dict
  returned: success
  sample:
    - {queue_id: 4Z1AAA2bbbz9, instance: "", queue: deferred, sender: me@example.com, recipient: you@example.net, size: 400,
       arrived: "2026-01-12T17:00:00Z", reason: "TLS is required, but was not offered by host gw1.example.com[192.0.2.1]",
       next_hop: gw1.example.com, next_hop_address: 192.0.2.1, next_hop_port: 25, next_try: "2026-01-12T17:05:00Z", held: false,
       cause: not_offered, said: "this host requires TLS, and the next hop does not offer it: a requirer without an acceptor",
       side: next_hop, for_tls: true}
left_out:
  description: How many more wait than RV(messages) has.
  type: int
  returned: success
returned:
  description: C(message_id), C(recipient), C(reason), C(cause) and C(said) of those messages of O(message_ids) that were returned.
  type: list
  elements: dict
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.waiting_mail import (
    could_not_look,
    read_waiting,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors, runner
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import AUTO, PRODUCTS, known_product
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.queue import queue_of

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "kind": {"type": "str", "default": AUTO},
    "recipients": {"type": "list", "elements": "str", "default": []},
    "message_ids": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)
    kind = module.params["kind"]

    def read() -> dict[str, Any]:
        if kind != AUTO:
            known_product(kind, PRODUCTS, "kind")
        try:
            found = read_waiting(
                queue_of(kind, runner(module)), module.params["recipients"], module.params["message_ids"]
            )
        except (EngineError, OSError) as error:
            found = could_not_look(str(error))
        return {"changed": False, **found}

    fail_on_engine_errors(module, read)


if __name__ == "__main__":
    main()
