"""starttls_probe as users have it: a real ansible-playbook, a mail server on a loopback port, and findings."""

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import hashes

ROOT = Path(__file__).resolve().parents[3]
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
    """All the tasks in one playbook: their results by name, the fingerprint of the served leaf, the two ports."""
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
    tasks = {
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
    }  # fmt: skip
    results = _play(directory, tasks)
    for server in servers:
        server.close()
    return {"results": results, "fingerprint": fingerprint, "refused": refused, "plain": plain.port}


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
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory", "play.yml"],
        cwd=directory,
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(directory / "local"),
            "ANSIBLE_REMOTE_TEMP": str(directory / "remote"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        },
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((directory / "results").read_text())


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
            "message": "the server does not offer STARTTLS; switch STARTTLS on at the server; if it is on, something "
            "between strips it",
        }
    ]
    assert codes(refused) == ["connect_failed"]
    assert refused["findings"][0]["message"].startswith(f"cannot connect to 127.0.0.1:{run['refused']}: ")
    assert refused["findings"][0]["message"].endswith(
        "; see that the server runs, listens on this address and lets this host in"
    )
    assert (plain["certificate"], refused["certificate"]) == (None, None)


def test_a_good_server(run):
    result = run["results"]["good"]
    assert result["passed"], result
    [one] = result["results"]
    assert (one["stage"], one["trusted"], one["name"]) == ("ehlo_tls", True, NAME)
    assert one["fingerprint_sha256"] == one["certificate"]["fingerprint_sha256"] == run["fingerprint"]
    assert one["certificate"]["sans"] == [f"DNS:{NAME}"]


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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("newline", r"the host '127.0.0.1\nmx' is neither a host name nor an IP address"),
        ("newline_in_name", r"the name 'mx\r\nRSET' is neither a host name nor an IP address"),
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
