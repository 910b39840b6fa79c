# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the collection's files and Postfix's programs are. Both follow from the layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout

SECOND = "postfix-mailfleet"
THIRD = "postfix-mailfleet_enforced"  # underscore, because systemd reads a hyphen in an instance name as a slash
"""A gateway's other instances: their name, and the name of their directories beside Postfix's own, in /var/spool and in /var/lib."""
ARRIVED, BACK = "mailfleet-arrived", "mailfleet-back"
"""The transports between a gateway's instances, there and back."""
_USUAL = ("", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class OwnPaths:
    """Where the collection keeps its own files: below the directory of main.cf, and beside it for a gateway's other instances."""

    def __init__(self, config_dir: str) -> None:
        """config_dir: that of the default instance."""
        own = self.directory = f"{config_dir}/mailfleet-starttls"
        self.registry = f"{own}/gateway.json"
        self.transport_map = f"{own}/transport"
        self.arrival_map = f"{own}/arrival"
        self.pair = f"{own}/instances.pem"
        self.senders_map = f"{own}/enforced_senders"
        self.sender_patterns = f"{own}/enforced_senders.regexp"
        self.tls_only_map = f"{own}/tls_only"
        self.plaintext_map = f"{own}/plaintext_only"
        self.trusted_chain_map = f"{own}/trusted_chain"
        self.reply_filter = f"{own}/reply_filter"
        self.second_dir, self.third_dir = (str(Path(config_dir).parent / name) for name in (SECOND, THIRD))
        self.amavis = str(Path(config_dir).parent / "amavis/conf.d")
        self.peer_directory = f"{config_dir}/mailfleet-peers"
        self.peer_table = f"{self.peer_directory}/transport"
        self.any_name = f"{self.peer_directory}/any_name"


def with_programs(run: Runner, layout: Layout) -> Runner:
    """Return the runner that starts Postfix's programs where the layout has them, if that is no usual place."""
    directory = layout.program.rpartition("/")[0]
    if directory in _USUAL:
        return run

    def placed(words: Sequence[str]) -> tuple[int, str, str]:
        return run([f"{directory}/{words[0]}", *words[1:]] if words and words[0].startswith("post") else words)

    return placed
