"""The hook is installed whole, changes nothing a second time, and goes whole; a stranger's file stays."""

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook import building, installing
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.options import configuration_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import renewal_files
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import PRODUCTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.rows import REPORT_FILES

from tests.support import renewing

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root installs the hook")
PATHS = ("PROGRAM", "CONFIGURATION", "CERTBOT_HOOK", "SERVICE_FILE", "TIMER_FILE")


class Systemd:
    """Answers systemctl, and notes what it was asked to do."""

    def __init__(self, link):
        self.calls, self.link, self.fails = [], link, ""

    def __call__(self, words):
        self.calls.append(" ".join(words))
        if self.fails and self.fails in self.calls[-1]:
            return 1, "", "no bus"
        if words[1] == "enable":
            self.link.parent.mkdir(exist_ok=True)
            self.link.symlink_to("/dev/null")
        if words[1] == "disable":
            self.link.unlink()
        state = "active" if self.link.is_symlink() else "inactive"
        return 0, f"ActiveState={state}\nNeedDaemonReload=no\n", ""

    @property
    def changes(self):
        return [one.split()[1] for one in self.calls if " show " not in one]


@pytest.fixture
def place(tmp_path, monkeypatch, authority):
    """A host below a directory, with systemd and certbot."""
    moved = {name: str(tmp_path / "root") + getattr(renewal_files, name) for name in PATHS}
    recognised = {moved[name]: renewal_files.RECOGNISED[getattr(renewal_files, name)] for name in PATHS}
    for module in (renewal_files, installing):
        for name, path in moved.items():
            monkeypatch.setattr(module, name, path, raising=False)
    order = [moved[name] for name in ("PROGRAM", "CONFIGURATION", "SERVICE_FILE", "TIMER_FILE", "CERTBOT_HOOK")]
    monkeypatch.setattr(renewal_files, "RECOGNISED", {path: recognised[path] for path in order})
    drop_ins = {unit: str(tmp_path / "root") + path for unit, path in renewal_files.DROP_INS.items()}
    monkeypatch.setattr(renewal_files, "DROP_INS", drop_ins)
    monkeypatch.setattr(renewal_files, "UNIT_DIRECTORIES", (str(tmp_path / "units"),))
    for path in drop_ins.values():
        renewal_files.RECOGNISED[path] = renewal_files._is_text_of_ours
    link = tmp_path / "root/etc/systemd/system/timers.target.wants/mailfleet-starttls-renew.timer"
    monkeypatch.setattr(renewal_files, "TIMER_LINK", str(link))
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(renewal_files, "SYSTEMD", str(tmp_path / "run"))
    monkeypatch.setattr(building, "sources", lambda: {building.ENTRY: "x = 1\n"})
    for one in order:
        Path(one).parent.mkdir(parents=True, exist_ok=True)
    with renewing.host(tmp_path, authority) as host:
        yield Place(tmp_path, host.configuration(), Systemd(link), order)


class Place:
    def __init__(self, directory, configuration, systemd, order):
        self.directory, self.configuration, self.systemd, self.order = directory, configuration, systemd, order
        self.program, self.settings, self.service, self.timer, self.certbot = map(Path, order)

    def install(self, check_mode=False, certbot="hook", timer=True, **more):
        store = str(self.directory / "store")
        return installing.install(self.configuration, certbot, timer, self.systemd, check_mode, store, **more)

    def there(self):
        return [path for path in self.order if Path(path).exists()]


@as_root
def test_it_is_installed_and_then_stays_as_it_is(place):
    assert place.install(check_mode=True)["changed"] and place.there() == [] and place.systemd.changes == []
    done = place.install()
    assert done["changed"] and sorted(done["files"]) == sorted(place.there()) == sorted(place.order)
    assert place.systemd.changes == ["daemon-reload", "enable", "restart"]
    assert [one.stat().st_mode & 0o777 for one in (place.program, place.settings, place.certbot, place.timer)] == [
        0o755, 0o600, 0o755, 0o644,
    ]  # fmt: skip
    assert json.loads(place.settings.read_text())["certificates"][0]["name"] == renewing.NAME
    again = place.install()
    assert not again["changed"] and again["diff"] == [] and len(place.systemd.changes) == 3


