"""Jobs of a workflow hand on what they change, and undo_workflow puts back that and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from lab_testinfra import Fleet, Played

QUIET = {"starttls_send_messages": False}
HAD_TLS = "ex13"
OTHERS = ("pf12", "pf13", "ex12")
OFF = {"inbound": "disabled", "outbound": "disabled"}


def job(fleet: Fleet, playbook: str, *words: str, **variables: Any) -> tuple[Played, dict[str, Any]]:
    """Play a playbook as a job does, and return what it hands on."""
    show = {"ANSIBLE_SHOW_CUSTOM_STATS": "1"}
    played = fleet.play(f"playbooks/{playbook}.yml", *words, variables={**QUIET, **variables}, environment=show)
    _, _, stats = played.output.rpartition("\tRUN: ")
    return played, json.JSONDecoder().raw_decode(stats)[0] if stats else {}


def configs(fleet: Fleet) -> dict[str, dict[str, Any]]:
    """The email configs of the inventory by name."""
    return {one["name"]: one for one in yaml.safe_load(fleet.inventory.read_text())["all"]["vars"]["email_configs"]}


def record(fleet: Fleet) -> dict[str, Any]:
    """What the gateway holds."""
    found: dict[str, Any] = json.loads(fleet.run("gw1", "cat /etc/postfix/mailfleet-starttls/gateway.json"))
    return found


def modes(fleet: Fleet) -> dict[str, str]:
    """The email configs of the gateway and their delivery modes."""
    return {one["name"]: one["delivery_mode"] for one in record(fleet)["email_configs"]}


def settings(fleet: Fleet, hosts: tuple[str, ...]) -> dict[str, str]:
    """The configuration of the daemons, without the certificate, which stays."""
    found = fleet.digests(hosts)
    return {
        host: "\n".join(one for one in text.splitlines() if "/etc/mailfleet/" not in one)
        for host, text in found.items()
    }


def test_only_what_the_workflow_changed_is_put_back(fleet: Fleet, tmp_path: Path) -> None:
    reset = fleet.play("tools/lab/playbooks/reset.yml")  # other tests leave hosts that had TLS before
    assert reset.status == 0, reset.output
    mine = next(one for one in configs(fleet).values() if one["servers"] == [HAD_TLS])
    first, handed = job(fleet, "enable_tls", f"--limit=gw1:{HAD_TLS}", email_configs=[mine])
    assert first.status == 0, first.output
    assert handed["starttls_changes"]["hosts"][HAD_TLS] == OFF
    before = settings(fleet, (*OTHERS, HAD_TLS))
    assert modes(fleet) == {mine["name"]: mine["delivery_mode"]}

    # The workflow: the rest of the fleet, then another delivery mode for the one that had TLS.
    enforced = [{"domain": "partner.test", "direction": "inbound"}]
    rest, handed = job(fleet, "enable_tls", starttls_enforced_domains=enforced)
    assert rest.status == 0, rest.output
    changes = handed["starttls_changes"]
    assert {host: changes["hosts"].get(host) for host in (*OTHERS, HAD_TLS)} == {
        **dict.fromkeys(OTHERS, OFF),
        HAD_TLS: None,
    }
    assert changes["hosts"]["gw1"] == {"inbound": "offered", "outbound": "opportunistic", "enforced_domains": enforced}
    assert record(fleet)["enforced_domains"] == enforced
    assert changes["email_configs"] == {name: None for name in configs(fleet) if name != mine["name"]}
    assert handed["starttls_result"]["summary"] == {"hosts": 5, "passed": 5, "failed": 0}

    answers = {"starttls_email_config": mine["name"], "starttls_delivery_mode": "required"}
    mode, handed = job(fleet, "set_delivery_mode", starttls_changes=changes, **answers)
    assert mode.status == 0, mode.output
    assert handed["starttls_changes"] == {
        "hosts": changes["hosts"], "email_configs": {**changes["email_configs"], mine["name"]: mine["delivery_mode"]},
    }  # fmt: skip

    # The way that AWX takes: JSON in a file of extra variables.
    given = tmp_path / "extravars"
    given.write_text(json.dumps({"starttls_changes": handed["starttls_changes"]}))
    undone = fleet.play("playbooks/undo_workflow.yml", f"--extra-vars=@{given}")
    assert undone.status == 0, undone.output
    assert "What the workflow changed is put back" in undone.output
    assert {host: fleet.offers_starttls(host) for host in ("gw1", *OTHERS, HAD_TLS)} == {
        "gw1": True, **dict.fromkeys(OTHERS, False), HAD_TLS: True,
    }  # fmt: skip
    assert settings(fleet, (*OTHERS, HAD_TLS)) == before
    assert modes(fleet) == {mine["name"]: mine["delivery_mode"]}
    assert record(fleet)["enforced_domains"] == []

    again = fleet.play("playbooks/undo_workflow.yml", f"--extra-vars=@{given}", variables=QUIET)
    assert again.status == 0, again.output
    assert set(again.changed.values()) == {0}, again.output


def test_without_what_was_changed_nothing_is(fleet: Fleet) -> None:
    before = fleet.digests()
    refused = fleet.play("playbooks/undo_workflow.yml")
    assert refused.status != 0
    assert "starttls_changes is not given" in refused.output and "nothing was changed" in refused.output
    assert fleet.digests() == before
