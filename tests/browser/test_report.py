"""The report page as people see it: on a phone, on a screen, in the dark, and on paper."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
for _path in (ROOT, ROOT / ".lab/collections"):
    if str(_path) not in sys.path:
        sys.path.insert(0, str(_path))

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report import tls_rpt
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.document import build
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.html import render_html

from tests.support.chromium import MISSING, PROGRAM, Browser
from tests.support.report_rows import (
    NOW,
    WINDOW,
    demo_rows,
    demo_tls_reports,
    hostile,
    large_rows,
    previous_document,
)

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)

PHONE, SCREEN = 360, 1280
NAMES = ("demo", "large", "hostile", "long")

# Contrast of every text with what is painted behind it, by the formula of WCAG 2: the worst of them.
CONTRAST = """(() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const light = ([r, g, b]) => { const f = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  let worst = [99, ''];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || node.closest('svg, .hidden, details:not([open])') || !node.getClientRects().length) continue;
    let back = node, paint;
    do { paint = parse(getComputedStyle(back).backgroundColor); back = back.parentElement; } while (back && paint[3] === 0);
    const pair = [light(parse(getComputedStyle(node).color)), light(paint)].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < worst[0]) worst = [ratio, walk.currentNode.data.trim()];
  }
  return worst;
})()"""


@pytest.fixture(scope="module")
def browser():
    with Browser() as one:
        yield one


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The path of each page by name."""
    place = tmp_path_factory.mktemp("report")
    reports = [entry for data in demo_tls_reports() for entry in tls_rpt.parse(data, NOW)]
    rows, entries = hostile('"><script>document.title="broken in"</script><img src=x onerror="throw 1">')
    long_rows, long_entries = hostile("m" * 250)
    documents = {
        "demo": build(
            demo_rows(),
            title="TLS on the mail fleet",
            window=WINDOW,
            tls_reports=reports,
            previous=previous_document(),
            now=NOW,
        ),
        "large": build(large_rows(500, 5_000), title="TLS on the large fleet", now=NOW),
        "hostile": build(rows, title="<script>throw 1</script>", tls_reports=entries, now=NOW),
        "long": build(long_rows, title="m" * 250, tls_reports=long_entries, now=NOW),
    }
    paths = {}
    for name, document in documents.items():
        paths[name] = place / f"{name}.html"
        paths[name].write_text(render_html(document))
    return paths


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, 760, SCREEN])
@pytest.mark.parametrize("name", NAMES)
def test_it_fits_and_nothing_is_complained_about(browser, pages, name, width, dark):
    browser.open(pages[name], width, dark=dark, mobile=width == PHONE)
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert browser.complaints == []
    assert browser.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_colours_are_those_of_the_scheme_and_can_be_read(browser, pages, dark):
    browser.open(pages["demo"], SCREEN, dark=dark)
    page = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", page))) < 3 * 64) == dark
    ratio, text = browser.evaluate(CONTRAST)
    assert ratio >= 4.5, text


def test_nothing_is_too_small_to_read_on_a_phone(browser, pages):
    browser.open(pages["demo"], PHONE, mobile=True)
    smallest = browser.evaluate(
        "Math.min(...[...document.querySelectorAll('main *, footer *')]"
        ".filter((one) => one.getClientRects().length && !one.closest('svg')"
        " && [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))"
        ".map((one) => parseFloat(getComputedStyle(one).fontSize)))"
    )
    assert smallest >= 12


def drawn(browser, chart):
    """The widths of a chart's bars as they are painted, in percent of the bar, by the row's name."""
    return browser.evaluate(
        "Object.fromEntries([...document.querySelectorAll('"
        + chart
        + " svg.bar')].map((bar) => [bar.querySelector('title').textContent,"
        " [...bar.querySelectorAll('rect:not(.track):not([fill])')].map((rect) => Math.round(1000 * rect.getBoundingClientRect().width"
        " / bar.getBoundingClientRect().width) / 10)]))"
    )


@pytest.mark.parametrize("width", [PHONE, SCREEN])
def test_charts_show_the_numbers(browser, pages, width):
    browser.open(pages["demo"], width, mobile=width == PHONE)
    shares = drawn(browser, ".shares")
    assert shares["ex13, inbound: 75.8 % over TLS"] == pytest.approx([75.8, 24.2], abs=0.3)
    assert shares["pf13, inbound: 100 % over TLS"] == [100]
    assert len(shares) == 10
    assert drawn(browser, "[aria-labelledby=versions]")["TLSv1.3: 79.9 %"] == pytest.approx([79.9], abs=0.3)
    days = drawn(browser, ".certificates")
    assert days["ex12: 18 days left"] == pytest.approx([20], abs=0.3)
    assert list(days) == [f"{host} days left" for host in ("pf13: 5", "ex12: 18", "pf12: 63", "gw1: 74")]
    rings = browser.evaluate(
        "[...document.querySelectorAll('.ring .arc')].map((one) => one.getAttribute('stroke-dasharray'))"
    )
    assert rings == ["97.1 100", "98.0 100"]


def test_nobody_broke_in(browser, pages):
    browser.open(pages["hostile"], SCREEN)
    assert browser.evaluate("document.title") == "<script>throw 1</script>"
    assert browser.evaluate("document.querySelectorAll('script, img').length") == 0
    assert browser.complaints == []


def test_the_policy_of_the_page_holds(browser, pages):
    """What would get in would not run: a script, a style, a picture."""
    browser.open(pages["demo"], SCREEN)
    browser.evaluate(
        "{ const one = document.createElement('script'); one.textContent = 'document.title = \"run\"'; document.body.append(one);"
        " const two = document.createElement('img'); two.src = 'https://evil.example/x.png'; document.body.append(two) }"
    )
    assert browser.evaluate("document.title") == "TLS on the mail fleet"
    assert any("Content Security Policy" in one for one in browser.complaints)


def test_long_tables_unfold_without_a_script(browser, pages):
    browser.open(pages["large"], SCREEN)
    assert browser.evaluate("document.querySelectorAll('script').length") == 0
    rows = "[...document.querySelectorAll('.hosts tbody tr')].filter((one) => one.checkVisibility()).length"
    assert browser.evaluate(rows) == 40
    browser.evaluate(
        "[...document.querySelectorAll('details')].find((one) => one.querySelector('.hosts')).querySelector('summary').click()"
    )
    assert browser.evaluate(rows) == 500


def page_count(pdf: Path) -> int:
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf.read_bytes()))


@pytest.mark.parametrize(("name", "most"), [("demo", 5), ("large", 10)])
def test_on_paper(browser, pages, tmp_path, name, most):
    browser.open(pages[name], SCREEN, dark=True)
    browser.pdf(tmp_path / "page.pdf")
    assert 2 <= page_count(tmp_path / "page.pdf") <= most


def test_on_paper_it_is_light_and_nothing_is_cut(browser, pages):
    browser.open(pages["long"], 688)
    browser.call(
        "Emulation.setEmulatedMedia",
        {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("document.documentElement.scrollWidth") == 688
    assert browser.evaluate("getComputedStyle(document.querySelector('tr')).breakInside") == "avoid"
