"""Enforced domains and the outbound side on a Postfix gateway, against a stand-in for its commands."""

import contextlib
import os
import re
from itertools import permutations
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import Gateway, GatewayVerdict
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import change_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    ACCEPTS,
    CERTIFICATE_CHECKS,
    MODES,
    SENDS,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import LEVELS as NEUTRAL_LEVELS
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.record import load_file
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.top_level_domains import TOP_LEVEL_DOMAINS
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fake_postfix import DEFAULTS, MAIN, MASTER
from tests.support.postfix_host import PostfixHost, config, inbound, outbound, state
from tests.support.smtp_server import Face, reply, serving

# The levels of each mode in the words of this product.
WORDS = {"disabled": "none", "opportunistic": "may", "required": "encrypt"}
LEVELS = {mode: tuple(WORDS[level] for level in pair) for mode, pair in NEUTRAL_LEVELS.items()}

BY_ARRIVAL = ("match_sender", "match_sender_strict")
NO_RELAY = "${tls_required_enable?}"  # empty, and known to a Postfix that does not know the parameter
PARTNER = inbound("partner.example")
BANK = [outbound("bank.example", "hostname", "mx.bank.example")]
SERVERS = ("192.0.2.10/32", "2001:db8::/32")
TLS_ONLY, PLAINTEXT = (OutboundTls(accept, None, SERVERS) for accept in ("tls_only", "plaintext"))
REFUSED = reply(451, "4.7.0 STARTTLS is required for this sender")

STATES = {
    "nothing": state(),
    "a mode": state(config("one", "required")),
    "a mode by arrival": state(config("one", "match_sender")),
    "senders": state(enforced=PARTNER),
    "recipients": state(config("one", "plaintext"), enforced=BANK),
    "both": state(config("one", "match_sender_strict"), enforced=PARTNER + BANK),
    "send by arrival": state(outbound=OutboundTls(None, "match_sender")),
    "send strictly": state(config("one", "plaintext"), outbound=OutboundTls("both", "match_sender_strict")),
    "send": state(outbound=OutboundTls(None, "opportunistic")),
    "send, and a mode by arrival": state(config("one", "match_sender"), outbound=OutboundTls(None, "required")),
    "tls_only": state(outbound=TLS_ONLY),
    "plaintext": state(outbound=PLAINTEXT),
    "all": state(config("one", "match_sender"), enforced=PARTNER + BANK, outbound=OutboundTls("tls_only", "match_sender", SERVERS)),
}  # fmt: skip


PAIRS = list(permutations(("nothing", "senders", "recipients", "send by arrival", "tls_only", "plaintext"), 2))


@pytest.fixture
def make(monkeypatch, tmp_path):
    def make(main="", **fake):
        return PostfixHost(monkeypatch, tmp_path, main=MAIN + main, **fake)

    return make


@pytest.fixture
def host(make):
    return make()


def write(host, wanted):
    change = host.adapter.plan(wanted)
    for image in change.after:
        Path(image.path).parent.mkdir(parents=True, exist_ok=True)
        image.write()
    host.adapter._postconf.forget()
    return change


def options(words):
    """The -o options of a master.cf entry."""
    assert words[8::2] == ["-o"] * len(words[9::2])
    return dict(option.split("=", 1) for option in words[9::2])


def checks(host):
    return host.fake.explicit().get("smtpd_recipient_restrictions", "")


class TestEveryState:
    @pytest.mark.parametrize("name", STATES)
    def test_a_second_run_changes_nothing(self, make, name):
        host = make("transport_maps = hash:/a\nsmtpd_recipient_restrictions = permit_mynetworks,  reject\n")
        assert bool(write(host, STATES[name])) is (name != "nothing")
        assert host.adapter.read() == STATES[name]
        again = host.adapter.plan(STATES[name])
        assert (bool(again), again.after) == (False, ())

    @pytest.mark.parametrize(("first", "second"), PAIRS)
    def test_nor_after_another_state_and_what_is_not_ours_survives(self, make, first, second):
        main = "transport_maps = hash:/a,hash:/b\nsmtpd_recipient_restrictions = permit_mynetworks,  reject\n"
        host = make(f"{main}smtpd_discard_ehlo_keyword_address_maps = cidr:/c\nsmtpd_restriction_classes = mine\n")
        write(host, STATES[first])
        write(host, STATES[second])
        assert not host.adapter.plan(STATES[second])
        explicit = host.fake.explicit()
        assert explicit["transport_maps"].endswith("hash:/a,hash:/b")
        assert explicit["smtpd_recipient_restrictions"].endswith("permit_mynetworks, reject")
        assert explicit["smtpd_discard_ehlo_keyword_address_maps"].endswith("cidr:/c")
        assert explicit["smtpd_restriction_classes"].endswith("mine")
        assert host.fake.main.read_text().startswith(MAIN)
        assert host.fake.master.read_text().startswith(MASTER)
        # What the running configuration says about the second state, no former one has a say in.
        fresh = (
            host.lines("transport"),
            host.lines("enforced_senders"),
            host.lines("tls_only"),
            host.lines("plaintext_only"),
        )
        wanted = STATES[second]
        assert bool(fresh[1]) is wanted.senders_enforced
        assert bool(fresh[2]) is bool(wanted.outbound and wanted.outbound.accept == "tls_only")
        assert bool(fresh[3]) is bool(wanted.outbound and wanted.outbound.accept == "plaintext")
        assert len(fresh[0]) == len(wanted.recipients_enforced) + len(wanted.email_configs)

    def test_it_is_of_the_contract(self, host):
        made: Gateway = host.adapter
        assert made.title == "a Postfix gateway"
        assert (made.verifying_modes, made.limits, made.modes) == ((), {}, MODES)
        assert made.own_port == Target("127.0.0.1", 25)


