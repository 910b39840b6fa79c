"""The proof that reaches to RCPT, with a server that answers as Exchange and Exchange Online do."""

import json
import ssl
from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.envelope import (
    EnvelopeError,
    EnvelopeProof,
    check_address,
    prove_envelope,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import ENVELOPE_REPLY_CHARS

from tests.support.alarm import at_most
from tests.support.smtp_server import Face, refused_port, reply, server_context, serving

NAME = "mail.example.com"
SENDER, RECIPIENT = "proof@relay.example.org", "postmaster@example.com"
DENIED = "550 5.7.64 TenantAttribution; Relay Access Denied [HOST.prod.exchange.example 2026-01-01T00:00:00.000Z 08DE0]"
YES = {b"MAIL": b"250 2.1.0 Sender OK\r\n", b"RCPT": b"250 2.1.5 Recipient OK\r\n", b"RSET": b"250 2.0.0 Resetting\r\n"}
COMMANDS = [f"MAIL FROM:<{SENDER}>".encode(), f"RCPT TO:<{RECIPIENT}>".encode(), b"RSET", b"QUIT"]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def settings(authority):
    return Settings(ca_pem=authority.root_pem.decode(), helo_name="relay.example.org", timeout=10, total_timeout=20)


@pytest.fixture(scope="module")
def certificates(authority, directory):
    """Files with a client certificate: whole, without its intermediate, of another name, and with the key apart."""
    good, other = authority.issue(["relay.example.org"]), authority.issue(["other.example.net"])
    files = {
        "whole": good.fullchain_pem + good.key_pem,
        "leaf alone": good.certificate_pem + good.key_pem,
        "other": other.fullchain_pem + other.key_pem,
        "certificate": good.fullchain_pem,
        "key": good.key_pem,
        "locked key": good.encrypted_key_pem("secret"),
        "nothing": b"no PEM\n",
    }
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return {name: str(directory / name) for name in [*files, "missing"]}


@pytest.fixture(scope="module")
def context(authority, directory):
    return context_of(authority, directory)


def context_of(authority, directory, version=None, asks=ssl.CERT_OPTIONAL):
    """A server that asks for a client certificate, as Exchange Online does."""
    context = server_context(directory, authority.issue([NAME]), client_ca=authority.root_pem)
    context.verify_mode = asks
    if version:
        context.minimum_version = context.maximum_version = version
    return context


def attributes(forgets=False):
    """Answers RCPT by the name of the client certificate. forgets: not on a resumed session."""

    def answer(connection):
        names = [value for _kind, value in (connection.getpeercert() or {}).get("subjectAltName", ())]
        known = "relay.example.org" in names and not (forgets and connection.session_reused)
        return YES[b"RCPT"] if known else DENIED.encode() + b"\r\n"

    return {**YES, b"RCPT": answer}


def prove(server, settings, certificate="", **more):
    target = Target(server.host, server.port, NAME)
    with at_most(30):
        return prove_envelope(target, settings, SENDER, RECIPIENT, certificate, **more)


# The whole way


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recipient_is_accepted_twice_and_nothing_is_sent(version, authority, directory, settings, certificates):
    face = Face(context=context_of(authority, directory, version, ssl.CERT_REQUIRED), answers_tls=attributes())
    with serving(face) as server:
        proof = prove(server, settings, certificates["whole"])
        assert server.heard(b"QUIT", 2) == 2
    assert (proof.stage, proof.code, proof.enhanced, proof.fault, proof.accepted) == ("done", 250, "2.1.5", "", True)
    assert (proof.reply, proof.trusted, proof.asked) == ("250 2.1.5 Recipient OK", True, True)
    assert proof.tls_version == version.name.replace("_", ".")
    assert (proof.resumed, proof.second.resumed, proof.second.stage) == (True, True, "done")
    once = [b"EHLO relay.example.org", b"STARTTLS", b"EHLO relay.example.org", *COMMANDS]
    assert server.commands == once * 2
    assert (len(proof.chain), proof.second.asked) == (2, None)
    assert proof.second.chain in ((), proof.chain[:1])  # Python 3.9 has the leaf of a resumed session, too


def test_the_key_may_be_in_a_file_of_its_own(context, settings, certificates):
    with serving(Face(context=context, answers_tls=attributes())) as server:
        assert prove(server, settings, certificates["certificate"], client_key=certificates["key"]).accepted


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_that_forgets_the_certificate_of_a_resumed_session(
    version, authority, directory, settings, certificates
):
    face = Face(context=context_of(authority, directory, version), answers_tls=attributes(forgets=True))
    with serving(face) as server:
        proof = prove(server, settings, certificates["whole"])
    assert (proof.stage, proof.resumed, proof.accepted) == ("done", True, False)
    assert (proof.second.stage, proof.second.code, proof.second.enhanced) == ("rcpt", 550, "5.7.64")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_without_resumption_has_no_fault(version, authority, directory, settings, certificates):
    context = context_of(authority, directory, version)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    with serving(Face(context=context, answers_tls=attributes(forgets=True))) as server:
        proof = prove(server, settings, certificates["whole"])
    assert (proof.stage, proof.resumed, proof.accepted) == ("done", False, True)


def test_a_session_is_not_resumed_where_nobody_wants_that(context, settings, certificates):
    with serving(Face(context=context, answers_tls=attributes())) as server:
        proof = prove(server, settings, certificates["whole"], resume=False)
    assert (proof.accepted, proof.resumed, proof.second, server.connections) == (True, None, None, 1)


def test_a_second_session_that_does_not_come_to_tls_is_unknown(context, settings, certificates):
    face = Face(context=context, answers_tls=attributes())
    with serving(face) as server:

        def then_refuse(connection):
            server.face = replace(face, greeting=b"554 5.7.1 enough\r\n")
            return YES[b"RCPT"]

        server.face = replace(face, answers_tls={**YES, b"RCPT": then_refuse})
        proof = prove(server, settings, certificates["whole"])
    assert (proof.stage, proof.resumed, proof.accepted) == ("done", None, True)
    assert (proof.second.stage, proof.second.reply) == ("greeting", "554 5.7.1 enough")


# Where it ends


@pytest.mark.parametrize("certificate", ["", "other"])
def test_a_refusal_at_rcpt_is_kept_and_the_transaction_reset(certificate, context, settings, certificates):
    with serving(Face(context=context, answers_tls=attributes())) as server:
        proof = prove(server, settings, certificates.get(certificate, ""))
        assert server.heard(b"QUIT") == 1
    assert (proof.stage, proof.code, proof.enhanced, proof.fault) == ("rcpt", 550, "5.7.64", "refused")
    assert proof.reply == DENIED
    assert (proof.second, server.commands[-4:], server.connections) == (None, COMMANDS, 1)


@pytest.mark.parametrize(
    ("verb", "answer", "stage", "code", "enhanced"),
    [
        (b"MAIL", b"451 5.7.3 STARTTLS is required to send mail\r\n", "mail", 451, "5.7.3"),
        (b"MAIL", b"530 5.7.57 Client not authenticated to send mail\r\n", "mail", 530, "5.7.57"),
        (b"RCPT", b"454 4.7.0 Failed to establish appropriate TLS channel: [UntrustedRoot:] Access Denied\r\n", "rcpt", 454, "4.7.0"),
        (b"RCPT", b"550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain\r\n", "rcpt", 550, "5.7.54"),
        (b"RCPT", b"421 4.3.2 Service not available\r\n", "rcpt", 421, "4.3.2"),
        (b"RCPT", b"550-5.7.51 one\r\n550 5.7.51 two\r\n", "rcpt", 550, "5.7.51"),
        (b"RCPT", b"550 no enhanced status\r\n", "rcpt", 550, ""),
        (b"RCPT", b"550 5.7.64.9 that is none\r\n", "rcpt", 550, ""),
        (b"EHLO", b"503 5.5.2 Send hello first\r\n", "ehlo", 503, "5.5.2"),
    ],
)  # fmt: skip
def test_what_the_server_answers(verb, answer, stage, code, enhanced, context, settings):
    with serving(Face(context=context, answers_tls={**YES, verb: answer})) as server:
        proof = prove(server, settings)
    assert (proof.stage, proof.code, proof.enhanced, proof.accepted) == (stage, code, enhanced, False)
    assert proof.tls_version == "TLSv1.3"
    assert (b"RCPT" in b"".join(server.commands)) is (stage == "rcpt")


@pytest.mark.parametrize(
    ("changes", "stage", "code", "fault"),
    [
        ({"greeting": b"554 5.7.1 Go away\r\n"}, "greeting", 554, "greeting_rejected"),
        ({"ehlo": b"502 5.5.1 No\r\n"}, "ehlo", 502, "ehlo_rejected"),
        ({"capabilities": ("X-ANONYMOUSTLS",)}, "starttls", 0, "starttls_not_offered"),
        ({"starttls": b"454 4.7.0 TLS not available\r\n"}, "starttls", 454, "starttls_refused"),
        ({"on_starttls": lambda connection: connection.recv(9) and connection.sendall(b"250 what?\r\n")}, "handshake", 0, "tls_failed"),
        ({"on_starttls": lambda connection: None}, "handshake", 0, "connection_closed"),
        ({"in_tls": lambda connection: None}, "handshake", 0, "connection_closed"),
        ({"on_connect": lambda connection: connection.sendall(b"SSH-2.0-x\r\n")}, "greeting", 0, "not_smtp"),
    ],
)  # fmt: skip
def test_where_a_handshake_ends(changes, stage, code, fault, context, settings):
    with serving(replace(Face(context=context, answers_tls=YES), **changes)) as server:
        proof = prove(server, settings)
    assert (proof.stage, proof.code, proof.fault) == (stage, code, fault)
    assert proof.message and not proof.accepted


def test_nobody_listens(settings):
    proof = prove_envelope(Target("127.0.0.1", refused_port()), settings, SENDER, RECIPIENT)
    assert (proof.stage, proof.fault, proof.code) == ("connect", "connect_failed", 0)


@pytest.mark.parametrize(("verb", "stage"), [(b"MAIL", "mail"), (b"RCPT", "rcpt"), (b"RSET", "done")])
def test_no_answer_at_all(verb, stage, context, settings):
    with serving(Face(context=context, answers_tls={**YES, verb: b""})) as server:
        proof = prove(server, replace(settings, timeout=0.5))
    assert (proof.stage, proof.code) == (stage, 250 if stage == "done" else 0)
    assert proof.fault == ("" if stage == "done" else "timeout")


def test_a_server_that_closes_instead_of_an_answer_to_rcpt(context, settings):
    def close(connection):
        connection.close()
        raise OSError

    with serving(Face(context=context, answers_tls={**YES, b"RCPT": close})) as server:
        proof = prove(server, settings)
    assert (proof.stage, proof.code, proof.fault) == ("rcpt", 0, "connection_closed")


def test_a_certificate_that_the_server_insists_on(authority, directory, settings, certificates):
    face = Face(context=context_of(authority, directory, asks=ssl.CERT_REQUIRED), answers_tls=YES)
    with serving(face) as server:
        proof = prove(server, settings)
    assert (proof.stage, proof.fault, proof.asked) == ("handshake", "client_certificate_required", True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_chain_is_sent_as_it_is_in_the_file(version, authority, directory, settings, certificates):
    face = Face(context=context_of(authority, directory, version, ssl.CERT_REQUIRED), answers_tls=YES)
    with serving(face) as server:
        proof = prove(server, settings, certificates["leaf alone"])
    assert (proof.stage, proof.fault) == ("handshake", "client_certificate_refused")
    assert "refuses the certificate of the client" in proof.message


def test_a_server_that_asks_for_no_certificate(authority, directory, settings, certificates):
    face = Face(context=context_of(authority, directory, asks=ssl.CERT_NONE), answers_tls=YES)
    with serving(face) as server:
        assert prove(server, settings, certificates["whole"]).asked is False


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"ca_pem": None}, "handshake"),
        ({"verify_name": True}, "handshake"),
        ({"ca_pem": None, "verify_trust": False}, "done"),
    ],
)
def test_a_chain_that_openssl_refuses_ends_the_proof_before_mail(changes, stage, context, settings):
    with serving(Face(context=context, answers_tls=YES)) as server:
        target = Target(server.host, server.port, "another.example.com")
        proof = prove_envelope(target, replace(settings, **changes), SENDER, RECIPIENT)
    assert proof.stage == stage
    assert proof.trusted is (False if stage == "handshake" else None)
    assert (proof.fault == "untrusted") is (b"MAIL" not in b"".join(server.commands)) is (stage == "handshake")
    assert proof.chain


