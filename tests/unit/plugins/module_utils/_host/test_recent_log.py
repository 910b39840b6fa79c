"""The end of a log, and a daemon's own last words in it. Lines as Postfix 3.10 and Exim 4.98 write them."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import daemon as exim
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import LogPlaces
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.recent_log import last_words
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import server as postfix

NOBODY = (1, "", "")
OF_POSTFIX = """\
2026-11-30T07:00:00.1+00:00 mx postfix/smtpd[9]: warning: error opening chain file: /etc/mailfleet/starttls.pem: No such file or directory
2026-11-30T07:00:00.2+00:00 mx postfix/smtpd[9]: connect from unknown[192.0.2.1]
2026-11-30T07:00:00.3+00:00 mx postfix/smtpd[9]: warning: hostname cannot get does not resolve to address 192.0.2.1
"""
OF_EXIM = """\
2026-11-30 07:00:00 TLS error on connection from [127.0.0.1] (cert/key setup: file=/etc/mail.pem): error:0200100D:Permission denied
2026-11-30 07:00:01 TLS error on connection from (x (cert/key setup: forged) [192.0.2.1] (SSL_accept): error:0A000126
2026-11-30 07:00:01 no host name found for IP address 192.0.2.1
"""


@pytest.fixture
def log(tmp_path):
    def written(text):
        (tmp_path / "log").write_text(text)
        return LogPlaces((), (f"{tmp_path}/log",), ())

    return written


def test_the_words_of_postfix(log):
    said = last_words(lambda _command: NOBODY, log(OF_POSTFIX), postfix._TLS_WORDS)
    assert said == "error opening chain file: /etc/mailfleet/starttls.pem: No such file or directory"


def test_the_words_of_exim_and_not_those_of_a_peer(log):
    said = last_words(lambda _command: NOBODY, log(OF_EXIM), exim.TLS_WORDS)
    assert said == "cert/key setup: file=/etc/mail.pem): error:0200100D:Permission denied"


@pytest.mark.parametrize("text", ["", "nothing of it\n"])
def test_a_log_without_them(log, text):
    assert last_words(lambda _command: NOBODY, log(text), postfix._TLS_WORDS) == ""
    assert last_words(lambda _command: NOBODY, LogPlaces((), (), ()), postfix._TLS_WORDS) == ""


def test_long_words_are_cut(log):
    text = f"x postfix/smtpd[9]: warning: cannot get {'x' * 5000}\n"
    assert len(last_words(lambda _command: NOBODY, log(text), postfix._TLS_WORDS)) == 300
