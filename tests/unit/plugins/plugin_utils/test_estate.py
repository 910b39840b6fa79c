"""What the playbooks make of the inventory: targets, email configs, expectations and the rows of the verdict."""

import json
import re

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.engine import Trace
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import (
    Estate,
    estate,
    handshake_targets,
    own_target,
    target_of,
    with_delivery_mode,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.faults import fault_in
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.messages import (
    check_trace,
    inbound_expectations,
    trace_landings,
    trace_messages,
    trace_work,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.rows import (
    failed_tests,
    outcome_input,
    report_outputs,
    verdict_rows,
)

HOSTS = {
    "gw1": {},
    "pf12": {"starttls_hostname": "pf12.example", "certificate_result": {"fingerprint_sha256": "ab" * 32}},
    "ex13": {"starttls_hostname": "192.0.2.13", "starttls_port": "2525"},
    "strict": {"starttls_inbound": "required"},
}


def config(mode=None, *servers, name="main", domains=("a.example",)):
    made = {"name": name, "domains": list(domains), "servers": list(servers or ("pf12",))}
    return {**made, "delivery_mode": mode} if mode else made


class TestGatewayThatIsItsOwnMailServer:
    """By name or by any address of the inventory; another port is another server."""

    GW = {"starttls_hostname": "gw1.example", "starttls_address": "192.0.2.1", "ansible_host": "198.51.100.1"}  # noqa: RUF012

    def parse(self, mode=None, gateway=None, **server):
        gw1 = {**self.GW, **(gateway or {}), "groups": {"mail_gateways": ["gw1"]}}
        return Estate.parse([config(mode, "m1" if server else "gw1")], {"gw1": gw1, "m1": server})

    @pytest.mark.parametrize(
        ("server", "same"),
        [
            ({}, True),
            ({"starttls_hostname": "GW1.example."}, True),
            ({"starttls_hostname": "192.0.2.1"}, True),
            ({"starttls_address": "192.0.2.1"}, True),
            ({"ansible_host": "198.51.100.1"}, True),
            ({"ansible_host": "198.51.100.1", "ansible_port": 22}, True),
            ({"ansible_host": "198.51.100.1", "ansible_port": 2222}, False),
            ({"starttls_address": "192.0.2.1", "starttls_port": 2525}, False),
            ({"starttls_hostname": "other.example"}, False),
        ],
    )
    def test_what_is_the_same_host(self, server, same):
        assert self.parse(**server).deliveries[0].gateways == (("gw1",) if same else ())

    @pytest.mark.parametrize("here", [{"ansible_host": "localhost"}, {"ansible_connection": "local"}])
    def test_a_controller_is_no_mail_server(self, here):
        """Gateways with an API are all reached from there."""
        assert self.parse(gateway=here, **{"ansible_host": "198.51.100.1", **here}).deliveries[0].gateways == ()

    def test_without_a_mode_it_gets_no_route(self):
        made = self.parse()
        assert (made.to_json()["email_configs"], made.to_json()["domains"]) == ([], ["a.example"])
        assert made.in_plaintext().to_json()["email_configs"] == []
        assert Estate.from_json(json.loads(json.dumps(made.to_json()))) == made

    def test_with_a_mode_it_is_in_the_plan_which_refuses_it(self):
        assert [one["name"] for one in self.parse("required").to_json()["email_configs"]] == ["main"]

    def test_others_without_a_mode_keep_theirs_as_before(self):
        assert [one["name"] for one in self.parse(ansible_host="198.51.100.2").to_json()["email_configs"]] == ["main"]


class TestRemoval:
    GONE = {"name": "old", "state": "absent"}  # noqa: RUF012

    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"domains": ["old.example"]},
            {"servers": ["gone from the inventory"], "domains": ["old.example"], "delivery_mode": "x"},
        ],
    )
    def test_an_entry_with_state_absent_is_no_delivery(self, more):
        made = Estate.parse([config("required"), {**self.GONE, **more}], HOSTS)
        assert [one.config.name for one in made.deliveries] == ["main"]
        gone = {"name": "old", "domains": more.get("domains", []), "state": "absent"}
        assert made.to_json()["email_configs"][1:] == made.to_json()["removals"] == [gone]
        assert Estate.from_json(json.loads(json.dumps(made.to_json()))) == made

    def test_its_domain_may_be_in_another_one(self):
        made = Estate.parse([config("required"), {**self.GONE, "domains": ["a.example"]}], HOSTS)
        assert list(made.domains) == ["a.example"]

    @pytest.mark.parametrize(
        ("entry", "said"),
        [
            ({"name": "a\nb", "state": "absent"}, "the email config name"),
            ({"name": "old", "state": "absent", "domains": ["a b"]}, "is not a domain name"),
            (
                {"name": "old", "state": "gone"},
                "email config old: the state 'gone' is not one of present, absent; correct email_configs",
            ),
            ({"name": "old", "state": False}, "email config old: the state False is not one of present, absent"),
            ({"name": "main", "state": "absent"}, "the email config 'main' is given twice"),
        ],
    )
    def test_what_makes_no_sense(self, entry, said):
        with pytest.raises(EngineError, match=re.escape(said)):
            Estate.parse([config("required"), entry], HOSTS)

    def test_its_mode_cannot_be_set(self):
        with pytest.raises(EngineError, match="there is no email config 'old' in the inventory; choose one of: main"):
            with_delivery_mode([config("required"), self.GONE], "old", "required")

    def test_switching_off_removes_it_as_well(self):
        made = Estate.parse([config("required"), self.GONE], HOSTS).in_plaintext()
        assert [one["name"] for one in made.to_json()["email_configs"]] == ["main", "old"]


