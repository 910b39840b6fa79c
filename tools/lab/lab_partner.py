"""A partner outside: a server with each kind of certificate, a domain for each case, and the gateways' routes to them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from lab_testinfra import Fleet, locked

from tests.support.pki import Authority, self_signed

NAME = "mx.partner.test"
# The same host: Exim, whose own transports keep connections for messages that wait, tells hosts apart by their names.
NAME_WITHOUT_TLS = "notls.partner.test"
CHECKS = ("encryption_only", "trusted_chain", "hostname")
SERVERS = ("good", "selfsigned", "wrongname", "expired", "notls")
SENDS = ("plaintext", "match_sender", "match_sender_strict", "opportunistic", "required")
GATEWAYS = {"gw1": "postfix", "gw13": "postfix", "gx12": "exim", "gx13": "exim"}
ROOTS = "/etc/ssl/partner-root.pem"


def port_of(check: str, server: str) -> int:
    """A port for each check and kind: on Exim, one that fails makes what goes to the same port by TLS wait a while."""
    return 2500 + 10 * CHECKS.index(check) + SERVERS.index(server)


@dataclass
class Partner:
    """What the tests need to know of it: domain -> port of its server."""

    domains: dict[str, int] = field(default_factory=dict)

    def domain(self, check: str, server: str) -> str:
        """The domain for a certificate check against a server."""
        return f"{check.replace('_', '-')}-{server}.test"


def _listen(fleet: Fleet, domains: list[str]) -> str:
    """Make the outside host answer on a port for each certificate; the root of its authority is returned."""
    authority = Authority.create("partner")
    issued = {
        "good": authority.issue([NAME]),
        "selfsigned": self_signed([NAME]),
        "wrongname": authority.issue(["mail.elsewhere.example"]),
        "expired": authority.expired([NAME]),
    }
    services = []
    for server in SERVERS:
        options = "-o smtpd_tls_security_level=none"
        if server in issued:
            chain = (issued[server].key_pem + issued[server].fullchain_pem).decode()
            fleet.run("outside", f"umask 077; cat >/etc/postfix/{server}.pem", chain)
            options = f"-o smtpd_tls_security_level=may -o smtpd_tls_chain_files=/etc/postfix/{server}.pem"
        ports = [port_of(check, server) for check in CHECKS]
        services += [f"{port}/inet={port} inet n - n - - smtpd {options}" for port in ports]
    everything = ", ".join(["partner.test", NAME, "localhost", *domains])
    fleet.run(
        "outside",
        f"postconf -e 'mydestination = {everything}' && "
        + "".join(f"postconf -M '{one}' && " for one in services)
        + "postfix reload 2>&1",
    )
    return authority.root_pem.decode()


def _route(fleet: Fleet, gateway: str, domains: dict[str, int]) -> None:
    """The gateway's own routes to the partner, written by hand as an administrator would."""
    if GATEWAYS[gateway] == "exim":
        known = f"grep -q {NAME_WITHOUT_TLS} /etc/hosts"
        fleet.run(gateway, f"{known} || echo '{fleet.address('outside')} {NAME_WITHOUT_TLS}' >>/etc/hosts")
        names = {SERVERS.index("notls"): NAME_WITHOUT_TLS}
        lines = "".join(f"{domain}: {names.get(port % 10, NAME)}::{port}\n" for domain, port in domains.items())
        fleet.run(gateway, "cat >>/etc/exim4/hubbed_hosts", lines)
        return
    lines = "".join(f"{domain} smtp:[{NAME}]:{port}\n" for domain, port in domains.items())
    table = "$(postconf -h default_database_type):/etc/postfix/transport"
    fleet.run(gateway, f"cat >>/etc/postfix/transport && postmap {table} && postfix reload 2>&1", lines)


@pytest.fixture(scope="session")
def partner(fleet: Fleet) -> Partner:
    """The partner, ready; the scenario's reset takes it away again."""
    made = Partner()
    for check in CHECKS:
        for server in SERVERS:
            made.domains[made.domain(check, server)] = port_of(check, server)
            made.domains[f"sub.{made.domain(check, server)}"] = port_of(check, server)
    made.domains |= {"offers.test": port_of("hostname", "good"), "refuses.test": port_of("hostname", "notls")}
    ready = "/etc/postfix/partner.ready"
    with locked("partner"):
        if not fleet.run("outside", f"ls {ready}", check=False):
            root = _listen(fleet, list(made.domains))
            for gateway in GATEWAYS:
                fleet.run(gateway, f"cat >{ROOTS}", root)
                _route(fleet, gateway, made.domains)
            fleet.run("outside", f"touch {ready}")
    return made


def queue(fleet: Fleet, gateway: str) -> str:
    """All that waits on a gateway."""
    if GATEWAYS[gateway] == "exim":
        return fleet.run(gateway, "exim4 -bpr")
    return fleet.run(gateway, "for i in $(postmulti -l | awk '{print $4}'); do postqueue -c $i -p; done")


def flush(fleet: Fleet, gateway: str) -> None:
    """Have all that waits on a gateway tried again."""
    every = "for i in $(postmulti -l | awk '{print $4}'); do postqueue -c $i -f; done"
    fleet.run(gateway, "exim4 -qff" if GATEWAYS[gateway] == "exim" else every, check=False)
