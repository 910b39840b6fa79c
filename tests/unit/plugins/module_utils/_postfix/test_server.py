"""STARTTLS on Postfix, against a stand-in for its commands."""

import re
import time
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import server
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    BrokenConfigurationError,
    EngineError,
    NotRunningError,
)

from tests.support.fake_postfix import DEFAULTS, MAIN, MASTER, FakePostfix

CERTIFICATE = "/etc/mailfleet/starttls.pem"


class Host:
    """One Postfix host: its files, and the adapter on them."""

    def __init__(self, monkeypatch, directory, **files):
        self.fake = FakePostfix(directory, **files)
        self.directory = str(directory)
        self.running = {"/var/spool/postfix"}  # queue directories of the instances that run
        monkeypatch.setattr(server, "Postconf", lambda run, _config_dir: Postconf(run, str(directory)))
        monkeypatch.setattr(server, "runs", lambda queue: queue in self.running)

    def adapter(self, port=25):
        return server.Postfix(self.fake, port)

    def plan(self, inbound=None, outbound=None, port=25):
        return self.adapter(port).plan(Desired(inbound, outbound))

    def apply(self, *args, **kwargs):
        change = self.plan(*args, **kwargs)
        for image in change.after:
            image.write()
        return change

    @property
    def explicit(self):
        return self.fake.explicit()


@pytest.fixture
def make(monkeypatch, tmp_path):
    return lambda main="", **files: Host(monkeypatch, tmp_path / "postfix", main=MAIN + main, **files)


@pytest.mark.parametrize("value", ["{log}", "$mine"])
def test_the_rate_of_sessions_comes_from_the_log_that_postfix_names(make, tmp_path, value):
    log = tmp_path / "postfix.log"
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 1800))
    log.write_text(f"{began} mx postfix/smtpd[7]: connect from mx.partner.test[192.0.2.15]\n")
    host = make(f"mine = {log}\nmaillog_file = {value.format(log=log)}\n")
    assert host.adapter().sessions_an_hour() == pytest.approx(2.0, abs=0.1)


def test_it_is_not_installed(make):
    host = make()
    host.fake.answers[("postconf",)] = FileNotFoundError(2, "No such file or directory", "postconf")
    with pytest.raises(
        EngineError, match=r"^Postfix is not installed on this host \(the command postconf is not there\); install"
    ):
        host.adapter().require_running()


def test_a_broken_configuration_is_not_just_not_running(make):
    """The advice to start it would be of no use."""
    host = make()
    host.running.clear()
    host.fake.answers[("postfix", "-c")] = (1, "", "postfix: fatal: /etc/postfix/main.cf, line 7: missing '='\n")
    with pytest.raises(
        BrokenConfigurationError, match=r"^Postfix refuses its own configuration in \S+: postfix: fatal: .*missing '='$"
    ):
        host.adapter().require_running()


@pytest.mark.parametrize("process", [812, None])
def test_a_broken_configuration_does_not_hide_whether_it_runs(make, monkeypatch, process):
    host = make()
    host.fake.answers[("postconf",)] = (
        1,
        "",
        "postconf: fatal: file /etc/postfix/master.cf: line 138: bad field count\n",
    )
    monkeypatch.setattr(server, "running", {"/var/spool/postfix": process}.__getitem__)
    assert host.adapter().main_process() == process
    host.adapter().sessions_an_hour()  # nor does it end the read of the host
    with host.fake.main.open("a") as file:
        file.write("queue_directory = /elsewhere\n")
    with pytest.raises(BrokenConfigurationError):
        host.adapter().main_process()


def test_it_does_not_run(make):
    host = make()
    host.running.clear()
    with pytest.raises(
        NotRunningError, match="Postfix is not running; start it first, because a change is proved by its own port"
    ):
        host.adapter().require_running()


def test_a_configuration_that_cannot_be_read_is_said_in_postfixs_own_words(make):
    host = make()
    host.running.clear()
    host.fake.answers[("postconf",)] = (1, "", "postconf: fatal: /etc/postfix/main.cf, line 9: missing '='\n")
    with pytest.raises(BrokenConfigurationError, match=r"^postconf cannot read .*: postconf: fatal: .*line 9: missing"):
        host.adapter().require_running()


