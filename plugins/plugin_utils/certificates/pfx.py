# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate with its key as PKCS#12 (PFX), made in memory for Exchange. It is never written to a file.

Private to this collection. Runs on the controller only, because it needs the Python package ``cryptography``. No message contains
key material.
"""

from __future__ import annotations

import base64
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.controller import CONTROLLERS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    CertificateError,
    iso_time,
    printable_text,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.windows_name import windows_name

try:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.serialization import PrivateFormat, pkcs12
except ImportError:
    pass  # CheckedInputs, which the bundle comes from, has said so already

AES = "aes256"
TRIPLE_DES = "tripledes"
_ROUNDS = 50000
_PASSWORD_BYTES = 32
_WINDOWS = re.compile(r"(\d{1,3})\.(\d{1,3})\.(\d{1,6})")
_FIRST_WITH_AES = 17763
"""The build of Windows Server 2019: earlier ones, such as 2016, read PFX files with 3DES and SHA-1 only."""


@dataclass(frozen=True)
class Pfx:
    """secrets: C(FileData) in base64 and C(Password), for the option secrets of exchange_cmdlets. certificate: a WantedCertificate."""

    certificate: Any
    secrets: dict[str, str] = field(repr=False)


def encryption_for(windows: str) -> str:
    """Return AES or TRIPLE_DES: what this version of Windows (C(10.0.17763)) reads. Raises EngineError if the version is not known."""
    found = _WINDOWS.match(windows)
    if not found:
        raise EngineError(
            "the version of Windows could not be read, so it is not known which encryption of a PFX it takes (Windows Server 2016: 3DES, "
            "later ones: AES); see whether the account may read it"
        )
    major, build = int(found[1]), int(found[3])
    return AES if major > 10 or (major == 10 and build >= _FIRST_WITH_AES) else TRIPLE_DES


def make_pfx(bundle: str, encryption: str = AES, allow_ecc: bool = False) -> Pfx:
    """Return the PFX of a checked bundle (CheckedInputs.content: PEM with key, leaf and chain), with a random password.

    encryption: AES with SHA-256, or TRIPLE_DES with SHA-1, for which encryption_for() is asked. allow_ecc: whether a key that is not RSA
    is taken. Raises EngineError for a key that Exchange does not take.
    """
    blocks = pem.split(bundle)
    leaf = _leaf(bundle)
    key = next((one for one in blocks if one.is_private_key), None)
    if key is None:
        raise EngineError("the certificate has no private key beside it; set starttls_private_key_file")
    if leaf.key_type != "RSA" and not (leaf.key_type == "EC" and allow_ecc):
        raise EngineError(
            f"the certificate {leaf.subject} has a key of the type {leaf.key_type}, and Exchange as it is installed takes RSA only; issue "
            "it with an RSA key (certbot: --key-type rsa). EC needs Exchange 2019 or SE as of November 2024 or later, and "
            "EnableEccCertificateSupport = 1 in the registry of every server; where that is so, there is starttls_exchange_ecc: true"
        )
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    data = _serialized(key, [one.der for one in pem.certificates(blocks)], password, encryption)
    sent = {"FileData": base64.b64encode(data).decode("ascii"), "Password": password}
    return Pfx(_described(leaf), sent)


def _serialized(key: pem.PemBlock, chain: list[bytes], password: str, encryption: str) -> bytes:
    """Return the PFX. Raises EngineError without the library's reason, which might quote the key."""
    builder: Any = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(_ROUNDS)
    if encryption == TRIPLE_DES:
        builder = builder.key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC).hmac_hash(
            hashes.SHA1()  # noqa: S303 (Windows Server 2016 reads no other)
        )
    elif encryption == AES:
        builder = builder.key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC).hmac_hash(hashes.SHA256())
    else:
        raise EngineError(f"the encryption {encryption!r} of a PFX is none of {AES}, {TRIPLE_DES}")
    leaf, *others = (Certificate.load(der).parsed for der in chain)
    try:
        private: Any = serialization.load_pem_private_key(key.text.encode("ascii"), password=None)
        return pkcs12.serialize_key_and_certificates(
            b"mailfleet.starttls", private, leaf, others, builder.build(password.encode("ascii"))
        )
    except Exception as error:
        raise EngineError(
            f"no PFX with {encryption} can be made on the controller ({type(error).__name__}); see whether its cryptography library is "
            "restricted (FIPS), or use another execution environment"
        ) from None


def _leaf(bundle: str) -> Certificate:
    try:
        found = pem.certificates(pem.split(bundle))
        if not found:
            raise EngineError("there is no certificate; set starttls_certificate_file")
        return Certificate.load(found[0].der)
    except (pem.PemError, CertificateError) as error:
        raise EngineError(
            f"the certificate cannot be read: {printable_text(str(error))}; set starttls_certificate_file"
        ) from None


def _described(leaf: Certificate) -> Any:
    names = [name.partition(":")[2].lower() for name in leaf.sans]
    return CONTROLLERS["exchange"]().wanted.WantedCertificate(
        thumbprint=leaf.parsed.fingerprint(hashes.SHA1()).hex().upper(),  # noqa: S303  (Windows names certificates by it)
        issuer=windows_name(leaf.parsed.issuer),
        subject=windows_name(leaf.parsed.subject),
        domains=tuple(names or filter(None, [(leaf.common_name or "").lower()])),
        not_after=iso_time(leaf.not_after),
    )
