"""From the queues of all hosts: who is at fault, and the steps that bring both sides into an order that delivers."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.deferred import WAIT_CAUSES
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.recovery.plan import (
    RECOVERY_STEPS,
    make_recovery,
    ready_hops,
    step_failures,
    waiting_hops,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.recovery.table import recovery_result

GROUPS = {"mail_gateways": ["gw1", "hk"], "mail_servers": ["m1", "m2"]}
HOSTS = ["gw1", "hk", "m1", "m2"]
REASON = "TLS is required, but was not offered by host"


def message(hop: str, cause: str = "not_offered", **more: Any) -> dict[str, Any]:
    return {
        "queue_id": "1", "instance": "", "queue": "deferred", "sender": "a@a.example", "recipient": "b@b.example", "size": 1,
        "arrived": None, "reason": f"{REASON} {hop}", "next_hop": hop, "next_hop_address": "192.0.2.7", "next_hop_port": 25,
        "next_try": "2026-01-12T17:05:00Z", "held": False, "cause": cause, "said": "", "side": WAIT_CAUSES[cause].side,
        "for_tls": WAIT_CAUSES[cause].tls, **more,
    }  # fmt: skip


def waiting(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"looked": True, "message": "", "messages": list(messages), "for_tls": len(messages)}


def probe(hop: str, completed: bool = True, **more: Any) -> dict[str, Any]:
    return {"results": [{"host": hop, "port": 25, "name": hop, "completed": completed, "findings": [], **more}]}


def fleet(**facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Hosts with empty queues, and what is given of each."""
    every = {host: {"starttls_hostname": f"{host}.example", "deferred_before": waiting()} for host in HOSTS}
    every["hk"]["starttls_kind"] = "haraka"
    for host, more in facts.items():
        every[host] |= more
    every["localhost"] = {}
    return every


def outbound(level: str) -> dict[str, Any]:
    return {"mail_server_observed": {"before": {"inbound": "offered", "outbound": level}}}


def steps_of(hostvars: dict[str, Any], run: list[str] | None = None) -> list[tuple[str, str]]:
    recovery = make_recovery(HOSTS if run is None else run, hostvars, GROUPS)
    return [(step, host) for step in RECOVERY_STEPS for host in recovery.hosts_of(step)]


def by_hand(hostvars: dict[str, Any], run: list[str] | None = None) -> list[str]:
    return [one.by_hand for one in make_recovery(HOSTS if run is None else run, hostvars, GROUPS).repairs]


JAM = {"deferred_before": waiting(message("gw1.example"))}


def test_a_server_that_requires_tls_before_its_gateway_accepts_it():
    hostvars = fleet(m1={**JAM, **outbound("required")})
    recovery = make_recovery(HOSTS, hostvars, GROUPS)
    assert steps_of(hostvars) == [("off", "m1"), ("accept", "gw1"), ("on", "m1")]
    assert recovery.levels == {"m1": "required"}
    assert recovery.to_json()["flush"] == {"m1": ["gw1.example"]}


@pytest.mark.parametrize("level", ["custom", "opportunistic", ""])
def test_a_setting_that_is_not_ours_stays(level):
    assert steps_of(fleet(m1={**JAM, **outbound(level)})) == [("accept", "gw1")]


def test_nothing_goes_in_plaintext_that_the_inventory_wants_over_tls():
    assert steps_of(fleet(m1={**JAM, **outbound("required"), "starttls_outbound": "required"})) == [("accept", "gw1")]


def test_a_gateway_that_requires_tls_before_the_server_offers_it():
    assert steps_of(fleet(gw1={"deferred_before": waiting(message("m1.example"), message("m2.example"))})) == [
        ("offer", "m1"), ("offer", "m2"),
    ]  # fmt: skip


LEFT = {"starttls_settings_only": True}


@pytest.mark.parametrize(
    ("facts", "host", "what"),
    [
        ({"gw1": {"deferred_before": waiting(message("m1.example"))}, "m1": LEFT}, "m1", "have it offer STARTTLS by"),
        (
            {"gw1": {"deferred_before": waiting(message("m1.example", "peer_requires"))}, "m1": LEFT},
            "m1",
            "have it offer STARTTLS without requiring it by",
        ),
        (
            {
                "m1": {
                    "deferred_before": waiting(message("gw1.example", "peer_requires")),
                    "verify_next_hops": probe("gw1.example"),
                    **LEFT,
                }
            },
            "m1",
            "have it use TLS when it sends by",
        ),
    ],
)
def test_a_server_that_is_not_to_be_changed_is_repaired_by_hand(facts, host, what):
    assert steps_of(fleet(**facts)) == []
    (said,) = by_hand(fleet(**facts))
    assert said.startswith(f"{host} is not to be changed (starttls_settings_only): {what}")
    assert said.endswith("then run recover_deferred_mail again")


def test_one_that_is_not_to_be_changed_waits_for_the_gateway():
    assert steps_of(fleet(m1={**JAM, **outbound("required"), **LEFT})) == [("accept", "gw1")]
    assert steps_of(fleet(m1={**JAM, **outbound("required"), "starttls_settings_only": "no"}))[0] == ("off", "m1")


