"""Where the reports are written on the controller."""

import json
import os
import stat

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.formats import FORMATS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.outputs import write_report

from tests.support.report_rows import probe

STRANGER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def write(path, check_mode=False, **more):
    options = {
        "rows": [{"host": "mx", "activity": {}}], "title": "", "window": {}, "tls_reports": [], "domains": [], "previous": None,
        "certificate_days": 21, "fail_on": "error", "outputs": [{"format": "csv", "path": str(path)}], **more,
    }  # fmt: skip
    return write_report(options, check_mode)


@pytest.fixture
def victim(tmp_path):
    """A file of the user who runs Ansible; it has to stay as it is."""
    path = tmp_path / "authorized_keys"
    path.write_text("mine")
    yield path
    assert path.read_text() == "mine"


@as_root
@pytest.mark.parametrize("check_mode", [False, True])
def test_a_directory_of_somebody_else_is_refused(tmp_path, victim, check_mode):
    place = tmp_path / "reports"
    place.mkdir()
    (place / "report.csv").symlink_to(victim)
    os.chown(place, STRANGER, STRANGER)
    with pytest.raises(EngineError, match=rf"{place} belongs to .*correct the path .*\(starttls_report_directory\)"):
        write(place / "report.csv", check_mode)


@as_root
def test_a_link_in_the_place_of_the_directory_is_refused(tmp_path, victim):
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "reports").symlink_to(tmp_path)
    os.lchown(shared / "reports", STRANGER, STRANGER)
    with pytest.raises(EngineError, match=f"{shared}/reports is a link that"):
        write(shared / "reports/authorized_keys")
    write(shared / "mine/report.csv")
    assert (shared / "mine/report.csv").exists()


def test_missing_directories_are_made(tmp_path):
    before = os.umask(0o077)
    try:
        assert write(tmp_path / "a/b/report.csv", check_mode=True)["changed"]
        assert os.listdir(tmp_path) == []
        assert write(tmp_path / "a/b/report.csv")["changed"]
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o755
    assert not write(tmp_path / "a/b/report.csv")["changed"]


class TestParts:
    """Reports of runs on parts of a fleet become one."""

    @staticmethod
    def report(path, *hosts, **more):
        """Write the report on some hosts."""
        rows = [{"host": host, "activity": {}, "probes": [probe(host)], **more} for host in hosts]
        write(path, rows=rows, outputs=[{"format": "json", "path": str(path)}], not_in_run=["a", "b", "c"])

    def whole(self, path, parts, **more):
        """The report that they make."""
        outputs = [{"format": one, "path": f"{path}.{one}"} for one in FORMATS]
        write(path, rows=[], parts=parts, outputs=outputs, **more)
        return json.loads((path.parent / f"{path.name}.json").read_text())

    def test_it_is_the_report_of_one_run(self, tmp_path):
        self.report(tmp_path / "1/report.json", "a", "b")
        self.report(tmp_path / "2/report.json", "c")
        rows = [{"host": host, "activity": {}, "probes": [probe(host)]} for host in ("a", "b", "c")]
        write(tmp_path / "one.json", rows=rows, outputs=[{"format": "json", "path": str(tmp_path / "one.json")}])
        found = self.whole(tmp_path / "all", [str(tmp_path / "*/report.json")])
        one = json.loads((tmp_path / "one.json").read_text())
        assert {**found, "generated_at": ""} == {**one, "generated_at": ""}

    def test_of_a_host_that_two_are_about_the_worst_counts(self, tmp_path):
        bad = [{"code": "expired", "message": "it has expired"}]
        self.report(tmp_path / "1.json", "gw", "a")
        self.report(tmp_path / "2.json", "gw", "b", findings=bad)
        found = self.whole(tmp_path / "all", [str(tmp_path / f"{number}.json") for number in (1, 2)])
        assert [(one["host"], one["verdict"]) for one in found["hosts"]] == [
            ("gw", "FAIL"),
            ("a", "pass"),
            ("b", "FAIL"),
        ]
        assert [one["message"] for one in found["hosts"][0]["findings"]] == ["it has expired"]
        assert (found["not_in_this_run"], found["summary"]["failed"]) == (["c"], 2)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, "there is no report at .*starttls_report_parts|starttls_report_parts.*there is no report at"),
            ("{", "the report .* cannot be used: it is not readable JSON"),
            ('{"version": 1, "hosts": [{"host": 7}]}', "each of rows needs the name of its host"),
            (
                '{"version": 1, "hosts": [{"host": "a", "traces": [{"arrived": true, "hops": 7}]}]}',
                "one of parts is not a whole report",
            ),
        ],
    )
    def test_what_is_no_report_is_refused_by_its_path(self, tmp_path, text, said):
        if text is not None:
            (tmp_path / "1.json").write_text(text)
        with pytest.raises(EngineError, match=said):
            self.whole(tmp_path / "all", [str(tmp_path / "1.json")])
