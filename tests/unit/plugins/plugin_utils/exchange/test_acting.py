"""What mail_server_info and mail_server_tls say for an Exchange server besides what the server shows."""

from types import SimpleNamespace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import floor_not_held
from ansible_collections.mailfleet.starttls.plugins.modules.mail_server_info import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange import acting

from tests.support.exchange_host import ExchangeHost

WHOLE = {name: one.get("default") for name, one in ARGUMENT_SPEC.items()} | {"handshake": None}
SAID = (
    "starttls_min_tls is TLSv1.2, and the collection sets no TLS versions on Exchange Server, so it is not set here; set it in Windows, "
    "which decides TLS versions (the registry, SecurityProviders\\SCHANNEL\\Protocols), and take starttls_min_tls away for this host"
)


@pytest.fixture
def act(tmp_path, monkeypatch):
    """Runs one of the functions with options, against a server with connectors that offer TLS."""
    monkeypatch.setattr(acting, "complete_observed", lambda result, *_more: result)
    server = ExchangeHost()

    def run(function, **options):
        action = SimpleNamespace(
            _execute_module=lambda module, module_args, task_vars: server.execute(module, module_args),
            _templar=SimpleNamespace(template=lambda value: value),
            _task=SimpleNamespace(check_mode=True),
            checked_install=lambda _options: None,
        )
        facts = {"inventory_hostname": "ex1", "starttls_exchange_journal": str(tmp_path)}
        return function(action, WHOLE | {"kind": "exchange", "port": 25} | options, facts)

    return run


@pytest.mark.parametrize("sides", [{"inbound": "offered"}, {"outbound": "opportunistic"}])
def test_a_floor_is_not_ignored_without_a_word(act, sides):
    found = act(acting.read_exchange, min_tls="TLSv1.2", **sides)
    assert [one["message"] for one in found["notes"] if one["code"] == "tls_floor_by_hand"] == [SAID]
    assert act(acting.change_exchange, min_tls="TLSv1.2", address=None, **sides)["warnings"][-1] == SAID


@pytest.mark.parametrize(
    "options",
    [
        {"inbound": "offered", "min_tls": "none"},
        {"inbound": "offered"},
        {"inbound": "disabled", "outbound": "disabled", "min_tls": "TLSv1.2"},
        {"inbound": "offered", "min_tls": "TLSv1.2", "only_relax": True},
        {"inbound": "renewed", "min_tls": "TLSv1.2"},
        {"min_tls": "TLSv1.2"},
    ],
)
def test_where_no_floor_is_wanted_nothing_is_said(act, options):
    assert "tls_floor_by_hand" not in [one["code"] for one in act(acting.read_exchange, **options)["notes"]]


@pytest.mark.parametrize("kind", ["postfix", "exim"])
def test_a_kind_that_holds_a_floor_has_nothing_to_say(kind):
    assert floor_not_held(kind, "TLSv1.3") == []
