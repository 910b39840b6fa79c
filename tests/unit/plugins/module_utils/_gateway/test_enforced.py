"""Enforced domains: as data, and the one transaction that sets them on the evidence of handshakes."""

import unicodedata

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import evidence as evidence_module
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.enforced import merge, set_enforced
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    CERTIFICATE_CHECKS,
    DIRECTIONS,
    EmailConfig,
    EnforcedDomain,
    GatewayState,
    OutboundTls,
    inbound_senders,
    spellings,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target, handshake_all
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.replies import ENFORCED_SENDER
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.gateway_bench import REASONS, Bench
from tests.support.smtp_server import Face, server_context, serving

INBOUND = {"domain": "partner.example", "direction": "inbound"}
OUTBOUND = {"domain": "bank.example", "direction": "outbound"}
CONFIG = EmailConfig("main", ("a.example",), (Target("mx.example"),), "plaintext")
ADVICE = "Ask the administrator of that domain; to require TLS anyway, set require_without_evidence"
CHECKED = ("trusted_chain", "hostname")


def inbound(domain="partner.example"):
    return EnforcedDomain(domain, "inbound")


def outbound(check="encryption_only", *servers, domain="bank.example"):
    return EnforcedDomain(domain, "outbound", check, tuple(map(Target.parse, servers)))


class TestFromDict:
    @pytest.mark.parametrize(
        "empty", [{}, {"certificate_check": None, "servers": None}, {"servers": []}, {"servers": ()}]
    )
    def test_an_inbound_one(self, empty):
        one = EnforcedDomain.from_dict({**INBOUND, **empty})
        assert one == inbound()
        assert one.to_dict() == INBOUND
        assert one.key == ("inbound", "partner.example")

    @pytest.mark.parametrize("check", CERTIFICATE_CHECKS)
    def test_an_outbound_one(self, check):
        given_data = {**OUTBOUND, "certificate_check": check, "servers": ["MX.example", "[2001:DB8::1]:26"]}
        one = EnforcedDomain.from_dict(given_data)
        assert one == outbound(check, "mx.example", "[2001:db8::1]:26")
        assert one.to_dict() == {**given_data, "servers": ["mx.example:25", "[2001:db8::1]:26"]}
        assert one.key == ("outbound", "bank.example")
        assert EnforcedDomain.from_dict(one.to_dict()) == one

    @pytest.mark.parametrize("check", [{}, {"certificate_check": None}, {"certificate_check": ""}])
    def test_without_a_check_it_is_encryption_only(self, check):
        assert EnforcedDomain.from_dict({**OUTBOUND, **check}) == outbound("encryption_only")

    def test_the_words(self):
        assert DIRECTIONS == ("inbound", "outbound")
        assert CERTIFICATE_CHECKS == ("encryption_only", "trusted_chain", "hostname")
        assert ENFORCED_SENDER == "STARTTLS is required for this sender"

    @pytest.mark.parametrize(
        ("domain", "kept"),
        [
            ("Partner.EXAMPLE", "partner.example"),
            ("partner.example.", "partner.example"),
            ("xn--mller-kva.example", "xn--mller-kva.example"),
            ("localhost", "localhost"),
        ],
    )
    def test_a_domain_is_kept_in_one_spelling(self, domain, kept):
        assert EnforcedDomain.from_dict({**INBOUND, "domain": domain}) == inbound(kept)

    @pytest.mark.parametrize(
        "domain",
        [None, "", ".", "a b", "a..b", ".a.example", "*.example", "*", "@a.example", "x@a.example", "müller.example",
         "a.example\n", "a.example\nb.example x", "-a.example", "a,b", "a" * 64 + ".example", "\uff41.example", "a.example:",
         "[192.0.2.1]", 0, False, [], {}],
    )  # fmt: skip
    def test_a_bad_domain(self, domain):
        with pytest.raises(EngineError) as error:
            EnforcedDomain.from_dict({**INBOUND, "domain": domain})
        assert str(error.value) == f"{domain!r} is not a domain that can be enforced (one exact name, in ASCII)"
        assert "\n" not in str(error.value)

    def test_no_domain_at_all(self):
        with pytest.raises(EngineError, match=r"^None is not a domain that can be enforced"):
            EnforcedDomain.from_dict({"direction": "inbound"})

    @pytest.mark.parametrize("direction", [None, "", "both", "Inbound", "in", "inbound\n", True, 1, ["inbound"]])
    def test_a_bad_direction(self, direction):
        with pytest.raises(EngineError) as error:
            EnforcedDomain.from_dict({**INBOUND, "direction": direction})
        assert str(error.value) == (
            f"enforced domain partner.example: the direction {str(direction or '')!r} is not one of inbound, outbound"
        )

    @pytest.mark.parametrize("check", ["encryption", "Hostname", "hostname\n", True, 1, ["hostname"]])
    def test_a_bad_check(self, check):
        with pytest.raises(EngineError) as error:
            EnforcedDomain.from_dict({**OUTBOUND, "certificate_check": check})
        assert str(error.value) == (
            f"enforced domain bank.example: the certificate check {check!r} is not one of encryption_only, trusted_chain, "
            "hostname"
        )

    @pytest.mark.parametrize(
        "more",
        [{"certificate_check": "hostname"}, {"certificate_check": "encryption_only"}, {"certificate_check": "x"},
         {"servers": ["mx.example"]}, {"certificate_check": "hostname", "servers": ["mx.example"]}],
    )  # fmt: skip
    def test_inbound_nobody_is_connected_to(self, more):
        with pytest.raises(EngineError) as error:
            EnforcedDomain.from_dict({**INBOUND, **more})
        assert str(error.value) == (
            "enforced domain partner.example: certificate_check and servers apply to the direction outbound only; inbound, "
            "the sender connects"
        )

    @pytest.mark.parametrize("direction", DIRECTIONS)
    def test_a_string_is_no_list(self, direction):
        with pytest.raises(EngineError, match=r"^enforced domain bank\.example: servers has to be a list$"):
            EnforcedDomain.from_dict({**OUTBOUND, "direction": direction, "servers": "mx.example"})

    @pytest.mark.parametrize(
        "server", ["", "mx.example\n", "a b", "mx.example:0", "mx:smtp", "[::1", "mx;id", "mx.example:25\n"]
    )
    def test_a_bad_server(self, server):
        with pytest.raises(EngineError, match=r"^enforced domain bank\.example: ") as error:
            EnforcedDomain.from_dict({**OUTBOUND, "servers": ["good.example", server]})
        assert "\n" not in str(error.value)


