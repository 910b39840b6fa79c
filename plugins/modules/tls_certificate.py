#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_certificate
short_description: Check a certificate and install it for a mail server
version_added: 0.1.0
description:
  - Checks a private key, its certificate and the chain on the controller. If there is no fault, installs
    them on the host as one PEM file that holds the key, the certificate and the chain, in this order.
  - The rules are those of M(mailfleet.starttls.starttls_probe). The key must belong to the certificate and need
    no passphrase. The certificate must be valid, for long enough, for the wanted names and for servers. Keys and
    signatures must be strong. The chain must be complete and in order up to a trusted root.
  - All faults are reported at once. Nothing is sent to the host if there is a fault.
  - The file is replaced in one step, so a mail server that starts at that moment reads the old file or the
    new one. The file does not contain the root, because partners must have it already.
  - Mail servers read the file when they are reloaded. This module reloads no daemon.
options:
  path:
    description:
      - Absolute path of the PEM file on the host.
      - Its directory is created (owner V(root), mode V(0755)) if it is missing.
      - Nobody but root and O(owner) may own or write the directories on the way, because others could lead root elsewhere.
      - A symbolic link is followed and kept if root made it, in a directory that only root may write.
    type: path
    default: /etc/mailfleet/starttls.pem
  state:
    description:
      - Whether the file shall exist.
      - With V(absent) only O(path) is used. The directory stays.
    type: str
    choices: [present, absent]
    default: present
  private_key_file:
    description:
      - File on the controller with the private key in PEM, without a passphrase. The file may be encrypted with
        Ansible Vault.
      - One of O(private_key_file) and O(private_key_content) is needed when O(state=present).
    type: path
  private_key_content:
    description:
      - The private key as text, instead of O(private_key_file). Keep the key in Ansible Vault.
    type: str
  certificate_file:
    description:
      - File on the controller with the certificate in PEM. Certificates after the first one are
        the beginning of the chain, so certbot's C(fullchain.pem) needs no O(chain_file).
      - One of O(certificate_file) and O(certificate_content) is needed when O(state=present).
    type: path
  certificate_content:
    description:
      - The certificate as text, instead of O(certificate_file).
    type: str
  chain_file:
    description:
      - File on the controller with the intermediate certificates in PEM, the one that signed the certificate
        first.
    type: path
  chain_content:
    description:
      - The intermediate certificates as text, instead of O(chain_file).
    type: str
  source:
    description:
      - Where the certificate comes from. It is one at a time. Options of another source are refused by name.
      - V(files) is key and certificate on the controller, as files or as text. V(content) is the same as text only. V(pkcs12) is one file
        with a password.
      - With V(command), V(csr) and V(acme) the key is made on the host by its C(openssl), or by certbot, and never leaves the host. It is
        the safer way, as no copy of the key is on the controller, in a vault, in a backup, or on the wire.
      - With V(command) the controller starts O(command) for each certificate that is due.
      - With V(csr) the task writes a request to O(csr_file) on the controller and ends, without a failure, for a host whose certificate is
        due. Have it signed, give the certificate as O(certificate_file), and run again.
      - With V(acme) certbot issues on the host. Its package is named if it is missing, or installed with O(acme_install=true).
      - A certificate is due if there is none, if it does not pass the check, or if less than a third of its life is left
        (O(renew_days)).
    type: str
    choices: [files, content, pkcs12, command, csr, acme]
    default: files
  pkcs12_file:
    description:
      - File on the controller with key and certificates as PKCS#12 (C(.p12), C(.pfx)). The file may be encrypted with Ansible Vault.
    type: path
  pkcs12_content:
    description:
      - The PKCS#12 file as text in base64, instead of O(pkcs12_file). Keep it in Ansible Vault.
    type: str
  pkcs12_password:
    description:
      - The password of the PKCS#12 file. Keep it in Ansible Vault.
    type: str
  more:
    description:
      - Further certificates for the same names, each with a key of another algorithm, such as RSA beside ECDSA. They are installed beside
        O(path), as C(starttls-2.pem) beside C(starttls.pem), and served side by side.
      - One with C(ports) is for the listeners on these ports alone. It may have other names, and the algorithm of the first one.
    type: list
    elements: dict
    suboptions:
      private_key_file: {description: As O(private_key_file)., type: path}
      private_key_content: {description: As O(private_key_content)., type: str}
      certificate_file: {description: As O(certificate_file)., type: path}
      certificate_content: {description: As O(certificate_content)., type: str}
      chain_file: {description: As O(chain_file)., type: path}
      chain_content: {description: As O(chain_content)., type: str}
      pkcs12_file: {description: As O(pkcs12_file)., type: path}
      pkcs12_content: {description: As O(pkcs12_content)., type: str}
      pkcs12_password: {description: As O(pkcs12_password)., type: str}
      ports: {description: The ports that serve it in the place of the first one., type: list, elements: int}
      names: {description: 'With ports, the names that it has to cover. By default O(names).', type: list, elements: str}
  key_types:
    description:
      - With V(command), V(csr) and V(acme), the algorithms of the keys. For each there is a certificate of its own, see O(more).
      - By default V(ecdsa).
    type: list
    elements: str
    choices: [ecdsa, rsa]
  command:
    description:
      - With O(source=command), a program on the controller and its words, as a list, or as text that is split as a shell does. No shell
        reads it.
      - It gets a request (CSR) in PEM on its standard input, and the names in the environment variable C(MAILFLEET_NAMES), with commas. It
        writes the certificate and its chain to its standard output, in PEM. A status other than 0 is a failure, and the last line of its
        standard error is shown.
    type: raw
  csr_file:
    description:
      - With O(source=csr), the file on the controller that the request is written to. A relative path starts where Ansible was started. By
        default the first name, with C(.csr).
    type: path
  renew_days:
    description:
      - A certificate with fewer days left is due. By default one with less than a third of its life left.
    type: str
  acme_challenge:
    description:
      - With O(source=acme), how the authority sees that a name is the host's. V(webroot) is a file below O(acme_webroot) of a web server on
        the host. With V(standalone) certbot answers on port 80 itself. V(rfc2136) is a dynamic update of the DNS, which a wildcard needs.
    type: str
    choices: ['', webroot, standalone, rfc2136]
    default: ''
  acme_webroot:
    description: Document root of the web server on the host.
    type: path
  acme_dns_credentials:
    description: File on the host, for root alone, with server and key for dynamic updates, as the plugin dns-rfc2136 of certbot reads it.
    type: path
  acme_email:
    description: Address that the authority writes to. Without it certbot registers without one.
    type: str
  acme_server:
    description: Address of the authority's ACME directory. By default that of certbot.
    type: str
  acme_ca_file:
    description: File on the host with roots for the authority's own web server, if it is a private one.
    type: path
  acme_install:
    description: Whether the package certbot, and that of its DNS plugin, is installed on the host if it is missing.
    type: bool
    default: false
  check_tlsa:
    description:
      - Look up the TLSA records of O(names) on port 25, and refuse a certificate that they do not fit. The message has the record to
        publish first.
    type: bool
    default: false
  resolver:
    description: DNS servers to ask for these records, as addresses. By default those of the controller.
    type: list
    elements: str
  ca_file:
    description:
      - File on the controller with the roots, in PEM, at which the chain has to end. The roots are not installed.
      - Without this option and O(ca_content), the roots of the controller's system store are used.
      - The OpenSSL of the controller says whether the chain is trusted. The handshake test afterwards uses that of the host.
    type: path
  ca_content:
    description:
      - The roots as text, instead of O(ca_file).
    type: str
  names:
    description:
      - Host names, or IP addresses, that the certificate has to cover. Usually the name in the MX record
        and in the mail server's greeting.
      - A name outside ASCII that IDNA 2003 and IDNA 2008 read differently, such as one with a sharp s, is refused. Give
        its ASCII form (C(xn--...)).
      - Needed when O(state=present).
    type: list
    elements: str
  min_days_left:
    description:
      - The certificate and its chain must be valid for at least this many days.
      - By default, for at least a tenth of the certificate's life. 30 days are always enough.
    type: str
  allow_self_signed:
    description:
      - Accept a self-signed certificate. Partners that check certificates refuse it.
    type: bool
    default: false
  replace:
    description:
      - Install the certificate also if the host has one at O(path) that ends later, for example because it was renewed there.
      - Without it such a certificate stays if it passes the same check as the one to install, with a warning that names both dates. If
        it does not pass, the task fails.
    type: bool
    default: false
  kind:
    description:
      - The kind of mail server that reads the file. The kind sets the defaults of O(group) and O(mode).
      - V(auto) detects the kind on the host. If the option is empty, or if V(auto) finds no mail server, only V(root) can read the
        file by default.
    type: str
    default: ''
  owner:
    description:
      - Name or number of the user who owns the file.
    type: str
    default: root
  group:
    description:
      - Name or number of the group of the file. By default the group that a mail server of O(kind) needs, else V(root).
    type: str
  mode:
    description:
      - Permissions of the file as an octal string. Only owner and group may be given access.
      - By default the permissions that a mail server of O(kind) needs, else V(0600).
    type: raw
  content:
    description:
      - The checked PEM text, which the controller's part of this module sends to the host. Tasks cannot set it.
    type: str
  private_key:
    description:
      - Path of a key that was made on the host. Tasks cannot set it.
    type: path
  issued_by:
    description:
      - What will issue the certificate, in check mode. Tasks cannot set it.
    type: str
    default: ''
  issue:
    description:
      - What the controller's part of this module asks the host to make or to have issued. Tasks cannot set it.
    type: dict
    suboptions:
      source: {description: The source., type: str, choices: [command, csr, acme], required: true}
      names: {description: The names to cover., type: list, elements: str, required: true}
      key_types: {description: The algorithms., type: list, elements: str, choices: [ecdsa, rsa], required: true}
      force: {description: Whether to issue anew whatever is there., type: bool, default: false}
      requests: {description: Whether requests are written., type: bool, default: false}
      renew_days: {description: Fixed days., type: str}
      acme_challenge: {description: The challenge., type: str, choices: ['', webroot, standalone, rfc2136], default: ''}
      acme_webroot: {description: The document root., type: path}
      acme_dns_credentials: {description: The key for updates of the DNS., type: path}
      acme_email: {description: The address., type: str}
      acme_server: {description: The directory., type: str}
      acme_ca_file: {description: The roots., type: path}
      acme_install: {description: Whether certbot may be installed., type: bool, default: false}
