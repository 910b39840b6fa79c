#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION. The action plugin adds the findings."""

from __future__ import annotations

DOCUMENTATION = r"""
module: starttls_probe
short_description: Make the STARTTLS handshake test with mail servers
version_added: 0.1.0
description:
  - Connects from the host, reads the greeting, sends EHLO, looks for STARTTLS, starts TLS, and sends EHLO again inside TLS.
    Then the controller checks the served certificate.
  - A C(220) in answer to STARTTLS proves nothing. A daemon with a broken key sends it too, and Exim without a certificate
    serves a generated one. So the module completes the handshake and compares the served certificate with the installed one.
  - One call tests all targets, many at a time. The host needs only the Python standard library.
options:
  targets:
    description:
      - The mail servers to test.
    type: list
    elements: dict
    required: true
    suboptions:
      host:
        description:
          - Name or IP address to connect to. A final dot is stripped.
          - A name outside ASCII is accepted if all versions of IDNA read it in the same way. Otherwise (for example with C(ß)) it
            is refused with the reason. Give such a name in its ASCII form (C(xn--...)).
        type: str
        required: true
      port:
        description:
          - Port to connect to.
          - By default V(25) for V(smtp), V(465) for V(smtps) and V(24) for V(lmtp).
        type: int
      protocol:
        description:
          - V(smtp) is SMTP with STARTTLS.
          - V(smtps) is SMTP with implicit TLS.
          - V(lmtp) is LMTP with STARTTLS.
        type: str
        choices: [smtp, smtps, lmtp]
        default: smtp
      name:
        description:
          - The name that the certificate has to cover. The client also sends it (SNI).
          - By default the host.
        type: str
      fingerprint_sha256:
        description:
          - SHA-256 fingerprint, in hexadecimal, that the served leaf has to have. Several have commas between them, for a server with
            certificates of several algorithms, which serves one of them.
        type: str
      domain:
        description:
          - The recipient domain whose mail goes to this server.
          - The check V(mta_sts) needs this option. Without it the target gets the finding C(mta_sts_not_checked).
        type: str
  mode:
    description:
      - V(full) completes the handshake and sends EHLO inside TLS.
      - V(survey) reads the plaintext part of a TLS 1.2 handshake, and ends there. A survey is several times as fast, but does
        not prove that the server answers inside TLS. Servers log a lost connection. A server without TLS 1.2 gets a full test.
        The controller's OpenSSL verifies the chain, with the controller's roots or O(ca_content).
    type: str
    choices: [full, survey]
    default: full
  checks:
    description:
      - Additional checks. Each of the first four makes its own connections, one after another for each target.
      - V(versions) tests which TLS versions the server accepts, independently of the host's own TLS library.
      - V(injection) tests whether the server answers commands inside TLS that were sent in plaintext together with STARTTLS.
      - V(resumption) tests whether a session can be resumed.
      - V(large_hello) tests whether a ClientHello of 1.5 kB in two segments is understood, as new clients send it.
      - V(dane) compares the served chain with the TLSA records, and V(mta_sts) compares the server with the MTA-STS policy of
        the target's O(targets[].domain). The controller looks up both and needs dnspython.
    type: list
    elements: str
    choices: [versions, injection, resumption, large_hello, dane, mta_sts]
    default: []
  resolver:
    description:
      - Addresses of the DNS servers that the controller queries for V(dane) and V(mta_sts), each followed by its port if it is not 53.
      - By default, those of the controller's system. TLSA records are safe only if the resolver validates DNSSEC and the path to it is
        trusted.
    type: list
    elements: str
  ca_file:
    description:
      - PEM file on the controller with the roots to trust.
      - Without this option and O(ca_content), the store of the host that makes the test.
    type: path
  ca_content:
    description:
      - The roots to trust, in PEM.
    type: str
  require_trusted:
    description:
      - Whether a chain that is not trusted is a finding.
    type: bool
    default: true
  min_tls_version:
    description:
      - A session with an older version is a finding.
    type: str
    choices: [TLSv1.2, TLSv1.3]
    default: TLSv1.2
  min_days_left:
    description:
      - A certificate with fewer days left is a finding of severity V(error).
      - By default, one with less than a tenth of its life left, but not before its last 30 days.
    type: int
  warn_days_left:
    description:
      - A certificate with fewer days left is a finding of severity V(warning).
      - By default, one with less than a third of its life left, but not before its last 90 days.
    type: int
  fail_on:
    description:
      - The lowest severity of a finding that fails a test.
    type: str
    choices: [error, warning, notice]
    default: error
  helo_name:
    description:
      - The name to send in EHLO.
      - By default, the full name of the host that makes the test, or its address in brackets if it has none.
    type: str
  timeout:
    description:
      - The most seconds for each stage of a test.
    type: int
    default: 15
  total_timeout:
    description:
      - The most seconds for the test of one target, with all its checks.
    type: int
    default: 60
  concurrency:
    description:
      - The number of targets that are tested at a time. The module lowers it if the host's limit of open files requires this.
    type: int
    default: 1000
extends_documentation_fragment:
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
    details:
      - The test changes nothing, so the module makes it in check mode too.
  diff_mode:
    support: none
  idempotent:
    support: full
notes:
  - The module does not fail if a test fails. Check RV(passed) and RV(results[].findings).
  - Lists of more than 500 targets are divided among processes, one for each processor of the host.
  - On a long run the module writes lines such as C(3000 of 10000) to the host's system log.
requirements:
  - cryptography on the controller
  - dnspython on the controller, for the checks V(dane) and V(mta_sts)
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Test a mail server from the gateway
  mailfleet.starttls.starttls_probe:
    targets:
      - host: mail.example.com
    min_days_left: 14
  delegate_to: gateway.example.com
  register: probe

- name: Stop if the test does not pass
  ansible.builtin.assert:
    that: probe.passed
    fail_msg: "{{ probe.results | map(attribute='findings') | flatten | map(attribute='message') | join('; ') }}"

- name: Test submission and delivery with every check
  mailfleet.starttls.starttls_probe:
    targets:
      - {host: mail.example.com, domain: example.com}
      - {host: mail.example.com, protocol: smtps}
      - {host: store.example.com, protocol: lmtp}
    checks: [versions, injection, resumption, large_hello, dane, mta_sts]
    fail_on: warning

- name: Survey a long list
  mailfleet.starttls.starttls_probe:
    targets: "{{ partners | map('community.general.dict_kv', 'host') }}"
    mode: survey
"""

