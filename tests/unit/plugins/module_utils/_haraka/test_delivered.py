"""The delivery mode as Haraka's own files say it, whatever the record says."""

import time

import pytest

from tests.unit.plugins.module_utils._haraka.test_gateway import Host, config


@pytest.fixture
def host(monkeypatch, tmp_path):
    return Host(monkeypatch, tmp_path)


MODES = {"a.example": "plaintext", "b.example": "opportunistic", "c.example": "required"}


def with_modes(host):
    host.transact(*(config(domain[0], mode) for domain, mode in MODES.items()))


def test_every_mode_is_read_back(host):
    with_modes(host)
    assert host.adapter.delivers([*MODES, "more.example"]) == {**MODES, "more.example": "opportunistic"}
    assert host.adapter.delivers([]) == {}


def test_an_entry_that_somebody_removed_counts_no_more(host):
    with_modes(host)
    host.tls_ini.write_text(host.tls_ini.read_text().replace("force_tls_hosts[]=c.example\n", ""))
    for pid in host.adapter._workers():
        host.start(pid, age=-5)  # somebody has restarted Haraka
    assert host.adapter.delivers(["c.example"]) == {"c.example": "opportunistic"}


def test_a_worker_that_is_older_than_the_file_does_what_nobody_knows(host):
    with_modes(host)
    time.sleep(0.02)
    for pid in host.adapter._workers():
        host.start(pid, age=60)
    assert host.adapter.delivers(list(MODES)) == dict.fromkeys(MODES)


def test_the_switch_for_all_mail(host):
    with_modes(host)
    host.put("outbound.ini", "enable_tls=false\n")
    assert set(host.adapter.delivers(list(MODES)).values()) == {"plaintext"}


def test_a_plugin_that_delivers_by_itself_is_unknown(host):
    with_modes(host)
    host.put("plugins", "queue/smtp_forward\n")
    assert host.adapter.delivers(list(MODES)) == dict.fromkeys(MODES)
