"""The delivery modes on Proxmox Mail Gateway, against a stand-in for its API that is as strict as it is."""

import json
from http.client import RemoteDisconnected

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.api import Response
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import Gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import EmailConfig, GatewayState
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import set_modes
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.reading import read_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._proxmox import gateway as gateway_module
from ansible_collections.mailfleet.starttls.plugins.module_utils._proxmox.gateway import ProxmoxGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.gateway import GATEWAYS, Access
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import API_ANSWER_BYTES
from ansible_collections.mailfleet.starttls.plugins.modules import inbound_tls_mode, inbound_tls_mode_info

from tests.support.ansible_module import run_module
from tests.support.fake_api import Answer, http
from tests.support.fake_proxmox import PASSWORD, TICKET, TOKEN, FakeProxmox
from tests.support.smtp_server import PLAIN, Face, refused_port, server_context, serving

SETTINGS = Settings(timeout=5)
RELAY = {"relay": "mail.example.com", "relaynomx": 1}
HOP = "[mail.example.com]:25"
SECRETS = (PASSWORD, "geheim", TICKET, "c2ln", TOKEN)


def adapter(fake, **options):
    given = {"api_url": fake.url, "api_user": "root@pam", "api_password": PASSWORD, **options}
    return GATEWAYS["proxmox"](Access(lambda _arguments: (1, "", ""), http, **given), SETTINGS)


def transport(domain, host, port=25, use_mx=0, **more):
    return {"domain": domain, "host": host, "port": port, "use_mx": use_mx, "protocol": "smtp", "comment": "", **more}


def config(name="main", mode="plaintext", domains=("example.com",), servers=("mail.example.com",)):
    return EmailConfig(name, tuple(domains), tuple(map(Target.parse, servers)), mode)


def state(*configs):
    return GatewayState({one.name: one for one in configs})


def change(gateway, *configs):
    planned = gateway.plan(state(*configs))
    gateway.transaction("unused").apply(planned, gateway.prove, gateway.prove)
    return planned


def held(fake, **item):
    [one] = adapter(fake).read([{"name": "main", "domains": ["example.com"], **item}]).email_configs.values()
    return one


def refused(work, *arguments):
    with pytest.raises(EngineError) as error:
        work(*arguments)
    assert not any(secret in str(error.value) for secret in SECRETS)
    return str(error.value)


@pytest.fixture
def fake():
    with FakeProxmox(**RELAY) as made:
        yield made


class TestWhatItIs:
    def test_of_the_contract(self, fake):
        gateway: Gateway = adapter(fake)
        assert isinstance(gateway, ProxmoxGateway)
        assert gateway.title == "Proxmox Mail Gateway"
        assert gateway.modes == ("plaintext", "opportunistic", "required")
        assert gateway.verifying_modes == ()
        assert gateway.own_port is None
        assert gateway.serves() is True
        assert gateway.next_hops("example.com", GatewayState()) == ()
        assert gateway.roots(GatewayState()) == ""
        assert set(gateway.limits) == {"match_sender", "match_sender_strict", "enforced", "outbound"}
        assert fake.requests == []

    def test_its_outbound_side(self, fake):
        assert "one switch serves both of its sides" in refused(adapter(fake).relay_hosts)


class TestLogIn:
    def test_once_for_all_requests(self, fake):
        gateway = adapter(fake)
        gateway.require_running()
        gateway.require_running()
        gateway.read()
        assert [path for _method, path in fake.requests].count("/api2/json/access/ticket") == 1

    def test_reading_logs_in_by_itself(self, fake):
        assert list(adapter(fake).read().email_configs) == ["example.com"]

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"api_url": ""}, "api_url is not the URL of an API"),
            ({"api_url": "http://gw.example.com:8006"}, "api_url has to be https"),
            (
                {"api_user": ""},
                "api_user and api_password are needed to log in; set starttls_api_user and starttls_api_password",
            ),
            (
                {"api_password": ""},
                "api_user and api_password are needed to log in; set starttls_api_user and starttls_api_password",
            ),
            ({"api_user": "root"}, "api_user needs its realm, like root@pam; 'root' has none"),
        ],
    )
    def test_what_is_missing_is_said_before_anything_is_sent(self, fake, options, words):
        assert words in refused(adapter(fake, **options).require_running)
        assert fake.requests == []

    @pytest.mark.parametrize("options", [{"api_password": "wrong"}, {"api_user": "other@pmg"}])
    def test_who_is_not_let_in(self, fake, options):
        text = refused(adapter(fake, **options).require_running)
        assert text == (
            "Proxmox Mail Gateway: POST /api2/json/access/ticket was answered 401 (authentication failure); "
            "see whether api_user and api_password are right and the user is enabled"
        )

    def test_a_password_that_is_no_text(self, fake):
        assert "was answered 401" in refused(adapter(fake, api_password="\udcff\udcfe").require_running)

    def test_a_second_factor(self, fake):
        fake.needs_tfa = True
        assert "the user root@pam needs a second factor, which this collection cannot give" in refused(
            adapter(fake).require_running
        )

    @pytest.mark.parametrize(
        "data",
        [None, [], "x", {}, {"ticket": TICKET}, {"CSRFPreventionToken": TOKEN}, {"ticket": "", "CSRFPreventionToken": TOKEN},
         {"ticket": 1, "CSRFPreventionToken": TOKEN}, {"ticket": TICKET, "CSRFPreventionToken": 1},
         {"ticket": TICKET, "CSRFPreventionToken": "a\r\nX: y"}, {"ticket": TICKET, "CSRFPreventionToken": ""}],
    )  # fmt: skip
    def test_no_ticket(self, fake, data):
        fake.misbehave["POST", "/api2/json/access"] = Answer(body={"data": data})
        assert "POST /api2/json/access/ticket gave no ticket" in refused(adapter(fake).require_running)

    def test_a_ticket_with_a_line_end_stays_in_its_header(self, fake):
        fake.misbehave["POST", "/api2/json/access"] = Answer(
            body={"data": {"ticket": "a\r\nX-Y: z", "CSRFPreventionToken": TOKEN}}
        )
        assert "was answered 401" in refused(adapter(fake).read)
        assert "X-Y" not in fake.headers[-1]


