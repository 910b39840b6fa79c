"""A certificate that was renewed on a host is installed, served and proved; or the old one stays, or comes back."""

import contextlib
import datetime as dt
import errno
import hashlib
import os
import signal
import ssl
from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import atomic, files, lock, paths, room
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook import served, telling
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.configuration import RenewalPlan
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.monitoring import check
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.renewal import renew
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import algorithm
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support import renewing
from tests.support.pki import Authority, key_pem, new_key, now, self_signed
from tests.support.renewing import NAME, pem_of
from tests.support.smtp_server import PLAIN, Face

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root gives files to others")
NO_TLS = Face(starttls=b"454 4.7.0 TLS not available due to local problem\r\n")
SOMEBODY = 54321


@pytest.fixture
def host(tmp_path, authority):
    with renewing.host(tmp_path, authority) as made:
        yield made


def is_as_before(host, old):
    return host.installed() == old == host.serves() and not host.journals()


def test_a_renewed_certificate_is_installed_and_served(host):
    new = host.renews(host.issue())
    done = host.renew()
    assert (done.state, done.status) == ("installed", 0), done.message
    assert host.installed() == host.serves() == pem_of(new)
    assert "served on 2 of 2 listeners" in done.message
    assert not host.journals()
    assert oct(host.path().stat().st_mode & 0o777) == "0o600"


def test_nothing_is_done_a_second_time(host):
    host.renews(host.issue())
    host.renew()
    reloads, before = host.server.reloads, host.path().stat()
    done = host.renew()
    assert (done.state, done.status, done.is_change) == ("current", 0, False), done.message
    assert host.server.reloads == reloads and host.path().stat().st_ino == before.st_ino


def stranger():
    return Authority.create("Stranger")


UNFIT = {
    "another name": ("name_not_covered", lambda host: host.renews(host.issue(names=("other.example.com",)))),
    "another key": ("key_mismatch", lambda host: host.renews(host.issue(), key=key_pem(new_key()))),
    "expired": ("expired", lambda host: host.renews(host.issue(days=90, age=91))),
    "in its last tenth": ("expiring", lambda host: host.renews(host.issue(days=90, age=82))),
    "not yet valid": ("not_yet_valid", lambda host: host.renews(host.issue(age=-1))),
    "weak": ("weak_key", lambda host: host.renews(host.issue(key="rsa-1024"))),
    "no chain": ("chain_incomplete", lambda host: host.chainless()),
    "another authority": ("chain_incomplete", lambda host: host.renews(stranger().issue([NAME]))),
    "self-signed": ("self_signed", lambda host: host.renews(self_signed([NAME]))),
    "an encrypted key": ("key_encrypted", lambda host: host.encrypted()),
    "no key at all": ("not_pem", lambda host: host.renews(host.issue(), key=b"nonsense")),
    "no certificate at all": ("not_pem", lambda host: host.renews(host.issue(), chain=b"")),
    "half a file": ("not_pem", lambda host: host.cut_off()),
}


@pytest.mark.parametrize(("code", "renewed"), UNFIT.values(), ids=UNFIT)
def test_an_unfit_certificate_is_refused_and_the_old_one_is_served(host, code, renewed):
    old = host.installed()
    renewed(host)
    done = host.renew()
    assert (done.state, done.status) == ("refused", 1)
    assert f"[{code}]" in done.message and "the old one stays" in done.message
    assert is_as_before(host, old) and host.server.reloads == 0
    assert "PRIVATE KEY" not in done.message


def test_a_self_signed_certificate_can_be_allowed(host):
    new = host.renews(self_signed([NAME]))
    done = host.renew(policy={"allow_self_signed": True})
    assert done.state == "installed" and host.serves() == pem_of(new), done.message


def test_a_certificate_that_ends_later_stays(host):
    host.renews(host.issue(days=200))
    host.renew()
    newer = host.installed()
    host.renews(host.issue(days=100))
    done = host.renew()
    assert (done.state, done.status) == ("kept", 0) and "so it stays" in done.message
    assert is_as_before(host, newer)


def test_an_unfit_one_that_ends_later_does_not_stay(host):
    other = host.issue(days=200, names=("other.example.com",))
    host.path().write_bytes(pem_of(other))
    host.server.resume()
    new = host.renews(host.issue(days=90))
    assert host.renew().state == "installed" and host.serves() == pem_of(new)


