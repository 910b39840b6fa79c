# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Received reports about the TLS of one's own domains (SMTP TLS Reporting, RFC 8460).

Anybody may send such a report, so every part is checked. Files are read and inflated up to a limit, each file and all
files of a call. The library C(jsonschema) checks the JSON against a schema. Dates must be plausible. Texts are made
printable. Reports that fail a check, or are about domains of others, are named and left out.
"""

from __future__ import annotations

import email
import errno
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from email.message import Message
from pathlib import Path
from typing import Any, NoReturn, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils import limits
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import OTHER
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK, UntrustedPathError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    MAX_COUNT,
    Budget,
    ExhaustedError,
    whole_number,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import one_line

try:
    import jsonschema  # type: ignore[import-untyped]

    HAS_JSONSCHEMA = True
except ImportError:
    HAS_JSONSCHEMA = False

TEXT_LENGTH = 300
CLOCK_SKEW = timedelta(days=1)
POLICY_TYPES = ("sts", "tlsa", "no-policy-found")
RESULT_TYPES = frozenset(
    {
        "starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "certificate-not-trusted",
        "validation-failure", "tlsa-invalid", "dnssec-invalid", "dane-required", "sts-policy-fetch-error",
        "sts-policy-invalid", "sts-webpki-invalid",
    }
)  # fmt: skip
"""RFC 8460, section 4.3. Any other result type counts as C(other)."""

_COMPRESSED = frozenset(
    {"application/gzip", "application/x-gzip", "application/x-gzip-compressed", "application/octet-stream"}
)

# The fields whose parameters the parser of Python reads, with their continuation lines, wherever they stand in a mail.
_FIELD = re.compile(
    rb"(?:\A|[\r\n])(content-(?:type|disposition|transfer-encoding):[^\r\n]*(?:(?:\r\n|\r|\n)[ \t][^\r\n]*)*)",
    re.IGNORECASE,
)

_TEXT = {"type": "string", "maxLength": 10_000}
_COUNT = {"type": "integer", "minimum": 0, "maximum": MAX_COUNT}


def _object(required: Sequence[str], **members: Any) -> dict[str, Any]:
    named = {name.replace("_", "-"): schema for name, schema in members.items()}
    return {"type": "object", "required": list(required), "properties": named}


HEAD: Mapping[str, Any] = {"organization-name": _TEXT, "report-id": _TEXT}
"""Members of a report without which the rest still counts."""
REPORT_PART = _object(
    ["date-range", "policies"],
    date_range=_object(["start-datetime", "end-datetime"], start_datetime=_TEXT, end_datetime=_TEXT),
    policies={"type": "array", "maxItems": limits.TLS_REPORT_POLICIES},
)
POLICY_PART = _object(
    ["policy", "summary"],
    policy=_object(["policy-type"], policy_type={"enum": list(POLICY_TYPES)}, policy_domain=_TEXT),
    summary={
        **_object([], total_successful_session_count=_COUNT, total_failure_session_count=_COUNT),
        "minProperties": 1,
    },
)
DETAILS = {"type": "array", "maxItems": limits.TLS_REPORT_DETAILS}
DETAIL = _object(
    ["result-type", "failed-session-count"],
    result_type=_TEXT,
    sending_mta_ip=_TEXT,
    receiving_mx_hostname=_TEXT,
    failure_reason_code=_TEXT,
    failed_session_count=_COUNT,
)
"""The members of RFC 8460, section 4.4, that are used here, each part by itself: a fault loses its own part only. Other
members are allowed and ignored."""
UNKNOWN_DOMAIN = "unknown"
"""The domain of a policy that names none, as some write it for no-policy-found."""
_COUNTS = ("total-successful-session-count", "total-failure-session-count", "failed-session-count")
_LOST = 5
"""So many lost parts of a report are named; the rest are counted."""


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


class _Collected:
    """The entries of all reports about one's own domains, and the faults to tell."""

    def __init__(self, domains: Iterable[str]) -> None:
        self._own = {_domain(one) for one in domains}
        self._entries: dict[tuple[str, ...], dict[str, Any]] = {}
        self._problems: dict[str, None] = {}

    def add(self, name: str, entries: Sequence[dict[str, Any]]) -> None:
        """Add the entries of one report. name: its file."""
        own = {*self._own, UNKNOWN_DOMAIN}
        foreign = list(dict.fromkeys(one["domain"] for one in entries if one["domain"] not in own))
        if foreign:
            shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            self.problem(f"{name}: what it says about {shown} is left out, because the inventory has no such domain")
        # One report may have several policies of a type for a domain. The same report may come twice.
        for number, entry in enumerate(entries):
            if entry["domain"] in own:
                names = ("organization", "report_id", "domain", "policy_type")
                self._keep((*(entry[one] for one in names), str(number)), entry)

    def _keep(self, key: tuple[str, ...], entry: dict[str, Any]) -> None:
        known = self._entries.setdefault(key, entry)
        if known == entry:
            return
        self.problem(
            f"there are different reports of {entry['organization']} with the id {entry['report_id']} about {entry['domain']}, "
            "and one may be forged; the worse one counts"
        )
        self._entries[key] = max(known, entry, key=_badness)

    def problem(self, text: str) -> None:
        """Add a fault to tell, each once."""
        self._problems[text] = None

    def result(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the entries in order, and the faults, of which there are not many."""
        told = list(self._problems)
        more = len(told) - limits.TLS_REPORT_PROBLEMS
        if more > 0:
            told = [*told[: limits.TLS_REPORT_PROBLEMS], f"{more} more faults are not shown"]
        return sorted(self._entries.values(), key=lambda one: (one["start"], one["organization"], one["domain"])), told


def read_reports(
    paths: Iterable[str], domains: Iterable[str], now: Optional[datetime] = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what these files report about these domains, one entry per report and policy, and the faults to tell.

    A file is JSON, JSON in gzip, or a mail with such attachments. An entry is C({organization, report_id, start, end,
    domain, policy_type, successful, failed, failures: [{result_type, sending_mta_ip, receiving_mx, count, reason}]}).
    Failures are added up by result type; the other members are those of the first one. Times are ISO 8601 in UTC. A report
    that was sent twice counts once; of two that differ, the worse one counts. What exceeds a limit is left out. Raises
    MissingJsonschemaError, and OSError if a file cannot be read.
    """
    paths = list(paths)
    if paths and not HAS_JSONSCHEMA:
        raise MissingJsonschemaError
    now = now or datetime.now(timezone.utc)
    most = {
        "bytes": limits.TLS_REPORT_RUN_BYTES,
        "policies": limits.TLS_REPORT_RUN_POLICIES,
        "failure details": limits.TLS_REPORT_RUN_DETAILS,
    }
    whole = Budget("the reading of all TLS reports", most, limits.TLS_REPORT_RUN_SECONDS)
    collected = _Collected(domains)
    # The small files come first: real reports are small, and a large one of a stranger must not use up what all share.
    for number, path in enumerate(sorted(paths, key=_size)):
        name = one_line(Path(path).name)
        own = Budget("it", {"bytes": limits.TLS_REPORT_FILE_TOTAL_BYTES}, limits.TLS_REPORT_FILE_SECONDS, within=whole)
        try:
            for data in _documents(_content(path, own), own):
                entries, lost = parse_parts(data, now, own)
                collected.add(name, entries)
                for one in lost:
                    collected.problem(f"{name}: {one}")
        except ExhaustedError as error:
            if error.budget is whole:
                collected.problem(
                    f"{error}; the {len(paths) - number} largest of {len(paths)} files are not read, or not to their end"
                )
                break
            collected.problem(f"{name}: {error}")
        except TlsReportError as error:
            collected.problem(f"{name}: {error}")
    return collected.result()


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # its reading names the fault
        return 0


def _content(path: str, budget: Budget) -> bytes:
    try:
        data = FileImage.read(path, max_bytes=min(limits.TLS_REPORT_FILE_BYTES, budget.left()), trust=LOOK).content
    except UntrustedPathError as error:
        raise TlsReportError(str(error)) from None
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        budget.spend(_size(path))
        raise TlsReportError(f"the file has more than {limits.TLS_REPORT_FILE_BYTES} bytes") from None
    if data is None:
        raise FileNotFoundError(2, "there is no such file", path)
    budget.spend(len(data))
    return data


def parse(data: bytes, now: Optional[datetime] = None, budget: Optional[Budget] = None) -> list[dict[str, Any]]:
    """Return the entries of one report, as far as they can be read. Raises what parse_parts raises."""
    return parse_parts(data, now, budget)[0]


def parse_parts(
    data: bytes, now: Optional[datetime] = None, budget: Optional[Budget] = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the entries of one report, and what of it cannot be read. data is its JSON.

    Raises TlsReportError if nothing can be read, and ExhaustedError; no other exception.
    """
    most = {"policies": limits.TLS_REPORT_POLICIES, "failure details": limits.TLS_REPORT_DETAILS}
    mine = Budget("the report", most, within=budget)
    try:
        report = json.loads(
            data.decode(json.detect_encoding(data)), parse_constant=_refuse_constant, parse_int=whole_number
        )
    except (ValueError, RecursionError) as error:
        raise TlsReportError(f"it is not readable JSON ({type(error).__name__})") from None
    reader = _Reader(mine)
    entries = reader.read(report, now or datetime.now(timezone.utc))
    return entries, reader.lost()


class _Reader:
    """Reads one report part by part."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._lost: list[str] = []
        self._more = 0

    def lost(self) -> list[str]:
        """Return what could not be read."""
        return [*self._lost, *([f"{self._more} more parts of it cannot be read"] if self._more else [])]

    def read(self, report: Any, now: datetime) -> list[dict[str, Any]]:
        """Return the entries. Raises TlsReportError if nothing of the report can be read."""
        report = _plain(report)
        if isinstance(report, dict) and isinstance(report.get("policies"), dict) and report["policies"]:
            report = {**report, "policies": [report["policies"]]}
        _count_entries(report, self._budget)
        head = {name: self._text_of(report, name) for name in HEAD}
        fault = _fault(REPORT_PART, report)
        if fault:
            raise TlsReportError(self._lost[0] if self._lost else _not_by_rfc(*fault))
        start, end = (_moment(report["date-range"][f"{name}-datetime"]) for name in ("start", "end"))
        if end < start:
            raise TlsReportError("it ends before it begins")
        if start > now + CLOCK_SKEW:
            raise TlsReportError(f"it is about the future ({_iso(start)})")
        head = {
            "organization": head["organization-name"],
            "report_id": head["report-id"],
            "start": _iso(start),
            "end": _iso(end),
        }
        found = [self._policy(one, f"policies/{number}") for number, one in enumerate(report["policies"])]
        entries = [{**head, **one} for one in found if one]
        if not entries and self._lost:
            raise TlsReportError(self._lost[0])
        return entries

    def _lose(self, where: str, why: str) -> None:
        if len(self._lost) < _LOST:
            self._lost.append(_not_by_rfc(where, why))
        else:
            self._more += 1

    def _text_of(self, report: Any, name: str) -> str:
        """Return a member of the head; empty, and named, if it cannot be read."""
        if not isinstance(report, dict):
            return ""
        value = report.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        fault = _fault(_object([name]), report) or _fault(HEAD[name], value, name)
        if fault:
            self._lose(*fault)
            return ""
        return _text(str(value))

    def _policy(self, one: Any, where: str) -> Optional[dict[str, Any]]:
        self._budget.look()
        one = _plain(one)
        if isinstance(one, dict):
            one = {name: _plain(value) if name in ("policy", "summary") else value for name, value in one.items()}
            policy = one.get("policy")
            if isinstance(policy, dict) and isinstance(policy.get("policy-type"), str):
                one["policy"] = {**policy, "policy-type": policy["policy-type"].strip().lower()[:TEXT_LENGTH]}
        fault = _fault(POLICY_PART, one, where)
        if fault:
            self._lose(*fault)
            return None
        failures = _failures(self._details(one.get("failure-details"), f"{where}/failure-details"))
        successful, failed = (one["summary"].get(name) for name in _COUNTS[:2])
        if successful is None:
            self._lose(f"{where}/summary", f"'{_COUNTS[0]}' is a required property")
        if failed is None and not failures:
            self._lose(f"{where}/summary", f"'{_COUNTS[1]}' is a required property")
        if failed is None:
            failed = min(sum(each["count"] for each in failures), MAX_COUNT)
        return {
            "domain": _domain(one["policy"].get("policy-domain", "")) or UNKNOWN_DOMAIN,
            "policy_type": one["policy"]["policy-type"],
            "successful": int(successful or 0),
            "failed": int(failed),
            "failures": failures,
        }

    def _details(self, details: Any, where: str) -> Iterator[dict[str, Any]]:
        if isinstance(details, dict):
            details = [details]
        fault = _fault(DETAILS, details, where) if details is not None else None
        if fault:
            self._lose(*fault)
            return
        for number, detail in enumerate(details or ()):
            plain = _plain(detail)
            fault = _fault(DETAIL, plain, f"{where}/{number}")
            if fault:
                self._lose(*fault)
            else:
                yield plain


def _plain(value: Any) -> Any:
    """Return an object without members that are null, and with counts that were written as text as numbers."""
    if not isinstance(value, dict):
        return value
    return {name: _count(one) if name in _COUNTS else one for name, one in value.items() if one is not None}


def _count(value: Any) -> Any:
    digits = value.strip() if isinstance(value, str) and len(value) <= TEXT_LENGTH else ""
    return int(digits) if re.fullmatch(r"[0-9]{1,16}", digits) else value


def _fault(schema: Mapping[str, Any], value: Any, where: str = "") -> Optional[tuple[str, str]]:
    """Return the place and the message of the first fault; None if there is none.

    Only the first: the sender of the report controls how long a search for the best one takes.
    """
    wrong = next(jsonschema.Draft202012Validator(schema).iter_errors(value), None)
    if not wrong:
        return None
    return "/".join(filter(None, (where, *map(str, wrong.absolute_path)))), wrong.message


def _not_by_rfc(where: str, message: str) -> str:
    return f"it is not a report by RFC 8460: {_text(where or 'the report')}: {_text(message)}"


def _count_entries(report: Any, budget: Budget) -> None:
    """Spend policies and details before anything looks at each of them."""
    policies = report.get("policies") if isinstance(report, dict) else None
    if not isinstance(policies, list):
        return
    budget.spend(len(policies), "policies")
    for one in policies:
        details = one.get("failure-details") if isinstance(one, dict) else None
        if isinstance(details, list):
            budget.spend(len(details), "failure details")


def inflate(data: bytes, budget: Optional[Budget] = None) -> bytes:
    """Return the inflated gzip data, of one or several members. The budget pays for its bytes.

    Raises TlsReportError if the data is damaged or exceeds a limit, and ExhaustedError if the budget does not suffice.
    """
    pieces: list[bytes] = []
    left = limits.TLS_REPORT_BYTES
    try:
        for _member in range(limits.TLS_REPORT_MEMBERS):
            stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
            pieces.append(stream.decompress(data, left + 1))
            left -= len(pieces[-1])
            if left < 0:
                raise TlsReportError(f"it holds more than {limits.TLS_REPORT_BYTES} bytes")
            if budget:
                budget.spend(len(pieces[-1]))
            if not stream.eof:
                raise TlsReportError("the gzip file is cut off")
            data = stream.unused_data.lstrip(b"\0")
            if not data:
                return b"".join(pieces)
    except zlib.error:
        raise TlsReportError("the gzip file is damaged") from None
    raise TlsReportError(f"the gzip file has more than {limits.TLS_REPORT_MEMBERS} members")


def _documents(data: bytes, budget: Optional[Budget] = None) -> Iterator[bytes]:
    if data.startswith(b"\x1f\x8b"):
        yield inflate(data, budget)
    elif data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[", b"\xff\xfe", b"\xfe\xff")):
        yield data
    else:
        yield from _attachments(data, budget)


def _attachments(data: bytes, budget: Optional[Budget]) -> Iterator[bytes]:
    _refuse_costly(data)
    found = False
    for payload in _payloads(data):
        found = True
        yield inflate(payload, budget) if payload.startswith(b"\x1f\x8b") else payload
    if not found:
        raise TlsReportError("it is neither a TLS report nor a mail with one attached")


def _refuse_costly(data: bytes) -> None:
    """Raise TlsReportError if the parser of Python would need long for this mail."""
    if data.count(b"\n") + data.count(b"\r") > 2 * limits.TLS_REPORT_LINES:  # a line may end with both
        raise TlsReportError(f"the mail has more than {limits.TLS_REPORT_LINES} lines")
    # The parser compares each line with the boundaries of all enclosing parts.
    if data.lower().count(b"boundary") > limits.TLS_REPORT_PARTS:
        raise TlsReportError(f"the mail has more than {limits.TLS_REPORT_PARTS} parts")
    for field in _FIELD.finditer(data):
        if field.end() - field.start() > limits.TLS_REPORT_HEADER_BYTES:
            raise TlsReportError(f"a header field of the mail has more than {limits.TLS_REPORT_HEADER_BYTES} bytes")


def _payloads(data: bytes) -> Iterator[bytes]:
    """Yield what the parts that are named as reports hold."""
    try:
        for number, part in enumerate(email.message_from_bytes(data).walk()):
            if number >= limits.TLS_REPORT_PARTS:
                raise TlsReportError(f"the mail has more than {limits.TLS_REPORT_PARTS} parts")
            sure = _is_report(part)
            payload = part.get_payload(decode=True) if sure or _may_be_report(part) else None
            if isinstance(payload, bytes) and (sure or payload.startswith(b"\x1f\x8b")):
                yield payload
    except TlsReportError:
        raise
    except Exception as error:  # the mail parser may raise any exception for malformed mail
        raise TlsReportError(f"it is not a readable mail ({type(error).__name__})") from None


def _is_report(part: Message) -> bool:
    kind, name = part.get_content_type(), str(part.get_filename() or "").lower()
    named = kind in ("application/tlsrpt+json", "application/tlsrpt+gzip") or name.endswith((".json", ".json.gz"))
    return named and not part.is_multipart()


def _may_be_report(part: Message) -> bool:
    """Whether a part that is not named as a report may be one if it is compressed. Reports on DMARC are XML."""
    kind, name = part.get_content_type(), str(part.get_filename() or "").lower()
    return kind in _COMPRESSED and not name.endswith((".xml", ".xml.gz", ".tar.gz", ".tgz")) and not part.is_multipart()


def _failures(details: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the failures of a policy, added up by result type."""
    found: dict[str, dict[str, Any]] = {}
    for detail in details:
        kind = detail["result-type"] if detail["result-type"] in RESULT_TYPES else OTHER
        count = int(detail["failed-session-count"])
        if kind in found:
            found[kind]["count"] = min(found[kind]["count"] + count, MAX_COUNT)
            continue
        found[kind] = {
            "result_type": kind,
            "sending_mta_ip": _text(detail.get("sending-mta-ip", "")),
            "receiving_mx": _text(detail.get("receiving-mx-hostname", "")),
            "count": count,
            "reason": _text(detail.get("failure-reason-code", "")),
        }
    return list(found.values())


def _badness(entry: dict[str, Any]) -> tuple[int, int, int]:
    """Return what orders two reports of the same: the one with more failures is worse."""
    return entry["failed"], sum(one["count"] for one in entry["failures"]), -entry["successful"]


def _domain(name: str) -> str:
    return _text(name).lower().rstrip(".")


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
