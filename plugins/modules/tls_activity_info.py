#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_activity_info
short_description: Count the mail over TLS, and TLS failures, in a mail server's own log
version_added: 0.1.0
description:
  - Counts messages and sessions over TLS and in plaintext by peer domain and direction, with TLS versions and ciphers.
  - Counts failed TLS handshakes, refusals of enforced domains, and deliveries that wait because TLS failed, with the reason.
  - Reads plain, rotated and compressed log files or the journal as a stream, with the headings that syslog daemons, journalctl,
    containers and collectors write, also as one JSON object a line. The memory use does not depend on the size of the log.
options:
  daemon:
    description:
      - The kind of mail server that wrote the log. V(auto) uses the installed one.
        An unknown kind is refused, and the message lists the kinds.
    type: str
    default: auto
  logs:
    description:
      - Log files, directories and named pipes, as absolute paths. Wildcards are allowed for files. Files that were last modified before
        O(since) are not read.
      - Of a directory, all files in it and in its directories are read, up to 10,000. Links to directories are not followed.
      - A named pipe is read to its end. Its writer has 60 seconds for each next part. A pipe that a wildcard or a directory leads to is
        not read.
      - The data may be compressed with gzip, bzip2, xz or zstd. For zstd the host needs the program C(zstd), and a pipe needs it before
        the pipe.
      - By default, the files that the daemon says it has, with the rotated ones. Postfix says it in C(maillog_file), or in
        C(syslog_facility) of each instance, Exim in C(log_file_path). Where that is syslog, the file is that of the rules of rsyslog.
      - A log that cannot be read, for example of a Postfix that writes to C(/dev/stdout), is named in RV(activity.notes) as C(not_read).
    type: list
    elements: str
    default: []
  journal:
    description:
      - Whether the journal is read.
      - V(auto) reads the journal if no log file was modified after O(since). V(true) reads it instead of log files.
        V(false) never reads it.
    type: str
    choices: [auto, 'true', 'false']
    default: auto
  since:
    description:
      - The begin of the period, as ISO 8601 or as V(24h), V(7d), V(2w) before now.
      - A time without a time zone is in the host's time zone.
    type: str
    default: 24h
  until:
    description:
      - The end of the period, in the form of O(since).
    type: str
    default: now
  max_peers:
    description:
      - The most peers that are listed. A peer is a domain and a direction. The least important peers are counted as V(other).
    type: int
    default: 1000
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
  - Postfix logs outbound TLS only with C(smtp_tls_loglevel) of at least 1. With a lower level such sessions and messages are counted
    as unknown, never as plaintext, and RV(activity.notes) names the setting.
  - A Postfix that accepts mail over TLS only does not log refused plaintext mail. Exim logs it.
  - A log that was collected elsewhere is read without the daemon on this host. A line without a time counts as written when its file
    was last written.
  - The settings of this host are used for its own log lines only. Lines of another host are read without settings.
  - Mail that this host sends to itself over its loopback address is not counted; its deferrals because of TLS are.
seealso:
  - module: mailfleet.starttls.message_trace
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Count the mail of the last week
  mailfleet.starttls.tls_activity_info:
    since: 7d
  register: week

- name: Count from logs that were collected elsewhere
  mailfleet.starttls.tls_activity_info:
    daemon: exim
    logs: [/srv/logs/mx1/mainlog*]
    since: '2026-01-01'
    until: '2026-02-01'
