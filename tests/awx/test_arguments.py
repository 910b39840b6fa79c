"""Every object fits the argument spec of the module of awx.awx that makes it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from tests.support import awx

Check = Callable[[str, Any], list[str]]
RULES = ("mutually_exclusive", "required_together", "required_one_of", "required_if", "required_by")


class Seen(Exception):
    """What a module hands to ControllerAPIModule."""


@pytest.fixture(scope="module")
def check(awx_collections: Path) -> Any:
    """What the module of this name says of options: its errors. It is stopped before it asks any server."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.syspath_prepend(str(awx_collections))

    def stop(**given: Any) -> None:
        raise Seen(given)

    def errors(module: str, options: dict[str, Any]) -> list[str]:
        loaded = importlib.import_module(f"ansible_collections.awx.awx.plugins.modules.{module}")
        monkeypatch.setattr(loaded, "ControllerAPIModule", stop)
        with pytest.raises(Seen) as seen:
            loaded.main()
        given = seen.value.args[0]
        rules = {name: given[name] for name in RULES if name in given}
        return list(ArgumentSpecValidator(given["argument_spec"], **rules).validate(options).error_messages)

    yield errors
    monkeypatch.undo()


@pytest.mark.parametrize("variable", awx.MODULES)
def test_objects(check: Check, variable: str) -> None:
    found = awx.objects()[variable]
    assert found
    for one in found:
        options = {name: value for name, value in one.items() if name != "simplified_workflow_nodes"}
        if variable == "controller_projects":  # load.yml leaves an empty credential out
            options = {name: value for name, value in options.items() if value != ""}
        assert check(awx.MODULES[variable], options) == [], one["name"]


def test_nodes(check: Check) -> None:
    for one in awx.nodes():
        assert check("workflow_job_template_node", {**one, "workflow_job_template": "any"}) == [], one["identifier"]


@pytest.mark.parametrize(
    ("module", "options", "said"),
    [
        ("job_template", {"name": "x", "slices": 2}, "slices"),
        ("job_template", {"name": "x", "job_type": "scan"}, "job_type"),
        ("label", {"name": "x"}, "organization"),
        ("schedule", {"name": "x", "verbosity": 9}, "verbosity"),
        ("workflow_job_template_node", {"identifier": "x", "workflow_job_template": "any", "unified_job_template": "a",
          "approval_node": {}},
         "mutually exclusive"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_found(check: Check, module: str, options: dict[str, Any], said: str) -> None:
    assert said in " ".join(check(module, options))
