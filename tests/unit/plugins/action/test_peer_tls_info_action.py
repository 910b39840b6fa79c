"""peer_tls_info as users have it: a real ansible-playbook, and a server that refuses at RCPT as Exchange Online does."""

import json
import sys

import pytest

from tests.support.playbooks import run_playbook
from tests.support.smtp_server import Face, server_context, serving

DENIED = b"550 5.7.64 TenantAttribution; Relay Access Denied {{ lookup('pipe', 'id') }}\r\n"


@pytest.fixture(scope="module")
def seen(tmp_path_factory, authority):
    directory = tmp_path_factory.mktemp("play")
    issued = authority.issue(["relay.example.com"])
    (directory / "client.pem").write_bytes(issued.fullchain_pem + issued.key_pem)
    context = server_context(directory, authority.issue(["mail.example.com"]), client_ca=authority.root_pem)
    answers = {b"MAIL": b"250 2.1.0 Ok\r\n", b"RCPT": DENIED, b"RSET": b"250 2.0.0 Ok\r\n"}
    with serving(Face(context=context, answers_tls=answers)) as server:
        peer = {
            "name": "online", "kind": "exchange_online", "hosts": [f"127.0.0.1:{server.port}"], "domains": ["*"],
            "client_certificate": str(directory / "client.pem"),
            "proof_sender": "a@example.com", "proof_recipient": "b@example.org",
        }  # fmt: skip
        tasks = [
            {"mailfleet.starttls.peer_tls_info": {"peers": [peer]}, "register": "proof"},
            {"mailfleet.starttls.peer_tls_info": {"peers": [{"name": "bad one"}]}, "register": "bad", "ignore_errors": True},
            {"ansible.builtin.copy": {"content": "{{ [proof, bad] | to_json }}", "dest": str(directory / "seen"), "mode": "0600"}},
        ]  # fmt: skip
        inventory = {
            "all": {"hosts": {"m1": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}}
        }
        done = run_playbook(directory, inventory, [{"hosts": "m1", "gather_facts": False, "tasks": tasks}])
        assert done.returncode == 0, done.stdout
        commands = list(server.commands)
    return {"results": json.loads((directory / "seen").read_text()), "commands": commands}


def test_a_refusal_reaches_the_user_with_its_explanation(seen):
    proof, bad = seen["results"]
    assert (proof["changed"], proof["passed"]) == (False, False)
    (peer,) = proof["peers"]
    assert (peer["tested"], peer["proofs"][0]["stage"], peer["proofs"][0]["code"]) == (True, "rcpt", 550)
    found = {one["code"]: one["message"] for one in peer["findings"]}
    assert "lookup('pipe', 'id')" in found["peer_not_attributed"]
    assert "TlsSenderCertificateName" in found["peer_not_attributed"]
    assert "client_name_below_domain" in found
    assert bad["failed"] and "the name 'bad one'" in bad["msg"]


def test_no_message_was_begun(seen):
    assert seen["commands"][-4:] == [b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.org>", b"RSET", b"QUIT"]