class TestTargets:
    def test_target_of(self):
        assert str(target_of("pf12", HOSTS)) == "pf12.example:25"
        assert str(target_of("ex13", HOSTS)) == "192.0.2.13:2525"
        assert str(target_of("gw1", HOSTS)) == "gw1:25"
        assert str(target_of("six", {"six": {"starttls_hostname": "2001:db8::1"}})) == "[2001:db8::1]:25"

    @pytest.mark.parametrize(
        "facts", [{"starttls_hostname": "a b"}, {"starttls_hostname": "mx\nx"}, {"starttls_hostname": "mx:25"}, {"starttls_port": 0},
                  {"starttls_port": 70000}, {"starttls_hostname": ""}]
    )  # fmt: skip
    def test_a_bad_one_names_the_host(self, facts):
        with pytest.raises(EngineError, match=r"^starttls_hostname or starttls_port of pf12: ") as error:
            target_of("pf12", {"pf12": facts})
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("port", ["smtp", "", None])
    def test_a_port_that_is_no_number_names_the_host(self, port):
        with pytest.raises(EngineError, match=r"^starttls_hostname or starttls_port of pf12: "):
            target_of("pf12", {"pf12": {"starttls_port": port}})

    def test_handshake_targets(self):
        assert handshake_targets(["pf12", "ex13"], HOSTS) == [
            {"host": "pf12.example", "port": 25, "name": "pf12.example", "fingerprint_sha256": "ab" * 32},
            {"host": "192.0.2.13", "port": 2525, "name": "192.0.2.13", "fingerprint_sha256": ""},
        ]

    def test_the_controller_may_know_another_address(self):
        hosts = {**HOSTS, "pf12": {**HOSTS["pf12"], "starttls_address": "192.0.2.12"}}
        seen = [(one["host"], one["name"]) for one in handshake_targets(["pf12", "ex13"], hosts, from_controller=True)]
        assert seen == [("192.0.2.12", "pf12.example"), ("192.0.2.13", "192.0.2.13")]
        assert handshake_targets(["pf12"], hosts)[0]["host"] == "pf12.example"

    @pytest.mark.parametrize(
        ("facts", "domain"),
        [
            ({"starttls_domain": "b.example", "starttls_trace_address": "t@a.example"}, "b.example"),
            ({"starttls_trace_address": "t@a.example"}, None),  # its MX records may name the gateway
        ],
    )
    def test_the_recipient_domain_of_a_host(self, facts, domain):
        assert own_target("h", {"h": facts})[0].get("domain") == domain

    @pytest.mark.parametrize("result", [None, {}, {"skipped": True}])
    def test_without_a_certificate_there_is_no_fingerprint(self, result):
        [target] = handshake_targets(["h"], {"h": {"certificate_result": result}})
        assert target["fingerprint_sha256"] == ""

    @pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.0.2.1"])
    def test_a_host_tests_itself_at_its_own_address(self, address):
        assert own_target("ex13", HOSTS, address) == [
            {"host": address, "port": 2525, "name": "192.0.2.13", "fingerprint_sha256": ""}
        ]

    def test_which_is_the_loopback_address_otherwise(self):
        assert own_target("pf12", HOSTS) == [
            {"host": "127.0.0.1", "port": 25, "name": "pf12.example", "fingerprint_sha256": "ab" * 32}
        ]


def probed(name, *messages, host=None, port=25):
    findings = [{"severity": "error", "message": one} for one in messages]
    return {"name": name, "host": host or name, "port": port, "findings": findings}


class TestFailedTests:
    def test_each_finding_is_said_with_where_it_was_made(self):
        """Those of another host behind the same name, on another port, are not this one's."""
        facts = {
            "starttls_hostname": "pf12.example.",
            "verify_probe": {"results": [probed("pf12.example", "no STARTTLS", host="127.0.0.1")]},
            "verify_controller_probe": {"results": [probed("pf12.example", "filtered", host="192.0.2.12")]},
        }
        gateways = {
            "gw1": {
                "verify_from_gateway": {
                    "results": [probed("pf12.example", "expired", "wrong name"), probed("ex13", "not ours")]
                }
            },
            "gw2": {"verify_from_gateway": {"results": [probed("pf12.example", "no answer", port=26)]}},
        }
        assert failed_tests("pf12", {"pf12": facts, **gateways}, gateways=list(gateways)) == [
            "pf12 (127.0.0.1:25, seen from pf12): no STARTTLS",
            "pf12 (pf12.example:25, seen from gw1): expired",
            "pf12 (pf12.example:25, seen from gw1): wrong name",
            "pf12 (192.0.2.12:25, seen from the controller): filtered",
        ]

    @pytest.mark.parametrize("made", [None, {}, {"skipped": True}, {"results": []}])
    def test_without_findings_nothing_is_said(self, made):
        passed = {"results": [probed("pf12.example")]}
        facts = {
            "starttls_hostname": "pf12.example",
            "verify_probe": passed,
            "verify_controller_probe": {"skipped": True},
        }
        gateways = {"gw1": {"verify_from_gateway": made}, "gw2": {"verify_from_gateway": passed}}
        assert failed_tests("pf12", {"pf12": facts, **gateways}, gateways=list(gateways)) == []

    def test_a_host_without_a_change_was_tested_when_it_was_read(self):
        """The first test of a read is that of the own port; the others of a gateway are those with the mail servers."""
        own, other = {**probed("pf12", "stale", host="127.0.0.1"), "own": True}, probed("pf12", "from the gateway")
        facts = {
            "pf12": {"mail_server_observed": {"probe": {"results": [own]}}},
            "gw1": {"gateway_observed": {"probe": {"results": [{**probed("gw1"), "own": True}, other]}}},
        }
        told = failed_tests("pf12", facts, gateways=["gw1"])
        assert told == ["pf12 (127.0.0.1:25, seen from pf12): stale", "pf12 (pf12:25, seen from gw1): from the gateway"]
        facts["pf12"]["verify_probe"] = {"results": [probed("pf12")]}
        facts["gw1"]["verify_from_gateway"] = {"results": [probed("pf12")]}
        assert failed_tests("pf12", facts, gateways=["gw1"]) == []

    def test_the_test_of_a_change_is_newer_than_that_of_the_read(self):
        """A change without a test of its own proves nothing, whatever was there before it."""
        read = {"probe": {"results": [{**probed("pf12", "of the read"), "own": True}]}}
        made = {"changed": True, "probe": {"results": [{**probed("pf12", "of the change"), "own": True}]}}
        for change, told in ((None, "of the read"), ({"changed": False}, "of the read"), (made, "of the change")):
            facts = {"pf12": {"mail_server_observed": read, "mail_server_result": change}}
            assert failed_tests("pf12", facts) == [f"pf12 (pf12:25, seen from pf12): {told}"]
        [row] = verdict_rows(
            ["pf12"], {"pf12": {"mail_server_observed": read, "mail_server_result": {"changed": True}}}, {}, wanted()
        )
        assert row["probes"] == []

    def test_a_gateway_with_an_api_has_no_test_of_its_own(self):
        facts = {
            "pf12": {},
            "gw1": {"gateway_observed": {"probe": {"results": [{**probed("pf12", "bad"), "own": False}]}}},
        }
        assert failed_tests("pf12", facts, gateways=["gw1"]) == ["pf12 (pf12:25, seen from gw1): bad"]
        assert failed_tests("gw1", facts, gateways=["gw1"]) == []

    def test_a_gateway_that_sees_another_certificate_than_the_installed_one(self):
        seen = {**probed("pf12"), "own": False, "fingerprint_sha256": "cd" * 32}
        facts = {
            "pf12": {"mail_server_observed": {"fingerprint_sha256": "ab" * 32}},
            "gw1": {"gateway_observed": {"probe": {"results": [seen]}}},
        }
        [told] = failed_tests("pf12", facts, gateways=["gw1"])
        assert "is not the one that was installed (abababababababab...)" in told
        seen["fingerprint_sha256"] = "ab" * 32
        assert failed_tests("pf12", facts, gateways=["gw1"]) == []

    def test_only_what_is_bad_enough(self):
        findings = [{"severity": one, "message": one} for one in ("error", "warning", "notice")]
        facts = {"verify_probe": {"results": [{**probed("pf12"), "findings": findings}]}}
        told = [failed_tests("pf12", {"pf12": facts}, fail_on) for fail_on in ("error", "warning", "notice")]
        assert [len(one) for one in told] == [1, 2, 3]


