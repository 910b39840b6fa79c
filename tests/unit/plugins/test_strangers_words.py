"""What a mail server or a managed host says is never run as a template, whatever a playbook does with our results.

Each text of a host holds a look-up that makes a file. Careless plays then use every filter and every result in the ways in
which Ansible templates text once more.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.filter.fleet import FilterModule
from ansible_collections.mailfleet.starttls.plugins.modules import peer_tls_info, starttls_probe
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.untrusted import RUNS_UNMARKED

from tests.support.ansible_module import run_module
from tests.support.canned_host import canned_host
from tests.support.plan_states import config, gateway, server
from tests.support.playbooks import PLAYBOOKS, run_playbook
from tests.support.smtp_server import Face, SmtpServer

# Newer cores run no text that is not from a playbook. The oldest is tested in every make test (tools/lab/cores words).
where_it_could_run = (lambda test: test) if RUNS_UNMARKED else pytest.mark.exhaustive

OURS = "mailfleet.starttls"
VERSION = "hostvars.m1.mail_server_observed.version"
MESSAGES = f"['m1'] | {OURS}.trace_messages(hostvars, 'out', {VERSION})"
FREE_TEXT = {
    "message", "msg", "greeting", "version", "title", "lines", "by", "protocol", "subject", "sans", "cipher", "starttls_reply",
    "capabilities", "next_hop", "setting", "path", "fingerprint_sha256", "digests", "left", "verify_error", "notes", "program",
    "marker", "host_name", "with", "reason", "said", "queue_id", "sender", "recipient",
}  # fmt: skip
"""The keys whose values a peer or a host chooses and no code compares with its own words."""


class Payloads:
    """Templates that make a file each when they are run; short, because messages cut long words."""

    def __init__(self, directory: Path) -> None:
        self.ran = directory / "ran"
        self.ran.mkdir()
        self.places: list[str] = []

    def __call__(self, place: str) -> str:
        """A template for this place."""
        self.places.append(place)
        return "{{lookup('pipe','>$RAN/" + str(len(self.places) - 1) + "')}}"

    def executed(self) -> list[str]:
        """The places of those that were run."""
        return sorted(self.places[int(one.name)] for one in self.ran.iterdir())


def poisoned(value: Any, payload: Payloads, every: bool, place: str, free: bool = False) -> Any:
    """The result of a host with a template in each free text; with every, in each text and in keys."""
    if isinstance(value, dict):
        return {
            (f"{key} {payload(f'{place} key')}" if every and free else key): poisoned(
                one, payload, every, f"{place} {key}", free or key in FREE_TEXT
            )
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [poisoned(one, payload, every, place, free) for one in value]
    if isinstance(value, str) and (every or free):
        return f"{value} {payload(place)}"
    return value


def said(host: str, refused: dict[str, Any], peers: dict[str, Any]) -> dict[str, Any]:
    """What the host answers to each module. refused, peers: what starttls_probe and peer_tls_info say of a server that refuses."""

    def tests(*names: str) -> dict[str, Any]:
        results = [{**refused["results"][0], "host": name, "name": name, "port": 25} for name in names]
        return {**refused, "results": results, "expectations": refused["expectations"] * len(names)}

    mine = tests(f"{host}.test")
    hop = {"by": f"{host}.test", "from": "x", "protocol": "ESMTP", "tls": False, "network": True, "clear": True}
    change = {
        "changed": True, "before": {"inbound": "disabled"}, "after": {"inbound": "disabled"}, "kind": "postfix", "digests": {"/etc/x": "1"},
        "fingerprint_sha256": "ab" * 32, "probe": mine, "diff": [], "msg": "changed",
    }  # fmt: skip
    read = {**server(host, drift=True), "probe": mine}
    if host.startswith("gw"):
        read = gateway(host, drift=True, probe=tests("gw1.test", "m1.test", "m2.test"))
    read["fingerprint_sha256"] = "cd" * 32
    waits = {
        "queue_id": "1", "instance": "", "queue": "deferred", "sender": "a@a.test", "recipient": "b@b.test", "size": 1, "arrived": None,
        "reason": "TLS is required", "next_hop": "gw1.test", "next_hop_address": "192.0.2.7", "next_hop_port": 25, "next_try": "",
        "held": False, "cause": "not_offered", "said": "greylisting", "side": "server", "for_tls": True,
    }  # fmt: skip
    arrived = {"marker": "in-m1", "arrived": True, "hops": [hop, {**hop, "tls": True}], "mailbox": "x"}
    return {
        "mail_server_info": read, "gateway_info": read, "mail_server_tls": change, "gateway_tls": change,
        "starttls_probe": mine, "tls_activity_info": {"changed": False, "failed": True, "msg": "no log"},
        "message_trace": {"changed": False, "sent": [], "received": [arrived, {**arrived, "arrived": False}]},
        "deferred_mail_info": {
            "changed": False, "looked": True, "message": "", "kind": "postfix", "messages": [waits], "returned": [], "for_tls": 1,
        },
        "peer_tls_info": peers,
        "inbound_tls_mode_info": {
            "changed": False, "email_configs": [], "delivery_modes": [], "limits": {"required": "it has no title"}, "enforced_domains": [],
            "outbound": None, "accepted_domains": {}, "delivered_modes": {"main.example": "plaintext"}, "in_force": None,
            "keeps_names": True, "message": "",
        },
    }  # fmt: skip


def peer_at(port: int) -> dict[str, Any]:
    """An entry of starttls_peers for a server on this machine."""
    return {"name": "one", "hosts": [f"127.0.0.1:{port}"], "domains": ["one.test"]}


def inventory(directory: Path, payload: Payloads, refused: dict[str, Any], peers: dict[str, Any]) -> dict[str, Any]:
    """A gateway and a mail server that answer in the right shape; one whose every text is hostile; one with a hostile SSH server."""
    hosts: dict[str, dict[str, Any]] = {}
    for host, every in (("gw1", False), ("m1", False), ("m2", True)):
        answers = {
            module: poisoned(result, payload, every, f"{host} {module}")
            for module, result in said(host, refused, peers).items()
        }
        hosts[host] = canned_host(directory / f"host-{host}", answers)
    ssh = directory / "ssh"
    ssh.write_text(f'#!/bin/sh\nprintf "%s\\n" "{payload("banner of the SSH server")}" >&2\nexit 255\n')
    ssh.chmod(0o755)
    hosts["m3"] = {"ansible_connection": "ssh", "ansible_ssh_executable": str(ssh), "ansible_ssh_retries": 0}
    for host, facts in hosts.items():
        facts |= {"starttls_hostname": f"{host}.test", "starttls_trace_address": f"{host}@example.com"}
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    return {
        "all": {
            "vars": {"email_configs": [config("main", "m1", "m2", mode="opportunistic")]},
            "hosts": {"localhost": here, "out": {**here, "starttls_trace_address": "out@example.com"}},
            "children": {
                "mail_gateways": {"hosts": {"gw1": hosts.pop("gw1")}},
                "mail_servers": {"hosts": hosts},
            },
        }
    }  # fmt: skip


PROVE = "{'inbound': 'offered', 'fingerprint': '', 'namesakes': [], 'next_hops': []}"
USES = {
    "capabilities": f"'postfix' | {OURS}.capabilities",
    "past_renewing": f"['m1'] | {OURS}.past_renewing(hostvars)",
    "renewing": f"['m1'] | {OURS}.renewing(hostvars)",
    "renewed_here": f"'m1' | {OURS}.renewed_here(hostvars)",
    "requesting": f"['m1'] | {OURS}.requesting(hostvars)",
    "waiting_hosts": f"['m1'] | {OURS}.waiting_hosts(hostvars)",
    "send_only": f"'m1' | {OURS}.send_only(hostvars, [])",
    "what_by_hand": f"hostvars.localhost.tls_plan.by_hand | {OURS}.what_by_hand",
    "reachable_at": f"['m1', 'm2'] | {OURS}.reachable_at(hostvars)",
    "lock_places": f"hostvars | {OURS}.lock_places(groups, ['m1'])",
    "of_run": f"hostvars | {OURS}.of_run('tls_estate')",
    "unless_step": f"'ansible.builtin.free' | {OURS}.unless_step",
    "told_to_others": f"['starttls_hostname'] | {OURS}.told_to_others",
    "planned_digests": f"'m1' | {OURS}.planned_digests(hostvars)",
    "localhost_of": f"groups['all'] | {OURS}.localhost_of",
    "kind_on": f"hostvars.m1.mail_server_observed.kind | {OURS}.kind_on([])",
    "has_log": f"'postfix' | {OURS}.has_log",
    "estate": f"email_configs | {OURS}.estate(hostvars, ['m1', 'gw1'])",
    "handshake_targets": f"['m1', 'm2'] | {OURS}.handshake_targets(hostvars)",
    "verdict_rows": f"['gw1', 'm1'] | {OURS}.verdict_rows(hostvars, groups, hostvars.localhost.tls_estate)",
    "own_target": f"'m1' | {OURS}.own_target(hostvars)",
    "failed_tests": f"'m1' | {OURS}.failed_tests(hostvars, 'notice', ['gw1'])",
    "namesakes_of": f"['m1', 'm2'] | {OURS}.namesakes_of(hostvars)",
    "trace_messages": MESSAGES,
    "trace_work": f"{MESSAGES} | {OURS}.trace_work('m1', hostvars)",
    "trace_landings": f"{MESSAGES} | {OURS}.trace_landings('inbound', 'm1', hostvars)",
    "with_delivery_mode": f"[{{'name': 'main', 'note': {VERSION}}}] | {OURS}.with_delivery_mode('main', 'required')",
    "report_outputs": f"['csv'] | {OURS}.report_outputs({VERSION})",
    "wanted_peers": f"{{'peers': {{'m1': [{{'peer': {{'name': {VERSION}}}, 'managed': []}}]}}}} | {OURS}.wanted_peers('m1')",
    "lost_messages": f"['m1', 'm2'] | {OURS}.lost_messages(hostvars)",
    "waiting_hops": f"'m1' | {OURS}.waiting_hops(hostvars)",
    "ready_hops": f"'m1' | {OURS}.ready_hops(hostvars)",
    "step_failures": f"'offer' | {OURS}.step_failures(hostvars)",
    "configs_before": f"[{{'name': 'main', 'note': {VERSION}}}] | {OURS}.configs_before({{'email_configs': {{'main': 'required'}}}}, [])",
    "state_before": f"{{'hosts': {{}}}} | {OURS}.state_before('m1', 'inbound', {VERSION})",
    "enforced_before": "{'hosts': {'m1': {'enforced_domains': [{'domain': 'a.test', 'direction': 'inbound'}]}}} | "
    f"{OURS}.enforced_before('m1')",
    "with_report": f"{{'note': {VERSION}}} | {OURS}.with_report('', {VERSION})",
    "given": f"'' | {OURS}.given({VERSION})",
    "listed": f"{VERSION} | {OURS}.listed",
    "proof_host": f"'m1' | {OURS}.proof_host(hostvars, groups)",
    "tester_of": f"'m1' | {OURS}.tester_of(hostvars, groups)",
    "proof_targets": f"[{{'host': {VERSION}}}] | {OURS}.proof_targets({PROVE})",
    "is_proof": f"hostvars.m1.verify_probe | {OURS}.is_proof({PROVE})",
    "failing": f"hostvars.m1.verify_probe.results[0].findings | {OURS}.failing('notice')",
}
"""Each filter, as an expression whose value holds words of a host if the filter lets any through."""

RESULTS = [
    "hostvars.localhost.tls_plan", "hostvars.localhost.tls_estate", "hostvars.gw1.tls_plan_result", "hostvars.m1.outcome_result",
    "hostvars.localhost.verdict_result", "hostvars.localhost.report_result", "hostvars.localhost.certificate_result",
    "hostvars.gw1.deferred_plan", "hostvars.localhost.tls_recovery", "hostvars.m1.verify_messages", "hostvars.m1.mail_server_result",
    *(f"hostvars.{host}.{name}" for host in ("gw1", "m1", "m2", "m3") for name in (
        "mail_server_observed", "gateway_observed", "verify_probe", "verify_trace", "verify_activity", "change_result",
        "deferred_before", "verify_peers_result",
    )),
]  # fmt: skip
"""What is registered or kept as a fact."""


def careless(expressions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Tasks that let Ansible template each value as often as it can."""
    kept = {f"kept_{index}": "{{ " + one + " }}" for index, one in enumerate(expressions.values())}
    every = " + ".join(f"[{one}]" for one in expressions.values())
    shown = "{{ item }}{{ made }}"
    return [
        {"name": "Keep each", "ansible.builtin.set_fact": kept},
        {"name": "Show what was kept", "ansible.builtin.debug": {"msg": {name: "{{ " + name + " }}" for name in kept}}},
        {
            "name": "Keep each in a loop", "ansible.builtin.set_fact": {"kept": "{{ item }}"}, "loop": "{{ " + every + " }}",
            "register": "looped",
        },
        {"name": "Show what the loop said", "ansible.builtin.debug": {"msg": "{{ looped }}"}},
        {"name": "Show what the loop kept", "ansible.builtin.debug": {"msg": "{{ kept }}"}},
        {
            "name": "Show each piece", "ansible.builtin.debug": {"msg": shown}, "vars": {"made": "{{ item }}"},
            "loop": "{{ (" + every + ") | flatten }}",
        },
    ]  # fmt: skip


