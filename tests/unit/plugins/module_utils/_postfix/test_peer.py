"""The peers of Postfix, against a stand-in for its commands."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import Was
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EmailConfig,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.record import dump
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import peer as module
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import server
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.own_paths import OwnPaths
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import Peer
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_engine import shown, without_tls
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.fake_postfix import DEFAULTS, MAIN, MASTER, FakePostfix

PIN = "ab" * 32
AT = OwnPaths("/etc/postfix")


def peer(name="exchange", **more):
    return Peer.from_dict({"name": name, "hosts": ["exch.example.com"], "domains": ["example.com"], **more})


class Host:
    """One Postfix host: its files, and the adapter of its peers."""

    def __init__(self, monkeypatch, root, main="", **fake):
        self.etc = root / "etc"
        self.fake = FakePostfix(self.etc, main=MAIN + main, **fake)
        self.table = self.etc / "mailfleet-peers/transport"
        self.layout = replace(DEBIAN, config_dir=str(self.etc))
        monkeypatch.setattr(
            module,
            "_table",
            lambda path, text: FileImage(path, text and text.encode(), 0o644, os.getuid(), os.getgid()),
        )
        self.first = {name: (self.etc / name).read_bytes() for name in ("main.cf", "master.cf")}

    @property
    def adapter(self):
        return module.PostfixPeers(self.fake, layout=self.layout)

    def was(self):
        return {str(self.etc / name): Was(text, (self.etc / name).read_bytes()) for name, text in self.first.items()}

    def plan(self, *peers, gone=()):
        return self.adapter.plan(peers, gone, self.was())

    def put(self, *peers, gone=()):
        change = self.plan(*peers, gone=gone)
        for image in change.after:
            Path(image.path).parent.mkdir(exist_ok=True)
            image.write()
        return change

    def entry(self, name="exchange"):
        found = [one for one in self.adapter._postconf.services() if one.name == f"mailfleet_peer_{name}/unix"]
        return found[0].settings

    def gateway(self, state):
        (self.etc / "mailfleet-starttls").mkdir()
        (self.etc / "mailfleet-starttls/gateway.json").write_text(dump(state))


@pytest.fixture
def make(monkeypatch, tmp_path):
    return lambda main="", **fake: Host(monkeypatch, tmp_path, main, **fake)


def test_a_peer_has_a_transport_and_a_route_and_no_other_mail_changes(make):
    host = make()
    host.put(peer(client_certificate="/etc/c.pem"))
    assert host.fake.explicit() == {
        **FakePostfix(host.etc.parent / "other").explicit(),
        "transport_maps": f"texthash:{host.table}",
    }
    assert host.table.read_text().splitlines()[1:] == ["example.com mailfleet_peer_exchange:[exch.example.com]:25"]
    entry = host.entry()
    assert entry["smtp_tls_security_level"] == "encrypt"
    assert entry["smtp_tls_chain_files"] == "/etc/c.pem"
    assert entry["smtp_tls_servername"] == "hostname"
    # What main.cf may say of other mail, and a former session, do not count.
    assert {name: entry[name] for name in ("smtp_tls_policy_maps", "smtp_fallback_relay", "smtp_tls_session_cache_database")} == {
        "smtp_tls_policy_maps": "", "smtp_fallback_relay": "", "smtp_tls_session_cache_database": "",
    }  # fmt: skip
    assert (entry["smtp_tls_wrappermode"], entry["smtp_tls_connection_reuse"]) == ("no", "no")
    master = (host.etc / "master.cf").read_text()
    assert master.startswith(MASTER)


def test_a_second_run_changes_nothing(make):
    host = make("transport_maps = hash:/etc/postfix/mine\n")
    host.put(peer(), peer("other", domains=["other.example"]))
    assert not host.plan(peer(), peer("other", domains=["other.example"]))
    assert not host.plan(peer("other", domains=["other.example"]))


@pytest.mark.parametrize(
    "main", ["", "transport_maps = hash:/etc/postfix/mine, \n    hash:/second\n", "transport_maps =\n"]
)
def test_everything_comes_back_byte_by_byte(make, main):
    host = make(main)
    host.put(peer(check="trusted_chain"), peer("all", domains=["*"]))
    host.put(gone=["exchange", "all"])
    assert {name: (host.etc / name).read_bytes() for name in host.first} == host.first
    assert list((host.etc / "mailfleet-peers").iterdir()) == []


def test_the_tables_of_the_administrator_stay_behind_and_a_gateways_own_before(make):
    assert module.placed("hash:/mine, hash:/b", True, AT) == f"texthash:{AT.peer_table}, hash:/mine, hash:/b"
    both = f"texthash:{AT.transport_map}, texthash:{AT.peer_table}, hash:/mine"
    assert module.placed(f"texthash:{AT.transport_map}, hash:/mine", True, AT) == both
    assert module.placed(both, True, AT) == both
    assert module.placed(both, False, AT) == f"texthash:{AT.transport_map}, hash:/mine"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"level": "opportunistic"}, {"smtp_tls_security_level": "may"}),
        ({"check": "trusted_chain"}, {"smtp_tls_security_level": "verify", "smtp_tls_CAfile": "/etc/ssl/certs/ca-certificates.crt"}),
        ({"check": "hostname"}, {"smtp_tls_security_level": "secure", "smtp_tls_secure_cert_match": "hostname"}),
        (
            {"check": "hostname", "names": ["mx.example", ".example"]},
            {"smtp_tls_secure_cert_match": "mx.example:.example"},
        ),
        (
            {"check": "pin", "pin_fingerprints": [PIN, "cd" * 32]},
            {
                "smtp_tls_security_level": "fingerprint",
                "smtp_tls_fingerprint_digest": "sha256",
                "smtp_tls_fingerprint_cert_match": ":".join(["AB"] * 32) + "," + ":".join(["CD"] * 32),
            },
        ),
        (
            {"check": "pin", "pin_issuer_file": "/etc/ca.pem"},
            {"smtp_tls_security_level": "verify", "smtp_tls_CAfile": "/etc/ca.pem", "smtp_tls_CApath": "", "tls_append_default_CA": "no"},
        ),
        ({"servername": "sni.example"}, {"smtp_tls_servername": "sni.example"}),
        ({"hosts": ["192.0.2.1"]}, {"smtp_tls_servername": ""}),
        ({"client_certificate": "/c.pem", "client_key": "/k.key"}, {"smtp_tls_chain_files": "/k.key,/c.pem"}),
    ],
)  # fmt: skip
def test_levels_and_checks_are_set_and_read_back(make, more, expected):
    host = make()
    one = peer(**more)
    host.put(one)
    assert expected.items() <= host.entry().items()
    assert host.adapter.peers() == [shown(one)]


def test_every_name_is_allowed_by_a_table_that_goes_with_the_last_peer_that_needs_it(make):
    host = make()
    host.put(peer(check="trusted_chain"))
    table = host.etc / "mailfleet-peers/any_name"
    assert "/./ verify match=" in table.read_text() and ".com:" in table.read_text()
    assert host.entry()["smtp_tls_policy_maps"] == f"regexp:{table}"
    host.put(peer())
    assert not table.exists()


def test_a_domain_has_all_its_spellings_and_is_shown_once(make):
    host = make()
    host.put(peer(domains=["xn--bcher-kva.example", "a.example"]))
    assert "b\u00fccher.example mailfleet_peer_exchange" in host.table.read_text(encoding="utf-8")
    assert host.adapter.peers()[0]["domains"] == ["a.example", "xn--bcher-kva.example"]


def test_without_tls_the_way_stays(make):
    host = make()
    one = without_tls(peer(client_certificate="/c.pem"))
    host.put(one)
    assert host.entry()["smtp_tls_security_level"] == "none"
    assert host.entry()["smtp_tls_chain_files"] == ""
    assert host.adapter.peers() == [shown(one)]


def test_old_and_global_settings_of_main_cf_do_not_reach_the_transport(make):
    host = make("smtp_tls_per_site = hash:/x\nsmtp_tls_cert_file = /mine.pem\nsmtp_tls_loglevel = 2\n")
    host.put(peer())
    entry = host.entry()
    assert (entry["smtp_tls_per_site"], entry["smtp_tls_cert_file"], entry["smtp_tls_loglevel"]) == ("", "", "2")
    assert "smtp_tls_key_file" not in entry


def test_a_header_of_a_sender_does_not_switch_tls_off(make):
    host = make(defaults={**DEFAULTS, "tls_required_enable": "yes"})
    host.put(peer())
    assert host.entry()["tls_required_enable"] == "no"
    assert "tls_required_enable" not in host.fake.explicit()


def test_all_mail_that_leaves(make):
    host = make()
    one = peer(domains=["*"], hosts=["a.example", "b.example:2525"])
    host.put(one)
    assert host.fake.explicit()["default_transport"] == "mailfleet_peer_exchange:[a.example]:25,[b.example]:2525"
    assert "relay_transport" not in host.fake.explicit() and "transport_maps" not in host.fake.explicit()
    assert host.adapter.peers() == [shown(one)]
    assert not host.plan(one)
    host.put(peer())  # a domain in place of everything
    assert "default_transport" not in host.fake.explicit()


def test_all_mail_by_the_relay_host_that_is_there(make):
    host = make("relayhost = [exch.example.com]\n")
    one = peer(domains=["*"])
    assert host.adapter.faults([one]) == []
    host.put(one)
    explicit = host.fake.explicit()
    assert (explicit["default_transport"], explicit["relay_transport"]) == ("mailfleet_peer_exchange",) * 2
    assert explicit["relayhost"] == "[exch.example.com]"
    assert host.adapter.peers() == [shown(one)]
    assert not host.plan(one)
    assert server.Postfix(host.fake, layout=host.layout).next_hops() == [Target("exch.example.com")]


@pytest.mark.parametrize(
    ("main", "fault"),
    [
        ("relayhost = [elsewhere.example]\n", r"relayhost = \[elsewhere.example\] leads all mail elsewhere"),
        ("relayhost = exch.example.com\n", "in brackets"),
        ("default_transport = smtp:[x.example]\n", "default_transport = smtp"),
        ("sender_dependent_relayhost_maps = hash:/x\n", "chooses other ways by sender"),
    ],
)
def test_all_mail_that_goes_elsewhere_by_hand_is_refused(make, main, fault):
    host = make(main)
    [said] = host.adapter.faults([peer(domains=["*"])])
    assert said.startswith("peer exchange: ")
    assert re.search(fault, said)


@pytest.mark.parametrize(
    ("route", "refused"),
    [
        ("smtp:[exch.example.com]", False),
        ("relay:[EXCH.example.com]:25", False),
        (":[exch.example.com]:smtp", False),
        ("smtp:[other.example]", True),
        ("smtp:exch.example.com", True),
        ("lmtp:[exch.example.com]", True),
        ("smtp:[exch.example.com]:2525", True),
    ],
)
def test_a_route_by_hand_is_not_overridden(make, route, refused):
    host = make("transport_maps = hash:/mine\n")
    host.fake.tables["hash:/mine"] = {"example.com": route}
    faults = host.adapter.faults([peer()])
    assert bool(faults) == refused
    if refused:
        assert f"hash:/mine of transport_maps leads example.com to {route}" in faults[0]


def test_local_mail_stays(make):
    host = make("mydestination = example.com, localhost\n")
    [said] = host.adapter.faults([peer()])
    assert "example.com is delivered on this host" in said


def test_what_hides_starttls_and_what_an_old_version_cannot_do(make):
    host = make("smtp_discard_ehlo_keywords = chunking, STARTTLS\n", defaults={**DEFAULTS, "mail_version": "3.4.29"})
    several = peer(hosts=["a.example", "b.example"])
    assert [one.partition(": ")[2][:40] or one[:45] for one in host.adapter.faults([several])] == [
        "peer exchange has several hosts, and this Pos",
        "smtp_discard_ehlo_keywords = chunking, s",
    ]
    assert len(host.adapter.faults([replace(several, level="disabled")])) == 1


def test_a_gateway_on_the_same_host(make):
    host = make()
    config = EmailConfig("ours", ("example.com",), (Target("mx.example"),), "opportunistic")
    host.gateway(GatewayState({"ours": config}, outbound=OutboundTls(send="match_sender")))
    first, second = host.adapter.faults([peer()])
    assert "example.com is of the email config ours" in first
    assert "send: match_sender" in second


def test_the_routing_is_proved(make):
    host = make("transport_maps = hash:/first\n")
    host.put(peer())
    host.adapter.prove([peer()])
    host.fake.tables["hash:/first"] = {"mailfleet-starttls@example.com": "smtp:"}
    with pytest.raises(EngineError, match=r"leads mail for example\.com to smtp"):
        host.adapter.prove([peer()])


def test_what_waits(make):
    host = make("mydestination = local.example\n")
    host.put(peer(), peer("all", domains=["*"]))
    host.fake.answers[("postqueue",)] = (
        0,
        "".join(
            f'{{"queue_id": "{at}", "arrival_time": 1, "recipients": [{{"address": "x@{domain}", "delay_reason": "r"}}]}}\n'
            for at, domain in enumerate(("example.com", "else.example", "local.example"))
        ),
        "",
    )
    assert [one.recipient for one in host.adapter.waiting({"example.com"}, {"*"})] == ["x@example.com"]
    assert [one.recipient for one in host.adapter.waiting({"*"}, {"example.com"})] == ["x@else.example"]
