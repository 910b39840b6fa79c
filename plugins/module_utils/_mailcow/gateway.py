# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The delivery modes on mailcow as the gateway of its relay domains, set through its API.

The product's Postfix routes a relay domain to the entry of the transport maps or to the MX of the domain. It looks up
the TLS policy map by that next hop. Without an entry, it uses DANE if the domain has it, else TLS if possible.
The API returns errors with the HTTP status 200, so every answer is checked for an error text. Sources: mailcow-dockerized
(json_api.php, functions.tls_policy_maps, functions.transports, the Postfix container's postfix.sh and main.cf).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.api import Api, Http, is_set, rows
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.by_next_hop import (
    BY_NEXT_HOP,
    MODE_OF,
    Holdings,
    NextHopGateway,
    Route,
    TlsPolicy,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import of_domains
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_KEY_ADVICE = (
    "see whether api_key is right, may write, and may be used from this address (System, Configuration, Access, API)"
)
_ADVICE = {401: _KEY_ADVICE, 403: _KEY_ADVICE}


class MailcowGateway(NextHopGateway):
    """Adapter for mailcow."""

    title = "mailcow"
    limits: Mapping[str, str] = {
        "match_sender": BY_NEXT_HOP,
        "match_sender_strict": BY_NEXT_HOP,
        "enforced": "it can require TLS for single mailboxes, not for sender domains, and then refuses permanently instead of "
        "temporarily; its TLS policy map belongs to next hops. Manage both in its own interface",
        "outbound": "it offers TLS to everybody and uses it wherever it can; single destinations are entries of the TLS policy "
        "map in its own interface",
    }

    def __init__(self, http: Http, settings: Settings, api_url: str, api_key: str) -> None:
        """Prepare only; no request is made. settings: not used here, because the engine makes the handshakes."""
        super().__init__()
        self._api = Api(http, self.title, api_url, "/api/v1", _ADVICE)
        self._api.hide(api_key)
        self._key = api_key
        self._let_in = False

    def require_running(self) -> None:
        """Raise EngineError unless the API returns its version, which needs a valid key."""
        if self._let_in:
            return
        self._api.check()
        if not re.fullmatch(r"[!-~]+", self._key):
            raise EngineError(
                f"{self.title}: api_key is needed to log in, and has to be plain ASCII; set starttls_api_key, or "
                "MAILFLEET_API_KEY in the environment of the controller, to one that may write"
            )
        self._api.carry(X_API_Key=self._key)
        data = self._request("GET", "get/status/version")
        if not isinstance(data, dict) or "version" not in data:
            raise self._api.error("GET", "get/status/version", f"gave no version; {_KEY_ADVICE}")
        self._let_in = True

    def holdings(self) -> Holdings:
        """Return the relay domains, their next hops and the TLS policies that mailcow holds."""
        domains = [
            row for row in self._rows("domain", "domain_name") if _switch(row, "backupmx") and _switch(row, "active")
        ]
        transports = [row for row in self._rows("transport", "destination", "nexthop") if _switch(row, "active")]
        relayhosts = [
            row for row in self._rows("relayhost", "hostname") if is_set(row.get("active_int", row.get("active", 1)))
        ]
        names = tuple(row["domain_name"].lower() for row in domains)
        routes = {row["destination"].lower(): _route(row["nexthop"]) for row in transports}
        # Such a transport matches a domain by the name of its MX, which is known in the DNS only.
        if any(_switch(row, "is_mx_based") for row in transports):
            by_mx = Route(
                (),
                "a transport of mailcow that matches by MX may route its mail elsewhere; give it a transport of its own",
            )
            routes = {**{name: by_mx for name in names if not _covered(name, routes)}, **routes}
        return Holdings(
            names,
            routes,
            self.policies(),
            elsewhere={
                f"the sender-dependent transport {row['hostname']}": _route(row["hostname"]) for row in relayhosts
            },
        )

    def policies(self) -> Mapping[str, TlsPolicy]:
        """Return the TLS policies that the gateway holds, by next hop in lower case."""
        held = {}
        for row in self._rows("tls-policy-map", "dest", "policy"):
            level, attributes = row["policy"].lower(), str(row.get("parameters") or "").strip()
            if level not in MODE_OF or not re.fullmatch(r"[0-9]+", str(row.get("id"))):
                what = f"gave the TLS policy {level!r} for {row['dest']}, which this collection does not know"
                raise self._api.error("GET", "get/tls-policy-map/all", f"{what}; see its own interface")
            held[row["dest"].lower()] = TlsPolicy(level, attributes, _switch(row, "active"), str(row["id"]))
        return held

    def queued(self, domains: Collection[str]) -> Sequence[Waiting]:
        """Return the messages for recipients in these domains."""
        return of_domains((one for row in self._rows("mailq", "queue_id") for one in _recipients(row)), domains)

    def write(self, next_hop: str, held: Optional[TlsPolicy], wanted: Optional[TlsPolicy]) -> None:
        """Create, change or delete one TLS policy."""
        if wanted is None:
            self._change("delete/tls-policy-map", [held.entry if held else ""])
            return
        entry = {
            "dest": next_hop,
            "policy": wanted.level,
            "parameters": wanted.attributes,
            "active": str(int(wanted.active)),
        }
        if held:
            del entry["dest"]
            self._change("edit/tls-policy-map", {"items": [held.entry], "attr": entry})
        else:
            self._change("add/tls-policy-map", entry)

    def _rows(self, what: str, *names: str) -> list[dict[str, Any]]:
        self.require_running()
        data = self._request("GET", f"get/{what}/all")
        return rows(self._api, f"get/{what}/all", [] if data == {} else data, *names)

    def _change(self, path: str, body: Any) -> None:
        answer = self._request("POST", path, json.dumps(body).encode())
        results = answer if isinstance(answer, list) else [answer]
        if not any(isinstance(one, dict) and one.get("type") == "success" for one in results):
            raise self._api.error("POST", path, "did not say that it succeeded; see whether its version is supported")

    def _request(self, method: str, path: str, body: Optional[bytes] = None) -> Any:
        headers = {"Content-Type": "application/json"} if body else {}
        answer = self._api.request(method, path, body, headers)
        for one in answer if isinstance(answer, list) else [answer]:
            if isinstance(one, dict) and one.get("type") in ("danger", "error"):
                said = self._api.said(one) or "no reason given"
                advice = _KEY_ADVICE if re.search("denied|authentication", said) else "see its log, then run again"
                raise self._api.error(method, path, f"was refused ({said}); {advice}")
        return answer


def _switch(row: Mapping[str, Any], name: str) -> bool:
    """Whether a switch is on. The field with the plain name may contain a translated word instead."""
    return is_set(row.get(f"{name}_int", row.get(name)))


def _route(next_hop: str) -> Route:
    return Route(tuple(filter(None, re.split(r"[,\s]+", next_hop))))


def _covered(domain: str, routes: Mapping[str, Route]) -> bool:
    return any(name in routes for name in (domain, "*")) or any(
        domain.endswith(name) for name in routes if name[:1] == "."
    )


def _recipients(row: Mapping[str, Any]) -> Iterator[Waiting]:
    """Yield the recipients of a message of the queue, each as C(address) or C(address (reason))."""
    moment = row.get("arrival_time")
    arrived = float(moment) if isinstance(moment, (int, float)) else None
    for one in row.get("recipients") or ():
        address, _, reason = str(one).partition(" (")
        yield Waiting(row["queue_id"], address, reason.removesuffix(")"), arrived=arrived)
