"""The delivery modes on a Postfix gateway, against a stand-in for its commands and a directory for /etc."""

import os
import pwd
import re
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import before
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import engine as gateway_engine
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import evidence, own_port
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import GatewayVerdict
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import (
    Opening,
    change_within,
    set_gateway,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import LEVELS as NEUTRAL_LEVELS
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import MODES, GatewayState, OutboundTls
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import Modes
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import (
    arrival_policy,
    between,
    gateway,
    instances,
    server,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Edits, Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    BrokenConfigurationError,
    EngineError,
    NotRunningError,
    PortInUseError,
    TransactionError,
)

from tests.support.edits import edited_meanwhile
from tests.support.fake_postfix import DEFAULTS, MAIN, MASTER
from tests.support.postfix_host import (
    OWN_PORT,
    PAIR,
    SETTINGS,
    PostfixHost,
    answering,
    config,
    inbound,
    outbound,
    state,
)
from tests.support.records import FORMAT, format_in, make_former, make_newer

# The levels of each mode in the words of this product.
WORDS = {"disabled": "none", "opportunistic": "may", "required": "encrypt"}
LEVELS = {mode: tuple(WORDS[level] for level in pair) for mode, pair in NEUTRAL_LEVELS.items()}

BY_ARRIVAL = ("match_sender", "match_sender_strict")
NEW = {**DEFAULTS, "tls_required_enable": "yes"}  # Postfix 3.10


SECOND_QUEUE, THIRD_QUEUE = "/var/spool/postfix-mailfleet", "/var/spool/postfix-mailfleet_enforced"


def options(words):
    """The -o options of a master.cf entry."""
    assert words[8::2] == ["-o"] * len(words[9::2])
    return dict(option.split("=", 1) for option in words[9::2])


def default(host):
    """The command for the default instance alone."""
    return "postfix", "-c", str(host.etc)


@pytest.fixture
def make(monkeypatch, tmp_path):
    def make(main="", **fake):
        host = PostfixHost(monkeypatch, tmp_path, main=MAIN + main, **fake)
        return host

    return make


@pytest.fixture
def host(make):
    return make()


class TestMaps:
    def test_the_transport_map_has_a_line_for_each_domain(self, host):
        host.apply(
            config("zeta", "required", "z.example", servers=["mx.example:2525"]),
            config(
                "alpha",
                "match_sender",
                "b.example",
                "a.example",
                servers=["m1.example", "[2001:db8::1]:26", "192.0.2.1"],
            ),
        )
        assert host.lines("transport") == [
            "b.example mailfleet-match_sender:[m1.example]:25,[2001:db8::1]:26,[192.0.2.1]:25",
            "a.example mailfleet-match_sender:[m1.example]:25,[2001:db8::1]:26,[192.0.2.1]:25",
            "z.example mailfleet-required:[mx.example]:2525",
        ]

    @pytest.mark.parametrize("mode", MODES)
    def test_the_arrival_map_has_the_domains_for_which_arrival_matters(self, mode):
        text = gateway.arrival_map(state(config("one", mode, "a.example", "b.example")))
        wanted = ["a.example mailfleet_arrival", "b.example mailfleet_arrival"] if mode in BY_ARRIVAL else []
        assert text.splitlines()[1:] == wanted

    @pytest.mark.parametrize("name", ["transport", "arrival", "enforced_senders", "tls_only", "plaintext_only"])
    def test_without_anything_to_say_only_the_header_is_left(self, host, name):
        host.apply(config("one", "match_sender"))
        host.apply()
        text = (host.directory / name).read_text()
        assert text == "# Written by mailfleet.starttls from gateway.json; a change made here is lost.\n"

    def test_a_next_hop_is_never_an_mx_name(self):
        assert gateway.next_hop(Target("mx.example")) == "[mx.example]:25"
        assert gateway.next_hop(Target("2001:db8::1", 26)) == "[2001:db8::1]:26"


class TestFloor:
    """The floor for TLS versions of the gateway's own transports."""

    LISTS = ("smtp_tls_protocols", "smtp_tls_mandatory_protocols")
    NEWER = ">=TLSv1.2"

    def floors(self, host, path, name):
        """The lists of protocols that a transport of ours has."""
        found = options(host.services(path)[f"mailfleet-{name}/unix"])
        return [found.get(one) for one in self.LISTS]

    def test_each_transport_over_tls_has_it_in_every_instance(self, host):
        held = (config("one", "match_sender"),)
        more = {"enforced": (*inbound("p.example"), outbound("bank.example", "hostname")), "min_tls": "TLSv1.2"}
        host.apply(*held, **more)
        for arrival, path in enumerate((host.etc, host.second, host.third)):
            for mode, levels in NEUTRAL_LEVELS.items():
                has = (*levels, "required")[arrival] != "disabled"
                assert self.floors(host, path, mode) == [self.NEWER if has else None] * 2
            assert self.floors(host, path, "hostname") == [self.NEWER] * 2
        assert not host.plan(*held, **more)
        host.apply(*held, **{**more, "min_tls": ""})
        assert self.floors(host, host.second, "required") == [None, None]

    def test_a_postfix_without_ranges_names_what_goes(self, make):
        host = make(defaults={**DEFAULTS, "mail_version": "3.5.6"})
        host.apply(config("one", "required"), min_tls="TLSv1.2")
        assert self.floors(host, host.etc, "required") == ["!SSLv2,!SSLv3,!TLSv1,!TLSv1.1"] * 2
        assert not host.plan(config("one", "required"), min_tls="TLSv1.2")

    def test_what_main_cf_has_is_not_loosened(self, make):
        host = make("smtp_tls_protocols = >=TLSv1.3\nsmtp_tls_mandatory_protocols = >=TLSv1\n")
        host.apply(config("one", "required"), min_tls="TLSv1.2")
        assert self.floors(host, host.etc, "required") == [None, self.NEWER]

    def test_what_cannot_be_told_is_refused_by_name(self, make):
        host = make("smtp_tls_protocols = new\n")
        with pytest.raises(EngineError, match=r"^smtp_tls_protocols is 'new', and it cannot be told .*postconf -X"):
            host.plan(config("one", "required"), min_tls="TLSv1.2")


class TestPlan:
    def test_a_gateway_without_email_configs_is_left_alone(self, host):
        assert not host.plan()

    def test_modes_that_do_not_depend_on_arrival_need_one_instance(self, host):
        host.apply(*(config(mode, mode) for mode in MODES if mode not in BY_ARRIVAL))
        assert not host.second.exists()
        assert not host.third.exists()
        assert not (host.root / "usr").exists()
        explicit = host.fake.explicit()
        assert explicit["transport_maps"] == f"texthash:{host.directory}/transport"
        assert not [name for name in explicit if name.startswith(("multi_instance", "smtpd_r", "mailfleet"))]
        services = host.services(host.etc)
        assert {"mailfleet-arrived/unix", "mailfleet_arrival/unix", "127.0.0.1:10126/inet"}.isdisjoint(services)

    @pytest.mark.parametrize("mode", BY_ARRIVAL)
    def test_match_sender_brings_the_second_instance_and_the_policy_service(self, host, mode):
        host.apply(config("one", mode))
        explicit = host.fake.explicit()
        assert explicit["smtpd_recipient_restrictions"] == f"check_recipient_access texthash:{host.directory}/arrival"
        assert explicit["smtpd_restriction_classes"] == "mailfleet_arrival, mailfleet_enforced, mailfleet_unicode"
        assert explicit["mailfleet_arrival"] == (
            "check_policy_service { unix:private/mailfleet_arrival, policy_context=arrival, "
            "{ default_action = 451 4.3.5 Server configuration error } }"
        )
        assert explicit["multi_instance_directories"] == str(host.second)
        assert explicit["multi_instance_enable"] == "yes"
        assert explicit["multi_instance_wrapper"] == "${command_directory}/postmulti -p --"
        policy = host.root / "usr/arrival_policy.py"
        assert policy.read_bytes() == Path(arrival_policy.__file__).read_bytes()
        assert policy.stat().st_mode & 0o777 == 0o755
        services = host.services(host.etc)
        assert not host.third.exists()
        assert services["mailfleet_arrival/unix"][-6:] == [
            f"argv={gateway._python()}", "-I", str(policy), "mailfleet-arrived:[127.0.0.1]:10125",
            "mailfleet-arrived:[127.0.0.1]:10127", f"{host.directory}/enforced_senders",
        ]  # fmt: skip
        assert "user=mailfleet-starttls" in services["mailfleet_arrival/unix"]
        arrived = services["mailfleet-arrived/unix"]
        assert options(arrived) == between.client(str(host.directory / "instances.pem"))

    @pytest.mark.parametrize(
        "name", ["virtual_alias_maps", "canonical_maps", "recipient_canonical_maps", "recipient_bcc_maps"]
    )
    def test_where_recipients_are_rewritten_every_message_is_asked_about(self, make, name):
        host = make(f"{name} = hash:/x\nsmtpd_recipient_restrictions = reject\n")
        host.apply(config("one", "match_sender"))
        arrival = f"check_recipient_access texthash:{host.directory}/arrival"
        assert host.fake.explicit()["smtpd_recipient_restrictions"] == f"{arrival}, mailfleet_arrival, reject"
        assert not host.plan(config("one", "match_sender"))
        host.apply(config("one", "required"))
        assert host.fake.explicit()["smtpd_recipient_restrictions"] == f"{arrival}, reject"

    def test_a_map_that_is_nothing_once_it_is_expanded_rewrites_nothing(self, make):
        host = make("virtual_alias_maps = $virtual_maps\nvirtual_maps =\n")
        host.apply(config("one", "match_sender"))
        assert "mailfleet_arrival" not in host.fake.explicit()["smtpd_recipient_restrictions"]

    def test_the_other_instance_has_a_tls_proxy(self, host):
        host.apply(config("one", "match_sender"))
        assert host.services(host.second)["tlsproxy/unix"] == ["tlsproxy", "unix", "-", "-", "n", "-", "0", "tlsproxy"]

    @pytest.mark.parametrize("mode", MODES)
    def test_each_transport_has_its_level_in_both_instances(self, host, mode):
        host.apply(config("one", "match_sender"))
        for instance, path in enumerate((host.etc, host.second)):
            words = host.services(path)[f"mailfleet-{mode}/unix"]
            assert words[7] == "smtp"
            assert words[4] == ("n" if instance else "y")
            assert f"smtp_tls_security_level={LEVELS[mode][instance]}" in words
            assert "smtp_tls_policy_maps=" in words
            put_off = f"smtp_reply_filter=regexp:{host.directory}/reply_filter" in words
            assert put_off is (LEVELS[mode][instance] != "encrypt")

    def test_a_refusal_of_plaintext_is_put_off_not_bounced(self, host):
        host.apply(config("one", "plaintext"))
        pattern, replacement = (host.directory / "reply_filter").read_text().rstrip("\n").rsplit(" ", 1)
        pattern = pattern.strip("/")
        assert replacement == "430$1"
        assert re.sub(pattern, r"430\1", "530 5.7.0 Must issue a STARTTLS command first").startswith("430 5.7.0 Must")
        assert re.search(pattern, "530-5.7.0 STARTTLS first")
        assert not re.search(pattern, "530 5.7.0 Authentication required")
        assert not re.search(pattern, "550 5.1.1 no such user STARTTLS")

    def test_the_second_instance_takes_mail_from_this_host_only(self, host):
        host.apply(config("one", "match_sender"))
        second = host.fake.explicit(host.second)
        assert second["inet_interfaces"] == "loopback-only"
        assert second["mydestination"] == ""
        assert second["authorized_submit_users"] == ""
        listeners = [words for name, words in host.services(host.second).items() if name.endswith("/inet")]
        assert [words[0] for words in listeners] == ["127.0.0.1:10125"]
        assert options(listeners[0]) == between.listener(str(host.directory / "instances.pem"), "10240000")

    @pytest.mark.parametrize(("limit", "behind"), [("0", "0"), ("1000", "1049576"), ("10240000", "11288576")])
    def test_no_port_behind_takes_more_than_the_gateway_and_a_margin(self, make, limit, behind):
        host = make(f"message_size_limit = {limit}\n")
        host.apply(config("one", "match_sender"))
        assert host.fake.explicit(host.second)["message_size_limit"] == behind
        for path, port in ((host.second, 10125), (host.etc, 10126)):
            assert options(host.services(path)[f"127.0.0.1:{port}/inet"])["message_size_limit"] == behind

    def test_key_and_certificate_of_the_instances_are_made_once_and_shown_nowhere(self, host):
        change = host.apply(config("one", "match_sender"))
        pair = host.directory / "instances.pem"
        assert pair.read_bytes() == PAIR
        assert pair.stat().st_mode & 0o777 == 0o600
        assert "PRIVATE" not in str(change.diff())
        pair.write_bytes(PAIR + b"that of this host")
        pair.chmod(0o644)
        assert [image.path for image in host.apply(config("one", "match_sender")).after] == [str(pair)]
        assert (pair.read_bytes(), pair.stat().st_mode & 0o777) == (PAIR + b"that of this host", 0o600)
        assert not host.plan(config("one", "match_sender"))

    def test_without_another_instance_there_is_none(self, host):
        host.apply(config("one", "required"))
        assert not (host.directory / "instances.pem").exists()

    def test_the_second_instance_shares_what_is_sent_with_and_not_what_is_received_with(self, make):
        shared = {
            "compatibility_level": "3.6", "inet_protocols": "ipv4", "mydomain": "example", "myhostname": "gw.example",
            "smtputf8_enable": "no", "maximal_queue_lifetime": "3d",
            "bounce_queue_lifetime": "2d", "minimal_backoff_time": "60s", "maximal_backoff_time": "600s",
            "queue_run_delay": "60s", "mail_owner": "mail", "setgid_group": "drop", "smtp_bind_address": "192.0.2.9",
            "smtp_bind_address6": "2001:db8::9", "smtp_helo_name": "out.example", "smtp_host_lookup": "dns",
            "smtp_dns_support_level": "dnssec", "smtp_address_preference": "ipv4", "smtp_balance_inet_protocols": "no",
            "smtp_connection_reuse_time_limit": "1s", "smtp_mx_session_limit": "1", "smtp_connect_timeout": "5s",
            "smtp_data_done_timeout": "9s", "smtp_tls_CAfile": "/etc/ssl/ca.pem", "smtp_tls_loglevel": "1",
            "smtp_header_checks": "regexp:/z", "smtp_generic_maps": "hash:/g", "smtp_sasl_auth_enable": "yes",
            "smtp_fallback_relay": "[f.example]", "tls_high_cipherlist": "HIGH", "tls_append_default_CA": "yes",
        }  # fmt: skip
        alien = {
            "smtpd_milters": "inet:127.0.0.1:8891", "virtual_alias_maps": "hash:/x", "header_checks": "regexp:/y",
            "always_bcc": "archive@example.com",
            "smtp_tls_session_cache_database": "btree:/s", "smtp_tls_session_cache_timeout": "1h", "relayhost": "[smart.example]",
            "sender_dependent_relayhost_maps": "hash:/r", "non_smtpd_milters": "x",
            "smtpd_banner": "x", "smtpd_tls_chain_files": "/k.pem", "canonical_maps": "hash:/c", "recipient_bcc_maps": "x",
            "virtual_mailbox_domains": "v.example", "fallback_transport": "x", "local_recipient_maps": "hash:/l",
            "luser_relay": "x", "relay_domains": "alpha.example, beta.example", "body_checks": "regexp:/b",
        }  # fmt: skip
        host = make(
            "message_size_limit = 1\n" + "".join(f"{name} = {value}\n" for name, value in {**shared, **alien}.items())
        )
        host.apply(config("one", "match_sender"))
        second = host.fake.explicit(host.second)
        assert second["message_size_limit"] == "1048577"  # the default instance has checked it
        assert shared.items() <= second.items()
        assert not set(alien) & set(second)

    def test_the_second_instance_routes_our_domains_alone_and_hands_the_others_back(self, make):
        host = make(
            "mydestination = gw.example\ntransport_maps = hash:/etc/postfix/transport\ndefault_transport = uucp\n"
            "relay_transport = relay\nvirtual_transport = lmtp:unix:x\nlocal_transport = cyrus\n"
        )
        host.apply(config("one", "match_sender"))
        second = host.fake.explicit(host.second)
        assert second["transport_maps"] == f"texthash:{host.directory}/transport"
        for kind in ("default", "relay", "virtual", "local"):
            assert second[f"{kind}_transport"] == "mailfleet-back:[127.0.0.1]:10126"
        back = host.services(host.second)["mailfleet-back/unix"]
        assert back[4:8] == ["n", "-", "-", "smtp"]
        assert options(back) == between.client(str(host.directory / "instances.pem"))

    def test_the_first_instance_takes_back_what_the_second_does_not_route(self, host):
        host.apply(config("one", "match_sender"))
        words = host.services(host.etc)["127.0.0.1:10126/inet"]
        assert words[:8] == ["127.0.0.1:10126", "inet", "n", "-", "y", "-", "-", "smtpd"]
        assert options(words) == between.listener(str(host.directory / "instances.pem"), "10240000")

    def test_what_a_shared_setting_refers_to_is_put_in(self, make):
        host = make("smtp_helo_name = ${outside}\noutside = out.$(mydomain)\nmydomain = one.example\n")
        host.apply(config("one", "match_sender"))
        second = host.fake.explicit(host.second)
        assert second["smtp_helo_name"] == "out.one.example"
        assert "outside" not in second
        assert host.fake.explicit()["smtp_helo_name"] == "${outside}"

    @pytest.mark.parametrize(
        ("main", "address"),
        [
            ("", None),
            ("inet_interfaces = all\n", None),
            ("inet_interfaces = loopback-only\n", None),
            ("inet_interfaces = 192.0.2.1\n", "192.0.2.1"),
            ("outside = 192.0.2.1\ninet_interfaces = $outside\n", "192.0.2.1"),
            ("inet_interfaces = 127.0.0.2\n", None),
            ("inet_interfaces = gw.example\n", None),
            ("inet_interfaces = 2001:db8::1\n", None),
            ("inet_interfaces = 192.0.2.1, 127.0.0.1\n", None),
            ("inet_interfaces = 192.0.2.1 localhost\n", None),
            ("inet_interfaces = 192.0.2.1, 192.0.2.2\n", None),
            ("inet_interfaces = 192.0.2.1\nsmtp_bind_address = 192.0.2.9\n", "192.0.2.9"),
            ("inet_interfaces = 192.0.2.1\nsmtp_bind_address =\n", ""),
        ],
    )
    def test_the_second_instance_sends_from_the_one_outside_address_of_the_first(self, make, main, address):
        host = make(main)
        host.apply(config("one", "match_sender"))
        second = host.fake.explicit(host.second)
        assert second.get("smtp_bind_address") == address
        assert second["inet_interfaces"] == "loopback-only"
        assert "smtp_bind_address" not in host.fake.explicit() or "smtp_bind_address" in main

    @pytest.mark.parametrize(
        ("smtp", "chroot"),
        [
            ("smtp unix - - n - - smtp", "n"),
            ("smtp unix - - - - - smtp", "-"),
            ("smtp unix - - y - - smtp", "y"),
            ("", "n"),
        ],
    )
    def test_chroot_is_that_of_the_gateways_own_transport(self, make, smtp, chroot):
        host = make(master=f"smtp inet n - y - - smtpd\n{smtp}\n")
        host.apply(config("one", "match_sender"))
        services = host.services(host.etc)
        ours = [name for name in services if name.startswith(("mailfleet-", "127.0.0.1:"))]
        assert len(ours) == len(MODES) + 2
        assert {services[name][4] for name in ours} == {chroot}
        assert {words[4] for words in host.services(host.second).values()} == {"n"}

    def test_our_entries_stand_first_and_the_others_stay_in_their_order(self, make):
        host = make(
            "transport_maps = hash:/a, hash:/b\nsmtpd_recipient_restrictions = permit_mynetworks, reject_unlisted_recipient\n"
            "smtpd_restriction_classes = mine\n"
        )
        host.apply(config("one", "match_sender"))
        explicit = host.fake.explicit()
        assert explicit["transport_maps"] == f"texthash:{host.directory}/transport, hash:/a, hash:/b"
        assert explicit["smtpd_recipient_restrictions"] == (
            f"check_recipient_access texthash:{host.directory}/arrival, permit_mynetworks, reject_unlisted_recipient"
        )
        ours = "mailfleet_arrival, mailfleet_enforced, mailfleet_unicode"
        assert explicit["smtpd_restriction_classes"] == f"{ours}, mine"

    def test_foreign_lines_survive(self, host):
        host.apply(config("one", "required"))
        assert host.fake.main.read_text().startswith(MAIN)
        assert host.fake.master.read_text().startswith(MASTER)

    @pytest.mark.parametrize(
        "present", ["hash:/a,hash:/b", "{ inline:{ x=y } },  hash:/a", "proxy:{ldap:/a, b}, $other"]
    )
    def test_what_stands_in_a_list_stays_to_the_letter(self, present):
        ours = gateway._first(["texthash:/x"], [], present)
        assert ours == f"texthash:/x, {present}"
        for there in (ours, "texthash:/x", f"texthash:/x {present}", f"texthash:/x,{present}"):
            assert gateway._first(["texthash:/x"], [], there) == there

    def test_an_entry_that_only_begins_like_ours_is_not_ours(self):
        assert gateway._first(["texthash:/x"], [], "texthash:/x2") == "texthash:/x, texthash:/x2"
        assert gateway._first(["texthash:/x"], [], "") == "texthash:/x"

    def test_an_entry_of_ours_that_does_not_stand_first_does_so_after_one_run(self, make):
        host = make("smtpd_restriction_classes = mine, mailfleet_arrival\n")
        host.apply(config("one", "match_sender"))
        assert host.fake.explicit()["smtpd_restriction_classes"].startswith(
            "mailfleet_arrival, mailfleet_enforced, mailfleet_unicode, mine"
        )
        assert not host.plan(config("one", "match_sender"))

    @pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in BY_ARRIVAL])
    @pytest.mark.parametrize("defaults", [DEFAULTS, NEW], ids=["3.7", "3.10"])
    def test_a_second_run_changes_nothing(self, make, mode, defaults):
        host = make("transport_maps = hash:/a\n", defaults=defaults)
        assert host.apply(config("one", mode))
        assert not host.plan(config("one", mode))

    @pytest.mark.parametrize("mode", BY_ARRIVAL)
    def test_a_second_run_changes_nothing_with_two_instances(self, make, mode):
        host = make("relayhost = [smart.example]\ninet_interfaces = 192.0.2.1\nsmtp_helo_name = $myhostname\n")
        assert host.apply(config("one", mode))
        before = {path: path.read_bytes() for path in host.root.rglob("*") if path.is_file()}
        assert not host.plan(config("one", mode))
        assert not host.apply(config("one", mode))
        assert {path: path.read_bytes() for path in host.root.rglob("*") if path.is_file()} == before
        returns = [line for line in host.fake.master.read_text().splitlines() if line.startswith("127.0.0.1:10126 ")]
        assert len(returns) == 1

    @pytest.mark.parametrize(
        ("main", "defaults"),
        [("unknown_local_recipient_reject_code = 550\n", DEFAULTS), ("", NEW)],
        ids=["a setting after transport_maps", "3.10"],
    )
    def test_a_second_run_changes_nothing_with_two_instances_whatever_main_cf_says(self, make, main, defaults):
        host = make(main, defaults=defaults)
        host.apply(config("one", "match_sender"))
        assert [image.path for image in host.plan(config("one", "match_sender")).after] == []

    @pytest.mark.parametrize("defaults", [NEW, DEFAULTS])
    def test_the_header_that_turns_tls_off_is_not_obeyed_by_postfix_3_10_nor_after_an_upgrade_to_it(
        self, make, defaults
    ):
        host = make(defaults=defaults)
        host.apply(config("one", "match_sender"))
        assert host.fake.explicit()["tls_required_enable"] == "no"
        assert host.fake.explicit(host.second)["tls_required_enable"] == "no"

    def test_an_older_postfix_does_not_warn_of_a_setting_that_it_does_not_know(self, host):
        """It takes one for known that an option of master.cf names."""
        host.apply(config("one", "match_sender"))
        for place in (host.etc, host.second):
            assert "smtp_fallback_relay=${tls_required_enable?}" in host.services(place)["mailfleet-match_sender/unix"]

    def test_a_second_instance_that_is_there_stays_in_use(self, host):
        host.apply(config("one", "match_sender"))
        change = host.apply(config("one", "plaintext"))
        assert sorted(Path(image.path).name for image in change.after) == ["arrival", "gateway.json", "transport"]
        assert host.second.exists()
        assert (host.directory / "arrival").read_text().count("\n") == 1

    def test_a_mode_change_touches_its_tables_only(self, host):
        host.apply(config("one", "plaintext"))
        change = host.apply(config("one", "required"))
        assert sorted(Path(image.path).name for image in change.after) == ["gateway.json", "transport"]

    def test_a_record_of_a_former_version_is_no_reason_for_a_change(self, host):
        host.apply(config("one", "match_sender"))
        record = host.directory / "gateway.json"
        make_former(record)
        again = host.plan(config("one", "match_sender"))
        assert not again and again.after == ()
        host.apply(config("one", "required"))
        assert format_in(record) == FORMAT

    def test_a_record_of_a_newer_version_is_refused(self, host):
        host.apply(config("one", "match_sender"))
        make_newer(host.directory / "gateway.json")
        with pytest.raises(EngineError, match=r"gateway\.json was written by a newer mailfleet\.starttls"):
            host.adapter.read()

    def test_email_configs_that_all_went_leave_empty_tables(self, host):
        host.apply(config("one", "plaintext"))
        assert host.apply()
        assert host.adapter.read() == GatewayState()
        assert not host.plan()


