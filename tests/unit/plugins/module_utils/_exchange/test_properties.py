"""Whatever the organisation and the wish: each call is legal, the plan predicts the end, a second one has nothing to do, and every
beginning of it can be undone."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.calls import simulate
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.engine import plan, undo, uninstall
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import observe
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.paths import (
    ReceiveTls,
    SendTls,
    receive_steps,
    send_steps,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.ranges import parse_range
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import (
    AUTH_LEVELS,
    ExchangePeer,
    NamedClient,
    WantedCertificate,
    WantedExchange,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.support.exchange_organisation import (
    FULL,
    INTERNAL,
    NEW,
    PUBLIC,
    SERVER,
    Refused,
    StrictExchange,
    certificate,
    organisation,
    receive,
    send,
)

OWN = "<I>CN=EX1<S>CN=EX1"
OLD = "<I>CN=Authority 1<S>CN=mail.example.com"
NAMES = [None, OLD, OLD.upper(), OWN, "<I>CN=gone<S>CN=gone"]
AUTH = [
    "None", "Tls", "Integrated", "Tls, Integrated", "Integrated, BasicAuth", FULL, "ExternalAuthoritative", "Tls, ExternalAuthoritative",
    "Integrated, ExchangeServer",
]  # fmt: skip
RANGES = [
    ["192.0.2.10"],
    ["192.0.2.11"],
    ["192.0.2.10-192.0.2.11"],
    ["192.0.2.0/24"],
    ["198.51.100.0/24", "192.0.2.12"],
]
GROUPS = ["AnonymousUsers", "None", "AnonymousUsers, ExchangeServers", "ExchangeServers"]


@st.composite
def receive_connectors(draw):
    found = [
        receive("Default Frontend EX1", AuthMechanism=draw(st.sampled_from([FULL, "Tls, Integrated", "Integrated"])))
    ]
    if draw(st.booleans()):
        found.append(receive("Default EX1", 2525, TlsCertificateName=draw(st.sampled_from(NAMES))))
    for number, ranges in enumerate(draw(st.lists(st.sampled_from(RANGES), unique_by=tuple, max_size=3))):
        auth = draw(st.sampled_from(AUTH))
        found.append(
            receive(
                f"Own {number}",
                draw(st.sampled_from([25, 25, 587])),
                RemoteIPRanges=ranges,
                AuthMechanism=auth,
                PermissionGroups=draw(st.sampled_from(GROUPS)),
                RequireTLS="Tls" in auth and draw(st.booleans()),
                TlsCertificateName=draw(st.sampled_from(NAMES)),
                Enabled=draw(st.sampled_from([True, True, True, False])),
                Fqdn=draw(st.sampled_from([None, "ex1.example.com", "mail.example.com"])),
            )
        )
    return found


def send_states():
    return st.sampled_from(
        [
            {},
            {"IgnoreSTARTTLS": True},
            {"RequireTLS": True},
            *({"RequireTLS": True, "TlsAuthLevel": level} for level in ("EncryptionOnly", "CertificateValidation")),
            {"RequireTLS": True, "TlsAuthLevel": "DomainValidation", "TlsDomain": "gw.example.net"},
        ]
    )


@st.composite
def send_connectors(draw):
    return [
        send(
            name,
            AddressSpaces=[f"SMTP:{space};1"],
            SmartHosts=draw(
                st.sampled_from([["gw1.example.com"], ["[192.0.2.10]"], ["a.example.com", "gw1.example.com"]])
            ),
            TlsCertificateName=draw(st.sampled_from(NAMES)),
            SourceTransportServers=draw(st.sampled_from([[SERVER], [SERVER, "EX2"], ["EX2"]])),
            Enabled=draw(st.sampled_from([True, True, False])),
            CloudServicesMailEnabled=draw(st.sampled_from([False, False, True])),
            **draw(send_states()),
        )
        for name, space in draw(st.lists(st.sampled_from([("all", "*"), ("org", "example.org")]), unique=True))
    ]


@st.composite
def organisations(draw):
    certificates = [
        certificate(INTERNAL, "CN=EX1", "CN=EX1", ["EX1", "ex1.example.com"], "IIS, SMTP"),
        certificate(
            PUBLIC,
            "CN=mail.example.com",
            "CN=Authority 1",
            ["mail.example.com"],
            draw(st.sampled_from(["SMTP", "IIS, SMTP", "IIS"])),
        ),
    ]
    if draw(st.booleans()):
        certificates.append(
            certificate(NEW, "CN=mail.example.com", "CN=Authority 2", ["mail.example.com", "ex1.example.com"], "None")
        )
    found = organisation(
        ExchangeCertificates=certificates,
        ReceiveConnectors=draw(receive_connectors()),
        SendConnectors=draw(send_connectors()),
    )
    # One that the interpreter does not take is none that Exchange would have.
    strict = StrictExchange(found)
    try:
        for one in strict.state["ReceiveConnectors"]:
            strict._check_receive(one, one)
    except Refused:
        assume(False)
    return found


@st.composite
def wishes(draw):
    issuer = draw(st.sampled_from(["CN=Authority 1", "CN=Authority 2"]))
    bought = WantedCertificate(NEW, issuer, "CN=mail.example.com", ("mail.example.com", "ex1.example.com"))
    clients = [
        NamedClient(name, (address,), draw(st.booleans()))
        for name, address in draw(
            st.lists(st.sampled_from([("gw1", "192.0.2.10"), ("gw2", "192.0.2.10-192.0.2.11")]), unique=True)
        )
    ]
    peer = ExchangePeer(
        "relay2",
        ("relay2.example.com",),
        draw(st.sampled_from([("example.org",), ("example.net", "example.info")])),
        level=draw(st.sampled_from(["required", "opportunistic"])),
        check=draw(st.sampled_from(sorted(AUTH_LEVELS))),
    )
    return WantedExchange(
        inbound=draw(st.sampled_from([None, "disabled", "offered", "required"])),
        outbound=draw(st.sampled_from([None, "disabled", "opportunistic", "required"])),
        check=draw(st.sampled_from(sorted(AUTH_LEVELS))),
        clients=tuple(clients),
        next_hops=draw(st.sampled_from([(), ("gw1.example.com",)])),
        certificate=draw(st.sampled_from([None, bought])),
        send_certificate=draw(st.booleans()),
        others_with_certificate=draw(st.sampled_from([(), ("EX2",)])),
        internal_certificate=draw(st.booleans()),
        peers=(peer,) if draw(st.booleans()) else (),
        relax=draw(st.booleans()),
        remove_former=draw(st.booleans()),
    )


def start(observed, wanted):
    one = wanted.certificate
    return StrictExchange(observed, one and certificate(one.thumbprint, one.subject, one.issuer, list(one.domains)))


@settings(max_examples=120)
@given(organisations(), wishes())
def test_a_plan_is_legal_predicted_complete_and_undone(observed, wanted):
    holds(observed, wanted)


@pytest.mark.exhaustive
@settings(max_examples=5000)
@given(organisations(), wishes())
def test_many_plans_are_legal_predicted_complete_and_undone(observed, wanted):
    holds(observed, wanted)


def holds(observed, wanted):
    planned = plan(observe(observed), wanted)
    if planned.obstacles:
        assert planned.calls == planned.last == () and planned.before == planned.after
        return
    strict = start(observed, wanted)
    states = [copy.deepcopy(strict.state)]
    for call in planned.calls:
        strict.run([call.to_json()])
        states.append(copy.deepcopy(strict.state))
    for count in range(len(planned.calls) + 1):  # each beginning is undone
        back = start(states[count], wanted)
        back.run(one.to_json() for one in undo(planned, count))
        assert without_services(back.look()) == without_services(start(states[0], wanted).look())
    strict.run(one.to_json() for one in planned.last)
    again = plan(observe(strict.state), replace(wanted, record=planned.record))
    assert again.obstacles == () and again.calls == ()
    assert again.before == planned.after
    assert again.record == planned.record
    if "certificate" not in "".join(call.cmdlet.lower() for call in planned.calls) or wanted.internal_certificate:
        return
    assert strict.state["TransportService"]["InternalTransportCertificateThumbprint"] == INTERNAL


def without_services(state):
    """Services are added and never taken away, so an undo leaves them, and a certificate that was there before keeps SMTP."""
    for one in state["ExchangeCertificates"]:
        one["Services"] = [word for word in one["Services"] if word not in ("SMTP", "None")]
    return state


@settings(max_examples=60)
@given(organisations(), wishes())
def test_nobody_elses_ranges_groups_and_names_are_touched(observed, wanted):
    planned = plan(observe(observed), wanted)
    strict = start(observed, wanted)
    strict.run(one.to_json() for one in (*planned.calls, *planned.last))
    after = {one["Identity"]: one for one in strict.state["ReceiveConnectors"]}
    for one in observed["ReceiveConnectors"]:
        for name in ("RemoteIPRanges", "PermissionGroups", "Fqdn", "Bindings", "Enabled", "TransportRole"):
            assert after[one["Identity"]][name] == one[name]
    assert {
        name.partition("\\")[2][:15]
        for name in after.keys() - {one["Identity"] for one in observed["ReceiveConnectors"]}
    } <= {"mailfleet_peer_"}


@settings(max_examples=60)
@given(organisations(), wishes())
def test_nobody_who_was_not_named_is_turned_away(observed, wanted):
    """A connector that begins to require TLS serves the named clients alone."""
    planned = plan(observe(observed), wanted)
    strict = start(observed, wanted)
    before = {one["Identity"]: one["RequireTLS"] for one in observed["ReceiveConnectors"]}
    strict.run(one.to_json() for one in planned.calls)
    named = [parse_range(text) for client in wanted.clients for text in client.addresses]
    for probe in ("192.0.2.9", "192.0.2.10", "192.0.2.11", "192.0.2.12", "198.51.100.3", "203.0.113.1"):
        address = parse_range(probe)
        if any(one.low <= address.low <= one.high for one in named):
            continue
        serves = narrowest(strict.state["ReceiveConnectors"], address)
        if serves is not None and serves["RequireTLS"]:
            assert before.get(serves["Identity"]) is True


def narrowest(connectors, address):
    best = None
    for one in connectors:
        for span in map(parse_range, one["RemoteIPRanges"]):
            holds = (
                span.version == 4
                and span.low <= address.low <= span.high
                and one["Enabled"]
                and "0.0.0.0:25" in one["Bindings"]
            )
            if holds and (best is None or span.size < best[0]):
                best = (span.size, one)
    return best and best[1]


@settings(max_examples=60)
@given(organisations(), wishes().filter(lambda one: "disabled" not in (one.inbound, one.outbound)))
def test_uninstall_after_a_change_leaves_what_was_there(observed, wanted):
    wanted = replace(wanted, remove_former=False, internal_certificate=False)
    planned = plan(observe(observed), wanted)
    if planned.obstacles:
        return
    strict = start(observed, wanted)
    strict.run(one.to_json() for one in planned.calls)
    back = uninstall(observe(strict.state), planned.record)
    assert back.obstacles == ()
    strict.run(one.to_json() for one in (*back.calls, *back.last))
    found, was = without_services(strict.look()), without_services(StrictExchange(observed).look())
    for kind in ("ReceiveConnectors", "SendConnectors"):
        for one, other in zip(found[kind], was[kind]):
            gone = other["TlsCertificateName"] == "<I>CN=gone<S>CN=gone"  # is not named again
            same_name = (one["TlsCertificateName"] or "").lower() == (other["TlsCertificateName"] or "").lower()
            assert {**one, "TlsCertificateName": 0} == {**other, "TlsCertificateName": 0} and (same_name or gone)
        assert len(found[kind]) == len(was[kind])


@settings(max_examples=60)
@given(organisations(), wishes())
def test_the_prediction_is_what_happens(observed, wanted):
    planned = plan(observe(observed), wanted)
    strict = start(observed, wanted)
    strict.run(one.to_json() for one in planned.calls)
    predicted = simulate(observe(observed), planned.calls, wanted.certificate)
    happened = observe(strict.state)
    for kind in ("receive_connectors", "send_connectors"):
        by_name = {one.identity: one for one in getattr(happened, kind)}
        assert {one.identity for one in getattr(predicted, kind)} == set(by_name)
        for one in getattr(predicted, kind):
            there = by_name[one.identity]
            for name, value in one.values.items():
                assert value == there.values[name] or one.words(name) == there.words(name), name
    assert predicted.internal_thumbprint == happened.internal_thumbprint


MECHANISMS = st.frozensets(
    st.sampled_from(
        ["Tls", "Integrated", "BasicAuth", "BasicAuthRequireTLS", "ExchangeServer", "ExternalAuthoritative"]
    )
)
RECEIVE = st.builds(ReceiveTls, MECHANISMS, st.booleans(), st.sampled_from([None, OLD])).filter(lambda one: one.legal)
LEVELS = [None, "EncryptionOnly", "CertificateValidation", "DomainValidation"]
SEND = st.builds(
    SendTls,
    st.booleans(),
    st.booleans(),
    st.sampled_from(LEVELS),
    st.sampled_from([None, "a.example", "b.example"]),
    st.sampled_from([None, OLD]),
).filter(lambda one: one.legal)


@given(RECEIVE, RECEIVE)
def test_every_step_of_a_receive_connector_ends_in_a_legal_state(before, after):
    now = before
    for step in receive_steps(before, after):
        now = now.after(step)
        assert now.legal
    assert now == after


@given(SEND, SEND)
def test_every_step_of_a_send_connector_ends_in_a_legal_state(before, after):
    now = before
    for step in send_steps(before, after):
        later = now.after(step)
        assert later.legal
        if step.get("TlsAuthLevel"):
            assert not now.ignore and later.require
        now = later
    assert now == after
