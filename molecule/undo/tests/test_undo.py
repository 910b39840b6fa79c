"""From five starting states: TLS on, off for the mail port alone, and everything as before. docs/undo.md has the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lab_testinfra import SERVERS, wait_for

if TYPE_CHECKING:
    from conftest import Servers

STATES = ["no TLS", "distribution", "own certificate", "587 and 465 only", "encrypt outbound"]

ON = {"from": "change", "vars": {"inbound": "offered", "outbound": "opportunistic"}, "changes": True}
OFF = {"from": "change", "vars": {"inbound": "disabled", "outbound": "disabled"}}
BACK = {"from": "put_back"}


@pytest.mark.parametrize("state", STATES)
def test_off_is_the_mail_port_alone_and_uninstall_is_everything(servers: Servers, state: str) -> None:
    servers.start(state)
    faces = servers.faces()
    if state == "distribution":  # Exim makes a certificate of its own at the first handshake, which may take long
        faces = wait_for(lambda: "no TLS" not in str(seen := servers.faces()) and seen)
    etc, sending = servers.etc(), servers.sending()
    expected = "no STARTTLS" if state in ("no TLS", "587 and 465 only", "encrypt outbound") else "CN="
    assert all(seen[25].startswith(expected) for seen in faces.values()), faces
    if state in ("own certificate", "587 and 465 only"):
        assert {seen[port] for seen in faces.values() for port in (587, 465)} == {"CN=own.example"}

    again = (
        state == "distribution"
    )  # where each change makes exceptions; the unit tests repeat every change in every state
    servers.play(*([ON, {**ON, "changes": False}] if again else [ON]))
    now = servers.faces()
    assert {host: seen[25] for host, seen in now.items()} == {host: f"CN={host}.fleet.test" for host in SERVERS}

    servers.play({**OFF, "changes": True}, *([{**OFF, "changes": False}] if again else []))
    assert servers.faces() == {host: {**seen, 25: "no STARTTLS"} for host, seen in faces.items()}
    for host, said in servers.sending().items():
        if host in servers.macros:
            before, after = sending[host].splitlines(), said.splitlines()
            assert after[:2] == before[:2]  # remote_smtp is no way to the gateway
            assert after[2:] == ["hosts_avoid_tls = *", "hosts_require_tls = "]
        else:
            level, smtp, relay = said.splitlines()[0], *[one for one in said.splitlines() if " unix " in one]
            assert level == sending[host].splitlines()[0]
            assert "smtp_tls_security_level=none" in said if level != "none" else said == sending[host]
            assert smtp.startswith("smtp ") and relay.startswith("relay ")

    back = [{**BACK, "changes": True}]
    servers.play(*([{**BACK, "check": True, "changes": True}, *back, {**BACK, "changes": False}] if again else back))
    assert servers.etc() == etc
    assert servers.faces() == faces
    assert servers.sending() == sending


def test_uninstall_without_off_keeps_what_was_added_by_hand(servers: Servers) -> None:
    servers.start("own certificate")
    files = {host: servers.macros.get(host, "/etc/postfix/main.cf") for host in SERVERS}
    first = servers.on_each(lambda host: servers.fleet.run(host, f"cat {files[host]}"))
    faces = servers.faces()
    servers.play({**ON, "vars": {"inbound": "required", "outbound": "opportunistic"}})
    line = "\n# a note of the administrator\n"
    servers.on_each(lambda host: servers.fleet.run(host, f"cat >>{files[host]}", line))
    servers.play({**BACK, "changes": True}, {**BACK, "changes": False})
    assert servers.on_each(lambda host: servers.fleet.run(host, f"cat {files[host]}")) == {
        host: text + line for host, text in first.items()
    }
    assert servers.faces() == faces
