"""What the module says about a gateway, run as Ansible runs it."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.gateway import exim, postfix
from ansible_collections.mailfleet.starttls.plugins.module_utils.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.mode import EmailConfig, dump
from ansible_collections.mailfleet.starttls.plugins.modules import inbound_tls_mode_info as module

from tests.support.ansible_module import run_module

MODES = ["plaintext", "match_sender", "match_sender_strict", "opportunistic", "required"]


@pytest.fixture
def registries(monkeypatch, tmp_path):
    """Where each kind of gateway keeps its email configs."""
    paths = {"postfix": tmp_path / "postfix.json", "exim": tmp_path / "exim.json"}
    for adapter, name in ((postfix, "postfix"), (exim, "exim")):
        monkeypatch.setattr(adapter, "REGISTRY", str(paths[name]))
    return paths


def config(name, mode):
    return EmailConfig(name, (f"{name}.example",), (Target("mx.example"), Target("2001:db8::1", 26)), mode)


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize("kind", ["postfix", "exim"])
def test_a_gateway_without_email_configs(registries, kind, check_mode):
    result = run_module(module.main, check_mode=check_mode, gateway=kind)
    assert (result["changed"], result["email_configs"], result["delivery_modes"]) == (False, [], MODES)
    assert "failed" not in result
    assert not registries[kind].exists()


@pytest.mark.parametrize("kind", ["postfix", "exim"])
def test_the_email_configs_in_order_of_their_names(registries, kind):
    text = dump([config("zeta", "required"), config("alpha", "match_sender_strict")])
    registries[kind].write_text(text)
    result = run_module(module.main, gateway=kind)
    servers = ["mx.example:25", "[2001:db8::1]:26"]
    assert result["email_configs"] == [
        {"name": "alpha", "domains": ["alpha.example"], "servers": servers, "delivery_mode": "match_sender_strict"},
        {"name": "zeta", "domains": ["zeta.example"], "servers": servers, "delivery_mode": "required"},
    ]
    assert result["changed"] is False
    assert registries[kind].read_text() == text


def test_the_order_is_not_that_of_the_file(registries):
    lines = dump([config("b", "plaintext")]).strip()[1:-1] + "," + dump([config("a", "plaintext")]).strip()[1:-1]
    registries["exim"].write_text(f"[{lines}]")
    assert [one["name"] for one in run_module(module.main, gateway="exim")["email_configs"]] == ["a", "b"]


def test_without_a_word_it_is_postfix(registries):
    registries["postfix"].write_text(dump([config("one", "plaintext")]))
    assert [one["name"] for one in run_module(module.main)["email_configs"]] == ["one"]


@pytest.mark.parametrize("kind", ["postfix", "exim"])
def test_a_file_that_cannot_be_read_is_said(registries, kind):
    registries[kind].write_text("{")
    result = run_module(module.main, gateway=kind)
    assert result["failed"] is True
    assert result["msg"].startswith(f"{registries[kind]} cannot be read (")


@pytest.mark.parametrize("kind", ["postfix", "exim"])
def test_a_directory_in_its_place_is_said(registries, kind):
    registries[kind].mkdir()
    result = run_module(module.main, gateway=kind)
    assert result["failed"] is True
    assert str(registries[kind]) in result["msg"]


def test_another_kind_is_refused(registries):
    result = run_module(module.main, gateway="sendmail")
    assert result["failed"] is True
    assert "postfix, exim" in result["msg"]
