"""What one host shows of its mail server, and what a change would do there: read, and nothing touched."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import facts, sockets
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import reading as module
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, PortInUseError

from tests.support.fake_mail import BRIEF, NAME, FakeMail
from tests.support.smtp_server import PLAIN, Face, refused_port, server_context, serving

LISTENING, GETEUID = sockets.listening, os.geteuid
PROGRAM = Path("/proc/self/exe").resolve().name
NOTHING = {
    "before": None,
    "after": None,
    "changes": [],
    "offer": False,
    "reload": False,
    "digests": {},
    "next_hops": None,
    "reach": None,
}
PARTS = {
    "health", "listeners", "transports", "sockets", "certificates", "disk", "journal", "left", "activity", "version", "probe", "obstacles",
    "send_only", "notes", "tls_words", "listener_tests",
    *NOTHING,
}  # fmt: skip
as_root = pytest.mark.skipif(GETEUID() != 0, reason="only root gives files away")
PLENTY = [{"path": "/etc", "free_bytes": 1 << 30, "free_inodes": 1000}]


@pytest.fixture
def mail(tmp_path, authority, monkeypatch):
    server = FakeMail(tmp_path, authority)
    server.asked = []  # what sockets were asked for
    server.programs = lambda: [sockets.Socket(server.port.host, server.port.port, os.getpid(), PROGRAM)]

    def listening(programs, ports, users):
        assert users is None
        server.asked.append((list(programs), set(ports)))
        return server.programs()

    monkeypatch.setattr(sockets, "listening", listening)
    monkeypatch.setattr(facts, "disk_space", lambda _paths: PLENTY)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    yield server
    server.port.close()


def read(mail, inbound=None, outbound=None, **options):
    """What the host shows. Nothing on it is touched."""
    before = {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in mail.directory.rglob("*") if path.is_file()
    }
    result = mail.read(inbound, outbound, **options)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in mail.directory.rglob("*") if path.is_file()}
    assert after == before
    assert not {"check", "reload", "resume"} & set(mail.calls)
    assert set(result) == PARTS
    assert json.loads(json.dumps(result)) == result
    return result


def change_of(result):
    return {name: result[name] for name in NOTHING}


def codes(result):
    return [one["code"] for one in result["obstacles"]]


# What is there


def test_a_server_that_runs(mail):
    mail.start("offered", "opportunistic")
    result = read(mail)
    assert result["health"] == {"state": "running", "running": True, "message": ""}
    assert result["version"] == "1.2.3"
    [listener] = result["listeners"]
    assert (listener["port"], listener["tls"], listener["certificates"]) == (
        mail.port.port, "offered", [str(mail.certificate)],
    )  # fmt: skip
    assert [one["level"] for one in result["transports"]] == ["opportunistic"]
    assert result["sockets"] == [{"host": "127.0.0.1", "port": mail.port.port, "pid": os.getpid(), "program": PROGRAM}]
    assert [one["fingerprint_sha256"] for one in result["probe"]["results"]] == [mail.fingerprint]
    assert (result["obstacles"], result["notes"], result["journal"]) == ([], [], None)


def test_nothing_is_computed_if_nothing_is_wanted(mail, monkeypatch):
    monkeypatch.setattr(mail, "plan", lambda _desired: pytest.fail("a plan was made"))
    assert change_of(read(mail)) == NOTHING


def test_what_cannot_be_wanted_is_refused(mail):
    for wrong in ({"inbound": "on"}, {"certificate": "relative.pem"}, {"own_port": Target("a b")}):
        with pytest.raises(EngineError):
            mail.read(**wrong)
    assert mail.calls == []


WRONG = {
    "stopped": ("stopped", "daemon_not_running", "fakemail does not run; start it"),
    "broken": ("broken", "configuration_broken", "fakemail cannot read its settings: line 3; correct them"),
    "missing": ("missing", "change_refused", "fakemail is not installed; install it"),
}


@pytest.mark.parametrize(("process", "runs"), [(812, True), (None, False), (EngineError("?"), None)])
def test_a_broken_configuration_and_whether_the_daemon_runs_are_two_facts(mail, monkeypatch, process, runs):
    def main_process():
        if isinstance(process, Exception):
            raise process
        return process

    mail.broken = "line 3"
    monkeypatch.setattr(mail, "main_process", main_process)
    health = read(mail, settings=BRIEF)["health"]
    assert health == {"state": "broken", "running": runs, "message": WRONG["broken"][2]}


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("wanted", [{}, {"inbound": "offered"}, {"outbound": "required"}])
def test_a_server_that_does_not_run(mail, fault, wanted):
    """The rest is read all the same; it stands in the way only of those who want a change."""
    setattr(mail, fault, "line 3")
    mail.port.close()
    state, code, message = WRONG[fault]
    result = read(mail, **wanted, settings=BRIEF)
    runs = {"stopped": False, "broken": True, "missing": None}[state]
    assert result["health"] == {"state": state, "running": runs, "message": message}
    assert result["obstacles"] == ([{"code": code, "message": message}] if wanted else [])
    assert change_of(result) == NOTHING
    assert result["version"] == ("1.2.3" if fault == "stopped" else "")
    assert (result["listeners"] is None) is (fault == "broken")
    assert ("observe" in mail.calls) is (fault != "broken")
    assert (result["disk"], result["sockets"] is None) == (PLENTY, False)
    assert result["notes"] == []  # a stopped daemon's listeners are silent, and that is no finding
    [own] = result["probe"]["results"]
    assert (own["completed"], own["code"]) == (False, "connect_failed")


@pytest.mark.parametrize("wanted", [{}, {"inbound": "offered"}])
def test_a_server_that_runs_and_does_not_answer(mail, wanted):
    mail.port.close()
    result = read(mail, **wanted, settings=BRIEF)
    assert result["health"]["state"] == "running"
    assert codes(result) == (["not_answering"] if wanted else [])
    if wanted:
        assert (
            f"no mail server answers on 127.0.0.1:{mail.port.port}: cannot connect" in result["obstacles"][0]["message"]
        )
        assert result["changes"] != []  # what would change is known all the same


def test_listeners_that_cannot_be_read(mail, monkeypatch):
    def observe():
        raise EngineError("no words")

    monkeypatch.setattr(mail, "observe", observe)
    result = read(mail, "offered")
    assert (result["listeners"], result["transports"]) == (None, None)
    assert result["notes"] == [{"code": "listeners_not_read", "message": "no words"}]
    assert (result["obstacles"], result["offer"], result["sockets"] is None) == ([], True, False)


@pytest.mark.parametrize("wanted", [{}, {"inbound": "offered"}])
def test_without_privilege(mail, monkeypatch, wanted):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = read(mail, **wanted)
    assert codes(result) == (["no_privilege"] if wanted else [])
    if wanted:
        assert "set become: true" in result["obstacles"][0]["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("wanted", [{}, {"inbound": "offered"}])
def test_without_the_right_to_look_the_rest_is_read_all_the_same(mail, monkeypatch, wanted):
    """A second run without become finds a store that only root may enter. Here that is so of all files of the server."""
    monkeypatch.setattr(os, "geteuid", GETEUID)
    mail.set("offered")
    mail.directory.chmod(0o700)
    os.seteuid(65534)
    try:
        result = mail.read(**wanted, settings=BRIEF)
    finally:
        os.seteuid(0)
    assert codes(result)[:1] == (["no_privilege"] if wanted else [])
    assert set(codes(result)) <= {"no_privilege", "change_refused"}
    assert (result["journal"], result["left"], result["certificates"]) == (None, [], [])
    assert (result["health"]["state"], result["probe"]["results"][0]["completed"]) == ("running", True)
    assert change_of(result) == NOTHING


@pytest.mark.parametrize("wanted", [{}, {"inbound": "offered"}])
def test_a_server_that_may_not_be_looked_at(mail, monkeypatch, wanted):
    def closed(*_arguments):
        raise PermissionError(13, "Permission denied", "/var/spool/pid")

    for name in ("require_running", "observe", "state"):
        monkeypatch.setattr(mail, name, closed)
    result = read(mail, **wanted)
    said = "/var/spool/pid: Permission denied"
    assert result["health"] == {"state": "unknown", "running": None, "message": said}
    assert result["notes"] == [{"code": "listeners_not_read", "message": said}]
    assert result["obstacles"] == ([{"code": "change_refused", "message": said}] if wanted else [])
    assert change_of(result) == NOTHING


# Sockets


def test_the_ports_of_listeners_and_of_mail_are_looked_at(mail):
    read(mail)
    [(_programs, ports)] = mail.asked
    assert ports == {*sockets.MAIL_PORTS, mail.port.port}


def test_the_real_sockets_of_this_process(mail, monkeypatch):
    monkeypatch.setattr(sockets, "listening", LISTENING)
    found = [one for one in read(mail)["sockets"] if one["port"] == mail.port.port]
    assert found == [{"host": "127.0.0.1", "port": mail.port.port, "pid": os.getpid(), "program": PROGRAM}]


def test_sockets_that_this_host_does_not_show(mail):
    mail.programs = lambda: None
    result = read(mail)
    assert (result["sockets"], result["notes"]) == (None, [])


@pytest.fixture
def compared(monkeypatch):
    """What listeners and sockets are compared with each other."""
    calls = []

    def compare(listeners, found, programs, others):
        calls.append((listeners, found, programs, others))
        return [{"code": "stranger_on_mail_port", "message": "x"}]

    monkeypatch.setattr(sockets, "compare", compare)
    return calls


def test_sockets_are_compared_with_listeners(mail, compared):
    mail.other_places = [["127.0.0.1", 10023], ["", None]]
    result = read(mail)
    assert result["notes"] == [{"code": "stranger_on_mail_port", "message": "x"}]
    [(listeners, found, _programs, others)] = compared
    assert [one.to_json() for one in listeners] == result["listeners"]
    assert [one.to_json() for one in found] == result["sockets"]
    assert others == [("127.0.0.1", 10023), ("", None)]


def test_the_sockets_of_another_instance_are_not_this_ones(mail, compared, monkeypatch):
    """It has a configuration of its own. What is shown names its process all the same."""
    there = [
        sockets.Socket("", 2525, 1234, PROGRAM),
        sockets.Socket("", 25, os.getpid(), PROGRAM),
        sockets.Socket("", 587, 99, "nc"),
    ]
    mail.programs = lambda: there
    result = read(mail)
    assert [one["pid"] for one in result["sockets"]] == [1234, os.getpid(), 99]
    [(_listeners, found, _programs, _others)] = compared
    assert [(one.port, one.pid) for one in found] == [(2525, None), (25, os.getpid()), (587, 99)]


@pytest.mark.parametrize("fault", WRONG)
def test_nothing_is_compared_unless_the_server_runs(mail, compared, fault):
    setattr(mail, fault, "line 3")
    read(mail)
    assert compared == []


# What a change would do


def test_what_would_change(mail):
    result = read(mail, "offered", "opportunistic")
    assert (result["before"], result["after"]) == (
        {"inbound": "disabled", "outbound": "disabled"}, {"inbound": "offered", "outbound": "opportunistic"},
    )  # fmt: skip
    [change] = result["changes"]
    assert change["path"] == str(mail.config)
    assert "-inbound=disabled\n" in change["lines"] and "+inbound=offered\n" in change["lines"]
    assert "hunter2" not in str(result)
    assert (result["offer"], result["reload"], result["obstacles"], result["next_hops"]) == (True, False, [], None)
    assert result["digests"] == facts.digests([str(mail.config), str(mail.certificate)])


def test_the_change_that_is_made_is_the_one_that_was_read(mail):
    result = read(mail, "offered", "opportunistic")
    outcome = mail.set("offered", "opportunistic", digests=result["digests"])
    assert outcome.diff == [{"prepared": one["lines"]} for one in result["changes"]]
    assert (outcome.before, outcome.after) == (result["before"], result["after"])
    again = read_after_a_change(mail, "offered", "opportunistic")
    assert (again["changes"], again["offer"], again["reload"]) == ([], False, False)
    assert again["digests"] == outcome.digests


def read_after_a_change(mail, *wanted, **options):
    mail.calls.clear()
    return read(mail, *wanted, **options)


@pytest.mark.parametrize("state", ["disabled", "offered", "required"])
def test_nothing_where_all_is_as_wanted(mail, state):
    mail.start(state)
    result = read(mail, state)
    assert (result["changes"], result["offer"], result["reload"]) == ([], False, False)
    assert result["before"] == result["after"] == {"inbound": state, "outbound": "disabled"}
    assert result["digests"] != {}


@pytest.mark.parametrize(
    ("now", "outbound", "offer"),
    [
        ("disabled", None, True),
        ("offered", None, False),  # the first step has nothing to do on such a host
        ("offered", "opportunistic", True),
        ("required", None, False),
        ("required", "opportunistic", True),
    ],
)
def test_tls_is_offered_before_it_is_required(mail, now, outbound, offer):
    """The lines are those of the whole change. offer says whether the first step, which only offers TLS, changes anything."""
    mail.start(now)
    result = read(mail, "required", outbound)
    assert (result["offer"], result["after"]["inbound"]) == (offer, "required")
    assert bool(result["changes"]) is (now != "required" or outbound is not None)
    assert result["reload"] is False


@pytest.mark.parametrize("now", ["offered", "required"])
@pytest.mark.parametrize("wanted", ["offered", "required"])
def test_a_reload_is_needed_if_another_certificate_is_served(mail, authority, now, wanted):
    mail.start(now)
    mail.install(authority.issue([NAME]))
    result = read(mail, wanted, relax=False)
    assert result["offer"] is True
    assert result["reload"] is True
    assert bool(result["changes"]) is (now != wanted == "required")
    assert codes(result) == []


def test_required_stays_where_offered_may_not_relax_it(mail):
    mail.start("required")
    result = read(mail, "offered", relax=False)
    assert (result["after"]["inbound"], result["changes"], result["offer"]) == ("required", [], False)
    assert read(mail, "offered")["after"]["inbound"] == "offered"


def test_only_relaxing(mail, authority):
    mail.start("offered").install(authority.issue([NAME]))
    result = read(mail, "offered", only_relax=True)
    assert (result["after"]["inbound"], result["changes"], result["offer"], result["reload"]) == (
        "offered",
        [],
        False,
        False,
    )


# Certificates


def renewal(mail, issued):
    """The wanted certificate as a read gets it."""
    return dataclasses.replace(mail.renewal(issued), content=None)


def test_a_certificate_that_would_be_installed(mail, authority):
    mail.start("offered")
    former = mail.certificate.read_text()
    bundle = renewal(mail, authority.issue([NAME]))
    result = read(mail, "offered", bundle=bundle)
    [change] = result["changes"]
    assert set(change) == {
        "path",
        "before",
        "after",
        "before_header",
        "after_header",
        "previous_certificate",
    }
    assert change["path"] == str(mail.certificate)
    assert f"certificate sha256: {mail.fingerprint}\n" in change["before"]
    assert f"certificate sha256: {bundle.fingerprints[0]}\n" in change["after"]
    assert change["previous_certificate"] in former and "PRIVATE KEY" not in str(result)
    assert (result["offer"], result["reload"], codes(result)) == (True, False, [])


def test_it_comes_before_the_settings(mail, authority):
    result = read(mail, "offered", bundle=renewal(mail, authority.issue([NAME])))
    assert [one["path"] for one in result["changes"]] == [str(mail.certificate), str(mail.config)]


def test_a_certificate_that_is_there(mail, authority):
    issued = authority.issue([NAME])
    mail.install(issued)
    mail.certificate.chmod(0o600)
    mail.start("offered")
    result = read(mail, "offered", bundle=renewal(mail, issued))
    assert (result["changes"], result["offer"], result["reload"]) == ([], False, False)


def test_no_certificate_yet_and_none_to_install(mail):
    mail.certificate.unlink()
    result = read(mail, "offered")
    assert codes(result) == ["certificate_missing"]
    assert f"there is no certificate at {mail.certificate}; name one to install" in result["obstacles"][0]["message"]
    assert (result["offer"], result["digests"][str(mail.certificate)]) == (True, "absent")
    assert result["certificates"] == []


def test_no_certificate_yet_and_one_to_install(mail, authority):
    mail.certificate.unlink()
    result = read(mail, "offered", bundle=renewal(mail, authority.issue([NAME])))
    assert codes(result) == []
    assert (result["changes"][0]["before"], result["changes"][0]["previous_certificate"]) == ("", None)


def test_no_certificate_is_needed_to_switch_off(mail):
    mail.start("offered")
    mail.certificate.unlink()
    result = read(mail, "disabled")
    assert (codes(result), result["after"]["inbound"]) == ([], "disabled")
    assert result["certificates"][0]["message"] == "there is no such file"  # it is still named in the settings


def test_a_certificate_that_cannot_be_used(mail):
    mail.certificate.write_text("nonsense")
    result = read(mail, "offered")
    assert codes(result) == ["change_refused"]
    assert "cannot be used" in result["obstacles"][0]["message"]
    assert change_of(result) == {**NOTHING, "before": {"inbound": "disabled", "outbound": "disabled"}}


def test_a_certificate_that_this_host_cannot_take(mail, authority):
    bundle = dataclasses.replace(renewal(mail, authority.issue([NAME])), group="no-such-group")
    result = read(mail, "offered", bundle=bundle)
    assert codes(result) == ["change_refused"]
    assert "group no-such-group does not exist on this host" in result["obstacles"][0]["message"]


def test_what_certificates_are_looked_at(mail, authority, monkeypatch):
    """Those that the listeners serve, also if there is no such file, and the wanted one. What is no path is none."""
    mail.start("offered")
    other = mail.directory / "gone.pem"
    observe = mail.observe
    served = [str(mail.certificate), str(other), "snakeoil", str(mail.certificate)]
    monkeypatch.setattr(
        mail, "observe", lambda: {**observe(), "listeners": [{**observe()["listeners"][0], "certificates": served}]}
    )
    result = read(mail)
    assert [(one["path"], bool(one["pem"]), one["message"]) for one in result["certificates"]] == [
        (str(mail.certificate), True, ""), (str(other), False, "there is no such file"),
    ]  # fmt: skip
    assert "PRIVATE KEY" not in str(result)


def test_the_settings_cannot_be_planned(mail, monkeypatch):
    def plan(_desired):
        raise EngineError("somebody else's line")

    monkeypatch.setattr(mail, "plan", plan)
    result = read(mail, "offered")
    assert result["obstacles"] == [{"code": "change_refused", "message": "somebody else's line"}]
    assert result["before"] == {"inbound": "disabled", "outbound": "disabled"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "/etc/x"), "/etc/x: Permission denied"),
        (OSError("odd"), "the host: odd"),
    ],
)
def test_a_file_that_cannot_be_read(mail, monkeypatch, error, message):
    def state():
        raise error

    monkeypatch.setattr(mail, "state", state)
    result = read(mail, "offered")
    assert result["obstacles"] == [{"code": "change_refused", "message": message}]
    assert change_of(result) == NOTHING


# The host


def test_a_disk_that_is_full(mail, monkeypatch):
    monkeypatch.setattr(
        facts, "disk_space", lambda paths: [{"path": next(iter(paths)), "free_bytes": 0, "free_inodes": 9}]
    )
    assert codes(read(mail)) == []
    result = read(mail, "offered")
    assert codes(result) == ["no_disk_space"]
    assert f"the file system of {mail.config} has 0 KiB free" in result["obstacles"][0]["message"]
    assert result["changes"] != []


def test_where_a_change_writes(mail, monkeypatch):
    asked = []
    monkeypatch.setattr(facts, "disk_space", lambda paths: asked.extend(paths) or PLENTY)
    read(mail)
    assert asked == [str(mail.config), str(mail.certificate), str(mail.store)]


def test_the_journal_of_a_killed_run(mail):
    with Transaction(mail, str(mail.store)).locked() as transaction:
        transaction._begin(mail.plan(mail.desired("offered")), [])
    result = read(mail, "offered")
    assert result["journal"] == {"path": str(mail.store / "fakemail.journal"), "files": [str(mail.config)]}
    assert codes(result) == []  # it is undone first


def test_what_the_collection_left(mail):
    mail.leftovers = ["/etc/fakemail/ours", str(mail.certificate)]
    assert read(mail)["left"] == [str(mail.certificate), "/etc/fakemail/ours"]
    mail.store.mkdir()
    mail.certificate.unlink()
    mail.leftovers = []
    assert read(mail)["left"] == [str(mail.store)]


# Other hosts


@pytest.fixture
def acceptor(authority, tmp_path):
    with serving(Face(context=server_context(tmp_path, authority.issue(["gw.example.com"])))) as server:
        yield server


def test_other_hosts_are_tested_after_the_own_port(mail, acceptor):
    with serving(PLAIN) as plain:
        targets = [Target(one.host, one.port) for one in (acceptor, plain)]
        result = read(mail, targets=targets)
    tests = result["probe"]["results"]
    assert [one["port"] for one in tests] == [mail.port.port, acceptor.port, plain.port]
    assert [one["completed"] for one in tests] == [False, True, False]
    assert len(result["probe"]["certificates"]) == 2
    assert acceptor.connections == 1


def test_next_hops_are_tested_before_tls_is_required_of_them(mail, acceptor):
    with serving(PLAIN) as plain:
        mail.hops = [Target(one.host, one.port) for one in (acceptor, plain)]
        result = read(mail, None, "required")
    assert result["next_hops"] == [
        {"host": "127.0.0.1", "port": acceptor.port, "completed": True, "message": ""},
        {"host": "127.0.0.1", "port": plain.port, "completed": False, "message": "the server does not offer STARTTLS"},
    ]
    # Whether that stands in the way is the plan's to say: an earlier step may switch TLS on there.
    assert codes(result) == []
    assert not any(command.startswith(b"MAIL") for command in acceptor.commands)


@pytest.mark.parametrize(
    ("now", "wanted", "more"),
    [
        ("disabled", "opportunistic", {}),
        ("required", "required", {}),
        ("disabled", "required", {"require_without_evidence": True}),
    ],
)
def test_otherwise_they_are_not(mail, now, wanted, more):
    mail.start(outbound=now)
    mail.hops = [Target("127.0.0.1", refused_port())]
    result = read(mail, None, wanted, **more)
    assert (result["next_hops"], codes(result)) == (None, [])


def test_next_hops_that_are_not_all_known(mail):
    result = read(mail, None, "required")
    assert (result["next_hops"], codes(result)) == (None, ["change_refused"])
    assert result["obstacles"][0]["message"].startswith(
        "outbound 'required' is refused, because mail would be deferred: "
    )
    assert "the MX of each recipient domain" in result["obstacles"][0]["message"]
    assert result["changes"] != []


def test_the_readings_are_independent(mail):
    assert [codes(read(mail, None, "required")) for _twice in range(2)] == [["change_refused"]] * 2
    assert module.Reading(mail, mail.desired(), BRIEF, str(mail.store)).obstacles == []


@as_root
def test_a_place_where_others_could_lead_root_elsewhere_is_in_the_way(mail, authority, tmp_path):
    """A look at what lies there goes on, and the plan says what is to be done."""
    place = tmp_path / "theirs"
    place.mkdir()
    os.chown(place, 65534, 65534)
    path = str(place / "key.pem")
    bundle = dataclasses.replace(mail.renewal(authority.issue([NAME])), path=path)
    result = read(mail, "offered", certificate=path, bundle=bundle)
    assert codes(result) == ["change_refused"]
    assert f"{place} belongs to" in result["obstacles"][0]["message"]


@as_root
def test_a_link_of_somebody_else_to_the_certificate_is_in_the_way(mail, tmp_path):
    place = tmp_path / "theirs"
    place.mkdir()
    (place / "key.pem").symlink_to(mail.certificate)
    os.chown(place, 65534, 65534)
    os.lchown(place / "key.pem", 65534, 65534)
    result = read(mail, "offered", certificate=str(place / "key.pem"))
    assert codes(result) == ["change_refused"]
    assert [one["message"] for one in result["certificates"]][-1].startswith("could not look: ")


# What the next reload would activate


@pytest.mark.parametrize("wanted", [{}, {"inbound": "offered"}])
def test_a_listener_that_would_end_the_server(mail, monkeypatch, wanted):
    def require_running():
        raise PortInUseError("port 2600 is in use")

    monkeypatch.setattr(mail, "require_running", require_running)
    result = read(mail, **wanted)
    assert result["health"]["state"] == "running"
    assert result["obstacles"] == ([{"code": "port_in_use", "message": "port 2600 is in use"}] if wanted else [])
    assert result["changes"] != [] if wanted else result["changes"] == []


def test_edits_that_the_server_has_not_read(mail, monkeypatch):
    real = mail.observe
    monkeypatch.setattr(mail, "observe", lambda: {**real(), "not_read_yet": ["/etc/x", "/etc/y"]})
    result = read(mail, "offered")
    assert result["obstacles"] == []
    [note] = result["notes"]
    assert note["code"] == "edits_not_read"
    assert note["message"].startswith("/etc/x and /etc/y changed after the mail server has read it last")


# What cannot be switched off again


SAID = "TLS could not be switched off again here: line 3 of settings keeps TLS on; take it out first"


@pytest.fixture
def one_way(mail, monkeypatch):
    """A mail server with a setting of its administrator that stands in the way of switching TLS off."""
    planned = mail.plan

    def plan(desired):
        if "disabled" in (desired.inbound, desired.outbound):
            raise EngineError("line 3 of settings keeps TLS on; take it out first")
        return planned(desired)

    monkeypatch.setattr(mail, "plan", plan)
    return mail


@pytest.mark.parametrize(
    ("inbound", "outbound"), [("offered", None), (None, "opportunistic"), ("required", "opportunistic")]
)
def test_what_cannot_be_switched_off_again_is_not_switched_on(one_way, inbound, outbound):
    one_way.start("disabled", "disabled")
    result = read(one_way, inbound, outbound)
    assert {"code": "not_reversible", "message": SAID} in result["obstacles"]


def test_what_is_on_already_is_no_question(one_way):
    one_way.start("offered", "opportunistic")
    assert "not_reversible" not in codes(read(one_way, "offered", "opportunistic"))


def test_switching_off_asks_for_no_way_back(mail):
    mail.start("offered", "opportunistic")
    assert "not_reversible" not in codes(read(mail, "disabled", "disabled"))


@pytest.mark.parametrize("face", [Face(starttls=b"454 4.7.0 TLS is not available\r\n"), None])
def test_the_words_of_the_daemon_are_asked_for_only_where_tls_failed(mail, monkeypatch, face):
    mail.start("offered", "opportunistic")
    asked = []
    monkeypatch.setattr(mail, "tls_words", lambda: asked.append(1) or "cannot get key", raising=False)
    if face:
        mail.port.face = face
    assert read(mail)["tls_words"] == ("cannot get key" if face else "")
    assert bool(asked) is bool(face)
