"""The delivery modes on mailcow, against a stand-in for its API that gives its errors as it does: with the status 200."""

import json

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.api import Response
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import Gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import EmailConfig, GatewayState
from ansible_collections.mailfleet.starttls.plugins.module_utils._mailcow.gateway import MailcowGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.gateway import GATEWAYS, Access
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import API_ANSWER_BYTES
from ansible_collections.mailfleet.starttls.plugins.modules import inbound_tls_mode, inbound_tls_mode_info

from tests.support.ansible_module import run_module
from tests.support.fake_api import Answer, http
from tests.support.fake_mailcow import KEY, SECRET, FakeMailcow
from tests.support.smtp_server import PLAIN, Face, refused_port, server_context, serving

SETTINGS = Settings(timeout=5)
HOP = "[mail.example.com]:25"
TRANSPORT = ("example.com", HOP)


def adapter(fake, **options):
    given = {"api_url": fake.url, "api_key": KEY, **options}
    return GATEWAYS["mailcow"](Access(lambda _arguments: (1, "", ""), http, **given), SETTINGS)


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
    assert KEY not in str(error.value)
    assert SECRET not in str(error.value)
    return str(error.value)


@pytest.fixture
def fake():
    with FakeMailcow(transports=[TRANSPORT]) as made:
        yield made


class TestWhatItIs:
    def test_of_the_contract(self, fake):
        gateway: Gateway = adapter(fake)
        assert isinstance(gateway, MailcowGateway)
        assert gateway.title == "mailcow"
        assert gateway.modes == ("plaintext", "opportunistic", "required")
        assert set(gateway.limits) == {"match_sender", "match_sender_strict", "enforced", "outbound"}
        assert "uses it wherever it can" in refused(gateway.relay_hosts)
        assert (gateway.own_port, gateway.verifying_modes, gateway.serves()) == (None, (), True)
        assert fake.requests == []


class TestKey:
    def test_asked_once(self, fake):
        gateway = adapter(fake)
        gateway.require_running()
        gateway.require_running()
        assert fake.requests == [("GET", "/api/v1/get/status/version")]

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"api_url": ""}, "api_url is not the URL of an API"),
            ({"api_url": "http://mail.example.com"}, "api_url has to be https"),
            (
                {"api_key": ""},
                "api_key is needed to log in, and has to be plain ASCII; set starttls_api_key, or MAILFLEET_API_KEY",
            ),
            ({"api_key": "a\r\nX: y"}, "has to be plain ASCII"),
            ({"api_key": "schlüssel"}, "has to be plain ASCII"),
        ],
    )
    def test_what_is_missing_is_said_before_anything_is_sent(self, fake, options, words):
        assert words in refused(adapter(fake, **options).require_running)
        assert fake.requests == []

    def test_a_wrong_one_is_told_by_the_status_200(self, fake):
        text = refused(adapter(fake, api_key="wrong").read)
        assert (
            "GET /api/v1/get/status/version was refused (authentication failed); see whether api_key is right" in text
        )

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (Answer(200, b""), "is not JSON"),
            (Answer(200, {}), "gave no version; see whether api_key is right"),
            (Answer(200, []), "gave no version; see whether api_key is right"),
            (Answer(401, {"type": "error", "msg": "api access denied for ip 192.0.2.7"}),
             "was answered 401 (api access denied for ip 192.0.2.7); see whether api_key is right"),
            (Answer(200, {"type": "error", "msg": "api access denied for ip 192.0.2.7"}), "see whether api_key is right"),
            (Answer(302, b"", "https://evil.example"), "was answered 302; it redirects"),
        ],
    )  # fmt: skip
    def test_who_is_not_let_in(self, fake, answer, words):
        fake.misbehave["GET", "/api/v1/get/status"] = answer
        assert words in refused(adapter(fake).require_running)


