"""Log files lie in directories of the daemons' users, who may put something else there."""

import os

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_files import end_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import LogPlaces, journal_match
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.recent_log import recent_log
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

JOURNAL = ["a line of the journal", ""]


def of(path):
    """The places of a log with this file, whose entries are in the journal as well."""
    return LogPlaces((), (str(path),), (journal_match("mail"),))


def journal(words):
    assert words[0] == "journalctl"
    return 0, "\n".join(JOURNAL), ""


@pytest.mark.parametrize(
    ("most", "lines"), [(100, "one\ntwo\nthree\n"), (14, "one\ntwo\nthree\n"), (13, "two\nthree\n"), (7, "three\n")]
)
def test_the_end_of_a_log_begins_with_a_whole_line(tmp_path, most, lines):
    (tmp_path / "log").write_text("one\ntwo\nthree\n")
    assert end_of(str(tmp_path / "log"), most) == lines


def test_a_pipe_is_no_log_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "log")
    with pytest.raises(EngineError, match="is not a file"):
        end_of(str(tmp_path / "log"), 100)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to somebody else")
def test_the_link_of_a_daemons_user_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text("a secret of root\n")
    (tmp_path / "log").symlink_to(tmp_path / "secret")
    os.lchown(tmp_path / "log", 65534, 65534)
    with pytest.raises(EngineError):
        end_of(str(tmp_path / "log"), 100)
    assert recent_log(journal, of(tmp_path / "log")) == JOURNAL


def test_the_journal_is_read_where_there_is_no_file(tmp_path):
    assert recent_log(journal, of(tmp_path / "log")) == JOURNAL
    assert recent_log(lambda words: (1, "", "no journal"), of(tmp_path / "log")) == []
