"""The options of the modules that read and change a mail server, and what the two do with them."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils import ansible_reading as reading
from ansible_collections.mailfleet.starttls.plugins.module_utils import ansible_server as module
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import BUNDLE_SPEC
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import facts
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import CERTIFICATE
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired, OfPorts
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds import product as registry
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import PRODUCTS
from ansible_collections.mailfleet.starttls.plugins.modules import mail_server_info, mail_server_tls

from tests.support.ansible_module import run_module
from tests.support.fake_mail import NAME, FakeMail

DEFAULTS = {name: option.get("default") for name, option in module.SERVER_SPEC.items()} | {
    "bundle": None,
    "bundle_content": None,
}
BUNDLE = {name: option.get("default") for name, option in BUNDLE_SPEC.items()}


def options(**given):
    return {**DEFAULTS, "ca_content": None, **given}


@pytest.fixture
def here(monkeypatch):
    """Products that are on this host."""

    def install(*kinds):
        layouts = {PRODUCTS[kind].layouts: PRODUCTS[kind].layouts[0] for kind in kinds}
        monkeypatch.setattr(registry, "layout_here", layouts.get)

    return install


@pytest.fixture
def mail(tmp_path, authority, monkeypatch, here):
    """A mail server of the kind postfix, with the options that reach it in mail.options."""
    here("postfix")
    server = FakeMail(tmp_path, authority)
    server.transaction = lambda _store: Transaction(server, str(server.store))
    server.made = []  # what the registry was asked for

    def make(run, desired, settings):
        server.made.append((desired, settings))
        return server

    for one in (module, reading):
        monkeypatch.setattr(one, "SERVERS", {"postfix": make})
    monkeypatch.setattr(module, "PEERS", {})
    monkeypatch.setattr(reading, "_of_peers", lambda *_: {"peers": [], "obstacles": [], "notes": [], "digests": {}})
    server.options = {
        "address": server.port.host, "port": server.port.port, "certificate": str(server.certificate), "timeout": 10,
    }  # fmt: skip
    yield server
    server.port.close()


# Options


def test_without_a_word_the_wish_is_the_default():
    assert module.desired_of(options(), "postfix") == Desired(None, None, CERTIFICATE, Target("127.0.0.1"))


def test_every_option_is_a_part_of_the_wish():
    given = options(
        inbound="offered", outbound="required", certificate="/x.pem", address="192.0.2.1", port=2525,
        require_without_evidence=True, relax=False, only_relax=True,
    )  # fmt: skip
    assert module.desired_of(given, "postfix") == Desired(
        "offered", "required", "/x.pem", Target("192.0.2.1", 2525), True, False, True, None
    )


@pytest.mark.parametrize("kind", ["postfix", "exim"])
def test_the_certificate_gets_what_the_kind_needs(here, kind):
    here("postfix", "exim")  # auto would not be able to tell
    layout = PRODUCTS[kind].layouts[0]
    given = {**BUNDLE, "sha256": "d", "fingerprints": ["f"], "owner": "mail"}
    bundle = module.desired_of(options(bundle=given, bundle_content="c", certificate="/x.pem"), kind).bundle
    assert asdict(bundle) == {
        "path": "/x.pem", "present": True, "content": "c", "owner": "mail", "group": layout.certificate_group,
        "mode": layout.certificate_mode, "sha256": "d", "fingerprints": ("f",),
        "ends": "", "replace": False, "replaces": "", "keep": "", "private_key": "", "issued_by": "",
    }  # fmt: skip
    assert "'c'" not in repr(bundle)


def test_what_is_given_for_it_counts():
    bundle = module.desired_of(options(bundle={**BUNDLE, "group": "ssl", "mode": "0640"}), "exim").bundle
    assert (bundle.group, bundle.mode, bundle.content) == ("ssl", "0640", None)


def test_certificates_with_ports_are_apart_from_those_of_all_ports():
    """Their files are installed with the others."""
    more = [{"sha256": "a", "fingerprints": []}, {"sha256": "b", "fingerprints": [], "ports": [465, 587]}]
    given = {**BUNDLE, "sha256": "d", "fingerprints": ["f"], "more": [{**BUNDLE, **one} for one in more]}
    desired = module.desired_of(options(inbound="offered", bundle=given, certificate="/x.pem"), "postfix")
    assert desired.more == ("/x-2.pem",)
    assert desired.of_ports == (OfPorts((465, 587), "/x-3.pem"),)
    assert [one.path for one in desired.bundles] == ["/x.pem", "/x-2.pem", "/x-3.pem"]
    assert desired.certificates == ("/x.pem", "/x-2.pem", "/x-3.pem")


def test_certificates_on_the_host_with_ports_are_apart_too():
    entries = [
        {"certificate_path": "/b.pem", "private_key_path": "/b.key", "ports": [465]},
        {"certificate_path": "/c.pem", "private_key_path": None, "ports": None},
    ]
    given = options(inbound="offered", certificate_source="host", certificate="/a.pem", more_on_host=entries)
    desired = module.desired_of(given, "exim")
    assert (desired.more, desired.more_keys) == (("/c.pem",), ("",))
    assert desired.of_ports == (OfPorts((465,), "/b.pem", "/b.key"),)
    assert desired.own_pairs == (("/a.pem", ""), ("/c.pem", ""))
    assert desired.pairs == (*desired.own_pairs, ("/b.pem", "/b.key"))


# The read


@pytest.mark.parametrize(
    ("kinds", "code", "said"),
    [
        ((), "no_product", "no known mail server is on this host"),
        (("postfix", "exim"), "two_products", "Postfix and Exim are both on this host"),
    ],
)
def test_a_host_whose_product_is_not_known(here, kinds, code, said):
    here(*kinds)
    result = reading.read_mail_server(options(inbound="offered"), None)
    assert (result["kind"], [one["code"] for one in result["obstacles"]], result["notes"]) == ("", [code], [])
    assert result["obstacles"][0]["message"].startswith(said)


def test_an_unknown_kind_is_refused(here):
    here("postfix")
    with pytest.raises(EngineError, match="'postfx' is not a known kind"):
        reading.read_mail_server(options(kind="postfx"), None)


@pytest.mark.parametrize("kind", ["auto", "postfix"])
def test_what_is_read(mail, kind):
    mail.start("offered")
    result = run_module(mail_server_info.main, kind=kind, inbound="offered", **mail.options)
    assert "failed" not in result
    assert (result["changed"], result["kind"], result["title"]) == (False, "postfix", "Postfix")
    assert result["layout"]["config_dir"] == "/etc/postfix"
    assert (result["health"]["state"], result["version"], result["obstacles"]) == ("running", "1.2.3", [])
    assert result["probe"]["results"][0]["fingerprint_sha256"] == mail.fingerprint
    [(desired, settings)] = mail.made
    assert (desired.inbound, settings.timeout) == ("offered", 10.0)
    assert settings.ca_pem is None
    run_module(mail_server_info.main, ca_content="roots", **mail.options)
    assert mail.made[1][1].ca_pem == "roots"


def test_the_processes_that_are_looked_for_are_those_of_the_product(mail, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "ansible_collections.mailfleet.starttls.plugins.module_utils._host.sockets.listening",
        lambda programs, ports, users: asked.append((tuple(programs), 0 in users)) or [],
    )
    reading.read_mail_server(options(**mail.options), None)
    assert asked == [(PRODUCTS["postfix"].layouts[0].daemons, True)]


def test_a_host_that_is_found_to_send_only_is_told_no_inbound_lines(mail, monkeypatch):
    """Its settings have a listener at 127.0.0.1. Nobody changes it, so the lines are the message."""
    monkeypatch.setattr(
        "ansible_collections.mailfleet.starttls.plugins.module_utils._host.sockets.listening", lambda *_, **__: []
    )
    asked = []
    mail.by_hand = lambda desired: asked.append(desired) or "the lines"
    wanted = options(
        **mail.options, inbound="offered", outbound="opportunistic", find_send_only=True, settings_only=True
    )
    result = reading.read_mail_server(wanted, None)
    assert result["send_only"]
    assert [(one.inbound, one.outbound, one.listens) for one in asked] == [(None, "opportunistic", False)]
    assert "the lines" in result["obstacles"][-1]["message"]


def test_other_hosts_are_tested_too(mail):
    target = Target(mail.port.host, mail.port.port)
    result = reading.read_mail_server(options(**mail.options), None, [target])
    assert len(result["probe"]["results"]) == 2


# The change


def change(mail, **given):
    return run_module(mail_server_tls.main, diff=True, kind="postfix", **mail.options, **given)


def test_what_is_changed(mail):
    result = change(mail, inbound="offered", outbound="opportunistic")
    assert set(result) - {"invocation"} == {
        "changed", "before", "after", "handshake", "recovered", "digests", "kind", "diff", "probe", "send_only",
    }  # fmt: skip
    assert (result["changed"], result["kind"], result["recovered"]) == (True, "postfix", False)
    assert result["after"] == {"inbound": "offered", "outbound": "opportunistic"}
    assert result["digests"] == facts.digests([str(mail.config), str(mail.certificate)])
    assert change(mail, inbound="offered")["changed"] is False


@pytest.mark.parametrize(("knows_root", "trusted"), [(True, True), (False, False)])
def test_the_proof_of_a_change_says_whether_the_chain_is_trusted(mail, authority, knows_root, trusted):
    """The test that proves the change, with OpenSSL's verdict: no second connection is made for that."""
    roots = authority.root_pem.decode() if knows_root else type(authority).create().root_pem.decode()
    [test] = change(mail, inbound="offered", ca_content=roots)["probe"]["results"]
    assert (test["completed"], test["trusted"], test["fingerprint_sha256"]) == (True, trusted, mail.fingerprint)
    assert bool(test["verify_error"]) is not trusted
    [test] = change(mail, inbound="disabled", ca_content=roots)["probe"]["results"]
    assert (test["starttls_advertised"], test["trusted"]) == (False, None)


