# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layouts of Postfix. What C(postconf) itself says counts more."""

from __future__ import annotations

from dataclasses import replace

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
    families=("debian", "ubuntu"),
)
_RED_HAT = replace(
    DEBIAN,
    platform="Red Hat family",
    programs=("/usr/sbin/postfix", "/usr/bin/postfix"),
    logs=("/var/log/maillog*",),
    ca_bundle="/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    security_context="cert_t",
    families=("rhel", "fedora", "centos"),
)
_SUSE = replace(
    DEBIAN,
    platform="SUSE",
    logs=("/var/log/mail*",),
    ca_bundle="/etc/ssl/ca-bundle.pem",
    families=("suse", "opensuse", "sles"),
    writer="/usr/sbin/config.postfix",
    writer_off=("/etc/sysconfig/mail", "MAIL_CREATE_CONFIG=no"),
)
_ALPINE = replace(DEBIAN, platform="Alpine", unit="postfix", logs=("/var/log/messages*",), families=("alpine",))
_ARCH = replace(DEBIAN, platform="Arch", programs=("/usr/bin/postfix",), families=("arch",))
_FREEBSD = replace(
    DEBIAN,
    platform="FreeBSD",
    programs=("/usr/local/sbin/postfix",),
    unit="postfix",
    config_dir="/usr/local/etc/postfix",
    config_file="/usr/local/etc/postfix/main.cf",
    logs=("/var/log/maillog*",),
    ca_bundle="/etc/ssl/cert.pem",
    families=("freebsd",),
)
POSTFIX_LAYOUTS = (DEBIAN, _RED_HAT, _SUSE, _ALPINE, _ARCH, _FREEBSD)
