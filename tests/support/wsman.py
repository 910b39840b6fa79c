"""A Windows host as the connection psrp sees it: WS-Management over HTTP on the loopback, with a PowerShell behind it.

It takes what one connection of Ansible does: open a pool, run pipelines with input, close. No files, no accounts, no encryption.
"""

from __future__ import annotations

import base64
import contextlib
import subprocess
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Optional
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from psrpcore import (
    EndOfPipelineInputEvent,
    PipelineInputEvent,
    PSRPPayload,
    ServerPipeline,
    ServerRunspacePool,
    StreamType,
)

SOAP = "http://www.w3.org/2003/05/soap-envelope"
ADDRESSING = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
POWERSHELL = "http://schemas.microsoft.com/powershell"
DONE = f"{SHELL}/CommandState/Done"


class Host:
    """What one client opened. program: the PowerShell; environment: its variables."""

    def __init__(self, program: str, environment: dict[str, str]) -> None:
        self.program, self.environment = program, environment
        self.scripts: list[str] = []
        self._pool = ServerRunspacePool()
        self._id = str(uuid.uuid4()).upper()
        self._input: dict[uuid.UUID, list[str]] = {}
        self._out: dict[Optional[uuid.UUID], bytes] = {}
        self._finished: set[uuid.UUID] = set()

    def answer(self, text: bytes) -> str:
        """The reply to a request."""
        request = ElementTree.fromstring(text)
        header = {str(one.tag).rpartition("}")[2]: one.text or "" for one in request.find(f"{{{SOAP}}}Header") or []}
        action = header["Action"].rpartition("/")[2]
        body = getattr(self, f"_{action.lower()}")(request.find(f"{{{SOAP}}}Body"))
        return (
            f'<s:Envelope xmlns:s="{SOAP}" xmlns:a="{ADDRESSING}" xmlns:rsp="{SHELL}"><s:Header>'
            f"<a:RelatesTo>{header['MessageID']}</a:RelatesTo></s:Header><s:Body>{body}</s:Body></s:Envelope>"
        )

    def _create(self, body: ElementTree.Element) -> str:
        self._take(body.find(f".//{{{POWERSHELL}}}creationXml"), None)
        return f'<rsp:Shell ShellId="{self._id}"><rsp:ShellId>{self._id}</rsp:ShellId></rsp:Shell>'

    def _command(self, body: ElementTree.Element) -> str:
        line = body.find(f"{{{SHELL}}}CommandLine")
        assert line is not None
        number = uuid.UUID(line.attrib["CommandId"])
        ServerPipeline(self._pool, number)
        self._input[number] = []
        self._take(line.find(f"{{{SHELL}}}Arguments"), number)
        return f"<rsp:CommandResponse><rsp:CommandId>{line.attrib['CommandId']}</rsp:CommandId></rsp:CommandResponse>"

    def _send(self, body: ElementTree.Element) -> str:
        stream = body.find(f".//{{{SHELL}}}Stream")
        assert stream is not None
        self._take(stream, uuid.UUID(stream.attrib["CommandId"]))
        return "<rsp:SendResponse/>"

    def _receive(self, body: ElementTree.Element) -> str:
        wanted = body.find(f".//{{{SHELL}}}DesiredStream")
        assert wanted is not None
        named = wanted.attrib.get("CommandId")
        number = uuid.UUID(named) if named else None
        attribute = f" CommandId={quoteattr(named)}" if named else ""
        data = base64.b64encode(self._out.pop(number, b"")).decode()
        state = f'<rsp:CommandState{attribute} State="{DONE}"/>' if number in self._finished else ""
        return f'<rsp:ReceiveResponse><rsp:Stream Name="stdout"{attribute}>{data}</rsp:Stream>{state}</rsp:ReceiveResponse>'

    def _signal(self, _body: ElementTree.Element) -> str:
        return "<rsp:SignalResponse/>"

    def _delete(self, _body: ElementTree.Element) -> str:
        return ""

    def _take(self, element: Optional[ElementTree.Element], number: Optional[uuid.UUID]) -> None:
        """Feed what came to the pool, and keep what it wants to say."""
        assert element is not None
        self._pool.receive_data(PSRPPayload(base64.b64decode(element.text or ""), StreamType.default, number))
        while event := self._pool.next_event():
            if isinstance(event, PipelineInputEvent):
                self._input[event.pipeline_id].append(str(event.data))
            elif isinstance(event, EndOfPipelineInputEvent):
                self._run(event.pipeline_id)
        while payload := self._pool.data_to_send():
            self._out[payload.pipeline_id] = self._out.get(payload.pipeline_id, b"") + payload.data

    def _run(self, number: uuid.UUID) -> None:
        pipeline = self._pool.pipeline_table[number]
        script = pipeline.metadata.commands[0].command_text
        self.scripts.append(script)
        encoded = base64.b64encode(script.encode("utf-16-le")).decode()
        done = subprocess.run(
            [self.program, "-NoProfile", "-NonInteractive", "-EncodedCommand", encoded],
            input="\n".join(self._input[number]), env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        pipeline.start()
        pipeline.write_output(done.stdout)
        pipeline.complete()
        self._finished.add(number)


@contextlib.contextmanager
def serving(host: Host) -> Iterator[int]:
    """Serve a host on the loopback; the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            text = host.answer(self.rfile.read(int(self.headers["Content-Length"]))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/soap+xml;charset=UTF-8")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
