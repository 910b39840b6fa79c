# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one host said of itself, parsed once: what the plan needs of the result of mail_server_info or gateway_info.

Every result is hostile: a host may be of another version, or not what it seems. Texts become one printable line here.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.in_force import WHOLE
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import DEFAULT_MODE, MODES
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, TargetError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding, of_group, of_result
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.listeners import loopback_ports
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import MALFORMED
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import one_line

MAX_REASON = 300
"""Characters of the reason why a host could not be read."""
MAX_MESSAGE = 2000
"""Characters of any other message of a host."""

OBSTACLES = frozenset(
    {
        "no_privilege", "no_product", "two_products", "daemon_not_running", "configuration_broken", "not_answering",
        "port_in_use", "no_disk_space", "change_refused", "certificate_unfit", "certificate_missing", "mode_not_expressible",
        "mail_would_loop", "server_below_floor",
        "certificate_not_read", "certificate_newer_unfit", "not_reversible", "settings_only",
        "certificate_not_issued", "certificate_to_request", "tlsa_not_published",
        "edge_server", "exchange_not_read", "connector_shared", "connector_conflict", "connector_refused", "internal_certificate",
    }
)  # fmt: skip
"""Codes with which a host says what stands in the way on it."""
DIFFERENCES = frozenset(
    {
        "gateway_differs", "gateway_unproved", "gateway_not_told", "gateway_record_replaced", "gateway_files_edited", "instance_differs",
        "conffile_edited", "edits_not_read",
    }
)  # fmt: skip
"""Codes with which a gateway says where its daemon does not do what was set there."""
UNREAD = frozenset({"unreachable", "no_python", "no_privilege", "not_read"})
"""Codes of the reasons why a host could not be read."""
NOTES = frozenset(
    {
        "interrupted_run",
        "queue_not_empty",
        "uninstall_incomplete",
        "edits_not_read",
        "other_writer",
        "edited_since",
        "clients_unknown",
        "weaker_way",
        "tls_floor_shuts_out",
        "tls_floor_not_told",
        "tls_floor_nobody",
        "tls_floor_not_reached",
        "relay_not_tested",
        "certificate_newer_kept",
        "certificate_issue",
        "certificate_renewal_due",
        "certificate_request_void",
        "tlsa_unknown",
        "tlsa_not_published",
        *(one.code for group in ("listener", "certificate") for one in of_group(group)),
    }
)
"""Codes of findings of a host that stop nothing. Those on a certificate are the controller's, on the one to be installed."""

# Words of Ansible and of sudo, in lower case.
_NO_PRIVILEGE = re.compile(
    r"password is required|(missing|incorrect|invalid) (sudo|become) password|terminal is required|not allowed to execute"
    r"|not in the sudoers file|privilege escalation|become (password|success|plugin|method)|becoming an unprivileged"
    r"|(sudo|su|doas): (command )?not found|permission denied|must have a tty"
)
_NO_PYTHON = re.compile(
    r"no python interpreters? found|python[0-9.]*['\"]?: (command )?not found|minimum of python version"
    r"|python[0-9.]*['\"]?: no such file|interpreter[^\n]{0,200}(does not exist|not found|no such file)"
)
_UNRESOLVED = re.compile(
    r"name or service not known|no address associated with hostname|name resolution|name does not resolve"
    r"|nodename nor servname|it has no address|name_not_resolved"
)
_VAGUE = ("MODULE FAILURE", "The module failed", "Module failed", "Module result deserialization failed")
_BEFORE_EHLO = ("connect", "greeting")
_OFFERING = ("offered", "required")
_AFTER_HANDSHAKE = ("mail", "rcpt", "done")
PEER_PREFIX = "mailfleet_peer_"
"""Begins the name of each transport of a peer."""


@dataclass(frozen=True)
class FileDiff:
    """What a change writes to one file. lines: a unified diff without secrets."""

    path: str
    lines: str

    def to_json(self) -> dict[str, str]:
        """Return plain data."""
        return {"path": self.path, "lines": self.lines}


