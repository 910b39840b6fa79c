#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and options of the action plugin tls_report."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_report
short_description: Report on TLS in the mail fleet, as a page for users and as data for CI, spreadsheets and monitoring
version_added: 0.1.0
description:
  - Makes one report of the results of each host (handshake tests, traced messages, counts from the servers' own logs) and of
    received TLS reports (RFC 8460). Writes the report in the wanted formats.
  - The report has alerts for problems that need an action. An alert has the cause and the action. The cause is V(remote) if the
    other side did not use TLS, and V(local) if one's own servers did not.
  - Runs on the controller only. It does not fail because of alerts or findings. M(mailfleet.starttls.tls_verdict) does.
options:
  rows:
    description:
      - The results, one entry for each host. Only the key C(host) is required.
      - C(daemon) is text. C(expected) is V(offered), V(disabled) or V(either). C(probes) are results of
        M(mailfleet.starttls.starttls_probe), each with a text C(seen_from). C(traces) are results of
        M(mailfleet.starttls.message_trace), each with C(direction) and C(findings). C(delivery_modes) is a list of text.
      - C(activity) is the counts from the host's logs.
      - C(enforced) is a list of the enforced domains of the host, each with C(domain) and C(direction) (V(inbound) or
        V(outbound)). C(own_domains) is a dictionary of the recipient domains that the host delivers to the fleet's own mail
        servers, each with its delivery mode. The report uses both to find
        the side that causes waiting mail.
    type: list
    elements: dict
    required: true
  parts:
    description:
      - Reports on other hosts of the fleet in their JSON form, as paths on the controller, or as patterns such as C(reports/*/report.json).
        Their hosts become hosts of this report, beside those of O(rows), and its alerts are made from all of them.
      - A host that several of them are about, such as a gateway, is in it once, with the worst verdict.
    type: list
    elements: str
    default: []
  title:
    description:
      - The heading of the report.
    type: str
    default: TLS on the mail fleet
  window:
    description:
      - The period of the report. By default the period of the hosts' logs.
    type: dict
    suboptions:
      since:
        description:
          - The begin of the period, ISO 8601.
        type: str
      until:
        description:
          - The end of the period, ISO 8601.
        type: str
  tls_reports:
    description:
      - Files on the controller with reports about one's own domains (RFC 8460), as JSON, JSON in gzip, or mails with such attachments.
      - Anybody can send such a report. What of it can be read counts. The rest is left out with a warning, and so is a report about
        a domain that is neither one of O(domains) nor one of the C(own_domains) of O(rows).
      - Of two reports with the same organization, id and domain that differ, the one with more failures counts, with a warning.
      - Needs the Python package C(jsonschema) on the controller.
    type: list
    elements: path
    default: []
  domains:
    description:
      - One's own domains, besides the C(own_domains) of O(rows). Only reports about them count.
    type: list
    elements: str
    default: []
  previous:
    description:
      - A former report in its JSON form. The report compares it to find servers and domains that no longer use TLS. If there is no
        such file, nothing is compared. The file may be one of O(outputs), because it is read before it is written.
    type: path
  certificate_days:
    description:
      - A certificate with fewer days left than this causes an alert, of severity V(error) with a third of them left.
      - By default, one with less than a third of its life left does, of severity V(error) with less than a tenth.
    type: int
  not_in_run:
    description:
      - Hosts of the inventory that are not in this run. The report names them, and they neither pass nor fail.
    type: list
    elements: str
    default: []
  fail_on:
    description:
      - The lowest severity of a finding that makes a host fail.
    type: str
    choices:
      - error
      - warning
      - notice
    default: error
  outputs:
    description:
      - The files to write on the controller. A relative path starts where Ansible was started.
      - Missing directories are created, with mode V(0755).
      - Nobody but root and the user who runs Ansible may own or write the directories on the way. A symbolic link is
        followed only if one of these two made it.
      - Files are replaced in one step, so no reader sees an incomplete file.
    type: list
    elements: dict
    default: []
    suboptions:
      format:
        description:
          - V(html) is one page without other files, V(json) is all data (see C(docs/schema/report.schema.json)). V(csv) has a row
            for each handshake test of a host, and one for each of its peer domains and directions. V(junit) is a test suite for each
            host. V(prometheus) is a file for the textfile collector of the node exporter, which reads files whose names end in C(.prom).
        type: str
        choices:
          - html
          - json
          - csv
          - junit
          - prometheus
        required: true
      path:
        description:
          - The file.
        type: path
        required: true
      mode:
        description:
          - The mode of the file in octal digits, as text or with a leading zero.
          - By default an existing file keeps its mode. A new file has V(0640), or V(0644) with V(prometheus), because the node
            exporter reads it as a different user.
        type: raw
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
    details:
      - If a file differs only in the time of the report, it is written again, but this does not count as a change.
seealso:
  - module: mailfleet.starttls.starttls_probe
  - module: mailfleet.starttls.message_trace
  - module: mailfleet.starttls.tls_verdict
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Make a page for users and a file for the monitoring
  mailfleet.starttls.tls_report:
    title: TLS on the mail fleet
    rows:
      - host: mx.example.com
        daemon: Postfix
        probes: "{{ probe.results }}"
        own_domains:
          example.com: required
    previous: /var/lib/mailfleet/report.json
    tls_reports: "{{ lookup('ansible.builtin.fileglob', '/var/lib/mailfleet/tlsrpt/*', wantlist=true) }}"
    domains: [example.com]
    outputs:
      - format: html
        path: /var/www/reports/tls.html
      - format: json
        path: /var/lib/mailfleet/report.json
      - format: prometheus
        path: /var/lib/prometheus/node-exporter/mailfleet.prom
  run_once: true
"""

RETURN = r"""
summary:
  description: The number of hosts that pass, of alerts by severity, and of messages and sessions by direction.
  type: dict
  returned: always
  sample:
    hosts: 5
    passed: 4
    failed: 1
    alerts: {error: 1, warning: 0, notice: 0}
    messages:
      inbound: {tls: 940, plaintext: 12, unknown: 0}
      outbound: {tls: 512, plaintext: 3, unknown: 0}
    sessions:
      inbound: {tls: 800, plaintext: 10, unknown: 0}
      outbound: {tls: 500, plaintext: 3, unknown: 0}
alerts:
  description:
    - The alerts, worst first.
    - Each has C(code), C(severity), C(host), C(domain), C(direction), C(cause), C(count), C(last), C(message) and C(action).
    - The page C(docs/findings.md) of the collection lists every C(code).
  type: list
  elements: dict
  returned: always
  sample:
    - code: starttls_lost
      severity: error
      host: mx.example.com
      domain: ""
      direction: ""
      cause: local
      count: 1
      last: null
      message: mx.example.com (mx.example.com:25) no longer offers STARTTLS. A previous report shows that it did.
      action: Check the recent changes on mx.example.com; its log shows why TLS is off.
handed_on:
  description:
    - What a job hands on to the next one of a workflow as C(starttls_result) - C(summary), and the first C(findings) and C(alerts). Small.
  type: dict
  returned: always
paths:
  description: The absolute paths of the files of O(outputs), in that order.
  type: list
  elements: str
  returned: always
changed_paths:
  description: The files that changed in more than the time of the report.
  type: list
  elements: str
  returned: always
"""

from typing import Any

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "rows": {"type": "list", "elements": "dict", "required": True},
    "parts": {"type": "list", "elements": "str", "default": []},
    "title": {"type": "str", "default": "TLS on the mail fleet"},
    "window": {"type": "dict", "options": {"since": {"type": "str"}, "until": {"type": "str"}}},
    "tls_reports": {"type": "list", "elements": "path", "default": []},
    "domains": {"type": "list", "elements": "str", "default": []},
    "previous": {"type": "path"},
    "certificate_days": {"type": "int"},
    "not_in_run": {"type": "list", "elements": "str", "default": []},
    "fail_on": {"type": "str", "choices": ["error", "warning", "notice"], "default": "error"},
    "outputs": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "format": {"type": "str", "choices": ["html", "json", "csv", "junit", "prometheus"], "required": True},
            "path": {"type": "path", "required": True},
            "mode": {"type": "raw"},
        },
    },
}
"""The options. The action plugin reads them."""
