"""The parts of docs/awx.md that come from awx/*.yml: the tables of templates and nodes, and the picture of the workflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from tests.support import awx

WIDTH, HEIGHT, GAP = 300, 54, 30
LEFT, TOP, ASIDE = 30, 62, 470
BUS = 400
"""Where the line of failures goes down, between the two columns."""
FILLS = {"approval": "#fff3d1", "changes mail servers": "#dbe9fb", "changes nothing": "#eef1f4", "undo": "#fbe0dd"}
GREEN, RED, INK = "#1a7f37", "#b3261e", "#1f2328"


def templates() -> str:
    """A row for each job template: its playbook, what it does, and what its survey asks."""
    lines = ["| job template | playbook | what it does | its survey asks |", "|---|---|---|---|"]
    for name, one in awx.templates().items():
        asked = ", ".join(f"`{variable}`" for variable in awx.questions(one))
        lines.append(f"| {name} | `{one['playbook']}` | {one['description']} | {asked} |")
    return "\n".join(lines)


def workflow() -> str:
    """A row for each node: what it runs, on which hosts, with what, and what follows."""
    lines = ["| node | runs | limit | extra variables | then | if it fails |", "|---|---|---|---|---|---|"]
    for one in awx.nodes():
        runs = one.get("unified_job_template") or f"approval: {one['approval_node']['name']}"
        runs += ", as a check" if one.get("job_type") == "check" else ""
        extra = ", ".join(f"`{name}: {json.dumps(value)}`" for name, value in one.get("extra_data", {}).items())
        then, otherwise = (", ".join(one.get(f"{which}_nodes", ())) or "the end" for which in ("success", "failure"))
        limit = f"`{one['limit']}`" if "limit" in one else ""
        lines.append(f"| {one['identifier']} | {runs} | {limit} | {extra} | {then} | {otherwise} |")
    return "\n".join(lines)


def picture() -> str:
    """The workflow as SVG: down the left side what follows on success, in the middle what failed, on the right the undo."""
    nodes = {one["identifier"]: one for one in awx.nodes()}
    way, aside = _columns(nodes)
    rows = {name: TOP + number * (HEIGHT + GAP) for number, name in enumerate(way)}
    rows |= {name: rows[way[-len(aside)]] + number * (HEIGHT + GAP) for number, name in enumerate(aside)}
    bottom = max(rows.values()) + HEIGHT + 30
    found = [_box(one, ASIDE if name in aside else LEFT, rows[name], name) for name, one in nodes.items()]
    for column, left in ((way, LEFT), (aside, ASIDE)):
        found += [
            _arrow(f"M{left + WIDTH / 2:g} {rows[one] + HEIGHT}V{rows[other]}", GREEN)
            for one, other in zip(column, column[1:])
        ]
    failing = [name for name in way if nodes[name].get("failure_nodes")]
    into = rows[aside[0]] + HEIGHT / 2
    found += [_line(f"M{LEFT + WIDTH} {rows[name] + HEIGHT / 2:g}H{BUS}", RED) for name in failing]
    last = max(into, rows[failing[-1]] + HEIGHT / 2)
    found += [_line(f"M{BUS} {rows[failing[0]] + HEIGHT / 2:g}V{last:g}", RED), _arrow(f"M{BUS} {into:g}H{ASIDE}", RED)]
    found += [
        _text(LEFT, 24, "The workflow Mail TLS roll-out", 16, bold=True),
        _text(
            LEFT,
            44,
            "green: then. red: if it fails. Elsewhere a failure ends the workflow, and nothing is put back",
            12,
        ),
        *_legend(ASIDE, TOP),
    ]
    size = f'width="{ASIDE + WIDTH + 30}" height="{bottom}" viewBox="0 0 {ASIDE + WIDTH + 30} {bottom}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="Helvetica, Arial, sans-serif">',
            f"<defs>{_head('then', GREEN)}{_head('fails', RED)}</defs>",
            f'<rect width="{ASIDE + WIDTH + 30}" height="{bottom}" fill="#ffffff"/>',
            *found,
            "</svg>\n",
        ]
    )


def _columns(nodes: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the way on success from the first node, and the nodes that follow on a failure."""
    way = [next(iter(nodes))]
    while after := nodes[way[-1]].get("success_nodes"):
        way += after
    aside = [name for name in nodes if name not in way]
    leads = {name for one in way for name in nodes[one].get("failure_nodes", ())}
    if leads != {aside[0]} or any(
        nodes[one].get("success_nodes", [other]) != [other] for one, other in zip(aside, aside[1:])
    ):
        raise ValueError("the picture is for one way, and one other way for all failures")
    return way, aside


def _box(node: Mapping[str, Any], left: float, top: float, name: str) -> str:
    template = awx.templates().get(node.get("unified_job_template", ""))
    kind = "approval"
    if template:
        kind = "undo" if name == "undo" else next(label for label in template["labels"] if label in FILLS)
        said = f"{template['playbook'].rpartition('/')[2]}{', on ' + node['limit'] if 'limit' in node else ''}"
        if node.get("job_type") == "check":
            kind, said = "changes nothing", f"{said}, as a check"
    else:
        said = node["approval_node"]["name"]
    return "\n".join(
        [
            f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="{HEIGHT // 2 if not template else 6}" fill="{FILLS[kind]}" '
            f'stroke="{INK}"/>',
            _text(left + WIDTH / 2, top + 23, name, 14, bold=True, middle=True),
            _text(left + WIDTH / 2, top + 42, said, 12, middle=True),
        ]
    )


def _legend(left: float, top: float) -> list[str]:
    words = {
        "changes nothing": "changes nothing",
        "approval": "a person decides, within a day",
        "changes mail servers": "changes mail servers, and proves it",
        "undo": "puts back what this workflow changed",
    }
    found = []
    for number, (kind, said) in enumerate(words.items()):
        y = top + number * 24
        found.append(f'<rect x="{left}" y="{y}" width="22" height="14" rx="3" fill="{FILLS[kind]}" stroke="{INK}"/>')
        found.append(_text(left + 32, y + 12, said, 12))
    return found


def _text(x: float, y: float, said: str, size: int, bold: bool = False, middle: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    anchor = ' text-anchor="middle"' if middle else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{INK}"{weight}{anchor}>{escape(said)}</text>'


def _head(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
    )


def _line(path: str, colour: str, more: str = "") -> str:
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{more}/>'


def _arrow(path: str, colour: str) -> str:
    return _line(path, colour, f' marker-end="url(#{"then" if colour == GREEN else "fails"})"')
