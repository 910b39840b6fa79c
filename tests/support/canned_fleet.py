"""A gateway and two mail servers that answer what they are told to, for whole runs of the playbooks."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._server.deferred import WAIT_CAUSES

from tests.support.canned_host import canned_host
from tests.support.plan_states import config, gateway, server

CHANGED = {
    "changed": True, "before": {"inbound": "disabled"}, "after": {"inbound": "offered"}, "kind": "postfix", "digests": {},
    "diff": [{"prepared": "+smtpd_tls_security_level = may\n"}],
}  # fmt: skip


def canned_fleet(
    directory: Path, answers: Mapping[str, Mapping[str, Any]] | None = None, **facts: Any
) -> dict[str, Any]:
    """The inventory of hosts that have no TLS yet. answers: host -> module -> what it says instead. facts: of all hosts."""
    hosts = {}
    for host in ("gw1", "m1", "m2"):
        read = gateway(host, drift=True) if host == "gw1" else server(host, drift=True)
        said = {
            "mail_server_info": read, "gateway_info": read, "mail_server_tls": CHANGED, "gateway_tls": CHANGED,
            "starttls_probe": {"changed": False, "failed": True, "msg": "no test was made"},
            "fleet_lock": {"changed": True, "held": True, "former": {}},
            "inbound_tls_mode_info": {
                "changed": False, **(read.get("gateway") or {}), "delivered_modes": {}, "in_force": {}, "differences": [],
            },
            "deferred_mail": {"changed": True, "tried": 1, "delivered": 1, "held": 0, "messages": [], "left": []},
            "deferred_mail_info": {
                "changed": False, "looked": True, "message": "", "waiting": 0, "for_tls": 0, "held": 0, "instances": [], "causes": {},
                "messages": [], "left_out": 0, "returned": [],
            },
            "message_trace": {"changed": False, "sent": [], "received": []},
            "tls_activity_info": {"changed": False, "failed": True, "msg": "no log"}, **((answers or {}).get(host) or {}),
        }  # fmt: skip
        read["probe"] = {"results": [], "certificates": {}}
        hosts[host] = {**canned_host(directory / host, said), "starttls_hostname": f"{host}.test"}
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    return {
        "all": {
            "vars": {"email_configs": [config("main", "m1", "m2", mode="opportunistic")], **facts}, "hosts": {"localhost": here},
            "children": {
                "mail_gateways": {"hosts": {"gw1": hosts["gw1"]}},
                "mail_servers": {"hosts": {name: hosts[name] for name in ("m1", "m2")}},
            },
        }
    }  # fmt: skip


def waits_for_the_gateway() -> dict[str, Any]:
    """What deferred_mail_info says of a mail server that requires TLS, behind a gateway that does not offer it."""
    message = {
        "queue_id": "1", "instance": "", "queue": "deferred", "sender": "a@a.example", "recipient": "b@b.example", "size": 1,
        "arrived": None, "reason": "TLS is required", "next_hop": "gw1.test", "next_hop_address": "192.0.2.7", "next_hop_port": 25,
        "next_try": None, "held": False, "cause": "not_offered", "said": "", "side": WAIT_CAUSES["not_offered"].side, "for_tls": True,
    }  # fmt: skip
    return {
        "changed": False, "looked": True, "message": "", "waiting": 1, "for_tls": 1, "held": 0, "instances": [], "causes": {},
        "messages": [message], "left_out": 0, "returned": [],
    }  # fmt: skip


REQUIRES = {
    **server("m1"), "probe": {"results": [], "certificates": {}}, "before": {"inbound": "disabled", "outbound": "required"}
}  # fmt: skip
WAITS = {"m1": {"deferred_mail_info": waits_for_the_gateway(), "mail_server_info": REQUIRES}}
"""Answers of a fleet in which mail waits on m1, which requires TLS before its gateway offers it."""