class TestInstances:
    @pytest.mark.parametrize(
        ("name", "second", "third"),
        [
            ("nothing", False, False), ("a mode", False, False), ("a mode by arrival", True, False), ("senders", True, True),
            ("recipients", False, False), ("both", True, True), ("send by arrival", True, False), ("send strictly", True, False),
            ("send", False, False), ("send, and a mode by arrival", True, False),
            ("tls_only", False, False), ("plaintext", False, False), ("all", True, True),
        ],
    )  # fmt: skip
    def test_there_are_as_many_as_are_needed(self, host, name, second, third):
        write(host, STATES[name])
        assert (host.second.exists(), host.third.exists()) == (second, third)
        listed = host.fake.explicit().get("multi_instance_directories", "")
        assert listed == " ".join([str(host.second)] * second + [str(host.third)] * third)
        assert (host.root / "usr/arrival_policy.py").exists() is second

    def test_that_was_every_state(self):
        assert len(STATES) == 13

    @pytest.mark.parametrize("mode", MODES)
    def test_each_has_the_level_of_its_arrival(self, host, mode):
        write(host, STATES["both"])
        levels = [*LEVELS[mode], "encrypt"]  # an enforced sender is above every mode
        for path, chroot, level in zip((host.etc, host.second, host.third), "ynn", levels):
            words = host.services(path)[f"mailfleet-{mode}/unix"]
            assert (words[4], words[7]) == (chroot, "smtp")
            expected = {"smtp_tls_security_level": level, "smtp_tls_policy_maps": "", "smtp_fallback_relay": NO_RELAY}
            if level != "encrypt":
                expected["smtp_reply_filter"] = f"regexp:{host.directory}/reply_filter"
            assert options(words) == expected

    @pytest.mark.parametrize("name", ["senders", "both", "all"])
    def test_the_third_differs_from_the_second_in_its_names_and_levels_alone(self, host, name):
        write(host, STATES[name])
        second, third = (host.fake.explicit(path) for path in (host.second, host.third))
        different = {key for key in {*second, *third} if second.get(key) != third.get(key)}
        names = {"multi_instance_name", "queue_directory", "data_directory", "syslog_name"}
        assert different == names
        for place in (host.second, host.third):
            own = host.fake.explicit(place)
            assert own["multi_instance_name"] == own["syslog_name"] == place.name
            assert own["queue_directory"] == f"/var/spool/{place.name}"
            assert own["data_directory"] == f"/var/lib/{place.name}"
            assert own["inet_interfaces"] == "loopback-only"
        services = [host.services(path) for path in (host.second, host.third)]
        assert [set(one) - {"127.0.0.1:10125/inet", "127.0.0.1:10127/inet"} for one in services] == [
            set(services[0]) - {"127.0.0.1:10125/inet"}
        ] * 2
        listeners = [[key for key in one if key.endswith("/inet")] for one in services]
        assert listeners == [["127.0.0.1:10125/inet"], ["127.0.0.1:10127/inet"]]
        levelled = {f"{gateway.transport_of(mode)}/unix" for mode in MODES if LEVELS[mode][1] != "encrypt"}
        assert {key for key in services[0] if services[0][key] != services[1].get(key)} == levelled | {
            "127.0.0.1:10125/inet"
        }

    def test_both_hand_back_to_the_first(self, host):
        write(host, STATES["senders"])
        for path in (host.second, host.third):
            for kind in ("default", "relay", "virtual", "local"):
                assert host.fake.explicit(path)[f"{kind}_transport"] == "mailfleet-back:[127.0.0.1]:10126"
        assert "127.0.0.1:10126/inet" in host.services(host.etc)

    def test_instances_that_are_there_stay_in_use(self, host):
        write(host, STATES["senders"])
        write(host, STATES["a mode"])
        assert host.fake.explicit()["multi_instance_directories"] == f"{host.second} {host.third}"
        assert f"mailfleet-{MODES[0]}/unix" in host.services(host.third)
        assert checks(host) == f"check_recipient_access texthash:{host.directory}/arrival"

    @pytest.mark.parametrize("mode", MODES)
    def test_the_third_no_longer_insists_when_no_sender_is_enforced(self, host, mode):
        write(host, STATES["senders"])
        write(host, STATES["a mode by arrival"])
        second, third = (host.services(path)[f"mailfleet-{mode}/unix"] for path in (host.second, host.third))
        assert second == third
        assert options(third)["smtp_tls_security_level"] == LEVELS[mode][1]

    @pytest.mark.parametrize(
        ("name", "refused"),
        [("a mode by arrival", True), ("senders", True), ("send by arrival", True), ("tls_only", True),
         ("a mode", False), ("recipients", False), ("send", False), ("plaintext", False)],
    )  # fmt: skip
    def test_a_listener_with_restrictions_of_its_own_is_refused_where_they_count(self, make, name, refused):
        host = make(
            master=MASTER.replace("  smtpd\n", "  smtpd\n  -o smtpd_recipient_restrictions=reject\n", 1)
            + "submission inet n - y - - smtpd\n"
        )
        if not refused:
            assert host.adapter.plan(STATES[name])
            return
        with pytest.raises(EngineError) as error:
            host.adapter.plan(STATES[name])
        assert str(error.value) == (
            "master.cf sets smtpd_recipient_restrictions for smtp/inet, so the collection could not see how mail "
            "arrives there; remove it first: postconf -PX 'smtp/inet/smtpd_recipient_restrictions'"
        )

    @pytest.mark.parametrize("name", ["senders", "send by arrival"])
    @pytest.mark.parametrize("setting", ["content_filter", "smtpd_proxy_filter"])
    def test_a_filter_is_refused_where_arrival_counts(self, make, name, setting):
        host = make(f"{setting} = smtp:[127.0.0.1]:10024\n")
        with pytest.raises(EngineError, match=rf"^main\.cf sets {setting}=smtp:"):
            host.adapter.plan(STATES[name])
        for other in ("recipients", "send", "tls_only"):
            assert host.adapter.plan(STATES[other])


class TestSecrets:
    PASSWORD = "static:apikey:SG.hunter2"

    @pytest.fixture
    def host(self, make):
        host = make(
            f"my_credentials = {self.PASSWORD}\nsmtp_sasl_password_maps = $my_credentials\n",
            master=f"{MASTER}own unix - - n - - smtp\n  -o smtp_sasl_password_maps={self.PASSWORD}\n",
        )
        host.fake.main.chmod(0o640)
        host.fake.master.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(host.fake.main, 0, 12)
        return host

    @pytest.mark.parametrize("name", ["senders", "send by arrival"])
    def test_a_copy_of_a_private_file_is_as_private(self, host, name):
        write(host, STATES[name])
        copied = 0
        for instance in (host.second, host.third):
            for ours, theirs in ((instance / "main.cf", host.fake.main), (instance / "master.cf", host.fake.master)):
                if ours.exists():
                    seen, wanted = ours.stat(), theirs.stat()
                    assert (seen.st_mode, seen.st_uid, seen.st_gid) == (wanted.st_mode, wanted.st_uid, wanted.st_gid)
                    copied += "hunter2" in ours.read_text()
        assert copied

    def test_a_copy_that_an_earlier_version_left_open_is_closed(self, host):
        write(host, STATES["senders"])
        for name in ("main.cf", "master.cf"):
            (host.second / name).chmod(0o644)
        write(host, STATES["senders"])
        assert [(host.second / name).stat().st_mode & 0o777 for name in ("main.cf", "master.cf")] == [0o640, 0o600]
        assert not host.adapter.plan(STATES["senders"])

    @pytest.mark.parametrize("name", ["senders", "send by arrival"])
    def test_no_line_that_is_shown_holds_it(self, host, name):
        change = host.adapter.plan(STATES[name])
        assert any(b"hunter2" in image.content for image in change.after)
        assert "hunter2" not in str(change.diff()) + str(change.lines())
        assert "smtp_sasl_password_maps = (not shown)" in str(change.lines())


class TestRestrictions:
    def expected(self, host, *names):
        texts = {
            "tls_only": f"check_client_access cidr:{host.directory}/tls_only",
            "senders": f"check_sender_access regexp:{host.directory}/enforced_senders.regexp",
            "arrival": f"check_recipient_access texthash:{host.directory}/arrival",
            "all": "mailfleet_arrival",
        }
        return [texts[name] for name in names]

    @pytest.mark.parametrize(
        ("name", "names"),
        [
            ("nothing", []),
            ("a mode", []),
            ("a mode by arrival", ["arrival"]),
            ("senders", ["arrival", "senders"]),
            ("recipients", []),
            ("both", ["arrival", "senders"]),
            ("send by arrival", ["arrival", "all"]),
            ("send", []),
            ("tls_only", ["tls_only"]),
            ("plaintext", []),
            ("all", ["tls_only", "arrival", "all", "senders"]),
        ],
    )
    def test_each_state_asks_what_it_needs_in_front_of_the_others(self, make, name, names):
        host = make("smtpd_recipient_restrictions = permit_mynetworks, reject_unlisted_recipient\n")
        write(host, STATES[name])
        assert checks(host) == ", ".join([*self.expected(host, *names), "permit_mynetworks, reject_unlisted_recipient"])

    def test_what_is_no_longer_needed_goes_and_leaves_the_rest_to_the_letter(self, make):
        present = "permit_mynetworks,  check_client_access  cidr:/mine,reject"
        host = make(f"smtpd_recipient_restrictions = {present}\n")
        write(host, STATES["tls_only"])
        assert "tls_only" in checks(host)
        write(host, state(outbound=OutboundTls("both", None, SERVERS)))
        assert checks(host) == " ".join(present.split())

    def test_the_policy_service_knows_both_instances_and_the_senders(self, host):
        write(host, STATES["a mode by arrival"])
        assert host.services(host.etc)["mailfleet_arrival/unix"][-3:] == [
            "mailfleet-arrived:[127.0.0.1]:10125", "mailfleet-arrived:[127.0.0.1]:10127", f"{host.directory}/enforced_senders",
        ]  # fmt: skip

    def test_the_senders_are_there_in_every_spelling(self, host):
        write(host, state(enforced=inbound("xn--mller-kva.example", "partner.example")))
        assert host.lines("enforced_senders") == [
            "xn--mller-kva.example mailfleet_arrival",
            "müller.example mailfleet_arrival",
            "partner.example mailfleet_arrival",
        ]

    def test_the_table_of_senders_decides_alone_unless_an_address_is_not_ascii(self, host):
        write(host, state(enforced=inbound("xn--mller-kva.example", "partner.example")))
        assert host.lines("enforced_senders.regexp") == [
            r"/@xn--mller-kva\.example$/ mailfleet_enforced",
            r"/@müller\.example$/ mailfleet_enforced",
            r"/@partner\.example$/ mailfleet_enforced",
            "!/^[ -~]*$/ mailfleet_unicode",
        ]
        explicit = host.fake.explicit()
        for name, question in (("arrival", "arrival"), ("enforced", "enforced"), ("unicode", "unicode")):
            assert f"policy_context={question}," in explicit[f"mailfleet_{name}"]

    def test_what_an_earlier_version_set_up_is_changed_to_the_present_form_once(self, make):
        host = make()
        write(host, STATES["senders"])
        main = host.fake.main.read_text()
        main = main.replace("regexp:", "texthash:").replace("enforced_senders.regexp", "enforced_senders")
        host.fake.main.write_text(main.replace("policy_context=arrival, ", ""))
        write(host, STATES["senders"])
        assert checks(host) == ", ".join(self.expected(host, "arrival", "senders"))
        assert not host.adapter.plan(STATES["senders"])

    def test_recipient_domains_have_a_line_for_each_spelling(self, host):
        mode = config("one", "match_sender_strict", "xn--mller-kva.example")
        write(host, state(mode, enforced=[outbound("xn--bcher-kva.example", "hostname", "mx.bank.example")]))
        assert [line.split(":")[0] for line in host.lines("transport")] == [
            "xn--mller-kva.example mailfleet-match_sender_strict",
            "müller.example mailfleet-match_sender_strict",
            "xn--bcher-kva.example mailfleet-hostname",
            "bücher.example mailfleet-hostname",
        ]
        assert [line.split()[0] for line in host.lines("arrival")] == ["xn--mller-kva.example", "müller.example"]

    def test_the_recipients_are_not_senders(self, host):
        write(host, STATES["recipients"])
        assert host.lines("enforced_senders") == []
        assert host.lines("enforced_senders.regexp") == []


