# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that are compared: for each the command, the number of targets, and how to see that it did its work."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._probe.engine import unpack_result

from tests.bench.measure import BenchError, measure
from tests.bench.targets import CERTIFICATES, Address

TOP = Path(__file__).resolve().parents[2]
MODULE = "mailfleet.starttls.starttls_probe"
CLIENT_NAME = "client.bench.test"
HOST_CHECKS = ("versions", "injection", "resumption")  # dane and mta_sts are made on the controller, from the DNS


@dataclass(frozen=True)
class Contender:
    """A program and its targets. handshakes and ehlo_tls: how many of each per target the server has to see at least."""

    name: str
    label: str
    targets: int
    command: list[str]
    stdin: Optional[Path] = None
    env: Mapping[str, str] = field(default_factory=dict)
    handshakes: int = 1
    ehlo_tls: int = 0
    check: Callable[[Path], None] = lambda _output: None
    note: str = ""

    def environment(self) -> dict[str, str]:
        """What the program is run with."""
        return {**os.environ, "LC_ALL": "C.UTF-8", **self.env}


class Workshop:
    """Makes contenders: writes the files that they read into a directory of the run's own."""

    def __init__(self, directory: Path, programs: Path) -> None:
        self._directory = directory
        self._programs = programs
        self.ca_file = programs / "pki" / "ca.pem"
        self.python = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable

    def c_client(self, targets: Sequence[Address], concurrency: int = 200) -> Contender:
        """The yardstick."""
        command = [str(self._programs / "client"), "--ca", str(self.ca_file), "--concurrency", str(concurrency)]
        return Contender("c", "C client", len(targets), command, self._list(targets), ehlo_tls=1)

    def go_client(self, targets: Sequence[Address], concurrency: int = 200) -> Contender:
        """Stands for the scanners that are written in Go. On one core, where it needs the least CPU."""
        command = [str(self._programs / "client-go"), "-ca", str(self.ca_file), "-concurrency", str(concurrency)]
        return Contender(
            "go", "Go crypto/tls", len(targets), command, self._list(targets), {"GOMAXPROCS": "1"}, ehlo_tls=1
        )

    def module(self, name: str, label: str, targets: Sequence[Address], **options: Any) -> Contender:
        """Our module, as the program that Ansible copies to a host and runs there."""
        survey = options.get("mode") == "survey"
        return Contender(
            name,
            label,
            len(targets),
            [self.python, str(self._capture(name, self._module_arguments(targets, options)))],
            handshakes=0 if survey else 1,
            ehlo_tls=0 if survey else 1,
            check=lambda output: check_results(module_results(output), len(targets), options),
        )

    def judged_survey(self, targets: Sequence[Address]) -> Contender:
        """A survey and what the controller adds to it, without Ansible's own share: two processes."""
        survey = self.module("survey_judged", "  with chain and key judged", targets, mode="survey")
        script = 'program=$1 output=$2; shift 2; "$0" "$program" >"$output" && exec "$@"'
        output = self._directory / "survey_judged.json"
        judge = [sys.executable, str(TOP / "tests/bench/assess_survey.py"), str(output), str(self.ca_file)]
        command = ["sh", "-c", script, *survey.command, str(output), *judge]
        return replace(survey, command=command, check=lambda _output: None)

    def module_through_ansible(self, name: str, label: str, targets: Sequence[Address], **options: Any) -> Contender:
        """Our module as one task of a playbook, with the controller's share and the judgement there."""
        play = self._play(name, "localhost", [{"name": "Test", MODULE: self._module_arguments(targets, options)}])
        command = [self._ansible_playbook(), "-i", "localhost,", str(play)]
        needed = 0 if options.get("mode") == "survey" else 1
        return Contender(name, label, len(targets), command, None, self._ansible(), handshakes=needed, ehlo_tls=needed)

    def task_per_host(self, targets: Sequence[Address], forks: int) -> Contender:
        """What playbooks do without a module for it: a command on every host."""
        hosts = {
            f"mx{index}": {"bench_connect": f"{one.host}:{one.port}", "bench_name": one.name}
            for index, one in enumerate(targets)
        }
        inventory = self._write("hosts.json", json.dumps({"all": {"hosts": hosts}}))
        argv = [*self._s_client(), "-connect", "{{ bench_connect }}", "-servername", "{{ bench_name }}"]
        play = self._play("hosts", "all", [{"name": "Test", "ansible.builtin.command": {"argv": argv, "stdin": ""}}])
        command = [self._ansible_playbook(), "-i", str(inventory), "--forks", str(forks), str(play)]
        return Contender("ansible", "Ansible, a task per host", len(targets), command, None, self._ansible())

    def verify_role(self, targets: Sequence[Address]) -> tuple[Contender, Path]:
        """The role verify on hosts that each test themselves, and the directory where modules leave a trace of each call."""
        calls = self._directory / "calls"
        hosts = {
            f"mx{index}": {
                "starttls_hostname": one.name,
                "starttls_port": one.port,
                "verify_address": one.host,
                "verify_ca_file": str(self.ca_file),
                "ansible_remote_tmp": str(calls / f"mx{index}"),
            }
            for index, one in enumerate(targets)
        }
        inventory = self._write("verify.json", json.dumps({"all": {"hosts": hosts}}))
        play = self._play("verify", "all", [], roles=["mailfleet.starttls.verify"])
        command = [self._ansible_playbook(), "-i", str(inventory), str(play)]
        environment = {**self._ansible(), "ANSIBLE_KEEP_REMOTE_FILES": "1"}
        return Contender("verify", "role verify", len(targets), command, None, environment, ehlo_tls=1), calls

    def nmap(self, targets: Sequence[Address]) -> Contender:
        """EHLO and the certificate by two scripts: the same questions, but trust is not judged nor EHLO repeated in TLS."""
        output = self._directory / "nmap.xml"
        ports = sorted({one.port for one in targets})
        if ports != [25]:
            raise BenchError("nmap takes no port but 25 for SMTP")
        command = ["nmap", "-n", "-Pn", "-p", "25", "--script", "smtp-commands,ssl-cert"]
        command += ["-iL", str(self._list(targets, lambda one: one.host)), "-oX", str(output)]
        return Contender(
            "nmap",
            "nmap smtp-commands,ssl-cert",
            len(targets),
            command,
            check=lambda _output: check_nmap(output, len(targets)),
        )

    def sslyze(self, targets: Sequence[Address]) -> Contender:
        """The certificate alone: no comparison with a TLS profile, nothing else scanned."""
        output = self._directory / "sslyze.json"
        listed = self._list(targets, lambda one: f"{one.name}:{one.port}{{{one.host}}}")
        command = [str(self._programs / "sslyze"), "--starttls", "smtp", "--certinfo", "--mozilla_config", "disable"]
        command += ["--certinfo_ca_file", str(self.ca_file), "--targets_in", str(listed), "--json_out", str(output)]
        return Contender(
            "sslyze",
            "sslyze --certinfo",
            len(targets),
            command,
            check=lambda _output: check_sslyze(output, len(targets)),
        )

    def s_client(self, targets: Sequence[Address], parallel: int) -> Contender:
        """A process per target."""
        listed = self._list(targets, lambda one: f"-connect {one.host}:{one.port} -servername {one.name}")
        command = ["xargs", f"-P{parallel}", "-L1", *self._s_client()]
        return Contender("s_client", f"openssl s_client -P{parallel}", len(targets), command, listed)

    def posttls_finger(self, targets: Sequence[Address], parallel: int) -> Contender:
        """A process per target. Raises BenchError where there is no Postfix."""
        if not shutil.which("posttls-finger"):
            raise BenchError("Postfix is not installed")
        listed = self._list(targets, lambda one: f"[{one.host}]:{one.port} {one.name}")
        command = ["xargs", f"-P{parallel}", "-L1", "posttls-finger", "-c", "-l", "verify", "-F", str(self.ca_file)]
        return Contender("posttls_finger", f"posttls-finger -P{parallel}", len(targets), command, listed, ehlo_tls=1)

    def _s_client(self) -> list[str]:
        return ["openssl", "s_client", "-starttls", "smtp", "-name", CLIENT_NAME, "-CAfile", str(self.ca_file),
                "-verify_return_error", "-brief"]  # fmt: skip

    def _module_arguments(self, targets: Sequence[Address], options: Mapping[str, Any]) -> dict[str, Any]:
        listed = [{"host": one.host, "port": one.port, "name": one.name} for one in targets]
        return {"targets": listed, "ca_file": str(self.ca_file), **options}

    def _capture(self, name: str, arguments: Mapping[str, Any]) -> Path:
        """Let Ansible run the module once and keep the program that it copied to the host."""
        kept = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._directory))
        play = self._play(name, "localhost", [{"name": "Test", MODULE: dict(arguments)}])
        environment = {
            **os.environ,
            **self._ansible(),
            "ANSIBLE_KEEP_REMOTE_FILES": "1",
            "ANSIBLE_REMOTE_TMP": str(kept),
        }
        command = [self._ansible_playbook(), "-i", "localhost,", str(play)]
        output = self._directory / f"{name}.capture"
        try:
            measure(command, output, env=environment)
        except BenchError as error:
            said = re.search(r'"msg": "(.*?)"[,}]', output.read_text(errors="replace"))
            raise BenchError(f"the module fails: {said[1]}" if said else str(error)) from error
        programs = list(kept.glob("*/AnsiballZ_*.py"))
        if len(programs) != 1:
            raise BenchError(f"Ansible left {len(programs)} programs of the module instead of one")
        return programs[0]

    def _ansible_playbook(self) -> str:
        return str(Path(sys.executable).parent / "ansible-playbook")

    def _ansible(self) -> dict[str, str]:
        return {
            "ANSIBLE_CONFIG": str(TOP / ".lab/ansible.cfg"),
            "ANSIBLE_HOME": str(self._directory / "ansible"),
            "ANSIBLE_REMOTE_TMP": str(self._directory / "remote"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        }

    def _play(self, name: str, hosts: str, tasks: Sequence[Any], roles: Sequence[str] = ()) -> Path:
        play = {
            "name": name,
            "hosts": hosts,
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": self.python},
            "roles": list(roles),
            "tasks": list(tasks),
        }
        return self._write(f"{name}.play.json", json.dumps([play]))

    def _list(self, targets: Sequence[Address], line: Callable[[Address], str] = str) -> Path:
        text = "".join(f"{line(one)}\n" for one in targets)
        return self._write(f"targets-{abs(hash(text)):x}", text)

    def _write(self, name: str, text: str) -> Path:
        path = self._directory / name
        path.write_text(text)
        return path


def module_results(output: Path) -> list[dict[str, Any]]:
    """What the module said. Raises BenchError if it said nothing of use."""
    try:
        results: list[dict[str, Any]] = unpack_result(json.loads(output.read_bytes()))["results"]
    except (ValueError, KeyError) as error:
        raise BenchError(f"the module gave no results: {output.read_bytes()[:500]!r}") from error
    return results


def check_results(results: Sequence[Mapping[str, Any]], targets: int, options: Mapping[str, Any]) -> None:
    """Raise BenchError unless every target was tested without a fault, showed its certificate and has the right verdicts."""
    expected: dict[str, Any] = {"code": ""}
    if options.get("mode") != "survey":  # whose chains are judged on the controller
        expected |= {"completed": True, "trusted": True}
    if "versions" in options.get("checks", ()):
        expected["versions"] = {"TLSv1": False, "TLSv1.1": False, "TLSv1.2": True, "TLSv1.3": True}
    if "resumption" in options.get("checks", ()):
        expected["resumption"] = True
    for key, value in expected.items():
        wrong = [one for one in results if one[key] != value]
        if wrong:
            raise BenchError(f"{len(wrong)} targets have another {key} than {value}, such as {shorten(wrong[0])}")
    seen = len({one["fingerprint_sha256"] for one in results})
    if len(results) != targets or seen != min(targets, CERTIFICATES):
        raise BenchError(f"{len(results)} results and {seen} certificates for {targets} targets")


def shorten(result: Mapping[str, Any]) -> str:
    """A result without what is long."""
    return str(
        {key: result.get(key) for key in ("host", "port", "stage", "code", "message", "verify_error", "versions")}
    )


def check_nmap(output: Path, targets: int) -> None:
    """Raise BenchError unless both scripts have a result for every target."""
    text = output.read_text(errors="replace")
    for script in ("smtp-commands", "ssl-cert"):
        found = len(re.findall(rf'<script id="{script}"', text))
        if found != targets:
            raise BenchError(f"{script} has results for {found} of {targets} targets")


def check_sslyze(output: Path, targets: int) -> None:
    """Raise BenchError unless the certificates of every target were read and trusted."""
    try:
        results = json.loads(output.read_bytes())["server_scan_results"]
        good = 0
        for one in results:
            deployment = one["scan_result"]["certificate_info"]["result"]["certificate_deployments"][0]
            good += any(path["was_validation_successful"] for path in deployment["path_validation_results"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BenchError(f"sslyze gave no results: {error!r}") from error
    if good != targets:
        raise BenchError(f"sslyze trusts {good} of {targets} targets")
