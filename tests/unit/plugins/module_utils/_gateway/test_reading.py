"""The observed state of a gateway, and what a change would do: read without a change, whatever stands in the way."""

import hashlib

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import reading as module
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    MODES,
    EmailConfig,
    EnforcedDomain,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.reading import probe_targets, read_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    BrokenConfigurationError,
    EngineError,
    NotRunningError,
    PortInUseError,
)

from tests.support.gateway_bench import Bench

MAIN = EmailConfig("main", ("a.example", "b.example"), (Target("mx.example"),), "opportunistic")
OTHER = EmailConfig("alpha", ("c.example",), (Target("mx2.example", 26),), "plaintext")
HELD = GatewayState(
    {"main": MAIN, "alpha": OTHER}, (EnforcedDomain("partner.example", "inbound"),), OutboundTls("both", "plaintext")
)
WANTED = {"email_configs": [{"name": "main", "delivery_mode": "required"}]}


class ReadingBench(Bench):
    def read(self, wanted=None, **options):
        before = self.gateway.file.read_bytes()
        result = read_gateway(self.gateway, wanted or {}, self.common, store=str(self.store), **options)
        assert (self.gateway.file.read_bytes(), self.store.exists()) == (before, False)
        return result


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = ReadingBench(tmp_path, monkeypatch, module)
    bench.hold(HELD)
    return bench


def codes(result):
    return [one["code"] for one in result["obstacles"]]


def test_what_the_gateway_holds_and_can_do(bench):
    bench.gateway.limits = {"outbound": "no"}
    bench.gateway.verifying_modes = ("required",)
    bench.gateway.delivered = {"a.example": "required"}
    result = bench.read(capabilities=("accept", "enforced"))
    assert result["gateway"] == {
        "title": "a stand-in for a gateway",
        "email_configs": [OTHER.to_dict(), MAIN.to_dict()],
        "delivery_modes": list(MODES),
        "verifying_modes": ["required"],
        "softens_refusals": True,
        "limits": {"outbound": "no"},
        "capabilities": ["accept", "enforced"],
        "enforced_domains": [{"domain": "partner.example", "direction": "inbound"}],
        "outbound": {"accept": "both", "send": "plaintext", "mail_servers": []},
        "accepted_domains": {},
        "delivered_modes": {"a.example": "required", "b.example": None, "c.example": None},
        "in_force": {"inbound": {"partner.example": None}, "accept": {"both": None}, "send": {"plaintext": None}},
        "differences": [
            {
                "what": "email config main",
                "code": "gateway_differs",
                "severity": "error",
                "message": "the mode 'opportunistic' was set, and a.example is delivered in the mode 'required'",
            }
        ],
        "keeps_names": True,
        "changes": [],
        "reload": False,
        "before": {"alpha": "plaintext", "main": "opportunistic"},
        "after": {"alpha": "plaintext", "main": "opportunistic"},
    }
    assert (result["obstacles"], result["digests"], result["interrupted"]) == ([], {}, False)
    assert bench.gateway.log == ["require_running"]


def test_what_a_change_would_write(bench):
    result = bench.read(WANTED)
    gateway = result["gateway"]
    assert gateway["after"] == {"alpha": "plaintext", "main": "required"}
    [change] = gateway["changes"]
    assert change["path"] == str(bench.gateway.file)
    assert '+      "delivery_mode": "required"' in change["lines"]
    assert result["digests"] == {str(bench.gateway.file): hashlib.sha256(bench.gateway.file.read_bytes()).hexdigest()}
    assert bench.gateway.log == ["require_running"]


def test_a_state_that_is_there_already_changes_nothing_and_has_its_digests(bench):
    result = bench.read({"email_configs": [MAIN.to_dict()]})
    assert (result["gateway"]["changes"], list(result["digests"])) == ([], [str(bench.gateway.file)])


