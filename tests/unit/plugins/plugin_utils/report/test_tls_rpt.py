"""Reports of RFC 8460: what is read, and what a hostile sender gets for his trouble."""

import base64
import contextlib
import gzip
import json
import time
import zlib

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils import limits
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import ExhaustedError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report import tls_rpt
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.alerts import _TLSRPT_ACTIONS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.tls_rpt import (
    MissingJsonschemaError,
    TlsReportError,
    inflate,
    parse,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.support.report_rows import NOW, tls_report

REPORT = json.dumps(tls_report()).encode()
ENTRY = {
    "organization": "Example Mail", "report_id": "2026-03-08-1", "start": "2026-03-08T00:00:00Z", "end": "2026-03-08T23:59:59Z",
    "domain": "alpha.test", "policy_type": "sts", "successful": 5300, "failed": 12,
    "failures": [{
        "result_type": "certificate-host-mismatch", "sending_mta_ip": "2001:db8::25", "receiving_mx": "mx1.alpha.test",
        "count": 12, "reason": "",
    }],
}  # fmt: skip


def mail(kind, payload, name="report.json.gz"):
    return (
        "From: reports@example.com\r\nTo: tls@alpha.test\r\nSubject: Report Domain: alpha.test\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type="tlsrpt"; boundary="b"\r\n\r\n'
        "--b\r\nContent-Type: text/plain\r\n\r\nThis is a report.\r\n"
        f'--b\r\nContent-Type: {kind}\r\nContent-Disposition: attachment; filename="{name}"\r\n'
        f"Content-Transfer-Encoding: base64\r\n\r\n{base64.encodebytes(payload).decode()}\r\n--b--\r\n"
    ).encode()


def read_reports(paths, now=NOW, domains=("alpha.test",)):
    return tls_rpt.read_reports(paths, domains, now)


def changed(**changes):
    return json.dumps({**tls_report(), **changes}).encode()


@pytest.mark.parametrize(
    "data",
    [
        REPORT,
        b"\xef\xbb\xbf" + REPORT,
        gzip.compress(REPORT),
        mail("application/tlsrpt+gzip", gzip.compress(REPORT)),
        mail("application/tlsrpt+json", REPORT, "report"),
        mail("application/octet-stream", gzip.compress(REPORT)),
    ],
    ids=["json", "bom", "gzip", "mail", "plain mail", "mail of an unknown type"],
)
def test_every_form_of_a_report(tmp_path, data):
    (tmp_path / "report").write_bytes(data)
    assert read_reports([str(tmp_path / "report")], NOW) == ([ENTRY], [])


def test_a_report_sent_twice_counts_once(tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_bytes(REPORT)
    assert len(read_reports([str(tmp_path / "a.json"), str(tmp_path / "b.json")], NOW)[0]) == 1


def test_several_policies_of_a_type_for_a_domain_all_count(tmp_path):
    policy = tls_report()["policies"][0]
    (tmp_path / "a.json").write_bytes(changed(policies=[policy, policy]))
    (tmp_path / "b.json").write_bytes(changed(policies=[policy, policy]))
    assert read_reports([str(tmp_path / "a.json"), str(tmp_path / "b.json")], NOW) == ([ENTRY, ENTRY], [])


def test_what_is_wrong_is_named_and_left_out(tmp_path):
    (tmp_path / "good.json").write_bytes(REPORT)
    (tmp_path / "bad.json").write_bytes(b"{")
    found, problems = read_reports([str(tmp_path / "bad.json"), str(tmp_path / "good.json")], NOW)
    assert found == [ENTRY]
    assert problems == ["bad.json: it is not readable JSON (JSONDecodeError)"]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_reports([str(tmp_path / "nothing.json")], NOW)


def test_without_the_library(monkeypatch):
    monkeypatch.setattr(tls_rpt, "HAS_JSONSCHEMA", False)
    assert read_reports([]) == ([], [])
    with pytest.raises(MissingJsonschemaError, match="pip install jsonschema"):
        read_reports(["x.json"])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[" * 200_000, "not readable JSON"),
        (b"\xff\xfe{", "not readable JSON"),
        (b'{"a": NaN}', "not readable JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not readable JSON"),
        (b"[]", "not a report by RFC 8460"),
        (b"{}", "'organization-name' is a required property"),
        (changed(policies={}), "policies: "),
        (changed(policies=[3]), "policies/0: 3 is not of type 'object'"),
        (changed(policies=[{**tls_report()["policies"][0], "summary": {}}]), "policies/0/summary"),
        (json.dumps(tls_report(failed=-1)).encode(), "minimum"),
        (json.dumps(tls_report(failed=2**60)).encode(), "maximum"),
        (json.dumps(tls_report(**{"policy-type": "<script>"})).encode(), "policy-type"),
        (
            changed(**{"date-range": {"start-datetime": "soon", "end-datetime": "x"}}),
            "not a time in the form of RFC 3339",
        ),
        (
            changed(
                **{"date-range": {"start-datetime": "2099-01-01T00:00:00Z", "end-datetime": "2099-01-02T00:00:00Z"}}
            ),
            "about the future",
        ),
        (
            changed(
                **{"date-range": {"start-datetime": "2026-03-02T00:00:00Z", "end-datetime": "2026-03-01T00:00:00Z"}}
            ),
            "ends before it begins",
        ),
        (
            changed(
                **{
                    "date-range": {
                        "start-datetime": "0001-01-01T00:00:00+14:00",
                        "end-datetime": "2026-03-01T00:00:00Z",
                    }
                }
            ),
            "not a time",
        ),
    ],
)
def test_hostile_reports(data, why):
    with pytest.raises(TlsReportError) as caught:
        parse(data, NOW)
    assert why in str(caught.value)
    assert len(str(caught.value)) < 1_000


def policy_with(**changes):
    """The policy of the good report, with other members; those of summary and policy by their own names."""
    policy = json.loads(REPORT)["policies"][0]
    return {**policy, **changes}


SUMMARY, DETAIL = tls_report()["policies"][0]["summary"], tls_report()["policies"][0]["failure-details"][0]
SUCCESSES, FAILURES = "total-successful-session-count", "total-failure-session-count"


@pytest.mark.parametrize(
    ("report", "changes"),
    [
        (changed(**{"report-id": 5}), {"report_id": "5"}),
        (changed(**{"contact-info": None}), {}),
        (changed(policies=policy_with()), {}),
        (changed(policies=[policy_with(summary={SUCCESSES: "5300", FAILURES: " 12 "})]), {}),
        (changed(policies=[policy_with(summary={SUCCESSES: 5300})]), {}),
        (changed(policies=[policy_with(summary={SUCCESSES: 5300, FAILURES: None})]), {}),
        (changed(policies=[policy_with(policy={"policy-type": "STS", "policy-domain": "alpha.test"})]), {}),
        (changed(policies=[policy_with(policy={"policy-type": "sts", "policy-domain": "alpha.test", "mx-host": None})]), {}),
        (changed(policies=[policy_with(policy={"policy-type": "sts"})]), {"domain": "unknown"}),
        (changed(policies=[policy_with(policy={"policy-type": "sts", "policy-domain": None})]), {"domain": "unknown"}),
        (changed(policies=[policy_with(**{"failure-details": DETAIL})]), {}),
        (changed(policies=[policy_with(**{"failure-details": [{**DETAIL, "additional-information": None}]})]), {}),
        (changed(policies=[policy_with(**{"failure-details": [{**DETAIL, "failed-session-count": "12"}]})]), {}),
        (changed(policies=[policy_with(**{"failure-details": None})]), {"failures": []}),
        (REPORT.decode().encode("utf-16"), {}),
    ],
)  # fmt: skip
def test_what_can_be_read_counts_and_nothing_is_named(tmp_path, report, changes):
    (tmp_path / "report.json").write_bytes(report)
    assert read_reports([str(tmp_path / "report.json")]) == ([{**ENTRY, **changes}], [])


@pytest.mark.parametrize(
    ("report", "changes", "lost"),
    [
        (changed(**{"organization-name": None}), {"organization": ""}, "'organization-name' is a required property"),
        (changed(**{"report-id": ["x"]}), {"report_id": ""}, "report-id: ['x'] is not of type 'string'"),
        (changed(policies=[policy_with(), 3]), {}, "policies/1: 3 is not of type 'object'"),
        (changed(policies=[policy_with(summary={}), policy_with()]), {}, "policies/0/summary"),
        (changed(policies=[policy_with(), policy_with(policy={"policy-type": "new"})]), {}, "policies/1/policy/policy-type"),
        (changed(policies=[policy_with(summary={FAILURES: 12})]), {"successful": 0}, "total-successful-session-count"),
        (changed(policies=[policy_with(**{"failure-details": [DETAIL, {**DETAIL, "result-type": None}]})]), {},
         "policies/0/failure-details/1: 'result-type' is a required property"),
        (changed(policies=[policy_with(**{"failure-details": [{**DETAIL, "failed-session-count": "many"}, DETAIL]})]), {},
         "policies/0/failure-details/0/failed-session-count: 'many' is not of type 'integer'"),
        (changed(policies=[policy_with(**{"failure-details": "none"})]), {"failures": []}, "policies/0/failure-details"),
    ],
)  # fmt: skip
def test_what_is_lost_is_named_and_the_rest_counts(tmp_path, report, changes, lost):
    (tmp_path / "report.json").write_bytes(report)
    found, [problem] = read_reports([str(tmp_path / "report.json")])
    assert found == [{**ENTRY, **changes}]
    assert problem.startswith("report.json: it is not a report by RFC 8460: ") and lost in problem


def test_many_lost_parts_are_counted():
    _entries, lost = tls_rpt.parse_parts(changed(policies=[policy_with(), *[3] * 600]), NOW)
    assert len(lost) == 6 and lost[-1] == "595 more parts of it cannot be read"


@pytest.mark.parametrize("kind", ["application/gzip", "application/x-gzip", "application/octet-stream"])
@pytest.mark.parametrize("name", ["", "report", "alpha.test!2026.gz"])
def test_a_compressed_part_without_a_telling_name(tmp_path, kind, name):
    (tmp_path / "report.eml").write_bytes(mail(kind, gzip.compress(REPORT), name))
    assert read_reports([str(tmp_path / "report.eml")]) == ([ENTRY], [])


@pytest.mark.parametrize(
    ("kind", "payload", "name"),
    [
        (
            "application/gzip",
            gzip.compress(b"<feedback/>", mtime=0),
            "example.com!alpha.test!1!2.xml.gz",
        ),  # a report on DMARC
        ("application/octet-stream", b"%PDF-1.7", ""),
    ],
)
def test_another_attachment_is_no_report(tmp_path, kind, payload, name):
    (tmp_path / "report.eml").write_bytes(mail(kind, payload, name))
    found, [problem] = read_reports([str(tmp_path / "report.eml")])
    assert found == [] and "neither a TLS report nor a mail with one attached" in problem


def test_what_is_shown_is_printable_and_short():
    entry = parse(changed(**{"organization-name": "\x1b[2J\u202eevil\n" + "x" * 5_000}), NOW)[0]
    assert entry["organization"].startswith("?[2J?evil?xxx")
    assert len(entry["organization"]) == 300


def test_a_bomb_is_not_inflated():
    bomb = gzip.compress(b" " * (limits.TLS_REPORT_BYTES + 1))
    assert len(bomb) < 100_000
    with pytest.raises(TlsReportError, match="holds more than"):
        inflate(bomb)
    half = gzip.compress(b" " * (limits.TLS_REPORT_BYTES // 2 + 1))
    with pytest.raises(TlsReportError, match="holds more than"):
        inflate(half + half)


def test_gzip():
    assert inflate(gzip.compress(b"a") + gzip.compress(b"b") + b"\0" * 9) == b"ab"
    with pytest.raises(TlsReportError, match="cut off"):
        inflate(gzip.compress(REPORT)[:-12])
    with pytest.raises(TlsReportError, match="damaged"):
        inflate(b"\x1f\x8b" + zlib.compress(b"x"))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "neither a TLS report nor a mail"),
        (b"Subject: hello\r\n\r\nno report", "neither a TLS report nor a mail"),
        (mail("application/tlsrpt+gzip", b"\x1f\x8bnothing"), "damaged"),
        (
            b"".join(
                b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (depth, depth)
                for depth in range(3_000)
            ),
            "",
        ),
        (
            b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
            + b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n" * 500,
            "more than 100 parts",
        ),
    ],
)
def test_hostile_mails(tmp_path, data, why):
    (tmp_path / "x.eml").write_bytes(data)
    found, problems = read_reports([str(tmp_path / "x.eml")], NOW)
    assert found == []
    assert len(problems) == 1
    assert why in problems[0]


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "TLS_REPORT_FILE_BYTES", 100)
    (tmp_path / "x.json").write_bytes(REPORT)
    assert read_reports([str(tmp_path / "x.json")]) == ([], ["x.json: the file has more than 100 bytes"])