ROUTES = [
    ({**RELAY}, [], HOP, "mail.example.com:25"),
    ({"relay": "mail.example.com"}, [], "mail.example.com:25", "mail.example.com:25"),
    ({"relay": "192.0.2.1", "relayport": 2525}, [], "192.0.2.1:2525", "192.0.2.1:2525"),
    ({**RELAY, "relayport": "26"}, [], "[mail.example.com]:26", "mail.example.com:26"),
    ({"relay": "2001:db8::1", "relaynomx": "1"}, [], "[2001:db8::1]:25", "[2001:db8::1]:25"),
    (RELAY, [transport("example.com", "mx.example.org")], "[mx.example.org]:25", "mx.example.org:25"),
    (RELAY, [transport("Example.COM", "MX.example.org", use_mx=1)], "MX.example.org:25", "mx.example.org:25"),
    (RELAY, [transport("example.com", "192.0.2.9", 587, use_mx=1)], "[192.0.2.9]:587", "192.0.2.9:587"),
    (RELAY, [transport("example.com", "ipv6:2001:db8::9", use_mx=1)], "[ipv6:2001:db8::9]:25", "[2001:db8::9]:25"),
    (RELAY, [transport("user@example.com", "mx.example.org"), transport(".example.com", "mx.example.org")], HOP, "mail.example.com:25"),
]  # fmt: skip


class TestRoutes:
    @pytest.mark.parametrize(("mail", "transports", "hop", "server"), ROUTES)
    def test_the_policy_belongs_to_the_next_hop_as_it_is_rendered(self, mail, transports, hop, server):
        with FakeProxmox(transports=transports, policies={hop: "encrypt"}, **mail) as fake:
            assert held(fake) == config(mode="required", servers=[server])
        with FakeProxmox(transports=transports, **mail) as fake:
            assert held(fake) == config(mode="opportunistic", servers=[server])
            change(adapter(fake), held(fake), config(mode="required", servers=[server]))
            assert fake.policies == {hop: "encrypt"}

    def test_a_route_by_pattern_takes_other_mail_as_well(self):
        with FakeProxmox(transports=[transport(".com", "mx.example.org")], **RELAY) as fake:
            assert held(fake).servers == (Target("mx.example.org"),)
            assert "from that of .com, because" in refused(adapter(fake).plan, state(config(mode="required")))

    @pytest.mark.parametrize("listed", ["example.com", "EXAMPLE.com", ".com"])
    def test_a_relay_domain_may_be_covered_by_a_pattern(self, listed):
        with FakeProxmox(domains=[listed], **RELAY) as fake:
            assert held(fake).servers == (Target("mail.example.com"),)

    @pytest.mark.parametrize("listed", [".example.com", "example.org", "xexample.com", ".om"])
    def test_no_relay_domain(self, listed):
        with FakeProxmox(domains=[listed], **RELAY) as fake:
            assert refused(held, fake) == (
                "email config main: example.com is not a relay domain of Proxmox Mail Gateway, so the gateway accepts no "
                "mail for it; add it there first"
            )

    def test_without_a_relay_it_is_the_mx_of_the_domain(self):
        with FakeProxmox(policies={".com": "encrypt"}) as fake:
            assert "hands mail for example.com to the MX of the domain. Name those hosts in servers" in refused(
                held, fake
            )
            assert held(fake, servers=["mx1.example.com"]) == config(mode="required", servers=["mx1.example.com"])
            change(adapter(fake), config(mode="plaintext"))
            assert fake.policies == {".com": "encrypt", "example.com": "none"}

    @pytest.mark.parametrize("relay", ["mail.example.com/x", "2001:db8::1", "a b"])
    def test_one_that_cannot_be_understood(self, relay):
        with FakeProxmox(relay=relay) as fake:
            assert refused(held, fake) == (
                f"the next hop '{relay}:25' of example.com on Proxmox Mail Gateway cannot be understood; write it there as "
                "[host]:port"
            )

    @pytest.mark.parametrize("mail", [{**RELAY, "relayprotocol": "lmtp", "relayport": 24}, {}])
    def test_lmtp_is_told_but_not_changed(self, mail):
        lmtp = [] if mail else [transport("example.com", "mail.example.com", 24, protocol="lmtp")]
        with FakeProxmox(transports=lmtp, policies={"mail.example.com:24": "encrypt"}, **mail) as fake:
            gateway = adapter(fake)
            assert held(fake) == config(mode="required", servers=["mail.example.com:24"])
            assert not gateway.plan(state(config(mode="required")))
            assert "plaintext is refused, because its mail is delivered by LMTP" in refused(
                gateway.plan, state(config())
            )

    def test_one_email_config_by_several_next_hops(self):
        domains = ["a.example", "b.example", "c.example"]
        routes = [
            transport("a.example", "m1.example"),
            transport("b.example", "m2.example"),
            transport("c.example", "m1.example"),
        ]
        with FakeProxmox(domains, routes, **RELAY) as fake:
            found = held(fake, domains=domains)
            assert found == config(mode="opportunistic", domains=domains, servers=["m1.example", "m2.example"])
            change(adapter(fake), config(mode="required", domains=domains))
            assert fake.policies == {"[m1.example]:25": "encrypt", "[m2.example]:25": "encrypt"}
            del fake.policies["[m1.example]:25"]
            assert held(fake, domains=domains).delivery_mode == "mixed"


