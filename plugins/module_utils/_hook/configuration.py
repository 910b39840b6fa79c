# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of C(mailfleet-starttls), the program that renews certificates on a host between two runs of Ansible.

It is one JSON file, /etc/mailfleet/renewal.json, of root. It holds no secret: paths of keys, never a key. The module renewal_hook
writes it, and docs/schema/renewal.schema.json describes it.

    mailfleet-starttls renew [--name NAME]     install what was renewed, reload, prove it, or put the old one back
    mailfleet-starttls check [--name NAME]     for monitoring: exit status 0, 1, 2 or 3, one line, performance data
    mailfleet-starttls --version

renew ends with 0 if all is as it should be, 1 if a renewed certificate was refused or put back (the old one is still served), 2 if it
could not be put back or is not served, 3 if it could not look.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.fitness import Policy
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import check_path, parse_mode
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import (
    ERROR_SHARE,
    MAX_DAYS,
    MINIMUM_BITS,
    RENEWAL_SHARE,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.formats import KEY, format_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.renewal_files import CONFIGURATION
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, TargetError
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

VERSION = "0.1.0"
"""The version of the collection (galaxy.yml), which C(mailfleet-starttls --version) says."""
RENEWAL_FORMAT = 1
"""The format of the configuration that this version writes."""


CONFIGURATION_BYTES = 4 << 20

_AGAIN = "let the module renewal_hook write it again"
_NAME = re.compile(r"""[^\s'"\\|={}]{1,200}\Z""")
_HEX = re.compile(r"([0-9a-f]{2}){1,512}\Z")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\$?\Z")
_PROTOCOLS = ("smtp", "smtps")


@dataclass(frozen=True)
class Pair:
    """A key and its certificate, and the PEM file that the daemon reads. One for each algorithm.

    private_key, certificate, chain: files of whoever renews, such as /etc/letsencrypt/live/NAME/privkey.pem and fullchain.pem. chain
    is empty if the chain follows the certificate in its file. path: where key, certificate and chain are installed, in this order.
    Empty: the daemon reads the files themselves, so nothing is installed: it is reloaded, and what it serves is proved.
    """

    private_key: str
    certificate: str
    chain: str = ""
    path: str = ""


@dataclass(frozen=True)
class PublishedKey:
    """A TLSA record that is published for a listener: name is like C(_25._tcp.mx1.example.com), data is in hexadecimal."""

    name: str
    usage: int
    selector: int
    matching_type: int
    data: str


@dataclass(frozen=True)
class RenewalPolicy(Policy):
    """min_days_left is for what is served; install_min_days_left for what is to be installed: an alarm refuses no certificate."""

    install_min_days_left: Optional[int] = None

    @property
    def to_install(self) -> Policy:
        """What a renewed certificate has to fulfil."""
        return replace(self, min_days_left=self.install_min_days_left)


@dataclass(frozen=True)
class Renewable:
    """One certificate of a host, in one algorithm or in several.

    names: what it has to cover. roots: PEM text; empty for the host's own store. listeners: where it has to be served; the name of a
    target is what a client asks for.
    """

    name: str
    pairs: tuple[Pair, ...]
    names: tuple[str, ...]
    listeners: tuple[Target, ...]
    owner: str = "root"
    group: str = "root"
    mode: str = "0600"
    roots: str = ""
    policy: RenewalPolicy = field(default_factory=RenewalPolicy)
    tlsa: tuple[PublishedKey, ...] = ()


@dataclass(frozen=True)
class RenewalPlan:
    """What C(mailfleet-starttls) does on a host.

    kind: the product of its mail server. timeout: seconds for a listener to serve what was installed. textfile: a file for the
    collector of node-exporter; empty for none.
    """

    kind: str
    certificates: tuple[Renewable, ...]
    timeout: int = 20
    textfile: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the file's content as plain data."""
        return {KEY: RENEWAL_FORMAT, **asdict(self)}

    def text(self) -> str:
        """Return the file's content."""
        return json.dumps(self.to_json(), indent=2, sort_keys=True) + "\n"

    @classmethod
    def parse(cls, text: str, where: str = CONFIGURATION) -> RenewalPlan:
        """Return the configuration that a text holds. Raises EngineError, which names the place and the fault."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise EngineError(f"{where} is not JSON ({error}); {_AGAIN}") from None
        return cls.from_json(data, where)

    @classmethod
    def from_json(cls, data: Any, where: str, advice: str = _AGAIN) -> RenewalPlan:
        """Return the configuration of plain data. Raises EngineError, which ends with the advice."""
        try:
            format_of(data, RENEWAL_FORMAT, where)
            given = _Given(data, "", {KEY, "kind", "certificates", "timeout", "textfile"})
            timeout = given.number("timeout", 20, 1, 600)
            entries = tuple(_entry(one) for one in given.several("certificates"))
            found = cls(given.text("kind"), entries, timeout, given.path("textfile", ""))
            _refuse_double(found)
        except (EngineError, TargetError, ValueError) as error:
            raise EngineError(f"{where}: {error}; {advice}") from None
        return found


class _Given:
    """An object of the JSON text. What is wrong is a ValueError that names the place."""

    def __init__(self, data: Any, place: str, known: set[str]) -> None:
        if not isinstance(data, dict):
            raise ValueError(f"{place or 'the file'} is not a JSON object")
        self._data, self._place = data, f"{place}." if place else ""
        if more := sorted(set(data) - known):
            raise ValueError(f"{self._place}{more[0]!a} is not known")

    def _take(self, name: str, default: Any) -> Any:
        value = self._data.get(name, default)
        if value is None:
            raise ValueError(f"{self._place}{name} is missing")
        return value

    def text(self, name: str, default: Optional[str] = None) -> str:
        value = self._take(name, default)
        if not isinstance(value, str):
            raise ValueError(f"{self._place}{name} is not a text")
        return value

    def path(self, name: str, default: Optional[str] = None) -> str:
        value = self.text(name, default)
        try:
            if value:
                check_path(value)
        except EngineError as error:
            raise ValueError(f"{self._place}{name}: {error}") from None
        return value

    def flag(self, name: str) -> bool:
        value = self._take(name, False)
        if not isinstance(value, bool):
            raise ValueError(f"{self._place}{name} is neither true nor false")
        return value

    def number(self, name: str, default: Optional[int], least: int, most: int) -> int:
        value = self._take(name, default)
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{self._place}{name} is not a number from {least} to {most}")
        return int(value)

    def days(self, name: str) -> Optional[int]:
        return None if self._data.get(name) is None else self.number(name, None, 0, MAX_DAYS)

    def several(self, name: str, least: int = 0) -> Sequence[Any]:
        value = self._take(name, [])
        if not isinstance(value, list) or len(value) < least:
            raise ValueError(f"{self._place}{name} is not a list{f' with {least} or more' if least else ''}")
        return value

    def part(self, name: str, known: set[str]) -> _Given:
        return _Given(self._take(name, {}), f"{self._place}{name}", known)

    def numbers(self, name: str, default: Mapping[str, int]) -> dict[str, int]:
        value = self._take(name, dict(default))
        if not isinstance(value, dict) or not all(type(one) is int and 0 <= one <= 1 << 16 for one in value.values()):
            raise ValueError(f"{self._place}{name} is not an object of numbers")
        return dict(value)


def check_name(name: str) -> None:
    """Raise ValueError if a certificate cannot have this name: monitoring could not read what is said of it."""
    if not _NAME.match(name) or not name.isprintable():
        raise ValueError(f"the name {name[:80]!a} of a certificate holds a blank, a quote or one of \\|={{}}")


def _entry(data: Any) -> Renewable:
    names = {"name", "pairs", "names", "listeners", "owner", "group", "mode", "roots", "policy", "tlsa"}
    name = data.get("name") if isinstance(data, dict) else None
    given = _Given(data, f"certificate {name[:80]!a}" if isinstance(name, str) else "a certificate", names)
    check_name(given.text("name"))
    for one in ("owner", "group"):
        if not _USER.match(given.text(one, "root")):
            raise ValueError(f"{one} {given.text(one, 'root')[:80]!a} is no name of a user or group")
    mode = given.text("mode", "0600")
    parse_mode(mode)
    covered = tuple(given.several("names", 1))
    if not all(isinstance(one, str) and one.strip() and one.isprintable() for one in covered):
        raise ValueError("names holds something else than host names")
    return Renewable(
        given.text("name"),
        tuple(_pair(one) for one in given.several("pairs", 1)),
        covered,
        tuple(_listener(one) for one in given.several("listeners", 1)),
        given.text("owner", "root"),
        given.text("group", "root"),
        mode,
        given.text("roots", ""),
        _policy(given),
        tuple(_tlsa(one) for one in given.several("tlsa")),
    )


def _pair(data: Any) -> Pair:
    given = _Given(data, "pairs", {"private_key", "certificate", "chain", "path"})
    pair = Pair(given.path("private_key"), given.path("certificate"), given.path("chain", ""), given.path("path", ""))
    if not pair.private_key or not pair.certificate:
        raise ValueError(f"pairs.{'certificate' if pair.private_key else 'private_key'} is empty")
    if pair.path and pair.path in (pair.private_key, pair.certificate, pair.chain):
        raise ValueError(
            f"{pair.path} is installed, and is the source too; leave path empty where the daemon reads the source"
        )
    return pair


def _policy(entry: _Given) -> RenewalPolicy:
    names = {"allow_self_signed", "min_days_left", "warn_days_left", "error_share", "renewal_share", "minimum_bits"}
    given = entry.part("policy", {*names, "install_min_days_left"})
    return RenewalPolicy(
        given.flag("allow_self_signed"),
        given.days("min_days_left"),
        given.days("warn_days_left"),
        given.number("error_share", ERROR_SHARE, 1, 1000),
        given.number("renewal_share", RENEWAL_SHARE, 1, 1000),
        given.numbers("minimum_bits", MINIMUM_BITS),
        given.days("install_min_days_left"),
    )


def _tlsa(data: Any) -> PublishedKey:
    given = _Given(data, "tlsa", {"name", "usage", "selector", "matching_type", "data"})
    name, record = given.text("name"), given.text("data").lower()
    if not re.match(r"_[0-9]{1,5}\._tcp\.[A-Za-z0-9_.-]{1,253}\Z", name):
        raise ValueError(f"tlsa.name {name[:80]!a} is not like _25._tcp.mx1.example.com")
    if not _HEX.match(record):
        raise ValueError("tlsa.data is not hexadecimal")
    return PublishedKey(
        name, given.number("usage", None, 0, 255), given.number("selector", None, 0, 255),
        given.number("matching_type", None, 0, 255), record,
    )  # fmt: skip


def _listener(data: Any) -> Target:
    given = _Given(data, "listeners", {"host", "port", "name", "protocol"})
    protocol = given.text("protocol", "smtp")
    if protocol not in _PROTOCOLS:
        raise ValueError(f"listeners.protocol {protocol[:40]!a} is none of {', '.join(_PROTOCOLS)}")
    target = Target(given.text("host"), given.number("port", 25, 1, 65535), given.text("name", ""), protocol)
    target.check()
    return target


def _refuse_double(found: RenewalPlan) -> None:
    for what, values in (
        ("name", [one.name for one in found.certificates]),
        ("path", [pair.path for one in found.certificates for pair in one.pairs if pair.path]),
    ):
        if twice := sorted({one for one in values if values.count(one) > 1}):
            raise ValueError(f"two certificates have the {what} {twice[0]}")
