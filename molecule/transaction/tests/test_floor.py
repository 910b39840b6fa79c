"""A floor for TLS versions on real daemons: what a client of OpenSSL gets before, with it, and afterwards."""

from __future__ import annotations

import pytest
from lab_testinfra import Fleet

OFFERED = {"inbound": "offered", "outbound": "opportunistic"}
FLOOR = {**OFFERED, "min_tls": "TLSv1.2"}
DISABLED = {"inbound": "disabled", "outbound": "disabled"}
ALL = ["-tls1", "-tls1_1", "-tls1_2", "-tls1_3"]


def accepted(fleet: Fleet, host: str) -> list[str]:
    """The versions with which a client completes a handshake. OpenSSL itself refuses the old ones at its usual security level."""
    return [one for one in ALL if fleet.s_client(host, one, "-cipher", "DEFAULT@SECLEVEL=0").status == 0]


@pytest.mark.parametrize("host", ["pf12", "ex12", "ex13"])
def test_old_versions_are_accepted_before_refused_with_it_and_accepted_again(fleet: Fleet, host: str) -> None:
    files = fleet.digests([host])
    fleet.result(host, "mail_server_tls", OFFERED)
    offered = fleet.digests([host])
    assert accepted(fleet, host) == ALL
    predicted = fleet.result(host, "mail_server_tls", FLOOR, "--check")
    assert predicted["changed"] and fleet.digests([host]) == offered
    assert fleet.result(host, "mail_server_tls", FLOOR)["changed"]
    assert accepted(fleet, host) == ALL[2:]
    assert not fleet.result(host, "mail_server_tls", FLOOR)["changed"]
    assert fleet.result(host, "mail_server_tls", {**OFFERED, "min_tls": "none"})["changed"]
    assert accepted(fleet, host) == ALL
    assert fleet.digests([host]) == offered
    fleet.result(host, "mail_server_tls", FLOOR)
    fleet.result(host, "mail_server_tls", DISABLED)
    assert fleet.digests([host]) == files


def test_a_looser_override_is_refused_at_the_own_port_and_named_at_another(fleet: Fleet) -> None:
    fleet.run("pf12", "cp -p /etc/postfix/master.cf /root/master.cf")
    submission = "submission inet n - y - - smtpd -o smtpd_tls_protocols=>=TLSv1\n"
    try:
        fleet.run("pf12", "cat >>/etc/postfix/master.cf", submission)
        fleet.run("pf12", "postconf -P 'smtp/inet/smtpd_tls_protocols=>=TLSv1.1' && postfix reload 2>&1")
        before = fleet.digests(["pf12"])
        refused = fleet.module("pf12", "mail_server_tls", FLOOR)
        assert refused.status != 0
        assert "remove it first: postconf -PX 'smtp/inet/smtpd_tls_protocols'" in refused.output
        assert fleet.digests(["pf12"]) == before
        fleet.run("pf12", "postconf -PX smtp/inet/smtpd_tls_protocols")
        done = fleet.module("pf12", "mail_server_tls", FLOOR)
        assert done.status == 0, done.output
        assert "submission/inet goes on to permit TLSv1, which is older" in " ".join(done.output.split())
        assert accepted(fleet, "pf12") == ALL[2:]
    finally:
        fleet.module("pf12", "mail_server_tls", DISABLED)
        fleet.run("pf12", "cp -p /root/master.cf /etc/postfix/ && rm /root/master.cf && postfix reload 2>&1")


def test_the_transports_of_a_split_exim_have_it_too(fleet: Fleet) -> None:
    shown = "exim4 -bP transport remote_smtp_smarthost | sed -n 's/^tls_require_ciphers = //p'"
    fleet.result("ex13", "mail_server_tls", FLOOR)
    assert fleet.run("ex13", shown).strip() == "NORMAL:-VERS-TLS1.0:-VERS-TLS1.1"
    fleet.result("ex13", "mail_server_tls", DISABLED)
    assert fleet.run("ex13", shown).strip() == ""
