"""A certificate that was renewed on the host, past the controller: it stays if it is good, stands in the way if not, and it is said."""

from __future__ import annotations

import contextlib
import re
import smtplib
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest
from lab_testinfra import Fleet

from tests.support.pki import Issued, lab_authority, now, self_signed

PEM = "/etc/mailfleet/starttls.pem"
QUICK = {"starttls_send_messages": False}


def lines(output: str, host: str) -> list[str]:
    """The lines of the plan on the certificate that a host has. Hosts with the same one share a line."""
    found = re.findall(rf"(?m)^.*: {PEM} on the host holds a certificate that ends later.*$", output)
    return [one for one in found if host in one.partition(":")[0]]


def renewed(fleet: Fleet, host: str, issued: Issued) -> str:
    """Replace the file as a renewal hook would, with the owner and mode that it has; return its digest."""
    fleet.run(
        host,
        f"cp -p {PEM} {PEM}.new && cat >{PEM}.new && mv {PEM}.new {PEM}",
        (issued.key_pem + issued.fullchain_pem).decode(),
    )
    return fleet.run(host, f"sha256sum {PEM}")


@contextlib.contextmanager
def clients(fleet: Fleet, *hosts: str) -> Iterator[dict[str, Counter[str]]]:
    """Connect to the mail port of each host as fast as it answers, while the block lasts: host -> how often which end."""
    ended = threading.Event()
    seen: dict[str, Counter[str]] = {host: Counter() for host in hosts}

    def connect(host: str) -> None:
        while not ended.is_set():
            try:
                with smtplib.SMTP(fleet.address(host), 25, "client.partner.test", timeout=20):
                    pass
                seen[host]["greeted"] += 1
            except OSError as error:
                seen[host][type(error).__name__] += 1

    threads = [threading.Thread(target=connect, args=(host,)) for host in hosts]
    for one in threads:
        one.start()
    yield seen
    ended.set()
    for one in threads:
        one.join()


@pytest.fixture
def on(fleet: Fleet) -> Iterator[None]:
    played = fleet.play("playbooks/enable_tls.yml", variables=QUICK)
    assert played.status == 0, played.output
    yield
    played = fleet.play("playbooks/disable_tls.yml", variables=QUICK)
    assert played.status == 0, played.output


def test_newer_stays_and_an_unfit_one_stands_in_the_way(fleet: Fleet, on: None) -> None:
    authority = lab_authority(fleet.pki, fleet.ca)
    assert authority
    end = now() + timedelta(days=799)
    kept = {
        host: renewed(fleet, host, authority.issue([f"{host}.fleet.test"], not_after=end))
        for host in ("pf13", "ex12", "ex13")
    }
    former = fleet.run("pf12", f"cat {PEM}")
    renewed(fleet, "pf12", self_signed(["pf12.fleet.test"], days=900))

    plan = fleet.play("playbooks/plan_tls.yml")
    assert plan.status != 0
    [line] = lines(plan.output, "pf12")
    assert "[self_signed]" in line and "set starttls_certificate_replace: true" in line

    fleet.run("pf12", f"cat >{PEM}", former)
    played = fleet.play("playbooks/enable_tls.yml", variables=QUICK)
    assert played.status == 0, played.output
    for host, digest in kept.items():
        [line] = lines(played.output, host)
        assert f"ends later ({end:%Y-%m-%d}" in line and "so it stays" in line
        assert fleet.run(host, f"sha256sum {PEM}") == digest
        seen = fleet.s_client(host, "-CAfile", str(fleet.ca), "-verify_return_error").output
        assert f"NotAfter: {end:%b} {end.day:2d}" in seen, seen
    again = fleet.play("playbooks/enable_tls.yml", variables=QUICK)
    assert (again.status, set(again.changed.values())) == (0, {0}), again.output

    # A change of the certificate alone: Exim is not told to read anything, as it would refuse connections while it begins anew.
    with clients(fleet, "ex12", "ex13") as seen:
        played = fleet.play("playbooks/enable_tls.yml", variables={**QUICK, "starttls_certificate_replace": True})
    assert played.status == 0, played.output
    assert "ends later" not in played.output
    assert all(set(ends) == {"greeted"} and ends["greeted"] > 50 for ends in seen.values()), seen
    for host, digest in kept.items():
        assert fleet.run(host, f"sha256sum {PEM}") != digest
