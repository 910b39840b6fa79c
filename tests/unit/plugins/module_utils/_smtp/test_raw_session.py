import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import DialogueError, Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.hello import (
    HelloError,
    KeyExchange,
    ServerFlight,
    client_hello,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.raw_session import (
    LargeHelloSession,
    SurveySession,
    VersionSession,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.wire import Limits, drive
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.key_proof import has_key
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from tests.support.alarm import at_most
from tests.support.pki import pem
from tests.support.smtp_server import PLAIN, REQUIRES_TLS, Face, server_context, serving

NAME = "mail.example.com"
TARGET = Target("192.0.2.1", 25, NAME)
SETTINGS = Settings(helo_name="client.example.org")
VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
GREETING, EHLO, READY = b"220 mail.example.com\r\n", b"250-mail.example.com\r\n250 STARTTLS\r\n", b"220 go\r\n"
CLOSED = DialogueError("connection_closed", "the server closed the connection after starttls_answered")
TIMEOUT = DialogueError("timeout", "no progress for 15 s after starttls_answered")
DONE = b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00"


def alert(code, level=2):
    return bytes([21, 3, 1, 0, 2, level, code])


def server_hello(version=0x0303, cipher=0xC02F, extensions=b""):
    body = version.to_bytes(2, "big") + b"r" * 32 + b"\x00" + cipher.to_bytes(2, "big") + b"\x00"
    body += len(extensions).to_bytes(2, "big") + extensions if extensions else b""
    return b"\x16\x03\x03" + (len(body) + 4).to_bytes(2, "big") + b"\x02" + len(body).to_bytes(3, "big") + body


TLS13 = server_hello(cipher=0x1301, extensions=b"\x00\x2b\x00\x02\x03\x04\x00\x33\x00\x06\x00\x17\x00\x02ab")


def greeted(session):
    """The session after the dialogue, and its hello."""
    assert session.receive(GREETING) == b"EHLO client.example.org\r\n"
    assert session.receive(EHLO) == b"STARTTLS\r\n"
    return session.receive(READY)


def verdict(version, answer, error=None):
    session = VersionSession(TARGET, SETTINGS, version)
    greeted(session)
    assert session.receive(answer) == b""
    assert session.finished is (error is None)
    return session.result(0.5, error)


# Whether a version is offered


@pytest.mark.parametrize("version", VERSIONS)
def test_the_hello_comes_behind_the_answer_to_starttls(version):
    session = VersionSession(TARGET, SETTINGS, version)
    hello = greeted(session)
    assert len(hello) == len(client_hello((version,), NAME)) and NAME.encode() in hello
    assert not session.finished and session.dialogue.stage is Stage.STARTTLS_ANSWERED
    assert session.result(0.1).offered is None


def test_without_starttls_the_hello_comes_first():
    session = VersionSession(Target("192.0.2.1", 465, NAME, "smtps"), SETTINGS, "TLSv1.2")
    assert session.receive(b"")[:3] == b"\x16\x03\x01"
    session.receive(server_hello() + DONE)
    assert session.finished and session.result(0.1).offered is True


def test_lmtp_says_its_own_word():
    session = VersionSession(Target("192.0.2.1", 24, NAME, "lmtp"), SETTINGS, "TLSv1.2")
    assert session.receive(GREETING) == b"LHLO client.example.org\r\n"


@pytest.mark.parametrize("version, code", [("TLSv1", 0x0301), ("TLSv1.1", 0x0302), ("TLSv1.2", 0x0303)])
def test_a_version_that_is_offered(version, code):
    seen = verdict(version, server_hello(code) + DONE)
    assert (seen.offered, seen.reason) == (True, f"the server agrees on {version}")
    assert (seen.version, seen.target, seen.cipher, seen.seconds) == (
        version,
        TARGET,
        "ECDHE-RSA-AES128-GCM-SHA256",
        0.5,
    )


def test_tls_13_is_offered_once_it_says_hello():
    seen = verdict("TLSv1.3", TLS13)
    assert (seen.offered, seen.cipher, seen.group) == (True, "TLS_AES_128_GCM_SHA256", "secp256r1")


@pytest.mark.parametrize(
    "asked, code, chosen",
    [("TLSv1.2", 0x0302, "TLSv1.1"), ("TLSv1.3", 0x0303, "TLSv1.2"), ("TLSv1", 0x0303, "TLSv1.2")],
)
def test_another_version_is_chosen(asked, code, chosen):
    seen = verdict(asked, server_hello(code))
    assert (seen.offered, seen.reason) == (False, f"the server chooses {chosen} instead")


@pytest.mark.parametrize(
    "version, code, offered, name",
    [
        ("TLSv1", 70, False, "protocol_version"),
        ("TLSv1", 40, False, "handshake_failure"),
        ("TLSv1.3", 71, False, "insufficient_security"),
        ("TLSv1.2", 0, False, "close_notify"),
        ("TLSv1", 80, False, "internal_error"),
        ("TLSv1.1", 80, False, "internal_error"),
        ("TLSv1.2", 80, None, "internal_error"),
        ("TLSv1.2", 112, None, "unrecognized_name"),
        ("TLSv1.2", 50, None, "decode_error"),
        ("TLSv1.2", 222, None, "alert_222"),
    ],
)
def test_what_an_alert_means(version, code, offered, name):
    seen = verdict(version, alert(code))
    assert (seen.offered, seen.alert, seen.reason) == (offered, name, f"the server answers with the alert {name}")


def test_a_server_that_agrees_and_cannot():
    seen = verdict("TLSv1", server_hello(0x0301) + alert(80))
    assert (seen.offered, seen.alert) == (False, "internal_error")
    assert seen.reason == "the server agrees, then ends the handshake with the alert internal_error"


@pytest.mark.parametrize(
    "answer, error, offered, reason",
    [
        (b"", CLOSED, False, "the server closes the connection"),
        (server_hello(), CLOSED, False, "the server agrees, then closes the connection"),
        (server_hello(), TIMEOUT, True, "the server agrees on TLSv1.2, but does not finish its answer"),
        (b"", TIMEOUT, None, str(TIMEOUT)),
        (alert(112, level=1), TIMEOUT, None, str(TIMEOUT)),
    ],
)
def test_an_answer_that_does_not_come(answer, error, offered, reason):
    seen = verdict("TLSv1.2", answer, error)
    assert (seen.offered, seen.reason) == (offered, reason)


@pytest.mark.parametrize("replies", [[], [GREETING], [GREETING, EHLO]])
def test_a_close_before_the_hello_says_nothing(replies):
    session = VersionSession(TARGET, SETTINGS, "TLSv1")
    for reply in replies:
        session.receive(reply)
    assert session.result(0.1, CLOSED).offered is None


def test_plaintext_in_the_place_of_tls():
    session = VersionSession(TARGET, SETTINGS, "TLSv1")
    greeted(session)
    with pytest.raises(DialogueError) as caught:
        session.receive(b"421 4.7.0 too many of you\r\n")
    assert caught.value.code == "tls_failed" and "421 4.7.0 too many of you" in str(caught.value)
    seen = session.result(0.1, caught.value)
    assert seen.offered is None and "421 4.7.0" in seen.reason


@pytest.mark.parametrize(
    "make", [lambda target: VersionSession(target, SETTINGS, "TLSv1"), lambda target: SurveySession(target, SETTINGS)]
)
def test_a_name_that_cannot_be_asked_for(make):
    session = make(Target("192.0.2.1", 25, "a..example.com"))
    session.receive(GREETING + EHLO)
    with pytest.raises(DialogueError) as caught:
        session.receive(READY)
    assert caught.value.code == "bad_name"
    assert session.result(0.1, caught.value)


def test_the_dialogue_fails_as_it_does_in_the_full_test():
    session = VersionSession(TARGET, SETTINGS, "TLSv1")
    session.receive(GREETING)
    with pytest.raises(DialogueError) as caught:
        session.receive(b"250 mail.example.com\r\n")
    assert caught.value.code == "starttls_not_offered"
    seen = session.result(0.1, caught.value)
    assert (seen.offered, seen.reason) == (None, "the server does not offer STARTTLS")


# Surveys


def surveyed(answer, want="", target=TARGET):
    session = SurveySession(target, SETTINGS, want)
    greeted(session)
    try:
        session.receive(answer)
    except DialogueError as error:
        return session.result(0.5, error)
    return session.result(0.5)


def test_a_survey_that_is_refused_by_a_server_of_tls_13_alone():
    seen = surveyed(alert(70))
    assert (seen.code, seen.alert, seen.needs_full_test, seen.chain) == ("tls_failed", "protocol_version", True, ())
    assert seen.message == "the server answers the TLS 1.2 hello with the alert protocol_version"
    assert seen.mode == "survey" and not seen.completed and seen.advertised


def test_a_server_that_closes_may_have_tls_13_alone():
    session = SurveySession(TARGET, SETTINGS)
    greeted(session)
    assert session.result(0.1, CLOSED).needs_full_test is True


def test_there_is_no_certificate_of_the_kind_that_was_asked_for():
    seen = surveyed(alert(40), "ecdsa")
    assert (seen.needs_full_test, seen.alert, seen.code) == (False, "handshake_failure", "tls_failed")


@pytest.mark.parametrize("answer", [alert(112), server_hello() + alert(40), b"500 no\r\n"])
def test_another_failure_is_none_of_the_version(answer):
    seen = surveyed(answer)
    assert seen.needs_full_test is False and seen.code == "tls_failed"


def test_a_failure_before_the_hello_needs_no_other_test():
    session = SurveySession(TARGET, SETTINGS)
    session.receive(GREETING)
    seen = session.result(0.1, CLOSED)
    assert (seen.needs_full_test, seen.code, seen.stage) == (False, "connection_closed", Stage.GREETING)


@given(st.binary(max_size=300), st.sampled_from(["", "rsa", "ecdsa"]))
def test_whatever_comes_ends_with_a_result(answer, want):
    for prefix in (b"", server_hello()):
        session = SurveySession(TARGET, SETTINGS, want)
        other = VersionSession(TARGET, SETTINGS, "TLSv1.2")
        for one in (session, other):
            greeted(one)
            error = None
            try:
                one.receive(prefix + answer)
            except DialogueError as caught:
                error = caught
            result = one.result(0.1, error)
            assert str(error or "").isprintable() and result
            assert not isinstance(error, HelloError)


# Real servers


def look(session, target, seconds=10.0):
    """The result of one session, driven over a socket."""

    def task():
        ended = yield session
        return session.result(ended.seconds, ended.error)

    results = []
    with at_most(seconds):
        drive([(target, task())], Limits(timeout=5.0), lambda _index, result: results.append(result))
    return results[0]


def versions_of(server, protocol="smtp"):
    target = Target(server.host, server.port, NAME, protocol)
    return {version: look(VersionSession(target, SETTINGS, version), target) for version in VERSIONS}


def survey_of(server, want="", protocol="smtp"):
    target = Target(server.host, server.port, NAME, protocol)
    return look(SurveySession(target, SETTINGS, want), target)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("raw")


@pytest.fixture(scope="module")
def issued(authority):
    return {kind: authority.issue([NAME], key=kind) for kind in ("ec", "rsa")}


def limited(directory, issued, oldest="TLSv1", newest="TLSv1.3", level=0, **options):
    """A server's context for a range of versions, whatever the machine's policy is."""
    context = server_context(directory, issued, **options)
    context.set_ciphers(f"ALL:@SECLEVEL={level}")
    context.minimum_version = getattr(ssl.TLSVersion, oldest.replace(".", "_"))
    context.maximum_version = getattr(ssl.TLSVersion, newest.replace(".", "_"))
    return context


RANGES = [
    ("TLSv1", "TLSv1"), ("TLSv1.1", "TLSv1.1"), ("TLSv1.2", "TLSv1.2"), ("TLSv1.3", "TLSv1.3"), ("TLSv1", "TLSv1.3"),
    ("TLSv1.2", "TLSv1.3"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("kind", ["ec", "rsa"])
@pytest.mark.parametrize("oldest, newest", RANGES)
def test_the_versions_of_a_real_server(directory, issued, kind, oldest, newest):
    with serving(Face(context=limited(directory, issued[kind], oldest, newest))) as server:
        seen = versions_of(server)
        other = s_client(server) if shutil.which("openssl") else {}
    offered = VERSIONS[VERSIONS.index(oldest) : VERSIONS.index(newest) + 1]
    assert {version: one.offered for version, one in seen.items()} == {one: one in offered for one in VERSIONS}
    assert other in ({}, {version: one.offered for version, one in seen.items()})


def s_client(server):
    """The same by OpenSSL's own client, with nothing forbidden to it."""
    options = {"TLSv1": "-tls1", "TLSv1.1": "-tls1_1", "TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3"}
    found = {}
    for version, option in options.items():
        command = ["openssl", "s_client", "-connect", f"{server.host}:{server.port}", "-starttls", "smtp", option]
        command += ["-cipher", "ALL:@SECLEVEL=0"]
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20
        )
        found[version] = f"New, {version}" in done.stdout or f"Protocol  : {version}\n" in done.stdout
        found[version] = found[version] and "Cipher is (NONE)" not in done.stdout
    return found


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_server_whose_security_level_forbids_the_old_versions(directory, issued, kind):
    with serving(Face(context=limited(directory, issued[kind], level=2))) as server:
        seen = versions_of(server)
    # At this level OpenSSL 1 still lets an RSA key sign with MD5 and SHA-1.
    old = ssl.OPENSSL_VERSION_INFO < (3,) and kind == "rsa"
    assert [one.offered for one in seen.values()] == [old, old, True, True]


def test_versions_without_starttls(directory, issued):
    context = server_context(directory, issued["ec"])
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def inside(connection):
        with context.wrap_socket(connection, server_side=True):
            pass

    with serving(Face(on_connect=inside)) as server:
        assert versions_of(server, "smtps")["TLSv1"].offered is False
        assert versions_of(server, "smtps")["TLSv1.2"].offered is True
        seen = survey_of(server, protocol="smtps")
        assert len(seen.chain) == 2 and seen.code == "" and not seen.advertised


@pytest.mark.parametrize("kind, algorithm", [("ec", "ecdsa_sha256"), ("rsa", "rsa_pss_rsae_sha256")])
def test_a_survey_of_a_real_server(directory, issued, kind, algorithm):
    one = issued[kind]
    with serving(Face(context=server_context(directory, one))) as server:
        seen = survey_of(server)
    assert (seen.code, seen.message, seen.mode, seen.completed, seen.stage) == (
        "",
        "",
        "survey",
        False,
        Stage.STARTTLS_ANSWERED,
    )
    assert (seen.tls_version, seen.group, seen.signature_algorithm) == ("TLSv1.2", "x25519", algorithm)
    assert seen.chain == tuple(der.public_bytes(Encoding.DER) for der in (one.certificate, *one.chain))
    assert (seen.client_certificate, seen.trusted, seen.knows_tls13) == ("not_requested", None, True)
    assert has_key(seen.chain[0], seen.key_exchange) is True
    assert (
        has_key(issued["rsa" if kind == "ec" else "ec"].certificate.public_bytes(Encoding.DER), seen.key_exchange)
        is False
    )
    assert KeyExchange.from_dict(seen.key_exchange.to_dict()) == seen.key_exchange
    assert (seen.to_dict()["mode"], seen.to_dict()["group"]) == ("survey", "x25519")


def test_a_survey_of_a_server_that_asks_for_a_certificate(directory, issued, authority):
    with serving(Face(context=server_context(directory, issued["ec"], client_ca=authority.root_pem))) as server:
        seen = survey_of(server)
    assert seen.client_certificate == "requested" and len(seen.chain) == 2


@pytest.mark.parametrize("mail, requires", [(b"250 ok\r\n", False), (REQUIRES_TLS, True)])
def test_a_survey_finds_out_whether_plaintext_mail_is_taken(directory, issued, mail, requires):
    with serving(Face(context=server_context(directory, issued["ec"]), mail=mail)) as server:
        target = Target(server.host, server.port, NAME)
        seen = look(SurveySession(target, Settings(ask_plaintext=True)), target)
    assert (seen.requires_tls, len(seen.chain)) == (requires, 2)


def test_both_certificates_of_a_server_that_has_two(directory, issued):
    context = server_context(directory, issued["ec"])
    bundle = directory / "second.pem"
    bundle.write_bytes(issued["rsa"].key_pem + pem(issued["rsa"].certificate, *issued["rsa"].chain))
    context.load_cert_chain(bundle)
    with serving(Face(context=context)) as server:
        for want, kind in (("rsa", "rsa"), ("ecdsa", "ec")):
            seen = survey_of(server, want)
            assert seen.chain[0] == issued[kind].certificate.public_bytes(Encoding.DER)
            assert has_key(seen.chain[0], seen.key_exchange) is True


def test_a_server_that_has_no_certificate_of_the_kind(directory, issued):
    with serving(Face(context=server_context(directory, issued["ec"]))) as server:
        seen = survey_of(server, "rsa")
    assert (seen.alert, seen.chain, seen.needs_full_test) == ("handshake_failure", (), False)


def test_a_server_of_tls_13_alone_needs_the_full_test(directory, issued):
    context = server_context(directory, issued["ec"])
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with serving(Face(context=context)) as server:
        seen = survey_of(server)
    assert (seen.needs_full_test, seen.alert) == (True, "protocol_version")


def test_a_server_that_closes_upon_the_hello():
    def close(connection):
        connection.recv(4096)

    with serving(Face(on_starttls=close)) as server:
        assert {one.offered for one in versions_of(server).values()} == {False}
        assert survey_of(server).needs_full_test is True


def test_a_server_without_starttls():
    with serving(PLAIN) as server:
        assert survey_of(server).code == "starttls_not_offered"
        assert {one.offered for one in versions_of(server).values()} == {None}
        assert server.heard(b"QUIT", 5) == 5


# OpenSSL's own server, for keys that the library's Python side cannot be given


def open_ssl(directory, *kind):
    key, certificate = directory / f"{kind[0]}.key", directory / f"{kind[0]}.pem"
    make = ["openssl", "req", "-x509", "-newkey", *kind, "-nodes", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make, "-days", "2", "-subj", f"/CN={NAME}"], check=True, capture_output=True, timeout=30)
    return ["-cert", str(certificate), "-key", str(key)]


def answer_of(options, version):
    """What openssl s_server answers to the hello of one version."""
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-cipher", "ALL:@SECLEVEL=0", *options]
    environment = {**os.environ, "OPENSSL_CONF": "/dev/null"}  # Debian 11's forbids the old versions
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        port = 0
        for line in process.stdout:
            if line.startswith(b"ACCEPT "):
                port = int(line.rpartition(b":")[2])
                break
        hello = client_hello((version,), NAME)
        flight = ServerFlight(hello[11:43])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(hello)
            while not flight.ended and (data := connection.recv(4096)):
                flight.feed(data)
        return flight
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")
@pytest.mark.parametrize(
    "kind, algorithm, old",
    [
        (("ed25519",), "ed25519", False),
        (("ed448",), "ed448", False),
        (("rsa-pss",), "rsa_pss_pss_sha256", False),
        (("ec", "-pkeyopt", "ec_paramgen_curve:P-384"), "ecdsa_sha256", True),
        (("rsa:2048",), "rsa_pss_rsae_sha256", True),
    ],
)
def test_every_kind_of_key(directory, kind, algorithm, old):
    with at_most(60):
        options = open_ssl(directory, *kind)
        flight = answer_of([*options, "-Verify", "1"], "TLSv1.2")
        older = answer_of(options, "TLSv1.1")
        alone = answer_of([*options, "-groups", "P-384"], "TLSv1.3")
        finite = answer_of([*options, "-cipher", "DHE:@SECLEVEL=0"], "TLSv1.2") if kind[0].startswith("rsa:") else None
    assert (flight.version, flight.signature_algorithm, flight.client_certificate_requested) == (
        "TLSv1.2",
        algorithm,
        True,
    )
    assert has_key(flight.chain[0], flight.key_exchange) is True
    if old:
        assert older.version == "TLSv1.1" and older.signature_algorithm in ("ecdsa_sha1", "rsa_pkcs1_md5_sha1")
        assert has_key(older.chain[0], older.key_exchange) is True
    else:
        assert older.alert == "handshake_failure"
    assert (alone.version, alone.retry, alone.group) == ("TLSv1.3", True, "secp384r1")
    if finite:
        assert finite.group.startswith("dhe") and has_key(finite.chain[0], finite.key_exchange) is True


# A large hello


@pytest.mark.parametrize(
    ("answer", "error", "understood"),
    [
        (TLS13, None, True), (server_hello(), None, True),
        (b"", CLOSED, False), (b"", TIMEOUT, False), (alert(50), None, False), (alert(47), None, False),
        (alert(40), None, None), (alert(112), None, None),  # not about its size
    ],
)  # fmt: skip
def test_a_large_hello(answer, error, understood):
    session = LargeHelloSession(TARGET, SETTINGS)
    first = greeted(session)
    assert (len(first), len(first + session.second_segment)) == (1000, 1500)
    assert first[3:5] == (1495).to_bytes(2, "big")
    session.second_segment = b""
    if answer:
        session.receive(answer)
    assert session.understood(error) is understood


def test_a_large_hello_is_not_blamed_before_it_is_sent():
    session = LargeHelloSession(TARGET, SETTINGS)
    session.receive(GREETING)
    assert session.understood(CLOSED) is None


@pytest.mark.parametrize("whole", [True, False])
def test_a_server_that_reads_only_the_first_segment(whole):
    """It takes what one call returns, as some load balancers do."""
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            peer, _address = listener.accept()
            with contextlib.suppress(OSError), peer:
                peer.settimeout(3)
                for said in (GREETING, EHLO, READY):
                    peer.sendall(said)
                    data = peer.recv(1100)
                if whole and len(data) < 1500:
                    data += peer.recv(1100)
                if len(data) == 1500:
                    peer.sendall(TLS13)
                    peer.recv(1)

        listener.settimeout(3)
        server = threading.Thread(target=serve, daemon=True)
        server.start()

        def once():
            session = LargeHelloSession(Target(*listener.getsockname()), SETTINGS)
            ended = yield session
            return session.understood(ended.error)

        with at_most(5):
            drive([(Target(*listener.getsockname()), once())], Limits(2, 4), lambda _index, one: seen.append(one))
        server.join(5)
    assert seen == [whole]
