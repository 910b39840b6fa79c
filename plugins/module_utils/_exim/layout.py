# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layouts of Exim, one value for each platform.

Debian generates the configuration; everywhere else it is one plain file. What Exim itself says counts more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner

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
    families=("debian", "ubuntu"),
    pid_file="/run/exim4/exim.pid",
)
# Exim reads this file before the generated one, and update-exim4.conf then does nothing.
_DEBIAN_PLAIN = replace(
    DEBIAN,
    platform="Debian, a file written by hand",
    config_file="/etc/exim4/exim4.conf",
    sign="/etc/exim4/exim4.conf",
    plain=True,
)
_RED_HAT = Layout(
    platform="Red Hat family",
    programs=("/usr/sbin/exim", "/usr/bin/exim"),
    unit="exim.service",
    config_dir="/etc/exim",
    config_file="/etc/exim/exim.conf",
    user="exim",
    daemons=("exim",),
    logs=("/var/log/exim/main.log*",),
    certificate_group="exim",
    certificate_mode=0o640,
    ca_bundle="/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    security_context="cert_t",
    families=("rhel", "fedora", "centos"),
    plain=True,
    pid_file="/run/exim.pid",
)
_SUSE = replace(
    _RED_HAT,
    platform="SUSE",
    user="mail",
    certificate_group="mail",
    ca_bundle="/etc/ssl/ca-bundle.pem",
    security_context="",
    families=("suse", "opensuse", "sles"),
)
_ALPINE = replace(
    _SUSE,
    platform="Alpine",
    unit="exim",
    user="exim",
    certificate_group="exim",
    logs=("/var/log/exim/mainlog*",),
    ca_bundle="/etc/ssl/certs/ca-certificates.crt",
    families=("alpine",),
)
_ARCH = replace(
    _ALPINE,
    platform="Arch",
    programs=("/usr/bin/exim",),
    unit="exim.service",
    config_dir="/etc/mail",
    config_file="/etc/mail/exim.conf",
    families=("arch",),
)
_FREEBSD = replace(
    _ALPINE,
    platform="FreeBSD",
    programs=("/usr/local/sbin/exim",),
    config_dir="/usr/local/etc/exim",
    config_file="/usr/local/etc/exim/configure",
    user="mailnull",
    certificate_group="mail",
    ca_bundle="/etc/ssl/cert.pem",
    families=("freebsd",),
    pid_file="/var/run/exim.pid",
)
EXIM_LAYOUTS = (DEBIAN, _DEBIAN_PLAIN, _RED_HAT, _SUSE, _ALPINE, _ARCH, _FREEBSD)


def with_program(run: Runner, layout: Layout) -> Runner:
    """Return the runner under which Debian's name of the program, exim4, means that of the layout."""
    if layout.program == DEBIAN.program:
        return run
    return lambda words: run([layout.program, *words[1:]] if words and words[0] == DEBIAN.program else words)
