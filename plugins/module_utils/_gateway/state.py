# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gateway holds, as one value, and as the JSON text that an adapter keeps on the gateway."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.enforced import EnforcedDomain
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import LEVELS, EmailConfig
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.outbound import OutboundTls
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError


@dataclass(frozen=True)
class GatewayState:
    """email_configs by name; enforced in order of direction and domain; outbound None while nobody has set it.

    ca_file: path on the gateway of the roots for certificate checks; empty for those the gateway uses anyway.
    """

    email_configs: Mapping[str, EmailConfig] = field(default_factory=dict)
    enforced: tuple[EnforcedDomain, ...] = ()
    outbound: Optional[OutboundTls] = None
    ca_file: str = ""

    @property
    def levels(self) -> tuple[str, str]:
        """What is done towards the internet with mail that arrived in plaintext, over TLS; empty if nobody said."""
        return LEVELS[self.outbound.send] if self.outbound and self.outbound.send else ("", "")

    @property
    def senders_enforced(self) -> bool:
        """Whether there is an inbound enforced domain."""
        return any(one.direction == "inbound" for one in self.enforced)

    @cached_property
    def recipients_enforced(self) -> dict[str, EnforcedDomain]:
        """The outbound enforced domains by their name."""
        return {one.domain: one for one in self.enforced if one.direction == "outbound"}

    @property
    def depends_on_arrival(self) -> bool:
        """Whether it matters for any mode how a message reached the gateway."""
        outbound = self.outbound is not None and self.outbound.depends_on_arrival
        return outbound or any(one.depends_on_arrival for one in self.email_configs.values())

    def owner_of(self, domain: str) -> Optional[EmailConfig]:
        """The email config that a recipient domain belongs to."""
        return self._owners.get(domain)

    @cached_property
    def _owners(self) -> dict[str, EmailConfig]:
        return {domain: one for one in self.email_configs.values() for domain in one.domains}


def dump(state: GatewayState) -> str:
    """The state as JSON text, in a fixed order; load reads it."""
    data = {
        "email_configs": [state.email_configs[name].to_dict() for name in sorted(state.email_configs)],
        "enforced_domains": [one.to_dict() for one in sorted(state.enforced, key=lambda one: one.key)],
        "outbound": state.outbound.to_dict() if state.outbound else None,
        "ca_file": state.ca_file,
    }
    return json.dumps(data, indent=2) + "\n"


def load(text: str, where: str) -> GatewayState:
    """The state from JSON text; EngineError names the place if it cannot be read."""
    if not text:
        return GatewayState()
    try:
        data = json.loads(text)
        configs = [EmailConfig.from_dict(entry) for entry in data["email_configs"]]
        enforced = tuple(EnforcedDomain.from_dict(entry) for entry in data["enforced_domains"])
        outbound = OutboundTls.from_dict(data["outbound"]) if data["outbound"] else None
        ca_file = str(data["ca_file"])
    except (ValueError, AttributeError, LookupError, TypeError, EngineError) as error:
        raise EngineError(f"{where} cannot be read ({error}); it is written by this collection only") from error
    return GatewayState({one.name: one for one in configs}, enforced, outbound, ca_file)


def load_file(path: str) -> GatewayState:
    """The state that an adapter keeps in a file; an empty one if there is no file."""
    return load((FileImage.read(path).content or b"").decode("utf-8", "replace"), path)