class TestFilters:
    FILTER = "smtp:[127.0.0.1]:10024"

    @pytest.mark.parametrize("setting", ["content_filter", "smtpd_proxy_filter"])
    @pytest.mark.parametrize("mode", BY_ARRIVAL)
    def test_a_filter_is_refused_for_modes_that_depend_on_arrival(self, make, mode, setting):
        step = {
            "content_filter": "give the filter a second port on 127.0.0.1 that hands mail back to 127.0.0.1:10128, and name it in "
            "tls_filter (starttls_tls_filter in an inventory)",
            "smtpd_proxy_filter": "make it a content_filter of main.cf or a milter",
        }[setting]
        host = make(f"{setting} = {self.FILTER}\n")
        with pytest.raises(EngineError) as error:
            host.plan(config("one", mode))
        assert str(error.value) == (
            f"main.cf sets {setting}={self.FILTER}, which cannot be combined with a mode that depends on how mail "
            f"arrived: mail that arrived over TLS would bypass it, or count as mail in plaintext; {step}, or choose "
            "plaintext, opportunistic or required on this gateway"
        )

    @pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in BY_ARRIVAL])
    def test_the_other_modes_are_fine_with_filters_and_restrictions(self, make, mode):
        master = (
            f"smtp inet n - y - - smtpd\n  -o content_filter={self.FILTER}\n  -o smtpd_recipient_restrictions=reject\n"
        )
        host = make(f"content_filter = {self.FILTER}\n", master=master)
        assert host.apply(config("one", mode))

    def test_one_email_config_that_depends_on_arrival_is_enough(self, make):
        host = make(f"content_filter = {self.FILTER}\n")
        with pytest.raises(EngineError, match="would bypass"):
            host.plan(config("one", "required"), config("two", "match_sender"))

    @pytest.mark.parametrize(
        "service", ["smtp inet", "25 inet", "0.0.0.0:25 inet", "192.0.2.1:smtp inet", "smtpd pass"]
    )
    def test_a_filter_on_what_takes_the_mail_is_refused(self, make, service):
        host = make(master=f"{MASTER}{service} n - y - - smtpd\n  -o content_filter={self.FILTER}\n")
        with pytest.raises(EngineError, match="^" + re.escape(f"{service.replace(' ', '/')} sets content_filter=")):
            host.plan(config("one", "match_sender"))

    @pytest.mark.parametrize("service", ["smtp inet", "0.0.0.0:25 inet", "smtpd pass"])
    def test_restrictions_of_a_listeners_own_are_refused(self, make, service):
        master = f"{MASTER}{service} n - y - - smtpd\n  -o smtpd_recipient_restrictions=permit_mynetworks,reject\n"
        host = make(master=master)
        name = service.replace(" ", "/")
        with pytest.raises(EngineError) as error:
            host.plan(config("one", "match_sender"))
        assert str(error.value) == (
            f"master.cf sets smtpd_recipient_restrictions for {name}, so the collection could not see how mail arrives there; "
            f"remove it first: postconf -PX '{name}/smtpd_recipient_restrictions'"
        )

    def test_restrictions_that_are_empty_are_an_override_as_well(self, make):
        host = make(master="smtp inet n - y - - smtpd\n  -o smtpd_recipient_restrictions=\n")
        with pytest.raises(EngineError, match="smtpd_recipient_restrictions for smtp/inet"):
            host.plan(config("one", "match_sender"))

    def test_the_listener_is_the_one_of_the_gateways_own_port(self, host):
        host.fake.master.write_text(
            f"smtp inet n - y - - smtpd\n2525 inet n - y - - smtpd\n  -o content_filter={self.FILTER}\n"
        )
        assert host.plan(config("one", "match_sender"))
        host.adapter = gateway.PostfixGateway(host.fake, SETTINGS, Target("127.0.0.1", 2525), 10125, host.layout)
        with pytest.raises(EngineError, match=r"^2525/inet sets content_filter="):
            host.plan(config("one", "match_sender"))

    @pytest.mark.parametrize("service", ["submission inet", "127.0.0.1:10025 inet", "smtp unix"])
    def test_other_services_may_have_them(self, make, service):
        options = f"  -o content_filter={self.FILTER}\n  -o smtpd_recipient_restrictions=permit_mynetworks,reject\n"
        host = make(master=f"smtp inet n - y - - smtpd\n{service} n - y - - smtpd\n{options}")
        assert host.apply(config("one", "match_sender"))

    def test_a_filter_that_is_switched_off_is_none(self, make):
        host = make("content_filter =\n", master="smtp inet n - y - - smtpd\n  -o content_filter=\n")
        assert host.apply(config("one", "match_sender"))

    def test_our_own_return_listener_is_not_in_the_way_of_the_next_run(self, host):
        host.apply(config("one", "match_sender"))
        overrides = Postconf(host.fake, str(host.etc)).overrides("smtpd_recipient_restrictions")
        assert overrides == {"127.0.0.1:10126/inet": ""}
        assert host.apply(config("one", "match_sender_strict"))


