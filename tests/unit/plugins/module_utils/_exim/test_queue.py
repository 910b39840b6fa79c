"""The queue of an Exim, as C(exim4 -bp) shows it."""

from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import queue
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

# As Exim 4.96 and 4.98 write it: the IDs of 4.97 are longer.
LISTED = """\
25m  2.9K 1rHZxA-0000Cq-2b <trace@partner.test>
        D done@a.example
          you@a.example

 3h  1.1K 1rHZxA-00000001abc-0Xyz <> *** frozen ***
          alias@other.example

 1m   400 1rHZxB-0000Cq-2b <me@partner.test>
          you@other.example
"""
LOGS = {
    "1rHZxA-0000Cq-2b": "2026-11-29 16:00:00 Received from trace@partner.test H=(x) [192.0.2.1]\n"
    "2026-11-29 16:00:01 you@a.example R=mailfleet_inbound T=mailfleet_encrypt defer (-38): a TLS session is required\n",
    "1rHZxA-00000001abc-0Xyz": "2026-11-29 13:00:00 bob@a.example <alias@other.example> R=mailfleet_inbound T=x defer (111): refused\n",
}


def running(listed=LISTED, status=0, mentioned=("1rHZxA-00000001abc-0Xyz", "1rHZxA-0000Cq-2b")):
    def run(words):
        if words[:2] == ["exim4", "-bp"]:
            return status, listed, "no spool"
        if words[:2] == ["exim4", "-Mvl"]:
            return 0, LOGS.get(words[2], ""), ""
        assert words[0] == "grep"
        return 0, "".join(f"/var/spool/exim4/msglog/{one}\n" for one in mentioned), ""

    return run


def test_what_is_not_delivered_yet_with_the_last_words_of_its_log():
    found = queue.waiting(running(), ["a.example"])
    assert found == [
        Waiting(
            "1rHZxA-0000Cq-2b",
            "you@a.example",
            "you@a.example R=mailfleet_inbound T=mailfleet_encrypt defer (-38): a TLS session is required",
            arrived=found[0].arrived,
        ),
        # An alias led to the domain; the list has the original address only.
        Waiting(
            "1rHZxA-00000001abc-0Xyz",
            "bob@a.example",
            "bob@a.example <alias@other.example> R=mailfleet_inbound T=x defer (111): refused",
            arrived=found[1].arrived,
        ),
    ]


def test_what_was_delivered_does_not_wait_although_the_message_waits_for_others(monkeypatch):
    """The list shows only who still waits; the log of the message also has the attempts for those who have it by now."""
    message = "1rHZxA-00000001abc-0Xyz"
    more = "2026-11-29 13:05:00 bob@a.example: mailfleet_encrypt transport succeeded\n"
    monkeypatch.setitem(LOGS, message, LOGS[message] + more)
    assert [one.recipient for one in queue.waiting(running(), ["a.example"])] == ["you@a.example"]


def test_the_id_says_when_a_message_arrived():
    assert [queue.waiting(running(f"1m 400 {one}-0000Cq-2b <>\n  you@a.example\n"), ["a.example"])[0].arrived
            for one in ("00000z", "000010")] == [61.0, 62.0]  # fmt: skip


@pytest.mark.parametrize("domain", ["example", "b.example", "partner.test"])
def test_other_domains(domain):
    assert queue.waiting(running(mentioned=()), [domain]) == []


def test_an_empty_queue_asks_nothing_else():
    assert queue.waiting(running("", mentioned=("x",)), ["a.example"]) == []


def test_a_queue_that_cannot_be_read_is_not_empty():
    with pytest.raises(EngineError, match="exim4 -bp cannot read the queue"):
        queue.waiting(running(status=1), ["a.example"])


DUMPED = """\
  T:gw1.example:192.0.2.1 -38 65 H=gw1.example [192.0.2.1]: a TLS session is required, but the server did not offer TLS support
29-Nov-2026 19:30:21  29-Nov-2026 19:30:21  29-Nov-2026 19:45:21 *
  R:b.example -1 0 host lookup did not complete
29-Nov-2026 19:30:21  29-Nov-2026 19:30:21  29-Nov-2026 19:45:21
"""
WAITING = """\
25m  2.9K 1rHZxA-0000Cq-2b <trace@partner.test>
          you@a.example

 3h  1.1K 1rHZxA-00000001abc-0Xyz <me@partner.test> *** frozen ***
          you@a.example

 1m   400 1rHZxB-0000Cq-2b <> (root)
          you@b.example
"""
NEXT_TRY = 1795981521.0
NOT_REACHED = "2026-11-29 19:30:22 you@b.example R=smarthost T=x defer (-54): retry time not reached for any host for 'b.example'\n"


