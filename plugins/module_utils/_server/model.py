# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wanted state of one mail server, and the outcome of a change: values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import BundleFile, Look
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import MOST_CERTIFICATES
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import Was
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import CERTIFICATE
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.settings import is_path
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target, TargetError
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

INBOUND = ("disabled", "offered", "required")
OUTBOUND = ("disabled", "opportunistic", "required")
SEND_ONLY = "none"
"""The inbound side of a send-only host: it takes no mail from the network."""
FLOORS = ("TLSv1.2", "TLSv1.3")
"""The oldest TLS version to permit."""
NO_FLOOR = "none"
"""The settings of a floor go back to what they were before the collection."""
RENEWED = "renewed"
"""The inbound side stays what it is; where it offers TLS, it gets the certificate."""


@dataclass(frozen=True)
class OfPorts:
    """A certificate that the listeners on these ports serve in the place of the host's own.

    certificate, private_key: as in Desired.
    """

    ports: tuple[int, ...]
    certificate: str
    private_key: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """The files, that of the key first, as daemons want them."""
        return tuple(filter(None, (self.private_key, self.certificate)))


@dataclass(frozen=True)
class Desired:
    """The wanted state of one daemon. None keeps the present state of a direction.

    certificate: absolute path, on the host, of one PEM file with key, leaf and chain.
    own_port: the daemon's port for the tests that prove the state.
    relax: whether the inbound side may change from required to offered.
    only_relax: change the inbound side from required to offered only; keep every other inbound state.
    private_key: absolute path, on the host, of the private key, if the file of the certificate holds none; else empty.
    only_renew: change the certificate of an inbound side that offers TLS only; keep every other inbound state.
    on_host: the files are somebody else's, such as a renewing client's: they are used and judged, and never written.
    bundle: the file to install at the path of the certificate, in the same change; None uses the file that is there.
    more: absolute paths of further files like that of the certificate, for keys of other algorithms, which are served beside it.
    more_keys: absolute paths of their private keys, in the same order; empty for one that is in the file of its certificate.
    of_ports: certificates that some ports serve in the place of these.
    others: the files of C(more) and C(of_ports) to install in the same change.
    was: path of a configuration file -> what is known of it. With C(disabled), its settings go back to that.
    listens: whether the host takes mail from the network. A send-only host does not: its inbound side stays as it is, and nobody has to
    answer on its own port.
    min_tls: the oldest TLS version to permit in the directions that are set and not switched off, NO_FLOOR, or empty for what there is.
    """

    inbound: Optional[str] = None
    outbound: Optional[str] = None
    certificate: str = CERTIFICATE
    own_port: Target = field(default_factory=lambda: Target("127.0.0.1"))
    require_without_evidence: bool = False
    relax: bool = True
    only_relax: bool = False
    bundle: Optional[BundleFile] = None
    was: Mapping[str, Was] = field(default_factory=dict)
    private_key: str = ""
    on_host: bool = False
    listens: bool = True
    more: tuple[str, ...] = ()
    more_keys: tuple[str, ...] = ()
    of_ports: tuple[OfPorts, ...] = ()
    others: tuple[BundleFile, ...] = ()
    only_renew: bool = False
    min_tls: str = ""

    @property
    def has_floor(self) -> bool:
        """Whether older TLS versions than some are not to be permitted."""
        return self.min_tls in FLOORS

    def floor_in(self, direction: str) -> str:
        """Return min_tls for a direction, inbound or outbound; empty for one that is switched off, or stays as it is."""
        return "" if getattr(self, direction) in (None, "disabled") else self.min_tls

    @property
    def certificates(self) -> tuple[str, ...]:
        """The files with certificates that the daemon serves, on whatever port."""
        return (self.certificate, *self.more, *(one.certificate for one in self.of_ports))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Path of each certificate and of its private key; the key is empty if it is in the same file."""
        return (*self.own_pairs, *((one.certificate, one.private_key) for one in self.of_ports))

    @property
    def names_certificates(self) -> bool:
        """Whether it says all certificates. A change that only relaxes TLS does not, so those that are there stay."""
        return not (self.only_relax and self.inbound == "offered") or bool(self.of_ports)

    @property
    def own_pairs(self) -> tuple[tuple[str, str], ...]:
        """The same of the certificates that are served on every port but those of C(of_ports)."""
        keys = (self.private_key, *self.more_keys, *[""] * len(self.more))
        return tuple(zip((self.certificate, *self.more), keys))

    @property
    def by_port(self) -> dict[int, tuple[OfPorts, ...]]:
        """Port -> the certificates that its listeners serve in the place of the host's own."""
        ports = sorted({port for one in self.of_ports for port in one.ports})
        return {port: tuple(one for one in self.of_ports if port in one.ports) for port in ports}

    @property
    def bundles(self) -> tuple[BundleFile, ...]:
        """The files to install."""
        return (*([self.bundle] if self.bundle else []), *self.others)

    def check(self) -> None:
        """Raise EngineError for values that must not reach a configuration file."""
        for value, allowed, what in (
            (self.inbound, INBOUND, "inbound"),
            (self.outbound, OUTBOUND, "outbound"),
            (self.min_tls or None, (*FLOORS, NO_FLOOR), "min_tls"),
        ):
            if value is not None and value not in allowed:
                raise EngineError(f"{what} {value!r} is not one of {', '.join(allowed)}")
        more = "starttls_more_certificates"
        named = [(self.certificate, "the certificate path")]
        named += [(path, f"{more}: the certificate_path") for path in self.certificates[1:]]
        named += [(self.private_key, "the path of the private key")] if self.private_key else []
        named += [(path, f"{more}: the private_key_path") for _certificate, path in self.pairs[1:] if path]
        for path, what in named:
            if not is_path(path):
                raise EngineError(f"{what} {path!r} has to be absolute and made of letters, digits and _./+@-")
        if len(self.certificates) > MOST_CERTIFICATES:
            raise EngineError(f"{more}: at most {MOST_CERTIFICATES - 1} further certificates are served")
        if twice := [path for path in self.certificates[1:] if self.certificates.count(path) > 1]:
            raise EngineError(f"{more}: {twice[0]} is named twice")
        for port in self.by_port:
            if not 0 < port < 1 << 16:
                raise EngineError(f"{more}: {port} in ports is no port from 1 to 65535")
            if port == self.own_port.port:
                raise EngineError(
                    f"{more}: port {port} is the mail port, which serves the host's own certificate; take it out of ports"
                )
        try:
            self.own_port.check()
        except TargetError as error:
            raise EngineError(str(error)) from error

    @property
    def offers(self) -> bool:
        """Whether the wanted state offers STARTTLS to clients."""
        return self.inbound in ("offered", "required")


@dataclass(frozen=True)
class Outcome:
    """The result of a change.

    handshake: the last test of the daemon's own port. recovered: whether the change of a killed run was undone first.
    look: the comparison of the certificate file, None if the change installs none. digests: path -> SHA-256 of the files after
    the change, for the next change of the run; empty if nothing was changed. relays: of a send-only host, the tests of its next hops
    after the change.
    """

    changed: bool
    before: dict[str, str]
    after: dict[str, str]
    handshake: Handshake
    diff: list[dict[str, str]]
    recovered: bool = False
    warnings: tuple[str, ...] = ()
    look: Optional[Look] = None
    digests: Mapping[str, str] = field(default_factory=dict)
    relays: tuple[Handshake, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data, without diff and warnings."""
        return {
            "changed": self.changed,
            "before": self.before,
            "after": self.after,
            "handshake": self.handshake.to_dict(),
            "recovered": self.recovered,
            "digests": dict(self.digests),
        }
