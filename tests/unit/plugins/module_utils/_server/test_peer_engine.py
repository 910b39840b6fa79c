"""The change of peers: what is refused, what waits, what is proved. With a stand-in for the daemon and for the tests of peers."""

import ast
import contextlib
import hashlib
import os
import ssl
from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import peer_engine as module
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import peer_proof
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import Peer
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_engine import PeerWish, set_peers, shown
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.envelope import EnvelopeProof
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

from tests.support.alarm import at_most
from tests.support.attacker import give_away, needs_root, never_opened

OWN = Target("127.0.0.1", 25)
SETTINGS = Settings(timeout=0.2)
DONE = EnvelopeProof("exch.example.com", 25, "done", 250, "2.1.5", "2.1.5 Ok")


def peer(name="one", **more):
    return Peer.from_dict({"name": name, "hosts": ["exch.example.com"], "domains": [f"{name}.example"], **more})


class Daemon:
    """A mail server with peers: its configuration is a file with one line for each."""

    name = "fakemail"
    reads_files_unasked = False

    def __init__(self, directory):
        self.file = directory / "peers"
        self.file.write_text("")
        self.store = str(directory / "store")
        self.calls, self.queue, self.found, self.wrong = [], [], [], ""
        self.ended = False

    def transaction(self, store):
        return Transaction(self, store)

    def require_running(self):
        pass

    def has_ended(self):
        return self.ended

    def files(self):
        return (str(self.file),)

    def check(self):
        self.calls.append("check")

    def reload(self):
        self.calls.append("reload")

    resume = reload

    def roots(self):
        return ""

    def peers(self):
        return [ast.literal_eval(line) for line in self.file.read_text().splitlines()]

    def faults(self, peers):
        return list(self.found)

    def plan(self, wanted, gone, was):
        held = {one["name"]: one for one in self.peers() if one["name"] not in gone}
        wrong = {"level": self.wrong} if self.wrong else {}
        held.update({one.name: {**shown(one), "domains": sorted(one.domains), **wrong} for one in wanted})
        text = "".join(f"{held[name]}\n" for name in sorted(held))
        return Change.of([replace(FileImage.read(str(self.file)), content=text.encode())])

    def waiting(self, domains, others):
        return [one for one in self.queue if one.recipient.partition("@")[2] in domains]

    def prove(self, wanted):
        self.calls.append(f"prove {' '.join(one.name for one in wanted)}")


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    one = Daemon(tmp_path)
    answer = Handshake(OWN, Stage.EHLO)
    monkeypatch.setattr(module, "handshake_one", lambda *_: answer)
    monkeypatch.setattr(module, "wait_until", lambda *_: answer)
    one.seen, one.asked = DONE, []

    def prove(target, settings, sender, recipient, certificate, key):
        one.asked.append((str(target), target.name, sender, recipient, certificate, key))
        return one.seen

    monkeypatch.setattr(peer_proof, "prove_envelope", prove)
    monkeypatch.setattr(peer_proof, "_presented", lambda *paths: contextlib.nullcontext(paths))
    monkeypatch.setattr(
        module,
        "unusable",
        lambda certificate, _key: "" if "none" not in certificate else f"there is no file {certificate}",
    )
    return one


def run(daemon, *peers, state="present", check_mode=False, **more):
    names = tuple(one.name for one in peers) if state == "absent" else ()
    wish = PeerWish(() if state == "absent" else peers, state, names, queue_seconds=0.0, **more)
    return set_peers(daemon, wish, SETTINGS, OWN, check_mode, daemon.store)


PROVED = {"proof_sender": "a@one.example", "proof_recipient": "b@one.example"}


def test_all_peers_in_one_transaction(daemon):
    outcome = run(daemon, peer(**PROVED, client_certificate="/c.pem", client_key="/k"), peer("two", direction="both"))
    assert outcome.changed
    assert daemon.calls == ["check", "reload", "prove one two"]
    assert [one["name"] for one in outcome.after] == ["one", "two"]
    assert daemon.asked[0] == ("exch.example.com:25", "", "a@one.example", "b@one.example", "/c.pem", "/k")
    assert daemon.asked[1] == ("exch.example.com:25", "", "", "", "", "")
    assert [one for one in outcome.warnings if "peer two" in one and "not tested to RCPT" in one]
    assert str(daemon.file) in outcome.digests


