import contextlib
import dataclasses
import datetime as dt
import hashlib
import json
import socket
import ssl
import threading
import time

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp import handshake
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Handshake,
    Settings,
    Target,
    TargetError,
    Trust,
    certificate_was_requested,
    handshake_all,
    handshake_one,
    make_context,
    served_chain,
    wait_until,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.verifier import Verifier
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from tests.support.alarm import at_most
from tests.support.pki import now, self_signed
from tests.support.smtp_server import PLAIN, REQUIRES_TLS, Face, refused_port, reply, server_context, serving, set_curve

NAME = "mail.example.com"
SOON = 0.3  # long enough for a loopback, short enough to wait for


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def good(authority):
    return authority.issue([NAME])


@pytest.fixture(scope="module")
def face(good, directory):
    """A mail server as it should be."""
    return Face(context=server_context(directory, good))


@pytest.fixture
def settings(authority):
    """Patient, and trusting the private CA."""
    return Settings(ca_pem=authority.root_pem.decode(), helo_name="client.example.org", timeout=10, total_timeout=20)


def look_at(face, settings, name=NAME, seconds=15.0):
    with serving(face) as server, at_most(seconds):
        return handshake_one(Target(server.host, server.port, name), settings)


def der(certificate):
    return certificate.public_bytes(Encoding.DER)


# What is served


def test_a_good_server_with_a_private_ca(face, settings, good):
    seen = look_at(face, settings)
    assert (seen.completed, seen.code, seen.message) == (True, "", "")
    assert (seen.trusted, seen.verify_error) == (True, "")
    assert seen.stage is Stage.EHLO_TLS and seen.advertised
    assert seen.greeting == "220 mail.example.com ESMTP ready"
    assert seen.starttls_reply == "220 2.0.0 Ready to start TLS"
    assert seen.capabilities == ("PIPELINING", "STARTTLS", "8BITMIME")
    assert seen.capabilities_tls == ("PIPELINING", "AUTH PLAIN")
    assert seen.tls_version == "TLSv1.3" and seen.cipher.startswith("TLS_")
    assert seen.chain == (der(good.certificate), der(good.chain[0]))
    assert seen.fingerprint == hashlib.sha256(der(good.certificate)).hexdigest()
    assert seen.requires_tls is None
    assert 0 < seen.seconds < 10


def test_the_store_of_the_machine_is_trusted_without_a_ca_of_ones_own(face, settings, authority, tmp_path, monkeypatch):
    store = tmp_path / "store.pem"
    store.write_bytes(authority.root_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    assert look_at(face, dataclasses.replace(settings, ca_pem=None)).trusted is True


def test_a_certificate_of_an_unknown_ca(face, settings, monkeypatch, tmp_path, good):
    empty = tmp_path / "empty.pem"
    empty.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(empty))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    seen = look_at(face, dataclasses.replace(settings, ca_pem=None))
    assert (seen.trusted, seen.completed, seen.code) == (False, True, "")
    assert "unable to get" in seen.verify_error and "issuer certificate" in seen.verify_error
    assert len(seen.chain) == 2
    assert seen.fingerprint == hashlib.sha256(der(good.certificate)).hexdigest()


def test_a_self_signed_certificate(settings, directory):
    own = self_signed([NAME])
    seen = look_at(Face(context=server_context(directory, own)), settings)
    assert (seen.trusted, seen.completed) == (False, True)
    assert seen.verify_error.replace("-", " ") == "self signed certificate"
    assert seen.chain == (der(own.certificate),)
    assert seen.capabilities_tls == ("PIPELINING", "AUTH PLAIN")


def test_a_self_signed_certificate_that_is_trusted_itself(settings, directory):
    own = self_signed([NAME])
    trusting = dataclasses.replace(settings, ca_pem=own.certificate_pem.decode())
    assert look_at(Face(context=server_context(directory, own)), trusting).trusted is True


def test_an_expired_certificate(settings, directory, authority):
    seen = look_at(Face(context=server_context(directory, authority.expired([NAME]))), settings)
    assert (seen.trusted, seen.verify_error, seen.completed) == (False, "certificate has expired", True)
    assert x509.load_der_x509_certificate(seen.chain[0]).not_valid_after_utc < now()


def test_a_certificate_that_is_not_valid_yet(settings, directory, authority):
    seen = look_at(Face(context=server_context(directory, authority.not_yet_valid([NAME]))), settings)
    assert (seen.trusted, seen.verify_error, seen.completed) == (False, "certificate is not yet valid", True)


def test_a_missing_intermediate(settings, directory, good):
    seen = look_at(Face(context=server_context(directory, good, intermediate=False)), settings)
    assert (seen.trusted, seen.completed, seen.code) == (False, True, "")
    assert seen.verify_error == "unable to get local issuer certificate"
    assert seen.chain == (der(good.certificate),)
    assert seen.capabilities_tls == ("PIPELINING", "AUTH PLAIN")


def test_trust_does_not_depend_on_the_name(face, settings):
    """The caller checks the name, separately from trust."""
    assert look_at(face, settings, name="other.example.net").trusted is True


