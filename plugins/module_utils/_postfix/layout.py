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

DIRECTORY = f"{DEBIAN.config_dir}/mailfleet-starttls"
"""The directory of a gateway's record and tables."""

POLICY = "/usr/local/lib/mailfleet-starttls/arrival_policy.py"
SECOND = "postfix-mailfleet"
THIRD = "postfix-mailfleet_enforced"  # underscore, because systemd reads a hyphen in an instance name as a slash
"""A gateway's other instances: their name, and the name of their directories in /etc, /var/spool and /var/lib."""

LEFT = (
    DIRECTORY,
    *(f"{place}/{name}" for name in (SECOND, THIRD) for place in ("/etc", "/var/spool", "/var/lib")),
    *(f"/etc/systemd/system/*.wants/postfix@*{name}.service" for name in ("mailfleet", "mailfleet_enforced")),
    POLICY,
    "/var/lib/mailfleet-starttls/postfix.*",
)
"""Patterns of what the collection leaves on a host with Postfix, besides lines in main.cf and master.cf and the certificate."""
