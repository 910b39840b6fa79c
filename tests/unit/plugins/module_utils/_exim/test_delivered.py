"""The delivery mode as Exim's own routing shows it, whatever the record says."""

import re

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import LEVELS, MODES

from tests.support.exim_host import EximHost, config, routed

OPTIONS = {
    "mailfleet_none": "hosts_avoid_tls = *\nhosts_require_tls =",
    "mailfleet_may": "hosts_avoid_tls =\nhosts_require_tls =",
    "mailfleet_encrypt": "hosts_avoid_tls =\nhosts_require_tls = *",
    "remote_smtp": "hosts_avoid_tls =\nhosts_require_tls =",
    "remote_smtp_smarthost": "hosts_avoid_tls = *\nhosts_require_tls =",
    "own_strict": "hosts_avoid_tls =\nhosts_require_tls = *",
    "own_partly": "hosts_avoid_tls = 192.0.2.1\nhosts_require_tls =",
}


BY_ARRIVAL = gateway._AS_WRITTEN["transport"]
OURS = f"domains = lsearch;/routes\nsenders =\ncondition =\nlocal_parts =\ntransport = {BY_ARRIVAL}"


def printed(
    host, routers=(("mailfleet_expired", "condition = x"), ("mailfleet_inbound", OURS), ("own", "")), **changes
):
    """What exim -bP says of the transports and of the routers."""
    shown = "".join(f"\n{name} transport:\ndriver = smtp\n{text}\n" for name, text in {**OPTIONS, **changes}.items())
    parts = "".join(f"\n{name} router:\n{text}\n" for name, text in routers)
    host.answers[("exim4", "-bP")] = (
        0,
        f"{host.generated}\n{shown}\nmail_spool transport:\ndriver = appendfile\n{parts}",
        "",
    )


@pytest.fixture(params=[False, True], ids=["unsplit", "split"])
def host(request, monkeypatch, tmp_path):
    made = EximHost(monkeypatch, tmp_path, request.param)
    usual = made.run

    def run(arguments):
        if list(arguments[:2]) == ["exim4", "-be"] and "match_domain" in arguments[2]:
            asked = [re.search(r"match_domain\{([^}]+)\}\{([^}]+)\}", one).groups() for one in arguments[2:]]
            return 0, "".join(f"{'yes' if domain in names else 'no'}\n" for domain, names in asked), ""
        if list(arguments[:2]) == ["exim4", "-be"]:
            asked = [re.search(r"\{lookup\{([^}]+)\}", one)[1] for one in arguments[2:]]
            table = made.table("routes")
            return 0, "".join(f"{table[one]['over_tls']}\n" for one in asked), ""
        return usual(arguments)

    made.run = run
    made.renew()
    return made


def with_modes(host, *modes):
    host.write(*(config(mode, mode, f"{mode.replace('_', '-')}.example") for mode in modes))
    printed(host)


def test_every_mode_is_read_back(host):
    with_modes(host, *MODES)
    domains = {f"{mode.replace('_', '-')}.example": mode for mode in MODES}
    assert host.adapter.delivers(list(domains)) == domains
    assert host.adapter.delivers([]) == {}


@pytest.mark.parametrize(
    ("router", "transport", "mode"),
    [
        ("dnslookup", "remote_smtp", "opportunistic"),
        ("smarthost", "remote_smtp_smarthost", "plaintext"),
        ("own", "own_strict", "required"),
        ("own", "own_partly", None),
        ("local_user", "mail_spool", None),
        ("own", "gone", None),
    ],
)
def test_a_router_of_the_administrator_before_ours(host, router, transport, mode):
    with_modes(host, "match_sender")
    host.answers[("exim4", "-bt")] = (0, routed("postmaster@match-sender.example", transport, router), "")
    assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": mode}


def test_a_domain_that_exim_does_not_route_is_unknown(host):
    with_modes(host, "required")
    host.answers[("exim4", "-bt")] = (
        1,
        "postmaster@required.example cannot be resolved at this time: host lookup\n",
        "",
    )
    assert host.adapter.delivers(["required.example", "a b"]) == {"required.example": None, "a b": None}


def test_a_transport_whose_level_was_changed_is_unknown(host):
    with_modes(host, "required")
    printed(host, mailfleet_encrypt="hosts_avoid_tls =\nhosts_require_tls =")
    assert host.adapter.delivers(["required.example"]) == {"required.example": None}


@pytest.mark.parametrize(("word", "mode"), [("none", "plaintext"), ("encrypt", "match_sender_strict"), ("else", None)])
def test_the_table_says_what_mail_over_tls_gets(host, word, mode):
    with_modes(host, "match_sender")
    assert LEVELS["match_sender"] == ("disabled", "opportunistic")
    table = host.directory / "routes"
    table.write_text(table.read_text().replace("over_tls=may", f"over_tls={word}"))
    assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": mode}


@pytest.mark.parametrize(
    ("before", "mode"),
    [
        ("domains = required.example\nsenders = a@example.com", None),
        ("domains =\ncondition = ${if def:tls_in_cipher}", None),
        ("domains = ${if eq{$sender_address}{}{}{*}}", None),
        ("domains = other.example\nsenders = a@example.com", "required"),
    ],
)
def test_a_router_of_the_administrator_before_ours_that_may_look_at_the_message(host, before, mode):
    """exim -bt asks for one message only: without a sender, in plaintext."""
    with_modes(host, "required")
    printed(host, routers=(("own", before), ("mailfleet_inbound", OURS)))
    assert host.adapter.delivers(["required.example"]) == {"required.example": mode}


@pytest.mark.parametrize(
    "ours",
    [
        OURS.replace("{over_tls}{in_plaintext}", "{in_plaintext}{in_plaintext}"),
        OURS.replace("senders =", "senders = :"),
        OURS.replace("local_parts =", "local_parts = postmaster"),
    ],
)
def test_our_router_edited_by_hand_is_unknown(host, ours):
    with_modes(host, "match_sender")
    printed(host, routers=(("mailfleet_inbound", ours),))
    assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": None}


def test_routers_that_exim_does_not_show_are_unknown(host):
    with_modes(host, "required")
    printed(host, routers=())
    assert host.adapter.delivers(["required.example"]) == {"required.example": None}
