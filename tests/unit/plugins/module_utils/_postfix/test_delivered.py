"""The delivery mode as Postfix's own tools show it, whatever the record says."""

from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import delivered_modes, describe
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import MODES
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.server import THIRD
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage

from tests.support.postfix_host import PostfixHost, config, edit, outbound


@pytest.fixture
def host(monkeypatch, tmp_path):
    made = PostfixHost(monkeypatch, tmp_path)
    made.ports = dict.fromkeys((25, 10125, 10126, 10127), Stage.EHLO)
    return made


def with_modes(host, *modes):
    host.apply(*(config(mode.replace("_", "-"), mode, f"{mode.replace('_', '-')}.example") for mode in modes))
    host.running |= {"/var/spool/postfix-mailfleet", f"/var/spool/{THIRD}"}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_read_back(host, mode):
    with_modes(host, mode)
    domain = f"{mode.replace('_', '-')}.example"
    assert host.adapter.delivers([domain]) == {domain: mode}


def test_all_domains_are_asked_in_a_few_programs(host):
    with_modes(host, *MODES)
    host.fake.calls.clear()
    assert host.adapter.delivers([f"{mode.replace('_', '-')}.example" for mode in MODES]) == {
        f"{mode.replace('_', '-')}.example": mode for mode in MODES
    }
    assert len(host.fake.called("sh")) <= 8


def test_a_table_that_is_not_in_use_any_more(host):
    """The record and the table stay as they were."""
    with_modes(host, "match_sender")
    edit(host, transport_maps="", smtp_tls_security_level="may")
    assert host.adapter.read().email_configs["match-sender"].delivery_mode == "match_sender"
    assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": "opportunistic"}
    edit(host, smtp_tls_security_level="")
    assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": "plaintext"}


@pytest.mark.parametrize(
    ("key", "value", "mode"),
    [
        ("required.example", "smtp:[192.0.2.1]:25", "plaintext"),
        ("mailfleet-starttls@required.example", "smtp:[192.0.2.1]", "plaintext"),
        (".example", "smtp:[192.0.2.1]", "required"),  # the domain itself comes first
        ("*", "smtp:[192.0.2.1]", "required"),
        ("required.example", "lmtp:unix:private/lmtp", None),
        ("required.example", "nowhere:[192.0.2.1]", None),
        ("other.example", "smtp:[192.0.2.1]", "required"),
    ],
)
def test_a_table_of_the_administrator_before_ours(host, key, value, mode):
    with_modes(host, "required")
    edit(host, transport_maps=f"hash:/etc/postfix/own, texthash:{host.directory}/transport")
    host.fake.tables["hash:/etc/postfix/own"] = {key: value}
    assert host.adapter.delivers(["required.example"]) == {"required.example": mode}


def test_a_domain_without_an_entry_follows_its_parents_and_the_whole_daemon(host):
    with_modes(host, "required")
    edit(host, transport_maps=f"hash:/etc/postfix/own, texthash:{host.directory}/transport")
    host.fake.tables["hash:/etc/postfix/own"] = {".parent.example": "mailfleet-required:[192.0.2.1]:25"}
    assert host.adapter.delivers(["a.parent.example", "b.example"]) == {
        "a.parent.example": "required", "b.example": "plaintext",
    }  # fmt: skip


def test_a_table_that_cannot_be_asked_is_unknown(host):
    with_modes(host, "required")
    edit(host, transport_maps=f"texthash:/nowhere, texthash:{host.directory}/transport")
    assert host.adapter.delivers(["required.example"]) == {"required.example": None}


@pytest.mark.parametrize(
    ("mode", "level", "shown"),
    [("required", "may", "opportunistic"), ("match_sender", "encrypt", "required"), ("opportunistic", "none", "plaintext"),
     ("opportunistic", "dane", "opportunistic")],
)  # fmt: skip
def test_a_transport_whose_level_was_changed(host, mode, level, shown):
    with_modes(host, mode)
    edit(host, [(f"mailfleet-{mode}/unix", f"mailfleet-{mode} unix - - y - - smtp -o smtp_tls_security_level={level}")])
    domain = f"{mode.replace('_', '-')}.example"
    assert host.adapter.delivers([domain]) == {domain: shown}


@pytest.mark.parametrize(
    "options",
    [
        {"smtp_tls_policy_maps": "texthash:/etc/postfix/own"},
        {"smtp_tls_per_site": "hash:/etc/postfix/own"},
    ],
)
@pytest.mark.parametrize("mode", ["plaintext", "opportunistic", "required"])
def test_a_transport_with_a_level_for_each_next_hop_is_unknown(host, mode, options):
    """A table of policies overrides the level of the transport, in both directions."""
    with_modes(host, mode)
    words = " ".join(f"-o {name}={value}" for name, value in options.items())
    kept = host.adapter._postconf.overrides("smtp_tls_security_level")[f"mailfleet-{mode}/unix"]
    entry = f"mailfleet-{mode} unix - - y - - smtp -o smtp_tls_security_level={kept} {words}"
    edit(host, [(f"mailfleet-{mode}/unix", entry)])
    assert host.adapter.delivers([f"{mode}.example"]) == {f"{mode}.example": None}


@pytest.mark.parametrize(
    ("mode", "shown"), [("plaintext", "plaintext"), ("opportunistic", None), ("required", "required")]
)
@pytest.mark.parametrize(
    "options",
    [
        {"smtp_discard_ehlo_keywords": "chunking, STARTTLS"},
        {"smtp_discard_ehlo_keyword_address_maps": "cidr:/etc/postfix/own"},
    ],
)
def test_a_gateway_that_does_not_see_starttls(host, options, mode, shown):
    """TLS if possible is then plaintext; what insists on TLS waits."""
    with_modes(host, mode)
    edit(host, **options)
    assert host.adapter.delivers([f"{mode}.example"]) == {f"{mode}.example": shown}


