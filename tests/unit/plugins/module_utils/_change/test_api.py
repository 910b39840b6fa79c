"""Requests to an API, and the transaction of calls: every failure in words, no secret in any of them."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.api import (
    Api,
    Call,
    Calls,
    CallTransaction,
    Response,
    is_set,
    rows,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Stopped
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import API_ANSWER_BYTES
from hypothesis import given
from hypothesis import strategies as st

from tests.support.alarm import at_most

SECRET = "s3cret/+ \"x'"


class Peer:
    """An http that gives one answer, or raises it, and keeps what it was asked."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def __call__(self, method, url, headers, body):
        self.asked.append((method, url, headers, body))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def api(answer=None, url="https://gw.example.com:8006/", advice=None):
    peer = Peer(answer)
    made = Api(peer, "The Gateway", url, "/api", advice or {401: "log in"})
    made.hide(SECRET)
    return made, peer


def said(answer, method="GET", path="things"):
    made, _peer = api(answer)
    with pytest.raises(EngineError) as error:
        made.request(method, path)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__ or error.value.__context__ is None
    return str(error.value)


class TestCheck:
    @pytest.mark.parametrize(
        "url",
        ["https://gw.example.com", "https://gw.example.com:8006/", "https://192.0.2.1/mail", "https://[2001:db8::1]:8006",
         "http://127.0.0.1:80", "http://127.1.2.3", "http://localhost:8080", "http://[::1]:80"],
    )  # fmt: skip
    def test_a_good_url(self, url):
        api(url=url)[0].check()

    @pytest.mark.parametrize(
        "url",
        ["", "gw.example.com", "gw.example.com:8006", "ftp://gw.example.com", "file:///etc/passwd", "https://", "https:///x",
         "https://gw.example.com:port", "https://gw.example.com:0", "https://[::1", "https://gw.example.com/a b",
         "https://gw.example.com\nHost: x", "https://gw.exämple.com"],
    )  # fmt: skip
    def test_no_url_of_an_api(self, url):
        with pytest.raises(EngineError) as error:
            api(url=url)[0].check()
        assert str(error.value) == (
            "The Gateway: api_url is not the URL of an API; write it like https://gateway.example.com:8006"
        )

    @pytest.mark.parametrize("part", ["https://root:hunter2@gw.example.com", "https://gw.example.com/?key=hunter2",
                                      "https://gw.example.com/#hunter2", "https://@gw.example.com"])  # fmt: skip
    def test_secrets_do_not_belong_into_it(self, part):
        with pytest.raises(EngineError, match="may hold neither a user, a password nor a query") as error:
            api(url=part)[0].check()
        assert "hunter2" not in str(error.value)

    @pytest.mark.parametrize(
        "host", ["gw.example.com", "192.0.2.1", "[2001:db8::1]", "localhost.example.com", "0.0.0.0"]
    )
    def test_http_across_the_network(self, host):
        with pytest.raises(EngineError, match="api_url has to be https, because"):
            api(url=f"http://{host}:80")[0].check()


