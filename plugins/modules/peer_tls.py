#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: peer_tls
short_description: Set TLS and the client certificate for the peers of a mail server
version_added: 0.1.0
description:
  - Gives each peer of a mail server a transport and a route of its own, with its TLS level, certificate check, SNI and client
    certificate. No setting changes for other mail, so no level and no client certificate is set globally.
  - All peers of the call are set in one transaction. The module saves and writes the files, the daemon's own tools check them, and the
    daemon is reloaded, never restarted. Its own port has to answer, and its own routing has to lead to the transports. If a step fails, the
    module restores the former files, reloads the daemon and proves the former state.
  - Before a change, the module connects to the peer's hosts with the client certificate that will be presented. With C(proof_sender) and
    C(proof_recipient) it goes as far as RCPT, also on a resumed session. A change that would defer or bounce mail is refused.
  - What the administrator routes by hand is never overridden. The module names it and refuses, unless it leads to the same hosts.
options:
  kind:
    description:
      - The kind of mail server. V(auto) detects it on the host.
    type: str
    default: auto
  peers:
    default: []
  state:
    description:
      - V(present) sets the peers. Peers of the host that are not named stay as they are.
      - V(disabled) keeps the transports and routes of the named peers that are there, and uses no TLS towards them. It is refused for a
        peer that knows the host by its client certificate, and for Exchange Online. O(require_without_evidence) overrides that.
      - V(absent) takes the named peers out, or all without O(peers); an entry then needs its C(name) only. It waits until no mail
        waits for them, and refuses after O(queue_timeout).
    type: str
    choices: [present, disabled, absent]
    default: present
  address:
    description:
      - The daemon's own address. It has to answer before and after the change.
    type: str
    default: 127.0.0.1
  port:
    description:
      - The daemon's own port.
    type: int
    default: 25
  timeout:
    description:
      - Seconds to wait for each stage of a test, and for the reloaded daemon.
    type: int
    default: 20
  require_without_evidence:
    description:
      - Go on although the tests have not shown that the peer accepts mail over TLS. Mail may then wait in the queue.
      - A peer that refuses the proof permanently is still refused, because mail would bounce.
    type: bool
    default: false
  exim_split:
    description:
      - Whether Debian's unsplit configuration of Exim may be moved to the split one. Only there is a place for routers that is no conffile
        of dpkg, so without it a peer of a host with an unsplit configuration is refused.
      - The move carries over what the administrator has changed in the template, and is refused if Exim would not read the same. It stays
        until C(mail_server_tls) with C(state=absent) moves back.
    type: bool
    default: false
  digests:
    description:
      - Path on the host -> SHA-256 of the file as a plan saw it, or V(absent). The change is refused if a file differs now.
    type: dict
    default: {}
extends_documentation_fragment:
  - mailfleet.starttls.peers
  - mailfleet.starttls.gateway.queue
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
    details:
      - The tests are made in check mode too. A change that a real run would refuse is a warning.
  diff_mode:
    support: full
    details:
      - Only the changed lines are shown.
  idempotent:
    support: full
notes:
  - On Postfix a peer is the transport C(mailfleet_peer_NAME) in C(master.cf). Its domains are in the table
    C(/etc/postfix/mailfleet-peers/transport), which precedes the administrator's tables in C(transport_maps). The peer of all mail is
    C(default_transport). C(relayhost) stays as it is, and has to name the same hosts.
  - On Exim a peer is a router and a transport C(mailfleet_peer_NAME), a hyphen of the name being an underscore. The transport is a copy of
    Debian's own one with other TLS options. Debian's macros C(REMOTE_SMTP_..._TLS) do not count for it.
  - Sessions to a peer with a client certificate are not resumed, because a resumed session has the certificate of the session before it.
  - C(mail_server_tls) with C(state=absent) puts back what was there before the first change, peers included.
seealso:
  - module: mailfleet.starttls.mail_server_tls
  - module: mailfleet.starttls.mail_server_info
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Hand the mail for one domain to an Exchange server, over TLS only
  mailfleet.starttls.peer_tls:
    peers:
      - name: exchange
        kind: exchange
        hosts: [exchange.example.com]
        domains: [example.com]

- name: Send all mail with the client certificate of a connector
  mailfleet.starttls.peer_tls:
    peers:
      - name: online
        kind: exchange_online
        hosts: [online.example.net]
        domains: ['*']
        check: hostname
        client_certificate: /etc/mailfleet/connector.pem
        proof_sender: postmaster@example.com
        proof_recipient: postmaster@example.org # outside the tenant

- name: Take all peers out
  mailfleet.starttls.peer_tls:
    state: absent
"""

RETURN = r"""
kind:
  description: The kind of mail server, detected on the host or given.
  type: str
  returned: success
  sample: postfix
before:
  description: The peers before the change, as the daemon's configuration told them. The keys are those of O(peers).
  type: list
  elements: dict
  returned: success
after:
  description: The peers after the change, or as predicted in check mode. V(disabled) is one more C(level).
  type: list
  elements: dict
  returned: success
proofs:
  description:
    - The tests of the hosts of each peer that changes. C(peer), C(kind), C(proof), C(problem) (why the change is refused) and C(warning).
    - C(proof) has C(stage), where it ended (V(connect), V(greeting), V(ehlo), V(starttls), V(handshake), V(mail), V(rcpt) or V(done)),
      the server's answer there, and C(second), the same on a resumed session.
  type: list
  elements: dict
  returned: success
digests:
  description: Path -> SHA-256 of the files after the change, for the next change of a run. Empty if nothing was changed.
  type: dict
  returned: success
recovered:
  description: Whether the module first undid an incomplete change of a killed run.
  type: bool
  returned: success
restored:
  description: Whether the former state was restored and proved.
  type: bool
  returned: when a change failed after it began
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_peers import PEER_SPEC, change_peers

ARGUMENT_SPEC: dict[str, dict[str, Any]] = PEER_SPEC


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)
    if module.params["state"] != "absent" and not module.params["peers"]:
        module.fail_json(msg="nothing is wanted: name peers, or set state to absent")
    fail_on_engine_errors(module, lambda: change_peers(module))


if __name__ == "__main__":
    main()
