"""STARTTLS on Debian's Exim: the macros file, the files of /etc/exim4 in a directory, and scripted commands."""

import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import server
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.server import read_macros, set_macros
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.processes import Process
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    BrokenConfigurationError,
    EngineError,
    NotRunningError,
    TransactionError,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.alarm import at_most
from tests.support.attacker import UID, await_words, needs_root, sleeping
from tests.support.exim_host import pretend_daemon

PROGRAM = Path("/proc/self/exe").resolve().name

NAMES = ["MAIN_TLS_ENABLE", "MAIN_TLS_CERTKEY", "REMOTE_SMTP_HOSTS_AVOID_TLS", "A", "B1"]
VALUES = st.text("ab $:*{}/=#\\", max_size=8).map(str.strip).filter(lambda value: not value.endswith("\\"))
WANTED = st.dictionaries(st.sampled_from(NAMES), st.none() | VALUES.filter(lambda value: value[:1] != "="))
PLAIN = st.sampled_from(
    ["# a comment\n", "\n", "  # indented\n", ".ifdef X\n", ".endif\n", "domainlist a = b\n", "primary_hostname = h\n",
     "lower = 1\n", "acl_x = a : \\\n   b : \\\n# between\n   c\n", ".include /etc/x\n", "# umlaut \udcfc\n"]
)  # fmt: skip
DEFINITION = st.builds(
    "{}{} {} {}\n".format, st.sampled_from(["", "  "]), st.sampled_from(NAMES), st.sampled_from(["=", "=="]), VALUES
)
NO_COMMENT = VALUES.filter(lambda value: value[:1] != "#")
LONG = st.builds("{} = {}\\\n   {}\n".format, st.sampled_from(NAMES), VALUES, NO_COMMENT)
TEXTS = st.builds(
    lambda lines, last: "".join(lines) + last,
    st.lists(PLAIN | DEFINITION | LONG, max_size=12),
    st.sampled_from(["", "A = no newline", "# no newline", "other = 1"]),
)


class TestMacros:
    @given(TEXTS, WANTED)
    def test_every_other_statement_stays_as_it_is(self, text, wanted):
        def others(source):
            return [
                one for one in server._statements(source) if server._macro_of(one)[0] not in wanted
            ]  # what has to survive byte for byte

        before, after = others(text), others(set_macros(text, wanted))
        assert "".join(after).rstrip("\n") == "".join(before).rstrip("\n")

    @given(TEXTS, WANTED)
    def test_it_is_idempotent(self, text, wanted):
        once = set_macros(text, wanted)
        assert set_macros(once, wanted) == once

    @given(TEXTS, WANTED)
    def test_what_was_set_is_read(self, text, wanted):
        read = read_macros(set_macros(text, wanted))
        assert {name: read.get(name) for name in wanted} == wanted
        kept = {name: value for name, value in read_macros(text).items() if name not in wanted}
        assert {name: value for name, value in read.items() if name not in wanted} == kept

    @given(TEXTS)
    def test_setting_what_is_there_changes_nothing(self, text):
        macros = read_macros(text)
        definitions = [server._macro_of(one)[0] for one in server._statements(text)]
        assume(len(set(filter(None, definitions))) == len(list(filter(None, definitions))))
        assert set_macros(text, macros) == text

    @pytest.mark.parametrize(
        ("text", "macros"),
        [
            ("", {}),
            ("MAIN_TLS_ENABLE = yes\n", {"MAIN_TLS_ENABLE": "yes"}),
            ("MAIN_TLS_ENABLE=yes", {"MAIN_TLS_ENABLE": "yes"}),
            ("  MAIN_TLS_ENABLE  =  yes  \n", {"MAIN_TLS_ENABLE": "yes"}),
            ("MAIN_TLS_ADVERTISE_HOSTS =\n", {"MAIN_TLS_ADVERTISE_HOSTS": ""}),
            ("# MAIN_TLS_ENABLE = yes\n", {}),
            ("   #MAIN_TLS_ENABLE = yes\n", {}),
            ("main_tls_enable = yes\n", {}),
            ("hostlist X = y\n", {}),
            (".ifdef MAIN_TLS_ENABLE\n.endif\n", {}),
            ("A = one\nA == two\n", {"A": "two"}),
            ("A = one \\\n    two \\\n    three\nB = 1\n", {"A": "one two three", "B": "1"}),
            ("A = one \\  \n two\n", {"A": "one two"}),
            ("A = b = c\n", {"A": "b = c"}),
            ("other = a \\\nA = 1\nB = 2\n", {"B": "2"}),
            ("other = a \\\n# comment\nA = 1\nB = 2\n", {"B": "2"}),
        ],
    )
    def test_reading(self, text, macros):
        assert read_macros(text) == macros

    @pytest.mark.parametrize(
        ("text", "wanted", "result"),
        [
            ("", {"A": "1"}, "A = 1\n"),
            ("", {"A": ""}, "A =\n"),
            ("B = 2", {"A": "1"}, "B = 2\nA = 1\n"),
            ("A = 0", {"A": "1"}, "A = 1\n"),
            ("A = 0\nB = 2\nA == 3\n", {"A": "1"}, "A = 1\nB = 2\n"),
            ("A = 0\nB = 2\nA == 3\n", {"A": None}, "B = 2\n"),
            ("A = x \\\n  y\nB = 2\n", {"A": None}, "B = 2\n"),
            ("A   =   1\n", {"A": "1"}, "A   =   1\n"),
            ("# A = 0\n", {"A": "1"}, "# A = 0\nA = 1\n"),
            ("B = 2\r\n", {"A": None}, "B = 2\r\n"),
        ],
    )
    def test_writing(self, text, wanted, result):
        assert set_macros(text, wanted) == result

    @pytest.mark.parametrize("value", ["a\nB = 2", "a\r", "\x00", "\x7f", "a\tb"])
    def test_a_control_character_is_refused(self, value):
        with pytest.raises(EngineError, match="the value of A holds a newline or another control character"):
            set_macros("", {"A": value})

    def test_a_comment_that_ends_in_a_backslash_hides_nothing(self):
        assert read_macros("# see C:\\\nA = 1\n") == {"A": "1"}

    def test_a_comment_inside_a_continued_value_is_no_part_of_it(self):
        assert read_macros("A = one \\\n# why\n  two\n") == {"A": "one two"}

    @pytest.mark.parametrize("character", ["\f", "\v", "\x1c", "\x85", "\u2028", "\r"])
    def test_only_a_newline_ends_a_line(self, character):
        assert read_macros(f"# a comment{character}A = 1\n") == {}

    def test_a_dangling_backslash_does_not_swallow_what_is_added(self):
        assert read_macros(set_macros("B = 2 \\\n", {"A": "1"}))["A"] == "1"


