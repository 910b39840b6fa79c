"""A certificate that one port serves in the place of the host's own: real TLS servers that follow their files."""

import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import numbered
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.pem import leaf_fingerprint
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import Listener
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.evidence import stale_ports
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import OfPorts
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import Sides
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reading import Reading
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target, handshake_one
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

from tests.support.fake_mail import BRIEF, PATIENT, FakeMail
from tests.support.smtp_server import PLAIN, Face, SmtpServer

SUBMISSION = "submission.example.com"


class TwoPorts(FakeMail):
    """A mail server with a submission port, which has a certificate of its own if its settings name one."""

    serves_by_port = True
    spoils = False
    """Whether the submission port goes on with the host's certificate whatever its settings say."""
    loads = 2
    """How many of its certificates the submission port serves."""

    def __init__(self, directory, authority):
        self.second = SmtpServer(PLAIN)
        super().__init__(directory, authority)

    def own(self, text=""):
        """The files of the submission port."""
        lines = (text or self.config.read_text()).splitlines()
        found = [line.partition("=")[2] for line in lines if line.startswith("second=")]
        return tuple(found) or (str(self.certificate),)

    def plan(self, desired):
        now = self.settings
        text = self.text(desired.inbound or now["inbound"], desired.outbound or now["outbound"])
        text += "".join(f"second={one.certificate}\n" for one in desired.of_ports if desired.offers)
        status = self.config.stat()
        mode = status.st_mode & 0o777
        return Change.of([FileImage(str(self.config), text.encode(), mode, status.st_uid, status.st_gid)])

    def follow(self):
        super().follow()
        if self.settings["inbound"] == "disabled":
            self.second.face = PLAIN
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for path in [str(self.certificate)] if self.spoils else self.own()[: self.loads]:
            context.load_cert_chain(path)
        self.second.face = Face(context=context)

    def sides(self, change=None):
        images = {one.path: one.content.decode() for one in change.after if one.content} if change else {}
        text = images.get(str(self.config), self.config.read_text())
        tls = "none" if "inbound=disabled" in text else "offered"

        def served(*paths):
            return () if tls == "none" else paths

        return Sides(
            (
                Listener("smtp", self.port.host, self.port.port, tls, served(str(self.certificate))),
                Listener("submission", self.second.host, self.second.port, tls, served(*self.own(text))),
            )
        )


@pytest.fixture
def mail(tmp_path, authority):
    server = TwoPorts(tmp_path, authority).start("disabled")
    yield server
    server.port.close()
    server.second.close()


def wanted(mail, issued, place=1):
    """The options of a wanted state with a certificate of the submission port, which the change installs."""
    file = replace(mail.renewal(issued), path=numbered(str(mail.certificate), place))
    return {"others": (file,), "of_ports": (OfPorts((mail.second.port,), file.path),)}


def served(at):
    return handshake_one(Target(at.host, at.port), replace(PATIENT, verify_trust=False)).fingerprint


def leaf(issued):
    return leaf_fingerprint(issued.fullchain_pem)


def test_it_is_installed_served_there_alone_and_proved(mail, authority):
    issued = authority.issue([SUBMISSION])
    outcome = mail.set("offered", **wanted(mail, issued))
    assert outcome.changed and outcome.warnings == ()
    assert (served(mail.port), served(mail.second)) == (mail.fingerprint, leaf(issued))
    again = mail.set("offered", **wanted(mail, issued))
    assert (again.changed, again.diff) == (False, [])


def test_each_algorithm_of_a_port_is_proved_there(mail, authority):
    parts = [wanted(mail, authority.issue([SUBMISSION], key=key), place) for place, key in ((1, "ec"), (2, "rsa"))]
    both = {name: tuple(one for part in parts for one in part[name]) for name in ("others", "of_ports")}
    assert mail.set("offered", **both).warnings == ()
    assert served(mail.second) in [one.fingerprints[0] for one in both["others"]]
    mail.set("disabled")
    mail.loads = 1
    with pytest.raises(TransactionError, match=rf":{mail.second.port} does not serve each certificate") as error:
        mail.set("offered", settings=BRIEF, **both)
    assert error.value.restored is True


def test_a_port_that_does_not_serve_it_undoes_the_change_by_name(mail, authority):
    before = mail.config.read_bytes()
    mail.spoils = True
    with pytest.raises(TransactionError, match=rf"submission \(127.0.0.1:{mail.second.port}\) does not show") as error:
        mail.set("offered", settings=BRIEF, **wanted(mail, authority.issue([SUBMISSION])))
    assert error.value.restored is True
    assert mail.config.read_bytes() == before
    assert not Path(numbered(str(mail.certificate), 1)).exists()


def test_its_renewal_is_proved_on_its_port_although_no_setting_changes(mail, authority):
    mail.set("offered", **wanted(mail, authority.issue([SUBMISSION])))
    issued = authority.issue([SUBMISSION])
    assert mail.set("offered", **wanted(mail, issued)).changed
    assert served(mail.second) == leaf(issued)
    mail.deaf = True
    with pytest.raises(TransactionError, match=r"the certificate served .* is none of"):
        mail.set("offered", settings=BRIEF, **wanted(mail, authority.issue([SUBMISSION])))


def test_an_entry_that_is_gone_gives_the_port_the_certificate_of_the_host(mail, authority):
    mail.set("offered", **wanted(mail, authority.issue([SUBMISSION])))
    assert mail.set("offered").changed
    assert served(mail.second) == mail.fingerprint


def test_one_that_its_owner_has_renewed_is_taken_up_by_the_next_run(mail, authority):
    path = mail.directory / "second.pem"

    def renew():
        issued = authority.issue([SUBMISSION])
        path.write_bytes(issued.key_pem + issued.fullchain_pem)
        return issued

    renew()
    of = {"on_host": True, "of_ports": (OfPorts((mail.second.port,), str(path)),)}
    mail.set("offered", **of)
    desired = mail.desired("offered", **of)
    assert stale_ports(mail, desired, PATIENT) == []
    issued = renew()
    assert stale_ports(mail, desired, PATIENT) == [mail.second.port]
    read = Reading(mail, desired, PATIENT, str(mail.store)).read(["fakemail"])
    assert (read["offer"], read["reload"]) == (True, True)
    assert mail.set("offered", **of).changed
    assert served(mail.second) == leaf(issued)


def test_a_kind_that_cannot_refuses_it_by_name(tmp_path, authority):
    mail = FakeMail(tmp_path, authority).start("disabled")
    try:
        with pytest.raises(EngineError, match="starttls_more_certificates: fakemail serves one certificate on all"):
            mail.set("offered", of_ports=(OfPorts((587,), str(mail.certificate) + "2"),))
    finally:
        mail.port.close()
