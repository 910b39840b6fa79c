"""The transaction on real daemons: rollback on proof, what survives, what is required."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab_testinfra import DOMAINS, SERVERS, Fleet

from tests.support.pki import Authority

OFFERED = {"inbound": "offered", "outbound": "opportunistic"}
DISABLED = {"inbound": "disabled", "outbound": "disabled"}
SITE = "/etc/exim4/conf.d/main/01_local"


def test_a_change_that_cannot_be_proved_is_undone(fleet: Fleet, other_certificate: None) -> None:
    before = fleet.digests()
    played = fleet.module("pf12", "mail_server_tls", {**OFFERED, "timeout": 5})
    assert played.status != 0
    assert "is not the one installed" in played.output
    assert "The former state is restored and proved" in played.output
    assert fleet.digests() == before
    assert not fleet.offers_starttls("pf12")


def test_exim_refuses_a_broken_configuration_before_the_daemon_sees_it(fleet: Fleet) -> None:
    fleet.run("ex13", f"printf '.ifdef MAIN_TLS_CERTKEY\\nno_such_option = 1\\n.endif\\n' >{SITE}")
    try:
        before = fleet.digests()
        daemon = fleet.run("ex13", "pgrep -o exim4")
        played = fleet.module("ex13", "mail_server_tls", OFFERED)
        assert played.status != 0
        assert "no_such_option" in played.output
        assert "The former state is restored and proved" in played.output
        assert fleet.digests() == before
        assert fleet.run("ex13", "pgrep -o exim4") == daemon
    finally:
        fleet.run("ex13", f"rm {SITE}")


@pytest.fixture
def site(fleet: Fleet) -> Iterator[Callable[[str], None]]:
    """A file of the administrator's with macros, which Exim reads after that of the local macros."""

    def write(text: str) -> None:
        fleet.run("ex13", f"cat >{SITE} && update-exim4.conf && systemctl reload exim4", text)

    yield write
    fleet.run("ex13", f"rm {SITE} && update-exim4.conf && systemctl reload exim4")


def test_exim_whose_administrator_switches_tls_on_in_another_file(fleet: Fleet, site: Callable[[str], None]) -> None:
    """It is switched on and off again; the macro stays where it is."""
    macros = "/etc/exim4/conf.d/main/000_localmacros"
    present = fleet.run("ex13", f"cat {macros}")
    fleet.run("ex13", f"sed -i /MAIN_TLS_ENABLE/d {macros}")
    site("MAIN_TLS_ENABLE = yes\n")
    try:
        on = fleet.module("ex13", "mail_server_tls", OFFERED)
        assert on.status == 0, on.output
        assert fleet.offers_starttls("ex13")
        assert "MAIN_TLS_ENABLE" not in fleet.run("ex13", f"cat {macros}")
        off = fleet.module("ex13", "mail_server_tls", DISABLED)
        assert off.status == 0, off.output
        assert not fleet.offers_starttls("ex13")
    finally:
        fleet.run("ex13", f"rm {SITE}; cat >{macros}", present)
        site("")


def test_exim_whose_administrator_requires_tls_in_another_file(fleet: Fleet, site: Callable[[str], None]) -> None:
    """A macro that contradicts theirs would defer every message. The read says so, and the change is refused."""
    fleet.run("ex13", "sed -i /REMOTE_SMTP_SMARTHOST_HOSTS_AVOID_TLS/d /etc/exim4/conf.d/main/000_localmacros")
    site("REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS = *\n")
    before = fleet.digests()
    wanted = {"outbound": "disabled"}
    said = (
        f"{SITE}, line 1, sets REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS to '*', and this change needs that it is not set"
    )
    (obstacle,) = fleet.result("ex13", "mail_server_info", wanted)["obstacles"]
    assert said in obstacle["message"]
    played = fleet.module("ex13", "mail_server_tls", wanted)
    assert (played.status != 0, said in played.output) == (True, True), played.output
    assert fleet.digests() == before
    fleet.run("ex13", "echo 'REMOTE_SMTP_SMARTHOST_HOSTS_AVOID_TLS = *' >>/etc/exim4/conf.d/main/000_localmacros")


@pytest.mark.parametrize("host", ["ex12", "ex13"])
def test_exim_is_tried_with_what_its_own_check_misses(fleet: Fleet, host: str) -> None:
    """A cipher list in OpenSSL's words passes every check of Debian's Exim and then kills its daemon."""
    path = "/etc/exim4/conf.d/main/04_ciphers" if host == "ex13" else "/etc/exim4/exim4.conf.localmacros"
    saved = fleet.run(host, f"cat {path} 2>/dev/null", check=False)
    line = "tls_require_ciphers = HIGH:!aNULL:!MD5"
    fleet.run(host, f"cat >{path}", saved + line + "\n")
    try:
        before = fleet.digests()
        played = fleet.module(host, "mail_server_tls", {**OFFERED, "timeout": 5})
        assert played.status != 0
        assert "trial daemon" in played.output
        assert fleet.digests() == before
        assert not fleet.offers_starttls(host)
    finally:
        fleet.run(host, f"cat >{path}" if saved else f"rm {path}", saved)


