"""Fuzz one target with atheris; `run` starts this, in an environment that has it."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".lab/collections")]

with atheris.instrument_imports(include=["ansible_collections.mailfleet"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.seeds import SEEDS


def main() -> None:
    """fuzz.py TARGET CORPUS [LIBFUZZER OPTION ...]"""
    name, corpus, *options = sys.argv[1:]
    with contextlib.ExitStack() as stack:
        seeds = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for number, seed in enumerate(SEEDS[name]):
            (seeds / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *options, corpus, str(seeds)], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
