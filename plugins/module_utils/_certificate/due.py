# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a certificate whose key is made on this host is to be issued, or issued anew. Reads only; no key leaves the host."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.lineage import Lineage, kind_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import seen_on_host
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.openssl import PROGRAM_PATH, validity_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import numbered, pending_key
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import renewal_limit
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE

LIVE = "/etc/letsencrypt/live"
"""Where certbot keeps the present key and certificate of each name."""
ACME = "acme"
ISSUERS: Mapping[str, str] = {
    "command": "starttls_certificate_command",
    "csr": "your authority, for a request",
    ACME: "certbot",
}
"""Source -> who issues, in the words of a plan."""
DNS = "rfc2136"
DNS_PACKAGE = "python3-certbot-dns-rfc2136"
_PYTHON = ("usr/lib/python3*/*-packages", "usr/lib64/python3*/*-packages")
_INSTALL = "install the package"


@dataclass(frozen=True)
class Issue:
    """What is to be issued.

    source: C(command), C(csr) or C(acme). path: of the PEM file that the daemon reads. names: those to be covered. key_types: one
    certificate for each, the first one at path. renew_days: fixed days in place of a third of the life. force: whether to issue anew
    whatever is there. orders: whether this run writes requests. The others are for C(acme). challenge: C(webroot), C(standalone) or
    C(rfc2136). webroot, credentials and ca_file are paths on the host. server: the address of the directory. installs: whether certbot
    may be installed.
    """

    source: str
    path: str
    names: tuple[str, ...]
    key_types: tuple[str, ...]
    renew_days: Optional[int] = None
    force: bool = False
    orders: bool = False
    challenge: str = ""
    webroot: str = ""
    credentials: str = ""
    email: str = ""
    server: str = ""
    ca_file: str = ""
    installs: bool = False

    @property
    def paths(self) -> list[str]:
        """The PEM file of each certificate."""
        return [numbered(self.path, place) for place in range(len(self.key_types))]

    def pending(self, path: str, store: str = STORE) -> str:
        """The path of the key that waits for its certificate."""
        return pending_key(path, store)

    def lineage(self, place: int) -> str:
        """The name that certbot has for a certificate."""
        first = next((name for name in self.names if not name.startswith("*.")), self.names[0].lstrip("*."))
        return first if not place else f"{first}-{self.key_types[place]}"


def look(issue: Issue, now: Optional[datetime] = None, store: str = STORE, live: str = LIVE) -> list[dict[str, Any]]:
    """Return for each certificate C(path), C(due), C(anew), C(pem), C(public_key), C(pending), C(void) and C(message).

    due: why it is to be installed or issued; empty if it is neither. anew: whether the one that is there is too old, or unfit.
    pem: the certificates of the file that is there. public_key: of the key in it. pending: the public key of the one that waits for its
    certificate; empty if none does. void: why the key that waits is not used. message: why nothing can be issued here. If certbot has
    renewed it already, C(issued) and C(key) are that certificate, as PEM, and the path of its key: nothing has to be issued.
    """
    return [
        _seen(issue, place, now or datetime.now(timezone.utc), store, live) for place in range(len(issue.key_types))
    ]


def _seen(issue: Issue, place: int, now: datetime, store: str, live: str) -> dict[str, Any]:
    path = issue.paths[place]
    seen = seen_on_host(path, "")
    found = {
        "path": path,
        "pem": seen["pem"],
        "public_key": seen["public_key"],
        "pending": "",
        "void": "",
        "due": "",
        "message": "",
    }
    found["anew"] = issue.force
    waiting = issue.pending(path, store)
    if issue.source != ACME and Path(waiting).exists():
        found["pending"] = seen_on_host(waiting, waiting, certificates=False)["public_key"]
        if found["pending"] and (kind := kind_of(found["pending"])) != issue.key_types[place]:
            found["pending"] = ""
            found["void"] = (
                f"the key that waits in {waiting} is of the kind {kind or 'that has no name here'}, and starttls_key_types says "
                f"{issue.key_types[place]}"
            )
    if issue.force:
        found["due"] = "the one that is there does not pass"
    elif seen["message"]:
        found["due"] = "there is none yet" if not Path(path).exists() else str(seen["message"])
    else:
        found["due"] = _too_old(str(seen["pem"]), issue.renew_days, now)
        found["anew"] = bool(found["due"])
    if issue.source == ACME:
        _add_lineage(found, issue, place, Lineage(issue.lineage(place), live), now)
    elif found["due"]:
        found["message"] = _missing(issue)
    return found