def test_it_is_older_than_3_4(make):
    host = make(defaults={name: value for name, value in DEFAULTS.items() if name != "smtpd_tls_chain_files"})
    with pytest.raises(
        EngineError, match=r"this Postfix is older than 3\.4 and cannot take key and chain from one file"
    ):
        host.adapter().require_running()


@pytest.mark.parametrize(
    ("queue", "programs"), [("/srv/queue", 1), ("$spool/queue\nspool = /srv", 2)], ids=["plain", "by reference"]
)
def test_it_runs(make, queue, programs):
    host = make(f"queue_directory = {queue}\n")
    with pytest.raises(NotRunningError):
        host.adapter().require_running()
    host.running.add("/srv/queue")
    host.fake.calls.clear()
    host.adapter().require_running()
    assert [call[:3] for call in host.fake.calls] == [["postconf", "-c", host.directory]] * programs


@pytest.mark.parametrize("queue", ["/srv/queue", "$spool/queue\nspool = /srv"], ids=["plain", "by reference"])
def test_the_process_that_owns_its_sockets(make, monkeypatch, queue):
    """That of this instance: another one has another queue directory."""

    def closed(_queue):
        raise PermissionError(13, "Permission denied")

    host = make(f"queue_directory = {queue}\n")
    for running, process in (({"/srv/queue": 4711}.get, 4711), ({"/srv/other": 4711}.get, None), (closed, None)):
        monkeypatch.setattr(server, "running", running)
        assert host.adapter().main_process() == process


def test_a_whole_read_starts_four_programs(make):
    host = make("relayhost = [mx.example]\n")
    host.apply("offered", "opportunistic")
    host.fake.calls.clear()
    adapter = host.adapter()
    adapter.require_running()
    assert adapter.version() == "3.7.11"
    assert adapter.state() == {"inbound": "offered", "outbound": "opportunistic"}
    assert not adapter.plan(Desired("offered", "opportunistic"))
    assert list(adapter.next_hops()) == [Target("mx.example")]
    assert [one["service"] for one in adapter.observe()["listeners"]] == ["smtp/inet"]
    assert adapter.files() == (f"{host.directory}/main.cf", f"{host.directory}/master.cf")
    adapter.left()
    listings = [call[3:] for call in host.fake.calls]
    assert sorted(listings) == [[], ["-M"], ["-n"], ["-x"]]


@pytest.mark.parametrize("call", ["check", "resume"])
def test_after_files_were_written_they_are_read_again(make, call):
    host = make()
    adapter = host.adapter()
    for image in adapter.plan(Desired("required")).after:
        image.write()
    assert adapter.state()["inbound"] == "disabled"
    getattr(adapter, call)()
    assert adapter.state()["inbound"] == "required"


def test_what_the_collection_left(make, monkeypatch, tmp_path):
    monkeypatch.setattr(server, "Path", lambda path: Path(f"{tmp_path}{path}"))
    adapter = make().adapter()
    assert adapter.left() == []
    there = [
        "etc/mailfleet/starttls.pem", "etc/postfix-mailfleet/main.cf", "etc/postfix/mailfleet-starttls/transport",
        "etc/systemd/system/multi-user.target.wants/postfix@mailfleet.service", "etc/postfix-other/main.cf",
        "usr/local/lib/mailfleet-starttls/arrival_policy.py", "var/lib/mailfleet-starttls/exim.lock",
        "var/lib/mailfleet-starttls/postfix.lock", "var/spool/postfix-mailfleet/pid", "var/spool/postfix/pid",
    ]  # fmt: skip
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [path[len(str(tmp_path)) :] for path in adapter.left()] == [
        "/etc/mailfleet/starttls.pem", "/etc/postfix-mailfleet", "/etc/postfix/mailfleet-starttls",
        "/etc/systemd/system/multi-user.target.wants/postfix@mailfleet.service",
        "/usr/local/lib/mailfleet-starttls/arrival_policy.py", "/var/lib/mailfleet-starttls/postfix.lock",
        "/var/spool/postfix-mailfleet",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("level", "inbound"),
    [("", "disabled"), ("none", "disabled"), ("may", "offered"), ("encrypt", "required"), ("$else", "custom")],
)
def test_inbound_state(make, level, inbound):
    assert make(f"smtpd_tls_security_level = {level}\n").adapter().state()["inbound"] == inbound


