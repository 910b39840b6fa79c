"""The text of a hand-written Exim configuration: what is put within marks comes off again, byte by byte."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import plain_text
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_text import ByHandError, Edit

TEXT = """\
# tls_certificate = /a comment \\
hide tls_certificate = /etc/old.pem
tls_advertise_hosts = 10.0.0.0/8 : \\
   # a comment in between
   192.0.2.1
domainlist local = example.com
.ifdef _HAVE_TLS
tls_ocsp_file = /etc/ocsp
.endif

begin transports

out:
  debug_print = driver = smtp
  driver = smtp
  hosts_avoid_tls = *
local:
  driver = appendfile
  hosts_avoid_tls = no option of this driver
begin acl
check:
  warn set acl_m_tls_certificate = x
"""
MAIN = Edit({"tls_certificate": "/new.pem", "tls_advertise_hosts": "*"}, ("tls_ocsp_file",))
OUT = Edit({}, ("hosts_avoid_tls",))


def edit(text, **edits):
    return plain_text.edited(
        text, {plain_text.MAIN if name == "main" else name: one for name, one in edits.items()}, "/etc/exim.conf"
    )


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_text_comes_back(newline):
    text = TEXT.replace("\n", newline)
    new = edit(text, main=MAIN, out=OUT)
    assert new != text
    assert plain_text.without_marks(new, "/etc/exim.conf") == text
    assert plain_text.marked(new) == {"": dict(MAIN.settings), "out": {}}


def test_each_option_is_set_once_and_the_former_lines_are_comments():
    new = edit(TEXT, main=MAIN, out=OUT)
    assert plain_text.assigned(new) == {
        "": {"tls_certificate": ["/new.pem"], "tls_advertise_hosts": ["*"]},
        "out": {"debug_print": ["driver = smtp"], "driver": ["smtp"]},
        "local": {"driver": ["appendfile"], "hosts_avoid_tls": ["no option of this driver"]},
    }
    assert "# mailfleet.starttls keeps:    192.0.2.1\n" in new
    assert "# mailfleet.starttls: end\nbegin transports\n" in new
    assert "  driver = smtp\n  # mailfleet.starttls: begin\n" in new


def test_a_line_before_the_block_that_continues_does_not_swallow_it():
    text = "log_selector = +all \\\n  +pid\nbegin acl\n"
    assert "+pid\n# mailfleet.starttls: begin\n" in edit(text, main=MAIN)
    with pytest.raises(ByHandError, match="no line that begins a section"):
        edit("log_selector = +all \\\nbegin acl\n", main=MAIN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".ifdef FOO\ntls_certificate = /x\n.endif\nbegin acl\n", "line 2: tls_certificate is set within the condition '.ifdef FOO'"),
        (".ifdef _HAVE_TLS\n.elifdef FOO\ntls_certificate = /x\n.endif\nbegin acl\n", "line 3: .* '.ifdef _HAVE_TLS FOO'"),
        (".ifdef _HAVE_TLS\nbegin acl\n.endif\n", "line 2: the first section begins within a condition"),
        (".include /etc/exim/sections\n", "no line that begins a section"),
    ],
)  # fmt: skip
def test_what_is_not_safe_is_refused_by_its_line(text, message):
    with pytest.raises(ByHandError, match=message):
        edit(text, main=MAIN)


def test_a_transport_that_is_not_there_is_refused():
    with pytest.raises(ByHandError, match=r"does not hold the transport out itself"):
        edit("begin transports\n.include /etc/exim/transports\n", out=OUT)
    with pytest.raises(ByHandError, match="ends there without the end of a line"):
        edit("begin transports\nout:\n  driver = smtp", out=OUT)


@pytest.mark.parametrize("value", ["a\nb", "a\x00", "a\\"])
def test_a_value_that_would_be_read_otherwise_is_refused(value):
    with pytest.raises(ByHandError, match="cannot stand in a configuration file"):
        edit(TEXT, main=Edit({"tls_certificate": value}))


@pytest.mark.parametrize("mark", [plain_text.BEGIN, plain_text.END])
def test_a_mark_without_its_counterpart_is_refused(mark):
    new = edit(TEXT, main=MAIN).replace(f"{mark}\n", "")
    with pytest.raises(ByHandError, match=r"near line \d+: the mark .* stands there alone"):
        plain_text.without_marks(new, "/etc/exim.conf")


def test_a_line_that_was_kept_twice_is_refused():
    text = "# mailfleet.starttls keeps: # mailfleet.starttls keeps: tls_certificate = /x\n"
    with pytest.raises(ByHandError, match=r"the mark '# mailfleet\.starttls keeps:' stands there alone"):
        plain_text.without_marks(text, "/etc/exim.conf")


def test_the_lines_to_add_by_hand():
    assert plain_text.by_hand({"": {"tls_certificate": "/x"}, "out": {"hosts_require_tls": "*"}, "local": {}}) == (
        "before the first 'begin': tls_certificate = /x; in the transport out: hosts_require_tls = *"
    )
