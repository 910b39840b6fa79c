"""What the tests of transactions share."""

import signal

import pytest

ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def late():
    """The signals that came when no change was made, or after it."""
    came = []

    def note(number, _frame):
        came.append(number)

    formers = [signal.signal(number, note) for number in ENDING]
    try:
        yield came
        assert [signal.getsignal(number) for number in ENDING] == [note] * len(ENDING)
    finally:
        for number, former in zip(ENDING, formers):
            signal.signal(number, former)
