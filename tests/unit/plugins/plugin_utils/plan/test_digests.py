"""The files of a host as a run last saw them."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.digests import planned_digests

PLANNED = {"hosts": {"h": {"digests": {"/etc/a": "1", "/etc/b": "1"}}, "new": {}}}


class TestPlannedDigests:
    def found(self, host="h", **facts):
        return planned_digests(host, {"localhost": {"tls_plan": PLANNED}, host: facts})

    def test_before_a_change_they_are_those_of_the_plan(self):
        assert self.found() == {"/etc/a": "1", "/etc/b": "1"}
        assert self.found("new") == {}

    @pytest.mark.parametrize(
        "name", ["mail_server_result", "gateway_accept_result", "gateway_result", "mail_server_peers_result"]
    )
    def test_after_a_step_they_are_what_it_left(self, name):
        assert self.found(**{name: {"digests": {"/etc/b": "2", "/etc/c": "2"}}}) == {
            "/etc/a": "1", "/etc/b": "2", "/etc/c": "2",
        }  # fmt: skip

    @pytest.mark.parametrize("result", [None, {}, {"digests": None}, {"skipped": True}, {"digests": {}}])
    def test_a_step_that_changed_nothing_leaves_them(self, result):
        assert self.found(mail_server_result=result) == {"/etc/a": "1", "/etc/b": "1"}

    def test_they_are_not_those_of_another_host(self):
        hostvars = {
            "localhost": {"tls_plan": PLANNED},
            "h": {},
            "g": {"mail_server_result": {"digests": {"/etc/a": "9"}}},
        }
        assert planned_digests("h", hostvars) == {"/etc/a": "1", "/etc/b": "1"}

    @pytest.mark.parametrize("plan", [None, {}, {"hosts": {}}])
    def test_without_a_plan_there_is_no_change(self, plan):
        with pytest.raises(EngineError) as caught:
            planned_digests("h", {"localhost": {"tls_plan": plan} if plan is not None else {}, "h": {}})
        assert str(caught.value) == (
            "this run has no plan for h: a run reads all hosts and plans before it changes anything. Start the playbook at its beginning, "
            "without --start-at-task"
        )

    def test_the_newest_step_counts(self):
        """An uninstallation changes the peers, then the listeners, and puts back what was there."""
        plan = {"hosts": {"h": {"digests": {"/etc/a": "0"}, "steps": ["relax", "peers_off", "off", "put_back"]}}}
        hostvars = {
            "localhost": {"tls_plan": plan},
            "h": {
                "mail_server_result": {"digests": {"/etc/a": "1"}},
                "mail_server_peers_result": {"digests": {"/etc/a": "2"}},
            },
        }
        found = {step: planned_digests("h", hostvars, step)["/etc/a"] for step in ("peers_off", "off", "put_back", "")}
        assert found == {"peers_off": "1", "off": "2", "put_back": "1", "": "2"}
