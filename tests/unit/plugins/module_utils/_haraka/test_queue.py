"""The outbound queue of Haraka, as its files hold it."""

import json

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK
from ansible_collections.mailfleet.starttls.plugins.module_utils._haraka import queue
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

NAME = "1700000000000_1700000600000_{tries}_77_AbCdEf_3_hk.fleet.test"


def put(directory, domain="a.example", name=NAME, tries=2, **more):
    envelope = {
        "queue_time": 1700000000000, "domain": domain,
        "rcpt_to": [{"original": f"<you@{domain}>", "user": "you", "host": domain}], "mail_from": {}, **more,
    }  # fmt: skip
    text = json.dumps(envelope).encode()
    path = directory / name.format(tries=tries)
    path.write_bytes(len(text).to_bytes(4, "big") + text + b"Subject: x\r\n\r\n" + b"x" * 100)
    return path.name


def test_a_message_for_the_domain(tmp_path):
    name = put(tmp_path)
    assert queue.waiting(str(tmp_path), ["a.example"], LOOK) == [
        Waiting(name, "you@a.example", "failed attempts: 2; the log of Haraka has the reason", arrived=1.7e9)
    ]
    assert queue.waiting(str(tmp_path), ["b.example"], LOOK) == []


def test_what_was_not_tried_yet_has_no_reason(tmp_path):
    put(tmp_path, tries=0)
    assert queue.waiting(str(tmp_path), ["a.example"], LOOK)[0].reason == ""


@pytest.mark.parametrize("name", ["error.1700", "__tmp__.1700000000000_1_2_3_a_4_b", ".", "notes"])
def test_files_that_are_no_message(tmp_path, name):
    if name != ".":
        put(tmp_path, name=name)
    assert queue.waiting(str(tmp_path), ["a.example"], LOOK) == []


def test_without_a_queue_nothing_waits(tmp_path):
    assert queue.waiting(str(tmp_path / "none"), ["a.example"], LOOK) == []


@pytest.mark.parametrize("content", [b"\0\0\0\4nope", b"\0\0\0\2[]", b"\xff\xff\xff\xff{}", b""])
def test_a_file_that_cannot_be_understood_is_not_no_mail(tmp_path, content):
    (tmp_path / NAME.format(tries=1)).write_bytes(content)
    with pytest.raises(EngineError, match=r"the queue file .* of Haraka cannot be read"):
        queue.waiting(str(tmp_path), ["a.example"], LOOK)
