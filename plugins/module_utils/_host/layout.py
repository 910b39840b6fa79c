# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layout of a mail server product on one platform: paths, users and modes. Values only."""

from __future__ import annotations

from dataclasses import dataclass

CERTIFICATE = "/etc/mailfleet/starttls.pem"
"""The PEM file of the collection, with key, leaf and chain."""


@dataclass(frozen=True)
class Layout:
    """The layout of one product on one platform. Paths are absolute.

    programs: the possible paths of the daemon's control program. config_file: exists only if the product is configured.
    daemons: names of the processes that own the daemon's listening sockets.
    user: the user of the daemon's processes that answer clients. certificate_group and certificate_mode: group and mode
    of the certificate file, so that only root and the daemon can read the key. logs: patterns of the log files, with the
    rotated ones. security_context: the SELinux type of a certificate file, empty if the platform does not use SELinux; it is
    shown, and not set yet. sign: a file that only hosts of this platform have; empty for the platform of all other hosts.
    """

    platform: str
    programs: tuple[str, ...]
    unit: str
    config_dir: str
    config_file: str
    user: str
    daemons: tuple[str, ...]
    logs: tuple[str, ...]
    certificate_group: str = "root"
    certificate_mode: int = 0o600
    certificate: str = CERTIFICATE
    ca_bundle: str = "/etc/ssl/certs/ca-certificates.crt"
    security_context: str = ""
    sign: str = ""
