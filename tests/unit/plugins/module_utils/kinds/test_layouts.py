"""Which layout a host has: its program and configuration decide, and os-release only between those that are both there."""

from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds import product as registry
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import PRODUCTS

RELEASES = Path(__file__).with_name("os_release")
FAMILIES = {
    "debian12": "Debian", "ubuntu24": "Debian", "mint21": "Debian", "rhel9": "Red Hat family", "rocky9": "Red Hat family",
    "alma8": "Red Hat family", "oracle9": "Red Hat family", "amazon2023": "Red Hat family", "fedora42": "Red Hat family",
    "sles15": "SUSE", "leap15": "SUSE", "tumbleweed": "SUSE", "alpine322": "Alpine", "freebsd14": "FreeBSD",
    "arch": "Arch",
}  # fmt: skip


def host(root, kind, platform):
    """Put program and configuration of a platform below a directory; return all layouts as they are there."""
    moved = [
        replace(
            one,
            programs=tuple(f"{root}{path}" for path in one.programs),
            config_file=f"{root}{one.config_file}",
            sign=one.sign and f"{root}{one.sign}",
        )
        for one in PRODUCTS[kind].layouts
    ]
    layout = next(one for one in moved if one.platform == platform)
    for path in (layout.programs[0], layout.config_file):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    return moved


@pytest.mark.parametrize("kind", ["postfix", "exim"])
@pytest.mark.parametrize("release", FAMILIES)
def test_recorded_releases(tmp_path, kind, release):
    found = registry.layout_here(host(tmp_path, kind, FAMILIES[release]), str(RELEASES / release))
    assert found is not None and found.platform == FAMILIES[release]


@pytest.mark.parametrize("kind", ["postfix", "exim"])
@pytest.mark.parametrize("text", ["", "ID=homemade\n", 'ID="\x00', None])
def test_without_a_known_release_what_is_there_decides(tmp_path, kind, text):
    release = tmp_path / "os-release"
    if text is not None:
        release.write_text(text)
    for platform in ("FreeBSD", "Debian"):
        root = tmp_path / platform
        found = registry.layout_here(host(root, kind, platform), str(release))
        assert found is not None and found.platform == platform


def test_the_release_does_not_outweigh_what_is_there(tmp_path):
    """Such as a Postfix from a FreeBSD-like tree on a Debian."""
    found = registry.layout_here(host(tmp_path, "exim", "Arch"), str(RELEASES / "debian12"))
    assert found is not None and found.config_file.endswith("/etc/mail/exim.conf")


def test_a_file_written_by_hand_precedes_the_generated_one(tmp_path):
    layouts = host(tmp_path, "exim", "Debian")
    assert not registry.layout_here(layouts, "").plain
    hand = next(one for one in layouts if one.sign)
    Path(hand.config_file).touch()
    assert registry.layout_here(layouts, "") == hand
    assert hand.plain


@pytest.mark.parametrize("kind", ["postfix", "exim"])
def test_every_layout_says_where_it_belongs(kind):
    for one in PRODUCTS[kind].layouts:
        assert one.families and one.config_file.startswith(one.config_dir.rpartition("/")[0]), one.platform
        assert one.programs and all(path.startswith("/") for path in (*one.programs, *one.logs, one.ca_bundle))
