"""Jobs as AWX runs them: ansible-runner on a project's checkout, in a private data directory that ends with the job.

As in AWX 24: where files lie, how answers are written, what the environment has, and that nobody sits at the terminal. AWX's repository
has it in awx/main/tasks/jobs.py and awx/playbooks/project_update.yml.
"""

from __future__ import annotations

import functools
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
IDLE = 600
"""Seconds without output after which a job is ended. A question would wait for ever, a task on a busy machine does not."""
ADDRESS = "https://example.com/mailfleet/starttls.git"
"""What collections/requirements.yml has, until somebody's own repository is named there."""


class Answers(yaml.SafeDumper):
    """YAML in which no text is a template, as AWX writes the answers of a survey."""


Answers.add_representer(str, lambda dumper, text: dumper.represent_scalar("!unsafe", text))


def run(*command: str, cwd: Path, env: Mapping[str, str]) -> str:
    """Run a program that has to succeed, and return what it prints."""
    done = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}"
    return done.stdout


@dataclass(frozen=True)
class Credentials:
    """What AWX puts beside a job: the key and the user of the hosts, and what a credential type of the user's injects."""

    user: str
    ssh_key: str
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Variable -> content of a file; the variable has its path."""


@dataclass(frozen=True)
class Done:
    """How a job ended. status is that of ansible-runner: successful, failed, timeout."""

    status: str
    output: str
    events: list[dict[str, Any]]

    @functools.cached_property
    def artifacts(self) -> dict[str, Any]:
        """What the job sets by set_stats. AWX shows it, and hands it to the next jobs of a workflow."""
        found = [one["event_data"].get("artifact_data") for one in self.events if one["event"] == "playbook_on_stats"]
        return found[-1] or {} if found else {}

    @property
    def failure(self) -> str:
        """Why it did not succeed, before all that it printed."""
        fatal = [line.strip() for line in self.output.splitlines() if line.startswith(("fatal:", "ERROR", "[ERROR]"))]
        return "\n".join([f"the job's status: {self.status}", *fatal, self.output])

    @property
    def changed(self) -> set[str]:
        """The hosts on which something changed."""
        return {
            one["event_data"]["host"]
            for one in self.events
            if one["event"] == "runner_on_ok" and one["event_data"]["res"].get("changed")
        }


class Project:
    """A project of AWX: somebody's own copy of the repository, checked out, and what its requirements name, installed."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.played: list[str] = []
        self.home = place / "home"
        self.home.mkdir(parents=True)
        self.environment = {
            "HOME": str(self.home), "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8",
        }  # fmt: skip
        repository = self._repository()
        self.checkout, self.collections = place / "project", place / "requirements_collections"
        self._run("git", "clone", "--quiet", repository, str(self.checkout), cwd=place)
        self.installed = self._run(
            "ansible-galaxy", "collection", "install", "-r", "collections/requirements.yml",
            "--collections-path", str(self.collections), cwd=self.checkout,
        )  # fmt: skip

    def _run(self, *command: str, cwd: Path) -> str:
        return run(*command, cwd=cwd, env=self.environment)

    def _repository(self) -> str:
        """Make a repository of the tree as it is, whether committed or not, and return its address."""
        copy = self.place / "repository"
        shutil.copytree(TOP, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.tar.gz"))
        address = f"file://{copy}"
        requirements = copy / "collections/requirements.yml"
        text = requirements.read_text()
        assert ADDRESS in text
        requirements.write_text(text.replace(ADDRESS, address))
        git = ("git", "-c", "user.name=lab", "-c", "user.email=lab@example.com", "-c", "init.defaultBranch=main")
        for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "as it is")):
            self._run(*git, *words, cwd=copy)
        return address


