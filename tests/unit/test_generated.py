"""What is generated in the documentation is what the code says now."""

from __future__ import annotations

import pytest

from tests.support import generated


@pytest.mark.parametrize(("path", "name"), generated.PARTS)
def test_the_page_is_up_to_date(path: str, name: str) -> None:
    """If not: python -m tests.support.generated. A new arrow between rooms is drawn on purpose."""
    page = (generated.TOP / path).read_text()
    assert generated.updated(page, name, generated.PARTS[path, name]()) == page


@pytest.mark.parametrize("path", generated.WHOLE)
def test_the_file_is_up_to_date(path: str) -> None:
    """Look at a picture that changed before it is committed."""
    assert (generated.TOP / path).read_text() == generated.WHOLE[path]()
