# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible connection for tests, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = """
name: pwsh_pipe
short_description: Run PowerShell modules in a PowerShell on the controller
description: A Windows host for tests. What psrp would send to a host goes to a process of PowerShell here, by its standard input.
options:
  pwsh:
    description: The program.
    type: str
    required: true
    vars: [{name: ansible_pwsh_pipe_program}]
    env: [{name: PWSH}]
  environment:
    description: Variables of the process.
    type: dict
    default: {}
    vars: [{name: ansible_pwsh_pipe_environment}]
"""

import os
import shutil
import subprocess

from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.plugins.connection import ConnectionBase


class Connection(ConnectionBase):
    """A PowerShell for each command."""

    transport = "pwsh_pipe"
    module_implementation_preferences = (".ps1", ".exe", "")
    allow_executable = False
    has_pipelining = True
    always_pipeline_modules = True

    def __init__(self, *args, **kwargs):
        self._shell_type = "powershell"
        super().__init__(*args, **kwargs)

    def _connect(self):
        self._connected = True
        return self

    def close(self):
        self._connected = False

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        words = to_text(cmd).split()
        if "-EncodedCommand" not in words:
            raise AnsibleConnectionFailure(f"pwsh_pipe runs modules, not this command: {to_text(cmd)}")
        encoded = words[words.index("-EncodedCommand") + 1]
        done = subprocess.run(
            [self.get_option("pwsh"), "-NoProfile", "-NonInteractive", "-EncodedCommand", encoded],
            input=to_bytes(in_data or b""), capture_output=True, check=False,
            env={**os.environ, **{key: str(value) for key, value in self.get_option("environment").items()}},
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        shutil.copyfile(in_path, out_path)

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        shutil.copyfile(in_path, out_path)
