import base64
import contextlib
import dataclasses
import json
import os
import re
import ssl
import stat
import traceback
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.pem import leaf_fingerprint
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import facts
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import engine
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import (
    change_within,
    compute,
    prove_at,
    satisfies,
    undo_killed_run,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import same_face
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Handshake,
    Settings,
    Target,
    TargetError,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

from tests.support.fake_mail import BRIEF, NAME, PATIENT, FakeMail
from tests.support.smtp_server import PLAIN, Face, SmtpServer, refused_port, server_context, serving


@pytest.fixture
def mail(tmp_path, authority):
    server = FakeMail(tmp_path, authority)
    yield server
    server.port.close()


# On and off


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("disabled", "offered"),
        ("disabled", "required"),
        ("offered", "required"),
        ("offered", "disabled"),
        ("required", "offered"),
        ("required", "disabled"),
    ],
)
def test_each_state_is_reached_and_proved_and_the_second_run_changes_nothing(mail, old, new):
    mail.start(old)
    outcome = mail.set(new)
    assert outcome.changed is True
    assert (outcome.before, outcome.after) == (
        {"inbound": old, "outbound": "disabled"},
        {"inbound": new, "outbound": "disabled"},
    )
    assert mail.settings["inbound"] == new
    assert mail.calls == ["require_running", "check", "reload"]
    assert outcome.handshake.completed is (new != "disabled")
    assert outcome.handshake.fingerprint == ("" if new == "disabled" else mail.fingerprint)
    assert outcome.handshake.requires_tls is (new == "required")
    assert f"+inbound={new}" in outcome.diff[0]["prepared"] and "hunter2" not in str(outcome.diff)
    assert (outcome.recovered, outcome.warnings) == (False, ())

    again = mail.set(new)
    assert (again.changed, again.diff, again.after) == (False, [], outcome.after)
    assert again.handshake.completed is (new != "disabled")
    assert mail.calls[3:] == ["require_running"]


def test_a_direction_that_is_not_named_stays_as_it_is(mail):
    mail.start("offered", "disabled")
    outcome = mail.set(outbound="opportunistic")
    assert outcome.after == {"inbound": "offered", "outbound": "opportunistic"}
    assert outcome.handshake.completed
    assert mail.settings == {"inbound": "offered", "outbound": "opportunistic", "password": "hunter2"}


def test_outbound_alone_needs_no_certificate(mail):
    mail.certificate.unlink()
    assert mail.set(outbound="opportunistic").changed is True


def test_a_daemon_that_needs_a_moment_to_follow(mail):
    mail.delay = 0.2
    outcome = mail.set("offered")
    assert outcome.changed and outcome.handshake.fingerprint == mail.fingerprint


def test_the_result_as_data(mail):
    result = mail.set("offered").to_dict()
    assert json.loads(json.dumps(result)) == result
    assert set(result) == {"changed", "before", "after", "handshake", "recovered", "digests"}
    assert result["digests"] == facts.digests([str(mail.config), str(mail.certificate)])
    assert result["handshake"]["fingerprint_sha256"] == mail.fingerprint
    assert result["handshake"]["trusted"] is None  # the certificate is compared, not verified


# Check mode


def test_check_mode_predicts_and_touches_nothing(mail):
    outcome = mail.set("offered", check_mode=True)
    assert outcome.changed is True
    assert outcome.after == {"inbound": "offered", "outbound": "disabled"}
    assert outcome.diff[0]["prepared"].endswith("-inbound=disabled\n+inbound=offered\n")
    assert outcome.handshake.code == "starttls_not_offered"
    assert mail.calls == ["require_running"]
    assert mail.settings["inbound"] == "disabled"
    assert not mail.store.exists()


def test_check_mode_when_there_is_nothing_to_do(mail):
    mail.start("offered")
    outcome = mail.set("offered", check_mode=True)
    assert (outcome.changed, outcome.diff) == (False, [])


def test_check_mode_predicts_the_reload_of_a_renewed_certificate(mail, authority):
    mail.start("offered").install(authority.issue([NAME]))
    outcome = mail.set("offered", check_mode=True)
    assert (outcome.changed, outcome.diff) == (True, [])
    assert mail.calls == ["require_running"]


def test_check_mode_without_a_certificate_warns(mail):
    mail.certificate.unlink()
    outcome = mail.set("offered", check_mode=True)
    assert outcome.changed is True
    (warning,) = outcome.warnings
    assert str(mail.certificate) in warning and "not there yet" in warning


def test_check_mode_refuses_a_broken_certificate(mail):
    mail.certificate.write_text("not a certificate")
    with pytest.raises(EngineError, match="cannot be used: it does not begin with a private key; install it first"):
        mail.set("offered", check_mode=True)


# A certificate that the daemon does not serve


def test_a_renewed_certificate_is_taken_up_by_a_reload_alone(mail, authority):
    mail.start("offered").install(authority.issue([NAME]))
    outcome = mail.set("offered")
    assert (outcome.changed, outcome.diff) == (True, [])
    assert outcome.handshake.fingerprint == mail.fingerprint
    assert mail.calls == ["require_running", "check", "reload"]
    assert mail.set("offered").changed is False


def test_a_certificate_that_is_never_served_fails_and_says_which_is(mail, authority):
    mail.start("offered")
    served = mail.fingerprint
    mail.install(authority.issue([NAME]))
    mail.deaf = True
    with pytest.raises(TransactionError) as caught:
        mail.set("offered", settings=BRIEF)
    assert caught.value.restored is True
    assert served[:16] in str(caught.value) and mail.fingerprint[:16] in str(caught.value)
    assert "another setting names another certificate" in str(caught.value)


# Proofs that fail


