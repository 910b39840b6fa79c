# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The delivery modes on a gateway that runs Debian's Exim 4.

One router in front of Debian's takes the domains of the email configs and picks one of three static
transports. How a message arrived is in the spool with it, so the choice is right for each recipient
of one message, over the queue and over restarts. The routes are a file that Exim reads at each
attempt: only the first email config changes the configuration itself. Sources: the Exim
specification (manualroute, the smtp transport, retry configuration), update-exim4.conf(8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils.handshake import (
    Settings,
    Target,
    handshake_one,
    wait_until,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.mode import (
    LEVELS,
    MODES,
    EmailConfig,
    dump,
    load,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.server.exim import (
    CONFIG_DIR,
    GENERATED,
    Exim,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.transaction import (
    Change,
    EngineError,
    Runner,
)

DIRECTORY = f"{CONFIG_DIR}/mailfleet-starttls"
REGISTRY = f"{DIRECTORY}/email_configs.json"
ROUTES = f"{DIRECTORY}/routes"
TEMPLATE = f"{CONFIG_DIR}/exim4.conf.template"
ROUTER = "mailfleet_inbound"
# Debian's own files of a section follow after these.
SPLIT_FILES = {
    "routers": f"{CONFIG_DIR}/conf.d/router/050_mailfleet-starttls",
    "transports": f"{CONFIG_DIR}/conf.d/transport/050_mailfleet-starttls",
    "retry": f"{CONFIG_DIR}/conf.d/retry/10_mailfleet-starttls",
}
QUEUE_LIFETIME = 5 * 24 * 3600

_HEADER = "# Written by mailfleet.starttls; a change made here is lost.\n"
# One message a connection: Exim keeps waiting messages by host name only, and would send them down an open
# connection whatever its TLS state or port. Without retry_include_ip_address=false one server that lacks STARTTLS
# makes mail in other modes to it wait as well.
_TRANSPORT = """\
mailfleet_{level}:
  driver = smtp
  connection_max_messages = 1
  hosts_try_dane =
{options}
"""
_TRANSPORT_OPTIONS = {
    "none": "  hosts_avoid_tls = *\n",
    "may": "",
    "encrypt": "  hosts_require_tls = *\n  tls_tempfail_tryclear = false\n  retry_include_ip_address = false\n",
}
_SECTIONS = {
    # A retry rule that ends makes Exim bounce new mail at once, so the rule is long and the message's own age decides.
    "routers": f"""\
mailfleet_expired:
  driver = redirect
  domains = lsearch;{ROUTES}
  condition = ${{if >{{$message_age}}{{{QUEUE_LIFETIME}}}}}
  allow_fail
  data = :fail: the mail server could not be reached as required within {QUEUE_LIFETIME // 86400} days

{ROUTER}:
  driver = manualroute
  domains = lsearch;{ROUTES}
  route_data = ${{extract{{servers}}{{$domain_data}}}}
  transport = mailfleet_${{extract{{${{if def:tls_in_cipher{{over_tls}}{{in_plaintext}}}}}}{{$domain_data}}{{$value}}fail}}
  no_more
""",
    "transports": "".join(
        _TRANSPORT.format(level=level, options=options) for level, options in _TRANSPORT_OPTIONS.items()
    ),
    "retry": f"lsearch;{ROUTES}  *  F,2h,2m; F,365d,15m\n",
}


class EximGateway:
    """Adapter for a gateway that is this host's Exim, Debian's configuration split or unsplit."""

    name = "exim"  # one lock and one journal for one configuration
    modes = MODES
    reads_files_unasked = False

    def __init__(self, run: Runner, settings: Settings, own_port: Target) -> None:
        """own_port takes the mail of the internet."""
        self._run = run
        self._settings = settings
        self._own_port = own_port
        self._exim = Exim(run, lambda _planned, target: self._answers(target))

    def require_running(self) -> None:
        """See mode.Gateway."""
        self._exim.require_running()
        seen = handshake_one(self._own_port, self._settings)
        if seen.stage < Stage.EHLO:
            raise EngineError(
                f"the gateway does not answer on {self._own_port} ({seen.message}); name the address and port it "
                "listens on, because a change that cannot be proved is not made"
            )

    def read(self) -> dict[str, EmailConfig]:
        """See mode.Gateway."""
        return load((FileImage.read(REGISTRY).content or b"").decode("utf-8", "replace"), REGISTRY)

    def plan(self, configs: Mapping[str, EmailConfig]) -> Change:
        """See mode.Gateway."""
        if not configs and not Path(DIRECTORY).exists():
            return Change((), ())
        images = [
            FileImage(ROUTES, routes(configs.values()).encode()),
            FileImage(REGISTRY, dump(configs.values()).encode()),
        ]
        if self._exim.split:
            images += [FileImage(SPLIT_FILES[name], (_HEADER + text).encode()) for name, text in _SECTIONS.items()]
        else:
            images += [FileImage(f"{DIRECTORY}/{name}", (_HEADER + text).encode()) for name, text in _SECTIONS.items()]
            template = FileImage.read(TEMPLATE)
            text = (template.content or b"").decode("utf-8", "surrogateescape")
            images.append(replace(template, content=with_includes(text).encode("utf-8", "surrogateescape")))
        return replace(Change.of(images), kept=(FileImage.read(GENERATED),))

    def check(self) -> None:
        """See transaction.Daemon."""
        self._exim.check()

    def reload(self) -> None:
        """See transaction.Daemon: Exim reads the routes by itself, so it is told of another configuration only."""
        if self._exim.is_stale():
            self._exim.reload()

    def resume(self) -> None:
        """See transaction.Daemon."""
        self._exim.resume()

    def serves(self) -> bool:
        """See mode.Gateway."""
        return handshake_one(self._own_port, self._settings).stage >= Stage.EHLO

    def prove(self) -> None:
        """See mode.Gateway: the port answers, and Exim's own routing of each domain is the wanted one."""
        self._answers(self._own_port)
        wanted = {
            f"postmaster@{domain}": f"mailfleet_{LEVELS[config.delivery_mode][0]}"
            for config in self.read().values()
            for domain in config.domains
        }
        if not wanted:
            return
        _status, out, err = self._run(["exim4", "-bt", *wanted])
        found = dict(re.findall(rf"^(\S+)\n  router = {ROUTER}, transport = (\S+)$", out, re.MULTILINE))
        for address, transport in wanted.items():
            if found.get(address) != transport:
                raise EngineError(
                    f"Exim does not route {address} as it should, by {ROUTER} and {transport}: "
                    f"{found.get(address) or err.strip() or out.strip()[:300]}"
                )

    def _answers(self, target: Target) -> None:
        seen = wait_until(lambda now: now.stage >= Stage.EHLO, target, self._settings, self._settings.timeout)
        if seen.stage < Stage.EHLO:
            raise EngineError(f"the gateway does not answer on {target}: {seen.message}")


def routes(configs: Iterable[EmailConfig]) -> str:
    """The lsearch file: for each domain the levels for mail that arrived in plaintext and over TLS, and the servers."""
    lines = []
    for config in sorted(configs, key=lambda one: one.name):
        plain, over_tls = LEVELS[config.delivery_mode]
        servers = ";".join(map(str, config.servers))
        lines += [
            f"{domain}: in_plaintext={plain} over_tls={over_tls} servers=<;{servers}\n" for domain in config.domains
        ]
    return _HEADER + "".join(lines)


def with_includes(template: str) -> str:
    """Debian's unsplit template with a line at the beginning of each section that includes ours.

    Raises EngineError if a section is missing.
    """
    for name in _SECTIONS:
        line = f".include {DIRECTORY}/{name}"
        if re.search(rf"(?m)^{re.escape(line)}$", template):
            continue
        template, count = re.subn(rf"(?m)^(begin {name}[ \t]*)$", lambda match: f"{match.group(1)}\n{line}", template)  # noqa: B023
        if count != 1:
            raise EngineError(f"{TEMPLATE} has {count} lines 'begin {name}', not one: is it Debian's?")
    return template
