"""The peers of Debian's Exim, on files with the shape of Debian's and a stand-in for its commands."""

import os
import re

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import peer as module
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import sections
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.server import Exim
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EmailConfig,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.record import dump
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import Peer
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_engine import shown, without_tls
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.exim_host import EximHost, OwnFiles

PIN = "ab" * 32
SMARTHOST = "dc_eximconfig_configtype='smarthost'\ndc_smarthost='exch.example.com'\n"


def peer(name="on-site", **more):
    return Peer.from_dict({"name": name, "hosts": ["exch.example.com"], "domains": ["example.com"], **more})


class Host(EximHost):
    """A host whose Exim prints its configuration from the text that Debian generates."""

    def __init__(self, monkeypatch, root, split, settings=""):
        super().__init__(monkeypatch, root, split, settings)
        monkeypatch.setattr(module, "CONFIG_DIR", str(self.etc))
        monkeypatch.setattr(module, "GENERATED", str(self.generated))
        monkeypatch.setattr(module, "_TEMPLATE", str(self.template))
        monkeypatch.setattr(module, "_GATEWAY_RECORD", str(self.directory / "gateway.json"))
        monkeypatch.setattr(module, "FileImage", OwnFiles())
        monkeypatch.setattr(module, "SETTINGS", str(self.settings))
        monkeypatch.setattr(module, "DIRECTORY", str(self.directory))
        self.tests, self.local = "", set()

    def run(self, arguments):
        words = list(arguments)
        if words[:3] == ["exim4", "-bP", "routers"]:
            return 0, self.printed("routers", "router"), ""
        if words[:2] == ["exim4", "-bP"]:
            return 0, f"{self.generated}\n{self.printed('transports', 'transport')}", ""
        if words[:2] == ["exim4", "-bt"]:
            return 0, self.tests, ""
        if words[:2] == ["exim4", "-be"]:
            asked = [re.search(r"match_domain\{(.*?)\}", one)[1] for one in words[2:]]
            return 0, "".join("yes\n" if one in self.local else "no\n" for one in asked), ""
        return super().run(arguments)

    def printed(self, section, kind):
        """What exim -bP prints of our part of a section."""
        text = "".join(
            self.adapter_of_peers._present(title) for title in (section, f"last {section}") if title in module._SPLIT
        )
        found = re.findall(r"(?m)^(mailfleet_peer_\w+):\n((?:[ \t.#].*\n|\w+ ?=.*\n)*)", text)
        return "".join(f"{name} {kind}:\n{body}\n" for name, body in found)

    @property
    def adapter_of_peers(self):
        return module.EximPeers(self.run, Exim(self.run, lambda *_: None), may_split=True)

    def set(self, *peers, gone=()):
        return self.put(self.adapter_of_peers.plan(peers, gone, {}))

    def transport(self, name="on_site"):
        text = self.adapter_of_peers._present("transports")
        return sections.stanza(text, f"mailfleet_peer_{name}", "transport")


@pytest.fixture(params=[True, False], ids=["split", "unsplit"])
def host(request, monkeypatch, tmp_path):
    return Host(monkeypatch, tmp_path, request.param)


@pytest.fixture
def relay(monkeypatch, tmp_path):
    """A host with a smart host."""
    return Host(monkeypatch, tmp_path, True, SMARTHOST)


def test_a_peer_has_a_router_and_a_copy_of_debians_transport(host):
    host.set(peer(client_certificate="/c.pem", client_key="/k.key"))
    text = host.transport()
    assert "dkim_domain = DKIM_DOMAIN" in text and "helo_data=REMOTE_SMTP_HELO_DATA" in text
    assert "REMOTE_SMTP_HOSTS" not in text and "REMOTE_SMTP_TLS" not in text
    for line in (
        "hosts_require_tls = *", "tls_tempfail_tryclear = false", "tls_certificate = /c.pem", "tls_privatekey = /k.key",
        "tls_sni = $host", "connection_max_messages = 1", "retry_include_ip_address = false",
    ):  # fmt: skip
        assert f"  {line}\n" in text
    routers = host.adapter_of_peers._present("routers")
    assert "  domains = example.com\n  route_data = <;exch.example.com:25\n" in routers
    assert "mailfleet_expired_on_site:" in routers
    assert "exch.example.com  *  F,2h,2m; F,365d,15m\n" in host.adapter_of_peers._present("retry")
    assert host.adapter_of_peers._present("last routers") == ""


