"""The program as it is called: what it prints, what it logs, and how it ends."""

import dataclasses
import json

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
            return status, capsys.readouterr().out.splitlines(), logged

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
