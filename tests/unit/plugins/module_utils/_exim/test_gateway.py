"""The delivery modes on an Exim gateway, against a stand-in for its commands and a directory for /etc/exim4."""

import re
import signal
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import gateway, server
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.gateway import routes
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import LEVELS as NEUTRAL_LEVELS
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    MODES,
    EmailConfig,
    EnforcedDomain,
    GatewayState,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._haraka.gateway import HarakaGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._mailcow.gateway import MailcowGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import between
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.gateway import PostfixGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.own_paths import OwnPaths
from ansible_collections.mailfleet.starttls.plugins.module_utils._proxmox.gateway import ProxmoxGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    EngineError,
    NotRunningError,
    TransactionError,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.gateway import GATEWAYS, Access
from hypothesis import given
from hypothesis import strategies as st

from tests.support.exim_host import OWN_PORT, SETTINGS, EximHost, config, routed, state, with_includes
from tests.support.records import FORMAT, format_in, make_former, make_newer

# The levels of each mode in the words of this product.
WORDS = {"disabled": "none", "opportunistic": "may", "required": "encrypt"}
LEVELS = {mode: tuple(WORDS[level] for level in pair) for mode, pair in NEUTRAL_LEVELS.items()}

SECTIONS = ("routers", "outbound", "transports", "retry")
BEHIND = {"routers": "begin routers", "transports": "begin transports", "retry": "begin retry"}
PLACES = {**BEHIND, "outbound": "hubbed_hosts:"}
TABLES = ("routes", "enforced_senders", "enforced_recipients", "enforced_sender.acl", "tls_only.acl", "gateway.json")


@pytest.fixture(params=[False, True], ids=["unsplit", "split"])
def host(request, monkeypatch, tmp_path):
    return EximHost(monkeypatch, tmp_path, request.param)


@pytest.fixture
def unsplit(monkeypatch, tmp_path):
    return EximHost(monkeypatch, tmp_path, False)


@pytest.fixture
def split(monkeypatch, tmp_path):
    return EximHost(monkeypatch, tmp_path, True)


class TestFloor:
    """The floor for TLS versions of the gateway's own transports."""

    LINE = "  tls_require_ciphers = NORMAL:-VERS-TLS1.0:-VERS-TLS1.1\n"

    def of(self, host, library, **more):
        host.answers[("exim4", "-bV")] = (0, f"Support for: crypteq iconv() {library} DKIM\n", "")
        host.write(
            config("one", "required"), enforced=(EnforcedDomain("bank.example", "outbound", "hostname"),), **more
        )
        stanzas = re.split(r"(?m)^(\w+):\n", host.sections()["transports"])
        return dict(zip(stanzas[1::2], stanzas[2::2]))

    def test_each_transport_over_tls_has_it(self, split):
        found = self.of(split, "GnuTLS", min_tls="TLSv1.2")
        without = {name for name, text in found.items() if self.LINE not in text}
        assert without == {"mailfleet_none"}
        assert {"mailfleet_may", "mailfleet_encrypt", "mailfleet_hostname", "mailfleet_hostname_smarthost"} <= set(
            found
        )
        assert not split.plan(
            config("one", "required"),
            enforced=(EnforcedDomain("bank.example", "outbound", "hostname"),),
            min_tls="TLSv1.2",
        )
        assert "tls_require_ciphers" not in "".join(self.of(split, "GnuTLS").values())

    def test_with_openssl_there_is_no_option_of_a_transport(self, split):
        assert "openssl_options" not in "".join(self.of(split, "OpenSSL", min_tls="TLSv1.2").values())


