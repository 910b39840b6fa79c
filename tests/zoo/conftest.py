"""The zoo, open for the length of a test run, and what one call of the module says of all of it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.smtp_server import Face, SmtpServer
from tests.zoo.animals import TIMEOUT, TOTAL_TIMEOUT, ZOO, Animal
from tests.zoo.certificates import NAME, Keeper
from tests.zoo.servers import Middlebox, Mta, nobody

ROOT = Path(__file__).resolve().parents[2]
CHECKS = ["versions", "injection", "resumption"]


@dataclass
class Zoo:
    """Every animal on a port of its own."""

    keeper: Keeper
    ports: dict[str, int]
    servers: dict[str, SmtpServer]
    """Those that listen."""

    def target(self, animal: Animal) -> dict[str, Any]:
        """The animal as the module takes it."""
        return {"host": "127.0.0.1", "port": self.ports[animal.name], "name": NAME, **animal.target}


Entries = dict[str, dict[str, Any]]
"""What the module returned, by the names of the animals."""


@dataclass(frozen=True)
class Play:
    """How a playbook went that calls the module several times: the entries of each call, all output, and the time."""

    calls: dict[str, Entries]
    output: str
    seconds: float


@pytest.fixture(scope="session")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Keeper:
    return Keeper(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def zoo(keeper: Keeper) -> Iterator[Zoo]:
    with contextlib.ExitStack() as cleanup:
        opened = Zoo(keeper, {}, {})
        for animal in ZOO:
            behave = animal.behave
            if behave is nobody:
                reserved = cleanup.enter_context(socket.socket())
                reserved.bind(("127.0.0.1", 0))  # without listen(): a connection is refused
                opened.ports[animal.name] = reserved.getsockname()[1]
                continue
            mta = behave.server if isinstance(behave, Middlebox) else behave
            if isinstance(mta, Mta):
                keeper.prepare(mta.tls)
            server = SmtpServer(Face(on_connect=lambda connection, behave=behave: behave(connection, keeper)))
            cleanup.callback(server.close)
            opened.ports[animal.name], opened.servers[animal.name] = server.port, server
        yield opened


FEW = tuple(animal for animal in ZOO if animal.name in ("good", "TLS 1.2 only", "AUTH before TLS", "expired"))
NO_INTERMEDIATE = tuple(animal for animal in ZOO if animal.name == "no intermediate")
CALLS: dict[str, tuple[tuple[Animal, ...], dict[str, Any]]] = {
    "full": (ZOO, {"checks": CHECKS}),
    "survey": (ZOO, {"mode": "survey"}),
    "fail_on warning": (FEW, {"checks": ["versions"], "fail_on": "warning"}),
    "fail_on notice": (FEW, {"checks": ["versions"], "fail_on": "notice"}),
    "TLS 1.3": (FEW, {"min_tls_version": "TLSv1.3"}),
    "known intermediate": (NO_INTERMEDIATE, {}),
}
"""Each call of the module: the animals, all of them at once, and the options."""


@pytest.fixture(scope="session")
def play(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Play:
    """The zoo as a user would probe it: ansible-playbook, and a task for each call."""
    directory = tmp_path_factory.mktemp("play")
    authority = zoo.keeper.authority
    roots = (authority.root_pem, authority.root_pem + authority.intermediate.certificate_pem)
    tasks: list[dict[str, Any]] = []
    for name, (animals, options) in CALLS.items():
        wanted = {
            "targets": [zoo.target(animal) for animal in animals],
            "ca_content": roots[name == "known intermediate"].decode(),
            "timeout": TIMEOUT,
            "total_timeout": TOTAL_TIMEOUT,
            "min_days_left": 7,
            **options,
        }
        tasks += [
            {"mailfleet.starttls.starttls_probe": wanted, "register": "probe"},
            {"ansible.builtin.copy": {"content": "{{ probe | to_json }}", "dest": str(directory / f"{name}.json")}},
        ]
    playbook = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]
    (directory / "play.yml").write_text(json.dumps(playbook))
    started = time.monotonic()
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i", "localhost,",
            "-e", f"ansible_python_interpreter={sys.executable}",
            "-e", f"ansible_remote_tmp={directory / 'remote'}",
            str(directory / "play.yml"),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / ".lab/ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(directory / "local"),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True, text=True, check=False, timeout=900, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stdout + done.stderr
    calls = {}
    for name, (animals, _options) in CALLS.items():
        results = json.loads((directory / f"{name}.json").read_text())["results"]
        calls[name] = dict(zip((animal.name for animal in animals), results, strict=True))
    return Play(calls, done.stdout + done.stderr, seconds)


@pytest.fixture(scope="session")
def probed(play: Play) -> Entries:
    """The whole zoo in one call, with every check that needs no DNS."""
    return play.calls["full"]


@pytest.fixture(scope="session")
def surveyed(play: Play) -> Entries:
    """The whole zoo again, without whole handshakes."""
    return play.calls["survey"]


def of_severity(entry: dict[str, Any], severity: str) -> set[str]:
    """The codes of an entry's findings of one severity."""
    return {finding["code"] for finding in entry["findings"] if finding["severity"] == severity}


def named(name: str) -> Animal:
    """An animal by its name."""
    return next(animal for animal in ZOO if animal.name == name)