class TestClients:
    @pytest.mark.parametrize("accept", [None, *ACCEPTS])
    def test_each_word_has_its_table(self, accept):
        wanted = state(outbound=OutboundTls(accept, None, SERVERS))
        for name, action in (("tls_only", "reject_plaintext_session"), ("plaintext", "starttls, silent-discard")):
            lines = gateway.clients_map(wanted, name, action).splitlines()[1:]
            assert lines == ([f"{network} {action}" for network in SERVERS] if accept == name else [])

    def test_nobody_has_said_anything(self):
        assert gateway.clients_map(GatewayState(), "tls_only", "x").count("\n") == 1

    def test_tables_in_place(self, host):
        write(host, STATES["tls_only"])
        assert host.lines("tls_only") == [f"{network} reject_plaintext_session" for network in SERVERS]
        assert host.lines("plaintext_only") == []
        write(host, STATES["plaintext"])
        assert host.lines("tls_only") == []
        assert host.lines("plaintext_only") == [f"{network} starttls, silent-discard" for network in SERVERS]

    def test_starttls_is_hidden_from_them_alone(self, make):
        host = make("smtpd_discard_ehlo_keyword_address_maps = cidr:/mine\n")
        write(host, STATES["plaintext"])
        name = "smtpd_discard_ehlo_keyword_address_maps"
        assert host.fake.explicit()[name] == f"cidr:{host.directory}/plaintext_only, cidr:/mine"
        for other in ("tls_only", "send", "a mode"):
            write(host, STATES["plaintext"])
            write(host, STATES[other])
            assert host.fake.explicit()[name] == "cidr:/mine"

    def test_a_map_of_ours_alone_leaves_an_empty_setting(self, host):
        write(host, STATES["plaintext"])
        write(host, STATES["send"])
        assert host.fake.explicit()["smtpd_discard_ehlo_keyword_address_maps"] == ""
        assert not host.adapter.plan(STATES["send"])

    @pytest.mark.parametrize("code", ["554", "550", "521"])
    def test_a_code_that_makes_mail_bounce_is_refused(self, make, code):
        host = make(f"plaintext_reject_code = {code}\n")
        with pytest.raises(EngineError) as error:
            host.adapter.plan(STATES["tls_only"])
        assert str(error.value) == (
            f"plaintext_reject_code = {code} would make mail of your mail servers bounce; take it out first: postconf -X "
            "plaintext_reject_code"
        )
        assert host.adapter.plan(STATES["plaintext"])

    @pytest.mark.parametrize("code", ["450", "421", "454"])
    def test_one_that_puts_it_off_is_fine(self, make, code):
        assert make(f"plaintext_reject_code = {code}\n").adapter.plan(STATES["tls_only"])

    def test_a_postfix_without_that_setting_puts_it_off(self, make):
        assert make(
            defaults={name: DEFAULTS[name] for name in DEFAULTS if name != "plaintext_reject_code"}
        ).adapter.plan(STATES["tls_only"])


