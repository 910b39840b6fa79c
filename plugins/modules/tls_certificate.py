#!/usr/bin/python
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module, see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_certificate
short_description: Judge a certificate and install it for a mail server
version_added: 0.1.0
description:
  - Judges a private key, its certificate and the chain on the controller, and only if there is nothing to
    object installs them on the host as one PEM file that holds the key, the certificate and the chain, in
    this order.
  - What is judged is what partners' mail servers look at. The key belongs to the certificate and needs no
    passphrase; the certificate is valid, for long enough, for the wanted names and for servers; keys and
    signatures are strong; and the chain is complete and in order up to a root that is trusted.
  - All faults are reported at once. Nothing is sent to the host while there is one.
  - The file is replaced in one step, so a mail server that starts at that moment finds the old file or the
    new one. The root is left out of it, because partners have to know it already.
  - Mail servers read the file when they are reloaded. This module does not reload anything.
options:
  path:
    description:
      - Absolute path of the PEM file on the host.
      - Its directory is created (owner V(root), mode V(0755)) if it is missing. It must not be writable by
        everybody.
      - A symbolic link is followed and stays what it is.
    type: path
    default: /etc/mailfleet/starttls.pem
  state:
    description:
      - Whether the file shall be there.
      - With V(absent) only O(path) matters. The directory stays.
    type: str
    choices: [present, absent]
    default: present
  private_key_file:
    description:
      - File on the controller with the private key in PEM, without a passphrase. It may be encrypted with
        Ansible Vault.
      - One of O(private_key_file) and O(private_key_content) is needed when O(state=present).
    type: path
  private_key_content:
    description:
      - The private key itself, in place of O(private_key_file). Keep it in Ansible Vault.
    type: str
  certificate_file:
    description:
      - File on the controller with the certificate in PEM. Certificates that follow the first one are taken
        as the beginning of the chain, so certbot's C(fullchain.pem) needs no O(chain_file).
      - One of O(certificate_file) and O(certificate_content) is needed when O(state=present).
    type: path
  certificate_content:
    description:
      - The certificate itself, in place of O(certificate_file).
    type: str
  chain_file:
    description:
      - File on the controller with the intermediate certificates in PEM, the one that signed the certificate
        first.
    type: path
  chain_content:
    description:
      - The intermediate certificates themselves, in place of O(chain_file).
    type: str
  ca_file:
    description:
      - File on the controller with the roots, in PEM, that the chain has to end at. It is not installed.
      - Without it and O(ca_content), the roots that the controller's system trusts are used.
    type: path
  ca_content:
    description:
      - The roots themselves, in place of O(ca_file).
    type: str
  names:
    description:
      - Host names, or IP addresses, that the certificate has to cover; usually the name that the MX record
        and the mail server's greeting have.
      - Needed when O(state=present).
    type: list
    elements: str
  min_days_left:
    description:
      - The certificate and its chain must be valid for at least this many days.
    type: int
    default: 14
  allow_self_signed:
    description:
      - Accept a certificate that is signed by itself. Partners that check certificates will refuse it.
    type: bool
    default: false
  kind:
    description:
      - The kind of mail server that reads the file. It decides O(group) and O(mode) where they are not given.
      - V(auto) finds out on the host. If no mail server is there yet, the file is for V(root) only. Empty is the same.
    type: str
    default: ''
  owner:
    description:
      - Name or number of the user who owns the file.
    type: str
    default: root
  group:
    description:
      - Name or number of the group of the file. By default the group that a mail server of O(kind) needs, else V(root).
    type: str
  mode:
    description:
      - Permissions of the file as an octal string. Only owner and group may be given access.
      - By default the permissions that a mail server of O(kind) needs, else V(0600).
    type: raw
  content:
    description:
      - What the controller's half of this module sends to the host once the judgement is passed. Tasks cannot set it.
    type: str
extends_documentation_fragment:
  - mailfleet.starttls.attributes
  - mailfleet.starttls.attributes.action_group
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows what identifies the certificates, and the permissions; never the PEM text.
  idempotent:
    support: full
    details:
      - Judging depends on the date, so a certificate that was accepted may be refused later.
requirements:
  - cryptography >= 42.0 (on the controller only)
notes:
  - Needs root on the host, so set C(become=true).
  - Do not write the text of a private key into a playbook. ansible-core itself quotes the lines around a task
    that fails, and shows a task's arguments when its option C(display_args_to_stdout) is set. Use a variable
    or a file, and Ansible Vault.
  - That a renewal seems to be late is said by a warning of the task.
