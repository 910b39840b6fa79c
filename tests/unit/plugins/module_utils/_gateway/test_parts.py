"""The whole wanted state of a gateway: which parts it asks for, and all of them in one transaction."""

import hashlib

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import engine
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import evidence as evidence_module
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import GatewayVerdict
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.enforced import Enforced
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import (
    Opening,
    refuse_to_stop_accepting,
    set_gateway,
    undo_killed_run,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EmailConfig,
    EnforcedDomain,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import Modes
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.outbound import Outbound
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.parts import gateway_result, parts_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    EngineError,
    NotExpressibleError,
    TransactionError,
)

from tests.support.gateway_bench import Bench

MAIN = {"name": "main", "domains": ["a.example"], "servers": ["mx.example"], "delivery_mode": "required"}
PARTNER = {"domain": "partner.example", "direction": "inbound"}
BANK = {"domain": "bank.example", "direction": "outbound", "servers": ["mx.example"]}
WANTED = {"email_configs": [MAIN], "accept": "both", "send": "opportunistic", "enforced_domains": [PARTNER, BANK]}
SET = GatewayState(
    {"main": EmailConfig("main", ("a.example",), (Target("mx.example"),), "required")},
    (EnforcedDomain("partner.example", "inbound"), EnforcedDomain("bank.example", "outbound", servers=(Target("mx.example"),))),
    OutboundTls("both", "opportunistic"),
)  # fmt: skip


class WholeBench(Bench):
    def set(self, wanted=WANTED, **options):
        return set_gateway(self.gateway, parts_of(self.gateway, wanted), self.common, store=str(self.store), **options)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = WholeBench(tmp_path, monkeypatch, evidence_module)
    bench.hold(GatewayState())
    bench.gateway.hops = {"bank.example": (Target("mx.example"),)}
    return bench


class TestParts:
    @pytest.mark.parametrize(
        "nothing", [{}, {"state": "present"}, dict.fromkeys(WANTED), {name: [] for name in WANTED}]
    )
    def test_what_is_not_given_is_no_part(self, bench, nothing):
        assert parts_of(bench.gateway, nothing) == []

    def test_each_part_in_the_safe_order(self, bench):
        assert parts_of(bench.gateway, WANTED) == [
            Modes([MAIN]),
            Outbound({"accept": "both", "send": "opportunistic", "mail_servers": None}),
            Enforced([PARTNER, BANK]),
        ]

    @pytest.mark.parametrize("path", ["", "/ca.pem"])
    def test_a_ca_file_alone_is_a_part(self, bench, path):
        assert parts_of(bench.gateway, {"enforced_ca_file": path}) == [Enforced((), ca_file=path)]

    @pytest.mark.parametrize("name", ["accept", "send"])
    def test_so_is_one_word_of_the_outbound_side(self, bench, name):
        [part] = parts_of(bench.gateway, {name: "plaintext"})
        assert isinstance(part, Outbound)

    def test_a_word_that_yaml_makes_of_off_is_not_taken_for_silence(self, bench):
        assert len(parts_of(bench.gateway, {"send": False})) == 1

    def test_plaintext_removes_the_requirement_first(self, bench):
        parts = parts_of(bench.gateway, {**WANTED, "state": "plaintext"})
        assert [type(one) for one in parts] == [Enforced, Modes, Outbound]
        assert parts[:2] == [Enforced([PARTNER, BANK], absent=True, all_inbound=True), Modes([MAIN], plaintext=True)]
        assert parts[2] == Outbound({"accept": "both", "send": "opportunistic", "mail_servers": None}, relax=True)

    def test_with_tls_off_no_mail_server_has_to_use_it_any_more(self, bench):
        """Whatever the inventory says of them: mail of theirs would be deferred."""
        [*_others, outbound] = parts_of(bench.gateway, {"send": "plaintext", "state": "plaintext"})
        held = OutboundTls("tls_only", "required", ("192.0.2.0/24",))
        after = outbound.compute(bench.gateway, GatewayState(outbound=held))
        assert after.outbound == OutboundTls("both", "plaintext", ("192.0.2.0/24",))
        after = outbound.compute(
            bench.gateway, GatewayState(outbound=OutboundTls("plaintext", None, ("192.0.2.0/24",)))
        )
        assert after.outbound.accept == "plaintext"

    def test_a_product_that_enforces_nothing_has_nothing_to_remove(self, bench):
        bench.gateway.limits = {"enforced": "no"}
        assert parts_of(bench.gateway, {"email_configs": [MAIN], "state": "plaintext"}) == [
            Modes([MAIN], plaintext=True)
        ]


