"""The rooms of plugins/ and the arrows between them, read from the imports; those under TYPE_CHECKING and in functions count."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
PREFIX = "ansible_collections.mailfleet.starttls.plugins."

Arrows = dict[str, set[str]]
"""File or room -> what it imports."""


def modules(plugins: Path = TOP / "plugins") -> dict[str, Path]:
    """Dotted name below plugins -> file."""
    return {".".join(path.relative_to(plugins).with_suffix("").parts): path for path in sorted(plugins.rglob("*.py"))}


def room_of(module: str) -> str:
    """The room that a file lies in: a directory or file of the two engines, or a kind of plugin."""
    parts = module.split(".")
    return parts[1] if parts[0] in ("module_utils", "plugin_utils") else parts[0]


def imports(known: dict[str, Path]) -> Arrows:
    """File -> the files that it imports."""
    found: Arrows = {}
    for name, path in known.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PREFIX):
                package = str(node.module)[len(PREFIX) :]
                targets = {f"{package}.{alias.name}" for alias in node.names} | {package}
                found[name] |= targets & known.keys()
    return found


@functools.cache
def collection() -> Arrows:
    """The imports of plugins/, read once."""
    return imports(modules())


def arrows(files: Arrows) -> Arrows:
    """Room -> the other rooms that it uses."""
    rooms: Arrows = {}
    for name, targets in files.items():
        rooms.setdefault(room_of(name), set()).update(room_of(target) for target in targets)
    return {room: targets - {room} for room, targets in rooms.items()}


def circles(graph: Arrows) -> list[list[str]]:
    """The paths that lead back to where they start, one for each room or file on such a path."""
    found = []
    for start in sorted(graph):
        ways, seen = [[start]], {start}
        while ways:
            way = ways.pop()
            for target in sorted(graph.get(way[-1], ())):
                if target == start:
                    found.append([*way, start])
                    ways = []
                    break
                if target not in seen:
                    seen.add(target)
                    ways.append([*way, target])
    return found


def layers(graph: Arrows) -> list[list[str]]:
    """The rooms from the top to the ground: a room stands above all that it uses. The graph has no circle."""
    height: dict[str, int] = {}

    def of(room: str) -> int:
        if room not in height:
            height[room] = 1 + max((of(target) for target in graph.get(room, ())), default=-1)
        return height[room]

    for room in graph:
        of(room)
    return [sorted(room for room in graph if height[room] == level) for level in range(max(height.values()), -1, -1)]


def behind(graph: Arrows, rooms: Iterable[str]) -> set[str]:
    """All that the rooms or files use, directly or through others, themselves left out unless on a circle."""
    seen: set[str] = set()
    todo = list(rooms)
    while todo:
        for target in graph.get(todo.pop(), ()):
            if target not in seen:
                seen.add(target)
                todo.append(target)
    return seen


def payload(files: Arrows, module: str) -> set[str]:
    """The files of module_utils that Ansible's packer ships with a module: all that it imports, directly or through others.

    As the packer does, this follows imports in functions and under TYPE_CHECKING. Empty packages are not in it.
    """
    return {name for name in behind(files, [f"modules.{module}"]) if name.startswith("module_utils.")}


def picture(graph: Arrows) -> str:
    """A Mermaid drawing; an arrow is left out where others lead to the same room."""
    lines = ["```mermaid", "flowchart TD"]
    for number, layer in enumerate(layers(graph)):
        lines += [f"  subgraph layer{number}[ ]", *(f"    {room}" for room in layer), "  end"]
    for room in sorted(graph):
        direct = graph[room] - behind(graph, graph[room])
        lines += [f"  {room} --> {target}" for target in sorted(direct)]
    return "\n".join([*lines, "```"])