class TestRoutes:
    def test_a_line_for_each_domain_in_order_of_the_email_configs(self):
        text = routes(
            [
                config("zeta", "required", "z.example", servers=["mx.example:2525"]),
                config(
                    "alpha",
                    "match_sender",
                    "b.example",
                    "a.example",
                    servers=["m1.example", "[2001:db8::1]:26", "2001:db8::2", "192.0.2.1", "[fe80::1%eth0]"],
                ),
            ]
        )
        servers = "<;m1.example:25;[2001:db8::1]:26;[2001:db8::2]:25;192.0.2.1:25;[fe80::1%eth0]:25"
        assert text.splitlines() == [
            "# Written by mailfleet.starttls; a change made here is lost.",
            f"b.example: in_plaintext=none over_tls=may servers={servers}",
            f"a.example: in_plaintext=none over_tls=may servers={servers}",
            "z.example: in_plaintext=encrypt over_tls=encrypt servers=<;mx.example:2525",
        ]
        assert text.endswith("\n")

    @pytest.mark.parametrize(
        ("mode", "plain", "over_tls"),
        [
            ("plaintext", "none", "none"),
            ("match_sender", "none", "may"),
            ("match_sender_strict", "none", "encrypt"),
            ("opportunistic", "may", "may"),
            ("required", "encrypt", "encrypt"),
        ],
    )
    def test_each_mode_has_its_pair_of_levels(self, mode, plain, over_tls):
        assert routes([config("one", mode)]).splitlines()[1:] == [
            f"one.example: in_plaintext={plain} over_tls={over_tls} servers=<;mx.example:25"
        ]

    def test_that_was_every_mode(self):
        assert MODES == gateway.EximGateway.modes == tuple(LEVELS)

    def test_without_email_configs_only_the_header_is_left(self):
        assert routes([]) == "# Written by mailfleet.starttls; a change made here is lost.\n"

    @given(
        st.lists(st.text("a.:;[]\n\r\x00 $<{}=\\#%-@é\u2028\x85", max_size=12) | st.just("a.example"), max_size=3),
        st.lists(
            st.text("a.:;[]\n\r\x00 $<{}=\\#%-12@é\u2028\x85", max_size=12)
            | st.sampled_from(["mx.example", "[2001:db8::1%a\n]", "fe80::1%\nb", "192.0.2.1:25\n", "mx.example\n"]),
            max_size=3,
        ),
        st.sampled_from(MODES),
    )
    def test_whatever_is_accepted_makes_one_plain_line(self, domains, servers, mode):
        """Neither a newline nor a space, an expansion or another list item comes in from outside."""
        given_data = {"name": "one", "domains": domains, "servers": servers, "delivery_mode": mode}
        try:
            accepted = EmailConfig.from_dict(given_data)
        except EngineError:
            return
        lines = routes([accepted]).split("\n")
        assert len(lines) == len(domains) + 2
        for domain, line in zip(accepted.domains, lines[1:]):
            match = re.fullmatch(r"([a-z0-9._-]+): in_plaintext=[a-z]+ over_tls=[a-z]+ servers=<;([!-~]+)", line)
            assert match and match.group(1) == domain
            assert not set(match.group(2)) & set("${}\\#<=")
            assert len(match.group(2).split(";")) == len(accepted.servers)

    @pytest.mark.parametrize("what", ["domains", "servers"])
    @pytest.mark.parametrize(
        "value", ["a.example\n", "a.example\nb.example: servers=<;evil.example", "a.example\r", "\n"]
    )
    def test_a_newline_is_refused_before_it_gets_there(self, what, value):
        data = {"name": "one", "domains": ["a.example"], "servers": ["mx.example"], what: [value]}
        with pytest.raises(EngineError, match=r"^email config one: "):
            EmailConfig.from_dict(data)


