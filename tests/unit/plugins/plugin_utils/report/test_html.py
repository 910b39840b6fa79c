"""The page: complete, self-contained, bounded, and nobody can write into it."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.document import build
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.html import Folded, Share, render_html
from hypothesis import given
from hypothesis import strategies as st

from tests.support.report_rows import (
    NOW,
    WINDOW,
    activity,
    demo_rows,
    hostile,
    large_rows,
    peer,
    previous_document,
    probe,
)

NOT_TESTED = [Finding.advised("not_tested_from_gateway", "it was not tested from the gateway gw1").as_dict()]
VOID = {"meta", "link", "br", "wbr", "img", "input", "hr"}


class Page(HTMLParser):
    """The tags, attributes and text of a page; fails on tags that are not closed as they were opened."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.stack, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *one) for one in attrs]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *one) for one in attrs]

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if "style" not in self.stack:
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def page(*rows, **options):
    return render_html(build(list(rows), title="TLS on the mail fleet", now=NOW, **options))


def hostile_page(text):
    rows, tls_reports = hostile(text)
    return page(*rows, tls_reports=tls_reports)


DEMO = page(*demo_rows(), window=WINDOW, previous=previous_document())


class TestWhatNeedsAttention:
    def test_no_good_word_stands_over_a_warning(self):
        warned = {
            "host": "mx",
            "probes": [probe("mx.test")],
            "findings": [
                Finding.advised("not_tested_from_gateway", "it was not tested from the gateway gw1").as_dict()
            ],
        }
        text = Page(page(warned)).text
        assert "1 of 1 host passes. 1 warning needs attention, see the hosts." in text
        assert "There is no alert. The table of hosts has the findings." in text
        assert "Nothing needs" not in text and "No enforced domain" not in text
        assert 'class="status warning"' in page(warned)

    def test_nor_over_a_failure(self):
        text = Page(page({"host": "mx", "errors": ["it is down"]})).text
        assert "See the findings below." in text and "No enforced domain" not in text

    def test_warnings_are_said_beside_alerts(self):
        rows = [
            {
                **one,
                "findings": [
                    Finding.advised("not_tested_from_gateway", "it was not tested from the gateway gw1").as_dict()
                ],
            }
            for one in demo_rows()
        ]
        said = Page(page(*rows, window=WINDOW, previous=previous_document())).text
        assert re.search(r"\d things need attention, \d of them now\. The hosts have \d+ warnings as well\.", said)


class TestContent:
    def test_what_a_manager_sees(self):
        text = Page(DEMO).text
        for words in (
            "4 of 5 hosts pass. 6 things need attention, 5 of them now.",
            "Mail from 2 Mar 2026, 00:00 UTC to 9 Mar 2026, 00:00 UTC",
            "Enforced domain blocked, inbound: bank.example.net",
            "cause: the other side",
            "What to do: Ask the administrator of bank.example.net to switch on TLS",
            "75.8 % 640 of 2,651 plain",
            "TLS_AES_256_GCM_SHA384: 49.0 % 49 % 36,424",
            "TLSv1 out of date",
            "ex13 Exim",
            "15 domains, the busiest first: 7 over TLS only, 7 mixed, 1 in plaintext only.",
        ):
            assert words in text, words

    def test_charts_are_told_to_those_who_do_not_see_them(self):
        assert "<title>ex13, inbound: 75.8 % over TLS</title>" in DEMO
        assert "<desc>2,011 messages over TLS, 640 in plaintext</desc>" in DEMO
        drawings = re.findall(r"<svg[^>]*>(?:\s*<title>)?", DEMO)
        assert all('aria-hidden="true"' in one or ('role="img"' in one and one.endswith("<title>")) for one in drawings)

    def test_headings_and_tables(self):
        found = Page(DEMO)
        levels = [int(tag[1]) for tag in found.tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in zip(levels, levels[1:]))
        assert found.tags.count("table") == found.tags.count("caption")
        assert ("html", "lang", "en") in found.attributes
        assert {value for tag, name, value in found.attributes if tag == "th" and name == "scope"} == {
            "row",
            "col",
            "rowgroup",
        }

    def test_nothing_wrong(self):
        text = Page(page({"host": "mx", "probes": [probe("mx.test")]})).text
        assert "1 of 1 host passes. Nothing needs attention." in text
        assert "No enforced domain was blocked" in text
        assert "Peer domains" not in text, "nobody looked at logs"

    def test_what_the_logs_could_not_tell(self):
        note = {
            "code": "no_tls_log",
            "direction": "inbound",
            "message": "the log does not tell TLS; raise smtpd_tls_loglevel",
        }
        rows = [{"host": f"mx{one}", "activity": {**activity("", []), "notes": [note]}} for one in range(7)]
        text = Page(page(*rows)).text
        assert "mx0, mx1, mx2, mx3, mx4 and 2 more: the log does not tell TLS; raise smtpd_tls_loglevel" in text

    def test_mail_that_the_log_says_nothing_of_is_not_no_mail(self):
        blind = {"sessions_unknown": 500, "messages_unknown": 500}
        rows = [{"host": "gw1", "activity": activity("postfix", [{**peer("a.example", "outbound", 0), **blind}])}]
        html = page(*rows)
        text = Page(html).text
        assert "0 of 500 in plaintext, 500 unproven" in text
        assert "500 of 500 unproven" in text
        assert "1 domains, the busiest first: 0 over TLS only, 0 mixed, 0 in plaintext only, 1 unproven." in text
        assert "1 thing needs attention" in text and "TLS of mail is unproven" in text
        assert html.count('<rect class="open" x="0.0%" width="100.0%"') == 1
        assert '<rect class="plain" x=' not in html, "what is unproven is not drawn as plaintext"

    def test_mail_that_is_unproven_is_no_share_of_tls(self):
        mixed = {**peer("a.example", "outbound", 60, 10), "sessions_unknown": 30, "messages_unknown": 30}
        html = page({"host": "gw1", "activity": activity("postfix", [mixed])})
        text = Page(html).text
        assert "60 % 10 of 100 plain, 30 of 100 unproven" in text
        assert '<rect class="plain" x="60.0%" width="10.0%"' in html
        assert '<rect class="open" x="70.0%" width="30.0%"' in html
        assert "100 10 in plaintext 30 unproven" in text

    def test_others_reports(self):
        entry = {
            "organization": "Example Mail", "report_id": "1", "start": "2026-03-08T00:00:00Z", "end": "2026-03-08T23:59:59Z",
            "domain": "alpha.test", "policy_type": "tlsa", "successful": 5_300, "failed": 12,
            "failures": [{"result_type": "tlsa-invalid", "receiving_mx": "mx1.alpha.test", "count": 12, "reason": ""}],
        }  # fmt: skip
        text = Page(page({"host": "mx", "probes": [probe("mx.test")]}, tls_reports=[entry])).text
        assert re.search(
            r"Example Mail 2026-03-08 alpha.test DANE 5,300 12 tlsa-invalid at mx1.alpha.test \(12\)", text
        )


