import contextlib

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp import dialogue
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import (
    MAX_LINES,
    MAX_REPLY,
    MAX_REPLY_LINE,
    Dialogue,
    DialogueError,
    InjectionDialogue,
    Reply,
    ReplyReader,
    Stage,
    printable_bytes,
)
from hypothesis import example, given
from hypothesis import strategies as st

GREETING = b"220 mail.example.com ESMTP\r\n"
EHLO = b"250-mail.example.com\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 8BITMIME\r\n"
EHLO_PLAIN = b"250-mail.example.com\r\n250 PIPELINING\r\n"
READY = b"220 2.0.0 Ready\r\n"


def talk(*replies, ask_plaintext=False):
    """A dialogue that was given these replies, one call each, and what it said."""
    talker = Dialogue("client.example.org", ask_plaintext)
    said = []
    for reply in replies:
        talker.receive(reply)
        said.append(talker.take_output())
    return talker, said


def refusal(*replies, ask_plaintext=False):
    """How a dialogue failed, and where."""
    talker = Dialogue("client.example.org", ask_plaintext)
    for reply in replies[:-1]:
        talker.receive(reply)
    with pytest.raises(DialogueError) as caught:
        talker.receive(replies[-1])
    return caught.value.code, str(caught.value), talker


# The normal course


def test_nothing_is_said_before_the_greeting():
    talker = Dialogue("client.example.org")
    assert talker.take_output() == b""
    assert talker.stage is Stage.CONNECT


def test_the_whole_dialogue():
    talker, said = talk(GREETING, EHLO, READY)
    assert said == [b"EHLO client.example.org\r\n", b"STARTTLS\r\n", b""]
    assert (talker.stage, talker.wants_tls, talker.done) == (Stage.STARTTLS_ANSWERED, True, False)
    assert talker.capabilities == ("PIPELINING", "STARTTLS", "8BITMIME")
    assert (str(talker.greeting), str(talker.starttls_reply)) == ("220 mail.example.com ESMTP", "220 2.0.0 Ready")

    talker.tls_started()
    assert (talker.stage, talker.wants_tls) == (Stage.TLS, False)
    assert talker.take_output() == b"EHLO client.example.org\r\n"
    talker.receive(b"250-mail.example.com\r\n250 AUTH PLAIN\r\n")
    assert (talker.stage, talker.done) == (Stage.EHLO_TLS, True)
    assert talker.take_output() == b"QUIT\r\n"
    assert talker.take_output() == b""
    assert talker.capabilities_tls == ("AUTH PLAIN",)
    assert talker.requires_tls is None


def test_the_stages_have_stable_names_in_the_order_of_the_dialogue():
    assert [stage.label for stage in sorted(Stage)] == [
        "connect", "greeting", "ehlo", "starttls_advertised", "starttls_answered", "tls", "ehlo_tls", "mail",
        "rcpt",
    ]  # fmt: skip


def test_a_greeting_of_many_lines_is_answered_once_and_at_its_end():
    talker, said = talk(b"220-mail.example.com\r\n220-no spam\r\n", b"220 here\r\n")
    assert said == [b"", b"EHLO client.example.org\r\n"]
    assert str(talker.greeting) == "220 mail.example.com / no spam / here"


def test_a_reply_without_text():
    talker, _said = talk(b"220\r\n", b"250-\r\n250 STARTTLS\r\n", b"220 \r\n")
    assert talker.wants_tls
    assert (str(talker.greeting), talker.capabilities) == ("220", ("STARTTLS",))


def test_bare_line_feeds_are_accepted():
    talker, said = talk(*(one.replace(b"\r\n", b"\n") for one in (GREETING, EHLO, READY)))
    assert talker.wants_tls and talker.capabilities == ("PIPELINING", "STARTTLS", "8BITMIME")
    assert said[1] == b"STARTTLS\r\n"


def test_a_server_fed_byte_by_byte_is_understood_the_same():
    talker, said = talk(*(bytes([byte]) for byte in GREETING + EHLO + READY))
    assert b"".join(said) == b"EHLO client.example.org\r\nSTARTTLS\r\n"
    assert talker.wants_tls and talker.capabilities == ("PIPELINING", "STARTTLS", "8BITMIME")


def test_what_was_said_before_tls_does_not_count_inside_it():
    talker, _said = talk(GREETING, EHLO, READY)
    talker.receive(b"250 injected too late to be seen before the handshake\r\n")
    talker.tls_started()
    talker.receive(b"")
    assert (talker.done, talker.capabilities_tls) == (False, ())
    assert talker.capabilities == ("PIPELINING", "STARTTLS", "8BITMIME")


