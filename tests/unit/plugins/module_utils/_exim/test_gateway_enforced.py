"""Enforced domains and the outbound side on an Exim gateway, against a stand-in for its commands."""

import re
from itertools import permutations
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import daemon, server
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.gateway import recipients
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import Gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    ACCEPTS,
    CERTIFICATE_CHECKS,
    MODES,
    SENDS,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import LEVELS as NEUTRAL_LEVELS
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.exim_host import EximHost, config, inbound, outbound, routed, state

# The levels of each mode in the words of this product.
WORDS = {"disabled": "none", "opportunistic": "may", "required": "encrypt"}
LEVELS = {mode: tuple(WORDS[level] for level in pair) for mode, pair in NEUTRAL_LEVELS.items()}

BY_ARRIVAL = ("match_sender", "match_sender_strict")
PARTNER = inbound("partner.example")
BANK = [outbound("bank.example", "hostname", "mx.bank.example")]
MX = [outbound("bank.example")]
SERVERS = ("192.0.2.10/32", "2001:db8::/32")
DIRECTORY = "/etc/exim4/mailfleet-starttls"
MAIL, NEXT, ADVERTISE = "MAIN_ACL_CHECK_MAIL", "MAILFLEET_NEXT_MAIL_ACL", "MAIN_TLS_ADVERTISE_HOSTS"
HIDDEN = "<; ! 192.0.2.10/32 ; ! 2001:db8::/32 ; *"
FROM_ENFORCED = f"{{bool{{${{lookup{{$sender_address_domain}}lsearch{{{DIRECTORY}/enforced_senders}}{{yes}}{{no}}}}}}}}"
FROM_SERVERS = "{match_ip{$sender_host_address}{<; 192.0.2.10/32 ; 2001:db8::/32}}"
SMARTHOST = "dc_eximconfig_configtype='smarthost'\ndc_smarthost='smart.example::587'\n"


def accepting(accept, servers=SERVERS, send=None):
    return OutboundTls(accept, send, servers)


@pytest.fixture(params=[False, True], ids=["unsplit", "split"])
def host(request, monkeypatch, tmp_path):
    return EximHost(monkeypatch, tmp_path, request.param)


@pytest.fixture
def make(monkeypatch, tmp_path):
    return lambda split=True, settings="": EximHost(monkeypatch, tmp_path, split, settings)


def stanzas(text):
    """Name -> lines of each router or transport."""
    return {
        name: lines.rstrip("\n").split("\n")
        for name, lines in re.findall(r"(?m)^(\w+):\n((?:(?!\n\n)(?!^\w+:\n).*\n)*)", text)
    }


STATES = {
    "nothing": state(),
    "a mode": state(config("one", "match_sender")),
    "senders": state(enforced=PARTNER),
    "recipients": state(config("one", "required"), enforced=BANK),
    "by MX": state(enforced=MX),
    "send by arrival": state(outbound=OutboundTls(None, "match_sender")),
    "send": state(outbound=OutboundTls(None, "opportunistic")),
    "tls_only": state(outbound=accepting("tls_only")),
    "plaintext": state(outbound=accepting("plaintext")),
    "all": state(config("one", "match_sender"), enforced=PARTNER + BANK + [outbound("mx.example", "trusted_chain")],
                 outbound=accepting("tls_only", send="match_sender_strict")),
}  # fmt: skip


class TestEveryState:
    @pytest.mark.parametrize("name", STATES)
    def test_a_second_run_changes_nothing(self, host, name):
        before = host.files()
        assert bool(host.put(host.adapter.plan(STATES[name]))) is (name != "nothing")
        assert host.adapter.read() == STATES[name]
        again = host.adapter.plan(STATES[name])
        assert (bool(again), again.after) == (False, ())
        for path, content in before.items():
            if path not in (str(host.settings), str(host.generated)):  # the move of an unsplit configuration
                assert Path(path).read_bytes() == content

    @pytest.mark.parametrize(
        ("first", "second"), list(permutations(("nothing", "senders", "by MX", "send by arrival", "tls_only"), 2))
    )
    def test_a_former_state_leaves_no_trace_in_the_tables_and_sections(self, make, first, second):
        host = make()
        host.put(host.adapter.plan(STATES[first]))
        host.put(host.adapter.plan(STATES[second]))
        assert not host.adapter.plan(STATES[second])
        found = {path: content for path, content in host.files().items() if path.startswith(str(host.directory))}
        found.update({name: text.encode() for name, text in host.sections().items()})
        if first == "nothing":
            return
        # The same state, come to from another side.
        host.put(host.adapter.plan(STATES["all"]))
        host.put(host.adapter.plan(STATES[second]))
        again = {path: content for path, content in host.files().items() if path.startswith(str(host.directory))}
        again.update({name: text.encode() for name, text in host.sections().items()})
        assert again == found

    def test_it_is_of_the_contract(self, host):
        made: Gateway = host.adapter
        assert made.title == "an Exim gateway"
        assert (made.verifying_modes, made.limits, made.modes) == ((), {}, MODES)
        assert made.own_port == Target("127.0.0.1", 25)

    @pytest.mark.parametrize("name", STATES)
    def test_braces_are_in_pairs(self, host, name):
        host.put(host.adapter.plan(STATES[name]))
        texts = [*(host.sections().values() if name != "nothing" else ()), *host.read_macros().values()]
        for text in texts:
            assert text.count("{") == text.count("}")