class TestPlan:
    def test_a_gateway_without_email_configs_is_left_alone(self, host):
        assert not host.plan()
        assert host.plan().kept == ()
        assert host.calls == []

    def test_the_split_configuration_gets_files_of_its_own(self, split):
        before = split.files()
        change = split.write(config("one", "match_sender"))
        assert sorted(image.path for image in change.after) == sorted(
            [*(f"{split.directory}/{name}" for name in TABLES), *split.split_files.values()]
        )
        assert before.items() <= split.files().items()
        assert not (split.directory / "routers").exists()
        assert [str(Path(path).relative_to(split.etc)) for path in split.split_files.values()] == [
            "conf.d/router/050_mailfleet-starttls",
            "conf.d/router/149_mailfleet-starttls",
            "conf.d/transport/050_mailfleet-starttls",
            "conf.d/retry/10_mailfleet-starttls",
        ]

    def as_debian_has_it(self, host):
        """The parts of the template, with the lines between which former versions wrote."""
        for section in ("router", "transport", "retry"):
            name = section if section == "retry" else f"{section}s"
            (host.etc / f"conf.d/{section}/00_exim4-config_header").write_text(f"begin {name}\n")
        host.make_template()

    def test_an_unsplit_configuration_is_moved_and_its_template_stays(self, unsplit):
        """The template is a conffile of dpkg. One that is edited stops an unattended upgrade."""
        unsplit.macros.write_text("MY_MACRO = 1\n")
        self.as_debian_has_it(unsplit)
        unsplit.template.write_bytes(b"# M\xfcller\n" + unsplit.template.read_bytes())
        before = unsplit.files()
        change = unsplit.write(config("one", "match_sender"))
        made = [f"{unsplit.directory}/{name}" for name in TABLES] + list(unsplit.split_files.values())
        moved = [str(unsplit.settings), f"{unsplit.etc}/conf.d/main/000_localmacros"]
        assert sorted(image.path for image in change.after) == sorted([*made, *moved])
        assert unsplit.split and unsplit.macros.read_text() == "MY_MACRO = 1\n"
        after = unsplit.files()
        assert {path for path in before if after[path] != before[path]} == {str(unsplit.settings)}
        assert not unsplit.plan(config("one", "match_sender"))

    def test_an_unsplit_configuration_stays_without_consent(self, unsplit):
        before = unsplit.files()
        adapter = gateway.EximGateway(unsplit.run, SETTINGS, OWN_PORT)
        with pytest.raises(EngineError, match=r"conffile of the package exim4-config.*Set starttls_exim_split: true"):
            adapter.plan(state(config("one", "match_sender")))
        assert not adapter.plan(GatewayState())
        assert unsplit.files() == before

    @pytest.fixture
    def former(self, unsplit):
        """A host whose template an older version has changed, and its template as dpkg knows it."""
        self.as_debian_has_it(unsplit)
        debian = unsplit.template.read_bytes()
        unsplit.template.write_text(with_includes(debian.decode(), unsplit.directory))
        unsplit.directory.mkdir()
        for name in SECTIONS:
            (unsplit.directory / name).write_text(f"# an older {name}\n")
        return unsplit, debian

    def test_what_an_older_version_has_put_into_the_template_leaves_it(self, former):
        host, debian = former
        assert host.write(config("one", "match_sender"))
        assert host.template.read_bytes() == debian
        assert not [name for name in SECTIONS if (host.directory / name).exists()]
        assert "mailfleet_inbound:" in host.sections()["routers"]
        assert not host.plan(config("one", "match_sender"))

    def test_without_consent_it_may_stay(self, former):
        host, _debian = former
        template = host.template.read_bytes()
        host.put(gateway.EximGateway(host.run, SETTINGS, OWN_PORT).plan(state(config("one", "match_sender"))))
        assert host.template.read_bytes() == template and not host.split
        assert "mailfleet_inbound:" in (host.directory / "routers").read_text()

    def test_a_configuration_that_was_switched_back_is_split_again(self, split):
        split.write(config("one", "match_sender"))
        texts, macros = split.sections(), split.macros
        macros.write_text("MAIN_TLS_ENABLE = yes\n")
        split.make_template()
        split.settings.write_text("dc_use_split_config='false'\n")
        change = split.write(config("one", "match_sender"))
        assert [image.path for image in change.after] == [str(split.settings)]
        assert (split.sections(), macros.read_text()) == (texts, "MAIN_TLS_ENABLE = yes\n")

    def test_a_template_that_is_missing_is_said(self, unsplit):
        unsplit.template.unlink()
        with pytest.raises(EngineError, match=r"exim4\.conf\.template is not made of the files in .*: is it Debian's"):
            unsplit.plan(config("one", "plaintext"))

    @pytest.mark.parametrize("mode", MODES)
    def test_a_second_run_changes_nothing(self, host, mode):
        assert host.write(config("one", mode))
        again = host.plan(config("one", mode))
        assert not again
        assert again.after == ()

    def test_a_mode_change_touches_the_routes_only(self, host):
        host.write(config("one", "plaintext"))
        change = host.write(config("one", "required"))
        assert sorted(Path(image.path).name for image in change.after) == ["gateway.json", "routes"]

    def test_the_generated_file_is_kept_for_the_way_back(self, host):
        [kept] = host.plan(config("one", "plaintext")).kept
        assert (kept.path, kept.content) == (str(host.generated), host.generated.read_bytes())

    def test_a_record_of_a_former_version_is_no_reason_for_a_change(self, host):
        host.write(config("one", "match_sender"))
        record = host.directory / "gateway.json"
        make_former(record)
        again = host.plan(config("one", "match_sender"))
        assert not again and again.after == ()
        host.write(config("one", "required"))
        assert format_in(record) == FORMAT

    def test_a_record_of_a_newer_version_is_refused(self, host):
        host.write(config("one", "match_sender"))
        make_newer(host.directory / "gateway.json")
        with pytest.raises(EngineError, match=r"gateway\.json was written by a newer mailfleet\.starttls"):
            host.adapter.read()

    def test_email_configs_that_all_went_leave_empty_routes(self, host):
        host.write(config("one", "plaintext"))
        assert host.write()
        assert host.adapter.read() == GatewayState()
        assert (host.directory / "routes").read_text().count("\n") == 1
        assert not host.plan()

    def test_each_level_has_a_transport_and_the_router_names_it(self, split):
        split.write(config("one", "match_sender"))
        texts = {name: Path(path).read_text() for name, path in split.split_files.items()}
        transports = dict(re.findall(r"^(\w+):\n((?:  .*\n)+)", texts["transports"], re.MULTILINE))
        assert set(transports) == {f"mailfleet_{level}" for pair in LEVELS.values() for level in pair}
        for name, options in transports.items():
            assert "  driver = smtp\n" in options
            assert "  hosts_try_dane =\n" in options
            assert "  connection_max_messages = 1\n" in options
            assert ("  hosts_avoid_tls = *\n" in options) is (name == "mailfleet_none")
            assert ("  hosts_require_tls = *\n  tls_tempfail_tryclear = false\n" in options) is (
                name == "mailfleet_encrypt"
            )
        routers = dict(re.findall(r"^(\w+):\n((?:  .*\n)+)", texts["routers"], re.MULTILINE))
        assert list(routers) == ["mailfleet_expired", "mailfleet_inbound"]
        for options in routers.values():
            assert re.search(r"(?m)^  domains = lsearch;/etc/exim4/mailfleet-starttls/routes( : |$)", options)
        assert "  condition = ${if >{$message_age}{432000}}\n" in routers["mailfleet_expired"]
        enforced = "/etc/exim4/mailfleet-starttls/enforced_recipients"
        assert (
            f"  domains = lsearch;/etc/exim4/mailfleet-starttls/routes : lsearch;{enforced}\n"
            in routers["mailfleet_expired"]
        )
        sender = "${lookup{$sender_address_domain}lsearch{/etc/exim4/mailfleet-starttls/enforced_senders}{yes}{no}}"
        assert (
            "  transport = mailfleet_${if bool{" + sender + "}{encrypt}"
            "{${extract{${if def:tls_in_cipher{over_tls}{in_plaintext}}}{$domain_data}{$value}fail}}}\n  no_more\n"
        ) in routers["mailfleet_inbound"]
        assert texts["outbound"].count("\n") == 1
        for text in (texts["routers"], texts["transports"]):
            assert text.count("{") == text.count("}")
        assert texts["retry"].splitlines()[1:] == [
            f"*@lsearch;/etc/exim4/mailfleet-starttls/{name}  *  F,2h,2m; F,365d,15m"
            for name in ("routes", "enforced_recipients")
        ]


