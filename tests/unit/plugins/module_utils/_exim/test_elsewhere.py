"""The macros that a site sets in other files than Debian's file of local macros."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import server
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.elsewhere import definitions, in_force
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.exim_host import EximHost, inbound

REQUIRE = "REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS"


@pytest.fixture
def host(monkeypatch, tmp_path):
    return EximHost(monkeypatch, tmp_path, True)


@pytest.fixture
def unsplit(monkeypatch, tmp_path):
    return EximHost(monkeypatch, tmp_path, False)


def found(host, known=()):
    listed = definitions(
        str(host.etc), host.split, str(host.macros), str(host.settings), lambda: dict.fromkeys(known, "x")
    )
    return {(one.name, one.value, one.path.removeprefix(f"{host.etc}/"), one.line) for one in listed}


def put(host, name, text):
    path = host.etc / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class TestDefinitions:
    def test_in_every_file_that_debian_puts_together(self, host):
        put(host, "conf.d/main/01_site_tls", "# TLS\n\nMAIN_TLS_ENABLE = yes\n")
        put(host, "conf.d/transport/00_site", "REMOTE_SMTP_HOSTS_AVOID_TLS == \\\n  *\nOTHER = 1\n")
        put(host, "conf.d/main/site.bak", "MAIN_TLS_CERTKEY = /not/read\n")
        host.macros.write_text("MAIN_TLS_ADVERTISE_HOSTS = *\n")
        assert found(host) == {
            ("MAIN_TLS_ENABLE", "yes", "conf.d/main/01_site_tls", 3),
            ("REMOTE_SMTP_HOSTS_AVOID_TLS", "*", "conf.d/transport/00_site", 1),
        }

    def test_a_rule_stands_for_the_file(self, host):
        put(host, "conf.d/main/02_site", "MAIN_TLS_ENABLE = no\n")
        put(host, "conf.d/main/02_site.rul", "MAIN_TLS_ENABLE = yes\n")
        assert found(host) == {("MAIN_TLS_ENABLE", "yes", "conf.d/main/02_site.rul", 1)}

    def test_in_the_unsplit_template(self, unsplit):
        unsplit.template.write_text(f"MAIN_TLS_ENABLE = yes\n{unsplit.template.read_text()}")
        put(unsplit, "conf.d/main/01_site", "MAIN_TLS_CERTKEY = /not/read\n")
        assert found(unsplit) == {("MAIN_TLS_ENABLE", "yes", "exim4.conf.template", 1)}

    @pytest.mark.parametrize("word", [".include", ".include_if_exists"])
    def test_in_files_that_are_included(self, host, word):
        inner = put(host, "site/inner", "MAIN_TLS_ENABLE = yes\n")
        outer = put(host, "site/outer", f"{word} {inner}\n{word} {host.etc}/site/outer\n")
        put(host, "conf.d/main/01_site", f"\n{word} {outer}\n.include_if_exists /nowhere\n")
        assert found(host) == {("MAIN_TLS_ENABLE", "yes", "site/inner", 1)}

    def test_what_the_file_of_local_macros_includes_is_not_its_own(self, unsplit):
        site = put(unsplit, "site", f"{REQUIRE} = *\n")
        unsplit.macros.write_text(f"MAIN_TLS_ENABLE = yes\n.include {site}\n")
        assert found(unsplit) == {(REQUIRE, "*", "site", 1)}

    @pytest.mark.parametrize(
        ("text", "known", "there"),
        [
            (".ifdef SITE\nMAIN_TLS_ENABLE = yes\n.endif\n", (), False),
            (".ifdef SITE\nMAIN_TLS_ENABLE = yes\n.endif\n", ("SITE",), True),
            ("SITE = 1\n.ifdef SITE\nMAIN_TLS_ENABLE = yes\n.endif\n", (), True),
            (".ifndef SITE\nMAIN_TLS_ENABLE = yes\n.endif\n", ("SITE",), False),
            (".ifdef SITE\n.else\nMAIN_TLS_ENABLE = yes\n.endif\n", (), True),
            (".ifdef A\n.elifdef B\nMAIN_TLS_ENABLE = yes\n.else\n.endif\n", ("B",), True),
            (".ifdef A\n.elifdef B\nMAIN_TLS_ENABLE = yes\n.endif\n", ("A", "B"), False),
            (".ifdef A\n.ifdef B\nMAIN_TLS_ENABLE = yes\n.endif\n.endif\n", ("B",), False),
            ("# .ifdef A\nMAIN_TLS_ENABLE = yes\n.endif\n.else\n", (), True),
        ],
    )
    def test_under_a_condition(self, host, text, known, there):
        put(host, "conf.d/main/01_site", text)
        assert bool(found(host, known)) is there

    def test_debians_own_defaults_are_none_of_the_sites(self, host):
        put(host, "conf.d/main/03_tls", ".ifndef MAIN_TLS_ADVERTISE_HOSTS\nMAIN_TLS_ADVERTISE_HOSTS = *\n.endif\n")
        listed = definitions(str(host.etc), True, str(host.macros), str(host.settings), dict)
        assert [one.is_default for one in listed] == [True]
        assert in_force(listed, {}) == {}

    def test_a_default_of_update_exim4_conf_conf(self, host):
        host.settings.write_text("dc_use_split_config='true'\nMAIN_TLS_ENABLE='yes'\nCFILEMODE='644'\n")
        listed = definitions(str(host.etc), True, str(host.macros), str(host.settings), dict)
        assert in_force(listed, {})["MAIN_TLS_ENABLE"].place == f"{host.settings}, line 2"
        assert in_force(listed, {"MAIN_TLS_ENABLE": "no"}) == {}


def plan(host, **wanted):
    exim = server.Exim(host.run, lambda *_: None)
    return exim, lambda: exim.plan(Desired(certificate="/cert.pem", **wanted))


class TestPlan:
    def test_tls_that_the_site_switches_on_elsewhere_is_switched_on_and_off(self, host):
        """It was refused by Exim in the middle of the change: the macro is already defined."""
        put(host, "conf.d/main/01_site_tls", "MAIN_TLS_ENABLE = true\n")
        host.macros.write_text("MAIN_TLS_ADVERTISE_HOSTS =\n")
        exim, change = plan(host, inbound="offered")
        assert exim.state()["inbound"] == "disabled"
        host.put(change())
        assert host.read_macros() == {"MAIN_TLS_ADVERTISE_HOSTS": "*", "MAIN_TLS_CERTKEY": "/cert.pem"}
        exim, change = plan(host, inbound="disabled")
        assert exim.state()["inbound"] == "offered"
        host.put(change())
        assert "MAIN_TLS_ENABLE" not in host.read_macros()
        assert plan(host)[0].state()["inbound"] == "disabled"

    @pytest.mark.parametrize("outbound", ["disabled", "opportunistic"])
    def test_a_requirement_of_the_site_is_not_contradicted(self, host, outbound):
        """hosts_avoid_tls = * beside hosts_require_tls = * defers every message."""
        host.settings.write_text(f"{host.settings.read_text()}dc_eximconfig_configtype='smarthost'\n")
        site = put(host, "conf.d/main/00_site", f"# ours\n{REQUIRE} = *\n")
        _exim, change = plan(host, outbound=outbound)
        with pytest.raises(EngineError) as error:
            change()
        assert str(error.value).startswith(
            f"{site}, line 2, sets {REQUIRE} to '*', and this change needs that it is not set"
        )

    def test_a_requirement_of_the_site_is_adopted(self, host):
        site = put(host, "conf.d/main/00_site", f"{REQUIRE} = *\nREMOTE_SMTP_HOSTS_REQUIRE_TLS = *\n")
        _exim, change = plan(host, outbound="required")
        host.put(change())
        assert REQUIRE not in host.read_macros()
        assert plan(host)[0].state()["outbound"] == "required"
        site.unlink()

    def test_another_certificate_of_the_site(self, host):
        site = put(host, "conf.d/main/01_site", "MAIN_TLS_CERTKEY = /etc/site.pem\n")
        _exim, change = plan(host, inbound="offered")
        with pytest.raises(EngineError, match=f"{site}, line 1, sets MAIN_TLS_CERTKEY to '/etc/site.pem'"):
            change()

    def test_a_list_of_the_site_elsewhere(self, host):
        put(host, "conf.d/main/00_site", "REMOTE_SMTP_HOSTS_AVOID_TLS = 192.0.2.1\n")
        _exim, change = plan(host, outbound="required")
        with pytest.raises(EngineError, match="REMOTE_SMTP_HOSTS_AVOID_TLS holds a list of yours"):
            change()

    def test_a_gateways_list_for_mail(self, host):
        put(host, "conf.d/main/00_site", "MAIN_ACL_CHECK_MAIL = site_acl\n")
        with pytest.raises(EngineError, match="line 1, sets MAIN_ACL_CHECK_MAIL to 'site_acl'"):
            host.plan(enforced=inbound("a.example"))

    def test_a_transport_that_avoids_and_requires_is_refused_before_the_reload(self, host):
        host.answers[("exim4", "-C")] = (
            0,
            "/x\n\nremote_smtp transport:\nhosts_avoid_tls = *\nhosts_require_tls = *\n",
            "",
        )
        exim, _change = plan(host)
        with pytest.raises(
            EngineError, match="the transport remote_smtp would avoid TLS with every host and insist on it"
        ):
            exim.check()