@pytest.mark.parametrize("host", SERVERS)
def test_foreign_settings_survive(fleet: Fleet, host: str) -> None:
    if host.startswith("pf"):
        fleet.run(
            host,
            "postconf -e 'smtpd_banner = $myhostname  ESMTP' && printf '# a remark\\nlocal_a =\\n  one,\\n  two\\n' >>/etc/postfix/main.cf",
        )
        files = "/etc/postfix/main.cf /etc/postfix/master.cf"
    else:
        files = "/etc/exim4/exim4.conf.localmacros" if host == "ex12" else "/etc/exim4/conf.d/main/000_localmacros"
        fleet.run(host, f"printf '# a remark\\nMY_LIST = one : \\\\\\n  two\\n' >>{files}")
    lines = fleet.run(host, f"cat {files}").splitlines()
    assert fleet.module(host, "mail_server_tls", OFFERED).status == 0
    assert fleet.module(host, "mail_server_tls", DISABLED).status == 0
    after = fleet.run(host, f"cat {files}").splitlines()
    ours = re.compile(r"\s*(smtpd?_tls_|MAIN_TLS_|REMOTE_SMTP_)")
    assert [line for line in after if not ours.match(line)] == [line for line in lines if not ours.match(line)]


@pytest.mark.parametrize("host", SERVERS)
def test_required_inbound(fleet: Fleet, host: str) -> None:
    assert fleet.module(host, "mail_server_tls", {"inbound": "required"}).status == 0
    second = fleet.module(host, "mail_server_tls", {"inbound": "required"})
    assert '"changed": false' in second.output
    domain = DOMAINS[host]
    with pytest.raises(AssertionError, match=r"530|430"):
        fleet.send("outside", [f"trace@{domain}"], tls=False, to=host)
    fleet.run(host, "echo x | /usr/sbin/sendmail trace")  # what the host's own users submit is not refused
    mark = fleet.send("outside", [f"trace@{domain}"], tls=True, to=host)
    assert fleet.arrived_over_tls(host, mark)
    kept = fleet.module(host, "mail_server_tls", {"inbound": "offered", "relax": False})
    assert '"changed": false' in kept.output
    assert fleet.module(host, "mail_server_tls", {"inbound": "offered"}).status == 0
    mark = fleet.send("outside", [f"trace@{domain}"], tls=False, to=host)
    assert not fleet.arrived_over_tls(host, mark)


@pytest.mark.parametrize("host", ["pf12", "ex12"])
def test_a_new_certificate_is_served_and_no_handshake_fails_meanwhile(fleet: Fleet, host: str, tmp_path: Path) -> None:
    assert fleet.module(host, "mail_server_tls", OFFERED).status == 0
    authority = Authority.create()
    issued = authority.issue([f"{host}.fleet.test"])
    for name, content in (("key", issued.key_pem), ("pem", issued.fullchain_pem), ("ca", authority.root_pem)):
        (tmp_path / name).write_bytes(content)
    failures: list[str] = []
    stop = threading.Event()

    def connect() -> None:
        while not stop.is_set():
            seen = fleet.s_client(host)
            if "BEGIN CERTIFICATE" not in seen.output:
                failures.append(seen.output)

    client = threading.Thread(target=connect)
    client.start()
    try:
        playbook = f"""---
- hosts: {host}
  gather_facts: false
  vars:
    starttls_private_key_file: {tmp_path}/key
    starttls_certificate_file: {tmp_path}/pem
    starttls_chain_file: ""
    starttls_ca_file: {tmp_path}/ca
  tasks:
    - ansible.builtin.import_role:
        name: mailfleet.starttls.certificate
    - ansible.builtin.import_role:
        name: mailfleet.starttls.mail_server
"""
        first = fleet.play(playbook)
        second = fleet.play(playbook)
    finally:
        stop.set()
        client.join()
    assert first.status == 0, first.output
    assert first.changed[host] in (1, 2)  # the file, and the reload unless the daemon has read the file by itself
    assert second.changed[host] == 0
    served = fleet.s_client(host, "-CAfile", str(tmp_path / "ca"), "-verify_return_error")
    assert served.status == 0, served.output
    # Exim opens its socket anew on a reload, which may refuse one connection; a handshake never fails.
    assert not [one for one in failures if "refused" not in one], failures
