"""What is fuzzed besides the wire: logs, mail, reports, the DNS, IMAP, APIs, what programs and the kernel print, results of hosts.

Each target takes any bytes, as those of targets.py do. Where a reader asks several times, the bytes are cut at CUT.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import imaplib
import io
import json
import random
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import dns.asyncresolver
import dns.message
import dns.nameserver
import dns.query
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import Clock, Tally, iso
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem as pem_reader
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.api import Response
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import observe as exim_observe
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import plain_text
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.config import Printed
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log import EximLog
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.queue import EximQueue
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.record import load
from ansible_collections.mailfleet.starttls.plugins.module_utils._haraka.gateway import Ini
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_rate import sessions_an_hour
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.sockets import listening
from ansible_collections.mailfleet.starttls.plugins.module_utils._mailcow.gateway import MailcowGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import observe as postfix_observe
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.arrival_policy import answers
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.log import PostfixLog
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.queue import PostfixQueue
from ansible_collections.mailfleet.starttls.plugins.module_utils._proxmox.gateway import ProxmoxGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.waiting_mail import read_waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace import imap as imap_reader
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.mailbox import LocalMailbox, received_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import POLICY_BYTES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import CheckedInputs
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.issued import _checked_request, judged
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.pkcs12 import unpacked
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns import dane, mta_sts
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.lookups import Resolver
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import read_result
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.probe_results import Inquiry, complete_result
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report import document, tls_rpt

CUT = b"\x1e"
BEGIN, END = 1767225600.0, 1767312000.0
"""2026-01-01 and the day after it, in seconds since 1970."""


@functools.cache
def place() -> Path:
    """A directory for readers that want a file."""
    kept = tempfile.TemporaryDirectory(prefix="mailfleet-fuzz-")
    place.kept = kept  # type: ignore[attr-defined]  (it is removed when the process ends)
    return Path(kept.name)


def shows(text: str) -> None:
    """An error that a user sees is one text that a terminal can show, without a control character."""
    assert text and not any(ord(char) < 32 and char not in "\n\t" for char in text), text


@contextlib.contextmanager
def refusing(*kinds: type[Exception]) -> Iterator[None]:
    """A refusal is right, if it can be shown."""
    try:
        yield
    except kinds as error:
        shows(str(error))


def some_json(data: bytes) -> Any:
    """The value that a JSON text stands for; None if it is none. Results of hosts were JSON before."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def counted(make: Callable[[Tally], Any], data: bytes) -> None:
    """Whatever lines a log has, the counts of them are plain data."""
    tally = Tally(5)
    adapter = make(tally)
    clock = Clock(END)
    for lines in (part.split(b"\n") for part in data.split(CUT)):
        adapter.feed(lines, clock)
    adapter.finish()
    made = {
        "totals": tally.result(),
        "notes": [one.to_dict() for one in adapter.notes()],
        "skipped": adapter.skipped_lines,
    }
    text = json.dumps(made)
    assert len(text) < 20_000 + 40 * len(data)
    if adapter.first is not None:
        iso(adapter.first)


def postfix_log(data: bytes) -> None:
    """What a peer says gets into Postfix's log."""
    counted(lambda tally: PostfixLog(tally, BEGIN, END, {}), data)


def exim_log(data: bytes) -> None:
    """What a peer says gets into Exim's log."""
    counted(lambda tally: EximLog(tally, BEGIN, END), data)


def log_rate(data: bytes) -> None:
    """The rate of a log that anybody may write to."""
    path = place() / "log"
    path.write_bytes(data)
    rate = sessions_an_hour([str(path)], re.compile("connect from"), END)
    assert rate is None or rate >= 0


def tls_report(data: bytes) -> None:
    """A TLS report is a mail from anybody."""
    path = place() / "report"
    path.write_bytes(data)
    entries, problems = tls_rpt.read_reports([str(path)], ["alpha.test"])
    json.dumps(entries)
    for problem in problems:
        shows(problem)
        assert len(problem) < 1000


def policy_answer(data: bytes) -> None:
    """An HTTPS server of a stranger answers with a policy or with anything."""
    mta_sts._is_whole(data)
    with refusing(mta_sts.FetchError):
        assert len(mta_sts._body(data)) <= POLICY_BYTES


class Canned(dns.nameserver.Nameserver):
    """A name server that gives these answers in turn, each with the number of the question and the question itself."""

    def __init__(self, wires: Sequence[bytes]) -> None:
        super().__init__()
        self._wires = list(wires) or [b""]
        self._at = 0

    def __str__(self) -> str:
        return "canned"

    def kind(self) -> str:
        return "canned"

    def is_always_max_size(self) -> bool:
        return False

    def answer_nameserver(self) -> str:
        return "192.0.2.53"

    def answer_port(self) -> int:
        return 53

    async def async_query(self, request: Any, *_more: Any, **_options: Any) -> Any:
        wire = self._wires[self._at % len(self._wires)]
        self._at += 1
        response = dns.message.from_wire(request.id.to_bytes(2, "big") + wire[2:])
        response.question = request.question
        if not request.is_response(response):
            raise dns.query.BadResponse
        return response


