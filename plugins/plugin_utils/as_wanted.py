# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the inventory insists on TLS: whether the hosts do what it says, as far as they were read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import CERTIFICATE_CHECKS, DIRECTIONS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import target_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.task import OBSERVED, observed_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import readable

# Settings of Postfix and transports of Debian's Exim by which all mail leaves, and levels with which it may leave in plaintext.
_WAYS_OUT = ("relayhost", "default_transport", "transport remote_smtp", "transport remote_smtp_smarthost")
_WEAK = ("none", "may", "dane", "disabled", "opportunistic")


def is_outdated(facts: Mapping[str, Any]) -> bool:
    """Whether this run changed the host after the read, which then says nothing of now."""
    results = ("mail_server_result", "gateway_accept_result", "gateway_result", "mail_server_peers_result")
    return any(readable(facts.get(name)).get("changed") for name in results)


def bare_name(name: Any) -> str:
    """Return a name in lower case and without its last dot."""
    return str(name).lower().rstrip(".")


def lacking(host: str, facts: Mapping[str, Any], is_gateway: bool, expected: str) -> Iterator[str]:
    """Yield what the inventory says of a host by which it insists on TLS, and which the read of the host does not show."""
    if expected != "offered":
        return
    if not is_gateway:
        port = target_of(host, {host: facts}).port
        seen = {} if is_outdated(facts) else readable(observed_of(facts.get(name) for name in OBSERVED))
        levels = {one.get("tls") for one in seen.get("listeners") or () if one.get("port") == port}
        if facts.get("starttls_inbound") == "required" and levels & {"none", "offered"}:
            yield f"starttls_inbound is required, and port {port} of {host} takes mail in plaintext"
        ways = [one for one in seen.get("transports") or () if one.get("setting") in _WAYS_OUT]
        weak = [f"{one.get('transport')} ({one.get('level')})" for one in ways if one.get("level") in _WEAK]
        if facts.get("starttls_outbound") == "required" and weak:
            yield f"starttls_outbound is required, and {host} may send in plaintext by {', '.join(weak)}"
        return
    if not _reads_domains(facts):
        return
    held, seen = _held_domains(facts), readable(facts.get("gateway_now"))
    for one in facts.get("starttls_enforced_domains") or ():
        if one.get("state") != "absent" and _enforced(one) not in held:
            yield f"{host} does not enforce TLS for {_enforced(one)[0]} ({', '.join(filter(None, _enforced(one)[1:]))})"
    for option in ("accept", "send"):
        wanted, found = facts.get(f"starttls_{option}"), (seen.get("outbound") or {}).get(option)
        if wanted and wanted not in ("unchanged", found):
            yield f"starttls_{option} is {wanted}, and {host} has {found or 'nothing set'}"


def not_in_force(host: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what a gateway noted as the inventory wants it, and its daemon does not do, or may not do."""
    if not _reads_domains(facts):
        return
    held, outbound = _held_domains(facts), readable(facts.get("gateway_now")).get("outbound") or {}
    noted = [
        (direction, domain, f"TLS for {domain} ({direction})")
        for domain, direction, check in map(_enforced, facts.get("starttls_enforced_domains") or ())
        if (domain, direction, check) in held
    ]
    for option in ("accept", "send"):
        wanted = facts.get(f"starttls_{option}")
        if wanted and wanted == outbound.get(option):
            noted.append((option, wanted, f"starttls_{option}: {wanted}"))
    told = {two.get("what") for two in readable(facts.get("gateway_now")).get("differences") or ()}
    for what, one, title in noted:
        answer = _in_force(facts, what, one)
        if answer is False:
            yield Finding.advised("not_as_wanted", f"{host} has noted {title}, and its daemon's configuration lacks it")
        elif answer is None and _named(what, one) not in told:
            yield Finding.advised(
                "in_force_unknown",
                f"{host} has noted {title}, and its daemon's configuration does not tell whether it is so",
            )


def _named(what: str, one: str) -> str:
    """Return how a difference names an answer, see in_force.Fault of the engine on the hosts."""
    return f"{what} {one}" if what in DIRECTIONS else what


def enforced_there(facts: Mapping[str, Any]) -> list[Any]:
    """Return the enforced domains of the inventory that a gateway has, or all of them if it was not read."""
    wanted = list(facts.get("starttls_enforced_domains") or ())
    if not _reads_domains(facts):
        return wanted
    held = _held_domains(facts)
    return [one for one in wanted if _enforced(one) in held and not _is_gone(facts, one)]


def _is_gone(facts: Mapping[str, Any], enforced: Mapping[str, Any]) -> bool:
    domain, direction, _check = _enforced(enforced)
    return _in_force(facts, direction, domain) is False


def _in_force(facts: Mapping[str, Any], what: str, one: str) -> Any:
    """Return whether the daemon of a gateway does what it noted; None if that cannot be told. A gateway that does not run has no answer."""
    answers = readable(facts.get("gateway_now")).get("in_force") or {}
    return (answers.get(what) or {}).get(one, None if answers else True)


def _reads_domains(facts: Mapping[str, Any]) -> bool:
    """Whether the enforced domains of a gateway were read."""
    seen = readable(facts.get("gateway_now"))
    return "enforced_domains" in seen and not (seen.get("failed") or seen.get("skipped"))


def _held_domains(facts: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    return {_enforced(one) for one in readable(facts.get("gateway_now")).get("enforced_domains") or ()}


def _enforced(one: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return domain, direction and certificate check of an enforced domain, of the inventory or of a gateway."""
    direction = str(one.get("direction") or "")
    check = str(one.get("certificate_check") or CERTIFICATE_CHECKS[0]) if direction == "outbound" else ""
    return bare_name(one.get("domain")), direction, check
