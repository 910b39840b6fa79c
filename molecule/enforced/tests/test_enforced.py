"""Policy enforced TLS: by sender domain on the way in, by recipient domain and certificate check on the way out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import pytest
from lab_partner import CHECKS, GATEWAYS, NAME, ROOTS, SERVERS, Partner, flush, port_of, queue
from lab_testinfra import DOMAINS, Fleet, came_over_tls, of_kind, on_each, report, wait_for

SENT = {
    "encryption_only": {"good", "selfsigned", "wrongname", "expired"},
    "trusted_chain": {"good", "wrongname"},
    "hostname": {"good"},
}
RESULTS: dict[tuple[str, str, str], str] = {}
gateways = on_each(GATEWAYS)


@pytest.fixture(scope="module", autouse=True)
def matrix() -> Iterator[None]:
    """Print what was seen of the certificate checks."""
    yield
    rows = [
        f"{gateway} {check}".ljust(30)
        + "".join(RESULTS.get((gateway, check, server), "-").ljust(14) for server in SERVERS)
        for gateway, check in {key[:2] for key in RESULTS}
    ]
    report("gateway certificate check".ljust(30) + "".join(server.ljust(14) for server in SERVERS), rows)


def module(fleet: Fleet, gateway: str, name: str, options: dict[str, Any], *arguments: str) -> dict[str, Any]:
    """The result of a gateway module, failed or not."""
    return fleet.result(gateway, name, {**of_kind(GATEWAYS[gateway]), **options}, *arguments)


def enforce(fleet: Fleet, gateway: str, *arguments: str, **options: Any) -> dict[str, Any]:
    result = module(fleet, gateway, "enforced_tls_domain", options, *arguments)
    assert not result["failed"], result
    return result


def set_modes(fleet: Fleet, gateway: str, **modes: str) -> None:
    configs = [
        {"name": host, "domains": [DOMAINS[host]], "servers": [f"{host}.fleet.test"], "delivery_mode": mode}
        for host, mode in modes.items()
    ]
    options = {"email_configs": configs, "require_without_evidence": True}
    assert not module(fleet, gateway, "inbound_tls_mode", options)["failed"]


@gateways
def test_a_sender_is_enforced_on_both_hops(fleet: Fleet, partner: Partner, gateway: str) -> None:
    set_modes(fleet, gateway, pf12="plaintext", ex12="match_sender")
    options = {"domain": "Partner.TEST.", "direction": "inbound"}
    dry = enforce(fleet, gateway, "--check", "--diff", **options)
    assert dry["changed"]
    assert "+partner.test" in dry["output"]
    assert fleet.send("outside", ["trace@alpha.test"], tls=False, to=gateway)
    done = enforce(fleet, gateway, **options)
    assert done["changed"]
    assert done["enforced_domains"] == [{"domain": "partner.test", "direction": "inbound"}]
    assert all(seen["completed"] for seen in done["evidence"])
    assert not enforce(fleet, gateway, **options)["changed"]

    # Plaintext: refused for the time being, whatever the spelling, with the words a sender's administrator can look up.
    for sender in ("trace@partner.test", "x@PARTNER.test"):
        with pytest.raises(AssertionError, match=r"(?s)451.*STARTTLS is required for this sender"):
            fleet.send("outside", ["trace@alpha.test"], tls=False, to=gateway, sender=sender)
    # Over TLS: taken, and over TLS to the mail server, whatever its mode.
    both = fleet.send("outside", ["trace@alpha.test", "trace@charlie.test"], tls=True, to=gateway)
    assert fleet.arrived_over_tls("pf12", both)
    assert fleet.arrived_over_tls("ex12", both)
    # Exact: neither a subdomain nor a domain that ends alike, nor a bounce; they follow the mode.
    for sender in ("trace@sub.partner.test", "trace@notpartner.test", ""):
        mark = fleet.send("outside", ["trace@alpha.test"], tls=False, to=gateway, sender=sender)
        assert not fleet.arrived_over_tls("pf12", mark)
    mark = fleet.send("outside", ["trace@alpha.test"], tls=True, to=gateway, sender="trace@sub.partner.test")
    assert not fleet.arrived_over_tls("pf12", mark)

    removed = enforce(fleet, gateway, **options, state="absent")
    assert removed["enforced_domains"] == []
    mark = fleet.send("outside", ["trace@alpha.test"], tls=False, to=gateway)
    assert not fleet.arrived_over_tls("pf12", mark)


@gateways
def test_mail_of_an_enforced_sender_waits_for_tls_at_the_server(fleet: Fleet, partner: Partner, gateway: str) -> None:
    set_modes(fleet, gateway, pf12="plaintext", pf13="opportunistic")
    options = {"domain": "partner.test", "direction": "inbound"}
    refused = module(fleet, gateway, "enforced_tls_domain", options)
    assert refused["failed"]
    assert "would be deferred: pf13.fleet.test:25: the server does not offer STARTTLS" in refused["msg"]
    enforce(fleet, gateway, **options, require_without_evidence=True)
    try:
        mark = fleet.send("outside", ["trace@alpha.test", "trace@bravo.test"], tls=True, to=gateway)
        assert fleet.arrived_over_tls("pf12", mark)
        assert wait_for(lambda: "trace@bravo.test" in queue(fleet, gateway))
        flush(fleet, gateway)
        assert fleet.mail("pf13", mark) is None
        told = module(fleet, gateway, "inbound_tls_mode", {"name": "pf13", "delivery_mode": "plaintext"})
        assert "holds inbound enforced domains" in told["msg"]
    finally:
        enforce(fleet, gateway, **options, state="absent")
    # No longer enforced, what waited goes out by the mode of its email config.
    assert wait_for(lambda: (flush(fleet, gateway), fleet.mail("pf13", mark))[1]), queue(fleet, gateway)
    assert not fleet.arrived_over_tls("pf13", mark)


@gateways
def test_the_gateway_has_to_accept_tls_itself(fleet: Fleet, partner: Partner, gateway: str) -> None:
    set_modes(fleet, gateway, pf12="plaintext", ex12="plaintext", pf13="plaintext")
    role = {"starttls_kind": GATEWAYS[gateway]}
    play = (
        f"- hosts: {gateway}\n  gather_facts: false\n  tasks:\n    - ansible.builtin.import_role:\n"
        "        name: mailfleet.starttls.gateway\n        tasks_from: accept\n"
    )
    assert fleet.play(play, variables={**role, "gateway_inbound": "disabled"}).status == 0
    try:
        refused = module(fleet, gateway, "enforced_tls_domain", {"domain": "partner.test", "direction": "inbound"})
        assert "the gateway does not accept TLS itself" in refused["msg"]
    finally:
        assert fleet.play(play, variables={**role, "gateway_inbound": "offered"}).status == 0


@gateways
def test_every_certificate_check_with_every_kind_of_server(fleet: Fleet, partner: Partner, gateway: str) -> None:
    cases = {(check, server): partner.domain(check, server) for check in CHECKS for server in SERVERS}
    domains = [
        {"domain": domain, "direction": "outbound", "certificate_check": check} for (check, _), domain in cases.items()
    ]
    options = {"enforced_domains": domains, "ca_file": ROOTS, "require_without_evidence": True}
    assert enforce(fleet, gateway, **options)["changed"]
    assert not enforce(fleet, gateway, **options)["changed"]
    try:
        mark = fleet.send(
            "pf12", [f"trace@{domain}" for domain in cases.values()], tls=True, to=gateway, headers="TLS-Required: no\n"
        )
        sent = {case for case in cases if case[1] in SENT[case[0]]}
        arrived = wait_for(
            lambda: set(_arrived(fleet, mark)) >= {cases[case] for case in sent} and _arrived(fleet, mark)
        )
        waiting = wait_for(lambda: all(cases[case] in queue(fleet, gateway) for case in set(cases) - sent))
        assert waiting, queue(fleet, gateway)
        flush(fleet, gateway)
        arrived = _arrived(fleet, mark)
        for (check, server), domain in cases.items():
            RESULTS[gateway, check, server] = (
                "TLS" if arrived.get(domain) else "queued" if domain not in arrived else "PLAIN"
            )
        assert arrived == {cases[case]: True for case in sent}
        # Exact: a subdomain goes as it went before, to whatever server.
        subs = [f"sub.{partner.domain('hostname', server)}" for server in SERVERS]
        mark = fleet.send("pf12", [f"trace@{sub}" for sub in subs], tls=True, to=gateway)
        assert wait_for(lambda: set(_arrived(fleet, mark)) == set(subs)), (
            _arrived(fleet, mark),
            queue(fleet, gateway),
        )
    finally:
        enforce(fleet, gateway, enforced_domains=domains, state="absent")
    # No longer enforced, it goes out.
    assert wait_for(
        lambda: (flush(fleet, gateway), partner.domain("hostname", "notls") not in queue(fleet, gateway))[1], 60
    )


def _arrived(fleet: Fleet, mark: str) -> dict[str, bool]:
    """Domain -> whether its copy of the message came over TLS, by the partner's own Received header."""
    return {str(one["X-Original-To"]).partition("@")[2]: came_over_tls(one) for one in fleet.copies("outside", mark)}


