"""The judge of a new configuration file, with a stand-in for Exim: what it prints of both files, and the session that it plays."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_text import ByHandError, Edit
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_trial import Trial
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

PEM = "/etc/mailfleet/starttls.pem"
EDITS = {"": Edit({"tls_certificate": PEM}), "out": Edit({"hosts_require_tls": "*"}, ["hosts_avoid_tls"])}
GREETING = "220 mail.example.com ESMTP\r\n"
EHLO = "250-mail.example.com Hello\r\n250-STARTTLS\r\n250 HELP\r\n"
TAKEN, RESET, READY = "250 OK\r\n", "250 Reset OK\r\n", "220 TLS go ahead\r\n"
LATER = "430 4.7.0 Must issue a STARTTLS command first\r\n"


class Exim:
    """Prints main options, transports and the rest of two files, and says what it is told to say in a session."""

    def __init__(self, path):
        self.path = path
        self.old = {
            "main": {"tls_certificate": ""},
            "out": {"driver": "smtp", "hosts_avoid_tls": "*"},
            "rest": "begin acl\n",
        }
        self.new = {
            "main": {"tls_certificate": PEM},
            "out": {"driver": "smtp", "hosts_require_tls": "*"},
            "rest": "begin acl\n",
        }
        self.version = 0, "", ""
        self.session = GREETING + EHLO + TAKEN + RESET + READY
        self.calls = []

    def __call__(self, words):
        self.calls.append(list(words))
        if words[0] == "sh":
            return 0, f"\n**** SMTP testing session\n\n{self.session}", ""
        if "-bV" in words:
            return self.version
        file = self.old if words[words.index("-C") + 1] == self.path else self.new
        transport = "out transport:\n" + _lines(file["out"])
        if words[-1] == "config":
            return 0, f'# 1 "{words[2]}"\n{_lines(file["main"])}{file["rest"]}', ""
        return 0, transport if words[-1] == "transports" else _lines(file["main"]), ""


def _lines(options):
    return "".join(f"{name} = {value}\n" for name, value in options.items())


@pytest.fixture
def exim(tmp_path):
    path = tmp_path / "exim.conf"
    path.write_text("begin acl\n")
    return Exim(str(path))


OWN = Target("127.0.0.1")


def judge(exim, inbound="offered", edits=EDITS, own=OWN):
    trial = Trial(exim, "exim", own)
    trial.expect(Desired(inbound), edits)
    trial.of_file("/etc/exim/.new", exim.path)


def test_what_is_meant_passes(exim):
    judge(exim)
    [session] = [words for words in exim.calls if words[0] == "sh"]
    assert session[4:] == ["exim", "-C", "/etc/exim/.new", "-oMi", "[127.0.0.1]:25", "-bh", "127.0.0.1"]
    judge(exim, own=Target("mail.example.com", 587))
    assert exim.calls[-1][-4:] == ["-oMi", "[127.0.0.1]:587", "-bh", "127.0.0.1"][-4:]


@pytest.mark.parametrize(
    ("place", "option", "value", "message"),
    [
        ("main", "tls_require_ciphers", "NORMAL", "^tls_require_ciphers would change as well$"),
        ("out", "port", "26", "^port would change as well in the transport out$"),
        ("main", "tls_certificate", "/etc/1/x.pem", "a macro in the file would make /etc/1/x.pem of the path"),
    ],
)
def test_what_would_change_besides_is_refused(exim, place, option, value, message):
    exim.new[place][option] = value
    with pytest.raises(EngineError, match=message):
        judge(exim)


def test_another_part_that_exim_would_read_otherwise_is_refused(exim):
    exim.new["rest"] = "begin acl\ncheck:\n  accept\n"
    with pytest.raises(EngineError, match="read other parts of the file differently"):
        judge(exim)


@pytest.mark.parametrize(
    ("inbound", "session", "message"),
    [
        ("offered", GREETING + EHLO + TAKEN + RESET + "454 TLS currently unavailable\r\n", "not start TLS .*: 454 TLS currently"),
        ("offered", GREETING + EHLO.replace("250-STARTTLS\r\n", "") + TAKEN + RESET + "503 no\r\n", "STARTTLS is not offered"),
        ("required", GREETING + EHLO + TAKEN + RESET + READY, "would still take mail without TLS"),
        ("disabled", GREETING + EHLO + TAKEN + RESET + READY, "would still offer STARTTLS"),
        ("offered", "554 go away\r\n", "does not take a session with the change: 554 go away"),
        ("offered", "", r"does not take a session with the change: \*\*\*\* SMTP testing session"),
    ],
)  # fmt: skip
def test_a_session_that_is_not_as_meant_is_refused(exim, inbound, session, message):
    exim.session = session
    with pytest.raises(EngineError, match=message):
        judge(exim, inbound)


@pytest.mark.parametrize(("inbound", "mail"), [("offered", TAKEN), ("offered", LATER), ("required", LATER)])
def test_a_list_for_mail_may_say_what_it_likes(exim, inbound, mail):
    exim.session = GREETING + EHLO + mail + RESET + READY
    judge(exim, inbound)


def test_an_outbound_change_plays_no_session(exim):
    judge(exim, None)
    assert not [words for words in exim.calls if words[0] == "sh"]


def test_a_file_that_exim_refuses_is_named_as_the_reader_knows_it(exim):
    exim.version = 1, "", "Exim configuration error in line 3 of /etc/exim/.new:\n  main option 'x' unknown"
    with pytest.raises(
        EngineError, match=rf"^Exim refuses the change: .* line 3 of {exim.path}: main option 'x' unknown$"
    ):
        judge(exim)


def test_a_text_is_tried_in_the_plan_as_far_as_that_goes(exim):
    trial = Trial(exim, "exim", Target("127.0.0.1"))
    trial.expect(Desired("offered"), EDITS)
    trial.of_text(".include tls.conf\nbegin acl\n", exim.path)  # beside the file, and nowhere else
    assert exim.calls == []
    exim.new["out"]["port"] = "26"
    with pytest.raises(ByHandError, match="port would change as well"):
        trial.of_text("begin acl\n", exim.path)
    exim.version = 1, "", "exim: permission denied; not trusted\nPermission denied"
    trial.of_text("begin acl\n", exim.path)
