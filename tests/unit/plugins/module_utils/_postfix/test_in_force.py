"""Whether Postfix still enforces and sends as the record says, after somebody edited its configuration by hand."""

from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import describe
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import OutboundTls
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.server import THIRD
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage

from tests.support.postfix_host import PostfixHost, edit, inbound, outbound

FROM, TO = "partner.example", "bank.example"


@pytest.fixture
def host(monkeypatch, tmp_path):
    made = PostfixHost(monkeypatch, tmp_path)
    made.ports = dict.fromkeys((25, 10125, 10126, 10127), Stage.EHLO)
    made.running |= {"/var/spool/postfix-mailfleet", f"/var/spool/{THIRD}"}
    return made


def in_force(host):
    return describe(host.adapter)["in_force"]


class TestSenders:
    @pytest.fixture(autouse=True)
    def enforced(self, host):
        host.apply(enforced=inbound("other.example", FROM))

    def answers(self, host, asked=(FROM,)):
        found = in_force(host)["inbound"]
        assert set(found) == {"other.example", FROM}
        return {found[one] for one in asked}

    def restrictions(self, host):
        return host.adapter._postconf.value_expanded("smtpd_recipient_restrictions")

    def test_as_written(self, host):
        assert self.answers(host, ("other.example", FROM)) == {True}

    def test_a_third_instance_that_does_not_run(self, host):
        host.running.remove(f"/var/spool/{THIRD}")
        assert self.answers(host) == {None}

    @pytest.mark.parametrize("left", ["", "permit_mynetworks, reject_unauth_destination"])
    def test_a_restriction_that_was_taken_out(self, host, left):
        edit(host, smtpd_recipient_restrictions=left)
        assert self.answers(host) == {False}

    def test_what_earlier_versions_wrote_cannot_be_told(self, host):
        edit(host, smtpd_recipient_restrictions=f"check_sender_access texthash:{host.directory}/enforced_senders")
        assert self.answers(host) == {None}

    def test_a_restriction_before_it_cannot_be_told(self, host):
        edit(host, smtpd_recipient_restrictions=f"permit_mynetworks {self.restrictions(host)}")
        assert self.answers(host) == {None}

    def test_restrictions_of_ours_before_it_and_others_behind_it(self, host):
        edit(
            host,
            smtpd_recipient_restrictions=f"check_client_access cidr:{host.directory}/tls_only, mailfleet_arrival, "
            f"{self.restrictions(host)}, permit_mynetworks",
        )
        assert self.answers(host) == {True}

    def test_another_question_in_its_class(self, host):
        edit(host, mailfleet_enforced="permit")
        assert self.answers(host) == {None}

    def test_a_listener_with_restrictions_of_its_own(self, host):
        edit(host, [("smtp/inet", "smtp inet n - y - - smtpd -o smtpd_recipient_restrictions=permit")])
        assert self.answers(host) == {None}

    @pytest.mark.parametrize(
        ("old", "new", "answer"),
        [("/@partner\\.example$/", "/@partner\\.invalid$/", False), ("/@other", "/./ DUNNO\n/@other", None)],
    )
    def test_an_edited_table(self, host, old, new, answer):
        table = Path(host.directory, "enforced_senders.regexp")
        assert old in table.read_text()
        table.write_text(table.read_text().replace(old, new))
        assert self.answers(host) == {answer}


class TestRecipients:
    @pytest.fixture(autouse=True, params=["encryption_only", "trusted_chain", "hostname"])
    def check(self, request, host):
        host.apply(enforced=[outbound(TO, request.param, "mx.bank.example")])
        return request.param

    def entry(self, host, check, **options):
        name = f"mailfleet-{check}"
        [one] = [one for one in host.adapter._postconf.services() if one.name == f"{name}/unix"]
        words = " ".join(f"-o {key}={value}" for key, value in {**one.settings, **options}.items())
        edit(host, [(f"{name}/unix", f"{name} unix - - n - - smtp {words}")])

    def test_as_written(self, host):
        assert in_force(host) == {"outbound": {TO: True}}

    def test_another_chroot_does_not_matter(self, host, check):
        self.entry(host, check)
        assert in_force(host) == {"outbound": {TO: True}}

    def test_a_table_that_is_not_in_use_any_more(self, host):
        edit(host, transport_maps="")
        assert in_force(host) == {"outbound": {TO: False}}

    def test_a_table_that_cannot_be_asked(self, host):
        (host.directory / "transport").unlink()
        assert in_force(host) == {"outbound": {TO: None}}

    @pytest.mark.parametrize(
        ("options", "answer"),
        [
            ({"smtp_tls_security_level": "may", "smtp_tls_policy_maps": ""}, False),
            ({"smtp_tls_policy_maps": "texthash:/etc/postfix/own"}, None),
            ({"smtp_tls_CAfile": "/own.pem"}, None),
        ],
    )
    def test_an_edited_transport(self, host, check, options, answer):
        self.entry(host, check, **options)
        assert in_force(host) == {"outbound": {TO: answer}}