@as_root
def test_another_version_is_brought_to_this_one(place):
    place.install()
    new = place.program.read_bytes()
    place.program.write_bytes(new.replace(b"x = 1\n", b"x = 0\n"))
    done = place.install()
    assert done["changed"] and place.program.read_bytes() == new
    assert [one["after_header"] for one in done["diff"]] == [str(place.program)]
    assert "the program mailfleet-starttls" in done["diff"][0]["after"] and "x = 1" not in json.dumps(done["diff"])


@as_root
def test_what_starts_it_is_an_option(place):
    place.install()
    done = place.install(certbot="none", timer=False)
    assert done["changed"] and place.there() == [str(place.program), str(place.settings)]
    assert place.systemd.changes[-1] == "disable"


@as_root
@pytest.mark.parametrize("which", range(5))
def test_a_strangers_file_is_not_replaced_or_removed(place, which):
    foreign = Path(place.order[which])
    foreign.write_text("#!/bin/sh\necho mine\n")
    with pytest.raises(EngineError, match="is not a file of this collection, so it is not replaced; move it away"):
        place.install()
    assert place.there() == [str(foreign)]
    assert not installing.uninstall(place.systemd, False, str(place.directory / "store"))["changed"]
    assert foreign.read_text() == "#!/bin/sh\necho mine\n"


@as_root
def test_records_that_could_not_be_looked_up_stay_as_they_are_configured(place):
    """A run that does not know them must not switch the protection off."""
    known = {"name": "_25._tcp.mx1.example.com", "usage": 3, "selector": 1, "matching_type": 1, "data": "ab" * 32}
    layout = next(iter(PRODUCTS["postfix"].layouts))

    def install(**tlsa):
        [entry] = json.loads(place.configuration.text())["certificates"]
        options = {**entry, "ca_content": entry.pop("roots"), "tlsa": None, **tlsa}
        given = {"certificates": [options], "timeout": 20}
        place.configuration = configuration_of(given, "postfix", layout, "", installing.configured())
        place.install()
        return json.loads(place.settings.read_text())["certificates"][0]["tlsa"]

    assert install() == []
    assert install(tlsa=[known]) == [known]
    assert install() == [known]
    place.settings.write_text('{"format": 1, "certificates": [7]}')
    assert installing.configured() is None
    assert install(tlsa=[known]) == [known] and install(tlsa=[]) == []


@as_root
def test_it_goes_whole(place):
    place.install()
    store = str(place.directory / "store")
    assert installing.uninstall(place.systemd, True, store)["changed"] and len(place.there()) == 5
    assert installing.uninstall(place.systemd, False, store)["changed"] and place.there() == []
    assert place.systemd.changes[-2:] == ["disable", "daemon-reload"]
    assert not place.settings.parent.exists()
    assert not installing.uninstall(place.systemd, False, store)["changed"]