class TestReportOutputs:
    def test_a_file_for_each_format(self):
        assert report_outputs(["html", "json", "html"], "out/") == [
            {"format": "html", "path": "out/report.html"},
            {"format": "json", "path": "out/report.json"},
        ]

    @pytest.mark.parametrize("answer", ["html, junit", " html junit\n", "html,junit"])
    def test_the_answer_of_a_survey(self, answer):
        assert [one["path"] for one in report_outputs(answer, "out")] == ["out/report.html", "out/report.junit.xml"]

    @pytest.mark.parametrize("formats", ["", ["pdf"], "html,../x", [None]])
    def test_a_format_that_is_none(self, formats):
        with pytest.raises(EngineError, match="is not a format of a report; choose one of: html, json"):
            report_outputs(formats, "out")

    @pytest.mark.parametrize("directory", ["", " "])
    def test_no_directory(self, directory):
        with pytest.raises(EngineError, match="starttls_report_directory is empty"):
            report_outputs("html", directory)


class TestEstate:
    def test_names_become_addresses(self):
        read = Estate.parse([config("match_sender", "pf12", "ex13")], HOSTS)
        assert read.to_json()["email_configs"] == [
            {
                "name": "main", "domains": ["a.example"], "servers": ["pf12.example:25", "192.0.2.13:2525"],
                "delivery_mode": "match_sender",
            }
        ]  # fmt: skip
        assert [one.hosts for one in read.deliveries] == [("pf12", "ex13")]

    def test_plain_data_hold_all_of_it(self):
        read = Estate.parse([config("required", "pf12"), config(name="two", domains=["b.example"])], HOSTS, ["pf12"])
        assert Estate.from_json(json.loads(json.dumps(read.to_json()))) == read
        assert estate([config()], HOSTS, ["pf12"]) == Estate.parse([config()], HOSTS, ["pf12"]).to_json()

    def test_none(self):
        assert Estate.parse([], HOSTS) == Estate()

    def test_without_a_mode(self):
        read = Estate.parse([config()], HOSTS)
        assert "delivery_mode" not in read.to_json()["email_configs"][0]
        assert (read.modes_of("pf12"), read.domains) == ([], {})  # the gateway keeps the mode that it has
        assert read.in_plaintext().modes_of("pf12") == ["plaintext"]

    def test_a_slice_is_good_for_tests_alone(self):
        """The address of a server that the inventory lacks is not known, and nothing asks for it."""
        one = Estate.parse(
            [config("required", "pf21", "pf12"), config(None, "pf22", name="b", domains=["b.example"])],
            HOSTS,
            whole=False,
        )
        assert [delivery.hosts for delivery in one.deliveries] == [("pf12",), ()]
        assert (one.missing, one.to_json()["missing"]) == (("pf21", "pf22"), ["pf21", "pf22"])
        assert Estate.from_json(json.loads(json.dumps(one.to_json()))) == one

    @pytest.mark.parametrize("names", [["gw1", "gw2"], "gw1, gw2"])
    def test_a_gateway_that_a_slice_lacks(self, names):
        facts = {"gw1": {"starttls_gateways": names, "groups": {"mail_gateways": ["gw1"]}}}
        with pytest.raises(
            EngineError, match=r"starttls_gateways names 'gw2', .*set job_slice_count of its template to 1"
        ):
            Estate.parse([], facts, ["gw1"])
        assert Estate.parse([], facts, ["gw1"], whole=False).hosts == ("gw1",)
        facts["gw1"]["groups"]["mail_gateways"].append("gw2")
        assert Estate.parse([], facts, ["gw1"]).hosts == ("gw1",)

    @pytest.mark.parametrize(
        ("more", "what"),
        [
            (
                {"groups": {"mail_gateways": ["one"]}},
                "one is a gateway, and starttls_settings_only is for mail servers",
            ),
            ({"starttls_kind": "exchange"}, "one is an Exchange server, and starttls_settings_only is for"),
        ],
    )
    def test_settings_only_is_for_mail_servers_with_files_of_settings(self, more, what):
        for given in (True, "yes", "true"):
            with pytest.raises(EngineError, match=f"^{what}"):
                Estate.parse([], {"one": {"starttls_settings_only": given, **more}}, ["one"])
        for given in (False, "no", "", None):
            assert Estate.parse([], {"one": {"starttls_settings_only": given, **more}}, ["one"]).hosts == ("one",)
        assert Estate.parse([], {"one": {"starttls_settings_only": True}}, ["one"]).hosts == ("one",)

    def test_before_a_workflow_a_mode_may_not_suit_what_is_wanted_now(self):
        with pytest.raises(EngineError, match="strict is to require TLS"):
            Estate.parse([config("plaintext", "strict")], HOSTS)
        assert Estate.parse([config("plaintext", "strict")], HOSTS, undo=True).domains == {"a.example": "plaintext"}

    def test_a_server_that_is_not_in_the_inventory(self):
        with pytest.raises(EngineError) as error:
            Estate.parse([config(None, "pf21")], HOSTS)
        assert str(error.value) == (
            "email config main: the mail server 'pf21' is not in the inventory; add the host or correct the name; a slice of an AWX job "
            "lacks hosts: set job_slice_count of its template to 1"
        )

    @pytest.mark.parametrize("mode", [None, "plaintext", "match_sender", "opportunistic"])
    def test_a_server_that_requires_tls_behind_a_mode_that_may_not_use_it(self, mode):
        with pytest.raises(EngineError) as error:
            Estate.parse([config(mode, "pf12", "strict")], HOSTS)
        assert str(error.value) == (
            f"email config main: strict is to require TLS (starttls_inbound), and '{mode or 'plaintext'}' may deliver to it "
            "in plaintext, so mail would bounce; choose 'required' or let the server offer TLS"
        )

    def test_a_server_that_requires_tls_behind_required(self):
        assert Estate.parse([config("required", "strict")], HOSTS)

    def test_a_host_that_requires_tls_behind_no_email_config(self):
        with pytest.raises(EngineError) as error:
            Estate.parse([config("required", "pf12")], HOSTS, ["gw1", "pf12", "strict"], check_required=True)
        assert str(error.value) == (
            "strict is to require TLS (starttls_inbound), but no email config delivers its mail over TLS only; add it "
            "to one with the delivery mode 'required', or let it offer TLS"
        )
        with pytest.raises(EngineError, match="strict is to require TLS"):
            Estate.parse([], HOSTS, ["strict"], check_required=True)

    @pytest.mark.parametrize("hosts", [(), ["gw1", "pf12", "ex13"]])
    def test_a_host_that_takes_no_part_is_not_looked_at(self, hosts):
        assert Estate.parse([config()], HOSTS, hosts, check_required=True).hosts == tuple(hosts)

    def test_that_is_looked_at_where_tls_is_switched_on_only(self):
        assert Estate.parse([], HOSTS, ["strict"]).hosts == ("strict",)

    def test_a_host_that_requires_tls_behind_one_of_several(self):
        configs = [config(), config("required", "pf12", "strict", name="two", domains=["b.example"])]
        assert len(Estate.parse(configs, HOSTS, ["pf12", "strict"], check_required=True).deliveries) == 2

    @pytest.mark.parametrize("inbound", ["offered", "disabled", None])
    def test_a_host_that_does_not_require_tls_needs_no_email_config(self, inbound):
        assert Estate.parse([], {"h": {"starttls_inbound": inbound}}, ["h"], check_required=True).hosts == ("h",)

    def test_a_bad_host_name(self):
        with pytest.raises(EngineError, match=r"^starttls_hostname or starttls_port of pf12: the host 'a b'"):
            Estate.parse([config()], {"pf12": {"starttls_hostname": "a b"}})

    @pytest.mark.parametrize(
        ("configs", "message"),
        [
            ([config("tls")], "'tls' is not a delivery mode"),
            ([config(True)], "'True' is not a delivery mode"),
            ([config(domains=["müller.example"])], "is not a domain name"),
            ([config(), config(name="two")], "the domain a.example is in two email configs, main and two"),
            ([config(name="a\nb")], "the email config name"),
            ([{"name": "main", "domains": ["a.example"]}], "email config main has no servers"),
            ([{"name": "main", "domains": ["a.example"], "servers": None}], "email config main has no servers"),
            ([{"name": "main", "servers": ["pf12"]}], "email config main has no domains"),
            (["main"], "an email config has to be a mapping with name, domains and servers, not 'main'"),
            ([config(None, "pf12", "pf12")], "names one of its servers twice"),
        ],
    )
    def test_whatever_is_wrong_is_said(self, configs, message):
        with pytest.raises(EngineError, match=re.escape(message)):
            Estate.parse(configs, HOSTS)

    def test_the_boolean_that_yaml_makes_of_off_is_said(self):
        with pytest.raises(EngineError, match="is not a delivery mode"):
            Estate.parse([{**config(), "delivery_mode": False}], HOSTS)

    def test_a_mode_that_is_none_is_said_before_a_server_that_requires_tls(self):
        with pytest.raises(EngineError, match="'tls' is not a delivery mode"):
            Estate.parse([config("tls", "strict")], HOSTS)

    def test_the_modes_of_a_host(self):
        configs = [
            config("required", "pf12", "ex13"),
            config(None, "ex13", name="two", domains=["b.example"]),
            config("required", "ex13", name="three", domains=["c.example"]),
        ]
        read = Estate.parse(configs, HOSTS)
        assert read.modes_of("pf12") == ["required"]
        assert read.modes_of("ex13") == ["required"]
        assert read.modes_of("elsewhere") == []
        assert read.in_plaintext().modes_of("ex13") == ["plaintext"]

    def test_an_unknown_variable_is_said_with_the_nearest_right_name(self):
        with pytest.raises(EngineError) as error:
            Estate.parse([], {"h": {"starttls_hostnme": "x"}}, ["h"])
        assert str(error.value) == (
            "h has the variable starttls_hostnme, which does not exist; did you mean starttls_hostname?"
        )
        with pytest.raises(EngineError, match="out has the variable starttls_trace_adress"):
            Estate.parse([], {"h": {}, "out": {"starttls_trace_adress": "x"}}, ["h"], ["out"])
        with pytest.raises(EngineError, match="README has the list of all variables"):
            Estate.parse([], {"h": {"starttls_zzzzzzzzzzzz": "x"}}, ["h"])

    def test_nothing_else_is_looked_at(self):
        facts = {"mail_hostnme": 1, "starttlsx": 1, "gateway_kynd": 1}
        assert Estate.parse([], {"h": facts, "other": {"starttls_x": 1}}, ["h"]).hosts == ("h",)


