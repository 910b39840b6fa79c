"""What a read of a mail server says of peers: nothing of them is loaded where there are none and none are wanted."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils import ansible_peers
from ansible_collections.mailfleet.starttls.plugins.module_utils import ansible_reading as reading
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import BrokenConfigurationError

WANTED = [{"name": "exchange"}]


def server(answer: Any) -> Any:
    def has_peers() -> bool:
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    return SimpleNamespace(has_peers=has_peers)


@pytest.mark.parametrize(
    ("answer", "wanted", "peers"),
    [
        (False, None, []),
        (False, [], []),
        (True, None, "read"),
        (False, WANTED, "read"),
        (BrokenConfigurationError("no"), None, None),
        (BrokenConfigurationError("no"), WANTED, "read"),
    ],
)
def test_peers_are_read_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch, answer: Any, wanted: Any, peers: Any
) -> None:
    monkeypatch.setattr(ansible_peers, "read_peers", lambda *_: {"peers": "read"})
    found = reading._of_peers({"peers": wanted}, "postfix", None, None, server(answer))  # type: ignore[arg-type]
    assert found["peers"] == peers


def test_the_read_itself_loads_nothing_of_gateways_and_of_peers() -> None:
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        f"import {reading.__name__}\n"
        "print([name for name in sys.modules if '_gateway' in name or 'peer_engine' in name or 'ansible_peers' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
