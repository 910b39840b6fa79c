"""A host that is not to be changed: what somebody else has to write, in the words of the file."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_reading import _left_to_others
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

MAIN_CF = {
    "path": "/etc/postfix/main.cf",
    "lines": "--- before: /etc/postfix/main.cf\n+++ after: /etc/postfix/main.cf\n-smtpd_tls_cert_file = /old.pem\n"
    "+# a note\n+smtpd_tls_security_level = may\n+smtpd_tls_chain_files = /etc/mailfleet/starttls.pem\n",
}
CERTIFICATE = {"path": Desired().certificate, "prepared": "..."}


class Placed:
    """A server whose lines have places."""

    def __init__(self, said):
        self.said = said

    def by_hand(self, _desired):
        if not self.said:
            raise EngineError("cannot be told")
        return self.said


def said(changes, server=None, reload=False, of_peers=()):
    found = _left_to_others(
        {"changes": changes, "reload": reload}, {"peer_changes": of_peers}, server, Desired("offered")
    )
    assert [one["code"] for one in found] == ["settings_only"] * bool(found)
    return found[0]["message"] if found else ""


def test_nothing_is_missing():
    assert said([]) == ""


def test_the_settings_of_each_file():
    assert said([CERTIFICATE, MAIN_CF]) == (
        "nothing is changed here; install the certificate at /etc/mailfleet/starttls.pem; then write into /etc/postfix/main.cf: "
        "smtpd_tls_security_level = may; smtpd_tls_chain_files = /etc/mailfleet/starttls.pem; then take out of /etc/postfix/main.cf: "
        "smtpd_tls_cert_file = /old.pem"
    )
    assert "write into /etc/postfix/main.cf" in said([], of_peers=[MAIN_CF])


def test_a_server_may_say_where_its_lines_belong():
    assert "write into /etc/postfix/main.cf: in the transport out: x = 1; then" in said(
        [MAIN_CF], Placed("in the transport out: x = 1")
    )
    assert "smtpd_tls_security_level = may" in said([MAIN_CF], Placed(""))


@pytest.mark.parametrize(("outbound", "asked"), [("opportunistic", 1), ("required", 1), ("disabled", 0)])
def test_a_server_is_asked_for_the_outbound_lines_alone_too(outbound, asked):
    wanted = Desired(None, outbound)
    [found] = _left_to_others({"changes": [MAIN_CF]}, {}, Placed("in the transport out: x = 1"), wanted)
    assert found["message"].count("in the transport out: x = 1") == asked


def test_a_certificate_that_is_not_served_yet_needs_a_reload():
    assert said([], reload=True) == "nothing is changed here; reload the mail server"