def plays(port: int) -> Iterator[dict[str, Any]]:
    """The product's own playbooks, then what a careless user does with what they left."""
    yield {"import_playbook": str(PLAYBOOKS / "plan_tls.yml"), "vars": {"starttls_plan_fail_on": "never"}}
    yield {
        "hosts": "gw1:mail_servers", "gather_facts": False, "ignore_errors": True, "ignore_unreachable": True,
        "tasks": [
            {f"{OURS}.starttls_probe": {"targets": [{"host": "x.test"}]}, "register": "verify_probe"},
            {f"{OURS}.starttls_probe": {"targets": [{"host": "x.test"}]}, "register": "verify_from_gateway"},
            {f"{OURS}.message_trace": {"receive": [{"marker": "in-m1", "mailbox": "/x"}]}, "register": "verify_trace"},
            {f"{OURS}.tls_activity_info": {"daemon": "postfix"}, "register": "verify_activity"},
            {f"{OURS}.mail_server_tls": {"inbound": "disabled"}, "register": "change_result"},
            {f"{OURS}.deferred_mail_info": {}, "register": "deferred_before"},
            {f"{OURS}.peer_tls_info": {"peers": [peer_at(port)]}, "register": "verify_peers_result"},
            {f"{OURS}.tls_recovery": {"hosts": ["gw1", "m1", "m2"]}, "register": "deferred_plan", "run_once": True},
            {
                "name": "messages of which one is lost", "ansible.builtin.set_fact": {"verify_messages": [
                    {"inbound": {
                        "marker": "{{ verify_trace.received[1].marker }}", "sender": "a@a.test",
                        "recipient": "{{ mail_server_observed.version }}",
                    }},
                ]},
                "when": "inventory_hostname == 'm1'",
            },
            {
                "name": "a step that failed", "ansible.builtin.set_fact": {
                    "mail_server_result": {"failed": True, "msg": "{{ deferred_before.messages[0].reason }}"},
                },
                "when": "inventory_hostname == 'm1'",
            },
            {
                "name": "what was planned", "ansible.builtin.set_fact": {
                    "tls_recovery": {"steps": {"offer": ["m1"]}, "flush": {"m1": ["{{ deferred_before.messages[0].next_hop }}"]}},
                },
                "delegate_to": "localhost", "delegate_facts": True, "when": "inventory_hostname == 'm1'",
            },
            {f"{OURS}.tls_outcome": {
                "step": "offer", "plan": {"steps": {"offer": {"hosts": ["m1"]}}, "hosts": {"m1": {"role": "mail server"}}},
                "results": {"m1": {"failed": True, "msg": "{{ hostvars.m1.mail_server_observed.version }}"}}, "tests": [],
            }, "register": "outcome_result", "when": "inventory_hostname == 'm1'"},
        ],
    }  # fmt: skip
    rows = "{{ " + USES["verdict_rows"] + " }}"
    tasks: list[dict[str, Any]] = [
        {
            f"{OURS}.starttls_probe": {"targets": [{"host": "127.0.0.1", "port": port}], "checks": ["versions"]},
            "register": "greeted", "ignore_errors": True,
        },
        {"name": "a greeting", "ansible.builtin.set_fact": {"verify_probe": "{{ greeted }}"}},
        {f"{OURS}.tls_verdict": {"title": "x", "rows": rows}, "register": "verdict_result", "ignore_errors": True},
        {f"{OURS}.tls_report": {"rows": rows, "outputs": []}, "register": "report_result", "ignore_errors": True},
        {
            f"{OURS}.tls_certificate": {
                "private_key_content": "{{ hostvars.m1.mail_server_observed.version }}", "certificate_content": "x",
                "path": "{{ playbook_dir }}/x.pem",
            },
            "register": "certificate_result", "ignore_errors": True,
        },
    ]  # fmt: skip
    greeted = {
        "greeted": "greeted",
        "failed_tests of a greeting": f"'localhost' | {OURS}.failed_tests(hostvars, 'notice')",
    }
    tasks += careless({**USES, **greeted, **{one: one for one in RESULTS}})
    yield {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
    yield {"import_playbook": str(PLAYBOOKS / "verify_tls.yml")}


def test_each_filter_is_used():
    assert set(USES) == set(FilterModule().filters())


@where_it_could_run
def test_the_words_of_hosts_and_peers_are_not_run(tmp_path):
    payload = Payloads(tmp_path)
    greeting = f"554 {payload('greeting')}\r\n".encode()
    with contextlib.closing(SmtpServer(Face(greeting=greeting))) as peer:
        refused = run_module(starttls_probe.main, targets=[{"host": "127.0.0.1", "port": peer.port}])
        peers = run_module(
            peer_tls_info.main, peers=[{"name": "one", "hosts": [f"127.0.0.1:{peer.port}"], "domains": ["one.test"]}]
        )
        hosts = inventory(tmp_path, payload, refused, peers)
        done = run_playbook(tmp_path, hosts, plays(peer.port), env={"RAN": str(payload.ran)})
    (tmp_path / "out.txt").write_text(done.stdout)
    assert payload.executed() == []
    assert "Show each piece" in done.stdout
    assert "'>$RAN/0'" in done.stdout  # the peer's words were there to be run
    assert "TLS, verified" in done.stdout
