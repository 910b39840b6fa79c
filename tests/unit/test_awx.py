"""What AWX is given says the same as the collection, and its answers are understood."""

import json
from pathlib import Path

import pytest
import yaml
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import MODES
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import with_delivery_mode

ROOT = Path(__file__).resolve().parents[2]
SURVEYS = sorted((ROOT / "awx/surveys").glob("*.json"))
CONFIGS = [
    {"name": "main", "domains": ["a.example"], "servers": ["mail1"], "delivery_mode": "plaintext"},
    {"name": "other", "domains": ["b.example"], "servers": ["mail2"]},
]


@pytest.mark.parametrize("path", SURVEYS, ids=lambda path: path.stem)
def test_a_survey_is_that_of_a_playbook(path):
    survey = json.loads(path.read_text())
    playbook = (ROOT / "playbooks" / f"{path.stem}.yml").read_text()
    assert {"name", "description", "spec"} == set(survey)
    for question in survey["spec"]:
        assert question["variable"] in playbook
        assert question["type"] in ("text", "multiplechoice")  # there are no lists and no booleans
    assert yaml.safe_load(playbook)[0]["name"]


def test_the_choices_are_the_delivery_modes():
    survey = json.loads((ROOT / "awx/surveys/set_delivery_mode.json").read_text())
    choices = {question["variable"]: question.get("choices") for question in survey["spec"]}
    assert choices == {"starttls_email_config": None, "starttls_delivery_mode": list(MODES)}


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