def test_without_addresses_it_ends_before_mail(context, settings, certificates):
    with serving(Face(context=context, answers_tls=YES)) as server:
        proof = prove_envelope(Target(server.host, server.port), settings, "", "", certificates["whole"])
        assert server.heard(b"QUIT") == 1
    assert (proof.stage, proof.fault, proof.accepted, proof.second) == ("mail", "not_tested", False, None)
    assert b"MAIL" not in b"".join(server.commands)


@pytest.mark.parametrize(
    "busy", [b"421 4.7.0 Error: too many connections\r\n", b"451 4.7.500 Server busy. Please try again later\r\n"]
)
def test_a_busy_server_is_asked_once_more(busy, context, settings, monkeypatch):
    settings = replace(settings, told=[])
    face = Face(context=context, answers_tls=YES)
    with serving(replace(face, greeting=busy)) as server:

        def wait(_seconds):
            server.face = face

        monkeypatch.setattr("time.sleep", wait)
        proof = prove(server, settings)
    assert proof.accepted and "was busy" in settings.told[0] and "went well" in settings.told[0]


# Hostile servers


@pytest.mark.parametrize(
    "answer",
    [
        b"550 5.7.64 \x1b[2J\x1b]0;owned\x07 \x00 \xff\xfe {{ lookup('pipe', 'id') }}\r\n",
        b"550-5.7.64 a\r\n" * 200 + b"550 5.7.64 end\r\n",
        reply(550, *["5.7.64 " + "x" * 500] * 100),
    ],
)
def test_an_answer_is_printable_and_short(answer, context, settings):
    with serving(Face(context=context, answers_tls={**YES, b"RCPT": answer})) as server:
        proof = prove(server, settings)
    assert (proof.stage, proof.code, proof.enhanced) == ("rcpt", 550, "5.7.64")
    assert proof.text.isprintable() and proof.text.isascii() and len(proof.text) <= ENVELOPE_REPLY_CHARS
    assert len(proof.message) <= ENVELOPE_REPLY_CHARS