class TestServers:
    @pytest.mark.parametrize("given", ["mail.example.com", "MAIL.example.com:25", "mail.example.com."])
    def test_those_that_are_there(self, fake, given):
        assert held(fake, servers=[given]).servers[0].host.rstrip(".") == "mail.example.com"

    def test_an_address_in_another_spelling(self):
        with FakeProxmox(relay="2001:db8::1", relaynomx=1) as fake:
            assert held(fake, servers=["[2001:0db8:0::1]:25"]).servers == (Target("2001:0db8:0::1"),)

    def test_their_order_is_kept(self):
        routes = [transport("example.com", "m1.example"), transport("example.org", "m2.example")]
        with FakeProxmox(["example.com", "example.org"], routes) as fake:
            found = held(fake, domains=["example.com", "example.org"], servers=["m2.example", "m1.example"])
            assert [one.host for one in found.servers] == ["m2.example", "m1.example"]

    @pytest.mark.parametrize(
        "given", [["mx.example.com"], ["mail.example.com:26"], ["mail.example.com", "mx.example.com"], ["192.0.2.1"]]
    )
    def test_others_are_refused(self, fake, given):
        shown = ", ".join(one if ":" in one else f"{one}:25" for one in given)
        assert refused(lambda: held(fake, servers=given)) == (
            "email config main: Proxmox Mail Gateway hands its mail to mail.example.com:25, not to "
            f"{shown}. Correct the route there, or the servers here"
        )

    def test_beside_an_mx_the_known_one_has_to_be_there(self):
        with FakeProxmox(["example.com", "example.org"], [transport("example.com", "mail.example.com")]) as fake:
            both = ["example.com", "example.org"]
            assert held(fake, domains=both, servers=["mail.example.com", "mx.example.org"]).domains == tuple(both)
            for servers in (["mail.example.com"], ["mx.example.org"]):
                text = refused(lambda servers=servers: held(fake, domains=both, servers=servers))
                assert "hands its mail to mail.example.com:25 and the MX of example.org, not to" in text


class TestRead:
    @pytest.mark.parametrize(
        ("policy", "mode"),
        [
            ("none", "plaintext"), ("may", "opportunistic"), ("dane", "opportunistic"), ("encrypt", "required"),
            ("dane-only", "required"), ("verify", "required"), ("secure", "required"),
            ("fingerprint match=AA:BB", "required"), ("secure match=nexthop", "required"),
        ],
    )  # fmt: skip
    def test_each_policy_comes_to_a_mode(self, fake, policy, mode):
        fake.policies = {HOP.upper(): policy, "example.com": "none"}
        assert held(fake).delivery_mode == mode

    def test_all_relay_domains_by_their_names(self):
        with FakeProxmox(["b.example", "a.example", ".sub.example"], [transport("b.example", "m.example")],
                         {"[m.example]:25": "none"}) as fake:  # fmt: skip
            configs = adapter(fake).read().email_configs
            assert configs == {
                "a.example": EmailConfig("a.example", ("a.example",), (), "opportunistic"),
                "b.example": EmailConfig("b.example", ("b.example",), (Target("m.example"),), "plaintext"),
            }
            assert not adapter(fake).plan(GatewayState(configs))

    def test_a_name_that_is_a_relay_domain_needs_no_domains(self, fake):
        assert held(fake, name="example.com", domains=None) == config("example.com", "opportunistic")

    def test_any_other_name_does(self, fake):
        assert refused(lambda: held(fake, domains=None)) == (
            "email config 'main': Proxmox Mail Gateway stores no names of email configs. Give its domains as well, or name "
            "it after its one relay domain"
        )

    @pytest.mark.parametrize(
        ("item", "words"),
        [
            ({"domains": "example.com"}, "domains has to be a list"),
            ({"domains": ["exämple.com"]}, "is not a domain name"),
            ({"servers": "mail.example.com"}, "servers has to be a list"),
            ({"servers": ["a b"]}, "email config main: "),
            ({"name": ""}, "has to be 1 to 63"),
        ],
    )
    def test_bad_input(self, fake, item, words):
        assert words in refused(lambda: held(fake, **item))

    @pytest.mark.parametrize("policy", ["strange", "Encrypt", "may,encrypt", "x-***"])
    def test_an_unknown_policy(self, fake, policy):
        fake.policies = {"elsewhere": policy.replace("***", TOKEN)}
        assert f"gave the TLS policy '{policy}' for elsewhere, which this collection does not know" in refused(
            held, fake
        )


