"""One connection: what Exchange answers, and when."""

from __future__ import annotations

import asyncio
import collections
import datetime as dt
import logging
import secrets
import ssl
from dataclasses import dataclass, field
from email import message_from_bytes
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Callable, ClassVar, Optional

from aiosmtpd.smtp import SMTP, TLSSetupException
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from .state import INBOUND_CONNECTOR, SIZES, Object, State, covers, names_of, words
from .trust import INCOMPLETE, PURPOSE, TRUSTED, UNTRUSTED, chain_of, judge, server_context

log = logging.getLogger("exchange")

STARTTLS_REQUIRED = "451 5.7.3 STARTTLS is required to send mail"
NOT_AUTHENTICATED = "530 5.7.57 Client not authenticated to send mail"
NO_RELAY = "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain"
NOT_ATTRIBUTED = "550 5.7.64 TenantAttribution; Relay Access Denied"
NO_TLS = "454 4.7.0 Failed to establish appropriate TLS channel: Access Denied"
UNTRUSTED_ROOT = "454 4.7.0 Failed to establish appropriate TLS channel: UntrustedRoot: Access Denied"
NOT_AVAILABLE = "421 4.3.2 Service not available"
HELLO_FIRST = "503 5.5.2 Send hello first"

WORDING = {
    "220 Ready to start TLS": "220 2.0.0 SMTP server ready",
    "250 OK": "250 2.0.0 OK",
    "221 Bye": "221 2.0.0 Service closing transmission channel",
    "354 End data with <CR><LF>.<CR><LF>": "354 Start mail input; end with <CRLF>.<CRLF>",
    "503 Error: need MAIL command": "503 5.5.2 Need mail command",
    "503 Error: need RCPT command": "503 5.5.2 Need rcpt command",
    "503 Error: nested MAIL command": "503 5.5.2 Sender already specified",
    "454 TLS not available": "500 5.3.3 Unrecognized command",
    "552 Error: message size exceeds fixed maximum message size": "552 5.3.4 Message size exceeds fixed maximum message size",
}
"""What the library says -> what Exchange says."""

_seen: dict[bytes, list[x509.Certificate]] = {}
"""A client's certificate -> the chain that came with it. A resumed session brings the certificate alone."""


@dataclass
class Accepted:
    """A message that was taken: for mailboxes here, and for elsewhere."""

    sender: str
    content: bytes
    mailboxes: list[str]
    elsewhere: list[str]
    facts: Object = field(default_factory=dict)
    """Connector, RemoteIP, Helo, TLS version and so on, as in received.jsonl."""


Take = Callable[[Accepted], None]


