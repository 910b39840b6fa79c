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
  - Connects from the host, reads the greeting, says EHLO, looks for STARTTLS, starts TLS, and says EHLO again inside TLS.
    Then the certificate that was served is checked on the controller.
  - A C(220) in answer to STARTTLS proves nothing. A daemon with a broken key gives it too, and Exim without a certificate
    serves one that it made up. So the handshake is completed and what was served is compared with what was installed.
  - All targets are tested in one call, many at a time. The host needs the Python standard library only.
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
          - A name outside ASCII is taken as far as its characters mean the same in every version of IDNA, and refused with
            the reason if they do not (for example C(ß)); give such a name in its ASCII form (C(xn--...)).
        type: str
        required: true
      port:
        description:
          - Port to connect to.
          - Without it V(25) for V(smtp), V(465) for V(smtps) and V(24) for V(lmtp).
        type: int
      protocol:
        description:
          - V(smtp) is SMTP with STARTTLS.
          - V(smtps) is SMTP inside TLS from the first byte on.
          - V(lmtp) is LMTP with STARTTLS.
        type: str
        choices: [smtp, smtps, lmtp]
        default: smtp
      name:
        description:
          - The name that the certificate has to cover; it is also asked for (SNI).
          - Without it, the host.
        type: str
      fingerprint_sha256:
        description: SHA-256 fingerprint, in hexadecimal, that the served leaf has to have.
        type: str
      domain:
        description:
          - The recipient domain whose mail goes to this server.
          - The check V(mta_sts) needs it.
        type: str
  mode:
    description:
      - V(full) completes the handshake and says EHLO inside TLS.
      - V(survey) reads what a server shows of itself in plaintext during a handshake of TLS 1.2, and ends there. It is
        several times as fast, but does not find out whether the server answers inside TLS. Servers log a connection that was lost.
        A server that has no TLS 1.2 is tested in full. The chain is checked on the controller, with its roots or O(ca_content).
    type: str
    choices: [full, survey]
    default: full
  checks:
    description:
      - What else to find out. Each takes connections of its own, which are made one after another for each target.
      - V(versions) finds the TLS versions that the server accepts, whatever the host's own TLS library allows.
      - V(injection) finds out whether commands that were sent in plaintext together with STARTTLS are answered inside TLS.
      - V(resumption) finds out whether a session can be resumed.
      - V(dane) compares with the TLSA records, and V(mta_sts) with the MTA-STS policy of the target's O(targets[].domain).
        Both are looked up from the controller and need dnspython there.
    type: list
    elements: str
    choices: [versions, injection, resumption, dane, mta_sts]
    default: []
  resolver:
    description:
      - Addresses of the DNS servers that the controller asks for V(dane) and V(mta_sts), each with a port behind it if it is not 53.
      - Without it, those that the controller uses itself. Only a resolver that checks DNSSEC, reached over a path that can be trusted,
        makes TLSA records worth anything.
    type: list
    elements: str
  ca_file:
    description:
      - PEM file on the controller with the roots to trust.
      - Without it and O(ca_content), the store of the host that makes the test.
    type: path
  ca_content:
    description:
      - The roots to trust, PEM.
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
      - A certificate with fewer days left is a finding that is an error.
    type: int
    default: 0
  warn_days_left:
    description:
      - A certificate with fewer days left is a finding that is a warning.
    type: int
    default: 21
  fail_on:
    description:
      - The least severity that makes a test fail.
    type: str
    choices: [error, warning, notice]
    default: error
  helo_name:
    description:
      - The name to give in EHLO.
      - Without it, the name of the host that makes the test.
    type: str
  timeout:
    description:
      - Seconds that each stage of a test may take.
    type: int
    default: 15
  total_timeout:
    description:
      - Seconds that the test of one target may take, with all its checks.
    type: int
    default: 60
  concurrency:
    description:
      - How many targets are tested at a time. It is lowered to what the host's limit of open files allows.
    type: int
    default: 1000
extends_documentation_fragment:
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
    details:
      - The test changes nothing, so it is made in check mode too.
  diff_mode:
    support: none
  idempotent:
    support: full