class TestSpellings:
    @pytest.mark.parametrize(
        ("domain", "expected"),
        [
            ("partner.example", ("partner.example",)),
            ("xn--mller-kva.example", ("xn--mller-kva.example", "müller.example")),
            ("mail.xn--mller-kva.example", ("mail.xn--mller-kva.example", "mail.müller.example")),
            ("xn--e1afmkfd.xn--80akhbyknj4f", ("xn--e1afmkfd.xn--80akhbyknj4f", "пример.испытание")),
            ("xn--ls8h.example", ("xn--ls8h.example",)),  # a symbol
            ("xn--strae-oqa.xn--nxasmm1c", ("xn--strae-oqa.xn--nxasmm1c", "straße.βόλος")),
            ("_x.partner.example", ("_x.partner.example",)),
            ("localhost", ("localhost",)),
            ("xn--0.example", ("xn--0.example",)),  # no Punycode
            ("xn--a.example", ("xn--a.example",)),
            ("a--b.example", ("a--b.example",)),
        ],
    )
    def test_the_unicode_spelling_where_it_differs(self, domain, expected):
        assert spellings(domain) == expected

    @pytest.mark.parametrize(
        ("domain", "unicode"), [("xn--strae-oqa.example", "straße.example"), ("xn--nxasmm1c.example", "βόλος.example")]
    )
    def test_letters_that_idna_2003_did_not_know(self, domain, unicode):
        assert spellings(domain) == (domain, unicode)

    @given(st.from_regex(r"(xn--)?[a-z0-9]{1,12}(\.(xn--)?[a-z0-9]{1,12}){0,2}", fullmatch=True))
    def test_it_always_begins_with_the_domain_itself(self, domain):
        found = spellings(domain)
        assert found[0] == domain
        assert len(found) == len(set(found)) <= 2
        assert not any(set(one) & set(" \t\n:@") for one in found)

    def test_it_is_in_lower_case(self):
        assert all(one == one.lower() for one in spellings("xn--7ba.example"))

    @given(
        st.lists(
            st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=59).map("xn--{}".format)
            | st.text(min_size=1, max_size=8).map(
                lambda text: "xn--" + text.encode("punycode", "ignore").decode("ascii")
            ),
            min_size=1,
            max_size=3,
        ).map(".".join)
    )
    @example("xn--a-ecp.example")
    @example("xn--ab-j1t.example")
    @example("xn--ab-3ia.example")
    def test_nothing_comes_out_that_means_something_in_a_table(self, domain):
        found = spellings(domain)
        assert found[0] == domain
        for one in found[1:]:
            categories = {unicodedata.category(char) for char in one if char not in ".-_"}
            assert {category[0] for category in categories} <= set("LMN")
            assert not any(char.isspace() or not char.isprintable() for char in one)
            assert one.count(".") == domain.count(".")

    def test_the_senders_are_the_inbound_ones_in_every_spelling_in_order(self):
        domains = [inbound("xn--mller-kva.example"), outbound(domain="xn--bcher-kva.example"), inbound("a.example")]
        assert inbound_senders(domains) == ["xn--mller-kva.example", "müller.example", "a.example"]
        assert inbound_senders([]) == []