class TestRead:
    def test_nothing_yet(self, host):
        assert host.adapter.read() == GatewayState()

    def test_what_was_written(self, host):
        configs = (config("one", "match_sender_strict", servers=["[2001:db8::1]:26"]), config("two", "plaintext"))
        host.write(*configs)
        assert host.adapter.read() == state(*configs)
        assert host.adapter.read([{"name": "other"}]) == state(*configs)

    @pytest.mark.parametrize("content", [b"{", b"\xff", b"[1]", b'[{"name": "x"}]'])
    def test_junk_names_the_file(self, host, content):
        host.directory.mkdir()
        (host.directory / "gateway.json").write_bytes(content)
        with pytest.raises(EngineError, match=r"gateway\.json cannot be read .*it is written by this collection only"):
            host.adapter.read()


class TestDaemon:
    def test_it_runs(self, host):
        host.adapter.require_running()
        assert host.tested == [OWN_PORT]

    def test_a_port_that_does_not_answer_is_said_before_anything_changes(self, host):
        host.stage = Stage.GREETING
        with pytest.raises(
            EngineError,
            match=r"^the gateway does not answer on 127\.0\.0\.1:25 \(cannot connect\); name the address and port",
        ):
            host.adapter.require_running()

    def test_it_shares_the_lock_and_journal_of_the_same_host_as_a_mail_server(self, host):
        assert host.adapter.name == server.Exim.name

    def test_a_hand_written_configuration_is_refused(self, host):
        host.answers[("exim4", "-bP")] = (0, "/etc/exim4/exim4.conf\n", "")
        with pytest.raises(EngineError, match=r"Exim reads /etc/exim4/exim4\.conf, not Debian's generated"):
            host.adapter.require_running()

    def test_the_check_is_a_trial_daemon_that_answers(self, host):
        before = host.files()
        host.adapter.check()
        assert [call[0] for call in host.calls] == ["update-exim4.conf", "exim4", "exim4", "exim4"]
        [target] = host.tested
        assert f"127.0.0.1.{target.port}" in host.calls[-1]
        assert target != OWN_PORT
        assert host.files() == before

    def test_a_trial_daemon_that_does_not_answer_is_said(self, host):
        host.stage = Stage.CONNECT
        with pytest.raises(
            EngineError,
            match=r"^a trial daemon with the change: the gateway does not answer on 127\.0\.0\.1:\d+ after the change: cannot connect$",
        ):
            host.adapter.check()

    def test_reload_tells_exim_of_another_configuration(self, host):
        host.write(config("one", "plaintext"))
        host.calls.clear()
        host.generated.write_text("former\n")
        host.adapter.reload()
        assert [call[:2] for call in host.calls] == [["update-exim4.conf", "-o"], ["update-exim4.conf"]]
        assert host.generated.read_text() == host.compose()
        assert host.signals == [(4711, signal.SIGHUP)]

    def test_the_check_generates_what_the_reload_writes(self, host):
        host.write(config("one", "plaintext"))
        host.calls.clear()
        host.adapter.check()
        assert host.generated.read_text() != host.compose()
        host.adapter.reload()
        assert host.generated.read_text() == host.compose()
        assert [call[:2] for call in host.commands("update-exim4.conf")] == [["update-exim4.conf", "-o"]]
        assert host.signals[-1] == (4711, signal.SIGHUP)

    def test_another_table_needs_neither_check_nor_reload(self, host):
        host.transact(config("one", "plaintext"))
        host.renew()
        host.calls.clear()
        host.signals.clear()
        host.write(config("one", "required"), config("two", "match_sender"))
        host.adapter.check()
        host.adapter.reload()
        assert (host.calls, host.signals) == ([], [])

    def test_a_change_without_files_is_checked(self, host):
        host.transact(config("one", "plaintext"))
        host.renew()
        host.calls.clear()
        assert not host.plan(config("one", "plaintext"))
        host.adapter.check()
        host.adapter.reload()
        assert [call[0] for call in host.calls] == ["update-exim4.conf", "exim4", "exim4", "exim4"]

    def test_a_run_without_a_change_starts_one_program(self, host):
        wanted = state(config("one", "plaintext"))
        host.transact(*wanted.email_configs.values())
        host.renew()
        host.calls.clear()
        host.adapter.require_running()
        assert host.adapter.read() == wanted
        assert not host.adapter.plan(wanted)
        assert host.adapter.serves()
        assert host.adapter.observe()["transports"] == []
        assert set(host.adapter.files()) >= {str(host.macros), str(host.generated), f"{host.directory}/routes"}
        assert [call[:3] for call in host.calls] == [["exim4", "-bP", "configure_file"]]

    def test_an_exim_that_does_not_run_is_said(self, host):
        host.runs = False
        with pytest.raises(NotRunningError):
            host.adapter.require_running()

    def test_reload_tells_nothing_that_exim_reads_by_itself(self, host):
        host.adapter.reload()
        assert [call[:2] for call in host.calls] == [["update-exim4.conf", "-o"]]
        assert host.signals == []

    def test_resuming_is_a_signal_only(self, host):
        host.adapter.resume()
        assert host.signals == [(4711, signal.SIGHUP)]
        assert host.calls == []

    @pytest.mark.parametrize(
        ("stage", "serves"),
        [(Stage.CONNECT, False), (Stage.GREETING, False), (Stage.EHLO, True), (Stage.EHLO_TLS, True)],
    )
    def test_it_serves_when_its_port_answers_ehlo(self, host, stage, serves):
        host.stage = stage
        assert host.adapter.serves() is serves
        assert host.tested == [OWN_PORT]