class TestRead:
    def test_nothing_yet(self, host):
        assert host.adapter.read() == GatewayState()

    def test_what_was_written(self, host):
        configs = (config("one", "required", servers=["[2001:db8::1]:26"]), config("two", "plaintext"))
        host.apply(*configs)
        assert host.adapter.read() == state(*configs)
        assert host.adapter.read([{"name": "other"}]) == state(*configs)

    @pytest.mark.parametrize("content", [b"{", b"\xff", b"[1]", b'[{"name": "x"}]'])
    def test_junk_names_the_file(self, host, content):
        host.directory.mkdir()
        (host.directory / "gateway.json").write_bytes(content)
        with pytest.raises(EngineError, match=r"gateway\.json cannot be read .*it is written by this collection only"):
            host.adapter.read()


class TestRunning:
    def test_a_postfix_that_does_not_run_is_said(self, host):
        host.running.clear()
        with pytest.raises(NotRunningError, match="Postfix is not running"):
            host.adapter.require_running()

    @pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.GREETING])
    def test_an_own_port_that_does_not_answer_is_said_before_anything_changes(self, host, stage):
        host.ports[25] = stage
        answer = "cannot connect" if not stage else ""
        with pytest.raises(EngineError) as error:
            host.adapter.require_running()
        assert str(error.value) == (
            f"the gateway does not answer on 127.0.0.1:25 ({answer}); name the address and port it listens on, because "
            "a change that cannot be proved is not made"
        )
        assert host.tested == ["127.0.0.1:25"]

    @pytest.mark.parametrize("there", [(), ("second",), ("second", "third")])
    def test_the_own_port_has_to_answer_with_other_instances_as_well(self, host, there):
        for name in there:
            getattr(host, name).mkdir()
        with pytest.raises(EngineError, match=r"does not answer on 127\.0\.0\.1:25 \(cannot connect\)"):
            host.adapter.require_running()

    @pytest.mark.parametrize("port", [10125, 10126, 10127])
    def test_a_port_that_is_taken_is_said(self, host, port):
        host.ports.update({25: Stage.EHLO, port: Stage.GREETING})
        with pytest.raises(
            EngineError,
            match=rf"another service answers on 127\.0\.0\.1:{port}; name a free port with reinjection_port",
        ):
            host.adapter.require_running()

    @pytest.mark.parametrize(
        ("there", "asked"),
        [
            ((), [10126, 10125, 10127]),
            (("second",), [10127]),
            (("third",), [10125]),
            (("second", "third"), []),
        ],
    )
    def test_the_ports_of_our_own_instances_are_not_asked(self, host, there, asked):
        host.ports[25] = Stage.EHLO
        for name in there:
            getattr(host, name).mkdir()
            host.running.add({"second": SECOND_QUEUE, "third": THIRD_QUEUE}[name])
        host.adapter.require_running()
        assert host.tested == ["127.0.0.1:25", *(f"127.0.0.1:{port}" for port in asked)]
        host.ports.update(dict.fromkeys({10125, 10126, 10127} - set(asked), Stage.EHLO))
        host.adapter.require_running()

    def test_the_port_of_the_third_instance_has_to_be_free_when_the_second_is_there(self, host):
        host.second.mkdir()
        host.running.add(SECOND_QUEUE)
        host.ports.update({25: Stage.EHLO, 10125: Stage.EHLO, 10126: Stage.EHLO, 10127: Stage.GREETING})
        with pytest.raises(EngineError, match=r"another service answers on 127\.0\.0\.1:10127"):
            host.adapter.require_running()

    def test_the_port_of_an_instance_that_is_there_and_does_not_run_has_to_be_free(self, host):
        """Somebody has stopped it, and its port was taken since: it could not be started."""
        host.second.mkdir()
        host.ports.update({25: Stage.EHLO, 10125: Stage.GREETING, 10126: Stage.EHLO})
        with pytest.raises(PortInUseError, match=r"another service answers on 127\.0\.0\.1:10125"):
            host.adapter.require_running()

    @pytest.mark.parametrize("port", [10125, 10126, 10127])
    def test_a_port_taken_by_something_that_is_no_mail_server_is_said(self, host, port):
        host.ports[25] = Stage.EHLO
        host.ports[port] = Handshake(
            Target("127.0.0.1", port), Stage.CONNECT, "not_smtp", "not an SMTP reply: 'HTTP/1.1 400'"
        )
        with pytest.raises(EngineError, match=f"another service answers on 127.0.0.1:{port}"):
            host.adapter.require_running()

    def test_the_own_port_has_to_answer(self, host):
        with pytest.raises(
            EngineError, match=r"the gateway does not answer on 127\.0\.0\.1:25 after the change: cannot connect"
        ):
            host.adapter.prove()

    def test_one_instance_is_proved_by_one_port(self, host):
        host.ports[25] = Stage.EHLO
        host.adapter.prove()
        assert host.tested == ["127.0.0.1:25"]

    @pytest.mark.parametrize(
        ("stage", "serves"),
        [(Stage.CONNECT, False), (Stage.GREETING, False), (Stage.EHLO, True), (Stage.EHLO_TLS, True)],
    )
    def test_it_serves_if_its_port_takes_mail(self, host, stage, serves):
        host.ports[25] = stage
        assert host.adapter.serves() is serves
        assert host.tested == ["127.0.0.1:25"]

    @pytest.mark.parametrize("silent", [25, 10125, 10126])
    def test_with_two_instances_it_serves_if_all_ports_take_mail(self, host, silent):
        host.apply(config("one", "match_sender"))
        host.ports = dict.fromkeys((25, 10125, 10126), Stage.EHLO)
        assert host.adapter.serves() is True
        host.ports[silent] = Stage.CONNECT
        assert host.adapter.serves() is False

    @pytest.mark.parametrize("silent", [25, 10125, 10126, 10127])
    def test_with_three_instances_all_ports_count(self, host, silent):
        host.apply(enforced=inbound("partner.example"))
        host.ports = dict.fromkeys((25, 10125, 10126, 10127), Stage.EHLO)
        assert host.adapter.serves() is True
        assert host.tested == [f"127.0.0.1:{port}" for port in (25, 10125, 10127, 10126)]
        host.ports[silent] = Stage.CONNECT
        assert host.adapter.serves() is False
        with pytest.raises(EngineError, match=rf"does not answer on 127\.0\.0\.1:{silent} after the change"):
            host.adapter.prove()

    @pytest.mark.parametrize("silent", [25, 10125, 10126])
    def test_both_instances_have_to_answer(self, host, silent):
        host.ports = dict.fromkeys((25, 10125, 10126), Stage.EHLO_TLS)
        host.apply(config("one", "match_sender"))
        with answering(host):
            host.adapter.prove()
        assert host.tested == [str(host.adapter.own_port), "127.0.0.1:10125", "127.0.0.1:10126"]
        host.adapter.own_port = OWN_PORT
        host.ports[silent] = Stage.CONNECT
        with pytest.raises(EngineError, match=rf"does not answer on 127\.0\.0\.1:{silent} after the change"):
            host.adapter.prove()


