"""A certificate is removed only when nothing uses it."""

from __future__ import annotations

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.certificates import removal
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import observe

from tests.support.exchange_organisation import (
    INTERNAL,
    NEW,
    PUBLIC,
    StrictExchange,
    certificate,
    organisation,
    receive,
    send,
)

PAIR = "<I>CN=Authority 1<S>CN=mail.example.com"


def certificates(**old):
    return [
        certificate(INTERNAL, "CN=EX1", "CN=EX1", ["EX1"], "IIS, SMTP"),
        {**certificate(PUBLIC, "CN=mail.example.com", "CN=Authority 1", ["mail.example.com"]), **old},
        certificate(NEW, "CN=mail.example.com", "CN=Authority 1", ["mail.example.com"]),
    ]


def removed(**parts):
    return removal(observe(organisation(**{"ExchangeCertificates": certificates(), **parts})), PUBLIC)


def test_one_that_nobody_names_goes_at_once():
    done = removed()
    assert [call.cmdlet for call in done.calls] == ["Remove-ExchangeCertificate"] and done.reason == ""


def test_one_that_is_gone_needs_nothing():
    done = removed(ExchangeCertificates=certificates()[::2])
    assert done.calls == () and done.reason == ""


def test_names_with_the_same_issuer_and_subject_are_taken_away_and_put_back():
    found = organisation(
        ExchangeCertificates=certificates(),
        ReceiveConnectors=[receive("a", TlsCertificateName=PAIR)],
        SendConnectors=[
            send(TlsCertificateName=PAIR, RequireTLS=True, TlsAuthLevel="EncryptionOnly"),
            send("b", TlsCertificateName=PAIR.upper()),
        ],
    )
    strict = StrictExchange(found)
    strict.run(one.to_json() for one in removal(observe(found), PUBLIC).calls)
    assert strict.state["SendConnectors"] == found["SendConnectors"]
    assert strict.state["ReceiveConnectors"] == found["ReceiveConnectors"]
    assert [one["Thumbprint"] for one in strict.state["ExchangeCertificates"]] == [INTERNAL, NEW]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"TransportService": {"InternalTransportCertificateThumbprint": PUBLIC}},
            "it is the internal transport certificate",
        ),
        ({"TransportService": {}}, "internal transport certificate could not be read"),
        ({"ExchangeCertificates": certificates(Services="IIS, SMTP")}, "IIS may use it"),
        ({"ExchangeCertificates": certificates(Unknown=["Services"])}, "Services of certificate"),
        ({"ExchangeCertificates": None}, "Get-ExchangeCertificate could not be read"),
        ({"ExchangeCertificates": certificates()[1:2]}, "no other certificate serves SMTP"),
        (
            {"ExchangeCertificates": [{**certificates()[0], "Services": "IIS"}, certificates()[1]]},
            "no other certificate serves SMTP",
        ),
        ({"SendConnectors": None}, "Get-SendConnector could not be read"),
        ({"ReceiveConnectors": None}, "Get-ReceiveConnector could not be read"),
        (
            {"ExchangeCertificates": certificates()[:2], "ReceiveConnectors": [receive("a", TlsCertificateName=PAIR)]},
            "EX1\\a still names it",
        ),
        (
            {"ExchangeCertificates": certificates()[:2], "SendConnectors": [send(TlsCertificateName=PAIR)]},
            "To the internet still names it",
        ),
    ],
)
def test_one_that_something_uses_or_may_use_stays(parts, words):
    done = removed(**parts)
    assert done.calls == () and words in done.reason and PUBLIC in done.reason


def test_a_namesake_that_would_not_be_served_does_not_stand_in():
    every = certificates()
    every[2]["Status"] = "RevocationCheckFailure"
    done = removed(ExchangeCertificates=every, ReceiveConnectors=[receive("a", TlsCertificateName=PAIR)])
    assert done.calls == () and "still names it" in done.reason