class TestProof:
    CONFIGS = (config("one", "match_sender", "a.example", "b.example"), config("two", "required", "c.example"))
    GOOD = {  # noqa: RUF012
        "postmaster@a.example": "mailfleet_none",
        "postmaster@b.example": "mailfleet_none",
        "postmaster@c.example": "mailfleet_encrypt",
    }

    @pytest.fixture
    def proving(self, unsplit):
        """A host with email configs, whose exim4 -bt says what is given."""
        unsplit.write(*self.CONFIGS)
        unsplit.calls.clear()

        def prove(out, err="", status=0):
            unsplit.answers[("exim4", "-bt")] = (status, out, err)
            unsplit.adapter.prove()

        unsplit.prove = prove
        return unsplit

    def test_every_domain_is_asked_for_in_one_call(self, proving):
        proving.prove("".join(routed(*pair) for pair in self.GOOD.items()))
        assert proving.commands("exim4") == [["exim4", "-bt", *self.GOOD]]
        assert proving.tested == [OWN_PORT]

    @pytest.mark.parametrize("mode", MODES)
    def test_mail_of_this_host_arrived_in_plaintext(self, unsplit, mode):
        unsplit.write(config("one", mode))
        unsplit.adapter.prove()
        unsplit.answers[("exim4", "-bt")] = (0, routed("postmaster@one.example", "mailfleet_other"), "")
        with pytest.raises(EngineError, match=f"with the transport mailfleet_{LEVELS[mode][0]}: mailfleet_other$"):
            unsplit.adapter.prove()

    @pytest.mark.parametrize("address", GOOD)
    def test_another_transport_is_said(self, proving, address):
        found = {**self.GOOD, address: "mailfleet_may"}
        with pytest.raises(EngineError) as error:
            proving.prove("".join(routed(*pair) for pair in found.items()))
        assert str(error.value) == (
            f"Exim does not route {address} with the transport {self.GOOD[address]}: mailfleet_may"
        )

    def test_another_router_is_said(self, proving):
        others = [routed(address, transport) for address, transport in self.GOOD.items()][1:]
        text = routed("postmaster@a.example", "remote_smtp", "dnslookup")
        with pytest.raises(EngineError) as error:
            proving.prove("".join([text, *others]))
        assert str(error.value) == (
            "Exim does not route postmaster@a.example with the transport mailfleet_none: remote_smtp"
        )

    def test_a_transport_whose_name_only_begins_so_is_another(self, proving):
        found = {**self.GOOD, "postmaster@a.example": "mailfleet_none2"}
        with pytest.raises(EngineError, match=r"mailfleet_none: mailfleet_none2$"):
            proving.prove("".join(routed(*pair) for pair in found.items()))

    @pytest.mark.parametrize(
        ("out", "err", "reason"),
        [
            ("", "failed to expand router\n", "failed to expand router"),
            ("postmaster@a.example cannot be resolved at this time:\n  host lookup did not complete\n", "",
             "postmaster@a.example cannot be resolved at this time:\n  host lookup did not complete"),
            ("x" * 400, "", "x" * 300),
            ("", "", ""),
        ],
    )  # fmt: skip
    def test_no_route_says_why(self, proving, out, err, reason):
        with pytest.raises(EngineError) as error:
            proving.prove(out, err, 2)
        assert str(error.value) == (
            f"Exim does not route postmaster@a.example with the transport mailfleet_none: {reason}"
        )

    def test_the_own_port_has_to_answer(self, proving):
        proving.stage = Stage.GREETING
        with pytest.raises(
            EngineError, match=r"^the gateway does not answer on 127\.0\.0\.1:25 after the change: cannot connect$"
        ):
            proving.prove("")
        assert proving.commands("exim4", "-bt") == []


