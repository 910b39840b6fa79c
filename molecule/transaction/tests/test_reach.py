"""A change is proved as wide as it reaches, on real daemons: each listener on its own port, each next hop, and what undercuts it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_testinfra import Fleet

from tests.support.pki import Authority

MASTER = """\
submission inet n - y - - smtpd
  -o smtpd_tls_security_level=encrypt
  -o smtpd_tls_cert_file=/etc/postfix/own.pem
  -o smtpd_tls_key_file=/etc/postfix/own.pem
465 inet n - y - - smtpd
  -o smtpd_tls_wrappermode=yes
  -o smtpd_tls_chain_files=/etc/postfix/own.pem
127.0.0.1:10025 inet n - y - - smtpd
  -o content_filter=
smtp-filter unix - - y - - smtp
"""
PORTS = {25: "-starttls smtp", 587: "-starttls smtp", 465: "", 10025: "-starttls smtp"}
POSTFIXES = pytest.mark.parametrize("host", ["pf12", "pf13"])


def served(fleet: Fleet, host: str) -> dict[int, str]:
    """Port -> the common name of the certificate that a client gets there; empty if it gets none."""
    ask = "openssl s_client -connect 127.0.0.1:{0} {1} </dev/null 2>/dev/null | sed -n 's/^subject=.*CN *= *//p'"
    return {port: fleet.run(host, ask.format(port, how), check=False).strip() for port, how in PORTS.items()}


@pytest.fixture
def files(fleet: Fleet, host: str) -> Iterator[str]:
    """More listeners and a filter on a host with Postfix, one with a certificate of its own; afterwards all is as it was."""
    issued = Authority.create().issue([f"own.{host}.fleet.test"])
    fleet.run(host, "mkdir -p /root/kept && cp -p /etc/postfix/*.cf /root/kept/")
    fleet.run(host, "cat >/etc/postfix/own.pem", (issued.key_pem + issued.fullchain_pem).decode())
    fleet.run(host, "cat >>/etc/postfix/master.cf && postfix reload 2>&1", MASTER)
    yield fleet.run(host, "cat /etc/postfix/master.cf")
    fleet.module(host, "mail_server_tls", {"state": "absent", "keep": ["/etc/mailfleet/starttls.pem"]})
    fleet.run(host, "cp -p /root/kept/*.cf /etc/postfix/ && rm -r /root/kept /etc/postfix/own.pem; postfix reload 2>&1")


@POSTFIXES
def test_every_listener_keeps_its_certificate_or_serves_the_new_one(fleet: Fleet, host: str, files: str) -> None:
    own, new = f"own.{host}.fleet.test", f"{host}.fleet.test"
    before = served(fleet, host)
    assert (before[587], before[465]) == (own, own)
    done = fleet.result(host, "mail_server_tls", {"inbound": "required"})
    assert done["changed"], done["output"]
    assert {**served(fleet, host), 10025: ""} == {25: new, 587: own, 465: own, 10025: ""}
    level = fleet.run(host, "postconf -P 127.0.0.1:10025/inet/smtpd_tls_security_level")
    assert level.strip().endswith("= none")  # what a filter hands back there is not refused
    off = fleet.result(host, "mail_server_tls", {"inbound": "disabled"})
    assert off["changed"], off["output"]
    assert served(fleet, host) == before
    assert "smtpd_tls_chain_files=\n" not in fleet.run(host, "cat /etc/postfix/master.cf")


def test_a_listener_that_does_not_follow_undoes_the_change_by_name(fleet: Fleet) -> None:
    """Its file is not there, so it cannot offer what its configuration says once main.cf has a level."""
    host = "pf13"
    fleet.run(host, "cp -p /etc/postfix/master.cf /root/master.cf")
    fleet.run(
        host,
        "cat >>/etc/postfix/master.cf && postfix reload 2>&1",
        "2525 inet n - y - - smtpd -o smtpd_tls_chain_files=/gone\n",
    )
    try:
        before = fleet.run(host, "cat /etc/postfix/main.cf")
        done = fleet.result(host, "mail_server_tls", {"inbound": "required", "timeout": 3})
        assert done["failed"] and "2525/inet (127.0.0.1:2525) does not show the wanted state" in done["msg"], done[
            "output"
        ]
        assert done["restored"] is True
        assert fleet.run(host, "cat /etc/postfix/main.cf") == before
    finally:
        fleet.run(host, "mv /root/master.cf /etc/postfix/master.cf && postfix reload 2>&1")


@pytest.mark.parametrize("host", ["pf13"])
def test_outbound_required_proves_every_next_hop_and_keeps_filters_as_they_are(
    fleet: Fleet, host: str, files: str
) -> None:
    relay = "pf12"
    offers = fleet.result(relay, "mail_server_tls", {"inbound": "offered"})
    assert not offers["failed"], offers["output"]
    settings = (
        f"relayhost=[{relay}.fleet.test]:25 content_filter=smtp-filter:[127.0.0.1]:10025 virtual_transport=smtp:[127.0.0.1]:10024 "
        "smtp_tls_policy_maps=texthash:/etc/postfix/policy"
    )
    try:
        fleet.run(
            host,
            f"postconf -e {settings}; echo '[{relay}.fleet.test]:25 may' >/etc/postfix/policy; postfix reload 2>&1",
        )
        before = fleet.run(host, "cat /etc/postfix/*.cf")
        refused = fleet.result(host, "mail_server_tls", {"outbound": "required"})
        assert "smtp_tls_policy_maps = texthash:/etc/postfix/policy has '[" in refused["msg"]
        assert "127.0.0.1:10024" in refused["msg"] and "(virtual_transport); it is on this host" in refused["msg"]
        assert fleet.run(host, "cat /etc/postfix/*.cf") == before
        fleet.run(host, "echo >/etc/postfix/policy; postconf -X virtual_transport; postfix reload 2>&1")
        done = fleet.result(host, "mail_server_tls", {"outbound": "required"})
        assert done["changed"], done["output"]
        assert fleet.run(host, "postconf -P smtp-filter/unix/smtp_tls_security_level").strip().endswith("= none")
    finally:
        fleet.module(relay, "mail_server_tls", {"inbound": "disabled"})


def test_every_port_of_exim_is_proved(fleet: Fleet) -> None:
    host, site = "ex13", "/etc/exim4/conf.d/main/01_reach"
    text = "daemon_smtp_ports = 25 : 587 : 465\ntls_on_connect_ports = 465\n"
    fleet.run(host, f"cat >{site} && update-exim4.conf && systemctl restart exim4", text)
    try:
        done = fleet.result(host, "mail_server_tls", {"inbound": "offered"})
        assert not done["failed"], done["output"]
        found = served(fleet, host)
        assert (found[25], found[587], found[465]) == (f"{host}.fleet.test",) * 3
        fleet.run(host, "sed -i '/MAIN_TLS_CERTKEY/d' /etc/exim4/conf.d/main/000_localmacros")
        chosen = "MAIN_TLS_CERTKEY = ${if eq{$tls_in_sni}{a.example.com}{/etc/a.pem}{/etc/mailfleet/starttls.pem}}\n"
        fleet.run(host, f"cat >{site} && update-exim4.conf", chosen + text)
        refused = fleet.result(host, "mail_server_info", {"inbound": "offered"})["obstacles"]
        assert any(
            "MAIN_TLS_CERTKEY" in one["message"] or "tls_certificate is ${if" in one["message"] for one in refused
        ), refused
    finally:
        fleet.run(host, f"rm {site}; update-exim4.conf && systemctl restart exim4")
        fleet.module(host, "mail_server_tls", {"inbound": "disabled"})