@gateways
def test_the_guard_judges_the_certificate_from_the_gateway(fleet: Fleet, partner: Partner, gateway: str) -> None:
    """Without it, the first anybody hears of a wrong certificate is a queue."""
    wanted = {
        ("hostname", "good"): "",
        ("hostname", "selfsigned"): "its certificate does not pass (self-signed certificate)",
        ("hostname", "wrongname"): "its certificate does not pass (Hostname mismatch",
        ("trusted_chain", "wrongname"): "",
        ("trusted_chain", "expired"): "its certificate does not pass (certificate has expired)",
        ("encryption_only", "selfsigned"): "",
        ("encryption_only", "notls"): "the server does not offer STARTTLS",
    }
    for (check, server), message in wanted.items():
        options = {
            "domain": "guarded.test", "direction": "outbound", "certificate_check": check, "ca_file": ROOTS,
            "servers": [f"{NAME}:{port_of(check, server)}"],
        }  # fmt: skip
        result = module(fleet, gateway, "enforced_tls_domain", options, "--check")
        assert not result["failed"], result
        said = " ".join(result["output"].split())
        assert message in said, (check, server, said)
        assert ("would refuse this" in said) == bool(message), (check, server, said)


@gateways
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domain": "*.partner.test", "direction": "inbound"}, "is not a domain that can be enforced"),
        ({"domain": "a.test\nb.test", "direction": "inbound"}, "domain holds a line break or another control character"),
        ({"domain": "a.test", "direction": "inbound", "certificate_check": "hostname"}, "apply to the direction outbound only"),
        ({"domain": "nowhere.invalid", "direction": "outbound"}, "its mail servers cannot be found"),
        ({"domain": "offers.test", "direction": "outbound", "ca_file": "/none"}, "there is no file /none"),
    ],
)  # fmt: skip
def test_bad_input_changes_nothing(
    fleet: Fleet, partner: Partner, gateway: str, options: dict[str, Any], message: str
) -> None:
    before = fleet.run(
        gateway, "cat /etc/postfix/mailfleet-starttls/* /etc/exim4/mailfleet-starttls/* 2>/dev/null", check=False
    )
    result = module(fleet, gateway, "enforced_tls_domain", options)
    assert result["failed"]
    assert message in result["msg"]
    assert "\n" not in result["msg"]
    after = fleet.run(
        gateway, "cat /etc/postfix/mailfleet-starttls/* /etc/exim4/mailfleet-starttls/* 2>/dev/null", check=False
    )
    assert before == after


