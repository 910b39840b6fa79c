"""Trust stores of the controller, and the path that explains. That OpenSSL decides is in test_trust.py."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import roots as roots_module
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import Certificate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.roots import (
    Roots,
    build_path,
    system_roots,
)

from tests.support.chains import Chains, leaf
from tests.support.odd_certificates import der
from tests.support.pki import Authority, now, pem

NAME = "mx.example.com"


@pytest.fixture(scope="module")
def chains():
    return Chains()


@pytest.fixture(scope="module")
def good(chains):
    return chains.served()


class TestRoots:
    def test_what_cannot_be_read_is_left_out(self, authority, good):
        text = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + authority.root_pem
        roots = Roots.of_pem(text + pem(Certificate.load(good.roots[0]).parsed))
        assert roots.distrust(good.served) == ""
        assert [one.subject for one in roots.issuers_of(Certificate.load(good.served[1]))] == ["CN=Example Root"]

    @pytest.mark.parametrize("ders", [[], [b"garbage"]])
    def test_a_store_without_a_root_trusts_nothing(self, good, ders):
        assert Roots(ders).distrust(good.served) == "unable to get local issuer certificate"

    def test_what_openssl_cannot_read_is_not_trusted(self, good):
        assert Roots(good.roots).distrust([b"garbage"]) == "OpenSSL cannot read the chain"

    def test_the_system_store(self, good):
        assert Roots.of_system().distrust(good.served) == "unable to get local issuer certificate"
        ders, name = system_roots()
        assert ders and name.startswith("the controller's system store (/")
        assert Roots.of_system().distrust(ders[:1]) in ("", "certificate has expired", "unsuitable certificate purpose")

    def test_openssl_without_a_store_of_its_own_gets_the_one_that_was_found(self, good, tmp_path, monkeypatch):
        (tmp_path / "bundle").write_bytes(pem(Certificate.load(good.roots[0]).parsed))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
        monkeypatch.setattr(roots_module, "_CA_BUNDLES", (str(tmp_path / "bundle"),))
        paths = roots_module.ssl.get_default_verify_paths()._replace(cafile=None, openssl_cafile="")
        monkeypatch.setattr(roots_module.ssl, "get_default_verify_paths", lambda: paths)
        assert Roots.of_system().distrust(good.served) == ""


class TestPath:
    def test_it_ends_although_certificates_sign_each_other(self, chains):
        first, *others = [Certificate.load(der) for der in chains.circle().served]
        assert build_path(first, others, now()) == [first, *others]

    def test_a_chain_of_many_that_sign_each_other_costs_little(self, monkeypatch, authority):
        copies = [authority.with_intermediate().intermediate.certificate for _ in range(40)]
        loaded = [Certificate.load(der(one)) for one in [authority.issue([NAME]).certificate, *copies]]
        asked = []
        monkeypatch.setattr(Certificate, "names_as_issuer", lambda _one, _other: True)
        monkeypatch.setattr(Certificate, "is_issued_by", lambda one, other: asked.append(1) or one is not other)
        assert len(roots_module.served_path(loaded, now())) == roots_module.MAX_CHAIN
        assert len(asked) < 400

    def test_a_trusted_chain_is_not_verified_again_unless_two_have_the_issuers_name(self, monkeypatch, chains):
        first, other, middle = [Certificate.load(der) for der in chains.same_name(first=False).served]
        asked, verify = [], Certificate.is_issued_by
        monkeypatch.setattr(Certificate, "is_issued_by", lambda one, issuer: asked.append(1) or verify(one, issuer))
        assert build_path(first, [middle], now(), is_trusted=True) == [first, middle] and not asked
        assert build_path(first, [other, middle], now(), is_trusted=True) == [first, middle] and asked
        assert build_path(first, [other], now()) == [first]

    def test_letter_case_and_blanks_of_an_issuer_do_not_count(self, chains):
        for name in ("issuer in capitals", "issuer with blanks"):
            first, middle = [Certificate.load(der) for der in chains.table()[name]().served]
            assert first.issuer != middle.subject
            assert build_path(first, [middle], now()) == [first, middle]

    def test_another_name_is_no_issuer(self, chains):
        other = Authority.create("Other")
        first = Certificate.load(leaf(chains.middle).der)
        assert not first.is_issued_by(Certificate.load(der(other.root.certificate)))