class Awx:
    """Starts jobs, those of one workflow. inventory: as an inventory script prints it."""

    def __init__(self, project: Project, inventory: Mapping[str, Any], credentials: Credentials) -> None:
        self.project, self.inventory, self.credentials = project, inventory, credentials
        self.artifacts: dict[str, Any] = {}

    def job(self, playbook: str, answers: Mapping[str, Any], verbosity: int = 0) -> Done:
        """Run a playbook as a job of a workflow, whose former jobs hand over their artifacts. answers: of the survey."""
        self.project.played.append(playbook)
        number = len(self.project.played)
        place = self.project.place / f"job-{number}"
        try:
            self._prepare(place, number, answers, verbosity)
            done = self._play(place, str(number), playbook)
        finally:
            self._end(place)
        self.artifacts |= done.artifacts
        return done

    def _prepare(self, place: Path, number: int, answers: Mapping[str, Any], verbosity: int) -> None:
        for name in ("env", "inventory", "cp", "home", "tmp"):
            (place / name).mkdir(mode=0o700, parents=True)
        run("git", "clone", "--quiet", "--shared", str(self.project.checkout), str(place / "project"),
            cwd=place, env=self.project.environment)  # fmt: skip
        (place / "requirements_collections").symlink_to(self.project.collections)
        script = place / "inventory/hosts"
        script.write_text(f"#!/usr/bin/env python3\nprint({json.dumps(self.inventory)!r})\n")
        script.chmod(0o700)
        words = ["-u", self.credentials.user, "--become", *self._files(place)]
        words += [f"-{'v' * verbosity}"] if verbosity else []
        env = {
            "ANSIBLE_COLLECTIONS_PATH": f"{place}/requirements_collections", "ANSIBLE_INJECT_FACT_VARS": "false",
            "ANSIBLE_PIPELINING": "true",  # as most set it; the scenario own_fleet goes without
            "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{place}/cp", "HOME": f"{place}/home", "TMPDIR": f"{place}/tmp", "JOB_ID": str(number),
            **self.credentials.environment,
        }  # fmt: skip
        variables = {**self.artifacts, **answers, "awx_job_id": number, "tower_job_id": number}
        for name, text in {
            "cmdline": shlex.join(words), "envvars": json.dumps(env), "ssh_key": self.credentials.ssh_key,
            "settings": json.dumps({"idle_timeout": IDLE, "suppress_ansible_output": True}),
            "extravars": yaml.dump(variables, Dumper=Answers),
        }.items():  # fmt: skip
            self._write(place / "env" / name, text)

    def _files(self, place: Path) -> list[str]:
        """Write the files of a credential, and the variables that have their paths."""
        if not self.credentials.files:
            return []
        paths = {}
        for number, (variable, text) in enumerate(self.credentials.files.items()):
            paths[variable] = str(place / f"env/file{number}")
            self._write(Path(paths[variable]), text)
        self._write(place / "env/injected", yaml.dump(paths, Dumper=Answers))
        return ["-e", f"@{place}/env/injected"]

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.touch(mode=0o600)
        path.write_text(text)

    def _play(self, place: Path, ident: str, playbook: str) -> Done:
        """Run the playbook in a session of its own, which has no terminal."""
        ran = subprocess.run(
            [BIN / "ansible-runner", "run", str(place), "--ident", ident, "--playbook", f"playbooks/{playbook}.yml"],
            cwd=place, env=self.project.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            start_new_session=True, check=False,
        )  # fmt: skip
        artifacts = place / "artifacts" / ident
        assert (artifacts / "status").exists(), ran.stdout + ran.stderr
        files = sorted((artifacts / "job_events").glob("*.json"), key=lambda path: int(path.name.partition("-")[0]))
        return Done(
            status=(artifacts / "status").read_text(),
            output=(artifacts / "stdout").read_text(errors="replace"),
            events=[json.loads(file.read_text()) for file in files],
        )

    @staticmethod
    def _end(place: Path) -> None:
        """What a pod's end does: nothing of the job is left, neither its connections nor its files."""
        for socket in (place / "cp").glob("*"):
            subprocess.run(
                ["ssh", "-F", "none", "-o", f"ControlPath={socket}", "-O", "exit", "host"],
                capture_output=True,
                check=False,
            )
        shutil.rmtree(place, ignore_errors=True)
