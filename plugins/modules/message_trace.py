#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: message_trace
short_description: Send marked messages, and read the way of those that arrived
version_added: 0.1.0
description:
  - Hands messages to the host's own mail server, as a user of the host would, and waits for messages that another host sent.
  - The Received headers of what arrived tell for each hop whether it used TLS.
  - One call sends and waits, so that a path is proved in both directions with one call a host.
options:
  send:
    description:
      - Messages to send from this host.
    type: list
    elements: dict
    default: []
    suboptions:
      marker:
        description: What the message is found by; letters, digits and C(_.-).
        type: str
        required: true
      sender:
        description: Envelope sender and C(From) address.
        type: str
        required: true
      recipient:
        description: Envelope recipient and C(To) address.
        type: str
        required: true
  receive:
    description:
      - Messages to wait for on this host.
    type: list
    elements: dict
    default: []
    suboptions:
      marker:
        description: The marker that the message was sent with.
        type: str
        required: true
      mailbox:
        description: Where the message lands, an mbox file or a Maildir directory.
        type: path
        required: true
  timeout:
    description:
      - Seconds to wait for all messages of O(receive).
    type: int
    default: 60
  sendmail:
    description:
      - The command that hands a message to the host's mail server.
    type: path
    default: /usr/sbin/sendmail
extends_documentation_fragment:
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
    details:
      - Nothing is sent and nothing waited for.
  diff_mode:
    support: none
  idempotent:
    support: none
    details:
      - Each call sends new messages. The module reports no change, because it changes no setting.
notes:
  - The messages stay in the mailboxes in which they arrive.
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Send a message through the whole path
  mailfleet.starttls.message_trace:
    send:
      - marker: path-1
        sender: trace@partner.example.com
        recipient: trace@example.com

- name: Read the way it took
  mailfleet.starttls.message_trace:
    receive:
      - marker: path-1
        mailbox: /var/mail/trace
  register: trace
"""

RETURN = r"""
sent:
  description: Markers of the messages that the mail server took.
  type: list
  elements: str
  returned: success
received:
  description: One entry for each message of O(receive), in its order.
  type: list
  elements: dict
  returned: success
  contains:
    marker:
      description: The marker.
      type: str
    arrived:
      description: Whether the message arrived in time.
      type: bool
    tls:
      description: Whether every hop over a network used TLS.
      type: bool
    hops:
      description: The hops, the first one first.
      type: list
      elements: dict
      sample:
        - {by: gw1.example.com, from_host: mx.example.net, protocol: ESMTPS, tls: true, tls_version: TLSv1.3,
           cipher: TLS_AES_256_GCM_SHA384, network: true}
"""

import re
import time
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils.mailbox_search import MARKER_HEADER, find_marked
from ansible_collections.mailfleet.starttls.plugins.module_utils.received import path_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.run import fail_on_engine_errors
from ansible_collections.mailfleet.starttls.plugins.module_utils.transaction import EngineError

_MARKER = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_ADDRESS = re.compile(r"[A-Za-z0-9._+=-]+@[A-Za-z0-9.-]+\Z")


def compose(marker: str, sender: str, recipient: str) -> bytes:
    """The message, ready for sendmail."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = recipient
    message["Subject"] = f"TLS path test {marker}"
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{marker}@{sender.partition('@')[2]}>"
    message[MARKER_HEADER] = marker
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("This message was sent to see whether each hop of its way uses TLS.\n")
    return message.as_bytes()


def send(module: AnsibleModule, item: dict[str, Any]) -> None:
    """Hand one message to the mail server. Raises EngineError."""
    for what in ("sender", "recipient"):
        if not _ADDRESS.match(item[what]):
            raise EngineError(f"the {what} {item[what]!r} is not a plain address like name@example.com")
    command = [module.params["sendmail"], "-i", "-f", item["sender"], "--", item["recipient"]]
    status, out, err = module.run_command(
        command, data=compose(item["marker"], item["sender"], item["recipient"]), binary_data=True
    )
    if status != 0:
        raise EngineError(f"{command[0]} did not take the message for {item['recipient']}: {(err or out).strip()}")


def wait(items: list[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """Wait until every message has arrived or the time is over."""
    deadline = time.monotonic() + seconds
    wanted = {(item["mailbox"], item["marker"]) for item in items}
    found: dict[tuple[str, str], list[str]] = {}
    while True:
        for mailbox in {mailbox for mailbox, marker in wanted if (mailbox, marker) not in found}:
            markers = {marker for place, marker in wanted if place == mailbox}
            found.update({(mailbox, marker): headers for marker, headers in find_marked(mailbox, markers).items()})
        if len(found) == len(wanted) or time.monotonic() >= deadline:
            break
        time.sleep(0.2)
    return [
        {
            "marker": item["marker"],
            "arrived": (item["mailbox"], item["marker"]) in found,
            **path_of(found.get((item["mailbox"], item["marker"]), [])).to_dict(),
        }
        for item in items
    ]


def main() -> None:
    """Run the module."""
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "send": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"marker": text, "sender": text, "recipient": text},
            },
            "receive": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"marker": text, "mailbox": {"type": "path", "required": True}},
            },
            "timeout": {"type": "int", "default": 60},
            "sendmail": {"type": "path", "default": "/usr/sbin/sendmail"},
        },
        supports_check_mode=True,
    )

    def work() -> dict[str, Any]:
        to_send, to_receive = module.params["send"], module.params["receive"]
        for item in to_send + to_receive:
            if not _MARKER.match(item["marker"]):
                raise EngineError(f"the marker {item['marker']!r} has to be 1 to 64 letters, digits or _.-")
        if module.check_mode:
            return {"changed": False, "sent": [], "received": []}
        for item in to_send:
            send(module, item)
        return {
            "changed": False,
            "sent": [item["marker"] for item in to_send],
            "received": wait(to_receive, module.params["timeout"]),
        }

    fail_on_engine_errors(module, work)


if __name__ == "__main__":
    main()
