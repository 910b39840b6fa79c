"""What the unit tests share: the collection's import path and one certificate authority."""

import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[2]
for _path in (ROOT, ROOT / ".lab/collections"):
    if str(_path) not in sys.path:
        sys.path.insert(0, str(_path))

# The machines that run this are small and shared: a slow example is not a bug.
settings.register_profile("mailfleet", deadline=None)
settings.load_profile("mailfleet")


# Under nohup it is ignored, and every child of a test would ignore it, too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser):
    """An option for where the interpreter or Ansible is the question, and not each value: make test has little time for them."""
    parser.addoption(
        "--first-of-each", action="store_true", help="of each test function only the first set of parameters"
    )


@pytest.hookimpl(trylast=True)  # what the marks leave out is no first one
def pytest_collection_modifyitems(config, items):
    """Leave out the other sets of parameters, where that is asked for."""
    if config.getoption("first_of_each", False):
        first = {item.nodeid.partition("[")[0]: item.nodeid for item in reversed(items)}
        names = set(first.values())
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in names])
        items[:] = [item for item in items if item.nodeid in names]


@pytest.fixture(scope="session", autouse=True)
def _impatience():
    """A former state that cannot be proved is not waited for."""
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import engine as contract  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract, "PATIENCE", 0.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def _ansible():
    """The Ansible that the runs of playbooks are forks of ends with the tests."""
    yield
    if "tests.support.playbooks" in sys.modules:
        sys.modules["tests.support.playbooks"].end()


@pytest.fixture(scope="session")
def authority():
    """A certificate authority with a root, an intermediate, and leaves on demand."""
    from tests.support.pki import Authority  # noqa: PLC0415  (the loop above makes it importable)

    return Authority.create("Example")