class TestPolicyProof:
    @pytest.fixture
    def host(self, host):
        host.apply(config("one", "required"), config("two", "match_sender", "b.example", "a.example"))
        host.ports.update({10125: Stage.EHLO, 10126: Stage.EHLO})
        return host

    @pytest.mark.parametrize(
        "reply",
        [
            b"250 2.1.5 Ok",
            b"554 5.7.1 denied",
            b"451 4.7.1 Greylisting in action",
            b"450 4.3.5 x",
            b"530 5.7.0 STARTTLS",
        ],
    )
    def test_the_policy_is_asked_for_a_recipient_whose_mode_depends_on_arrival(self, host, reply):
        with answering(host, reply) as commands:
            host.adapter.prove()
        assert commands[0].lower().startswith("ehlo ")
        assert [command.lower() for command in commands[1:3]] == ["mail from:<>", "rcpt to:<postmaster@b.example>"]
        assert "DATA" not in map(str.upper, commands)

    def test_a_policy_service_that_fails_is_said(self, host):
        reply = b"451 4.3.5 <postmaster@b.example>: Recipient address rejected: \x1bServer configuration"
        with answering(host, reply), pytest.raises(EngineError) as error:
            host.adapter.prove()
        assert str(error.value) == (
            "the gateway defers mail for postmaster@b.example: 451 4.3.5 <postmaster@b.example>: Recipient address rejected: "
            "\\x1bServer configuration"
        )

    @pytest.mark.parametrize(
        "answers", [{"rcpt": b""}, {"greeting": b"554 no"}], ids=["closed at the recipient", "a refusing greeting"]
    )
    def test_a_gateway_that_hangs_up_is_said(self, host, answers):
        said = r"^the gateway does not take postmaster@b\.example: "
        with answering(host, **answers), pytest.raises(EngineError, match=said):
            host.adapter.prove()

    def test_a_port_that_nobody_listens_on_is_said(self, host):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        host.ports[port] = Stage.EHLO
        host.adapter.own_port = Target("127.0.0.1", port)
        with pytest.raises(EngineError, match=r"^the gateway does not take postmaster@b\.example: .*refused"):
            host.adapter.prove()

    def test_nothing_is_asked_when_no_mode_depends_on_arrival(self, host, monkeypatch):
        host.apply(config("one", "required"), config("two", "plaintext", "b.example", "a.example"))
        monkeypatch.setattr(own_port.smtplib, "SMTP", lambda *_args, **_options: pytest.fail("asked"))
        host.ports[25] = Stage.EHLO
        host.adapter.prove()


