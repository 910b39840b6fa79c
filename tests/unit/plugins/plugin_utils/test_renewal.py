"""What the renewal hook is told of a host: every listener that serves the certificate, also after the first change."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.renewal import renewed_here

PEM, SECOND = "/etc/mailfleet/starttls.pem", "/etc/mailfleet/starttls-2.pem"
PORTS = {25: ("none", "offered"), 587: ("none", "offered"), 465: ("implicit", "implicit")}


def hostvars(**results):
    """A host whose mail server offered nothing when it was read."""
    seen = {
        "listeners": [
            {"service": f"port {port}", "host": "", "port": port, "tls": tls, "certificates": [], "overrides": {}}
            for port, (tls, _after) in PORTS.items()
        ],
        "reach": {
            "listeners": [
                {"service": f"port {port}", "host": "", "port": port, "before": tls, "after": after, "certificates": [PEM, SECOND]}
                for port, (tls, after) in PORTS.items()
            ],
        },
    }  # fmt: skip
    return {"mx1": {"starttls_hostname": "mx1.example.com", "starttls_certificate_source": "acme",
                    "starttls_key_types": ["ecdsa", "rsa"], "mail_server_observed": seen, **results}}  # fmt: skip


def places(**results):
    [found] = renewed_here("mx1", hostvars(**results))
    return sorted((one["port"], one["protocol"]) for one in found["listeners"])


def test_the_first_run_names_every_listener_that_its_change_has_left():
    done = {"changed": True, "after": {"inbound": "offered"}}
    assert places(mail_server_result=done) == [(25, "smtp"), (465, "smtps"), (587, "smtp")]


@pytest.mark.parametrize("result", [{}, {"changed": False}, {"changed": True, "failed": True}])
def test_what_was_not_changed_is_as_it_was_read(result):
    assert places(mail_server_result=result) == [(465, "smtps")]


def test_both_algorithms_have_their_files():
    [found] = renewed_here("mx1", hostvars())
    assert [(one["certificate"], one["path"]) for one in found["pairs"]] == [
        ("/etc/letsencrypt/live/mx1.example.com/fullchain.pem", PEM),
        ("/etc/letsencrypt/live/mx1.example.com-rsa/fullchain.pem", SECOND),
    ]