@pytest.mark.parametrize(
    "answer", [b"550 " + b"x" * 10_000_000, b"550-5.7.64 more\r\n" * 600_000, b"\x00" * 10_000_000]
)
def test_an_answer_of_ten_megabytes_ends_the_proof(answer, context, settings):
    with serving(Face(context=context, answers_tls={**YES, b"RCPT": answer})) as server:
        proof = prove(server, settings)
    assert (proof.stage, proof.fault, proof.code) == ("rcpt", "not_smtp", 0)


@pytest.mark.parametrize(
    "address",
    [
        "", "nobody", "a@", "@example.com", "a@b c", "a b@example.com", "a@example.com\r\nDATA", "a\n@example.com", "<a@example.com>",
        "a@example.com>", "a@example.com\n", "\u00e4@example.com", "a@ex\u00e4mple.com", '"a b"@example.com', "a@b@example.com",
        "a@example.com SIZE=1", "a" * 65 + "@example.com", "a@-example.com", "a@example..com",
    ],
)  # fmt: skip
def test_an_address_that_could_carry_a_command_is_refused(address, settings):
    with pytest.raises(EnvelopeError, match="proof_sender"):
        check_address("proof_sender", address)
    for sender, recipient in ((address or "x", RECIPIENT), (SENDER, address or "x")):
        with pytest.raises(EnvelopeError):
            prove_envelope(Target("192.0.2.1"), settings, sender, recipient)