class TestRequest:
    def test_what_is_sent_and_what_comes_back(self):
        made, peer = api(Response(200, b'{"data": [1]}'))
        made.carry(X_Token="abc")
        assert made.request("POST", "things/1?a=b", b"body", {"Content-Type": "text/plain"}) == {"data": [1]}
        headers = {"Accept": "application/json", "X-Token": "abc", "Content-Type": "text/plain"}
        assert peer.asked == [("POST", "https://gw.example.com:8006/api/things/1?a=b", headers, b"body")]

    @pytest.mark.parametrize(
        ("error", "shown"),
        [
            (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
            (socket.timeout("timed out"), "timed out"),
            (TimeoutError(), "TimeoutError"),
            (http.client.BadStatusLine("SSH-2.0-OpenSSH"), "SSH-2.0-OpenSSH"),
            (http.client.IncompleteRead(b""), "IncompleteRead"),
            (URLError(ConnectionRefusedError(111, "Connection refused")), "[Errno 111] Connection refused"),
            (ValueError(f"Invalid header value {SECRET}"), "Invalid header value ***"),
        ],
    )
    def test_no_answer(self, error, shown):
        text = said(error)
        assert text.startswith(f"The Gateway: GET /api/things got no answer ({shown}")
        assert text.endswith("see whether the API runs and api_url is right")

    @pytest.mark.parametrize(
        "body", [b"", b"<html><h1>It works</h1></html>", b"{", b"[" * 100_000, b"\xff\xfe", b"null", b"NaN x"]
    )
    def test_no_json(self, body):
        assert said(Response(200, body)) == (
            "The Gateway: GET /api/things was answered by something that is not JSON; "
            "see whether api_url is that of the API itself"
        )

    def test_a_certificate_that_is_not_trusted(self):
        error = URLError(
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1006)"
        )
        assert said(error).endswith("name the authority of its certificate in ca_path")

    def test_too_much(self):
        assert "was answered by 16777217 bytes, more than any answer it should give" in said(
            Response(200, b" " * (API_ANSWER_BYTES + 1))
        )

    @pytest.mark.parametrize(
        ("status", "body", "shown"),
        [
            (401, b"", "was answered 401; log in"),
            (302, b"<html>", "was answered 302; it redirects, so give the URL of the API itself in api_url"),
            (404, b"<html>", "was answered 404; see whether api_url is that of the API itself"),
            (500, b"boom", "was answered 500; see the log of the gateway, then run again"),
            (599, b'"text"', "was answered 599; see the log"),
            (400, b'{"message": "bad\\n", "errors": {"policy": "no such\\u001b[31m"}}',
             "was answered 400 (bad; policy: no such [31m)"),
            (204, b"", "was answered 204; see its log"),
            (99, b"", "was answered 99; see its log"),
        ],
    )  # fmt: skip
    def test_another_status(self, status, body, shown):
        assert shown in said(Response(status, body), "PUT").replace("PUT /api/things ", "")

    def test_the_query_is_left_out(self):
        assert "query" not in said(Response(500), path="things?query=1")

    def test_a_secret_within_another(self):
        made, _peer = api()
        made.hide("abc", "abcdef", "def")
        assert made.said({"msg": "abcdef"}) == "***"

    def test_a_secret_at_the_end_of_what_is_shown(self):
        secret = "two  spaces\tand a tab"
        made, _peer = api()
        made.hide(secret)
        for length in range(270, 310):
            shown = made.said({"message": f"{'x' * length}{secret}"})
            assert set(shown) <= {"x", "*"}

    @given(st.text(min_size=4), st.text("abc ", max_size=5))
    def test_whatever_the_secret_is(self, secret, before):
        made, _peer = api()
        made.hide(secret)
        assert secret not in made.said({"message": before + secret}) or secret in before

    @given(st.sampled_from([SECRET, "%73%33", "abc"]), st.text(max_size=5), st.text(max_size=5))
    def test_a_secret_that_comes_back_is_not_shown(self, secret, before, after):
        made, peer = api()
        made.hide(secret)
        for text in (json.dumps({"message": f"{before}{secret}{after}"}), json.dumps({"msg": json.dumps(secret)})):
            peer.answer = Response(400, text.encode())
            with pytest.raises(EngineError) as error:
                made.request("GET", "x")
            shown = str(error.value)
            assert secret not in shown
            assert json.dumps(secret)[1:-1] not in shown

    def test_an_empty_secret_hides_nothing(self):
        made, _peer = api(Response(400, b'{"message": "why"}'))
        made.hide("")
        with pytest.raises(EngineError, match=r"\(why\)"):
            made.request("GET", "x")

    def test_neither_secrets_nor_headers_in_its_representation(self):
        made, _peer = api()
        made.carry(X_Token="abc")
        assert "abc" not in repr(made)
        assert SECRET not in repr(made)


class TestParts:
    @pytest.mark.parametrize(
        ("data", "text"),
        [(None, ""), ([], ""), ({}, ""), ("x", ""), ({"message": None}, ""), ({"message": "a", "msg": ["b", 1]}, "a; ['b', 1]"),
         ({"errors": []}, ""), ({"errors": {"a": "b"}}, "a: b"), ({"message": "x" * 1000}, "x" * 300)],
    )  # fmt: skip
    def test_what_an_error_says(self, data, text):
        assert api()[0].said(data) == text

    def test_other_parts_are_not_told(self):
        assert api()[0].said({"msg": "no", "log": {"password": "hunter2"}}) == "no"

    @pytest.mark.parametrize("value", [1, "1", True, "true", "True"])
    def test_a_switch_that_is_on(self, value):
        assert is_set(value)

    @pytest.mark.parametrize("value", [0, "0", False, None, "", "no", 2, [], "yes", "✔"])
    def test_a_switch_that_is_not(self, value):
        assert not is_set(value)

    @pytest.mark.parametrize(
        "data", [None, {}, {"a": "x"}, "x", 1, [1], [None], [[]], [{}], [{"a": 1}], [{"a": ""}], [{"a": "x\n"}],
                 [{"a": "ü"}], [{"a": "x"}, {"b": "x"}]]
    )  # fmt: skip
    def test_no_rows(self, data):
        with pytest.raises(
            EngineError, match=r"GET /api/things gave no list of entries with a; see whether its version"
        ):
            rows(api()[0], "things", data, "a")

    def test_rows(self):
        assert rows(api()[0], "things", [{"a": "x", "b": None}], "a") == [{"a": "x", "b": None}]
        assert rows(api()[0], "things", [], "a", "b") == []


