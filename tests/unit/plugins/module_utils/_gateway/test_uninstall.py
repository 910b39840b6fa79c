"""What is removed from a gateway that is no Postfix: Exim and Haraka put their files back, a gateway with an API its policies."""

import os
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import pending_key, waiting_keys
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import before as record
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import lock
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.gateway import EximGateway, without_lists
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.uninstall import (
    Installed,
    removed_configs,
    undoing,
    uninstall,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._haraka.gateway import HarakaGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import renewal_files
from ansible_collections.mailfleet.starttls.plugins.module_utils._mailcow.gateway import MailcowGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.gateway import PostfixGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._proxmox.gateway import ProxmoxGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the store is root's")


def nothing(_words):
    return 0, "", ""


def test_which_gateways_have_files_on_their_host():
    port = Target("127.0.0.1")
    with_files = [PostfixGateway(nothing, Settings(), port, 10125), EximGateway(nothing, Settings(), port)]
    with_files.append(HarakaGateway(nothing, Settings(), port, "/x"))
    with_api = [ProxmoxGateway(nothing, Settings(), "", "", ""), MailcowGateway(nothing, Settings(), "", "")]
    assert [isinstance(one, Installed) for one in (*with_files, *with_api)] == [True, True, True, False, False]


def test_a_gateway_with_an_api_loses_the_given_email_configs():
    assert removed_configs({"email_configs": [{"name": "main", "state": "present"}]}) == [
        {"name": "main", "state": "absent"}
    ]
    assert removed_configs({"email_configs": None}) == []


class Bare:
    """A gateway that has nothing of its own on its host."""

    name = "baregate"

    def own_files(self):
        return []

    generated = remains = own_files

    def stripped(self, _images):
        return []


def test_the_renewal_hook_is_part_of_what_goes(tmp_path, monkeypatch):
    hook = tmp_path / "mailfleet-starttls"
    hook.write_text("ours")
    monkeypatch.setattr(renewal_files, "RECOGNISED", {str(hook): lambda content: content == b"ours"})
    todo = undoing(Bare(), str(tmp_path / "store"), str(tmp_path / "c.pem"))
    assert todo and todo.lines() == [(str(hook), "(removed)\n")]
    hook.write_text("mine")
    assert not undoing(Bare(), str(tmp_path / "store"), str(tmp_path / "c.pem"))


class Held(Bare):
    """One that can be uninstalled for real."""

    reads_files_unasked = False

    def read(self):
        return GatewayState()

    def in_others(self):
        return []

    def require_running(self):
        pass

    prove = recover = clear = reload = check = require_running


@needs_root
def test_keys_that_wait_go_and_so_does_every_certificate_beside_the_first(tmp_path):
    store, first, second = (str(tmp_path / one) for one in ("store", "starttls.pem", "starttls-2.pem"))
    with lock.daemon_locked("baregate", store):
        for one in (first, second):
            FileImage(pending_key(one, store), b"a private key").write()
            image = FileImage(one, b"certificate")
            record.note(store, record.CERTIFICATES, [(FileImage(one, None), image)])
            image.write()
    shown = dict(undoing(Held(), store, first).lines())
    assert {first, second, *waiting_keys(first, store)} <= {*shown} and "a private key" not in str(shown)
    assert uninstall(Held(), first, store=store)["changed"]
    assert not Path(store).exists() and not Path(first).exists() and not Path(second).exists()
    assert not uninstall(Held(), first, store=store)["changed"]


class TestMacros:
    ACL = "/etc/exim4/mailfleet-starttls/enforced_sender.acl"

    @pytest.mark.parametrize(
        ("macros", "rest"),
        [
            ("MINE = 1\n", "MINE = 1\n"),
            (
                f"MAIN_ACL_CHECK_MAIL = ${{if x{{{ACL}}}{{y}}}}\nMAILFLEET_NEXT_MAIL_ACL = acl_check_mail\nMINE = 1\n",
                "MINE = 1\n",
            ),
            (
                f"MAIN_ACL_CHECK_MAIL = ${{if x{{{ACL}}}{{y}}}}\nMAILFLEET_NEXT_MAIL_ACL = my_own\n",
                "MAIN_ACL_CHECK_MAIL = my_own\n",
            ),
            ("MAIN_TLS_ADVERTISE_HOSTS = <; ! 192.0.2.1 ; *\n", "MAIN_TLS_ADVERTISE_HOSTS = *\n"),
            ("MAIN_TLS_ADVERTISE_HOSTS = 192.0.2.1\n", "MAIN_TLS_ADVERTISE_HOSTS = 192.0.2.1\n"),
        ],
    )
    def test_the_access_control_lists_go_and_the_administrators_comes_back(self, macros, rest):
        assert without_lists(macros) == rest


@needs_root
class TestStore:
    def test_the_last_daemon_takes_the_store_with_it(self, tmp_path):
        store = str(tmp_path / "store")
        for name in ("postfix", "exim"):
            with lock.daemon_locked(name, store):
                pass
        lock.leave_store("postfix", store)
        assert sorted(os.listdir(store)) == ["exim.lock", "host.lock"]
        lock.leave_store("exim", store)
        assert not Path(store).exists()
        lock.leave_store("exim", store)

    @pytest.mark.parametrize("left", ["postfix.before", "postfix.journal"])
    def test_a_daemon_that_has_something_there_keeps_its_lock(self, tmp_path, left):
        store = str(tmp_path / "store")
        with lock.daemon_locked("postfix", store):
            Path(store, left).touch()
        lock.leave_store("postfix", store)
        assert sorted(os.listdir(store)) == sorted(["host.lock", "postfix.lock", left])

    def test_who_waits_for_a_lock_that_goes_gets_the_new_one(self, tmp_path, monkeypatch):
        store = str(tmp_path / "store")
        real, opened = lock._open, []

        def removed_meanwhile(path):
            handle = real(path)
            opened.append(path)
            if len(opened) == 1:
                Path(path).unlink()  # by another run, before this one has the lock
            return handle

        monkeypatch.setattr(lock, "_open", removed_meanwhile)
        with lock.host_locked(store):
            assert Path(store, "host.lock").exists()
        assert len(opened) == 2
