"""The Pester tests, and what finds them a PowerShell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import powershell

HERE = Path(__file__).resolve().parent


def test_pester(capsys: pytest.CaptureFixture[str]):
    done = powershell.run("-File", str(HERE / "run.ps1"))
    with capsys.disabled():
        print(f"\n{done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_failure_is_one(tmp_path: Path):
    broken = tmp_path / "Broken.Tests.ps1"
    broken.write_text("Describe 'x' { It 'fails' { 1 | Should -Be 2 } }\n")
    done = powershell.run("-File", str(HERE / "run.ps1"), str(broken))
    assert done.returncode == 1 and "FAILED x.fails" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("named", ["", "there", "missing"])
def test_powershell_is_found_in_three_places(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "bin/pwsh"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    beside = tmp_path / "beside"
    monkeypatch.setattr(powershell, "BESIDE", beside)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.delenv("PWSH", raising=False)
    if named:
        other = tmp_path / "other"
        if named == "there":
            other.write_text("#!/bin/sh\n")
            other.chmod(0o755)
        monkeypatch.setenv("PWSH", str(other))
        assert powershell.find() == (str(other) if named == "there" else None)
        return
    assert powershell.find() == str(program)
    monkeypatch.setenv("PATH", os.devnull)
    assert powershell.find() is None
    beside.write_text("#!/bin/sh\n")
    beside.chmod(0o755)
    assert powershell.find() == str(beside)


def test_the_skip_names_the_three_places(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(powershell, "find", lambda: None)
    with pytest.raises(pytest.skip.Exception, match=r"\$PWSH.*pwsh on the PATH.*shared/tools/pwsh"):
        powershell.required()
