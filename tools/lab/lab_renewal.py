"""The mail servers of the scenario renewal, whose certificates come from its ACME authority."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from lab_clients import FACES, handshake
from lab_estates import other_inventory
from lab_testinfra import SERVERS, Fleet, wait_for

CA = "ca"
DIRECTORY = "https://ca.fleet.test:14000/dir"
ROOTS = "/etc/ssl/lab-ca.pem"
"""Roots of the authority's web server, on the mail servers; what it issues has others."""
CREDENTIALS = "/etc/letsencrypt/rfc2136.ini"
BY_DNS = ("pf13", "ex13")
"""Those that prove their names by the DNS. The others answer on port 80."""
CERTBOT = f"REQUESTS_CA_BUNDLE={ROOTS} certbot"
_RUNNING = "/tmp/clients"
_OF_FILES = ("private_key_file", "certificate_file", "chain_file", "ca_file")
_FINGERPRINTS = (
    "for pem in /etc/mailfleet/starttls.pem /etc/mailfleet/starttls-2.pem; do "
    "openssl x509 -in $pem -noout -fingerprint -sha256; done"
)


class Renewing:
    """The four mail servers, seen from inside and from outside."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def on_each(self, work: Callable[[str], Any], hosts: Sequence[str] = SERVERS) -> dict[str, Any]:
        """Do the work on every host at once."""
        with ThreadPoolExecutor(len(hosts)) as pool:
            return dict(zip(hosts, pool.map(work, hosts)))

    def run(self, host: str, command: str) -> tuple[int, str]:
        """Run a command on a host: its exit status, and all that it printed."""
        said = self.fleet.run(host, f"({command}) 2>&1; printf '\\n%s\\n' $?", check=False)
        text, _line, status = said.rstrip().rpartition("\n")
        return int(status), text.strip()

    def check(self, host: str, clock: str = "") -> tuple[int, str]:
        """What monitoring is told: the exit status and the line. clock: how far the host's clock is moved, as +3d."""
        moved = f"faketime -f {clock} " if clock else ""
        return self.run(host, f"{moved}mailfleet-starttls check")

    def renew(self, host: str) -> tuple[int, str]:
        """Call the program of the hook."""
        return self.run(host, "mailfleet-starttls renew")

    def installed(self, host: str) -> dict[str, str]:
        """The SHA-256 of the installed certificates: algorithm -> fingerprint."""
        found = re.findall(r"(?i)fingerprint=([0-9a-f:]+)", self.fleet.run(host, _FINGERPRINTS))
        return dict(zip(("ECDSA", "RSA"), (one.replace(":", "").lower() for one in found)))

    def served(self, host: str) -> dict[tuple[int, str], str]:
        """What clients of each algorithm get on each port."""
        return {(port, kind): handshake(self.fleet.address(host), port, kind) for port, kind in FACES}

    def serves_what_is_installed(self, host: str) -> bool:
        """Whether each port serves the installed certificate of each algorithm."""
        installed = self.installed(host)
        return self.served(host) == {(port, kind): installed[kind] for port, kind in FACES}

    def certbot(self, host: str, words: str) -> tuple[int, str]:
        """Run certbot, as somebody on the host does."""
        return self.run(host, f"{CERTBOT} {words}")

    def issue(self, host: str, name: str, more: str = "", lineage: str = "") -> tuple[int, str]:
        """Have certbot issue an ECDSA certificate for a name. lineage: certbot's name for it; without, it replaces that of the host."""
        how = f"--dns-rfc2136 --dns-rfc2136-credentials {CREDENTIALS}" if host in BY_DNS else "--standalone"
        return self.certbot(
            host,
            f"certonly {how} --non-interactive --server {DIRECTORY} --cert-name {lineage or host + '.fleet.test'} --renew-with-new-domains "
            f"-d {name} --force-renewal --key-type ecdsa {more}",
        )

    def log(self, host: str) -> list[str]:
        """The lines of the hook in the journal."""
        return self.fleet.run(host, "journalctl -t mailfleet-starttls -o cat --no-pager", check=False).splitlines()

    @contextlib.contextmanager
    def clients(self) -> Iterator[dict[str, Any]]:
        """Handshakes and messages, as long as the block lasts; then what the clients saw, host by host."""
        self.fleet.run(CA, "cat >/root/clients.py", Path(__file__).with_name("lab_clients.py").read_text())
        servers = " ".join(f"{host}={self.fleet.address(host)}" for host in SERVERS)
        seen: dict[str, Any] = {}
        with subprocess.Popen(
            ["podman", "exec", self.fleet.container(CA), "python3", "/root/clients.py", _RUNNING, *servers.split()],
            stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                assert wait_for(lambda: self.fleet.run(CA, f"ls {_RUNNING}", check=False), 180), "no client runs"
                yield seen
            finally:
                self.fleet.run(CA, f"rm -f {_RUNNING}")
                output = process.communicate(timeout=120)[0]
        seen.update(json.loads(output))


def acme_fleet() -> Fleet:
    """The fleet with an inventory that says where the certificates come from."""
    plain = Fleet()
    roots = plain.run(CA, "cat /var/lib/mailfleet-lab/roots.pem")
    plain.end()
    challenge = {
        host: {"starttls_acme_challenge": "rfc2136", "starttls_acme_dns_credentials": CREDENTIALS}
        if host in BY_DNS
        else {"starttls_acme_challenge": "standalone"}
        for host in SERVERS
    }
    fleet = other_inventory(
        "renewal",
        {"mail_servers": list(SERVERS)},
        challenge,
        starttls_certificate_source="acme",
        starttls_acme_email="hostmaster@example.com",
        starttls_acme_server=DIRECTORY,
        starttls_acme_ca_file=ROOTS,
        starttls_ca_content=roots,
        starttls_key_types=["ecdsa", "rsa"],
        email_configs=[],
    )
    # The lab's own certificates are another source.
    inventory = yaml.safe_load(fleet.inventory.read_text())
    for name in _OF_FILES:
        del inventory["all"]["vars"][f"starttls_{name}"]
    fleet.inventory.write_text(yaml.safe_dump(inventory))
    return fleet