SETTINGS = """\
# /etc/exim4/update-exim4.conf.conf
dc_eximconfig_configtype='internet'
dc_other_hostnames='alpha.example'
dc_smarthost=''
dc_use_split_config='false'
"""


# What exim4 -bP prints of several options and the transports, shortened.
PRINTED = """\
exim_version = 4.98.2
local_interfaces = 127.0.0.1
daemon_smtp_ports = smtp
tls_on_connect_ports =
tls_advertise_hosts =
tls_certificate = /etc/exim4/exim.crt

mail_spool transport:
no_body_only
driver = appendfile

remote_smtp transport:
driver = smtp
hosts_avoid_tls =

remote_smtp_smarthost transport:
driver = smtp
port = smtp
"""


class Host:
    """One Exim host: its directory, the commands it answers, and the adapter on them."""

    def __init__(self, monkeypatch, directory, settings=SETTINGS):
        self.directory = directory
        directory.mkdir()
        self.settings = directory / "update-exim4.conf.conf"
        self.settings.write_text(settings)
        (directory / "conf.d/main").mkdir(parents=True)
        self.macros = directory / "exim4.conf.localmacros"
        self.certificate = directory / "cert.pem"
        self.acl = directory / "mailfleet-require-starttls.acl"
        self.calls, self.trials = [], []
        self.trial = lambda planned, target: self.trials.append((planned, target))
        self.generated = directory / "config.autogenerated"
        self.pid_file = directory / "exim.pid"
        self.answers = {("exim4", "-bP"): (0, f"{self.generated}\n", "")}
        macro = server._ACL_MACRO.replace(server.REQUIRE_ACL, str(self.acl))
        for name, value in {
            "CONFIG_DIR": str(directory), "SETTINGS": str(self.settings), "REQUIRE_ACL": str(self.acl),
            "GENERATED": str(self.generated), "PID_FILE": str(self.pid_file),
            "PID_FILE_SECONDS": 0.0, "_ACL_MACRO": macro, "DAEMON_USER": pwd.getpwuid(os.getuid()).pw_name,
        }.items():  # fmt: skip
            monkeypatch.setattr(server, name, value)
        self.required_macro = macro
        monkeypatch.setattr(server, "FileImage", _own_files())

    def run(self, arguments):
        self.calls.append(list(arguments))
        for words, answer in self.answers.items():
            if tuple(arguments[: len(words)]) == words:
                return answer(arguments) if callable(answer) else answer
        if list(arguments[:2]) == ["update-exim4.conf", "-o"]:
            Path(arguments[2]).write_text("generated\n")
        return 0, "", ""

    @property
    def adapter(self):
        return server.Exim(self.run, self._try)

    def _try(self, planned, target):
        self.trial(planned, target)

    def plan(self, inbound=None, outbound=None):
        return self.adapter.plan(Desired(inbound, outbound, certificate=str(self.certificate)))

    def apply(self, *args):
        change = self.plan(*args)
        for image in change.after:
            image.write()
        return change

    def read(self):
        return read_macros(self.macros.read_text())


def _own_files():
    """FileImage whose new files belong to whoever runs the tests."""

    class Own:
        read = staticmethod(FileImage.read)

        def __call__(self, path, content, mode=0o644, _uid=0, _gid=0):
            return FileImage(path, content, mode, os.getuid(), os.getgid())

    class Missing(Own):
        @staticmethod
        def read(path):
            image = FileImage.read(path)
            return image if image.content is not None else FileImage(path, None, 0o644, os.getuid(), os.getgid())

    return Missing()


@pytest.fixture
def make(monkeypatch, tmp_path):
    return lambda settings=SETTINGS: Host(monkeypatch, tmp_path / "exim4", settings)


@pytest.fixture
def host(make):
    return make()


