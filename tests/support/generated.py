"""Parts of the documentation that are generated from the code. As a program it writes them: python -m tests.support.generated"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
for _path in (TOP, TOP / ".lab/collections"):
    if str(_path) not in sys.path:
        sys.path.insert(0, str(_path))

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.gateway import GATEWAYS, Access
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import PRODUCTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils import findings as catalogue
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.variables import SECTIONS

from tests.support import awx_pages, rooms


def picture_of_rooms() -> str:
    """The rooms and the arrows between them."""
    return rooms.picture(rooms.arrows(rooms.collection()))


def variables() -> str:
    """The variables of an inventory, a table with a line for each heading."""
    lines = ["| host or group variable | default | meaning |", "|---|---|---|"]
    for heading, entries in SECTIONS.items():
        lines.append(f"| **{heading}** | | |")
        lines += [f"| `{name}` | {one.default} | {one.meaning} |" for name, one in entries.items()]
    return "\n".join(lines)


def kinds() -> str:
    """The products, what each can be, and how it is recognised."""
    lines = [
        "| `kind` | product | mail server | gateway: delivery modes | enforced domains | outbound side | log | found by `auto` |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, product in PRODUCTS.items():
        platforms: dict[str, list[str]] = {}
        for layout in product.layouts:
            paths = dict.fromkeys((layout.programs[0], layout.config_file))
            platforms.setdefault(" and ".join(f"`{path}`" for path in paths), []).append(layout.platform)
        signs = [f"{paths} ({', '.join(names)})" for paths, names in platforms.items()]
        cells = [
            f"`{kind}`",
            product.title,
            _yes("server" in product.facets),
            ", ".join(f"`{mode}`" for mode in _modes(kind)) if "gateway" in product.facets else "",
            _yes("enforced" in product.capabilities),
            _yes("outbound" in product.capabilities),
            _yes("log" in product.facets),
            "; ".join(signs),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines).replace("  ", " ")


def _yes(there: bool) -> str:
    return "yes" if there else ""


def _modes(kind: str) -> list[str]:
    api = {"api_url": "https://gateway.example.com", "api_user": "root@pam", "api_password": "x", "api_key": "x"}
    access = Access(
        lambda _words: (0, "", ""), lambda *_request: None, Target("127.0.0.1"), config_dir="/etc/haraka", **api
    )  # type: ignore[arg-type, return-value]
    return list(GATEWAYS[kind](access, Settings()).modes)


def findings() -> str:
    """The catalogue of findings: a section for each group, with a row for each entry."""
    sections = []
    for group, heading in catalogue.GROUPS.items():
        lines = [f"## {heading}", "", "| code | severity | description | what to do |", "|---|---|---|---|"]
        lines += [_finding(one) for one in catalogue.of_group(group)]
        sections.append("\n".join(lines))
    return "\n" + "\n\n".join(sections) + "\n"


def _finding(entry: catalogue.Entry) -> str:
    return f'| <a id="{entry.code}"></a>`{entry.code}` | {entry.severity} | {entry.description} | {entry.advice} |'


PARTS: dict[tuple[str, str], Callable[[], str]] = {
    ("docs/architecture.md", "rooms"): picture_of_rooms,
    ("docs/kinds.md", "kinds"): kinds,
    (catalogue.PAGE, "findings"): findings,
    ("README.md", "variables"): variables,
    ("docs/awx.md", "templates"): awx_pages.templates,
    ("docs/awx.md", "workflow"): awx_pages.workflow,
}
"""(page, name of the part) -> what makes it. In the page it stands between two comments with that name."""

WHOLE: dict[str, Callable[[], str]] = {"docs/images/awx_workflow.svg": awx_pages.picture}
"""Files that are generated as a whole."""


def updated(page: str, name: str, text: str) -> str:
    """The page with the text in the place of that name."""
    begin, end = f"<!-- {name}: begin (python -m tests.support.generated) -->", f"<!-- {name}: end -->"
    before, rest = page.split(begin)
    return f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}"


if __name__ == "__main__":
    for (path, name), make in PARTS.items():
        file = TOP / path
        file.write_text(updated(file.read_text(), name, make()))
    for path, make in WHOLE.items():
        (TOP / path).write_text(make())
