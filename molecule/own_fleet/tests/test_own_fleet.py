"""README's "On your own fleet", done word by word by somebody new to it: on the oldest ansible-core and on the newest."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from dataclasses import dataclass, field

import pytest
from lab_newcomer import FQDN, HOME, PLACE, Newcomer, Section
from lab_testinfra import STATE, TOP, Fleet, Played, report, wait_for

DOMAINS = ("example.com", "example.org")
CHECKOUT = HOME / "starttls"
INSTALLED = HOME / ".ansible/collections/ansible_collections"
SUCCESS = re.compile(r"(?m)^mailfleet\.starttls:\S+ was installed successfully$")

STATE_OF_A_HOST = r"""
cd /
paths='etc usr/local var/lib/mailfleet-starttls var/lib/exim4'
find $paths \( -type f -o -type l \) -printf '%p %m %u %g %l\n' 2>/dev/null
find $paths -type f -exec sha256sum {} + 2>/dev/null
:
"""


def states(fleet: Fleet) -> dict[str, set[str]]:
    """Host -> what lies in its directories of configuration: contents, owners and modes."""
    return {host: set(fleet.run(host, STATE_OF_A_HOST).splitlines()) for host in FQDN}


# Sockets and links are everybody's by nature.
WRITABLE = r"""
find /etc /usr/local /var/lib/mailfleet-starttls /var/lib/postfix* /var/spool/postfix-mailfleet* \
    -perm /o=w \( -type f -o -type d \) ! -perm -1000 2>/dev/null
:
"""


def changes(before: dict[str, set[str]], after: dict[str, set[str]]) -> dict[str, list[str]]:
    """Host -> the lines that differ, for an assertion that shows them."""
    return {host: sorted(before[host] ^ after[host]) for host in FQDN if before[host] != after[host]}


def writable_on(fleet: Fleet) -> dict[str, set[str]]:
    """Host -> what everybody may write there. The lab's own programs leave such files where root's umask is 000."""
    return {host: set(fleet.run(host, WRITABLE).split()) for host in FQDN}


@dataclass
class Walk:
    """How README's steps went on one controller."""

    newcomer: Newcomer
    install: str = ""
    look: Played = field(default_factory=lambda: Played(-1, ""))
    enable: Played = field(default_factory=lambda: Played(-1, ""))
    again: Played = field(default_factory=lambda: Played(-1, ""))
    writable: dict[str, list[str]] = field(default_factory=dict)
    changed_by_look: dict[str, list[str]] = field(default_factory=dict)
    changed_by_again: dict[str, list[str]] = field(default_factory=dict)


