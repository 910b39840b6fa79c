"""Certificates that the listeners on some ports of Postfix serve in the place of the host's own."""

import re

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.observe import Configuration, listeners
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired, OfPorts
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.fake_postfix import MASTER
from tests.support.postfix_host import RecordedHost

OWN = "/etc/mailfleet/starttls.pem"
SECOND = "/etc/mailfleet/starttls-2.pem"
THIRD = "/etc/mailfleet/starttls-3.pem"
ON_465 = OfPorts((465,), SECOND)
SUBMISSION = "submission inet n  -  y  -  -  smtpd\n  -o syslog_name=postfix/submission\n"
SMTPS = "465 inet n  -  y  -  -  smtpd\n  -o smtpd_tls_wrappermode=yes\n"
OWN_FILES = "  -o smtpd_tls_cert_file=/srv/465.pem\n  -o smtpd_tls_key_file=/srv/465.key\n"
STATES = {
    "no TLS": ("", SUBMISSION + SMTPS),
    "the distribution's certificate": (
        "smtpd_tls_cert_file = /a.pem\nsmtpd_tls_key_file = /a.key\nsmtpd_tls_security_level = may\n",
        SUBMISSION + SMTPS,
    ),
    "a chain in main.cf": ("smtpd_tls_chain_files = /srv/own.pem\nsmtpd_tls_security_level = may\n", SMTPS),
    "older settings of its own": (
        "smtpd_tls_cert_file = /a.pem\nsmtpd_tls_key_file = /a.key\nsmtpd_tls_eccert_file = /a.ec\nsmtpd_tls_security_level = may\n",
        SUBMISSION + SMTPS + OWN_FILES,
    ),
    "a chain of its own": (
        "smtpd_tls_security_level = may\n",
        SMTPS + "  -o smtpd_tls_chain_files=/srv/465.key,/srv/465.pem\n",
    ),
}


class Host(RecordedHost):
    """A host whose certificates some ports have of their own."""

    def plan(self, inbound, *of_ports, **more):
        wanted = Desired(inbound, None, OWN, was=self.known(), of_ports=of_ports, **more)
        wanted.check()
        return self.adapter().plan(wanted)

    def now(self):
        """What Postfix reads."""
        postconf = self.adapter().postconf
        return postconf.explicit(), {one.name: dict(one.settings) for one in postconf.services()}

    def served(self):
        """Service -> the files with the certificates that it serves."""
        found = listeners(Configuration(self.adapter().postconf))
        return {one.service: one.certificates for one in found}


@pytest.fixture
def make(monkeypatch, tmp_path):
    return lambda main="", master=SUBMISSION + SMTPS: Host(monkeypatch, tmp_path / "postfix", main, MASTER + master)


@pytest.fixture(params=STATES)
def host(request, make):
    return make(*STATES[request.param])


@pytest.mark.parametrize("inbound", ["offered", "required"])
def test_the_listener_on_the_port_gets_it_and_the_others_keep_what_they_have(host, make, inbound):
    host.apply(inbound, ON_465)
    served = host.served()
    assert served["465/inet"] == (SECOND,)
    assert served["smtp/inet"] == (OWN,)
    assert set(served.values()) <= {(OWN,), (SECOND,)}


def test_off_puts_every_byte_back(host):
    host.apply("offered", ON_465)
    host.apply("disabled")
    assert host.fake.main.read_bytes() == host.first[0]
    without_exception = re.sub(rb"(?m)^ +-o smtpd_tls_security_level=none\n", b"", host.fake.master.read_bytes())
    assert re.sub(rb"[ \t]+", b" ", without_exception) == re.sub(rb"[ \t]+", b" ", host.first[1])


def test_an_entry_that_is_gone_takes_its_option_with_it(host):
    """What Postfix reads is the same as on a host that never had one."""
    host.apply("offered")
    plain, served = host.now(), host.served()
    host.apply("offered", ON_465)
    assert host.served() == {**served, "465/inet": (SECOND,)}
    host.apply("offered")
    assert host.served() == served
    assert host.now() == plain


