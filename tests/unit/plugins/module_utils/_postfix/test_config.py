"""Edits of main.cf and master.cf: what is refused, what changes, and what never does."""

import time
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Edits, Postconf, Service
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.removal import stripped
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    BrokenConfigurationError,
    EngineError,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fake_postfix import MAIN, MASTER, FakePostfix


@pytest.fixture
def fake(tmp_path):
    return FakePostfix(tmp_path / "postfix")


@pytest.fixture
def postconf(fake):
    return Postconf(fake, str(fake.directory))


def contents(images):
    return [image.content.decode() for image in images]


@pytest.mark.parametrize("value", ["a\nmynetworks = 0.0.0.0/0", "a\rb", "a\tb", "\x00", "\x7f", "\x1b[2J"])
def test_a_value_with_a_control_character_is_refused(postconf, value):
    with pytest.raises(EngineError, match="the value of relayhost holds a newline or another control character"):
        postconf.images(Edits({"relayhost": value}))
    with pytest.raises(EngineError, match="the value of smtp/unix holds a newline"):
        postconf.images(Edits({}, services={"smtp/unix": value}))


@pytest.mark.parametrize("name", ["", "2bounce", "a b", "a=b", "a\n", "-e", "$name", "ümlaut", "a-b"])
def test_a_name_that_is_none_is_refused(postconf, name):
    with pytest.raises(EngineError, match="is not a Postfix parameter name"):
        postconf.images(Edits({name: "x"}))


@pytest.mark.parametrize("name", ["smtp", "smtp/tcp", "smtp/inet\n", "a b/unix", "/unix", "-MX", "a/b/unix"])
def test_a_service_that_is_none_is_refused(postconf, name):
    with pytest.raises(EngineError, match="is not a Postfix service"):
        postconf.images(Edits({}, services={name: "x"}))


@given(st.text(max_size=20))
def test_no_accepted_value_makes_a_second_line(value):
    try:
        Edits({"relayhost": value}).check()
    except EngineError:
        return
    assert not set(value) & {chr(code) for code in [*range(32), 127]}


def test_a_refused_edit_starts_no_program(postconf, fake):
    with pytest.raises(EngineError):
        postconf.images(Edits({"relayhost": "a\nb"}))
    assert fake.calls == []


def test_no_edits_change_no_byte(postconf):
    assert contents(postconf.images(Edits({}))) == [MAIN, MASTER]


def test_an_edit_changes_its_own_line_only_and_nothing_on_disk(postconf, fake):
    main, master = contents(postconf.images(Edits({"biff": "yes", "relayhost": "[mx.example]:25"})))
    assert main == MAIN.replace("biff = no", "biff = yes") + "relayhost = [mx.example]:25\n"
    assert master == MASTER
    assert (fake.main.read_text(), fake.master.read_text()) == (MAIN, MASTER)


def test_images_keep_owner_and_mode(postconf, fake):
    fake.main.chmod(0o640)
    image = postconf.images(Edits({"biff": "yes"}))[0]
    assert (image.path, image.mode) == (str(fake.main), 0o640)
    assert (image.uid, image.gid) == (fake.main.stat().st_uid, fake.main.stat().st_gid)


def test_a_value_of_several_lines_is_replaced_with_its_continuation_lines(postconf):
    main = contents(postconf.images(Edits({"relay_domains": ""})))[0]
    assert main == MAIN.replace("relay_domains = alpha.example,\n    beta.example\n", "relay_domains =\n")


def test_services_are_added_and_replaced_and_the_others_stay(postconf):
    edits = Edits(
        {},
        services={"smtp/unix": "smtp unix - - n - - smtp -o a=b", "new/unix": "new unix - - n - - smtp"},
    )
    main, master = contents(postconf.images(edits))
    before, lines = MASTER.splitlines(), master.splitlines()
    assert main == MAIN
    assert lines[:3] == before[:3]
    assert lines[3:] == [
        "smtp  unix  -  -  n  -  -  smtp", "    -o a=b", *before[4:], "new  unix  -  -  n  -  -  smtp",
    ]  # fmt: skip


def test_an_empty_value_is_written_as_such(postconf):
    main = contents(postconf.images(Edits({"biff": ""})))[0]
    assert "biff =\n" in main


def test_a_missing_file_asks_whether_postfix_is_there(postconf, fake):
    fake.master.unlink()
    with pytest.raises(EngineError, match=r"master\.cf does not exist: is Postfix installed and configured here\?"):
        postconf.images(Edits({"biff": "yes"}))


