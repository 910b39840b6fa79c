# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Received reports about the TLS of one's own domains (SMTP TLS Reporting, RFC 8460).

Anybody may send such a report, so every part is checked. Files are read and inflated up to a limit. The library
C(jsonschema) checks the JSON against a schema. Dates must be plausible. Texts are made printable. Reports that fail a
check are named and left out.
"""

from __future__ import annotations

import email
import json
import zlib
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from email.message import Message
from pathlib import Path
from typing import Any, NoReturn, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK, UntrustedPathError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import one_line

try:
    import jsonschema  # type: ignore[import-untyped]

    HAS_JSONSCHEMA = True
except ImportError:
    HAS_JSONSCHEMA = False

MAX_FILE_BYTES = 25 << 20
MAX_REPORT_BYTES = 32 << 20
"""The limit for one inflated report. The largest real reports have some hundred kilobytes."""
MAX_PARTS = 100
MAX_COUNT = 2**53 - 1
TEXT_LENGTH = 300
CLOCK_SKEW = timedelta(days=1)
POLICY_TYPES = ("sts", "tlsa", "no-policy-found")

_TEXT = {"type": "string", "maxLength": 10_000}
_COUNT = {"type": "integer", "minimum": 0, "maximum": MAX_COUNT}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["organization-name", "date-range", "report-id", "policies"],
    "properties": {
        "organization-name": _TEXT,
        "report-id": _TEXT,
        "date-range": {
            "type": "object",
            "required": ["start-datetime", "end-datetime"],
            "properties": {"start-datetime": _TEXT, "end-datetime": _TEXT},
        },
        "policies": {
            "type": "array",
            "maxItems": 1_000,
            "items": {
                "type": "object",
                "required": ["policy", "summary"],
                "properties": {
                    "policy": {
                        "type": "object",
                        "required": ["policy-type", "policy-domain"],
                        "properties": {"policy-type": {"enum": list(POLICY_TYPES)}, "policy-domain": _TEXT},
                    },
                    "summary": {
                        "type": "object",
                        "required": ["total-successful-session-count", "total-failure-session-count"],
                        "properties": {
                            "total-successful-session-count": _COUNT,
                            "total-failure-session-count": _COUNT,
                        },
                    },
                    "failure-details": {
                        "type": "array",
                        "maxItems": 10_000,
                        "items": {
                            "type": "object",
                            "required": ["result-type", "failed-session-count"],
                            "properties": {
                                "result-type": _TEXT,
                                "sending-mta-ip": _TEXT,
                                "receiving-mx-hostname": _TEXT,
                                "failure-reason-code": _TEXT,
                                "failed-session-count": _COUNT,
                            },
                        },
                    },
                },
            },
        },
    },
}
"""The members of RFC 8460, section 4.4, that are used here. Other members are allowed and ignored."""


class TlsReportError(ValueError):
    """A report cannot be used. The message gives the reason."""


class MissingJsonschemaError(RuntimeError):
    """The controller lacks C(jsonschema). The message explains how to install it."""

    def __init__(self) -> None:
        super().__init__(
            "the Python package 'jsonschema' is missing on the controller, where TLS reports (RFC 8460) are checked. Install "
            "it for the Python that runs Ansible, for example with 'python3 -m pip install jsonschema', or leave tls_reports "
            "out"
        )


def read_reports(paths: Iterable[str], now: Optional[datetime] = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the reports in these files, one entry per report and policy, and the faults of those that are left out.

    A file is JSON, JSON in gzip, or a mail with such attachments. An entry is C({organization, report_id, start, end,
    domain, policy_type, successful, failed, failures: [{result_type, sending_mta_ip, receiving_mx, count, reason}]}).
    Times are ISO 8601 in UTC. A report that was sent twice counts once. Raises MissingJsonschemaError, and OSError if a
    file cannot be read.
    """
    paths = list(paths)
    if paths and not HAS_JSONSCHEMA:
        raise MissingJsonschemaError
    now = now or datetime.now(timezone.utc)
    entries: dict[tuple[str, ...], dict[str, Any]] = {}
    problems: list[str] = []
    for path in paths:
        try:
            data = FileImage.read(path, max_bytes=MAX_FILE_BYTES, trust=LOOK).content
        except UntrustedPathError as error:
            problems.append(str(error))
            continue
        if data is None:
            raise FileNotFoundError(2, "there is no such file", path)
        try:
            for document in _documents(data):
                # One report may have several policies of a type for a domain. The same report may come twice.
                for number, entry in enumerate(parse(document, now)):
                    names = ("organization", "report_id", "domain", "policy_type")
                    entries.setdefault((*(entry[name] for name in names), str(number)), entry)
        except TlsReportError as error:
            problems.append(f"{Path(path).name}: {error}")
    return sorted(entries.values(), key=lambda one: (one["start"], one["organization"], one["domain"])), problems


