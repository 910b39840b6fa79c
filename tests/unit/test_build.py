"""The collection builds, and what was built installs and documents itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def run(*command: str, cwd: Path = TOP, **environment: str) -> str:
    done = subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=cwd,
        env={**{name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"}, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("build")
    run("ansible-galaxy", "collection", "build", "--output-path", str(place))
    archive = next(place.glob("mailfleet-starttls-*.tar.gz"))
    run("ansible-galaxy", "collection", "install", "--offline", str(archive), "-p", str(place), cwd=place)
    return place


def test_only_what_users_need_is_packed(installed: Path) -> None:
    with tarfile.open(next(installed.glob("*.tar.gz"))) as archive:
        tops = {name.split("/")[0] for name in archive.getnames()}
    assert tops == {
        "CHANGELOG.md", "CONTRIBUTING.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "SECURITY.md", "awx", "docs", "meta",
        "examples", "playbooks", "plugins", "requirements.txt", "roles",
    }  # fmt: skip


def test_every_module_and_role_documents_itself(installed: Path) -> None:
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    modules = [f"mailfleet.starttls.{path.stem}" for path in (TOP / "plugins/modules").glob("*.py")]
    shown = json.loads(run("ansible-doc", "--json", *modules, cwd=installed, **environment))
    assert set(shown) == set(modules)
    roles = run("ansible-doc", "--type", "role", "--list", "mailfleet.starttls", cwd=installed, **environment)
    for role in (TOP / "roles").iterdir():
        assert f"mailfleet.starttls.{role.name}" in roles


def test_each_installed_playbook_is_found_by_its_full_name(installed: Path) -> None:
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    names = sorted(path.stem for path in (TOP / "playbooks").glob("*.yml"))
    assert {"plan_tls", "enable_tls", "disable_tls", "set_delivery_mode", "verify_tls", "report_tls"} <= {*names}
    for name in names:
        playbook = f"mailfleet.starttls.{name}"
        run("ansible-playbook", "-i", "localhost,", "--syntax-check", playbook, cwd=installed, **environment)


def test_readmes_line_installs_over_an_installed_one(tmp_path: Path) -> None:
    """From inside the checkout, and without --offline: nothing there may pass for the collection, or have it looked for elsewhere."""
    section = (TOP / "README.md").read_text().partition("## On your own fleet\n")[2]
    line = re.search(r"(?m)^ *(ansible-galaxy collection .*)$", section)
    assert line, "README does not tell how to install the collection any more"
    checkout, home = tmp_path / "checkout", tmp_path / "home"
    shutil.copytree(TOP, checkout, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.tar.gz"))
    assert not (checkout / "ansible.cfg").exists()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {"HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"}
    collection = home / ".ansible/collections/ansible_collections/mailfleet/starttls"
    for attempt in ("new", "over the same version", "over another version"):
        said = subprocess.run(
            ["sh", "-c", line[1]], cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )
        assert said.returncode == 0, f"{attempt}: {said.stdout}{said.stderr}"
        version = json.loads((collection / "MANIFEST.json").read_text())["collection_info"]["version"]
        assert f"mailfleet.starttls:{version} was installed successfully" in said.stdout, f"{attempt}: {said.stdout}"
        assert not (collection / "stale").exists(), attempt
        assert not (collection / "tests").exists(), attempt
        (collection / "stale").touch()
        if attempt == "over the same version":
            description = checkout / "galaxy.yml"
            description.write_text(re.sub(r"(?m)^version: .*$", "version: 99.0.0", description.read_text()))
    assert version == "99.0.0"


def test_cores_tests_with_the_same_libraries() -> None:
    """Except on Python 3.9, which gets the last releases that run there."""
    pins = (TOP / "requirements-dev.txt").read_text().splitlines()
    for line in (TOP / "tools/lab/requirements-cores.txt").read_text().splitlines():
        pin, _, marker = line.partition("; ")
        if not line.startswith("#") and "<" not in marker:
            assert pin in pins
