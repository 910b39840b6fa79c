import datetime as dt
import ipaddress
import string

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import certificate as judge_module
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    CertificateError,
    Sources,
    covers,
    describe,
    judge,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import (
    AuthorityInformationAccessOID,
    ExtendedKeyUsageOID,
    NameOID,
    ObjectIdentifier,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.support.pki import Authority, key_pem, self_signed

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.timezone.utc)
DAY = dt.timedelta(days=1)
NAME = "mx1.example.com"
KEY = ec.generate_private_key(ec.SECP256R1())
CA_KEY = ec.generate_private_key(ec.SECP256R1())
SHA256 = hashes.SHA256()


def dn(*common_names):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])


def usage(*names):
    known = [
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    ]
    return x509.KeyUsage(**{name: name in names for name in known})


def dns(*names):
    return x509.SubjectAlternativeName([x509.DNSName(name) for name in names])


def build(
    subject=NAME,
    *extensions,
    key=KEY,
    issuer=None,
    issuer_key=None,
    start=NOW - DAY,
    end=NOW + 200 * DAY,
    digest=SHA256,
):
    """A certificate exactly as asked for, however odd; signed by itself unless there is an issuer."""
    subject = subject if isinstance(subject, x509.Name) else dn(subject)
    signer = issuer_key or (CA_KEY if issuer else key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(0x1234ABCD)
        .not_valid_before(start)
        .not_valid_after(end)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    if isinstance(signer, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)):
        digest = None
    if isinstance(digest, (hashes.SHA1, hashes.MD5)):
        return signed_weakly(builder.sign(signer, hashes.SHA256()), signer, digest)
    return builder.sign(signer, digest)


def signed_weakly(certificate, signer, digest):
    """The certificate signed again, in a way that the library does not offer any more; for RSA issuers."""
    rsa_with = bytes.fromhex("2a864886f70d0101")  # 0b: SHA-256, 05: SHA-1, 04: MD5
    strong, weak = rsa_with + b"\x0b", rsa_with + (b"\x05" if digest.name == "sha1" else b"\x04")
    tbs = certificate.tbs_certificate_bytes.replace(strong, weak)
    head = der(certificate)[: -len(certificate.signature)]
    head = head.replace(certificate.tbs_certificate_bytes, tbs).replace(strong, weak)
    return x509.load_der_x509_certificate(head + signer.sign(tbs, padding.PKCS1v15(), digest))


def der(certificate):
    return certificate.public_bytes(serialization.Encoding.DER)


def text(*certificates):
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in certificates)


CA = x509.BasicConstraints(ca=True, path_length=None)
ROOT = build("Example Root", CA, key=CA_KEY, end=NOW + 5000 * DAY)
LEAF = build(NAME, dns(NAME), issuer=ROOT)
KEY_PEM = key_pem(KEY).decode()


def verdict(*certificates, key=KEY_PEM, chain=None, ca=ROOT, names=(NAME,), **options):
    return judge(
        key,
        certificates[0] if isinstance(certificates[0], (str, bytes)) else text(*certificates),
        text(*chain) if isinstance(chain, (list, tuple)) else chain,
        ca_pem=text(ca) if isinstance(ca, x509.Certificate) else ca,
        names=names,
        now=options.pop("now", NOW),
        **options,
    )


def codes(result):
    return sorted({finding.code for finding in result.findings})


