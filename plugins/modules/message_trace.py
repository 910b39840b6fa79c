#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: message_trace
short_description: Send marked messages, and read the path of the arrived messages
version_added: 0.1.0
description:
  - Hands messages to the host's own mail server, as a user of the host would, and waits for messages that another host sent.
  - The Received headers of an arrived message show for each hop whether it used TLS.
  - One call sends and waits. So one call for each host proves a path in both directions.
options:
  send:
    description:
      - Messages to send from this host.
    type: list
    elements: dict
    default: []
    suboptions:
      marker:
        description: The text that identifies the message. Letters, digits and C(_.-).
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
        description: The marker of the sent message.
        type: str
        required: true
      mailbox:
        description:
          - The mailbox of the message, an mbox file or a Maildir directory. A Maildir is searched with its Maildir++ folders.
          - A mailbox that does not exist yet counts as empty.
          - The module reads it with the rights of its owner. It follows a link on the way there only if root made it.
          - Exactly one of O(receive[].mailbox), O(receive[].imap) and O(receive[].command) has to be given.
        type: path
      imap:
        description:
          - The folder of an IMAP server for the message. The module fetches headers only, and marks no message as read.
        type: dict
        suboptions:
          host:
            description: The IMAP server. Give the name in its certificate.
            type: str
            required: true
          port:
            description: The port. By default 993 for O(receive[].imap.tls=implicit), else 143.
            type: int
          user:
            description: The user who logs in.
            type: str
            required: true
          password:
            description: The password of the user.
            type: str
            required: true
          tls:
            description:
              - The protection of the connection. V(none) is for the loopback only, because the connection carries the password.
            type: str
            choices: [implicit, starttls, none]
            default: implicit
          validate_certs:
            description: Whether the certificate has to be trusted and to have the name O(receive[].imap.host).
            type: bool
            default: true
          ca_content:
            description: Certificate authorities to trust, in PEM format, instead of those of the host.
            type: str
          ca_file:
            description: A file with certificate authorities to trust, on the host that runs the module.
            type: path
          folder:
            description: The folder.
            type: str
            default: INBOX
      command:
        description:
          - A program and its arguments, run without a shell. The program prints the message or its headers. It may print other
            messages too. V({marker}) in an argument is replaced by the marker.
          - Exit status 0 without the message means that the message has not arrived yet. Any other status is a failure.
          - Do not put a password into an argument, because other users of the host could see it.
        type: list
        elements: str
      delete:
        description:
          - Whether the module removes the message after it has read the headers. Not with O(receive[].command).
          - In a Maildir, the file is unlinked. An mbox is locked, as mail servers do, and shortened. An IMAP server must
            support UIDPLUS, so that no other message is removed.
          - If the message cannot be removed safely, it stays, and the module warns.
        type: bool
        default: false
  imap_passwords:
    description:
      - What the controller's part of this module made of the passwords in O(receive), by their places. Tasks cannot set it.
    type: list
    elements: str
  timeout:
    description:
      - Seconds to wait for all messages of O(receive).
      - A mailbox that cannot be read at all fails the module at once.
    type: int
    default: 60
  look_timeout:
    description:
      - The most seconds for one IMAP search, for one run of a command, or for one look into O(receive[].mailbox).
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
      - The module sends no message and waits for none.
  diff_mode:
    support: none
  idempotent:
    support: none
    details:
      - Each call sends new messages. The module changes no setting, so it reports a change only if it removed a message.
notes:
  - The messages stay in the mailboxes in which they arrive, unless O(receive[].delete) is true.
  - The module searches only the last 64 MiB of an mbox, the newest 5,000 messages of each Maildir folder, and the newest
    10,000 messages of an IMAP folder. A message whose headers are longer than 256 KiB is not found.
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

- name: Read the path of the message
  mailfleet.starttls.message_trace:
    receive:
      - marker: path-1
        mailbox: /var/mail/trace
  register: trace

- name: Read the path of a message in an IMAP folder, and remove it
  mailfleet.starttls.message_trace:
    receive:
      - marker: path-1
        imap:
          host: imap.example.com
          user: trace@example.com
          password: "{{ vault_trace_password }}"
        delete: true

- name: Read the path of a message that a command prints
  mailfleet.starttls.message_trace:
    receive:
      - marker: path-1
        command: [doveadm, -f, pager, fetch, -u, trace, hdr, header, X-Mailfleet-Trace, "{marker}"]
"""

RETURN = r"""
sent:
  description: Markers of the messages that the mail server accepted.
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
      description: Whether every hop over a network is proved to have used TLS, and there was one.
      type: bool
    verdict:
      description:
        - V(pass) if every hop over a network used TLS; V(plaintext) if one is proved not to have; V(lost) if the message did not
          arrive; V(unproven) if no hop crossed a network, or if of one of them it cannot be told.
      type: str
      sample: plaintext
    message:
      description: The verdict in words, with the hops that cause it.
      type: str
      sample: in plaintext from mx.example.net to gw1.example.com (ESMTP)
    deleted:
      description: Whether the module removed the message.
      type: bool
    hops:
      description:
        - The hops, the first one first.
        - C(tls) has three values. It is V(true) if the header proves TLS, with C(tls_version) and C(cipher) if they stand there.
          It is V(false) if the header proves plaintext, because its writer is known to tell TLS and told none. It is V(null)
          if it cannot be told, which is never plaintext; in tables and reports such a hop is C(unproven).
        - C(network) is false for a hop on the host itself, from a program, over the loopback or through a socket.
          C(writer) is the mail server that writes headers in this form, one of V(postfix),
          V(exim), V(exchange), V(haraka), V(sendmail), V(axigen), V(communigate), V(courier), V(cyrus), V(dovecot), V(gmail),
          V(james), V(kerio), V(opensmtpd), V(proofpoint), V(stalwart), V(service) and V(unknown). C(date) is in UTC, or empty.
          C(delay) is the time in seconds since the previous hop, if both have a date; it is negative if clocks differ.
        - C(clear) is false if the header can be read in more than one way, for example because a client inserted words. Then
          C(tls) is V(null).
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
    # Ansible logs the options on the host, and does not find each password again that is inside a list.
    "imap_passwords": {"type": "list", "elements": "str", "no_log": True},
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

    options = dict(module.params)
    for item, password in zip(options["receive"], options.pop("imap_passwords") or ()):
        if item["imap"] and password:
            item["imap"] = {**item["imap"], "password": password}
    fail_on_engine_errors(module, lambda: run_trace(Trace(**options), submit, module.check_mode))


if __name__ == "__main__":
    main()