def test_a_name_outside_ascii_is_not_sent_raw():
    talker = Dialogue("münchen.example")
    talker.receive(GREETING)
    assert talker.take_output() == b"EHLO m?nchen.example\r\n"


# Refusals


@pytest.mark.parametrize("greeting", [b"421 4.3.2 try later\r\n", b"554 no\r\n", b"250 hello\r\n"])
def test_a_greeting_that_is_not_220(greeting):
    code, message, talker = refusal(greeting)
    assert code == "greeting_rejected"
    assert message == f"the server greets with {greeting.decode().strip()}"
    assert (talker.stage, talker.take_output()) == (Stage.CONNECT, b"")
    assert talker.greeting is not None


@pytest.mark.parametrize("answer", [b"502 5.5.2 not implemented\r\n", b"421 bye\r\n", b"220 what\r\n"])
def test_ehlo_is_refused(answer):
    code, message, talker = refusal(GREETING, answer)
    assert (code, talker.stage) == ("ehlo_rejected", Stage.GREETING)
    assert answer.decode().strip() in message


@pytest.mark.parametrize(
    "answer",
    [
        EHLO_PLAIN,
        b"250 mail.example.com\r\n",
        b"250 STARTTLS\r\n",  # the server's name, not an extension
        b"250-STARTTLS\r\n250 PIPELINING\r\n",
        b"250-mail\r\n250 XSTARTTLS\r\n",
        b"250-mail\r\n250 STARTTLSX\r\n",
        b"250-mail\r\n250 XTEXT no STARTTLS here\r\n",
        b"250-mail\r\n250 XXXXXXXX\r\n",  # what a certain firewall makes of it
    ],
)
def test_starttls_is_not_offered(answer):
    code, message, talker = refusal(GREETING, answer)
    assert (code, message) == ("starttls_not_offered", "the server does not offer STARTTLS")
    assert talker.stage is Stage.EHLO
    assert b"STARTTLS" not in talker.take_output()


@pytest.mark.parametrize("line", [b"STARTTLS", b"starttls", b"STARTTLS ", b"StartTLS required"])
def test_starttls_is_offered_in_any_case_and_with_parameters(line):
    talker, said = talk(GREETING, b"250-mail\r\n250-SIZE 1\r\n250 " + line + b"\r\n")
    assert said[1] == b"STARTTLS\r\n"
    assert talker.stage is Stage.STARTTLS_ADVERTISED


@pytest.mark.parametrize("answer", [b"454 4.7.0 TLS not available\r\n", b"503 5.5.1 no\r\n", b"250 ok\r\n"])
def test_starttls_is_offered_and_then_refused(answer):
    code, message, talker = refusal(GREETING, EHLO, answer)
    assert (code, talker.stage) == ("starttls_refused", Stage.STARTTLS_ADVERTISED)
    assert answer.decode().strip() in message
    assert str(talker.starttls_reply) == answer.decode().strip()
    assert not talker.wants_tls


@pytest.mark.parametrize("injected", [b"250-evil\r\n250 AUTH PLAIN\r\n", b"x", b"\n", b"\x16\x03"])
def test_anything_in_one_piece_with_the_220_is_reported_and_never_used(injected):
    code, message, talker = refusal(GREETING, EHLO, READY + injected)
    assert code == "plaintext_after_220"
    assert repr(printable_bytes(injected)) in message
    assert (talker.stage, talker.wants_tls) == (Stage.STARTTLS_ADVERTISED, False)


@pytest.mark.parametrize("answer", [b"503 5.5.1 say it again\r\n", b"421 bye\r\n"])
def test_ehlo_is_refused_inside_tls(answer):
    talker, _said = talk(GREETING, EHLO, READY)
    talker.tls_started()
    with pytest.raises(DialogueError, match="inside TLS, EHLO is answered with") as caught:
        talker.receive(answer)
    assert caught.value.code == "ehlo_tls_rejected"
    assert (talker.stage, talker.done) == (Stage.TLS, False)


# LMTP, and TLS from the start


def test_lmtp_says_lhlo():
    talker = Dialogue("client.example.org", protocol="lmtp")
    talker.receive(b"220 store.example.com LMTP\r\n")
    assert talker.take_output() == b"LHLO client.example.org\r\n"
    with pytest.raises(DialogueError, match="LHLO is answered with 502 what"):
        talker.receive(b"502 what?\r\n")