@dataclass(frozen=True)
class SeenServer:
    """What a handshake test saw. reached: whether the server answered EHLO. tls_ms: milliseconds of the TLS handshake."""

    completed: bool
    advertised: bool
    requires_tls: bool
    reached: bool
    unresolved: bool
    message: str
    tls_ms: Optional[float] = None


@dataclass(frozen=True)
class HeldConfig:
    """An email config that a gateway has: its delivery mode, its servers as C(host:port), and its domains."""

    mode: str
    servers: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()


@dataclass(frozen=True)
class GatewayView:
    """The gateway's part of a result.

    modes: the delivery modes that it can express; None if it does not say. limits: mode -> why it cannot. accepted: domain ->
    whether it takes mail for it; a domain of which it cannot tell is left out. delivered: domain -> the mode in which the daemon
    delivers its mail; None if it cannot be told. enforced: outbound enforced domains, which override the mode. keeps_names: whether
    it knows email configs by name. after: name of an email config -> mode that a
    change sets. softens: whether a permanent refusal of a mail server only defers the mail.
    reload: whether a part of the gateway does not serve, although no file has to change.
    accept, send: its outbound side; empty if that was never set. senders: inbound enforced domains. differences: what was set there
    and its daemon does not do, each with what it concerns (see in_force.Fault of the engine on the hosts).
    """

    configs: Mapping[str, HeldConfig] = field(default_factory=dict)
    modes: Optional[tuple[str, ...]] = None
    limits: Mapping[str, str] = field(default_factory=dict)
    accepted: Mapping[str, bool] = field(default_factory=dict)
    delivered: Mapping[str, Optional[str]] = field(default_factory=dict)
    enforced: frozenset[str] = frozenset()
    keeps_names: bool = True
    after: Mapping[str, str] = field(default_factory=dict)
    changes: tuple[FileDiff, ...] = ()
    softens: bool = False
    reload: bool = False
    accept: str = ""
    send: str = ""
    senders: tuple[str, ...] = ()
    differences: tuple[tuple[str, Finding], ...] = ()

    def differs(self, *what: str) -> bool:
        """Return whether a difference names one of these."""
        return any(one in what for one, _finding in self.differences)

    @property
    def changes_modes(self) -> bool:
        """Whether the delivery modes, or what belongs to them, have to change."""
        held = {name: one.mode for name, one in self.configs.items()}
        return (
            bool(self.changes)
            or self.reload
            or any(held.get(name, DEFAULT_MODE) != mode for name, mode in self.after.items())
        )


@dataclass(frozen=True)
class NextHop:
    """A host to which mail is sent on, and whether it completes a handshake with the host that sends; None if that makes no tests."""

    host: str
    port: int
    completed: Optional[bool]
    message: str


@dataclass(frozen=True)
class PeerTest:
    """A test of one host of a wanted peer, from the host that sends to it.

    refused: whether a change would be refused because of it, and waived: whether only starttls_require_without_evidence prevents that.
    problem: why, in the words of the host. completed: whether the handshake was. offers: whether it offers STARTTLS. findings: what
    the test means, by the controller.
    """

    peer: str
    host: str
    port: int
    refused: bool = False
    waived: bool = False
    problem: str = ""
    completed: bool = False
    offers: bool = False
    accepted: bool = False
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class SeenPeers:
    """The peers of a mail server. there: name of each that it has -> where it leads over TLS only; None if they could not be read.

    findings: those on certificates, each with the name of its peer.
    """

    there: Optional[Mapping[str, tuple[tuple[str, int], ...]]] = field(default_factory=dict)
    changes: tuple[FileDiff, ...] = ()
    tests: tuple[PeerTest, ...] = ()
    findings: tuple[tuple[str, Finding], ...] = ()


