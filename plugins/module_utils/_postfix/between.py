# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hops between the instances of a Postfix gateway, over the loopback.

What the first instance has checked is not checked again, so these ports must take mail from our instances only, and any
local user can connect to them. An own certificate, whose key only root can read, says who is who on both sides: a
session begins with TLS, and without the certificate it ends there. Sources: TLS_README, postconf(5).
"""

from __future__ import annotations

import smtplib
import ssl
import time

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import printable_bytes
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import PAUSE, bytes_of, says_busy, told
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

NAME = "instances.mailfleet-starttls.invalid"
"""The name in the certificate. Nobody else can get a certificate that these ports accept, whatever its name."""

DAYS = 36500
SIZE_MARGIN = 1024 * 1024
"""How much longer than on the first instance a message may be, in bytes: each hop adds header lines."""

_KEY_ALONE = (
    "cert_file",
    "key_file",
    "eccert_file",
    "eckey_file",
    "CApath",
    "exclude_ciphers",
    "mandatory_exclude_ciphers",
)


def listener(pair: str, size_limit: str) -> dict[str, str]:
    """Return the settings of a port that takes mail from our instances only. pair: path of the PEM file with key and certificate.

    size_limit: message_size_limit of the first instance.
    """
    return {
        "smtpd_tls_wrappermode": "yes",
        "smtpd_tls_security_level": "encrypt",
        "smtpd_tls_req_ccert": "yes",
        "smtpd_tls_chain_files": pair,
        "smtpd_tls_CAfile": pair,
        "tls_append_default_CA": "no",  # or whoever has a certificate for clients could connect
        **{f"smtpd_tls_{name}": "" for name in _KEY_ALONE},
        # No session of another port goes on here, whatever certificate it began with.
        "smtpd_tls_session_cache_timeout": "0",
        "smtpd_tls_session_cache_database": "",
        "tls_ssl_options": "NO_TICKET",
        "smtpd_tls_loglevel": "0",
        "smtpd_tls_received_header": "no",
        "smtpd_client_restrictions": "",
        "smtpd_helo_restrictions": "",
        "smtpd_sender_restrictions": "",
        "smtpd_relay_restrictions": "permit_tls_all_clientcerts,defer",
        "smtpd_recipient_restrictions": "",
        "smtpd_data_restrictions": "",
        "smtpd_end_of_data_restrictions": "",
        "mynetworks": "",
        "smtpd_client_event_limit_exceptions": "127.0.0.0/8",
        "smtpd_authorized_xforward_hosts": "127.0.0.0/8",
        "receive_override_options": "no_unknown_recipient_checks,no_address_mappings,no_header_body_checks,no_milters",
        "message_size_limit": longer(size_limit),
    }


def longer(size_limit: str) -> str:
    """Return the message_size_limit of the other instances. Without a limit on the first one, they have none either."""
    return str(int(size_limit) + SIZE_MARGIN) if size_limit.isdigit() and int(size_limit) else "0"


def client(pair: str) -> dict[str, str]:
    """Return the settings of a transport to such a port. It sends mail to the holder of the certificate only."""
    return {
        "smtp_tls_wrappermode": "yes",
        "smtp_tls_security_level": "secure",
        "smtp_tls_secure_cert_match": NAME,
        "smtp_tls_policy_maps": "",
        "smtp_tls_chain_files": pair,
        "smtp_tls_CAfile": pair,
        "tls_append_default_CA": "no",
        **{f"smtp_tls_{name}": "" for name in _KEY_ALONE},
        "smtp_tls_loglevel": "0",
        "smtp_tls_session_cache_database": "",
        "smtp_tls_connection_reuse": "no",  # tlsproxy(8) opens the key without the right to
        "smtp_fallback_relay": "",
        "smtp_generic_maps": "",
        "disable_mime_output_conversion": "yes",
        "smtp_send_xforward_command": "yes",
        "smtp_bind_address": "127.0.0.1",
    }


def new_pair(run: Runner) -> bytes:
    """Return a new key and its certificate as PEM. Raises EngineError. The key is on this host only, and in no file yet."""
    subject = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    try:
        status, out, err = run(["openssl", "req", "-x509", *kind, "-keyout", "-", "-days", str(DAYS), *subject])
    except FileNotFoundError:
        status, out, err = 127, "", "it is not installed; install the package openssl"
    if status != 0 or not is_pair(out.encode()):
        raise EngineError(
            f"openssl cannot make the certificate of the other instances: {err.strip() or 'it gives no reason'}"
        )
    return out.encode()


def is_pair(content: bytes) -> bool:
    """Whether a file holds a key and a certificate, by its marks."""
    return b"PRIVATE KEY-----" in content and b"-----END CERTIFICATE-----" in content


def fault(port: Target, pair: str, settings: Settings) -> str:
    """Return why an instance does not answer EHLO to the holder of the certificate on a port; empty if it does.

    One that is busy is asked once more.
    """
    first = _fault(port, pair, settings)
    if not (says_busy(first) or first == "timed out"):
        return first
    time.sleep(PAUSE)
    second = _fault(port, pair, settings)
    settings.told.append(told(port, first, second))
    return second


def _fault(port: Target, pair: str, settings: Settings) -> str:
    try:
        context = ssl.create_default_context(cafile=pair)
        context.load_cert_chain(pair)
        with smtplib.SMTP_SSL(
            port.host, port.port, settings.helo_name or None, timeout=settings.timeout, context=context
        ) as session:
            code, text = session.ehlo()
    except smtplib.SMTPConnectError as error:
        return f"{error.smtp_code} {printable_bytes(bytes_of(error.smtp_error))}"
    except (OSError, smtplib.SMTPException) as error:
        return str(error) or type(error).__name__
    return "" if code == 250 else f"{code} {text!r}"


def prove(port: Target, pair: str, settings: Settings) -> None:
    """Raise EngineError unless the instance answers on its port within the timeout."""
    deadline = time.monotonic() + settings.timeout
    while reason := fault(port, pair, settings):
        if time.monotonic() >= deadline:
            raise EngineError(f"the gateway does not answer on {port} after the change: {reason}")
        time.sleep(0.1)
