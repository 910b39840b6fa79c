"""ansible-test's validate-modules: whether the documentation of a .ps1 says what its argument spec says.

ansible-test wants a collection of its own and makes environments; its program is called here as it calls it. Its other test for
PowerShell, pslint, needs PSScriptAnalyzer, which is not to be had: Syntax.Tests.ps1 stands in for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_test import __file__ as ansible_test

from tests.support import powershell

PROGRAM = Path(ansible_test).parent / "_util/controller/sanity/validate-modules/validate.py"
COLLECTION = Path("ansible_collections/mailfleet/starttls")


def validated(place: Path, tmp_path: Path) -> list[str]:
    """What it finds in the module below a collection path: a code and a message for each."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "pwsh").unlink(missing_ok=True)
    (programs / "pwsh").symlink_to(powershell.required())
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--arg-spec", "--format", "json", "--collection", str(COLLECTION), "--collection-version", "0.1.0",
         str(COLLECTION / "plugins/modules/exchange_cmdlets.ps1")],
        cwd=place, env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "ANSIBLE_COLLECTIONS_PATH": str(place), "PYTHONPATH": ""},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    found = json.loads(done.stdout)
    return [f"{error['code']}: {error['msg']}" for one in found.values() for error in one["errors"]]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A collection with this module alone."""
    place = tmp_path / "collections"
    for name in ("plugins/modules/exchange_cmdlets.ps1", "plugins/modules/exchange_cmdlets.yml", "plugins/doc_fragments/attributes.py",
                 "galaxy.yml", "meta/runtime.yml"):  # fmt: skip
        target = place / COLLECTION / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(powershell.TOP / name, target)
    return place


def test_documentation_and_spec_agree_and_a_difference_is_found(copy: Path, tmp_path: Path):
    documentation = copy / COLLECTION / "plugins/modules/exchange_cmdlets.yml"
    changed = yaml.safe_load(documentation.read_text())
    changed["DOCUMENTATION"]["options"]["reach"]["default"] = "shell"
    documentation.write_text(yaml.safe_dump(changed))
    found = validated(copy, tmp_path)
    assert [one.partition(":")[0] for one in found] == ["doc-default-does-not-match-spec"], found


@pytest.mark.exhaustive
def test_the_module_as_it_is(copy: Path, tmp_path: Path):
    assert validated(copy, tmp_path) == []