class TestTlsSwitchedOff:
    @pytest.mark.parametrize("off", [0, "0", None])
    def test_all_is_plaintext_and_nothing_else_to_be_had(self, fake, off):
        fake.mail["tls"] = off
        fake.policies = {HOP: "encrypt"}
        gateway = adapter(fake)
        assert held(fake) == config(mode="plaintext")
        assert not gateway.plan(state(config()))
        for mode in ("opportunistic", "required"):
            assert refused(gateway.plan, state(config(mode=mode))) == (
                f"email config main: {mode} is refused, because TLS is switched off on Proxmox Mail Gateway as a whole. "
                "Install its certificate, then switch TLS on there (Configuration, Mail Proxy, TLS)"
            )
        assert fake.writes() == []


class TestPlan:
    @pytest.mark.parametrize(
        ("policy", "mode", "after"),
        [
            (None, "plaintext", "none"), (None, "opportunistic", None), (None, "required", "encrypt"),
            ("none", "plaintext", "none"), ("none", "opportunistic", "may"), ("none", "required", "encrypt"),
            ("may", "plaintext", "none"), ("may", "opportunistic", "may"), ("may", "required", "encrypt"),
            ("dane", "opportunistic", "dane"), ("dane", "required", "encrypt"), ("dane", "plaintext", "none"),
            ("encrypt", "opportunistic", "may"), ("encrypt", "required", "encrypt"), ("encrypt", "plaintext", "none"),
            ("verify", "required", "verify"), ("secure", "required", "secure"), ("dane-only", "required", "dane-only"),
            ("fingerprint match=AA", "required", "fingerprint match=AA"), ("verify", "opportunistic", "may"),
        ],
    )  # fmt: skip
    def test_every_change_of_mode(self, fake, policy, mode, after):
        fake.policies = {} if policy is None else {HOP: policy}
        gateway = adapter(fake)
        planned = change(gateway, config(mode=mode))
        assert fake.policies == ({} if after is None else {HOP: after})
        assert bool(planned) == (policy != after)
        assert all(
            path.endswith("/tlspolicy/%5Bmail.example.com%5D%3A25") for method, path in fake.writes() if method == "PUT"
        )
        assert [method for method, _path in fake.writes()] == ([] if policy == after else ["PUT" if policy else "POST"])
        assert held(fake).delivery_mode == mode
        assert not gateway.plan(state(config(mode=mode)))

    def test_the_diff(self, fake):
        fake.policies = {HOP: "may"}
        assert adapter(fake).plan(state(config(mode="required"))).diff() == [
            {"prepared": "--- before: TLS policies of Proxmox Mail Gateway\n+++ after: TLS policies of Proxmox Mail Gateway\n"
                         "-[mail.example.com]:25 may\n+[mail.example.com]:25 encrypt\n"}
        ]  # fmt: skip
        assert fake.writes() == []

    def test_an_entry_in_another_spelling_is_changed_not_doubled(self, fake):
        fake.policies = {"[Mail.Example.com]:25": "may"}
        change(adapter(fake), config(mode="required"))
        assert fake.policies == {"[Mail.Example.com]:25": "encrypt"}

    def test_attributes_could_not_be_written_back(self, fake):
        fake.policies = {HOP: "secure match=nexthop"}
        text = refused(adapter(fake).plan, state(config(mode="opportunistic")))
        assert (
            "holds the TLS policy 'secure match=nexthop' for [mail.example.com]:25, which its API cannot write back"
            in text
        )

    def test_two_email_configs_by_one_next_hop(self):
        with FakeProxmox(["a.example", "b.example"], **RELAY) as fake:
            gateway = adapter(fake)
            one = config("one", "required", ["a.example"])
            assert refused(gateway.plan, state(one, config("two", "plaintext", ["b.example"]))) == (
                "Proxmox Mail Gateway cannot tell the email configs one and two apart: both use [mail.example.com]:25, and "
                "it chooses TLS by next hop. Give both the same mode, or one a next hop of its own"
            )
            change(gateway, one, config("two", "required", ["b.example"]))
            assert fake.policies == {HOP: "encrypt"}
            assert len(fake.writes()) == 1

    @pytest.mark.parametrize(
        ("mail", "domains", "transports", "other"),
        [
            (RELAY, ["example.com", "other.example"], [], "other.example"),
            (RELAY, ["example.com", ".sub.example"], [], ".sub.example"),
            (RELAY, ["example.com"], [transport("partner.example", "mail.example.com")], "partner.example"),
            (RELAY, ["example.com"], [transport("user@partner.example", "mail.example.com")], "user@partner.example"),
            ({"relay": "mail.example.com", "smarthost": "mail.example.com"}, ["example.com"], [],
             "the smarthost, which takes all outgoing mail"),
            (RELAY, ["example.com", "1.example", "2.example", "3.example", "4.example"], [],
             "1.example, 2.example, 3.example and 1 more"),
        ],
    )  # fmt: skip
    def test_other_mail_by_the_same_next_hop(self, mail, domains, transports, other):
        with FakeProxmox(domains, transports, **mail) as fake:
            gateway = adapter(fake)
            text = refused(gateway.plan, state(config(mode="required")))
            assert f"cannot tell its mail apart from that of {other}, because all of it uses" in text
            assert not gateway.plan(state(config(mode="opportunistic")))

    def test_what_is_no_other_mail(self):
        routes = [transport("user@example.com", "mail.example.com"), transport("other.example", "m.example")]
        with FakeProxmox(
            ["example.com", "other.example"], routes, **RELAY, smarthost="mail.example.com", smarthostport=587
        ) as fake:
            change(adapter(fake), config(mode="required"))
            assert fake.policies == {HOP: "encrypt"}

    def test_a_pattern_beside_the_domain_goes_by_other_next_hops(self):
        with FakeProxmox(["example.com", ".example.com"]) as fake:
            change(adapter(fake), config(mode="required"))
            assert fake.policies == {"example.com": "encrypt"}

    def test_an_email_config_in_several_modes_is_left_as_it_is(self, fake):
        assert not adapter(fake).plan(state(config(mode="mixed")))