@pytest.mark.parametrize("name", [NAME, "mail.example.com.", "MAIL.example.com"])
def test_the_name_is_judged_if_that_is_asked_for(face, settings, name):
    seen = look_at(face, dataclasses.replace(settings, verify_name=True), name=name)
    assert (seen.trusted, seen.verify_error, seen.completed) == (True, "", True)


@pytest.mark.parametrize("name", ["other.example.net", "sub.mail.example.com", "example.com"])
def test_another_name_does_not_pass_then(face, settings, name):
    seen = look_at(face, dataclasses.replace(settings, verify_name=True), name=name)
    assert (seen.trusted, seen.completed, seen.code) == (False, True, "")
    assert "mismatch" in seen.verify_error.lower()
    assert seen.capabilities_tls == ("PIPELINING", "AUTH PLAIN")


@pytest.mark.parametrize(
    ("names", "trusted"), [([NAME, "127.0.0.1"], True), ([NAME], False), ([NAME, "127.0.0.2"], False)]
)
def test_an_address_is_judged_as_one(settings, directory, authority, names, trusted):
    asked = []
    context = server_context(directory, authority.issue(names))
    context.sni_callback = lambda _socket, server_name, _context: asked.append(server_name)
    seen = look_at(Face(context=context), dataclasses.replace(settings, verify_name=True), name="")
    assert (seen.trusted, seen.completed) == (trusted, True)
    assert set(asked) == {None}


def test_a_name_that_fits_does_not_make_up_for_the_chain(settings, directory):
    own = Face(context=server_context(directory, self_signed([NAME])))
    seen = look_at(own, dataclasses.replace(settings, verify_name=True))
    assert (seen.trusted, seen.completed) == (False, True)
    assert seen.verify_error.replace("-", " ") == "self signed certificate"


def test_without_trust_the_name_is_not_judged(face, settings):
    seen = look_at(face, dataclasses.replace(settings, verify_trust=False, verify_name=True), name="other.example.net")
    assert (seen.trusted, seen.verify_error, seen.completed) == (None, "", True)


