# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one list of the variables that users set in an inventory. README's table is generated from it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

PREFIX = "starttls_"


class Variable(NamedTuple):
    """default and meaning are Markdown for users."""

    default: str
    meaning: str


SECTIONS: dict[str, dict[str, Variable]] = {
    "The host and its addresses": {
        "starttls_hostname": Variable(
            "the inventory name", "The name that other hosts connect to. The certificate has to cover it."
        ),
        "starttls_port": Variable("25", "The port on which the host takes mail."),
        "starttls_address": Variable(
            "`starttls_hostname`", "The address at which the controller reaches the host, for `verify_tls`."
        ),
        "starttls_own_address": Variable("127.0.0.1", "The address at which the host tests its own mail server."),
        "starttls_kind": Variable(
            "`auto`; on a gateway `postfix`", "The kind of mail server or gateway, see [docs/kinds.md](docs/kinds.md)."
        ),
        "starttls_domain": Variable(
            "none", "A recipient domain whose MX records name the host, for the check `mta_sts`."
        ),
    },
    "The wanted state of a mail server": {
        "starttls_inbound": Variable(
            "`offered`; `none` where the host takes no mail",
            "`offered`, `required` (only behind the delivery mode `required`), or `none`: the host only sends.",
        ),
        "starttls_outbound": Variable("`opportunistic`", "`opportunistic`, or `required`."),
        "starttls_min_tls": Variable(
            "unchanged",
            "The oldest TLS version that Postfix and Exim permit, inbound and outbound (a gateway: inbound, and towards the mail servers): "
            "`TLSv1.2` or `TLSv1.3`. `none` puts back what was there before. The plan names hosts of other kinds. "
            "See [A floor for TLS versions](docs/verification.md#a-floor-for-tls-versions).",
        ),
        "starttls_settings_only": Variable(
            "false",
            "Change nothing on the mail server: the plan shows the settings for your own template, and stops until they are there; then "
            "they are proved, see [docs/kinds.md](docs/kinds.md#beside-other-tools).",
        ),
        "starttls_peers": Variable(
            "none",
            "Hosts besides the gateway that the mail server talks to: Exchange, Exchange Online, partners, see "
            "[below](#exchange-exchange-online-and-other-peers).",
        ),
    },
    "Exchange on premises (`starttls_kind: exchange`), see [docs/exchange.md](docs/exchange.md#exchange-itself)": {
        "starttls_exchange_reach": Variable(
            "`auto`", "How the cmdlets are reached: `shell`, `session`, `loaded`, see the module `exchange_cmdlets`."
        ),
        "starttls_exchange_server": Variable("the computer's name", "The name of the Exchange server."),
        "starttls_exchange_session_uri": Variable(
            "`http://FQDN/PowerShell/`", "With `session`, the address of the PowerShell directory."
        ),
        "starttls_exchange_clients": Variable(
            "the gateways' addresses",
            "Addresses, ranges or networks from which the gateways connect. The receive connectors that serve them are changed.",
        ),
        "starttls_exchange_next_hops": Variable(
            "the gateways", "Names and addresses of smart hosts. The send connectors that lead to them are changed."
        ),
        "starttls_exchange_check": Variable(
            "`encryption_only`",
            "With `starttls_outbound: required`, how the smart host's certificate is checked: also `trusted_chain`, `hostname`.",
        ),
        "starttls_exchange_tls_domain": Variable("the smart host", "With `hostname`, the name that has to be in it."),
        "starttls_exchange_send_certificate": Variable(
            "`false`", "Whether the send connectors present the certificate as well."
        ),
        "starttls_exchange_certificate_on": Variable(
            "none", "Other Exchange servers that have the certificate already, for send connectors that they share."
        ),
        "starttls_exchange_fqdn": Variable(
            "the server's name", "The name in the greeting of the connectors that the collection makes."
        ),
        "starttls_exchange_internal_certificate": Variable(
            "`false`",
            "Whether the certificate may become the internal transport certificate. Microsoft advises against it.",
        ),
        "starttls_exchange_remove_former": Variable(
            "`false`", "Whether a renewal removes the former certificate once nothing uses it."
        ),
        "starttls_exchange_ecc": Variable(
            "`false`", "Whether the key may be one of an elliptic curve, which Exchange takes after a setting only."
        ),
        "starttls_exchange_wait": Variable("120", "Seconds to wait until the wire shows a change."),
        "starttls_exchange_proof_host": Variable(
            "the first gateway", "The host that makes the handshake test which proves a change."
        ),
        "starttls_exchange_journal": Variable(
            "`~/.local/state/mailfleet-starttls`",
            "A directory on the controller, which keeps how a change is undone, and what was there before the first one.",
        ),
    },
    "Certificates. Files are on the controller: searched as the module `copy` does, and where Ansible was started": {
        "starttls_private_key_file": Variable(
            "none", "The private key without a passphrase. The file may be an Ansible Vault file."
        ),
        "starttls_private_key_content": Variable(
            "none", "The private key as text, instead of the file. Keep it in Ansible Vault."
        ),
        "starttls_certificate_file": Variable(
            "none", "The certificate. The chain may follow it, as in `fullchain.pem`."
        ),
        "starttls_certificate_content": Variable("none", "The certificate as text, instead of the file."),
        "starttls_chain_file": Variable("none", "The intermediate certificates."),
        "starttls_chain_content": Variable("none", "The intermediate certificates as text."),
        "starttls_ca_file": Variable(
            "the system's",
            "Roots of a private authority. The chain has to end at one of them, and the handshake tests trust them.",
        ),
        "starttls_ca_content": Variable("the system's", "The same roots as text, instead of the file."),
        "starttls_certificate_names": Variable("`[starttls_hostname]`", "The names that the certificate has to cover."),
        "starttls_certificate_path": Variable("`/etc/mailfleet/starttls.pem`", "The path of the PEM file on the host."),
        "starttls_certificate_source": Variable(
            "`files`",
            "Where the certificate comes from, see [docs/certificates.md](docs/certificates.md). `files`, `content` (text from a vault) "
            "and `pkcs12`: from the controller. `host`: the files at `starttls_certificate_path` are there already, as those of certbot; "
            "they are judged and used, and never written. `command`, `csr` and `acme`: issued for a key that is made on the host.",
        ),
        "starttls_pkcs12_file": Variable("none", "With `pkcs12`: key and certificates as one `.p12` or `.pfx` file."),
        "starttls_pkcs12_content": Variable("none", "The same file as text in base64. Keep it in Ansible Vault."),
        "starttls_pkcs12_password": Variable("none", "Its password. Keep it in Ansible Vault."),
        "starttls_more_certificates": Variable(
            "none",
            "Further certificates for the same names with keys of other algorithms, served side by side: a list, each with "
            "`private_key_file` and `certificate_file`, or the like. With `host`: `certificate_path`, and `private_key_path` if the key "
            "has a file of its own. An entry with `ports` is served by the listeners on these ports alone, and may have `names` of its "
            "own.",
        ),
        "starttls_key_types": Variable(
            "`[ecdsa]`",
            "With `command`, `csr` and `acme`: the algorithms of the keys, `ecdsa` and `rsa`; one certificate for each.",
        ),
        "starttls_certificate_command": Variable(
            "none",
            "With `command`: a program on the controller, as a list of words. It gets a request (CSR) on its standard input and returns "
            "the chain.",
        ),
        "starttls_csr_file": Variable(
            "the first name, with `.csr`",
            "With `csr`: the file on the controller that `rotate_certificate` writes the request to, relative to where Ansible was "
            "started.",
        ),
        "starttls_renew_days": Variable(
            "a third of its life", "With `command`, `csr` and `acme`: a certificate with fewer days left is renewed."
        ),
        "starttls_acme_challenge": Variable(
            "none", "With `acme`: how a name is proved: `webroot`, `standalone` (port 80), or `rfc2136` (the DNS)."
        ),
        "starttls_acme_webroot": Variable("none", "With `webroot`: the document root of the web server on the host."),
        "starttls_acme_dns_credentials": Variable(
            "none", "With `rfc2136`: the file on the host with server and key for dynamic updates, for root alone."
        ),
        "starttls_acme_email": Variable("none", "The address that the ACME authority writes to."),
        "starttls_acme_server": Variable("certbot's", "The address of the authority's ACME directory."),
        "starttls_acme_ca_file": Variable(
            "the system's", "A file on the host with roots for the web server of a private ACME authority."
        ),
        "starttls_acme_install": Variable("false", "Whether the package certbot is installed where it is missing."),
        "starttls_check_tlsa": Variable(
            "false; `rotate_certificate`: true",
            "Refuse a certificate that the published TLSA records do not fit, and name the record to publish first. "
            "The renewal hook does so unless it is false by name.",
        ),
        "starttls_private_key_path": Variable(
            "in `starttls_certificate_path`",
            "With `host`: the path of the private key on the host, if it has a file of its own.",
        ),
        "starttls_certificate_owner": Variable("root", "The user who owns it."),
        "starttls_certificate_group": Variable("as the mail server needs", "Its group."),
        "starttls_certificate_mode": Variable("as the mail server needs", "Its permissions, as a quoted octal string."),
        "starttls_certificate_min_days_left": Variable(
            "a tenth of its life", "A certificate with fewer days left is not installed."
        ),
        "starttls_certificate_replace": Variable(
            "false", "Replace a certificate on the host that ends later than the one of the run."
        ),
        "starttls_allow_self_signed": Variable("false", "Install a certificate that is signed by itself."),
    },
    "The gateway": {
        "starttls_accept": Variable(
            "unchanged",
            "The connections that the gateway accepts from the mail servers: `plaintext`, `both`, `tls_only`.",
        ),
        "starttls_send": Variable("`opportunistic`", "The TLS mode for mail to the internet: a delivery mode."),
        "starttls_mail_servers": Variable("none", "Addresses and networks that the mail servers connect from."),
        "starttls_enforced_domains": Variable(
            "none", "Domains for which the gateway requires TLS, see the role [gateway](roles/gateway/README.md)."
        ),
        "starttls_enforced_ca_file": Variable(
            "unchanged", "The CA file for certificate checks: a path on the gateway."
        ),
        "starttls_reinjection_port": Variable(
            "10125", "The first of three free ports on 127.0.0.1, on a Postfix gateway; of seven with a content filter."
        ),
        "starttls_tls_filter": Variable(
            "none",
            "A second port of the content filter of a Postfix gateway, like `scan:[127.0.0.1]:10026`. Not for amavis.",
        ),
        "starttls_config_dir": Variable("`/etc/haraka`", "The directory that holds Haraka's `config` directory."),
        "starttls_exim_split": Variable(
            "false",
            "Whether a host whose Exim has Debian's unsplit configuration may be moved to the split one, for a gateway and for peers.",
        ),
        "starttls_api_url": Variable(
            "`MAILFLEET_API_URL_NAME`, `MAILFLEET_API_URL`",
            "The address of the gateway's API. The default is an environment variable of the controller; `NAME` is the gateway's "
            "inventory name, `GW1_EXAMPLE_COM` for `gw1.example.com`.",
        ),
        "starttls_api_user": Variable(
            "`MAILFLEET_API_USER_NAME`, `MAILFLEET_API_USER`", "The user of the API, with its realm."
        ),
        "starttls_api_password": Variable(
            "`MAILFLEET_API_PASSWORD_NAME`, `MAILFLEET_API_PASSWORD`", "The user's password, from a vault."
        ),
        "starttls_api_key": Variable(
            "`MAILFLEET_API_KEY_NAME`, `MAILFLEET_API_KEY`", "The key of the API, from a vault."
        ),
        "starttls_api_ca_path": Variable("the system's", "Roots for the certificate of the API."),
        "starttls_validate_certs": Variable("true", "Whether the certificate of the API has to be valid."),
    },
    "Test messages": {
        "starttls_trace_address": Variable(
            "none", "An address whose mail arrives on the host. Without it the host gets no test message."
        ),
        "starttls_mailbox": Variable("`/var/mail/trace`", "The mbox file or Maildir for that mail."),
        "starttls_landing": Variable(
            "none",
            "The place of that mail if it is not a file: a mapping with `imap` or `command`, as `message_trace` takes them.",
        ),
        "starttls_outside_host": Variable(
            "the first of `mail_outside`", "The host outside the fleet. Empty: no messages."
        ),
        "starttls_send_messages": Variable("true", "Whether `verify_tls` sends messages."),
        "starttls_verify_ports": Variable(
            "all", "The ports whose listeners `verify_tls` tests, each from its own host, besides the mail port."
        ),
        "starttls_message_timeout": Variable("60", "Seconds to wait for a message."),
    },
    "The run": {
        "starttls_batches": Variable("`[1, '25%', '100%']`", "Size of the canary and of the batches after it."),
        "starttls_confirmed": Variable(
            "none",
            "The steps that you made by hand at a gateway that is not in the inventory: `[modes]`, and before TLS goes off `[modes_off]`. "
            "The run goes on behind them.",
        ),
        "starttls_plan_fail_on": Variable(
            "`blocked`",
            "The result with which a plan fails that no change follows: `drift`, `blocked` (also if a host is unknown), `never`.",
        ),
        "starttls_plan_file": Variable(
            "none", "A file on the controller for the plan as JSON. A relative path starts where Ansible was started."
        ),
        "starttls_require_without_evidence": Variable(
            "false",
            "Make a change even without evidence that the other side supports it. Mail may be deferred.",
        ),
        "starttls_lock_hours": Variable(
            "6",
            "Hours after which the lock of a run on the fleet does not count any more, see [below](#one-run-at-a-time).",
        ),
        "starttls_lock_break": Variable(
            "false", "Take the lock of the fleet although another run has it: for one run, after one that was killed."
        ),
        "starttls_timeout": Variable("20", "Seconds to wait for a reloaded daemon."),
        "starttls_uninstall_keep": Variable("none", "Files on the host that `uninstall` leaves as they are."),
        "starttls_queue_timeout": Variable(
            "300",
            "Seconds to wait until no mail waits for what is removed from a gateway, or for a removed peer. Then the run refuses.",
        ),
        "starttls_recovery_file": Variable(
            "none", "For `recover_deferred_mail`: a file on the controller for the queues before and after, as JSON."
        ),
        "starttls_email_config": Variable("none", "For `set_delivery_mode`: the name of an email config."),
        "starttls_delivery_mode": Variable("none", "For `set_delivery_mode`: its new delivery mode."),
        "starttls_gateways": Variable(
            "none",
            "The names of all gateways. A run that changes hosts is refused if its inventory lacks one, as a slice of an AWX job may.",
        ),
        "starttls_changes": Variable(
            "none",
            "For `undo_workflow`: what the workflow has changed, as its jobs hand it on. In AWX it needs no setting.",
        ),
        "starttls_result": Variable(
            "none", "What a job of a workflow hands on: figures, findings and alerts. Nothing reads it."
        ),
    },
    "Handshake tests": {
        "starttls_fail_on": Variable(
            "`error`; `report_tls`: `none`",
            "The lowest severity of a finding that fails a run: `error`, `warning`, `notice`.",
        ),
        "starttls_checks": Variable(
            "none", "Further checks: `versions`, `injection`, `resumption`, `large_hello`, `dane`, `mta_sts`."
        ),
        "starttls_resolver": Variable("the controller's", "DNS servers for `dane` and `mta_sts`."),
        "starttls_require_trusted": Variable("true", "Whether a chain that is not trusted is a finding."),
        "starttls_min_tls_version": Variable(
            "`starttls_min_tls`, else TLSv1.2",
            "An agreed TLS version that is older is a finding. It changes no setting: that does `starttls_min_tls`.",
        ),
        "starttls_min_days_left": Variable(
            "a tenth of its life", "A served certificate with fewer days left is an error."
        ),
        "starttls_warn_days_left": Variable(
            "a third of its life", "A served certificate with fewer days left is a warning."
        ),
        "starttls_probe_timeout": Variable("15", "Seconds that each stage of a handshake test may take."),
    },
    "Reports": {
        "starttls_report_directory": Variable(
            "`reports`; `verify_tls`: none",
            "A directory on the controller. A relative path starts where Ansible was started.",
        ),
        "starttls_report_formats": Variable(
            "all; `verify_tls`: `html`", "`html`, `json`, `csv`, `junit`, `prometheus`."
        ),
        "starttls_report_since": Variable(
            "24h", "The period of the report of `report_tls`: `24h`, `7d`, or a start date."
        ),
        "starttls_report_received": Variable(
            "none",
            "Received TLS reports (RFC 8460), as paths on the controller, relative to where Ansible was started.",
        ),
        "starttls_report_url": Variable(
            "none", "Each report is sent there by PUT, as the URL, a slash and the name of the file."
        ),
        "starttls_report_token": Variable(
            "`MAILFLEET_REPORT_TOKEN`",
            "A bearer token for that, from a vault. The default is an environment variable of the controller.",
        ),
        "starttls_report_parts": Variable(
            "none",
            "For `report_tls`: reports of other runs in their JSON form, as paths or patterns. They become one, and no host is read.",
        ),
        "starttls_logs": Variable(
            "what the daemon says", "Log files, directories or named pipes on the host, also compressed ones."
        ),
    },
}
"""Heading -> variable -> its default and its meaning."""

VARIABLES = {name: variable for section in SECTIONS.values() for name, variable in section.items()}


def check_variables(host: str, facts: Mapping[str, Any]) -> None:
    """Raise EngineError if a host has an unknown variable with the prefix. Other variables are ignored."""
    for name in facts:
        if name.startswith(PREFIX) and name not in VARIABLES:
            near = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.6)
            advice = f"did you mean {near[0]}?" if near else "README has the list of all variables"
            raise EngineError(f"{host} has the variable {name}, which does not exist; {advice}")


def given(value: Any, default: Any) -> Any:
    """Return the value of a variable, or the default if it is not set. Unlike Jinja's C(default), 0 and false are values.

    A question that nobody answered in AWX is an empty text; ansible-core 2.19 and newer read it as null.
    """
    return default if value is None or value == "" else value


def listed(value: Any) -> list[Any]:
    """Return the value of a variable that is a list. A survey of AWX gives text: its items are divided by commas or line breaks."""
    if isinstance(value, str):
        return [item for item in map(str.strip, re.split(r"[,\n]", value)) if item]
    if isinstance(value, (list, tuple)):
        return list(value)
    return [] if value is None else [value]
