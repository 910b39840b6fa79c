"""What is said of certificate files, and what is never said."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import facts, pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.facts import EVERYBODY, certificate_files
from cryptography.hazmat.primitives import serialization

from tests.support import pki
from tests.support.acl import packed_acl, set_acl


@pytest.fixture(scope="module")
def leaf(authority):
    return authority.issue(["mail.test"])


@pytest.fixture
def file(tmp_path):
    return tmp_path / "starttls.pem"


def facts_of(file):
    (found,) = certificate_files([str(file)])
    assert list(found) == ["path", "readers", "pem", "message"]
    assert found["path"] == str(file)
    return found


@pytest.mark.parametrize("order", ["key first", "key last", "chain"])
def test_the_leaf_and_nothing_else_is_returned(file, leaf, order):
    parts = {
        "key first": leaf.key_pem + leaf.fullchain_pem,
        "key last": leaf.fullchain_pem + leaf.key_pem,
        "chain": b"some text\n" + leaf.fullchain_pem,
    }
    file.write_bytes(parts[order])
    found = facts_of(file)
    assert found["pem"] == leaf.certificate_pem.decode()
    assert found["message"] == ""


def key_forms():
    key = pki.new_key("rsa")
    for private in (key, pki.new_key("ec")):
        for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
            for lock in (serialization.NoEncryption(), serialization.BestAvailableEncryption(b"secret")):
                text = private.private_bytes(serialization.Encoding.PEM, form, lock)
                if b"DEK-Info" not in text:  # its bytes are no DER
                    yield text
    yield pki.key_pem(pki.new_key("ed25519"))


@pytest.mark.parametrize("key", keys := list(key_forms()), ids=range(len(keys)))
@pytest.mark.parametrize("label", [None, b"CERTIFICATE", b"X509 CERTIFICATE"])
def test_a_key_is_never_returned_whatever_its_label(file, key, label):
    secret = key.split(b"-----")[2].split()
    if label:
        (block,) = pem.split(key)
        key = key.replace(block.label.encode(), label)
    file.write_bytes(key)
    found = facts_of(file)
    assert found["pem"] is None
    assert found["message"] in (
        "it holds no certificate",
        "its first block with the label CERTIFICATE is something else",
    )
    assert not any(line.decode() in str(found) for line in secret)


@pytest.mark.parametrize(
    "other", [b"0", b"0\x82", b"0\x03", b"0\x030\x01\x02", b"\x04\x04\x30\x02\x02\x00", b"\x00", b""]
)
def test_only_a_certificate_is_one(leaf, other):
    der = leaf.certificate.public_bytes(serialization.Encoding.DER)
    key = leaf.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert facts._is_certificate(der)
    assert not facts._is_certificate(other) and facts._is_certificate(other + der) is not bool(other)
    assert not facts._is_certificate(der + key) and not facts._is_certificate(der[:-1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it holds no certificate"),
        (b"\x30\x82\x01\x00", "it is binary"),
        (b"-----BEGIN CERTIFICATE-----\nTOPSECRET\n", "the text seems to be cut off"),
        (b"-----BEGIN PRIVATE KEY-----\nTOPSECRET!\n-----END PRIVATE KEY-----\n", "is not valid base64"),
    ],
)
def test_a_file_without_a_certificate(file, content, message):
    file.write_bytes(content)
    found = facts_of(file)
    assert found["pem"] is None
    assert message in found["message"]
    assert "TOPSECRET" not in str(found)


def test_what_cannot_be_looked_at(tmp_path, file, leaf):
    assert facts_of(file)["message"] == "there is no such file"
    os.mkfifo(file)
    assert facts_of(file)["message"] == "could not look: is a named pipe, not a regular file"
    assert facts_of(tmp_path)["message"] == "could not look: is a directory, not a regular file"
    long = tmp_path / "long"
    long.write_bytes(leaf.certificate_pem + b"\n" * pem.MAX_BYTES)
    assert facts_of(long)["message"] == f"could not look: is longer than {pem.MAX_BYTES} bytes"
    (tmp_path / "loop").symlink_to("loop")
    assert facts_of(tmp_path / "loop")["message"].startswith("could not look: ")


@pytest.mark.parametrize("path", ["${lookup{x}lsearch{/etc/x}}", "relative.pem", "", "/etc/\0x"])
def test_what_is_no_path(path):
    assert facts_of(path)["message"] == "could not look: it is not the path of one file"


def test_no_permission(file, leaf, monkeypatch):
    file.write_bytes(leaf.certificate_pem)

    def opened(path, *_, **_more):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", opened)
    assert facts_of(file) == {
        "path": str(file),
        "readers": [],
        "pem": None,
        "message": "could not look: Permission denied",
    }


def test_each_file_once(file, leaf):
    file.write_bytes(leaf.certificate_pem)
    assert len(certificate_files([str(file), str(file), "/nowhere"])) == 2


class TestReaders:
    """Users who can read the file, in a tree that others may pass, and on a host with these users."""

    @pytest.fixture(autouse=True)
    def host(self, file, leaf, monkeypatch):
        file.write_bytes(leaf.certificate_pem)
        users = [
            pwd.struct_passwd((name, "x", uid, gid, "", "/", "/bin/sh"))
            for name, uid, gid in (("root", 0, 0), ("exim", 101, 901), ("web", 102, 902))
        ]
        group = grp.struct_group(("mail", "x", 901, ["web"]))
        monkeypatch.setattr(pwd, "getpwall", lambda: users)
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: next(user for user in users if user.pw_uid == uid))
        monkeypatch.setattr(grp, "getgrgid", lambda _gid: group)
        monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, *([901] if name == "web" else [])])
        self.closed = stat.S_IFDIR | 0o755
        whole, opened = Path.stat, os.fstat
        self.file = {"mode": 0o600, "uid": 0, "gid": 0}

        def directory(path, **options):
            if path == file:
                return whole(path, **options)
            status = list(whole(path, **options))
            return os.stat_result([self.closed if path == file.parent else 0o40755, *status[1:4], 0, 901, *status[6:]])

        def of_file(fd):
            status = list(opened(fd))
            mode = stat.S_IFREG | self.file["mode"]
            return os.stat_result([mode, *status[1:4], self.file["uid"], self.file["gid"], *status[6:]])

        monkeypatch.setattr(Path, "stat", directory)
        monkeypatch.setattr(os, "fstat", of_file)

    @pytest.mark.parametrize(
        ("mode", "uid", "gid", "directory", "readers"),
        [
            (0o600, 0, 0, 0o755, []),
            (0o600, 101, 0, 0o755, ["exim"]),
            (0o640, 0, 901, 0o755, ["exim", "web"]),
            (0o640, 101, 901, 0o755, ["exim", "web"]),
            (0o600, 0, 901, 0o755, []),
            (0o640, 0, 901, 0o740, []),
            (0o640, 0, 901, 0o710, ["exim", "web"]),
            (0o640, 0, 901, 0o700, []),
            (0o644, 0, 0, 0o755, [EVERYBODY]),
            (0o644, 0, 0, 0o750, []),
            (0o644, 101, 0, 0o755, ["exim", EVERYBODY]),
        ],
    )
    def test_readers(self, file, mode, uid, gid, directory, readers):
        self.file = {"mode": mode, "uid": uid, "gid": gid}
        self.closed = stat.S_IFDIR | directory
        assert facts_of(file)["readers"] == readers


@pytest.mark.skipif(os.geteuid() != 0, reason="the directories above have to be root's")
def test_a_user_whom_the_access_control_list_lets_read_is_named(file, leaf):
    file.write_bytes(leaf.key_pem + leaf.certificate_pem)
    file.chmod(0o600)
    for directory in [one for one in file.parents if str(one).startswith("/tmp/")]:
        directory.chmod(0o755)
    set_acl(file, packed_acl(6, 0, 0, {pwd.getpwnam("nobody").pw_uid: 4}, mask=4))
    assert facts_of(file)["readers"] == ["nobody"]
    set_acl(file, packed_acl(6, 0, 0, {pwd.getpwnam("nobody").pw_uid: 4}, mask=0))
    assert facts_of(file)["readers"] == []
