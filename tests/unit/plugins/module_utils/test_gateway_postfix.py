"""The delivery modes on a Postfix gateway, against a stand-in for its commands and a directory for /etc."""

import os
import re
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils.gateway import arrival_policy
from ansible_collections.mailfleet.starttls.plugins.module_utils.gateway import postfix as gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils.handshake import Handshake, Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.mode import LEVELS, MODES, EmailConfig
from ansible_collections.mailfleet.starttls.plugins.module_utils.postconf import Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils.server import postfix as server
from ansible_collections.mailfleet.starttls.plugins.module_utils.transaction import EngineError

from tests.support.fake_postfix import DEFAULTS, MAIN, MASTER, FakePostfix

OWN_PORT = Target("127.0.0.1", 25)
SETTINGS = Settings(helo_name="gw.example", timeout=0.2)
BY_ARRIVAL = ("match_sender", "match_sender_strict")
NEW = {**DEFAULTS, "tls_required_enable": "yes"}  # Postfix 3.10


def config(name, mode, *domains, servers=("mx.example",)):
    return EmailConfig(name, domains or (f"{name}.example",), tuple(map(Target.parse, servers)), mode)


def by_name(*configs):
    return {one.name: one for one in configs}


class Gateway:
    """A gateway host below a directory, and the adapter on it."""

    def __init__(self, monkeypatch, root, **fake):
        self.root = root
        self.etc = root / "etc/postfix"
        self.second = root / "etc/postfix-mailfleet"
        self.fake = FakePostfix(self.etc, **fake)
        directory = self.etc / "mailfleet-starttls"
        self.ports = {}  # port -> stage that a handshake with it reaches
        self.tested = []
        for module in (server, gateway):
            monkeypatch.setattr(module, "Postconf", lambda run: Postconf(run, str(self.etc)))
        for name, value in {
            "DIRECTORY": directory, "REGISTRY": directory / "email_configs.json",
            "TRANSPORT_MAP": directory / "transport", "ARRIVAL_MAP": directory / "arrival",
            "REPLY_FILTER": directory / "reply_filter", "POLICY": root / "usr/arrival_policy.py",
            "SECOND_DIR": self.second,
        }.items():  # fmt: skip
            monkeypatch.setattr(gateway, name, str(value))
        self.directory = directory
        monkeypatch.setattr(gateway, "FileImage", _OwnFiles())
        monkeypatch.setattr(gateway, "handshake_one", lambda target, _settings: self.test(target))
        monkeypatch.setattr(gateway, "wait_until", lambda _condition, target, *_: self.test(target))
        self.adapter = gateway.PostfixGateway(self.fake, SETTINGS, OWN_PORT, 10125)

    def test(self, target):
        self.tested.append(str(target))
        stage = self.ports.get(target.port, Stage.CONNECT)
        failure = {} if stage else {"code": "connect_failed", "message": "cannot connect"}
        return Handshake(target, stage, **failure)

    def plan(self, *configs):
        return self.adapter.plan(by_name(*configs))

    def apply(self, *configs):
        change = self.plan(*configs)
        for image in change.after:
            Path(image.path).parent.mkdir(parents=True, exist_ok=True)
            image.write()
        return change

    def services(self, path):
        text = re.sub(r"\n\s+", " ", (path / "master.cf").read_text())
        lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
        return {f"{words[0]}/{words[1]}": words for words in lines}


class _OwnFiles:
    """FileImage whose new files belong to whoever runs the tests."""

    read = staticmethod(FileImage.read)

    def __call__(self, path, content, mode=0o644):
        return FileImage(path, content, mode, os.getuid(), os.getgid())


@pytest.fixture
def make(monkeypatch, tmp_path):
    def make(main="", **fake):
        host = Gateway(monkeypatch, tmp_path, main=MAIN + main, **fake)
        return host

    return make


@pytest.fixture
def host(make):
    return make()


class TestMaps:
    def test_the_transport_map_has_a_line_for_each_domain(self):
        configs = by_name(
            config("zeta", "required", "z.example", servers=["mx.example:2525"]),
            config(
                "alpha",
                "match_sender",
                "b.example",
                "a.example",
                servers=["m1.example", "[2001:db8::1]:26", "192.0.2.1"],
            ),
        )
        assert gateway.transport_map(configs).splitlines()[1:] == [
            "b.example mailfleet-match_sender:[m1.example]:25,[2001:db8::1]:26,[192.0.2.1]:25",
            "a.example mailfleet-match_sender:[m1.example]:25,[2001:db8::1]:26,[192.0.2.1]:25",
            "z.example mailfleet-required:[mx.example]:2525",
        ]

    @pytest.mark.parametrize("mode", MODES)
    def test_the_arrival_map_has_the_domains_for_which_arrival_matters(self, mode):
        text = gateway.arrival_map(by_name(config("one", mode, "a.example", "b.example")))
        wanted = ["a.example mailfleet_arrival", "b.example mailfleet_arrival"] if mode in BY_ARRIVAL else []
        assert text.splitlines()[1:] == wanted

    @pytest.mark.parametrize("make_map", [gateway.transport_map, gateway.arrival_map])
    def test_without_email_configs_only_the_header_is_left(self, make_map):
        assert make_map({}).startswith("# Written by mailfleet.starttls from email_configs.json")
        assert make_map({}).count("\n") == 1

    def test_a_next_hop_is_never_an_mx_name(self):
        assert gateway.next_hop(Target("mx.example")) == "[mx.example]:25"
        assert gateway.next_hop(Target("2001:db8::1", 26)) == "[2001:db8::1]:26"


