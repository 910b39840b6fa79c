"""A value with one place changed to something that nobody expects there, for every place in it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

ODD = (None, 7, "x", [], {}, [7], {"x": 7}, float("inf"), ["x"], True, {"x": {"x": ["x"]}})
MISSING = object()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every member and element of the value."""
    if path:
        yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield from places(one, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of the value with something else at a path; without it, if that is MISSING."""
    done = copy.deepcopy(value)
    holder = done
    for key in path[:-1]:
        holder = holder[key]
    if new is MISSING:
        del holder[path[-1]]
    else:
        holder[path[-1]] = copy.deepcopy(new)
    return done


def variants(value: Any) -> Iterator[tuple[str, Any]]:
    """Every such value, with a name that says what was changed."""
    for path in places(value):
        for new in (*ODD, MISSING):
            yield f"{'/'.join(map(str, path))}={'missing' if new is MISSING else new!r}", changed(value, path, new)
