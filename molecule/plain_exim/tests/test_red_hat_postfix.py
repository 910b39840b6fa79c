"""Postfix in the layout of the Red Hat family: TLS on, proved, off, and gone without a trace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_testinfra import Fleet, wait_for

HOST = "pf12"
DOMAIN = "alpha.test"
FILES = "/etc/postfix/main.cf /etc/postfix/master.cf"
QUIET = {"starttls_send_messages": False}
TLS = {"inbound": "required", "outbound": "opportunistic"}
SCRIPT = Path(__file__).resolve().parents[1] / "files/red_hat_postfix.sh"


@pytest.fixture
def red_hat(fleet: Fleet) -> Iterator[str]:
    """A host whose Postfix has the directories, main.cf, unit and log of the Red Hat family; it offers TLS with its own certificate."""
    fleet.result(HOST, "mail_server_tls", {"state": "absent"})  # what other tests have left is no part of the layout
    fleet.run(HOST, "sh -s on", SCRIPT.read_text())
    yield HOST
    fleet.run(HOST, "sh -s off", SCRIPT.read_text())


def shown(fleet: Fleet) -> str:
    """Everything below /etc/postfix with owners and modes, the text of both files, and what the collection has beside them."""
    ours = "ls -d /etc/mailfleet /var/lib/mailfleet-starttls 2>/dev/null || :"
    return fleet.run(HOST, f"stat -c '%n %a %U:%G' $(find /etc/postfix | sort); cat {FILES}; {ours}")


def master(fleet: Fleet) -> str:
    """The process of the daemon, which a reload keeps."""
    return fleet.run(HOST, "systemctl show --property=MainPID --value postfix.service").strip()


def labels(fleet: Fleet) -> str:
    """What SELinux calls the files: nothing where this machine does not let a host have a label."""
    code = "import os, sys; print([{n: os.getxattr(one, n) for n in os.listxattr(one)} for one in sys.argv[1:]])"
    return fleet.run(HOST, f'python3 -c "{code}" {FILES}')


def issuer(fleet: Fleet) -> str:
    """Who has issued the certificate that port 25 serves; empty without one."""
    found = re.search(r"(?m)^   i:.*CN ?= ?(.*)$", fleet.s_client(HOST).output)
    return found[1] if found else ""


def waiting(fleet: Fleet) -> list[dict[str, Any]]:
    """The messages that wait, as deferred_mail_info shows them."""
    result = fleet.result(HOST, "deferred_mail_info", {"kind": "postfix"})
    assert result["looked"], result["output"]
    return list(result["messages"])


def test_the_layout_of_the_red_hat_family(fleet: Fleet, red_hat: str) -> None:
    before, pid, called = shown(fleet), master(fleet), labels(fleet)
    assert int(pid) > 1
    seen = fleet.result(red_hat, "mail_server_info", {"kind": "auto"})
    assert (seen["kind"], seen["layout"]["platform"]) == ("postfix", "Red Hat family"), seen["output"]
    assert issuer(fleet) == f"{HOST}.fleet.test"

    options = {**TLS, "install": fleet.install(red_hat)}
    on = fleet.result(red_hat, "mail_server_tls", options)
    assert on["before"] == {"inbound": "offered", "outbound": "opportunistic"}, on["output"]
    assert labels(fleet) == called
    assert on["changed"] and on["handshake"]["requires_tls"], on["output"]
    assert not fleet.result(red_hat, "mail_server_tls", options)["changed"]
    assert fleet.run(red_hat, "stat -c '%a %U:%G' /etc/mailfleet/starttls.pem").split() == ["600", "root:root"]
    assert issuer(fleet) not in ("", f"{HOST}.fleet.test")
    assert fleet.arrived_over_tls(red_hat, fleet.send("outside", [f"trace@{DOMAIN}"], tls=True, to=red_hat))
    counted = fleet.result(red_hat, "tls_activity_info", {"daemon": "postfix"})
    assert counted["activity"]["sources"] == ["/var/log/maillog"], counted["output"]
    assert counted["activity"]["totals"]["inbound"]["messages_tls"] == 1, counted["output"]
    proved = fleet.play("playbooks/verify_tls.yml", "--limit", red_hat, variables=QUIET)
    assert proved.status == 0, proved.output

    fleet.run("gw1", "systemctl stop postfix@-.service")
    try:
        fleet.run(red_hat, f"sendmail -f trace@{DOMAIN} trace@partner.test", "Subject: waits\n\nx\n")
        (one,) = wait_for(lambda: [one for one in waiting(fleet) if one["reason"]])
        assert (one["recipient"], one["next_hop"]) == ("trace@partner.test", "gw1.fleet.test"), one
    finally:
        fleet.run("gw1", "systemctl start postfix@-.service")
    fleet.run(red_hat, "postqueue -f")
    assert wait_for(lambda: not waiting(fleet))

    off = fleet.result(red_hat, "mail_server_tls", {"inbound": "disabled", "outbound": "disabled"})
    assert off["changed"] and not fleet.offers_starttls(red_hat), off["output"]
    gone = fleet.play("playbooks/uninstall.yml", "--limit", f"{red_hat},gw1")
    assert gone.status == 0, gone.output
    assert (shown(fleet), labels(fleet)) == (before, called)
    assert issuer(fleet) == f"{HOST}.fleet.test"
    assert master(fleet) == pid