class TestSend:
    @pytest.mark.parametrize("send", SENDS)
    def test_the_level_for_mail_that_arrived_in_plaintext_is_main_cfs_own(self, host, send):
        write(host, state(outbound=OutboundTls(None, send)))
        explicit = host.fake.explicit()
        assert explicit["smtp_tls_security_level"] == LEVELS[send][0]
        assert explicit.get("smtp_tls_loglevel") == (None if send == "plaintext" else "1")

    @pytest.mark.parametrize("wanted", [None, OutboundTls("both"), TLS_ONLY])
    def test_unless_it_is_said_it_is_left_alone(self, host, wanted):
        write(host, state(config("one", "required"), outbound=wanted))
        assert not {"smtp_tls_security_level", "smtp_tls_loglevel"} & set(host.fake.explicit())

    @pytest.mark.parametrize(
        ("present", "send", "after"),
        [
            ("dane", "opportunistic", "dane"), ("may", "opportunistic", "may"), ("verify", "required", "verify"),
            ("dane-only", "required", "dane-only"), ("secure", "required", "secure"), ("none", "plaintext", "none"),
            ("none", "match_sender", "none"), ("dane", "required", "encrypt"), ("may", "plaintext", "none"),
            ("half-dane", "opportunistic", "may"),
        ],
    )  # fmt: skip
    def test_a_stronger_level_of_the_same_kind_stays(self, make, present, send, after):
        host = make(f"smtp_tls_security_level = {present}\n")
        write(host, state(outbound=OutboundTls(None, send)))
        assert host.fake.explicit()["smtp_tls_security_level"] == after

    @pytest.mark.parametrize("present", ["encrypt", "dane-only", "fingerprint", "verify", "secure"])
    @pytest.mark.parametrize("send", [send for send in SENDS if send != "required"])
    def test_a_stricter_level_that_nobody_of_us_set_is_not_weakened(self, make, present, send):
        host = make(f"smtp_tls_security_level = {present}\n")
        with pytest.raises(EngineError) as error:
            host.adapter.plan(state(outbound=OutboundTls(None, send)))
        assert str(error.value) == (
            f"smtp_tls_security_level = {present} is stricter than send {send} and was not set by this collection; choose "
            "required (starttls_send in an inventory), or relax it by hand first"
        )
        assert host.adapter.plan(state(outbound=OutboundTls("both")))

    @pytest.mark.parametrize("send", SENDS)
    def test_one_of_ours_is(self, make, send):
        host = make("smtp_tls_security_level = may\n")
        write(host, state(outbound=OutboundTls(None, "required")))
        assert host.fake.explicit()["smtp_tls_security_level"] == "encrypt"
        write(host, state(outbound=OutboundTls(None, send)))
        assert host.fake.explicit()["smtp_tls_security_level"] == LEVELS[send][0]

    @pytest.mark.parametrize(("present", "after"), [("0", "1"), ("1", "1"), ("2", "2")])
    def test_tls_is_shown_in_the_log(self, make, present, after):
        host = make(f"smtp_tls_loglevel = {present}\n")
        write(host, STATES["send"])
        assert host.fake.explicit()["smtp_tls_loglevel"] == after

    @pytest.mark.parametrize(
        ("value", "send", "fine"),
        [
            ("encrypt", "opportunistic", False), ("may", "required", False), ("none", "opportunistic", False),
            ("encrypt", "match_sender", False), ("encrypt", "required", True), ("secure", "required", True),
            ("dane", "opportunistic", True), ("", "plaintext", True), ("none", "match_sender_strict", True),
        ],
    )  # fmt: skip
    def test_an_override_in_master_cf_has_to_say_the_same(self, make, value, send, fine):
        host = make(master=MASTER.replace("  smtp\nrelay", f"  smtp\n  -o smtp_tls_security_level={value}\nrelay"))
        wanted = state(outbound=OutboundTls(None, send))
        if fine:
            assert host.adapter.plan(wanted)
            return
        with pytest.raises(EngineError) as error:
            host.adapter.plan(wanted)
        assert str(error.value) == (
            f"master.cf sets smtp_tls_security_level={value}, which overrides main.cf for smtp/unix; remove it first: "
            "postconf -PX 'smtp/unix/smtp_tls_security_level'"
        )

    def test_an_override_for_another_service_is_none_of_it(self, make):
        host = make(master=f"{MASTER}  -o smtp_tls_security_level=none\n")  # for relay/unix
        assert host.adapter.plan(STATES["send"])

    @pytest.mark.parametrize(("value", "fine"), [("may", False), ("encrypt", False), ("none", True), ("", True)])
    def test_an_override_that_would_keep_tls_on_is_named_before_it_is_switched_on(self, make, value, fine):
        host = make(master=MASTER.replace("  smtp\nrelay", f"  smtp\n  -o smtp_tls_security_level={value}\nrelay"))
        wanted = state(outbound=OutboundTls(None, "opportunistic"))
        with contextlib.nullcontext() if fine else pytest.raises(EngineError, match="postconf -PX 'smtp/unix/smtp_tls"):
            host.adapter.refuse_one_way(wanted)
        host.adapter.refuse_one_way(state())  # nothing is set towards the internet

    @pytest.mark.parametrize("send", SENDS)
    def test_mail_that_arrived_over_tls_goes_out_from_the_second_instance_if_that_matters(self, host, send):
        write(host, state(config("one", "match_sender"), enforced=PARTNER, outbound=OutboundTls(None, send)))
        second, third = (host.fake.explicit(path) for path in (host.second, host.third))
        if send not in BY_ARRIVAL:
            assert second["smtp_tls_security_level"] == third["smtp_tls_security_level"] == LEVELS[send][0]
            assert second["default_transport"].startswith("mailfleet-back:")
            return
        assert second["smtp_tls_security_level"] == LEVELS[send][1]
        assert third["smtp_tls_security_level"] == LEVELS[send][1]  # an enforced sender insists towards email configs
        assert second["default_transport"] == third["default_transport"] == "smtp"

    ROUTES = {  # noqa: RUF012
        "relayhost": "[smart.example]", "relay_domains": "alpha.example", "virtual_alias_domains": "v.example",
        "virtual_mailbox_domains": "m.example", "virtual_alias_maps": "hash:/v", "sender_dependent_relayhost_maps": "hash:/s",
        "sender_dependent_default_transport_maps": "hash:/t", "smtp_sasl_auth_enable": "yes", "smtp_sasl_password_maps": "hash:/p",
        "smtp_header_checks": "regexp:/h", "lmtp_connect_timeout": "9s", "local_recipient_maps": "hash:/l",
        "parent_domain_matches_subdomains": "relay_domains", "smtp_generic_maps": "hash:/g",
    }  # fmt: skip

    def test_it_then_has_the_gateways_own_routes(self, make):
        main = {**self.ROUTES, "mydestination": "$myhostname, own.example", "transport_maps": "hash:/a,hash:/b",
                "default_transport": "relay", "outside": "x", "smtpd_banner": "y", "myhostname": "gw.example"}  # fmt: skip
        host = make("".join(f"{name} = {value}\n" for name, value in main.items()))
        host.fake.main.write_text(
            host.fake.main.read_text().replace("relay_domains = alpha.example,\n    beta.example\n", "")
        )
        write(host, STATES["send by arrival"])
        second = host.fake.explicit(host.second)
        assert self.ROUTES.items() <= second.items()
        assert second["mydestination"] == "gw.example, own.example"
        assert second["transport_maps"] == f"texthash:{host.directory}/transport, hash:/a,hash:/b"
        assert second["default_transport"] == "relay"
        for kind in ("relay", "virtual", "local"):
            assert second[f"{kind}_transport"] == "mailfleet-back:[127.0.0.1]:10126"
        assert not {"outside", "smtpd_banner"} & set(second)
        assert not host.adapter.plan(STATES["send by arrival"])

    def test_what_an_own_route_refers_to_is_put_in(self, make):
        host = make("own_maps = hash:/a\ntransport_maps = $own_maps\n")
        write(host, STATES["send by arrival"])
        expected = f"texthash:{host.directory}/transport, hash:/a"
        assert host.fake.explicit(host.second)["transport_maps"] == expected

    @pytest.mark.parametrize("name", ["smtp_tls_session_cache_database", "lmtp_tls_session_cache_database"])
    def test_the_session_cache_stays_the_first_ones(self, make, name):
        host = make(f"{name} = btree:${{data_directory}}/scache\ndata_directory = /var/lib/postfix\n")
        write(host, STATES["send by arrival"])
        assert name not in host.fake.explicit(host.second)

    def test_without_such_a_mode_it_has_them_not(self, make):
        host = make("".join(f"{name} = {value}\n" for name, value in self.ROUTES.items()))
        write(host, state(config("one", "match_sender"), outbound=OutboundTls(None, "opportunistic")))
        shared = {name for name in self.ROUTES if name.startswith("smtp_")}
        assert set(self.ROUTES) & set(host.fake.explicit(host.second)) == shared
        assert host.fake.explicit(host.second)["mydestination"] == ""

    def test_it_then_has_the_gateways_own_transports_with_its_level(self, make):
        host = make(
            master=f"{MASTER}slow unix - - y - 5 smtp -o smtp_tls_security_level=none -o smtp_destination_rate_delay=1s\n"
            "uucp unix - n n - - pipe user=uucp argv=uux -r -n -z -a$sender - $nexthop!rmail ($recipient)\n"
            "submission inet n - y - - smtpd\npostlog unix-dgram n - n - 1 postlogd\n"
        )
        write(host, STATES["send by arrival"])
        services = host.services(host.second)
        assert services["relay/unix"][:8] == ["relay", "unix", "-", "-", "n", "-", "-", "smtp"]
        assert options(services["relay/unix"]) == {"syslog_name": "postfix/$service_name"}
        assert services["slow/unix"][:8] == ["slow", "unix", "-", "-", "n", "-", "5", "smtp"]
        assert options(services["slow/unix"]) == {"smtp_destination_rate_delay": "1s"}
        assert services["uucp/unix"][4:] == ["n", "-", "-", "pipe", "user=uucp", "argv=uux", "-r", "-n", "-z", "-a$sender", "-",
                                             "$nexthop!rmail", "($recipient)"]  # fmt: skip
        text = (host.second / "master.cf").read_text()
        assert len(re.findall(r"(?m)^smtp +unix", text)) == 1
        assert "submission" not in text
        assert len(re.findall(r"(?m)^postlog ", text)) == 1
        assert len(re.findall(r"(?m)^relay ", text)) == 1
        assert len(re.findall(r"(?m)^mailfleet-plaintext ", text)) == 1

    @pytest.mark.parametrize(
        ("level", "kept"),
        [("", False), ("none", False), ("may", False), ("dane", True), ("encrypt", True), ("dane-only", True), ("verify", True),
         ("secure", True), ("fingerprint", True)],
    )  # fmt: skip
    def test_a_stricter_level_of_such_a_transport_stays(self, make, level, kept):
        host = make(master=f"{MASTER}slow unix - - y - - smtp -o smtp_tls_security_level={level} -o x=y\n")
        write(host, STATES["send by arrival"])
        expected = {**({"smtp_tls_security_level": level} if kept else {}), "x": "y"}
        assert options(host.services(host.second)["slow/unix"]) == expected

    def test_a_second_time_our_own_transports_are_not_copied_as_the_gateways(self, host):
        write(host, STATES["send by arrival"])
        before = (host.second / "master.cf").read_bytes()
        assert not host.adapter.plan(STATES["send by arrival"])
        assert (host.second / "master.cf").read_bytes() == before


