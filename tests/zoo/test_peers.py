"""Where OpenSSL's s_client and sslyze can judge the same thing, they and the probe agree."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.zoo.animals import CERTIFICATES, GOOD, HELLOS, VERSIONS, Animal
from tests.zoo.conftest import Entries, Zoo, named

HERE = Path(__file__).parent
# s_client asks for STARTTLS whether it is offered or not, and has no verdict on what is said inside TLS.
SHOWS_A_CERTIFICATE = tuple(
    one
    for one in (*GOOD, *CERTIFICATES, *VERSIONS)
    if one.target.get("protocol", "smtp") == "smtp" and one.name != "IDN as people write it"  # they want it in ASCII
)
# With TLS 1.3 a server misses the client's certificate when s_client is done, and may be gone: its status is a race.
NO_STATUS = {"insists on a client certificate"}

# sslyze gets no more than well-behaved servers: it has no time-out for most of what the others do.
OUTSIDE_OF_SSLYZE = {
    "name with a dot at its end",  # it does not take the dot off
    "address", "address asked of a name", "address in the common name",  # it wants a name for SNI
    "for clients only",  # its library has no policy for that, see extended key usage
    "another key", "another key, TLS 1.2", "ciphers without authentication",
    "asks for a client certificate, TLS 1.2", "insists on a client certificate", "insists on a client certificate, TLS 1.2",
}  # fmt: skip
SCANNED = tuple(one for one in SHOWS_A_CERTIFICATE if one.name not in OUTSIDE_OF_SSLYZE)
# Where it is known to judge by other rules than mail servers do, which are OpenSSL's.
OTHER_RULES = {
    "common name only": False,  # browsers do not look at the common name
    "RSA of 1024 bits": True,  # its library does not look at the key
}
ALL_VERSIONS = {one.name for one in VERSIONS if one.name.startswith("TLS ")} | {"good"}
names = {"ids": lambda animal: animal.name}


@dataclass(frozen=True)
class SClient:
    """How `openssl s_client` ended."""

    status: int
    verify_errors: frozenset[int]
    output: str


@pytest.fixture(scope="module")
def s_client(zoo: Zoo) -> dict[str, SClient]:
    """OpenSSL's view of each animal with a certificate."""
    ca_file = zoo.keeper.authority_file

    def run(animal: Animal) -> SClient:
        target = zoo.target(animal)
        name = (target["name"] or target["host"]).rstrip(".")
        by_address = not target["name"]
        done = subprocess.run(
            [
                "openssl", "s_client", "-starttls", "smtp", "-connect", f"{target['host']}:{target['port']}",
                "-CAfile", str(ca_file), "-no-CApath", "-no-CAstore", "-verify_return_error",
                *(["-verify_ip", name, "-noservername"] if by_address else ["-verify_hostname", name, "-servername", name]),
            ],
            input="QUIT\n", capture_output=True, text=True, errors="replace", check=False, timeout=20,
        )  # fmt: skip
        output = done.stdout + done.stderr
        errors = {int(number) for number in re.findall(r"verify error:num=(\d+)", output)}
        return SClient(done.returncode, frozenset(errors), output)

    with ThreadPoolExecutor(4) as pool:
        return dict(zip((one.name for one in SHOWS_A_CERTIFICATE), pool.map(run, SHOWS_A_CERTIFICATE), strict=True))


WRONG_NAME = {62, 64}
"""OpenSSL's numbers for a name and an address that the certificate does not cover."""


@pytest.mark.parametrize("animal", SHOWS_A_CERTIFICATE, **names)
def test_s_client_agrees(s_client: dict[str, SClient], probed: Entries, animal: Animal) -> None:
    theirs, ours = s_client[animal.name], probed[animal.name]
    if animal.name not in NO_STATUS:
        assert (theirs.status == 0) is bool(ours["completed"] and ours["trusted"] and ours["name_matches"]), (
            theirs.output
        )
    # It stops at the first error, and looks at the name first.
    if ours["name_matches"] is False:
        assert theirs.verify_errors and theirs.verify_errors <= WRONG_NAME
    elif ours["trusted"] is False:
        assert theirs.verify_errors and not theirs.verify_errors & WRONG_NAME
    else:
        assert not theirs.verify_errors


@pytest.fixture(scope="module")
def sslyze(zoo: Zoo) -> dict[str, Any]:
    """What sslyze says of the well-behaved."""
    python = subprocess.run(
        [HERE / "peers", sys.executable], capture_output=True, text=True, check=True, timeout=900
    ).stdout.strip()
    animals = (*SCANNED, named("no STARTTLS"))
    wanted = {
        "ca_file": str(zoo.keeper.authority_file),
        "targets": [{"id": one.name, **zoo.target(one), "versions": one.name in ALL_VERSIONS} for one in animals],
    }
    done = subprocess.run(
        [python, HERE / "sslyze_scan.py"],
        input=json.dumps(wanted), capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("animal", SCANNED, **names)
def test_sslyze_agrees_on_the_certificate(sslyze: dict[str, Any], probed: Entries, animal: Animal) -> None:
    theirs, ours = sslyze[animal.name], probed[animal.name]
    assert theirs["starttls"] == ours["starttls_advertised"]
    if animal.name in OTHER_RULES:
        assert theirs["trusted"] is OTHER_RULES[animal.name] is not (ours["trusted"] and ours["name_matches"])
    elif ours["completed"]:
        assert theirs["trusted"] is (ours["trusted"] and ours["name_matches"])


def test_sslyze_agrees_on_a_server_without_starttls(sslyze: dict[str, Any], probed: Entries) -> None:
    assert named("no STARTTLS") in HELLOS
    assert sslyze["no STARTTLS"]["starttls"] is probed["no STARTTLS"]["starttls_advertised"] is False


@pytest.mark.parametrize("name", sorted(ALL_VERSIONS))
def test_sslyze_agrees_on_the_versions(sslyze: dict[str, Any], probed: Entries, name: str) -> None:
    assert sslyze[name]["versions"] == probed[name]["versions"]
