# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts of replies that the gateways give and the log readers find again."""

from __future__ import annotations

ENFORCED_SENDER = "STARTTLS is required for this sender"
"""Why mail of an enforced sender domain is put off."""
