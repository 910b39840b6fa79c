"""Arrows go down only: what the imports are, against what docs/architecture.md draws and promises."""

from __future__ import annotations

from pathlib import Path

from tests.support import rooms

FILES = rooms.imports(rooms.modules())
ROOMS = rooms.arrows(FILES)
PRODUCTS = {"_postfix", "_exim", "_haraka", "_proxmox", "_mailcow"}


def test_no_circle_of_files_or_rooms():
    assert rooms.circles(FILES) == []
    assert rooms.circles(ROOMS) == []


def test_products_do_not_know_each_other():
    assert {product: ROOMS[product] & PRODUCTS for product in PRODUCTS} == {product: set() for product in PRODUCTS}


def test_the_two_at_the_bottom_know_nothing_of_hosts():
    assert ROOMS["_smtp"] == set()
    assert ROOMS["_change"] == {"errors"}


def test_only_the_registry_knows_products():
    knowing = {room for room, targets in ROOMS.items() if targets & PRODUCTS}
    assert knowing - PRODUCTS == {"kinds"}


def test_what_runs_on_hosts_uses_nothing_of_the_controller():
    hosts = [name for name in FILES if name.startswith("module_utils.")]
    above = {target for name in hosts for target in FILES[name] if not target.startswith("module_utils.")}
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
