"""The gateway's outbound side: what it accepts from the mail servers, and how it sends on what they sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab_partner import GATEWAYS, SENDS, Partner, flush, queue
from lab_testinfra import Fleet, of_kind, on_each, report, wait_for

# Mode -> uses TLS for mail that arrived in plaintext, over TLS; then the same for: insists on it.
USES = {
    "plaintext": (False, False),
    "match_sender": (False, True),
    "match_sender_strict": (False, True),
    "opportunistic": (True, True),
    "required": (True, True),
}
INSISTS = {"match_sender_strict": (False, True), "required": (True, True)}
RESULTS: dict[tuple[str, str, str], str] = {}
gateways = on_each(GATEWAYS)


@pytest.fixture(scope="module", autouse=True)
def matrix() -> Iterator[None]:
    """Print what was seen."""
    yield
    columns = [f"{server}, {arrival}" for server in ("offers", "refuses") for arrival in ("in plaintext", "over TLS")]
    rows = [
        f"{gateway} {mode}".ljust(28) + "  ".join(RESULTS.get((gateway, mode, one), "-").ljust(24) for one in columns)
        for gateway, mode in {key[:2] for key in RESULTS}
    ]
    report("gateway send".ljust(28) + "  ".join(column.ljust(24) for column in columns), rows)


def outbound(fleet: Fleet, gateway: str, *arguments: str, **options: Any) -> dict[str, Any]:
    return fleet.result(gateway, "outbound_tls_mode", {**of_kind(GATEWAYS[gateway]), **options}, *arguments)


@gateways
@pytest.mark.parametrize("mode", SENDS)
def test_how_it_sends_on(fleet: Fleet, partner: Partner, gateway: str, mode: str) -> None:
    done = outbound(fleet, gateway, send=mode, require_without_evidence=True)
    assert not done["failed"], done
    assert done["after"]["send"] == mode
    sent = {
        (tls, domain): fleet.send("pf12", [f"trace@{domain}"], tls=tls, to=gateway)
        for tls in (True, False)
        for domain in ("offers.test", "refuses.test")
    }
    together = {
        tls: fleet.send("pf12", ["trace@offers.test", "trace@refuses.test"], tls=tls, to=gateway)
        for tls in (True, False)
    }
    for (tls, domain), mark in sent.items():
        arrival = "over TLS" if tls else "in plaintext"
        if domain == "refuses.test" and INSISTS.get(mode, (False, False))[tls]:
            assert wait_for(lambda: "@refuses.test" in queue(fleet, gateway))
            assert not fleet.copies("outside", mark)
            seen = "queued"
        else:
            seen = "TLS" if fleet.arrived_over_tls("outside", mark) else "plaintext"
            wanted = domain == "offers.test" and USES[mode][tls]
            assert seen == ("TLS" if wanted else "plaintext"), (mode, tls, domain)
        RESULTS[gateway, mode, f"{domain.partition('.')[0]}, {arrival}"] = seen
    for tls, mark in together.items():
        wanted = 1 if INSISTS.get(mode, (False, False))[tls] else 2
        assert wait_for(lambda mark=mark, wanted=wanted: len(fleet.copies("outside", mark)) == wanted)
    assert not outbound(fleet, gateway, send=mode, require_without_evidence=True)["changed"]
    if mode in INSISTS:  # what waited goes out in the next mode
        assert not outbound(fleet, gateway, send="plaintext")["failed"]
        assert wait_for(lambda: (flush(fleet, gateway), "@refuses.test" not in queue(fleet, gateway))[1])


@gateways
def test_required_is_refused_while_nobody_can_say_that_it_works(fleet: Fleet, partner: Partner, gateway: str) -> None:
    refused = outbound(fleet, gateway, send="required")
    assert refused["failed"]
    assert "send required is refused, because mail would be deferred" in refused["msg"]
    assert "enforced_tls_domain" in refused["msg"]


@gateways
def test_what_it_accepts_from_the_mail_servers(fleet: Fleet, partner: Partner, gateway: str) -> None:
    servers = [fleet.address("pf12")]
    code = f"import smtplib; s = smtplib.SMTP('{gateway}.fleet.test'); s.ehlo(); print(s.has_extn('starttls'))"

    def offered() -> dict[str, bool]:
        return {host: "True" in fleet.run(host, f'python3 -c "{code}"') for host in ("pf12", "outside")}

    assert outbound(fleet, gateway, accept="plaintext")["msg"].endswith(
        "name their addresses or networks in mail_servers"
    )
    assert outbound(fleet, gateway, "--check", accept="plaintext", mail_servers=servers)["changed"]
    assert offered() == {"pf12": True, "outside": True}
    assert not outbound(fleet, gateway, accept="plaintext", mail_servers=servers)["failed"]
    assert wait_for(lambda: offered() == {"pf12": False, "outside": True}), offered()
    assert not outbound(fleet, gateway, accept="plaintext")["changed"]

    assert not outbound(fleet, gateway, accept="tls_only")["failed"]
    assert wait_for(lambda: offered() == {"pf12": True, "outside": True}), offered()
    with pytest.raises(AssertionError, match=r"(?s)45[01].*[Ss]ession encryption is required"):
        fleet.send("pf12", ["trace@refuses.test"], tls=False, to=gateway)
    assert fleet.arrived_over_tls("outside", fleet.send("pf12", ["trace@offers.test"], tls=True, to=gateway)) in (
        True,
        False,
    )
    fleet.send("outside", ["trace@alpha.test"], tls=False, to=gateway)  # the internet is not concerned

    assert not outbound(fleet, gateway, accept="both")["failed"]
    assert wait_for(lambda: offered() == {"pf12": True, "outside": True}), offered()
    fleet.send("pf12", ["trace@refuses.test"], tls=False, to=gateway)
    absent = outbound(fleet, gateway, state="absent")
    assert (absent["after"]["accept"], absent["after"]["send"]) == ("plaintext", "plaintext")
    assert wait_for(lambda: offered() == {"pf12": False, "outside": True}), offered()
    assert not outbound(fleet, gateway, accept="both")["failed"]


@gateways
def test_the_wrong_words_change_nothing(fleet: Fleet, partner: Partner, gateway: str) -> None:
    for options, message in (
        (
            {"accept": "both", "mail_servers": ["192.0.2.0/24\n0.0.0.0/0"]},
            "mail_servers holds a line break or another control character",
        ),
        ({"accept": "both", "mail_servers": ["mail.example.com"]}, "is neither an IP address nor a network"),
        ({"send": "off"}, "value of send must be one of"),
    ):
        result = outbound(fleet, gateway, **options)
        assert result["failed"]
        assert message in result["msg"]
