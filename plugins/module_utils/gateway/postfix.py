# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The delivery modes on a Postfix gateway.

One smtp transport per mode, chosen per recipient domain by transport_maps. Where the mode depends on
how a message arrived, a policy service sends what arrived over TLS through a second, loopback-only
instance that has the same transports with the other level. So the level is right for each recipient
of one message, over the queue and over restarts. Sources: transport(5), access(5), postmulti(1),
MULTI_INSTANCE_README.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils.gateway import arrival_policy
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
from ansible_collections.mailfleet.starttls.plugins.module_utils.postconf import Edits, Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils.server.postfix import Postfix
from ansible_collections.mailfleet.starttls.plugins.module_utils.transaction import (
    Change,
    EngineError,
    Runner,
)

DIRECTORY = "/etc/postfix/mailfleet-starttls"
REGISTRY = f"{DIRECTORY}/email_configs.json"
TRANSPORT_MAP = f"{DIRECTORY}/transport"
ARRIVAL_MAP = f"{DIRECTORY}/arrival"
REPLY_FILTER = f"{DIRECTORY}/reply_filter"
POLICY = "/usr/local/lib/mailfleet-starttls/arrival_policy.py"
RESTRICTION_CLASS = "mailfleet_arrival"
ARRIVED = "mailfleet-arrived"
SECOND = "postfix-mailfleet"
SECOND_DIR = f"/etc/{SECOND}"

_HEADER = "# Written by mailfleet.starttls from email_configs.json; a change made here is lost.\n"
# A server that takes mail over TLS only refuses plaintext for good (530): put off, not bounced.
_REPLY_FILTER = "/^530([ -].*STARTTLS.*)/ 430$1\n"
# Settings of the first instance that the second must not share: how it receives, its own places, and
# the rewriting that was done when the message first came in.
_NOT_SHARED = re.compile(
    r"(smtpd_|postscreen_|tlsproxy_|milter_|non_smtpd_milters|multi_instance_|virtual_|alias_|local_|mailbox_"
    r"|canonical_|sender_canonical_|recipient_canonical_|home_mailbox|content_filter|receive_override_options"
    r"|queue_directory|data_directory|config_directory|mydestination|inet_interfaces|mynetworks|proxy_interfaces|syslog_name"
    r"|authorized_|always_bcc|sender_bcc_maps|recipient_bcc_maps|header_checks|body_checks|biff|mailfleet_)"
)
_SECOND_SERVICES = """\
pickup     unix n - n 60    1 pickup
cleanup    unix n - n -     0 cleanup
qmgr       unix n - n 300   1 qmgr
tlsmgr     unix - - n 1000? 1 tlsmgr
rewrite    unix - - n -     - trivial-rewrite
bounce     unix - - n -     0 bounce
defer      unix - - n -     0 bounce
trace      unix - - n -     0 bounce
verify     unix - - n -     1 verify
flush      unix n - n 1000? 0 flush
proxymap   unix - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
smtp       unix - - n -     - smtp
relay      unix - - n -     - smtp -o syslog_name=$multi_instance_name/relay
showq      unix n - n -     - showq
error      unix - - n -     - error
retry      unix - - n -     - error
discard    unix - - n -     - discard
anvil      unix - - n -     1 anvil
scache     unix - - n -     1 scache
"""


