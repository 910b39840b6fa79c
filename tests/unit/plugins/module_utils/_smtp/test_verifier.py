"""OpenSSL's verdict without a connection. The chains themselves are in the tests of the controller's certificates."""

import ssl

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import make_context
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.verifier import MAX_KEPT, Verifier

from tests.support.chains import Chains


@pytest.fixture
def verifier(authority):
    return Verifier(make_context(authority.root_pem.decode(), verify=True))


def test_a_verdict_is_kept_and_forgotten_at_last(verifier, monkeypatch):
    verified = []
    monkeypatch.setattr(Verifier, "_verify", lambda _self, listed, _name: verified.append(listed) or "")
    for _ in range(3):
        verifier.verdict([b"chain"])
    assert len(verified) == 1
    verifier.verdict([b"chain"], "mx.example.com")
    assert len(verified) == 2
    for number in range(MAX_KEPT + 100):
        verifier.verdict([b"%d" % number])
    assert len(verifier._verdicts) < MAX_KEPT + 2


def test_one_chain_is_not_taken_for_another_one_with_the_same_bytes(verifier, monkeypatch):
    monkeypatch.setattr(Verifier, "_verify", lambda _self, listed, _name: str(len(listed)))
    assert (verifier.verdict([b"ab", b"c"]), verifier.verdict([b"abc"])) == ("16", "13")


@pytest.mark.parametrize("chain", [[], [b"garbage"], [b""], [b"\x30\x82" * 20000], [b"x"] * 100])
def test_a_chain_that_is_none_has_no_verdict(verifier, chain):
    assert verifier.verdict(chain) is None


def test_a_context_for_newer_versions_only_still_gives_a_verdict():
    good = Chains().served()
    context = make_context(ssl.DER_cert_to_PEM_cert(good.roots[0]), verify=True)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    assert Verifier(context).verdict(good.served) == ""
