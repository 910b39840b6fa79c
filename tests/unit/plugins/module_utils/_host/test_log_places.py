"""Where a daemon's log is, as the daemon and rsyslog say it."""

import fnmatch

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log_places import log_places as of_exim
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import log_places
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import (
    journal_match,
    syslog_file,
    with_rotated,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.log_places import log_places as of_postfix

USUAL = ("/var/log/mail.log*",)


@pytest.fixture
def rsyslog(tmp_path, monkeypatch):
    """Writes the configuration of rsyslog. Without one there is none."""
    path = tmp_path / "rsyslog.conf"
    monkeypatch.setattr(log_places, "RSYSLOG", (str(path), str(tmp_path / "rsyslog.d/*.conf")))
    return path.write_text


DEBIAN = """\
module(load="imuxsock")
*.*;auth,authpriv.none\t\t-/var/log/syslog
mail.*\t\t\t\t-/var/log/mail.log
"""


@pytest.mark.parametrize(
    ("rules", "facility", "file"),
    [
        (DEBIAN, "mail", "/var/log/mail.log"),
        (DEBIAN, "local3", "/var/log/syslog"),
        (DEBIAN, "authpriv", ""),
        (
            "mail.warn /var/log/mail.warn\nmail.err /var/log/mail.err\nmail.info -/var/log/mail.info\n",
            "mail",
            "/var/log/mail.info",
        ),
        ("mail.info /var/log/mail.info\nmail.* /var/log/mail.log\n", "mail", "/var/log/mail.log"),
        ("*.*;mail.none /var/log/syslog\n", "mail", ""),
        ("mail,news.* /var/log/both;RSYSLOG_FileFormat\n", "mail", "/var/log/both"),
        ('mail.* action(type="omfile" dirCreateMode="0700" file="/srv/log/mail")\n', "mail", "/srv/log/mail"),
        ("mail.* @loghost.example.com\n", "mail", ""),
        ("mail.* ?perhost\n#mail.* /var/log/mail.log\n", "mail", ""),
        ("MAIL.* /var/log/mail.log\n", "mail", "/var/log/mail.log"),
        ("x" * 5000 + ".* /a\n" + "a.b;" * 5000 + "\n", "mail", ""),
        ("", "mail", ""),
    ],
)
def test_the_file_in_which_rsyslog_keeps_a_facility(rsyslog, rules, facility, file):
    rsyslog(rules)
    assert syslog_file(facility) == file


def test_a_host_without_rsyslog_has_no_such_file(rsyslog):
    assert syslog_file("mail") == ""
    assert of_postfix({"/etc/postfix": {}}, USUAL).patterns == USUAL


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("mail", True), ("mail.1", True), ("mail.2.gz", True), ("mail-20260131", True), ("mail.20260131-060000.gz", True),
        ("mail.log", False), ("mail.info", False), ("mailer", False), ("mail-old", False),
    ],
)  # fmt: skip
def test_only_the_rotated_ones_of_a_file_belong_to_it(name, counts):
    assert any(fnmatch.fnmatchcase(f"/var/log/{name}", pattern) for pattern in with_rotated("/var/log/mail")) is counts


def test_a_name_is_no_pattern():
    assert with_rotated("/srv/[a]*?/log")[0] == "/srv/[[]a][*][?]/log"


def test_a_facility_has_its_number_in_the_journal():
    assert [journal_match(one) for one in ("mail", "local3", "nonsense")] == [
        "SYSLOG_FACILITY=2", "SYSLOG_FACILITY=19", "SYSLOG_FACILITY=2",
    ]  # fmt: skip


# Postfix


def test_postfix_logs_to_a_file_of_its_own(rsyslog):
    rsyslog(DEBIAN)
    places = of_postfix({"/etc/postfix": {"maillog_file": "/var/log/postfix.log", "syslog_facility": "mail"}}, USUAL)
    assert places.files == ("/var/log/postfix.log",)
    assert (places.journal, places.unread) == ((), ())
    assert "/var/log/mail.log" not in " ".join(places.patterns)


