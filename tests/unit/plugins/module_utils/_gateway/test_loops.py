"""A route that leads back to the gateway itself is refused by the gateway's host, whatever the inventory calls it."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import evidence, reading
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.loops import leads_here
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import set_modes
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.reading import read_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.gateway_bench import Bench


def wanted(server, mode="match_sender"):
    return [{"name": "main", "domains": ["a.example"], "servers": [server], "delivery_mode": mode}]


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("127.0.0.2", True), ("localhost", True), ("192.0.2.1", False), ("no.such.invalid", False)],
)
def test_what_is_an_own_address(host, own):
    assert leads_here(Target(host)) is own


@pytest.fixture
def bench(tmp_path, monkeypatch):
    made = Bench(tmp_path, monkeypatch, reading, evidence)
    made.hold(GatewayState())
    return made


def change(bench, server, **options):
    return set_modes(bench.gateway, wanted(server), bench.common, store=str(bench.store), **options)


@pytest.mark.parametrize("insisting", [False, True])
def test_a_change_is_refused_and_no_option_overrides_that(bench, insisting):
    with pytest.raises(EngineError, match=r"email config main: 127\.0\.0\.1:25 in its servers is this gateway itself"):
        change(bench, "127.0.0.1", require_without_evidence=insisting)
    assert bench.held() == GatewayState()


@pytest.mark.parametrize("server", ["127.0.0.1:2525", "192.0.2.1"])
def test_another_port_or_host_is_another_server(bench, server):
    assert change(bench, server).changed


def test_a_name_whose_server_does_not_answer_is_not_looked_up(bench):
    """The change is refused for that reason already."""
    bench.servers = {"127.0.0.1": ("down",)}
    with pytest.raises(EngineError, match="does not answer this gateway"):
        change(bench, "127.0.0.1")


def test_the_read_says_it_before_the_change(bench):
    said = read_gateway(bench.gateway, {"email_configs": wanted("127.0.0.1")}, bench.common, store=str(bench.store))
    assert [one["code"] for one in said["obstacles"]] == ["mail_would_loop"]
    off = {"email_configs": wanted("127.0.0.1"), "state": "plaintext"}
    assert read_gateway(bench.gateway, off, bench.common, store=str(bench.store))["obstacles"] == []


def test_a_gateway_behind_an_api_runs_elsewhere(bench):
    bench.gateway.own_port = None
    assert change(bench, "127.0.0.1").changed
