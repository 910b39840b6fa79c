"""A gateway whose mail goes through a content filter, in the modes that depend on how mail arrived."""

import re
import shutil
import subprocess

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import describe
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState, OutboundTls
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import amavis, gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, PortInUseError

from tests.support.fake_postfix import MAIN, MASTER
from tests.support.postfix_host import OWN_PORT, SETTINGS, PostfixHost, config, edit, inbound

FILTER = "content_filter = smtp-amavis:[127.0.0.1]:10024\n"
TRANSPORT = "smtp-amavis unix - - - - 2 smtp\n  -o smtp_send_xforward_command=yes\n"
HAND_BACK = """\
127.0.0.1:10025 inet n - - - - smtpd
  -o content_filter=
  -o smtpd_client_restrictions=permit_mynetworks,reject
  -o { smtpd_recipient_restrictions = permit_mynetworks, reject }
  -o mynetworks=127.0.0.0/8
"""
DEBIAN = """\
use strict;
# $inet_socket_port = 9998; # forward_method => 'x'
$inet_socket_port = 10024;   # default listening socket
$policy_bank{'MYNETS'} = { originating => 1 };
1;
"""
MODE = config("one", "match_sender")
PORTS = (25, 10024, 10125, 10126, 10127, 10128, 10129, 10130, 10131)


@pytest.fixture
def make(monkeypatch, tmp_path):
    def make(main=FILTER, master=MASTER + TRANSPORT + HAND_BACK, conf=DEBIAN, named=""):
        directory = tmp_path / "etc/amavis/conf.d"
        if conf is not None:
            directory.mkdir(parents=True)
            (directory / "20-debian_defaults").write_text(conf)
        host = PostfixHost(monkeypatch, tmp_path, main=MAIN + main, master=master)
        host.ports = dict.fromkeys(PORTS, Stage.EHLO)
        host.conf = directory
        host.file = directory / amavis.FILE
        host.named = lambda value: renew(host, value)
        return host.named(named) if named else host

    def renew(host, named):
        """The adapter of another call, with this value of tls_filter."""
        host.adapter = gateway.PostfixGateway(host.fake, SETTINGS, OWN_PORT, 10125, host.layout, named)
        return host

    return make


@pytest.fixture
def host(make):
    return make()


def refused(host, *configs, **more):
    with pytest.raises(EngineError) as error:
        host.plan(*(configs or [MODE]), **more)
    return str(error.value)


def destinations(host):
    return host.services(host.etc)["mailfleet_arrival/unix"][-3:-1]