class TestRunning:
    def test_it_is_not_installed(self, host):
        host.settings.unlink()
        with pytest.raises(
            EngineError, match=r"update-exim4\.conf\.conf is not there: Debian's Exim 4 is not installed"
        ):
            host.adapter.require_running()

    def test_it_cannot_read_its_configuration(self, host):
        host.answers[("exim4", "-bP")] = (1, "", "Exim configuration error in line 7\n")
        with pytest.raises(
            BrokenConfigurationError, match=r"Exim does not read its configuration: Exim configuration error in line 7$"
        ):
            host.adapter.require_running()

    def test_a_hand_written_configuration_is_refused(self, host):
        host.answers[("exim4", "-bP")] = (0, "/etc/exim4/exim4.conf\n", "")
        with pytest.raises(
            EngineError, match=r"Exim reads /etc/exim4/exim4\.conf, not Debian's generated .*Debian's scheme first"
        ):
            host.adapter.require_running()

    @pytest.mark.parametrize("text", [None, "", "nonsense\n", "1\n", f"{2**22 + 1}\n"])
    def test_it_does_not_run(self, host, text):
        if text is not None:
            host.pid_file.write_text(text)
        with pytest.raises(
            NotRunningError, match=r"^Exim is not running \(.*exim\.pid names no process of it\); start"
        ):
            host.adapter.require_running()
        assert host.adapter.main_process() is None

    def test_the_process_has_to_be_exim(self, host, monkeypatch):
        host.pid_file.write_text(f"{os.getpid()}\n")
        with pytest.raises(NotRunningError):
            host.adapter.require_running()
        assert host.adapter.main_process() is None
        monkeypatch.setattr(server, "PROGRAMS", (PROGRAM,))
        host.adapter.require_running()
        assert host.adapter.main_process() == os.getpid()

    def test_the_pid_file_may_be_away_for_a_moment(self, host, monkeypatch):
        monkeypatch.setattr(server, "PROGRAMS", (PROGRAM,))
        monkeypatch.setattr(server, "PID_FILE_SECONDS", 5.0)
        threading.Timer(0.1, lambda: host.pid_file.write_text(f"{os.getpid()}\n")).start()
        host.adapter.require_running()

    @pytest.mark.parametrize("program", ["update-exim4.conf", "exim4"])
    @pytest.mark.parametrize("split", [False, True])
    def test_an_edit_that_exim_cannot_read_is_found_before_the_reload_shows_it(self, make, monkeypatch, split, program):
        host = make(SETTINGS.replace("'false'", "'true'") if split else SETTINGS)
        monkeypatch.setattr(server, "_runs", lambda: True)
        source = host.directory / "conf.d/main/02_mine" if split else host.macros
        source.write_text("NO MACRO\n")
        host.generated.write_text("generated\n")
        os.utime(host.generated, ns=(0, source.stat().st_mtime_ns + 1))
        host.answers[(program, "-C" if program == "exim4" else "-o")] = lambda arguments: (
            1, "", f"2026-11-29 13:08:32 Exim configuration error in line 26 of {arguments[2]}:\n  malformed macro definition\n"
        )  # fmt: skip
        host.adapter.require_running()
        assert len(host.calls) == 1, "a configuration that was not edited costs nothing"
        os.utime(host.generated, ns=(0, source.stat().st_mtime_ns - 1))
        with pytest.raises(
            BrokenConfigurationError,
            match=r"exim4 was edited, and Exim cannot read .* malformed macro definition; corr",
        ) as raised:
            host.adapter.require_running()
        assert "2026-11-29" not in str(raised.value)
        host.answers.popitem()
        host.adapter.require_running()

    @pytest.mark.parametrize(("asked", "said"), [("exim_version = 4.98.2\n", []), ("", [["exim4", "-bV"]])])
    def test_the_version(self, host, asked, said):
        host.answers = {
            ("exim4", "-bV"): (0, "Exim version 4.98.2 #2 built 11-Nov-2026 17:36:59\n", ""),
            ("exim4", "-bP"): (0, f"{host.generated}\n{asked}", ""),
        }
        assert host.adapter.version() == "4.98.2"
        assert host.calls[1:] == said
        host.answers[("exim4", "-bV")] = (0, "", "")
        assert host.adapter.version() == ("4.98.2" if asked else "")

    def test_a_whole_read_starts_one_program(self, make, monkeypatch):
        host = make(
            SETTINGS.replace("'internet'", "'satellite'").replace("dc_smarthost=''", "dc_smarthost='gw.example'")
        )
        monkeypatch.setattr(server, "_runs", lambda: True)
        host.answers[("exim4", "-bP")] = (0, f"{host.generated}\n{PRINTED}", "")
        host.apply("disabled", "opportunistic")
        host.calls.clear()
        adapter = host.adapter
        adapter.require_running()
        assert adapter.version() == "4.98.2"
        assert adapter.state() == {"inbound": "disabled", "outbound": "opportunistic"}
        assert not adapter.plan(Desired("disabled", "opportunistic"))
        assert list(adapter.next_hops()) == [Target("gw.example")]
        found = adapter.observe()
        assert [one["host"] for one in found["listeners"]] == ["127.0.0.1"]
        assert [(one["transport"], one["next_hop"]) for one in found["transports"]] == [
            ("remote_smtp", None), ("remote_smtp_smarthost", "gw.example"),
        ]  # fmt: skip
        assert adapter.files() == tuple(map(str, (host.macros, host.settings, host.generated, host.acl)))
        adapter.left()
        assert [call[:3] for call in host.calls] == [["exim4", "-bP", "configure_file"]]

    @pytest.mark.parametrize("call", ["check", "reload", "resume"])
    def test_after_files_were_written_exim_is_asked_again(self, host, monkeypatch, call):
        monkeypatch.setattr(server, "_have_it_read", lambda: None)
        adapter = host.adapter
        adapter.version()
        getattr(adapter, call)()
        host.answers[("exim4", "-bP")] = (0, f"{host.generated}\nexim_version = 5\n", "")
        assert adapter.version() == "5"

    def test_what_the_collection_left(self, host, monkeypatch, tmp_path):
        adapter = host.adapter
        monkeypatch.setattr(server, "Path", lambda path: Path(f"{tmp_path}/root{path}"))
        assert adapter.left() == []
        for name in ("exim4/conf.d/router/050_mailfleet-starttls", "exim4/conf.d/router/100_exim4-config", "mailfleet/starttls.pem",
                     "exim4/mailfleet-starttls/routes", "exim4/mailfleet-require-starttls.acl"):  # fmt: skip
            (tmp_path / "root/etc" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "root/etc" / name).touch()
        assert [path[len(f"{tmp_path}/root") :] for path in adapter.left()] == [
            "/etc/exim4/conf.d/router/050_mailfleet-starttls", "/etc/exim4/mailfleet-require-starttls.acl",
            "/etc/exim4/mailfleet-starttls", "/etc/mailfleet/starttls.pem",
        ]  # fmt: skip


