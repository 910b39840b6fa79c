# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificates that the bench's server shows, written once: certificates.py DIRECTORY.

ca.pem is the root; ec/*.pem and rsa/*.pem hold a private key, its certificate and the intermediate each.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.targets import CERTIFICATES, certificate_name
from tests.support import pki

RSA_KEYS = 16  # shared among the RSA certificates: making a thousand keys would take minutes
RENEW_AFTER = 180 * 86400  # seconds; the certificates are good for a year


def write_pki(directory: Path) -> None:
    """Write what an earlier run did not, or did too long ago."""
    complete = directory / ".complete"
    if complete.exists() and complete.stat().st_mtime > pki.now().timestamp() - RENEW_AFTER:
        return
    authority = pki.Authority.create("mailfleet bench")
    rsa_keys = [pki.new_key("rsa-2048") for _ in range(RSA_KEYS)]
    for kind in ("ec", "rsa"):
        (directory / kind).mkdir(parents=True, exist_ok=True)
        for index in range(CERTIFICATES):
            key = "ec" if kind == "ec" else rsa_keys[index % RSA_KEYS]
            issued = authority.issue([certificate_name(index)], key=key)
            pki.write(directory / kind / f"{index:04d}.pem", issued.key_pem + issued.fullchain_pem, 0o600)
    pki.write(directory / "ca.pem", authority.root_pem)
    complete.touch()


if __name__ == "__main__":
    write_pki(Path(sys.argv[1]))