class Entries:
    """Entries that calls change, with faults to order."""

    def __init__(self, **held):
        self.held = dict(held)
        self.log = []
        self.fails = {}  # (step, name) -> what it raises, after it took effect if the name is in effective
        self.effective = set()
        self.signals = {}  # (step, name) -> the signals that come before it takes effect

    def call(self, name, new):
        old = self.held.get(name, "(none)")
        return Call(name, old, new, lambda: self.set("do", name, new), lambda: self.set("undo", name, old))

    def note(self, step, name=""):
        self.log.append((step, name))
        for number in self.signals.get((step, name), ()):
            os.kill(os.getpid(), number)

    def set(self, step, name, value):
        self.note(step, name)
        error = self.fails.get((step, name))
        if error and name not in self.effective:
            raise error
        self.held[name] = value
        if error:
            raise error

    def prove(self):
        self.note("prove")
        if ("prove", "") in self.fails:
            raise self.fails.pop(("prove", ""))

    def prove_old(self):
        self.note("prove_old")
        if ("prove_old", "") in self.fails:
            raise self.fails[("prove_old", "")]

    def apply(self, **new):
        calls = Calls("the table", tuple(self.call(name, value) for name, value in new.items()))
        CallTransaction().apply(calls, self.prove, self.prove_old)


OLD = {"a": "1", "b": "2", "c": "3"}
NEW = {"a": "4", "b": "5", "c": "6"}


class TestCallTransaction:
    @pytest.mark.parametrize("check_mode", [False, True])
    def test_nothing_is_left_over(self, check_mode):
        with CallTransaction().opened(check_mode) as left_over:
            assert left_over == (False, [])

    def test_in_order_and_proved(self):
        entries = Entries(**OLD)
        entries.apply(**NEW)
        assert entries.held == NEW
        assert entries.log == [("do", "a"), ("do", "b"), ("do", "c"), ("prove", "")]

    @pytest.mark.parametrize("effective", [False, True])
    @pytest.mark.parametrize("error", [EngineError("refused"), OSError("refused")])
    @pytest.mark.parametrize("name", ["a", "b", "c"])
    def test_a_call_that_fails_is_undone_with_those_before(self, name, error, effective):
        entries = Entries(**OLD)
        entries.fails = {("do", name): error}
        entries.effective = {name} if effective else set()
        with pytest.raises(TransactionError) as caught:
            entries.apply(**NEW)
        assert str(caught.value) == "refused. The former state is restored and proved"
        assert caught.value.restored is True
        assert entries.held == OLD
        done = "abc"[: "abc".index(name) + 1]
        assert entries.log == [
            *(("do", one) for one in done),
            *(("undo", one) for one in reversed(done)),
            ("prove_old", ""),
        ]

    def test_a_proof_that_fails(self):
        entries = Entries(**OLD)
        entries.fails = {("prove", ""): EngineError("not there")}
        with pytest.raises(TransactionError, match=r"^not there\. The former state is restored and proved$"):
            entries.apply(**NEW)
        assert entries.held == OLD

    def test_a_fault_of_ours_is_undone_as_well(self):
        entries = Entries(**OLD)
        entries.fails = {("do", "b"): KeyError("oops")}
        with pytest.raises(TransactionError, match=r"^KeyError\('oops'\)\. The former state"):
            entries.apply(**NEW)
        assert entries.held == OLD

    def test_an_interrupt_is_undone_and_passed_on(self):
        entries = Entries(**OLD)
        entries.fails = {("do", "b"): KeyboardInterrupt()}
        with pytest.raises(KeyboardInterrupt):
            entries.apply(**NEW)
        assert entries.held == OLD

    def test_one_that_does_not_come_back(self):
        entries = Entries(**OLD)
        entries.fails = {("do", "c"): EngineError("refused"), ("undo", "b"): EngineError("gone")}
        with pytest.raises(TransactionError) as caught:
            entries.apply(**NEW)
        assert str(caught.value) == (
            "refused. The rollback failed as well: b, which was 2: gone. Look at these entries on the gateway"
        )
        assert caught.value.restored is False
        assert entries.held == {**OLD, "b": "5"}
        assert ("prove_old", "") not in entries.log

    def test_an_interrupt_that_cannot_be_undone(self):
        entries = Entries(**OLD)
        entries.fails = {("do", "a"): KeyboardInterrupt(), ("undo", "a"): OSError("gone")}
        with pytest.raises(TransactionError, match="The rollback failed as well: a, which was 1: gone"):
            entries.apply(**NEW)

    def test_an_old_state_that_is_not_proved(self):
        entries = Entries(**OLD)
        entries.fails = {("do", "a"): EngineError("refused"), ("prove_old", ""): EngineError("b is 9")}
        with pytest.raises(TransactionError) as caught:
            entries.apply(**NEW)
        assert str(caught.value) == (
            "refused. The rollback failed as well: b is 9. Look at these entries on the gateway"
        )
        assert caught.value.restored is False


ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

