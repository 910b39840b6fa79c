"""What is fuzzed: each target takes any bytes and fails on an exception that is not the code's own, or on excess.

Everything that a peer can send goes through one of these; readers.py has what is read of other strangers. The same
targets serve pytest (Hypothesis makes the bytes) and `run` (atheris does, guided by the coverage).
"""

from __future__ import annotations

import contextlib
import functools
import json
import ssl
from collections.abc import Callable, Iterator

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import TLS_USAGES
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.x509 import of_answers
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import (
    MAX_LINES,
    MAX_REPLY,
    MAX_REPLY_LINE,
    PORTS,
    Dialogue,
    DialogueError,
    InjectionDialogue,
    Reply,
    ReplyReader,
    Stage,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.envelope import EnvelopeDialogue
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    DialogueSession,
    Settings,
    make_context,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.hello import (
    MAX_CERTIFICATES,
    MAX_FLIGHT,
    HelloError,
    ServerFlight,
    client_hello,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.raw_session import SurveySession, VersionSession
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, TargetError
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.received import parse_received, path_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    CertificateError,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.policy import covers
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.mta_sts import (
    PolicyError,
    parse_policy,
    parse_record,
)

from tests.fuzz.readers import CUT, READERS
from tests.support.flight import group_of

GREETING = b"220 mx.example.com ESMTP\r\n"
EHLO = b"250-mx.example.com\r\n250 STARTTLS\r\n"
READY = b"220 2.0.0 Ready\r\n"
MAX_SHOWN = 2000
"""Characters that one text about a peer may have."""


class Script:
    """Bytes as a list of decisions, and of pieces as a socket would deliver them."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def choose(self, options: int) -> int:
        """A number below options."""
        byte = self._data[self._at] if self._at < len(self._data) else 0
        self._at += 1
        return byte % options

    def rest(self) -> bytes:
        """All that was not used yet."""
        return self._data[self._at :]

    def pieces(self, size: int) -> Iterator[bytes]:
        """The rest, cut: a piece may be larger than what a socket gives at once, and may be empty."""
        data = self.rest()
        yield from (data[at : at + size] for at in range(0, len(data), size)) if size else (data,)


def check_reply(reply: Reply) -> None:
    """A reply has a code, and lines that can be shown, in bounds."""
    assert 0 <= reply.code <= 999
    assert 1 <= len(reply.lines) <= MAX_LINES
    for line in reply.lines:
        assert line.isascii() and line.isprintable()
        assert len(line) <= MAX_SHOWN


def check_error(error: DialogueError) -> None:
    """A refusal has a code for programs and a text that can be shown."""
    assert error.code.replace("_", "").isalnum()
    text = str(error)
    assert text and text.isprintable() and text.isascii()


def all_replies(pieces: list[bytes]) -> tuple[list[Reply], str]:
    """The replies that come out of the pieces, and the code of what ended them."""
    reader, replies = ReplyReader(), []
    for piece in pieces:
        reader.feed(piece)
        try:
            while (reply := reader.next_reply()) is not None:
                check_reply(reply)
                replies.append(reply)
        except DialogueError as error:
            check_error(error)
            return replies, error.code
        assert len(reader.rest) <= MAX_REPLY_LINE
        assert reader._size <= MAX_REPLY + MAX_REPLY_LINE
    return replies, ""


def replies(data: bytes) -> None:
    """However a stream is cut, the same replies come out of it."""
    script = Script(data)
    size = 1 + script.choose(64)
    assert all_replies(list(script.pieces(size))) == all_replies([script.rest()])


def dialogue(data: bytes) -> None:
    """A dialogue goes on, ends, or refuses; it never goes back a stage and never grows."""
    script = Script(data)
    protocol = list(PORTS)[script.choose(len(PORTS))]
    kind = script.choose(3)
    talk = InjectionDialogue("c.example", protocol) if kind == 2 else Dialogue("c.example", kind == 1, protocol)
    stage, size = talk.stage, script.choose(256)
    try:
        for piece in script.pieces(size):
            if talk.wants_tls:
                talk.tls_started()
            talk.receive(piece)
            said = talk.take_output()
            assert len(said) < 200 and (not said or said.endswith(b"\r\n"))
            assert talk.stage >= stage
            stage = talk.stage
            assert len(talk._reader.rest) <= max(MAX_REPLY_LINE, len(piece))
            assert len(talk.capabilities) <= MAX_LINES and len(talk.capabilities_tls) <= MAX_LINES
    except DialogueError as error:
        check_error(error)
        assert not talk.done
        if isinstance(talk, InjectionDialogue):
            talk.injected(error)
    if talk.done and kind != 2:
        assert talk.stage is Stage.EHLO_TLS


def envelope(data: bytes) -> None:
    """Whatever a server answers inside TLS: RCPT comes after MAIL, nothing after RSET but QUIT, and never DATA."""
    script = Script(data)
    talk = EnvelopeDialogue("c.example", "a@b.example", "c@d.example")
    size, said = script.choose(256), b""
    try:
        for piece in script.pieces(size):
            if talk.wants_tls:
                talk.tls_started()
            talk.receive(piece)
            said += talk.take_output()
    except DialogueError as error:
        check_error(error)
    if talk.answer:
        check_reply(talk.answer)
    inside = said.split(b"STARTTLS\r\n")[-1].splitlines() if talk.stage >= Stage.TLS else []
    whole = [b"EHLO c.example", b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>", b"RSET", b"QUIT"]
    assert inside in ([], *(whole[:end] for end in range(1, 6)), whole[:2] + whole[4:], whole[:3] + whole[4:])


def all_flight(pieces: list[bytes]) -> tuple[object, ...]:
    """What a flight says after the pieces, and how it ended."""
    flight, code = ServerFlight(bytes(32)), ""
    for piece in pieces:
        try:
            flight.feed(piece)
        except HelloError as error:
            code = error.code
            assert str(error).isprintable()
            break
        assert len(flight._records) + len(flight._messages) <= 2 * MAX_FLIGHT + len(piece)
    assert len(flight.chain) <= MAX_CERTIFICATES
    assert sum(map(len, flight.chain)) <= MAX_FLIGHT
    for text in (flight.version, flight.cipher, flight.group, flight.signature_algorithm, flight.alert):
        assert text.isascii() and text.isprintable() and len(text) < 60
    return (
        flight.version, flight.cipher, flight.group, flight.chain, flight.key_exchange, flight.alert, flight.complete, code,
    )  # fmt: skip


def flight(data: bytes) -> None:
    """However a server's flight is cut, it says the same."""
    script = Script(data)
    size = 1 + script.choose(64)
    assert all_flight(list(script.pieces(size))) == all_flight([script.rest()])
    assert group_of(script.rest()).isascii()


@functools.cache
def context() -> ssl.SSLContext:
    """The context of a test that trusts anything."""
    return make_context(None, verify=False)


def tls(data: bytes) -> None:
    """A whole session whose peer says anything in place of TLS, or of what comes before it."""
    script = Script(data)
    target = Target("mx.example.com", protocol=list(PORTS)[script.choose(len(PORTS))])
    settings = Settings(helo_name="c.example")
    session = (
        DialogueSession(target, settings, context()),
        VersionSession(target, settings, "TLSv1.2"),
        VersionSession(target, settings, "TLSv1.3"),
        SurveySession(target, settings),
    )[script.choose(4)]
    error = None
    try:
        # Most of the time as far as TLS, in the way of a good server.
        for piece in (GREETING, EHLO, READY) if script.choose(4) and target.protocol != "smtps" else ():
            session.receive(piece)
        for piece in script.pieces(1 + script.choose(255)):
            if session.finished:
                break
            said = session.receive(piece)
            assert len(said) < 4096
    except DialogueError as caught:
        error = caught
        check_error(caught)
    result = session.result(1.0, error)
    assert not getattr(result, "completed", False)  # no one can guess a handshake


def received(data: bytes) -> None:
    """A Received header is whatever a peer likes."""
    text = data.decode("utf-8", "surrogateescape") if data[:1] < b"\x80" else data.decode("latin-1")
    hop = parse_received(text)
    for value in (hop.by, hop.from_host, hop.protocol, hop.tls_version, hop.cipher, hop.date):
        assert len(value) <= MAX_SHOWN
    assert hop.tls or not (hop.tls_version or hop.cipher)
    assert path_of([text]).to_dict()["hops"]


def target(data: bytes) -> None:
    """What is no target is refused, and what is one holds nothing but what it should."""
    text = data.decode("utf-8", "replace")
    try:
        parsed = Target.parse(text)
    except TargetError:
        return
    assert parsed.host.isascii() and parsed.host.isprintable() and " " not in parsed.host
    assert 0 < parsed.port < 65536
    try:
        client_hello(("TLSv1.2",), parsed.server_name)
    except HelloError as error:
        assert error.code == "bad_name"


def certificate(data: bytes) -> None:
    """What a peer serves for a certificate is one, whose facts can be shown, or is refused."""
    try:
        parsed = Certificate.load(data)
        facts = parsed.describe()
    except CertificateError as error:
        assert str(error).isprintable()
        return
    for name in ("mx.example.com", "192.0.2.1", "2001:db8::1", "b\u00fccher.example"):
        assert covers(parsed, name) in (True, False)
    json.dumps(facts)
    for text in (facts["subject"], facts["issuer"], facts["common_name"] or "", *facts["sans"]):
        assert text.isprintable()


def openssl_answer(data: bytes) -> None:
    """Whatever openssl prints of a stranger's certificate, a host has its facts, or refuses it."""
    said, _cut, shown = data.decode("utf-8", "replace").partition(CUT.decode())
    try:
        host = of_answers(CUT, said, shown)
    except (ValueError, OverflowError):
        return
    assert all(one.isprintable() for one in (host.subject, host.issuer, host.common_name or "", *host.sans))
    assert host.key_usage is None or host.key_usage <= {
        *TLS_USAGES,
        "content_commitment",
        "data_encipherment",
        "key_cert_sign",
        "crl_sign",
    }


def policy(data: bytes) -> None:
    """An MTA-STS policy or record has a mode and patterns, or is refused."""
    try:
        found = parse_policy(data)
        assert found.mode in ("enforce", "testing", "none")
        assert found.allows("mx.example.com") in (True, False)
    except PolicyError as error:
        assert str(error).isprintable()
    with contextlib.suppress(PolicyError):
        assert parse_record(data.decode("latin-1")).isalnum()


TARGETS: dict[str, Callable[[bytes], None]] = {
    **{
        one.__name__: one
        for one in (replies, dialogue, envelope, flight, tls, received, target, certificate, openssl_answer, policy)
    },
    **READERS,
}
