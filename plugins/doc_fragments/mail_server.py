# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wanted state of a mail server: the options of the module that reads it and of the module that changes it."""

from __future__ import annotations


class ModuleDocFragment:
    """The fragments C(mailfleet.starttls.mail_server), C(mailfleet.starttls.mail_server.install) and C(...handshake)."""

    DOCUMENTATION = r"""
options:
  kind:
    description:
      - The kind of mail server. V(auto) detects it on the host. If there are two mail servers, the module fails.
      - An unknown kind is refused, and the message lists the kinds.
    type: str
    default: auto
  state:
    description:
      - V(present) sets what O(inbound) and O(outbound) say.
      - V(absent) removes everything that the collection has put on the host, and puts its files back as they were before the first
        change. O(inbound), O(outbound) and O(install) do not matter then.
    type: str
    choices: [present, absent]
    default: present
  keep:
    description:
      - Absolute paths of files on the host that O(state=absent) leaves as they are. For files that somebody has edited by hand in
        the lines of the collection; the module names them. They are yours from then on.
    type: list
    elements: path
    default: []
  inbound:
    description:
      - The use of TLS on accepted connections.
      - V(disabled) does not offer STARTTLS at O(port). V(offered) offers STARTTLS and accepts plaintext too.
        V(required) accepts mail over TLS only.
      - V(none) is for a host that takes no mail from the network. Its inbound side stays as it is, no certificate is installed, and nobody
        has to answer at O(port).
      - V(renewed) keeps the inbound side as it is, and where it offers TLS installs the certificate of O(install). A host that offers no
        TLS stays without.
      - Without this option the inbound side stays as it is.
    type: str
    choices: [disabled, offered, required, none, renewed]
  outbound:
    description:
      - The use of TLS on outgoing connections.
      - V(opportunistic) uses TLS if the other side offers it, and checks no certificate.
        V(required) defers mail to a server that does not offer TLS.
      - A stronger existing setting, such as DANE, stays.
      - Without this option the outbound side stays as it is.
    type: str
    choices: [disabled, opportunistic, required]
  min_tls:
    description:
      - The oldest TLS version that the mail server permits in the directions that the call sets, O(inbound) and O(outbound).
      - What permits no older version already stays as it is. A setting of the server's own port, or of its usual client, that permits an
        older one and that the module does not change, is refused; one of another port or transport is named.
      - Before the change, the module makes a handshake with each known next hop, and refuses a floor that one of them does not reach
        if mail for it would wait, that is where O(outbound=required), and on V(postfix) in any case.
        After it, no listener may agree on an older version.
      - V(none) puts back what was there before. Without this option the versions stay as they are.
      - For the kinds V(postfix) and V(exim) only. For V(exchange), a note of the read says where to set it by hand.
    type: str
    choices: [TLSv1.2, TLSv1.3, none]
  address:
    description:
      - The daemon's own address. A handshake there proves the change.
    type: str
    default: 127.0.0.1
  port:
    description:
      - The daemon's own port. A handshake there proves the change.
    type: int
    default: 25
  timeout:
    description:
      - Seconds to wait for the reloaded daemon to show the wanted state, and for each stage of a handshake.
    type: int
    default: 20
  require_without_evidence:
    description:
      - Set O(outbound=required) even if no handshake has proved that the next hop accepts TLS.
      - Mail that cannot be sent over TLS then stays in the queue.
    type: bool
    default: false
  relax:
    description:
      - Whether O(inbound=offered) may relax an existing O(inbound=required).
    type: bool
    default: true
  only_relax:
    description:
      - With O(inbound=offered), change the inbound side only if it is O(inbound=required) now.
    type: bool
    default: false
"""

    INSTALL = r"""
options:
  certificate:
    description:
      - Absolute path, on the host, of one PEM file that holds the key, the leaf and the chain, in this order,
        as M(mailfleet.starttls.tls_certificate) writes it.
      - The module compares the served certificate with this file. If they differ, the daemon is reloaded.
    type: path
    default: /etc/mailfleet/starttls.pem
  certificate_source:
    description:
      - V(files) takes the certificate of O(install), if that names one, else the file that is there.
      - V(content) and V(pkcs12) take it from O(install), as text, or as one file with a password.
      - V(host) uses the file at O(certificate), and that of O(private_key), as they are. They belong to somebody else, such as a client
        that renews them, and are never written. A read judges them by the same rules as O(install), for which O(install) gives names,
        CA and days. The program C(openssl) has to be on the host. The private key does not leave it.
      - With V(command), V(csr) and V(acme) the key is made on the host and never leaves it. A change has the certificate issued first, a
        read says so. See M(mailfleet.starttls.tls_certificate).
    type: str
    choices: [files, content, pkcs12, host, command, csr, acme]
    default: files
  private_key:
    description:
      - With O(certificate_source=host), the absolute path of the private key on the host, if O(certificate) holds the certificates only.
    type: path
  more_on_host:
    description:
      - With O(certificate_source=host), further certificates that are on the host, each with a key of another algorithm. They are served
        beside the first one, and judged by the same rules.
      - One with C(ports) is served by the listeners on these ports alone, in the place of the first one.
    type: list
    elements: dict
    default: []
    suboptions:
      certificate_path: {description: The absolute path of the certificates., type: path, required: true}
      private_key_path: {description: The absolute path of the private key, if it has a file of its own., type: path}
      ports: {description: The ports that serve it in the place of the first one., type: list, elements: int}
      names: {description: With ports, the names that it has to cover. By default those of the host., type: list, elements: str}
  install:
    description:
      - The certificate to install at O(certificate), in the same change. Without it the file that is there is used.
      - The keys are options of M(mailfleet.starttls.tls_certificate), with the same meaning. If no key and no certificate is given, as
        with an empty dictionary, no certificate is installed.
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
        description:
          - Further certificates, each with a key of another algorithm. They are served beside the first one. One with C(ports) is served
            by the listeners on these ports alone, in the place of the first one.
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
          ports: {description: The ports that serve it in the place of the first one., type: list, elements: int}
          names: {description: With ports, the names that it has to cover. By default those of the host., type: list, elements: str}
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
      replace: {description: Replace a certificate on the host that ends later., type: bool, default: false}
      owner: {description: The user who owns the file., type: str, default: root}
      group: {description: The group of the file. By default the group that the mail server needs., type: str}
      mode: {description: The permissions of the file. By default those that the mail server needs., type: raw}
  bundle:
    description:
      - What the controller's part of this module made of O(install). Tasks cannot set it.
    type: dict
    suboptions:
      sha256: {description: Digest of the content., type: str, default: ''}
      fingerprints: {description: Fingerprints of the certificates., type: list, elements: str, default: []}
      ends: {description: When the certificate ends., type: str, default: ''}
      replace: {description: Whether one that ends later is replaced., type: bool, default: false}
      keep: {description: Fingerprint of one on the host that stays., type: str, default: ''}
      replaces: {description: Fingerprint of one on the host that does not end later., type: str, default: ''}
      private_key: {description: Path of a key that was made on the host., type: path, default: ''}
      issued_by: {description: What will issue the certificate., type: str, default: ''}
      more:
        description: The same of further certificates.
        type: list
        elements: dict
        default: []
        suboptions:
          sha256: {description: Digest of the content., type: str, default: ''}
          fingerprints: {description: Fingerprints of the certificates., type: list, elements: str, default: []}
          ends: {description: When the certificate ends., type: str, default: ''}
          keep: {description: Fingerprint of one on the host that stays., type: str, default: ''}
          replaces: {description: Fingerprint of one on the host that does not end later., type: str, default: ''}
          private_key: {description: Path of a key that was made on the host., type: path, default: ''}
          issued_by: {description: What will issue the certificate., type: str, default: ''}
          ports: {description: The ports that serve it., type: list, elements: int, default: []}
      issue:
        description: What is to be issued for a key of the host.
        type: dict
        suboptions:
          source: {description: The source., type: str, choices: [command, csr, acme], required: true}
          names: {description: The names to cover., type: list, elements: str, required: true}
          key_types: {description: The algorithms., type: list, elements: str, choices: [ecdsa, rsa], required: true}
          force: {description: Whether what is there counts., type: bool, default: false}
          requests: {description: Whether requests are written., type: bool, default: false}
          renew_days: {description: Fixed days., type: str}
          acme_challenge: {description: The challenge., type: str, choices: ['', webroot, standalone, rfc2136], default: ''}
          acme_webroot: {description: The document root., type: path}
          acme_dns_credentials: {description: The key for updates of the DNS., type: path}
          acme_email: {description: The address., type: str}
          acme_server: {description: The directory., type: str}
          acme_ca_file: {description: The roots., type: path}
          acme_install: {description: Whether certbot may be installed., type: bool, default: false}
      owner: {description: Owner of the file., type: str, default: root}
      group: {description: Group of the file., type: str}
      mode: {description: Permissions of the file., type: raw}
  bundle_content:
    description:
      - Key and certificates as PEM, which the controller's part of this module made of O(install). A read gets none. Tasks cannot set it.
    type: str
"""

    HANDSHAKE = r"""
options:
  handshake:
    description:
      - What the handshake test with the own port expects. The keys are options of M(mailfleet.starttls.starttls_probe).
    type: dict
    suboptions:
      name: {description: The name that other hosts connect to. The certificate has to cover it., type: str}
      ca_file: {description: Roots of a private authority. A file on the controller., type: path}
      ca_content: {description: The roots as text, instead of the file., type: str}
      require_trusted: {description: Whether a chain that is not trusted is a finding., type: bool, default: true}
      min_tls_version:
        description: An older TLS version is a finding.
        type: str
        choices: [TLSv1.2, TLSv1.3]
        default: TLSv1.2
      min_days_left: {description: Fewer days left are an error. By default less than a tenth of its life., type: str}
      warn_days_left: {description: Fewer days left are a warning. By default less than a third of its life., type: str}
      fail_on:
        description: The lowest severity of a finding with which a test does not pass.
        type: str
        choices: [error, warning, notice]
        default: error
  ca_content:
    description:
      - Roots to trust in the handshake tests, as PEM. The controller's part of this module reads them from O(handshake).
    type: str
"""
