"""A real PowerShell for tests: where it is, and how a script runs in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Optional

import pytest
from ansible import module_utils

TOP = Path(__file__).resolve().parents[2]
MODULES = TOP / "tests/powershell/modules"
CONNECTIONS = TOP / "tests/support/connection_plugins"
BESIDE = TOP.parent / "shared/tools/pwsh"

MISSING = f"there is no PowerShell: not in $PWSH, not as pwsh on the PATH, not as {BESIDE}"


def find() -> Optional[str]:
    """The program: $PWSH, pwsh on the PATH, or ../shared/tools/pwsh beside the checkout; None if there is none."""
    named = os.environ.get("PWSH")
    if named:
        return shutil.which(named)
    return shutil.which("pwsh") or (str(BESIDE) if os.access(BESIDE, os.X_OK) else None)


def required() -> str:
    """The program, or the test is skipped with the places that were looked at."""
    found = find()
    if found is None:
        pytest.skip(MISSING)
    return found


def environment(directory: Optional[Path] = None, root: str = "") -> dict[str, str]:
    """The variables of a PowerShell in which the stubs are the cmdlets of Exchange. directory: where their state.json lies."""
    inherited = os.environ.get("PSModulePath", "")  # noqa: SIM112 - its name everywhere
    variables = {
        **os.environ,
        "PSModulePath": f"{MODULES}{os.pathsep}{inherited}".rstrip(os.pathsep),
        "POWERSHELL_TELEMETRY_OPTOUT": "1",
    }
    variables["ANSIBLE_MODULE_UTILS"] = str(Path(module_utils.__file__).parent)
    if directory is not None:
        variables |= {"EXCHANGE_STUBS_DIRECTORY": str(directory), "EXCHANGE_STUBS_ROOT": root}
    return variables


def run(*words: str, directory: Optional[Path] = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run PowerShell with these arguments; more: further variables."""
    return subprocess.run(
        [required(), "-NoProfile", "-NonInteractive", *words],
        cwd=TOP, env={**environment(directory), **more}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
