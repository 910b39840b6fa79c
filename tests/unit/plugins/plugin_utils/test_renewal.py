"""What the renewal hook of a host is given: whose files, where they are installed, and which listeners have to serve them."""

from __future__ import annotations

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.configuration import check_name
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.renewal import (
    past_renewing,
    renewed_here,
    renewing,
    requesting,
    waiting_hosts,
)

ON = {"inbound": "offered", "outbound": "opportunistic"}
PATH = "/etc/mailfleet/starttls.pem"


def listener(port, tls, *certificates, host=""):
    return {
        "service": str(port),
        "host": host,
        "port": port,
        "tls": tls,
        "certificates": list(certificates),
        "overrides": {},
    }


def host(source="acme", listeners=(), before=None, **facts):
    seen = {"before": before or ON, "listeners": list(listeners), "published_tlsa": []}
    return {
        "starttls_hostname": "mx1.example.com",
        "starttls_certificate_source": source,
        "mail_server_observed": seen,
        **facts,
    }


def test_acme_is_installed_where_the_daemon_reads_it():
    facts = host(
        listeners=[
            listener(25, "offered", PATH),
            listener(465, "implicit", PATH),
            listener(587, "required", "/etc/own.pem"),
        ]
    )
    [made] = renewed_here("m1", {"m1": {**facts, "starttls_key_types": ["ecdsa", "rsa"]}}, "ROOTS")
    live = "/etc/letsencrypt/live/mx1.example.com"
    assert made["pairs"] == [
        {"private_key": f"{live}/privkey.pem", "certificate": f"{live}/fullchain.pem", "path": PATH},
        {
            "private_key": f"{live}-rsa/privkey.pem",
            "certificate": f"{live}-rsa/fullchain.pem",
            "path": "/etc/mailfleet/starttls-2.pem",
        },
    ]
    assert [(one["port"], one["protocol"]) for one in made["listeners"]] == [(25, "smtp"), (465, "smtps")]
    assert (made["names"], made["ca_content"]) == (["mx1.example.com"], "ROOTS")


@pytest.mark.parametrize(
    ("result", "ports"),
    [
        ({"changed": True, "after": ON}, [(25, "smtp"), (465, "smtps"), (587, "smtp")]),
        ({}, [(465, "smtps")]), ({"changed": False}, [(465, "smtps")]), ({"changed": True, "failed": True}, [(465, "smtps")]),
    ],
)  # fmt: skip
def test_the_first_run_names_every_listener_that_its_change_has_left(result, ports):
    """The host was read before TLS was switched on, and told then what the change would reach."""
    before = {25: "none", 465: "implicit", 587: "none"}
    after = {25: "offered", 465: "implicit", 587: "offered"}
    facts = host(listeners=[listener(port, tls) for port, tls in before.items()], mail_server_result=result)
    facts["mail_server_observed"]["reach"] = {
        "listeners": [
            {
                "service": str(port),
                "host": "",
                "port": port,
                "before": before[port],
                "after": tls,
                "certificates": [PATH],
            }
            for port, tls in after.items()
        ]
    }
    [made] = renewed_here("m1", {"m1": facts})
    assert sorted((one["port"], one["protocol"]) for one in made["listeners"]) == ports


def test_files_of_somebody_else_are_installed_nowhere():
    facts = host(
        "host",
        starttls_certificate_path="/live/fullchain.pem",
        starttls_private_key_path="/live/privkey.pem",
        starttls_warn_days_left="5",
        starttls_certificate_names="mx1.example.com, mail.example.com",
    )
    [made] = renewed_here("m1", {"m1": facts})
    assert made["pairs"] == [{"private_key": "/live/privkey.pem", "certificate": "/live/fullchain.pem"}]
    assert made["names"] == ["mx1.example.com", "mail.example.com"]
    assert made["policy"] == {"allow_self_signed": False, "warn_days_left": "5"}
    assert made["listeners"] == [{"host": "127.0.0.1", "port": 25, "protocol": "smtp", "name": "mx1.example.com"}]
    assert "ca_content" not in made


