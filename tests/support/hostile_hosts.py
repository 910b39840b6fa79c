"""Hosts on which a module runs as Ansible runs it, up to what would be written there and which programs would be started.

Check mode: the engine computes everything that a run would write, and then stops.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils import (
    ansible_gateway,
    ansible_gateway_host,
    ansible_server,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import gateway as exim_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import server as exim_server
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import evidence
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import reading as gateway_reading
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import gateway as postfix_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import server as postfix_server
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import engine as server_engine
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import evidence as server_evidence
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import reading as server_reading
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake

from tests.support.exim_host import EximHost
from tests.support.postfix_host import PostfixHost

ADAPTERS = (
    postfix_gateway.PostfixGateway, postfix_server.Postfix, exim_gateway.EximGateway, exim_server.Exim,
)  # fmt: skip


class Written:
    """What would be written to files, and the programs that were started."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.programs: list[list[str]] = []

    def note(self, change: Any) -> Any:
        """Keep the files of a change."""
        self.files.update({one.path: (one.content or b"").decode("utf-8", "surrogateescape") for one in change.after})
        return change

    def clear(self) -> None:
        """Forget everything."""
        self.files.clear()
        self.programs.clear()

    def holds(self, token: str) -> list[str]:
        """Each line of a file, and each argument of a program, that holds the token."""
        lines = [line for text in self.files.values() for line in text.splitlines() if token in line]
        return lines + [word for words in self.programs for word in words if token in word]


@contextlib.contextmanager
def host(kind: str, root: Path, program: ModuleType) -> Iterator[Written]:
    """A host with Postfix or Exim, as gateway and as mail server, on which every handshake succeeds. program: the module."""
    written = Written()
    with pytest.MonkeyPatch.context() as patch:
        made: Any = PostfixHost(patch, root) if kind == "postfix" else EximHost(patch, root, split=True)
        answer: Callable[..., Any] = made.fake if kind == "postfix" else made.run
        if kind == "postfix":
            made.ports[25] = Stage.EHLO
            made.fake.answers["posttls-finger",] = (0, "", "")

        def run(words: list[str]) -> tuple[int, str, str]:
            written.programs.append(list(words))
            return answer(words)

        for module in (ansible_gateway, ansible_gateway_host, ansible_server, program):
            patch.setattr(module, "runner", lambda _module: run, raising=module is not program)
        for module in (server_evidence, server_reading):
            patch.setattr(module, "handshake_all", handshakes)
        patch.setattr(server_engine, "handshake_one", lambda target, _settings: Handshake(target, Stage.EHLO_TLS))
        for module in (evidence, gateway_reading):
            patch.setattr(module, "handshake_all", handshakes)
        for adapter in ADAPTERS:
            patch.setattr(adapter, "plan", _noting(adapter.plan, written))
        yield written


def handshakes(targets: Any, _settings: Any) -> list[Handshake]:
    """Every target completes its handshake."""
    return [Handshake(one, Stage.EHLO_TLS, trusted=True) for one in targets]


def _noting(plan: Callable[..., Any], written: Written) -> Callable[..., Any]:
    return lambda self, wanted: written.note(plan(self, wanted))