class PostfixGateway:
    """Adapter for a gateway that is the default Postfix instance of this host."""

    name = "postfix-gateway"
    reads_files_unasked = True
    modes = MODES

    def __init__(self, run: Runner, settings: Settings, own_port: Target, reinjection_port: int) -> None:
        """own_port takes the mail of the internet; reinjection_port is a free loopback port."""
        self._run = run
        self._settings = settings
        self._own_port = own_port
        self._second_port = Target("127.0.0.1", reinjection_port)
        self._postconf = Postconf(run)
        self._postfix = Postfix(run, own_port.port)

    def require_running(self) -> None:
        """See mode.Gateway."""
        self._postfix.require_running()
        if not Path(SECOND_DIR).exists() and handshake_one(self._second_port, self._settings).code != "connect_failed":
            raise EngineError(f"another service answers on {self._second_port}; name a free port with reinjection_port")

    def read(self) -> dict[str, EmailConfig]:
        """See mode.Gateway."""
        return load((FileImage.read(REGISTRY).content or b"").decode("utf-8", "replace"), REGISTRY)

    def plan(self, configs: Mapping[str, EmailConfig]) -> Change:
        """See mode.Gateway."""
        if not configs and not Path(DIRECTORY).exists():
            return Change((), ())
        arrival = any(one.depends_on_arrival for one in configs.values()) or Path(SECOND_DIR).exists()
        images = [
            FileImage(REPLY_FILTER, _REPLY_FILTER.encode()),
            FileImage(TRANSPORT_MAP, transport_map(configs).encode()),
            FileImage(ARRIVAL_MAP, arrival_map(configs).encode()),
            FileImage(REGISTRY, dump(configs.values()).encode()),
        ]
        if arrival:
            images.append(FileImage(POLICY, inspect.getsource(arrival_policy).encode(), 0o755))
            images += self._second_instance()
        images += self._postconf.images(self._edits(arrival))
        return Change.of(images)

    def check(self) -> None:
        """See transaction.Daemon."""
        if Path(SECOND_DIR, "main.cf").exists():
            self._make_second_places()
            self._call("postfix", "-c", SECOND_DIR, "check")
        self._postfix.check()

    def reload(self) -> None:
        """See transaction.Daemon: also starts the second instance, or stops it where the files have none."""
        unit = self._second_unit()
        listed = SECOND_DIR in self._postconf.values("multi_instance_directories").get("multi_instance_directories", "")
        if listed:
            self._call("systemctl", "daemon-reload")
            if "%I" in unit[1]:
                self._call("systemctl", "enable", "--quiet", unit[0])
            self._call("systemctl", "start", unit[0])
        elif self._run(["systemctl", "is-active", "--quiet", unit[0]])[0] == 0:
            self._call("systemctl", "stop", unit[0])
            self._run(["systemctl", "reset-failed", unit[0]])
        self._call("postfix", "reload")

    def resume(self) -> None:
        """See transaction.Daemon."""
        self.reload()

    def serves(self) -> bool:
        """See mode.Gateway."""
        return all(handshake_one(port, self._settings).stage >= Stage.EHLO for port in self._ports())

    def prove(self) -> None:
        """See mode.Gateway."""
        for port in self._ports():
            seen = wait_until(lambda now: now.stage >= Stage.EHLO, port, self._settings, self._settings.timeout)
            if seen.stage < Stage.EHLO:
                raise EngineError(f"the gateway does not answer on {port} after the change: {seen.message}")

    def _ports(self) -> list[Target]:
        return [self._own_port] + ([self._second_port] if Path(SECOND_DIR, "main.cf").exists() else [])

    def _edits(self, arrival: bool) -> Edits:
        now = self._postconf.values(
            "transport_maps", "smtpd_recipient_restrictions", "smtpd_restriction_classes", "tls_required_enable",
            "multi_instance_wrapper", "multi_instance_enable", "multi_instance_directories",
        )  # fmt: skip
        main = {"transport_maps": _first(f"texthash:{TRANSPORT_MAP}", now["transport_maps"])}
        if "tls_required_enable" in now:
            # Postfix 3.10 lets a sender's header "TLS-Required: no" turn every level into plaintext.
            main["tls_required_enable"] = "no"
        if arrival:
            main["smtpd_restriction_classes"] = _first(RESTRICTION_CLASS, now["smtpd_restriction_classes"])
            main[RESTRICTION_CLASS] = f"check_policy_service unix:private/{RESTRICTION_CLASS}"
            # First, because a permit_... in front of it would skip it.
            main["smtpd_recipient_restrictions"] = _first(
                f"check_recipient_access texthash:{ARRIVAL_MAP}", now["smtpd_recipient_restrictions"]
            )
            main["multi_instance_wrapper"] = "${command_directory}/postmulti -p --"
            main["multi_instance_enable"] = "yes"
            main["multi_instance_directories"] = _first(SECOND_DIR, now["multi_instance_directories"])
        explicit = self._postconf.explicit()
        changed = {name: value for name, value in main.items() if explicit.get(name) != value}
        return Edits(changed, services=self._services(0, arrival))

    def _services(self, arrived_over_tls: int, arrival: bool) -> dict[str, str]:
        """The master.cf entries of an instance: 0 for the first, 1 for the second."""
        chroot = "n" if arrived_over_tls else "y"
        services = {}
        for mode, levels in LEVELS.items():
            level = levels[arrived_over_tls]
            options = [f"smtp_tls_security_level={level}", "smtp_tls_policy_maps="]
            if level == "none":
                options.append(f"smtp_reply_filter=regexp:{REPLY_FILTER}")
            services[transport_of(mode)] = _smtp_entry(transport_of(mode), chroot, options)
        if arrival and not arrived_over_tls:
            services[ARRIVED] = _smtp_entry(
                ARRIVED,
                chroot,
                ["smtp_tls_security_level=none", "smtp_tls_policy_maps=", "smtp_send_xforward_command=yes"],
            )
            services[RESTRICTION_CLASS] = (
                f"{RESTRICTION_CLASS} unix - n n - 0 spawn user=nobody "
                f"argv={sys.executable} -I {POLICY} {ARRIVED}:[127.0.0.1]:{self._second_port.port}"
            )
        return {f"{name}/unix": entry for name, entry in services.items()}

    def _second_instance(self) -> list[FileImage]:
        shared = {name: value for name, value in self._postconf.explicit().items() if not _NOT_SHARED.match(name)}
        transport_maps = self._postconf.values("transport_maps")["transport_maps"]
        main = {
            **shared,
            "transport_maps": _first(f"texthash:{TRANSPORT_MAP}", transport_maps),
            "multi_instance_name": SECOND,
            "multi_instance_enable": "yes",
            "queue_directory": f"/var/spool/{SECOND}",
            "data_directory": f"/var/lib/{SECOND}",
            "syslog_name": SECOND,
            "inet_interfaces": "loopback-only",
            "mynetworks": "127.0.0.0/8",
            "mydestination": "",
            "local_transport": "error:this instance delivers nothing locally",
            "alias_maps": "",
            "alias_database": "",
            "authorized_submit_users": "",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "smtpd_recipient_restrictions": "",
            "smtpd_tls_security_level": "none",
            "smtpd_authorized_xforward_hosts": "127.0.0.0/8",
            "receive_override_options": "no_unknown_recipient_checks, no_address_mappings, no_header_body_checks, no_milters",
        }
        if self._postconf.values("tls_required_enable"):
            main["tls_required_enable"] = "no"
        master = [f"{self._second_port} inet n - n - - smtpd\n", _SECOND_SERVICES]
        for entry in self._services(1, True).values():
            words = entry.split(" -o ")
            master.append(words[0] + "\n" + "".join(f"  -o {word}\n" for word in words[1:]))
        lines = [f"{name} = {value}".rstrip() + "\n" for name, value in sorted(main.items())]
        return [
            FileImage(f"{SECOND_DIR}/main.cf", (_HEADER + "".join(lines)).encode()),
            FileImage(f"{SECOND_DIR}/master.cf", (_HEADER + "".join(master)).encode()),
        ]

    def _make_second_places(self) -> None:
        for place, owner in ((f"/var/spool/{SECOND}", "root"), (f"/var/lib/{SECOND}", "postfix")):
            Path(place).mkdir(mode=0o755, exist_ok=True)
            shutil.chown(place, owner)

    def _second_unit(self) -> tuple[str, str]:
        """The unit's name, which Debian 13 changed, and the text of its template."""
        text = self._run(["systemctl", "cat", "postfix@.service"])[1]
        by_suffix = "/etc/postfix-%I" in text
        return (
            f"postfix@{SECOND.partition('-')[2] if by_suffix else SECOND}.service",
            "%I" if by_suffix else "",
        )

    def _call(self, *command: str) -> None:
        status, out, err = self._run(command)
        if status != 0:
            raise EngineError(f"{' '.join(command)} failed: {(err or out).strip()}")


