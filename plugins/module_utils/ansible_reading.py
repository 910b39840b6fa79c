# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The link between the options of a module and the read of a mail server. Apart, because a change needs nothing of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.newer import newer_on_host
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_options import no_peers
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reading import Reading
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_server import desired_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.observed import describe
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.peer import PEERS
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import AUTO, detected, layout_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.server import SERVERS

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.contract import Server


def read_mail_server(options: Mapping[str, Any], run: Runner, targets: Sequence[Target] = ()) -> dict[str, Any]:
    """Return the observed state of this host's mail server. Changes nothing. Raises EngineError for an unknown kind or option.

    options: those of mail_server_info. targets: other hosts to test from here, after the own port.
    """
    found = describe(options["kind"] or AUTO)
    if not found["kind"]:
        code = "two_products" if len(detected("server")) > 1 else "no_product"
        return {**found, "obstacles": [{"code": code, "message": found["message"]}], "notes": []}
    if found["kind"] not in SERVERS:  # a gateway with an API, or one whose own files the collection does not read
        return {
            **found,
            "health": {"state": "unknown", "message": ""},
            "listeners": None,
            "transports": None,
            "obstacles": [],
            "notes": [],
        }
    layout = layout_of(found["kind"])
    desired = desired_of(options, found["kind"])
    newer = newer_on_host(desired.bundle)
    if newer and not newer["message"]:
        desired = replace(desired, bundle=None)  # what a change does if the controller lets it stay
    settings = Settings(ca_pem=options["ca_content"] or None, timeout=float(options["timeout"]))
    keep = options["keep"] if options["state"] == "absent" else None
    server = SERVERS[found["kind"]](run, desired, settings)
    reading = Reading(server, desired, settings, keep=keep)
    result = {**found, **reading.read(layout.daemons, targets, layout.user), **({"newer": newer} if newer else {})}
    more = _of_peers(options, found["kind"], run, settings, server)
    for name in ("obstacles", "notes"):
        result[name] = [*result[name], *more.pop(name, ())]
    result = {**result, **more, "digests": {**result["digests"], **more.get("digests", {})}}
    return {**result, "warnings": list(settings.told)} if settings.told else result


def _of_peers(options: Mapping[str, Any], kind: str, run: Runner, settings: Settings, server: Server) -> dict[str, Any]:
    """Return what read_peers does. Most hosts have no peers and want none: nothing that is for peers is loaded there."""
    if kind not in PEERS:
        return no_peers()
    if not options.get("peers"):
        try:
            if not server.has_peers():
                return no_peers()
        except (EngineError, OSError):  # the daemon's health says why
            return {**no_peers(), "peers": None}
    from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_peers import read_peers  # noqa: PLC0415

    return read_peers(options, kind, run, settings)