def test_a_second_run_asks_nobody_and_changes_nothing(daemon):
    run(daemon, peer())
    daemon.calls.clear()
    daemon.asked.clear()
    assert not run(daemon, peer()).changed
    assert (daemon.calls, daemon.asked) == ([], [])
    run(daemon, peer(), peer("two"))
    assert len(daemon.asked) == 1


def test_the_order_of_domains_does_not_matter(daemon):
    assert run(daemon, peer(domains=["z.example", "a.example"])).changed


def test_what_only_comes_in_needs_nothing(daemon):
    assert not run(daemon, peer(direction="inbound")).changed


def test_check_mode_says_what_a_run_would_do_and_refuse(daemon):
    daemon.seen = EnvelopeProof("exch.example.com", 25, "starttls", message="STARTTLS is not offered")
    daemon.found = ["peer one: routed by hand"]
    outcome = run(daemon, peer(), check_mode=True)
    assert outcome.changed and daemon.peers() == []
    assert "a real run would refuse this: peer one: routed by hand" in outcome.warnings
    daemon.found = []
    assert "STARTTLS is not offered; mail would be deferred" in run(daemon, peer(), check_mode=True).warnings[-1]
    with pytest.raises(EngineError, match=r"mail would be deferred\. Switch TLS on at that side first"):
        run(daemon, peer())
    assert daemon.calls == []
    assert run(daemon, peer(), require_without_evidence=True).changed


@pytest.mark.parametrize("level", ["required", "opportunistic"])
@pytest.mark.parametrize("insist", [True, False])
def test_a_refusal_for_good_is_never_gone_past(daemon, level, insist):
    daemon.seen = EnvelopeProof(
        "exch.example.com", 25, "rcpt", 550, "5.7.64", "5.7.64 TenantAttribution; Relay Access Denied", "refused"
    )
    with pytest.raises(
        EngineError, match=r"refuses the proof for good \(550 5.7.64 TenantAttribution.*mail would bounce"
    ):
        run(daemon, peer(level=level, **PROVED), require_without_evidence=insist)


def test_a_resumed_session_that_is_refused_is_a_warning_because_the_transport_resumes_none(daemon):
    refused = EnvelopeProof("exch.example.com", 25, "rcpt", 550, "5.7.64", "5.7.64 TenantAttribution", "refused")
    daemon.seen = replace(DONE, resumed=True, second=refused)
    outcome = run(daemon, peer(**PROVED))
    assert outcome.changed
    assert "on a resumed session: 550 5.7.64 TenantAttribution" in outcome.warnings[-1]


def test_opportunistic_goes_on_without_tls_but_says_so(daemon):
    daemon.seen = EnvelopeProof("exch.example.com", 25, "starttls", message="STARTTLS is not offered")
    outcome = run(daemon, peer(level="opportunistic"))
    assert outcome.changed
    assert "STARTTLS is not offered" in outcome.warnings[-1]


def test_exchange_online_is_not_required_untested(daemon):
    with pytest.raises(
        EngineError, match="peer one is not tested to RCPT: Exchange Online refuses after a good handshake"
    ):
        run(daemon, peer(kind="exchange_online"))
    assert run(daemon, peer(kind="exchange_online"), require_without_evidence=True).changed
    assert run(daemon, peer(kind="exchange_online", domains=["x.example"], **PROVED)).changed


def test_a_certificate_that_cannot_be_presented(daemon):
    with pytest.raises(EngineError, match=r"peer one: there is no file /none\.pem"):
        run(daemon, peer(client_certificate="/none.pem"), require_without_evidence=True)