class TestTransportMap:
    def test_an_enforced_domain_stands_above_the_email_config(self, host):
        wanted = state(
            config("one", "plaintext", "a.example", "bank.example", servers=["m1.example", "m2.example:26"]),
            enforced=[outbound("bank.example", "hostname"), outbound("z.example", "trusted_chain", "mx.z.example", "[2001:db8::1]:26")],
        )  # fmt: skip
        write(host, wanted)
        assert host.lines("transport") == [
            "a.example mailfleet-plaintext:[m1.example]:25,[m2.example]:26",
            "bank.example mailfleet-hostname:[m1.example]:25,[m2.example]:26",
            "z.example mailfleet-trusted_chain:[mx.z.example]:25,[2001:db8::1]:26",
        ]

    def test_servers_of_its_own_stand_above_those_of_the_email_config(self, host):
        write(host, state(config("one", "required", "bank.example"), enforced=BANK))
        assert host.lines("transport") == ["bank.example mailfleet-hostname:[mx.bank.example]:25"]

    def test_a_subdomain_is_another_domain(self, host):
        write(host, state(config("one", "plaintext", "sub.bank.example"), enforced=BANK))
        assert [line.split(":")[0] for line in host.lines("transport")] == [
            "sub.bank.example mailfleet-plaintext",
            "bank.example mailfleet-hostname",
        ]

    @pytest.mark.parametrize(
        "value", ["transport_maps", "relay_domains, transport_maps", "mynetworks,transport_maps,x"]
    )
    def test_tables_that_take_subdomains_along_are_refused(self, make, value):
        host = make(f"parent_domain_matches_subdomains = {value}\n")
        with pytest.raises(EngineError) as error:
            host.adapter.plan(STATES["recipients"])
        assert str(error.value) == (
            "parent_domain_matches_subdomains names transport_maps, so an enforced domain would cover its subdomains as well; "
            "take transport_maps out of it first"
        )
        assert host.adapter.plan(STATES["a mode"])

    @pytest.mark.parametrize("value", ["", "relay_domains", "x_transport_maps"])
    def test_others_may_take_them(self, make, value):
        assert make(f"parent_domain_matches_subdomains = {value}\n").adapter.plan(STATES["recipients"])

    def test_a_postfix_without_that_setting(self, make):
        name = "parent_domain_matches_subdomains"
        host = make(defaults={key: DEFAULTS[key] for key in DEFAULTS if key != name})
        assert host.adapter.plan(STATES["recipients"])


class TestRoutes:
    """Where mail for an enforced domain without servers of its own goes: where it goes today."""

    def route(self, host, domain="bank.example"):
        write(host, state(enforced=[outbound(domain)]))
        [line] = host.lines("transport")
        assert line.startswith(f"{domain} mailfleet-encryption_only:")
        return line.partition(":")[2]

    def test_to_the_mx_if_nothing_else_is_said(self, host):
        assert self.route(host) == "bank.example"

    @pytest.mark.parametrize("relayhost", ["[relay.example]:587", "[relay.example]", "relay.example"])
    def test_to_the_relay_host(self, make, relayhost):
        assert self.route(make(f"relayhost = {relayhost}\n")) == relayhost

    @pytest.mark.parametrize(
        ("found", "hop"),
        [
            ("smtp:[mx.example]:2525", "[mx.example]:2525"),
            ("relay:[mx.example]", "[mx.example]"),
            (":[mx.example]", "[mx.example]"),
            ("smtp:mx.example", "mx.example"),
            ("smtp:", "bank.example"),
            (":", "bank.example"),
            ("relay:[m1.example],[m2.example]:26", "[m1.example],[m2.example]:26"),
            ("smtp:[2001:db8::1]:26", "[2001:db8::1]:26"),
        ],
    )
    def test_by_a_table_of_the_administrator(self, make, found, hop):
        host = make("transport_maps = hash:/a\nrelayhost = [relay.example]\n")
        host.fake.tables = {"hash:/a": {"bank.example": found}}
        assert self.route(host) == hop

    @pytest.mark.parametrize(
        "found", ["local:", "error:5.1.2 no", "lmtp:unix:x", "uucp:far", "discard:", "[mx.example]:25", "slow:"]
    )
    def test_a_transport_that_is_not_smtp_is_refused(self, make, found):
        host = make("transport_maps = hash:/a\n")
        host.fake.tables = {"hash:/a": {"bank.example": found}}
        with pytest.raises(EngineError) as error:
            self.route(host)
        assert str(error.value) == (
            f"mail for bank.example uses the transport {found}, which cannot require TLS; name its servers, or remove "
            "that route"
        )

    def test_the_keys_are_asked_in_postfixs_order_each_in_every_table(self, make):
        host = make("transport_maps = hash:/a, hash:/b\n")
        self.route(host, "x.bank.example")
        assert [call[2:] for call in host.fake.called("postmap", "-q")] == [
            [key, table]
            for key in ("mailfleet-starttls@x.bank.example", "x.bank.example", ".bank.example", ".example", "*")
            for table in ("hash:/a", "hash:/b")
        ]

    @pytest.mark.parametrize(
        ("tables", "hop"),
        [
            ({"hash:/a": {"*": "smtp:[star]"}, "hash:/b": {"bank.example": "smtp:[b]"}}, "[b]"),
            ({"hash:/a": {"bank.example": "smtp:[a]"}, "hash:/b": {"bank.example": "smtp:[b]"}}, "[a]"),
            ({"hash:/b": {".example": "smtp:[parent]", "*": "smtp:[star]"}}, "[parent]"),
            ({"hash:/b": {"*": "smtp:[star]"}}, "[star]"),
            ({"hash:/a": {"bank.example": ""}, "hash:/b": {"*": "smtp:[star]"}}, "[star]"),
            ({"hash:/a": {"example": "smtp:[x]", ".bank.example": "smtp:[x]"}}, "[relay]"),
            ({"hash:/a": {"mailfleet-starttls@bank.example": "smtp:[user]", "bank.example": "smtp:[x]"}}, "[user]"),
        ],
    )
    def test_the_first_that_is_found_counts(self, make, tables, hop):
        host = make("transport_maps = hash:/a hash:/b\nrelayhost = [relay]\n")
        host.fake.tables = tables
        assert self.route(host) == hop

    @pytest.mark.parametrize(
        ("main", "hop"),
        [
            ("own_maps = hash:/a\ntransport_maps = $own_maps\n", "[a]"),
            ("mydomain = gw.example\nrelayhost = $mydomain\n", "gw.example"),
            ("mydomain = gw.example\nrelayhost = [mail.$mydomain]:587\n", "[mail.gw.example]:587"),
        ],
    )
    def test_what_they_refer_to_is_put_in(self, make, main, hop):
        host = make(main)
        host.fake.tables = {"hash:/a": {"bank.example": "smtp:[a]"}}
        assert self.route(host) == hop

    def test_a_table_that_cannot_be_asked_is_said(self, make):
        host = make("transport_maps = ldap:/a\n")
        host.fake.answers[("postmap", "-q")] = (1, "", "postmap: fatal: ldap:/a: cannot contact the server\n")
        with pytest.raises(EngineError, match=r"ldap:/a"):
            self.route(host)

    def test_our_own_table_is_not_asked(self, make):
        host = make("transport_maps = hash:/a\n")
        self.route(host)
        host.fake.tables = {f"texthash:{host.directory}/transport": {"bank.example": "mailfleet-encryption_only:x"}}
        assert self.route(host) == "bank.example"
        assert {call[3] for call in host.fake.called("postmap", "-q")} == {"hash:/a"}

    @pytest.mark.parametrize("value", ["{ inline:{ x=y } }", "hash:/a, inline:{bank.example=smtp:x}"])
    def test_tables_in_braces_cannot_be_looked_up(self, make, value):
        host = make(f"transport_maps = {value}\n")
        with pytest.raises(EngineError) as error:
            host.adapter.plan(state(enforced=[outbound("bank.example")]))
        assert str(error.value) == (
            "transport_maps has tables in braces, so the route to bank.example cannot be looked up; name its servers"
        )
        assert host.adapter.plan(STATES["recipients"])
        assert host.adapter.plan(state(config("one", "plaintext", "bank.example"), enforced=[outbound("bank.example")]))


