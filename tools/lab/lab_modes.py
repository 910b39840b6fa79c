"""The table of the delivery modes, and whether a gateway keeps to it: a message over TLS and one in plaintext to each mail server."""

from __future__ import annotations

from collections.abc import Mapping

from lab_testinfra import DOMAINS, Fleet

USES_TLS = {
    "plaintext": (False, False),
    "match_sender": (False, True),
    "match_sender_strict": (False, True),
    "opportunistic": (True, True),
    "required": (True, True),
}
"""Mode -> whether mail goes on over TLS that arrived in plaintext, and over TLS, to a mail server with STARTTLS."""


def ways(fleet: Fleet, gateway: str, hosts: Mapping[str, str], sender: str = "outside") -> dict[tuple[str, bool], bool]:
    """Send the messages; return (mail server, whether it was sent over TLS) -> whether it arrived there over TLS. hosts: host -> mode."""
    marks = {
        (host, tls): fleet.send(sender, [f"trace@{DOMAINS[host]}"], tls=tls, to=gateway)
        for host in hosts
        for tls in (False, True)
    }
    return {(host, tls): fleet.arrived_over_tls(host, mark) for (host, tls), mark in marks.items()}


def of_the_table(hosts: Mapping[str, str]) -> dict[tuple[str, bool], bool]:
    """What ways() has to return."""
    return {(host, tls): USES_TLS[mode][tls] for host, mode in hosts.items() for tls in (False, True)}
