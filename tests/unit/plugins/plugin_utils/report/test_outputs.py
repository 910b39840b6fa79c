"""Where the reports are written on the controller."""

import os
import stat

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.outputs import write_report

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
