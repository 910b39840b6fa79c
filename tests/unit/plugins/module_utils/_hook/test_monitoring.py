"""The check for monitoring: what a monitoring system reads, to the letter, in every state."""

import datetime as dt
import json
import os
import re
import time

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import openssl
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.x509 import utc_now
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook import main, monitoring
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.configuration import RenewalPlan
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support import renewing
from tests.support.renewing import NAME, pem_of
from tests.support.smtp_server import PLAIN, Face

FULL = re.compile(r"STARTTLS (OK|WARNING|CRITICAL|UNKNOWN) - [^|]+( \| ('[^'=]+'=-?[0-9.]+%?(;[0-9.:]*){0,4} ?)+)?\Z")
"""The form of the guidelines: text, a bar, and 'label'=value[unit];warn;crit;min;max."""


def shown(line, host):
    """The line without what differs in each run: ports, paths and fingerprints."""
    for number, one in enumerate(host.listeners):
        line = line.replace(f"127.0.0.1:{one.port}", f"PORT{number}")
    line = line.replace(str(host.directory), "")
    return re.sub(r"[0-9a-f]{16}\.\.\.", "FINGERPRINT", re.sub(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", line))


def ages(host, days, age, **more):
    """Issue a certificate, and have it installed and served."""
    issued = host.renews(host.issue(days=days, age=age, **more))
    host.path().write_bytes(pem_of(issued))
    host.server.resume()
    return issued


def fresh(host):
    ages(host, 90, 0.5)


def six_days(host):
    ages(host, 6, 0.001)


def a_third_left(host):
    ages(host, 90, 61.5)


def a_tenth_left(host):
    ages(host, 90, 82.5)


def over(host):
    ages(host, 90, 91.5)


def another_is_served(host):
    fresh(host)
    host.path().write_bytes(pem_of(host.renews(host.issue(days=90, age=0.5))))
    os.utime(host.path(), (1, 1))


def no_starttls(host):
    fresh(host)
    host.listeners[0].face = PLAIN


def nobody_answers(host):
    fresh(host)
    host.listeners[1].close()


def without_chain(host):
    issued = host.renews(host.issue(days=90, age=0.5))
    host.path().write_bytes(issued.key_pem + issued.certificate_pem)
    host.server.resume()


def renewed_and_not_installed(host):
    ages(host, 90, 50.5)
    host.renews(host.issue(days=90, age=0.5))


def renewed_and_unfit(host):
    ages(host, 90, 50.5)
    host.renews(host.issue(days=90, age=0.5, names=("other.example.com",)))


def for_another_name(host):
    ages(host, 90, 0.5, names=("other.example.com",))


def no_file(host):
    fresh(host)
    host.path().unlink()


def key_is_gone(host):
    fresh(host)
    (host.live / "ec-key.pem").unlink()


def over_and_key_is_gone(host):
    over(host)
    (host.live / "ec-key.pem").unlink()


def open_to_all(host):
    fresh(host)
    host.path().chmod(0o644)


def open_to_a_group(host):
    fresh(host)
    host.path().chmod(0o640)
    os.chown(host.path(), 0, 54321)


def of_somebody_else(host):
    fresh(host)
    os.chown(host.path(), 54321, 0)


def closed_in_another_way(host):
    fresh(host)
    host.path().chmod(0o400)


def only_plaintext_errors(host):
    fresh(host)
    host.listeners[0].face = Face(starttls=b"454 4.7.0 TLS not available due to local problem\r\n")


DATA = "'mx1.example.com_days'={};30.00:;9.00:;;90.00 'mx1.example.com_life'={}%;33.3:;10.0:;;100 'mx1.example.com_served'={};;2:;0;2"
STATES = {
    fresh: (
        "STARTTLS OK - mx1.example.com: 89 days of 90 days left, served on 2 of 2 listeners | " + DATA.format("89.50", "99.4", 2)
    ),
    six_days: (
        "STARTTLS OK - mx1.example.com: 5 d 23 h of 6 d left (99 %), served on 2 of 2 listeners | "
        "'mx1.example.com_days'=6.00;2.00:;0.60:;;6.00 'mx1.example.com_life'=100.0%;33.3:;10.0:;;100 'mx1.example.com_served'=2;;2:;0;2"
    ),
    a_third_left: (
        "STARTTLS WARNING - mx1.example.com: the certificate 'CN=mx1.example.com' has 28 days left (until TIME), less than a third of its "
        "life of 90 days | " + DATA.format("28.50", "31.7", 2)
    ),
    a_tenth_left: (
        "STARTTLS CRITICAL - mx1.example.com: the certificate 'CN=mx1.example.com' has 7 days left (until TIME), less than a tenth of its "
        "life of 90 days | " + DATA.format("7.50", "8.3", 2)
    ),
    over: (
        "STARTTLS CRITICAL - mx1.example.com: the certificate 'CN=mx1.example.com' expired on TIME | " + DATA.format("-1.50", "-1.7", 2)
    ),
    another_is_served: (
        "STARTTLS CRITICAL - mx1.example.com: PORT0 serves another certificate than the installed one (FINGERPRINT); mx1.example.com: "
        "implicit TLS on PORT1 serves another certificate than the installed one (FINGERPRINT) | " + DATA.format("89.50", "99.4", 0)
    ),
    no_starttls: (
        "STARTTLS CRITICAL - mx1.example.com: PORT0 does not offer STARTTLS | " + DATA.format("89.50", "99.4", 1)
    ),
    nobody_answers: (
        "STARTTLS UNKNOWN - mx1.example.com: could not look at implicit TLS on PORT1: cannot connect to PORT1: Connection refused | "
        + DATA.format("89.50", "99.4", 1)
    ),
    without_chain: (
        "STARTTLS CRITICAL - mx1.example.com: the chain of the certificate 'CN=mx1.example.com' stops too early: the certificate of "
        "'CN=Example intermediate CA', which signed 'CN=mx1.example.com', is missing (OpenSSL says: unable to get local issuer "
        "certificate); mx1.example.com: PORT0 serves an incomplete chain; mx1.example.com: implicit TLS on PORT1 serves an incomplete "
        "chain | " + DATA.format("89.50", "99.4", 0)
    ),
    renewed_and_not_installed: (
        "STARTTLS WARNING - mx1.example.com: /live/ec-chain.pem was renewed and is not installed; run 'mailfleet-starttls renew' | "
        + DATA.format("39.50", "43.9", 2)
    ),
    renewed_and_unfit: (
        "STARTTLS WARNING - mx1.example.com: /live/ec-chain.pem was renewed and is not installed, because it is unfit ([name_not_covered] "
        "the certificate 'CN=other.example.com' is for DNS:other.example.com, not for mx1.example.com) | " + DATA.format("39.50", "43.9", 2)
    ),
    for_another_name: (
        "STARTTLS CRITICAL - mx1.example.com: the certificate 'CN=other.example.com' is for DNS:other.example.com, not for "
        "mx1.example.com | " + DATA.format("89.50", "99.4", 2)
    ),
    no_file: "STARTTLS CRITICAL - mx1.example.com: /etc/ec.pem is not there | 'mx1.example.com_served'=0;;2:;0;2",
    key_is_gone: "STARTTLS UNKNOWN - mx1.example.com: could not look: /live/ec-key.pem cannot be read: No such file or directory | "
    + DATA.format("89.50", "99.4", 2),
    over_and_key_is_gone: (
        "STARTTLS CRITICAL - mx1.example.com: the certificate 'CN=mx1.example.com' expired on TIME; mx1.example.com: could not look: "
        "/live/ec-key.pem cannot be read: No such file or directory | " + DATA.format("-1.50", "-1.7", 2)
    ),
    open_to_all: (
        "STARTTLS CRITICAL - mx1.example.com: the key can be read by others: /etc/ec.pem has mode 0644, owner 0, group 0, in the place of "
        "mode 0600, owner 0, group 0; run 'mailfleet-starttls renew' | " + DATA.format("89.50", "99.4", 2)
    ),
    open_to_a_group: (
        "STARTTLS CRITICAL - mx1.example.com: the key can be read by others: /etc/ec.pem has mode 0640, owner 0, group 54321, in the place "
        "of mode 0600, owner 0, group 0; run 'mailfleet-starttls renew' | " + DATA.format("89.50", "99.4", 2)
    ),
    of_somebody_else: (
        "STARTTLS CRITICAL - mx1.example.com: the key can be read by others: /etc/ec.pem has mode 0600, owner 54321, group 0, in the place "
        "of mode 0600, owner 0, group 0; run 'mailfleet-starttls renew' | " + DATA.format("89.50", "99.4", 2)
    ),
    closed_in_another_way: (
        "STARTTLS WARNING - mx1.example.com: /etc/ec.pem has mode 0400, owner 0, group 0, in the place of mode 0600, owner 0, group 0; "
        "run 'mailfleet-starttls renew' | " + DATA.format("89.50", "99.4", 2)
    ),
    only_plaintext_errors: (
        "STARTTLS CRITICAL - mx1.example.com: PORT0: STARTTLS is offered, then answered with 454 4.7.0 TLS not available due to local "
        "problem | "
        + DATA.format("89.50", "99.4", 1)
    ),
}  # fmt: skip


@pytest.mark.parametrize(("state", "line"), STATES.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_the_line_of_every_state(tmp_path, authority, state, line):
    if os.getuid() and state in (open_to_a_group, of_somebody_else):
        pytest.skip("only root gives files to others")
    with renewing.host(tmp_path, authority) as host:
        state(host)
        found = monitoring.check(host.configuration(), utc_now())
        assert shown(found.line, host) == line
        assert monitoring.STATUS_WORDS[found.status] == line.split()[1]
        assert FULL.match(found.line)


def test_fixed_days_are_an_option(tmp_path, authority):
    with renewing.host(tmp_path, authority) as host:
        ages(host, 90, 61.5)
        found = monitoring.check(host.configuration(policy={"warn_days_left": 14, "min_days_left": 7}), utc_now())
        assert found.status == 0 and "'mx1.example.com_days'=28.50;14.00:;7.00:;;90.00" in found.line
        found = monitoring.check(host.configuration(policy={"warn_days_left": 40}), utc_now())
        assert found.status == 1


def test_two_algorithms_are_two_rows_of_data(tmp_path, authority):
    with renewing.host(tmp_path, authority, kinds=("rsa", "ec")) as host:
        found = monitoring.check(host.configuration(), utc_now())
        assert found.status == 0 and "served on 4 of 4" in found.line
        assert {f"'{NAME}_RSA_days'", f"'{NAME}_EC_days'"} <= set(re.findall(r"'[^']+_days'", found.line))


def test_a_pair_without_a_file_does_not_hide_the_other(tmp_path, authority):
    with renewing.host(tmp_path, authority, kinds=("rsa", "ec")) as host:
        (host.live / "rsa-chain.pem").unlink()
        host.path("rsa").unlink()
        found = monitoring.check(host.configuration(), utc_now())
        assert found.status == 2 and "/rsa.pem is not there" in found.line and "rsa-chain.pem cannot be" in found.line
        assert f"'{NAME}_EC_days'" in found.line and f"'{NAME}_served'=2;;4:;0;4" in found.line


class Clock:
    """A clock that goes on only when it is waited for, so that a busy machine changes nothing."""

    def __init__(self, monkeypatch, happens):
        self.slept, self.happens, self.start = 0.0, happens, time.time()
        monkeypatch.setattr(monitoring, "time", self)

    def time(self):
        return self.start + self.slept

    def monotonic(self):
        return self.slept

    def sleep(self, seconds):
        self.slept += seconds
        self.happens()


def being_installed(host):
    """The moment between the write and the reload, or before Exim has noticed."""
    fresh(host)
    host.path().write_bytes(pem_of(host.renews(host.issue(days=90, age=0.5))))


def test_a_renewal_under_way_is_waited_for(tmp_path, authority, monkeypatch):
    with renewing.host(tmp_path, authority) as host:
        clock = Clock(monkeypatch, host.server.resume)
        being_installed(host)
        found = monitoring.check(host.configuration(), utc_now())
        assert found.line.startswith("STARTTLS OK - ") and clock.slept == monitoring._PAUSE


@pytest.mark.parametrize(("notices", "seconds"), [(0.0, 5.0), (1.0, 6.0)])
def test_a_renewal_that_is_not_served_in_time_is_critical(tmp_path, authority, monkeypatch, notices, seconds):
    monkeypatch.setattr(monitoring, "_PAUSE", 2.5)
    with renewing.host(tmp_path, authority) as host:
        clock = Clock(monkeypatch, lambda: None)
        being_installed(host)
        found = monitoring.check(host.configuration(), utc_now(), (), lambda: notices)
        assert found.status == 2 and seconds <= clock.slept < seconds + 2.5


def test_a_certificate_that_was_installed_long_ago_is_not_waited_for(tmp_path, authority, monkeypatch):
    with renewing.host(tmp_path, authority) as host:
        clock = Clock(monkeypatch, lambda: None)
        another_is_served(host)
        assert monitoring.check(host.configuration(), utc_now()).status == 2 and clock.slept == 0
        os.utime(host.path(), (2**33, 2**33))  # a clock that was wrong
        assert monitoring.check(host.configuration(), utc_now()).status == 2 and clock.slept == 5.0


def test_what_is_bad_is_said_first(tmp_path, authority):
    said = [monitoring.Said(status, f"s{status}") for status in (0, 1, 3, 2)]
    assert monitoring.answer(said) == (2, "STARTTLS CRITICAL - s2; s3; s1")
    assert monitoring.answer(said[:3]).status == 3


def test_a_strangers_text_makes_no_performance_data():
    found = monitoring.answer([monitoring.Said(2, "a | 'x'=1;2\nOK - fine")])
    assert found.line == "STARTTLS CRITICAL - a / 'x'=1;2\\nOK - fine"


def test_a_name_that_is_not_there(tmp_path, authority):
    with renewing.host(tmp_path, authority) as host:
        found = monitoring.check(host.configuration(), utc_now(), ["mx9.example.com"])
        assert found == (3, "STARTTLS UNKNOWN - mx9.example.com: there is no such certificate in the configuration")


def called(capsys, *words):
    return main.main(words), capsys.readouterr().out.rstrip("\n")


def test_the_program_checks(tmp_path, authority, capsys):
    path = tmp_path / "renewal.json"
    with renewing.host(tmp_path, authority) as host:
        path.write_text(json.dumps(host.data()))
        status, line = called(capsys, "check", "--configuration", str(path))
        assert (status, line[:14]) == (0, "STARTTLS OK - ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is not there; the module renewal_hook writes it"),
        ("{", "is not JSON"),
        ('{"format": 9, "kind": "postfix", "certificates": []}', "was written by a newer mailfleet.starttls (format 9"),
        ('{"format": 1, "kind": "postfix", "certificates": []}', "the configuration names no certificate"),
    ],
)
def test_what_cannot_be_looked_at_is_unknown(tmp_path, capsys, text, said):
    path = tmp_path / "renewal.json"
    if text is not None:
        path.write_text(text)
    status, line = called(capsys, "check", "--configuration", str(path))
    assert status == 3 and line.startswith("STARTTLS UNKNOWN - ") and said in line


def test_a_bug_is_unknown_and_shows_nothing(tmp_path, capsys, monkeypatch):
    def broken(_path):
        raise KeyError("-----BEGIN PRIVATE KEY-----")

    monkeypatch.setattr(main, "read", broken)
    status, line = called(capsys, "check")
    assert status == 3 and "KeyError in mailfleet-starttls" in line and "PRIVATE" not in line


def test_wrong_words_are_unknown_not_a_warning(capsys):
    assert main.main(["chekc"]) == 3
    assert main.main([]) == 3
    assert main.main(["--version"]) == 0


def test_the_empty_configuration():
    assert monitoring.check(RenewalPlan("postfix", ()), utc_now()).status == 3


@pytest.mark.parametrize(
    ("span", "shown"),
    [
        (dt.timedelta(days=5, hours=23, minutes=59), "5 d 23 h"), (dt.timedelta(days=6), "6 d"), (dt.timedelta(hours=7), "7 h"),
        (dt.timedelta(minutes=59, seconds=59), "59 min"), (dt.timedelta(0), "0 min"),
    ],
)  # fmt: skip
def test_a_short_time_is_shown_with_hours(span, shown):
    assert monitoring._hours(span) == shown


def test_a_certificate_that_no_published_record_fits_is_critical(tmp_path, authority):
    for in_place in (False, True):
        directory = tmp_path / str(in_place)
        directory.mkdir()
        with renewing.host(directory, authority, in_place=in_place) as host:
            tlsa = {"name": f"_25._tcp.{NAME}", "usage": 3, "selector": 1, "matching_type": 1, "data": "ab" * 32}
            status, line = monitoring.check(host.configuration(tlsa=[tlsa]), utc_now())
            assert status == 2 and FULL.match(line), line
            assert (
                f"fits none of the TLSA records that were published when Ansible ran last; publish _25._tcp.{NAME}. IN TLSA 3 1 1 "
                in line
            )
            assert monitoring.check(host.configuration(), utc_now()).status == 0


def test_a_renewed_one_that_no_published_record_fits_is_not_told_to_be_installed(tmp_path, authority):
    with renewing.host(tmp_path, authority) as host:
        old = ages(host, 90, 50.5).certificate.public_bytes(Encoding.DER)
        host.renews(host.issue(days=90, age=0.5))
        tlsa = {"name": f"_25._tcp.{NAME}", "usage": 3, "selector": 0, "matching_type": 0, "data": old.hex()}
        status, line = monitoring.check(host.configuration(tlsa=[tlsa]), utc_now())
    assert status == 1
    assert f"because it fits none of the TLSA records; publish _25._tcp.{NAME}. IN TLSA 3 1 1 " in line
    assert "mailfleet-starttls renew" not in line


def test_without_openssl_nobody_could_look(tmp_path, authority, monkeypatch):
    with renewing.host(tmp_path, authority) as host:
        fresh(host)
        monkeypatch.setattr(openssl, "PROGRAM_PATH", "/nowhere")
        found, renewed = monitoring.check(host.configuration(), utc_now()), host.renew()
    said = "the program openssl is not on the host; install the package openssl"
    assert found.status == 3 and f"could not look: {said}" in found.line
    assert (renewed.state, renewed.status) == ("unknown", 3) and said in renewed.message
