"""Where a gateway's daemon does something else than the record says, whatever the product."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import before
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import describe
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.in_force import (
    DIFFERS,
    EDITED,
    NOT_TOLD,
    REPLACED,
    UNPROVED,
    WHOLE,
    Fault,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EmailConfig,
    EnforcedDomain,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import CATALOGUE
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import DIFFERENCES

from tests.support.gateway_bench import Bench


def config(name, mode):
    return EmailConfig(name, (f"{name}.example",), (Target("mx.example"),), mode)


HELD = GatewayState(
    {"main": config("main", "required"), "plain": config("plain", "plaintext")},
    (EnforcedDomain("a.example", "inbound"), EnforcedDomain("b.example", "outbound")),
    OutboundTls("both", "match_sender"),
)
AS_SET = {"main.example": "required", "plain.example": "plaintext"}
IN_FORCE = {
    "inbound": {"a.example": True}, "outbound": {"b.example": True}, "accept": {"both": True}, "send": {"match_sender": True},
}  # fmt: skip


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir(mode=0o700)
    return str(tmp_path / "store")


@pytest.fixture
def gateway(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch)
    bench.hold(HELD)
    bench.gateway.delivered, bench.gateway.forced = dict(AS_SET), dict(IN_FORCE)
    return bench.gateway


def found(gateway, store):
    listed = describe(gateway, store=store)["differences"]
    assert {one["code"] for one in listed} <= DIFFERENCES
    assert [one["severity"] for one in listed] == [CATALOGUE[one["code"]].severity for one in listed]
    return [(one["what"], one["code"]) for one in listed]


def test_a_gateway_as_it_was_set(gateway, store):
    assert found(gateway, store) == []


def test_what_the_daemon_shows_differs_without_a_known_cause(gateway, store):
    gateway.delivered["main.example"] = "plaintext"
    gateway.forced["inbound"] = {"a.example": False}
    assert found(gateway, store) == [("email config main", DIFFERS), ("inbound a.example", DIFFERS)]


def test_a_cause_takes_the_place_of_what_is_shown(gateway, store):
    gateway.delivered["main.example"] = "plaintext"
    gateway.found = [Fault("email config main", DIFFERS, "the table is empty")]
    (one,) = describe(gateway, store=store)["differences"]
    assert one == {"what": "email config main", "code": DIFFERS, "severity": "error", "message": "the table is empty"}


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("email config main", UNPROVED),
        ("email config plain", NOT_TOLD),
        ("inbound a.example", UNPROVED),
        ("outbound b.example", UNPROVED),
        ("accept", NOT_TOLD),
        ("send", UNPROVED),
        (WHOLE, UNPROVED),
    ],
)
def test_what_cannot_be_told_is_an_error_where_tls_was_promised(gateway, store, what, code):
    gateway.found = [Fault(what, NOT_TOLD, "a table cannot be asked")]
    assert found(gateway, store) == [(what, code)]


def test_faults_that_cannot_be_read(gateway, store):
    gateway.found = EngineError("postconf: no")
    assert found(gateway, store) == [(WHOLE, UNPROVED)]


def test_a_gateway_that_does_not_run_has_no_differences(gateway, store):
    gateway.fail["require_running"] = "it does not run"
    gateway.found = [Fault(WHOLE, DIFFERS, "never asked")]
    assert found(gateway, store) == []


def as_left(store, *paths):
    """Note these files as a change that made them has left them."""
    changes = [(FileImage(str(one), None), FileImage.read(str(one))) for one in paths]
    before.begin(store, "fake-gateway")
    before.note(store, "fake-gateway", changes)


class TestFilesOfAnotherHand:
    @pytest.fixture(autouse=True)
    def files(self, gateway, store, tmp_path):
        self.table, self.theirs = tmp_path / "transport", tmp_path / "main.cf"
        self.table.write_text("a b\n")
        self.theirs.write_text("x = 1\n")
        paths = [str(gateway.file), str(self.table), str(self.theirs)]
        gateway.files = lambda: paths
        as_left(store, gateway.file, self.table)
        before.note(
            store, "fake-gateway", [(FileImage(str(self.theirs), b"x = 0\n"), FileImage.read(str(self.theirs)))]
        )

    def test_none(self, gateway, store):
        assert found(gateway, store) == []

    def test_a_record_from_a_backup_is_an_error_even_if_all_agrees_with_it(self, gateway, store):
        gateway.file.write_text(gateway.file.read_text().replace('"required"', '"plaintext"'))
        gateway.delivered["main.example"] = "plaintext"
        assert found(gateway, store) == [(WHOLE, REPLACED)]

    def test_a_record_that_is_gone(self, gateway, store):
        gateway.file.unlink()
        assert found(gateway, store) == [(WHOLE, REPLACED)]

    def test_another_file_of_ours(self, gateway, store):
        self.table.write_text("")
        (one,) = describe(gateway, store=store)["differences"]
        assert (one["code"], one["message"]) == (EDITED, f"{self.table} is not as the last run left it")

    def test_a_link_in_its_place(self, gateway, store):
        self.table.unlink()
        self.table.symlink_to("/dev/null")
        assert found(gateway, store) == [(WHOLE, EDITED)]

    def test_a_file_of_theirs_may_be_edited(self, gateway, store):
        self.theirs.write_text("x = 2\n")
        assert found(gateway, store) == []
