"""The one change of a gateway: what is prepared first, what cannot be overridden, what is undone."""

import os
from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import engine as contract
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import GatewayVerdict
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import change_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

from tests.support.gateway_bench import Bench

WANTED = GatewayState(ca_file="/etc/ca.pem")


class ContractBench(Bench):
    def change(self, judgement=GatewayVerdict(), state=WANTED, insisting=False, check_mode=False):  # noqa: B008
        return change_gateway(
            self.gateway, lambda _before: state, lambda *_: judgement, (), insisting, check_mode, str(self.store)
        )


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = ContractBench(tmp_path, monkeypatch)
    bench.hold(GatewayState())
    bench.first = tmp_path / "first"
    return bench


@pytest.fixture
def prepared(bench):
    image = FileImage(str(bench.first), b"first\n", 0o600, os.getuid(), os.getgid())
    bench.gateway.prepared = Change.of([image])


@pytest.mark.usefixtures("prepared")
class TestPrepare:
    def test_it_is_a_transaction_of_its_own_before_the_change(self, bench):
        outcome = bench.change()
        assert bench.gateway.log == ["require_running", "check", "reload", "prove", "check", "reload", "prove"]
        assert bench.gateway.prepared_for == [WANTED]
        assert (bench.first.read_text(), bench.held(), outcome.changed) == ("first\n", WANTED, True)
        assert ["/etc/ca.pem" in one["prepared"] for one in outcome.diff] == [True]

    def test_the_change_is_planned_again_after_it(self, bench, monkeypatch):
        planned = []
        plan = bench.gateway.plan
        monkeypatch.setattr(bench.gateway, "plan", lambda state: planned.append(bench.first.exists()) or plan(state))
        bench.change()
        assert planned == [False, True]

    @pytest.mark.parametrize("step", ["check", "reload", "prove"])
    def test_it_stays_if_the_change_fails(self, bench, monkeypatch, step):
        original = getattr(bench.gateway, step)

        def fail():
            original()
            if bench.held() == WANTED:
                raise EngineError("no good")

        monkeypatch.setattr(bench.gateway, step, fail)
        with pytest.raises(TransactionError, match=r"^no good\. The former state is restored and proved$"):
            bench.change()
        assert (bench.first.read_text(), bench.held()) == ("first\n", GatewayState())

    @pytest.mark.parametrize("step", ["check", "reload", "prove"])
    def test_the_change_is_not_tried_if_it_fails(self, bench, step):
        bench.gateway.fail[step] = "no good"
        with pytest.raises(TransactionError, match=r"^no good\. The former state is restored and proved$"):
            bench.change()
        assert (bench.first.exists(), bench.held()) == (False, GatewayState())

    def test_check_mode_applies_nothing_and_shows_the_change(self, bench):
        outcome = bench.change(check_mode=True)
        assert (outcome.changed, len(outcome.diff)) == (True, 1)
        assert (bench.first.exists(), bench.held()) == (False, GatewayState())
        assert (bench.gateway.log, bench.gateway.prepared_for) == (["require_running"], [])

    def test_nothing_is_prepared_for_no_change(self, bench):
        bench.hold(WANTED)
        assert not bench.change().changed
        assert (bench.first.exists(), bench.gateway.prepared_for) == (False, [])

    def test_nor_for_one_that_is_refused(self, bench):
        with pytest.raises(EngineError, match=r"^bad$"):
            bench.change(GatewayVerdict(("bad",)))
        assert (bench.first.exists(), bench.gateway.prepared_for) == (False, [])


class TestVerdict:
    @pytest.mark.parametrize("insisting", [False, True])
    @pytest.mark.parametrize("problems", [(), ("bad", "worse")])
    @pytest.mark.parametrize("losses", [(), ("lost", "gone")])
    def test_losses_cannot_be_overridden(self, bench, problems, losses, insisting):
        verdict = GatewayVerdict(problems, losses)
        said = "; ".join([*losses, *(() if insisting else problems)])
        assert bench.change(verdict, insisting=insisting, check_mode=True).warnings == (
            (f"unless an earlier step changes that, a real run would refuse this: {said}",) if said else ()
        )
        assert bench.held() == GatewayState()
        if said:
            with pytest.raises(EngineError) as error:
                bench.change(verdict, insisting=insisting)
            assert (str(error.value), bench.held()) == (said, GatewayState())
        else:
            assert bench.change(verdict, insisting=insisting).after == bench.held() == WANTED

    def test_its_fields_in_their_order(self):
        assert GatewayVerdict(("p",), ("l",), (), ("w",)) == replace(
            GatewayVerdict(), problems=("p",), losses=("l",), warnings=("w",)
        )


def test_the_former_state_is_proved_with_patience(bench, monkeypatch):
    monkeypatch.setattr(contract, "PATIENCE", 30.0)
    monkeypatch.setattr(contract.time, "sleep", bench.gateway.log.append)
    failures = ["no good", "not yet", "not yet"]

    def prove():
        bench.gateway.log.append("prove")
        if failures:
            raise EngineError(failures.pop(0))

    monkeypatch.setattr(bench.gateway, "prove", prove)
    with pytest.raises(TransactionError, match=r"^no good\. The former state is restored and proved$"):
        bench.change()
    assert bench.gateway.log[-5:] == ["prove", 0.5, "prove", 0.5, "prove"]
