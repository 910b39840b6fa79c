"""What AWX is given says the same as the collection, AWX takes it, and its answers are understood."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import MODES
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import with_delivery_mode
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import SEVERITIES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.gateway_access import environment_names
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.by_hand import (
    QUESTION,
    STEPS_BY_HAND,
    confirmed_by,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.rows import REPORT_FILES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.variables import VARIABLES

from tests.support import awx

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = awx.objects()
TEMPLATES = awx.templates()
ORGANIZATION = awx.read("site")["mailfleet_organization"]
CONFIGS = [
    {"name": "main", "domains": ["a.example"], "servers": ["mail1"], "delivery_mode": "plaintext"},
    {"name": "other", "domains": ["b.example"], "servers": ["mail2"]},
]

# --- objects ---------------------------------------------------------------------------------------------------------


def test_every_playbook_has_a_template_and_every_template_a_playbook():
    playbooks = {f"playbooks/{path.name}" for path in (ROOT / "playbooks").glob("*.yml")}
    named = [one["playbook"] for one in TEMPLATES.values()]
    assert (sorted(playbooks - {*named}), sorted({*named} - playbooks)) == ([], [])
    assert len(TEMPLATES) == len(OBJECTS["controller_templates"]) == len({*named})


def test_the_documentation_has_every_template():
    page = (ROOT / "docs/awx.md").read_text()
    assert [name for name in TEMPLATES if f"| {name} |" not in page] == []


def test_all_objects_are_known_to_load_yml_and_in_its_order():
    """An object comes after those that it names."""
    play = yaml.safe_load((ROOT / "awx/load.yml").read_text())[0]
    assert set(OBJECTS) == set(awx.MODULES)
    assert play["vars_files"] == ["site.yml", *(f"{name}.yml" for name in awx.FILES)]
    loaded = [re.search(r"controller_\w+", task["loop"])[0] for task in play["tasks"]]
    assert list(dict.fromkeys(loaded)) == list(awx.MODULES)
    for task, variable in zip(play["tasks"], loaded, strict=True):
        assert f"awx.awx.{awx.MODULES[variable]}" in task or "awx.awx.workflow_job_template_node" in task


@pytest.mark.parametrize("variable", awx.MODULES)
def test_what_an_object_names_is_there(variable):
    def names(kind: str) -> set[str]:
        return {one["name"] for one in OBJECTS[f"controller_{kind}"]}

    named_by = {
        "project": names("projects"), "source_project": names("projects"), "inventory": names("inventories"),
        "execution_environment": names("execution_environments"), "labels": names("labels"),
        "unified_job_template": names("templates"), "organization": {ORGANIZATION},
        **{f"notification_templates_{when}": names("notifications") for when in ("error", "approvals")},
    }  # fmt: skip
    found = [
        *OBJECTS[variable],
        *(node for one in OBJECTS[variable] for node in one.get("simplified_workflow_nodes", ())),
    ]
    assert found
    for one in found:
        for field, known in named_by.items():
            given = one.get(field, [])
            assert {*([given] if isinstance(given, str) else given)} <= known, (one["name"], field)


def test_what_changes_hosts_says_so_and_is_not_sliced():
    for name, one in TEMPLATES.items():
        changes = "changes mail servers" in one["labels"]
        assert changes != ("changes nothing" in one["labels"]), name
        assert changes != one["description"].endswith("Changes nothing"), name
        assert one["ask_job_type_on_launch"] or not changes, f"{name}: --check shows the plan"
        assert one["job_slice_count"] == 1 and not (changes and one["ask_job_slice_count_on_launch"]), name
        assert not one["allow_simultaneous"] and "timeout" not in one, f"{name}: a job that is cut off is half a change"


def test_the_inventory_decides_what_nobody_is_asked():
    """And who becomes root: with become for the whole job, the controller's own tasks would ask for sudo in the job's pod."""
    for name, one in TEMPLATES.items():
        assert one["survey_enabled"] and not one["ask_variables_on_launch"] and "extra_vars" not in one, name
        assert one["become_enabled"] is False, name


def test_a_credential_type_hands_on_what_the_collection_reads():
    types = {one["name"]: one for one in OBJECTS["controller_credential_types"]}
    gateway = types["Mail gateway API"]
    fields = [one["id"] for one in gateway["inputs"]["fields"]]
    injected = {environment_names(f"api_{field}", "any")[1]: f"{{{{ {field} }}}}" for field in fields}
    assert gateway["injectors"] == {"env": injected}
    assert {*types["Mail server certificate"]["injectors"]["extra_vars"]} <= {*VARIABLES}
    for one in types.values():
        secret = {field["id"] for field in one["inputs"]["fields"] if field.get("secret")}
        assert secret == {field["id"] for field in one["inputs"]["fields"]} & {
            "password",
            "key",
            "private_key",
            "token",
        }


def test_no_object_holds_a_secret():
    """A survey's answer is seen by all who see the job, so no survey asks for one."""
    words = ("password", "key", "token", "secret", "_content")
    asked = {variable for one in TEMPLATES.values() for variable in awx.questions(one)}
    assert [variable for variable in asked if any(word in variable for word in words)] == []
    assert {one["type"] for template in TEMPLATES.values() for one in awx.questions(template).values()} <= {
        *awx.QUESTIONS
    }


