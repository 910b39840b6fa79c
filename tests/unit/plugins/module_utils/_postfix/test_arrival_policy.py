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
SENDERS = frozenset(("partner.example", "xn--mller-kva.example", "müller.example"))
FILTER = f"action=FILTER {DESTINATION}\n\n"
INSIST = f"action=FILTER {ENFORCED}\n\n"
REFUSE = "action=451 4.7.0 STARTTLS is required for this sender\n\n"
DUNNO = "action=DUNNO\n\n"
PLAIN = "request=smtpd_access_policy\nprotocol_state=RCPT\nencryption_protocol=\nencryption_cipher=\n\n"
TLS = PLAIN.replace("encryption_protocol=\n", "encryption_protocol=TLSv1.3\n")


def answers(text, senders=SENDERS):
    return list(arrival_policy.answers(text.splitlines(keepends=True), DESTINATION, ENFORCED, senders))


def sent_by(sender, request=TLS):
    return f"sender={sender}\n{request}"


@pytest.mark.parametrize("senders", [frozenset(), SENDERS])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TLS, [FILTER]),
        (PLAIN, [DUNNO]),
        ("request=smtpd_access_policy\n\n", [DUNNO]),
        (TLS + PLAIN + TLS, [FILTER, DUNNO, FILTER]),
        (TLS + "\n", [FILTER, DUNNO]),
        ("junk without a sign\nmore junk\n\n", [DUNNO]),
        ("junk\n" + TLS, [FILTER]),
        ("encryption_protocol\n\n", [DUNNO]),
        ("sender=encryption_protocol=TLSv1.3\n\n", [DUNNO]),
        ("encryption_protocol_x=TLSv1.3\n\n", [DUNNO]),
        ("encryption_protocol=TLSv1.3", []),
        (TLS.rstrip("\n") + "\n", []),
        ("", []),
        (sent_by(""), [FILTER]),
        (sent_by("", PLAIN), [DUNNO]),
        (sent_by("a@other.example"), [FILTER]),
        (sent_by("a@other.example", PLAIN), [DUNNO]),
    ],
)
def test_answers(text, expected, senders):
    assert answers(text, senders) == expected


@pytest.mark.parametrize(
    "sender",
    ["a@partner.example", "a@PARTNER.Example", "a@partner.example.", '"x@y"@partner.example', "@partner.example", "a@müller.example",
     "A@MÜLLER.example", "a@xn--mller-kva.example", "a@XN--MLLER-KVA.EXAMPLE", "a=b@partner.example"],
)  # fmt: skip
def test_an_enforced_sender_insists_over_tls_and_is_put_off_in_plaintext(sender):
    assert answers(sent_by(sender)) == [INSIST]
    assert answers(sent_by(sender, PLAIN)) == [REFUSE]


@pytest.mark.parametrize(
    "sender",
    ["", "a", "a@sub.partner.example", "a@xpartner.example", "a@partner.example.org", "a@example", "a@partner.example@x.example",
     "a@partner.example ", "a@partner", "partner.example@", "a@mueller.example"],
)  # fmt: skip
def test_a_domain_is_meant_exactly(sender):
    assert answers(sent_by(sender)) == [FILTER]
    assert answers(sent_by(sender, PLAIN)) == [DUNNO]


def test_the_refusal_is_the_one_that_is_promised():
    assert f"451 4.7.0 {ENFORCED_SENDER}" == arrival_policy.REFUSAL


def test_the_order_of_attributes_does_not_matter():
    assert answers("encryption_protocol=TLSv1.3\nsender=a@partner.example\n\n") == [INSIST]
    assert answers("encryption_protocol=\nsender=a@partner.example\n\n") == [REFUSE]


def test_one_request_leaves_nothing_to_the_next():
    requests = [
        sent_by("a@partner.example"),
        PLAIN,
        sent_by("a@partner.example", PLAIN),
        TLS,
        PLAIN,
        sent_by("b@partner.example"),
    ]
    assert answers("".join(requests)) == [INSIST, DUNNO, REFUSE, FILTER, DUNNO, INSIST]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["", "a@partner.example", "a@other.example"])), max_size=6))
