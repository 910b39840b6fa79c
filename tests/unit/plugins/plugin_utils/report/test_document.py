"""The report as a value: its shape is the schema's, whatever was gathered."""

import json
from pathlib import Path

import jsonschema
import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.document import (
    ReportError,
    build,
    clean,
    load_previous,
    render_json,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.formats import FORMATS
from hypothesis import given
from hypothesis import strategies as st

from tests.support.report_rows import (
    NOW,
    WINDOW,
    activity,
    counts,
    demo_rows,
    failed_probe,
    large_rows,
    peer,
    previous_document,
    probe,
    trace,
)

ROOT = Path(__file__).resolve().parents[5]
SCHEMA = json.loads((ROOT / "docs/schema/report.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = (
    "daemon", "probes", "traces", "delivery_modes", "activity", "enforced", "own_domains",
)  # fmt: skip


def document(*rows, **options):
    return build(list(rows), title="TLS", now=NOW, **options)


def one(**row):
    return document({"host": "mx", "probes": [probe("mx.test")], **row})["hosts"][0]


class TestSchema:
    def test_is_one(self):
        jsonschema.Draft202012Validator.check_schema(SCHEMA)
        assert SCHEMA["$id"] == "urn:mailfleet:starttls:report:1"

    @pytest.mark.parametrize(
        "rows", [demo_rows(), large_rows(20, 60), [{"host": "mx"}]], ids=["demo", "large", "least"]
    )
    def test_documents_are_valid(self, rows):
        VALIDATOR.validate(json.loads(render_json(build(rows, title="T", now=NOW, previous=previous_document()))))

    def test_it_can_fail(self):
        report = document({"host": "mx"})
        for wrong in ({**report, "more": 1}, {**report, "version": 2}, {**report, "hosts": [{}]}):
            assert not VALIDATOR.is_valid(wrong)

    @given(
        st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, ANYTHING)),
        st.fixed_dictionaries({}, optional=dict.fromkeys(probe("x"), ANYTHING)),
        st.fixed_dictionaries({}, optional=dict.fromkeys(activity("", []), ANYTHING)),
        st.fixed_dictionaries({}, optional=dict.fromkeys(counts(), ANYTHING)),
    )
    def test_whatever_a_host_says(self, row, test, active, counted):
        row = {
            "host": "mx",
            "probes": [{**probe("mx.test"), **test}],
            "activity": {
                **activity("", []),
                "peers": [{"domain": "a.example", "direction": "inbound", **counted}],
                "totals": {"inbound": counted},
                **active,
            },
            **row,
        }
        report = document(row)
        VALIDATOR.validate(json.loads(render_json(report)))
        for kind in FORMATS.values():
            kind.render(report).encode()


