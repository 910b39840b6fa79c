"""The policy service that knows how a message arrived: its answers, and the program as spawn(8) runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.gateway import arrival_policy

DESTINATION = "mailfleet-arrived:[127.0.0.1]:10125"
FILTER = f"action=FILTER {DESTINATION}\n\n"
DUNNO = "action=DUNNO\n\n"
PLAIN = "request=smtpd_access_policy\nprotocol_state=RCPT\nencryption_protocol=\nencryption_cipher=\n\n"
TLS = PLAIN.replace("encryption_protocol=\n", "encryption_protocol=TLSv1.3\n")


def answers(text):
    return list(arrival_policy.answers(text.splitlines(keepends=True), DESTINATION))


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
    ],
)
def test_answers(text, expected):
    assert answers(text) == expected


def serve(data, **environment):
    return subprocess.run(
        [sys.executable, "-I", str(Path(arrival_policy.__file__).resolve()), DESTINATION],
        input=data,
        capture_output=True,
        timeout=20,
        check=False,
        env={"PATH": os.environ["PATH"], "LANG": "C", **environment},
    )


def test_the_program_answers_on_standard_output():
    done = serve((TLS + PLAIN + "junk\n\n" + TLS + "sender=unfinished").encode())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == FILTER + DUNNO + DUNNO + FILTER


def test_bytes_that_are_no_text_do_not_end_it():
    done = serve(b"sender=\xfc@example.com\n" + TLS.encode() + b"helo_name=\xff\xfe\n\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == FILTER + DUNNO


def test_it_answers_while_the_connection_stays_open():
    command = [sys.executable, "-I", str(Path(arrival_policy.__file__).resolve()), DESTINATION]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for request, expected in ((TLS, FILTER), (PLAIN, DUNNO)):
            process.stdin.write(request.encode())
            process.stdin.flush()
            answer = process.stdout.readline() + process.stdout.readline()
            assert answer.decode() == expected
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.mark.parametrize("rest", ["encryption_protocol=TLSv1.3", ""])
def test_the_rest_of_a_long_line_is_no_line(rest):
    padding = "sender=".ljust(arrival_policy.MAX_LINE, "x")
    assert serve((padding + rest + "\nencryption_cipher=\n\n").encode()).stdout.decode() == DUNNO
