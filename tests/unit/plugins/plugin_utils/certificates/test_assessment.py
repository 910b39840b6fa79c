"""A key, its certificate and the chain, checked before they are installed."""

import datetime as dt

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import roots as roots_module
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.assessment import Sources
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.assessment import (
    check_certificate as ask_controller,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    CertificateError,
    describe,
    iso_time,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.policy import covers
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from tests.support.both_sides import check_certificate
from tests.support.odd_certificates import (
    CA,
    CA_KEY,
    DAY,
    KEY,
    KEY_PEM,
    LEAF,
    NAME,
    NOW,
    ROOT,
    build,
    der,
    dns,
    text,
    usage,
)
from tests.support.pki import Authority, key_pem, self_signed


def assess(*certificates, key=KEY_PEM, chain=None, ca=ROOT, names=(NAME,), **options):
    return check_certificate(
        key,
        certificates[0] if isinstance(certificates[0], (str, bytes)) else text(*certificates),
        text(*chain) if isinstance(chain, (list, tuple)) else chain,
        ca_pem=text(ca) if isinstance(ca, x509.Certificate) else ca,
        names=names,
        now=options.pop("now", NOW),
        **options,
    )


def warned(result):
    return sorted(finding.code for finding in result.warnings)


def codes(result):
    return sorted({finding.code for finding in result.findings})


@pytest.fixture(scope="module")
def three():
    """Root, two intermediates and a leaf."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    upper = build("Upper CA", CA, key=keys[0], issuer=ROOT)
    lower = build("Lower CA", CA, key=keys[1], issuer=upper, issuer_key=keys[0])
    return build(NAME, dns(NAME), issuer=lower, issuer_key=keys[1]), lower, upper


@given(st.data())
def test_a_damaged_certificate_is_read_or_refused(data):
    good = bytearray(der(LEAF))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        facts = describe(bytes(good))
    except CertificateError:
        return
    assert all(value.isprintable() for value in facts.values() if isinstance(value, str))
    damaged = pem.PemBlock("CERTIFICATE", bytes(good)).text
    result = ask_controller(KEY_PEM, damaged, ca_pem=text(ROOT), names=[NAME])
    assert bytes(good) == der(LEAF) or result.findings or result.leaf.der == bytes(good)


def test_extensions_that_cannot_be_decoded_are_a_finding():
    broken = x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.17"), b"\xff\xff")
    certificate = build(NAME, broken, issuer=ROOT)
    assert describe(der(certificate))["sans"] == []
    assert not covers(der(certificate), NAME)
    assert codes(assess(certificate)) == ["bad_certificate", "name_not_covered"]


def test_a_good_certificate_from_the_shared_authority(authority):
    issued = authority.issue([NAME])
    result = check_certificate(
        issued.key_pem, issued.certificate_pem, issued.chain_pem, ca_pem=authority.root_pem, names=[NAME]
    )
    assert result.ok and not result.warnings
    assert [c.subject for c in result.chain] == ["CN=Example intermediate CA"]
    assert result.bundle.encode() == issued.key_pem + issued.fullchain_pem
    assert pem.leaf_fingerprint(result.bundle) == result.leaf.fingerprint_sha256


@pytest.mark.parametrize(
    "split",
    [
        lambda leaf, lower, upper: ([leaf], [lower, upper]),
        lambda leaf, lower, upper: ([leaf, lower, upper], None),
        lambda leaf, lower, upper: ([leaf, lower], [upper]),
        lambda leaf, lower, upper: ([leaf, lower, upper], [lower, upper]),
        lambda leaf, lower, upper: ([leaf], [leaf, lower, upper]),
        lambda leaf, lower, upper: ([leaf, lower, upper, ROOT], None),
        lambda leaf, lower, upper: ([leaf], [lower, upper, ROOT]),
    ],
)
def test_every_way_to_give_the_chain_makes_the_same_bundle(three, split):
    leaf, chain = split(*three)
    result = assess(*leaf, chain=chain)
    assert codes(result) == []
    assert result.bundle == KEY_PEM + text(*three)


@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
def test_the_key_keeps_its_format(form):
    as_given = KEY.private_bytes(
        serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), serialization.NoEncryption()
    ).decode()
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    result = assess(LEAF, key=(parameters + as_given).replace("\n", "\r\n"))
    assert result.ok
    assert result.bundle == as_given + text(LEAF)


def test_odd_but_good_certificates():
    assert assess(build(NAME, issuer=ROOT)).ok  # only a common name
    any_purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
    assert codes(assess(build(NAME, any_purpose, issuer=ROOT))) == ["wrong_purpose"]  # OpenSSL wants serverAuth


@pytest.mark.parametrize(
    ("key", "usages"),
    [
        (ec.generate_private_key(ec.SECP256R1()), ["key_agreement"]),
        (rsa.generate_private_key(65537, 2048), ["key_encipherment"]),
        (rsa.generate_private_key(65537, 2048), ["key_encipherment", "content_commitment", "data_encipherment"]),
    ],
)
def test_a_key_usage_without_signing_is_refused(key, usages):
    """GnuTLS, of Debian's Exim, refuses these; OpenSSL takes them."""
    result = assess(build(NAME, dns(NAME), usage(*usages), key=key, issuer=ROOT), key=key_pem(key))
    assert codes(result) == ["wrong_key_usage"]
    assert all(
        word in result.findings[0].message for word in ("without digitalSignature", "GnuTLS", "Key usage violation")
    )
    good = build(NAME, dns(NAME), usage("digital_signature", *usages), key=key, issuer=ROOT)
    assert assess(good, key=key_pem(key)).ok


@pytest.mark.parametrize(
    ("key", "extensions", "who"),
    [
        (ec.generate_private_key(ec.SECP384R1()), [], ""),
        (ec.generate_private_key(ec.SECP521R1()), [], "Schannel"),
        (ec.generate_private_key(ec.SECP256K1()), [], "secp256k1"),
        (ec.generate_private_key(ec.BrainpoolP256R1()), [], "brainpoolP256r1"),
        (ed25519.Ed25519PrivateKey.generate(), [], "Schannel"),
        (KEY, [x509.TLSFeature([x509.TLSFeatureType.status_request])], "GnuTLS"),
    ],
    ids=["P-384", "P-521", "secp256k1", "brainpool", "Ed25519", "must-staple"],
)
def test_what_one_library_refuses_is_said(key, extensions, who):
    result = assess(build(NAME, dns(NAME), *extensions, key=key, issuer=ROOT), key=key_pem(key))
    assert result.ok and warned(result) == (["not_everywhere"] if who else [])
    assert not who or who in result.warnings[0].message


def test_a_root_without_extensions_is_no_root():
    old = build("Old Root", key=CA_KEY)
    result = assess(build(NAME, issuer=old), chain=[old], ca=old)
    assert codes(result) == ["issuer_not_ca"]
    assert codes(assess(build(NAME, issuer=old), ca=old)) == ["untrusted"]


def test_self_signed_certificates():
    alone = build(NAME, CA)
    assert codes(assess(alone)) == ["self_signed"]
    allowed = assess(alone, allow_self_signed=True)
    assert allowed.ok and allowed.bundle == KEY_PEM + text(alone)
    assert assess(alone, ca=alone).ok
    assert codes(assess(alone, allow_self_signed=True, chain=[ROOT])) == ["chain_unrelated"]


def test_the_shared_self_signed_certificate():
    issued = self_signed([NAME])
    options = {"ca_pem": text(ROOT), "names": [NAME]}
    assert codes(check_certificate(issued.key_pem, issued.certificate_pem, **options)) == ["self_signed"]
    assert check_certificate(issued.key_pem, issued.certificate_pem, allow_self_signed=True, **options).ok


def test_a_cross_signed_root_in_the_chain_is_served():
    other_key = ec.generate_private_key(ec.SECP256R1())
    other = build("Older Root", CA, key=other_key)
    crossed = build("Example Root", CA, key=CA_KEY, issuer=other, issuer_key=other_key)
    result = assess(LEAF, chain=[crossed])
    assert result.ok and [c.issuer for c in result.chain] == ["CN=Older Root"]


def test_of_two_certificates_for_one_issuer_the_valid_one_is_served():
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = build(NAME, issuer=build("Lower CA", key=key), issuer_key=key)
    old = build("Lower CA", CA, key=key, issuer=ROOT, start=NOW - 9 * DAY, end=NOW - DAY)
    new = build("Lower CA", CA, key=key, issuer=ROOT)
    result = assess(leaf, chain=[old, new])
    assert result.ok and [c.der for c in result.chain] == [der(new)]
    assert warned(result) == ["duplicate_issuer", "name_in_common_name_only"]


def test_a_key_of_another_certificate():
    result = assess(LEAF, key=key_pem(CA_KEY))
    assert codes(result) == ["key_mismatch"]
    with pytest.raises(CertificateError, match="findings"):
        _ = result.bundle


def test_an_encrypted_key():
    pkcs8 = key_pem(KEY, "sesame")
    assert codes(assess(LEAF, key=pkcs8)) == ["key_encrypted"]
    old = KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.BestAvailableEncryption(b"sesame"),
    )
    assert codes(assess(LEAF, key=old)) == ["key_encrypted"]


