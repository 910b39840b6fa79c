# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tls_report runs on the controller only: it makes one report of what was gathered and writes it in every wanted format."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report import document, tls_rpt
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.formats import FORMATS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import SEVERITIES, one_line

ARGUMENT_SPEC: dict[str, Any] = {
    "rows": {"type": "list", "elements": "dict", "required": True},
    "title": {"type": "str", "default": "TLS on the mail fleet"},
    "window": {"type": "dict", "options": {"since": {"type": "str"}, "until": {"type": "str"}}},
    "tls_reports": {"type": "list", "elements": "path", "default": []},
    "previous": {"type": "path"},
    "certificate_days": {"type": "int", "default": 21},
    "fail_on": {"type": "str", "choices": list(SEVERITIES), "default": "error"},
    "outputs": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "format": {"type": "str", "choices": list(FORMATS), "required": True},
            "path": {"type": "path", "required": True},
            "mode": {"type": "raw"},
        },
    },
}


class Output(NamedTuple):
    """A file to write: mode None keeps that of the file that is there, or takes the format's."""

    format: str
    path: str
    mode: Optional[int]


class ActionModule(ActionBase):
    """Builds the document once and renders it for each output."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """See ActionBase."""
        super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        outputs = [_output(one, self._task.check_mode) for one in options["outputs"]]
        if len({os.path.realpath(one.path) for one in outputs}) < len(outputs):
            raise AnsibleActionFail("two of outputs have the same path")
        report, problems = _report(options)
        rendered = [(one, FORMATS[one.format].render(report)) for one in outputs]
        images = [_image(one, text) for one, text in rendered]
        changed = [path for path, image in zip((one.path for one in outputs), images) if image.changed]
        if not self._task.check_mode:
            for one, image in zip(outputs, images):
                _write(one, image)
        summary = report["summary"]
        result: dict[str, Any] = {
            "changed": bool(changed),
            "msg": f"{summary['passed']} of {summary['hosts']} hosts pass; "
            + ", ".join(f"{count} of severity {severity}" for severity, count in summary["alerts"].items())
            + " among the alerts",
            "summary": summary,
            "alerts": report["alerts"],
            "paths": [one.path for one in outputs],
            "changed_paths": changed,
        }
        if problems:
            result["warnings"] = [f"A TLS report is left out: {one}" for one in problems]
        return result


class Image(NamedTuple):
    """A file as it shall be, whether it is there so byte by byte, and whether more than the time differs."""

    file: FileImage
    written: bool
    changed: bool


def _output(given: dict[str, Any], check_mode: bool) -> Output:
    mode = given.get("mode")
    if isinstance(mode, str):
        with suppress(ValueError):
            mode = int(mode, 8)
    # YAML has made a number of octal digits without quotes already.
    if mode is not None and not (isinstance(mode, int) and 0 <= mode <= 0o777):
        raise AnsibleActionFail(f"mode {given['mode']!r} is no mode of a file; give one like '0640'")
    if not check_mode and not Path(given["path"]).parent.is_dir():  # which an earlier task may be about to make
        raise AnsibleActionFail(f"there is no directory for {given['path']} on the controller; make it first")
    return Output(given["format"], given["path"], mode)


def _report(options: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    try:
        reports, problems = tls_rpt.read_reports(options["tls_reports"])
    except (tls_rpt.MissingJsonschemaError, OSError) as error:
        raise AnsibleActionFail(f"the TLS reports cannot be read: {error}") from error
    try:
        report = document.build(
            options["rows"],
            title=options["title"],
            window=options["window"],
            tls_reports=reports,
            previous=_previous(options["previous"]),
            certificate_days=options["certificate_days"],
            fail_on=options["fail_on"],
        )
    except document.ReportError as error:
        raise AnsibleActionFail(str(error)) from error
    return report, problems


def _previous(path: Optional[str]) -> Optional[dict[str, Any]]:
    """The former report; None if there is none yet, as before the first run."""
    if not path:
        return None
    try:
        content = FileImage.read(path, max_bytes=document.MAX_PREVIOUS_BYTES).content
        return None if content is None else document.load_previous(content)
    except (OSError, document.ReportError) as error:
        raise AnsibleActionFail(f"the former report {one_line(path)} cannot be used: {error}") from error


def _image(output: Output, text: str) -> Image:
    """What has to be done for one output."""
    kind = FORMATS[output.format]
    try:
        old = FileImage.read(output.path)
    except OSError as error:
        raise AnsibleActionFail(f"{output.path} cannot be read on the controller: {error}") from error
    content = text.encode()
    if old.content is None:
        mode = kind.mode if output.mode is None else output.mode
        return Image(FileImage(output.path, content, mode, os.geteuid(), os.getegid()), written=False, changed=True)
    mode = old.mode if output.mode is None else output.mode
    same = mode == old.mode and kind.same(old.content.decode("utf-8", "replace"), text)
    file = FileImage(output.path, content, mode, old.uid, old.gid)
    return Image(file, written=file == old, changed=not same)


def _write(output: Output, image: Image) -> None:
    if image.written:
        return
    try:
        image.file.write()
    except OSError as error:
        raise AnsibleActionFail(f"{output.path} cannot be written on the controller: {error}") from error
