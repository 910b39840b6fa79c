#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and options of an action plugin: nothing of this runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: exchange_tls
short_description: Set TLS on the connectors of an Exchange server, and prove it on the wire
version_added: 0.1.0
description:
  - Sets the use of TLS by an Exchange server on premises (Subscription Edition, 2019 or 2016, role Mailbox), inbound on its receive
    connectors and outbound on its send connectors. Imports the certificate, and names it in the connectors.
  - The decisions are made on the controller. The server only runs cmdlets, see M(mailfleet.starttls.exchange_cmdlets). With check mode the
    calls are shown and none is made.
  - A change is a transaction. It is planned from what the server says of itself, and refused as a whole if anything stands in its way. If a
    call fails, those before it are undone. A handshake test has to show the wanted state, else the former state is put back.
  - The ranges and permission groups of connectors that are there are never changed. New connectors are made for O(peers) alone.
  - The internal transport certificate stays what it was, unless O(internal_certificate) says otherwise. A certificate that another
    connector or another service still uses is not removed.
  - An Edge server is recognised and refused. No real Exchange was asked when this was written, C(docs/exchange.md) of the collection says
    what was tested.
options:
  state:
    description:
      - V(present) sets what O(inbound), O(outbound) and O(peers) say.
      - V(absent) puts the connectors back as they were before the first change, and removes the connectors and certificates of the
        collection.
    type: str
    choices: [present, absent]
    default: present
  inbound:
    description:
      - The use of TLS on the receive connectors that serve O(clients). Without this option they stay as they are.
      - V(offered) adds C(Tls) to AuthMechanism, V(required) sets RequireTLS as well, V(disabled) takes both away.
    type: str
    choices: [disabled, offered, required]
  outbound:
    description:
      - The use of TLS on the send connectors that lead to O(next_hops). Without this option they stay as they are.
      - V(opportunistic) sets IgnoreSTARTTLS to false, V(required) sets RequireTLS and TlsAuthLevel, V(disabled) sets IgnoreSTARTTLS.
    type: str
    choices: [disabled, opportunistic, required]
  install:
    description:
      - The certificate to serve, as the option of the same name of M(mailfleet.starttls.mail_server_tls). Group, owner and mode do not
        matter.
      - It is made a PFX in memory and sent as a secret argument. It is never written to a file.
    type: dict
    suboptions:
      private_key_file: {description: The private key. A file on the controller., type: path}
      private_key_content: {description: The private key as text., type: str}
      certificate_file: {description: The certificate. A file on the controller., type: path}
      certificate_content: {description: The certificate as text., type: str}
      chain_file: {description: The intermediate certificates. A file on the controller., type: path}
      chain_content: {description: The intermediate certificates as text., type: str}
      pkcs12_file: {description: Key and certificates as one PKCS#12 file (.p12 .pfx). A file on the controller., type: path}
      pkcs12_content: {description: The PKCS#12 file as text in base64., type: str}
      pkcs12_password: {description: The password of the PKCS#12 file., type: str}
      more:
        description: Further certificates, each with a key of another algorithm. They are served beside the first one.
        type: list
        elements: dict
        suboptions:
          private_key_file: {description: The private key. A file on the controller., type: path}
          private_key_content: {description: The private key as text., type: str}
          certificate_file: {description: The certificate. A file on the controller., type: path}
          certificate_content: {description: The certificate as text., type: str}
          chain_file: {description: The intermediate certificates. A file on the controller., type: path}
          chain_content: {description: The intermediate certificates as text., type: str}
          pkcs12_file: {description: Key and certificates as one PKCS#12 file. A file on the controller., type: path}
          pkcs12_content: {description: The PKCS#12 file as text in base64., type: str}
          pkcs12_password: {description: The password of the PKCS#12 file., type: str}
          ports: {description: The ports that serve it., type: list, elements: int}
          names: {description: With ports, the names that it has to cover., type: list, elements: str}
      key_types:
        description: The algorithms of keys that are made on the host. For each there is a certificate. By default V(ecdsa).
        type: list
        elements: str
        choices: [ecdsa, rsa]
      command: {description: The command of an authority. It gets a request (CSR) and returns a chain., type: raw}
      csr_file: {description: Where a request (CSR) is written. A file on the controller., type: path}
      renew_days: {description: Renew if fewer days are left. By default less than a third of its life., type: str}
      acme_challenge:
        description: How certbot proves a name.
        type: str
        choices: ['', webroot, standalone, rfc2136]
        default: ''
      acme_webroot: {description: The document root of the web server on the host., type: path}
      acme_dns_credentials: {description: The file on the host with the key for dynamic updates of the DNS., type: path}
      acme_email: {description: The address that the authority writes to., type: str}
      acme_server: {description: The address of the authority's directory., type: str}
      acme_ca_file: {description: Roots for the authority's own certificate. A file on the host., type: path}
      acme_install: {description: Whether the package certbot is installed if it is missing., type: bool, default: false}
      check_tlsa: {description: Refuse a certificate that published TLSA records do not fit., type: bool, default: false}
      resolver: {description: DNS servers to ask for these records., type: list, elements: str}
      ca_file: {description: The roots at which the chain has to end. A file on the controller., type: path}
      ca_content: {description: The roots as text., type: str}
      names: {description: The names that the certificate has to cover., type: list, elements: str}
      min_days_left: {description: The days that the certificate has to be valid. By default a tenth of its life., type: str}
      allow_self_signed: {description: Accept a self-signed certificate., type: bool, default: false}
      replace: {description: Does not matter here., type: bool, default: false}
      owner: {description: Does not matter here., type: str, default: root}
      group: {description: Does not matter here., type: str}
      mode: {description: Does not matter here., type: raw}
  relax:
    description: Whether O(inbound=offered) may take RequireTLS away.
    type: bool
    default: true
  only_relax:
    description: With O(inbound=offered), change the inbound side only if it is V(required) now.
    type: bool
    default: false
  require_without_evidence:
    description:
      - Set O(outbound=required) even if no handshake with a next hop was completed.
      - Mail that cannot be sent over TLS then stays in Exchange's queue, two days by default.
    type: bool
    default: false
  peers_state:
    description:
      - V(present) makes a send connector for each of O(peers) that mail goes to. V(disabled) lets these connectors use TLS if it is
        offered, and no longer require it. V(absent) removes the connectors of O(peers).
      - A receive connector for a peer of C(starttls_peers) that mail comes from is made by O(inbound=required) alone, and only if the
        connector that serves the peer serves others, too.
    type: str
    choices: [present, disabled, absent]
    default: present
  port:
    description: The port at which other hosts hand mail in.
    type: int
    default: 25
  address:
    description:
      - The name or address at which the controller makes the handshake test. By default C(starttls_address) of the host, or else the name
        that other hosts connect to.
    type: str
  reach:
    description:
      - How the cmdlets are reached, see M(mailfleet.starttls.exchange_cmdlets#module). By default the variable
        C(starttls_exchange_reach), or V(auto).
    type: str
    choices: [auto, shell, session, loaded]
  server:
    description:
      - The name of the Exchange server. By default the variable C(starttls_exchange_server), or the computer's own name.
    type: str
  session_uri:
    description:
      - With O(reach=session), the address of the PowerShell directory. By default the variable C(starttls_exchange_session_uri), or
        C(http://) with the computer's own full name and C(/PowerShell/).
    type: str
  clients:
    description:
      - The addresses from which the gateways connect, each an IP address, C(first-last) or CIDR. The receive connectors that serve them are
        changed. By default the variable C(starttls_exchange_clients), or the addresses that the inventory has of the group
        C(mail_gateways).
        Without any, the connectors at O(port) are meant.
    type: list
    elements: str
  next_hops:
    description:
      - Names and addresses of smart hosts. The send connectors that lead to them are changed. By default the variable
        C(starttls_exchange_next_hops), or those of the group C(mail_gateways). Without any, all send connectors that this server uses are
        meant, but not those of peers.
    type: list
    elements: str
  check:
    description:
      - With O(outbound=required), how the certificate of the smart host is checked. V(encryption_only) is TlsAuthLevel EncryptionOnly,
        V(trusted_chain) CertificateValidation, V(hostname) DomainValidation. By default the variable C(starttls_exchange_check), or
        V(encryption_only).
    type: str
    choices: [encryption_only, trusted_chain, hostname]
  tls_domain:
    description:
      - With O(check=hostname), TlsDomain. By default the variable C(starttls_exchange_tls_domain).
    type: str
  send_certificate:
    description:
      - Whether the send connectors present the certificate of O(install), too. It has to be on every server that they name as a source. By
        default the variable C(starttls_exchange_send_certificate), or V(false).
    type: bool
  certificate_on:
    description:
      - Names of other Exchange servers that have the certificate of O(install) already. A send connector that several servers use gets a
        new certificate only when all of them have it. By default the variable C(starttls_exchange_certificate_on), or none.
    type: list
    elements: str
  fqdn:
    description:
      - The name in the greeting of the connectors that the collection makes. By default the variable C(starttls_exchange_fqdn), or the
        server's own name.
    type: str
  internal_certificate:
    description:
      - Whether the certificate may become the internal transport certificate. Microsoft advises against it. By default the variable
        C(starttls_exchange_internal_certificate), or V(false).
    type: bool
  remove_former:
    description:
      - Whether the certificate that the connectors named before is removed once the new one is proved and nothing uses the old one. By
        default the variable C(starttls_exchange_remove_former), or V(false).
    type: bool
  ecc:
    description:
      - Whether the key may be one of an elliptic curve, which Exchange takes after a setting in its registry only. By default the variable
        C(starttls_exchange_ecc), or V(false).
    type: bool
  wait:
    description:
      - Seconds to wait until the wire shows the change. Nobody documents how long Exchange takes. By default the variable
        C(starttls_exchange_wait), or V(120).
    type: int
  journal:
    description:
      - A directory on the controller for the journals, and for what was there before the first change. It has no secrets. By default the
        variable C(starttls_exchange_journal), or C(~/.local/state/mailfleet-starttls).
      - A run that is killed leaves its journal there, and the next run from the same controller undoes the change. In a pod of AWX the
        directory goes with the pod, so a killed run is not undone by itself there, and O(state=absent) knows no former state, unless the
        directory is on a volume.
    type: str
  prove_later:
    description:
      - Leave the proof to the caller, who makes the handshake test from another host and ends the change with O(proof). Until then it is
        pending. Without, the controller makes the test.
    type: bool
    default: false
  proof:
    description:
      - What M(mailfleet.starttls.starttls_probe) returned for the pending change. The change is kept if this proves it, and undone if not.
        All options that say what is wanted do not matter then.
    type: dict
  only_recover:
    description: Undo the change of a killed run, and do nothing else.
    type: bool
    default: false
  digests:
    description:
      - C(exchange) with the digest of the server as a plan saw it. The change is refused if the server differs now.
    type: dict
    default: {}
extends_documentation_fragment:
  - mailfleet.starttls.peers
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - One entry for each connector and certificate.
  idempotent:
    support: full
notes:
  - On a host of the kind C(exchange) M(mailfleet.starttls.mail_server_tls), M(mailfleet.starttls.peer_tls) and
    M(mailfleet.starttls.mail_server_info) do the same, so the role C(mail_server) and the playbooks work there.
  - Send connectors belong to the organisation. A change on one server concerns all servers that are sources of the connector.
seealso:
  - module: mailfleet.starttls.exchange_cmdlets
  - module: mailfleet.starttls.mail_server_tls
  - module: mailfleet.starttls.starttls_probe
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Offer STARTTLS with this certificate, and use TLS towards the smart hosts
  mailfleet.starttls.exchange_tls:
    inbound: offered
    outbound: opportunistic
    install:
      private_key_file: exchange.key
      certificate_file: exchange.pem
      chain_file: chain.pem
      names: [exchange.example.com]

- name: Prove the change from the gateway instead of the controller
  mailfleet.starttls.exchange_tls:
    inbound: offered
    prove_later: true
  register: changed

- name: Make the handshake test
  mailfleet.starttls.starttls_probe:
    targets: [{host: exchange.example.com}]
  delegate_to: gw1.example.com
  ignore_errors: true
  register: seen
  when: changed.pending

- name: Keep the change, or undo it
  mailfleet.starttls.exchange_tls:
    proof: "{{ seen }}"
  when: changed.pending
"""

RETURN = r"""
kind:
  description: Always V(exchange).
  type: str
  returned: success
before:
  description: The state of the connectors before the change, in the words of the options, or V(custom).
  type: dict
  returned: success
  sample: {inbound: offered, outbound: disabled}
after:
  description: The state after the change, or as predicted in check mode. Empty with O(state=absent).
  type: dict
  returned: success
asked:
  description:
    - O(inbound) and O(outbound). A connector that goes on offering STARTTLS with O(inbound=disabled) shows in RV(after).
  type: dict
  returned: success
pending:
  description: Whether the change waits for its proof.
  type: bool
  returned: success
prove:
  description:
    - What a handshake test has to show. C(inbound), C(fingerprint) (SHA-256 of the certificate, if one was given) and C(next_hops), which
      have to complete a handshake as well.
  type: dict
  returned: when the change is pending
recovered:
  description: Whether the change of a killed run was undone first.
  type: bool
  returned: success
restored:
  description: Whether the former state is back.
  type: bool
  returned: when a change failed after it began
digests:
  description: The digest of the server after the change, for O(digests) of the next one.
  type: dict
  returned: success
fingerprint_sha256:
  description: SHA-256 of the certificate that is served now.
  type: str
  returned: with O(install)
"""

from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import SOURCE_SPEC
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_options import READ_SPEC

EXCHANGE_SPEC: dict[str, dict[str, Any]] = {
    "reach": {"type": "str", "choices": ["auto", "shell", "session", "loaded"]},
    "server": {"type": "str"},
    "session_uri": {"type": "str"},
    "clients": {"type": "list", "elements": "str"},
    "next_hops": {"type": "list", "elements": "str"},
    "check": {"type": "str", "choices": ["encryption_only", "trusted_chain", "hostname"]},
    "tls_domain": {"type": "str"},
    "send_certificate": {"type": "bool"},
    "certificate_on": {"type": "list", "elements": "str"},
    "fqdn": {"type": "str"},
    "internal_certificate": {"type": "bool"},
    "remove_former": {"type": "bool"},
    "ecc": {"type": "bool"},
    "wait": {"type": "int"},
    "journal": {"type": "str"},
}
"""The options that a variable starttls_exchange_... sets for a host. plugin_utils.exchange.options has their defaults."""

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "inbound": {"type": "str", "choices": ["disabled", "offered", "required"]},
    "outbound": {"type": "str", "choices": ["disabled", "opportunistic", "required"]},
    "install": {"type": "dict", "options": SOURCE_SPEC},
    "relax": {"type": "bool", "default": True},
    "only_relax": {"type": "bool", "default": False},
    "require_without_evidence": {"type": "bool", "default": False},
    **READ_SPEC,
    "port": {"type": "int", "default": 25},
    "address": {"type": "str"},
    "prove_later": {"type": "bool", "default": False},
    "proof": {"type": "dict"},
    "only_recover": {"type": "bool", "default": False},
    "digests": {"type": "dict", "default": {}},
    **EXCHANGE_SPEC,
}
"""The options for users. The action plugin reads them."""
