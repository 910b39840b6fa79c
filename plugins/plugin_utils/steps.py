# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that ask before each task (--step)."""

from __future__ import annotations

from ansible import context


def unless_step(strategy: str) -> str:
    """Return the strategy of a play, or the linear one if the run asks before each task.

    Under free, ansible-core waits without end for a host whose task was answered with no.
    """
    return "ansible.builtin.linear" if context.CLIARGS.get("step") else strategy
