"""A program with the processes of Haraka: one that listens and starts workers, and workers that answer. It is real to the kernel.

Arguments: the directory that Haraka gets with -c, the port, the number of workers. It prints a line when it listens.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys


def work(handle: int) -> None:
    """Answer one connection after the other."""
    listener = socket.socket(fileno=handle)
    while True:
        wire, _peer = listener.accept()
        with wire:
            wire.sendall(b"220 gw.example\r\n")
            wire.recv(100)


def run(home: str, port: int, nodes: int) -> None:
    """Keep that many workers alive."""
    listener = socket.create_server(("127.0.0.1", port))
    started = 0
    children: list[subprocess.Popen[bytes]] = []
    while True:
        while len(children) < nodes:
            started += 1
            children.append(
                subprocess.Popen(
                    [sys.executable, __file__, str(listener.fileno())],
                    env={"HARAKA": home, "NODE_UNIQUE_ID": str(started)},
                    pass_fds=[listener.fileno()],
                )
            )
        print("ready", flush=True)
        pid, _status = os.wait()
        children = [one for one in children if one.pid != pid]


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        work(int(sys.argv[1]))
    else:
        run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