@pytest.fixture(scope="module", params=["oldest", "newest"])
def walk(request: pytest.FixtureRequest, fleet: Fleet) -> Walk:
    """Everything that README's section says, on a fleet without TLS."""
    section = Section.read()
    newcomer = Newcomer(fleet, request.param)
    walk = Walk(newcomer)
    if any(fleet.s_client(host).status == 0 for host in FQDN):  # the other controller was here
        reset = fleet.play("tools/lab/playbooks/reset.yml")
        assert reset.status == 0, reset.output
    assert [host for host in FQDN if fleet.s_client(host).status == 0] == []

    packed = subprocess.run(
        ["tar", "-C", str(TOP), "--exclude=./.*", "--exclude=__pycache__", "--exclude=*.tar.gz", "-cz", "."],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    newcomer.does(
        f"rm -rf {CHECKOUT} {PLACE} .ansible && mkdir {CHECKOUT} && base64 -d | tar -C {CHECKOUT} -xz",
        text=base64.b64encode(packed).decode(),
    )
    for line in section.install:
        walk.install += newcomer.does(line, CHECKOUT, note="install")
    # From here on nothing can come from the checkout.
    newcomer.does(f"mv {CHECKOUT} away")

    newcomer.writes(HOME / ".ssh/config", f"{section.ssh_config}Host mail1\n    Port 2222\n")
    newcomer.does(section.ssh_test)
    newcomer.writes(PLACE / "inventory.yml", section.inventory)
    for host in FQDN:
        files = {name: (fleet.pki / name).read_text() for name in (f"{host}.key", f"{host}.pem", "chain.pem")}
        newcomer.writes(PLACE / f"certs/{host}.key", files[f"{host}.key"])
        newcomer.writes(PLACE / f"certs/{host}.fullchain.pem", files[f"{host}.pem"] + files["chain.pem"])
    newcomer.writes(PLACE / "certs/ca.pem", fleet.ca.read_text())
    roots = "".join(f'{name}: "{{{{ inventory_dir }}}}/certs/ca.pem"\n' for name in section.roots)
    newcomer.writes(PLACE / "group_vars/all.yml", roots)

    before, writable = states(fleet), writable_on(fleet)
    walk.look = newcomer.types(section.look, PLACE, note="check")
    walk.changed_by_look = changes(before, states(fleet))
    walk.enable = newcomer.types(section.enable, PLACE, note="enable")
    walk.writable = changes(writable, writable_on(fleet))
    before = states(fleet)
    walk.again = newcomer.types(section.enable, PLACE, note="again")
    walk.changed_by_again = changes(before, states(fleet))
    row = "  ".join(f"{name} {seconds:3.0f} s" for name, seconds in newcomer.times.items())
    report("README's steps", [f"{request.param:8}{row}"])
    return walk


def rows(played: Played) -> dict[str, str]:
    """Host -> its row of the table."""
    found = re.findall(r"(?m)^ *(gw1|mail1|mail2)  +(.*?) *$", played.output)
    return {host: row for host, row in found if row.endswith(("pass", "FAIL"))}


def test_the_core_is_the_one_that_is_meant(walk: Walk) -> None:
    version = walk.newcomer.does("ansible-playbook --version")
    listed = walk.newcomer.does("pip index versions --ignore-requires-python ansible-core")
    releases = re.findall(r"\d[\w.]*", listed.partition("Available versions:")[2].splitlines()[0])
    wanted = {"newest": releases[0], "oldest": next(one for one in releases if one.startswith("2.16."))}
    assert f"[core {wanted[walk.newcomer.controller]}]" in version
    assert all(re.fullmatch(r"[\d.]+", one) for one in wanted.values()), "a pre-release is no release"


def test_the_collection_is_installed_and_its_libraries(walk: Walk) -> None:
    assert SUCCESS.search(walk.install), walk.install
    assert "Nothing to do" not in walk.install
    assert (
        int(walk.newcomer.does("python -c 'import cryptography; print(cryptography.__version__)'").split(".")[0]) >= 42
    )


def test_the_installed_collection_is_the_one_in_use(walk: Walk) -> None:
    listed = walk.newcomer.does("ansible-galaxy collection list mailfleet.starttls 2>/dev/null", PLACE)
    assert re.findall(r"(?m)^# (.+)$", listed) == [str(INSTALLED)]
    documented = json.loads(
        walk.newcomer.does("ansible-doc --json mailfleet.starttls.starttls_probe 2>/dev/null", PLACE)
    )
    file = documented["mailfleet.starttls.starttls_probe"]["doc"]["filename"]
    assert file == str(INSTALLED / "mailfleet/starttls/plugins/modules/starttls_probe.py")


def test_nothing_is_for_everybody_to_write_although_roots_umask_takes_nothing_away(walk: Walk) -> None:
    """The hosts have a umask of 000 and no programs in /tmp, see conftest.py."""
    assert walk.enable.status == 0, walk.enable.output
    assert walk.writable == {}


def test_the_plan_shows_what_would_change_and_changes_nothing(walk: Walk) -> None:
    assert walk.look.status == 0, walk.look.output
    assert "Plan: enable: drift" in walk.look.output
    for host in FQDN:
        assert re.search(rf"(?m)^{host} +(gateway|mail server) .*  (accept, modes|offer) \(", walk.look.output), (
            walk.look.output
        )
    assert re.search(r"(?m)^ +\+smtpd_tls_security_level = may$", walk.look.output), walk.look.output
    assert not any(walk.look.changed.values())
    assert walk.changed_by_look == {}


def test_the_table_shows_pass(walk: Walk) -> None:
    assert walk.enable.status == 0, walk.enable.output
    table = rows(walk.enable)
    assert set(table) == set(FQDN), walk.enable.output
    for host, row in table.items():
        assert row.endswith("  pass") and f"CN={FQDN[host]}" in row, row
        assert ("match_sender" in row) == (host != "gw1"), row


@pytest.mark.parametrize("host", FQDN)
def test_openssl_trusts_what_is_served(walk: Walk, fleet: Fleet, host: str) -> None:
    seen = fleet.s_client(host, "-CAfile", str(fleet.ca), "-verify_return_error", "-verify_hostname", FQDN[host])
    assert seen.status == 0, seen.output
    assert f"Verified peername: {FQDN[host]}" in seen.output
    assert re.search(r"TLSv1\.[23]", seen.output)


@pytest.mark.parametrize("tls", [True, False], ids=["arrived over TLS", "arrived in plaintext"])
def test_mail_for_each_domain_reaches_the_first_server_as_it_came(walk: Walk, fleet: Fleet, tls: bool) -> None:
    sent = {domain: fleet.send("oldest", [f"trace@{domain}"], tls) for domain in DOMAINS}
    assert {domain: fleet.arrived_over_tls("mail1", mark) for domain, mark in sent.items()} == dict.fromkeys(
        DOMAINS, tls
    )


@pytest.mark.parametrize("host", ["mail1", "mail2"])
def test_each_server_takes_mail_for_each_domain(walk: Walk, fleet: Fleet, host: str) -> None:
    sent = {domain: fleet.send("oldest", [f"trace@{domain}"], True, to=host) for domain in DOMAINS}
    assert {domain: fleet.arrived_over_tls(host, mark) for domain, mark in sent.items()} == dict.fromkeys(DOMAINS, True)


def test_nothing_waits_in_a_queue(walk: Walk, fleet: Fleet) -> None:
    assert wait_for(lambda: fleet.queue("gw1") == [])
    assert wait_for(lambda: fleet.queue("gw1", "/etc/postfix-mailfleet") == [])
    assert wait_for(lambda: fleet.queue("mail1") == [])
    assert wait_for(lambda: fleet.run("mail2", "exim4 -bpc").strip() == "0"), fleet.run("mail2", "exim4 -bp")


def test_a_second_enable_changes_nothing(walk: Walk) -> None:
    assert walk.again.status == 0, walk.again.output
    assert {walk.again.changed[host] for host in FQDN} == {0}, walk.again.output
    assert walk.changed_by_again == {}
    assert rows(walk.again) == rows(walk.enable)


def test_ansible_works_as_it_comes_without_pipelining(walk: Walk) -> None:
    """Without it a module is brought to the host as a file."""
    shown = walk.newcomer.does("ansible -i inventory.yml gw1 -m ansible.builtin.ping -vvv", PLACE)
    assert re.search(r"PUT \S+ TO \S+/AnsiballZ_ping\.py", shown), shown
    assert "No config file found; using defaults" in shown or "Using None as config file" in shown, shown


def test_the_line_installs_over_an_installed_one(walk: Walk) -> None:
    newcomer, line = walk.newcomer, Section.read().install[0]
    installed = INSTALLED / "mailfleet/starttls"
    newcomer.does(f"mv away {CHECKOUT} && : >{installed}/stale && echo stale >{installed}/README.md")
    said = newcomer.does(line, CHECKOUT)
    assert SUCCESS.search(said), said
    assert "Nothing to do" not in said
    assert newcomer.types(f"ls {installed}/stale").status != 0
    assert newcomer.does(f"cmp {installed}/README.md {CHECKOUT}/README.md") == ""
    played = newcomer.types(f"{Section.read().enable} --syntax-check", PLACE)
    assert played.status == 0, played.output


def test_nothing_of_the_lab_lies_in_the_checkout() -> None:
    """Or an install from it could be another one than a user's."""
    assert not (TOP / "ansible.cfg").exists()
    assert (STATE / "inventory.yml").exists()
