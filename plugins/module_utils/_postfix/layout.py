# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layout of Postfix, one value for each platform."""

from __future__ import annotations

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout

DEBIAN = Layout(
    platform="Debian",
    programs=("/usr/sbin/postfix",),
    unit="postfix.service",
    config_dir="/etc/postfix",
    config_file="/etc/postfix/main.cf",
    user="postfix",
    daemons=("master",),
    logs=("/var/log/mail.log*",),
)
