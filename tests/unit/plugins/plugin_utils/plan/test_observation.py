"""What a host said, and why it could not be read."""

import ast

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import CATALOGUE
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import (
    NOTES,
    OBSTACLES,
    Observation,
    Unread,
    read_result,
)

from tests.support import rooms
from tests.support.plan_states import gateway, plain, probe, server

VAGUE = "MODULE FAILURE\nSee stdout/stderr for the exact error"


@pytest.mark.parametrize("result", [None, {}, "text", {"skipped": True}])
def test_a_host_that_was_not_read(result):
    assert read_result(result) == Unread("not_read", "it was not read")


@pytest.mark.parametrize(
    ("message", "told"),
    [("Failed to connect to the host via ssh: no route\r\nmore", "Failed to connect to the host via ssh: no route"),
     ("", "it gave no reason")],
)  # fmt: skip
def test_a_host_that_is_unreachable(message, told):
    assert read_result({"unreachable": True, "msg": message}) == Unread("unreachable", told)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("no_privilege", "Missing sudo password"),
        ("no_privilege", "Incorrect sudo password"),
        ("no_privilege", "sudo: a password is required"),
        ("no_privilege", "sudo: a terminal is required to read the password; either use the -S option"),
        ("no_privilege", "sudo: sorry, you must have a tty to run sudo"),
        ("no_privilege", "Sorry, user u is not allowed to execute '/bin/sh' as root on h."),
        ("no_privilege", "u is not in the sudoers file.  This incident will be reported."),
        ("no_privilege", "Task failed: Timed out waiting for become success."),
        ("no_privilege", "Timeout (12s) waiting for privilege escalation prompt: "),
        ("no_privilege", "/bin/sh: 1: sudo: not found"),
        ("no_privilege", "/var/spool/postfix/pid/master.pid: Permission denied"),
        ("no_python", "/bin/sh: 1: /usr/bin/python3: not found"),
        ("no_python", "bash: line 1: /usr/bin/python3.9: No such file or directory"),
        ("no_python", "No python interpreters found for host h (tried ['python3.12'])"),
        ("no_python", "The module interpreter '/x/python' was not found."),
        ("no_python", "ansible-core requires a minimum of Python version 3.9. Current version: 3.6.8"),
        ("not_read", "the daemon did not become ready; look at its log"),
        ("not_read", "Postfix and Exim are both on this host; set kind to one of: postfix, exim"),
    ],
)
def test_the_words_of_a_failure(code, message):
    """In the message itself, or in the output where the message says nothing."""
    expected = Unread(code, message.strip())
    assert read_result({"failed": True, "msg": message}) == expected
    assert read_result({"failed": True, "msg": VAGUE, "module_stderr": f"Shared connection\n{message}\n"}) == expected
    assert (
        read_result({"failed": True, "msg": VAGUE, "module_stderr": "", "module_stdout": f"{message}\r\n"}) == expected
    )


def test_no_interpreter_by_its_exit_status():
    words = "The module failed to execute correctly, you probably need to set the interpreter."
    assert read_result({"failed": True, "msg": words, "rc": 127}) == Unread("no_python", words)


@pytest.mark.parametrize(("message", "told"), [("\x1b[2Jgone\nx", "?[2Jgone"), ("y" * 1000, "y" * 300)])
def test_a_reason_is_one_short_line(message, told):
    assert read_result({"failed": True, "msg": message}) == Unread("not_read", told)


@pytest.mark.parametrize(
    "broken",
    [
        {"obstacles": 5}, {"obstacles": ["x"]}, {"changes": [{}]}, {"changes": [5]}, {"before": "x"}, {"health": "running"},
        {"digests": []}, {"digests": ["x"]}, {"gateway": "x"}, {"gateway": {"email_configs": [{}]}}, {"probe": []},
        {"probe": {"results": [{}]}},
        {"probe": {"results": [{"host": "x", "port": "smtp"}]}}, {"next_hops": [{"host": "x"}]}, {"transports": ["x"]},
        {"activity": {"sessions_an_hour": "many"}}, {"gateway": {"limits": ["x"]}},
    ],
)  # fmt: skip
def test_a_result_that_makes_no_sense_is_no_exception(broken):
    """Of an empty list in the place of a mapping nothing is lost; everything else makes the host unknown."""
    found = read_result(server(**broken))
    assert isinstance(found, Unread) or not any(broken.values())
    assert isinstance(found, Observation) or (found.code == "not_read" and "cannot be understood" in found.message)


