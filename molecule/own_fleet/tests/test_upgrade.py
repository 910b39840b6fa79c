"""An update of the collection: a former version switches TLS on, and today's version takes the hosts over.

The former version is COMMIT, the last one that wrote no format into what it leaves on a host; see docs/on_hosts.md. A version
that has to change something on such a host on purpose changes what the first of these tests expects.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_testinfra import TOP, Fleet, came_over_tls, report, wait_for

COMMIT = "f00a286623064cf34847e144630c3278745f8ac6"
GATEWAYS = {"gw1": "/etc/postfix/mailfleet-starttls/gateway.json", "gx1": "/etc/exim4/mailfleet-starttls/gateway.json"}
"""Gateway -> its record."""
SERVERS = ("mail1", "mail2")
HOSTS = (*GATEWAYS, *SERVERS)

# The words of COMMIT. Today's are those of the lab's inventory.
GROUP_THEN = {"gw1": "mail_gateways", "gx1": "mail_gateways", "mail1": "postfix_servers", "mail2": "exim_servers"}
KIND_THEN = {"gw1": {"gateway_kind": "postfix"}, "gx1": {"gateway_kind": "exim"}}
VARIABLES_THEN = {
    "certificate_private_key_file": "{pki}/{host}.key",
    "certificate_file": "{pki}/{host}.pem",
    "certificate_chain_file": "{pki}/chain.pem",
    "certificate_ca_file": "{ca}",
    "verify_ca_file": "{ca}",
    "mail_hostname": "{host}.example.com",
    "mail_address": "{address}",
}


def inventory_now(lab: dict[str, Any]) -> dict[str, Any]:
    """The lab's inventory without the other hosts, and with both gateways in the group of the gateways."""
    group_of = {host: group for group, data in lab["all"]["children"].items() for host in data["hosts"]}
    groups: dict[str, Any] = {}
    for host in HOSTS:
        data = lab["all"]["children"][group_of[host]]
        group = groups.setdefault(group_of["gw1"] if host in GATEWAYS else group_of[host], {"hosts": {}})
        group["hosts"][host] = {**data.get("vars", {}), **data["hosts"][host]}
    return {"all": {"vars": lab["all"]["vars"], "children": groups}}


def inventory_then(now: dict[str, Any], fleet: Fleet) -> dict[str, Any]:
    """The same hosts in the words of COMMIT; how Ansible reaches them and the email configs have kept their names."""
    every = {host: own for group in now["all"]["children"].values() for host, own in group["hosts"].items()}
    groups: dict[str, Any] = {}
    for host, group in GROUP_THEN.items():
        words = {"host": host, "pki": fleet.pki, "ca": fleet.ca, "address": fleet.address(host)}
        groups.setdefault(group, {"hosts": {}})["hosts"][host] = {
            **_of_ansible(every[host]),
            **{name: text.format(**words) for name, text in VARIABLES_THEN.items()},
            **KIND_THEN.get(host, {}),
        }
    variables = {**_of_ansible(now["all"]["vars"]), "email_configs": now["all"]["vars"]["email_configs"]}
    return {"all": {"vars": variables, "children": groups}}


def _of_ansible(variables: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in variables.items() if name.startswith("ansible_")}


def unpack(place: Path) -> str:
    """Unpack the collection of COMMIT, or say why that is not possible."""
    try:
        packed = subprocess.run(["git", "archive", COMMIT], cwd=TOP, capture_output=True, check=False)
    except OSError as error:
        return f"git does not run: {error}"
    if packed.returncode:
        reason = packed.stderr.decode(errors="replace").strip()
        return f"this checkout cannot give the commit {COMMIT[:7]} ({reason}); clone it with its whole history"
    place.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", str(place)], input=packed.stdout, check=True)
    return ""


