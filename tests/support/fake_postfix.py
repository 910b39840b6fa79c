"""A stand-in for Postfix's commands: what postconf(1) does to the files of a directory, and scripted answers.

Only what the collection calls is here, and that as postconf does it: comments, other lines and their order stay,
``-e`` writes where the parameter stood and appends what is new, output is sorted.
"""

import re
import textwrap
from pathlib import Path

DEFAULTS = {
    "canonical_maps": "",
    "content_filter": "",
    "default_transport": "smtp",
    "inet_interfaces": "all",
    "inet_protocols": "all",
    "lmtp_tls_loglevel": "0",
    "mail_version": "3.7.11",
    "message_size_limit": "10240000",
    "multi_instance_directories": "",
    "multi_instance_enable": "no",
    "multi_instance_wrapper": "",
    "mydestination": "$myhostname, localhost",
    "myhostname": "gw.example",
    "parent_domain_matches_subdomains": (
        "debug_peer_list,fast_flush_domains,mynetworks,permit_mx_backup_networks,qmqpd_authorized_clients,relay_domains,"
        "smtpd_access_maps"
    ),
    "plaintext_reject_code": "450",
    "queue_directory": "/var/spool/postfix",
    "recipient_bcc_maps": "",
    "recipient_canonical_maps": "",
    "relay_transport": "relay",
    "relayhost": "",
    "sender_dependent_default_transport_maps": "",
    "sender_dependent_relayhost_maps": "",
    "smtp_tls_CAfile": "",
    "smtp_tls_CApath": "",
    "smtp_tls_loglevel": "0",
    "smtp_tls_security_level": "",
    "smtpd_discard_ehlo_keyword_address_maps": "",
    "smtpd_recipient_restrictions": "",
    "smtpd_restriction_classes": "",
    "smtpd_tls_chain_files": "",
    "smtpd_tls_loglevel": "0",
    "smtpd_tls_received_header": "no",
    "smtpd_tls_security_level": "",
    "transport_maps": "",
    "virtual_alias_maps": "",
}
TLS_DEFAULTS = {
    **DEFAULTS,
    "smtpd_use_tls": "no", "smtpd_enforce_tls": "no", "smtpd_tls_wrappermode": "no",
    "smtpd_tls_cert_file": "", "smtpd_tls_dcert_file": "", "smtpd_tls_eccert_file": "", "tls_server_sni_maps": "",
    "smtpd_tls_key_file": "$smtpd_tls_cert_file",
    "postscreen_tls_security_level": "$smtpd_tls_security_level", "postscreen_use_tls": "$smtpd_use_tls",
    "postscreen_enforce_tls": "$smtpd_enforce_tls", "relay_domains": "",
    "smtpd_upstream_proxy_protocol": "", "postscreen_upstream_proxy_protocol": "",
    "virtual_transport": "virtual", "local_transport": "local:$myhostname", "mailbox_transport": "", "fallback_transport": "",
    "smtp_fallback_relay": "",
    **{
        f"{client}_{name}": value
        for client, port in (("smtp", "smtp"), ("lmtp", "24"))
        for name, value in {
            "tls_security_level": "", "use_tls": "no", "enforce_tls": "no", "tls_enforce_peername": "yes",
            "tls_wrappermode": "no", "tcp_port": port, "tls_policy_maps": "", "tls_per_site": "", "discard_ehlo_keywords": "",
            "discard_ehlo_keyword_address_maps": "",
        }.items()
    },
}  # fmt: skip
"""The same with what a real Postfix has besides, for its listeners and ways of outgoing mail."""
MAIN = """\
# See /usr/share/postfix/main.cf.dist for a commented, more complete version
smtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)
biff = no

# a comment that stays:   with  odd   spacing
relay_domains = alpha.example,
    beta.example
mynetworks = 127.0.0.0/8 192.0.2.0/24
"""
MASTER = """\
# service type  private unpriv  chroot  wakeup  maxproc command + args
smtp      inet  n       -       y       -       -       smtpd
pickup    unix  n       -       y       60      1       pickup
smtp      unix  -       -       y       -       -       smtp
relay     unix  -       -       y       -       -       smtp
        -o syslog_name=postfix/$service_name
"""