@dataclass(frozen=True)
class Observation:
    """One host as it is, and what a change would do there.

    state: of its daemon, as C(health) says. message: its own words. running: whether it runs; None if that is not known.
    before, after: C((inbound, outbound)) in the words of mail_server_tls. reload: whether the daemon has to be reloaded although no
    file changes. offer: whether anything changes before TLS is required; None if the host does not say. relays: next hops of its
    transports; None if they could not be read. relay_places: host and port of each of those that is not that of a peer.
    servers: (name or address, port) -> what a handshake test from this host saw. peers: see SeenPeers.
    is_gateway: whether it was read as a gateway. loopback_ports: those that no other host
    reaches. send_only: whether it was read as a host that takes no mail from the network.
    sessions_an_hour: from its log; None if that is not known.
    """

    title: str = ""
    state: str = "unknown"
    running: Optional[bool] = None
    message: str = ""
    before: tuple[str, str] = ("", "")
    after: tuple[str, str] = ("", "")
    changes: tuple[FileDiff, ...] = ()
    reload: bool = False
    offer: Optional[bool] = None
    digests: Mapping[str, str] = field(default_factory=dict)
    obstacles: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()
    next_hops: tuple[NextHop, ...] = ()
    relays: Optional[tuple[str, ...]] = ()
    relay_places: tuple[tuple[str, int], ...] = ()
    peers: SeenPeers = field(default_factory=SeenPeers)
    servers: Mapping[tuple[str, int], SeenServer] = field(default_factory=dict)
    gateway: GatewayView = field(default_factory=GatewayView)
    interrupted: bool = False
    is_gateway: bool = False
    loopback_ports: frozenset[int] = frozenset()
    sessions_an_hour: Optional[float] = None
    send_only: bool = False

    @property
    def needs_change(self) -> bool:
        """Whether the settings or the certificate of the host have to change, or its daemon has to be reloaded."""
        return bool(self.changes) or self.reload

    @property
    def needs_offer(self) -> bool:
        """Whether anything has to change before TLS is required of those who send to it."""
        return self.needs_change if self.offer is None else self.offer

    @property
    def gets_starttls(self) -> bool:
        """Whether the host offers STARTTLS after its change."""
        return self.needs_change and self.after[0] in _OFFERING

    @property
    def answers(self) -> bool:
        """Whether its daemon may answer at all."""
        return self.state not in ("stopped", "missing") and self.running is not False


@dataclass(frozen=True)
class Unread:
    """Why a host could not be read. code: one of UNREAD."""

    code: str
    message: str


def read_result(result: Any) -> Union[Observation, Unread]:
    """Return what a host's result says. result: what the task that reads registered; nothing if it did not run. Never raises."""
    if not isinstance(result, Mapping) or not result or result.get("skipped"):
        return Unread("not_read", "it was not read")
    if result.get("unreachable") or result.get("failed"):
        return _unread(result)
    try:
        return _observation(result)
    except MALFORMED as error:
        return Unread(
            "not_read", _line(f"its result cannot be understood: {type(error).__name__}: {error}", MAX_REASON)
        )


def why_it_failed(result: Mapping[str, Any]) -> str:
    """Return one line on why a task failed: its message, or what the module wrote where Ansible's own message says nothing."""
    return _reason(*_told(result))


def _told(result: Mapping[str, Any]) -> list[str]:
    return [str(result.get(key) or "") for key in ("msg", "module_stderr", "module_stdout")]


def _unread(result: Mapping[str, Any]) -> Unread:
    told = _told(result)
    message = _reason(*told)
    if result.get("unreachable"):
        return Unread("unreachable", message)
    text = "\n".join(told).lower()
    if _NO_PRIVILEGE.search(text):
        return Unread("no_privilege", message)
    if _NO_PYTHON.search(text) or result.get("rc") == 127:
        return Unread("no_python", message)
    return Unread("not_read", message)


def _reason(message: str, *outputs: str) -> str:
    """Return the first line of the message, or the last line of the output where the message says nothing."""
    if message.startswith(_VAGUE) or not message.strip():
        lines = [line for output in outputs for line in output.split("\n")[::-1] if line.strip()]
        message = lines[0] if lines else message
    return _line(message.strip().partition("\n")[0], MAX_REASON) or "it gave no reason"


def _line(text: Any, limit: int = MAX_MESSAGE) -> str:
    return one_line(str("" if text is None else text).strip())[:limit]