class TestOneTransaction:
    def test_all_parts_are_set_with_one_reload(self, bench):
        outcome = bench.set()
        assert bench.held() == outcome.after == SET
        assert bench.gateway.log == ["require_running", "check", "reload", "prove"]

    def test_a_target_is_tested_once(self, bench):
        outcome = bench.set()
        assert bench.handshakes == [["mx.example:25"], ["gw.example:25"]]
        assert [str(one.target) for one in outcome.evidence] == ["mx.example:25", "gw.example:25"]

    def test_a_second_run_makes_no_handshake_and_no_change(self, bench):
        bench.set()
        bench.clear()
        outcome = bench.set()
        assert (outcome.changed, outcome.evidence, bench.handshakes) == (False, (), [])
        assert bench.gateway.log == ["require_running", "serves"]

    def test_what_is_not_given_stays(self, bench):
        bench.hold(SET)
        assert bench.set({"send": "plaintext"}).after == GatewayState(
            SET.email_configs, SET.enforced, OutboundTls("both", "plaintext")
        )

    def test_plaintext_goes_back_in_one_transaction_and_keeps_outbound_enforced_domains(self, bench):
        bench.hold(SET)
        outcome = bench.set({"email_configs": [{"name": "main"}], "state": "plaintext", "send": "plaintext"})
        assert outcome.after == GatewayState(
            {"main": EmailConfig("main", ("a.example",), (Target("mx.example"),), "plaintext")},
            SET.enforced[1:],
            OutboundTls("both", "plaintext"),
        )
        assert bench.gateway.log == ["require_running", "check", "reload", "prove"]

    def test_the_final_state_counts(self, bench):
        """A server without TLS is no objection to a mode if the same call removes the enforced domain."""
        bench.hold(SET)
        bench.servers["mx.example"] = ("no starttls",)
        with pytest.raises(EngineError, match="holds inbound enforced domains"):
            bench.set({"email_configs": [{**MAIN, "delivery_mode": "plaintext"}]})
        assert bench.set({"email_configs": [{"name": "main"}], "state": "plaintext"}).changed

    def test_all_objections_come_at_once_each_once(self, bench):
        bench.servers = {"mx.example": ("no starttls",), "gw.example": ("no starttls",)}
        with pytest.raises(EngineError) as error:
            bench.set()
        said = str(error.value)
        assert said.count("email config main: 'required' is refused") == 1
        assert "accept both is refused" in said
        assert said.count("an inbound enforced domain is refused") == 2
        assert "outbound enforced domain bank.example is refused" in said
        assert "holds inbound enforced domains" not in said  # it does not yet
        assert bench.held() == GatewayState()

    @pytest.mark.parametrize("step", ["check", "reload", "prove"])
    def test_a_failure_undoes_all_parts(self, bench, step):
        bench.gateway.fail[step] = "no good"
        with pytest.raises(TransactionError, match=r"^no good\. The former state is restored and proved$"):
            bench.set()
        assert bench.held() == GatewayState()

    @pytest.mark.parametrize(
        ("wanted", "limit"), [({"send": "plaintext"}, "outbound"), ({"enforced_domains": [PARTNER]}, "enforced")]
    )
    def test_a_limit_refuses_only_what_was_asked(self, bench, wanted, limit):
        bench.gateway.limits = {limit: "it is not made for that"}
        with pytest.raises(NotExpressibleError, match="it is not made for that"):
            bench.set(wanted)
        assert bench.gateway.log == []
        assert bench.set({"email_configs": [MAIN]}).changed

    @pytest.mark.parametrize("check_mode", [False, True])
    def test_without_a_word_the_gateway_is_left_alone(self, bench, check_mode):
        bench.hold(SET)
        bench.gateway.up = False
        outcome = bench.set({}, check_mode=check_mode)
        assert (outcome.changed, outcome.before, outcome.after, outcome.diff) == (False, SET, SET, [])
        assert bench.gateway.log == []

    def test_the_result(self, bench):
        bench.hold(GatewayState(outbound=OutboundTls(None, "plaintext")))
        result = gateway_result(bench.set())
        assert set(result) == {
            "changed", "before", "after", "email_configs", "outbound", "enforced_domains", "evidence", "recovered", "diff",
            "warnings",
        }  # fmt: skip
        assert (result["before"], result["after"]) == ({}, {"main": "required"})
        assert result["outbound"] == {
            "before": {"accept": None, "send": "plaintext", "mail_servers": []},
            "after": {"accept": "both", "send": "opportunistic", "mail_servers": []},
        }
        assert [one["domain"] for one in result["enforced_domains"]] == ["partner.example", "bank.example"]


