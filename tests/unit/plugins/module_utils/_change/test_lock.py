"""The locks that every writer on a host takes."""

import os
import stat
import threading

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import daemon_locked, host_locked
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "lib/store")


@pytest.mark.parametrize(
    ("held", "wanted", "both"),
    [
        (("postfix",), ("postfix",), False),
        (("postfix",), ("exim",), True),
        (("postfix",), (), False),
        ((), ("postfix",), False),
        ((), (), False),
    ],
)
def test_who_waits_for_whom(store, held, wanted, both):
    """Without a name: who writes what any daemon may use."""

    def lock(names, seconds):
        return daemon_locked(*names, store, seconds) if names else host_locked(store, seconds)

    with lock(held, 1.0):
        if both:
            with lock(wanted, 0.0):
                pass
        else:
            busy = pytest.raises(
                EngineError, match=r"another run has been changing .*this host for more than 0 s; wait"
            )
            with busy, lock(wanted, 0.0):
                pytest.fail("it is held")
    with lock(wanted, 0.0):
        pass


def test_the_next_one_goes_on_when_the_first_has_ended(store):
    held, end, order = threading.Event(), threading.Event(), []

    def first():
        with daemon_locked("postfix", store):
            held.set()
            end.wait(10)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert held.wait(10)
    end.set()
    with host_locked(store):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_the_store_is_private(store):
    with host_locked(store):
        pass
    assert stat.S_IMODE(os.stat(store).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(f"{store}/host.lock").st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives links away")
def test_a_link_in_the_place_of_a_lock_is_not_followed(store, tmp_path):
    with host_locked(store):
        pass
    os.symlink(tmp_path / "made", f"{store}/exim.lock")
    os.lchown(f"{store}/exim.lock", 65534, 65534)
    with pytest.raises(EngineError, match="is a link that"), daemon_locked("exim", store):
        pass
    assert not (tmp_path / "made").exists()