ROUTES = [
    ([TRANSPORT], HOP, ["mail.example.com:25"]),
    ([("example.com", "[mail.example.com]")], "[mail.example.com]", ["mail.example.com:25"]),
    ([("Example.com", "Mail.example.com:587")], "Mail.example.com:587", ["mail.example.com:587"]),
    ([("example.com", "mail.example.com")], "mail.example.com", ["mail.example.com:25"]),
    ([("example.com", "[2001:db8::1]:2525")], "[2001:db8::1]:2525", ["[2001:db8::1]:2525"]),
    ([("example.com", "[mail.example.com]:smtp")], "[mail.example.com]:smtp", ["mail.example.com:25"]),
    ([("example.com", "[mail.example.com]:submission")], "[mail.example.com]:submission", ["mail.example.com:587"]),
    ([("*", "[other.example]"), ("user@example.com", "[o.example]"), (".com", "[o.example]"), TRANSPORT], HOP, ["mail.example.com:25"]),
    ([("example.com", "[off.example]", {"active_int": 0}), ("example.com", HOP)], HOP, ["mail.example.com:25"]),
]  # fmt: skip


class TestRoutes:
    @pytest.mark.parametrize(("transports", "hop", "servers"), ROUTES)
    def test_the_policy_belongs_to_the_next_hop(self, transports, hop, servers):
        with FakeMailcow(transports=transports, policies=[(hop.lower(), "encrypt")]) as fake:
            assert held(fake) == config(mode="required", servers=servers)
        with FakeMailcow(transports=transports) as fake:
            assert held(fake) == config(mode="opportunistic", servers=servers)
            change(adapter(fake), config(mode="required", servers=servers))
            assert fake.policies == {hop.lower(): "encrypt"}

    @pytest.mark.parametrize("destination", [".com", "*"])
    def test_a_route_for_other_mail_as_well(self, destination):
        with FakeMailcow(transports=[(destination, "[mx.example.org]")]) as fake:
            assert held(fake).servers == (Target("mx.example.org"),)
            assert f"cannot tell its mail apart from that of {destination}" in refused(
                adapter(fake).plan, state(config(mode="required"))
            )

    @pytest.mark.parametrize(
        "transports", [[], [("example.com", "example.com")], [("example.com", "example.com:2525")]]
    )
    def test_the_mx_of_the_domain(self, transports):
        hop = transports[0][1] if transports else "example.com"
        with FakeMailcow(transports=transports) as fake:
            assert "hands mail for example.com to the MX of the domain" in refused(held, fake)
            assert held(fake, servers=["mx.example.com"]) == config(mode="opportunistic", servers=["mx.example.com"])
            change(adapter(fake), config(mode="required"))
            assert fake.policies == {hop: "encrypt"}

    def test_an_entry_for_the_domains_above(self):
        with FakeMailcow(["sub.example.com"], policies=[(".example.com", "none"), ("example.com", "encrypt")]) as fake:
            assert held(fake, domains=["sub.example.com"], servers=["mx.example.com"]).delivery_mode == "plaintext"

    def test_several_next_hops_of_one_route(self):
        with FakeMailcow(
            transports=[("example.com", "[m1.example], [m2.example]:26")], policies=[("[m1.example]", "none")]
        ) as fake:
            servers = ["m1.example:25", "m2.example:26"]
            assert held(fake) == config(mode="mixed", servers=servers)
            assert list(adapter(fake).read().email_configs.values()) == [
                config("example.com", "mixed", servers=servers)
            ]
            change(adapter(fake), config(mode="required", servers=servers))
            assert fake.policies == {"[m1.example]": "encrypt", "[m2.example]:26": "encrypt"}
            assert held(fake).delivery_mode == "required"

    @pytest.mark.parametrize("hop", ["[a b", "a_b:service", "[x]:70000", "::1", "x:"])
    def test_one_that_cannot_be_understood(self, hop):
        with FakeMailcow(transports=[("example.com", hop)]) as fake:
            assert "cannot be understood; write it there as [host]:port" in refused(held, fake)

    def test_a_route_without_any(self):
        with FakeMailcow(transports=[("example.com", ", ")]) as fake:
            assert "the next hop of mail for example.com is unknown, because" in refused(held, fake)

    def test_a_transport_that_goes_by_mx(self):
        by_mx = (".*outlook.*", "[mx.example.org]", {"is_mx_based": 1})
        with FakeMailcow(["example.com", "other.example"], [by_mx, TRANSPORT]) as fake:
            assert held(fake) == config(mode="opportunistic")
            other = {"domains": ["other.example"], "servers": ["mx.example"]}
            assert refused(lambda: held(fake, **other)) == (
                "email config main: the next hop of mail for other.example is unknown, because a transport of mailcow that "
                "matches by MX may route its mail elsewhere; give it a transport of its own"
            )
            [one] = [one for one in adapter(fake).read().email_configs.values() if one.name == "other.example"]
            assert (one.delivery_mode, one.servers) == ("mixed", ())
            wanted = config(mode="required", domains=["other.example"])
            assert "is unknown, because" in refused(adapter(fake).plan, state(wanted))
        for more in (("*", "[s.example]"), (".example", "[s.example]"), ("x", "[s.example]", {"is_mx_based_int": 1})):
            with FakeMailcow(["other.example"], [more, *([by_mx] if len(more) == 2 else [])]) as fake:
                if len(more) == 2:
                    assert held(fake, domains=["other.example"]).servers == (Target("s.example"),)
                else:
                    assert "by MX" in refused(lambda fake=fake: held(fake, **other))

    @pytest.mark.parametrize("domains", [["-example.com"], ["example.org"], []])
    def test_no_relay_domain(self, domains):
        with FakeMailcow(domains, [TRANSPORT]) as fake:
            assert "example.com is not a relay domain of mailcow, so the gateway accepts no mail for it" in refused(
                held, fake
            )
            assert "example.com" not in adapter(fake).read().email_configs

    def test_a_domain_that_is_switched_off(self, fake):
        fake._domain = lambda name: {"domain_name": name, "backupmx": 1, "active": 0}
        assert "is not a relay domain" in refused(held, fake)