@pytest.mark.parametrize(
    ("verify", "name", "checked"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_the_context_checks_names_only_where_it_verifies(authority, verify, name, checked):
    context = make_context(authority.root_pem.decode(), verify, name)
    assert context.check_hostname is checked
    assert context.verify_mode == (ssl.CERT_REQUIRED if verify else ssl.CERT_NONE)


def test_without_judging_there_is_one_handshake_and_no_verdict(settings, directory):
    own = Face(context=server_context(directory, self_signed([NAME])))
    with serving(own) as server:
        seen = handshake_one(Target(server.host, server.port), dataclasses.replace(settings, verify_trust=False))
        assert server.connections == 1
    assert (seen.completed, seen.trusted, seen.verify_error, len(seen.chain)) == (True, None, "", 1)


def test_a_refused_chain_is_seen_in_one_connection(settings, directory):
    with serving(Face(context=server_context(directory, self_signed([NAME])))) as server:
        seen = handshake_one(Target(server.host, server.port), settings)
        assert server.connections == 1
    assert (seen.trusted, seen.completed, seen.capabilities_tls) == (False, True, ("PIPELINING", "AUTH PLAIN"))


def test_a_long_rsa_chain_arrives_whole(settings, directory, authority):
    names = [f"host-{number}.a-rather-long-name.example.com" for number in range(400)]
    issued = authority.issue(names, key="rsa", not_after=now() + dt.timedelta(days=1))
    seen = look_at(Face(context=server_context(directory, issued)), settings)
    assert (seen.trusted, len(seen.chain)) == (True, 2)
    assert len(seen.chain[0]) > 16384


def test_an_old_but_allowed_tls_version(settings, directory, good):
    context = server_context(directory, good)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    seen = look_at(Face(context=context), settings)
    assert (seen.completed, seen.trusted, seen.tls_version) == (True, True, "TLSv1.2")


@pytest.mark.parametrize("name", ["", NAME, "mail.example.com."])
def test_the_name_is_asked_for_without_its_final_dot(settings, directory, good, name):
    asked = []
    context = server_context(directory, good)
    context.sni_callback = lambda _socket, server_name, _context: asked.append(server_name)
    look_at(Face(context=context), settings, name=name)
    assert asked == [NAME if name else None]  # an address is never asked for


def test_ipv6(face, settings):
    try:
        server_of = serving(face, "::1")
        with server_of as server:
            seen = handshake_one(Target.parse(f"[::1]:{server.port}", NAME), settings)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    assert seen.trusted is True


def test_a_host_name_with_a_final_dot(face, settings):
    with serving(face) as server:
        assert handshake_one(Target("localhost.", server.port, NAME), settings).completed


# What is asked


@pytest.mark.parametrize(("mail", "requires_tls"), [(REQUIRES_TLS, True), (b"250 ok\r\n", False)])
def test_whether_the_server_takes_mail_without_tls(face, settings, mail, requires_tls):
    asking = dataclasses.replace(settings, ask_plaintext=True)
    with serving(dataclasses.replace(face, mail=mail)) as server:
        seen = handshake_one(Target(server.host, server.port), asking)
        asked = [*server.commands]
    assert (seen.completed, seen.requires_tls) == (True, requires_tls)
    assert asked[:4] == [b"EHLO client.example.org", b"MAIL FROM:<>", b"RSET", b"STARTTLS"]


def test_the_helo_name_is_given_before_and_inside_tls_and_the_end_is_polite(face, settings):
    with serving(face) as server:
        handshake_one(Target(server.host, server.port), settings)
        deadline = time.monotonic() + 5
        while len(server.commands) < 4 and time.monotonic() < deadline:
            time.sleep(0.005)  # the test ends with QUIT sent, not received
        assert server.commands == [
            b"EHLO client.example.org", b"STARTTLS", b"EHLO client.example.org", b"QUIT",
        ]  # fmt: skip


def test_the_helo_name_is_the_full_host_name_unless_set(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "mx1.example.com")
    assert Settings().helo_name == "mx1.example.com"


@pytest.mark.parametrize("ask", [False, True])
def test_a_host_without_a_full_name_says_its_address(settings, directory, authority, good, monkeypatch, ask):
    """Many servers answer 504 to EHLO with a bare name."""
    monkeypatch.setattr("socket.gethostname", lambda: "checkhost")
    monkeypatch.setattr("socket.getfqdn", lambda name="": "checkhost")
    said = []
    capabilities = reply(250, "mx.example.com", "STARTTLS")

    def answer(command):
        said.append(command)
        return capabilities

    with serving(Face(context=server_context(directory, good), ehlo=answer, ehlo_tls=answer)) as server:
        seen = handshake_one(Target(server.host, server.port, NAME), Settings(verify_trust=False, ask_plaintext=ask))
    assert seen.completed, seen.message
    assert [one.strip() for one in said if one.startswith(b"EHLO")] == [b"EHLO [127.0.0.1]"] * 2


# Long lists: the chain is verified in the handshake as long as most are good


@pytest.fixture
def many(monkeypatch):
    """Any list is a long one."""
    monkeypatch.setattr(handshake, "MANY", 0)


@pytest.mark.parametrize("verify_name", [False, True])
def test_both_ways_of_judging_agree(settings, directory, authority, good, monkeypatch, verify_name):
    cases = {
        "good": good, "rsa": authority.issue([NAME], key="rsa"), "weak": authority.issue([NAME], key="rsa-1024"),
        "expired": authority.expired([NAME]), "self-signed": self_signed([NAME]), "other": authority.issue(["a.example"]),
    }  # fmt: skip
    asking = dataclasses.replace(settings, verify_name=verify_name)
    with contextlib.ExitStack() as opened:
        contexts = [server_context(directory, issued, weak=kind == "weak") for kind, issued in cases.items()]
        contexts.append(server_context(directory, good, intermediate=False))
        servers = [opened.enter_context(serving(Face(context=context))) for context in contexts]
        targets = [Target(server.host, server.port, NAME) for server in servers]
        alone = handshake_all(targets, asking)
        assert [server.connections for server in servers] == [1] * 7
        monkeypatch.setattr(handshake, "MANY", 0)
        in_handshake = [handshake_all([target], asking)[0] for target in targets]
        assert {server.connections for server in servers} == {2, 3}
    verdicts = [(one.trusted, one.verify_error, one.chain, one.completed) for one in alone]
    assert verdicts == [(one.trusted, one.verify_error, one.chain, one.completed) for one in in_handshake]
    assert [one.trusted for one in alone] == [True, True, False, False, False, not verify_name, False]


def test_a_refused_chain_takes_a_second_connection_there(settings, directory, many):
    with serving(Face(context=server_context(directory, self_signed([NAME])))) as server:
        seen = handshake_one(Target(server.host, server.port), settings)
        assert server.connections == 2
    assert (seen.trusted, seen.completed, len(seen.chain)) == (False, True, 1)


def test_the_way_of_judging_follows_what_is_found(settings):
    trust = Trust(settings, 10_000)
    assert trust.verifies_in_handshake
    for _ in range(100):
        trust.note(refused=False)
    for number in range(60):
        trust.note(refused=True)
        assert trust.verifies_in_handshake == ((number + 1) * 3 <= 101 + number)
    assert not Trust(settings, 200).verifies_in_handshake
    assert not Trust(dataclasses.replace(settings, verify_trust=False), 10_000).verifies_in_handshake


def test_another_server_on_the_second_connection_is_judged_by_its_own_chain(settings, directory, face, many):
    with serving(Face(context=server_context(directory, self_signed([NAME])))) as server:
        context = server.face.context

        def swap(_socket, _name, _context):
            server.face = face  # for the next client

        context.sni_callback = swap
        seen = handshake_one(Target(server.host, server.port, NAME), settings)
    assert (seen.trusted, seen.verify_error, len(seen.chain)) == (True, "", 2)


def test_a_second_connection_that_fails_leaves_the_verdict_of_the_first(settings, directory, many):
    with serving(Face(context=server_context(directory, self_signed([NAME])))) as server:

        def busy(_socket, _name, _context):
            server.face = Face(greeting=b"421 too many\r\n")

        server.face.context.sni_callback = busy
        seen = handshake_one(Target(server.host, server.port, NAME), settings)
    assert (seen.code, seen.trusted, seen.verify_error.replace("-", " ")) == (
        "greeting_rejected", False, "self signed certificate",
    )  # fmt: skip
    assert len(seen.chain) == 1
    if many:  # two connections: what the first one saw still holds
        assert seen.advertised and seen.capabilities
        assert seen.message.startswith(
            "the chain is not trusted, and a second connection that accepts every chain failed: "
        )


def test_a_chain_that_nobody_could_judge_is_not_trusted(settings, face, monkeypatch):
    monkeypatch.setattr(Verifier, "_hello", b"\x15\x03\x03\x00\x02\x02\x28")
    with serving(face) as server:

        def busy(_socket, _name, _context):
            server.face = Face(greeting=b"421 too many\r\n")

        server.face.context.sni_callback = busy
        seen = handshake_one(Target(server.host, server.port, NAME), settings)
    assert (seen.completed, seen.trusted) == (True, False)
    assert seen.verify_error.startswith("the chain could not be verified: the server greets with 421")


@pytest.mark.parametrize(("own", "trusted"), [(False, True), (True, False)])
def test_a_library_that_cannot_verify_separately_takes_a_second_connection(
    settings, directory, face, own, trusted, monkeypatch
):
    monkeypatch.setattr(Verifier, "_hello", b"\x15\x03\x03\x00\x02\x02\x28")
    context = server_context(directory, self_signed([NAME])) if own else face.context
    with serving(Face(context=context)) as server:
        seen = handshake_one(Target(server.host, server.port, NAME), settings)
        assert server.connections == 2
    assert (seen.trusted, seen.completed, bool(seen.verify_error)) == (trusted, True, own)


@pytest.fixture
def leaf_only(monkeypatch):
    """A Python that tells only the leaf, as 3.9 does: the messages of the handshake tell the chain."""

    def of_messages(tls):
        return original(type("Tls", (), {"certificate_message": tls.certificate_message}))

    original = handshake.served_chain
    monkeypatch.setattr(handshake, "_tells_chain", lambda: False)
    monkeypatch.setattr(handshake, "served_chain", of_messages)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_chain_on_a_python_that_tells_only_the_leaf(settings, directory, good, version, leaf_only):
    context = server_context(directory, good)
    context.maximum_version = version
    seen = look_at(Face(context=context), settings)
    assert seen.chain == (der(good.certificate), der(good.chain[0]))
    assert seen.trusted is True


@pytest.mark.skipif(ssl.OPENSSL_VERSION_INFO < (3,), reason="this OpenSSL knows nothing of compressed certificates")
def test_no_compressed_certificates_are_asked_for_where_the_messages_tell_the_chain(leaf_only):
    for verify in (True, False):
        assert make_context(None, verify).options & 1 << 33


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("python", ["this one", "3.9"])
def test_two_servers_that_take_turns_behind_one_address(settings, directory, good, version, python, request):
    """Each result holds the chain of one server and the verdict on that chain, not the one on the other."""
    if python == "3.9":
        request.getfixturevalue("leaf_only")
    chains = {(der(issued.certificate), *map(der, issued.chain)): issued for issued in (good, self_signed([NAME]))}
    contexts = [server_context(directory, issued) for issued in chains.values()]
    faces = [Face(context=context) for context in contexts]
    for context, other in zip(contexts, reversed(faces)):
        context.maximum_version = version
        context.sni_callback = lambda *_args, other=other: setattr(server, "face", other)
    with serving(faces[1]) as server:
        targets = [Target(server.host, server.port, NAME)] * (handshake.MANY + 1)
        found = handshake_all(targets, dataclasses.replace(settings, concurrency=1))
        assert server.connections > len(targets)  # some chains were refused in the handshake
    assert {seen.chain for seen in found} == set(chains)
    for seen in found:
        own = chains[seen.chain] is not good
        assert (seen.completed, seen.trusted, bool(seen.verify_error)) == (True, not own, own)


# What the handshake tells besides


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("mode", "certificate"), [(ssl.CERT_NONE, "not_requested"), (ssl.CERT_OPTIONAL, "requested")])
def test_whether_a_client_certificate_is_asked_for(settings, directory, good, authority, version, mode, certificate):
    context = server_context(directory, good, client_ca=authority.root_pem)
    context.verify_mode = mode
    context.maximum_version = version
    seen = look_at(Face(context=context), settings)
    assert (seen.completed, seen.client_certificate) == (True, certificate)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("curve", "group"), [("X25519", "x25519"), ("prime256v1", "secp256r1"), ("secp384r1", "secp384r1")]
)
def test_the_group_of_the_key_exchange(settings, directory, good, version, curve, group):
    context = server_context(directory, good)
    context.maximum_version = version
    set_curve(context, curve)  # in TLS 1.3 the server asks for another hello
    seen = look_at(Face(context=context), settings)
    assert (seen.completed, seen.group, seen.client_certificate) == (True, group, "not_requested")