def test_without_tls(daemon):
    assert not run(daemon, peer(), state="disabled").changed  # it is not there
    run(daemon, peer(), peer("two", client_certificate="/c.pem"))
    with pytest.raises(EngineError, match=r"peer two: .*may refuse mail for good"):
        run(daemon, peer(), peer("two", client_certificate="/c.pem"), state="disabled")
    daemon.asked.clear()
    outcome = run(daemon, peer(), state="disabled")
    assert [one["level"] for one in outcome.after] == ["disabled", "required"]
    assert daemon.asked == []


def test_a_peer_goes_when_nothing_waits_for_it(daemon):
    run(daemon, peer(), peer("two"))
    daemon.queue = [Waiting("4f", "x@one.example", "TLS is required")]
    with pytest.raises(
        EngineError,
        match=r"the way to the peer one \(one\.example\) is not taken out, because mail still waits .* 4f to x@one.example: TLS",
    ):
        run(daemon, peer(), state="absent")
    assert "mail waits for it" in run(daemon, peer(), state="absent", check_mode=True).warnings[-1]
    daemon.queue = []
    assert [one["name"] for one in run(daemon, peer(), state="absent").after] == ["two"]
    assert run(daemon, state="absent").after == []
    assert not run(daemon, state="absent").changed


def test_a_domain_that_a_peer_loses_is_waited_for_too(daemon):
    run(daemon, peer(domains=["one.example", "more.example"]))
    daemon.queue = [Waiting("4f", "x@more.example")]
    with pytest.raises(EngineError, match=r"the way to the peer one \(more\.example\) is not taken out"):
        run(daemon, peer())
    assert run(daemon, peer(), peer("two", domains=["more.example"])).changed  # it moves
    assert run(daemon, peer("two", domains=["two.example"]), peer(domains=["*"])).changed


def test_a_domain_of_another_peer_is_not_taken(daemon):
    run(daemon, peer())
    with pytest.raises(EngineError, match=r"peer two: one\.example goes to the peer one of this host"):
        run(daemon, peer("two", domains=["one.example"]))
    assert run(daemon, peer("two", domains=["one.example"]), peer(domains=["x.example"])).changed


def test_mail_that_comes_in_between_undoes_the_removal(daemon, monkeypatch):
    run(daemon, peer())
    reload = daemon.reload
    monkeypatch.setattr(
        daemon, "reload", lambda: (reload(), daemon.queue.append(Waiting("4f", "x@one.example", arrived=1.0)))
    )
    with pytest.raises(TransactionError, match="mail came in while its route was taken out"):
        run(daemon, peer(), state="absent")
    assert [one["name"] for one in daemon.peers()] == ["one"]


def test_a_configuration_that_does_not_show_the_peer_is_undone(daemon):
    daemon.wrong = "opportunistic"
    with pytest.raises(TransactionError, match="does not show the peer one as wanted: level") as error:
        run(daemon, peer())
    assert error.value.restored
    assert daemon.peers() == []


def test_a_daemon_that_does_not_answer(daemon, monkeypatch):
    monkeypatch.setattr(module, "handshake_one", lambda *_: Handshake(OWN, Stage.CONNECT, message="nobody"))
    with pytest.raises(EngineError, match=r"no mail server answers on 127\.0\.0\.1:25"):
        run(daemon, peer())


def test_a_file_that_changed_since_the_plan(daemon):
    with pytest.raises(EngineError, match="peers"):
        set_peers(daemon, PeerWish((peer(),)), SETTINGS, OWN, False, daemon.store, digests={str(daemon.file): "absent"})


# The certificate of the peer, and that of the client


@pytest.fixture
def chain(authority, daemon):
    issued = authority.issue(["exch.example.com", "*.sub.example.com"])
    der = [
        ssl.PEM_cert_to_DER_cert(one + "-----END CERTIFICATE-----\n")
        for one in issued.fullchain_pem.decode().split("-----END CERTIFICATE-----\n")[:-1]
    ]
    daemon.seen = replace(DONE, chain=tuple(der))
    return daemon.seen.chain


def problems(peers, roots):
    return [one.problem for one in peer_proof.prove_peers(peers, SETTINGS, roots)]