def test_what_is_not_served_is_put_back(host):
    old = host.installed()
    host.renews(host.issue())
    host.server.deaf = True
    done = host.renew()
    assert (done.state, done.status) == ("put_back", 1)
    assert "serves another certificate" in done.message and "former state is restored" in done.message
    assert is_as_before(host, old)


def test_one_listener_that_does_not_serve_it_counts(host, tmp_path):
    aside = tmp_path / "aside"
    aside.mkdir()
    (aside / "one.pem").write_bytes(host.installed())
    host.listeners[1].loaded = aside
    old = host.installed()
    host.renews(host.issue())
    done = host.renew()
    assert done.state == "put_back" and f"implicit TLS on 127.0.0.1:{host.listeners[1].port}" in done.message
    assert is_as_before(host, old)


def test_a_way_back_that_fails_is_said(host, monkeypatch):
    host.renews(host.issue())
    before = host.serves()
    calls = []

    def resume():
        calls.append(1)
        for one in host.loaded.glob("*.pem"):
            one.unlink()  # the daemon has lost its certificate, and does not get it back

    host.server.resume = resume
    done = host.renew()
    assert (done.state, done.status) == ("failed", 2) and "The rollback failed as well" in done.message
    assert host.installed() == before and host.journals() and len(calls) == 2


def test_a_daemon_that_never_read_its_file_is_reloaded(host):
    new = host.renews(host.issue())
    host.path().write_bytes(pem_of(new))
    done = host.renew()
    assert (done.state, done.status) == ("reloaded", 0), done.message
    assert host.serves() == pem_of(new) and host.server.reloads == 1


@pytest.mark.parametrize(("notices", "told"), [(True, 0), (False, 1)])
def test_a_daemon_that_notices_its_files_is_only_told_if_it_does_not(host, notices, told):
    host.watched(0.3, notices)
    new = host.renews(host.issue())
    done = host.renew()
    assert (done.state, done.status) == ("installed", 0), done.message
    assert host.installed() == pem_of(new) and host.server.reloads == told


def test_a_daemon_that_notices_the_way_back_is_not_told_of_it(host):
    host.watched(0.1, notices=True)
    old = host.installed()
    host.renews(host.issue())
    host.listeners[1].watched, host.server.deaf = None, True  # one listener never serves the new one
    done = host.renew()
    assert done.state == "put_back" and host.installed() == old
    assert host.server.reloads == 1  # told of the new file, in vain


def test_a_listener_that_served_nothing_before_is_not_said_to_serve_the_old_one(tmp_path, authority):
    with renewing.host(tmp_path, authority, faces={"smtp": NO_TLS}) as made:
        old = made.installed()
        made.renews(made.issue())
        done = made.renew()
        assert (done.state, done.status) == ("failed", 2)
        assert "The former files are back, and nothing was served before either on 127.0.0.1:" in done.message
        assert "454 4.7.0" in done.message and "proved" not in done.message
        assert made.installed() == old and not made.journals()


def test_one_listener_of_two_that_served_nothing_before_is_named(host):
    host.listeners[0].face = NO_TLS
    old = host.installed()
    host.renews(host.issue())
    done = host.renew()
    assert (done.state, done.status) == ("failed", 2)
    assert f"nothing was served before either on 127.0.0.1:{host.listeners[0].port}: " in done.message
    assert is_as_before(host, old)


def test_a_certificate_of_one_port_is_renewed_and_proved_on_that_port_by_its_own_names(tmp_path, authority):
    """As for an entry of starttls_more_certificates with ports."""
    with renewing.host(tmp_path, authority, kinds=("ec", "rsa")) as made:
        data = made.data()
        [both] = data["certificates"]
        for place, kind in enumerate(made.kinds):
            made.listeners[place].only = f"*-{kind}.pem"
            data["certificates"].append(
                {**both, "name": f"{kind}:1", "pairs": [made.pair(kind)], "listeners": [both["listeners"][place]]}
            )
        data["certificates"] = data["certificates"][1:]
        data["certificates"][1]["names"] = ["submission.example.com"]
        made.renews(made.issue("rsa", names=("submission.example.com",)), "rsa")
        configuration = replace(RenewalPlan.from_json(data, "renewal.json"), timeout=0.3)
        own, other = renew(configuration, lambda _at: made.server, (), str(tmp_path / "store"))
        assert (own.state, other.state) == ("current", "installed")
        assert "served on 1 of 1 listeners" in other.message


def test_what_is_refused_where_nothing_is_installed_is_not_served(host):
    host.path().unlink()
    host.renews(host.issue(names=("other.example.com",)))
    done = host.renew()
    assert (done.state, done.status) == ("refused", 2)
    assert "is unfit; nothing is installed: [name_not_covered]" in done.message and "the old one" not in done.message


