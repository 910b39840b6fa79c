"""The values that loops ask: what they count, when they refuse, and what the refusal names."""

from __future__ import annotations

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    Budget,
    Deadline,
    ExhaustedError,
    whole_number,
)


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_budget_allows_its_limit_and_names_what_is_exhausted():
    budget = Budget("the mail", {"bytes": 10, "parts": 2})
    budget.spend(10)
    budget.spend(2, "parts")
    budget.spend(10**9, "details")  # nobody limits them
    assert budget.left() == 0
    with pytest.raises(ExhaustedError, match=r"the mail needs more than 2 parts\Z") as raised:
        budget.spend(1, "parts")
    assert (raised.value.what, raised.value.unit, raised.value.limit) == ("the mail", "parts", 2)


def test_a_part_spends_from_the_whole():
    whole = Budget("the run", {"bytes": 15, "reports": 3})
    one = Budget("a.json", {"bytes": 10}, within=whole)
    one.spend(9)
    other = Budget("b.json", {"bytes": 10}, within=whole)
    assert (other.left(), other.left("reports")) == (6, 3)
    with pytest.raises(ExhaustedError, match="the run needs more than 15 bytes") as raised:
        other.spend(7)
    assert raised.value.budget is whole
    with pytest.raises(KeyError):
        whole.left("details")


def test_the_time_of_a_budget_ends():
    clock = Time()
    whole = Budget("the run", {}, seconds=5, clock=clock)
    part = Budget("a.json", {"bytes": 10}, seconds=2, within=whole, clock=clock)
    clock.now = 1.9
    part.spend(1)
    clock.now = 2.0
    with pytest.raises(ExhaustedError, match=r"a\.json needs more than 2 seconds"):
        part.look()
    clock.now = 5.0
    with pytest.raises(ExhaustedError, match="the run needs more than 5 seconds"):
        part.look()


def test_a_deadline_is_for_the_whole():
    clock = Time()
    deadline = Deadline("the request", 2.5, clock)
    clock.now = 1.0
    deadline.look()
    assert (deadline.left, deadline.is_over) == (1.5, False)
    clock.now = 3.0
    assert (deadline.left, deadline.is_over) == (0.0, True)
    with pytest.raises(ExhaustedError, match=r"the request needs more than 2\.5 seconds"):
        deadline.look()


@pytest.mark.parametrize("digits", ["1" * 20, "9" * 5000, "", "1x"])
def test_a_long_number_is_refused(digits: str):
    with pytest.raises(ValueError, match=r"digits|invalid literal"):
        whole_number(digits)


def test_a_number_may_have_a_sign():
    assert (whole_number("-123456789012345678"), whole_number("7")) == (-123456789012345678, 7)