@on_each([name for name, kind in GATEWAYS.items() if kind == "postfix"])
def test_a_restart_brings_every_instance_back(fleet: Fleet, partner: Partner, gateway: str) -> None:
    """A Postfix gateway keeps mail in them, so none may be missing after the host was restarted."""
    enforced = {
        "enforced_domains": [{"domain": "restart.test", "direction": "inbound"}],
        "require_without_evidence": True,
    }
    assert not module(fleet, gateway, "enforced_tls_domain", enforced)["failed"]
    try:
        names = fleet.run(gateway, "postmulti -l | awk '$3 == \"y\" { print $1 }'").split()
        assert {"postfix-mailfleet", "postfix-mailfleet_enforced"} <= set(names)
        fleet.run(
            gateway, "systemctl stop postfix 'postfix@*'; systemctl daemon-reload; systemctl start multi-user.target"
        )
        for name in names:
            status = f"postmulti -i {name} -p status >/dev/null 2>&1 && echo running"
            assert wait_for(lambda status=status: fleet.run(gateway, status, check=False)), name
        assert fleet.run(gateway, "systemctl --failed --no-legend").strip() == ""
    finally:
        module(fleet, gateway, "enforced_tls_domain", {**enforced, "state": "absent"})


@on_each([name for name, kind in GATEWAYS.items() if kind == "postfix"])
def test_a_server_does_not_choose_which_hosts_are_tested(fleet: Fleet, partner: Partner, gateway: str) -> None:
    """The servers of a domain are looked up by Postfix, which also shows what they say."""
    port = 2590 + list(GATEWAYS).index(gateway)  # the gateways are tested beside each other
    unit = f"mailfleet-hostile-{gateway}"
    lines = f"honest.test smtp:{NAME}:{port_of('encryption_only', 'good')}\nhostile.test smtp:{NAME}:{port}\n"
    table = "$(postconf -h default_database_type):/etc/postfix/transport"
    fleet.run(gateway, f"cat >>/etc/postfix/transport && postmap {table}", lines)
    server = (
        f"import socket; s = socket.create_server((str(), {port}))\nfor _ in range(9):\n    c = s.accept()[0]\n"
        "    c.sendall(b'554 Connected to 127.0.0.1[127.0.0.1]:25\\r\\n'); c.close()"
    )
    fleet.run("outside", f'systemd-run --quiet --unit={unit} --collect python3 -c "{server}"')
    try:
        assert wait_for(lambda: fleet.run("outside", f"ss -ltnH sport = :{port}"))
        targets = {}
        for domain in ("honest.test", "hostile.test"):
            options = {"domain": domain, "direction": "outbound"}
            result = module(fleet, gateway, "enforced_tls_domain", options, "--check")
            assert not result["failed"], result
            targets[domain] = [f"{seen['host']}:{seen['port']} {seen['completed']}" for seen in result["evidence"]]
        assert targets == {"honest.test": [f"{NAME}:2500 True"], "hostile.test": [f"{NAME}:{port} False"]}
    finally:
        fleet.run("outside", f"systemctl stop {unit}", check=False)
        fleet.run(gateway, f"sed -i '/^ho[a-z]*.test smtp/d' /etc/postfix/transport && postmap {table}")


