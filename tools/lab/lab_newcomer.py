"""README's "On your own fleet" as data, and somebody at the shell of a lab's controller who does what it says."""

from __future__ import annotations

import re
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from shlex import quote

from lab_testinfra import TOP, Fleet, Played

FQDN = {host: f"{host}.example.com" for host in ("gw1", "mail1", "mail2")}
HOME = PurePosixPath("/home/newcomer")
PLACE = HOME / "fleet"


@dataclass(frozen=True)
class Section:
    """What README tells to type and to write."""

    install: list[str]
    ssh_config: str
    ssh_test: str
    inventory: str
    look: str
    enable: str
    roots: list[str]

    @classmethod
    def read(cls) -> Section:
        """Take the section apart; a section of another shape is an error of this test, which has to follow it."""
        page = (TOP / "README.md").read_text()
        found = re.search(r"(?ms)^## On your own fleet\n(.*?)^## ", page)
        assert found, "README has no section 'On your own fleet' any more"
        text = found[1]
        blocks = re.findall(r"(?ms)^ *```(\w*)\n(.*?)^ *```$", text)
        shape = [language for language, _block in blocks]
        assert shape[:4] == ["console", "", "yaml", "console"], f"README's section has other blocks: {shape}"
        install, ssh_config, inventory, play = (textwrap.dedent(block) for _language, block in blocks[:4])
        ssh_test = re.search(r"`(ssh [^`]+)` has to work without a question", text)
        assert ssh_test, "README does not say how to try SSH any more"
        assert len(play.splitlines()) == 2, f"README does not show a plan and then the change: {play}"
        roots = re.findall(r"(?m)^\| `(\w+)` \| [^|]+ \| Roots of a private authority", page)
        assert len(roots) == 1, "README's table does not tell about the roots of a private authority any more"
        look, enable = play.splitlines()
        assert "plan_tls" in look and "enable_tls" in enable and "--check" not in enable, play
        return cls(
            install=install.splitlines(), ssh_config=ssh_config, ssh_test=ssh_test[1], inventory=inventory,
            look=look, enable=enable, roots=roots,
        )  # fmt: skip


@dataclass
class Newcomer:
    """Somebody at a shell of a controller."""

    fleet: Fleet
    controller: str
    times: dict[str, float] = field(default_factory=dict)

    def types(self, line: str, directory: PurePosixPath = HOME, text: str = "", note: str = "") -> Played:
        """Run a line in the login shell."""
        script = f"cd {quote(str(directory))} && {line}"
        started = time.monotonic()
        command = f"su - newcomer -c {quote(script)} 2>&1; printf '\\nstatus %s' $?"
        output, _, status = self.fleet.run(self.controller, command, text).rpartition("\nstatus ")
        if note:
            self.times[note] = self.times.get(note, 0.0) + time.monotonic() - started
        return Played(int(status), output)

    def does(self, line: str, directory: PurePosixPath = HOME, text: str = "", note: str = "") -> str:
        """Run a line that has to succeed; return what it prints."""
        played = self.types(line, directory, text, note)
        assert played.status == 0, f"{self.controller}: {line}\n{played.output}"
        return played.output

    def writes(self, file: PurePosixPath, text: str) -> None:
        """Write a file, and its directory if need be."""
        self.does(f"umask 077; mkdir -p {quote(str(file.parent))} && cat >{quote(str(file))}", text=text)
