# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The delivery modes on Proxmox Mail Gateway, set through its API.

The product's Postfix routes relay domains to the entry of the transport list or to the default relay. It looks up the TLS
policy by that next hop, with its port. If TLS is switched off as a whole, Postfix does not read the table. Sources: pmg-api
(API2/DestinationTLSPolicy, API2/Transport, API2/AccessControl, API2/Postfix, templates/main.cf.in), Proxmox's API viewer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Optional
from urllib.parse import quote, urlencode

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
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, is_address
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import QUEUE_PAGE_MESSAGES

_ADVICE = {
    401: "see whether api_user and api_password are right and the user is enabled",
    403: "the user needs the role Administrator to change, at least Auditor to read",
}
_QUEUES = ("incoming", "active", "deferred", "hold")
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class ProxmoxGateway(NextHopGateway):
    """Adapter for Proxmox Mail Gateway. In a cluster, use any node that may write."""

    title = "Proxmox Mail Gateway"
    limits: Mapping[str, str] = {
        "match_sender": BY_NEXT_HOP,
        "match_sender_strict": BY_NEXT_HOP,
        "enforced": "its inbound entries also cover subdomains, so it cannot enforce one exact domain, and its outbound "
        "ones belong to next hops; manage them in its own interface (Configuration, Mail Proxy, TLS)",
        "outbound": "one switch serves both of its sides; set it in its own interface (Configuration, Mail Proxy, TLS)",
    }
    writes_attributes = False

    def __init__(self, http: Http, settings: Settings, api_url: str, api_user: str, api_password: str) -> None:
        """Prepare only; no request is made. settings: not used here, because the engine makes the handshakes."""
        super().__init__()
        self._api = Api(http, self.title, api_url, "/api2/json", _ADVICE)
        self._api.hide(api_password)
        self._user = api_user
        self._password = api_password
        self._logged_in = False

    def require_running(self) -> None:
        """Log in to the API. Raises EngineError if the user cannot log in."""
        if self._logged_in:
            return
        self._api.check()
        if not self._user or not self._password:
            raise EngineError(
                f"{self.title}: api_user and api_password are needed to log in; set starttls_api_user and "
                "starttls_api_password, or MAILFLEET_API_USER and MAILFLEET_API_PASSWORD in the environment of the controller"
            )
        if "@" not in self._user:
            raise EngineError(f"{self.title}: api_user needs its realm, like root@pam; {self._user!r} has none")
        form = urlencode({"username": self._user, "password": self._password}, errors="surrogateescape").encode()
        data = self._data("POST", "access/ticket", form, _FORM)
        ticket, token = (
            data.get(name) if isinstance(data, dict) else None for name in ("ticket", "CSRFPreventionToken")
        )
        if isinstance(ticket, str) and isinstance(token, str):
            self._api.hide(ticket, token)
        if isinstance(data, dict) and data.get("NeedTFA"):
            raise EngineError(
                f"{self.title}: the user {self._user} needs a second factor, which this collection cannot give; create a user "
                "without one, with the role Administrator"
            )
        if not (isinstance(ticket, str) and ticket and isinstance(token, str) and re.fullmatch(r"[!-~]+", token)):
            raise self._api.error(
                "POST", "access/ticket", "gave no ticket; see whether api_url is that of the API itself"
            )
        self._api.carry(Cookie=f"PMGAuthCookie={quote(ticket, safe='')}", CSRFPreventionToken=token)
        self._logged_in = True

    def holdings(self) -> Holdings:
        """Return the relay domains, their next hops and the TLS policies that the gateway holds."""
        mail = self._get("config/mail")
        if not isinstance(mail, dict):
            raise self._api.error("GET", "config/mail", "gave no settings; see whether its version is supported")
        domains = rows(self._api, "config/domains", self._get("config/domains"), "domain")
        transports = rows(self._api, "config/transport", self._get("config/transport"), "domain", "host")
        smarthost = mail.get("smarthost")
        return Holdings(
            tuple(row["domain"].lower() for row in domains),
            {row["domain"].lower(): _transport(row) for row in transports},
            self.policies(),
            _relay(mail) if mail.get("relay") else None,
            {"the smarthost, which takes all outgoing mail": Route((f"{smarthost}:{mail.get('smarthostport') or 25}",))}
            if smarthost
            else {},
            ""
            if is_set(mail.get("tls"))
            else f"TLS is switched off on {self.title} as a whole. Install its certificate, then switch TLS on there "
            "(Configuration, Mail Proxy, TLS)",
        )

    def policies(self) -> Mapping[str, TlsPolicy]:
        """Return the TLS policies that the gateway holds, by next hop in lower case."""
        held = {}
        for row in rows(self._api, "config/tlspolicy", self._get("config/tlspolicy"), "destination", "policy"):
            level, _, attributes = row["policy"].partition(" ")
            if level not in MODE_OF:
                what = f"gave the TLS policy {row['policy']!r} for {row['destination']}, which this collection does not know"
                raise self._api.error("GET", "config/tlspolicy", f"{what}; see its own interface")
            held[row["destination"].lower()] = TlsPolicy(level, attributes.strip(), entry=row["destination"])
        return held

    def queued(self, domains: Collection[str]) -> Sequence[Waiting]:
        """Return the messages for recipients in these domains, in the queues of every node of the cluster."""
        nodes = rows(self._api, "nodes", self._get("nodes"), "node")
        found = [one for node in nodes for name in _QUEUES for one in self._queue(node["node"], name)]
        return of_domains(found, domains)

    def _queue(self, node: str, name: str) -> Iterator[Waiting]:
        path = f"nodes/{quote(node, safe='')}/postfix/queue/{name}"
        start = 0
        while True:
            page = f"{path}?{urlencode({'start': start, 'limit': QUEUE_PAGE_MESSAGES})}"
            listed = rows(self._api, path, self._get(page), "queue_id", "receiver")
            for one in listed:
                moment = one.get("arrival_time")
                arrived = float(moment) if isinstance(moment, (int, float)) else None
                yield Waiting(one["queue_id"], one["receiver"], str(one.get("reason") or ""), node, arrived)
            if len(listed) < QUEUE_PAGE_MESSAGES:
                return
            start += len(listed)

    def write(self, next_hop: str, held: Optional[TlsPolicy], wanted: Optional[TlsPolicy]) -> None:
        """Create, change or delete one TLS policy."""
        entry = f"config/tlspolicy/{quote(held.entry, safe='')}" if held else "config/tlspolicy"
        if wanted is None:
            self._data("DELETE", entry)
        elif held:
            self._data("PUT", entry, urlencode({"policy": str(wanted)}).encode(), _FORM)
        else:
            self._data("POST", entry, urlencode({"destination": next_hop, "policy": str(wanted)}).encode(), _FORM)

    def _get(self, path: str) -> Any:
        self.require_running()
        return self._data("GET", path)

    def _data(
        self, method: str, path: str, body: Optional[bytes] = None, headers: Optional[Mapping[str, str]] = None
    ) -> Any:
        answer = self._api.request(method, path, body, headers)
        if not isinstance(answer, dict) or "data" not in answer:
            raise self._api.error(
                method, path, "gave an answer without data; see whether api_url is that of the API itself"
            )
        return answer["data"]


def _relay(mail: Mapping[str, Any]) -> Route:
    host = f"[{mail['relay']}]" if is_set(mail.get("relaynomx")) else str(mail["relay"])
    return _route(host, mail.get("relayport"), mail.get("relayprotocol"))


def _transport(row: Mapping[str, Any]) -> Route:
    host = row["host"]
    address = is_address(re.sub("^ipv6:", "", host, flags=re.IGNORECASE))
    return _route(
        host if is_set(row.get("use_mx", 1)) and not address else f"[{host}]", row.get("port"), row.get("protocol")
    )


def _route(host: str, port: Any, protocol: Any) -> Route:
    fixed = (
        "its mail is delivered by LMTP, for which there is no handshake test here; set its TLS policy on the gateway"
    )
    if protocol == "lmtp":
        return Route((f"{host.strip('[]')}:{port or 25}",), fixed)
    return Route((f"{host}:{port or 25}",))
