"""A stand-in for the API of mailcow: the parts that the collection uses, with the errors it gives.

Almost every error comes with the status 200; an empty list comes as an object; a switch is a number beside a word of
the interface's language; transports hold the password of the next hop.
"""

import json
import re

from tests.support.fake_api import Answer, FakeApi

KEY = "C0FFEE-DEADBE-0BADF0-0DEFEC-TED123"
SECRET = "transport-password"


class FakeMailcow(FakeApi):
    """policies is the table by id; domains are names, a minus in front for one that is not relayed."""

    def __init__(self, domains=("example.com",), transports=(), policies=(), relayhosts=()):
        super().__init__()
        self.domains = list(domains)
        self.transports = [self._row(one, ("destination", "nexthop")) for one in transports]
        self.relayhosts = [self._row((one,), ("hostname",)) for one in relayhosts]
        self.rows = {}
        self.mailq = []
        for one in policies:
            self._add(*one)
        self.read_only = False
        self.language = ("yes", "no")

    @property
    def policies(self):
        return {
            row["dest"]: f"{row['policy']} {row['parameters']}".strip() for row in self.rows.values() if row["active"]
        }

    def handle(self, method, path, headers, body):
        match = re.fullmatch(r"/api/v1/(get|add|edit|delete)/([a-z-]+)(?:/([a-z0-9]+))?", path)
        if not match:
            return Answer(404, {"type": "error", "msg": "route not found"})
        if "X-API-Key" not in headers:
            return Answer(200, b"")
        if headers["X-API-Key"] != KEY:
            return Answer(200 if method == "GET" else 401, {"type": "error", "msg": "authentication failed"})
        action, what, which = match.groups()
        if method != ("GET" if action == "get" else "POST"):
            return Answer(
                405, {"type": "error", "msg": f"only {'GET' if action == 'get' else 'POST'} method is allowed"}
            )
        if action == "get":
            return Answer(body=self._get(what, which) or {})
        if self.read_only:
            return Answer(403, {"type": "error", "msg": "API read/write access denied"})
        if "application/json" not in headers.get("Content-Type", ""):
            return Answer(200, {"type": "error", "msg": "Cannot find attributes in post data"})
        if what != "tls-policy-map":
            return Answer(404, {"type": "error", "msg": "route not found"})
        return Answer(body=getattr(self, f"_on_{action}")(json.loads(body)))

    def _get(self, what, which):
        if (what, which) == ("status", "version"):
            return {"version": "2026-01"}
        assert which == "all", f"get/{what}/{which} is not known to this stand-in"
        return {
            "mailq": self.mailq,
            "domain": [self._domain(one) for one in self.domains],
            "transport": [{**one, "password": SECRET, "password_short": SECRET[:3] + "..."} for one in self.transports],
            "relayhost": [{**one, "password": SECRET} for one in self.relayhosts],
            "tls-policy-map": [{**row, "active": self.language[not row["active"]], "active_int": row["active"]}
                               for row in self.rows.values()],
        }[what]  # fmt: skip

    def _domain(self, name):
        relayed = int(not name.startswith("-"))
        return {"domain_name": name.lstrip("-"), "backupmx": self.language[not relayed], "backupmx_int": relayed,
                "active": self.language[0], "active_int": "1"}  # fmt: skip

    def _row(self, values, names):
        *_, extra = values if isinstance(values[-1], dict) else (*values, {})
        return {"id": 1, **dict(zip(names, values)), "username": "", "active": "yes", "active_int": 1, **extra}

    def _add(self, dest, policy, parameters="", active=1):
        number = max(self.rows, default=0) + 1
        self.rows[number] = {"id": number, "dest": dest, "policy": policy, "parameters": parameters, "active": active}

    def _on_add(self, attr):
        assert set(attr) == {"dest", "policy", "parameters", "active"}
        if attr["dest"] in (row["dest"] for row in self.rows.values()):
            return [_result("danger", ["tls_policy_map_entry_exists", attr["dest"]])]
        if any(not re.fullmatch(".+=.+", one) for one in attr["parameters"].split()):
            return [_result("danger", "tls_policy_map_parameter_invalid")]
        self._add(attr["dest"].lower(), attr["policy"], attr["parameters"], int(attr["active"]))
        return [_result("success", ["tls_policy_map_entry_saved", attr["dest"]])]

    def _on_edit(self, body):
        assert set(body) == {"items", "attr"}
        results = []
        for number in body["items"]:
            row = self.rows.get(int(number))
            if row is None:
                results.append(_result("danger", "access_denied"))
                continue
            row.update(body["attr"], active=int(body["attr"]["active"]))
            results.append(_result("success", ["tls_policy_map_entry_saved", row["dest"]]))
        return results

    def _on_delete(self, numbers):
        for number in numbers:
            self.rows.pop(int(number), None)
        return [_result("success", ["tls_policy_map_entry_deleted", number]) for number in numbers]


def _result(kind, msg):
    return {"type": kind, "log": ["tls_policy_maps", "edit", {"x_api_key": KEY}], "msg": msg}
