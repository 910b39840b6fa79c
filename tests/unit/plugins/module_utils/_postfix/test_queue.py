"""The queue of a Postfix instance, as postqueue(1) shows it."""

import json

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
        Waiting("4Z1AAA2bbbz9", "you@a.example", DEFERRED["recipients"][0]["delay_reason"], "postfix-mailfleet", 1.7e9),
        Waiting("4Z1AAA2bbbz9", "me@b.example", DEFERRED["recipients"][1]["delay_reason"], "postfix-mailfleet", 1.7e9),
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