@pytest.mark.parametrize(
    "read",
    [Postconf.explicit, Postconf.services, Postconf.require_readable, lambda postconf: postconf.values("a"),
     lambda postconf: postconf.value_expanded("a")],
)  # fmt: skip
def test_what_postconf_says_is_in_the_error(postconf, fake, read):
    fake.answers[("postconf",)] = (
        1, "", "postconf: warning: /etc/postfix/main.cf, line 47: overriding earlier entry: myhostname=gw\n" * 9
        + 'postconf: warning: truncated macro reference: "${bad"\npostconf: fatal: mail_dict: macro processing error\n',
    )  # fmt: skip
    with pytest.raises(BrokenConfigurationError) as error:
        read(postconf)
    assert str(error.value) == (
        f'postconf cannot read {fake.directory}: postconf: warning: truncated macro reference: "${{bad"; '
        "postconf: fatal: mail_dict: macro processing error"
    )
    fake.answers[("postconf",)] = (1, "said on the wrong channel\n", "")
    with pytest.raises(BrokenConfigurationError, match="said on the wrong channel"):
        read(postconf)


def test_an_edit_that_postconf_refuses(postconf, fake):
    fake.answers[("postconf",)] = (1, "", "postconf: fatal: no space left\n")
    with pytest.raises(EngineError, match=r"^postconf -e biff = yes failed: postconf: fatal: no space left$"):
        postconf.images(Edits({"biff": "yes"}))


def test_an_unknown_parameter_is_left_out(postconf):
    assert postconf.values("relayhost", "tls_required_enable") == {"relayhost": ""}
    assert postconf.expanded("relayhost", "tls_required_enable") == {"relayhost": ""}
    assert postconf.value_expanded("tls_required_enable") == ""


def test_each_listing_is_read_once_until_it_is_forgotten(postconf, fake):
    def read():
        postconf.values("relayhost")
        postconf.value_expanded("mydestination")
        postconf.explicit()
        postconf.overrides("a")
        return postconf.values("biff"), postconf.explicit_expanded()["biff"], len(postconf.services())

    assert read() == read() == ({"biff": "no"}, "no", 4)
    assert [call[3:] for call in fake.calls] == [[], ["-x"], ["-n"], ["-M"]]
    fake.main.write_text("biff = yes\n")
    fake.master.write_text("")
    assert read() == ({"biff": "no"}, "no", 4)
    postconf.forget()
    assert read() == ({"biff": "yes"}, "yes", 0)


def test_entries_that_are_there_already_need_no_program(postconf, fake):
    present = {
        "smtp/unix": "smtp unix - - y - - smtp",
        "relay/unix": "relay unix - - y - - smtp -o syslog_name=postfix/$service_name",
    }
    assert contents(postconf.images(Edits({}, services=present))) == [MAIN, MASTER]
    assert [call[3:] for call in fake.calls] == [["-M"]]
    postconf.images(Edits({"biff": "yes"}, services={**present, "a/unix": "a unix", "b/unix": "b unix"}))
    edits = [call[3:] for call in fake.calls[1:]]
    assert edits == [["-e", "biff = yes"], ["-M", "a/unix=a unix", "b/unix=b unix"]]


def test_an_entry_that_is_there_twice_is_written_again(fake, postconf):
    fake.master.write_text(MASTER + "smtp unix - - y - - smtp\n")
    postconf.images(Edits({}, services={"smtp/unix": "smtp unix - - y - - smtp"}))
    assert fake.calls[-1][3:] == ["-M", "smtp/unix=smtp unix - - y - - smtp"]


