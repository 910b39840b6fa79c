"""rotate_certificate on a fleet that answers as told: the first request of a host without TLS, and what a check says."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.canned_fleet import canned_fleet
from tests.support.pki import new_key
from tests.support.plan_states import gateway, server
from tests.support.playbooks import PLAYBOOKS, run_playbook

OFF = {"inbound": "disabled", "outbound": "disabled"}


def asks(host: str) -> dict[str, Any]:
    """What a host without TLS says: it has nothing to renew, and makes a key and a request if it is asked."""
    key = new_key()
    name = x509.DNSName(f"{host}.test")
    request = (
        x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([name]), False).sign(key, hashes.SHA256())
    )  # fmt: skip
    public = base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    part = {
        "path": "/etc/mailfleet/starttls.pem", "due": "there is none yet", "anew": False, "pem": "", "public_key": "", "message": "",
        "pending": public, "key": "/var/lib/mailfleet-starttls/pending+x.key", "csr": request.public_bytes(Encoding.PEM).decode(),
    }  # fmt: skip
    read = server(host) if host != "gw1" else gateway(host)
    read |= {"before": OFF, "after": OFF, "changes": [], "probe": {"results": [], "certificates": {}}, "issued": [part]}
    return {
        "mail_server_info": read,
        "gateway_info": read,
        "tls_certificate": {"changed": True, "issued": [part]},
    }


@pytest.mark.exhaustive
def test_a_host_without_tls_gets_its_first_request_written_and_is_not_failed(tmp_path: Path) -> None:
    answers = {host: asks(host) for host in ("gw1", "m1", "m2")}
    wish = {
        "starttls_certificate_source": "csr", "starttls_csr_file": str(tmp_path / "{{ inventory_hostname }}.csr"),
        "starttls_send_messages": False, "starttls_check_tlsa": False, "starttls_outside_host": "",
    }  # fmt: skip
    inventory = canned_fleet(tmp_path, answers, **wish)
    done = run_playbook(tmp_path, inventory, [{"import_playbook": str(PLAYBOOKS / "rotate_certificate.yml")}])
    for host in answers:
        assert (tmp_path / f"{host}.csr").read_text().startswith("-----BEGIN CERTIFICATE REQUEST-----"), done.stdout
        assert f"The request (CSR) for this host is in {tmp_path}/{host}.csr" in done.stdout
    assert "Hosts that wait for their certificates, whose requests are written: gw1, m1, m2" in done.stdout
    assert not (tmp_path / "m1/mail_server_tls.sent").exists()


@pytest.mark.exhaustive
def test_a_check_makes_nothing(tmp_path: Path) -> None:
    answers = {host: asks(host) for host in ("gw1", "m1", "m2")}
    inventory = canned_fleet(tmp_path, answers, starttls_certificate_source="csr", starttls_send_messages=False)
    play = [{"import_playbook": str(PLAYBOOKS / "rotate_certificate.yml")}]
    done = run_playbook(tmp_path, inventory, play, "--check")
    assert "Plan: rotate: clean" in done.stdout, done.stdout
    assert not list(tmp_path.glob("*.csr"))