class TestTransaction:
    DOMAINS = ("a.example", "b.example", "c.example")

    @pytest.fixture
    def three(self):
        routes = [transport(domain, f"mx.{domain}") for domain in self.DOMAINS]
        with FakeProxmox(self.DOMAINS, routes, {"[mx.b.example]:25": "may", "other": "verify"}) as fake:
            yield fake

    def wanted(self, mode="required"):
        return config(mode=mode, domains=self.DOMAINS)

    @pytest.mark.parametrize("took_effect", [False, True])
    @pytest.mark.parametrize("status", [400, 403, 500, 596])
    @pytest.mark.parametrize(("method", "domain"), [("POST", "c.example"), ("PUT", "b.example")])
    def test_a_write_that_fails(self, three, method, domain, status, took_effect):
        before = dict(three.policies)
        failed = []

        def fail(right):
            if domain == "c.example" and not failed and "[mx.a.example]:25" not in three.policies:
                return right()
            if not failed and took_effect:
                right()
            if not failed:
                failed.append(True)
                return Answer(status, {"message": f"no {PASSWORD} {TICKET}", "errors": {"x": TOKEN}})
            return right()

        three.misbehave[method, "/api2/json/config/tlspolicy"] = fail
        with pytest.raises(
            TransactionError, match=f"was answered {status} .*The former state is restored and proved"
        ) as error:
            change(adapter(three), self.wanted())
        assert error.value.restored is True
        assert not any(secret in str(error.value) for secret in SECRETS)
        assert three.policies == before
        assert failed

    def test_a_write_that_is_not_kept(self, three):
        before = dict(three.policies)
        three.misbehave["PUT", "/api2/json/config/tlspolicy"] = Answer(body={"data": None})
        with pytest.raises(TransactionError) as error:
            change(adapter(three), self.wanted())
        assert "holds the TLS policy may for [mx.b.example]:25, although encrypt was written. The former" in str(
            error.value
        )
        assert three.policies == before

    def test_going_back_fails(self, three):
        three.misbehave["PUT", "/api2/json"] = Answer(500, {})
        three.misbehave["DELETE", "/api2/json"] = Answer(500, {})
        with pytest.raises(TransactionError) as error:
            change(adapter(three), self.wanted())
        assert error.value.restored is False
        assert "The rollback failed as well: [mx.a.example]:25, which was (none): Proxmox Mail Gateway: DELETE" in str(
            error.value
        )
        assert three.policies["[mx.a.example]:25"] == "encrypt"

    def test_somebody_else_is_faster(self, three):
        gateway = adapter(three)
        planned = gateway.plan(state(self.wanted()))
        three.policies["[mx.b.example]:25"] = "secure"
        with pytest.raises(TransactionError) as error:
            gateway.transaction("").apply(planned, gateway.prove, gateway.prove)
        assert (
            "the TLS policy for [mx.b.example]:25 on Proxmox Mail Gateway has been changed to secure by somebody else"
            in str(error.value)
        )
        assert error.value.restored is True
        assert three.policies == {"[mx.b.example]:25": "secure", "other": "verify"}

    def test_somebody_else_changes_what_was_written(self, three):
        def edit(right):
            three.policies["[mx.a.example]:25"] = "secure"
            return Answer(500, {})

        three.misbehave["PUT", "/api2/json"] = edit
        with pytest.raises(TransactionError) as error:
            change(adapter(three), self.wanted())
        assert error.value.restored is False
        assert "The rollback failed as well: [mx.a.example]:25, which was (none): the TLS policy for" in str(
            error.value
        )
        assert three.policies == {"[mx.a.example]:25": "secure", "[mx.b.example]:25": "may", "other": "verify"}

    def test_a_role_that_may_only_read(self, three):
        three.role = "audit"
        with pytest.raises(TransactionError, match=r"was answered 403.*needs the role Administrator to change"):
            change(adapter(three), self.wanted())

    def test_the_end_of_the_connection(self, three):
        before = dict(three.policies)
        gateway = adapter(three)
        planned = gateway.plan(state(self.wanted()))
        gone = []

        def broken(method, *rest):
            if method == "PUT" and not gone:
                gone.append(True)
                raise RemoteDisconnected("Remote end closed connection without response")
            return make(method, *rest)

        make, gateway._api._http = gateway._api._http, broken
        with pytest.raises(TransactionError, match=r"got no answer \(Remote end closed.*restored and proved"):
            gateway.transaction("").apply(planned, gateway.prove, gateway.prove)
        assert three.policies == before


