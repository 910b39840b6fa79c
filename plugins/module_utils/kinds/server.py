# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mail servers, one entry for each product. A function loads its product when it is called.

Ansible's packer follows the imports in these functions and ships the products to the host.
"""

# ruff: noqa: PLC0415  (a product is loaded when it is used)

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import layout_of

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.contract import Server
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
    from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings

ServerMaker = Callable[["Runner", "Desired", "Settings"], "Server"]


def _postfix(run: Runner, desired: Desired, _settings: Settings) -> Server:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.server import Postfix

    return Postfix(run, desired.own_port.port, layout_of("postfix"))


def _exim(run: Runner, desired: Desired, settings: Settings) -> Server:
    layout = layout_of("exim")
    if layout.plain:
        from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain import PlainExim

        return PlainExim(run, layout, desired.own_port, desired.listens)
    from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.server import Exim
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import prove_at

    return Exim(run, lambda planned, target: prove_at(planned, target, settings), listens=desired.listens)


SERVERS: dict[str, ServerMaker] = {"postfix": _postfix, "exim": _exim}
"""Kind -> the function that makes the adapter: (runner, wanted state, settings of handshakes)."""
