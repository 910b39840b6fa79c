import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import EVENTS, NUMBERS, REASONS
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds import product
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import PRODUCTS
from ansible_collections.mailfleet.starttls.plugins.modules import tls_activity_info as module

from tests.support.ansible_module import run_module

LINES = {
    "postfix": [
        "postfix/smtpd[7]: connect from mx.partner.test[192.0.2.15]",
        "postfix/smtpd[7]: Anonymous TLS connection established from mx.partner.test[192.0.2.15]: TLSv1.3 with cipher "
        "TLS_AES_256_GCM_SHA384 (256/256 bits)",
        "postfix/smtpd[7]: 491AA1C40A5: client=mx.partner.test[192.0.2.15]",
        "postfix/qmgr[5]: 491AA1C40A5: from=<a@partner.test>, size=1050, nrcpt=1 (queue active)",
        "postfix/smtpd[7]: disconnect from mx.partner.test[192.0.2.15] ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7",
    ],
    "exim": [
        "1xVuM6-0000i7-2X <= a@partner.test H=mx.partner.test [192.0.2.15] P=esmtps X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=no S=1"
    ],
}


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Commands of a host that answer nothing, and its log."""
    for name in ("postconf", "exim4", "journalctl"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    # This machine may have a mail server of its own.
    there = {
        kind: replace(PRODUCTS[kind], layouts=(replace(PRODUCTS[kind].layouts[0], programs=(path,), config_file=path),))
        for kind, path in (("postfix", str(tmp_path / "main.cf")), ("exim", str(tmp_path / "exim4")))
    }
    monkeypatch.setattr(product, "PRODUCTS", {**PRODUCTS, **there})
    return tmp_path


def write_log(host, daemon, age=60):
    stamp = time.strftime(
        "%Y-%m-%dT%H:%M:%S+00:00 mx " if daemon == "postfix" else "%Y-%m-%d %H:%M:%S +0000 ",
        time.gmtime(time.time() - age),
    )
    log = host / "log"
    log.write_text("".join(f"{stamp}{line}\n" for line in LINES[daemon]))
    return str(log)


@pytest.mark.parametrize("daemon", ["postfix", "exim"])
@pytest.mark.parametrize("check_mode", [True, False])
def test_what_the_log_tells(host, daemon, check_mode):
    result = run_module(module.main, daemon=daemon, logs=[write_log(host, daemon)], check_mode=check_mode)
    assert result["changed"] is False
    activity = result["activity"]
    assert (activity["version"], activity["daemon"], activity["skipped_lines"]) == (1, daemon, 0)
    (peer,) = activity["peers"]
    assert (peer["domain"], peer["direction"]) == ("partner.test", "inbound")
    assert (peer["sessions_tls"], peer["messages_tls"], peer["versions"]) == (1, 1, {"TLSv1.3": 1})
    assert set(peer) == {"domain", "direction", "versions", "ciphers", *NUMBERS, *EVENTS}
    assert set(activity["totals"]) == {"inbound", "outbound"}
    assert set(activity["totals"]["outbound"]) == set(peer) - {"domain", "direction"}
    json.dumps(activity)


def test_what_is_older_than_a_day_is_left_out_unless_it_is_asked_for(host):
    log = write_log(host, "exim", age=90000)
    assert run_module(module.main, daemon="exim", logs=[log])["activity"]["peers"] == []
    assert len(run_module(module.main, daemon="exim", logs=[log], since="2d")["activity"]["peers"]) == 1
    assert run_module(module.main, daemon="exim", logs=[log], since="2d", until="26h")["activity"]["peers"] == []


@pytest.mark.parametrize(("path", "daemon"), [("main.cf", "postfix"), ("exim4", "exim")])
def test_the_daemon_that_is_installed_is_taken(host, path, daemon):
    (host / path).touch()
    assert run_module(module.main, logs=[write_log(host, daemon)])["activity"]["daemon"] == daemon


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "is on this host; set daemon to one of: postfix, exim, proxmox"),
        ({"daemon": "exim", "since": "last week"}, "'last week' is not a time; give one like 24h"),
        (
            {"daemon": "exim", "since": "2026-01-02", "until": "2026-01-01"},
            "since 2026-01-02 is not before until 2026-01-01",
        ),
        ({"daemon": "exim", "logs": ["mainlog"]}, "logs: mainlog is not an absolute path"),
        ({"daemon": "exim", "max_peers": 0}, "max_peers has to be at least 1"),
        ({"daemon": "sendmail"}, "choose one of: postfix, exim"),
    ],
)
def test_what_cannot_be_done_is_refused(host, options, message):
    result = run_module(module.main, **options)
    assert result["failed"]
    assert message in result["msg"]


def test_both_daemons_are_one_too_many(host):
    (host / "main.cf").touch()
    (host / "exim4").touch()
    assert "Postfix and Exim are both on this host" in run_module(module.main)["msg"]


def test_peers_beyond_the_limit_are_counted_as_one(host):
    log = host / "log"
    stamp = time.strftime("%Y-%m-%d %H:%M:%S +0000", time.gmtime(time.time() - 60))
    log.write_text("".join(f"{stamp} {LINES['exim'][0].replace('partner', f'p{number}')}\n" for number in range(20)))
    activity = run_module(module.main, daemon="exim", logs=[str(log)], max_peers=5)["activity"]
    assert activity["truncated"] is True
    assert len(activity["peers"]) == 6
    assert (activity["peers"][-1]["domain"], activity["peers"][-1]["messages_tls"]) == ("other", 15)


def test_every_word_for_what_went_wrong_is_documented():
    contains = yaml.safe_load(module.RETURN)["activity"]["contains"]
    text = next(one for one in contains["peers"]["description"] if one.startswith("The words of C(reason)"))
    assert re.findall(r"C\((\w+)\)", text)[1:] == list(REASONS)


@pytest.mark.parametrize(
    ("journal", "read"), [(True, ["journal"]), ("true", ["journal"]), (False, []), ("auto", ["journal"])]
)
def test_the_journal_may_be_asked_for_with_a_boolean(host, journal, read):
    result = run_module(module.main, daemon="exim", journal=journal, logs=[f"{host}/none"])
    assert result["activity"]["sources"] == read


def test_postfix_says_where_its_log_is(host):
    """It may log to a file of its own: what lies at the usual place is then nothing of it."""
    (host / "main.cf").touch()
    own = host / "postfix.log"
    Path(write_log(host, "postfix")).rename(own)
    program = host / "bin/postconf"
    program.write_text(
        f"#!/bin/sh\nprintf '%s\\n' 'maillog_file = {own}' 'syslog_name = postfix' 'syslog_facility = mail'\n"
    )
    activity = run_module(module.main, daemon="postfix", journal=False)["activity"]
    assert (activity["sources"], [one["domain"] for one in activity["peers"]]) == ([str(own)], ["partner.test"])
