"""The stand-in on the wire as Exchange on premises: each row of the table, with real TLS."""

from __future__ import annotations

import re
import ssl
import subprocess

import pytest

from tests.support.exchange import PATIENCE, Client, Exchange, client_context, free_ports, wait_for
from tests.support.pki import self_signed
from tools.lab.exchange.state import certificate_name

BEFORE = [
    "SIZE 37748736", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "STARTTLS", "X-ANONYMOUSTLS", "AUTH NTLM",
    "X-EXPS GSSAPI NTLM", "8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8", "XRDST",
]  # fmt: skip
INSIDE = [one for one in BEFORE if one not in ("STARTTLS", "X-ANONYMOUSTLS")]
INSIDE[INSIDE.index("AUTH NTLM")] = "AUTH NTLM LOGIN"


def test_greeting(premises: Exchange) -> None:
    pattern = r"220 exch\.fleet\.test Microsoft ESMTP MAIL Service ready at \w{3}, \d\d? \w{3} \d{4} [\d:]{8} \+0000"
    assert re.fullmatch(pattern, Client(premises).greeting)


def test_what_ehlo_offers_before_and_inside_tls(premises: Exchange) -> None:
    client = Client(premises)
    assert client.says("EHLO relay.fleet.test").splitlines()[0] == "250 exch.fleet.test Hello [127.0.0.1]"
    assert client.ehlo() == BEFORE
    client.starttls()
    assert client.ehlo() == INSIDE


def test_tls_1_2_at_most_and_no_question_for_a_client_certificate(premises: Exchange) -> None:
    client = Client(premises)
    client.ehlo()
    assert (
        client.starttls(premises.bundle("client", premises.authority.issue(["relay.fleet.test"]))).version()
        == "TLSv1.2"
    )
    client.send("joe@echo.test")
    assert premises.received()[0]["ClientCertificate"] is None


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
def test_tls_1_1_is_refused(premises: Exchange) -> None:
    context = client_context(version=ssl.TLSVersion.TLSv1_2)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    client = Client(premises)
    client.ehlo()
    with pytest.raises(OSError):
        client.starttls(context=context)


def test_the_server_s_own_certificate_is_served_and_openssl_agrees(premises: Exchange) -> None:
    command = ["openssl", "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{premises.port}", "-brief"]
    done = subprocess.run(command, input="QUIT\n", capture_output=True, text=True, timeout=PATIENCE, check=False)
    said = done.stdout + done.stderr
    assert "Protocol version: TLSv1.2" in said and "CN" in said, said
    client = Client(premises)
    client.ehlo()
    served = ssl.DER_cert_to_PEM_cert(client.starttls().getpeercert(True))
    assert served in (premises.directory / "own.pem").read_text()


def test_a_connector_s_certificate_is_served(premises: Exchange) -> None:
    public = premises.state()["Certificates"][1]
    premises.set("ReceiveConnectors", TlsCertificateName=certificate_name(public))
    client = Client(premises)
    client.ehlo()
    assert (
        ssl.DER_cert_to_PEM_cert(client.starttls().getpeercert(True)) in (premises.directory / "public.pem").read_text()
    )


@pytest.mark.parametrize("how", ["name", "file", "status", "services", "no name covers it"])
def test_starttls_is_gone_with_its_certificate(premises: Exchange, how: str) -> None:
    state = premises.state()
    own = state["Certificates"][0]
    premises.set("ReceiveConnectors", TlsCertificateName=certificate_name(own))
    if how == "name":
        premises.set("ReceiveConnectors", TlsCertificateName="<I>CN=old authority<S>CN=exch.fleet.test")
    elif how == "file":
        (premises.directory / "own.pem").unlink()
    elif how == "status":
        premises.set("Certificates", Status="RevocationCheckFailure")
    elif how == "services":
        premises.set("Certificates", Services="IIS")
    else:
        premises.set("ReceiveConnectors", TlsCertificateName=None, Fqdn="other.fleet.test")
    client = Client(premises)
    offered = client.ehlo()
    assert offered == [one for one in BEFORE if one != "STARTTLS"]
    assert client.says("STARTTLS").startswith("500 5.3.3")


