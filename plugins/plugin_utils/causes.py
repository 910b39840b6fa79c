# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cause behind what a handshake test saw: the certificate served, the one installed, and the one that the daemon is told to serve.

A test alone sees symptoms, and its advice is a guess: a certificate that nobody trusts may be one that the daemon has made itself, because
the file is gone. Values only. What a host says is hostile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import one_line

MAX_TEXT = 300
"""Characters of a path, or of a daemon's words."""

UNSEEN = "could not look"
"""Begins the message of a certificate file of which nothing is known."""

_FAILED = frozenset({"starttls_refused", "tls_failed", "connection_closed", "starttls_not_offered"})
_OF_SERVED = frozenset(
    {
        "untrusted", "name_mismatch", "expired", "expiring", "expires_soon", "not_yet_valid", "weak_key", "weak_signature",
        "wrong_purpose", "incomplete_chain", "name_in_common_name_only", "ca_as_leaf", "bad_certificate",
        "wrong_key_usage", "not_everywhere",
    }
)  # fmt: skip
"""Codes of findings on the certificate served. Their advice is wrong if that certificate should not be served at all."""
_SAME = "wrong_certificate"
"""The finding that a cause says better."""
_OFFERING = ("offered", "required", "implicit")
_HERE = ("127.0.0.1", "::1")
"""The host itself: no device is between."""
EDITS = "edits_not_read"
"""The note of a read: files that changed after the daemon has read them last."""


