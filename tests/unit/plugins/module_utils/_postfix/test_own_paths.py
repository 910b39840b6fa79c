"""The collection's own files and the programs of Postfix on a platform that has them elsewhere than Debian."""

from __future__ import annotations

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.gateway import PostfixGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import DEBIAN, POSTFIX_LAYOUTS
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.own_paths import OwnPaths, with_programs
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.peer import PostfixPeers
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.queue import PostfixQueue
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.server import Postfix
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds import log as logs
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds import queue as queues

FREEBSD = next(one for one in POSTFIX_LAYOUTS if one.platform == "FreeBSD")
ETC = "/usr/local/etc"


class Programs:
    """What was started. Each says that it has nothing to say."""

    def __init__(self):
        self.started = []

    def __call__(self, words):
        self.started.append(list(words))
        return 0, "", ""


@pytest.fixture
def programs():
    return Programs()


def own(paths):
    """The paths without those of the operating system and of the policy service."""
    return [one for one in paths if not one.startswith(("/etc/systemd/", "/usr/local/lib/"))]


def test_a_gateway_keeps_all_its_files_beside_main_cf(programs):
    files = own(PostfixGateway(programs, Settings(), Target("127.0.0.1"), 10125, FREEBSD).files())
    assert f"{ETC}/postfix/mailfleet-starttls/gateway.json" in files
    assert f"{ETC}/postfix-mailfleet/main.cf" in files
    assert [one for one in files if not one.startswith(f"{ETC}/postfix")] == [
        f"{ETC}/amavis/conf.d/99-mailfleet_starttls"
    ]


def test_peers_keep_their_tables_beside_main_cf(programs):
    assert PostfixPeers(programs, layout=FREEBSD).files() == (
        f"{ETC}/postfix/main.cf", f"{ETC}/postfix/master.cf",
        f"{ETC}/postfix/mailfleet-peers/transport", f"{ETC}/postfix/mailfleet-peers/any_name",
    )  # fmt: skip


def test_debian_keeps_what_it_has():
    at = OwnPaths(DEBIAN.config_dir)
    assert (at.registry, at.peer_table, at.third_dir) == (
        "/etc/postfix/mailfleet-starttls/gateway.json", "/etc/postfix/mailfleet-peers/transport", "/etc/postfix-mailfleet_enforced",
    )  # fmt: skip


def test_what_is_left_is_looked_for_there(programs, monkeypatch, tmp_path):
    there = tmp_path / "mailfleet-peers"
    there.mkdir()
    layout = type(FREEBSD)(**{**vars(FREEBSD), "config_dir": str(tmp_path)})
    assert str(there) in Postfix(programs, layout=layout).left()


def test_the_programs_are_started_where_the_usual_search_path_may_not_have_them(programs):
    Postfix(programs, layout=FREEBSD).version()
    PostfixQueue(programs, FREEBSD).waiting()
    assert {words[0] for words in programs.started} == {"/usr/local/sbin/postconf", "/usr/local/sbin/postqueue"}
    assert {words[2] for words in programs.started} == {f"{ETC}/postfix"}


def test_other_programs_are_not_postfix_s(programs):
    with_programs(programs, FREEBSD)(["systemctl", "status"])
    with_programs(programs, DEBIAN)(["postconf", "-n"])
    assert programs.started == [["systemctl", "status"], ["postconf", "-n"]]


def test_log_and_queue_are_those_of_the_layout_that_was_found(programs, monkeypatch):
    for registry in (logs, queues):
        monkeypatch.setattr(registry, "layout_of", lambda _kind: FREEBSD)
    logs.LOGS["postfix"](None, 0.0, 1.0, programs)
    queues.QUEUES["postfix"](programs).waiting()
    assert {words[2] for words in programs.started} == {f"{ETC}/postfix"}
    assert all(words[0].startswith("/usr/local/sbin/post") for words in programs.started)
