# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the certificate that is on a host ends later than the one to install. The controller then judges it, and it stays.

A renewal may have come to the host by another way than the controller. Only the end is read here, because hosts have no library for
certificates.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import (
    BundleFile,
    drop_pending,
    install,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import opened
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.openssl import NoOpensslError, validity_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_MISMATCH = "KEY_VALUES_MISMATCH"


def end_of(der: bytes) -> str:
    """Return when a certificate ends, like C(2027-11-01T00:00:00Z); empty if that cannot be read. Such texts can be compared.

    Raises NoOpensslError.
    """
    found = validity_of(der)
    return f"{found[1].isoformat()[:19]}Z" if found else ""


def newer_on_host(bundle: Optional[BundleFile]) -> Optional[dict[str, Any]]:
    """Return what is at the path of a file to install, if its certificate ends later; None if not, or if it is to be replaced anyway.

    The result has C(path), C(pem), the certificates of the file, and C(message), why no daemon could use it; else empty. It has no key.
    Without the program openssl, one that may end later is told too. Nothing is raised: what keeps the file from being read also keeps
    it from being replaced, and that says it.
    """
    if bundle is None or bundle.replace or not bundle.present:
        return None
    try:
        with opened(bundle.path) as file:
            blocks = pem.split(file.read(pem.MAX_BYTES + 1))
            found = pem.certificates(blocks)
            if not found or not _may_end_later(found[0].der, bundle):
                return None
            message = _unusable(f"/dev/fd/{file.fileno()}", blocks)
    except (EngineError, OSError, ValueError):  # a PemError is a ValueError
        return None
    return {"path": bundle.path, "pem": pem.join(found), "message": message}


def newer_ones(bundles: Iterable[BundleFile]) -> list[dict[str, Any]]:
    """Return what newer_on_host() says of each file that ends later."""
    return [found for one in bundles if (found := newer_on_host(one))]


def install_unless_newer(wanted: BundleFile, *, check_mode: bool) -> dict[str, Any]:
    """Install a file, and return the result of a module; C(newer), and nothing is changed, if the one on the host ends later.

    Raises EngineError and OSError.
    """
    if newer := newer_on_host(wanted):
        return {"changed": False, "path": wanted.path, "newer": [newer]}
    if wanted.issued_by:  # check mode: nothing of it is known yet
        look = wanted.look()
        return {"changed": True, "path": wanted.path, "diff": look.diff, "previous_certificate": look.previous}
    result = install(wanted, check_mode=check_mode)
    if not check_mode:
        drop_pending([wanted])
    return result


def keeps(bundle: Optional[BundleFile]) -> bool:
    """Whether the file on the host is the one that the controller has judged and lets stay."""
    if bundle is None or not bundle.keep:
        return False
    try:
        with opened(bundle.path) as file:
            return pem.leaf_fingerprint(file.read(pem.MAX_BYTES + 1)) == bundle.keep
    except (EngineError, OSError, ValueError):
        return False


def _may_end_later(der: bytes, bundle: BundleFile) -> bool:
    """Whether a certificate ends later than the wanted one. Without the program openssl the controller has to find that out."""
    wanted = pem.certificates(pem.split(bundle.content or ""))
    shown = pem.fingerprint(der)
    if shown == bundle.replaces or shown in [
        *bundle.fingerprints[:1],
        *(pem.fingerprint(one.der) for one in wanted[:1]),
    ]:
        return False
    try:
        ends = bundle.ends or (end_of(wanted[0].der) if wanted else "")
        return bool(ends) and end_of(der) > ends
    except NoOpensslError:
        return True


def _unusable(path: str, blocks: list[pem.PemBlock]) -> str:
    """Return why no daemon can use a file; empty if one can. The text holds nothing of the file."""
    if not blocks[0].is_private_key:
        return "it does not begin with a private key"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, password=_no_password)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None)
        return "its private key belongs to another certificate" if reason == _MISMATCH else str(reason or error)
    return ""


def _no_password() -> str:
    raise ValueError("its private key is encrypted, and a daemon cannot ask for the passphrase")
