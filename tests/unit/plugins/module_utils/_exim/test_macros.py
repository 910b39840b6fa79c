"""The text of Debian's file of macros for Exim."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.macros import (
    macro_of,
    read_macros,
    set_macros,
    statements,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from hypothesis import assume, given
from hypothesis import strategies as st

NAMES = ["MAIN_TLS_ENABLE", "MAIN_TLS_CERTKEY", "REMOTE_SMTP_HOSTS_AVOID_TLS", "A", "B1"]
VALUES = st.text("ab $:*{}/=#\\", max_size=8).map(str.strip).filter(lambda value: not value.endswith("\\"))
WANTED = st.dictionaries(st.sampled_from(NAMES), st.none() | VALUES.filter(lambda value: value[:1] != "="))
PLAIN = st.sampled_from(
    ["# a comment\n", "\n", "  # indented\n", ".ifdef X\n", ".endif\n", "domainlist a = b\n", "primary_hostname = h\n",
     "lower = 1\n", "acl_x = a : \\\n   b : \\\n# between\n   c\n", ".include /etc/x\n", "# umlaut \udcfc\n"]
)  # fmt: skip
DEFINITION = st.builds(
    "{}{} {} {}\n".format, st.sampled_from(["", "  "]), st.sampled_from(NAMES), st.sampled_from(["=", "=="]), VALUES
)
NO_COMMENT = VALUES.filter(lambda value: value[:1] != "#")
LONG = st.builds("{} = {}\\\n   {}\n".format, st.sampled_from(NAMES), VALUES, NO_COMMENT)
TEXTS = st.builds(
    lambda lines, last: "".join(lines) + last,
    st.lists(PLAIN | DEFINITION | LONG, max_size=12),
    st.sampled_from(["", "A = no newline", "# no newline", "other = 1"]),
)


class TestMacros:
    @given(TEXTS, WANTED)
    def test_every_other_statement_stays_as_it_is(self, text, wanted):
        def others(source):
            return [
                one for one in statements(source) if macro_of(one)[0] not in wanted
            ]  # what has to survive byte for byte

        before, after = others(text), others(set_macros(text, wanted))
        assert "".join(after).rstrip("\n") == "".join(before).rstrip("\n")

    @given(TEXTS, WANTED)
    def test_it_is_idempotent(self, text, wanted):
        once = set_macros(text, wanted)
        assert set_macros(once, wanted) == once

    @given(TEXTS, WANTED)
    def test_what_was_set_is_read(self, text, wanted):
        read = read_macros(set_macros(text, wanted))
        assert {name: read.get(name) for name in wanted} == wanted
        kept = {name: value for name, value in read_macros(text).items() if name not in wanted}
        assert {name: value for name, value in read.items() if name not in wanted} == kept

    @given(TEXTS)
    def test_setting_what_is_there_changes_nothing(self, text):
        macros = read_macros(text)
        definitions = [macro_of(one)[0] for one in statements(text)]
        assume(len(set(filter(None, definitions))) == len(list(filter(None, definitions))))
        assert set_macros(text, macros) == text

    @pytest.mark.parametrize(
        ("text", "macros"),
        [
            ("", {}),
            ("MAIN_TLS_ENABLE = yes\n", {"MAIN_TLS_ENABLE": "yes"}),
            ("MAIN_TLS_ENABLE=yes", {"MAIN_TLS_ENABLE": "yes"}),
            ("  MAIN_TLS_ENABLE  =  yes  \n", {"MAIN_TLS_ENABLE": "yes"}),
            ("MAIN_TLS_ADVERTISE_HOSTS =\n", {"MAIN_TLS_ADVERTISE_HOSTS": ""}),
            ("# MAIN_TLS_ENABLE = yes\n", {}),
            ("   #MAIN_TLS_ENABLE = yes\n", {}),
            ("main_tls_enable = yes\n", {}),
            ("hostlist X = y\n", {}),
            (".ifdef MAIN_TLS_ENABLE\n.endif\n", {}),
            ("A = one\nA == two\n", {"A": "two"}),
            ("A = one \\\n    two \\\n    three\nB = 1\n", {"A": "one two three", "B": "1"}),
            ("A = one \\  \n two\n", {"A": "one two"}),
            ("A = b = c\n", {"A": "b = c"}),
            ("other = a \\\nA = 1\nB = 2\n", {"B": "2"}),
            ("other = a \\\n# comment\nA = 1\nB = 2\n", {"B": "2"}),
        ],
    )
    def test_reading(self, text, macros):
        assert read_macros(text) == macros

    @pytest.mark.parametrize(
        ("text", "wanted", "result"),
        [
            ("", {"A": "1"}, "A = 1\n"),
            ("", {"A": ""}, "A =\n"),
            ("B = 2", {"A": "1"}, "B = 2\nA = 1\n"),
            ("A = 0", {"A": "1"}, "A = 1\n"),
            ("A = 0\nB = 2\nA == 3\n", {"A": "1"}, "A = 1\nB = 2\n"),
            ("A = 0\nB = 2\nA == 3\n", {"A": None}, "B = 2\n"),
            ("A = x \\\n  y\nB = 2\n", {"A": None}, "B = 2\n"),
            ("A   =   1\n", {"A": "1"}, "A   =   1\n"),
            ("# A = 0\n", {"A": "1"}, "# A = 0\nA = 1\n"),
            ("B = 2\r\n", {"A": None}, "B = 2\r\n"),
        ],
    )
    def test_writing(self, text, wanted, result):
        assert set_macros(text, wanted) == result

    @pytest.mark.parametrize("value", ["a\nB = 2", "a\r", "\x00", "\x7f", "a\tb"])
    def test_a_control_character_is_refused(self, value):
        with pytest.raises(EngineError, match="the value of A holds a newline or another control character"):
            set_macros("", {"A": value})

    def test_a_comment_that_ends_in_a_backslash_hides_nothing(self):
        assert read_macros("# see C:\\\nA = 1\n") == {"A": "1"}

    def test_a_comment_inside_a_continued_value_is_no_part_of_it(self):
        assert read_macros("A = one \\\n# why\n  two\n") == {"A": "one two"}

    @pytest.mark.parametrize("character", ["\f", "\v", "\x1c", "\x85", "\u2028", "\r"])
    def test_only_a_newline_ends_a_line(self, character):
        assert read_macros(f"# a comment{character}A = 1\n") == {}

    def test_a_dangling_backslash_does_not_swallow_what_is_added(self):
        assert read_macros(set_macros("B = 2 \\\n", {"A": "1"}))["A"] == "1"