class TestTables:
    def test_the_senders_are_there_in_every_spelling(self, host):
        host.write(enforced=[*inbound("xn--mller-kva.example", "partner.example"), *BANK])
        assert (host.directory / "enforced_senders").read_text(encoding="utf-8").splitlines()[1:] == [
            "xn--mller-kva.example:", "müller.example:", "partner.example:",
        ]  # fmt: skip

    def test_the_recipients_have_their_check_and_the_servers_that_are_known(self):
        wanted = state(
            config("one", "plaintext", "a.example", "c.example", servers=["m1.example", "m2.example:26"]),
            enforced=[
                *PARTNER,
                outbound("d.example"),
                outbound("c.example", "trusted_chain"),
                outbound("b.example", "hostname", "mx.b.example", "[2001:db8::1]:26"),
                outbound("a.example", "encryption_only", "other.example"),
            ],
        )
        assert recipients(wanted).splitlines() == [
            "# Written by mailfleet.starttls; a change made here is lost.",
            "a.example: check=encryption_only servers=<;other.example:25",
            "b.example: check=hostname servers=<;mx.b.example:25;[2001:db8::1]:26",
            "c.example: check=trusted_chain servers=<;m1.example:25;m2.example:26",
            "d.example: check=encryption_only",
        ]

    def test_without_any_only_the_header_is_left(self):
        assert recipients(state(enforced=PARTNER)) == recipients(GatewayState())
        assert recipients(GatewayState()).count("\n") == 1

    def test_the_refusals_are_temporary(self, host):
        host.write(enforced=PARTNER)
        lines = [
            (host.directory / name).read_text().splitlines()[1:] for name in ("enforced_sender.acl", "tls_only.acl")
        ]
        assert lines == [
            ["defer message = 451 4.7.0 STARTTLS is required for this sender"],
            ["defer message = 450 4.7.0 Session encryption is required of this mail server"],
        ]


