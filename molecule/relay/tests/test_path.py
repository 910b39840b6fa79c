"""TLS on the path between the gateway and Exchange: on, new certificates, jams, off, away, under mail that flows in both directions.

The tests are one story, in this order.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peer_replies import explain_queue
from lab_testinfra import TOP, Fleet, Played, wait_for
from lab_ways import INWARD, OUTWARD, PARTNER, RELAYS, Ways

from tests.support.pki import Authority, Issued, lab_authority, write

PEERS = ("-i", str(TOP / "molecule/relay/lab/peers.yml"))
HOSTS = ("gw1", "branch", *RELAYS)
CONNECTOR = "/etc/ssl/connector.pem"
ISSUERS = "/etc/ssl/exchange-issuers.pem"
CONFIGURATION = (
    "find /etc/postfix /etc/exim4 -type f ! -name '*.lock' ! -name prng_exch 2>/dev/null | sort | "
    "while read f; do echo $(stat -c '%n %a %u %g' $f) $(sha256sum <$f); done"
)


def connector(fleet: Fleet, host: str, issued: Issued, chain: bool = True) -> None:
    """Put a client certificate on a relay, as its administrator does."""
    text = issued.key_pem + (issued.fullchain_pem if chain else issued.certificate_pem)
    owner = "root:Debian-exim" if host == "rx12" else "root:root"
    fleet.run(host, f"umask 077; cat >{CONNECTOR} && chown {owner} {CONNECTOR} && chmod 640 {CONNECTOR}", text.decode())


@pytest.fixture(scope="module")
def authority(fleet: Fleet) -> Authority:
    """The lab's authority, a public one for Exchange Online; the relays have certificates of it for the connector."""
    found = lab_authority(fleet.pki, fleet.ca)
    assert found
    for host in RELAYS:
        connector(fleet, host, found.issue([f"{host}.fleet.test"]))
        fleet.run(host, f"cat >{ISSUERS} && chmod 644 {ISSUERS}", fleet.ca.read_text())
    return found


@pytest.fixture(scope="module")
def before(fleet: Fleet) -> dict[str, str]:
    """The files of the mail servers before the first change."""
    return {host: fleet.run(host, CONFIGURATION) for host in HOSTS}


def explained(host: str, words: str) -> str:
    """The finding for words of a queue of Exchange."""
    return str(explain_queue({"exch": "exchange", "exo": "exchange_online"}[host], words).code)


def in_order(results: list[dict[str, Any]], steps: list[str], plan: dict[str, Any]) -> list[tuple[str, str]]:
    """Who changed when, by start and end of each step in the run; it has to be the order that the plan computed.

    steps: of the playbook, by the numbers of its plays.
    """
    ran: dict[tuple[str, str], tuple[float, float]] = {}
    for one in results:
        number = re.match(r"(\d) ", one["play"])
        if number and one["changed"]:
            key = (steps[int(number[1]) - 1], one["host"])
            began, ended = ran.get(key, (one["began"], one["ended"]))
            ran[key] = (min(began, one["began"]), max(ended, one["ended"]))
    batches = []
    for step, planned in plan["steps"].items():
        hosts = iter(planned["hosts"])
        batches += [[(step, next(hosts)) for _ in range(size)] for size in planned["batches"]]
    assert {one for batch in batches for one in batch} == set(ran)
    for batch, then in zip(batches, batches[1:], strict=False):
        assert max(ran[one][1] for one in batch) <= min(ran[one][0] for one in then), (batch, then)
    return sorted(ran, key=lambda one: ran[one])


def planned(fleet: Fleet, playbook: str, directory: Path) -> tuple[Played, list[dict[str, Any]], dict[str, Any]]:
    """Run a playbook with the peers: how it ended, the results of its tasks, and its plan."""
    done, results = fleet.play_and_count(
        playbook, directory / "results", *PEERS, variables={"starttls_plan_file": str(directory / "plan.json")}
    )
    return done, results, json.loads((directory / "plan.json").read_text())


def test_exchange_requires_tls_before_the_relays_accept_it(ways: Ways, before: dict[str, str]) -> None:
    """The hazard that this collection began with: mail stays in Exchange's queue, and the words in it are explained."""
    assert before
    ways.inward(*INWARD)
    ways.outward(*OUTWARD)
    ways.once()
    ways.exchanges["exch"].set("SendConnectors", RequireTLS=True)
    ways.exchanges["exo"].set("OutboundConnectors", TlsSettings="EncryptionOnly")
    ways.outward(*OUTWARD)
    for name, one in ways.exchanges.items():
        waits = one.waits()
        assert waits["MessageCount"] == 1
        assert explained(name, waits["LastError"]) == "peer_met_no_starttls", waits["LastError"]
    assert len(ways.lost()) == 2