class TestPlan:
    def test_a_gateway_without_email_configs_is_left_alone(self, host):
        assert not host.plan()

    def test_modes_that_do_not_depend_on_arrival_need_one_instance(self, host):
        host.apply(*(config(mode, mode) for mode in MODES if mode not in BY_ARRIVAL))
        assert not host.second.exists()
        assert not (host.root / "usr").exists()
        explicit = host.fake.explicit()
        assert explicit["transport_maps"] == f"texthash:{host.directory}/transport"
        assert not [name for name in explicit if name.startswith(("multi_instance", "smtpd_r", "mailfleet"))]
        assert "mailfleet-arrived/unix" not in host.services(host.etc)

    @pytest.mark.parametrize("mode", BY_ARRIVAL)
    def test_match_sender_brings_the_second_instance_and_the_policy_service(self, host, mode):
        host.apply(config("one", mode))
        explicit = host.fake.explicit()
        assert explicit["smtpd_recipient_restrictions"] == f"check_recipient_access texthash:{host.directory}/arrival"
        assert explicit["smtpd_restriction_classes"] == "mailfleet_arrival"
        assert explicit["mailfleet_arrival"] == "check_policy_service unix:private/mailfleet_arrival"
        assert explicit["multi_instance_directories"] == str(host.second)
        assert explicit["multi_instance_enable"] == "yes"
        policy = host.root / "usr/arrival_policy.py"
        assert policy.read_bytes() == Path(arrival_policy.__file__).read_bytes()
        assert policy.stat().st_mode & 0o777 == 0o755
        services = host.services(host.etc)
        assert services["mailfleet_arrival/unix"][-3:] == ["-I", str(policy), "mailfleet-arrived:[127.0.0.1]:10125"]
        assert "user=nobody" in services["mailfleet_arrival/unix"]
        arrived = services["mailfleet-arrived/unix"]
        assert "smtp_send_xforward_command=yes" in arrived
        assert "smtp_tls_security_level=none" in arrived

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
            assert put_off is (LEVELS[mode][instance] == "none")

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
        assert second["mynetworks"] == "127.0.0.0/8"
        assert second["smtpd_relay_restrictions"] == "permit_mynetworks, reject"
        assert second["smtpd_authorized_xforward_hosts"] == "127.0.0.0/8"
        assert second["mydestination"] == ""
        assert second["authorized_submit_users"] == ""
        listeners = [words for name, words in host.services(host.second).items() if name.endswith("/inet")]
        assert [words[0] for words in listeners] == ["127.0.0.1:10125"]

    def test_the_second_instance_shares_what_is_sent_with_and_not_what_is_received_with(self, make):
        host = make(
            "smtp_tls_CAfile = /etc/ssl/ca.pem\nmaximal_queue_lifetime = 3d\nmessage_size_limit = 1\n"
            "smtpd_milters = inet:127.0.0.1:8891\nvirtual_alias_maps = hash:/x\nheader_checks = regexp:/y\n"
            "content_filter = smtp:[127.0.0.1]:10024\nalways_bcc = archive@example.com\nmydestination = gw.example\n"
            "transport_maps = hash:/etc/postfix/transport\n"
        )
        host.apply(config("one", "match_sender"))
        second = host.fake.explicit(host.second)
        assert second["smtp_tls_CAfile"] == "/etc/ssl/ca.pem"
        assert second["maximal_queue_lifetime"] == "3d"
        assert second["message_size_limit"] == "1"
        assert second["relay_domains"] == "alpha.example, beta.example"
        assert second["transport_maps"] == f"texthash:{host.directory}/transport, hash:/etc/postfix/transport"
        alien = ("smtpd_milters", "virtual_alias_maps", "header_checks", "content_filter", "always_bcc", "smtpd_banner")
        assert not set(alien) & set(second)

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
        assert explicit["smtpd_restriction_classes"] == "mailfleet_arrival, mine"

    def test_foreign_lines_survive(self, host):
        host.apply(config("one", "required"))
        assert host.fake.main.read_text().startswith(MAIN)
        assert host.fake.master.read_text().startswith(MASTER)

    @pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in BY_ARRIVAL])
    @pytest.mark.parametrize("defaults", [DEFAULTS, NEW], ids=["3.7", "3.10"])
    def test_a_second_run_changes_nothing(self, make, mode, defaults):
        host = make("transport_maps = hash:/a\n", defaults=defaults)
        assert host.apply(config("one", mode))
        assert not host.plan(config("one", mode))

    @pytest.mark.parametrize("mode", BY_ARRIVAL)
    def test_a_second_run_changes_nothing_with_two_instances(self, make, mode):
        host = make("relayhost = [smart.example]\n")
        assert host.apply(config("one", mode))
        assert not host.plan(config("one", mode))

    @pytest.mark.parametrize(
        ("main", "defaults"),
        [("unknown_local_recipient_reject_code = 550\n", DEFAULTS), ("", NEW)],
        ids=["a setting after transport_maps", "3.10"],
    )
    def test_a_second_run_changes_nothing_with_two_instances_whatever_main_cf_says(self, make, main, defaults):
        host = make(main, defaults=defaults)
        host.apply(config("one", "match_sender"))
        assert [image.path for image in host.plan(config("one", "match_sender")).after] == []

    def test_the_header_that_turns_tls_off_is_not_obeyed_by_postfix_3_10(self, make):
        host = make(defaults=NEW)
        host.apply(config("one", "match_sender"))
        assert host.fake.explicit()["tls_required_enable"] == "no"
        assert host.fake.explicit(host.second)["tls_required_enable"] == "no"

    def test_an_older_postfix_gets_no_setting_that_it_does_not_know(self, host):
        host.apply(config("one", "match_sender"))
        assert "tls_required_enable" not in host.fake.explicit()
        assert "tls_required_enable" not in host.fake.explicit(host.second)

    def test_a_second_instance_that_is_there_stays_in_use(self, host):
        host.apply(config("one", "match_sender"))
        change = host.apply(config("one", "plaintext"))
        assert sorted(Path(image.path).name for image in change.after) == ["arrival", "email_configs.json", "transport"]
        assert host.second.exists()
        assert (host.directory / "arrival").read_text().count("\n") == 1

    def test_a_mode_change_touches_its_tables_only(self, host):
        host.apply(config("one", "plaintext"))
        change = host.apply(config("one", "required"))
        assert sorted(Path(image.path).name for image in change.after) == ["email_configs.json", "transport"]

    def test_email_configs_that_all_went_leave_empty_tables(self, host):
        host.apply(config("one", "plaintext"))
        assert host.apply()
        assert host.adapter.read() == {}
        assert not host.plan()