@pytest.fixture(scope="module")
def three():
    """Root, two intermediates and a leaf."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    upper = build("Upper CA", CA, key=keys[0], issuer=ROOT)
    lower = build("Lower CA", CA, key=keys[1], issuer=upper, issuer_key=keys[0])
    return build(NAME, dns(NAME), issuer=lower, issuer_key=keys[1]), lower, upper


# --- describe ------------------------------------------------------------------------------------------------


def test_describe_says_everything():
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName(NAME),
            x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
            x509.RFC822Name("postmaster@example.com"),
        ]
    )
    certificate = build(dn("first", NAME), names, issuer=ROOT)
    assert describe(der(certificate), NOW) == {
        "subject": f"CN={NAME},CN=first",
        "common_name": NAME,
        "sans": [f"DNS:{NAME}", "IP:2001:db8::1"],
        "issuer": "CN=Example Root",
        "serial": "1234abcd",
        "not_before": "2026-11-22T12:00:00Z",
        "not_after": "2027-06-11T12:00:00Z",
        "days_left": 200,
        "key_type": "EC",
        "key_bits": 256,
        "signature_hash": "sha256",
        "fingerprint_sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "spki_sha256": pem.fingerprint(
            KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        ),
        "self_signed": False,
    }


@pytest.mark.parametrize(
    ("after", "days"), [(DAY, 1), (DAY - dt.timedelta(seconds=1), 0), (dt.timedelta(seconds=-1), -1)]
)
def test_days_are_rounded_down(after, days):
    certificate = Certificate.load(der(build(NAME, end=NOW + after)))
    assert certificate.days_left(NOW) == days


@pytest.mark.parametrize(
    ("key", "kind", "bits"),
    [
        (rsa.generate_private_key(65537, 2048), "RSA", 2048),
        (ec.generate_private_key(ec.SECP521R1()), "EC", 521),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519", 256),
        (ed448.Ed448PrivateKey.generate(), "Ed448", 456),
    ],
)
def test_kinds_of_keys(key, kind, bits):
    facts = describe(der(build(NAME, key=key)))
    assert (facts["key_type"], facts["key_bits"], facts["self_signed"]) == (kind, bits, True)
    assert (facts["signature_hash"] is None) == kind.startswith("Ed")


def test_control_characters_are_escaped_and_long_texts_cut():
    facts = describe(der(build("a\x1b[2J\u202eb\nc", dns("x\x1b.example.com"))))
    for value in (facts["subject"], facts["common_name"], facts["sans"][0]):
        assert value.isprintable()
    assert "\\x1b" in facts["subject"] and "\\u202e" in facts["common_name"]
    assert judge_module.printable("x" * 501) == "x" * 500 + "..."
    assert judge_module.printable("\udcff") == "\\udcff"


def test_a_certificate_without_a_name():
    facts = describe(der(build(x509.Name([]))))
    assert (facts["subject"], facts["common_name"], facts["sans"]) == ("(no name)", None, [])


@given(st.binary(max_size=300))
def test_garbage_is_a_certificate_error(data):
    with pytest.raises(CertificateError):
        describe(data)


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
    result = judge(KEY_PEM, pem.PemBlock("CERTIFICATE", bytes(good)).text, ca_pem=text(ROOT), names=[NAME])
    assert bytes(good) == der(LEAF) or result.findings or result.leaf.der == bytes(good)


def test_extensions_that_cannot_be_decoded_are_a_finding():
    broken = x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.17"), b"\xff\xff")
    certificate = build(NAME, broken, issuer=ROOT)
    assert describe(der(certificate))["sans"] == []
    assert not covers(der(certificate), NAME)
    assert codes(verdict(certificate)) == ["malformed", "name_not_covered"]


# --- covers --------------------------------------------------------------------------------------------------

LABEL = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20)
HOST = st.lists(LABEL, min_size=3, max_size=5).map(lambda labels: ".".join(labels) + ".example")


def named(*names, common_name="cn.example.net"):
    return Certificate.load(der(build(common_name, *([dns(*names)] if names else []))))


@given(HOST, HOST)
def test_a_plain_name_covers_itself_and_nothing_else(name, other):
    certificate = named(name)
    assert covers(certificate, name)
    assert covers(certificate, name.upper() + ".")
    assert covers(certificate, other) == (name == other)
    assert not covers(certificate, "x." + name)


@given(HOST, LABEL, LABEL)
def test_a_wildcard_covers_exactly_one_label(parent, label, more):
    certificate = named("*." + parent)
    assert covers(certificate, f"{label}.{parent}")
    assert not covers(certificate, parent)
    assert not covers(certificate, f"{more}.{label}.{parent}")


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("MX1.Example.COM", "mx1.example.com", True),
        ("mx1.example.com.", "mx1.example.com", True),
        ("*.com", "example.com", False),
        ("*", "localhost", False),
        ("*.*.example.com", "a.b.example.com", False),
        ("mx*.example.com", "mx1.example.com", False),
        ("mx.*.example.com", "mx.a.example.com", False),
        ("*.example.com", ".example.com", False),
        ("*.example.com", "xn--bcher-kva.example.com", True),
        ("*.example.com", "*.example.com", True),
        ("mx1.example.com\0.evil.test", "mx1.example.com", False),
        ("mx_1.example.com", "mx_1.example.com", True),
        ("xn--bcher-kva.example", "bücher.example", True),
        ("xn--bcher-kva.example", "BÜCHER.example", True),
        ("xn--bcher-kva.example", "bu\u0308cher.example", True),
        ("strasse.example", "straße.example", False),
        ("xn--strae-oqa.example", "straße.example", True),
        ("192.0.2.1", "192.0.2.1", False),
        ("mx1.example.com", "", False),
        ("mx1.example.com", "mx1..example.com", False),
        ("mx1.example.com", "ü" * 70 + ".example.com", False),
        ("a" * 64 + ".example.com", "a" * 64 + ".example.com", False),
    ],
)
def test_names(pattern, name, covered):
    assert covers(named(pattern), name) is covered


def test_the_common_name_counts_only_without_alternative_names():
    assert covers(named(common_name=NAME), NAME)
    assert covers(named(common_name="*.example.com"), NAME)
    assert not covers(named("other.example.com", common_name=NAME), NAME)
    only_ip = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("192.0.2.1"))])
    assert not covers(der(build(NAME, only_ip)), NAME)
    only_mail = x509.SubjectAlternativeName([x509.RFC822Name("postmaster@example.com")])
    assert covers(der(build(NAME, only_mail)), NAME)
    assert not covers(named(common_name="192.0.2.1"), "192.0.2.1")


def test_addresses():
    names = [x509.IPAddress(ipaddress.ip_address(a)) for a in ("192.0.2.1", "2001:db8::1")]
    certificate = der(build(NAME, x509.SubjectAlternativeName(names)))
    assert covers(certificate, "192.0.2.1")
    assert covers(certificate, "[2001:DB8:0:0::1]")
    assert not covers(certificate, "192.0.2.2")


def test_covers_refuses_what_is_no_certificate():
    with pytest.raises(CertificateError):
        covers(b"nonsense", NAME)


@given(st.text())
def test_any_name_is_answered(name):
    assert covers(LEAF_LOADED, name) in (True, False)


LEAF_LOADED = Certificate.load(der(LEAF))


# --- judge: good ones ----------------------------------------------------------------------------------------


def test_a_good_certificate_from_the_shared_authority(authority):
    issued = authority.issue([NAME])
    result = judge(issued.key_pem, issued.certificate_pem, issued.chain_pem, ca_pem=authority.root_pem, names=[NAME])
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
    result = verdict(*leaf, chain=chain)
    assert codes(result) == []
    assert result.bundle == KEY_PEM + text(*three)


@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
def test_the_key_keeps_its_format(form):
    as_given = KEY.private_bytes(
        serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), serialization.NoEncryption()
    ).decode()
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    result = verdict(LEAF, key=(parameters + as_given).replace("\n", "\r\n"))
    assert result.ok
    assert result.bundle == as_given + text(LEAF)


def test_odd_but_good_certificates():
    assert verdict(build(NAME, issuer=ROOT)).ok  # only a common name
    any_purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
    assert verdict(build(NAME, any_purpose, issuer=ROOT)).ok
    assert verdict(build(NAME, usage("key_agreement"), issuer=ROOT)).ok


def test_a_root_without_extensions_is_a_root():
    old = build("Old Root", key=CA_KEY)
    assert verdict(build(NAME, issuer=old), chain=[old], ca=old).ok


def test_self_signed_certificates():
    alone = build(NAME, CA)
    assert codes(verdict(alone)) == ["self_signed"]
    allowed = verdict(alone, allow_self_signed=True)
    assert allowed.ok and allowed.bundle == KEY_PEM + text(alone)
    assert verdict(alone, ca=alone).ok
    assert codes(verdict(alone, allow_self_signed=True, chain=[ROOT])) == ["chain_unrelated"]


def test_the_shared_self_signed_certificate():
    issued = self_signed([NAME])
    options = {"ca_pem": text(ROOT), "names": [NAME]}
    assert codes(judge(issued.key_pem, issued.certificate_pem, **options)) == ["self_signed"]
    assert judge(issued.key_pem, issued.certificate_pem, allow_self_signed=True, **options).ok


def test_a_cross_signed_root_in_the_chain_is_served():
    other_key = ec.generate_private_key(ec.SECP256R1())
    other = build("Older Root", CA, key=other_key)
    crossed = build("Example Root", CA, key=CA_KEY, issuer=other, issuer_key=other_key)
    result = verdict(LEAF, chain=[crossed])
    assert result.ok and [c.issuer for c in result.chain] == ["CN=Older Root"]


def test_of_two_certificates_for_one_issuer_the_valid_one_is_served():
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = build(NAME, issuer=build("Lower CA", key=key), issuer_key=key)
    old = build("Lower CA", CA, key=key, issuer=ROOT, start=NOW - 9 * DAY, end=NOW - DAY)
    new = build("Lower CA", CA, key=key, issuer=ROOT)
    result = verdict(leaf, chain=[old, new])
    assert result.ok and [c.der for c in result.chain] == [der(new)]
    assert "left out" in result.warnings[0]


# --- judge: findings -----------------------------------------------------------------------------------------


def test_a_key_of_another_certificate():
    result = verdict(LEAF, key=key_pem(CA_KEY))
    assert codes(result) == ["key_mismatch"]
    with pytest.raises(CertificateError, match="findings"):
        _ = result.bundle


def test_an_encrypted_key():
    pkcs8 = key_pem(KEY, "sesame")
    assert codes(verdict(LEAF, key=pkcs8)) == ["key_encrypted"]
    old = KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.BestAvailableEncryption(b"sesame"),
    )
    assert codes(verdict(LEAF, key=old)) == ["key_encrypted"]


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
    result = verdict(LEAF, key=key)
    assert codes(result) == [code]
    assert word in result.findings[0].message


def test_what_is_no_certificate():
    assert codes(verdict(KEY_PEM)) == ["not_pem"]
    assert codes(verdict("")) == ["not_pem"]
    assert codes(verdict(pem.PemBlock("CERTIFICATE", b"nonsense").text)) == ["malformed"]
    assert codes(verdict(LEAF, chain="nonsense")) == ["not_pem"]
    assert codes(verdict(LEAF, ca="nonsense")) == ["chain_incomplete", "not_pem"]
    assert verdict("").leaf is None


@pytest.mark.parametrize(
    ("start", "end", "code", "word"),
    [
        (NOW - 90 * DAY, NOW - DAY, "expired", "2026-11-22T12:00:00Z"),
        (NOW - 90 * DAY, NOW, "expired", "expired on"),
        (NOW + DAY, NOW + 90 * DAY, "not_yet_valid", "2026-11-24T12:00:00Z"),
        (NOW - 90 * DAY, NOW + 14 * DAY - dt.timedelta(seconds=1), "expiring", "in 13 days"),
    ],
)
def test_times(start, end, code, word):
    result = verdict(build(NAME, issuer=ROOT, start=start, end=end))
    assert codes(result) == [code] and not result.warnings
    assert word in result.findings[0].message


def test_a_late_renewal_is_a_warning():
    late = verdict(build(NAME, issuer=ROOT, start=NOW - 70 * DAY, end=NOW + 20 * DAY))
    assert late.ok and "expires in 20 days" in late.warnings[0]
    short_lived = verdict(build(NAME, issuer=ROOT, start=NOW - 25 * DAY, end=NOW + 20 * DAY))
    assert short_lived.ok and not short_lived.warnings
    lowered = verdict(build(NAME, issuer=ROOT, start=NOW - 5 * DAY, end=NOW + DAY), min_days_left=0)
    assert lowered.ok and lowered.warnings


def test_an_expired_root_or_intermediate(three):
    later = verdict(*three, now=NOW + 6000 * DAY)
    assert codes(later) == ["expired"]
    assert sum(name in str(later.findings) for name in (NAME, "Lower CA", "Upper CA", "Example Root")) == 4


def test_every_missing_name_is_named():
    result = verdict(LEAF, names=[NAME, "mx2.example.com", "\x1b.example.com"])
    assert [f.code for f in result.findings] == ["name_not_covered"] * 2
    assert "mx2.example.com" in result.findings[0].message and NAME in result.findings[0].message
    assert "\x1b" not in result.findings[1].message
    many = build(NAME, dns(*[f"host{i}.example.com" for i in range(30)]), issuer=ROOT)
    assert "20 more" in verdict(many).findings[0].message


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
    result = verdict(build(NAME, access, issuer=lower, issuer_key=key))
    assert codes(result) == ["chain_incomplete"]
    assert "CN=Lower CA" in result.findings[0].message
    assert "http://ca.example.com/lower.crt" in result.findings[0].message


def test_a_gap_in_the_chain(three):
    leaf, _lower, upper = three
    assert codes(verdict(leaf, chain=[upper])) == ["chain_incomplete", "chain_unrelated"]


def test_an_intermediate_among_the_roots_is_still_missing_on_the_wire(three):
    leaf, lower, upper = three
    assert codes(verdict(leaf, ca=text(lower, upper, ROOT))) == ["chain_incomplete"]
    assert codes(verdict(*three, ca=text(lower, upper))) == ["chain_incomplete", "untrusted"]


def test_the_order_of_the_chain(three):
    leaf, lower, upper = three
    result = verdict(leaf, chain=[upper, lower])
    assert codes(result) == ["chain_out_of_order"]
    assert f"'CN={NAME}', then 'CN=Lower CA', then 'CN=Upper CA'" in result.findings[0].message
    assert codes(verdict(lower, upper, leaf)) == ["chain_out_of_order"]
    assert codes(verdict(leaf, chain=[ROOT, lower, upper])) == ["chain_out_of_order"]


def test_a_certificate_that_does_not_belong():
    stranger = build("Stranger CA", CA, key=ec.generate_private_key(ec.SECP256R1()))
    result = verdict(LEAF, chain=[stranger])
    assert codes(result) == ["chain_unrelated"] and "Stranger CA" in result.findings[0].message


def test_a_root_that_is_not_trusted(three):
    other = build("Other Root", CA, key=ec.generate_private_key(ec.SECP256R1()))
    result = verdict(*three, ROOT, ca=other, sources=Sources(ca="ca_file 'root.pem'"))
    assert codes(result) == ["untrusted"] and "ca_file 'root.pem'" in result.findings[0].message


def test_a_root_of_the_same_name_and_another_key():
    impostor = build("Example Root", CA, key=ec.generate_private_key(ec.SECP256R1()))
    assert codes(verdict(LEAF, ca=impostor)) == ["untrusted"]
    assert codes(verdict(LEAF, chain=[impostor])) == ["chain_unrelated"]


def issued_below(*extensions, **options):
    """A leaf below an intermediate with just these extensions."""
    key = options.pop("key", None) or ec.generate_private_key(ec.SECP256R1())
    middle = build("Middle CA", *extensions, key=key, issuer=ROOT, **options)
    return verdict(build(NAME, dns(NAME), issuer=middle, issuer_key=key), middle)


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
    result = verdict(leaf, lower, upper)
    assert codes(result) == ["issuer_not_ca"] and "allows 0" in result.findings[0].message


def test_purposes():
    client = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    assert codes(verdict(build(NAME, client, issuer=ROOT))) == ["wrong_purpose"]
    assert codes(issued_below(CA, client)) == ["wrong_purpose"]
    assert codes(verdict(build(NAME, usage("crl_sign"), issuer=ROOT))) == ["wrong_purpose"]


def test_a_ca_certificate_as_leaf():
    assert codes(verdict(build(NAME, CA, issuer=ROOT))) == ["ca_as_leaf"]


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP192R1()),
        dsa.generate_private_key(2048),
    ],
)
def test_weak_keys(key):
    certificate = build(NAME, key=key, issuer=ROOT)
    assert codes(verdict(certificate, key=key_pem(key))) == ["weak_key"]


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
    result = verdict(build(NAME, issuer=middle, issuer_key=key), middle, ca=root)
    assert codes(result) == ["weak_signature"]
    assert "Middle CA" in result.findings[0].message and digest.name.upper() in result.findings[0].message
    assert codes(verdict(build(NAME, digest=digest, **options), ca=root)) == ["weak_signature"]


def test_the_weak_signature_of_a_root_does_no_harm(weak_root):
    root, options = weak_root
    assert Certificate.load(der(root)).signature_hash == "sha1"
    assert verdict(build(NAME, **options), ca=root).ok
    assert verdict(build(NAME, **options), chain=[root], ca=root).ok


def test_a_forged_weak_signature_is_no_signature(weak_root):
    root, _options = weak_root
    forger = rsa.generate_private_key(65537, 2048)
    leaf = build(NAME, issuer=root, issuer_key=forger, digest=hashes.SHA1())
    assert codes(verdict(leaf, ca=root)) == ["untrusted", "weak_signature"]


def test_a_weak_signature_by_another_kind_of_key():
    # No library makes such a certificate any more, so this one is only as much of one as is looked at.
    class Sha1:
        signature_hash_algorithm = hashes.SHA1()
        tbs_certificate_bytes = b"signed"
        signature = CA_KEY.sign(b"signed", ec.ECDSA(hashes.SHA1()))

    class Unsigned(Sha1):
        signature_hash_algorithm = None

    judge_module._verify_weak_signature(Sha1, ROOT)
    with pytest.raises(Exception, match=r"^$"):
        judge_module._verify_weak_signature(Sha1, LEAF)
    with pytest.raises(CertificateError, match="this kind of key"):
        judge_module._verify_weak_signature(Sha1, build("ed", key=ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(CertificateError, match="no hash"):
        judge_module._verify_weak_signature(Unsigned, ROOT)


def test_all_findings_are_reported_at_once(weak_root):
    _root, options = weak_root
    key = rsa.generate_private_key(65537, 1024)
    past = {"start": NOW - 9 * DAY, "end": NOW - DAY}
    bad = build("old.example.com", key=key, digest=hashes.SHA1(), **past, **options)
    assert codes(verdict(bad, chain=[build("Stranger", CA, key=CA_KEY)])) == [
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
        result = verdict(LEAF, key=key, sources=sources)
        assert result.findings and all("key.pem" in f.message for f in result.findings)
        shown = repr(result) + str(result.findings) + str([f.as_dict() for f in result.findings])
        assert body[:20] not in shown and body[8:28] not in shown
    assert body[:20] not in repr(verdict(LEAF))


@given(st.one_of(st.text(), st.binary()), st.one_of(st.text(), st.binary()), st.one_of(st.none(), st.text()))
def test_any_input_is_judged(key, leaf, chain):
    result = judge(key, leaf, chain, ca_pem=text(ROOT), names=[NAME])
    assert not result.ok


# --- the system store ----------------------------------------------------------------------------------------


def test_the_system_store_is_used_without_a_ca(tmp_path, monkeypatch):
    store = tmp_path / "store.pem"
    store.write_text("# comment\n" + pem.PemBlock("CERTIFICATE", b"broken").text + text(ROOT))
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    assert verdict(LEAF, ca=None).ok
    assert verdict(LEAF, ca="").ok
    other = Authority.create("Unknown").issue([NAME])
    result = judge(other.key_pem, other.fullchain_pem, names=[NAME])
    assert codes(result) == ["chain_incomplete"] and str(store) in result.findings[0].message


def test_a_controller_without_a_store(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    monkeypatch.setattr(judge_module, "_CA_BUNDLES", ("/nonexistent/bundle",))
    paths = judge_module.ssl.get_default_verify_paths()._replace(cafile=None, openssl_cafile="/nonexistent")
    monkeypatch.setattr(judge_module.ssl, "get_default_verify_paths", lambda: paths)
    result = verdict(LEAF, ca=None)
    assert codes(result) == ["chain_incomplete"] and "ca-certificates installed?" in result.findings[0].message


# --- the library ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "word"), [(None, "is missing"), ("41.0.7", "is too old (41.0.7)"), ("3.4", "is too old")]
)
def test_a_missing_library_is_explained(monkeypatch, version, word):
    monkeypatch.setattr(judge_module, "CRYPTOGRAPHY_VERSION", version)
    with pytest.raises(judge_module.MissingLibraryError) as caught:
        judge_module.require_cryptography()
    assert word in str(caught.value) and "pip install" in str(caught.value)


def test_the_library_is_here():
    judge_module.require_cryptography()
