"""Hypothesis against everything that reads what a peer sends: a hundred examples each, in seconds; make test-faults goes on for minutes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import (
    PORTS,
    Dialogue,
    DialogueError,
    Stage,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fuzz import targets
from tests.fuzz.corpus import KEPT, kept
from tests.fuzz.readers import READERS
from tests.fuzz.seeds import SEEDS

EXAMPLES = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
FEW = settings(EXAMPLES, max_examples=30)
"""For readers of files, which are slower and which the corpus covers."""

# Bytes near to what the parsers look for are worth more than any.
SMTP = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([targets.GREETING, targets.EHLO, targets.READY, b"250-", b"250 ", b"220", b"\r\n", b"\n", b"\r"]),
        st.builds(b"%d%s%s\r\n".__mod__, st.tuples(st.integers(0, 1200), st.sampled_from([b" ", b"-", b""]), st.binary(max_size=9))),
    ),
    max_size=30,
).map(b"".join)  # fmt: skip


def mutated(seed: bytes) -> st.SearchStrategy[bytes]:
    """The seed with some bytes changed, a part cut out, or another put in."""

    def change(at: int, length: int, new: bytes) -> bytes:
        at %= len(seed) + 1
        return seed[:at] + new + seed[at + length :]

    return st.builds(change, st.integers(0, 1 << 14), st.integers(0, 16), st.binary(max_size=8))


@pytest.mark.parametrize("name", targets.TARGETS)
def test_seeds(name: str) -> None:
    for seed in (*SEEDS[name], *kept(name)):
        targets.TARGETS[name](seed)


def test_every_target_has_seeds():
    assert SEEDS.keys() == targets.TARGETS.keys()
    assert {path.stem for path in KEPT.glob("*")} <= SEEDS.keys()


@pytest.mark.parametrize("name", sorted(targets.TARGETS.keys() - READERS.keys()))
@EXAMPLES
@given(data=st.data())
def test_any_bytes(name: str, data: st.DataObject) -> None:
    try_bytes(name, data)


@pytest.mark.parametrize("name", READERS)
@FEW
@given(data=st.data())
def test_any_bytes_for_readers(name: str, data: st.DataObject) -> None:
    try_bytes(name, data)


def try_bytes(name: str, data: st.DataObject) -> None:
    near = st.sampled_from(SEEDS[name]).flatmap(mutated)
    target: Callable[[bytes], None] = targets.TARGETS[name]
    target(data.draw(st.one_of(near, SMTP, st.binary(max_size=300))))


class Talk(RuleBasedStateMachine):
    """A server that says good and bad things in any order, in plaintext and in TLS."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = Dialogue("c.example")
        self.stage = Stage.CONNECT
        self.over = False
        self.said: list[bytes] = []

    def hear(self, data: bytes) -> None:
        if self.over:
            return
        try:
            self.talk.receive(data)
        except DialogueError as error:
            targets.check_error(error)
            self.over = True
        output = self.talk.take_output()
        if output:
            self.said.append(output)

    @rule(
        code=st.sampled_from([220, 250, 250, 354, 421, 454, 502, 554]),
        lines=st.integers(1, 4),
        word=st.binary(max_size=12),
    )
    def reply(self, code: int, lines: int, word: bytes) -> None:
        word = word.replace(b"\n", b"")
        text = [b"%d-%s\r\n" % (code, word)] * (lines - 1) + [b"%d STARTTLS\r\n" % code]
        self.hear(b"".join(text))

    @rule()
    def reply_as_it_should(self) -> None:
        self.hear(b"250-mx\r\n250 STARTTLS\r\n" if self.said and self.said[-1][:4] == b"EHLO" else b"220 mx\r\n")

    @rule(data=st.binary(max_size=30))
    def noise(self, data: bytes) -> None:
        self.hear(data)

    @precondition(lambda self: self.talk.wants_tls)
    @rule()
    def start_tls(self) -> None:
        self.talk.tls_started()
        self.hear(b"")

    @invariant()
    def never_back(self) -> None:
        assert self.talk.stage >= self.stage
        self.stage = self.talk.stage

    @invariant()
    def says_each_command_once_and_in_order(self) -> None:
        verbs = [command.split()[0] for command in self.said]
        order = [b"EHLO", b"STARTTLS", b"EHLO", b"QUIT"]
        assert verbs == order[: len(verbs)]

    @invariant()
    def tls_comes_only_after_a_220(self) -> None:
        if self.talk.wants_tls or self.talk.stage >= Stage.TLS:
            assert self.talk.starttls_reply and self.talk.starttls_reply.code == 220


TestTalk = Talk.TestCase
TestTalk.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)


@pytest.mark.parametrize("protocol", PORTS)
def test_an_endless_reply_is_bounded(protocol: str) -> None:
    """A peer can't make the dialogue hold more than a line and the largest reply."""
    talk = Dialogue("c.example", protocol=protocol)
    if protocol == "smtps":
        talk.tls_started()
    taken = 0
    with pytest.raises(DialogueError) as caught:
        while taken < 1 << 24:
            talk.receive(b"220-" + b"x" * 1000 + b"\r\n")
            taken += 1006
    assert caught.value.code == "not_smtp"
    assert taken < 1 << 18


def test_an_endless_flight_is_bounded() -> None:
    record = b"\x16\x03\x03\x40\x00" + b"\x02\xff\xff\xff" + bytes(0x4000 - 4)
    flight, taken = targets.ServerFlight(), 0
    with pytest.raises(targets.HelloError):
        while taken < 1 << 24:
            flight.feed(record)
            taken += len(record)
    assert taken < 1 << 18
