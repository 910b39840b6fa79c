import json

import pytest
import yaml
from ansible.module_utils import basic
from ansible_collections.mailfleet.starttls.plugins.module_utils._probe.engine import unpack_result
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
                {"host": server.host, "port": server.port, "name": NAME},
                {"host": plain.host, "port": plain.port, "protocol": "lmtp"},
            ],
            ca_content=authority.root_pem.decode(),
            timeout=5,
        )
    assert [(one["code"], one["trusted"]) for one in result["results"]] == [("", True), ("starttls_not_offered", None)]
    assert [one["fingerprint"] for one in result["expectations"]] == ["", ""]
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
    assert [one["code"] for one in public["results"]] == ["greeting_rejected"] * 299 + ["name_not_resolved"]
    assert len(public["expectations"]) == 300
    assert "30 of 300" in logged and "300 of 300" in logged and len([one for one in logged if " of " in one]) <= 12
    assert len(json.dumps(result)) < 40_000
    assert result.get("invocation", {}).get("module_args", {}).get("targets") in (None, "300 targets")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": []}, "there is no target to test"),
        ({"targets": [{"host": "-oProxy"}]}, "is neither a host name nor an IP address"),
        ({"targets": [{"host": NAME, "protocol": "imap"}]}, "value of protocol must be one of"),
        ({"targets": [{"host": NAME}], "ca_content": "nothing"}, "ca_content holds no usable certificate"),
        ({"targets": [{"host": NAME}], "mode": "fast"}, "value of mode must be one of"),
        ({"targets": [{"host": NAME}], "checks": ["all"]}, "value of checks must be one or more of"),
    ],
)
def test_options_that_cannot_be(options, message):
    result = run(**options)
    assert result["failed"] and message in result["msg"]


def test_every_key_of_a_result_is_documented(face):
    documented = yaml.safe_load(starttls_probe.RETURN)["results"]["contains"]
    with serving(face) as server:
        for mode in ("full", "survey"):
            [seen] = run(targets=[{"host": server.host, "port": server.port}], mode=mode)["results"]
            private = {"key_exchange", "signature_algorithm", "knows_tls13", "needs_full_test", "alert"}
            assert set(seen) - private <= set(documented)
