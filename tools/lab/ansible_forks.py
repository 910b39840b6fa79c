"""Runs ansible and ansible-playbook as often as asked, and loads them once: each run is a fork of this process.

It reads a JSON list a line, the program and its arguments, and answers with the exit status and the files that hold standard
output and standard error.
A start of Ansible costs a second of CPU; the scenarios make some hundred.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

from ansible.cli import adhoc, playbook
from ansible.plugins.loader import become_loader, connection_loader, shell_loader

PROGRAMS = {"ansible": adhoc.AdHocCLI, "ansible-playbook": playbook.PlaybookCLI}


def child(arguments: list[str], output: int, errors: int) -> None:
    """Become Ansible; never returns."""
    status = 1
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (errors, 2)):
            os.dup2(source, target)
        sys.argv = arguments
        PROGRAMS[arguments[0]].cli_executor(arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # the directory of this process is not the child's to clean up


def load() -> None:
    """Load what each run loads at its beginning: all ways to a host, their options, and the libraries for them."""
    for loader in (connection_loader, shell_loader, become_loader):
        list(loader.all(class_only=True))


def main() -> None:
    """Serve until standard input ends."""
    load()
    with tempfile.TemporaryDirectory() as place:
        paths = Path(place, "output"), Path(place, "errors")
        for line in sys.stdin:
            with paths[0].open("wb") as output, paths[1].open("wb") as errors:
                pid = os.fork()
                if not pid:
                    child(json.loads(line), output.fileno(), errors.fileno())
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            print(json.dumps([status, *map(str, paths)]), flush=True)


if __name__ == "__main__":
    main()
