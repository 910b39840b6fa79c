"""The recipient domains of a Postfix, matched as Postfix matches its lists."""

import os

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.domains import AcceptedDomains

from tests.support.fake_postfix import DEFAULTS, FakePostfix

LISTS = {
    "relay_domains": "",
    "virtual_mailbox_domains": "",
    "virtual_alias_domains": "$virtual_alias_maps",
    "mydestination": "$myhostname, localhost",
    "smtpd_relay_restrictions": "permit_mynetworks, defer_unauth_destination",
}


class Domains:
    def __init__(self, directory, **main):
        text = "".join(f"{name} = {value}\n" for name, value in main.items())
        self.fake = FakePostfix(directory, main=text, defaults={**DEFAULTS, **LISTS})

    def ask(self, *domains):
        return AcceptedDomains(self.fake, Postconf(self.fake, str(self.fake.directory))).accepts(domains)

    def accepts(self, domain):
        return self.ask(domain)[domain]


@pytest.fixture
def make(tmp_path):
    return lambda **main: Domains(tmp_path / "etc", **main)


@pytest.mark.parametrize("name", ["relay_domains", "virtual_mailbox_domains", "virtual_alias_domains", "mydestination"])
@pytest.mark.parametrize(
    "value", ["a.example", "x.example, A.Example", "x.example a.example", "x.example,\n  a.example"]
)
def test_a_name_in_any_of_the_lists(make, name, value):
    host = make(**{name: value})
    assert (host.accepts("a.example"), host.accepts("b.example")) == (True, False)


def test_references_are_expanded(make):
    assert make().accepts("gw.example") is True


@pytest.mark.parametrize(
    ("parents", "pattern", "matches"),
    [
        ("relay_domains", "a.example", {"a.example": True, "x.a.example": True, "xa.example": False}),
        ("relay_domains", ".a.example", {"a.example": False, "x.a.example": False}),
        ("", "a.example", {"a.example": True, "x.a.example": False}),
        ("", ".a.example", {"a.example": False, "x.a.example": True, "y.x.a.example": True}),
    ],
)
def test_subdomains(make, parents, pattern, matches):
    host = make(relay_domains=pattern, parent_domain_matches_subdomains=f"mynetworks {parents}")
    assert {one: host.accepts(one) for one in matches} == matches


def test_only_relay_domains_matches_subdomains(make):
    host = make(mydestination="a.example", virtual_mailbox_domains="a.example")
    assert host.accepts("x.a.example") is False


def test_the_first_pattern_that_matches_decides(make):
    host = make(relay_domains="!x.a.example, a.example")
    assert host.ask("x.a.example", "a.example", "y.a.example") == {
        "x.a.example": False, "a.example": True, "y.a.example": True,
    }  # fmt: skip


