"""Keys, API secrets and passwords that a user gives are nowhere to be seen: real runs, as talkative as they can be.

Searched are all that is printed, the log file, what callbacks get, the cache of facts, the host's log, the plan and the reports,
what is left in temporary directories, and the arguments of each process while it runs.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.support.canned_host import canned_host
from tests.support.fake_mailcow import KEY, FakeMailcow
from tests.support.fake_proxmox import PASSWORD, FakeProxmox
from tests.support.plan_states import config, gateway, server
from tests.support.planted import Planted, Watched
from tests.support.playbooks import PLAYBOOKS, ROOT, command, environment
from tests.support.smtp_server import refused_port

OURS = "mailfleet.starttls"
NAMES = {"gw1": "gw1.test", "m1": "m1.test"}
IMAP_PASSWORD = 'it\'s \\a "geheimes" Passwört & <mehr>'
URL_PASSWORD = "url-Pa55wort%40mit:allem"
PKCS12_PASSWORD = "pkcs12 Pa55wort's \\ own"
WRONG_PASSWORD = "a-wr0ng\\Pass'wort"


def answers(host: str) -> dict[str, Any]:
    """What a host says that is ready for TLS, and then has it."""
    drift = {"obstacles": [], "drift": True}
    read = gateway(host, **drift) if host.startswith("gw") else server(host, **drift)
    change = {
        "changed": True, "before": {"inbound": "disabled"}, "after": {"inbound": "offered"}, "kind": "postfix", "digests": {},
        "diff": [{"prepared": "+smtpd_tls_security_level = may\n"}],
    }  # fmt: skip
    read["probe"] = {"results": [], "certificates": {}}
    trace = {"changed": False, "sent": [], "received": []}
    return {
        "mail_server_info": read, "gateway_info": read, "mail_server_tls": change, "gateway_tls": change, "message_trace": trace,
        "starttls_probe": {"changed": False, "results": [], "certificates": {}, "expectations": []},
        "tls_activity_info": {"changed": False, "failed": True, "msg": "no log"},
    }  # fmt: skip


SYSTEMD = {
    "__init__": "",
    "daemon": "def booted():\n    return True\n",
    "journal": (
        "import os\n"
        "def send(*words, **more):\n"
        "    with open(os.environ['JOURNAL'], 'a') as file:\n"
        "        print(*words, *(f'{name}={value}' for name, value in more.items()), file=file)\n"
        "def sendv(*words):\n    send(*words)\n"
    ),
}
"""A package like python3-systemd, by which modules write to the host's log."""


