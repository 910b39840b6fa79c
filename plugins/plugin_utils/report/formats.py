# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The formats of a report, and the part of each that holds the time of the report."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.csv_table import render_csv
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.document import render_json
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.html import render_html
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.junit import render_junit
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.prometheus import render_prometheus


class Format(NamedTuple):
    """One format: its renderer, the pattern of the time of the report in the text, and the mode of a new file."""

    render: Callable[[Mapping[str, Any]], str]
    stamp: re.Pattern[str]
    mode: int = 0o640

    def same(self, one: str, other: str) -> bool:
        """Return True if the two texts differ in the time of the report at most."""
        return self.stamp.sub("", one) == self.stamp.sub("", other)


FORMATS = {
    "html": Format(render_html, re.compile(r'<time class="generated"[^>]*>[^<]*</time>')),
    "json": Format(render_json, re.compile(r'^  "generated_at": "[^"]*",$', re.MULTILINE)),
    "csv": Format(render_csv, re.compile(r"(?!)")),
    "junit": Format(render_junit, re.compile(r' timestamp="[^"<>]*"')),
    # The node exporter reads the file as a different user.
    "prometheus": Format(
        render_prometheus,
        re.compile(r"^mailfleet_starttls_report_generated_timestamp_seconds .*$", re.MULTILINE),
        0o644,
    ),
}