HOSTILE = [
    (Answer(200, b"<html>welcome</html>"), "is not JSON"),
    (Answer(200, b""), "is not JSON"),
    (Answer(200, b"[" * 50_000), "is not JSON"),
    (Answer(200, []), "gave an answer without data"),
    (Answer(200, {"date": 1}), "gave an answer without data"),
    (Answer(200, {"data": None}), "see whether its version is supported"),
    (Answer(200, {"data": "x"}), "see whether its version is supported"),
    (Answer(200, {"data": [{"x": "y"}]}), "see whether its version is supported"),
    (Answer(200, {"data": [{"destination": 1, "policy": [], "domain": {}, "host": 2}]}), "see whether its version is supported"),
    (Answer(302, b"", "https://evil.example/"), "was answered 302; it redirects"),
    (Answer(401, {"data": None}), "was answered 401; see whether api_user"),
    (Answer(403, {"data": None}), "was answered 403; the user needs"),
    (Answer(500, b"\xff\xff"), "was answered 500; see the log"),
    (Answer(501, {"data": None}), "was answered 501"),
]  # fmt: skip


class TestHostileAnswers:
    @pytest.mark.parametrize("path", ["mail", "domains", "transport", "tlspolicy"])
    @pytest.mark.parametrize(("answer", "words"), HOSTILE)
    def test_instead_of_each(self, fake, path, answer, words):
        fake.misbehave["GET", f"/api2/json/config/{path}"] = answer
        text = refused(adapter(fake).read)
        assert words in text
        assert f"GET /api2/json/config/{path} " in text
        assert "evil" not in text

    def test_huge(self):
        gateway = ProxmoxGateway(
            lambda *_args: Response(200, b" " * (API_ANSWER_BYTES + 1)),
            SETTINGS,
            "https://gw.example.com",
            "root@pam",
            PASSWORD,
        )
        assert "more than any answer it should give" in refused(gateway.require_running)

    def test_nobody_there(self):
        gateway = GATEWAYS["proxmox"](
            Access(lambda _arguments: (1, "", ""), http, api_url=f"http://127.0.0.1:{refused_port()}",
                   api_user="root@pam", api_password=PASSWORD), SETTINGS)  # fmt: skip
        assert "got no answer ([Errno 111] Connection refused)" in refused(gateway.require_running)

    def test_values_of_other_types_in_the_settings(self):
        with FakeProxmox(relay=["x"], relayport={"a": 1}, smarthost=5, smarthostport=[], tls=[1]) as fake:
            assert "cannot be understood" in refused(held, fake)


def module(fake, main=inbound_tls_mode.main, check_mode=False, **options):
    given = {"gateway": "proxmox", "api_url": fake.url, "api_user": "root@pam", "api_password": PASSWORD, "timeout": 5}
    result = run_module(main, check_mode=check_mode, diff=True, **{**given, **options})
    returned = {key: value for key, value in result.items() if key != "invocation"}
    assert not any(secret in json.dumps(returned) for secret in SECRETS)
    assert PASSWORD not in json.dumps(result)
    return result


@pytest.fixture
def end_to_end(authority, tmp_path):
    """A gateway that relays to a mail server that is really there, by the module and its own HTTP client."""
    context = server_context(tmp_path, authority.issue(["mail.example.com"]))
    with (
        serving(Face(context=context)) as server,
        FakeProxmox(relay="127.0.0.1", relaynomx=1, relayport=server.port) as fake,
    ):
        fake.server = server
        fake.hop = f"[127.0.0.1]:{server.port}"
        yield fake