def test_starttls_needs_the_mechanism_tls(premises: Exchange) -> None:
    premises.set("ReceiveConnectors", AuthMechanism="Integrated")
    offered = Client(premises).ehlo()
    assert not {"STARTTLS", "X-ANONYMOUSTLS"} & set(offered)


def test_plaintext_where_tls_is_required(premises: Exchange) -> None:
    premises.set("ReceiveConnectors", RequireTLS=True)
    client = Client(premises)
    client.ehlo()
    assert client.says("MAIL FROM:<anna@fleet.test>") == "451 5.7.3 STARTTLS is required to send mail"
    client.starttls()
    assert client.send("joe@echo.test").startswith("250 2.6.0")


def test_anonymous_clients_where_they_are_not_allowed(premises: Exchange) -> None:
    client = Client(premises, premises.clients)
    client.ehlo()
    assert client.says("MAIL FROM:<anna@fleet.test>") == "530 5.7.57 Client not authenticated to send mail"
    premises.set("ReceiveConnectors", PermissionGroups="ExchangeServers")
    client = Client(premises)
    client.ehlo()
    assert client.says("MAIL FROM:<anna@fleet.test>") == "530 5.7.57 Client not authenticated to send mail"


def test_a_recipient_elsewhere(premises: Exchange) -> None:
    client = Client(premises)
    refused = "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain"
    assert client.to_rcpt("you@partner.test") == refused
    assert client.says("RCPT TO:<joe@echo.test>") == "250 2.1.5 Recipient OK"
    assert client.says("RSET").startswith("250 2.0.0")
    assert client.says("QUIT") == "221 2.0.0 Service closing transmission channel"


@pytest.mark.parametrize("how", ["inactive", "no range"])
def test_not_in_service(premises: Exchange, how: str) -> None:
    if how == "inactive":
        premises.change(lambda state: state.update(ServerComponentState={"FrontendTransport": "Inactive"}))
    else:
        premises.set("ReceiveConnectors", RemoteIPRanges=["192.0.2.0/24"])
    assert Client(premises).greeting == "421 4.3.2 Service not available"


def test_commands_in_the_wrong_order(premises: Exchange) -> None:
    client = Client(premises)
    assert client.says("MAIL FROM:<anna@fleet.test>") == "503 5.5.2 Send hello first"
    client.ehlo()
    assert client.says("RCPT TO:<joe@echo.test>").startswith("503 5.5.2")
    assert client.says("DATA").startswith("503 5.5.2")
    assert client.says("X-NONSENSE") == "500 5.3.3 Unrecognized command"
    assert client.says("AUTH LOGIN").startswith("504 5.7.4")
    client.starttls()
    client.ehlo()
    assert client.says("STARTTLS").startswith("503 5.5.2")


def test_a_message_that_is_taken(premises: Exchange) -> None:
    client = Client(premises)
    client.ehlo()
    client.starttls()
    text = "Message-ID: <one@example.test>\r\nSubject: x\r\n\r\n..dot\r\n"
    answer = client.send("joe@echo.test", text=text)
    pattern = r"250 2\.6\.0 <one@example\.test> \[InternalId=\d+, Hostname=exch\.fleet\.test\] Queued mail for delivery"
    assert re.fullmatch(pattern, answer)
    (one,) = premises.received()
    assert one["Recipients"] == ["joe@echo.test"] and one["From"] == "anna@fleet.test" and one["Tls"] == "TLSv1.2"
    assert one["Helo"] == "relay.fleet.test" and one["Connector"] == "Default Frontend EXCH"
    received, _, rest = one["Message"].partition("Message-ID:")
    assert rest.endswith("..dot\r\n")
    unfolded = " ".join(received.split())
    assert re.match(
        r"Received: from relay\.fleet\.test \(127\.0\.0\.1\) by exch\.fleet\.test \(127\.0\.0\.1\) with Microsoft SMTP Server "
        r"\(version=TLS1_2, cipher=TLS_ECDHE_ECDSA_WITH_AES_\d+_GCM_SHA\d+\) id 15\.2\.[\d.]+ via Frontend Transport; ",
        unfolded,
    ), unfolded


