# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed logs: gzip, bzip2 and xz by Python's own modules, zstd by the program of that name. Told by their content, not by a name."""

from __future__ import annotations

import contextlib
import gzip
import os
import subprocess
from collections.abc import Iterator
from typing import IO, Any, cast

from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import LOG_XZ_BYTES

CHUNK = 1 << 18
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\x00", "xz"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd"))
MAGIC_BYTES = 6
"""Bytes that tell a kind."""


class CompressionError(Exception):
    """This host cannot read the compression. The text says what is missing."""


def kind_of(head: bytes) -> str:
    """Return how a file is compressed by its first MAGIC_BYTES bytes; empty if it is not."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


@contextlib.contextmanager
def uncompressed(raw: IO[bytes], kind: str) -> Iterator[IO[bytes]]:
    """Give the content of an open file or pipe as a stream. Raises CompressionError; the stream raises OSError and EOFError."""
    if kind == "zstd":
        with _unpacked(raw) as stream:
            yield stream
    elif kind:
        yield _stream(raw, kind)
    else:
        yield raw


def _stream(raw: IO[bytes], kind: str) -> IO[bytes]:
    if kind == "gzip":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    try:
        if kind == "xz":
            import lzma  # noqa: PLC0415

            return cast(IO[bytes], _Xz(raw, lzma))
        import bz2  # noqa: PLC0415

        return cast(IO[bytes], bz2.BZ2File(raw))  # its blocks have at most 900 kB
    except ImportError:
        raise CompressionError(f"is compressed with {kind}, which this host's Python cannot read") from None


@contextlib.contextmanager
def _unpacked(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    """Give what the program zstd makes of a file. Python has zstd from 3.14 on only. The program's own limit of memory is 128 MiB."""
    try:
        os.lseek(raw.fileno(), 0, os.SEEK_SET)  # the program gets the descriptor, from which the head was read
    except OSError:
        raise CompressionError("gives data of zstd; put zstd -dc before the pipe") from None
    try:
        program = subprocess.Popen(
            ["zstd", "-dcq"],  # noqa: S607  (found as the host's administrator finds it)
            stdin=raw, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        raise CompressionError(
            "is compressed with zstd, and this host has no program zstd: install the package zstd"
        ) from None
    with program:
        try:
            yield cast(IO[bytes], program.stdout)
        except BaseException:
            program.kill()
            raise
    if program.returncode:
        raise OSError(f"the compressed data cannot be read: zstd ended with status {program.returncode}")


class _Xz:
    """An xz file of one or several streams. The file does not decide how much memory its reading takes."""

    def __init__(self, raw: IO[bytes], lzma: Any) -> None:
        self._raw = raw
        self._lzma = lzma
        self._input = b""
        self._new()

    def _new(self) -> None:
        self._stream = self._lzma.LZMADecompressor(self._lzma.FORMAT_XZ, memlimit=LOG_XZ_BYTES)

    def read(self, size: int) -> bytes:
        """Return at most so many bytes; none at the end. Raises OSError if the data cannot be read."""
        try:
            return self._read(size)
        except self._lzma.LZMAError as error:
            raise OSError(f"the compressed data cannot be read: {error}") from error

    def _read(self, size: int) -> bytes:
        while True:
            if self._stream.eof:
                rest = self._stream.unused_data.lstrip(b"\0")  # padding between streams
                while not rest:
                    more = self._raw.read(CHUNK)
                    if not more:
                        return b""
                    rest = more.lstrip(b"\0")
                self._input = rest
                self._new()
            elif self._stream.needs_input and not self._input:
                self._input = self._raw.read(CHUNK)
                if not self._input:
                    raise EOFError("the compressed data ends too early")
            given, self._input = self._input, b""
            if found := bytes(self._stream.decompress(given, size)):
                return found