def test_records_that_never_end(face, settings):
    def flood(secure):
        with contextlib.suppress(OSError):
            while True:
                secure.sendall(b"250-x" + b"\r\n250-x" * 2)

    seen = look_at(dataclasses.replace(face, in_tls=flood), settings)
    assert (seen.code, seen.stage) == ("not_smtp", Stage.TLS)


def test_a_handshake_that_never_ends(settings):
    def drip(connection):
        connection.recv(4096)
        message = b"\x02" + (1 << 23).to_bytes(3, "big")  # a ServerHello of 8 MiB
        with contextlib.suppress(OSError):
            connection.sendall(b"\x16\x03\x03" + len(message).to_bytes(2, "big") + message)
            while True:
                connection.sendall(b"\x16\x03\x03\x40\x00" + bytes(16384))

    seen = look_at(Face(on_starttls=drip), settings)
    assert (seen.code, seen.stage) == ("tls_failed", Stage.STARTTLS_ANSWERED)


def test_more_bytes_of_tls_than_any_handshake_takes(settings, monkeypatch):
    monkeypatch.setattr(handshake, "MAX_TLS_BYTES", 100)
    seen = look_at(Face(on_starttls=say(b"\x16\x03\x03\x40\x00" + bytes(200))), settings)
    assert (seen.code, seen.message) == ("tls_failed", "the TLS session does not end within 100 bytes")


