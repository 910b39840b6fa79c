"""Ansible's packer sends with a module what the module imports. Here is how much that may be."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook import building

from tests.support import rooms

PATHS = rooms.modules()
MODULES = sorted(name.removeprefix("modules.") for name in PATHS if name.startswith("modules."))

BOUNDS: dict[str, tuple[int, int, int]] = {
    "deferred_mail": (26, 147_000, 58_000),
    "deferred_mail_info": (26, 147_000, 58_000),
    "enforced_tls_domain": (110, 1_053_000, 364_000),
    "exchange_tls": (22, 122_000, 46_000),
    "fleet_lock": (19, 105_000, 40_000),
    "gateway_info": (160, 1_541_000, 530_000),
    "gateway_tls": (159, 1_534_000, 527_000),
    "inbound_tls_mode": (111, 1_061_000, 366_000),
    "inbound_tls_mode_info": (109, 1_044_000, 361_000),
    "mail_server_info": (124, 1_111_000, 391_000),
    "mail_server_tls": (106, 946_000, 332_000),
    "message_trace": (16, 142_000, 52_000),
    "outbound_tls_mode": (110, 1_050_000, 363_000),
    "peer_tls": (102, 914_000, 320_000),
    "peer_tls_info": (22, 208_000, 74_000),
    "renewal_hook": (99, 882_000, 308_000),
    "starttls_probe": (13, 158_000, 55_000),
    "tls_activity_info": (27, 227_000, 81_000),
    "tls_certificate": (38, 320_000, 116_000),
    "tls_outcome": (0, 0, 22),
    "tls_plan": (0, 0, 22),
    "tls_recovery": (0, 0, 22),
    "tls_report": (0, 0, 22),
    "tls_verdict": (0, 0, 22),
}
"""Module -> the most files, bytes of source, and bytes of a compressed zip. A file more is a decision: write it down here.

Before mail servers were one kind of thing, the module for Postfix alone shipped 29 files, 353,664 bytes, zipped 122,529.
"""


OF_GATEWAYS = {"enforced_tls_domain", *(one for one in MODULES if "tls_mode" in one or one.startswith("gateway_"))}


SHARED_WITH_PEERS = {f"module_utils._gateway.{name}" for name in ("model", "queue", "record")}
"""Values: a peer must not collide with a gateway on the same host, and goes when nothing waits for it."""


def compressed(names: set[str]) -> int:
    """Bytes of a zip with these files."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(names):
            archive.writestr(name, PATHS[name].read_bytes())
    return len(target.getvalue())


def test_every_module_has_a_bound():
    assert sorted(BOUNDS) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_ships_what_it_uses(module: str):
    shipped = rooms.payload(rooms.collection(), module)
    files, size, zipped = BOUNDS[module]
    assert len(shipped) <= files, sorted(shipped)
    assert sum(PATHS[name].stat().st_size for name in shipped) <= size
    assert compressed(shipped) <= zipped


@pytest.mark.parametrize("module", [one for one in MODULES if one not in OF_GATEWAYS])
def test_only_the_modules_of_gateways_ship_gateways(module: str):
    shipped = rooms.payload(rooms.collection(), module)
    found = {name for name in shipped if "_gateway" in name or name.endswith(".gateway")}
    assert found - SHARED_WITH_PEERS == set()


def test_imports_in_functions_and_for_types_are_shipped(tmp_path: Path):
    (tmp_path / "modules").mkdir()
    (tmp_path / "module_utils/_a").mkdir(parents=True)
    (tmp_path / "modules/one.py").write_text(f"def main():\n    from {rooms.PREFIX}module_utils._a.x import X\n")
    (tmp_path / "module_utils/_a/x.py").write_text(
        f"if TYPE_CHECKING:\n    from {rooms.PREFIX}module_utils._a import y\n"
    )
    (tmp_path / "module_utils/_a/y.py").write_text("")
    (tmp_path / "module_utils/_a/z.py").write_text("")
    files = rooms.imports(rooms.modules(tmp_path))
    assert rooms.payload(files, "one") == {"module_utils._a.x", "module_utils._a.y"}


def test_the_packer_sends_all_that_the_program_of_the_hook_is_made_of():
    found = {name.removeprefix(rooms.PREFIX) for name in building.sources()}
    assert found <= rooms.payload(rooms.collection(), "renewal_hook")
    assert {"module_utils._postfix.server", "module_utils._exim.server"} <= found
    assert not [name for name in found if name.endswith((".gateway", "ansible_glue"))]
