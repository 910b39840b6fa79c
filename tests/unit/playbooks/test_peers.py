"""Whole runs with peers: which hosts are called, in which order, and what is shown of them."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.canned_fleet import canned_fleet
from tests.support.plan_states import peer, proof, server
from tests.support.playbooks import PLAYBOOKS, run_playbook

WRITES = [{"path": "/etc/postfix/master.cf", "lines": "+mailfleet_peer_exchange unix - - y - - smtp\n"}]
HELD = {
    "name": "exchange",
    "hosts": ["exch.test:25"],
    "domains": ["exchange.example"],
    "level": "required",
    "check": "encryption_only",
}
FULL_PROOF = {
    "host": "exch.test", "port": 25, "stage": "done", "code": 250, "enhanced": "2.1.5", "text": "2.1.5 Ok", "fault": "", "message": "",
    "tls_version": "TLSv1.2", "cipher": "", "asked": None, "trusted": None, "chain_pem": [], "resumed": None, "second": None,
}  # fmt: skip
MADE = {
    "changed": True,
    "before": [],
    "after": [HELD],
    "proofs": [],
    "digests": {},
    "recovered": False,
    "kind": "postfix",
}
PROVED = {
    "changed": False,
    "peers": [{
        "name": "exchange", "proofs": [{"proof": FULL_PROOF, "unfit": ""}], "message": "", "client_certificate": None, "served_pem": None,
    }],
}  # fmt: skip
ADDRESSES = {"proof_sender": "a@exchange.example", "proof_recipient": "b@exchange.example"}


def fleet(directory, action="enable", **answers):
    """m1 has a peer that this run sets; m2 has none."""
    read = server("m1", peers=[], peer_changes=WRITES, peer_proofs=[], peer_certificates=[])
    if action == "enable":
        read["peer_proofs"] = [{**proof("exchange", "exch.test"), "proof": FULL_PROOF}]
    else:
        read["peers"] = [HELD]
    read["probe"] = {"results": [], "certificates": {}}
    said = {"mail_server_info": read, "peer_tls": MADE, "peer_tls_info": PROVED, **answers}
    as_wanted = {**server("m2"), "probe": {"results": [], "certificates": {}}}
    inventory = canned_fleet(directory, {"m1": said, "m2": {"mail_server_info": as_wanted}})
    hosts = inventory["all"]["children"]["mail_servers"]["hosts"]
    hosts["m1"]["starttls_peers"] = [peer("exchange", "exch.test", kind="exchange", **ADDRESSES)]
    return inventory


def run(directory, name, inventory, *words):
    plays = [{"import_playbook": str(PLAYBOOKS / f"{name}.yml")}]
    return run_playbook(directory, inventory, plays, *words).stdout


def tasks(printed, host=""):
    """The names of the plays and tasks that a host took part in, in their order."""
    found, name = [], ""
    for line in printed.splitlines():
        if match := re.match(r"(?:PLAY|TASK) \[(?:mailfleet\.starttls\.\w+ : )?(.*?)\]", line):
            name = match[1]
        elif re.match(rf"(ok|changed|fatal): \[{host}[\] ]", line):
            found.append(name)
    return found


SET = "Set the peers of the mail server in one transaction, with evidence"
PROVE = "Prove that the peers take mail, to RCPT and without a message"
CHANGE = "Change the mail server in one transaction, and prove it"


def test_enable_sets_them_and_proves_them_after(tmp_path):
    printed = run(tmp_path, "enable_tls", fleet(tmp_path))
    mine, order = tasks(printed, "m1"), tasks(printed, r"\w+")
    assert SET in mine and PROVE in mine, printed
    assert SET not in tasks(printed, "m2") and PROVE not in tasks(printed, "m2")
    assert order.index(SET) < order.index(PROVE)
    assert re.search(r"m1 to exchange exch\.test:25 +exchange +offered +TLSv1\.2 .*proved to RCPT", printed), printed


@pytest.mark.exhaustive
def test_a_peer_without_starttls_stops_the_run_before_any_change(tmp_path):
    inventory = fleet(tmp_path)
    said = json.loads((tmp_path / "m1/mail_server_info").read_text())
    ended = {
        **FULL_PROOF,
        "stage": "starttls",
        "fault": "starttls_not_offered",
        "message": "it offers no STARTTLS",
        "code": 0,
    }
    said["peer_proofs"] = [{**proof("exchange", "exch.test", "starttls_not_offered"), "proof": ended}]
    (tmp_path / "m1/mail_server_info").write_text(json.dumps(said))
    printed = run(tmp_path, "enable_tls", inventory)
    assert "peer exchange: exch.test:25" in printed and "event 12014" in printed  # the advice for Exchange
    assert "the plan is blocked" in printed
    assert CHANGE not in tasks(printed, r"\w+")


@pytest.mark.exhaustive
def test_off_takes_tls_from_them_before_the_listeners(tmp_path):
    made = {**MADE, "after": [{**HELD, "level": "disabled"}]}
    inventory = fleet(tmp_path, "disable", peer_tls=made)
    said = json.loads((tmp_path / "m1/mail_server_info").read_text())
    drifting = server("m1", drift=True, peers=[HELD], peer_changes=WRITES, probe=said["probe"])
    (tmp_path / "m1/mail_server_info").write_text(json.dumps(drifting))
    printed = run(tmp_path, "disable_tls", inventory)
    order = tasks(printed, "m1")
    assert order.index(SET) < order.index(CHANGE), printed
    assert SET not in tasks(printed, "m2")


@pytest.mark.exhaustive
def test_verify_proves_them_without_a_change(tmp_path):
    inventory = fleet(tmp_path)
    said = json.loads((tmp_path / "m1/mail_server_info").read_text())
    (tmp_path / "m1/mail_server_info").write_text(json.dumps({**said, "peers": [HELD]}))
    printed = run(tmp_path, "verify_tls", inventory)
    assert PROVE in tasks(printed, "m1") and PROVE not in tasks(printed, "m2"), printed
    assert SET not in tasks(printed, "m1")
    assert "proved to RCPT" in printed, printed


def test_a_hybrid_organisation_is_refused_before_any_host_is_read(tmp_path):
    inventory = fleet(tmp_path)
    host = inventory["all"]["children"]["mail_servers"]["hosts"]["m1"]
    host["starttls_peers"].append(
        {"name": "online", "kind": "exchange_online", "direction": "inbound", "domains": ["exchange.example"]}
    )
    printed = run(tmp_path, "plan_tls", inventory)
    assert "that is a hybrid organisation" in printed
    assert "Read the mail server, and what the change would do" not in tasks(printed, r"\w+")
