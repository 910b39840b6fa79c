"""An Exim gateway without the collection: every file as before the first change."""

import os
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import before as record
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import gateway, queue
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import OutboundTls
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.uninstall import uninstall
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.exim_host import EximHost, config, inbound, outbound

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the record and the files are root's")
CONFIGS = (config("one", "match_sender", "a.example"), config("two", "required", "b.example"))
MORE = {
    "enforced": (*inbound("p.example"), outbound("bank.example", "hostname", "mx.bank.example")),
    "outbound": OutboundTls("tls_only", "match_sender", ("192.0.2.0/24",)),
}


@pytest.fixture(params=[True, False], ids=["split", "unsplit"])
def host(request, monkeypatch, tmp_path):
    host = EximHost(monkeypatch, tmp_path, request.param)
    monkeypatch.setattr(gateway, "REQUIRE_ACL", str(host.etc / "mailfleet-require-starttls.acl"))
    host.macros.write_text("MINE = 1\nMAIN_ACL_CHECK_MAIL = my_own_list\n")
    host.generated.write_text(host.compose())
    host.store = str(host.etc / "store")
    host.remove = lambda **more: uninstall(host.adapter, "/none", store=host.store, queue_seconds=0, **more)
    return host


def test_every_file_is_as_before_the_first_change(host):
    before = host.files()
    host.transact(*CONFIGS, **MORE)
    assert host.files() != before
    host.renew()
    assert host.remove()["changed"] is True
    assert host.files() == before
    assert not Path(host.store).exists() and not host.directory.exists()
    host.renew()
    assert host.remove()["changed"] is False
    assert not Path(host.store).exists()


def test_edits_by_hand_are_kept(host):
    before, was_split = host.macros.read_text(), host.split
    host.transact(*CONFIGS, **MORE)
    macros = host.macros
    macros.write_text("# a note\n" + macros.read_text())
    host.renew()
    result = host.remove()
    # After a move back, Exim does not read this file any more. The edit is in it, and that is said.
    assert macros.read_text() == "# a note\n" + (before if was_split else "")
    assert f"{macros} keeps what was edited by hand" in result["warnings"]
    assert host.macros.read_text().endswith(before)


def test_mail_that_insists_on_tls_is_named(host, monkeypatch):
    host.transact(*CONFIGS, **MORE)
    asked = []
    monkeypatch.setattr(
        queue, "waiting", lambda _run, domains: asked.append(domains) or [Waiting("1r-0-2b", "you@b.example", "no TLS")]
    )
    host.renew()
    before = host.files()
    with pytest.raises(EngineError, match=r"1r-0-2b to you@b\.example: no TLS"):
        host.remove()
    assert host.files() == before
    assert asked[0] == {"b.example", "bank.example"}


def test_without_a_record_what_is_ours_goes_and_the_administrators_list_is_back(host):
    if not host.split:  # without a record nobody knows that it was moved, so it stays split
        host.settings.write_text(host.settings.read_text().replace("false", "true"))
        host.macros.write_text("MINE = 1\nMAIN_ACL_CHECK_MAIL = my_own_list\n")
        host.generated.write_text(host.compose())
    before = host.files()
    host.transact(*CONFIGS, **{**MORE, "outbound": OutboundTls("both", None, ())})
    Path(record.path_of(host.store, "exim")).unlink()
    host.renew()
    result = host.remove()
    assert [one for one in result["warnings"] if "a version of the collection without records" in one]
    assert host.files() == before
