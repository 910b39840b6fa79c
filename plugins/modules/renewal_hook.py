#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: renewal_hook
short_description: Install the program that renews certificates on a host between two runs
version_added: 0.1.0
description:
  - Installs C(/usr/local/sbin/mailfleet-starttls), its configuration C(/etc/mailfleet/renewal.json), and what starts it. These are a
    deploy hook of certbot where certbot renews one of O(certificates), and a timer of systemd that looks every hour.
  - C(mailfleet-starttls renew) judges what was renewed by the rules of M(mailfleet.starttls.tls_certificate). It installs it, reloads the
    mail server, and proves with a handshake on each listener that the new certificate is served. If it is not, the old one is put back.
  - C(mailfleet-starttls check) is a check for monitoring, with the exit statuses and performance data of monitoring plugins.
  - Both need no Ansible. They need Python 3.9, and the program C(openssl) to read private keys.
  - A file of somebody else with one of these names is not replaced.
options:
  state:
    description: Whether the hook shall be there. With V(absent) all of its files go, and no other option is used.
    type: str
    choices: [present, absent]
    default: present
  kind:
    description: The kind of mail server that is reloaded. V(auto) detects it on the host.
    type: str
    default: auto
  certificates:
    description:
      - What is renewed on this host, and where it has to be served. Needed with O(state=present).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: A name for messages and for C(--name).
        type: str
        required: true
      pairs:
        description: A key and its certificate, once for each algorithm that is served.
        type: list
        elements: dict
        required: true
        suboptions:
          private_key:
            description: File of whoever renews, such as C(/etc/letsencrypt/live/NAME/privkey.pem).
            type: path
            required: true
          certificate:
            description: The certificate of this key, such as C(fullchain.pem) beside it.
            type: path
            required: true
          chain:
            description: The intermediate certificates, if they do not follow the certificate in its file.
            type: path
          path:
            description:
              - Where key, certificate and chain are installed as one PEM file, which the mail server reads.
              - Leave it out where the mail server reads the files above itself. Then an unfit certificate cannot be kept from it.
            type: path
      names:
        description: Host names, or addresses, that the certificate has to cover.
        type: list
        elements: str
        required: true
      listeners:
        description: Where the certificate has to be served.
        type: list
        elements: dict
        required: true
        suboptions:
          host:
            description: Address of the listener, as this host reaches it.
            type: str
            default: 127.0.0.1
          port:
            description: Its port.
            type: int
            default: 25
          name:
            description: The name that a client asks for.
            type: str
          protocol:
            description: V(smtp) is STARTTLS, V(smtps) is TLS from the first byte.
            type: str
            choices: [smtp, smtps]
            default: smtp
      owner:
        description: Owner of the installed file.
        type: str
        default: root
      group:
        description: Its group. By default that which a mail server of O(kind) needs.
        type: str
      mode:
        description: Its permissions as an octal string. By default those which a mail server of O(kind) needs.
        type: raw
      ca_content:
        description: The roots, in PEM, at which the chain has to end. By default those of the host's own store.
        type: str
      policy:
        description: What the certificate has to fulfil.
        type: dict
        suboptions:
          allow_self_signed:
            description: Accept a self-signed certificate.
            type: bool
            default: false
          min_days_left:
            description:
              - Fixed days instead of O(certificates[].policy.error_share), for what is served, so for C(mailfleet-starttls check).
            type: str
          install_min_days_left:
            description: The same for a renewed certificate that is to be installed.
            type: str
          warn_days_left:
            description: Fixed days instead of O(certificates[].policy.renewal_share).
            type: str
          error_share:
            description: With V(10), a certificate is an error when a tenth of its life is left.
            type: int
            default: 10
          renewal_share:
            description: With V(3), it should have been renewed when a third of its life is left.
            type: int
            default: 3
          minimum_bits:
            description: The smallest keys that are not weak.
            type: dict
            suboptions:
              RSA:
                description: The bits of an RSA key.
                type: int
                default: 2048
              EC:
                description: The bits of a key on an elliptic curve.
                type: int
                default: 256
      tlsa:
        description:
          - The TLSA records that are published for its listeners. The host asks no name service; a renewed certificate that none of them
            fits is refused, with the records to publish first.
          - Without this option those of the present configuration stay. An empty list is none.
        type: list
        elements: dict
        suboptions:
          name:
            description: Name of the record, such as C(_25._tcp.mx1.example.com).
            type: str
            required: true
          usage:
            description: Its first number.
            type: int
            required: true
          selector:
            description: Its second number.
            type: int
            required: true
          matching_type:
            description: Its third number.
            type: int
            required: true
          data:
            description: Its data in hexadecimal.
            type: str
            required: true
  timeout:
    description: Seconds for a listener to serve what was installed.
    type: int
    default: 20
  textfile:
    description:
      - A file for the textfile collector of node-exporter.
      - V(auto) is C(mailfleet_starttls_renewal.prom) in the collector's directory of Debian, if that is there. V(none) is no file.
    type: str
    default: auto
  certbot:
    description:
      - Whether certbot calls the hook. V(auto) is yes if one of O(certificates) is below C(/etc/letsencrypt).
    type: str
    choices: [auto, hook, none]
    default: auto
  acme_ca_file:
    description:
      - A file on the host with the roots, in PEM, of the web server of the ACME authority, if that has a certificate of its own.
      - Where systemd has certbot renew, they are added to those of the host for it, or certbot could not reach the authority.
    type: path
  timer:
    description: Whether a timer of systemd looks every hour. It also makes up for a hook that failed.
    type: bool
    default: true