def transport_of(mode: str) -> str:
    """The name of a mode's transport, as the log shows it."""
    return f"mailfleet-{mode}"


def transport_map(configs: Mapping[str, EmailConfig]) -> str:
    """The transport(5) table: a line for each recipient domain."""
    lines = [
        f"{domain} {transport_of(config.delivery_mode)}:{','.join(map(next_hop, config.servers))}\n"
        for _name, config in sorted(configs.items())
        for domain in config.domains
    ]
    return _HEADER + "".join(lines)


def arrival_map(configs: Mapping[str, EmailConfig]) -> str:
    """The access(5) table of the domains for which it matters how a message arrived."""
    lines = [
        f"{domain} {RESTRICTION_CLASS}\n"
        for _name, config in sorted(configs.items())
        if config.depends_on_arrival
        for domain in config.domains
    ]
    return _HEADER + "".join(lines)


def next_hop(server: Target) -> str:
    """A next hop that is the host itself, whatever MX records say."""
    return f"[{server.host}]:{server.port}"


def _smtp_entry(name: str, chroot: str, options: list[str]) -> str:
    return f"{name} unix - - {chroot} - - smtp " + " ".join(f"-o {option}" for option in options)


def _first(entry: str, present: str) -> str:
    """A list setting with our entry in front and everything else in its order."""
    rest = [one.strip() for one in present.split(",") if one.strip() and one.strip() != entry]
    return ", ".join([entry, *rest])
