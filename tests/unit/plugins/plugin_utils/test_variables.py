"""Variables as an inventory has them, and as a survey of AWX answers."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.variables import given, listed


@pytest.mark.parametrize("value", ["", None])
def test_what_nobody_answered_is_not_given(value: Any) -> None:
    assert given(value, 300) == 300


@pytest.mark.parametrize("value", [0, "0", False, "false", " ", [], 7])
def test_everything_else_is_given(value: Any) -> None:
    assert given(value, 300) is value


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("", []), (None, []), ([], []), (" \n", []),
        ("one", ["one"]), ("one, two", ["one", "two"]), ("/a b\n/c\r\n\n", ["/a b", "/c"]),
        (["one", {"two": 3}], ["one", {"two": 3}]), (("one",), ["one"]), (0, [0]), (25, [25]), ({"one": 2}, [{"one": 2}]),
    ],
)  # fmt: skip
def test_a_list_from_whatever_it_was_given_as(value: Any, items: list[Any]) -> None:
    assert listed(value) == items
