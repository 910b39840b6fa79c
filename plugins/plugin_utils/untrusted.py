# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that Ansible must never run as a template: it may hold the words of a mail server or of a managed host.

ansible-core 2.19 and newer run only templates that come from the playbook or the inventory. Older ones run any text with C({{),
unless it is marked as unsafe, and text that Python puts together from marked text has no mark.
"""

from __future__ import annotations

from typing import Any

try:
    from ansible.template import is_trusted_as_template  # noqa: F401  (ansible-core 2.19 and newer)
except ImportError:
    from ansible.utils.unsafe_proxy import wrap_var

    RUNS_UNMARKED = True
else:
    RUNS_UNMARKED = False
"""Whether this ansible-core runs text as a template unless it is marked."""


def untrusted(value: Any) -> Any:
    """Return a value in which no text, at any depth, is a template."""
    return wrap_var(value) if RUNS_UNMARKED else value