class TestSelfContained:
    def test_nothing_is_fetched_and_nothing_runs(self):
        found = Page(DEMO)
        assert not {"script", "link", "img", "iframe", "object", "embed", "form", "base", "image", "use"} & set(
            found.tags
        )
        assert not [
            one for one in found.attributes if one[1] in ("src", "href", "style", "action") or one[1].startswith("on")
        ]
        assert "@import" not in DEMO
        assert set(re.findall(r"url\(([^)]*)\)", DEMO)) == {"#hatch"}
        assert "http" not in DEMO.replace("http-equiv", "")

    def test_the_policy_allows_the_style_sheet_and_nothing_else(self):
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', DEMO)[1]
        style = re.search(r"<style>(.*?)</style>", DEMO, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


# A character for each place where HTML, CSS or the template could be left.
TROUBLE = st.text(alphabet="<>&\"'/{}%#= -!\x00\u202eascriptx:", max_size=24) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        "</title><script>",
        '"><img src=x onerror=a>',
        "</style><x>",
        "{{ 7 * 7 }}",
        "{% x %}",
        "<!--",
        "]]>",
        "&lt;b&gt;",
    ]
)


class TestEscaping:
    PLAIN = Page(hostile_page("harmless"))

    @given(TROUBLE)
    def test_no_text_opens_a_tag_or_an_attribute(self, text):
        found = Page(hostile_page(text))
        known = {(tag, name) for tag, name, _value in self.PLAIN.attributes}
        assert set(found.tags) <= set(self.PLAIN.tags) | {"wbr"}
        assert {(tag, name) for tag, name, _value in found.attributes} <= known

    def test_text_is_shown_as_it_is(self):
        found = Page(hostile_page("<script>x</script>"))
        assert "<script>x</script>" in found.text
        assert "{{ 7 * 7 }}" in Page(hostile_page("{{ 7 * 7 }}")).text

    def test_the_title_too(self):
        text = render_html(build([{"host": "mx"}], title="</title><script>x", now=NOW))
        assert "<script" not in text
        assert "&lt;/title&gt;&lt;script&gt;x" in text


class TestLargeFleets:
    def test_500_hosts_and_5000_peers(self):
        text = page(*large_rows(500, 5_000))
        assert len(text) < 1_000_000
        words = Page(text).text
        assert "475 of 500 hosts pass." in words
        assert "5,000 domains" in words
        assert "460 more hosts" in words
        assert "275 more domains 4,700 more domains" not in words
        assert "4,700 more domains are in the CSV and JSON forms" in words
        assert "The 20 hosts with most mail in plaintext are shown, 480 others are not" in words
        assert re.search(r"Certificate about to expire: \d+ times", words)
        first = words[words.index("those that failed first") :]
        assert first.index("FAIL") < first.index(" pass ")

    @pytest.mark.parametrize(
        ("number", "found"), [(0, (0, 0, 0)), (10, (10, 0, 0)), (12, (12, 0, 0)), (13, (10, 3, 0)), (40, (10, 20, 10))]
    )
    def test_folding(self, number, found):
        folded = Folded.cut(list(range(number)), 10, 20)
        assert (len(folded.shown), len(folded.folded), folded.left) == found


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_share_is_100_percent_only_if_all_is_proved_to_be_tls(tls, plaintext, unknown):
    share = Share(tls, plaintext, unknown)
    assert 0 <= share.percent <= 100
    assert (share.percent == 100) == (plaintext == unknown == 0 and tls > 0)
    assert 0 <= share.rest <= 100
    assert 0 <= share.plain <= share.rest and 0 <= share.open <= share.rest
    assert share.plain + share.open == pytest.approx(share.rest if plaintext or unknown else 0, abs=0.1)
