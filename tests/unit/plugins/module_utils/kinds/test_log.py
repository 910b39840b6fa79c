"""Each kind with a log has its reader, which looks where the platform's package logs to."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import Tally
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log import EximLog
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.log import PostfixLog
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.log import LOGS


@pytest.mark.parametrize(
    ("kind", "reader", "logs"),
    [("postfix", PostfixLog, "/var/log/mail.log*"), ("exim", EximLog, "/var/log/exim4/mainlog*")],
)
def test_each_kind_has_its_reader(kind, reader, logs):
    made = LOGS[kind](Tally(1), 0.0, 1.0, lambda _words: (1, "", "not here"))
    assert type(made) is reader
    assert list(made.globs) == [logs]
