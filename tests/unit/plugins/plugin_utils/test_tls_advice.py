"""The advice for a handshake that failed: by its cause, never a fixed one."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import BLANK_LINE
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.tls_advice import advice_for


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("tlsv1 unrecognized name", "starttls_hostname"), ("the alert unrecognized_name", "starttls_hostname"),
        ("tlsv1 alert protocol version", "TLS version"), ("unsupported protocol", "TLS version"),
        ("sslv3 alert handshake failure", "cipher suite"), ("no shared cipher", "cipher suite"),
        ("wrong version number", "something else than TLS"), ("packet length too long", "something else than TLS"),
        ("dh key too small", "2048"), ("ee key too small", "issued again"), ("unsafe legacy renegotiation disabled", "RFC 5746"),
        ("tlsv1 alert internal error", "cannot read"), ("tlsv1 alert decrypt error", "belongs to its certificate"),
        ("sslv3 alert bad certificate", "client"), ("tlsv13 alert certificate required", "client"),
        ("tlsv1 alert no application protocol", "ALPN"), ("sslv3 alert certificate revoked", "client"),
        ("sslv3 alert certificate expired", "client"), ("sslv3 alert unsupported certificate", "client"),
        ("unsupported ssl version", "TLS version"), ("tlsv1 alert user cancelled", "ends the connection"),
        ("unexpected eof while reading", "ends the connection"), ("sslv3 alert bad record mac", "device"),
    ],
)  # fmt: skip
def test_each_cause_has_its_own(reason, word):
    assert word in advice_for(f"the TLS handshake failed: {reason}")


def test_a_blank_line_is_not_taken_for_a_port_of_another_service():
    assert "line break too many" in advice_for(BLANK_LINE)


def test_an_unknown_cause_has_none():
    assert advice_for("the TLS handshake failed: something new") == ""
