"""Which tests run on the newest ansible-core in every make test: those that touch Ansible, by whatever way."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

LAB = Path(__file__).resolve().parents[3] / "tools/lab"


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(LAB))
    loader = SourceFileLoader("lab_cores", str(LAB / "cores"))
    spec = spec_from_loader(loader.name, loader)
    assert spec
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, loader.name, module)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("test", "chosen"),
    [
        ("from ansible.errors import AnsibleError", True),
        ("def test():\n    import ansible.constants", True),
        ("from ansible_collections.mailfleet.starttls.plugins.plugin_utils import glue", True),
        ("from ansible_collections.mailfleet.starttls.plugins.plugin_utils.through import a", True),
        ("from tests.support import runs", True),
        ("PROGRAM = 'ansible-doc'", True),
        ("from ansible_collections.mailfleet.starttls.plugins.plugin_utils import pure", False),
        ("import json", False),
    ],
)
def test_what_touches_ansible(cores: ModuleType, tmp_path: Path, test: str, chosen: bool) -> None:
    files = {
        "plugins/plugin_utils/glue.py": "from ansible.plugins.action import ActionBase",
        "plugins/plugin_utils/through.py": (
            "from ansible_collections.mailfleet.starttls.plugins.plugin_utils import (\n    glue,\n    pure,\n)"
        ),
        "plugins/plugin_utils/pure.py": '"""Says: run ansible-playbook again."""',
        "tests/support/runs.py": "PROGRAM = 'ansible-playbook'",
        "tests/unit/test_one.py": test,
        "tests/unit/notes.py": "import ansible",
        "tests/other/test_two.py": "import ansible",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    cores.TOP = tmp_path
    assert cores.touching(["tests/unit"]) == (["tests/unit/test_one.py"] if chosen else [])
    assert cores.touching(["tests/unit/test_one.py"]) == cores.touching(["tests/unit"])


def test_the_plays_and_the_glue_are_among_them(cores: ModuleType) -> None:
    chosen = [
        "tests/unit/playbooks/test_peers.py",
        "tests/unit/plugins/plugin_utils/test_action_glue.py",
        cores.WORDS[1],
    ]
    pure = "tests/unit/plugins/plugin_utils/certificates/test_policy.py"
    assert set(cores.collection()) >= {cores.GLUE[0], cores.WORDS[0], "tests/unit/playbooks"}
    assert cores.touching([*chosen, cores.GLUE[0], pure]) == sorted([*chosen, cores.GLUE[0]])
