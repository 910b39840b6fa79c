"""async on a change is refused by name: nobody would undo it if the job were lost."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail

ACTIONS = Path(__file__).resolve().parents[4] / "plugins/action"
CHANGE_NOTHING = {
    "deferred_mail_info", "gateway_info", "inbound_tls_mode_info", "mail_server_info", "message_trace", "peer_tls_info", "starttls_probe",
    "tls_activity_info", "tls_outcome", "tls_plan", "tls_recovery", "tls_report", "tls_verdict",
}  # fmt: skip
CHANGES = sorted({path.stem for path in ACTIONS.glob("*.py")} - CHANGE_NOTHING)


@pytest.mark.parametrize("name", CHANGES)
def test_async_is_refused_by_name(name: str) -> None:
    module = importlib.import_module(f"ansible_collections.mailfleet.starttls.plugins.action.{name}")
    action = object.__new__(module.ActionModule)
    action._task = SimpleNamespace(
        async_val=60, args={}, whole_args={}, action=f"mailfleet.starttls.{name}", delegate_to=None
    )
    with pytest.raises(
        AnsibleActionFail, match=rf"async is refused for a change by {name}: .* Remove async from this task"
    ):
        action.run()