def test_when_the_daemon_does_not_follow_the_files_are_put_back(mail):
    before = mail.config.read_bytes()
    mail.never = ("offered",)
    with pytest.raises(TransactionError) as caught:
        mail.set("offered", settings=BRIEF)
    assert caught.value.restored is True
    assert "does not show the wanted state: the server does not offer STARTTLS" in str(caught.value)
    assert f"127.0.0.1:{mail.port.port}" in str(caught.value)
    assert mail.config.read_bytes() == before
    assert mail.calls == ["require_running", "check", "reload", "resume"]
    assert not Transaction(mail, str(mail.store)).interrupted


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("offered", "disabled", "STARTTLS is still offered"),
        ("offered", "required", "mail without TLS is not refused"),
        ("required", "offered", "mail without TLS is refused"),
    ],
)
def test_the_reason_says_what_the_port_shows_instead(mail, old, new, reason):
    mail.start(old).never = (new,)
    with pytest.raises(TransactionError) as caught:
        mail.set(new, settings=BRIEF)
    assert caught.value.restored and f"does not show the wanted state: {reason}" in str(caught.value)
    assert mail.settings["inbound"] == old


def test_a_certificate_renewed_before_a_change_that_fails_is_no_failure_of_going_back(mail, authority):
    mail.start("offered").install(authority.issue([NAME]))
    mail.never = ("required",)
    with pytest.raises(TransactionError) as caught:
        mail.set("required", settings=BRIEF)
    assert caught.value.restored is True


def test_a_reload_that_fails_after_a_renewal_is_no_failure_of_going_back(mail, authority):
    mail.start("offered").install(authority.issue([NAME]))

    def reload():
        raise EngineError("no reload today")

    mail.reload = reload
    with pytest.raises(TransactionError, match="no reload today") as caught:
        mail.set("offered")
    assert caught.value.restored is True


def test_a_daemon_that_goes_on_with_the_new_certificate_did_not_go_back(mail, authority):
    """The former settings name another certificate, so that one has to be served again."""
    mail.start("offered")
    own = mail.certificate
    mail.certificate = mail.directory / "another.pem"
    mail.install(authority.issue([NAME]))
    mail.never = ("required",)

    def reload():  # takes the new certificate up, nothing else
        mail.write("offered", "disabled")
        mail.follow()
        mail.deaf = True

    mail.reload = reload
    with pytest.raises(TransactionError, match="does not show its former state") as caught:
        mail.set("required", settings=BRIEF)
    assert caught.value.restored is False
    assert f"certificate={own}\n" in mail.config.read_text()


def test_a_renewed_certificate_does_not_excuse_another_difference(mail, authority):
    mail.start("required").install(authority.issue([NAME]))
    mail.refuses = True

    def resume():
        mail.write("offered", "disabled")
        mail.follow()

    mail.resume = resume
    with pytest.raises(TransactionError, match="does not show its former state") as caught:
        mail.set("disabled", settings=BRIEF)
    assert caught.value.restored is False


def test_settings_that_the_daemon_refuses_are_put_back(mail):
    mail.refuses = True
    with pytest.raises(TransactionError, match="fakemail: bad settings") as caught:
        mail.set("offered")
    assert caught.value.restored and mail.settings["inbound"] == "disabled"


def test_a_tls_that_only_looks_like_it_is_no_proof(mail):
    """A daemon with an unusable key still advertises STARTTLS and even answers 220."""
    mail.follow = lambda: setattr(mail.port, "face", Face(on_starttls=lambda connection: None))
    with pytest.raises(TransactionError) as caught:
        mail.set("offered", settings=BRIEF)
    assert "closed the connection after starttls_answered" in str(caught.value)
    # This daemon does not come back either, and that is said too.
    assert caught.value.restored is False
    assert "does not show its former state" in str(caught.value)
    assert mail.settings["inbound"] == "disabled"


def test_what_a_daemon_that_fell_over_left_is_restored_by_the_next_run(mail):
    def fall_over():
        mail.port.close()

    mail.follow = fall_over
    with pytest.raises(TransactionError) as caught:
        mail.set("offered", settings=BRIEF)
    assert caught.value.restored is False and "run again to restore" in str(caught.value)
    assert Transaction(mail, str(mail.store)).interrupted
    del mail.follow
    mail.port = SmtpServer(PLAIN)
    outcome = mail.set("disabled")
    assert (outcome.changed, outcome.recovered, outcome.diff) == (True, True, [])
    assert mail.settings["inbound"] == "disabled"


def test_an_interrupted_run_is_undone_first(mail):
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            mail.reload = lambda: os._exit(9)
            mail.set("required")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert mail.settings["inbound"] == "required"

    foresight = mail.set("offered", check_mode=True)
    assert "an earlier run was interrupted" in foresight.warnings[0]
    assert mail.settings["inbound"] == "required"

    outcome = mail.set("offered")
    assert outcome.recovered is True
    assert outcome.before["inbound"] == "disabled"
    assert mail.settings["inbound"] == "offered" and outcome.handshake.completed
    assert outcome.to_dict()["recovered"] is True


# Before anything is touched


def untouched(mail, message, *arguments, **options):
    with pytest.raises(EngineError, match=message) as caught:
        mail.set(*arguments, **options)
    assert not isinstance(caught.value, TransactionError)
    assert mail.settings == {"inbound": "disabled", "outbound": "disabled", "password": "hunter2"}
    assert not {"check", "reload", "resume"} & set(mail.calls)
    return str(caught.value)


def test_a_missing_certificate(mail):
    mail.certificate.unlink()
    message = untouched(mail, "there is no certificate at", "offered")
    assert str(mail.certificate) in message and "role certificate" in message