def test_one_long_header_field_does_not_stop_the_report(tmp_path):
    """The parser of Python needs quadratic time for it: days for the largest mail that was let through."""
    good, bad = tmp_path / "good.json", tmp_path / "bad.eml"
    good.write_bytes(REPORT)
    for field in (
        b'Content-Disposition: attachment; filename="' + b";" * 400_000,
        b'Content-Type: multipart/mixed;\r\n boundary="' + b";\r\n\t" * 100_000,
        b'cOntent-tYpe: multipart/mixed; boundary="' + b"\\" * 400_000,
    ):
        bad.write_bytes(b"Subject: x\r\n" + field + b"\r\n\r\nx")
        started = time.process_time()
        found, problems = read_reports([str(bad), str(good)])
        assert time.process_time() - started < 1
        assert (found, problems) == ([ENTRY], ["bad.eml: a header field of the mail has more than 2048 bytes"])


def test_many_members_of_a_gzip_file_are_refused():
    with pytest.raises(TlsReportError, match="more than 16 members"):
        inflate(gzip.compress(b"") * 100_000)


def with_details(count, kind="certificate-expired"):
    policy = tls_report()["policies"][0]
    detail = {"result-type": kind, "failed-session-count": 2}
    return changed(policies=[{**policy, "failure-details": [detail] * count}])


