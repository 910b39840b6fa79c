"""The catalogue of findings, and that nothing is reported that is not in it."""

import ast
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils import findings
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import (
    CATALOGUE,
    GROUPS,
    SEVERITIES,
    Finding,
    UnknownFindingError,
    entry_of,
    failing,
    of_group,
    of_result,
    severity_of,
)

from tests.support import rooms

PLUGINS = rooms.TOP / "plugins"
SOURCES = [path for path in sorted(PLUGINS.rglob("*.py")) if path.name != "findings.py"]


def texts(path: Path) -> set[str]:
    """All string literals of a source file."""
    tree = ast.parse(path.read_text())
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def codes_of(source: str, *names: str) -> set[str]:
    """The codes with which a source calls one of these functions or methods: literals as the first argument."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and node.args)
    return {code for call in calls if called(call.func) in names for code in literals(call.args[0])}


def called(function: ast.expr) -> str:
    """The last part of the name of what is called."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def literals(argument: ast.expr) -> set[str]:
    """The texts that an argument can be: itself, the branches of a condition, the operands of C(or)."""
    if isinstance(argument, ast.Constant):
        return {argument.value} if isinstance(argument.value, str) else set()
    if isinstance(argument, ast.IfExp):
        return literals(argument.body) | literals(argument.orelse)
    return set().union(*map(literals, argument.values)) if isinstance(argument, ast.BoolOp) else set()


def test_every_entry_is_complete():
    entries = [entry for group in GROUPS for entry in of_group(group)]
    assert [entry.code for entry in entries] == list(CATALOGUE)
    assert len(findings._ENTRIES) == len(CATALOGUE)
    for entry in entries:
        assert entry.severity in SEVERITIES, entry.code
        assert entry.description.endswith(".") and entry.description[0].isupper(), entry.code
        assert entry.advice and not entry.advice.endswith("."), entry.code
        assert entry.link == f"docs/findings.md#{entry.code}"
        assert bool(entry.title) == (entry.group == "alert"), entry.code


def test_each_link_leads_somewhere():
    shown = (rooms.TOP / findings.PAGE).read_text()
    assert all(f'<a id="{code}"></a>' in shown for code in CATALOGUE)


def test_the_engine_on_the_host_ends_tests_with_codes_of_the_catalogue():
    engine = PLUGINS / "module_utils/_smtp"
    codes = {code for path in engine.glob("*.py") for code in codes_of(path.read_text(), "DialogueError")}
    assert len(codes) > 10 and codes <= set(CATALOGUE)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_the_controller_reports_codes_of_the_catalogue(path):
    assert codes_of(path.read_text(), "Finding", "advised", "find", "_alert") <= set(CATALOGUE)


def test_no_entry_is_left_over():
    written = {text for path in SOURCES for text in texts(path)}
    made = written | {f"{check}_{status}" for check in ("dane", "mta_sts") for status in written}
    # The catalogue itself gives this one, to findings that others hand in.
    assert set(CATALOGUE) - made == {"unknown_finding"}


def test_codes_are_found_in_every_form():
    assert codes_of('f(a or "x"); g.f("y" if b else "z", 1); h("no"); f(c)', "f") == {"x", "y", "z"}


@pytest.mark.parametrize("code", ["new", "", "x" * 200])
def test_an_unknown_code_is_refused(code):
    with pytest.raises(UnknownFindingError, match="not in the catalogue"):
        entry_of(code)
    with pytest.raises(EngineError):
        Finding(code, "something is wrong")
    with pytest.raises(EngineError):
        Finding.advised(code, "something is wrong")
    with pytest.raises(EngineError):
        severity_of({"code": code})
    with pytest.raises(EngineError):
        severity_of({"message": "without a code"})


def test_a_finding():
    found = Finding.advised("no_tls13", "it does not offer TLS 1.3")
    assert found.as_dict() == {
        "code": "no_tls13",
        "severity": "notice",
        "message": f"it does not offer TLS 1.3; {entry_of('no_tls13').advice}",
    }
    assert Finding.advised("no_tls13", "it is old", "update it").message == "it is old; update it"


def test_the_severity_is_the_findings_own_or_that_of_the_catalogue():
    assert severity_of({"code": "no_tls13"}) == "notice"
    assert severity_of({"code": "no_tls13", "severity": "error"}) == "error"
    assert severity_of({"code": "of another version", "severity": "warning"}) == "warning"


def test_a_finding_of_a_result():
    good = {"code": "no_tls13", "message": "update it"}
    assert of_result(good) == of_result(of_result(good)) == {**good, "severity": "notice"}
    assert of_result({"code": "new", "severity": "warning"}) == {"code": "new", "severity": "warning", "message": ""}
    assert of_result({"severity": "warning"})["code"] == "unknown_finding"
    unknown = of_result({"code": "new", "message": "it is new"})
    assert (unknown["code"], unknown["severity"]) == ("unknown_finding", "error")
    assert "the code 'new'" in unknown["message"] and of_result(unknown) == unknown


def test_failing():
    found = [{"code": "expired"}, {"code": "expires_soon"}, {"code": "no_tls13", "severity": "notice"}]
    assert [len(failing(found, one)) for one in SEVERITIES] == [1, 2, 3]
    with pytest.raises(EngineError, match="fail_on 'never' has to be one of"):
        failing(found, "never")