def test_off_needs_no_certificate(mail):
    mail.start("offered").certificate.unlink()
    assert mail.set("disabled").changed is True


def test_an_encrypted_key(mail, authority):
    issued = authority.issue([NAME])
    mail.certificate.write_bytes(issued.encrypted_key_pem("secret") + issued.fullchain_pem)
    untouched(mail, "cannot be used: the private key is encrypted", "offered")


def test_a_key_of_another_certificate(mail, authority):
    mail.certificate.write_bytes(authority.issue([NAME]).key_pem + authority.issue([NAME]).fullchain_pem)
    untouched(mail, "cannot be used: the key belongs to another certificate; install it first", "required")


@pytest.mark.parametrize("text", ["", "hello", "-----BEGIN CERTIFICATE-----\n"])
def test_a_file_that_is_no_certificate(mail, text):
    mail.certificate.write_text(text)
    untouched(mail, "cannot be used", "offered")


def test_a_directory_in_place_of_the_certificate(mail):
    mail.certificate.unlink()
    mail.certificate.mkdir()
    untouched(mail, "cannot be used: .*[Ii]s a directory", "offered")


def test_a_bundle_without_a_key_is_called_that(mail, authority):
    mail.certificate.write_bytes(authority.issue([NAME]).fullchain_pem)
    untouched(mail, "cannot be used: it does not begin with a private key; install it first", "offered")


def test_a_bundle_whose_key_stands_behind_is_called_that(mail, authority):
    """Postfix takes key and chain from one file in that order only."""
    issued = authority.issue([NAME])
    mail.certificate.write_bytes(issued.fullchain_pem + issued.key_pem)
    untouched(mail, "cannot be used: it does not begin with a private key; install it first", "offered")


def test_a_key_without_a_certificate(mail, authority):
    mail.certificate.write_bytes(authority.issue([NAME]).key_pem)
    untouched(mail, "cannot be used: it holds no certificate; install it first", "offered")


def test_no_message_shows_key_material(mail, authority):
    issued = authority.issue([NAME])
    secret = issued.key_pem.decode().splitlines()[1]
    for text in (
        secret,
        f"-----BEGIN PRIVATE KEY-----\n{secret}\n",
        f"-----BEGIN PRIVATE KEY-----\n{secret}!\n-----END PRIVATE KEY-----\n{issued.fullchain_pem.decode()}",
        f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n{issued.fullchain_pem.decode()}",
    ):
        mail.certificate.write_text(text)
        assert secret[:20] not in untouched(mail, "cannot be used", "offered")


@pytest.mark.parametrize(
    "path",
    ["", "relative.pem", "/etc/x\n.pem", "/etc/x.pem\n", "/etc/a b.pem", "/etc/$x", "/etc/../x.pem", "/é.pem", "/a'b"],
)
def test_a_certificate_path_that_must_not_reach_a_configuration_file(mail, path):
    untouched(mail, "has to be absolute", "offered", certificate=path)
    assert mail.calls == []


@pytest.mark.parametrize(
    ("inbound", "outbound"),
    [("off", None), ("opportunistic", None), (None, "offered"), ("", None), ("required\n", None)],
)
def test_a_state_that_does_not_exist(mail, inbound, outbound):
    message = untouched(mail, "is not one of disabled, ", inbound, outbound)
    assert repr(inbound if inbound is not None else outbound) in message


def test_an_own_port_that_cannot_be_one(mail):
    with pytest.raises((EngineError, TargetError)):
        mail.set("offered", own_port=Target("127.0.0.1\n"))
    assert mail.calls == []


def test_no_server_on_the_port(mail):
    port = refused_port()
    message = untouched(mail, "no mail server answers on", "offered", own_port=Target("127.0.0.1", port))
    assert f"127.0.0.1:{port}" in message and "cannot be proved is not made" in message


def test_a_daemon_that_is_not_there(mail):
    def missing():
        raise EngineError("fakemail is not installed")

    mail.require_running = missing
    untouched(mail, "fakemail is not installed", "offered")


# A certificate that is installed in the same change


@pytest.fixture
def renewed(authority):
    return authority.issue([NAME])


def journals(mail):
    """What the journals of all changes hold, one mapping a change, with the permissions of the file."""
    kept = []
    transaction = Transaction._begin

    def begin(self, *arguments):
        transaction(self, *arguments)
        path = mail.store / f"{mail.name}.journal"
        kept.append((json.loads(path.read_text()), stat.S_IMODE(path.stat().st_mode)))

    return kept, begin


def secrets_of(*files):
    """The lines of all keys in these files."""
    return [
        line
        for content in files
        for line in content.decode().partition("-----END PRIVATE KEY")[0].splitlines()[1:]
        if len(line) > 20
    ]


def test_certificate_and_settings_are_one_change(mail, renewed):
    bundle = mail.renewal(renewed)
    mail.calls.clear()
    outcome = mail.set("offered", bundle=bundle)
    assert mail.certificate.read_bytes() == renewed.key_pem + renewed.fullchain_pem
    assert stat.S_IMODE(mail.certificate.stat().st_mode) == 0o600
    assert (outcome.changed, outcome.handshake.fingerprint) == (True, bundle.fingerprints[0])
    assert mail.calls == ["require_running", "check", "reload"]
    assert outcome.look.differs
    assert [one.get("after_header", "settings") for one in outcome.diff] == [str(mail.certificate), "settings"]
    again = mail.set("offered", bundle=bundle)
    assert (again.changed, again.diff, again.look.differs) == (False, [], False)