class TestRouters:
    def test_without_enforced_recipients_there_are_no_more(self, host):
        host.put(host.adapter.plan(STATES["a mode"]))
        assert list(stanzas(host.sections()["routers"])) == ["mailfleet_expired", "mailfleet_inbound"]
        assert stanzas(host.sections()["outbound"]) == {}

    def test_those_with_servers_come_before_the_email_configs(self, host):
        host.put(host.adapter.plan(STATES["recipients"]))
        routers = stanzas(host.sections()["routers"])
        assert list(routers) == ["mailfleet_expired", "mailfleet_enforced", "mailfleet_inbound"]
        assert routers["mailfleet_enforced"] == [
            "  driver = manualroute",
            f"  domains = lsearch;{DIRECTORY}/enforced_recipients",
            "  condition = ${extract{servers}{$domain_data}{yes}{no}}",
            "  route_data = ${extract{servers}{$domain_data}}",
            "  host_find_failed = defer",
            "  transport = mailfleet_${extract{check}{$domain_data}{$value}fail}",
            "  no_more",
        ]

    def test_a_server_whose_address_is_not_found_puts_mail_off(self, host):
        host.put(host.adapter.plan(STATES["all"]))
        routers = stanzas(host.sections()["routers"])
        for name in ("mailfleet_enforced", "mailfleet_inbound"):
            assert routers[name].count("  host_find_failed = defer") == 1

    TO_ENFORCED = f"  condition = ${{lookup{{$domain}}lsearch{{{DIRECTORY}/enforced_recipients}}{{yes}}{{no}}}}"
    CHECK = f"mailfleet_${{extract{{check}}{{${{lookup{{$domain}}lsearch{{{DIRECTORY}/enforced_recipients}}}}}}{{$value}}fail}}"

    def test_those_without_take_copies_of_debians_routers(self, host):
        host.put(host.adapter.plan(STATES["by MX"]))
        text = host.sections()["outbound"]
        assert (
            text.split("\n", 1)[1]
            == f"""\
.ifndef ROUTER_DNSLOOKUP_IGNORE_TARGET_HOSTS
ROUTER_DNSLOOKUP_IGNORE_TARGET_HOSTS = <; 0.0.0.0 ; 127.0.0.0/8 ;\\
 255.255.255.255
.endif
mailfleet_enforced_hubbed_hosts:
  debug_print = "R: hubbed_hosts for $domain"
  driver = manualroute
  domains = "${{if exists{{CONFDIR/hubbed_hosts}}\\
                   {{partial-lsearch;CONFDIR/hubbed_hosts}}\\
              fail}}"
  route_data = ${{lookup{{$domain}}partial-lsearch{{CONFDIR/hubbed_hosts}}}}
  transport = {self.CHECK}
{self.TO_ENFORCED}

mailfleet_enforced_dnslookup_relay_to_domains:
  debug_print = "R: dnslookup_relay_to_domains for $local_part@$domain"
  driver = dnslookup
  domains = ! +local_domains : +relay_to_domains
  transport = {self.CHECK}
  no_more
{self.TO_ENFORCED}

mailfleet_enforced_dnslookup:
  debug_print = "R: dnslookup for $local_part@$domain"
  driver = dnslookup
  domains = ! +local_domains
  transport = {self.CHECK}
  ignore_target_hosts = ROUTER_DNSLOOKUP_IGNORE_TARGET_HOSTS
  no_more
{self.TO_ENFORCED}

"""
        )

    @pytest.mark.parametrize("kind", ["smarthost", "satellite"])
    def test_by_the_smart_host_if_there_is_one(self, make, kind):
        host = make(settings=SMARTHOST.replace("'smarthost'", f"'{kind}'"))
        host.put(host.adapter.plan(STATES["by MX"]))
        routers = stanzas(host.sections()["outbound"])
        assert list(routers) == ["mailfleet_enforced_hubbed_hosts", "mailfleet_enforced_smarthost"]
        assert routers["mailfleet_enforced_smarthost"] == [
            '  debug_print = "R: smarthost for $local_part@$domain"',
            "  driver = manualroute",
            "  domains = ! +local_domains",
            f"  transport = {self.CHECK}_smarthost",
            "  route_list = * DCsmarthost byname",
            "  no_more",
            self.TO_ENFORCED,
        ]

    @pytest.mark.parametrize("send", SENDS)
    def test_mail_that_arrived_over_tls_takes_copies_if_that_matters(self, host, send):
        host.write(outbound=OutboundTls(None, send))
        routers = stanzas(host.sections()["outbound"])
        if send not in BY_ARRIVAL:
            assert routers == {}
            return
        assert list(routers) == ["mailfleet_over_tls_hubbed_hosts", "mailfleet_over_tls_dnslookup"]
        for lines in routers.values():
            assert lines[-1] == (
                "  condition = ${if def:tls_in_cipher{${if match_domain{$domain}{+relay_to_domains}{no}{yes}}}{no}}"
            )
            assert [line for line in lines if line.strip().startswith("transport")] == [
                "  transport = mailfleet_over_tls"
            ]

    def test_enforced_domains_stand_above_what_depends_on_arrival(self, host):
        host.put(host.adapter.plan(STATES["all"]))
        assert list(stanzas(host.sections()["outbound"])) == [
            "mailfleet_enforced_hubbed_hosts", "mailfleet_enforced_dnslookup_relay_to_domains", "mailfleet_enforced_dnslookup",
            "mailfleet_over_tls_hubbed_hosts", "mailfleet_over_tls_dnslookup",
        ]  # fmt: skip

    @pytest.mark.parametrize("name", ["hubbed_hosts", "dnslookup"])
    def test_a_router_that_is_not_debians_is_said(self, make, name):
        host = make()
        for path in (host.etc / "conf.d/router").iterdir():
            path.write_text(path.read_text().replace(f"{name}:\n", f"my_{name}:\n"))
        with pytest.raises(EngineError) as error:
            host.adapter.plan(STATES["by MX"])
        assert str(error.value) == (f"Exim's configuration has 0 routers {name}, not one: are its files Debian's?")
        assert host.adapter.plan(STATES["a mode"])

    def test_one_that_is_there_twice_is_said(self, make):
        host = make()
        (host.etc / "conf.d/router/151_exim4-config_mine").write_text("hubbed_hosts:\n  driver = accept\n")
        with pytest.raises(EngineError, match=r"has 2 routers hubbed_hosts, not one"):
            host.adapter.plan(STATES["by MX"])

    def test_without_a_list_of_networks_there_is_none_to_copy(self, make):
        host = make()
        primary = host.etc / "conf.d/router/200_exim4-config_primary"
        primary.write_text(primary.read_text().replace("ROUTER_DNSLOOKUP_IGNORE_TARGET_HOSTS", "OTHER"))
        host.put(host.adapter.plan(STATES["by MX"]))
        assert ".ifndef" not in host.sections()["outbound"]

    def test_files_of_others_between_debians_are_not_debians(self, make):
        host = make()
        (host.etc / "conf.d/router/160_mine").write_text("hubbed_hosts:\n  driver = accept\n")
        assert host.adapter.plan(STATES["by MX"])

    def test_both_configurations_say_the_same(self, make):
        host = make()
        host.put(host.adapter.plan(STATES["all"]))
        split = host.sections()
        host.settings.write_text("dc_use_split_config='false'\n")
        host.make_template()
        host.put(host.adapter.plan(STATES["all"]))
        assert host.sections() == split

    @pytest.mark.parametrize("name", STATES)
    def test_the_template_stays_whatever_there_is_to_say(self, make, name):
        host = make(split=False)
        before = host.template.read_bytes()
        host.put(host.adapter.plan(STATES[name]))
        host.put(host.adapter.plan(STATES["a mode"]))
        assert (host.template.read_bytes(), host.split) == (before, True)
        assert (host.etc / "conf.d/router/149_mailfleet-starttls").read_text().count("\n") == 1

    def test_a_template_without_such_a_place_is_said_only_when_it_is_needed(self, make):
        host = make(split=False)
        host.template.write_text(host.template.read_text().replace("hubbed_hosts:\n", "my_hubbed_hosts:\n"))
        assert host.adapter.plan(STATES["a mode"])
        with pytest.raises(EngineError, match=r"hubbed_hosts.*, not one"):
            host.adapter.plan(STATES["by MX"])

    def test_what_is_no_text_survives(self, make):
        host = make(split=False)
        host.template.write_bytes(host.template.read_bytes().replace(b"R: hubbed_hosts", b"R: \xfc hubbed_hosts"))
        change = host.adapter.plan(STATES["by MX"])
        [part] = [image for image in change.after if image.path.endswith(".rul")]
        [routers] = [image for image in change.after if image.path == host.split_files["outbound"]]
        assert b"R: \xfc hubbed_hosts" in part.content and b"R: \xfc hubbed_hosts" in routers.content


