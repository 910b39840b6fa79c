"""What the jobs of a workflow hand on: shapes, what counts of two jobs, and what an undo makes of it."""

import json

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.workflow import (
    MOST_CHARACTERS,
    MOST_ENTRIES,
    WorkflowChanges,
    configs_before,
    enforced_before,
    former_host,
    result_of,
    state_before,
    with_report,
)

OFF = {"inbound": "disabled", "outbound": "disabled"}
ON = {"inbound": "offered", "outbound": "opportunistic"}
GATEWAY = {"inbound": "disabled", "outbound": "plaintext", "accept": "tls_only"}
CHANGES = {"hosts": {"m1": OFF, "gw1": GATEWAY}, "email_configs": {"main": "match_sender", "new": None}}
CONFIGS = [
    {"name": "main", "domains": ["a.example"], "servers": ["m1"], "delivery_mode": "required"},
    {"name": "new", "domains": ["b.example"], "servers": ["m1"], "delivery_mode": "required"},
    {"name": "other", "domains": ["c.example"], "servers": ["m2"], "delivery_mode": "required"},
    {"name": "gone", "state": "absent"},
]


@pytest.mark.parametrize("given", [CHANGES, json.dumps(CHANGES)])
def test_it_comes_back_as_it_was(given):
    read = WorkflowChanges.parse(given)
    assert read.to_json() == CHANGES
    assert WorkflowChanges.parse(json.loads(json.dumps(read.to_json()))) == read


