"""The program as it is called: what it prints, what it logs, and how it ends."""

import dataclasses
import json
import os

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook import main, telling

from tests.support import renewing
from tests.support.renewing import NAME, pem_of


@pytest.fixture
def called(tmp_path, authority, capsys, monkeypatch):
    """Call the program with words, on a host whose certificate is renewed."""
    with renewing.host(tmp_path, authority) as host:
        path, logged = tmp_path / "renewal.json", []
        path.write_text(json.dumps({**host.data(), "textfile": str(tmp_path / "mailfleet.prom")}))
        monkeypatch.setattr(main, "SERVERS", {"postfix": lambda _run, _desired, _settings: host.server})
        monkeypatch.setattr(main, "STORE", str(tmp_path / "store"))
        monkeypatch.setattr(telling.syslog, "syslog", lambda level, line: logged.append((level, line)))

        def call(*words):
            status = main.main([*words, "--configuration", str(path)])
            printed = capsys.readouterr()
            call.errors = printed.err
            return status, printed.out.splitlines(), logged

        call.host, call.path = host, path
        yield call


def test_a_renewal(called, tmp_path):
    new = called.host.renews(called.host.issue())
    status, lines, logged = called("renew")
    assert status == 0 and called.host.serves() == pem_of(new)
    assert len(lines) == 1 and lines[0].startswith(f"{NAME}: installed: until 20")
    assert logged == [(telling.syslog.LOG_NOTICE, lines[0])]
    assert f'mailfleet_starttls_renewal_status{{name="{NAME}"}} 0' in (tmp_path / "mailfleet.prom").read_text()


def test_a_call_without_a_renewal_is_no_line_in_the_log(called):
    status, lines, logged = called("renew")
    assert (status, lines, logged) == (0, [f"{NAME}: current: served on 2 of 2 listeners"], [])


def test_a_refusal_is_an_error_in_the_log(called, tmp_path):
    called.host.renews(called.host.issue(names=("other.example.com",)))
    status, lines, logged = called("renew")
    assert status == 1 and logged == [(telling.syslog.LOG_ERR, lines[0])]
    assert f'mailfleet_starttls_renewal_status{{name="{NAME}"}} 1' in (tmp_path / "mailfleet.prom").read_text()


def test_one_certificate_by_name(called):
    status, lines, _logged = called("renew", "--name", "mx9.example.com")
    assert (status, lines) == (3, [f"mx9.example.com: unknown: there is no such certificate; there are: {NAME}"])
    assert called("renew", "--name", NAME)[0] == 0


def test_one_certificate_by_name_leaves_the_metrics_of_all(called, tmp_path):
    path = tmp_path / "mailfleet.prom"
    called.host.renews(called.host.issue(names=("other.example.com",)))
    assert called("renew")[0] == 1
    before = path.read_text()
    called.host.renews(called.host.issue())
    assert called("renew", "--name", NAME)[0] == 0 and path.read_text() == before
    path.unlink()
    assert called("renew", "--name", "mx9.example.com")[0] == 3 and not path.exists()


@pytest.mark.parametrize("command", ["renew", "check"])
@pytest.mark.parametrize("name", ['a"b', "a\n# b", "", "a b", "100%s}"])
def test_a_name_that_no_certificate_can_have(called, tmp_path, command, name):
    status, lines, logged = called(command, "--name", name)
    assert (status, lines, logged) == (3, [], []) and "argument --name: the name " in called.errors
    assert not (tmp_path / "mailfleet.prom").exists()


def test_a_textfile_that_cannot_be_written_is_said_and_is_not_the_renewal(called, tmp_path):
    directory = tmp_path / "open"
    directory.mkdir()
    directory.chmod(0o777)
    data = {**json.loads(called.path.read_text()), "textfile": str(directory / "mailfleet.prom")}
    called.path.write_text(json.dumps(data))
    new = called.host.renews(called.host.issue())
    status, lines, _logged = called("renew")
    assert status == 0 and len(lines) == 1 and called.host.serves() == pem_of(new)
    assert "can be written by everybody" in called.errors and "correct textfile" in called.errors
    assert not os.listdir(directory)


def broken(*_given, **_named):
    raise KeyError("-----BEGIN PRIVATE KEY-----")


def test_a_bug_in_a_renewal_is_an_error_in_the_log_and_shows_nothing(called, monkeypatch):
    monkeypatch.setattr(main, "renew", broken)
    status, lines, logged = called("renew")
    assert status == 3 and lines[0].startswith("KeyError in mailfleet-starttls") and "PRIVATE" not in lines[0]
    assert logged == [(telling.syslog.LOG_ERR, lines[0])]


@pytest.mark.parametrize(("text", "said"), [("{", "is not JSON"), ("[]", "renewal.json: ")])
def test_a_renewal_that_cannot_begin_is_an_error_in_the_log(called, text, said):
    called.path.write_text(text)
    status, lines, logged = called("renew")
    assert status == 3 and said in lines[0] and logged == [(telling.syslog.LOG_ERR, lines[0])]
    logged.clear()
    assert called("check")[2] == []  # monitoring shows what that prints


def test_the_check_knows_how_long_the_mail_server_takes_to_notice(called, monkeypatch):
    asked = []
    monkeypatch.setattr(main.monitoring, "check", lambda *given: asked.append(given[3]()) or (0, ""))
    called("check")
    called.host.watched(15.0, notices=True)
    called("check")
    called.path.write_text(json.dumps({**json.loads(called.path.read_text()), "kind": "sendmail"}))
    called("check")
    assert asked == [0.0, 15.0, 0.0]


def test_a_kind_that_is_not_known(called):
    data = json.loads(called.path.read_text())
    called.path.write_text(json.dumps({**data, "kind": "sendmail"}))
    status, lines, _logged = called("renew")
    assert status == 3 and "is not a known kind" in lines[0]


def test_a_configuration_that_goes_while_the_lock_is_waited_for(called, monkeypatch):
    called.host.renews(called.host.issue())
    first, old = main.read(str(called.path)), called.host.serves()
    answers = [first, dataclasses.replace(first, timeout=7)]
    monkeypatch.setattr(main, "read", lambda _path: answers.pop(0))
    status, lines, _logged = called("renew")
    assert status == 3 and "was changed or removed while another run was waited for" in lines[0]
    assert called.host.serves() == old


def test_who_may_not_read_it_is_told(called, monkeypatch):
    def denied(*_given, **_named):
        raise PermissionError(13, "Permission denied", str(called.path))

    monkeypatch.setattr(main.FileImage, "read", denied)
    status, lines, _logged = called("check")
    assert (status, lines[0]) == (
        3,
        f"STARTTLS UNKNOWN - {called.path} can only be read by root; run this as root, for example with sudo",
    )