@pytest.mark.parametrize(
    ("level", "outbound"),
    [
        ("", "disabled"), ("none", "disabled"), ("may", "opportunistic"), ("dane", "opportunistic"),
        ("encrypt", "required"), ("dane-only", "required"), ("fingerprint", "required"), ("verify", "required"),
        ("secure", "required"), ("$else", "custom"),
    ],
)  # fmt: skip
def test_outbound_state(make, level, outbound):
    assert make(f"smtp_tls_security_level = {level}\n").adapter().state()["outbound"] == outbound


def test_offering_adds_its_settings_and_leaves_every_other_byte(make):
    host = make()
    change = host.apply("offered", "opportunistic")
    assert host.fake.main.read_text() == MAIN + (
        f"smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {CERTIFICATE}\nsmtpd_tls_received_header = yes\n"
        "smtpd_tls_loglevel = 1\nsmtp_tls_security_level = may\nsmtp_tls_loglevel = 1\n"
    )
    assert host.fake.master.read_text() == MASTER
    assert [image.path for image in change.after] == [str(host.fake.main)]
    assert host.adapter().state() == {"inbound": "offered", "outbound": "opportunistic"}


def test_certificates_of_several_algorithms_are_one_list(make):
    host = make()
    wanted = Desired("offered", None, CERTIFICATE, more=("/etc/mailfleet/starttls-2.pem",))
    [image] = host.adapter().plan(wanted).after
    assert f"\nsmtpd_tls_chain_files = {CERTIFICATE}, /etc/mailfleet/starttls-2.pem\n".encode() in image.content


def test_a_key_of_its_own_comes_before_the_certificates(make):
    host = make()
    change = host.adapter().plan(Desired("offered", None, "/live/fullchain.pem", private_key="/live/privkey.pem"))
    [image] = change.after
    assert b"\nsmtpd_tls_chain_files = /live/privkey.pem, /live/fullchain.pem\n" in image.content


def test_each_key_of_its_own_comes_before_its_certificates(make):
    host = make()
    files = {
        "certificate": "/live/a.pem",
        "private_key": "/live/a.key",
        "more": ("/live/b.pem",),
        "more_keys": ("/live/b.key",),
    }
    [image] = host.adapter().plan(Desired("offered", None, **files)).after
    assert b"\nsmtpd_tls_chain_files = /live/a.key, /live/a.pem, /live/b.key, /live/b.pem\n" in image.content


@pytest.mark.parametrize("inbound", ["disabled", "offered", "required", None])
@pytest.mark.parametrize("outbound", ["disabled", "opportunistic", "required"])
def test_a_second_run_changes_nothing(make, inbound, outbound):
    host = make("smtpd_tls_security_level = may\nsmtp_tls_security_level = may\n")
    assert host.apply(inbound, outbound)
    assert not host.plan(inbound, outbound)
    state = host.adapter().state()
    assert (state["inbound"], state["outbound"]) == (inbound or "offered", outbound)


def test_nothing_wanted_is_nothing_changed(make):
    assert not make().plan()


def test_switching_off_leaves_main_cf_to_the_other_services_where_nothing_is_known_of_it(make):
    host = make()
    host.apply("offered", "opportunistic")
    main = host.fake.main.read_text()
    host.apply("disabled", "disabled")
    assert host.fake.main.read_text() == main
    assert host.adapter().postconf.overrides("smtpd_tls_security_level") == {"smtp/inet": "none"}
    assert host.adapter().postconf.overrides("smtp_tls_security_level") == {"smtp/unix": "none"}
    assert host.adapter().state() == {"inbound": "disabled", "outbound": "disabled"}


@pytest.mark.parametrize("level", ["dane", "may"])
def test_a_stronger_opportunistic_level_stays(make, level):
    host = make(f"smtp_tls_security_level = {level}\nsmtp_tls_loglevel = 2\n")
    assert not host.plan(outbound="opportunistic")


