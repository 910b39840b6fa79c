"""The queue of a Postfix instance, as postqueue(1) shows it."""

import json
import os
from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import of_domains
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import queue
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.postfix_host import PostfixHost, config

# As Postfix 3.7 writes them, a line for each message.
DEFERRED = {
    "queue_name": "deferred", "queue_id": "4Z1AAA2bbbz9", "arrival_time": 1700000000, "message_size": 400, "forced_expire": False,
    "sender": "trace@partner.test", "recipients": [
        {"address": "you@a.example", "delay_reason": "TLS is required, but was not offered by host mx.example[192.0.2.1]"},
        {"address": "me@b.example", "delay_reason": "connect to mx.example[192.0.2.1]:25: Connection refused"},
    ],
}  # fmt: skip
MORE = {"sender": "trace@partner.test", "size": 400, "queue": "deferred"}
ACTIVE = {**DEFERRED, "queue_name": "active", "queue_id": "4Z1AAA3", "recipients": [{"address": "You@A.EXAMPLE"}]}
UNICODE = {**ACTIVE, "queue_id": "4Z1AAA4", "recipients": [{"address": "you@bücher.example"}]}


def saying(*messages, status=0, err=""):
    calls = []

    def run(words):
        calls.append(list(words))
        return status, "".join(json.dumps(one) + "\n" for one in messages), err

    run.calls = calls
    return run


def test_each_recipient_with_the_words_of_the_daemon():
    run = saying(DEFERRED)
    assert queue.waiting(run, "/etc/postfix-mailfleet", "postfix-mailfleet") == [
        Waiting(
            "4Z1AAA2bbbz9",
            "you@a.example",
            DEFERRED["recipients"][0]["delay_reason"],
            "postfix-mailfleet",
            1.7e9,
            **MORE,
        ),
        Waiting(
            "4Z1AAA2bbbz9",
            "me@b.example",
            DEFERRED["recipients"][1]["delay_reason"],
            "postfix-mailfleet",
            1.7e9,
            **MORE,
        ),
    ]
    assert run.calls == [["postqueue", "-c", "/etc/postfix-mailfleet", "-j"]]


def test_a_domain_in_every_spelling():
    found = queue.waiting(saying(DEFERRED, ACTIVE, UNICODE), "/etc/postfix")
    assert [one.recipient for one in of_domains(found, ["a.example"])] == ["you@a.example", "You@A.EXAMPLE"]
    assert [one.queue_id for one in of_domains(found, ["xn--bcher-kva.example"])] == ["4Z1AAA4"]
    assert of_domains(found, ["example"]) == []


def test_an_empty_queue():
    assert queue.waiting(saying(), "/etc/postfix") == []


@pytest.mark.parametrize(
    "run",
    [saying(status=69, err="postqueue: fatal: Queue report unavailable\n"), saying({"queue_id": "x"}), saying([1])],
    ids=["refused", "another shape", "no object"],
)
def test_what_cannot_be_read_is_not_empty(run):
    with pytest.raises(EngineError, match=r"^postqueue -c /etc/postfix -j "):
        queue.waiting(run, "/etc/postfix")


def test_the_queues_of_all_instances_count(monkeypatch, tmp_path):
    host = PostfixHost(monkeypatch, tmp_path)
    asked = []

    def waiting(_run, directory, place=""):
        asked.append(directory)
        return [Waiting("4Z", "you@a.example", place=place)]

    monkeypatch.setattr(queue, "waiting", waiting)
    host.apply(config("one", "required", "a.example"))
    assert [one.place for one in host.adapter.queued(["a.example"])] == [""]
    host.apply(config("one", "match_sender", "a.example"))
    assert [one.place for one in host.adapter.queued(["a.example"])] == ["", "postfix-mailfleet"]
    assert asked[-2:] == [str(host.etc), str(host.second)]


class Host:
    """Two instances; the second one has a queue directory with a file for the deferred message."""

    def __init__(self, directory, transports=""):
        self.transports = transports
        self.spool = directory / "spool-two"
        deferred = self.spool / "deferred/4"
        deferred.mkdir(parents=True)
        (deferred / "4Z1AAA2bbbz9").touch()
        os.utime(deferred / "4Z1AAA2bbbz9", (0, 1700000300))
        self.calls = []
        self.reasons = [one["delay_reason"] for one in DEFERRED["recipients"]]

    def run(self, words):
        self.calls.append(list(words))
        two = words[2].endswith("/two")
        if words[0] == "postconf":
            spool = self.spool if two else self.spool.parent / "spool-one"
            values = {
                "multi_instance_directories": "/etc/two",
                "queue_directory": spool,
                "relayhost": "[relay.example]:2525",
                "transport_maps": self.transports,
            }
            return 0, "".join(f"{name} = {values[name]}\n" for name in words[4:]), ""
        if words[0] == "postmap":
            return (0, "smtp:[pf.example]:2526\n", "") if words[4] == "a.example" else (1, "", "")
        if words[:1] == ["postqueue"] and words[3] == "-j":
            message = {
                **DEFERRED,
                "recipients": [
                    {**one, "delay_reason": reason} for one, reason in zip(DEFERRED["recipients"], self.reasons)
                ],
            }
            return 0, json.dumps(message) + "\n" if two else "", ""
        return 0, "", ""