class TestCommands:
    UNITS = ("postfix@mailfleet.service", "postfix@mailfleet_enforced.service")

    def checked(self, host):
        return [call[2] for call in host.fake.called("postfix") if call[3] == "check-fatal"]

    @pytest.fixture
    def made(self, host, monkeypatch):
        made = []
        monkeypatch.setattr(host.adapter, "_make_places", lambda instance: made.append(instance.name))
        return made

    def test_an_instance_is_checked_once_after_its_files_changed(self, host, made):
        host.plan(config("one", "plaintext"))
        host.adapter.check()
        assert self.checked(host) == []
        host.apply(config("one", "plaintext"))
        host.adapter.check()
        host.adapter.check()
        assert self.checked(host) == [str(host.etc)]
        host.apply(config("one", "opportunistic"))  # another table, the same main.cf
        host.adapter.check()
        assert (self.checked(host), made) == ([str(host.etc)], [])

    def test_files_that_nobody_has_read_before_are_checked(self, host):
        host.adapter.check()
        assert self.checked(host) == [str(host.etc)]

    @pytest.mark.parametrize("third", [False, True])
    def test_an_instance_that_does_not_run_is_checked_by_its_start(self, host, made, third):
        more = {"enforced": inbound("partner.example") if third else ()}
        host.apply(config("one", "match_sender"), **more)
        host.adapter.check()
        assert made == ["postfix-mailfleet", "postfix-mailfleet_enforced"][: third + 1]
        assert self.checked(host) == [str(host.etc)]
        host.adapter.reload()
        host.running.update({"/var/spool/postfix-mailfleet", "/var/spool/postfix-mailfleet_enforced"})
        host.adapter.check()
        assert self.checked(host) == [str(host.etc)]  # the start has checked them
        host.apply(config("one", "match_sender"), outbound=OutboundTls(send="match_sender"), **more)
        host.adapter.check()
        assert self.checked(host) == [str(host.etc), *map(str, [host.second, host.third][: third + 1]), str(host.etc)]

    def test_a_check_that_fails_is_said(self, host, made):
        host.apply(config("one", "match_sender"))
        host.fake.answers[("postfix", "-c", str(host.etc), "check-fatal")] = (1, "", "")
        host.fake.answers[("postfix", "-c", str(host.etc), "check")] = (1, "", "fatal: no\n")
        with pytest.raises(EngineError, match=rf"^postfix -c {host.etc} check refuses the change: fatal: no$"):
            host.adapter.check()
        host.fake.main.write_text(host.fake.main.read_text() + "no equals sign\n")
        host.fake.answers[("postconf", "-c", str(host.etc))] = (1, "", "postconf: fatal: /x, line 9: missing '='\n")
        with pytest.raises(BrokenConfigurationError, match="missing '='"):
            host.adapter.check()

    def test_a_run_without_a_change_starts_four_programs(self, host):
        wanted = state(config("one", "match_sender"), enforced=inbound("partner.example"))
        host.apply(*wanted.email_configs.values(), enforced=wanted.enforced)
        host.ports = dict.fromkeys((25, 10125, 10126, 10127), Stage.EHLO)
        adapter = gateway.PostfixGateway(host.fake, SETTINGS, OWN_PORT, 10125, host.layout)
        host.running |= {SECOND_QUEUE, THIRD_QUEUE}
        host.fake.calls.clear()
        adapter.require_running()
        assert adapter.read() == wanted
        assert not adapter.plan(wanted)
        assert adapter.serves()
        assert (adapter.version(), len(adapter.observe()["listeners"])) == ("3.7.11", 2)
        assert set(adapter.files()) >= {
            str(host.fake.main),
            str(host.third / "main.cf"),
            f"{host.directory}/gateway.json",
        }
        adapter.left()
        assert sorted(call[3:] for call in host.fake.calls) == [[], ["-M"], ["-n"], ["-x"]]

    def test_the_first_change_starts_few_programs(self, host, made, tmp_path):
        """The programs that the collection itself starts; a start and a check start more of their own."""
        wanted = state(config("one", "match_sender"))
        host.adapter.prove = lambda: [host.running.add("/var/spool/postfix-mailfleet"), host.enable([self.UNITS[0]])]
        host.fake.calls.clear()
        with host.adapter.transaction(str(tmp_path / "store")).locked() as transaction:
            for plan in (host.adapter.prepare, host.adapter.plan):
                transaction.apply(plan(wanted), host.adapter.prove, host.adapter.prove)
        assert [call for call in host.fake.calls if call[0] != "postconf"] == [
            [*default(host), "check-fatal"],
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", "--quiet", self.UNITS[0]],
            ["systemctl", "start", self.UNITS[0]],
            [*default(host), "reload"],
            ["postfix", "-c", str(host.second), "reload"],
            [*default(host), "reload"],
        ]
        assert (
            len(host.fake.called("postconf")) == 4 + 1 + 4 + 1
        )  # read, edit on a copy, read again, and before the second reload

    def test_the_places_of_an_instance_are_made(self, host, monkeypatch):
        owners = {}
        monkeypatch.setattr(gateway, "Path", lambda path, *more: Path(f"{host.root}{path}", *more))
        monkeypatch.setattr(gateway.shutil, "chown", lambda path, owner: owners.update({path: owner}))
        monkeypatch.setattr(gateway.pwd, "getpwnam", lambda name: pwd.getpwuid(1))
        for name in ("var/spool", "var/lib"):
            (host.root / name).mkdir(parents=True)
        before = os.umask(0o077)
        names = ("postfix-mailfleet", "postfix-mailfleet_enforced")
        try:
            for instance in host.adapter._instances:
                host.adapter._make_places(instance)
                host.adapter._make_places(instance)
        finally:
            os.umask(before)
        for name in names:
            for place, owner in (("spool", "root"), ("lib", "postfix")):
                made = host.root / f"var/{place}/{name}"
                assert made.is_dir()
                assert made.stat().st_mode & 0o777 == 0o755
                assert owners.pop(f"/var/{place}/{name}") == owner
        assert owners == {}

    def test_the_policy_service_has_a_user_of_its_own(self, host, monkeypatch):
        users, calls = {}, []

        def useradd(*command):
            calls.append(command)
            users[command[-1]] = pwd.getpwuid(1)

        monkeypatch.setattr(gateway.pwd, "getpwnam", users.__getitem__)
        monkeypatch.setattr(host.adapter, "_call", useradd)
        host.adapter._make_policy_user()
        host.adapter._make_policy_user()
        assert [(one[0], one[-1]) for one in calls] == [("useradd", "mailfleet-starttls")]
        users["mailfleet-starttls"] = pwd.getpwuid(0)
        with pytest.raises(EngineError, match="the user mailfleet-starttls has the user ID 0"):
            host.adapter._make_policy_user()

    def test_reload_starts_the_instances_now_and_after_each_boot(self, host):
        host.apply(config("one", "match_sender"), enforced=inbound("partner.example"), enabled=False)
        host.fake.calls.clear()
        host.adapter.reload()
        assert [call for call in host.fake.calls if call[0] != "postconf"] == [
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", "--quiet", *self.UNITS],
            *(["systemctl", "start", unit] for unit in self.UNITS),
            [*default(host), "reload"],
        ]

    @pytest.mark.parametrize("more", [{}, {"outbound": OutboundTls(send="match_sender")}])
    def test_an_instance_has_what_postfix_upgrade_configuration_would_add(self, host, more):
        """These are the patterns by which post-install of Postfix looks whether an entry is missing."""
        host.apply(config("one", "match_sender"), **more)
        text = (host.second / "master.cf").read_text()
        for pattern in ("^relay", "^#*smtp.*postscreen", "^#*smtpd.*smtpd", "^#*dnsblog.*dnsblog", "^postlog"):
            assert len(re.findall(rf"(?m){pattern}", text)) == 1, pattern
        assert "inet_protocols = all\n" in (host.second / "main.cf").read_text()

    def test_the_units_are_the_same_on_every_release(self, host):
        host.apply(config("one", "match_sender"))
        text = (host.units / self.UNITS[0]).read_text()
        assert f"Environment=MAIL_CONFIG={host.second}\n" in text
        assert "WantedBy=multi-user.target postfix.service\n" in text
        off = (host.units / "postfix@postfix-mailfleet.service.d/mailfleet.conf").read_text()
        assert off.endswith(f"\n[Unit]\nConditionPathExists=!{host.units}/{self.UNITS[0]}\n")

    def test_an_instance_that_nothing_starts_at_the_next_boot_is_enabled_again_without_a_restart(self, host):
        host.apply(config("one", "match_sender"), enabled=False)
        host.running.add(SECOND_QUEUE)
        host.ports = dict.fromkeys((25, 10125, 10126), Stage.EHLO)
        assert not host.adapter.serves()
        host.fake.calls.clear()
        host.adapter.reload()
        assert host.fake.called("systemctl") == [
            ["systemctl", "daemon-reload"], ["systemctl", "enable", "--quiet", self.UNITS[0]],
        ]  # fmt: skip
        host.enable([self.UNITS[0]])
        assert host.adapter.serves()

    @pytest.mark.parametrize(
        ("unit", "stop"),
        [
            (
                "postfix@postfix-mailfleet.service",
                ["systemctl", "--quiet", "stop", "postfix@postfix-mailfleet.service"],
            ),
            ("postfix.service", None),  # Postfix's own start brings up all instances there, so it must not be stopped
        ],
    )
    def test_an_instance_of_another_unit_is_taken_over_and_its_mail_tried_again(self, host, unit, stop):
        host.apply(config("one", "match_sender"), enabled=False)
        host.running.add(SECOND_QUEUE)
        host.runs_in[SECOND_QUEUE] = unit
        host.fake.calls.clear()
        host.adapter.reload()
        assert [call for call in host.fake.calls if call[0] != "postconf"] == [
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", "--quiet", self.UNITS[0]],
            stop or ["postfix", "-c", str(host.second), "stop"],
            ["systemctl", "start", self.UNITS[0]],
            [*default(host), "reload"],
            ["postqueue", "-c", str(host.etc), "-f"],
        ]

    @pytest.mark.parametrize("release", [12, 13])
    def test_a_change_that_is_undone_to_what_an_earlier_version_wrote_starts_its_unit(self, host, release):
        host.apply(config("one", "match_sender"))
        (host.units / self.UNITS[0]).unlink()
        host.fake.answers[("systemctl", "start", "postfix@postfix-mailfleet.service")] = (release == 13, "", "")
        host.fake.calls.clear()
        host.adapter.reload()
        units = [call[-1] for call in host.fake.called("systemctl", "start")]
        assert units == ["postfix@postfix-mailfleet.service", self.UNITS[0]][: release - 11]
        assert not host.fake.called("systemctl", "enable")

    def test_a_platform_without_systemd_gets_no_other_instance(self, host):
        host.adapter._layout = replace(host.layout, platform="FreeBSD", unit="postfix")
        with pytest.raises(
            EngineError, match=r"a unit of systemd, and FreeBSD has none; take plaintext, opportunistic or required as"
        ):
            host.plan(config("one", "match_sender"))
        with pytest.raises(EngineError, match="FreeBSD has none"):
            host.plan(enforced=inbound("partner.example"))
        assert host.plan(config("one", "required"))

    def test_a_masked_unit_is_refused_by_name(self, host):
        host.apply(config("one", "match_sender"))
        (host.units / self.UNITS[0]).unlink()
        (host.units / self.UNITS[0]).symlink_to("/dev/null")
        with pytest.raises(
            EngineError, match=r"^the unit postfix@mailfleet\.service is masked; allow it: systemctl unmask "
        ):
            host.plan(config("one", "match_sender"))

    def test_an_instance_that_runs_is_reloaded_alone_and_before_the_default_one(self, host):
        host.apply(config("one", "match_sender"), enforced=inbound("partner.example"))
        host.running.add("/var/spool/postfix-mailfleet_enforced")
        host.fake.calls.clear()
        host.adapter.reload()
        assert host.fake.called("systemctl", "start") == [["systemctl", "start", self.UNITS[0]]]
        assert [call[2:] for call in host.fake.called("postfix")] == [
            [str(host.third), "reload"], [str(host.etc), "reload"],
        ]  # fmt: skip

    @pytest.mark.parametrize("main", ["", "multi_instance_directories = /etc/postfix-other\n"])
    @pytest.mark.parametrize("call", ["reload", "resume"])
    def test_reload_stops_instances_that_the_files_do_not_list(self, make, call, main):
        host = make(main)
        host.enable(self.UNITS)
        host.fake.answers[("systemctl", "--quiet")] = (5, "", "Unit postfix@postfix-mailfleet.service not loaded.\n")
        getattr(host.adapter, call)()
        commands = [one for one in host.fake.calls if one[0] != "postconf"]
        names = ("mailfleet", "postfix-mailfleet", "mailfleet_enforced", "postfix-mailfleet_enforced")
        assert commands == [
            *(
                ["systemctl", "--quiet", verb, f"postfix@{name}.service"]
                for name in names
                for verb in ("stop", "disable", "reset-failed")
            ),
            ["systemctl", "daemon-reload"],
            [*default(host), "reload"],
        ]
        assert not any(one.has_left_overs for one in host.adapter._instances)
        assert not list(host.units.iterdir())

    @pytest.mark.parametrize(
        "place",
        ["var/lib/postfix-mailfleet", "etc/systemd/system/a.wants/postfix@mailfleet.service",
         "etc/systemd/system/a.wants/postfix@postfix-mailfleet.service"],
    )  # fmt: skip
    def test_what_tells_that_an_instance_was_there(self, host, monkeypatch, place):
        monkeypatch.setattr(instances, "UNITS", "/etc/systemd/system")
        monkeypatch.setattr(instances, "Path", lambda path, *more: Path(f"{host.root}{path}", *more))
        assert not any(one.has_left_overs for one in host.adapter._instances)
        (host.root / place).mkdir(parents=True)
        assert [one.has_left_overs for one in host.adapter._instances] == [True, False]

    def test_an_instance_that_was_never_there_need_not_be_stopped(self, host):
        host.adapter.reload()
        assert [call for call in host.fake.calls if call[0] != "postconf"] == [[*default(host), "reload"]]

    def test_an_instance_that_is_listed_among_others_runs_and_the_other_does_not(self, make):
        host = make("multi_instance_directories = /etc/postfix-other\n")
        host.apply(config("one", "match_sender"))
        host.fake.calls.clear()
        host.adapter.reload()
        assert host.fake.explicit()["multi_instance_directories"] == f"{host.second} /etc/postfix-other"
        assert host.fake.called("systemctl", "start") == [["systemctl", "start", self.UNITS[0]]]

    def test_commas_between_instances_go_because_systemd_would_not_start_the_first(self, make):
        host = make("multi_instance_directories = /etc/postfix-a, /etc/postfix-b,/etc/postfix-c\n")
        host.apply(config("one", "match_sender"))
        listed = f"{host.second} /etc/postfix-a /etc/postfix-b /etc/postfix-c"
        assert host.fake.explicit()["multi_instance_directories"] == listed

    def test_a_reload_that_fails_is_said(self, host):
        host.fake.answers[(*default(host), "reload")] = (1, "", "fatal: x\n")
        with pytest.raises(EngineError, match=r"^postfix reload failed: fatal: x$"):
            host.adapter.reload()

    @pytest.mark.parametrize("there", [True, False])
    def test_the_policy_runs_on_the_systems_python_when_there_is_one(self, host, monkeypatch, there):
        monkeypatch.setattr(gateway, "Path", lambda path: Path(f"{host.root}{path}"))
        (host.root / "usr/bin").mkdir(parents=True)
        if there:
            (host.root / "usr/bin/python3").touch()
        assert gateway._python() == ("/usr/bin/python3" if there else sys.executable)

    def test_a_unit_that_does_not_start_is_said(self, host):
        host.apply(config("one", "match_sender"))
        host.fake.answers[("systemctl", "start")] = (1, "", "Job failed.\n")
        with pytest.raises(EngineError, match=r"^systemctl start postfix@mailfleet\.service failed: Job failed\.$"):
            host.adapter.reload()
        host.fake.answers[("postfix", "-c", str(host.second))] = (1, "", "fatal: its reason\n")
        with pytest.raises(EngineError, match=r"check refuses the change: fatal: its reason$"):
            host.adapter.reload()