class TestTransports:
    INSIST = ("  hosts_require_tls = *", "  tls_tempfail_tryclear = false", "  retry_include_ip_address = false")
    OF_CHECK = {  # noqa: RUF012
        "encryption_only": [],
        "trusted_chain": ["  tls_verify_hosts = *", "  tls_verify_certificates = {}", "  tls_verify_cert_hostnames ="],
        "hostname": ["  tls_verify_hosts = *", "  tls_verify_certificates = {}", "  tls_verify_cert_hostnames = *"],
    }
    LEVEL = {  # noqa: RUF012
        "none": ["  hosts_avoid_tls = *"],
        "may": [],
        "encrypt": INSIST,
    }

    @pytest.mark.parametrize("name", STATES)
    def test_those_of_the_levels_are_always_there(self, host, name):
        if name == "nothing":
            return
        host.put(host.adapter.plan(STATES[name]))
        transports = stanzas(host.sections()["transports"])
        for level, lines in self.LEVEL.items():
            assert [line for line in transports[f"mailfleet_{level}"] if line] == [
                "  driver = smtp", "  hosts_try_dane =", "  connection_max_messages = 1", *lines,
            ]  # fmt: skip

    @pytest.mark.parametrize("check", CERTIFICATE_CHECKS)
    def test_each_check_has_a_copy_of_debians_with_its_options(self, host, check):
        host.put(host.adapter.plan(STATES["by MX"]))
        transports = stanzas(host.sections()["transports"])
        ours = ["  connection_max_messages = 1", *self.INSIST, "  hosts_try_dane =", *self.OF_CHECK[check]]
        ours = [line.format("system") for line in ours]
        assert transports[f"mailfleet_{check}"] == [
            '  debug_print = "T: remote_smtp for $local_part@$domain"',
            "  driver = smtp",
            ".ifdef REMOTE_SMTP_HELO_DATA",
            "  helo_data=REMOTE_SMTP_HELO_DATA",
            ".endif",
            ".ifdef DKIM_DOMAIN",
            "dkim_domain = DKIM_DOMAIN",
            ".endif",
            *ours,
        ]
        smart = transports[f"mailfleet_{check}_smarthost"]
        assert smart[-len(ours) :] == ours
        assert smart[: -len(ours)] == [
            '  debug_print = "T: remote_smtp_smarthost for $local_part@$domain"',
            "  driver = smtp",
            "  multi_domain",
            "  hosts_try_auth = <; ${if exists{CONFDIR/passwd.client} \\",
            "        {\\",
            "        ${lookup{$host}nwildlsearch{CONFDIR/passwd.client}{$host_address}}\\",
            "        }\\",
            "        {} \\",
            "      }",
            ".ifdef REMOTE_SMTP_SMARTHOST_HELO_DATA",
            "  helo_data = REMOTE_SMTP_SMARTHOST_HELO_DATA",
            ".endif",
        ]

    @pytest.mark.parametrize("send", BY_ARRIVAL)
    def test_mail_that_arrived_over_tls_has_one_as_well(self, host, send):
        host.write(outbound=OutboundTls(None, send))
        transports = stanzas(host.sections()["transports"])
        level = self.LEVEL[LEVELS[send][1]]
        for name in ("mailfleet_over_tls", "mailfleet_over_tls_smarthost"):
            lines = transports[name]
            at = len(lines) - len(level)
            assert lines[at - 1 :] == ["  connection_max_messages = 1", *level]
            # What the administrator says about certificates stays.
            assert any("TLS_VERIFY" in line for line in lines)
            assert not any("HOSTS_AVOID_TLS" in line or "HOSTS_REQUIRE_TLS" in line for line in lines)

    @pytest.mark.parametrize("send", [None, *(one for one in SENDS if one not in BY_ARRIVAL)])
    def test_without_such_a_mode_there_is_none(self, host, send):
        host.write(config("one", "plaintext"), outbound=OutboundTls(None, send))
        assert set(stanzas(host.sections()["transports"])) == {"mailfleet_none", "mailfleet_may", "mailfleet_encrypt"}

    def test_an_option_of_ours_that_debian_sets_is_there_once(self, make):
        host = make()
        path = host.etc / "conf.d/transport/30_exim4-config_remote_smtp"
        path.write_text(
            path.read_text() + "  hosts_try_dane = *\n  connection_max_messages=500\n\ttls_tempfail_tryclear = true\n"
        )
        host.put(host.adapter.plan(STATES["by MX"]))
        for name, lines in stanzas(host.sections()["transports"]).items():
            options = [line.split("=")[0].strip() for line in lines if "=" in line and not line.startswith(".")]
            assert len(options) == len(set(options)), name

    @pytest.mark.parametrize("name", ["remote_smtp", "remote_smtp_smarthost"])
    def test_a_transport_that_is_not_debians_is_said(self, make, name):
        host = make()
        (host.etc / f"conf.d/transport/30_exim4-config_{name}").unlink()
        with pytest.raises(EngineError) as error:
            host.adapter.plan(STATES["by MX"])
        assert str(error.value) == f"Exim's configuration has 0 transports {name}, not one: are its files Debian's?"

    def test_authorities_of_ones_own(self, host, tmp_path):
        (tmp_path / "ca.pem").touch()
        host.write(enforced=MX, ca_file=str(tmp_path / "ca.pem"))
        transports = stanzas(host.sections()["transports"])
        for check in ("trusted_chain", "hostname"):
            assert f"  tls_verify_certificates = {tmp_path}/ca.pem" in transports[f"mailfleet_{check}"]

    def test_that_are_not_there_are_said(self, host, tmp_path):
        wanted = state(enforced=MX, ca_file=str(tmp_path / "none.pem"))
        for look in (host.adapter.plan, host.adapter.roots):
            with pytest.raises(EngineError, match=rf"^there is no file {tmp_path}/none\.pem on this host$"):
                look(wanted)

    def test_that_exim_cannot_read_are_said(self, host, tmp_path, monkeypatch):
        (tmp_path / "ca.pem").touch()
        monkeypatch.setattr(daemon, "can_read", lambda *_: False)
        with pytest.raises(EngineError) as error:
            host.adapter.roots(state(enforced=MX, ca_file=str(tmp_path / "ca.pem")))
        assert str(error.value).startswith(
            f"{tmp_path}/ca.pem cannot be read by {server.DAEMON_USER}, so no certificate could be checked; "
        )

    def test_what_the_evidence_goes_by(self, host, tmp_path):
        (tmp_path / "ca.pem").touch()
        assert host.adapter.roots(state(enforced=MX)) == ""
        assert host.adapter.roots(state(enforced=MX, ca_file=str(tmp_path / "ca.pem"))) == str(tmp_path / "ca.pem")


