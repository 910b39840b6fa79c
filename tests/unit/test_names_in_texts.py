"""What an advice, a finding, an error or the documentation tells a reader to run, set or read is there."""

from __future__ import annotations

import ast
import importlib
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.mailfleet.starttls.plugins.filter.fleet import FilterModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import MODES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import CATALOGUE
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.gateway_access import environment_names
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.variables import VARIABLES

TOP = Path(__file__).resolve().parents[2]
PLAYBOOKS = {path.stem for path in (TOP / "playbooks").glob("*.yml")}
MODULES = {path.stem for path in (TOP / "plugins/modules").glob("*.py")}
EVERY_MODULE = MODULES | {path.stem for path in (TOP / "plugins/modules").glob("*.ps1")}
ROLES = {path.name for path in (TOP / "roles").iterdir()}
DOCUMENTS = [
    TOP / "README.md",
    TOP / "CONTRIBUTING.md",
    TOP / "SECURITY.md",
    *TOP.glob("docs/*.md"),
    *TOP.glob("roles/*/README.md"),
]
INSTRUCTIONS = [*DOCUMENTS, *TOP.glob("playbooks/*.yml"), *TOP.glob("roles/*/meta/*.yml"), *TOP.glob("awx/*.yml")]

SETTINGS = {
    "AWX": {"job_slice_count"},
    "Ansible": {"ansible_connection", "ansible_python_interpreter"},
    "Exim": {
        "acl_smtp_mail", "auth_advertise_hosts", "dc_smarthost", "hosts_avoid_tls", "hosts_require_tls", "incoming_port",
        "local_interfaces", "log_selector", "openssl_options", "smtp_no_mail",
    },
    "Haraka": {"dest_domains", "disable_for_failed_hosts", "no_tls_hosts", "relay_dest_domains"},
    "MTA-STS": {"max_age"},
    "Postfix": {
        "content_filter", "parent_domain_matches_subdomains", "plaintext_reject_code", "smtp_tls_loglevel", "smtp_tls_security_level",
        "default_transport", "smtp_discard_ehlo_keywords", "inet_interfaces",
        "permit_mynetworks", "smtpd_recipient_restrictions", "smtpd_tls_auth_only", "smtpd_tls_protocols", "transport_maps",
    },
}  # fmt: skip
"""What others call their settings, as messages name them."""
CODES = {"not_tls", "too_large"}
"""Codes of the engine that are no text for users."""
WORD = re.compile(r"(?<![\w$/.-])[a-z]+(?:_[a-z0-9]+)+(?![\w/*-])")
"""A name of several parts."""
KEPT = {"email_configs", "mail_gateways", "mail_servers", "mail_outside"}
"""What an inventory has besides the variables with the prefix."""


@cache
def options() -> frozenset[str]:
    """The names of all options of modules and roles, at any depth, and of what modules return."""

    def below(found: Any) -> Iterator[str]:
        for name, option in (found or {}).items():
            yield name
            for deeper in ("options", "suboptions", "contains"):
                yield from below((option or {}).get(deeper)) if isinstance(option, dict) else ()

    names: set[str] = set()
    for module in MODULES:
        loaded = importlib.import_module(f"ansible_collections.mailfleet.starttls.plugins.modules.{module}")
        names |= set(below(loaded.ARGUMENT_SPEC)) | set(below(yaml.safe_load(loaded.RETURN)))
    for role in ROLES:
        for entry in yaml.safe_load((TOP / f"roles/{role}/meta/argument_specs.yml").read_text())[
            "argument_specs"
        ].values():
            names |= set(below(entry.get("options")))
    return frozenset(names)


def strings(node: ast.AST) -> Iterator[str]:
    """The text of an expression; what is filled in is a blank."""
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value


def messages() -> Iterator[tuple[str, str]]:
    """Where, and the text: of each error of the engine, each finding and each entry of the catalogue."""
    for path in sorted((TOP / "plugins").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func).rpartition(".")[2]
                if called.endswith(("Error", "Fail")) or called in ("Finding", "advised", "Entry", "Alert"):
                    for argument in [*node.args, *(one.value for one in node.keywords)]:
                        yield f"{path.relative_to(TOP)}:{node.lineno}", " ".join(strings(argument))


def known(word: str) -> bool:
    ours = KEPT | set(MODES) | PLAYBOOKS | EVERY_MODULE | ROLES | set(VARIABLES) | set(CATALOGUE) | options()
    return word in ours or any(word in settings for settings in SETTINGS.values())


def test_each_name_in_a_message_is_that_of_something():
    said = {(word, where) for where, text in messages() for word in WORD.findall(text) if word not in CODES}
    assert len(said) > 100
    assert sorted(one for one in said if not known(one[0])) == []


def test_a_name_that_is_none_is_found():
    for word in ("renew_certificates", "starttls_chain_path", "rotate_tls"):
        assert WORD.findall(f"run {word}; then look") == [word] and not known(word)