seealso:
  - module: mailfleet.starttls.mail_server_tls
  - module: mailfleet.starttls.starttls_probe
author:
  - The mailfleet.starttls authors (@mailfleet)
"""

EXAMPLES = r"""
- name: Install the certificate of a Postfix host
  mailfleet.starttls.tls_certificate:
    private_key_file: "{{ inventory_hostname }}/privkey.pem"
    certificate_file: "{{ inventory_hostname }}/fullchain.pem"
    names:
      - mx1.example.com

- name: Install the certificate of an Exim host, issued by a private authority
  mailfleet.starttls.tls_certificate:
    private_key_content: "{{ vault_mx2_private_key }}"
    certificate_file: mx2/certificate.pem
    chain_file: mx2/intermediate.pem
    ca_file: root.pem
    names:
      - mx2.example.com
      - mail.example.com
    kind: exim

- name: Only look whether the certificate could be installed
  mailfleet.starttls.tls_certificate:
    private_key_file: privkey.pem
    certificate_file: fullchain.pem
    names: [mx1.example.com]
  check_mode: true

- name: Remove it
  mailfleet.starttls.tls_certificate:
    state: absent
"""

RETURN = r"""
path:
  description: Path of the PEM file on the host.
  type: str
  returned: when there are no findings
  sample: /etc/mailfleet/starttls.pem
fingerprint_sha256:
  description:
    - SHA-256 fingerprint of the certificate that the mail server will present, in lower-case hexadecimal.
  type: str
  returned: when O(state=present) and there are no findings
  sample: 6f3e0b3f1c6d2f2b1f0d7f8f3c9e5a4b2d1c0e9f8a7b6c5d4e3f2a1b0c9d8e7f
certificate:
  description: What the certificate says.
  type: dict
  returned: when O(state=present) and the certificate could be read
  contains:
    subject:
      description: Subject by RFC 4514. Control characters are escaped, here and everywhere else.
      type: str
      sample: CN=mx1.example.com
    common_name:
      description: The last common name of the subject.
      type: str
    sans:
      description: Alternative names.
      type: list
      elements: str
      sample: ["DNS:mx1.example.com", "IP:192.0.2.1"]
    issuer:
      description: Issuer by RFC 4514.
      type: str
    serial:
      description: Serial number in hexadecimal.
      type: str
    not_before:
      description: Begin of its validity, UTC.
      type: str
      sample: '2026-11-01T00:00:00Z'
    not_after:
      description: End of its validity, UTC.
      type: str
    days_left:
      description: Whole days until then, rounded down.
      type: int
    key_type:
      description: Kind of the public key.
      type: str
      sample: RSA
    key_bits:
      description: Size of the public key.
      type: int
    signature_hash:
      description: Hash of the signature; null for a kind of signature that has none.
      type: str
      sample: sha256
    fingerprint_sha256:
      description: SHA-256 of the certificate.
      type: str
    spki_sha256:
      description: SHA-256 of the public key, as in a TLSA record V(3 1 1).
      type: str
    self_signed:
      description: Whether it is signed by itself.
      type: bool
chain:
  description: Subjects of the certificates that are served after it, in order.
  type: list
  elements: str
  returned: when O(state=present) and the certificate could be read
  sample: ["CN=Example Intermediate CA"]
findings:
  description: What is wrong. The task fails if there is anything, and the host has not been touched.
  type: list
  elements: dict
  returned: when the judgement failed
  contains:
    code:
      description: Stable name of the fault.
      type: str
      sample: name_not_covered
    message:
      description: What is wrong, where, and what to do.
      type: str
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Union

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage, resolve
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import CERTIFICATE
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import layout_for

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "default": CERTIFICATE},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "private_key_file": {"type": "path", "no_log": False},
    "private_key_content": {"type": "str", "no_log": True},
    "certificate_file": {"type": "path"},
    "certificate_content": {"type": "str"},
    "chain_file": {"type": "path"},
    "chain_content": {"type": "str"},
    "ca_file": {"type": "path"},
    "ca_content": {"type": "str"},
    "names": {"type": "list", "elements": "str"},
    "min_days_left": {"type": "int", "default": 14},
    "allow_self_signed": {"type": "bool", "default": False},
    "kind": {"type": "str", "default": ""},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str"},
    "mode": {"type": "raw"},
}
"""The options that users have; the action plugin reads them."""

_EXAMPLE = ARGUMENT_SPEC["path"]["default"]
_PACKAGES = {"Debian-exim": "Exim", "exim": "Exim", "mail": "a mail server", "postfix": "Postfix"}