def test_enable_in_the_order_that_the_hops_ask_for(
    fleet: Fleet, ways: Ways, authority: Authority, tmp_path: Path
) -> None:
    assert authority
    # Exchange keeps its mail until the relays offer TLS; the others send all the time.
    with ways.flowing():
        done, results, plan = planned(fleet, "playbooks/enable_tls.yml", tmp_path)
        assert done.status == 0, done.output
    order = in_order(results, ["accept", "offer", "peers", "modes", "require"], plan)
    # The chain is branch -> rp13 -> gw1 -> outside, and the inventory has branch first. rx12 also sends to its peer rp13.
    assert order[0] == ("accept", "gw1") and order[3] == ("offer", "branch") and order[-1] == ("modes", "gw1")
    assert set(order[1:3]) == {("offer", "rp13"), ("offer", "rx12")}
    assert set(order[4:-1]) == {("peers", "rp13"), ("peers", "rx12")}
    ways.flush()  # as Retry-Queue in Exchange
    ways.once()


def test_verify_and_what_the_other_sides_saw(fleet: Fleet, ways: Ways) -> None:
    verdict = fleet.play("playbooks/verify_tls.yml", *PEERS)
    assert verdict.status == 0, verdict.output
    drift = fleet.play("playbooks/plan_tls.yml", *PEERS, variables={"starttls_plan_fail_on": "drift"})
    assert drift.status == 0, drift.output

    marks = dict(zip(INWARD, ways.inward(*INWARD), strict=True))
    for domain, host in INWARD.items():
        seen = ways.exchanges[host].arrival(marks[domain])
        relay = f"{'rp13' if domain in ('echo.test', 'golf.test') else 'rx12'}.fleet.test"
        assert seen["Tls"] and seen["Helo"] == relay
        # The client certificate goes to Exchange Online and to nobody else.
        assert seen["ClientNames"] == ([relay] if host == "exo" else [])
    for host in RELAYS:
        mark = ways.submit(host, "trace@fleet.test", "somebody@mike.test")
        seen = ways.exchanges["exo"].arrival(mark)
        assert seen["AttributedTo"] == "From the relay" and seen["ClientNames"] == [f"{host}.fleet.test"]
    for name, mark in zip(OUTWARD, ways.outward(*OUTWARD), strict=True):
        assert fleet.arrived_over_tls("outside", mark)
        hops = [" ".join(one.split()) for one in fleet.copies("outside", mark)[0].get_all("Received")]
        assert len(hops) == 4, (name, hops)
        assert all(re.search(r"(?i)with e?smtps|version=TLS", one) for one in hops[:-1]), hops
    # Between the hosts of the fleet: by the peer rp13, and along the chain.
    assert fleet.arrived_over_tls("rp13", ways.submit("rx12", "trace@lima.test", "trace@kilo.test"))
    mark = ways.submit("branch", "trace@juliett.test", PARTNER)
    assert fleet.arrived_over_tls("outside", mark)
    hops = [" ".join(one.split()) for one in fleet.copies("outside", mark)[0].get_all("Received")]
    assert [re.search(r"(?i)by (\w+)[\w.]* .*with e?smtps", one)[1] for one in hops[:-1]] == ["mx", "gw1", "rp13"], hops
    ways.once()


def test_new_certificates(fleet: Fleet, ways: Ways, authority: Authority) -> None:
    """Those that the relays serve, and those that they present."""
    served = {host: authority.issue([f"{host}.fleet.test"]) for host in RELAYS}
    for host, issued in served.items():
        write(fleet.pki / f"{host}.key", issued.key_pem, 0o600)
        write(fleet.pki / f"{host}.pem", issued.certificate_pem)
        connector(fleet, host, authority.issue([f"{host}.fleet.test"], common_name=f"new.{host}.fleet.test"))
    with ways.flowing():
        done = fleet.play("playbooks/enable_tls.yml", *PEERS)
        assert done.status == 0, done.output
    assert {host for host, count in done.changed.items() if count} == set(RELAYS), done.output
    for host, issued in served.items():
        assert issued.certificate_pem.decode().strip() in fleet.s_client(host, "-showcerts").output
        mark = ways.submit(host, "trace@fleet.test", "somebody@mike.test")
        assert ways.exchanges["exo"].arrival(mark)["ClientCertificate"] == f"CN=new.{host}.fleet.test"
    ways.once()


