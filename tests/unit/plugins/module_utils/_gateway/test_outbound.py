"""The outbound side of a gateway: as data, and the one transaction that sets it on the evidence of handshakes."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import evidence as evidence_module
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    ACCEPTS,
    MODES,
    SENDS,
    EmailConfig,
    EnforcedDomain,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.outbound import set_outbound
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError
from hypothesis import given
from hypothesis import strategies as st

from tests.support.gateway_bench import REASONS, Bench

SERVERS = ["192.0.2.10", "2001:db8::/32"]
NETWORKS = ("192.0.2.10/32", "2001:db8::/32")
ABOUT_SERVERS = ("plaintext", "tls_only")
INSIST = ("match_sender_strict", "required")
CONFIG = EmailConfig("main", ("a.example",), (Target("mx.example"),), "plaintext")
ENFORCED = (EnforcedDomain("partner.example", "inbound"),)


class TestFromDict:
    @pytest.mark.parametrize("accept", [None, *ACCEPTS])
    @pytest.mark.parametrize("send", [None, *SENDS])
    def test_every_pair_of_words(self, accept, send):
        given_data = {"accept": accept, "send": send, "mail_servers": SERVERS}
        one = OutboundTls.from_dict(given_data)
        assert one == OutboundTls(accept, send, NETWORKS)
        assert one.to_dict() == {"accept": accept, "send": send, "mail_servers": list(NETWORKS)}
        assert OutboundTls.from_dict(one.to_dict()) == one

    def test_the_words(self):
        assert ACCEPTS == ("plaintext", "both", "tls_only")
        assert SENDS == MODES

    @pytest.mark.parametrize("data", [{}, {"accept": None, "send": None, "mail_servers": None}, {"mail_servers": []}])
    def test_nothing_at_all(self, data):
        assert OutboundTls.from_dict(data) == OutboundTls()

    @pytest.mark.parametrize("accept", ["", "none", "Both", "both\n", True, False, 0, 1, ("both",)])
    def test_a_bad_accept(self, accept):
        with pytest.raises(EngineError) as error:
            OutboundTls.from_dict({"accept": accept})
        assert str(error.value) == f"accept {accept!r} is not one of plaintext, both, tls_only"

    @pytest.mark.parametrize("send", ["", "off", "Required", "required\n", True, False, 0])
    def test_a_bad_send(self, send):
        with pytest.raises(EngineError) as error:
            OutboundTls.from_dict({"send": send})
        assert str(error.value) == f"send {send!r} is not one of {', '.join(MODES)}"

    @pytest.mark.parametrize(
        ("server", "network"),
        [
            ("192.0.2.10", "192.0.2.10/32"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.0/255.255.255.0", "192.0.2.0/24"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("[2001:db8::1]", "2001:db8::1/128"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ],
    )
    def test_a_mail_server_is_kept_as_a_network(self, server, network):
        assert OutboundTls.from_dict({"mail_servers": [server]}).mail_servers == (network,)

    def test_one_network_in_two_spellings_is_one(self):
        assert OutboundTls.from_dict({"mail_servers": ["192.0.2.1", "192.0.2.1/32", "[2001:db8::1]", "192.0.2.1"]}) == (
            OutboundTls(None, None, ("192.0.2.1/32", "2001:db8::1/128"))
        )

    @pytest.mark.parametrize(
        "server", ["", "mx.example", "192.0.2.1/24", "192.0.2.256", "192.0.2.1:25", "192.0.2.1\n", "a b", "2001:db8::1/16",
                   "192.0.2.1 ; 0.0.0.0/0", None, [], {"a": 1}],
    )  # fmt: skip
    def test_what_is_no_network_is_refused(self, server):
        with pytest.raises(EngineError) as error:
            OutboundTls.from_dict({"mail_servers": ["192.0.2.9", server]})
        assert str(error.value).startswith(f"mail_servers: {server!r} is neither an IP address nor a network (")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        "server",
        [
            "fe80::1%eth0",
            "fe80::1%a\n192.0.2.1 starttls",
            "fe80::1%a ; 192.0.2.1",
            "fe80::1%${tod_log}",
            "[fe80::%x y]",
        ],
    )
    def test_an_ipv6_zone_is_no_part_of_a_network(self, server):
        with pytest.raises(EngineError, match="is neither an IP address nor a network"):
            OutboundTls.from_dict({"mail_servers": [server]})

    def test_a_string_is_no_list(self):
        with pytest.raises(EngineError, match=r"^mail_servers has to be a list$"):
            OutboundTls.from_dict({"mail_servers": "192.0.2.1"})

    @pytest.mark.parametrize("accept", ABOUT_SERVERS)
    @pytest.mark.parametrize("servers", [{}, {"mail_servers": None}, {"mail_servers": []}])
    def test_what_is_about_the_mail_servers_needs_their_networks(self, accept, servers):
        with pytest.raises(EngineError) as error:
            OutboundTls.from_dict({"accept": accept, **servers})
        assert str(error.value) == (
            f"accept {accept} applies to your own mail servers only: name their addresses or networks in mail_servers"
        )

    @given(st.lists(st.text("0123456789abcdef.:/[] ;\n%$", max_size=20) | st.ip_addresses().map(str), max_size=3))
    def test_whatever_is_accepted_is_a_plain_network(self, servers):
        """Neither a newline nor a space or an expansion comes into a table or an access control list."""
        try:
            accepted = OutboundTls.from_dict({"mail_servers": servers})
        except EngineError:
            return
        assert all(set(one) <= set("0123456789abcdef.:/") and one.count("/") == 1 for one in accepted.mail_servers)


@pytest.mark.parametrize("send", [None, *SENDS])
def test_only_the_modes_that_match_the_sender_depend_on_arrival(send):
    assert OutboundTls(None, send).depends_on_arrival is (send in ("match_sender", "match_sender_strict"))


def state(*args, configs=(CONFIG,), **more):
    return GatewayState({one.name: one for one in configs}, ENFORCED, OutboundTls(*args) if args else None, **more)


TLS_ONLY_WARNING = (
    "from now on mail of a mail server that does not use TLS towards this gateway is deferred until it does",
)
PLAINTEXT_WARNING = (
    "a mail server that requires TLS towards this gateway defers its mail from now on; stop requiring TLS there first",
)


class OutboundBench(Bench):
    def set(self, accept=None, send=None, mail_servers=None, **options):
        wanted = {"accept": accept, "send": send, "mail_servers": mail_servers}
        return set_outbound(self.gateway, wanted, self.common, store=str(self.store), **options)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = OutboundBench(tmp_path, monkeypatch, evidence_module)
    bench.hold(state())
    bench.gateway.relays = (Target("relay1.example"), Target("relay2.example", 26))
    return bench


class TestSetOutbound:
    @pytest.mark.parametrize("accept", ACCEPTS)
    @pytest.mark.parametrize("send", SENDS)
    def test_both_sides_are_set_and_proved(self, bench, accept, send):
        outcome = bench.set(accept, send, SERVERS)
        assert bench.held() == outcome.after == state(accept, send, NETWORKS)
        assert (outcome.changed, outcome.before, outcome.recovered) == (True, state(), False)
        steps = [step for step in bench.gateway.log if step != "relay_hosts"]
        assert steps == ["require_running", "check", "reload", "prove"]
        assert f'"send": "{send}"' in outcome.diff[0]["prepared"]

    @pytest.mark.parametrize("accept", ACCEPTS)
    @pytest.mark.parametrize("send", SENDS)
    def test_a_second_run_makes_no_handshake_and_no_change(self, bench, accept, send):
        bench.set(accept, send, SERVERS)
        bench.clear()
        outcome = bench.set(accept, send, SERVERS)
        assert (outcome.changed, outcome.evidence, outcome.diff, outcome.warnings) == (False, (), [], ())
        assert bench.handshakes == []
        assert bench.gateway.log == ["require_running", "serves"]

    @pytest.mark.parametrize("unset", [None, "", []])
    def test_what_is_not_said_stays(self, bench, unset):
        bench.hold(state("both", "opportunistic", NETWORKS))
        assert bench.set(unset, "match_sender", unset).after == state("both", "match_sender", NETWORKS)
        assert bench.set("plaintext", unset, unset).after == state("plaintext", "match_sender", NETWORKS)
        assert bench.set("both", unset, ["192.0.2.1"]).after == state("both", "match_sender", ("192.0.2.1/32",))

    def test_a_word_that_yaml_makes_of_off_is_not_taken_for_silence(self, bench):
        with pytest.raises(EngineError, match=r"^send False is not one of"):
            bench.set("both", False)
        assert bench.held() == state()

    def test_mail_servers_are_needed_once(self, bench):
        with pytest.raises(EngineError, match=r"^accept tls_only applies to your own mail servers only"):
            bench.set("tls_only")
        bench.set("both", mail_servers=SERVERS)
        assert bench.set("tls_only").after == state("tls_only", None, NETWORKS)

    def test_bad_data_touches_nothing(self, bench):
        with pytest.raises(EngineError, match="is neither an IP address nor a network"):
            bench.set("both", "required", ["mx.example"])
        assert (bench.held(), bench.handshakes) == (state(), [])

    def test_absent_goes_back_to_plaintext(self, bench):
        bench.hold(state("tls_only", "required", NETWORKS))
        bench.servers = dict.fromkeys(("gw.example", "relay1.example"), ("down",))
        outcome = bench.set(absent=True)
        assert bench.held() == outcome.after == state("plaintext", "plaintext", NETWORKS)
        assert bench.handshakes == []
        assert not bench.set(absent=True).changed

    def test_absent_without_mail_servers_leaves_what_is_accepted(self, bench):
        bench.hold(state("both", "opportunistic"))
        assert bench.set(absent=True).after == state("both", "plaintext")
        bench.hold(state())
        assert bench.set(absent=True).after == state(None, "plaintext")

    def test_absent_with_mail_servers_that_are_given_goes_back_for_these(self, bench):
        bench.hold(state("both", "opportunistic", NETWORKS))
        assert bench.set("both", "required", ["192.0.2.1"], absent=True).after == state(
            "plaintext", "plaintext", ("192.0.2.1/32",)
        )

    @pytest.mark.parametrize("held", [(), ("both", "required")])
    def test_absent_with_mail_servers_that_were_not_known_goes_back_as_well(self, bench, held):
        bench.hold(state(*held))
        assert bench.set(mail_servers=["192.0.2.1"], absent=True).after == state(
            "plaintext", "plaintext", ("192.0.2.1/32",)
        )

    def test_email_configs_enforced_domains_and_authorities_stay(self, bench):
        bench.hold(state(ca_file="/etc/ca.pem"))
        assert bench.set("both").after == state("both", ca_file="/etc/ca.pem")
        assert bench.held() == state("both", ca_file="/etc/ca.pem")

    @pytest.mark.parametrize("absent", [False, True])
    @pytest.mark.parametrize("check_mode", [False, True])
    def test_a_gateway_without_an_outbound_side_says_why(self, bench, absent, check_mode):
        bench.gateway.limits = {"outbound": "it only receives"}
        with pytest.raises(EngineError) as error:
            bench.set("both", absent=absent, check_mode=check_mode, require_without_evidence=True)
        assert str(error.value) == "a stand-in for a gateway has no outbound side that can be set: it only receives"
        assert bench.gateway.log == []

    def test_another_limit_is_not_in_the_way(self, bench):
        bench.gateway.limits = {"enforced": "none", "match_sender": "no"}
        assert bench.set("both").changed

    @pytest.mark.parametrize("step", ["check", "reload", "prove"])
    def test_a_failure_brings_the_old_state_back(self, bench, step):
        bench.gateway.fail[step] = "no good"
        with pytest.raises(TransactionError, match=r"^no good\. The former state is restored and proved$"):
            bench.set("both", "opportunistic")
        assert bench.held() == state()

    def test_a_gateway_that_does_not_serve_is_reloaded_and_proved_though_no_file_changes(self, bench):
        bench.hold(state("both"))
        bench.gateway.up = False
        outcome = bench.set("both")
        assert (outcome.changed, outcome.diff) == (True, [])
        assert bench.gateway.log == ["require_running", "serves", "check", "reload", "prove"]


class TestAccept:
    @pytest.mark.parametrize("accept", ["both", "tls_only"])
    def test_the_gateway_is_asked_whether_it_accepts_tls(self, bench, accept):
        outcome = bench.set(accept, mail_servers=SERVERS)
        assert bench.handshakes == [["gw.example:25"]]
        assert [one.verify_trust for one in bench.settings] == [False]
        assert [str(one.target) for one in outcome.evidence] == ["gw.example:25"]

    @pytest.mark.parametrize("accept", ["both", "tls_only"])
    @pytest.mark.parametrize("how", REASONS)
    def test_a_gateway_without_tls_is_refused(self, bench, accept, how):
        bench.servers["gw.example"] = (how,)
        with pytest.raises(EngineError) as error:
            bench.set(accept, mail_servers=SERVERS)
        assert str(error.value) == (
            f"accept {accept} is refused, because the gateway does not accept TLS itself: "
            f"{REASONS[how].format(target='gw.example:25')}. Let it accept TLS first (role gateway, accept)"
        )
        assert not isinstance(error.value, TransactionError)
        assert bench.held() == state()

    def test_plaintext_needs_no_evidence(self, bench):
        bench.servers["gw.example"] = ("down",)
        outcome = bench.set("plaintext", mail_servers=SERVERS)
        assert (outcome.changed, outcome.evidence, outcome.warnings) == (True, (), PLAINTEXT_WARNING)

    @pytest.mark.parametrize("held", [("both", None, NETWORKS), ("tls_only", None, NETWORKS), ("both",)])
    def test_plaintext_warns_of_those_who_insist(self, bench, held):
        bench.hold(state(*held))
        assert bench.set("plaintext", mail_servers=SERVERS).warnings == PLAINTEXT_WARNING
        assert bench.set("plaintext", "opportunistic", ["192.0.2.1"]).warnings == ()
        assert bench.set("both").warnings == ()

    def test_absent_warns_of_them_as_well(self, bench):
        bench.hold(state("tls_only", None, NETWORKS))
        assert bench.set(absent=True).warnings == PLAINTEXT_WARNING

    def test_tls_only_warns_of_what_follows(self, bench):
        assert bench.set("both", mail_servers=SERVERS).warnings == ()
        assert bench.set("tls_only").warnings == TLS_ONLY_WARNING
        assert bench.set("tls_only", "opportunistic").warnings == ()
        assert bench.set("tls_only", mail_servers=["192.0.2.1"]).warnings == TLS_ONLY_WARNING  # others than before

    def test_a_gateway_whose_port_is_out_of_reach_is_not_asked(self, bench):
        bench.gateway.own_port = None
        outcome = bench.set("tls_only", mail_servers=SERVERS)
        assert (outcome.changed, outcome.warnings, bench.handshakes) == (True, TLS_ONLY_WARNING, [])

    def test_what_is_held_is_not_asked_for_again(self, bench):
        bench.hold(state("both"))
        bench.servers["gw.example"] = ("down",)
        assert bench.set("both", "opportunistic").changed
        assert bench.handshakes == []


class TestSend:
    @pytest.mark.parametrize("send", INSIST)
    def test_what_insists_needs_relay_hosts_with_tls(self, bench, send):
        outcome = bench.set(send=send)
        assert bench.handshakes == [["relay1.example:25", "relay2.example:26"]]
        assert [one.verify_trust for one in bench.settings] == [False]
        assert [str(one.target) for one in outcome.evidence] == ["relay1.example:25", "relay2.example:26"]
        assert outcome.warnings == ()

    @pytest.mark.parametrize("send", [send for send in SENDS if send not in INSIST])
    def test_the_others_need_nothing(self, bench, send):
        bench.gateway.relays = EngineError("nobody may ask")
        outcome = bench.set(send=send)
        assert (outcome.changed, outcome.evidence, bench.handshakes) == (True, (), [])

    @pytest.mark.parametrize("send", INSIST)
    @pytest.mark.parametrize("how", REASONS)
    def test_a_relay_host_without_tls_is_refused(self, bench, send, how):
        bench.servers["relay2.example"] = (how,)
        with pytest.raises(EngineError) as error:
            bench.set(send=send)
        assert str(error.value) == (
            f"send {send} is refused, because mail would be deferred: relay2.example:26: "
            f"{REASONS[how].format(target='relay2.example:26')}. Enforce single domains (enforced_tls_domain), or require TLS "
            "anyway with require_without_evidence"
        )
        assert bench.held() == state()

    def test_every_relay_host_without_tls_is_said(self, bench):
        bench.servers = dict.fromkeys(("relay1.example", "relay2.example"), ("no starttls",))
        with pytest.raises(EngineError, match=r"relay1\.example:25: the server [^;]*; relay2\.example:26: the server"):
            bench.set(send="required")

    @pytest.mark.parametrize("send", INSIST)
    def test_without_relay_hosts_it_is_refused(self, bench, send):
        bench.gateway.relays = ()
        with pytest.raises(EngineError) as error:
            bench.set(send=send)
        assert str(error.value) == (
            f"send {send} is refused, because mail would be deferred: it hands its mail to the MX of each recipient domain, and "
            "those cannot all be tested. Enforce single domains (enforced_tls_domain), or require TLS anyway with "
            "require_without_evidence"
        )
        assert bench.handshakes == []

    def test_other_ways_out_are_said(self, bench):
        bench.gateway.relays = EngineError("mail also leaves by transport_maps = hash:/x")
        with pytest.raises(
            EngineError, match=r"would be deferred: mail also leaves by transport_maps = hash:/x\. Enforce"
        ):
            bench.set(send="required")
        assert bench.handshakes == []

    @pytest.mark.parametrize(("before", "after"), [INSIST, INSIST[::-1]])
    def test_from_one_that_insists_to_another_nothing_is_asked(self, bench, before, after):
        bench.hold(state(None, before))
        bench.gateway.relays = ()
        assert bench.set(send=after).changed
        assert bench.handshakes == []

    def test_insisting_all_the_same_makes_no_handshake(self, bench):
        bench.servers = dict.fromkeys(("gw.example", "relay1.example", "relay2.example"), ("down",))
        outcome = bench.set("tls_only", "required", SERVERS, require_without_evidence=True)
        assert (outcome.changed, outcome.evidence, outcome.warnings, bench.handshakes) == (True, (), (), [])
        assert bench.held() == state("tls_only", "required", NETWORKS)

    def test_both_problems_are_said_at_once(self, bench):
        bench.servers = dict.fromkeys(("gw.example", "relay1.example"), ("no starttls",))
        with pytest.raises(EngineError) as error:
            bench.set("both", "required")
        assert str(error.value).startswith("accept both is refused, because")
        assert "; send required is refused, because mail would be deferred: relay1.example:25: " in str(error.value)

    def test_check_mode_says_what_a_real_run_would_refuse_and_changes_nothing(self, bench):
        bench.gateway.relays = ()
        outcome = bench.set("tls_only", "required", SERVERS, check_mode=True)
        tls_only, refusal = outcome.warnings
        assert tls_only.startswith("from now on mail of a mail server")
        assert refusal.startswith(
            "unless an earlier step changes that, a real run would refuse this: send required is refused"
        )
        assert (outcome.changed, outcome.after) == (True, state("tls_only", "required", NETWORKS))
        assert bench.held() == state()
        assert bench.gateway.log == ["require_running", "relay_hosts"]
