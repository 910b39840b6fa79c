"""Switching TLS off on Postfix: the port and the client go without it, every other service is as it was before."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import texts
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import server
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.observe import Configuration, listeners
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.fake_postfix import MASTER
from tests.support.postfix_host import RecordedHost

SUBMISSION = "submission inet n  -  y  -  -  smtpd\n  -o syslog_name=postfix/submission\n"
SNAKEOIL = "smtpd_tls_cert_file=/etc/ssl/certs/ssl-cert-snakeoil.pem\nsmtpd_tls_key_file=/etc/ssl/private/ssl-cert-snakeoil.key\n"
ON_587 = "  -o smtpd_tls_security_level=encrypt\n"
STATES = {
    "no TLS": ("", MASTER + SUBMISSION),
    "the distribution's certificate": (f"{SNAKEOIL}smtpd_tls_security_level=may\n", MASTER + SUBMISSION + ON_587),
    "an own certificate": ("smtpd_tls_chain_files = /srv/own.pem\nsmtpd_tls_security_level = may\n", MASTER + SUBMISSION),
    "587 only": ("smtpd_tls_chain_files = /srv/own.pem\n", MASTER + SUBMISSION + ON_587),
    "outbound": ("smtp_tls_security_level = encrypt\nsmtp_tls_loglevel = 2\n", MASTER + SUBMISSION),
    "postscreen": (
        f"{SNAKEOIL}smtpd_tls_security_level = may\n",
        MASTER.replace("smtpd\n", "postscreen\n", 1) + "smtpd     pass  -       -       y       -       -       smtpd\n" + SUBMISSION,
    ),
}  # fmt: skip


class Recorded(RecordedHost):
    """A host on which TLS is switched on and off."""

    def plan(self, inbound, outbound):
        return self.adapter().plan(Desired(inbound, outbound, was=self.known()))

    def seen(self):
        """What each service does."""
        now = Configuration(self.adapter().postconf)
        receiving = {one.service: (one.tls, one.certificates) for one in listeners(now)}
        return receiving, {service: now.level(service, "smtp") for service in ("smtp/unix", "relay/unix")}


@pytest.fixture(params=STATES)
def host(request, monkeypatch, tmp_path):
    return Recorded(monkeypatch, tmp_path / "postfix", *STATES[request.param])


@pytest.mark.parametrize("first", [("offered", "opportunistic"), ("required", "required"), ("offered", None), None])
def test_only_the_port_and_the_client_go_without_tls(host, first):
    receiving, sending = host.seen()
    if first:
        host.apply(*first)
    host.apply("disabled", "disabled")
    assert host.adapter().state() == {"inbound": "disabled", "outbound": "disabled"}
    now, way_out = host.seen()
    assert now == {**receiving, "smtp/inet": ("none", ())}
    assert way_out == {**sending, "smtp/unix": "none"}
    assert host.fake.main.read_bytes() == host.first[0]


def test_on_again_is_the_same_as_the_first_time(host):
    host.apply("offered", "opportunistic")
    on = [path.read_bytes() for path in host.files]
    host.apply("disabled", "disabled")
    host.apply("offered", "opportunistic")
    assert [path.read_bytes() for path in host.files] == on


def test_one_direction_alone(host):
    receiving, sending = host.seen()
    host.apply("offered", "opportunistic")
    offered, _client = host.seen()
    host.apply(None, "disabled")
    assert host.seen() == (offered, {**sending, "smtp/unix": "none"})
    host.apply("disabled", None)
    assert host.seen()[0] == {**receiving, "smtp/inet": ("none", ())}


@pytest.mark.parametrize("later", [False, True])
def test_where_somebody_edited_the_same_lines_main_cf_stays_and_the_edit_is_named(monkeypatch, tmp_path, later):
    host = Recorded(monkeypatch, tmp_path / "postfix", *STATES["the distribution's certificate"])
    host.apply("offered", "opportunistic")
    text = host.fake.main.read_text().replace("/etc/mailfleet/starttls.pem", "/srv/mine.pem")
    host.fake.main.write_text(text)
    if later:
        host.fake.main.write_text(text.replace("smtp_tls_loglevel = 1", "smtp_tls_loglevel = 2"))
    edited = host.fake.main.read_text()
    assert "/srv/mine.pem" in texts(host.record, [str(host.fake.main)])[1][0]
    host.apply("disabled", "disabled")
    assert host.fake.main.read_text() == edited
    assert host.seen()[0]["smtp/inet"] == ("none", ())


def test_a_line_of_somebody_else_stays(monkeypatch, tmp_path):
    host = Recorded(monkeypatch, tmp_path / "postfix", *STATES["the distribution's certificate"])
    host.apply("offered", "opportunistic")
    host.fake.main.write_text(host.fake.main.read_text() + "# a note\nmine = 1\n")
    host.apply("disabled", "disabled")
    assert host.fake.main.read_bytes() == host.first[0] + b"# a note\nmine = 1\n"


def test_an_option_of_the_administrator_for_the_port_goes_and_comes_back(monkeypatch, tmp_path):
    """What switching on accepts, switching off accepts too."""
    master = MASTER.replace("smtpd\n", "smtpd\n  -o smtpd_tls_security_level=may\n", 1)
    host = Recorded(monkeypatch, tmp_path / "postfix", SNAKEOIL, master)
    host.apply("offered", None)
    host.apply("disabled", None)
    assert host.seen()[0] == {"smtp/inet": ("none", ())}
    host.apply("offered", None)
    assert host.fake.master.read_text() == master
    host.fake.master.write_text(master.replace("=may", "=none"))
    with pytest.raises(EngineError, match="postconf -PX 'smtp/inet/smtpd_tls_security_level'"):
        host.plan("offered", None)


FILTER = "smtp-amavis unix - - n - 2 smtp\n"
PEER = "mailfleet_peer_x unix - - n - - smtp\n  -o smtp_tls_security_level=encrypt\n"
BACK = "127.0.0.1:10025 inet n - n - - smtpd\n  -o syslog_name=back\n"
INNER = (
    "relayhost = [relay.example.net]\ncontent_filter = smtp-amavis:[127.0.0.1]:10024\nsmtp_tls_security_level = may\n"
)


def overridden(host, name):
    return host.adapter().postconf.overrides(name)


def test_the_exemption_of_a_filter_goes_when_tls_is_not_required_any_more(monkeypatch, tmp_path):
    host = Recorded(monkeypatch, tmp_path / "postfix", INNER, MASTER + FILTER)
    host.apply(None, "required")
    assert overridden(host, "smtp_tls_security_level") == {"smtp-amavis/unix": "may"}
    host.fake.master.write_text(host.fake.master.read_text() + PEER)
    host.apply(None, "opportunistic")
    assert overridden(host, "smtp_tls_security_level") == {"mailfleet_peer_x/unix": "encrypt"}
    assert host.fake.master.read_text() == MASTER + FILTER + PEER


def test_an_exemption_that_somebody_has_made_his_own_stays(monkeypatch, tmp_path):
    host = Recorded(monkeypatch, tmp_path / "postfix", INNER, MASTER + FILTER)
    host.apply(None, "required")
    text = host.fake.master.read_text()
    host.fake.master.write_text(text.replace("smtp_tls_security_level=may", "smtp_tls_security_level=none"))
    host.apply(None, "opportunistic")
    assert overridden(host, "smtp_tls_security_level") == {"smtp-amavis/unix": "none"}


def test_a_listener_of_this_host_has_no_level_of_its_own_when_tls_is_offered_only(monkeypatch, tmp_path):
    main = "smtpd_tls_cert_file = /a.pem\nsmtpd_tls_security_level = may\n"
    host = Recorded(monkeypatch, tmp_path / "postfix", main, MASTER + BACK + "  -o smtpd_tls_cert_file=/own.pem\n")
    host.apply("required", None)
    assert overridden(host, "smtpd_tls_security_level") == {"127.0.0.1:10025/inet": "may"}
    assert overridden(host, "smtpd_tls_chain_files") == {"127.0.0.1:10025/inet": ""}
    host.apply("offered", None)
    assert overridden(host, "smtpd_tls_security_level") == {}
    assert overridden(host, "smtpd_tls_chain_files") == {"127.0.0.1:10025/inet": ""}
    host.apply("disabled", None)
    assert overridden(host, "smtpd_tls_chain_files") == {}


def test_a_peer_that_is_new_keeps_its_level_when_tls_is_switched_off(monkeypatch, tmp_path):
    """Its transport was not there before the first change, so it goes as a whole or not at all."""
    host = Recorded(monkeypatch, tmp_path / "postfix", "", MASTER)
    host.apply(None, "opportunistic")
    present, after = FileImage.read(str(host.fake.master)), (MASTER + PEER).encode()
    wanted = FileImage(present.path, after, present.mode, present.uid, present.gid)
    host.record = host.record.noted([(present, wanted)])
    wanted.write()
    host.apply(None, "disabled")
    assert overridden(host, "smtp_tls_security_level")["mailfleet_peer_x/unix"] == "encrypt"


def test_the_levels_of_a_gateways_own_services_do_not_go_back_to_those_of_an_older_version(monkeypatch, tmp_path):
    """An older version's services went without TLS. The record of what was there has them as they were then."""
    host = Recorded(monkeypatch, tmp_path / "postfix", "", MASTER)
    pair = f"{tmp_path / 'postfix'}/mailfleet-starttls/instances.pem"
    monkeypatch.setattr(server.OwnPaths, "__init__", lambda self, _directory: setattr(self, "pair", pair))
    old = (
        f"127.0.0.1:10028 inet n - y - - smtpd\n  -o smtpd_tls_chain_files={pair}\n  -o smtpd_tls_security_level=none\n"
        "mailfleet-arrived unix - - y - - smtp\n  -o smtp_tls_security_level=none\n"
    )
    host.fake.master.write_text(MASTER + old)
    host.apply("offered", "opportunistic")
    new = old.replace("smtpd_tls_security_level=none", "smtpd_tls_security_level=encrypt")
    new = new.replace("smtp_tls_security_level=none", "smtp_tls_security_level=secure")
    present = FileImage.read(str(host.fake.master))
    wanted = FileImage(present.path, (MASTER + new).encode(), present.mode, present.uid, present.gid)
    host.record = host.record.noted([(present, wanted)])
    wanted.write()
    assert not host.plan("offered", "opportunistic")
