"""Roles used alone: each variable works from the inventory, a play, a role that is imported or included, and the command line.

What counts is what the modules on the hosts get, so those answer here and note what they were given.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.stated import told_to_others

from tests.support.canned_fleet import CHANGED, canned_fleet
from tests.support.canned_host import arguments_of
from tests.support.pki import key_pem, pem, self_signed
from tests.support.playbooks import ROOT, run_playbook

ROLES = {"certificate": "m1", "mail_server": "mail_servers", "gateway": "gw1", "verify": "all:!localhost"}
WAYS = ("inventory", "play", "import_role", "include_role", "command line")
NOT_ON_THESE_HOSTS = {
    "starttls_exchange_wait",  "starttls_api_url", "starttls_api_user", "starttls_api_password", "starttls_api_key", "starttls_api_ca_path",
    "starttls_validate_certs", "starttls_config_dir",  # kinds of gateways and servers that have no such host here
    "starttls_outside_host", "starttls_message_timeout", "starttls_report_since", "starttls_report_token", "starttls_report_url",
    "starttls_logs",  # of other tasks of the role verify than its main ones: playbooks start those
    "starttls_peers",  # tests/unit/playbooks/test_peers.py
    "starttls_more_certificates", "starttls_key_types", "starttls_csr_file", "starttls_certificate_command", "starttls_renew_days",
    "starttls_pkcs12_file", "starttls_pkcs12_password", "starttls_acme_challenge", "starttls_acme_webroot", "starttls_acme_email",
    "starttls_acme_dns_credentials", "starttls_acme_server", "starttls_acme_ca_file", "starttls_acme_install",  # of other sources
}  # fmt: skip


def values(directory: Path) -> dict[str, Any]:
    """A value for each variable that is not the default."""
    issued = self_signed(["m1.own.test", "m2.own.test", "gw1.own.test"])
    (directory / "key.pem").write_bytes(key_pem(issued.key))
    (directory / "certificate.pem").write_bytes(pem(issued.certificate))
    return {
        "starttls_hostname": "{{ inventory_hostname }}.own.test", "starttls_port": 2526, "starttls_own_address": "127.0.0.9",
        "starttls_kind": "postfix", "starttls_inbound": "offered", "starttls_outbound": "required",
        "starttls_require_without_evidence": True, "starttls_min_tls": "TLSv1.2",
        "starttls_timeout": 21, "starttls_queue_timeout": 301, "starttls_uninstall_keep": ["/etc/kept"],
        "starttls_certificate_path": "/etc/own/{{ inventory_hostname }}.pem", "starttls_certificate_source": "files",
        "starttls_private_key_path": "/etc/own/key.pem", "starttls_private_key_file": str(directory / "key.pem"),
        "starttls_certificate_file": str(directory / "certificate.pem"),
        "starttls_certificate_names": ["{{ inventory_hostname }}.own.test"],
        "starttls_certificate_min_days_left": 3, "starttls_allow_self_signed": True, "starttls_certificate_owner": "nobody",
        "starttls_certificate_group": "nogroup", "starttls_certificate_mode": "0440", "starttls_chain_file": "",
        "starttls_ca_file": str(directory / "certificate.pem"), "starttls_require_trusted": False, "starttls_min_tls_version": "TLSv1.3",
        "starttls_min_days_left": 4, "starttls_warn_days_left": 5, "starttls_fail_on": "warning", "starttls_checks": ["versions"],
        "starttls_resolver": ["192.0.2.53"], "starttls_probe_timeout": 16, "starttls_accept": "both", "starttls_send": "plaintext",
        "starttls_mail_servers": ["192.0.2.7"], "starttls_reinjection_port": 10126,
        "starttls_tls_filter": "scan:[127.0.0.1]:10026",
        "starttls_enforced_ca_file": str(directory / "certificate.pem"),
        "starttls_enforced_domains": [{"domain": "partner.test", "direction": "inbound"}], "starttls_domain": "own.test",
        "starttls_address": "127.0.0.1", "starttls_certificate_replace": True, "starttls_exim_split": True,
        "starttls_settings_only": True, "starttls_check_tlsa": False,
    }  # fmt: skip


def given_to_modules(directory: Path, way: str, variables: dict[str, Any], roles: dict[str, str]) -> dict[str, Any]:
    """Run each role in a play of its own, and return what each module got on each host."""
    directory.mkdir(exist_ok=True)
    good = {"changed": True, "path": "/etc/own/x.pem", "diff": []}
    answers = {host: {"tls_certificate": good, "mail_server_tls": CHANGED} for host in ("gw1", "m1", "m2")}
    inventory = canned_fleet(directory, answers, **(variables if way == "inventory" else {}))
    for group in inventory["all"]["children"].values():
        for facts in group["hosts"].values():
            facts.pop("starttls_hostname")  # what stands at a host comes before what stands at all of them
    plays = []
    for role, hosts in roles.items():
        how = "include_role" if way == "include_role" else "import_role"
        task = {"name": "Use the role", f"ansible.builtin.{how}": {"name": f"mailfleet.starttls.{role}"}}
        of_task = {"vars": variables} if way.endswith("_role") else {}
        of_play = {"vars": variables} if way == "play" else {}
        plays.append(
            {
                "name": f"Use {role}",
                "hosts": hosts,
                "gather_facts": False,
                "ignore_errors": True,
                **of_play,
                "tasks": [{**task, **of_task}],
            }
        )
    words = ("-e", json.dumps(variables)) if way == "command line" else ()
    done = run_playbook(directory, inventory, plays, *words)
    assert "Traceback" not in done.stdout, done.stdout
    assert "is undefined" not in done.stdout, done.stdout
    return {
        f"{one.parent.name} {one.stem}": arguments_of(one.parent, one.stem)
        for one in sorted(directory.glob("*/*.sent"))
    }


def test_the_name_of_a_host_that_a_play_sets_counts_for_tests_from_other_hosts(tmp_path: Path) -> None:
    """L6: the certificate was for the name of the play, and the test asked for that of the inventory."""
    variables = {"starttls_hostname": "{{ inventory_hostname }}.own.test", "starttls_port": 2526}
    got = given_to_modules(tmp_path, "play", variables, {"verify": ROLES["verify"]})
    assert [(one["host"], one["port"], one["name"]) for one in got["m1 starttls_probe"]["targets"]] == [
        ("127.0.0.1", 2526, "m1.own.test")
    ]
    assert [(one["host"], one["port"]) for one in got["gw1 starttls_probe"]["targets"]] == [
        ("gw1.own.test", 2526),
        ("m1.own.test", 2526),
        ("m2.own.test", 2526),
    ]


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", WAYS[1:])
def test_every_variable_works_in_every_way(tmp_path: Path, way: str) -> None:
    given = values(tmp_path)
    known = given_to_modules(tmp_path / "hosts", "inventory", given, ROLES)
    modules = {one.partition(" ")[2] for one in known}
    assert modules >= {
        "tls_certificate",
        "mail_server_info",
        "mail_server_tls",
        "gateway_info",
        "gateway_tls",
        "starttls_probe",
    }
    for one in (tmp_path / "hosts").glob("*/*.sent"):
        one.unlink()
    assert given_to_modules(tmp_path / "hosts", way, given, ROLES) == known


@pytest.mark.exhaustive
def test_every_variable_of_the_inventory_reaches_a_module(tmp_path: Path) -> None:
    """Else the test above would say nothing of it."""
    given = values(tmp_path)
    whole = given_to_modules(tmp_path / "hosts", "inventory", given, ROLES)
    sent = json.dumps(whole)
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            text = re.sub(r"\{\{.*\}\}", "m1", str(one)) if isinstance(one, str) else ""
            read_on_the_controller = name.endswith("_file") or name in (
                "starttls_address",
                "starttls_checks",
                "starttls_resolver",
            )
            assert not text or read_on_the_controller or text in sent or name in _BY_THE_CONTROLLER, name


_BY_THE_CONTROLLER = {
    "starttls_certificate_min_days_left", "starttls_allow_self_signed", "starttls_min_tls_version", "starttls_fail_on",
    "starttls_certificate_names",
}  # fmt: skip


def test_the_table_has_every_variable_of_the_roles(tmp_path: Path) -> None:
    defaults = "".join((ROOT / f"roles/{role}/defaults/main.yml").read_text() for role in ROLES)
    used = set(
        re.findall(r"\bstarttls_[a-z_]+\b", yaml.safe_dump(yaml.safe_load(defaults.replace("---", "")), width=10_000))
    )
    contents = {name for name in used if name.endswith("_content")}  # instead of a file
    assert used - set(values(tmp_path)) - contents - NOT_ON_THESE_HOSTS == set()


def test_no_secret_is_told_to_other_hosts() -> None:
    secret = [
        "starttls_private_key_content", "starttls_api_password", "starttls_api_key", "starttls_report_token", "starttls_imap_passwords",
        "starttls_pkcs12_password", "starttls_pkcs12_content", "starttls_more_certificates", "starttls_certificate_command",
    ]  # fmt: skip
    assert told_to_others(["starttls_hostname", *secret, "starttls_private_key_file"]) == [
        "starttls_hostname",
        "starttls_private_key_file",
    ]


@pytest.mark.parametrize("playbook", ["recover_deferred_mail", "undo_workflow"])
def test_a_recovery_and_an_undo_raise_no_floor(playbook: str) -> None:
    """A newer floor could keep more mail back. What a recovery takes off to put it back gets the floor of the inventory again."""
    again = ["Require TLS as before", "Make the handshake test with the gateway, and use TLS when sending"]
    for play in yaml.safe_load((ROOT / f"playbooks/{playbook}.yml").read_text()):
        for task in play.get("tasks", ()):
            imported = task.get("ansible.builtin.import_role", {})
            role = imported.get("name", "").rpartition(".")[2]
            if (
                role in ("mail_server", "gateway")
                and imported.get("tasks_from") != "peers"
                and task["name"] not in again
            ):
                assert {**play.get("vars", {}), **task.get("vars", {})}.get(f"{role}_min_tls") == "", task["name"]
