# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""amavis as Debian installs it: one more port for each kind of arrival, by a file of ours beside the administrator's.

A port has a policy bank that only says where mail is handed back. The file is Perl and read last, so it keeps what the others set:
their ports, and the banks of the port that content_filter names. A reload suffices for a new port: the master keeps its open
sockets, so that clients wait for a moment and none is refused; amavis_rest sees to it that no message is caught at work. Sources:
amavisd.conf-sample, the package's Amavis.pm, run-parts(8), Net::Server(3pm); measured with amavis 2.13 on Debian 12.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.amavis_rest import at_rest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

FILE = "99-mailfleet_starttls"
AMAVIS_UNIT = "amavis.service"
USER = "amavis"
INTERRUPTED = "Interrupted system call"
"""In its answer to a message that it handed back while it was reloaded."""
RELOAD_SECONDS = 60.0
"""A reload starts the program anew: some seconds, more on a busy machine. Mail takes its usual ways meanwhile."""
_READ = re.compile(r"[A-Za-z0-9_-]+")  # the names that run-parts lists
_COMMENT = re.compile(r"(?m)(?:^|[ \t])#.*$")
_ELSEWHERE = re.compile(
    r"(?P<name>forward_method_maps\w*)|(?P<key>['\"]?\b(?:forward|resend)_method\b['\"]?\s*(?:=>|\}))"
)
_MAX_BYTES = 1_000_000
_TEXT = """\
# Written by mailfleet.starttls; a change made here is lost. Mail that arrived over TLS comes in on ports of its own and goes back
# to ports of its own, so that Postfix knows it again.
use strict;

foreach ({ports}) {{
    my ($port, $back) = @$_;
    $inet_socket_port = [grep {{ defined }} (ref $inet_socket_port ? @$inet_socket_port : $inet_socket_port), $port];
    my $usual = $policy_bank{{$interface_policy{{'127.0.0.1:{usual}'}} // ''}};
    $policy_bank{{"MAILFLEET_$port"}} =
        {{ %{{$usual // {{}}}}, forward_method => "smtp:[127.0.0.1]:$back", resend_method => undef }};
    $interface_policy{{$port}} = $interface_policy{{'{usual}'}} if defined $interface_policy{{'{usual}'}};
    $interface_policy{{"127.0.0.1:$port"}} = "MAILFLEET_$port"; # amavis loads it behind the one of the port
}}

1;
"""


@dataclass(frozen=True)
class AmavisPlaces:
    """Where amavis is, and the free ports. directory: its conf.d. ports: arrival -> our hand-back port, the port of amavis."""

    directory: str
    ports: Mapping[int, tuple[Target, Target]]

    @property
    def file(self) -> str:
        """Return the path of our file."""
        return f"{self.directory}/{FILE}"


def configuration(usual: int, ports: Mapping[int, int]) -> bytes:
    """Return our file. usual: the port that content_filter names. ports: port of amavis -> port that it hands back to."""
    pairs = ", ".join(f"['{port}', '{back}']" for port, back in sorted(ports.items()))
    return _TEXT.format(ports=pairs, usual=usual).encode()


def ports(content: bytes) -> list[Target]:
    """Return the ports of amavis that our file opens, and the one that it always had."""
    text = content.decode("ascii", "replace")
    numbers = [*re.findall(r"\['(\d+)', '\d+'\]", text), *re.findall(r"interface_policy\{'(\d+)'\} if", text)]
    return [Target("127.0.0.1", int(one)) for one in numbers]


def listens(directory: str, port: int) -> bool:
    """Return whether the administrator's files make amavis listen on a port."""
    pattern = re.compile(rf"\$inet_socket_port\s*=[^;]*\b{port}\b")
    return any(pattern.search(text) for _path, text in _texts(directory))


def obstacle(directory: str) -> str:
    """Return why a policy bank cannot say where mail is handed back; empty if it can."""
    for path, text in _texts(directory):
        if found := _ELSEWHERE.search(text):
            name = found["name"] or "forward_method"
            return f"{path} sets {name} for policy banks or recipients, so that mail may be handed back elsewhere"
    return ""


def _texts(directory: str) -> Iterator[tuple[str, str]]:
    """Yield path and text of the administrator's files, without comments. Raises OSError."""
    there = sorted(Path(directory).iterdir()) if Path(directory).is_dir() else []
    for path in there:
        if path.name != FILE and _READ.fullmatch(path.name) and path.is_file():
            content = FileImage.read(str(path), max_bytes=_MAX_BYTES).content or b""
            yield str(path), _COMMENT.sub("", content.decode("utf-8", "replace"))


def check(run: Runner) -> None:
    """Have amavis read its files. Raises EngineError with what it says."""
    status, out, err = run(["runuser", "-u", USER, "--", "amavisd", "showkeys"])
    if status != 0:
        lines = [line.strip() for line in f"{out}\n{err}".splitlines() if line.strip()]
        said = [line for line in lines if "error" in line.lower()]
        raise EngineError(f"amavis cannot read its configuration: {'; '.join(said or lines)}")


def reload(run: Runner, usual: Optional[Target]) -> bool:
    """Have amavis read its files again: whether at a moment at which it works on no mail.

    usual: where it serves; None if that is not known, which ends the waiting for such a moment. Raises EngineError.
    """
    _status, out, _err = run(["systemctl", "show", "--property=MainPID", "--value", AMAVIS_UNIT])
    with at_rest(int(out) if usual and out.strip().isdigit() else 0, usual) as rest:
        status, out, err = run(["systemctl", "reload", AMAVIS_UNIT])
        if status != 0:
            raise EngineError(f"amavis cannot be reloaded: {(err or out).strip()}; see: systemctl status {AMAVIS_UNIT}")
        rest.wait_for_new_ones()
    return rest.quiet