# --- surveys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEMPLATES)
def test_awx_takes_a_survey(name):
    assert list(awx.faults_of_survey(TEMPLATES[name]["survey_spec"])) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"type": "boolean"}, "unknown type"),
        ({"default": 3}, "the default is no str"),
        ({"default": "never"}, "is refused"),
        ({"required": False}, "no empty answer"),
        ({"choices": [True, False]}, "no text"),
        ({"type": "text"}, "choices belong"),
        ({"type": "multiselect", "default": "error\nwarning"}, "is refused"),
    ],
)
def test_a_survey_that_awx_would_not_take_is_found(change, fault):
    question = {
        "question_name": "Fail on", "variable": "starttls_fail_on", "type": "multiplechoice", "required": True,
        "choices": ["error", "warning"], "default": "error",
    }  # fmt: skip
    faults = list(awx.faults_of_survey({"name": "x", "description": "", "spec": [{**question, **change}]}))
    assert any(fault in one for one in faults), faults


def text_of(playbook: str) -> Iterator[str]:
    """The text of a playbook, of those that it imports, and of the roles' defaults, which read most variables."""
    text = (ROOT / playbook).read_text()
    yield text
    for imported in re.findall(r"import_playbook: (\w+\.yml)", text):
        yield from text_of(f"playbooks/{imported}")
    for role in {*re.findall(r"mailfleet\.starttls\.(\w+),? ?", text)}:
        defaults = ROOT / f"roles/{role}/defaults/main.yml"
        if defaults.exists():
            yield defaults.read_text()


READ_BY_THE_PLAN = {"starttls_batches", "starttls_checks", "starttls_confirmed"}
"""Variables that no playbook names: plan/task.py reads them."""


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_answer_is_a_variable_that_the_playbook_reads(name):
    text = "\n".join(text_of(TEMPLATES[name]["playbook"]))
    for variable in awx.questions(TEMPLATES[name]):
        assert variable in VARIABLES
        assert re.search(rf"\b{variable}\b", text) or (variable in READ_BY_THE_PLAN and "plan_tls.yml" in text), (
            variable
        )


@pytest.mark.parametrize("playbook", ["enable_tls", "disable_tls"])
def test_a_job_can_be_told_that_a_step_was_made_by_hand(playbook):
    """Both end before such a step, and say so. Who answers nothing has made none."""
    question = awx.questions(awx.by_playbook()[playbook])["starttls_confirmed"]
    assert question["question_name"] == QUESTION
    [word] = question["choices"]
    assert awx.refusal(question, [word]) == "" and not question["required"]
    answers = [[word], word, [], ""]  # AWX gives '' for a question that nobody answered
    assert [list(confirmed_by({"starttls_confirmed": one})) for one in answers] == [[word], [word], [], []]


def options_of(module: str) -> dict[str, Any]:
    return importlib.import_module(f"ansible_collections.mailfleet.starttls.plugins.modules.{module}").ARGUMENT_SPEC


def choices_of(variable: str, playbook: str) -> list[str]:
    """The choices that our own specs have for an answer."""
    return {
        "starttls_confirmed": [STEPS_BY_HAND[playbook == "disable_tls"]],
        "starttls_plan_fail_on": list(options_of("tls_plan")["fail_on"]["choices"]),
        "starttls_send_messages": ["true", "false"],
        "starttls_check_tlsa": ["true", "false"],
        "starttls_fail_on": [*SEVERITIES, *(["none"] if playbook == "report_tls" else [])],
        "starttls_report_formats": list(REPORT_FILES),
        "starttls_delivery_mode": list(MODES),
        "starttls_checks": list(options_of("starttls_probe")["checks"]["choices"]),
    }[variable]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_choices_are_those_of_our_own_specs(name):
    playbook = Path(TEMPLATES[name]["playbook"]).stem
    for variable, question in awx.questions(TEMPLATES[name]).items():
        if "choices" in question:
            assert sorted(question["choices"]) == sorted(choices_of(variable, playbook)), variable


