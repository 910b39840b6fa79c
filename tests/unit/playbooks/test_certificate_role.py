"""The role certificate: what is on the host and belongs to somebody else is never touched."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
TASKS = yaml.safe_load((ROOT / "roles/certificate/tasks/main.yml").read_text())


def test_the_files_of_somebody_else_are_neither_installed_nor_removed() -> None:
    [task] = [one for one in TASKS if "mailfleet.starttls.tls_certificate" in one]
    assert task["when"] == "certificate_source != 'host'"


@pytest.mark.parametrize(
    "name", ["Say what to do with the request", "End the play for a host that waits for its certificate"]
)
def test_a_host_that_waits_ends_there_and_has_not_failed(name: str) -> None:
    [task] = [one for one in TASKS if one["name"] == name]
    assert task["when"] == "certificate_result.waiting | default(false)"
    assert "ansible.builtin.fail" not in task
