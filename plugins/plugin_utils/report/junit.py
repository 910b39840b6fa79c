# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as JUnit XML for CI systems: a suite for each host, a case for each test.

The output is valid in the strict form of the format (that of Ant): each suite has all its attributes, begins with
C(properties), and ends with C(system-out) and C(system-err).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import failing
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.places import looked
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.document import peer_name, test_name
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import SEEN_FROM, unproven_hops

CLASS = "mailfleet.starttls"
_NOT_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


class TestCase(NamedTuple):
    """One test. It fails if a finding is severe enough. seconds is its duration. skipped: why it could not be made."""

    name: str
    findings: Sequence[Mapping[str, Any]]
    seconds: float = 0.0
    skipped: str = ""


def render_junit(document: Mapping[str, Any]) -> str:
    """Return the document as JUnit XML."""
    suites = [(host["host"], _test_cases(host)) for host in document["hosts"]]
    alerts = [
        TestCase(
            " ".join(filter(None, (one["code"], one["host"], one["domain"], one["direction"]))),
            [{**one, "message": f"{one['message']} {one['action']}"}],
        )
        for one in document["alerts"]
    ]
    if alerts:
        suites.append(("alerts", alerts))
    root = ET.Element("testsuites")
    for number, (name, cases) in enumerate(suites):
        root.append(_suite(number, name, cases, document))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _test_cases(host: Mapping[str, Any]) -> list[TestCase]:
    cases = []
    for test in host["tests"]:
        own = {one["message"] for one in test["findings"]}
        # Use the findings of the host. Those of the test differ if STARTTLS is expected to be off.
        findings = [one for one in host["findings"] if one["message"].partition(SEEN_FROM)[0] in own]
        seconds = test.get("seconds")
        duration = seconds if isinstance(seconds, (int, float)) else 0.0
        why = "" if looked(test) else findings[0]["message"] if findings else "it could not look"
        cases.append(TestCase(f"handshake {test_name(test)}", findings, duration, why))
    for hop in host["peers"]:
        own = {one["message"] for one in hop["findings"]}
        findings = [one for one in host["findings"] if one["message"] in own]
        why = "" if hop["result"] in ("proved", "failed") else hop["reason"] or hop["result"]
        cases.append(TestCase(f"peer {peer_name(hop)}", findings, 0.0, "" if failing(findings, "error") else why))
    for trace in host["traces"]:
        told = [one["message"] if isinstance(one, dict) else one for one in trace.get("findings") or ()]
        told += [one.message for one in unproven_hops(trace)]
        findings = [one for one in host["findings"] if one["message"] in told]
        # Each run has markers of its own, and a CI tells a test by its name. So a name has nothing of the run.
        cases.append(TestCase(f"message {trace.get('direction') or ''}".strip(), findings))
    shown = {id(one) for case in cases for one in case.findings}
    rest = [one for one in host["findings"] if id(one) not in shown]
    return [*cases, TestCase("host", rest)]


def _suite(number: int, name: str, cases: Sequence[TestCase], document: Mapping[str, Any]) -> ET.Element:
    failures = sum(not case.skipped and bool(failing(case.findings, document["fail_on"])) for case in cases)
    suite = ET.Element(
        "testsuite",
        {
            "id": str(number),
            "package": CLASS,
            "name": _text(name),
            "hostname": _text(name),
            "timestamp": document["generated_at"].rstrip("Z"),
            "tests": str(len(cases)),
            "failures": str(failures),
            "errors": "0",
            "time": f"{sum(case.seconds for case in cases):.3f}",
        },
    )
    ET.SubElement(suite, "properties")
    for case_name, case in zip(_unique(case.name for case in cases), cases):
        element = ET.SubElement(
            suite,
            "testcase",
            {"classname": f"{CLASS}.{_text(name)}", "name": _text(case_name), "time": f"{case.seconds:.3f}"},
        )
        severe = failing(case.findings, document["fail_on"])
        if case.skipped:
            ET.SubElement(element, "skipped", {"message": _text(case.skipped)})
        elif severe:
            failure = ET.SubElement(
                element, "failure", {"type": _text(severe[0]["code"]), "message": _text(severe[0]["message"])}
            )
            failure.text = "\n".join(_text(f"{one['severity']}: {one['message']}") for one in case.findings)
    minor = [
        f"{case.name}: {one['severity']}: {one['message']}"
        for case in cases
        for one in case.findings
        if not failing([one], document["fail_on"])
    ]
    ET.SubElement(suite, "system-out").text = _text("\n".join(minor))
    ET.SubElement(suite, "system-err").text = ""
    return suite


def _unique(names: Iterable[str]) -> list[str]:
    """Return the names. A repeated name gets a number, because readers identify cases by their names."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique


def _text(text: str) -> str:
    """Return the text with C(?) for every character that XML 1.0 does not allow."""
    return _NOT_XML.sub("?", text)
