"""Delivery modes: email configs as data, and the one transaction that sets them on the evidence of handshakes."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import evidence as evidence_module
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import queue
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    LEVELS,
    MODES,
    EmailConfig,
    EnforcedDomain,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import merge, set_modes, summary
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import is_domain
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

from tests.support.gateway_bench import Bench

GOOD = {"name": "main", "domains": ["a.example"], "servers": ["mx.example"], "delivery_mode": "plaintext"}


def config(name="main", delivery_mode="plaintext", domains=None, servers=("mx.example",)):
    return EmailConfig(name, tuple(domains or [f"{name}.example"]), tuple(map(Target.parse, servers)), delivery_mode)


class TestFromDict:
    @pytest.mark.parametrize("mode", MODES)
    def test_a_good_one(self, mode):
        assert EmailConfig.from_dict({**GOOD, "delivery_mode": mode}) == config("main", mode, ["a.example"])

    def test_without_a_mode_it_is_plaintext(self):
        assert EmailConfig.from_dict({**GOOD, "delivery_mode": None}).delivery_mode == "plaintext"
        assert EmailConfig.from_dict({key: GOOD[key] for key in GOOD if key != "delivery_mode"}) == config(
            "main", "plaintext", ["a.example"]
        )

    @pytest.mark.parametrize(
        "name", ["", None, "a\n", "a\nb", "-a", " a", "a" * 64, "ümlaut", "a/b", "a:b", "a\tb", "\x1b[31m"]
    )
    def test_a_bad_name(self, name):
        with pytest.raises(EngineError) as error:
            EmailConfig.from_dict({**GOOD, "name": name})
        assert "has to be 1 to 63 letters, digits, spaces or _.@-" in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("name", ["a", "A b.c_d@e-f", "1", 7, "a" * 63])
    def test_a_good_name(self, name):
        assert EmailConfig.from_dict({**GOOD, "name": name}).name == str(name)

    @pytest.mark.parametrize("mode", [True, "", "off", "on", "Required", "required\n", "tls", 1, ["required"]])
    def test_a_bad_mode(self, mode):
        with pytest.raises(EngineError) as error:
            EmailConfig.from_dict({**GOOD, "delivery_mode": mode})
        assert str(error.value) == (
            f"email config main: {str(mode)!r} is not a delivery mode; choose one of "
            "plaintext, match_sender, match_sender_strict, opportunistic, required"
        )

    @pytest.mark.parametrize("mode", [False, 0, [], {}])
    def test_the_boolean_that_yaml_makes_of_off_is_no_mode(self, mode):
        with pytest.raises(EngineError, match="is not a delivery mode"):
            EmailConfig.from_dict({**GOOD, "delivery_mode": mode})

    @pytest.mark.parametrize(
        "domain",
        ["", "a b", "a..b", ".a", "-a.example", "a-.example", "müller.example", "a.example\n", "a.example\nb.example x:y",
         "a" * 64 + ".example", "a." * 127 + "example", "*.example", "@a.example", "a,b", "a#b", "#", "\uff41.example"],
    )  # fmt: skip
    def test_a_bad_domain(self, domain):
        with pytest.raises(EngineError) as error:
            EmailConfig.from_dict({**GOOD, "domains": ["b.example", domain]})
        assert str(error.value).startswith("email config main: ")
        assert str(error.value).endswith("is not a domain name (write it in ASCII)")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("domain", "kept"),
        [
            ("Example.COM", "example.com"),
            ("a.example.", "a.example"),
            ("xn--mller-kva.example", "xn--mller-kva.example"),
            ("localhost", "localhost"),
            ("_x.a.example", "_x.a.example"),
            ("a" * 63 + ".example", "a" * 63 + ".example"),
        ],
    )
    def test_a_good_domain(self, domain, kept):
        assert EmailConfig.from_dict({**GOOD, "domains": [domain]}).domains == (kept,)

    @pytest.mark.parametrize(
        "server",
        ["", "mx.example\n", "mx.example:25\n", "a b", "mx.example:0", "mx.example:70000", "mx:smtp", "[::1", "mx;id"],
    )
    def test_a_bad_server(self, server):
        with pytest.raises(EngineError, match=r"^email config main: ") as error:
            EmailConfig.from_dict({**GOOD, "servers": [server]})
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("empty", [None, [], ()])
    @pytest.mark.parametrize("what", ["domains", "servers"])
    def test_none_at_all(self, what, empty):
        with pytest.raises(EngineError, match=f"^email config main has no {what}$"):
            EmailConfig.from_dict({**GOOD, what: empty})

    @pytest.mark.parametrize(
        ("what", "values"),
        [("domains", ["a.example", "A.example."]), ("servers", ["mx.example", "mx.example:25"])],
    )
    def test_one_twice(self, what, values):
        with pytest.raises(EngineError, match=f"^email config main names one of its {what} twice$"):
            EmailConfig.from_dict({**GOOD, what: values})

    def test_one_server_twice_in_another_spelling(self):
        with pytest.raises(EngineError, match="twice"):
            EmailConfig.from_dict({**GOOD, "servers": ["mx.example", "MX.example"]})

    @pytest.mark.parametrize("what", ["domains", "servers"])
    def test_a_string_is_no_list(self, what):
        with pytest.raises(EngineError, match=f"^email config main: {what} has to be a list$"):
            EmailConfig.from_dict({**GOOD, what: "abc"})

    def test_servers_are_kept_in_lower_case(self):
        made = EmailConfig.from_dict({**GOOD, "servers": ["MX.Example:26", "[2001:DB8::1]"]})
        assert [str(one) for one in made.servers] == ["mx.example:26", "[2001:db8::1]:25"]


def test_summary():
    assert list(summary({"b": config("b", "required"), "a": config("a")}).items()) == [
        ("a", "plaintext"),
        ("b", "required"),
    ]


class TestMerge:
    HELD = {"main": config("main", "opportunistic"), "other": config("other", "required")}  # noqa: RUF012

    def test_a_new_one(self):
        after = merge(self.HELD, [{**GOOD, "name": "new", "delivery_mode": "required"}])
        assert after == {**self.HELD, "new": config("new", "required", ["a.example"])}

    @pytest.mark.parametrize("mode", [None, ""])
    def test_a_new_one_without_a_mode(self, mode):
        assert merge({}, [{**GOOD, "delivery_mode": mode}])["main"].delivery_mode == "plaintext"

    @pytest.mark.parametrize("missing", ["domains", "servers"])
    @pytest.mark.parametrize("value", [None, []])
    def test_a_new_one_needs_domains_and_servers(self, missing, value):
        with pytest.raises(EngineError) as error:
            merge(self.HELD, [{**GOOD, "name": "new", missing: value}])
        assert str(error.value) == (
            "email config 'new' is not known to this gateway: give its domains and servers as well"
        )

    def test_a_change_by_name_keeps_the_route(self):
        after = merge(self.HELD, [{"name": "main", "delivery_mode": "required", "domains": None, "servers": []}])
        assert after["main"] == config("main", "required")
        assert after["other"] == self.HELD["other"]

    def test_a_change_of_the_route_keeps_the_mode(self):
        after = merge(self.HELD, [{"name": "main", "domains": ["x.example"], "servers": ["my.example:26"]}])
        assert after["main"] == config("main", "opportunistic", ["x.example"], ["my.example:26"])

    def test_a_name_alone_changes_nothing(self):
        assert merge(self.HELD, [{"name": "main"}]) == self.HELD

    def test_plaintext_keeps_the_route_and_goes_back_to_plaintext(self):
        assert merge(self.HELD, [{"name": "main"}], plaintext=True)["main"] == config("main", "plaintext")

    def test_plaintext_ignores_what_else_is_given(self):
        item = {"name": "main", "domains": ["x.example"], "delivery_mode": "required"}
        assert merge(self.HELD, [item], plaintext=True)["main"] == config("main", "plaintext")

    def test_plaintext_and_unknown_is_nothing(self):
        assert merge(self.HELD, [{**GOOD, "name": "never-there"}], plaintext=True) == self.HELD

    NEW = {**GOOD, "name": "new", "domains": ["Other.example."]}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("wanted", "owners"),
        [
            ([NEW, {**GOOD, "name": "newer", "domains": ["x.example", "other.example"]}], "new and newer"),
            ([NEW, {"name": "other"}], "other and new"),
            ([{"name": "other", "delivery_mode": "plaintext"}, NEW], "other and new"),
            ([{"name": "main", "domains": ["main.example", "other.example"]}, {"name": "other"}], "main and other"),
            ([{"name": "main", "domains": ["other.example"]}, NEW], "main and new"),
        ],
    )
    def test_one_domain_in_two_email_configs_of_a_call(self, wanted, owners):
        with pytest.raises(EngineError) as error:
            merge(self.HELD, wanted)
        assert str(error.value) == f"the domain other.example is in two email configs, {owners}"

    def test_an_email_config_is_renamed(self):
        after = merge(self.HELD, [{**self.NEW, "delivery_mode": "required"}])
        assert after == {"main": self.HELD["main"], "new": config("new", "required", ["other.example"])}

    def test_an_email_config_is_split(self):
        both = config("both", "required", ["a.example", "b.example", "c.example"], ["mx.example", "mx2.example:26"])
        after = merge({"both": both, **self.HELD}, [{**GOOD, "name": "new", "domains": ["B.example", "d.example"]}])
        left = config("both", "required", ["a.example", "c.example"], ["mx.example", "mx2.example:26"])
        assert after == {"both": left, **self.HELD, "new": config("new", "plaintext", ["b.example", "d.example"])}

    def test_a_held_one_takes_domains_as_well(self):
        after = merge(self.HELD, [{"name": "main", "domains": ["main.example", "other.example"]}])
        assert after == {"main": config("main", "opportunistic", ["main.example", "other.example"])}

    def test_domains_of_several_are_taken_at_once(self):
        held = {**self.HELD, "third": config("third", "required", ["x.example", "y.example"])}
        after = merge(held, [{**GOOD, "domains": ["main.example", "other.example", "y.example"], "name": "new"}])
        assert set(after) == {"third", "new"}
        assert after["third"].domains == ("x.example",)

    def test_two_of_a_call_divide_a_held_one_between_them(self):
        held = {"both": config("both", "required", ["a.example", "b.example"])}
        after = merge(held, [{**GOOD, "name": name, "domains": [f"{name}.example"]} for name in "ab"])
        assert after == {"a": config("a"), "b": config("b")}

    def test_plaintext_takes_no_domains(self):
        assert merge(self.HELD, [self.NEW], plaintext=True) == self.HELD
        after = merge(self.HELD, [{"name": "main", "domains": ["other.example"]}], plaintext=True)
        assert after == {**self.HELD, "main": config("main", "plaintext")}

    def test_a_domain_may_move_in_one_call(self):
        after = merge(
            self.HELD,
            [{"name": "main", "domains": ["other.example"]}, {"name": "other", "domains": ["main.example"]}],
        )
        assert after["main"].domains == ("other.example",)

    def test_what_is_held_is_not_changed(self):
        held = dict(self.HELD)
        merge(held, [{"name": "main", "delivery_mode": "required"}])
        assert held == self.HELD
        merge(held, [self.NEW])
        assert held == self.HELD

    def test_one_name_twice_is_refused(self):
        with pytest.raises(EngineError, match=r"^the email config 'main' is given twice$"):
            merge({}, [{**GOOD, "domains": ["a.example"]}, {**GOOD, "domains": ["b.example"]}])

    def test_the_boolean_that_yaml_makes_of_off_does_not_switch_tls_off(self):
        with pytest.raises(EngineError, match="is not a delivery mode"):
            merge(self.HELD, [{"name": "main", "delivery_mode": False}])


@pytest.mark.parametrize("mode", MODES)
def test_only_the_modes_that_match_the_sender_depend_on_arrival(mode):
    assert config("main", mode).depends_on_arrival is (mode in ("match_sender", "match_sender_strict"))


def test_the_modes_and_their_levels():
    assert LEVELS == {
        "plaintext": ("disabled", "disabled"),
        "match_sender": ("disabled", "opportunistic"),
        "match_sender_strict": ("disabled", "required"),
        "opportunistic": ("opportunistic", "opportunistic"),
        "required": ("required", "required"),
    }


def state(*configs, **more):
    return GatewayState({one.name: one for one in configs}, **more)


class ModeBench(Bench):
    def hold(self, *configs, **more):
        super().hold(state(*configs, **more))

    def held_configs(self):
        return self.held().email_configs

    def set(self, *wanted, **options):
        return set_modes(self.gateway, wanted, self.common, store=str(self.store), **options)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return ModeBench(tmp_path, monkeypatch, evidence_module)


def wanted(mode, name="main", servers=("mx.example",)):
    return {"name": name, "domains": [f"{name}.example"], "servers": list(servers), "delivery_mode": mode}


class TestSetModes:
    @pytest.mark.parametrize("mode", MODES)
    def test_a_mode_is_set_and_proved(self, bench, mode):
        outcome = bench.set(wanted(mode))
        assert bench.held() == outcome.after == state(config("main", mode))
        assert (outcome.changed, outcome.before, outcome.recovered, outcome.warnings) == (True, state(), False, ())
        assert bench.gateway.log == ["require_running", "check", "reload", "prove"]
        assert [str(one.target) for one in outcome.evidence] == ["mx.example:25"]
        assert f'+      "delivery_mode": "{mode}"' in outcome.diff[0]["prepared"]

    def test_the_handshake_asks_for_plaintext_and_does_not_judge(self, bench):
        bench.set(wanted("required"))
        assert (bench.settings[0].ask_plaintext, bench.settings[0].verify_trust) == (True, False)
        assert bench.settings[0].helo_name == "gw.example"

    def test_a_second_run_makes_no_handshake_and_no_change(self, bench):
        bench.set(wanted("required"))
        bench.gateway.log.clear()
        bench.handshakes.clear()
        outcome = bench.set(wanted("required"))
        assert (outcome.changed, outcome.evidence, outcome.diff) == (False, (), [])
        assert (bench.handshakes, bench.gateway.log) == ([], ["require_running", "serves"])

    def test_a_gateway_that_does_not_serve_is_reloaded_and_proved_though_no_file_changes(self, bench):
        bench.hold(config("main", "required"))
        content = bench.gateway.file.read_bytes()
        bench.gateway.up = False
        outcome = bench.set(wanted("required"))
        assert (outcome.changed, outcome.diff, outcome.evidence) == (True, [], ())
        assert bench.gateway.log == ["require_running", "serves", "check", "reload", "prove"]
        assert outcome.before == outcome.after == state(config("main", "required"))
        assert bench.gateway.file.read_bytes() == content
        assert not bench.set(wanted("required")).changed

    def test_check_mode_predicts_that_reload(self, bench):
        bench.hold(config("main", "required"))
        bench.gateway.up = False
        outcome = bench.set(wanted("required"), check_mode=True)
        assert (outcome.changed, outcome.diff) == (True, [])
        assert bench.gateway.log == ["require_running", "serves"]

    def test_a_gateway_that_still_does_not_serve_is_an_error(self, bench):
        bench.hold(config("main", "required"))
        bench.gateway.up = False
        bench.gateway.fail["reload"] = "systemctl start failed"
        with pytest.raises(TransactionError, match=r"^systemctl start failed\. ") as error:
            bench.set(wanted("required"))
        assert error.value.restored  # the files are as they were, and resuming brought it up
        assert bench.gateway.log[2:] == ["check", "reload", "resume", "prove"]

    def test_a_change_is_not_preceded_by_that_look(self, bench):
        bench.gateway.up = False
        assert bench.set(wanted("required")).changed
        assert "serves" not in bench.gateway.log

    @pytest.mark.parametrize("known", [True, False])
    @pytest.mark.parametrize(
        ("how", "reason"),
        [
            ("no starttls", "the server does not offer STARTTLS"),
            ("broken", "the handshake failed: no common cipher"),
            ("mute", "no answer to EHLO in time"),
            ("down", "cannot connect to mx2.example:25: refused"),
        ],
    )
    @pytest.mark.parametrize("mode", ["required", "match_sender_strict"])
    def test_what_insists_on_tls_is_refused_without_a_handshake(self, bench, mode, how, reason, known):
        servers = ["mx.example", "mx2.example"]
        held = [config("main", "plaintext", servers=servers)] if known else []
        bench.hold(*held)
        bench.servers["mx2.example"] = (how,)
        with pytest.raises(EngineError) as error:
            bench.set(wanted(mode, servers=servers))
        assert str(error.value) == (
            f"email config main: '{mode}' is refused, because mail for it would be deferred: mx2.example:25, seen from "
            f"this gateway: {reason}. Switch STARTTLS on at that server first; to require TLS anyway, set "
            "require_without_evidence"
        )
        assert not isinstance(error.value, TransactionError)
        assert bench.held() == state(*held)

    @pytest.mark.parametrize("mode", ["plaintext", "match_sender", "opportunistic"])
    def test_the_other_modes_need_no_handshake(self, bench, mode):
        bench.servers["mx.example"] = ("no starttls",)
        assert bench.set(wanted(mode)).changed

    @pytest.mark.parametrize("mode", ["plaintext", "match_sender", "opportunistic"])
    @pytest.mark.parametrize("how", ["down", "mute"])
    def test_nor_an_answer_where_the_route_stays(self, bench, mode, how):
        bench.hold(config("main", "required"))
        bench.servers["mx.example"] = (how,)
        assert bench.set(wanted(mode)).changed
        assert summary(bench.held_configs()) == {"main": mode}

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("servers", [["mx.example"], ["mx.example", "mx2.example"]])
    @pytest.mark.parametrize(
        ("how", "reason"), [("down", "cannot connect to mx.example:25: refused"), ("mute", "no answer to EHLO in time")]
    )
    def test_a_new_route_of_which_no_server_answers_is_refused(self, bench, mode, servers, how, reason):
        bench.servers = {"mx.example": (how,), "mx2.example": ("down",)}
        new = wanted(mode, servers=servers)
        with pytest.raises(EngineError) as error:
            bench.set(new)
        refusal = (
            f"email config main: its mail would go to mx.example:25, which does not answer this gateway: {reason}. "
            "Correct the servers, or find the reason; to route there anyway, set require_without_evidence"
        )
        assert str(error.value) == refusal
        assert not isinstance(error.value, TransactionError)
        assert not bench.gateway.file.exists()
        assert bench.set(new, require_without_evidence=True).changed

    @pytest.mark.parametrize("mode", ["plaintext", "match_sender", "opportunistic"])
    @pytest.mark.parametrize("how", ["down", "mute"])
    @pytest.mark.parametrize("first", [True, False])
    def test_one_server_that_answers_is_enough_for_a_new_route(self, bench, mode, how, first):
        bench.servers["mx2.example"] = (how,)
        servers = ["mx2.example", "mx.example"] if first else ["mx.example", "mx2.example"]
        assert bench.set(wanted(mode, servers=servers)).changed

    @pytest.mark.parametrize("change", [{"servers": ["mx2.example"]}, {"domains": ["x.example"]}])
    def test_a_changed_route_is_judged_like_a_new_one(self, bench, change):
        bench.hold(config("main", "plaintext"))
        bench.servers = {"mx2.example": ("down",)} if "servers" in change else {"mx.example": ("down",)}
        with pytest.raises(EngineError, match="which does not answer this gateway: cannot connect to"):
            bench.set({"name": "main", **change})
        assert bench.held() == state(config("main", "plaintext"))

    @pytest.mark.parametrize("known", [True, False])
    @pytest.mark.parametrize("mode", ["match_sender", "opportunistic"])
    def test_what_may_use_tls_is_refused_where_it_is_offered_and_fails(self, bench, mode, known):
        bench.hold(*([config("main", "plaintext")] if known else []))
        before = bench.held()
        bench.servers["mx.example"] = ("broken",)
        with pytest.raises(EngineError) as error:
            bench.set(wanted(mode))
        assert str(error.value) == (
            f"email config main: '{mode}' is refused, because mx.example:25 offers STARTTLS and then fails (the handshake "
            "failed: no common cipher), which defers mail; repair TLS at that server first, or set require_without_evidence"
        )
        assert not isinstance(error.value, TransactionError)
        assert bench.held() == before

    def test_plaintext_does_not_mind_a_starttls_that_fails(self, bench):
        bench.servers["mx.example"] = ("broken",)
        assert bench.set(wanted("plaintext")).changed

    def test_an_email_config_is_renamed_in_one_transaction(self, bench):
        bench.hold(config("main", "required"), config("other", "required"))
        outcome = bench.set({**wanted("required", "new"), "domains": ["main.example"]})
        assert bench.held() == outcome.after
        assert outcome.after == state(config("other", "required"), config("new", "required", ["main.example"]))
        assert not bench.set({**wanted("required", "new"), "domains": ["main.example"]}).changed

    @pytest.mark.parametrize("mode", ["plaintext", "match_sender", "match_sender_strict"])
    def test_what_may_deliver_in_plaintext_is_refused_before_a_server_that_requires_tls(self, bench, mode):
        bench.servers["mx.example"] = ("good", True)
        with pytest.raises(EngineError) as error:
            bench.set(wanted(mode))
        assert str(error.value) == (
            f"email config main: '{mode}' is refused, because it may deliver in plaintext and mx.example:25 takes mail "
            "over TLS only, so mail would bounce. Choose 'required', or let the server take plaintext first"
        )
        assert not bench.gateway.file.exists()

    @pytest.mark.parametrize("mode", ["opportunistic", "required"])
    def test_what_uses_tls_is_allowed_there(self, bench, mode):
        bench.servers["mx.example"] = ("good", True)
        assert bench.set(wanted(mode)).changed

    def test_opportunistic_is_refused_where_tls_is_required_and_fails(self, bench):
        bench.servers["mx.example"] = ("no starttls", True)
        with pytest.raises(EngineError, match="'opportunistic' is refused, because it may deliver in plaintext"):
            bench.set(wanted("opportunistic"))

    @pytest.mark.parametrize("insisting", [False, True])
    @pytest.mark.parametrize("mode", ["plaintext", "match_sender", "match_sender_strict"])
    def test_where_that_would_bounce_nothing_overrides_it(self, bench, mode, insisting):
        bench.gateway.softens_refusals = False
        bench.servers["mx.example"] = ("good", True)
        with pytest.raises(EngineError) as error:
            bench.set(wanted(mode), require_without_evidence=insisting)
        assert str(error.value) == (
            f"email config main: '{mode}' is refused, because it may deliver in plaintext and mx.example:25 takes mail over "
            "TLS only, so mail would bounce. Choose 'required', or let the server take plaintext first"
        )
        assert bench.held() == state()
        outcome = bench.set(wanted(mode), require_without_evidence=insisting, check_mode=True)
        assert outcome.warnings == (
            f"unless an earlier step changes that, a real run would refuse this: {error.value}",
        )
        assert bench.held() == state()
        assert bench.set(wanted("required")).changed

    @pytest.mark.parametrize("mode", ["plaintext", "match_sender", "match_sender_strict"])
    def test_where_it_only_waits_one_may_insist(self, bench, mode):
        bench.servers["mx.example"] = ("good", True)
        with pytest.raises(EngineError, match="so mail would bounce"):
            bench.set(wanted(mode))
        assert bench.set(wanted(mode), require_without_evidence=True).changed

    def test_a_loss_comes_before_what_may_be_overridden_and_alone_if_that_is(self, bench):
        bench.gateway.softens_refusals = False
        bench.servers = {"mx.example": ("good", True), "mx2.example": ("no starttls",)}
        both = (wanted("plaintext"), wanted("required", "other", ["mx2.example"]))
        with pytest.raises(EngineError, match=r"^email config main: .*; email config other: "):
            bench.set(*both)
        with pytest.raises(EngineError, match=r"^email config main: ") as error:
            bench.set(*both, require_without_evidence=True)
        assert "other" not in str(error.value)

    def test_a_domain_that_no_email_config_has_any_more_is_refused(self, bench):
        held = config("main", "plaintext", domains=("a.example", "b.example", "c.example"))
        bench.hold(held)
        change = {"name": "main", "domains": ["b.example"]}
        with pytest.raises(EngineError) as error:
            bench.set(change)
        assert str(error.value) == (
            "email config main: a.example, c.example would be in no email config any more, and its mail would take the "
            "gateway's other routes. Add it to one, or check those routes and set require_without_evidence"
        )
        assert bench.held() == state(held)
        moved = {"name": "other", "domains": ["a.example", "c.example"], "servers": ["mx.example"]}
        assert bench.set(change, moved, check_mode=True).warnings == ()
        assert bench.set(change, require_without_evidence=True).after.email_configs["main"].domains == ("b.example",)

    def test_going_back_to_plaintext_is_judged_as_well(self, bench):
        bench.hold(config("main", "required"))
        bench.servers["mx.example"] = ("good", True)
        with pytest.raises(EngineError, match="'plaintext' is refused"):
            bench.set({"name": "main", "delivery_mode": "plaintext"})
        assert bench.held_configs()["main"].delivery_mode == "required"

    def test_one_that_is_only_missing_in_the_call_stays(self, bench):
        bench.hold(config("main", "required"), config("other", "required"))
        bench.set({"name": "other", "delivery_mode": "plaintext"})
        assert summary(bench.held_configs()) == {"main": "required", "other": "plaintext"}

    @pytest.mark.parametrize(("mode", "server"), [("required", ("down",)), ("plaintext", ("good", True))])
    def test_insisting_all_the_same(self, bench, mode, server):
        bench.servers["mx.example"] = server
        outcome = bench.set(wanted(mode), require_without_evidence=True)
        assert (outcome.changed, outcome.warnings) == (True, ())
        assert len(outcome.evidence) == 1

    def test_check_mode_says_what_a_real_run_would_refuse_and_changes_nothing(self, bench):
        bench.servers["mx.example"] = ("no starttls",)
        outcome = bench.set(wanted("required"), check_mode=True)
        [warning] = outcome.warnings
        assert warning.startswith(
            "unless an earlier step changes that, a real run would refuse this: email config main: 'required' is refused"
        )
        assert outcome.changed
        assert summary(outcome.after.email_configs) == {"main": "required"}
        assert '"delivery_mode": "required"' in outcome.diff[0]["prepared"]
        assert list(bench.directory.iterdir()) == []
        assert bench.gateway.log == ["require_running"]

    def test_check_mode_when_all_is_well(self, bench):
        outcome = bench.set(wanted("required"), check_mode=True)
        assert (outcome.changed, outcome.warnings) == (True, ())

    def test_all_problems_are_said_at_once(self, bench):
        bench.servers = {"m1.example": ("no starttls",), "m2.example": ("good", True), "m3.example": ("down",)}
        with pytest.raises(EngineError) as error:
            bench.set(
                wanted("required", "one", ["m1.example"]),
                wanted("plaintext", "two", ["m2.example"]),
                wanted("plaintext", "three", ["m3.example"]),
            )
        assert "email config one: 'required' is refused" in str(error.value)
        assert "; email config two: 'plaintext' is refused" in str(error.value)
        assert "; email config three: its mail would go to m3.example:25, which does not answer" in str(error.value)

    def test_a_mode_that_the_gateway_cannot_express(self, bench):
        bench.gateway.modes = ("plaintext", "opportunistic")
        with pytest.raises(EngineError) as error:
            bench.set(wanted("match_sender"))
        assert str(error.value) == (
            "email config main: a stand-in for a gateway cannot express match_sender; it can do plaintext, opportunistic"
        )
        assert bench.handshakes == []

    def test_several_email_configs_are_one_transaction(self, bench):
        bench.hold(config("third", "plaintext"))
        outcome = bench.set(wanted("required", "one", ["m1.example", "m2.example"]), wanted("match_sender", "two"))
        assert bench.gateway.log == ["require_running", "check", "reload", "prove"]
        assert bench.handshakes == [["m1.example:25", "m2.example:25", "mx.example:25"]]
        assert summary(bench.held_configs()) == {"one": "required", "third": "plaintext", "two": "match_sender"}
        assert summary(outcome.before.email_configs) == {"third": "plaintext"}

    def test_a_server_of_two_email_configs_is_tested_once(self, bench):
        bench.set(wanted("required", "one"), wanted("plaintext", "two"))
        assert bench.handshakes == [["mx.example:25"]]

    def test_only_what_changes_is_tested(self, bench):
        bench.hold(config("other", "required", servers=["down.example"]))
        bench.servers["down.example"] = ("down",)
        bench.set(wanted("required"))
        assert bench.handshakes == [["mx.example:25"]]

    @pytest.mark.parametrize("step", ["check", "prove"])
    def test_a_failure_brings_the_old_state_back(self, bench, step):
        bench.hold(config("main", "plaintext"))
        bench.gateway.fail[step] = "no good"
        with pytest.raises(TransactionError, match=r"^no good\. The former state is restored and proved$") as error:
            bench.set({"name": "main", "delivery_mode": "required"})
        assert error.value.restored
        assert bench.held() == state(config("main", "plaintext"))

    def test_a_gateway_that_does_not_run_is_not_touched(self, bench):
        bench.gateway.fail["require_running"] = "it does not run"
        with pytest.raises(EngineError, match=r"^it does not run$"):
            bench.set(wanted("plaintext"))
        assert not bench.gateway.file.exists()

    def interrupt(self, bench):
        """Leave what a run leaves that was killed after it had written."""
        bench.hold(config("main", "plaintext"))
        change = bench.gateway.plan(state(config("main", "required")))
        transaction = Transaction(bench.gateway, str(bench.store))
        bench.store.mkdir()
        transaction._begin(change, [])
        for image in change.after:
            image.write()

    def test_what_a_killed_run_left_is_undone_first(self, bench):
        self.interrupt(bench)
        outcome = bench.set({"name": "main"})
        assert (outcome.recovered, outcome.changed) == (True, True)
        assert summary(bench.held_configs()) == {"main": "plaintext"}
        assert not bench.set({"name": "main"}).changed

    def test_check_mode_only_warns_of_it(self, bench):
        self.interrupt(bench)
        outcome = bench.set({"name": "main"}, check_mode=True)
        assert outcome.warnings == (
            "an earlier run was interrupted; a real run first restores the files that it changed",
        )
        assert summary(bench.held_configs()) == {"main": "required"}
        assert Path(bench.store, "fake-gateway.journal").exists()

    def test_a_mode_that_the_gateway_cannot_express_with_the_reason(self, bench):
        bench.gateway.modes = ("plaintext", "opportunistic")
        bench.gateway.limits = {"match_sender": "it does not know how a message arrived"}
        bench.hold(config("main", "opportunistic"))
        for check_mode in (True, False):  # a run could not do it either, whatever came before
            with pytest.raises(EngineError) as error:
                bench.set(wanted("match_sender"), check_mode=check_mode, require_without_evidence=True)
            assert str(error.value) == (
                "email config main: a stand-in for a gateway cannot express match_sender, because it does not know how a "
                "message arrived; it can do plaintext, opportunistic"
            )
        assert bench.held() == state(config("main", "opportunistic"))

    def test_what_is_held_already_is_not_in_the_way_of_another_change(self, bench):
        bench.hold(config("main", "match_sender"))
        bench.gateway.modes = ("plaintext", "required")
        assert bench.set(wanted("required", "other")).changed
        assert summary(bench.held_configs()) == {"main": "match_sender", "other": "required"}

    def test_a_gateway_without_names_is_read_by_what_is_wanted(self, bench):
        items = (wanted("required"), wanted("plaintext", "two"))
        bench.set(*items)
        assert bench.gateway.wanted == [list(items)]

    def test_enforced_domains_and_the_outbound_side_stay(self, bench):
        more = {
            "enforced": (EnforcedDomain("p.example", "inbound"), EnforcedDomain("b.example", "outbound", "hostname")),
            "outbound": OutboundTls("both", "match_sender", ("192.0.2.0/24",)),
            "ca_file": "/etc/ca.pem",
        }
        bench.hold(config("main", "plaintext"), **more)
        outcome = bench.set(wanted("required"))
        assert bench.held() == outcome.after == state(config("main", "required"), **more)
        assert outcome.before == state(config("main", "plaintext"), **more)
        bench.set({"name": "main", "delivery_mode": "plaintext"})
        assert bench.held() == state(config("main", "plaintext"), **more)


class TestJudgedModes:
    """A gateway that verifies the certificate of the mail server in some modes."""

    @pytest.fixture
    def bench(self, bench):
        bench.gateway.verifying_modes = ("required", "match_sender_strict")
        return bench

    @pytest.mark.parametrize("mode", ["required", "match_sender_strict"])
    def test_a_certificate_that_does_not_pass_is_refused(self, bench, mode):
        bench.servers["mx.example"] = ("untrusted",)
        with pytest.raises(EngineError) as error:
            bench.set(wanted(mode))
        assert str(error.value) == (
            f"email config main: '{mode}' is refused, because a stand-in for a gateway verifies the certificate in this mode, "
            "and that of mx.example:25 does not pass (self-signed certificate), so mail would be deferred. Install one from "
            "a known authority for that name first, or set require_without_evidence"
        )
        assert not bench.gateway.file.exists()
        assert bench.set(wanted(mode), require_without_evidence=True).changed

    def test_each_server_that_does_not_pass_is_said(self, bench):
        bench.servers = {"m2.example": ("untrusted",), "m3.example": ("untrusted",)}
        with pytest.raises(EngineError) as error:
            bench.set(wanted("required", servers=["m1.example", "m2.example", "m3.example"]))
        assert "m1.example" not in str(error.value)
        assert ["m2.example:25" in one for one in str(error.value).split("; ")] == [True, False]

    def test_one_that_passes_is_fine(self, bench):
        outcome = bench.set(wanted("required"))
        assert (outcome.changed, outcome.warnings) == (True, ())
        [settings] = bench.settings
        assert (settings.verify_trust, settings.verify_name, settings.ask_plaintext) == (True, True, True)

    @pytest.mark.parametrize("mode", ["plaintext", "match_sender", "opportunistic"])
    def test_in_the_other_modes_it_is_not_asked(self, bench, mode):
        bench.servers["mx.example"] = ("untrusted",)
        assert bench.set(wanted(mode)).changed
        assert [(one.verify_trust, one.verify_name) for one in bench.settings] == [(False, False)]

    def test_the_judged_servers_are_tested_apart_from_the_others_and_each_once(self, bench):
        outcome = bench.set(
            wanted("plaintext", "one", ["m1.example", "m2.example"]),
            wanted("required", "two", ["m2.example", "m3.example"]),
        )
        assert bench.handshakes == [["m1.example:25"], ["m2.example:25", "m3.example:25"]]
        assert [one.verify_trust for one in bench.settings] == [False, True]
        assert [one.verify_name for one in bench.settings] == [False, True]
        assert [str(one.target) for one in outcome.evidence] == ["m1.example:25", "m2.example:25", "m3.example:25"]

    def test_without_a_handshake_that_alone_is_said(self, bench):
        bench.servers["mx.example"] = ("no starttls",)
        with pytest.raises(
            EngineError, match=r"^email config main: 'required' is refused, because mail for it"
        ) as error:
            bench.set(wanted("required"))
        assert "verifies the certificate" not in str(error.value)


class TestWithEnforcedSenders:
    """Mail of an enforced sender domain needs TLS on every onward hop, whatever the mode."""

    ENFORCED = (EnforcedDomain("partner.example", "inbound"),)

    @pytest.fixture
    def bench(self, bench):
        bench.hold(enforced=self.ENFORCED)
        return bench

    @pytest.mark.parametrize("mode", ["plaintext", "match_sender", "opportunistic"])
    @pytest.mark.parametrize("how", ["no starttls"])
    def test_a_server_without_tls_is_refused_in_modes_that_do_not_need_it(self, bench, mode, how):
        bench.servers["mx.example"] = (how,)
        with pytest.raises(EngineError) as error:
            bench.set(wanted(mode))
        assert str(error.value) == (
            "email config main is refused, because this gateway holds inbound enforced domains, whose mail needs TLS on the "
            "way to mx.example:25 as well: the server does not offer STARTTLS. Switch STARTTLS on at that server first, or "
            "set require_without_evidence"
        )
        assert bench.held() == state(enforced=self.ENFORCED)
        assert bench.set(wanted(mode), require_without_evidence=True).changed
        assert bench.held() == state(config("main", mode), enforced=self.ENFORCED)

    @pytest.mark.parametrize("mode", ["required", "match_sender_strict"])
    def test_modes_that_need_it_say_so_themselves(self, bench, mode):
        bench.servers["mx.example"] = ("no starttls",)
        with pytest.raises(EngineError) as error:
            bench.set(wanted(mode))
        assert str(error.value).startswith(
            f"email config main: '{mode}' is refused, because mail for it would be deferred"
        )
        assert "enforced" not in str(error.value)

    @pytest.mark.parametrize("mode", MODES)
    def test_a_server_with_tls_is_fine(self, bench, mode):
        assert bench.set(wanted(mode)).changed

    def test_outbound_enforced_domains_say_nothing_about_it(self, bench):
        bench.hold(enforced=(EnforcedDomain("bank.example", "outbound"),))
        bench.servers["mx.example"] = ("no starttls",)
        assert bench.set(wanted("plaintext")).changed

    def test_an_email_config_that_does_not_change_is_not_asked_again(self, bench):
        bench.hold(config("main", "plaintext"), enforced=self.ENFORCED)
        bench.servers["mx.example"] = ("no starttls",)
        assert bench.set(wanted("plaintext", "other", ["m2.example"])).changed


@pytest.mark.parametrize(
    ("text", "whether"),
    [("a.example", True), ("localhost", True), ("A.example", False), ("a.example.", False), ("", False),
     ("a.example\n", False), ("müller.example", False), ("user@a.example", False), (".a.example", False)],
)  # fmt: skip
def test_a_domain_is_in_lower_case_ascii_without_a_dot_at_its_end(text, whether):
    assert is_domain(text) is whether


MAIL = Waiting("4XYZ", "you@main.example", "connect to mx.example: refused", "postfix-mailfleet", 1.0)
GONE = {"name": "main", "state": "absent"}


class TestRemoval:
    """An email config goes by state absent in its entry, once no mail waits for its domains."""

    @pytest.fixture
    def held(self, bench, monkeypatch):
        monkeypatch.setattr(queue, "PAUSE_SECONDS", 0.01)
        bench.hold(config("main", "required"), config("other", "required"))
        return bench

    def test_the_route_is_taken_out_and_the_queue_is_looked_at_before_and_after(self, held):
        outcome = held.set(GONE)
        assert (outcome.changed, held.held()) == (True, state(config("other", "required")))
        assert held.handshakes == []  # nothing is asked of the servers of a config that goes
        look = "queue of main.example"
        # Before the evidence, directly before the change, after it; an empty list is believed when it comes twice.
        assert held.gateway.log == ["require_running", look, look, look, look, "check", "reload", "prove", look]

    def test_a_second_run_changes_nothing_and_looks_at_no_queue(self, held):
        held.set(GONE)
        held.clear()
        assert not held.set(GONE).changed
        assert held.gateway.log == ["require_running", "serves"]

    def test_mail_that_still_waits_is_named_and_nothing_changes(self, held):
        held.gateway.waiting = [[MAIL]]
        with pytest.raises(EngineError) as error:
            held.set(GONE, queue_seconds=0.05)
        said = str(error.value)
        assert said.startswith(
            "the route of main.example (email config main) is not taken out, because mail still waits for it after 0.05 s: "
            "4XYZ to you@main.example (postfix-mailfleet): connect to mx.example: refused. "
        )
        assert "queue_timeout (starttls_queue_timeout in an inventory)" in said
        assert held.held() == state(config("main", "required"), config("other", "required"))
        assert "check" not in held.gateway.log

    def test_nothing_waives_that(self, held):
        held.gateway.waiting = [[MAIL]]
        with pytest.raises(EngineError, match="4XYZ to you@"):
            held.set(GONE, queue_seconds=0, require_without_evidence=True)

    @pytest.mark.parametrize("looks", [[[MAIL], []], [[], [MAIL], [MAIL], []]], ids=["waiting", "moved meanwhile"])
    def test_it_waits_until_the_mail_is_delivered(self, held, looks):
        held.gateway.waiting = looks
        assert held.set(GONE, queue_seconds=20).changed

    def test_mail_that_came_in_during_the_change_brings_the_route_back(self, held):
        held.gateway.waiting = [[], [], [], [], [MAIL], []]
        with pytest.raises(TransactionError, match="mail came in while its route was taken out: 4XYZ to you@") as error:
            held.set(GONE)
        assert error.value.restored
        assert held.held() == state(config("main", "required"), config("other", "required"))

    def test_mail_that_comes_in_afterwards_does_not(self, held):
        later = replace(MAIL, arrived=time.time() + 60)
        held.gateway.waiting = [[], [], [], [], [later]]
        assert held.set(GONE).changed

    def test_check_mode_does_not_wait_and_warns(self, held):
        held.gateway.waiting = [[MAIL]]
        outcome = held.set(GONE, check_mode=True)
        assert outcome.changed
        assert outcome.warnings == (
            "the route of main.example (email config main): mail waits for it, and a run waits up to 300 s: "
            "4XYZ to you@main.example (postfix-mailfleet): connect to mx.example: refused",
        )
        assert held.held() == state(config("main", "required"), config("other", "required"))

    def test_a_domain_that_another_email_config_takes_over_keeps_its_route(self, held):
        held.gateway.waiting = [[MAIL]]
        held.set(
            GONE, {"name": "new", "domains": ["main.example"], "servers": ["mx.example"], "delivery_mode": "required"}
        )
        assert set(held.held_configs()) == {"new", "other"}
        assert not [step for step in held.gateway.log if step.startswith("queue")]

    def test_a_domain_that_an_email_config_loses_waits_as_well(self, bench):
        bench.hold(config("main", "plaintext", domains=("a.example", "b.example")))
        bench.gateway.waiting = [[MAIL]]
        with pytest.raises(EngineError, match=r"the route of b\.example \(email config main\) is not taken out"):
            bench.set({"name": "main", "domains": ["a.example"]}, require_without_evidence=True, queue_seconds=0)

    def test_the_gateway_may_still_take_mail_for_it(self, held):
        held.gateway.accepted = {"main.example": True}
        [warning] = held.set(GONE).warnings
        assert warning.startswith("email config main is removed, and the gateway still takes mail for main.example: ")

    def test_of_many_messages_some_are_named(self, held):
        held.gateway.waiting = [[replace(MAIL, queue_id=f"Q{number}") for number in range(40)]]
        with pytest.raises(EngineError, match=r"Q9 to .*; and 30 more") as error:
            held.set(GONE, queue_seconds=0)
        assert "Q10" not in str(error.value)

    def test_the_words_of_others_are_one_line_and_not_endless(self, held):
        held.gateway.waiting = [[replace(MAIL, reason="a\nb\x1b[31m" + "x" * 5000)]]
        with pytest.raises(EngineError) as error:
            held.set(GONE, queue_seconds=0)
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 1000
