"""The module that reads a gateway, run as Ansible runs it."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import PRODUCTS
from ansible_collections.mailfleet.starttls.plugins.modules import gateway_info as module

from tests.support.ansible_module import run_module

READ = {"gateway": None, "digests": {}, "obstacles": [], "interrupted": False, "probe": None}


@pytest.fixture
def engine(monkeypatch):
    calls = []

    def read(*arguments):
        calls.append(arguments)
        return READ

    monkeypatch.setattr(module, "read_gateway", read)
    return calls


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize("kind", ["postfix", "exim", "haraka"])
def test_what_is_read_is_returned(engine, kind, check_mode):
    result = run_module(
        module.main, check_mode=check_mode, gateway=kind, send="required", domains=["a.example"], timeout=7
    )
    assert {key: value for key, value in result.items() if key != "invocation"} == {"changed": False, **READ}
    [(_gateway, wanted, settings, domains, capabilities)] = engine
    assert (wanted["send"], wanted["email_configs"], settings.timeout) == ("required", None, 7.0)
    assert (domains, capabilities) == (["a.example"], PRODUCTS[kind].capabilities)


@pytest.mark.parametrize("option", ["require_without_evidence", "digests", "only_recover"])
def test_what_is_for_a_change_is_no_option(engine, option):
    result = run_module(module.main, **{option: "x"})
    assert (result["failed"], "Unsupported parameters" in result["msg"]) == (True, True)


def test_another_kind_is_refused(engine):
    result = run_module(module.main, gateway="sendmail")
    assert result["failed"] is True
    assert "postfix, exim, haraka, proxmox, mailcow" in result["msg"]
    assert engine == []
