"""How far a change of Postfix reaches: what it inherits is proved, exempted or refused by name."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import server
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import demanding, places, weaker
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target

from tests.support.fake_postfix import TLS_DEFAULTS, FakePostfix

SERVICES = """\
smtp      inet  n       -       y       -       -       smtpd
smtp      unix  -       -       y       -       -       smtp
relay     unix  -       -       y       -       -       smtp
lmtp      unix  -       -       y       -       -       lmtp
smtp-amavis unix -      -       n       -       2       smtp
  -o smtp_send_xforward_command=yes
"""
OWN = Target("127.0.0.1", 25)


class Host:
    """A Postfix, its adapter, and what a change would leave."""

    def __init__(self, monkeypatch, directory, main, master):
        self.fake = FakePostfix(directory, main, master, TLS_DEFAULTS)
        monkeypatch.setattr(server, "Postconf", lambda run, _config_dir: Postconf(run, str(directory)))
        self.directory = directory
        self.adapter = server.Postfix(self.fake)

    def change(self, inbound=None, outbound=None):
        return self.adapter.plan(Desired(inbound, outbound))

    def after(self, **wanted):
        return self.adapter.sides(self.change(**wanted))

    def demanded(self):
        """The targets of the handshakes that outbound 'required' needs, the implicit ones marked."""
        ways = demanding(self.adapter.sides(), self.after(outbound="required"))
        return sorted(
            f"{one.target}{' implicit' if one.target.protocol == 'smtps' else ''}" for one in ways if one.target
        )

    def written(self, **wanted):
        """The options of master.cf that a change adds: service/name -> value."""
        before = {one.name: dict(one.settings) for one in self.adapter.postconf.services()}
        texts = {image.path: image.content for image in self.change(**wanted).after}
        with self.adapter.postconf.staged(texts) as staged:
            return {
                f"{one.name}/{name}": value
                for one in staged.services()
                for name, value in one.settings.items()
                if before[one.name].get(name) != value
            }

    def undercuts(self):
        return [one.undercut for one in self.after(outbound="required").ways if one.undercut]


@pytest.fixture
def make(monkeypatch, tmp_path):
    return lambda main="", master="": Host(monkeypatch, tmp_path / "postfix", main, SERVICES + master)


class TestOutgoing:
    def test_every_transport_that_inherits_the_level_is_proved(self, make):
        host = make(
            "smtp_tls_security_level = may\nrelayhost = [relay.example.net]\nvirtual_transport = smtp:[store.example.com]:2525\n"
            "local_transport = lmtp:[127.0.0.1]:24\nrelay_transport = relay:[inner.example.com]\n"
            "mailbox_transport = smtp:[box.example.com]:26\nsmtp_fallback_relay = [fallback.example.com]\n"
        )
        assert host.demanded() == [
            "box.example.com:26",
            "fallback.example.com:25",
            "inner.example.com:25",
            "relay.example.net:25",
            "store.example.com:2525",
        ]

    def test_implicit_tls_is_proved_as_that(self, make):
        host = make("relayhost = [smtp.example.net]:465\nsmtp_tls_wrappermode = yes\n")
        assert host.demanded() == ["smtp.example.net:465 implicit"]

    def test_a_filter_on_this_host_keeps_its_level_and_one_transport_for_both_does_not(self, make):
        host = make(
            "smtp_tls_security_level = may\nrelayhost = [relay.example.net]\ncontent_filter = smtp-amavis:[127.0.0.1]:10024\n"
            "virtual_transport = smtp:[127.0.0.1]:10026\n"
        )
        assert host.written(outbound="required") == {"smtp-amavis/unix/smtp_tls_security_level": "may"}
        assert host.demanded() == ["127.0.0.1:10026", "relay.example.net:25"]
        (both,) = [one for one in host.after(outbound="required").ways if one.transport.setting == "virtual_transport"]
        assert "postconf -e 'virtual_transport=smtp-loopback:[127.0.0.1]:10026'" in both.advice

    @pytest.mark.parametrize(
        ("setting", "value", "last"),
        [
            ("mailbox_transport", "smtp:[::1]:26", "postconf -e 'mailbox_transport=smtp-loopback:[::1]:26'"),
            (
                "header_checks",
                "static:{FILTER smtp:[127.0.0.1]:26}",
                "let FILTER in header_checks = static:{FILTER smtp:[127.0.0.1]:26} say",
            ),
            ("mailbox_transport", "smtp:unix:/a';reboot;'", "give it a transport of its own"),
        ],
    )
    def test_the_line_that_mends_it(self, make, setting, value, last):
        host = make(f"relayhost = [r.example.net]\n{setting} = {value}\n")
        (one,) = [way for way in host.after(outbound="required").ways if way.transport.loopback]
        assert last in one.advice and "reboot" not in one.advice

    def test_a_filter_without_tls_keeps_none(self, make):
        host = make("relayhost = [relay.example.net]\ncontent_filter = smtp-amavis:[::1]:10024\n")
        assert host.written(outbound="required") == {"smtp-amavis/unix/smtp_tls_security_level": "none"}

    def test_a_transport_that_also_leads_elsewhere_is_not_exempted(self, make, tmp_path):
        (tmp_path / "routes").write_text("example.org smtp-amavis:[mx.example.org]:26\n")
        host = make(
            f"relayhost = [r.example.net]\ncontent_filter = smtp-amavis:[127.0.0.1]:10024\ntransport_maps = hash:{tmp_path}/routes\n"
        )
        assert host.written(outbound="required") == {}
        assert host.demanded() == ["127.0.0.1:10024", "mx.example.org:26", "r.example.net:25"]

    @pytest.mark.parametrize(
        ("main", "hop"),
        [
            ("transport_maps = texthash:{0}", "[a.example]:27"),
            ("sender_dependent_relayhost_maps = proxy:hash:{0}", "[a.example]:27"),
            ("sender_dependent_default_transport_maps = hash:{0}", "relay:[a.example]:27"),
            ("header_checks = hash:{0}", "FILTER smtp:[a.example]:27"),
            (
                "smtpd_sender_restrictions = permit_mynetworks, check_sender_access hash:{0}, reject",
                "FILTER relay:[a.example]:27",
            ),
        ],
    )
    def test_what_tables_name_is_proved_too(self, make, tmp_path, main, hop):
        (tmp_path / "table").write_text(f"example.org {hop if 'transport_maps = t' not in main else 'smtp:' + hop}\n")
        host = make("relayhost = [r.example.net]\n" + main.format(tmp_path / "table") + "\n")
        assert host.demanded() == ["a.example:27", "r.example.net:25"]

    def test_rules_by_pattern_are_read_from_their_file(self, make, tmp_path):
        (tmp_path / "table").write_text("# no\nif /x/\n/^Subject: \\/a/i FILTER smtp:[a.example]:27\nendif\n")
        host = make(f"relayhost = [r.example.net]\nheader_checks = regexp:{tmp_path}/table\n")
        assert host.demanded() == ["a.example:27", "r.example.net:25"]

    @pytest.mark.parametrize("setting", ["transport_maps", "sender_dependent_relayhost_maps"])
    @pytest.mark.parametrize("table", ["ldap:/etc/postfix/routes.cf", "pcre:/nowhere", "unionmap:{hash:/a, hash:/b}"])
    def test_a_table_that_cannot_be_listed_is_named(self, make, setting, table):
        after = make(f"relayhost = [r.example.net]\n{setting} = {table}\n").after(outbound="required")
        assert after.unread == (
            f"mail also leaves by {setting} = {table}, and those routes cannot all be tested: the table cannot be listed",
        )

    @pytest.mark.parametrize(
        ("hop", "entry"), [("[Out.example.net]:587", "[out.example.net]:587"), ("out.example.net", ".example.net")]
    )
    def test_a_policy_that_undercuts_the_level_is_found_under_the_key_that_postfix_uses(
        self, make, tmp_path, hop, entry
    ):
        (tmp_path / "policy").write_text(f"{entry} may\npartner.example none\n")
        host = make(f"relayhost = {hop}\nsmtp_tls_policy_maps = texthash:{tmp_path}/policy\n")
        (said,) = host.undercuts()
        assert said.startswith(
            f"smtp_tls_policy_maps = texthash:{tmp_path}/policy has '{entry} may', which counts instead"
        )

    def test_a_domain_is_no_host_that_could_be_tested(self, make):
        host = make("relayhost = out.example.net\n")
        assert host.demanded() == []
        (way,) = demanding(host.adapter.sides(), host.after(outbound="required"))
        assert (way.by_domain, way.target) == (True, None)

    def test_a_policy_that_insists_too_undercuts_nothing(self, make, tmp_path):
        (tmp_path / "policy").write_text("[out.example.net] secure match=example.net\n")
        host = make(f"relayhost = [out.example.net]\nsmtp_tls_policy_maps = texthash:{tmp_path}/policy\n")
        assert host.undercuts() == []

    def test_the_older_table_of_policies(self, make, tmp_path):
        (tmp_path / "sites").write_text("out.example.net NONE\n")
        (said,) = make(f"relayhost = [out.example.net]:25\nsmtp_tls_per_site = texthash:{tmp_path}/sites\n").undercuts()
        assert "smtp_tls_per_site" in said and "out.example.net NONE" in said

    def test_a_client_that_does_not_see_starttls(self, make):
        (said,) = make("relayhost = [r.example.net]\nsmtp_discard_ehlo_keywords = chunking, STARTTLS\n").undercuts()
        assert "smtp_discard_ehlo_keywords hides STARTTLS" in said

    def test_a_level_of_its_own_is_an_exemption_that_is_said(self, make):
        master = "slow unix - - y - - smtp\n  -o smtp_tls_security_level=may\n"
        after = make("relayhost = [r.example.net]\nvirtual_transport = slow:[old.example]\n", master).after(
            outbound="required"
        )
        assert weaker(after) == [
            "virtual_transport (to old.example:25 by the transport slow) keeps its own TLS level, may"
        ]

    def test_a_level_of_an_older_spelling_stays(self, make):
        host = make(
            "smtpd_enforce_tls = yes\nsmtp_enforce_tls = yes\nsmtpd_tls_cert_file = /a.pem\nsmtp_tls_loglevel = 1\n"
        )
        assert host.adapter.state() == {"inbound": "required", "outbound": "required"}
        assert not host.change(outbound="required")


class TestListeners:
    def test_one_with_a_certificate_of_its_own_keeps_it_and_switching_off_takes_that_back(self, make):
        master = "submission inet n - y - - smtpd\n  -o smtpd_tls_cert_file=/b.pem\n  -o smtpd_tls_key_file=/b.key\n"
        host = make(
            "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = /a.pem\nsmtpd_tls_eccert_file = /a.ec\n", master
        )
        assert host.written(inbound="offered") == {
            "submission/inet/smtpd_tls_chain_files": "",
            "submission/inet/smtpd_tls_eccert_file": "/a.ec",
        }
        served = {one.service: one.certificates for one in host.after(inbound="offered").listeners}
        assert served == {"smtp/inet": ("/etc/mailfleet/starttls.pem",), "submission/inet": ("/b.pem", "/a.ec")}
        for image in host.change(inbound="offered").after:
            image.write()
        host.adapter.postconf.forget()
        assert not host.change(inbound="offered")

    def test_one_with_a_chain_of_its_own_needs_nothing(self, make):
        host = make(
            "", "465 inet n - y - - smtpd\n  -o smtpd_tls_wrappermode=yes\n  -o smtpd_tls_chain_files=/b.key,/b.pem\n"
        )
        assert host.written(inbound="offered") == {}
        (place,) = places(host.adapter.sides(), host.after(inbound="offered"), OWN)
        assert (place.target, place.is_changed) == (Target("127.0.0.1", 465, protocol="smtps"), False)

    def test_one_on_the_loopback_does_not_begin_to_require_tls(self, make):
        host = make("", "127.0.0.1:10025 inet n - n - - smtpd\n  -o content_filter=\nsubmission inet n - y - - smtpd\n")
        assert host.written(inbound="required") == {"127.0.0.1:10025/inet/smtpd_tls_security_level": "none"}
        assert host.written(inbound="offered") == {}

    def test_one_that_wants_a_proxy_is_not_tested(self, make):
        host = make("", "587 inet n - y - - smtpd\n  -o smtpd_upstream_proxy_protocol=haproxy\n")
        after = host.after(inbound="offered")
        assert [one.after.service for one in places(host.adapter.sides(), after, OWN)] == []
        assert "smtpd_upstream_proxy_protocol = haproxy" in after.closed["587/inet"]

    def test_the_port_of_a_gateways_other_instances_is_proved_by_the_gateway(self, make):
        pair = "/etc/postfix/mailfleet-starttls/instances.pem"
        options = f"  -o smtpd_tls_wrappermode=yes\n  -o smtpd_tls_chain_files={pair}\n  -o smtpd_tls_CAfile={pair}\n"
        host = make("", f"127.0.0.1:10126 inet n - y - - smtpd\n{options}")
        after = host.after(inbound="offered")
        assert places(host.adapter.sides(), after, OWN) == []
        assert after.closed == {"127.0.0.1:10126/inet": ""}

    @pytest.mark.parametrize(("port", "service"), [(587, "submission"), (465, "smtps"), (587, "127.0.0.1:submission")])
    def test_one_under_the_name_of_its_port_is_seen_before_the_change(self, make, port, service):
        host = make("", f"{service} inet n - y - - smtpd\n  -o smtpd_tls_security_level=encrypt\n")
        with pytest.raises(server.EngineError, match=f"overrides main.cf for {service}/inet"):
            server.Postfix(host.fake, port).plan(Desired("offered"))

    def test_what_stands_behind_postscreen_is_seen_before_the_change(self, monkeypatch, tmp_path):
        master = "smtp inet n - y - 1 postscreen\nsmtpd pass - - y - - smtpd\n  -o smtpd_tls_security_level=none\n"
        host = Host(monkeypatch, tmp_path / "postfix", "", master + "smtp unix - - y - - smtp\n")
        with pytest.raises(server.EngineError, match=r"overrides main\.cf for smtpd/pass"):
            host.change(inbound="offered")

    def test_names_with_certificates_of_their_own(self, make):
        host = make("smtpd_tls_cert_file = /a.pem\nsmtpd_tls_security_level = may\ntls_server_sni_maps = hash:/sni\n")
        host.fake.tables["hash:/sni"] = {f"n{number:03}.example.com": "a2V5" for number in range(300)} | {
            ".example.com": "a2V5"
        }
        assert host.adapter.sides().names == ("n000.example.com", "n150.example.com", "n299.example.com")
        assert "a2V5" not in str(host.adapter.sides())

    def test_names_that_cannot_be_listed_are_said(self, make):
        sides = make(
            "smtpd_tls_cert_file = /a.pem\nsmtpd_tls_security_level = may\ntls_server_sni_maps = ldap:/x\n"
        ).adapter.sides()
        assert sides.notes == (
            "tls_server_sni_maps: ldap:/x cannot be listed, so its certificates by name are not proved",
        )