class TestTransaction:
    """A change of this adapter by the engine: when Exim hears of it, and what is put back."""

    def test_the_first_email_config_changes_the_configuration(self, host):
        host.transact(config("one", "match_sender"))
        assert host.generated.read_text() == host.compose()
        assert host.commands("systemctl") == []
        assert host.signals[-1] == (4711, signal.SIGHUP)

    def test_what_somebody_writes_after_the_plan_is_not_lost(self, host):
        change = host.plan(config("one", "match_sender"))
        for path in [Path(image.path) for image in (*change.before, *change.kept)]:
            before = path.read_text() if path.exists() else None
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{before or ''}# by hand\n")
            refused = pytest.raises(EngineError, match=f"{path} changed while")
            with host.adapter.transaction(str(host.etc / "store")).locked() as transaction, refused:
                transaction.apply(change, host.adapter.prove, host.adapter.prove)
            assert path.read_text() == f"{before or ''}# by hand\n"
            path.unlink() if before is None else path.write_text(before)

    def test_the_next_ones_change_the_routes_only(self, host):
        host.transact(config("one", "match_sender"))
        host.calls.clear()
        host.signals.clear()
        host.renew()
        host.transact(config("one", "required"), config("two", "plaintext"))
        assert host.signals == []
        assert [call[:2] for call in host.calls] == [["exim4", "-bt"]]
        assert host.adapter.read().email_configs.keys() == {"one", "two"}

    def test_a_first_change_that_cannot_be_proved_leaves_everything_as_it_was(self, host):
        before = host.files()
        host.answers[("exim4", "-bt")] = (0, "", "no such router\n")
        # Without email configs there is nothing that the former state has to route.
        with pytest.raises(TransactionError, match=r"no such router\. The former state is restored and proved"):
            host.transact(config("one", "match_sender"))
        assert host.files() == before
        assert not host.directory.exists()
        assert host.signals == [(4711, signal.SIGHUP)] * 2  # the change, and its end

    def test_a_check_that_fails_leaves_the_daemon_alone(self, host):
        before = host.files()
        usual = host.run
        host.run = lambda words: (1, "", "bad\n") if words[3:] == ["-bV"] else usual(words)
        host.renew()
        with pytest.raises(TransactionError, match=r"^Exim refuses the change: bad\. The former state") as error:
            host.transact(config("one", "match_sender"))
        assert error.value.restored
        assert host.files() == before
        assert (host.commands("systemctl"), host.signals) == ([], [])


