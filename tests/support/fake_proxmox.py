"""A stand-in for the API of Proxmox Mail Gateway: the parts that the collection uses, as strict as they are there.

A ticket in a cookie, its token on writes, parameters as a form, unknown parameters and policies with attributes
refused, an entry that exists refused by POST, one that does not by PUT and DELETE.
"""

import re
from urllib.parse import parse_qsl, unquote

from tests.support.fake_api import Answer, FakeApi

PASSWORD = "pass word&+%/geheim"
TICKET = "PMG:root@pam:65A0::c2ln+/bmF0dXJl=="
TOKEN = "65A0B1C2:dG9r+ZW4/"
STRICT = re.compile(r"none|may|encrypt|dane|dane-only|fingerprint|verify|secure")


class FakeProxmox(FakeApi):
    """policies is the table, transports and domains the routes, mail the settings that are not the defaults."""

    def __init__(self, domains=("example.com",), transports=(), policies=(), **mail):
        super().__init__()
        self.domains = list(domains)
        self.transports = [dict(one) for one in transports]
        self.policies = dict(policies)
        self.mail = {"tls": 1, **mail}
        self.role = "admin"
        self.nodes = {"pmg1": []}  # node -> (queue, entry)
        self.needs_tfa = False

    def handle(self, method, path, headers, body):
        if not path.startswith("/api2/json/"):
            return Answer(404, b"<html>not found</html>")
        path = path[len("/api2/json/") :]
        form = dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body)))
        if body and headers["Content-Type"] != "application/x-www-form-urlencoded":
            return _bad(body="this stand-in reads forms only")
        if (method, path) == ("POST", "access/ticket"):
            return self._log_in(form)
        cookie = re.fullmatch(r"PMGAuthCookie=([^;]+)", headers.get("Cookie", ""))
        if not cookie or unquote(cookie.group(1)) != TICKET:
            return Answer(401, {"data": None, "message": "No ticket"})
        if method != "GET" and headers.get("CSRFPreventionToken") != TOKEN:
            return Answer(401, {"data": None, "message": "Permission denied - invalid csrf token"})
        if method != "GET" and self.role != "admin":
            return Answer(403, {"data": None, "message": "Permission check failed"})
        return self._serve(method, path, form)

    def _log_in(self, form):
        if set(form) != {"username", "password"}:
            return _bad(username="property is missing")
        if form != {"username": "root@pam", "password": PASSWORD}:
            return Answer(401, {"data": None, "message": "authentication failure\n"})
        data = {"username": "root@pam", "ticket": TICKET, "CSRFPreventionToken": TOKEN, "role": "root"}
        return Answer(body={"data": {**data, "NeedTFA": 1} if self.needs_tfa else data})

    def _queue(self, path):
        if path == "nodes":
            return Answer(body={"data": [{"node": one} for one in self.nodes]})
        node, name, start, limit = re.fullmatch(
            r"nodes/(\w+)/postfix/queue/(incoming|active|deferred|hold)\?start=(\d+)&limit=(\d+)", path
        ).groups()
        listed = [entry for queue, entry in self.nodes[node] if queue == name]
        return Answer(body={"data": listed[int(start) :][: int(limit)]})

    def _serve(self, method, path, form):
        if method == "GET" and path.startswith("nodes"):
            return self._queue(path)
        name, _, entry = path.partition("config/")[2].partition("/")
        entry = unquote(entry)
        if method == "GET" and not entry:
            listed = {
                "mail": lambda: {**self.mail, "digest": "0" * 40},
                "domains": lambda: [{"domain": one, "comment": ""} for one in sorted(self.domains)],
                "transport": lambda: self.transports,
                "tlspolicy": lambda: [
                    {"destination": one, "policy": self.policies[one]} for one in sorted(self.policies)
                ],
            }.get(name)
            return (
                Answer(body={"data": listed()}) if listed else Answer(501, {"data": None, "message": "not implemented"})
            )
        if name != "tlspolicy":
            return Answer(501, {"data": None, "message": "not implemented"})
        return self._change(method, entry, form)

    def _change(self, method, entry, form):
        known = {"POST": {"destination", "policy"}, "PUT": {"policy"}, "DELETE": set()}[method]
        if set(form) != known:
            return _bad(**dict.fromkeys(set(form) ^ known, "not defined in schema, or missing"))
        if known and not STRICT.fullmatch(form["policy"]):
            return _bad(policy="value does not look like a valid tls policy")
        entry = entry or form.get("destination", "")
        if (method == "POST") == (entry in self.policies):
            state = "already exists" if method == "POST" else "does not exist"
            return _bad(destination=f"DestinationTLSPolicy entry for '{entry}' {state}")
        if method == "DELETE":
            del self.policies[entry]
        else:
            self.policies[entry] = form["policy"]
        return Answer(body={"data": None})


def _bad(**errors):
    return Answer(400, {"data": None, "message": "Parameter verification failed.\n", "errors": errors})
