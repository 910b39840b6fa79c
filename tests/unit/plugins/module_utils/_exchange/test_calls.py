"""A call that must never be made cannot be a value."""

from __future__ import annotations

import json

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.calls import CmdletCall, simulate
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import observe
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.exchange_organisation import NEW, organisation

ENABLE = {"Server": "EX1", "Thumbprint": NEW, "Services": ("SMTP",), "Force": True}


@pytest.mark.parametrize("empty", [None, "", " ", "\\"])
@pytest.mark.parametrize(
    ("cmdlet", "name"),
    [
        ("Set-ReceiveConnector", "Identity"),
        ("Set-SendConnector", "Identity"),
        ("Remove-SendConnector", "Identity"),
        ("Retry-Queue", "Identity"),
    ],
)
def test_an_empty_identity_is_refused(cmdlet, name, empty):
    with pytest.raises(EngineError, match=f"{cmdlet} without {name}"):
        CmdletCall(cmdlet, {name: empty, "RequireTLS": True})


@pytest.mark.parametrize("missing", ["Server", "Thumbprint", "Services"])
def test_a_certificate_is_enabled_by_server_thumbprint_and_services(missing):
    assert CmdletCall("Enable-ExchangeCertificate", ENABLE).parameters["Thumbprint"] == NEW
    with pytest.raises(EngineError, match=f"without {missing}"):
        CmdletCall("Enable-ExchangeCertificate", {name: value for name, value in ENABLE.items() if name != missing})


@pytest.mark.parametrize("thumbprint", ["*", "c" * 40, "C" * 39, "C" * 40 + "\n"])
def test_what_is_no_thumbprint_is_refused(thumbprint):
    with pytest.raises(EngineError, match="is no thumbprint"):
        CmdletCall("Remove-ExchangeCertificate", {"Server": "EX1", "Thumbprint": thumbprint})


@pytest.mark.parametrize("cmdlet", ["Remove-Mailbox", "Set-TransportConfig", "Get-ReceiveConnector", ""])
def test_other_cmdlets_are_refused(cmdlet):
    with pytest.raises(EngineError, match="no cmdlet that the collection calls"):
        CmdletCall(cmdlet, {"Identity": "a"})


@pytest.mark.parametrize("parameter", ["RemoteIPRanges", "PermissionGroups", "Bindings", "Fqdn", "Enabled"])
def test_whom_another_connector_serves_is_not_changed(parameter):
    with pytest.raises(EngineError, match=f"{parameter} of the connector default frontend ex1 is not the collection's"):
        CmdletCall("Set-ReceiveConnector", {"Identity": "EX1\\Default Frontend EX1", parameter: ("x",)})
    assert CmdletCall("Set-ReceiveConnector", {"Identity": "EX1\\mailfleet_peer_gw1", parameter: ("x",)})


def test_a_call_is_plain_data_for_the_module():
    undo = CmdletCall("Set-ReceiveConnector", {"Identity": "EX1\\a", "RequireTLS": False})
    call = CmdletCall(
        "Set-ReceiveConnector",
        {"Identity": "EX1\\a", "AuthMechanism": ("Tls",), "TlsCertificateName": None},
        (undo,),
        insists=True,
    )
    assert json.loads(json.dumps(call.to_json())) == {
        "Cmdlet": "Set-ReceiveConnector",
        "Parameters": {"Identity": "EX1\\a", "AuthMechanism": ["Tls"], "TlsCertificateName": None},
        "Undo": [
            {"Cmdlet": "Set-ReceiveConnector", "Parameters": {"Identity": "EX1\\a", "RequireTLS": False}, "Undo": []}
        ],
    }


def test_what_is_gone_is_not_simulated():
    found = observe(organisation())
    for call in (
        CmdletCall("Set-ReceiveConnector", {"Identity": "EX1\\gone", "RequireTLS": True}),
        CmdletCall("Remove-SendConnector", {"Identity": "gone"}),
        CmdletCall("Enable-ExchangeCertificate", ENABLE),
        CmdletCall("Retry-Queue", {"Identity": "EX1\\3"}),
    ):
        assert simulate(found, [call]) == found