def parse(data: bytes, now: Optional[datetime] = None) -> list[dict[str, Any]]:
    """Return the entries of one report. data is its JSON. Raises TlsReportError and no other exception."""
    try:
        report = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise TlsReportError(f"it is not readable JSON ({type(error).__name__})") from None
    # Report the first error only: the sender of the report controls how long a search for the best one takes.
    wrong = next(jsonschema.Draft202012Validator(SCHEMA).iter_errors(report), None)
    if wrong:
        where = "/".join(map(str, wrong.absolute_path)) or "the report"
        raise TlsReportError(f"it is not a report by RFC 8460: {_text(where)}: {_text(wrong.message)}")
    start, end = (_moment(report["date-range"][f"{name}-datetime"]) for name in ("start", "end"))
    if end < start:
        raise TlsReportError("it ends before it begins")
    if start > (now or datetime.now(timezone.utc)) + CLOCK_SKEW:
        raise TlsReportError(f"it is about the future ({_iso(start)})")
    head = {
        "organization": _text(report["organization-name"]),
        "report_id": _text(report["report-id"]),
        "start": _iso(start),
        "end": _iso(end),
    }
    return [{**head, **_policy(one)} for one in report["policies"]]


def inflate(data: bytes, limit: int = MAX_REPORT_BYTES) -> bytes:
    """Return the inflated gzip data, of one or several members.

    Raises TlsReportError if the result exceeds limit bytes or the data is damaged.
    """
    pieces: list[bytes] = []
    left = limit
    try:
        while data:
            stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
            pieces.append(stream.decompress(data, left + 1))
            left -= len(pieces[-1])
            if left < 0:
                raise TlsReportError(f"it holds more than {limit} bytes")
            if not stream.eof:
                raise TlsReportError("the gzip file is cut off")
            data = stream.unused_data.lstrip(b"\0")
    except zlib.error:
        raise TlsReportError("the gzip file is damaged") from None
    return b"".join(pieces)


def _documents(data: bytes) -> Iterator[bytes]:
    if data.startswith(b"\x1f\x8b"):
        yield inflate(data)
    elif data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        if len(data) > MAX_REPORT_BYTES:
            raise TlsReportError(f"it holds more than {MAX_REPORT_BYTES} bytes")
        yield data
    else:
        yield from _attachments(data)


def _attachments(data: bytes) -> Iterator[bytes]:
    # The parser compares each line with the boundaries of all enclosing parts.
    if data.lower().count(b"boundary") > MAX_PARTS:
        raise TlsReportError(f"the mail has more than {MAX_PARTS} parts")
    try:
        found = list(_reports_of(email.message_from_bytes(data)))
    except TlsReportError:
        raise
    except Exception as error:  # the mail parser may raise any exception for malformed mail
        raise TlsReportError(f"it is not a readable mail ({type(error).__name__})") from None
    if not found:
        raise TlsReportError("it is neither a TLS report nor a mail with one attached")
    yield from found


def _reports_of(mail: Message) -> Iterator[bytes]:
    for number, part in enumerate(mail.walk()):
        if number >= MAX_PARTS:
            raise TlsReportError(f"the mail has more than {MAX_PARTS} parts")
        kind, name = part.get_content_type(), str(part.get_filename() or "").lower()
        is_report = kind in ("application/tlsrpt+json", "application/tlsrpt+gzip") or name.endswith(
            (".json", ".json.gz")
        )
        if not is_report or part.is_multipart():
            continue
        payload = part.get_payload(decode=True)
        if isinstance(payload, bytes):
            yield inflate(payload) if payload.startswith(b"\x1f\x8b") else payload


def _policy(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "domain": _text(one["policy"]["policy-domain"]).lower().rstrip("."),
        "policy_type": one["policy"]["policy-type"],
        "successful": one["summary"]["total-successful-session-count"],
        "failed": one["summary"]["total-failure-session-count"],
        "failures": [
            {
                "result_type": _text(detail["result-type"]),
                "sending_mta_ip": _text(detail.get("sending-mta-ip", "")),
                "receiving_mx": _text(detail.get("receiving-mx-hostname", "")),
                "count": detail["failed-session-count"],
                "reason": _text(detail.get("failure-reason-code", "")),
            }
            for detail in one.get("failure-details", ())
        ],
    }


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00").replace("z", "+00:00"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise TlsReportError(f"{_text(text)!r} is not a time in the form of RFC 3339") from None


def _iso(moment: datetime) -> str:
    return moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _text(text: str) -> str:
    return one_line(text[:TEXT_LENGTH])


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
