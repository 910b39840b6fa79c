"""The queue of an Exim, as C(exim4 -bp) shows it."""

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