# What a local user says to a port, in plaintext, over TLS, over TLS with a certificate of his own, and with a session of port 25.
LOCAL_USER = """
import smtplib, socket, ssl, sys
said = []
for port in map(int, sys.argv[2:]):
    context = ssl._create_unverified_context()
    first = smtplib.SMTP("127.0.0.1", 25, timeout=5)
    first.starttls(context=context)
    first.ehlo()
    try:
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 2), session=first.sock.session) as second:
            said.append((port, "resumed", "goes on", int(second.session_reused)))
    except OSError as error:
        said.append((port, "resumed", type(error).__name__, 0))
for port in map(int, sys.argv[2:]):
    for way in ("plain", "tls", "certificate"):
        try:
            if way == "plain":
                session = smtplib.SMTP("127.0.0.1", port, timeout=2)
            else:
                context = ssl._create_unverified_context()
                if way == "certificate":
                    context.load_cert_chain(sys.argv[1])
                session = smtplib.SMTP_SSL("127.0.0.1", port, timeout=2, context=context)
            session.ehlo()
            for command in ("XFORWARD NAME=forged.example ADDR=192.0.2.1", "MAIL FROM:<a@b.test>", "RCPT TO:<trace@elsewhere.test>"):
                said.append((port, way, command[:8], session.docmd(command)[0]))
        except (OSError, smtplib.SMTPException) as error:
            said.append((port, way, type(error).__name__, 0))
print(said)
"""


