"""A host with certificates of several algorithms serves one of them to each client: any of them is the right one."""

from __future__ import annotations

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._probe.engine import _fingerprint
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import installed_fingerprint
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.rows import _compared

ONE, TWO = "1" * 64, "2" * 64


def test_any_of_them_is_expected():
    facts = {"mail_server_result": {"fingerprint_sha256": ONE, "fingerprints_sha256": [ONE, TWO]}}
    assert installed_fingerprint(facts) == f"{ONE},{TWO}"
    assert installed_fingerprint({"mail_server_result": {"fingerprint_sha256": ONE}}) == ONE
    for served in (ONE, TWO):
        assert "findings" not in _compared({"fingerprint_sha256": served}, f"{ONE},{TWO}")
    [found] = _compared({"fingerprint_sha256": "3" * 64}, f"{ONE},{TWO}")["findings"]
    assert found["code"] == "wrong_certificate"


def test_the_option_of_the_probe_takes_several():
    assert _fingerprint(f"{ONE}, {TWO}".upper()) == f"{ONE},{TWO}"
    with pytest.raises(ValueError, match="is not a SHA-256"):
        _fingerprint(f"{ONE},x")