def test_evidence_is_no_obstacle_here_because_an_earlier_step_may_bring_it(bench):
    bench.servers = {"mx.example": ("no starttls",), "gw.example": ("down",)}
    result = bench.read(WANTED)
    assert (result["obstacles"], len(result["gateway"]["changes"])) == ([], 1)
    assert [one["completed"] for one in result["probe"]["results"]] == [False, True, False]


def test_the_own_port_and_every_server_are_tested_once_at_the_same_time(bench):
    wanted = {"email_configs": [{**MAIN.to_dict(), "servers": ["mx.example", "MX3.example"]}]}
    result = bench.read(wanted)
    assert bench.handshakes == [["gw.example:25", "mx2.example:26", "mx.example:25", "mx3.example:25"]]
    assert [one.ask_plaintext for one in bench.settings] == [True]
    assert {one["host"] for one in result["probe"]["results"]} == {
        "gw.example",
        "mx.example",
        "mx2.example",
        "mx3.example",
    }
    assert result["probe"]["certificates"] == {}


def test_the_caller_may_make_the_tests(bench):
    result = bench.read(WANTED, probe=False)
    assert (result["probe"], bench.handshakes) == (None, [])
    targets = [str(one) for one in probe_targets(bench.gateway, result["gateway"], WANTED)]
    assert targets == ["gw.example:25", "mx2.example:26", "mx.example:25"]
    assert [str(one) for one in probe_targets(bench.gateway, None, {"email_configs": [{"servers": ["a b", "x"]}]})] == [
        "gw.example:25",
        "x:25",
    ]


def test_a_gateway_without_a_port_in_reach(bench):
    bench.gateway.own_port = None
    assert [str(one) for one in probe_targets(bench.gateway, None, {})] == []


class TestObstacles:
    @pytest.mark.parametrize(
        ("wanted", "code"),
        [
            ({"email_configs": [{"name": "main", "delivery_mode": "match_sender"}]}, "mode_not_expressible"),
            ({"send": "plaintext"}, "mode_not_expressible"),
            ({"enforced_domains": [{"domain": "a.example", "direction": "inbound"}]}, "mode_not_expressible"),
            ({"email_configs": [{"name": "new"}]}, "change_refused"),
            ({"email_configs": [{"name": "main", "servers": ["a b"]}]}, "change_refused"),
        ],
    )
    def test_a_part_that_is_refused(self, bench, wanted, code):
        bench.gateway.modes = ("plaintext", "opportunistic", "required")
        bench.gateway.limits = {"outbound": "no", "enforced": "no"}
        result = bench.read(wanted)
        assert codes(result) == [code]
        assert result["gateway"]["changes"] == []

    def test_the_other_parts_are_computed_all_the_same(self, bench):
        result = bench.read({"email_configs": [{"name": "new"}], "send": "required"})
        assert codes(result) == ["change_refused"]
        assert '+    "send": "required"' in result["gateway"]["changes"][0]["lines"]

    def test_all_of_them_at_once(self, bench):
        bench.gateway.limits = {"outbound": "no"}
        result = bench.read({"email_configs": [{"name": "new"}], "send": "required"})
        assert codes(result) == ["change_refused", "mode_not_expressible"]

    def test_a_port_in_use_hides_nothing_else(self, bench, monkeypatch):
        monkeypatch.setattr(bench.gateway, "require_running", raising(PortInUseError("another service")))
        result = bench.read(WANTED)
        assert result["obstacles"] == [{"code": "port_in_use", "message": "another service"}]
        assert len(result["gateway"]["changes"]) == 1

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (EngineError("mute"), "not_answering"),
            (NotRunningError("stopped"), "daemon_not_running"),
            (BrokenConfigurationError("broken"), "configuration_broken"),
        ],
    )
    def test_a_gateway_that_does_not_run_is_read_but_not_planned(self, bench, monkeypatch, error, code):
        monkeypatch.setattr(bench.gateway, "require_running", raising(error))
        monkeypatch.setattr(bench.gateway, "plan", raising(AssertionError))
        result = bench.read(WANTED)
        assert result["obstacles"] == [{"code": code, "message": str(error)}]
        assert result["gateway"]["after"] == result["gateway"]["before"]

    def test_one_fault_in_two_places_is_told_once(self, bench, monkeypatch):
        monkeypatch.setattr(bench.gateway, "require_running", raising(EngineError("no answer of the API")))
        monkeypatch.setattr(bench.gateway, "read", raising(EngineError("no answer of the API")))
        result = bench.read(WANTED)
        assert result["obstacles"] == [{"code": "not_answering", "message": "no answer of the API"}]
        assert result["gateway"] is None
        assert bench.handshakes == [["gw.example:25"]]

    def test_wanted_email_configs_that_a_gateway_cannot_find_leave_the_others(self, bench, monkeypatch):
        read = bench.gateway.read

        def strict(wanted=()):
            if wanted:
                raise EngineError("a.example is not a relay domain")
            return read()

        monkeypatch.setattr(bench.gateway, "read", strict)
        result = bench.read(WANTED)
        assert codes(result) == ["change_refused"]
        assert len(result["gateway"]["email_configs"]) == 2

    @pytest.mark.parametrize(
        ("error", "said"),
        [(EngineError("no"), "no"), (OSError(13, "Permission denied", "/x"), "/x: Permission denied")],
    )
    def test_a_plan_that_fails(self, bench, monkeypatch, error, said):
        monkeypatch.setattr(bench.gateway, "plan", raising(error))
        result = bench.read(WANTED)
        assert result["obstacles"] == [{"code": "change_refused", "message": said}]
        assert result["gateway"]["changes"] == []