def test_a_refusal_for_tlsa_where_nothing_is_installed_is_not_served(host):
    host.path().unlink()
    host.renews(host.issue())
    done = host.renew(tlsa=[record("00" * 32)])
    assert done.status == 2 and "published; nothing is installed" in done.message


def rights_of(path):
    status = path.stat()
    return (oct(status.st_mode & 0o777), status.st_uid, status.st_gid)


RENEWED = {
    "current": ("mended", 0, lambda _host: None),
    "kept": ("mended", 0, lambda host: host.renews(host.issue(days=80))),
    "refused": ("refused", 1, lambda host: host.renews(host.issue(names=("other.example.com",)))),
    "installed": ("installed", 0, lambda host: host.renews(host.issue())),
}


@as_root
@pytest.mark.parametrize(("state", "status", "renewed"), RENEWED.values(), ids=RENEWED)
def test_a_key_that_others_can_read_is_closed_again(host, state, status, renewed):
    host.path().chmod(0o644)
    os.chown(host.path(), 0, SOMEBODY)
    renewed(host)
    done = host.renew()
    assert (done.state, done.status) == (state, status), done.message
    assert rights_of(host.path()) == ("0o600", 0, 0) and not host.journals()
    if state != "installed":
        had = f"{host.path()} had mode 0644, owner 0, group {SOMEBODY}, and has mode 0600, owner 0, group 0 again"
        assert had in done.message and done.is_change
    assert (host.renew().state == "refused") == (state == "refused")
    assert "again" not in host.renew().message


def test_files_that_the_daemon_reads_itself(tmp_path, authority):
    with renewing.host(tmp_path, authority, in_place=True) as made:
        assert made.renew().state == "current"
        new = made.renews(made.issue())
        done = made.renew()
        assert (done.state, done.status) == ("reloaded", 0), done.message
        assert made.serves() == pem_of(new)
        served = made.serves()
        made.renews(made.issue(names=("other.example.com",)))
        done = made.renew()
        assert (done.state, done.status) == ("refused", 1) and "is unfit, and is in use" in done.message
        assert made.serves() == served


@pytest.mark.parametrize("which", ["rsa", "ec"])
def test_two_algorithms_side_by_side(tmp_path, authority, which):
    with renewing.host(tmp_path, authority, kinds=("rsa", "ec")) as made:
        assert made.renew().state == "current"
        other = {"rsa": "ec", "ec": "rsa"}[which]
        kept = made.serves(other)
        new = made.renews(made.issue(which), which)
        done = made.renew()
        assert (done.state, done.status) == ("installed", 0), done.message
        assert made.serves(which) == pem_of(new) and made.serves(other) == kept
        assert "served on 4 of 4" in done.message
        made.renews(made.issue(which, names=("other.example.com",)), which)
        renewed = made.renews(made.issue(other), other)
        done = made.renew()
        assert done.status == 1 and "[name_not_covered]" in done.message
        assert made.serves(other) == pem_of(renewed) and made.serves(which) == pem_of(new)


@pytest.fixture
def newest(tmp_path, authority):
    """A listener that speaks TLS 1.3 alone, with both algorithms."""
    with renewing.host(tmp_path, authority, faces={"smtp": Face()}, kinds=("rsa", "ec")) as made:
        made.listeners[0].oldest = ssl.TLSVersion.TLSv1_3
        yield made


def test_in_tls_13_alone_each_algorithm_is_asked_for_by_its_signature(newest):
    assert newest.renew().state == "current"
    new = newest.renews(newest.issue("ec"), "ec")
    done = newest.renew()
    assert (done.state, done.status) == ("installed", 0) and "served on 2 of 2 listeners" in done.message
    assert newest.serves("ec") == pem_of(new)


def test_without_openssl_it_is_not_tested_and_never_good(newest, monkeypatch):
    monkeypatch.setattr(algorithm.shutil, "which", lambda *_args, **_named: None)
    seen = served.ask(
        [served.Question(newest.configuration().certificates[0].listeners[0], "RSA")], Settings(timeout=5)
    )
    [one] = seen.values()
    assert (one.completed, one.code) == (False, "not_tested") and "openssl is not there" in one.message


