# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The link between AnsibleModule and the engine of the mail servers: the options of the modules, and the change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import BundleFile, drop_pending
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.newer import keeps, newer_ones
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import (
    BUNDLE_SPEC,
    HOST_PAIR_SPEC,
    NEXT,
    SOURCE_SPEC,
    SOURCES,
    numbered,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import CERTIFICATE
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import set_starttls, undo_killed_run
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import (
    FLOORS,
    INBOUND,
    NO_FLOOR,
    OUTBOUND,
    RENEWED,
    SEND_ONLY,
    Desired,
    OfPorts,
    Outcome,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.uninstall import put_back
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Settings,
    Target,
    plain_results,
    with_trust,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import runner
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.peer import PEERS
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import (
    AUTO,
    permissions,
    resolve,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.server import SERVERS

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.contract import Server

SERVER_SPEC: dict[str, dict[str, Any]] = {
    "kind": {"type": "str", "default": AUTO},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "keep": {"type": "list", "elements": "path", "default": []},
    "inbound": {"type": "str", "choices": [*INBOUND, SEND_ONLY, RENEWED]},
    "outbound": {"type": "str", "choices": list(OUTBOUND)},
    "min_tls": {"type": "str", "choices": [*FLOORS, NO_FLOOR]},
    "certificate": {"type": "path", "default": CERTIFICATE},
    "certificate_source": {"type": "str", "choices": list(SOURCES), "default": "files"},
    "private_key": {"type": "path"},
    "more_on_host": {"type": "list", "elements": "dict", "options": HOST_PAIR_SPEC, "default": []},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 25},
    "timeout": {"type": "int", "default": 20},
    "require_without_evidence": {"type": "bool", "default": False},
    "relax": {"type": "bool", "default": True},
    "only_relax": {"type": "bool", "default": False},
}
"""The wanted state of a mail server. The read and the change take the same."""

INSTALL_SPEC: dict[str, dict[str, Any]] = {"install": {"type": "dict", "options": SOURCE_SPEC}}
"""For users: the certificate to install. The action plugin turns it into HOST_SPEC."""

HANDSHAKE_SPEC: dict[str, dict[str, Any]] = {
    "handshake": {
        "type": "dict",
        "apply_defaults": True,  # Ansible would write the defaults of the options into a default {}
        "options": {
            "name": {"type": "str"},
            "ca_file": {"type": "path"},
            "ca_content": {"type": "str"},
            "require_trusted": {"type": "bool", "default": True},
            "min_tls_version": {"type": "str", "choices": ["TLSv1.2", "TLSv1.3"], "default": "TLSv1.2"},
            "min_days_left": {"type": "str"},
            "warn_days_left": {"type": "str"},
            "fail_on": {"type": "str", "choices": ["error", "warning", "notice"], "default": "error"},
        },
    }
}
"""For users: what the handshake test of a read expects. The controller compares."""

HOST_SPEC: dict[str, dict[str, Any]] = {
    "bundle": {"type": "dict", "options": BUNDLE_SPEC},
    "bundle_content": {"type": "str", "no_log": True},
}
"""For the host: the certificate to install. A read gets no content.

The content, which holds the private key, is an option of its own. Ansible logs the options on the host, and does not find a
secret of several lines again that is inside a dictionary.
"""


def desired_of(options: Mapping[str, Any], kind: str) -> Desired:
    """Return the wanted state from a module's options. Raises EngineError if two mail servers are detected."""
    on_host = options["certificate_source"] == "host"
    bundles = bundles_of(options, kind) if options["bundle"] else []
    kept = [one.path for one in bundles if keeps(one)]  # the file that is there is the one to serve
    wanted = [None if one.path in kept else one for one in bundles]
    listens, renews = options["inbound"] != SEND_ONLY, options["inbound"] == RENEWED
    more = options["bundle"].get("more") or () if bundles else ()
    others = [OfPorts(tuple(one.get("ports") or ()), bundle.path) for one, bundle in zip(more, bundles[1:])]
    if on_host:
        others = [
            OfPorts(tuple(one.get("ports") or ()), one["certificate_path"], one.get("private_key_path") or "")
            for one in options["more_on_host"]
        ]
    return Desired(
        "offered" if renews else options["inbound"] if listens else None,
        options["outbound"],
        options["certificate"],
        Target(options["address"], options["port"]),
        options["require_without_evidence"],
        options["relax"] and not renews,
        options["only_relax"],
        wanted[0] if wanted else None,
        private_key=(options["private_key"] or "") if on_host else "",
        on_host=on_host and listens,
        listens=listens,
        more=tuple(one.certificate for one in others if not one.ports),
        more_keys=tuple(one.private_key for one in others if not one.ports),
        of_ports=tuple(one for one in others if one.ports),
        others=tuple(one for one in wanted[1:] if one),
        only_renew=renews,
        min_tls="" if renews or options["only_relax"] else options.get("min_tls") or "",
    )


def bundles_of(options: Mapping[str, Any], kind: str) -> list[BundleFile]:
    """Return the certificate files that the controller has checked, the first one at the path of the certificate."""
    bundle = options["bundle"]
    group, mode = permissions({**bundle, "state": "present", "kind": kind})
    texts = (options["bundle_content"] or "").split(NEXT)
    return [
        BundleFile(
            numbered(options["certificate"], place),
            content=texts[place] or None if place < len(texts) else None,
            owner=bundle["owner"],
            group=group,
            mode=mode,
            sha256=one["sha256"],
            fingerprints=tuple(one["fingerprints"]),
            ends=one["ends"],
            replace=bundle["replace"],
            keep=one["keep"],
            replaces=one.get("replaces") or "",
            private_key=one.get("private_key") or "",
            issued_by=one.get("issued_by") or "",
        )
        for place, one in enumerate([bundle, *(bundle.get("more") or ())])
    ]


def change_mail_server(module: AnsibleModule) -> dict[str, Any]:
    """Bring the mail server of this host to the wanted state and return the result. Raises EngineError, TransactionError."""
    options = module.params
    kind = resolve(options["kind"], "server", "kind")
    desired = desired_of(options, kind)
    settings = Settings(ca_pem=options["ca_content"] or None, timeout=float(options["timeout"]))
    server = SERVERS[kind](runner(module), desired, settings)
    if options.get("settings_only"):
        _refuse_recovery(server)
    if options["only_recover"]:
        recovered, warnings = (
            (False, [])
            if module.check_mode
            else undo_killed_run(server, desired.own_port, settings, listens=desired.listens)
        )
        return {"changed": recovered, "recovered": recovered, "kind": kind, "warnings": [*warnings, *settings.told]}
    if newer := newer_ones(desired.bundles):
        return {"changed": False, "newer": newer}

    def made(check_mode: bool) -> Outcome:
        digests = options["digests"]
        if options["state"] != "absent":
            return set_starttls(server, desired, settings, check_mode, digests=digests)
        return put_back(
            server,
            desired,
            settings,
            check_mode,
            keep=options["keep"],
            digests=digests,
            peers=PEERS[kind](runner(module), desired.own_port, settings, False) if kind in PEERS else None,
            queue_seconds=float(options["queue_timeout"]),
        )

    if options.get("settings_only") and made(check_mode=True).changed:
        raise EngineError(
            "this host is not to be changed (starttls_settings_only), and the wanted state needs a change; put the settings that "
            "plan_tls shows into the template of the tool that writes its files, or take starttls_settings_only away"
        )
    outcome = made(module.check_mode)
    if not module.check_mode:
        drop_pending(desired.bundles if desired.listens else ())
    certificate = {"previous_certificate": outcome.look.previous} if outcome.look else {}
    return {
        **outcome.to_dict(),
        **certificate,
        "kind": kind,
        "send_only": not desired.listens,
        "probe": _tests(outcome, desired, settings),
        "diff": outcome.diff,
        "warnings": [*outcome.warnings, *settings.told],
    }


def _refuse_recovery(server: Server) -> None:
    """Raise EngineError if a killed run left something, which the next change would undo."""
    if left := server.transaction(STORE).journal_facts():
        raise EngineError(
            f"this host is not to be changed (starttls_settings_only), and a killed run left its change here ({left['path']}); run once "
            "without starttls_settings_only, which undoes that"
        )


def _tests(outcome: Outcome, desired: Desired, settings: Settings) -> dict[str, Any]:
    """Return the test of the own port after a change; of a send-only host those of its next hops, on whose certificates nothing depends."""
    if desired.listens:
        return plain_results([with_trust(outcome.handshake, settings)])
    return {**plain_results(list(outcome.relays)), "own": False}