def wrapped(*lists, following=NEXT):
    """The access control list macro with ours in front, the first one outermost."""
    value = following
    for condition, name in reversed(lists):
        value = f"${{if and{{{{!def:tls_in_cipher}}{{def:sender_host_address}}{condition}}}{{{name}}}{{{value}}}}}"
    return value


class TestMailAcl:
    def lists(self, host, *names):
        known = {
            "senders": (FROM_ENFORCED, f"{host.directory}/enforced_sender.acl"),
            "servers": (FROM_SERVERS, f"{host.directory}/tls_only.acl"),
        }
        return wrapped(*(known[name] for name in names))

    @pytest.mark.parametrize(
        ("enforced", "accept", "names"),
        [
            (PARTNER, None, ["senders"]),
            ([], "tls_only", ["servers"]),
            (PARTNER, "tls_only", ["senders", "servers"]),
            (PARTNER, "both", ["senders"]),
            ([*PARTNER, *inbound("b.example")], "plaintext", ["senders"]),
        ],
    )
    def test_each_refusal_stands_in_front_of_debians_list(self, host, enforced, accept, names):
        host.write(enforced=enforced, outbound=accepting(accept) if accept else None)
        macros = host.read_macros()
        assert macros[MAIL] == self.lists(host, *names)
        assert macros[NEXT] == "acl_check_mail"

    @pytest.mark.parametrize(
        "wanted", [state(config("one", "match_sender")), state(enforced=MX), state(outbound=accepting("both"))]
    )
    def test_without_a_refusal_there_is_none(self, host, wanted):
        host.put(host.adapter.plan(wanted))
        assert not {MAIL, NEXT} & set(host.read_macros())

    @pytest.mark.parametrize("own", ["acl_mine", "${if x{acl_a}{acl_b}}"])
    def test_a_list_of_the_administrator_is_kept_behind_and_comes_back(self, host, own):
        text = f"# mine\n{MAIL} = {own}\nX = y\n"
        host.macros.write_text(text)
        host.write(enforced=PARTNER)
        assert host.read_macros()[MAIL] == self.lists(host, "senders")
        assert host.read_macros()[NEXT] == own
        host.write(enforced=PARTNER, outbound=accepting("tls_only"))
        assert host.read_macros()[NEXT] == own
        host.write()
        assert host.macros.read_text() == text

    def test_gone_without_a_trace(self, host):
        host.write(config("one", "required"))
        host.macros.write_text("X = y\n")
        host.write(config("one", "required"), enforced=PARTNER)
        host.write(config("one", "required"))
        assert host.macros.read_text() == "X = y\n"


