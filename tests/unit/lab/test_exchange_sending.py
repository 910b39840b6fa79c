"""The stand-in's way out: to a smart host, which here is a second one, and in a queue while that does not take mail as it has to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.exchange import Exchange, exchange, wait_for
from tests.support.pki import Authority
from tools.lab.exchange import sending

YOU = "you@partner.test"
STARTTLS_REQUIRED = "451 5.7.3 STARTTLS is required to send mail"


@dataclass
class Way:
    """A sender and its smart host; connector is the kind of its connectors."""

    sender: Exchange
    smart_host: Exchange
    connector: str

    def offer(self, tls: bool) -> None:
        """The smart host offers STARTTLS, or not."""
        self.smart_host.set("ReceiveConnectors", AuthMechanism="Tls, Integrated" if tls else "Integrated")

    def waits(self, failures: int = 1) -> dict[str, Any]:
        """The queue, once it is in retry."""
        found = wait_for(lambda: [one for one in self.sender.queues() if one["RetryCount"] >= failures])
        assert found, self.sender.queues()
        return dict(found[0])

    def arrives(self) -> dict[str, Any]:
        """The only message that the smart host got; nothing waits any more."""
        assert wait_for(self.smart_host.received), self.sender.queues()
        assert wait_for(lambda: not self.sender.queues())
        (one,) = self.smart_host.received()
        return one


def way(directory: Path, behaviour: str) -> Iterator[Way]:
    for name in ("sender", "smart_host"):
        (directory / name).mkdir()
    with exchange(directory / "smart_host", "on_premises") as smart_host:
        smart_host.change(
            lambda state: state["AcceptedDomains"].append({"Name": "partner.test", "DomainName": "partner.test"})
        )
        with exchange(directory / "sender", behaviour, smart_host.port) as sender:
            yield Way(sender, smart_host, "SendConnectors" if behaviour == "on_premises" else "OutboundConnectors")


@pytest.fixture
def premises(tmp_path: Path) -> Iterator[Way]:
    yield from way(tmp_path, "on_premises")


@pytest.fixture
def online(tmp_path: Path) -> Iterator[Way]:
    yield from way(tmp_path, "online")


def test_mail_uses_tls_where_it_is_offered(premises: Way) -> None:
    premises.sender.submit(YOU)
    assert premises.arrives()["Tls"] == "TLSv1.2"
    (one,) = premises.sender.sent()
    assert one["Recipients"] == [YOU] and one["Tls"] == "TLSv1.2" and one["Connector"] == "To the internet"
    assert one["InternetMessageId"] == "<one@echo.test>"


def test_mail_goes_in_plaintext_otherwise(premises: Way) -> None:
    premises.offer(tls=False)
    premises.sender.submit(YOU)
    assert premises.arrives()["Tls"] is None


def test_tls_can_be_left_aside(premises: Way) -> None:
    premises.sender.set("SendConnectors", IgnoreSTARTTLS=True)
    premises.sender.submit(YOU)
    assert premises.arrives()["Tls"] is None


def test_the_hazard(premises: Way) -> None:
    """The connector requires TLS before the smart host accepts it: mail waits, and goes out once it does."""
    premises.offer(tls=False)
    premises.sender.set("SendConnectors", RequireTLS=True)
    premises.sender.submit(YOU)
    queue = premises.waits()
    assert (
        queue["Status"] == "Retry"
        and queue["MessageCount"] == 1
        and queue["DeliveryType"] == "SmartHostConnectorDelivery"
    )
    assert queue["NextHopDomain"] == "[127.0.0.1]"
    assert queue["NextHopConnector"] == premises.sender.state()["SendConnectors"][0]["Guid"]
    assert queue["LastError"].startswith(
        f"[{{LED={STARTTLS_REQUIRED}}};{{MSG=}};{{FQDN=127.0.0.1}};{{IP=127.0.0.1}};{{LRT="
    )
    assert queue["NextRetryTime"] and queue["Messages"][0]["Recipients"] == [YOU]
    premises.sender.flush()
    assert premises.waits(2)["LastError"].startswith(f"[{{LED={STARTTLS_REQUIRED}")
    assert premises.smart_host.received() == []
    premises.offer(tls=True)
    premises.sender.flush()
    assert premises.arrives()["Tls"] == "TLSv1.2"


def test_the_queue_is_retried_by_itself_and_over_a_restart(premises: Way) -> None:
    premises.offer(tls=False)
    premises.sender.set("SendConnectors", RequireTLS=True)
    premises.sender.change(lambda state: state.update(TransportService={"RetryIntervals": [[1, 0.1]]}))
    premises.sender.submit(YOU)
    premises.waits(3)
    premises.sender.restart()
    assert premises.waits(2)["MessageCount"] == 1
    premises.offer(tls=True)
    assert premises.arrives()["Recipients"] == [YOU]


def test_mail_is_taken_while_the_queue_is_on_its_way(premises: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PATIENCE", 1)
    premises.offer(tls=False)
    premises.sender.set("SendConnectors", RequireTLS=True)
    premises.sender.submit(YOU)
    premises.sender.submit("slow@partner.test")
    assert wait_for(lambda: premises.waits()["MessageCount"] == 2)
    premises.smart_host.change(
        lambda state: state.update(Replies=[{"At": "rcpt", "Address": "slow@partner.test", "Silence": True}])
    )
    premises.offer(tls=True)
    premises.sender.flush()
    assert wait_for(premises.smart_host.received)  # the first is there, and the second hangs
    premises.sender.submit(YOU)
    assert wait_for(lambda: premises.waits()["MessageCount"] <= 2)


def test_a_relaxed_connector_lets_the_queue_go(premises: Way) -> None:
    premises.offer(tls=False)
    premises.sender.set("SendConnectors", RequireTLS=True)
    premises.sender.submit(YOU)
    premises.waits()
    premises.sender.set("SendConnectors", RequireTLS=False)
    premises.sender.flush()
    assert premises.arrives()["Tls"] is None


def test_a_host_that_is_not_there(premises: Way) -> None:
    premises.smart_host.set("ReceiveConnectors", Enabled=False)
    premises.sender.set("SendConnectors", Port=1)
    premises.sender.submit(YOU)
    assert "421 4.2.1 Unable to connect" in premises.waits()["LastError"]


@pytest.mark.parametrize(
    ("level", "domain", "trusted", "reason"),
    [
        ("EncryptionOnly", None, False, ""),
        ("CertificateValidation", None, True, ""),
        ("CertificateValidation", None, False, "UntrustedRoot"),
        ("DomainValidation", "smart.fleet.test", True, ""),
        ("DomainValidation", "other.fleet.test", True, "SubjectMismatch"),
        ("DomainValidation", "smart.fleet.test", False, "UntrustedRoot"),
    ],
)
@pytest.mark.parametrize("behaviour", ["on_premises", "online"])
def test_levels(tmp_path: Path, behaviour: str, level: str, domain: str | None, trusted: bool, reason: str) -> None:
    for made in way(tmp_path, behaviour):
        authority = made.sender.authority if trusted else Authority.create("unknown")
        made.smart_host.serve("served", authority.issue(["smart.fleet.test", "exch.fleet.test"]))
        if behaviour == "online":
            made.sender.set("OutboundConnectors", TlsSettings=level, TlsDomain=domain)
        else:
            made.sender.set("SendConnectors", RequireTLS=True, TlsAuthLevel=level, TlsDomain=domain)
        made.sender.submit(YOU)
        if not reason:
            made.arrives()
            continue
        error = made.waits()["LastError"]
        if behaviour == "online":
            assert (
                f"450 4.4.317 Cannot connect to remote server [Message={reason}] [LastAttemptedServerName=127.0.0.1]"
                in error
            )
        else:
            assert f"LED=454 4.7.5 Certificate validation failure, Reason:{reason}" in error
        assert f"{{MSG={reason}}}" in error and made.smart_host.received() == []


def test_online_a_smart_host_without_tls(online: Way) -> None:
    online.offer(tls=False)
    online.sender.set("OutboundConnectors", TlsSettings="EncryptionOnly")
    online.sender.submit(YOU)
    assert (
        f"LED=450 4.4.317 Cannot connect to remote server [Message={STARTTLS_REQUIRED}]" in online.waits()["LastError"]
    )


def test_a_connector_s_certificate_that_is_gone(premises: Way) -> None:
    premises.sender.set("SendConnectors", RequireTLS=True, TlsCertificateName="<I>CN=old<S>CN=old")
    premises.sender.submit(YOU)
    said = "454 4.7.5 The certificate specified in TlsCertificateName of the SendConnector could not be found"
    assert said in premises.waits()["LastError"]


def test_the_more_exact_address_space_has_the_mail(premises: Way) -> None:
    other = {
        "Name": "Other",
        "AddressSpaces": ["SMTP:*.partner.test;1", "SMTP:partner.test;1"],
        "SmartHosts": ["[127.0.0.1]"],
    }
    port = premises.sender.state()["SendConnectors"][0]["Port"]
    premises.sender.set("SendConnectors", Port=1)
    premises.sender.change(lambda state: state["SendConnectors"].append({**other, "Port": port}))
    premises.sender.submit(YOU)
    premises.arrives()
    assert premises.sender.sent()[0]["Connector"] == "Other"


def test_a_refusal_for_good_is_not_retried(premises: Way) -> None:
    premises.smart_host.change(
        lambda state: state.update(Replies=[{"At": "rcpt", "Reply": "550 5.1.10 nobody", "Address": YOU}])
    )
    premises.sender.submit(YOU)
    assert wait_for(premises.sender.failed)
    assert premises.sender.failed()[0]["LastError"] == "550 5.1.10 nobody" and premises.sender.queues() == []


def test_a_refusal_for_now_is(premises: Way) -> None:
    premises.smart_host.change(
        lambda state: state.update(Replies=[{"At": "rcpt", "Reply": "451 4.7.1 later", "Address": YOU}])
    )
    premises.sender.submit(YOU)
    queue = premises.waits()
    assert queue["LastError"] == "451 4.7.1 later" and queue["Messages"][0]["LastError"] == "451 4.7.1 later"
    premises.smart_host.change(lambda state: state.update(Replies=[]))
    premises.sender.flush()
    premises.arrives()