@pytest.mark.parametrize(
    ("flight", "version", "requested"),
    [
        (b"\x14\x03\x03\x00\x01\x01" + b"\x17\x03\x03\x00\x02xx", "TLSv1.3", False),
        (b"\x17\x03\x03\x00\x02xx" * 2, "TLSv1.3", True),
        (b"\x16\x03\x03\x00\x01\x0b", "TLSv1.2", True),
        (b"\x16\x03\x03\x00\x01\x10", "", False),
        (b"\x14\x03\x03\x00\x01\x01\x16", "TLSv1.2", None),  # a session that was taken up again
        (b"", "TLSv1.3", None),
        (b"", "", None),
        (b"\x17\x03", "TLSv1.3", None),
    ],
)
def test_the_answer_to_a_request_for_a_certificate(flight, version, requested):
    assert certificate_was_requested(flight, version) is requested


# Servers that do not do it


def test_no_starttls(settings):
    with serving(PLAIN) as server:
        seen = handshake_one(Target(server.host, server.port), settings)
        assert server.heard(b"QUIT")
    assert (seen.code, seen.stage, seen.advertised) == ("starttls_not_offered", Stage.EHLO, False)
    assert seen.capabilities == ("PIPELINING", "8BITMIME")
    assert (seen.trusted, seen.chain, seen.fingerprint, seen.completed) == (None, (), "", False)


def test_a_454(settings):
    seen = look_at(Face(starttls=b"454 4.7.0 TLS not available due to local problem\r\n"), settings)
    assert (seen.code, seen.stage, seen.advertised) == ("starttls_refused", Stage.STARTTLS_ADVERTISED, True)
    assert "454 4.7.0 TLS not available" in seen.message
    assert seen.starttls_reply == "454 4.7.0 TLS not available due to local problem"


def test_a_busy_server(settings):
    seen = look_at(Face(greeting=b"421 4.3.2 Too many connections\r\n"), settings)
    assert (seen.code, seen.stage) == ("greeting_rejected", Stage.CONNECT)
    assert seen.greeting == "421 4.3.2 Too many connections"


def test_a_server_that_knows_no_ehlo(settings):
    seen = look_at(Face(ehlo=b"502 5.5.2 what?\r\n"), settings)
    assert (seen.code, seen.stage) == ("ehlo_rejected", Stage.GREETING)


def test_something_else_on_the_port(settings):
    seen = look_at(Face(greeting=b"SSH-2.0-OpenSSH_9.2p1\r\n"), settings)
    assert (seen.code, seen.stage) == ("not_smtp", Stage.CONNECT)
    assert "SSH-2.0" in seen.message


def test_ehlo_refused_inside_tls(face, settings):
    seen = look_at(dataclasses.replace(face, ehlo_tls=b"503 5.5.1 again?\r\n"), settings)
    assert (seen.code, seen.stage) == ("ehlo_tls_rejected", Stage.TLS)
    assert (seen.trusted, len(seen.chain), seen.completed) == (True, 2, False)


def test_nobody_listens(settings):
    port = refused_port()
    seen = handshake_one(Target("127.0.0.1", port), settings)
    assert (seen.code, seen.stage) == ("connect_failed", Stage.CONNECT)
    assert f"cannot connect to 127.0.0.1:{port}: " in seen.message
    assert seen.trusted is None


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example.com", "a..b.example.com"])
def test_a_host_that_cannot_be_found(settings, host):
    seen = handshake_one(Target(host, 25), settings)
    assert (seen.code, seen.stage) == ("name_not_resolved", Stage.CONNECT)
    assert host in seen.message


