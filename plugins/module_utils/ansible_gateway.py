# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The link between AnsibleModule and the engine of the gateways: the options of all gateway modules, and the API client."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Optional
from urllib.error import HTTPError

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.api import Http, Response, answered_within
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    ACCEPTS,
    CERTIFICATE_CHECKS,
    DIRECTIONS,
    MODES,
    SENDS,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import runner
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.gateway import GATEWAYS, Access
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import product_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import API_ANSWER_BYTES, QUEUE_SECONDS

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import Gateway

# The gateway and the access to it. What is not given of the API comes from the environment of the controller, in the action plugin.
ACCESS_SPEC: dict[str, dict[str, Any]] = {
    "gateway": {"type": "str", "default": "postfix"},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 25},
    "reinjection_port": {"type": "int", "default": 10125},
    "tls_filter": {"type": "str"},
    "config_dir": {"type": "path", "default": "/etc/haraka"},
    "exim_split": {"type": "bool", "default": False},
    "api_url": {"type": "str"},
    "api_user": {"type": "str"},
    "api_password": {"type": "str", "no_log": True},
    "api_key": {"type": "str", "no_log": True},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "timeout": {"type": "int", "default": 20},
}
CHANGE_SPEC: dict[str, dict[str, Any]] = {
    **ACCESS_SPEC,
    "require_without_evidence": {"type": "bool", "default": False},
}
STATE_SPEC: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
QUEUE_SPEC: dict[str, dict[str, Any]] = {
    "queue_timeout": {"type": "int", "default": QUEUE_SECONDS},
}
CONFIG_SPEC: dict[str, dict[str, Any]] = {
    "name": {"type": "str"},
    "domains": {"type": "list", "elements": "str"},
    "servers": {"type": "list", "elements": "str"},
    "delivery_mode": {"type": "str", "choices": list(MODES)},
}
CONFIGS_SPEC: dict[str, dict[str, Any]] = {
    "email_configs": {
        "type": "list",
        "elements": "dict",
        "options": {**CONFIG_SPEC, "name": {"type": "str", "required": True}, **STATE_SPEC},
    },
}
OUTBOUND_SPEC: dict[str, dict[str, Any]] = {
    "accept": {"type": "str", "choices": list(ACCEPTS)},
    "send": {"type": "str", "choices": list(SENDS)},
    "mail_servers": {"type": "list", "elements": "str"},
}
DOMAIN_SPEC: dict[str, dict[str, Any]] = {
    "domain": {"type": "str"},
    "direction": {"type": "str", "choices": list(DIRECTIONS)},
    "certificate_check": {"type": "str", "choices": list(CERTIFICATE_CHECKS)},
    "servers": {"type": "list", "elements": "str"},
}
DOMAINS_SPEC: dict[str, dict[str, Any]] = {
    "enforced_domains": {
        "type": "list",
        "elements": "dict",
        "options": {
            **DOMAIN_SPEC,
            **{name: {**DOMAIN_SPEC[name], "required": True} for name in ("domain", "direction")},
            **STATE_SPEC,
        },
    },
}
# The whole wanted state of a gateway. What is not given stays.
WANTED_SPEC: dict[str, dict[str, Any]] = {
    **CONFIGS_SPEC,
    "state": {"type": "str", "choices": ["present", "plaintext", "absent"], "default": "present"},
    **OUTBOUND_SPEC,
    **DOMAINS_SPEC,
    "enforced_ca_file": {"type": "path"},
    "keep": {"type": "list", "elements": "path"},
}


def http_client(module: AnsibleModule) -> Http:
    """Return the engine's HTTP client. It verifies TLS unless the options say otherwise.

    It follows no redirects and ignores the proxies of the environment.
    """

    def http(method: str, url: str, headers: Mapping[str, str], body: Optional[bytes]) -> Response:
        from ansible.module_utils.urls import open_url  # noqa: PLC0415  (it costs 35 ms, and few gateways have an API)

        def ask() -> Response:
            try:
                answer = open_url(
                    url,
                    data=body,
                    headers=dict(headers),
                    method=method,
                    timeout=module.params["timeout"],
                    validate_certs=module.params["validate_certs"],
                    ca_path=module.params["ca_path"],
                    follow_redirects="none",
                    use_proxy=False,
                    use_netrc=False,  # a netrc file would add other credentials
                )
            except HTTPError as error:
                answer = error
            except (HTTPException, ValueError) as error:
                raise OSError(f"{type(error).__name__} in the answer") from error
            return Response(
                answer.getcode(),
                answer.read(API_ANSWER_BYTES + 1),
                {name.lower(): value for name, value in answer.headers.items()},
            )

        return answered_within(module.params["timeout"], ask)

    return http


def gateway_of(module: AnsibleModule) -> tuple[Gateway, Settings]:
    """Return the adapter for a module's options, and the settings of its handshakes. Raises EngineError, TargetError."""
    options = module.params
    own_port = Target(options["address"], options["port"])
    own_port.check()
    settings = Settings(timeout=float(options["timeout"]), verify_trust=False)
    kind = options["gateway"]
    product_of(kind, "gateway", "gateway")
    access = Access(
        runner(module),
        http_client(module),
        own_port,
        options["reinjection_port"],
        options["config_dir"],
        options["api_url"] or "",
        options["api_user"] or "",
        options["api_password"] or "",
        options["api_key"] or "",
        options["exim_split"],
        options["tls_filter"] or "",
    )
    return GATEWAYS[kind](access, settings), settings


def change_options(module: AnsibleModule) -> dict[str, Any]:
    """Return the common options of a change as keyword arguments of the engine."""
    return {
        "absent": module.params["state"] == "absent",
        "require_without_evidence": module.params["require_without_evidence"],
        "check_mode": module.check_mode,
    }
