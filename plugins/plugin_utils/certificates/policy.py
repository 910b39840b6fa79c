# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one certificate policy as findings. The rules are those of module_utils, which the renewal on a host uses too.

Private to this collection. Runs on the controller only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import rules
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import Certificate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding


def _findings(rule: Callable[..., Iterator[rules.Unfit]]) -> Callable[..., Iterator[Finding]]:
    """Return the rule as one that yields findings, with the advice of the catalogue where it has none itself."""

    @functools.wraps(rule)
    def found(*given: Any, **named: Any) -> Iterator[Finding]:
        for code, what, advice in rule(*given, **named):
            yield Finding(code, what) if advice is None else Finding.advised(code, what, advice)

    return found


check_strength = _findings(rules.check_strength)
check_dates = _findings(rules.check_dates)
check_name = _findings(rules.check_name)
check_purpose = _findings(rules.check_purpose)
check_key_usage = _findings(rules.check_key_usage)
check_acceptance = _findings(rules.check_acceptance)
check_leaf = _findings(rules.check_leaf)
check_issuer = _findings(rules.check_issuer)
check_extensions = _findings(rules.check_extensions)

is_valid, is_weak_key, life_of, names_of, time_text = (
    rules.is_valid,
    rules.is_weak_key,
    rules.life_of,
    rules.names_of,
    rules.time_text,
)


def covers(certificate: Union[bytes, Certificate], name: str) -> bool:
    """Return whether the certificate covers a name, as rules.covers does. Raises CertificateError if the bytes are not a certificate."""
    return rules.covers(Certificate.load(certificate) if isinstance(certificate, bytes) else certificate, name)