class TestWay:
    def test_mail_over_tls_goes_to_another_port_of_the_same_filter(self, host):
        host.apply(MODE)
        assert destinations(host)[0] == "smtp-amavis:[127.0.0.1]:10129"
        assert host.fake.explicit()["content_filter"] == "smtp-amavis:[127.0.0.1]:10024"

    def test_the_port_of_ours_has_the_settings_of_the_administrators_own(self, host):
        host.apply(MODE)
        services = {one.name: one for one in Postconf(host.fake, str(host.etc)).services()}
        own, ours = services["127.0.0.1:10025/inet"], services["127.0.0.1:10128/inet"]
        assert ours.settings == {**own.settings, "content_filter": "mailfleet-arrived:[127.0.0.1]:10125"}
        assert ours.fields[1:] == own.fields[1:]

    def test_what_comes_back_from_an_instance_is_not_filtered_again(self, host):
        host.apply(MODE)
        services = {one.name: one for one in Postconf(host.fake, str(host.etc)).services()}
        assert services["127.0.0.1:10126/inet"].settings["content_filter"] == ""

    def test_without_a_filter_nothing_of_it_is_there(self, make):
        host = make(main="")
        host.apply(MODE)
        assert destinations(host)[0] == "mailfleet-arrived:[127.0.0.1]:10125"
        assert not host.file.exists()
        text = host.fake.master.read_text()
        assert "10128" not in text
        assert text.count("content_filter") == HAND_BACK.count("content_filter")

    @pytest.mark.parametrize(
        "more", [{"enforced": inbound("partner.example")}, {"outbound": OutboundTls(None, "match_sender")}]
    )
    def test_all_that_depends_on_arrival_takes_this_way(self, host, more):
        host.apply(**more)
        wanted = {1: "10129", 2: "10131"} if "enforced" in more else {1: "10129"}
        assert destinations(host)[: len(wanted)] == [f"smtp-amavis:[127.0.0.1]:{port}" for port in wanted.values()]
        leads = Postconf(host.fake, str(host.etc)).overrides("content_filter")
        backs = {"127.0.0.1:10128/inet": "mailfleet-arrived:[127.0.0.1]:10125"}
        if "enforced" in more:
            backs["127.0.0.1:10130/inet"] = "mailfleet-arrived:[127.0.0.1]:10127"
        assert {name: value for name, value in leads.items() if value} == backs

    def test_a_second_run_changes_nothing(self, host):
        host.apply(MODE)
        assert not host.plan(MODE)
        host.named("")
        assert not host.plan(MODE)

    def test_the_plan_shows_the_lines(self, host):
        lines = "".join(text for _path, text in host.plan(MODE).lines())
        for part in ("127.0.0.1:10128", "smtp-amavis:[127.0.0.1]:10129", "forward_method"):
            assert part in lines, part

    def test_a_mode_that_does_not_depend_on_arrival_leaves_the_filter_alone(self, host):
        host.apply(config("one", "required"))
        assert not host.file.exists()
        assert "10128" not in host.fake.master.read_text()

    def test_another_mode_afterwards_leaves_the_way_for_what_is_queued(self, host):
        host.apply(MODE)
        host.apply(config("one", "required"))
        assert host.file.exists()
        assert "127.0.0.1:10128/inet" in host.services(host.etc)

    def test_a_filter_that_goes_takes_all_of_it_along(self, host):
        host.apply(MODE)
        edit(host, content_filter=None)
        host.apply(MODE)
        assert not host.file.exists()
        assert "127.0.0.1:10128/inet" not in host.services(host.etc)
        assert destinations(host)[0] == "mailfleet-arrived:[127.0.0.1]:10125"

    def test_an_uninstallation_takes_the_file_and_the_ports(self, host):
        before = host.fake.master.read_text()
        host.apply(MODE)
        assert str(host.file) in {image.path for image in host.adapter.own_files()}
        images = {image.path: image for image in host.adapter.stripped({})}
        assert images[str(host.fake.master)].content.decode() == before

    def test_the_ports_have_to_be_free(self, host):
        del host.ports[10125], host.ports[10126], host.ports[10127]
        with pytest.raises(PortInUseError, match=r"127\.0\.0\.1:10128; name a free port with reinjection_port"):
            host.adapter.require_running()
        for port in PORTS[5:]:
            del host.ports[port]
        host.adapter.require_running()