def test_a_listener_with_older_settings_has_them_again_also_if_the_entry_was_there_from_the_first_change_on(make):
    host = make(*STATES["older settings of its own"])
    host.apply("offered", ON_465)
    assert host.adapter().postconf.overrides("smtpd_tls_cert_file") == {"465/inet": ""}  # else Postfix warns
    host.apply("offered")
    assert host.served()["465/inet"] == ("/srv/465.pem", "/a.ec")
    host.apply("disabled")
    assert host.served()["465/inet"] == ("/srv/465.pem", "/a.ec")
    assert host.fake.main.read_bytes() == host.first[0]


def test_to_relax_only_leaves_the_ports_theirs(make):
    """The playbooks that relax TLS, such as disable_tls, name no certificates."""
    host = make()
    host.apply("required", ON_465)
    host.apply("offered", only_relax=True)
    assert host.served() == {"smtp/inet": (OWN,), "submission/inet": (OWN,), "465/inet": (SECOND,)}
    host.apply("disabled")
    assert SECOND.encode() not in host.fake.master.read_bytes()


def test_to_relax_only_keeps_the_certificates_of_other_algorithms(make):
    host = make()
    host.apply("required", more=("/etc/mailfleet/starttls-2.pem",))
    served = host.served()
    assert served["smtp/inet"] == (OWN, "/etc/mailfleet/starttls-2.pem")
    host.apply("offered", only_relax=True)
    assert host.served() == served
    assert host.now()[0]["smtpd_tls_security_level"] == "may"


def test_what_somebody_has_set_since_stays(make):
    host = make()
    host.apply("offered", ON_465)
    host.fake.master.write_text(host.fake.master.read_text().replace(SECOND, "/srv/mine.pem"))
    host.apply("offered")
    assert host.served()["465/inet"] == ("/srv/mine.pem",)


def test_several_ports_and_algorithms(make):
    host = make()
    ecdsa, rsa = OfPorts((465, 587), "/live/a.pem", "/live/a.key"), OfPorts((465,), THIRD)
    host.apply("offered", ecdsa, rsa)
    assert host.adapter().postconf.overrides("smtpd_tls_chain_files") == {
        "465/inet": f"/live/a.key,/live/a.pem,{THIRD}",
        "submission/inet": "/live/a.key,/live/a.pem",
    }
    assert host.adapter().postconf.explicit()["smtpd_tls_chain_files"] == OWN


@pytest.mark.parametrize(
    ("master", "port", "said"),
    [
        (SMTPS, 587, "names port 587, and no service of master.cf listens on it"),
        (SMTPS, 25, "port 25 is the mail port"),
        (SMTPS, 0, "0 in ports is no port"),
        (SMTPS, 65536, "65536 in ports is no port"),
        ("587 inet n - y - 1 postscreen\n", 587, r"postscreen listens there \(587/inet\); only smtpd can"),
        (
            "587 inet n - y - - smtpd\n  -o smtpd_tls_security_level=none\n",
            587,
            "remove it first: postconf -PX '587/inet/smtpd_tls_security_level'",
        ),
    ],
)
def test_a_port_that_cannot_serve_it_is_refused_by_name(make, master, port, said):
    host = make("", master)
    with pytest.raises(EngineError, match=f"starttls_more_certificates.*{said}"):
        host.plan("offered", OfPorts((port,), SECOND))


@pytest.mark.parametrize("path", ["/a\n  -o smtpd_relay_restrictions=permit", "/a b", "relative.pem", "/a,b"])
def test_a_hostile_path_reaches_no_file(make, path):
    with pytest.raises(EngineError, match=r"starttls_more_certificates: the certificate_path .* has to be absolute"):
        make().plan("offered", OfPorts((465,), path))


@pytest.mark.parametrize("inbound", [None, "disabled"])
def test_a_host_that_offers_no_tls_gets_none(make, inbound):
    host = make()
    host.plan(inbound, ON_465)
    assert not [one for one in host.plan(inbound, ON_465).after if SECOND.encode() in one.content]


def test_without_a_record_uninstall_takes_the_options_with_the_collections_files_out(make):
    host = make()
    host.apply("offered", ON_465, OfPorts((587,), "/srv/other.pem"))
    images = {image.path: image.content for image in host.adapter().stripped({}, OWN)}
    assert SECOND.encode() not in images[str(host.fake.master)]
    assert b"/srv/other.pem" in images[str(host.fake.master)]
    assert OWN.encode() not in images[str(host.fake.main)]
