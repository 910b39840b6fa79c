"""A host with one of the configurations of tests/cases/postfix, and the network that a row describes.

No daemon runs: the stand-in for postconf(1) has the defaults of a real Postfix, and what a listener does follows from its settings by
the rules of postconf(5), at each reload. The handshakes are real, with servers on the loopback in the place of the hosts of the network.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import socket
import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, Optional

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils import ansible_glue
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import lock
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import own_port
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import gateway as postfix_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp import patience
from ansible_collections.mailfleet.starttls.plugins.modules import (
    inbound_tls_mode,
    mail_server_info,
    mail_server_tls,
    outbound_tls_mode,
)

from tests.support.ansible_module import run_module
from tests.support.field_cases import CASES, Row, differs
from tests.support.pki import Authority
from tests.support.postfix_host import PostfixHost
from tests.support.smtp_server import PLAIN, REQUIRES_TLS, Face, SmtpServer, reply

DEFAULTS = dict(
    line.partition(" =")[::2] for line in (CASES / "postfix_defaults.txt").read_text().splitlines() if " =" in line
)
# An old name that other defaults refer to, and that postconf does not list.
DEFAULTS = {"fallback_relay": "", **{name: value.strip() for name, value in DEFAULTS.items()}}
CERTIFICATE = "/etc/mailfleet/starttls.pem"
CHANGES = {"inbound_tls_mode": inbound_tls_mode, "outbound_tls_mode": outbound_tls_mode}
REQUIRED = ("encrypt", "dane-only", "fingerprint", "verify", "secure")
PACKAGE = "ansible_collections.mailfleet.starttls."
_PORTS = {"smtp": 25, "submission": 587, "smtps": 465, "submissions": 465}
_TAKEN = b"250 2.1.0 Ok\r\n"
_NO_TLS = b"454 4.7.0 TLS not available due to local problem\r\n"
_ANSWERS = {"offered": Face(), "none": PLAIN, "implicit": Face(implicit_tls=True)}


class Network:
    """Servers that answer at the addresses of others. proved: who completed a handshake. implicit: those from the first byte."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._servers: dict[tuple[str, int], SmtpServer] = {}
        self._names: dict[str, str] = {}
        self.proved: set[str] = set()
        self.implicit: set[str] = set()
        here, resolve, base = self._servers, socket.getaddrinfo, socket.socket.__mro__[1]

        def place(address: Any) -> Any:
            if not isinstance(address, tuple):
                return address
            host = "127.0.0.1" if address[0] in ("::1", "localhost") else address[0]
            server = here.get((host, address[1]))
            return (server.host, server.port) if server else None

        def connect(sock: Any, address: Any) -> None:
            if (there := place(address)) is None:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
            base.connect(sock, there)  # type: ignore[attr-defined]

        def connect_ex(sock: Any, address: Any) -> int:
            there = place(address)
            return errno.ECONNREFUSED if there is None else int(base.connect_ex(sock, there))  # type: ignore[attr-defined]

        def look_up(host: Any, port: Any, *more: Any, **words: Any) -> Any:
            name = host.decode() if isinstance(host, bytes) else host
            return resolve(self._names.get(name, "127.0.0.1" if name == "localhost" else name), port, *more, **words)

        patch.setattr(socket.socket, "connect", connect)
        patch.setattr(socket.socket, "connect_ex", connect_ex)
        patch.setattr(socket, "getaddrinfo", look_up)

    def serve(self, host: str, port: int, face: Face, context: Optional[ssl.SSLContext]) -> None:
        """Answer at this address from now on."""
        if host.strip("0123456789."):
            self._names[host] = f"192.0.2.{100 + len(self._names)}"
        key = (self._names.get(host, host), port)
        name, inside = f"{host}:{port}", reply(250, "mail.example.com", *face.capabilities_tls)

        def hello(_secure: ssl.SSLSocket) -> bytes:
            self.proved.add(name)
            if face.implicit_tls:
                self.implicit.add(name)
            return inside

        told = {"answers_tls": {b"EHLO": hello}, "context": context}
        known = self._servers.get(key)
        new = Face(**{**vars(face), **told})
        if known:
            known.face = new
        else:
            self._servers[key] = SmtpServer(new)

    def close(self) -> None:
        """End all servers."""
        for server in self._servers.values():
            server.close()


