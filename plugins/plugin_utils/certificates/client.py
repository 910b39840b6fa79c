# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges the certificates of a peer with mutual TLS, before anything changes: the one presented to it, and the one served to it.

The rules are those of the one policy, and OpenSSL says whether a chain is trusted. Beyond that, Exchange Online attributes mail
by the names of the client certificate. A public root is one of the controller's system store: an authority that the administrator
added there cannot be told from it. Private to this collection. Runs on the controller only.
"""

from __future__ import annotations

import base64
import functools
import ssl
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Optional, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.hello import client_hello
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.verifier import certificate_records
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import certificate as x509
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import policy
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.assessment import (
    Sources,
    check_certificate,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    CertificateError,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.roots import UNREADABLE, Roots
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.throwaway import self_signed
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding

CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
PURPOSES = {"1.3.6.1.5.5.7.3.1": "serverAuth", CLIENT_AUTH: "clientAuth", "2.5.29.37.0": "anyExtendedKeyUsage"}
"""The purposes that have a name in results; others are shown as their OID."""

_OF_TRUST = frozenset({"untrusted", "chain_incomplete", "self_signed"})


class ClientRoots(Roots):
    """A trust store that judges the chain of a client as a server does.

    A leaf without the purpose clientAuth is judged as that of a server instead: its purpose is a finding of its own.
    """

    of_servers = False

    def distrust(self, chain: Sequence[bytes]) -> str:
        """Return why OpenSSL refuses a chain that a client presents (DER, leaf first); empty if it trusts it."""
        reason = self._of_a_client(chain)
        return super().distrust(chain) if "purpose" in reason else reason

    def _of_a_client(self, chain: Sequence[bytes]) -> str:
        """A TLS 1.2 server verifies the certificates before the client proves that it has the key. So no key is needed here."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._server.wrap_bio(incoming, outgoing, server_side=True)
        try:
            for flight in (client_hello(("TLSv1.2",)), certificate_records(chain)):
                incoming.write(flight)
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        except ssl.SSLCertVerificationError as error:
            return error.verify_message or "certificate verify failed"
        except ssl.SSLError:
            return UNREADABLE
        return ""

    @functools.cached_property
    def _server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags = ssl.VERIFY_DEFAULT | ssl.VERIFY_X509_TRUSTED_FIRST
        if self._system:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        self._fill(context)
        with tempfile.NamedTemporaryFile() as file:  # the ssl module reads files only; the key protects nothing
            file.write(self_signed())
            file.flush()
            context.load_cert_chain(file.name)
        return context


def judge_client_certificate(
    kind: str,
    seen: Mapping[str, Any],
    accepted_domains: Iterable[str] = (),
    *,
    ca_pem: Union[str, bytes, None] = None,
    min_days_left: Optional[int] = None,
    now: Optional[datetime] = None,
) -> tuple[Finding, ...]:
    """Return what stands against presenting this certificate to a peer, the worst first.

    kind: of the peer. seen: what seen_on_host returned on the host; the key is not in it. accepted_domains: of the peer's tenant, as far
    as they are known. ca_pem: roots instead of the controller's system store. Raises MissingLibraryError.
    """
    path, key_path = (x509.printable_text(str(seen.get(name) or "")) for name in ("certificate", "private_key"))
    if seen.get("message"):
        said = (
            f"could not look at the client certificate {path} on the host: {x509.printable_text(str(seen['message']))}"
        )
        return (
            Finding.advised(
                "certificate_not_read", said, "correct client_certificate and client_key, or install openssl there"
            ),
        )
    x509.require_cryptography()
    assessment = check_certificate(
        None,
        str(seen.get("pem") or ""),
        ca_pem=ca_pem,
        names=(),
        min_days_left=min_days_left,
        now=now,
        public_key=base64.b64decode(str(seen.get("public_key") or "")),
        sources=Sources(f"{key_path} on the host", f"{path} on the host"),
        roots=ClientRoots,
    )
    found = [*assessment.findings, *assessment.warnings]
    if assessment.leaf:
        label = f"client certificate '{assessment.leaf.subject}' ({path})"
        if any(one.code in _OF_TRUST for one in found):
            roots = ClientRoots.of_pem(ca_pem) if ca_pem else ClientRoots.of_system()
            reason = roots.distrust([one.der for one in (assessment.leaf, *assessment.chain)])
            found = [one for one in found if one.code not in _OF_TRUST] + [_distrusted(kind, label, reason)]
        if kind == "exchange_online":
            found += _names(assessment.leaf, label, [one.lower() for one in accepted_domains])
        found += _purposes(assessment.leaf, label)
    return tuple(sorted(found, key=lambda one: ("error", "warning", "notice").index(one.severity)))


