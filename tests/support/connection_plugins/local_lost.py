# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible connection for tests, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = """
name: local_lost
short_description: Run modules on the controller, and lose the host at one of them
description: A host for tests that cannot be reached any more as soon as it gets a certain module.
options:
  module:
    description: The module of this collection.
    type: str
    required: true
    vars: [{name: ansible_local_lost_module}]
  after:
    description: The host is lost once this file exists.
    type: str
    default: /
    vars: [{name: ansible_local_lost_after}]
"""

import os
import re

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local


class Connection(Local):
    """The connection local, which loses its host."""

    transport = "local_lost"
    always_pipeline_modules = True

    def exec_command(self, cmd, in_data=None, sudoable=True):
        found = re.search(rb"starttls[./]plugins[./]modules[./](\w+)", in_data or b"")
        of_module = found and found[1].decode() == self.get_option("module")
        if of_module and os.path.exists(self.get_option("after")):
            raise AnsibleConnectionFailure("the host is lost")
        return super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
