"""What the controller adds to the results of a host: look-ups, the proof of the key, verdicts."""

import base64
import hashlib
import ssl
import zlib

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.probe import record
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.modules.starttls_probe import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.lookups import Resolver
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.mta_sts import Web
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.probe_results import Inquiry, complete, complete_result
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support import dns_server
from tests.support.web_server import WebServer, answer, server_context

NAME = "mx.example.com"


def codes(result):
    return [finding["code"] for finding in result["findings"]]


def returned(issued, *names, **changes):
    """What the module returns when it saw this certificate on servers of these names."""
    chain = tuple(one.public_bytes(Encoding.DER) for one in [issued.certificate, *issued.chain])
    facts = {"stage": Stage.EHLO_TLS, "tls_version": "TLSv1.3", "trusted": True, "chain": chain}
    return {
        "changed": False,
        "results": [{**record(Handshake(Target(name), **facts)), **changes} for name in names],
        "certificates": {hashlib.sha256(der).hexdigest(): ssl.DER_cert_to_PEM_cert(der) for der in chain},
        "expectations": [{} for _ in names],
    }


def test_a_policy_is_fetched_once_and_compared_with_each_server(authority, tmp_path):
    web = WebServer(server_context(tmp_path, authority.issue(["mta-sts.example.com"])))
    web.reply = answer(b"version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 86400\n")
    with dns_server.serve() as names:
        names.add("_mta-sts.example.com", "TXT", '"v=STSv1; id=1;"')
        names.add("mta-sts.example.com", "A", "127.0.0.1")
        client = Web(ssl.create_default_context(cadata=authority.root_pem.decode()), web.port)
        inquiry = Inquiry(
            with_mta_sts=True, domains=("example.com",) * 2, resolver=Resolver([names.address]), web=client
        )
        result = complete(returned(authority.issue(["*.example.com"]), NAME, "mx2.example.com"), inquiry, "")
    web.close()
    first, second = result["results"]
    assert (first["mta_sts"]["status"], first["mta_sts"]["mx"], codes(first)) == ("match", [NAME], [])
    assert (second["mta_sts"]["status"], codes(second)) == ("mismatch", ["mta_sts_mismatch"])
    assert (result["passed"], len(web.requests)) == (False, 1)


@pytest.mark.parametrize(
    "exchange",
    [None, {}, [], "text", {"algorithm": "ecdsa_sha256", "signed": "?", "signature": ""}, {"algorithm": None}],
)
def test_a_key_exchange_that_cannot_be_read_proves_nothing(authority, exchange):
    seen = returned(authority.issue([NAME]), NAME, mode="survey", completed=False, trusted=None, key_exchange=exchange)
    [one] = complete(seen, Inquiry(), authority.root_pem.decode())["results"]
    assert (codes(one), one["passed"], "key_exchange" in one) == (["not_proved"], True, False)


def test_a_key_exchange_that_another_key_signed(authority):
    exchange = {"algorithm": "ecdsa_sha256", "signed": "AAAA", "signature": "MAYCAQECAQE="}
    seen = returned(authority.issue([NAME]), NAME, mode="survey", completed=False, trusted=None, key_exchange=exchange)
    assert codes(complete(seen, Inquiry(), authority.root_pem.decode())["results"][0]) == ["tls_failed"]


def options(**given):
    """The options as the action plugin has them, with their defaults."""
    return ArgumentSpecValidator(ARGUMENT_SPEC).validate({"targets": [{"host": NAME}], **given}).validated_parameters


@pytest.mark.parametrize("checks", [[], "versions", ["versions", "injection"]])
def test_nothing_is_looked_up_unless_asked_for(checks):
    assert Inquiry.of_options(options(checks=checks)) == Inquiry()


def test_targets_may_be_text():
    given = options(targets=[f"host={NAME} domain=Example.COM."], checks="mta_sts", resolver="127.0.0.1")
    assert Inquiry.of_options(given).domains == ("example.com",)


def test_a_domain_is_converted_by_the_rule_of_the_names_of_targets():
    """Where that is not safe, its ASCII form has to be given."""
    given = options(targets=[{"host": NAME, "domain": "B\u00fccher.Example."}], checks="dane", resolver="127.0.0.1")
    assert Inquiry.of_options(given).domains == ("xn--bcher-kva.example",)
    given["targets"][0]["domain"] = "stra\u00dfe.example"
    with pytest.raises(EngineError, match=rf"the domain of {NAME}: .*give it in its ASCII form \(xn--...\)"):
        Inquiry.of_options(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"targets": [{"host": NAME, "domain": "a b"}]}, f"the domain 'a b' of {NAME} is not a domain"),
        (
            {"targets": [{"host": NAME, "domain": "example.com"}], "resolver": ["ns.example.com"]},
            "the resolver 'ns.example.com' is not an IP address",
        ),
    ],
)
def test_what_cannot_be_looked_up_is_refused(given, message):
    with pytest.raises(EngineError, match=message):
        Inquiry.of_options(options(checks=["mta_sts"], **given))


def test_a_failure_is_returned_as_it_is():
    failed = {"failed": True, "msg": "no Python"}
    assert complete_result(failed, Inquiry(), "", 1) is failed


def test_packed_results_are_completed(authority):
    packed = base64.b64encode(zlib.compress(b"")).decode()
    result = {"changed": False, "packed": packed, "expected": {}, "fingerprints": {}}
    assert complete_result(result, Inquiry(), "", 0) == {"changed": False, "results": [], "passed": True}


def test_packed_results_that_cannot_be_read():
    with pytest.raises(EngineError, match="the packed results cannot be read"):
        complete_result({"packed": "?", "expected": {}, "fingerprints": {}}, Inquiry(), "", 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"results": [{}]},
        {"results": [1]},
        {"results": {"host": 1}},
        {"results": None},
        {"results": [{"host": ["a"], "capabilities": 5}]},
        {"certificates": None},
        {"certificates": {"ab": 5}, "expectations": [{"surprise": True}]},
        {"expectations": 5},
    ],
)
def test_results_of_another_shape_are_an_error_of_that_host(changes):
    """The host may be somebody else's by now: no traceback, and nothing of what it says is believed."""
    given = {"results": [{"host": "a"}], "certificates": {}, "expectations": [{}], **changes}
    with pytest.raises(EngineError, match="what the host returned cannot be understood"):
        complete_result(given, Inquiry(), "", 1)
