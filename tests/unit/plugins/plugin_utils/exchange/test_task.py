"""A change of an Exchange server from the controller: planned, made, proved from elsewhere, or undone."""

from __future__ import annotations

import json
import stat

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import WantedCertificate
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.pfx import Pfx
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange import task

from tests.support.exchange_host import ExchangeHost
from tests.support.exchange_organisation import FQDN, NEW, certificate, receive

DEFAULT = "EX1\\Default Frontend EX1"
NO_TLS = receive("Default Frontend EX1", AuthMechanism="Integrated")
PROVED = {"results": [{"completed": True, "stage": "ehlo_tls", "fingerprint_sha256": "aa", "requires_tls": False}]}
UNPROVED = {"results": [{"completed": False, "stage": "ehlo", "message": "STARTTLS is not offered"}]}


def connector(host: ExchangeHost, name: str = DEFAULT) -> dict:
    return next(one for one in host.exchange.state["ReceiveConnectors"] if one["Identity"] == name)


@pytest.fixture
def host():
    """A server whose connector on port 25 offers no TLS."""
    return ExchangeHost(ReceiveConnectors=[NO_TLS])


def test_a_change_is_pending_until_it_is_proved(host, tmp_path):
    made = host.task(tmp_path, inbound="offered", prove_later=True).change(None, False)
    assert (made["changed"], made["pending"], made["after"]["inbound"]) == (True, True, "offered")
    assert made["prove"] == {"inbound": "offered", "fingerprint": "", "namesakes": [], "next_hops": []}
    assert "Tls" in connector(host)["AuthMechanism"]
    [journal] = tmp_path.glob("*.journal.json")
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600
    kept = host.task(tmp_path).conclude(PROVED)
    assert (kept["changed"], kept["pending"], kept["after"]["inbound"]) == (True, False, "offered")
    assert not journal.exists()
    again = host.task(tmp_path, inbound="offered", prove_later=True, digests=kept["digests"]).change(None, False)
    assert (again["changed"], again["pending"]) == (False, False)


@pytest.mark.parametrize(
    ("proof", "why"),
    [
        (UNPROVED, "STARTTLS is not offered"),
        ({}, "no handshake test was made"),
        ({"unreachable": True, "msg": "no route to gw1"}, "no route to gw1"),
        ({"failed": True, "msg": "no Python", "results": []}, "no Python"),
    ],
)
def test_a_change_without_a_proof_is_undone(host, tmp_path, proof, why):
    before = host.exchange.look()
    host.task(tmp_path, inbound="offered", prove_later=True).change(None, False)
    failed = host.task(tmp_path).conclude(proof)
    assert (failed["failed"], failed["restored"], failed["changed"]) == (True, True, False)
    assert why in failed["msg"] and "the former state was put back" in failed["msg"]
    assert host.exchange.look() == before
    assert list(tmp_path.glob("*.journal.json")) == []


def test_check_mode_predicts_and_touches_nothing(host, tmp_path):
    before = host.exchange.look()
    said = host.task(tmp_path, inbound="offered").change(None, True)
    assert said["changed"] and said["after"]["inbound"] == "offered" and said["diff"]
    assert host.operations == ["read"] and host.exchange.look() == before and list(tmp_path.iterdir()) == []
    real = host.task(tmp_path, inbound="offered", prove_later=True).change(None, False)
    assert {name: real[name] for name in ("before", "after", "diff")} == {
        name: said[name] for name in ("before", "after", "diff")
    }


def test_a_call_that_fails_leaves_nothing(host, tmp_path):
    before = host.exchange.look()
    host.fails_at = "Set-ReceiveConnector"
    failed = host.task(tmp_path, inbound="offered", prove_later=True).change(None, False)
    assert failed["failed"] and failed["restored"] and "it does not want to" in failed["msg"]
    assert host.exchange.look() == before and list(tmp_path.glob("*.journal.json")) == []


def test_a_killed_run_is_undone_by_the_next_one(host, tmp_path):
    before = host.exchange.look()
    host.task(tmp_path, inbound="offered", prove_later=True).change(None, False)  # and then the controller was gone
    seen = host.task(tmp_path, inbound="offered").read(None)
    assert seen["journal"]["path"].endswith("ex1.journal.json")
    recovered = host.task(tmp_path).recover(False)
    assert recovered == {"kind": "exchange", "changed": True, "recovered": True}
    assert host.exchange.look() == before
    assert host.task(tmp_path).recover(False)["recovered"] is False