class FieldHost:
    """The host, before and after a change. running: service of master.cf -> what its listener does."""

    def __init__(self, patch: pytest.MonkeyPatch, root: Path, row: Row, authority: Authority) -> None:
        self.root = root
        source = CASES / row["dir"]
        main, master = (
            (source / name).read_text().replace("/etc/", f"{root}/etc/") for name in ("main.cf", "master.cf")
        )
        self.host = PostfixHost(patch, root, main=main, master=master, defaults=DEFAULTS)
        for table in source.iterdir():
            if table.name not in ("main.cf", "master.cf"):
                shutil.copy(table, self.host.etc)
        self._certificates = _Certificates(root, authority)
        self._certificates.write(main + master)
        self.certificate = self._certificates.issue(Path(f"{root}{CERTIFICATE}"))
        self.network = Network(patch)
        for place, answer in row.get("network", {}).items():
            name, _, port = place.rpartition(":")
            self.network.serve(name, int(port), _ANSWERS[answer], self._certificates.context([self.certificate]))
        self.running: dict[str, dict[str, Any]] = {}
        self.reloads = 0
        self._run_here(patch)
        self._read_again()
        self.before = self.running

    def _run_here(self, patch: pytest.MonkeyPatch) -> None:
        """Have the modules use this host: its commands, its network, and a store below its root."""
        runner, store = ansible_glue.runner, lock.STORE
        mine = [module for name, module in list(sys.modules.items()) if name.startswith(PACKAGE)]
        for module in mine:
            if getattr(module, "runner", None) is runner:
                patch.setattr(module, "runner", lambda _module: self.run)
            for function in _functions(module):
                if store in (function.__defaults__ or ()):
                    changed = tuple(
                        f"{self.root}/store" if one == store else one for one in function.__defaults__ or ()
                    )
                    patch.setattr(function, "__defaults__", changed)
        for module in (postfix_gateway, own_port):
            patch.setattr(module, "handshake_one", patience.handshake_one)
        patch.setattr(own_port, "wait_until", patience.wait_until)
        patch.setattr(patience, "PAUSE", 0.0)

    def run(self, words: Sequence[str]) -> tuple[int, str, str]:
        """What a command of the host does."""
        if words[0] == "postfix" and words[-1] == "reload":
            self.reloads += 1
            self._read_again()
            return 0, "", ""
        if words[:1] == ["postconf"] and "-P" in words and not any("=" in word for word in words):
            settings = (
                f"{one}/{name} = {value}\n" for one, found in self.options().items() for name, value in found.items()
            )
            return 0, "".join(settings), ""
        return self.host.fake(words)

    def files(self) -> dict[str, bytes]:
        """All that a change could write, but locks and records."""
        kept = (path for path in self.root.rglob("*") if path.is_file() and "store" not in path.parts)
        return {str(path): path.read_bytes() for path in kept}

    def options(self) -> dict[str, dict[str, str]]:
        """Service -> its own settings."""
        return {name: _options(words) for name, words in self.host.services(self.host.etc).items()}

    def value(self, service: str, parameter: str) -> str:
        """A setting as the service has it, by postconf(5)."""
        own = self.options().get(service, {}).get(parameter)
        fake = self.host.fake
        found = own if own is not None else fake.explicit().get(parameter, DEFAULTS.get(parameter, ""))
        return str(fake._expand(found, self.host.etc))

    def _read_again(self) -> None:
        """Read main.cf and master.cf as Postfix does at a reload, and serve what they say."""
        self.running = {}
        for service, words in self.host.services(self.host.etc).items():
            command = words[7]
            if not service.endswith("/inet") or command not in ("smtpd", "postscreen"):
                continue
            address, _, port = service.rpartition("/")[0].rpartition(":")
            files = self._served(service)
            tls = self._mode(service, command)
            if self.value(service, "smtpd_tls_wrappermode") == "yes":
                tls = "implicit"
            face = Face(mail=REQUIRES_TLS if tls == "required" else _TAKEN, implicit_tls=tls == "implicit")
            if tls == "none":
                face = PLAIN
            elif not files:  # STARTTLS stands in the answer to EHLO all the same
                tls, face = "unusable", Face(mail=face.mail, starttls=_NO_TLS)
            self.running[service] = {"tls": tls, "serves": files if tls not in ("none", "unusable") else []}
            context = self._certificates.context(files) if files else None
            self.network.serve(address or "127.0.0.1", int(_PORTS.get(port, port)), face, context)

    def _served(self, service: str) -> list[Path]:
        chain = [one for one in re.split(r"[,\s]+", self.value(service, "smtpd_tls_chain_files")) if one]
        older = [self.value(service, f"smtpd_tls_{kind}cert_file") for kind in ("", "d", "ec")]
        paths = [Path(one) for one in chain or older if one not in ("", "none")]
        return [path for path in paths if path.is_file() and b"BEGIN CERTIFICATE" in path.read_bytes()]

    def _mode(self, service: str, command: str) -> str:
        level = self.value(service, f"{command}_tls_security_level")
        if not level:
            level = "may" if self.value(service, f"{command}_use_tls") == "yes" else ""
            level = "encrypt" if self.value(service, f"{command}_enforce_tls") == "yes" else level
        return {"may": "offered", "encrypt": "required"}.get(level, "none")

    def level(self, place: str) -> str:
        """The TLS level towards a next hop, by the transports that mail_server_info lists, the routes and the tables of policies."""
        name, _, port = place.rpartition(":")
        found = [one for one in self.transports() if (one["next_hop"], one["port"]) == (name, int(port))]
        levels = {self._by_table(one["transport"], name, port) or one["level"] for one in found}
        return _weakest(levels | self._routed(name, port))

    def _routed(self, name: str, port: str) -> set[str]:
        """The levels of the transports that a table of routes names with this next hop."""
        levels = set()
        for line in self._tables("transport_maps"):
            transport, _, hop = line.partition(":")
            if hop.strip("[]").replace("]:", ":") in (name, f"{name}:{port}"):
                service = f"{transport}/unix"
                levels.add(self._by_table(transport, name, port) or self.value(service, "smtp_tls_security_level"))
        return levels

    def routes_to(self, place: str) -> list[str]:
        """The transports that lead to a next hop."""
        name, _, port = place.rpartition(":")
        lines = [line.partition(":") for line in self._tables("transport_maps")]
        listed = [one["transport"] for one in self.transports() if (one["next_hop"], one["port"]) == (name, int(port))]
        return listed + [one for one, _, hop in lines if hop.strip("[]").replace("]:", ":") in (name, f"{name}:{port}")]

    def _by_table(self, transport: str, name: str, port: str) -> str:
        client = (
            "lmtp"
            if self.host.services(self.host.etc).get(f"{transport}/unix", [transport] * 8)[7] == "lmtp"
            else "smtp"
        )
        for line in self._tables(f"{client}_tls_policy_maps", f"{transport}/unix", with_keys=True):
            key, _, value = line.partition(" ")
            if key in (f"[{name}]:{port}", f"[{name}]", name, f"{name}:{port}"):
                return value.split()[0]
        return ""

    def _tables(self, parameter: str, service: str = "", with_keys: bool = False) -> Iterator[str]:
        for table in re.split(r"[,\s]+", self.value(service, parameter)):
            kind, _, path = table.partition(":")
            if kind == "texthash" and Path(path).exists():
                for line in Path(path).read_text().splitlines():
                    words = line.split()
                    if words and not line.startswith("#"):
                        yield " ".join(words if with_keys else words[1:])

    def transports(self) -> list[dict[str, Any]]:
        """What mail_server_info lists."""
        return list(self.read()["transports"])

    def read(self) -> dict[str, Any]:
        """The result of mail_server_info."""
        return run_module(mail_server_info.main, kind="postfix", timeout=5)

    def close(self) -> None:
        """End its network."""
        self.network.close()