def test_the_adapter_says_what_it_can():
    assert gateway.PostfixGateway.modes == MODES
    assert gateway.PostfixGateway.name == server.Postfix.name == "postfix"  # one lock and one journal


def test_the_domains_are_those_of_the_default_instance(host):
    host.fake.defaults["virtual_mailbox_domains"] = "v.example"
    assert host.adapter.accepts(["alpha.example", "v.example", "x.example"]) == {
        "alpha.example": True, "v.example": True, "x.example": False,
    }  # fmt: skip


def test_the_files_that_a_change_depends_on(host):
    change = host.plan(config("one", "match_sender"), enforced=[outbound("b.example", "trusted_chain", "mx.example")])
    assert {image.path for image in change.after} <= set(host.adapter.files())
    assert {str(host.etc / "main.cf"), str(host.etc / "master.cf")} <= set(host.adapter.files())


@pytest.mark.parametrize("port", [10125, 10126, 10127])
def test_a_port_in_use_is_an_error_of_its_own(host, monkeypatch, port):
    monkeypatch.setattr(host.adapter._postfix, "require_running", lambda: None)
    host.ports = {25: Stage.EHLO, port: Stage.GREETING}
    with pytest.raises(PortInUseError, match=f"another service answers on 127.0.0.1:{port}; name a free port"):
        host.adapter.require_running()


