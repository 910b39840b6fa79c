# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The entries of C(starttls_peers), as the modules take them."""

from __future__ import annotations


class ModuleDocFragment:
    """The fragment C(mailfleet.starttls.peers)."""

    DOCUMENTATION = r"""
options:
  peers:
    description:
      - The peers of the mail server, that is the hosts besides the gateway that it talks to.
    type: list
    elements: dict
    suboptions:
      name:
        description: 1 to 32 lower-case letters, digits and hyphens. It names the transport.
        type: str
        required: true
      kind:
        description: What the peer is.
        type: str
        choices: [exchange, exchange_online, smtp]
        default: smtp
      hosts:
        description: The next hops in order of preference, each C(host), C(host:port) or C([address]:port).
        type: list
        elements: str
        default: []
      domains:
        description: The recipient domains whose mail goes there, or V(*) alone for all mail that leaves the host. Local mail stays.
        type: list
        elements: str
        default: []
      direction:
        description:
          - As the mail server sees it. A peer that only sends to the mail server needs the listener and its certificate, and nothing is
            set for it.
        type: str
        choices: [outbound, inbound, both]
        default: outbound
      level:
        description: Whether mail is sent to the peer over TLS if possible, or over TLS only.
        type: str
        choices: [opportunistic, required]
        default: required
      check:
        description: How the peer's certificate is checked. Another value than V(encryption_only) needs O(peers[].level=required).
        type: str
        choices: [encryption_only, trusted_chain, hostname, pin]
        default: encryption_only
      names:
        description:
          - Names that the certificate may have, with O(peers[].check=hostname). C(.example.com) stands for every name below it. Without,
            the next hop's own name counts. On Exim the next hop's own name always counts, so it has to be one of them.
        type: list
        elements: str
        default: []
      servername:
        description: The name to send as SNI. The default is the next hop's name.
        type: str
      client_certificate:
        description:
          - The path on the host of a PEM file with key, certificate and intermediates, in this order. It is presented to this peer alone.
            On Exim the user C(Debian-exim) has to be able to read it. The file is never changed.
        type: path
      client_key:
        description: The path on the host of the private key, if it is not in the file of the certificate. The file is never changed.
        type: path
      pin_fingerprints:
        description: SHA-256 fingerprints of certificates, in hexadecimal, with O(peers[].check=pin).
        type: list
        elements: str
        default: []
      pin_issuer_file:
        description: The path on the host of the roots that count alone, with O(peers[].check=pin), instead of fingerprints.
        type: path
      proof_sender:
        description:
          - The sender of a proof that reaches to RCPT. No message is sent.
          - For O(peers[].kind=exchange_online), an address of the accepted domain of the tenant that the client certificate names.
        type: str
      proof_recipient:
        description:
          - The recipient of that proof. Its domain need not be one of O(peers[].domains).
          - For O(peers[].kind=exchange_online), an address outside all accepted domains of the tenant. Exchange Online takes mail for its
            own domains from anybody, so such an address does not show that it knows the client certificate.
        type: str
      tls_domain:
        description:
          - The name that the certificate which the mail server serves has to cover, for a peer that looks for it, as Exchange Online does
            with C(TlsDomain) of its outbound connector.
        type: str
"""