def test_a_certificate_alone_is_a_change(mail, renewed):
    mail.start("offered")
    outcome = mail.set("offered", bundle=mail.renewal(renewed))
    assert (outcome.changed, len(outcome.diff)) == (True, 1)
    assert outcome.handshake.fingerprint == mail.fingerprint == leaf_fingerprint(renewed.fullchain_pem)
    assert mail.calls == ["require_running", "check", "reload"]


def test_where_there_was_none(mail, renewed):
    bundle = dataclasses.replace(mail.renewal(renewed), path=str(mail.directory / "new/sub/starttls.pem"))
    mail.certificate = mail.directory / "new/sub/starttls.pem"
    outcome = mail.set("offered", bundle=bundle)
    assert outcome.changed and mail.certificate.read_bytes() == renewed.key_pem + renewed.fullchain_pem
    assert outcome.look.previous is None
    assert stat.S_IMODE(mail.certificate.parent.stat().st_mode) == 0o755


@pytest.mark.parametrize("old", ["offered", "required"])
def test_a_renewed_certificate_that_the_daemon_cannot_serve_is_taken_back_with_the_settings(mail, renewed, old):
    mail.start(old, "disabled")
    former, settings, shown = mail.certificate.read_bytes(), mail.config.read_bytes(), mail.fingerprint
    follow = mail.follow

    def choke():
        """It serves every certificate but the new one."""
        if mail.certificate.read_bytes() != former:
            mail.port.face = Face(on_starttls=lambda connection: None)
        else:
            follow()

    mail.follow = choke
    with pytest.raises(TransactionError) as caught:
        mail.set(old, "opportunistic", settings=BRIEF, bundle=mail.renewal(renewed))
    assert caught.value.restored is True
    assert "does not show the wanted state" in str(caught.value)
    assert (mail.certificate.read_bytes(), mail.config.read_bytes()) == (former, settings)
    assert mail.read()["probe"]["results"][0]["fingerprint_sha256"] == shown
    assert mail.calls[:4] == ["require_running", "check", "reload", "resume"]
    assert not Transaction(mail, str(mail.store)).interrupted


def test_a_certificate_that_was_not_there_is_not_there_again(mail, renewed):
    new = mail.directory / "new/starttls.pem"
    bundle = dataclasses.replace(mail.renewal(renewed), path=str(new))
    mail.refuses = True
    with pytest.raises(TransactionError) as caught:
        mail.set("offered", bundle=bundle, certificate=str(new))
    assert caught.value.restored is True
    assert not new.parent.exists()


def test_a_daemon_that_goes_on_with_the_new_certificate_is_not_restored(mail, renewed):
    mail.start("offered")
    served = mail.port.face

    def follow():
        """The new certificate is served for ever, and another thing goes wrong."""
        if mail.port.face is served:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(mail.certificate)
            mail.port.face = Face(context=context)

    mail.follow = follow
    with pytest.raises(TransactionError, match="does not show its former state") as caught:
        mail.set("required", settings=BRIEF, bundle=mail.renewal(renewed))
    assert caught.value.restored is False


def test_a_killed_run_gives_the_former_certificate_back(mail, renewed):
    mail.start("offered")
    former, settings = mail.certificate.read_bytes(), mail.config.read_bytes()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            mail.reload = lambda: os._exit(9)
            mail.set("required", bundle=mail.renewal(renewed))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert mail.certificate.read_bytes() != former
    journal = mail.store / "fakemail.journal"
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600
    assert stat.S_IMODE(mail.store.stat().st_mode) == 0o700
    own_port = mail.desired().own_port
    assert undo_killed_run(mail, own_port, PATIENT, str(mail.store)) == (True, [])
    assert (mail.certificate.read_bytes(), mail.config.read_bytes()) == (former, settings)
    assert undo_killed_run(mail, own_port, PATIENT, str(mail.store)) == (False, [])


# A daemon that notices a replaced certificate, and refuses connections for a moment while it is told (Exim)


class Noticing(FakeMail):
    """It serves whatever certificate is in the file. blind: only after it was told."""

    certificate_seconds = 0.3
    blind = False

    def __init__(self, directory, authority):
        super().__init__(directory, authority)
        self.port.close()
        self.port = SmtpServer(PLAIN)
        serve = self.port._serve

        def look_first(connection, face):
            if face.context and not self.blind:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.certificate)
                face = dataclasses.replace(face, context=context)
            serve(connection, face)

        self.port._serve = look_first

    @property
    def told(self):
        return [call for call in self.calls if call in ("reload", "resume")]


@pytest.fixture
def noticing(tmp_path, authority):
    server = Noticing(tmp_path, authority).start("offered")
    yield server
    server.port.close()


@pytest.mark.parametrize("state", ["offered", "required"])
def test_a_daemon_that_notices_its_certificate_is_not_told(noticing, renewed, state):
    noticing.start(state)
    outcome = noticing.set(state, bundle=noticing.renewal(renewed))
    assert outcome.changed and outcome.handshake.fingerprint == leaf_fingerprint(renewed.fullchain_pem)
    assert noticing.calls == ["require_running", "check"]


def test_it_is_told_if_it_does_not_notice_in_time(noticing, renewed):
    noticing.blind = True
    outcome = noticing.set("offered", bundle=noticing.renewal(renewed))
    assert outcome.changed and outcome.handshake.fingerprint == leaf_fingerprint(renewed.fullchain_pem)
    assert noticing.told == ["reload"]


def test_it_is_told_of_another_setting_at_once(noticing, renewed):
    noticing.set("required", bundle=noticing.renewal(renewed))
    assert noticing.told == ["reload"]