def whole(listed=WAITING, count="3", routed="  host gw1.example [192.0.2.1]\n", log=NOT_REACHED, calls=None):
    """A host whose last message was not tried because its host failed before."""

    def run(words):
        if calls is not None:
            calls.append(list(words))
        answers = {
            "-bpc": (0, count, ""),
            "-bp": (0, listed, ""),
            "-bt": (0, f"you@b.example\n  router = smarthost, transport = x\n{routed}", ""),
            "-M": (0, "", ""),
        }
        if words[0] == "exim_dumpdb":
            return 0, DUMPED, ""
        if words[1] == "-Mvl":
            received = "2026-11-29 16:00:00 Received from x U=root P=local S=321\n"
            return 0, received + (log if words[2] == "1rHZxB-0000Cq-2b" else LOGS[words[2]].split("\n", 1)[-1]), ""
        return answers[words[1]]

    return run


def test_every_message_with_reason_next_hop_and_next_try():
    first, frozen, last = queue.EximQueue(whole()).waiting()
    assert (first.sender, first.size, first.recipient, first.held) == (
        "trace@partner.test",
        2970,
        "you@a.example",
        False,
    )
    assert first.reason.endswith("a TLS session is required")
    assert (frozen.held, frozen.queue, frozen.next_try, frozen.sender) == (True, "frozen", None, "me@partner.test")
    # The record of the host has the failure that keeps the last one waiting.
    assert last.reason.endswith("but the server did not offer TLS support")
    assert (last.next_hop, last.next_hop_address, last.next_hop_port, last.next_try) == (
        "gw1.example",
        "192.0.2.1",
        25,
        NEXT_TRY,
    )
    assert last.sender == ""


def test_a_message_that_was_not_tried_yet_has_no_reason():
    last = queue.EximQueue(whole(log="")).waiting()[-1]
    assert (last.reason, last.next_hop, last.next_try) == ("", "", None)


def test_a_host_on_another_port_has_a_record_of_its_own():
    last = queue.EximQueue(whole(routed="  host gw1.example [192.0.2.1] MX=10 port=2525\n")).waiting()[-1]
    assert (last.next_hop_port, last.next_try) == (2525, None)
    assert "retry time not reached" in last.reason


def test_a_domain_that_is_held_is_held():
    held = "2026-11-29 19:30:22 you@b.example: domain is held\n"
    assert queue.EximQueue(whole(log=held)).waiting()[-1].held is True


SENDERS_WORDS = (
    "x R=smarthost T=x H=gw9.example [192.0.2.9] defer (-38): a TLS session is required, but the server did not offer TLS support",
    "z H=gw9.example [192.0.2.9]: y",
    "domain is held: z",
    "SMTP error from remote mail server after RCPT TO: 450 a",
    'a\\"b> <c@b.example> R=x T=y defer (0) H=gw9.example [192.0.2.9]: z',
)
WORDS = "R=out T=x defer (-38) H=gw1.example [192.0.2.1]: a TLS session is required, but the server did not offer TLS support"


@pytest.mark.parametrize("local", SENDERS_WORDS)
@pytest.mark.parametrize("lowered", [True, False])
def test_the_words_of_a_recipients_local_part_are_not_those_of_the_daemon(local, lowered):
    """The log has such an address without its quotes before the words, so it could name another next hop, or hide the reason."""
    recipient = f'"{local}"@b.example'
    bare = local.replace("\\", "")
    line = f"{bare.lower() if lowered else bare}@b.example <{recipient}> {WORDS}"
    listed = f" 1m   400 1rHZxB-0000Cq-2b <me@a.example>\n          {recipient}\n"
    [found] = queue.EximQueue(whole(listed=listed, log=f"2026-11-29 19:30:22 {line}\n")).waiting()
    assert (found.reason, found.next_hop, found.next_hop_address) == (WORDS, "gw1.example", "192.0.2.1")
    assert found.held is False


