import json

import pytest
import yaml
from ansible.module_utils import basic
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.probe import unpack_result
from ansible_collections.mailfleet.starttls.plugins.modules import starttls_probe

from tests.support.ansible_module import run_module
from tests.support.smtp_server import PLAIN, Face, refused_port, server_context, serving

NAME = "mail.example.com"


@pytest.fixture
def face(authority, tmp_path):
    return Face(context=server_context(tmp_path, authority.issue([NAME])))


def run(**options):
    return run_module(starttls_probe.main, **options)


def test_a_few_targets(face, authority):
    with serving(face) as server, serving(PLAIN) as plain:
        result = run(
            targets=[
                {"host": server.host, "port": server.port, "name": NAME, "fingerprint_sha256": ":".join(["AB"] * 32)},
                {"host": plain.host, "port": plain.port, "protocol": "lmtp"},
            ],
            ca_content="a comment in any script: \u00fc\n" + authority.root_pem.decode(),
            checks=["versions", "dane"],
            helo_name="probe.example.org",
            fail_on="warning",
            timeout=5,
        )
        assert server.commands[0] == b"EHLO probe.example.org" and plain.commands[0].startswith(b"LHLO ")
    first, second = result["results"]
    assert (first["completed"], first["trusted"], first["versions"]["TLSv1.3"]) == (True, True, True)
    assert set(first["chain_sha256"]) == set(result["certificates"])
    assert (second["code"], second["protocol"]) == ("starttls_not_offered", "lmtp")
    common = {
        "require_trusted": True, "min_tls_version": "TLSv1.2", "min_days_left": 0, "warn_days_left": 21, "fail_on": "warning",
    }  # fmt: skip
    assert result["expectations"] == [{**common, "fingerprint": "ab" * 32}, {**common, "fingerprint": ""}]
    assert result["changed"] is False


def test_many_targets_come_packed(face, monkeypatch):
    logged = []
    monkeypatch.setattr(basic.AnsibleModule, "log", lambda _self, text, **_: logged.append(text))
    with serving(Face(greeting=b"421 busy\r\n")) as server:
        result = run(
            targets=[{"host": server.host, "port": server.port}] * 299 + [{"host": NAME, "port": refused_port()}]
        )
    assert "results" not in result
    public = unpack_result(result)
    assert [one["code"] for one in public["results"]] == ["greeting_rejected"] * 299 + ["connect_failed"]
    assert len(public["expectations"]) == 300
    assert "30 of 300" in logged and "300 of 300" in logged and len([one for one in logged if " of " in one]) <= 12
    assert len(json.dumps(result)) < 40_000


@pytest.mark.parametrize(("protocol", "port"), [("smtp", 25), ("smtps", 465), ("lmtp", 24)])
def test_the_port_of_each_protocol(protocol, port):
    item = {"host": "Mail.Example.com.", "port": None, "name": "m\u00fcnchen.example", "protocol": protocol}
    target = starttls_probe.make_target(item)
    assert (target.host, target.port, target.name) == ("Mail.Example.com", port, "xn--mnchen-3ya.example")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": []}, "there is no target to test"),
        ({"targets": [{"host": "-oProxy"}]}, "is neither a host name nor an IP address"),
        ({"targets": [{"host": "stra\u00dfe.example"}]}, "cannot be converted safely"),
        ({"targets": [{"host": NAME, "port": 0}]}, "is not between 1 and 65535"),
        ({"targets": [{"host": NAME, "protocol": "imap"}]}, "value of protocol must be one of"),
        ({"targets": [{"host": NAME}], "ca_content": "nothing"}, "ca_content holds no usable certificate"),
        ({"targets": [{"host": NAME}], "mode": "fast"}, "value of mode must be one of"),
        ({"targets": [{"host": NAME}], "checks": ["all"]}, "value of checks must be one or more of"),
    ],
)
def test_options_that_cannot_be(options, message):
    result = run(**options)
    assert result["failed"] and message in result["msg"]


def test_progress_is_told_every_tenth_and_every_ten_seconds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(starttls_probe.time, "monotonic", lambda: now[0])
    told = []
    tell = starttls_probe.progress_log(1000, told.append)
    for finished in range(1, 301):
        tell(finished)
    now[0] = 11.0
    tell(301)
    tell(302)
    assert told == ["100 of 1000", "200 of 1000", "300 of 1000", "301 of 1000"]


def test_every_key_of_a_result_is_documented(face):
    documented = yaml.safe_load(starttls_probe.RETURN)["results"]["contains"]
    with serving(face) as server:
        for mode in ("full", "survey"):
            [seen] = run(targets=[{"host": server.host, "port": server.port}], mode=mode)["results"]
            private = {"key_exchange", "signature_algorithm", "knows_tls13", "needs_full_test", "alert"}
            assert set(seen) - private <= set(documented)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"targets": [{"host": NAME, "fingerprint_sha256": "AB:CD"}]}, "'abcd' is not a SHA-256 fingerprint"),
        ({"timeout": 0}, "timeout has to be at least 1"),
        ({"total_timeout": -1}, "total_timeout has to be at least 1"),
        ({"concurrency": 0}, "concurrency has to be at least 1"),
    ],
)
def test_fingerprints_and_numbers_that_cannot_be(options, said):
    result = run(**{"targets": [{"host": NAME}], **options})
    assert result["failed"] and said in result["msg"]
