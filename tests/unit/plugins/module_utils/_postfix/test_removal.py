"""What goes from a Postfix gateway, and how it looks afterwards: as before the first change."""

import json
import os
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import before as record
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import engine as gateway_engine
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import queue as gateway_queue
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import uninstall as module
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import set_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import Modes
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.reading import read_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.uninstall import uninstall
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import removal
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

from tests.support.fake_postfix import MAIN, MASTER
from tests.support.postfix_host import SETTINGS, PostfixHost, config, inbound, outbound, state

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the record and the files are root's")
WANTED = [
    {"name": "one", "domains": ["a.example"], "servers": ["mx.example"], "delivery_mode": "match_sender"},
    {"name": "two", "domains": ["b.example"], "servers": ["mx.example"], "delivery_mode": "required"},
]
MAIL = {"queue_id": "4XYZ", "arrival_time": 1, "recipients": [{"address": "you@a.example", "delay_reason": "refused"}]}


class Host(PostfixHost):
    """A gateway that the collection has set up by its own transaction, so that there is a record."""

    def __init__(self, monkeypatch, root, **fake):
        super().__init__(monkeypatch, root, **fake)
        self.store = str(root / "store")
        self.certificate = str(root / "starttls.pem")
        for port in (25, 10125, 10126, 10127):
            self.ports[port] = Stage.EHLO
        monkeypatch.setattr(self.adapter, "require_running", lambda: None)
        monkeypatch.setattr(self.adapter, "_make_places", lambda _instance: None)
        monkeypatch.setattr(self.adapter, "_prove_policy", lambda _state: None)
        monkeypatch.setattr(gateway_engine, "PATIENCE", 0.0)
        monkeypatch.setattr(gateway_queue, "PAUSE_SECONDS", 0.01)
        monkeypatch.setattr(module, "UNDER_WAY_SECONDS", 0.05)
        self.cleared = []
        monkeypatch.setattr(
            removal, "clear", lambda _run, units, places, user: self.cleared.append((units, list(places), user))
        )
        monkeypatch.setattr(removal, "remaining", lambda _places, _user: [])

    def set_up(self):
        set_gateway(self.adapter, [Modes(WANTED)], SETTINGS, require_without_evidence=True, store=self.store)

    def queue(self, directory, *messages):
        lines = "".join(json.dumps(one) + "\n" for one in messages)
        self.fake.answers["postqueue", "-c", str(directory)] = (0, lines, "")

    def uninstall(self, **options):
        self.adapter._postconf.forget()
        return uninstall(self.adapter, self.certificate, store=self.store, queue_seconds=0, **options)

    def files(self):
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file() and "store" not in path.parts
        }


@pytest.fixture
def host(monkeypatch, tmp_path):
    return Host(monkeypatch, tmp_path)