class TestPlan:
    @pytest.mark.parametrize("inbound", ["disabled", "offered", "required", None])
    @pytest.mark.parametrize("outbound", ["disabled", "opportunistic", "required"])
    def test_a_second_run_changes_nothing(self, host, inbound, outbound):
        assert host.apply(inbound, outbound)
        assert not host.plan(inbound, outbound)
        assert host.adapter.state() == {"inbound": inbound or "offered", "outbound": outbound}

    def test_nothing_wanted_is_nothing_changed(self, host):
        assert not host.plan()

    def test_offering_sets_its_macros_and_leaves_every_other_line(self, host):
        text = "# mine\nMAIN_HARDCODE_PRIMARY_HOSTNAME = mx.example\nother = a \\\n  b\n"
        host.macros.write_text(text)
        host.apply("offered")
        assert host.macros.read_text() == text + (
            f"MAIN_TLS_ENABLE = yes\nMAIN_TLS_CERTKEY = {host.certificate}\nMAIN_TLS_ADVERTISE_HOSTS = *\n"
        )

    def test_bytes_that_are_no_text_survive(self, host):
        host.macros.write_bytes(b"# f\xfcr uns\n")
        host.apply("offered")
        assert host.macros.read_bytes().startswith(b"# f\xfcr uns\nMAIN_TLS_ENABLE")

    def test_disabled_advertises_to_nobody(self, host):
        host.apply("offered")
        host.apply("disabled")
        assert host.read()["MAIN_TLS_ADVERTISE_HOSTS"] == ""
        assert host.read()["MAIN_TLS_ENABLE"] == "yes"
        assert host.adapter.state()["inbound"] == "disabled"

    def test_without_a_word_about_tls_exim_offers_it(self, host):
        assert host.adapter.state()["inbound"] == "offered"

    def test_the_generated_file_is_kept_for_the_way_back(self, host):
        host.generated.write_text("generated\n")
        change = host.plan("offered")
        assert [(image.path, image.content) for image in change.kept] == [(str(host.generated), b"generated\n")]
        assert str(host.generated) not in [image.path for image in change.after]

    def test_a_list_of_the_administrators_stays(self, host):
        host.macros.write_text("MAIN_TLS_ENABLE = true\nMAIN_TLS_ADVERTISE_HOSTS = 192.0.2.0/24\n")
        host.apply("offered")
        assert host.read()["MAIN_TLS_ADVERTISE_HOSTS"] == "192.0.2.0/24"
        assert host.read()["MAIN_TLS_ENABLE"] == "true"

    def test_required_puts_plaintext_off_with_an_acl_of_its_own(self, host):
        change = host.apply("required")
        assert host.read()["MAIN_ACL_CHECK_MAIL"] == host.required_macro
        assert str(host.acl) in host.required_macro
        assert "defer message = 430 4.7.0 Must issue a STARTTLS command first\n" in host.acl.read_text()
        assert [image.path for image in change.after] == [str(host.acl), str(host.macros)]
        assert host.adapter.state()["inbound"] == "required"

    @pytest.mark.parametrize("inbound", ["offered", "disabled"])
    def test_required_is_taken_back(self, host, inbound):
        host.apply("required")
        host.apply(inbound)
        assert "MAIN_ACL_CHECK_MAIL" not in host.read()
        assert host.adapter.state()["inbound"] == inbound

    def test_an_access_control_list_of_the_administrators_is_not_replaced(self, host):
        host.macros.write_text("MAIN_ACL_CHECK_MAIL = acl_mine\n")
        with pytest.raises(EngineError, match=r"MAIN_ACL_CHECK_MAIL is already set in .*localmacros.*choose 'offered'"):
            host.plan("required")
        host.apply("offered")
        assert host.read()["MAIN_ACL_CHECK_MAIL"] == "acl_mine"
        host.apply("disabled")
        assert host.read()["MAIN_ACL_CHECK_MAIL"] == "acl_mine"

    GATEWAYS_LIST = "${if and{{!def:tls_in_cipher}{x}}{/etc/x.acl}{MAILFLEET_NEXT_MAIL_ACL}}"

    def test_required_stands_behind_a_gateways_list(self, host):
        text = f"MAIN_ACL_CHECK_MAIL = {self.GATEWAYS_LIST}\nMAILFLEET_NEXT_MAIL_ACL = acl_check_mail\n"
        host.macros.write_text(text)
        assert host.adapter.state()["inbound"] == "offered"
        host.apply("required")
        assert host.read()["MAIN_ACL_CHECK_MAIL"] == self.GATEWAYS_LIST
        assert host.read()["MAILFLEET_NEXT_MAIL_ACL"] == host.required_macro
        assert host.adapter.state()["inbound"] == "required"
        assert not host.plan("required")
        host.apply("offered")
        assert host.read()["MAILFLEET_NEXT_MAIL_ACL"] == "acl_check_mail"
        assert host.macros.read_text().startswith(text)
        assert host.adapter.state()["inbound"] == "offered"

    def test_a_list_of_the_administrators_behind_a_gateways_is_not_replaced(self, host):
        host.macros.write_text(f"MAIN_ACL_CHECK_MAIL = {self.GATEWAYS_LIST}\nMAILFLEET_NEXT_MAIL_ACL = acl_mine\n")
        with pytest.raises(
            EngineError, match=r"^MAILFLEET_NEXT_MAIL_ACL is already set in .*localmacros.*choose 'offered'"
        ):
            host.plan("required")
        for inbound in ("offered", "disabled"):
            host.apply(inbound)
            assert host.read()["MAILFLEET_NEXT_MAIL_ACL"] == "acl_mine"
            assert host.read()["MAIN_ACL_CHECK_MAIL"] == self.GATEWAYS_LIST

    def test_debians_list_by_its_name_is_the_administrators_own_word(self, host):
        host.macros.write_text("MAIN_ACL_CHECK_MAIL = acl_check_mail\n")
        with pytest.raises(EngineError, match=r"^MAIN_ACL_CHECK_MAIL is already set in"):
            host.plan("required")

    def test_the_split_configuration_has_its_own_file(self, make):
        host = make(SETTINGS.replace("split_config='false'", "split_config='true'"))
        host.apply("offered")
        assert not host.macros.exists()
        assert "MAIN_TLS_ENABLE = yes" in (host.directory / "conf.d/main/000_localmacros").read_text()

    @pytest.mark.parametrize("text", ["dc_use_split_config=true\n", 'dc_use_split_config="TRUE"\n'])
    def test_the_split_configuration_in_other_quotes(self, make, text):
        change = make(text).plan("disabled")
        assert change.after[0].path.endswith("conf.d/main/000_localmacros")

    @pytest.mark.parametrize("text", ["", "# dc_use_split_config='true'\n"])
    def test_unsplit_is_what_it_is_otherwise(self, make, text):
        assert make(text).plan("disabled").after[0].path.endswith("exim4.conf.localmacros")

    @pytest.mark.parametrize("kind", ["disabled", "opportunistic", "required"])
    def test_outbound_is_set_on_both_transports(self, host, kind):
        host.macros.write_text("REMOTE_SMTP_HOSTS_AVOID_TLS = *\nREMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS = *\n")
        assert host.adapter.state()["outbound"] == "custom"
        host.apply(None, kind)
        macros = host.read()
        for transport in ("REMOTE_SMTP", "REMOTE_SMTP_SMARTHOST"):
            assert macros.get(f"{transport}_HOSTS_AVOID_TLS") == ("*" if kind == "disabled" else None)
            assert macros.get(f"{transport}_HOSTS_REQUIRE_TLS") == ("*" if kind == "required" else None)
        assert host.adapter.state()["outbound"] == kind

    LISTS = pytest.mark.parametrize(
        "name",
        ["REMOTE_SMTP_HOSTS_AVOID_TLS", "REMOTE_SMTP_SMARTHOST_HOSTS_AVOID_TLS", "REMOTE_SMTP_HOSTS_REQUIRE_TLS",
         "REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS"],
    )  # fmt: skip

    @LISTS
    def test_a_list_of_hosts_stays_with_opportunistic(self, host, name):
        line = f"{name} = old.example : 192.0.2.0/24\n"
        host.macros.write_text(f"# mine\n{line}")
        assert host.adapter.state()["outbound"] == "custom"
        host.apply(None, "opportunistic")
        assert host.macros.read_text().startswith(f"# mine\n{line}")
        assert host.adapter.state()["outbound"] == "opportunistic"
        assert not host.plan(None, "opportunistic")

    @LISTS
    @pytest.mark.parametrize("kind", ["required", "disabled"])
    def test_a_list_of_hosts_is_not_replaced(self, host, name, kind):
        host.macros.write_text(f"{name} = old.example\n")
        with pytest.raises(EngineError) as error:
            host.plan(None, kind)
        assert str(error.value) == (
            f"{name} holds a list of yours (old.example); outbound '{kind}' would replace it. Take it out first, or "
            "choose 'opportunistic', which keeps such exceptions"
        )
        assert host.read() == {name: "old.example"}

    @LISTS
    @pytest.mark.parametrize("kind", ["required", "disabled"])
    def test_with_a_list_of_hosts_the_other_kinds_are_not_reached(self, host, name, kind):
        host.apply(None, kind)
        host.macros.write_text(set_macros(host.macros.read_text(), {name: "old.example"}))
        assert host.adapter.state()["outbound"] == "custom"
        with pytest.raises(EngineError, match="holds a list of yours"):
            host.plan(None, kind)

    @LISTS
    @pytest.mark.parametrize("value", ["*", ""])
    @pytest.mark.parametrize("kind", ["disabled", "opportunistic", "required"])
    def test_all_hosts_or_none_are_no_list(self, host, name, value, kind):
        host.macros.write_text(f"{name} = {value}\n")
        host.apply(None, kind)
        assert host.adapter.state()["outbound"] == kind
        assert not host.plan(None, kind)

    def test_a_list_of_hosts_does_not_concern_the_inbound_side(self, host):
        host.macros.write_text("REMOTE_SMTP_HOSTS_AVOID_TLS = old.example\n")
        host.apply("required")
        assert host.read()["REMOTE_SMTP_HOSTS_AVOID_TLS"] == "old.example"

    def test_the_smarthost_is_not_verified_with_a_fallback_to_plaintext(self, host):
        host.apply(None, "opportunistic")
        assert host.read()["REMOTE_SMTP_SMARTHOST_TLS_VERIFY_HOSTS"] == ""
        assert "REMOTE_SMTP_TLS_VERIFY_HOSTS" not in host.read()

    @pytest.mark.parametrize("kind", ["opportunistic", "required"])
    def test_a_verified_smarthost_stays(self, host, kind):
        text = (
            "REMOTE_SMTP_SMARTHOST_TLS_VERIFY_CERTIFICATES = /etc/ssl/certs/ca.pem\n"
            "REMOTE_SMTP_SMARTHOST_TLS_VERIFY_HOSTS = *\n"
        )
        if kind == "required":
            text += "REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS = *\n"
        host.macros.write_text(text)
        host.apply(None, kind)
        assert host.read()["REMOTE_SMTP_SMARTHOST_TLS_VERIFY_HOSTS"] == "*"
        assert host.adapter.state()["outbound"] == kind

    def test_a_verified_smarthost_stays_verified_when_tls_becomes_required(self, host):
        host.macros.write_text(
            "REMOTE_SMTP_SMARTHOST_TLS_VERIFY_CERTIFICATES = /etc/ssl/certs/ca.pem\n"
            "REMOTE_SMTP_SMARTHOST_TLS_VERIFY_HOSTS = *\n"
        )
        host.apply(None, "required")
        assert host.read()["REMOTE_SMTP_SMARTHOST_TLS_VERIFY_HOSTS"] == "*"

    def test_no_certificate_yet_is_for_the_engine_to_say(self, host):
        host.plan("offered")

    def test_a_certificate_that_exim_cannot_read_is_refused(self, host, monkeypatch):
        host.certificate.write_text("pem")
        monkeypatch.setattr(server, "can_read", lambda *_: False)
        with pytest.raises(EngineError) as error:
            host.plan("offered")
        user = pwd.getpwuid(os.getuid()).pw_name
        assert str(error.value) == (
            f"{host.certificate} cannot be read by {user}, so every handshake would fail; "
            f"make it root:{user} 0640 in a directory that user may enter"
        )
        assert host.plan("disabled")

    def test_a_certificate_that_exim_can_read_is_taken(self, host, monkeypatch):
        host.certificate.write_text("pem")
        asked = []
        monkeypatch.setattr(server, "can_read", lambda *args: asked.append(args) or True)
        assert host.plan("offered")
        [(path, uid, gids)] = asked
        assert (path, uid) == (str(host.certificate), os.getuid())
        assert os.getgid() in gids

    def test_a_file_that_has_to_be_read_for_something_else(self, host, monkeypatch):
        path = host.directory / "ca.pem"
        with pytest.raises(EngineError, match=rf"^there is no file {path} on this host$"):
            host.adapter.require_readable(str(path), "nothing could be checked")
        path.touch()
        host.adapter.require_readable(str(path), "nothing could be checked")
        monkeypatch.setattr(server, "can_read", lambda *_: False)
        with pytest.raises(EngineError) as error:
            host.adapter.require_readable(str(path), "nothing could be checked")
        assert str(error.value) == (
            f"{path} cannot be read by {server.DAEMON_USER}, so nothing could be checked; make it "
            f"root:{server.DAEMON_USER} 0640 in a directory that user may enter"
        )

    def test_a_missing_daemon_user_is_said(self, host, monkeypatch):
        host.certificate.write_text("pem")
        monkeypatch.setattr(server, "DAEMON_USER", "no-such-user-here")
        with pytest.raises(EngineError, match="no-such-user-here"):
            host.plan("offered")