OPERATIONS = ("senders", "tls_only", "neither", "required", "offered")


class TestWithRequired:
    """A gateway's lists and inbound "required" of exim_starttls share one macro: the order of steps does not matter."""

    STATES = {  # noqa: RUF012
        "senders": state(enforced=PARTNER),
        "tls_only": state(enforced=PARTNER, outbound=accepting("tls_only")),
        "neither": state(outbound=accepting("both")),
    }

    def step(self, host, name):
        if name in self.STATES:
            host.put(host.adapter.plan(self.STATES[name]))
        else:
            adapter = server.Exim(host.run, lambda *_: None)
            host.put(adapter.plan(Desired(name, None, certificate="/nowhere/cert.pem")))
            assert adapter.state()["inbound"] == name
        return host.read_macros()

    @pytest.fixture
    def final(self, host):
        """The macros for what the gateway holds and what inbound is, come to in the shortest way."""
        found = {}
        for gateway_side in self.STATES:
            for inbound_side in ("required", "offered"):
                host.macros.unlink(missing_ok=True)
                self.step(host, "offered")
                self.step(host, gateway_side)
                found[gateway_side, inbound_side] = self.step(host, inbound_side)
        host.macros.unlink()
        self.step(host, "offered")
        return found

    def test_what_they_come_to(self, host, final):
        assert final["senders", "offered"][NEXT] == "acl_check_mail"
        assert final["senders", "required"][NEXT] == server._ACL_MACRO
        assert final["senders", "required"][MAIL] == final["senders", "offered"][MAIL]
        assert final["neither", "required"][MAIL] == server._ACL_MACRO
        assert NEXT not in final["neither", "required"]
        assert not {MAIL, NEXT} & set(final["neither", "offered"])
        assert len({tuple(sorted(one.items())) for one in final.values()}) == 6

    @pytest.mark.parametrize("steps", list(permutations(["senders", "required", "neither", "offered"])))
    def test_every_order_comes_to_the_same(self, host, final, steps):
        holds, is_now = "neither", "offered"
        self.step(host, "neither")
        for step in steps:
            macros = self.step(host, step)
            holds, is_now = (step, is_now) if step in self.STATES else (holds, step)
            assert macros == final[holds, is_now]

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
    @given(st.lists(st.sampled_from(OPERATIONS), max_size=6))
    def test_so_does_every_walk(self, host, final, steps):
        host.macros.unlink(missing_ok=True)
        self.step(host, "offered")
        holds, is_now = "neither", "offered"
        macros = self.step(host, "neither")
        for step in steps:
            macros = self.step(host, step)
            assert self.step(host, step) == macros
            holds, is_now = (step, is_now) if step in self.STATES else (holds, step)
        assert macros == final[holds, is_now]

    def test_a_list_of_the_administrator_behind_ours_is_in_the_way_of_required(self, host):
        host.macros.write_text(f"{MAIL} = acl_mine\n")
        host.write(enforced=PARTNER)
        before = host.macros.read_bytes()
        with pytest.raises(
            EngineError, match=rf"^{NEXT} is already set in .*localmacros; inbound 'required' needs it\. "
        ):
            server.Exim(host.run, lambda *_: None).plan(Desired("required", None, certificate="/nowhere/cert.pem"))
        assert host.macros.read_bytes() == before


class TestAdvertise:
    def test_starttls_is_hidden_from_the_mail_servers_alone(self, host):
        host.write(outbound=accepting("plaintext"))
        assert host.read_macros()[ADVERTISE] == HIDDEN
        host.write(outbound=accepting("plaintext", SERVERS[:1]))
        assert host.read_macros()[ADVERTISE] == "<; ! 192.0.2.10/32 ; *"

    @pytest.mark.parametrize("accept", ["both", "tls_only"])
    def test_it_is_shown_to_them_again(self, host, accept):
        host.write(outbound=accepting("plaintext"))
        host.write(outbound=accepting(accept))
        assert host.read_macros()[ADVERTISE] == "*"

    @pytest.mark.parametrize("accept", [None, "both", "tls_only"])
    def test_what_was_never_hidden_need_not_be_shown(self, host, accept):
        host.write(enforced=PARTNER, outbound=OutboundTls(accept, None, SERVERS))
        assert ADVERTISE not in host.read_macros()

    @pytest.mark.parametrize("accept", ACCEPTS)
    def test_nobody_is_offered_it_by_this_module_where_nobody_is(self, host, accept):
        host.macros.write_text(f"{ADVERTISE} =\n")
        host.write(outbound=accepting(accept))
        assert host.read_macros()[ADVERTISE] == ""

    @pytest.mark.parametrize("accept", ACCEPTS)
    @pytest.mark.parametrize("held", ["192.0.2.0/24", "! 192.0.2.9 : *", "<; ! 192.0.2.9 ; 192.0.2.0/24", "*.example"])
    def test_a_list_of_the_administrator_is_not_replaced(self, host, accept, held):
        host.macros.write_text(f"{ADVERTISE} = {held}\n")
        with pytest.raises(EngineError) as error:
            host.adapter.plan(state(outbound=accepting(accept)))
        assert str(error.value) == (
            f"{ADVERTISE} holds a list of yours ({held}); accept '{accept}' would replace it. Take it out first"
        )
        assert host.adapter.plan(state(enforced=PARTNER))

    def test_the_role_that_offers_starttls_keeps_it(self, host):
        host.write(outbound=accepting("plaintext"))
        host.put(server.Exim(host.run, lambda *_: None).plan(Desired("offered", None, certificate="/nowhere/cert.pem")))
        assert host.read_macros()[ADVERTISE] == HIDDEN


