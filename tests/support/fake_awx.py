"""A stand-in for the API of AWX, as far as the modules of awx.awx use it: objects, what belongs to them, surveys, approvals.

Written from those modules. It refuses what AWX refuses and our objects could get wrong: a survey against the rules, a playbook that the
project lacks, an object that names one that is not there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.support.awx import faults_of_survey

Item = dict[str, Any]
KINDS = {
    "organizations": "organization", "labels": "label", "credential_types": "credential_type", "credentials": "credential",
    "execution_environments": "execution_environment", "notification_templates": "notification_template", "projects": "project",
    "inventories": "inventory", "inventory_sources": "inventory_source", "job_templates": "job_template",
    "workflow_job_templates": "workflow_job_template", "workflow_job_template_nodes": "workflow_job_template_node",
    "workflow_approval_templates": "workflow_approval_template", "schedules": "schedule",
}  # fmt: skip
LAUNCHED = ("projects", "inventory_sources", "job_templates", "workflow_job_templates", "workflow_approval_templates")
"""What unified_job_templates lists."""
REFERENCES = {
    "organization": "organizations", "project": "projects", "source_project": "projects", "inventory": "inventories",
    "execution_environment": "execution_environments", "unified_job_template": "unified_job_templates",
    "workflow_job_template": "workflow_job_templates",
}  # fmt: skip
"""A field of an object -> where the object with that number is."""


class Refused(Exception):
    """A request that AWX answers with 400."""


class FakeAwx:
    """Use in a with block. items: endpoint -> number -> object. writes: what was changed, as method and path."""

    def __init__(self, playbooks: Collection[str]) -> None:
        self.playbooks = playbooks
        self.items: dict[str, dict[int, Item]] = {kind: {} for kind in KINDS}
        self.belongs: dict[str, list[int]] = {}
        self.writes: list[tuple[str, str]] = []
        self._number = 0
        self._lock = threading.Lock()

    def add(self, endpoint: str, data: Item) -> Item:
        """Make an object."""
        for field, there in REFERENCES.items():
            if data.get(field) and int(data[field]) not in self._list(there):
                raise Refused(f"{field}: there is no {data[field]} in {there}")
        if endpoint == "job_templates" and data["playbook"] not in self.playbooks:
            raise Refused(f"Playbook not found for project: {data['playbook']}")
        self._number += 1
        url = f"/api/v2/{endpoint}/{self._number}/"
        made = {
            **data,
            "id": self._number,
            "url": url,
            "type": KINDS[endpoint],
            "summary_fields": {},
            "scm_revision": "",
        }
        made["related"] = {"survey_spec": f"{url}survey_spec/"} if endpoint.endswith("job_templates") else {}
        self.items[endpoint][self._number] = made
        return made

    def _list(self, endpoint: str) -> dict[int, Item]:
        if endpoint == "unified_job_templates":
            return {number: one for kind in LAUNCHED for number, one in self.items[kind].items()}
        return self.items[endpoint]

    def handle(self, method: str, path: str, query: Item, body: Item) -> tuple[int, Any]:
        """Answer a request: status and body."""
        endpoint, *rest = path.removeprefix("/api/v2/").strip("/").split("/")
        if method != "GET":
            self.writes.append((method, path))
        if not rest:
            return (
                (201, self.add(endpoint, body))
                if method == "POST"
                else (200, self._page(self._chosen(endpoint, query)))
            )
        number = int(rest[0])
        item = self._list(endpoint)[number]
        if len(rest) > 1:
            return self._below(method, f"{endpoint}/{number}/{rest[1]}", rest[1], item, body)
        if method == "DELETE":
            del self.items[endpoint][number]
            return 204, None
        if method == "PATCH":
            item.update(body)
        return 200, item

    def _chosen(self, endpoint: str, query: Item) -> list[Item]:
        wanted = {name: value for name, value in query.items() if not name.startswith(("page", "order_by"))}
        return [
            one
            for one in self._list(endpoint).values()
            if all(str(one.get(name)) == value for name, value in wanted.items())
        ]

    def _below(self, method: str, key: str, what: str, item: Item, body: Item) -> tuple[int, Any]:
        if what == "survey_spec":
            if method == "POST":
                if faults := list(faults_of_survey(body)):
                    raise Refused(f"{item['name']}: {faults}")
                item["survey"] = body
            return 200, item.get("survey", {})
        if what == "create_approval_template":
            made = self.add("workflow_approval_templates", body)
            item["unified_job_template"] = made["id"]
            item["related"]["unified_job_template"] = made["url"]
            return 201, made
        ids = self.belongs.setdefault(key, [])
        if method == "GET":
            return 200, self._page([{"id": one} for one in ids])
        if body.get("disassociate"):
            ids.remove(body["id"])
        else:
            ids.append(body["id"])
        return 204, None

    @staticmethod
    def _page(found: list[Item]) -> Item:
        return {"count": len(found), "next": None, "results": found}

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeAwx:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size) or b"{}")
                parts = urlsplit(self.path)
                with outer._lock:
                    try:
                        status, said = outer.handle(self.command, parts.path, dict(parse_qsl(parts.query)), body)
                    except Refused as error:
                        status, said = 400, {"__all__": [str(error)]}
                    except (KeyError, ValueError) as error:
                        status, said = 404, {"detail": repr(error)}
                self.send_response(status)
                data = b"" if said is None else json.dumps(said).encode()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