def test_smtps_wants_tls_first_and_is_greeted_inside_it():
    talker = Dialogue("client.example.org", protocol="smtps")
    assert talker.wants_tls and talker.take_output() == b""
    talker.tls_started()
    assert (talker.stage, talker.wants_tls, talker.take_output()) == (Stage.TLS, False, b"")
    talker.receive(GREETING)
    assert talker.take_output() == b"EHLO client.example.org\r\n"
    talker.receive(EHLO_PLAIN)
    assert (talker.stage, talker.done, talker.capabilities_tls) == (Stage.EHLO_TLS, True, ("PIPELINING",))
    assert str(talker.greeting) == "220 mail.example.com ESMTP"


def test_smtps_greeted_with_a_refusal():
    talker = Dialogue("client.example.org", protocol="smtps")
    talker.tls_started()
    with pytest.raises(DialogueError) as caught:
        talker.receive(b"421 busy\r\n")
    assert (caught.value.code, talker.stage) == ("greeting_rejected", Stage.TLS)


# Commands injected behind STARTTLS


def inject(*inside, before=(GREETING, EHLO, READY), error=None, tls_works=True, started=True):
    """What is said of a server that gives these answers; an error is how the connection ended, as a code."""
    talker = InjectionDialogue("client.example.org")
    ended = DialogueError(error, error) if error else None
    try:
        for answer in before:
            talker.receive(answer)
        if talker.wants_tls and started:
            talker.tls_started()
            for answer in inside:
                talker.receive(answer)
    except DialogueError as caught:
        ended = caught
    return talker.injected(ended, tls_works)


def test_a_command_goes_in_one_piece_with_starttls():
    talker = InjectionDialogue("client.example.org")
    talker.receive(GREETING)
    talker.take_output()
    talker.receive(EHLO)
    assert talker.take_output() == b"STARTTLS\r\nXPROBE\r\n"


@pytest.mark.parametrize(
    ("inside", "injected"),
    [
        ([EHLO_PLAIN, b"221 bye\r\n"], False),
        ([EHLO_PLAIN], False),  # and closes
        ([b"502 what?\r\n", EHLO_PLAIN, b"221 bye\r\n"], True),
        ([b"502 what?\r\n" + EHLO_PLAIN], True),
        ([b"250 whatever you say\r\n" + EHLO_PLAIN, b"221 bye\r\n"], True),
        ([EHLO_PLAIN + b"500 what?\r\n"], False),  # to QUIT: what was sent before is answered before
        ([EHLO_PLAIN, b"250 bye\r\n"], False),
        ([b"220 hello again\r\n", EHLO_PLAIN, b"221 bye\r\n"], False),
        ([b"220 hello again\r\n", b"502 what?\r\n", EHLO_PLAIN, b"221 bye\r\n"], True),
        ([b"503 no EHLO here\r\n", b"221 bye\r\n"], False),
        ([EHLO_PLAIN, b"421 too many errors\r\n"], False),
        ([b"502 what?\r\n"], None),  # to which of the two?
        ([b"421 bad command, bye\r\n"], None),
        ([b"221 bye\r\n"], None),
        ([], None),
        ([b"garbage\r\n"], None),
        ([b"250 x\r\n" * 20], True),
    ],
)
def test_answers_inside_tls_are_counted(inside, injected):
    assert inject(*inside) is injected


@pytest.mark.parametrize("error", ["connection_closed", "tls_failed", "timeout"])
def test_an_end_inside_tls_without_an_answer_says_nothing(error):
    assert inject(error=error) is None


@pytest.mark.parametrize("error", ["connection_closed", "tls_failed"])
@pytest.mark.parametrize("tls_works", [True, False])
def test_a_handshake_that_fails_is_a_no_if_it_succeeds_without_the_command(error, tls_works):
    assert inject(error=error, tls_works=tls_works, started=False) is (False if tls_works else None)


@pytest.mark.parametrize(
    ("before", "error", "injected"),
    [
        ((GREETING, EHLO, b"503 5.5.0 improper pipelining\r\n"), None, False),
        ((GREETING, EHLO, READY + b"502 what?\r\n"), None, False),  # answered, but not inside TLS
        ((GREETING, EHLO), "connection_closed", False),
        ((GREETING, EHLO), "timeout", None),
        ((GREETING, EHLO_PLAIN), None, None),
        ((GREETING,), "connection_closed", None),
        ((b"421 busy\r\n",), None, None),
        ((), "connect_failed", None),
    ],
)
def test_what_comes_before_tls(before, error, injected):
    assert inject(before=before, error=error) is injected


