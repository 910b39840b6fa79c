"""What is told of a host: its product, listeners and transports, or why they could not be read."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds import observed, product
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.observed import read_host
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import PRODUCTS

UNREAD = {"listeners": None, "transports": None}


@pytest.fixture
def here(monkeypatch):
    """Products that are on this host."""

    def install(*kinds):
        layouts = {PRODUCTS[kind].layouts: PRODUCTS[kind].layouts[0] for kind in kinds}
        monkeypatch.setattr(product, "layout_here", layouts.get)

    return install


def run(_words):
    return 1, "", "postconf: fatal: bad\n"


def test_listeners_and_transports(here, monkeypatch):
    here("postfix")

    class Adapter:
        def observe(self):
            return {"listeners": ["l"], "transports": ["t"]}

    monkeypatch.setitem(observed.SERVERS, "postfix", lambda _run, _desired, _settings: Adapter())
    found = read_host("auto", run)
    assert (found["kind"], found["listeners"], found["transports"]) == ("postfix", ["l"], ["t"])
    assert "message" not in found


def test_a_configuration_that_cannot_be_read_is_said_in_the_daemons_words(here):
    here("postfix")
    found = read_host("auto", run)
    assert {**found, **UNREAD} == found
    assert found["message"] == "postconf cannot read /etc/postfix: postconf: fatal: bad"


def test_a_kind_that_cannot_tell_yet(here, monkeypatch):
    here("exim")
    monkeypatch.delitem(observed.SERVERS, "exim")
    found = read_host("auto", run)
    assert {**found, **UNREAD} == found
    assert found["message"] == "listeners and transports of Exim cannot be read yet"


def test_a_product_that_is_named_and_not_here(here):
    here()
    assert read_host("postfix", run) == {
        "kind": "postfix",
        "title": "Postfix",
        **UNREAD,
        "message": "Postfix is not on this host",
    }


def test_no_product(here):
    here()
    assert read_host("auto", run)["kind"] == ""
    with pytest.raises(EngineError, match="is not a known kind"):
        read_host("postfx", run)