class TestModule:
    WANTED = {"name": "main", "domains": ["example.com"], "delivery_mode": "required"}  # noqa: RUF012

    def test_check_mode_then_the_change_then_nothing(self, end_to_end):
        checked = module(end_to_end, check_mode=True, **self.WANTED)
        assert (checked["changed"], checked["before"], checked["after"]) == (
            True,
            {"main": "opportunistic"},
            {"main": "required"},
        )
        assert end_to_end.policies == {}
        assert end_to_end.writes() == []
        changed = module(end_to_end, **self.WANTED)
        assert {key: changed[key] for key in ("changed", "before", "after", "diff", "email_configs")} == {
            key: checked[key] for key in ("changed", "before", "after", "diff", "email_configs")
        }
        assert changed["email_configs"] == [{**self.WANTED, "servers": [f"127.0.0.1:{end_to_end.server.port}"]}]
        assert [one["completed"] for one in changed["evidence"]] == [True]
        assert end_to_end.policies == {end_to_end.hop: "encrypt"}
        again = module(end_to_end, **self.WANTED)
        assert (again["changed"], again["before"], again["diff"]) == (False, {"main": "required"}, [])
        plaintext = {"name": "example.com", "delivery_mode": "plaintext"}
        back = module(end_to_end, **plaintext)
        assert (back["changed"], back["after"]) == (True, {"example.com": "plaintext"})
        assert end_to_end.policies == {end_to_end.hop: "none"}
        assert module(end_to_end, **plaintext)["changed"] is False

    GONE = {"name": "main", "domains": ["example.com"], "state": "absent"}  # noqa: RUF012

    @pytest.mark.parametrize("queue", ["incoming", "active", "deferred", "hold"])
    def test_absent_removes_the_policy_once_no_node_has_mail_for_it(self, end_to_end, queue):
        module(end_to_end, **self.WANTED)
        mail = {
            "queue_id": "4XA",
            "receiver": "you@example.com",
            "reason": "TLS is required",
            "arrival_time": 1700000000,
        }
        end_to_end.nodes = {"pmg1": [(queue, {**mail, "receiver": "x@other.example"})], "pmg2": [(queue, mail)]}
        refused = module(end_to_end, **self.GONE, queue_timeout=0)
        assert "mail still waits for it after 0 s: 4XA to you@example.com (pmg2): TLS is required. " in refused["msg"]
        assert end_to_end.policies == {end_to_end.hop: "encrypt"}
        end_to_end.nodes = {"pmg1": [], "pmg2": []}
        gone = module(end_to_end, **self.GONE)
        assert (gone["changed"], gone["before"], gone["after"]) == (True, {"main": "required"}, {})
        assert end_to_end.policies == {}
        assert module(end_to_end, **self.GONE)["changed"] is False

    def test_a_long_queue_is_read_to_its_end(self, end_to_end, monkeypatch):
        monkeypatch.setattr(gateway_module, "QUEUE_PAGE_MESSAGES", 2)
        module(end_to_end, **self.WANTED)
        other = {"queue_id": "4XA", "receiver": "x@other.example"}
        end_to_end.nodes = {
            "pmg1": [*[("deferred", other)] * 4, ("deferred", {**other, "receiver": "you@example.com"})]
        }
        assert "4XA to you@example.com (pmg1)" in module(end_to_end, **self.GONE, queue_timeout=0)["msg"]

    def test_absent_of_a_domain_that_it_does_not_relay_any_more_is_nothing(self, end_to_end):
        end_to_end.domains = []
        assert module(end_to_end, **self.GONE)["changed"] is False

    def test_a_write_that_fails_is_undone(self, end_to_end):
        end_to_end.misbehave["POST", "/api2/json/config"] = Answer(500, {"message": f"{PASSWORD} {TOKEN} {TICKET}"})
        result = module(end_to_end, **self.WANTED)
        assert (result["failed"], result["restored"]) == (True, True)
        assert "was answered 500 (*** *** ***); see the log" in result["msg"]
        assert end_to_end.policies == {}

    def test_required_needs_a_handshake(self, end_to_end):
        end_to_end.server.face = PLAIN
        assert (
            "'required' is refused, because mail for it would be deferred" in module(end_to_end, **self.WANTED)["msg"]
        )
        assert end_to_end.writes() == []

    @pytest.mark.parametrize("mode", ["match_sender", "match_sender_strict"])
    def test_a_mode_that_it_cannot_express(self, end_to_end, mode):
        assert module(end_to_end, **{**self.WANTED, "delivery_mode": mode})["msg"] == (
            f"email config main: Proxmox Mail Gateway cannot express {mode}, because it chooses TLS by next hop and does not "
            "know how a message arrived; it can do plaintext, opportunistic, required"
        )

    def test_several_modes_become_one(self, end_to_end):
        end_to_end.domains = ["a.example", "b.example"]
        end_to_end.transports = [transport("a.example", "127.0.0.1", end_to_end.server.port)]
        end_to_end.mail.update(relay="localhost")
        end_to_end.policies = {end_to_end.hop: "none"}
        wanted = {"name": "main", "domains": ["a.example", "b.example"]}
        assert "'mixed' is not a delivery mode" in module(end_to_end, **wanted)["msg"]
        result = module(end_to_end, **wanted, delivery_mode="plaintext")
        assert (result["changed"], result["before"]) == (True, {"main": "mixed"})
        assert end_to_end.policies == {end_to_end.hop: "none", f"[localhost]:{end_to_end.server.port}": "none"}

    @pytest.mark.parametrize(
        ("answer", "words"),
        [(Answer(302, b"", "http://127.0.0.1:1/"), "was answered 302"), (Answer(200, b"<html>"), "is not JSON")],
    )
    def test_hostile_answers_through_the_real_client(self, end_to_end, answer, words):
        end_to_end.misbehave["POST", "/api2/json/access"] = answer
        assert words in module(end_to_end, **self.WANTED)["msg"]

    def test_over_tls(self, authority, tmp_path):
        ca_path = tmp_path / "ca.pem"
        ca_path.write_bytes(authority.root_pem)
        wanted = {**self.WANTED, "delivery_mode": "plaintext", "require_without_evidence": True}
        fake = FakeProxmox(**RELAY)
        fake.tls = server_context(tmp_path, authority.issue(["localhost"]))
        with fake:
            text = module(fake, **wanted)["msg"]
            assert "CERTIFICATE_VERIFY_FAILED" in text
            assert text.endswith("name the authority of its certificate in ca_path")
            assert fake.requests == []
            assert module(fake, validate_certs=False, check_mode=True, **wanted)["changed"] is True
            url = fake.url.replace("127.0.0.1", "localhost")
            assert module(fake, api_url=url, ca_path=str(ca_path), **wanted)["changed"] is True
            assert fake.policies == {HOP: "none"}

    def test_too_slow(self, end_to_end):
        end_to_end.delay = 1.5
        assert "got no answer (" in module(end_to_end, timeout=1, **self.WANTED)["msg"]

    def test_nobody_there(self, end_to_end):
        text = module(end_to_end, api_url=f"http://127.0.0.1:{refused_port()}", **self.WANTED)["msg"]
        assert "Connection refused" in text
        assert "see whether the API runs" in text

    def test_what_it_holds(self, end_to_end):
        result = module(end_to_end, inbound_tls_mode_info.main)
        assert result["changed"] is False
        assert [(one["name"], one["delivery_mode"]) for one in result["email_configs"]] == [
            ("example.com", "opportunistic")
        ]


