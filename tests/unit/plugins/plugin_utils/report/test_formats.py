"""CSV, JUnit and Prometheus: what their readers make of them, whatever hosts and strangers said."""

import csv
import io
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from datetime import timedelta

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.csv_table import COLUMNS, harmless, render_csv
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.document import build
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.formats import FORMATS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.junit import render_junit
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.peers import merged
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.prometheus import (
    HELP,
    MAX_DOMAINS,
    render_prometheus,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.support.report_rows import (
    NOW,
    activity,
    demo_rows,
    failed_probe,
    hop,
    hostile,
    large_rows,
    peer,
    previous_document,
    probe,
    tls_report,
    trace,
)

DEMO = build(demo_rows(), title="T", now=NOW, previous=previous_document())
HOSTILE = st.text(max_size=12) | st.sampled_from(
    ['"><script>', "]]>", "&amp;", "\\", '"', "\n", "\x00", "\ufffe", "=1+1", "a}b", "-----BEGIN"]
)


def report(*rows, **options):
    return build(list(rows), title="T", now=NOW, **options)


def hostile_report(text):
    rows, tls_reports = hostile(text)
    return report(*rows, tls_reports=tls_reports)


def test_the_same_but_for_the_time():
    later = {**DEMO, "generated_at": "2026-04-01T00:00:00Z"}
    other = {**later, "title": "Something else", "hosts": DEMO["hosts"][:1]}
    for name, kind in FORMATS.items():
        text = kind.render(DEMO)
        assert kind.same(text, kind.render(later)), name
        assert not kind.same(text, kind.render(other)), name
        assert name == "csv" or text != kind.render(later)


class TestPeers:
    def test_words(self):
        found = {one.domain: one for one in merged(DEMO["hosts"])}
        bank = found["bank.example.net"]
        assert (bank.sender.level, bank.recipient.level, bank.troubles) == ("pe_tls", "pe_tls", 17)
        assert found["printer.example.net"].sender.level == "smtp"
        assert found["printer.example.net"].recipient.level == ""
        assert found["supplier.example.org"].sender.level == "tls smtp"

    def test_hosts_are_added_up(self):
        partner = next(one for one in merged(DEMO["hosts"]) if one.domain == "partner.example.com")
        assert (partner.sender.tls, partner.recipient.tls) == (4_212, 3_871 + 2_204)


class TestCsv:
    def test_rows(self):
        rows = list(csv.DictReader(io.StringIO(render_csv(DEMO))))
        assert list(rows[0]) == list(COLUMNS)
        assert len(rows) == sum(len(host["activity"]["peers"]) + len(host["tests"]) for host in DEMO["hosts"])
        bank = next(row for row in rows if (row["domain"], row["direction"]) == ("bank.example.net", "inbound"))
        wanted = {
            "host": "gw1", "verdict": "pass", "sender_tls": "pe_tls", "recipient_tls": "", "messages_tls": "1904",
            "messages_plaintext": "0", "refusals": "17", "reasons": "enforced_sender", "last_event": "2026-03-08T21:14:03Z",
        }  # fmt: skip
        assert {name: bank[name] for name in wanted} == wanted
        assert bank["versions"] == "TLSv1.3:1523 TLSv1.2:381"

    def test_a_host_without_logs_has_a_row(self):
        rows = list(csv.DictReader(io.StringIO(render_csv(report({"host": "mx", "probes": [probe("mx.test")]})))))
        assert [(row["host"], row["verdict"], row["domain"]) for row in rows] == [("mx", "pass", "")]
        nothing = list(csv.DictReader(io.StringIO(render_csv(report({"host": "mx", "activity": activity("", [])})))))
        assert [(row["host"], row["server"], row["domain"]) for row in nothing] == [("mx", "", "")]

    def test_what_tls_a_host_has(self):
        rows = list(csv.DictReader(io.StringIO(render_csv(DEMO))))
        near, far = (row for row in rows if row["host"] == "pf12" and row["server"])
        number = f"{sum(map(ord, 'pf12.fleet.test')):064x}"
        wanted = {
            "server": "pf12.fleet.test:25", "starttls": "offered", "tls_version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384",
            "trusted": "yes", "certificate": "CN=pf12.fleet.test", "fingerprint_sha256": number, "group": "x25519", "domain": "",
            "days_left": near["days_left"], "errors": "0", "message_in": "2 of 2 hops over TLS",
        }  # fmt: skip
        assert {name: near[name] for name in wanted} == wanted
        assert near["days_left"].isdigit() and near["not_after"].startswith("20") and near["delivery_modes"]
        assert (near["seen_from"], far["seen_from"]) == ("", "gw1")
        bad = [row for row in rows if row["host"] == "ex13"]
        assert {row["verdict"] for row in bad} == {"FAIL"} and int(bad[0]["errors"]) > 0
        plain = next(row for row in bad if row["starttls"] == "not offered")
        assert (plain["tls_version"], plain["trusted"], plain["days_left"]) == ("", "", "")

    def test_what_is_unknown_is_no_word_of_its_own(self):
        unseen = failed_probe("mx.test", "connect_failed", "no route", stage="connect", starttls_advertised=None)
        [row] = csv.DictReader(io.StringIO(render_csv(report({"host": "mx", "probes": [unseen]}))))
        assert (row["starttls"], row["trusted"]) == ("unproven", "")

    @pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", " =1", "\t=1", "\r=1", "|x", "%x"])
    def test_formulas_are_made_harmless(self, cell):
        assert harmless(cell) == f"'{cell}"

    def test_other_cells_stay(self):
        assert [harmless(cell) for cell in ("a=b", "mx-1.test", "", 5, -5)] == ["a=b", "mx-1.test", "", 5, -5]

    @given(HOSTILE)
    def test_hostile_texts(self, text):
        rows = list(csv.reader(io.StringIO(render_csv(hostile_report(text)))))
        assert {len(row) for row in rows} == {len(COLUMNS)}
        assert len(rows) == 7
        assert not any(cell.lstrip(" \u00a0\ufeff").startswith(("=", "+", "-", "@")) for row in rows for cell in row)


SUITE = ("id", "package", "name", "hostname", "timestamp", "tests", "failures", "errors", "time")


def check_junit(text):
    """What the format's strict schema asks for; the suites by name."""
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    assert root.attrib == {}
    for number, suite in enumerate(root):
        assert suite.tag == "testsuite"
        assert tuple(suite.attrib) == SUITE
        assert suite.get("id") == str(number)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
        tags = [child.tag for child in suite]
        assert tags == ["properties", *["testcase"] * (len(tags) - 3), "system-out", "system-err"]
        cases = suite.findall("testcase")
        assert int(suite.get("tests")) == len(cases) > 0
        assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
        assert len({case.get("name") for case in cases}) == len(cases)
        for case in cases:
            assert tuple(case.attrib) == ("classname", "name", "time")
            assert [child.tag for child in case] in ([], ["failure"], ["skipped"])
            assert all(tuple(child.attrib) in (("type", "message"), ("message",)) for child in case)
    return {suite.get("name"): suite for suite in root}


class TestJunit:
    def test_suites(self):
        suites = check_junit(render_junit(DEMO))
        assert list(suites) == ["gw1", "pf12", "pf13", "ex12", "ex13", "alerts"]
        assert [case.get("name") for case in suites["pf12"].findall("testcase")] == [
            "handshake pf12.fleet.test:25", "handshake pf12.fleet.test:25 seen from gw1", "message in", "message out", "host",
        ]  # fmt: skip
        assert (suites["pf12"].get("failures"), suites["ex13"].get("failures"), suites["alerts"].get("failures")) == (
            "0",
            "3",
            "5",
        )
        failure = suites["ex13"].find("testcase/failure")
        assert failure.get("type") == "starttls_not_offered"
        assert failure.text.startswith("error: the server does not offer STARTTLS; switch STARTTLS on")
        assert "What" not in failure.text

    def test_two_runs_have_the_same_names(self):
        """So a CI can compare them. A run has markers and times of its own, and maybe other findings."""

        def names(marker, now, *findings):
            trace = {"arrived": True, "direction": "in", "marker": marker, "hops": [], "findings": []}
            row = {"host": "mx", "probes": [probe("mx.test", findings=list(findings))], "traces": [trace], "errors": []}
            suites = check_junit(render_junit(build([row], title="x", now=now)))
            return [
                (case.get("classname"), case.get("name"))
                for suite in suites.values()
                for case in suite.findall("testcase")
            ]

        later = NOW + timedelta(days=1)
        expiring = {"code": "expires_soon", "severity": "warning", "message": "12 days left; renew it"}
        first = names("in-mx-1a2b-20260101T000000-1", NOW)
        assert first == names("in-mx-1a2b-20260102T000000-77", later, expiring)
        assert not any(re.search(r"\d{8}", name) for _class, name in first)

    def test_what_does_not_fail_is_told_all_the_same(self):
        finding = {"code": "expires_soon", "severity": "warning", "message": "12 days left; renew it"}
        suite = check_junit(render_junit(report({"host": "mx", "probes": [probe("mx.test", findings=[finding])]})))[
            "mx"
        ]
        assert suite.get("failures") == "0"
        assert suite.find("system-out").text == "handshake mx.test:25: warning: 12 days left; renew it"
        strict = report({"host": "mx", "probes": [probe("mx.test", findings=[finding])]}, fail_on="warning")
        assert check_junit(render_junit(strict))["mx"].get("failures") == "1"

    def test_a_host_without_a_test_fails(self):
        suite = check_junit(render_junit(report({"host": "mx"})))["mx"]
        assert suite.find("testcase").get("name") == "host"
        assert suite.find("testcase/failure").get("message") == "the handshake test was not made"

    def test_a_test_that_finds_what_was_expected_passes(self):
        row = {
            "host": "mx",
            "expected": "disabled",
            "probes": [failed_probe("mx.test", "starttls_not_offered", "not offered")],
        }
        assert check_junit(render_junit(report(row)))["mx"].get("failures") == "0"

    @given(HOSTILE)
    def test_hostile_texts(self, text):
        check_junit(render_junit(hostile_report(text)))


SAMPLE = re.compile(
    r'(?P<name>[a-z_]+)(?:\{(?P<labels>[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"(?:,[a-z_]+="(?:[^"\\\n]|\\[\\"n])*")*)\})? (?P<value>-?[0-9.e+-]+)'
)


def check_prometheus(text):
    """Read it as the text format is defined: {(name, labels): value}."""
    assert text.endswith("\n")
    samples, typed = {}, []
    for line in text[:-1].split("\n"):
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert kind == "gauge"
            assert name not in typed
            typed.append(name)
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match["name"] == typed[-1], "samples of a metric stand together"
            assert (match["name"], match["labels"]) not in samples
            samples[match["name"], match["labels"]] = float(match["value"])
    return samples


class TestPrometheus:
    def test_samples(self):
        samples = check_prometheus(render_prometheus(DEMO))
        prefix = "mailfleet_starttls_"
        wanted = {
            ("report_generated_timestamp_seconds", None): 1773036012,
            ("host_passed", 'host="ex13",daemon="Exim"'): 0,
            ("host_passed", 'host="pf13",daemon="Postfix"'): 1,
            ("test_starttls_offered", 'host="ex13",server="ex13.fleet.test:25",seen_from="gw1"'): 0,
            (
                "certificate_expiry_timestamp_seconds",
                'host="pf13",server="pf13.fleet.test:25",seen_from=""',
            ): 1773478812,
            ("alerts", 'code="enforced_inbound_remote",severity="error",cause="remote"'): 1,
            ("window_messages", 'host="ex13",direction="inbound",transport="plaintext"'): 640,
            ("window_sessions_by_version", 'host="gw1",direction="inbound",version="TLSv1"'): 41,
            ("window_events", 'host="gw1",direction="inbound",kind="refusals"'): 17,
            ("window_peer_messages", 'domain="printer.example.net",direction="inbound",transport="plaintext"'): 402,
        }
        assert {key: samples[prefix + key[0], key[1]] for key in wanted} == wanted

    def test_strangers_cannot_make_series_without_end(self):
        few = render_prometheus(build(large_rows(5, 400), title="T", now=NOW))
        domains = set(re.findall(r'domain="([^"]*)"', few))
        assert len(domains) == MAX_DOMAINS + 1
        samples = check_prometheus(few)
        assert (
            samples["mailfleet_starttls_window_peer_messages", 'domain="other",direction="inbound",transport="tls"'] > 0
        )
        row = {
            "host": "mx",
            "activity": activity("", [{**peer("a.example", "inbound"), "versions": {f"v{n}": 1 for n in range(90)}}]),
        }
        versions = set(re.findall(r'version="([^"]*)"', render_prometheus(report(row))))
        assert versions == {"other"}

    def test_two_tests_of_one_name_are_one_series(self):
        row = {"host": "mx", "probes": [probe("mx.test"), probe("mx.test", passed=False)]}
        samples = check_prometheus(render_prometheus(report(row)))
        assert samples["mailfleet_starttls_test_passed", 'host="mx",server="mx.test:25",seen_from=""'] == 0

    @given(HOSTILE)
    def test_hostile_texts(self, text):
        check_prometheus(render_prometheus(hostile_report(text)))

    def test_prometheus_itself_finds_nothing(self):
        if not shutil.which("promtool"):
            pytest.skip("promtool is missing: install the Debian package prometheus")
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=render_prometheus(DEMO), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")

    def test_every_metric_can_appear(self):
        entry = {
            "organization": "a", "report_id": "1", "start": "", "end": "", "domain": "alpha.test", "policy_type": "sts",
            "successful": tls_report()["policies"][0]["summary"]["total-successful-session-count"], "failed": 2, "failures": [],
        }  # fmt: skip
        text = render_prometheus(
            report(*demo_rows(), {"host": "relay", "peers": [hop("exchange")]}, tls_reports=[entry])
        )
        assert {name.removeprefix("mailfleet_starttls_") for name in re.findall("# TYPE ([a-z_]+)", text)} == set(HELP)
        assert 'tlsrpt_sessions{domain="alpha.test",result="successful"} 5300' in text

    def test_the_times_in_reports_do_not_choose_which_domains_have_a_series(self):
        """Whoever sends a report chooses its times, so an early one must not push an own domain out."""
        domains = [f"d{number:02}.test" for number in range(60)]
        entries = [
            {"organization": "a", "report_id": "1", "start": start, "end": "", "domain": domain, "policy_type": "sts",
             "successful": 1, "failed": 2, "failures": []}
            for start, order in (("0001", reversed(domains)), ("2026", domains)) for domain in order
        ]  # fmt: skip
        text = render_prometheus(report(*demo_rows(), tls_reports=entries))
        shown = set(re.findall('tlsrpt_sessions{domain="([^"]+)"', text))
        assert shown == {*domains[:50], "other"}


def test_a_server_that_did_not_answer_is_not_said_to_offer_no_starttls():
    down = failed_probe("mx.test", "connect_failed", "it is down", stage="connect")
    document = report({"host": "mx", "probes": [down]})
    assert "test_starttls_offered" not in render_prometheus(document)
    html = FORMATS["html"].render(document)
    assert 'data-label="STARTTLS">unproven' in html and "not offered" not in html
    ehlo = report({"host": "mx", "probes": [down, failed_probe("mx.test", "starttls_not_offered", "x")]})
    assert 'data-label="STARTTLS">not offered' in FORMATS["html"].render(ehlo)
    implicit = probe("mx.test", starttls_advertised=False, stage="quit")
    assert 'data-label="STARTTLS">\u2013' in FORMATS["html"].render(report({"host": "mx", "probes": [implicit]}))


def test_mail_that_is_unproven_is_a_value_of_its_own_in_every_format():
    mixed = {**peer("a.example", "outbound", 6, 1), "sessions_unknown": 4, "messages_unknown": 3}
    blind = {**peer("b.example", "inbound", 0), "messages_unknown": 2}
    document = report({"host": "mx", "activity": activity("postfix", [mixed, blind])})
    rows = {row["domain"]: row for row in csv.DictReader(io.StringIO(render_csv(document)))}
    assert (rows["a.example"]["recipient_tls"], rows["a.example"]["messages_unknown"]) == ("tls smtp unproven", "3")
    assert (rows["b.example"]["sender_tls"], rows["b.example"]["messages_plaintext"]) == ("unproven", "0")
    samples = check_prometheus(render_prometheus(document))
    for metric, labels, value in (
        ("window_messages", 'host="mx",direction="outbound",transport="unproven"', 3),
        ("window_sessions", 'host="mx",direction="outbound",transport="unproven"', 4),
        ("window_messages", 'host="mx",direction="inbound",transport="plaintext"', 0),
        ("window_peer_messages", 'domain="b.example",direction="inbound",transport="unproven"', 2),
        ("alerts", 'code="mail_unproven",severity="warning",cause="local"', 2),
    ):
        assert samples[f"mailfleet_starttls_{metric}", labels] == value
    assert "mail_unproven mx outbound" in render_junit(document)
    assert document["summary"]["messages"]["outbound"] == {"tls": 6, "plaintext": 1, "unknown": 3}


def test_a_hop_that_is_unproven_is_a_warning_in_every_format():
    row = {"host": "mx", "probes": [probe("mx.example")], "traces": [trace("in", True, None)]}
    document = report(row)
    [finding] = document["hosts"][0]["findings"]
    assert (finding["code"], finding["severity"], document["hosts"][0]["verdict"]) == (
        "hop_unproven",
        "warning",
        "pass",
    )
    assert "in: 1 of 2 hops over TLS, 1 unproven" in FORMATS["html"].render(document)
    assert 'host_findings{host="mx",severity="warning"} 1' in render_prometheus(document)
    [suite] = ET.fromstring(render_junit(document)).iter("testsuite")
    assert suite.findtext("system-out").startswith("message in: warning: the Received header of mx.example.test")
    [suite] = ET.fromstring(render_junit(report(row, fail_on="warning"))).iter("testsuite")
    assert [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None] == ["message in"]