class Session(SMTP):
    """The library's protocol with Exchange's words, limits and decisions."""

    line_length_limit = 1 << 20
    command_size_limits: ClassVar = collections.defaultdict(lambda: 4096)
    command_size_limit = 4096

    def __init__(self, state: State, port: int, take: Take, loop: asyncio.AbstractEventLoop) -> None:
        self.state, self.port, self.take = state, port, take
        self.connector: Optional[Object] = None
        self.chain: list[x509.Certificate] = []
        self.resumed = False
        self.announced = ""  # the client's name
        when = format_datetime(dt.datetime.now(dt.timezone.utc))
        number = f" [{secrets.token_hex(8).upper()}]" if state.online else ""
        self.number = secrets.token_hex(8).upper()
        super().__init__(
            self, data_size_limit=SIZES[state.behaviour], enable_SMTPUTF8=True, hostname=state.fqdn,
            ident=f"Microsoft ESMTP MAIL Service ready at {when}{number}", loop=loop,
        )  # fmt: skip

    @property
    def secure(self) -> Optional[ssl.SSLObject]:
        """The TLS session, if there is one."""
        return self.session.ssl["ssl_object"] if self.session and self.session.ssl else None

    async def push(self, status: Any) -> None:
        """Answer with Exchange's words."""
        text = status.decode() if isinstance(status, bytes) else status
        text = WORDING.get(text, text)
        if text.startswith("500 Error: command"):
            text = "500 5.3.3 Unrecognized command"
        enhanced = text[3:4] == " " and text[4:5] in ("2", "4", "5") and text[5:6] == "."
        if self.state.online and enhanced and text != WORDING["220 Ready to start TLS"]:
            when = dt.datetime.now(dt.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            text += f" [{self.state.fqdn} {when} {self.number}]"
        await super().push(text)

    async def handle_exception(self, error: Exception) -> str:
        """A fault of ours, or of TLS."""
        log.warning("%s", error.__cause__ or error, exc_info=not isinstance(error, TLSSetupException))
        return "451 4.7.0 Temporary server error. Please try again later."

    async def _ordered(self, at: str, address: str = "") -> bool:
        """Answer as the state orders; whether it does."""
        order = self.state.reply(at, Address=address, Resumed=self.resumed, TLS=self.secure is not None)
        if order is None:
            return False
        if order.get("Silence"):
            await asyncio.Event().wait()  # until the client goes, or the library's time is over
        if order.get("Reply"):
            await super().push(order["Reply"])
        if order.get("Close") and self.transport:
            self.transport.close()
        return True

    async def _handle_client(self) -> None:
        try:
            if await self._begin():
                await super()._handle_client()
            else:
                self.transport.close()
        except ConnectionError:
            log.debug("the client is gone")

    async def _begin(self) -> bool:
        """Find the connector; whether there is one that talks."""
        if await self._ordered("connect"):
            return False
        try:
            self.connector = self.state.receive_connector(self.port, self.session.peer[0])
            if self.connector and self.state.available():
                self.hostname = self.connector["Fqdn"] or self.state.fqdn
                self.tls_context = self._context()
                return True
        except Exception:
            log.exception("a state that does not work")
        await self.push(NOT_AVAILABLE)
        return False

    def _context(self) -> Optional[ssl.SSLContext]:
        """How TLS is served; None: it is not."""
        if not self._may("Tls"):
            return None
        found = self.state.certificate(self.connector["TlsCertificateName"], self.hostname)
        if found is None:
            log.warning("event 12014: no certificate for %s", self.connector["TlsCertificateName"] or self.hostname)
            return None
        return server_context(Path(found["File"]), self.state.online)

    def _may(self, mechanism: str) -> bool:
        return mechanism in words(self.connector["AuthMechanism"])

    def handle_STARTTLS(self, _server: SMTP, _session: Any, _envelope: Any) -> bool:
        """Keep what the client sent in the handshake."""
        secure = self.secure
        self.chain, self.resumed = chain_of(secure), bool(secure.session_reused)
        if self.chain and not self.resumed:
            _seen[self.chain[0].public_bytes(Encoding.DER)] = self.chain
        return True

    def known_chain(self) -> list[x509.Certificate]:
        """The chain by which the client is judged."""
        if not self.resumed or not self.chain:
            return self.chain
        if not self.state.data.get("ResumedSessionKeepsAttribution", True):
            return []
        return _seen.get(self.chain[0].public_bytes(Encoding.DER), self.chain)

    async def handle_EHLO(
        self, _server: SMTP, _session: Any, _envelope: Any, name: str, _lines: list[str]
    ) -> list[str]:
        """The answer to EHLO, as the connector's mechanisms and TLS make it."""
        self.session.host_name = self.announced = name
        inside, online = self.secure is not None, self.state.online
        offered = [f"{self.hostname} Hello [{self.session.peer[0]}]", f"SIZE {self.data_size_limit}"]
        offered += ["PIPELINING", "DSN", "ENHANCEDSTATUSCODES"]
        if self.tls_context and not inside:
            offered.append("STARTTLS")
        if not online:
            if self._may("ExchangeServer") and not inside:
                offered.append("X-ANONYMOUSTLS")
            basic = self._may("BasicAuth") and (inside or not self._may("BasicAuthRequireTLS"))
            mechanisms = ["NTLM"] * self._may("Integrated") + ["LOGIN"] * basic
            if mechanisms:
                offered.append(f"AUTH {' '.join(mechanisms)}")
            if self._may("ExchangeServer"):
                offered.append("X-EXPS GSSAPI NTLM")
        offered += ["8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"]
        if not online:
            offered.append("XRDST")
        order = self.state.reply("ehlo", TLS=inside)
        if order and order.get("Reply"):
            return [order["Reply"]]
        return [f"250{'-' if line is not offered[-1] else ' '}{line}" for line in offered]

    async def check_helo_needed(self, helo: str = "HELO") -> bool:
        """Insist on a greeting."""
        if not self.session.host_name:
            await self.push(HELLO_FIRST)
            return True
        return False

    async def smtp_STARTTLS(self, arg: str) -> None:
        """Begin TLS where it is offered, once."""
        if self.secure or not self.tls_context:
            await self.push("503 5.5.2 Command not allowed" if self.secure else "500 5.3.3 Unrecognized command")
        elif not await self._ordered("starttls"):
            await super().smtp_STARTTLS(arg)

    async def smtp_AUTH(self, _arg: str) -> None:
        """Nobody has an account here."""
        await self.push("504 5.7.4 Unrecognized authentication type")

    async def smtp_BDAT(self, arg: Optional[str]) -> None:
        """A piece of the message, by its length (CHUNKING)."""
        size, *last = (arg or "").split()
        if not size.isdigit():
            await self.push("501 5.5.4 Invalid arguments")
            return
        piece = await self._reader.readexactly(int(size))
        if not self.envelope.rcpt_tos:
            await self.push("503 5.5.2 Need rcpt command")
            return
        self.envelope.content = (self.envelope.content or b"") + piece
        if not last:
            await self.push(f"250 2.6.0 CHUNK received OK, {size} octets")
            return
        answer = await self.handle_DATA(self, self.session, self.envelope)
        self._set_post_data_state()
        await self.push(answer)

    def _getparams(self, params: Any) -> Any:
        """What MAIL and RCPT may carry: the library knows fewer than Exchange offers."""
        found = super()._getparams(params)
        for name in ("RET", "ENVID", "NOTIFY", "ORCPT", "AUTH"):
            if found:
                found.pop(name, None)
        if found and found.get("BODY") == "BINARYMIME":
            found["BODY"] = "8BITMIME"
        return found

    async def smtp_MAIL(self, arg: Optional[str]) -> None:
        """Refuse before the address is looked at, or let the library go on."""
        if await self.check_helo_needed() or await self._ordered("mail"):
            return
        groups = words(self.connector["PermissionGroups"])
        if self.connector["RequireTLS"] and not self.secure:
            await self.push(STARTTLS_REQUIRED)
        elif "AnonymousUsers" in groups or ("ExchangeServers" in groups and self._may("ExternalAuthoritative")):
            await super().smtp_MAIL(arg)
        else:
            await self.push(NOT_AUTHENTICATED)

    async def handle_MAIL(self, _server: SMTP, _session: Any, envelope: Any, address: str, options: list[str]) -> str:
        """The sender is anybody."""
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Sender OK"

    async def handle_RSET(self, _server: SMTP, _session: Any, _envelope: Any) -> str:
        """Forget the envelope."""
        return "250 2.0.0 Resetting"

    async def smtp_RCPT(self, arg: Optional[str]) -> None:
        """Answer as ordered, or let the library go on."""
        address = (arg or "").partition("<")[2].partition(">")[0].lower()
        if not self.envelope.mail_from or not await self._ordered("rcpt", address):
            await super().smtp_RCPT(arg)

    async def handle_RCPT(self, _server: SMTP, _session: Any, envelope: Any, address: str, options: list[str]) -> str:
        """Take what is for a mailbox here, and what the client may send elsewhere."""
        domain = address.rpartition("@")[2].lower()
        refused = self._refusal(domain, envelope.mail_from.rpartition("@")[2].rstrip(">").lower())
        if refused:
            return refused
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 Recipient OK"

    def _refusal(self, domain: str, sender_domain: str) -> str:
        if self._may("ExternalAuthoritative"):
            return ""
        if self.state.online:
            partner = next((one for one in self._inbound("Partner") if _sends(one, sender_domain)), None)
            if partner and partner["RequireTls"] and not self.secure:
                return NO_TLS
            return "" if self.state.accepts(domain) else self.attribution(sender_domain)[1]
        return "" if self.state.accepts(domain) else NO_RELAY

    def _inbound(self, kind: str) -> list[Object]:
        return [
            one for one in self.state.objects("InboundConnectors", INBOUND_CONNECTOR) if one["ConnectorType"] == kind
        ]

    def attribution(self, sender_domain: str) -> tuple[Optional[str], str]:
        """The inbound connector that the client stands for, and the refusal if there is none."""
        chain = self.known_chain()
        names = names_of(chain[0]) if chain else []
        roots = [Path(one) for one in self.state.data.get("TrustedRoots") or []]
        for one in self._inbound("OnPremises"):
            wanted = one["TlsSenderCertificateName"]
            if wanted and any(covers(wanted, name) or covers(name, wanted) for name in names):
                found = judge(chain, roots, bool(self.state.data.get("ClientAuthPurposeRequired")))
                if found == UNTRUSTED:
                    return None, UNTRUSTED_ROOT
                if found == TRUSTED and any(map(self.state.vouches_for, names)):
                    return one["Name"], ""
                log.info(
                    "certificate of %s: %s", names, found if found in (INCOMPLETE, PURPOSE) else "no accepted domain"
                )
        for one in self._inbound("OnPremises"):
            if self.session.peer[0] in one["SenderIPAddresses"] and self.state.vouches_for(sender_domain):
                return one["Name"], ""
        return None, NOT_ATTRIBUTED

    async def handle_DATA(self, _server: SMTP, _session: Any, envelope: Any) -> str:
        """Take the message and say so."""
        order = self.state.reply("data", TLS=self.secure is not None) or {}
        if order.get("Silence"):
            await asyncio.Event().wait()
        if order.get("Reply"):
            return str(order["Reply"])
        content = bytes(envelope.content)
        identity = message_from_bytes(content).get("Message-ID") or f"<{secrets.token_hex(16)}@{self.state.fqdn}>"
        mailboxes = [one for one in envelope.rcpt_tos if self.state.accepts(one.rpartition("@")[2].lower())]
        elsewhere = [one for one in envelope.rcpt_tos if one not in mailboxes]
        self.take(
            Accepted(
                envelope.mail_from.strip("<>"), self._received() + content, mailboxes, elsewhere, self._facts(envelope)
            )
        )
        number = int(secrets.token_hex(5), 16)
        return f"250 2.6.0 {identity} [InternalId={number}, Hostname={self.state.fqdn}] Queued mail for delivery"

    def _facts(self, envelope: Any) -> Object:
        secure = self.secure
        chain = self.known_chain()
        return {
            "ReceivedAt": dt.datetime.now(dt.timezone.utc).isoformat(timespec="milliseconds"),
            "Connector": self.connector["Name"],
            "RemoteIP": self.session.peer[0],
            "Helo": self.announced,
            "Tls": secure.version() if secure else None,
            "Cipher": secure.cipher()[0] if secure else None,
            "Resumed": self.resumed,
            "ClientCertificate": self.chain[0].subject.rfc4514_string() if self.chain else None,
            "ClientNames": names_of(self.chain[0]) if self.chain else [],
            "ClientChain": [one.subject.rfc4514_string() for one in chain],
            "AttributedTo": self.attribution(envelope.mail_from.rpartition("@")[2].lower())[0]
            if self.state.online
            else None,
        }

    def _received(self) -> bytes:
        """The header, as Exchange writes it."""
        here = self.transport.get_extra_info("sockname")[0]
        secure, how = self.secure, ""
        if secure:
            version, cipher = secure.version().replace("TLSv", "TLS").replace(".", "_"), secure.cipher()[0]
            how = f" (version={version}, cipher={_cipher(cipher)})"
        via = " via Frontend Transport" if self.connector["TransportRole"] == "FrontendTransport" else ""
        when = format_datetime(dt.datetime.now(dt.timezone.utc))
        text = (
            f"Received: from {self.announced} ({self.session.peer[0]}) by\r\n {self.hostname} ({here}) with Microsoft SMTP Server\r\n"
            f"{how} id\r\n {self.state.version}{via}; {when}\r\n"
        )
        return text.encode(errors="replace")


def _sends(connector: Object, domain: str) -> bool:
    spaces = [str(one).lower().removeprefix("smtp:").partition(";")[0] for one in connector["SenderDomains"]]
    return any(one in ("*", domain) or (one.startswith("*.") and domain.endswith(one[1:])) for one in spaces)


def _cipher(openssl: str) -> str:
    """A cipher's name as Windows has it, of those that OpenSSL chooses nowadays."""
    if openssl.startswith("TLS_"):
        return openssl
    exchange, _, rest = openssl.partition("-")
    signature, _, rest = rest.partition("-")
    return f"TLS_{exchange}_{signature}_WITH_{rest.replace('AES256', 'AES_256').replace('AES128', 'AES_128').replace('-', '_')}"