class TestRead:
    @pytest.mark.parametrize(
        ("policy", "parameters", "mode"),
        [
            ("none", "", "plaintext"), ("may", "", "opportunistic"), ("dane", "", "opportunistic"), ("encrypt", "", "required"),
            ("dane-only", "", "required"), ("verify", "", "required"), ("secure", "match=nexthop", "required"),
            ("fingerprint", "match=AA:BB", "required"), ("ENCRYPT", None, "required"),
        ],
    )  # fmt: skip
    def test_each_policy_comes_to_a_mode(self, policy, parameters, mode):
        with FakeMailcow(transports=[TRANSPORT], policies=[(HOP, policy, parameters)]) as fake:
            assert held(fake).delivery_mode == mode

    @pytest.mark.parametrize("language", [("yes", "no"), ("✔", "✘"), (1, 0), ("1", "0")])
    def test_whatever_the_language_of_the_interface(self, language):
        with FakeMailcow(transports=[TRANSPORT], policies=[(HOP, "encrypt", "", 0)]) as fake:
            fake.language = language
            assert held(fake).delivery_mode == "opportunistic"

    def test_a_policy_that_is_not_active_counts_as_none(self):
        policies = [("sub.example.com", "encrypt", "", 0), (".example.com", "none")]
        with FakeMailcow(["sub.example.com"], policies=policies) as fake:
            assert held(fake, domains=["sub.example.com"], servers=["mx.example"]).delivery_mode == "plaintext"

    @pytest.mark.parametrize(
        "servers", [["mx.example.org"], ["mail.example.com", "mx.example.org"], ["mail.example.com:26"]]
    )
    def test_other_servers_are_refused(self, fake, servers):
        assert "mailcow hands its mail to mail.example.com:25, not to" in refused(lambda: held(fake, servers=servers))

    def test_a_policy_that_is_not_known(self):
        with FakeMailcow(policies=[("x", "half-secure")]) as fake:
            assert "gave the TLS policy 'half-secure' for x, which this collection does not know" in refused(held, fake)