class TestNextHops:
    @pytest.mark.parametrize(
        ("kind", "smarthost", "hops"),
        [
            ("smarthost", "'gw.example'", [Target("gw.example", 25)]),
            ("satellite", "'gw.example::587'", [Target("gw.example", 587)]),
            ("smarthost", '"192.0.2.1::26"', [Target("192.0.2.1", 26)]),
            ("smarthost", "gw.example", [Target("gw.example", 25)]),
            ("smarthost", "'a.example;b.example::26'", [Target("a.example", 25), Target("b.example", 26)]),
            ("smarthost", "'a.example ; b.example'", [Target("a.example", 25), Target("b.example", 25)]),
            ("internet", "'gw.example'", []),
            ("local", "''", []),
        ],
    )
    def test_they_are_the_smarthosts(self, make, kind, smarthost, hops):
        host = make(f"dc_eximconfig_configtype='{kind}'\ndc_smarthost={smarthost}\n")
        assert list(host.adapter.next_hops()) == hops

    @pytest.mark.parametrize(
        ("kind", "has"), [("smarthost", True), ("satellite", True), ("internet", False), ("local", False)]
    )
    def test_whether_there_is_a_smarthost(self, make, kind, has):
        assert make(f'dc_eximconfig_configtype="{kind}"\ndc_smarthost=\n').adapter.has_smarthost is has

    def test_without_a_type_there_are_none(self, make):
        assert list(make("").adapter.next_hops()) == []

    @pytest.mark.parametrize(
        "smarthost", ["", "a b", "gw.example::submission", "gw.example::0", "gw.example::99999", "-x-"]
    )
    def test_what_makes_no_sense_is_said(self, make, smarthost):
        host = make(f"dc_eximconfig_configtype='smarthost'\ndc_smarthost='{smarthost}'\n")
        with pytest.raises(EngineError, match=r"^dc_smarthost in .*update-exim4\.conf\.conf cannot be read: "):
            host.adapter.next_hops()