@pytest.mark.parametrize(
    ("key", "code", "word"),
    [
        ("", "not_pem", "is empty"),
        ("hello", "not_pem", "no '-----BEGIN"),
        (text(LEAF), "not_pem", "holds no private key but: CERTIFICATE"),
        (KEY_PEM[:100], "not_pem", "no END line"),
        (der(LEAF), "not_pem", "binary"),
        (KEY_PEM + KEY_PEM, "key_ambiguous", "2 private keys"),
        (pem.PemBlock("PRIVATE KEY", b"nonsense").text, "key_invalid", "no usable private key"),
    ],
    ids=["empty", "text", "certificate", "cut", "binary", "two", "nonsense"],
)
def test_what_is_no_private_key(key, code, word):
    result = assess(LEAF, key=key)
    assert codes(result) == [code]
    assert word in result.findings[0].message


def test_what_is_no_certificate():
    assert codes(assess(KEY_PEM)) == ["not_pem"]
    assert codes(assess("")) == ["not_pem"]
    assert codes(assess(pem.PemBlock("CERTIFICATE", b"nonsense").text)) == ["bad_certificate"]
    assert codes(assess(LEAF, chain="nonsense")) == ["not_pem"]
    assert codes(assess(LEAF, ca="nonsense")) == ["chain_incomplete", "not_pem"]
    assert assess("").leaf is None