def test_a_certificate_that_somebody_else_has_replaced_is_waited_for(noticing, renewed, monkeypatch):
    """The file is there already, and the daemon has a moment left to notice it."""
    noticing.install(renewed)
    noticing.blind = True
    check = noticing.check

    def look():
        check()
        noticing.blind = False

    monkeypatch.setattr(noticing, "check", look)
    outcome = noticing.set("offered")
    assert outcome.changed and outcome.handshake.fingerprint == leaf_fingerprint(renewed.fullchain_pem)
    assert noticing.told == []


def test_a_way_back_that_it_notices_is_not_told_either(noticing, renewed):
    former = noticing.certificate.read_bytes()
    noticing.refuses = True
    with pytest.raises(TransactionError, match="bad settings") as caught:
        noticing.set("offered", settings=BRIEF, bundle=noticing.renewal(renewed))
    assert caught.value.restored and noticing.certificate.read_bytes() == former and noticing.told == []


def test_a_certificate_that_is_never_served_is_put_back_after_it_was_told(noticing, renewed):
    former = noticing.certificate.read_bytes()
    noticing.blind = noticing.deaf = True
    with pytest.raises(TransactionError, match="is not the one installed") as caught:
        noticing.set("offered", settings=BRIEF, bundle=noticing.renewal(renewed))
    assert caught.value.restored and noticing.certificate.read_bytes() == former
    assert noticing.told == ["reload"]  # what it serves is right again without a word


@pytest.mark.parametrize(("blind", "told"), [(False, []), (True, ["resume"])])
def test_what_a_killed_renewal_left_is_undone_without_telling_it(noticing, renewed, blind, told):
    former = noticing.certificate.read_bytes()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            noticing.check = lambda: os._exit(9)
            noticing.set("offered", bundle=noticing.renewal(renewed))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert noticing.certificate.read_bytes() != former
    noticing.blind = blind
    if blind:
        noticing.follow()  # it has read the new one, and does not notice that it went
    own_port = noticing.desired().own_port
    assert undo_killed_run(noticing, own_port, PATIENT, str(noticing.store)) == (True, [])
    assert noticing.certificate.read_bytes() == former and noticing.told == told
    assert noticing.read()["probe"]["results"][0]["fingerprint_sha256"] == leaf_fingerprint(former)


def test_the_journal_holds_the_former_files_and_not_the_new_key(mail, renewed, monkeypatch):
    mail.start("offered")
    former = mail.certificate.read_bytes()
    kept, begin = journals(mail)
    monkeypatch.setattr(Transaction, "_begin", begin)
    mail.set("required", bundle=mail.renewal(renewed))
    [(journal, mode)] = kept
    assert mode == 0o600
    held = {entry["path"]: base64.b64decode(entry["content"]) for entry in journal["files"]}
    assert held[str(mail.certificate)] == former
    assert set(held) == {str(mail.certificate), str(mail.config), str(mail.store / f"{mail.name}.before")}
    everything = json.dumps(journal) + "".join(content.decode() for content in held.values())
    assert not [line for line in secrets_of(renewed.key_pem) if line in everything]
    assert not (mail.store / "fakemail.journal").exists()


@pytest.mark.parametrize("check_mode", [False, True])
def test_no_key_is_shown(mail, renewed, check_mode):
    mail.start("offered")
    lines = secrets_of(mail.certificate.read_bytes(), renewed.key_pem)
    bundle = mail.renewal(renewed)
    assert len(lines) >= 2
    outcome = mail.set("required", bundle=bundle, check_mode=check_mode)
    for text in (
        str(outcome),
        repr(bundle),
        json.dumps(outcome.to_dict()),
        json.dumps(outcome.diff),
        str(outcome.look),
    ):
        assert not [line for line in lines if line in text]
        assert "PRIVATE KEY" not in text


def test_nor_in_what_a_failure_says(mail, renewed):
    lines = secrets_of(mail.certificate.read_bytes(), renewed.key_pem)
    mail.never = ("offered",)
    with pytest.raises(TransactionError) as caught:
        mail.set("offered", settings=BRIEF, bundle=mail.renewal(renewed))
    text = "".join(traceback.format_exception(caught.type, caught.value, caught.tb))
    assert not [line for line in lines if line in text]


def test_check_mode_of_a_certificate_touches_nothing(mail, renewed):
    former = mail.certificate.read_bytes()
    outcome = mail.set("offered", bundle=mail.renewal(renewed), check_mode=True)
    assert (outcome.changed, len(outcome.diff), outcome.warnings) == (True, 2, ())
    assert mail.certificate.read_bytes() == former and not mail.store.exists()


def test_check_mode_of_a_certificate_where_none_is_yet(mail, renewed):
    """Unlike without one, there is nothing to warn of."""
    mail.certificate.unlink()
    outcome = mail.set("offered", bundle=mail.renewal(renewed), check_mode=True)
    assert (outcome.changed, outcome.warnings) == (True, ())


def test_the_state_that_needs_no_certificate_installs_none(mail, renewed):
    mail.start("offered")
    former = mail.certificate.read_bytes()
    outcome = mail.set("disabled", bundle=mail.renewal(renewed))
    assert (outcome.look, mail.certificate.read_bytes()) == (None, former)


def test_a_certificate_for_a_user_that_does_not_exist(mail, renewed):
    bundle = dataclasses.replace(mail.renewal(renewed), owner="nobody-of-that-name")
    untouched(mail, "user nobody-of-that-name does not exist on this host", "offered", bundle=bundle)


def test_another_owner_alone_is_a_change(mail, renewed):
    mail.install(renewed)
    mail.certificate.chmod(0o640)
    mail.start("offered")
    outcome = mail.set("offered", bundle=mail.renewal(renewed))
    assert (outcome.changed, stat.S_IMODE(mail.certificate.stat().st_mode)) == (True, 0o600)


# The files as the plan saw them


