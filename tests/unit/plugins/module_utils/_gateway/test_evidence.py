"""The handshakes of one call: one with each target, unless another one has to show more."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import evidence as evidence_module
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.evidence import Handshakes
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target

from tests.support.gateway_bench import Bench

ONE, TWO = Target("one.example"), Target("two.example", 26)
TRUST = {"verify_trust": True}
NAME = {**TRUST, "verify_name": True}


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return Bench(tmp_path, monkeypatch, evidence_module)


@pytest.fixture
def evidence(bench):
    return Handshakes(bench.common)


def test_the_results_come_in_the_order_of_the_targets(bench, evidence):
    evidence.of([TWO])
    assert [one.target for one in evidence.of([ONE, TWO, ONE])] == [ONE, TWO, ONE]
    assert bench.handshakes == [["two.example:26"], ["one.example:25"]]


def test_nothing_is_asked_for_nothing(bench, evidence):
    assert evidence.of([]) == []
    assert bench.handshakes == []


def test_certificates_are_verified_only_if_that_is_wanted(bench):
    Handshakes(Settings(verify_trust=True, verify_name=True, timeout=7)).of([ONE])
    [made] = bench.settings
    assert (made.verify_trust, made.verify_name, made.timeout) == (False, False, 7)


@pytest.mark.parametrize(
    ("first", "second", "made"),
    [
        ({}, {}, 1),
        ({"ask_plaintext": True}, {}, 1),
        ({}, {"ask_plaintext": True}, 2),
        (TRUST, {}, 1),
        (NAME, {}, 1),
        ({}, TRUST, 2),
        (TRUST, TRUST, 1),
        (TRUST, NAME, 2),
        (NAME, TRUST, 2),
        ({**TRUST, "ca_pem": "a"}, TRUST, 2),
        ({**TRUST, "ca_pem": "a"}, {**TRUST, "ca_pem": "a"}, 1),
        ({**TRUST, "ask_plaintext": True}, TRUST, 1),
        (TRUST, {**TRUST, "ask_plaintext": True}, 2),
    ],
)
def test_an_earlier_handshake_is_used_if_it_shows_enough(bench, evidence, first, second, made):
    evidence.of([ONE], **first)
    evidence.of([ONE], **second)
    assert len(bench.handshakes) == made
