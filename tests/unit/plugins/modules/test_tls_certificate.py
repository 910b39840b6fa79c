"""The module's main(), and what it asks the registry: the engine has tests of its own."""

import functools
import grp
import os
import pwd

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import newer, pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.modules import tls_certificate as module


@pytest.fixture
def options(tmp_path):
    tmp_path.chmod(0o755)
    defaults = {name: spec.get("default") for name, spec in module.ARGUMENT_SPEC.items()}
    return {
        **defaults,
        "path": str(tmp_path / "mailfleet" / "starttls.pem"),
        "owner": pwd.getpwuid(os.getuid()).pw_name,
        "group": grp.getgrgid(os.getgid()).gr_name,
        "content": pem.PemBlock("CERTIFICATE", b"leaf").text,
    }


class Exit(Exception):
    pass


@pytest.fixture
def ansible_module(monkeypatch, options, tmp_path_factory):
    """Replaces AnsibleModule; raises Exit with what the module would have returned."""

    class Fake:
        check_mode = False
        params = options

        def __init__(self, argument_spec, supports_check_mode):
            assert supports_check_mode
            assert argument_spec["content"]["no_log"] and argument_spec["private_key_content"]["no_log"]

        def exit_json(self, **result):
            raise Exit(result)

        def fail_json(self, **result):
            raise Exit({"failed": True, **result})

    monkeypatch.setattr(module, "AnsibleModule", Fake)
    store = str(tmp_path_factory.mktemp("store"))
    monkeypatch.setattr(newer, "install", functools.partial(newer.install, store=store))
    return Fake


def outcome():
    with pytest.raises(Exit) as caught:
        module.main()
    return caught.value.args[0]


def test_main_returns_the_result(ansible_module):
    assert outcome()["changed"] is True


def test_main_says_what_was_refused(ansible_module):
    ansible_module.params["path"] = "relative"
    assert outcome() == {"failed": True, "msg": "path 'relative' is not absolute; it has to begin with '/'."}


def test_main_says_what_the_system_said(ansible_module, monkeypatch):
    def full(self, mtime=None):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileImage, "write", full)
    path = ansible_module.params["path"]
    assert outcome() == {"failed": True, "msg": f"{path}: No space left on device."}