@pytest.mark.parametrize(
    ("start", "end", "code", "word"),
    [
        (NOW - 90 * DAY, NOW - DAY, "expired", iso_time(NOW - DAY)),
        (NOW - 90 * DAY, NOW, "expired", "expired on"),
        (NOW + DAY, NOW + 90 * DAY, "not_yet_valid", iso_time(NOW + DAY)),
        (NOW - 90 * DAY, NOW + 10 * DAY - dt.timedelta(seconds=1), "expiring", "has 9 days left"),
    ],
    ids=["expired", "expired now", "not yet valid", "expiring"],
)
def test_times(start, end, code, word):
    result = assess(build(NAME, dns(NAME), issuer=ROOT, start=start, end=end))
    assert codes(result) == [code] and not result.warnings
    assert word in result.findings[0].message


def test_a_late_renewal_is_a_warning():
    late = assess(build(NAME, dns(NAME), issuer=ROOT, start=NOW - 70 * DAY, end=NOW + 20 * DAY))
    assert late.ok and warned(late) == ["expires_soon"] and "has 20 days left" in late.warnings[0].message
    short_lived = assess(build(NAME, dns(NAME), issuer=ROOT, start=NOW - 25 * DAY, end=NOW + 20 * DAY))
    assert short_lived.ok and not short_lived.warnings
    lowered = assess(build(NAME, dns(NAME), issuer=ROOT, start=NOW - 5 * DAY, end=NOW + DAY), min_days_left=0)
    assert lowered.ok and warned(lowered) == ["expires_soon"]


@pytest.mark.parametrize(
    ("life", "left", "found"),
    [
        # hours of life, hours left
        (160, 158, []), (160, 54, []), (160, 53, ["expires_soon"]), (160, 17, ["expires_soon"]), (160, 15, ["expiring"]),
        (6, 5, []), (6, 1, ["expires_soon"]), (10, 0.5, ["expiring"]),
        (45 * 24, 14 * 24, ["expires_soon"]), (45 * 24, 4 * 24, ["expiring"]),
        (3650 * 24, 91 * 24, []), (3650 * 24, 89 * 24, ["expires_soon"]), (3650 * 24, 29 * 24, ["expiring"]),
    ],
)  # fmt: skip
def test_limits_are_shares_of_the_life(life, left, found):
    end = NOW + dt.timedelta(hours=left)
    result = assess(build(NAME, dns(NAME), issuer=ROOT, start=end - dt.timedelta(hours=life), end=end))
    assert codes(result) + warned(result) == found
    assert result.ok == (found != ["expiring"])