def access(own_port=OWN_PORT, reinjection_port=10125, **more):
    return Access(lambda _arguments: (0, "", ""), None, own_port, reinjection_port, **more)


class TestFactory:
    @pytest.mark.parametrize(
        ("kind", "adapter", "name"),
        [
            ("postfix", PostfixGateway, "postfix"),
            ("exim", gateway.EximGateway, "exim"),
            ("haraka", HarakaGateway, "haraka"),
            ("proxmox", ProxmoxGateway, None),
            ("mailcow", MailcowGateway, None),
        ],
    )
    def test_each_kind_has_its_adapter(self, kind, adapter, name):
        api = {"api_url": "https://gateway.example.com", "api_user": "root@pam", "api_password": "x", "api_key": "y"}
        made = GATEWAYS[kind](access(config_dir="/etc/haraka", **api), SETTINGS)
        assert type(made) is adapter
        assert name is None or made.name == name
        assert {"plaintext", "opportunistic", "required"} <= set(made.modes)
        assert set(MODES) - set(made.modes) <= set(made.limits)

    def test_what_is_secret_does_not_show(self):
        shown = repr(access(api_password="geheim", api_key="geheim"))
        assert "geheim" not in shown

    @pytest.mark.parametrize("kind", ["postfix", "exim"])
    def test_what_it_is_given_is_what_it_uses(self, kind, monkeypatch):
        asked = []
        made = GATEWAYS[kind](access(Target("192.0.2.7", 2525)), SETTINGS)
        assert made.own_port == Target("192.0.2.7", 2525)
        monkeypatch.setitem(
            type(made).serves.__globals__,
            "handshake_one",
            lambda target, settings: asked.append((target, settings)) or Handshake(target, Stage.EHLO),
        )
        assert made.serves()
        assert asked == [(Target("192.0.2.7", 2525), SETTINGS)]

    @pytest.mark.parametrize("third", [False, True])
    def test_the_reinjection_port_is_for_postfix(self, monkeypatch, tmp_path, third):
        class At(OwnPaths):
            def __init__(self, config_dir):
                super().__init__(config_dir)
                self.second_dir, self.third_dir = str(tmp_path / "second"), str(tmp_path / "third")

        for name, there in (("second", True), ("third", third)):
            (tmp_path / name).mkdir()
            if there:
                (tmp_path / name / "main.cf").touch()
        monkeypatch.setitem(PostfixGateway.__init__.__globals__, "OwnPaths", At)
        made = GATEWAYS["postfix"](access(reinjection_port=10999), SETTINGS)
        asked = []
        monkeypatch.setitem(
            type(made).serves.__globals__,
            "handshake_one",
            lambda target, _settings: asked.append(str(target)) or Handshake(target, Stage.EHLO),
        )
        monkeypatch.setattr(between, "fault", lambda target, _pair, _settings: asked.append(str(target)) or "")
        assert made.serves()
        others = ["127.0.0.1:11001"] if third else []
        assert asked == ["127.0.0.1:25", "127.0.0.1:10999", *others, "127.0.0.1:11000"]  # the last one hands back


