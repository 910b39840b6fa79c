"""The policy service that knows how a message arrived: its answers, and the program as spawn(8) runs it."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EnforcedDomain,
    GatewayState,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import arrival_policy
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.gateway import senders_map
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.replies import ENFORCED_SENDER
from hypothesis import given
from hypothesis import strategies as st

DESTINATION = "mailfleet-arrived:[127.0.0.1]:10125"
ENFORCED = "mailfleet-arrived:[127.0.0.1]:10127"
SENDERS = frozenset(("partner.example", "müller.example", "bank.example"))
FILTER = f"action=FILTER {DESTINATION}\n\n"
INSIST = f"action=FILTER {ENFORCED}\n\n"
REFUSE = "action=451 4.7.0 STARTTLS is required for this sender\n\n"
UNKNOWN = "action=451 4.3.5 Server configuration error\n\n"
DUNNO = "action=DUNNO\n\n"
PLAIN = "request=smtpd_access_policy\nprotocol_state=RCPT\nencryption_protocol=\nencryption_cipher=\n"
TLS = PLAIN.replace("encryption_protocol=\n", "encryption_protocol=TLSv1.3\n")
ARRIVAL, INSISTING, UNICODE = (f"policy_context={one}\n" for one in ("arrival", "enforced", "unicode"))


def answers(text, senders=SENDERS):
    return list(arrival_policy.answers(text.splitlines(keepends=True), DESTINATION, ENFORCED, lambda: senders))


def sent_by(sender, request=TLS, question=ARRIVAL):
    return f"sender={sender}\n{question}{request}\n"


@pytest.mark.parametrize("sender", ["", "a@other.example", "a@partner.example"])
@pytest.mark.parametrize(
    ("question", "over_tls", "plain"),
    [
        (ARRIVAL, FILTER, DUNNO),
        (INSISTING, INSIST, REFUSE),
        (UNICODE, DUNNO, DUNNO),
        ("", UNKNOWN, UNKNOWN),
        ("policy_context=\n", UNKNOWN, UNKNOWN),
        ("policy_context=enforced \n", UNKNOWN, UNKNOWN),
    ],
)
def test_the_question_decides_and_no_sender_in_ascii(sender, question, over_tls, plain):
    assert answers(sent_by(sender, TLS, question)) == [over_tls]
    assert answers(sent_by(sender, PLAIN, question)) == [plain]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("request=smtpd_access_policy\n\n", [UNKNOWN]),
        (sent_by("") + sent_by("", PLAIN) + sent_by(""), [FILTER, DUNNO, FILTER]),
        (f"junk without a sign\nmore junk\n{ARRIVAL}\n", [DUNNO]),
        (f"{ARRIVAL}encryption_protocol\n\n", [DUNNO]),
        (f"{ARRIVAL}sender=encryption_protocol=TLSv1.3\n\n", [DUNNO]),
        (f"{ARRIVAL}encryption_protocol_x=TLSv1.3\n\n", [DUNNO]),
        ("sender=policy_context=arrival\n\n", [UNKNOWN]),
        ("encryption_protocol=TLSv1.3", []),
        (TLS, []),
        ("", []),
    ],
)
def test_answers(text, expected):
    assert answers(text) == expected


def wide(text):
    """The same in full width, as keyboards of East Asia write it; the DNS knows it as the same name."""
    return "".join(chr(ord(char) + 0xFEE0) if char.isalnum() else char for char in text)


@pytest.mark.parametrize(
    "sender",
    [
        "a@müller.example", "A@MÜLLER.example", "a@mu\u0308ller.example", "a%müller.example", "müller.example!a", "a@müller.example.",
        "@relay.example:a@müller.example", "a@müller.example@localhost", f"a@{wide('bank')}.example", f"a%{wide('bank')}.example",
        f"a@{wide('BANK.EXAMPLE')}.", f"a@{wide('x')}n--mller-kva.example", "a@bank\u3002example", "a@bank\uff0eexample",
        "a@ba\u00adnk.example", "a@b\ufe0fank.example", "a@b\u034fank.example", "a@b\u180bank.example", "a@b\U000e0100ank.example",
        "a@b\u115fank.example", "a@b\u17b4ank.example", "a@b\u3164ank.example", "a@b\uffa0ank.example",
        "a@\u24d1ank.example", "a@\U0001d41bank.example",
    ],
)  # fmt: skip
def test_every_spelling_in_unicode_of_an_enforced_domain_is_that_domain(sender):
    assert answers(sent_by(sender, TLS, UNICODE)) == [INSIST]
    assert answers(sent_by(sender, PLAIN, UNICODE)) == [REFUSE]


@pytest.mark.parametrize(
    "sender",
    [
        "a@sub.müller.example", "a@xmüller.example", "a@müller.example.org", "ä@other.example", "a@muller.example",
        "ä%partner.example@x.example", "a@m\u0308ller.example", "\udcfc@partner.example.org",
    ],
)  # fmt: skip
def test_a_domain_is_meant_exactly(sender):
    assert answers(sent_by(sender, TLS, UNICODE)) == [DUNNO]
    assert answers(sent_by(sender, PLAIN, UNICODE)) == [DUNNO]


def test_the_refusal_is_the_one_that_is_promised():
    assert f"451 4.7.0 {ENFORCED_SENDER}" == arrival_policy.REFUSAL


def test_the_order_of_attributes_does_not_matter():
    assert answers(f"encryption_protocol=TLSv1.3\n{INSISTING}\n") == [INSIST]
    assert answers(f"{INSISTING}encryption_protocol=TLSv1.3\n\n") == [INSIST]
    assert answers(f"{INSISTING}encryption_protocol=\n\n") == [REFUSE]


REQUESTS = {
    sent_by("a@partner.example", PLAIN, INSISTING): REFUSE,
    sent_by("a@müller.example", TLS, UNICODE): INSIST,
    sent_by("", TLS, ""): UNKNOWN,
    sent_by("a@müller.example"): FILTER,
    sent_by("", PLAIN): DUNNO,
}


@given(st.lists(st.sampled_from(list(REQUESTS)), max_size=6))
def test_each_request_is_answered_by_itself(requests):
    assert answers("".join(requests)) == [REQUESTS[one] for one in requests]


class TestSenderDomains:
    def test_they_are_the_keys_of_the_table(self, tmp_path):
        domains = (EnforcedDomain("partner.example", "inbound"), EnforcedDomain("xn--mller-kva.example", "inbound"))
        (tmp_path / "senders").write_text(senders_map(GatewayState(enforced=domains)), encoding="utf-8")
        assert arrival_policy.sender_domains(str(tmp_path / "senders")) == {"partner.example", "müller.example"}

    @pytest.mark.parametrize("text", ["", "# a comment\n", "\n  \n# x\n", senders_map(GatewayState())])
    def test_none(self, tmp_path, text):
        (tmp_path / "senders").write_text(text)
        assert arrival_policy.sender_domains(str(tmp_path / "senders")) == frozenset()

    def test_no_table_is_none(self, tmp_path):
        assert arrival_policy.sender_domains(str(tmp_path / "senders")) == frozenset()


@pytest.fixture
def command(tmp_path):
    (tmp_path / "senders").write_text(
        "# Written\npartner.example mailfleet_arrival\nmüller.example mailfleet_arrival\n", "utf-8"
    )
    program = str(Path(arrival_policy.__file__).resolve())
    return [sys.executable, "-I", program, DESTINATION, ENFORCED, str(tmp_path / "senders")]


@pytest.fixture
def serve(command):
    def serve(data, **environment):
        return subprocess.run(
            command,
            input=data,
            capture_output=True,
            timeout=20,
            check=False,
            env={"PATH": os.environ["PATH"], "LANG": "C", **environment},
        )

    return serve


def test_the_program_answers_on_standard_output(serve):
    done = serve(("".join(REQUESTS) + "sender=unfinished").encode())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == "".join(REQUESTS.values())


@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "POSIX"}, {"PYTHONUTF8": "0", "LC_ALL": "C"}])
def test_a_sender_in_utf_8_is_known_in_every_locale(serve, environment):
    requests = sent_by("ä@müller.example", TLS, UNICODE) + sent_by("ä@müller.example", PLAIN, UNICODE)
    done = serve(requests.encode(), **environment)
    assert (done.returncode, done.stderr, done.stdout.decode()) == (0, b"", INSIST + REFUSE)


def test_without_a_list_no_spelling_is_enforced_but_the_table_still_decides(serve, command):
    Path(command[-1]).unlink()
    done = serve((sent_by("a@müller.example", PLAIN, UNICODE) + sent_by("a@b.example", PLAIN, INSISTING)).encode())
    assert (done.returncode, done.stderr, done.stdout.decode()) == (0, b"", DUNNO + REFUSE)


def test_bytes_that_are_no_text_do_not_end_it(serve):
    request = (UNICODE + TLS).encode()
    done = serve(b"sender=\xfc@example.com\n" + request + b"helo_name=\xff\xfe\nsender=\xff@partner.example\n\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == DUNNO
    done = serve(b"sender=\xff@m\xc3\xbcller.example\n" + request + b"\n")
    assert (done.returncode, done.stderr, done.stdout.decode()) == (0, b"", INSIST)


def test_it_answers_while_the_connection_stays_open(command):
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for request, expected in REQUESTS.items():
            process.stdin.write(request.encode())
            process.stdin.flush()
            answer = process.stdout.readline() + process.stdout.readline()
            assert answer.decode() == expected
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.mark.parametrize("rest", ["encryption_protocol=TLSv1.3", "", "policy_context=enforced"])
def test_the_rest_of_a_long_line_is_no_line(serve, rest):
    padding = "sender=".ljust(arrival_policy.MAX_LINE, "x")
    assert serve((f"{ARRIVAL}{padding}{rest}\nencryption_cipher=\n\n").encode()).stdout.decode() == DUNNO


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_line_of_any_length_is_one_line_and_the_next_request_is_whole(serve, times):
    long_line = "ccert_subject=" + "x" * (times * arrival_policy.MAX_LINE) + "\n"
    request = long_line + sent_by("a@partner.example") + sent_by("a@other.example", PLAIN)
    assert serve(request.encode()).stdout.decode() == FILTER + DUNNO


@pytest.mark.parametrize(("more", "expected"), [(-1, INSIST), (0, INSIST), (1, INSIST), (2, DUNNO)])
def test_a_line_that_just_fits_is_whole_and_the_next_one_a_line_of_its_own(serve, more, expected):
    name = "a" * (arrival_policy.MAX_LINE + more - len("sender=@müller.example\n"))
    assert serve(sent_by(f"{name}@müller.example", TLS, UNICODE).encode()).stdout.decode() == expected


def test_the_program_in_one_process(monkeypatch, command, capsys):
    """The same as above, where it can be measured."""
    monkeypatch.setattr(sys, "argv", command[2:])
    long_line = "ccert_subject=".ljust(2 * arrival_policy.MAX_LINE, "x") + "\n"
    requests = sent_by("") + long_line + sent_by("a@müller.example", PLAIN, UNICODE)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(requests.encode())))
    arrival_policy.main()
    assert capsys.readouterr().out == FILTER + REFUSE
