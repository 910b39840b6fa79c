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
    rotated ones. security_context: the SELinux type that a certificate file has there, empty if the platform does not use SELinux;
    each written file keeps its own, and a new one gets that of its directory.
    families: the words of os-release (ID, ID_LIKE) of the systems with this layout. They decide only between layouts whose program
    and configuration are both there. sign: a file that only hosts of this layout have; empty for one without such a file.
    plain: whether the configuration is one file that somebody writes by hand, where the product has another way too. pid_file: where
    the daemon's process number is, if the daemon cannot be asked. writer: a program of the platform that writes the configuration
    anew; writer_off: the file and the setting that keep it from that.
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
    families: tuple[str, ...] = ()
    plain: bool = False
    pid_file: str = ""
    writer: str = ""
    writer_off: tuple[str, str] = ("", "")

    @property
    def program(self) -> str:
        """The control program: its name where the usual search path has it, else its path."""
        path = self.programs[0]
        return path if path.startswith("/usr/local/") else path.rpartition("/")[2]