NAMES = st.sampled_from(["a.example", "b.example", "c.example", "xn--mller-kva.example"])
DOMAINS = st.builds(EnforcedDomain, NAMES, st.just("inbound")) | st.builds(
    EnforcedDomain,
    NAMES,
    st.just("outbound"),
    st.sampled_from(CERTIFICATE_CHECKS),
    st.just(()) | st.just((Target("mx.example"),)),
)
SETS = st.lists(DOMAINS, max_size=5, unique_by=lambda one: one.key)


def data(domains):
    return [one.to_dict() for one in domains]


class TestMerge:
    HELD = (inbound("a.example"), outbound("hostname", domain="b.example"))

    def test_a_new_one_comes_in_order(self):
        assert merge(self.HELD, [OUTBOUND, INBOUND]) == (
            inbound("a.example"), inbound(), outbound("hostname", domain="b.example"), outbound(),
        )  # fmt: skip

    def test_one_that_is_held_is_replaced_whole(self):
        held = (outbound("hostname", "mx.example"),)
        assert merge(held, [OUTBOUND]) == (outbound("encryption_only"),)

    def test_the_directions_of_a_domain_are_two(self):
        both = merge((), [INBOUND, {**INBOUND, "direction": "outbound"}])
        assert both == (inbound(), outbound(domain="partner.example"))
        assert merge(both, [INBOUND], absent=True) == (outbound(domain="partner.example"),)

    def test_one_of_a_call_may_go_while_others_come(self):
        both = merge((), [INBOUND, {**INBOUND, "direction": "outbound"}])
        assert merge(both, [{**INBOUND, "state": "absent"}, {**OUTBOUND, "state": "present"}]) == merge(
            (), [{**INBOUND, "direction": "outbound"}, OUTBOUND]
        )

    def test_absent_goes_by_domain_and_direction_alone(self):
        held = (inbound(), outbound("hostname", "mx.example"))
        assert merge(held, [OUTBOUND], absent=True) == (inbound(),)
        assert merge(held, [{**OUTBOUND, "domain": "Bank.Example."}], absent=True) == (inbound(),)
        assert merge(held, [{**OUTBOUND, "domain": "sub.bank.example"}], absent=True) == held

    @pytest.mark.parametrize("absent", [False, True])
    def test_bad_data_is_refused_either_way(self, absent):
        with pytest.raises(EngineError, match="is not one of inbound, outbound"):
            merge(self.HELD, [{"domain": "a.example"}], absent)

    @pytest.mark.parametrize("absent", [False, True])
    @pytest.mark.parametrize("again", ["bank.example", "BANK.example."])
    def test_one_twice_is_refused(self, absent, again):
        with pytest.raises(EngineError, match=r"^the outbound domain bank\.example is given twice$"):
            merge((), [OUTBOUND, {**OUTBOUND, "domain": again, "certificate_check": "hostname"}], absent)

    @given(SETS, SETS)
    def test_twice_is_the_same_as_once(self, held, wanted):
        for absent in (False, True):
            once = merge(held, data(wanted), absent)
            assert merge(once, data(wanted), absent) == once

    @given(SETS, SETS)
    def test_absent_undoes_present(self, held, wanted):
        left = {one.key for one in held} - {one.key for one in wanted}
        assert merge(merge(held, data(wanted)), data(wanted), absent=True) == merge(held, data(wanted), absent=True)
        assert {one.key for one in merge(held, data(wanted), absent=True)} == left

    @given(SETS, SETS.flatmap(lambda wanted: st.tuples(st.just(wanted), st.permutations(wanted))), st.booleans())
    def test_the_order_does_not_matter(self, held, orders, absent):
        wanted, shuffled = orders
        assert merge(held, data(wanted), absent) == merge(reversed(held), data(shuffled), absent)

    @given(SETS, SETS)
    def test_what_is_not_named_stays_and_what_is_named_is_there(self, held, wanted):
        after = merge(held, data(wanted))
        assert set(after) == set(wanted) | {one for one in held if one.key not in {two.key for two in wanted}}
        assert list(after) == sorted(after, key=lambda one: one.key)