@needs_root
class TestUninstall:
    def test_every_file_is_as_before_the_first_change(self, host):
        before = host.files()
        host.set_up()
        assert host.second.exists()
        assert host.uninstall()["changed"] is True
        assert host.files() == before
        assert not Path(host.store).exists()
        [(units, places, user)] = host.cleared
        assert (units, user) == (True, "mailfleet-starttls")
        assert places == [
            str(host.second), "/var/spool/postfix-mailfleet", "/var/lib/postfix-mailfleet",
            str(host.third), "/var/spool/postfix-mailfleet_enforced", "/var/lib/postfix-mailfleet_enforced",
        ]  # fmt: skip

    def test_main_cf_no_longer_names_a_file_before_that_file_goes(self, host):
        host.set_up()
        paths = [image.path for image in module.undoing(host.adapter, host.store, host.certificate).change.after]
        assert {os.path.basename(one) for one in paths[:2]} == {"main.cf", "master.cf"}
        assert all(one.startswith(str(host.etc)) for one in paths[:2])

    def test_a_second_run_changes_nothing_and_leaves_nothing(self, host):
        host.set_up()
        host.uninstall()
        before = host.files()
        again = host.uninstall()
        assert (again["changed"], again["diff"], host.files()) == (False, [], before)
        assert not Path(host.store).exists()

    def test_edits_by_hand_are_kept(self, host):
        before = host.fake.main.read_text()
        host.set_up()
        host.fake.main.write_text("# a note\n" + host.fake.main.read_text())
        result = host.uninstall()
        assert host.fake.main.read_text() == "# a note\n" + before
        assert f"{host.fake.main} keeps what was edited by hand" in result["warnings"]

    def test_an_edit_of_what_the_collection_has_set_is_named_and_refused(self, host):
        host.fake.main.write_text("transport_maps = hash:/etc/mine\n" + host.fake.main.read_text())
        host.adapter._postconf.forget()
        host.set_up()
        text = host.fake.main.read_text()
        host.fake.main.write_text(text.replace("hash:/etc/mine", "hash:/etc/other"))
        edited = host.files()
        with pytest.raises(EngineError, match=r"main\.cf was edited by hand in lines that the collection had changed"):
            host.uninstall()
        assert host.files() == edited

    def test_mail_in_the_second_instance_is_named_and_nothing_changes(self, host):
        host.set_up()
        host.queue(host.second, MAIL)
        before = host.files()
        with pytest.raises(EngineError) as error:
            host.uninstall()
        assert "4XYZ to you@a.example (postfix-mailfleet): refused. " in str(error.value)
        assert (host.files(), host.cleared) == (before, [])
        host.queue(host.second)
        assert host.uninstall()["changed"]

    @pytest.mark.parametrize(
        ("address", "waits"), [("you@b.example", True), ("you@a.example", False), ("you@c.example", False)]
    )
    def test_mail_that_insists_on_tls_is_waited_for(self, host, address, waits):
        host.set_up()
        host.queue(host.etc, {**MAIL, "recipients": [{"address": address}]})
        if waits:
            with pytest.raises(EngineError, match="4XYZ to you@b"):
                host.uninstall()
        else:
            assert host.uninstall()["changed"]

    def test_mail_that_postfix_does_not_list_counts(self, host, monkeypatch, tmp_path):
        (tmp_path / "queue/corrupt/4").mkdir(parents=True)
        (tmp_path / "queue/corrupt/4/4BAD").write_text("x")
        [found] = removal.unlisted(str(tmp_path / "queue"), "postfix-mailfleet")
        assert (
            str(found)
            == "4BAD to an unknown recipient (postfix-mailfleet): it is in the directory corrupt of the queue"
        )

    def test_no_mail_is_sent_to_the_other_instances_when_they_go(self, host, monkeypatch):
        """What is under way when the last look finds an empty queue is waited for, or all stays as it was."""
        host.set_up()
        before = host.files()
        looks = iter([[]] * 4)
        late = Waiting("4XYZ", "you@a.example")
        monkeypatch.setattr(host.adapter, "in_others", lambda: next(looks, [late]))
        with pytest.raises(TransactionError) as error:
            host.uninstall()
        assert error.value.restored
        assert host.files() == before

    def test_a_change_that_cannot_be_proved_leaves_everything_as_it_was(self, host):
        host.set_up()
        before = host.files()
        host.fake.answers["postfix", "-c", str(host.etc), "reload"] = (1, "", "no")
        with pytest.raises(TransactionError):
            host.uninstall()
        host.fake.answers.clear()
        assert host.files() == before
        assert host.cleared == []

    def test_check_mode_says_all_and_changes_nothing(self, host):
        host.set_up()
        host.queue(host.second, MAIL)
        before = host.files()
        result = host.uninstall(check_mode=True)
        assert result["changed"] is True
        assert any("transport_maps = texthash" in one["prepared"] for one in result["diff"])
        assert any(one.startswith("a run waits up to 0 s for this mail: 4XYZ to you@") for one in result["warnings"])
        assert host.files() == before

    def test_a_host_without_a_record_loses_what_is_ours_and_says_what_is_not_known(self, host):
        """What a version without records has changed."""
        rest = host.fake.main.read_text()
        host.set_up()
        Path(record.path_of(host.store, "postfix")).unlink()
        result = host.uninstall()
        assert [
            one
            for one in result["warnings"]
            if "a version of the collection without records has changed this host first" in one
        ]
        explicit = host.fake.explicit()
        assert not [name for name in explicit if "mailfleet" in name + explicit[name]]
        assert "multi_instance_directories" not in explicit
        assert [line for line in rest.splitlines() if "=" in line and line.partition(" =")[0] not in explicit] == []
        assert "mailfleet" not in host.fake.master.read_text()
        assert not host.directory.exists()
        assert not (host.second / "main.cf").exists()


