# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads DER, as far as certificates need it. Standard library only. Whoever made the bytes is a stranger."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import NamedTuple

BOOLEAN, INTEGER, BITS, OCTETS, OID, UTF8, SEQUENCE, SET = 0x01, 0x02, 0x03, 0x04, 0x06, 0x0C, 0x30, 0x31
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_ENCODINGS = {
    UTF8: "utf-8", 0x12: "ascii", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1A: "ascii", 0x1C: "utf-32-be", 0x1E: "utf-16-be",
}  # fmt: skip
"""Tag of a text -> its encoding."""


class DerError(ValueError):
    """The bytes are not the expected DER. The message quotes nothing of them."""


class Element(NamedTuple):
    """One element: its tag, its content, and all of it with the head."""

    tag: int
    content: bytes
    whole: bytes

    def of(self, tag: int) -> Element:
        """Return the element itself. Raises DerError unless it has this tag."""
        if self.tag != tag:
            raise DerError(f"tag {self.tag:#x} stands where {tag:#x} is expected")
        return self

    def parts(self) -> list[Element]:
        """Return the elements within. Raises DerError."""
        return list(elements(self.content))


def elements(data: bytes) -> Iterator[Element]:
    """Yield each element of a text. Raises DerError if it is damaged, or not DER."""
    at = 0
    while at < len(data):
        start = at
        if len(data) - at < 2 or data[at] & 0x1F == 0x1F:
            raise DerError("an element is cut off, or has a tag that no certificate has")
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            number = data[at : at + size]
            if not 1 <= size <= 4 or len(number) != size or number[0] == 0 or (size == 1 and number[0] < 0x80):
                raise DerError("a length is not DER")
            length, at = int.from_bytes(number, "big"), at + size
        if at + length > len(data):
            raise DerError("an element is cut off")
        yield Element(tag, data[at : at + length], data[start : at + length])
        at += length


def only(data: bytes, tag: int) -> Element:
    """Return the one element that the bytes are. Raises DerError."""
    found = list(elements(data))
    if len(found) != 1:
        raise DerError("something follows where nothing may")
    return found[0].of(tag)


def number_of(element: Element) -> int:
    """Return an INTEGER. Raises DerError."""
    content = element.of(INTEGER).content
    if not content or (len(content) > 1 and content[0] in (0, 0xFF) and (content[0] ^ content[1]) < 0x80):
        raise DerError("a number is not DER")
    return int.from_bytes(content, "big", signed=True)


def flag_of(element: Element) -> bool:
    """Return a BOOLEAN. Raises DerError."""
    if element.of(BOOLEAN).content not in (b"\x00", b"\xff"):
        raise DerError("a truth value is not DER")
    return element.content == b"\xff"


def bits_of(element: Element) -> bytes:
    """Return the bytes of a BIT STRING whose last byte is whole, as keys and signatures are. Raises DerError."""
    content = element.of(BITS).content
    if not content or content[0]:
        raise DerError("a string of bits is not one of bytes")
    return content[1:]


def named_bits(element: Element) -> set[int]:
    """Return the numbers of the bits that are set in a BIT STRING. Raises DerError."""
    content = element.of(BITS).content
    if not content or content[0] > 7 or (content[0] and len(content) == 1):
        raise DerError("a string of bits is damaged")
    return {8 * at + bit for at, one in enumerate(content[1:]) for bit in range(8) if one & (0x80 >> bit)}


def oid_of(element: Element) -> str:
    """Return an OBJECT IDENTIFIER in dotted form. Raises DerError."""
    arcs, number = [], 0
    content = element.of(OID).content
    if not content or content[-1] & 0x80:
        raise DerError("an identifier is cut off")
    for one in content:
        number = number << 7 | one & 0x7F
        if not one & 0x80:
            arcs.append(number)
            number = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, [first, arcs[0] - 40 * first, *arcs[1:]]))


def text_of(element: Element) -> str:
    """Return a text. Raises DerError for one whose encoding is not known or not kept."""
    encoding = _ENCODINGS.get(element.tag)
    if encoding is None:
        raise DerError("a text has a tag that is not known")
    try:
        return element.content.decode(encoding)
    except UnicodeDecodeError:
        raise DerError("a text is not in its encoding") from None


def time_of(element: Element) -> datetime:
    """Return a moment. Raises DerError."""
    text = element.content.decode("ascii", "replace")
    if element.tag == _UTC_TIME:
        text = ("20" if text[:2] < "50" else "19") + text  # RFC 5280, 4.1.2.5.1
    elif element.tag != _GENERALIZED_TIME:
        raise DerError("a time has a tag that is not known")
    try:
        if len(text) != len("20261130000000Z") or not (text[:-1].isdigit() and text.isascii()):
            raise ValueError
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise DerError("a time is damaged") from None
