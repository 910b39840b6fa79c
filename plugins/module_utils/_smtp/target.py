# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The target of a test: a host, a port, a name and a protocol, checked before anything is sent."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import PORTS

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\.?\Z")
_DOMAIN = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")

# Letters and digits that IDNA 2008 forbids, allows in some places only, or reads differently from IDNA 2003
# (RFC 5892, 2.6; RFC 5894, 7.2), as far as the rules of _is_plain() let them through.
_IDNA_EXCEPTIONS = frozenset(
    "\u00df\u03c2\u200c\u200d\u00b7\u0375\u05f3\u05f4\u30fb\u0640\u07fa\u302e\u302f\u3031\u3032\u3033\u3034\u3035\u303b"
    "\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669\u06f0\u06f1\u06f2\u06f3\u06f4\u06f5\u06f6\u06f7\u06f8\u06f9"
)
_IDNA_CATEGORIES = frozenset({"Ll", "Lo", "Lm", "Mn", "Mc", "Nd"})


class TargetError(ValueError):
    """The target is not valid. The text names the fault."""


@dataclass(frozen=True)
class Target:
    """A server to test: host, port, the name to send as SNI, and the protocol, which is a key of dialogue.PORTS."""

    host: str
    port: int = 25
    name: str = ""
    protocol: str = "smtp"

    @classmethod
    def parse(cls, text: str, name: str = "", default_port: int = 25) -> Target:
        """Read C(host), C(host:port), C([address]) or C([address]:port).

        Raises TargetError on anything else, so that no newline and no command-line option can reach
        a socket, a log or a configuration file.
        """
        match = re.fullmatch(r"\[([^\[\]]*)\](?::([0-9]{1,5}))?", text)
        if not match and not is_address(text):
            match = re.fullmatch(r"([^:\[\]]*)(?::([0-9]{1,5}))?", text)
        host, port = (match.group(1), match.group(2)) if match else (text, None)
        target = cls(host, int(port) if port else default_port, name)
        target.check()
        return target

    def check(self) -> None:
        """Raise TargetError unless host, port and name are well formed."""
        for what, value in (("host", self.host), ("name", self.name)):
            if value and not (is_address(value) or _HOST.match(value)):
                raise TargetError(f"the {what} {value!r} is neither a host name nor an IP address")
        if not self.host:
            raise TargetError("a target needs a host")
        if self.protocol not in PORTS:
            raise TargetError(f"the protocol {self.protocol!r} of {self.host} is none of {', '.join(PORTS)}")
        if not 0 < self.port < 65536:
            raise TargetError(f"the port {self.port} of {self.host} is not between 1 and 65535")

    @property
    def server_name(self) -> str:
        """The name that the certificate has to cover: C(name), or the host if no name is set."""
        return (self.name or self.host).rstrip(".")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def is_domain(text: str) -> bool:
    """Whether the text is a domain name in lower-case ASCII, without a dot at its end."""
    return bool(_DOMAIN.match(text))


@lru_cache(maxsize=4096)
def is_address(text: str) -> bool:
    """Whether the text is an IP address literal; an IPv6 zone has to be a plain word."""
    if not (":" in text or text[-1:].isdigit()):
        return False  # a fast answer for host names
    address, percent, zone = text.partition("%")
    if percent and not re.fullmatch(r"[A-Za-z0-9_.-]+", zone):
        return False
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return not percent or ":" in address


def ascii_name(text: str) -> str:
    """Return a host name or an address without its final dot, with A-labels (C(xn--...)) for labels outside ASCII.

    Python's own codec follows IDNA 2003. It converts C(stra\u00dfe) to C(strasse), which is another domain in IDNA 2008.
    So this function converts only names that both standards convert in the same way. Raises TargetError for other names.
    """
    text = text[:-1] if text.endswith(".") else text
    return text if text.isascii() else ".".join(_a_label(label, text) for label in text.split("."))


def _a_label(label: str, name: str) -> str:
    if label.isascii():
        return label
    lower = unicodedata.normalize("NFC", label.lower())
    doubtful = [char for char in lower if not (char.isascii() or _is_plain(char))]
    if doubtful or unicodedata.category(lower[0])[0] == "M" or lower[2:4] == "--":
        what = f" for {doubtful[0]!a}" if doubtful else ""
        raise TargetError(f"the name {name!a} cannot be converted safely{what}; give it in its ASCII form (xn--...)")
    return "xn--" + lower.encode("punycode").decode("ascii")


def _is_plain(char: str) -> bool:
    """Whether IDNA 2008 allows the character unchanged at every place of a label (RFC 5892, 3: PVALID)."""
    stable = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", char).casefold()) == char
    return stable and unicodedata.category(char) in _IDNA_CATEGORIES and char not in _IDNA_EXCEPTIONS
