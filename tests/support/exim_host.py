"""A gateway host with Debian's Exim below a directory, a stand-in for its commands, and the collection's adapter on it.

The configuration has the shape of Debian's: the same names, conditionals and continued lines, and little else.
"""

import os
import pwd
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import daemon, gateway, scheme, server
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import own_port, record
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EmailConfig,
    EnforcedDomain,
    GatewayState,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.processes import Process
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Settings, Target

OWN_PORT = Target("127.0.0.1", 25)
SETTINGS = Settings(helo_name="gw.example", timeout=0.2)

HUBBED_HOSTS = """\
### router/150_exim4-config_hubbed_hosts
########################################

# single domains by hand

hubbed_hosts:
  debug_print = "R: hubbed_hosts for $domain"
  driver = manualroute
  domains = "${if exists{CONFDIR/hubbed_hosts}\\
                   {partial-lsearch;CONFDIR/hubbed_hosts}\\
              fail}"
  route_data = ${lookup{$domain}partial-lsearch{CONFDIR/hubbed_hosts}}
  transport = remote_smtp
"""
PRIMARY = """\
### router/200_exim4-config_primary
###################################

.ifdef DCconfig_internet
dnslookup_relay_to_domains:
  debug_print = "R: dnslookup_relay_to_domains for $local_part@$domain"
  driver = dnslookup
  domains = ! +local_domains : +relay_to_domains
  transport = remote_smtp
  no_more

# not the networks of others
.ifndef ROUTER_DNSLOOKUP_IGNORE_TARGET_HOSTS
ROUTER_DNSLOOKUP_IGNORE_TARGET_HOSTS = <; 0.0.0.0 ; 127.0.0.0/8 ;\\
 255.255.255.255
.endif

dnslookup:
  debug_print = "R: dnslookup for $local_part@$domain"
  driver = dnslookup
  domains = ! +local_domains
  transport = remote_smtp
  ignore_target_hosts = ROUTER_DNSLOOKUP_IGNORE_TARGET_HOSTS
  no_more

.endif
.ifdef DCconfig_smarthost DCconfig_satellite
smarthost:
  debug_print = "R: smarthost for $local_part@$domain"
  driver = manualroute
  domains = ! +local_domains
  transport = remote_smtp_smarthost
  route_list = * DCsmarthost byname
  no_more

.endif
# what follows is for local domains
"""
REMOTE_SMTP = """\
### transport/30_exim4-config_remote_smtp
#########################################
remote_smtp:
  debug_print = "T: remote_smtp for $local_part@$domain"
  driver = smtp
.ifdef REMOTE_SMTP_HOSTS_AVOID_TLS
  hosts_avoid_tls = REMOTE_SMTP_HOSTS_AVOID_TLS
.endif
.ifdef REMOTE_SMTP_HELO_DATA
  helo_data=REMOTE_SMTP_HELO_DATA
.endif
.ifdef DKIM_DOMAIN
dkim_domain = DKIM_DOMAIN
.endif
.ifdef REMOTE_SMTP_HOSTS_REQUIRE_TLS
  hosts_require_tls = REMOTE_SMTP_HOSTS_REQUIRE_TLS
.endif
.ifdef REMOTE_SMTP_TLS_VERIFY_HOSTS
  tls_verify_hosts = REMOTE_SMTP_TLS_VERIFY_HOSTS
.endif
"""
REMOTE_SMTP_SMARTHOST = """\
### transport/30_exim4-config_remote_smtp_smarthost
###################################################

remote_smtp_smarthost:
  debug_print = "T: remote_smtp_smarthost for $local_part@$domain"
  driver = smtp
  multi_domain
  hosts_try_auth = <; ${if exists{CONFDIR/passwd.client} \\
        {\\
        ${lookup{$host}nwildlsearch{CONFDIR/passwd.client}{$host_address}}\\
        }\\
        {} \\
      }
.ifdef REMOTE_SMTP_SMARTHOST_HOSTS_AVOID_TLS
  hosts_avoid_tls = REMOTE_SMTP_SMARTHOST_HOSTS_AVOID_TLS
.endif
.ifdef REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS
  hosts_require_tls = REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS
.endif
.ifdef REMOTE_SMTP_SMARTHOST_TLS_VERIFY_CERTIFICATES
  tls_verify_certificates = REMOTE_SMTP_SMARTHOST_TLS_VERIFY_CERTIFICATES
.endif
.ifdef REMOTE_SMTP_SMARTHOST_TLS_VERIFY_HOSTS
  tls_verify_hosts = REMOTE_SMTP_SMARTHOST_TLS_VERIFY_HOSTS
.endif
.ifdef REMOTE_SMTP_SMARTHOST_HELO_DATA
  helo_data = REMOTE_SMTP_SMARTHOST_HELO_DATA
.endif
"""
DEBIAN = {
    "router/100_exim4-config_domain_literal": "domain_literal:\n  driver = ipliteral\n",
    "router/150_exim4-config_hubbed_hosts": HUBBED_HOSTS,
    "router/200_exim4-config_primary": PRIMARY,
    "transport/30_exim4-config_remote_smtp": REMOTE_SMTP,
    "transport/30_exim4-config_remote_smtp_smarthost": REMOTE_SMTP_SMARTHOST,
}
TEMPLATE = f"""\
# Debian's own template, with a comment about begin routers
MAIN_X = y
begin acl
acl_check_mail:
  accept
begin routers
domain_literal:
  driver = ipliteral

{HUBBED_HOSTS}{PRIMARY}begin transports
{REMOTE_SMTP}
{REMOTE_SMTP_SMARTHOST}
begin retry
*  *  F,2h,15m; G,16h,1h,1.5; F,4d,6h
begin rewrite
"""