class TestAmavis:
    def test_the_file_is_read_last_and_gives_a_bank_to_the_port(self, host):
        host.apply(MODE)
        text = host.file.read_text()
        assert sorted(path.name for path in host.conf.iterdir())[-1] == amavis.FILE
        assert "foreach (['10129', '10128']) {" in text
        assert amavis.ports(text.encode()) == [Target("127.0.0.1", 10129), Target("127.0.0.1", 10024)]

    @pytest.mark.skipif(not shutil.which("perl"), reason="there is no perl here")
    @pytest.mark.parametrize(
        ("settings", "ports", "bank"),
        [
            ("$inet_socket_port = 10024;", "10024 10129", "forward_method=smtp:[127.0.0.1]:10128"),
            ("$inet_socket_port = [10024, 9998];", "10024 9998 10129", "forward_method=smtp:[127.0.0.1]:10128"),
            (
                "$inet_socket_port = 10024; $interface_policy{'127.0.0.1:10024'} = 'IN'; $policy_bank{IN} = {x => 1};",
                "10024 10129",
                "forward_method=smtp:[127.0.0.1]:10128 x=1",
            ),
        ],
    )
    def test_perl_adds_the_port_and_keeps_what_is_there(self, tmp_path, settings, ports, bank):
        (tmp_path / "ours").write_bytes(amavis.configuration(10024, {10129: 10128}))
        program = (
            "our ($inet_socket_port, %interface_policy, %policy_bank); "
            f"$interface_policy{{'10024'}} = 'OWN'; {settings} "
            f"my $text = do {{ local (@ARGV, $/) = ('{tmp_path}/ours'); <> }}; $text =~ s/use strict;//; eval $text; die $@ if $@; "
            "print \"@$inet_socket_port\\n$interface_policy{10129}\\n$interface_policy{'127.0.0.1:10129'}\\n\"; "
            "my $b = $policy_bank{MAILFLEET_10129}; print join ' ', map { \"$_=$b->{$_}\" } grep { defined $b->{$_} } sort keys %$b;"
        )
        done = subprocess.run(["perl", "-e", program], capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert done.stdout.splitlines() == [ports, "OWN", "MAILFLEET_10129", bank]

    def test_it_is_reloaded_before_postfix_and_once(self, host):
        host.apply(MODE)
        host.running.add("/var/spool/postfix-mailfleet")
        host.fake.calls.clear()
        host.adapter.reload()
        calls = [call for call in host.fake.calls if call[0] != "postconf"]
        amavis_at = calls.index(["systemctl", "reload", "amavis.service"])
        assert amavis_at < calls.index(["postfix", "-c", str(host.etc), "reload"])
        host.fake.calls.clear()
        host.adapter.reload()
        assert not host.fake.called("systemctl", "reload")

    def test_it_loses_its_port_after_postfix_has_been_told(self, host):
        host.apply(MODE)
        host.named("")
        host.file.unlink()
        host.fake.calls.clear()
        host.adapter.reload()
        calls = [call for call in host.fake.calls if call[0] != "postconf"]
        assert calls.index(["systemctl", "reload", "amavis.service"]) > calls.index(
            ["postfix", "-c", str(host.etc), "reload"]
        )

    def test_it_is_never_restarted(self, host):
        host.apply(MODE)
        host.adapter.reload()
        assert not host.fake.called("systemctl", "restart")

    def test_a_gateway_without_it_asks_nothing_of_it(self, make):
        host = make(main="")
        host.apply(MODE)
        host.adapter.reload()
        assert not [call for call in host.fake.calls if "amavis" in " ".join(call)]

    def test_what_it_cannot_read_is_said_before_the_reload(self, host):
        host.apply(MODE)
        said = 'Error in config file "/etc/amavis/conf.d/60-x": syntax error\nmore\n'
        host.fake.answers[("runuser",)] = (1, said, "head: cannot open /etc/mailname\n")
        with pytest.raises(
            EngineError, match=r'cannot read its configuration: Error in config file "/etc/amavis/conf\.d/60-x"'
        ):
            amavis.check(host.fake)

    def test_a_port_that_does_not_come_is_an_error(self, host):
        host.apply(MODE)
        host.ports[10129] = Handshake(
            Target("127.0.0.1", 10129), Stage.CONNECT, code="connect_failed", message="refused"
        )
        with pytest.raises(
            EngineError,
            match=r"amavis does not answer on 127\.0\.0\.1:10129 within 60 s after the change: refused; see what its log says",
        ):
            host.adapter.reload()

    @pytest.mark.parametrize("left", ["", "1;\n"])
    def test_a_file_of_ours_that_somebody_emptied_goes_as_well(self, host, left):
        host.apply(MODE)
        host.file.write_text(left)
        host.named("")
        host.file.unlink()
        host.adapter.reload()
        assert ["systemctl", "reload", "amavis.service"] in host.fake.calls

    def test_a_reload_that_fails_names_the_unit(self, host):
        host.fake.answers[("systemctl", "reload")] = (1, "", "Job for amavis.service failed.\n")
        with pytest.raises(
            EngineError, match=r"^amavis cannot be reloaded: Job for .*; see: systemctl status amavis\.service"
        ):
            amavis.reload(host.fake, Target("127.0.0.1", 10024))

    @pytest.mark.parametrize(
        "line",
        [
            "$policy_bank{'ORIGINATING'} = { forward_method => 'smtp:[127.0.0.1]:10027' };",
            "$policy_bank{'A'}{'forward_method'} = 'smtp:[127.0.0.1]:10027';",
            "$policy_bank{A} = { 'resend_method' => 'smtp:[127.0.0.1]:10027' };",
            "@forward_method_maps = (sub { 'smtp:[127.0.0.1]:10027' });",
            "$forward_method_maps_by_ccat{+CC_CATCHALL} = [];",
        ],
    )
    def test_mail_that_may_be_handed_back_elsewhere_is_refused(self, make, line):
        host = make(conf=f"{DEBIAN}\n{line}\n")
        text = refused(host)
        assert text.startswith("main.cf sets content_filter=smtp-amavis:[127.0.0.1]:10024, which cannot be combined")
        assert f"{host.conf}/20-debian_defaults sets forward_method" in text

    def test_a_comment_is_no_setting(self, make):
        host = make(conf=f"{DEBIAN}# forward_method => 'smtp:[127.0.0.1]:10027'\n")
        assert host.plan(MODE)

    def test_files_that_amavis_does_not_read_do_not_count(self, make):
        host = make()
        (host.conf / "50-user.dpkg-old").write_text("@forward_method_maps = ();")
        assert host.plan(MODE)


STEP = "give the filter a second port on 127.0.0.1 that hands mail back to 127.0.0.1:10128, and name it in tls_filter"


class TestRefusals:
    @pytest.mark.parametrize(
        "value",
        [
            "scan:dummy",
            "smtp-amavis:unix:/run/x",
            "smtp-amavis:[192.0.2.1]:10024",
            "smtp-amavis:[127.0.0.1]:0",
            "smtp-amavis:[127.0.0.1]:99999",
            "smtp-amavis:[127.0.0.1]:10099",
            "missing:[127.0.0.1]:10024",
        ],
    )
    def test_a_filter_without_a_second_port(self, make, value):
        host = make(
            main=f"content_filter = {value}\n",
            master=f"{MASTER}{TRANSPORT}{HAND_BACK}scan unix - n n - 10 pipe\n  flags=Rq argv=/x\n",
        )
        text = refused(host)
        assert text.startswith(
            f"main.cf sets content_filter={value}, which cannot be combined with a mode that depends on how"
        )
        assert STEP in text

    def test_a_filter_before_the_queue(self, make):
        host = make(main="smtpd_proxy_filter = 127.0.0.1:10024\n")
        assert "make it a content_filter of main.cf or a milter, or choose plaintext" in refused(host)

    @pytest.mark.parametrize("value", ["smtp-amavis:[127.0.0.1]:10024", ""])
    def test_a_filter_of_the_listener_alone(self, make, value):
        main = "" if value else FILTER
        master = re.sub(r"(smtp +inet.*smtpd)\n", rf"\1\n  -o content_filter={value}\n", MASTER) + TRANSPORT + HAND_BACK
        text = refused(make(main=main, master=master))
        assert text.startswith(f"smtp/inet sets content_filter={value}, which")
        assert "set it in main.cf alone: postconf -PX 'smtp/inet/content_filter'" in text

    @pytest.mark.parametrize(
        ("back", "named"),
        [
            ("", "none"),
            (HAND_BACK.replace("  -o content_filter=\n", ""), "none"),
            (HAND_BACK + HAND_BACK.replace("10025", "10026"), "127.0.0.1:10025/inet, 127.0.0.1:10026/inet"),
        ],
    )
    def test_no_port_or_several_that_take_mail_back(self, make, back, named):
        text = refused(make(master=MASTER + TRANSPORT + back))
        assert f"(found: {named}); write it as Postfix's FILTER_README does, or choose" in text

    def test_a_hand_back_port_with_the_restrictions_of_main_cf(self, make):
        """The policy service would be asked there again."""
        back = re.sub(r"  -o \{ smtpd_rec.*\n", "", HAND_BACK)
        text = refused(make(master=MASTER + TRANSPORT + back))
        step = "postconf -P '127.0.0.1:10025/inet/smtpd_recipient_restrictions=permit_mynetworks,reject'"
        assert f"give it its own: {step}, or choose" in text

    def test_the_modes_that_do_not_depend_on_arrival_have_no_such_needs(self, make):
        host = make(main="content_filter = scan:dummy\n", master=MASTER)
        assert host.plan(config("one", "opportunistic"))


class TestAnotherFilter:
    NAMED = "scan:[127.0.0.1]:10036"
    MASTER = f"{MASTER}scan unix - - n - 4 lmtp\n{HAND_BACK}"

    @pytest.fixture
    def make_other(self, make):
        def make_other(named=self.NAMED):
            return make("content_filter = scan:[127.0.0.1]:10024\n", self.MASTER, None, named)

        return make_other

    def test_its_second_port_is_used_and_its_configuration_left_alone(self, make_other):
        host = make_other()
        host.apply(MODE)
        assert destinations(host)[0] == self.NAMED
        assert "127.0.0.1:10128/inet" in host.services(host.etc)
        assert not host.conf.exists()
        assert not host.plan(MODE)

    def test_a_pipe_may_have_one_as_well(self, make):
        master = f"{self.MASTER}old unix - n n - 10 pipe\n  flags=Rq argv=/x\n"
        host = make("content_filter = old:dummy\n", master, None, self.NAMED)
        host.apply(MODE)
        assert destinations(host)[0] == self.NAMED

    @pytest.mark.parametrize(
        "value",
        [
            "scan",
            "scan:[192.0.2.1]:10036",
            "scan:[127.0.0.1]:x",
            "pickup:[127.0.0.1]:10036",
            "none:[127.0.0.1]:1",
            "scan:[127.0.0.1]:10036\nx = y",
        ],
    )
    def test_what_names_no_port_is_refused_by_the_options_name(self, make_other, value):
        text = refused(make_other(value))
        assert text.startswith("tls_filter: ")
        assert "starttls_tls_filter" in text
        assert "\n" not in text

    def test_the_port_of_content_filter_is_no_second_port(self, make_other):
        text = refused(make_other("scan:127.0.0.1:10024"))
        assert text.startswith("tls_filter: scan:127.0.0.1:10024 is the port of content_filter itself")
        assert "hands mail back to 127.0.0.1:10128" in text

    def test_enforced_senders_need_one_more_port(self, make_other):
        host = make_other()
        assert "an inbound enforced domain needs one more" in refused(host, MODE, enforced=inbound("partner.example"))

    def test_without_a_content_filter_it_means_nothing(self, make):
        host = make(main="", named=self.NAMED)
        host.apply(MODE)
        assert destinations(host)[0] == "mailfleet-arrived:[127.0.0.1]:10125"


class TestTruth:
    @pytest.fixture
    def host(self, make, tmp_path):
        host = make()
        host.apply(MODE)
        host.running.add("/var/spool/postfix-mailfleet")
        host.store = str(tmp_path / "store")
        return host

    def found(self, host):
        return [one["message"] for one in describe(host.adapter, store=host.store)["differences"]]

    def test_as_it_was_set(self, host):
        assert self.found(host) == []
        assert host.adapter.delivers(["one.example"]) == {"one.example": "match_sender"}

    def test_a_filter_that_does_not_answer(self, host):
        host.ports[10129] = Handshake(
            Target("127.0.0.1", 10129), Stage.CONNECT, code="connect_failed", message="refused"
        )
        assert self.found(host) == [
            "the content filter does not answer on 127.0.0.1:10129, so mail over TLS waits for it"
        ]
        assert not host.adapter.serves()
        with pytest.raises(
            EngineError, match=r"nobody answers on 127\.0\.0\.1:10129, where mail that arrived over TLS"
        ):
            host.adapter.prove()

    def test_a_file_that_was_edited(self, host):
        host.file.write_text("1;\n")
        assert self.found(host) == [f"{host.file} does not give the content filter its port for mail over TLS"]
        assert host.plan(MODE)

    def test_a_hand_back_port_that_is_gone_or_wider(self, host):
        edit(host, {"127.0.0.1:10128/inet": "127.0.0.1:10128 inet n - - - - smtpd"})
        assert self.found(host) == [
            "master.cf does not take mail back from the content filter in the service 127.0.0.1:10128/inet"
        ]
        assert host.adapter.delivers(["one.example"]) == {"one.example": None}

    def test_a_filter_that_was_set_afterwards(self, make, tmp_path):
        host = make(main="")
        host.apply(MODE)
        host.running.add("/var/spool/postfix-mailfleet")
        host.store = str(tmp_path / "store")
        edit(host, content_filter="smtp-amavis:[127.0.0.1]:10024")
        (said,) = self.found(host)
        assert "the policy service answers 'FILTER mailfleet-arrived:[127.0.0.1]:10125' for mail over TLS" in said

    def test_mail_that_waits_for_the_filter_is_seen_before_an_uninstallation(self, host):
        line = (
            '{"queue_name": "deferred", "queue_id": "A1", "arrival_time": 1, "message_size": 2, "sender": "a@b.example", "recipients": '
            '[{"address": "c@one.example", "delay_reason": "connect to 127.0.0.1[127.0.0.1]:10129: Connection refused"}]}\n'
        )
        host.fake.answers[("postqueue", "-c", str(host.etc), "-j")] = (0, line, "")
        assert [one.queue_id for one in host.adapter.in_others()] == ["A1"]


def test_an_empty_state_needs_no_filter(host):
    assert not host.adapter.plan(GatewayState())
    assert FileImage.read(str(host.file)).content is None