@dataclass(frozen=True)
class FileThere:
    """A certificate file of a host. message: why no certificate is in it; else empty."""

    fingerprint: str = ""
    ends: str = ""
    message: str = ""
    readers: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether somebody could look at it."""
        return not self.message.startswith(UNSEEN)


@dataclass(frozen=True)
class Configured:
    """What the daemon of a host is told to serve at a port, as it says itself.

    tls: the mode of the listener. paths: its certificate files. files: path -> what is there. installed: the path at which the
    collection installs. said: the daemon's own words on its last failure; empty without one. interrupted: whether there is the journal
    of a change. unread: what of this the daemon has not read yet, as the read says it; empty if nothing is known of that.
    """

    title: str
    tls: str
    paths: tuple[str, ...] = ()
    files: Mapping[str, FileThere] = field(default_factory=dict)
    installed: str = ""
    said: str = ""
    interrupted: bool = False
    unread: str = ""

    @classmethod
    def of(cls, seen: Mapping[str, Any], port: Any, installed: str) -> Optional[Configured]:
        """Return it for a port from the result of a read; None if the read does not tell it, or more than one listener has the port.

        Raises what the shape of a hostile result raises; callers say what is not understood.
        """
        found = {
            (str(one.get("tls")), tuple(map(str, one.get("certificates") or ())))
            for one in seen.get("listeners") or ()
            if one.get("port") == port
        }
        if len(found) != 1 or (seen.get("health") or {}).get("state") != "running":
            return None
        tls, paths = found.pop()
        files = {str(one["path"]): _file_there(one) for one in seen.get("certificates") or ()}
        said = _shown(seen.get("tls_words") or "")
        unread = next((_shown(one.get("message")) for one in seen.get("notes") or () if one.get("code") == EDITS), "")
        return cls(_shown(seen.get("title")), tls, paths, files, installed, said, bool(seen.get("journal")), unread)


def _file_there(found: Mapping[str, Any]) -> FileThere:
    facts = found.get("certificate") or {}
    return FileThere(
        str(facts.get("fingerprint_sha256") or ""),
        _shown(facts.get("not_after") or ""),
        _shown(found.get("message") or ""),
        tuple(map(str, found.get("readers") or ())),
    )


def explained(
    tests: Sequence[Mapping[str, Any]], host: str, seen: Mapping[str, Any], installed: str
) -> list[dict[str, Any]]:
    """Return the tests of a host; those with a known cause have it as their first finding, in the place of guesses.

    seen: the read of the host. installed: the path at which the collection installs. A test from elsewhere has the cause of the host's own
    test if it saw the same: else something between may be the cause.
    """
    own = {_symptom(one): one for one in tests if one.get("seen_from") == host}
    done = []
    for one in tests:
        configured = Configured.of(seen, one.get("port"), installed) if not own or _symptom(one) in own else None
        cause = cause_of(own.get(_symptom(one), one), configured) if configured else None
        done.append(_with_cause(one, cause) if cause else dict(one))
    return done


def _symptom(test: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return test.get("port"), test.get("code"), test.get("fingerprint_sha256")


def cause_of(test: Mapping[str, Any], configured: Configured) -> Optional[Finding]:
    """Return why a test saw what it saw; None if all is as configured, or if nobody can tell."""
    code, served = str(test.get("code") or ""), str(test.get("fingerprint_sha256") or "")
    if code not in _FAILED and not served:
        return None  # it did not get as far as TLS
    if configured.tls == "none":
        return _of_nothing(configured, test) if code == "starttls_not_offered" else None
    if configured.tls not in _OFFERING:
        return None
    known = {path: configured.files[path] for path in configured.paths if path in configured.files}
    gone = {path: one.message for path, one in known.items() if one.message and one.is_known}
    if gone:
        return _of_gone(configured, gone, served)
    if not configured.paths:
        return _of_none(configured) if served else None
    if served:
        return _of_served(configured, known, served)
    if code == "starttls_not_offered":
        # It is configured, and the file is good. If the daemon has read that, a device on the path may remove it.
        return _of_edits(configured, test) if configured.unread or test.get("host") in _HERE else None
    return _of_failure(configured)


def _of_nothing(configured: Configured, test: Mapping[str, Any]) -> Finding:
    what = f"{configured.title} is told to offer no STARTTLS at port {test.get('port')}"
    if configured.interrupted:
        what += "; a change of this host is under way, or was killed"
    return Finding.advised("starttls_not_configured", what)


def _of_edits(configured: Configured, test: Mapping[str, Any]) -> Finding:
    why = (
        configured.unread.partition(";")[0]
        or "it has not read its configuration, or another setting of yours removes STARTTLS"
    )
    what = f"{configured.title} is told to offer STARTTLS at port {test.get('port')}, and does not"
    return Finding.advised("configuration_not_reloaded", f"{what}: {why}")


def _of_gone(configured: Configured, gone: Mapping[str, str], served: str) -> Finding:
    which = " and ".join(f"{_shown(path)} ({message})" for path, message in gone.items())
    does = "still serves one that it read before" if served else "cannot use TLS"
    return Finding.advised("certificate_file_gone", f"{configured.title} is told to serve {which}, and {does}")


def _of_none(configured: Configured) -> Finding:
    what = f"{configured.title} serves a certificate of its own making, because its configuration names no file"
    there = configured.files.get(configured.installed)
    if there and there.fingerprint:
        what += f"; the one that was installed is still in {_shown(configured.installed)}"
    return Finding.advised("certificate_of_its_own", what)


def _of_served(configured: Configured, known: Mapping[str, FileThere], served: str) -> Optional[Finding]:
    there = configured.files.get(configured.installed)
    paths = ", ".join(map(_shown, configured.paths))
    if configured.installed not in configured.paths and there and there.fingerprint and _are_files(configured.paths):
        return Finding.advised(
            "other_certificate_configured",
            f"{configured.title} is told to serve {paths}, not the installed {_shown(configured.installed)}",
        )
    if len(known) != len(configured.paths) or any(not one.fingerprint and not one.message for one in known.values()):
        return None
    held = {one.fingerprint: one for one in known.values() if one.fingerprint}
    if not held or served in held:
        return None
    ends = ", ".join(dict.fromkeys(one.ends for one in held.values()))
    return Finding.advised(
        "certificate_not_reloaded",
        f"{configured.title} serves another certificate than the one in {paths} (valid to {ends}): the file, or the "
        f"configuration that names it, was replaced, and {configured.title} has not read that since",
    )


def _are_files(paths: Iterable[str]) -> bool:
    return all(path.startswith("/") for path in paths)


def _of_failure(configured: Configured) -> Optional[Finding]:
    if not configured.said:
        return None
    paths = ", ".join(map(_shown, configured.paths))
    return Finding.advised(
        "certificate_not_loaded",
        f"{configured.title} is told to serve {paths}, and could not load it: {configured.said}",
    )


def _with_cause(test: Mapping[str, Any], cause: Finding) -> dict[str, Any]:
    """Return a test with its cause. Findings that follow from it keep what was seen, and lose their guess at what to do."""
    findings = []
    for one in test.get("findings") or ():
        code, message = str(one.get("code")), str(one.get("message"))
        if code == _SAME:
            continue
        if code in _FAILED or code in _OF_SERVED:
            message = f"{message.partition('; ')[0]}; the cause is {cause.code}, which says what to do"
        findings.append({**one, "message": message})
    passed = test.get("passed")
    return {**test, "findings": [cause.as_dict(), *findings], "passed": bool(passed) and cause.severity != "error"}


def _shown(value: Any) -> str:
    return one_line(str(value or ""))[:MAX_TEXT]