class Run:
    """A run's inventory and what it may not show. Below given is what the user keeps; all else below the directory is searched."""

    def __init__(self, directory: Path, authority: Any) -> None:
        self.directory, self.given = directory, directory / "given"
        self.given.mkdir()
        self.kept = directory / "kept"
        self.kept.mkdir()
        self.planted = Planted()
        self.issued = authority.issue(list(NAMES.values()), key="rsa")
        self.root = authority.root_pem().decode() if callable(authority.root_pem) else authority.root_pem.decode()
        self.key = self.planted.key("key", self.issued.key_pem)
        (self.given / "mx.key").write_text(self.key)
        for name, secret in (
            ("API password", PASSWORD), ("API key", KEY), ("IMAP password", IMAP_PASSWORD), ("password of a URL", URL_PASSWORD),
            ("wrong API password", WRONG_PASSWORD), ("password of a PKCS#12 file", PKCS12_PASSWORD),
        ):  # fmt: skip
            self.planted.text(name, secret)
        chain = x509.load_pem_x509_certificates(self.issued.fullchain_pem)
        how = serialization.BestAvailableEncryption(PKCS12_PASSWORD.encode())
        packed = pkcs12.serialize_key_and_certificates(b"mx", self.issued.key, chain[0], chain[1:], how)
        self.pkcs12 = self.planted.text("PKCS#12 file", base64.b64encode(packed).decode())

    def inventory(self) -> dict[str, Any]:
        hosts: dict[str, dict[str, Any]] = {
            host: {**canned_host(self.given / host, answers(host)), "starttls_hostname": name}
            for host, name in NAMES.items()
        }
        here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        landing = {
            "imap": {"host": "127.0.0.1", "port": refused_port(), "tls": "none", "user": "u", "password": IMAP_PASSWORD}
        }
        everywhere = {
            "email_configs": [config("main", "m1", mode="opportunistic")],
            "starttls_private_key_content": self.key, "starttls_certificate_content": self.issued.fullchain_pem.decode(),
            "starttls_ca_content": self.root, "starttls_landing": landing, "starttls_api_password": PASSWORD, "starttls_api_key": KEY,
            "starttls_report_directory": str(self.directory / "reports"), "starttls_plan_file": str(self.directory / "plan.json"),
            "imap_password": IMAP_PASSWORD, "wrong": WRONG_PASSWORD, "pkcs12_password": PKCS12_PASSWORD, "pkcs12_content": self.pkcs12,
            "with_userinfo": f"https://user:{URL_PASSWORD}@gateway.test:8006", "imap_with_userinfo": f"imap://u:{URL_PASSWORD}@127.0.0.1",
            "starttls_report_formats": ["html", "json", "csv", "junit", "prometheus"], "starttls_trace_address": "u@example.com",
        }  # fmt: skip
        return {
            "all": {
                "vars": everywhere,
                "hosts": {"localhost": here, "out": {**here, "starttls_trace_address": "out@example.com"}},
                "children": {
                    "mail_gateways": {"hosts": {"gw1": hosts["gw1"]}},
                    "mail_servers": {"hosts": {"m1": hosts["m1"]}},
                },
            }
        }  # fmt: skip

    def play(self, plays: list[dict[str, Any]], *words: str, **env: str) -> str:
        """Run the plays and return what they printed. Fails if a secret is seen anywhere."""
        library = self.given / "python" / "systemd"
        library.mkdir(parents=True, exist_ok=True)
        for name, text in SYSTEMD.items():
            (library / f"{name}.py").write_text(text)
        (self.directory / "reports").mkdir(exist_ok=True)
        more = {
            "ANSIBLE_LOG_PATH": str(self.directory / "log"), "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "1",
            "ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(self.directory / "facts"),
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/support/callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "whole_results", "WHOLE_RESULTS": str(self.directory / "results"),
            "JOURNAL": str(self.directory / "journal"), "PYTHONPATH": str(library.parent), "HOME": str(self.directory / "home"), **env,
        }  # fmt: skip
        with Watched() as watched:
            done = subprocess.run(
                command(self.given, self.inventory(), plays, "-vvvv", "--diff", *words), cwd=self.given,
                env={**environment(self.directory), **more}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=900, check=False,
            )  # fmt: skip
        (self.directory / "output").write_bytes(done.stdout)
        assert any(b"ansible-playbook" in words for words in watched.seen)
        assert [words for words in watched.seen if self.planted.found(words)] == []
        assert self.searched() == {}
        return done.stdout.decode()

    def searched(self) -> dict[str, list[str]]:
        """File -> the secrets in it, of all files that the user did not put there."""
        files = [path for path in self.directory.rglob("*") if path.is_file() and self.given not in path.parents]
        found = {str(path): self.planted.found(path.read_bytes()) for path in files if self.kept not in path.parents}
        return {path: names for path, names in found.items() if names}

    def logged(self, module: str) -> str:
        """What the host's log has of a module."""
        return "\n".join(line for line in (self.directory / "journal").read_text().splitlines() if module in line)


@pytest.fixture
def run(tmp_path: Path, authority: Any) -> Run:
    return Run(tmp_path, authority)


def attempt(module: str, **options: Any) -> dict[str, Any]:
    """A task that may fail."""
    return {f"{OURS}.{module}": options, "ignore_errors": True, "register": "result"}


def of_one_host(run: Run, every: bool) -> Iterator[dict[str, Any]]:
    """Tasks for a real host: the certificate, and what a mail server there would get."""
    install = {
        "certificate_content": run.issued.fullchain_pem.decode(), "ca_content": run.root, "names": list(NAMES.values()),
    }  # fmt: skip
    content = {**install, "private_key_content": "{{ starttls_private_key_content }}"}
    sources = [content]
    if every:
        two_keys = {**content, "private_key_content": "{{ starttls_private_key_content * 2 }}"}
        in_chain = {**content, "chain_content": "{{ starttls_private_key_content }}"}
        sources += [
            {**install, "private_key_file": str(run.given / "mx.key")},
            {**content, "names": ["other.test"]},
            two_keys,
            in_chain,
        ]
    for source in sources:
        yield attempt("tls_certificate", path=str(run.kept / "x.pem"), **source)
        for module in (
            ("mail_server_tls", "mail_server_info", "gateway_tls", "gateway_info") if every else ("mail_server_tls",)
        ):
            task = attempt(module, inbound="offered", install=source, certificate=str(run.kept / "x.pem"))
            yield {**task, "check_mode": True}  # this may be a mail server


def of_pkcs12(run: Run, every: bool) -> Iterator[dict[str, Any]]:
    """Tasks with a PKCS#12 file, and with another password than its own."""
    packed = {
        "pkcs12_content": "{{ pkcs12_content }}", "pkcs12_password": "{{ pkcs12_password }}", "ca_content": run.root,
        "names": list(NAMES.values()),
    }  # fmt: skip
    yield attempt("tls_certificate", path=str(run.kept / "p.pem"), source="pkcs12", **packed)
    if every:
        wrong = {**packed, "pkcs12_password": "{{ wrong }}"}
        yield attempt("tls_certificate", path=str(run.kept / "p.pem"), source="pkcs12", **wrong)
        more = [{name: packed[name] for name in ("pkcs12_content", "pkcs12_password")}]
        content = {
            "private_key_content": "{{ starttls_private_key_content }}", "certificate_content": run.issued.fullchain_pem.decode(),
            "names": list(NAMES.values()), "more": more,
        }  # fmt: skip
        yield attempt("tls_certificate", path=str(run.kept / "p.pem"), **content)


