"""The stand-in on the wire as Exchange Online: each row of the table, the client's certificate and its chain above all."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.support.exchange import PATIENCE, Client, Exchange, client_context
from tests.support.pki import Authority, Issued, self_signed

OFFERED = [
    "SIZE 157286400", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "STARTTLS", "8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8",
]  # fmt: skip
END = r" \[online\.exchange\.test \d{4}-\d\d-\d\dT[\d:.]+Z [0-9A-F]{16}\]"
ELSEWHERE = "you@partner.test"
NOT_ATTRIBUTED = "550 5.7.64 TenantAttribution; Relay Access Denied"
UNTRUSTED_ROOT = "454 4.7.0 Failed to establish appropriate TLS channel: UntrustedRoot: Access Denied"


def without_end(reply: str) -> str:
    """A reply without what stands behind each of them."""
    found = re.fullmatch(rf"(.*?){END}", reply)
    assert found, reply
    return found[1]


def at_rcpt(exchange: Exchange, issued: Issued | None, *, intermediates: bool = True, to: str = ELSEWHERE) -> str:
    """What a client with this certificate is told at RCPT."""
    client = Client(exchange)
    client.ehlo()
    client.starttls(exchange.bundle("client", issued, intermediates) if issued else None)
    return without_end(client.to_rcpt(to))


def test_greeting_and_ehlo(online: Exchange) -> None:
    client = Client(online)
    pattern = r"220 online\.exchange\.test Microsoft ESMTP MAIL Service ready at .* \+0000 \[[0-9A-F]{16}\]"
    assert re.fullmatch(pattern, client.greeting)
    assert client.says("EHLO x.test").splitlines()[0] == "250 online.exchange.test Hello [127.0.0.1]"
    assert client.ehlo() == OFFERED
    client.starttls()
    assert client.ehlo() == [one for one in OFFERED if one != "STARTTLS"]


def test_every_other_reply_has_its_end(online: Exchange) -> None:
    client = Client(online)
    assert without_end(client.says("MAIL FROM:<anna@fleet.test>")) == "503 5.5.2 Send hello first"
    client.ehlo()
    assert without_end(client.says("MAIL FROM:<anna@fleet.test>")) == "250 2.1.0 Sender OK"
    assert without_end(client.says("RSET")).startswith("250 2.0.0")
    taken = without_end(client.send("joe@echo.test"))
    assert re.fullmatch(r"250 2\.6\.0 <.*> \[InternalId=\d+, Hostname=online.*\] Queued mail for delivery", taken)
    assert without_end(client.says("QUIT")).startswith("221 2.0.0")


def test_tls_1_3_and_1_2(online: Exchange) -> None:
    for version, name in ((None, "TLSv1.3"), (ssl.TLSVersion.TLSv1_2, "TLSv1.2")):
        client = Client(online)
        client.ehlo()
        assert client.starttls(context=client_context(version=version)).version() == name


def test_everybody_is_asked_for_a_certificate(online: Exchange) -> None:
    command = ["openssl", "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{online.port}", "-tls1_2"]
    done = subprocess.run(command, input="QUIT\n", capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "Client Certificate Types" in done.stdout, done.stdout
    assert "No client certificate CA names sent" in done.stdout


def test_on_587_mail_needs_tls_and_an_account(online: Exchange) -> None:
    client = Client(online, online.clients)
    client.ehlo()
    assert without_end(client.says("MAIL FROM:<anna@fleet.test>")) == "451 5.7.3 STARTTLS is required to send mail"
    client.starttls()
    client.ehlo()
    assert without_end(client.says("MAIL FROM:<anna@fleet.test>")) == "530 5.7.57 Client not authenticated to send mail"


def test_a_mailbox_takes_mail_from_anybody(online: Exchange) -> None:
    assert at_rcpt(online, None, to="joe@echo.test") == "250 2.1.5 Recipient OK"


def test_relaying_needs_the_certificate(online: Exchange) -> None:
    client = Client(online)
    assert without_end(client.to_rcpt(ELSEWHERE)) == NOT_ATTRIBUTED
    assert at_rcpt(online, None) == NOT_ATTRIBUTED
    assert at_rcpt(online, online.authority.issue(["relay.fleet.test"])) == "250 2.1.5 Recipient OK"


def test_the_chain_counts_as_it_was_sent(online: Exchange) -> None:
    leaf = online.authority.issue(["relay.fleet.test"])
    assert at_rcpt(online, leaf, intermediates=False) == NOT_ATTRIBUTED


def test_the_names_count(online: Exchange) -> None:
    assert at_rcpt(online, online.authority.issue(["relay.elsewhere.test"])) == NOT_ATTRIBUTED
    assert (
        at_rcpt(online, online.authority.issue(["mail.elsewhere.test", "relay.fleet.test"])) == "250 2.1.5 Recipient OK"
    )
    assert at_rcpt(online, online.authority.issue(["*.fleet.test"])) == "250 2.1.5 Recipient OK"
    # It fits the connector, but the tenant does not have the domain any more.
    online.change(lambda state: state["AcceptedDomains"].pop())
    assert at_rcpt(online, online.authority.issue(["relay.fleet.test"])) == NOT_ATTRIBUTED


def test_an_authority_that_is_not_public(online: Exchange) -> None:
    assert at_rcpt(online, Authority.create("unknown").issue(["relay.fleet.test"])) == UNTRUSTED_ROOT
    assert at_rcpt(online, self_signed(["relay.fleet.test"])) == UNTRUSTED_ROOT


def test_a_certificate_that_ran_out(online: Exchange) -> None:
    assert at_rcpt(online, online.authority.expired(["relay.fleet.test"])) == NOT_ATTRIBUTED


@pytest.mark.parametrize("required", [False, True])
def test_a_certificate_for_servers_only(online: Exchange, required: bool) -> None:
    """Nobody knows what the real one does: both can be had."""
    from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415

    leaf = online.authority.issue(["relay.fleet.test"], purposes=[ExtendedKeyUsageOID.SERVER_AUTH])
    online.change(lambda state: state.update(ClientAuthPurposeRequired=required))
    assert at_rcpt(online, leaf) == (NOT_ATTRIBUTED if required else "250 2.1.5 Recipient OK")


def test_a_connector_that_is_off(online: Exchange) -> None:
    online.set("InboundConnectors", Enabled=False)
    assert at_rcpt(online, online.authority.issue(["relay.fleet.test"])) == NOT_ATTRIBUTED


def test_a_relay_without_a_certificate_by_its_address(online: Exchange) -> None:
    online.set("InboundConnectors", TlsSenderCertificateName=None, SenderIPAddresses=["127.0.0.1"])
    client = Client(online)
    assert without_end(client.to_rcpt(ELSEWHERE)) == "250 2.1.5 Recipient OK"
    client = Client(online)
    assert without_end(client.to_rcpt(ELSEWHERE, sender="anna@elsewhere.test")) == NOT_ATTRIBUTED


def test_a_partner_who_has_to_use_tls(online: Exchange) -> None:
    partner = {
        "Name": "Partner",
        "ConnectorType": "Partner",
        "SenderDomains": ["smtp:partner.test;1"],
        "RequireTls": True,
    }
    online.change(lambda state: state["InboundConnectors"].append(partner))
    client = Client(online)
    refused = without_end(client.to_rcpt("joe@echo.test", sender="you@partner.test"))
    assert refused == "454 4.7.0 Failed to establish appropriate TLS channel: Access Denied"
    client = Client(online)
    client.ehlo()
    client.starttls()
    assert client.to_rcpt("joe@echo.test", sender="you@partner.test").startswith("250 2.1.5")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("keeps", [True, False])
def test_a_resumed_session_keeps_the_certificate_or_loses_it(
    online: Exchange, version: ssl.TLSVersion, keeps: bool
) -> None:
    online.change(lambda state: state.update(ResumedSessionKeepsAttribution=keeps))
    context = client_context(online.bundle("client", online.authority.issue(["relay.fleet.test"])), version)
    client = Client(online)
    client.ehlo()
    secure = client.starttls(context=context)
    assert client.to_rcpt(ELSEWHERE).startswith("250 2.1.5")
    session = secure.session
    client.says("QUIT")
    client = Client(online)
    client.ehlo()
    assert client.starttls(context=context, session=session).session_reused
    assert without_end(client.to_rcpt(ELSEWHERE)) == ("250 2.1.5 Recipient OK" if keeps else NOT_ATTRIBUTED)
    assert client.says("RCPT TO:<joe@echo.test>").startswith("250 2.1.5")
    client.smtp.data("Subject: x\r\n\r\nx\r\n")
    one = online.received()[0]
    assert one["Resumed"] and one["ClientCertificate"] == "CN=relay.fleet.test"
    assert one["AttributedTo"] == ("From the relay" if keeps else None)


def test_mail_that_is_attributed_leaves_for_the_internet(online: Exchange) -> None:
    client = Client(online)
    client.ehlo()
    client.starttls(online.bundle("client", online.authority.issue(["relay.fleet.test"])))
    client.send(ELSEWHERE)
    (one,) = online.received()
    assert one["Relayed"] and one["Recipients"] == [ELSEWHERE] and one["AttributedTo"] == "From the relay"
    assert one["ClientChain"] == ["CN=relay.fleet.test", "CN=public intermediate CA"] and one["Tls"] == "TLSv1.3"


@pytest.mark.parametrize(
    "reply",
    [
        "550 5.7.51 TenantInboundAttribution; There is a partner connector configured",
        "550 5.7.68 TenantInboundAttribution",
        "550 5.7.711 Access denied, bad inbound connector",
        "451 4.7.500 Server busy",
        "999 no reply at all",
    ],
)
def test_replies_that_are_not_in_the_table(online: Exchange, reply: str) -> None:
    online.change(lambda state: state.update(Replies=[{"At": "rcpt", "Reply": reply}]))
    assert Client(online).to_rcpt("joe@echo.test") == reply
    online.change(lambda state: state.update(Replies=[]))
    assert Client(online).to_rcpt("joe@echo.test").startswith("250 2.1.5")


def test_421_at_rcpt_ends_the_connection(online: Exchange) -> None:
    order = {"At": "rcpt", "Reply": "421 4.4.1 Connection timed out", "Close": True, "Address": "joe@echo.test"}
    online.change(lambda state: state.update(Replies=[order]))
    client = Client(online)
    assert client.to_rcpt("ann@echo.test").startswith("250 2.1.5")
    assert client.says("RCPT TO:<joe@echo.test>") == "421 4.4.1 Connection timed out"
    assert client.smtp.sock.recv(1) == b""


def test_silence_at_rcpt(online: Exchange) -> None:
    online.change(lambda state: state.update(Replies=[{"At": "rcpt", "Silence": True}]))
    client = Client(online)
    client.smtp.sock.settimeout(0.3)
    client.ehlo()
    client.says("MAIL FROM:<anna@fleet.test>")
    client.smtp.send(b"RCPT TO:<joe@echo.test>\r\n")
    with pytest.raises((socket.timeout, TimeoutError)):
        client.smtp.sock.recv(1)


def test_a_reply_for_resumed_sessions_only(online: Exchange, tmp_path: Path) -> None:
    online.change(lambda state: state.update(Replies=[{"At": "rcpt", "Reply": NOT_ATTRIBUTED, "Resumed": True}]))
    assert Client(online).to_rcpt("joe@echo.test").startswith("250 2.1.5")
