"""Another user's rights for a moment."""

import os

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.identity import acting_as

from tests.support.attacker import UID, needs_root


def identity():
    return os.getresuid(), os.getresgid(), sorted(os.getgroups())


@needs_root
class TestRoot:
    def test_it_has_the_rights_of_the_owner_and_gets_its_own_back(self, tmp_path):
        secret = tmp_path / "secret"
        secret.write_text("x")
        secret.chmod(0o600)
        before = identity()
        with acting_as(UID, 8):
            assert (os.geteuid(), os.getegid()) == (UID, 8)
            assert 0 not in os.getgroups()
            with pytest.raises(PermissionError):
                secret.read_text()
        assert identity() == before
        assert secret.read_text() == "x"

    def test_it_gets_its_own_back_whatever_happens(self):
        before = identity()
        for fault in (ValueError, KeyboardInterrupt, SystemExit):
            with pytest.raises(fault), acting_as(UID, UID):
                raise fault
            assert identity() == before

    def test_a_user_without_a_name(self):
        with acting_as(4_000_000, 4_000_001):
            assert os.getgroups() == [4_000_001]

    def test_an_identity_that_it_may_not_take(self, monkeypatch):
        before = identity()
        monkeypatch.setattr(os, "seteuid", lambda uid: (_ for _ in ()).throw(PermissionError(uid)) if uid else None)
        with pytest.raises(PermissionError), acting_as(UID, UID):
            pytest.fail("nothing may be done with the rights of root instead")
        assert identity() == before

    def test_inside_it_no_other_identity_is_taken(self):
        with acting_as(UID, UID), acting_as(1, 1):
            assert os.geteuid() == UID
        assert os.geteuid() == 0

    def test_the_files_of_root_are_roots(self):
        with acting_as(0, 0):
            assert os.geteuid() == 0


def test_without_root_nothing_changes(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for call in ("seteuid", "setegid", "setgroups"):
        monkeypatch.setattr(os, call, lambda *_: pytest.fail("it may not do that"))
    with acting_as(UID, UID):
        pass
