# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's routers and transports for Exim as text, copies of them, and the places where own sections are included."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.elsewhere import parts
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

Places = Mapping[str, tuple[str, bool]]
"""Section -> pattern of a line of the unsplit template, and whether the include line comes after that line or before it."""
HEADER = "# Written by mailfleet.starttls; a change made here is lost.\n"
# These files come before Debian's own files of a section. The file of outbound comes before Debian's hubbed_hosts.
GATEWAY_FILES = {
    "routers": "router/050_mailfleet-starttls",
    "outbound": "router/149_mailfleet-starttls",
    "transports": "transport/050_mailfleet-starttls",
    "retry": "retry/10_mailfleet-starttls",
}
"""Section of a gateway -> its file in conf.d."""
# The routers of a peer that takes all mail come after hubbed_hosts, which is the administrator's, and before Debian's router for all
# other mail.
PEER_FILES = {
    "transports": "transport/051_mailfleet-peers",
    "retry": "retry/11_mailfleet-peers",
    "routers": "router/051_mailfleet-peers",
    "last routers": "router/199_mailfleet-peers",
}
"""Section of the peers -> its file in conf.d."""


def debian_text(config_dir: str, split: bool, kind: str) -> str:
    """Return the text of Debian's routers or transports. kind: router or transport."""
    if not split:
        return (FileImage.read(f"{config_dir}/exim4.conf.template").content or b"").decode("utf-8", "surrogateescape")
    texts = (one.read_text(encoding="utf-8", errors="surrogateescape") for one in _of_debian(config_dir, kind))
    return "\n".join(texts)


def _of_debian(config_dir: str, kind: str) -> list[Path]:
    """Return Debian's files of a kind, each as Debian reads it: C(NAME.rul) stands for NAME."""
    return [Path(one) for one in parts(Path(config_dir, "conf.d", kind)) if "_exim4-config_" in Path(one).name]


def most_private(config_dir: str, split: bool) -> FileImage:
    """Return the file with routers or transports that the fewest users may read. Copies of their text are as private."""
    if not split:
        return FileImage.read(f"{config_dir}/exim4.conf.template")
    kinds = ("router", "transport")
    files = [one for kind in kinds for one in _of_debian(config_dir, kind)]
    images = [FileImage.read(str(one)) for one in sorted(files)]
    return min(images, key=lambda image: (image.mode & 0o007, image.mode & 0o077), default=FileImage("", None))


def stanza(text: str, name: str, kind: str) -> str:
    """Return the text of a router or transport. Raises EngineError unless there is exactly one with this name."""
    found = re.findall(rf"(?ms)^{name}:[ \t]*$.*?(?=^[ \t]*$|^##|\Z)", text)
    if len(found) != 1:
        raise EngineError(f"Exim's configuration has {len(found)} {kind}s {name}, not one: are its files Debian's?")
    return str(found[0])


def transport_copy(text: str, original: str, copy: str, options: str, without: Collection[str]) -> str:
    """Return a copy of a transport of this text with another name and further options. without: options that it does not keep."""
    lines = re.sub(rf"\A{original}:", f"{copy}:", stanza(text, original, "transport"))
    names = "|".join((*without, *re.findall(r"(?m)^ +(\w+)", options)))
    lines = re.sub(rf"(?m)^[ \t]*(?:{names})[ \t]*=(?:.*\\\n)*.*\n", "", lines)
    lines = re.sub(r"(?m)^\.ifn?def .*\n\.endif\n", "", lines)  # nothing is left in it
    return f"{lines.rstrip()}\n{options}\n"


def block_in(template: str, title: str) -> str:
    """Return the text between the marks of a section in the template; empty without marks."""
    begin, end = _marks(title)
    match = re.search(rf"(?ms)^{re.escape(begin)}\n(.*?)^{re.escape(end)}\n", template)
    return match[1] if match else ""


def with_block(template: str, title: str, place: tuple[str, bool], text: str, path: str) -> str:
    """Return the template with this text between the marks of a section; without text, without the marks.

    place: as in Places. path: of the template. Raises EngineError if the place is missing.
    """
    begin, end = _marks(title)
    template = re.sub(rf"(?ms)^{re.escape(begin)}\n.*?^{re.escape(end)}\n", "", template)
    if not text:
        return template
    pattern, behind = place
    found = list(re.finditer(rf"(?m){pattern}\n", template))
    if len(found) != 1:
        line = pattern.strip("^$").split("[")[0].replace("\\", "")
        raise EngineError(f"{path} has {len(found)} lines '{line}', not one: is it Debian's?")
    at = found[0].end() if behind else found[0].start()
    return f"{template[:at]}{begin}\n{text}{end}\n{template[at:]}"


def without_ours(template: str, directory: str) -> str:
    """Return the template without the collection's include lines and marked sections. directory: where the included ones lie."""
    text = re.sub(rf"(?m)^\.include {re.escape(directory)}/\w+\n", "", template)
    for title in PEER_FILES:
        begin, end = _marks(title)
        text = re.sub(rf"(?ms)^{re.escape(begin)}\n.*?^{re.escape(end)}\n", "", text)
    return text


def _marks(title: str) -> tuple[str, str]:
    return f"# mailfleet.starttls, {title}: begin", f"# mailfleet.starttls, {title}: end"