class TestSend:
    @pytest.mark.parametrize("send", SENDS)
    def test_the_level_for_mail_that_arrived_in_plaintext_is_that_of_debians_macros(self, host, send):
        host.write(outbound=OutboundTls(None, send))
        macros = host.read_macros()
        for transport in ("REMOTE_SMTP", "REMOTE_SMTP_SMARTHOST"):
            level = LEVELS[send][0]
            assert macros.get(f"{transport}_HOSTS_AVOID_TLS") == ("*" if level == "none" else None)
            assert macros.get(f"{transport}_HOSTS_REQUIRE_TLS") == ("*" if level == "encrypt" else None)
        words = {word: level for level, word in WORDS.items()}
        assert server.Exim(host.run, lambda *_: None).state()["outbound"] == words[LEVELS[send][0]]

    SMART = "REMOTE_SMTP_SMARTHOST_TLS_VERIFY"

    @pytest.mark.parametrize("send", SENDS)
    def test_a_smart_host_that_cannot_be_verified_gets_no_plaintext_for_it(self, host, send):
        host.write(outbound=OutboundTls(None, send))
        assert host.read_macros().get(f"{self.SMART}_HOSTS") == (None if LEVELS[send][1] == "none" else "")
        assert not host.adapter.plan(state(outbound=OutboundTls(None, send)))

    @pytest.mark.parametrize("line", ["HOSTS = *", "HOSTS =", "HOSTS = mx.example", "CERTIFICATES = /etc/own.pem"])
    @pytest.mark.parametrize("send", ["opportunistic", "match_sender", "match_sender_strict"])
    def test_what_the_administrator_set_about_it_stays(self, host, line, send):
        host.macros.write_text(f"{self.SMART}_{line}\n")
        before = host.read_macros()
        host.write(outbound=OutboundTls(None, send))
        macros = host.read_macros()
        assert {name: macros[name] for name in macros if name.startswith(self.SMART)} == before

    def test_unless_it_is_said_it_is_left_alone(self, host):
        host.write(outbound=accepting("both"))
        assert host.read_macros() == {}

    def test_lists_of_the_administrator_are_in_the_way(self, host):
        host.macros.write_text("REMOTE_SMTP_HOSTS_AVOID_TLS = old.example\n")
        with pytest.raises(EngineError, match=r"^REMOTE_SMTP_HOSTS_AVOID_TLS holds a list of yours \(old\.example\)"):
            host.adapter.plan(state(outbound=OutboundTls(None, "required")))


class TestNextHops:
    def hops(self, host, *configs, enforced=MX):
        return [str(one) for one in host.adapter.next_hops("bank.example", state(*configs, enforced=enforced))]

    def test_the_servers_that_are_given_or_those_of_the_email_config(self, host):
        own = config("one", "plaintext", "bank.example", servers=["m1.example", "m2.example:26"])
        assert self.hops(host, own, enforced=BANK) == ["mx.bank.example:25"]
        assert self.hops(host, own) == ["m1.example:25", "m2.example:26"]
        assert host.calls == []

    def test_else_exim_is_asked(self, host):
        out = (
            "postmaster@bank.example\n  router = dnslookup, transport = remote_smtp\n"
            "  host mx1.bank.example  [192.0.2.1]   MX=10\n  host mx2.bank.example  [2001:db8::1] MX=20 port=26\n"
            "  host 192.0.2.7         [192.0.2.7]   port=2525\n"
        )
        host.answers[("exim4", "-bt")] = (0, out, "")
        assert self.hops(host) == ["mx1.bank.example:25", "mx2.bank.example:26", "192.0.2.7:2525"]
        assert host.calls == [["exim4", "-bt", "postmaster@bank.example"]]

    @pytest.mark.parametrize(
        "out",
        [
            "postmaster@bank.example is undeliverable: Unrouteable address\n",
            "",
            "postmaster@bank.example cannot be resolved at this time",
        ],
    )
    def test_nothing_found_is_no_host(self, host, out):
        host.answers[("exim4", "-bt")] = (2, out, "")
        assert self.hops(host) == []

    def test_the_relay_hosts_are_the_smart_hosts(self, make):
        assert list(make(settings=SMARTHOST).adapter.relay_hosts()) == [Target("smart.example", 587)]

    def test_without_one_there_is_none(self, host):
        assert list(host.adapter.relay_hosts()) == []