def test_an_issuer_is_measured_by_the_life_of_the_leaf():
    """A tenth of the five years of an intermediate is half a year, in which every renewal would be refused."""
    key = ec.generate_private_key(ec.SECP256R1())
    old = {"start": NOW - 1700 * DAY, "issuer": ROOT, "issuer_key": CA_KEY, "key": key}
    leaf = {"issuer_key": key, "start": NOW - 10 * DAY, "end": NOW + 80 * DAY}
    intermediate = build("Mail CA", CA, end=NOW + 120 * DAY, **old)
    assert codes(assess(build(NAME, dns(NAME), issuer=intermediate, **leaf), intermediate)) == []
    intermediate = build("Mail CA", CA, end=NOW + 8 * DAY, **old)
    assert codes(assess(build(NAME, dns(NAME), issuer=intermediate, **leaf), intermediate)) == ["expiring"]


def test_an_expired_root_or_intermediate():
    past = {"start": NOW - 9 * DAY, "end": NOW - DAY}
    root = build("Old Root", CA, key=CA_KEY, **past)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    upper = build("Upper CA", CA, key=keys[0], issuer=root, **past)
    lower = build("Lower CA", CA, key=keys[1], issuer=upper, issuer_key=keys[0], **past)
    later = assess(build(NAME, dns(NAME), issuer=lower, issuer_key=keys[1], **past), lower, upper, ca=root)
    assert codes(later) == ["expired"]
    assert sum(name in str(later.findings) for name in (NAME, "Lower CA", "Upper CA", "Old Root")) == 4


def test_every_missing_name_is_named():
    result = assess(LEAF, names=[NAME, "mx2.example.com", "\x1b.example.com"])
    assert [f.code for f in result.findings] == ["name_not_covered"] * 2
    assert "mx2.example.com" in result.findings[0].message and NAME in result.findings[0].message
    assert "\x1b" not in result.findings[1].message
    many = build(NAME, dns(*[f"host{i}.example.com" for i in range(30)]), issuer=ROOT)
    assert "20 more" in assess(many).findings[0].message


def test_a_missing_intermediate_is_named_with_its_address():
    key = ec.generate_private_key(ec.SECP256R1())
    lower = build("Lower CA", CA, key=key, issuer=ROOT)
    access = x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(
                AuthorityInformationAccessOID.CA_ISSUERS,
                x509.UniformResourceIdentifier("http://ca.example.com/lower.crt"),
            )
        ]
    )
    result = assess(build(NAME, access, issuer=lower, issuer_key=key))
    assert codes(result) == ["chain_incomplete"]
    assert "CN=Lower CA" in result.findings[0].message
    assert "http://ca.example.com/lower.crt" in result.findings[0].message


def test_a_gap_in_the_chain(three):
    leaf, _lower, upper = three
    assert codes(assess(leaf, chain=[upper])) == ["chain_incomplete", "chain_unrelated"]


def test_an_intermediate_among_the_roots_is_still_missing_on_the_wire(three):
    leaf, lower, upper = three
    assert codes(assess(leaf, ca=text(lower, upper, ROOT))) == ["chain_incomplete"]
    assert codes(assess(*three, ca=text(lower, upper))) == ["chain_incomplete", "untrusted"]


def test_the_order_of_the_chain(three):
    leaf, lower, upper = three
    result = assess(leaf, chain=[upper, lower])
    assert codes(result) == ["chain_out_of_order"]
    assert f"'CN={NAME}', then 'CN=Lower CA', then 'CN=Upper CA'" in result.findings[0].message
    assert codes(assess(lower, upper, leaf)) == ["chain_out_of_order"]
    assert codes(assess(leaf, chain=[ROOT, lower, upper])) == ["chain_out_of_order"]


def test_a_certificate_that_does_not_belong():
    stranger = build("Stranger CA", CA, key=ec.generate_private_key(ec.SECP256R1()))
    result = assess(LEAF, chain=[stranger])
    assert codes(result) == ["chain_unrelated"] and "Stranger CA" in result.findings[0].message


def test_a_root_that_is_not_trusted(three):
    other = build("Other Root", CA, key=ec.generate_private_key(ec.SECP256R1()))
    result = assess(*three, ROOT, ca=other, sources=Sources(ca="ca_file 'root.pem'"))
    assert codes(result) == ["untrusted"] and "ca_file 'root.pem'" in result.findings[0].message