def seen_by_the_plan(mail):
    return facts.digests([*mail.files(), str(mail.certificate)])


def test_a_change_of_what_the_plan_saw(mail, renewed):
    outcome = mail.set("offered", digests=seen_by_the_plan(mail), bundle=mail.renewal(renewed))
    assert outcome.changed
    assert outcome.digests == seen_by_the_plan(mail)
    # The next step of the run takes these.
    assert mail.set("required", digests=outcome.digests, bundle=mail.renewal(renewed)).changed


def test_without_a_change_there_are_no_new_digests(mail):
    mail.start("offered")
    assert mail.set("offered").digests == {}
    assert mail.set("required", check_mode=True).digests == {}


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize("which", ["config", "certificate"])
def test_a_file_that_changed_since_the_plan_refuses_the_change(mail, renewed, which, check_mode):
    digests, path = seen_by_the_plan(mail), getattr(mail, which)
    bundle = mail.renewal(renewed)
    path.write_bytes(path.read_bytes() + b"\n")
    before = {one: one.read_bytes() for one in (mail.config, mail.certificate)}
    with pytest.raises(EngineError) as caught:
        mail.set("offered", digests=digests, bundle=bundle, check_mode=check_mode)
    assert not isinstance(caught.value, TransactionError)
    assert str(caught.value) == (
        f"{path} changed since the plan, so the plan is no longer true; nothing was changed; run again"
    )
    assert {one: one.read_bytes() for one in before} == before
    assert mail.calls == []


def test_so_does_a_file_that_was_not_there(mail, renewed):
    mail.certificate.unlink()
    digests = seen_by_the_plan(mail)
    assert digests[str(mail.certificate)] == "absent"
    mail.install(renewed)
    untouched(mail, "changed since the plan", "offered", digests=digests)


def test_what_a_killed_run_left_is_undone_before_the_files_are_compared(mail):
    """The plan of such a host was made after that was undone."""
    digests = seen_by_the_plan(mail)
    with Transaction(mail, str(mail.store)).locked() as transaction:
        change = mail.plan(mail.desired("required"))
        transaction._begin(change, [])
        change.after[0].write()
    outcome = mail.set("offered", digests=digests)
    assert (outcome.recovered, mail.settings["inbound"]) == (True, "offered")


# Within the transaction of another change


def test_what_was_made_can_be_proved_and_disproved_later(mail):
    with mail.transaction(str(mail.store)).opened(False):
        transaction = mail.transaction(str(mail.store))
        outcome, made = change_within(transaction, mail, mail.desired("offered"), PATIENT, False, [])
        assert outcome.changed
        made.prove()
        with pytest.raises(EngineError, match="does not show its former state"):
            change_within_brief(mail)
        assert [image.path for image in made.change.after] == [str(mail.config)]


def change_within_brief(mail):
    """Make a change, and ask for the proof of the state before it."""
    transaction = mail.transaction(str(mail.store))
    _outcome, made = change_within(transaction, mail, mail.desired("disabled"), BRIEF, False, [])
    made.prove_old()


@pytest.mark.parametrize(("inbound", "check_mode"), [("disabled", False), ("offered", True)])
def test_nothing_made_is_nothing_to_undo(mail, inbound, check_mode):
    transaction = mail.transaction(str(mail.store))
    _outcome, made = change_within(transaction, mail, mail.desired(inbound), PATIENT, check_mode, [])
    assert made is None


def test_what_is_computed_changes_nothing(mail, renewed):
    before = mail.config.read_bytes(), mail.certificate.read_bytes()
    bundle = mail.renewal(renewed)
    computed = compute(mail, mail.desired("required", "opportunistic", bundle=bundle), False, [])
    assert (computed.before, computed.after) == (
        {"inbound": "disabled", "outbound": "disabled"}, {"inbound": "required", "outbound": "opportunistic"},
    )  # fmt: skip
    assert (computed.look.differs, computed.fingerprint) == (True, bundle.fingerprints[0])
    assert [image.path for image in computed.change.after] == [str(mail.certificate), str(mail.config)]
    assert (mail.config.read_bytes(), mail.certificate.read_bytes()) == before


def test_a_read_computes_the_same_without_the_key(mail, renewed):
    """It gets digest and fingerprints only, so it can say what would change and cannot make it."""
    whole = mail.renewal(renewed)
    without = dataclasses.replace(whole, content=None)
    one, other = (compute(mail, mail.desired("offered", bundle=file), True, []) for file in (whole, without))
    assert (one.look, one.fingerprint, one.after, one.diff()) == (
        other.look,
        other.fingerprint,
        other.after,
        other.diff(),
    )
    assert str(mail.certificate) not in [image.path for image in other.change.after]


# Insisting on TLS outbound


@pytest.fixture
def acceptor(authority, tmp_path):
    """The side that has to accept TLS before anybody insists on it."""
    with serving(Face(context=server_context(tmp_path, authority.issue(["gw.example.com"])))) as server:
        yield server


def test_outbound_required_with_evidence(mail, acceptor):
    mail.hops = [Target(acceptor.host, acceptor.port)]
    outcome = mail.set(outbound="required")
    assert outcome.after["outbound"] == "required" and mail.settings["outbound"] == "required"
    assert acceptor.connections == 1
    assert not any(command.startswith(b"MAIL") for command in acceptor.commands)


def test_outbound_required_is_refused_when_a_next_hop_does_not_accept_tls(mail, acceptor):
    with serving(PLAIN) as plain:
        mail.hops = [Target(one.host, one.port) for one in (acceptor, plain)]
        message = untouched(mail, "outbound 'required' is refused", None, "required")
    assert f"127.0.0.1:{plain.port}: the server does not offer STARTTLS" in message
    assert f":{acceptor.port}" not in message
    assert "set require_without_evidence" in message


