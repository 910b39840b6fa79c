# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a key on this host and the request for its certificate, or has certbot do both. The key never leaves the host.

A key waits in the store until its certificate is installed. So a request that was sent to an authority stays good over any number of
runs, and the TLSA record of the next key can be published before it is used.
"""

from __future__ import annotations

import ipaddress
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.due import (
    ACME,
    DNS,
    DNS_PACKAGE,
    LIVE,
    Issue,
    has_dns_plugin,
    look,
    program,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import seen_on_host
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE, host_locked
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

ISSUING = "MAILFLEET_ISSUING=1"
"""Tells the collection's deploy hook (_host/renewal_files.py) to do nothing: it would wait for the lock of the call that waits for it."""
_SECONDS = 60.0
_COMMON_NAME = 64
"""The longest common name that X.509 has room for."""
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NEW_KEY: Mapping[str, Sequence[str]] = {
    "ecdsa": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:named_curve"),
    "rsa": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"),
}
_SAID = 600


def issue(wanted: Issue, run: Runner, check_mode: bool, store: str = STORE, live: str = LIVE) -> dict[str, Any]:
    """Return C(changed) and C(issued): what due.look() says of each certificate, with what was made for those that are due.

    Of C(command) and C(csr) that is C(key), the path of the key that waits, and C(csr). Of C(acme) it is C(key), and C(issued), the
    certificates as PEM. Raises EngineError.
    """
    check_names(wanted.names)
    if wanted.source == ACME and not wanted.challenge:
        raise EngineError("starttls_acme_challenge is needed: webroot, standalone or rfc2136")
    parts = look(wanted, store=store, live=live)
    asks = wanted.source != "csr" or wanted.orders
    due = [place for place, part in enumerate(parts) if part["due"] and asks]
    problem = next((parts[place]["message"] for place in due if parts[place]["message"]), "")
    if problem and not check_mode:
        raise EngineError(str(problem))
    if check_mode or not due:
        return {"changed": False, "issued": parts}
    if os.geteuid():
        raise EngineError("only root can make keys; set 'become: true'")
    changed = False
    with host_locked(store):
        for place in due:
            part = parts[place]
            if part.get("issued"):
                continue
            if wanted.source == ACME:
                part.update(_by_certbot(wanted, place, bool(part["anew"]), run, live))
                changed = True
                continue
            key = wanted.pending(str(part["path"]), store)
            if not part["pending"]:
                changed = True
                FileImage(key, _new_key(wanted.key_types[place]), 0o600, 0, 0, secret=True).write()
                part["pending"] = _known(key)
            part["key"] = key
            part["csr"] = _request(key, wanted.names)
    return {"changed": changed, "issued": parts}


def _known(key: str) -> str:
    seen = seen_on_host(key, key, certificates=False)
    if seen["message"]:
        raise EngineError(f"the new key cannot be read: {seen['message']}")
    return str(seen["public_key"])


def check_names(names: Sequence[str]) -> None:
    """Raise EngineError for a name that could mean something else in a request than itself."""
    if not names:
        raise EngineError(
            "names is empty: give the names that the certificate has to cover (starttls_certificate_names)"
        )
    for name in names:
        labels = name[2:].split(".") if name.startswith("*.") else name.split(".")
        if not (_is_address(name) or (len(name) <= 253 and all(map(_LABEL.fullmatch, labels)))):
            raise EngineError(f"the name {name!a} cannot stand in a request; correct starttls_certificate_names")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _new_key(kind: str) -> bytes:
    return _openssl("genpkey", *_NEW_KEY[kind])


def _request(key: str, names: Sequence[str]) -> str:
    """Return the request (CSR) for a key, as PEM. Names have been checked: no character of them means anything to openssl."""
    first = names[0]
    subject = f"/CN={first}" if len(first) <= _COMMON_NAME and not _is_address(first) else "/"
    alternatives = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names)
    config = f"[req]\ndistinguished_name = dn\nreq_extensions = ext\n[dn]\n[ext]\nsubjectAltName = {alternatives}\n"
    text = _openssl("req", "-new", "-config", "/dev/stdin", "-key", key, "-subj", subject, "-sha256", given=config)
    return text.decode("ascii", "replace")


