# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict on handshake tests and hosts, computed on the controller, and the table that shows it."""

from __future__ import annotations

import contextlib
import ssl
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import BLANK_LINE
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import is_address
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import policy
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    CertificateError,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.policy import covers
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.refusal import REISSUE, explain_refusal
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.roots import Roots, served_path
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns import dane, mta_sts
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import (
    CATALOGUE,
    SEVERITIES,
    Finding,
    failing,
    of_result,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.places import COULD_NOT_LOOK, looked
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.tls_advice import advice_for

TLS_VERSIONS = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")

ANOTHER_SERVER = (
    "if it is another server's, look up the name on the host that made the test: a name service that has an address for every name leads "
    "there as well"
)
"""What a certificate for another name may mean too."""

# Codes of tests that ended where TLS should have begun.
_WITHOUT_TLS = frozenset({"starttls_not_offered", "starttls_refused", "plaintext_after_220", "tls_failed"})
# Codes of a handshake that a server ends because it requires a client certificate.
_REFUSALS = frozenset({"tls_failed", "connection_closed"})
_GIVES_SECRETS_AWAY = frozenset({"PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"})
_DATES = ("expired", "not yet valid")  # in OpenSSL's messages
_ISSUERS = ("unable to get", "unable to verify", "self-signed", "self signed")


@dataclass(frozen=True)
class Expectation:
    """The expectations on a served certificate and its session. fingerprint is SHA-256, hex, or empty; several have commas between them.

    A certificate with fewer days left than min_days_left is an error, with fewer than warn_days_left a warning;
    None is a share of its life. fail_on is the lowest severity of a finding with which a test fails.
    """

    require_trusted: bool = True
    min_tls_version: str = "TLSv1.2"
    min_days_left: Optional[int] = None
    warn_days_left: Optional[int] = None
    fingerprint: str = ""
    fail_on: str = "error"


@dataclass(frozen=True)
class Evidence:
    """The controller's own results about a target.

    roots: the trust store if the controller has it. With it the controller's OpenSSL decides the trust of a survey.
    has_key: whether a surveyed server proved that it has the key. tlsa, policy, domain: the results of the checks dane
    and mta_sts; None without these checks.
    """

    roots: Optional[Roots] = None
    has_key: Optional[bool] = None
    tlsa: Optional[dane.TlsaLookup] = None
    policy: Optional[mta_sts.PolicyLookup] = None
    domain: str = ""


class Certificates:
    """The certificates of a run. Each is parsed once, even if many targets serve it."""

    def __init__(self, pem_of: Mapping[str, str], now: Optional[datetime] = None) -> None:
        """pem_of: PEM by SHA-256 fingerprint. now: the time of the assessment, timezone-aware."""
        self.now = now or datetime.now(timezone.utc)
        self._pem_of = pem_of
        self._ders: dict[str, Optional[bytes]] = {}
        self._loaded: dict[str, Certificate] = {}
        self._described: dict[str, dict[str, Any]] = {}

    def load(self, fingerprint: str) -> Certificate:
        """Return the certificate with this fingerprint. Raises CertificateError."""
        if fingerprint not in self._loaded:
            der = self._der(fingerprint)
            if der is None:
                raise CertificateError("the result does not hold it complete")
            self._loaded[fingerprint] = Certificate.load(der)
        return self._loaded[fingerprint]

    def ders(self, fingerprints: Iterable[str]) -> list[bytes]:
        """Return certificates as DER, also those that load() cannot read. One that is missing is empty."""
        return [self._der(fingerprint) or b"" for fingerprint in fingerprints]

    def _der(self, fingerprint: str) -> Optional[bytes]:
        if fingerprint not in self._ders:
            self._ders[fingerprint] = None
            with contextlib.suppress(KeyError, ValueError):
                self._ders[fingerprint] = ssl.PEM_cert_to_DER_cert(self._pem_of[fingerprint])
        return self._ders[fingerprint]

    def describe(self, fingerprint: str) -> dict[str, Any]:
        """Return the public facts of the certificate, as Certificate.describe does. Raises CertificateError."""
        if fingerprint not in self._described:
            self._described[fingerprint] = self.load(fingerprint).describe(self.now)
        return self._described[fingerprint]


UNCLEAR = "the Received header of {by} for {what} can be read in more than one way, so it proves nothing"
GREYLISTED = "greylisted"
"""The cause of a message that waits for the second try that a next hop wants."""
NO_NETWORK = "{what} arrived without crossing a network, so it proves nothing"
SEEN_FROM = " (seen from "
"""The separator between a finding's message and the places of its tests."""


def findings_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the findings on a host as dicts of C(code), C(severity) and C(message).

    Uses these keys of the row: C(host), C(expected) (V(offered), V(disabled) or V(either)), C(errors) (text),
    C(findings) (those that are about no single test), C(send_only), C(probes), each with C(seen_from), C(traces) and C(activity). A
    finding from several places is returned once. A host without any result gets the finding C(not_tested).
    """
    host, probes, errors = row["host"], row.get("probes") or (), row.get("errors") or ()
    findings = [Finding("not_gathered", str(message)).as_dict() for message in errors]
    findings += [of_result(one) for one in row.get("findings") or ()]
    places: dict[tuple[str, str, str], list[str]] = {}
    for probe in probes:
        for one in _against(probe, row.get("expected") or "offered"):
            known = of_result(one)
            key = known["code"], known["severity"], known["message"]
            places.setdefault(key, []).append(probe.get("seen_from") or host)
    for (code, severity, message), seen_from in places.items():
        named = dict.fromkeys(seen_from) if code != COULD_NOT_LOOK else ()  # that one says itself who it was
        others = ", ".join(place for place in named if place != host)
        findings.append(
            {"code": code, "severity": severity, "message": f"{message}{SEEN_FROM}{others})" if others else message}
        )
    for trace in row.get("traces") or ():
        findings += [one.as_dict() for one in told_findings(trace)]
        findings += [one.as_dict() for one in unproven_hops(trace)]
    told = row.get("send_only") and any(one.get("code") in ("relay_not_tested", "not_tested") for one in findings)
    if not (probes or errors or row.get("activity") or told):
        findings.append(Finding("not_tested", "the handshake test was not made").as_dict())
    return findings


def verdict_of(findings: Sequence[Mapping[str, Any]], fail_on: str) -> str:
    """Return C(pass), C(FAIL) or C(unproven): nothing is known to be wrong, and nobody could look."""
    bad = failing(findings, fail_on)
    return "pass" if not bad else "unproven" if all(one["code"] == "unproven" for one in bad) else "FAIL"


def offers_starttls(test: Mapping[str, Any]) -> Optional[bool]:
    """Return whether a server offers STARTTLS, by a result of starttls_probe; None if the server did not answer EHLO."""
    if test.get("starttls_advertised") is True:
        return True
    return False if test.get("stage") == "ehlo" else None


def tls_of(hop: Mapping[str, Any]) -> Optional[bool]:
    """Return whether a hop of message_trace used TLS; None if that is unproven."""
    return bool(hop["tls"]) if hop.get("tls") is not None and hop.get("clear", True) else None


def network_hops(trace: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the hops of a message that crossed a network."""
    return [hop for hop in trace.get("hops") or () if isinstance(hop, Mapping) and hop.get("network")]


def told_findings(trace: Mapping[str, Any]) -> list[Finding]:
    """Return C(findings) of a message with their code. One that is greylisted waits, and is not lost."""
    code = "message_waits" if word_for_lost(trace) == GREYLISTED else "message"
    return [Finding(code, str(message)) for message in trace.get("findings") or ()]


def word_for_lost(trace: Mapping[str, Any]) -> str:
    """Return the word for a message that did not arrive: C(greylisted), C(returned), C(waits), or C(lost) if no queue has it."""
    waits = trace.get("waits")
    if not isinstance(waits, Mapping) or trace.get("arrived"):
        return "lost"
    if waits.get("returned"):
        return "returned"
    return GREYLISTED if waits.get("cause") == GREYLISTED else "waits"


def hops_over_tls(trace: Mapping[str, Any]) -> str:
    """Return how many hops of a message that crossed a network used TLS, in words."""
    if not trace.get("arrived"):
        return word_for_lost(trace)
    used = [tls_of(hop) for hop in network_hops(trace)]
    unproven = f", {used.count(None)} unproven" if None in used else ""
    return f"{used.count(True)} of {len(used)} hops over TLS{unproven}"


def spoken_message(direction: Any) -> str:
    """Return the words for a test message of this direction, C(in) or C(out)."""
    return "the message from outside" if direction == "in" else "the message to the outside"


def unproven_hops(trace: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding for each hop of a message whose TLS is unproven, unless C(findings) of the message says it already."""
    what, told = spoken_message(trace.get("direction")), trace.get("findings") or ()
    hops = network_hops(trace)
    if trace.get("arrived") and not hops and (said := NO_NETWORK.format(what=what)) not in told:
        yield Finding.advised("hop_unproven", said)
    for hop in hops:
        by = hop.get("by") or "unknown"
        if not hop.get("clear", True):
            said = UNCLEAR.format(by=by, what=what)
        elif tls_of(hop) is None:
            protocol = hop.get("protocol") or "-"
            said = f"the Received header of {by} for {what} does not tell whether TLS was used ({protocol})"
        else:
            continue
        if said not in told:
            yield Finding.advised("hop_unproven", said)


def _against(probe: Mapping[str, Any], expected: str) -> Iterator[Mapping[str, Any]]:
    answers_ehlo = probe.get("starttls_advertised") or probe.get("stage") == "ehlo"
    if expected == "offered" or not looked(probe):
        yield from probe.get("findings") or ()
    elif expected == "disabled" and probe.get("starttls_advertised"):
        yield Finding("still_offered", "STARTTLS is still offered").as_dict()
    elif not answers_ehlo:
        yield {"code": probe.get("code") or "unreachable", "message": probe.get("message")}


def assess_handshake(
    seen: Mapping[str, Any], expected: Expectation, certificates: Certificates, evidence: Evidence = Evidence()
) -> dict[str, Any]:
    """Return the result of a handshake test with the controller's assessment.

    seen is a result of the module. Added are C(certificate) (x509.describe() of the leaf, or None), C(chain) (the same
    for every served certificate), C(name_matches), C(days_left), C(dane), C(mta_sts), C(findings) (dicts of C(code),
    C(severity) and C(message), the worst first) and C(passed). For a survey, C(trusted) and C(verify_error) are also
    computed here.
    """
    return _SeenHandshake(seen, expected, certificates, evidence).verdict()


class _SeenHandshake:
    """The result of one handshake test during its assessment."""

    def __init__(
        self, seen: Mapping[str, Any], expected: Expectation, certificates: Certificates, evidence: Evidence
    ) -> None:
        self.seen, self.expected, self.evidence, self.now = seen, expected, evidence, certificates.now
        self.is_survey = seen.get("mode") == "survey"
        self.chain: list[Certificate] = []
        self.described: list[dict[str, Any]] = []
        self.unreadable = self._read_chain(certificates)
        self.trusted, self.verify_error = seen["trusted"], seen["verify_error"]
        if self.is_survey and self.trusted is None and seen["chain_sha256"] and evidence.roots:
            self.verify_error = evidence.roots.distrust(certificates.ders(seen["chain_sha256"]))
            self.trusted = not self.verify_error
        self.path = served_path(self.chain, self.now, is_trusted=self.trusted is True) if self.chain else []
        self.name_matches = covers(self.chain[0], seen["name"]) if self.chain else None

    def _read_chain(self, certificates: Certificates) -> str:
        """Read the served certificates. Return the reason if one of them cannot be read, else an empty text."""
        try:
            for fingerprint in self.seen["chain_sha256"]:
                self.described.append(certificates.describe(fingerprint))
                self.chain.append(certificates.load(fingerprint))
        except CertificateError as error:
            number = len(self.chain) + 1
            which = "certificate served" if number == 1 else f"certificate number {number} that was served"
            return f"the {which} cannot be read: {error}; check which file the daemon serves it from"
        if self.seen["completed"] and not self.chain:
            return "TLS was agreed, but the test saw no certificate; check which one the daemon serves"
        return ""

    def verdict(self) -> dict[str, Any]:
        """Return the completed result."""
        compared = {"dane": self._dane(), "mta_sts": self._mta_sts()}
        found = [
            *self._dialogue(),
            *(self._certificate() if self.chain else ()),
            *([Finding("bad_certificate", self.unreadable)] if self.unreadable else ()),
            *self._tls(),
            *self._checks(),
            *(_about_dane(compared["dane"]) if self.chain else ()),
            *_about_mta_sts(compared["mta_sts"]),
        ]
        findings = [one.as_dict() for one in found]
        findings.sort(key=lambda one: SEVERITIES.index(one["severity"]))
        return {
            **self.seen,
            "trusted": self.trusted,
            "verify_error": self.verify_error,
            "certificate": self.described[0] if self.chain else None,
            "chain": self.described,
            "name_matches": self.name_matches,
            "days_left": self.described[0]["days_left"] if self.chain else None,
            **compared,
            "findings": findings,
            "passed": not failing(findings, self.expected.fail_on),
        }

    def _dialogue(self) -> Iterator[Finding]:
        """Yield findings on the end of the test and on the answers in plaintext and inside TLS."""
        seen, code = self.seen, self.seen["code"]
        if seen.get("client_certificate") == "required" and code in (*_REFUSALS, ""):
            yield Finding.advised(
                "client_certificate_required",
                "the server requires a certificate of the client and ends the session without one",
            )
        elif code or not (seen["completed"] or (self.is_survey and seen["chain_sha256"])):
            # A test that stopped early without a code has not passed.
            message = seen["message"] or f"the test ended after {seen['stage']}"
            yield Finding.advised(
                code or "connection_closed",
                message,
                advice_for(message) if code == "tls_failed" or message == BLANK_LINE else "",
            )
        if seen.get("client_certificate") == "requested":
            yield Finding.advised(
                "client_certificate_requested",
                "the server requests a certificate of the client and continues without one",
            )
        mechanisms = sorted(_GIVES_SECRETS_AWAY & set(_mechanisms(seen["capabilities"])))
        if mechanisms:
            yield Finding.advised(
                "auth_in_plaintext",
                f"the server offers {' and '.join(mechanisms)} before TLS, so clients may send passwords in plaintext",
            )
        if any(_verb(one) == "STARTTLS" for one in seen["capabilities_tls"]):
            yield Finding.advised(
                "starttls_offered_in_tls",
                "the server offers STARTTLS again inside TLS, where it is not allowed",
            )

    def _certificate(self) -> Iterator[Finding]:
        leaf, seen, expected = self.chain[0], self.seen, self.expected
        weak, dates = list(self._strength()), list(self._dates())
        out_of_date = any(one.code in ("expired", "not_yet_valid") for one in dates)
        if expected.fingerprint and seen["fingerprint_sha256"] not in expected.fingerprint.split(","):
            yield Finding.advised(
                "wrong_certificate",
                f"the certificate served ({leaf.subject}, {seen['fingerprint_sha256'][:16]}...) is not the one that was "
                f"installed ({expected.fingerprint[:16]}...)",
            )
        yield from self._trust(bool(weak), out_of_date)
        yield from map(self._or_another_server, policy.check_name(leaf, "certificate", seen["name"]))
        if not (self.trusted is False and expected.require_trusted and "purpose" in self.verify_error):
            yield from policy.check_key_usage(leaf, f"certificate {leaf.subject}")
        yield from policy.check_acceptance(leaf, f"certificate {leaf.subject}")
        yield from weak
        yield from dates

    def _or_another_server(self, one: Finding) -> Finding:
        """Return a finding on the name; with a hint if the name may have led to a server that is not the one meant.

        A name service may have an address for every name. A server with the installed certificate is the right one, and an address needs no
        look-up.
        """
        ours = self.expected.fingerprint and self.seen["fingerprint_sha256"] == self.expected.fingerprint
        if one.code != "name_mismatch" or ours or is_address(str(self.seen["host"])):
            return one
        return Finding(one.code, f"{one.message}; {ANOTHER_SERVER}")

    def _trust(self, weak: bool, out_of_date: bool) -> Iterator[Finding]:
        """Yield findings on the trust of the chain, except for a fault that another finding explains."""
        reason = self.verify_error
        explained = (out_of_date and (not reason or _says(reason, _DATES))) or (weak and _says(reason, ("too weak",)))
        if self.trusted is False and self.expected.require_trusted and not explained:
            above = self.evidence.roots.issuers_of(self.path[-1]) if self.evidence.roots else ()
            why = explain_refusal(reason, [*self.path, *above[:1]])
            shown = f"{reason} ({why})" if why else reason or "the reason is unknown"
            yield Finding.advised(
                "untrusted", f"the chain of {self.chain[0].subject} is not trusted: {shown}", self._way_to_trust(why)
            )
        elif self.trusted and self.evidence.roots and not self.path[-1].self_signed:
            above = self.evidence.roots.issuers_of(self.path[-1])
            if above and not any(one.self_signed for one in above):
                yield Finding.advised(
                    "incomplete_chain",
                    f"the intermediate {above[0].subject} is not served and is trusted only because the CA certificates "
                    "contain it; "
                    "those of partners may not",
                )

    def _way_to_trust(self, why: str) -> str:
        leaf, last = self.path[0], self.path[-1]
        if _says(self.verify_error, _DATES):
            stale = [one for one in self.path[1:] if not policy.is_valid(one, self.now)]
            if not stale:
                return "check that the clocks are right, and that the trust store of the testing host is up to date"
            return f"the certificate {stale[0].subject} in the served chain is out of date; serve its successor"
        if "purpose" in self.verify_error:
            return "have it issued again for a TLS server (serverAuth)"
        if why:
            return REISSUE
        if leaf.self_signed:
            return (
                "the certificate is self-signed; get one from a certification authority, or set it as ca_file if partners "
                "trust it"
            )
        if last.self_signed:
            return f"its root {last.subject} is not in the trust store; set it as ca_file if it is a private one"
        if not _says(self.verify_error, _ISSUERS):
            return REISSUE if self.verify_error else ""  # or the catalogue's advice
        return (
            f"the intermediate is missing: {last.issuer}, which signed {last.subject}, is not served; append its certificate "
            "to the file with the server's, or set it as ca_file if it is a private root"
        )

    def _strength(self) -> Iterator[Finding]:
        for one in self.path:
            if one is self.path[0] or not one.self_signed:  # the signature of a root does not matter
                yield from policy.check_strength(one, f"certificate {one.subject}")

    def _dates(self) -> Iterator[Finding]:
        leaf, expected = self.chain[0], self.expected
        label = f"certificate {leaf.subject}"
        return policy.check_dates(leaf, label, self.now, expected.min_days_left, expected.warn_days_left)

    def _tls(self) -> Iterator[Finding]:
        """Yield findings on the agreed TLS version and, if the check versions ran, on the other offered versions."""
        agreed, minimum = self.seen["tls_version"], self.expected.min_tls_version
        offered: Mapping[str, Any] = self.seen.get("versions") or {}
        # A survey offers at most TLS 1.2, so it cannot agree on a newer version.
        is_best = not (self.is_survey and agreed == "TLSv1.2") or offered.get("TLSv1.3") is False
        too_old = agreed in TLS_VERSIONS[: TLS_VERSIONS.index(minimum)] and is_best
        if too_old:
            yield Finding.advised(
                "old_tls", f"{agreed} was agreed", f"the server should offer {minimum}: switch it on, or update it"
            )
        old = [version for version in ("TLSv1", "TLSv1.1") if offered.get(version)]
        if old and agreed in ("", "TLSv1.2", "TLSv1.3"):
            newer = agreed or offered.get("TLSv1.2") or offered.get("TLSv1.3")
            accepts = f"the server accepts {' and '.join(old)}"
            if newer:
                yield Finding.advised("old_tls_offered", f"{accepts} as well")
            else:
                advice = f"update it, or let it offer {minimum}"
                yield Finding.advised("old_tls_offered", f"{accepts}, and nothing newer", advice)
        if agreed and offered.get("TLSv1.3") is False and not too_old:
            yield Finding.advised("no_tls13", "the server does not offer TLSv1.3")

    def _checks(self) -> Iterator[Finding]:
        if self.seen.get("injection"):
            yield Finding.advised(
                "command_injection",
                "commands that were sent in plaintext behind STARTTLS were answered inside TLS, so an attacker can inject "
                "commands into a session (CVE-2011-0411 and similar)",
            )
        if self.seen.get("large_hello") is False:
            yield Finding.advised(
                "large_hello_lost",
                "a ClientHello of 1.5 kB in two segments, as clients with post-quantum key exchange send it, is not understood",
            )
        if self.seen.get("resumption") is False:
            yield Finding.advised(
                "no_resumption", "sessions cannot be resumed, so every connection needs a full handshake"
            )
        if not self.is_survey or not self.chain:
            return
        if self.evidence.has_key is False:
            yield Finding.advised(
                "tls_failed",
                "the key exchange is not signed with the key of the certificate",
                "check that key and certificate belong together",
            )
        elif self.evidence.has_key is None:
            yield Finding.advised(
                "not_proved", "the survey could not prove that the server has the key of its certificate"
            )

    def _dane(self) -> Optional[dict[str, Any]]:
        found, seen = self.evidence.tlsa, self.seen
        if found is None:
            return None
        return dane.compare_records(found, seen["port"], self.chain, [seen["name"], self.evidence.domain], self.now)

    def _mta_sts(self) -> Optional[dict[str, Any]]:
        found, seen = self.evidence.policy, self.seen
        if found is None:
            return None
        hosts = [one for one in (dane.base_name(seen["host"], seen["name"]), seen["name"]) if one]
        policy = found.policy
        host = next((one for one in hosts if policy and policy.allows(one)), hosts[0])
        return mta_sts.compare_policy(found, host, self._fault_for_senders(host))

    def _fault_for_senders(self, host: str) -> Optional[str]:
        if not self.chain:
            is_fault = self.unreadable or self.seen["code"] in _WITHOUT_TLS
            return "TLS with it fails" if is_fault else None
        if self.trusted is False:
            return "its certificate is not trusted"
        if not covers(self.chain[0], host):
            return f"its certificate is not for {host}"
        if self.seen["tls_version"] in TLS_VERSIONS[: TLS_VERSIONS.index("TLSv1.2")]:
            return f"it agrees on {self.seen['tls_version']} only"
        return "" if self.trusted else None


def _about_dane(compared: Optional[Mapping[str, Any]]) -> Iterator[Finding]:
    code = f"dane_{compared['status']}" if compared else ""
    if compared and code in CATALOGUE:
        yield Finding.advised(code, compared["message"])


def _about_mta_sts(compared: Optional[Mapping[str, Any]]) -> Iterator[Finding]:
    if not compared or (compared["status"] == "failed" and compared["mode"]):
        return  # the test saw no certificate to compare; another finding gives the reason
    code = {"testing_mismatch": "mta_sts_testing"}.get(compared["status"], f"mta_sts_{compared['status']}")
    if code in CATALOGUE:
        yield Finding.advised(code, compared["message"])


def _says(reason: str, words: Sequence[str]) -> bool:
    return any(word in reason for word in words)


def _verb(capability: str) -> str:
    return capability.partition(" ")[0].upper()


def _mechanisms(capabilities: Sequence[str]) -> Iterator[str]:
    """Return the mechanisms of AUTH, also in the old form C(AUTH=)."""
    for one in capabilities:
        words = one.upper().replace("=", " ", 1).split() if one.upper().startswith("AUTH=") else one.upper().split()
        if words[:1] == ["AUTH"]:
            yield from words[1:]


def render_table(
    columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], width: int = 40, whole: str = ""
) -> str:
    """Return a table in plain text. columns maps a row's key to its heading.

    Cells are cut to width characters, except those of the column whole.
    """
    widest = {key: sys.maxsize if key == whole else width for key in columns}
    cells = [list(columns.values())] + [[_cell(row.get(key), widest[key]) for key in columns] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    lines = ["  ".join(text.ljust(size) for text, size in zip(line, widths)).rstrip() for line in cells]
    lines.insert(1, "  ".join("-" * size for size in widths))
    return "\n".join(lines)


def _cell(value: Any, width: int) -> str:
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, (list, tuple)):
        text = ", ".join(map(str, value))
    else:
        text = "" if value is None else str(value)
    text = one_line(text) or "-"
    return text if len(text) <= width else text[: width - 3] + "..."


def one_line(text: str) -> str:
    """Return the text with every unprintable character replaced by C(?)."""
    return "".join(char if char.isprintable() else "?" for char in text)
