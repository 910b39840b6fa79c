"""Against servers on the loopback: one that behaves, with a certificate if it is to, and many that do not."""

import base64
import contextlib
import re
import socket
import ssl
import threading
import time

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import TargetError
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace import imap as imap_search
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.imap import ImapMailbox, ImapPlace
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.mailbox import MARKER_HEADER
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.alarm import at_most
from tests.support.pki import Authority

SECRET = 's3cret "word\\'


class Server:
    """An IMAP server with one folder, for one connection after the other. What it was told is in `log`."""

    def __init__(self):
        self.messages = {}
        self.deleted = set()
        self.log = []
        self.capabilities = "IMAP4rev1 AUTH=PLAIN UIDPLUS"
        self.answers = {}
        self.context = None
        self.implicit = False
        self.greeting = b"* OK ready\r\n"
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def add(self, uid, marker, *received):
        self.messages[uid] = "".join(f"Received: {one}\r\n" for one in received) + f"{MARKER_HEADER}: {marker}\r\n\r\n"

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            with contextlib.suppress(OSError, ValueError), connection:
                self.talk(connection)

    def talk(self, connection):
        if self.implicit:
            connection = self.context.wrap_socket(connection, server_side=True)
        connection.sendall(self.greeting)
        lines = connection.makefile("rb")
        while line := lines.readline():
            tag, _, command = line.decode().rstrip("\r\n").partition(" ")
            self.log.append(command)
            word = re.match(r"(UID )?\w+", command)[0]
            answer = self.answers.get(word)
            if callable(answer):
                answer(connection, tag)
                continue
            if answer is None:
                answer = getattr(self, word.replace(" ", "_").lower())(command, connection, lines)
            connection.sendall(answer.replace("TAG", tag).encode())
            if word == "STARTTLS":
                connection = self.context.wrap_socket(connection, server_side=True)
                lines = connection.makefile("rb")
            if word == "LOGOUT":
                return

    def capability(self, command, connection, lines):
        return f"* CAPABILITY {self.capabilities}\r\nTAG OK done\r\n"

    def starttls(self, command, connection, lines):
        return "TAG OK done\r\n"

    def authenticate(self, command, connection, lines):
        connection.sendall(b"+ \r\n")
        answer = base64.b64decode(lines.readline()).decode()
        return "TAG OK done\r\n" if answer == f"\0trace\0{SECRET}" else f"TAG NO wrong: {answer!r}\r\n"

    def login(self, command, connection, lines):
        right = command == 'LOGIN trace "s3cret \\"word\\\\"'
        return "TAG OK done\r\n" if right else f"TAG NO wrong: {command}\r\n"

    def examine(self, command, connection, lines):
        if "INBOX" not in command:
            return "TAG NO no such folder\r\n"
        return f"* {len(self.messages)} EXISTS\r\n* OK [UIDVALIDITY 7] valid\r\nTAG OK [READ-ONLY] done\r\n"

    def select(self, command, connection, lines):
        return f"* {len(self.messages)} EXISTS\r\n* OK [UIDVALIDITY 7] valid\r\nTAG OK [READ-WRITE] done\r\n"

    def uid_search(self, command, connection, lines):
        wanted = re.findall(r'HEADER \S+ "([^"]*)"', command)
        uids = [uid for uid, text in self.messages.items() if any(one in text for one in wanted)]
        return f"* SEARCH {' '.join(map(str, uids))}\r\nTAG OK done\r\n"

    def uid_fetch(self, command, connection, lines):
        out = ""
        for uid in map(int, command.split()[2].split(",")):
            if uid in self.messages:
                text = self.messages[uid]
                out += f"* 1 FETCH (UID {uid} BODY[HEADER.FIELDS (X Y)] {{{len(text)}}}\r\n{text})\r\n"
        return out + "TAG OK done\r\n"

    def uid_store(self, command, connection, lines):
        self.deleted.add(int(command.split()[2]))
        return "TAG OK done\r\n"

    def uid_expunge(self, command, connection, lines):
        uid = int(command.split()[2])
        assert uid in self.deleted
        del self.messages[uid]
        return "TAG OK done\r\n"

    def logout(self, command, connection, lines):
        return "* BYE bye\r\nTAG OK done\r\n"


