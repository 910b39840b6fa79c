"""The queues of Exchange as deferred_mail_info shows them, and Retry-Queue."""

from __future__ import annotations

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.queues import read_queues, try_queues

from tests.support.exchange_host import ExchangeHost
from tests.support.exchange_organisation import queue

NO_STARTTLS = "[{LED=451 5.7.3 STARTTLS is required to send mail};{MSG=};{FQDN=gw1.example.com};{IP=192.0.2.1};{LRT=1/1/2026 1:00:00 AM}]"
BAD_CERTIFICATE = (
    "[{LED=454 4.7.5 Certificate validation failure, Reason:UntrustedRoot};{MSG=UntrustedRoot};{FQDN=x};{IP=192.0.2.1}]"
)


def server(tmp_path, *queues, **more):
    host = ExchangeHost(Queues=list(queues), **more)
    return host, host.task(tmp_path).server


@pytest.mark.parametrize(
    ("error", "cause", "for_tls"),
    [
        (NO_STARTTLS, "not_offered", True),
        (BAD_CERTIFICATE, "certificate", True),
        (
            "454 4.7.5 The certificate specified in TlsCertificateName of the SendConnector could not be found",
            "tls_unavailable",
            True,
        ),
        ("451 4.4.0 DNS query failed", "unknown", False),
        ("", "not_tried", False),
    ],
)
def test_what_waits_and_why(tmp_path, error, cause, for_tls):
    _host, one = server(tmp_path, queue(LastError=error, MessageCount=3))
    seen = read_queues(one)
    assert (seen["looked"], seen["waiting"], seen["for_tls"]) == (True, 3, 3 if for_tls else 0)
    assert seen["causes"] == {cause: 3}
    assert (seen["messages"][0]["next_hop"], seen["messages"][0]["next_hop_port"]) == ("gw1.example.com", 25)


def test_mail_to_mailboxes_is_not_counted(tmp_path):
    _host, one = server(tmp_path, queue(DeliveryType="SmtpDeliveryToMailbox"))
    assert read_queues(one)["waiting"] == 0


def test_queues_that_could_not_be_read_are_unknown(tmp_path):
    _host, one = server(tmp_path, Errors={"Get-Queue": "access denied"})
    one_host = ExchangeHost(Queues=None, Errors={"Get-Queue": "access denied"})
    seen = read_queues(one_host.task(tmp_path).server)
    assert (seen["looked"], seen["waiting"], seen["message"]) == (False, None, "Get-Queue: access denied")
    with pytest.raises(EngineError, match="could not be read"):
        try_queues(one_host.task(tmp_path).server, None, 1.0, False)
    assert read_queues(one)["looked"], "an empty list is an answer"


def test_exchange_does_not_tell_for_whom_a_message_is(tmp_path):
    _host, one = server(tmp_path, queue(LastError=NO_STARTTLS))
    seen = read_queues(one, ["you@example.net"])
    assert not seen["looked"] and "for whom" in seen["message"]


def test_what_waits_for_tls_is_tried_until_it_is_gone(tmp_path):
    host, one = server(tmp_path, queue(LastError=NO_STARTTLS, MessageCount=2))
    looks = []

    def gone(seconds: float) -> None:
        looks.append(seconds)
        host.exchange.state["Queues"] = []

    done = try_queues(one, ["gw1.example.com"], 60.0, False, sleep=gone)
    assert (done["changed"], done["tried"], done["delivered"], done["left"]) == (True, 2, 2, [])
    assert host.operations == ["read", "apply", "read"] and len(looks) == 1


def test_other_next_hops_and_check_mode_try_nothing(tmp_path):
    host, one = server(tmp_path, queue(LastError=NO_STARTTLS))
    assert try_queues(one, ["gw2.example.com"], 1.0, False)["tried"] == 0
    said = try_queues(one, None, 1.0, True)
    assert (said["changed"], said["tried"], said["delivered"]) == (True, 2, 0)
    assert "apply" not in host.operations


def test_a_suspended_queue_stays_so(tmp_path):
    host, one = server(tmp_path, queue(LastError=NO_STARTTLS, Status="Suspended"))
    done = try_queues(one, None, 1.0, False)
    assert (done["changed"], done["held"]) == (False, 2) and "apply" not in host.operations
