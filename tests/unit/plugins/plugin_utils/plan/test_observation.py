"""What a host said, and why it could not be read."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import (
    Observation,
    Unread,
    read_result,
)

from tests.support.plan_states import gateway, plain, probe, server

VAGUE = "MODULE FAILURE\nSee stdout/stderr for the exact error"


@pytest.mark.parametrize(
    ("result", "code", "message"),
    [
        (None, "not_read", "it was not read"),
        ({}, "not_read", "it was not read"),
        ("text", "not_read", "it was not read"),
        ({"skipped": True}, "not_read", "it was not read"),
        ({"unreachable": True, "msg": "Failed to connect to the host via ssh: no route\r\nmore"}, "unreachable", "Failed to connect to the host via ssh: no route"),
        ({"unreachable": True}, "unreachable", "it gave no reason"),
        ({"failed": True, "msg": "Missing sudo password"}, "no_privilege", "Missing sudo password"),
        ({"failed": True, "msg": "Incorrect sudo password"}, "no_privilege", "Incorrect sudo password"),
        ({"failed": True, "msg": VAGUE, "module_stderr": "sudo: a password is required\n", "rc": 1}, "no_privilege", "sudo: a password is required"),
        ({"failed": True, "msg": "sudo: a terminal is required to read the password"}, "no_privilege", "sudo: a terminal is required to read the password"),
        ({"failed": True, "msg": VAGUE, "module_stdout": "Sorry, user u is not allowed to execute '/bin/sh' as root on h.\r\n"}, "no_privilege", "Sorry, user u is not allowed to execute '/bin/sh' as root on h."),
        ({"failed": True, "msg": "Task failed: Timed out waiting for become success."}, "no_privilege", "Task failed: Timed out waiting for become success."),
        ({"failed": True, "msg": VAGUE, "module_stderr": "/bin/sh: 1: sudo: not found", "rc": 127}, "no_privilege", "/bin/sh: 1: sudo: not found"),
        ({"failed": True, "msg": VAGUE, "module_stdout": "/bin/sh: 1: /usr/bin/python3: not found\r\n", "rc": 127}, "no_python", "/bin/sh: 1: /usr/bin/python3: not found"),
        ({"failed": True, "msg": "The module failed to execute correctly, you probably need to set the interpreter.", "module_stderr": "", "rc": 127}, "no_python", "The module failed to execute correctly, you probably need to set the interpreter."),
        ({"failed": True, "msg": "No python interpreters found for host h (tried [...])"}, "no_python", "No python interpreters found for host h (tried [...])"),
        ({"failed": True, "msg": "The module interpreter '/x/python' was not found."}, "no_python", "The module interpreter '/x/python' was not found."),
        ({"failed": True, "msg": "the daemon did not become ready; look at its log"}, "not_read", "the daemon did not become ready; look at its log"),
        ({"failed": True, "msg": "\x1b[2Jgone\nx"}, "not_read", "?[2Jgone"),
        ({"failed": True, "msg": "y" * 1000}, "not_read", "y" * 300),
    ],
)  # fmt: skip
def test_a_host_that_could_not_be_read(result, code, message):
    assert read_result(result) == Unread(code, message)


@pytest.mark.parametrize(
    "broken",
    [
        {"obstacles": 5}, {"obstacles": ["x"]}, {"changes": [{}]}, {"changes": [5]}, {"before": "x"}, {"health": "running"}, {"digests": []},
        {"digests": ["x"]}, {"gateway": "x"}, {"gateway": {"email_configs": [{}]}}, {"probe": []}, {"probe": {"results": [{}]}},
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
    [(plain("m1"), True), (probe("m1", code="timeout", stage="connect"), False), (probe("m1", code="timeout", stage="starttls_answered"), True),
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