def test_a_run_that_was_killed_before_its_first_call_is_undone_as_well(host, tmp_path):
    host.fails_at, host.dies = "New-SendConnector", True
    peers = [{"name": "relay", "kind": "smtp", "hosts": ["relay.example.com"], "domains": ["example.org"]}]
    with pytest.raises(KeyboardInterrupt):
        host.task(tmp_path, peers=peers).change(None, False)
    host.dies = False
    host.operations.clear()
    assert host.task(tmp_path).recover(False)["recovered"]
    assert host.operations == ["read"], "what was never made is neither removed nor set"


def test_a_run_that_was_killed_before_it_removed_anything_is_undone_as_well(host, tmp_path):
    peers = [{"name": "relay", "kind": "smtp", "hosts": ["relay.example.com"], "domains": ["example.org"]}]
    host.task(tmp_path, peers=peers).change(None, False)
    before = host.exchange.look()
    for fails_at in ("Remove-SendConnector", ""):
        host.fails_at, host.dies = fails_at, True
        if fails_at:
            with pytest.raises(KeyboardInterrupt):
                host.task(tmp_path, peers=peers, peers_state="absent").change(None, False)
        assert host.task(tmp_path).recover(False)["recovered"] is bool(fails_at)
        assert host.exchange.look() == before, "what was not removed is not made again"


def test_a_server_that_changed_since_the_plan_is_refused(host, tmp_path):
    seen = host.task(tmp_path, inbound="offered").read(None)
    connector(host)["RemoteIPRanges"] = ["192.0.2.0/24"]
    with pytest.raises(EngineError, match="are not as the plan saw them"):
        host.task(tmp_path, inbound="offered", prove_later=True, digests=seen["digests"]).change(None, False)


def test_a_send_connector_belongs_to_everybody_and_is_not_in_the_digest(host, tmp_path):
    seen = host.task(tmp_path, inbound="offered").read(None)
    host.exchange.state["SendConnectors"][0]["RequireTLS"] = True
    assert host.task(tmp_path, inbound="offered").read(None)["digests"] == seen["digests"]


def test_everything_goes_back(host, tmp_path):
    before = host.exchange.look()
    host.task(tmp_path, inbound="offered", prove_later=True).change(None, False)
    host.task(tmp_path).conclude(PROVED)
    gone = host.task(tmp_path, state="absent").change(None, False)
    assert gone["changed"] and gone["after"] == {} and not gone["pending"]
    assert host.exchange.look() == before and list(tmp_path.iterdir()) == []


def test_peers_are_connectors_of_their_own(host, tmp_path):
    peers = [{"name": "relay", "kind": "smtp", "hosts": ["relay.example.com"], "domains": ["example.org"]}]
    made = host.task(tmp_path, peers=peers).change(None, False)
    assert made["before"] == [] and not made["pending"]
    assert made["after"] == [
        {"name": "relay", "hosts": ["relay.example.com:25"], "domains": ["example.org"], "level": "required"}
    ]
    relaxed = host.task(tmp_path, peers=peers, peers_state="disabled").change(None, False)
    assert relaxed["after"][0]["level"] == "opportunistic"
    assert host.task(tmp_path, peers=peers, peers_state="absent").change(None, False)["after"] == []


def test_peers_and_sides_are_two_tasks(host, tmp_path):
    peers = [{"name": "relay", "kind": "smtp", "hosts": ["relay.example.com"], "domains": ["example.org"]}]
    with pytest.raises(EngineError, match="give them in a task of their own"):
        host.task(tmp_path, peers=peers, inbound="offered").change(None, False)


@pytest.mark.parametrize(
    ("peer", "why"),
    [
        ({"check": "pin", "pin_fingerprints": ["aa" * 32]}, "an Exchange server cannot check by pin"),
        ({"client_certificate": "/etc/ssl/x.pem"}, "client_certificate has no counterpart"),
        ({"hosts": ["a.example.com:25", "b.example.com:26"]}, "different ports, and a send connector has one"),
        ({"kind": "exchange_online"}, "belong to the hybrid wizard"),
    ],
)
def test_what_a_send_connector_cannot_do_is_said(host, tmp_path, peer, why):
    wanted = {"name": "relay", "kind": "smtp", "hosts": ["relay.example.com"], "domains": ["example.org"], **peer}
    with pytest.raises(EngineError, match=why):
        host.task(tmp_path, peers=[wanted]).change(None, False)
    assert any(why in one["message"] for one in host.task(tmp_path, peers=[wanted]).read(None)["obstacles"])


