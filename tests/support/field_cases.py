"""The cases from the field (tests/cases/expected.json): what each row asks of the public plugins, and how a result is compared."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
import re
import ssl
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.action import (
    starttls_probe as probe_action,
)
from ansible_collections.mailfleet.starttls.plugins.action import (
    tls_certificate as certificate_action,
)
from ansible_collections.mailfleet.starttls.plugins.action import (
    tls_report as report_action,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._probe import engine as probe_engine
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.mailbox import MARKER_HEADER
from ansible_collections.mailfleet.starttls.plugins.modules import (
    message_trace,
    starttls_probe,
    tls_activity_info,
    tls_certificate,
)

from tests.support.ansible_action import run_action
from tests.support.ansible_module import run_module
from tests.support.pki import Authority, Issued, now, pem
from tests.support.smtp_server import Face, reply, serving

CASES = Path(__file__).resolve().parents[1] / "cases"
EXPECTED = json.loads((CASES / "expected.json").read_text())
SECTIONS = ("headers", "logs", "tlsrpt", "certificates", "servers", "hosts")
NAME = "mx1.example.com"
NUMBERS = (
    "sessions_tls", "sessions_plaintext", "sessions_unknown", "messages_tls", "messages_plaintext", "messages_unknown",
)  # fmt: skip
EVENTS = ("failures", "refusals", "deferrals")
LOCAL_BY_MEANING = ("key_unusable", "tls_unavailable")
Row = Mapping[str, Any]


def rows() -> list[tuple[str, str, Row]]:
    """Section, name and row of each case. The name is unique, and stays as long as the row does."""
    found = []
    for section in SECTIONS:
        seen: Counter[str] = Counter()
        for row in EXPECTED[section]:
            words = (section, row["kind"], row.get("row", ""), Path(row.get("file", "")).stem)
            name = "-".join(dict.fromkeys(word.removesuffix(".log") for word in words if word))
            seen[name] += 1
            found.append((section, name if seen[name] == 1 else f"{name}-{seen[name]}", row))
    return found


# How values are compared


def differs(expected: Any, actual: Any, where: str = "") -> str:
    """Why a value is not the expected one; empty if it is. See schema in expected.json for the forms of the expected ones."""
    if isinstance(expected, Mapping) and "any_of" in expected:
        reasons = [differs(one, actual, where) for one in expected["any_of"]]
        return "" if "" in reasons else f"{where}: {_shown(actual)} is none of {_shown(expected['any_of'])}"
    if isinstance(expected, Mapping) and {"must", "must_not"} & set(expected):
        return _text_differs(expected, actual, where)
    if expected is None:
        return "" if actual in (None, "", [], {}) else f"{where}: {_shown(actual)} where nothing was told"
    if isinstance(expected, list):
        return _list_differs(expected, actual, where)
    if isinstance(expected, Mapping):
        if not isinstance(actual, Mapping):
            return f"{where}: {_shown(actual)} is no dictionary"
        found = (differs(one, actual.get(name), f"{where}.{name}") for name, one in expected.items())
        return "; ".join(filter(None, found))
    return "" if expected == actual else f"{where}: {_shown(actual)}, not {_shown(expected)}"


def _list_differs(expected: Sequence[Any], actual: Any, where: str) -> str:
    if not isinstance(actual, (list, tuple)) or len(expected) != len(actual):
        return f"{where}: {_shown(actual)}, not {_shown(expected)}"
    left = list(actual)
    for one in expected:
        match = next((other for other in left if not differs(one, other)), _NONE)
        if match is _NONE:
            reason = (
                differs(one, left[0], where) if len(left) == 1 else f"{where}: {_shown(one)} is not in {_shown(left)}"
            )
            return reason
        left.remove(match)
    return ""


_NONE = object()


def _text_differs(expected: Row, actual: Any, where: str) -> str:
    text = actual if isinstance(actual, str) else json.dumps(actual, ensure_ascii=False)
    for word, wanted in (("must", True), ("must_not", False)):
        patterns = expected.get(word, [])
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            if bool(re.search(pattern, text, re.IGNORECASE)) != wanted:
                return f"{where}: {_shown(text)} {word.replace('_', ' ')} match {pattern}"
    return ""


def _words_differ(expected: Optional[Row], said: str, codes: Sequence[str]) -> str:
    """As differs(): what has to be said stands in the words for people, and what may not stands not in the codes either."""
    if expected is None:
        return ""
    wanted, forbidden = ({word: expected.get(word, [])} for word in ("must", "must_not"))
    return differs(wanted, said, "text") or differs(forbidden, f"{said} {' '.join(codes)}", "text")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 400 else f"{text[:400]}..."


def _first(reasons: Iterator[str]) -> str:
    """All reasons, or none; a row with any_of has several alternatives."""
    return "; ".join(filter(None, reasons))


# Headers


def headers(row: Row, place: Path) -> str:
    """Why message_trace does not say of these Received headers what the row does."""
    text = (CASES / row["file"]).read_text()
    if "path" in row:
        header = "".join(f"{block.strip()}\n" for block in re.split(r"(?m)^#.*\n|\n\n", text) if block.strip())
    else:
        blocks = re.split(r"(?m)^# ", text)
        (block,) = [one for one in blocks if re.match(rf"{re.escape(row['header'])}\b", one)]
        header = block.partition("\n")[2].strip() + "\n"
    mailbox = place / "mailbox"
    mailbox.write_text(f"From x\n{header}{MARKER_HEADER}: case\n\nbody\n\n")
    item = {"marker": "case", "mailbox": str(mailbox)}
    result = run_module(message_trace.main, receive=[item], timeout=0)
    if result.get("failed"):
        return str(result["msg"])
    (received,) = result["received"]
    hops = [_hop(one) for one in received["hops"]]
    wanted = row["path"] if "path" in row else [row["hop"]]
    if len(hops) != len(wanted):
        return f"{len(hops)} hops, not {len(wanted)}"
    reasons = (differs(one, hop, "hop") for one, hop in zip(wanted, hops))
    return _first(itertools.chain(reasons, [differs(row["verdict"], received["verdict"], "verdict")]))


def _hop(hop: Row) -> dict[str, Any]:
    tls = hop["tls"] if hop["clear"] else None
    word = {True: "yes", False: "no", None: "unproven"}.get(tls, tls)
    return {"network": hop["network"], "tls": word, "version": hop["tls_version"], "cipher": hop["cipher"]}


# Logs


def logs(row: Row, place: Path, patch: Any) -> str:
    """Why tls_activity_info does not count this log as the row does."""
    log = place / "mail.log"
    log.write_bytes(
        "".join(f"{one}\n" for one in row["lines"]).encode() if "lines" in row else (CASES / row["file"]).read_bytes()
    )
    written = dt.datetime(2026, 12, 31, tzinfo=dt.timezone.utc).timestamp()
    os.utime(log, (written, written))
    patch.setattr(tls_activity_info, "runner", lambda _module: _log_host(row.get("host", {})))
    result = run_module(
        tls_activity_info.main, daemon=row.get("daemon", "postfix"), logs=[str(log)], since="2026-01-01", until="2027-01-01"
    )  # fmt: skip
    if result.get("failed"):
        return str(result["msg"])
    activity = result["activity"]
    alternatives = [{**row, **one} for one in row["any_of"]] if "any_of" in row else [row]
    reasons = [_activity_differs(one, activity, place) for one in alternatives]
    return "" if "" in reasons else " / or: ".join(reasons)


def _log_host(host: Any) -> Any:
    """The commands of the host on which a log is read. host: a word for one without the daemon, else settings of its own."""
    values = {"smtp_tls_loglevel": "1", "smtpd_tls_loglevel": "1", **({} if isinstance(host, str) else host)}

    def run(words: Sequence[str]) -> tuple[int, str, str]:
        if isinstance(host, str):
            raise FileNotFoundError(2, "No such file or directory", words[0])
        if words[0] == "postconf" and "-P" not in words:
            return 0, "".join(f"{name} = {value}\n" for name, value in values.items() if name in words), ""
        return 0, "", ""

    return run


def _activity_differs(row: Row, activity: Row, place: Path) -> str:
    reasons = []
    if "totals" in row:
        for direction in ("inbound", "outbound"):
            counts, expected = activity["totals"][direction], row["totals"].get(direction, {})
            reasons.append(_counts_differ(expected, counts, direction, _Sides(activity, direction, None, place)))
    peers = {f"{one['direction']} {one['domain']}": one for one in activity["peers"]}
    for peer, expected in row.get("peers", {}).items():
        direction, _, domain = peer.partition(" ")
        reasons.append(_counts_differ(expected, peers.get(peer, {}), peer, _Sides(activity, direction, domain, place)))
    if "skipped_lines" in row:
        reasons.append(differs(row["skipped_lines"], activity["skipped_lines"], "skipped_lines"))
    if "notes" in row:
        reasons.append(differs(row["notes"], activity["notes"], "notes"))
    return "; ".join(filter(None, reasons))


class _Sides:
    """Whose fault an event is, as it says itself or as the alerts of the report say it."""

    def __init__(self, activity: Row, direction: str, domain: Optional[str], place: Path) -> None:
        self._activity, self._direction, self._domain, self._place = activity, direction, domain, place

    def told(self, event: Row) -> Optional[str]:
        if said := event.get("side") or event.get("cause"):
            return str(said)
        if event.get("reason") in LOCAL_BY_MEANING:
            return "local"
        result = run_action(report_action, rows=[{"host": "mx1", "activity": self._activity}])
        for one in result["alerts"]:
            here = one["direction"] == self._direction and self._domain in (None, one["domain"])
            if here and event.get("detail") and event["detail"][:100] in one["message"]:
                return str(one["cause"])
        return None


def _counts_differ(expected: Row, counts: Row, where: str, sides: _Sides) -> str:
    open_names = expected.get("open", ())
    reasons = [
        differs(expected.get(name, 0), counts.get(name, 0), f"{where} {name}")
        for name in NUMBERS
        if name not in open_names
    ]
    if "versions" not in open_names:
        reasons.append(differs(expected.get("versions"), counts.get("versions"), f"{where} versions"))
    if expected.get("versions"):
        more = set(counts.get("versions", ())) - set(expected["versions"])
        reasons.append(f"{where} versions: {sorted(more)} too" if more else "")
    for kind in EVENTS:
        if kind not in open_names:
            reasons.append(_events_differ(expected.get(kind, []), counts.get(kind, []), f"{where} {kind}", sides))
    return "; ".join(filter(None, reasons))


def _events_differ(expected: Any, events: Sequence[Row], where: str, sides: _Sides) -> str:
    assert isinstance(expected, list), "includes, excludes and total are in no row"
    if len(expected) != len(events):
        return f"{where}: {[one['reason'] for one in events]}, not {_shown(expected)}"
    reasons = [
        [_event_differs(one, event, where, sides) for one, event in zip(expected, order)]
        for order in itertools.permutations(events)
    ]
    return "" if any(not any(one) for one in reasons) else "; ".join(filter(None, reasons[0]))


def _event_differs(expected: Row, event: Row, where: str, sides: _Sides) -> str:
    reason = differs(
        {"reason": expected["reason"], "count": expected.get("count", 1)},
        {"reason": event["reason"], "count": event["count"]}, where,
    )  # fmt: skip
    if reason or not {"side", "side_if_told"} & set(expected):
        return reason
    told = sides.told(event)
    if "side" in expected:
        return differs(expected["side"], told, f"{where} side")
    return differs({"any_of": [expected["side_if_told"], None]}, told, f"{where} side")


# Reports of others


def tlsrpt(row: Row, place: Path) -> str:
    """Why tls_report does not have from this report what the row has."""
    path = CASES / row["file"]
    document = place / "report.json"
    domains = ["example.com", "mx.example.com", "xn--bcher-kva.example"]
    result = run_action(
        report_action, rows=[{"host": "mx1", "activity": {}}], tls_reports=[str(path)], domains=domains,
        outputs=[{"format": "json", "path": str(document)}],
    )  # fmt: skip
    if result.get("failed"):
        return str(result["msg"])
    policies = [
        {**one, "failures": _summed(one["failures"])} for one in json.loads(document.read_text())["tls_reports"]
    ]
    warnings = [one for one in result.get("warnings", ()) if path.name in one]
    alternatives = row.get("any_of", [row])
    reasons = [_report_differs(one, policies, warnings) for one in alternatives]
    return "" if "" in reasons else f"{' / or: '.join(reasons)} (it says: {' '.join(warnings) or 'nothing'})"


def _summed(failures: Sequence[Row]) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    for one in failures:
        counts[one["result_type"]] += one["count"]
    return [{"result_type": kind, "count": count} for kind, count in counts.items()]


def _report_differs(expected: Row, policies: Sequence[Row], warnings: Sequence[str]) -> str:
    reason = differs(expected["policies"], policies, "policies")
    if "named" in expected and expected["named"] != bool(warnings):
        reason += f" it is {'named' if warnings else 'not named'}"
    return reason


# Certificates


class Material:
    """The certificates of rows: those of the files, and those that are made for a row."""

    def __init__(self, authority: Authority, place: Path) -> None:
        self.authority, self.place = authority, place

    def issued(self, row: Row, name: str = NAME) -> Issued:
        """A certificate of so many days that is so many days old; one of 90 days if the row does not tell."""
        made = row.get("make", {"life": 90, "age": 1})
        begin = now() - dt.timedelta(days=made["age"])
        return self.authority.issue([name], not_before=begin, not_after=begin + dt.timedelta(days=made["life"]))

    def options(self, row: Row) -> dict[str, str]:
        """The options of tls_certificate for the key, the certificate and the authority of a row."""
        if "files" in row:
            files = {name: str(CASES / path) for name, path in row["files"].items()}
            return {
                "private_key_file": files["key"], "certificate_file": files["certificate"], "ca_file": files["ca"],
            }  # fmt: skip
        issued = self.issued(row, row.get("name", NAME))
        return {
            "private_key_content": issued.key_pem.decode(), "certificate_content": issued.fullchain_pem.decode(),
            "ca_content": self.authority.root_pem.decode(),
        }  # fmt: skip


def certificates(row: Row, material: Material) -> str:
    """Why tls_certificate does not say of this certificate what the row does."""
    result = run_action(
        certificate_action, tls_certificate.main, check_mode=True, path=str(material.place / "starttls.pem"),
        names=[row["name"]], owner=str(os.getuid()), group=str(os.getgid()), mode="0600", **material.options(row),
    )  # fmt: skip
    findings = [{"severity": "error", **one} for one in result.get("findings", ())]
    warnings = result.get("warnings", [])
    said = " ".join([*(one["message"] for one in findings), *warnings, result.get("msg", "")])
    if bool(result.get("failed")) != row["refused"]:
        return f"{'refused' if result.get('failed') else 'not refused'}: {_shown(said)}"
    reasons = []
    if "warnings" in row and bool(warnings) != row["warnings"]:
        reasons.append(f"warnings: {warnings}")
    for expected in row.get("findings", ()):
        found = any(not differs(expected, one) for one in findings)
        reasons.append("" if found else f"findings: {_shown(said)}, not {_shown(expected)}")
    reasons.append(_words_differ(row.get("text"), said, [one["code"] for one in findings]))
    return "; ".join(filter(None, reasons))


# Servers


def servers(row: Row, material: Material, patch: Any) -> str:
    """Why starttls_probe does not say of this server what the row does."""
    script, timeout = row.get("script", {}), row.get("timeout", 10)
    if "greet_after" in script:  # half as long: a test does not wait for four seconds
        timeout, script = 1, {**script, "greet_after": 2}
    patch.setattr(probe_engine, "PAUSE", 0.0)
    if script.get("full_name"):
        patch.setattr("socket.gethostname", lambda: "checkhost")
        patch.setattr("socket.getfqdn", lambda name="": name or "checkhost")
    ca = (CASES / row["files"]["ca"]).read_text() if "files" in row else material.authority.root_pem.decode()
    with serving(_face(row, script, material)) as server:
        target = {"host": server.host, "port": server.port, "name": row.get("name", NAME)}
        result = run_action(
            probe_action, starttls_probe.main, targets=[target], ca_content=ca, timeout=timeout, total_timeout=3 * timeout
        )  # fmt: skip
    if result.get("failed"):
        return str(result["msg"])
    (seen,) = result["results"]
    expected, codes = row["probe"], [one["code"] for one in seen["findings"]]
    reasons = [differs(expected["completed"], seen["completed"], "completed") if "completed" in expected else ""]
    for one in expected.get("findings", ()):
        found = any(not differs(one, code) for code in codes)
        reasons.append("" if found else f"findings: {codes} without {_shown(one)}")
    for pattern in expected.get("without", ()):
        reasons += [f"findings: {code}" for code in codes if fnmatch(code, pattern)]
    said = " ".join([seen["message"], *(one["message"] for one in seen["findings"])])
    reasons.append(_words_differ(expected.get("text"), said, codes))
    found = "; ".join(filter(None, reasons))
    return f"{found} (it says: {_shown(said)})" if found else ""


def _face(row: Row, script: Row, material: Material) -> Face:
    face = Face(context=_context(row, script, material))
    more: dict[str, Any] = {}
    if "greeting" in script:
        more["greeting"] = script["greeting"].encode()
    if "greet_after" in script:
        more["delay"] = script["greet_after"]
    capabilities = reply(250, NAME, *face.capabilities)
    if "after_ehlo" in script:
        more["ehlo"] = capabilities + script["after_ehlo"].encode()
    if script.get("full_name"):
        inside = reply(250, NAME, *face.capabilities_tls)
        more |= {"ehlo": _to_full_names(capabilities), "ehlo_tls": _to_full_names(inside)}
    return Face(context=face.context, **more)


def _to_full_names(answer: bytes) -> Any:
    refused = b"504 5.5.2 Helo command rejected: need fully-qualified hostname\r\n"
    return lambda command: answer if b"." in command or b"[" in command else refused


def _context(row: Row, script: Row, material: Material) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    bundle = material.place / "served.pem"
    if "files" in row:
        bundle.write_bytes(b"".join((CASES / row["files"][one]).read_bytes() for one in ("key", "certificate")))
    else:
        issued = material.issued(row)
        bundle.write_bytes(issued.key_pem + pem(issued.certificate, *issued.chain))
    context.load_cert_chain(bundle)
    if script.get("sni"):
        own = NAME
        context.sni_callback = lambda _socket, name, _context: (
            None if name == own else ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        )
    if "version" in script:
        context.maximum_version = getattr(ssl.TLSVersion, script["version"].replace(".", "_"))
    return context
