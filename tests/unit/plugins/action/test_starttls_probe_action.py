"""starttls_probe as users have it: a real ansible-playbook, a mail server on a loopback port, and findings."""

import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import dns.rcode
import pytest
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support import dns_server

ROOT = Path(__file__).resolve().parents[4]
NAME = "mx.example.com"


class MailServer:
    """As much of a mail server as a handshake test needs; without a context it has no STARTTLS."""

    def __init__(self, context=None):
        self.context = context
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        try:
            with connection:
                connection.settimeout(20)
                connection.sendall(b"220 mx.example.com ESMTP\r\n")
                self._commands(connection, tls=False)
        except OSError:  # the client went, as a test does that refuses the certificate
            return

    def _commands(self, connection, tls):
        with connection.makefile("rb") as lines:
            for line in lines:
                verb = line.split()[0].upper()
                if verb == b"EHLO":
                    offer = b"250-STARTTLS\r\n" if self.context and not tls else b""
                    connection.sendall(b"250-mx.example.com\r\n" + offer + b"250 PIPELINING\r\n")
                elif verb == b"STARTTLS":
                    connection.sendall(b"220 go ahead\r\n")
                    with self.context.wrap_socket(connection, server_side=True) as inside:
                        self._commands(inside, tls=True)
                    return
                elif verb == b"QUIT":
                    connection.sendall(b"221 bye\r\n")
                    return
                else:
                    connection.sendall(b"250 ok\r\n")

    def close(self):
        self.socket.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory, authority):
    """All the tasks in one playbook: their results by name, what it printed, the fingerprint of the served leaf, two ports."""
    directory = tmp_path_factory.mktemp("probe")
    leaf = authority.issue([NAME])
    (directory / "server.pem").write_bytes(leaf.key_pem + leaf.fullchain_pem)
    (directory / "files").mkdir()
    (directory / "files/ca.pem").write_bytes(authority.root_pem)
    (directory / "files/commented.pem").write_bytes("# Főtanúsítvány\n".encode() + authority.root_pem)
    (directory / "files/junk.pem").write_text("no certificate\n")
    (directory / "files/binary.pem").write_bytes(b"\xff\xfe\x00")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem")
    servers = [MailServer(), MailServer(context)]
    plain, tls = servers
    with socket.create_server(("127.0.0.1", 0)) as spare:
        refused = spare.getsockname()[1]
    good = {"host": "127.0.0.1", "port": tls.port, "name": NAME}
    fingerprint = leaf.certificate.fingerprint(hashes.SHA256()).hex()
    with dns_server.serve(secure=True) as names:
        _fill_zone(names, tls.port, leaf.certificate)
        tasks = _tasks(authority, plain, tls, refused, good, fingerprint, names.address)
        results, printed = _play(directory, tasks)
    for server in servers:
        server.close()
    return {"results": results, "printed": printed, "fingerprint": fingerprint, "refused": refused, "plain": plain.port}


def _fill_zone(names, port, leaf):
    spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    names.add(f"_{port}._tcp.{NAME}", "TLSA", f"3 1 1 {hashlib.sha256(spki).hexdigest()}")
    names.add(f"_{port}._tcp.other.example.com", "TLSA", f"3 1 1 {'ab' * 32}")
    names.add("_mta-sts.example.com", "TXT", '"v=STSv1; id=1;"')
    names.failing["_mta-sts.example.net"] = dns.rcode.SERVFAIL


