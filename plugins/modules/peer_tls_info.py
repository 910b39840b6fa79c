#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION. The action plugin adds the findings."""

from __future__ import annotations

DOCUMENTATION = r"""
module: peer_tls_info
short_description: Prove that the peers of a mail server take its mail over TLS
version_added: 0.1.0
description:
  - Connects from the mail server to each peer with the client certificate that its transport presents, completes the TLS handshake, and
    sends MAIL and RCPT, then RSET. Never DATA, so no message is sent. Then it does that once more on a resumed TLS session.
  - A handshake alone does not prove that mail arrives. Exchange Online judges the client certificate at RCPT, after a good handshake, and
    then refuses for good. It may do so only on resumed sessions.
  - The controller explains each refusal that it knows and quotes the others. It also judges the client certificate, and the certificate
    that is served to a peer which looks for a name.
options:
  peers:
    required: true
  accepted_domains:
    description:
      - Domains of the tenant of a peer of the kind V(exchange_online), with which the names of its client certificate are compared.
      - By default, the domain of the peer's C(proof_sender). The playbooks use this one.
    type: list
    elements: str
    default: []
  address:
    description:
      - The mail server's own address. What it serves there is judged for a peer with C(tls_domain).
    type: str
    default: 127.0.0.1
  port:
    description: The mail server's own port, for the same purpose.
    type: int
    default: 25
  helo_name:
    description:
      - The name to send in EHLO.
      - By default, the full name of the host, or its address in brackets if it has none.
    type: str
  min_days_left:
    description:
      - A certificate with fewer days left is a finding of severity V(error).
      - By default, one with less than a tenth of its life left.
    type: int
  timeout:
    description: The most seconds for each stage of a proof. A proof with one host has four times as long, or 60 seconds if that is more.
    type: int
    default: 20
extends_documentation_fragment:
  - mailfleet.starttls.peers
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
    details:
      - The proof changes nothing, so the module makes it in check mode too.
  diff_mode:
    support: none
  idempotent:
    support: full
notes:
  - A peer without C(proof_sender) or C(proof_recipient) is not tested to RCPT. Its handshake is tested.
  - The module does not fail if a proof fails. Check RV(passed) and RV(peers[].findings).
  - The peer sees two connections that end with RSET and QUIT, and logs them as such.
  - The program C(openssl) has to be on the host to judge a client certificate. The private key does not leave the host.
requirements:
  - cryptography on the controller
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Prove that Exchange Online takes our mail
  mailfleet.starttls.peer_tls_info:
    peers:
      - name: online
        kind: exchange_online
        hosts: ['mx.example.com:25']
        domains: ['*']
        client_certificate: /etc/ssl/relay/fullchain.pem
        client_key: /etc/ssl/relay/key.pem
        proof_sender: postmaster@example.com
        proof_recipient: postmaster@example.org
  register: proof

- name: Stop if it does not
  ansible.builtin.assert:
    that: proof.passed
    fail_msg: "{{ proof.peers | map(attribute='findings') | flatten | map(attribute='message') | join('; ') }}"
"""

RETURN = r"""
passed:
  description: Whether no peer has a finding of severity V(error).
  type: bool
  returned: success
peers:
  description: One entry for each peer, in the order of O(peers).
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: The name of the peer.
      type: str
    kind:
      description: The kind of the peer.
      type: str
    tested:
      description: Whether each proof had addresses and was made, so that it could reach to RCPT.
      type: bool
    reason:
      description: Why the peer is not tested to RCPT. Empty if it is.
      type: str
      sample: not tested to RCPT, because proof_sender and proof_recipient are not set
    proofs:
      description: The proof with each host of the peer.
      type: list
      elements: dict
      contains:
        host:
          description: The host.
          type: str
        port:
          description: Its port.
          type: int
        stage:
          description:
            - The step that was not passed, one of V(connect), V(greeting), V(ehlo), V(starttls), V(handshake), V(mail), V(rcpt).
            - V(done) if the recipient was accepted.
          type: str
        code:
          description: The code of the server's answer at that step. 0 if it gave none.
          type: int
        enhanced:
          description: The enhanced status of the answer. Empty if it has none.
          type: str
          sample: 5.7.64
        text:
          description: The answer, made printable and cut.
          type: str
        fault:
          description:
            - V(refused) if the answer to MAIL or RCPT is a refusal, V(not_tested) without addresses, else the code of a handshake test.
            - Empty if there is none.
          type: str
        message:
          description: The fault in words.
          type: str
        tls_version:
          description: The agreed TLS version.
          type: str
        cipher:
          description: The agreed cipher suite.
          type: str
        asked:
          description: Whether the server asked for a client certificate. Null if that is unknown.
          type: bool
        chain_pem:
          description: The served certificates, leaf first.
          type: list
          elements: str
        resumed:
          description: Whether the second session resumed the first one. Null if that is unknown.
          type: bool
        findings:
          description: What this proof means, in the form of RV(peers[].findings), which has them, too.
          type: list
          elements: dict
        second:
          description: The result of the second session, in the form of RV(peers[].proofs). Null if there was none.
          type: dict
    client_certificate:
      description:
        - The certificate that is presented, see RV(mailfleet.starttls.tls_certificate#module:certificate), and its C(purposes).
        - Null if there is none, or if it could not be read.
      type: dict
    findings:
      description:
        - The faults, each with advice. C(severity) is V(error), V(warning) or V(notice).
        - The page C(docs/findings.md) of the collection lists every C(code).
      type: list
      elements: dict
    passed:
      description: Whether there is no finding of severity V(error).
      type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import peers_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_options import PEER_OPTIONS
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "peers": {"type": "list", "elements": "dict", "required": True, "options": PEER_OPTIONS},
    "accepted_domains": {"type": "list", "elements": "str", "default": []},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 25},
    "helo_name": {"type": "str"},
    "min_days_left": {"type": "int"},
    "timeout": {"type": "int", "default": 20},
}


def main() -> None:
    """Run the module."""
    # Here, because the controller needs the options only.
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_inquiry import (  # noqa: PLC0415
        ask_peers,
    )

    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)

    def prove() -> dict[str, Any]:
        options = module.params
        timeout = float(options["timeout"])
        settings = Settings(timeout=timeout, total_timeout=max(60.0, 4 * timeout))
        if options["helo_name"]:
            settings = Settings(
                timeout=settings.timeout, total_timeout=settings.total_timeout, helo_name=options["helo_name"]
            )
        own = Target(options["address"], options["port"])
        own.check()
        found = ask_peers(peers_of(options["peers"]), settings, own)
        return {"changed": False, "peers": found, "warnings": list(settings.told)}

    fail_on_engine_errors(module, prove)


if __name__ == "__main__":
    main()
