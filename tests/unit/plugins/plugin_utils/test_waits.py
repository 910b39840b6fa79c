"""Why a test message did not arrive, from the queues of the hosts."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.messages import check_trace
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import hops_over_tls, told_findings
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.waits import lost_messages, why_it_waits

RUN = "20261129T193000-12"
IN, OUT = f"in-m1-1234-{RUN}", f"out-m1-1234-{RUN}"
THERE, HERE = "trace@partner.test", "trace@a.example"
MESSAGES = [{
    "host": "m1", "inbound": {"marker": IN, "sender": THERE, "recipient": HERE},
    "outbound": {"marker": OUT, "sender": HERE, "recipient": THERE},
}]  # fmt: skip


def fleet(inbound: bool = False, outbound: bool = True, **queues: Any) -> dict[str, dict[str, Any]]:
    hosts: dict[str, dict[str, Any]] = {one: {} for one in ("m1", "gw1", "outside")}
    hosts["m1"] = {
        "verify_messages": MESSAGES, "verify_trace": {"received": [{"marker": IN, "arrived": inbound}]},
        "verify_outside": {"received": [{"marker": OUT, "arrived": outbound}]},
    }  # fmt: skip
    for host, queue in queues.items():
        hosts[host]["verify_queue"] = queue
    return hosts


def waiting(cause: str = "not_offered", reason: str = "TLS is required", **more: Any) -> dict[str, Any]:
    one = {
        "sender": THERE, "recipient": HERE, "arrived": "2026-11-29T19:30:05Z", "reason": reason, "cause": cause, "said": "greylisting",
        "next_hop": "m1.example", "next_try": "2026-11-29T19:35:05Z", **more,
    }  # fmt: skip
    return {"looked": True, "messages": [one], "returned": []}


def said(hostvars: dict[str, Any]) -> dict[str, Any]:
    trace = {"marker": IN, "arrived": False, "hops": []}
    return check_trace(trace, "in", [], why_it_waits(IN, list(hostvars), hostvars), ["gw1", "outside"])


def test_the_messages_that_did_not_arrive():
    assert lost_messages(["m1"], fleet()) == [
        {"marker": IN, "sender": THERE, "recipient": HERE, "message_id": f"{IN}@partner.test"}
    ]
    assert lost_messages(["m1", "gw1"], fleet(inbound=True)) == []
    assert lost_messages(["gw1"], {"gw1": {"verify_trace": "x", "verify_outside": {"received": 1}}}) == []


def test_the_daemons_reason_next_hop_and_next_try():
    found = said(fleet(gw1=waiting()))
    assert found["findings"] == [
        "the message from outside waits on gw1 for m1.example: TLS is required; next try at 2026-11-29T19:35:05Z"
    ]
    assert hops_over_tls(found) == "waits"
    assert [one.code for one in told_findings(found)] == ["message"]


def test_greylisting_is_named_and_is_not_lost():
    found = said(fleet(gw1=waiting("greylisted", "host m1.example said: 450 4.2.0 Greylisted")))
    assert "greylisting (host m1.example said: 450 4.2.0 Greylisted)" in found["findings"][0]
    assert hops_over_tls(found) == "greylisted"
    assert [(one.code, one.severity) for one in told_findings(found)] == [("message_waits", "warning")]


def test_a_domain_that_is_not_relayed_is_said():
    one = {"message_id": f"{IN}@partner.test", "recipient": HERE, "reason": "550 relay not permitted", "cause": "not_relayed",
           "said": "the next hop does not relay mail for this domain"}  # fmt: skip
    found = said(fleet(outside={"looked": True, "messages": [], "returned": [one]}))
    assert found["findings"] == [
        "the message from outside was returned to its sender by outside: the next hop does not relay mail for this domain "
        "(550 relay not permitted)"
    ]
    assert hops_over_tls(found) == "returned"


@pytest.mark.parametrize(
    "more", [{"sender": "x@partner.test"}, {"recipient": "x@a.example"}, {"arrived": "2026-11-28T19:30:05Z"}]
)
def test_another_message_in_the_queue_is_another_message(more):
    found = said(fleet(gw1=waiting(**more)))
    assert found["findings"] == [
        "the message from outside did not arrive in time; it is not in the queue of gw1, outside"
    ]
    assert hops_over_tls(found) == "lost"


@pytest.mark.parametrize(
    "queue", [None, "x", {"messages": "x", "returned": 1}, {"messages": [1, {}]}, {"failed": True}]
)
def test_a_queue_of_another_shape_says_nothing(queue):
    assert why_it_waits(IN, ["m1", "gw1"], fleet(gw1=queue)) == {}
