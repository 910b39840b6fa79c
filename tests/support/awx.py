"""What awx/*.yml holds, as data: the objects for AWX with the values of awx/site.yml, and AWX's own rules for surveys and answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).resolve().parents[2]
FILES = ("base", "templates", "workflow", "schedules")

MODULES = {
    "controller_labels": "label",
    "controller_credential_types": "credential_type",
    "controller_execution_environments": "execution_environment",
    "controller_notifications": "notification_template",
    "controller_projects": "project",
    "controller_inventories": "inventory",
    "controller_inventory_sources": "inventory_source",
    "controller_templates": "job_template",
    "controller_workflows": "workflow_job_template",
    "controller_schedules": "schedule",
}
"""The variable that holds a list of objects -> the module of awx.awx that makes them."""

QUESTIONS = {"text": str, "textarea": str, "multiplechoice": str, "multiselect": str, "integer": int, "float": float}
"""The types of AWX's questions -> the type of a default. Without passwords: a secret belongs into a credential."""


class Unsafe(str):
    """Text that Ansible does not template (!unsafe)."""


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_constructor("!unsafe", lambda loader, node: Unsafe(loader.construct_scalar(node)))


def read(name: str) -> dict[str, Any]:
    """Return a file of awx/ as it is."""
    return dict(yaml.load((TOP / f"awx/{name}.yml").read_text(), Loader=_Loader))


def objects() -> dict[str, list[dict[str, Any]]]:
    """Return the objects, each variable with its list, as Ansible would hand them to the modules."""
    site = read("site")
    held = {name: value for file in FILES for name, value in read(file).items()}
    return {name: _filled(value, site) for name, value in held.items() if name.startswith("controller_")}


def _filled(value: Any, site: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(one, site) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, site) for one in value]
    if isinstance(value, str) and not isinstance(value, Unsafe) and "{{" in value:
        name = re.fullmatch(r"\{\{ (\w+) \}\}", value)
        if name is None:
            raise ValueError(f"{value!r} is more than one value of site.yml")
        return site[name[1]]
    return value


def templates() -> dict[str, dict[str, Any]]:
    """Return the job templates by name."""
    return {one["name"]: one for one in objects()["controller_templates"]}


def by_playbook() -> dict[str, dict[str, Any]]:
    """Return the job templates by the stem of their playbook."""
    return {Path(one["playbook"]).stem: one for one in templates().values()}


def questions(template: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the questions of a template's survey, by variable."""
    return {one["variable"]: one for one in template["survey_spec"]["spec"]}


def nodes() -> list[dict[str, Any]]:
    """Return the nodes of the workflow, in the order of the file."""
    return list(objects()["controller_workflows"][0]["simplified_workflow_nodes"])


def defaults(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return what AWX adds to a job whose survey nobody answers: the defaults that are themselves valid answers.

    That of a multiselect never is: it is text, and an answer is a list.
    """
    found = {name: one["default"] for name, one in questions(template).items() if "default" in one}
    return {name: value for name, value in found.items() if not refusal(questions(template)[name], value)}


def extra_variables(template: Mapping[str, Any], answers: Mapping[str, Any] = {}) -> dict[str, Any]:
    """Return the extra variables of a job of this template. answers: those of a person, or extra_data of a node or schedule."""
    return {**template.get("extra_vars", {}), **defaults(template), **answers}


def refusal(question: Mapping[str, Any], answer: Any) -> str:
    """Return why AWX refuses an answer, by the rules of its API; empty if it takes it."""
    kind, low, high = question["type"], question.get("min"), question.get("max")
    if kind in ("text", "textarea"):
        if not isinstance(answer, str):
            return "no text"
        size = len(answer)
    elif kind == "integer":
        if type(answer) is not int:
            return "no integer"
        size = answer
    elif kind == "multiselect":
        if not isinstance(answer, list):
            return "no list"
        return "" if set(answer) <= set(question["choices"]) else "no choice"
    else:
        return "" if answer in question["choices"] else "no choice"
    return "too small" if low is not None and size < low else "too large" if high is not None and size > high else ""


def faults_of_survey(survey: Mapping[str, Any]) -> Iterator[str]:
    """Yield why AWX refuses a survey, or a part of it would not do what it looks like."""
    if {"name", "description", "spec"} != set(survey) or not survey["spec"]:
        yield f"a survey has name, description and spec, not {sorted(survey)}"
    names = [one["variable"] for one in survey["spec"]]
    yield from (f"{name} is asked twice" for name in {one for one in names if names.count(one) > 1})
    for one in survey["spec"]:
        missing = {"type", "question_name", "variable", "required"} - set(one)
        if missing or one["type"] not in QUESTIONS:
            yield f"{one}: {sorted(missing)} missing, or an unknown type"
            continue
        where = f"{one['variable']} ({one['type']})"
        if not isinstance(one["required"], bool):
            yield f"{where}: required is no boolean"
        if ("choices" in one) != one["type"].startswith("multi"):
            yield f"{where}: choices belong to a choice, and only there"
        if any(not isinstance(choice, str) for choice in one.get("choices", ())):
            yield f"{where}: a choice is no text"
        default = one.get("default", "")
        if default != "" and type(default) is not QUESTIONS[one["type"]]:
            yield f"{where}: the default is no {QUESTIONS[one['type']].__name__}"
        if default != "" and refusal(one, default):
            yield f"{where}: the default {default!r} is refused, and a job without an answer gets none"
        if one["type"] == "multiplechoice" and not (one["required"] and default):
            yield f"{where}: AWX has no empty answer to a choice; it needs a default"
        if one["type"] in ("text", "textarea") and not one["required"] and one.get("min") != 0:
            yield f"{where}: an empty answer arrives as '', which min has to allow"
