"""Mail that waits, as plain data: one printable line each, whatever a server or a sender wrote."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting, domain_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import QUEUE_REASON_CHARS

HOSTILE = "a\x1b[31m\r\nfatal: \u202e" + "x" * 5000


def test_texts_are_one_printable_line_of_bounded_length():
    told = Waiting(
        HOSTILE, HOSTILE, HOSTILE, HOSTILE, sender=HOSTILE, next_hop=HOSTILE, next_hop_address=HOSTILE
    ).to_dict()
    texts = [value for value in told.values() if isinstance(value, str)]
    assert len(texts) >= 7
    assert all(text.isprintable() and len(text) <= QUEUE_REASON_CHARS + 3 for text in texts)


@pytest.mark.parametrize(
    ("moment", "told"),
    [(None, None), (0.0, "1970-01-01T00:00:00Z"), (1.7e9, "2023-11-14T22:13:20Z"), (1e300, None), (float("nan"), None)],
)
def test_times_are_in_utc_and_none_if_no_calendar_has_them(moment, told):
    one = Waiting("1", "you@a.example", arrived=moment, next_try=moment).to_dict()
    assert (one["arrived"], one["next_try"]) == (told, told)


@pytest.mark.parametrize(
    ("address", "domain"),
    [("you@A.Example.", "a.example"), ("postmaster", ""), ("", ""), ("a@b@c.example", "c.example")],
)
def test_the_domain_of_an_address(address, domain):
    assert domain_of(address) == domain
