# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MTA-STS: finds the policy of a recipient domain as senders do, and compares it with a tested server.

Private to this collection. Runs on the controller only. Source: RFC 8461. Anybody may run the HTTPS host of a policy.
So its answer is limited in size and in time, and no redirect in it is followed.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    POLICY_ADDRESSES,
    POLICY_BYTES,
    POLICY_HEAD_BYTES,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import printable_text
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.lookups import Answer, Resolver, is_dns_domain

POLICY_MODES = ("enforce", "testing", "none")
MAX_AGE = 31557600
"""The largest max_age, in seconds: one year."""

_RECORD = re.compile(r"v=STSv1[ \t]*;")
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([\x21-\x3a\x3c\x3e-\x7e]+)\Z")
_ID = re.compile(r"[A-Za-z0-9]{1,32}\Z")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}\Z")


class PolicyError(ValueError):
    """A record or a policy violates RFC 8461. The message gives the reason and is safe to show."""


class FetchError(Exception):
    """The policy cannot be fetched. The message gives the reason and is safe to show."""


@dataclass(frozen=True)
class StsPolicy:
    """A policy. mx are patterns in lower case, C(mx.example.com) or C(*.example.com). max_age is in seconds."""

    mode: str
    max_age: int
    mx: tuple[str, ...] = ()

    def allows(self, host: str) -> bool:
        """Return whether the name of a server matches a pattern. The wildcard stands for exactly one label."""
        name = host.lower().rstrip(".")
        parent = name.partition(".")[2]
        return any(parent == one[2:] if one.startswith("*.") else name == one for one in self.mx)


@dataclass(frozen=True)
class PolicyLookup:
    """The result for a domain. status: C(none), C(found), C(invalid), C(failed) or C(not_checked). message: the reason.

    id is the id of the record. policy is set if status is C(found).
    """

    status: str
    message: str = ""
    id: str = ""
    policy: Optional[StsPolicy] = None


def parse_record(text: str) -> str:
    """Return the id of a TXT record that begins with C(v=STSv1). Raises PolicyError."""
    fields: dict[str, str] = {}
    for part in text.split(";")[1:]:
        field = part.strip(" \t")
        match = _FIELD.match(field)
        if match:
            fields.setdefault(match.group(1), match.group(2))
        elif field:
            raise PolicyError(f"the record has a field that is not 'name=value': {printable_text(field, 80)!r}")
    if not _ID.match(fields.get("id", "")):
        raise PolicyError("the record has no id of 1 to 32 letters and digits")
    return fields["id"]


