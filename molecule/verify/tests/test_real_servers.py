"""Two ways in which real daemons answer STARTTLS with 220 or offer it, and still have no TLS worth the name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab_testinfra import Fleet, wait_for

from tests.support.pki import Authority

EXIM, POSTFIX = "ex12", "pf12"
EXIM_PORTS = {"made up": 2526, "unreadable": 2527}
POSTFIX_PORTS = {"missing": 2531, "junk": 2532, "encrypted": 2533, "of another certificate": 2534}
PLACE = "/var/tmp/real-servers"


Entries = dict[str, dict[str, Any]]


def probe(fleet: Fleet, host: str, ports: dict[str, int]) -> Entries:
    """The handshake test of some ports of a host, by what is served there, made from outside the fleet."""
    options = {
        "targets": [
            {"host": fleet.address(host), "port": port, "name": f"{host}.fleet.test"} for port in ports.values()
        ],
        "ca_content": fleet.ca.read_text(),
        "timeout": 10,
        "checks": ["versions", "injection"],
    }
    result = fleet.result("outside", "starttls_probe", options)
    assert not result["failed"], result["output"]
    return dict(zip(ports, result["results"], strict=True))


def errors(entry: dict[str, Any]) -> list[str]:
    """The codes of an entry's errors."""
    return [finding["code"] for finding in entry["findings"] if finding["severity"] == "error"]


def listens(fleet: Fleet, host: str, port: int) -> bool:
    """Whether something answers on the port."""
    code = f"import socket; print(socket.create_connection(('127.0.0.1', {port}), 5).recv(3))"
    return "220" in fleet.run(host, f'python3 -c "{code}" 2>&1', check=False)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(fleet: Fleet) -> Iterator[None]:
    before = fleet.digests()
    yield
    assert fleet.digests() == before
    for host in (EXIM, POSTFIX):
        assert not fleet.run(host, f"ls {PLACE} 2>/dev/null", check=False)


@pytest.fixture(scope="module")
def exim(fleet: Fleet) -> Iterator[Entries]:
    """Daemons beside the one of the host, with configurations of their own: without a certificate, and without a key."""
    issued = Authority.create().issue([f"{EXIM}.fleet.test"])
    files = {"key.pem": issued.key_pem, "cert.pem": issued.fullchain_pem}
    configurations = {
        "made up": "",
        "unreadable": f"tls_certificate = {PLACE}/cert.pem\ntls_privatekey = {PLACE}/key.pem\n",
    }
    fleet.run(EXIM, f"mkdir -m 755 {PLACE}")
    try:
        for name, content in files.items():
            fleet.run(EXIM, f"umask 077; cat >{PLACE}/{name}", content.decode())
        fleet.run(EXIM, f"chmod 644 {PLACE}/cert.pem")
        for name, configuration in configurations.items():
            port = EXIM_PORTS[name]
            common = f"primary_hostname = {EXIM}.fleet.test\ntls_advertise_hosts = *\nlog_file_path = /var/log/exim4/real-servers-%slog\n"
            fleet.run(
                EXIM, f"cat >{PLACE}/{port}.conf", common + "notifier_socket =\nkeep_environment =\n" + configuration
            )
            fleet.run(EXIM, f"exim4 -C {PLACE}/{port}.conf -bd -oX {port} -oP {PLACE}/{port}.pid")
            assert wait_for(lambda port=port: listens(fleet, EXIM, port))
        yield probe(fleet, EXIM, EXIM_PORTS)
    finally:
        fleet.run(EXIM, f"cat {PLACE}/*.pid | xargs -r kill; rm -rf {PLACE} /var/log/exim4/real-servers-*", check=False)
        assert wait_for(lambda: not any(listens(fleet, EXIM, port) for port in EXIM_PORTS.values()))


@pytest.fixture(scope="module")
def postfix(fleet: Fleet) -> Iterator[Entries]:
    """Services beside those of the host, whose keys are of no use."""
    authority = Authority.create()
    issued, other = (authority.issue([f"{POSTFIX}.fleet.test"]) for _ in range(2))
    keys = {
        "junk": "no key\n",
        "encrypted": issued.encrypted_key_pem("secret").decode(),
        "of another certificate": other.key_pem.decode(),
    }
    fleet.run(POSTFIX, f"mkdir {PLACE} && cp -p /etc/postfix/master.cf {PLACE}/master.cf")
    try:
        fleet.run(POSTFIX, f"cat >{PLACE}/cert.pem", issued.fullchain_pem.decode())
        for name, port in POSTFIX_PORTS.items():
            if name in keys:
                fleet.run(POSTFIX, f"umask 077; cat >{PLACE}/{port}.key", keys[name])
            options = {
                "notify_classes": "",
                "syslog_name": "real-servers",
                "smtpd_tls_security_level": "may",
                "smtpd_tls_chain_files": "",
                "smtpd_tls_cert_file": f"{PLACE}/cert.pem",
                "smtpd_tls_key_file": f"{PLACE}/{port}.key",
            }
            words = " ".join(f"-o {option}={value}" for option, value in options.items())
            fleet.run(POSTFIX, f"postconf -M '{port}/inet={port} inet n - n - - smtpd {words}'")
        fleet.run(POSTFIX, "postfix reload 2>&1")
        for port in POSTFIX_PORTS.values():
            assert wait_for(lambda port=port: listens(fleet, POSTFIX, port))
        yield probe(fleet, POSTFIX, POSTFIX_PORTS)
    finally:
        fleet.run(
            POSTFIX,
            f"cp -p {PLACE}/master.cf /etc/postfix/master.cf && rm -rf {PLACE}; postfix reload 2>&1",
            check=False,
        )
        assert wait_for(lambda: not listens(fleet, POSTFIX, POSTFIX_PORTS["junk"]))


def test_a_certificate_that_exim_made_up_is_not_trusted(exim: Entries) -> None:
    entry = exim["made up"]
    assert (entry["stage"], entry["code"], entry["trusted"]) == ("ehlo_tls", "", False)
    assert "O=Exim Developers" in entry["certificate"]["issuer"]
    assert errors(entry) == ["untrusted"]
    assert entry["passed"] is entry["injection"] is False


def test_an_exim_that_cannot_read_its_key(exim: Entries) -> None:
    entry = exim["unreadable"]
    assert (entry["stage"], entry["code"], entry["passed"]) == ("starttls_advertised", "starttls_refused", False)
    assert entry["starttls_reply"].startswith("454 ")
    assert errors(entry) == ["starttls_refused"]


@pytest.mark.parametrize("key", POSTFIX_PORTS)
def test_a_postfix_whose_key_is_of_no_use(postfix: Entries, key: str) -> None:
    entry = postfix[key]
    assert (entry["stage"], entry["code"], entry["passed"]) == ("starttls_advertised", "starttls_refused", False)
    assert entry["starttls_reply"] == "454 4.7.0 TLS not available due to local problem"
    assert errors(entry) == ["starttls_refused"]
    assert "check that the daemon can read key and certificate" in entry["findings"][0]["message"]