def test_failures_are_added_up_by_result_type():
    policy = tls_report()["policies"][0]
    kinds = ["certificate-expired", "sts-policy-invalid", "certificate-expired", "\u202ea", "b"]
    details = [{"result-type": kind, "failed-session-count": 2.0} for kind in kinds]
    [entry] = parse(changed(policies=[{**policy, "failure-details": details}]), NOW)
    assert [(one["result_type"], one["count"]) for one in entry["failures"]] == [
        ("certificate-expired", 4), ("sts-policy-invalid", 2), ("other", 4),
    ]  # fmt: skip
    assert all(type(one["count"]) is int for one in entry["failures"])


def test_every_result_type_has_an_action():
    assert set(_TLSRPT_ACTIONS) == tls_rpt.RESULT_TYPES


def test_details_are_counted_before_they_are_looked_at(monkeypatch):
    monkeypatch.setattr(limits, "TLS_REPORT_DETAILS", 50)
    parse(with_details(50), NOW)
    monkeypatch.setattr(tls_rpt, "jsonschema", None)  # to look at each costs most
    with pytest.raises(ExhaustedError, match="the report needs more than 50 failure details"):
        parse(with_details(51), NOW)


@pytest.mark.parametrize(
    ("limit", "most", "unit"),
    [
        ("TLS_REPORT_RUN_DETAILS", 70, "failure details"),
        ("TLS_REPORT_RUN_POLICIES", 2, "policies"),
        ("TLS_REPORT_RUN_BYTES", 60_000, "bytes"),
    ],
)
def test_all_files_share_one_budget_and_the_small_ones_come_first(tmp_path, monkeypatch, limit, most, unit):
    monkeypatch.setattr(limits, limit, most)
    for name, data in (("a", with_details(30)), ("b", with_details(31)), ("c", REPORT), ("d", with_details(900))):
        (tmp_path / name).write_bytes(data)
    found, problems = read_reports([str(tmp_path / name) for name in "dabc"], NOW)
    assert found
    whole = [one for one in problems if one.startswith("the reading of all TLS reports needs more than")]
    assert len(whole) == 1
    assert f"{most} {unit}; the " in whole[0]
    assert "of 4 files are not read, or not to their end" in whole[0]