@pytest.fixture(scope="module")
def updated(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The fleet for today's version, after the former version switched TLS on."""
    place = tmp_path_factory.mktemp("former")
    former = place / "ansible_collections/mailfleet/starttls"
    if reason := unpack(former):
        report("An update on real hosts", [f"NOT TESTED: {reason}"])
        pytest.skip(reason)
    today, then = Fleet(), Fleet()
    lab = yaml.safe_load(fleet.inventory.read_text())
    now = inventory_now(lab)
    for one, name, inventory in ((today, "now", now), (then, "then", inventory_then(now, fleet))):
        one.inventory = place / f"{name}.yml"
        one.inventory.write_text(yaml.safe_dump(inventory, sort_keys=False))

    reset = fleet.play("tools/lab/playbooks/reset.yml")
    assert reset.status == 0, reset.output
    on = then.play(str(former / "playbooks/enable_tls.yml"), environment={"ANSIBLE_COLLECTIONS_PATH": str(place)})
    assert on.status == 0, on.output
    assert f"included: {former}/roles/verify/tasks/observe.yml for " in on.output, "another version ran"
    assert served(today) == set(HOSTS)
    assert {host: format_of(today, host) for host in GATEWAYS} == dict.fromkeys(GATEWAYS)
    yield today
    today.end()


def served(fleet: Fleet) -> set[str]:
    """The hosts that serve a certificate of the lab's authority."""
    verify = ("-CAfile", str(fleet.ca), "-verify_return_error")
    return {host for host in HOSTS if fleet.s_client(host, *verify).status == 0}


def format_of(fleet: Fleet, gateway: str) -> int | None:
    """The format of a gateway's record, None if it has no number."""
    found: int | None = json.loads(fleet.run(gateway, f"cat {GATEWAYS[gateway]}")).get("format")
    return found


def arrives_over_tls(fleet: Fleet, gateway: str, tls: bool) -> bool:
    """Send a message to a gateway, over TLS or not, and return whether the mail server got it over TLS."""
    mark = fleet.send("oldest", ["trace@example.com"], tls, to=gateway)
    found = wait_for(lambda: [one for server in SERVERS if (one := fleet.mail(server, mark)) is not None])
    assert found, f"{mark} did not arrive by way of {gateway}"
    return came_over_tls(found[0])


def test_the_first_run_after_the_update_changes_the_postfix_gateway_alone(updated: Fleet) -> None:
    """Its policy service and what its instances take from each other have become safer since then."""
    before = updated.digests(HOSTS)
    first = updated.play("playbooks/enable_tls.yml")
    assert first.status == 0, first.output
    assert {host for host in HOSTS if first.changed[host]} == {"gw1"}, first.output
    after = updated.digests(HOSTS)
    assert {host: after[host] for host in HOSTS if host != "gw1"} == {
        host: before[host] for host in HOSTS if host != "gw1"
    }


def test_a_rerun_after_that_changes_nothing(updated: Fleet) -> None:
    before = updated.digests(HOSTS)
    again = updated.play("playbooks/enable_tls.yml")
    assert again.status == 0, again.output
    assert set(again.changed) >= set(HOSTS), again.output
    assert not any(again.changed.values()), again.output
    assert updated.digests(HOSTS) == before


def test_verify_passes(updated: Fleet) -> None:
    seen = updated.play("playbooks/verify_tls.yml")
    assert seen.status == 0, seen.output


def test_the_next_change_brings_the_records_to_the_current_format(updated: Fleet) -> None:
    off = updated.play("playbooks/disable_tls.yml")
    assert off.status == 0, off.output
    assert served(updated) == set()
    assert all(format_of(updated, gateway) for gateway in GATEWAYS)


def test_tls_goes_on_again(updated: Fleet) -> None:
    on = updated.play("playbooks/enable_tls.yml")
    assert on.status == 0, on.output
    assert served(updated) == set(HOSTS)


def test_with_consent_the_conffile_is_the_packages_again(updated: Fleet) -> None:
    """The former version has put lines into the template of the unsplit configuration. They leave it with the move."""
    template = "cat /etc/exim4/exim4.conf.template"
    assert "mailfleet" in updated.run("gx1", template)
    moved = updated.play("playbooks/enable_tls.yml", variables={"starttls_exim_split": True})
    assert moved.status == 0, moved.output
    assert {host for host in HOSTS if moved.changed[host]} == {"gx1"}, moved.output
    assert "mailfleet" not in updated.run("gx1", template)
    again = updated.play("playbooks/enable_tls.yml", variables={"starttls_exim_split": True})
    assert (again.status, any(again.changed.values())) == (0, False), again.output


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("tls", [True, False], ids=["arrived over TLS", "arrived in plaintext"])
def test_mail_is_delivered_as_it_came(updated: Fleet, gateway: str, tls: bool) -> None:
    assert arrives_over_tls(updated, gateway, tls) == tls
