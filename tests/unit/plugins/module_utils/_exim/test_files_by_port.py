"""Certificates of some ports on Exim, whose options all ports share: the text chooses by $received_port."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.files_by_port import FilesByPort
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_settings import inbound
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_text import ByHandError
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired, OfPorts
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import places
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.unit.plugins.module_utils._exim.test_former import OWN, Recorded
from tests.unit.plugins.module_utils._exim.test_plain import Host as Plain
from tests.unit.plugins.module_utils._exim.test_server import PRINTED

ON_465 = OfPorts((465,), "/etc/mailfleet/starttls-2.pem")
BOTH = OfPorts((465, 587), "/live/sub.pem", "/live/sub.key")
CHOICE = "${if eq{$received_port}{465}{/etc/mailfleet/starttls-2.pem}{%s}}"


class Ports(Recorded):
    """A host that listens on three ports, and prints what Debian makes of its macros."""

    def __init__(self, monkeypatch, directory, state):
        super().__init__(monkeypatch, directory, state)
        self.answers[("exim4", "-bP")] = lambda _words: (0, f"{self.generated}\n{self.printed()}", "")

    def printed(self):
        macros = self.read()
        certificate = macros.get("MAIN_TLS_CERTKEY", macros.get("MAIN_TLS_CERTIFICATE", ""))
        text = PRINTED.replace("daemon_smtp_ports = smtp", "daemon_smtp_ports = 25 : 465 : 587")
        text = text.replace("tls_on_connect_ports =", "tls_on_connect_ports = 465")
        text = text.replace("/etc/exim4/exim.crt", certificate)
        return text.replace(
            "tls_advertise_hosts =", f"tls_advertise_hosts = {macros.get('MAIN_TLS_ADVERTISE_HOSTS', '*')}"
        )

    def served(self):
        """Port -> the files with the certificates that it serves."""
        return {one.port: one.certificates for one in self.adapter.sides().listeners}


@pytest.fixture
def make(monkeypatch, tmp_path):
    return lambda state=OWN: Ports(monkeypatch, tmp_path / "exim4", state)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("/a.pem : /b.pem", {25: "/a.pem : /b.pem", 465: "/a.pem : /b.pem"}),
        (CHOICE % "/a.pem", {25: "/a.pem", 465: "/etc/mailfleet/starttls-2.pem"}),
        ("${if eq{$received_port}{587}{/b : /c}{%s}}" % (CHOICE % "/a"), {25: "/a", 587: "/b : /c", None: "/a"}),
        ("${if eq{$tls_in_sni}{x}{/b}{/a}}", {25: "${if eq{$tls_in_sni}{x}{/b}{/a}}"}),
        (CHOICE % "${lookup{x}lsearch{/y}}", {465: CHOICE % "${lookup{x}lsearch{/y}}"}),
    ],
)  # fmt: skip
def test_a_text_tells_the_files_of_each_port(text, ports):
    found = FilesByPort.of(text)
    assert {port: found.at(port) for port in ports} == ports
    assert FilesByPort.of(str(found)) == found


def test_a_hostile_text_ends(make):
    text = "${if eq{$received_port}{1}{/b}{" * 20_000 + "/a" + "}}" * 20_000
    assert len(FilesByPort.of(text).of_port) <= 1


def test_each_port_gets_its_own(make):
    host = make()
    host.apply("offered", of_ports=(ON_465,))
    own = str(host.certificate)
    assert host.read()["MAIN_TLS_CERTKEY"] == CHOICE % own
    assert host.served() == {25: (own,), 465: ("/etc/mailfleet/starttls-2.pem",), 587: (own,)}


def test_keys_in_files_of_their_own(make):
    host = make()
    host.apply("offered", of_ports=(BOTH,))
    own = str(host.certificate)
    assert "MAIN_TLS_CERTKEY" not in host.read()
    keys = FilesByPort.of(host.read()["MAIN_TLS_PRIVATEKEY"])
    assert (keys.at(25), keys.at(465), keys.at(587)) == (own, "/live/sub.key", "/live/sub.key")
    assert host.served() == {25: (own,), 465: ("/live/sub.pem",), 587: ("/live/sub.pem",)}


def test_the_plan_knows_it_and_the_proof_goes_to_the_port(make):
    host = make()
    change = host.plan("offered", of_ports=(ON_465,))
    own_port = Target("127.0.0.1", 25)
    reached = {one.target.port: one for one in places(host.adapter.sides(), host.adapter.sides(change), own_port)}
    assert (reached[465].target.protocol, reached[465].after.certificates) == ("smtps", (ON_465.certificate,))
    assert reached[465].is_changed


@pytest.mark.parametrize("state", [OWN, "# nothing about TLS\n"])
def test_an_entry_that_is_gone_leaves_nothing_and_off_puts_every_byte_back(make, state):
    host = make(state)
    host.apply("offered")
    plain = host.read()
    host.apply("offered", of_ports=(ON_465,))
    host.apply("offered")
    assert host.read() == plain
    host.apply("offered", of_ports=(BOTH,))
    host.apply("disabled")
    without = {name: value for name, value in host.read().items() if name != "MAIN_TLS_ADVERTISE_HOSTS"}
    if state == OWN:
        assert without == dict(line.split(" = ") for line in OWN.splitlines())
    assert "starttls-2" not in host.macros.read_text() and "/live/sub" not in host.macros.read_text()


@pytest.mark.parametrize("entry", [ON_465, BOTH])
def test_to_relax_only_leaves_the_ports_theirs(make, entry):
    """The playbooks that relax TLS, such as disable_tls, name no certificates of the source files."""
    host = make()
    host.apply("required", of_ports=(entry,))
    served = host.served()
    again = (entry,) if entry.private_key else ()  # with the source host they are named
    host.apply("offered", only_relax=True, of_ports=again)
    assert (host.adapter.state()["inbound"], host.served()) == ("offered", served)
    host.apply("disabled")
    assert entry.certificate not in host.macros.read_text()


def test_a_plain_file_keeps_them_too():
    ours = dict(inbound(Desired("required", of_ports=(ON_465,)), {}, False).settings)
    edit = inbound(Desired("offered", only_relax=True), {}, True, ours)
    for name in ("tls_certificate", "tls_privatekey"):
        assert edit.settings[name] == ours[name] == CHOICE % "/etc/mailfleet/starttls.pem"


def test_what_the_administrator_chose_by_port_is_replaced_only_where_it_is_asked_for(make):
    mine = "MAIN_TLS_ENABLE = yes\nMAIN_TLS_CERTKEY = ${if eq{$received_port}{465}{/srv/465.pem}{/srv/own.pem}}\n"
    host = make(mine)
    with pytest.raises(EngineError, match=r"chooses the certificate by port or name.*starttls_more_certificates"):
        host.plan("offered")
    host.apply("offered", of_ports=(ON_465,))
    with pytest.raises(EngineError, match=r"tls_certificate is .*/srv/465.pem.* chooses the certificate by port"):
        host.plan("offered")
    host.apply("required", of_ports=(ON_465,))
    served = host.served()
    host.apply("offered", only_relax=True)
    assert host.served() == served
    host.apply("disabled")
    assert host.read()["MAIN_TLS_CERTKEY"] == "${if eq{$received_port}{465}{/srv/465.pem}{/srv/own.pem}}"


@pytest.mark.parametrize(
    ("keys", "again"), [((), ""), (("/live/rsa.key", "/live/ec.key"), "/live/rsa.key"), (("/a.key", "/b.key"), "")]
)
def test_to_relax_only_keeps_the_certificates_of_other_algorithms(make, keys, again):
    host = make()
    more = {"more": ("/live/ec.pem",), "private_key": keys[0] if keys else "", "more_keys": keys[1:]}
    host.apply("required", **more)
    macros, served = host.read(), host.served()
    assert len(served[25]) == 2 and served[25][1] == "/live/ec.pem"
    host.apply("offered", only_relax=True, private_key=again)
    assert host.served() == served
    names = ("MAIN_TLS_CERTKEY", "MAIN_TLS_CERTIFICATE", "MAIN_TLS_PRIVATEKEY")
    assert [host.read().get(name) for name in names] == [macros.get(name) for name in names]


def test_a_choice_by_name_is_never_replaced(make):
    host = make("MAIN_TLS_ENABLE = yes\nMAIN_TLS_CERTKEY = ${if eq{$tls_in_sni}{x}{/b}{/a}}\n")
    with pytest.raises(EngineError, match="chooses the certificate by port or name"):
        host.plan("offered", of_ports=(ON_465,))


@pytest.mark.parametrize(
    ("state", "port", "said"),
    [
        (OWN, 2525, "names port 2525, and Exim does not listen on it; add it to daemon_smtp_ports"),
        (
            "MAIN_TLS_ENABLE = yes\nMAIN_TLS_ADVERTISE_HOSTS = ${if eq{$received_port}{25}{*}{}}\n",
            587,
            "names port 587, and Exim offers no STARTTLS there",
        ),
    ],
)
def test_a_port_that_cannot_serve_it_is_refused_by_name(make, state, port, said):
    with pytest.raises(EngineError, match=f"starttls_more_certificates {said}"):
        make(state).plan("offered", of_ports=(OfPorts((port,), "/b.pem"),))


def test_without_a_record_uninstall_takes_the_macros_out(make):
    host = make("# mine\n")
    host.apply("offered", of_ports=(ON_465,))
    [image] = host.adapter.stripped({}, str(host.certificate))
    assert image.content == b"# mine\n"


def test_a_plain_file_gets_the_same_texts():
    edit = inbound(Desired("offered", of_ports=(BOTH,)), {}, False)
    own = "/etc/mailfleet/starttls.pem"
    certificate, key = (FilesByPort.of(edit.settings[name]) for name in ("tls_certificate", "tls_privatekey"))
    assert [certificate.at(port) for port in (25, 465, 587)] == [own, "/live/sub.pem", "/live/sub.pem"]
    assert [key.at(port) for port in (25, 465, 587)] == [own, "/live/sub.key", "/live/sub.key"]
    with pytest.raises(ByHandError, match="tls_certificate depends on the connection"):
        inbound(
            Desired("offered", of_ports=(BOTH,)), {"tls_certificate": "${if eq{$received_port}{25}{/a}{/b}}"}, False
        )


def test_a_plain_file_is_refused_too_where_a_port_cannot_serve_it(tmp_path):
    host = Plain(tmp_path)
    host.main["daemon_smtp_ports"] = "25"
    for port, certificate in ((465, "/b.pem"), (2525, "/c.pem")):
        with pytest.raises(EngineError, match=f"names port {port}, and Exim does not listen on it"):
            host.exim.plan(Desired("offered", of_ports=(OfPorts((port,), certificate),)))
