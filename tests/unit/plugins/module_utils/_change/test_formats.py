"""The one rule for data that another version of the collection may have left on a host."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.formats import NewerFormatError, format_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

PLACE = "/var/lib/x/thing.json"


@pytest.mark.parametrize(("data", "found"), [({}, 0), ({"format": 0}, 0), ({"format": 1}, 1), ({"format": 2}, 2)])
def test_former_formats_and_the_current_one_are_known(data, found):
    assert format_of(data, 2, PLACE) == found


def test_a_newer_one_is_refused_in_words_that_say_what_to_do():
    with pytest.raises(NewerFormatError) as caught:
        format_of({"format": 3}, 2, PLACE)
    assert str(caught.value) == (
        "/var/lib/x/thing.json was written by a newer mailfleet.starttls (format 3; this one knows up to 2). "
        "Update the collection on the controller, then run again; this run changed nothing"
    )
    assert isinstance(caught.value, EngineError)


@pytest.mark.parametrize("found", [-1, "1", 1.0, True, None, [], {}])
def test_something_else_than_a_number_is_no_format(found):
    with pytest.raises(ValueError, match=r"is not a number$"):
        format_of({"format": found}, 2, PLACE)


@pytest.mark.parametrize("data", [None, [], "format", 3, True])
def test_something_else_than_an_object_has_no_format(data):
    with pytest.raises(ValueError, match=r"^it is not a JSON object$"):
        format_of(data, 2, PLACE)