class TestPlan:
    @pytest.mark.parametrize(
        ("row", "mode", "after"),
        [
            (None, "plaintext", "none"), (None, "opportunistic", None), (None, "required", "encrypt"),
            (("none",), "opportunistic", "may"), (("may",), "required", "encrypt"), (("encrypt",), "plaintext", "none"),
            (("dane",), "opportunistic", "dane"), (("verify",), "required", "verify"),
            (("secure", "match=nexthop"), "required", "secure match=nexthop"),
            (("secure", "match=nexthop"), "opportunistic", "may"), (("fingerprint", "match=AA"), "plaintext", "none"),
        ],
    )  # fmt: skip
    def test_every_change_of_mode(self, row, mode, after):
        with FakeMailcow(transports=[TRANSPORT], policies=[(HOP, *row)] if row else []) as fake:
            before = fake.policies
            gateway = adapter(fake)
            planned = change(gateway, config(mode=mode))
            assert fake.policies == ({} if after is None else {HOP: after})
            expected = (
                [] if fake.policies == before else [("POST", f"/api/v1/{'edit' if row else 'add'}/tls-policy-map")]
            )
            assert fake.writes() == expected
            assert bool(planned) == bool(expected)
            assert not gateway.plan(state(config(mode=mode)))

    def test_a_row_that_is_not_active_is_edited_not_doubled(self):
        with FakeMailcow(transports=[TRANSPORT], policies=[(HOP, "secure", "match=nexthop", 0)]) as fake:
            planned = change(adapter(fake), config(mode="required"))
            assert planned.diff() == [
                {"prepared": "--- before: TLS policies of mailcow\n+++ after: TLS policies of mailcow\n"
                             "-[mail.example.com]:25 secure match=nexthop (not active)\n+[mail.example.com]:25 encrypt\n"}
            ]  # fmt: skip
            assert list(fake.rows.values()) == [
                {"id": 1, "dest": HOP, "policy": "encrypt", "parameters": "", "active": 1}
            ]

    @pytest.mark.parametrize(
        ("fakes", "other"),
        [
            ({"domains": ["example.com", "b.example"], "transports": [TRANSPORT, ("b.example", HOP)]}, "b.example"),
            ({"transports": [TRANSPORT, ("partner.example", HOP)]}, "partner.example"),
            ({"transports": [TRANSPORT], "relayhosts": [HOP]}, f"the sender-dependent transport {HOP}"),
        ],
    )
    def test_other_mail_by_the_same_next_hop(self, fakes, other):
        with FakeMailcow(**fakes) as fake:
            assert f"cannot tell its mail apart from that of {other}, because all of it uses" in refused(
                adapter(fake).plan, state(config(mode="required"))
            )

    def test_two_email_configs_by_one_next_hop(self):
        with FakeMailcow(["a.example", "b.example"], [("a.example", HOP), ("b.example", HOP)]) as fake:
            configs = (config("one", "required", ["a.example"]), config("two", "plaintext", ["b.example"]))
            assert "mailcow cannot tell the email configs one and two apart" in refused(
                adapter(fake).plan, state(*configs)
            )


class TestTransaction:
    DOMAINS = ("a.example", "b.example", "c.example", "d.example")
    POLICIES = (("[mx.b.example]", "secure", "match=nexthop"), ("[mx.d.example]", "may", "", 0), ("other", "verify"))

    @pytest.fixture
    def several(self):
        with FakeMailcow(self.DOMAINS, [(one, f"[mx.{one}]") for one in self.DOMAINS], self.POLICIES) as fake:
            yield fake

    def wanted(self):
        return config(mode="plaintext", domains=self.DOMAINS)

    @staticmethod
    def table(fake):
        return sorted((row["dest"], row["policy"], row["parameters"], row["active"]) for row in fake.rows.values())

    @pytest.mark.parametrize("took_effect", [False, True])
    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (Answer(200, [{"type": "danger", "log": ["x", {"key": KEY}], "msg": ["mysql_error", KEY]}]), r"\('?mysql_error|refused"),
            (Answer(200, [{"type": "success", "msg": "a"}, {"type": "danger", "msg": "access_denied"}]), "see whether api_key"),
            (Answer(200, {"type": "error", "msg": "Cannot find attributes in post data"}), "Cannot find attributes"),
            (Answer(200, {"type": "error"}), "no reason given"),
            (Answer(200, []), "did not say that it succeeded"),
            (Answer(200, {}), "did not say that it succeeded"),
            (Answer(200, ["x"]), "did not say that it succeeded"),
            (Answer(200, b""), "is not JSON"),
            (Answer(403, {"type": "error", "msg": "API read/write access denied"}), "403 .API read/write access denied"),
            (Answer(500, b"<html>"), "was answered 500"),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("number", [0, 1, 2, 3])
    def test_a_write_that_fails(self, several, number, answer, words, took_effect):
        before, written = self.table(several), []

        def fail(right):
            written.append(True)
            if len(written) != number + 1:
                return right()
            if took_effect:
                right()
            return answer

        several.misbehave["POST", "/api/v1/"] = fail
        with pytest.raises(TransactionError, match=words) as error:
            change(adapter(several), self.wanted())
        assert error.value.restored is True
        assert "The former state is restored and proved" in str(error.value)
        assert KEY not in str(error.value)
        assert self.table(several) == before

    def test_all_of_them_go_through(self, several):
        change(adapter(several), self.wanted())
        assert self.table(several) == [
            *((f"[mx.{one}]", "none", "", 1) for one in self.DOMAINS), ("other", "verify", "", 1),
        ]  # fmt: skip

    def test_a_key_that_may_only_read(self, several):
        several.read_only = True
        with pytest.raises(TransactionError, match="was answered 403"):
            change(adapter(several), self.wanted())

    def test_a_write_that_is_not_kept(self, several):
        several.misbehave["POST", "/api/v1/edit"] = Answer(200, [{"type": "success", "msg": "saved"}])
        with pytest.raises(TransactionError, match="although none was written") as error:
            change(adapter(several), self.wanted())
        assert error.value.restored is True


