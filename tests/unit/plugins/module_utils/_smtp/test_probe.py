import base64
import dataclasses
import gc
import hashlib
import os
import resource
import signal
import ssl
import time
import zlib
from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp import probe
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.probe import (
    CHECKS,
    PROBED_VERSIONS,
    Probe,
    probe_all,
    unpack,
)
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.alarm import at_most
from tests.support.pki import self_signed
from tests.support.smtp_server import PLAIN, Face, server_context, serving

NAME = "mail.example.com"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def good(authority):
    return authority.issue([NAME])


@pytest.fixture(scope="module")
def settings(authority):
    return Settings(ca_pem=authority.root_pem.decode(), helo_name="client.example.org", timeout=10, total_timeout=20)


def context_for(directory, issued, version=None):
    context = server_context(directory, issued)
    if version:
        context.minimum_version = context.maximum_version = version
    return context


@pytest.fixture(scope="module")
def face(directory, good):
    return Face(context=context_for(directory, good))


def examine(face, settings, *checks, mode="full", protocol="smtp"):
    """The result for a server with this face, and how many connections it took."""
    with serving(face) as server, at_most(30):
        results, certificates = unpack(
            probe_all([Target(server.host, server.port, NAME, protocol)], Probe(settings, mode, checks))
        )
        return results[0], certificates, server.connections


# One target


def test_everything_that_is_known_of_a_good_server(face, settings, good):
    seen, certificates, connections = examine(face, settings)
    assert (seen["completed"], seen["trusted"], seen["code"], connections) == (True, True, "", 1)
    assert (seen["protocol"], seen["mode"]) == ("smtp", "full")
    assert (seen["tls_version"], seen["group"], seen["client_certificate"]) == ("TLSv1.3", "x25519", "not_requested")
    assert list(seen["timings"]) == ["connect", "greeting", "ehlo", "starttls", "tls", "ehlo_tls"]
    assert (seen["versions"], seen["injection"], seen["resumption"]) == ({}, None, None)
    assert "chain_pem" not in seen
    assert "".join(certificates[one] for one in seen["chain_sha256"]) == good.fullchain_pem.decode()
    assert seen["fingerprint_sha256"] == seen["chain_sha256"][0]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_every_check_of_a_good_server(directory, good, settings, version):
    seen, _certificates, connections = examine(Face(context=context_for(directory, good, version)), settings, *CHECKS)
    assert seen["versions"] == {
        "TLSv1": False, "TLSv1.1": False,
        "TLSv1.2": version is ssl.TLSVersion.TLSv1_2, "TLSv1.3": version is ssl.TLSVersion.TLSv1_3,
    }  # fmt: skip
    assert (seen["injection"], seen["resumption"], seen["large_hello"]) == (False, True, True)
    assert connections == 7  # the version that was agreed is not asked for again
    assert seen["seconds"] >= sum(seen["timings"].values()) - 0.001


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_commands_injected_behind_starttls_that_are_answered(directory, good, settings, version):
    vulnerable = Face(context=context_for(directory, good, version), injectable=True)
    started = time.monotonic()
    seen, _certificates, connections = examine(vulnerable, settings, "injection")
    assert (seen["injection"], connections) == (True, 2)
    assert time.monotonic() - started < 5  # nothing is waited for


def test_a_server_without_resumption(directory, good, settings):
    context = context_for(directory, good, ssl.TLSVersion.TLSv1_3)
    context.num_tickets = 0
    seen, _certificates, connections = examine(Face(context=context), settings, "resumption")
    assert (seen["resumption"], connections) == (False, 1)