def test_what_a_mail_inflates_to_is_limited_together(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "TLS_REPORT_FILE_TOTAL_BYTES", 100_000)
    one = mail("application/tlsrpt+gzip", gzip.compress(REPORT + b" " * 30_000))
    head, _b, part = one.partition(b"--b\r\nContent-Type: application")
    (tmp_path / "x.eml").write_bytes(head + (b"--b\r\nContent-Type: application" + part.replace(b"--b--\r\n", b"")) * 4)
    found, problems = read_reports([str(tmp_path / "x.eml")])
    assert (found, problems) == ([ENTRY], ["x.eml: it needs more than 100000 bytes"])


def test_seconds_are_for_each_file_and_for_all(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_bytes(REPORT)
    (tmp_path / "b.json").write_bytes(REPORT + b" ")
    paths = [str(tmp_path / name) for name in ("a.json", "b.json")]
    monkeypatch.setattr(limits, "TLS_REPORT_FILE_SECONDS", 0.0)
    assert read_reports(paths) == ([], [f"{name}: it needs more than 0 seconds" for name in ("a.json", "b.json")])
    monkeypatch.setattr(limits, "TLS_REPORT_RUN_SECONDS", 0.0)
    _found, [problem] = read_reports(paths)
    assert problem.startswith("the reading of all TLS reports needs more than 0 seconds; the 2 largest of 2 files")


def test_a_report_about_the_domain_of_others_is_left_out_and_named(tmp_path):
    (tmp_path / "a.json").write_bytes(json.dumps(tls_report(**{"policy-domain": "evil.example"})).encode())
    (tmp_path / "b.json").write_bytes(json.dumps(tls_report(**{"policy-domain": "ALPHA.test."})).encode())
    found, problems = read_reports([str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert found == [ENTRY]
    assert problems == ["a.json: what it says about evil.example is left out, because the inventory has no such domain"]


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_forged_report_does_not_hide_the_true_one(tmp_path, order):
    """They have the same organization, id, domain and type; the files are read in the order of their names or backwards."""
    for name, failed in zip("ab", (0, 500)):
        (tmp_path / order[name == "b"]).write_bytes(json.dumps(tls_report(failed=failed)).encode().ljust(2000))
    [entry], problems = read_reports([str(tmp_path / "a"), str(tmp_path / "b")])
    assert (entry["failed"], entry["failures"][0]["count"]) == (500, 500)
    assert problems == [
        "there are different reports of Example Mail with the id 2026-03-08-1 about alpha.test, and one may be forged; the "
        "worse one counts"
    ]


def test_faults_are_told_up_to_a_number(tmp_path):
    paths = [tmp_path / f"{number:03}" for number in range(60)]
    for path in paths:
        path.write_bytes(b"{")
    _found, problems = read_reports(map(str, paths))
    assert len(problems) == 51
    assert problems[-1] == "10 more faults are not shown"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(tls_report(), ANYTHING)),
    st.fixed_dictionaries({}, optional=dict.fromkeys(("policy", "summary", "failure-details"), ANYTHING)),
)
def test_no_error_but_its_own(report, policy):
    document = {**tls_report(), **report}
    if "policies" not in report:
        document["policies"] = [{**tls_report()["policies"][0], **policy}]
    try:
        parse(json.dumps(document).encode(), NOW)
    except TlsReportError as error:
        assert str(error).isprintable()


@given(st.binary(max_size=300))
def test_bytes_of_any_kind(data):
    for read in (parse, inflate, lambda given: list(tls_rpt._documents(given))):
        with contextlib.suppress(TlsReportError):
            read(data)
