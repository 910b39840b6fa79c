# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths that a user gives for files on the controller. A relative one starts where Ansible was started, as in a shell.

It does not start at the playbook: those of a collection lie where the collection is installed.
"""

from __future__ import annotations

import os
from pathlib import Path


def from_start(path: str) -> str:
    """Return the absolute path of a file on the controller."""
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100  (resolve() would follow symbolic links unseen)