class TestWithStarttls:
    """STARTTLS of the own port and the modes are changes of the same main.cf, in one call."""

    @pytest.fixture
    def call(self, host, monkeypatch):
        monkeypatch.setattr(host.adapter._postfix, "require_running", lambda: None)
        monkeypatch.setattr(gateway_engine, "PATIENCE", 0.0)
        monkeypatch.setattr(evidence, "handshake_all", lambda targets, _settings: [
            Handshake(one, Stage.EHLO_TLS, requires_tls=False) for one in targets
        ])  # fmt: skip
        host.ports = {25: Stage.EHLO}
        host.proved = []

        def opening():
            edits = Edits({"smtpd_tls_security_level": "may"})
            change = Change.of(Postconf(host.fake, str(host.etc)).images(edits))
            host.adapter.transaction(str(host.root / "store")).apply(change, lambda: None, lambda: None, hold=True)
            return Opening(change, lambda: host.proved.append("on"), lambda: host.proved.append("off"))

        def call(mode="required"):
            wanted = {"name": "one", "domains": ["alpha.example"], "servers": ["mx.example"], "delivery_mode": mode}
            return set_gateway(
                host.adapter, [Modes([wanted])], SETTINGS, store=str(host.root / "store"), opening=opening
            )

        return call

    def test_both_are_in_main_cf(self, host, call):
        assert call().changed
        explicit = host.fake.explicit()
        assert explicit["smtpd_tls_security_level"] == "may"
        assert explicit["transport_maps"] == f"texthash:{host.directory}/transport"

    def test_a_failure_takes_both_back(self, host, call, monkeypatch):
        before = host.fake.main.read_bytes(), host.fake.master.read_bytes()
        prove = host.adapter.prove

        def fail():
            prove()
            if host.directory.exists():
                raise EngineError("no good")

        monkeypatch.setattr(host.adapter, "prove", fail)
        with pytest.raises(TransactionError, match=r"^no good\. The former state is restored and proved$"):
            call()
        assert (host.fake.main.read_bytes(), host.fake.master.read_bytes()) == before
        assert (host.directory.exists(), host.proved) == (False, ["off"])
        assert not (host.root / "store/postfix.journal").exists()

    def test_a_mode_that_is_refused_takes_starttls_back(self, host, call, monkeypatch):
        before = host.fake.main.read_bytes()
        monkeypatch.setattr(evidence, "handshake_all", lambda targets, _settings: [
            Handshake(one, Stage.EHLO, "starttls_not_offered", "it offers no STARTTLS") for one in targets
        ])  # fmt: skip
        with pytest.raises(TransactionError, match=r"it offers no STARTTLS.*The former state is restored and proved"):
            call()
        assert (host.fake.main.read_bytes(), host.proved) == (before, ["off"])


