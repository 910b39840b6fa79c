"""A peer on real daemons: its own transport, its client certificate, what is refused, and the way back. LAB_PEERS=all runs all of it.

The relays send to another host of the fleet, whose Postfix asks for a client certificate and writes it into its Received header.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_testinfra import STATE, TOP, Fleet, environment, wait_for

every = pytest.mark.skipif(
    os.environ.get("LAB_PEERS", "few") != "all", reason="make test-matrix runs it: LAB_PEERS is not all"
)

RELAYS = os.environ.get("LAB_PEER_RELAYS", "rp13,rx12").split(",")
CONNECTOR = "/etc/mailfleet/connector.pem"
ISSUERS = "/etc/mailfleet/issuers.pem"
JOURNALS = "find /var/lib/mailfleet-starttls -name '*.journal'"
FILES = (
    "for f in $(find /etc/postfix /etc/exim4 -type f ! -name '*.lock' ! -name prng_exch 2>/dev/null | sort); do stat -c '%n %a %u %g' $f; "
    "cat $f; done | sha256sum"
)
KILL = f"""
until [ "$({JOURNALS})" ]; do :; done
until [ "$({FILES})" != "$BEFORE" ]; do :; done
for one in /proc/[0-9]*; do
    ls -l $one/fd 2>/dev/null | grep -qE 'mailfleet-starttls/(postfix|exim).lock' && kill -9 ${{one#/proc/}}
done
{JOURNALS}
"""


class Relay:
    """A relay of the fleet, and the host that is its peer."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet, self.name = fleet, name
        self.receiver = "gw1" if name != "gw1" else "rp13"
        self.peer_domain = f"{self.receiver}.fleet.test"
        self.exim = name.startswith("rx")

    def run(self, command: str, text: str = "", check: bool = True) -> str:
        """Run a command on the relay."""
        return self.fleet.run(self.name, command, text, check)

    def peer(self, **more: Any) -> dict[str, Any]:
        """The peer of the tests."""
        return {
            "name": "next-hop", "hosts": [self.peer_domain], "domains": [self.peer_domain], "client_certificate": CONNECTOR,
            "proof_sender": "trace@fleet.test", "proof_recipient": f"trace@{self.peer_domain}", **more,
        }  # fmt: skip

    def set(self, *peers: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Run peer_tls; it has to succeed."""
        result = self.fleet.result(self.name, "peer_tls", {"peers": list(peers), "exim_split": True, **options})
        assert not result["failed"], result["output"]
        return result

    def refusal(self, *peers: dict[str, Any], **options: Any) -> str:
        """Run peer_tls, which has to refuse; what it says."""
        result = self.fleet.result(self.name, "peer_tls", {"peers": list(peers), "exim_split": True, **options})
        assert result["failed"], result["output"]
        return str(result["msg"])

    def send(self, domain: str = "") -> str:
        """Submit a message on the relay; its mark."""
        mark = uuid.uuid4().hex
        text = f"From: trace@{self.name}.fleet.test\nTo: x@x.test\nSubject: {mark}\n\nx\n"
        self.run(f"sendmail -f trace@{self.name}.fleet.test trace@{domain or self.peer_domain}", text)
        return mark

    def received(self, mark: str) -> str:
        """The receiver's own Received header of a message in its mailbox."""
        message = wait_for(lambda: self.fleet.mail(self.receiver, mark))
        assert message is not None, f"{mark} did not arrive: {self.queue()}"
        return " ".join(str(message.get_all("Received")[0]).split())

    def queue(self) -> str:
        """The queue, with the reasons."""
        if self.exim:
            return self.run("exim4 -bp; cat /var/spool/exim4/msglog/*", check=False)
        return self.run("postqueue -j", check=False)

    def flush(self) -> None:
        """Have the daemon try everything again."""
        self.run("exim4 -qff" if self.exim else "postqueue -f", check=False)


def receiver_sets(fleet: Fleet, receiver: str, *settings: str) -> None:
    """Set parameters of the receiver's Postfix."""
    fleet.run(receiver, f"postconf -e {' '.join(settings)} && postfix reload 2>&1")


@pytest.fixture(scope="module")
def prepared(fleet: Fleet) -> dict[str, Relay]:
    """The relays, each with a client certificate, and receivers that offer TLS and ask for one."""
    pki, relays = STATE / "pki", {name: Relay(fleet, name) for name in RELAYS}
    for one in relays.values():
        texts = [(pki / file).read_text() for file in (f"{one.name}.key", f"{one.name}.pem", "chain.pem")]
        owner = "root:Debian-exim" if one.exim else "root"
        one.run(
            f"mkdir -p /etc/mailfleet && cat >{CONNECTOR} && chmod 640 {CONNECTOR} && chown {owner} {CONNECTOR}",
            "".join(texts),
        )
        one.run(f"cat >{ISSUERS} && chmod 644 {ISSUERS}", fleet.ca.read_text())
    for receiver in {one.receiver for one in relays.values()}:
        files = {
            "private_key_file": f"{receiver}.key",
            "certificate_file": f"{receiver}.pem",
            "chain_file": "chain.pem",
        }
        install = {**{name: str(pki / file) for name, file in files.items()}, "ca_file": str(fleet.ca)}
        options = {"inbound": "offered", "install": {**install, "names": [f"{receiver}.fleet.test"]}}
        assert fleet.module(receiver, "mail_server_tls", options).status == 0
        fleet.run(receiver, f"cat >{ISSUERS}", fleet.ca.read_text())
        receiver_sets(fleet, receiver, "smtpd_tls_ask_ccert=yes", f"smtpd_tls_CAfile={ISSUERS}")
    for one in relays.values():
        if one.exim:  # the first peer moves it to the split configuration, which stays until it is uninstalled
            one.set(one.peer())
            one.set(state="absent")
    return relays


@pytest.fixture(params=RELAYS)
def relay(request: pytest.FixtureRequest, fleet: Fleet, prepared: dict[str, Relay]) -> Iterator[Relay]:
    """A relay that goes back to the state before its peers."""
    one = prepared[request.param]
    before = one.run(FILES)
    yield one
    if one.run(FILES) != before:
        receiver_sets(fleet, one.receiver, "smtpd_tls_security_level=may")
        one.run("exipick -i | xargs -r exim4 -Mrm" if one.exim else "postsuper -d ALL", check=False)
        one.set(state="absent", queue_timeout=5)


def test_only_the_peer_gets_the_client_certificate(fleet: Fleet, relay: Relay) -> None:
    assert relay.set(relay.peer())["changed"]
    again = relay.set(relay.peer())
    assert not again["changed"] and not again["proofs"]
    seen = fleet.result(relay.name, "mail_server_info", {"peers": [relay.peer()]})
    assert [(one["name"], one["level"], one["client_certificate"]) for one in seen["peers"]] == [
        ("next-hop", "required", CONNECTOR)
    ]
    assert seen["peer_changes"] == [] and seen["obstacles"] == []
    assert seen["peer_proofs"][0]["proof"]["stage"] == "done"
    header = relay.received(relay.send())
    assert f'Client CN "{relay.name}.fleet.test"' in header and "verified OK" in header, header
    other = relay.received(other_mail(relay))
    assert "Client CN" not in other, other


def other_mail(relay: Relay) -> str:
    """Take the peer out of the domain, send by the usual way, and put it back: the mark of the message."""
    relay.set(relay.peer(domains=["elsewhere.test"], level="opportunistic", proof_sender="", proof_recipient=""))
    return relay.send()


def test_required_mail_waits_and_goes_on_when_tls_is_back(fleet: Fleet, relay: Relay) -> None:
    relay.set(relay.peer())
    receiver_sets(fleet, relay.receiver, "smtpd_tls_security_level=none")
    wait_for(lambda: not offers(fleet, relay), 10)
    mark = relay.send()
    assert wait_for(lambda: re.search("(?i)TLS is required|TLS session is required", relay.queue())), relay.queue()
    assert fleet.mail(relay.receiver, mark) is None
    # Nothing is taken out while it waits.
    said = relay.refusal(state="absent", queue_timeout=0)
    assert f"trace@{relay.peer_domain}" in said and "next-hop" in said
    receiver_sets(fleet, relay.receiver, "smtpd_tls_security_level=may")
    assert wait_for(lambda: offers(fleet, relay))
    relay.flush()
    assert "Client CN" in relay.received(mark)


def offers(fleet: Fleet, relay: Relay) -> bool:
    """Whether the receiver offers STARTTLS."""
    code = "import smtplib, sys; s = smtplib.SMTP(sys.argv[1], 25); s.ehlo(); print(s.has_extn('starttls')); s.quit()"
    return "True" in relay.run(f'python3 -c "{code}" {relay.peer_domain}', check=False)


def test_a_peer_that_does_not_accept_it_is_refused(fleet: Fleet, relay: Relay) -> None:
    before = relay.run(FILES)
    receiver_sets(fleet, relay.receiver, "smtpd_tls_security_level=none")
    wait_for(lambda: not offers(fleet, relay), 10)
    assert "mail would be deferred" in relay.refusal(relay.peer())
    receiver_sets(fleet, relay.receiver, "smtpd_tls_security_level=may")
    assert wait_for(lambda: offers(fleet, relay))
    said = relay.refusal(relay.peer(proof_recipient=f"nobody-there@{relay.peer_domain}"))
    assert "mail would bounce" in said and "550" in said
    assert "not tested to RCPT" in relay.refusal(relay.peer(kind="exchange_online", proof_sender=""))
    assert "no file /nowhere.pem" in relay.refusal(relay.peer(client_certificate="/nowhere.pem"))
    assert relay.run(FILES) == before


@every
def test_the_certificate_of_the_peer_is_checked(fleet: Fleet, relay: Relay) -> None:
    served = (STATE / "pki" / f"{relay.receiver}.pem").read_text()
    command = ["openssl", "x509", "-noout", "-fingerprint", "-sha256"]
    shown = subprocess.run(command, input=served, capture_output=True, text=True, check=True).stdout
    fingerprint = shown.partition("=")[2].strip()
    ways: dict[bool, list[dict[str, Any]]] = {
        True: [
            {"check": "pin", "pin_issuer_file": ISSUERS},
            {"check": "pin", "pin_fingerprints": ["00" * 32, fingerprint]},
        ],
        # The lab's authority is not one of the system's roots. The daemon says the same as the proof.
        False: [
            {"check": "pin", "pin_fingerprints": ["00" * 32]},
            {"check": "hostname"},
            {"check": "trusted_chain"},
        ],
    }
    for good in ways[True]:
        relay.set(relay.peer(**good))
        assert not relay.set(relay.peer(**good))["changed"]
        assert "Client CN" in relay.received(relay.send())
    for bad in ways[False]:
        assert "does not pass the check" in relay.refusal(relay.peer(**bad))
        relay.set(relay.peer(**bad), require_without_evidence=True)
        mark = relay.send()
        assert wait_for(lambda: re.search("(?i)verif|certificate", relay.queue())), relay.queue()
        assert fleet.mail(relay.receiver, mark) is None
        relay.set(relay.peer())
        relay.flush()
        assert "Client CN" in relay.received(mark)


@every
def test_without_tls_the_way_stays(relay: Relay) -> None:
    relay.set(relay.peer())
    assert "may refuse mail for good" in relay.refusal(relay.peer(), state="disabled")
    after = relay.set(relay.peer(), state="disabled", require_without_evidence=True)["after"]
    assert [(one["name"], one["level"], one["hosts"]) for one in after] == [
        ("next-hop", "disabled", [f"{relay.peer_domain}:25"])
    ]
    assert re.search(r"with E?SMTP id", relay.received(relay.send()))
    assert not relay.set(relay.peer(), state="disabled", require_without_evidence=True)["changed"]


@every
def test_two_peers_and_one_for_all_other_mail(fleet: Fleet, relay: Relay) -> None:
    if relay.name == "gw1":
        pytest.skip("this host has routes by hand, and no relay host")
    everything = relay.peer(name="all", domains=["*"])
    relay.set(relay.peer(), everything)
    assert not relay.set(relay.peer(), everything)["changed"]
    header = relay.received(relay.send())
    assert "Client CN" in header
    # Local mail stays.
    mark = uuid.uuid4().hex
    relay.run("sendmail trace", f"Subject: {mark}\n\nx\n")
    assert wait_for(lambda: fleet.mail(relay.name, mark)), relay.queue()
    # All that leaves takes the transport of the peer.
    if relay.exim:
        assert "router = mailfleet_peer_all" in relay.run("exim4 -bt someone@unknown.test")
    else:
        assert relay.run("postconf -h default_transport").startswith("mailfleet_peer_all")
    relay.set({"name": "all"}, state="absent")
    seen = fleet.result(relay.name, "mail_server_info", {"kind": "auto"})
    assert [one["name"] for one in seen["peers"]] == ["next-hop"]


def test_everything_is_as_before(relay: Relay) -> None:
    before = relay.run(FILES)
    relay.set(relay.peer(), relay.peer(name="second", domains=["second.test"]))
    relay.set(relay.peer(check="pin", pin_issuer_file=ISSUERS))
    assert relay.run(FILES) != before
    relay.set(state="absent")
    assert relay.run(FILES) == before


@every
def test_a_killed_change_is_undone(fleet: Fleet, relay: Relay) -> None:
    before = relay.run(FILES)
    words = [
        str(Path(sys.executable).parent / "ansible"), "-i", str(fleet.inventory), relay.name, "-m", "mailfleet.starttls.peer_tls",
        "-a", json.dumps({"peers": [relay.peer()]}),
    ]  # fmt: skip
    with subprocess.Popen(
        words, cwd=TOP, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        killed = relay.run(f"BEFORE='{before.strip()}'\n{KILL}")
        process.wait(timeout=60)
    assert "journal" in killed, "the change was over before it could be killed"
    assert relay.run(FILES) != before, "nothing was written yet, so this proves nothing"
    relay.run(f'test "$({JOURNALS})"')
    result = relay.set(relay.peer())
    assert result["recovered"]
    assert "Client CN" in relay.received(relay.send())
    relay.set(state="absent")
    assert relay.run(FILES) == before