def state(*enforced, configs=(CONFIG,), **more):
    return GatewayState({one.name: one for one in configs}, enforced, **more)


class EnforcedBench(Bench):
    def set(self, *wanted, **options):
        return set_enforced(self.gateway, wanted, self.common, store=str(self.store), **options)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = EnforcedBench(tmp_path, monkeypatch, evidence_module)
    bench.hold(state())
    bench.gateway.hops["bank.example"] = (Target("mx1.bank.example"),)
    return bench


class TestSetEnforced:
    @pytest.mark.parametrize(("item", "one"), [(INBOUND, inbound()), (OUTBOUND, outbound())])
    def test_a_domain_is_enforced_and_proved(self, bench, item, one):
        outcome = bench.set(item)
        assert bench.held() == outcome.after == state(one)
        assert (outcome.changed, outcome.before, outcome.recovered, outcome.warnings) == (True, state(), False, ())
        assert bench.gateway.log == ["require_running", "check", "reload", "prove"]
        assert f'"domain": "{item["domain"]}"' in outcome.diff[0]["prepared"]

    @pytest.mark.parametrize("item", [INBOUND, OUTBOUND])
    def test_a_second_run_makes_no_handshake_and_no_change(self, bench, item):
        bench.set(item)
        bench.clear()
        outcome = bench.set(item)
        assert (outcome.changed, outcome.evidence, outcome.diff, outcome.warnings) == (False, (), [], ())
        assert (bench.handshakes, bench.gateway.asked) == ([], [])
        assert bench.gateway.log == ["require_running", "serves"]

    def test_email_configs_outbound_side_and_authorities_stay(self, bench):
        more = {"outbound": OutboundTls("both", "match_sender"), "ca_file": "/etc/ca.pem"}
        bench.hold(state(**more))
        bench.set(INBOUND)
        assert bench.held() == state(inbound(), **more)
        bench.set(INBOUND, absent=True)
        assert bench.held() == state(**more)

    def test_several_domains_are_one_transaction(self, bench):
        outcome = bench.set(OUTBOUND, INBOUND, {**INBOUND, "domain": "second.example"})
        assert outcome.after.enforced == (inbound(), inbound("second.example"), outbound())
        assert bench.gateway.log == ["require_running", "check", "reload", "prove"]
        # The gateway and the mail servers once for all inbound domains.
        assert bench.handshakes == [["gw.example:25", "mx.example:25"], ["mx1.bank.example:25"]]
        assert [str(one.target) for one in outcome.evidence] == [
            "gw.example:25",
            "mx.example:25",
            "mx1.bank.example:25",
        ]

    def test_several_problems_are_said_at_once(self, bench):
        bench.servers = {"gw.example": ("no starttls",), "mx.example": ("down",), "mx1.bank.example": ("broken",)}
        with pytest.raises(EngineError) as error:
            bench.set(OUTBOUND, INBOUND, {**OUTBOUND, "domain": "other.example"})
        assert [one.partition(" is refused")[0] for one in str(error.value).split("; ") if " is refused" in one] == [
            "an inbound enforced domain", "an inbound enforced domain", "outbound enforced domain bank.example",
            "outbound enforced domain other.example",
        ]  # fmt: skip
        assert bench.held() == state()

    def test_only_what_is_new_is_judged(self, bench):
        bench.hold(state(inbound(), outbound()))
        bench.servers = {"gw.example": ("down",), "mx1.bank.example": ("down",)}
        bench.gateway.hops["new.example"] = (Target("mx.new.example"),)
        outcome = bench.set(INBOUND, OUTBOUND, {**OUTBOUND, "domain": "new.example"})
        assert bench.handshakes == [["mx.new.example:25"]]
        assert outcome.after.enforced == (inbound(), outbound(), outbound(domain="new.example"))

    def test_another_check_for_a_held_domain_is_judged(self, bench):
        bench.hold(state(outbound()))
        bench.servers["mx1.bank.example"] = ("untrusted",)
        with pytest.raises(EngineError, match=r"would be deferred \(hostname\)"):
            bench.set({**OUTBOUND, "certificate_check": "hostname"})
        assert bench.held() == state(outbound())

    def test_absent(self, bench):
        bench.hold(state(inbound(), outbound("hostname")))
        bench.servers = {"gw.example": ("down",)}
        outcome = bench.set(INBOUND, absent=True)
        assert bench.held() == outcome.after == state(outbound("hostname"))
        assert bench.handshakes == []
        assert not bench.set(INBOUND, absent=True).changed

    def test_absent_of_what_was_never_there_is_nothing(self, bench):
        outcome = bench.set(OUTBOUND, absent=True)
        assert (outcome.changed, outcome.diff) == (False, [])

    def test_a_gateway_that_does_not_serve_is_reloaded_and_proved_though_no_file_changes(self, bench):
        bench.hold(state(inbound()))
        bench.gateway.up = False
        outcome = bench.set(INBOUND)
        assert (outcome.changed, outcome.diff) == (True, [])
        assert bench.gateway.log == ["require_running", "serves", "check", "reload", "prove"]

    @pytest.mark.parametrize("step", ["check", "reload", "prove"])
    def test_a_failure_brings_the_old_state_back(self, bench, step):
        bench.gateway.fail[step] = "no good"
        with pytest.raises(TransactionError, match=r"^no good\. The former state is restored and proved$") as error:
            bench.set(INBOUND)
        assert error.value.restored
        assert bench.held() == state()

    def test_a_gateway_that_does_not_run_is_not_touched(self, bench):
        bench.gateway.fail["require_running"] = "it does not run"
        with pytest.raises(EngineError, match=r"^it does not run$"):
            bench.set(INBOUND)
        assert (bench.held(), bench.handshakes) == (state(), [])

    def test_what_a_killed_run_left_is_undone_first(self, bench):
        change = bench.gateway.plan(state(inbound()))
        bench.store.mkdir()
        Transaction(bench.gateway, str(bench.store))._begin(change, [])
        for image in change.after:
            image.write()
        outcome = bench.set(INBOUND, absent=True)
        assert (outcome.recovered, outcome.changed, outcome.before, outcome.after) == (True, True, state(), state())

    def test_bad_data_touches_nothing(self, bench):
        with pytest.raises(EngineError, match="is not a domain that can be enforced"):
            bench.set({**INBOUND, "domain": "*.example"})
        assert (bench.held(), bench.handshakes) == (state(), [])

    @pytest.mark.parametrize("absent", [False, True])
    @pytest.mark.parametrize("check_mode", [False, True])
    def test_a_gateway_that_cannot_enforce_says_why(self, bench, absent, check_mode):
        bench.gateway.limits = {"enforced": "it has no say about single senders"}
        with pytest.raises(EngineError) as error:
            bench.set(INBOUND, absent=absent, check_mode=check_mode, require_without_evidence=True)
        assert str(error.value) == (
            "a stand-in for a gateway cannot enforce TLS by domain: it has no say about single senders"
        )
        assert bench.gateway.log == []

    def test_another_limit_is_not_in_the_way(self, bench):
        bench.gateway.limits = {"outbound": "none", "match_sender": "no"}
        assert bench.set(INBOUND).changed


