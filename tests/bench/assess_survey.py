# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller adds to a survey, and nothing else: assess_survey.py OUTPUT_OF_THE_MODULE CA_FILE.

Has OpenSSL verify each chain and sees that the server has the key of its certificate. Exit status 1 unless all is well.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".lab/collections"))

from ansible_collections.mailfleet.starttls.plugins.module_utils._probe.engine import unpack_result
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.hello import KeyExchange
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.key_proof import has_key
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.roots import Roots
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import Certificates


def main() -> int:
    """Judge every result."""
    result = unpack_result(json.loads(Path(sys.argv[1]).read_bytes()))
    roots = Roots.of_pem(Path(sys.argv[2]).read_text())
    certificates = Certificates(result["certificates"])
    bad = 0
    for seen in result["results"]:
        chain = [certificates.load(fingerprint) for fingerprint in seen["chain_sha256"]]
        trusted = not roots.distrust([one.der for one in chain])
        bad += not (trusted and has_key(chain[0].der, KeyExchange.from_dict(seen["key_exchange"])))
    print(f"{len(result['results'])} results, {bad} of them not trusted or without proof")
    return 1 if bad or not result["results"] else 0


if __name__ == "__main__":
    sys.exit(main())