def hop(tls, network=True, by="mx.example"):
    return {"by": by, "tls": tls, "network": network, "protocol": "ESMTPS" if tls else "ESMTP"}


def trace(*hops, marker="m", arrived=True):
    return {"marker": marker, "arrived": arrived, "hops": list(hops)}


def mark(direction, host, run="1"):
    """The marker of a host's message, as trace_messages makes it."""
    facts = {host: {"starttls_trace_address": "a@a.example"}, "out": {"starttls_trace_address": "b@b.example"}}
    [message] = trace_messages([host], facts, "out", run)
    return message["inbound" if direction == "in" else "outbound"]["marker"]


TABLE = [  # the table in the design: mode, arrived over TLS, what the last hop has to be
    ("plaintext", True, False), ("plaintext", False, False),
    ("match_sender", True, True), ("match_sender", False, False),
    ("opportunistic", True, True), ("opportunistic", False, True),
    ("required", True, True), ("required", False, True),
]  # fmt: skip


class TestExpectations:
    @pytest.mark.parametrize(("mode", "first", "last"), TABLE)
    def test_the_mode_says_what_the_last_hop_has_to_be(self, mode, first, last):
        assert inbound_expectations(trace(hop(first), hop(True)), [mode]) == [None, last]

    @pytest.mark.parametrize(("mode", "first", "last"), TABLE)
    @pytest.mark.parametrize("really", [True, False])
    def test_and_the_finding_if_it_is_not(self, mode, first, last, really):
        message = trace(hop(first, by="gw.example"), hop(really))
        findings = check_trace(message, "in", inbound_expectations(message, [mode]))["findings"]
        how = "in plaintext (ESMTP)" if last else "over TLS (ESMTPS)"
        assert findings == ([] if really == last else [f"the message from outside reached mx.example {how}"])

    def test_the_way_through_the_second_instance_is_no_network(self):
        message = trace(hop(True), hop(False, network=False), hop(True), hop(False, network=False))
        assert inbound_expectations(message, ["match_sender"]) == [None, True]

    def test_hops_in_between_are_free(self):
        assert inbound_expectations(trace(hop(False), hop(True), hop(False)), ["plaintext"]) == [None, None, False]

    @pytest.mark.parametrize("modes", [[], ["plaintext", "required"]])
    def test_where_the_mode_is_not_clear_nothing_is_expected(self, modes):
        assert inbound_expectations(trace(hop(False), hop(True)), modes) == [None, None]

    @pytest.mark.parametrize("hops", [[], [hop(True)]])
    def test_a_message_that_did_not_pass_the_gateway_is_not_judged_by_the_mode(self, hops):
        assert inbound_expectations(trace(*hops), ["required"]) == [None] * len(hops)


