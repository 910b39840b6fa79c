import contextlib

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import (
    Target,
    TargetError,
    ascii_name,
    is_address,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "ascii_form"),
    [
        ("mail.example.com", "mail.example.com"),
        ("mail.example.com.", "mail.example.com"),
        ("mx_1.example.com", "mx_1.example.com"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("münchen.example", "xn--mnchen-3ya.example"),
        ("MÜNCHEN.example.", "xn--mnchen-3ya.example"),
        ("mu\u0308nchen.example", "xn--mnchen-3ya.example"),  # the same, decomposed
        ("mail.例え.test", "mail.xn--r8jz45g.test"),
        ("пример.test", "xn--e1afmkfd.test"),
        ("", ""),
    ],
)
def test_names_in_their_ascii_form(text, ascii_form):
    assert ascii_name(text) == ascii_form


@pytest.mark.parametrize(
    "text",
    [
        "stra\u00dfe.example",  # IDNA 2003 makes another domain of it
        "\u03c2\u03b1\u03c2.example",
        "a\u200db.example",
        "\u2603.example",  # a symbol: IDNA 2008 has none
        "\U0001f600.example",
        "\uff4dail.example",  # full width
        "ma\u0131l\u2024example",  # a dot that is none
        "a\u00b7b.example",
        "\u0301a.example",
        "xn--\u00fc.example",
        "a b\u00fc\u00a0.example",
    ],
)
def test_names_that_cannot_be_converted_safely(text):
    with pytest.raises(TargetError, match="cannot be converted safely") as caught:
        ascii_name(text)
    assert str(caught.value).isascii() and str(caught.value).isprintable()


@given(st.text(max_size=30))
def test_any_text_becomes_ascii_or_a_target_error(text):
    with contextlib.suppress(TargetError):
        host = ascii_name(text)
        assert host.isascii()
        Target(host).check()


@pytest.mark.parametrize(("protocol", "refused"), [("smtp", False), ("smtps", False), ("lmtp", False), ("imap", True)])
def test_the_protocols(protocol, refused):
    target = Target("mail.example.com", 25, "", protocol)
    if refused:
        with pytest.raises(TargetError, match=r"the protocol 'imap' of mail.example.com is none of smtp, smtps, lmtp"):
            target.check()
    else:
        target.check()


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("192.0.2.1", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("192.0.2.1%eth0", False),
        ("mx1", False),
        ("mx", False),
    ],
)
def test_what_is_an_address(text, known):
    assert is_address(text) is known
