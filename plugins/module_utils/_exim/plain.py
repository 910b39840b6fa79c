# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""STARTTLS on an Exim with one plain configuration file, which somebody has written by hand.

What Exim computes of it (C(exim -bP)) is what counts. The edit: see plain_text; what judges it: see plain_trial.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import plain_text
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.config import ByPort, Printed
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.daemon import (
    CERTIFICATE_SECONDS,
    PROGRAMS,
    SESSION,
    TLS_WORDS,
    EximDaemon,
    is_gone,
    modified,
    require_readable,
    would_fall_silent,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.files_by_port import port_problem
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.floor import (
    CIPHERS,
    COLLECTION_PREFIX,
    EXIM_SESSIONS,
    FLOOR_OPTIONS,
    OWN_TRANSPORTS,
    Library,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log_places import log_places
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.observe import (
    command_line_of,
    level,
    listeners,
    observe,
    transports,
    wishes,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_routes import Ways, only_hops, ways
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_settings import (
    REQUIRES,
    inbound,
    outbound,
    with_floor,
    with_setting,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_text import MAIN, ByHandError, Edit
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_trial import Trial
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.binding import obstacles
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import LogPlaces
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_rate import sessions_an_hour
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.units import not_running, start_again, unit_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import FLOORS, Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import PEER_TRANSPORT
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.permits import Permit, Permits
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import Sides, WayOut
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    BrokenConfigurationError,
    EngineError,
    PortInUseError,
)

_ASKED = (
    "exim_user", "pid_file_path", "spool_directory", "tls_privatekey", "acl_smtp_mail", "tls_ocsp_file", "timezone",
    *FLOOR_OPTIONS,
)  # fmt: skip
_BY_LINES = "so what the change reaches is told from the lines that it changes"
_DEFAULTS = {"tls_advertise_hosts": "*"}
"""What Exim has without a line, where that is not empty."""
_STARTED = re.compile(
    r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d{1,9})?(?: ([+-]\d{4}))? (?:\[\d{1,9}\] )?exim \S+ daemon started: "
)
"""A line of the main log. No peer writes a line that begins like this."""
_PANELS = {"/usr/local/cpanel": "cPanel", "/usr/local/directadmin": "DirectAdmin"}
"""Directory -> the panel that writes Exim's configuration there."""


class Rewritten(Printed):
    """What Exim would print of a changed file, as far as its lines tell: the present options, and those that the lines change."""

    def __init__(self, printed: Printed, old: str, new: str) -> None:
        """Prepare only. old, new: the text of the file before and after the change."""
        self._before = printed
        was, now = plain_text.assigned(old), plain_text.assigned(new)
        self._changed: dict[str, dict[str, str]] = {}
        for place in {*was, *now}:
            first, then = was.get(place, {}), now.get(place, {})
            names = (name for name in {*first, *then} if first.get(name) != then.get(name))
            self._changed[place] = {name: then[name][-1] if name in then else _DEFAULTS.get(name, "") for name in names}

    @property
    def options(self) -> Mapping[str, str]:
        """Options of the main part."""
        return {**self._before.options, **self._changed.get(MAIN, {})}

    @property
    def transports(self) -> dict[str, dict[str, str]]:
        """Transport -> its options."""
        return {name: {**found, **self._changed.get(name, {})} for name, found in self._before.transports.items()}

    @property
    def routers(self) -> dict[str, dict[str, str]]:
        """Router -> its options. No change of the collection touches them."""
        return self._before.routers


class PlainExim:
    """Adapter for an Exim whose configuration is a file written by hand."""

    name = "exim"
    certificate_seconds = CERTIFICATE_SECONDS
    serves_by_port = True
    plaintext_at_once = True
    # Deliveries read the file when they start. What waits for them is judged before: see judge().
    reads_files_unasked = False

    def __init__(self, run: Runner, layout: Layout, own_port: Target, listens: bool = True) -> None:
        """Prepare only. run: starts a program. own_port: the port at which a change is proved.

        listens: whether a daemon has to run. Without one, each message is sent by a process of its own, which reads the file anew.
        """
        self._listens = listens
        self._runs_not = False
        self._run = run
        self._layout = layout
        self._port = own_port.port
        self._printed = Printed(run, "", layout.program, _ASKED)
        self._trial = Trial(run, layout.program, own_port)
        self._told: Optional[int] = None

    def transaction(self, store: str) -> Transaction:
        """Return the transaction on the file. store: the directory of locks and journals."""
        return Transaction(self, store)

    @property
    def path(self) -> str:
        """The file that Exim reads; where Exim cannot read it, that of the platform."""
        try:
            return self._printed.file or self._layout.config_file
        except BrokenConfigurationError:
            return self._layout.config_file

    def require_running(self) -> None:
        """Raise EngineError unless Exim reads the file without further options, nobody else generates it, and Exim runs.

        NotRunningError if it does not run, BrokenConfigurationError if it cannot read its file, PortInUseError if it could
        not listen after its next reload.
        """
        for directory, panel in _PANELS.items():
            if Path(directory).is_dir():
                raise EngineError(
                    f"{panel} ({directory}) writes {self.path} anew, so a change there would not last; set TLS in {panel}"
                )
        self._printed.file  # noqa: B018  (raises what is wrong with the file)
        daemon = self.main_process()
        self._runs_not = not self._listens and daemon is None
        if self._runs_not:
            return  # nothing reads the file again, and nothing has to listen
        if daemon is None:
            raise not_running("Exim", (self._layout.unit,), f" ({self._daemon().pid_file} names no process of it)")
        words = command_line_of(daemon).split("\0")
        if given := [one for one in words[1:] if re.match(r"-[CD]", one)]:
            raise EngineError(
                f"Exim was started with {' '.join(given)}, so {self.path} alone does not tell what it does; start it without that"
            )
        if found := obstacles(wishes(self._printed, command_line_of(daemon)), daemon, PROGRAMS):
            raise PortInUseError(would_fall_silent(found))

    def _daemon(self) -> EximDaemon:
        try:
            found = self._printed.options
        except BrokenConfigurationError:
            return EximDaemon(self._layout.pid_file, self._layout.user)
        pid_file = found["pid_file_path"] or f"{found['spool_directory']}/exim-daemon.pid"
        return EximDaemon(pid_file, found["exim_user"] or self._layout.user)

    def main_process(self) -> Optional[int]:
        """Return the process of the daemon; None if it does not run."""
        try:
            return self._daemon().pid()
        except (OSError, ValueError, EngineError):
            return None

    def version(self) -> str:
        """Return the version of Exim, for example C(4.98.2)."""
        return self._printed.version

    def sessions_an_hour(self) -> Optional[float]:
        """Return how many messages an hour came over the network, as the log tells them; None if it does not tell it."""
        try:
            return sessions_an_hour(log_places(self._printed.options, self._layout.logs).patterns, SESSION)
        except BrokenConfigurationError:
            return None

    def tls_words(self) -> str:
        """Return why Exim could not load key and certificate; empty if the end of the log has nothing of it."""
        from ansible_collections.mailfleet.starttls.plugins.module_utils._host.recent_log import (  # noqa: PLC0415
            last_words,  # a change does not need it
        )

        return last_words(self._run, log_places(self._printed.options, self._layout.logs), TLS_WORDS)

    def files(self) -> tuple[str, ...]:
        """Return the file, and those that it includes by a path; some may not exist."""
        found = plain_text.includes(self._text())
        return (self.path, *(one for one in found if one.startswith("/") and not re.search("[A-Z$]", one)))

    def left(self) -> list[str]:
        """Return the files and directories that the collection left on this host for Exim."""
        patterns = ("/var/lib/mailfleet-starttls/exim.*", self._layout.certificate)
        return sorted(str(path) for pattern in patterns for path in Path("/").glob(pattern[1:]))

    def observe(self) -> Mapping[str, Any]:
        """Return C(listeners) and C(transports) as plain data. Raises EngineError if Exim cannot read the configuration."""
        found = observe(self._printed, self.main_process(), self._ways().hops, self.state()["inbound"] == "required")
        return {**found, "not_read_yet": self._edited()}

    def sides(self, change: Any = None) -> Sides:
        """Return the listeners, and the ways of outgoing mail, as they are or as the change leaves them. Raises EngineError."""
        text = (
            next((one.content for one in change.after if one.path == self.path), None) if change is not None else None
        )
        if text is None:
            return self._sides(self._printed)
        with self._trial.printed(text, _ASKED) as printed:
            if printed is not None:
                return self._sides(printed)
        found = self._sides(Rewritten(self._printed, self._text(), text.decode("utf-8", "surrogateescape")))
        return replace(found, notes=(f"{self.path} cannot be tried from another directory, {_BY_LINES}",))

    def _sides(self, printed: Printed) -> Sides:
        requires = printed.options["acl_smtp_mail"].startswith(REQUIRES)
        found = ways(printed.routers, printed.transports)
        out = []
        for one in transports(printed, found.hops):
            if found.used is None or one.transport in found.used:
                setting = f"transport {one.transport}"
                if one.transport in found.mx and one.next_hop is not None:
                    out.append(WayOut(replace(one, setting=setting, next_hop=None, port=None), one.level))
                out.append(WayOut(replace(one, setting=setting), one.level))
        unread = tuple(f"the router {name} may lead mail elsewhere: {why}" for name, why in found.unknown.items())
        served = listeners(printed, command_line_of(self.main_process()), requires)
        return Sides(tuple(served), tuple(out), unread=unread)

    def _edited(self) -> list[str]:
        """Return the files that are newer than what the daemon has read; nothing if its log does not tell."""
        begun = modified(Path(self._daemon().pid_file))
        written = {one: modified(Path(one)) for one in self.files()}
        # What is older than the pid file has been read.
        read = self._read_at() if max(written.values()) > begun else None
        return [] if read is None else [one for one, when in written.items() if when // 10**9 > read]

    def _read_at(self) -> Optional[float]:
        """Return when the daemon read the file last, by its log: a SIGHUP may leave the pid file as it is."""
        from ansible_collections.mailfleet.starttls.plugins.module_utils._host.recent_log import (  # noqa: PLC0415
            recent_log,  # a change does not need it
        )

        options = self._printed.options
        begun = f" daemon started: pid={self.main_process()},"
        for line in reversed(recent_log(self._run, log_places(options, self._layout.logs))):
            if begun in line and (found := _STARTED.match(line)):
                return _moment(found, options.get("timezone", ""))
        return None

    def _ways(self) -> Ways:
        return ways(self._printed.routers, self._printed.transports)

    def has_peers(self) -> bool:
        """Return whether Exim has a transport of a peer."""
        return any(name.startswith(PEER_TRANSPORT) for name in self._printed.transports)

    def transports(self) -> Mapping[str, Mapping[str, str]]:
        """Return transport -> its options, as C(exim -bP) gives them. Raises EngineError."""
        return self._printed.transports

    def next_hops(self) -> Sequence[Target]:
        """Return the hosts that receive all outgoing mail; none if a router looks up the MX. Raises EngineError."""
        try:
            return [Target(host, port) for host, port in only_hops(self._ways())]
        except ValueError as error:
            raise EngineError(str(error)) from error

    def outgoing(self) -> list[str]:
        """Return the transports that carry mail to other hosts over SMTP. Raises EngineError."""
        found = self._ways()
        return [
            name
            for name, options in self._printed.transports.items()
            if options.get("driver") == "smtp"
            and options.get("protocol") != "lmtp"
            and (found.used is None or name in found.used)
            and not found.is_local(name)
        ]

    def state(self) -> dict[str, str]:
        """Return the state that Exim computes, with the values of Desired or C(custom)."""
        found = self._printed.options
        offers = ByPort.of(found["tls_advertise_hosts"]).at(self._port).strip()
        requires = found["acl_smtp_mail"].startswith(REQUIRES)
        levels = {level(self._printed.transports[name]) for name in self.outgoing()}
        return {
            "inbound": "disabled" if not offers else "required" if requires else "offered",
            "outbound": levels.pop() if len(levels) == 1 and not levels & {"unknown"} else "custom",
        }

    def plan(self, desired: Desired) -> Change:
        """Return the edit of the file. Raises EngineError, which has the lines to add by hand if it is not safe."""
        if desired.offers:
            installed = {one.path for one in desired.bundles}
            for path in filter(None, (file for pair in desired.pairs for file in pair)):
                if path not in installed and Path(path).exists():
                    require_readable(path, self._daemon().user, "every handshake would fail")
        image = FileImage.read(self.path)
        text = _decoded(image)
        edits: dict[str, Edit] = {}
        try:
            bare = plain_text.without_marks(text, self.path)
            edits = self._edits(desired, bare, plain_text.marked(text))
            new = plain_text.edited(bare, edits, self.path)
            self._trial.expect(desired, edits)
            if new != text:
                self._refuse_elsewhere(bare, edits)
                self._trial.of_text(new, self.path)
        except ByHandError as error:
            lines = _lines(edits)
            what = (
                f"; add by hand, {lines}, and take out other values of these options; then run again" if lines else ""
            )
            raise EngineError(f"{error}, so the collection does not edit the file{what}") from error
        change = Change.of([] if new == text else [replace(image, content=new.encode("utf-8", "surrogateescape"))])
        if desired.of_ports and desired.offers and self._listens:
            modes = {one.port: one.tls for one in self.sides(change).listeners}
            if problem := port_problem(desired, modes):
                raise EngineError(problem)
        return change

    def by_hand(self, desired: Desired) -> str:
        """Return the settings of a wanted state as lines to write by hand; empty if the file needs none. Raises EngineError."""
        text = self._text()
        return _lines(self._edits(desired, plain_text.without_marks(text, self.path), plain_text.marked(text)))

    def _edits(self, desired: Desired, bare: str, ours: Mapping[str, Mapping[str, str]]) -> dict[str, Edit]:
        """Return what to write within marks. ours: what stands there now. bare: the text without that."""
        former = plain_text.assigned(bare)

        def before(place: str, shown: Mapping[str, str]) -> dict[str, str]:
            """Return the options as they are without the collection."""
            if place not in ours:
                return dict(shown)
            return {name: values[-1] for name, values in former.get(place, {}).items()}

        found: dict[str, Optional[Edit]] = {}
        kept = {place: Edit(settings, settings) for place, settings in ours.items()}
        main = inbound(desired, before(MAIN, self._printed.options), MAIN in ours, ours.get(MAIN))
        found[MAIN] = kept.get(MAIN) if desired.inbound is None else main
        for name in self.outgoing():
            one = (
                outbound(desired.outbound, before(name, self._printed.transports[name]), name)
                if desired.outbound
                else None
            )
            found[name] = kept.get(name) if desired.outbound is None else one
        for place, edit in list(found.items()):
            direction = "outbound" if place else "inbound"
            shown = self._printed.transports[place] if place else self._printed.options
            found[place] = self._with_floor(desired, direction, place, edit, before(place, shown), ours.get(place, {}))
        return {place: edit for place, edit in found.items() if edit}

    def _with_floor(
        self,
        desired: Desired,
        direction: str,
        place: str,
        edit: Optional[Edit],
        before: Mapping[str, str],
        ours: Mapping[str, str],
    ) -> Optional[Edit]:
        """Return the edit of a place with the floor for TLS versions: the wanted one, else that which is there. Raises EngineError.

        before: the options without the collection. ours: what stands within its marks.
        """
        floor = desired.floor_in(direction)
        if floor in FLOORS:
            library = self._library()
            if place and not library.is_of_transports:
                return edit  # the option of the main part is for both directions
            what = f"the transport {place}" if place else "the main part"
            return with_floor(edit, before, library, floor, what)
        if not floor and getattr(desired, direction) not in (None, "disabled"):
            for name in set(ours).intersection(FLOOR_OPTIONS):
                edit = with_setting(edit, name, ours[name])
        return edit

    def _library(self) -> Library:
        return Library.of(self._run([self._layout.program, "-bV"])[1])

    def permits(self, floor: str, change: Any = None) -> Permits:
        """Return which TLS versions it permits, as it is or as the change leaves it. Raises EngineError."""
        library = self._library()
        text = (
            next((one.content for one in change.after if one.path == self.path), None) if change is not None else None
        )
        if text is None:
            return self._permits(self._printed, library, floor)
        with self._trial.printed(text, _ASKED) as printed:
            if printed is not None:
                return self._permits(printed, library, floor)
        after = Rewritten(self._printed, self._text(), text.decode("utf-8", "surrogateescape"))
        return self._permits(after, library, floor)

    def _permits(self, printed: Printed, library: Library, floor: str) -> Permits:
        main = library.oldest(printed.options.get(library.setting, "")) if library.setting else None
        offers = ByPort.of(printed.options["tls_advertise_hosts"])
        inbound = [Permit("the mail server", main)] if offers.here or offers.elsewhere else []
        out = []
        for name, options in printed.transports.items():
            if (
                options.get("driver") != "smtp"
                or options.get("protocol") == "lmtp"
                or options.get("hosts_avoid_tls") == "*"
            ):
                continue
            oldest = library.oldest(options.get(CIPHERS, "")) if library.is_of_transports else main
            try:
                value = library.with_floor(options.get(library.setting, ""), floor, f"the transport {name}")
                advice = (
                    OWN_TRANSPORTS
                    if name.startswith(COLLECTION_PREFIX)
                    else f"let the transport in {self.path} say '{library.setting} = {value}'"
                )
            except EngineError as error:
                advice = str(error)
            out.append(Permit(f"the transport {name}", oldest, advice))
        return Permits(tuple(inbound), tuple(out))

    def log_of_versions(self) -> tuple[LogPlaces, Mapping[str, re.Pattern[bytes]]]:
        """Return the places of the log, and the patterns of the lines that tell a session's TLS version."""
        return log_places(self._printed.options, self._layout.logs), EXIM_SESSIONS

    def _refuse_elsewhere(self, bare: str, edits: Mapping[str, Edit]) -> None:
        """Raise ByHandError if something else than the file itself sets one of the options: an included file or a macro."""
        own = plain_text.assigned(bare)
        read = plain_text.assigned(self._printed.text)
        ours = plain_text.marked(self._text())
        for place, edit in edits.items():
            for name in edit.names:
                values = read.get(place, {}).get(name)
                if values and name not in own.get(place, {}) and name not in ours.get(place, {}):
                    raise ByHandError(
                        f"{self.path}: {name} is set to {values[-1]!a} by an included file or a macro, not in the file itself"
                    )

    def judge(self, path: str, candidate: str) -> None:
        """Raise EngineError if Exim could not use the new version of the file, which waits beside it."""
        if path == self.path:
            self._trial.of_file(candidate, path)

    def check(self) -> None:
        """Raise EngineError if Exim cannot read the file that is in place."""
        self._printed.forget()
        self._trial.readable(self.path)

    def reload(self) -> None:
        """Have the daemon read the file. Raises EngineError."""
        self._printed.forget()
        if self._runs_not:
            return
        if found := obstacles(wishes(self._printed), self.main_process(), PROGRAMS):
            raise PortInUseError(would_fall_silent(found))
        self._told = self._daemon().have_it_read()

    def resume(self) -> None:
        """Have the daemon read the former file. Raises EngineError."""
        self._printed.forget()
        if not self._runs_not:
            self._told = self._daemon().have_it_read(self._told)

    def service(self) -> str:
        """Return the unit of systemd that the daemon runs in; empty if that cannot be told."""
        return unit_of(self.main_process())

    def has_ended(self) -> bool:
        """Whether the daemon does not run."""
        return not self._runs_not and self.main_process() is None and is_gone(self._told)

    def start(self, service: str) -> None:
        """Start the daemon, unless somebody has stopped it. Raises NotRunningError and EngineError."""
        self._printed.forget()
        start_again(self._run, service, "Exim")

    def stripped(self, images: Mapping[str, FileImage], certificate: str) -> list[FileImage]:
        """Return the file without the marks and what is within them."""
        del certificate
        image = FileImage.read(self.path)
        text = _decoded(image)
        bare = plain_text.without_marks(text, self.path)
        done = self.path in images or bare == text
        return [] if done else [replace(image, content=bare.encode("utf-8", "surrogateescape"))]

    def generated(self) -> Sequence[FileImage]:
        """Return nothing: Exim writes no configuration itself."""
        return ()

    def _text(self) -> str:
        return _decoded(FileImage.read(self.path))


def _decoded(image: FileImage) -> str:
    return (image.content or b"").decode("utf-8", "surrogateescape")


def _lines(edits: Mapping[str, Edit]) -> str:
    return plain_text.by_hand({place: edit.settings for place, edit in edits.items()})


def _moment(found: re.Match[str], zone: str) -> Optional[float]:
    """Return the time of a line of the log; None if it is not understood. zone: Exim's C(timezone)."""
    stamp, offset = found.groups()
    if offset is None and zone not in ("", "UTC"):
        return None
    offset = offset or ("+0000" if zone else "")
    try:
        return datetime.strptime(f"{stamp}{offset}", f"%Y-%m-%d %H:%M:%S{'%z' if offset else ''}").timestamp()
    except (ValueError, OverflowError, OSError):
        return None