class TestDigests:
    def digest(self, bench):
        return {str(bench.gateway.file): hashlib.sha256(bench.gateway.file.read_bytes()).hexdigest()}

    def test_files_as_the_plan_saw_them(self, bench):
        assert bench.set(digests={**self.digest(bench), str(bench.directory / "none"): "absent"}).changed

    @pytest.mark.parametrize("check_mode", [False, True])
    @pytest.mark.parametrize("digest", ["absent", "0" * 64])
    def test_a_file_that_changed_since_is_named(self, bench, digest, check_mode):
        with pytest.raises(EngineError) as error:
            bench.set(digests={str(bench.gateway.file): digest}, check_mode=check_mode)
        assert str(error.value) == (
            f"{bench.gateway.file} changed since the plan, so the plan is no longer true; nothing was changed; run again"
        )
        assert (bench.held(), bench.gateway.log) == (GatewayState(), [])


class TestOpening:
    """A change to the accepting side, made before in the same call, and undone with what follows."""

    @pytest.fixture
    def opened(self, bench):
        bench.port = bench.directory / "starttls"
        bench.port.write_text("off\n")
        bench.port.chmod(0o600)

        def prove(what):
            bench.gateway.log.append(f"prove {what}")
            assert bench.port.read_text() == f"{what}\n"

        def opening():
            bench.at_opening = bench.held(), list(bench.gateway.log), list(bench.handshakes)
            old = FileImage.read(str(bench.port))
            change = Change.of([FileImage(old.path, b"on\n", old.mode, old.uid, old.gid)])
            transaction = bench.gateway.transaction(str(bench.store))
            bench.gateway.fail, fail = {}, bench.gateway.fail
            transaction.apply(change, lambda: None, lambda: None, hold=True)
            bench.gateway.fail = fail
            return Opening(change, lambda: prove("on"), lambda: prove("off"))

        return opening

    def test_it_comes_before_the_evidence_and_stays_after_success(self, bench, opened):
        assert bench.set(opening=opened).changed
        assert bench.at_opening == (GatewayState(), ["require_running"], [])
        assert (bench.port.read_text(), bench.held()) == ("on\n", SET)

    @pytest.mark.parametrize("step", ["check", "reload", "prove"])
    def test_it_is_undone_and_proved_if_what_follows_fails(self, bench, opened, step):
        bench.gateway.fail[step] = "no good"
        with pytest.raises(TransactionError, match=r"^no good\. The former state is restored and proved$") as error:
            bench.set(opening=opened)
        assert error.value.restored
        assert (bench.port.read_text(), bench.held()) == ("off\n", GatewayState())
        assert bench.gateway.log[-2:] == ["prove off", "prove"]

    def test_it_is_undone_if_what_follows_is_refused(self, bench, opened):
        bench.servers["mx.example"] = ("down",)
        with pytest.raises(
            TransactionError, match=r"does not answer.*The former state is restored and proved$"
        ) as error:
            bench.set(opening=opened)
        assert error.value.restored
        assert (bench.port.read_text(), bench.held()) == ("off\n", GatewayState())
        assert bench.gateway.log[-2:] == ["resume", "prove off"]

    def test_a_refusal_after_which_it_cannot_be_undone_says_so(self, bench, opened):
        bench.servers["mx.example"] = ("down",)
        bench.gateway.fail["resume"] = "no good"
        with pytest.raises(TransactionError, match=r"The rollback failed as well: no good\.") as error:
            bench.set(opening=opened)
        assert not error.value.restored

    def test_what_follows_needs_no_change(self, bench, opened):
        bench.hold(SET)
        assert not bench.set(opening=opened).changed
        assert bench.port.read_text() == "on\n"

    def test_what_is_prepared_comes_before_it_and_stays(self, bench, opened):
        first = bench.directory / "first"
        image = FileImage(str(first), b"first\n", 0o600, bench.port.stat().st_uid, bench.port.stat().st_gid)
        bench.gateway.prepared = Change.of([image])
        prove = bench.gateway.prove

        def fail():
            prove()
            if bench.held() == SET:
                raise EngineError("no good")

        bench.gateway.prove = fail
        with pytest.raises(TransactionError):
            bench.set(opening=opened)
        assert bench.at_opening[1] == ["require_running", "check", "reload", "prove"]
        assert (first.exists(), bench.port.read_text(), bench.held()) == (True, "off\n", GatewayState())

    def test_without_a_change_of_its_own_it_is_nothing(self, bench):
        assert bench.set(opening=lambda: None).changed

    def test_check_mode_does_not_open(self, bench, opened):
        assert bench.set(opening=opened, check_mode=True).changed
        assert bench.port.read_text() == "off\n"


