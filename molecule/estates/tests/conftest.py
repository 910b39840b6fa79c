"""One fleet in many shapes: what each host is, and the way back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from lab_estates import other_inventory
from lab_testinfra import Fleet, wait_for

GATEWAYS = ("gw1", "gw13")
IPV6 = {"gw1": "fd00:25::10", "gw13": "fd00:25::20", "pf13": "fd00:25::13"}
ELSEWHERE = "192.0.2.112"
"""Where the gateways reach ex12. No host has this address."""
OWN = "/etc/ssl/own.pem"
"""A certificate of pf12's administrator for its users, with its key."""

# Users of pf12 submit mail at ports of their own, with a certificate of their own. It takes mail for two email configs. A second instance
# of Postfix does something else.
PF12 = f"""
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=users.example \
    -keyout {OWN} -out {OWN}.crt 2>/dev/null; cat {OWN}.crt >>{OWN}; chgrp postfix {OWN}; chmod 640 {OWN}
postconf -M 'submission/inet=submission inet n - y - - smtpd -o smtpd_tls_security_level=encrypt -o smtpd_tls_chain_files={OWN}' \
    'smtps/inet=smtps inet n - y - - smtpd -o smtpd_tls_wrappermode=yes -o smtpd_tls_chain_files={OWN}'
postconf -e 'mydestination = alpha.test, legal.test, pf12.fleet.test, localhost'
postmulti -e init; postmulti -I postfix-other -e create
postconf -c /etc/postfix-other -e 'inet_interfaces = 127.0.0.1' 'master_service_disable =' 'authorized_submit_users = root'
postconf -c /etc/postfix-other -M '2525/inet=2525 inet n - n - - smtpd'; postconf -c /etc/postfix-other -MX smtp/inet
postmulti -i postfix-other -e enable; systemctl daemon-reload; systemctl restart postfix
"""

# pf13 knows no IPv4 for mail, and postscreen answers on its port.
PF13 = """
postconf -e 'inet_protocols = ipv6' 'smtp_host_lookup = native' 'mynetworks = [::1]/128' 'postscreen_greet_wait = 2s'
postconf -M 'smtp/inet=smtp inet n - y - 1 postscreen' 'smtpd/pass=smtpd pass - - y - - smtpd' \
    'dnsblog/unix=dnsblog unix - - y - 0 dnsblog' 'tlsproxy/unix=tlsproxy unix - - y - 0 tlsproxy'
systemctl restart postfix
"""

GATEWAY = """
postconf -e 'inet_protocols = all' 'smtp_host_lookup = native' "mynetworks = $(postconf -h mynetworks) [fd00:25::]/64" \
    "relay_domains = $(postconf -h relay_domains) legal.test"
echo 'legal.test smtp:[pf12.fleet.test]' >>/etc/postfix/transport; postmap $(postconf -h default_database_type):/etc/postfix/transport
systemctl restart postfix
"""

# gw1 is a mail server, too.
OWN_MAIL = 'postconf -e "mydestination = $(postconf -h mydestination), own.test"; systemctl reload postfix'

TO_GW1 = """
postconf -e "relay_domains = $(postconf -h relay_domains) own.test"
echo 'own.test smtp:[gw1.fleet.test]' >>/etc/postfix/transport; postmap $(postconf -h default_database_type):/etc/postfix/transport
systemctl reload postfix
"""