def test_a_second_run_changes_nothing_and_other_peers_stay(host):
    other = peer("other", domains=["other.example"])
    host.set(peer(), other)
    assert not host.adapter_of_peers.plan([peer(), other], (), {})
    host.set(gone=["on-site"])
    assert [one["name"] for one in host.adapter_of_peers.peers()] == ["other"]


def test_everything_comes_back_byte_by_byte(host):
    if not host.split:  # the first change moves it to the split configuration, which stays
        host.set(peer())
        host.set(gone=["on-site"])
    before = host.files()
    host.set(peer(), peer("all", domains=["*"]))
    assert host.files() != before
    host.set(gone=["on-site", "all"])
    assert host.files() == before


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"level": "opportunistic"}, ["hosts_try_dane ="]),
        ({"check": "trusted_chain"}, ["tls_verify_hosts = *", "tls_verify_certificates = system", "tls_verify_cert_hostnames ="]),
        ({"check": "hostname"}, ["tls_verify_certificates = system", "tls_verify_cert_hostnames = *"]),
        ({"check": "pin", "pin_issuer_file": "/ca.pem"}, ["tls_verify_certificates = /ca.pem", "tls_verify_cert_hostnames ="]),
        ({"check": "pin", "pin_fingerprints": [PIN, "cd" * 32]}, [f"{{inlisti{{${{sha256:$tls_out_peercert}}}}{{{PIN}:{'cd' * 32}}}}}"]),
        ({"servername": "sni.example"}, ["tls_sni = sni.example"]),
    ],
)  # fmt: skip
def test_levels_and_checks_are_set_and_read_back(host, more, expected):
    one = peer(**more)
    host.set(one)
    text = host.transport()
    assert [line for line in expected if line.strip("{}") not in text] == []
    assert host.adapter_of_peers.peers() == [shown(one)]


def test_without_tls_the_way_stays(host):
    one = without_tls(peer(client_certificate="/c.pem"))
    host.set(one)
    text = host.transport()
    assert "  hosts_avoid_tls = *\n" in text and "tls_certificate" not in text
    assert host.adapter_of_peers.peers() == [shown(one)]


def test_an_address_has_no_sni(host):
    host.set(peer(hosts=["192.0.2.1"]))
    assert "tls_sni" not in host.transport()


def test_all_mail_that_leaves(host):
    host.set(peer(domains=["*"], hosts=["a.example", "b.example:2525"]))
    assert host.adapter_of_peers._present("routers") == ""
    last = host.adapter_of_peers._present("last routers")
    assert "  domains = ! +local_domains : ! +relay_to_domains\n  route_data = <;a.example:25;b.example:2525\n" in last
    assert host.adapter_of_peers.peers()[0]["domains"] == ["*"]
    text = host.compose()
    assert text.index("hubbed_hosts:") < text.index("mailfleet_peer_on_site:") < text.index("\ndnslookup:")


def test_all_mail_as_the_smart_host_takes_it(relay):
    everything = peer(domains=["*"])
    assert relay.adapter_of_peers.faults([everything]) == []
    relay.set(everything)
    assert "hosts_try_auth" in relay.transport()
    assert "domains = ! +local_domains\n" in relay.adapter_of_peers._present("last routers")
    [said] = relay.adapter_of_peers.faults([peer(domains=["*"], hosts=["other.example"])])
    assert "dc_smarthost leads all mail to exch.example.com:25" in said


@pytest.mark.parametrize(
    ("router", "hosts", "refused"),
    [
        ("hubbed_hosts", ["other.example"], True),
        ("hubbed_hosts", ["exch.example.com"], False),
        ("smarthost", ["gw.example"], False),
        ("dnslookup", ["mx.example"], False),
        ("mailfleet_peer_on_site", ["old.example"], False),
    ],
)
def test_a_route_by_hand_is_not_overridden(host, router, hosts, refused):
    lines = "".join(f"  host {one} [192.0.2.1] MX=1\n" for one in hosts)
    host.tests = f"postmaster@example.com\n  router = {router}, transport = remote_smtp\n{lines}"
    faults = host.adapter_of_peers.faults([peer()])
    assert bool(faults) == refused
    assert not refused or "the router hubbed_hosts leads example.com to other.example" in faults[0]


