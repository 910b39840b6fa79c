"""A kind of mail server that the collection does not have: one room and its registry entries, and everything runs with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from lab_testinfra import TOP, Fleet, Played, environment, wait_for

NEW = TOP / "tests/support/new_kind"
HOST, PORT = "pf13", 2526
PLACE = "/opt/testmail"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection path with a copy of the checkout that has the new kind. Nothing but these files is touched."""
    path = tmp_path_factory.mktemp("collections")
    copy = path / "ansible_collections/mailfleet/starttls"
    for name in ("plugins", "roles", "playbooks", "meta", "galaxy.yml"):
        source = TOP / name
        copy.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    shutil.copytree(NEW / "_testmail", copy / "plugins/module_utils/_testmail")
    for entry in ("product", "server"):
        file = copy / f"plugins/module_utils/kinds/{entry}.py"
        file.write_text(file.read_text() + (NEW / f"{entry}.txt").read_text())
    return path


@pytest.fixture(scope="module")
def daemon(fleet: Fleet) -> Iterator[str]:
    """The mail server of the new kind on a lab host, beside the one that is there: its file, as it was at first."""
    state = '{"inbound": "disabled", "outbound": "disabled"}\n'
    fleet.run(
        HOST, f"mkdir -p {PLACE} && cat >{PLACE}/testmail && chmod +x {PLACE}/testmail", (NEW / "testmail").read_text()
    )
    fleet.run(HOST, f"sed -i '1s,.*,#!/opt/python/bin/python3,' {PLACE}/testmail && cat >{PLACE}/testmail.json", state)
    fleet.run(HOST, f"systemd-run --quiet --unit=testmail {PLACE}/testmail {PORT}")
    assert wait_for(lambda: fleet.run(HOST, f"cat {PLACE}/testmail.pid", check=False).strip())
    yield state
    fleet.run(HOST, f"systemctl stop testmail; rm -r {PLACE}")


@pytest.fixture(scope="module")
def inventory(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab host as a mail server of the new kind, and no gateway."""
    lab = yaml.safe_load(fleet.inventory.read_text())["all"]
    host = dict(lab["children"]["mail_servers"]["hosts"][HOST])
    host.pop("starttls_trace_address")
    host |= {"starttls_kind": "testmail", "starttls_port": PORT, "ansible_become": True}
    variables = {name: value for name, value in lab["vars"].items() if name != "email_configs"}
    path = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": variables, "children": {"mail_servers": {"hosts": {HOST: host}}}}}))
    return path


@pytest.fixture(scope="module")
def ansible(tree: Path, inventory: Path):
    """Runs an Ansible program with the copy of the collection."""

    def run(program: str, *words: str) -> Played:
        done = subprocess.run(
            [str(Path(sys.executable).parent / program), "-i", str(inventory), *words],
            cwd=tree,
            env={**environment(), "ANSIBLE_COLLECTIONS_PATH": str(tree)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return Played(done.returncode, done.stdout + done.stderr)

    return run


def settings(fleet: Fleet) -> str:
    return fleet.run(HOST, f"cat {PLACE}/testmail.json")


def starttls(fleet: Fleet) -> str:
    """What OpenSSL says of the new mail server, from outside."""
    done = subprocess.run(
        ["openssl", "s_client", "-starttls", "smtp", "-connect", f"{fleet.address(HOST)}:{PORT}"],
        input="QUIT\n", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_the_module_in_check_mode_changes_nothing(fleet: Fleet, ansible, daemon: str) -> None:
    played = ansible(
        "ansible", HOST, "-m", "mailfleet.starttls.mail_server_tls", "--check", "--diff",
        "-a", f"kind=testmail inbound=offered port={PORT}",
    )  # fmt: skip
    assert played.status == 0, played.output
    assert '"changed": true' in played.output
    assert '+ "inbound": "offered"' in played.output
    assert settings(fleet) == daemon


def test_auto_refuses_to_choose_between_two(fleet: Fleet, ansible, daemon: str) -> None:
    played = ansible("ansible", HOST, "-m", "mailfleet.starttls.mail_server_tls", "-a", "inbound=offered")
    assert played.status != 0
    assert "Postfix and Testmail are both on this host; set kind to one of: postfix, testmail" in played.output


def test_an_unknown_kind_lists_the_new_one(ansible, daemon: str) -> None:
    played = ansible("ansible", HOST, "-m", "mailfleet.starttls.mail_server_tls", "-a", "kind=testmial inbound=offered")
    assert played.status != 0
    assert "kind 'testmial' is not a known kind; choose one of: postfix, exim, exchange, testmail" in played.output


def test_the_role_in_check_mode_changes_nothing(fleet: Fleet, ansible, daemon: str, tmp_path: Path) -> None:
    play = {"hosts": "mail_servers", "gather_facts": False, "roles": ["mailfleet.starttls.mail_server"]}
    playbook = tmp_path / "play.yml"
    playbook.write_text(yaml.safe_dump([play]))
    played = ansible("ansible-playbook", str(playbook), "--check")
    assert played.status == 0, played.output
    assert played.changed[HOST] == 1
    assert settings(fleet) == daemon


def test_the_playbooks_switch_tls_on_and_off(fleet: Fleet, ansible, daemon: str) -> None:
    enable, disable = ("mailfleet.starttls.enable_tls", "mailfleet.starttls.disable_tls")
    dry = ansible("ansible-playbook", enable, "--check")
    assert dry.status == 0, dry.output
    assert settings(fleet) == daemon
    first = ansible("ansible-playbook", enable)
    assert first.status == 0, first.output
    assert "Testmail" in first.output
    assert '"inbound": "offered"' in settings(fleet)
    assert "BEGIN CERTIFICATE" in starttls(fleet)
    second = ansible("ansible-playbook", enable)
    assert second.status == 0, second.output
    assert second.changed[HOST] == 0
    off = ansible("ansible-playbook", disable)
    assert off.status == 0, off.output
    assert '"inbound": "disabled"' in settings(fleet)
    assert "BEGIN CERTIFICATE" not in starttls(fleet)
