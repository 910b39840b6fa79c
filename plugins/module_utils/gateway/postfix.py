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
import smtplib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils.dialogue import Stage, printable
from ansible_collections.mailfleet.starttls.plugins.module_utils.gateway import arrival_policy
from ansible_collections.mailfleet.starttls.plugins.module_utils.handshake import (
    Settings,
    Target,
    handshake_one,
    is_address,
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
# What the second instance shares with the first: how it speaks to the mail servers, and for how long.
_SHARED = re.compile(
    r"(compatibility_level|myhostname|mydomain|inet_protocols|message_size_limit|smtputf8_enable"
    r"|smtp_(tls_(?!session_cache)|bind_address|helo_name|host_lookup|dns_|address_|balance_|connection_|mx_|[a-z_]*_timeout)"
    r"|(maximal|bounce)_queue_lifetime|(minimal|maximal)_backoff_time|queue_run_delay|mail_owner|setgid_group)"
)
_TO_LOOPBACK = (
    "smtp_tls_security_level=none",
    "smtp_tls_policy_maps=",
    "smtp_send_xforward_command=yes",
    "smtp_bind_address=127.0.0.1",
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
showq      unix n - n -     - showq
error      unix - - n -     - error
retry      unix - - n -     - error
discard    unix - - n -     - discard
anvil      unix - - n -     1 anvil
scache     unix - - n -     1 scache
"""


class PostfixGateway:
    """Adapter for a gateway that is the default Postfix instance of this host."""

    name = "postfix"  # one lock and one journal for one configuration
    reads_files_unasked = True
    modes = MODES

    def __init__(self, run: Runner, settings: Settings, own_port: Target, reinjection_port: int) -> None:
        """own_port takes the mail of the internet; reinjection_port is a free loopback port."""
        self._run = run
        self._settings = settings
        self._own_port = own_port
        self._second_port = Target("127.0.0.1", reinjection_port)
        self._return_port = Target("127.0.0.1", reinjection_port + 1)
        self._postconf = Postconf(run)
        self._postfix = Postfix(run, own_port.port)

    def require_running(self) -> None:
        """See mode.Gateway."""
        self._postfix.require_running()
        seen = handshake_one(self._own_port, self._settings)
        if seen.stage < Stage.EHLO:
            raise EngineError(
                f"the gateway does not answer on {self._own_port} ({seen.message}); name the address and port it "
                "listens on, because a change that cannot be proved is not made"
            )
        if Path(SECOND_DIR).exists():
            return
        for port in (self._second_port, self._return_port):
            if handshake_one(port, self._settings).code != "connect_failed":
                raise EngineError(f"another service answers on {port}; name a free port with reinjection_port")

    def read(self) -> dict[str, EmailConfig]:
        """See mode.Gateway."""
        return load((FileImage.read(REGISTRY).content or b"").decode("utf-8", "replace"), REGISTRY)

    def plan(self, configs: Mapping[str, EmailConfig]) -> Change:
        """See mode.Gateway."""
        if not configs and not Path(DIRECTORY).exists():
            return Change((), ())
        depends = any(one.depends_on_arrival for one in configs.values())
        arrival = depends or Path(SECOND_DIR).exists()
        if depends:
            self._refuse_filters()
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
        unit, has_to_be_enabled = self._second_unit()
        listed = SECOND_DIR in self._postconf.values("multi_instance_directories").get("multi_instance_directories", "")
        if listed:
            self._call("systemctl", "daemon-reload")
            if has_to_be_enabled:
                self._call("systemctl", "enable", "--quiet", unit)
            self._call("systemctl", "start", unit)
        else:  # whatever a run that was undone left of it
            for verb in ("stop", "disable", "reset-failed"):
                self._run(["systemctl", "--quiet", verb, unit])
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
        self._prove_policy()

    def _ports(self) -> list[Target]:
        second = [self._second_port, self._return_port] if Path(SECOND_DIR, "main.cf").exists() else []
        return [self._own_port, *second]

    def _prove_policy(self) -> None:
        """Have the policy service asked: without it each recipient whose mode depends on arrival gets a 451."""
        domain = next((one.domains[0] for one in self.read().values() if one.depends_on_arrival), None)
        if domain is None:
            return
        try:
            host, port = self._own_port.host, self._own_port.port
            with smtplib.SMTP(host, port, self._settings.helo_name, self._settings.timeout) as session:
                session.ehlo()
                session.mail("")
                code, text = session.rcpt(f"postmaster@{domain}")
        except (OSError, smtplib.SMTPException) as error:
            raise EngineError(f"the gateway does not take a recipient of {domain}: {error}") from error
        if code == 451 and b"4.3.5" in text:  # "server configuration error", not somebody's greylisting
            raise EngineError(f"the gateway puts off a recipient of {domain}: {code} {printable(text)}")

    def _refuse_filters(self) -> None:
        """FILTER takes the place of a content filter, and a listener with restrictions of its own never asks."""
        for name in ("content_filter", "smtpd_proxy_filter"):
            filters = {"main.cf": self._postconf.values(name).get(name, "")}
            filters.update(self._postconf.overrides(name))
            for where, value in filters.items():
                if value and (where == "main.cf" or self._receives(where)):
                    raise EngineError(
                        f"{where} sets {name}={value}, which does not go together with a mode that depends on how mail "
                        "arrived: mail that arrived over TLS would bypass it, or be taken for mail in plaintext; choose "
                        "plaintext, opportunistic or required on this gateway"
                    )
        for where in self._postconf.overrides("smtpd_recipient_restrictions"):
            if self._receives(where):
                raise EngineError(
                    f"master.cf sets smtpd_recipient_restrictions for {where}, so how mail arrives there would not be "
                    f"seen; take it out first: postconf -PX '{where}/smtpd_recipient_restrictions'"
                )

    def _receives(self, service: str) -> bool:
        return self._postfix.is_listener(service) or service == "smtpd/pass"

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
        chroot = "n" if arrived_over_tls else self._chroot()
        services = {}
        for mode, levels in LEVELS.items():
            level = levels[arrived_over_tls]
            options = [f"smtp_tls_security_level={level}", "smtp_tls_policy_maps="]
            if level != "encrypt":
                options.append(f"smtp_reply_filter=regexp:{REPLY_FILTER}")
            services[transport_of(mode)] = _smtp_entry(transport_of(mode), chroot, options)
        if arrival and not arrived_over_tls:
            services[ARRIVED] = _smtp_entry(
                ARRIVED,
                chroot,
                _TO_LOOPBACK,
            )
            services[RESTRICTION_CLASS] = (
                f"{RESTRICTION_CLASS} unix - n n - 0 spawn user=nobody "
                f"argv={_python()} -I {POLICY} {ARRIVED}:[127.0.0.1]:{self._second_port.port}"
            )
        entries = {f"{name}/unix": entry for name, entry in services.items()}
        if arrival and not arrived_over_tls:
            # For what the second instance does not route itself: local, virtual and all other domains.
            entries[f"{self._return_port}/inet"] = f"{self._return_port} inet n - {chroot} - - smtpd " + " ".join(
                f"-o {option}"
                for option in (
                    "smtpd_tls_security_level=none",
                    "smtpd_client_restrictions=",
                    "smtpd_helo_restrictions=",
                    "smtpd_sender_restrictions=",
                    "smtpd_relay_restrictions=permit_mynetworks,reject",
                    "smtpd_recipient_restrictions=",
                    "smtpd_data_restrictions=",
                    "smtpd_end_of_data_restrictions=",
                    "mynetworks=127.0.0.0/8",
                    "smtpd_authorized_xforward_hosts=127.0.0.0/8",
                    "receive_override_options=no_address_mappings,no_header_body_checks,no_milters",
                )
            )
        return entries

    def _second_instance(self) -> list[FileImage]:
        explicit = self._postconf.explicit("-x")
        back = f"mailfleet-back:[{self._return_port.host}]:{self._return_port.port}"
        main = {
            **{name: value for name, value in explicit.items() if _SHARED.match(name)},
            **self._outgoing_address(explicit),
            "transport_maps": f"texthash:{TRANSPORT_MAP}",
            "default_transport": back,
            "relay_transport": back,
            "virtual_transport": back,
            "local_transport": back,
            "multi_instance_name": SECOND,
            "multi_instance_enable": "yes",
            "queue_directory": f"/var/spool/{SECOND}",
            "data_directory": f"/var/lib/{SECOND}",
            "syslog_name": SECOND,
            "inet_interfaces": "loopback-only",
            "mynetworks": "127.0.0.0/8",
            "mydestination": "",
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
        entries = [*self._services(1, True).values(), _smtp_entry("mailfleet-back", "n", _TO_LOOPBACK)]
        for entry in entries:
            words = entry.split(" -o ")
            master.append(words[0] + "\n" + "".join(f"  -o {word}\n" for word in words[1:]))
        lines = [f"{name} = {value}".rstrip() + "\n" for name, value in sorted(main.items())]
        return [
            FileImage(f"{SECOND_DIR}/main.cf", (_HEADER + "".join(lines)).encode()),
            FileImage(f"{SECOND_DIR}/master.cf", (_HEADER + "".join(master)).encode()),
        ]

    def _outgoing_address(self, explicit: Mapping[str, str]) -> dict[str, str]:
        """Postfix sends from the one address it listens on, if it is one; the second instance has to do the same."""
        if "smtp_bind_address" in explicit:
            return {}
        listens = explicit.get("inet_interfaces", "").replace(",", " ").split()
        outside = [one for one in listens if is_address(one) and not one.startswith("127.") and ":" not in one]
        return {"smtp_bind_address": outside[0]} if len(listens) == len(outside) == 1 else {}

    def _chroot(self) -> str:
        """The chroot column of the gateway's own smtp transport."""
        fields = self._postconf.call("-M", "smtp/unix").split()
        return fields[4] if len(fields) > 4 else "n"

    def _make_second_places(self) -> None:
        for place, owner in ((f"/var/spool/{SECOND}", "root"), (f"/var/lib/{SECOND}", "postfix")):
            Path(place).mkdir(exist_ok=True)
            Path(place).chmod(0o755)  # mkdir's own mode goes through the umask
            shutil.chown(place, owner)

    def _second_unit(self) -> tuple[str, bool]:
        """The unit's name, which Debian 13 changed, and whether it has to be enabled, as it has to there."""
        template = self._run(["systemctl", "cat", "postfix@.service"])[1]
        by_suffix = "/etc/postfix-%I" in template
        return f"postfix@{SECOND.partition('-')[2] if by_suffix else SECOND}.service", by_suffix

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


def _smtp_entry(name: str, chroot: str, options: Sequence[str]) -> str:
    return f"{name} unix - - {chroot} - - smtp " + " ".join(f"-o {option}" for option in options)


def _first(entry: str, present: str) -> str:
    """A list setting with our entry in front; what is there stays as it is, to the letter."""
    if re.match(rf"{re.escape(entry)}(?=[\s,]|$)", present):
        return present
    return f"{entry}, {present}" if present else entry


def _python() -> str:
    """A Python for a service that outlives this run and runs as nobody."""
    return "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