extends_documentation_fragment:
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows the names and fingerprints of the certificates, and the permissions. Never shows the PEM text.
  idempotent:
    support: full
    details:
      - The check depends on the date, so an accepted certificate may be refused later.
requirements:
  - cryptography >= 42.0 (on the controller only)
notes:
  - Needs root on the host, so set C(become=true).
  - Do not write the text of a private key into a playbook. ansible-core itself quotes the lines around a failed
    task, and shows a task's arguments if its option C(display_args_to_stdout) is set. Use a variable
    or a file, and Ansible Vault.
  - A late renewal, and a name in the common name only, are warnings of the task.
seealso:
  - module: mailfleet.starttls.mail_server_tls
  - module: mailfleet.starttls.starttls_probe
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Install the certificate of a Postfix host
  mailfleet.starttls.tls_certificate:
    private_key_file: "{{ inventory_hostname }}/privkey.pem"
    certificate_file: "{{ inventory_hostname }}/fullchain.pem"
    names:
      - mx1.example.com

- name: Install the certificate of an Exim host, issued by a private authority
  mailfleet.starttls.tls_certificate:
    private_key_content: "{{ vault_mx2_private_key }}"
    certificate_file: mx2/certificate.pem
    chain_file: mx2/intermediate.pem
    ca_file: root.pem
    names:
      - mx2.example.com
      - mail.example.com
    kind: exim

