import sys
import time

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace import command as command_search
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.command import CommandMailbox, run_bounded
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.mailbox import MARKER_HEADER
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.alarm import at_most

HEADERS = f"Received: one\\nReceived: two\\n{MARKER_HEADER}: a\\n"


def python(code):
    return [sys.executable, "-c", code]


def look(output, markers=("a",)):
    return CommandMailbox(["printf", output], 10).look(markers)


@pytest.mark.parametrize(
    "output",
    [
        HEADERS,
        HEADERS + "\\nbody\\n",
        HEADERS.replace("\\n", "\\r\\n") + "\\r\\nbody",
        "From x  Mon\\n" + HEADERS + "\\nbody\\n",
        "hdr:\\n" + HEADERS + "\\n\\f\\n",  # doveadm -f pager
        f"hdr:\\nReceived: no\\n{MARKER_HEADER}: z\\n\\n\\f\\nhdr:\\n" + HEADERS + "\\n\\f\\n",
        f"From x\\n{MARKER_HEADER}: z\\n\\nbody\\n\\nFrom x\\n" + HEADERS + "\\nbody\\n",
        "\\n\\n" + HEADERS,
    ],
)
def test_a_message_in_what_a_command_prints(output):
    assert look(output) == {"a": ["one", "two"]}


@pytest.mark.parametrize(
    "output",
    [
        "",
        "\\n",
        "no such message\\n",
        "Received: one\\n\\n" + HEADERS,
        f"{MARKER_HEADER}: aa\\n",
        f"Subject: {MARKER_HEADER}: a\\n",
    ],
)
def test_what_is_not_the_message(output):
    assert look(output) == {}


def test_the_marker_goes_into_every_argument():
    place = CommandMailbox(["printf", f"{MARKER_HEADER}: %s\\nReceived: {{marker}}/{{marker}}\\n", "{marker}"], 10)
    assert place.look(["a", "b"]) == {"a": ["a/a"], "b": ["b/b"]}


def test_a_command_without_a_marker_is_run_once_for_all(tmp_path):
    code = (
        f"open({str(tmp_path / 'runs')!r}, 'a').write('x'); print('{MARKER_HEADER}: a\\n\\fX: y\\n{MARKER_HEADER}: b')"
    )
    assert sorted(CommandMailbox(python(code), 10).look(["a", "b", "c"])) == ["a", "b"]
    assert (tmp_path / "runs").read_text() == "x"


def test_there_is_no_shell(tmp_path):
    CommandMailbox(["echo", f"$(touch {tmp_path}/a)", ";", "touch", f"{tmp_path}/b"], 10).look(["a"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["sh", "-c", "echo out; echo 'no such user' >&2; exit 67"], "sh failed with status 67: no such user"),
        (["sh", "-c", "echo out; exit 1"], "sh failed with status 1: out"),
        (["false"], "false failed with status 1: it said nothing"),
        (["sh", "-c", "kill -9 $$"], "sh was killed by signal 9: it said nothing"),
        (["sh", "-c", "printf '\\033[31mred\\377' >&2; exit 1", "s3cret"], "sh failed with status 1: [31mred\ufffd"),
        (["/nowhere/program", "s3cret"], "/nowhere/program cannot be started: No such file or directory"),
        (["a\0b"], "a\0b cannot be started: it holds a NUL character"),
    ],
)
def test_a_command_that_fails(arguments, reason):
    with pytest.raises(EngineError) as error:
        CommandMailbox(arguments, 10).look(["a"])
    assert str(error.value) == reason


@pytest.mark.parametrize("arguments", [[], [""]])
def test_a_command_that_is_none(arguments):
    with pytest.raises(EngineError, match="command is empty"):
        CommandMailbox(arguments, 10)


@pytest.mark.parametrize(
    "arguments",
    [
        ["sleep", "60"],
        ["sh", "-c", "sleep 60 & exit 0"],  # a child of it keeps the output open
        ["sh", "-c", "exec >&- 2>&-; sleep 60"],
        ["sh", "-c", "while :; do echo x; sleep 0.1; done"],
    ],
)
def test_a_command_that_does_not_end(arguments):
    with at_most(10), pytest.raises(EngineError, match=f"{arguments[0]} did not end within 0.5 s"):
        run_bounded(arguments, 0.5)


def test_what_it_started_is_gone_as_well(tmp_path):
    with pytest.raises(EngineError):
        run_bounded(["sh", "-c", f"sleep 60 & echo $! >{tmp_path}/pid; wait"], 0.5)
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as handle:
                if handle.read().split()[2] == "Z":
                    return
        except OSError:
            return
        time.sleep(0.05)
    raise AssertionError(f"{pid} still runs")


@pytest.mark.parametrize("stream", [1, 2])
def test_endless_output(stream, monkeypatch):
    monkeypatch.setattr(command_search, "MAX_OUTPUT", 100_000)
    with at_most(20), pytest.raises(EngineError, match="sh prints more than 100000 bytes"):
        run_bounded(["sh", "-c", f"exec yes >&{stream}"], 15)


def test_it_gets_no_input_and_speaks_english():
    assert run_bounded(["sh", "-c", "cat; echo $LC_ALL"], 10) == (0, b"C\n", b"")
    assert run_bounded(["sh", "-c", "echo err >&2; exit 3"], 10) == (3, b"", b"err\n")


def test_removing_is_not_for_us():
    with pytest.raises(EngineError, match="delete cannot be used with command"):
        CommandMailbox(["true"], 10).delete("a")