class TestDaemon:
    def test_the_check_starts_a_daemon_on_a_spare_port_and_ends_it(self, host):
        daemon = []

        def start(arguments):
            process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            daemon.append(process)
            Path(arguments[arguments.index("-oP") + 1]).write_text(f"{process.pid}\n")
            return 0, "", ""

        host.answers[("exim4", "-C")] = lambda arguments: start(arguments) if "-bd" in arguments else (0, "", "")
        adapter = host.adapter
        desired = Desired("disabled")
        adapter.plan(desired)
        reaped = []
        host.trial = lambda planned, target: reaped.append((planned, target))
        waiter = threading.Thread(target=lambda: [_wait_for(daemon), daemon[0].wait()])
        waiter.start()
        adapter.check()
        waiter.join(10)
        assert daemon[0].returncode not in (None, 0)
        [(planned, target)] = reaped
        assert planned is desired
        assert target.host == "127.0.0.1"
        assert [call[0] for call in host.calls] == ["update-exim4.conf", "exim4", "exim4", "exim4"]
        assert f"127.0.0.1.{target.port}" in host.calls[-1]
        generated = host.calls[0][2]
        assert not Path(generated).parent.exists()

    @pytest.mark.parametrize(
        ("words", "marker", "message"),
        [
            (("update-exim4.conf", "-o"), "", "update-exim4.conf refuses the change: bad"),
            (("exim4", "-C"), "-bV", "Exim refuses the change: bad"),
            (("exim4", "-C"), "-bd", "a trial daemon does not start: bad"),
        ],
    )
    @pytest.mark.parametrize("channel", [1, 2])
    def test_what_exim_said_is_in_the_error(self, host, words, marker, message, channel):
        failure = (1, "bad\n", "") if channel == 1 else (1, "", "bad\n")
        host.answers[words] = lambda arguments: failure if not marker or marker in arguments else (0, "", "")
        with pytest.raises(EngineError, match=f"^{message}$"):
            host.adapter.check()

    @pytest.mark.parametrize(("generated", "stale"), [("same", False), ("other", True), ("same\n", True)])
    def test_it_is_stale_when_the_files_make_another_configuration(self, host, generated, stale):
        def generate(arguments):
            Path(arguments[2]).write_text("same")
            return 0, "", ""

        host.answers[("update-exim4.conf", "-o")] = generate
        host.generated.write_text(generated)
        assert host.adapter.is_stale() is stale
        [call] = host.calls
        assert call[2] != str(host.generated)
        assert not Path(call[2]).parent.exists()
        assert host.generated.read_text() == generated

    def test_files_that_make_no_configuration_are_said(self, host):
        host.answers[("update-exim4.conf", "-o")] = (1, "", "bad\n")
        with pytest.raises(EngineError, match=r"^update-exim4\.conf refuses the change: bad$"):
            host.adapter.is_stale()

    def test_a_trial_that_fails_is_said(self, host):
        def trial(_planned, _target):
            raise EngineError("127.0.0.1:4711 does not show the wanted state")

        host.trial = trial
        with pytest.raises(EngineError, match=r"^a trial daemon with the change: 127\.0\.0\.1:4711 does not show"):
            host.adapter.check()

    def test_a_trial_daemon_ends_although_a_signal_came_while_it_was_started(self, host):
        """Exim writes the file with its number after the program that starts it has returned."""
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

        def start(arguments):
            if "-bd" not in arguments:
                return 0, "", ""
            number = Path(arguments[arguments.index("-oP") + 1])
            threading.Timer(0.2, lambda: number.write_text(str(process.pid))).start()
            raise KeyboardInterrupt

        host.answers[("exim4", "-C")] = start
        try:
            with pytest.raises(KeyboardInterrupt):
                host.adapter.check()
            assert process.wait(10) == -15
        finally:
            process.kill()

    @pytest.mark.parametrize("text", [None, "", "nonsense"])
    def test_no_pid_file_means_no_signal(self, tmp_path, text, monkeypatch):
        monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("nothing may be killed"))
        if text is not None:
            (tmp_path / "pid").write_text(text)
        server._end_daemon(str(tmp_path / "pid"))

    def test_a_daemon_that_does_not_listen_is_killed(self, tmp_path, monkeypatch):
        clock = iter(range(0, 100, 2))
        monkeypatch.setattr(server.time, "monotonic", lambda: next(clock))
        process = subprocess.Popen(
            [sys.executable, "-c", "import signal, time; signal.signal(15, 1); print(flush=True); time.sleep(60)"],
            stdout=subprocess.PIPE,
        )
        process.stdout.readline()
        (tmp_path / "pid").write_text(str(process.pid))
        server._end_daemon(str(tmp_path / "pid"))
        monkeypatch.undo()
        assert process.wait(10) == -9

    @pytest.mark.parametrize("there", [True, False])
    def test_a_reload_makes_the_file_then_tells_the_daemon(self, host, monkeypatch, there):
        told = []
        monkeypatch.setattr(server, "_have_it_read", lambda: told.append(len(host.calls)))
        if there:
            host.generated.write_text("former\n")
        host.adapter.reload()
        assert (host.calls, told) == ([["update-exim4.conf"]], [1])

    def test_after_a_check_it_writes_what_was_tried(self, host, monkeypatch):
        told = []
        monkeypatch.setattr(server, "_have_it_read", lambda: told.append(host.generated.read_text()))
        host.generated.write_text("former\n")
        host.generated.chmod(0o640)
        adapter = host.adapter
        adapter.check()
        assert adapter.is_stale()
        host.answers[("update-exim4.conf",)] = (1, "", "nothing is generated again\n")
        adapter.reload()
        assert told == ["generated\n"]
        assert host.generated.stat().st_mode & 0o777 == 0o640
        with pytest.raises(EngineError, match="nothing is generated again"):
            adapter.reload()  # what was tried counts once

    def test_a_configuration_that_was_not_tried_is_not_written(self, host, monkeypatch):
        monkeypatch.setattr(server, "_have_it_read", lambda: None)
        host.generated.write_text("former\n")
        host.trial = lambda *_: (_ for _ in ()).throw(EngineError("no"))
        adapter = host.adapter
        with pytest.raises(EngineError):
            adapter.check()
        adapter.reload()
        assert host.calls[-1] == ["update-exim4.conf"]
        assert host.generated.read_text() == "former\n"

    def test_a_failed_reload_is_said(self, host):
        host.answers[("update-exim4.conf",)] = (1, "", "bad\n")
        with pytest.raises(EngineError, match=r"^update-exim4\.conf failed: bad$"):
            host.adapter.reload()

    def test_resuming_is_a_signal_only(self, host, monkeypatch):
        signals = []
        pretend_daemon(monkeypatch, lambda *args: signals.append(args))
        host.pid_file.write_text("4711\n")
        host.adapter.resume()
        assert signals == [(4711, signal.SIGHUP)]
        assert host.calls == []

    @pytest.mark.parametrize("text", [None, "", "nonsense\n", "0\n", "-1\n", "1\n", "4711 4712\n", "1e3\n"])
    def test_no_daemon_no_signal(self, host, monkeypatch, text):
        """Process 0 and those below it are groups of processes, 1 is init."""
        monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("nothing may be signalled"))
        if text is not None:
            host.pid_file.write_text(text)
        with pytest.raises(
            EngineError, match=r"^Exim cannot be told to read its configuration again \(.*exim\.pid\): "
        ):
            host.adapter.resume()

    def _is_told(self, host, victim):
        """Whether a process is signalled because the pid file names it."""
        host.pid_file.write_text(f"{victim.pid}\n")
        try:
            host.adapter.resume()
        except EngineError as error:
            assert str(error).startswith("Exim cannot be told to read its configuration again"), error
            assert victim.poll() is None
            return False
        assert victim.wait(10) == -signal.SIGHUP
        return True

    def test_another_process_that_the_pid_file_names_is_not_signalled(self, host):
        """Exim's user owns the directory of the pid file, and can write any number into it."""
        with sleeping() as victim:
            assert not self._is_told(host, victim)

    @needs_root
    @pytest.mark.parametrize(("owner", "told"), [(UID, True), (0, False), (1, False)])
    def test_only_what_exims_user_could_signal_is_signalled(self, host, monkeypatch, owner, told):
        monkeypatch.setattr(server, "DAEMON_USER", pwd.getpwuid(UID).pw_name)
        with sleeping("exim4", owner) as victim:
            assert self._is_told(host, victim) is told
            assert (host.adapter.main_process() == victim.pid) is (told and victim.poll() is None)

    def test_a_program_that_runs_with_the_rights_of_root_is_not_signalled(self, host, monkeypatch):
        """Anybody can start Exim, which then has two users: the own one and root."""
        both = Process(4711, 1, frozenset({os.getuid(), os.getuid() + 1}), "/usr/sbin/exim4", "exim4")
        monkeypatch.setattr(server, "process_of", lambda _pid: both)
        monkeypatch.setattr(server, "send_signal", lambda *_: pytest.fail("nothing may be signalled"))
        host.pid_file.write_text("4711\n")
        with pytest.raises(EngineError, match="process 4711 is not the daemon of Exim"):
            host.adapter.resume()

    def test_a_pid_file_that_is_none_holds_nobody(self, host, tmp_path):
        with sleeping("exim4") as victim:
            (tmp_path / "other").write_text(f"{victim.pid}\n")
            for make in (
                lambda: os.mkfifo(host.pid_file),
                lambda: host.pid_file.symlink_to("/dev/zero"),
                host.pid_file.mkdir,
                lambda: host.pid_file.write_text(f"{victim.pid}" + "\n" * 100),
            ):
                make()
                with at_most(10), pytest.raises(EngineError, match="Exim cannot be told"):
                    host.adapter.resume()
                assert host.adapter.main_process() is None
                host.pid_file.rmdir() if host.pid_file.is_dir() else host.pid_file.unlink()
            assert victim.poll() is None

    def test_the_words_of_another_process_say_nothing_of_listeners(self, host):
        host.answers[("exim4", "-bP")] = (0, f"{host.generated}\n{PRINTED}", "")
        ports = [one["port"] for one in host.adapter.observe()["listeners"]]
        liar = subprocess.Popen(["sh", "-c", "sleep 60; :", "-oX", "127.0.0.1.2525"], start_new_session=True)
        try:
            await_words(liar.pid, "sh\0")
            host.pid_file.write_text(f"{liar.pid}\n")
            found = [one["port"] for one in host.adapter.observe()["listeners"]]
        finally:
            os.killpg(liar.pid, signal.SIGKILL)
            liar.wait()
        assert found == ports

    @pytest.mark.parametrize("text", [None, "", "nonsense\n", f"{2**22 + 1}\n"])
    def test_a_daemon_that_cannot_be_found_is_said(self, host, text):
        if text is not None:
            host.pid_file.write_text(text)
        with pytest.raises(
            EngineError, match=r"^Exim cannot be told to read its configuration again \(.*exim\.pid\): "
        ):
            host.adapter.resume()