def test_what_is_local_unreadable_or_cannot_be_said_is_refused(host, tmp_path):
    host.local = {"example.com"}
    named = peer(check="hostname", names=["other.example", ".example.com"], hosts=["exch.example.com", "x.test"])
    faults = host.adapter_of_peers.faults([peer(client_certificate=str(tmp_path / "none.pem")), named])
    assert "is delivered on this host" in faults[0]
    assert "there is no file" in faults[1]
    assert "names has none for x.test" in faults[3]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_key_that_exim_may_not_read_is_named(host, tmp_path):
    key = tmp_path / "c.pem"
    key.touch(mode=0o000)
    [said] = host.adapter_of_peers.faults([peer(client_certificate=str(key))])
    assert "cannot be read by" in said
    assert key.stat().st_mode & 0o777 == 0


def test_a_gateway_on_the_same_host(host):
    config = EmailConfig("ours", ("example.com",), (Target("mx.example"),), "opportunistic")
    host.directory.mkdir()
    state = GatewayState({"ours": config}, outbound=OutboundTls(send="match_sender"))
    (host.directory / "gateway.json").write_text(dump(state))
    assert ["of the email config ours" in one for one in host.adapter_of_peers.faults([peer()])] == [True]
    assert "send: match_sender" in host.adapter_of_peers.faults([peer(domains=["*"])])[0]


def test_the_routing_is_proved(host):
    host.tests = "postmaster@example.com\n  router = mailfleet_peer_on_site, transport = mailfleet_peer_on_site\n"
    host.adapter_of_peers.prove([peer()])
    host.tests = "postmaster@example.com cannot be resolved at this time\n"
    with pytest.raises(EngineError, match="to the router \\(none\\), not to mailfleet_peer_on_site"):
        host.adapter_of_peers.prove([peer()])


def test_what_waits(host):
    host.local = {"local.example"}
    host.answers[("exim4", "-bp")] = (
        0,
        "".join(
            f" 5m  1.2K 1vP7qD-00000000{at}AB-0000 <a@b.example>\n          x@{domain}\n\n"
            for at, domain in enumerate(("example.com", "else.example", "local.example"))
        ),
        "",
    )
    waiting = host.adapter_of_peers.waiting
    assert [one.recipient for one in waiting({"example.com"}, {"*"})] == ["x@example.com"]
    assert [one.recipient for one in waiting({"*"}, {"example.com"})] == ["x@else.example"]


def test_a_template_that_is_not_debians(monkeypatch, tmp_path):
    host = Host(monkeypatch, tmp_path, False)
    host.template.write_text(f"own_router:\n{host.template.read_text()}")
    with pytest.raises(
        EngineError, match=r"has lines outside of the parts that Debian makes it of.*: own_router:; move"
    ):
        host.adapter_of_peers.plan([peer()], (), {})
    with pytest.raises(EngineError, match="has 0 lines 'begin retry', not one"):
        sections.with_block("begin routers\n", "retry", module._PLACES["retry"], "x\n", "/template")


def test_an_unsplit_configuration_stays_without_consent(monkeypatch, tmp_path):
    host = Host(monkeypatch, tmp_path, False)
    before = host.files()
    adapter = module.EximPeers(host.run, Exim(host.run, lambda *_: None))
    with pytest.raises(EngineError, match=r"conffile of the package exim4-config.*Set starttls_exim_split: true"):
        adapter.plan([peer()], (), {})
    assert not adapter.plan([], (), {})
    assert host.files() == before


def test_what_an_older_version_has_put_into_the_template_moves(monkeypatch, tmp_path):
    host = Host(monkeypatch, tmp_path, False)
    host.etc.joinpath("conf.d/router/00_exim4-config_header").write_text("begin routers\n")
    host.make_template()
    debian = host.template.read_text()
    block = "# peer old\nmailfleet_peer_old:\n  driver = manualroute\n\n"
    host.template.write_text(sections.with_block(debian, "routers", module._PLACES["routers"], block, "/template"))
    without = module.EximPeers(host.run, Exim(host.run, lambda *_: None))
    assert not without.plan([], (), {})  # no consent: it may stay
    host.set(peer())
    assert host.template.read_text() == debian
    text = (host.etc / "conf.d/router/051_mailfleet-peers").read_text()
    assert block in text and "mailfleet_peer_on_site:" in text
