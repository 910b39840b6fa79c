# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Headless Chromium for tests, spoken to over a pipe by the DevTools protocol: needs no driver and no library."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Optional

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "Chromium is missing: install the Debian packages chromium and fonts-liberation"
PATIENCE = 60.0


class Browser:
    """One browser with one tab. complaints collects what the page writes to the console and what it fails to load."""

    def __init__(self) -> None:
        if PROGRAM is None:
            raise RuntimeError(MISSING)
        self._home = tempfile.TemporaryDirectory(prefix="mailfleet-chromium-", ignore_cleanup_errors=True)
        there, self._write = os.pipe()
        self._read, here = os.pipe()
        # The protocol uses the descriptors 3 and 4; the shell puts ours there, whose numbers may be too long for its <&.
        command = f'exec "$@" 3</dev/fd/{there} 4>/dev/fd/{here}'
        self._process = subprocess.Popen(
            [
                "/bin/sh", "-c", command, "sh", PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--hide-scrollbars", "--force-color-profile=srgb", "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--user-data-dir={self._home.name}",
                "--remote-debugging-pipe", "about:blank",
            ],
            pass_fds=(there, here), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self._home.name, "XDG_CONFIG_HOME": self._home.name, "XDG_CACHE_HOME": self._home.name},
        )  # fmt: skip
        os.close(there)
        os.close(here)
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._events: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", {"url": "about:blank"}, session=None)["targetId"]
        attached = self.call("Target.attachToTarget", {"targetId": target, "flatten": True}, session=None)
        self._session: Optional[str] = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._home.cleanup()

    def call(
        self, method: str, parameters: Optional[dict[str, Any]] = None, session: Optional[str] = ""
    ) -> dict[str, Any]:
        """Ask for something and return the answer."""
        message: dict[str, Any] = {"id": next(self._numbers), "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = session or self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self._await(lambda answer: answer.get("id") == message["id"], method)

    def open(self, page: Path, width: int, height: int = 900, *, dark: bool = False, mobile: bool = False) -> None:
        """Show a page in a window of this size and forget former complaints."""
        self.complaints.clear()
        self._events.clear()
        screen = {"width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"media": "", "features": [scheme]})
        self.call("Page.navigate", {"url": page.as_uri()})
        if not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._await(lambda message: message.get("method") == "Page.loadEventFired", "the page to load")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True})
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def screenshot(self, path: Path, *, whole: bool = True, kind: str = "png") -> None:
        """A picture of the page."""
        options: dict[str, Any] = {"format": kind, "captureBeyondViewport": whole}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", options)["data"]))

    def pdf(self, path: Path) -> None:
        """The page as it is printed, without background graphics, which is how browsers print by default."""
        options = {"preferCSSPageSize": True, "printBackground": False}
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", options)["data"]))

    def _await(self, wanted: Any, what: str) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while True:
            while b"\0" in self._buffer:
                text, _, self._buffer = self._buffer.partition(b"\0")
                message = json.loads(text)
                self._note(message)
                if wanted(message):
                    if "error" in message:
                        raise RuntimeError(f"{what}: {message['error']}")
                    return message.get("result", message)
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._read, 1 << 20) if ready else b""
            if not data:
                raise TimeoutError(f"Chromium does not answer: {what}")
            self._buffer += data

    def _note(self, message: dict[str, Any]) -> None:
        if "method" in message:
            self._events.append({"method": message["method"]})
        what = message.get("params", {})
        if message.get("method") == "Log.entryAdded":
            self.complaints.append(what["entry"]["text"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(what["exceptionDetails"].get("text")))
        elif message.get("method") == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(what["args"]))
        elif message.get("method") == "Network.requestWillBeSent" and not what["request"]["url"].startswith(
            ("file:", "data:")
        ):
            self.complaints.append(f"asks for {what['request']['url']}")