def _tasks(authority, plain, tls, refused, good, fingerprint, resolver):
    roots = authority.root_pem.decode()
    lookups = {"resolver": resolver, "checks": ["dane"], "ca_content": roots}
    return {
        "without_tls": {
            "targets": [{"host": "127.0.0.1", "port": plain.port}, {"host": "127.0.0.1", "port": refused}]
        },
        "good": {"targets": [{**good, "fingerprint_sha256": fingerprint.upper()}], "ca_file": "ca.pem", "min_days_left": 7},
        "content": {"targets": [good], "ca_content": authority.root_pem.decode(), "min_days_left": 400},
        "system": {"targets": [{**good, "name": "other.example.com", "fingerprint_sha256": "0" * 64}]},
        "taken": {"targets": [{**good, "name": "other.example.com"}], "require_trusted": False},
        "empty_ca_file": {"targets": [good], "ca_file": ""},
        "commented": {"targets": [good], "ca_file": "commented.pem"},
        "missing": {"targets": [good], "ca_file": "nowhere.pem"},
        "binary": {"targets": [good], "ca_file": "binary.pem"},
        "junk": {"targets": [good], "ca_file": "junk.pem"},
        "empty_content": {"targets": [good], "ca_content": ""},
        "newline": {"targets": [{"host": "127.0.0.1\nmx", "port": plain.port}]},
        "newline_in_name": {"targets": [{**good, "name": "mx\r\nRSET"}]},
        "bad_port": {"targets": [{"host": "127.0.0.1", "port": 70000}]},
        "no_targets": {"targets": []},
        "many": {"targets": [good] * 201, "ca_content": roots},
        "survey": {"targets": [good], "mode": "survey", "ca_content": roots},
        "survey_by_the_system": {"targets": [good], "mode": "survey"},
        "warned": {"targets": [good], "ca_content": roots, "warn_days_left": 400},
        "strict": {"targets": [good], "ca_content": roots, "warn_days_left": 400, "fail_on": "warning"},
        "dane": {**lookups, "targets": [good, {**good, "name": "other.example.com"}, {**good, "name": "127.0.0.1"}]},
        "mta_sts": {
            **lookups, "checks": "dane,mta_sts",
            "targets": [{**good, "domain": one} for one in ("example.com", "Example.ORG.", "example.net")],
        },
        "no_domain": {**lookups, "targets": [{**good, "name": "mx"}], "checks": ["dane", "mta_sts"]},
        "bad_domain": {**lookups, "targets": [{**good, "domain": "a b"}], "checks": ["mta_sts"]},
        "bad_resolver": {**lookups, "targets": [good], "resolver": ["ns.example.com"]},
        "bad_check": {"targets": [good], "checks": ["everything"]},
    }  # fmt: skip


def _play(directory, tasks):
    plays = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "module_defaults": {"group/mailfleet.starttls.starttls": {"timeout": 10}},
            "tasks": [
                {
                    "name": name,
                    "mailfleet.starttls.starttls_probe": arguments,
                    "register": f"run_{name}",
                    "ignore_errors": True,
                }
                for name, arguments in tasks.items()
            ],
        }
    ]
    found = "{{ {" + ", ".join(f"'{name}': run_{name}" for name in tasks) + "} | to_json }}"
    plays[0]["tasks"].append(
        {"ansible.builtin.copy": {"content": found, "dest": str(directory / "results"), "mode": "0600"}}
    )
    (directory / "play.yml").write_text(yaml.safe_dump(plays, width=10000))
    (directory / "inventory").write_text("localhost ansible_connection=local\n")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory", "-vvv", "play.yml"],
        cwd=directory,
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / ".lab/ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(directory / "local"),
            "ANSIBLE_REMOTE_TEMP": str(directory / "remote"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_INJECT_INVOCATION": "1",  # without it, ansible-core 2.21 and newer do not show it even with -vvv
        },
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((directory / "results").read_text()), done.stdout


def codes(result):
    return [finding["code"] for finding in result["findings"]]


def test_no_starttls_and_no_server(run):
    result = run["results"]["without_tls"]
    assert (result["failed"], result["changed"], result["passed"]) == (False, False, False)
    assert "expectations" not in result
    plain, refused = result["results"]
    assert (plain["stage"], plain["starttls_advertised"], plain["capabilities"]) == ("ehlo", False, ["PIPELINING"])
    assert plain["findings"] == [
        {
            "code": "starttls_not_offered",
            "severity": "error",
            "message": "the server does not offer STARTTLS; switch STARTTLS on at the server; if it is on, a device "
            "on the path removes it",
        }
    ]
    assert codes(refused) == ["connect_failed"]
    assert refused["findings"][0]["message"].startswith(f"cannot connect to 127.0.0.1:{run['refused']}: ")
    assert refused["findings"][0]["message"].endswith(
        "; check that the server runs, listens on this address and accepts this host"
    )
    assert (plain["certificate"], refused["certificate"]) == (None, None)


