"""Secrets that a test plants, the forms in which they may show, and the arguments of processes, where they may show as well."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import os
import threading
from urllib.parse import quote, quote_plus

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key


class Planted:
    """What is looked for: each secret by its name, in all the forms in which it may appear."""

    def __init__(self) -> None:
        self.forms: dict[bytes, str] = {}

    def text(self, name: str, secret: str) -> str:
        """Plant a secret of one line."""
        raw = secret.encode()
        once, encoded = repr(secret)[1:-1], json.dumps(secret)[1:-1]
        forms = {
            secret, once, repr(once)[1:-1], encoded, json.dumps(encoded)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1],
            quote(secret), quote_plus(secret), html.escape(secret), secret.replace("'", "''"), raw.hex(),
            *(base64.b64encode(raw[start:])[:-4].decode() for start in range(3)),
        }  # fmt: skip
        self.forms |= {form.encode(): name for form in forms}
        return secret

    def key(self, name: str, pem: bytes) -> str:
        """Plant a private key: no line of it may appear, but for those of the public key, which certificates show as well."""
        key = load_pem_private_key(pem, None).public_key()
        public = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        lines = [line for line in pem.splitlines() if b"-----" not in line and len(line) >= 24]
        lines = [line for line in lines if base64.b64decode(line[:24]) not in public]
        assert lines, f"{name} has no line that is private alone"
        self.forms |= {line[:24]: name for line in lines}
        self.forms |= {base64.b64encode(line[start:])[:32]: name for line in lines for start in range(3)}
        return pem.decode()

    def found(self, data: bytes) -> list[str]:
        """The names of the secrets that are in there."""
        return sorted({name for form, name in self.forms.items() if form in data})


class Watched:
    """The arguments of all processes of this machine, looked at again and again while something runs."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._over = threading.Event()

    def _look(self) -> None:
        while not self._over.wait(0.005):
            for number in filter(str.isdigit, os.listdir("/proc")):
                with contextlib.suppress(OSError), open(f"/proc/{number}/cmdline", "rb") as file:
                    self.seen.add(file.read())

    def __enter__(self) -> Watched:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()
