"""What exchange_cmdlets read, as values: unknown is not empty."""

from __future__ import annotations

import base64
import hashlib

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import NotReadError, observe, same_pair
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.exchange_organisation import INTERNAL, certificate, organisation, receive, send


def test_a_whole_organisation():
    found = observe(organisation())
    assert (found.name, found.fqdn, found.windows, found.is_edge) == ("EX1", "ex1.example.com", "10.0.20348", False)
    assert found.internal_thumbprint == INTERNAL
    frontend = found.receive_connectors[0]
    assert frontend.auth == {"Tls", "Integrated", "BasicAuth", "BasicAuthRequireTLS", "ExchangeServer"}
    assert frontend.certificate_name is None
    assert frontend.is_default("EX1") and not frontend.own
    assert found.send_connectors[0].smart_hosts == ("gw1.example.com",)


@pytest.mark.parametrize(
    ("part", "look"),
    [
        ("ReceiveConnectors", "receive_connectors"),
        ("SendConnectors", "send_connectors"),
        ("ExchangeCertificates", "certificates"),
        ("Queues", "queues"),
    ],
)
def test_a_list_that_was_not_read_is_not_empty(part, look):
    cmdlet = {"ExchangeCertificates": "Get-ExchangeCertificate"}.get(part, f"Get-{part[:-1]}")
    found = observe(organisation(**{part: None}, Errors={cmdlet: "access is denied"}))
    with pytest.raises(NotReadError, match=f"{cmdlet} could not be read: access is denied"):
        getattr(found, look)


def test_a_property_that_is_named_as_unknown_is_not_used_although_it_is_there():
    one = certificate("D" * 40, "CN=a", "CN=b", ["a"])
    found = observe(organisation(ExchangeCertificates=[{**one, "Services": "None", "Unknown": ["Services"]}]))
    with pytest.raises(NotReadError, match="Services of certificate D"):
        assert found.certificates[0].services


def test_null_is_known_and_differs_from_absent():
    bare = receive("From gw")
    del bare["TlsCertificateName"]
    found = observe(organisation(ReceiveConnectors=[receive("null", TlsCertificateName=None), bare]))
    null, absent = found.receive_connectors
    assert null.certificate_name is None
    with pytest.raises(NotReadError):
        assert absent.certificate_name


@pytest.mark.parametrize("value", [None, "False", 0])
def test_what_is_neither_true_nor_false_is_unknown(value):
    found = observe(organisation(ReceiveConnectors=[receive("a", RequireTLS=value)]))
    with pytest.raises(NotReadError, match="neither true nor false"):
        assert found.receive_connectors[0].require_tls


def test_the_thumbprint_comes_from_the_raw_data_where_the_session_lost_it():
    raw = base64.b64encode(b"a certificate").decode()
    found = observe(organisation(ExchangeCertificates=[{"RawData": raw, "Unknown": ["Thumbprint", "Services"]}]))
    assert found.certificates[0].thumbprint == hashlib.sha1(b"a certificate").hexdigest().upper()


def test_damaged_raw_data_gives_no_thumbprint():
    found = observe(organisation(ExchangeCertificates=[{"RawData": "*", "Unknown": ["Thumbprint"]}]))
    with pytest.raises(NotReadError):
        assert found.certificates[0].thumbprint


def test_connectors_of_other_servers_are_not_this_ones():
    found = observe(
        organisation(ReceiveConnectors=[receive("a"), receive("a", server="EX2"), receive("b", server="ex1")])
    )
    assert [one.identity for one in found.receive_connectors] == ["EX1\\a", "ex1\\b"]


@pytest.mark.parametrize(
    ("server", "edge"),
    [
        ({"IsEdgeServer": True, "ServerRole": "Edge"}, True),
        ({"IsEdgeServer": None, "ServerRole": "Edge"}, True),
        ({"IsEdgeServer": False, "ServerRole": "Mailbox"}, False),
        ({"ServerRole": "Mailbox"}, False),
    ],
)
def test_an_edge_server_is_told_by_its_own_cmdlets(server, edge):
    assert observe(organisation(Server={"Name": "EX1", **server})).is_edge is edge


@pytest.mark.parametrize("server", [{"Name": "EX1"}, {"Name": "EX1", "IsEdgeServer": None, "ServerRole": None}])
def test_a_role_that_was_not_read_is_unknown(server):
    with pytest.raises(NotReadError):
        assert observe(organisation(Server=server)).is_edge


@pytest.mark.parametrize("name", ["", " ", None])
def test_a_server_without_a_name_is_refused(name):
    with pytest.raises(NotReadError, match="gave no Name"):
        assert observe(organisation(Server={"Name": name})).name


@pytest.mark.parametrize(
    "given",
    [None, [], "x", organisation(ReceiveConnectors="x"), organisation(SendConnectors=["x"]), organisation(Errors=["x"]),
     organisation(ReceiveConnectors=[{"Identity": {"a": 1}}]), organisation(ReceiveConnectors=[{"Port": 1.5}])],
)  # fmt: skip
def test_another_shape_is_an_error_with_the_next_thing_to_do(given):
    with pytest.raises(EngineError, match=r"answer of exchange_cmdlets .* run it with -vvv"):
        observe(given)


def test_a_list_of_one_that_powershell_made_a_text():
    found = observe(
        organisation(SendConnectors=[send(SmartHosts="[192.0.2.9]", SourceTransportServers="EX1.example.com")])
    )
    assert found.send_connectors[0].smart_hosts == ("192.0.2.9",)
    assert found.send_connectors[0].source_servers == ("ex1",)


def test_pairs_are_compared_without_case():
    assert same_pair("<I>CN=Authority<S>CN=a", "<i>cn=authority<s>cn=A")
    assert not same_pair("<I>CN=Authority<S>CN=a", None)


def test_hostile_text_is_one_printable_line_in_a_message():
    found = observe(organisation(ReceiveConnectors=[{"Identity": "EX1\\a\x1b[2J\n" + "x" * 900}]))
    with pytest.raises(NotReadError) as caught:
        assert found.receive_connectors[0].require_tls
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value) and len(str(caught.value)) < 400
