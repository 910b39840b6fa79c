# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the report of tls_report on the controller. Each output is a file. A file with the same content is not written again."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK, PathTrust, make_directories
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import PREVIOUS_REPORT_BYTES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.controller_paths import from_start
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report import document, tls_rpt
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.formats import FORMATS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import one_line
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.workflow import result_of, worst_first

_TRUST = PathTrust(option="the path of the output (starttls_report_directory)")


class Output(NamedTuple):
    """A file to write. mode None keeps the mode of an existing file, or uses that of the format."""

    format: str
    path: str
    mode: Optional[int]


class Image(NamedTuple):
    """A wanted file, whether it already exists with this content, and whether more than the time of the report differs."""

    file: FileImage
    written: bool
    changed: bool


def write_report(options: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Create the report, write it in each wanted format, and return the result of tls_report.

    options are those of the module. Check mode writes nothing and reports the changes. Raises EngineError.
    """
    outputs = [_output(one) for one in options["outputs"]]
    if len({os.path.realpath(one.path) for one in outputs}) < len(outputs):
        raise EngineError("two of outputs have the same path")
    report, problems = _report(options)
    rendered = [(one, FORMATS[one.format].render(report)) for one in outputs]
    images = [_image(one, text) for one, text in rendered]
    if not check_mode:
        for one, image in zip(outputs, images):
            _write(one, image)
    changed = [one.path for one, image in zip(outputs, images) if image.changed]
    warnings = [f"TLS reports: {one}" for one in problems]
    return {
        "changed": bool(changed),
        "msg": _message(report),
        "summary": report["summary"],
        "alerts": report["alerts"],
        "handed_on": _handed_on(report),
        "paths": [one.path for one in outputs],
        "changed_paths": changed,
        **({"warnings": warnings} if warnings else {}),
    }


def _handed_on(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report as C(starttls_result)."""
    summary = {name: report["summary"][name] for name in ("hosts", "passed", "failed", "alerts", "messages")}
    found = [{**one, "host": host["host"]} for host in report["hosts"] for one in host["findings"]]
    return result_of(summary, worst_first(found), report["alerts"])


def _message(report: Mapping[str, Any]) -> str:
    summary = report["summary"]
    passed = [host for host in report["hosts"] if host["verdict"] == "pass"]
    hosts = (
        f"{summary['passed']} of {summary['hosts']} hosts pass{document.with_warnings(document.warnings_of(passed))}"
    )
    alerts = ", ".join(f"{count} of severity {severity}" for severity, count in summary["alerts"].items())
    return f"{hosts}; {alerts} among the alerts"


def _output(given: Mapping[str, Any]) -> Output:
    mode = given.get("mode")
    if isinstance(mode, str):
        with suppress(ValueError):
            mode = int(mode, 8)
    # YAML has already converted octal digits without quotes to a number.
    if mode is not None and not (isinstance(mode, int) and 0 <= mode <= 0o777):
        raise EngineError(f"mode {given['mode']!r} is not a file mode; give one like '0640'")
    return Output(given["format"], from_start(given["path"]), mode)


def _report(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    own = {str(domain) for row in options["rows"] for domain in document.mapping(row.get("own_domains"))}
    try:
        received = [from_start(path) for path in options["tls_reports"]]
        reports, problems = tls_rpt.read_reports(received, own.union(options["domains"]))
    except (tls_rpt.MissingJsonschemaError, OSError) as error:
        raise EngineError(f"the TLS reports cannot be read: {error}") from error
    report = document.build(
        options["rows"],
        title=options["title"],
        window=options["window"],
        tls_reports=reports,
        previous=_previous(options["previous"]),
        certificate_days=options["certificate_days"],
        fail_on=options["fail_on"],
        not_in_run=options.get("not_in_run") or (),
        parts=_parts(options.get("parts") or ()),
    )
    return report, problems


def _parts(given: Sequence[str]) -> list[dict[str, Any]]:
    """Return the reports at these paths, which may be patterns such as C(reports/*/report.json). Raises EngineError."""
    found = []
    for pattern in (line.strip() for one in given for line in one.splitlines() if line.strip()):
        paths = sorted(glob.glob(from_start(pattern)))  # noqa: PTH207  (of an absolute pattern)
        if not paths:
            raise EngineError(
                f"parts (starttls_report_parts): there is no report at {one_line(pattern)} on the controller; correct it, or let the job "
                "that makes it write the format json"
            )
        for path in paths:
            report = _read_report(path, "the report")
            if report is not None:
                found.append(report)
    return found


def _previous(path: Optional[str]) -> Optional[dict[str, Any]]:
    """Return the former report; None if no path is given or there is no file, as in the first run."""
    if not path:
        return None
    return _read_report(from_start(path), "the previous report")


def _read_report(path: str, what: str) -> Optional[dict[str, Any]]:
    try:
        content = FileImage.read(path, max_bytes=PREVIOUS_REPORT_BYTES, trust=LOOK).content
        return None if content is None else document.load_previous(content)
    except (OSError, document.ReportError) as error:
        raise EngineError(f"{what} {one_line(path)} cannot be used: {error}") from error


def _image(output: Output, text: str) -> Image:
    """Return the wanted file of one output, compared with the existing one."""
    kind = FORMATS[output.format]
    try:
        old = FileImage.read(output.path, trust=_TRUST)
    except OSError as error:
        raise EngineError(f"{output.path} cannot be read on the controller: {error}") from error
    content = text.encode()
    if old.content is None:
        mode = kind.mode if output.mode is None else output.mode
        new = FileImage(output.path, content, mode, os.geteuid(), os.getegid(), trust=_TRUST)
        return Image(new, written=False, changed=True)
    mode = old.mode if output.mode is None else output.mode
    same = mode == old.mode and kind.same(old.content.decode("utf-8", "replace"), text)
    file = FileImage(output.path, content, mode, old.uid, old.gid, trust=_TRUST)
    return Image(file, written=file == old, changed=not same)


def _write(output: Output, image: Image) -> None:
    if image.written:
        return
    try:
        make_directories(str(Path(output.path).parent), _TRUST)
        image.file.write()
    except OSError as error:
        raise EngineError(f"{output.path} cannot be written on the controller: {error}") from error