def test_instances_that_share_a_file_have_it_once(rsyslog):
    rsyslog(DEBIAN)
    own = {"maillog_file": "/var/log/postfix.log", "syslog_facility": "mail"}
    places = of_postfix({"/etc/postfix": own, "/etc/postfix-two": own}, USUAL)
    assert places.patterns == with_rotated("/var/log/postfix.log")


def test_instances_that_log_apart_are_all_read(rsyslog):
    rsyslog(DEBIAN + "local3.* /var/log/second.log\n")
    places = of_postfix(
        {
            "/etc/postfix": {"maillog_file": "/var/log/postfix.log", "syslog_facility": "mail"},
            "/etc/postfix-two": {"maillog_file": "", "syslog_facility": "local3"},
        },
        USUAL,
    )
    assert places.files == ("/var/log/postfix.log", "/var/log/second.log")
    assert places.journal == ("SYSLOG_FACILITY=19",)


def test_an_instance_whose_log_is_in_the_journal_only_is_named(rsyslog, tmp_path):
    rsyslog("")
    (tmp_path / "postfix.log").write_text("a line\n")
    places = of_postfix(
        {
            "/etc/postfix": {"maillog_file": f"{tmp_path}/postfix.log", "syslog_facility": "mail"},
            "/etc/postfix-two": {"maillog_file": "", "syslog_facility": "local3"},
        },
        USUAL,
    )
    [said] = places.unread
    assert said.startswith("Postfix in /etc/postfix-two logs to the journal only")
    assert "journal: 'true'" in said


@pytest.mark.parametrize("file", ["/dev/stdout", "relative.log"])
def test_a_log_of_postfix_that_cannot_be_read_is_named(rsyslog, file):
    places = of_postfix({"/etc/postfix": {"maillog_file": file, "syslog_facility": "mail"}}, USUAL)
    [said] = places.unread
    assert f"logs to {file} (maillog_file)" in said
    assert places.patterns == ()


def test_what_was_logged_to_syslog_before_the_setting_changed_counts_as_well(rsyslog, tmp_path):
    rsyslog(DEBIAN)
    (tmp_path / "main.cf").write_text("")
    changed = (tmp_path / "main.cf").stat().st_mtime
    settings = {str(tmp_path): {"maillog_file": "/var/log/postfix.log", "syslog_facility": "mail"}}
    earlier = of_postfix(settings, USUAL, changed - 3600)
    assert set(earlier.patterns) == {*with_rotated("/var/log/postfix.log"), *with_rotated("/var/log/mail.log")}
    assert earlier.files == ("/var/log/postfix.log",)
    assert of_postfix(settings, USUAL, changed + 1).patterns == with_rotated("/var/log/postfix.log")


# Exim


@pytest.mark.parametrize(
    ("path", "patterns"),
    [
        ("/var/log/exim4/%slog", with_rotated("/var/log/exim4/mainlog")),
        ("syslog:/srv/log/exim_%s", with_rotated("/srv/log/exim_main")),
        ("<; syslog ; /srv/log/exim_%s", with_rotated("/srv/log/exim_main")),
        ("/srv/log/%slog-%D", ("/srv/log/mainlog-[0-9]*",)),
        ("", USUAL),
        (":syslog", USUAL),
        ("syslog", with_rotated("/var/log/mail.log")),
        ("exim_%s", ()),
    ],
)
def test_where_exim_logs_to(rsyslog, path, patterns):
    rsyslog(DEBIAN)
    places = of_exim({"log_file_path": path, "syslog_facility": "", "syslog_processname": "exim"}, USUAL)
    assert places.patterns == patterns
    assert places.journal == ("SYSLOG_IDENTIFIER=exim", "SYSLOG_IDENTIFIER=exim4")
    assert bool(places.unread) is (path == "exim_%s")


def test_exim_in_syslog_only_and_no_rsyslog_is_in_the_journal(rsyslog):
    places = of_exim({"log_file_path": "syslog", "syslog_facility": "local1", "syslog_processname": "mx"}, USUAL)
    assert (places.patterns, places.files) == ((), ())
    assert places.journal[0] == "SYSLOG_IDENTIFIER=mx"