class TestAccepts:
    LISTS = "{+local_domains:+relay_to_domains}{yes}{no}}"

    def test_one_program_answers_for_all_domains(self, host):
        host.answers = {("exim4", "-be"): (0, "yes\nno\n", "")}
        assert host.adapter.accepts(["a.example", "b.example"]) == {"a.example": True, "b.example": False}
        questions = [f"${{if match_domain{{{one}.example}}{self.LISTS}" for one in "ab"]
        assert host.commands("exim4", "-be") == [["exim4", "-be", *questions]]

    @pytest.mark.parametrize(
        ("out", "answers"),
        [
            ('Failed: unknown named domain list "+relay_to_domains"\nyes\n', [None, True]),
            ("yes\n", [None, None]),
            ("", [None, None]),
            ("no\nyes\nmaybe\n", [None, None]),
        ],
    )
    def test_what_exim_cannot_tell_is_unknown(self, host, out, answers):
        host.answers = {("exim4", "-be"): (0, out, "")}
        assert list(host.adapter.accepts(["a.example", "b.example"]).values()) == answers

    def test_only_a_domain_becomes_a_part_of_an_expansion(self, host):
        host.answers = {("exim4", "-be"): (0, "yes\n", "")}
        odd = "x}{+local_domains}{${run{/bin/sh}}"
        assert host.adapter.accepts([odd, "a.example"]) == {odd: None, "a.example": True}
        [[_exim, _be, question]] = host.commands("exim4", "-be")
        assert "run" not in question

    def test_nothing_is_asked_for_nothing(self, host):
        assert host.adapter.accepts([]) == {}
        assert host.adapter.accepts(["a b"]) == {"a b": None}
        assert host.commands("exim4", "-be") == []


def test_the_files_that_a_change_depends_on_are_all_that_it_writes_and_does_not_own(host):
    change = host.write(config("one", "required"), enforced=[EnforcedDomain("p.example", "inbound")])
    written = {image.path for image in change.after}
    ours = {path for path in written if "mailfleet" in path}
    assert written - ours <= set(host.adapter.files())
    assert {str(host.settings), str(host.directory / "gateway.json")} <= set(host.adapter.files())


def test_copies_of_private_routers_and_transports_are_as_private(host):
    for one in [host.template, *(host.etc / "conf.d/transport").glob("*")]:
        one.chmod(0o600)
    change = host.adapter.plan(GatewayState({"one": config("one", "required")}))
    paths = [*host.split_files.values(), *(host.directory / name for name in host.split_files)]
    modes = [image.mode for image in change.after if image.path in map(str, paths)]
    assert modes == [0o600] * len(host.split_files)
