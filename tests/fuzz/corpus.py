"""The inputs that are kept, a file for each target: a bytes literal a line, so that a change can be read.

corpus.py list                          the targets
corpus.py unpack TARGET DIRECTORY       seeds and kept inputs as files, as a fuzzer wants them
corpus.py pack TARGET DIRECTORY ...     keep the inputs in these directories as well
"""

from __future__ import annotations

import ast
import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests/fuzz/corpus"
MOST = 80
"""Inputs of one target. Those that are there stay, and of new ones the short ones are kept."""
LONGEST = 1024
"""Bytes of one input."""


def kept(target: str) -> list[bytes]:
    """The inputs of a target that earlier runs found."""
    path = KEPT / f"{target}.txt"
    return [ast.literal_eval(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(target: str, found: list[bytes]) -> int:
    """Keep new inputs. Return how many there are more."""
    from tests.fuzz.seeds import SEEDS  # noqa: PLC0415  (the other way round as well)

    held = kept(target)
    new = sorted(
        {one for one in found if len(one) <= LONGEST} - {*held, *SEEDS[target]}, key=lambda one: (len(one), one)
    )
    new = new[: max(0, MOST - len(held))]
    if new:
        KEPT.mkdir(exist_ok=True)
        lines = sorted((*held, *new), key=lambda one: (len(one), one))
        (KEPT / f"{target}.txt").write_text("".join(f"{one!r}\n" for one in lines))
    return len(new)


def main(words: list[str]) -> None:
    """See above."""
    sys.path[:0] = [str(ROOT), str(ROOT / ".lab/collections")]
    from tests.fuzz.seeds import SEEDS  # noqa: PLC0415

    command, *rest = words
    if command == "list":
        print("\n".join(SEEDS))
    elif command == "unpack":
        target, directory = rest
        for one in (*SEEDS[target], *kept(target)):
            Path(directory, hashlib.sha256(one).hexdigest()).write_bytes(one)
    else:
        target, *directories = rest
        files = [path for directory in directories for path in Path(directory).iterdir()]
        new = keep(target, [path.read_bytes() for path in files])
        print(
            f"fuzz: {target}: {new} new inputs are kept in tests/fuzz/corpus" if new else f"fuzz: {target}: nothing new"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
