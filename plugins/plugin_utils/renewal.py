# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module renewal_hook is given for a host whose certificate is renewed there, and which hosts wait for theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.due import LIVE, Issue
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import KEY_TYPES, ON_HOST
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import CERTIFICATE
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import Listener
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.renewal_files import PROGRAM
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import target_of as place_of_listener
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import HostVars, target_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.task import OBSERVED, observed_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import understood
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.variables import listed

_RESULTS = ("mail_server_result", "gateway_accept_result")
_OFFERS = ("offered", "required", "implicit")
_SMTPS = 465


def renewing(hosts: Sequence[str], hostvars: HostVars) -> list[str]:
    """Return those of the hosts that offer TLS with a certificate that is renewed there."""
    return [host for host in hosts if _source(hostvars[host]) in ON_HOST and _offers(hostvars[host])]


def past_renewing(hosts: Sequence[str], hostvars: HostVars) -> list[str]:
    """Return those of the hosts that have the renewal hook, and offer TLS no more: nothing it renews would be served."""
    return [
        host for host in hosts if PROGRAM in (_seen(hostvars[host]).get("left") or ()) and not _offers(hostvars[host])
    ]


def requesting(hosts: Sequence[str], hostvars: HostVars) -> list[str]:
    """Return those of the hosts that offer no TLS yet and ask for their first certificate by a request (CSR)."""
    return [host for host in hosts if _source(hostvars[host]) == "csr" and _can_ask(hostvars[host])]


def _can_ask(facts: Mapping[str, Any]) -> bool:
    seen = _seen(facts)
    read = bool(seen) and not seen.get("failed") and not seen.get("unreachable")
    return read and not seen.get("send_only") and not _offers(facts)


def waiting_hosts(hosts: Sequence[str], hostvars: HostVars) -> list[str]:
    """Return those of the hosts for which the run has written a request (CSR): their certificates are issued by hand."""
    names = ("mail_server_result", "gateway_accept_result", "certificate_result")
    return [
        host
        for host in hosts
        if any(isinstance(one := hostvars[host].get(name), Mapping) and one.get("waiting") for name in names)
    ]


def renewed_here(host: str, hostvars: HostVars, ca_content: str = "") -> list[dict[str, Any]]:
    """Return the option C(certificates) of renewal_hook for a host. ca_content: the roots of a private authority. Raises EngineError."""
    facts = hostvars[host]
    target = target_of(host, hostvars)
    names = listed(facts.get("starttls_certificate_names")) or [target.host]
    path = str(facts.get("starttls_certificate_path") or CERTIFICATE)
    of_ports = _of_ports(facts) if _source(facts) == "host" else []
    taken = {port for one in of_ports for port in one.ports}
    with understood(f"what {host} returned"):
        listeners = _listeners(facts, [path], lambda port: port not in taken)
        tlsa = _records(facts)
    own = {"host": str(facts.get("starttls_own_address") or "127.0.0.1"), "port": target.port, "protocol": "smtp"}
    policy: dict[str, Any] = {
        "allow_self_signed": str(facts.get("starttls_allow_self_signed") or False).lower() in ("true", "yes", "1")
    }
    for option, variable in (
        ("min_days_left", "starttls_min_days_left"),
        ("install_min_days_left", "starttls_certificate_min_days_left"),
        ("warn_days_left", "starttls_warn_days_left"),
    ):
        if str(facts.get(variable) or ""):
            policy[option] = str(facts[variable])
    made: dict[str, Any] = {
        "name": str(names[0]),
        "pairs": _pairs(facts, names, path),
        "names": [str(one) for one in names],
        "listeners": [{**one, "name": target.host} for one in listeners or [own]],
        "policy": policy,
        **({} if tlsa is None else {"tlsa": tlsa}),
        **{
            name: str(facts[f"starttls_certificate_{name}"])
            for name in ("owner", "group", "mode")
            if facts.get(f"starttls_certificate_{name}")
        },
    }
    more = []
    for one in of_ports:
        covered = list(one.names) or made["names"]
        with understood(f"what {host} returned"):
            there = _listeners(facts, [pair["certificate"] for pair in one.pairs], one.ports.__contains__)
        places = there or [
            {**own, "port": port, "protocol": "smtps" if port == _SMTPS else "smtp"} for port in one.ports
        ]
        asked = next((name for name in one.names if not name.startswith("*")), target.host)
        more.append(
            {
                **{name: value for name, value in made.items() if name != "tlsa"},
                "name": f"{covered[0]}:{'+'.join(map(str, one.ports))}",
                "pairs": list(one.pairs),
                "names": covered,
                "listeners": [{**each, "name": asked} for each in places],
                "tlsa": [],  # the published records are those of the mail port
            }
        )
    return [{**each, "ca_content": ca_content} if ca_content else each for each in (made, *more)]


class _OfPorts(NamedTuple):
    """The certificates that some ports serve in the place of the host's own, one for each algorithm."""

    ports: tuple[int, ...]
    names: tuple[str, ...]
    pairs: tuple[dict[str, str], ...]