class TestNextHops:
    def hops(self, host, *configs, enforced=None):
        wanted = state(*configs, enforced=enforced or [outbound("bank.example")])
        return [str(one) for one in host.adapter.next_hops("bank.example", wanted)]

    def test_the_servers_that_are_given(self, host):
        enforced = [outbound("bank.example", "hostname", "mx.example", "[2001:db8::1]:26")]
        assert self.hops(host, enforced=enforced) == ["mx.example:25", "[2001:db8::1]:26"]
        assert not host.fake.called("posttls-finger")

    def test_those_of_the_email_config(self, host):
        assert self.hops(host, config("one", "plaintext", "bank.example", servers=["m1.example", "m2.example:26"])) == [
            "m1.example:25", "m2.example:26",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("relayhost", "hops"),
        [
            ("[relay.example]", ["relay.example:25"]),
            ("[relay.example]:2525", ["relay.example:2525"]),
            ("[relay.example]:submission", ["relay.example:587"]),
            ("[2001:db8::1]:26", ["[2001:db8::1]:26"]),
            ("[192.0.2.1]", ["192.0.2.1:25"]),
            ("[r1.example],[r2.example]:26", ["r1.example:25", "r2.example:26"]),
        ],
    )
    def test_the_relay_host(self, make, relayhost, hops):
        assert self.hops(make(f"relayhost = {relayhost}\n")) == hops

    @pytest.mark.parametrize("relayhost", ["[r1.example], [r2.example]:26", "[r1.example] [r2.example]:26"])
    def test_several_relay_hosts_as_postfix_reads_them(self, make, relayhost):
        assert self.hops(make(f"relayhost = {relayhost}\n")) == ["r1.example:25", "r2.example:26"]

    def test_a_port_that_is_not_known_is_said(self, make):
        host = make("relayhost = [relay.example]:no-such-service\n")
        with pytest.raises(
            EngineError, match=r"^the port of the next hop \[relay\.example\]:no-such-service is not known here: "
        ):
            self.hops(host)

    def test_a_table_of_the_administrator(self, make):
        host = make("transport_maps = hash:/a\n")
        host.fake.tables = {"hash:/a": {"bank.example": "smtp:[mx.example]:26"}}
        assert self.hops(host) == ["mx.example:26"]

    @pytest.mark.parametrize("relayhost", ["", "relay.example:587"])
    @pytest.mark.parametrize("stream", [1, 2])
    def test_what_is_behind_an_mx_is_looked_up_by_postfix(self, make, relayhost, stream):
        host = make(f"relayhost = {relayhost}\n")
        answer = [0, "", ""]
        answer[stream] = (
            "posttls-finger: connect to mx1.bank.example[192.0.2.1]:25: Connection refused\n"
            "posttls-finger: Connected to mx2.bank.example[192.0.2.2]:25\n"
            "posttls-finger: Connected to mx3.bank.example[2001:db8::1]:587\n"
            "posttls-finger: Connected to mx2.bank.example[192.0.2.2]:25\n"
        )
        host.fake.answers[("posttls-finger",)] = tuple(answer)
        assert self.hops(host) == ["mx2.bank.example:25", "mx3.bank.example:587"]
        assert host.fake.called("posttls-finger") == [
            ["posttls-finger", "-l", "none", "-L", "verbose", "-T", "10", relayhost or "bank.example"]
        ]

    @pytest.mark.parametrize(
        "line",
        [
            "posttls-finger: < 554 Connected to 127.0.0.1[127.0.0.1]:6379",
            "posttls-finger: < 554 posttls-finger: Connected to 127.0.0.1[127.0.0.1]:6379",
            "posttls-finger: < 554 x\rposttls-finger: Connected to 127.0.0.1[127.0.0.1]:6379",
            "posttls-finger: Connected to 127.0.0.1[127.0.0.1]:6379 and more",
            "posttls-finger: Failed to establish session to bank.example: Connected to 127.0.0.1[127.0.0.1]:6379",
            "Connected to 127.0.0.1[127.0.0.1]:6379",
            "posttls-finger: Connected to a[127.0.0.1]:6379[192.0.2.1]:25",
        ],
    )
    @pytest.mark.parametrize("stream", [1, 2])
    def test_what_a_server_says_names_no_host(self, host, line, stream):
        answer = [0, "", ""]
        answer[stream] = f"posttls-finger: Connected to mx.bank.example[192.0.2.1]:25\n{line}\n"
        host.fake.answers[("posttls-finger",)] = tuple(answer)
        assert self.hops(host) == ["mx.bank.example:25"]

    def test_nothing_found_is_no_host(self, host):
        host.fake.answers[("posttls-finger",)] = (1, "", "posttls-finger: Failed to establish session to bank.example")
        assert self.hops(host) == []


class TestRelayHosts:
    def test_our_own_table_is_no_other_way(self, make):
        host = make("relayhost = [relay.example]\n")
        write(host, STATES["a mode"])
        assert host.fake.explicit()["transport_maps"]
        assert list(host.adapter.relay_hosts()) == [Target("relay.example")]

    def test_another_table_is_one(self, make):
        host = make("relayhost = [relay.example]\ntransport_maps = hash:/a\n")
        write(host, STATES["a mode"])
        with pytest.raises(EngineError, match=r"^mail also leaves by transport_maps = hash:/a, and"):
            host.adapter.relay_hosts()

    def test_without_a_relay_host_there_is_none(self, host):
        assert list(host.adapter.relay_hosts()) == []


