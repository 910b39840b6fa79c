"""Each bad input ends enable_tls with a message that names the fault, on a fleet without TLS that stays as it was."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_testinfra import SERVERS, Fleet

from tests.support.pki import Authority, now

ENABLE = "playbooks/enable_tls.yml"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Variables that make the certificate of every host a good one, issued by an authority of our own."""
    place = tmp_path_factory.mktemp("pki")
    authority = Authority.create()
    names = [f"{host}.fleet.test" for host in ("gw1", *SERVERS)]
    good = authority.issue(names)
    (place / "ca.pem").write_bytes(authority.root_pem)
    (place / "key.pem").write_bytes(good.key_pem)
    (place / "leaf.pem").write_bytes(good.certificate_pem)
    (place / "chain.pem").write_bytes(good.chain_pem)
    other = authority.issue(names)
    (place / "other.key").write_bytes(other.key_pem)
    (place / "encrypted.key").write_bytes(good.encrypted_key_pem("secret"))
    (place / "junk.pem").write_text("this is not a certificate\n")
    old = authority.issue(
        names, key=good.key, not_before=now() - timedelta(days=90), not_after=now() - timedelta(days=1)
    )
    (place / "expired.pem").write_bytes(old.certificate_pem)
    soon = authority.issue(
        names, key=good.key, not_before=now() - timedelta(days=87), not_after=now() + timedelta(days=3)
    )
    (place / "soon.pem").write_bytes(soon.certificate_pem)
    (place / "wrong.pem").write_bytes(authority.issue(["www.example.com"], key=good.key).certificate_pem)
    weak = authority.issue(names, key="rsa-1024")
    (place / "weak.pem").write_bytes(weak.certificate_pem)
    (place / "weak.key").write_bytes(weak.key_pem)
    return {
        "place": place,
        "good": {
            "starttls_private_key_file": str(place / "key.pem"),
            "starttls_certificate_file": str(place / "leaf.pem"),
            "starttls_chain_file": str(place / "chain.pem"),
            "starttls_ca_file": str(place / "ca.pem"),
        },
    }


@pytest.fixture(scope="module")
def start(fleet: Fleet) -> dict[str, str]:
    return fleet.digests()


@pytest.fixture(autouse=True)
def nothing_changes(fleet: Fleet, start: dict[str, str]) -> Iterator[None]:
    yield
    assert fleet.digests() == start
    assert not fleet.offers_starttls("gw1")


CERTIFICATES = {
    "the key of another certificate": ({"starttls_private_key_file": "other.key"}, "key_mismatch"),
    "an expired certificate": ({"starttls_certificate_file": "expired.pem"}, "expired"),
    "a certificate about to expire": ({"starttls_certificate_file": "soon.pem"}, "expiring"),
    "a certificate for another name": ({"starttls_certificate_file": "wrong.pem"}, "name_not_covered"),
    "no intermediate": ({"starttls_chain_file": ""}, "chain_incomplete"),
    "not PEM": ({"starttls_certificate_file": "junk.pem"}, "not_pem"),
    "an encrypted key": ({"starttls_private_key_file": "encrypted.key"}, "key_encrypted"),
    "a weak key": ({"starttls_certificate_file": "weak.pem", "starttls_private_key_file": "weak.key"}, "weak_key"),
}


@pytest.mark.parametrize("case", CERTIFICATES)
def test_certificate(fleet: Fleet, pki: dict[str, Any], case: str) -> None:
    files, code = CERTIFICATES[case]
    variables = {name: str(pki["place"] / file) if file else "" for name, file in files.items()}
    played = fleet.play(ENABLE, "-vvv", "--diff", variables={**pki["good"], **variables})
    assert played.status != 0
    assert code in played.output
    for key in pki["place"].glob("*key*"):
        body = key.read_text().splitlines()[1]
        assert body not in played.output, "key material is shown"