class TestTables:
    @pytest.mark.parametrize(
        ("parents", "keys"),
        [
            ("relay_domains", ["x.a.example", "a.example", "example"]),
            ("", ["x.a.example", ".a.example", ".example"]),
        ],
    )
    def test_the_keys_of_relay_domains(self, make, parents, keys):
        host = make(relay_domains="hash:/etc/relay", parent_domain_matches_subdomains=parents, virtual_alias_domains="")
        assert host.accepts("x.a.example") is False
        assert [call[2] for call in host.fake.called("postmap")] == keys
        for key in keys:
            host.fake.tables = {"hash:/etc/relay": {key: "OK"}}
            assert host.accepts("x.a.example") is True

    def test_other_lists_look_up_the_domain_alone(self, make):
        host = make(virtual_alias_maps="texthash:/etc/virtual")
        host.fake.tables = {"texthash:/etc/virtual": {"a.example": "anything"}}
        assert (host.accepts("a.example"), host.accepts("x.a.example")) == (True, False)
        assert [call[2] for call in host.fake.called("postmap")] == ["a.example", "x.a.example"]

    @pytest.mark.parametrize("table", ["regexp:/etc/r", "pcre:/etc/r", "proxy:pcre:/etc/r"])
    def test_patterns_see_the_whole_name_alone(self, make, table):
        host = make(relay_domains=table)
        host.accepts("x.a.example")
        assert [call[2] for call in host.fake.called("postmap")] == ["x.a.example"]

    @pytest.mark.parametrize("table", ["hash:/etc/relay", "proxy:lmdb:/etc/relay"])
    def test_several_domains_cost_one_program_for_a_table(self, make, table):
        host = make(relay_domains=table, mydestination=f"{table}")
        host.fake.answers = {("postmap", "-s"): (0, "a.example\tOK\nb.example\tOK\n", "")}
        domains = [f"{letter}.example" for letter in "abcdefgh"]
        assert host.ask(*domains) == {one: one in ("a.example", "b.example") for one in domains}
        assert host.fake.called("postmap") == [["postmap", "-s", table.removeprefix("proxy:")]]
        assert len(host.fake.calls) == 2

    @pytest.mark.parametrize("domains", [["a.example"], ["a.example", "b.example"]])
    def test_a_table_that_cannot_be_read_is_unknown(self, make, domains):
        host = make(relay_domains="hash:/etc/relay", mydestination="b.example")
        host.fake.answers = {("postmap",): (1, "", "postmap: fatal: open /etc/relay.db: No such file")}
        assert host.ask(*domains) == {one: True if one == "b.example" else None for one in domains}

    def test_a_table_in_braces_is_one_pattern(self, make):
        host = make(relay_domains="inline:{{a.example = OK}, {b.example = OK}}, c.example")
        host.accepts("x.example")
        assert {call[3] for call in host.fake.called("postmap")} == {"inline:{{a.example = OK}, {b.example = OK}}"}
        assert host.accepts("c.example") is True


class TestFiles:
    def test_a_file_of_patterns(self, make, tmp_path):
        (tmp_path / "more").write_text("c.example\n")
        (tmp_path / "list").write_text(f"# relayed\na.example b.example\n{tmp_path}/more\n")
        host = make(relay_domains=f"{tmp_path}/list")
        assert host.ask("a.example", "b.example", "c.example", "relayed") == {
            "a.example": True, "b.example": True, "c.example": True, "relayed": False,
        }  # fmt: skip

    def test_a_file_that_is_not_there_is_unknown(self, make):
        assert make(relay_domains="/no/such/file").accepts("a.example") is None

    def test_a_pipe_in_the_place_of_a_file_is_unknown_and_not_waited_for(self, make, tmp_path):
        os.mkfifo(tmp_path / "domains")
        assert make(relay_domains=str(tmp_path / "domains")).accepts("a.example") is None

    def test_a_file_that_names_itself_ends(self, make, tmp_path):
        (tmp_path / "list").write_text(f"{tmp_path}/list\n")
        assert make(relay_domains=f"{tmp_path}/list").accepts("a.example") is None

    def test_a_file_that_is_excluded(self, make, tmp_path):
        (tmp_path / "list").write_text("x.a.example\n")
        assert make(relay_domains=f"!{tmp_path}/list a.example").accepts("x.a.example") is False


@pytest.mark.parametrize(
    "restrictions",
    [
        "permit_mx_backup, reject_unauth_destination",
        "check_recipient_access hash:/etc/x, reject",
        "permit",
        "check_policy_service inet:127.0.0.1:1",
    ],
)
def test_a_restriction_that_may_take_more_leaves_no_certain_no(make, restrictions):
    host = make(smtpd_relay_restrictions=restrictions, relay_domains="a.example")
    assert (host.accepts("a.example"), host.accepts("b.example")) == (True, None)
    host = make(smtpd_relay_restrictions="", smtpd_recipient_restrictions=restrictions)
    assert host.accepts("b.example") is None


def test_nothing_is_asked_for_nothing_and_a_broken_postfix_is_unknown(make):
    host = make()
    assert host.ask() == {}
    assert host.fake.calls == []
    host.fake.answers = {("postconf",): (1, "", "postconf: fatal: no")}
    assert host.ask("a.example") == {"a.example": None}