def test_outbound_required_is_refused_without_a_next_hop_to_ask(mail):
    untouched(mail, "outbound 'required' is refused.* the MX of each recipient domain", None, "required")


def test_outbound_required_is_refused_with_what_the_adapter_says_of_other_ways(mail, monkeypatch):
    def next_hops():
        raise EngineError("mail also leaves by transport_maps = hash:/x, and those routes cannot all be tested")

    monkeypatch.setattr(mail, "next_hops", next_hops)
    refusal = (
        "outbound 'required' is refused, because mail would be deferred: mail also leaves by transport_maps = hash:/x, "
        "and those routes cannot all be tested. Switch TLS on"
    )
    untouched(mail, refusal, None, "required")
    (warning,) = mail.set(outbound="required", check_mode=True).warnings
    assert warning.startswith(refusal)
    assert mail.set(outbound="opportunistic").changed
    assert mail.set(outbound="required", require_without_evidence=True).changed


def test_outbound_required_is_refused_on_a_220_without_a_handshake(mail):
    with serving(Face(on_starttls=lambda connection: None)) as broken:
        mail.hops = [Target(broken.host, broken.port)]
        untouched(mail, "outbound 'required' is refused", None, "required")


def test_outbound_required_without_evidence_when_asked_for(mail):
    outcome = mail.set(outbound="required", require_without_evidence=True)
    assert mail.settings["outbound"] == "required" and outcome.changed


def test_outbound_required_is_not_asked_again_once_it_is_set(mail):
    mail.start(outbound="required")
    assert mail.set(outbound="required").changed is False


def test_outbound_opportunistic_needs_no_evidence(mail):
    mail.hops = [Target("127.0.0.1", refused_port())]
    assert mail.set(outbound="opportunistic").changed is True


def test_check_mode_warns_of_a_refusal(mail):
    outcome = mail.set(outbound="required", check_mode=True)
    assert outcome.changed is True
    (warning,) = outcome.warnings
    assert warning.startswith("outbound 'required' is refused, because mail would be deferred: ")
    assert mail.settings["outbound"] == "disabled"


# Relaxing


def test_without_relax_required_stays_required(mail):
    mail.start("required")
    outcome = mail.set("offered", relax=False)
    assert (outcome.changed, outcome.after["inbound"]) == (False, "required")
    assert mail.settings["inbound"] == "required"


def test_without_relax_a_renewed_certificate_is_still_taken_up(mail, authority):
    mail.start("required").install(authority.issue([NAME]))
    outcome = mail.set("offered", relax=False)
    assert outcome.changed and outcome.handshake.fingerprint == mail.fingerprint
    assert outcome.handshake.requires_tls is True


@pytest.mark.parametrize(("old", "new"), [("disabled", "offered"), ("required", "disabled"), ("offered", "offered")])
def test_without_relax_everything_else_goes_its_way(mail, old, new):
    mail.start(old)
    assert mail.set(new, relax=False).after["inbound"] == new
    assert mail.settings["inbound"] == new


@pytest.mark.parametrize("relax", [True, False])
@pytest.mark.parametrize("old", ["disabled", "offered"])
def test_only_relaxing_leaves_alone_what_does_not_require_tls(mail, authority, old, relax):
    mail.start(old).install(authority.issue([NAME]))
    outcome = mail.set("offered", only_relax=True, relax=relax)
    assert (outcome.changed, outcome.diff, outcome.after["inbound"]) == (False, [], old)
    assert mail.settings["inbound"] == old
    assert mail.calls == ["require_running"]


def test_only_relaxing_needs_no_certificate_where_there_is_nothing_to_relax(mail):
    mail.certificate.unlink()
    assert mail.set("offered", only_relax=True).changed is False


def test_only_relaxing_takes_required_back(mail):
    mail.start("required")
    outcome = mail.set("offered", only_relax=True)
    assert (outcome.changed, outcome.before["inbound"], outcome.after["inbound"]) == (True, "required", "offered")
    assert outcome.handshake.requires_tls is False
    assert mail.settings["inbound"] == "offered"
    assert mail.set("offered", only_relax=True).changed is False


def test_only_relaxing_without_leave_to_relax_changes_nothing(mail):
    mail.start("required")
    assert mail.set("offered", only_relax=True, relax=False).changed is False
    assert mail.settings["inbound"] == "required"


@pytest.mark.parametrize(("old", "new"), [("disabled", "disabled"), ("offered", "offered"), ("required", "offered")])
def test_only_relaxing_concerns_the_inbound_side_only(mail, old, new):
    mail.start(old)
    outcome = mail.set("offered", "opportunistic", only_relax=True)
    assert outcome.after == {"inbound": new, "outbound": "opportunistic"}
    assert (mail.settings["inbound"], mail.settings["outbound"]) == (new, "opportunistic")


# The pieces


def test_proving_another_port_of_the_same_daemon(mail):
    mail.start("offered")
    seen = prove_at(mail.desired("offered"), Target(mail.port.host, mail.port.port), PATIENT)
    assert seen.completed and seen.requires_tls is False
    with pytest.raises(EngineError, match="mail without TLS is not refused"):
        prove_at(mail.desired("required"), Target(mail.port.host, mail.port.port), BRIEF)


def test_proving_a_port_where_nobody_listens():
    target = Target("127.0.0.1", refused_port())
    with pytest.raises(EngineError, match="does not show the wanted state: cannot connect to"):
        prove_at(Desired("disabled"), target, Settings(timeout=0.1))


LOOK = Handshake(Target("h"), stage=Stage.EHLO_TLS, chain=(b"leaf",), requires_tls=False)