def test_what_could_not_be_asked_is_said_by_renewal_and_check(newest, monkeypatch):
    monkeypatch.setattr(algorithm, "_asked", lambda *_arguments: (_ for _ in ()).throw(OSError("no process is left")))
    old = newest.installed("ec")
    newest.renews(newest.issue("ec"), "ec")
    done = newest.renew()
    assert (
        (done.state, done.status) == ("unknown", 3) and "not tested" in done.message and newest.installed("ec") == old
    )
    found = check(newest.configuration(), now())
    assert (
        found.status == 3 and "STARTTLS UNKNOWN" in found.line and "not tested: it speaks TLS 1.3 alone" in found.line
    )


def spki(issued):
    return issued.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def record(data, usage=3, selector=1, matching=1, name=f"_25._tcp.{NAME}"):
    return {"name": name, "usage": usage, "selector": selector, "matching_type": matching, "data": data}


def test_a_new_key_waits_for_its_tlsa_records(host):
    old = host.installed()
    first = hashlib.sha256(b"the present key").hexdigest()
    new = host.renews(host.issue())
    wanted = hashlib.sha256(spki(new)).hexdigest()
    done = host.renew(tlsa=[record(first)])
    assert (done.state, done.status) == ("refused", 1)
    assert f"_25._tcp.{NAME}. IN TLSA 3 1 1 {wanted}" in done.message and is_as_before(host, old)
    done = host.renew(tlsa=[record(first), record(wanted.upper())])
    assert done.state == "installed", done.message


def test_records_that_fit_do_not_wait(host):
    new = host.renews(host.issue())
    authority = new.chain[0].public_bytes(Encoding.DER)
    leaf = new.certificate.public_bytes(Encoding.DER)
    for fitting in (
        record(hashlib.sha256(authority).hexdigest(), usage=2, selector=0),
        record(hashlib.sha512(spki(new)).hexdigest(), matching=2),
        record(leaf.hex(), selector=0, matching=0),
        record("00", usage=1),  # means nothing for SMTP
    ):
        old = host.installed()
        done = host.renew(tlsa=[fitting])
        assert done.state == "installed", done.message
        host.path().write_bytes(old)
        host.server.resume()
    other = record(hashlib.sha256(leaf).hexdigest(), usage=2, selector=0)
    assert host.renew(tlsa=[other]).state == "refused"


def test_files_that_the_daemon_reads_itself_wait_for_their_tlsa_records_too(tmp_path, authority):
    with renewing.host(tmp_path, authority, in_place=True) as made:
        served = made.serves()
        present = record(hashlib.sha256(spki(made.issue())).hexdigest())
        new = made.renews(made.issue())
        wanted = hashlib.sha256(spki(new)).hexdigest()
        done = made.renew(tlsa=[present])
        assert (done.state, done.status) == ("refused", 1), done.message
        assert f"_25._tcp.{NAME}. IN TLSA 3 1 1 {wanted}" in done.message and "is not reloaded" in done.message
        assert made.serves() == served and made.server.reloads == 0
        done = made.renew(tlsa=[present, record(wanted)])
        assert (done.state, done.status) == ("reloaded", 0) and made.serves() == pem_of(new), done.message


def test_the_refusal_says_how_the_next_renewal_keeps_the_key(host):
    host.renews(host.issue())
    said = host.renew(tlsa=[record("ab" * 32)]).message
    assert "'reuse_key = True' below [renewalparams]" in said


def test_the_limit_of_an_alarm_refuses_no_renewed_certificate(host):
    """An authority that issues for 15 days, and an alarm at 20: Ansible installs that, so the hook does."""
    host.path().write_bytes(pem_of(host.issue(days=90, age=76)))
    host.server.resume()
    new = host.renews(host.issue(days=15))
    done = host.renew(policy={"min_days_left": 20})
    assert done.state == "installed" and host.serves() == pem_of(new), done.message
    host.renews(host.issue(days=16))
    done = host.renew(policy={"install_min_days_left": 20})
    assert done.state == "refused" and "[expiring]" in done.message


def test_a_certificate_that_ends_later_stays_also_if_an_alarm_is_due(host):
    host.renews(host.issue(days=15))
    host.renew()
    kept = host.installed()
    host.renews(host.issue(days=12))
    done = host.renew(policy={"min_days_left": 20})
    assert done.state == "kept" and is_as_before(host, kept), done.message


def test_a_listener_that_is_silent_is_said_and_not_waited_for(tmp_path, authority):
    with renewing.host(tmp_path, authority) as made:
        made.listeners[1].close()
        new = made.renews(made.issue())
        done = made.renew()
        assert (done.state, done.status) == ("installed", 3)
        assert "served on 1 of 2 listeners" in done.message and "not proved: implicit TLS" in done.message
        assert made.serves() == pem_of(new)