def _logical(text):
    """Blocks of lines, each a comment, a blank line, or a setting with the lines that continue it."""
    blocks = []
    for line in text.splitlines(keepends=True):
        if line[:1] in " \t" and line.strip() and blocks and not blocks[-1].startswith("#") and blocks[-1].strip():
            blocks[-1] += line
        else:
            blocks.append(line)
    return blocks


class FakePostfix:
    """A runner (see transaction.Runner) for one or more configuration directories."""

    def __init__(self, directory, main=MAIN, master=MASTER, defaults=DEFAULTS):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.main = self.directory / "main.cf"
        self.master = self.directory / "master.cf"
        self.main.write_text(main)
        self.master.write_text(master)
        self.defaults = dict(defaults)
        self.answers = {}  # first words of a command -> answer, or an exception to raise
        self.tables = {}  # lookup table -> key -> value, for postmap -q
        self.calls = []

    def __call__(self, arguments):
        arguments = list(arguments)
        self.calls.append(arguments)
        for words, answer in self.answers.items():
            if tuple(arguments[: len(words)]) == words:
                if isinstance(answer, BaseException):
                    raise answer
                return answer
        if arguments[0] == "postconf":
            return self._postconf(arguments[1:])
        if arguments[:2] == ["postmap", "-q"]:
            _command, _flag, key, table = arguments
            value = self.tables.get(table, {}).get(key)
            return (1, "", "") if value is None else (0, f"{value}\n", "")
        if arguments[:2] == ["postmap", "-s"]:
            return self._list(arguments[2])
        if arguments[:2] == ["sh", "-c"] and "postmap -q -" in arguments[2]:
            return self._ask(arguments[4], arguments[5:])
        return 0, "", ""

    def _ask(self, table, keys):
        """What postmap -q - says of several keys: a line for each that the table has. A texthash table is a file."""
        held = dict(self.tables.get(table, {}))
        if table.startswith("texthash:"):
            path = Path(table.partition(":")[2])
            if not path.exists():
                return 1, "", f"postmap: fatal: open {path}: No such file or directory\n"
            lines = (line.split(None, 1) for line in path.read_text().splitlines() if not line.startswith("#"))
            held.update(line for line in lines if len(line) == 2)
        found = [f"{key}\t{held[key]}\n" for key in keys if key in held]
        return (0 if found else 1), "".join(found), ""

    def _list(self, table):
        """What postmap -s says: each key and value, in no order; some types of tables cannot."""
        kind, _, place = table.partition(":")
        if table in self.tables:
            return 0, "".join(f"{key}\t{value}\n" for key, value in self.tables[table].items()), ""
        if kind not in ("texthash", "hash", "inline") or not Path(place).exists():
            return 1, "", f"postmap: fatal: table {table}: sequence operation is not supported\n"
        lines = (line.split(None, 1) for line in Path(place).read_text().splitlines() if not line.startswith("#"))
        return 0, "".join(f"{key}\t{value}\n" for key, value in lines), ""

    def called(self, *words):
        return [call for call in self.calls if tuple(call[: len(words)]) == words]

    def _postconf(self, arguments):
        assert arguments[0] == "-c"
        directory, arguments = Path(arguments[1]), arguments[2:]
        flag = arguments[0] if arguments and arguments[0].startswith("-") else ""
        rest = arguments[1:] if flag else arguments
        if not (directory / "main.cf").exists():
            return 1, "", f"postconf: fatal: open {directory}/main.cf: No such file or directory\n"
        if flag == "-e":
            return self._edit_main(directory, dict(one.split(" = ", 1) for one in rest))
        if flag == "-n":
            return 0, _listing(self.explicit(directory)), ""
        if flag == "-M" and not rest:
            return 0, "".join(" ".join(one.split()) + "\n" for one in self._services(directory)), ""
        if flag == "-X":
            return self._edit_main(directory, dict.fromkeys(rest))
        if flag == "-MX":
            return self._edit_master(directory, dict.fromkeys(rest))
        if flag in ("-P", "-PX"):
            return self._edit_options(directory, dict(one.partition("=")[::2] for one in rest), flag == "-PX")
        if flag == "-M":
            return self._edit_master(directory, dict(one.split("=", 1) for one in rest))
        assert flag in ("", "-x") and not rest, f"postconf {arguments} is not known to this stand-in"
        values = {**self.defaults, **self.explicit(directory)}
        return 0, _listing({one: _expanded(value, values) if flag else value for one, value in values.items()}), ""

    def explicit(self, directory=None):
        found = {}
        for block in _logical((Path(directory or self.directory) / "main.cf").read_text()):
            if "=" in block and not block.startswith("#"):
                name, _, value = block.partition("=")
                found[name.strip()] = " ".join(value.split())
        return dict(sorted(found.items()))

    def _expand(self, value, directory):
        """What -x does: values in place of $name, ${name} and $(name), again and again; unknown ones stay."""
        return _expanded(value, {**self.defaults, **self.explicit(directory)})

    @staticmethod
    def _edit_main(directory, edits):
        path = directory / "main.cf"
        left, kept = dict(edits), []
        for block in _logical(path.read_text()):
            name = "" if block.startswith("#") else block.partition("=")[0].strip()
            if name not in edits:
                kept.append(block)
            elif name in left:
                value = left.pop(name)
                kept += [] if value is None else [f"{name} = {value}".rstrip() + "\n"]
        left = {name: value for name, value in left.items() if value is not None}
        kept += [f"{name} = {value}".rstrip() + "\n" for name, value in left.items()]
        path.write_text("".join(kept))
        return 0, "", ""

    @staticmethod
    def _services(directory):
        blocks = _logical((directory / "master.cf").read_text())
        return [block for block in blocks if block.strip() and not block.startswith("#")]

    def _edit_options(self, directory, options, remove):
        edits = {}
        for key, value in options.items():
            service, _, name = key.rpartition("/")
            entry = next(one for one in self._services(directory) if "/".join(one.split()[:2]) == service)
            head, *rest = re.split(r"\s+-o\s+", edits.get(service) or " ".join(entry.split()))
            rest = [one for one in rest if one.partition("=")[0] != name] + ([] if remove else [f"{name}={value}"])
            edits[service] = " -o ".join([head, *rest])
        return self._edit_master(directory, edits)

    @staticmethod
    def _edit_master(directory, edits):
        path = directory / "master.cf"
        left, kept = dict(edits), []
        for block in _logical(path.read_text()):
            name = "" if block.startswith("#") else "/".join(block.split()[:2])
            if name not in edits:
                kept.append(block)
            elif name in left:
                value = left.pop(name)
                kept += [] if value is None else [_entry(value)]
        kept += [_entry(entry) for entry in left.values() if entry is not None]
        path.write_text("".join(kept))
        return 0, "", ""


def _expanded(value, values):
    def known(match):
        name = match.group().strip("${}()")
        return _expanded(values[name], values) if name in values else match.group()

    return re.sub(r"\$(\w+|\{\w+\}|\(\w+\))", known, value) if "$" in value else value


def _entry(text):
    head, *options = text.split(" -o ")
    columns = head.split(None, 7)
    return "  ".join(columns) + "\n" + "".join(textwrap.indent(f"-o {one}\n", "    ") for one in options)


def _listing(values):
    return "".join(f"{name} = {value}\n" for name, value in values.items())
