#!/usr/bin/env python3
# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast tls_activity_info reads a log, and how much memory it takes: the whole call on a file, without Ansible.

    log_lines.py [--megabytes N] [--rounds N]

Each round is a process of its own. CPU seconds count, the best round is shown; the memory of a log four times as large is beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
WORD = "logs"
LIMIT = 150_000
"""Lines of a CPU second."""


def read(daemon: str, path: str) -> dict[str, Any]:
    """Read a log as the module does on a host without the daemon, and return what it took."""
    # Only here: the path is set by then.
    from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.engine import read_activity  # noqa: PLC0415
    from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.log import LOGS  # noqa: PLC0415

    def no_daemon(_command: Any) -> Any:
        return 127, "", "not found"

    options = {"logs": [path], "journal": "false", "since": "2025-12-31", "until": "2030-01-01", "max_peers": 1000}
    begin = time.process_time()
    activity = read_activity(options, lambda tally, since, until: LOGS[daemon](tally, since, until, no_daemon))
    seconds = time.process_time() - begin
    return {
        "lines": activity["lines"],
        "skipped": activity["skipped_lines"],
        "messages": sum(one["messages_tls"] + one["messages_plaintext"] for one in activity["totals"].values()),
        "seconds": seconds,
        "megabytes": peak() / 1e6,
    }


def peak() -> int:
    """The most memory that this process held, in bytes."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


def measured(daemon: str, path: Path, rounds: int) -> dict[str, Any]:
    """The best round."""
    found = []
    for _round in range(rounds):
        done = subprocess.run(
            [sys.executable, __file__, "--read", daemon, str(path)], check=True, stdout=subprocess.PIPE, text=True
        )
        found.append(json.loads(done.stdout))
    return min(found, key=lambda one: one["seconds"])


def figures(megabytes: int = 24, rounds: int = 5) -> dict[str, dict[str, float]]:
    """Daemon -> lines, CPU seconds, lines of a CPU second, and the peak of memory in MB, also for a log four times as large."""
    from tests.support.mail_log import exim_log, postfix_log  # noqa: PLC0415

    found = {}
    with tempfile.TemporaryDirectory() as place:
        for daemon, write in (("postfix", postfix_log), ("exim", exim_log)):
            small, large = Path(place, f"{daemon}.log"), Path(place, f"{daemon}.large")
            write(small, megabytes << 20)
            best = measured(daemon, small, rounds)
            small.unlink()
            write(large, megabytes << 22)
            more = measured(daemon, large, 1)
            large.unlink()
            found[daemon] = {
                "lines": best["lines"], "cpu_seconds": round(best["seconds"], 3),
                "lines_per_second": round(best["lines"] / best["seconds"]),
                "peak_rss_mb": round(best["megabytes"], 1), "peak_rss_mb_of_four": round(more["megabytes"], 1),
            }  # fmt: skip
    return found


def main(words: Sequence[str]) -> int:
    """Print a row for each daemon; the exit status is 1 if one is below the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.read:
        print(json.dumps(read(*given.read)))
        return 0
    found = figures(given.megabytes, given.rounds)
    print(f"{'log':10}{'lines':>10}{'CPU s':>9}{'lines/CPU s':>13}{'MB':>8}{'MB, 4 x the log':>18}")
    for daemon, one in found.items():
        print(
            f"{daemon:10}{one['lines']:10}{one['cpu_seconds']:9.2f}{one['lines_per_second']:13}"
            f"{one['peak_rss_mb']:8.0f}{one['peak_rss_mb_of_four']:18.0f}"
        )
    return int(any(one["lines_per_second"] < LIMIT for one in found.values()))


if __name__ == "__main__":
    sys.path[:0] = [str(TOP), str(TOP / ".lab/collections")]
    sys.exit(main(sys.argv[1:]))