def _observation(result: Mapping[str, Any]) -> Observation:
    view = result.get("gateway") or {}
    transports = result.get("transports")
    words = " ".join(_line(one, 80) for one in (view.get("title") or result.get("title"), result.get("version")) if one)
    health = result.get("health") or {}
    activity = result.get("activity") or {}
    sessions = activity.get("sessions_an_hour")
    return Observation(
        title=words,
        state=str(health.get("state") or "unknown"),
        message=_line(health.get("message")),
        running=health.get("running") if isinstance(health.get("running"), bool) else None,
        before=_sides(result.get("before")),
        after=_sides(result.get("after")),
        changes=_changes(result.get("changes")),
        reload=bool(result.get("reload")),
        offer=None if result.get("offer") is None else bool(result["offer"]),
        digests={str(path): str(digest) for path, digest in (result.get("digests") or {}).items()},
        obstacles=tuple(_findings(result.get("obstacles"), OBSTACLES)),
        notes=tuple(_findings(result.get("notes"), NOTES)),
        next_hops=tuple(
            NextHop(bare(one["host"]), int(one.get("port") or 25), _known(one["completed"]), _line(one.get("message")))
            for one in result.get("next_hops") or ()
        ),
        relays=None
        if transports is None
        else tuple(bare(one["next_hop"]) for one in transports if one.get("next_hop") and not one.get("loopback")),
        relay_places=tuple(
            (bare(one["next_hop"]), int(one.get("port") or 25))
            for one in transports or ()
            if one.get("next_hop") and not one.get("loopback") and not str(one.get("transport")).startswith(PEER_PREFIX)
        ),
        peers=_peers(result),
        servers=_servers((result.get("probe") or {}).get("results") or ()),
        gateway=_gateway(view),
        interrupted=bool(result.get("journal")),
        is_gateway=bool(result.get("gateway")),
        loopback_ports=loopback_ports(result),
        send_only=result.get("send_only") is True,
        sessions_an_hour=None if sessions is None else max(0.0, _finite(sessions)),
    )


def _known(answer: Any) -> Optional[bool]:
    return None if answer is None else bool(answer)


def _finite(number: Any) -> float:
    found = float(number)
    if not math.isfinite(found):
        raise ValueError(f"{found} is no number")
    return found


def bare(host: Any) -> str:
    """Return the name or address of a host as it is compared: lower case, without brackets and a dot at its end."""
    return _line(host, 300).lower().strip("[]").rstrip(".")


def _sides(sides: Optional[Mapping[str, Any]]) -> tuple[str, str]:
    given = sides or {}
    return _line(given.get("inbound"), 40), _line(given.get("outbound"), 40)


def _changes(given: Optional[Iterable[Mapping[str, Any]]]) -> tuple[FileDiff, ...]:
    return tuple(FileDiff(_line(one["path"]), str(one.get("lines") or "")) for one in given or ())


def _findings(given: Optional[Iterable[Mapping[str, Any]]], known: frozenset[str]) -> Iterable[Finding]:
    """Yield what a host reports. A code that does not belong there comes from another version: it is kept as unknown_finding."""
    for one in given or ():
        code = str(one.get("code") or "")
        finding = of_result({"code": code if code in known else f"?{code}", "message": one.get("message")})
        yield Finding(finding["code"], _line(finding["message"]))


def _peers(result: Mapping[str, Any]) -> SeenPeers:
    there = result.get("peers")
    return SeenPeers(
        there=None if there is None else {_line(one["name"], 40): tuple(_places(one)) for one in there},
        changes=_changes(result.get("peer_changes")),
        tests=tuple(
            PeerTest(
                peer=_line(one["peer"], 40),
                host=bare(one["proof"]["host"]),
                port=int(one["proof"]["port"]),
                refused=bool(one.get("refused")),
                waived=bool(one.get("waived")),
                problem=_line(one.get("problem")),
                completed=str(one["proof"].get("stage")) in _AFTER_HANDSHAKE,
                offers=str(one["proof"].get("fault")) != "starttls_not_offered",
                accepted=str(one["proof"].get("stage")) == "done",
                findings=_own_findings(one.get("findings")),
            )
            for one in result.get("peer_proofs") or ()
        ),
        findings=tuple(
            (_line(one["peer"], 40), found)
            for one in result.get("peer_findings") or ()
            for found in _own_findings([one])
        ),
    )


