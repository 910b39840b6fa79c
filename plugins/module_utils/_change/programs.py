# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts programs for the engine where there is no Ansible: without a shell, in the C locale, with a fixed search path."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Sequence

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import postponed

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SECONDS_TO_END = 10.0


def run(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Start a program, and return its exit status, standard output and standard error. Raises OSError if it is not there.

    A signal that interrupts it is obeyed after its end: it must not change files after they are restored.
    """
    environment = {**os.environ, "LC_ALL": "C", "PATH": SEARCH_PATH}
    with postponed() as go_on:
        program = subprocess.Popen(  # noqa: S603  (the engine's own words)
            list(arguments),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            go_on()
            out, err = program.communicate()
        except BaseException:
            _end(program)
            raise
    return program.returncode, out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "surrogateescape")


def _end(program: subprocess.Popen[bytes]) -> None:
    try:
        program.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        program.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(1.0)
