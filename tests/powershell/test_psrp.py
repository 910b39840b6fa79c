"""Ansible's own connection for Windows, psrp, against a stub of WS-Management: one read."""

from __future__ import annotations

from pathlib import Path

from tests.powershell.conftest import Organisation, play
from tests.support import powershell, wsman


def test_a_read_over_psrp(organisation: Organisation, tmp_path: Path):
    host = wsman.Host(powershell.required(), powershell.environment(organisation.directory))
    with wsman.serving(host) as port:
        inventory = {
            "ansible_connection": "psrp", "ansible_host": "127.0.0.1", "ansible_port": port, "ansible_psrp_protocol": "http",
            "ansible_psrp_auth": "basic", "ansible_user": "admin", "ansible_password": "not-looked-at",
            "ansible_psrp_message_encryption": "never",
        }  # fmt: skip
        read = {"mailfleet.starttls.exchange_cmdlets": {"operation": "read", "server": "EX1"}}
        results, printed = play(inventory, [read], tmp_path)
    assert len(host.scripts) == 1 and len(results) == 1, printed
    observed = results[0].get("observed")
    assert observed and observed["Errors"] == {} and observed["Server"]["Name"] == "EX1", printed
    assert [one["Name"] for one in observed["SendConnectors"]] == ["To the internet"]