def test_a_message_in_plaintext_says_so(premises: Exchange) -> None:
    Client(premises).send("joe@echo.test")
    (one,) = premises.received()
    assert one["Tls"] is None and "version=" not in one["Message"]


def test_pieces_of_a_message_by_their_length(premises: Exchange) -> None:
    """Exim sends by BDAT where CHUNKING is offered."""
    client = Client(premises)
    client.ehlo()
    assert client.says("MAIL FROM:<> BODY=BINARYMIME RET=HDRS ENVID=x SIZE=10").startswith("250 2.1.0")
    assert client.says("RCPT TO:<joe@echo.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;joe@echo.test").startswith(
        "250 2.1.5"
    )
    client.smtp.send(b"BDAT 14\r\nSubject: x\r\n\r\n" + b"BDAT 6 LAST\r\nbin\n\0x")
    answers = [client.smtp.getreply()[1] for _ in range(2)]
    assert answers[0].startswith(b"2.6.0 CHUNK received OK, 14") and answers[1].startswith(b"2.6.0 <")
    assert premises.received()[0]["Message"].endswith("Subject: x\r\n\r\nbin\n\0x")


def test_a_client_on_the_loopback_may_send_anywhere(premises: Exchange) -> None:
    client = Client(premises, premises.mailboxes)
    assert client.to_rcpt("you@partner.test") == "250 2.1.5 Recipient OK"


def test_the_narrowest_range_has_the_client(premises: Exchange) -> None:
    relay = {
        "Name": "Relay", "Enabled": True, "Bindings": [f"127.0.0.1:{premises.port}"], "RemoteIPRanges": ["127.0.0.0/24"],
        "Fqdn": "relay.fleet.test", "AuthMechanism": "Tls, ExternalAuthoritative", "PermissionGroups": "ExchangeServers",
    }  # fmt: skip
    premises.change(lambda state: state["ReceiveConnectors"].append(relay))
    client = Client(premises)
    assert client.greeting.startswith("220 relay.fleet.test ")
    assert client.to_rcpt("you@partner.test") == "250 2.1.5 Recipient OK"


def test_a_new_binding_is_listened_to_and_an_old_one_no_more(premises: Exchange) -> None:
    (port,) = free_ports(1)
    premises.set("ReceiveConnectors", Bindings=[f"127.0.0.1:{port}"])

    def answers(at: int) -> bool:
        try:
            return Client(premises, at).greeting.startswith("220")
        except OSError:
            return False

    assert wait_for(lambda: answers(port))
    assert wait_for(lambda: not answers(premises.port))


def test_a_state_that_cannot_be_read_takes_nothing_and_recovers(premises: Exchange) -> None:
    file = premises.directory / "state.json"
    good = file.read_text()
    file.write_text("{")
    assert Client(premises).greeting == "421 4.3.2 Service not available"
    file.write_text(good)
    assert wait_for(lambda: Client(premises).greeting.startswith("220"))


def test_another_certificate_is_served_to_the_next_client(premises: Exchange) -> None:
    new = self_signed(["exch.fleet.test"])
    premises.serve("new", new)
    client = Client(premises)
    client.ehlo()
    assert ssl.DER_cert_to_PEM_cert(client.starttls().getpeercert(True)) in new.certificate_pem.decode()


@pytest.mark.parametrize("at", ["connect", "ehlo", "starttls", "mail", "rcpt", "data"])
def test_any_reply_can_be_ordered(premises: Exchange, at: str) -> None:
    order = {"At": at, "Reply": "421 4.4.2 ordered"}
    premises.change(lambda state: state.update(Replies=[order]))
    client = Client(premises)
    said = [client.greeting]
    if at in ("ehlo", "starttls"):
        said += [client.says("EHLO x.test"), client.says("STARTTLS")]
    if at == "mail":
        client.ehlo()
        said.append(client.says("MAIL FROM:<anna@fleet.test>"))
    elif at == "rcpt":
        said.append(client.to_rcpt("joe@echo.test"))
    elif at == "data":
        said.append(client.send("joe@echo.test"))
    assert "421 4.4.2 ordered" in said
