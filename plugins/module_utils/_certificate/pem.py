# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads and writes PEM text. Needs only the standard library.

Private to this collection. This file splits PEM text into blocks and does not interpret them; other files do. No error
of this file quotes its input, because the input may be a private key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Optional, Union

MAX_BYTES = 1 << 20
"""The longest input that is read, unless the caller gives another limit: 1 MiB."""

CERTIFICATE_LABELS = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})

_COLUMNS = 64
_LABEL = re.compile(r"[A-Z0-9](?:[A-Z0-9 ._-]{0,62}[A-Z0-9])?")
_BEGIN, _END, _DASHES = "-----BEGIN ", "-----END ", "-----"


_PKCS7 = bytes.fromhex("06092a864886f70d010702")
_OTHER_FORMS = (
    (
        b"\xfe\xed\xfe\xed",
        "a Java keystore",
        "use 'keytool -importkeystore -deststoretype PKCS12', then 'openssl pkcs12 -nodes'",
    ),
    (b"\x1f\x8b", "compressed with gzip", "decompress it first"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it first"),
    (b"PuTTY-User-Key-File", "an SSH key of PuTTY", "give the key that the certificate was requested with"),
)
"""First bytes -> what the file is, and what helps."""


class PemError(ValueError):
    """The text is not the expected PEM. The message says what is wrong, and in which line."""


@dataclass(frozen=True)
class PemBlock:
    """One block: its label (``CERTIFICATE``), the decoded bytes, and RFC 1421 headers if it has any."""

    label: str
    der: bytes = field(repr=False)
    headers: tuple[str, ...] = field(default=(), repr=False)

    @property
    def text(self) -> str:
        """The block as PEM: LF line ends, 64 columns, a newline at the end."""
        body = base64.b64encode(self.der).decode("ascii")
        lines = [f"{_BEGIN}{self.label}{_DASHES}"]
        if self.headers:
            lines += [*self.headers, ""]
        lines += [body[at : at + _COLUMNS] for at in range(0, len(body), _COLUMNS)]
        lines.append(f"{_END}{self.label}{_DASHES}")
        return "\n".join(lines) + "\n"

    @property
    def is_certificate(self) -> bool:
        """Whether the label is that of an X.509 certificate."""
        return self.label in CERTIFICATE_LABELS

    @property
    def is_private_key(self) -> bool:
        """Whether the label is that of a private key of any kind, encrypted or not."""
        return self.label.endswith("PRIVATE KEY")

    @property
    def is_encrypted(self) -> bool:
        """Whether the block can only be read with a passphrase."""
        return self.label.startswith("ENCRYPTED ") or any(
            header.startswith("Proc-Type:") and "ENCRYPTED" in header for header in self.headers
        )


def split(text: Union[str, bytes], *, max_bytes: int = MAX_BYTES) -> list[PemBlock]:
    """Return the blocks of a PEM text, in order. Text between blocks is skipped, so the list may be empty.

    Line ends may be LF, CRLF or CR. Lines may be indented, for example after a paste into YAML. Raises PemError if the
    text is too long or binary, or if a block is malformed.
    """
    blocks: list[PemBlock] = []
    label: Optional[str] = None
    begin, body = 0, []  # type: int, list[str]
    for number, raw in enumerate(re.split(r"\r\n|\n|\r", _decode(text, max_bytes)), start=1):
        line = raw.strip(" \t\ufeff")
        if line.startswith(_BEGIN):
            if label is not None:
                raise PemError(f"line {number}: a block begins before the one of line {begin} has ended")
            label, begin, body = _label(line, _BEGIN, number), number, []
        elif line.startswith(_END):
            ended = _label(line, _END, number)
            if label is None:
                raise PemError(f"line {number}: an END line has no BEGIN line")
            if ended != label:
                raise PemError(f"line {number}: the block {label!r} of line {begin} is ended as {ended!r}")
            blocks.append(_block(label, body, begin))
            label = None
        elif label is not None:
            body.append(line)
    if label is not None:
        raise PemError(f"line {begin}: the block {label!r} has no END line; the text seems to be cut off")
    return blocks


def join(blocks: Iterable[PemBlock]) -> str:
    """Return the blocks as one PEM text. ``split(join(blocks))`` gives the blocks back."""
    return "".join(block.text for block in blocks)


def certificates(blocks: Sequence[PemBlock]) -> list[PemBlock]:
    """Return only the certificates, all under the label ``CERTIFICATE``."""
    return [PemBlock("CERTIFICATE", block.der) for block in blocks if block.is_certificate]


def fingerprint(der: bytes) -> str:
    """Return the SHA-256 fingerprint of a certificate's DER: 64 lower-case hexadecimal digits, no colons."""
    return hashlib.sha256(der).hexdigest()


def leaf_fingerprint(bundle: Union[str, bytes], *, max_bytes: int = MAX_BYTES) -> str:
    """Return the fingerprint of the first certificate of a bundle: the certificate that a server presents.

    Raises PemError if the bundle cannot be read or holds no certificate.
    """
    found = certificates(split(bundle, max_bytes=max_bytes))
    if not found:
        raise PemError("it holds no certificate")
    return fingerprint(found[0].der)


def _decode(text: Union[str, bytes], max_bytes: int) -> str:
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    if len(data) > max_bytes:
        raise PemError(f"it is {len(data)} bytes long; at most {max_bytes} are read")
    if wide := _wide(data):
        raise PemError(
            f"it is text in {wide}, as PowerShell on Windows writes it with '>' or Out-File, not PEM; convert it with "
            f"'iconv -f {wide} -t UTF-8 IN > OUT', or write it there with 'Set-Content -Encoding ascii'"
        )
    if _PKCS7 in data[:32]:
        raise PemError(
            "it is PKCS#7 in DER, not PEM; take its certificates out with 'openssl pkcs7 -inform DER -print_certs'"
        )
    for start, name, advice in _OTHER_FORMS:
        if data.startswith(start):
            raise PemError(f"it is {name}, not PEM; {advice}")
    if b"\0" in data and _BEGIN.encode() in data:
        raise PemError("it is PEM with NUL bytes in it, so it was damaged when it was written or copied; copy it again")
    # DER certificates, DER keys and PKCS#12 files begin with an ASN.1 sequence: 0x30 0x80..0x84.
    if b"\0" in data or (data[:1] == b"\x30" and data[1:2] in (b"\x80", b"\x81", b"\x82", b"\x83", b"\x84")):
        raise PemError(
            "it is binary (DER or PKCS#12), not PEM; convert it with 'openssl x509 -inform DER', "
            "'openssl pkey -inform DER' or 'openssl pkcs12 -nodes'"
        )
    return data.decode("utf-8", "replace")


def _wide(data: bytes) -> str:
    """Return the name of a Unicode encoding of two or four bytes that the text is in; else an empty text."""
    for mark, name in (
        (b"\xff\xfe\0\0", "UTF-32"),
        (b"\0\0\xfe\xff", "UTF-32"),
        (b"\xff\xfe", "UTF-16"),
        (b"\xfe\xff", "UTF-16"),
    ):
        if data.startswith(mark):
            return name
    for name in ("UTF-16LE", "UTF-16BE"):  # without a byte order mark
        if data.find(_BEGIN.encode(name)) % 2 == 0:
            return name
    return ""


def _label(line: str, start: str, number: int) -> str:
    label = line[len(start) : -len(_DASHES)]
    if not line.endswith(_DASHES) or not _LABEL.fullmatch(label):
        raise PemError(
            f"line {number}: malformed {start.strip(' -')} line; a block needs lines of its own for "
            "BEGIN and END (were the line ends lost?)"
        )
    return label


def _block(label: str, body: list[str], begin: int) -> PemBlock:
    headers: tuple[str, ...] = ()
    if body and ":" in body[0]:
        end = body.index("") if "" in body else len(body)
        headers, body = tuple(body[:end]), body[end:]
    try:
        der = base64.b64decode("".join(body).encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        # 'from None': the decoder's own error would put the text into the traceback.
        raise PemError(f"line {begin}: the block {label!r} is not valid base64") from None
    if not der:
        raise PemError(f"line {begin}: the block {label!r} is empty")
    return PemBlock(label, der, headers)