notes:
  - The module does not fail for what a target does; look at RV(passed) and RV(results[].findings).
  - Lists of more than 500 targets are shared among as many processes as the host has processors.
  - On a long run the module writes lines such as C(3000 of 10000) to the host's system log.
requirements:
  - cryptography on the controller
  - dnspython on the controller, for the checks V(dane) and V(mta_sts)
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Test a mail server from the host where the gateway stands
  mailfleet.starttls.starttls_probe:
    targets:
      - host: mail.example.com
    min_days_left: 14
  delegate_to: gateway.example.com
  register: probe

- name: Stop if it does not pass
  ansible.builtin.assert:
    that: probe.passed
    fail_msg: "{{ probe.results | map(attribute='findings') | flatten | map(attribute='message') | join('; ') }}"

- name: Test submission and delivery with every check
  mailfleet.starttls.starttls_probe:
    targets:
      - {host: mail.example.com, domain: example.com}
      - {host: mail.example.com, protocol: smtps}
      - {host: store.example.com, protocol: lmtp}
    checks: [versions, injection, resumption, dane, mta_sts]
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
      description: Where the connection went.
      type: str
    port:
      description: Where the connection went.
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
        - A survey does not go behind V(starttls_answered), or V(connect) with V(smtps).
      type: str
    completed:
      description: Whether every stage was reached.
      type: bool
    code:
      description: Why not, as a word. Empty when it was completed.
      type: str
    message:
      description: Why not, in words.
      type: str
    greeting:
      description: The greeting, made printable.
      type: str
    capabilities:
      description: What EHLO lists in plaintext.
      type: list
      elements: str
    capabilities_tls:
      description: What EHLO lists inside TLS.
      type: list
      elements: str
    starttls_advertised:
      description: Whether STARTTLS is offered.
      type: bool
    starttls_reply:
      description: The answer to STARTTLS.
      type: str
    tls_version:
      description: The version that was agreed.
      type: str
      sample: TLSv1.3
    cipher:
      description: The cipher suite that was agreed.
      type: str
    group:
      description: The group of the key exchange. Empty where there is none, or it cannot be told.
      type: str
      sample: x25519
    client_certificate:
      description:
        - Whether the server asks for a certificate of the client, one of V(not_requested), V(requested) (and goes on
          without), V(required). Null when that is not known.
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
      description: Why not, in OpenSSL's words.
      type: str
    seconds:
      description: How long the test took, with its checks.
      type: float
    timings:
      description:
        - Seconds that each stage took. Stages that were not reached are not listed.
        - Of V(smtps) the greeting is part of C(ehlo_tls).
      type: dict
      sample: {connect: 0.02, greeting: 0.51, ehlo: 0.02, starttls: 0.02, tls: 0.05, ehlo_tls: 0.02}
    versions:
      description:
        - Whether the server accepts each version of TLS, null for one that could not be found out.
        - Empty unless it was asked for.
      type: dict
      sample: {TLSv1: false, TLSv1.1: false, TLSv1.2: true, TLSv1.3: true}
    injection:
      description:
        - Whether commands that were sent in plaintext together with STARTTLS were answered inside TLS.
        - Null when it was not asked for, or could not be found out.
      type: bool
    resumption:
      description: Whether a session can be resumed. Null when it was not asked for, or could not be found out.
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
      description: Days that the leaf is valid still.
      type: int
    dane:
      description:
        - What the TLSA records say of the served chain. Null unless it was asked for.
        - C(status) is one of V(none), V(match), V(mismatch), V(insecure), V(unusable), V(failed).
      type: dict
    mta_sts:
      description:
        - What the MTA-STS policy of the domain says of this server. Null unless it was asked for.
        - C(status) is one of V(none), V(match), V(mismatch), V(testing_mismatch), V(invalid), V(failed).
      type: dict
    findings:
      description:
        - What is wrong and what to do about it. C(severity) is V(error), V(warning) or V(notice).
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
    "min_days_left": {"type": "int", "default": 0},
    "warn_days_left": {"type": "int", "default": 21},
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
        if request.is_long:  # the options would take memory, and would be returned with the result
            module.params["targets"] = f"{len(request.targets)} targets"
        result = run_probe(request, module.log)
    except ValueError as error:  # TargetError is a ValueError
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