def test_nothing_is_changed_if_nothing_can_be_proved(tmp_path, authority):
    with renewing.host(tmp_path, authority, faces={"plain": PLAIN}) as made:
        old = made.installed()
        made.renews(made.issue())
        done = made.renew()
        assert (done.state, done.status) == ("unknown", 3) and "nothing can be proved" in done.message
        assert is_as_before(made, old)


def test_a_mail_server_that_does_not_run(host):
    old = host.installed()
    host.renews(host.issue())
    host.server.stops = "Postfix does not run"
    done = host.renew()
    assert (done.state, done.status) == ("unknown", 3) and "Postfix does not run" in done.message
    assert is_as_before(host, old)


def test_files_that_are_gone(host):
    old = host.installed()
    (host.live / "ec-key.pem").unlink()
    done = host.renew()
    assert (done.state, done.status) == ("unknown", 3) and "ec-key.pem cannot be read: No such file" in done.message
    assert is_as_before(host, old)


def test_the_file_of_somebody_else_is_not_replaced(host):
    host.path().write_bytes(b"my notes\n")
    host.renews(host.issue())
    done = host.renew()
    assert done.status == 3 and "holds something else than a certificate" in done.message
    assert host.installed() == b"my notes\n"


def test_a_second_renewal_waits_for_the_first(host):
    host.renews(host.issue())
    with lock.daemon_locked("fakemail", str(host.directory / "store")):
        done = host.renew()
    assert (done.state, done.status) == ("unknown", 3)
    assert "another run has been changing fakemail" in done.message
    assert host.renew(lock_seconds=5).state == "installed"


def test_an_uninstallation_that_was_waited_for_is_not_undone(host):
    old = host.installed()
    host.renews(host.issue())
    done = host.renew(is_wanted=lambda: False)
    assert (done.state, done.status) == ("unknown", 3) and "while another run was waited for" in done.message
    assert is_as_before(host, old)


def test_files_of_certbot_are_links(host):
    new = host.renews(host.issue())
    archive = host.directory / "archive"
    host.live.rename(archive)
    host.live.mkdir()
    for one in archive.iterdir():
        (host.live / one.name).symlink_to(f"../archive/{one.name}")
    assert host.renew().state == "installed" and host.serves() == pem_of(new)


def test_a_full_disk_changes_nothing(host, monkeypatch):
    old = host.installed()
    host.renews(host.issue())
    create = paths.Place.create

    def full(self, content, dress):
        if b"PRIVATE KEY" in content:
            raise OSError(errno.ENOSPC, "No space left on device", str(host.path()))
        return create(self, content, dress)

    monkeypatch.setattr(paths.Place, "create", full)
    done = host.renew()
    assert done.status == 3 and done.message.count("nothing was changed") == 1 and "free some space" in done.message
    assert is_as_before(host, old) and host.server.reloads == 0


STEPS = (
    (atomic.FileImage, ("write", "stage", "keep", "take", "drop")),
    (room.Slot, ("keep", "put", "give_up")),
    (files.Transaction, ("_begin", "_end")),
    (renewing.MailServer, ("resume",)),
)


def kill_at(step, monkeypatch):
    """Have this process kill itself at the begin or the end of the step with this number."""
    count = 0

    def counted(function):
        def call(*given, **named):
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*given, **named)
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for owner, names in STEPS:
        for name in names:
            monkeypatch.setattr(owner, name, counted(getattr(owner, name)))


