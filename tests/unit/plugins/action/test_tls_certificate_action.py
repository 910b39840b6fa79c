"""The module as users have it: real ansible-playbook runs against localhost, as talkative as they can be."""

import datetime as dt
import getpass
import grp
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from tests.support.pki import key_pem, new_key, self_signed

ROOT = Path(__file__).resolve().parents[4]
MODULE = "mailfleet.starttls.tls_certificate"
NAME = "mx1.example.com"


class Playground:
    """A directory with the files of one controller, and the host's file below it."""

    def __init__(self, directory):
        self.directory = directory
        self.secrets = set()
        self.target = directory / "host" / "mailfleet" / "starttls.pem"
        self.target.parent.parent.mkdir()
        self.put("ansible.cfg", b"[defaults]\n")
        self.base = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}

    def put(self, name, content):
        (self.directory / name).write_bytes(content)
        return str(self.directory / name)

    def secret(self, key):
        """Remember what must not be seen: every line of the key, in both formats."""
        for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
            text = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
            self.secrets |= {line[:24] for line in text.splitlines() if "-----" not in line and len(line) > 24}
        return key_pem(key)

    def play(self, *tasks, arguments=(), roles=(), variables=None, env=None):
        """Run the tasks, which may fail, and return their results; nothing printed may hold a secret."""
        results = self.directory / "results.json"
        results.unlink(missing_ok=True)
        plays = [{"hosts": "localhost", "gather_facts": False, "vars": variables or {}, "roles": list(roles)}]
        plays[0]["tasks"] = [
            {"name": f"task {i}", "ignore_errors": True, "register": f"task_{i}", **task}
            for i, task in enumerate(tasks)
        ]
        collected = [f"task_{i}" for i in range(len(tasks))] or ["certificate_result"]
        plays[0]["tasks"].append(
            {
                "name": "collect",
                "ansible.builtin.copy": {
                    "dest": str(results),
                    "mode": "0600",
                    "content": "{{ [" + ", ".join(collected) + "] | to_json }}",
                },
                "check_mode": False,
                "diff": False,
                "no_log": True,
            }
        )
        playbook = self.directory / "play.yml"
        playbook.write_text(yaml.safe_dump(plays, sort_keys=False, width=10000))
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i", "localhost,", "-c", "local", "-vvvv", "--diff", str(playbook), *arguments,
        ]  # fmt: skip
        done = subprocess.run(
            command,
            cwd=self.directory,
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".lab/collections"),
                "ANSIBLE_LOCAL_TEMP": str(self.directory / "local"),
                "ANSIBLE_REMOTE_TEMP": str(self.directory / "remote"),
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                "ANSIBLE_CONFIG": str(self.directory / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                **(env or {}),
            },
            capture_output=True,
            check=False,
            text=True,
            timeout=900,
        )
        self.output = done.stdout + done.stderr
        for secret in self.secrets:
            assert secret not in self.output
        assert done.returncode == 0, self.output
        found = json.loads(results.read_text())
        assert all("content" not in result for result in found)
        return found

    def task(self, **options):
        return {MODULE: {"path": str(self.target), **self.base, **options}}


@pytest.fixture
def playground(tmp_path):
    tmp_path.chmod(0o755)
    return Playground(tmp_path)


@pytest.fixture
def good(playground, authority):
    """The options of a certificate without a fault."""
    issued = authority.issue([NAME])
    return {
        "private_key_file": playground.put("good.key", playground.secret(issued.key)),
        "certificate_file": playground.put("good.pem", issued.certificate_pem),
        "chain_file": playground.put("chain.pem", issued.chain_pem),
        "ca_file": playground.put("root.pem", authority.root_pem),
        "names": [NAME],
        "bundle": issued.key_pem + issued.fullchain_pem,
    }


