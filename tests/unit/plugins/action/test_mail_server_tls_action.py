"""Where the decisions of mail_server_tls run: on the host, or on the controller for a kind that asks for that."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.action.mail_server_tls import ActionModule
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds import product as registry
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.controller import CONTROLLERS
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import PRODUCTS

MODULE = ActionModule.MODULE


@pytest.fixture
def act(monkeypatch):
    """Runs the action plugin with options over a connection; what it ran on the host is in act.ran."""
    monkeypatch.setattr(ActionBase, "run", lambda *_args, **_kwargs: {})
    monkeypatch.setattr(ActionBase, "validate_argument_spec", lambda self, **_kwargs: (None, dict(self._task.args)))

    def run(connection, async_val=0, **options):
        plugin = object.__new__(ActionModule)
        plugin._task = SimpleNamespace(args=options, check_mode=True, async_val=async_val)
        plugin._connection = SimpleNamespace(transport=connection)
        plugin._execute_module = lambda module, module_args, task_vars: (
            run.ran.append((module, module_args)) or {"ok": 1}
        )
        return plugin.run(task_vars={})

    run.ran = []
    return run


@pytest.fixture
def far(monkeypatch):
    """A kind that is reached by another connection, and whose decisions run on the controller."""
    product = replace(PRODUCTS["postfix"], title="Far", layouts=(), connections=("psrp", "winrm"))
    monkeypatch.setattr(registry, "PRODUCTS", {**PRODUCTS, "far": product})
    monkeypatch.setitem(
        CONTROLLERS, "far",
        lambda options, execute, check_mode: {"step": execute("far_step", {"a": 1}), "options": options, "check": check_mode},
    )  # fmt: skip


@pytest.mark.parametrize(("given", "kind"), [("auto", "auto"), ("", "auto"), (None, "auto"), ("exim", "exim")])
def test_most_kinds_decide_on_the_host(act, far, given, kind):
    assert act("ssh", kind=given, inbound="offered") == {"ok": 1}
    assert act.ran == [(MODULE, {"kind": kind, "inbound": "offered"})]


@pytest.mark.parametrize("given", ["auto", "far"])
def test_a_kind_whose_decisions_run_on_the_controller(act, far, given):
    result = act("winrm", kind=given, inbound="offered")
    assert result["step"] == {"ok": 1}
    assert result["check"] is True
    assert (result["options"]["kind"], result["options"]["inbound"]) == ("far", "offered")
    assert act.ran == [("far_step", {"a": 1})]


def test_a_kind_that_this_connection_does_not_reach(act, far):
    with pytest.raises(
        AnsibleActionFail, match="Far is reached by one of psrp, winrm, and the connection of this host is ssh"
    ):
        act("ssh", kind="far", inbound="offered")
    assert act.ran == []


def test_an_unknown_kind_is_refused_before_the_host_is_asked(act):
    with pytest.raises(AnsibleActionFail, match="kind 'postfx' is not a known kind; choose one of: postfix, exim"):
        act("ssh", kind="postfx", inbound="offered")
    assert act.ran == []


def test_a_change_that_nobody_waits_for_is_refused(act):
    with pytest.raises(AnsibleActionFail, match="async is refused for a change"):
        act("ssh", async_val=60, kind="postfix", inbound="offered")
    assert act.ran == []


def test_a_certificate_with_a_fault_does_not_reach_the_host(act):
    install = {"private_key_content": "no key", "certificate_content": "no certificate", "names": ["mx1.example.com"]}
    result = act("ssh", kind="postfix", inbound="offered", certificate="/etc/mailfleet/starttls.pem", install=install)
    assert result["failed"] and result["findings"]
    assert act.ran == []