def test_a_good_server(run):
    result = run["results"]["good"]
    assert result["passed"], result
    [one] = result["results"]
    assert (one["stage"], one["trusted"], one["name"]) == ("ehlo_tls", True, NAME)
    assert one["fingerprint_sha256"] == one["certificate"]["fingerprint_sha256"] == run["fingerprint"]
    assert one["certificate"]["sans"] == [f"DNS:{NAME}"]


def test_all_that_a_result_has(run):
    [one] = run["results"]["good"]["results"]
    assert (one["protocol"], one["mode"], one["group"] != "", one["client_certificate"]) == (
        "smtp", "full", True, "not_requested",
    )  # fmt: skip
    assert set(one["timings"]) == {"connect", "greeting", "ehlo", "starttls", "tls", "ehlo_tls"}
    assert (one["versions"], one["injection"], one["resumption"], one["dane"], one["mta_sts"]) == (
        {},
        None,
        None,
        None,
        None,
    )
    assert (one["name_matches"], one["days_left"], len(one["chain"]), len(one["chain_pem"])) == (True, 364, 2, 2)
    assert one["chain"][0] == one["certificate"] and one["chain"][1]["common_name"] == "Example intermediate CA"
    assert [shown["fingerprint_sha256"] for shown in one["chain"]] == one["chain_sha256"]
    assert "certificates" not in run["results"]["good"] and "key_exchange" not in one


def test_long_lists_tell_each_certificate_once(run):
    result = run["results"]["many"]
    assert (result["passed"], len(result["results"]), len(result["certificates"])) == (True, 201, 2)
    assert all("chain_pem" not in one and len(one["chain"]) == 2 for one in result["results"])
    assert set(result["results"][-1]["chain_sha256"]) == set(result["certificates"])
    assert result["certificates"][run["fingerprint"]].startswith("-----BEGIN CERTIFICATE-----\n")
    assert {"packed", "expected", "fingerprints", "expectations"}.isdisjoint(result)


def test_long_lists_are_not_sent_back(run):
    assert run["printed"].count('"targets": "201 targets"') == 1
    assert '"targets": [' in run["printed"], "short ones are"


def test_a_survey_is_judged_here(run):
    [one] = run["results"]["survey"]["results"]
    assert (one["mode"], one["completed"], one["trusted"], one["passed"], codes(one)) == (
        "survey",
        False,
        True,
        True,
        [],
    )
    [one] = run["results"]["survey_by_the_system"]["results"]
    assert (one["trusted"], one["verify_error"]) == (False, "unable to get local issuer certificate")
    assert codes(one) == ["untrusted"]


def test_severities(run):
    warned, strict = run["results"]["warned"], run["results"]["strict"]
    assert [(one["code"], one["severity"]) for one in warned["results"][0]["findings"]] == [("expires_soon", "warning")]
    assert warned["results"][0]["findings"] == strict["results"][0]["findings"]
    assert (warned["passed"], strict["passed"]) == (True, False)


def test_dane(run):
    right, other, address = run["results"]["dane"]["results"]
    assert (right["dane"]["status"], right["passed"]) == ("match", True)
    assert right["dane"]["records"][0].startswith("3 1 1 ")
    assert (other["dane"]["status"], codes(other)) == ("mismatch", ["name_mismatch", "dane_mismatch"])
    assert (address["dane"]["status"], codes(address)) == ("not_checked", ["name_mismatch", "dane_not_checked"])


