"""Why a Postfix gateway does not do what was set there, after other hands have been at its files, units and tables."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import describe
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import MODES, OutboundTls
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import truth
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.server import THIRD
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.postfix_host import PostfixHost, config, edit, inbound, outbound

BY_ARRIVAL = "email config match-sender"
SECOND_QUEUE, THIRD_QUEUE = "/var/spool/postfix-mailfleet", f"/var/spool/{THIRD}"


@pytest.fixture
def host(monkeypatch, tmp_path):
    made = PostfixHost(monkeypatch, tmp_path)
    made.ports = dict.fromkeys((25, 10125, 10126, 10127), Stage.EHLO)
    made.store = str(tmp_path / "store")
    return made


def set_up(host, *modes, **more):
    configs = (config(mode.replace("_", "-"), mode) for mode in modes or MODES)
    host.apply(*configs, **more)
    host.running |= {SECOND_QUEUE, THIRD_QUEUE}


def found(host):
    """(what, code) -> message"""
    listed = describe(host.adapter, store=host.store)["differences"]
    assert len({(one["what"], one["code"]) for one in listed}) == len(listed)
    return {(one["what"], one["code"]): one["message"] for one in listed}


def the_one(host, what, code="gateway_differs"):
    listed = found(host)
    assert list(listed) == [(what, code)]
    return listed[what, code]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"enforced": [*inbound("partner.example"), outbound("bank.example", "hostname", "mx.bank.example")]},
        {"outbound": OutboundTls("tls_only", "match_sender_strict", ("192.0.2.0/24",))},
    ],
)
def test_as_it_was_set(host, more):
    set_up(host, **more)
    assert found(host) == {}


def test_main_cf_of_another_role(host):
    set_up(host)
    host.fake.main.write_text("myhostname = gw.example\nrelay_domains = required.example\n")
    host.adapter._postconf.forget()
    listed = found(host)
    wanted = {(f"email config {one.replace('_', '-')}", "gateway_differs") for one in MODES}
    assert set(listed) == {*wanted, ("gateway", "instance_differs")}
    assert listed["email config required", "gateway_differs"] == (
        f"transport_maps does not name {host.directory}/transport"
    )
    assert "does not ask the policy service" in listed[BY_ARRIVAL, "gateway_differs"]


class TestTables:
    def test_an_emptied_table(self, host):
        set_up(host, "required")
        (host.directory / "transport").write_text("")
        assert the_one(host, "email config required") == f"{host.directory}/transport has no entry for required.example"

    def test_a_table_of_the_administrator_behind_an_emptied_one(self, host):
        set_up(host, "required")
        (host.directory / "transport").write_text("")
        edit(host, transport_maps=f"texthash:{host.directory}/transport, hash:/own")
        host.fake.tables["hash:/own"] = {"required.example": "smtp:[192.0.2.1]"}
        assert the_one(host, "email config required") == (
            f"{host.directory}/transport has no entry for required.example, so hash:/own leads to the transport 'smtp'"
        )

    def test_a_table_from_a_backup_that_leads_elsewhere(self, host):
        set_up(host, "required")
        (host.directory / "transport").write_text("required.example mailfleet-required:[old.example]:25\n")
        message = the_one(host, "email config required")
        assert message.endswith(
            "/transport leads mail for required.example to [old.example]:25, not to its mail servers"
        )

    def test_a_table_of_the_administrator_before_ours(self, host):
        set_up(host, "required")
        edit(host, transport_maps=f"hash:/own, texthash:{host.directory}/transport")
        host.fake.tables["hash:/own"] = {"required.example": "smtp:[192.0.2.1]"}
        assert the_one(host, "email config required") == (
            "hash:/own leads mail for required.example to the transport 'smtp'"
        )

    def test_a_table_that_cannot_be_asked_is_an_error_only_where_tls_was_promised(self, host):
        set_up(host, "required", "opportunistic")
        edit(host, transport_maps=f"texthash:/nowhere, texthash:{host.directory}/transport")
        listed = found(host)
        assert set(listed) == {
            ("email config required", "gateway_unproved"),
            ("email config opportunistic", "gateway_not_told"),
        }
        assert "open /nowhere: No such file" in listed["email config required", "gateway_unproved"]

    def test_an_option_of_the_service_that_resolves(self, host):
        set_up(host, "required")
        entry = "rewrite unix - - n - - trivial-rewrite -o transport_maps="
        edit(host, [("rewrite/unix", entry)])
        assert "does not name" in the_one(host, "email config required")

    def test_another_service_that_resolves(self, host):
        set_up(host, "required")
        edit(host, rewrite_service_name="other")
        assert the_one(host, "email config required", "gateway_unproved").endswith(
            "another service, other, resolves addresses"
        )

    def test_many_domains_are_one_short_text(self, host):
        domains = [f"d{number:03}.example" for number in range(200)]
        host.apply(config("one", "required", *domains))
        (host.directory / "transport").write_text("")
        assert the_one(host, "email config one").endswith("d004.example and others")


def test_many_email_configs_are_looked_up_together(host):
    host.apply(
        *(config(f"c{number}", MODES[number % len(MODES)]) for number in range(60)), enforced=inbound("partner.example")
    )
    host.running |= {SECOND_QUEUE, THIRD_QUEUE}
    host.adapter._postconf.forget()
    host.fake.calls.clear()
    assert not host.adapter.faults(host.adapter.read())
    assert len(host.fake.called("sh")) == 2 * 3, "for the whole addresses and the domains, on each instance"
    assert len(host.fake.calls) <= 20


@pytest.mark.parametrize(("level", "said"), [("may", "'opportunistic'"), ("none", "'disabled'")])
def test_another_level_in_master_cf(host, level, said):
    set_up(host, "required")
    edit(
        host,
        [("mailfleet-required/unix", f"mailfleet-required unix - - y - - smtp -o smtp_tls_security_level={level}")],
    )
    assert the_one(host, "email config required") == (
        f"the transport mailfleet-required in master.cf has the TLS level of {said}"
    )


class TestSecondInstance:
    @pytest.fixture(autouse=True)
    def gateway(self, host):
        set_up(host, "match_sender")

    def test_it_does_not_run(self, host):
        host.running.remove(SECOND_QUEUE)
        assert the_one(host, BY_ARRIVAL) == "the instance postfix-mailfleet does not run"

    def test_it_is_masked(self, host):
        host.running.remove(SECOND_QUEUE)
        unit = host.units / "postfix@mailfleet.service"
        unit.unlink()
        unit.symlink_to("/dev/null")
        assert the_one(host, BY_ARRIVAL).endswith("does not run: the unit postfix@mailfleet.service is masked")

    def test_it_runs_and_does_not_answer(self, host):
        host.ports[10125] = Stage.CONNECT
        assert the_one(host, BY_ARRIVAL).startswith(
            "the instance postfix-mailfleet does not answer on 127.0.0.1:10125: "
        )

    def test_it_runs_until_the_next_boot(self, host):
        (host.units / "multi-user.target.wants/postfix@mailfleet.service").unlink()
        assert the_one(host, BY_ARRIVAL).endswith(
            "would not start at the next boot: postfix@mailfleet.service is disabled"
        )

    def test_its_own_tables_lead_elsewhere(self, host):
        main = host.second / "main.cf"
        main.write_text(main.read_text().replace("\ntransport_maps =", "\ntransport_maps = hash:/own"))
        host.fake.tables["hash:/own"] = {"match-sender.example": "smtp:"}
        message = the_one(host, BY_ARRIVAL)
        assert message.endswith(" to the transport 'smtp' of the instance postfix-mailfleet")
        assert describe(host.adapter)["delivered_modes"] == {"match-sender.example": None}

    def test_its_level(self, host):
        master = host.second / "master.cf"
        head, name, rest = master.read_text().partition("mailfleet-match_sender unix")
        master.write_text(head + name + rest.replace("smtp_tls_security_level=may", "smtp_tls_security_level=none", 1))
        assert the_one(host, BY_ARRIVAL).endswith(
            "in master.cf of the instance postfix-mailfleet has the TLS level of 'disabled'"
        )


class TestPolicyService:
    @pytest.fixture(autouse=True)
    def gateway(self, host):
        set_up(host, "match_sender", enforced=inbound("partner.example"))

    def test_one_that_lets_everything_pass(self, host):
        host.policy = lambda questions: ["DUNNO"] * len(questions)
        listed = found(host)
        assert set(listed) == {(BY_ARRIVAL, "gateway_differs"), ("inbound partner.example", "gateway_differs")}
        assert listed[BY_ARRIVAL, "gateway_differs"] == (
            "the policy service answers 'DUNNO' for mail over TLS, not 'FILTER mailfleet-arrived:[127.0.0.1]:10125'"
        )
        assert "not '451 4.7.0 STARTTLS is required" in listed["inbound partner.example", "gateway_differs"]
        told = describe(host.adapter)
        assert (told["delivered_modes"], told["in_force"]["inbound"]) == (
            {"match-sender.example": None}, {"partner.example": None},
        )  # fmt: skip

    def test_one_that_does_not_answer(self, host):
        def fails(_questions):
            raise EngineError("it ends the session without an answer")

        host.policy = fails
        assert found(host)[BY_ARRIVAL, "gateway_differs"].startswith("the policy service does not work: it ends")

    def test_it_is_asked_once_for_each_question(self, host):
        asked = []
        host.policy = lambda questions: asked.append(questions) or host.answered(questions)
        assert found(host) == {}
        assert len(asked) == 2

    @pytest.mark.parametrize(
        ("edits", "code", "text"),
        [
            (
                {"smtpd_recipient_restrictions": "permit_mynetworks"},
                "gateway_differs",
                "does not ask the policy service",
            ),
            ({"mailfleet_arrival": "permit"}, "gateway_unproved", "the question in main.cf is another one"),
            ({"content_filter": "scan:[127.0.0.1]:10024"}, "gateway_unproved", "sets content_filter="),
        ],
    )
    def test_it_is_not_asked(self, host, edits, code, text):
        edit(host, **edits)
        assert text in found(host)[BY_ARRIVAL, code]

    def test_a_domain_that_is_not_asked_about(self, host):
        (host.directory / "arrival").write_text("# none\n")
        assert (
            f"{host.directory}/arrival has no entry for match-sender.example"
            in found(host)[BY_ARRIVAL, "gateway_differs"]
        )


def test_a_third_instance_that_does_not_run(host):
    set_up(host, "plaintext", enforced=inbound("partner.example"))
    host.running.remove(THIRD_QUEUE)
    listed = found(host)
    assert listed["inbound partner.example", "gateway_differs"] == (f"the instance {THIRD} does not run")


def test_outgoing_mail_that_depends_on_its_arrival(host):
    set_up(host, "plaintext", outbound=OutboundTls(None, "match_sender_strict"))
    host.running.remove(SECOND_QUEUE)
    assert the_one(host, "send") == "the instance postfix-mailfleet does not run"


def test_an_enforced_recipient_domain(host):
    set_up(host, "plaintext", enforced=[outbound("bank.example", "hostname", "mx.bank.example")])
    edit(host, transport_maps="")
    listed = found(host)
    assert "does not name" in listed["outbound bank.example", "gateway_differs"]


class TestCopies:
    @pytest.mark.parametrize(
        ("edits", "code"),
        [
            ({"myhostname": "new.example"}, "instance_differs"),
            ({"maillog_file": "/var/log/postfix.log"}, "instance_differs"),
            ({"smtp_helo_name": "new.example"}, "instance_differs"),
            ({"smtp_sasl_password_maps": "hash:/secret"}, "gateway_differs"),
            ({"smtp_bind_address": "192.0.2.9"}, "gateway_differs"),
        ],
    )
    def test_a_setting_that_the_first_one_changed(self, host, edits, code):
        set_up(host, "match_sender")
        edit(host, **edits)
        message = the_one(host, "gateway", code)
        assert message == (f"the instance postfix-mailfleet has other values than the first one in {', '.join(edits)}")

    def test_a_setting_that_the_first_one_has_no_more(self, host):
        edit(host, smtp_helo_name="old.example")
        set_up(host, "match_sender")
        edit(host, smtp_helo_name=None)
        assert "smtp_helo_name" in the_one(host, "gateway", "instance_differs")

    @pytest.mark.parametrize(
        "edits", [{"smtp_tls_security_level": "may"}, {"message_size_limit": "1"}, {"biff": "yes"}]
    )
    def test_what_the_instance_has_of_its_own(self, host, edits):
        set_up(host, "match_sender")
        edit(host, **edits)
        assert found(host) == {}

    def test_the_next_run_copies_it(self, host):
        set_up(host, "match_sender")
        edit(host, myhostname="new.example", maillog_file="/var/log/postfix.log")
        set_up(host, "match_sender")
        assert found(host) == {}
        assert "maillog_file = /var/log/postfix.log\n" in (host.second / "main.cf").read_text()


def test_edits_that_an_instance_has_not_read(host, monkeypatch):
    set_up(host, "match_sender")
    monkeypatch.setattr(
        truth, "not_read_yet", lambda place, _pid: [f"{place}/main.cf"] if place == str(host.second) else []
    )
    assert str(host.second / "main.cf") in the_one(host, "gateway", "edits_not_read")


def test_a_configuration_that_cannot_be_read(host):
    set_up(host, "required")
    host.adapter.read()
    host.fake.answers[("postconf",)] = (1, "", "postconf: fatal: no")
    host.adapter._postconf.forget()
    assert "postconf: fatal: no" in the_one(host, "gateway", "gateway_unproved")


@pytest.mark.parametrize(("place", "where"), [("etc", ""), ("second", " of the instance postfix-mailfleet")])
def test_a_floor_that_somebody_took_off_a_transport(host, place, where):
    set_up(host, "match_sender", min_tls="TLSv1.2")
    assert found(host) == {}
    master = getattr(host, place) / "master.cf"
    whole = master.read_text()
    begin = whole.index("mailfleet-required ")
    entry = whole[begin:].replace("smtp_tls_mandatory_protocols=>=TLSv1.2", "smtp_tls_mandatory_protocols=>=TLSv1.1", 1)
    master.write_text(whole[:begin] + entry)
    host.adapter._postconf.forget()
    assert found(host)["gateway", "gateway_differs"] == (
        f"the floor TLSv1.2 was set, and mailfleet-required{where} may use older TLS versions"
    )