@pytest.mark.parametrize("name", ["main.cf", "master.cf"])
def test_what_somebody_writes_after_the_plan_is_not_lost(host, tmp_path, name):
    wanted = state(config("one", "required"))
    host.ports[25] = Stage.EHLO
    before = (host.etc / name).read_text()
    edited_meanwhile(host.adapter, host.etc / name, "# by hand\n")
    transaction = host.adapter.transaction(str(tmp_path / "store"))
    with transaction.locked(), pytest.raises(EngineError, match=f"{host.etc / name} changed while"):
        change_within(transaction, host.adapter, lambda _before: wanted, lambda *_: GatewayVerdict())
    assert (host.etc / name).read_text() == before + "# by hand\n"


class TestExemptions:
    """A content filter on the gateway's own host, which the level towards the internet is not for."""

    def test_they_go_when_the_gateway_does_not_require_tls_any_more(self, make, tmp_path):
        host = make(
            "relayhost = [relay.example.net]\ncontent_filter = smtp-amavis:[127.0.0.1]:10024\nsmtp_tls_security_level = may\n",
            master=MASTER + "smtp-amavis unix - - n - 2 smtp\n",
        )
        store = tmp_path / "store"
        store.mkdir(mode=0o700)
        host.adapter.transaction(str(store))

        def send(mode):
            for image in (change := host.plan(outbound=OutboundTls(send=mode))).after:
                Path(image.path).parent.mkdir(parents=True, exist_ok=True)
            before.note(str(store), "postfix", [(FileImage.read(one.path), one) for one in change.after])
            for image in change.after:
                image.write()
            host.adapter._postconf.forget()
            assert not host.plan(outbound=OutboundTls(send=mode))
            levels = host.adapter._postconf.overrides("smtp_tls_security_level")
            return levels.get("smtp-amavis/unix"), {one for one in levels if one.startswith("mailfleet-")}

        assert send("required")[0] == "may"
        exempt, ours = send("opportunistic")
        assert exempt is None and "mailfleet-required/unix" in ours
