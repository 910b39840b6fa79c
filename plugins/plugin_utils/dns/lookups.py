# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Concurrent DNS look-ups. Each answer says whether the resolver reports that DNSSEC validates it.

Private to this collection. Runs on the controller only, because it needs the Python package ``dnspython``. The AD flag
of an answer is only as safe as the path to the resolver. Use a validating resolver on this host or near it (RFC 6840,
5.8; RFC 7672, 2.1.1).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    MissingLibraryError,
    printable_text,
)

if TYPE_CHECKING:
    import dns.asyncresolver
    import dns.exception
    import dns.flags
    import dns.name
    import dns.nameserver
    import dns.rdatatype
    import dns.resolver

Key = TypeVar("Key")
Result = TypeVar("Result")

MINIMUM_DNSPYTHON = "2.6.1"
PORT = 53
_PAYLOAD = 1232
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")


class ResolverError(EngineError):
    """A resolver's address is invalid, or the system has no resolver. The message says which."""


def has_dnspython() -> bool:
    """Load ``dnspython``. Return whether there is a recent enough one.

    It is not loaded with this file: that costs every task of the collection a tenth of a second, and few of them ask the DNS.
    """
    global dns
    try:
        import dns.asyncresolver  # noqa: PLC0415
        import dns.exception  # noqa: PLC0415
        import dns.flags  # noqa: PLC0415
        import dns.name  # noqa: PLC0415
        import dns.nameserver  # noqa: PLC0415
        import dns.rdatatype  # noqa: PLC0415
        import dns.resolver  # noqa: PLC0415
    except ImportError:
        return False
    return hasattr(dns.nameserver, "Do53Nameserver")


def require_dnspython() -> None:
    """Load ``dnspython``. Raises MissingLibraryError unless a recent enough one is installed."""
    if not has_dnspython():
        raise MissingLibraryError(
            f"the checks dane and mta_sts need the Python package 'dnspython' (version {MINIMUM_DNSPYTHON} or newer) on "
            "the controller, for the Python that runs Ansible. Install it, for example with "
            f"'python3 -m pip install \"dnspython>={MINIMUM_DNSPYTHON}\"', or use an execution environment that has it. "
            "The managed hosts do not need it."
        )


def is_dns_domain(name: str) -> bool:
    """Return whether a name in A-labels, without the final dot, is a domain with at least two labels."""
    labels = name.lower().split(".")
    return len(name) <= 253 and len(labels) > 1 and all(map(_LABEL.match, labels)) and not labels[-1].isdigit()


@dataclass(frozen=True)
class Answer:
    """The answer to a look-up. records are those of dnspython, sorted. No records and no failure: there is no such record.

    secure: the resolver reports that DNSSEC validates the whole answer, also the absence of the record. name is the
    canonical name after all CNAMEs, in lower case without the final dot. failure is the reason if there is no answer.
    """

    records: tuple[Any, ...] = ()
    secure: bool = False
    name: str = ""
    failure: str = ""


def parse_server(text: str) -> tuple[str, int]:
    """Read C(address), C(address:port) or C([address]:port). Raises ResolverError."""
    match = re.fullmatch(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?", text) or re.fullmatch(r"([0-9.]+):([0-9]{1,5})", text)
    address, port = (match.group(1), match.group(2)) if match else (text, None)
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ResolverError(
            f"the resolver {printable_text(text, 80)!r} is not an IP address, with or without a port"
        ) from None
    number = int(port) if port else PORT
    if not 0 < number < 65536:
        raise ResolverError(f"the port {number} of the resolver {address} is not between 1 and 65535")
    return address, number


class Resolver:
    """Asks the given resolvers, or those of the system."""

    def __init__(self, servers: Sequence[str] = (), lifetime: float = 10.0) -> None:
        """lifetime: the most seconds for one look-up, including its retries. Raises ResolverError, MissingLibraryError."""
        require_dnspython()
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration as error:
            raise ResolverError(f"the controller's system has no resolver: {error}; set 'resolver'") from error
        if servers:
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(*parse_server(one)) for one in servers]
        self._resolver.timeout = min(self._resolver.timeout, max(lifetime / 2, 0.1))
        self._resolver.lifetime = lifetime
        self._resolver.cache = None
        # AD in the question requests AD in the answer, also from resolvers that send no DNSSEC records.
        self._resolver.set_flags(dns.flags.RD | dns.flags.AD)
        self._resolver.use_edns(0, dns.flags.DO, _PAYLOAD)

    async def look_up(self, name: str, kind: str) -> Answer:
        """Look up the records of one type. Never raises for an answer of the server or for an invalid name."""
        try:
            question = dns.name.from_text(name)
            found = await self._resolver.resolve(question, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN as error:
            responses: Any = error.kwargs.get("responses") or {}
            return Answer(secure=bool(responses) and all(map(_is_secure, responses.values())), name=_text(question))
        except (dns.exception.DNSException, OSError, ValueError, EOFError) as error:
            return Answer(failure=_reason(error))
        return Answer(
            records=tuple(sorted(found.rrset or ())),
            secure=_is_secure(found.response),
            name=_text(found.canonical_name),
        )


def _is_secure(response: Any) -> bool:
    return bool(response.flags & dns.flags.AD)


def _text(name: Any) -> str:
    text: str = name.to_text(omit_final_dot=True)
    return printable_text(text).lower()


def _reason(error: BaseException) -> str:
    if isinstance(error, dns.resolver.LifetimeTimeout):
        return "no resolver answered in time"
    if isinstance(error, dns.resolver.NoNameservers):
        codes = [str(one[3]) for one in error.kwargs.get("errors", ()) if len(one) > 3]
        return f"the resolver answered: {printable_text('; '.join(dict.fromkeys(codes)), 200)}"
    return printable_text(str(error) or type(error).__name__, 200)


def run_all(jobs: Mapping[Key, Callable[[], Awaitable[Result]]], concurrency: int) -> dict[Key, Result]:
    """Run the jobs, at most concurrency at a time. Return the result of each under its key.

    An exception in one job ends all jobs and is raised here.
    """

    async def run() -> dict[Key, Result]:
        waiting, results = iter(jobs.items()), {}

        async def work() -> None:
            for key, job in waiting:
                results[key] = await job()

        await asyncio.gather(*(work() for _ in range(min(max(1, concurrency), len(jobs)))))
        return results

    return asyncio.run(run())
