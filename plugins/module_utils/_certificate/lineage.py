# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What certbot has on this host under one name: the certificate, whose names it covers, and who proves them. Reads only."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import opened, seen_on_host
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.openssl import ask
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.x509 import X509
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_AUTHENTICATORS: Mapping[str, str] = {"rfc2136": "dns-rfc2136"}
"""Challenge -> the word of certbot, where that is another."""
_AUTHENTICATOR = re.compile(r"^[ \t]*authenticator[ \t]*=[ \t]*([A-Za-z0-9_:-]{1,60})[ \t]*$", re.MULTILINE)
_MOST_VERSIONS = 200
_SHOWN = 3


class Lineage:
    """A certificate of certbot, which calls it a lineage. live: the directory of all of them, like /etc/letsencrypt/live."""

    def __init__(self, name: str, live: str) -> None:
        self.name = name
        self.certificate, self.private_key = f"{live}/{name}/fullchain.pem", f"{live}/{name}/privkey.pem"
        self._configuration = Path(live).parent / "renewal" / f"{name}.conf"
        self._archive = Path(live).parent / "archive" / name
        seen = seen_on_host(self.certificate, self.private_key)
        self.pem, self.public_key = str(seen["pem"]), str(seen["public_key"])
        self.message = str(seen["message"])

    def suits(self, names: Sequence[str], kind: str) -> bool:
        """Whether the certificate is for exactly these names, with a key of this kind."""
        return not self.message and self._names() == _folded(names) and kind_of(self.public_key) == kind

    def refusal(self, names: Sequence[str], challenge: str, installed: str) -> str:
        """Return why certbot must not be told to issue it for these names; empty if it may.

        It would take the other names from it, and renew it in another way from now on. installed: the certificates that the daemon has, as
        PEM. If they are a version of it, it is the collection's own.
        """
        if not self._configuration.exists() or self._has_been(installed):
            return ""
        covered = self._names()
        more = sorted((covered or frozenset()) - _folded(names))
        way, wanted = self._authenticator(), _AUTHENTICATORS.get(challenge, challenge)
        if covered is None:
            what = "which cannot be read"
        elif more:
            what = f"which also covers {', '.join(more[:_SHOWN])}{f' and {len(more) - _SHOWN} more' if len(more) > _SHOWN else ''}"
        elif way != wanted:
            what = f"which is renewed by {way or 'a way that cannot be read'}, not by {wanted}"
        else:
            return ""
        return (
            f"certbot has a certificate {self.name} here that the collection has not made, {what}: it is not taken over. "
            f"Set starttls_certificate_source: host, with starttls_certificate_path: {self.certificate} and "
            f"starttls_private_key_path: {self.private_key}; or name another host first in starttls_certificate_names"
        )

    def _names(self) -> Optional[frozenset[str]]:
        """Return what the certificate covers; None if that cannot be read."""
        try:
            with opened(self.certificate) as file:
                return names_of(pem.certificates(pem.split(file.read(pem.MAX_BYTES + 1)))[0].der)
        except (EngineError, OSError, IndexError, ValueError):
            return None

    def _authenticator(self) -> str:
        try:
            with opened(str(self._configuration)) as file:
                found = _AUTHENTICATOR.search(file.read(pem.MAX_BYTES).decode("utf-8", "replace"))
        except (EngineError, OSError):
            return ""
        return found[1] if found else ""

    def _has_been(self, installed: str) -> bool:
        """Whether what is installed is one of its versions. certbot keeps them: cert1.pem, cert2.pem and so on."""
        leaf = _leaf(installed)
        return bool(leaf) and any(_leaf(text) == leaf for text in self._versions())

    def _versions(self) -> Iterator[str]:
        yield self.pem
        try:
            found = sorted(self._archive.glob("cert*.pem"), key=lambda one: one.stat().st_mtime, reverse=True)
        except OSError:
            return
        for one in found[:_MOST_VERSIONS]:
            try:
                with opened(str(one)) as file:
                    yield file.read(pem.MAX_BYTES).decode("ascii", "replace")
            except (EngineError, OSError):
                continue


def names_of(der: bytes) -> frozenset[str]:
    """Return the alternative names of a certificate, folded. Raises ValueError for one that cannot be read, and NoOpensslError."""
    found = X509.load(der)
    if found.damaged:
        raise ValueError("its extensions cannot be read")
    return _folded([name.partition(":")[2] for name in found.sans])


def kind_of(public_key: str) -> str:
    """Return the kind of a public key (DER in base64), as in starttls_key_types; empty for any other. Raises NoOpensslError."""
    try:
        key = base64.b64decode(public_key)
    except ValueError:
        return ""
    shown = ask(["pkey", "-pubin", "-inform", "DER", "-noout", "-text_pub"], key, "the public key") or b""
    return "rsa" if b"\nModulus:" in shown else "ecdsa" if b"\nASN1 OID:" in shown else ""


def _folded(names: Sequence[str]) -> frozenset[str]:
    found = set()
    for one in names:
        try:
            found.add(str(ipaddress.ip_address(one)))
        except ValueError:
            found.add(one.rstrip(".").lower())
    return frozenset(found)


def _leaf(text: str) -> bytes:
    try:
        return pem.certificates(pem.split(text))[0].der
    except (IndexError, ValueError):
        return b""
