# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of Exim's own options for a wanted state. Values only.

Source: the Exim specification, chapters on TLS, on access control lists and on the smtp transport.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.config import ByPort
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.files_by_port import certificates_of, keys_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.floor import Library
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_text import ByHandError, Edit
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired

# Mail that is submitted on this host without a network connection has no host address and no TLS.
REQUIRES = "${if or{{def:tls_in_cipher}{!def:sender_host_address}}{"
"""How the list for MAIL begins that refuses plaintext."""
# A temporary refusal: with the 530 of RFC 3207, a sender that cannot use TLS yet would bounce its mail.
_REFUSAL = "defer message = 430 4.7.0 Must issue a STARTTLS command first"
_ANYTHING = "accept hosts = *"
_AVOID, _REQUIRE = "hosts_avoid_tls", "hosts_require_tls"
_CHOSEN = {"disabled": _AVOID, "opportunistic": "", "required": _REQUIRE}


def inbound(
    desired: Desired, before: Mapping[str, str], is_ours: bool, ours: Optional[Mapping[str, str]] = None
) -> Optional[Edit]:
    """Return the settings of the main part; None if it shows the wanted state without them. Raises ByHandError.

    before: the options without the collection. is_ours: whether the collection has settings there now. ours: these settings.
    """
    if desired.inbound is None:
        return None
    port = desired.own_port.port
    text = before.get("tls_advertise_hosts", "*")
    hosts = ByPort.of(text, port)
    if hosts.port != port:  # a list for another port, such as 587
        hosts = ByPort(port, hosts.at(port), text)
    acl = before.get("acl_smtp_mail", "")
    if not desired.offers:
        settings = {"tls_advertise_hosts": str(hosts._replace(here=""))} if hosts.here else {}
        if acl.startswith(REQUIRES) and not is_ours:
            raise ByHandError(f"acl_smtp_mail refuses mail without TLS ({acl!a}), and nobody can use TLS then")
        return Edit(settings) if settings else None
    certificates, key = certificates_of(desired), keys_of(desired)
    if ours and not desired.names_certificates:
        certificates, key = ours.get("tls_certificate", certificates), ours.get("tls_privatekey", key)
    has = before.get("tls_certificate", ""), before.get("tls_privatekey", "") or before.get("tls_certificate", "")
    requires = acl.startswith(REQUIRES)
    same = has == (certificates, key) and hosts.here and requires == (desired.inbound == "required")
    if same and not is_ours:
        return None
    for name in ("tls_certificate", "tls_privatekey"):
        if "$" in before.get(name, ""):
            raise ByHandError(
                f"{name} depends on the connection ({before[name]!a}), and one file would replace all that it serves"
            )
    # A list of the administrator stays: they may want to offer STARTTLS to some hosts only.
    if not hosts.here or (hosts.here == text and "_port" in text):
        hosts = hosts._replace(here="*")
    settings = {
        "tls_advertise_hosts": str(hosts),
        "tls_certificate": certificates,
        "tls_privatekey": key,
    }
    if desired.inbound == "required":
        if acl.startswith('"') or acl.count("{") != acl.count("}"):
            raise ByHandError(f"acl_smtp_mail has a value that cannot stand within another one ({acl!a})")
        settings["acl_smtp_mail"] = f"{REQUIRES}{acl or _ANYTHING}}}{{{_REFUSAL}}}}}"
    elif requires and not is_ours:
        raise ByHandError(f"acl_smtp_mail refuses mail without TLS ({acl!a}), and the wanted state takes it")
    return Edit(settings, ("tls_ocsp_file",))  # that of the former certificate


def with_floor(
    edit: Optional[Edit], before: Mapping[str, str], library: Library, floor: str, place: str
) -> Optional[Edit]:
    """Return the edit of a place with the setting that permits no older TLS version than a floor, if it needs one. Raises EngineError.

    before: the options without the collection. place: how a message names it.
    """
    value = before.get(library.setting, "")
    new = library.with_floor(value, floor, place)
    return edit if new == value else with_setting(edit, library.setting, new)


def with_setting(edit: Optional[Edit], name: str, value: str) -> Edit:
    """Return the edit with one more setting."""
    return Edit({**(edit.settings if edit else {}), name: value}, edit.gone if edit else ())


def outbound(kind: str, before: Mapping[str, str], transport: str) -> Optional[Edit]:
    """Return the settings of a transport; None if it shows the wanted state without them. Raises ByHandError.

    before: its options without the collection.
    """
    settings: dict[str, str] = {}
    gone: list[str] = []
    for name in (_AVOID, _REQUIRE):
        value, chosen = before.get(name, ""), name == _CHOSEN[kind]
        if value in ("", "*"):
            if chosen and not value:
                settings[name] = "*"
            elif value and not chosen:
                gone.append(name)
        elif kind == "disabled" and name == _AVOID:
            settings[name] = "*"
        elif kind != "opportunistic":
            raise ByHandError(
                f"{name} of the transport {transport} holds a list of yours ({value!a}), and outbound '{kind}' would replace it; "
                "'opportunistic' keeps it"
            )
    return Edit(settings, gone) if settings or gone else None
