"""Delivery modes: email configs as data, and the one transaction that sets them on the evidence of handshakes."""

import json
import os
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils import mode as mode_module
from ansible_collections.mailfleet.starttls.plugins.module_utils.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils.handshake import Handshake, Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.mode import (
    LEVELS,
    MODES,
    EmailConfig,
    dump,
    load,
    merge,
    set_modes,
    summary,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.transaction import (
    Change,
    EngineError,
    Transaction,
    TransactionError,
)
from hypothesis import given
from hypothesis import strategies as st

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


LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
DOMAIN = st.lists(LABEL, min_size=2, max_size=3).map(".".join).filter(lambda name: not name[-1].isdigit())
SERVER = st.builds(Target, DOMAIN | st.ip_addresses().map(str), st.integers(1, 65535))
CONFIGS = st.lists(
    st.builds(
        EmailConfig,
        st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 _.@-]{0,20}", fullmatch=True),
        st.lists(DOMAIN, min_size=1, max_size=3, unique=True).map(tuple),
        st.lists(SERVER, min_size=1, max_size=3, unique=True).map(tuple),
        st.sampled_from(MODES),
    ),
    max_size=4,
    unique_by=lambda one: one.name,
)


class TestText:
    @given(CONFIGS)
    def test_load_reads_what_dump_wrote(self, configs):
        assert load(dump(configs), "somewhere") == {one.name: one for one in configs}

    @given(CONFIGS)
    def test_the_order_does_not_matter(self, configs):
        assert dump(configs) == dump(reversed(configs))

    def test_nothing_is_no_email_config(self):
        assert load("", "somewhere") == {}

    @pytest.mark.parametrize(
        "text", ["{", "[1]", "1", "null", '["a"]', '[{"name": "a"}]', json.dumps([{**GOOD, "domains": 1}])]
    )
    def test_junk_names_the_place(self, text):
        with pytest.raises(
            EngineError, match=r"^/etc/gw/email_configs\.json cannot be read \(.+\); it is written by this module"
        ):
            load(text, "/etc/gw/email_configs.json")

    def test_summary(self):
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

    def test_absent_keeps_the_route_and_goes_back_to_plaintext(self):
        assert merge(self.HELD, [{"name": "main"}], absent=True)["main"] == config("main", "plaintext")

    def test_absent_ignores_what_else_is_given(self):
        item = {"name": "main", "domains": ["x.example"], "delivery_mode": "required"}
        assert merge(self.HELD, [item], absent=True)["main"] == config("main", "plaintext")

    def test_absent_and_unknown_is_nothing(self):
        assert merge(self.HELD, [{**GOOD, "name": "never-there"}], absent=True) == self.HELD

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

    def test_absent_takes_no_domains(self):
        assert merge(self.HELD, [self.NEW], absent=True) == self.HELD
        after = merge(self.HELD, [{"name": "main", "domains": ["other.example"]}], absent=True)
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
        "plaintext": ("none", "none"),
        "match_sender": ("none", "may"),
        "match_sender_strict": ("none", "encrypt"),
        "opportunistic": ("may", "may"),
        "required": ("encrypt", "encrypt"),
    }


class FakeGateway:
    """A gateway that keeps its email configs in one file."""

    name = "fake-gateway"
    reads_files_unasked = True
    modes = MODES

    def __init__(self, file):
        self.file = file
        self.log = []
        self.fail = {}  # step -> what is wrong with it, once
        self.up = True

    def _step(self, name):
        self.log.append(name)
        if name in self.fail:
            raise EngineError(self.fail.pop(name))

    def check(self):
        self._step("check")

    def reload(self):
        self._step("reload")

    def resume(self):
        self._step("resume")

    def require_running(self):
        self._step("require_running")

    def serves(self):
        self._step("serves")
        return self.up

    def prove(self):
        self._step("prove")
        self.up = True

    def read(self):
        return load((FileImage.read(str(self.file)).content or b"").decode(), str(self.file))

    def plan(self, configs):
        return Change.of([FileImage(str(self.file), dump(configs.values()).encode(), 0o600, os.getuid(), os.getgid())])


def seen(target, how="good", requires_tls=False):
    if how == "good":
        return Handshake(target, Stage.EHLO_TLS, requires_tls=requires_tls)
    if how == "no starttls":
        return Handshake(
            target, Stage.EHLO, "starttls_not_offered", "the server does not offer STARTTLS", requires_tls=requires_tls
        )
    if how == "broken":
        return Handshake(
            target, Stage.STARTTLS_ANSWERED, "tls_failed", "the handshake failed: no common cipher",
            requires_tls=requires_tls,
        )  # fmt: skip
    if how == "mute":
        return Handshake(target, Stage.GREETING, "no_ehlo", "no answer to EHLO in time")
    return Handshake(target, Stage.CONNECT, "connect_failed", f"cannot connect to {target}: refused")


class Bench:
    def __init__(self, directory):
        self.directory = directory
        self.gateway = FakeGateway(directory / "configs.json")
        self.store = directory / "store"
        self.servers = {}
        self.handshakes = []
        self.settings = []

    def handshake_all(self, targets, settings):
        self.handshakes.append([str(target) for target in targets])
        self.settings.append(settings)
        return [seen(target, *self.servers.get(target.host, ())) for target in targets]

    def hold(self, *configs):
        self.gateway.file.write_text(dump(configs))
        self.gateway.file.chmod(0o600)

    def held(self):
        return self.gateway.read()

    def set(self, *wanted, **options):
        return set_modes(self.gateway, wanted, Settings(helo_name="gw.example"), store=str(self.store), **options)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = Bench(tmp_path)
    monkeypatch.setattr(mode_module, "handshake_all", bench.handshake_all)
    return bench


