# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""STARTTLS on Postfix. Sources: postconf(5), TLS_README. Needs Postfix 3.4 (smtpd_tls_chain_files)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Edits, Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target, TargetError
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

INBOUND_LEVEL = {"disabled": "none", "offered": "may", "required": "encrypt"}
OUTBOUND_LEVEL = {"disabled": "none", "opportunistic": "may", "required": "encrypt"}
# What satisfies an outbound level: a stronger one of the same kind is the administrator's and stays.
OUTBOUND_KIND = {
    "": "disabled",
    "none": "disabled",
    "may": "opportunistic",
    "dane": "opportunistic",
    "encrypt": "required",
    "dane-only": "required",
    "fingerprint": "required",
    "verify": "required",
    "secure": "required",
}
INBOUND_KIND = {"": "disabled", "none": "disabled", "may": "offered", "encrypt": "required"}
# If smtpd_tls_chain_files is set, Postfix ignores these parameters and warns about them.
SUPERSEDED = tuple(f"smtpd_tls_{kind}{what}_file" for kind in ("", "d", "ec") for what in ("cert", "key"))


class Postfix:
    """Adapter for the default Postfix instance of this host."""

    name = "postfix"
    reads_files_unasked = True

    def __init__(self, run: Runner, port: int = 25, layout: Layout = DEBIAN) -> None:
        """run starts a program from an argument list; port is the listener whose settings count."""
        self._run = run
        self._port = str(port)
        # With -c, the command concerns the default instance only; without it, it would go on to every other instance.
        self._postfix = ("postfix", "-c", layout.config_dir)
        self._postconf = Postconf(run, layout.config_dir)

    def transaction(self, store: str) -> Transaction:
        """Return the transaction on the files of the default instance. store: the directory of locks and journals."""
        return Transaction(self, store)

    def require_running(self) -> None:
        """Raise EngineError unless Postfix 3.4 or newer is installed and its default instance runs."""
        try:
            status, _out, err = self._run([*self._postfix, "status"])
        except FileNotFoundError:
            status, err = 127, "the command postfix is not there"
        if status == 127:
            raise EngineError(f"Postfix is not installed on this host ({err.strip()}); install it first")
        if status != 0:
            raise EngineError("Postfix is not running; start it first, because a change is proved by its own port")
        if "smtpd_tls_chain_files" not in self._postconf.values("smtpd_tls_chain_files"):
            raise EngineError("this Postfix is older than 3.4 and cannot take key and chain from one file")

    def state(self) -> dict[str, str]:
        """Return the two TLS levels of main.cf, with the values of Desired or C(custom)."""
        values = self._postconf.values("smtpd_tls_security_level", "smtp_tls_security_level")
        return {
            "inbound": INBOUND_KIND.get(values["smtpd_tls_security_level"], "custom"),
            "outbound": OUTBOUND_KIND.get(values["smtp_tls_security_level"], "custom"),
        }

    def plan(self, desired: Desired) -> Change:
        """Return the edits of main.cf. Raises EngineError if master.cf overrides them for the listener or the client."""
        wanted: dict[str, str] = {}
        now = self._postconf.values(
            "smtpd_tls_security_level", "smtpd_tls_received_header", "smtpd_tls_chain_files",
            "smtpd_tls_loglevel", "smtp_tls_security_level", "smtp_tls_loglevel",
        )  # fmt: skip
        explicit = self._postconf.explicit()
        if desired.inbound is not None:
            self.refuse_override("smtpd_tls_security_level", INBOUND_KIND, desired.inbound, self.is_listener)
            wanted["smtpd_tls_security_level"] = INBOUND_LEVEL[desired.inbound]
        if desired.offers:
            wanted["smtpd_tls_chain_files"] = desired.certificate
            wanted["smtpd_tls_received_header"] = "yes"
            wanted["smtpd_tls_loglevel"] = at_least_one(now["smtpd_tls_loglevel"])
            wanted.update({name: "" for name in SUPERSEDED if explicit.get(name)})
        if desired.outbound is not None:
            self.refuse_override(
                "smtp_tls_security_level", OUTBOUND_KIND, desired.outbound, lambda service: service == "smtp/unix"
            )
            if now["smtp_tls_security_level"] == "" or self.state()["outbound"] != desired.outbound:
                wanted["smtp_tls_security_level"] = OUTBOUND_LEVEL[desired.outbound]
            if desired.outbound != "disabled":
                wanted["smtp_tls_loglevel"] = at_least_one(now["smtp_tls_loglevel"])
        edits = {name: value for name, value in wanted.items() if {**now, **explicit}.get(name) != value}
        return Change.of(self._postconf.images(Edits(edits))) if edits else Change((), ())

    def next_hops(self, ours: str = "") -> Sequence[Target]:
        """Return the hosts of relayhost; none if it is not set.

        ours: the collection's own entry of transport_maps, which is ignored. Raises EngineError if mail also leaves by
        other routes, or if relayhost is not in brackets and so names a domain instead of a host.
        """
        hops = []
        others = ("transport_maps", "sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps")
        values = self._postconf.values(*others, "default_transport")
        values["transport_maps"] = values.get("transport_maps", "").replace(ours, "").strip(" ,")
        ways = [f"{name} = {values[name]}" for name in others if values.get(name)]
        if values.get("default_transport", "smtp") != "smtp":
            ways.append(f"default_transport = {values['default_transport']}")
        if ways:
            raise EngineError(f"mail also leaves by {', '.join(ways)}, and those routes cannot all be tested")
        relayhost = self._postconf.values("relayhost")["relayhost"]
        for hop in relayhost.replace(",", " ").split():
            host, _, port = hop.rpartition(":") if "]:" in hop else (hop, "", "25")
            if not host.startswith("["):
                raise EngineError(f"relayhost = {relayhost} names a domain, not the host itself in brackets")
            try:
                number = port if port.isdigit() else socket.getservbyname(port, "tcp")
                hops.append(Target.parse(f"{host}:{number}"))
            except (TargetError, OSError) as error:
                raise EngineError(f"relayhost of this host cannot be read: {error}") from error
        return hops

    def check(self) -> None:
        """Have Postfix check its configuration. Raises EngineError with what Postfix says."""
        status, out, err = self._run([*self._postfix, "check"])
        if status != 0:
            raise EngineError(f"postfix check refuses the change: {(err or out).strip()}")

    def reload(self) -> None:
        """Have Postfix read its configuration. Raises EngineError."""
        status, out, err = self._run([*self._postfix, "reload"])
        if status != 0:
            raise EngineError(f"postfix reload failed: {(err or out).strip()}")

    def resume(self) -> None:
        """Have Postfix read the former configuration. Raises EngineError."""
        self.reload()

    def is_listener(self, service: str) -> bool:
        """Whether a master.cf service, C(name/type), is the listener to configure."""
        name, _, kind = service.rpartition("/")
        return kind == "inet" and name.rpartition(":")[2] in (self._port, "smtp" if self._port == "25" else self._port)

    def refuse_override(
        self, parameter: str, kinds: Mapping[str, str], wanted: str, concerns: Callable[[str], bool]
    ) -> None:
        """Raise EngineError if master.cf overrides a parameter with another state than the wanted one.

        kinds: value of the parameter -> state. concerns: whether a service, C(name/type), matters.
        """
        for service, value in self._postconf.overrides(parameter).items():
            if concerns(service) and kinds.get(value) != wanted:
                raise EngineError(
                    f"master.cf sets {parameter}={value}, which overrides main.cf for {service}; remove it "
                    f"first: postconf -PX '{service}/{parameter}'"
                )


def at_least_one(level: str) -> str:
    """Return the log level, but at least 1, which logs TLS."""
    return level if level.isdigit() and int(level) >= 1 else "1"
