"""Every reader of what strangers send, and the worst that a search finds for it: none needs more than linear time."""

from __future__ import annotations

import base64
import contextlib
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import Clock, Tally
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.api import Api, Response
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.daemon import SESSION as EXIM_SESSION
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log import EximLog
from ansible_collections.mailfleet.starttls.plugins.module_utils._haraka.gateway import Ini
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.arrival_policy import answers
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.log import PostfixLog, Visibility
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.server import _SESSION as POSTFIX_SESSION
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp import probe
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import DialogueError, ReplyReader
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.hello import HelloError, ServerFlight
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.received import path_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns import mta_sts
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import read_result
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report import document, tls_rpt

from tests.support.growth import cpu_seconds
from tests.support.report_rows import NOW, tls_report

SMALL, LARGE = 1_000, 8_000
SLOW = 0.006
"""CPU seconds for LARGE bytes. Faster ones are not looked at again."""
GROWTH = 24.0
"""For eight times the input: 8 is linear, 64 is quadratic."""
MOST = 2.0

EXPECTED = (ValueError, EngineError, mta_sts.FetchError, DialogueError, HelloError, tls_rpt.TlsReportError)
SEEN = {b"": Visibility(outbound_level=1)}


def log_reader(make: Callable[[], Any], head: bytes) -> Callable[[bytes], Any]:
    return lambda data: make().feed([head + line for line in data.split(b"\n")], Clock(1767225600.0))


def an_api(data: bytes) -> None:
    api = Api(lambda *_request: Response(400, data), "A", "https://a.example", "/", {})
    api.hide("secret" * 3)
    api.request("GET", "x")


def flight(data: bytes) -> None:
    reader = ServerFlight(bytes(32))
    for at in range(0, len(data), 7):
        reader.feed(data[at : at + 7])


def replies(data: bytes) -> None:
    reader = ReplyReader()
    for at in range(0, len(data), 7):
        reader.feed(data[at : at + 7])
        while reader.next_reply() is not None:
            pass


def tls_mail(data: bytes) -> None:
    for one in tls_rpt._documents(data):
        tls_rpt.parse(one, NOW)