class TestJudgeTrace:
    def test_a_good_one(self):
        message = trace(hop(True))
        assert check_trace(message, "out", [True]) == {**message, "direction": "out", "findings": []}

    @pytest.mark.parametrize(
        ("direction", "what"), [("in", "the message from outside"), ("out", "the message to the outside")]
    )
    def test_a_lost_one(self, direction, what):
        assert check_trace(trace(arrived=False), direction, [])["findings"] == [
            f"{what} did not arrive in time; no queue was read"
        ]

    def test_one_that_never_left_the_host(self):
        assert check_trace(trace(hop(False, network=False)), "in", [])["findings"] == [
            "the message from outside arrived without crossing a network, so it proves nothing"
        ]

    @pytest.mark.parametrize(("wanted", "really"), [(True, False), (False, True)])
    def test_a_hop_that_is_not_as_wanted(self, wanted, really):
        [finding] = check_trace(trace(hop(really, by="gw.example")), "out", [wanted])["findings"]
        assert finding == (
            "the message to the outside reached gw.example "
            + ("in plaintext (ESMTP)" if wanted else "over TLS (ESMTPS)")
        )


GROUPS = {"mail_gateways": ["gw1", "gw2"], "mail_servers": ["ex13", "pf12"]}
PROBE = {"name": "pf12.example", "port": 25, "passed": True}


def wanted(*configs):
    return estate(configs, HOSTS)


def hostvars(**changes):
    pf12 = {
        **HOSTS["pf12"],
        "verify_probe": {"results": [PROBE]},
        "verify_trace": {"received": [trace(hop(True), hop(True), marker=mark("in", "pf12"))]},
        "verify_outside": {
            "received": [trace(hop(True), marker=mark("out", "pf12")), trace(hop(True), marker=mark("out", "ex13"))]
        },
        **changes,
    }
    seen = {
        "gw1": {"results": [PROBE, {"name": "192.0.2.13", "port": 2525, "passed": True}]},
        "gw2": {"results": [PROBE]},
    }
    gateways = {host: {**HOSTS.get(host, {}), "verify_from_gateway": seen[host]} for host in seen}
    return {**HOSTS, "pf12": pf12, **gateways}


