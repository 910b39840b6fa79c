import base64
import hashlib

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from hypothesis import given
from hypothesis import strategies as st

LABELS = st.sampled_from(["CERTIFICATE", "PRIVATE KEY", "EC PRIVATE KEY", "X509 CRL", "X9.42 DH PARAMETERS"])
BLOCKS = st.lists(st.builds(pem.PemBlock, LABELS, st.binary(min_size=1, max_size=300)), max_size=5)
SECRET = base64.b64encode(b"do not repeat me, please").decode()


def block(body, label="PRIVATE KEY"):
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"


@given(BLOCKS)
def test_split_undoes_join(blocks):
    assert pem.split(pem.join(blocks)) == blocks


@given(BLOCKS, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["", "  ", "\t"]))
def test_line_ends_and_indentation_do_not_matter(blocks, end, indent):
    text = "".join(indent + line + end for line in pem.join(blocks).splitlines())
    assert pem.split(text) == pem.split(text.encode()) == blocks


@given(st.one_of(st.text(), st.binary()))
def test_any_input_gives_blocks_or_a_pem_error(text):
    try:
        assert pem.split(pem.join(pem.split(text))) == pem.split(text)
    except pem.PemError as error:
        assert str(error)


@given(st.text(), st.text())
def test_any_body_gives_a_block_or_a_pem_error(before, body):
    try:
        pem.split(before + "\n" + block(body))
    except pem.PemError as error:
        assert str(error)


def test_text_around_the_blocks_is_skipped():
    text = "Bag Attributes\n  friendlyName: Zürich\n" + block("QQ==") + "trailing\n" + block("Qg==", "CERTIFICATE")
    assert [(b.label, b.der) for b in pem.split(text)] == [("PRIVATE KEY", b"A"), ("CERTIFICATE", b"B")]


def test_a_long_line_is_wrapped():
    text = block(base64.b64encode(bytes(200)).decode())
    assert max(map(len, pem.split(text)[0].text.splitlines())) == 64


def test_headers_survive():
    text = block("Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nQQ==", "RSA PRIVATE KEY")
    (found,) = pem.split(text)
    assert found.is_encrypted and found.is_private_key and found.der == b"A"
    assert found.text == text


def test_kinds_are_told_apart():
    assert pem.PemBlock("ENCRYPTED PRIVATE KEY", b"x").is_encrypted
    assert not pem.PemBlock("PRIVATE KEY", b"x").is_encrypted
    assert not pem.PemBlock("PUBLIC KEY", b"x").is_private_key
    assert pem.PemBlock("X509 CERTIFICATE", b"x").is_certificate
    assert not pem.PemBlock("CERTIFICATE REQUEST", b"x").is_certificate


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-----BEGIN PRIVATE KEY-----\n" + SECRET, "line 1: the block 'PRIVATE KEY' has no END line"),
        ("\n-----END PRIVATE KEY-----\n", "line 2: an END line has no BEGIN line"),
        (block("-----BEGIN X-----"), "line 2: a block begins before the one of line 1 has ended"),
        (block(SECRET).replace("END PRIVATE", "END PUBLIC"), "'PRIVATE KEY' of line 1 is ended as 'PUBLIC KEY'"),
        (block(SECRET + "!"), "line 1: the block 'PRIVATE KEY' is not valid base64"),
        (block(SECRET + "é"), "not valid base64"),
        (block(SECRET[:-1]), "not valid base64"),
        (block(""), "line 1: the block 'PRIVATE KEY' is empty"),
        (block("Proc-Type: 4,ENCRYPTED"), "is empty"),
        (block(SECRET).replace("\n", " "), "line 1: malformed BEGIN line"),
        ("-----BEGIN evil\x1b-----\n", "line 1: malformed BEGIN line"),
        (b"\x30\x82\x01\x00" + SECRET.encode(), "it is binary"),
        (b"\xff\xfe-\x00-\x00", "it is text in UTF-16, "),
        (block(SECRET).encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),
        (b"\xfe\xff" + block(SECRET).encode("utf-16-be"), "it is text in UTF-16, "),
        (block(SECRET).encode("utf-16-le"), "it is text in UTF-16LE, "),
        (block(SECRET).encode("utf-16-be"), "it is text in UTF-16BE, "),
        (block(SECRET).encode("utf-32"), "it is text in UTF-32, "),
        (block(SECRET).encode() + bytes(64), "NUL bytes"),
        (bytes.fromhex("30820123 06092a864886f70d010702 a0820114"), "openssl pkcs7 -inform DER -print_certs"),
        (bytes.fromhex("feedfeed00000002"), "Java keystore"),
        (b"PK\x03\x04" + bytes(8), "ZIP"),
        (b"\x1f\x8b\x08" + bytes(8), "gzip"),
        (b"PuTTY-User-Key-File-3: ssh-rsa", "PuTTY"),
        ("x" * (pem.MAX_BYTES + 1), "at most 1048576 are read"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_quoted(text, reason):
    with pytest.raises(pem.PemError) as caught:
        pem.split(text)
    assert reason in str(caught.value)
    assert SECRET[:12] not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_no_representation_shows_the_content():
    (found,) = pem.split(block(SECRET))
    assert SECRET not in repr(found) and "do not repeat" not in repr(found)


def test_the_limit_can_be_moved():
    with pytest.raises(pem.PemError, match="at most 3 are read"):
        pem.split("abcd", max_bytes=3)
    assert pem.split("a" * (pem.MAX_BYTES + 1), max_bytes=2 * pem.MAX_BYTES) == []


def test_leaf_fingerprint_is_of_the_first_certificate():
    bundle = block(SECRET) + block("QQ==", "X509 CERTIFICATE") + block("Qg==", "CERTIFICATE")
    assert pem.leaf_fingerprint(bundle) == hashlib.sha256(b"A").hexdigest() == pem.fingerprint(b"A")


def test_leaf_fingerprint_needs_a_certificate():
    with pytest.raises(pem.PemError, match="no certificate"):
        pem.leaf_fingerprint(block(SECRET))
    with pytest.raises(pem.PemError, match="no certificate"):
        pem.leaf_fingerprint("")