def test_everything_bad_is_refused_before_the_host_is_touched(playground, authority, good):
    """Every fault in one run, because each start of ansible-playbook costs a second."""
    good.pop("bundle")
    now = dt.datetime.now(dt.timezone.utc).replace(microsecond=0)
    other, weak_key = new_key(), new_key("rsa-1024")
    weak, expired = authority.issue([NAME], key=weak_key), authority.expired([NAME])
    soon = authority.issue([NAME], not_before=now - dt.timedelta(days=87), not_after=now + dt.timedelta(days=3))
    alone = self_signed([NAME])
    for issued in (expired, soon, alone):
        playground.secret(issued.key)
    playground.secret(other)
    playground.secret(weak_key)

    def files(name, issued):
        return {
            "private_key_file": playground.put(f"{name}.key", issued.key_pem),
            "certificate_file": playground.put(f"{name}.pem", issued.certificate_pem),
        }

    good_key = Path(good["private_key_file"]).read_bytes()
    cut = good_key[: len(good_key) // 2]
    cases = {
        "foreign key": ({"private_key_file": playground.put("other.key", key_pem(other))}, ["key_mismatch"]),
        "foreign key, inline": (
            {"private_key_file": "", "private_key_content": "{{ other_key }}"},
            ["key_mismatch"],
        ),
        "expired": (files("expired", expired), ["expired"]),
        "expiring": (files("soon", soon), ["expiring"]),
        "wrong name": ({"names": ["mx2.example.com", NAME]}, ["name_not_covered"]),
        "no intermediate": ({"chain_file": ""}, ["chain_incomplete"]),
        "wrong root": ({"ca_file": playground.put("alone.pem", alone.certificate_pem)}, ["chain_incomplete"]),
        "self-signed": ({**files("alone", alone), "chain_file": ""}, ["self_signed"]),
        "not PEM": ({"certificate_file": playground.put("junk", b"junk")}, ["not_pem"]),
        "cut key": ({"private_key_file": playground.put("cut.key", cut)}, ["not_pem"]),
        "cut key, inline": ({"private_key_file": "", "private_key_content": "{{ cut_key }}"}, ["not_pem"]),
        "swapped": (
            {"private_key_file": good["certificate_file"], "certificate_file": good["private_key_file"]},
            ["not_pem", "not_pem"],
        ),
        "encrypted key": (
            {"private_key_file": playground.put("locked.key", key_pem(new_key(), "sesame"))},
            ["key_encrypted"],
        ),
        "weak key": (files("weak", weak), ["weak_key"]),
        "no such file": ({"private_key_file": "missing.key"}, ["unreadable"]),
        "directory": ({"private_key_file": str(playground.directory)}, ["unreadable"]),
        "both": ({"private_key_content": "{{ good_key }}"}, ["bad_option"]),
        "nothing": (
            {"private_key_file": None, "certificate_file": "", "names": ["", " "]},
            ["bad_option", "bad_option", "bad_option"],
        ),
        "line break": ({"path": "/etc/mailfleet/a\nb.pem"}, None),
        "not absolute": ({"path": "starttls.pem"}, ["bad_option"]),
        "readable by others": ({"mode": "0644"}, ["bad_option"]),
        "several at once": (
            {**files("expired", expired), "names": ["mx2.example.com"], "mode": "0666"},
            ["bad_option", "expired", "name_not_covered"],
        ),
        "unknown option": ({"chian_file": "x"}, None),
        "private option": ({"content": "x"}, None),
        "wrong type": ({"min_days_left": "many"}, ["bad_option"]),
    }
    tasks = [playground.task(**{**good, **changes}) for changes, _codes in cases.values()]
    # Not in the playbook itself: ansible-core quotes the lines around a task that fails.
    inline = {"other_key": key_pem(other).decode(), "cut_key": cut.decode(), "good_key": good_key.decode()}
    extra = playground.put("extra.json", json.dumps(inline).encode())
    results = playground.play(*tasks, arguments=["-e", f"@{extra}"])
    for (name, (_changes, codes)), result in zip(cases.items(), results):
        assert result["failed"] is True and result["changed"] is False, name
        if codes is None:
            assert any(word in result["msg"] for word in ("chian_file", "content", "path holds a line break")), name
            continue
        assert sorted(finding["code"] for finding in result["findings"]) == codes, (name, result["msg"])
        for finding in result["findings"]:
            assert f"[{finding['code']}] {finding['message']}" in result["msg"], name
        assert "\n" not in result["msg"], name
        assert "the host was not touched" in result["msg"], name
    assert list(playground.target.parent.parent.iterdir()) == []


def test_check_then_converge_then_nothing_then_drift(playground, good):
    bundle = good.pop("bundle")
    target, task = playground.target, playground.task(**good)
    (check,) = playground.play(task, arguments=["--check"])
    assert check["changed"] is True and not target.parent.exists()
    assert f"+subject: CN={NAME}" in playground.output

    first, again = playground.play(task, task)
    assert (first["changed"], again["changed"]) == (True, False)
    assert target.read_bytes() == bundle and target.stat().st_mode & 0o777 == 0o600
    for result in (check, first, again):
        assert result["path"] == str(target)
        assert result["chain"] == ["CN=Example intermediate CA"]
        assert result["certificate"]["sans"] == [f"DNS:{NAME}"]
        assert result["certificate"]["fingerprint_sha256"] == result["fingerprint_sha256"]
        assert "previous_certificate" not in result and not result.get("warnings")

    target.chmod(0o644)
    repaired, removed, gone = playground.play(
        task, playground.task(state="absent"), playground.task(state="absent", names=[NAME])
    )
    assert repaired["changed"] is True and "-mode: 0644" in playground.output
    assert (removed["changed"], gone["changed"]) == (True, False)
    assert not target.exists()


def test_a_renewal_shows_both_certificates(playground, authority, good):
    good.pop("bundle")
    now = dt.datetime.now(dt.timezone.utc)
    renewed = authority.issue(
        [NAME, "mail.example.com"],
        common_name="renewed",
        not_before=now - dt.timedelta(days=70),
        not_after=now + dt.timedelta(days=20),
    )
    new = {
        **good,
        "private_key_file": playground.put("new.key", playground.secret(renewed.key)),
        "certificate_file": playground.put("fullchain.pem", renewed.fullchain_pem),
        "chain_file": None,
        "mode": 0o640,
        "replace": True,  # its life is shorter
    }
    _first, second = playground.play(playground.task(**good), playground.task(**new))
    assert second["changed"] is True
    assert f"-subject: CN={NAME}" in playground.output and "+subject: CN=renewed" in playground.output
    assert "has 19 days left" in "".join(map(str, second["warnings"]))
    assert "has 19 days left" in " ".join(playground.output.split())
    assert playground.target.stat().st_mode & 0o777 == 0o640


def test_vault_files_and_variables(playground, good):
    bundle = good.pop("bundle")
    key = Path(good.pop("private_key_file"))
    password = playground.put("password", b"sesame")
    subprocess.run(
        [Path(sys.executable).with_name("ansible-vault"), "encrypt", "--vault-password-file", password, key],
        check=True,
        capture_output=True,
        cwd=playground.directory,
        env={**os.environ, "ANSIBLE_CONFIG": str(playground.directory / "ansible.cfg")},
    )
    assert key.read_bytes().startswith(b"$ANSIBLE_VAULT")
    playground.put("vars.yml", key.read_bytes())
    task = playground.task(**good, private_key_file=key.name)
    (result,) = playground.play(task, arguments=["--vault-password-file", password])
    assert result["changed"] is True and playground.target.read_bytes() == bundle
    assert not [p for p in (playground.directory / "local").rglob("*") if p.is_file()]
    (result,) = playground.play(task)
    assert result["findings"][0]["code"] == "unreadable" and "vault" in result["msg"].lower()


def test_refusals_of_the_host_come_back(playground, good):
    good.pop("bundle")
    unknown, directory = playground.play(
        playground.task(**{**good, "group": "no-such-group"}),
        playground.task(**{**good, "path": str(playground.target.parent.parent)}),
    )
    assert unknown["failed"] is True and "group no-such-group does not exist on this host" in unknown["msg"]
    assert directory["failed"] is True and "is a directory, not a regular file" in directory["msg"]


def test_the_role(playground, good):
    bundle = good.pop("bundle")
    variables = {
        "certificate_path": str(playground.target),
        "certificate_private_key_content": Path(good["private_key_file"]).read_text(),
        "certificate_file": good["certificate_file"],
        "certificate_chain_content": Path(good["chain_file"]).read_text(),
        "certificate_ca_file": good["ca_file"],
        "certificate_owner": playground.base["owner"],
        "certificate_group": playground.base["group"],
        "starttls_hostname": NAME,
    }
    roles = ["mailfleet.starttls.certificate"]
    extra = playground.put("extra.json", json.dumps(variables).encode())
    loud = {"ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "1"}
    for changed in (True, False):
        (result,) = playground.play(roles=roles, arguments=["-e", f"@{extra}"], env=loud)
        assert result["changed"] is changed
        assert result["fingerprint_sha256"] == result["certificate"]["fingerprint_sha256"]
    assert playground.target.read_bytes() == bundle
    (result,) = playground.play(roles=roles, arguments=["-e", f"@{extra}", "-e", "certificate_state=absent", "--check"])
    assert result["changed"] is True and playground.target.exists()


def test_a_controller_without_the_library_says_how_to_get_it(playground, good, tmp_path):
    good.pop("bundle")
    stub = tmp_path / "stub" / "cryptography"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("raise ImportError('not here')\n")
    (result,) = playground.play(playground.task(**good), env={"PYTHONPATH": str(stub.parent)})
    assert result["failed"] is True
    assert "'cryptography' (version 42.0 or newer) is missing on the controller" in result["msg"]
    assert not playground.target.exists()
    (result,) = playground.play(playground.task(state="absent"), env={"PYTHONPATH": str(stub.parent)})
    assert result["changed"] is False
