"""The stand-in as a program: python3 -m exchange DIRECTORY. The directory holds state.json and what the stand-in writes."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

from .server import StandIn


async def main(directory: Path) -> None:
    """Serve until a signal comes."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    stand_in = StandIn(directory)
    await stand_in.start()
    await ended.wait()
    await stand_in.stop()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("mail.log").setLevel(logging.WARNING)
    asyncio.run(main(Path(sys.argv[1])))
