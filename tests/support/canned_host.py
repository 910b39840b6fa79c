"""A host that answers each module of the collection with what it was told to say. Ansible reaches it by a Python of its own."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PYTHON = """#!{python}
import os, pathlib, re, subprocess, sys
file = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 and pathlib.Path(sys.argv[1]).is_file() else None
sent = file.read_bytes() if file else sys.stdin.buffer.read()
module = re.search(rb"starttls[./]plugins[./]modules[./](\\w+)", sent)
if module:
    pathlib.Path("{place}", module[1].decode() + ".sent").write_bytes(sent)
    print(pathlib.Path("{place}", module[1].decode()).read_text())
    if (later := pathlib.Path("{place}", module[1].decode() + ".later")).exists():
        later.replace(later.with_suffix(""))
elif file:
    os.execv("{python}", ["{python}", *sys.argv[1:]])
else:
    sys.exit(subprocess.run(["{python}"], input=sent).returncode)
"""


def canned_host(place: Path, answers: Mapping[str, Any]) -> dict[str, str]:
    """Make the host below a directory. Returns the variables by which Ansible reaches it.

    answers: module -> its result; C(module.later): the result from its second call on.
    """
    place.mkdir(exist_ok=True)
    for module, result in answers.items():
        (place / module).write_text(json.dumps(result))
    python = place / "python"
    python.write_text(_PYTHON.format(python=sys.executable, place=place))
    python.chmod(0o755)
    return {"ansible_connection": "local", "ansible_python_interpreter": str(python)}


def arguments_of(place: Path, module: str) -> dict[str, Any]:
    """What the last call gave to a module on a host below this directory; empty if there was none."""
    sent = place / f"{module}.sent"
    if not sent.exists():
        return {}
    found = re.search(r"'(\{\"ANSIBLE_MODULE_ARGS\".*\})'", sent.read_text(errors="replace"))
    assert found, f"{sent} has no arguments"
    arguments = json.loads(ast.literal_eval(f"'{found[1]}'"))["ANSIBLE_MODULE_ARGS"]
    return {name: value for name, value in arguments.items() if not name.startswith("_ansible_")}
