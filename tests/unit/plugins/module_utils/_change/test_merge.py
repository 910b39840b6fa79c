"""The three-way merge: what the collection changed is taken out, what somebody edited by hand stays."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.merge import merge, statements_of
from hypothesis import given
from hypothesis import strategies as st

LINES = st.sampled_from([b"a = 1\n", b"b = 2\n", b"\n", b"# note\n", b"  -o c=3\n", b"d = \\\n", b"end"])
FILES = st.lists(LINES, max_size=8).map(b"".join)


@given(FILES, FILES)
def test_without_an_edit_the_result_is_theirs(base, theirs):
    assert merge(base, base, theirs) == (theirs, ())


@given(FILES, FILES)
def test_without_a_change_of_ours_the_edit_is_the_result(base, edited):
    assert merge(base, edited, base).content == edited or not edited.endswith(b"\n")


@given(FILES, FILES)
def test_the_same_edit_on_both_sides_counts_once(base, edited):
    assert merge(base, edited, edited) == (edited, ())


@given(FILES)
def test_the_statements_are_the_file(text):
    assert b"".join(statements_of(text)) == text


@given(st.lists(st.integers(0, 9), unique=True, min_size=2), st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_edits_of_different_lines_are_both_kept(order, own, other):
    def text(added, replaced):
        lines = [b"x%d = %d\n" % (one, 2 if one in replaced else 1) for one in order]
        return b"".join(lines) + added

    other -= own
    merged = merge(text(b"", ()), text(b"", own), text(b"", other))
    if merged.conflicts:  # neighbours, which difflib takes as one edit of two lines
        assert any(abs(order.index(one) - order.index(two)) == 1 for one in own & {*order} for two in other & {*order})
    else:
        assert merged.content == text(b"", own | other)


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes(base, ours, theirs):
    merged = merge(base, ours, theirs)
    assert merged.content == theirs or not merged.conflicts


BEFORE = b"myhostname = a\nlevel = none\nrelay = b\n"
OURS = b"myhostname = a\nlevel = may\nrelay = b\nchain = c\nlog = 1\n"


@pytest.mark.parametrize(
    ("edited", "merged"),
    [
        (OURS + b"mine = 1\n", BEFORE + b"mine = 1\n"),  # the most usual edit: a line at the end, below ours
        (OURS.replace(b"log", b"mine = 1\nlog"), BEFORE + b"mine = 1\n"),
        (OURS.replace(b"relay = b", b"relay = z"), BEFORE.replace(b"relay = b", b"relay = z")),
        (OURS.replace(b"log = 1\n", b""), BEFORE),  # took one of our lines out
        (b"mine = 1\n" + OURS, b"mine = 1\n" + BEFORE),
        (OURS.replace(b"level = may", b"level = none"), BEFORE),
    ],
)
def test_hand_edits_of_a_file_are_carried_over(edited, merged):
    assert merge(OURS, edited, BEFORE) == (merged, ())


def test_an_edit_of_our_line_is_a_conflict_and_named():
    assert merge(OURS, OURS.replace(b"level = may", b"level = encrypt"), BEFORE) == (BEFORE, (b"level = encrypt\n",))


SERVICES = b"smtp inet smtpd\n"
WITH_OURS = SERVICES + b"ours inet smtpd\n  -o a=1\n  -o b=2\n"


def test_an_option_for_our_service_never_ends_up_below_another_one():
    edited = WITH_OURS.replace(b"  -o b=2\n", b"  -o mine=1\n  -o b=2\n")
    assert merge(WITH_OURS, edited, SERVICES).conflicts


def test_a_service_of_somebody_else_below_ours_is_kept_whole():
    added = b"mine inet smtpd\n    -o c=3\n"
    assert merge(WITH_OURS, WITH_OURS + added, SERVICES) == (SERVICES + added, ())


def test_a_comment_in_the_middle_of_a_statement_belongs_to_it():
    assert statements_of(b"a =\n  1\n# note\n\n  2\nb = 3\n") == [b"a =\n  1\n# note\n\n  2\n", b"b = 3\n"]
    assert statements_of(b"a = \\\n1\n# note \\\nb = 3\n") == [b"a = \\\n1\n", b"# note \\\n", b"b = 3\n"]


def test_a_last_line_without_an_end_gets_one_when_a_line_follows():
    assert merge(b"a\nours\n", b"a\nours\nmine\n", b"a") == (b"a\nmine\n", ())