def words_of(picture: Path) -> str:
    """The words of the page that a picture shows, as tools/lab/picture keeps them."""
    data, place = picture.read_bytes(), 8
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        if kind == b"iTXt":
            return zlib.decompress(data[place + 8 : place + 8 + length].split(b"\0", 1)[1][4:]).decode()
        place += length + 12
    return ""


def test_the_picture_of_the_report_is_of_a_run_whose_advice_can_be_followed():
    words = words_of(TOP / "docs/images/report.png")
    assert "hosts pass" in words and "What needs attention" in words
    assert [word for word in WORD.findall(words) if not known(word)] == []


def instructions() -> Iterator[tuple[str, str]]:
    """Where, and the text: what is written for users, and each message."""
    yield from ((str(path.relative_to(TOP)), path.read_text()) for path in INSTRUCTIONS)
    yield "docs/images/report.png", words_of(TOP / "docs/images/report.png")
    yield from messages()


def named(pattern: str) -> set[tuple[str, str]]:
    """Each name of this pattern in the instructions, and where it stands."""
    return {(name.rstrip("."), where) for where, text in instructions() for name in re.findall(pattern, text)}


def without(there: Iterable[str], found: set[tuple[str, str]]) -> list[tuple[str, str]]:
    assert found
    every = set(there)
    return sorted(one for one in found if one[0] not in every)


def test_variables_of_an_inventory_and_of_the_environment():
    ours = {word for word, _where in named(r"\bstarttls_[a-z0-9_]*[a-z0-9]\b") if known(word)}
    assert without(ours, named(r"\bstarttls_[a-z0-9_]*[a-z0-9]\b")) == []
    environment = [name for name in options() if name.startswith("api_")]
    names = {variable for option in environment for variable in environment_names(option, "name")}
    assert without(names, named(r"\bMAILFLEET_API_\w+")) == []


def test_what_is_called_by_the_name_of_the_collection():
    groups = set(yaml.safe_load((TOP / "meta/runtime.yml").read_text())["action_groups"])
    there = PLAYBOOKS | EVERY_MODULE | ROLES | groups | set(FilterModule().filters()) | {"NAME"}
    assert without(there, named(r"\bmailfleet\.starttls\.(\w+)")) == []


def test_playbooks_and_files():
    """A file of the reader's own, or of a product, is not looked for."""
    places = [
        "",
        "playbooks/",
        *(f"roles/{role}/tasks/" for role in ROLES),
        *(f"roles/{role}/" for role in ROLES),
        "awx/",
        "tools/lab/",
    ]
    own = {
        "inventory.yml",
        "mine.yml",
        ".lab/inventory.yml",
        ".lab/dev/inventory.yml",
        "smtp.yaml",
        "molecule/NAME/lab/fleet.yml",
    }
    found = named(r"[\w./-]+\.ya?ml\b")
    assert (
        without([*own, *(name for name, _ in found if any((TOP / place / name).is_file() for place in places))], found)
        == []
    )
    found = named(r"(?<![\w/.-])(?:docs|roles|plugins|playbooks|tests|tools|molecule|awx|meta)/[\w./-]*[\w/]")
    made = {name for name, _ in found if "NAME" in name or name.startswith("tests/output")}
    places = ["", *(f"roles/{role}" for role in ROLES)]
    assert (
        without([*made, *(name for name, _ in found if any((TOP / place / name).exists() for place in places))], found)
        == []
    )


def test_targets_of_make():
    rules = re.findall(r"^([a-z-]+(?: [a-z-]+)*):", (TOP / "Makefile").read_text(), re.M)
    found = {(name, where) for name, where in named(r"(?:`|\n)make ([a-z][a-z-]*)(?=[` \n])") if where.endswith(".md")}
    found = {one for one in found if one[0] not in ("and", "it", "the", "a", "mail", "tests")}
    assert without(" ".join(rules).split(), found) == []


def commands() -> list[str]:
    """The lines of the documents that are to be typed."""
    found = []
    for path in DOCUMENTS:
        for block in re.findall(r"^ *```console\n(.*?)^ *```", path.read_text(), re.M | re.S):
            found += [line.partition(" # ")[0].strip() for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
    return [line for line in found if line]


PROGRAMS = {
    "make", "export", "podman", "pip", "ssh", "ansible-playbook", ".venv/bin/ansible-playbook", "ansible-galaxy", "python3",
    "openssl",
}  # fmt: skip
"""What a reader has who follows the documents."""


def test_commands():
    lines = commands()
    assert len(lines) > 15 and {line.split()[0] for line in lines} <= PROGRAMS
    program = Path(sys.executable).with_name("ansible-playbook")
    takes = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    for line in lines:
        words = line.split()
        if not words[0].endswith("ansible-playbook"):
            continue
        assert any(word.startswith(("mailfleet.starttls.", "playbooks/", "awx/")) for word in words), line
        for word in words:
            if word.startswith("--"):
                assert re.search(rf"{word}\b", takes), line