class TestHosts:
    def test_nothing_was_gathered(self):
        host = document({"host": "mx"})["hosts"][0]
        assert (host["verdict"], host["findings"]) == (
            "FAIL",
            [{"code": "not_tested", "severity": "error", "message": "the handshake test was not made"}],
        )

    def test_logs_alone_make_no_finding(self):
        assert document({"host": "mx", "activity": activity("", [])})["hosts"][0]["verdict"] == "pass"

    def test_findings_say_from_where(self):
        bad = failed_probe("mx.test", "timeout", "no answer", seen_from="gw1")
        assert one(probes=[bad])["findings"] == [
            {"code": "timeout", "severity": "error", "message": "no answer (seen from gw1)"}
        ]

    @pytest.mark.parametrize(
        ("severity", "fail_on", "verdict"),
        [
            ("error", "error", "FAIL"), ("warning", "error", "pass"), ("notice", "error", "pass"),
            ("warning", "warning", "FAIL"), ("notice", "warning", "pass"), ("notice", "notice", "FAIL"), (None, "error", "FAIL"),
        ],
    )  # fmt: skip
    def test_severity(self, severity, fail_on, verdict):
        finding = {
            "code": "x" if severity else "timeout",
            "message": "y",
            **({"severity": severity} if severity else {}),
        }
        report = document({"host": "mx", "probes": [probe("mx.test", findings=[finding])]}, fail_on=fail_on)
        assert report["hosts"][0]["verdict"] == verdict
        assert report["summary"]["failed"] == (verdict == "FAIL")

    @pytest.mark.parametrize("code", ["x", "", None])
    def test_a_finding_that_is_not_in_the_catalogue_is_called_unknown(self, code):
        [finding] = one(probes=[probe("mx.test", findings=[{"code": code, "message": "y"}])])["findings"]
        assert (finding["code"], finding["severity"]) == ("unknown_finding", "error")
        assert finding["message"] == f"y (the code {code or ''!r} is not in the catalogue of findings)"

    def test_tls_off_as_expected(self):
        bad = failed_probe("mx.test", "starttls_not_offered", "not offered")
        assert one(probes=[bad], expected="disabled")["verdict"] == "pass"
        assert one(expected="disabled")["findings"][0]["message"] == "STARTTLS is still offered"

    def test_a_message_that_went_the_wrong_way(self):
        bad = trace("in", True, False, findings=("the message reached mx in plaintext",))
        assert one(traces=[bad])["findings"] == [
            {"code": "message", "severity": "error", "message": "the message reached mx in plaintext"}
        ]

    def test_no_key_material_and_no_pem(self):
        text = render_json(
            document(*demo_rows(), {"host": "x", "probes": [probe("x", chain=["-----BEGIN CERTIFICATE-----"])]})
        )
        assert "BEGIN" not in text
        assert "chain_pem" not in text

    def test_a_stranger_whose_name_looks_like_pem_is_reported_all_the_same(self):
        name = "-----BEGIN"
        failure = {"result_type": name, "sending_mta_ip": name, "receiving_mx": name, "count": 1, "reason": name}
        entry = {
            "organization": name, "report_id": name, "start": name, "end": name, "domain": "a.example", "policy_type": "sts",
            "successful": 1, "failed": 1, "failures": [failure],
        }  # fmt: skip
        report = document({"host": "mx", "probes": [probe(name)]}, tls_reports=[entry])
        VALIDATOR.validate(json.loads(render_json(report)))
        assert report["hosts"][0]["tests"][0]["name"] == "..."
        assert report["tls_reports"] == [
            {**entry, **dict.fromkeys(("organization", "report_id", "start", "end"), "..."),
             "failures": [{key: value if key == "count" else "..." for key, value in failure.items()}]}
        ]  # fmt: skip
        [alert] = [one for one in report["alerts"] if one["code"] == "tlsrpt_failures"]
        assert alert["message"] == "... could not set up TLS with a.example: 1 session failed (...)."


class TestWhole:
    def test_summary(self):
        report = build(demo_rows(), title="T", window=WINDOW, now=NOW, previous=previous_document())
        assert report["summary"]["hosts"] == 5
        assert (report["summary"]["passed"], report["summary"]["failed"]) == (4, 1)
        assert report["summary"]["alerts"] == {"error": 5, "warning": 1, "notice": 0}
        assert report["summary"]["messages"]["inbound"] == {"tls": 40_937, "plaintext": 1_185, "unknown": 0}
        assert report["window"] == WINDOW
        assert report["generated_at"] == "2026-03-09T06:00:12Z"

    def test_the_window_is_that_of_the_logs(self):
        assert document(*demo_rows())["window"] == WINDOW
        assert document({"host": "mx"})["window"] is None

    @pytest.mark.parametrize(
        ("rows", "why"),
        [
            ([], "there is no host"),
            ([{"daemon": "x"}], "needs the name of its host"),
            ([{"host": ""}], "needs the name of its host"),
            ([{"host": "a"}, {"host": "a"}], "more than one of the rows"),
            ([{"host": "a", "expected": "x"}], "has to be one of"),
        ],
    )
    def test_what_is_no_report(self, rows, why):
        with pytest.raises(ReportError, match=why):
            document(*rows)

    def test_too_many_peers(self):
        peers = [peer(f"d{number}.example", "inbound", 1) for number in range(50_001)]
        host = one(activity=activity("", peers))
        assert len(host["activity"]["peers"]) == 50_000
        assert host["activity"]["truncated"]


class TestClean:
    def test_texts(self):
        assert clean("a\x1b[2J\nb\u202e\ud800") == "a?[2J?b??"
        assert len(clean("x" * 10_000)) == 2_000

    def test_numbers(self):
        assert clean([float("nan"), float("inf"), 10**30, True, 0.5]) == [None, None, 2**53 - 1, True, 0.5]

    def test_depth(self):
        deep = value = {}
        for _ in range(10_000):
            value["a"] = {}
            value = value["a"]
        assert "a" in clean({"a": deep})


class TestPrevious:
    def test_a_report(self):
        report = document({"host": "mx"})
        assert load_previous(render_json(report).encode()) == report

    @pytest.mark.parametrize(
        "text", [b"", b"[" * 100_000, b"[]", b"{}", b'{"version": 1}', b'{"version": 2, "hosts": []}']
    )
    def test_what_is_none(self, text):
        with pytest.raises(ReportError):
            load_previous(text)