def _places(peer: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield where an observed peer leads, if it insists on TLS. What is no address is left out: no host of the fleet is there."""
    for text in (peer.get("hosts") or ()) if peer.get("level") == "required" else ():
        with contextlib.suppress(TargetError):
            target = Target.parse(_line(text, 300))
            yield bare(target.host), target.port


def _own_findings(given: Optional[Iterable[Mapping[str, Any]]]) -> tuple[Finding, ...]:
    """Return findings that the controller has made of a result."""
    read = (of_result(one) for one in given or ())
    return tuple(Finding(one["code"], _line(one["message"])) for one in read)


def _servers(results: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], SeenServer]:
    seen: dict[tuple[str, int], SeenServer] = {}
    names: dict[tuple[str, int], SeenServer] = {}
    for one in results:
        code, message = str(one.get("code") or ""), _line(one.get("message") or one.get("code"))
        unresolved = code == "name_not_resolved" or (
            code == "connect_failed" and bool(_UNRESOLVED.search(message.lower()))
        )
        completed = bool(one.get("completed"))
        milliseconds = (one.get("timings") or {}).get("tls")
        server = SeenServer(
            completed=completed,
            advertised=completed or bool(one.get("starttls_advertised")),
            requires_tls=one.get("requires_tls") is True,
            reached=completed or (code != "connect_failed" and str(one.get("stage") or "ehlo") not in _BEFORE_EHLO),
            unresolved=unresolved,
            message=message,
            tls_ms=None if milliseconds is None else _finite(milliseconds) * 1000,
        )
        port = int(one.get("port") or 25)
        seen[bare(one["host"]), port] = server
        names.setdefault((bare(one.get("name") or one["host"]), port), server)
    return {**names, **seen}


def _gateway(view: Mapping[str, Any]) -> GatewayView:
    modes = view.get("delivery_modes")
    return GatewayView(
        configs={
            _line(one["name"], 80): HeldConfig(
                str(one.get("delivery_mode") or DEFAULT_MODE),
                tuple(_line(text, 300) for text in one.get("servers") or ()),
                tuple(_line(text, 300).lower() for text in one.get("domains") or ()),
            )
            for one in view.get("email_configs") or ()
        },
        modes=None if modes is None else tuple(map(str, modes)),
        limits={str(mode): _line(reason) for mode, reason in (view.get("limits") or {}).items()},
        accepted={
            str(domain).lower(): bool(takes)
            for domain, takes in (view.get("accepted_domains") or {}).items()
            if takes is not None
        },
        delivered={
            str(domain).lower(): str(mode) if mode in MODES else None
            for domain, mode in (view.get("delivered_modes") or {}).items()
        },
        enforced=frozenset(
            str(one.get("domain") or "").lower()
            for one in view.get("enforced_domains") or ()
            if one.get("direction") == "outbound"
        ),
        keeps_names=view.get("keeps_names") is not False,
        after={str(name): str(mode) for name, mode in (view.get("after") or {}).items()},
        changes=_changes(view.get("changes")),
        softens=bool(view.get("softens_refusals")),
        reload=bool(view.get("reload")),
        accept=_line((view.get("outbound") or {}).get("accept"), 40),
        send=_line((view.get("outbound") or {}).get("send"), 40),
        senders=tuple(
            _line(one.get("domain"), 300)
            for one in view.get("enforced_domains") or ()
            if one.get("direction") == "inbound"
        ),
        differences=tuple(_differences(view.get("differences"))),
    )


def _differences(given: Optional[Iterable[Mapping[str, Any]]]) -> Iterator[tuple[str, Finding]]:
    """Yield what each difference concerns, and the finding with the catalogue's advice."""
    for one in given or ():
        what, code, message = (_line(one.get(key)) for key in ("what", "code", "message"))
        said = message if what == WHOLE else f"{what}: {message}"
        if code in DIFFERENCES:
            yield what, Finding.advised(code, said)
        else:
            yield what, Finding(of_result({"code": f"?{code}"})["code"], said)
