#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_server_info
short_description: Read the mail server of a host, and what a change would do there
version_added: 0.1.0
description:
  - Reads the mail server of a host and changes nothing. Returns its kind and version, whether it runs, its listeners and transports,
    the sockets on which mail programs listen, the certificates with their dates and readers, the free disk space, what a killed run
    and earlier runs left there, and the result of a handshake test with its own port.
  - If a state is wanted (O(inbound), O(outbound), O(install)), the result also has the lines that a change would write, without secrets,
    and what stands in its way.
  - Everything is read by the daemon's own tools, on Postfix and Exim. Exchange is read by its cmdlets, and makes no handshake test.
  - The page C(docs/kinds.md) of the collection lists the kinds, and how each is recognised.
options:
  peers_state:
    description:
      - What is wanted of O(peers), as O(mailfleet.starttls.peer_tls#module:state).
    type: str
    choices: [present, disabled, absent]
    default: present
  find_send_only:
    description:
      - Whether a host that takes mail from itself only is read as with O(inbound=none). Its sockets and its configuration tell it.
    type: bool
    default: false
  exim_split:
    description:
      - As O(mailfleet.starttls.peer_tls#module:exim_split).
    type: bool
    default: false
  test_listeners:
    description:
      - Make a handshake test with every listener of the mail server, from its own host, in the TLS mode that it has.
    type: bool
    default: false
  listener_ports:
    description:
      - Test the listeners on these ports only. By default those on all ports.
    type: list
    elements: int
    default: []
  settings_only:
    description:
      - The host is not to be changed. A wanted state that it lacks is an obstacle, which says what somebody else has to write where.
    type: bool
    default: false
extends_documentation_fragment:
  - mailfleet.starttls.peers
  - mailfleet.starttls.mail_server
  - mailfleet.starttls.mail_server.install
  - mailfleet.starttls.mail_server.handshake
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: mailfleet.starttls.mail_server_tls
  - module: mailfleet.starttls.peer_tls
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: See which product each host runs
  mailfleet.starttls.mail_server_info:
  register: mail_server_observed
"""

RETURN = r"""
fingerprints_sha256:
  description: The fingerprints of all certificates, if there are several for different algorithms.
  type: list
  elements: str
  returned: with several certificates
published_tlsa:
  description:
    - The TLSA records that are published for the names of the certificate, each with C(name), C(usage), C(selector), C(matching_type)
      and C(data).
    - They are left out if they could not be looked up, which RV(notes) then says.
  type: list
  elements: dict
  returned: if the certificate is renewed on the host (O(certificate_source)), and O(inbound) offers TLS
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
    - The addresses and ports on which the host takes mail. Null if they could not be read.
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
listener_tests:
  description:
    - The tests of the listeners besides the own port. C(message) says why one does not do what its configuration says; empty if it does.
    - A listener that wants a proxy's header before each session is not tested.
  type: list
  elements: dict
  returned: with O(test_listeners)
transports:
  description:
    - The ways by which mail leaves the host over SMTP or LMTP, as the settings name them. Entries of tables are not listed.
    - Null if they could not be read.
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
  description: Why the kind is empty.
  type: str
  returned: when no kind is known
version:
  description: The version of the daemon.
  type: str
  returned: when the kind is known
health:
  description:
    - C(state) is V(running), V(stopped), V(broken) (it cannot read its configuration) or V(missing). C(message) has the daemon's own words.
    - C(running) is whether it runs, also with a broken configuration. Null if that is not known.
  type: dict
  returned: when the kind is known
sockets:
  description: The sockets on which mail programs, or any program on a mail port, listen. C(host) is empty for all addresses.
  type: list
  elements: dict
  returned: when the kind is known
  sample:
    - {host: '', port: 25, pid: 812, program: master}
certificates:
  description: The certificate files that listeners serve, each with C(path), C(readers), C(certificate) and C(message).
  type: list
  elements: dict
  returned: when the kind is known
disk:
  description: The free space where a change would write.
  type: list
  elements: dict
  returned: when the kind is known
  sample:
    - {path: /etc/postfix, free_bytes: 10737418240, free_inodes: 655360}
journal:
  description: The journal of a killed run, with the files that the next change restores. Null if there is none.
  type: dict
  returned: when the kind is known
left:
  description: Paths that the collection left on the host.
  type: list
  elements: str
  returned: when the kind is known
activity:
  description: C(sessions_an_hour) is the average that the end of the log tells; null if it does not tell it.
  type: dict
  returned: when the kind is known
before:
  description: The settings now, in the words of the options, or V(custom). Null if they could not be read.
  type: dict
  returned: when the kind is known
after:
  description: The settings after the change. Null without a wanted state.
  type: dict
  returned: when the kind is known
reach:
  description:
    - What a change reaches. C(listeners) are those with another TLS mode or other certificates after it, C(transports) those with another
      level. Each has C(before) and C(after).
    - Null without a wanted state, or if the kind does not tell it.
  type: dict
  returned: when the kind is known
changes:
  description: What a change would write, each with C(path) and C(lines). No secrets.
  type: list
  elements: dict
  returned: when the kind is known
offer:
  description: Whether anything has to change before TLS may be required.
  type: bool
  returned: when the kind is known
reload:
  description: Whether the daemon has to be reloaded although no file changes. It serves another certificate than the installed one.
  type: bool
  returned: when the kind is known
digests:
  description:
    - Path -> SHA-256 of each file that the change depends on, or V(absent). It is the option
      O(mailfleet.starttls.mail_server_tls#module:digests).
  type: dict
  returned: when the kind is known
next_hops:
  description: The handshakes with the next hops, if the change would require TLS from them. Else null.
  type: list
  elements: dict
  returned: when the kind is known
peers:
  description:
    - The peers that the host has, as the daemon's configuration tells them, see M(mailfleet.starttls.peer_tls).
    - Null if they could not be read.
  type: list
  elements: dict
  returned: when the kind is known
peer_changes:
  description: What a change of the peers to O(peers) would write, each with C(path) and C(lines). No secrets.
  type: list
  elements: dict
  returned: when the kind is known
peer_proofs:
  description:
    - The tests of the hosts of the wanted peers, see RV(mailfleet.starttls.peer_tls#module:proofs). C(refused) tells whether a change would
      be refused because of it. That is no obstacle here, because the other side may accept TLS before the change is made.
    - C(findings) tell what the test means.
  type: list
  elements: dict
  returned: when the kind is known
peer_tests:
  description: The same for each wanted peer, in the form of RV(mailfleet.starttls.peer_tls_info#module:peers).
  type: list
  elements: dict
  returned: with O(peers), if they are to be present
peer_findings:
  description: What stands against the certificates that are presented and served to the peers, each with the name of its C(peer).
  type: list
  elements: dict
  returned: with O(peers), if they are to be present
probe:
  description: The handshake test with the own port. C(results) as in M(mailfleet.starttls.starttls_probe).
  type: dict
  returned: when the kind is known
tls_words:
  description: If the test with the own port failed where TLS begins, the daemon's own words on why. Else empty.
  type: str
  returned: when the kind is known
send_only:
  description:
    - Whether the host is read as one that takes no mail from the network. Then C(probe) has the tests of its next hops in the place of that
      of its own port, and C(before) and C(after) have V(none) as their inbound side.
  type: bool
  returned: when the kind is known
obstacles:
  description: What stands in the way of the change, each with C(code) (see docs/findings.md) and C(message).
  type: list
  elements: dict
  returned: always
fleet_lock:
  description: The run that holds the lock of the fleet on this host, see RV(mailfleet.starttls.fleet_lock#module:former).
  type: dict
  returned: if a run holds it
notes:
  description: Further findings, each with C(code) and C(message).
  type: list
  elements: dict
  returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_options import READ_SPEC
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors, runner
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_server import (
    HANDSHAKE_SPEC,
    HOST_SPEC,
    INSTALL_SPEC,
    SERVER_SPEC,
)

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    **SERVER_SPEC,
    **INSTALL_SPEC,
    **HANDSHAKE_SPEC,
    **READ_SPEC,
    "exim_split": {"type": "bool", "default": False},
    "test_listeners": {"type": "bool", "default": False},
    "listener_ports": {"type": "list", "elements": "int", "default": []},
    "settings_only": {"type": "bool", "default": False},
    "find_send_only": {"type": "bool", "default": False},
}
"""The options for users. The action plugin reads them."""


def main() -> None:
    """Run the module."""
    # Here, because the controller needs the options only.
    from ansible_collections.mailfleet.starttls.plugins.module_utils._change.fleet_lock import (  # noqa: PLC0415
        with_lock,
    )
    from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_reading import (  # noqa: PLC0415
        read_mail_server,
    )

    spec = {**ARGUMENT_SPEC, **HOST_SPEC, "ca_content": {"type": "str"}}
    module = AnsibleModule(spec, supports_check_mode=True)
    fail_on_engine_errors(
        module, lambda: with_lock({"changed": False, **read_mail_server(module.params, runner(module))})
    )


if __name__ == "__main__":
    main()