def parse_policy(body: bytes) -> StsPolicy:
    """Read a policy. If a field is repeated, the first one counts, except for mx (RFC 8461, 3.2). Raises PolicyError."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise PolicyError("the policy is not UTF-8") from None
    fields: dict[str, str] = {}
    patterns: list[str] = []
    for number, line in enumerate(re.split(r"\r?\n", text), start=1):
        if not line.strip(" \t"):
            continue
        key, colon, value = line.partition(":")
        if not (colon and _KEY.match(key)):
            raise PolicyError(f"line {number} of the policy is not 'name: value': {printable_text(line, 80)!r}")
        value = value.strip(" \t")
        if key == "mx":
            patterns.append(_pattern(value))
        else:
            fields.setdefault(key, value)
    if fields.get("version") != "STSv1":
        raise PolicyError("the policy has no line 'version: STSv1'")
    mode, age = fields.get("mode", ""), fields.get("max_age", "")
    if mode not in POLICY_MODES:
        raise PolicyError(
            f"the mode of the policy is {printable_text(mode, 40)!r}, not one of {', '.join(POLICY_MODES)}"
        )
    if not re.fullmatch("[0-9]{1,10}", age) or int(age) > MAX_AGE:
        raise PolicyError(
            f"max_age of the policy is {printable_text(age, 40)!r}, not a number of seconds up to {MAX_AGE}"
        )
    if not patterns and mode != "none":
        raise PolicyError("the policy names no mx")
    return StsPolicy(mode, int(age), tuple(dict.fromkeys(patterns)))


def _pattern(value: str) -> str:
    pattern = value.lower()
    if not is_dns_domain(pattern.removeprefix("*.")):
        raise PolicyError(
            f"the policy has an mx that is neither a name nor '*.' and a name: {printable_text(value, 80)!r}"
        )
    return pattern


@dataclass(frozen=True)
class Web:
    """Fetches policies. context verifies the certificate of the policy host. timeout is in seconds."""

    context: ssl.SSLContext
    port: int = 443
    timeout: float = 15.0

    async def fetch(self, host: str, addresses: Sequence[str]) -> bytes:
        """Return the policy of a host, from the first of its addresses that answers. Raises FetchError."""
        try:
            return await asyncio.wait_for(self._first(host, addresses), self.timeout)
        except asyncio.TimeoutError:
            raise FetchError(f"no complete answer within {self.timeout:g} s") from None

    async def _first(self, host: str, addresses: Sequence[str]) -> bytes:
        reason = "no address"
        for address in addresses[:POLICY_ADDRESSES]:
            try:
                return _body(await self._get(host, address))
            except ssl.SSLCertVerificationError as error:
                raise FetchError(f"its certificate is not accepted: {printable_text(error.verify_message)}") from error
            except OSError as error:  # includes SSLError and, from Python 3.11 on, asyncio.TimeoutError
                reason = printable_text(str(error), 200) or "the connection timed out"
            except asyncio.TimeoutError:
                reason = "the connection timed out"
        raise FetchError(reason)

    async def _get(self, host: str, address: str) -> bytes:
        connecting = asyncio.open_connection(address, self.port, ssl=self.context, server_hostname=host)
        reader, writer = await asyncio.wait_for(connecting, self.timeout / 2)
        try:
            writer.write(
                f"GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: {host}\r\nUser-Agent: mailfleet-starttls\r\n"
                "Accept: text/plain\r\nConnection: close\r\n\r\n".encode("ascii")
            )
            data = b""
            while not _is_whole(data):
                more = await reader.read(65536)
                if not more:
                    break
                data += more
                if len(data) > POLICY_HEAD_BYTES + POLICY_BYTES:
                    raise FetchError(f"the answer is longer than {POLICY_BYTES} bytes")
            return data
        finally:
            writer.transport.abort()


def _is_whole(data: bytes) -> bool:
    """Return whether the answer has reached its announced end, so that reading can stop."""
    head, empty_line, body = data.partition(b"\r\n\r\n")
    if not empty_line:
        return False
    if re.search(rb"(?im)^transfer-encoding:[^\r\n]*chunked", head):
        return body.startswith(b"0\r\n") or body.endswith(b"\r\n0\r\n\r\n")
    length = re.search(rb"(?im)^content-length:[ \t]*([0-9]{1,9})[ \t]*\r?$", head)
    return length is not None and len(body) >= int(length.group(1))


class _Recording:
    """The part of a socket that HTTPResponse needs to read an answer from memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _body(data: bytes) -> bytes:
    """Return the body of an HTTP answer. Raises FetchError if the answer cannot be a policy."""
    try:
        response = http.client.HTTPResponse(_Recording(data), method="GET")  # type: ignore[arg-type]
        response.begin()
        kind = response.headers.get_content_type()
        status = response.status
        body = response.read(POLICY_BYTES + 1)
    except (http.client.HTTPException, ValueError, OverflowError, OSError) as error:
        raise FetchError(f"the answer is not HTTP ({type(error).__name__})") from error
    if 300 <= status < 400:
        raise FetchError(f"the host answers with a redirection ({status}), which senders do not follow")
    if status != 200:
        raise FetchError(f"the host answers with the status {status}")
    if kind != "text/plain" or "content-type" not in response.headers:
        raise FetchError(f"its content type is {printable_text(kind, 60)}, not text/plain")
    if len(body) > POLICY_BYTES:
        raise FetchError(f"the policy is longer than {POLICY_BYTES} bytes")
    if response.length:
        raise FetchError("the answer ends too early")
    return body


