"""What all tests of the hook share."""

import os

import pytest


@pytest.fixture(autouse=True)
def the_umask_of_other_tests():
    """The program sets its own, and runs in this process."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
