"""A host with a mail server that loads its certificates when it is told to, for the tests of the renewal hook."""

from __future__ import annotations

import contextlib
import functools
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.configuration import RenewalPlan
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.renewal import Renewed, renew
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.pki import Authority, Issued, new_key, now
from tests.support.smtp_server import Face, SmtpServer

NAME = "mx1.example.com"
ME = {"owner": str(os.getuid()), "group": str(os.getgid())}


@functools.cache
def _rsa() -> Any:
    """One key for all RSA certificates, because it takes long to make."""
    return new_key("rsa")


@dataclass
class Listener(SmtpServer):
    """Serves what the mail server has loaded. loaded: the directory of that; empty: TLS is not offered. only: files of this name."""

    loaded: Path = Path("/nonexistent")
    only: str = ""
    watched: Any = None
    oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2

    def _serve(self, connection: Any, face: Face) -> None:
        files = self.watched.paths if self.watched else sorted(self.loaded.glob(f"{self.only}*.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if files else None
        for one in files:
            assert context
            context.minimum_version = self.oldest
            context.load_cert_chain(one)
        lost = replace(face, on_connect=lambda gone: gone.close()) if context is None else face
        super()._serve(connection, replace(lost, context=context))


@dataclass
class MailServer:
    """An adapter. It copies its files when it is told to read them; deaf: it does not. stops: why it does not run."""

    paths: list[Path]
    loaded: Path
    name: str = "fakemail"
    deaf: bool = False
    stops: str = ""
    reloads: int = 0

    def require_running(self) -> None:
        if self.stops:
            raise EngineError(self.stops)

    def resume(self) -> None:
        self.reloads += 1
        if not self.deaf:
            for one in self.paths:
                if one.exists():
                    (self.loaded / f"{'-'.join(one.parts[1:])}.new").write_bytes(one.read_bytes())
                    os.replace(
                        self.loaded / f"{'-'.join(one.parts[1:])}.new", self.loaded / f"{'-'.join(one.parts[1:])}.pem"
                    )


@dataclass
class WatchingServer(MailServer):
    """Notices by itself that its files were replaced, as Exim does."""

    certificate_seconds: float = 0.0

    def reload(self) -> None:
        self.resume()


@dataclass
class Host:
    """One host with a certificate in one algorithm or in several."""

    directory: Path
    authority: Authority
    kinds: tuple[str, ...] = ("ec",)
    in_place: bool = False
    listeners: list[Listener] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.live, self.etc, self.loaded = (self.directory / name for name in ("live", "etc", "loaded"))
        for one in (self.live, self.etc, self.loaded):
            one.mkdir()
        self.server = MailServer([self.served_file(kind) for kind in self.kinds], self.loaded)
        for kind in self.kinds:
            first = self.issue(kind, days=90)
            self.renews(first, kind)
            if not self.in_place:
                self.path(kind).write_bytes(first.key_pem + first.fullchain_pem)
                self.path(kind).chmod(0o600)
        self.server.resume()
        self.server.reloads = 0

    def issue(
        self, kind: str = "", days: float = 90, age: float = 0.05, names: tuple[str, ...] = (NAME,), **more: Any
    ) -> Issued:
        """A certificate that began so many days ago and lives so long in all."""
        start = now() - timedelta(days=age)
        kind = kind or self.kinds[0]
        key = {"key": more.pop("key", _rsa() if kind == "rsa" else kind)}
        return self.authority.issue(
            list(names), not_before=start, not_after=start + timedelta(days=days), **key, **more
        )

    def path(self, kind: str = "") -> Path:
        return self.etc / f"{kind or self.kinds[0]}.pem"

    def served_file(self, kind: str) -> Path:
        return self.live / f"{kind}-both.pem" if self.in_place else self.path(kind)

    def renews(
        self, issued: Issued, kind: str = "", key: Optional[bytes] = None, chain: Optional[bytes] = None
    ) -> Issued:
        """Whoever renews writes its files."""
        kind = kind or self.kinds[0]
        key = issued.key_pem if key is None else key
        chain = issued.fullchain_pem if chain is None else chain
        (self.live / f"{kind}-key.pem").write_bytes(key)
        (self.live / f"{kind}-chain.pem").write_bytes(chain)
        (self.live / f"{kind}-both.pem").write_bytes(key + chain)
        return issued

    def chainless(self) -> None:
        issued = self.issue()
        self.renews(issued, chain=issued.certificate_pem)

    def encrypted(self) -> None:
        issued = self.issue()
        self.renews(issued, key=issued.encrypted_key_pem("secret"))

    def cut_off(self) -> None:
        issued = self.issue()
        self.renews(issued, chain=issued.fullchain_pem[:300])

    def pair(self, kind: str) -> dict[str, str]:
        both = str(self.live / f"{kind}-both.pem")
        if self.in_place:
            return {"private_key": both, "certificate": both}
        files = {"private_key": str(self.live / f"{kind}-key.pem"), "certificate": str(self.live / f"{kind}-chain.pem")}
        return {**files, "path": str(self.path(kind))}

    def data(self, **changes: Any) -> dict[str, Any]:
        """The configuration as plain data."""
        entry = {
            "name": NAME,
            "pairs": [self.pair(kind) for kind in self.kinds],
            "names": [NAME],
            "roots": self.authority.root_pem.decode(),
            "listeners": [
                {
                    "host": one.host, "port": one.port, "name": NAME,
                    "protocol": "smtps" if one.face.implicit_tls else "smtp",
                }
                for one in self.listeners
            ],
            "policy": self.policy,
            **ME,
            **self.more,
            **changes,
        }  # fmt: skip
        return {"format": 1, "kind": "postfix", "timeout": 1, "certificates": [entry]}

    def configuration(self, **changes: Any) -> RenewalPlan:
        return RenewalPlan.from_json(self.data(**changes), "renewal.json")

    def watched(self, seconds: float, notices: bool) -> None:
        """Have the mail server be one that notices a replaced file by itself; or that only should."""
        self.server = WatchingServer(self.server.paths, self.loaded, certificate_seconds=seconds)
        if notices:
            for one in self.listeners:
                one.watched = self.server

    def renew(self, lock_seconds: float = 0.0, is_wanted: Any = lambda: True, **changes: Any) -> Renewed:
        configuration = replace(self.configuration(**changes), timeout=0.3)  # type: ignore[arg-type]  (seconds are whole in the file)
        found = renew(
            configuration, lambda _at: self.server, (), str(self.directory / "store"), lock_seconds, is_wanted
        )
        assert len(found) == 1
        return found[0]

    def installed(self, kind: str = "") -> bytes:
        return self.path(kind).read_bytes()

    def serves(self, kind: str = "") -> bytes:
        return (self.loaded / f"{'-'.join(self.served_file(kind or self.kinds[0]).parts[1:])}.pem").read_bytes()

    def journals(self) -> list[Path]:
        return list((self.directory / "store").glob("*.journal"))


@contextlib.contextmanager
def host(directory: Path, authority: Authority, faces: Mapping[str, Face] | None = None, **more: Any) -> Iterator[Host]:
    """A host whose listeners answer: by default one with STARTTLS, and one with TLS from the first byte."""
    made = Host(directory, authority, **more)
    default = {"smtp": Face(), "smtps": Face(implicit_tls=True)}
    for face in (faces or default).values():
        made.listeners.append(Listener(face, loaded=made.loaded))
    try:
        yield made
    finally:
        for one in made.listeners:
            one.close()


def pem_of(issued: Issued) -> bytes:
    """The file to install."""
    return issued.key_pem + issued.fullchain_pem
