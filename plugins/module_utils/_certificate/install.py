# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs the file with key, certificate and chain on the host: the host's part of the module tls_certificate."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import private_key_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.readers import closed_to, readers_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import before as record
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage, resolve
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE, host_locked
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import (
    PathTrust,
    make_directories,
    missing_directories,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import CERTIFICATE
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_LARGEST_ID = 0xFFFFFFFE
_PACKAGES = {"Debian-exim": "Exim", "exim": "Exim", "mail": "a mail server", "postfix": "Postfix"}


@dataclass(frozen=True)
class BundleFile:
    """The wanted file.

    content is the PEM text of key, certificate and chain, checked on the controller. A read gets no content, because it
    needs no key: it gets sha256, the digest of the content in hexadecimal, and fingerprints, those of the certificates.
    If present is true and both are missing, the controller did not check the file. owner and group are names or
    numbers. mode has the form that parse_mode() reads. ends: when the certificate ends, as newer.end_of() gives it; empty if
    the content tells it. replace: whether it also replaces one that ends later. keep: the fingerprint of one on the host that
    the controller has judged, and that stays. replaces: that of one that it has seen not to end later. private_key: the path
    of the key, which was made on this host; then content has the certificates only, and there is no sha256. issued_by: what
    will issue the certificate; then nothing of it is known yet.
    """

    path: str
    present: bool = True
    content: Optional[str] = field(default=None, repr=False)
    owner: str = "root"
    group: str = "root"
    mode: Union[str, int] = "0600"
    sha256: str = ""
    fingerprints: tuple[str, ...] = ()
    ends: str = ""
    replace: bool = False
    keep: str = ""
    replaces: str = ""
    private_key: str = ""
    issued_by: str = ""

    @classmethod
    def of_options(cls, options: Mapping[str, Any], group: str, mode: Union[str, int]) -> BundleFile:
        """Return the file that the module's options ask for, with this group and mode."""
        fields = {name: options[name] for name in ("path", "content", "owner")}
        fields.update({name: options.get(name) or "" for name in ("private_key", "issued_by")})
        replace_newer = bool(options.get("replace"))
        return cls(present=options["state"] == "present", group=group, mode=mode, replace=replace_newer, **fields)

    def image(self) -> FileImage:
        """Return the image of the wanted file on this host. Raises EngineError if this file cannot be installed."""
        check_path(self.path)
        if not self.present:
            return FileImage(self.path, None, trust=self.trust())
        if not self.content:
            raise EngineError(
                "the module was started without its action plugin, which checks the certificate on the "
                "controller; use it in a task as mailfleet.starttls.tls_certificate"
            )
        content = private_key_of(self.private_key) + self.content if self.private_key else self.content
        return FileImage(self.path, content.encode("ascii"), *self._permissions(), secret=True, trust=self.trust())

    def look(self) -> Look:
        """Compare the file on this host with the wanted one, which needs no content. Raises EngineError as image() does."""
        check_path(self.path)
        mode, uid, gid = self._permissions()
        before = FileImage.read(self.path, max_bytes=pem.MAX_BYTES, trust=self.trust())
        refuse_other_file(before)
        old = identity_of(before)
        if self.issued_by:
            return Look(True, difference(self.path, old, _announced(self.issued_by, mode, uid, gid)), _leaf(before))
        new = _identity(self.fingerprints, mode, uid, gid)
        if self.private_key:  # the controller does not know the whole file
            same = before.content is not None and _fingerprints(before) == self.fingerprints
        else:
            same = before.content is not None and hashlib.sha256(before.content).hexdigest() == self.sha256
        if not same and old == new:
            old, new = _differing(old, new)
        return Look(not same or old != new, difference(self.path, old, new), _leaf(before))

    def _permissions(self) -> tuple[int, int, int]:
        """Return mode, owner and group as numbers. Raises EngineError if the file cannot be installed with them."""
        mode, uid, gid = parse_mode(self.mode), user_id(self.owner), group_id(self.group)
        if os.geteuid() and uid != os.geteuid():
            raise EngineError(f"only root can give {self.path} to the user {self.owner}; set 'become: true'")
        check_directories(self.path, uid, gid, mode)
        return mode, uid, gid

    def trust(self) -> PathTrust:
        """Whom the path may trust. The file may lie in a directory of its owner."""
        try:
            return trust_of(user_id(self.owner))
        except EngineError:
            return trust_of(0)


class Look(NamedTuple):
    """The comparison of a file with the wanted one.

    diff is in Ansible's format and holds no secret. previous is the certificate of the present file as PEM, or None.
    """

    differs: bool
    diff: dict[str, str]
    previous: Optional[str]


def changed_bundle(before: FileImage, after: FileImage) -> Look:
    """Return the comparison of two files, both with content."""
    changed = before != after if after.content is not None else before.content is not None
    old, new = identity_of(before), identity_of(after)
    if old == new and before.content != after.content:
        old, new = _differing(old, new)
    return Look(changed, difference(after.path, old, new), _leaf(before))


def install(wanted: BundleFile, *, check_mode: bool, store: str = STORE) -> dict[str, Any]:
    """Bring the file to the wanted state and return C(changed), C(path), C(diff) and C(previous_certificate).

    previous_certificate is the former certificate as PEM, or None. store: the directory of the locks. Raises EngineError
    before anything is written, also if another run changes this host for too long, and OSError if reading or writing fails.
    """
    after = wanted.image()
    # Only root changes daemons, and only root may use the directory of the locks.
    if os.geteuid():
        return _install(after, check_mode)
    with contextlib.nullcontext() if check_mode else host_locked(store):
        return _install(after, check_mode, store)


def drop_pending(bundles: Iterable[BundleFile], store: str = STORE) -> None:
    """Remove the keys that waited in the store for their certificates, because those are installed now."""
    for one in bundles:
        if one.private_key.startswith(f"{store}/pending"):
            FileImage(one.private_key, None).write()


def _install(after: FileImage, check_mode: bool, store: str = "") -> dict[str, Any]:
    """Install the file. store: the directory of the record of what was there; empty for a user who keeps none."""
    before = FileImage.read(after.path, max_bytes=pem.MAX_BYTES, trust=after.trust)
    refuse_other_file(before)
    removes = after.content is None
    if removes and store:
        after = _former(store, before, after)
    look = changed_bundle(before, after)
    if look.differs and not check_mode:
        directory = str(Path(after.path).parent)
        missing = missing_directories(directory, after.trust) if after.content is not None else []
        if store:
            record.note(store, record.CERTIFICATES, [(before, after)], dict.fromkeys(missing, after.trust))
        if after.content is not None:
            make_directories(directory, after.trust)
        after.write()
        if removes and store:
            record.release(store, [after.path])
    return {"changed": look.differs, "path": after.path, "diff": look.diff, "previous_certificate": look.previous}


def _former(store: str, present: FileImage, removed: FileImage) -> FileImage:
    """Return the file that was there before the first installation; the removed one if there was none, or if nobody knows."""
    known = record.load(store, record.CERTIFICATES).files.get(removed.path)
    return known.without if known and known.is_last(present) else removed


def refuse_other_file(present: FileImage) -> None:
    """Raise EngineError if a file holds something else than certificates and keys: a wrong path must not cost it."""
    if present.content and present.content.strip() and b"-----BEGIN " not in present.content:
        raise EngineError(
            f"{present.path} holds something else than a certificate, so it is not replaced or removed; name another path, or move "
            "that file away first"
        )


def parse_mode(value: Any) -> int:
    """Return the permission bits of the option ``mode``. Raises EngineError for unsafe ones.

    A string is read as octal digits. A number comes from YAML without quotes and is used as it is.
    """
    try:
        bits = value if isinstance(value, int) else int(str(value), 8)
    except ValueError:
        raise EngineError(f"mode {value!r} is not an octal number; write it with quotes, like mode: '0640'") from None
    if bits & ~0o660 or not bits & 0o400:
        raise EngineError(
            f"mode {bits:04o} does not fit a private key: others must have no access, nobody may execute it, "
            "and the owner has to read it; use mode: '0600', or '0640' with a group that may read it"
        )
    return bits


def check_path(path: str) -> None:
    """Raise EngineError unless ``path`` is absolute, names a file and has no control characters."""
    if any(not char.isprintable() for char in path):
        raise EngineError(f"path {path!a} contains a line break or another unprintable character")
    if not path.startswith("/"):
        raise EngineError(f"path '{path}' is not absolute; it has to begin with '/'")
    if path.endswith("/") or Path(path).name in ("", ".", ".."):
        raise EngineError(f"path '{path}' names a directory; give a file, like '{CERTIFICATE}'")


def user_id(owner: str) -> int:
    """Return the number of a user given by name or number. Raises EngineError for an unknown name."""
    try:
        return _number(owner) if owner.isdecimal() else pwd.getpwnam(owner).pw_uid
    except (KeyError, ValueError):  # a name with a NUL character is a ValueError
        raise EngineError(f"owner: user {owner} does not exist on this host{_hint(owner)}") from None


def group_id(group: str) -> int:
    """Return the number of a group given by name or number. Raises EngineError for an unknown name."""
    try:
        return _number(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise EngineError(f"group {group} does not exist on this host{_hint(group)}") from None


def trust_of(uid: int) -> PathTrust:
    """Return whom the path of a certificate may trust: root, and as a further owner of directories the owner of the file."""
    return PathTrust(owners=frozenset({uid} - {0}), option="path (starttls_certificate_path)")


def _number(text: str) -> int:
    """Return the number of a user or group. Raises ValueError unless the kernel can hold it."""
    if len(text) > len(str(_LARGEST_ID)) or int(text) > _LARGEST_ID:
        raise ValueError("no user or group has such a number")
    return int(text)


def check_directories(path: str, uid: int, gid: int, mode: int) -> None:
    """Raise EngineError if a directory above the file is unsafe, or closed to one of its readers."""
    try:
        target = Path(resolve(path, trust_of(uid)))
    except NotADirectoryError:
        raise EngineError(f"a directory of {path} is not a directory, so the file cannot be in it") from None
    needed = list(readers_of(uid, gid, mode))
    for directory in reversed(target.parents):
        try:
            status = directory.stat()
        except FileNotFoundError:
            return  # The directory will be created with mode 0755, and so will every directory below it.
        if not stat.S_ISDIR(status.st_mode):
            raise EngineError(f"{directory} is not a directory, so {path} cannot be in it")
        # In a sticky directory such as /tmp nobody can move the files of others, but anybody can create a name first.
        sticky = bool(status.st_mode & stat.S_ISVTX) and directory != target.parent
        if status.st_mode & stat.S_IWOTH and not sticky:
            raise EngineError(
                f"directory {directory} can be written by everybody, so anybody could replace the private "
                f"key; run 'chmod o-w {directory}' or choose another path"
            )
        for reader in needed:
            bit = closed_to(directory, status, reader)
            if bit:
                raise EngineError(
                    f"user {reader.name} could not read {path}, because directory {directory} (mode "
                    f"{stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}:{status.st_gid}) does not "
                    f"let the user pass; run 'chmod {bit}+x {directory}' or choose another path"
                )


def identity_of(image: FileImage) -> str:
    """Return the lines that a diff shows for a file: they identify the file and contain no secret."""
    if image.content is None:
        return ""
    try:
        prints = [pem.fingerprint(block.der) for block in pem.certificates(pem.split(image.content))]
    except pem.PemError:
        prints = []
    return _identity(prints, image.mode, image.uid, image.gid)


def _fingerprints(image: FileImage) -> tuple[str, ...]:
    """Return the fingerprints of the certificates in a file that begins with a private key; none for another one."""
    try:
        blocks = pem.split(image.content or b"")
    except pem.PemError:
        return ()
    return (
        tuple(pem.fingerprint(one.der) for one in pem.certificates(blocks))
        if blocks and blocks[0].is_private_key
        else ()
    )


def _announced(issued_by: str, mode: int, uid: int, gid: int) -> str:
    return _identity((), mode, uid, gid).replace(
        "certificate: none that can be read", f"certificate: issued by {issued_by}"
    )


def _identity(fingerprints: Sequence[str], mode: int, uid: int, gid: int) -> str:
    lines = [f"certificate sha256: {value}" for value in fingerprints[:1]] or ["certificate: none that can be read"]
    lines += [f"chain sha256: {value}" for value in fingerprints[1:]]
    lines += [f"mode: {mode:04o}", f"owner: {uid}", f"group: {gid}"]
    return "\n".join(lines) + "\n"


def _differing(old: str, new: str) -> tuple[str, str]:
    layout = "private key and layout"
    return f"{old}{layout}: different\n", f"{new}{layout}: as wanted\n"


def difference(path: str, old: str, new: str) -> dict[str, str]:
    """Return the diff of a file without its content. old and new: results of identity_of."""
    return {"before": old, "after": new, "before_header": path, "after_header": path}


def _hint(name: str) -> str:
    return f": is {_PACKAGES[name]} installed?" if name in _PACKAGES else ""


def _leaf(image: FileImage) -> Union[str, None]:
    try:
        found = pem.certificates(pem.split(image.content or b""))
    except pem.PemError:
        return None
    return found[0].text if found else None