@pytest.fixture
def server():
    one = Server()
    yield one
    one.listener.close()


@pytest.fixture(scope="module")
def authority():
    return Authority.create("imap")


@pytest.fixture
def tls_server(server, authority, tmp_path):
    issued = authority.issue(["localhost"])
    (tmp_path / "server.pem").write_bytes(issued.key_pem + issued.fullchain_pem)
    server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.context.load_cert_chain(tmp_path / "server.pem")
    server.capabilities += " STARTTLS"
    return server


def mailbox(server, **options):
    place = {"host": "127.0.0.1", "user": "trace", "password": SECRET, "tls": "none", "seconds": 5.0, **options}
    return ImapMailbox(ImapPlace(port=server.port, **place))


def look(server, *markers, **options):
    with contextlib.closing(mailbox(server, **options)) as place, at_most(20):
        return place.look(markers or ["a"])


def failure(server, **options):
    with pytest.raises(EngineError) as error:
        look(server, **options)
    text = str(error.value)
    assert text.startswith("imap: ") and text.isprintable() and len(text) < 600
    assert "s3cret" not in text
    return text


# A server that behaves


def test_the_marked_messages(server):
    server.add(3, "a", "one", "two")
    server.add(5, "b", "three")
    server.add(6, "abc", "no")
    assert look(server, "a", "b", "c") == {"a": ["one", "two"], "b": ["three"]}


def test_nothing_is_marked_and_no_body_fetched(server):
    server.add(3, "a", "one")
    look(server)
    assert [line.split()[0] for line in server.log if "CAPABILITY" not in line][-4:] == [
        "EXAMINE",
        "UID",
        "UID",
        "LOGOUT",
    ]
    assert f"UID FETCH 3 (UID BODY.PEEK[HEADER.FIELDS ({MARKER_HEADER} Received)])" in server.log
    assert not any("SELECT" in line or "STORE" in line for line in server.log)


def test_an_empty_folder_is_not_searched(server):
    assert look(server) == {}
    assert not any("SEARCH" in line for line in server.log)


def test_the_connection_stays_for_the_next_look(server):
    with contextlib.closing(mailbox(server)) as place:
        assert place.look(["a"]) == {}
        server.add(3, "a", "one")
        assert place.look(["a"]) == {"a": ["one"]}
    assert server.connections == 1


def test_a_connection_that_the_server_ended_is_made_anew(server):
    with contextlib.closing(mailbox(server)) as place:
        assert place.look(["a"]) == {}
        server.add(3, "a", "one")
        server.answers["EXAMINE"] = lambda connection, tag: (
            server.answers.clear(), connection.sendall(b"* BYE idle\r\n"), connection.shutdown(socket.SHUT_RDWR)
        )  # fmt: skip
        assert place.look(["a"]) == {"a": ["one"]}
    assert server.connections == 2


def test_many_markers_are_searched_in_few_commands(server):
    markers = [f"m-{number}" for number in range(60)]
    for number, marker in enumerate(markers, 1):
        server.add(number, marker, marker)
    assert look(server, *markers) == {marker: [marker] for marker in markers}
    assert sum("SEARCH" in line for line in server.log) == 3
    assert sum("FETCH" in line for line in server.log) == 2


def test_only_the_newest_messages_are_searched(server, monkeypatch):
    server.answers["EXAMINE"] = "* 25000 EXISTS\r\nTAG OK done\r\n"
    look(server)
    assert any(line.startswith("UID SEARCH 15001:* HEADER") for line in server.log)


def test_login_where_there_is_no_authenticate(server):
    server.capabilities = "IMAP4rev1"
    server.add(3, "a", "one")
    assert look(server) == {"a": ["one"]}
    assert "accepts no user or password outside of ASCII" in failure(server, password="s3cretä")