- name: Have the company's authority issue a certificate for a key that never leaves the host
  mailfleet.starttls.tls_certificate:
    source: command
    command: [/usr/local/bin/sign-csr, --profile, mail]
    ca_file: root.pem
    names: [mx3.example.com]

- name: Install an RSA certificate beside an ECDSA one
  mailfleet.starttls.tls_certificate:
    private_key_file: ecdsa/privkey.pem
    certificate_file: ecdsa/fullchain.pem
    more:
      - private_key_file: rsa/privkey.pem
        certificate_file: rsa/fullchain.pem
    names: [mx1.example.com]

- name: Only check whether the certificate could be installed
  mailfleet.starttls.tls_certificate:
    private_key_file: privkey.pem
    certificate_file: fullchain.pem
    names: [mx1.example.com]
  check_mode: true

- name: Remove the certificate
  mailfleet.starttls.tls_certificate:
    state: absent
"""

RETURN = r"""
fingerprints_sha256:
  description: The fingerprints of all certificates, if there are several for different algorithms.
  type: list
  elements: str
  returned: with several certificates
path:
  description: Path of the PEM file on the host.
  type: str
  returned: when there are no findings
  sample: /etc/mailfleet/starttls.pem
waiting:
  description: Whether the certificate has to be issued for a request first. Then nothing was installed, and the task has not failed.
  type: bool
  returned: with O(source=csr), if the certificate is due