def test_what_satisfies_a_wish():
    fingerprint = LOOK.fingerprint
    assert satisfies(Desired("offered"), fingerprint, LOOK)
    assert not satisfies(Desired("offered"), "another", LOOK)
    assert not satisfies(Desired("required"), fingerprint, LOOK)
    assert satisfies(Desired("required"), fingerprint, dataclasses.replace(LOOK, requires_tls=True))
    assert not satisfies(Desired("offered"), fingerprint, dataclasses.replace(LOOK, stage=Stage.TLS))
    assert not satisfies(Desired("disabled"), "", LOOK)
    assert satisfies(Desired("disabled"), "", dataclasses.replace(LOOK, stage=Stage.EHLO))
    assert not satisfies(Desired("disabled"), "", dataclasses.replace(LOOK, stage=Stage.GREETING))
    assert satisfies(Desired(None), "", dataclasses.replace(LOOK, stage=Stage.EHLO))
    assert not satisfies(Desired(None), "", dataclasses.replace(LOOK, stage=Stage.CONNECT))


@pytest.mark.parametrize(
    "change", [{"stage": Stage.TLS}, {"code": "timeout"}, {"chain": (b"other",)}, {"requires_tls": True}]
)
def test_what_a_client_could_tell_apart(change):
    assert same_face(LOOK, dataclasses.replace(LOOK, seconds=3.0, cipher="other", greeting="220 later"))
    assert not same_face(LOOK, dataclasses.replace(LOOK, **change))


def test_an_answer_that_leaves_it_open_is_as_good_as_one_that_takes_mail():
    """A server that puts strangers off looks the same before and after it does; see satisfies."""
    unknown = dataclasses.replace(LOOK, requires_tls=None)
    assert same_face(LOOK, unknown) and same_face(unknown, LOOK)
    assert not same_face(unknown, dataclasses.replace(LOOK, requires_tls=True))
    assert satisfies(Desired("offered"), LOOK.fingerprint, unknown)
    assert not satisfies(Desired("required"), LOOK.fingerprint, unknown)


def test_the_wish_has_the_documented_defaults():
    wish = Desired()
    assert (wish.certificate, str(wish.own_port)) == ("/etc/mailfleet/starttls.pem", "127.0.0.1:25")
    assert (wish.inbound, wish.outbound, wish.require_without_evidence, wish.relax) == (None, None, False, True)
    assert wish.only_relax is False
    assert not wish.offers and Desired("offered").offers and Desired("required").offers
    assert Path(wish.certificate).is_absolute()
    wish.check()


# What others write meanwhile


@pytest.mark.parametrize("check_mode", [False, True])
def test_what_somebody_writes_during_the_handshake_is_not_lost(mail, monkeypatch, check_mode):
    real = engine.handshake_one

    def tested(*arguments):
        mail.config.write_text(mail.config.read_text() + "# by hand\n")
        return real(*arguments)

    monkeypatch.setattr(engine, "handshake_one", tested)
    if check_mode:
        assert mail.set("offered", check_mode=True).changed
        return
    with pytest.raises(EngineError, match=rf"{mail.config} changed while .*; nothing was changed; run again"):
        mail.set("offered")
    assert mail.config.read_text().endswith("# by hand\n")


# A certificate that is on the host already


class TestOnHost:
    @pytest.fixture
    def files(self, mail, authority):
        """The key in a file of its own, as renewing clients write it."""
        made = authority.issue([NAME])
        key, chain = mail.directory / "privkey.pem", mail.directory / "fullchain.pem"
        key.write_bytes(made.key_pem)
        chain.write_bytes(made.fullchain_pem)
        return chain, key

    def wanted(self, files, **changes):
        return Desired("offered", None, str(files[0]), private_key=str(files[1]), on_host=True, **changes)

    def test_its_fingerprint_is_that_of_the_leaf(self, mail, files):
        made = compute(mail, self.wanted(files), True, [])
        assert made.fingerprint == leaf_fingerprint(files[0].read_bytes())

    def test_a_key_of_another_certificate(self, mail, files, authority):
        files[1].write_bytes(authority.issue([NAME]).key_pem)
        with pytest.raises(EngineError, match="the key belongs to another certificate"):
            compute(mail, self.wanted(files), True, [])

    @pytest.mark.parametrize(("place", "what"), [(0, "certificate"), (1, "private key")])
    def test_a_file_that_is_not_there_is_named_with_its_variables(self, mail, files, place, what):
        files[place].unlink()
        with pytest.raises(EngineError) as caught:
            compute(mail, self.wanted(files), True, [])
        assert str(caught.value) == (
            f"there is no {what} at {files[place]}; correct starttls_certificate_path or starttls_private_key_path"
        )

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (
                ("/live/rsa.pem",),
                "there is no certificate at /live/rsa.pem; correct that entry of starttls_more_certificates",
            ),
            (("/a b",), "starttls_more_certificates: the certificate_path '/a b' has to be absolute"),
            (("/a.pem", "/a.pem"), "starttls_more_certificates: /a.pem is named twice"),
            (("/a.pem", "/b.pem", "/c.pem"), "starttls_more_certificates: at most 2 further certificates are served"),
        ],
    )
    def test_a_further_one_that_cannot_be_used_is_named(self, mail, files, more, message):
        with pytest.raises(EngineError, match=re.escape(message)):
            wanted = self.wanted(files, more=more)
            wanted.check()
            compute(mail, wanted, True, [])

    def test_a_path_that_must_not_reach_a_configuration_file(self, files):
        with pytest.raises(EngineError, match="the path of the private key"):
            self.wanted((files[0], "/a b")).check()