def test_files_of_somebody_else_in_several_algorithms():
    facts = host(
        "host",
        starttls_certificate_path="/live/ecdsa/fullchain.pem",
        starttls_private_key_path="/live/ecdsa/privkey.pem",
        starttls_more_certificates=[
            {"certificate_path": "/live/rsa/fullchain.pem", "private_key_path": "/live/rsa/privkey.pem"},
            {"certificate_path": "/etc/ssl/whole.pem"},
        ],
    )
    [made] = renewed_here("m1", {"m1": facts})
    assert made["pairs"] == [
        {"private_key": "/live/ecdsa/privkey.pem", "certificate": "/live/ecdsa/fullchain.pem"},
        {"private_key": "/live/rsa/privkey.pem", "certificate": "/live/rsa/fullchain.pem"},
        {"private_key": "/etc/ssl/whole.pem", "certificate": "/etc/ssl/whole.pem"},
    ]


SUBMISSION = {"certificate_path": "/live/sub.pem", "private_key_path": "/live/sub.key", "ports": [465, "587"]}


@pytest.mark.parametrize("seen", [True, False], ids=["listeners seen", "listeners not told"])
def test_a_certificate_of_some_ports_is_an_entry_of_its_own_with_their_listeners_and_names(seen):
    listeners = [
        listener(25, "offered", "/live/mx.pem"),
        listener(465, "implicit", "/live/sub.pem"),
        listener(587, "required", "/live/sub.pem"),
    ]
    facts = host(
        "host",
        listeners=listeners if seen else (),
        starttls_certificate_path="/live/mx.pem",
        starttls_more_certificates=[
            {**SUBMISSION, "names": ["*.example.net", "submission.example.com"]},
            {
                **SUBMISSION,
                "ports": [587, 465],
                "names": ["submission.example.com", "*.example.net"],  # in another order
                "certificate_path": "/live/sub-rsa.pem",
            },
            {"certificate_path": "/live/mx-rsa.pem"},
        ],
    )
    facts["mail_server_observed"]["published_tlsa"] = [{"name": "_25._tcp.mx1.example.com"}]
    own, other = renewed_here("m1", {"m1": facts}, "ROOTS")
    assert [one["certificate"] for one in own["pairs"]] == ["/live/mx.pem", "/live/mx-rsa.pem"]
    assert [(one["port"], one["name"]) for one in own["listeners"]] == [(25, "mx1.example.com")]
    assert other["name"] == "*.example.net:465+587"
    check_name(other["name"])  # the hook takes it
    assert other["names"] == ["*.example.net", "submission.example.com"]
    assert [one["certificate"] for one in other["pairs"]] == ["/live/sub.pem", "/live/sub-rsa.pem"]
    assert [(one["port"], one["protocol"], one["name"]) for one in other["listeners"]] == [
        (465, "smtps", "submission.example.com"),
        (587, "smtp", "submission.example.com"),
    ]
    assert (len(own["tlsa"]), other["tlsa"], other["ca_content"]) == (1, [], "ROOTS")


def test_listeners_that_tell_no_certificate_are_those_of_the_ports():
    """Exim tells none where it cannot be known."""
    listeners = [listener(25, "offered"), listener(587, "offered")]
    more = [{**SUBMISSION, "ports": "587"}]
    facts = host("host", listeners=listeners, starttls_certificate_path="/live/mx.pem", starttls_more_certificates=more)
    made = renewed_here("m1", {"m1": facts})
    assert [[one["port"] for one in each["listeners"]] for each in made] == [[25], [587]]
    assert made[1]["names"] == ["mx1.example.com"]


def test_a_port_that_is_no_number_is_refused_by_the_name_of_the_variable():
    with pytest.raises(EngineError, match="starttls_more_certificates: 'x' in ports is no port"):
        renewed_here("m1", {"m1": host("host", starttls_more_certificates=[{**SUBMISSION, "ports": ["x"]}])})


@pytest.mark.parametrize("more", ["x", [{}], [3]])
def test_further_certificates_of_another_shape_are_refused_by_the_name_of_the_variable(more):
    with pytest.raises(EngineError, match="starttls_more_certificates"):
        renewed_here("m1", {"m1": host("host", starttls_more_certificates=more)})


