"""What hosts say when they are read, as in a real fleet, and a fleet of them for the plan."""

from __future__ import annotations

import copy
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import MODES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Estate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.fleet import PlanRequest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.making import make_plan
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import Plan

DIFF = "--- /etc/postfix/main.cf\n+++ /etc/postfix/main.cf\n-smtpd_tls_security_level = none\n+smtpd_tls_security_level = may\n"


def probe(host: str, port: int = 25, code: str = "", **changes: Any) -> dict[str, Any]:
    """A handshake test that completed, or ended with this code after EHLO."""
    return {
        "host": host, "port": port, "protocol": "smtp", "mode": "full", "name": host, "completed": not code, "code": code,
        "stage": "ehlo" if code else "ehlo_tls", "message": f"it ended with {code}" if code else "", "greeting": f"220 {host} ESMTP",
        "capabilities": ["PIPELINING", "SIZE 10240000", "STARTTLS"], "starttls_advertised": not code, "tls_version": "TLSv1.3",
        "requires_tls": None, "timings": {} if code else {"connect": 0.001, "tls": 0.012}, "findings": [], **changes,
    }  # fmt: skip


def plain(host: str, port: int = 25) -> dict[str, Any]:
    """A handshake test of a server without STARTTLS."""
    return probe(host, port, "starttls_not_offered", message="the server does not offer STARTTLS")


def server(name: str = "m1", *, drift: bool = False, relay: str = "gw1.test", **changes: Any) -> dict[str, Any]:
    """What a mail server says: as it should be, or without TLS and with the change that brings it."""
    off, on = {"inbound": "disabled", "outbound": "disabled"}, {"inbound": "offered", "outbound": "opportunistic"}
    listener = {
        "service": "smtp/inet", "host": "", "port": 25, "tls": "offered", "certificates": ["/etc/mailfleet/starttls.pem"],
        "overrides": {},
    }  # fmt: skip
    relayhost = {
        "setting": "relayhost", "transport": "smtp", "next_hop": relay, "port": 25, "level": "may", "implicit_tls": False,
        "loopback": False, "overrides": {},
    }  # fmt: skip
    return {
        "changed": False, "failed": False, "kind": "postfix", "title": "Postfix", "version": "3.7.11",
        "layout": {"platform": "Debian", "config_dir": "/etc/postfix"}, "health": {"state": "running", "message": ""},
        "listeners": [listener, {**listener, "service": "submission/inet", "port": 587, "tls": "required"}],
        "transports": [relayhost, {**relayhost, "setting": "mailbox_transport", "next_hop": "unix:private/lmtp", "loopback": True}],
        "sockets": [{"host": "", "port": port, "pid": 100 + port, "program": "master"} for port in (25, 587)],
        "certificates": [
            {"path": "/etc/mailfleet/starttls.pem", "readers": ["root", "postfix"], "pem": f"-- {name} --" * 100, "message": ""}
        ],
        "disk": [{"path": "/etc/postfix", "free_bytes": 10**9, "free_inodes": 10**6}],
        "journal": None, "left": ["/var/lib/mailfleet-starttls"], "before": off if drift else on, "after": on,
        "changes": [{"path": "/etc/postfix/main.cf", "lines": DIFF}] if drift else [], "reload": drift,
        "digests": {f"/etc/postfix/{one}": f"{len(one):02x}" * 32 for one in ("main.cf", "master.cf", "transport")},
        "obstacles": [], "notes": [], "next_hops": None, "probe": {"results": [probe(f"{name}.test")]}, **changes,
    }  # fmt: skip


def gateway(
    name: str = "gw1", *, drift: bool = False, probes: Any = None, view: Any = None, **changes: Any
) -> dict[str, Any]:
    """What a gateway says. probes: its tests of the mail servers. view: changes of its own part."""
    own = {
        "title": "Postfix gateway", "email_configs": [], "delivery_modes": list(MODES), "limits": {},
        "enforced_domains": [], "outbound": None, "accepted_domains": {}, "changes": [], "after": {}, "verifying_modes": [],
        "softens_refusals": False, "capabilities": ["accept", "enforced", "outbound"], **(view or {}),
    }  # fmt: skip
    return {
        **server(name, drift=drift), "transports": [], "gateway": own,
        "probe": {"results": [probe(f"{name}.test"), *(probes or [])]}, **changes,
    }  # fmt: skip


def config(name: str = "main", *servers: str, mode: Any = "match_sender", domain: str = "") -> dict[str, Any]:
    """An email config of an inventory."""
    made = {"name": name, "domains": [domain or f"{name}.example"], "servers": list(servers or ("m1",))}
    return {**made, "delivery_mode": mode} if mode else made


def peer(name: str, *hosts: str, **changes: Any) -> dict[str, Any]:
    """An entry of starttls_peers."""
    return {"name": name, "hosts": list(hosts), "domains": [f"{name}.example"], **changes}


def proof(name: str, host: str, fault: str = "", **changes: Any) -> dict[str, Any]:
    """A test of a peer, as mail_server_info returns it: it accepted a recipient, or offered no STARTTLS, or ended at a stage."""
    where = {"host": host, "port": 25, "stage": "starttls" if fault else "done", "fault": fault}
    said = {
        "peer": name,
        "kind": "smtp",
        "problem": "",
        "warning": "",
        "unfit": "",
        "refused": False,
        "waived": False,
        "findings": [],
    }
    if fault:
        said |= {"problem": f"peer {name}, {host}:25 does not accept it: {fault}", "refused": True}
    return {**said, "proof": {**where, **changes.pop("proof", {})}, **changes}


class States(dict):  # type: ignore[type-arg]
    """Host -> what it said. The rest is the inventory of these hosts."""

    def __init__(self, *configs: dict[str, Any], **said: Any) -> None:
        super().__init__(said)
        self.configs, self.outside, self.facts = list(configs), (), {}

    def with_outside(self, *hosts: str) -> States:
        """The same with hosts of the inventory that are not in the run."""
        self.outside = hosts
        return self

    def with_facts(self, **facts: dict[str, Any]) -> States:
        """The same with variables of these hosts."""
        self.facts = facts
        return self

    def plan(self, action: str = "enable", **request: Any) -> Plan:
        """The plan of a run over these hosts."""
        every = [*self, *self.outside]
        groups = {
            "mail_gateways": [host for host in every if host.startswith("gw")],
            "mail_servers": [host for host in every if not host.startswith("gw")],
        }
        hostvars = {
            host: {"starttls_hostname": f"{host}.test", "groups": groups, **self.facts.get(host, {})} for host in every
        }
        wanted = Estate.parse(self.configs, hostvars, list(self))
        targets = {host: f"{host}.test:25" for host in every}
        return make_plan(wanted, copy.deepcopy(dict(self)), PlanRequest(action, groups, targets, **request))