def test_a_mail_server():
    found = read_result(server("m1", drift=True))
    assert (found.title, found.state, found.before, found.after) == (
        "Postfix 3.7.11", "running", ("disabled", "disabled"), ("offered", "opportunistic"),
    )  # fmt: skip
    assert found.needs_change and found.gets_starttls and found.answers
    assert found.relays == ("gw1.test",)
    assert found.servers["m1.test", 25].tls_ms == 12.0
    assert not read_result(server(transports=None)).relays


def test_a_gateway():
    held = [{"name": "main", "domains": ["a.example"], "servers": ["m1.test:25"], "delivery_mode": "required"}]
    found = read_result(
        gateway(view={"email_configs": held, "accepted_domains": {"A.example": True, "b.example": None}})
    )
    assert found.title == "Postfix gateway 3.7.11"
    assert found.gateway.configs["main"].mode == "required"
    assert found.gateway.accepted == {"a.example": True}
    assert not found.gateway.changes_modes
    assert read_result(gateway(view={"email_configs": held, "after": {"main": "plaintext"}})).gateway.changes_modes
    assert not read_result(gateway(view={"after": {"new": "plaintext"}})).gateway.changes_modes


@pytest.mark.parametrize(
    "words",
    ["Name or service not known", "Temporary failure in name resolution", "No address associated with hostname", "it has no address",
     "Name does not resolve", "nodename nor servname provided, or not known"],
)  # fmt: skip
def test_a_name_that_does_not_resolve(words):
    dead = probe("m1.test", code="connect_failed", stage="connect", message=f"cannot connect to m1.test:25: {words}")
    found = read_result(gateway(probes=[dead])).servers["m1.test", 25]
    assert (found.unresolved, found.reached) == (True, False)


@pytest.mark.parametrize(
    ("test", "reached"),
    [(plain("m1"), True), (probe("m1", code="timeout", stage="connect"), False),
     (probe("m1", code="timeout", stage="starttls_answered"), True),
     (probe("m1", code="greeting_rejected", stage="greeting"), False), (probe("m1"), True)],
)  # fmt: skip
def test_a_server_that_is_reached_answers_ehlo(test, reached):
    found = read_result(gateway(probes=[test])).servers["m1", 25]
    assert (found.reached, found.unresolved) == (reached, False)


def test_a_server_is_known_by_name_and_by_address():
    found = read_result(gateway(probes=[probe("192.0.2.1", name="M1.test.")])).servers
    assert {("192.0.2.1", 25), ("m1.test", 25)} <= set(found)


def test_codes_of_a_host_are_those_of_the_contract():
    said = server(
        obstacles=[{"code": "port_in_use", "message": "port 25\nis in use"}, {"code": "new", "message": "it is new"}],
        notes=[{"code": "stranger_on_mail_port", "message": "x"}, {"code": "port_in_use", "message": "y"}],
    )
    found = read_result(said)
    assert [one.code for one in found.obstacles] == ["port_in_use", "unknown_finding"]
    assert found.obstacles[0].message == "port 25?is in use"
    assert [one.code for one in found.notes] == ["stranger_on_mail_port", "unknown_finding"]


@pytest.mark.parametrize(
    "source",
    [
        "module_utils/_server/reading.py", "module_utils/_gateway/reading.py", "module_utils/_host/sockets.py",
        "module_utils/ansible_reading.py", "module_utils/ansible_gateway_host.py", "plugin_utils/observed_results.py",
    ],
)  # fmt: skip
def test_every_code_that_a_read_can_say_is_known_here(source):
    """Another one would be shown as an unknown finding."""
    tree = ast.parse((rooms.TOP / "plugins" / source).read_text())
    said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = {"message", "timeout"}  # of keys and options, which are codes of handshakes too
    assert (said & set(CATALOGUE)) - names <= OBSTACLES | NOTES
    assert (said & set(CATALOGUE)) - names != set()


def test_a_fault_of_the_certificate_to_install_that_is_no_error_keeps_its_code():
    found = read_result(server("m1", notes=[{"code": "expires_soon", "message": "16 days"}]))
    assert [(one.code, one.message) for one in found.notes] == [("expires_soon", "16 days")]
