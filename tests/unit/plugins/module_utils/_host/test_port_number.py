"""Ports as daemons name them, also those that only a damaged or hostile configuration names."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import port_number


@pytest.mark.parametrize(("name", "number"), [("25", 25), ("smtp", 25), ("submission", 587), ("65535", 65535)])
def test_a_port(name, number):
    assert port_number(name) == number


@pytest.mark.parametrize("name", ["no-such-service", "", "9" * 5000, "smtp\0x", "smtp\udcff", "\ud800", "²"])
def test_what_is_no_port_is_unknown(name):
    assert port_number(name) is None