class Web:
    """A web server for policies that has none."""

    async def fetch(self, _host: str, _addresses: Sequence[str]) -> bytes:
        raise mta_sts.FetchError("no")


def dns_answer(data: bytes) -> None:
    """A partner's DNS answers with anything."""
    resolver = Resolver(["192.0.2.53"], lifetime=0.05)
    resolver._resolver.nameservers = [Canned(data.split(CUT))]

    async def ask() -> None:
        found = await dane.look_up(resolver, "mx.example.com", 25)
        for text in (*found.shown, found.failure):
            assert text.isprintable()
        policy = await mta_sts.look_up(resolver, Web(), "example.com")  # type: ignore[arg-type]
        assert policy.status in ("none", "invalid", "failed", "found")

    asyncio.run(ask())


class Wire:
    """A socket whose other side has said all of this."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_mode: Any, **_options: Any) -> io.BytesIO:
        return io.BytesIO(self._data)

    def recv(self, size: int) -> bytes:
        return self._data[:size]

    def gettimeout(self) -> float:
        return 5.0

    def sendall(self, _data: bytes) -> None: ...

    def shutdown(self, _how: int) -> None: ...

    def close(self) -> None: ...


class NoTimer:
    """The time limit of a look is not what is tried here, and a thread for each example is too many."""

    daemon = False

    def __init__(self, _seconds: float, _work: Callable[[], None]) -> None: ...

    def start(self) -> None: ...

    def cancel(self) -> None: ...


TAG = "TAG"
"""In a seed: the tag of imaplib, which is random."""


def imap(data: bytes) -> None:
    """An IMAP server says anything, from its greeting on."""
    random.seed(0)
    tag = imaplib.Int2AP(random.Random(0).randint(4096, 65535))
    said = data.replace(TAG.encode(), tag)
    mailbox = imap_reader.ImapMailbox(imap_reader.ImapPlace("127.0.0.1", "user", "secret-word", tls=imap_reader.NONE))
    with (
        mock.patch.object(imap_reader._Limited, "_create_socket", lambda _self, _timeout: Wire(said)),
        mock.patch.object(imap_reader.threading, "Timer", NoTimer),
    ):
        try:
            for marker, received in mailbox.look(["in-1", "in-2"]).items():
                assert marker in ("in-1", "in-2") and all(isinstance(one, str) for one in received)
                mailbox.delete(marker)
        except EngineError as error:
            shows(str(error))
            assert "secret-word" not in str(error) or b"secret-word" not in data
        finally:
            mailbox.close()


def mailbox(data: bytes) -> None:
    """A mailbox holds the mail of anybody."""
    path = place() / "mbox"
    path.write_bytes(data)
    found = LocalMailbox(str(path))
    with refusing(EngineError):
        found.look(["in-1"])
    found.close()
    received_of(data)


def api(data: bytes) -> None:
    """A gateway with an API answers with anything."""
    for make in (
        lambda http: ProxmoxGateway(http, Settings(), "https://gw.example:8006", "root@pam", "secret-word"),
        lambda http: MailcowGateway(http, Settings(), "https://gw.example", "secret-word"),
    ):
        bodies = iter(data.split(CUT))
        last = [b""]

        def http(*_request: Any, bodies: Iterator[bytes] = bodies, last: list[bytes] = last) -> Response:
            last[0] = next(bodies, last[0])
            return Response(200, last[0])

        gateway = make(http)
        try:
            gateway.require_running()
            held = gateway.holdings()
            gateway.policies()
            assert all(isinstance(one, str) for one in held.domains)
        except EngineError as error:
            shows(str(error))
            assert "secret-word" not in str(error)


def _runner(data: bytes) -> Callable[[Sequence[str]], tuple[int, str, str]]:
    outputs = data.decode("utf-8", "surrogateescape").split(CUT.decode())

    def run(words: Sequence[str]) -> tuple[int, str, str]:
        return 0, outputs[len(words) % len(outputs) if "-M" not in words else -1], ""

    return run


def postconf(data: bytes) -> None:
    """What postconf prints comes from files that anybody may have edited."""
    with refusing(EngineError):
        json.dumps(postfix_observe.observe(Postconf(_runner(data))), default=str)


def exim_printed(data: bytes) -> None:
    """What exim4 -bP prints comes from files that anybody may have edited."""
    printed = Printed(_runner(data))
    with refusing(EngineError):
        json.dumps(exim_observe.observe(printed, str(place() / "no.pid"), {}, False), default=str)


def exim_plain(data: bytes) -> None:
    """A configuration file that somebody wrote by hand: an edit comes off again byte by byte, and sets each option once."""
    text = data.decode("utf-8", "surrogateescape")
    list(plain_text.read(text))
    with refusing(EngineError):
        bare = plain_text.without_marks(text, "/etc/exim.conf")
        transports = [place for place, options in plain_text.assigned(bare).items() if place and "driver" in options]
        edits = {"": plain_text.Edit({"tls_certificate": "/x.pem"}, ("tls_advertise_hosts",))}
        edits.update((one, plain_text.Edit({"hosts_require_tls": "*"}, ("hosts_avoid_tls",))) for one in transports)
        new = plain_text.edited(bare, edits, "/etc/exim.conf")
        assert plain_text.without_marks(new, "/etc/exim.conf") == bare
        assert plain_text.marked(new)[""] == {"tls_certificate": "/x.pem"}
        for place, options in plain_text.assigned(new).items():
            if place in edits:
                assert all(len(options.get(name, ())) <= 1 for name in edits[place].names)
                assert not set(edits[place].gone) & set(options)


def exim_queue(data: bytes) -> None:
    """What exim4 -bp and the logs of messages say: senders, servers and the daemon in one text."""
    listed, log, dumped, routed = (data.decode("utf-8", "surrogateescape").split(CUT.decode()) + [""] * 4)[:4]
    answers = {"-bpc": "1", "-bp": listed, "-Mvl": log, "-bt": routed}
    reader = EximQueue(lambda words: (0, dumped if words[0] == "exim_dumpdb" else answers[words[1]], ""))
    with refusing(EngineError):
        shown = json.dumps(read_waiting(reader))
        assert shown.isprintable()


def postfix_queue(data: bytes) -> None:
    """What postqueue -j says: senders, servers and the daemon in one text."""
    text = data.decode("utf-8", "surrogateescape")
    reader = PostfixQueue(lambda words: (0, text if words[-1] == "-j" else "queue_directory = /none\n", ""))
    with refusing(EngineError):
        shown = json.dumps(read_waiting(reader))
        assert shown.isprintable()


def haraka_ini(data: bytes) -> None:
    """Haraka's files belong to the service's user."""
    ini = Ini.parse(data.decode("utf-8", "surrogateescape"))
    assert ini.is_true("main", "rejectUnauthorized") in (True, False)
    for name in ("force_tls_hosts", "no_tls_hosts"):
        assert all(isinstance(one, str) for one in ini.hosts(name))


def sockets(data: bytes) -> None:
    """The kernel's table of sockets, cut or odd in a container."""
    proc = place() / "proc"
    (proc / "net").mkdir(parents=True, exist_ok=True)
    (proc / "net/tcp").write_bytes(data)
    for one in listening(["master"], proc=str(proc)) or ():
        assert one.port >= 0


