"""The HTTP client of the gateways' modules, against servers that drip."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.api import Api
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_gateway import http_client
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"


@contextlib.contextmanager
def dripping(whole: bytes, drop: bytes):
    """A server that answers with some bytes at once, and then with one more again and again. Yields its URL."""
    ended = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _address = listening.accept()
        with peer, contextlib.suppress(OSError):
            peer.sendall(whole)
            while not ended.wait(0.05):
                peer.sendall(drop)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        ended.set()
        thread.join()
        listening.close()


@pytest.mark.parametrize(
    ("whole", "drop"), [(b"", b"H"), (b"HTTP/1.1 200 OK\r\n", b"X"), (HEAD, b" ")], ids=["status", "header", "body"]
)
def test_the_time_limit_is_for_the_whole_request(whole, drop):
    options = {"timeout": 0.4, "validate_certs": True, "ca_path": None}
    with dripping(whole, drop) as url:
        api = Api(http_client(SimpleNamespace(params=options)), "The Gateway", url, "/api", {})
        started = time.monotonic()
        with pytest.raises(EngineError, match=r"GET /api/things got no answer \(no whole answer within 0\.4 s\)"):
            api.request("GET", "things")
        assert time.monotonic() - started < 30
