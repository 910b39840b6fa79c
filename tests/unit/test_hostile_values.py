"""Every option and variable, with values that mean something to a daemon, a shell, a template or a terminal.

The table is made of the specifications: an option that is new is in it, and needs a case (tests/support/hostile_cases.py).
A value is refused by the option's name, or it goes where it means nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from tests.support import hostile
from tests.support.hostile_cases import CASES, Answer, Case

SAMPLE = ("exim run, behind", "main.cf", "nul")
"""What make test tries of the hostile values; make test-faults tries them all."""

ALSO_NAMED = {
    "marker": "the marker",
    "fingerprint_sha256": "fingerprint",
    "names": "name",
    "private_key_content": "private_key",
    "certificate_content": "certificate",
    "chain_content": "chain",
    "ca_content": "ca_",
    "json_file": "starttls_plan_file",
    "tls_reports": "TLS reports",
    "path": "there is no directory for",
}
"""Option -> what a message about it says in place of its name."""

RESULTS = {
    "exchange_tls proof",
    "tls_outcome plan", "tls_outcome results", "tls_outcome tests", "tls_plan estate", "tls_report rows", "tls_verdict rows",
}  # fmt: skip
"""Options that no user writes: a task of the collection hands a result of another one on."""


def named(option: hostile.Option, value: str, said: str) -> bool:
    """Whether a refusal names the option, or the file that it names."""
    if option.spec.get("type") == "path" and value[:40] in said:
        return True
    return option.path[-1] in said or ALSO_NAMED.get(option.path[-1], option.path[-1]) in said


# Where a value may stand as it is, and the form that it has to have there. Nothing else of a line is the user's.
_PATH = r"/[A-Za-z0-9_./+@-]*"
_JSON_NAME = r'"name": "[A-Za-z0-9][A-Za-z0-9 _.@-]{0,62}",?'
HARMLESS = {
    "file": re.compile(
        rf"{_JSON_NAME}|MAIN_TLS_CERTKEY = {_PATH}|smtpd_tls_chain_files = {_PATH}"
        rf'|(-o )?smtp_tls_CAfile ?= ?{_PATH}|tls_verify_certificates = {_PATH}|"ca_file": "{_PATH}",?'
    ),
    "path": re.compile(r"[^\0-\x1f\x7f]*"),  # opened, not interpreted
    "argument": re.compile(r"[^\0]*"),  # of a program that is started without a shell
    "header": re.compile(r"[\x20-\x7e]*"),
    "name": re.compile(r"[A-Za-z0-9_.-]*"),
    "url": re.compile(r"https?://[A-Za-z0-9._:-]+/[A-Za-z0-9_./-]*"),
    "body": re.compile(r"[A-Za-z0-9_.*+%=&-]*"),  # a form
    "terminal": re.compile(r"[^\0-\x1f\x7f-\x9f]*"),
    "csv": re.compile(r"(?s)(?!.*(^|,|\")[=+@-]HYPERLINK).*"),
    "prometheus": re.compile(r"(?s).*"),
    "html": re.compile(r"(?s)(?!.*<script>alert).*"),
    "junit": re.compile(r"(?s)(?!.*<script>alert).*"),
}


def harmless(form: str, text: str) -> bool:
    """Whether a value does nothing where it went."""
    if form == "json":
        return json.loads(text) is not None
    return bool(HARMLESS[form].fullmatch(text.strip() if form == "file" else text))


def value_at(arguments: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The good value of an option; None if the arguments do not hold it or what it is in."""
    value: Any = arguments
    for name in path:
        value = value[0] if isinstance(value, list) and value else value
        value = value.get(name) if isinstance(value, Mapping) else None
    return value[0] if isinstance(value, list) and value else value


def options_of(case: Case) -> Iterator[tuple[hostile.Option, str]]:
    """The text options that a case can try, with their good value."""
    for option in hostile.options({case.module: hostile.module_specs()[case.module]}):
        within = option.path[:-1]
        if option.is_text and (not within or value_at(case.arguments, within) is not None):
            good = value_at(case.arguments, option.path)
            yield option, good if isinstance(good, str) else ""


def wrong(case: Case, option: hostile.Option, what: str, value: str, answer: Answer) -> str:
    """What is wrong with what became of a value; empty if nothing is."""
    if answer.said:
        return (
            ""
            if named(option, value, answer.said)
            else f"{option.name}, {what}: refused, but not by name: {answer.said[:200]}"
        )
    bad = [f"{form}: {text[:200]!r}" for form, text in answer.sinks if not harmless(form, text)]
    return f"{option.name}, {what}: {value[:80]!r} went through: {bad}" if bad else ""


def faults(case: Case, root: Path, sample: tuple[str, ...] = ()) -> list[str]:
    """What is wrong with the options of a case. sample: the hostile values to try; all if empty."""
    found = []
    with case.open(root) as judge:
        usual = judge(case.arguments)
        assert not usual.said, f"the good arguments of {case.module} are refused: {usual.said}"
        for option, good in options_of(case):
            for what, value in hostile.variants(good):
                if sample and what not in sample:
                    continue
                arguments = hostile.put(case.arguments, option, value)
                found.append(wrong(case, option, what, value, judge(arguments)))
    return [one for one in found if one]


def identity(case: Case) -> str:
    return f"{case.module} {case.kind} {' '.join(case.arguments)}"[:70]


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_a_sample_of_values(case: Case, tmp_path: Path):
    assert faults(case, tmp_path / "host", SAMPLE) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", CASES, ids=identity)
def test_every_value(case: Case, tmp_path: Path):
    assert faults(case, tmp_path / "host") == []


def test_every_option_of_a_module_has_a_case():
    tried = {(option.owner, option.name) for case in CASES for option, _good in options_of(case)}
    every = {(one.owner, one.name) for one in hostile.options(hostile.module_specs()) if one.is_text}
    assert every - tried == set()
    left = [
        one
        for one in hostile.options(hostile.module_specs())
        if one.spec.get("type") == "dict" or one.spec.get("elements") == "dict"
    ]
    assert {f"{one.owner} {one.name}" for one in left if not one.spec.get("options")} - RESULTS == {
        "exchange_tls digests",
        "gateway_tls digests",
        "mail_server_tls digests",
        "peer_tls digests",
    }  # fmt: skip  (compared only)


SPECS = {**hostile.module_specs(), **hostile.role_specs()}
FREE = ("str", "path", "raw", "dict")
"""Types that let a text through, unless there are choices."""


@pytest.mark.parametrize("owner", SPECS)
def test_an_option_that_is_no_text_takes_no_text(owner: str):
    for option in hostile.options({owner: SPECS[owner]}):
        kind = option.spec.get("elements") if option.spec.get("type") == "list" else option.spec.get("type", "str")
        if kind in FREE and not option.spec.get("choices"):
            continue
        name = option.path[-1]
        spec = {name: {key: one for key, one in option.spec.items() if key in ("type", "elements", "choices")}}
        for value in hostile.VALUES.values():
            checked = ArgumentSpecValidator(spec).validate({name: value})
            held = checked.validated_parameters[name]
            whole = all(isinstance(one, (bool, int)) for one in (held if isinstance(held, list) else [held]))
            assert name in " ".join(checked.error_messages) or whole, (option.name, value)
