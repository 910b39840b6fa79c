"""Where the decisions of mail_server_tls run: on the host, or on the controller for a kind that asks for that."""

from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.action.mail_server_tls import ActionModule

MODULE = ActionModule.MODULE
WHOLE = {name: one.get("default") for name, one in ActionModule.SPEC.items()}


@pytest.fixture
def act(monkeypatch):
    """Runs the action plugin with options over a connection; what it ran on the host is in act.ran."""
    monkeypatch.setattr(ActionBase, "run", lambda *_args, **_kwargs: {})
    monkeypatch.setattr(ActionBase, "validate_argument_spec", lambda self, **_kwargs: (None, dict(self._task.args)))

    def run(connection, async_val=0, variables=None, **options):
        plugin = object.__new__(ActionModule)
        plugin._task = SimpleNamespace(args=options, check_mode=True, async_val=async_val, delegate_to=None)
        plugin._connection = SimpleNamespace(transport=connection)
        plugin._templar = SimpleNamespace(template=lambda value: value)
        plugin._execute_module = lambda module, module_args, task_vars: (
            run.ran.append((module, module_args)) or {"ok": 1}
        )
        return plugin.run(task_vars=variables or {})

    run.ran = []
    return run


@pytest.mark.parametrize(("given", "kind"), [("auto", "auto"), ("", "auto"), (None, "auto"), ("exim", "exim")])
def test_most_kinds_decide_on_the_host(act, given, kind):
    assert act("ssh", kind=given, inbound="offered") == {"ok": 1}
    assert act.ran == [(MODULE, {"kind": kind, "inbound": "offered"})]


@pytest.mark.parametrize(("connection", "given"), [("winrm", "auto"), ("psrp", ""), ("ssh", "exchange")])
def test_for_exchange_the_controller_decides_and_the_host_runs_cmdlets(act, connection, given):
    result = act(connection, **(WHOLE | {"kind": given, "inbound": "offered"}))
    assert (result["failed"], result["msg"]) == (True, "exchange_cmdlets gave no reason")
    assert act.ran == [("mailfleet.starttls.exchange_cmdlets", {"operation": "read", "reach": "auto"})]


def test_variables_of_the_host_say_how_the_cmdlets_are_reached(act):
    variables = {"starttls_exchange_reach": "session", "starttls_exchange_server": "EX1"}
    act("ssh", variables=variables, **(WHOLE | {"kind": "exchange", "inbound": "offered"}))
    assert act.ran[0][1] == {"operation": "read", "reach": "session", "server": "EX1"}
    with pytest.raises(AnsibleActionFail, match="starttls_exchange_reach does not fit"):
        act(
            "ssh",
            variables={"starttls_exchange_reach": "telnet"},
            **(WHOLE | {"kind": "exchange", "inbound": "offered"}),
        )


def test_an_exchange_server_cannot_be_left_to_a_template(act):
    with pytest.raises(AnsibleActionFail, match="starttls_settings_only"):
        act("ssh", **(WHOLE | {"kind": "exchange", "inbound": "offered", "settings_only": True}))
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
