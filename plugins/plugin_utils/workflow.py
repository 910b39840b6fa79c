# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the jobs of a workflow hand on: what they found (C(starttls_result)), and what they have changed (C(starttls_changes)).

A job of AWX shows both as its artifacts, and the next job of the workflow gets them as extra variables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    ACCEPTS,
    MODES,
    EnforcedDomain,
    is_absent,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import INBOUND, OUTBOUND, SEND_ONLY
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import SEVERITIES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import one_line

CHANGES = "starttls_changes"
WITHOUT_NAME = ("custom", "unknown")
"""States that nobody can put back by name. undo_workflow leaves such a side as it is."""
MOST_ENTRIES = 50
"""Most findings, and most alerts, of a result that is handed on. The report has all of them."""
MOST_CHARACTERS = 300
"""Most characters of a text in it."""

_WORDS = {
    "inbound": (*INBOUND, SEND_ONLY, *WITHOUT_NAME),
    "outbound": tuple(dict.fromkeys((*OUTBOUND, *MODES, *WITHOUT_NAME))),
    "accept": (*ACCEPTS, ""),
}
"""Side of a host -> its possible states. The outbound side of a gateway has the words of delivery modes."""
_PARTS = ("hosts", "email_configs")
_UNCHANGED, _UNKNOWN = "unchanged", "unknown"


@dataclass(frozen=True)
class FormerHost:
    """A host before the first change of a workflow.

    inbound, outbound: in the words of mail_server_tls; those of a gateway's outbound side are delivery modes. accept: what a gateway
    took from the mail servers; empty if that was never set. peers: the peers that got a transport of their own in the workflow.
    enforced: the enforced domains that a gateway got in it, as C((domain, direction)).
    """

    inbound: str = _UNKNOWN
    outbound: str = _UNKNOWN
    accept: str = ""
    peers: tuple[str, ...] = ()
    enforced: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data, without what is empty."""
        data: dict[str, Any] = {"inbound": self.inbound, "outbound": self.outbound}
        return {
            **data,
            **({"accept": self.accept} if self.accept else {}),
            **({"peers": list(self.peers)} if self.peers else {}),
            **({"enforced_domains": _domains(self.enforced)} if self.enforced else {}),
        }

    @classmethod
    def of(
        cls,
        inbound: str,
        outbound: str,
        accept: str = "",
        peers: Iterable[str] = (),
        enforced: Iterable[tuple[str, str]] = (),
    ) -> FormerHost:
        """Return the state of a host from what it said; a word that is not known is unknown."""
        found = {"inbound": inbound, "outbound": outbound, "accept": accept}
        known = {side: word if word in _WORDS[side] else _UNKNOWN for side, word in found.items()}
        return cls(
            known["inbound"], known["outbound"], accept if accept in ACCEPTS else "", tuple(peers), tuple(enforced)
        )

    @classmethod
    def parse(cls, host: str, data: Any) -> FormerHost:
        """Read the result of to_json. Raises EngineError, which names the host."""
        if not isinstance(data, Mapping):
            raise _fault(f"host {host}", data, "a mapping with inbound and outbound")
        for name in data:
            if name not in (*_WORDS, "peers", "enforced_domains"):
                raise _fault(f"host {host}", name, "one of inbound, outbound, accept, peers, enforced_domains")
        sides = {side: str(data.get(side) or ("" if side == "accept" else _UNKNOWN)) for side in _WORDS}
        for side, word in sides.items():
            if word not in _WORDS[side]:
                raise _fault(f"host {host}: {side}", word, f"one of {', '.join(filter(None, _WORDS[side]))}")
        peers = data.get("peers") or ()
        if isinstance(peers, (str, Mapping)) or not isinstance(peers, Sequence):
            raise _fault(f"host {host}: peers", peers, "a list of names")
        enforced = _read_domains(host, data.get("enforced_domains") or ())
        return cls(**sides, peers=tuple(map(str, peers)), enforced=enforced)


def _domains(enforced: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"domain": domain, "direction": direction} for domain, direction in enforced]


def _read_domains(host: str, given: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise _fault(f"host {host}: enforced_domains", given, "a list")
    try:
        read = [EnforcedDomain.from_dict(one) for one in given]
    except (AttributeError, EngineError):
        raise _fault(f"host {host}: enforced_domains", given, "a list with domain and direction of each") from None
    return tuple((one.domain, one.direction) for one in read)


@dataclass(frozen=True)
class WorkflowChanges:
    """What the jobs of a workflow have changed so far. hosts: each that changed. email_configs: mode before; None if it was not there."""

    hosts: Mapping[str, FormerHost] = field(default_factory=dict)
    email_configs: Mapping[str, Optional[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything that could be put back."""
        return bool(self.hosts or self.email_configs)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        hosts = {name: one.to_json() for name, one in self.hosts.items()}
        return {"hosts": hosts, "email_configs": dict(self.email_configs)}

    @classmethod
    def parse(cls, given: Any) -> WorkflowChanges:
        """Read the result of to_json, also as JSON text. Nothing and an empty text are no changes. Raises EngineError by name."""
        hosts, email_configs = (_part(given, name) for name in _PARTS)
        for name, mode in email_configs.items():
            if mode is not None and mode not in MODES:
                raise _fault(f"email config {name}", mode, f"null, or one of {', '.join(MODES)}")
        return cls(
            {str(host): FormerHost.parse(str(host), one) for host, one in hosts.items()},
            {str(name): mode for name, mode in email_configs.items()},
        )

    def followed_by(self, later: WorkflowChanges) -> WorkflowChanges:
        """Return both together. The first state of a host or an email config counts, and every new peer and enforced domain does."""
        hosts = dict(later.hosts)
        for host, first in self.hosts.items():
            more = later.hosts.get(host, FormerHost())
            hosts[host] = replace(
                first,
                peers=tuple(dict.fromkeys((*first.peers, *more.peers))),
                enforced=tuple(dict.fromkeys((*first.enforced, *more.enforced))),
            )
        return WorkflowChanges(hosts, {**later.email_configs, **self.email_configs})


