"""One call changes a gateway and the side of it that accepts TLS, with its certificate: all of it or nothing."""

from types import SimpleNamespace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils import ansible_gateway_host as host
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import evidence
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EmailConfig,
    EnforcedDomain,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.facts import digests
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError
from ansible_collections.mailfleet.starttls.plugins.modules import gateway_tls as module

from tests.support.ansible_module import run_module
from tests.support.fake_mail import BRIEF, NAME, PATIENT, FakeMail
from tests.support.gateway_bench import Bench

CONFIGS = [{"name": "main", "domains": ["a.example"], "servers": ["mx.example"], "delivery_mode": "required"}]
MODES = GatewayState({"main": EmailConfig("main", ("a.example",), (Target("mx.example"),), "required")})
OFF = {"inbound": "disabled", "outbound": "disabled", "password": "hunter2"}


class Host(Bench):
    """A host with a gateway and its mail server, two adapters of one product: one lock and one journal for both."""

    def __init__(self, directory, monkeypatch, authority):
        super().__init__(directory, monkeypatch, evidence)
        self.authority = authority
        self.settings_used = PATIENT
        self.hold(GatewayState())
        self.mail = FakeMail(directory, authority)
        self.gateway.name = self.mail.name
        for adapter in (self.gateway, self.mail):
            adapter.transaction = lambda _store, daemon=adapter: Transaction(daemon, str(self.store))
        reload = self.gateway.reload

        def both():
            reload()
            self.mail.follow()

        self.gateway.reload, self.gateway.resume = both, both
        monkeypatch.setattr(host, "gateway_of", lambda _module: (self.gateway, self.settings_used))
        monkeypatch.setattr(host, "SERVERS", {"postfix": lambda *_arguments: self.mail})
        monkeypatch.setattr(host, "runner", lambda _module: None)

    def bundle(self, issued):
        file = self.mail.renewal(issued)
        facts = {name: getattr(file, name) for name in ("owner", "group", "mode", "sha256", "ends", "replace", "keep")}
        return {
            "bundle": {**facts, "fingerprints": list(file.fingerprints)},
            "bundle_content": file.content,
        }

    def set(self, **options):
        """The result of gateway_tls."""
        own = {"address": self.mail.port.host, "port": self.mail.port.port, "certificate": str(self.mail.certificate)}
        return run_module(module.main, diff=True, **{**own, **options})

    def change(self, check_mode=False, **options):
        """The same without AnsibleModule, so that errors are seen."""
        spec = {**module.ARGUMENT_SPEC, **host.STARTTLS_SPEC, "bundle": {}, "bundle_content": {}}
        given = {name: option.get("default") for name, option in spec.items()}
        own = {"address": self.mail.port.host, "port": self.mail.port.port, "certificate": str(self.mail.certificate)}
        return host.change_gateway_host(SimpleNamespace(params={**given, **own, **options}, check_mode=check_mode))

    @property
    def written(self):
        """All that a change writes: settings, state of the gateway, certificate."""
        return self.mail.settings, self.held(), self.mail.certificate.read_bytes()


@pytest.fixture
def both(tmp_path, monkeypatch, authority):
    made = Host(tmp_path, monkeypatch, authority)
    yield made
    made.mail.port.close()