class TestHostileAnswers:
    @pytest.mark.parametrize("path", ["domain", "transport", "relayhost", "tls-policy-map"])
    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (Answer(200, b"<html>welcome</html>"), "is not JSON"),
            (Answer(200, b""), "is not JSON"),
            (Answer(200, "x"), "gave no list of entries"),
            (Answer(200, 1), "gave no list of entries"),
            (Answer(200, [1]), "gave no list of entries"),
            (Answer(200, [{}]), "gave no list of entries"),
            (Answer(200, {"a": 1}), "gave no list of entries"),
            (
                Answer(200, [{"domain_name": 1, "destination": 1, "nexthop": [], "hostname": None, "dest": {}}]),
                "gave no list",
            ),
            (Answer(200, {"type": "error", "msg": "authentication failed"}), "was refused (authentication failed)"),
            (Answer(200, [{"type": "danger", "msg": KEY}]), "was refused (***); see its log"),
            (Answer(302, b"", "https://evil.example/"), "was answered 302; it redirects"),
            (
                Answer(401, {"type": "error", "msg": "authentication failed"}),
                "was answered 401 (authentication failed)",
            ),
            (Answer(500, b"\xff"), "was answered 500; see the log"),
        ],
    )
    def test_instead_of_each(self, fake, path, answer, words):
        fake.misbehave["GET", f"/api/v1/get/{path}"] = answer
        text = refused(adapter(fake).read)
        assert words in text
        assert f"GET /api/v1/get/{path}/all " in text
        assert "evil" not in text

    @pytest.mark.parametrize("number", [None, "x", -1, [], "1;2"])
    def test_a_number_that_is_none(self, fake, number):
        row = {"id": number, "dest": HOP, "policy": "may", "parameters": "", "active_int": 1}
        fake.misbehave["GET", "/api/v1/get/tls-policy-map"] = Answer(200, [row])
        assert "gave the TLS policy 'may' for" in refused(held, fake)

    def test_huge(self):
        gateway = MailcowGateway(
            lambda *_args: Response(200, b" " * (API_ANSWER_BYTES + 1)), SETTINGS, "https://m.example.com", KEY
        )
        assert "more than any answer it should give" in refused(gateway.require_running)

    def test_nobody_there(self, fake):
        text = refused(adapter(fake, api_url=f"http://127.0.0.1:{refused_port()}").require_running)
        assert "got no answer ([Errno 111] Connection refused)" in text


def module(fake, main=inbound_tls_mode.main, check_mode=False, **options):
    result = run_module(
        main,
        check_mode=check_mode,
        diff=True,
        **{"gateway": "mailcow", "api_url": fake.url, "api_key": KEY, "timeout": 5, **options},
    )
    assert KEY not in json.dumps(result)
    assert SECRET not in json.dumps(result)
    return result