def test_the_engine_without_the_module(fake):
    outcome = set_modes(
        adapter(fake), [{"name": "main", "domains": ["example.com"], "delivery_mode": "plaintext"}], SETTINGS,
        require_without_evidence=True,
    )  # fmt: skip
    assert (outcome.changed, outcome.recovered, fake.policies) == (True, False, {HOP: "none"})


def test_it_takes_mail_for_its_relay_domains():
    with FakeProxmox(domains=["example.com", ".sub.example"]) as fake:
        gateway = adapter(fake)
        assert gateway.accepts(["example.com", "a.sub.example", "other.example"]) == {
            "example.com": True, "a.sub.example": True, "other.example": False,
        }  # fmt: skip
        asked = len(fake.requests)
        gateway.accepts(["example.com", "one.example", "two.example"])
        assert len(fake.requests) < 2 * asked  # the domains are read once, and the login is kept
        assert (gateway.accepts([]), gateway.files()) == ({}, [])


@pytest.mark.parametrize(
    ("mode", "codes", "changes"), [("match_sender", ["mode_not_expressible"], 0), ("plaintext", [], 1)]
)
def test_what_a_change_would_do_is_read_without_one(mode, codes, changes):
    wanted = {"email_configs": [{"name": "main", "domains": ["example.com"], "delivery_mode": mode}]}
    with FakeProxmox(transports=[transport("example.com", "mail.example.com")]) as fake:
        result = read_gateway(adapter(fake), wanted, SETTINGS, probe=False)
        assert fake.writes() == []
    assert [one["code"] for one in result["obstacles"]] == codes
    assert result["gateway"]["accepted_domains"] == {"example.com": True}
    assert [(one["path"], f"+{HOP} none" in one["lines"]) for one in result["gateway"]["changes"]] == (
        [("TLS policies of Proxmox Mail Gateway", True)] * changes
    )
    assert (result["digests"], result["interrupted"]) == ({}, False)


def test_a_wrong_password_is_one_obstacle():
    with FakeProxmox() as fake:
        result = read_gateway(adapter(fake, api_password="wrong"), {"send": "plaintext"}, SETTINGS, probe=False)
    assert [one["code"] for one in result["obstacles"]] == ["not_answering"]
    assert result["gateway"] is None
    assert not any(secret in json.dumps(result) for secret in SECRETS)


def test_the_mode_that_it_delivers_in_is_that_of_the_next_hops():
    routes = [transport("example.com", "mail.example.com"), transport("two.example", "[mx.two.example]")]
    with FakeProxmox(
        domains=["example.com", "two.example"], transports=routes, policies={"[mail.example.com]:25": "encrypt"}
    ) as fake:
        gateway = adapter(fake)
        assert gateway.delivers(["example.com", "two.example"]) == {
            "example.com": "required",
            "two.example": "opportunistic",
        }
        assert (gateway.delivers([]), gateway.keeps_names) == ({}, False)
