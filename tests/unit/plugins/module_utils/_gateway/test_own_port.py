"""What a gateway's own port shows, asked over the network."""

import socket
import threading
import time

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import EnforcedDomain, GatewayState
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.own_port import (
    ask,
    prove_answer,
    prove_refusal,
    require_answer,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.alarm import at_most
from tests.support.smtp_server import PLAIN, Face, SmtpServer, refused_port, reply, serving

SETTINGS = Settings(helo_name="gw.example", timeout=5, verify_trust=False)
IMPATIENT = Settings(helo_name="gw.example", timeout=0.3, total_timeout=0.3, verify_trust=False)
STATE = GatewayState(
    enforced=(
        EnforcedDomain("bank.example", "outbound"),
        EnforcedDomain("first.example", "inbound"),
        EnforcedDomain("second.example", "inbound"),
    )
)
REFUSAL = reply(451, "4.7.0 <x>: Sender address rejected: STARTTLS is required for this sender")
MUTE = Face(delay=5)
NO_EHLO = Face(greeting=b"554 5.7.1 no\r\n", ehlo=b"502 no\r\n")


def port_of(server):
    return Target("127.0.0.1", server.port)


class TestAnswer:
    @pytest.mark.parametrize("face", [PLAIN, Face()], ids=["plaintext", "STARTTLS that fails"])
    @pytest.mark.parametrize("look", [require_answer, prove_answer])
    def test_an_answer_to_ehlo_is_enough(self, look, face):
        with serving(face) as server, at_most(5):
            look(port_of(server), Settings(helo_name="gw.example", timeout=1, verify_trust=False))
            assert server.commands[0] == b"EHLO gw.example"

    def test_nobody_there_is_said_with_advice(self):
        target = Target("127.0.0.1", refused_port())
        with pytest.raises(EngineError) as error:
            require_answer(target, SETTINGS)
        assert str(error.value).startswith(f"the gateway does not answer on {target} (")
        assert str(error.value).endswith(
            "); name the address and port it listens on, because a change that cannot be proved is not made"
        )
        assert "Connection refused" in str(error.value)

    def test_nobody_there_after_the_change_is_said(self):
        target = Target("127.0.0.1", refused_port())
        with pytest.raises(
            EngineError, match=rf"^the gateway does not answer on {target} after the change: .*Connection refused"
        ):
            prove_answer(target, IMPATIENT)

    @pytest.mark.parametrize("face", [MUTE, NO_EHLO], ids=["mute", "no mail service"])
    @pytest.mark.parametrize("look", [require_answer, prove_answer])
    def test_somebody_who_says_nothing_of_use_is_no_answer(self, look, face):
        with serving(face) as server, at_most(10), pytest.raises(EngineError, match="the gateway does not answer on"):
            look(port_of(server), IMPATIENT)

    def test_the_proof_waits_for_a_gateway_that_starts(self):
        with serving() as former:
            port = former.port
        started = []

        def start():
            time.sleep(0.5)
            started.append(serve_on(port))

        thread = threading.Thread(target=start)
        thread.start()
        try:
            prove_answer(Target("127.0.0.1", port), SETTINGS)
        finally:
            thread.join(5)
            for server in started:
                server.close()

    def test_before_a_change_nothing_is_waited_for(self):
        started = time.monotonic()
        with pytest.raises(EngineError):
            require_answer(Target("127.0.0.1", refused_port()), SETTINGS)
        assert time.monotonic() - started < SETTINGS.timeout


def serve_on(port):
    """A server on a port that was free a moment ago."""

    class Here(SmtpServer):
        def __post_init__(self):
            import socket  # noqa: PLC0415

            create = socket.create_server
            socket.create_server = lambda _address, **options: create(("127.0.0.1", port), **options)
            try:
                super().__post_init__()
            finally:
                socket.create_server = create

    return Here(PLAIN)


class TestAsk:
    def test_the_answer_to_the_recipient(self):
        with serving(Face(rcpt=reply(451, "4.3.5 Server", "4.3.5 configuration error"))) as server:
            answer = ask(port_of(server), SETTINGS, "a@example.com", "postmaster@b.example")
        assert answer == (451, "4.3.5 Server\\x0a4.3.5 configuration error")
        assert [one.lower() for one in server.commands] == [
            b"ehlo gw.example", b"mail from:<a@example.com>", b"rcpt to:<postmaster@b.example>", b"quit",
        ]  # fmt: skip

    def test_the_empty_sender(self):
        with serving() as server:
            assert ask(port_of(server), SETTINGS, "", "postmaster") == (250, "2.1.5 Ok")
        assert [one.lower() for one in server.commands[1:3]] == [b"mail from:<>", b"rcpt to:<postmaster>"]

    def test_it_stays_in_plaintext_though_starttls_is_offered(self):
        with serving(Face()) as server:
            ask(port_of(server), SETTINGS, "", "postmaster")
        assert b"STARTTLS" not in [one.upper() for one in server.commands]

    @pytest.mark.parametrize("code", [400, 450, 530, 550])
    def test_the_answer_to_the_sender_if_that_is_refused(self, code):
        with serving(Face(mail=reply(code, "no such sender"))) as server:
            assert ask(port_of(server), SETTINGS, "a@example.com", "postmaster") == (code, "no such sender")
        assert not [one for one in server.commands if one.upper().startswith(b"RCPT")]

    def test_what_is_not_printable_is_escaped(self):
        with serving(Face(rcpt=b"550 \x1b[31m \xff no\r\n")) as server:
            code, text = ask(port_of(server), SETTINGS, "", "postmaster")
        assert code == 550
        assert text.isascii() and text.isprintable()
        assert "\\x1b[31m" in text

    @pytest.mark.parametrize(
        "face",
        [
            Face(greeting=b"554 5.3.2 no service\r\n"),
            Face(greeting=b"what\r\n"),
            Face(on_connect=lambda _connection: None),
            Face(rcpt=b""),
        ],
        ids=["refusing", "no SMTP", "hangs up at once", "mute at the recipient"],
    )
    def test_a_gateway_that_does_not_go_along_is_said(self, face):
        with (
            serving(face) as server,
            at_most(10),
            pytest.raises(EngineError, match=r"^the gateway does not take postmaster@b\.example: ."),
        ):
            ask(port_of(server), IMPATIENT, "", "postmaster@b.example")

    def test_nobody_there(self):
        target = Target("127.0.0.1", refused_port())
        with pytest.raises(EngineError, match=r"^the gateway does not take postmaster: .*refused"):
            ask(target, SETTINGS, "", "postmaster")


class TestRefusal:
    @pytest.mark.parametrize("face", [Face(mail=REFUSAL), Face(rcpt=REFUSAL)], ids=["the sender", "the recipient"])
    @pytest.mark.parametrize("code", [421, 450, 451, 499])
    def test_a_temporary_refusal_is_what_is_wanted(self, face, code):
        mail, rcpt = (one.replace(b"451 ", b"%d " % code) for one in (face.mail, face.rcpt))
        with serving(Face(mail=mail, rcpt=rcpt)) as server:
            prove_refusal(port_of(server), SETTINGS, STATE, "postmaster@b.example")
        assert server.commands[1].lower() == b"mail from:<postmaster@first.example>"

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (reply(250, "2.1.5 Ok"), "250 2.1.5 Ok"),
            (reply(550, "5.7.0 STARTTLS is required"), "550 5.7.0 STARTTLS is required"),
            (reply(530, "5.7.0 Must issue a STARTTLS command first"), "530 5.7.0 Must issue a STARTTLS command first"),
            (reply(354, "STARTTLS"), "354 STARTTLS"),
            (b"not STARTTLS\r\n", "-1 STARTTLS"),
        ],
    )
    def test_anything_else_is_said(self, answer, said):
        with serving(Face(rcpt=answer)) as server, pytest.raises(EngineError) as error:
            prove_refusal(port_of(server), IMPATIENT, STATE, "postmaster")
        assert str(error.value) == (
            f"the gateway answers mail from first.example in plaintext with {said}; see which restriction comes before "
            "the collection's"
        )

    @pytest.mark.parametrize("text", ["4.3.5 Server configuration error", "4.2.0 Greylisted", "4.7.1 STARTTLS"])
    def test_another_restriction_may_put_it_off_first(self, text):
        with serving(Face(rcpt=reply(450, text))) as server:
            prove_refusal(port_of(server), IMPATIENT, STATE, "postmaster")
        assert server.connections == 1

    def test_a_moment_without_a_listener_is_waited_for(self):
        """Exim starts itself anew to read its configuration."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with pytest.raises(EngineError, match="Connection refused"):
            prove_refusal(Target("127.0.0.1", port), IMPATIENT, STATE, "postmaster")
        started = []

        def begin():
            started.append(SmtpServer(Face(rcpt=REFUSAL), wanted_port=port))

        timer = threading.Timer(0.4, begin)
        timer.start()
        try:
            assert prove_refusal(Target("127.0.0.1", port), SETTINGS, STATE, "postmaster")
        finally:
            timer.join()
            started[0].close()

    def test_a_process_from_before_the_reload_may_answer_once_more(self):
        with serving(Face()) as server, at_most(10):
            timer = threading.Timer(0.4, lambda: setattr(server, "face", Face(rcpt=REFUSAL)))
            timer.start()
            prove_refusal(port_of(server), SETTINGS, STATE, "postmaster")
            assert server.connections > 1
            timer.join()

    def test_a_refusal_is_asked_for_once(self):
        with serving(Face(rcpt=REFUSAL)) as server:
            prove_refusal(port_of(server), SETTINGS, STATE, "postmaster")
            assert server.connections == 1

    @pytest.mark.parametrize("state", [GatewayState(), GatewayState(enforced=STATE.enforced[:1])])
    def test_without_enforced_senders_nothing_is_asked(self, state):
        with serving() as server:
            prove_refusal(port_of(server), SETTINGS, state, "postmaster")
        assert server.connections == 0