def test_the_names_of_folders(server):
    server.answers["EXAMINE"] = "* 0 EXISTS\r\nTAG OK done\r\n"
    for folder, name in (
        ("INBOX", '"INBOX"'), ("a b", '"a b"'), ('q"u\\', '"q\\"u\\\\"'), ("R&D", '"R&-D"'), ("Entwürfe", '"Entw&APw-rfe"'),
        ("台北", '"&U,BTFw-"'),
    ):  # fmt: skip
        look(server, folder=folder)
        assert server.log[-2] == f"EXAMINE {name}"


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_tls(tls_server, authority, tls, tmp_path):
    tls_server.implicit = tls == "implicit"
    tls_server.add(3, "a", "one")
    root = authority.root_pem.decode()
    (tmp_path / "root.pem").write_text(root)
    assert look(tls_server, host="localhost", tls=tls, ca_pem=root) == {"a": ["one"]}
    assert look(tls_server, host="localhost", tls=tls, ca_file=str(tmp_path / "root.pem")) == {"a": ["one"]}
    assert look(tls_server, host="127.0.0.1", tls=tls, validate_certs=False) == {"a": ["one"]}
    for options in (
        {"host": "localhost"},
        {"host": "localhost", "ca_pem": Authority.create("other").root_pem.decode()},
        {"host": "127.0.0.1", "ca_pem": root},
    ):
        tls_server.log.clear()
        assert "shows a certificate that cannot be trusted" in failure(tls_server, tls=tls, **options)
        assert not any("AUTH" in line or "LOGIN" in line for line in tls_server.log)


def test_authorities_that_cannot_be_read(server, tmp_path):
    (tmp_path / "no.pem").write_text("no certificate")
    (tmp_path / "locked.pem").mkdir()
    for options, reason in (
        ({"ca_pem": "no certificate"}, "ca_content holds no certificate in PEM format"),
        ({"ca_file": str(tmp_path / "no.pem")}, "no.pem holds no certificate in PEM format"),
        ({"ca_file": str(tmp_path / "none.pem")}, "none.pem: No such file or directory"),
    ):
        assert reason in failure(server, tls="implicit", **options)


# Removing


def test_one_message_is_removed(server):
    server.add(3, "a", "one")
    server.add(4, "b", "two")
    with contextlib.closing(mailbox(server)) as place:
        place.look(["a", "b"])
        place.delete("a")
    assert list(server.messages) == [4] and server.deleted == {3}
    assert "UID EXPUNGE 3" in server.log and "EXPUNGE" not in server.log


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda server: setattr(server, "capabilities", "IMAP4rev1 AUTH=PLAIN"), "no UIDPLUS"),
        (
            lambda server: server.answers.update(SELECT="* 1 EXISTS\r\n* OK [UIDVALIDITY 8] x\r\nTAG OK done\r\n"),
            "new numbers",
        ),
        (lambda server: server.add(3, "b", "two"), "another message under its number"),
        (lambda server: server.answers.update(SELECT="TAG NO not allowed\r\n"), "has no folder 'INBOX'"),
        (lambda server: server.answers.update({"UID STORE": "TAG NO not allowed\r\n"}), "did not mark"),
        (
            lambda server: server.answers.update({"SELECT": "* 1 EXISTS\r\n* OK [READ-ONLY] done\r\nTAG OK done\r\n"}),
            "failed",
        ),
    ],
)
def test_what_cannot_be_removed_safely_stays(server, change, reason):
    server.add(3, "a", "one")
    with contextlib.closing(mailbox(server)) as place:
        place.look(["a"])
        change(server)
        with pytest.raises(EngineError, match=reason):
            place.delete("a")
    assert list(server.messages) == [3] and not server.deleted


# A server that does not