def with_includes(template, directory="/etc/exim4/mailfleet-starttls"):
    """The unsplit template as older versions of the collection left it: an include line for each of their sections."""
    for name, place in (("routers", "begin routers"), ("transports", "begin transports"), ("retry", "begin retry")):
        template = template.replace(f"\n{place}\n", f"\n{place}\n.include {directory}/{name}\n", 1)
    return template.replace("\nhubbed_hosts:\n", f"\n.include {directory}/outbound\nhubbed_hosts:\n", 1)


def config(name, mode, *domains, servers=("mx.example",)):
    return EmailConfig(name, domains or (f"{name}.example",), tuple(map(Target.parse, servers)), mode)


def state(*configs, enforced=(), **more):
    return GatewayState({one.name: one for one in configs}, tuple(enforced), **more)


def inbound(*domains):
    return [EnforcedDomain(domain, "inbound") for domain in domains]


def outbound(domain, check="encryption_only", *servers):
    return EnforcedDomain(domain, "outbound", check, tuple(map(Target.parse, servers)))


def pretend_daemon(monkeypatch, take):
    """Process 4711 is the daemon of Exim. take: gets process and number of each signal that is sent."""
    process = Process(4711, 1, frozenset({os.getuid()}), "/usr/sbin/exim4", "exim4")

    def send_signal(pid, number, is_right):
        assert pid == process.pid and is_right(process)
        take(pid, number)

    monkeypatch.setattr(daemon, "process_of", lambda pid: process if pid == process.pid else None)
    monkeypatch.setattr(daemon, "send_signal", send_signal)