def test_a_root_of_the_same_name_and_another_key():
    impostor = build("Example Root", CA, key=ec.generate_private_key(ec.SECP256R1()))
    assert codes(assess(LEAF, ca=impostor)) == ["untrusted"]
    assert codes(assess(LEAF, chain=[impostor])) == ["chain_unrelated"]


def issued_below(*extensions, **options):
    """A leaf below an intermediate with just these extensions."""
    key = options.pop("key", None) or ec.generate_private_key(ec.SECP256R1())
    middle = build("Middle CA", *extensions, key=key, issuer=ROOT, **options)
    return assess(build(NAME, dns(NAME), issuer=middle, issuer_key=key), middle)


def test_an_issuer_has_to_be_a_ca():
    assert codes(issued_below()) == ["issuer_not_ca"]
    assert codes(issued_below(x509.BasicConstraints(ca=False, path_length=None))) == ["issuer_not_ca"]
    assert codes(issued_below(CA, usage("digital_signature"))) == ["issuer_not_ca"]
    assert codes(issued_below(CA, usage("key_cert_sign"))) == []


def test_the_path_length_of_an_issuer():
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    upper = build("Upper CA", x509.BasicConstraints(ca=True, path_length=0), key=keys[0], issuer=ROOT)
    lower = build("Lower CA", CA, key=keys[1], issuer=upper, issuer_key=keys[0])
    leaf = build(NAME, issuer=lower, issuer_key=keys[1])
    result = assess(leaf, lower, upper)
    assert codes(result) == ["issuer_not_ca"] and "allows 0" in result.findings[0].message


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("PKCS7", ["PKCS#7", "openssl pkcs7 -print_certs"]), ("CMS", ["openssl pkcs7"]), ("CERTIFICATE REQUEST", ["CSR"]),
        ("NEW CERTIFICATE REQUEST", ["CSR"]), ("TRUSTED CERTIFICATE", ["openssl x509 -in"]), ("PUBLIC KEY", ["public key"]),
        ("X509 CRL", ["revoked"]), ("DH PARAMETERS", ["Diffie-Hellman"]),
    ],
)  # fmt: skip
def test_another_pem_is_named(label, words):
    [found] = assess(pem.PemBlock(label, b"something").text).findings
    assert found.code == "not_pem" and all(one in found.message for one in words) and "swapped" not in found.message
    [found] = (
        one for one in assess(LEAF, key=pem.PemBlock(label, b"something").text).findings if one.code == "not_pem"
    )
    assert words[0] in found.message and "swapped" not in found.message


def test_a_key_in_place_of_the_certificate_looks_like_a_swap():
    [found] = assess(KEY_PEM).findings
    assert "swapped" in found.message


def test_purposes():
    client = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    assert codes(assess(build(NAME, client, issuer=ROOT))) == ["wrong_purpose"]
    assert codes(issued_below(CA, client)) == ["wrong_purpose"]
    assert codes(assess(build(NAME, usage("crl_sign"), issuer=ROOT))) == ["wrong_purpose"]


def test_a_ca_certificate_as_leaf():
    assert codes(assess(build(NAME, CA, issuer=ROOT))) == ["ca_as_leaf"]


def test_a_root_that_openssl_finds_too_weak_is_not_trusted():
    key = rsa.generate_private_key(65537, 1024)
    root = build("Weak Root", CA, key=key)
    result = assess(build(NAME, dns(NAME), issuer=root, issuer_key=key), ca=root)
    assert codes(result) == ["untrusted"] and "CA certificate key too weak" in result.findings[0].message


def test_a_name_that_cannot_be_converted_safely():
    result = assess(LEAF, names=["stra\u00dfe.example", NAME])
    assert codes(result) == ["bad_name"] and "give it in its ASCII form (xn--...)" in result.findings[0].message


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP224R1()),
        ec.generate_private_key(ec.SECP192R1()),
        dsa.generate_private_key(2048),
    ],
)
def test_weak_keys(key):
    certificate = build(NAME, key=key, issuer=ROOT)
    assert codes(assess(certificate, key=key_pem(key))) == ["weak_key"]


def test_a_weak_key_of_an_intermediate():
    assert codes(issued_below(CA, key=rsa.generate_private_key(65537, 1024))) == ["weak_key"]


