"""Fixtures of this scenario."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_testinfra import Fleet

from tests.support.pki import Authority

OVERRIDE = "smtp/inet/smtpd_tls_chain_files"


@pytest.fixture
def other_certificate(fleet: Fleet) -> Iterator[None]:
    """pf12's listener is told by master.cf to serve another certificate than the one installed: no change can be proved."""
    issued = Authority.create().issue(["pf12.fleet.test"])
    fleet.run("pf12", "cat >/etc/postfix/other.pem", (issued.key_pem + issued.fullchain_pem).decode())
    fleet.run("pf12", f"postconf -P {OVERRIDE}=/etc/postfix/other.pem && postfix reload 2>&1")
    yield
    fleet.run("pf12", f"postconf -PX {OVERRIDE}; rm -f /etc/postfix/other.pem; postfix reload 2>&1")
