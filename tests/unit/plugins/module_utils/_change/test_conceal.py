"""Diffs without the secrets that people keep in configuration files."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.conceal import HIDDEN, conceal
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change

from tests.support.growth import cpu_seconds


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("smtp_sasl_password_maps = static:apikey:SG.hunter2", f"smtp_sasl_password_maps = {HIDDEN}"),
        ("smtp_sasl_password_maps=hunter2", f"smtp_sasl_password_maps={HIDDEN}"),
        ("lmtp_sasl_password_maps = inline:{ [relay]=u:hunter2 }", f"lmtp_sasl_password_maps = {HIDDEN}"),
        ("my_relay_secret = hunter2", f"my_relay_secret = {HIDDEN}"),
        ("credentials = static:{u hunter2}", f"credentials = {HIDDEN}"),
        ("  -o smtp_sasl_password_maps=static:u:hunter2", f"  -o smtp_sasl_password_maps={HIDDEN}"),
        ("x unix - - n - - smtp -o smtp_sasl_password_maps=hunter2", f"x unix - - n - - smtp -o smtp_sasl_password_maps={HIDDEN}"),
        ("x unix - smtp -o { smtp_sasl_password_maps = static:u:hunter2 }", f"x unix - smtp -o {{ smtp_sasl_password_maps = {HIDDEN}"),
        ("transport_maps = texthash:/a, inline:{ a = smtp:[u:hunter2] }", f"transport_maps = texthash:/a, inline:{HIDDEN}"),
        ("x = proxy:static:hunter2", f"x = proxy:static:{HIDDEN}"),
        ("hosts = ldap://admin:hunter2@ldap.example/dc", f"hosts = ldap://admin:{HIDDEN}@ldap.example/dc"),
        ("my_password =\n  inline:{\n   [relay] = u:hunter2 }\nbiff = no", f"my_password =\n  {HIDDEN}\n   {HIDDEN}\nbiff = no"),
        ("a = inline:{\n  x = hunter2,\n# a note\n  y = z }\nb = c", None),
        ("  -o smtp_sasl_password_maps=hunter2\n  -o b=c", f"  -o smtp_sasl_password_maps={HIDDEN}\n  -o b=c"),
        ("SMTP_PASSWORD = hunter2", f"SMTP_PASSWORD = {HIDDEN}"),
        ("auth_pass=hunter2", f"auth_pass={HIDDEN}"),
        ("Api-Token[]=hunter2", f"Api-Token[]={HIDDEN}"),
    ],
)  # fmt: skip
def test_secrets_are_hidden(text, shown):
    assert "hunter2" not in conceal(text)
    assert len(conceal(text).split("\n")) == len(text.split("\n"))
    assert shown is None or conceal(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "", "a = b\n  c\n  -o d=e", "smtp_tls_security_level = may",
        "transport_maps = texthash:/etc/postfix/mailfleet-starttls/transport, hash:/a",
        "smtpd      pass  -       -       y       -       -       smtpd", "passau.example: in_plaintext=none over_tls=may servers=<;mx",
        "secret.example mailfleet-required:[mx.example]:25", '      "domain": "token.example",', "maps = hash:/etc/postfix/sasl_passwd",
        "url = https://mail.example:8443/path", "-o smtp_bind_address=127.0.0.1",
    ],
)  # fmt: skip
def test_everything_else_is_shown(text):
    assert conceal(text) == text


@pytest.mark.parametrize("words", ["password", "a", "pass ", "pass=", "secret[]"])
def test_a_long_line_takes_no_time(words):
    assert cpu_seconds(lambda: conceal(words * 20_000), 5) < 5


def test_a_diff_says_that_something_changes_but_not_what(tmp_path):
    path = tmp_path / "main.cf"
    path.write_text("a = b\nsmtp_sasl_password_maps = static:u:old\n")
    before = FileImage.read(str(path))
    after = FileImage(
        str(path), b"a = b\nsmtp_sasl_password_maps = static:u:new\n", before.mode, before.uid, before.gid
    )
    [(_path, lines)] = Change((before,), (after,)).lines()
    assert lines == f"--- before: {path}\n+++ after: {path}\n(only what is not shown here changes)\n"
    after = FileImage(
        str(path), b"a = c\nsmtp_sasl_password_maps = static:u:new\n", before.mode, before.uid, before.gid
    )
    [(_path, lines)] = Change((before,), (after,)).lines()
    assert lines.endswith("-a = b\n+a = c\n")
    created = Change((FileImage(str(path), None),), (after,)).lines()[0][1]
    assert created.endswith(f"+a = c\n+smtp_sasl_password_maps = {HIDDEN}\n")
