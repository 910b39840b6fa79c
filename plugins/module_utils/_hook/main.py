# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program C(mailfleet-starttls), see configuration.py. It is a zipapp made of this collection's own files (building.py)."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.rules import printable_text
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.x509 import utc_now
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.programs import run
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook import monitoring, telling
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.configuration import (
    CONFIGURATION_BYTES,
    VERSION,
    RenewalPlan,
    check_name,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.renewal import NOT_SEEN, renew, worst
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.renewal_files import CONFIGURATION
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.contract import NoticesCertificates
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import resolve
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.server import SERVERS

_EPILOG = (
    "renew ends with 0: good, 1: refused, the old one is served, 2: not served, 3: could not look. "
    "check ends as monitoring plugins do."
)


def read(path: str) -> RenewalPlan:
    """Return the configuration in a file. Raises EngineError, which says the next thing to do."""
    try:
        content = FileImage.read(path, max_bytes=CONFIGURATION_BYTES).content
    except PermissionError:
        raise EngineError(f"{path} can only be read by root; run this as root, for example with sudo") from None
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror or error}") from error
    if content is None:
        raise EngineError(f"{path} is not there; the module renewal_hook writes it")
    return RenewalPlan.parse(content.decode("utf-8", "replace"), path)


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=telling.PROGRAM_NAME, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"{telling.PROGRAM_NAME} {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{renew,check}")
    for name, what in (("renew", "install what was renewed, and prove it"), ("check", "check, for monitoring")):
        command = commands.add_parser(name, help=what)
        command.add_argument(
            "--name", type=_name, action="append", default=[], help="this certificate only; may be repeated"
        )
        command.add_argument("--configuration", default=CONFIGURATION, help=f"another file than {CONFIGURATION}")
    return parser.parse_args(given)


def _name(given: str) -> str:
    try:
        check_name(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return given


def _notices(configuration: RenewalPlan) -> float:
    """Return how long the mail server may take to notice a replaced certificate; 0 if that cannot be told: the check goes on."""
    with contextlib.suppress(EngineError, OSError):
        kind = resolve(configuration.kind, "server", "kind")
        server = SERVERS[kind](run, Desired(), Settings())
        return server.certificate_seconds if isinstance(server, NoticesCertificates) else 0.0
    return 0.0


def _renew(configuration: RenewalPlan, names: Sequence[str], path: str) -> int:
    kind = resolve(configuration.kind, "server", "kind")

    def adapter(at: Target) -> Any:
        return SERVERS[kind](run, Desired(own_port=at), Settings(timeout=float(configuration.timeout)))

    def is_wanted() -> bool:
        return read(path) == configuration

    done = renew(configuration, adapter, names, STORE, is_wanted=is_wanted)
    for one in done:
        print(telling.line_of(one))
    telling.log(done)
    # It holds every certificate, so a call for one of them leaves it as it is.
    if (
        configuration.textfile
        and not names
        and (said := telling.write_textfile(configuration.textfile, done, utc_now()))
    ):
        print(printable_text(said), file=sys.stderr)
    return worst(done)


def main(given: Optional[Sequence[str]] = None) -> int:
    """Run the program and return its exit status."""
    os.umask(0o077)
    try:
        options = _arguments(sys.argv[1:] if given is None else given)
    except SystemExit as error:
        return NOT_SEEN if error.code else 0
    try:
        configuration = read(options.configuration)
        if options.command == "check":
            status, line = monitoring.check(configuration, utc_now(), options.name, lambda: _notices(configuration))
            print(line)
            return status
        return _renew(configuration, options.name, options.configuration)
    except EngineError as error:
        return _fault(options.command, str(error))
    except Exception as error:
        # A traceback could show what a file holds, and its status would read as a warning.
        bug = f"{type(error).__name__} in {telling.PROGRAM_NAME} {VERSION}; this is a bug, please report it"
        return _fault(options.command, bug)


def _fault(command: str, why: str) -> int:
    """Say why a call could not look. The timer shows nobody what is printed, so a renewal says it in the system's log."""
    said = printable_text(why, 2000)
    print(f"STARTTLS UNKNOWN - {said}" if command == "check" else said)
    if command == "renew":
        telling.log_fault(said)
    return NOT_SEEN
