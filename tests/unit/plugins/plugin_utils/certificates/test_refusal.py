"""The words for a chain that OpenSSL refuses: which certificate is at fault, and what it says."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import Certificate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.refusal import explain_refusal
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.roots import Roots

from tests.support.chains import Chains

TABLE = Chains().table()
LEAF, ODD = "CN=mx.example.com", "CN=Odd Intermediate"


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "names not permitted": f"{ODD} allows only these names: example.org",
        "names excluded": f"{ODD} forbids these names: example.com",
        "addresses not permitted": "CN=Constrained Intermediate allows only these names: 198.51.100.0/24",
        "names not permitted by the root": "CN=Odd Root allows only these names: example.org",
        "unknown critical extension": f"{LEAF} has the critical extension 1.3.6.1.4.1.55555.1, which OpenSSL does not know",
        "unknown critical extension of the root": "CN=Odd Root has the critical extension",
        "key identifier of another key": f"{LEAF} names another key of CN=Example Intermediate as its issuer",
        "key identifier of another key, intermediate": f"{ODD} names another key of CN=Example Root as its issuer",
        "serial of another issuer": f"{LEAF} names another certificate of CN=Example Intermediate as its issuer",
        "leaf for any purpose": f"the extended key usage of {LEAF} lacks serverAuth",
        "intermediate for clients": f"the extended key usage of {ODD} lacks serverAuth",
        "root for clients": "the extended key usage of CN=Odd Root lacks serverAuth",
        "key usage CRL": f"the certificate {LEAF} may not be used for TLS: its key usage is cRLSign",
        "root is no CA": "CN=Odd Root: invalid CA certificate",
        "root without any extension": "CN=Odd Root: invalid CA certificate",
        "path length of the root": "CN=Odd Root: path length constraint exceeded",
        "RSA 1024 root": "the certificate CN=Odd Root has a weak key (RSA, 1024 bits)",
        "proxy certificate": f"{LEAF} is a proxy certificate",
        "names are garbage": f"{LEAF} has extensions that cannot be decoded",
    }.items(),
)
def test_the_certificate_is_named(name, words):
    chain = TABLE[name]()
    roots = Roots(chain.roots)
    path = [Certificate.load(der) for der in (*chain.served, *chain.roots)]
    assert explain_refusal(roots.distrust(chain.served), path).startswith(words)


@pytest.mark.parametrize("name", ["no intermediate", "unknown root, served", "signature of the leaf corrupted"])
def test_openssls_own_words_are_enough(name):
    chain = TABLE[name]()
    path = [Certificate.load(der) for der in chain.served]
    assert explain_refusal(Roots(chain.roots).distrust(chain.served), path) == ""
