"""Exchange as a mail server of the fleet: the stubs of its cmdlets, which run here, change the state of the stand-in on the host exch."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_exchange import DIRECTORY, Exchange
from lab_testinfra import STATE, Fleet, Played, wait_for

from tests.support.pki import Authority, lab_authority, write
from tests.support.powershell import CONNECTIONS, environment, required

HOST = "ex1"
"""Its name in the inventory of mail servers. exch is the host on which the stand-in runs."""
MAILBOX = "anna@echo.test"
PARTNER, RELAY = "trace@partner.test", "trace@kilo.test"


class ExchangeServer:
    """The server, with playbooks that know it."""

    def __init__(self, fleet: Fleet, authority: Authority) -> None:
        self.fleet, self.authority = fleet, authority
        self.stand_in = Exchange(fleet, "exch")

    def certificate(self, common_name: str | None = None, authority: Authority | None = None) -> None:
        """Issue a certificate for it, where the inventory names it."""
        issued = (authority or self.authority).issue(["exch.fleet.test"], key="rsa", common_name=common_name)
        write(self.fleet.pki / f"{HOST}.key", issued.key_pem, 0o600)
        write(self.fleet.pki / f"{HOST}.pem", issued.fullchain_pem)

    def play(self, playbook: str, *arguments: str, **variables: Any) -> Played:
        """Run a playbook of the collection; its result has to be good unless the test looks at it."""
        more = {"ANSIBLE_CONNECTION_PLUGINS": str(CONNECTIONS), "ANSIBLE_NOCOLOR": "1"}
        words = ("-i", str(STATE / f"{HOST}.yml"), *arguments)
        return self.fleet.play(f"playbooks/{playbook}.yml", *words, variables=variables, environment=more)

    def planned(self, playbook: str, directory: Path, **variables: Any) -> dict[str, Any]:
        """Run a playbook with --check, which may change nothing; its plan."""
        before = self.stand_in.state()
        file = directory / f"{uuid.uuid4().hex}.json"
        done = self.play(playbook, "--check", starttls_plan_file=str(file), **variables)
        assert done.status == 0, done.output
        assert self.stand_in.state() == before
        return dict(json.loads(file.read_text()))

    def predicted(self, playbook: str, directory: Path, **variables: Any) -> Played:
        """Run a playbook, after a run with --check that has to say what it does to Exchange, and nothing else."""
        before = self.objects()
        said = self.planned(playbook, directory, **variables)["hosts"][HOST]["changes"]
        done = self.play(playbook, **variables)
        assert done.status == 0, done.output
        after = self.objects()
        changed = {name.lower(): name for name in {*before, *after} if _differ(before.get(name), after.get(name))}
        named = {
            one["path"].removeprefix("certificate ").rpartition(" connector ")[2].lower(): one["lines"] for one in said
        }
        assert set(named) == set(changed), (named, changed)
        for name, lines in named.items():
            for line in lines.splitlines():
                one = (before if line[0] == "-" else after).get(changed[name]) or {}
                what, _, value = line[1:].partition(": ")
                # The stand-in writes times in another form.
                assert what not in one or what.startswith("Not") or _shown(one[what]) == value, (name, line, one[what])
        return done

    def objects(self) -> dict[str, dict[str, Any]]:
        """Certificates and connectors, by thumbprint or identity."""
        state = self.stand_in.state()
        found = {one["Thumbprint"]: one for one in state["Certificates"]}
        for kind in ("ReceiveConnectors", "SendConnectors"):
            found |= {one["Identity"]: one for one in state.get(kind) or []}
        return found


def _differ(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    """Whether an object changed. A property that one of the two lacks has its default there."""
    if one is None or other is None:
        return one is not other
    return any(one[name] != other[name] for name in set(one) & set(other))


def _shown(value: Any) -> str:
    """A property as a plan shows it."""
    if value is None or value == []:
        return "$null"
    if isinstance(value, bool):
        return f"${str(value).lower()}"
    return ", ".join(value) if isinstance(value, list) else str(value)


class Ways:
    """Messages through the fleet, each of which has to arrive once."""

    def __init__(self, fleet: Fleet, server: ExchangeServer) -> None:
        self.fleet, self.server = fleet, server
        self.sent: dict[str, str] = {}  # mark -> where it has to arrive

    def all(self) -> dict[str, str]:
        """Send a message on each way: from the partner and the relay to Exchange, and back. Way -> mark."""
        marks = {"in": self.submit("outside", PARTNER, MAILBOX), "relay in": self.submit("rp13", RELAY, MAILBOX)}
        self.sent |= dict.fromkeys(marks.values(), "exch")
        for way, host, to in (("out", "outside", PARTNER), ("relay out", "rp13", RELAY)):
            marks[way] = self.server.stand_in.submit([to], MAILBOX)
            self.sent[marks[way]] = host
        return marks

    def submit(self, host: str, sender: str, recipient: str) -> str:
        """Hand a message to the mail server of a host; its mark."""
        mark = uuid.uuid4().hex
        text = f"From: {sender}\nTo: {recipient}\nSubject: {mark}\n\nx\n"
        self.fleet.run(host, f"sendmail -f {sender} {recipient}", text)
        return mark

    def count(self, mark: str) -> int:
        """How many copies have arrived."""
        if self.sent[mark] == "exch":
            return len(self.server.stand_in.received(mark))
        return len(self.fleet.copies(self.sent[mark], mark))

    def once(self) -> None:
        """Everything that was sent has arrived, once, and nothing was refused."""

        def lost() -> list[str]:
            return [mark for mark in self.sent if not self.count(mark)]

        if not wait_for(lambda: not lost(), 10):
            for host in ("outside", "gw1", "rp13"):
                self.fleet.run(
                    host, "for one in $(postmulti -l | awk '{print $4}'); do postqueue -c $one -f; done", check=False
                )
            self.server.stand_in.flush()
        assert wait_for(lambda: not lost(), 40), (lost(), self.server.stand_in.queue())
        assert {mark: count for mark in self.sent if (count := self.count(mark)) != 1} == {}
        assert self.server.stand_in.failed() == []

    def over_tls(self, marks: dict[str, str]) -> dict[str, bool]:
        """Way -> whether the hop to or from Exchange was over TLS."""
        self.once()
        found = {}
        for way, mark in marks.items():
            if self.sent[mark] == "exch":
                found[way] = bool(self.server.stand_in.received(mark)[0]["Tls"])
            else:
                found[way] = bool(self.server.stand_in.sent(mark)[0]["Tls"])
        return found


def write_inventory(fleet: Fleet) -> None:
    """Write what an administrator adds to the inventory, and how PowerShell runs here instead of on the server."""
    shell = environment(Path(DIRECTORY), f"/proc/{fleet._init('exch')}/root")
    names = ("PSModulePath", "EXCHANGE_STUBS_DIRECTORY", "EXCHANGE_STUBS_ROOT")
    host = {
        "ansible_connection": "pwsh_pipe",
        "ansible_become": False,
        "ansible_pwsh_pipe_program": required(),
        "ansible_pwsh_pipe_environment": {name: shell[name] for name in names},
        "starttls_kind": "exchange",
        "starttls_hostname": "exch.fleet.test",
        "starttls_address": fleet.address("exch"),
        "starttls_exchange_server": "EXCH",
        "starttls_exchange_wait": 20,
        "starttls_exchange_remove_former": True,
        "starttls_exchange_journal": str(STATE / "journal"),
        "starttls_peers": [{"name": "relay", "hosts": ["rp13"], "domains": ["kilo.test"], "direction": "both"}],
    }
    relay = {
        "starttls_peers": [
            {
                "name": "exchange", "kind": "exchange", "hosts": [HOST], "domains": ["echo.test"], "direction": "both",
                "proof_sender": RELAY, "proof_recipient": MAILBOX,
            }
        ]
    }  # fmt: skip
    inventory = {"all": {"children": {"mail_servers": {"hosts": {HOST: host, "rp13": relay}}}}}
    (STATE / f"{HOST}.yml").write_text(yaml.safe_dump(inventory))


@pytest.fixture(scope="session")
def exchange_server(fleet: Fleet) -> ExchangeServer:
    """The Exchange server; the tests are skipped without a PowerShell."""
    required()
    write_inventory(fleet)
    authority = lab_authority(fleet.pki, fleet.ca)
    assert authority
    made = ExchangeServer(fleet, authority)
    # As after its setup: with the certificate that it has signed itself.
    made.stand_in.change(lambda state: state.update(Certificates=state["Certificates"][:1]))
    made.certificate()
    return made


@pytest.fixture(scope="session")
def ways(fleet: Fleet, exchange_server: ExchangeServer) -> Ways:
    """The ways through this fleet."""
    return Ways(fleet, exchange_server)
