"""TLS on an Exchange server between a gateway and a relay: on, new certificates, a jam, off, and everything put back, under real mail.

The tests are one story, in this order. Before each run, --check has to say what it does to Exchange. No real Exchange was asked: the
cmdlets are stubs, and the server on the wire is a stand-in.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from lab_exchange_server import HOST, PARTNER, ExchangeServer, Ways
from lab_testinfra import STATE, Fleet

TLS = {"in": True, "out": True, "relay in": True, "relay out": True}


@pytest.fixture(scope="module")
def before(exchange_server: ExchangeServer) -> dict[str, dict[str, Any]]:
    """Connectors and certificates before the first change."""
    return exchange_server.objects()


def assert_as_before(after: dict[str, dict[str, Any]], before: dict[str, dict[str, Any]]) -> None:
    """The same objects, with the same values. A property that was not in the state had its default."""
    assert {name: {prop: after[name][prop] for prop in one} for name, one in before.items()} == before
    assert set(after) == set(before)


def test_a_change_that_the_wire_does_not_show_is_undone(
    exchange_server: ExchangeServer, before: dict[str, dict[str, Any]], ways: Ways
) -> None:
    """The cmdlets say yes, and the gateway's handshake fails: the certificate is imported, and taken out again."""
    exchange_server.stand_in.change(
        lambda state: state.update(Replies=[{"At": "starttls", "Reply": "454 4.7.0 TLS is not available"}])
    )
    done = exchange_server.play("enable_tls", starttls_peers=[])  # the relay would not get that far
    exchange_server.stand_in.change(lambda state: state.update(Replies=[]))
    assert done.status == 2 and "454 4.7.0 TLS is not available; the former state was put back" in done.output, (
        done.output
    )
    assert_as_before(exchange_server.objects(), before)
    ways.all()
    ways.once()


def test_enable(exchange_server: ExchangeServer, ways: Ways, before: dict[str, Any], tmp_path: Path) -> None:
    assert before
    ways.all()
    ways.once()
    done = exchange_server.predicted("enable_tls", tmp_path)
    assert "Exchange Server" in done.output
    assert ways.over_tls(ways.all()) == TLS
    again = exchange_server.planned("enable_tls", tmp_path)
    assert again["result"] == "clean", again
    own = exchange_server.objects()["mailfleet_peer_relay"]
    assert own["RequireTLS"] and own["SmartHosts"] == ["rp13.fleet.test"]


def test_verify_shows_what_was_tested_and_what_was_not(exchange_server: ExchangeServer) -> None:
    verdict = exchange_server.play("verify_tls")
    assert verdict.status == 0, verdict.output
    rows = [" ".join(line.split()) for line in verdict.output.splitlines() if line.startswith(HOST)]
    assert any(re.match(rf"{HOST} Exchange Server offered TLSv1.2 .* gw1, controller pass", row) for row in rows), rows
    # Exchange tests nobody itself.
    assert any(re.match(rf"{HOST} to relay .* not tested to RCPT", row) for row in rows), rows


@pytest.mark.parametrize("way", ["same issuer and subject", "another issuer and subject"])
def test_renew(exchange_server: ExchangeServer, ways: Ways, tmp_path: Path, fleet: Fleet, way: str) -> None:
    if way.startswith("same"):
        exchange_server.certificate()
    else:
        exchange_server.certificate("renewed.exch.fleet.test")
    old = set(exchange_server.objects())
    exchange_server.predicted("enable_tls", tmp_path)
    new = set(exchange_server.objects())
    assert len(new - old) == len(old - new) == 1, "the former certificate goes once the new one is proved"
    served = fleet.s_client("exch", "-showcerts").output
    assert (STATE / f"pki/{HOST}.pem").read_text().split("-----END")[0].strip() in served
    assert ways.over_tls(ways.all()) == TLS


def test_a_jam_and_its_recovery(exchange_server: ExchangeServer, ways: Ways, fleet: Fleet) -> None:
    """Exchange insists on TLS, and the gateway does not offer it: the hazard that this collection began with."""
    fleet.run("gw1", "postconf -e smtpd_tls_security_level=none && postfix reload 2>&1")
    exchange_server.stand_in.set("SendConnectors", "To the internet", RequireTLS=True)
    mark = exchange_server.stand_in.submit([PARTNER])
    ways.sent[mark] = "outside"
    assert exchange_server.stand_in.waits()["MessageCount"] == 1
    shown = exchange_server.play("recover_deferred_mail", "--check")
    assert shown.status == 0 and "TLS on at the gateway gw1" in shown.output, shown.output
    done = exchange_server.play("recover_deferred_mail")
    assert done.status == 0, done.output
    ways.once()


def test_disable(exchange_server: ExchangeServer, ways: Ways, tmp_path: Path) -> None:
    exchange_server.predicted("disable_tls", tmp_path)
    assert ways.over_tls(ways.all())["out"] is False


def test_uninstall(exchange_server: ExchangeServer, ways: Ways, before: dict[str, Any], tmp_path: Path) -> None:
    exchange_server.predicted("uninstall", tmp_path)
    assert_as_before(exchange_server.objects(), before)
    ways.all()
    ways.once()
