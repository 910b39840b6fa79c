"""Every regular expression of the plugins, how it is used, and strings that make a backtracking matcher work hard.

The strings are made from the parsed pattern: what leads to a repetition, very often what the repetition may hold, and an end
that does not fit. So a repetition that another one can share its text with shows its growth.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Union

from tests.support import rooms
from tests.support.growth import cpu_seconds

# The parser that re.compile uses.
if sys.version_info >= (3, 11):
    import re._parser as sre
else:
    import sre_parse as sre

PREFIX = "ansible_collections.mailfleet.starttls.plugins."
METHODS = frozenset({"match", "search", "fullmatch", "sub", "findall", "finditer", "split"})
PUMPS = (" ", "a", "0", ".", "-", "(", "()", "<", "[", '"', ",", ":", "a ", "a.", " a=0", "\r\n", "\\")
ENDS = ("\0", "!b", " \n")
LONG = 16
"""A repetition that may be longer than this is attacked."""


@dataclass(frozen=True)
class Used:
    """A pattern, where it is, and one way in which it is used."""

    where: str
    pattern: re.Pattern[Any]
    method: str

    def run(self, text: Union[str, bytes]) -> None:
        """Use the pattern on the whole text."""
        if self.method == "sub":
            self.pattern.sub("" if isinstance(text, str) else b"", text)
        elif self.method == "finditer":
            list(self.pattern.finditer(text))
        else:
            getattr(self.pattern, self.method)(text)

    def seconds(self, text: Union[str, bytes], most: float) -> float:
        """CPU seconds of one use; the most if it takes longer."""
        return cpu_seconds(lambda: self.run(text), most)


def used_patterns() -> Iterator[Used]:
    """Every compiled pattern of the plugins, and every constant one that is given to a function of re."""
    for name, path in sorted(rooms.modules().items()):
        if not name.startswith(("module_utils.", "plugin_utils.", "filter.", "action.")):
            continue
        tree = ast.parse(path.read_text())
        module = importlib.import_module(PREFIX + name)
        for attribute, value in vars(module).items():
            if isinstance(value, type) and value.__module__ != module.__name__:
                continue
            for pattern in _inside(value):
                methods = {
                    node.attr for node in ast.walk(tree)
                    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == attribute
                } & METHODS or {"match", "search", "sub"}  # fmt: skip
                yield from (Used(f"{name}.{attribute}", pattern, method) for method in sorted(methods))
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            function, first = node.func, node.args[0]
            if (
                getattr(function.value, "id", "") == "re"
                and function.attr in METHODS
                and isinstance(first, ast.Constant)
            ):
                flags = next(
                    (one for one in node.args[1:] + [k.value for k in node.keywords] if "re." in ast.unparse(one)), None
                )
                known = (
                    eval(ast.unparse(flags), {"re": re})
                    if flags is not None and "Flag" not in ast.unparse(flags)
                    else 0
                )
                yield Used(
                    f"{name}:{node.lineno}",
                    re.compile(first.value, known if isinstance(known, int) else 0),
                    function.attr,
                )


def _inside(value: Any, depth: int = 3) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif depth and isinstance(value, (tuple, list)):
        for one in value:
            yield from _inside(one, depth - 1)
    elif depth and isinstance(value, dict):
        yield from _inside(list(value.values()), depth - 1)
    elif depth == 3 and isinstance(value, type):
        yield from _inside(list(vars(value).values()), depth - 1)


def hostile(pattern: re.Pattern[Any], size: int) -> Iterator[Union[str, bytes]]:
    """Strings of about this size that are made to fail late."""
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    seen = set()
    for often in (0, 1):
        whole = _sample(sre.parse(text, pattern.flags & ~re.UNICODE)[:-1], often)
        if whole:  # each begin of a match may look as far as the end
            again = whole * (size // len(whole))
            yield again if isinstance(pattern.pattern, str) else again.encode("latin-1", "replace")
        for prefix, inner in _repetitions(sre.parse(text, pattern.flags & ~re.UNICODE), "", often):
            for pump in dict.fromkeys((_sample(inner, 1), *(one for one in PUMPS if _begins(inner, one[0])))):
                for end in ENDS:
                    one = prefix + (pump * (size // max(1, len(pump)))) + end
                    if one and (key := (prefix, pump, end)) not in seen:
                        seen.add(key)
                        yield one if isinstance(pattern.pattern, str) else one.encode("latin-1", "replace")


def _repetitions(nodes: Any, prefix: str, often: int) -> Iterator[tuple[str, Any]]:
    """Each repetition that may be long: a text that leads to it, and what it repeats."""
    for code, given in nodes:
        if code in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            _least, most, inner = given
            if most > LONG:
                yield prefix, inner
            yield from _repetitions(inner, prefix, often)
        elif code is sre.SUBPATTERN:
            yield from _repetitions(given[-1], prefix, often)
        elif code is sre.BRANCH:
            for inner in given[1]:
                yield from _repetitions(inner, prefix, often)
        prefix += _sample([(code, given)], often)


def _sample(nodes: Any, often: int) -> str:
    """A text that the nodes match; optional parts so often."""
    found = ""
    for code, given in nodes:
        if code is sre.LITERAL:
            found += chr(given)
        elif code is sre.NOT_LITERAL:
            found += "a" if given != ord("a") else "b"
        elif code is sre.ANY:
            found += "a"
        elif code is sre.IN:
            found += next((char for char in "a0 .-_:[(<=A,;\n\t1/" if _fits(given, char)), "a")
        elif code in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            least, most, inner = given
            found += _sample(inner, often) * max(least, min(often, most))
        elif code is sre.SUBPATTERN:
            found += _sample(given[-1], often)
        elif code is sre.BRANCH:
            found += _sample(given[1][0], often)
    return found


def _begins(nodes: Any, char: str) -> bool:
    """Whether a text of these nodes may begin with this character; true if that is not plain to see."""
    code, given = nodes[0]
    if code is sre.LITERAL:
        return bool(chr(given) == char)
    if code is sre.NOT_LITERAL:
        return bool(chr(given) != char)
    return _fits(given, char) if code is sre.IN else True


def _fits(members: Any, char: str) -> bool:
    negated = False
    fits = False
    for code, given in members:
        if code is sre.NEGATE:
            negated = True
        elif code is sre.LITERAL:
            fits |= ord(char) == given
        elif code is sre.RANGE:
            fits |= given[0] <= ord(char) <= given[1]
        elif code is sre.CATEGORY:
            name = str(given)
            is_of = (
                char.isdigit()
                if "DIGIT" in name
                else char.isspace()
                if "SPACE" in name
                else char.isalnum() or char == "_"
            )
            fits |= is_of != ("NOT" in name)
    return fits != negated