@pytest.mark.parametrize(
    ("certificate", "key", "says"),
    [
        ("nothing", "", "it is not PEM"),
        ("missing", "", "no such file"),
        ("certificate", "", "or has no certificate or no key"),
        ("certificate", "locked key", "without a passphrase"),
        ("other", "key", "key values mismatch"),
    ],
)
def test_a_certificate_file_that_cannot_be_used(certificate, key, says, settings, certificates):
    with pytest.raises(EnvelopeError, match=says) as error:
        prove_envelope(
            Target("192.0.2.1"), settings, SENDER, RECIPIENT, certificates[certificate], certificates.get(key, "")
        )
    assert certificates[certificate] in str(error.value)


# As plain data


def test_a_proof_survives_the_way_to_the_controller(context, settings):
    with serving(Face(context=context, answers_tls=YES)) as server:
        proof = prove(server, settings)
    assert proof.second
    assert EnvelopeProof.from_dict(json.loads(json.dumps(proof.to_dict()))) == proof


PROOF = EnvelopeProof("192.0.2.1", 25, "rcpt", 550, "5.7.64", "5.7.64 no", "refused", "RCPT is answered with 550 no")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stage", "data"), ("stage", None), ("code", "550"), ("code", True), ("code", -1), ("code", 10**30), ("port", "25"),
        ("text", 5), ("text", None), ("message", ["x"]), ("resumed", "yes"), ("trusted", 1), ("chain_pem", "x"), ("chain_pem", ["x"]),
        ("chain_pem", [""] * 1000), ("second", {}), ("second", "x"),
    ],
)  # fmt: skip
def test_a_host_that_lies_about_a_proof(key, value):
    with pytest.raises(ValueError):
        EnvelopeProof.from_dict({**PROOF.to_dict(), key: value})


def test_texts_of_a_host_are_cut_and_printable():
    nested = PROOF.to_dict()
    for _ in range(5):
        nested = {**PROOF.to_dict(), "second": nested}
    read = EnvelopeProof.from_dict({**nested, "text": "\x1b[1m" + "x" * 10_000_000})
    assert read.text == "?[1m" + "x" * (ENVELOPE_REPLY_CHARS - 4)
    assert read.second == PROOF
    assert EnvelopeProof.from_dict(PROOF.to_dict()).reply == "550 5.7.64 no"
