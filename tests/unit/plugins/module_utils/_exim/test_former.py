"""Switching TLS off on Exim: the port and the way out go without it, everything else is as it was before."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import Record, texts
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import server
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.config import ByPort
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.macros import read_macros
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target

from tests.unit.plugins.module_utils._exim.test_server import SETTINGS, Host

OWN = "MAIN_TLS_ENABLE = yes\nMAIN_TLS_CERTIFICATE = /srv/own.pem\nMAIN_TLS_PRIVATEKEY = /srv/own.key\n"
STATES = {
    "no TLS": "MAIN_TLS_ENABLE = yes\nMAIN_TLS_ADVERTISE_HOSTS =\nREMOTE_SMTP_SMARTHOST_HOSTS_AVOID_TLS = *\n",
    "a certificate that Exim makes": "# nothing about TLS\n",
    "an own certificate": OWN,
    "587 only": OWN + "MAIN_TLS_ADVERTISE_HOSTS = ${if eq{$received_port}{25}{}{*}}\n",
    "587 only, in other words": OWN + "MAIN_TLS_ADVERTISE_HOSTS = ${if ={$received_port}{587}{*}{}}\n",
    "some hosts": OWN + "MAIN_TLS_ADVERTISE_HOSTS = <; ! 192.0.2.1 ; *\n",
    "outbound": "REMOTE_SMTP_SMARTHOST_HOSTS_REQUIRE_TLS = *\nREMOTE_SMTP_HOSTS_REQUIRE_TLS = *\n",
}


class Recorded(Host):
    """A host with what the record knows of its macros."""

    def __init__(self, monkeypatch, directory, state):
        super().__init__(monkeypatch, directory, SETTINGS.replace("'internet'", "'smarthost'"))
        self.macros.write_text(state)
        self.first = state
        self.record = Record()

    def plan(self, inbound=None, outbound=None, **more):
        known, _edited = texts(self.record, [str(self.macros)])
        return self.adapter.plan(Desired(inbound, outbound, str(self.certificate), was=known, **more))

    def apply(self, inbound=None, outbound=None, **more):
        change = self.plan(inbound, outbound, **more)
        self.record = self.record.noted([(FileImage.read(image.path), image) for image in change.after])
        for image in change.after:
            image.write()
        assert not self.plan(inbound, outbound, **more)
        return change

    def offers(self, port):
        """To whom STARTTLS is offered at a port, and the file of the certificate; none stands for one that Exim makes."""
        macros = self.read()
        text = macros.get("MAIN_TLS_ADVERTISE_HOSTS", "*") if "MAIN_TLS_ENABLE" in macros else "*"
        hosts = ByPort.of(text).at(port)
        if "$received_port}{587}" in hosts:
            hosts = "*" if port == 587 else ""
        chosen = (
            macros.get("MAIN_TLS_CERTKEY", macros.get("MAIN_TLS_CERTIFICATE")) if "MAIN_TLS_ENABLE" in macros else ""
        )
        return hosts, (chosen if hosts else "")

    def sends(self, transport):
        macros = self.read()
        return [macros.get(f"{transport}_HOSTS_{word}_TLS", "") for word in ("AVOID", "REQUIRE")]


@pytest.fixture(params=STATES)
def host(request, monkeypatch, tmp_path):
    return Recorded(monkeypatch, tmp_path / "exim4", STATES[request.param])


@pytest.mark.parametrize("first", [("offered", "opportunistic"), ("required", "required"), ("offered", None), None])
def test_only_the_port_and_the_way_out_go_without_tls(host, first):
    elsewhere, other = host.offers(587), host.sends("REMOTE_SMTP")
    if first:
        host.apply(*first)
        assert host.offers(25)[0]
    host.apply("disabled", "disabled")
    assert host.offers(25) == ("", "")
    assert host.offers(587) == elsewhere
    assert host.sends("REMOTE_SMTP") == other
    assert host.sends("REMOTE_SMTP_SMARTHOST") == ["*", ""]
    assert host.adapter.state() == {"inbound": "disabled", "outbound": "disabled"}


def test_on_again_is_the_same_as_the_first_time(host):
    host.apply("offered", "opportunistic")
    on = read_macros(host.macros.read_text())
    host.apply("disabled", "disabled")
    host.apply("offered", "opportunistic")
    assert read_macros(host.macros.read_text()) == on


def test_a_state_without_tls_comes_back_byte_by_byte(monkeypatch, tmp_path):
    host = Recorded(monkeypatch, tmp_path / "exim4", "# mine\n" + STATES["no TLS"] + "  OTHER  ==  1\n")
    host.apply("offered", "opportunistic")
    host.apply("disabled", "disabled")
    assert host.macros.read_text() == host.first


def test_another_port_than_25(monkeypatch, tmp_path):
    host = Recorded(monkeypatch, tmp_path / "exim4", OWN)
    host.apply("disabled", own_port=Target("127.0.0.1", 2525))
    assert (host.offers(2525)[0], host.offers(25)[0]) == ("", "*")


@pytest.mark.parametrize(
    ("text", "here", "elsewhere"),
    [
        ("*", "*", "*"), ("", "", ""), ("! 192.0.2.1 : *", "! 192.0.2.1 : *", "! 192.0.2.1 : *"),
        ("${if eq{$received_port}{25}{}{*}}", "", "*"), ("${if eq{$received_port}{25}{*}{a : b}}", "*", "a : b"),
        ("${if eq{$received_port}{25}{}{${if eq{$received_port}{587}{*}{}}}}", "", "${if eq{$received_port}{587}{*}{}}"),
    ],
)  # fmt: skip
def test_a_list_for_a_port(text, here, elsewhere):
    read = ByPort.of(text, 25)
    assert (read.at(25), read.at(587)) == (here, elsewhere)
    assert str(read) == text


def test_the_trial_daemon_does_at_its_port_what_the_real_one_does_at_the_mail_port(monkeypatch, tmp_path):
    host = Recorded(monkeypatch, tmp_path / "exim4", OWN)
    host.apply("disabled")
    adapter = host.adapter
    adapter._planned = Desired("disabled")
    text = "a = ${if eq{$received_port}{25}{}{*}}\nb = ${if eq{$received_port}{587}{}{*}}\n"
    path = tmp_path / "trial"
    path.write_text(text)
    adapter._put_at(str(path), 40000)
    assert path.read_text() == text.replace("{25}", "{40000}")
    assert server.Exim is type(adapter)
