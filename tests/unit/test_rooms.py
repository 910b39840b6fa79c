"""Arrows go down only: what the imports are, against what docs/architecture.md draws and promises."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds import product

from tests.support import rooms

PRODUCTS = {f"_{kind}" for kind in product.PRODUCTS}


def arrows() -> rooms.Arrows:
    return rooms.arrows(rooms.collection())


def test_no_circle_of_files_or_rooms():
    assert rooms.circles(rooms.collection()) == []
    assert rooms.circles(arrows()) == []


def test_products_do_not_know_each_other():
    used = arrows()
    assert {product: used[product] & PRODUCTS for product in PRODUCTS} == {product: set() for product in PRODUCTS}


def test_the_two_at_the_bottom_know_nothing_of_hosts():
    assert arrows()["_smtp"] <= {"limits"}
    assert arrows()["_change"] <= {"errors", "limits"}


def test_only_the_registry_knows_products():
    knowing = {room for room, targets in arrows().items() if targets & PRODUCTS}
    assert knowing - PRODUCTS == {"kinds"}


def test_what_runs_on_hosts_uses_nothing_of_the_controller():
    hosts = [name for name in rooms.collection() if name.startswith("module_utils.")]
    above = {target for name in hosts for target in rooms.collection()[name] if not target.startswith("module_utils.")}
    assert above == set()


def test_an_import_that_only_types_need_counts(tmp_path: Path):
    (tmp_path / "module_utils/_a").mkdir(parents=True)
    (tmp_path / "module_utils/_b").mkdir()
    one, other = tmp_path / "module_utils/_a/x.py", tmp_path / "module_utils/_b/y.py"
    one.write_text(f"if TYPE_CHECKING:\n    from {rooms.PREFIX}module_utils._b.y import Y\n")
    other.write_text(f"def late():\n    from {rooms.PREFIX}module_utils._a import x\n")
    files = rooms.imports(rooms.modules(tmp_path))
    assert files == {"module_utils._a.x": {"module_utils._b.y"}, "module_utils._b.y": {"module_utils._a.x"}}
    assert rooms.circles(rooms.arrows(files)) == [["_a", "_b", "_a"], ["_b", "_a", "_b"]]


PUBLIC = re.compile(r"[A-Z]\w*\Z")

MAY_REPEAT = {
    "DEBIAN": "each product has its own layout of a platform",
    "Peer": "one of a mail server, and one of a report: what the log tells of a host at the other end",
}
"""Names that two files may define, and why. What plugins must be called (ActionModule, DOCUMENTATION) is not in the engines."""


def definitions(tree: ast.Module) -> Iterator[str]:
    """The names of classes, constants and types that a file defines for others."""
    for node in tree.body:
        names = [node.name] if isinstance(node, ast.ClassDef) else []
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
        yield from filter(PUBLIC.match, names)


def test_definitions_are_found():
    text = "class A: B = 1\nC, D = 1, 2\nE: int = 3\n_F = 4\ng = 5\ndef H(): pass\n"
    assert list(definitions(ast.parse(text))) == ["A", "C", "D", "E"]


def test_no_two_things_of_the_engines_have_one_name():
    where: dict[str, list[str]] = defaultdict(list)
    for name, path in rooms.modules().items():
        if name.startswith(("module_utils.", "plugin_utils.")):
            for one in set(definitions(ast.parse(path.read_text()))):
                where[one].append(name)
    assert {name for name, files in where.items() if len(files) > 1} == set(MAY_REPEAT)