@on_each([name for name, kind in GATEWAYS.items() if kind == "postfix"])
def test_the_instances_take_mail_from_each_other_only(fleet: Fleet, partner: Partner, gateway: str) -> None:
    """They do not check again what the first one has checked, so nobody else may reach them: no local user, either."""
    set_modes(fleet, gateway, pf12="match_sender")
    enforced = {
        "enforced_domains": [{"domain": "local.test", "direction": "inbound"}],
        "require_without_evidence": True,
    }
    assert not module(fleet, gateway, "enforced_tls_domain", enforced)["failed"]
    pair = "/etc/postfix/mailfleet-starttls/instances.pem"
    try:
        assert fleet.run(gateway, f"stat -c '%a %U' {pair}") == "600 root\n"
        before = fleet.run(gateway, f"sha256sum {pair}")
        own = "openssl req -x509 -newkey rsa:2048 -nodes -keyout - -subj /CN=instances.mailfleet-starttls.invalid"
        fleet.run(gateway, f"{own} >/tmp/own.pem 2>/dev/null; chmod 644 /tmp/own.pem")
        ports = "10125 10126 10127"
        said = fleet.run(gateway, f"runuser -u nobody -- python3 - /tmp/own.pem {ports}", LOCAL_USER)
        answers = ast.literal_eval(said)
        assert {(port, way) for port, way, _what, _code in answers} == {
            (port, way) for port in map(int, ports.split()) for way in ("plain", "tls", "certificate", "resumed")
        }
        assert all(code == 0 or 400 <= code < 500 for _port, _way, _what, code in answers), answers
        # With all of it, mail still goes through them.
        mark = fleet.send("outside", ["trace@alpha.test"], tls=True, to=gateway, sender="trace@local.test")
        assert fleet.arrived_over_tls("pf12", mark)
        assert not module(fleet, gateway, "enforced_tls_domain", enforced)["changed"]
        assert fleet.run(gateway, f"sha256sum {pair}") == before
    finally:
        module(fleet, gateway, "enforced_tls_domain", {**enforced, "state": "absent"})


# Tries to change the memory of each process of the policy service.
INTO_MEMORY = r"""
import pathlib, re
done = []
for one in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if not re.match(rb"[^\0]*python3\0.*arrival_policy\.py", (one / "cmdline").read_bytes()):
            continue
        start = int((one / "maps").read_text().split("-")[0], 16)
        with (one / "mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            done.append(memory.read(1) and "opened")
    except OSError as error:
        done.append(type(error).__name__)
print(done)
"""


@on_each([name for name, kind in GATEWAYS.items() if kind == "postfix"])
def test_no_other_service_can_change_the_answers_of_the_policy_service(
    fleet: Fleet, partner: Partner, gateway: str
) -> None:
    """Its user is its own: processes of one user may write into each other's memory."""
    enforced = {
        "enforced_domains": [{"domain": "local.test", "direction": "inbound"}],
        "require_without_evidence": True,
    }
    set_modes(fleet, gateway, pf12="match_sender")
    try:
        assert not module(fleet, gateway, "enforced_tls_domain", enforced)["failed"]  # its proof asks the service
        user = fleet.run(gateway, "ps -o user:32= -p $(pgrep -d, -f '^[^ ]*python3 .*arrival_policy.py')").split()
        assert set(user) == {"mailfleet-starttls"}
        assert fleet.run(gateway, "getent passwd mailfleet-starttls").endswith(":/nonexistent:/usr/sbin/nologin\n")
        tried = ast.literal_eval(fleet.run(gateway, "runuser -u nobody -- python3 -", INTO_MEMORY))
        assert tried
        assert set(tried) == {"PermissionError"}
    finally:
        module(fleet, gateway, "enforced_tls_domain", {**enforced, "state": "absent"})