class TestRows:
    LONG = "mailserver-frankfurt-01.customers.example"
    ALIKE = ("mx", "mx-2", "mx.2", "MX", f"{LONG}.com", f"{LONG}.net", "2001:db8::1", "2001-db8--1")

    def test_what_was_gathered_on_a_host(self):
        [row] = verdict_rows(["pf12"], hostvars(), GROUPS, wanted(config("match_sender")))
        assert (row["host"], row["daemon"], row["expected"]) == ("pf12", "mail server", "offered")
        assert row["delivery_modes"] == ["unknown"]  # no gateway was read
        assert row["probes"] == [{**PROBE, "seen_from": place} for place in ("pf12", "gw1", "gw2")]
        assert [(one["marker"], one["direction"], one["findings"]) for one in row["traces"]] == [
            ("in-pf12-836af45b-1", "in", []),
            ("out-pf12-836af45b-1", "out", []),
        ]

    def test_a_gateway_that_did_not_test_a_mail_server_is_named(self):
        hosts = hostvars()
        hosts["gw2"] = HOSTS.get("gw2", {})
        gateway, server = verdict_rows(["gw1", "pf12"], hosts, GROUPS, wanted())
        [finding] = server["findings"]
        assert gateway["findings"] == []
        assert finding["code"] == "not_tested_from_gateway"
        assert finding["message"].startswith("pf12 was not tested from the gateway gw2; ")

    def test_the_daemons(self):
        hosts = {
            **HOSTS,
            "pf12": {**HOSTS["pf12"], "mail_server_result": {"kind": "postfix"}},
            "ex13": {**HOSTS["ex13"], "verify_activity": {"activity": {"daemon": "exim"}}},
            "hk": {"starttls_kind": "haraka"},
            "gw2": {"starttls_kind": "proxmox"},
        }
        groups = {"mail_gateways": ["gw1", "gw2"]}
        rows = verdict_rows(["gw1", "gw2", "pf12", "ex13", "hk", "strict"], hosts, groups, wanted())
        assert [row["daemon"] for row in rows] == [
            "Postfix gateway", "Proxmox Mail Gateway", "Postfix", "Exim", "Haraka", "mail server",
        ]  # fmt: skip

    def test_a_host_of_which_nothing_is_known(self):
        [row] = verdict_rows(["ex13"], HOSTS, {}, wanted())
        assert (row["probes"], row["traces"], row["delivery_modes"]) == ([], [], ["no gateway"])

    @pytest.mark.parametrize("nothing", [None, {}, {"skipped": True}])
    def test_results_that_were_skipped(self, nothing):
        facts = hostvars(**dict.fromkeys(("verify_probe", "verify_trace", "verify_outside"), nothing))
        facts.update({one: {**facts[one], "verify_from_gateway": nothing} for one in ("gw1", "gw2")})
        [row] = verdict_rows(["pf12"], facts, GROUPS, wanted())
        assert (row["probes"], row["traces"]) == ([], [])

    def test_a_message_that_could_not_be_sent_from_outside(self):
        facts = {"starttls_trace_address": "t@a.example", "verify_sent": {"failed": True, "msg": "no sendmail"}}
        facts.update(verify_trace={"skipped": True}, verify_outside={"skipped": True})
        [row] = verdict_rows(["pf12"], hostvars(**facts), GROUPS, wanted())
        assert row["errors"] == ["the test message could not be made on the outside host: no sendmail"]

    def test_a_module_that_did_not_begin_says_what_the_host_said(self):
        """As with requiretty and pipelining: Ansible's own message names a parser of JSON."""
        said = "Module result deserialization failed: No start of json char found"
        sudo = {
            "failed": True,
            "msg": said,
            "module_stderr": "sudo: sorry, you must have a tty to run sudo\n",
            "module_stdout": "",
        }
        [row] = verdict_rows(["pf12"], hostvars(verify_probe=sudo), GROUPS, wanted())
        assert (
            "the handshake test could not be made on pf12: sudo: sorry, you must have a tty to run sudo"
            in row["errors"]
        )

    def test_what_could_not_be_gathered(self):
        down, failed = {"unreachable": True, "msg": "no route"}, {"failed": True}
        facts = {
            "starttls_trace_address": "t@a.example",
            "verify_probe": down,
            "verify_controller_probe": {"skipped": True},
            "verify_trace": failed,
            "verify_outside": down,
            "verify_activity": {"failed": True, "msg": "no log"},
        }
        hosts = hostvars(**facts)
        hosts["gw1"] = {**hosts["gw1"], "verify_from_gateway": down}
        [row] = verdict_rows(["pf12"], hosts, GROUPS, wanted())
        assert row["errors"] == [
            "the handshake test could not be made on pf12: no route",
            "the handshake test could not be made on gw1: no route",
            "the test message could not be made on pf12: it failed",
            "the test message could not be made on the outside host: no route",
            "the count from the log could not be made on pf12: no log",
        ]
        assert verdict_rows(["pf12"], hostvars(), GROUPS, wanted())[0]["errors"] == []

    def test_what_the_log_and_the_inventory_say(self):
        activity = {"version": 1, "peers": []}
        enforced = [{"domain": "bank.example", "direction": "outbound"}]
        hosts = hostvars(verify_activity={"activity": activity})
        hosts["gw1"] = {**hosts["gw1"], "starttls_enforced_domains": enforced}
        gateway, server = verdict_rows(
            ["gw1", "pf12"],
            hosts,
            GROUPS,
            wanted(config("required"), config(name="two", domains=["b.example"])),
        )
        assert (server["activity"], server["enforced"], server["own_domains"]) == (activity, [], {})
        assert (gateway["activity"], gateway["enforced"]) == (None, enforced)
        assert gateway["own_domains"] == {"a.example": "required"}

    def test_a_message_in_plaintext_where_the_mode_says_tls(self):
        facts = {"verify_trace": {"received": [trace(hop(False), hop(False))]}}
        [row] = verdict_rows(["pf12"], hostvars(**facts), GROUPS, wanted(config("required")))
        assert row["traces"][0]["findings"] == ["the message from outside reached mx.example in plaintext (ESMTP)"]

    def test_a_message_that_left_in_plaintext(self):
        facts = {"verify_outside": {"received": [trace(hop(False), marker=mark("out", "pf12"))]}}
        [row] = verdict_rows(["pf12"], hostvars(**facts), GROUPS, wanted())
        assert row["traces"][-1]["findings"] == ["the message to the outside reached mx.example in plaintext (ESMTP)"]

    def test_with_tls_off_all_is_expected_in_plaintext(self):
        [row] = verdict_rows(["pf12"], hostvars(), GROUPS, wanted(config("required")), "disabled")
        assert [one["findings"] for one in row["traces"]] == [
            ["the message from outside reached mx.example over TLS (ESMTPS)"],
            ["the message to the outside reached mx.example over TLS (ESMTPS)"],
        ]

    def test_what_the_gateways_saw_counts_whatever_the_name_ends_in(self):
        [row] = verdict_rows(["pf12"], hostvars(starttls_hostname="pf12.example."), GROUPS, wanted())
        assert len(row["probes"]) == 3

    def test_a_host_whose_name_begins_as_anothers(self):
        facts = {
            host: {"verify_outside": {"received": [trace(hop(True), marker=mark("out", one)) for one in self.ALIKE]}}
            for host in self.ALIKE
        }
        rows = verdict_rows(self.ALIKE, facts, {}, wanted())
        assert [[one["marker"] for one in row["traces"]] for row in rows] == [
            [mark("out", host)] for host in self.ALIKE
        ]

    def test_no_marker_begins_as_that_of_another_host(self):
        begins = [mark("out", host, "") for host in self.ALIKE]
        assert not [(a, b) for a in begins for b in begins if a is not b and a.startswith(b)]


