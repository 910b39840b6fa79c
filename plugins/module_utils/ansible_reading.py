# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The link between the options of a module and the read of a mail server. Apart, because a change needs nothing of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.due import (
    ISSUERS,
    issue_of,
    leaf_of,
    look,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.newer import newer_ones
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.other_hands import other_hands
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.contract import TellsByHand
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
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired


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
    options, issued = _announced(options)
    desired = desired_of(options, found["kind"])
    newer = newer_ones(desired.bundles)
    stays = [one["path"] for one in newer if not one["message"]]  # what a change does if the controller lets it stay
    if desired.bundle and desired.bundle.path in stays:
        desired = replace(desired, bundle=None)
    desired = replace(desired, others=tuple(one for one in desired.others if one.path not in stays))
    settings = Settings(ca_pem=options["ca_content"] or None, timeout=float(options["timeout"]))
    keep = options["keep"] if options["state"] == "absent" else None
    server = SERVERS[found["kind"]](run, desired, settings)
    ports = options["listener_ports"] if options.get("test_listeners") else None
    find = bool(options.get("find_send_only"))
    reading = Reading(server, desired, settings, keep=keep, ports=ports, find_send_only=find)
    result = {**found, **reading.read(layout.daemons, targets, layout.user), **({"newer": newer} if newer else {})}
    if issued:
        result["issued"] = issued
    if result["send_only"]:  # the read may have found that out
        desired = replace(desired, inbound=None, listens=False, bundle=None, others=(), on_host=False)
    if options["state"] == "absent" or desired.inbound or desired.outbound:
        ours = {one.path for one in server.generated()}  # the product's own tool says at their head that it writes them
        files = [one for one in server.files() if one not in ours]
        result["notes"] = [*result["notes"], *other_hands(files, layout, STORE, server.name)]
    more = _of_peers(options, found["kind"], run, settings, server)
    if options.get("settings_only"):
        result["obstacles"] = [*result["obstacles"], *_left_to_others(result, more, server, desired)]
    for name in ("obstacles", "notes"):
        result[name] = [*result[name], *more.pop(name, ())]
    result = {**result, **more, "digests": {**result["digests"], **more.get("digests", {})}}
    return {**result, "warnings": list(settings.told)} if settings.told else result


def _announced(options: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[dict[str, Any]]]:
    """Return the options with what is to be issued for keys of this host, and what is there of each; nothing if nothing is issued."""
    bundle = options["bundle"]
    if not (bundle and bundle.get("issue")):
        return options, []
    issue = issue_of(bundle["issue"], options["certificate"])
    parts = look(issue)
    given = [bundle, *bundle["more"]]
    nothing: dict[str, Any] = dict.fromkeys(("sha256", "ends", "keep", "private_key", "issued_by"), "") | {
        "fingerprints": []
    }
    made = []
    for place, part in enumerate(parts):
        one = {**nothing, **{name: given[place][name] for name in nothing}} if place < len(given) else dict(nothing)
        there = leaf_of(part["pem"])
        stays = bool(there) and issue.source == "csr" and not (issue.orders or issue.force)
        if one["fingerprints"] and not (issue.orders and part["due"] and there in one["fingerprints"]):
            one["private_key"] = issue.pending(part["path"])
        elif part["due"] and not stays:
            one["fingerprints"] = []
            one["issued_by"] = ISSUERS[issue.source]
        else:
            one["keep"] = there
        made.append(one)
    return {**options, "bundle": {**bundle, **made[0], "more": made[1:]}}, parts


def _left_to_others(
    result: Mapping[str, Any], of_peers: Mapping[str, Any], server: Server, desired: Desired
) -> list[dict[str, str]]:
    """Return the obstacle of a host that is not to be changed, with what somebody else has to write; none if nothing is missing."""
    changes = [*(result.get("changes") or ()), *(of_peers.get("peer_changes") or ())]
    if not changes and not result.get("reload"):
        return []
    return [{"code": "settings_only", "message": _by_hand(changes, server, desired)}]


def _by_hand(changes: Sequence[Mapping[str, Any]], server: Server, desired: Desired) -> str:
    placed = ""
    if isinstance(server, TellsByHand) and (desired.offers or desired.outbound in ("opportunistic", "required")):
        with contextlib.suppress(EngineError, OSError):
            placed = server.by_hand(desired)
    wanted = []
    for change in changes:
        path, lines = change["path"], str(change.get("lines") or "").splitlines()
        if path == desired.certificate:
            wanted.append(f"install the certificate at {path}")
            continue
        new = [one[1:].strip() for one in lines if one.startswith("+") and not one.startswith("+++")]
        old = [one[1:].strip() for one in lines if one.startswith("-") and not one.startswith("---")]
        settings = "; ".join(one for one in new if one and not one.startswith("#"))
        wanted += [f"write into {path}: {placed or settings}"] if placed or settings else []
        gone = "; ".join(one for one in old if one and not one.startswith("#"))
        wanted += [f"take out of {path}: {gone}"] if gone else []
    return f"nothing is changed here; {'; then '.join(wanted) or 'reload the mail server'}"


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
