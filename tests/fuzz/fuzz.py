"""Fuzz one target with atheris: fuzz.py TARGET [ARGUMENT OF LIBFUZZER ...]. `run` starts this, in an environment that has it."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".lab/collections")]

with atheris.instrument_imports(include=["ansible_collections.mailfleet"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """See above."""
    name, *arguments = sys.argv[1:]
    warnings.simplefilter("ignore")
    # libFuzzer starts its first argument again to merge corpora.
    atheris.Setup([f"{sys.executable} {Path(__file__).resolve()} {name}", *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