class TestChecks:
    """The transport of each certificate check."""

    MAIN_CF = "smtp_tls_CAfile = /etc/ssl/own.pem\n"

    def expected(self, check, host, roots):
        if check == "encryption_only":
            return {"smtp_tls_security_level": "encrypt", "smtp_tls_policy_maps": "", "smtp_fallback_relay": NO_RELAY}
        if check == "hostname":
            more = {
                "smtp_tls_policy_maps": "",
                "smtp_tls_verify_cert_match": "hostname",
                "smtp_fallback_relay": NO_RELAY,
            }
        else:
            more = {"smtp_tls_policy_maps": f"regexp:{host.directory}/trusted_chain", "smtp_fallback_relay": NO_RELAY}
        return {"smtp_tls_security_level": "verify", **more, **({"smtp_tls_CAfile": roots} if roots else {})}

    @pytest.mark.parametrize("check", CERTIFICATE_CHECKS)
    @pytest.mark.parametrize(
        ("main", "own", "roots"),
        [
            ("", False, "/etc/ssl/certs/ca-certificates.crt"),
            ("", True, "ca.pem"),
            (MAIN_CF, False, ""),
            ("smtp_tls_CApath = /etc/ssl/certs\n", False, ""),
            (MAIN_CF, True, "ca.pem"),
        ],
    )
    def test_its_options(self, make, tmp_path, check, main, own, roots):
        host = make(main)
        (tmp_path / "ca.pem").touch()
        ca_file = str(tmp_path / "ca.pem") if own else ""
        write(host, state(enforced=PARTNER + BANK, ca_file=ca_file))
        for path, chroot in ((host.etc, "y"), (host.second, "n"), (host.third, "n")):
            words = host.services(path)[f"mailfleet-{check}/unix"]
            assert words[:8] == [f"mailfleet-{check}", "unix", "-", "-", chroot, "-", "-", "smtp"]
            assert options(words) == self.expected(check, host, ca_file if own else roots)

    def test_without_enforced_recipients_there_are_none(self, host):
        write(host, STATES["senders"])
        for path in (host.etc, host.second, host.third):
            assert not [name for name in host.services(path) if name.removesuffix("/unix")[10:] in CERTIFICATE_CHECKS]
        assert not (host.directory / "trusted_chain").exists()

    def test_once_made_they_stay_for_what_is_in_the_queue(self, host):
        write(host, STATES["recipients"])
        write(host, STATES["a mode"])
        assert "mailfleet-hostname/unix" in host.services(host.etc)
        assert (host.directory / "trusted_chain").exists()
        assert host.lines("transport") == ["one.example mailfleet-required:[mx.example]:25"]
        write(host, STATES["a mode by arrival"])
        assert "mailfleet-hostname/unix" in host.services(host.second)

    def test_authorities_that_are_not_there_are_said(self, host, tmp_path):
        wanted = state(enforced=BANK, ca_file=str(tmp_path / "none.pem"))
        for look in (host.adapter.plan, host.adapter.roots):
            with pytest.raises(EngineError) as error:
                look(wanted)
            assert str(error.value) == f"ca_file: there is no file {tmp_path}/none.pem on this gateway"

    @pytest.mark.parametrize(("main", "roots"), [("", ""), (MAIN_CF, "/etc/ssl/own.pem")])
    def test_what_the_evidence_goes_by(self, make, tmp_path, main, roots):
        host = make(main)
        assert host.adapter.roots(state(enforced=BANK)) == roots
        (tmp_path / "ca.pem").touch()
        assert host.adapter.roots(state(enforced=BANK, ca_file=str(tmp_path / "ca.pem"))) == str(tmp_path / "ca.pem")

    def test_a_file_of_authorities_for_nobody_is_no_change_of_a_service(self, host, tmp_path):
        write(host, state(config("one", "required"), ca_file=str(tmp_path / "none.pem")))
        assert load_file(f"{host.directory}/gateway.json").ca_file == str(tmp_path / "none.pem")


def matches(name, patterns):
    """As Postfix compares a name in a certificate: .suffix is for every name below it."""
    return any(name.endswith(pattern) and len(name) > len(pattern) for pattern in patterns)


class TestTrustedChain:
    @pytest.fixture
    def patterns(self):
        text = gateway.trusted_chain_map()
        header, line = text.splitlines()
        assert header.startswith("# Written by")
        match = re.fullmatch(r"/\./ verify match=(\S+)", line)
        return match.group(1).split(":")

    def test_one_suffix_for_each_top_level_domain(self, patterns):
        assert patterns == [f".{name}" for name in TOP_LEVEL_DOMAINS]

    @pytest.mark.parametrize(
        "name",
        ["mx.example.com", "example.org", "mail.bank.example", "mx.fleet.test", "a.b.c.d.example.net", "mx.example.co.uk", "mx.zz",
         "*.example.com", "mx.xn--p1ai", "mx.xn--vermgensberatung-pwb", "mx.museum", "host.lan", "host.local", "host.internal"],
    )  # fmt: skip
    def test_every_kind_of_name_matches(self, patterns, name):
        assert matches(name, patterns)

    @pytest.mark.parametrize("destination", ["bank.example", "[mx.bank.example]:25", "[192.0.2.1]", "[2001:db8::1]:26"])
    def test_it_is_for_every_destination(self, destination):
        pattern = gateway.trusted_chain_map().splitlines()[1].split()[0].strip("/")
        assert re.search(pattern, destination)

    def test_each_is_a_whole_name(self):
        broken = [name for name in TOP_LEVEL_DOMAINS if not re.fullmatch(r"[a-z]{2,63}|xn--[a-z0-9-]*[a-z0-9]", name)]
        assert broken == []
        assert len(set(TOP_LEVEL_DOMAINS)) == len(TOP_LEVEL_DOMAINS)


class TestProof:
    @pytest.fixture
    def prove(self, host):
        """Write a state and prove it against a mail server on the gateway's own port; the commands that it got."""

        def prove(wanted, **face):
            write(host, wanted)
            with serving(Face(**face)) as own:
                host.ports = dict.fromkeys((own.port, 10125, 10126, 10127), Stage.EHLO)
                host.adapter.own_port = Target("127.0.0.1", own.port)
                host.adapter._settings = Settings(helo_name="gw.example", timeout=1)
                host.adapter.prove()
            return [command.decode().lower() for command in own.commands]

        return prove

    def asked(self, commands):
        return [command for command in commands if command.startswith(("mail", "rcpt"))]

    @pytest.mark.parametrize("name", ["nothing", "a mode", "recipients", "send", "tls_only", "plaintext"])
    def test_nobody_is_asked_where_arrival_does_not_count(self, prove, name):
        assert prove(STATES[name], rcpt=reply(451, "4.3.5 Server configuration error")) == []

    def test_a_mode_towards_the_internet_is_asked_for_with_the_gateways_own_name(self, prove):
        """Postfix takes mail for postmaster alone without a look at its restrictions."""
        assert self.asked(prove(STATES["send by arrival"])) == ["mail from:<>", "rcpt to:<postmaster@gw.example>"]

    @pytest.mark.parametrize(
        ("modes", "domain"),
        [
            (["required"], "one.example"),
            (["required", "match_sender"], "two.example"),
            (["match_sender_strict", "match_sender"], "one.example"),
            (["plaintext", "opportunistic"], "one.example"),
        ],
    )
    def test_or_for_an_email_config_one_that_depends_on_arrival_first(self, prove, modes, domain):
        configs = [config(name, mode) for name, mode in zip(("one", "two"), modes)]
        wanted = state(*configs, outbound=OutboundTls(None, "match_sender"))
        assert self.asked(prove(wanted)) == ["mail from:<>", f"rcpt to:<postmaster@{domain}>"]

    def test_a_policy_service_that_fails_for_it_is_said(self, prove):
        with pytest.raises(
            EngineError,
            match=r"^the gateway defers mail for postmaster@gw\.example: 451 4\.3\.5 Server configuration error$",
        ):
            prove(STATES["send by arrival"], rcpt=reply(451, "4.3.5 Server configuration error"))

    def test_a_policy_service_that_fails_for_enforced_senders_is_said(self, prove):
        """It puts them off in plaintext, but over TLS as well."""
        with pytest.raises(
            EngineError, match=r"defers all mail of enforced sender domains, over TLS as well: 451 4\.3\.5"
        ):
            prove(STATES["senders"], rcpt=reply(451, "4.3.5 Server configuration error"))

    def test_an_enforced_sender_has_to_be_put_off(self, prove):
        assert self.asked(prove(STATES["senders"], rcpt=REFUSED)) == [
            "mail from:<postmaster@partner.example>",
            "rcpt to:<postmaster@gw.example>",
        ]

    def test_both_are_asked_for_the_same_recipient(self, prove):
        assert self.asked(prove(STATES["both"], rcpt=REFUSED)) == [
            "mail from:<>",
            "rcpt to:<postmaster@one.example>",
            "mail from:<postmaster@partner.example>",
            "rcpt to:<postmaster@one.example>",
        ]

    def test_one_who_is_not_is_said(self, prove):
        with pytest.raises(
            EngineError,
            match=r"^the gateway answers mail from partner\.example in plaintext with 250 2\.1\.5 Ok; see which "
            r"restriction comes before the collection's$",
        ):
            prove(STATES["senders"])