class TestInbound:
    def test_both_hops_are_looked_at_without_judging_certificates(self, bench):
        two = EmailConfig("two", ("b.example",), (Target("mx.example"), Target("mx2.example", 26)), "required")
        bench.hold(state(configs=(CONFIG, two)))
        outcome = bench.set(INBOUND)
        assert bench.handshakes == [["gw.example:25", "mx.example:25", "mx2.example:26"]]
        assert [one.verify_trust for one in bench.settings] == [False]
        assert bench.settings[0].helo_name == "gw.example"
        assert len(outcome.evidence) == 3
        assert outcome.warnings == ()

    @pytest.mark.parametrize("how", REASONS)
    def test_a_gateway_without_tls_is_refused(self, bench, how):
        bench.servers["gw.example"] = (how,)
        with pytest.raises(EngineError) as error:
            bench.set(INBOUND)
        assert str(error.value) == (
            "an inbound enforced domain is refused, because the gateway does not accept TLS itself: "
            f"{REASONS[how].format(target='gw.example:25')}. Mail of such a domain would never come in. Let the gateway accept "
            "TLS first (role gateway, accept)"
        )
        assert not isinstance(error.value, TransactionError)
        assert bench.held() == state()

    @pytest.mark.parametrize("how", REASONS)
    def test_mail_servers_without_tls_are_refused(self, bench, how):
        servers = tuple(map(Target, ("m1.example", "m2.example", "m3.example")))
        bench.hold(state(configs=(EmailConfig("main", ("a.example",), servers),)))
        bench.servers = {"m1.example": (how,), "m3.example": ("down",)}
        with pytest.raises(EngineError) as error:
            bench.set(INBOUND)
        assert str(error.value) == (
            "an inbound enforced domain is refused, because its mail needs TLS on the way to the mail servers as well, and "
            f"would be deferred: m1.example:25: {REASONS[how].format(target='m1.example:25')}; m3.example:25: cannot connect "
            "to m3.example:25: refused. Switch STARTTLS on there first; to require TLS anyway, set require_without_evidence"
        )

    def test_a_gateway_whose_port_is_out_of_reach_is_not_asked(self, bench):
        bench.gateway.own_port = None
        assert bench.set(INBOUND).changed
        assert bench.handshakes == [["mx.example:25"]]

    def test_without_email_configs_it_warns(self, bench):
        bench.hold(state(configs=()))
        outcome = bench.set(INBOUND)
        assert outcome.warnings == (
            "this gateway holds no email config, so TLS is enforced on the way in only: the next hop uses TLS for the "
            "domains of email configs",
        )
        assert bench.handshakes == [["gw.example:25"]]
        assert bench.set(INBOUND).warnings == ()

    def test_insisting_all_the_same_makes_no_handshake(self, bench):
        bench.servers = {"gw.example": ("down",), "mx.example": ("down",)}
        outcome = bench.set(INBOUND, OUTBOUND, require_without_evidence=True)
        assert (outcome.changed, outcome.evidence, outcome.warnings) == (True, (), ())
        assert (bench.handshakes, bench.gateway.asked) == ([], [])
        assert bench.held() == state(inbound(), outbound())

    def test_check_mode_says_what_a_real_run_would_refuse_and_changes_nothing(self, bench):
        bench.servers = {"gw.example": ("no starttls",)}
        outcome = bench.set(INBOUND, check_mode=True)
        [warning] = outcome.warnings
        assert warning.startswith(
            "unless an earlier step changes that, a real run would refuse this: an inbound enforced domain is refused"
        )
        assert (outcome.changed, outcome.after) == (True, state(inbound()))
        assert '"partner.example"' in outcome.diff[0]["prepared"]
        assert len(outcome.evidence) == 2
        assert bench.held() == state()
        assert bench.gateway.log == ["require_running"]

    def test_check_mode_when_all_is_well(self, bench):
        outcome = bench.set(INBOUND, check_mode=True)
        assert (outcome.changed, outcome.warnings) == (True, ())
        assert bench.held() == state()


