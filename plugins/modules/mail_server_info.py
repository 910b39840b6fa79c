#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_server_info
short_description: Read which mail server a host runs, and its listeners and transports
version_added: 0.1.0
description:
  - Finds the mail server of a host, and returns its kind, the places of its files, its listeners and its transports.
  - Listeners and transports are read by the daemon's own tools, on Postfix and Exim.
  - The page C(docs/kinds.md) of the collection lists the kinds, and how each is recognised.
extends_documentation_fragment:
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  kind:
    description:
      - The kind of the host. V(auto) detects it. An unknown kind is refused, and the message lists the kinds.
    type: str
    default: auto
seealso:
  - module: mailfleet.starttls.mail_server_tls
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: See which product each host runs
  mailfleet.starttls.mail_server_info:
  register: mail_server_observed
"""

RETURN = r"""
kind:
  description: The kind. Empty if V(auto) finds no mail server, or more than one.
  type: str
  returned: success
  sample: postfix
title:
  description: The name of the product.
  type: str
  returned: when the kind is known
  sample: Postfix
layout:
  description:
    - The places of the product on this host, and what differs from platform to platform. C(platform), C(programs), C(unit),
      C(config_dir), C(config_file), C(user), C(logs), C(certificate), C(certificate_group), C(certificate_mode) as a number,
      C(ca_bundle), C(security_context) and C(sign).
  type: dict
  returned: when the product is on this host
  sample: {platform: Debian, config_dir: /etc/postfix, unit: postfix.service}
listeners:
  description:
    - The addresses and ports on which the host takes mail. Null if they could not be read; RV(message) then says why.
  type: list
  elements: dict
  returned: when the kind is known
  contains:
    service:
      description: The name in the daemon's configuration.
      type: str
      sample: smtp/inet
    host:
      description: The address. Empty for all addresses.
      type: str
    port:
      description: The port. Null if the host does not know the name of the service.
      type: int
    tls:
      description: One of V(none), V(offered), V(required), V(implicit) and V(unknown).
      type: str
    certificates:
      description: Paths of the files that it serves.
      type: list
      elements: str
    overrides:
      description: TLS settings of its own, which replace those of the whole daemon.
      type: dict
transports:
  description:
    - The ways by which mail leaves the host over SMTP or LMTP, as the settings name them. Entries of tables are not listed.
    - Null if they could not be read; RV(message) then says why.
  type: list
  elements: dict
  returned: when the kind is known
  contains:
    setting:
      description: The setting that chooses the transport.
      type: str
      sample: relayhost
    transport:
      description: Its name.
      type: str
    next_hop:
      description: A host, a domain or a socket. Null for the MX of each recipient domain, or if it is not known.
      type: str
    port:
      description: The port of the next hop.
      type: int
    level:
      description: The TLS level, in the daemon's own word.
      type: str
    implicit_tls:
      description: Whether TLS starts with the first byte.
      type: bool
    loopback:
      description: Whether the next hop is the host itself.
      type: bool
    overrides:
      description: TLS settings of its own, which replace those of the whole daemon.
      type: dict
message:
  description: Why the kind is empty, or why listeners and transports are null.
  type: str
  returned: when something could not be read
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors, runner
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.observed import read_host
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import AUTO

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {"kind": {"type": "str", "default": AUTO}}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)
    fail_on_engine_errors(module, lambda: {"changed": False, **read_host(module.params["kind"], runner(module))})


if __name__ == "__main__":
    main()
