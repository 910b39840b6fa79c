# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs enforced_tls_domain on the host. Nothing in its result is a template."""

from __future__ import annotations

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import ChangeModuleAction
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.gateway_access import GatewayAccess


class ActionModule(GatewayAccess, ChangeModuleAction):
    """The controller adds the access to the API of the gateway."""
