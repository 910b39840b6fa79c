# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An Exchange server in the form in which the plan and the report know every mail server."""

from __future__ import annotations

from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import Organisation
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import WantedExchange
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import Listener, Transport


def listeners(organisation: Organisation) -> Optional[list[Listener]]:
    """Return a listener for each binding of each enabled receive connector; None if the connectors could not be read."""
    raise NotImplementedError


def transports(organisation: Organisation) -> Optional[list[Transport]]:
    """Return a transport for each smart host of each enabled send connector; None if the connectors could not be read."""
    raise NotImplementedError


def state(organisation: Organisation, wanted: WantedExchange) -> dict[str, str]:
    """Return C(inbound) and C(outbound) of the connectors in question, with the words of WantedExchange, C(custom) or C(unknown)."""
    raise NotImplementedError


def certificates(organisation: Organisation) -> Optional[list[dict[str, Any]]]:
    """Return the facts of each certificate in the names of mail_server_info; None if they could not be read."""
    raise NotImplementedError


def digest(organisation: Organisation) -> str:
    """Return a SHA-256 of all that a plan depends on, in hexadecimal. Queues are not in it."""
    raise NotImplementedError
