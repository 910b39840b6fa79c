"""Who can read a file by its mode bits."""

import os
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.readers import can_read


class TestCanRead:
    """Over a tree whose owner runs the tests, asked for users who are not that owner."""

    OTHER = 54321
    GROUP = 54322

    @pytest.fixture
    def tree(self, tmp_path, monkeypatch):
        directory = tmp_path / "certs"
        directory.mkdir(mode=0o755)
        file = directory / "key.pem"
        file.write_text("pem")
        # pytest keeps the directories above for their owner only.
        whole = Path.stat

        def stat(path, **kwargs):
            status = whole(path, **kwargs)
            above = path != directory and path != file
            return os.stat_result([0o40755, *list(status)[1:]]) if above else status

        monkeypatch.setattr(Path, "stat", stat)
        return file

    @pytest.mark.parametrize(
        ("mode", "owner", "group", "others"),
        [
            (0o600, True, False, False),
            (0o640, True, True, False),
            (0o644, True, True, True),
            (0o040, False, True, False),
            (0o004, False, False, True),
        ],
    )
    def test_the_files_bits_decide(self, tree, mode, owner, group, others):
        tree.chmod(mode)
        status = os.stat(tree)
        assert can_read(str(tree), status.st_uid, []) is owner
        assert can_read(str(tree), self.OTHER, [self.GROUP, status.st_gid]) is group
        assert can_read(str(tree), self.OTHER, [self.GROUP]) is others

    @pytest.mark.parametrize(("mode", "others"), [(0o711, True), (0o755, True), (0o700, False), (0o744, False)])
    def test_so_do_those_of_the_directory(self, tree, mode, others):
        tree.chmod(0o644)
        tree.parent.chmod(mode)
        assert can_read(str(tree), self.OTHER, []) is others

    def test_a_link_is_followed(self, tree, tmp_path):
        tree.chmod(0o600)
        link = tmp_path / "link.pem"
        link.symlink_to(tree)
        assert can_read(str(link), os.getuid(), [])
        assert not can_read(str(link), self.OTHER, [])

    def test_it_agrees_with_the_kernel(self, tmp_path):
        file = tmp_path / "mine.pem"
        file.write_text("pem")
        file.chmod(0o400)
        assert can_read(str(file), os.getuid(), os.getgroups()) == os.access(file, os.R_OK)