def shown_at(path, text="# HELP mailfleet_starttls_renewal_status Exit status"):
    """The file that a renewal has left for node-exporter, in the directory of the user of that."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{text}\n")
    os.chown(path.parent, 54321, 54321)
    return path


def with_textfile(place, path):
    place.configuration = dataclasses.replace(place.configuration, textfile=str(path))
    return place.install()


@as_root
def test_the_file_for_node_exporter_goes_with_it(place):
    path = shown_at(place.directory / "collector" / "renewal.prom")
    store = str(place.directory / "store")
    with_textfile(place, path)
    assert path.exists() and not place.install()["changed"]
    for check_mode in (True, False):
        done = installing.uninstall(place.systemd, check_mode, store)
        assert str(path) in [one["after_header"] for one in done["diff"]] and path.exists() == check_mode
    shown_at(path, "# HELP mailfleet_starttls_hosts Of a report")
    with_textfile(place, path)
    installing.uninstall(place.systemd, False, store)
    assert path.exists() and place.there() == []


@as_root
def test_the_file_for_node_exporter_goes_where_another_is_named(place):
    old, report = (shown_at(place.directory / "collector" / f"{one}.prom") for one in ("old", "report"))
    with_textfile(place, old)
    done = with_textfile(place, place.directory / "collector" / "new.prom")
    assert not old.exists() and str(old) in [one["after_header"] for one in done["diff"]]
    assert report.exists() and not place.install()["changed"]


@as_root
def test_a_link_in_the_place_of_that_file_is_not_followed(place):
    path = shown_at(place.directory / "collector" / "renewal.prom")
    mine = shown_at(place.directory / "mine" / "renewal.prom")
    with_textfile(place, path)
    path.unlink()
    path.symlink_to(mine)
    installing.uninstall(place.systemd, False, str(place.directory / "store"))
    assert mine.exists() and place.there() == []


def test_the_report_has_another_name_for_node_exporter(tmp_path, monkeypatch):
    monkeypatch.setattr(installing, "COLLECTOR", str(tmp_path))
    path = Path(installing.textfile_of("auto"))
    assert path.parent == tmp_path and path.name not in REPORT_FILES.values()
    assert path.name == "mailfleet_starttls_renewal.prom"


@as_root
def test_a_file_that_cannot_be_looked_at_keeps_no_other_one_there(place):
    """/etc/letsencrypt of another user: whoever that is could have put anything there."""
    place.install()
    os.chown(place.certbot.parent, 65534, 65534)
    done = installing.uninstall(place.systemd, False, str(place.directory / "store"))
    assert done["changed"] and place.there() == [str(place.certbot)]
    assert "disable" in place.systemd.changes
    [said] = done["warnings"]
    assert str(place.certbot) in said and "remove it by hand" in said


@as_root
def test_what_fails_leaves_nothing(place):
    place.systemd.fails = "enable"
    with pytest.raises(EngineError, match=r"systemctl enable mailfleet-starttls-renew\.timer failed: no bus"):
        place.install()
    assert place.there() == []


@as_root
def test_a_configuration_of_a_newer_version_is_refused(place):
    place.settings.write_text('{"format": 9, "certificates": []}')
    with pytest.raises(EngineError, match=r"was written by a newer mailfleet\.starttls"):
        place.install()
    assert place.there() == [str(place.settings)]


@as_root
def test_a_host_without_systemd_has_no_timer_and_is_told(place, monkeypatch):
    monkeypatch.setattr(renewal_files, "SYSTEMD", "/nonexistent")
    done = place.install()
    assert "call it from cron" in done["warnings"][0] and str(place.timer) not in place.there()
    assert place.systemd.calls == [] and not place.install()["changed"]


@pytest.fixture(scope="module")
def found():
    return building.sources()


def test_the_same_files_make_the_same_program(found):
    assert building.build(found, "/usr/bin/python3") == building.build(
        dict(reversed(found.items())), "/usr/bin/python3"
    )


def test_the_program_runs_alone(tmp_path, found):
    program = tmp_path / "mailfleet-starttls"
    program.write_bytes(building.build(found, sys.executable))
    program.chmod(0o755)
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, cwd="/", env={})
    assert done.stdout == f"mailfleet-starttls {installing.VERSION}\n"
    missing = tmp_path / "renewal.json"
    done = subprocess.run(
        [program, "check", "--configuration", missing], capture_output=True, text=True, check=False, cwd="/", env={}
    )
    assert (done.returncode, done.stdout) == (
        3,
        f"STARTTLS UNKNOWN - {missing} is not there; the module renewal_hook writes it\n",
    )
    with zipfile.ZipFile(program) as archive:
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.exhaustive
def test_it_is_made_of_a_payload_too(tmp_path, found):
    """On a host, Ansible's modules lie in a zip."""
    payload = tmp_path / "payload.zip"
    with zipfile.ZipFile(payload, "w") as archive:
        for name, text in found.items():
            parts = name.split(".")
            for depth in range(1, len(parts)):
                place = "/".join(parts[:depth]) + "/__init__.py"
                if place not in archive.namelist():
                    archive.writestr(place, "")
            archive.writestr("/".join(parts) + ".py", text)
    code = (
        "import sys, hashlib; from ansible_collections.mailfleet.starttls.plugins.module_utils._hook import building;"
        "print(hashlib.sha256(building.build(building.sources(), '/usr/bin/python3')).hexdigest())"
    )
    # building itself is no part of the program
    with zipfile.ZipFile(payload, "a") as archive:
        archive.writestr(building.__name__.replace(".", "/") + ".py", Path(building.__file__).read_text())
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path[:0] = [{str(payload)!r}]; {code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == hashlib.sha256(building.build(found, "/usr/bin/python3")).hexdigest(), done.stderr


def with_certbot(place, unit):
    """Certbot's unit, and the roots of an authority of one's own."""
    (place.directory / "units").mkdir()
    (place.directory / "units" / unit).touch()
    roots = place.directory / "acme.pem"
    roots.write_text("roots of the authority\n")
    return roots, Path(renewal_files.DROP_INS[unit])


@as_root
@pytest.mark.parametrize("unit", renewal_files.CERTBOT_UNITS)
def test_certbot_reaches_an_authority_with_roots_of_its_own_when_systemd_starts_it(place, unit):
    roots, addition = with_certbot(place, unit)
    done = place.install(acme_ca_file=str(roots))
    assert str(addition) in done["files"] and not done["warnings"]
    text = addition.read_text()
    assert "Environment=REQUESTS_CA_BUNDLE=/run/mailfleet-starttls/acme-roots.pem\n" in text
    assert text.rstrip().endswith(f'"{roots}"')
    assert not place.install(acme_ca_file=str(roots))["changed"]
    # Without them, or without the hook, it goes, and systemd is told.
    place.systemd.calls.clear()
    assert place.install()["changed"] and not addition.exists() and place.systemd.changes == ["daemon-reload"]
    place.install(acme_ca_file=str(roots))
    installing.uninstall(place.systemd, False, str(place.directory / "store"))
    assert not addition.exists() and not addition.parent.exists()


@as_root
def test_what_else_starts_certbot_needs_the_roots_too(place):
    roots = place.directory / "acme.pem"
    roots.write_text("roots\n")
    warning = place.install(acme_ca_file=str(roots))["warnings"][0]
    assert "neither certbot.service nor certbot-renew.service renews here" in warning
    assert f"REQUESTS_CA_BUNDLE={roots} in its environment" in warning
    assert not place.install(certbot="none", acme_ca_file=str(roots))["warnings"]


@as_root
@pytest.mark.parametrize("path", ["/etc/no/such.pem", "roots.pem", "/etc/a\nExecStart=/bin/x"])
def test_roots_that_are_not_there_are_refused_by_the_name_of_the_option(place, path):
    with pytest.raises(EngineError, match="acme_ca_file: "):
        place.install(acme_ca_file=path)
    assert place.there() == []


@pytest.mark.parametrize("name", ["roots.pem", 'a "b" c.pem', "$HOME.pem", "%h.pem", "back\\slash.pem", "it's.pem"])
def test_a_path_in_a_unit_is_one_word_that_means_itself(name):
    line = renewal_files.drop_in_text([f"/etc/{name}"]).splitlines()[-1]
    assert line.startswith("ExecStartPre=/bin/sh -c 'cat -- \"$$@\" >/run/mailfleet-starttls/acme-roots.pem' sh ")
    # Read as systemd does: quotes and backslashes of the word, then $$ and %%.
    word = re.fullmatch(r'"((?:[^"\\]|\\.)*)"', line.partition("' sh ")[2])[1]
    assert re.sub(r"\\(.)|\$(\$)|%(%)", lambda one: one[1] or one[2] or one[3], word) == f"/etc/{name}"