@pytest.mark.parametrize("capabilities", ["IMAP4rev1 AUTH=PLAIN", "IMAP4rev1"])
def test_a_wrong_password_is_not_shown_however_the_server_repeats_it(server, capabilities):
    server.capabilities = capabilities
    assert "did not let trace log in" in failure(server, password="s3cret else")
    encoded = base64.b64encode(f"\0trace\0{SECRET}".encode()).decode()
    server.answers = {"AUTHENTICATE": f"TAG NO {encoded} {SECRET}\r\n", "LOGIN": f"TAG NO {SECRET}\r\n"}
    text = failure(server)
    assert "***" in text and encoded not in text


def test_no_starttls(server):
    server.capabilities = "IMAP4rev1"
    assert "does not offer STARTTLS" in failure(server, tls="starttls")
    assert not any("LOGIN" in line for line in server.log)


def test_greeted_as_known_before_tls(tls_server, authority):
    tls_server.greeting = b"* PREAUTH hello\r\n"
    assert "failed" in failure(tls_server, tls="starttls", host="localhost", ca_pem=authority.root_pem.decode())


def test_what_is_said_before_tls_is_not_believed(tls_server, authority):
    tls_server.answers["STARTTLS"] = "TAG OK done\r\n* 1 EXISTS\r\n* CAPABILITY IMAP4rev1 LOGIN\r\n"
    tls_server.add(3, "a", "one")
    with contextlib.suppress(EngineError):
        assert look(tls_server, tls="starttls", host="localhost", ca_pem=authority.root_pem.decode()) == {"a": ["one"]}


def test_an_unknown_folder(server):
    assert "has no folder 'Nowhere' for this user (no such folder)" in failure(server, folder="Nowhere")


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("CAPABILITY", "TAG BAD no\r\n"),
        ("EXAMINE", "TAG BAD no\r\n"),
        ("UID SEARCH", "TAG NO [SERVERBUG] no\r\n"),
        ("UID FETCH", "TAG NO no\r\n"),
        ("UID FETCH", "* 1 FETCH (UID 3 X {99999999999}\r\nx"),
        ("UID FETCH", "* 1 FETCH (UID 3 X {" + "9" * 5000 + "}\r\nx"),
        ("UID SEARCH", "* SEARCH " + "1 " * 600_000 + "\r\nTAG OK done\r\n"),
        ("UID SEARCH", "nonsense\r\n"),
        ("UID FETCH", "* BYE bye\r\n"),
    ],
)
def test_answers_that_fail(server, word, answer):
    server.add(3, "a", "one")
    server.answers[word] = answer
    failure(server)


@pytest.mark.parametrize(
    "answer",
    [
        "* SEARCH\r\nTAG OK done\r\n",
        "TAG OK done\r\n",
        "* SEARCH -1 x 99999999999999 (\r\nTAG OK done\r\n",
        "* SEARCH 9\r\nTAG OK done\r\n",
    ],
)
def test_searches_that_find_nothing(server, answer):
    server.add(3, "a", "one")
    server.answers["UID SEARCH"] = answer
    assert look(server) == {}


@pytest.mark.parametrize(
    "answer",
    [
        "TAG OK done\r\n",
        "* 1 FETCH (UID 3 BODY[] NIL)\r\nTAG OK done\r\n",
        "* 1 FETCH (UID 4 BODY[] {22}\r\nX-Mailfleet-Trace: a\r\n)\r\nTAG OK done\r\n",
        "* 1 FETCH (BODY[] {22}\r\nX-Mailfleet-Trace: a\r\n)\r\nTAG OK done\r\n",
        "* 1 FETCH (UID 3 BODY[] {22}\r\nX-Mailfleet-Trace: b\r\n)\r\nTAG OK done\r\n",
    ],
)
def test_fetches_that_give_nothing(server, answer):
    server.add(3, "a", "one")
    server.answers["UID FETCH"] = answer
    assert look(server) == {}


