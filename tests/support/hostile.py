"""Values that mean something to a daemon, a shell, a template or a terminal, and every option that may get them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

TOP = Path(__file__).resolve().parents[2]
PLUGINS = "ansible_collections.mailfleet.starttls.plugins"
TOKEN = "mfhostile"
"""In each of them, so that it is found wherever it goes."""

# Nothing here makes sense as a value of any option. What is needed to run something is there: a path to create.
VALUES = {
    "main.cf": f"x\nalias_maps = pipemap:{{{TOKEN}}}",
    "main.cf continued": f"x\n   {TOKEN}",
    "main.cf reference": f"${{{TOKEN}?yes}}$config_directory",
    "main.cf list": f"static:{TOKEN}, hash:/etc/aliases",
    "master.cf": f"x\n{TOKEN} unix - n n - - pipe user=root argv=/bin/touch /tmp/{TOKEN}",
    "master.cf option": f"x -o content_filter={TOKEN}",
    "access table": f"x REJECT {TOKEN}",
    "table": f"x\n{TOKEN}.example OK",
    "pcre": f"/{TOKEN}(/ FILTER smtp:[127.0.0.1]",
    "exim run": f"${{run{{/bin/touch /tmp/{TOKEN}}}}}",
    "exim readfile": f"${{readfile{{/etc/shadow}}{{{TOKEN}}}}}",
    "exim lookup": f"lsearch;/etc/{TOKEN}",
    "exim list": f"<; {TOKEN} ; * : !x",
    "exim macro": f"x\n.include /tmp/{TOKEN}",
    "exim continued": f"{TOKEN} \\",
    "haraka ini": f"x\n[outbound]\nforce_tls_hosts[]={TOKEN}",
    "jinja": f"{{{{ lookup('pipe', 'touch /tmp/{TOKEN}') }}}}",
    "jinja block": f"{{% for x in () %}}{TOKEN}{{% endfor %}}",
    "shell substitution": f"$(touch /tmp/{TOKEN})",
    "shell backticks": f"`touch /tmp/{TOKEN}`",
    "shell list": f"x; touch /tmp/{TOKEN} | sh && y > /tmp/{TOKEN}",
    "option": f"-oProxyCommand={TOKEN}",
    "quotes": f"'\"{TOKEN}\"'",
    "comment": f"# {TOKEN}",
    "smtp": f"x\r\nRCPT TO:<{TOKEN}@example.com>",
    "header": f"x\nBcc: {TOKEN}@example.com",
    "url": f"https://user:{TOKEN}@example.com/?a#b",
    "nul": f"x\0{TOKEN}",
    "carriage return": f"x\r{TOKEN}",
    "escape": f"\x1b]0;{TOKEN}\x07",
    "delete": f"{TOKEN}\x7f",
    "next line": f"x\x85{TOKEN}",
    "line separator": f"x\u2028{TOKEN}",
    "markup": f"<script>alert('{TOKEN}')</script>",
    "spreadsheet": f"=HYPERLINK({TOKEN})",
    "up": f"../../etc/{TOKEN}",
    "digits": "9" * 5000,
    "long": TOKEN * 1000,
}


def variants(good: str) -> Iterator[tuple[str, str]]:
    """The hostile values, alone and behind and before a good one: a check may look at one end only."""
    for name, value in VALUES.items():
        yield name, value
        if good:
            yield f"{name}, behind", good + value
            yield f"{name}, before", value + good


class Option(NamedTuple):
    """One option. path: option and suboptions. spec: its entry in the argument spec."""

    owner: str
    path: tuple[str, ...]
    spec: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As an error names it."""
        return ".".join(self.path)

    @property
    def is_text(self) -> bool:
        """Whether Ansible lets any text through."""
        kind = self.spec.get("elements") if self.spec.get("type") == "list" else self.spec.get("type", "str")
        return kind in ("str", "path", "raw") and not self.spec.get("choices")


def _walk(owner: str, spec: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[Option]:
    for name, one in spec.items():
        yield Option(owner, (*above, name), one)
        yield from _walk(owner, one.get("options") or {}, (*above, name))


def module_specs() -> dict[str, Mapping[str, Any]]:
    """Module -> the argument spec for its users."""
    found = {}
    for path in sorted((TOP / "plugins/modules").glob("*.py")):
        module = importlib.import_module(f"{PLUGINS}.modules.{path.stem}")
        found[path.stem] = getattr(module, "ARGUMENT_SPEC", None) or module.main.__globals__["SPEC"]
    return found


def role_specs() -> dict[str, Mapping[str, Any]]:
    """Role and entry point -> its argument spec."""
    found = {}
    for path in sorted((TOP / "roles").glob("*/meta/argument_specs.yml")):
        for entry, spec in yaml.safe_load(path.read_text())["argument_specs"].items():
            found[f"{path.parts[-3]} {entry}"] = spec.get("options") or {}
    return found


def options(specs: Mapping[str, Mapping[str, Any]]) -> list[Option]:
    """Every option and suboption."""
    return [one for owner, spec in specs.items() for one in _walk(owner, spec)]


def put(arguments: Mapping[str, Any], option: Option, value: Any) -> dict[str, Any]:
    """The arguments with one value in the place of the option. A list gets it as its only element."""
    value = [value] if option.spec.get("type") == "list" else value
    return _put(arguments, option.path, value)


def _put(within: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    name, *below = path
    if not below:
        return {**within, name: value}
    held = within.get(name)
    if isinstance(held, list):
        return {**within, name: [_put(held[0], tuple(below), value), *held[1:]]}
    return {**within, name: _put(held or {}, tuple(below), value)}