class TestTransaction:
    """A change of this adapter by the engine: what is put back, and how the daemon hears of it."""

    GENERATED = "generated from the old macros\n"

    @pytest.fixture
    def transaction(self, host, monkeypatch):
        """A host with its daemon running, and the way to make a change on it that is proved by what is given."""
        host.macros.write_text("# mine\n")
        host.generated.write_text(self.GENERATED)
        host.pid_file.write_text("4711\n")
        host.signals, host.proofs = [], []
        pretend_daemon(monkeypatch, lambda *args: host.signals.append((*args, host.generated.read_text())))
        host.answers[("update-exim4.conf", "-o")] = lambda arguments: (
            Path(arguments[2]).write_text("generated from the new macros\n") and (0, "", "")
        )

        def apply(prove=lambda: None):
            adapter = host.adapter
            change = adapter.plan(Desired("offered", certificate=str(host.certificate)))
            assert [image.path for image in change.kept] == [str(host.generated)]
            assert [image.content for image in change.kept] == [self.GENERATED.encode()]
            with Transaction(adapter, str(host.directory / "store")).locked() as transaction:
                transaction.apply(change, prove, lambda: host.proofs.append(host.macros.read_text()))

        host.make_change = apply
        return host

    def test_success(self, transaction):
        transaction.make_change()
        assert "MAIN_TLS_ENABLE = yes" in transaction.macros.read_text()
        assert transaction.generated.read_text() == "generated from the new macros\n"
        assert [call[:2] for call in transaction.calls if call[0] != "exim4"] == [["update-exim4.conf", "-o"]]
        assert transaction.signals == [(4711, signal.SIGHUP, "generated from the new macros\n")]
        assert transaction.proofs == []

    @pytest.mark.parametrize("words", [("update-exim4.conf", "-o"), ("exim4", "-C")])
    def test_a_check_that_fails_puts_the_files_back_and_leaves_the_daemon_alone(self, transaction, words):
        transaction.answers = {words: (1, "", "bad"), **{k: v for k, v in transaction.answers.items() if k != words}}
        with pytest.raises(TransactionError, match="refuses the change: bad") as error:
            transaction.make_change()
        assert error.value.restored
        assert transaction.macros.read_text() == "# mine\n"
        assert transaction.generated.read_text() == self.GENERATED
        assert ["update-exim4.conf"] not in transaction.calls
        assert not [call for call in transaction.calls if call[0] == "systemctl"]
        assert transaction.signals == []
        assert transaction.proofs == ["# mine\n"]

    def test_a_proof_that_fails_puts_the_generated_file_back_too_and_sends_a_signal(self, transaction):
        def prove():
            assert transaction.generated.read_text() == "generated from the new macros\n"
            raise EngineError("no STARTTLS to be seen")

        with pytest.raises(TransactionError, match=r"^no STARTTLS to be seen\. The former state is restored") as error:
            transaction.make_change(prove)
        assert error.value.restored
        assert transaction.macros.read_text() == "# mine\n"
        assert transaction.generated.read_text() == self.GENERATED
        # Its file was there again when the daemon was told, and nothing generated it anew.
        assert transaction.signals[1:] == [(4711, signal.SIGHUP, self.GENERATED)]
        assert ["update-exim4.conf"] not in transaction.calls
        assert transaction.proofs == ["# mine\n"]

    def test_so_does_a_reload_that_fails(self, transaction, monkeypatch):
        def kill(*args):
            transaction.signals.append((*args, transaction.generated.read_text()))
            if len(transaction.signals) == 1:
                raise PermissionError(1, "Operation not permitted")

        pretend_daemon(monkeypatch, kill)
        with pytest.raises(
            TransactionError, match=r"^Exim cannot be told to read .*Operation not permitted\. "
        ) as error:
            transaction.make_change()
        assert error.value.restored
        assert transaction.generated.read_text() == self.GENERATED
        assert transaction.signals[1:] == [(4711, signal.SIGHUP, self.GENERATED)]

    def test_a_daemon_that_is_gone_is_no_success_of_going_back(self, transaction):
        def prove():
            transaction.pid_file.unlink()
            raise EngineError("no answer")

        with pytest.raises(TransactionError, match="The rollback failed as well: Exim is not running") as error:
            transaction.make_change(prove)
        assert not error.value.restored
        assert transaction.generated.read_text() == self.GENERATED
        assert transaction.macros.read_text() == "# mine\n"


def _wait_for(items):
    while not items:
        time.sleep(0.01)
