# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Postfix policy service: by how a message arrives, it picks the instance that sends it on.

Installed on a gateway and started by spawn(8), which gives it the connection as standard input and
output. How a message arrived is known from the session alone; no header has a say. Which sender is enforced is known
from Postfix alone: it looks the address up as it will use it, and names the question in the attribute policy_context.
Source: SMTPD_POLICY_README.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator

MAX_LINE = 8192
REFUSAL = "451 4.7.0 STARTTLS is required for this sender"
SERVER_ERROR = "451 4.3.5 Server configuration error"
ARRIVAL = "arrival"
ENFORCED = "enforced"
UNICODE = "unicode"
"""The questions: how a message of any sender arrived; the same for an enforced sender; and for a sender whose address is
not ASCII, which is enforced if its domain is another spelling of an enforced one."""
# What may stand beside a domain in an address: source routes, the percent hack and bang paths among them.
# Characters that a name in the DNS is written without: variation selectors, joiners, fillers and the like.
_IGNORED = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_BETWEEN = re.compile(r"[@%!:,;<>()\"\\\s]+")


def answers(lines: Iterable[str], over_tls: str, enforced: str, senders: Callable[[], frozenset[str]]) -> Iterator[str]:
    """One answer for each request: attributes as C(name=value) lines, ended by an empty line.

    over_tls and enforced are FILTER destinations for mail that arrived over TLS, the latter for mail of the
    enforced sender domains. senders: returns their names, as canonical() writes them.
    """
    protocol = context = sender = ""
    whole = True
    for line in lines:
        beginning, whole = whole, line.endswith("\n")
        if not beginning:
            continue
        name, _, value = line.rstrip("\n").partition("=")
        if name == "encryption_protocol":
            protocol = value
        elif name == "policy_context":
            context = value
        elif name == "sender":
            sender = value
        elif not name and not value:
            if context == ENFORCED or (context == UNICODE and senders() & unicode_names(sender)):
                action = f"FILTER {enforced}" if protocol else REFUSAL
            elif context == ARRIVAL:
                action = f"FILTER {over_tls}" if protocol else "DUNNO"
            else:
                action = "DUNNO" if context == UNICODE else SERVER_ERROR
            yield f"action={action}\n\n"
            protocol = context = sender = ""


def unicode_names(address: str) -> frozenset[str]:
    """Each name in an address that is not ASCII and may be its domain, as canonical() writes it."""
    return frozenset(canonical(word) for word in _BETWEEN.split(address) if not word.isascii())


def canonical(domain: str) -> str:
    """The one spelling for all spellings that mean the same name in the DNS: Unicode, in lower case, without look-alikes."""
    text = unicodedata.normalize("NFKC", domain).replace("\u3002", ".")
    text = "".join(char for char in _IGNORED.sub("", text) if unicodedata.category(char) != "Cf")
    labels = [_decoded(label) for label in unicodedata.normalize("NFKC", text.lower()).split(".")]
    return ".".join(labels).rstrip(".")


def _decoded(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode("ascii").decode("punycode").lower()
    except UnicodeError:
        return label


def sender_domains(path: str) -> frozenset[str]:
    """The keys of the table of enforced sender domains, as canonical() writes them; none if there is no such file."""
    try:
        with open(path, encoding="utf-8") as table:  # noqa: PTH123
            return frozenset(canonical(line.split()[0]) for line in table if line.strip() and not line.startswith("#"))
    except FileNotFoundError:
        return frozenset()


def main() -> None:
    """Serve the connection on standard input until it closes; the arguments are those of answers, a file as the last."""
    over_tls, enforced, path = sys.argv[1:4]
    sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    requests = iter(lambda: sys.stdin.readline(MAX_LINE), "")
    for answer in answers(requests, over_tls, enforced, lambda: sender_domains(path)):
        sys.stdout.write(answer)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
