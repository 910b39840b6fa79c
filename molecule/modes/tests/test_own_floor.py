"""A floor for the TLS versions of the transports that delivery modes use: what the receiving server says, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from lab_testinfra import DOMAINS, Fleet, of_kind, on_each, wait_for

KIND = {"gw1": "postfix", "gw13": "postfix", "gx12": "exim", "gx13": "exim"}
GATEWAYS = on_each(KIND)
SERVER = "pf12"
FLOOR = "TLSv1.2"
ABOVE = "TLSv1.3"
"""The floor that a server does not reach which speaks TLS 1.2 at most."""


@pytest.fixture
def old_server(fleet: Fleet) -> Iterator[str]:
    """A Postfix that has no TLS 1.3, for a while."""
    names = "smtpd_tls_protocols smtpd_tls_mandatory_protocols"
    before = fleet.run(SERVER, f"postconf -n {names}")
    try:
        fleet.run(
            SERVER, f'for name in {names}; do postconf -e "$name = >=TLSv1, <=TLSv1.2"; done; postfix reload 2>&1'
        )
        assert wait_for(lambda: fleet.s_client(SERVER, "-tls1_3").status != 0)
        yield SERVER
    finally:
        fleet.run(
            SERVER,
            f'postconf -X {names}; while read -r line; do postconf -e "$line"; done; postfix reload 2>&1',
            before,
        )
        assert wait_for(lambda: fleet.s_client(SERVER, "-tls1_3").status == 0)


def configs(mode: str, host: str = SERVER) -> list[dict[str, Any]]:
    """The option email_configs for one mail server."""
    return [{"name": host, "domains": [DOMAINS[host]], "servers": [f"{host}.fleet.test"], "delivery_mode": mode}]


def changed(fleet: Fleet, gateway: str, *arguments: str, **options: Any) -> dict[str, Any]:
    """What gateway_tls returns."""
    return fleet.result(gateway, "gateway_tls", {**of_kind(KIND[gateway]), **options}, *arguments)


def version(fleet: Fleet, gateway: str, host: str) -> str:
    """The TLS version with which a message comes from the gateway, in the words of the receiving server; empty in plaintext."""
    mark = fleet.send("outside", [f"trace@{DOMAINS[host]}"], tls=True, to=gateway)
    message = wait_for(lambda: fleet.mail(host, mark))
    assert message is not None, f"{mark} did not arrive on {host}"
    found = re.search(r"TLS_?v?1[._]?(\d)", " ".join(str(message.get_all("Received", [""])[0]).split()), re.IGNORECASE)
    return f"TLSv1.{found[1]}" if found else ""


@GATEWAYS
@pytest.mark.changes_servers
def test_a_server_below_the_floor_refuses_it_if_mail_would_wait_or_gets_plaintext_and_that_is_said(
    fleet: Fleet, gateway: str, old_server: str
) -> None:
    done = changed(fleet, gateway, email_configs=configs("opportunistic"))
    assert not done["failed"], done["output"]
    assert version(fleet, gateway, old_server) == "TLSv1.2"
    files = fleet.digests([gateway])

    # Postfix keeps mail back for minimal_backoff_time after a handshake that failed; Exim goes on in plaintext at once.
    for mode in ("required", *(["opportunistic"] if KIND[gateway] == "postfix" else [])):
        refused = changed(fleet, gateway, email_configs=configs(mode), min_tls=ABOVE)
        assert refused["failed"]
        said = " ".join(refused["msg"].split())
        assert (
            f"starttls_min_tls {ABOVE} is refused, because mail would be deferred: {old_server}.fleet.test:25" in said
        ), said
        assert fleet.digests([gateway]) == files
    if KIND[gateway] == "postfix":
        return

    done = changed(fleet, gateway, email_configs=configs("opportunistic"), min_tls=ABOVE)
    assert not done["failed"], done["output"]
    warned = " ".join(done["output"].split())
    assert f"{old_server}.fleet.test:25" in warned and "so mail would go there in plaintext" in warned
    assert version(fleet, gateway, old_server) == ""

    assert changed(fleet, gateway, email_configs=configs("opportunistic"), min_tls="none")["changed"]
    assert version(fleet, gateway, old_server) == "TLSv1.2"
    assert fleet.digests([gateway]) == files


@GATEWAYS
def test_a_floor_holds_in_every_mode_and_a_second_run_changes_nothing(fleet: Fleet, gateway: str) -> None:
    wanted: dict[str, Any] = {"email_configs": configs("required"), "min_tls": FLOOR}
    assert not changed(fleet, gateway, email_configs=configs("required"))["failed"]
    files = fleet.digests([gateway])
    predicted = changed(fleet, gateway, "--check", **wanted)
    assert predicted["changed"] and fleet.digests([gateway]) == files
    assert changed(fleet, gateway, **wanted)["changed"]
    assert version(fleet, gateway, SERVER) >= FLOOR
    again = changed(fleet, gateway, **wanted)
    assert not again["failed"] and not again["changed"], again["output"]
    # A run that says nothing of a floor leaves it as it is.
    assert not changed(fleet, gateway, email_configs=configs("required"))["changed"]
    held = fleet.result(gateway, "inbound_tls_mode_info", {"gateway": KIND[gateway]})
    assert [one for one in held.get("differences") or () if "floor" in str(one)] == []
    assert changed(fleet, gateway, email_configs=configs("required"), min_tls="none")["changed"]
    assert fleet.digests([gateway]) == files


@GATEWAYS
def test_what_the_gateway_accepts_has_a_floor_too(fleet: Fleet, gateway: str) -> None:
    def accepted() -> list[str]:
        return [
            one for one in ("-tls1", "-tls1_1", "-tls1_2")
            if fleet.s_client(gateway, one, "-cipher", "DEFAULT@SECLEVEL=0").status == 0
        ]  # fmt: skip

    files, before = fleet.digests([gateway]), accepted()
    done = changed(fleet, gateway, inbound="offered", min_tls=FLOOR)
    assert not done["failed"] and done["changed"], done["output"]
    assert accepted() == ["-tls1_2"]
    again = changed(fleet, gateway, inbound="offered", min_tls=FLOOR)
    assert not again["failed"] and not again["changed"], again["output"]
    assert changed(fleet, gateway, inbound="offered", min_tls="none")["changed"]
    assert accepted() == before
    assert fleet.digests([gateway]) == files
