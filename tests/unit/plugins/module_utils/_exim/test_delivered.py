"""The delivery mode as Exim's own routing shows it, whatever the record says."""

import re

import pytest
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


def printed(host, **changes):
    """What exim -bP says of the transports, and what exim -be finds in the table of the routes."""
    shown = "".join(f"\n{name} transport:\ndriver = smtp\n{text}\n" for name, text in {**OPTIONS, **changes}.items())
    host.answers[("exim4", "-bP")] = (0, f"{host.generated}\n{shown}\nmail_spool transport:\ndriver = appendfile\n", "")


@pytest.fixture(params=[False, True], ids=["unsplit", "split"])
def host(request, monkeypatch, tmp_path):
    made = EximHost(monkeypatch, tmp_path, request.param)
    usual = made.run

    def run(arguments):
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
