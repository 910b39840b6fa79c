"""A floor for the TLS versions of a gateway's own transports: when it is a part of a change, and on what evidence."""

from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import evidence as evidence_module
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import set_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import set_modes
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.own_floor import OwnFloor
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.parts import parts_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.record import dump, load
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.gateway_bench import Bench


def email_config(mode, server="mx.example"):
    return {"name": mode, "domains": [f"{mode.replace('_', '-')}.example"], "servers": [server], "delivery_mode": mode}


class FloorBench(Bench):
    """A gateway that holds a floor, and servers with a newest TLS version each."""

    def __init__(self, directory, monkeypatch):
        super().__init__(directory, monkeypatch, evidence_module)
        self.gateway.holds_own_floor = self.gateway.plaintext_at_once = True
        self.newest = {}  # host -> version
        self.hold(GatewayState())

    def handshake_all(self, targets, settings):
        made = super().handshake_all(targets, settings)
        return [
            replace(one, tls_version=self.newest.get(one.target.host, "TLSv1.3")) if one.completed else one
            for one in made
        ]

    def set(self, *configs, min_tls="TLSv1.2", **options):
        wanted = {"email_configs": list(configs), "min_tls": min_tls, **options}
        return set_gateway(self.gateway, parts_of(self.gateway, wanted), self.common, store=str(self.store))


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return FloorBench(tmp_path, monkeypatch)


@pytest.mark.parametrize("mode", ["required", "match_sender_strict"])
def test_a_server_that_does_not_reach_it_refuses_it_where_tls_is_required(bench, mode):
    bench.newest["mx.example"] = "TLSv1.1"
    with pytest.raises(
        EngineError,
        match=r"^starttls_min_tls TLSv1\.2 is refused, because mail would be deferred: mx\.example:25: it speaks TLSv1\.1 at most",
    ):
        bench.set(email_config(mode))
    assert bench.held() == GatewayState()


@pytest.mark.parametrize("mode", ["opportunistic", "match_sender"])
def test_it_is_named_where_mail_would_go_there_in_plaintext(bench, mode):
    bench.newest["mx.example"] = "TLSv1.1"
    outcome = bench.set(email_config(mode))
    assert outcome.warnings == ("mx.example:25: it speaks TLSv1.1 at most, so mail would go there in plaintext",)
    assert bench.held().min_tls == "TLSv1.2"


def test_a_gateway_that_keeps_mail_back_before_it_goes_on_in_plaintext_refuses_it_wherever_tls_is_offered(bench):
    bench.gateway.plaintext_at_once = False
    bench.newest["mx.example"] = "TLSv1.1"
    with pytest.raises(
        EngineError, match=r"because mail would be deferred: mx\.example:25: it speaks TLSv1\.1 at most"
    ):
        bench.set(email_config("opportunistic"))
    bench.servers["mx.example"] = ("no starttls",)
    assert bench.set(email_config("opportunistic")).warnings == ()


@pytest.mark.parametrize(("floor", "newest"), [("TLSv1.2", "TLSv1.2"), ("TLSv1.2", "TLSv1.3"), ("TLSv1.3", "TLSv1.3")])
def test_a_server_that_reaches_it_is_fine_and_the_second_run_asks_nobody(bench, floor, newest):
    bench.newest["mx.example"] = newest
    assert bench.set(email_config("required"), min_tls=floor).warnings == ()
    bench.clear()
    outcome = bench.set(email_config("required"), min_tls=floor)
    assert (outcome.changed, bench.handshakes) == (False, [])


def test_a_server_that_is_down_now_is_not_known_to_reach_it(bench):
    bench.set(email_config("required"), min_tls="none")
    bench.servers["mx.example"] = ("down",)
    with pytest.raises(EngineError, match=r"it is not known whether it speaks TLSv1\.2 \(cannot connect"):
        bench.set(email_config("required"))


def test_without_tls_nothing_is_asked_of_a_server(bench):
    bench.newest["mx.example"] = "TLSv1"
    assert bench.set(email_config("plaintext")).warnings == ()


def test_enforced_senders_insist_on_the_way_to_every_server(bench):
    bench.newest["mx.example"] = "TLSv1.1"
    with pytest.raises(EngineError, match=r"mx\.example:25: it speaks TLSv1\.1 at most"):
        bench.set(email_config("opportunistic"), enforced_domains=[{"domain": "p.example", "direction": "inbound"}])


