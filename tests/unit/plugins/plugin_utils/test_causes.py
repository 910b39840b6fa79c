"""The cause behind what a handshake test saw: what an administrator reads in the table, instead of a guess."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils import rows
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.causes import explained
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Estate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding

from tests.support.plan_states import server

HOST, OURS, OTHER = "mx.example", "/etc/mailfleet/starttls.pem", "/etc/ssl/other.pem"
SERVED, INSTALLED = "a" * 64, "b" * 64


def file(path, fingerprint=INSTALLED, message="", ends="2027-11-01T00:00:00Z"):
    certificate = {"fingerprint_sha256": fingerprint, "not_after": ends} if fingerprint and not message else None
    return {"path": path, "readers": [], "certificate": certificate, "message": message}


def seen(tls="offered", paths=(OURS,), files=None, title="Postfix", **more):
    files = [file(OURS)] if files is None else files
    listener = {"service": "smtp/inet", "host": "", "port": 25, "tls": tls, "certificates": list(paths)}
    return {
        "kind": "postfix", "title": title, "health": {"state": "running"}, "listeners": [listener],
        "certificates": list(files), **more,
    }  # fmt: skip


def probe(code="", served="", found=(), seen_from=HOST, port=25):
    findings = [Finding.advised(one, "the fault").as_dict() for one in found]
    return {
        "name": HOST, "port": port, "seen_from": seen_from, "code": code, "fingerprint_sha256": served,
        "findings": findings, "passed": not findings,
    }  # fmt: skip


EDITED = {
    "code": "edits_not_read",
    "message": "/etc/postfix/main.cf changed after the mail server has read it last; the reload of a change activates that, too",
}  # fmt: skip
GONE = file(OURS, message="there is no such file")
CASES = {
    "the file is gone, Postfix cannot use TLS": (
        seen(files=[GONE]), probe("starttls_refused", found=["starttls_refused"]), "certificate_file_gone",
        f"Postfix is told to serve {OURS} (there is no such file), and cannot use TLS",
    ),
    "the file is gone, an older process serves it still": (
        seen(files=[GONE]), probe(served=SERVED), "certificate_file_gone", "still serves one that it read before",
    ),
    "the file holds no certificate": (
        seen(files=[file(OURS, message="it holds no certificate")]), probe("tls_failed", found=["tls_failed"]),
        "certificate_file_gone", "it holds no certificate",
    ),
    "Exim makes one": (
        seen(paths=(), title="Exim"), probe(served=SERVED, found=["untrusted", "name_mismatch"]), "certificate_of_its_own",
        "Exim serves a certificate of its own making, because its configuration names no file; the one that was installed is still "
        f"in {OURS}",
    ),
    "Exim makes one, and ours is not there either": (
        seen(paths=(), files=(), title="Exim"), probe(served=SERVED, found=["untrusted"]), "certificate_of_its_own",
        "names no file; run enable_tls",
    ),
    "another file is configured": (
        seen(paths=(OTHER,), files=[file(OTHER, SERVED), file(OURS)]), probe(served=SERVED), "other_certificate_configured",
        f"Postfix is told to serve {OTHER}, not the installed {OURS}",
    ),
    "the file was replaced": (
        seen(), probe(served=SERVED), "certificate_not_reloaded",
        f"Postfix serves another certificate than the one in {OURS} (valid to 2027-11-01T00:00:00Z): the file, or the ",
    ),
    "STARTTLS is switched off": (
        seen("none", ()), probe("starttls_not_offered", found=["starttls_not_offered"]), "starttls_not_configured",
        "Postfix is told to offer no STARTTLS at port 25",
    ),
    "another run is under way": (
        seen("none", (), journal={"path": "/x", "files": []}), probe("starttls_not_offered", found=["starttls_not_offered"]),
        "starttls_not_configured", "a change of this host is under way, or was killed",
    ),
    "the daemon has not read its files": (
        seen(notes=[EDITED]), probe("starttls_not_offered", found=["starttls_not_offered"]), "configuration_not_reloaded",
        "Postfix is told to offer STARTTLS at port 25, and does not: /etc/postfix/main.cf changed after the mail server has read it last; "
        "run enable_tls",
    ),
    "nothing is between the daemon and the test": (
        seen(title="Exim"), {**probe("starttls_not_offered", found=["starttls_not_offered"]), "host": "127.0.0.1"},
        "configuration_not_reloaded", "Exim is told to offer STARTTLS at port 25, and does not: it has not read its configuration, or",
    ),
    "the daemon says why": (
        seen(tls_words="cannot get RSA private key"), probe("starttls_refused", found=["starttls_refused"]),
        "certificate_not_loaded", "could not load it: cannot get RSA private key",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_cause_is_said_first(case):
    read, test, code, said = CASES[case]
    [done] = explained([test], HOST, read, OURS)
    assert done["findings"][0]["code"] == code
    assert said in done["findings"][0]["message"]
    assert done["passed"] is (code == "other_certificate_configured")


@pytest.mark.parametrize("case", CASES)
def test_no_guess_is_left_beside_the_cause(case):
    read, test, code, _said = CASES[case]
    [done] = explained([test], HOST, read, OURS)
    assert [one["message"] for one in done["findings"][1:]] == [
        f"the fault; the cause is {code}, which says what to do" for _one in test["findings"]
    ]


def test_a_finding_on_something_else_keeps_its_advice():
    [done] = explained([probe(served=SERVED, found=["old_tls_offered", "wrong_certificate"])], HOST, seen(), OURS)
    assert [one["code"] for one in done["findings"]] == ["certificate_not_reloaded", "old_tls_offered"]
    assert "which first shows who still needs the old versions" in done["findings"][1]["message"]


BY_NAME = "${if eq{$tls_in_sni}{x}{a}{b}}"
UNCLEAR = {
    "all is well": (seen(), probe(served=INSTALLED)),
    "it did not get as far as TLS": (seen(files=[GONE]), probe("timeout", found=["timeout"])),
    "no listener has this port": (seen(files=[GONE]), probe("starttls_refused", port=2525)),
    "the listeners could not be read": (seen(listeners=None), probe("starttls_refused")),
    "two listeners at one port differ": (
        seen(listeners=[*seen()["listeners"], *seen("none", ())["listeners"]]), probe("starttls_refused"),
    ),
    "nobody could look at the file": (seen(files=[file(OURS, message="could not look: a symbolic link")]), probe(served=SERVED)),
    "the mode of the listener is unknown": (seen("unknown", ()), probe("starttls_not_offered")),
    "the path depends on the client": (
        seen(paths=(BY_NAME,), files=[file(BY_NAME, message="could not look: it is not the path of one file"), file(OURS)]),
        probe(served=SERVED),
    ),
    "something between strips it": (seen(), probe("starttls_not_offered", found=["starttls_not_offered"])),
    "the daemon does not run": (seen(files=[GONE], health={"state": "stopped"}), probe("starttls_refused")),
    "nothing is known of the reason": (seen(), probe("tls_failed", found=["tls_failed"])),
}  # fmt: skip


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_is_not_known_is_not_claimed(case):
    read, test = UNCLEAR[case]
    assert explained([test], HOST, read, OURS) == [test]


def test_a_test_from_elsewhere_that_saw_something_else_keeps_its_own_advice():
    own = probe(served=SERVED)
    between = probe("starttls_not_offered", found=["starttls_not_offered"], seen_from="gw.example")
    same = probe(served=SERVED, seen_from="gw.example")
    first, second, third = explained([own, between, same], HOST, seen(), OURS)
    assert first["findings"][0]["code"] == third["findings"][0]["code"] == "certificate_not_reloaded"
    assert second == between


def test_a_test_from_elsewhere_that_saw_the_same_as_the_host_itself_has_its_cause():
    here = {**probe("starttls_not_offered", found=["starttls_not_offered"]), "host": "127.0.0.1"}
    there = {**here, "host": HOST, "seen_from": "gw.example"}
    for done in explained([here, there], HOST, seen(), OURS):
        assert [one["code"] for one in done["findings"]] == ["configuration_not_reloaded", "starttls_not_offered"]
    assert explained([there], HOST, seen(), OURS) == [there]


def test_words_of_a_host_are_one_printable_line():
    read = seen(tls_words="bad\nline\x1b[2J" + "x" * 1000)
    [done] = explained([probe("starttls_refused")], HOST, read, OURS)
    message = done["findings"][0]["message"]
    assert message.isprintable() and len(message) < 600


def hostvars(**facts):
    return {HOST: {"mail_server_observed": seen(files=[GONE]), "verify_probe": {"results": [bare()]}, **facts}}


def bare():
    return {**probe("starttls_refused", found=["starttls_refused"]), "seen_from": None, "host": HOST}


def test_the_table_has_it_and_a_host_that_changed_since_has_not():
    [one] = rows.tests_of(HOST, hostvars())
    assert one["findings"][0]["code"] == "certificate_file_gone"
    assert "[certificate_file_gone]" not in rows.failed_tests(HOST, hostvars())[0]
    for result in ("mail_server_result", "certificate_result", "gateway_accept_result"):
        [one] = rows.tests_of(HOST, hostvars(**{result: {"changed": True}}))
        assert [two["code"] for two in one["findings"]] == ["starttls_refused"]


def test_the_path_of_the_inventory_counts():
    read = seen(paths=(OTHER,), files=[file(OTHER, SERVED), file(OURS)])
    tests = {"results": [{**probe(served=SERVED), "host": HOST}]}
    facts = {"mail_server_observed": read, "verify_probe": tests}
    assert rows.tests_of(HOST, {HOST: facts})[0]["findings"][0]["code"] == "other_certificate_configured"
    assert rows.tests_of(HOST, {HOST: {**facts, "starttls_certificate_path": OTHER}})[0]["findings"] == []


def test_edits_that_the_daemon_has_not_read_are_a_warning_in_verify():
    read = server(HOST, notes=[EDITED])
    groups = {"mail_servers": [HOST]}

    def findings(**facts):
        hostvars = {HOST: {"mail_server_observed": read, "starttls_hostname": HOST, **facts}}
        [row] = rows.verdict_rows([HOST], hostvars, groups, Estate((HOST,)).to_json(), "offered")
        return [(one["code"], one["message"]) for one in row["findings"] if one["code"] == "edits_not_read"]

    assert [message.startswith("/etc/postfix/main.cf changed") for _code, message in findings()] == [True]
    assert findings(mail_server_result={"changed": True}) == []