@pytest.fixture
def end_to_end(authority, tmp_path):
    """A gateway that relays to a mail server that is really there, by the module and its own HTTP client."""
    context = server_context(tmp_path, authority.issue(["mail.example.com"]))
    with serving(Face(context=context)) as server, FakeMailcow() as fake:
        fake.server = server
        fake.hop = f"[127.0.0.1]:{server.port}"
        fake.transports = [fake._row(("example.com", fake.hop), ("destination", "nexthop"))]
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
        assert end_to_end.writes() == []
        changed = module(end_to_end, **self.WANTED)
        assert {key: changed[key] for key in ("changed", "before", "after", "diff")} == {
            key: checked[key] for key in ("changed", "before", "after", "diff")
        }
        assert [one["completed"] for one in changed["evidence"]] == [True]
        assert end_to_end.policies == {end_to_end.hop: "encrypt"}
        assert module(end_to_end, **self.WANTED)["changed"] is False
        back = {"name": "example.com", "delivery_mode": "plaintext"}
        assert module(end_to_end, **back)["after"] == {"example.com": "plaintext"}
        assert end_to_end.policies == {end_to_end.hop: "none"}
        assert module(end_to_end, **back)["changed"] is False

    GONE = {"name": "main", "domains": ["example.com"], "state": "absent"}  # noqa: RUF012

    def test_absent_removes_the_policy_once_the_queue_is_empty(self, end_to_end):
        module(end_to_end, **self.WANTED)
        end_to_end.mailq = [
            {
                "queue_id": "4XA",
                "arrival_time": 1700000000,
                "recipients": ["you@example.com (TLS is required)", "x@other.example"],
            }
        ]
        refused = module(end_to_end, **self.GONE, queue_timeout=0)
        assert "mail still waits for it after 0 s: 4XA to you@example.com: TLS is required. " in refused["msg"]
        assert end_to_end.policies == {end_to_end.hop: "encrypt"}
        end_to_end.mailq = []
        gone = module(end_to_end, **self.GONE)
        assert (gone["changed"], gone["before"], gone["after"]) == (True, {"main": "required"}, {})
        assert end_to_end.policies == {}
        # Mail on its usual way stops nothing when there is nothing to remove.
        end_to_end.mailq = [{"queue_id": "4XB", "arrival_time": 1700000000, "recipients": ["you@example.com"]}]
        assert module(end_to_end, **self.GONE, queue_timeout=0)["changed"] is False

    def test_absent_leaves_a_policy_that_other_mail_needs(self, end_to_end):
        module(end_to_end, **self.WANTED)
        end_to_end.transports.append(end_to_end._row(("other.example", end_to_end.hop), ("destination", "nexthop")))
        end_to_end.domains.append("other.example")
        assert module(end_to_end, **self.GONE)["changed"] is False
        assert end_to_end.policies == {end_to_end.hop: "encrypt"}

    def test_a_write_that_fails_is_undone(self, end_to_end):
        end_to_end.misbehave["POST", "/api/v1/add"] = Answer(200, [{"type": "danger", "msg": ["no", KEY]}])
        result = module(end_to_end, **self.WANTED)
        assert (result["failed"], result["restored"]) == (True, True)
        assert end_to_end.policies == {}

    def test_required_needs_a_handshake(self, end_to_end):
        end_to_end.server.face = PLAIN
        assert (
            "'required' is refused, because mail for it would be deferred" in module(end_to_end, **self.WANTED)["msg"]
        )
        assert end_to_end.writes() == []

    def test_a_mode_that_it_cannot_express(self, end_to_end):
        text = module(end_to_end, **{**self.WANTED, "delivery_mode": "match_sender"})["msg"]
        assert "mailcow cannot express match_sender, because it chooses TLS by next hop" in text

    def test_too_slow(self, end_to_end):
        end_to_end.delay = 1.5
        assert "got no answer (" in module(end_to_end, timeout=1, **self.WANTED)["msg"]

    def test_what_it_holds(self, end_to_end):
        end_to_end.domains = ["b.example", "example.com", "-local.example"]
        result = module(end_to_end, inbound_tls_mode_info.main)
        assert [(one["name"], one["servers"]) for one in result["email_configs"]] == [
            ("b.example", []), ("example.com", [f"127.0.0.1:{end_to_end.server.port}"]),
        ]  # fmt: skip


def test_it_takes_mail_for_its_relay_domains():
    with FakeMailcow(domains=["example.com", "-local.example"]) as fake:
        assert adapter(fake).accepts(["example.com", "local.example", "other.example"]) == {
            "example.com": True, "local.example": False, "other.example": False,
        }  # fmt: skip