class TestAcceptedDomains:
    def test_those_of_the_wanted_email_configs_and_those_that_are_asked_for(self, bench, monkeypatch):
        bench.gateway.accepted = {"a.example": True, "b.example": False}
        asked = []
        accepts = bench.gateway.accepts
        monkeypatch.setattr(bench.gateway, "accepts", lambda domains: asked.append(domains) or accepts(domains))
        result = bench.read(WANTED, domains=["X.example.", "a.example"])
        assert result["gateway"]["accepted_domains"] == {"a.example": True, "b.example": False, "x.example": None}
        assert asked == [["a.example", "b.example", "x.example"]]  # in one call

    def test_a_new_email_config_counts_and_an_odd_name_is_never_looked_up(self, bench, monkeypatch):
        monkeypatch.setattr(bench.gateway, "accepts", lambda domains: dict.fromkeys(domains, True))
        wanted = {"email_configs": [{"name": "new", "domains": ["d.example", "e}{x"], "servers": ["mx.example"]}]}
        assert bench.read(wanted)["gateway"]["accepted_domains"] == {"d.example": True, "e}{x": None}

    def test_an_error_is_an_obstacle_and_the_domains_are_unknown(self, bench, monkeypatch):
        monkeypatch.setattr(bench.gateway, "accepts", raising(EngineError("no")))
        result = bench.read(domains=["a.example"])
        assert (result["gateway"]["accepted_domains"], codes(result)) == ({"a.example": None}, ["change_refused"])


def test_a_killed_run_is_told_and_stays(bench):
    journal = bench.store / "fake-gateway.journal"
    bench.store.mkdir()
    journal.write_text("{}")
    assert read_gateway(bench.gateway, {}, bench.common, store=str(bench.store))["interrupted"] is True
    assert journal.exists()


def raising(error):
    def fail(*_arguments):
        raise error

    return fail


def test_what_could_not_be_switched_off_again_stands_in_the_way_of_switching_on(bench):
    def refuse(after):
        raise EngineError(f"{sorted(after.email_configs)}: tls.ini, line 3; take it out first")

    bench.gateway.refuse_one_way = refuse
    said = "TLS could not be switched off again here: ['alpha', 'main']: tls.ini, line 3; take it out first"
    assert {"code": "not_reversible", "message": said} in bench.read(WANTED)["obstacles"]
    for other in (
        {},
        {**WANTED, "state": "plaintext"},
        {"email_configs": [{"name": "main", "delivery_mode": "opportunistic"}]},
    ):
        assert "not_reversible" not in codes(bench.read(other))
