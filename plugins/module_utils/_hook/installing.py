# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs the renewal hook on a host, or removes it: the program, its configuration, and what starts it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.fitness import HostRoots, host_store
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import (
    check_path,
    group_id,
    user_id,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.pem import PemError
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.formats import format_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE, host_locked
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import (
    make_directories,
    missing_directories,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook import building
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.configuration import (
    CONFIGURATION_BYTES,
    RENEWAL_FORMAT,
    VERSION,
    RenewalPlan,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import renewal_files
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.renewal_files import (
    CERTBOT_HOOK,
    CONFIGURATION,
    HOOK_TEXT,
    PROGRAM,
    SERVICE_FILE,
    SERVICE_TEXT,
    TIMER_FILE,
    TIMER_TEXT,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

if TYPE_CHECKING:
    # Ansible's packer sends what this imports, and the program is made of that. It is not loaded here.
    from ansible_collections.mailfleet.starttls.plugins.module_utils._hook import main  # noqa: F401

_AUTO = "auto"
COLLECTOR = "/var/lib/prometheus/node-exporter"
"""The directory of the collector on Debian (package prometheus-node-exporter)."""
_TEXTFILE = "mailfleet_starttls_renewal.prom"
"""The report's file for node-exporter has another name, because a controller may be a mail host too."""
_PYTHON = "/usr/bin/python3"
_LETSENCRYPT = "/etc/letsencrypt/"


def textfile_of(given: str) -> str:
    """Return the path of the file for node-exporter: C(auto) is where its collector looks, if it is there; C(none) is none."""
    if given == _AUTO:
        return f"{COLLECTOR}/{_TEXTFILE}" if Path(COLLECTOR).is_dir() else ""
    return "" if given == "none" else given


def configured() -> Optional[RenewalPlan]:
    """Return the configuration that is on this host; None if there is none that this version can read. Raises OSError."""
    content = FileImage.read(CONFIGURATION, max_bytes=CONFIGURATION_BYTES).content
    if content is None:
        return None
    try:
        return RenewalPlan.parse(content.decode("utf-8", "replace"))
    except EngineError:  # a damaged one is written again
        return None


def check(configuration: RenewalPlan) -> None:
    """Raise EngineError for what this host cannot do: a user that it does not have, roots that nobody can read."""
    for entry in configuration.certificates:
        try:
            user_id(entry.owner)
            group_id(entry.group)
            roots = HostRoots(entry.roots)
        except EngineError as error:
            raise EngineError(f"certificates: {entry.name}: {error}") from None
        except PemError as error:
            raise EngineError(f"certificates: {entry.name}: ca_content: {error}") from None
        if entry.roots and roots.fault:
            raise EngineError(f"certificates: {entry.name}: ca_content: {roots.fault.what}")


def uses_certbot(configuration: RenewalPlan, certbot: str) -> bool:
    """Whether certbot calls the hook. certbot: C(auto), C(hook) or C(none)."""
    if certbot != _AUTO:
        return certbot == "hook"
    files = [pair.certificate for one in configuration.certificates for pair in one.pairs]
    return any(one.startswith(_LETSENCRYPT) for one in files) and Path(_LETSENCRYPT).is_dir()


def wanted(configuration: RenewalPlan, certbot: str, timer: bool, acme_roots: str = "") -> dict[str, FileImage]:
    """Return path -> the file as it has to be, in the order in which they are written; without content where it has to be away."""
    units = renewal_files.certbot_units() if acme_roots else ()
    texts: dict[str, tuple[Optional[str], int]] = {
        CONFIGURATION: (configuration.text(), 0o600),
        SERVICE_FILE: (SERVICE_TEXT if timer else None, 0o644),
        TIMER_FILE: (TIMER_TEXT if timer else None, 0o644),
        **{
            path: (renewal_files.drop_in_text(_roots(acme_roots)) if unit in units else None, 0o644)
            for unit, path in renewal_files.DROP_INS.items()
        },
        CERTBOT_HOOK: (HOOK_TEXT if uses_certbot(configuration, certbot) else None, 0o755),
    }
    program = building.build(building.sources(), interpreter())
    images = {PROGRAM: FileImage(PROGRAM, program, 0o755)}
    for path, (text, mode) in texts.items():
        images[path] = FileImage(path, None if text is None else text.encode("utf-8"), mode)
    return images


def _roots(acme_roots: str) -> list[str]:
    store, place = host_store()
    return [*([place] if store else []), acme_roots]


def interpreter() -> str:
    """Return the Python for the program: the host's own where the module runs on that, because an upgrade of the host keeps its name."""
    with contextlib.suppress(OSError):
        if Path(_PYTHON).samefile(sys.executable):
            return _PYTHON
    return sys.executable


def install(
    configuration: RenewalPlan,
    certbot: str,
    timer: bool,
    run: Runner,
    check_mode: bool,
    store: str = STORE,
    acme_ca_file: str = "",
) -> dict[str, Any]:
    """Install the hook, or bring it to this version, and return the module's result. Raises EngineError and OSError.

    acme_ca_file: roots on this host for the web server of the authority that certbot asks; empty for those of the host.
    """
    check(configuration)
    acme_roots = acme_ca_file if uses_certbot(configuration, certbot) else ""
    if acme_roots:
        _check_roots(acme_roots)
    images = wanted(configuration, certbot, timer, acme_roots)
    systemd = Path(renewal_files.SYSTEMD).is_dir()
    warnings = (
        []
        if systemd or not timer
        else [f"systemd does not run this host, so nothing starts '{PROGRAM} renew' but certbot; call it from cron"]
    )
    if not systemd:
        units = (SERVICE_FILE, TIMER_FILE, *renewal_files.DROP_INS.values())
        images.update({path: FileImage(path, None) for path in units})
    drop_ins = [images[path] for path in renewal_files.DROP_INS.values()]
    if acme_roots and not any(one.content for one in drop_ins):
        warnings.append(
            f"neither {' nor '.join(renewal_files.CERTBOT_UNITS)} renews here; whatever starts certbot needs "
            f"REQUESTS_CA_BUNDLE={acme_roots} in its environment, or no renewal succeeds"
        )
    with contextlib.nullcontext() if check_mode else host_locked(store):
        present = renewal_files.look()
        _refuse_foreign(present, images)
        _refuse_newer(present[CONFIGURATION].image)
        pairs = [(present[path].image, image) for path, image in images.items()]
        differing = [(old, new) for old, new in pairs if old != new and (old.content, new.content) != (None, None)]
        differing = [(old, new) for old, new in differing if not present[new.path].foreign]
        former = renewal_files.textfile(present[CONFIGURATION].image)
        if former and former.path == configuration.textfile:
            former = None
        starts = (
            timer
            and systemd
            and (
                not renewal_files.timer_runs(run)
                or any(new.path in (SERVICE_FILE, TIMER_FILE) for _old, new in differing)
            )
        )
        if not check_mode:
            is_read_anew = systemd and any(new.path in renewal_files.DROP_INS.values() for _old, new in differing)
            _write(differing, starts, is_read_anew, run)
            if former:
                renewal_files.remove_textfile(former)
    differing += [(former, FileImage(former.path, None))] if former else []
    diff = [_difference(old, new) for old, new in differing]
    return {
        "changed": bool(differing or starts),
        "version": VERSION,
        "diff": diff,
        "warnings": warnings,
        "files": [one.path for one in images.values() if one.content is not None],
    }


def uninstall(run: Runner, check_mode: bool, store: str = STORE) -> dict[str, Any]:
    """Remove the hook and return the module's result. Raises EngineError and OSError."""
    paths = renewal_files.there()
    present = {path: FileImage.read(path) for path in paths}
    shown = renewal_files.textfile(present[CONFIGURATION]) if CONFIGURATION in present else None
    present.update({shown.path: shown} if shown else {})
    if paths and not check_mode:
        with host_locked(store):
            renewal_files.remove(run)
    diff = [_difference(image, FileImage(path, None)) for path, image in present.items()]
    left = list(renewal_files.not_read())
    return {"changed": bool(paths), "version": "", "diff": diff, "warnings": left, "files": []}


def _check_roots(path: str) -> None:
    try:
        check_path(path)
    except EngineError as error:
        raise EngineError(f"acme_ca_file: {error}") from None
    if not Path(path).is_file():
        raise EngineError(f"acme_ca_file: there is no file {path} on this host")


def _write(differing: Sequence[tuple[FileImage, FileImage]], starts: bool, is_read_anew: bool, run: Runner) -> None:
    """Write the files, and start the timer. If something fails, the files are as they were."""
    written: list[FileImage] = []
    try:
        for old, new in differing:
            if new.content is None and new.path == TIMER_FILE:
                run(["systemctl", "disable", "--now", f"{renewal_files.RENEWAL_UNIT}.timer"])
            if new.content is not None:
                directory = str(Path(new.path).parent)
                if missing_directories(directory, new.trust):
                    make_directories(directory, new.trust)
            new.write()
            written.append(old)
        if starts:
            renewal_files.start_timer(run)
        elif is_read_anew:
            renewal_files.reload_units(run)
    except BaseException:
        for old in reversed(written):
            with contextlib.suppress(OSError, EngineError):
                old.write()
        raise


def _refuse_foreign(present: Mapping[str, renewal_files.HookFile], images: Mapping[str, FileImage]) -> None:
    for path, one in present.items():
        if one.foreign and images[path].content is not None:
            raise EngineError(
                f"{path} is there and is not a file of this collection, so it is not replaced; move it away, then run again"
            )


def _refuse_newer(image: FileImage) -> None:
    if image.content is not None:
        with contextlib.suppress(ValueError):  # a damaged one is written again
            format_of(json.loads(image.content), RENEWAL_FORMAT, image.path)


def _difference(old: FileImage, new: FileImage) -> dict[str, str]:
    """Return a file before and after in Ansible's diff format. The program is not shown, only that it differs."""
    sides = [_shown(one) for one in (old, new)]
    if sides[0] == sides[1]:
        sides = [f"{sides[0]}(another version, owner or mode)\n", sides[1]]
    return {"before": sides[0], "after": sides[1], "before_header": new.path, "after_header": new.path}


def _shown(image: FileImage) -> str:
    if image.content is None:
        return ""
    if image.path == PROGRAM:
        return f"the program mailfleet-starttls, {len(image.content)} bytes, mode {image.mode:04o}\n"
    return image.content.decode("utf-8", "replace")