@pytest.mark.parametrize("name", ["a" * 64 + ".example.com", "a..b.example.com"])
def test_a_name_that_cannot_be_asked_for(face, settings, name):
    seen = look_at(face, settings, name=name)
    assert (seen.code, seen.stage) == ("bad_name", Stage.STARTTLS_ANSWERED)
    assert name in seen.message


def hold(connection):
    """Say nothing until the client goes away."""
    while connection.recv(4096):
        pass


def hang_up(connection):
    connection.recv(4096)


def say(data):
    def answer(connection):
        connection.sendall(data)
        hold(connection)

    return answer


def test_a_server_that_never_greets(settings):
    seen = look_at(Face(on_connect=hold), dataclasses.replace(settings, timeout=SOON))
    assert (seen.code, seen.stage) == ("timeout", Stage.CONNECT)
    assert seen.message == "no progress for 0.3 s after connect"
    assert SOON <= seen.seconds < 5


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"on_starttls": hold}, Stage.STARTTLS_ANSWERED),
        ({"in_tls": hold}, Stage.TLS),
        ({"starttls": b""}, Stage.STARTTLS_ADVERTISED),
    ],
)
def test_a_server_that_falls_silent_later(face, settings, changes, stage):
    seen = look_at(dataclasses.replace(face, **changes), dataclasses.replace(settings, timeout=0.5))
    assert (seen.code, seen.stage) == ("timeout", stage)
    assert seen.message == f"no progress for 0.5 s after {stage.label}"


def test_a_server_that_always_says_a_little_more_gains_no_time(settings):
    def drip(connection):
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"220-wait\r\n")
                time.sleep(0.02)

    seen = look_at(Face(on_connect=drip), dataclasses.replace(settings, timeout=SOON))
    assert (seen.code, seen.stage) == ("timeout", Stage.CONNECT)


def test_an_endless_flood_ends_early(settings):
    def flood(connection):
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"220-flood\r\n" * 1000)

    assert look_at(Face(on_connect=flood), settings).code == "not_smtp"


def test_the_whole_test_has_a_limit_too(settings):
    seen = look_at(Face(on_connect=hold), dataclasses.replace(settings, total_timeout=SOON))
    assert (seen.code, seen.message) == ("timeout", "no end within 0.3 s")


def test_a_host_that_does_not_answer_at_all(settings):
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)  # Linux drops what does not fit
        for _ in range(4):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        seen = handshake_one(Target("127.0.0.1", port), dataclasses.replace(settings, timeout=SOON))
    assert (seen.code, seen.stage, seen.message) == ("timeout", Stage.CONNECT, "no connection within 0.3 s")


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"on_connect": lambda connection: None}, Stage.CONNECT),
        ({"on_starttls": hang_up}, Stage.STARTTLS_ANSWERED),
        ({"in_tls": hang_up}, Stage.TLS),
    ],
)
def test_a_server_that_hangs_up(face, settings, changes, stage):
    seen = look_at(dataclasses.replace(face, **changes), settings)
    assert (seen.code, seen.stage) == ("connection_closed", stage)
    assert seen.message.startswith(f"the server closed the connection after {stage.label}")
    assert len(seen.chain) == (2 if stage is Stage.TLS else 0)


def test_a_server_that_resets_the_connection(settings):
    def reset(connection):
        connection.sendall(b"220 hello\r\n")
        connection.recv(4096)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    seen = look_at(Face(on_connect=reset), settings)
    assert (seen.code, seen.stage) == ("connection_closed", Stage.GREETING)
    assert "reset" in seen.message.lower()


@pytest.mark.parametrize("garbage", [b"\x00" * 600, b"500 5.5.1 what is this?\r\n", b"\x15\x03\x03\x00\x02\x02\x28"])
def test_garbage_in_place_of_a_handshake(settings, garbage):
    seen = look_at(Face(on_starttls=say(garbage)), settings)
    assert (seen.code, seen.stage) == ("tls_failed", Stage.STARTTLS_ANSWERED)
    assert seen.message.startswith("the TLS handshake failed: ") and "_" not in seen.message
    assert (seen.trusted, seen.chain) == (None, ())


def test_a_server_with_nothing_in_common(settings, directory, good):
    context = server_context(directory, good)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")  # and an ECDSA key
    seen = look_at(Face(context=context), settings)
    assert (seen.code, seen.stage, seen.completed) == ("tls_failed", Stage.STARTTLS_ANSWERED, False)
    assert "alert handshake failure" in seen.message


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_requires_a_client_certificate(settings, directory, good, authority, version):
    context = server_context(directory, good, client_ca=authority.root_pem)
    context.maximum_version = version
    seen = look_at(Face(context=context), settings)
    assert (seen.code, seen.completed, seen.client_certificate) == ("client_certificate_required", False, "required")
    assert "certificate required" in seen.message or "handshake failure" in seen.message
    assert (seen.trusted, len(seen.chain), seen.tls_version) == (True, 2, version.name.replace("_", "."))