def test_the_uid_may_stand_behind_the_headers(server):
    server.add(3, "a", "one")
    server.answers["UID FETCH"] = "* 1 FETCH (BODY[] {22}\r\nX-Mailfleet-Trace: a\r\n UID 3)\r\nTAG OK done\r\n"
    assert look(server) == {"a": []}


def forever(data, pause=0.0):
    def answer(connection, _tag):
        while True:
            connection.sendall(data)
            time.sleep(pause)

    return answer


@pytest.mark.parametrize("word", ["CAPABILITY", "AUTHENTICATE", "EXAMINE", "UID SEARCH", "UID FETCH"])
@pytest.mark.parametrize(
    "data", [b"x" * 65536, b"* OK still here\r\n" * 1000, b"* 1 FETCH (UID 3 X {70000}\r\n" + b"x" * 70000 + b")\r\n"]
)
def test_endless_answers_are_cut_off(server, word, data, monkeypatch):
    monkeypatch.setattr(imap_search._Limited, "_bytes_left", 500_000)
    monkeypatch.setattr(imap_search, "MAX_IMAP_BYTES", 500_000)
    server.add(3, "a", "one")
    server.answers[word] = forever(data)
    started = time.monotonic()
    failure(server)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("word", ["CAPABILITY", "UID FETCH"])
@pytest.mark.parametrize("data", [b"x", b"* OK still here\r\n", b""])
def test_slow_answers_end_in_time(server, word, data):
    server.add(3, "a", "one")
    server.answers[word] = forever(data, 0.2)
    started = time.monotonic()
    assert "did not answer within 1 s" in failure(server, seconds=1.0)
    assert time.monotonic() - started < 4


def test_a_greeting_that_does_not_end(server):
    server.talk = lambda connection: forever(b"x", 0.2)(connection, "")
    assert "did not answer within 1 s" in failure(server, seconds=1.0)


def test_a_host_that_does_not_speak_tls(server):
    assert "failed" in failure(server, tls="implicit", seconds=2.0)


@settings(max_examples=60, deadline=None)
@given(
    word=st.sampled_from(["CAPABILITY", "AUTHENTICATE", "EXAMINE", "UID SEARCH", "UID FETCH"]),
    answer=st.lists(
        st.one_of(
            st.sampled_from(["* ", "TAG ", "+ ", "OK ", "NO ", "BYE ", "\r\n", "{3}\r\n", "{0}\r\n", "FETCH (UID 3 X ", ")", "3 ", "[",
                             "]", "SEARCH ", "EXISTS", "CAPABILITY ", "IMAP4rev1", "[READ-ONLY]", '"', "NIL"]),
            st.text(max_size=4),
        ),
        max_size=20,
    ).map("".join),
)  # fmt: skip
def test_any_answer_ends_in_our_own_error_or_a_result(word, answer):
    server = Server()

    def once(connection, tag):
        connection.sendall(answer.replace("TAG", tag).encode("utf-8", "surrogateescape"))
        connection.shutdown(socket.SHUT_RDWR)

    server.add(3, "a", "one")
    server.answers[word] = once
    try:
        assert set(look(server, seconds=3.0)) <= {"a"}
    except EngineError as error:
        assert str(error).isprintable()
    finally:
        server.listener.close()


# Before anything is opened


@pytest.mark.parametrize(
    "options",
    [{"host": ""}, {"host": "a b"}, {"host": "x\r\n"}, {"port": 70000}, {"user": ""}, {"user": "a\nb"}, {"password": ""},
     {"password": "a\0"}, {"folder": "a\r\nb"}, {"tls": "none", "host": "imap.example.com"}],
)  # fmt: skip
def test_places_that_are_refused(options):
    with pytest.raises((EngineError, TargetError)) as error:
        ImapMailbox(ImapPlace(**{"host": "127.0.0.1", "user": "trace", "password": "s3cret", **options}))
    assert "s3cret" not in str(error.value)


def test_the_password_is_not_in_the_description_of_a_place():
    assert "s3cret" not in repr(ImapPlace(host="imap.example.com", user="trace", password="s3cret"))
