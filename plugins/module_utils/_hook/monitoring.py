# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The check for monitoring: one line, the exit statuses and the performance data of monitoring plugins. It changes nothing.

Served is what is installed, on every listener; the certificate has more than a third of its life left; its chain is complete. "Could not
look" is UNKNOWN, never OK. Source of the forms: monitoring-plugins.org, Development Guidelines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem, rules
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.fitness import HostRoots
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import error_limit, renewal_limit
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.x509 import X509
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.configuration import Pair, Renewable, RenewalPlan
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.parts import (
    NOT_READ,
    Parts,
    assess_served,
    is_open,
    look_at_renewed,
    look_beside,
    mended,
    rights,
    unpublished,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.served import Question, ask
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import NOT_TESTED, Handshake, Settings
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_OK, _WARNING, _CRITICAL, _UNKNOWN = 0, 1, 2, 3
STATUS_WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_WORST = (_OK, _WARNING, _UNKNOWN, _CRITICAL)
_DAY, _MINUTE = timedelta(days=1), timedelta(minutes=1)
_LONG = 30 * _DAY
"""Lives that are shorter than this are shown with hours."""
_LONGEST = 2000
_SETTLING, _PAUSE = 5.0, 0.5
"""Seconds: for a mail server to serve a file that was just written, besides those in which it notices it; and between two looks."""
_RENEW = "run 'mailfleet-starttls renew'"
_CHAIN = ("chain_incomplete", "chain_out_of_order")


class Said(NamedTuple):
    """One statement, and how bad it is."""

    status: int
    text: str


class _Differs(Said):
    """A listener serves another certificate than the installed one."""


class Checked(NamedTuple):
    """The answer: exit status and the line."""

    status: int
    line: str


class _Found(NamedTuple):
    """What was found of one certificate: statements, performance data, and whether a listener serves another one than is installed."""

    said: list[Said]
    data: list[str]
    differs: bool = False


def check(
    configuration: RenewalPlan, now: datetime, names: Sequence[str] = (), notices: Callable[[], float] = float
) -> Checked:
    """Look at every certificate, or at those of these names. notices: tells in how many seconds the mail server notices a new file."""
    settings = Settings(timeout=float(min(configuration.timeout, 10)), total_timeout=20.0, verify_trust=False)
    entries = [one for one in configuration.certificates if not names or one.name in names]
    said = [
        Said(_UNKNOWN, f"{one}: there is no such certificate in the configuration")
        for one in sorted(set(names) - {one.name for one in entries})
    ]
    if not entries and not said:
        said = [Said(_UNKNOWN, "the configuration names no certificate")]
    data: list[str] = []
    for entry in entries:
        found = _settled(entry, settings, now, notices)
        said += [Said(one.status, f"{entry.name}: {one.text}") for one in found.said]
        data += found.data
    return answer(said, data)


def answer(said: Sequence[Said], data: Sequence[str] = ()) -> Checked:
    """Return the line of these statements: the worst first. What is good is said only if nothing is bad."""
    status = max((one.status for one in said), key=_WORST.index)
    ranked = sorted((one for one in said if one.status or status == _OK), key=lambda one: -_WORST.index(one.status))
    # A bar would begin the performance data.
    text = rules.printable_text("; ".join(one.text for one in ranked), _LONGEST).replace("|", "/")
    return Checked(status, f"STARTTLS {STATUS_WORDS[status]} - {text}" + (f" | {' '.join(data)}" if data else ""))


def _settled(entry: Renewable, settings: Settings, now: datetime, notices: Callable[[], float]) -> _Found:
    """Look again while another certificate is served than one that was just written: a renewal may be under way."""
    found = _entry(entry, settings, now)
    seconds = notices() + _SETTLING if found.differs else 0.0
    until = time.monotonic() + seconds
    while found.differs and time.monotonic() < until and _age(entry) < seconds:
        time.sleep(_PAUSE)
        found = _entry(entry, settings, now)
    return found


def _age(entry: Renewable) -> float:
    """Return how many seconds ago one of the files that the mail server reads was written."""
    try:
        return min(time.time() - Path(pair.path or pair.certificate).stat().st_mtime for pair in entry.pairs)
    except OSError:
        return 0.0


def _entry(entry: Renewable, settings: Settings, now: datetime) -> _Found:
    """Return what is to be said of one certificate, and its performance data."""
    try:
        roots = HostRoots(entry.roots)
    except (EngineError, OSError, pem.PemError) as error:
        return _Found([Said(_UNKNOWN, f"could not look: {error}")], [])
    said: list[Said] = []
    data: list[str] = []
    found: list[Parts] = []
    for pair in entry.pairs:
        parts, unseen = _look(entry, pair, roots)
        said += unseen
        found += [parts] if parts else []
    expected: dict[Question, X509] = {}
    for parts in found:
        leaf = parts.served
        if leaf is None:
            what = f"holds no certificate: {parts.installed.said}" if parts.installed else "is not there"
            said.append(Said(_CRITICAL, f"{parts.pair.path or parts.pair.certificate} {what}"))
            continue
        kind = leaf.key_type if len(entry.pairs) > 1 else ""
        said += [*_dates(entry, parts, leaf), *_records(entry, parts), *_permissions(entry, parts)]
        data += _numbers(entry, f"{entry.name}{f'_{kind}' if kind else ''}", leaf, now)
        expected.update({Question(target, kind): leaf for target in entry.listeners})
    seen = ask(list(expected), settings) if expected else {}
    served = [_listener(question, leaf, seen, entry, roots) for question, leaf in expected.items()]
    said += [one for some in served for one in some]
    good = sum(all(one.status not in (_CRITICAL, _UNKNOWN) for one in some) for some in served)
    total = len(entry.pairs) * len(entry.listeners)
    data.append(f"'{entry.name}_served'={good};;{total}:;0;{total}")
    if not any(one.status for one in said):
        said.append(Said(_OK, f"{_left(found, now)}, served on {good} of {total} listeners"))
    return _Found(said, data, any(isinstance(one, _Differs) for one in said))


def _look(entry: Renewable, pair: Pair, roots: HostRoots) -> tuple[Optional[Parts], list[Said]]:
    """Read and judge one pair. What is installed counts, also if the renewed files cannot be read."""
    renewed, said = NOT_READ, []
    try:
        renewed = look_at_renewed(entry, pair, roots)
    except (EngineError, OSError) as error:
        said = [Said(_UNKNOWN, f"could not look: {error}")]
    if said and not pair.path:
        return None, said
    try:
        return look_beside(entry, pair, roots, renewed), said
    except (EngineError, OSError) as error:
        again = Said(_UNKNOWN, f"could not look: {error}")
        return None, said if again in said else [again, *said]


def _left(found: Sequence[Parts], now: datetime) -> str:
    leaf = min((one.served for one in found if one.served), key=lambda one: one.not_after)
    life, left = rules.life_of(leaf), leaf.not_after - now
    if life >= _LONG:
        return f"{rules.time_text(left)} of {rules.time_text(life)} left"
    # A life often ends a second before the hour.
    return f"{_hours(left)} of {_hours(life + _MINUTE)} left ({100 * left // (life or _DAY)} %)"


def _hours(span: timedelta) -> str:
    """Return a span of time in days and hours, in minutes if it is shorter than an hour."""
    hours, rest = divmod(span, timedelta(hours=1))
    days, hours = divmod(hours, 24)
    parts = [f"{days} d"] * bool(days) + [f"{hours} h"] * bool(hours)
    return " ".join(parts) or f"{rest // _MINUTE} min"


def _dates(entry: Renewable, parts: Parts, leaf: X509) -> list[Said]:
    """Return what is wrong with the installed certificate, and whether a renewed one waits."""
    fitness = parts.installed or parts.renewed
    said = [Said(_CRITICAL, one.what) for one in fitness.faults]
    said += [Said(_WARNING, one.what) for one in fitness.cautions if one.code == "expires_soon"]
    new = parts.renewed.leaf
    if parts.present is not None and not parts.is_current and new and new.not_after > leaf.not_after:
        if parts.renewed.faults:
            why = f", because it is unfit ({parts.renewed.said})"
        elif missing := unpublished(entry, parts.renewed):
            why = (
                f", because it fits none of the TLSA records; publish {'; '.join(missing)}, then run rotate_certificate"
            )
        else:
            why = f"; {_RENEW}"
        said.append(
            Said(
                _WARNING,
                f"{parts.pair.certificate} was renewed and is not installed{why}",
            )
        )
    return said


def _records(entry: Renewable, parts: Parts) -> list[Said]:
    """Return whether senders that check DANE defer: no record that was published when Ansible ran last fits what is installed."""
    missing = unpublished(entry, parts.installed or parts.renewed)
    where = parts.pair.path or parts.pair.certificate
    fits = f"{where} fits none of the TLSA records that were published when Ansible ran last"
    return [Said(_CRITICAL, f"{fits}; publish {'; '.join(missing)}, then run rotate_certificate")] if missing else []


def _permissions(entry: Renewable, parts: Parts) -> list[Said]:
    """Return what is wrong with who can read the installed file, which holds the key."""
    present = parts.present
    if present is None:
        return []
    try:
        wanted = mended(entry, present)
    except EngineError as error:
        return [Said(_UNKNOWN, f"could not look who may read {present.path}: {error}")]
    if present == wanted:
        return []
    has = f"{present.path} has {rights(present)}, in the place of {rights(wanted)}"
    if is_open(present, wanted):
        return [Said(_CRITICAL, f"the key can be read by others: {has}; {_RENEW}")]
    return [Said(_WARNING, f"{has}; {_RENEW}")]


def _numbers(entry: Renewable, label: str, leaf: X509, now: datetime) -> list[str]:
    """Return the days that are left, and what share of its life that is, each with its limits."""
    policy, life, left = entry.policy, rules.life_of(leaf), leaf.not_after - now
    warn = (
        _DAY * policy.warn_days_left if policy.warn_days_left is not None else renewal_limit(life, policy.renewal_share)
    )
    worst = _DAY * policy.min_days_left if policy.min_days_left is not None else error_limit(life, policy.error_share)
    share = life or _DAY
    return [
        f"'{label}_days'={left / _DAY:.2f};{warn / _DAY:.2f}:;{worst / _DAY:.2f}:;;{life / _DAY:.2f}",
        f"'{label}_life'={100 * left / share:.1f}%;{100 * warn / share:.1f}:;{100 * worst / share:.1f}:;;100",
    ]


def _listener(
    question: Question, leaf: X509, seen: Mapping[Question, Handshake], entry: Renewable, roots: HostRoots
) -> list[Said]:
    """Return what is wrong with what a listener serves; nothing if it is the installed certificate with its chain."""
    now = seen[question]
    if not now.completed:
        offers = now.stage >= Stage.STARTTLS_ADVERTISED or question.target.protocol == "smtps"
        if now.stage >= Stage.EHLO and not offers:
            return [Said(_CRITICAL, f"{question} does not offer STARTTLS")]
        if now.stage < Stage.EHLO and question.target.protocol != "smtps":
            return [Said(_UNKNOWN, f"could not look at {question}: {now.message}")]
        if now.code in ("connect_failed", "timeout", "no_route", "name_not_resolved", NOT_TESTED):
            return [Said(_UNKNOWN, f"could not look at {question}: {now.message}")]
        return [Said(_CRITICAL, f"{question}: {now.message}")]
    if now.fingerprint != leaf.fingerprint_sha256:
        return [
            _Differs(
                _CRITICAL, f"{question} serves another certificate than the installed one ({now.fingerprint[:16]}...)"
            )
        ]
    chain = assess_served(entry, now.chain, roots)
    incomplete = any(one.code in _CHAIN for one in chain.faults)
    return [Said(_CRITICAL, f"{question} serves an incomplete chain")] if incomplete else []
