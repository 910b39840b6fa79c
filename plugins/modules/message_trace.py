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

import re
import time
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.command import CommandMailbox
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.imap import (
    IMPLICIT,
    TLS,
    ImapMailbox,
    ImapPlace,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.mailbox import (
    MARKER_HEADER,
    LocalMailbox,
    Mailbox,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.received import LOST, path_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

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


def mailbox_of(item: Mapping[str, Any], look_timeout: int) -> Mailbox:
    """The place where an item of C(receive) lands. Raises EngineError, TargetError; nothing is opened yet."""
    if item["imap"]:
        imap = item["imap"]
        return ImapMailbox(
            ImapPlace(
                host=imap["host"],
                user=imap["user"],
                password=imap["password"],
                port=imap["port"] or 0,
                tls=imap["tls"],
                validate_certs=imap["validate_certs"],
                ca_pem=imap["ca_content"] or "",
                ca_file=imap["ca_file"] or "",
                folder=imap["folder"],
                seconds=float(look_timeout),
            )
        )
    if item["command"] is not None:
        return CommandMailbox(item["command"], float(look_timeout))
    return LocalMailbox(item["mailbox"])


def places_of(items: Sequence[Mapping[str, Any]], look_timeout: int) -> list[Mailbox]:
    """The place of each item; items that land in the same one share it. Raises EngineError, TargetError."""
    places: dict[str, Mailbox] = {}
    for item in items:
        if item["command"] is not None and item["delete"]:
            raise EngineError("delete cannot be used with command; let the command itself remove the message")
        places.setdefault(_key(item), mailbox_of(item, look_timeout))
    return [places[_key(item)] for item in items]


def _key(item: Mapping[str, Any]) -> str:
    return repr([item[kind] for kind in ("mailbox", "imap", "command")])


def wait(
    items: Sequence[Mapping[str, Any]], places: Sequence[Mailbox], seconds: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """Wait until every message has arrived or the time is over; the results and warnings. Raises EngineError, OSError."""
    deadline = time.monotonic() + seconds
    wanted: dict[Mailbox, set[str]] = {}
    for item, place in zip(items, places):
        wanted.setdefault(place, set()).add(item["marker"])
    found: dict[Mailbox, dict[str, list[str]]] = {place: {} for place in wanted}
    try:
        while True:
            for place, markers in wanted.items():
                if missing := markers - found[place].keys():
                    found[place].update(place.look(missing))
            pauses = [place.interval for place, markers in wanted.items() if markers - found[place].keys()]
            left = deadline - time.monotonic()
            if not pauses or left <= 0:
                break
            time.sleep(min(left, max(pauses)))
        deleted, warnings = _delete(items, places, found)
    finally:
        for place in wanted:
            place.close()
    results = [
        _result(item, found[place].get(item["marker"]), (place, item["marker"]) in deleted, seconds)
        for item, place in zip(items, places)
    ]
    return results, warnings


def _delete(
    items: Sequence[Mapping[str, Any]], places: Sequence[Mailbox], found: Mapping[Mailbox, Mapping[str, list[str]]]
) -> tuple[set[tuple[Mailbox, str]], list[str]]:
    """Remove what arrived and is to be removed: place and marker of what is gone, and a warning for what stays."""
    gone: set[tuple[Mailbox, str]] = set()
    warnings = []
    unwanted = {(place, item["marker"]) for item, place in zip(items, places) if item["delete"]}
    for place, marker in ((place, marker) for place, marker in unwanted if marker in found[place]):
        try:
            place.delete(marker)
            gone.add((place, marker))
        except (EngineError, OSError) as error:
            reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
            warnings.append(f"the message {marker} was not removed: {reason}")
    return gone, warnings


def _result(item: Mapping[str, Any], headers: Optional[list[str]], deleted: bool, seconds: float) -> dict[str, Any]:
    path = path_of(headers or []).to_dict()
    if headers is None:
        path["verdict"] = LOST
        path["message"] = f"it did not arrive within {seconds:g} s; look at the queues of the gateway and the servers"
    return {"marker": item["marker"], "arrived": headers is not None, "deleted": deleted, **path}


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


def main() -> None:
    """Run the module."""
    text = {"type": "str", "required": True}
    one_place = ("mailbox", "imap", "command")
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
                "options": RECEIVE_SPEC,
                "required_one_of": [one_place],
                "mutually_exclusive": [one_place],
            },
            "timeout": {"type": "int", "default": 60},
            "look_timeout": {"type": "int", "default": 20},
            "sendmail": {"type": "path", "default": "/usr/sbin/sendmail"},
        },
        supports_check_mode=True,
    )

    def work() -> dict[str, Any]:
        to_send, to_receive = module.params["send"], module.params["receive"]
        for item in to_send + to_receive:
            if not _MARKER.match(item["marker"]):
                raise EngineError(f"the marker {item['marker']!r} has to be 1 to 64 letters, digits or _.-")
        if module.params["look_timeout"] < 1:
            raise EngineError("look_timeout has to be 1 second or more")
        places = places_of(to_receive, module.params["look_timeout"])
        if module.check_mode:
            return {"changed": False, "sent": [], "received": []}
        for item in to_send:
            send(module, item)
        received, warnings = wait(to_receive, places, module.params["timeout"])
        return {
            "changed": any(one["deleted"] for one in received),
            "sent": [item["marker"] for item in to_send],
            "received": received,
            "warnings": warnings,
        }

    fail_on_engine_errors(module, work)


if __name__ == "__main__":
    main()