class TestKilledRun:
    def test_there_is_none(self, bench):
        assert undo_killed_run(bench.gateway, store=str(bench.store)) == (False, [])

    @pytest.mark.parametrize("check_mode", [False, True])
    def test_it_is_undone_and_nothing_else(self, bench, check_mode):
        with bench.gateway.transaction(str(bench.store)).locked() as transaction:
            change = bench.gateway.plan(SET)
            transaction._begin(change, [])
            change.after[0].write()
        recovered, warnings = undo_killed_run(bench.gateway, check_mode, str(bench.store))
        assert (recovered, len(warnings)) == (not check_mode, int(check_mode))
        assert bench.held() == (SET if check_mode else GatewayState())
        assert bench.gateway.log == ([] if check_mode else ["resume", "prove"])

    def test_the_result_of_a_change_says_so(self, bench):
        with bench.gateway.transaction(str(bench.store)).locked() as transaction:
            transaction._begin(bench.gateway.plan(SET), [])
        outcome = bench.set({"send": "plaintext"})
        assert (outcome.recovered, outcome.changed) == (True, True)


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        (GatewayState(), False),
        (SET, True),
        (GatewayState(enforced=SET.enforced[1:]), False),
        (GatewayState(outbound=OutboundTls("tls_only", None, ("192.0.2.1/32",))), True),
        (GatewayState(outbound=OutboundTls("both")), False),
    ],
)
def test_starttls_stays_on_while_the_gateway_requires_it(state, refused):
    if not refused:
        return refuse_to_stop_accepting(state)
    with pytest.raises(EngineError, match="remove that requirement first"):
        refuse_to_stop_accepting(state)


def test_equal_objections_are_one():
    one, two = GatewayVerdict(("a",), ("l",), (), ("w",)), GatewayVerdict(("b", "a"), ("l",), (), ("w", "v"))
    assert engine.union([one, two]) == GatewayVerdict(("a", "b"), ("l",), (), ("w", "v"))
