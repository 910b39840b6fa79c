"""Every chain has one verdict: of openssl verify, of a real handshake, of the host's test, of a survey, of the installation."""

import contextlib
import functools
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass
from typing import Optional

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Settings,
    Target,
    Trust,
    handshake_one,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.roots import UNREADABLE, Roots
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.probe_results import Inquiry, complete

from tests.support.both_sides import check_certificate
from tests.support.chains import NAME, Chains, inside, split
from tests.support.pki import key_pem
from tests.support.smtp_server import Face, serving

_MADE = Chains()
_TABLE = _MADE.table()
# What each side calls a chain that is not trusted, or what it says instead.
_DISTRUST = frozenset(
    {"untrusted", "self_signed", "chain_incomplete", "wrong_purpose", "issuer_not_ca", "expired", "not_yet_valid",
     "weak_key", "weak_signature", "bad_certificate"}
)  # fmt: skip


def text(*ders):
    return "".join(pem.PemBlock("CERTIFICATE", der).text for der in ders)


def server_context(chain, path) -> Optional[ssl.SSLContext]:
    """A server that serves the chain, whatever it is. None if OpenSSL cannot load it."""
    path.write_bytes(key_pem(chain.key) + text(*chain.served).encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        context.load_cert_chain(path)
    except ssl.SSLError:
        return None
    return context


def real_handshake(context, roots) -> Optional[str]:
    """Why a client of Python's ssl refuses the server; empty if it trusts it, None if the handshake fails otherwise."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(cadata=b"".join(roots))
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            accepted, _peer = listener.accept()
            with accepted, context.wrap_socket(accepted, server_side=True):
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        with socket.create_connection(listener.getsockname(), timeout=10) as plain, client.wrap_socket(plain):
            return ""
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except ssl.SSLError:
        return None
    finally:
        thread.join(10)
        listener.close()


def program(chain, directory) -> str:
    """Why the program openssl refuses the chain; empty if it trusts it."""
    (directory / "roots").write_text(text(*chain.roots))
    (directory / "leaf").write_text(text(chain.served[0]))
    (directory / "others").write_text(text(*chain.served[1:]))
    others = ["-untrusted", "others"] if chain.served[1:] else []
    done = subprocess.run(
        ["openssl", "verify", "-no-CApath", "-no-CAstore", "-CAfile", "roots", *others, "-purpose", "sslserver",
         "-auth_level", "2", "leaf"],
        cwd=directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = [line.partition("lookup: ")[2] for line in done.stderr.splitlines() if "lookup: " in line]
    return (said or [done.stderr])[0] if done.returncode else ""


@functools.cache
def program_version() -> str:
    return subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True).stdout


@dataclass
class Verdicts:
    openssl: str
    real: Optional[str]
    host: Optional[str]
    host_by_connection: Optional[str]
    controller: str
    survey: list
    probe: list
    install: list

    @property
    def truth(self) -> str:
        """The reason of a real handshake; that of the program openssl where no server can serve the chain."""
        if self.real is not None:
            return self.real
        return UNREADABLE if self.host is None else self.openssl


def surveyed(chain, mode, trusted, reason):
    fingerprints = [pem.fingerprint(der) for der in chain.served]
    seen = {
        "host": "192.0.2.1", "port": 25, "mode": mode, "name": NAME, "stage": "ehlo_tls", "completed": True, "code": "",
        "message": "", "capabilities": [], "capabilities_tls": [], "tls_version": "TLSv1.2", "versions": {},
        "fingerprint_sha256": fingerprints[0], "chain_sha256": fingerprints, "trusted": trusted, "verify_error": reason,
    }  # fmt: skip
    raw = {
        "results": [seen],
        "certificates": {one: text(der) for one, der in zip(fingerprints, chain.served)},
        "expectations": [{"min_days_left": 0}],
    }
    return complete(raw, Inquiry(), text(*chain.roots))["results"][0]


def errors(findings):
    return {one["code"] for one in findings if one["severity"] == "error"}


def names_two_algorithms(der):
    signed, algorithm, _signature = split(inside(der))
    return algorithm not in split(inside(signed))


# The controller's library cannot read such a time. OpenSSL can, and refuses the chain for it.
_READ_BY_OPENSSL = {"time without seconds", "time with an offset"}


def ask_all(chain, directory, name=""):
    context = server_context(chain, directory / "bundle.pem")
    settings = Settings(ca_pem=text(*chain.roots), timeout=10)
    host = Trust(settings).verdict(chain.served, NAME)
    by_connection = None
    if context:
        with serving(Face(context=context)) as server:
            seen = handshake_one(Target(server.host, server.port, NAME), settings)
        if seen.chain:
            by_connection = seen.verify_error
            assert seen.trusted is (not by_connection)
    install = check_certificate(
        key_pem(chain.key),
        text(*chain.served),
        ca_pem=text(*chain.roots),
        names=[NAME],
        min_days_left=0,
        # With two algorithms the controller's library verifies by one, OpenSSL by none.
        alike=name not in _READ_BY_OPENSSL and not names_two_algorithms(chain.served[0]),
    )
    return Verdicts(
        openssl=program(chain, directory),
        real=real_handshake(context, chain.roots) if context else None,
        host=host,
        host_by_connection=by_connection,
        controller=Roots.of_pem(text(*chain.roots)).distrust(chain.served),
        survey=surveyed(chain, "survey", None, ""),
        probe=surveyed(chain, "full", host == "", UNREADABLE if host is None else host),
        install=[one.as_dict() for one in install.findings],
    )


# No server can serve these: OpenSSL refuses to load them (the time since version 3.5), or to use such a key.
_NOT_SERVED = {
    "P-224 leaf", "extensions twice: names", "extensions twice: key usage", "key usage is garbage", "names are garbage",
    "time without seconds",
}  # fmt: skip


def test_there_are_enough_chains():
    assert len(_TABLE) > 60


@pytest.mark.parametrize("name", _TABLE)
def test_all_say_the_same(tmp_path, name):
    """OpenSSL decides, wherever trust matters; our own code finds the words."""
    chain = _TABLE[name]()
    found = ask_all(chain, tmp_path, name)
    truth = found.truth
    assert found.real is not None or name in _NOT_SERVED
    assert bool(truth) == bool(found.openssl)
    if ssl.OPENSSL_VERSION in program_version():
        assert truth in (found.openssl, UNREADABLE)
    # The host, without a connection and with one
    assert (UNREADABLE if found.host is None else found.host) == truth
    assert found.host_by_connection == found.real
    # The controller: a survey, the words for a test that the host made, and the installation
    assert found.controller == truth
    assert (found.survey["trusted"], found.survey["verify_error"]) == (not truth, truth)
    for result in (found.survey, found.probe):
        said = errors(result["findings"]) & _DISTRUST
        assert bool(said) == bool(truth) or said <= chain.policy, result["findings"]
    said = errors(found.install)
    if truth:
        assert said & _DISTRUST, found.install
    else:
        assert said == chain.policy  # the policy is stricter, and says why