extends_documentation_fragment:
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Of the program it only shows that it differs.
  idempotent:
    support: full
notes:
  - Needs root on the host, so set C(become=true).
  - The uninstallation of a mail server (M(mailfleet.starttls.mail_server_tls) with O(ignore:state=absent)) removes the hook, too.
seealso:
  - module: mailfleet.starttls.tls_certificate
  - module: mailfleet.starttls.mail_server_tls
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Install what certbot renews, and prove that it is served
  mailfleet.starttls.renewal_hook:
    certificates:
      - name: mx1.example.com
        pairs:
          - private_key: /etc/letsencrypt/live/mx1.example.com/privkey.pem
            certificate: /etc/letsencrypt/live/mx1.example.com/fullchain.pem
            path: /etc/mailfleet/starttls.pem
        names: [mx1.example.com]
        listeners:
          - port: 25
          - port: 465
            protocol: smtps

- name: Remove the hook
  mailfleet.starttls.renewal_hook:
    state: absent
"""

RETURN = r"""
version:
  description: Version of the program that is installed, or would be; empty with O(state=absent).
  type: str
  returned: success
  sample: 0.1.0
files:
  description: The files of the hook on this host.
  type: list
  elements: str
  returned: success
  sample: [/usr/local/sbin/mailfleet-starttls, /etc/mailfleet/renewal.json]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.installing import (
    configured,
    install,
    textfile_of,
    uninstall,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.options import HOOK_SPEC, configuration_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors, runner
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import layout_of, resolve

ARGUMENT_SPEC: dict[str, dict[str, Any]] = HOOK_SPEC
"""The options for users. The action plugin reads them."""


def _work(module: AnsibleModule) -> dict[str, Any]:
    given, run = module.params, runner(module)
    if given["state"] == "absent":
        return uninstall(run, module.check_mode)
    kind = resolve(given["kind"], "server", "kind")
    configuration = configuration_of(given, kind, layout_of(kind), textfile_of(given["textfile"]), configured())
    roots = given["acme_ca_file"] or ""
    return install(configuration, given["certbot"], given["timer"], run, module.check_mode, acme_ca_file=roots)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    fail_on_engine_errors(module, lambda: _work(module))


if __name__ == "__main__":
    main()