def _openssl(*words: str, given: str = "") -> bytes:
    found = program("openssl")
    if not found:
        raise EngineError("the program openssl is not on the host: install the package openssl")
    try:
        made = subprocess.run(  # noqa: S603  (words that were checked, and no shell)
            [found, *words], input=given.encode("ascii"), capture_output=True, timeout=_SECONDS, check=False,
            env={"LC_ALL": "C", "OPENSSL_CONF": "/dev/null"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"openssl {words[0]} does not run: {type(error).__name__}") from error
    if made.returncode or b"-----BEGIN " not in made.stdout:
        said = made.stderr.decode("utf-8", "replace").strip().splitlines()
        raise EngineError(f"openssl {words[0]} failed: {said[-1][:_SAID] if said else 'it said nothing'}")
    return made.stdout


def certbot_words(wanted: Issue, place: int, anew: bool) -> list[str]:
    """Return the command that has certbot issue a certificate. anew: whether the one that it may have does not do."""
    command = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--cert-name", wanted.lineage(place)]
    command += ["--key-type", wanted.key_types[place], "--renew-with-new-domains"]
    command += ["--email", wanted.email] if wanted.email else ["--register-unsafely-without-email"]
    command += ["--server", wanted.server] if wanted.server else []
    command += {
        "webroot": ["--webroot", "--webroot-path", wanted.webroot],
        "standalone": ["--standalone"],
        DNS: ["--dns-rfc2136", "--dns-rfc2136-credentials", wanted.credentials],
    }[wanted.challenge]
    command += ["--force-renewal" if anew else "--keep-until-expiring"]
    command += [word for one in wanted.names for word in ("--domain", one)]
    return ["env", ISSUING, *([f"REQUESTS_CA_BUNDLE={wanted.ca_file}"] if wanted.ca_file else []), *command]


def _by_certbot(wanted: Issue, place: int, anew: bool, run: Runner, live: str) -> dict[str, Any]:
    """Have certbot issue, and return C(key) and C(issued). Raises EngineError."""
    _install(wanted, run)
    name = wanted.lineage(place)
    status, out, err = run(certbot_words(wanted, place, anew))
    if status:
        raise EngineError(f"certbot has not issued the certificate {name}: {_words(f'{out}{err}')}")
    chain, key = f"{live}/{name}/fullchain.pem", f"{live}/{name}/privkey.pem"
    seen = seen_on_host(chain, key)
    if seen["message"]:
        raise EngineError(f"certbot says that it has issued the certificate {name}, and {seen['message']}")
    return {"key": key, "issued": seen["pem"], "pending": seen["public_key"]}


def _install(wanted: Issue, run: Runner) -> None:
    packages = [] if program("certbot") else ["certbot"]
    packages += [DNS_PACKAGE] if wanted.challenge == DNS and not has_dns_plugin() else []
    if not packages:
        return
    tool = next(filter(program, ("apt-get", "dnf")), "")
    quiet = {"apt-get": ["-y", "--no-install-recommends", "install"], "dnf": ["-y", "install"]}.get(tool)
    if not quiet:
        raise EngineError(f"this host has neither apt-get nor dnf: install {' and '.join(packages)} by hand")
    status, out, err = run(["env", "DEBIAN_FRONTEND=noninteractive", tool, *quiet, *packages])
    if status:
        raise EngineError(f"{' and '.join(packages)} cannot be installed: {_words(err or out)}")


def _words(text: str) -> str:
    """Return what a program said about its failure, in one line. The hints at its log and its forum are left out."""
    lines = [one.strip() for one in text.splitlines() if one.strip()]
    told: Optional[list[str]] = [
        one for one in lines if not re.match(r"(Saving debug log|Ask for help|See the log|Some challenges|- - )", one)
    ]
    return " ".join(told or lines)[-_SAID:] or "it said nothing"