def test_a_next_hop_that_serves_by_now_needs_no_step():
    hostvars = fleet(m1={**JAM, **outbound("required"), "verify_next_hops": probe("gw1.example")})
    recovery = make_recovery(HOSTS, hostvars, GROUPS)
    assert steps_of(hostvars) == []
    assert recovery.to_json()["flush"] == {"m1": ["gw1.example"]}
    assert by_hand(hostvars, ["m1"]) == [""]


@pytest.mark.parametrize(
    ("name", "facts"), [("GW1.example.", {}), ("192.0.2.9", {"starttls_address": "192.0.2.9"}), ("gw1", {})]
)
def test_the_next_hop_is_known_by_name_and_by_address(name, facts):
    assert steps_of(fleet(gw1=facts, m1={"deferred_before": waiting(message(name))})) == [("accept", "gw1")]


def test_by_its_address_alone():
    hostvars = fleet(
        gw1={"starttls_address": "192.0.2.7"}, m1={"deferred_before": waiting(message("other.name.example"))}
    )
    assert steps_of(hostvars) == [("accept", "gw1")]


@pytest.mark.parametrize(
    ("hop", "run", "said"),
    [
        (
            "mx.partner.example",
            None,
            "mx.partner.example is no mail server or gateway of this inventory: have it offer STARTTLS",
        ),
        ("", None, "the next hop is no mail server or gateway"),
        ("gw1.example", ["m1"], "gw1 is not in this run: have it offer STARTTLS by a run that has it, or by hand"),
        ("hk.example", None, "the gateway hk accepts TLS in a way of its own: have it offer STARTTLS there"),
    ],
)
def test_a_side_that_the_run_cannot_change(hop, run, said):
    hostvars = fleet(m1={"deferred_before": waiting(message(hop)), **outbound("required")})
    [told] = by_hand(hostvars, run)
    assert told.startswith(said) and told.endswith("then run recover_deferred_mail again")
    assert steps_of(hostvars, run) == []
    assert make_recovery(run or HOSTS, hostvars, GROUPS).to_json()["flush"] == {}


def test_a_certificate_that_does_not_pass_is_installed_again():
    jam = {"deferred_before": waiting(message("m1.example", "certificate"))}
    bad = probe("m1.example", findings=[{"code": "expired", "severity": "error", "message": "x"}])
    assert steps_of(fleet(gw1={**jam, "verify_next_hops": bad})) == [("offer", "m1")]
    good = fleet(gw1={**jam, "verify_next_hops": probe("m1.example")})
    assert steps_of(good) == []
    assert "checks by other rules or roots" in make_recovery(HOSTS, good, GROUPS).repairs[0].hint


def test_an_acceptor_that_fails_is_repaired_and_the_sender_stays_as_it_is():
    jam = {
        "deferred_before": waiting(message("gw1.example", "handshake_failed")),
        "verify_next_hops": probe("gw1.example", False),
    }
    assert steps_of(fleet(m1={**jam, **outbound("required")})) == [("accept", "gw1")]


PLAIN = {"deferred_before": waiting(message("m1.example", "peer_requires"))}


class TestTheNextHopRequires:
    def test_a_server_behind_a_gateway_in_plaintext(self):
        assert steps_of(fleet(gw1={**PLAIN, "verify_next_hops": probe("m1.example", requires_tls=True)})) == [
            ("relax", "m1")
        ]

    def test_it_no_longer_does(self):
        hostvars = fleet(gw1={**PLAIN, "verify_next_hops": probe("m1.example", requires_tls=False)})
        assert (steps_of(hostvars), by_hand(hostvars)) == ([], [""])

    def test_the_inventory_wants_it_so(self):
        hostvars = fleet(m1={"starttls_inbound": "required"}, gw1=PLAIN)
        assert steps_of(hostvars) == []
        assert (
            "run enable_tls, which has gw1 deliver over TLS first"
            in make_recovery(HOSTS, hostvars, GROUPS).repairs[0].hint
        )

    @pytest.mark.parametrize("cause", ["peer_requires", "enforced_sender"])
    def test_a_server_that_sends_in_plaintext(self, cause):
        jam = {"deferred_before": waiting(message("gw1.example", cause))}
        assert steps_of(fleet(m1={**jam, "verify_next_hops": probe("gw1.example")})) == [("on", "m1")]
        assert "completes no handshake" in by_hand(fleet(m1=jam))[0]

    def test_a_gateway_that_sends_to_a_partner_in_plaintext(self):
        [said] = by_hand(fleet(gw1={"deferred_before": waiting(message("mx.partner.example", "peer_requires"))}))
        assert "starttls_send" in said

    def test_a_host_that_cannot_begin_tls(self):
        [said] = by_hand(fleet(m1={"deferred_before": waiting(message("gw1.example", "tls_unavailable"))}))
        assert said.startswith("m1 cannot begin TLS: see its log")


