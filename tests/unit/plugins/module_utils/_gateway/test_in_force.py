"""Whether the daemon does what was noted, whatever the product."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import describe
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.in_force import as_written, every
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EnforcedDomain,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.gateway_bench import Bench

HELD = GatewayState(
    enforced=(EnforcedDomain("a.example", "inbound"), EnforcedDomain("b.example", "outbound")),
    outbound=OutboundTls(None, "required"),
)


@pytest.fixture
def gateway(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch)
    bench.hold(HELD)
    return bench.gateway


def test_an_answer_for_all_that_was_noted(gateway):
    gateway.forced = {"inbound": {"a.example": False}, "send": {"required": True}}
    assert describe(gateway)["in_force"] == {
        "inbound": {"a.example": False}, "outbound": {"b.example": None}, "send": {"required": True},
    }  # fmt: skip


@pytest.mark.parametrize("error", [EngineError("postconf: no"), OSError("no")])
def test_what_cannot_be_read_cannot_be_told(gateway, error):
    gateway.forced = error
    assert describe(gateway)["in_force"] == {
        "inbound": {"a.example": None}, "outbound": {"b.example": None}, "send": {"required": None},
    }  # fmt: skip


def test_a_gateway_that_does_not_run_has_nothing_in_force(gateway):
    gateway.fail["require_running"] = "it does not run"
    assert describe(gateway)["in_force"] == {}


@pytest.mark.parametrize(
    ("answers", "whole"),
    [((True, True), True), ((True, None), None), ((None, False), False), ((), True)],
)
def test_every(answers, whole):
    assert every(*answers) is whole


@pytest.mark.parametrize(
    ("content", "answer"),
    [(b"# ours\na\nb\n", True), (b"# ours\nx\na\nb\n", None), (b"# ours\nb\n", False), (b"", False), (None, False)],
)
def test_as_written(content, answer):
    assert as_written(content, "# ours\na\nb\n", ["a\n"]) is answer
