"""playbooks/set_delivery_mode.yml, as a person or an AWX survey plays it."""

from __future__ import annotations

import pytest
from lab_testinfra import Fleet, Played, on_each

PLAYBOOK = "playbooks/set_delivery_mode.yml"
on_gw1 = on_each(["gw1"])


def play(fleet: Fleet, email_config: str, delivery_mode: object, *arguments: str) -> Played:
    return fleet.play(
        PLAYBOOK, *arguments, variables={"starttls_email_config": email_config, "starttls_delivery_mode": delivery_mode}
    )


def held(fleet: Fleet) -> dict[str, str]:
    told = fleet.result("gw1", "inbound_tls_mode_info", {"gateway": "postfix"})
    return {one["name"]: one["delivery_mode"] for one in told["email_configs"]}


@on_gw1
def test_a_mode_is_set_and_a_message_proves_it(fleet: Fleet, gateway: str) -> None:
    before = held(fleet)
    dry = play(fleet, " alpha ", "required", "--check")
    assert dry.status == 0, dry.output
    assert "Plan: set delivery mode: drift" in dry.output
    assert not any(dry.changed.values())
    assert held(fleet) == before
    played = play(fleet, " alpha ", "required\n")
    assert played.status == 0, played.output
    assert held(fleet)["alpha"] == "required"
    row = next(line for line in played.output.splitlines() if line.startswith("pf12 ") and "required" in line)
    assert "in 2/2 TLS" in row
    assert row.rstrip().endswith("pass")
    assert "The inventory still has the mode match_sender for alpha" in played.output
    again = play(fleet, "alpha", "required")
    assert again.status == 0, again.output
    assert set(again.changed.values()) == {0}


@on_gw1
def test_a_server_without_starttls_gets_its_mail_in_plaintext_and_is_no_failure(fleet: Fleet, gateway: str) -> None:
    played = play(fleet, "bravo", "opportunistic")
    assert played.status == 0, played.output
    row = next(line for line in played.output.splitlines() if line.startswith("pf13 ") and "opportunistic" in line)
    assert "in 1/2 TLS" in row
    assert "not offered" in row


@on_gw1
def test_a_mode_that_would_defer_mail_is_refused(fleet: Fleet, gateway: str) -> None:
    before = held(fleet)
    refused = play(fleet, "bravo", "required")
    assert refused.status != 0
    assert "Plan: set delivery mode: blocked" in refused.output
    assert (
        "email config bravo: 'required' needs a handshake with pf13.fleet.test:25, seen from the gateway gw1"
        in refused.output
    )
    assert "server_without_starttls" in refused.output
    assert held(fleet) == before


@on_gw1
@pytest.mark.parametrize(
    ("email_config", "delivery_mode", "message"),
    [
        ("", "required", "email_config has to be given; choose one of: alpha, bravo, charlie, delta"),
        ("alhpa", "required", "there is no email config 'alhpa' in the inventory"),
        ("alpha", "", "delivery_mode has to be given; choose one of: plaintext, match_sender"),
        ("alpha", False, "'False' is not a delivery mode"),
        ("alpha", "required\nsend: plaintext", "is not a delivery mode"),
    ],
)
def test_a_wrong_answer_touches_nothing(
    fleet: Fleet, gateway: str, email_config: str, delivery_mode: object, message: str
) -> None:
    before = fleet.digests()
    refused = play(fleet, email_config, delivery_mode)
    assert refused.status != 0
    assert message in refused.output
    assert fleet.digests() == before
