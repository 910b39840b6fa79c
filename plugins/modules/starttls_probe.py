#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION. The judgement is the action plugin's."""

from __future__ import annotations

DOCUMENTATION = r"""
module: starttls_probe
short_description: Make the STARTTLS handshake test with mail servers
version_added: 0.1.0
description:
  - Connects from the host, reads the greeting, says EHLO, looks for STARTTLS, starts TLS, and says EHLO again inside TLS.
    Then the certificate that was served is judged on the controller.
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
        description: Name or IP address to connect to.
        type: str
        required: true
      port:
        description: Port to connect to.
        type: int
        default: 25
      name:
        description:
          - The name that the certificate has to cover; it is also asked for (SNI).
          - Without it, the host.
        type: str
      fingerprint_sha256:
        description: SHA-256 fingerprint, in hexadecimal, that the served leaf has to have.
        type: str
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
      - A certificate with fewer days left is a finding.
    type: int
    default: 0
  timeout:
    description:
      - Seconds that each stage of a test may take.
    type: int
    default: 15
  total_timeout:
    description:
      - Seconds that one test may take.
    type: int
    default: 60
  concurrency:
    description:
      - How many tests are made at a time.
    type: int
    default: 200
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
  - On hosts with Python 3.9 only the leaf of a served chain can be seen.
requirements:
  - cryptography on the controller
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
"""

RETURN = r"""
passed:
  description: Whether no test has a finding.
  type: bool
  returned: success
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
    name:
      description: The name that the certificate has to cover.
      type: str
    stage:
      description:
        - The last stage that was reached, one of V(connect) (none), V(greeting), V(ehlo), V(starttls_advertised),
          V(starttls_answered), V(tls), V(ehlo_tls).
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
    fingerprint_sha256:
      description: Fingerprint of the served leaf.
      type: str
    chain_pem:
      description: The served certificates, leaf first.
      type: list
      elements: str
    trusted:
      description: Whether the served chain leads to a trusted root. Null if none was served.
      type: bool
    verify_error:
      description: Why not, in OpenSSL's words.
      type: str
    requires_tls:
      description: Whether the server refuses mail without TLS. Null when that was not asked.
      type: bool
    seconds:
      description: How long the test took.
      type: float
    certificate:
      description: The served leaf, see RV(mailfleet.starttls.tls_certificate#module:certificate).
      type: dict
    findings:
      description: What is wrong and what to do about it.
      type: list
      elements: dict
      sample:
        - {code: starttls_not_offered, message: the server does not offer STARTTLS; switch STARTTLS on at the server}
    passed:
      description: Whether there is no finding.
      type: bool
"""

import ssl
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils.handshake import (
    Settings,
    Target,
    handshake_all,
    make_context,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.run import fail_on_engine_errors
from ansible_collections.mailfleet.starttls.plugins.module_utils.transaction import EngineError


def probe(options: dict[str, Any]) -> dict[str, Any]:
    """Test all targets; the expectations go to the action plugin, which judges."""
    targets = [Target(item["host"], item["port"], item["name"] or "") for item in options["targets"]]
    for target in targets:
        target.check()
    if not targets:
        raise EngineError("there is no target to test")
    try:
        # The certificates only: bundles carry names in any script as comments.
        roots = pem.join(pem.certificates(pem.split(options["ca_content"]))) if options["ca_content"] else None
        make_context(roots, verify=True)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise EngineError(f"ca_content holds no usable certificate: {reason}") from error
    settings = Settings(
        ca_pem=roots,
        timeout=float(options["timeout"]),
        total_timeout=float(options["total_timeout"]),
        concurrency=options["concurrency"],
    )
    common = {key: options[key] for key in ("require_trusted", "min_tls_version", "min_days_left")}
    return {
        "changed": False,
        "results": [seen.to_dict() for seen in handshake_all(targets, settings)],
        "expectations": [
            {**common, "fingerprint": (item["fingerprint_sha256"] or "").lower()} for item in options["targets"]
        ],
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "targets": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "host": {"type": "str", "required": True},
                    "port": {"type": "int", "default": 25},
                    "name": {"type": "str"},
                    "fingerprint_sha256": {"type": "str"},
                },
            },
            "ca_file": {"type": "path"},
            "ca_content": {"type": "str"},
            "require_trusted": {"type": "bool", "default": True},
            "min_tls_version": {"type": "str", "choices": ["TLSv1.2", "TLSv1.3"], "default": "TLSv1.2"},
            "min_days_left": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 15},
            "total_timeout": {"type": "int", "default": 60},
            "concurrency": {"type": "int", "default": 200},
        },
        supports_check_mode=True,
    )
    fail_on_engine_errors(module, lambda: probe(module.params))


if __name__ == "__main__":
    main()
