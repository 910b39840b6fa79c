# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts of the gateways' SMTP replies. The log readers search for the same texts."""

from __future__ import annotations

ENFORCED_SENDER = "STARTTLS is required for this sender"
"""The reply that defers mail from an enforced sender domain."""
