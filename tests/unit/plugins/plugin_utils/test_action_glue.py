"""How an error of the controller's engine ends a task, and how options reach it."""

import pytest
from ansible.errors import AnsibleActionFail, AnsibleError, AnsibleFileNotFound
from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    checked_options,
    read_bytes,
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


class Loader:
    """Ansible's loader for one vault: the decrypted content is in a file of its own."""

    def __init__(self, real):
        self.real, self.removed = real, []

    def get_real_file(self, path, decrypt):
        assert decrypt
        if isinstance(self.real, Exception):
            raise self.real
        return str(self.real)

    def cleanup_tmp_file(self, real):
        self.removed.append(real)


def action_with(real):
    action = Action({}, "/nowhere")
    action._loader = Loader(real)
    return action


def test_the_first_bytes_of_a_file_that_may_be_a_vault(tmp_path):
    (tmp_path / "real").write_bytes(b"12345")
    action = action_with(tmp_path / "real")
    assert read_bytes(action, "vault", 3) == b"123"
    assert action._loader.removed == [str(tmp_path / "real")]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AnsibleFileNotFound(file_name="x"), "there is no such file (searched in"),
        (AnsibleError("the vault is closed\nand more"), "the vault is closed"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (OSError(), "OSError"),
    ],
)
def test_a_file_that_cannot_be_read(error, said):
    with pytest.raises(EngineError) as caught:
        read_bytes(action_with(error), "x", 3)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_a_directory_leaves_no_decrypted_file(tmp_path):
    action = action_with(tmp_path)
    with pytest.raises(EngineError, match="Is a directory"):
        read_bytes(action, "x", 3)
    assert action._loader.removed == [str(tmp_path)]