@pytest.mark.parametrize(
    "child",
    [
        "|/bin/x@y.example <you@b.example> R=a T=b defer (-38) H=gw9.example [192.0.2.9]: a TLS session is required",
        "x@y.example <you@b.example> R=a T=b defer (-38) H=gw9.example [192.0.2.9]: a TLS session is required@c.example",
        "you@b.example R=a T=b defer (-38) H=gw9.example [192.0.2.9]: a TLS session is required@c.example",
        "you@b.example <you@b.example> R=a T=b defer (0) H=gw9.example [192.0.2.9]: x@c.example",
    ],
)
def test_what_a_user_forwards_to_is_not_read_as_the_daemons_words(child):
    log = f"2026-11-29 19:30:22 {child} <you@b.example> R=system_aliases T=x defer (0): failed\n"
    listed = " 1m   400 1rHZxB-0000Cq-2b <me@a.example>\n          you@b.example\n"
    [found] = queue.EximQueue(whole(listed=listed, log=log)).waiting()
    assert (found.next_hop, "TLS" in found.reason) == ("gw1.example", False)


def test_a_recipient_is_not_read_as_another_message():
    """Exim delivers a message that it is asked for by ID, also a frozen one."""
    recipient = '"0m 400 1rHZxA-00000001abc-0Xyz <x"@b.example'
    listed = f" 1m   400 1rHZxB-0000Cq-2b <me@a.example>\n          {recipient}\n          you@b.example\n"
    found = queue.EximQueue(whole(listed=listed)).waiting()
    assert [(one.queue_id, one.recipient) for one in found] == [
        ("1rHZxB-0000Cq-2b", recipient),
        ("1rHZxB-0000Cq-2b", "you@b.example"),
    ]


def test_the_reason_of_an_alias_is_that_of_where_it_led():
    log = f"2026-11-29 19:30:22 bob@a.example <you@b.example> {WORDS}\n"
    listed = " 1m   400 1rHZxB-0000Cq-2b <me@a.example>\n          you@b.example\n"
    [found] = queue.EximQueue(whole(listed=listed, log=log)).waiting()
    assert (found.reason, found.next_hop) == (WORDS, "gw1.example")


@pytest.mark.parametrize(("count", "status"), [("x", 0), ("", 1), ("20001", 0), ("9" * 4500, 0)])
def test_a_queue_that_cannot_be_counted_or_is_too_long_is_not_listed(count, status):
    with pytest.raises(EngineError, match="exim4 -bp"):
        queue.EximQueue(lambda _words: (status, count, "no spool")).waiting()


def test_only_these_messages_are_tried_each_once():
    calls = []
    reader = queue.EximQueue(whole(calls=calls))
    [first, _frozen, last] = reader.waiting()
    calls.clear()
    reader.try_again([first, replace(first, recipient="me@a.example"), last])
    assert calls == [["exim4", "-M", "1rHZxA-0000Cq-2b"], ["exim4", "-M", "1rHZxB-0000Cq-2b"]]
    with pytest.raises(EngineError, match="is no message of an Exim queue"):
        reader.try_again([replace(first, queue_id="-bV")])


def test_a_message_that_was_returned_is_found_by_its_id_in_the_log_that_exim_names(tmp_path):
    log = (
        "2026-11-29 19:30:21 1rHZxB-0000Cq-2b <= trace@partner.test U=root P=local S=321 id=in-1@partner.test\n"
        "2026-11-29 19:30:22 1rHZxB-0000Cq-2b ** you@a.example R=x T=x H=gw [192.0.2.1]: SMTP error from remote mail server after "
        "RCPT TO:<you@a.example>: 550 relay not permitted\n"
    )
    (tmp_path / "mainlog").write_text(log)
    reader = queue.EximQueue(lambda words: (0, f"log_file_path = {tmp_path}/%slog\n", ""))
    [found] = reader.returned(["in-1@partner.test"])
    assert (found.recipient, found.reason.rpartition(": ")[2]) == ("you@a.example", "550 relay not permitted")
    assert reader.returned(["other@partner.test"]) == []