def of_apis(proxmox: FakeProxmox, mailcow: FakeMailcow, every: bool) -> Iterator[dict[str, Any]]:
    """Tasks for gateways with an API: they log in, are refused, and have a URL that holds a password."""
    main = config("main", mode="required", domain="example.com") | {"servers": ["127.0.0.1:1"]}
    change = {"require_without_evidence": True, "timeout": 2}
    with_password = {
        "gateway": "proxmox",
        "api_url": proxmox.url,
        "api_user": "root@pam",
        "api_password": "{{ starttls_api_password }}",
    }
    with_key = {"gateway": "mailcow", "api_url": mailcow.url, "api_key": "{{ starttls_api_key }}"}
    for access in (
        with_password, with_key, {**with_password, "api_url": "{{ with_userinfo }}"}, {**with_password, "api_password": "{{ wrong }}"},
        *([{**with_key, "api_key": "{{ wrong }}"}, {**with_key, "api_url": "{{ with_userinfo }}"}] if every else []),
    ):  # fmt: skip
        yield attempt("gateway_tls", email_configs=[main], **change, **access)
        if every:
            yield attempt("gateway_info", email_configs=[main], **access)
            yield attempt("inbound_tls_mode", **main, **change, **access)
            yield attempt("inbound_tls_mode_info", **access)


def of_mailboxes() -> Iterator[dict[str, Any]]:
    """Tasks that wait for a message in an IMAP mailbox."""
    landings = (
        f"['m1'] | {OURS}.trace_messages(hostvars, 'out', 'x') | {OURS}.trace_landings('inbound', 'm1', hostvars)"
    )
    yield attempt("message_trace", receive="{{ " + landings + " }}", timeout=0)
    bad = {"host": "{{ imap_with_userinfo }}", "user": "u", "password": "{{ imap_password }}"}
    yield attempt("message_trace", receive=[{"marker": "a", "imap": bad}, {"marker": "b", "mailbox": "/nowhere/x"}], timeout=0) | {
        "until": "result is succeeded", "retries": 1, "delay": 0,
    }  # fmt: skip


def one_play(tasks: Iterable[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"hosts": "localhost", "gather_facts": False, "tasks": list(tasks), **more}


def see(run: Run, every: bool, *words: str, **env: str) -> None:
    """Run all tasks on this machine, and see that they did what they are for."""
    with FakeProxmox(relay="127.0.0.1", relayport=1, relaynomx=1) as proxmox, FakeMailcow() as mailcow:
        mailcow.transports = [mailcow._row(("example.com", "[127.0.0.1]:1"), ("destination", "nexthop"))]
        tasks = [*of_one_host(run, every), *of_pkcs12(run, every), *of_apis(proxmox, mailcow, every), *of_mailboxes()]
        plan = {"import_playbook": str(PLAYBOOKS / "plan_tls.yml")}
        out = run.play([plan, one_play(tasks)], *words, **env)
        assert bool(proxmox.policies and mailcow.writes()) is ("--check" not in words), out
    assert "may hold neither a user, a password nor a query" in out
    assert ("imap: 127.0.0.1" in out) is ("--check" not in words)
    assert json.loads((run.directory / "plan.json").read_text())["hosts"]["m1"]["state"] == "drift"
    assert "bundle_content=NOT_LOGGING_PARAMETER" in run.logged("mail_server_tls")
    assert "imap_passwords=NOT_LOGGING_PARAMETER" in run.logged("message_trace")
    if "--check" not in words:
        assert (run.kept / "x.pem").read_text().startswith(run.key)
        assert (run.kept / "p.pem").read_text().startswith(run.key)


def test_no_secret_shows(run):
    see(run, every=False, ANSIBLE_PIPELINING="true")


@pytest.mark.exhaustive
@pytest.mark.parametrize(("word", "pipelining"), [("--forks=5", "false"), ("--check", "true")])
def test_no_secret_of_any_task_shows(run, word, pipelining):
    see(run, True, word, ANSIBLE_PIPELINING=pipelining)


@pytest.mark.exhaustive
@pytest.mark.parametrize("playbook", ["enable_tls", "disable_tls", "verify_tls", "report_tls"])
def test_no_secret_of_a_playbook_shows(run, playbook):
    run.play([{"import_playbook": str(PLAYBOOKS / f"{playbook}.yml")}])
