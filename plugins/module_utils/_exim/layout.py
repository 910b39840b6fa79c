# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layout of Exim, one value for each platform."""

from __future__ import annotations

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout

DEBIAN = Layout(
    platform="Debian",
    programs=("/usr/sbin/exim4",),
    unit="exim4.service",
    config_dir="/etc/exim4",
    config_file="/etc/exim4/update-exim4.conf.conf",
    user="Debian-exim",
    daemons=("exim4",),
    logs=("/var/log/exim4/mainlog*",),
    certificate_group="Debian-exim",
    certificate_mode=0o640,
)