def test_a_header_that_can_be_read_in_two_ways_proves_nothing():
    unclear = {**hop(False), "clear": False}
    told = check_trace(trace(unclear), "in", [False])["findings"]
    assert told == [
        "the Received header of mx.example for the message from outside can be read in more than one way, so it proves nothing"
    ]


@pytest.mark.parametrize("wanted", [True, False, None])
def test_a_hop_that_is_unproven_is_neither_as_wanted_nor_the_opposite(wanted):
    assert check_trace(trace(hop(None)), "out", [wanted])["findings"] == []


@pytest.mark.parametrize(
    ("mode", "last"),
    [
        ("plaintext", False),
        ("match_sender", None),
        ("match_sender_strict", None),
        ("opportunistic", True),
        ("required", True),
    ],
)
def test_a_first_hop_that_is_unproven_allows_what_either_would(mode, last):
    assert inbound_expectations(trace(hop(None), hop(True)), [mode]) == [None, last]


class TestMessages:
    FLEET = {  # noqa: RUF012
        "pf12": {"starttls_trace_address": "trace@a.example"},
        "ex13": {"starttls_trace_address": "trace@b.example", "starttls_mailbox": "/home/trace/Maildir"},
        "gw1": {},
        "out": {"starttls_trace_address": "trace@partner.example"},
    }

    def test_each_host_gets_one_and_sends_one(self):
        messages = trace_messages(["pf12", "ex13"], self.FLEET, "out", "7")
        assert messages[0] == {
            "host": "pf12",
            "inbound": {
                "marker": "in-pf12-836af45b-7",
                "sender": "trace@partner.example",
                "recipient": "trace@a.example",
            },
            "outbound": {
                "marker": "out-pf12-836af45b-7",
                "sender": "trace@a.example",
                "recipient": "trace@partner.example",
            },
        }

    def test_hosts_without_an_address_are_left_out(self):
        assert [one["host"] for one in trace_messages(["gw1", "pf12"], self.FLEET, "out", "7")] == ["pf12"]

    def test_where_they_land(self):
        imap = {"imap": {"host": "imap.example", "user": "t", "password": "secret"}}
        fleet = {**self.FLEET, "out": {**self.FLEET["out"], "starttls_landing": imap}}
        messages = trace_messages(["pf12", "ex13"], fleet, "out", "7")
        assert "secret" not in str(messages)
        inbound, outbound = ([one[what]["marker"] for one in messages] for what in ("inbound", "outbound"))
        assert trace_landings(messages[:1], "inbound", "pf12", fleet) == [
            {"marker": inbound[0], "mailbox": "/var/mail/trace"}
        ]
        assert trace_landings(messages[1:], "inbound", "ex13", fleet) == [
            {"marker": inbound[1], "mailbox": "/home/trace/Maildir"}
        ]
        assert trace_landings(messages, "outbound", "out", fleet) == [{"marker": one, **imap} for one in outbound]

    @pytest.mark.parametrize("outside", ["", "gw1"])
    def test_without_an_outside_there_are_none(self, outside):
        assert trace_messages(["pf12"], self.FLEET, outside, "7") == []

    def test_an_outside_host_that_is_not_in_the_inventory_is_said(self):
        with pytest.raises(EngineError, match="starttls_outside_host 'nowhere' is not in the inventory"):
            trace_messages(["pf12"], self.FLEET, "nowhere", "7")

    @pytest.mark.parametrize(
        ("host", "readable"),
        [
            ("pf12.alpha.example", "pf12-alpha-example"),
            ("mailserver-frankfurt-01.customers.example.com", "mailserver-frankfurt"),
            ("2001:db8::1", "2001-db8--1"),
            ("müller_1 (alt)\n", "m-ller-1--alt--"),
        ],
    )
    def test_message_trace_takes_the_markers(self, host, readable):
        [message] = trace_messages([host], {**self.FLEET, host: self.FLEET["pf12"]}, "out", "20260101T000000-123456")
        for part in ("inbound", "outbound"):
            marker = message[part]["marker"]
            Trace(send=[{"marker": marker}]).check()
            direction = "in" if part == "inbound" else "out"
            assert re.fullmatch(rf"{direction}-{re.escape(readable)}-[0-9a-f]{{8}}-20260101T000000-123456", marker)


TRACED = {
    "a": {"starttls_trace_address": "a@a.example", "starttls_mailbox": "/var/mail/a"},
    "b": {"starttls_trace_address": "b@b.example"},
    "out": {"starttls_trace_address": "out@out.example", "starttls_mailbox": "/var/mail/out"},
    "other": {},
}
MESSAGES = trace_messages(["a", "b"], TRACED, "out", "1")


