# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options and return values that every mail server module shares."""

from __future__ import annotations


class ModuleDocFragment:
    """Used as C(mailfleet.starttls.starttls)."""

    DOCUMENTATION = r"""
options:
  inbound:
    description:
      - What the daemon does with TLS on the connections it accepts.
      - V(disabled) does not offer STARTTLS. V(offered) offers it and takes plaintext too.
        V(required) takes mail over TLS only.
      - Without this option the inbound side stays as it is.
    type: str
    choices: [disabled, offered, required]
  outbound:
    description:
      - What the daemon does with TLS on the connections it makes.
      - V(opportunistic) uses TLS wherever the other side offers it and judges no certificate.
        V(required) defers mail to a side that does not offer it.
      - A stronger setting of the same kind that is there already, such as DANE, stays.
      - Without this option the outbound side stays as it is.
    type: str
    choices: [disabled, opportunistic, required]
  certificate:
    description:
      - Absolute path, on the host, of one PEM file that holds the key, the leaf and the chain, in this order,
        as M(mailfleet.starttls.tls_certificate) writes it.
      - The certificate that the daemon serves is compared with it; if it changed, the daemon is reloaded.
    type: path
    default: /etc/mailfleet/starttls.pem
  address:
    description:
      - The daemon's own address, where the change is proved by a handshake.
    type: str
    default: 127.0.0.1
  port:
    description:
      - The daemon's own port, where the change is proved by a handshake.
    type: int
    default: 25
  timeout:
    description:
      - Seconds to wait for the reloaded daemon to show the wanted state, and for each stage of a handshake.
    type: int
    default: 20
  require_without_evidence:
    description:
      - Set O(outbound=required) although the next hop has not shown by a handshake that it accepts TLS.
      - Mail that cannot be sent over TLS then stays in the queue.
    type: bool
    default: false
  relax:
    description:
      - Whether O(inbound=offered) may take back an O(inbound=required) that is there already.
    type: bool
    default: true
  only_relax:
    description:
      - With O(inbound=offered), change the inbound side only if it is O(inbound=required) now.
    type: bool
    default: false
notes:
  - The change is a transaction. The files are saved, written and checked by the daemon's own means, the daemon is reloaded,
    never restarted, and its own port has to show the wanted state by a handshake. If anything fails, the former files
    come back, the daemon is reloaded and the former state is proved.
  - A journal in C(/var/lib/mailfleet-starttls) lets the next run undo what a killed run left half done.
"""