def test_with_a_certificate(mail, authority):
    file = mail.renewal(authority.issue([NAME]))
    bundle = {name: getattr(file, name) for name in ("owner", "group", "mode", "sha256")}
    former = mail.certificate.read_text()
    result = change(
        mail, inbound="offered", bundle={**bundle, "fingerprints": list(file.fingerprints)}, bundle_content=file.content
    )
    assert result["previous_certificate"] in former
    assert result["handshake"]["fingerprint_sha256"] == file.fingerprints[0]
    assert len(result["diff"]) == 2
    key = file.content.splitlines()[1]
    assert mail.certificate.read_text() == file.content and key not in str(result)


def test_files_that_changed_since_the_plan(mail):
    result = change(mail, inbound="offered", digests={str(mail.config): "absent"})
    assert result["failed"] and f"{mail.config} changed since the plan" in result["msg"]
    assert "restored" not in result
    assert mail.settings["inbound"] == "disabled"


def test_check_mode(mail):
    result = change(mail, check_mode=True, inbound="offered")
    assert (result["changed"], result["digests"], mail.settings["inbound"]) == (True, {}, "disabled")


def test_two_products_are_not_chosen_from(mail, here):
    here("postfix", "exim")
    result = run_module(mail_server_tls.main, inbound="offered", **mail.options)
    assert (
        result["failed"]
        and "Postfix and Exim are both on this host; set kind to one of: postfix, exim" in result["msg"]
    )
    assert mail.made == []


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_only_the_change_of_a_killed_run_is_undone(mail, check_mode, there):
    before = mail.config.read_text()
    if there:
        with Transaction(mail, str(mail.store)).locked() as transaction:
            wanted = mail.plan(mail.desired("required"))
            transaction._begin(wanted, [])
            wanted.after[0].write()
    result = change(mail, check_mode=check_mode, only_recover=True, inbound="offered")
    undone = there and not check_mode
    assert {key: value for key, value in result.items() if key != "invocation"} == {
        "changed": undone, "recovered": undone, "kind": "postfix",
    }  # fmt: skip
    assert (mail.config.read_text() == before) is (undone or not there)
    assert Transaction(mail, str(mail.store)).interrupted is (there and check_mode)
    assert mail.calls == (["resume"] if undone else [])


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_host_that_is_not_to_be_changed_is_only_proved(mail, check_mode):
    """The playbooks that do not plan come here too."""
    before = mail.config.read_text()
    refused = change(mail, check_mode=check_mode, settings_only=True, inbound="offered")
    assert refused["failed"] and "restored" not in refused
    assert "not to be changed (starttls_settings_only)" in refused["msg"] and "plan_tls" in refused["msg"]
    assert (mail.config.read_text(), mail.calls) == (before, ["require_running"])
    change(mail, inbound="offered")
    result = change(mail, check_mode=check_mode, settings_only=True, inbound="offered")
    assert (result["changed"], result["probe"]["results"][0]["completed"]) == (False, True)