class TestPrepare:
    """The other instances run before anything is sent to them."""

    def there(self, host):
        return host.second.exists(), host.third.exists()

    @pytest.mark.parametrize("name", STATES)
    def test_there_is_something_to_prepare_if_an_instance_is_missing(self, host, name):
        missing = STATES[name].depends_on_arrival or STATES[name].senders_enforced
        assert bool(host.adapter.prepare(STATES[name])) is missing
        write(host, STATES[name])
        assert not host.adapter.prepare(STATES[name])

    def test_the_third_is_prepared_beside_a_second_that_is_there(self, host):
        write(host, STATES["a mode by arrival"])
        assert host.adapter.prepare(STATES["senders"])
        write(host, STATES["senders"])
        for wanted in STATES.values():
            assert not host.adapter.prepare(wanted)

    @pytest.mark.parametrize("held", ["nothing", "a mode", "recipients", "send", "tls_only", "plaintext"])
    @pytest.mark.parametrize("name", ["a mode by arrival", "senders", "send by arrival", "all"])
    def test_the_instances_come_and_nothing_is_sent_to_them(self, host, held, name):
        write(host, STATES[held])
        transport = host.lines("transport") if held != "nothing" else []
        restrictions = checks(host)
        for image in host.adapter.prepare(STATES[name]).after:
            Path(image.path).parent.mkdir(parents=True, exist_ok=True)
            image.write()
        host.adapter._postconf.forget()
        assert self.there(host) == (True, STATES[name].senders_enforced)
        assert host.adapter.read() == STATES[held]
        assert host.lines("transport") == transport
        assert (host.lines("arrival"), host.lines("enforced_senders")) == ([], [])
        arrival = f"check_recipient_access texthash:{host.directory}/arrival"
        assert checks(host) == ", ".join([*([restrictions] if restrictions else []), arrival])
        assert host.adapter.plan(STATES[name])
        assert not host.adapter.plan(STATES[held])

    @pytest.fixture
    def change(self, host, tmp_path, monkeypatch):
        monkeypatch.setattr(host.adapter, "_make_places", lambda _instance: None)
        monkeypatch.setattr(host.adapter, "require_running", lambda: None)
        proved = []
        host.fake.answers[("systemctl", "cat")] = (0, "", "")

        def change(wanted, fail=None, **more):
            def prove():
                proved.append((host.adapter.read(), self.there(host)))
                if proved[-1] == (fail, (True, True)):
                    raise EngineError("no good")

            monkeypatch.setattr(host.adapter, "prove", prove)
            options = {"require_without_evidence": False, "check_mode": False, "store": str(tmp_path / "store"), **more}
            outcome = change_gateway(
                host.adapter, lambda _before: wanted, lambda *_: GatewayVerdict(), wanted=(), **options
            )
            return outcome, proved

        change.proved = proved
        return change

    def test_each_transaction_is_proved(self, host, change):
        outcome, proved = change(STATES["senders"])
        assert outcome.changed
        assert proved == [(state(), (True, True)), (STATES["senders"], (True, True))]
        assert host.adapter.read() == STATES["senders"]

    def test_the_first_stays_when_the_second_fails(self, host, change):
        with pytest.raises(TransactionError, match=r"^no good\. The former state is restored and proved$"):
            change(STATES["senders"], fail=STATES["senders"])
        assert self.there(host) == (True, True)
        assert host.adapter.read() == state()
        assert host.lines("enforced_senders") == []
        assert not host.adapter.prepare(STATES["senders"])
        change.proved.clear()
        assert change(STATES["senders"])[1] == [(STATES["senders"], (True, True))]

    def test_the_second_is_not_tried_when_the_first_fails(self, host, change):
        with pytest.raises(TransactionError, match=r"^no good\. The former state is restored and proved$"):
            change(STATES["senders"], fail=state())
        assert self.there(host) == (False, False)
        assert not (host.directory / "gateway.json").exists()
        assert change.proved == [(state(), (True, True)), (state(), (False, False))]

    def test_check_mode_applies_neither(self, host, change):
        outcome, proved = change(STATES["senders"], check_mode=True)
        assert (outcome.changed, proved, self.there(host)) == (True, [], (False, False))
        assert [one for one in outcome.diff if str(host.third) in str(one)]


class TestTransaction:
    """A change of this adapter by the engine, and what is put back."""

    @pytest.fixture
    def transact(self, host, tmp_path, monkeypatch):
        monkeypatch.setattr(host.adapter, "_make_places", lambda _instance: None)
        host.fake.answers[("systemctl", "cat")] = (0, "", "")

        def transact(wanted, prove=lambda: None):
            change = host.adapter.plan(wanted)
            with host.adapter.transaction(str(tmp_path / "store")).opened(False) as (recovered, warnings):
                assert (recovered, warnings) == (False, [])
                host.adapter.transaction(str(tmp_path / "store")).apply(change, prove, lambda: None)

        return transact

    def files(self, host):
        return {str(path): path.read_bytes() for path in (host.root / "etc").rglob("*") if path.is_file()}

    @pytest.mark.parametrize("name", [name for name in STATES if name != "nothing"])
    def test_each_state_is_reached_and_one_that_cannot_be_proved_leaves_everything_as_it_was(
        self, host, transact, name
    ):
        before = self.files(host)

        def fail():
            assert host.adapter.read() == STATES[name]
            raise EngineError("no good")

        with pytest.raises(TransactionError, match=r"^no good\. The former state is restored and proved$"):
            transact(STATES[name], fail)
        assert self.files(host) == before
        assert not host.second.exists()
        assert not host.third.exists()
        transact(STATES[name])
        assert host.adapter.read() == STATES[name]
        started = {unit for call in host.fake.called("systemctl", "start") for unit in call[2:]}
        assert len(started) == host.second.exists() + host.third.exists()


# Law: what is not ours in a list survives to the letter, ours stands in front and nowhere else, twice is once.

OURS = ["texthash:/x", "check_client_access cidr:/x", "mailfleet_arrival", "/etc/postfix-mailfleet"]
FOREIGN = st.sampled_from(
    ["hash:/a", "texthash:/x2", "texthash:/xx", "check_client_access cidr:/x2", "check_client_access cidr:/y", "permit_mynetworks",
     "mailfleet_arrival_2", "my_mailfleet_arrival", "{ check_policy_service unix:x, timeout=1 }", "proxy:texthash:/x", "$other",
     "/etc/postfix-mailfleet_enforced", "inline:{ texthash:/xy=1 }"]
)  # fmt: skip
GAP = st.sampled_from([" ", ", ", ",", "  ", " , "])


@st.composite
def lists(draw, items):
    """A setting's value: items with gaps as an administrator may write them."""
    text = ""
    for item in draw(st.lists(items, max_size=5)):
        text += (draw(GAP) if text else "") + item
    return text


@given(lists(FOREIGN), st.lists(st.sampled_from(OURS), unique=True))
def test_first_puts_ours_in_front_and_takes_them_out_again(present, entries):
    once = gateway._first(entries, OURS, present)
    assert once == ", ".join([*entries, *([present] if present else [])])
    assert gateway._first(entries, OURS, once) == once
    assert gateway._first([], OURS, once) == present


def words(text):
    return [word for word in re.split(r"[\s,]+", text) if word]


@given(lists(FOREIGN | st.sampled_from(OURS)), st.lists(st.sampled_from(OURS), unique=True))
def test_first_leaves_no_other_of_ours_and_every_foreign_word_in_its_order(present, entries):
    once = gateway._first(entries, OURS, present)
    foreign = re.sub(rf"(?<![^\s,])(?:{'|'.join(map(re.escape, OURS))})(?![^\s,])", "", present)
    assert words(once) == words(" ".join(entries)) + words(foreign)
    assert words(gateway._first(entries, OURS, once.strip(" ,"))) == words(once)


@pytest.mark.parametrize("present", ["texthash:/x hash:/a", "texthash:/x,hash:/a", "texthash:/x,  hash:/a"])
def test_first_leaves_what_is_right_already_as_it_is_written(present):
    assert gateway._first(["texthash:/x"], ["texthash:/x"], present) == present
