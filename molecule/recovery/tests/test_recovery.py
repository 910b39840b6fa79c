"""Jams for want of TLS on real daemons, and the way out of them: every message is delivered once, and what is held stays held."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

from lab_testinfra import DOMAINS, Fleet, of_kind, wait_for

PLAYBOOK = "playbooks/recover_deferred_mail.yml"
SENDERS = ("pf12", "ex13")
HOSTS = ("gw1", *SENDERS)
REQUIRED = {"outbound": "required", "require_without_evidence": True}


def require(fleet: Fleet, *hosts: str) -> None:
    """The hazard: a mail server requires TLS, and the gateway does not offer it."""
    for host in hosts:
        done = fleet.result(host, "mail_server_tls", REQUIRED)
        assert not done["failed"], done["output"]


def submit(fleet: Fleet, host: str) -> str:
    """Hand a message for the partner to a mail server, and return its mark."""
    mark = uuid.uuid4().hex
    fleet.run(host, f"sendmail -f trace@{DOMAINS[host]} trace@partner.test", f"Subject: {mark}\n\nx\n")
    return mark


def queue(fleet: Fleet, host: str, kind: str = "auto") -> list[dict[str, Any]]:
    """What waits, as the collection reads it."""
    seen = fleet.result(host, "deferred_mail_info", {"kind": kind})
    assert seen.get("looked"), seen["output"]
    messages: list[dict[str, Any]] = seen["messages"]
    return messages


def jammed(fleet: Fleet, host: str, count: int, kind: str = "auto") -> list[dict[str, Any]]:
    """Wait until so many messages wait for want of TLS."""
    found = wait_for(
        lambda: seen if len(seen := queue(fleet, host, kind)) >= count and all(one["for_tls"] for one in seen) else None
    )
    assert found, queue(fleet, host, kind)
    return list(found)


def once(fleet: Fleet, host: str, marks: list[str], seconds: float = 30, tls: bool = True) -> None:
    """Each message has arrived once. tls: the hop that the jam was on used TLS, into the gateway or from it."""
    for mark in marks:
        assert wait_for(lambda mark=mark: fleet.mail(host, mark), seconds), f"{mark} did not arrive on {host}"
        copies = fleet.copies(host, mark)
        assert len(copies) == 1
        hops = [" ".join(str(one).split()) for one in copies[0].get_all("Received", [])]
        [jam] = [one for one in hops if f"by {'gw1.fleet.test' if host == 'outside' else f'{host}.fleet.test'} " in one]
        assert not tls or re.search(r" with e?smtps\b", jam, re.IGNORECASE), jam


def rows(path: Path, host: str) -> list[tuple[str, str, int, int]]:
    """Instance, next hop, and the counts before and after of what waited for want of TLS."""
    facts = json.loads(path.read_text())["queue"]
    return [
        (one["instance"], one["next_hop"], one["before"], one["after"])
        for one in facts
        if one["host"] == host and one["for_tls"]
    ]


def test_the_mail_servers_require_tls_before_the_gateway_accepts_it(fleet: Fleet, tmp_path: Path) -> None:
    """The inventory wants ex13 to require TLS, so nothing of its mail may go in plaintext. pf12 was set so by hand."""
    require(fleet, *SENDERS)
    marks = {host: [submit(fleet, host) for _ in range(2)] for host in SENDERS}
    held = {host: submit(fleet, host) for host in SENDERS}
    for host in SENDERS:
        for one in jammed(fleet, host, 3):
            assert (one["cause"], one["next_hop"], one["side"]) == ("not_offered", "gw1.fleet.test", "next_hop"), one
            assert one["next_try"] and one["arrived"] and one["size"] and one["sender"] == f"trace@{DOMAINS[host]}", one
    # Somebody holds one message of each by hand.
    fleet.run("pf12", f"cd /var/spool/postfix && postsuper -h $(basename $(grep -rl {held['pf12']} deferred))")
    fleet.run("ex13", f"cd /var/spool/exim4/input && exim4 -Mf $(basename $(grep -l {held['ex13']} *-H) -H)")
    also = tmp_path / "also.yml"
    also.write_text("all: {children: {mail_servers: {hosts: {ex13: {starttls_outbound: required}}}}}\n")

    before = fleet.digests(HOSTS)
    dry = fleet.play(PLAYBOOK, "-i", str(also), "--check")
    assert dry.status == 0, dry.output
    steps = re.findall(r"Would do \d: (.*)", dry.output)
    assert steps == ["TLS off on pf12 when it sends", "TLS on at the gateway gw1", "TLS on at pf12 when it sends"]
    assert "a requirer without an acceptor" in dry.output
    assert fleet.digests(HOSTS) == before
    assert len(queue(fleet, "pf12")) == len(queue(fleet, "ex13")) == 3

    done = fleet.play(PLAYBOOK, "-i", str(also), variables={"starttls_recovery_file": str(tmp_path / "queue.json")})
    assert done.status == 0, done.output
    once(fleet, "outside", marks["pf12"], tls=False)
    once(fleet, "outside", marks["ex13"])
    for host in SENDERS:
        assert rows(tmp_path / "queue.json", host) == [("", "gw1.fleet.test", 2, 0)]
        assert [one["held"] for one in queue(fleet, host)] == [True]
        assert fleet.mail("outside", held[host]) is None
        state = fleet.result(host, "mail_server_tls", REQUIRED, "--check")
        assert not state["changed"], "it does not require TLS as before"
    assert done.output.count("held, left alone") == 4  # before and after, on both

    again = fleet.play(PLAYBOOK)
    assert again.status == 0, again.output
    assert "No mail waits for want of TLS. Nothing is changed." in again.output
    assert set(again.changed.values()) == {0}, again.output
    fleet.run("pf12", "postsuper -d ALL hold")
    fleet.run("ex13", "exim4 -Mrm $(exiqgrep -zi)", check=False)


def test_the_gateway_requires_tls_before_the_mail_servers_offer_it(fleet: Fleet, tmp_path: Path) -> None:
    """In both instances of the gateway: mail of a domain that requires TLS, and mail that arrived over TLS for one that matches it."""
    configs = [
        {"name": "alpha", "domains": ["alpha.test"], "servers": ["pf12.fleet.test"], "delivery_mode": "required"},
        {
            "name": "delta",
            "domains": ["delta.test"],
            "servers": ["ex13.fleet.test"],
            "delivery_mode": "match_sender_strict",
        },
    ]
    mode = {"gateway": "postfix", "email_configs": configs, "require_without_evidence": True}
    done = fleet.result("gw1", "inbound_tls_mode", mode)
    assert not done["failed"], done["output"]
    marks = {
        "pf12": [fleet.send("outside", ["trace@alpha.test"], tls) for tls in (True, False)],
        "ex13": [fleet.send("outside", ["trace@delta.test"], True)],
    }
    waits = jammed(fleet, "gw1", 3, "postfix")
    assert {(one["instance"], one["next_hop"]) for one in waits} == {
        ("", "pf12.fleet.test"),
        ("postfix-mailfleet", "ex13.fleet.test"),
    }

    done = fleet.play(PLAYBOOK, variables={"starttls_recovery_file": str(tmp_path / "queue.json")})
    assert done.status == 0, done.output
    for host, mine in marks.items():
        once(fleet, host, mine)
    assert rows(tmp_path / "queue.json", "gw1") == [
        ("", "pf12.fleet.test", 2, 0),
        ("postfix-mailfleet", "ex13.fleet.test", 1, 0),
    ]
    assert queue(fleet, "gw1", "postfix") == []


def test_a_side_that_the_run_cannot_change_is_not_waited_for(fleet: Fleet) -> None:
    off = fleet.result("gw1", "gateway_tls", {"inbound": "disabled"})
    assert not off["failed"], off["output"]
    mark = submit(fleet, "pf12")
    jammed(fleet, "pf12", 1)
    # A test message waits behind it, and the verdict says why.
    verdict = fleet.play(
        "playbooks/verify_tls.yml", "--limit", "pf12,outside", variables={"starttls_message_timeout": 2}
    )
    assert verdict.status != 0
    assert "out waits" in verdict.output
    assert re.search(
        r"the message to the outside waits on pf12 for gw1\.fleet\.test: TLS is required, but was not offered by host "
        r"gw1\.fleet\.test\S+; next try at \d{4}-",
        " ".join(verdict.output.split()),
    ), verdict.output
    before = fleet.digests(HOSTS)
    stopped = fleet.play(PLAYBOOK, "--limit", "pf12")
    assert stopped.status != 0
    assert "gw1 is not in this run: have it offer STARTTLS" in stopped.output
    assert "then run recover_deferred_mail again" in stopped.output
    assert set(stopped.changed.values()) == {0}
    assert fleet.digests(HOSTS) == before
    assert len(queue(fleet, "pf12")) == 2

    on = fleet.result("gw1", "gateway_tls", {"inbound": "offered"})
    assert not on["failed"], on["output"]
    rerun = fleet.play(PLAYBOOK, "--limit", "pf12")
    assert rerun.status == 0, rerun.output
    assert rerun.changed["pf12"] <= 1, rerun.output  # it tries again, and does nothing else
    once(fleet, "outside", [mark])


def test_an_exim_gateway_that_requires_tls(fleet: Fleet, tmp_path: Path) -> None:
    off = fleet.result("pf12", "mail_server_tls", {"inbound": "disabled"})
    assert not off["failed"], off["output"]
    configs = [
        {"name": "alpha", "domains": ["alpha.test"], "servers": ["pf12.fleet.test"], "delivery_mode": "required"}
    ]
    mode = {**of_kind("exim"), "email_configs": configs, "require_without_evidence": True}
    done = fleet.result("gx12", "inbound_tls_mode", mode)
    assert not done["failed"], done["output"]
    marks = [fleet.send("outside", ["trace@alpha.test"], False, to="gx12") for _ in range(2)]
    waits = jammed(fleet, "gx12", 2, "exim")
    assert {one["next_hop"] for one in waits} == {"pf12.fleet.test"}
    also = tmp_path / "also.yml"
    also.write_text("all: {children: {mail_gateways: {hosts: {gx12: {}}}}}\n")
    done = fleet.play(PLAYBOOK, "-i", str(also), "--limit", "gx12,pf12")
    assert done.status == 0, done.output
    once(fleet, "pf12", marks)
    assert queue(fleet, "gx12", "exim") == []
