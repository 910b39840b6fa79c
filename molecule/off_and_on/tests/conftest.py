"""A run that says all it can, on hosts with secrets that must not show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_testinfra import TOP, Fleet, Played, as_bytes

from tests.support.planted import Planted, Watched

HOSTS = ("gw1", "pf12", "pf13", "ex12", "ex13")
RELAY_PASSWORD = "SG.planted-relay-password"
POSTFIX = ("gw1", "pf12")
PAYLOAD = "/tmp/left_by_a_killed_module.zip"
"""A file whose bytes are no text. Ansible leaves one when a module is killed, as other scenarios on this fleet do."""


class Talkative:
    """Plays a playbook as talkatively as possible, and looks for the private keys and for the password of a relay service."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.fleet, self.directory, self.planted = fleet, directory, Planted()
        self.began = int(time.time())
        for host in HOSTS:
            pem = fleet.run(host, "cat /etc/mailfleet/starttls.pem").partition("-----BEGIN CERT")[0]
            self.planted.key(f"key of {host}", pem.encode())
        self.planted.text("password of the relay service", RELAY_PASSWORD)

    def play(self, playbook: str) -> Played:
        """Play it; nothing that is printed or kept on the controller, and no process, may show a secret."""
        more = {
            "ANSIBLE_LOG_PATH": f"{self.directory}/log", "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "1", "ANSIBLE_CACHE_PLUGIN": "jsonfile",
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": f"{self.directory}/facts", "WHOLE_RESULTS": f"{self.directory}/results",
            "ANSIBLE_CALLBACK_PLUGINS": str(TOP / "tests/support/callback_plugins"), "ANSIBLE_CALLBACKS_ENABLED": "whole_results",
        }  # fmt: skip
        with Watched() as watched:  # the containers' processes are this machine's
            played = self.fleet.play(playbook, "-vvvv", "--diff", environment=more)
        (self.directory / "output").write_text(played.output)
        kept = [path for path in self.directory.rglob("*") if path.is_file()]
        assert {str(path): found for path in kept if (found := self.planted.found(path.read_bytes()))} == {}
        assert [words for words in watched.seen if self.planted.found(words)] == []
        return played

    def look_at_hosts(self) -> None:
        """Nothing may be in the hosts' logs and temporary directories, nor in a file that everybody can read."""
        for host in HOSTS:
            log = self.fleet.run(host, f"journalctl --no-pager --output=cat --since=@{self.began}")
            assert self.planted.found(as_bytes(log)) == [], host
            find = "find /tmp /var/tmp /root/.ansible /home/*/.ansible -type f; find /etc /var /run -xdev -type f -perm -004 -newermt "
            names = self.fleet.run(host, f"({find}@{self.began}) 2>/dev/null; true").split()
            text = self.fleet.run(host, "xargs -r cat 2>/dev/null; true", "\n".join(names))
            assert self.planted.found(as_bytes(text)) == [], host


@pytest.fixture
def talkative(fleet: Fleet, tmp_path: Path) -> Iterator[Talkative]:
    """Hosts whose Postfix names its password for a relay service in main.cf, as relay services document it."""
    for host in HOSTS:
        fleet.run(host, rf"printf 'PK\3\4\24\0\0\0\10\0\215' >{PAYLOAD}")
    setting = f"smtp_sasl_password_maps=static:apikey:{RELAY_PASSWORD}"
    for host in POSTFIX:
        fleet.run(host, f"postconf -e '{setting}'; chmod 0640 /etc/postfix/main.cf")  # postconf makes the file anew
    try:
        yield Talkative(fleet, tmp_path)
    finally:
        for host in HOSTS:
            fleet.run(host, f"rm -f {PAYLOAD}")
        for host in POSTFIX:
            fleet.run(host, "postconf -X smtp_sasl_password_maps; chmod 0644 /etc/postfix/main.cf")