def test_a_host_without_a_domain_is_told_which_variable_is_missing(run):
    [one] = run["results"]["no_domain"]["results"]
    assert codes(one) == ["name_mismatch", "dane_not_checked", "mta_sts_not_checked"]
    said = {finding["code"]: finding["message"] for finding in one["findings"]}
    assert (
        "; set starttls_hostname to " in said["dane_not_checked"] and "mx is no domain name" in said["dane_not_checked"]
    )
    assert "; set starttls_domain of the host to " in said["mta_sts_not_checked"]
    assert (one["dane"]["status"], one["mta_sts"]["status"]) == ("not_checked", "not_checked")


def test_the_role_asks_for_the_checks_of_the_inventory_and_leaves_none_out():
    [block] = yaml.safe_load((ROOT / "roles/verify/tasks/observe.yml").read_text())
    assert block["block"][0]["mailfleet.starttls.starttls_probe"]["checks"] == "{{ verify_checks }}"


def test_mta_sts(run):
    without_host, without_record, broken = run["results"]["mta_sts"]["results"]
    assert without_host["mta_sts"] == {
        "status": "failed", "mode": "", "id": "1", "mx": [], "max_age": None,
        "message": "the policy of example.com cannot be fetched from https://mta-sts.example.com: the name has no address",
    }  # fmt: skip
    assert codes(without_host) == ["mta_sts_failed"] and without_host["dane"]["status"] == "match"
    assert (without_record["mta_sts"]["status"], codes(without_record)) == ("none", [])
    assert without_record["mta_sts"]["message"] == "example.org has no MTA-STS record"
    assert (broken["mta_sts"]["status"], broken["passed"]) == ("failed", True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bad_domain", "the domain 'a b' of 127.0.0.1 is not a domain"),
        ("bad_resolver", "the resolver 'ns.example.com' is not an IP address, with or without a port"),
    ],
)
def test_lookups_that_cannot_be_made(run, name, message):
    assert run["results"][name]["failed"]
    assert message in run["results"][name]["msg"]


def test_an_unknown_check(run):
    assert run["results"]["bad_check"]["failed"]
    assert "everything" in run["results"]["bad_check"]["msg"]


def test_days_left_and_roots_as_text(run):
    assert codes(run["results"]["content"]["results"][0]) == ["expiring"]


def test_whatever_is_wrong_with_the_certificate_is_found(run):
    [one] = run["results"]["system"]["results"]
    assert codes(one) == ["wrong_certificate", "untrusted", "name_mismatch"]
    assert one["completed"]


def test_trust_can_be_left_out(run):
    assert codes(run["results"]["taken"]["results"][0]) == ["name_mismatch"]


def test_an_empty_ca_file_is_none(run):
    assert codes(run["results"]["empty_ca_file"]["results"][0]) == ["untrusted"]


@pytest.mark.parametrize(("name", "file"), [("missing", "nowhere.pem"), ("binary", "binary.pem")])
def test_a_ca_file_that_cannot_be_read(run, name, file):
    result = run["results"][name]
    assert result["failed"]
    assert f"ca_file '{file}' cannot be read on the controller: " in result["msg"]


def test_a_ca_file_without_a_certificate(run):
    result = run["results"]["junk"]
    assert result["failed"]
    assert result["msg"].startswith("ca_content holds no usable certificate: ")


def test_a_bundle_with_comments_in_any_language(run):
    assert run["results"]["commented"].get("passed"), run["results"]["commented"]["msg"]


def test_an_empty_ca_content_is_none(run):
    assert codes(run["results"]["empty_content"]["results"][0]) == ["untrusted"]


CONTROL = "holds a line break or another control character"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("newline", f"targets.host {CONTROL} (U+000A); take it out of the value"),
        ("newline_in_name", f"targets.name {CONTROL} (U+000D); take it out of the value"),
        ("bad_port", "the port 70000 of 127.0.0.1 is not between 1 and 65535"),
    ],
)
def test_a_target_that_is_none(run, name, message):
    assert run["results"][name]["failed"]
    assert run["results"][name]["msg"] == message


def test_no_targets_at_all(run):
    """An empty list is a mistake in the inventory; that nothing failed would prove nothing."""
    assert run["results"]["no_targets"]["failed"]
    assert run["results"]["no_targets"]["msg"] == "there is no target to test"