def _part(given: Any, name: str) -> Mapping[str, Any]:
    """Return one of the two parts of what a workflow has changed, given as a mapping or as JSON text. Raises EngineError."""
    if isinstance(given, str) and given:
        try:
            given = json.loads(given)
        except ValueError:
            raise _fault("", given, "a mapping, or the same as JSON") from None
    if given in (None, ""):
        return {}
    if not isinstance(given, Mapping) or set(given) - set(_PARTS):
        raise _fault("", given, "a mapping with the keys hosts and email_configs")
    part = given.get(name) or {}
    if not isinstance(part, Mapping):
        raise _fault(name, part, "a mapping")
    return part


def former_host(changes: Any, host: str) -> Optional[FormerHost]:
    """Return a host before the first change of a workflow, None if the workflow did not change it. Raises EngineError."""
    hosts = _part(changes, _PARTS[0])
    return FormerHost.parse(host, hosts[host]) if host in hosts else None


def _fault(where: str, given: Any, wanted: str) -> EngineError:
    place = f"{CHANGES}: {where}: " if where else f"{CHANGES}: "
    said = one_line(str(given))[:MOST_CHARACTERS]
    return EngineError(f"{place}{said!r} is not {wanted}; give it as the job that made the changes shows it")


def configs_before(
    email_configs: Sequence[Mapping[str, Any]], changes: Any, hosts: Collection[str]
) -> list[dict[str, Any]]:
    """Return the email configs that a workflow has changed, as they were before: with their mode, or to be removed.

    hosts: those of the inventory. The others of email_configs are left out, so nothing is wanted of them. Raises EngineError if there
    are no changes to put back, or if they name a host or an email config that the inventory lacks.
    """
    if changes in (None, ""):
        raise EngineError(
            f"{CHANGES} is not given, so it is not known what the workflow has changed, and nothing was changed. In AWX a workflow "
            "hands it on from the job that made the changes; elsewhere, give it with --extra-vars as the artifacts of that job show it"
        )
    given = WorkflowChanges.parse(changes)
    if missing := [host for host in given.hosts if host not in hosts]:
        raise EngineError(
            f"{CHANGES}: the host {missing[0]} is not in the inventory; add it, or take it out of {CHANGES}"
        )
    wanted = {str(one.get("name")): one for one in email_configs if isinstance(one, Mapping) and not is_absent(one)}
    found = []
    for name, mode in given.email_configs.items():
        if name not in wanted:
            raise EngineError(
                f"{CHANGES}: there is no email config {name!r} in email_configs; add it, or take it out of {CHANGES}"
            )
        if mode is None:
            found.append({"name": name, "domains": list(wanted[name].get("domains") or ()), "state": "absent"})
        else:
            found.append({**wanted[name], "delivery_mode": mode})
    return found


