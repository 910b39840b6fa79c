"""docs/on_hosts.md: the names and texts by which a run finds again what a former version left on a host.

They have no number. Whoever changes one makes the code recognise the former one as well, and keeps it here as a case of its own.
"""

import re
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import pending_key
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import (
    before,
    files,
    fleet_lock,
    formats,
    lock,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import gateway as exim_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import server as exim
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import record
from ansible_collections.mailfleet.starttls.plugins.module_utils._haraka import gateway as haraka
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.configuration import RENEWAL_FORMAT, RenewalPlan
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import renewal_files
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import gateway as postfix
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import instances
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.own_paths import OwnPaths
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target

TOP = Path(__file__).resolve().parents[2]
PAGE = (TOP / "docs/on_hosts.md").read_text()
KEPT = TOP / "tests/unit/formats"
POSTFIX = "/etc/postfix/mailfleet-starttls"
EXIM = "/etc/exim4/mailfleet-starttls"
AT = OwnPaths("/etc/postfix")
SECOND = instances.Instance(postfix.SECOND, AT.second_dir, Target("127.0.0.1", 10125), 1)


@pytest.mark.parametrize(
    ("used", "left"),
    [
        (lock.STORE, "/var/lib/mailfleet-starttls"),
        (
            pending_key("/etc/mailfleet/starttls.pem", lock.STORE),
            "/var/lib/mailfleet-starttls/pending+etc+mailfleet+starttls.pem.key",
        ),
        (fleet_lock.path_of(), "/var/lib/mailfleet-starttls/fleet.run"),
        (AT.registry, f"{POSTFIX}/gateway.json"),
        (AT.transport_map, f"{POSTFIX}/transport"),
        (AT.arrival_map, f"{POSTFIX}/arrival"),
        (AT.senders_map, f"{POSTFIX}/enforced_senders"),
        (AT.tls_only_map, f"{POSTFIX}/tls_only"),
        (AT.plaintext_map, f"{POSTFIX}/plaintext_only"),
        (postfix.RESTRICTION_CLASS, "mailfleet_arrival"),
        (AT.second_dir, "/etc/postfix-mailfleet"),
        (AT.third_dir, "/etc/postfix-mailfleet_enforced"),
        (instances.UNITS, "/etc/systemd/system"),
        (SECOND.unit, "postfix@mailfleet.service"),
        (SECOND.former_unit, "postfix@postfix-mailfleet.service"),
        (postfix.transport_of("required"), "mailfleet-required"),
        (exim_gateway.REGISTRY, f"{EXIM}/gateway.json"),
        (exim_gateway.DIRECTORY, EXIM),
        (exim_gateway._HIDDEN_FROM, "<; ! "),
        (exim.MAIL_ACL, "MAIN_ACL_CHECK_MAIL"),
        (exim.NEXT_MAIL_ACL, "MAILFLEET_NEXT_MAIL_ACL"),
        (
            exim._ACL_MACRO,
            "${if or{{def:tls_in_cipher}{!def:sender_host_address}}{acl_check_mail}"
            "{/etc/exim4/mailfleet-require-starttls.acl}}",
        ),
        (haraka.RECORD, "mailfleet-starttls.json"),
        (haraka.NOTE, "; Entries of mailfleet.starttls, listed in mailfleet-starttls.json:"),
        (formats.KEY, "format"),
        (renewal_files.PROGRAM, "/usr/local/sbin/mailfleet-starttls"),
        (renewal_files.CONFIGURATION, "/etc/mailfleet/renewal.json"),
        (renewal_files.CERTBOT_HOOK, "/etc/letsencrypt/renewal-hooks/deploy/mailfleet-starttls"),
        (renewal_files.TIMER_FILE, "/etc/systemd/system/mailfleet-starttls-renew.timer"),
        (renewal_files.SERVICE_FILE, "/etc/systemd/system/mailfleet-starttls-renew.service"),
        (
            [*renewal_files.DROP_INS.values()],
            [
                "/etc/systemd/system/certbot.service.d/mailfleet-starttls.conf",
                "/etc/systemd/system/certbot-renew.service.d/mailfleet-starttls.conf",
            ],
        ),
        (renewal_files._MARK, "mailfleet.starttls"),
        (renewal_files._OURS, b"ansible_collections/mailfleet/starttls/plugins/module_utils/_hook/"),
    ],
)
def test_what_a_former_version_left_is_found_again(used, left):
    assert used == left


@pytest.mark.parametrize(
    ("place", "first", "number"),
    [
        ("gateway", 0, record.FORMAT),
        ("journal", 0, files.JOURNAL_FORMAT),
        ("before", 1, before.RECORD_FORMAT),
        ("fleet_lock", 1, fleet_lock.FLEET_LOCK_FORMAT),
        ("renewal", 1, RENEWAL_FORMAT),
    ],
)
def test_a_file_of_every_format_is_kept(place, first, number):
    kept = [f"{place}_{one}.json" for one in range(first, number + 1)]
    assert sorted(path.name for path in KEPT.glob(f"{place}_*")) == kept


@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("*.journal", files.JOURNAL_FORMAT),
        ("*.before", before.RECORD_FORMAT),
        ("fleet.run", fleet_lock.FLEET_LOCK_FORMAT),
        ("gateway.json", record.FORMAT),
        (haraka.RECORD, record.FORMAT),
        ("renewal.json", RENEWAL_FORMAT),
    ],
)
def test_the_page_names_the_formats(place, number):
    assert re.search(rf"(?m)^\|[^|]*{re.escape(place)}`[^|]*\|[^|]*\|[^|]*\| {number} \|", PAGE)


@pytest.mark.parametrize("path", sorted(KEPT.glob("renewal_*.json")), ids=lambda path: path.stem)
def test_a_configuration_of_every_format_is_read(path):
    found = RenewalPlan.parse(path.read_text())
    assert found.certificates[0].pairs[0].path == "/etc/mailfleet/starttls.pem"
    assert found.certificates[0].policy.warn_days_left == 9
