"""The transaction on real daemons: rollback on proof, what survives, what is required."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from lab_testinfra import DOMAINS, SERVERS, Fleet

from tests.support.pki import Authority

OFFERED = {"inbound": "offered", "outbound": "opportunistic"}
DISABLED = {"inbound": "disabled", "outbound": "disabled"}


def test_a_change_that_cannot_be_proved_is_undone(fleet: Fleet, other_certificate: None) -> None:
    before = fleet.digests()
    played = fleet.module("pf12", "mail_server_tls", {**OFFERED, "timeout": 5})
    assert played.status != 0
    assert "is not the one installed" in played.output
    assert "The former state is restored and proved" in played.output
    assert fleet.digests() == before
    assert not fleet.offers_starttls("pf12")


def test_exim_refuses_a_broken_configuration_before_the_daemon_sees_it(fleet: Fleet) -> None:
    fleet.run("ex13", "echo 'MAIN_TLS_CERTKEY = /elsewhere.pem' >/etc/exim4/conf.d/main/01_local")
    try:
        before = fleet.digests()
        daemon = fleet.run("ex13", "pgrep -o exim4")
        played = fleet.module("ex13", "mail_server_tls", OFFERED)
        assert played.status != 0
        assert "MAIN_TLS_CERTKEY" in played.output
        assert "The former state is restored and proved" in played.output
        assert fleet.digests() == before
        assert fleet.run("ex13", "pgrep -o exim4") == daemon
    finally:
        fleet.run("ex13", "rm /etc/exim4/conf.d/main/01_local")


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