class RefusalError(Exception):
    """The request is not carried out; the message says why and what to do."""


class Reader(NamedTuple):
    """A user who has to be able to open the file; ``gids`` are all groups of the user."""

    name: str
    uid: int
    gids: frozenset[int]


def parse_mode(value: Any) -> int:
    """Return the permission bits that the option ``mode`` asks for. Raises RefusalError for unsafe ones.

    A string is read as octal digits. A number comes from YAML that left out the quotes and is taken as it is.
    """
    try:
        bits = value if isinstance(value, int) else int(str(value), 8)
    except ValueError:
        raise RefusalError(f"mode {value!r} is not an octal number; write it with quotes, like mode: '0640'") from None
    if bits & ~0o660 or not bits & 0o400:
        raise RefusalError(
            f"mode {bits:04o} does not fit a private key: others must have no access, nobody may execute it, "
            "and the owner has to read it; use mode: '0600', or '0640' with a group that may read it"
        )
    return bits


def check_path(path: str) -> None:
    """Raise RefusalError unless ``path`` can name the file: absolute, without control characters, a file."""
    if any(not char.isprintable() for char in path):
        raise RefusalError(f"path {path!a} contains a line break or another character that no file name should have")
    if not path.startswith("/"):
        raise RefusalError(f"path '{path}' is not absolute; it has to begin with '/'")
    if path.endswith("/") or Path(path).name in ("", ".", ".."):
        raise RefusalError(f"path '{path}' names a directory; give a file, like '{_EXAMPLE}'")


def user_id(owner: str) -> int:
    """Return the number of a user given by name or number. Raises RefusalError for an unknown name."""
    if owner.isdecimal():
        return int(owner)
    try:
        return pwd.getpwnam(owner).pw_uid
    except KeyError:
        raise RefusalError(f"user {owner} does not exist on this host{_hint(owner)}") from None


def group_id(group: str) -> int:
    """Return the number of a group given by name or number. Raises RefusalError for an unknown name."""
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise RefusalError(f"group {group} does not exist on this host{_hint(group)}") from None


def readers(uid: int, gid: int, mode: int) -> Iterator[Reader]:
    """Yield the users for whom the file is readable by its mode, except root."""
    if uid:
        try:
            owner = pwd.getpwuid(uid)
            yield Reader(owner.pw_name, uid, frozenset(os.getgrouplist(owner.pw_name, owner.pw_gid)))
        except KeyError:
            yield Reader(str(uid), uid, frozenset())
    if not mode & stat.S_IRGRP or not gid:
        return
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        members = set()
    users = [user for user in pwd.getpwall() if user.pw_gid == gid or user.pw_name in members]
    for user in users:
        if user.pw_uid:
            gids = frozenset(os.getgrouplist(user.pw_name, user.pw_gid))
            yield Reader(user.pw_name, user.pw_uid, gids)
    if not users:
        yield Reader(f"of group {gid}", -1, frozenset({gid}))


def check_directories(path: str, uid: int, gid: int, mode: int) -> None:
    """Raise RefusalError if a directory above the file is unsafe, or closed to one of its readers."""
    target = Path(resolve(path))
    needed = list(readers(uid, gid, mode))
    for directory in reversed(target.parents):
        try:
            status = directory.stat()
        except FileNotFoundError:
            return  # It will be created, and everything below it, for everybody to pass.
        if not stat.S_ISDIR(status.st_mode):
            raise RefusalError(f"{directory} is not a directory, so {path} cannot be in it")
        # In a sticky directory such as /tmp nobody can move what others made, but names can be taken first.
        sticky = bool(status.st_mode & stat.S_ISVTX) and directory != target.parent
        if status.st_mode & stat.S_IWOTH and not sticky:
            raise RefusalError(
                f"directory {directory} can be written by everybody, so anybody could replace the private "
                f"key; run 'chmod o-w {directory}' or choose another path"
            )
        for reader in needed:
            bit = _closed_to(directory, status, reader)
            if bit:
                raise RefusalError(
                    f"user {reader.name} could not read {path}, because directory {directory} (mode "
                    f"{stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}:{status.st_gid}) does not "
                    f"let it pass; run 'chmod {bit}+x {directory}' or choose another path"
                )


def summary(image: FileImage) -> str:
    """Return the lines that a diff shows for a file: what identifies it, nothing that is secret."""
    if image.content is None:
        return ""
    try:
        prints = [pem.fingerprint(block.der) for block in pem.certificates(pem.split(image.content))]
    except pem.PemError:
        prints = []
    lines = [f"certificate sha256: {value}" for value in prints[:1]] or ["certificate: none that can be read"]
    lines += [f"chain sha256: {value}" for value in prints[1:]]
    lines += [f"mode: {image.mode:04o}", f"owner: {image.uid}", f"group: {image.gid}"]
    return "\n".join(lines) + "\n"