"""

RETURN = r"""
activity:
  description: The counts.
  type: dict
  returned: success
  contains:
    version:
      description: The version of this shape.
      type: int
    daemon:
      description: The kind of mail server that wrote the log.
      type: str
    since:
      description: The begin of the period, ISO 8601 in UTC.
      type: str
    until:
      description: The end of the period.
      type: str
    begins:
      description: The time of the first line that was read; empty if there was none.
      type: str
    sources:
      description: The files that were read, or V(journal).
      type: list
      elements: str
    lines:
      description: The number of lines that were read.
      type: int
    bytes:
      description: The number of bytes that were read, uncompressed.
      type: int
    skipped_lines:
      description:
        - The number of lines about mail or TLS that could not be parsed. They are not counted. If they are more than one in a hundred
          lines of mail, RV(activity.notes) has C(lines_not_read) with a sample of each shape.
      type: int
    seconds:
      description: The duration in seconds.
      type: float
    truncated:
      description: Whether there were more peers than O(max_peers).
      type: bool
    totals:
      description:
        - Counts of each direction, C(inbound) and C(outbound), in the shape of RV(activity.peers) without C(domain) and C(direction).
      type: dict
    peers:
      description:
        - One entry for each domain and direction, those with most messages first. The last entry V(other) is the sum of the rest.
        - Inbound, sessions belong to the domain of the client's host name and messages to that of their sender. Outbound, both
          belong to the recipient's domain.
        - C(sessions_unknown) and C(messages_unknown) are those whose log lines do not show whether they used TLS. They are never
          counted as plaintext. Causes are a log setting, a line with a field that is not known, or a log of another host, whose
          settings are not known; RV(activity.notes) names them. In reports they are C(unproven).
        - C(failures) are failed TLS handshakes, C(refusals) mail that this host refused because it arrived in plaintext, and
          C(deferrals) delivery attempts that were deferred because TLS failed. Each is a list of C(reason), a stable word, C(detail),
          a sample from the log, C(count), and C(first) and C(last), the times. Where this host is on both sides, as with a filter at
          its loopback address, C(side) is V(local).
        - The words of C(reason) are C(handshake_failed), C(no_shared_cipher), C(protocol_version), C(certificate_untrusted),
          C(certificate_expired), C(certificate_not_yet_valid), C(certificate_name_mismatch), C(certificate_not_verified),
          C(certificate_unknown), C(certificate_required), C(not_tls), C(lost_connection), C(timeout), C(certificate_purpose),
          C(no_shared_signature), C(too_weak), C(alpn_mismatch), C(signature_refused), C(internal_error), C(access_denied),
          C(server_name_unknown), C(key_unusable), C(tls_unavailable), C(no_starttls_offered), C(starttls_refused), C(dane_failed),
          C(peer_requires_tls), C(enforced_sender),
          C(mail_server_in_plaintext), C(inbound_required).
      type: list
      elements: dict
    notes:
      description: The data that the log lacks, as C(code), C(direction) and C(message).
      type: list
      elements: dict
  sample:
    version: 1
    daemon: postfix
    since: '2026-01-01T00:00:00Z'
    until: '2026-01-02T00:00:00Z'
    begins: '2026-01-01T00:00:03Z'
    sources: [/var/log/mail.log.1, /var/log/mail.log]
    lines: 120
    bytes: 15234
    skipped_lines: 0
    seconds: 0.01
    truncated: false
    peers:
      - domain: example.com
        direction: inbound
        sessions_tls: 3
        sessions_plaintext: 0
        sessions_unknown: 0
        messages_tls: 4
        messages_plaintext: 0
        messages_unknown: 0
        versions: {TLSv1.3: 3}
        ciphers: {TLS_AES_256_GCM_SHA384: 3}
        failures: []
        refusals: []
        deferrals: []
    notes: []
"""

from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.engine import read_activity
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors, runner
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.log import LOGS
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import AUTO, resolve

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import Adapter, Tally

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "daemon": {"type": "str", "default": AUTO},
    "logs": {"type": "list", "elements": "str", "default": []},
    "journal": {"type": "str", "choices": ["auto", "true", "false"], "default": "auto"},
    "since": {"type": "str", "default": "24h"},
    "until": {"type": "str", "default": "now"},
    "max_peers": {"type": "int", "default": 1000},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)

    def reader(tally: Tally, since: float, until: float) -> Adapter:
        return LOGS[resolve(module.params["daemon"], "log", "daemon")](tally, since, until, runner(module))

    fail_on_engine_errors(module, lambda: {"changed": False, "activity": read_activity(module.params, reader)})


if __name__ == "__main__":
    main()
