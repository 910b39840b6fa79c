"""docs/schema/renewal.schema.json describes what the program of the renewal hook reads."""

import json
from pathlib import Path

import jsonschema
import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.configuration import RenewalPlan

from tests.unit.plugins.module_utils._hook.test_configuration import BAD, GOOD

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs/schema/renewal.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_what_is_written_fulfils_the_schema():
    VALIDATOR.check_schema(SCHEMA)
    VALIDATOR.validate(GOOD)
    VALIDATOR.validate(json.loads(RenewalPlan.from_json(GOOD, "x").text()))


@pytest.mark.parametrize("data", [data for data, _said in BAD])
def test_what_the_program_refuses_the_schema_refuses(data):
    assert not VALIDATOR.is_valid(data)
