# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The peers of the mail servers, one entry for each product. A function loads its product when it is called."""

# ruff: noqa: PLC0415  (a product is loaded when it is used)

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import layout_of

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_contract import PeerServer
    from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings
    from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target

PeerMaker = Callable[["Runner", "Target", "Settings", bool], "PeerServer"]


def _postfix(run: Runner, own_port: Target, _settings: Settings, _exim_split: bool = False) -> PeerServer:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.peer import PostfixPeers

    return PostfixPeers(run, own_port.port, layout_of("postfix"))


def _exim(run: Runner, own_port: Target, settings: Settings, exim_split: bool = False) -> PeerServer:
    layout = layout_of("exim")
    if layout.plain:
        from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain import PlainExim
        from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_peer import PlainPeers

        return PlainPeers(PlainExim(run, layout, own_port))
    from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.peer import EximPeers
    from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.server import Exim
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import prove_at

    return EximPeers(run, Exim(run, lambda planned, target: prove_at(planned, target, settings)), exim_split)


PEERS: dict[str, PeerMaker] = {"postfix": _postfix, "exim": _exim}
"""Kind -> the function that makes the adapter: (runner, the own port of the mail server, settings of handshakes, whether an unsplit
configuration of Exim may be moved)."""
