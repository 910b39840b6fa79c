"""The trust in served chains, beside openssl."""

import subprocess
from datetime import timedelta

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import Certificate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.roots import Roots
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.pki import Authority, now, pem, self_signed

NAME = "mx.example.com"


def _whole(issued):
    return [issued.certificate, *issued.chain]


def _served_chains(ca):
    """Name -> (served chain, roots) of all kinds, good and bad."""
    root = [ca.root.certificate]
    other, namesake, mine = Authority.create("Other"), Authority.create("Example"), self_signed([NAME])
    old = {"not_before": now() - timedelta(days=9), "not_after": now() - timedelta(days=1)}
    signer = ca.issue(["signer.example.com"])
    good = ca.issue([NAME])
    too_deep = Authority(ca.root, Authority(ca.root, ca.intermediate).with_intermediate().intermediate)
    return {
        "good": (_whole(good), root),
        "with the root": ([*_whole(good), *root], root),
        "in any order": ([good.certificate, other.root.certificate, *root, *good.chain], root),
        "no intermediate": ([good.certificate], root),
        "intermediate in the store": ([good.certificate], [*root, *good.chain]),
        "intermediate alone in the store": ([good.certificate], good.chain),
        "another root": (_whole(other.issue([NAME])), root),
        "a root of the same name": (_whole(namesake.issue([NAME])), root),
        "a root that nobody knows": ([*_whole(good), *root], [other.root.certificate]),
        "self-signed": ([mine.certificate], root),
        "self-signed and named": ([mine.certificate], [mine.certificate]),
        "expired": (_whole(ca.expired([NAME])), root),
        "not yet valid": (_whole(ca.not_yet_valid([NAME])), root),
        "expired intermediate": (_whole(ca.with_intermediate(**old).issue([NAME])), root),
        "signed by the root": ([Authority(ca.root, ca.root).issue([NAME]).certificate], root),
        "signed by a leaf": ([Authority(ca.root, signer).issue([NAME]).certificate, *_whole(signer)], root),
        "another intermediate": (_whole(too_deep.issue([NAME])), root),
        "for clients": (_whole(ca.issue([NAME], purposes=[ExtendedKeyUsageOID.CLIENT_AUTH])), root),
        "without names": (_whole(ca.issue([], common_name=NAME)), root),
        "weak leaf": (_whole(ca.issue([NAME], key="rsa-1024")), root),
        "P-224 leaf": (_whole(ca.issue([NAME], key=ec.generate_private_key(ec.SECP224R1()))), root),
        "weak intermediate": (_whole(ca.with_intermediate(key="rsa-1024").issue([NAME])), root),
        "RSA": (_whole(ca.with_intermediate(key="rsa").issue([NAME], key="rsa")), root),
        "Ed25519": (_whole(ca.issue([NAME], key="ed25519")), root),
        "SHA-1": (_whole(ca.with_intermediate(key="rsa").issue([NAME], signature_hash=hashes.SHA1())), root),
    }


@pytest.fixture(scope="module")
def chains(authority):
    return _served_chains(authority)


class TestRoots:
    """Trust is decided as OpenSSL decides it."""

    @pytest.mark.parametrize("name", list(_served_chains(Authority.create("Example"))))
    def test_it_agrees_with_openssl(self, chains, tmp_path, name):
        served, roots = chains[name]
        (tmp_path / "roots").write_bytes(pem(*roots))
        (tmp_path / "leaf").write_bytes(pem(served[0]))
        (tmp_path / "others").write_bytes(pem(*served[1:]))
        others = ["-untrusted", "others"] if served[1:] else []
        done = subprocess.run(
            ["openssl", "verify", "-no-CApath", "-no-CAstore", "-CAfile", "roots", *others, "-purpose", "sslserver",
             "-auth_level", "2", "leaf"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        loaded = [Certificate.load(one.public_bytes(Encoding.DER)) for one in served]
        reason = Roots.of_pem(pem(*roots)).distrust(loaded, now())
        first = next((line.partition("lookup: ")[2] for line in done.stderr.splitlines() if "lookup: " in line), "")
        # OpenSSL has another word for an issuer that is missing behind a certificate of the store itself.
        assert (bool(reason), reason) == (done.returncode != 0, first.replace("get issuer", "get local issuer")), (
            done.stderr
        )

    def test_what_cannot_be_read_is_left_out(self, authority):
        text = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + authority.root_pem
        loaded = [Certificate.load(one.public_bytes(Encoding.DER)) for one in _whole(authority.issue([NAME]))]
        assert Roots.of_pem(text).distrust(loaded, now()) == ""

    def test_the_system_store(self, authority):
        loaded = [Certificate.load(one.public_bytes(Encoding.DER)) for one in _whole(authority.issue([NAME]))]
        assert Roots.of_system().distrust(loaded, now()) == "unable to get local issuer certificate"

    def test_a_chain_of_many_that_sign_each_other_costs_little(self, monkeypatch, authority):
        copies = [authority.with_intermediate().intermediate.certificate for _ in range(40)]
        loaded = [
            Certificate.load(one.public_bytes(Encoding.DER)) for one in [authority.issue([NAME]).certificate, *copies]
        ]
        asked = []
        monkeypatch.setattr(Certificate, "is_issued_by", lambda one, other: asked.append(1) or one is not other)
        assert Roots([]).distrust(loaded, now())
        assert len(asked) < 400
