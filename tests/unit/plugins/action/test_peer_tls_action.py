"""The action of peer_tls: a change is not made in the background."""

from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.mailfleet.starttls.plugins.action.peer_tls import ActionModule


def test_async_is_refused():
    action = object.__new__(ActionModule)
    action._task = SimpleNamespace(async_val=60, args={}, whole_args={})
    with pytest.raises(AnsibleActionFail, match="async is refused for a change"):
        action.run()