RETURN = r"""
passed:
  description: Whether every test passed.
  type: bool
  returned: success
certificates:
  description:
    - The served certificates, PEM, by their SHA-256 fingerprint. Results name them in RV(results[].chain_sha256).
  type: dict
  returned: for more than 200 targets
results:
  description: One entry for each target, in the order of the targets.
  type: list
  elements: dict
  returned: success
  contains:
    host:
      description: The address or name of the connection.
      type: str
    port:
      description: The port of the connection.
      type: int
    protocol:
      description: V(smtp), V(smtps) or V(lmtp).
      type: str
    mode:
      description: V(full), or V(survey) if the handshake was not completed on purpose.
      type: str
    name:
      description: The name that the certificate has to cover.
      type: str
    stage:
      description:
        - The last stage that was reached, one of V(connect) (none), V(greeting), V(ehlo), V(starttls_advertised),
          V(starttls_answered), V(tls), V(ehlo_tls).
        - The last stage of a survey is V(starttls_answered), or V(connect) with V(smtps).
      type: str
    completed:
      description: Whether every stage was reached.
      type: bool
    code:
      description: The reason if the test was not completed, as a code. Otherwise empty.
      type: str
    message:
      description: The reason if the test was not completed, in words.
      type: str
    greeting:
      description: The greeting, made printable.
      type: str
    capabilities:
      description: The capabilities in the answer to EHLO in plaintext.
      type: list
      elements: str
    capabilities_tls:
      description: The capabilities in the answer to EHLO inside TLS.
      type: list
      elements: str
    starttls_advertised:
      description: Whether STARTTLS is offered.
      type: bool
    starttls_reply:
      description: The answer to STARTTLS.
      type: str
    tls_version:
      description: The agreed TLS version.
      type: str
      sample: TLSv1.3
    cipher:
      description: The agreed cipher suite.
      type: str
    group:
      description: The group of the key exchange. Empty if there is none, or if it is unknown.
      type: str
      sample: x25519
    client_certificate:
      description:
        - Whether the server requests a certificate of the client, one of V(not_requested), V(requested) (the server continues
          without one), V(required). Null if this is unknown.
      type: str
    fingerprint_sha256:
      description: Fingerprint of the served leaf.
      type: str
    chain_pem:
      description: The served certificates, leaf first.
      type: list
      elements: str
      returned: for up to 200 targets
    chain_sha256:
      description: The fingerprints of the served certificates, leaf first.
      type: list
      elements: str
    trusted:
      description: Whether the served chain leads to a trusted root. Null if none was served.
      type: bool
    verify_error:
      description: The reason if the chain is not trusted, as OpenSSL's message.
      type: str
    seconds:
      description: The duration of the test with its checks.
      type: float
    timings:
      description:
        - The duration of each stage in seconds. Stages that were not reached are not listed.
        - With V(smtps) the greeting is part of C(ehlo_tls).
      type: dict
      sample: {connect: 0.02, greeting: 0.51, ehlo: 0.02, starttls: 0.02, tls: 0.05, ehlo_tls: 0.02}
    versions:
      description:
        - Whether the server accepts each version of TLS; null if this is unknown.
        - Empty without the check V(versions).
      type: dict
      sample: {TLSv1: false, TLSv1.1: false, TLSv1.2: true, TLSv1.3: true}
    injection:
      description:
        - Whether the server answered commands inside TLS that were sent in plaintext together with STARTTLS.
        - Null without the check V(injection), or if this is unknown.
      type: bool
    resumption:
      description: Whether a session can be resumed. Null without the check V(resumption), or if this is unknown.
      type: bool
    large_hello:
      description: Whether a large ClientHello is understood. Null without the check V(large_hello), or if this is unknown.
      type: bool
    certificate:
      description: The served leaf, see RV(mailfleet.starttls.tls_certificate#module:certificate).
      type: dict
    chain:
      description: Every served certificate, leaf first, in the form of RV(results[].certificate).
      type: list
      elements: dict
    name_matches:
      description: Whether the leaf covers the name. Null if none was served.
      type: bool
    days_left:
      description: The days until the leaf expires.
      type: int
    dane:
      description:
        - The result of the comparison of the served chain with the TLSA records. Null without the check V(dane).
        - C(status) is one of V(none), V(match), V(mismatch), V(insecure), V(unusable), V(failed), V(not_checked).
      type: dict
    mta_sts:
      description:
        - The result of the comparison of this server with the MTA-STS policy of the domain. Null without the check V(mta_sts).
        - C(status) is one of V(none), V(match), V(mismatch), V(testing_mismatch), V(invalid), V(failed), V(not_checked).
      type: dict
    findings:
      description:
        - The faults, each with advice. C(severity) is V(error), V(warning) or V(notice).
        - The page C(docs/findings.md) of the collection lists every C(code).
      type: list
      elements: dict
      sample:
        - {code: starttls_not_offered, severity: error, message: the server does not offer STARTTLS; switch STARTTLS on at the server}
    passed:
      description: Whether there is no finding of at least the severity O(fail_on).
      type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._probe.engine import Request, run_probe
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import PORTS
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.probe import CHECKS, PROBE_MODES

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "targets": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "host": {"type": "str", "required": True},
            "port": {"type": "int"},
            "protocol": {"type": "str", "choices": list(PORTS), "default": "smtp"},
            "name": {"type": "str"},
            "fingerprint_sha256": {"type": "str"},
            "domain": {"type": "str"},
        },
    },
    "mode": {"type": "str", "choices": list(PROBE_MODES), "default": "full"},
    "checks": {
        "type": "list",
        "elements": "str",
        "choices": [*CHECKS, "dane", "mta_sts"],
        "default": [],
    },
    "resolver": {"type": "list", "elements": "str"},
    "ca_file": {"type": "path"},
    "ca_content": {"type": "str"},
    "require_trusted": {"type": "bool", "default": True},
    "min_tls_version": {"type": "str", "choices": ["TLSv1.2", "TLSv1.3"], "default": "TLSv1.2"},
    "min_days_left": {"type": "int"},
    "warn_days_left": {"type": "int"},
    "fail_on": {"type": "str", "choices": ["error", "warning", "notice"], "default": "error"},
    "helo_name": {"type": "str"},
    "timeout": {"type": "int", "default": 15},
    "total_timeout": {"type": "int", "default": 60},
    "concurrency": {"type": "int", "default": 1000},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)
    try:
        request = Request.of_options(module.params)
        if request.is_long:  # the options would use memory and would appear in the result
            module.params["targets"] = f"{len(request.targets)} targets"
        result = run_probe(request, module.log)
    except ValueError as error:  # includes TargetError
        module.fail_json(msg=str(error))
    for warning in result.pop("warnings", ()):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
