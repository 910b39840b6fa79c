# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs gateway_info on the host. The controller checks the certificate to install, and judges the handshake tests."""

from __future__ import annotations

from ansible_collections.mailfleet.starttls.plugins.modules.gateway_info import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.gateway_access import GatewayAccess
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.host_actions import ReadAction


class ActionModule(GatewayAccess, ReadAction):
    """No private key leaves the controller for a read."""

    MODULE = "mailfleet.starttls.gateway_info"
    SPEC = ARGUMENT_SPEC
