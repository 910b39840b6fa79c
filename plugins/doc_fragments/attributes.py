# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attributes of every module of the collection. Each module adds its support for them."""

from __future__ import annotations


class ModuleDocFragment:
    """The fragments C(mailfleet.starttls.attributes) and C(mailfleet.starttls.attributes.action_group)."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and report the changes that it would make, without making them.
  diff_mode:
    description:
      - Shows the changes, or in C(check_mode) the predicted changes, when diff mode is on. Never shows key material.
  idempotent:
    description: A second run with the same options changes nothing.
"""

    ACTION_GROUP = r"""
options: {}
attributes:
  action_group:
    description:
      - Use C(group/mailfleet.starttls.starttls) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - mailfleet.starttls.starttls
"""
