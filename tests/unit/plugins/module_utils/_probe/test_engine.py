"""A whole call of starttls_probe, without Ansible: options in, results out."""

import base64
import json
import zlib

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._probe import engine as module
from ansible_collections.mailfleet.starttls.plugins.module_utils._probe.engine import (
    Request,
    make_target,
    run_probe,
    unpack_result,
)

from tests.support.smtp_server import PLAIN, Face, refused_port, server_context, serving

NAME = "mail.example.com"
COMMON = {
    "require_trusted": True, "min_tls_version": "TLSv1.2", "min_days_left": 0, "warn_days_left": 21, "fail_on": "error",
}  # fmt: skip


@pytest.fixture
def face(authority, tmp_path):
    return Face(context=server_context(tmp_path, authority.issue([NAME])))


def target(host=NAME, **given):
    return {"host": host, "port": None, "protocol": "smtp", "name": None, "fingerprint_sha256": None, **given}


def request_for(*targets, **given):
    options = {
        **COMMON, "targets": list(targets), "mode": "full", "checks": [], "ca_content": None, "helo_name": None, "timeout": 15,
        "total_timeout": 60, "concurrency": 1000,
    }  # fmt: skip
    return Request.of_options({**options, **given})


def test_a_few_targets(face, authority):
    with serving(face) as server, serving(PLAIN) as plain:
        request = request_for(
            target(server.host, port=server.port, name=NAME, fingerprint_sha256=":".join(["AB"] * 32)),
            target(plain.host, port=plain.port, protocol="lmtp"),
            ca_content="a comment in any script: \u00fc\n" + authority.root_pem.decode(),
            checks=["versions", "dane"],
            helo_name="probe.example.org",
            fail_on="warning",
            timeout=5,
        )
        result = run_probe(request, pytest.fail)
        assert server.commands[0] == b"EHLO probe.example.org" and plain.commands[0].startswith(b"LHLO ")
    first, second = result["results"]
    assert (first["completed"], first["trusted"], first["versions"]["TLSv1.3"]) == (True, True, True)
    assert set(first["chain_sha256"]) == set(result["certificates"])
    assert (second["code"], second["protocol"]) == ("starttls_not_offered", "lmtp")
    common = {**COMMON, "fail_on": "warning"}
    assert result["expectations"] == [{**common, "fingerprint": "ab" * 32}, {**common, "fingerprint": ""}]
    assert set(result) == {"changed", "results", "certificates", "expectations"}
    assert result["changed"] is False


@pytest.mark.parametrize(("number", "packed"), [(200, False), (201, True)])
def test_up_to_two_hundred_results_come_as_they_are(number, packed):
    request = request_for(*[target("127.0.0.1", port=refused_port())] * number)
    result = run_probe(request, lambda _line: None)
    assert (request.is_long, "packed" in result, "results" in result) == (packed, packed, not packed)
    assert len(unpack_result(result)["results"]) == number


def test_many_targets_come_packed():
    logged = []
    with serving(Face(greeting=b"421 busy\r\n")) as server:
        one = target(server.host, port=server.port, fingerprint_sha256="cd" * 32)
        result = run_probe(request_for(*[one] * 299, target(port=refused_port())), logged.append)
    assert "results" not in result
    public = unpack_result(result)
    assert [one["code"] for one in public["results"]] == ["greeting_rejected"] * 299 + ["name_not_resolved"]
    assert [one["fingerprint"] for one in public["expectations"]] == ["cd" * 32] * 299 + [""]
    assert "30 of 300" in logged and "300 of 300" in logged and len(logged) <= 12
    assert len(json.dumps(result)) < 70_000


@pytest.mark.parametrize(("protocol", "port"), [("smtp", 25), ("smtps", 465), ("lmtp", 24)])
def test_the_port_of_each_protocol(protocol, port):
    item = {"host": "Mail.Example.com.", "port": None, "name": "m\u00fcnchen.example", "protocol": protocol}
    target = make_target(item)
    assert (target.host, target.port, target.name) == ("Mail.Example.com", port, "xn--mnchen-3ya.example")


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        ([], {}, "there is no target to test"),
        ([target("-oProxy")], {}, "is neither a host name nor an IP address"),
        ([target("stra\u00dfe.example")], {}, "cannot be converted safely"),
        ([target(port=0)], {}, "is not between 1 and 65535"),
        ([target()], {"ca_content": "nothing"}, "ca_content holds no usable certificate"),
        ([target(fingerprint_sha256="AB:CD")], {}, "'abcd' is not a SHA-256 fingerprint"),
        ([target()], {"timeout": 0}, "timeout has to be at least 1"),
        ([target()], {"total_timeout": -1}, "total_timeout has to be at least 1"),
        ([target()], {"concurrency": 0}, "concurrency has to be at least 1"),
    ],
)
def test_options_that_cannot_be_used(targets, options, message):
    with pytest.raises(ValueError, match=message):
        request_for(*targets, **options)


def test_progress_is_told_every_tenth_and_every_ten_seconds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    told = []
    tell = module.progress_log(1000, told.append)
    for finished in range(1, 301):
        tell(finished)
    now[0] = 11.0
    tell(301)
    tell(302)
    assert told == ["100 of 1000", "200 of 1000", "300 of 1000", "301 of 1000"]


def pack(text):
    return base64.b64encode(zlib.compress(text)).decode()


def test_the_result_of_a_module_in_either_form():
    plain = {"changed": False, "results": [{}], "certificates": {}, "expectations": [{}]}
    assert unpack_result(plain) is plain
    packed = {
        "changed": False, "packed": pack(b'R1 {"host":"b"}\nR0 {"host":"a"}\n'), "expected": {"fail_on": "error"},
        "fingerprints": {"1": "ab"}, "warnings": ["x"],
    }  # fmt: skip
    assert unpack_result(packed) == {
        "changed": False, "warnings": ["x"], "certificates": {}, "results": [{"host": "a"}, {"host": "b"}],
        "expectations": [{"fail_on": "error", "fingerprint": ""}, {"fail_on": "error", "fingerprint": "ab"}],
    }  # fmt: skip