@pytest.mark.parametrize("level", ["encrypt", "dane-only", "fingerprint", "verify", "secure"])
def test_a_stronger_required_level_stays(make, level):
    host = make(f"smtp_tls_security_level = {level}\nsmtp_tls_loglevel = 1\n")
    assert not host.plan(outbound="required")


def test_a_level_of_another_kind_is_replaced(make):
    host = make("smtp_tls_security_level = verify\n")
    host.apply(outbound="opportunistic")
    assert host.explicit["smtp_tls_security_level"] == "may"


@pytest.mark.parametrize(("before", "after"), [("0", "1"), ("1", "1"), ("2", "2"), ("", "1"), ("$x", "1")])
def test_a_log_level_is_raised_never_lowered(make, before, after):
    host = make(f"smtpd_tls_loglevel = {before}\n")
    host.apply("offered")
    assert host.explicit["smtpd_tls_loglevel"] == after


def test_superseded_certificate_settings_are_emptied(make):
    host = make(
        "smtpd_tls_cert_file=/etc/ssl/certs/ssl-cert-snakeoil.pem\nsmtpd_tls_key_file=/etc/ssl/private/snakeoil.key\n"
        "smtpd_tls_eccert_file =\n"
    )
    host.apply("offered")
    assert host.explicit["smtpd_tls_cert_file"] == ""
    assert host.explicit["smtpd_tls_key_file"] == ""
    assert "smtpd_tls_dcert_file" not in host.explicit
    assert not host.plan("offered")


def test_superseded_settings_stay_while_tls_is_not_offered(make):
    host = make("smtpd_tls_cert_file=/etc/ssl/certs/snakeoil.pem\n")
    host.apply("disabled")
    assert host.explicit["smtpd_tls_cert_file"] == "/etc/ssl/certs/snakeoil.pem"


def listener(service, level):
    return MASTER.replace(
        "smtp      inet  n       -       y       -       -       smtpd\n",
        f"{service}      inet  n       -       y       -       -       smtpd\n  -o smtpd_tls_security_level={level}\n",
    )


def test_an_override_in_master_cf_is_refused_with_the_way_out(make):
    host = make(master=listener("smtp", "encrypt"))
    with pytest.raises(EngineError) as error:
        host.plan("offered")
    assert str(error.value) == (
        "master.cf sets smtpd_tls_security_level=encrypt, which overrides main.cf for smtp/inet; "
        "remove it first: postconf -PX 'smtp/inet/smtpd_tls_security_level'"
    )
    assert host.plan(outbound="opportunistic")  # has nothing to do with that listener


@pytest.mark.parametrize(
    ("service", "port"),
    [
        ("25", 25), ("2525", 2525), ("192.0.2.1:smtp", 25), ("192.0.2.1:25", 25), ("[2001:db8::1]:25", 25),
        ("127.0.0.1:2525", 2525),
    ],
)  # fmt: skip
def test_the_way_out_names_the_service_that_has_the_override(make, service, port):
    host = make(master=listener(service, "none"))
    with pytest.raises(EngineError, match=re.escape(f"postconf -PX '{service}/inet/smtpd_tls_security_level'")):
        host.plan("offered", port=port)


def test_an_override_that_says_the_same_does_no_harm(make):
    assert make(master=listener("smtp", "may")).plan("offered")
    assert not make(master=listener("smtp", "")).plan("disabled")


@pytest.mark.parametrize(("service", "port"), [("submission", 25), ("smtp", 2525), ("2525", 25), ("192.0.2.25:26", 25)])
def test_an_override_of_another_listener_has_no_say(make, service, port):
    assert make(master=listener(service, "encrypt")).plan("offered", port=port)


def client(service, level):
    return MASTER + f"{service}  unix  -  -  y  -  -  smtp\n  -o smtp_tls_security_level={level}\n"


def smtp_client(level):
    return MASTER.replace(
        "smtp      unix  -       -       y       -       -       smtp\n",
        f"smtp      unix  -       -       y       -       -       smtp\n  -o smtp_tls_security_level={level}\n",
    )