def _of_ports(facts: Mapping[str, Any]) -> list[_OfPorts]:
    """Return the entries with ports; those with the same ports and names are one certificate in several algorithms."""
    found: dict[tuple[tuple[int, ...], frozenset[str]], _OfPorts] = {}
    for one in _more(facts):
        if ports := _ports(one):
            names = tuple(map(str, listed(one.get("names"))))
            certificate = str(one["certificate_path"])
            pair = {"private_key": str(one.get("private_key_path") or certificate), "certificate": certificate}
            former = found.get((ports, frozenset(names)), _OfPorts(ports, names, ()))
            found[ports, frozenset(names)] = former._replace(pairs=(*former.pairs, pair))
    return list(found.values())


def _ports(entry: Mapping[str, Any]) -> tuple[int, ...]:
    given = listed(entry.get("ports"))
    if wrong := [one for one in given if not str(one).isdecimal()]:
        raise EngineError(f"starttls_more_certificates: {str(wrong[0])[:40]!a} in ports is no port from 1 to 65535")
    return tuple(sorted({int(str(one)) for one in given}))


def _records(facts: Mapping[str, Any]) -> Optional[list[dict[str, Any]]]:
    """Return the TLSA records that a renewed certificate has to fit; None if they are not known: the hook keeps those that it has."""
    if str(facts.get("starttls_check_tlsa", "")).strip().lower() in ("false", "no", "off", "n", "f", "0"):
        return []  # whoever takes the check out by name takes it out of the hook, too
    found = _seen(facts).get("published_tlsa")
    return None if found is None else [dict(one) for one in found]


def _source(facts: Mapping[str, Any]) -> str:
    return str(facts.get("starttls_certificate_source") or "files")


def _seen(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return observed_of([facts.get(name) for name in OBSERVED])


def _offers(facts: Mapping[str, Any]) -> bool:
    """Whether a host offered TLS when it was read, or does since its change."""
    results = [facts.get(name) for name in _RESULTS]
    for one in [*results, _seen(facts)]:
        state = (one.get("after") or one.get("before")) if isinstance(one, Mapping) else None
        if isinstance(state, Mapping) and state.get("inbound"):
            return str(state["inbound"]) in ("offered", "required")
    return False


def _pairs(facts: Mapping[str, Any], names: Sequence[str], path: str) -> list[dict[str, str]]:
    """Return key, certificate and where they are installed; nowhere if the daemon reads the files of their owner itself."""
    if _source(facts) == "host":
        pairs = [(path, facts.get("starttls_private_key_path"))]
        pairs += [
            (str(one["certificate_path"]), one.get("private_key_path")) for one in _more(facts) if not _ports(one)
        ]
        return [{"private_key": str(key or certificate), "certificate": certificate} for certificate, key in pairs]
    kinds = tuple(listed(facts.get("starttls_key_types"))) or KEY_TYPES[:1]
    issue = Issue("acme", path, tuple(map(str, names)), kinds)
    return [
        {"private_key": f"{live}/privkey.pem", "certificate": f"{live}/fullchain.pem", "path": installed}
        for place, installed in enumerate(issue.paths)
        for live in [f"{LIVE}/{issue.lineage(place)}"]
    ]


def _more(facts: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    given = facts.get("starttls_more_certificates") or ()
    if isinstance(given, str) or not all(isinstance(one, Mapping) and one.get("certificate_path") for one in given):
        raise EngineError(
            "starttls_more_certificates: with starttls_certificate_source: host, it is a list, each entry with certificate_path, and "
            "private_key_path if the key has a file of its own"
        )
    return given


def _present(facts: Mapping[str, Any]) -> list[Listener]:
    seen = _seen(facts)
    found = {str(one["service"]): Listener.from_json(one) for one in seen.get("listeners") or ()}
    if any(_is_after_a_change(facts.get(name)) for name in _RESULTS):
        # The host was read before its change, and told then what that would reach.
        for one in (seen.get("reach") or {}).get("listeners") or ():
            known = found.get(str(one["service"]))
            overrides = known.overrides if known else {}
            words = (one["service"], one["host"], one["port"], one["after"], tuple(one["certificates"]), overrides)
            found[str(one["service"])] = Listener(*words)
    return list(found.values())


def _is_after_a_change(result: Any) -> bool:
    return isinstance(result, Mapping) and bool(result.get("changed")) and not result.get("failed")


def _listeners(facts: Mapping[str, Any], paths: Sequence[str], on: Callable[[int], bool]) -> list[dict[str, Any]]:
    """Return the listeners that serve one of the certificates, as the host told them, or as the change of this run has left them.

    on: whether a port is to serve it. It counts where the host does not tell the certificates of a listener.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    usual = str(facts.get("starttls_own_address") or "127.0.0.1")
    for listener in _present(facts):
        place = place_of_listener(listener, usual)
        if listener.tls not in _OFFERS or not place:
            continue
        if any(path in listener.certificates for path in paths) or (not listener.certificates and on(place.port)):
            found[place.host, place.port] = {"host": place.host, "port": place.port, "protocol": place.protocol}
    return list(found.values())