def test_plaintext_injected_behind_the_220_is_never_taken_for_an_answer_inside_tls(face, settings):
    seen = look_at(dataclasses.replace(face, starttls=face.starttls + reply(250, "evil", "AUTH PLAIN")), settings)
    assert (seen.code, seen.stage) == ("plaintext_after_220", Stage.STARTTLS_ADVERTISED)
    assert "AUTH PLAIN" in seen.message
    assert seen.capabilities_tls == () and not seen.completed


def test_plaintext_injected_a_moment_later_is_never_taken_for_one_either(settings):
    seen = look_at(Face(on_starttls=say(reply(250, "evil", "AUTH PLAIN"))), settings)
    assert (seen.code, seen.capabilities_tls, seen.completed) == ("tls_failed", (), False)


def test_a_server_that_closes_tls_before_its_answer(face, settings):
    def close_tls(secure):
        secure.recv(4096)
        with contextlib.suppress(OSError):
            secure.unwrap()

    seen = look_at(dataclasses.replace(face, in_tls=close_tls), settings, seconds=1.0)
    assert (seen.code, seen.stage) == ("connection_closed", Stage.TLS)


# Many targets


def test_fifty_slow_greetings_take_the_time_of_one(face, settings):
    with serving(dataclasses.replace(face, delay=SOON)) as server:
        started = time.monotonic()
        seen = handshake_all([Target(server.host, server.port)] * 50, settings)
        passed = time.monotonic() - started
    assert [one.trusted for one in seen] == [True] * 50
    assert passed < 50 * SOON / 3


def test_results_come_in_the_order_of_the_targets_and_progress_is_told(face, settings):
    done = []
    with serving(dataclasses.replace(face, delay=SOON)) as slow, serving(face) as quick, serving(PLAIN) as plain:
        targets = [Target(one.host, one.port) for one in (slow, quick, plain, quick)]
        targets.insert(1, Target("127.0.0.1", refused_port()))
        seen = handshake_all(targets, settings, done.append)
    assert [one.target for one in seen] == targets
    assert [one.code for one in seen] == ["", "connect_failed", "", "starttls_not_offered", ""]
    assert done == [1, 2, 3, 4, 5]


def test_no_more_at_a_time_than_allowed(face, settings):
    lock, at_once, most = threading.Lock(), 0, 0

    def count(connection):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.03)
        with lock:
            at_once -= 1
        connection.sendall(b"421 4.3.2 busy\r\n")

    with serving(Face(on_connect=count)) as server:
        seen = handshake_all([Target(server.host, server.port)] * 12, dataclasses.replace(settings, concurrency=3))
    assert [one.code for one in seen] == ["greeting_rejected"] * 12
    assert 1 <= most <= 3


def test_no_targets():
    assert handshake_all([], Settings()) == []


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=4))
def test_no_plaintext_peer_makes_a_session_raise_anything_unexpected(pieces):
    session = handshake.DialogueSession(Target("h"), Settings(helo_name="c"), make_context(None, verify=False))
    with contextlib.suppress(handshake.DialogueError):
        for piece in [b"220 x\r\n", b"250-x\r\n250 STARTTLS\r\n", b"220 go\r\n", *pieces]:
            session.receive(piece)
    assert not session.finished


# Waiting for a state


def test_waiting_ends_as_soon_as_the_condition_holds(face, settings):
    with serving(PLAIN) as server:

        def condition(seen):
            server.face = face  # the daemon has reloaded by the next look
            return seen.completed

        started = time.monotonic()
        seen = wait_until(condition, Target(server.host, server.port), settings, 30)
    assert seen.completed
    assert time.monotonic() - started < 10


def test_waiting_ends_with_the_last_look_when_the_time_is_over(settings):
    with serving(PLAIN) as server:
        started = time.monotonic()
        seen = wait_until(lambda one: one.completed, Target(server.host, server.port), settings, SOON)
        assert server.connections > 1
    assert seen.code == "starttls_not_offered"
    assert SOON <= time.monotonic() - started < 10


def test_without_time_there_is_one_look(settings):
    with serving(PLAIN) as server:
        wait_until(lambda one: one.completed, Target(server.host, server.port), settings, 0)
        assert server.connections == 1


# Targets


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("mail.example.com", "mail.example.com", 25, "mail.example.com:25"),
        ("mail.example.com.", "mail.example.com.", 25, "mail.example.com.:25"),
        ("mail.example.com:587", "mail.example.com", 587, "mail.example.com:587"),
        ("mail_1", "mail_1", 25, "mail_1:25"),
        ("192.0.2.1", "192.0.2.1", 25, "192.0.2.1:25"),
        ("192.0.2.1:65535", "192.0.2.1", 65535, "192.0.2.1:65535"),
        ("2001:db8::1", "2001:db8::1", 25, "[2001:db8::1]:25"),
        ("[2001:db8::1]", "2001:db8::1", 25, "[2001:db8::1]:25"),
        ("[2001:db8::1]:2525", "2001:db8::1", 2525, "[2001:db8::1]:2525"),
        ("[192.0.2.1]:1", "192.0.2.1", 1, "192.0.2.1:1"),
        ("[relay.example.com]:26", "relay.example.com", 26, "relay.example.com:26"),
        ("fe80::1%eth0", "fe80::1%eth0", 25, "[fe80::1%eth0]:25"),
    ],
)
def test_targets_that_are_understood(text, host, port, shown):
    target = Target.parse(text)
    assert (target.host, target.port, str(target)) == (host, port, shown)
    assert Target.parse(shown) == target