class TestCombined:
    def test_starttls_and_modes_in_one_call(self, both):
        result = both.set(inbound="offered", email_configs=CONFIGS)
        assert "failed" not in result
        assert (result["changed"], result["after"]) == (True, {"main": "required"})
        assert result["starttls"]["after"] == {"inbound": "offered", "outbound": "disabled"}
        assert result["starttls"]["handshake"]["fingerprint_sha256"] == both.mail.fingerprint
        assert (both.mail.settings["inbound"], both.held()) == ("offered", MODES)
        assert [len(result["diff"]), "+inbound=offered" in result["diff"][0]["prepared"]] == [2, True]
        assert both.handshakes == [["mx.example:25"]]

    def test_the_accepting_side_comes_first(self, both):
        """Where the gateway shall accept TLS only, it is tested by a handshake that needs its own STARTTLS."""
        seen = []
        plan = both.mail.plan
        both.mail.plan = lambda desired: (seen.append(list(both.handshakes)), plan(desired))[1]
        assert both.change(inbound="offered", email_configs=CONFIGS)["changed"]
        assert seen == [[]]

    def test_the_second_run_changes_nothing(self, both):
        both.change(inbound="offered", email_configs=CONFIGS)
        both.clear()
        again = both.change(inbound="offered", email_configs=CONFIGS)
        assert (again["changed"], again["diff"], again["digests"]) == (False, [], {})
        assert (again["starttls"]["changed"], both.handshakes) == (False, [])
        assert "reload" not in both.gateway.log

    def test_starttls_alone_may_be_what_changes(self, both):
        both.hold(MODES)
        result = both.change(inbound="offered", email_configs=CONFIGS)
        assert (result["changed"], result["before"]) == (True, result["after"])
        assert both.mail.settings["inbound"] == "offered"

    def test_with_a_certificate(self, both):
        issued = both.authority.issue([NAME])
        result = both.set(inbound="offered", email_configs=CONFIGS, **both.bundle(issued))
        assert both.mail.certificate.read_bytes() == issued.key_pem + issued.fullchain_pem
        assert result["starttls"]["handshake"]["fingerprint_sha256"] == both.mail.fingerprint
        key = issued.key_pem.decode().splitlines()[1]
        assert key not in str({**result, "invocation": ""})
        if "invocation" in result:  # the newest ansible-core adds it on the controller
            assert "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" in str(result["invocation"]["module_args"]["bundle_content"])

    @pytest.mark.parametrize("bundle", [False, True])
    def test_a_refusal_undoes_starttls_and_the_certificate(self, both, bundle):
        both.servers["mx.example"] = ("down",)
        before = both.written
        more = both.bundle(both.authority.issue([NAME])) if bundle else {}
        result = both.set(inbound="offered", email_configs=CONFIGS, **more)
        assert (result["failed"], result["restored"]) == (True, True)
        assert "mx.example" in result["msg"] and result["msg"].endswith("The former state is restored and proved")
        assert both.written == before
        assert both.mail.settings == OFF

    @pytest.mark.parametrize("step", ["check", "prove"])
    def test_a_failure_undoes_both(self, both, step):
        before = both.written
        both.gateway.fail[step] = "no good"
        with pytest.raises(TransactionError, match="no good") as caught:
            both.change(inbound="offered", email_configs=CONFIGS, **both.bundle(both.authority.issue([NAME])))
        assert caught.value.restored
        assert both.written == before

    def test_starttls_that_fails_leaves_the_gateway_alone(self, both):
        both.settings_used = BRIEF
        both.mail.never = ("offered",)
        with pytest.raises(TransactionError, match="does not show the wanted state") as caught:
            both.change(inbound="offered", email_configs=CONFIGS)
        assert caught.value.restored
        assert (both.mail.settings, both.held()) == (OFF, GatewayState())

    def test_files_that_changed_since_the_plan(self, both):
        before = both.written
        seen = digests([*both.gateway.files(), *both.mail.files()])
        both.mail.config.write_text(both.mail.config.read_text() + "more=1\n")
        with pytest.raises(EngineError, match=r"fakemail\.cf changed since the plan") as caught:
            both.change(inbound="offered", email_configs=CONFIGS, digests=seen)
        assert not isinstance(caught.value, TransactionError)
        assert (both.held(), both.mail.certificate.read_bytes()) == before[1:]

    def test_the_files_as_the_next_step_has_to_see_them(self, both):
        result = both.change(inbound="offered", email_configs=CONFIGS)
        files = [*both.gateway.files(), *both.mail.files(), str(both.mail.certificate)]
        assert result["digests"] == digests(files)

    def test_check_mode_shows_both_and_touches_nothing(self, both):
        before = both.written
        result = both.set(check_mode=True, inbound="offered", email_configs=CONFIGS)
        assert (result["changed"], result["after"], result["digests"]) == (True, {"main": "required"}, {})
        assert result["starttls"]["after"]["inbound"] == "offered"
        assert [one["prepared"].split()[2].rpartition("/")[2] for one in result["diff"]] == [
            "fakemail.cf",
            "gateway.json",
        ]
        assert both.written == before
        assert not both.store.exists()

    def test_check_mode_of_starttls_alone_among_what_is_set_already(self, both):
        both.hold(MODES)
        result = both.change(check_mode=True, inbound="offered", email_configs=CONFIGS)
        assert (result["changed"], len(result["diff"]), both.mail.settings) == (True, 1, OFF)

    @pytest.mark.parametrize("check_mode", [False, True])
    def test_starttls_is_not_switched_off_with_other_settings(self, both, check_mode):
        """What requires TLS of senders has to go first, and that is proved by a call of its own."""
        both.mail.start("offered")
        before = both.written
        with pytest.raises(EngineError, match="inbound disabled cannot be combined with other settings") as caught:
            both.change(check_mode=check_mode, inbound="disabled", email_configs=CONFIGS)
        assert "switch STARTTLS off in a call of its own" in str(caught.value)
        assert (both.written, both.gateway.log) == (before, [])

    @pytest.mark.parametrize("options", [{"state": "plaintext"}, {"send": "plaintext"}, {"enforced_domains": [
        {"domain": "a.example", "direction": "inbound", "certificate_check": None, "servers": None}]}])  # fmt: skip
    def test_whatever_they_are(self, both, options):
        with pytest.raises(EngineError, match="cannot be combined"):
            both.change(inbound="disabled", **options)


