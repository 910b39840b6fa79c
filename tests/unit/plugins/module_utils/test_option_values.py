"""No option's value begins a new line or steers a terminal, and the refusal names the option, not the value."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.option_values import (
    refuse_control_characters,
    refuse_null_characters,
)

SPEC = {
    "path": {"type": "path"},
    "names": {"type": "list", "elements": "str"},
    "ca_content": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "install": {"type": "dict", "options": {"owner": {"type": "str"}}},
    "configs": {"type": "list", "elements": "dict", "options": {"servers": {"type": "list", "elements": "str"}}},
    "results": {"type": "dict"},
    "port": {"type": "int"},
}
CONTROLS = ["\n", "\r", "\t", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\ud800"]


@pytest.mark.parametrize("char", CONTROLS, ids=map(ascii, CONTROLS))
@pytest.mark.parametrize(
    ("named", "options"),
    [
        ("path", {"path": "/etc/{}x"}),
        ("names", {"names": ["a", "b{}"]}),
        ("api_key", {"api_key": "geheim{}"}),
        ("install.owner", {"install": {"owner": "{}root"}}),
        ("configs.servers", {"configs": [{"servers": ["a"]}, {"servers": ["a", "b{}"]}]}),
    ],
)
def test_the_option_is_named(named, options, char):
    with pytest.raises(EngineError) as error:
        refuse_control_characters(SPEC, _filled(options, char))
    said = f"{named} holds a line break or another control character (U+{ord(char):04X}); take it out of the value"
    assert str(error.value) == said


def _filled(value, char):
    if isinstance(value, str):
        return value.replace("{}", char)
    if isinstance(value, dict):
        return {name: _filled(one, char) for name, one in value.items()}
    return [_filled(one, char) for one in value]


@pytest.mark.parametrize(
    "options",
    [
        {"ca_content": "-----BEGIN\r\n\tx\n"},
        {"path": "/srv/caf\udce9/\u00e9 \U0001f600"},  # a byte that is not UTF-8 can be in a path
        {"results": {"msg": "\x1b[1m what a server said"}},
        {"path": None, "names": None, "install": None, "port": 25},
        {},
    ],
)
def test_what_may_be_there(options):
    refuse_control_characters(SPEC, options)


@pytest.mark.parametrize("char", ["\0", "\x1b", "\u2028"])
def test_a_certificates_text_has_lines_but_no_other_control_characters(char):
    with pytest.raises(EngineError, match="ca_content holds"):
        refuse_control_characters(SPEC, {"ca_content": f"-----BEGIN{char}"})


def test_the_controller_refuses_a_null_character_by_name():
    refuse_null_characters({"a": "x\n", "b": ["y"], "c": {"d": None}, "e": 1})
    for named, options in (("a", {"a": "x\0"}), ("b", {"b": ["y", "\0"]}), ("c.d", {"c": [{"d": "\0"}]})):
        with pytest.raises(
            EngineError, match=rf"\A{named} holds a line break or another control character \(U\+0000\)"
        ):
            refuse_null_characters(options)