@pytest.fixture(scope="module")
def weak_root():
    """A root whose own signature is weak, as many are, with the options to issue below it."""
    key = rsa.generate_private_key(65537, 2048)
    root = build("Weak Root", CA, key=key, digest=hashes.SHA1())
    return root, {"issuer": root, "issuer_key": key}


@pytest.mark.parametrize("digest", [hashes.SHA1(), hashes.MD5()])
def test_weak_signatures(weak_root, digest):
    root, options = weak_root
    key = rsa.generate_private_key(65537, 2048)
    middle = build("Middle CA", CA, key=key, digest=digest, **options)
    result = assess(build(NAME, issuer=middle, issuer_key=key), middle, ca=root)
    assert codes(result) == ["weak_signature"]
    assert "Middle CA" in result.findings[0].message and digest.name.upper() in result.findings[0].message
    assert codes(assess(build(NAME, digest=digest, **options), ca=root)) == ["weak_signature"]


def test_the_weak_signature_of_a_root_does_no_harm(weak_root):
    root, options = weak_root
    assert Certificate.load(der(root)).signature_hash == "sha1"
    assert assess(build(NAME, **options), ca=root).ok
    assert assess(build(NAME, **options), chain=[root], ca=root).ok


def test_a_forged_weak_signature_is_no_signature(weak_root):
    root, _options = weak_root
    forger = rsa.generate_private_key(65537, 2048)
    leaf = build(NAME, issuer=root, issuer_key=forger, digest=hashes.SHA1())
    assert codes(assess(leaf, ca=root)) == ["untrusted", "weak_signature"]


def test_all_findings_are_reported_at_once(weak_root):
    _root, options = weak_root
    key = rsa.generate_private_key(65537, 1024)
    past = {"start": NOW - 9 * DAY, "end": NOW - DAY}
    bad = build("old.example.com", key=key, digest=hashes.SHA1(), **past, **options)
    assert codes(assess(bad, chain=[build("Stranger", CA, key=CA_KEY)])) == [
        "chain_incomplete",
        "chain_unrelated",
        "expired",
        "key_mismatch",
        "name_not_covered",
        "weak_key",
        "weak_signature",
    ]


def test_messages_say_where_and_never_quote_the_key():
    sources = Sources("key.pem", "cert.pem", "chain.pem", "root.pem")
    body = KEY_PEM.splitlines()[1]
    broken = KEY_PEM.replace("-----END", "!!\n-----END")
    for key in (broken, KEY_PEM[:-40], KEY_PEM * 2, key_pem(CA_KEY).decode(), KEY_PEM.replace(body, body[4:])):
        result = assess(LEAF, key=key, sources=sources)
        assert result.findings and all("key.pem" in f.message for f in result.findings)
        shown = repr(result) + str(result.findings) + str([f.as_dict() for f in result.findings])
        assert body[:20] not in shown and body[8:28] not in shown
    assert body[:20] not in repr(assess(LEAF))


@given(st.one_of(st.text(), st.binary()), st.one_of(st.text(), st.binary()), st.one_of(st.none(), st.text()))
def test_any_input_is_assessed(key, leaf, chain):
    result = check_certificate(key, leaf, chain, ca_pem=text(ROOT), names=[NAME])
    assert not result.ok


def test_the_system_store_is_used_without_a_ca(tmp_path, monkeypatch):
    store = tmp_path / "store.pem"
    store.write_text("# comment\n" + pem.PemBlock("CERTIFICATE", b"broken").text + text(ROOT))
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    assert assess(LEAF, ca=None).ok
    assert assess(LEAF, ca="").ok
    other = Authority.create("Unknown").issue([NAME])
    result = check_certificate(other.key_pem, other.fullchain_pem, names=[NAME])
    assert codes(result) == ["chain_incomplete"] and str(store) in result.findings[0].message


def test_a_controller_without_a_store(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    monkeypatch.setattr(roots_module, "_CA_BUNDLES", ("/nonexistent/bundle",))
    paths = roots_module.ssl.get_default_verify_paths()._replace(cafile=None, openssl_cafile="/nonexistent")
    monkeypatch.setattr(roots_module.ssl, "get_default_verify_paths", lambda: paths)
    result = assess(LEAF, ca=None)
    assert codes(result) == ["chain_incomplete"] and "ca-certificates installed?" in result.findings[0].message