def a_report(data: bytes) -> None:
    report = tls_report()
    text = data.decode("latin-1")
    report["policies"][0]["policy"]["policy-domain"] = text[:10_000]
    detail = {"result-type": text[-50:], "failed-session-count": 1}
    report["policies"][0]["failure-details"] = [detail] * (len(text) // 50)
    tls_rpt.parse(json.dumps(report).encode(), NOW)


def packed(data: bytes) -> None:
    probe.unpack(base64.b64encode(zlib.compress(data)).decode(), len(data) // 100)


def text(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
    return lambda data: read(data.decode("latin-1"))


POSTFIX_HEAD = b"2026-01-01T00:00:00.000000+00:00 gw1 postfix/smtpd[7]: "
EXIM_HEAD = b"2026-01-01 00:00:00 1vaQzL-000000002Xe-0aBc "
GZIP = gzip.compress(b"{}")

READERS: dict[str, tuple[Callable[[bytes], Any], tuple[bytes, ...]]] = {
    "mail with a TLS report": (
        tls_mail,
        (
            b"Content-Type: multipart/mixed; boundary=b\n\n", b"--b\n", b'Content-Disposition: attachment; filename="', b";", b"\n ",
            b"Content-Type: message/rfc822\n\n", b"Content-Type: message/delivery-status\n\n", b"x:y\n", b'\\"', b"=?utf-8?q?",
        ),
    ),
    "gzip": (tls_rpt.inflate, (GZIP, gzip.compress(b""), GZIP[:10], b"\0")),
    "TLS report": (a_report, (b"certificate-expired", b"\xe9", b".")),
    "JSON of a TLS report": (text(lambda one: tls_rpt.parse(one.encode(), NOW)), (b"[", b'{"a":', b"9", b'"\\u0041', b"1.5e", b",")),
    "MTA-STS policy": (mta_sts.parse_policy, (b"version: STSv1\n", b"mx: ", b"mx: a.b\n", b"a" * 30 + b":", b"\r", b"mode:")),
    "MTA-STS record": (text(mta_sts.parse_record), (b"v=STSv1;", b"id=1;", b"a=", b"; ")),
    "HTTP answer": (
        lambda data: (mta_sts._is_whole(data), mta_sts._body(data)),
        (b"HTTP/1.1 200 OK\r\n", b"Content-Type: text/plain; a=", b"\r\n\r\n", b"1\r\nx\r\n", b"Transfer-Encoding: chunked", b";"),
    ),
    "Received header": (text(lambda one: path_of([one])), (b"from a by b ", b"(", b" (using TLS", b"(TLSa:", b"by ", b" id a ", b")")),
    "PEM": (text(pem.split), (b"-----BEGIN A-----\n", b"-----END A-----\n", b"-----BEGIN ", b"\r", b"AAAA\n", b"-")),
    "Postfix log": (
        log_reader(lambda: PostfixLog(Tally(10), 0.0, 2e9, SEEN), POSTFIX_HEAD),
        (
            b"disconnect from a[192.0.2.7]", b" ehlo=1", b"connect from a[192.0.2.7]\n", b"SSL_accept error from a[192.0.2.7]: ",
            b"NOQUEUE: reject: RCPT from a[192.0.2.7]: 450 4.7.0 <", b"warning: TLS library problem: ", b"ABCDEF: client=a[192.0.2.7]\n",
        ),
    ),
    "Exim log": (
        log_reader(lambda: EximLog(Tally(10), 0.0, 2e9), EXIM_HEAD),
        (b"<= a@b H=", b"(a) ", b'"\\', b"=> a@b R=r T=t H=a [192.0.2.7]", b" DT=1", b"TLS error on connection from (", b"** a@b: "),
    ),
    "lines of Exim for the log's rate": (text(EXIM_SESSION.search), (b" <= ", b" H", b" <= a H")),
    "lines of Postfix for the log's rate": (text(POSTFIX_SESSION.search), (b"/smtpd[1", b"/smtpd[7]: connect", b"/postscreen[")),
    "SMTP replies": (replies, (b"250-a\r\n", b"250 a\r\n", b"2", b"\r", b"250-")),
    "TLS flight": (flight, (b"\x16\x03\x03\x00\x01\x0b", b"\x16\x03\x03\x00\x00", b"\x15\x03\x03\x00\x02\x01\x00")),
    "answer of an API": (an_api, (b'{"message": "', b'{"errors": {', b"secret", b"[", b"9", b'"a": "b",')),
    "packed results": (packed, (b"R0 {}\n", b"R1 [\n", b"C\n", b"CAAAA\n", b"R9")),
    "former report": (document.load_previous, (b'{"version": 1, "hosts": [', b"[", b"9", b'{"a":', b",")),
    "Haraka's settings": (text(Ini.parse), (b"[a]\n", b"a=", b"a[]=b\n", b"\\\n", b"; ", b"= ")),
    "what a host says": (
        text(lambda one: read_result({"failed": True, "msg": one, "module_stderr": one, "module_stdout": one})),
        (b"python", b"interpreter", b"missing sudo", b"MODULE FAILURE", b"Name or service"),
    ),
    "policy requests": (
        text(lambda one: list(answers(one.split("\n"), "OVER", "", {"a.test"}))),
        (b"request=smtpd_access_policy\n", b"sender=", b"@", b"%", b"!", b"\n\n"),
    ),
}  # fmt: skip
"""Reader -> how it reads bytes, and pieces of its grammar from which inputs are made."""

ANY = (b" ", b"a", b"0", b"\n", b"\0", b"(", b'"', b"a ", b"\xe9", b"\xff")


def shapes(pieces: tuple[bytes, ...], size: int, pairs: bool) -> Iterator[bytes]:
    """A beginning, a piece again and again, and an end. pairs: also two pieces in turn, and no end."""
    both = [one + other for one, other in itertools.permutations(pieces, 2)] if pairs else []
    for head, unit, tail in itertools.product((b"", *pieces), (*pieces, *ANY, *both), (b"\n\n!", b"")[: 1 + pairs]):
        yield head + unit * (size // len(unit)) + tail


def run(read: Callable[[bytes], Any], data: bytes) -> float:
    def once() -> None:
        with contextlib.suppress(*EXPECTED):
            read(data)

    return cpu_seconds(once, MOST)


def worst(read: Callable[[bytes], Any], pieces: tuple[bytes, ...], pairs: bool = False) -> tuple[float, str]:
    """The largest growth among the shapes that take long, and the shape."""
    found = (0.0, "")
    for small, large in zip(shapes(pieces, SMALL, pairs), shapes(pieces, LARGE, pairs)):
        if run(read, large) < SLOW:
            continue
        long = min(run(read, large) for _ in range(2))
        if long >= MOST:
            return GROWTH + 1, repr(large[:60])
        if long >= SLOW:
            short = min(run(read, small) for _ in range(3))
            found = max(found, (long / max(short, 1e-5), repr(large[:60])))
    return found


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_grows_faster_than_its_input(reader: str):
    times, shape = worst(*READERS[reader])
    assert times <= GROWTH, shape


@pytest.mark.exhaustive
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_grows_faster_than_two_pieces_in_turn(reader: str):
    times, shape = worst(*READERS[reader], pairs=True)
    assert times <= GROWTH, shape


def test_the_search_finds_what_grows():
    bad = re.compile(rb"a\s*(.*?)\s*\Z", re.DOTALL)
    assert worst(bad.match, (b"ax", b" "))[0] > GROWTH
    assert worst(lambda data: data.count(b"a"), (b"a", b"b"))[0] <= GROWTH