@pytest.mark.parametrize("given", [{"only_recover": True}, {"inbound": "offered"}, {"state": "absent"}])
def test_nor_is_the_change_of_a_killed_run_undone_there(mail, given):
    with Transaction(mail, str(mail.store)).locked() as transaction:
        transaction._begin(mail.plan(mail.desired("required")), [])
    result = change(mail, settings_only=True, **given)
    assert result["failed"] and "run once without starttls_settings_only" in result["msg"]
    assert Transaction(mail, str(mail.store)).interrupted and mail.calls == []


def test_and_nothing_is_put_back_there(mail, monkeypatch):
    asked = []
    monkeypatch.setattr(
        module,
        "put_back",
        lambda _server, _desired, _settings, check_mode, **_: asked.append(check_mode) or SimpleNamespace(changed=True),
    )
    assert "starttls_settings_only" in change(mail, settings_only=True, state="absent")["msg"]
    assert asked == [True]


def test_what_goes_wrong_after_it_began_says_what_is_restored(mail):
    mail.refuses = True
    result = change(mail, inbound="offered")
    assert (result["failed"], result["restored"]) == (True, True)
    assert result["msg"] == "fakemail: bad settings. The former state is restored and proved"


def test_the_modules_take_the_same_wish():
    """The plan is of the change that is made."""
    for given in (mail_server_info.ARGUMENT_SPEC, mail_server_tls.ARGUMENT_SPEC):
        assert module.SERVER_SPEC.items() <= given.items()
        assert module.INSTALL_SPEC.items() <= given.items()
    assert set(mail_server_tls.ARGUMENT_SPEC) - set(mail_server_info.ARGUMENT_SPEC) == {
        "digests",
        "only_recover",
        "prove_later",
        "queue_timeout",
    }