@pytest.mark.parametrize(
    ("level", "wanted"),
    [("none", "opportunistic"), ("may", "required"), ("dane", "required"), ("encrypt", "opportunistic"),
     ("$else", "opportunistic")],
)  # fmt: skip
def test_an_override_of_the_client_is_refused_with_the_way_out(make, level, wanted):
    host = make(master=smtp_client(level))
    with pytest.raises(EngineError) as error:
        host.plan(outbound=wanted)
    assert str(error.value) == (
        f"master.cf sets smtp_tls_security_level={level}, which overrides main.cf for smtp/unix; "
        "remove it first: postconf -PX 'smtp/unix/smtp_tls_security_level'"
    )
    assert host.plan("offered")  # has nothing to do with that client


@pytest.mark.parametrize(
    ("level", "wanted"),
    [("may", "opportunistic"), ("dane", "opportunistic"), ("encrypt", "required"), ("verify", "required")],
)  # fmt: skip
def test_an_override_of_the_client_that_is_enough_does_no_harm(make, level, wanted):
    assert make(master=smtp_client(level)).plan(outbound=wanted)


@pytest.mark.parametrize("service", ["mailfleet-plaintext", "slow", "127.0.0.1:smtp"])
def test_an_override_of_another_client_has_no_say(make, service):
    assert make(master=client(service, "none")).plan(outbound="required")


@pytest.mark.parametrize(
    ("relayhost", "hops"),
    [
        ("", []),
        ("[mx.example]", [Target("mx.example", 25)]),
        ("[mx.example]:587", [Target("mx.example", 587)]),
        ("[mx.example]:smtp", [Target("mx.example", 25)]),
        ("[192.0.2.7]:26", [Target("192.0.2.7", 26)]),
        ("[2001:db8::7]:26", [Target("2001:db8::7", 26)]),
        ("[a.example], [b.example]:26", [Target("a.example", 25), Target("b.example", 26)]),
        ("[a.example] [b.example]", [Target("a.example", 25), Target("b.example", 25)]),
    ],
)
def test_next_hops_are_the_bracketed_relay_hosts(make, relayhost, hops):
    assert list(make(f"relayhost = {relayhost}\n").adapter().next_hops()) == hops


@pytest.mark.parametrize(
    "relayhost", ["mx.example", "mx.example:26", "$mydomain", "[a.example], b.example", "b.example [a.example]"]
)
def test_a_relay_host_that_is_a_domain_is_said(make, relayhost):
    with pytest.raises(EngineError) as error:
        make(f"relayhost = {relayhost}\n").adapter().next_hops()
    assert str(error.value) == f"relayhost = {relayhost} names a domain, not the host itself in brackets"


@pytest.mark.parametrize("relayhost", ["", "[mx.example]:26", "mx.example"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transport_maps", "hash:/etc/postfix/transport"),
        ("sender_dependent_relayhost_maps", "hash:/etc/postfix/by_sender, texthash:/etc/more"),
    ],
)
def test_other_ways_out_are_said(make, name, value, relayhost):
    with pytest.raises(EngineError) as error:
        make(f"relayhost = {relayhost}\n{name} = {value}\n").adapter().next_hops()
    assert str(error.value) == f"mail also leaves by {name} = {value}, and those routes cannot all be tested"


OURS = "texthash:/etc/postfix/mailfleet-starttls/transport"


@pytest.mark.parametrize("maps", [OURS, f"{OURS},", f" {OURS} "])
def test_our_own_table_is_no_other_way_if_it_is_named(make, maps):
    host = make(f"relayhost = [mx.example]\ntransport_maps = {maps}\n")
    assert list(host.adapter().next_hops(OURS)) == [Target("mx.example", 25)]
    with pytest.raises(EngineError, match=r"^mail also leaves by transport_maps = texthash:"):
        host.adapter().next_hops()


@pytest.mark.parametrize("maps", [f"{OURS}, hash:/a", f"hash:/a {OURS}"])
def test_what_stands_beside_it_is_one(make, maps):
    host = make(f"relayhost = [mx.example]\ntransport_maps = {maps}\n")
    with pytest.raises(EngineError) as error:
        host.adapter().next_hops(OURS)
    assert str(error.value) == "mail also leaves by transport_maps = hash:/a, and those routes cannot all be tested"


