"""Why a message waits, from the words that real daemons wrote into their queues."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.deferred import (
    NEXT_HOP,
    THIS_HOST,
    WAIT_CAUSES,
    cause_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.replies import ENFORCED_SENDER

POSTFIX_SAID = "host gw1.example[192.0.2.1] said: {} (in reply to MAIL FROM command)"
EXIM_SAID = (
    "you@b.example R=smarthost T=remote_smtp_smarthost defer (0) H=gw1.example [192.0.2.1]: SMTP error from remote mail server "
    "after MAIL FROM:<me@a.example>: {}"
)
EXIM = "you@b.example R=smarthost T=remote_smtp_smarthost defer (-38) H=gw1.example [192.0.2.1]: "
OWN = [
    ("not_offered", "TLS is required, but was not offered by host gw1.example[192.0.2.1]"),
    (
        "not_offered",
        "delivery temporarily suspended: TLS is required, but was not offered by host gw1.example[192.0.2.1]",
    ),
    ("not_offered", EXIM + "a TLS session is required, but the server did not offer TLS support"),
    ("not_offered", "H=gw1.example [192.0.2.1]: a TLS session is required, but the server did not offer TLS support"),
    (
        "handshake_failed",
        "TLS is required, but host gw1.example[192.0.2.1] refused to start TLS: 454 4.7.0 TLS not available",
    ),
    ("handshake_failed", "Cannot start TLS: handshake failure"),
    ("handshake_failed", EXIM + "a TLS session is required, but an attempt to start TLS failed"),
    ("handshake_failed", EXIM + "TLS session: (gnutls_handshake): Error in the pull function."),
    ("handshake_failed", EXIM + "SMTP error from remote mail server after STARTTLS: 454 4.7.0 TLS not available"),
    ("certificate", "Server certificate not trusted"),
    ("certificate", "Server certificate not verified"),
    ("certificate", EXIM + "TLS session: (certificate verification failed): certificate invalid"),
    ("certificate", EXIM + "TLS session: (certificate verification failed)"),
    ("tls_unavailable", "TLS is required, but our TLS engine is unavailable"),
    ("not_tried", ""),
    ("unknown", "connect to gw1.example[192.0.2.1]:25: Connection refused"),
    ("unknown", EXIM + "Connection refused"),
    ("unknown", "you@b.example R=smarthost T=x defer (-54): retry time not reached for any host for 'b.example'"),
]
REPLIES = [
    ("peer_requires", "451 5.7.3 STARTTLS is required to send mail"),
    ("peer_requires", "530 5.7.0 Must issue a STARTTLS command first"),
    ("peer_requires", "430 5.7.0 Must issue a STARTTLS command first"),
    ("peer_requires", "450 4.7.10 <me@a.example>: Sender address rejected: STARTTLS is required"),
    ("enforced_sender", f"451 4.7.0 {ENFORCED_SENDER}"),
    ("enforced_sender", f"450 4.7.0 <me@a.example>: Sender address rejected: {ENFORCED_SENDER}"),
    ("greylisted", "450 4.2.0 <you@b.example>: Recipient address rejected: Greylisted, see http://example.com/help"),
    ("greylisted", "451 4.7.1 Grey-listing in action, please come back later"),
    ("not_relayed", "454 4.7.1 <you@b.example>: Relay access denied"),
    ("not_relayed", "550 relay not permitted"),
    ("not_relayed", "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain"),
    ("unknown", "421 4.3.2 Service not active"),
    ("unknown", "450 4.3.0 try again later"),
]


@pytest.mark.parametrize(("code", "reason"), OWN)
def test_the_daemons_own_words(code, reason):
    assert cause_of(reason).code == code


@pytest.mark.parametrize("form", [POSTFIX_SAID, EXIM_SAID], ids=["postfix", "exim"])
@pytest.mark.parametrize(("code", "reply"), REPLIES)
def test_what_the_other_server_said(form, code, reply):
    assert cause_of(form.format(reply)).code == code


@pytest.mark.parametrize("form", [POSTFIX_SAID, EXIM_SAID], ids=["postfix", "exim"])
@pytest.mark.parametrize("forged", [reason for code, reason in OWN if WAIT_CAUSES[code].tls])
def test_the_other_server_cannot_speak_for_the_daemon(form, forged):
    """A reply that repeats the daemon's words is a reply."""
    found = cause_of(form.format(f"450 4.3.0 {forged}")).code
    assert found in ("unknown", "handshake_failed" if "STARTTLS: 454" in forged and form == EXIM_SAID else "unknown")


@pytest.mark.parametrize(
    "form",
    [
        "host gw1.example[192.0.2.1] refused to talk to me: 421 4.3.0 {}",
        "temporary failure. Command output: {}",
        'Command time limit exceeded: "sleep 9999 # {}"',
        "R=system_aliases T=address_pipe defer (0): Child process of address_pipe transport: {}",
    ],
    ids=["greeting", "output", "command", "pipe"],
)
@pytest.mark.parametrize(
    "forged", [reason for code, reason in OWN if WAIT_CAUSES[code].tls and " after STARTTLS" not in reason]
)
def test_only_the_beginning_is_the_daemons(form, forged):
    """A server greets with such words, or the command of a user prints them or has them as its words."""
    assert cause_of(form.format(forged)).code == "unknown"


def test_which_side_has_to_be_repaired():
    sides = {code: one.side for code, one in WAIT_CAUSES.items() if one.tls}
    assert sides == {
        "not_offered": NEXT_HOP, "handshake_failed": NEXT_HOP, "certificate": NEXT_HOP, "tls_unavailable": THIS_HOST,
        "peer_requires": THIS_HOST, "enforced_sender": THIS_HOST,
    }  # fmt: skip
    assert not any(one.side for one in WAIT_CAUSES.values() if not one.tls)


def test_long_words_take_little_time():
    for text in (
        "host " * 20000,
        "451 " * 20000,
        "TLS session: (SSL_connect): " + ":" * 80000,
        "x said: " + "<>: " * 20000,
    ):
        assert cause_of(text).code in WAIT_CAUSES
