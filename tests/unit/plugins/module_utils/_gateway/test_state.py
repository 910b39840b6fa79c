"""What a gateway holds, as a value."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    ACCEPTS,
    LEVELS,
    MODES,
    SENDS,
    EmailConfig,
    EnforcedDomain,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target


def made(configs=(), enforced=(), outbound=None, ca_file=""):
    return GatewayState({one.name: one for one in configs}, tuple(enforced), outbound, ca_file)


def config(mode, name="one", *domains):
    return EmailConfig(name, domains or (f"{name}.example",), (Target("mx.example"),), mode)


class TestProperties:
    def test_an_empty_one_says_nothing(self):
        state = GatewayState()
        assert (state.levels, state.senders_enforced, state.recipients_enforced) == (("", ""), False, {})
        assert state.depends_on_arrival is False
        assert state.owner_of("a.example") is None

    @pytest.mark.parametrize("send", SENDS)
    def test_the_levels_towards_the_internet_are_those_of_the_word(self, send):
        assert made(outbound=OutboundTls(None, send)).levels == LEVELS[send]

    @pytest.mark.parametrize("accept", ACCEPTS)
    def test_nothing_is_done_about_them_while_only_the_other_side_is_set(self, accept):
        state = made(outbound=OutboundTls(accept, None, ("192.0.2.1/32",)))
        assert state.levels == ("", "")
        assert state.depends_on_arrival is False

    def test_the_directions_are_apart(self):
        inbound, outbound = EnforcedDomain("a.example", "inbound"), EnforcedDomain("b.example", "outbound", "hostname")
        assert made(enforced=[inbound]).senders_enforced is True
        assert made(enforced=[inbound]).recipients_enforced == {}
        assert made(enforced=[outbound]).senders_enforced is False
        assert made(enforced=[inbound, outbound]).recipients_enforced == {"b.example": outbound}

    @pytest.mark.parametrize("mode", MODES)
    def test_arrival_matters_for_the_modes_that_match_the_sender_on_either_side(self, mode):
        matters = mode in ("match_sender", "match_sender_strict")
        assert made([config(mode)]).depends_on_arrival is matters
        assert made([config("required", "two"), config(mode)]).depends_on_arrival is matters
        assert made(outbound=OutboundTls(None, mode)).depends_on_arrival is matters
        assert made([config("required")], outbound=OutboundTls(None, mode)).depends_on_arrival is matters

    def test_enforced_senders_alone_do_not_make_arrival_matter(self):
        assert made(enforced=[EnforcedDomain("a.example", "inbound")]).depends_on_arrival is False

    def test_the_owner_of_a_domain_is_exact(self):
        one, two = config("required", "one", "a.example", "b.example"), config("required", "two", "c.example")
        state = made([one, two])
        assert (state.owner_of("b.example"), state.owner_of("c.example")) == (one, two)
        assert state.owner_of("x.b.example") is state.owner_of("example") is None