CONFIGS = {
    "an unknown mode": ({"delivery_mode": "sometimes"}, "'sometimes' is not a delivery mode"),
    "the mode off, which YAML reads as a boolean": ({"delivery_mode": "off"}, "'off' is not a delivery mode"),
    "a server that is not in the inventory": ({"servers": ["pf99"]}, "'pf99' is not in the inventory"),
    "a domain with a newline": ({"domains": ["alpha.test\nevil.test smtp:[192.0.2.1]"]}, "is not a domain name"),
    "a name with a newline": ({"name": "alpha\nbeta"}, "the email config name"),
    "no servers": ({"servers": []}, "has no servers"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_email_config(fleet: Fleet, case: str) -> None:
    change, message = CONFIGS[case]
    config = {
        "name": "alpha",
        "domains": ["alpha.test"],
        "servers": ["pf12"],
        "delivery_mode": "match_sender",
        **change,
    }
    played = fleet.play(ENABLE, variables={"email_configs": [config]})
    assert played.status != 0
    assert message in played.output


def test_a_domain_in_two_email_configs(fleet: Fleet) -> None:
    configs = [{"name": name, "domains": ["alpha.test"], "servers": ["pf12"]} for name in ("one", "two")]
    played = fleet.play(ENABLE, variables={"email_configs": configs})
    assert played.status != 0
    assert "the domain alpha.test is in two email configs, one and two" in played.output


def test_a_path_with_a_newline(fleet: Fleet) -> None:
    played = fleet.play(
        ENABLE, variables={"starttls_certificate_path": "/etc/mailfleet/x.pem\nsmtpd_tls_security_level = none"}
    )
    assert played.status != 0


COMMANDS = {
    "of Exim": "/etc/mailfleet/${run{/usr/bin/touch /tmp/executed}}.pem",
    "of a shell": "/etc/mailfleet/$(touch /tmp/executed)`touch /tmp/executed`.pem",
    "of Postfix": "/etc/mailfleet/x.pem, ${config_directory}/y.pem",
    "of a template": "{{ '{{' }} lookup('pipe', 'touch /tmp/executed') {{ '}}' }}",
}


@pytest.mark.parametrize(
    ("host", "module", "options"),
    [
        ("gw1", "gateway_tls", {}),
        ("pf12", "mail_server_tls", {}),
        ("ex12", "mail_server_tls", {}),
        ("ex12", "gateway_tls", {"gateway": "exim"}),
    ],
)
@pytest.mark.parametrize("what", COMMANDS)
def test_a_certificate_path_that_is_a_command(
    fleet: Fleet, host: str, module: str, options: dict[str, Any], what: str
) -> None:
    played = fleet.module(host, module, {**options, "inbound": "offered", "certificate": COMMANDS[what]})
    assert played.status != 0
    assert "the certificate path" in played.output and "has to be absolute and made of letters" in played.output
    assert fleet.run(host, "ls /tmp/executed", check=False) == ""


def test_what_a_path_may_hold_means_nothing_to_the_daemons(fleet: Fleet) -> None:
    path = f"/{string.ascii_letters}{string.digits}_.+@-/x"
    files = f"d=$(mktemp -d); echo 'smtpd_tls_chain_files = {path}' >$d/main.cf; touch $d/master.cf"
    assert fleet.run("gw1", f"{files}; postconf -c $d -xh smtpd_tls_chain_files").strip() == path
    assert fleet.run("ex12", f"exim4 -be '{path}'").strip() == path
    assert fleet.run("ex12", "exim4 -be '${run{/bin/echo x}}'").strip() == "x"  # what is refused would be executed


def test_a_server_that_requires_tls_behind_a_mode_that_may_use_plaintext(fleet: Fleet, tmp_path: Path) -> None:
    played = fleet.play(ENABLE, "-i", override(tmp_path, "mail_servers", "pf12", starttls_inbound="required"))
    assert played.status != 0
    assert "pf12 is to require TLS" in played.output


def test_an_unreachable_gateway(fleet: Fleet, tmp_path: Path) -> None:
    played = fleet.play(ENABLE, "-i", override(tmp_path, "mail_gateways", "gw1", ansible_host="mailfleet-nowhere"))
    assert played.status != 0
    assert "Plan: enable: unknown" in played.output
    [row] = [line for line in played.output.splitlines() if line.startswith("gw1 ") and "gateway" in line]
    assert row.split("  ")[-1].strip() == "unreachable"
    assert "1 The gateways accept TLS" not in played.output


def test_required_mode_for_a_server_without_starttls(fleet: Fleet) -> None:
    options = {"name": "alpha", "domains": ["alpha.test"], "servers": ["pf12.fleet.test"], "delivery_mode": "required"}
    played = fleet.module("gw1", "inbound_tls_mode", options)
    assert played.status != 0
    assert "'required' is refused, because mail for it would be deferred: pf12.fleet.test:25" in played.output
    assert "the server does not offer STARTTLS" in played.output


def test_a_misspelt_variable_is_said_with_the_right_name(fleet: Fleet, tmp_path: Path) -> None:
    played = fleet.play(ENABLE, "-i", override(tmp_path, "mail_servers", "pf12", starttls_inbond="required"))
    assert played.status != 0
    assert (
        "pf12 has the variable starttls_inbond, which does not exist; did you mean starttls_inbound?" in played.output
    )


@pytest.mark.parametrize("host", ["pf12", "ex12"])
def test_outbound_required_before_the_gateway_accepts_tls(fleet: Fleet, host: str) -> None:
    played = fleet.module(host, "mail_server_tls", {"outbound": "required"})
    assert played.status != 0
    assert "outbound 'required' is refused, because mail would be deferred: gw1.fleet.test:25" in played.output


@pytest.mark.parametrize("host", ["pf12", "ex12"])
def test_starttls_without_a_certificate(fleet: Fleet, host: str) -> None:
    played = fleet.module(host, "mail_server_tls", {"inbound": "offered"})
    assert played.status != 0
    assert "there is no certificate at /etc/mailfleet/starttls.pem; install it first" in played.output


def test_check_mode_predicts_everything_and_changes_nothing(fleet: Fleet, tmp_path: Path) -> None:
    # Such a host takes the place of localhost, where the playbooks keep a fact.
    local = override(tmp_path, "others", "127.0.0.1", ansible_connection="local")
    played = fleet.play(ENABLE, "--check", "--diff", "-i", local)
    assert played.status == 0, played.output
    assert not any(played.changed.values()), played.output
    assert "Plan: enable: drift" in played.output
    steps = {"gw1": "accept, modes", **dict.fromkeys(SERVERS, "offer")}
    for host, words in steps.items():
        [row] = [
            line for line in played.output.splitlines() if line.startswith(f"{host} ") and "inbound disabled" in line
        ]
        assert f"  {words} (" in row
    assert "+smtpd_tls_security_level = may" in played.output
    assert "+MAIN_TLS_CERTKEY = /etc/mailfleet/starttls.pem" in played.output
    assert "+alpha.test mailfleet-match_sender:[pf12.fleet.test]:25" in played.output
    assert "PRIVATE KEY" not in played.output


def test_a_fault_of_one_host_stops_the_run_before_the_first_change(fleet: Fleet, tmp_path: Path) -> None:
    """pf13's certificate is bad. The gateway and pf12 come before it, and they stay as they are."""
    key = str(fleet.pki / "pf12.key")
    played = fleet.play(ENABLE, "-i", override(tmp_path, "mail_servers", "pf13", starttls_private_key_file=key))
    assert played.status != 0
    assert "Plan: enable: blocked" in played.output
    assert "pf13: [key_mismatch]" in played.output
    assert not any(played.changed.values())


def test_what_could_not_be_switched_off_again_is_not_switched_on(fleet: Fleet) -> None:
    """Settings that switching on accepts, and switching off does not: they are named before anything changes."""
    macros = "/etc/exim4/exim4.conf.localmacros"
    fleet.run("gw1", "cp -p /etc/postfix/master.cf /root/master.cf; postconf -P smtp/unix/smtp_tls_security_level=may")
    fleet.run("ex12", f"if [ -e {macros} ]; then cp -p {macros} /root/macros; fi")
    fleet.run("ex12", f"echo 'REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS = mx.bank.example' >>{macros}")
    played = fleet.play(ENABLE)
    fleet.run("gw1", "mv /root/master.cf /etc/postfix/master.cf; postfix reload 2>&1")
    fleet.run("ex12", f"rm {macros}; if [ -e /root/macros ]; then mv /root/macros {macros}; fi")
    assert played.status != 0 and not any(played.changed.values()), played.output
    said = "TLS could not be switched off again here"
    assert (
        f"gw1: {said}: master.cf sets smtp_tls_security_level=may, which overrides main.cf for smtp/unix; remove it first: "
        "postconf -PX 'smtp/unix/smtp_tls_security_level'"
    ) in played.output, played.output
    assert (
        f"ex12: {said}: REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS holds a list of yours (mx.bank.example)"
        in played.output
    )


def override(place: Path, group: str, host: str, **variables: str) -> str:
    """An inventory that changes some variables of one host."""
    path = place / "override.yml"
    path.write_text(yaml.safe_dump({group: {"hosts": {host: json.loads(json.dumps(variables))}}}))
    return str(path)