def _add_lineage(found: dict[str, Any], issue: Issue, place: int, lineage: Lineage, now: datetime) -> None:
    """Add what certbot has. One that is not too old is installed before another one is issued: its TLSA record may be published by now."""
    is_fresh = not lineage.message and lineage.pem != found["pem"] and not _too_old(lineage.pem, issue.renew_days, now)
    suits = is_fresh and not issue.force and lineage.suits(issue.names, issue.key_types[place])
    if is_fresh and not issue.force:
        what = "certbot has renewed it in" if found["pem"] else "there is none yet, and certbot has one in"
        found.update(due=f"{what} {Path(lineage.certificate).parent}", anew=False)
    if suits:
        found.update(issued=lineage.pem, key=lineage.private_key, pending=lineage.public_key)
    if found["due"]:
        cannot = "" if suits else _missing(issue)
        found["message"] = cannot or lineage.refusal(issue.names, issue.challenge, str(found["pem"]))


def _too_old(text: str, days: Optional[int], now: datetime) -> str:
    blocks = pem.certificates(pem.split(text))
    found = validity_of(blocks[0].der) if blocks else None
    if not found:
        return "its dates cannot be read"
    first, last = found
    limit = renewal_limit(last - first) if days is None else timedelta(days=days)
    if last - now >= limit:
        return ""
    least = "less than a third of its life is" if days is None else f"fewer than {days} days are"
    return f"it ends at {last:%Y-%m-%dT%H:%M:%SZ}, and {least} left"


def _missing(issue: Issue) -> str:
    """Return why this host cannot issue; empty if it can."""
    if issue.source != ACME:
        return (
            ""
            if program("openssl")
            else f"the program openssl, which makes the key, is not on the host: {_INSTALL} openssl"
        )
    packages = [] if program("certbot") else ["certbot"]
    if issue.challenge == DNS and not has_dns_plugin():
        packages.append(DNS_PACKAGE)
    if packages and not issue.installs:
        names = " and ".join(packages)
        verb = "is" if len(packages) == 1 else "are"
        return f"{names} {verb} not installed on the host: {_INSTALL} {names}, or set starttls_acme_install: true"
    for path, option in (
        (issue.webroot if issue.challenge == "webroot" else "", "starttls_acme_webroot"),
        (issue.credentials if issue.challenge == DNS else "", "starttls_acme_dns_credentials"),
        (issue.ca_file, "starttls_acme_ca_file"),
    ):
        if path and not Path(path).exists():
            return f"there is no {path} on the host; correct {option}"
    return ""


def has_dns_plugin() -> bool:
    """Whether certbot can prove a name by a dynamic update of the DNS."""
    return any(True for place in _PYTHON for _one in Path("/").glob(f"{place}/certbot_dns_rfc2136"))


def leaf_of(text: str) -> str:
    """Return the fingerprint of the first certificate of a text; empty if there is none."""
    blocks = pem.certificates(pem.split(text))
    return pem.fingerprint(blocks[0].der) if blocks else ""


def program(name: str) -> str:
    """Return the path of a program; empty if it is not there."""
    return shutil.which(name, path=PROGRAM_PATH) or ""


def issue_of(options: Mapping[str, Any], path: str) -> Issue:
    """Return what is to be issued by the options of a module on the host."""
    kinds: Sequence[str] = options["key_types"]
    days = options["renew_days"]
    return Issue(
        source=options["source"],
        path=path,
        names=tuple(options["names"]),
        key_types=tuple(kinds),
        renew_days=int(days) if days not in (None, "") else None,
        force=bool(options["force"]),
        orders=bool(options["requests"]),
        challenge=options["acme_challenge"] or "",
        webroot=options["acme_webroot"] or "",
        credentials=options["acme_dns_credentials"] or "",
        email=options["acme_email"] or "",
        server=options["acme_server"] or "",
        ca_file=options["acme_ca_file"] or "",
        installs=bool(options["acme_install"]),
    )