class TestRead:
    def test_nothing_yet(self, host):
        assert host.adapter.read() == {}

    def test_what_was_written(self, host):
        configs = by_name(config("one", "required", servers=["[2001:db8::1]:26"]), config("two", "plaintext"))
        host.apply(*configs.values())
        assert host.adapter.read() == configs

    @pytest.mark.parametrize("content", [b"{", b"\xff", b"[1]", b'[{"name": "x"}]'])
    def test_junk_names_the_file(self, host, content):
        host.directory.mkdir()
        (host.directory / "email_configs.json").write_bytes(content)
        with pytest.raises(
            EngineError, match=r"email_configs\.json cannot be read .*it is written by this module only"
        ):
            host.adapter.read()


class TestRunning:
    def test_a_postfix_that_does_not_run_is_said(self, host):
        host.fake.answers[(*server.POSTFIX, "status")] = (1, "", "")
        with pytest.raises(EngineError, match="Postfix is not running"):
            host.adapter.require_running()

    def test_a_port_that_is_taken_is_said(self, host):
        host.ports[10125] = Stage.GREETING
        with pytest.raises(
            EngineError, match=r"another service answers on 127\.0\.0\.1:10125; name a free port with reinjection_port"
        ):
            host.adapter.require_running()

    def test_the_port_of_our_own_second_instance_is_not_asked(self, host):
        host.ports[10125] = Stage.EHLO
        host.second.mkdir()
        host.adapter.require_running()
        assert host.tested == []

    def test_a_free_port_is_fine(self, host):
        host.adapter.require_running()
        assert host.tested == ["127.0.0.1:10125"]

    def test_a_port_taken_by_something_that_is_no_mail_server_is_said(self, host, monkeypatch):
        answer = Handshake(Target("127.0.0.1", 10125), Stage.CONNECT, "not_smtp", "not an SMTP reply: 'HTTP/1.1 400'")
        monkeypatch.setattr(gateway, "handshake_one", lambda *_: answer)
        with pytest.raises(EngineError, match="another service answers"):
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

    def test_with_two_instances_it_serves_if_both_ports_take_mail(self, host):
        host.apply(config("one", "match_sender"))
        host.ports[25] = Stage.EHLO
        assert host.adapter.serves() is False
        host.ports[10125] = Stage.EHLO
        assert host.adapter.serves() is True
        host.ports[25] = Stage.CONNECT
        assert host.adapter.serves() is False

    def test_both_instances_have_to_answer(self, host):
        host.ports[25] = Stage.EHLO_TLS
        host.apply(config("one", "match_sender"))
        with pytest.raises(EngineError, match=r"does not answer on 127\.0\.0\.1:10125"):
            host.adapter.prove()
        host.ports[10125] = Stage.EHLO
        host.adapter.prove()


