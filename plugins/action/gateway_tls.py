# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs gateway_tls on the host. The controller checks the certificate to install."""

from __future__ import annotations

from ansible_collections.mailfleet.starttls.plugins.modules.gateway_tls import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.gateway_access import GatewayAccess
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.host_actions import ChangeAction


class ActionModule(GatewayAccess, ChangeAction):
    """The whole gateway in one call."""

    MODULE = "mailfleet.starttls.gateway_tls"
    SPEC = ARGUMENT_SPEC