def test_a_session_of_another_server_is_not_taken_up_again(directory, good, settings):
    """Two servers behind one address that do not share their keys."""
    contexts = iter([context_for(directory, good) for _ in range(2)])
    with serving(Face(context=next(contexts))) as server:
        target = Target(server.host, server.port, NAME)
        original = probe._resumption

        def swap(*arguments):
            server.face = dataclasses.replace(server.face, context=next(contexts))
            return original(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(probe, "_resumption", swap)
            results, _certificates = unpack(probe_all([target], Probe(settings, "full", ("resumption",))))
    assert results[0]["resumption"] is False


def test_what_cannot_be_found_out_stays_open(settings):
    seen, _certificates, connections = examine(PLAIN, settings, *CHECKS)
    assert seen["versions"] == dict.fromkeys(PROBED_VERSIONS)
    assert (seen["injection"], seen["resumption"], connections) == (None, None, 1)


def test_versions_are_asked_for_though_the_handshake_failed(directory, good, settings):
    context = context_for(directory, good)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")  # and an ECDSA key
    seen, _certificates, connections = examine(Face(context=context), settings, *CHECKS)
    assert (seen["code"], connections) == ("tls_failed", 6)
    assert list(seen["versions"].values()) == [False] * 4
    assert seen["injection"] is None  # nothing can be asked inside TLS, whoever sends it


def test_a_server_that_goes_away_after_the_first_test(face, settings):
    def examine_one(server):
        target = Target(server.host, server.port, NAME)
        original = probe._versions

        def leave(*arguments):
            server.face = Face(greeting=b"421 4.7.0 too many connections\r\n")
            return original(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(probe, "_versions", leave)
            return unpack(probe_all([target], Probe(settings, "full", CHECKS)))[0][0]

    with serving(face) as server:
        seen = examine_one(server)
    assert seen["completed"] is True
    assert seen["versions"] == {"TLSv1": None, "TLSv1.1": None, "TLSv1.2": None, "TLSv1.3": True}
    assert (seen["injection"], seen["resumption"]) == (None, None)


def test_implicit_tls(face, settings):
    inside = dataclasses.replace(face, implicit_tls=True)
    seen, _certificates, connections = examine(inside, settings, *CHECKS, protocol="smtps")
    assert (seen["completed"], seen["trusted"], seen["protocol"]) == (True, True, "smtps")
    assert (seen["starttls_advertised"], seen["starttls_reply"]) == (False, "")
    assert (seen["greeting"], seen["capabilities"]) == ("220 mail.example.com ESMTP ready", [])
    assert seen["capabilities_tls"] == ["PIPELINING", "AUTH PLAIN"]
    assert list(seen["timings"]) == ["connect", "tls", "ehlo_tls"]
    assert seen["versions"]["TLSv1.2"] is True and seen["versions"]["TLSv1.3"] is True
    assert (seen["injection"], seen["resumption"], connections) == (None, True, 6)


def test_implicit_tls_asked_of_a_server_that_speaks_in_plaintext(face, settings):
    seen, _certificates, _connections = examine(face, settings, "versions", protocol="smtps")
    assert (seen["stage"], seen["code"]) == ("connect", "tls_failed")
    assert True not in seen["versions"].values()


def test_lmtp(face, settings):
    with serving(face) as server:
        results, _certificates = unpack(probe_all([Target(server.host, server.port, NAME, "lmtp")], Probe(settings)))
        assert server.commands[:3] == [b"LHLO client.example.org", b"STARTTLS", b"LHLO client.example.org"]
    assert (results[0]["completed"], results[0]["protocol"]) == (True, "lmtp")


# Surveys


def test_a_survey(face, settings, good):
    seen, certificates, connections = examine(face, settings, mode="survey")
    assert (seen["mode"], seen["stage"], seen["code"], seen["completed"]) == ("survey", "starttls_answered", "", False)
    assert (seen["tls_version"], seen["group"], seen["trusted"], connections) == ("TLSv1.2", "x25519", None, 1)
    assert len(seen["chain_sha256"]) == 2 and len(certificates) == 2
    assert seen["key_exchange"]["algorithm"].startswith("ecdsa_")


def test_a_survey_of_a_server_without_tls_12_is_a_full_test(directory, good, settings):
    modern = Face(context=context_for(directory, good, ssl.TLSVersion.TLSv1_3))
    seen, _certificates, connections = examine(modern, settings, "versions", mode="survey")
    assert (seen["mode"], seen["completed"], seen["trusted"], seen["tls_version"]) == ("full", True, True, "TLSv1.3")
    assert seen["versions"] == {"TLSv1": False, "TLSv1.1": False, "TLSv1.2": False, "TLSv1.3": True}
    assert connections == 5


# Many targets, and several processes


@pytest.fixture
def shared(monkeypatch):
    """Two processes for any list."""
    monkeypatch.setattr(probe, "WORTH_A_FORK", 1)
    monkeypatch.setattr(probe, "_processes", lambda targets: 2 if targets > 1 else 1)


def mixed(server, plain, count):
    return [Target(server.host, server.port, NAME) if number % 3 else Target(plain.host, plain.port)
            for number in range(count)]  # fmt: skip


def test_several_processes_say_the_same_as_one(face, settings, shared):
    told = []
    with serving(face) as server, serving(PLAIN) as plain, at_most(60):
        results, certificates = unpack(probe_all(mixed(server, plain, 40), Probe(settings), told.append))
    assert [one["code"] for one in results] == ["" if number % 3 else "starttls_not_offered" for number in range(40)]
    assert len(certificates) == 2
    assert told[-1] == 40 and told == sorted(told)


def test_the_share_of_a_child_that_was_killed_is_made_up_for(face, settings, shared, monkeypatch):
    original, parent = probe._examine_all, os.getpid()

    def die(*arguments):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        original(*arguments)

    monkeypatch.setattr(probe, "_examine_all", die)
    with serving(face) as server, at_most(60):
        results, _certificates = unpack(probe_all([Target(server.host, server.port, NAME)] * 10, Probe(settings)))
    assert [one["completed"] for one in results] == [True] * 10


def test_children_that_cannot_be_waited_for_are_heard_all_the_same(face, settings, shared, monkeypatch):
    original, parent, shares = probe._examine_all, os.getpid(), []

    def note(targets, places, *rest):
        if os.getpid() == parent:
            shares.append(len(places))
        original(targets, places, *rest)

    monkeypatch.setattr(probe, "_examine_all", note)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with serving(face) as server, at_most(60):
            results, _certificates = unpack(probe_all([Target(server.host, server.port, NAME)] * 20, Probe(settings)))
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert [one["completed"] for one in results] == [True] * 20
    assert shares == [10], "nothing was done twice"


def test_one_at_a_time_means_one_process(face, settings, shared, monkeypatch):
    def refuse(*_):
        raise AssertionError("there is no need for another process")

    monkeypatch.setattr(probe, "_fork", refuse)
    with serving(face) as server, at_most(60):
        careful = Probe(replace(settings, concurrency=1))
        results, _certificates = unpack(probe_all([Target(server.host, server.port, NAME)] * 3, careful))
    assert [one["completed"] for one in results] == [True] * 3


@pytest.mark.parametrize("what", ["fork", "pipe"])
def test_without_more_processes_this_one_does_it_all(face, settings, shared, monkeypatch, what):
    def refuse(*_):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(probe.os, what, refuse)
    with serving(face) as server, at_most(60):
        results, _certificates = unpack(probe_all([Target(server.host, server.port, NAME)] * 10, Probe(settings)))
    assert [one["completed"] for one in results] == [True] * 10


def test_when_a_list_is_worth_more_processes(monkeypatch):
    monkeypatch.setattr(probe.threading, "active_count", lambda: 1)
    assert probe._processes(500) == 1
    assert probe._processes(501) == min(8, len(os.sched_getaffinity(0)))
    monkeypatch.setattr(probe.threading, "active_count", lambda: 2)  # a fork would not be safe
    assert probe._processes(501) == 1


def test_the_limit_of_open_files(monkeypatch, settings):
    limits = [(256, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _what: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _what, new: limits.append(new))
    many = dataclasses.replace(settings, concurrency=1000)
    assert probe._within_file_limit(many, 100, 1).concurrency == 100
    assert limits == [(256, 4096)]
    assert probe._within_file_limit(many, 5000, 1).concurrency == 1000
    assert limits[-1] == (1000 + probe.SPARE_FILES, 4096)
    limits[:] = [(256, 512)]
    assert probe._within_file_limit(many, 5000, 1).concurrency == 512 - probe.SPARE_FILES
    limits[:] = [(256, 512)]
    monkeypatch.setattr(resource, "setrlimit", lambda *_: (_ for _ in ()).throw(ValueError("not allowed")))
    assert probe._within_file_limit(many, 5000, 2).concurrency == 256 - probe.SPARE_FILES


def test_nothing_is_left_for_the_garbage_collector(face, settings):
    with serving(face) as server:
        target = Target(server.host, server.port, NAME)
        probe_all([target], Probe(settings, "full", CHECKS))
        gc.collect()
        gc.disable()
        try:
            probe_all([target] * 20, Probe(settings, "full", CHECKS))
            assert gc.collect() < 200
        finally:
            gc.enable()


# Packing


def test_a_certificate_is_told_once(face, settings, directory):
    own = self_signed([NAME])
    with serving(face) as server, serving(Face(context=context_for(directory, own))) as other:
        targets = [Target(one.host, one.port, NAME) for one in (server, other) * 10]
        results, certificates = unpack(probe_all(targets, Probe(settings)))
    assert len(certificates) == 3
    assert [one["trusted"] for one in results] == [True, False] * 10
    der = own.certificate.public_bytes(Encoding.DER)
    assert certificates[hashlib.sha256(der).hexdigest()] == ssl.DER_cert_to_PEM_cert(der)


def pack(text):
    return base64.b64encode(zlib.compress(text)).decode()


@pytest.mark.parametrize(
    "packed",
    [
        "?", "abcd", base64.b64encode(b"x" * 40).decode(), pack(b"R0 {")[:-8], pack(b"R0 {"), pack(b"Rx {}"),
        pack(b"C?"), pack(b"R0 \xff"), "\u00e9",
    ],
)  # fmt: skip
def test_packed_results_that_cannot_be_read(packed):
    with pytest.raises(ValueError, match="the packed results cannot be read"):
        unpack(packed)


def test_packed_results_are_read_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(probe, "PACKED_BYTES", 100)
    with pytest.raises(ValueError, match="too large"):
        unpack(pack(b" " * 200))