CHILD = """
import json, sys, time
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
from tests.unit.plugins.module_utils._change.test_api import NEW, Entries
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import TransactionError

table = Path(sys.argv[2])

class Kept(Entries):
    def set(self, *what):
        super().set(*what)
        table.write_text(json.dumps(self.held))

    def prove(self):
        table.with_name("waiting").touch()
        time.sleep(60)

try:
    Kept(**json.loads(table.read_text())).apply(**NEW)
except TransactionError as error:
    print(error, error.restored)
"""


class TestSignals:
    @pytest.fixture(autouse=True)
    def _count_late_signals(self, late):
        """Each test here looks whether the handlers are given back."""

    @staticmethod
    def stopped(entries, number):
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                entries.apply(**NEW)
        else:
            with pytest.raises(TransactionError) as caught:
                entries.apply(**NEW)
            assert str(caught.value) == f"stopped by {number.name}. The former state is restored and proved"
            assert caught.value.restored is True
            assert isinstance(caught.value.__cause__, Stopped)
        assert entries.held == OLD
        assert entries.log[-1] == ("prove_old", "")

    @pytest.mark.parametrize("number", ENDING)
    def test_one_during_a_call_waits_until_it_is_answered(self, late, number):
        """A request that is given up may take effect after the look that its opposite begins with."""
        entries = Entries(**OLD)
        entries.signals = {("do", "b"): [number]}
        self.stopped(entries, number)
        assert entries.log == [("do", "a"), ("do", "b"), ("undo", "b"), ("undo", "a"), ("prove_old", "")]
        assert late == []

    @pytest.mark.parametrize("number", ENDING)
    def test_one_during_the_last_call_keeps_the_proof_from_being_begun(self, late, number):
        entries = Entries(**OLD)
        entries.signals = {("do", "c"): [number]}
        self.stopped(entries, number)
        assert ("prove", "") not in entries.log
        assert late == []

    @pytest.mark.parametrize("number", ENDING)
    def test_one_during_the_proof_ends_it(self, late, number):
        entries = Entries(**OLD)
        entries.signals = {("prove", ""): [number]}
        entries.fails = {("prove", ""): EngineError("it went on")}
        self.stopped(entries, number)
        assert late == []

    @pytest.mark.parametrize("step", [("undo", "c"), ("undo", "a"), ("prove_old", "")])
    @pytest.mark.parametrize("number", ENDING)
    def test_a_second_one_does_not_cut_off_what_is_undone(self, late, step, number):
        entries = Entries(**OLD)
        entries.signals = {("prove", ""): [signal.SIGHUP], step: [number, number]}
        self.stopped(entries, signal.SIGHUP)
        assert late == []

    def test_one_that_is_ignored_stays_ignored(self):
        note = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            entries = Entries(**OLD)
            entries.signals = {("do", "a"): [signal.SIGHUP], ("prove", ""): [signal.SIGHUP]}
            entries.apply(**NEW)
            assert entries.held == NEW
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, note)

    def test_one_and_an_entry_that_does_not_come_back(self):
        entries = Entries(**OLD)
        entries.signals = {("do", "b"): [signal.SIGTERM]}
        entries.fails = {("undo", "a"): EngineError("gone")}
        with pytest.raises(
            TransactionError, match=r"^stopped by SIGTERM\. The rollback failed as well: a, which was 1: gone"
        ):
            entries.apply(**NEW)

    @pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
    def test_a_process_that_is_told_to_end_restores_first(self, tmp_path, number):
        table = tmp_path / "table"
        table.write_text(json.dumps(OLD))
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, json.dumps(sys.path), str(table)],
            cwd=Path(__file__).parents[5],
            stdout=subprocess.PIPE,
        )
        deadline = time.monotonic() + 30
        while not (tmp_path / "waiting").exists():
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        assert json.loads(table.read_text()) == NEW
        child.send_signal(number)
        with at_most(30):
            out, _err = child.communicate()
        assert out.decode() == f"stopped by {number.name}. The former state is restored and proved True\n"
        assert json.loads(table.read_text()) == OLD


class TestCalls:
    def test_none(self):
        assert not Calls("the table")
        assert Calls("the table").diff() == []

    def test_before_and_after_of_each(self):
        entries = Entries(a="1")
        calls = Calls("the table", (entries.call("a", "2"), entries.call("b", "3")))
        assert calls
        assert calls.diff() == [
            {"prepared": "--- before: the table\n+++ after: the table\n-a 1\n+a 2\n-b (none)\n+b 3\n"}
        ]
        assert "lambda" not in repr(calls)