# What postconf -M of 3.7 and 3.10 prints, and what postconf -P says of it.
@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ("smtp inet n - y - - smtpd", {}),
        (
            "mytransport unix -       -       n       -       -       smtp -o smtp_tls_security_level=encrypt "
            "-o {smtp_tls_policy_maps=texthash:/etc/a b} -o smtp_bind_address=127.0.0.1 -v -o my_own=1 -o smtp_helo_name=$my_own",
            {
                "smtp_tls_security_level": "encrypt", "smtp_tls_policy_maps": "texthash:/etc/a b",
                "smtp_bind_address": "127.0.0.1", "my_own": "1", "smtp_helo_name": "$my_own",
            },
        ),
        ("spawned unix - n n - 0 spawn user=nobody argv=/bin/x -o foo=bar", {}),
        (
            "[::1]:2525 inet n - n - - smtpd -o {syslog_name=${multi_instance_name?{$multi_instance_name}:{post fix}}/x} "
            "-o smtpd_client_restrictions= -o mynetworks=127.0.0.0/8,[::1]/128 -o smtpd_tls_wrappermode=yes",
            {
                "syslog_name": "${multi_instance_name?{$multi_instance_name}:{post fix}}/x", "smtpd_client_restrictions": "",
                "mynetworks": "127.0.0.0/8,[::1]/128", "smtpd_tls_wrappermode": "yes",
            },
        ),
        ("a unix - - n - - smtp -o syslog_name=${b?{$b}:{c}}/$d -o a=b=c", {"syslog_name": "${b?{$b}:{c}}/$d", "a": "b=c"}),
        ("a unix - - n - - smtp -o a=b -- -o c=d", {"a": "b"}),
        ("a unix - - n - - smtp -o", {"": ""}),
        ("a unix - - n - - smtp -o a=1 -o a=2", {"a": "2"}),
    ],
)  # fmt: skip
def test_the_options_of_a_service(line, settings):
    service = Service.parse(line)
    assert service.settings == settings
    assert (service.name, service.command) == ("/".join(line.split()[:2]), line.split()[7])
    assert service.text == " ".join(line.split())


def test_explicit_is_what_main_cf_sets(postconf):
    assert postconf.explicit() == {
        "biff": "no",
        "mynetworks": "127.0.0.0/8 192.0.2.0/24",
        "relay_domains": "alpha.example, beta.example",
        "smtpd_banner": "$myhostname ESMTP $mail_name (Debian/GNU)",
    }


def test_values_may_hold_equals_signs_and_be_empty(postconf, fake):
    fake.answers[("postconf", "-c", str(fake.directory), "-n")] = (0, "a = b = c\nmyhostname =\n", "")
    assert postconf.explicit() == {"a": "b = c", "myhostname": ""}


def test_overrides_of_a_parameter_by_service(tmp_path):
    master = (
        "smtp inet n - y - - smtpd\n  -o smtpd_tls_security_level=encrypt -o a=b=c\n"
        "[2001:db8::1]:25 inet n - y - - smtpd\n  -o smtpd_tls_security_level=\n"
        "submission inet n - y - - smtpd\n"
        "smtp unix - - y - - smtp -o smtp_tls_security_level=none\n"
    )
    fake = FakePostfix(tmp_path / "postfix", master=master)
    postconf = Postconf(fake, str(fake.directory))
    assert postconf.overrides("smtpd_tls_security_level") == {"smtp/inet": "encrypt", "[2001:db8::1]:25/inet": ""}
    assert postconf.overrides("smtp_tls_security_level") == {"smtp/unix": "none"}
    assert postconf.overrides("a") == {"smtp/inet": "b=c"}
    assert postconf.overrides("tls_security_level") == {}


@pytest.mark.parametrize("last", ["", "\n"])
def test_new_parameters_stand_at_the_end_in_the_order_of_the_edits(tmp_path, last):
    """Postfix's own tool appends them in an order that is another one each time, so check mode would show another file than a run."""
    fake = FakePostfix(tmp_path / "postfix", main=f"b = 1\nmynetworks =\n  127.0.0.0/8{last}")
    edits = Edits({"z": "1", "b": "2", "a": "", "m": "3", "mynetworks": None})
    main, _master = Postconf(fake, str(tmp_path / "postfix")).images(edits)
    assert main.content == b"b = 2\nz = 1\na =\nm = 3\n"


def test_postfix_never_waits_for_a_copy_of_ours(fake, tmp_path):
    """Postfix reads a main.cf that is younger than two seconds again and again."""
    waits = []

    def run(words):
        main = Path(words[words.index("-c") + 1], "main.cf")
        if main.parent != fake.directory and main.stat().st_mtime > time.time() - 2:
            waits.append(words)
        return fake(words)

    postconf = Postconf(run, str(fake.directory))
    services = {"x/unix": "x unix - - y - - smtp", "relay/unix": None}
    postconf.images(
        Edits({"relayhost": "[gw.test]", "biff": None}, services, {"smtp/inet/smtpd_tls_security_level": "may"})
    )
    with postconf.staged({str(fake.main): b"biff = yes\n"}) as staged:
        assert staged.explicit() == {"biff": "yes"}
        assert staged.services()
    stripped(run, str(fake.directory), {})
    assert waits == []
