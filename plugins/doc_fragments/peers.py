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
      - The peers of the mail server, that is the hosts besides the gateway that it talks to. Each is a dictionary.
      - C(name), 1 to 32 lower-case letters, digits and hyphens. It names the transport.
      - C(kind), V(exchange), V(exchange_online) or V(smtp), the default.
      - C(hosts), the next hops in order of preference, each C(host), C(host:port) or C([address]:port).
      - C(domains), the recipient domains whose mail goes there, or V(*) alone for all mail that leaves the host. Local mail stays.
      - C(direction), as the mail server sees it, V(outbound) (the default), V(inbound) or V(both). A peer that only sends to the mail
        server needs the listener and its certificate, and nothing is set for it.
      - C(level), V(required) (the default) or V(opportunistic).
      - C(check) of the peer's certificate, with V(required). V(encryption_only) (the default), V(trusted_chain), V(hostname) or V(pin).
      - C(names), names that the certificate may have, with V(hostname). C(.example.com) stands for every name below it. Without, the next
        hop's own name counts. On Exim the next hop's own name always counts, so it has to be one of them.
      - C(servername), the name to send as SNI. The default is the next hop's name.
      - C(client_certificate), the path on the host of a PEM file with key, certificate and intermediates, in this order. It is presented
        to this peer alone. On Exim the user C(Debian-exim) has to be able to read it. C(client_key) is the path of the key, if that has a
        file of its own. The module changes neither file.
      - C(pin_fingerprints), SHA-256 fingerprints of certificates, or C(pin_issuer_file), the path on the host of the roots that count
        alone; one of them with V(pin).
      - C(proof_sender) and C(proof_recipient), the addresses of a proof that reaches to RCPT. No message is sent.
      - C(tls_domain), for the controller only.
    type: list
    elements: dict
"""