def test_the_records_that_are_published_go_with_it():
    record = {"name": "_25._tcp.mx1.example.com", "usage": 3, "selector": 1, "matching_type": 1, "data": "ab"}
    facts = host()
    facts["mail_server_observed"]["published_tlsa"] = [record]
    assert renewed_here("m1", {"m1": facts})[0]["tlsa"] == [record]
    for no in (False, "false", "no"):
        assert renewed_here("m1", {"m1": {**facts, "starttls_check_tlsa": no}})[0]["tlsa"] == []
    for unsaid in ("", True, "true"):
        assert renewed_here("m1", {"m1": {**facts, "starttls_check_tlsa": unsaid}})[0]["tlsa"] == [record]


def test_records_that_are_not_known_are_not_said_to_be_none():
    facts = host()
    del facts["mail_server_observed"]["published_tlsa"]
    assert "tlsa" not in renewed_here("m1", {"m1": facts})[0]


def test_the_limits_of_what_is_served_and_of_what_is_installed_are_two():
    facts = host(starttls_min_days_left="20", starttls_certificate_min_days_left="3")
    policy = renewed_here("m1", {"m1": facts})[0]["policy"]
    assert (policy["min_days_left"], policy["install_min_days_left"]) == ("20", "3")


@pytest.mark.parametrize(
    ("facts", "renews"),
    [
        (host("acme"), True), (host("host"), True), (host("files"), False), (host("command"), False),
        (host("acme", before={"inbound": "disabled", "outbound": "disabled"}), False),
        (host("acme", before={"inbound": "disabled"}, mail_server_result={"after": ON}), True),
        ({"starttls_certificate_source": "acme"}, False),
    ],
)  # fmt: skip
def test_only_hosts_that_offer_tls_and_renew_it_themselves(facts, renews):
    assert renewing(["m1"], {"m1": facts}) == (["m1"] if renews else [])


OFF = {"inbound": "disabled", "outbound": "disabled"}
HOOK = ["/etc/mailfleet/starttls.pem", "/usr/local/sbin/mailfleet-starttls"]


@pytest.mark.parametrize(
    ("left", "before", "result", "goes"),
    [
        (HOOK, ON, {"changed": True, "after": OFF}, True),
        (HOOK, OFF, {}, True),  # a run that was interrupted after its last change
        (HOOK, ON, {}, False),  # somebody has to do a step by hand first
        (HOOK[:1], ON, {"changed": True, "after": OFF}, False),
    ],
)
def test_where_tls_is_off_the_hook_goes(left, before, result, goes):
    facts = host("acme", before=before, mail_server_result=result)
    facts["mail_server_observed"]["left"] = left
    unread = {"mail_server_observed": {"unreachable": True, "msg": "no route"}}
    assert past_renewing(["m1", "m2"], {"m1": facts, "m2": unread}) == (["m1"] if goes else [])


def test_hosts_that_wait_for_their_certificates():
    known = {"m1": {"mail_server_result": {"waiting": True}}, "m2": {"mail_server_result": {"changed": True}}, "m3": {}}
    assert waiting_hosts(["m1", "m2", "m3"], known) == ["m1"]


OFF = {"inbound": "disabled", "outbound": "disabled"}


@pytest.mark.parametrize(
    ("facts", "asks"),
    [
        (host("csr", before=OFF), True), (host("csr"), False), (host("command", before=OFF), False), (host("files", before=OFF), False),
        ({"starttls_certificate_source": "csr"}, False),
        ({"starttls_certificate_source": "csr", "mail_server_observed": {"unreachable": True}}, False),
        ({"starttls_certificate_source": "csr", "mail_server_observed": {"before": OFF, "send_only": True}}, False),
    ],
)  # fmt: skip
def test_the_first_request_is_made_before_tls_is_on(facts, asks):
    """Else enable_tls would wait for a certificate, and rotate_certificate for TLS."""
    assert requesting(["m1"], {"m1": facts}) == (["m1"] if asks else [])
