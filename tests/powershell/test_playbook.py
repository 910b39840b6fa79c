"""exchange_cmdlets as ansible-playbook runs it, in a real PowerShell, against the stubs."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12

from tests.powershell.conftest import Organisation, piped, play
from tests.support.pki import self_signed

PASSWORD = "a-password-of-this-test"
MODULE = "mailfleet.starttls.exchange_cmdlets"
SEND = {
    "Cmdlet": "Set-SendConnector",
    "Parameters": {"Identity": "To the internet", "RequireTLS": True, "TlsAuthLevel": "EncryptionOnly"},
}
RELAX = {
    "Cmdlet": "Set-SendConnector",
    "Parameters": {"Identity": "To the internet", "RequireTLS": False, "TlsAuthLevel": None},
}
WRONG = {"Cmdlet": "Set-SendConnector", "Parameters": {"Identity": "To the internet", "TlsDomain": "gw.example.test"}}
FRONT = {"Identity": "EX1\\Default Frontend EX1"}


def task(operation: str, *calls: dict[str, Any], check: bool = False, **more: Any) -> dict[str, Any]:
    options = {"operation": operation, "server": "EX1", **({"calls": list(calls)} if calls else {}), **more}
    return {MODULE: options, "check_mode": check, "ignore_errors": True}


def test_check_run_and_fail(organisation: Organisation, tmp_path: Path):
    issued = self_signed(["mail.example.test"])
    certificate = x509.load_pem_x509_certificate(issued.fullchain_pem)
    key = load_pem_private_key(issued.key_pem, None)
    pfx = base64.b64encode(
        pkcs12.serialize_key_and_certificates(b"x", key, certificate, None, BestAvailableEncryption(PASSWORD.encode()))  # type: ignore[arg-type]
    ).decode()
    imported = {
        "Cmdlet": "Import-ExchangeCertificate",
        "Parameters": {"FileData": {"Secret": "FileData"}, "Password": {"Secret": "Password"}},
    }
    results, printed = play(
        piped(organisation.directory),
        [
            task("apply", {**SEND, "Undo": [RELAX]}, check=True),
            task("apply", {**SEND, "Undo": [RELAX]}, imported, secrets={"FileData": pfx, "Password": PASSWORD}),
            task("apply", {"Cmdlet": "Set-ReceiveConnector", "Parameters": {**FRONT, "RequireTLS": True},
                           "Undo": [{"Cmdlet": "Set-ReceiveConnector", "Parameters": {**FRONT, "RequireTLS": False}}]}, WRONG),
        ],
        tmp_path,
    )  # fmt: skip
    assert len(results) == 3, printed
    predicted, changed, failed = results

    assert predicted["changed"] and "done" not in predicted
    assert changed["changed"] and changed["done"] == 2, changed
    assert "taken back" in failed["msg"] and not failed["changed"]
    assert failed["failure"]["index"] == 1 and "TLSDomain" in failed["failure"]["message"]
    assert [one["cmdlet"] for one in failed["undo"]] == ["Set-ReceiveConnector"]
    assert printed.count("fatal: [ex1]: FAILED!") == 1
    assert organisation.calls() == [
        "Set-SendConnector", "Import-ExchangeCertificate",
        "Set-ReceiveConnector", "Set-SendConnector", "Set-ReceiveConnector",
    ]  # fmt: skip

    state = organisation.state()
    sending = state["SendConnectors"][0]
    assert (sending["RequireTLS"], sending["TlsAuthLevel"], sending["TlsDomain"]) == (True, "EncryptionOnly", None)
    assert not any(one["RequireTLS"] for one in state["ReceiveConnectors"])
    assert [one["CertificateDomains"] for one in state["Certificates"]][1] == ["mail.example.test"]

    # The task's own arguments are the user's; nothing that comes back has them.
    for secret in (PASSWORD, pfx[:40]):
        assert secret not in json.dumps(results)
        assert secret not in printed
    files = [path for path in organisation.directory.rglob("*") if path.is_file() and "certificates" not in path.parts]
    assert all(PASSWORD not in path.read_text() for path in files)
