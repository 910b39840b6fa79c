"""exchange_cmdlets for the unit tests: what the action plugins would have it do on a server, done by the interpreter of calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.options import completed
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.task import ExchangeTask

from tests.support.exchange_organisation import Refused, StrictExchange, organisation


class ExchangeHost:
    """A server, and the calls that reached it. fails_at: the cmdlet that fails; dies: the run is killed instead."""

    def __init__(self, **parts: Any) -> None:
        self.exchange = StrictExchange(organisation(**parts))
        self.operations: list[str] = []
        self.fails_at, self.dies = "", False
        self.unread: dict[str, Any] | None = None

    def execute(self, module: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Do what the module does."""
        assert module == "mailfleet.starttls.exchange_cmdlets"
        self.operations.append(options["operation"])
        if self.unread is not None:
            return self.unread
        if options["operation"] == "read":
            return {"changed": False, "observed": self.exchange.state}
        calls = list(options["calls"])
        assert all("Confirm" not in one["Parameters"] for one in calls)
        done: list[Mapping[str, Any]] = []
        for call in calls:
            if self.dies and call["Cmdlet"] == self.fails_at:
                raise KeyboardInterrupt
            try:
                if call["Cmdlet"] == self.fails_at:
                    raise Refused("it does not want to")
                self._run(call)
            except Refused as error:
                for one in (undo for former in reversed(done) for undo in former["Undo"]):
                    self._run(one)
                return {"failed": True, "msg": f"{call['Cmdlet']} failed: {error}", "failure": {}, "undo": []}
            done.append(call)
        return {"changed": True, "observed": self.exchange.state, "undo": []}

    def _run(self, call: Mapping[str, Any]) -> None:
        self.exchange.run([call])

    def task(self, journal: Any, **options: Any) -> ExchangeTask:
        """The work of a task with these options."""
        given = {"clients": ["192.0.2.1"], "next_hops": ["gw1.example.com"], "journal": str(journal), **options}
        return ExchangeTask(
            self.execute, "ex1", completed(given, {}, lambda value: value), {"inventory_hostname": "ex1"}
        )