def test_the_servers_of_an_enforced_recipient_have_to_reach_it(bench):
    bench.gateway.hops = {"bank.example": (Target("mx.bank.example"),)}
    bench.newest["mx.bank.example"] = "TLSv1.1"
    bank = {"domain": "bank.example", "direction": "outbound"}
    with pytest.raises(EngineError, match=r"mx\.bank\.example:25: it speaks TLSv1\.1 at most"):
        bench.set(enforced_domains=[bank])


def test_a_later_server_is_asked_as_well(bench):
    bench.set(email_config("required"))
    bench.newest["old.example"] = "TLSv1.1"
    with pytest.raises(EngineError, match=r"old\.example:25: it speaks TLSv1\.1 at most"):
        bench.set(email_config("required"), email_config("match_sender_strict", "old.example"))


@pytest.mark.parametrize(
    ("options", "after"),
    [
        ({"min_tls": "none"}, ""),
        ({"min_tls": ""}, "TLSv1.2"),
        ({"min_tls": None}, "TLSv1.2"),
        ({"min_tls": "TLSv1.2", "state": "plaintext"}, ""),
        ({"min_tls": None, "state": "plaintext"}, ""),
    ],
)
def test_it_goes_with_none_and_with_tls_and_stays_without_a_word(bench, options, after):
    bench.set(email_config("required"))
    bench.set(email_config("required"), **options)
    assert bench.held().min_tls == after


def test_it_is_a_part_beside_another_one_and_of_a_gateway_that_holds_it_only(bench):
    assert parts_of(bench.gateway, {"min_tls": "TLSv1.2"}) == []
    assert parts_of(bench.gateway, {"min_tls": "TLSv1.2", "send": "required"})[-1] == OwnFloor("TLSv1.2")
    del bench.gateway.holds_own_floor
    assert len(parts_of(bench.gateway, {"min_tls": "TLSv1.2", "send": "required"})) == 1


@pytest.mark.parametrize("at_once", [True, False])
def test_a_floor_that_is_held_counts_for_a_call_that_does_not_name_it(bench, at_once):
    bench.gateway.plaintext_at_once = at_once
    bench.set(email_config("required"), min_tls="TLSv1.3")
    bench.newest["old.example"] = "TLSv1.2"
    later = email_config("match_sender_strict", "old.example")
    with pytest.raises(
        EngineError,
        match=r"^the gateway holds the floor TLSv1\.3 .*: old\.example:25: it speaks TLSv1\.2 at most\. Bring",
    ):
        bench.set(email_config("required"), later, min_tls=None)
    with pytest.raises(EngineError, match=r"the gateway holds the floor TLSv1\.3"):
        set_modes(bench.gateway, [later], bench.common, store=str(bench.store))
    bench.clear()
    bench.set(email_config("required"), min_tls=None)
    assert bench.handshakes == []


def test_a_floor_goes_with_the_last_email_config_and_enforced_domain(bench):
    domain = {"domain": "bank.example", "direction": "outbound"}
    bench.gateway.hops = {"bank.example": (Target("mx.bank.example"),)}
    bench.set(email_config("required"), enforced_domains=[domain])
    gone = {"name": "required", "state": "absent"}
    bench.set(gone, min_tls=None)
    assert bench.held().min_tls == "TLSv1.2"
    bench.set(min_tls=None, enforced_domains=[{**domain, "state": "absent"}])
    assert bench.held() == GatewayState()


def test_it_goes_with_tls_where_there_is_no_email_config(bench):
    domain = {"domain": "bank.example", "direction": "outbound"}
    bench.gateway.hops = {"bank.example": (Target("mx.bank.example"),)}
    bench.set(enforced_domains=[domain])
    assert bench.held().min_tls == "TLSv1.2"
    bench.set(enforced_domains=[domain], state="plaintext", min_tls=None)
    assert bench.held().min_tls == ""


def test_the_record_keeps_it():
    held = GatewayState(min_tls="TLSv1.3")
    assert load(dump(held), "gateway.json") == held
    assert "min_tls" not in dump(GatewayState())
    with pytest.raises(EngineError, match=r"min_tls 'x\\n' is not one of TLSv1\.2, TLSv1\.3"):
        load(dump(held).replace("TLSv1.3", "x\\n"), "gateway.json")