class TestOutbound:
    MX = (Target("mx1.bank.example"), Target("mx2.bank.example", 26))

    @pytest.fixture
    def bench(self, bench, tmp_path):
        bench.gateway.hops["bank.example"] = self.MX
        bench.gateway.system_roots = str(tmp_path / "roots.pem")
        (tmp_path / "roots.pem").write_bytes(b"authorities \xff\n")
        return bench

    def test_the_gateway_is_asked_for_the_hosts_in_the_new_state(self, bench):
        bench.set({**OUTBOUND, "servers": ["mx.example"]})
        assert bench.gateway.asked == [("bank.example", state(outbound("encryption_only", "mx.example")))]
        assert bench.handshakes == [["mx1.bank.example:25", "mx2.bank.example:26"]]

    @pytest.mark.parametrize(
        ("check", "trust", "name"),
        [("encryption_only", False, False), ("trusted_chain", True, False), ("hostname", True, True)],
    )
    def test_each_check_asks_for_its_part(self, bench, check, trust, name):
        bench.set({**OUTBOUND, "certificate_check": check})
        [settings] = bench.settings
        assert (settings.verify_trust, settings.verify_name) == (trust, name)
        assert settings.ca_pem == ("authorities \n" if trust else None)
        assert ("roots" in bench.gateway.log) is trust

    @pytest.mark.parametrize("check", CHECKED)
    def test_the_authorities_of_the_system_if_the_gateway_has_none_of_its_own(self, bench, check):
        bench.gateway.system_roots = ""
        bench.set({**OUTBOUND, "certificate_check": check})
        assert bench.settings[0].ca_pem is None

    @pytest.mark.parametrize("check", CHECKED)
    def test_the_authorities_that_the_call_names_count_at_once(self, bench, check, tmp_path):
        (tmp_path / "own.pem").write_text("own\n")
        bench.set({**OUTBOUND, "certificate_check": check}, ca_file=str(tmp_path / "own.pem"))
        assert bench.settings[0].ca_pem == "own\n"
        assert bench.held() == state(outbound(check), ca_file=str(tmp_path / "own.pem"))

    def test_a_comment_in_another_alphabet_is_no_obstacle(self, bench, monkeypatch, tmp_path, authority):
        monkeypatch.setattr(evidence_module, "handshake_all", handshake_all)
        path = tmp_path / "own.pem"
        path.write_bytes("# Főtanúsítvány\n".encode() + authority.root_pem)
        face = Face(context=server_context(tmp_path, authority.issue(["mx1.bank.example"])))
        with serving(face) as server:
            bench.gateway.hops["bank.example"] = (Target("127.0.0.1", server.port, "mx1.bank.example"),)
            outcome = bench.set({**OUTBOUND, "certificate_check": "hostname"}, ca_file=str(path))
        assert [one.trusted for one in outcome.evidence] == [True]

    def test_a_real_certificate_passes_by_these_authorities_and_its_name(self, bench, monkeypatch, tmp_path, authority):
        monkeypatch.setattr(evidence_module, "handshake_all", handshake_all)
        (tmp_path / "own.pem").write_bytes(authority.root_pem)
        face = Face(context=server_context(tmp_path, authority.issue(["mx1.bank.example"])))
        with serving(face) as server:
            for name, check, passes in (
                ("mx1.bank.example", "hostname", True),
                ("mx2.bank.example", "hostname", False),
                ("mx2.bank.example", "trusted_chain", True),
                ("mx2.bank.example", "encryption_only", True),
            ):
                bench.hold(state())
                bench.gateway.hops["bank.example"] = (Target("127.0.0.1", server.port, name),)
                item = {**OUTBOUND, "certificate_check": check}
                if passes:
                    assert bench.set(item, ca_file=str(tmp_path / "own.pem")).changed
                    continue
                with pytest.raises(EngineError, match=r"its certificate does not pass \(.*mismatch"):
                    bench.set(item, ca_file=str(tmp_path / "own.pem"))

    def test_authorities_that_cannot_be_used_are_said(self, bench):
        bench.gateway.fail["roots"] = "ca_file: there is no file /etc/ca.pem on this gateway"
        with pytest.raises(EngineError, match=r"^ca_file: there is no file /etc/ca\.pem on this gateway$"):
            bench.set({**OUTBOUND, "certificate_check": "hostname"})
        assert bench.held() == state()

    @pytest.mark.parametrize(
        ("given_path", "kept"), [(None, "/etc/old.pem"), ("/etc/new.pem", "/etc/new.pem"), ("", "")]
    )
    def test_the_authorities_stay_if_nothing_is_said(self, bench, given_path, kept):
        bench.hold(state(ca_file="/etc/old.pem"))
        assert bench.set(INBOUND, ca_file=given_path).after == state(inbound(), ca_file=kept)

    @pytest.mark.parametrize(
        "options", [{}, {"absent": True}, {"check_mode": True}, {"require_without_evidence": True}]
    )
    @pytest.mark.parametrize(
        "path",
        [
            "own.pem",
            "~/own.pem",
            "/etc/../own.pem",
            "/etc/a b.pem",
            "/etc/own.pem\n",
            "/etc/own.pem,x",
            "/etc/$x",
            "/etc/ű",
        ],
    )
    def test_a_path_that_may_not_stand_in_a_configuration_is_refused(self, bench, path, options):
        with pytest.raises(EngineError) as error:
            bench.set(INBOUND, ca_file=path, **options)
        assert str(error.value) == (
            f"the path {path!r} of ca_file (enforced_ca_file) has to be absolute and made of letters, digits and _./+@-"
        )
        assert (bench.held(), bench.handshakes) == (state(), [])

    @pytest.mark.parametrize("check", CERTIFICATE_CHECKS)
    def test_with_new_authorities_those_who_go_by_them_are_judged_again(self, bench, check, tmp_path):
        bench.hold(state(outbound(check)))
        bench.servers = dict.fromkeys(("mx1.bank.example", "mx2.bank.example"), ("untrusted",))
        (tmp_path / "own.pem").write_text("own\n")
        more = {"ca_file": str(tmp_path / "own.pem")}
        if check == "encryption_only":
            assert bench.set(INBOUND, **more).changed
            assert bench.gateway.asked == []
            return
        with pytest.raises(EngineError, match=rf"^outbound enforced domain bank\.example is refused, .*\({check}\)"):
            bench.set(INBOUND, **more)
        assert bench.held() == state(outbound(check))
        assert bench.settings[-1].ca_pem == "own\n"
        bench.clear()
        assert bench.set(INBOUND).changed
        assert bench.gateway.asked == []

    @pytest.mark.parametrize("ca_file", [None, "/etc/new.pem"])
    def test_new_authorities_alone_are_a_change(self, bench, ca_file):
        bench.hold(state(inbound(), ca_file="/etc/old.pem"))
        assert bench.set(INBOUND, ca_file=ca_file).changed is (ca_file is not None)

    @pytest.mark.parametrize("check", CERTIFICATE_CHECKS)
    @pytest.mark.parametrize("how", REASONS)
    def test_no_host_with_tls_is_refused(self, bench, check, how):
        bench.servers = {"mx1.bank.example": (how,), "mx2.bank.example": ("down",)}
        with pytest.raises(EngineError) as error:
            bench.set({**OUTBOUND, "certificate_check": check})
        assert str(error.value) == (
            f"outbound enforced domain bank.example is refused, because mail to it would be deferred ({check}): "
            f"mx1.bank.example:25: {REASONS[how].format(target='mx1.bank.example:25')}; mx2.bank.example:26: cannot connect to "
            f"mx2.bank.example:26: refused. {ADVICE}"
        )
        assert bench.held() == state()
        assert bench.set({**OUTBOUND, "certificate_check": check}, require_without_evidence=True).changed

    @pytest.mark.parametrize("check", CHECKED)
    def test_certificates_that_do_not_pass_are_refused(self, bench, check):
        bench.servers = {"mx1.bank.example": ("untrusted",), "mx2.bank.example": ("broken",)}
        with pytest.raises(EngineError) as error:
            bench.set({**OUTBOUND, "certificate_check": check})
        assert str(error.value) == (
            f"outbound enforced domain bank.example is refused, because mail to it would be deferred ({check}): "
            "mx1.bank.example:25: its certificate does not pass (self-signed certificate); mx2.bank.example:26: the handshake "
            f"failed: no common cipher. {ADVICE}"
        )

    def test_encryption_only_takes_every_certificate(self, bench):
        bench.servers = {"mx1.bank.example": ("untrusted",), "mx2.bank.example": ("untrusted",)}
        outcome = bench.set(OUTBOUND)
        assert (outcome.changed, outcome.warnings) == (True, ())

    @pytest.mark.parametrize("check", CERTIFICATE_CHECKS)
    @pytest.mark.parametrize("first", [True, False])
    def test_one_host_is_enough_and_the_others_are_said(self, bench, check, first):
        other, port = ("mx1.bank.example", 25) if first else ("mx2.bank.example", 26)
        bench.servers[other] = ("no starttls",)
        outcome = bench.set({**OUTBOUND, "certificate_check": check})
        assert outcome.warnings == (
            f"outbound enforced domain bank.example: no mail goes to {other}:{port}: the server does not offer STARTTLS",
        )
        assert outcome.changed
        assert len(outcome.evidence) == 2

    def test_one_host_that_passes_is_enough_for_a_check(self, bench):
        bench.servers["mx1.bank.example"] = ("untrusted",)
        assert bench.set({**OUTBOUND, "certificate_check": "trusted_chain"}).warnings == (
            "outbound enforced domain bank.example: no mail goes to mx1.bank.example:25: its certificate does not pass "
            "(self-signed certificate)",
        )

    def test_a_domain_whose_hosts_cannot_be_found_is_refused(self, bench):
        with pytest.raises(EngineError) as error:
            bench.set({**OUTBOUND, "domain": "nowhere.example"})
        assert str(error.value) == (
            f"outbound enforced domain nowhere.example is refused, because its mail servers cannot be found. {ADVICE}"
        )
        assert bench.handshakes == []

    def test_a_route_that_cannot_be_read_is_said(self, bench):
        bench.gateway.hops["bank.example"] = EngineError("the port of the next hop is not known here")
        with pytest.raises(EngineError, match=r"^the port of the next hop is not known here$"):
            bench.set(OUTBOUND)

    def test_check_mode(self, bench):
        bench.servers = {"mx1.bank.example": ("down",), "mx2.bank.example": ("down",)}
        outcome = bench.set(OUTBOUND, check_mode=True)
        assert outcome.changed
        assert outcome.warnings[0].startswith(
            "unless an earlier step changes that, a real run would refuse this: outbound enforced domain bank.example is refused"
        )
        assert bench.held() == state()
        bench.servers.pop("mx1.bank.example")
        outcome = bench.set(OUTBOUND, check_mode=True)
        assert [one.partition(": ")[2][:25] for one in outcome.warnings] == ["no mail goes to mx2.bank."]
        assert bench.held() == state()