# Peers that do not speak SMTP


@pytest.mark.parametrize("stream", [b"\r\n", b"\n", b"220-mx.example\r\n\r\n220 x\r\n"])
def test_a_blank_line_is_named(stream):
    assert refusal(stream)[:2] == ("not_smtp", "a blank line, where every line of a reply has a code")


@pytest.mark.parametrize(
    "stream",
    [
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"+OK POP3 ready\r\n",
        b"* OK IMAP ready\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46\r\n",
        b"\x00" * 50 + b"\n",
        b"22\r\n",
        b"2200 x\r\n",
        b"220_x\r\n",
        b"22\xb2 x\r\n",
        b" 220 x\r\n",
    ],
)
def test_something_that_is_not_a_reply(stream):
    code, message, talker = refusal(stream)
    assert code == "not_smtp"
    assert message.startswith("not an SMTP reply: ")
    assert message.isprintable() and message.isascii()
    assert talker.greeting is None


def test_the_code_may_not_change_within_a_reply():
    code, message, _talker = refusal(b"220-hello\r\n554 no\r\n")
    assert (code, message) == ("not_smtp", "a reply changes its code from 220 to 554")


def test_a_reply_that_does_not_end():
    talker = Dialogue("client.example.org")
    with pytest.raises(DialogueError, match="does not end") as caught:
        for _ in range(MAX_LINES + 1):
            talker.receive(b"220-still here\r\n")
    assert caught.value.code == "not_smtp"


def test_a_reply_of_as_many_lines_as_are_allowed():
    talker, said = talk(b"220-x\r\n" * (MAX_LINES - 1) + b"220 x\r\n")
    assert said == [b"EHLO client.example.org\r\n"]
    assert talker.greeting is not None and len(talker.greeting.lines) == MAX_LINES


def test_a_reply_of_few_but_very_long_lines():
    line = b"220-" + b"x" * 4000 + b"\r\n"
    code, message, _talker = refusal(line * (MAX_REPLY // len(line) + 1))
    assert (code, message) == ("not_smtp", "the reply does not end")


@pytest.mark.parametrize("end", [b"", b"\r\n"])
def test_a_huge_line_is_refused_whether_or_not_it_ends(end):
    code, message, _talker = refusal(b"220 " + b"x" * MAX_REPLY_LINE + end)
    assert (code, message) == ("not_smtp", f"a reply line is longer than {MAX_REPLY_LINE} bytes")


def test_a_long_line_is_shown_cut_off():
    talker, _said = talk(b"220 " + b"x" * 3000 + b"\r\n")
    assert str(talker.greeting) == "220 " + "x" * 500 + "..."


def test_limits_hold_for_each_reply_and_not_for_all_of_them():
    reader = ReplyReader()
    for _ in range(3):
        reader.feed((b"250-" + b"x" * 200 + b"\r\n") * 200 + b"250 end\r\n")
        reply = reader.next_reply()
        assert reply is not None and len(reply.lines) == 201
    assert reader.rest == b""


def test_what_a_peer_says_is_shown_without_control_characters():
    assert printable_bytes(b"a\x1b[31m\r\n\x00\xff\\z") == r"a\x1b[31m\x0d\x0a\x00\xff\x5cz"
    assert str(Reply(220, ("a", "b"))) == "220 a / b"
    talker, _said = talk(b"220 \x1b]0;owned\x07\r\n")
    assert str(talker.greeting) == r"220 \x1b]0;owned\x07"


# Mail without TLS


@pytest.mark.parametrize(
    ("answer", "requires_tls"),
    [
        (b"530 5.7.0 Must issue a STARTTLS command first\r\n", True),
        (b"530 5.7.0 no\r\n", True),
        (b"430 4.7.0 STARTTLS first, please\r\n", True),
        (b"451-4.7.0 use\r\n451 4.7.0 starttls\r\n", True),
        (b"250 2.1.0 Ok\r\n", False),
        (b"250 2.1.0 Ok, and STARTTLS would be nice\r\n", False),
        (b"451 4.7.1 greylisted\r\n", None),
        (b"421 4.3.2 too busy\r\n", None),
        (b"550 5.7.1 no empty senders here\r\n", None),
        (b"252 2.1.0 perhaps\r\n", None),
    ],
)
def test_whether_mail_is_taken_without_tls(answer, requires_tls):
    talker, said = talk(GREETING, EHLO, answer, b"250 reset\r\n", READY, ask_plaintext=True)
    assert said == [b"EHLO client.example.org\r\n", b"MAIL FROM:<>\r\n", b"RSET\r\n", b"STARTTLS\r\n", b""]
    assert talker.requires_tls is requires_tls
    assert talker.wants_tls


def test_the_answer_to_rset_does_not_matter():
    talker, said = talk(GREETING, EHLO, b"250 ok\r\n", b"502 what?\r\n", ask_plaintext=True)
    assert said[-1] == b"STARTTLS\r\n"
    assert talker.requires_tls is False


def test_mail_without_tls_is_known_of_a_server_without_starttls_too():
    code, _message, talker = refusal(GREETING, EHLO_PLAIN, b"250 ok\r\n", b"250 ok\r\n", ask_plaintext=True)
    assert (code, talker.requires_tls) == ("starttls_not_offered", False)


# Any peer, in any pieces

FRAGMENTS = [
    GREETING, EHLO, EHLO_PLAIN, READY, b"220-", b"250-", b"250 ", b"250 ok\r\n", b"530 STARTTLS\r\n", b"454 no\r\n",
    b"421 bye\r\n", b"\r\n", b"\n", b"\r", b"STARTTLS", b"x" * 1000, b"250-x\r\n" * 60, b"\xff\x00", b"2", b"5",
]  # fmt: skip
streams = st.one_of(
    st.binary(max_size=300),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=8)), max_size=12).map(b"".join),
    st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(lambda parts: GREETING + EHLO + b"".join(parts)),
)