def policy_request(data: bytes) -> None:
    """The policy service gets what a client of Postfix said."""
    lines = io.StringIO(data.decode("utf-8", "surrogateescape"), newline="\n")
    for answer in answers(lines, "over", "enforced", {"bank.example"}):
        assert answer.startswith("action=") and answer.endswith("\n\n") and answer.count("\n") == 2


def pem(data: bytes) -> None:
    """A certificate file of a host."""
    with refusing(pem_reader.PemError):
        assert len(pem_reader.certificates(pem_reader.split(data))) <= len(data)


class _Daemon:
    name = "fuzz"
    reads_files_unasked = True


def journal(data: bytes) -> None:
    """The journal of a killed run, cut or of another version, and the record of a gateway."""
    store = place() / "store"
    store.mkdir(exist_ok=True)
    transaction = Transaction(_Daemon(), str(store))  # type: ignore[arg-type]
    transaction._journal.write_bytes(data)
    for read in (transaction._left_over, transaction.journal_facts):
        with refusing(EngineError):
            read()
    with refusing(EngineError):
        load(data.decode("utf-8", "replace"), "gateway.json")


def observation(data: bytes) -> None:
    """The result of a host that somebody else has taken over."""
    read_result(some_json(data))


def issued_result(data: bytes) -> None:
    """What a host that somebody else has taken over says of certificates for its own keys, and its request; a PKCS#12 file."""
    arguments = {"path": "/etc/x.pem", "owner": "root", "group": None, "replace": False, "state": "present", "kind": ""}
    asked = {"source": "command", "names": ["mx.example.com"], "key_types": ["ecdsa"]}
    result = some_json(data)
    with refusing(EngineError):
        judged(
            [result], CheckedInputs(arguments, issue=asked), {"names": ["mx.example.com"], "ca_content": "x"}, _no_file
        )
    with refusing(EngineError):
        _checked_request(data.decode("utf-8", "replace"), "", ["mx.example.com"])
    with refusing(EngineError):
        unpacked(data, "")


def _no_file(path: str, _limit: int) -> bytes:
    raise EngineError(f"there is no {path}")


def probe_result(data: bytes) -> None:
    """The handshake tests of a host that somebody else has taken over."""
    result = some_json(data)
    if isinstance(result, dict):
        with refusing(EngineError):
            json.dumps(complete_result(result, Inquiry(), "", 1), default=str)


def former_report(data: bytes) -> None:
    """The former report, which others may have edited."""
    with refusing(document.ReportError):
        former = document.load_previous(data)
        json.dumps(document.clean(former))


READERS: Mapping[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (
        postfix_log, exim_log, log_rate, tls_report, policy_answer, dns_answer, imap, mailbox, api, postconf,
        exim_printed, exim_plain, exim_queue,
        postfix_queue,
        haraka_ini, sockets, policy_request, pem, journal, observation, probe_result, former_report,
        issued_result,
    )
}  # fmt: skip
"""Name -> the target."""
