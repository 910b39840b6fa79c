"""What has to be done on an Exchange server: enable, renew, disable, uninstall, retry. Every call is run by the strict interpreter."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.engine import plan, retry, undo, uninstall
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import NotReadError, observe
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.values import OBSTACLE_CODES
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import (
    ExchangePeer,
    NamedClient,
    WantedCertificate,
    WantedExchange,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.exchange_organisation import (
    INTERNAL,
    NEW,
    PUBLIC,
    StrictExchange,
    certificate,
    organisation,
    queue,
    receive,
    send,
)

OLD_PAIR = "<I>CN=Authority 1, O=Example<S>CN=mail.example.com"
NEW_PAIR = "<I>CN=Authority 2, O=Example<S>CN=mail.example.com"
DOMAINS = ("mail.example.com", "ex1.example.com")
CERTIFICATE = WantedCertificate(
    NEW, "CN=Authority 2, O=Example", "CN=mail.example.com", DOMAINS, "2027-06-01T00:00:00Z"
)
SAME = replace(CERTIFICATE, issuer="CN=Authority 1, O=Example")
GATEWAY = NamedClient("gw1", ("192.0.2.10",))
PEER = replace(GATEWAY, own_connector=True)


def done(observed, wanted, planned=None):
    """The state after the change, by the strict interpreter, which the plan predicted exactly, and which a second plan leaves alone."""
    planned = planned or plan(observe(observed), wanted)
    assert planned.obstacles == ()
    strict = StrictExchange(observed, bought(wanted))
    strict.run(one.to_json() for one in (*planned.calls, *planned.last))
    again = plan(observe(strict.state), replace(wanted, record=planned.record))
    assert again.calls == () and again.obstacles == ()
    assert again.before == planned.after
    return strict.state


def bought(wanted):
    """The certificate as Exchange shows it after the import."""
    one = wanted.certificate
    return one and certificate(one.thumbprint, one.subject, one.issuer, list(one.domains))


def cmdlets(planned):
    return [call.cmdlet for call in planned.calls]


def of(kind, state, name):
    return next(one for one in state[kind] if one["Name"] == name)


def codes(planned):
    assert all(one.code in OBSTACLE_CODES for one in planned.obstacles)
    return [one.code for one in planned.obstacles]


def test_nothing_is_wanted_and_nothing_is_done():
    planned = plan(observe(organisation()), WantedExchange())
    assert not planned.changed and planned.obstacles == () and planned.diff == ()
    assert planned.before == planned.after == {"inbound": "offered", "outbound": "opportunistic"}


def test_a_certificate_is_imported_enabled_and_the_internal_one_put_back():
    wanted = WantedExchange(inbound="offered", certificate=CERTIFICATE)
    planned = plan(observe(organisation()), wanted)
    assert [(call.cmdlet, call.parameters.get("Thumbprint")) for call in planned.calls] == [
        ("Import-ExchangeCertificate", None),
        ("Enable-ExchangeCertificate", NEW),
        ("Enable-ExchangeCertificate", INTERNAL),
        ("Set-ReceiveConnector", None),
    ]
    assert planned.reread == 3
    assert all(call.parameters["Services"] == ("SMTP",) for call in planned.calls[1:3])
    state = done(organisation(), wanted, planned)
    assert state["TransportService"]["InternalTransportCertificateThumbprint"] == INTERNAL
    assert of("ReceiveConnectors", state, "Default Frontend EX1")["TlsCertificateName"] == NEW_PAIR
    assert of("ReceiveConnectors", state, "Client Frontend EX1")["TlsCertificateName"] is None


def test_after_the_import_the_names_that_the_server_shows_count():
    wanted = WantedExchange(inbound="offered", certificate=CERTIFICATE)
    first = plan(observe(organisation()), wanted)
    strict = StrictExchange(organisation(), {**bought(wanted), "Issuer": 'CN="Authority 2", O=Example'})
    strict.run(one.to_json() for one in first.calls[: first.reread])
    second = plan(observe(strict.state), replace(wanted, record=first.record))
    assert second.reread == 0
    assert [dict(call.parameters) for call in second.calls] == [
        {
            "Identity": "EX1\\Default Frontend EX1",
            "TlsCertificateName": '<I>CN="Authority 2", O=Example<S>CN=mail.example.com',
        }
    ]


def test_a_certificate_that_is_there_is_not_imported_again():
    there = organisation(
        ExchangeCertificates=[*organisation()["ExchangeCertificates"], bought(WantedExchange(certificate=CERTIFICATE))]
    )
    planned = plan(observe(there), WantedExchange(inbound="offered", certificate=CERTIFICATE))
    assert cmdlets(planned) == ["Set-ReceiveConnector"] and planned.reread == 0


def test_it_becomes_the_internal_transport_certificate_only_if_that_is_asked():
    wanted = WantedExchange(inbound="offered", certificate=CERTIFICATE, internal_certificate=True)
    state = done(organisation(), wanted)
    assert state["TransportService"]["InternalTransportCertificateThumbprint"] == NEW


@pytest.mark.parametrize("thumbprint", [None, "", "F" * 40])
def test_an_internal_certificate_that_could_not_be_put_back_stops_it(thumbprint):
    found = organisation(TransportService={"InternalTransportCertificateThumbprint": thumbprint})
    planned = plan(observe(found), WantedExchange(inbound="offered", certificate=CERTIFICATE))
    assert codes(planned) == ["internal_certificate"] and not planned.changed


def test_an_internal_certificate_that_was_not_read_stops_it():
    planned = plan(
        observe(organisation(TransportService={})), WantedExchange(inbound="offered", certificate=CERTIFICATE)
    )
    assert codes(planned) == ["exchange_not_read"] and "internal transport certificate" in planned.obstacles[0].message


@pytest.mark.parametrize(
    ("change", "code"),
    [({"HasPrivateKey": False}, "certificate_unfit"), ({"Status": "RevocationCheckFailure"}, "certificate_unfit"),
     ({"Unknown": ["Services"]}, "exchange_not_read"), ({"Unknown": ["Status"]}, "exchange_not_read")],
)  # fmt: skip
def test_a_certificate_that_is_there_and_would_not_be_served(change, code):
    there = {**bought(WantedExchange(certificate=CERTIFICATE)), **change}
    found = organisation(ExchangeCertificates=[*organisation()["ExchangeCertificates"], there])
    planned = plan(observe(found), WantedExchange(inbound="offered", certificate=CERTIFICATE))
    assert codes(planned) == [code] and not planned.changed


def test_an_authority_that_the_server_does_not_know_is_said():
    there = {**bought(WantedExchange(certificate=CERTIFICATE)), "Status": "Untrusted"}
    found = organisation(ExchangeCertificates=[*organisation()["ExchangeCertificates"], there])
    planned = plan(observe(found), WantedExchange(inbound="offered", certificate=CERTIFICATE))
    assert planned.obstacles == () and "Untrusted" in planned.warnings[0]


@pytest.mark.parametrize(
    ("server", "code"),
    [({"Name": "EDGE1", "IsEdgeServer": True}, "edge_server"), ({"Name": "EX1"}, "exchange_not_read")],
)
def test_an_edge_server_is_refused_by_name(server, code):
    for planned in (
        plan(observe(organisation(Server=server)), WantedExchange(inbound="offered")),
        uninstall(observe(organisation(Server=server)), {}),
    ):
        assert codes(planned) == [code] and not planned.changed
        assert code != "edge_server" or "EDGE1 is an Edge" in planned.obstacles[0].message


def test_tls_is_added_to_what_is_there():
    found = organisation(
        ReceiveConnectors=[receive("Default Frontend EX1", AuthMechanism="Integrated, ExchangeServer")]
    )
    state = done(found, WantedExchange(inbound="offered"))
    assert state["ReceiveConnectors"][0]["AuthMechanism"] == "Tls, Integrated, ExchangeServer"


def test_tls_replaces_none():
    found = organisation(ReceiveConnectors=[receive("a", AuthMechanism="None")])
    assert done(found, WantedExchange(inbound="offered"))["ReceiveConnectors"][0]["AuthMechanism"] == "Tls"


def test_a_mechanism_that_nobody_knows_is_not_written_back():
    found = organisation(ReceiveConnectors=[receive("a", AuthMechanism="Integrated, Quantum")])
    planned = plan(observe(found), WantedExchange(inbound="offered"))
    assert codes(planned) == ["connector_refused"] and "Quantum" in planned.obstacles[0].message


def test_no_certificate_to_serve_is_an_obstacle():
    found = organisation(ReceiveConnectors=[receive("a", TlsCertificateName="<I>CN=gone<S>CN=gone")])
    planned = plan(observe(found), WantedExchange(inbound="offered"))
    assert codes(planned) == ["certificate_missing"] and "CN=gone" in planned.obstacles[0].message


def test_required_is_refused_where_strangers_are_served():
    planned = plan(observe(organisation()), WantedExchange(inbound="required", clients=(GATEWAY,)))
    assert codes(planned) == ["connector_shared"] and not planned.changed
    assert "Default Frontend EX1" in planned.obstacles[0].message and "starttls_peers" in planned.obstacles[0].message


def test_required_without_clients_is_refused():
    assert codes(plan(observe(organisation()), WantedExchange(inbound="required"))) == ["connector_shared"]


def test_a_named_peer_gets_a_connector_of_its_own():
    wanted = WantedExchange(inbound="required", clients=(PEER,), certificate=CERTIFICATE)
    state = done(organisation(), wanted)
    mine = of("ReceiveConnectors", state, "mailfleet_peer_gw1")
    assert mine["RemoteIPRanges"] == ["192.0.2.10"] and mine["Bindings"] == ["0.0.0.0:25"]
    assert (mine["AuthMechanism"], mine["PermissionGroups"], mine["RequireTLS"]) == ("Tls", "AnonymousUsers", True)
    assert mine["TransportRole"] == "FrontendTransport" and mine["TlsCertificateName"] == NEW_PAIR
    default = of("ReceiveConnectors", state, "Default Frontend EX1")
    assert default == organisation()["ReceiveConnectors"][0]


def test_what_insists_comes_last():
    wanted = WantedExchange(inbound="required", outbound="required", clients=(PEER,), certificate=CERTIFICATE,
                            next_hops=("gw1.example.com",))  # fmt: skip
    planned = plan(observe(organisation(SendConnectors=[send(IgnoreSTARTTLS=True)])), wanted)
    insisting = [call.insists for call in planned.calls]
    assert insisting == sorted(insisting) and sum(insisting) == 2


def test_a_connector_for_the_named_clients_alone_is_used_as_it_is():
    mine = receive(
        "From gw1", RemoteIPRanges=["192.0.2.10-192.0.2.11"], AuthMechanism="Tls", PermissionGroups="AnonymousUsers"
    )
    found = organisation(ReceiveConnectors=[*organisation()["ReceiveConnectors"], mine])
    both = (PEER, NamedClient("gw2", ("192.0.2.11",)))
    state = done(found, WantedExchange(inbound="required", clients=both))
    assert of("ReceiveConnectors", state, "From gw1")["RequireTLS"] is True
    assert len(state["ReceiveConnectors"]) == 6
    assert codes(plan(observe(found), WantedExchange(inbound="required", clients=(GATEWAY,)))) == ["connector_shared"]


def test_rights_that_a_new_connector_would_lack_are_not_lost():
    relay = receive(
        "Relay",
        RemoteIPRanges=["192.0.2.0/24"],
        AuthMechanism="Tls, ExternalAuthoritative",
        PermissionGroups="ExchangeServers",
    )
    found = organisation(ReceiveConnectors=[*organisation()["ReceiveConnectors"], relay])
    planned = plan(observe(found), WantedExchange(inbound="required", clients=(PEER,)))
    assert "connector_refused" in codes(planned) and "ExchangeServers" in planned.obstacles[0].message


def test_a_range_that_overlaps_another_connectors_in_part_is_refused():
    other = receive("other", RemoteIPRanges=["192.0.2.8-192.0.2.20"], PermissionGroups="AnonymousUsers")
    found = organisation(ReceiveConnectors=[*organisation()["ReceiveConnectors"], other])
    wide = NamedClient("gw1", ("192.0.2.0-192.0.2.10",), own_connector=True)
    assert "connector_conflict" in codes(plan(observe(found), WantedExchange(inbound="required", clients=(wide,))))


def test_the_connector_of_a_peer_follows_its_addresses():
    wanted = WantedExchange(inbound="required", clients=(PEER,))
    first = done(organisation(), wanted)
    state = done(first, replace(wanted, clients=(replace(PEER, addresses=("192.0.2.10", "192.0.2.12")),)))
    assert of("ReceiveConnectors", state, "mailfleet_peer_gw1")["RemoteIPRanges"] == ["192.0.2.10", "192.0.2.12"]


def test_nobody_takes_mail_from_a_client():
    found = organisation(ReceiveConnectors=[receive("a", RemoteIPRanges=["198.51.100.0/24"])])
    planned = plan(observe(found), WantedExchange(inbound="offered", clients=(GATEWAY,)))
    assert codes(planned) == ["connector_refused"] and "gw1 (192.0.2.10)" in planned.obstacles[0].message


def test_relax_takes_back_what_insists_and_nothing_else():
    wanted = WantedExchange(inbound="required", clients=(PEER,))
    state = done(organisation(), wanted)
    kept = plan(observe(state), replace(wanted, inbound="offered", relax=False))
    assert not kept.changed and kept.after["inbound"] == "required"
    relaxed = plan(observe(state), replace(wanted, inbound="offered"))
    assert [dict(one.parameters) for one in relaxed.calls] == [
        {"Identity": "EX1\\mailfleet_peer_gw1", "RequireTLS": False}
    ]


ON = WantedExchange(inbound="offered", outbound="required", certificate=CERTIFICATE, check="hostname")
OFF = WantedExchange(inbound="disabled", outbound="disabled")


def test_disable_goes_back_to_what_was_there():
    found = organisation(
        ReceiveConnectors=[receive("a", AuthMechanism="Integrated")], SendConnectors=[send(IgnoreSTARTTLS=True)]
    )
    on = plan(observe(found), ON)
    state = done(found, ON, on)
    assert of("SendConnectors", state, "To the internet")["TlsDomain"] == "gw1.example.com"
    off = replace(OFF, record=on.record)
    planned = plan(observe(state), off)
    assert planned.after == {"inbound": "disabled", "outbound": "disabled"}
    back = done(state, off, planned)
    assert back["ReceiveConnectors"] == found["ReceiveConnectors"] and back["SendConnectors"] == found["SendConnectors"]


def test_disable_leaves_what_exchange_had_by_itself():
    on = plan(observe(organisation()), ON)
    state = done(organisation(), ON, on)
    off = replace(OFF, record=on.record)
    planned = plan(observe(state), off)
    assert planned.after == {"inbound": "offered", "outbound": "opportunistic"}
    assert done(state, off, planned)["ReceiveConnectors"] == organisation()["ReceiveConnectors"]


def test_disable_without_a_record():
    own = receive("From gw1", RemoteIPRanges=["192.0.2.10"], AuthMechanism="Tls, Integrated", RequireTLS=True)
    found = organisation(ReceiveConnectors=[organisation()["ReceiveConnectors"][0], own])
    planned = plan(observe(found), OFF)
    state = done(found, OFF, planned)
    assert state["ReceiveConnectors"][0] == found["ReceiveConnectors"][0] and "goes on offering" in planned.warnings[0]
    assert (state["ReceiveConnectors"][1]["AuthMechanism"], state["ReceiveConnectors"][1]["RequireTLS"]) == (
        "Integrated",
        False,
    )
    assert state["SendConnectors"][0]["IgnoreSTARTTLS"] is True


def test_disable_keeps_tls_on_a_connector_that_was_made_for_it():
    wanted = WantedExchange(inbound="required", clients=(PEER,))
    state = done(organisation(), wanted)
    planned = plan(observe(state), replace(wanted, inbound="disabled"))
    assert [dict(one.parameters) for one in planned.calls] == [
        {"Identity": "EX1\\mailfleet_peer_gw1", "RequireTLS": False}
    ]
    assert planned.warnings == ()


def test_a_former_certificate_that_is_gone_is_not_named_again():
    found = organisation(ReceiveConnectors=[receive("a", TlsCertificateName=OLD_PAIR)])
    on = plan(observe(found), ON)
    state = done(found, ON, on)
    state["ExchangeCertificates"] = [one for one in state["ExchangeCertificates"] if one["Thumbprint"] != PUBLIC]
    planned = plan(observe(state), replace(OFF, record=on.record))
    assert planned.obstacles == () and any("gone" in one for one in planned.warnings)
    strict = StrictExchange(state)
    strict.run(one.to_json() for one in planned.calls)
    assert strict.state["ReceiveConnectors"][0]["TlsCertificateName"] is None


def test_the_record_keeps_what_was_there_before_the_first_change():
    found = organisation(ReceiveConnectors=[receive("a", AuthMechanism="Integrated")])
    first = plan(observe(found), ON)
    second = plan(observe(done(found, ON, first)), replace(ON, record=first.record))
    assert first.record == second.record
    assert first.record["receive"] == {
        "EX1\\a": {"AuthMechanism": "Integrated", "RequireTLS": False, "TlsCertificateName": None}
    }
    assert first.record["certificates"] == [NEW]


def test_a_connector_that_a_renewal_alone_has_touched_is_not_taken_for_one_that_was_enabled():
    found = organisation(
        ReceiveConnectors=[receive("a", TlsCertificateName=OLD_PAIR)],
        SendConnectors=[send(TlsCertificateName=OLD_PAIR)],
    )
    renewal = plan(observe(found), WantedExchange(inbound="offered", certificate=CERTIFICATE))
    assert renewal.record["send"] == {"To the internet": {"TlsCertificateName": OLD_PAIR}}
    state = done(found, WantedExchange(inbound="offered", certificate=CERTIFICATE), renewal)
    off = WantedExchange(outbound="disabled", record=renewal.record)
    assert done(state, off)["SendConnectors"][0]["IgnoreSTARTTLS"] is True


def test_nor_is_a_receive_connector():
    clients = receive("clients", 587, TlsCertificateName=OLD_PAIR, AuthMechanism="Tls")
    found = organisation(ReceiveConnectors=[receive("a", TlsCertificateName=OLD_PAIR), clients])
    renewal = plan(observe(found), WantedExchange(inbound="offered", certificate=CERTIFICATE))
    assert renewal.record["receive"]["EX1\\clients"] == {"TlsCertificateName": OLD_PAIR}
    state = done(found, WantedExchange(inbound="offered", certificate=CERTIFICATE), renewal)
    off = done(state, WantedExchange(inbound="disabled", port=587, record=renewal.record))
    assert off["ReceiveConnectors"][1]["AuthMechanism"] == "None"


def test_uninstall_leaves_what_was_there_before():
    wanted = WantedExchange(
        inbound="required", outbound="required", clients=(PEER,), certificate=CERTIFICATE,
        peers=(ExchangePeer("relay2", ("relay2.example.com",), ("example.org",)),),
    )  # fmt: skip
    found = organisation()
    on = plan(observe(found), wanted)
    state = done(found, wanted, on)
    assert {one["Name"] for one in state["SendConnectors"]} == {"To the internet", "mailfleet_peer_relay2"}
    planned = uninstall(observe(state), on.record)
    assert planned.obstacles == () and planned.warnings == () and planned.record == {}
    strict = StrictExchange(state)
    strict.run(one.to_json() for one in (*planned.calls, *planned.last))
    assert strict.look() == StrictExchange(found).look()
    assert not uninstall(observe(strict.state), {}).changed


def test_uninstall_undone_is_what_was_there():
    wanted = WantedExchange(inbound="required", outbound="required", check="hostname", clients=(PEER,), certificate=CERTIFICATE,
                            peers=(ExchangePeer("relay2", ("192.0.2.77",), ("example.org",), level="opportunistic"),))  # fmt: skip
    on = plan(observe(organisation()), wanted)
    state = done(organisation(), wanted, on)
    planned = uninstall(observe(state), on.record)
    for count in range(len(planned.calls) + 1):
        strict = StrictExchange(state)
        strict.run(one.to_json() for one in planned.calls[:count])
        strict.run(one.to_json() for one in undo(planned, count))
        assert strict.look() == StrictExchange(state).look()


def test_uninstall_waits_for_the_queue_of_a_peer():
    wanted = WantedExchange(peers=(ExchangePeer("relay2", ("relay2.example.com",), ("example.org",)),))
    state = done(organisation(), wanted)
    state["SendConnectors"][1]["Guid"] = "guid-mailfleet_peer_relay2"
    state["Queues"] = [queue("mailfleet_peer_relay2")]
    assert codes(uninstall(observe(state), {})) == ["connector_refused"]
    state["Queues"] = None
    assert codes(uninstall(observe(state), {})) == ["exchange_not_read"]
    state["Queues"] = [queue("mailfleet_peer_relay2", MessageCount=0)]
    assert uninstall(observe(state), {}).obstacles == ()


def test_renewal_with_the_same_issuer_and_subject_changes_no_connector():
    found = organisation(
        ReceiveConnectors=[receive("a", TlsCertificateName=OLD_PAIR)],
        SendConnectors=[send(TlsCertificateName=OLD_PAIR)],
    )
    planned = plan(observe(found), WantedExchange(inbound="offered", certificate=SAME))
    assert cmdlets(planned) == [
        "Import-ExchangeCertificate",
        "Enable-ExchangeCertificate",
        "Enable-ExchangeCertificate",
    ]
    assert planned.last == ()


def test_renewal_with_the_same_pair_removes_the_old_one_after_the_proof():
    old = certificate(PUBLIC, "CN=mail.example.com", "CN=Authority 1, O=Example", list(DOMAINS))
    found = organisation(
        ExchangeCertificates=[organisation()["ExchangeCertificates"][0], old],
        ReceiveConnectors=[receive("a", TlsCertificateName=OLD_PAIR)],
        SendConnectors=[send(TlsCertificateName=OLD_PAIR)],
    )
    wanted = WantedExchange(inbound="offered", certificate=SAME, remove_former=True)
    planned = plan(observe(found), wanted)
    assert [(one.cmdlet, one.parameters.get("TlsCertificateName", "")) for one in planned.last] == [
        ("Set-SendConnector", None),
        ("Remove-ExchangeCertificate", ""),
        ("Set-SendConnector", OLD_PAIR),
    ]
    state = done(found, wanted, planned)
    assert [one["Thumbprint"] for one in state["ExchangeCertificates"]] == [INTERNAL, NEW]
    assert state["SendConnectors"] == found["SendConnectors"]


def test_a_namesake_that_served_nothing_is_not_removed():
    idle = certificate("E" * 40, "CN=mail.example.com", "CN=Authority 1, O=Example", list(DOMAINS), "None")
    found = organisation(ExchangeCertificates=[*organisation()["ExchangeCertificates"], idle])
    planned = plan(observe(found), WantedExchange(inbound="offered", certificate=SAME, remove_former=True))
    assert planned.last == () and any(f"{PUBLIC} stays: IIS may use it" in one for one in planned.warnings)


def test_renewal_with_another_issuer_moves_every_name_that_hangs_on_the_old_one():
    found = organisation(
        ReceiveConnectors=[
            receive("a", TlsCertificateName=OLD_PAIR),
            receive("clients", 587, TlsCertificateName=OLD_PAIR.upper()),
            receive("other", 26, TlsCertificateName="<I>CN=other<S>CN=other"),
        ],
        SendConnectors=[
            send(TlsCertificateName=OLD_PAIR),
            send("hybrid", TlsCertificateName=OLD_PAIR, CloudServicesMailEnabled=True),
        ],
    )
    state = done(found, WantedExchange(inbound="offered", certificate=CERTIFICATE))
    assert [one["TlsCertificateName"] for one in state["ReceiveConnectors"]] == [
        NEW_PAIR,
        NEW_PAIR,
        "<I>CN=other<S>CN=other",
    ]
    assert [one["TlsCertificateName"] for one in state["SendConnectors"]] == [NEW_PAIR, NEW_PAIR]


def test_renewal_leaves_a_name_that_the_new_certificate_does_not_stand_in_for():
    found = organisation(
        ReceiveConnectors=[receive("a", TlsCertificateName=OLD_PAIR), receive("c", 587, TlsCertificateName=OLD_PAIR)]
    )
    narrow = replace(CERTIFICATE, domains=("ex1.example.com",))
    planned = plan(observe(found), WantedExchange(inbound="offered", certificate=narrow))
    state = done(found, WantedExchange(inbound="offered", certificate=narrow), planned)
    assert state["ReceiveConnectors"][1]["TlsCertificateName"] == OLD_PAIR
    assert any("lacks mail.example.com" in one for one in planned.warnings)


def test_a_send_connector_of_several_servers_is_moved_once_all_have_the_certificate():
    found = organisation(
        ReceiveConnectors=[receive("a", TlsCertificateName=OLD_PAIR)],
        SendConnectors=[send(TlsCertificateName=OLD_PAIR, SourceTransportServers=["EX1", "EX2"])],
    )
    wanted = WantedExchange(inbound="offered", certificate=CERTIFICATE)
    planned = plan(observe(found), wanted)
    assert any("ex2" in one for one in planned.warnings)
    assert done(found, wanted, planned)["SendConnectors"][0]["TlsCertificateName"] == OLD_PAIR
    later = replace(wanted, others_with_certificate=("ex2.example.com",))
    assert done(found, later)["SendConnectors"][0]["TlsCertificateName"] == NEW_PAIR


def test_exchanges_own_connectors_keep_the_internal_certificate():
    pair = "<I>CN=EX1<S>CN=EX1"
    found = organisation(
        ReceiveConnectors=[receive("a", TlsCertificateName=pair), receive("Default EX1", 2525, TlsCertificateName=pair)]
    )
    wide = replace(CERTIFICATE, domains=(*DOMAINS, "ex1"))
    state = done(found, WantedExchange(inbound="offered", certificate=wide))
    assert [one["TlsCertificateName"] for one in state["ReceiveConnectors"]] == [NEW_PAIR, pair]


def test_a_certificate_alone_is_a_renewal_of_those_who_name_one():
    found = organisation(
        ReceiveConnectors=[receive("a", TlsCertificateName=OLD_PAIR), receive("b", RemoteIPRanges=["192.0.2.1"])]
    )
    state = done(found, WantedExchange(certificate=CERTIFICATE))
    assert [one["TlsCertificateName"] for one in state["ReceiveConnectors"]] == [NEW_PAIR, None]


def test_disabled_installs_no_certificate():
    planned = plan(observe(organisation()), WantedExchange(inbound="disabled", certificate=CERTIFICATE))
    assert planned.obstacles == () and not planned.changed


def test_retry_has_the_queues_of_the_connectors_tried_again():
    found = organisation(
        SendConnectors=[send(), send("other")],
        Queues=[
            queue(),
            queue("other", Identity="EX1\\4"),
            queue(Identity="EX1\\5", Status="Ready"),
            queue("gone", Identity="EX1\\6"),
        ],
    )
    assert [one.parameters["Identity"] for one in retry(observe(found))] == ["EX1\\3", "EX1\\4"]
    assert [one.parameters["Identity"] for one in retry(observe(found), ("TO THE INTERNET",))] == ["EX1\\3"]
    strict = StrictExchange(found)
    strict.run(one.to_json() for one in retry(observe(found)))
    with pytest.raises(NotReadError):
        retry(observe(organisation(Queues=None)))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (WantedExchange(inbound="on"), "inbound 'on' is not one of"),
        (WantedExchange(outbound="off"), "outbound 'off' is not one of"),
        (WantedExchange(check="pin"), "cannot do the check 'pin'"),
        (WantedExchange(clients=(NamedClient("gw1", ()),)), "the sender gw1 has no address"),
        (WantedExchange(clients=(NamedClient("gw1", ("gw1.example.com",)),)), "gw1: 'gw1.example.com'"),
        (WantedExchange(peers=(ExchangePeer("a", (), ("example.org",)),)), "peer a needs hosts"),
        (WantedExchange(certificate=replace(CERTIFICATE, thumbprint="")), "is no thumbprint"),
    ],
)
def test_a_wish_that_makes_no_sense_is_an_error(wanted, words):
    with pytest.raises(EngineError, match=words):
        plan(observe(organisation()), wanted)


def test_the_diff_shows_each_object_with_what_changes():
    planned = plan(observe(organisation(SendConnectors=[send(IgnoreSTARTTLS=True)])), ON)
    by_name = {one["before_header"]: one for one in planned.diff}
    assert by_name["send connector To the internet"]["before"].splitlines() == [
        "IgnoreSTARTTLS: $true", "RequireTLS: $false", "TlsAuthLevel: $null", "TlsDomain: $null",
    ]  # fmt: skip
    assert (
        f"Thumbprint: {NEW}" in by_name[f"certificate {NEW}"]["after"] and by_name[f"certificate {NEW}"]["before"] == ""
    )
    lines = {one["path"]: one["lines"] for one in planned.changes}
    assert (
        lines["receive connector EX1\\Default Frontend EX1"]
        == f"-TlsCertificateName: $null\n+TlsCertificateName: {NEW_PAIR}"
    )
    assert "Secret" not in str(planned.diff) + str(planned.changes) and "RawData" not in str(planned.diff)


def test_with_an_obstacle_nothing_is_done_and_the_state_stays():
    planned = plan(observe(organisation()), WantedExchange(inbound="required", outbound="required", clients=(GATEWAY,)))
    assert planned.obstacles and not planned.changed and planned.before == planned.after and planned.diff == ()


def test_what_was_not_read_is_an_obstacle_and_an_unknown_state():
    planned = plan(observe(organisation(ReceiveConnectors=None, Errors={"Get-ReceiveConnector": "denied"})), ON)
    assert codes(planned) == ["exchange_not_read"] and "denied" in planned.obstacles[0].message
    assert planned.before["inbound"] == "unknown"


def test_certificates_without_services_stop_only_what_depends_on_them():
    dark = [{**one, "Unknown": ["Services"]} for one in organisation()["ExchangeCertificates"]]
    found = observe(organisation(ExchangeCertificates=dark))
    assert codes(plan(found, WantedExchange(inbound="offered"))) == ["exchange_not_read"]
    outbound = plan(found, WantedExchange(outbound="required"))
    assert outbound.obstacles == () and outbound.changed and outbound.before["inbound"] == "unknown"