def test_every_instance_with_next_hop_and_next_try(tmp_path):
    host = Host(tmp_path)
    found = queue.PostfixQueue(host.run).waiting()
    assert [(one.place, one.next_hop, one.next_hop_address, one.next_hop_port, one.next_try) for one in found] == [
        ("two", "mx.example", "192.0.2.1", 25, 1700000300),
        ("two", "mx.example", "192.0.2.1", 25, 1700000300),
    ]


def test_a_reason_without_a_host_has_the_configured_next_hop(tmp_path):
    host = Host(tmp_path, "ldap:/etc/x, hash:/etc/postfix/transport")
    host.reasons = ["Cannot start TLS: handshake failure", "Server certificate not trusted"]
    found = queue.PostfixQueue(host.run).waiting()
    assert [(one.next_hop, one.next_hop_port) for one in found] == [("pf.example", 2526), ("relay.example", 2525)]
    asked = [words[-1] for words in host.calls if words[0] == "postmap"]
    assert set(asked) == {"hash:/etc/postfix/transport"}  # a table elsewhere is not asked


def test_the_words_of_another_server_name_no_next_hop(tmp_path):
    host = Host(tmp_path)
    host.reasons = ["host mx.example[192.0.2.1] said: 450 connect to evil.example[192.0.2.66]:66: no", "x" * 300]
    assert queue.PostfixQueue(host.run).waiting()[0].next_hop == "mx.example"


@pytest.mark.parametrize(
    "reason",
    [
        "temporary failure. Command output: TLS is required, but was not offered by host evil.example[192.0.2.66]",
        'Command time limit exceeded: "sleep 9999 # connect to evil.example[192.0.2.66]:66"',
    ],
)
def test_the_command_of_a_user_names_no_next_hop(tmp_path, reason):
    host = Host(tmp_path)
    host.reasons = [reason, "x"]
    assert queue.PostfixQueue(host.run).waiting()[0].next_hop_address == ""


@pytest.mark.parametrize(
    "reason",
    [
        "TLS is required, but was not offered by host mx.example[192.0.2.1]",
        "delivery temporarily suspended: connect to mx.example[192.0.2.1]:25: Connection refused",
        "lost connection with mx.example[192.0.2.1] while receiving the initial server greeting",
        "conversation with mx.example[192.0.2.1] timed out while sending RCPT TO",
        "host mx.example[192.0.2.1] refused to talk to me: 421 host evil.example[192.0.2.66]",
        "TLS is required, but host mx.example[192.0.2.1] refused to start TLS: 454 4.7.0 no",
    ],
)
def test_the_next_hop_in_the_words_of_postfix(tmp_path, reason):
    host = Host(tmp_path)
    host.reasons = [reason, "x"]
    found = queue.PostfixQueue(host.run).waiting()[0]
    assert (found.next_hop, found.next_hop_address) == ("mx.example", "192.0.2.1")


def test_only_these_messages_are_tried_each_once_in_their_instance(tmp_path):
    host = Host(tmp_path)
    reader = queue.PostfixQueue(host.run)
    found = reader.waiting()
    host.calls.clear()
    reader.try_again(found)
    assert host.calls == [["postqueue", "-c", "/etc/two", "-i", "4Z1AAA2bbbz9"]]


@pytest.mark.parametrize("odd", ["-f", "ALL", "a b", "", "../x"])
def test_no_other_word_is_an_id(tmp_path, odd):
    host = Host(tmp_path)
    reader = queue.PostfixQueue(host.run)
    [one, _two] = reader.waiting()
    with pytest.raises(EngineError, match="is no message of a Postfix queue"):
        reader.try_again([replace(one, queue_id=odd)])


def test_a_message_on_hold_is_held():
    assert [one.held for one in queue.entries({**ACTIVE, "queue_name": "hold"})] == [True]
    assert [one.held for one in queue.entries(ACTIVE)] == [False]


def test_a_queue_that_is_too_long_is_not_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "QUEUE_MESSAGES", 0)
    with pytest.raises(EngineError, match="too many to list; look with postqueue -p"):
        queue.PostfixQueue(Host(tmp_path).run).waiting()


def test_a_message_that_was_returned_is_found_by_its_id_in_the_log_that_postfix_names(tmp_path):
    log = (
        "Nov 29 19:00:00 mx postfix/cleanup[1]: 4Z1AAA2bbbz9: message-id=<in-1@partner.test>\n"
        "Nov 29 19:00:01 mx postfix/smtp[2]: 4Z1AAA2bbbz9: to=<you@a.example>, relay=gw.example[192.0.2.1]:25, delay=0.1, "
        "delays=0/0/0/0, dsn=5.7.1, status=bounced (host gw.example[192.0.2.1] said: 554 5.7.1 Relay access denied (in reply))\n"
        "Nov 29 19:00:01 mx postfix/smtp[2]: 4Z1AAA3: to=<me@a.example>, relay=x, dsn=5.7.1, status=bounced (no)\n"
    )
    (tmp_path / "log").write_text(log)
    reader = queue.PostfixQueue(lambda words: (0, f"maillog_file = {tmp_path}/log\nsyslog_facility = mail\n", ""))
    [found] = reader.returned(["in-1@partner.test"])
    assert found.recipient == "you@a.example"
    assert found.reason == "host gw.example[192.0.2.1] said: 554 5.7.1 Relay access denied (in reply)"
    assert reader.returned(["in-2@partner.test"]) == []