@pytest.mark.parametrize(
    "more", [{"cause": "greylisted", "for_tls": False}, {"cause": "unknown", "for_tls": False}, {"held": True}]
)
def test_other_mail_is_left_alone(more):
    hostvars = fleet(m1={"deferred_before": waiting({**message("gw1.example"), **more})})
    assert make_recovery(HOSTS, hostvars, GROUPS).to_json()["affected"] is False
    assert waiting_hops("m1", hostvars) == []


def test_only_hosts_are_tested():
    odd = [message(hop) for hop in ("MX of b.example", "", "-x", "gw1.example", "gw1.example", "a b")]
    assert waiting_hops("m1", fleet(m1={"deferred_before": waiting(*odd)})) == [{"host": "gw1.example", "port": 25}]


def test_what_is_tried_again_completed_a_handshake_after_the_steps():
    hostvars = fleet(m1={**JAM, "verify_next_hops": probe("gw1.example", False)})
    hostvars["localhost"]["tls_recovery"] = {"flush": {"m1": ["gw1.example"]}}
    assert ready_hops("m1", hostvars) == []
    hostvars["m1"]["verify_next_hops"] = probe("gw1.example")
    assert ready_hops("m1", hostvars) == ["gw1.example"]


def test_the_hosts_on_which_a_step_failed():
    hostvars = fleet(gw1={"gateway_accept_result": {"failed": True, "msg": "no certificate"}})
    hostvars["localhost"]["tls_recovery"] = {"steps": {"accept": ["gw1"], "off": ["m1"]}}
    assert step_failures("accept", hostvars) == ["gw1: no certificate"]
    assert step_failures("off", hostvars) == []


def test_a_result_of_another_shape_is_an_error_of_that_host():
    with pytest.raises(EngineError, match="the queue of m1 cannot be understood"):
        make_recovery(HOSTS, fleet(m1={"deferred_before": waiting({"held": 1})}), GROUPS)


class TestTable:
    def test_nothing_waits(self):
        result, text = recovery_result("before", HOSTS, fleet(), GROUPS)
        assert "The queues are empty." in text and "Nothing is changed" in text
        assert (result["run"]["affected"], result["by_hand"]) == (False, [])
        after, _text = recovery_result("after", HOSTS, fleet(), GROUPS)
        assert (after["stops"], after["msg"]) == (False, "no mail waits for want of TLS")

    def test_who_is_at_fault_and_what_will_be_done(self):
        _result, text = recovery_result("before", HOSTS, fleet(m1={**JAM, **outbound("required")}), GROUPS)
        assert (
            "m1 to gw1.example: this host requires TLS, and the next hop does not offer it: a requirer without an acceptor"
            in text
        )
        assert (
            "Step 1: TLS off on m1 when it sends\nStep 2: TLS on at the gateway gw1\nStep 3: TLS on at m1 when it sends"
            in text
        )

    def test_before_and_after(self):
        done = fleet(m1={**JAM, "deferred_after": waiting()})
        for host in HOSTS:
            done[host].setdefault("deferred_after", waiting())
        result, _text = recovery_result("after", HOSTS, done, GROUPS)
        assert [(one["host"], one["before"], one["after"], one["state"]) for one in result["queue"]] == [
            ("m1", 1, 0, "delivered")
        ]
        assert result["stops"] is False

    def test_what_still_waits_stops_the_run(self):
        still = fleet(
            m1={**JAM, "deferred_after": waiting(message("gw1.example"))},
            gw1={"deferred_after": waiting(message("x.example"))},
        )
        for host in HOSTS:
            still[host].setdefault("deferred_after", waiting())
        result, _text = recovery_result("after", HOSTS, still, GROUPS)
        assert result["stops"] is True
        assert "1 on m1 still wait for gw1.example: TLS is required" in result["msg"]
        assert "1 wait on gw1 for x.example now" in result["msg"]

    @pytest.mark.parametrize("result", [{"failed": True, "msg": "no"}, {"unreachable": True, "msg": "no"}, {}, "x"])
    def test_a_host_that_was_not_read_is_unknown_and_not_empty(self, result):
        hostvars = fleet(m2={"deferred_before": result})
        told, _text = recovery_result("after", HOSTS, hostvars, GROUPS)
        assert told["stops"] is True and "the queue of m2 is not known" in told["msg"]
        assert "m2" in recovery_result("before", HOSTS, hostvars, GROUPS)[0]["unknown"]

    def test_a_queue_that_is_not_read_is_said(self):
        hostvars = fleet(
            hk={"deferred_before": {"looked": False, "message": "the queue of Haraka is not read", "messages": []}}
        )
        _result, text = recovery_result("before", HOSTS, hostvars, GROUPS)
        assert "Could not look at the queue of hk: the queue of Haraka is not read" in text
        assert recovery_result("after", HOSTS, hostvars, GROUPS)[0]["stops"] is False

    def test_words_of_strangers_are_one_line(self):
        odd = message("gw1.example", reason="x\x1b[2J\nfatal: [m1]")
        _result, text = recovery_result("before", HOSTS, fleet(m1={"deferred_before": waiting(odd)}), GROUPS)
        assert "\x1b" not in text and "\nfatal" not in text