# Where a survey proposes something else than the collection does without an answer, and why.
OTHER_DEFAULTS = {
    ("report_tls", "starttls_fail_on"): "a scheduled report that finds something has to be heard of",
    ("rotate_certificate", "starttls_check_tlsa"): "the default of the other playbooks is no; this one looks",
    ("report_tls", "starttls_report_directory"): "the collection's own is relative, and would go with the job's pod",
    (
        "set_delivery_mode",
        "starttls_delivery_mode",
    ): "the recommended one is proposed; there is no mode without an answer",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_survey_that_nobody_answers_leaves_what_the_collection_does_anyway(name):
    playbook = Path(TEMPLATES[name]["playbook"]).stem
    for variable, value in awx.defaults(TEMPLATES[name]).items():
        first = re.match(r"`\[?([^`\]]*)\]?`|(\w+)", VARIABLES[variable].default)
        ours = (first[1] or first[2]).replace("'", "")
        if (playbook, variable) not in OTHER_DEFAULTS:
            assert str(value) == ("" if ours == "none" or variable.endswith("_directory") else ours), variable


def test_each_other_default_is_still_one():
    for playbook, variable in OTHER_DEFAULTS:
        assert variable in awx.defaults(awx.by_playbook()[playbook])


def test_nodes_and_schedules_answer_only_what_is_asked():
    """AWX refuses a field for which the template does not prompt, and an answer that its survey does not take."""
    prompts = {
        "limit": "ask_limit_on_launch",
        "job_type": "ask_job_type_on_launch",
        "job_slice_count": "ask_job_slice_count_on_launch",
    }
    launches = [one for one in [*awx.nodes(), *OBJECTS["controller_schedules"]] if "unified_job_template" in one]
    assert len(launches) > 8
    for one in launches:
        template = TEMPLATES[one["unified_job_template"]]
        assert all(template[asked] for field, asked in prompts.items() if field in one), one
        for variable, answer in one.get("extra_data", {}).items():
            assert refusal_of(template, variable, answer) == "", one
        answered = {**awx.defaults(template), **one.get("extra_data", {})}
        needed = {variable for variable, question in awx.questions(template).items() if question["required"]}
        assert needed <= {*answered}, f"{one}: nobody is there to answer"


def refusal_of(template: dict[str, Any], variable: str, answer: Any) -> str:
    question = awx.questions(template).get(variable)
    return awx.refusal(question, answer) if question else f"{variable} is not asked"


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("blanks", ["{}", " {}\n", "\t{} "])
def test_an_answer_with_blanks_around_it(mode, blanks):
    assert with_delivery_mode(CONFIGS, blanks.format("main"), blanks.format(mode)) == [
        {**CONFIGS[0], "delivery_mode": mode}
    ]


@pytest.mark.parametrize(
    ("email_config", "delivery_mode", "message"),
    [
        ("", "required", "starttls_email_config has to be given; choose one of: main, other"),
        (None, "required", "starttls_email_config has to be given; choose one of: main, other"),
        (
            "mian",
            "required",
            "starttls_email_config: there is no email config 'mian' in the inventory; choose one of: main, other",
        ),
        (
            "main\nx",
            "required",
            r"starttls_email_config: there is no email config 'main\nx' in the inventory; choose one of: main, other",
        ),
        ("main", "", f"starttls_delivery_mode has to be given; choose one of: {', '.join(MODES)}"),
        ("main", False, f"starttls_delivery_mode: 'False' is not a delivery mode; choose one of: {', '.join(MODES)}"),
        (
            "main",
            "{{ 7 * 7 }}",
            f"starttls_delivery_mode: '{{{{ 7 * 7 }}}}' is not a delivery mode; choose one of: {', '.join(MODES)}",
        ),
    ],
)
def test_a_wrong_answer_says_what_there_is(email_config, delivery_mode, message):
    with pytest.raises(EngineError) as error:
        with_delivery_mode(CONFIGS, email_config, delivery_mode)
    assert str(error.value) == message


def test_without_email_configs():
    with pytest.raises(EngineError, match="none, email_configs is empty"):
        with_delivery_mode([], "main", "required")