def test_a_gateway_that_does_not_see_other_extensions(host):
    with_modes(host, "opportunistic")
    edit(host, smtp_discard_ehlo_keywords="chunking")
    assert host.adapter.delivers(["opportunistic.example"]) == {"opportunistic.example": "opportunistic"}


@pytest.mark.parametrize("entry", [True, False])
def test_mail_that_stays_on_the_gateway_has_no_mode_unless_a_table_leads_it_away(host, entry):
    with_modes(host, "required")
    edit(host, mydestination="required.example")
    if not entry:
        (host.directory / "transport").write_text("")
    assert host.adapter.delivers(["required.example"]) == {"required.example": "required" if entry else None}


class TestByArrival:
    @pytest.mark.parametrize("first", ["permit_mynetworks", "check_client_access cidr:/etc/postfix/own"])
    def test_a_restriction_before_the_question_is_unknown(self, host, first):
        """Mail that it permits is delivered in plaintext, however it arrived."""
        with_modes(host, "match_sender")
        present = host.adapter._postconf.value_expanded("smtpd_recipient_restrictions")
        edit(host, smtpd_recipient_restrictions=f"{first}, {present}")
        assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": None}

    def test_restrictions_behind_the_question_do_not_matter(self, host):
        with_modes(host, "match_sender")
        present = host.adapter._postconf.value_expanded("smtpd_recipient_restrictions")
        edit(host, smtpd_recipient_restrictions=f"{present}, permit_mynetworks reject")
        assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": "match_sender"}

    def test_a_gateway_that_accepts_tls_only_is_asked_that_first(self, host):
        with_modes(host, "match_sender")
        present = host.adapter._postconf.value_expanded("smtpd_recipient_restrictions")
        ours = f"check_client_access cidr:{host.directory}/tls_only, {present}"
        edit(host, smtpd_recipient_restrictions=ours)
        assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": "match_sender"}

    def test_another_question_is_unknown(self, host):
        with_modes(host, "match_sender")
        edit(host, mailfleet_arrival="permit")
        assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": None}

    def test_a_policy_service_that_is_gone_is_unknown(self, host):
        with_modes(host, "match_sender")
        master = Path(host.adapter._postconf.config_dir, "master.cf")
        master.write_text(master.read_text().replace("mailfleet_arrival  unix", "other unix"))
        host.adapter._postconf.forget()
        assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": None}

    @pytest.mark.parametrize("name", ["content_filter", "smtpd_proxy_filter"])
    def test_a_filter_is_unknown(self, host, name):
        """Its way replaces the one that the policy service answers."""
        with_modes(host, "match_sender")
        edit(host, **{name: "scan:[127.0.0.1]:10024"})
        assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": None}

    def test_without_the_question_mail_that_arrived_over_tls_is_plaintext_too(self, host):
        with_modes(host, "match_sender")
        edit(host, smtpd_recipient_restrictions="reject_unauth_destination")
        assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": "plaintext"}

    def test_a_domain_that_the_question_leaves_out(self, host):
        with_modes(host, "match_sender")
        (host.directory / "arrival").write_text("# none\n")
        assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": "plaintext"}

    def test_a_second_instance_that_does_not_run_is_unknown(self, host):
        with_modes(host, "match_sender")
        host.running = {"/var/spool/postfix"}
        assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": None}

    def test_a_listener_with_restrictions_of_its_own_is_unknown(self, host):
        with_modes(host, "match_sender")
        edit(host, [("smtp/inet", "smtp inet n - y - - smtpd -o smtpd_recipient_restrictions=permit")])
        assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": None}

    @pytest.mark.parametrize(
        ("level", "mode"), [("none", "plaintext"), ("encrypt", "match_sender_strict"), ("may", "match_sender")]
    )
    def test_the_level_of_the_second_instance_counts(self, host, level, mode):
        with_modes(host, "match_sender")
        master = host.second / "master.cf"
        text = master.read_text()
        head, name, rest = text.partition("mailfleet-match_sender unix")
        master.write_text(
            head + name + rest.replace("smtp_tls_security_level=may", f"smtp_tls_security_level={level}", 1)
        )
        assert host.adapter.delivers(["match-sender.example"]) == {"match-sender.example": mode}


def test_an_enforced_domain_has_the_level_of_its_check(host):
    host.apply(config("one", "plaintext"), enforced=(outbound("one.example", "hostname", "mx.example"),))
    assert host.adapter.delivers(["one.example"]) == {"one.example": "required"}


class TestDescribe:
    def test_what_the_daemon_does_is_beside_what_was_set(self, host):
        with_modes(host, "match_sender")
        edit(host, transport_maps="")
        found = describe(host.adapter, ["MATCH-sender.example.", "more.example", "a b"])
        assert [one["delivery_mode"] for one in found["email_configs"]] == ["match_sender"]
        assert found["delivered_modes"] == {"match-sender.example": "plaintext", "more.example": "plaintext"}
        assert set(found["accepted_domains"]) == {"match-sender.example", "more.example"}
        assert found["keeps_names"] is True

    def test_a_daemon_that_does_not_run_delivers_in_no_mode(self, host):
        with_modes(host, "required")
        host.running = set()
        assert describe(host.adapter)["delivered_modes"] == {}

    def test_what_cannot_be_read_is_no_error(self, host):
        with_modes(host, "required")
        host.fake.answers[("postconf",)] = (1, "", "postconf: fatal: no")
        host.adapter._postconf.forget()
        assert delivered_modes(host.adapter, host.adapter.read()) == {"required.example": None}