def test_a_default_port_and_a_name_for_a_target():
    target = Target.parse("192.0.2.1", NAME + ".", default_port=587)
    assert (target.port, target.server_name) == (587, NAME)
    assert Target.parse("mx.example.com.").server_name == "mx.example.com"


BAD_TARGETS = [
    "", ":25", "[]", "[]:25", "mail.example.com\n", "mail\n.example.com:25", "mail.example.com:25\n", "-oProxy",
    "-oProxyCommand=x:25", "mail.example.com:0", "mail.example.com:70000", "mail.example.com:65536",
    "mail.example.com:", "mail.example.com:smtp", "mail.example.com:-1", "mail.example.com:000025", "[::1", "::1]",
    "[::1]x", "[::1]:", "[::g]:25", "a b", "a;b", "a,b", "a/b", "inet:host:25", "host:25:25", "münchen.example", "a\0b",
    ".example.com", "a-", "a" * 300, "mail.example.com:٢٥", "$(id)", "::1\n",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_TARGETS)
def test_targets_that_are_refused(text):
    with pytest.raises(TargetError) as caught:
        Target.parse(text)
    assert str(caught.value).isprintable()


def test_a_target_error_says_what_is_wrong():
    for text, wrong in (
        ("-oProxy", "the host '-oProxy' is neither a host name nor an IP address"),
        ("mail.example.com:70000", "the port 70000 of mail.example.com is not between 1 and 65535"),
        ("", "a target needs a host"),
    ):
        with pytest.raises(TargetError) as caught:
            Target.parse(text)
        assert str(caught.value) == wrong


@pytest.mark.parametrize("name", ["-x", "a b", "mail\nexample", "*.example.com"])
def test_names_that_are_refused(name):
    with pytest.raises(TargetError, match="the name"):
        Target.parse("mail.example.com", name)


@pytest.mark.parametrize("text", ["fe80::1%\nrelayhost=evil", "[fe80::1%\nx]:25", "fe80::1%a b", "::1%\0"])
def test_a_zone_cannot_smuggle_anything_in(text):
    with pytest.raises(TargetError):
        Target.parse(text)


@given(st.text(st.characters(codec="utf-8", exclude_characters="%"), max_size=40))
def test_any_text_is_a_target_or_a_target_error(text):
    with contextlib.suppress(TargetError):
        target = Target.parse(text)
        shown = str(target)
        assert shown.isprintable() and shown.isascii() and " " not in shown
        assert not target.host.startswith("-")
        assert Target.parse(shown) == target


# The result as data, and the pieces


def test_the_result_as_data(face, settings, good):
    result = look_at(face, settings).to_dict()
    assert json.loads(json.dumps(result)) == result
    assert result["stage"] == "ehlo_tls"
    assert (result["host"], result["name"]) == ("127.0.0.1", NAME)
    assert result["starttls_advertised"] is True and result["completed"] is True
    assert "".join(result["chain_pem"]) == good.fullchain_pem.decode()
    assert result["fingerprint_sha256"] == hashlib.sha256(der(good.certificate)).hexdigest()


def test_the_result_of_nothing_as_data():
    result = Handshake(Target("mx.example.com")).to_dict()
    assert (result["stage"], result["completed"], result["starttls_advertised"]) == ("connect", False, False)
    assert (result["trusted"], result["fingerprint_sha256"], result["chain_pem"]) == (None, "", [])


def test_the_strictness_is_the_same_on_every_python(authority):
    context = make_context(authority.root_pem.decode(), verify=True)
    assert context.verify_mode is ssl.CERT_REQUIRED and not context.check_hostname
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert len(context.get_ca_certs()) == 1  # and none of the machine's
    lax = make_context(None, verify=False)
    assert lax.verify_mode is ssl.CERT_NONE and lax.get_ca_certs() == []


class Public:
    """Python 3.13: a method of the object itself, DER."""

    @staticmethod
    def get_unverified_chain():
        return [b"leaf", b"issuer"]


class LeafOnly:
    """Python 3.9: no chain."""

    def __init__(self, leaf):
        self.leaf = leaf

    def getpeercert(self, binary_form):
        assert binary_form
        return self.leaf


def test_the_chain_as_each_python_tells_it():
    assert served_chain(Public()) == (b"leaf", b"issuer")
    assert served_chain(LeafOnly(b"leaf")) == (b"leaf",)
    assert served_chain(LeafOnly(None)) == ()
