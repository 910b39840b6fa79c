"""The same certificate gets the same verdict when it is installed, when it is probed, and when it is surveyed."""

import datetime as dt

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import Certificate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.roots import Roots
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import (
    Certificates,
    Evidence,
    Expectation,
    assess_handshake,
)
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.both_sides import check_certificate
from tests.support.pki import Authority, now, pem, self_signed

NAME = "mx.example.com"
OLD = {"not_before": now() - dt.timedelta(days=9), "not_after": now() - dt.timedelta(days=1)}

# What each side calls a chain that is not trusted: the installing side sees the files, the probing side what is served.
UNTRUSTED = {"untrusted", "self_signed", "chain_incomplete", "wrong_purpose", "issuer_not_ca"}
# Users know one fault by two codes: the name is asked for by the task, or it is the server's.
NAMES = {"name_not_covered", "name_mismatch"}


def p224():
    return ec.generate_private_key(ec.SECP224R1())


# Name -> how it is issued, the name it is used for, and the finding that both sides have to report: a code, None where
# there is no error, "untrusted" for any of UNTRUSTED, or "another_name" for any of NAMES.
TABLE = {
    "good": (lambda ca: ca.issue([NAME]), NAME, None),
    "RSA 2048": (lambda ca: ca.issue([NAME], key="rsa"), NAME, None),
    "Ed25519": (lambda ca: ca.issue([NAME], key="ed25519"), NAME, None),
    "P-224": (lambda ca: ca.issue([NAME], key=p224()), NAME, "weak_key"),
    "RSA 1024": (lambda ca: ca.issue([NAME], key="rsa-1024"), NAME, "weak_key"),
    "weak intermediate": (lambda ca: ca.with_intermediate(key="rsa-1024").issue([NAME]), NAME, "weak_key"),
    "SHA-1": (
        lambda ca: ca.with_intermediate(key="rsa").issue([NAME], signature_hash=hashes.SHA1()),
        NAME,
        "weak_signature",
    ),
    "MD5": (
        lambda ca: ca.with_intermediate(key="rsa").issue([NAME], signature_hash=hashes.MD5()),
        NAME,
        "weak_signature",
    ),
    "expired": (lambda ca: ca.expired([NAME]), NAME, "expired"),
    "not yet valid": (lambda ca: ca.not_yet_valid([NAME]), NAME, "not_yet_valid"),
    "three days left": (
        lambda ca: ca.issue([NAME], not_after=now() + dt.timedelta(days=3, hours=1)),
        NAME,
        "expiring",
    ),
    "another name": (lambda ca: ca.issue(["other.example.com"]), NAME, "another_name"),
    "wildcard": (lambda ca: ca.issue(["*.example.com"]), NAME, None),
    "address": (lambda ca: ca.issue(["192.0.2.1"]), "192.0.2.1", None),
    "A-label": (lambda ca: ca.issue(["xn--bcher-kva.example"]), "b\u00fccher.example", None),
    "sharp s": (lambda ca: ca.issue(["xn--strae-oqa.example"]), "stra\u00dfe.example", "bad_name"),
    "sharp s in its ASCII form": (lambda ca: ca.issue(["xn--strae-oqa.example"]), "xn--strae-oqa.example", None),
    "common name only": (lambda ca: ca.issue([], common_name=NAME), NAME, None),
    "self-signed": (lambda ca: self_signed([NAME]), NAME, "untrusted"),
    "another root": (lambda ca: Authority.create("Other").issue([NAME]), NAME, "untrusted"),
    "signed by a leaf": (lambda ca: Authority(ca.root, ca.issue(["a.example.com"])).issue([NAME]), NAME, "untrusted"),
    "for clients": (lambda ca: ca.issue([NAME], purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]), NAME, "untrusted"),
}


def installing(issued, name, root_pem):
    result = check_certificate(issued.key_pem, issued.fullchain_pem, ca_pem=root_pem, names=[name], min_days_left=14)
    return result.findings, result.warnings


def probing(issued, name, root_pem, mode="full"):
    served = [issued.certificate, *issued.chain]
    roots = Roots.of_pem(root_pem)
    loaded = [Certificate.load(one.public_bytes(Encoding.DER)) for one in served]
    reason = roots.distrust([one.der for one in loaded])
    seen = {
        "host": "192.0.2.1", "port": 25, "mode": mode, "name": name, "stage": "ehlo_tls", "completed": True, "code": "",
        "message": "", "capabilities": [], "capabilities_tls": [], "tls_version": "TLSv1.3", "versions": {},
        "fingerprint_sha256": loaded[0].fingerprint_sha256, "chain_sha256": [one.fingerprint_sha256 for one in loaded],
        "trusted": None if mode == "survey" else not reason, "verify_error": "" if mode == "survey" else reason,
    }  # fmt: skip
    certificates = Certificates({one.fingerprint_sha256: pem(two).decode() for one, two in zip(loaded, served)})
    expected = Expectation(min_days_left=14)
    return assess_handshake(seen, expected, certificates, Evidence(roots=roots, has_key=True))["findings"]


def alike(codes):
    return {"untrusted" if code in UNTRUSTED else "another_name" if code in NAMES else code for code in codes}


@pytest.mark.parametrize("kind", TABLE)
def test_both_sides_say_the_same(authority, kind):
    issue, name, code = TABLE[kind]
    issued = issue(authority)
    errors, warnings = installing(issued, name, authority.root_pem)
    wanted = {code} if code else set()
    assert alike(one.code for one in errors) == wanted
    for mode in ("full", "survey"):
        found = probing(issued, name, authority.root_pem, mode)
        assert alike(one["code"] for one in found if one["severity"] == "error") == wanted, mode
        assert {one["code"] for one in found if one["severity"] == "warning"} == {one.code for one in warnings}, mode


def test_each_side_keeps_its_code_for_a_name(authority):
    issued = authority.issue(["other.example.com"])
    [[found], _warnings] = installing(issued, NAME, authority.root_pem)
    [seen] = probing(issued, NAME, authority.root_pem)
    assert (found.code, seen["code"]) == ("name_not_covered", "name_mismatch")


def test_the_common_name_is_a_warning_on_both_sides(authority):
    issued = authority.issue([], common_name=NAME)
    _errors, warnings = installing(issued, NAME, authority.root_pem)
    [found] = probing(issued, NAME, authority.root_pem)
    assert [one.code for one in warnings] == [found["code"]] == ["name_in_common_name_only"]


def test_the_messages_differ_in_the_name_of_the_certificate_only(authority):
    issued = authority.issue([NAME], key=p224())
    [[found], _warnings] = installing(issued, NAME, authority.root_pem)
    [seen] = probing(issued, NAME, authority.root_pem)
    assert found.message.replace(f"'CN={NAME}' of the certificate", f"CN={NAME}") == seen["message"]