def test_each_request_is_answered_by_itself(requests):
    texts = [sent_by(sender, TLS if tls else PLAIN) for tls, sender in requests]
    assert answers("".join(texts)) == [answer for text in texts for answer in answers(text)]
    assert len(answers("".join(texts))) == len(requests)


class TestSenderDomains:
    def test_they_are_the_keys_of_the_table(self, tmp_path):
        domains = (EnforcedDomain("partner.example", "inbound"), EnforcedDomain("xn--mller-kva.example", "inbound"))
        (tmp_path / "senders").write_text(senders_map(GatewayState(enforced=domains)), encoding="utf-8")
        assert arrival_policy.sender_domains(str(tmp_path / "senders")) == SENDERS

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
    requests = TLS + PLAIN + "junk\n\n" + sent_by("a@partner.example") + sent_by("a@Partner.example", PLAIN) + TLS
    done = serve((requests + "sender=unfinished").encode())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == FILTER + DUNNO + DUNNO + INSIST + REFUSE + FILTER


@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "POSIX"}, {"PYTHONUTF8": "0", "LC_ALL": "C"}])
def test_a_sender_in_utf_8_is_known_in_every_locale(serve, environment):
    done = serve((sent_by("ä@müller.example") + sent_by("ä@müller.example", PLAIN)).encode(), **environment)
    assert (done.returncode, done.stderr, done.stdout.decode()) == (0, b"", INSIST + REFUSE)


def test_without_a_table_nobody_is_enforced(serve, command):
    Path(command[-1]).unlink()
    done = serve((sent_by("a@partner.example") + sent_by("a@partner.example", PLAIN)).encode())
    assert (done.returncode, done.stderr, done.stdout.decode()) == (0, b"", FILTER + DUNNO)


def test_bytes_that_are_no_text_do_not_end_it(serve):
    done = serve(b"sender=\xfc@example.com\n" + TLS.encode() + b"helo_name=\xff\xfe\nsender=\xff@partner.example\n\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == FILTER + REFUSE


def test_it_answers_while_the_connection_stays_open(command):
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for request, expected in ((TLS, FILTER), (PLAIN, DUNNO), (sent_by("a@partner.example"), INSIST)):
            process.stdin.write(request.encode())
            process.stdin.flush()
            answer = process.stdout.readline() + process.stdout.readline()
            assert answer.decode() == expected
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.mark.parametrize("rest", ["encryption_protocol=TLSv1.3", "", "sender=a@partner.example"])
def test_the_rest_of_a_long_line_is_no_line(serve, rest):
    padding = "sender=".ljust(arrival_policy.MAX_LINE, "x")
    assert serve((padding + rest + "\nencryption_cipher=\n\n").encode()).stdout.decode() == DUNNO


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_line_of_any_length_is_one_line_and_the_next_request_is_whole(serve, times):
    long_line = "ccert_subject=" + "x" * (times * arrival_policy.MAX_LINE) + "\n"
    request = long_line + sent_by("a@partner.example") + sent_by("a@other.example", PLAIN)
    assert serve(request.encode()).stdout.decode() == INSIST + DUNNO


@pytest.mark.parametrize(("more", "expected"), [(-1, INSIST), (0, INSIST), (1, INSIST), (2, FILTER)])
def test_a_line_that_just_fits_is_whole_and_the_next_one_a_line_of_its_own(serve, more, expected):
    name = "a" * (arrival_policy.MAX_LINE + more - len("sender=@partner.example\n"))
    assert serve((f"sender={name}@partner.example\n" + TLS).encode()).stdout.decode() == expected


def test_the_program_in_one_process(monkeypatch, command, capsys):
    """The same as above, where it can be measured."""
    monkeypatch.setattr(sys, "argv", command[2:])
    long_line = "ccert_subject=".ljust(2 * arrival_policy.MAX_LINE, "x") + "\n"
    requests = TLS + sent_by("a@partner.example") + long_line + sent_by("a@partner.example", PLAIN)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(requests.encode())))
    arrival_policy.main()
    assert capsys.readouterr().out == FILTER + INSIST + REFUSE
