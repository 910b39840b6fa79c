"""The configuration of the program on a host: what it takes, and what it refuses."""

import copy
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.configuration import VERSION, RenewalPlan
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

TOP = Path(__file__).resolve().parents[5]
LIVE = "/etc/letsencrypt/live/mx1.example.com"
GOOD = {
    "format": 1,
    "kind": "postfix",
    "timeout": 20,
    "textfile": "/var/lib/prometheus/node-exporter/mailfleet_starttls_renewal.prom",
    "certificates": [
        {
            "name": "mx1.example.com",
            "pairs": [
                {"private_key": f"{LIVE}/privkey.pem", "certificate": f"{LIVE}/fullchain.pem", "path": "/etc/mailfleet/starttls.pem"},
                {"private_key": "/k", "certificate": "/c", "chain": "/ch"},
            ],
            "names": ["mx1.example.com", "192.0.2.1"],
            "listeners": [{"host": "127.0.0.1"}, {"host": "::1", "port": 465, "protocol": "smtps", "name": "mx1.example.com"}],
            "owner": "root", "group": "Debian-exim", "mode": "0640", "roots": "",
            "policy": {
                "allow_self_signed": False, "min_days_left": None, "install_min_days_left": 3, "warn_days_left": 9,
                "minimum_bits": {"RSA": 3072},
            },
            "tlsa": [{"name": "_25._tcp.mx1.example.com", "usage": 3, "selector": 1, "matching_type": 1, "data": "00ff"}],
        }
    ],
}  # fmt: skip


def changed(*path_and_value):
    *path, last, value = path_and_value
    data = copy.deepcopy(GOOD)
    part = data
    for one in path:
        part = part[one]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return data


ONE = ("certificates", 0)
BAD = [
    (changed("kind", ...), "kind is missing"),
    (changed("timeout", 0), "timeout is not a number from 1 to 600"),
    (changed("timeout", True), "timeout"),
    (changed("certificates", {}), "certificates is not a list"),
    (changed("certificates", 0, 7), "a certificate is not a JSON object"),
    (changed("more", 1), "'more' is not known"),
    (changed(*ONE, "name", "a\nb"), "holds a blank, a quote or one of"),
    (changed(*ONE, "name", "mx1'=0;"), "holds a blank, a quote or one of"),
    (changed(*ONE, "pairs", []), "pairs is not a list with 1 or more"),
    (changed(*ONE, "pairs", 0, "certificate", "relative"), "is not absolute"),
    (changed(*ONE, "pairs", 0, "private_key", ...), "private_key is missing"),
    (changed(*ONE, "names", []), "names is not a list with 1 or more"),
    (changed(*ONE, "names", [""]), "names holds something else"),
    (changed(*ONE, "listeners", []), "listeners is not a list with 1 or more"),
    (changed(*ONE, "listeners", 0, "port", 70000), "port is not a number from 1 to 65535"),
    (changed(*ONE, "listeners", 0, "protocol", "http"), "is none of smtp, smtps"),
    (changed(*ONE, "policy", "min_days_left", "7"), "min_days_left is not a number"),
    (changed(*ONE, "policy", "minimum_bits", {"RSA": "x"}), "is not an object of numbers"),
    (changed(*ONE, "tlsa", 0, "name", "mx1.example.com"), "is not like _25._tcp"),
    (changed(*ONE, "tlsa", 0, "data", "xyz"), "tlsa.data is not hexadecimal"),
]
ONLY_THE_PROGRAM = [
    (changed(*ONE, "mode", "0644"), "does not fit a private key"),
    (changed(*ONE, "owner", "ro ot"), "is no name of a user"),
    (changed(*ONE, "listeners", 0, "host", "a b"), "neither a host name nor an IP address"),
    (changed(*ONE, "pairs", 1, "path", "/etc/mailfleet/starttls.pem"), "two certificates have the path"),
    (changed(*ONE, "pairs", 0, "path", f"{LIVE}/fullchain.pem"), "is the source too"),
    (changed("certificates", [GOOD["certificates"][0]] * 2), "two certificates have the name"),
    (changed("textfile", "x.prom"), "is not absolute"),
]


def test_a_good_one_is_read_and_written_as_it_is():
    found = RenewalPlan.from_json(GOOD, "x")
    again = RenewalPlan.parse(found.text())
    assert again == found and again.text() == found.text()
    assert found.certificates[0].listeners[1].server_name == "mx1.example.com"


@pytest.mark.parametrize(("data", "said"), BAD)
def test_what_the_schema_refuses_the_program_refuses(data, said):  # test_renewal_schema.py asks the schema
    with pytest.raises(EngineError) as caught:
        RenewalPlan.from_json(data, "renewal.json")
    assert said in str(caught.value) and str(caught.value).startswith("renewal.json: ")
    assert "let the module renewal_hook write it again" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("data", "said"), ONLY_THE_PROGRAM)
def test_what_no_schema_can_say(data, said):
    with pytest.raises(EngineError, match=r"renewal\.json: ") as caught:
        RenewalPlan.from_json(data, "renewal.json")
    assert said in str(caught.value)


def test_it_is_the_version_of_the_collection():
    assert f"\nversion: {VERSION}\n" in (TOP / "galaxy.yml").read_text()
