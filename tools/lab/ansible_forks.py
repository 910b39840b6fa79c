"""Runs ansible and ansible-playbook as often as asked, and loads them once: each run is a fork of this process.

It reads a JSON object a line: words are the program and its arguments; directory and environment, if they are given, are the
run's. What Ansible's constants took from the environment was that of this process. leave_out is a pattern: with --step, the answer
is no to the questions in which it is found. It answers with the exit status and the files that hold standard output and standard
error; with one_file that is one file, in the order in which it was written.
A start of Ansible costs a second of CPU; the scenarios make some hundred.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import tempfile
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import ansible.config
from ansible.cli import adhoc, playbook
from ansible.plugins.loader import (
    become_loader,
    callback_loader,
    connection_loader,
    inventory_loader,
    shell_loader,
    strategy_loader,
)
from ansible.utils.collection_loader import _collection_finder
from ansible.utils.display import Display

PROGRAMS = {"ansible": adhoc.AdHocCLI, "ansible-playbook": playbook.PlaybookCLI}


def child(run: dict[str, Any], output: int, errors: int) -> None:
    """Become Ansible; never returns."""
    status = 1
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (errors, 2)):
            os.dup2(source, target)
        if run.get("environment") is not None:
            os.environ.clear()
            os.environ.update(run["environment"])
            tempfile.tempdir = None
        os.chdir(run.get("directory", "."))
        if leave_out := run.get("leave_out"):
            Display.prompt = staticmethod(lambda message, *_, **__: "n" if re.search(leave_out, message) else "y")
        sys.argv = run["words"]
        PROGRAMS[sys.argv[0]].cli_executor(sys.argv)
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # the directory of this process is not the child's to clean up


def compiled(source: str | bytes, filename: str, **how: Any) -> CodeType | None:
    """What Python kept of a file that it compiled once; Ansible itself compiles a collection at each run."""
    if not source:  # a package without a file
        return compile(source, filename, **how)
    return SourceFileLoader("", filename).get_code("")


def load() -> None:
    """Load what each run loads at its beginning: plugins with their options and libraries, and where those of Ansible went."""
    for loader in (become_loader, callback_loader, connection_loader, inventory_loader, shell_loader, strategy_loader):
        list(loader.all(class_only=True))
    _collection_finder._meta_yml_to_dict = functools.cache(_collection_finder._meta_yml_to_dict)
    _collection_finder.compile = compiled
    moved = Path(ansible.config.__file__).with_name("ansible_builtin_runtime.yml").read_bytes()
    _collection_finder._meta_yml_to_dict(moved, ("ansible.builtin", "runtime.yml"))


def main() -> None:
    """Serve until standard input ends."""
    load()
    with tempfile.TemporaryDirectory() as place:
        paths = Path(place, "output"), Path(place, "errors")
        for line in sys.stdin:
            run = json.loads(line)
            with paths[0].open("wb") as output, paths[1].open("wb") as errors:
                pid = os.fork()
                if not pid:
                    child(run, output.fileno(), (output if run.get("one_file") else errors).fileno())
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            print(json.dumps([status, *map(str, paths)]), flush=True)


if __name__ == "__main__":
    main()