def test_content_of_a_bundle_is_secret():
    assert module.HOST_SPEC["bundle_content"]["no_log"] is True
    assert "content" not in BUNDLE_SPEC


def test_check_mode_leaves_nothing_on_the_host(mail):
    given = {**options(**mail.options), "kind": "postfix", "digests": None, "only_recover": False, "inbound": "offered"}
    assert module.change_mail_server(SimpleNamespace(params=given, check_mode=True))["changed"] is True
    assert not mail.store.exists()


@pytest.mark.parametrize(
    ("given", "inbound", "outbound"),
    [
        ({"inbound": "offered", "outbound": "required"}, "TLSv1.2", "TLSv1.2"),
        ({"inbound": "disabled", "outbound": "opportunistic"}, "", "TLSv1.2"),
        ({"inbound": "none", "outbound": "opportunistic"}, "", "TLSv1.2"),
        ({"inbound": "offered"}, "TLSv1.2", ""),  # as for a gateway
        ({"inbound": "renewed"}, "", ""),
        ({"inbound": "offered", "only_relax": True}, "", ""),
        ({}, "", ""),
    ],
)
def test_the_floor_holds_for_the_directions_that_a_call_sets(given, inbound, outbound):
    desired = module.desired_of(options(min_tls="TLSv1.2", **given), "postfix")
    assert (desired.floor_in("inbound"), desired.floor_in("outbound")) == (inbound, outbound)
