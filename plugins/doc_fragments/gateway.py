# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that every gateway module shares."""

from __future__ import annotations


class ModuleDocFragment:
    """The fragments C(mailfleet.starttls.gateway) and C(mailfleet.starttls.gateway.change)."""

    DOCUMENTATION = r"""
options:
  gateway:
    description:
      - The kind of gateway. C(docs/kinds.md) of the collection lists the kinds, and how each is reached. An unknown kind is
        refused, and the message lists the kinds.
      - Run the module on the gateway itself, so that the handshakes are made from there. Where an API is used it may
        run elsewhere; the evidence is then that of the other place.
    type: str
    default: postfix
  address:
    description:
      - The gateway's own address, where it has to answer after the change.
    type: str
    default: 127.0.0.1
  port:
    description:
      - The gateway's own port, on which it receives mail.
    type: int
    default: 25
  reinjection_port:
    description:
      - On a Postfix gateway, the first of three free ports on 127.0.0.1, for the instances that mail which arrived over TLS passes.
        It stays the same for the life of the gateway, because mail in the queue is on its way to it.
    type: int
    default: 10125
  config_dir:
    description:
      - On a Haraka gateway, the directory that holds Haraka's C(config) directory.
    type: path
    default: /etc/haraka
  api_url:
    description:
      - For a gateway with an API, its address, like V(https://gateway.example.com:8006).
      - Taken from the environment variable E(MAILFLEET_API_URL) of the host that the module runs on if not given.
    type: str
  api_user:
    description:
      - For Proxmox Mail Gateway, the user with its realm, like V(root@pam).
      - Taken from the environment variable E(MAILFLEET_API_USER) if not given.
    type: str
  api_password:
    description:
      - For Proxmox Mail Gateway, the password of the user.
      - Taken from the environment variable E(MAILFLEET_API_PASSWORD) if not given.
    type: str
  api_key:
    description:
      - For mailcow, an API key that may write.
      - Taken from the environment variable E(MAILFLEET_API_KEY) if not given.
    type: str
  validate_certs:
    description:
      - Whether the certificate of the API has to be valid.
    type: bool
    default: true
  ca_path:
    description:
      - PEM file of the authorities that the certificate of the API may come from.
    type: path
  timeout:
    description:
      - Seconds for each stage of a handshake, for each request to an API, and to wait for the reloaded gateway.
    type: int
    default: 20
"""

    CHANGE = r"""
options:
  require_without_evidence:
    description:
      - Make the change although what it relies on has not been seen. Mail that cannot be delivered then stays in the queue. What
        would make mail bounce is refused all the same.
    type: bool
    default: false
"""