class TestTraceWork:
    def markers(self, direction, *hosts):
        return [one[direction]["marker"] for one in MESSAGES if one["host"] in hosts]

    def test_a_host_sends_its_message_and_waits_for_its_own(self):
        work = trace_work(MESSAGES, "a", TRACED)
        assert work["send"] == [MESSAGES[0]["outbound"]]
        assert work["receive"] == [{"marker": self.markers("inbound", "a")[0], "mailbox": "/var/mail/a"}]

    def test_each_message_is_sent_once_and_waited_for_once(self):
        works = [trace_work(MESSAGES, host, TRACED) for host in TRACED]
        assert [one["marker"] for work in works for one in work["send"]] == self.markers("outbound", "a", "b")
        assert [one["marker"] for work in works for one in work["receive"]] == self.markers("inbound", "a", "b")
        outside = trace_landings(MESSAGES, "outbound", "out", TRACED)
        assert [one["marker"] for one in outside] == self.markers("outbound", "a", "b")

    def test_a_host_without_messages_does_nothing(self):
        assert trace_work(MESSAGES, "other", TRACED) == {"send": [], "receive": []}
        assert trace_work([], "out", {"out": {"starttls_landing": "nonsense"}}) == {"send": [], "receive": []}

    def test_a_landing_that_is_none_is_said(self):
        work = trace_work(MESSAGES, "a", {**TRACED, "a": {"starttls_landing": "x"}})
        assert work["send"] and fault_in(work["receive"]).startswith("starttls_landing of a has to be a mapping")


TWO_HOSTS = {"hosts": {"a": {}, "b": {}}, "steps": {"accept": {"hosts": []}, "offer": {"hosts": ["a", "b"]}}}
NOT_GIVEN = {"plan": None, "results": None, "tests": None}


class TestOutcomeInput:
    def hostvars(self, **facts):
        return {"localhost": {"tls_plan": TWO_HOSTS}, "a": {}, "b": {}, **facts}

    def test_by_default_all_of_it_is_what_the_run_registered(self):
        done = {"after": {"inbound": "offered"}}
        tests = [
            {"name": "a", "port": 25, "findings": []},
            {"name": "b", "port": 25, "findings": [{"code": "expired"}]},
        ]
        hostvars = self.hostvars(a={"mail_server_result": done, "verify_from_a_gateway": {"results": tests}})
        assert outcome_input({**NOT_GIVEN, "step": "offer"}, {"hostvars": hostvars}) == {
            "plan": TWO_HOSTS, "step": "offer", "results": {"a": done, "b": {}}, "tests": [{**tests[0], "inventory_host": "a"}],
            "batch": [], "fail_on": "error",
        }  # fmt: skip

    def test_the_batch_and_what_a_run_may_fail_on_are_those_of_the_task(self):
        variables = {"hostvars": self.hostvars(), "ansible_play_batch": ["a"], "starttls_fail_on": "warning"}
        made = outcome_input({**NOT_GIVEN, "step": "offer"}, variables)
        assert (made["batch"], made["fail_on"]) == (["a"], "warning")

    def test_case_and_a_dot_do_not_hide_a_test_of_a_gateway(self):
        tests = [{"name": "A.", "port": 25, "findings": [{"code": "expired"}]}]
        hostvars = self.hostvars(a={"starttls_hostname": "a", "verify_from_a_gateway": {"results": tests}})
        [test] = outcome_input({**NOT_GIVEN, "step": "offer"}, {"hostvars": hostvars})["tests"]
        assert test["findings"] == [{"code": "expired"}]

    @pytest.mark.parametrize(
        ("step", "variable"),
        [
            ("accept", "gateway_accept_result"), ("offer", "mail_server_result"), ("modes", "gateway_result"),
            ("require", "mail_server_result"), ("relax", "mail_server_result"), ("off", "mail_server_result"),
            ("stop_accepting", "gateway_accept_result"), ("remove", "gateway_removed"), ("put_back", "mail_server_put_back"),
        ],
    )  # fmt: skip
    def test_each_step_has_the_results_of_its_role(self, step, variable):
        plan = {"hosts": {"a": {}}, "steps": {step: {"hosts": ["a"]}}}
        names = (
            "mail_server_result",
            "gateway_accept_result",
            "gateway_result",
            "gateway_removed",
            "mail_server_put_back",
        )
        hostvars = {"localhost": {"tls_plan": plan}, "a": {name: {"of": name} for name in names}}
        assert outcome_input({**NOT_GIVEN, "step": step}, {"hostvars": hostvars})["results"] == {"a": {"of": variable}}

    @pytest.mark.parametrize("made", [{"unreachable": True, "msg": "no route"}, {"failed": True, "msg": "no route"}])
    def test_a_test_from_the_gateway_that_could_not_be_made_stops_the_run(self, made):
        hostvars = self.hostvars(a={"mail_server_result": {}, "verify_from_a_gateway": made})
        [test] = outcome_input({**NOT_GIVEN, "step": "offer"}, {"hostvars": hostvars})["tests"]
        [finding] = test["findings"]
        assert (test["inventory_host"], finding["severity"]) == ("a", "error")
        assert "the gateway did not test it: no route" in finding["message"]

    @pytest.mark.parametrize("made", [None, {}, {"skipped": True}])
    def test_without_a_gateway_there_is_no_such_test(self, made):
        assert (
            outcome_input(
                {**NOT_GIVEN, "step": "offer"}, {"hostvars": self.hostvars(a={"verify_from_a_gateway": made})}
            )["tests"]
            == []
        )

    def test_what_is_given_counts(self):
        given = {"plan": {"steps": {}}, "results": {"x": {}}, "tests": [{"inventory_host": "x"}], "step": "offer"}
        assert outcome_input(given, {"hostvars": self.hostvars()}) == {**given, "batch": [], "fail_on": "error"}

    def test_without_a_plan_the_run_does_not_go_on(self):
        with pytest.raises(EngineError, match="this run has no plan; start the playbook at its beginning"):
            outcome_input({**NOT_GIVEN, "step": "offer"}, {"hostvars": {"localhost": {}}})
