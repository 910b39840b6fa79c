"""An HTTP server on loopback for stand-ins of gateways that have an API: it keeps the requests and can misbehave."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.api import Response


@dataclass
class Answer:
    """What is given back: a status, and a body that is made JSON unless it is bytes."""

    status: int = 200
    body: Any = None
    location: str = ""

    @property
    def data(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class FakeApi:
    """Use in a with block. A subclass answers in handle(method, path, headers, body)."""

    def __init__(self):
        self.tls = None  # a server's context, to be set before it is entered
        self.requests = []  # (method, path) in the order in which they came
        self.headers = []
        self.misbehave = {}  # (method, beginning of the path) -> Answer, or a function of the right one
        self.delay = 0.0
        self._lock = threading.Lock()

    def handle(self, method, path, headers, body):
        raise NotImplementedError

    def writes(self):
        return [one for one in self.requests if one[0] != "GET" and "ticket" not in one[1]]

    @property
    def url(self):
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                outer._answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *_args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.tls:
            self._server.socket = self.tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_args):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        time.sleep(self.delay)
        with self._lock:
            self.requests.append((request.command, request.path))
            self.headers.append(dict(request.headers))
            answer = self._choose(request.command, request.path, request.headers, body)
        with contextlib.suppress(OSError):  # whoever asked may have gone
            request.send_response(answer.status)
            request.send_header("Content-Type", "application/json")
            request.send_header("Content-Length", str(len(answer.data)))
            if answer.location:
                request.send_header("Location", answer.location)
            request.end_headers()
            request.wfile.write(answer.data)

    def _choose(self, method, path, headers, body):
        for (wanted, beginning), answer in self.misbehave.items():
            if method == wanted and path.startswith(beginning):
                if isinstance(answer, Answer):
                    return answer
                return answer(lambda: self.handle(method, path, headers, body))
        return self.handle(method, path, headers, body)


def http(method, url, headers, body):
    """An http for an adapter, see rest.Http, without Ansible."""
    request = urllib.request.Request(url, body, dict(headers), method=method)
    try:
        answer = _OPENER.open(request, timeout=5)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return Response(answer.status, answer.read(), {name.lower(): value for name, value in answer.headers.items()})


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args):
        return None


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