class TestCommands:
    BOOKWORM = "[Service]\nExecStart=/usr/sbin/postmulti -i %i -p start\n"
    TRIXIE = "[Service]\nExecStart=/usr/sbin/postfix -c /etc/postfix-%I start\n"

    def test_the_check_of_one_instance(self, host):
        host.adapter.check()
        assert host.fake.calls == [[*server.POSTFIX, "check"]]

    def test_the_check_of_both_instances(self, host, monkeypatch):
        made = []
        monkeypatch.setattr(host.adapter, "_make_second_places", lambda: made.append(True))
        host.apply(config("one", "match_sender"))
        host.fake.calls.clear()
        host.adapter.check()
        assert made
        assert host.fake.calls == [["postfix", "-c", str(host.second), "check"], [*server.POSTFIX, "check"]]
        host.fake.answers[("postfix", "-c")] = (1, "", "fatal: no\n")
        with pytest.raises(EngineError, match=r"^postfix -c .* check failed: fatal: no$"):
            host.adapter.check()

    def test_the_places_of_the_second_instance_are_made(self, host, monkeypatch):
        owners = {}
        monkeypatch.setattr(gateway, "Path", lambda path, *more: Path(f"{host.root}{path}", *more))
        monkeypatch.setattr(gateway.shutil, "chown", lambda path, owner: owners.update({path: owner}))
        for name in ("var/spool", "var/lib"):
            (host.root / name).mkdir(parents=True)
        host.adapter._make_second_places()
        host.adapter._make_second_places()
        assert owners == {"/var/spool/postfix-mailfleet": "root", "/var/lib/postfix-mailfleet": "postfix"}
        assert (host.root / "var/spool/postfix-mailfleet").is_dir()

    @pytest.mark.parametrize(
        ("template", "unit", "enabled"),
        [(BOOKWORM, "postfix@postfix-mailfleet.service", False), (TRIXIE, "postfix@mailfleet.service", True)],
    )
    def test_reload_starts_the_second_instance_under_its_systems_name(self, host, template, unit, enabled):
        host.apply(config("one", "match_sender"))
        host.fake.answers[("systemctl", "cat")] = (0, template, "")
        host.fake.calls.clear()
        host.adapter.reload()
        commands = [call for call in host.fake.calls if call[0] != "postconf"]
        assert commands == [
            ["systemctl", "cat", "postfix@.service"],
            ["systemctl", "daemon-reload"],
            *([["systemctl", "enable", "--quiet", unit]] if enabled else []),
            ["systemctl", "start", unit],
            ["postfix", "reload"],
        ]

    def test_reload_stops_a_second_instance_that_the_files_do_not_have(self, host):
        host.adapter.reload()
        assert host.fake.called("systemctl", "stop") == [["systemctl", "stop", "postfix@postfix-mailfleet.service"]]
        assert host.fake.called("systemctl", "reset-failed")
        assert host.fake.calls[-1] == ["postfix", "reload"]

    def test_resuming_is_reloading(self, host):
        host.adapter.resume()
        assert host.fake.called("systemctl", "stop")
        assert host.fake.calls[-1] == ["postfix", "reload"]

    def test_reload_of_one_instance_leaves_systemd_alone(self, host):
        host.fake.answers[("systemctl", "is-active")] = (3, "", "")
        host.adapter.reload()
        assert not host.fake.called("systemctl", "stop")
        assert not host.fake.called("systemctl", "start")

    def test_a_unit_that_does_not_start_is_said(self, host):
        host.apply(config("one", "match_sender"))
        host.fake.answers[("systemctl", "start")] = (1, "", "Job failed.\n")
        with pytest.raises(
            EngineError, match=r"^systemctl start postfix@postfix-mailfleet\.service failed: Job failed\.$"
        ):
            host.adapter.reload()


def test_the_adapter_says_what_it_can():
    assert gateway.PostfixGateway.modes == MODES
    assert gateway.PostfixGateway.name == "postfix-gateway"
