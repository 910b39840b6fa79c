"""How an error of the controller's engine ends a task, and how options reach it."""

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    checked_options,
    read_text,
    task_errors,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import MissingLibraryError


class Action(ActionBase):
    """An action plugin without a play: its options, and files in one directory."""

    def __init__(self, arguments, directory=""):
        self._task = type("Task", (), {"args": arguments})()
        self._load_name = "fake"
        self._directory = directory

    def run(self, tmp=None, task_vars=None):
        raise NotImplementedError

    def _find_needle(self, dirname, needle):
        return f"{self._directory}/{dirname}/{needle}"


SPEC = {"rows": {"type": "list", "elements": "str"}, "title": {"type": "str", "default": "x"}, "days": {"type": "int"}}


def test_every_option_is_there():
    assert checked_options(Action({"days": "3"}), SPEC) == {"rows": None, "title": "x", "days": 3}


@pytest.mark.parametrize(("arguments", "said"), [({"days": "many"}, "days"), ({"titel": "y"}, "titel")])
def test_options_that_do_not_fit(arguments, said):
    with pytest.raises(AnsibleActionFail, match=said):
        checked_options(Action(arguments), SPEC)


@pytest.mark.parametrize("error", [EngineError("look there"), MissingLibraryError("look there")])
def test_an_error_of_the_engine_fails_the_task(error):
    with pytest.raises(AnsibleActionFail, match="look there"), task_errors():
        raise error


def test_a_fault_is_not_hidden():
    with pytest.raises(KeyError), task_errors():
        raise KeyError("x")


def test_a_file_on_the_controller(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files/ca.pem").write_text("\u00e9")
    (tmp_path / "files/binary").write_bytes(b"\xff")
    assert read_text(Action({}, tmp_path), "ca_file", "ca.pem") == "\u00e9"
    for name in ("none", "binary"):
        with pytest.raises(AnsibleActionFail, match=f"ca_file '{name}' cannot be read on the controller: "):
            read_text(Action({}, tmp_path), "ca_file", name)
