"""A host that takes no mail from the network: read, changed and proved without its own port, by the way to its relay."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import facts, sockets
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import undo_killed_run
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reading import Reading, takes_no_mail
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.uninstall import put_back
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

from tests.support.fake_mail import PATIENT, FakeMail
from tests.support.smtp_server import PLAIN, Face, SmtpServer, server_context

PROGRAM = Path(sys.executable).resolve().name


@pytest.fixture
def relay(tmp_path: Path, authority: Any) -> Iterator[SmtpServer]:
    """A relay that offers STARTTLS."""
    server = SmtpServer(Face(context=server_context(tmp_path, authority.issue(["relay.example"]))))
    yield server
    server.close()


@pytest.fixture
def mail(tmp_path: Path, authority: Any, relay: SmtpServer, monkeypatch: pytest.MonkeyPatch) -> FakeMail:
    """A mail server whose port is closed, and which hands everything to the relay. There is no certificate."""
    server = FakeMail(tmp_path, authority)
    server.port.close()  # its number stays, and nobody answers there
    server.hops = [Target(relay.host, relay.port)]
    server.certificate.unlink()
    monkeypatch.setattr(sockets, "listening", lambda *_args, **_more: [])
    monkeypatch.setattr(facts, "disk_space", lambda _paths: [{"path": "/", "free_bytes": 1 << 30, "free_inodes": 1000}])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return server


def read(mail: FakeMail, outbound: str = "opportunistic", find: bool = False, inbound: Any = None) -> dict[str, Any]:
    desired = mail.desired(inbound, outbound, listens=find)
    return Reading(mail, desired, PATIENT, str(mail.store), find_send_only=find).read([PROGRAM])


def test_a_change_is_proved_without_an_own_port(mail: FakeMail, relay: SmtpServer) -> None:
    outcome = mail.set(outbound="required", listens=False)
    assert (outcome.changed, outcome.before, outcome.after) == (
        True, {"inbound": "none", "outbound": "disabled"}, {"inbound": "none", "outbound": "required"},
    )  # fmt: skip
    assert [(one.target.port, one.completed) for one in outcome.relays] == [(relay.port, True)]
    assert mail.settings["outbound"] == "required"
    assert mail.set(outbound="required", listens=False).changed is False


def test_a_host_that_takes_mail_has_to_answer(mail: FakeMail) -> None:
    with pytest.raises(EngineError, match="no mail server answers"):
        mail.set(outbound="opportunistic")


def test_a_relay_without_tls_keeps_a_host_from_insisting(mail: FakeMail, relay: SmtpServer) -> None:
    relay.face = PLAIN
    with pytest.raises(EngineError, match="outbound 'required' is refused"):
        mail.set(outbound="required", listens=False)
    outcome = mail.set(outbound="opportunistic", listens=False)
    assert [one.completed for one in outcome.relays] == [False]


def test_a_daemon_that_ends_with_the_change_gets_its_former_files_back(mail: FakeMail) -> None:
    before = mail.config.read_text()
    reload = mail.reload

    def ends() -> None:
        reload()
        mail.stopped = True

    mail.reload = ends  # type: ignore[method-assign]
    mail.resume = lambda: setattr(mail, "stopped", False)  # type: ignore[method-assign]
    with pytest.raises(TransactionError, match="does not run") as caught:
        mail.set(outbound="opportunistic", listens=False)
    assert caught.value.restored is True
    assert mail.config.read_text() == before


def test_what_a_killed_run_left_is_undone_without_a_port(mail: FakeMail) -> None:
    before, pid = mail.config.read_bytes(), os.fork()
    if pid == 0:
        mail.reload = lambda: os._exit(9)  # type: ignore[method-assign]
        mail.set(outbound="opportunistic", listens=False)
        os._exit(1)
    os.waitpid(pid, 0)
    own_port = mail.desired().own_port
    assert undo_killed_run(mail, own_port, PATIENT, str(mail.store), listens=False) == (True, [])
    assert mail.config.read_bytes() == before


def test_everything_goes_again(mail: FakeMail) -> None:
    before = mail.config.read_bytes()
    mail.set(outbound="opportunistic", listens=False)
    outcome = put_back(mail, mail.desired(listens=False), PATIENT, store=str(mail.store))
    assert (outcome.changed, outcome.before["inbound"]) == (True, "none")
    assert mail.config.read_bytes() == before


def test_a_read_tests_the_relay_and_nothing_stands_in_the_way(mail: FakeMail, relay: SmtpServer) -> None:
    result = read(mail)
    assert (result["send_only"], result["obstacles"]) == (True, [])
    assert result["probe"]["own"] is False
    assert [(one["port"], one["completed"]) for one in result["probe"]["results"]] == [(relay.port, True)]
    assert result["before"] == {"inbound": "none", "outbound": "disabled"}
    assert result["after"] == {"inbound": "none", "outbound": "opportunistic"}
    assert result["next_hops"] == [{"host": relay.host, "port": relay.port, "completed": True, "message": ""}]
    assert [change["path"] for change in result["changes"]] == [str(mail.config)]
    assert result["offer"] is True


def test_a_host_without_a_relay_says_so(mail: FakeMail) -> None:
    mail.hops = []
    result = read(mail)
    assert (result["probe"]["results"], result["next_hops"], result["obstacles"]) == ([], None, [])
    [note] = [one for one in result["notes"] if one["code"] == "relay_not_tested"]
    assert "MX" in note["message"]


def test_a_read_finds_a_host_that_takes_mail_from_itself_only(mail: FakeMail) -> None:
    """The settings of the fake have a listener at 127.0.0.1."""
    result = read(mail, find=True, inbound="offered")
    assert (result["send_only"], result["obstacles"], result["after"]["inbound"]) == (True, [], "none")


def test_a_read_that_is_not_asked_for_it_finds_none(mail: FakeMail) -> None:
    desired = mail.desired("offered", None)
    result = Reading(mail, desired, PATIENT, str(mail.store)).read([PROGRAM])
    assert result["send_only"] is False
    assert "not_answering" in [one["code"] for one in result["obstacles"]]


@pytest.mark.parametrize(
    ("listeners", "found", "wanted"),
    [
        ([], [], True),
        (["127.0.0.1"], [("127.0.0.1", 25), ("::1", 25)], True),
        (["loopback-only", "localhost"], None, True),
        (["127.0.0.1 ::1"], [], True),
        ([""], [("", 25)], False),
        (["192.0.2.1"], [], False),
        (["127.0.0.1"], [("", 25)], False),  # it was started before its settings were changed
        ([], [("192.0.2.1", 587)], False),  # another program takes mail from the network
        ([], [("", 22)], True),
        (None, [], False),
    ],
)
def test_what_takes_no_mail_from_the_network(listeners: Any, found: Any, wanted: bool) -> None:
    places = None if listeners is None else [{"host": one, "port": 25} for one in listeners]
    there = None if found is None else [sockets.Socket(*one) for one in found]
    assert takes_no_mail(places, there, 25) is wanted