def in_a_process_that_is_killed(host, step):
    """Renew in a child. Return whether it was killed."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            kill_at(step, pytest.MonkeyPatch())
            host.renew()
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def what_waits(host):
    """The names beside the installed file. A file that was being written has no name yet that anybody could know."""
    return {one.name for one in host.etc.iterdir() if one.name != "ec.pem" and not one.name.endswith(".tmp")}


def test_the_former_key_goes_with_the_next_call_after_a_kill_at_the_very_end(host):
    new = host.renews(host.issue())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room.Slot, "give_up", lambda _slot: os.kill(os.getpid(), signal.SIGKILL))
        child = os.fork()
        if not child:
            host.renew()
            os._exit(0)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert host.installed() == pem_of(new) and not host.journals()
    [old] = what_waits(host)
    assert old.endswith(".old")
    assert host.renew().state == "current"
    assert what_waits(host) == set() and host.installed() == pem_of(new)


def renewals_killed_at(tmp_path, authority, steps):
    reached = 0
    for step in steps:
        directory = tmp_path / str(step)
        directory.mkdir()
        with renewing.host(directory, authority) as made:
            old = made.installed()
            new = made.renews(made.issue())
            if not in_a_process_that_is_killed(made, step):
                return reached
            reached += 1
            assert made.installed() in (old, pem_of(new))  # never a part
            done = made.renew()
            assert made.installed() == made.serves() == pem_of(new), (step, done)
            assert (done.status, made.journals()) == (0, []), (step, done)
            assert what_waits(made) == set(), step
    return reached


def test_a_renewal_that_is_killed_is_made_by_the_next_one(tmp_path, authority):
    assert renewals_killed_at(tmp_path, authority, (14, 20)) == 2


def test_a_daemon_that_notices_its_files_is_not_told_of_what_a_killed_renewal_left(host):
    host.watched(0.3, notices=True)
    new = host.renews(host.issue())
    assert in_a_process_that_is_killed(host, 20) and host.journals()
    done = host.renew()
    assert done.state == "installed" and "a change that was interrupted is undone" in done.message
    assert host.installed() == pem_of(new) and host.server.reloads == 0


@pytest.mark.exhaustive
def test_a_renewal_that_is_killed_at_any_step_is_made_by_the_next_one(tmp_path, authority):
    assert 20 < renewals_killed_at(tmp_path, authority, range(1, 500)) < 499


def test_a_line_of_the_log_is_one_line(host):
    host.renews(host.issue(names=("other.example.com",), common_name="evil\n00:00 root: all is well"))
    line = telling.line_of(host.renew())
    assert "\n" not in line and line.startswith(f"{NAME}: refused: ") and "evil\\n00:00" in line


def test_the_textfile_of_node_exporter(host, tmp_path):
    new = host.renews(host.issue())
    done = host.renew()
    path = tmp_path / "mailfleet.prom"
    assert telling.write_textfile(str(path), [done], dt.datetime(2027, 1, 1, tzinfo=dt.timezone.utc)) == ""
    lines = [one for one in path.read_text().splitlines() if not one.startswith("#")]
    assert lines == [
        f'mailfleet_starttls_renewal_status{{name="{NAME}"}} 0',
        "mailfleet_starttls_renewal_time_seconds 1798761600",
        f'mailfleet_starttls_certificate_not_after_seconds{{name="{NAME}",algorithm="EC"}} '
        f"{int(new.certificate.not_valid_after_utc.timestamp())}",
    ]
    said = telling.write_textfile(str(tmp_path / "away" / "y.prom"), [done], dt.datetime.now(dt.timezone.utc))
    assert said == f"{tmp_path}/away/y.prom cannot be written: No such file or directory"


@as_root
def test_the_textfile_in_the_directory_of_another_user(host, tmp_path):
    """As on Debian, where /var/lib/prometheus belongs to the user prometheus."""
    done, now = host.renew(), dt.datetime.now(dt.timezone.utc)
    directory, secret = tmp_path / "prometheus" / "node-exporter", tmp_path / "secret"
    directory.mkdir(parents=True)
    for one in (directory.parent, directory):
        os.chown(one, SOMEBODY, SOMEBODY)
    path = directory / "renewal.prom"
    for _time in range(2):
        assert telling.write_textfile(str(path), [done], now) == ""
        assert rights_of(path) == ("0o644", 0, 0) and NAME in path.read_text()
    # That user leads nothing elsewhere: neither the file, nor its directory.
    secret.write_text("mine")
    path.unlink()
    path.symlink_to(secret)
    os.chown(path, SOMEBODY, SOMEBODY, follow_symlinks=False)
    assert "is a link that uid 54321 made" in telling.write_textfile(str(path), [done], now)
    directory.rename(directory.with_name("other"))
    directory.symlink_to(host.etc)
    os.chown(directory, SOMEBODY, SOMEBODY, follow_symlinks=False)
    assert "is a link that uid 54321 made" in telling.write_textfile(str(path), [done], now)
    assert secret.read_text() == "mine" and not (host.etc / path.name).exists()


def test_a_reload_that_fails_is_undone(host):
    old = host.installed()
    host.renews(host.issue())
    good, calls = host.server.resume, []

    def resume():
        calls.append(1)
        if len(calls) == 1:
            raise EngineError("postfix reload failed: no")
        good()

    host.server.resume = resume
    done = host.renew()
    assert done.state == "put_back" and "postfix reload failed" in done.message and is_as_before(host, old)