def state_before(changes: Any, host: str, side: str, otherwise: str = _UNCHANGED) -> str:
    """Return the state to which a side of a host goes back; C(unchanged) if it stays as it is.

    side: inbound, outbound or accept of a mail server or a gateway. It stays if the workflow did not change the host, if its former
    state cannot be put back by name, or if it insisted on TLS: undo_workflow takes TLS away, and never insists on it.
    otherwise: for a host of the workflow whose side was never set. Raises EngineError.
    """
    former = former_host(changes, host)
    if former is None:
        return _UNCHANGED
    word = str(getattr(former, side))
    if not word:
        return otherwise
    insists = {"inbound": ("required",), "outbound": ("required", "match_sender_strict"), "accept": ("tls_only",)}
    return _UNCHANGED if word in (*WITHOUT_NAME, *insists[side]) else word


def enforced_before(changes: Any, host: str) -> list[dict[str, str]]:
    """Return the option enforced_domains of gateway_tls that takes away those that a gateway got in the workflow. Raises EngineError."""
    former = former_host(changes, host)
    return [{**one, "state": "absent"} for one in _domains(former.enforced if former else ())]


def result_of(
    summary: Mapping[str, Any], findings: Iterable[Mapping[str, Any]], alerts: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return what a job hands on as C(starttls_result): a few figures, and the first findings and alerts. Small, and without secrets.

    findings: each with host, severity, code and message, the worst first. alerts: as tls_report returns them.
    """
    wanted = ("host", "severity", "code", "message")
    return {
        "summary": dict(summary),
        "findings": _first(findings, wanted),
        "alerts": _first(alerts, (*wanted, "action")),
        "report": "",
    }


def with_report(result: Mapping[str, Any], url: Any, directory: Any) -> dict[str, Any]:
    """Return a result that says where its report is: at the URL it was sent to, without a user and password, or in a directory."""
    place = re.sub(r"//[^/@]*@", "//", str(url or "")) or str(directory or "")
    return {**result, "report": _plain(place)}


def worst_first(findings: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return findings in the order of their severity."""
    return sorted(findings, key=lambda one: SEVERITIES.index(one["severity"]))


def _first(given: Iterable[Mapping[str, Any]], wanted: Sequence[str]) -> list[dict[str, str]]:
    entries = list(given)
    found = [{name: _plain(one.get(name)) for name in wanted} for one in entries[:MOST_ENTRIES]]
    more = len(entries) - MOST_ENTRIES
    if more > 0:
        found.append({**dict.fromkeys(wanted, ""), "message": f"and {more} more; the report has them"})
    return found


def _plain(text: Any) -> str:
    """Return a text in one line. It comes back as an extra variable, and Ansible runs what is a template there."""
    line = one_line(str("" if text is None else text))[:MOST_CHARACTERS]
    return re.sub(r"\{(?=[{%#])", "{ ", line)
