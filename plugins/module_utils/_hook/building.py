# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the program C(mailfleet-starttls): one executable file with the files of this collection that it imports, and nothing else.

It is made on the host, from what Ansible's packer has sent with the module, so nothing is sent twice. The same files make the same
bytes, whatever made them and when: nothing is compressed, and every file has the same date.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, Optional

PACKAGE = "ansible_collections.mailfleet.starttls.plugins.module_utils"
ENTRY = f"{PACKAGE}._hook.main"
_MAIN = f"import sys\n\nfrom {ENTRY} import main\n\nsys.exit(main())\n"
_DATE = (1980, 1, 1, 0, 0, 0)

ModuleReader = Callable[[str], Optional[str]]
"""Returns the text of a module by its dotted name; None if there is no such module."""


def source_of(name: str) -> Optional[str]:
    """Return the text of a module that this process can import; None for a package, or if there is none. Reads files and payloads."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    loader: Any = spec.loader if spec else None
    if spec is None or spec.submodule_search_locations is not None or not hasattr(loader, "get_source"):
        return None
    text: Optional[str] = loader.get_source(name)
    return text


def sources(read: ModuleReader = source_of, entry: str = ENTRY) -> dict[str, str]:
    """Return module -> text of all that the program imports, directly or through others; imports in functions count."""
    found: dict[str, str] = {}
    todo = [entry]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        text = read(name)
        if text is not None:
            found[name] = text
            todo += _imported(text)
    return dict(sorted(found.items()))


def _imported(text: str) -> Iterator[str]:
    """Yield what may be modules of this collection. What only types need is left out, as at run time."""
    for node in _run(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            yield str(node.module)
            yield from (f"{node.module}.{one.name}" for one in node.names)


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _run(node)


def build(found: dict[str, str], interpreter: str) -> bytes:
    """Return the program. found: as sources() returns it. interpreter: the path of a Python, 3.9 or newer."""
    files = {"__main__.py": _MAIN}
    for name, text in found.items():
        parts = name.split(".")
        for depth in range(1, len(parts)):
            files.setdefault("/".join(parts[:depth]) + "/__init__.py", "")
        files["/".join(parts) + ".py"] = text
    target = io.BytesIO()
    # -I: neither the caller's environment nor the current directory says what is imported.
    target.write(f"#!{interpreter} -I\n".encode())
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _DATE)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            archive.writestr(info, files[name].encode("utf-8"))
    return target.getvalue()