def outcome(pieces, ask_plaintext):
    """All that a dialogue shows after it was fed the pieces, in plaintext only."""
    talker = Dialogue("client.example.org", ask_plaintext)
    said, error = b"", None
    for piece in pieces:
        if talker.wants_tls:
            break  # what follows is TLS's
        try:
            talker.receive(piece)
        except DialogueError as caught:
            error = (caught.code, str(caught))
        said += talker.take_output()
        assert len(talker._reader._buffer) <= MAX_REPLY_LINE + len(piece)
        assert sum(map(len, talker._reader._lines)) <= 4 * MAX_REPLY
        if error:
            break
    return error, said, talker


@given(stream=streams, cuts=st.lists(st.integers(0, 2000), max_size=20), ask_plaintext=st.booleans())
@example(stream=GREETING + EHLO + READY + b"250 evil\r\n", cuts=[], ask_plaintext=False)
def test_the_pieces_do_not_change_the_result(stream, cuts, ask_plaintext):
    edges = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    pieces = [stream[start:end] for start, end in zip(edges, edges[1:])]
    error, said, whole = outcome([stream], ask_plaintext)
    error_2, said_2, pieced = outcome(pieces, ask_plaintext)
    if error and error[0] == "plaintext_after_220" and not error_2:
        # What comes in a piece of its own is TLS's to refuse.
        assert pieced.wants_tls
        return
    if error and error[0] == "plaintext_after_220":
        error, error_2 = error[:1], error_2[:1]  # a later piece may not have been seen
    assert (error, said) == (error_2, said_2)
    for name in ("stage", "greeting", "capabilities", "starttls_reply", "requires_tls", "wants_tls", "done"):
        assert getattr(whole, name) == getattr(pieced, name)


@given(plain=streams, inside=streams)
def test_no_peer_causes_anything_but_a_dialogue_error(plain, inside):
    talker = Dialogue("client.example.org", ask_plaintext=True)
    with contextlib.suppress(DialogueError):
        talker.receive(plain)
    if talker.wants_tls:
        talker.tls_started()
        with contextlib.suppress(DialogueError):
            talker.receive(inside)
        assert talker.done == (talker.stage is Stage.EHLO_TLS)
    assert talker.take_output().isascii()


@given(st.binary(max_size=2000))
def test_printable_is_one_bounded_line_of_ascii(data):
    text = printable_bytes(data, 100)
    assert text.isascii() and (text.isprintable() or not text)
    assert len(text) <= 4 * 100 + 3


def test_the_limits_are_those_that_the_documents_name():
    assert (dialogue.MAX_REPLY_LINE, dialogue.MAX_LINES, dialogue.MAX_REPLY) == (4096, 256, 65536)