def test_exchange_loses_its_certificate_and_mail_waits_on_the_relays(fleet: Fleet, ways: Ways, tmp_path: Path) -> None:
    """Nobody here can change Exchange: the playbook says what to do there, and a rerun goes on."""
    exchange = ways.exchanges["exch"]
    exchange.set("ReceiveConnectors", TlsCertificateName="<I>CN=gone<S>CN=gone")
    marks = ways.inward("echo.test", "foxtrot.test")

    def waiting(host: str) -> list[dict[str, Any]]:
        return [one for one in fleet.result(host, "deferred_mail_info", {"kind": "auto"})["messages"] if one["for_tls"]]

    for host in RELAYS:
        assert wait_for(lambda host=host: waiting(host)), ways.queues()
        [one] = waiting(host)
        assert (one["cause"], one["next_hop"], one["side"]) == ("not_offered", "exch.fleet.test", "next_hop"), one
    stopped = fleet.play("playbooks/recover_deferred_mail.yml", *PEERS)
    said = " ".join(stopped.output.split())
    assert stopped.status != 0
    assert re.search(r"exch\.fleet\.test[^.]* STARTTLS", said), stopped.output
    assert "then run recover_deferred_mail again" in said, stopped.output
    assert set(stopped.changed.values()) == {0}
    assert set(ways.lost()) == set(marks)

    exchange.set("ReceiveConnectors", TlsCertificateName=None)
    done = fleet.play(
        "playbooks/recover_deferred_mail.yml",
        *PEERS,
        variables={"starttls_recovery_file": str(tmp_path / "queue.json")},
    )
    assert done.status == 0, done.output
    rows = [one for one in json.loads((tmp_path / "queue.json").read_text())["queue"] if one["for_tls"]]
    assert {(one["host"], one["next_hop"], one["before"], one["after"]) for one in rows} == {
        (host, "exch.fleet.test", 1, 0) for host in RELAYS
    }
    ways.once()
    for mark in marks:
        assert exchange.arrival(mark)["Tls"]


def test_refusals_of_exchange_online_are_explained(fleet: Fleet, ways: Ways, authority: Authority) -> None:
    """After a good handshake, at RCPT: known ones are explained, others are quoted."""
    exo, asked = ways.exchanges["exo"], "somebody@mike.test"
    before = fleet.digests(HOSTS)
    # The renewed client certificates: one lost its name, the other one came without its intermediates.
    connector(fleet, "rp13", authority.issue(["relay.elsewhere.test"]))
    connector(fleet, "rx12", authority.issue(["rx12.fleet.test"]), chain=False)
    failed = fleet.play("playbooks/verify_tls.yml", *PEERS, variables={"starttls_send_messages": False})
    assert failed.status != 0
    for host in RELAYS:
        assert re.search(rf'{host}: error: .*RCPT with "550 5\.7\.64 TenantAttribution', failed.output), failed.output
    for host in RELAYS:
        connector(fleet, host, authority.issue([f"{host}.fleet.test"]))
    for reply, shown in (
        (
            "550 5.7.51 TenantInboundAttribution; Rejecting",
            'unknown reply: "550 5.7.51 TenantInboundAttribution; Rejecting',
        ),
        ("421 4.4.2 Connection dropped", 'unknown reply: "421 4.4.2 Connection dropped'),
    ):
        exo.reply("rcpt", reply, Address=asked)
        peer = {
            "name": "online",
            "kind": "exchange_online",
            "hosts": ["online.exchange.test"],
            "domains": ["mike.test"],
        }
        proof = {"client_certificate": CONNECTOR, "proof_sender": "trace@fleet.test", "proof_recipient": asked}
        for host in RELAYS:
            [one] = fleet.result(host, "peer_tls_info", {"peers": [{**peer, **proof}]})["peers"]
            assert any(shown in finding["message"] for finding in one["findings"]), one["findings"]
    exo.reply("rcpt")
    assert fleet.digests(HOSTS) == before


def test_disable_backwards(fleet: Fleet, ways: Ways, tmp_path: Path) -> None:
    ways.exchanges["exch"].set("SendConnectors", RequireTLS=False)
    ways.exchanges["exo"].set("OutboundConnectors", TlsSettings=None)
    with ways.flowing():
        done, results, plan = planned(fleet, "playbooks/disable_tls.yml", tmp_path)
        assert done.status == 0, done.output
    order = in_order(results, ["stop_accepting", "off", "peers_off", "modes", "relax"], plan)
    assert order[0] == ("modes", "gw1") and order[-1] == ("stop_accepting", "gw1")
    assert set(order[1:3]) == {("peers_off", "rp13"), ("peers_off", "rx12")}
    assert order.index(("off", "branch")) < order.index(("off", "rp13"))
    ways.once()
    assert not any(fleet.offers_starttls(host) for host in HOSTS)
    for domain, mark in zip(INWARD, ways.inward(*INWARD), strict=True):
        seen = ways.exchanges[INWARD[domain]].arrival(mark)
        # Without its client certificate a relay would be a stranger to Exchange Online.
        assert (seen["Tls"] is not None) == bool(seen["ClientNames"]) == (INWARD[domain] == "exo"), seen


def test_uninstall(fleet: Fleet, ways: Ways, before: dict[str, str]) -> None:
    """No mail flows meanwhile: a peer is taken out only when nothing is on its way to it, and the run says so otherwise."""
    done = fleet.play("playbooks/uninstall.yml", *PEERS)
    assert done.status == 0, done.output
    assert {host: fleet.run(host, CONFIGURATION) for host in before} == before
    assert not any(fleet.run(host, "ls /var/lib/mailfleet-starttls", check=False) for host in before)
    ways.inward(*INWARD)
    ways.outward(*OUTWARD)
    ways.once()