def wanted(mode, name="main", servers=("mx.example",)):
    return {"name": name, "domains": [f"{name}.example"], "servers": list(servers), "delivery_mode": mode}


class TestSetModes:
    @pytest.mark.parametrize("mode", MODES)
    def test_a_mode_is_set_and_proved(self, bench, mode):
        outcome = bench.set(wanted(mode))
        assert bench.held() == outcome.after == {"main": config("main", mode)}
        assert (outcome.changed, outcome.before, outcome.recovered, outcome.warnings) == (True, {}, False, ())
        assert bench.gateway.log == ["require_running", "check", "reload", "prove"]
        assert [str(one.target) for one in outcome.evidence] == ["mx.example:25"]
        assert f'+    "delivery_mode": "{mode}"' in outcome.diff[0]["prepared"]

    def test_the_handshake_asks_for_plaintext_and_does_not_judge(self, bench):
        bench.set(wanted("required"))
        assert (bench.settings[0].ask_plaintext, bench.settings[0].judge_trust) == (True, False)
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
        assert outcome.before == outcome.after == {"main": config("main", "required")}
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
        held = {"main": config("main", "plaintext", servers=servers)} if known else {}
        bench.hold(*held.values())
        bench.servers["mx2.example"] = (how,)
        with pytest.raises(EngineError) as error:
            bench.set(wanted(mode, servers=servers))
        assert str(error.value) == (
            f"email config main: '{mode}' is refused, because mail for it would be deferred: mx2.example:25, seen from "
            f"this gateway: {reason}. Switch STARTTLS on at that server first; to insist all the same, set "
            "require_without_evidence"
        )
        assert not isinstance(error.value, TransactionError)
        assert bench.held() == held

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
        assert summary(bench.held()) == {"main": mode}

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
            "Correct the servers, or see why; to route there all the same, set require_without_evidence"
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
        assert bench.held() == {"main": config("main", "plaintext")}

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
        assert outcome.after == {
            "other": config("other", "required"), "new": config("new", "required", ["main.example"]),
        }  # fmt: skip
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

    def test_going_back_to_plaintext_is_judged_as_well(self, bench):
        bench.hold(config("main", "required"))
        bench.servers["mx.example"] = ("good", True)
        with pytest.raises(EngineError, match="'plaintext' is refused"):
            bench.set({"name": "main"}, absent=True)
        assert bench.held()["main"].delivery_mode == "required"

    def test_absent(self, bench):
        bench.hold(config("main", "required"), config("other", "required"))
        outcome = bench.set({"name": "main"}, absent=True)
        assert summary(outcome.after) == summary(bench.held()) == {"main": "plaintext", "other": "required"}

    def test_absent_of_what_is_unknown_changes_nothing(self, bench):
        bench.hold(config("other", "required"))
        assert not bench.set({"name": "main"}, absent=True).changed
        assert bench.handshakes == []

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
            "unless steps before it change that, a real run would refuse this: email config main: 'required' is refused"
        )
        assert outcome.changed
        assert summary(outcome.after) == {"main": "required"}
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
            "email config main: this gateway cannot express match_sender; it can do plaintext, opportunistic"
        )
        assert bench.handshakes == []

    def test_several_email_configs_are_one_transaction(self, bench):
        bench.hold(config("third", "plaintext"))
        outcome = bench.set(wanted("required", "one", ["m1.example", "m2.example"]), wanted("match_sender", "two"))
        assert bench.gateway.log == ["require_running", "check", "reload", "prove"]
        assert bench.handshakes == [["m1.example:25", "m2.example:25", "mx.example:25"]]
        assert summary(bench.held()) == {"one": "required", "third": "plaintext", "two": "match_sender"}
        assert summary(outcome.before) == {"third": "plaintext"}

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
        assert bench.held() == {"main": config("main", "plaintext")}

    def test_a_gateway_that_does_not_run_is_not_touched(self, bench):
        bench.gateway.fail["require_running"] = "it does not run"
        with pytest.raises(EngineError, match=r"^it does not run$"):
            bench.set(wanted("plaintext"))
        assert not bench.gateway.file.exists()

    def interrupt(self, bench):
        """Leave what a run leaves that was killed after it had written."""
        bench.hold(config("main", "plaintext"))
        change = bench.gateway.plan({"main": config("main", "required")})
        transaction = Transaction(bench.gateway, str(bench.store))
        bench.store.mkdir()
        transaction._begin(change, [])
        for image in change.after:
            image.write()

    def test_what_a_killed_run_left_is_undone_first(self, bench):
        self.interrupt(bench)
        outcome = bench.set({"name": "main"})
        assert (outcome.recovered, outcome.changed) == (True, True)
        assert summary(bench.held()) == {"main": "plaintext"}
        assert not bench.set({"name": "main"}).changed

    def test_check_mode_only_warns_of_it(self, bench):
        self.interrupt(bench)
        outcome = bench.set({"name": "main"}, check_mode=True)
        assert outcome.warnings == ("a former run was interrupted; a real run first restores what it left half done",)
        assert summary(bench.held()) == {"main": "required"}
        assert Path(bench.store, "fake-gateway.journal").exists()
