"""A daemon that may use a new file at once judges it where it waits, after the files before it are in place."""

from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError


class Daemon:
    """Notes what it sees. refuses: the path whose new version it does not take."""

    name = "judge"
    reads_files_unasked = False

    def __init__(self, certificate):
        self.certificate = certificate
        self.seen, self.refuses = [], ""

    def judge(self, path, candidate):
        there = self.certificate.read_text() if self.certificate.exists() else ""
        self.seen.append((Path(path).name, Path(path).read_text(), Path(candidate).read_text(), there))
        assert Path(candidate).parent == Path(path).resolve().parent
        if path == self.refuses:
            raise EngineError("it would end")

    def check(self):
        self.seen.append("check")

    def reload(self):
        self.seen.append("reload")

    def resume(self):
        self.seen.append("resume")


@pytest.fixture
def host(tmp_path):
    config, certificate = tmp_path / "conf", tmp_path / "pem"
    config.write_text("old")
    (tmp_path / "store").mkdir(mode=0o700)
    daemon = Daemon(certificate)
    transaction = Transaction(daemon, str(tmp_path / "store"))
    image = FileImage.read(str(config))

    def apply(path=config):
        change = Change.of([FileImage(str(path), b"new", image.mode, image.uid, image.gid)])
        change = change.preceded_by(FileImage(str(certificate), b"key", 0o600, image.uid, image.gid))
        with transaction.opened(False):
            transaction.apply(change, lambda: None, lambda: None)

    return daemon, config, certificate, apply


def test_the_certificate_is_there_and_the_old_file_still_in_use(host):
    daemon, config, certificate, apply = host
    certificate.write_text("former")
    apply()
    assert daemon.seen[-4:] == [
        ("pem", "former", "key", "former"), ("conf", "old", "new", "key"), "check", "reload",
    ]  # fmt: skip
    assert config.read_text() == "new"


def test_what_is_refused_is_never_in_place_and_the_daemon_is_not_told(host):
    daemon, config, certificate, apply = host
    certificate.write_text("former")
    daemon.refuses = str(config)
    with pytest.raises(TransactionError, match=r"^it would end\. The former state is restored") as error:
        apply()
    assert error.value.restored
    assert (config.read_text(), certificate.read_text()) == ("old", "former")
    assert not {"check", "reload", "resume"} & {one for one in daemon.seen if isinstance(one, str)}
    assert sorted(path.name for path in config.parent.iterdir()) == ["conf", "pem", "store"]


def test_a_link_is_judged_where_the_file_is(host, tmp_path):
    daemon, config, certificate, apply = host
    certificate.write_text("former")
    (tmp_path / "elsewhere").mkdir()
    config.rename(tmp_path / "elsewhere/conf")
    config.symlink_to(tmp_path / "elsewhere/conf")
    apply()
    assert daemon.seen[-3] == ("conf", "old", "new", "key")
