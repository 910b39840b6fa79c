"""The move of Debian's unsplit configuration of Exim to the split one."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import scheme
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.exim_host import EximHost

HUBBED = "router/150_exim4-config_hubbed_hosts"


@pytest.fixture
def host(monkeypatch, tmp_path):
    return EximHost(monkeypatch, tmp_path, False, "dc_other_hostnames='a.example'\n")


def move(host):
    return scheme.move(host.run, scheme.Paths(str(host.etc), str(host.settings), str(host.directory)))


def moved(host):
    """Move the host; the files of it that are new or other than before, without the directory."""
    before, generated = host.files(), host.compose()
    for image in move(host):
        image.write()
    before_and_after = (
        [one for one in text.splitlines() if one and one[0] != "#"] for text in (generated, host.compose())
    )
    assert next(before_and_after) == next(before_and_after)
    return {path.removeprefix(f"{host.etc}/") for path, text in host.files().items() if before.get(path) != text}


def refusal(host):
    before = host.files()
    with pytest.raises(EngineError) as error:
        move(host)
    assert host.files() == before
    return str(error.value).replace(str(host.etc), "/etc/exim4")


def test_only_the_settings_and_the_local_macros_change(host):
    host.macros.write_text("MINE = 1\n")
    host.macros.chmod(0o640)
    assert moved(host) == {"update-exim4.conf.conf", "conf.d/main/000_localmacros"}
    assert host.settings.read_text() == "dc_use_split_config='true'\ndc_other_hostnames='a.example'\n"
    assert (host.macros.read_text(), host.macros.stat().st_mode & 0o777) == ("MINE = 1\n", 0o640)


def test_settings_without_the_line_get_it(host):
    host.settings.write_text("dc_other_hostnames='a.example'")
    assert moved(host) == {"update-exim4.conf.conf", "conf.d/main/000_localmacros"}
    assert host.split


def test_a_part_that_somebody_changed_is_carried_over_without_a_change_of_debians_file(host):
    text = host.template.read_text()
    assert "  transport = remote_smtp\n" in text
    host.template.write_text(text.replace("hubbed_hosts:\n", "hubbed_hosts:\n  errors_to = me@example.com\n", 1))
    assert moved(host) == {"update-exim4.conf.conf", "conf.d/main/000_localmacros", f"conf.d/{HUBBED}.rul"}
    assert "errors_to = me@example.com" in (host.etc / f"conf.d/{HUBBED}.rul").read_text()


def test_a_part_that_somebody_added_becomes_a_file(host):
    (host.etc / "conf.d/router/110_site").write_text("site:\n  driver = accept\n")
    host.make_template()
    (host.etc / "conf.d/router/110_site").unlink()
    assert moved(host) == {"update-exim4.conf.conf", "conf.d/main/000_localmacros", "conf.d/router/110_site"}


def test_a_changed_file_that_exim_does_not_read_is_left_out(host):
    """The template counts now, so what it has counts after the move."""
    (host.etc / f"conf.d/{HUBBED}").write_text("other:\n  driver = accept\n")
    assert f"conf.d/{HUBBED}.rul" in moved(host)


@pytest.mark.parametrize("name", ["router/110_site", "main/01_site"])
def test_a_file_that_exim_does_not_read_yet(host, name):
    (host.etc / "conf.d" / name).write_text("# x\n")
    assert refusal(host).startswith(f"/etc/exim4/conf.d/{name}: Exim does not read such a file now, and with the split")


def test_local_macros_that_exim_does_not_read_yet(host):
    (host.etc / "conf.d/main/000_localmacros").write_text("MAIN_TLS_ENABLE = yes\n")
    assert refusal(host).startswith("/etc/exim4/conf.d/main/000_localmacros exists, and Exim does not read it now")


def test_another_rule_for_a_changed_part(host):
    host.template.write_text(host.template.read_text().replace("hubbed_hosts:\n", "hubbed_hosts:\n  unseen\n", 1))
    (host.etc / f"conf.d/{HUBBED}.rul").write_text("other:\n")
    assert refusal(host).startswith(f"/etc/exim4/conf.d/{HUBBED}.rul differs from the part {HUBBED} of")


def test_another_order(host):
    parts = scheme._PART.finditer(host.template.read_text())
    host.template.write_text("".join(reversed([one[0] for one in parts])))
    assert refusal(host).endswith(
        "would not read the same from /etc/exim4/conf.d as from /etc/exim4/exim4.conf.template (the order differs); make them alike, "
        "or move the configuration yourself"
    )


def test_a_template_between_whose_parts_somebody_wrote(host):
    text = host.template.read_text()
    host.template.write_text(f"{text}\nserver_secret:\n  password = x\n")
    assert (
        "has lines outside of the parts that Debian makes it of, so it cannot be moved as it is: server_secret:;"
        in refusal(host)
    )


def test_a_template_that_exim_cannot_read(host):
    usual = host.run
    host.run = lambda words: (1, "", "bad\n") if words[3:] == ["-bP", "config"] else usual(words)
    assert refusal(host) == "the split configuration cannot be tried: bad"
