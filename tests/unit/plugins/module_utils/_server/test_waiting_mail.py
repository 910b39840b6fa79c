"""Reading queues, and trying again what waits for want of TLS, with a queue in memory."""

from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Returned, Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import waiting_mail
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.waiting_mail import (
    could_not_look,
    read_waiting,
    try_again,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import QUEUE_LISTED_MESSAGES

NOT_OFFERED = "TLS is required, but was not offered by host gw1.example[192.0.2.1]"
JAM = Waiting("1", "you@b.example", NOT_OFFERED, next_hop="gw1.example", queue="deferred", next_try=100.0)
OTHER = Waiting(
    "2",
    "you@b.example",
    "connect to mx.example[192.0.2.2]:25: Connection refused",
    next_hop="mx.example",
    queue="deferred",
)


class Memory:
    """A queue whose daemon delivers, fails or does nothing. after: what a try makes of an entry; None delivers it."""

    def __init__(self, *entries, after=lambda _one, _rounds: None):
        self.entries = list(entries)
        self.asked = []
        self.after = after

    def waiting(self):
        return list(self.entries)

    def returned(self, message_ids):
        return [Returned(message_ids[0], "you@b.example", "host x[192.0.2.9] said: 550 relay not permitted")]

    def try_again(self, messages):
        self.asked.append([one.queue_id for one in messages])
        tried = {one.queue_id for one in messages}
        results = [self.after(one, len(self.asked)) if one.queue_id in tried else one for one in self.entries]
        self.entries = [one for one in results if one is not None]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(waiting_mail, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(waiting_mail, "AGAIN_SECONDS", 0.05)


def test_what_waits_for_want_of_tls_comes_first():
    found = read_waiting(Memory(OTHER, JAM, replace(OTHER, queue_id="3", held=True)))
    assert (found["waiting"], found["for_tls"], found["held"], found["left_out"]) == (3, 1, 1, 0)
    assert [one["queue_id"] for one in found["messages"]] == ["1", "2", "3"]
    assert found["causes"] == {"unknown": 2, "not_offered": 1}
    assert {"cause": "not_offered", "side": "next_hop", "for_tls": True}.items() <= found["messages"][0].items()


def test_of_a_long_queue_the_number_is_told():
    found = read_waiting(Memory(*(replace(OTHER, queue_id=str(number)) for number in range(QUEUE_LISTED_MESSAGES + 7))))
    assert (found["waiting"], len(found["messages"]), found["left_out"]) == (
        QUEUE_LISTED_MESSAGES + 7,
        QUEUE_LISTED_MESSAGES,
        7,
    )


def test_only_some_recipients_and_what_was_returned():
    found = read_waiting(Memory(JAM, replace(JAM, recipient="me@c.example")), ["ME@c.example"], ["x@a.example"])
    assert [one["recipient"] for one in found["messages"]] == ["me@c.example"]
    assert [(one["message_id"], one["cause"]) for one in found["returned"]] == [("x@a.example", "not_relayed")]


def test_could_not_look_is_not_an_empty_queue():
    assert could_not_look("why").keys() == read_waiting(Memory()).keys()
    assert (could_not_look("why")["looked"], could_not_look("why")["waiting"]) == (False, None)


def test_only_what_waits_for_want_of_tls_is_tried():
    queue = Memory(JAM, OTHER)
    done = try_again(queue, None, 5)
    assert (done["changed"], done["tried"], done["delivered"], done["left"]) == (True, 1, 1, [])
    assert queue.asked == [["1"]] and queue.entries == [OTHER]


@pytest.mark.parametrize("hops", [[], ["mx.example"]])
def test_other_next_hops_are_left_alone(hops):
    queue = Memory(JAM)
    assert try_again(queue, hops, 5)["changed"] is False
    assert queue.asked == []


def test_what_is_held_stays_held_with_all_its_recipients():
    queue = Memory(
        JAM,
        replace(JAM, recipient="me@c.example", held=True),
        replace(JAM, queue_id="5"),
        replace(JAM, queue_id="1", place="two"),
    )
    done = try_again(queue, None, 5)
    assert (done["tried"], done["held"]) == (2, 1)
    assert queue.asked == [["5", "1"]]


def test_check_mode_tries_nothing():
    queue = Memory(JAM)
    done = try_again(queue, None, 5, check_mode=True)
    assert (done["changed"], done["tried"], done["delivered"], queue.asked) == (True, 1, 0, [])


def test_what_fails_twice_is_left_with_its_new_reason():
    queue = Memory(
        JAM, after=lambda one, rounds: replace(one, reason="Server certificate not trusted", next_try=100.0 + rounds)
    )
    done = try_again(queue, None, 30)
    assert len(queue.asked) == 2
    assert [one["cause"] for one in done["left"]] == ["certificate"]
    assert (done["tried"], done["delivered"]) == (1, 0)


def test_a_daemon_that_missed_it_is_asked_again():
    queue = Memory(JAM, after=lambda one, rounds: one if rounds == 1 else None)
    assert try_again(queue, None, 30)["delivered"] == 1
    assert len(queue.asked) == 2


def test_it_does_not_wait_longer_than_it_may():
    queue = Memory(JAM, after=lambda one, _rounds: replace(one, queue="active"))
    assert [one["queue"] for one in try_again(queue, None, 0.2)["left"]] == ["active"]


def test_one_that_was_not_tried_has_the_reason_of_its_host():
    later = replace(
        JAM,
        queue_id="2",
        reason="you@b.example R=x T=x defer (-54): retry time not reached for any host for 'b.example'",
    )
    assert read_waiting(Memory(later, JAM))["for_tls"] == 2
    assert read_waiting(Memory(later))["for_tls"] == 0