csr:
  description: The requests, in PEM.
  type: list
  elements: str
  returned: with O(source=csr), if the certificate is due
csr_files:
  description: The files with the requests, on the controller.
  type: list
  elements: str
  returned: with O(source=csr), if the certificate is due
issued:
  description: What the host says of certificates for its own keys. It goes to the controller's part of this module only.
  type: list
  elements: dict
  returned: never to a task
kept:
  description: Whether the certificate of the host stays, because it ends later. Then the facts are those of that one.
  type: bool
  returned: when O(state=present) and there are no findings
fingerprint_sha256:
  description:
    - SHA-256 fingerprint of the certificate for the mail server, in lower-case hexadecimal.
  type: str
  returned: when O(state=present) and there are no findings
  sample: 6f3e0b3f1c6d2f2b1f0d7f8f3c9e5a4b2d1c0e9f8a7b6c5d4e3f2a1b0c9d8e7f
certificate:
  description: The facts of the certificate.
  type: dict
  returned: when O(state=present) and the certificate could be read
  contains:
    subject:
      description: Subject by RFC 4514. Control characters are escaped, here and everywhere else.
      type: str
      sample: CN=mx1.example.com
    common_name:
      description: The last common name of the subject.
      type: str
    sans:
      description: Alternative names.
      type: list
      elements: str
      sample: ["DNS:mx1.example.com", "IP:192.0.2.1"]
    issuer:
      description: Issuer by RFC 4514.
      type: str
    serial:
      description: Serial number in hexadecimal.
      type: str
    not_before:
      description: Begin of its validity, UTC.
      type: str
      sample: '2026-11-01T00:00:00Z'
    not_after:
      description: End of its validity, UTC.
      type: str
    days_left:
      description: Whole days until the end, rounded down.
      type: int
    key_type:
      description: Kind of the public key.
      type: str
      sample: RSA
    key_bits:
      description: Size of the public key.
      type: int
    signature_hash:
      description: Hash of the signature; null if the kind of signature has no hash.
      type: str
      sample: sha256
    fingerprint_sha256:
      description: SHA-256 of the certificate.
      type: str
    spki_sha256:
      description: SHA-256 of the public key, as in a TLSA record V(3 1 1).
      type: str
    self_signed:
      description: Whether the certificate is self-signed.
      type: bool
chain:
  description: Subjects of the certificates that are served after the leaf, in order.
  type: list
  elements: str
  returned: when O(state=present) and the certificate could be read
  sample: ["CN=Example Intermediate CA"]
findings:
  description: The faults. If there is a fault, the task fails and the host is not changed.
  type: list
  elements: dict
  returned: when there are findings
  contains:
    code:
      description:
        - Stable name of the fault. The page C(docs/findings.md) of the collection lists all of them.
      type: str
      sample: name_not_covered
    severity:
      description: Always V(error); less severe findings are warnings of the task.
      type: str
      sample: error
    message:
      description: The fault, its place and the advice.
      type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.due import issue_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import BundleFile
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.issuing import issue
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.newer import install_unless_newer
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import (
    HOST_ISSUE_SPEC,
    SOURCE_SPEC,
    SOURCES,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import CERTIFICATE
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import runner
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import permissions

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "default": CERTIFICATE},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    **SOURCE_SPEC,
    "kind": {"type": "str", "default": ""},
    "source": {"type": "str", "choices": [one for one in SOURCES if one != "host"], "default": "files"},
}
"""The options for users. The action plugin reads them."""

HOST_SPEC: dict[str, dict[str, Any]] = {
    "content": {"type": "str", "no_log": True},
    "private_key": {"type": "path", "no_log": False},
    "issued_by": {"type": "str", "default": ""},
    "issue": {"type": "dict", "options": HOST_ISSUE_SPEC},
}
"""What the action plugin gives to the host."""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={**ARGUMENT_SPEC, **HOST_SPEC}, supports_check_mode=True)
    try:
        if module.params.get("issue"):
            wanted_issue = issue_of(module.params["issue"], module.params["path"])
            result = issue(wanted_issue, runner(module), check_mode=module.check_mode)
        else:
            wanted = BundleFile.of_options(module.params, *permissions(module.params))
            result = install_unless_newer(wanted, check_mode=module.check_mode)
    except EngineError as error:
        module.fail_json(msg=f"{error}.")
    except OSError as error:
        module.fail_json(msg=f"{error.filename or module.params['path']}: {error.strerror or error}.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