async def look_up(resolver: Resolver, web: Web, domain: str) -> PolicyLookup:
    """Find the policy of a domain. Never raises because of a published record or policy."""
    answer = await resolver.look_up(f"_mta-sts.{domain}", "TXT")
    if answer.failure:
        return PolicyLookup("failed", f"the TXT record _mta-sts.{domain} cannot be looked up: {answer.failure}")
    texts = [text for text in map(_text, answer.records) if _RECORD.match(text)]
    if not texts:
        return PolicyLookup("none", f"{domain} has no MTA-STS record")
    if len(texts) > 1:
        return PolicyLookup("invalid", f"_mta-sts.{domain} has {len(texts)} MTA-STS records, so senders use none")
    found_id = ""
    host = f"mta-sts.{domain}"
    try:
        found_id = parse_record(texts[0])
        found = await asyncio.gather(*(resolver.look_up(host, kind) for kind in ("A", "AAAA")))
        addresses = _addresses(found)
        if not addresses:
            why = next((one.failure for one in found if one.failure), "the name has no address")
            raise FetchError(why)
        policy = parse_policy(await web.fetch(host, addresses))
    except PolicyError as error:
        return PolicyLookup("invalid", f"the MTA-STS of {domain} is invalid: {error}", found_id)
    except FetchError as error:
        return PolicyLookup(
            "failed", f"the policy of {domain} cannot be fetched from https://{host}: {error}", found_id
        )
    return PolicyLookup("found", "", found_id, policy)


def _text(record: Any) -> str:
    return b"".join(record.strings).decode("ascii", "replace")


def _addresses(answers: Sequence[Answer]) -> list[str]:
    """Return the addresses of both families in turn, so one unreachable family does not use all attempts."""
    families = [[str(one.address) for one in answer.records] for answer in answers]
    longest = max(map(len, families))
    return [family[index] for index in range(longest) for family in families if index < len(family)]


def compare_policy(found: PolicyLookup, host: str, fault: Optional[str]) -> dict[str, Any]:
    """Compare a policy with a server. Return C(status), C(mode), C(id), C(mx), C(max_age), C(message).

    host: the name by which senders know the server. fault: the reason why a sender that follows the policy cannot
    deliver to the server over TLS; empty if there is none; None if it is unknown. status: C(none) there is no policy,
    or its mode is none; C(match); C(mismatch); C(testing_mismatch) a mismatch in mode testing, in which mail is still
    delivered; C(invalid) senders ignore the record or policy; C(failed); C(not_checked) no domain was given.
    """
    policy = found.policy

    def result(status: str, message: str) -> dict[str, Any]:
        return {
            "status": status, "mode": policy.mode if policy else "", "id": found.id,
            "mx": list(policy.mx) if policy else [], "max_age": policy.max_age if policy else None,
            "message": message,
        }  # fmt: skip

    if policy is None:
        return result(found.status, found.message)
    if policy.mode == "none":
        return result("none", "the policy has the mode none: senders may deliver in plaintext")
    mismatch = "mismatch" if policy.mode == "enforce" else "testing_mismatch"
    if not policy.allows(host):
        return result(mismatch, f"{host} is not among the mx of the policy ({_list(policy.mx)})")
    if fault is None:
        return result("failed", f"{host} is among the mx of the policy, but no certificate was seen to compare with it")
    if fault:
        return result(mismatch, f"{host} is among the mx of the policy, but {fault}")
    return result("match", f"the policy (mode {policy.mode}) and the server agree")


def _list(patterns: Sequence[str]) -> str:
    shown = list(patterns[:10])
    if len(patterns) > len(shown):
        shown.append(f"{len(patterns) - len(shown)} more")
    return ", ".join(shown)