class TestStarttlsAlone:
    def test_on(self, both):
        result = both.set(inbound="offered")
        assert (result["changed"], result["after"]["inbound"], both.mail.settings["inbound"]) == (
            True,
            "offered",
            "offered",
        )
        assert set(result["digests"]) == {str(both.mail.config), str(both.mail.certificate)}
        assert both.gateway.log == []

    def test_required_stays_with_offered(self, both):
        both.mail.start("required")
        result = both.change(inbound="offered")
        assert (result["changed"], result["after"]["inbound"]) == (False, "required")

    def test_the_former_certificate_is_told(self, both):
        former = both.mail.certificate.read_bytes()
        result = both.change(inbound="offered", **both.bundle(both.authority.issue([NAME])))
        assert result["previous_certificate"].encode() in former
        assert "PRIVATE KEY" not in result["previous_certificate"]

    def test_off(self, both):
        both.mail.start("offered")
        both.hold(MODES)
        assert both.change(inbound="disabled")["after"]["inbound"] == "disabled"
        assert (both.mail.settings["inbound"], both.held()) == ("disabled", MODES)

    @pytest.mark.parametrize(
        "held",
        [
            GatewayState(enforced=(EnforcedDomain("partner.example", "inbound"),)),
            GatewayState(outbound=OutboundTls("tls_only", None, ("192.0.2.1/32",))),
        ],
    )
    @pytest.mark.parametrize("check_mode", [False, True])
    def test_not_off_while_the_gateway_requires_tls_of_a_sender(self, both, held, check_mode):
        both.mail.start("offered")
        both.hold(held)
        with pytest.raises(EngineError, match="remove that requirement first"):
            both.change(check_mode=check_mode, inbound="disabled")
        assert both.mail.settings["inbound"] == "offered"

    def test_files_that_changed_since_the_plan(self, both):
        with pytest.raises(EngineError, match="changed since the plan"):
            both.change(inbound="offered", digests={str(both.mail.certificate): "absent"})
        assert both.mail.settings == OFF

    def test_check_mode(self, both):
        result = both.change(check_mode=True, inbound="offered")
        assert (result["changed"], result["digests"], both.mail.settings) == (True, {}, OFF)


@pytest.mark.parametrize("more", [{}, {"email_configs": CONFIGS}], ids=["alone", "with a delivery mode"])
@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize(
    "path",
    ["/etc/x.pem, /etc/y.pem", "${run{/bin/touch /tmp/x}}", "$config_directory/x.pem", "x.pem", "/etc/../x.pem", ""],
)
def test_a_certificate_path_that_a_daemon_would_read_as_more_than_a_path_is_refused(both, path, check_mode, more):
    before = both.written
    with pytest.raises(EngineError, match=r"the certificate path .* has to be absolute and made of letters"):
        both.change(check_mode=check_mode, inbound="offered", certificate=path, **more)
    assert (both.written, both.mail.settings) == (before, OFF)


def test_a_product_that_accepts_tls_itself_is_refused_by_name(monkeypatch):
    result = run_module(module.main, gateway="haraka", inbound="offered")
    assert result["failed"] and result["msg"].startswith("Haraka has its own way to accept TLS")


@pytest.mark.parametrize("state", ["present", "absent"])
def test_the_state_of_a_gateway_is_not_that_of_its_own_mail_server(state):
    """What a removal takes from a gateway, the gateway's part says. The two would name the same files otherwise."""
    own = host._as_server({"gateway": "postfix", "state": state, "inbound": None})
    assert (own["state"], own["keep"]) == ("present", [])
