"""What sslyze says of mail servers. Runs in the environment that `peers` builds, and needs nothing of this project.

Reads {"ca_file": path, "targets": [{"id", "host", "port", "name", "versions": bool}]} from standard input and writes
{id: {"starttls": bool, "trusted": bool | null, "versions": {name: bool}}}; trusted includes the name of the host.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sslyze import (
    CertificateInfoExtraArgument,
    ProtocolWithOpportunisticTlsEnum,
    ScanCommand,
    ScanCommandsExtraArguments,
    Scanner,
    ServerNetworkConfiguration,
    ServerNetworkLocation,
    ServerScanRequest,
    ServerScanResult,
)

VERSIONS = {
    "TLSv1": ScanCommand.TLS_1_0_CIPHER_SUITES,
    "TLSv1.1": ScanCommand.TLS_1_1_CIPHER_SUITES,
    "TLSv1.2": ScanCommand.TLS_1_2_CIPHER_SUITES,
    "TLSv1.3": ScanCommand.TLS_1_3_CIPHER_SUITES,
}


def request(target: dict[str, Any], ca_file: Path) -> ServerScanRequest:
    """One connection's worth of questions."""
    return ServerScanRequest(
        server_location=ServerNetworkLocation(target["name"], target["port"], ip_address=target["host"]),
        network_configuration=ServerNetworkConfiguration(
            tls_server_name_indication=target["name"],
            tls_opportunistic_encryption=ProtocolWithOpportunisticTlsEnum.SMTP,
            network_timeout=5,
            network_max_retries=1,
        ),
        scan_commands={ScanCommand.CERTIFICATE_INFO, *(VERSIONS.values() if target["versions"] else ())},
        scan_commands_extra_arguments=ScanCommandsExtraArguments(
            certificate_info=CertificateInfoExtraArgument(custom_ca_file=ca_file)
        ),
    )


def verdict(result: ServerScanResult, ca_file: Path) -> dict[str, Any]:
    """The part of the result that can be compared."""
    said: dict[str, Any] = {"starttls": result.connectivity_error_trace is None, "trusted": None, "versions": {}}
    if result.scan_result is None:
        return said
    deployments = getattr(result.scan_result.certificate_info.result, "certificate_deployments", ())
    validations = [
        one.was_validation_successful
        for deployment in deployments
        for one in deployment.path_validation_results
        if one.trust_store.path == ca_file
    ]
    said["trusted"] = all(validations) if validations else None
    for name, command in VERSIONS.items():
        suites = getattr(result.scan_result, command.value).result
        if suites is not None:
            said["versions"][name] = suites.is_tls_version_supported
    return said


def main() -> None:
    """Scan what standard input names."""
    wanted = json.load(sys.stdin)
    ca_file = Path(wanted["ca_file"])
    scanner = Scanner(per_server_concurrent_connections_limit=4, concurrent_server_scans_limit=12)
    requests = {target["id"]: request(target, ca_file) for target in wanted["targets"]}
    scanner.queue_scans(list(requests.values()))
    ids = {one.uuid: name for name, one in requests.items()}
    print(json.dumps({ids[result.uuid]: verdict(result, ca_file) for result in scanner.get_results()}))


if __name__ == "__main__":
    main()