@pytest.mark.parametrize("value", ["relay", "uucp:far", "error:no"])
def test_another_default_transport_is_another_way(make, value):
    host = make(f"relayhost = [mx.example]\ndefault_transport = {value}\n")
    with pytest.raises(EngineError, match=f"^mail also leaves by default_transport = {value}, and"):
        host.adapter().next_hops()


@pytest.mark.parametrize(("level", "shown"), [("", "1"), ("0", "1"), ("1", "1"), ("4", "4"), ("-1", "1"), ("x", "1")])
def test_a_log_level_that_shows_tls(level, shown):
    assert server.at_least_one(level) == shown


def test_other_ways_out_that_are_empty_are_none(make):
    host = make("relayhost = [mx.example]\ntransport_maps =\nsender_dependent_relayhost_maps =\n")
    assert list(host.adapter().next_hops()) == [Target("mx.example", 25)]


@pytest.mark.parametrize(
    ("service", "port", "listens"),
    [
        ("smtp/inet", 25, True), ("25/inet", 25, True), ("192.0.2.1:smtp/inet", 25, True),
        ("[2001:db8::1]:25/inet", 25, True), ("2525/inet", 2525, True), ("127.0.0.1:2525/inet", 2525, True),
        ("smtp/unix", 25, False), ("submission/inet", 25, False), ("smtp/inet", 2525, False), ("2525/inet", 25, False),
        ("25.example:26/inet", 25, False), ("smtp/pass", 25, False),
    ],
)  # fmt: skip
def test_the_listener_is_known_by_its_port(make, service, port, listens):
    assert make().adapter(port).is_listener(service) is listens


@pytest.mark.parametrize("relayhost", ["[mx.example]:70000", "[]", "[mx_.-]", "[a b]"])
def test_a_relay_host_that_makes_no_sense_is_said(make, relayhost):
    with pytest.raises(EngineError, match=r"^relayhost of this host cannot be read: "):
        make(f"relayhost = {relayhost}\n").adapter().next_hops()


def test_a_relay_host_may_name_its_port_as_postfix_allows(make):
    assert list(make("relayhost = [mx.example]:submission\n").adapter().next_hops()) == [Target("mx.example", 587)]


def test_a_check_passes_by_the_part_that_can_fail(make):
    host = make()
    host.adapter().check()
    assert [call[3:] for call in host.fake.called("postfix", "-c", host.directory)] == [["check-fatal"]]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((1, "", "fatal: bad\n"), "fatal: bad"),
        ((1, "fatal: bad\n", ""), "fatal: bad"),
        ((1, "", ""), "see the mail log"),
    ],
)
def test_a_check_that_fails_says_what_postfix_said(make, answer, said):
    host = make()
    host.fake.answers[("postfix", "-c", host.directory)] = answer
    with pytest.raises(EngineError, match=f"check refuses the change: .*{said}"):
        host.adapter().check()


def test_a_postfix_without_that_part_makes_the_whole_check(make):
    host = make()
    host.fake.answers[("postfix", "-c", host.directory, "check-fatal")] = (1, "", "unknown command: 'check-fatal'\n")
    host.adapter().check()
    assert [call[3:] for call in host.fake.called("postfix")] == [["check-fatal"], ["check"]]


def test_a_check_gives_the_reason_that_postfix_37_tells_to_the_log_only(make):
    host = make()
    host.fake.answers[("postconf",)] = (1, "", "postconf: fatal: file master.cf: line 138: bad field count\n")
    with pytest.raises(BrokenConfigurationError, match="line 138: bad field count"):
        host.adapter().check()


@pytest.mark.parametrize("call", ["reload", "resume"])
def test_reload_says_what_postfix_said(make, call):
    host = make()
    getattr(host.adapter(), call)()
    assert host.fake.called("postfix") == [["postfix", "-c", host.directory, "reload"]]  # the default instance alone
    for answer in ((1, "", "fatal: bad\n"), (1, "fatal: bad\n", "")):
        host.fake.answers[("postfix", "-c", host.directory, "reload")] = answer
        with pytest.raises(EngineError, match="postfix reload failed: fatal: bad"):
            getattr(host.adapter(), call)()