def difference(before: FileImage, after: FileImage) -> dict[str, str]:
    """Return the diff of two files without their contents."""
    old, new = summary(before), summary(after)
    if old == new and before.content != after.content:
        old += "private key and layout: something else\n"
        new += "private key and layout: as wanted\n"
    return {"before": old, "after": new, "before_header": before.path, "after_header": after.path}


def make_directories(directory: Path) -> None:
    """Create the directory and what is missing above it, with mode 0755 and this process's user as owner."""
    if directory.is_dir():
        return
    make_directories(directory.parent)
    directory.mkdir()
    # Not mkdir's mode, which the umask would narrow: then Exim could not pass.
    directory.chmod(0o755)


def wanted_image(params: dict[str, Any]) -> FileImage:
    """Return the file that the options ask for. Raises RefusalError if it cannot be."""
    path = params["path"]
    check_path(path)
    if params["state"] == "absent":
        return FileImage(path, None)
    bundle = params["content"]
    if not bundle:
        raise RefusalError(
            "this module was started without its action plugin, which judges the certificate on the "
            "controller; use it in a task as mailfleet.starttls.tls_certificate"
        )
    group, bits = permissions(params)
    mode, uid, gid = parse_mode(bits), user_id(params["owner"]), group_id(group)
    if os.geteuid() and uid != os.geteuid():
        raise RefusalError(f"only root can give {path} to the user {params['owner']}; set 'become: true'")
    check_directories(path, uid, gid, mode)
    return FileImage(path, bundle.encode("ascii"), mode, uid, gid)


def permissions(params: dict[str, Any]) -> tuple[str, Any]:
    """Group and mode that the options ask for; where they do not, those that the mail server of this host needs."""
    group, mode = params["group"], params["mode"]
    if group is not None and mode is not None:
        return group, mode
    try:
        layout = layout_for(params["kind"], "kind") if params["kind"] else None
    except EngineError as error:
        raise RefusalError(str(error)) from error
    needed = (layout.certificate_group, layout.certificate_mode) if layout else ("root", 0o600)
    return needed[0] if group is None else group, needed[1] if mode is None else mode


def run(params: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Bring the file to the wanted state and return the module's result.

    ``previous_certificate`` in it is for the action plugin: the certificate that was there, as PEM, or None.
    Raises RefusalError before anything is written, OSError if reading or writing fails.
    """
    after = wanted_image(params)
    before = FileImage.read(after.path, max_bytes=pem.MAX_BYTES)
    changed = before != after if after.content is not None else before.content is not None
    if changed and not check_mode:
        if after.content is not None:
            make_directories(Path(resolve(after.path)).parent)
        after.write()
    return {
        "changed": changed,
        "path": after.path,
        "diff": difference(before, after),
        "previous_certificate": _leaf(before),
    }


def main() -> None:
    """Run as an Ansible module."""
    spec = {**ARGUMENT_SPEC, "content": {"type": "str", "no_log": True}}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    try:
        result = run(module.params, check_mode=module.check_mode)
    except RefusalError as error:
        module.fail_json(msg=f"{error}.")
    except OSError as error:
        module.fail_json(msg=f"{error.filename or module.params['path']}: {error.strerror or error}.")
    module.exit_json(**result)


def _hint(name: str) -> str:
    return f": is {_PACKAGES[name]} installed?" if name in _PACKAGES else ""


def _closed_to(directory: Path, status: os.stat_result, reader: Reader) -> str:
    """Return who lacks the right to pass ('u', 'g' or 'o'), or an empty string if the reader can pass."""
    if reader.uid == status.st_uid:
        who, bit = "u", stat.S_IXUSR
    elif status.st_gid in reader.gids:
        who, bit = "g", stat.S_IXGRP
    else:
        who, bit = "o", stat.S_IXOTH
    # An access control list may let the reader pass in spite of the mode; then it is not for the mode to say.
    return "" if status.st_mode & bit or _has_acl(directory) else who


def _has_acl(directory: Path) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(directory)
    except (OSError, AttributeError):
        return False


def _leaf(image: FileImage) -> Union[str, None]:
    try:
        found = pem.certificates(pem.split(image.content or b""))
    except pem.PemError:
        return None
    return found[0].text if found else None


if __name__ == "__main__":
    main()