@pytest.mark.parametrize("given", [None, "", {}, {"hosts": {}, "email_configs": None}])
def test_nothing_is_no_change(given):
    assert not WorkflowChanges.parse(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("no JSON", "'no JSON' is not a mapping, or the same as JSON"),
        ("[]", r"'\[\]' is not a mapping with the keys hosts and email_configs"),
        ({"host": {}}, "is not a mapping with the keys hosts and email_configs"),
        ({"hosts": ["m1"]}, "hosts: \"\\['m1'\\]\" is not a mapping"),
        ({"hosts": {"m1": "off"}}, "host m1: 'off' is not a mapping with inbound and outbound"),
        ({"hosts": {"m1": {"inbound": "off"}}}, "host m1: inbound: 'off' is not one of disabled, offered, required, none, custom, unknown"),
        ({"hosts": {"m1": {"inbound": False}}}, None),
        ({"hosts": {"m1": {"outbound": "x\ny"}}}, r"host m1: outbound: 'x\?y' is not one of disabled"),
        ({"hosts": {"m1": {"mode": "x"}}}, "host m1: 'mode' is not one of inbound, outbound, accept, peers, enforced_domains"),
        ({"hosts": {"m1": {"enforced_domains": "x"}}}, "host m1: enforced_domains: 'x' is not a list"),
        ({"hosts": {"m1": {"enforced_domains": ["x"]}}}, "is not a list with domain and direction of each"),
        ({"hosts": {"m1": {"enforced_domains": [{"domain": "a b", "direction": "inbound"}]}}}, "domain and direction of each"),
        ({"hosts": {"m1": {"peers": "x"}}}, "host m1: peers: 'x' is not a list of names"),
        ({"email_configs": {"main": "off"}}, "email config main: 'off' is not null, or one of plaintext"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(given, said):
    if said is None:  # as nothing said of that side
        assert WorkflowChanges.parse(given).hosts["m1"].inbound == "unknown"
        return
    with pytest.raises(EngineError, match=f"^starttls_changes: .*{said}"):
        WorkflowChanges.parse(given)


def test_of_two_jobs_the_first_state_counts():
    first = WorkflowChanges.parse({"hosts": {"m1": {**OFF, "peers": ["a"]}}, "email_configs": {"main": None}})
    later = WorkflowChanges.parse(
        {"hosts": {"m1": {**ON, "peers": ["b"]}, "m2": OFF}, "email_configs": {"main": "required", "x": "plaintext"}}
    )
    assert first.followed_by(later).to_json() == {
        "hosts": {"m1": {**OFF, "peers": ["a", "b"]}, "m2": OFF}, "email_configs": {"main": None, "x": "plaintext"},
    }  # fmt: skip


def test_the_email_configs_of_the_workflow_as_they_were_and_no_others():
    assert configs_before(CONFIGS, CHANGES, ["m1", "gw1"]) == [
        {**CONFIGS[0], "delivery_mode": "match_sender"},
        {"name": "new", "domains": ["b.example"], "state": "absent"},
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (None, "starttls_changes is not given, .*nothing was changed"),
        ("", "starttls_changes is not given, .*nothing was changed"),
        ({"hosts": {"m9": OFF}}, "the host m9 is not in the inventory"),
        ({"email_configs": {"x": None}}, "there is no email config 'x' in email_configs"),
        ({"email_configs": {"gone": "required"}}, "there is no email config 'gone' in email_configs"),
    ],
)
def test_what_cannot_be_put_back_is_refused(changes, said):
    with pytest.raises(EngineError, match=said):
        configs_before(CONFIGS, changes, ["m1", "gw1"])


@pytest.mark.parametrize(
    ("host", "side", "word"),
    [
        ("m1", "inbound", "disabled"), ("m1", "accept", "unchanged"), ("gw1", "outbound", "plaintext"), ("gw1", "accept", "unchanged"),
        ("m2", "inbound", "unchanged"),
    ],
)  # fmt: skip
def test_the_state_to_go_back_to(host, side, word):
    assert state_before(CHANGES, host, side) == word


@pytest.mark.parametrize("word", ["custom", "unknown", "required"])
def test_a_side_that_has_no_name_or_insisted_stays_as_it_is(word):
    changes = {"hosts": {"m1": {"inbound": word, "outbound": word}}}
    assert [state_before(changes, "m1", side) for side in ("inbound", "outbound")] == ["unchanged"] * 2


def test_a_side_that_was_never_set():
    assert state_before({"hosts": {"gw1": OFF}}, "gw1", "accept", "both") == "both"
    assert state_before({"hosts": {}}, "gw1", "accept", "both") == "unchanged"


def test_the_enforced_domains_of_the_workflow_go():
    first, later = ({"domain": f"{one}.example", "direction": "inbound"} for one in ("a", "b"))
    jobs = [WorkflowChanges.parse({"hosts": {"gw1": {**OFF, "enforced_domains": [one]}}}) for one in (first, later)]
    both = jobs[0].followed_by(jobs[1]).to_json()
    assert enforced_before(both, "gw1") == [{**one, "state": "absent"} for one in (first, later)]
    assert enforced_before(both, "gw2") == []


def test_only_the_host_that_is_asked_for_is_read():
    """With many hosts, the plan asks for each of them."""
    assert former_host({"hosts": {"m1": OFF, "m2": "nonsense"}}, "m1").to_json() == OFF


def test_a_result_is_small_and_no_template():
    many = [{"host": f"m{number}", "severity": "error", "code": "x", "message": "m" * 999} for number in range(99)]
    found = result_of({"hosts": 99}, many, [{"message": "{{{ 7 * 7 }}{% raw %}", "code": "y"}])
    assert len(found["findings"]) == MOST_ENTRIES + 1
    assert found["findings"][-1]["message"] == "and 49 more; the report has them"
    assert len(found["findings"][0]["message"]) == MOST_CHARACTERS
    assert not {"{{", "{%", "{#"} & {
        text[place : place + 2] for text in [found["alerts"][0]["message"]] for place in range(30)
    }
    assert len(json.dumps(found)) < 25_000


@pytest.mark.parametrize(
    ("url", "directory", "place"),
    [
        ("https://me:secret@store.example/x@y", "reports", "https://store.example/x@y"), ("", "reports", "reports"), (None, None, ""),
        ("", "/mnt/{{ awx_job_id }}", "/mnt/{ { awx_job_id }}"),
    ],
)  # fmt: skip
def test_where_the_report_is(url, directory, place):
    assert with_report(result_of({}, []), url, directory)["report"] == place
