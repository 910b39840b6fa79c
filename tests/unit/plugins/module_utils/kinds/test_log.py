"""Which daemon's log is read: by name, or by what is installed."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import Tally
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log import EximLog
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.log import PostfixLog
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds import log


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "DAEMONS", {"postfix": str(tmp_path / "main.cf"), "exim": str(tmp_path / "exim4")})
    return tmp_path


@pytest.mark.parametrize(("path", "daemon"), [("main.cf", "postfix"), ("exim4", "exim")])
def test_the_daemon_that_is_installed(host, path, daemon):
    (host / path).touch()
    assert log.installed() == daemon


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "there is neither Postfix nor Exim on this host; name one with daemon"),
        (["main.cf", "exim4"], "there is both Postfix and Exim on this host; name one with daemon"),
    ],
)
def test_one_of_them_has_to_be_there(host, paths, message):
    for path in paths:
        (host / path).touch()
    with pytest.raises(EngineError, match=message):
        log.installed()


@pytest.mark.parametrize(("daemon", "kind"), [("postfix", PostfixLog), ("exim", EximLog)])
def test_each_daemon_has_its_log_reader(daemon, kind):
    made = log.make_log(daemon, lambda _command: (0, "", ""), Tally(10), 0.0, 1.0)
    assert isinstance(made, kind)
    assert made.name == daemon