def with_outbound(host, **options):
    host.apply(outbound=OutboundTls(**{"mail_servers": ("192.0.2.0/24",), **options}))


class TestAccept:
    @pytest.mark.parametrize("accept", ["plaintext", "both", "tls_only"])
    def test_as_written(self, host, accept):
        with_outbound(host, accept=accept)
        assert in_force(host) == {"accept": {accept: True}}

    @pytest.mark.parametrize(
        ("accept", "setting"),
        [
            ("tls_only", "smtpd_recipient_restrictions"),
            ("plaintext", "smtpd_discard_ehlo_keyword_address_maps"),
        ],
    )
    def test_taken_out(self, host, accept, setting):
        with_outbound(host, accept=accept)
        present = host.adapter._postconf.value_expanded(setting)
        edit(host, **{setting: f"cidr:/own, {present}"})
        assert in_force(host) == {"accept": {accept: None}}
        edit(host, **{setting: ""})
        assert in_force(host) == {"accept": {accept: False}}

    @pytest.mark.parametrize(("accept", "table"), [("tls_only", "tls_only"), ("plaintext", "plaintext_only")])
    def test_an_emptied_table(self, host, accept, table):
        with_outbound(host, accept=accept)
        (host.directory / table).write_text("")
        assert in_force(host) == {"accept": {accept: False}}


class TestSend:
    @pytest.mark.parametrize("send", ["plaintext", "match_sender", "match_sender_strict", "opportunistic", "required"])
    def test_as_written(self, host, send):
        with_outbound(host, send=send)
        assert in_force(host) == {"send": {send: True}}

    @pytest.mark.parametrize(
        ("send", "level", "answer"),
        [
            ("required", "may", False),
            ("required", "", False),
            ("required", "dane-only", True),
            ("opportunistic", "none", False),
            ("opportunistic", "dane", True),
        ],
    )
    def test_another_level(self, host, send, level, answer):
        with_outbound(host, send=send)
        edit(host, smtp_tls_security_level=level)
        assert in_force(host) == {"send": {send: answer}}

    @pytest.mark.parametrize(("send", "answer"), [("required", None), ("opportunistic", True)])
    def test_exceptions_by_next_hop_matter_if_there_may_be_none(self, host, send, answer):
        with_outbound(host, send=send)
        edit(host, smtp_tls_policy_maps="texthash:/etc/postfix/own")
        assert in_force(host) == {"send": {send: answer}}

    @pytest.mark.parametrize(
        ("settings", "answer"),
        [
            ({"default_transport": "own:"}, False),
            ({"default_transport": "gone"}, None),
            ({"sender_dependent_default_transport_maps": "texthash:/etc/postfix/own"}, None),
        ],
    )
    def test_another_way_out(self, host, settings, answer):
        with_outbound(host, send="required")
        edit(host, [("own/unix", "own unix - - n - - smtp -o smtp_tls_security_level=may")], **settings)
        assert in_force(host) == {"send": {"required": answer}}

    def test_a_policy_service_that_is_not_asked(self, host):
        with_outbound(host, send="match_sender_strict")
        edit(host, smtpd_recipient_restrictions="permit_mynetworks")
        assert in_force(host) == {"send": {"match_sender_strict": False}}

    def test_a_second_instance_that_does_not_run(self, host):
        with_outbound(host, send="match_sender_strict")
        host.running.remove("/var/spool/postfix-mailfleet")
        assert in_force(host) == {"send": {"match_sender_strict": None}}


def test_only_few_more_programs_are_started(host):
    host.apply(
        enforced=[*inbound(FROM), outbound(TO, "hostname", "mx.bank.example")], outbound=OutboundTls("both", "required")
    )
    state = host.adapter.read()
    host.adapter._postconf.value_expanded("transport_maps")  # delivers() has read them
    host.adapter._postconf.services()
    host.fake.calls.clear()
    host.adapter.in_force(state)
    assert len(host.fake.calls) <= 6, "those of the third instance among them"