@needs_root
class TestRead:
    def read(self, host):
        wanted = {"state": "absent", "keep": None}
        return read_gateway(host.adapter, wanted, SETTINGS, probe=False, store=host.store, certificate=host.certificate)

    def test_the_plan_shows_what_goes_and_what_it_waits_for(self, host, monkeypatch):
        host.set_up()
        host.queue(host.second, MAIL)
        monkeypatch.setattr(removal, "remaining", lambda _places, _user: ["/var/spool/postfix-mailfleet"])
        seen = self.read(host)
        paths = [one["path"] for one in seen["gateway"]["changes"]]
        assert {str(host.fake.main), str(host.second / "main.cf"), "/var/spool/postfix-mailfleet"} <= set(paths)
        assert seen["obstacles"] == []
        [note] = seen["notes"]
        assert (
            note["code"] == "queue_not_empty"
            and "4XYZ to you@a.example (postfix-mailfleet): refused" in note["message"]
        )
        assert (seen["gateway"]["before"], seen["gateway"]["after"]) == ({"one": "match_sender", "two": "required"}, {})
        assert str(host.fake.main) in seen["digests"]

    def test_an_edit_that_cannot_be_kept_stands_in_the_way(self, host):
        host.fake.main.write_text("transport_maps = hash:/etc/mine\n" + host.fake.main.read_text())
        host.adapter._postconf.forget()
        host.set_up()
        host.fake.main.write_text(host.fake.main.read_text().replace("hash:/etc/mine", "hash:/etc/other"))
        host.adapter._postconf.forget()
        [obstacle] = self.read(host)["obstacles"]
        assert obstacle["code"] == "change_refused" and "was edited by hand" in obstacle["message"]

    def test_where_nothing_is_left_nothing_changes(self, host):
        seen = self.read(host)
        assert (seen["gateway"]["changes"], seen["notes"], seen["obstacles"]) == ([], [], [])


class TestStripped:
    @pytest.mark.parametrize(
        ("value", "rest"),
        [
            ("texthash:/etc/postfix/mailfleet-starttls/transport, hash:/etc/postfix/transport", "hash:/etc/postfix/transport"),
            ("texthash:/etc/postfix/mailfleet-starttls/transport", ""),
            ("check_recipient_access texthash:/etc/postfix/mailfleet-starttls/arrival, mailfleet_arrival, permit_mynetworks, reject",
             "permit_mynetworks, reject"),
            ("check_client_access cidr:/etc/mine, check_sender_access regexp:/etc/postfix/mailfleet-starttls/x",
             "check_client_access cidr:/etc/mine"),
            ("permit_mynetworks   reject", "permit_mynetworks   reject"),
            ("/etc/postfix-mailfleet /etc/postfix-other", "/etc/postfix-other"),
        ],
    )  # fmt: skip
    def test_lists(self, value, rest):
        assert removal.without_ours(value) == rest

    @needs_root
    def test_an_untouched_host_stays(self, tmp_path, monkeypatch):
        host = PostfixHost(monkeypatch, tmp_path)
        assert (host.fake.main.read_text(), host.fake.master.read_text()) == (MAIN, MASTER)
        assert removal.stripped(host.fake, str(host.etc), {}) == []


class TestRelaxing:
    @needs_root
    @pytest.mark.parametrize("more", [{"enforced": [*inbound("p.example"), outbound("bank.example")]}, {}])
    def test_only_where_mail_goes_to_another_instance(self, host, more, monkeypatch):
        host.apply(config("one", "required"))
        assert not module._relaxing(host.adapter, state(config("one", "required")))
        monkeypatch.setattr(host.adapter, "_route_of", lambda _domain, _state: "[mx.example]:25")
        held = state(config("one", "match_sender"), **more)
        change = module._relaxing(host.adapter, held)
        assert change