def in_network(fleet: Fleet, host: str, *command: str) -> None:
    """Run a program of this machine in the network of a host."""
    pid = subprocess.run(
        ["podman", "inspect", "--format={{.State.Pid}}", fleet.container(host)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", *command], check=True, capture_output=True)


def name(fleet: Fleet, host: str, fqdn: str, address: str) -> None:
    """Have a host know another one at this address only. Its file of hosts is a mount, so it is written in place."""
    fleet.run(
        host,
        f"sed '/{fqdn}/d' /etc/hosts >/tmp/hosts; echo '{address} {fqdn}' >>/tmp/hosts; cat /tmp/hosts >/etc/hosts",
    )


@pytest.fixture(scope="session")
def shaped(fleet: Fleet) -> Iterator[Fleet]:
    """The hosts in their shapes."""
    hosts = {host: fleet.run(host, "cat /etc/hosts") for host in (*GATEWAYS, "pf13")}
    for host, address in IPV6.items():
        in_network(fleet, host, "ip", "-6", "address", "replace", f"{address}/64", "dev", "eth0", "nodad")
    nat = [
        "OUTPUT",
        "-d",
        ELSEWHERE,
        "-p",
        "tcp",
        "--dport",
        "25",
        "-j",
        "DNAT",
        "--to-destination",
        f"{fleet.address('ex12')}:25",
    ]
    allowed = ",".join(fleet.address(one) for one in GATEWAYS)
    closed = [
        ["INPUT", "-p", "tcp", "--dport", "25", "-s", allowed, "-j", "ACCEPT"],
        ["INPUT", "-p", "tcp", "--dport", "25", "!", "-i", "lo", "-j", "DROP"],
    ]
    try:
        for gateway in GATEWAYS:
            in_network(fleet, gateway, "iptables", "-t", "nat", "-A", *nat)
            name(fleet, gateway, "ex12.fleet.test", ELSEWHERE)
            name(fleet, gateway, "pf13.fleet.test", IPV6["pf13"])
            fleet.run(gateway, GATEWAY)
        fleet.run("gw1", OWN_MAIL)
        fleet.run("gw13", TO_GW1)
        name(fleet, "pf13", "gw1.fleet.test", IPV6["gw1"])
        for rule in closed:
            in_network(fleet, "ex13", "iptables", "-A", *rule)
        fleet.run("pf12", PF12)
        fleet.run("pf13", PF13)
        assert wait_for(lambda: "2525" in fleet.run("pf12", "ss -Hltn"))
        yield fleet
    finally:
        for host, text in hosts.items():
            fleet.run(host, "cat >/etc/hosts", text)
        for host, address in IPV6.items():
            in_network(fleet, host, "ip", "-6", "address", "delete", f"{address}/64", "dev", "eth0")
        for gateway in GATEWAYS:
            in_network(fleet, gateway, "iptables", "-t", "nat", "-F", "OUTPUT")
        in_network(fleet, "ex13", "iptables", "-F", "INPUT")
        stop = "postmulti -i postfix-other -p stop; postmulti -i postfix-other -e disable; postmulti -i postfix-other -e destroy"
        fleet.run("pf12", stop, check=False)


@pytest.fixture(scope="session")
def estate(shaped: Fleet) -> Iterator[Fleet]:
    """Two gateways, of which one is a mail server too, and mail servers, one of them in two email configs."""
    configs = [
        {"name": "own", "domains": ["own.test"], "servers": ["gw1"]},
        {"name": "alpha", "domains": ["alpha.test"], "servers": ["pf12"], "delivery_mode": "match_sender"},
        {"name": "legal", "domains": ["legal.test"], "servers": ["pf12"], "delivery_mode": "required"},
        {"name": "bravo", "domains": ["bravo.test"], "servers": ["pf13"], "delivery_mode": "required"},
        {"name": "charlie", "domains": ["charlie.test"], "servers": ["ex12"], "delivery_mode": "required"},
        {"name": "delta", "domains": ["delta.test"], "servers": ["ex13"], "delivery_mode": "opportunistic"},
    ]
    groups = {
        "mail_gateways": list(GATEWAYS),
        "mail_servers": ["pf12", "pf13", "ex12", "ex13"],
        "mail_outside": ["outside"],
    }
    more = {"pf13": {"starttls_own_address": "::1", "starttls_address": IPV6["pf13"], "starttls_timeout": 30}}
    fleet = other_inventory("estates", groups, more, email_configs=configs)
    yield fleet
    fleet.end()
