"""A host that returns something else than its module does spoils its own result only: never that of others, never the run."""

from __future__ import annotations

import base64
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import estate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.outcome import standings
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import (
    Observation,
    Unread,
    read_result,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.probe_results import Inquiry, complete_result
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.rows import failed_tests, verdict_rows
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import readable, understood
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import findings_of

from tests.support.odd_values import variants

GROUPS = {"mail_gateways": ["gw1"], "mail_servers": ["bad", "good"], "mail_outside": ["out"]}
HOSTS = ["gw1", "bad", "good"]


def handshake_of(name: str) -> dict[str, Any]:
    return {
        "host": name, "name": name, "port": 25, "completed": True, "passed": True, "starttls_advertised": True, "stage": "ehlo_tls",
        "fingerprint_sha256": "ab" * 32, "findings": [{"code": "no_tls13", "severity": "notice", "message": "old"}],
    }  # fmt: skip


def trace_of(marker: str) -> dict[str, Any]:
    hop = {"network": True, "tls": True, "by": "mx", "protocol": "ESMTPS", "clear": True}
    return {"marker": marker, "arrived": True, "hops": [dict(hop), dict(hop)]}


def results_of(name: str) -> dict[str, Any]:
    """What the roles registered on a mail server."""
    return {
        "verify_probe": {"results": [handshake_of(name)]},
        "verify_controller_probe": {"results": [handshake_of(name)]},
        "verify_trace": {"received": [trace_of("in-x")]},
        "verify_activity": {"activity": {"daemon": "postfix", "totals": {}, "peers": []}},
        "mail_server_result": {"changed": True, "kind": "postfix", "fingerprint_sha256": "ab" * 32,
                               "probe": {"results": [handshake_of(name)]}},
        "mail_server_observed": {"kind": "postfix", "probe": {"results": [{**handshake_of(name), "own": True}]}},
    }  # fmt: skip


def rows(**changed: Any) -> dict[str, Any]:
    hostvars: dict[str, Any] = {name: results_of(name) for name in ("bad", "good")}
    hostvars["gw1"] = {
        "verify_from_gateway": {"results": [handshake_of("bad"), handshake_of("good")]},
        "gateway_observed": {"gateway": {"title": "Postfix"}, "kind": "postfix"},
    }
    hostvars["out"] = {"starttls_trace_address": "t@example.com"}
    hostvars.update(changed)
    configs = [{"name": "a", "domains": ["a.test"], "servers": ["bad", "good"], "delivery_mode": "match_sender"}]
    wanted = estate(configs, {name: {} for name in hostvars})
    found = {row["host"]: row for row in verdict_rows(HOSTS, hostvars, GROUPS, wanted)}
    for row in found.values():
        findings_of(row)  # the next one who reads them
    return found


def test_rows_of_a_host_that_returns_anything():
    usual = rows()
    assert [one["errors"] for one in usual.values()] == [[], [], []]
    tried = 0
    for what, results in variants(results_of("bad")):
        tried += 1
        failed_tests("bad", {"bad": results}, "notice")
        found = rows(bad=results)
        assert (found["good"], found["gw1"]) == (usual["good"], usual["gw1"]), what
    assert tried > 1000


def test_rows_of_a_gateway_that_returns_anything():
    usual = rows()
    for what, results in variants({"verify_from_gateway": {"results": [handshake_of("bad"), handshake_of("good")]}}):
        found = rows(gw1=results)
        for name in (
            "bad",
            "good",
        ):  # what it says of them may be missing, and then that is said; their own tests count
            assert [one for one in found[name]["probes"] if one["seen_from"] == name] == usual[name]["probes"][:1], what
            assert found[name]["errors"] or found[name]["not_seen_from"] or len(found[name]["probes"]) == 3, what


@pytest.mark.parametrize("name", ["verify_probe", "verify_trace", "mail_server_result"])
def test_what_cannot_be_read_is_an_error_of_its_host(name: str):
    odd = {"changed": True, "results": [{"marker": "m"}], "received": [{"marker": "m"}]}
    found = rows(bad={**results_of("bad"), name: odd})
    [error] = found["bad"]["errors"]
    assert "its result cannot be understood: one of its results is not that of a handshake test" in error
    assert [one["code"] for one in findings_of(found["bad"]) if one["severity"] == "error"] == ["not_gathered"]


def test_a_step_of_a_host_that_returns_anything():
    plan = {
        "hosts": {name: {"role": "mail server"} for name in ("bad", "good")},
        "steps": {"offer": {"hosts": ["bad", "good"]}},
    }
    good = {"after": {"inbound": "offered"}, "changed": True, "probe": {"results": [handshake_of("bad")]}}
    for what, result in variants({"result": good, "tests": [{**handshake_of("bad"), "inventory_host": "bad"}]}):
        tests = result.get("tests")
        given = [one for one in tests if isinstance(one, dict)] if isinstance(tests, list) else []
        bad, stands = standings(plan, "offer", {"bad": result.get("result"), "good": good}, given, ["bad", "good"])
        assert (bad.host, stands.state) == ("bad", "done: offer"), what


READ = {
    "kind": "postfix", "title": "Postfix", "version": "3.7", "health": {"state": "running"}, "before": {"inbound": "disabled"},
    "after": {"inbound": "offered"}, "changes": [{"path": "/etc/x", "lines": "+a"}], "digests": {"/etc/x": "ab"},
    "obstacles": [{"code": "no_privilege", "message": "x"}], "notes": [{"code": "expiring", "message": "x"}],
    "next_hops": [{"host": "a", "port": 25, "completed": True, "message": ""}], "transports": [{"next_hop": "[a]:25"}],
    "probe": {"results": [{**handshake_of("a"), "timings": {"tls": 0.1}}]}, "activity": {"sessions_an_hour": 7.5},
    "gateway": {"email_configs": [{"name": "a", "delivery_mode": "required", "servers": ["a:25"]}], "delivery_modes": ["required"],
                "limits": {"required": "x"}, "accepted_domains": {"a.test": True}, "after": {"a": "required"}, "changes": []},
}  # fmt: skip


def test_a_read_that_returns_anything():
    assert isinstance(read_result(READ), Observation)
    for what, result in variants(READ):
        found = read_result(result)
        assert isinstance(found, (Observation, Unread)), what
        if isinstance(found, Observation) and found.sessions_an_hour is not None:
            assert found.sessions_an_hour < 1e300, what


def test_a_handshake_test_that_returns_anything():
    for what, result in variants({"results": [handshake_of("a")], "certificates": {}, "expectations": [{}]}):
        try:
            complete_result(result, Inquiry(), "", 1)
        except EngineError as error:
            assert "what the host returned cannot be understood" in str(error), what


def packed(text: bytes) -> dict[str, Any]:
    return {"packed": base64.b64encode(zlib.compress(text, 9)).decode(), "expected": {}, "fingerprints": {}}


BOMB = """
import resource, sys
from pathlib import Path
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.probe_results import Inquiry, complete_result
text = Path(sys.argv[1]).read_text()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    complete_result({"packed": text, "expected": {}, "fingerprints": {}}, Inquiry(), "", 300)
except EngineError as error:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10, error)
"""


def test_a_few_packed_bytes_do_not_take_the_memory_of_the_controller(tmp_path: Path):
    (tmp_path / "packed").write_text(packed(b"\n" * (120 << 20))["packed"])
    done = subprocess.run([sys.executable, "-c", BOMB, str(tmp_path / "packed")], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": str(Path(__file__).parents[4] / ".lab/collections"), "PATH": ""})  # fmt: skip
    used, _space, said = done.stdout.partition(" ")
    assert "they are too large, or incomplete" in said
    assert int(used) < 60


def test_results_for_other_targets_than_the_wanted_ones_are_refused():
    for text, targets in ((b"R0 {}\n", 2), (b"R1 {}\n", 1), (b"R0 {}\nR1 {}\n", 1), (b"", 1)):
        with pytest.raises(EngineError, match=r"for \d targets"):
            complete_result(packed(text), Inquiry(), "", targets)
    with pytest.raises(EngineError, match="0 results for 1 targets"):
        complete_result({"results": [], "certificates": {}, "expectations": []}, Inquiry(), "", 1)


def test_a_failure_and_what_is_skipped_are_left_as_they_are():
    for result in ({"failed": True, "results": 7}, {"skipped": True, "results": 7}, {"unreachable": True}):
        assert readable(result) is result
    assert readable(None) == {}
    with pytest.raises(EngineError, match=r"x cannot be understood \(KeyError: 'hops'\)"), understood("x"):
        {}["hops"]


def test_the_words_of_a_result_that_cannot_be_understood_are_one_line():
    with pytest.raises(EngineError, match=r"\(TypeError: got an unexpected require_ t usted\)"), understood("it"):
        raise TypeError("got an unexpected require_\x12t\nusted")
