# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a mail server product keeps its things on one platform: values only."""

from __future__ import annotations

from dataclasses import dataclass

CERTIFICATE = "/etc/mailfleet/starttls.pem"
"""Where the collection puts key, leaf and chain, in one PEM file."""


@dataclass(frozen=True)
class Layout:
    """One product on one platform. Paths are absolute.

    programs: the daemon's control program, wherever the platform may have it. config_file: exists only where the product is
    configured. user: as whom the daemon answers. certificate_group and certificate_mode: what lets the daemon, and nobody
    else, read the key. logs: patterns of the log files, rotated ones included. security_context: the SELinux type of a
    certificate file, empty where the platform does not use SELinux.
    """

    platform: str
    programs: tuple[str, ...]
    unit: str
    config_dir: str
    config_file: str
    user: str
    logs: tuple[str, ...]
    certificate_group: str = "root"
    certificate_mode: int = 0o600
    certificate: str = CERTIFICATE
    ca_bundle: str = "/etc/ssl/certs/ca-certificates.crt"
    security_context: str = ""