def purposes_of(certificate: Certificate) -> tuple[str, ...]:
    """Return the purposes of a certificate, for people; empty if it has no extended key usage, so that it may be used for all."""
    return tuple(sorted(PURPOSES.get(one, one) for one in certificate.purposes or ()))


def judge_served_to_peer(
    chain: Sequence[bytes],
    tls_domain: str,
    *,
    roots: Optional[Roots] = None,
    min_days_left: Optional[int] = None,
    now: Optional[datetime] = None,
) -> tuple[Finding, ...]:
    """Return what stands against serving this chain (DER, leaf first) to a peer that checks it, as Exchange Online does.

    tls_domain: the name that it looks for (TlsDomain of its outbound connector). roots: instead of the controller's system store.
    """
    advice = f"serve a certificate of a public authority that covers {tls_domain}, with its intermediates"
    if not chain:
        return (Finding.advised("bad_certificate", "no certificate was served", advice),)
    try:
        leaf = Certificate.load(chain[0])
    except CertificateError as error:
        return (Finding.advised("bad_certificate", f"the served certificate cannot be read: {error}"),)
    label = f"served certificate '{leaf.subject}'"
    found = [
        *policy.check_name(leaf, label, tls_domain),
        *policy.check_dates(leaf, label, now or x509.utc_now(), min_days_left, 0),
    ]
    if reason := (roots or Roots.of_system()).distrust(chain):
        found.append(
            Finding.advised(
                "untrusted", f"the chain of the {label} hangs on no public root: OpenSSL says: {reason}", advice
            )
        )
    return tuple(found)


def _distrusted(kind: str, label: str, reason: str) -> Finding:
    """Return the finding for a chain that does not hang on a root of the controller, as it is in the file."""
    if kind == "exchange_online":
        return Finding.advised("client_not_public", f"the chain of the {label}: OpenSSL says: {reason}")
    # Which roots another peer knows is not known here.
    return Finding.advised("client_root_unknown", f"the chain of the {label}: OpenSSL says: {reason}")


def _names(leaf: Certificate, label: str, domains: Sequence[str]) -> Iterator[Finding]:
    if not domains:
        yield Finding.advised("client_names_not_compared", f"the {label} is for {policy.names_of(leaf)}")
        return
    names = [san[4:].lower() for san in leaf.sans if san.startswith("DNS:")] or [(leaf.common_name or "").lower()]
    if any(f"*.{one}" in names or policy.covers(leaf, one) for one in domains):
        return
    shown = ", ".join(x509.printable_text(one) for one in domains[:5])
    below = any(name.removeprefix("*.").endswith(f".{one}") for name in names for one in domains)
    code = "client_name_below_domain" if below else "client_name_not_accepted"
    yield Finding.advised(code, f"the {label} is for {policy.names_of(leaf)}, and the accepted domains are {shown}")


def _purposes(leaf: Certificate, label: str) -> Iterator[Finding]:
    if leaf.purposes is not None and not leaf.purposes & {CLIENT_AUTH, "2.5.29.37.0"}:
        listed = ", ".join(purposes_of(leaf)) or "none"
        yield Finding.advised("client_purpose_missing", f"the {label} lacks clientAuth; its purposes are: {listed}")
