# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file with JSON on the controller, whose path is a variable of the user."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import PathTrust
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.controller_paths import from_start


def write_json_file(path: str, data: Mapping[str, Any], variable: str) -> None:
    """Write data as JSON, at once or not at all, for everybody to read. Raises EngineError, which names the variable."""
    place = from_start(path)
    if not Path(place).parent.is_dir():
        raise EngineError(
            f"there is no directory for {place} on the controller; create it, or correct json_file ({variable})"
        )
    content = json.dumps(data, indent=2) + "\n"
    trust = PathTrust(option=f"json_file ({variable})")
    try:
        FileImage(place, content.encode(), 0o644, os.geteuid(), os.getegid(), trust=trust).write()
    except OSError as error:
        raise EngineError(
            f"{place} cannot be written on the controller: {error.strerror or error}; correct json_file ({variable})"
        ) from error