class EximHost:
    """A gateway host below a directory, Exim's commands on it, and the adapter."""

    def __init__(self, monkeypatch, root, split, settings=""):
        self.etc = root / "exim4"
        self.directory = self.etc / "mailfleet-starttls"
        for section in ("main", "router", "transport", "retry"):
            (self.etc / "conf.d" / section).mkdir(parents=True)
        for name, text in DEBIAN.items():
            (self.etc / "conf.d" / name).write_text(text)
        self.template = self.etc / "exim4.conf.template"
        self.template.write_text(TEMPLATE)
        self.settings = self.etc / "update-exim4.conf.conf"
        self.settings.write_text(f"dc_use_split_config='{str(split).lower()}'\n{settings}")
        self.generated = root / "config.autogenerated"
        self.pid_file = root / "exim.pid"
        self.pid_file.write_text("4711\n")
        self.calls, self.signals, self.tested, self.answers = [], [], [], {}
        self.stage = Stage.EHLO  # that a handshake reaches
        for module in (server, gateway):
            monkeypatch.setattr(module, "CONFIG_DIR", str(self.etc))
            monkeypatch.setattr(module, "GENERATED", str(self.generated))
        monkeypatch.setattr(server, "SETTINGS", str(self.settings))
        monkeypatch.setattr(server, "PID_FILE", str(self.pid_file))
        monkeypatch.setattr(daemon, "PID_FILE_SECONDS", 0.0)
        self.runs = True
        monkeypatch.setattr(server, "_runs", lambda: self.runs)
        monkeypatch.setattr(server, "REQUIRE_ACL", str(self.etc / "mailfleet-require-starttls.acl"))
        monkeypatch.setattr(server, "DAEMON_USER", pwd.getpwuid(os.getuid()).pw_name)
        names = {"REGISTRY": "gateway.json", "ROUTES": "routes", "SENDERS": "enforced_senders", "RECIPIENTS": "enforced_recipients",
                 "SENDER_ACL": "enforced_sender.acl", "TLS_ONLY_ACL": "tls_only.acl"}  # fmt: skip
        for name, file in names.items():
            monkeypatch.setattr(gateway, name, str(self.directory / file))
        monkeypatch.setattr(gateway, "DIRECTORY", str(self.directory))
        monkeypatch.setattr(gateway, "TEMPLATE", str(self.template))
        self.split_files = {
            name: path.replace("/etc/exim4", str(self.etc)) for name, path in gateway.SPLIT_FILES.items()
        }
        monkeypatch.setattr(gateway, "SPLIT_FILES", self.split_files)
        if not split:
            self.make_template()
        monkeypatch.setattr(gateway, "SETTINGS", str(self.settings))
        for module in (gateway, record, scheme):
            monkeypatch.setattr(module, "FileImage", OwnFiles())
        monkeypatch.setattr(server, "FileImage", OwnFiles())
        for module in (gateway, own_port):
            monkeypatch.setattr(module, "handshake_one", lambda target, _settings: self.test(target))
        monkeypatch.setattr(own_port, "wait_until", lambda _condition, target, *_: self.test(target))
        self.refusal = (451, "4.7.0 STARTTLS is required for this sender")
        self.asked = []
        for module in (gateway, own_port):
            monkeypatch.setattr(module, "ask", self.ask)
        pretend_daemon(monkeypatch, lambda *args: self.signals.append(args))
        self.generated.write_text(self.compose())
        self.renew()

    def renew(self):
        """Another adapter, as each run makes one."""
        self.adapter = gateway.EximGateway(self.run, SETTINGS, OWN_PORT, may_split=True)

    @property
    def split(self):
        """Whether the configuration is split now. The first change of an unsplit one moves it."""
        return "dc_use_split_config='true'" in self.settings.read_text()

    @property
    def macros(self):
        """The file of local macros."""
        return self.etc / ("conf.d/main/000_localmacros" if self.split else "exim4.conf.localmacros")

    def test(self, target):
        self.tested.append(target)
        failure = {} if self.stage >= Stage.EHLO else {"code": "connect_failed", "message": "cannot connect"}
        return Handshake(target, self.stage, **failure)

    def ask(self, target, _settings, sender, recipient):
        """What an enforced sender hears in plaintext."""
        self.asked.append((str(target), sender, recipient))
        return self.refusal

    def run(self, arguments):
        arguments = list(arguments)
        self.calls.append(arguments)
        for words, answer in self.answers.items():
            if tuple(arguments[: len(words)]) == words:
                return answer
        if arguments[0] == "update-exim4.conf":
            options = dict(zip(arguments[1::2], arguments[2::2]))
            Path(options.get("-o", self.generated)).write_text(self.compose(Path(options.get("-d", self.etc))))
        if arguments[:2] == ["exim4", "-C"] and arguments[3:] == ["-bP", "config"]:
            lines = Path(arguments[2]).read_text().splitlines()
            return 0, "".join(f"{line.strip()}\n" for line in lines if line.strip() and not line.startswith("#")), ""
        if arguments[:2] == ["exim4", "-bt"]:
            return 0, "".join(map(self.route, arguments[2:])), ""
        if arguments[:2] == ["exim4", "-bP"]:
            return 0, f"{self.generated}\n", ""
        return 0, "", ""

    def compose(self, etc=None):
        """What update-exim4.conf makes of the files. It sees no hidden ones."""
        etc = etc or self.etc
        if "dc_use_split_config='true'" in (etc / "update-exim4.conf.conf").read_text():
            return "".join(path.read_text(errors="replace") for path in self.parts(etc))
        macros = etc / "exim4.conf.localmacros"
        template = (etc / "exim4.conf.template").read_text(errors="replace")
        return (macros.read_text() if macros.exists() else "") + template

    @staticmethod
    def parts(etc):
        """The files of the split configuration that Debian reads, in its order."""
        for section in ("main", "acl", "router", "transport", "retry", "rewrite", "auth"):
            for path in sorted((etc / "conf.d" / section).glob("[!.]*")):
                rule = path.with_name(f"{path.name}.rul")
                if path.is_file() and path.suffix != ".rul":
                    yield rule if rule.exists() else path

    def make_template(self):
        """The unsplit configuration as Debian's package has it: made of the files of the split one."""
        rule = "#" * 53
        texts = [
            f"{rule}\n### {name}\n{rule}\n{path.read_text()}{rule}\n### end {name}\n{rule}\n"
            for path in self.parts(self.etc)
            for name in [path.relative_to(self.etc / "conf.d")]
        ]
        self.template.write_text("".join(texts))

    def table(self, name):
        """Domain -> words of a table of ours."""
        lines = (self.directory / name).read_text().splitlines()[1:]
        pairs = (line.partition(":")[::2] for line in lines)
        return {domain: dict(word.split("=", 1) for word in data.split()) for domain, data in pairs}

    def route(self, address):
        """What exim4 -bt says about an address of an email config or an enforced domain."""
        domain = address.partition("@")[2]
        enforced = self.table("enforced_recipients").get(domain)
        if enforced:
            return routed(address, f"mailfleet_{enforced['check']}", "mailfleet_enforced")
        return routed(address, f"mailfleet_{self.table('routes')[domain]['in_plaintext']}")

    def plan(self, *configs, **more):
        return self.adapter.plan(state(*configs, **more))

    def write(self, *configs, **more):
        return self.put(self.plan(*configs, **more))

    @staticmethod
    def put(change):
        for image in change.after:
            Path(image.path).parent.mkdir(parents=True, exist_ok=True)
            image.write()
        return change

    def transact(self, *configs, **more):
        change = self.plan(*configs, **more)
        with self.adapter.transaction(str(self.etc / "store")).locked() as transaction:
            transaction.apply(change, self.adapter.prove, self.adapter.prove)

    def files(self):
        paths = [path for path in self.etc.rglob("*") if path.is_file() and "store" not in path.parts]
        return {str(path): path.read_bytes() for path in [*paths, self.generated]}

    def commands(self, *words):
        return [call for call in self.calls if tuple(call[: len(words)]) == words]

    def read_macros(self):
        return server.read_macros(self.macros.read_text()) if self.macros.exists() else {}

    def sections(self):
        """The text of each of our sections."""
        places = self.split_files if self.split else {name: self.directory / name for name in self.split_files}
        return {name: Path(path).read_text() for name, path in places.items()}


class OwnFiles:
    """FileImage whose new files belong to whoever runs the tests."""

    @staticmethod
    def read(path, **more):
        image = FileImage.read(path, **more)
        return image if image.content is not None else FileImage(path, None, 0o644, os.getuid(), os.getgid())

    def __call__(self, path, content, mode=0o644, _uid=0, _gid=0, **more):
        return FileImage(path, content, mode, os.getuid(), os.getgid(), **more)


def routed(address, transport, router="mailfleet_inbound"):
    return f"{address}\n  router = {router}, transport = {transport}\n  host mx.example [192.0.2.1] port=25\n"
