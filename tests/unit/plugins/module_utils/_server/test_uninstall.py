"""The removal of everything from a mail server, on real files, a real port and real certificates."""

import os

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import before as record
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import renewal_files
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import uninstall as module
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reading import Reading
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

from tests.support.fake_mail import BRIEF, NAME, PATIENT, FakeMail


@pytest.fixture
def mail(tmp_path, authority, monkeypatch):
    directory = tmp_path / "etc"
    directory.mkdir()
    monkeypatch.setattr(module, "CERTIFICATE", str(tmp_path / "default.pem"))
    return FakeMail(directory, authority)


def files(mail):
    return {path.name: path.read_bytes() for path in mail.directory.rglob("*") if path.is_file()}


def put_back(mail, *, settings=PATIENT, **more):
    return module.put_back(mail, mail.desired(), settings, store=str(mail.store), **more)


@pytest.mark.parametrize("inbound", ["disabled", "offered"])
@pytest.mark.parametrize("certificate", ["none", "own"])
def test_everything_is_as_before_the_first_change(mail, authority, inbound, certificate):
    mail.start(inbound)
    if certificate == "none" and inbound == "disabled":
        mail.certificate.unlink()
    before, face = files(mail), bool(mail.port.face.context)
    renewed = mail.renewal(authority.issue([NAME]))
    mail.set("required", "required", bundle=renewed, require_without_evidence=True)
    mail.set("offered", "opportunistic")
    planned = files(mail)
    check = put_back(mail, check_mode=True)
    assert check.changed
    assert files(mail) == planned
    outcome = put_back(mail)
    assert outcome.changed
    assert files(mail) == before
    assert not mail.store.exists()
    assert bool(mail.port.face.context) == face
    assert outcome.diff == check.diff
    assert "PRIVATE KEY" not in str(outcome.diff)
    again = put_back(mail)
    assert not again.changed
    assert not mail.store.exists()


def test_the_renewal_hook_goes_too(mail, tmp_path, monkeypatch):
    hook = tmp_path / "mailfleet-starttls"
    hook.write_text("# mailfleet.starttls\n")
    foreign = tmp_path / "foreign"
    foreign.write_text("mine\n")
    ours = dict.fromkeys((str(hook), str(foreign)), lambda content: b"mailfleet" in content)
    monkeypatch.setattr(renewal_files, "RECOGNISED", ours)
    mail.set("offered")
    shown = module.putting_back(mail, mail.desired(), str(mail.store)).lines()
    assert (str(hook), "(removed, or put back)\n") in shown and str(foreign) not in dict(shown)
    assert put_back(mail, check_mode=True).changed and hook.exists()
    assert put_back(mail).changed
    assert not hook.exists() and foreign.read_text() == "mine\n"
    hook.write_text("# mailfleet.starttls\n")  # and alone
    assert put_back(mail).changed and not hook.exists()
    assert not put_back(mail).changed


def test_nothing_to_remove(mail):
    assert not put_back(mail).changed
    assert mail.calls == []
    assert not mail.store.exists()


def test_a_directory_of_the_certificate_goes_with_it(mail, authority):
    new = mail.directory / "made" / "here.pem"
    mail.certificate = new
    mail.set("offered", bundle=mail.renewal(authority.issue([NAME])))
    put_back(mail)
    assert not new.parent.exists()


def test_an_edit_by_hand_stays(mail):
    mail.set("offered")
    mail.config.write_text(mail.config.read_text() + "mine=1\n")
    outcome = put_back(mail)
    assert mail.settings == {"inbound": "disabled", "outbound": "disabled", "password": "hunter2", "mine": "1"}
    assert any("fakemail.cf keeps what was edited by hand" in one for one in outcome.warnings)


def test_an_edit_of_our_lines_is_named_and_nothing_is_changed_until_the_file_is_kept(mail):
    mail.set("offered")
    edited = mail.config.read_text().replace("inbound=offered", "inbound=required\npassword=other")
    mail.config.write_text(edited)
    mail.follow()
    with pytest.raises(EngineError, match="inbound=required") as error:
        put_back(mail)
    assert "other" not in str(error.value).partition("(")[2].partition(")")[0]
    assert mail.config.read_text() == edited
    assert "would refuse" in put_back(mail, check_mode=True).warnings[-1]
    assert put_back(mail, keep=[str(mail.config)]).changed
    assert mail.config.read_text() == edited
    assert not mail.store.exists()
    assert not put_back(mail, keep=[str(mail.config)]).changed


def test_a_certificate_that_a_listener_would_still_serve_stays(mail, authority):
    mail.certificate.unlink()
    mail.set("offered", bundle=mail.renewal(authority.issue([NAME])))
    mail.never = ("offered",)  # it goes on to serve the certificate that it has read
    with pytest.raises(TransactionError, match=r"starttls\.pem, which would be removed") as error:
        put_back(mail, keep=[str(mail.config)], settings=BRIEF)
    assert error.value.restored
    assert mail.certificate.exists()


@pytest.mark.parametrize("where", ["refuses", "deaf"])
def test_a_removal_that_fails_leaves_everything_as_it_was(mail, where):
    mail.set("offered")
    before = files(mail)
    setattr(mail, where, True)
    with pytest.raises(TransactionError):
        put_back(mail, settings=BRIEF)
    assert {name: text for name, text in files(mail).items() if not name.endswith(".lock")} == {
        name: text for name, text in before.items() if not name.endswith(".lock")
    }
    setattr(mail, where, False)
    assert put_back(mail).changed
    assert not mail.store.exists()


def test_a_host_that_an_earlier_version_has_changed(mail, authority):
    mail.start("offered")
    mail.store.mkdir(mode=0o700)
    (mail.store / "fakemail.lock").touch()
    mail.set("offered", "opportunistic", bundle=mail.renewal(authority.issue([NAME])))
    outcome = put_back(mail)
    assert any("is not known" in one and str(mail.config) in one for one in outcome.warnings)
    assert not mail.store.exists()


def test_the_plan_shows_it(mail, authority):
    mail.set("offered", bundle=mail.renewal(authority.issue([NAME])))
    reading = Reading(mail, mail.desired(), PATIENT, str(mail.store), keep=[])
    seen = reading.read([])
    assert {one["path"] for one in seen["changes"]} >= {str(mail.config), record.path_of(str(mail.store), mail.name)}
    assert "PRIVATE KEY" not in str(seen)
    assert seen["digests"][str(mail.config)]
    assert seen["obstacles"] == []
    assert os.path.lexists(mail.store)
    put_back(mail, digests=seen["digests"])
    assert Reading(mail, mail.desired(), PATIENT, str(mail.store), keep=[]).read([])["changes"] == []


class Peers:
    """The peers of the host: one, with its queue."""

    def __init__(self, queue):
        self.queue = queue

    def peers(self):
        return [{"name": "exchange", "domains": ["one.example"]}]

    def waiting(self, domains, others):
        assert (domains, others) == ({"one.example"}, set())
        return self.queue


def test_a_peer_goes_when_nothing_waits_for_it(mail):
    mail.set("offered")
    peers = Peers([Waiting("4f", "x@one.example", "TLS is required")])
    assert "mail waits for it" in put_back(mail, check_mode=True, peers=peers).warnings[-1]
    before = files(mail)
    with pytest.raises(EngineError, match=r"the way to the peer exchange.*is not taken out.*4f to x@one\.example"):
        put_back(mail, peers=peers, queue_seconds=0)
    assert files(mail) == before
    peers.queue.clear()
    assert put_back(mail, peers=peers).changed
    assert not mail.store.exists()
