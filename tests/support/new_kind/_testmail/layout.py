# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the mail server of the test keeps its things."""

from __future__ import annotations

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout

DEBIAN = Layout(
    platform="Debian",
    programs=("/opt/testmail/testmail",),
    unit="testmail.service",
    config_dir="/opt/testmail",
    config_file="/opt/testmail/testmail.json",
    user="root",
    daemons=("python3",),
    logs=(),
)