class TestProof:
    def prove(self, host, wanted, out=None):
        host.put(host.adapter.plan(wanted))
        host.calls.clear()
        if out is not None:
            host.answers[("exim4", "-bt")] = (0, out, "")
        host.adapter.prove()
        return host.commands("exim4", "-bt")

    def test_every_enforced_domain_is_asked_for(self, host):
        wanted = state(
            config("one", "plaintext", "a.example", "c.example"),
            enforced=[*BANK, outbound("c.example", "trusted_chain"), outbound("d.example")],
        )
        assert self.prove(host, wanted) == [
            [
                "exim4",
                "-bt",
                "postmaster@a.example",
                "postmaster@c.example",
                "postmaster@bank.example",
                "postmaster@d.example",
            ]
        ]

    @pytest.mark.parametrize("check", CERTIFICATE_CHECKS)
    @pytest.mark.parametrize("router", ["mailfleet_enforced_dnslookup", "mailfleet_enforced_smarthost"])
    def test_one_that_is_looked_up_may_go_by_a_smart_host_or_not_be_found(self, host, check, router):
        wanted = state(enforced=[outbound("bank.example", check)])
        for transport in (f"mailfleet_{check}", f"mailfleet_{check}_smarthost"):
            assert self.prove(host, wanted, routed("postmaster@bank.example", transport, router)) == [
                ["exim4", "-bt", "postmaster@bank.example"]
            ]
        assert self.prove(host, wanted, "postmaster@bank.example cannot be resolved at this time: try again\n")
        for transport in ("remote_smtp", "remote_smtp_smarthost", f"mailfleet_{check}2", "mailfleet_encrypt"):
            with pytest.raises(EngineError) as error:
                self.prove(host, wanted, routed("postmaster@bank.example", transport, "dnslookup"))
            assert str(error.value) == (
                f"Exim does not route postmaster@bank.example with the transport mailfleet_{check}: {transport}"
            )

    def test_one_with_servers_may_neither(self, host):
        transport = BANK[0].certificate_check
        for out in (
            routed("postmaster@bank.example", f"mailfleet_{transport}_smarthost", "mailfleet_enforced"),
            "postmaster@bank.example cannot be resolved at this time\n",
        ):
            with pytest.raises(EngineError, match=r"^Exim does not route postmaster@bank\.example with the transport"):
                self.prove(host, state(enforced=BANK), out)

    @pytest.mark.parametrize("wanted", [state(enforced=PARTNER), state(outbound=OutboundTls(None, "match_sender"))])
    def test_without_a_domain_there_is_nothing_to_ask(self, host, wanted):
        assert self.prove(host, wanted) == []

    @pytest.mark.parametrize("check", CERTIFICATE_CHECKS)
    def test_another_transport_for_an_enforced_domain_is_said(self, host, check):
        wanted = state(config("one", "required", "bank.example"), enforced=[outbound("bank.example", check)])
        good = routed("postmaster@bank.example", f"mailfleet_{check}", "mailfleet_enforced")
        assert self.prove(host, wanted, good)
        with pytest.raises(EngineError) as error:
            self.prove(host, wanted, routed("postmaster@bank.example", "mailfleet_encrypt"))
        assert str(error.value) == (
            f"Exim does not route postmaster@bank.example with the transport mailfleet_{check}: mailfleet_encrypt"
        )

    def test_an_enforced_sender_has_to_be_put_off(self, host):
        self.prove(host, STATES["senders"])
        assert host.asked == [("127.0.0.1:25", "postmaster@partner.example", "postmaster")]
        host.refusal = (250, "Accepted")
        with pytest.raises(
            EngineError,
            match=r"^the gateway answers mail from partner\.example in plaintext with 250 Accepted; see which restriction "
            r"comes before the collection's$",
        ):
            host.adapter.prove()

    @pytest.mark.parametrize("name", ["a mode", "by MX", "tls_only", "send"])
    def test_others_are_not_asked(self, host, name):
        self.prove(host, STATES[name])
        assert host.asked == []


class TestTransaction:
    @pytest.mark.parametrize("name", STATES)
    def test_each_state_is_reached_and_left_again(self, host, name):
        wanted = STATES[name]
        host.transact(*wanted.email_configs.values(), enforced=wanted.enforced, outbound=wanted.outbound)
        assert host.adapter.read() == wanted
        assert host.generated.read_text() == host.compose()
        host.transact()
        assert host.adapter.read() == GatewayState()

    def test_the_next_enforced_domain_with_servers_needs_no_reload(self, host):
        host.transact(enforced=BANK)
        host.signals.clear()
        host.renew()
        host.transact(enforced=[*BANK, outbound("c.example", "trusted_chain", "mx.c.example")])
        assert host.signals == []

    def test_the_next_enforced_sender_needs_none(self, host):
        host.transact(enforced=PARTNER)
        host.signals.clear()
        host.renew()
        host.transact(enforced=[*PARTNER, *inbound("second.example")])
        assert host.signals == []
