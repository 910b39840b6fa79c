# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one pair of a certificate is: the renewed files, judged, and the installed file beside them. Changes nothing."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.fitness import Fitness, HostRoots, assess
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import (
    BundleFile,
    group_id,
    parse_mode,
    refuse_other_file,
    user_id,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import opened
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.rules import iso_time
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.x509 import X509
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.configuration import (
    Pair,
    PublishedKey,
    Renewable,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_DANE_TA, _DANE_EE = 2, 3
_USABLE = (_DANE_TA, _DANE_EE)
"""The usages of TLSA records that count for SMTP (RFC 7672, 3.1)."""


class Parts(NamedTuple):
    """One pair, as it is. renewed: the files of whoever renews. present: the installed file; None if the daemon reads those files.

    installed: the judgement on the installed file; None if there is none.
    """

    pair: Pair
    renewed: Fitness
    present: Optional[FileImage]
    installed: Optional[Fitness]

    @property
    def served(self) -> Optional[X509]:
        """The certificate that a listener has to serve now; None if that is not known."""
        fitness = self.renewed if self.present is None else self.installed
        return fitness.leaf if fitness else None

    @property
    def is_current(self) -> bool:
        """Whether the renewed certificate is the installed one."""
        if self.present is None:
            return True
        old, new = self.installed.leaf if self.installed else None, self.renewed.leaf
        return bool(old and new and old.der == new.der)

    @property
    def keeps(self) -> bool:
        """Whether the installed certificate stays, because it is fit and ends later: no step back.

        That it ends soon does not count: the other one ends sooner.
        """
        old, new = self.installed.leaf if self.installed else None, self.renewed.leaf
        faults = {one.code for one in self.installed.faults} - {"expiring"} if self.installed else set()
        return bool(not faults and old and new and old.not_after > new.not_after)


NOT_READ = Fitness((), (), None, ())
"""The renewed files, where they cannot be read."""


def look(entry: Renewable, pair: Pair, roots: HostRoots) -> Parts:
    """Read and judge one pair. Raises EngineError if a file of whoever renews cannot be read, or openssl is not there."""
    return look_beside(entry, pair, roots, look_at_renewed(entry, pair, roots))


def look_at_renewed(entry: Renewable, pair: Pair, roots: HostRoots) -> Fitness:
    """Read and judge the files of whoever renews. Raises EngineError as look() does."""
    policy = entry.policy.to_install if pair.path else entry.policy
    key, certificate, chain = (_content(one) for one in (pair.private_key, pair.certificate, pair.chain))
    return assess(key, certificate, chain, entry.names, roots, policy)


def look_beside(entry: Renewable, pair: Pair, roots: HostRoots, renewed: Fitness) -> Parts:
    """Read and judge the installed file of a pair. Raises EngineError if it cannot be read, or openssl is not there."""
    if not pair.path:
        return Parts(pair, renewed, None, None)
    present = read_installed(entry, pair)
    if present.content is None:
        return Parts(pair, renewed, present, None)
    refuse_other_file(present)
    return Parts(pair, renewed, present, assess_installed(entry, present, roots))


def read_installed(entry: Renewable, pair: Pair) -> FileImage:
    """Return the file that the daemon reads. Raises EngineError."""
    bundle = BundleFile(pair.path, owner=entry.owner, group=entry.group, mode=entry.mode)
    try:
        return FileImage.read(pair.path, max_bytes=pem.MAX_BYTES, trust=bundle.trust())
    except OSError as error:
        raise EngineError(f"{pair.path} cannot be read: {error.strerror or error}") from error


def assess_installed(entry: Renewable, present: FileImage, roots: HostRoots) -> Fitness:
    """Judge the file that the daemon reads, which holds key, certificate and chain."""
    both = present.content or b""
    return assess(both, both, b"", entry.names, roots, entry.policy)


def assess_served(entry: Renewable, chain: Sequence[bytes], roots: HostRoots) -> Fitness:
    """Judge the chain (DER, leaf first) that a listener serves."""
    text = pem.join(pem.PemBlock("CERTIFICATE", der) for der in chain).encode("ascii")
    return assess(None, text, b"", entry.names, roots, entry.policy)


def wanted_image(entry: Renewable, parts: Parts) -> FileImage:
    """Return the file to install. Raises EngineError if it cannot be installed with its owner, group and mode."""
    bundle = BundleFile(
        parts.pair.path, content=parts.renewed.bundle, owner=entry.owner, group=entry.group, mode=entry.mode
    )
    return bundle.image()


def mended(entry: Renewable, present: FileImage) -> FileImage:
    """Return the installed file with the mode and the owner that it has to have. Raises EngineError for an unknown user or group."""
    mode, uid, gid = parse_mode(entry.mode), user_id(entry.owner), group_id(entry.group)
    return replace(present, mode=mode, uid=uid, gid=gid, secret=True)


def is_open(present: FileImage, wanted: FileImage) -> bool:
    """Whether somebody can read the key who must not."""
    by_group = present.mode & stat.S_IRGRP and present.gid and (present.gid, stat.S_IRGRP) != (
        wanted.gid, wanted.mode & stat.S_IRGRP,
    )  # fmt: skip
    return bool(present.mode & stat.S_IROTH or by_group or present.uid not in (0, wanted.uid))


def rights(image: FileImage) -> str:
    """Return mode, owner and group of a file, for a message."""
    return f"mode {image.mode:04o}, owner {image.uid}, group {image.gid}"


def unpublished(entry: Renewable, fitness: Fitness) -> list[str]:
    """Return the TLSA records to publish before a certificate may be served; none if the published ones fit it, or if there are none.

    At each name one of the usable records has to fit.
    """
    leaf = fitness.leaf
    if leaf is None:
        return []
    missing = []
    for name in dict.fromkeys(one.name for one in entry.tlsa):
        usable = [one for one in entry.tlsa if one.name == name and one.usage in _USABLE]
        if usable and not any(_fits(one, leaf, fitness.chain) for one in usable):
            missing.append(f"{name}. IN TLSA 3 1 1 {leaf.spki_sha256}")
    return missing


def _fits(record: PublishedKey, leaf: X509, chain: Sequence[X509]) -> bool:
    """Whether a record names the leaf, or one of the issuers that are served with it."""
    for one in [leaf] if record.usage == _DANE_EE else chain:
        part = {0: one.der, 1: one.spki}.get(record.selector, b"")
        forms = {0: part.hex(), 1: hashlib.sha256(part).hexdigest(), 2: hashlib.sha512(part).hexdigest()}
        if part and forms.get(record.matching_type) == record.data:
            return True
    return False


def ends(fitness: Fitness) -> str:
    """Return when a certificate ends and which it is, for a message."""
    leaf = fitness.leaf
    return f"until {iso_time(leaf.not_after)}, SHA-256 {leaf.fingerprint_sha256[:16]}..." if leaf else "none"


def _content(path: str) -> bytes:
    if not path:
        return b""
    try:
        with opened(path) as file:
            return file.read(pem.MAX_BYTES + 1)
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror or error}") from error