def test_a_next_hop_that_nobody_tested_is_unknown(host, tmp_path):
    seen = host.task(tmp_path, inbound="offered", outbound="required").read(None)
    assert [(one["host"], one["port"], one["completed"]) for one in seen["next_hops"]] == [
        ("gw1.example.com", 25, None)
    ]
    made = host.task(tmp_path, inbound="offered", outbound="required", prove_later=True).change(None, False)
    assert made["prove"]["next_hops"] == ["gw1.example.com:25"]
    failed = host.task(tmp_path).conclude(PROVED)
    assert "not all next hops were tested" in failed["msg"]


def test_a_connector_list_that_could_not_be_read_is_unknown_and_in_the_way(tmp_path):
    host = ExchangeHost(ReceiveConnectors=None, Errors={"Get-ReceiveConnector": "access denied"})
    seen = host.task(tmp_path, inbound="offered").read(None)
    assert seen["listeners"] is None
    assert [one["code"] for one in seen["notes"]] == ["listeners_not_read"]
    assert [one["code"] for one in seen["obstacles"]] == ["exchange_not_read"]


def test_a_server_that_cannot_be_reached_gives_the_words_of_the_module(host, tmp_path):
    host.unread = {"failed": True, "msg": "RemoteExchange.ps1 is not there"}
    for result in (
        host.task(tmp_path, inbound="offered").read(None),
        host.task(tmp_path, inbound="offered").change(None, True),
    ):
        assert result["failed"] and result["msg"] == "RemoteExchange.ps1 is not there"


def test_a_journal_of_somebody_else_is_refused(host, tmp_path):
    (tmp_path / "ex1.journal.json").write_text(json.dumps({"format": 99, "data": {}}))
    with pytest.raises(EngineError, match="is not what this version of the collection writes"):
        host.task(tmp_path, inbound="offered").read(None)


def test_nothing_is_pending(host, tmp_path):
    with pytest.raises(EngineError, match="no change is pending"):
        host.task(tmp_path).conclude(PROVED)


def test_a_certificate_that_was_imported_goes_with_everything_else(tmp_path, monkeypatch):
    """What it is called shows when it is there, so the change is planned twice."""
    host = ExchangeHost(ReceiveConnectors=[NO_TLS])
    before = host.exchange.look()
    host.exchange.imports = certificate(NEW, "CN=new", "CN=Authority", [FQDN], "None")
    wanted = WantedCertificate(NEW, "CN=Authority", "CN=new", (FQDN,))
    pfx = Pfx(wanted, {"FileData": "eA==", "Password": "x"})
    monkeypatch.setattr(task.ToInstall, "of", lambda _self, _raw: pfx)
    host.task(tmp_path, inbound="offered", prove_later=True).change(None, False)
    assert [operation for operation in host.operations if operation == "apply"] == ["apply", "apply"]
    host.task(tmp_path).conclude(PROVED)
    assert connector(host)["TlsCertificateName"] == "<I>CN=Authority<S>CN=new"
    monkeypatch.setattr(task.ToInstall, "of", lambda _self, _raw: None)
    host.task(tmp_path, state="absent").change(None, False)
    assert host.exchange.look()["ExchangeCertificates"] == before["ExchangeCertificates"]


def test_a_change_that_insists_on_tls_reads_the_server_once_and_asks_the_next_hop_first(host, tmp_path, monkeypatch):
    asked = []

    class Refused:
        completed, message = False, "STARTTLS is not offered"

        def __init__(self, target) -> None:
            self.target = target

    def handshakes(targets, _settings):
        asked.extend(targets)
        return [Refused(one) for one in targets]

    monkeypatch.setattr(task.patience, "handshake_all", handshakes)
    before = host.exchange.look()
    with pytest.raises(EngineError, match=r"gw1\.example\.com.* completes no handshake with the controller"):
        host.task(tmp_path, inbound="offered", outbound="required").change(None, False)
    assert host.operations == ["read"] and host.exchange.look() == before and len(asked) == 1


def test_a_renewed_certificate_goes_to_shared_send_connectors_once_all_servers_have_it(host, tmp_path, monkeypatch):
    def named(**options):
        made = host.task(tmp_path, inbound="offered", **options)
        return made._work(task.ToInstall(None, False)).wanted(None)

    monkeypatch.setattr(task.ExchangeTask, "_hops", lambda *_: [])
    host.task(tmp_path).server.read()
    assert named().others_with_certificate == () and named().fqdn == ""
    wanted = named(certificate_on=["EX2"], fqdn="mail.example.com")
    assert (wanted.others_with_certificate, wanted.fqdn) == (("EX2",), "mail.example.com")