def test_the_check_of_the_daemon_is_made_before(authority, chain, tmp_path):
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.root_pem)
    good, bad = str(roots), "/dev/null"
    seen = hashlib.sha256(chain[0]).hexdigest()
    for more, source, passes in (
        ({"check": "trusted_chain"}, good, True),
        ({"check": "trusted_chain"}, "", False),
        ({"check": "hostname"}, good, True),
        ({"check": "hostname", "names": ["other.example.com"]}, good, False),
        ({"check": "hostname", "names": ["other.example.com", ".sub.example.com"]}, good, True),
        ({"check": "hostname", "names": [".example.com"]}, good, True),
        ({"check": "pin", "pin_issuer_file": good}, bad, True),
        ({"check": "pin", "pin_fingerprints": ["00" * 32, seen]}, bad, True),
        ({"check": "pin", "pin_fingerprints": ["00" * 32]}, bad, False),
    ):
        [problem] = problems([peer(**more)], source)
        assert (problem == "") == passes, (more, problem)
        assert passes or "does not pass the check" in problem


def test_a_client_certificate_is_looked_at(authority, tmp_path):
    issued, other = authority.issue(["relay.example.com"]), authority.issue(["other.example.com"])
    both, turned, alone, key, wrong = (tmp_path / name for name in ("both", "turned", "alone", "key", "wrong"))
    both.write_bytes(issued.key_pem + issued.fullchain_pem)
    turned.write_bytes(issued.fullchain_pem + issued.key_pem)
    alone.write_bytes(issued.fullchain_pem)
    key.write_bytes(issued.key_pem)
    wrong.write_bytes(other.key_pem)
    assert peer_proof.unusable(str(both), "") == ""
    assert peer_proof.unusable(str(alone), str(key)) == ""
    assert "does not begin with a private key" in peer_proof.unusable(str(turned), "")
    assert "the key belongs to another certificate" in peer_proof.unusable(str(alone), str(wrong))
    assert "there is no file" in peer_proof.unusable(str(alone), str(tmp_path / "none"))
    assert "cannot be used" in peer_proof.unusable(str(alone), os.devnull)


def _asked(path):
    """The peers whose certificate, key or issuers are in this file."""
    given = {"client_certificate": path}, {"client_certificate": __file__, "client_key": path}
    return [*(peer(**one) for one in given), peer(check="pin", pin_issuer_file=path)]


@pytest.mark.parametrize("which", range(3))
def test_a_pipe_in_place_of_a_file_of_a_peer_holds_nobody(which, tmp_path):
    """A user of the host may be the owner of the file's directory."""
    os.mkfifo(tmp_path / "pipe")
    one = _asked(str(tmp_path / "pipe"))[which]
    with at_most(5):
        if one.client_certificate:
            assert "it is no regular file" in peer_proof.unusable(one.client_certificate, one.client_key)
            with pytest.raises(EngineError, match="it is no regular file"):
                peer_proof.prove_peers([one], SETTINGS)
        else:
            with pytest.raises(OSError, match="it is no regular file"):
                peer_proof._unfit(one, OWN, (), SETTINGS, "")


@needs_root
@pytest.mark.parametrize("which", range(3))
def test_no_link_of_a_user_leads_a_peer_to_a_file_of_root(which, authority, tmp_path):
    issued = authority.issue(["relay.example.com"])
    secret, home = tmp_path / "secret.pem", tmp_path / "home"
    secret.write_bytes(issued.key_pem + issued.fullchain_pem)
    home.mkdir()
    (home / "own.pem").symlink_to(secret)
    give_away(home)
    one = _asked(str(home / "own.pem"))[which]
    with never_opened(secret):
        if one.client_certificate:
            assert "is a link that" in peer_proof.unusable(one.client_certificate, one.client_key)
            with pytest.raises(EngineError, match="is a link that"):
                peer_proof.prove_peers([one], SETTINGS)
        else:
            with pytest.raises(EngineError, match="is a link that"):
                peer_proof._unfit(one, OWN, (), SETTINGS, "")
