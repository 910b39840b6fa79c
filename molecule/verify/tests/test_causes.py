"""Other hands at a mail server: verify says the cause, not the symptom, and the next run of enable_tls repairs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_testinfra import Fleet, Played, wait_for

QUICK = {"starttls_send_messages": False}
OURS = "/etc/mailfleet/starttls.pem"
AWAY = "/root/mailfleet-away"
# A certificate of somebody else, with its key in front, as a file that Postfix can serve.
MAKE = """\
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /root/k -out /root/c -days {days} -subj /CN={name} \
  -addext subjectAltName=DNS:{name} 2>/dev/null
cat /root/k /root/c >{path}.new; rm /root/k /root/c; chmod 600 {path}.new; mv {path}.new {path}
"""
SPLIT = """\
sed -i "s/^dc_use_split_config=.*/dc_use_split_config='{word}'/" /etc/exim4/update-exim4.conf.conf
update-exim4.conf; systemctl restart exim4
"""
MACROS = "/etc/exim4/conf.d/main/000_localmacros"
# Exim is told to offer no TLS; then the files are as before, and nobody tells Exim that.
SILENT = f"""\
cp -p {MACROS} /root/macros; sed -i 's/^MAIN_TLS_ADVERTISE_HOSTS.*/MAIN_TLS_ADVERTISE_HOSTS =/' {MACROS}
systemctl reload exim4
"""
UNREAD = f"mv /root/macros {MACROS}; update-exim4.conf"


def verified(fleet: Fleet) -> Played:
    played = fleet.play("playbooks/verify_tls.yml", variables=QUICK)
    assert played.status != 0, played.output
    return played


def said(played: Played, host: str, text: str) -> None:
    assert f"{host}: error: {text}" in played.output or f"{host}: warning: {text}" in played.output, played.output


def is_silent(fleet: Fleet, host: str) -> bool:
    """Whether a host answers, and offers no STARTTLS. While Exim begins anew, nobody answers."""
    try:
        return not fleet.offers_starttls(host)
    except AssertionError:
        return False


@pytest.fixture(scope="module", autouse=True)
def repaired(fleet: Fleet) -> Iterator[None]:
    """What the tests did is repaired by the playbook, without a word from anybody."""
    yield
    played = fleet.play("playbooks/enable_tls.yml", variables={**QUICK, "starttls_certificate_replace": True})
    assert played.status == 0, played.output
    fleet.run("pf12", "rm -f /etc/ssl/other.pem")


def test_files_that_are_gone_a_scheme_that_was_switched_and_a_path_of_another_role(fleet: Fleet) -> None:
    for host in ("pf13", "ex12"):
        fleet.run(host, f"rm -rf {AWAY}; mv /etc/mailfleet {AWAY}")
    fleet.run("pf13", "postfix reload 2>&1")
    fleet.run("ex13", SPLIT.format(word="false"))
    fleet.run("pf12", MAKE.format(path="/etc/ssl/other.pem", name="pf12.fleet.test", days=30))
    fleet.run("pf12", "postconf -e smtpd_tls_chain_files=/etc/ssl/other.pem; postfix reload 2>&1")
    assert wait_for(lambda: fleet.s_client("ex13").status == 0)
    played = verified(fleet)
    gone = f"{OURS} (there is no such file), and cannot use TLS; run enable_tls"
    said(played, "pf13", f"Postfix is told to serve {gone}")
    said(played, "ex12", f"Exim is told to serve {gone}")
    said(played, "ex13", "Exim serves a certificate of its own making, because its configuration names no file")
    said(played, "pf12", f"Postfix is told to serve /etc/ssl/other.pem, not the installed {OURS}")
    for guess in (
        "get one from a certification authority",
        "a key that does not belong",
        "check that the daemon can read",
    ):
        assert guess not in played.output, played.output
    for host in ("pf13", "ex12"):
        fleet.run(host, f"mv {AWAY} /etc/mailfleet")
    fleet.run("ex13", SPLIT.format(word="true"))
    fleet.run("pf12", f"postconf -e smtpd_tls_chain_files={OURS}; postfix reload 2>&1")
    fleet.run("pf13", "postfix reload 2>&1")


def test_a_file_that_was_replaced_and_a_daemon_that_was_switched_off_by_hand(fleet: Fleet) -> None:
    assert (
        fleet.s_client("pf13").status == 0
    )  # this process of smtpd has read the file, and serves the next connections too
    fleet.run("pf13", MAKE.format(path=OURS, name="pf13.fleet.test", days=2000))
    fleet.run("pf12", "postconf -e smtpd_tls_security_level=none; postfix reload 2>&1")
    fleet.run("ex12", "systemctl stop exim4; systemctl mask exim4 2>&1")
    fleet.run("ex13", SILENT)
    assert wait_for(lambda: is_silent(fleet, "ex13"))
    fleet.run("ex13", UNREAD)
    played = verified(fleet)
    fleet.run("ex12", "systemctl unmask exim4 2>&1; systemctl start exim4")
    fleet.run("pf13", "postconf -X max_idle; postconf -F smtp/inet/process_limit=-; postfix reload 2>&1")
    said(
        played,
        "ex12",
        "Exim is not running: the unit exim4.service is masked; allow it and start it: systemctl unmask ",
    )
    said(
        played,
        "ex13",
        "Exim is told to offer STARTTLS at port 25, and does not: it has not read its configuration, or ",
    )
    said(played, "pf13", f"Postfix serves another certificate than the one in {OURS} (valid to ")
    said(
        played,
        "pf12",
        "Postfix is told to offer no STARTTLS at port 25; wait if another run is under way, else run enable_tls",
    )
    assert "a device on the path" not in played.output, played.output
