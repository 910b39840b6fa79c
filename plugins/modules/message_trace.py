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
        description:
          - Where the message lands, an mbox file or a Maildir directory. A Maildir is searched with its Maildir++ folders.
          - One that does not exist yet is an empty one.
          - Exactly one of O(receive[].mailbox), O(receive[].imap) and O(receive[].command) has to be given.
        type: path
      imap:
        description:
          - The folder of an IMAP server in which the message lands. Only headers are fetched, and no message is marked as read.
        type: dict
        suboptions:
          host:
            description: The IMAP server, by the name that is in its certificate.
            type: str
            required: true
          port:
            description: Its port, 993 for O(receive[].imap.tls=implicit) and 143 otherwise if not given.
            type: int
          user:
            description: Who logs in.
            type: str
            required: true
          password:
            description: The password of the user.
            type: str
            required: true
          tls:
            description:
              - How the connection is protected. V(none) is for the loopback only, because the password goes over it.
            type: str
            choices: [implicit, starttls, none]
            default: implicit
          validate_certs:
            description: Whether the certificate has to be trusted and to have the name O(receive[].imap.host).
            type: bool
            default: true
          ca_content:
            description: Certificate authorities to trust, in PEM format, in place of those of the host.
            type: str
          ca_file:
            description: A file with them on the host that the module runs on.
            type: path
          folder:
            description: The folder.
            type: str
            default: INBOX
      command:
        description:
          - A program and its arguments, run without a shell, that prints the message or its headers; other messages may stand
            around it. V({marker}) in an argument becomes the marker.
          - Exit status 0 without the message means that it is not there yet; any other status is a failure.
          - Do not put a password into an argument, where other users of the host could see it.
        type: list
        elements: str
      delete:
        description:
          - Whether the message is removed when its headers have been read. Not with O(receive[].command).
          - A file of a Maildir is unlinked. An mbox is locked as mail servers do it and shortened. An IMAP server has to
            offer UIDPLUS, so that no other message goes with it.
          - Where it cannot be removed safely, it stays, with a warning.
        type: bool
        default: false
  timeout:
    description:
      - Seconds to wait for all messages of O(receive).
      - A place that cannot be read at all is a failure at once.
    type: int
    default: 60
  look_timeout:
    description:
      - Seconds that one look by IMAP, or one run of a command, may take.
    type: int
    default: 20
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
      - Each call sends new messages. The module changes no setting, so it reports a change only when it removed a message.
notes:
  - The messages stay in the mailboxes in which they arrive, unless O(receive[].delete) is true.
  - Of an mbox only the last 64 MiB are searched, of each folder of a Maildir the newest 5,000 messages, of an IMAP folder the
    newest 10,000.
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

- name: Read the way of a message that lands behind IMAP, and remove it
  mailfleet.starttls.message_trace:
    receive:
      - marker: path-1
        imap:
          host: imap.example.com
          user: trace@example.com
          password: "{{ vault_trace_password }}"
        delete: true

- name: Read the way of a message that a command shows
  mailfleet.starttls.message_trace:
    receive:
      - marker: path-1
        command: [doveadm, -f, pager, fetch, -u, trace, hdr, header, X-Mailfleet-Trace, "{marker}"]
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
    verdict:
      description:
        - V(pass) if every hop over a network used TLS; V(plaintext) if one did not; V(lost) if the message did not arrive;
          V(unproven) if no hop crossed a network, or a header can be read in more than one way, as one into which a client
          put words of its own.
      type: str
      sample: plaintext
    message:
      description: The verdict in words, with the hops that it is about.
      type: str
      sample: in plaintext from mx.example.net to gw1.example.com (ESMTP)
    deleted:
      description: Whether the message was removed.
      type: bool
    hops:
      description:
        - The hops, the first one first.
        - C(network) is false for a hop on the host itself. C(writer) is the mail server whose form the header has, one of V(postfix),
          V(exim), V(exchange), V(haraka), V(sendmail), V(service) and V(unknown). C(date) is in UTC, or empty. C(delay) is the time in
          seconds since the hop before, if both have a date; it is negative where clocks differ. C(clear) is false where the
          header can be read in more than one way; such a hop counts as one without TLS.
      type: list
      elements: dict
      sample:
        - {by: gw1.example.com, from_host: mx.example.net, protocol: ESMTPS, tls: true, tls_version: TLSv1.3,
           cipher: TLS_AES_256_GCM_SHA384, network: true, date: "2026-01-12T17:00:00Z", writer: postfix, clear: true, delay: null}
"""

from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.engine import Trace, run_trace
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.imap import IMPLICIT, TLS
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors

_TEXT = {"type": "str", "required": True}
_ONE_PLACE = ("mailbox", "imap", "command")
RECEIVE_SPEC: dict[str, dict[str, Any]] = {
    "marker": {"type": "str", "required": True},
    "mailbox": {"type": "path"},
    "imap": {
        "type": "dict",
        "options": {
            "host": {"type": "str", "required": True},
            "port": {"type": "int"},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "tls": {"type": "str", "choices": list(TLS), "default": IMPLICIT},
            "validate_certs": {"type": "bool", "default": True},
            "ca_content": {"type": "str"},
            "ca_file": {"type": "path"},
            "folder": {"type": "str", "default": "INBOX"},
        },
    },
    "command": {"type": "list", "elements": "str"},
    "delete": {"type": "bool", "default": False},
}
ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "send": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"marker": _TEXT, "sender": _TEXT, "recipient": _TEXT},
    },
    "receive": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": RECEIVE_SPEC,
        "required_one_of": [_ONE_PLACE],
        "mutually_exclusive": [_ONE_PLACE],
    },
    "timeout": {"type": "int", "default": 60},
    "look_timeout": {"type": "int", "default": 20},
    "sendmail": {"type": "path", "default": "/usr/sbin/sendmail"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)

    def submit(command: Sequence[str], message: bytes) -> tuple[int, str, str]:
        status, out, err = module.run_command(list(command), data=message, binary_data=True)
        return status, out, err

    fail_on_engine_errors(module, lambda: run_trace(Trace(**module.params), submit, module.check_mode))


if __name__ == "__main__":
    main()