class _Certificates:
    """The certificates that files of the host hold: one for each name of a file, its key beside it or in it."""

    def __init__(self, root: Path, authority: Authority) -> None:
        self._root, self._authority, self._issued = root, authority, {}

    def write(self, text: str) -> None:
        """Write each file that a configuration names."""
        paths = [Path(one) for one in dict.fromkeys(re.findall(r"/[\w./-]+\.(?:pem|key)\b", text))]
        alone = {path.stem for path in paths if path.suffix == ".key"}
        for path in paths:
            issued = self._issued.setdefault(path.stem, self._authority.issue(["mail.example.com"]))
            path.parent.mkdir(parents=True, exist_ok=True)
            key = b"" if path.stem in alone else issued.key_pem
            path.write_bytes(issued.key_pem if path.suffix == ".key" else key + issued.fullchain_pem)

    def issue(self, path: Path) -> Path:
        """Write a file with key and certificate."""
        path.parent.mkdir(parents=True, exist_ok=True)
        issued = self._authority.issue(["mail.example.com"])
        self._issued[path.stem] = issued
        path.write_bytes(issued.key_pem + issued.fullchain_pem)
        return path

    def context(self, files: Sequence[Path]) -> ssl.SSLContext:
        """A server that serves the first of these files."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued, bundle = self._issued[files[0].stem], self._root / "served.pem"
        bundle.write_bytes(issued.key_pem + issued.fullchain_pem)
        context.load_cert_chain(bundle)
        bundle.unlink()
        return context


def _functions(module: Any) -> Iterator[FunctionType]:
    for value in list(vars(module).values()):
        members = vars(value).values() if isinstance(value, type) and value.__module__ == module.__name__ else [value]
        yield from (one for one in members if isinstance(one, FunctionType) and one.__module__ == module.__name__)


def _options(words: Sequence[str]) -> dict[str, str]:
    pairs = (one.partition("=")[::2] for flag, one in zip(words, words[1:]) if flag == "-o")
    return dict(pairs)


def _weakest(levels: set[str]) -> str:
    """The level that counts if several ways lead to a next hop: the weakest."""
    order = ("", "none", "may", "dane", *REQUIRED)
    return min(levels, key=lambda one: order.index(one) if one in order else 0) if levels else ""


def served(directory: str, root: Path, authority: Authority, changed: bool) -> dict[str, list[str]]:
    """Port -> what a listener does, and the name of the file with the certificate that it serves."""
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.closing(FieldHost(patch, root, {"dir": directory}, authority)) as host,
    ):
        if changed:
            settings = (f"smtpd_tls_chain_files = {host.certificate}", "smtpd_tls_security_level = may")
            host.run(["postconf", "-c", str(host.host.etc), "-e", *settings])
            host.run(["postfix", "-c", str(host.host.etc), "reload"])
        ports = {service: service.rpartition("/")[0].rpartition(":")[2] for service in host.running}
        return {
            str(_PORTS.get(ports[service], ports[service])): [
                one["tls"],
                *([one["serves"][0].stem] if one["serves"] else [""]),
            ]
            for service, one in host.running.items()
        }


# What a row asks


def hosts(row: Row, root: Path, authority: Authority) -> str:
    """Why mail_server_info does not list, or a change does not do, what the row has."""
    with pytest.MonkeyPatch.context() as patch, contextlib.closing(FieldHost(patch, root, row, authority)) as host:
        if "request" in row:
            return _requested(row, host)
        result = host.read()
        if result.get("failed"):
            return str(result["msg"])
        kind = "listeners" if "listeners" in row else "transports"
        return _listed(row[kind], [_without_root(one, root) for one in result[kind]])


def _without_root(found: Row, root: Path) -> dict[str, Any]:
    return {**found, "certificates": [one.removeprefix(str(root)) for one in found.get("certificates", ())]}


def _listed(expected: Sequence[Row], found: Sequence[Row]) -> str:
    left, reasons = list(found), []
    for one in expected:
        wanted = {name: value for name, value in one.items() if name != "open"}
        match = next((other for other in left if not _entry_differs(wanted, other)), None)
        if match is not None:
            left.remove(match)
        elif not one.get("open"):
            name = one.get("service", one.get("setting"))
            near = next((other for other in left if name in (other.get("service"), other.get("setting"))), None)
            reasons.append(_entry_differs(wanted, near) if near else f"{name}: not listed")
    # An entry that is open need not be there, and more of the same transport does no harm.
    named = {(one.get("setting"), one.get("transport")) for one in expected if "setting" in one}
    reasons += [
        f"{one.get('service', one.get('setting'))} is listed: {dict(one)}" for one in left
        if "service" in one or (one.get("setting"), one.get("transport")) not in named
    ]  # fmt: skip
    return "; ".join(filter(None, reasons))


_NEUTRAL = {"none": "disabled", "may": "opportunistic", "encrypt": "required"}


def _entry_differs(expected: Row, found: Row) -> str:
    wanted: dict[str, Any] = {}
    for name, value in expected.items():
        neutral = _NEUTRAL.get(value) if name == "level" else None
        wanted[name] = {"any_of": [value, neutral]} if neutral else value
    return differs(wanted, found, str(expected.get("service", expected.get("setting"))))


def _requested(row: Row, host: FieldHost) -> str:
    before, request = host.files(), dict(row["request"])
    if "gateway" in row:
        result = run_module(CHANGES[row["gateway"]].main, timeout=5, **request)
    else:
        result = run_module(
            mail_server_tls.main, kind="postfix", certificate=str(host.certificate), timeout=5, **request
        )  # fmt: skip
    proved = set(host.network.proved), set(host.network.implicit)
    said = " ".join([str(result.get("msg", "")), *result.get("warnings", ())])
    untouched = host.files() == before and not host.reloads
    reasons = []
    if "before" in row:
        reasons.append(differs(row["before"], result.get("before"), "before"))
    alternatives = []
    for one in row["any_of"]:
        if "refused" in one:
            alternatives.append(_refused_differs(one["refused"], result, said, untouched))
        else:
            alternatives.append(_done_differs(one["done"], result, said, host, proved))
    if "" not in alternatives:
        reasons.append(" / or: ".join(alternatives))
    return "; ".join(filter(None, reasons))


def _refused_differs(patterns: Sequence[str], result: Row, said: str, untouched: bool) -> str:
    if not result.get("failed"):
        return "not refused"
    if not untouched:
        return f"refused, but files changed or the daemon was reloaded: {said[:300]}"
    named = any(re.search(one, said, re.IGNORECASE) for one in patterns)
    return "" if named else f"the refusal names none of {', '.join(patterns)}: {said[:300]}"


def _done_differs(done: Row, result: Row, said: str, host: FieldHost, proved: tuple[set[str], set[str]]) -> str:
    if result.get("failed"):
        return f"refused: {said[:300]}"
    reasons = []
    for place, expected in done.get("levels", {}).items():
        level = host.level(place)
        right = {"required": level in REQUIRED, "not required": level not in REQUIRED}.get(expected, level == expected)
        reasons.append("" if right else f"{place} has the level {level or 'none'}, not {expected}")
    if "default_level" in done:
        (level,) = {one["level"] for one in host.transports() if one["setting"] == "default_transport"} or {""}
        reasons.append(differs(done["default_level"], level, "default_level"))
    for service, expected in done.get("listeners", {}).items():
        reasons.append(_listener_differs(service, expected, host))
    for place, expected in done.get("implicit", {}).items():
        modes = {host.value(f"{one}/unix", "smtp_tls_wrappermode") == "yes" for one in host.routes_to(place)}
        reasons.append("" if modes == {expected} else f"{place}: implicit TLS is {sorted(modes)}, not {expected}")
    for name, seen in (("proved", proved[0]), ("proved_implicit", proved[1])):
        missing = sorted(set(done.get(name, ())) - seen)
        reasons.append(f"no handshake ({name}) with {', '.join(missing)}" if missing else "")
    reasons.append(differs(done["text"], said, "text") if "text" in done else "")
    return "; ".join(filter(None, reasons))


def _listener_differs(service: str, expected: Mapping[str, Any], host: FieldHost) -> str:
    now, before = host.running[service], host.before[service]
    serves = [str(path).removeprefix(str(host.root)) for path in now["serves"]]
    former = [str(path).removeprefix(str(host.root)) for path in before["serves"]]
    wanted = {**expected, **({"serves": former} if expected.get("serves") == "as before" else {})}
    return differs(wanted, {"tls": now["tls"], "serves": serves}, service)
