"""Data files opened for reading, unpacked where they are .gz or .zst; one that was cut off is never taken for whole."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import cast

import zstandard

PACKED = (".gz", ".zst")
# What reading raises where the packed bytes are wrong, or end too early.
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
CHUNK = 1 << 14


def opened(path: Path, packed: str) -> io.BufferedReader:
    """The unpacked bytes of a file; `packed` is one of PACKED, or "". Reading raises one of DAMAGE."""
    if not packed:
        return open(path, "rb")
    if not path.stat().st_size:
        raise EOFError("the file is empty")
    raw = gzip.GzipFile(path, "rb") if packed == ".gz" else _Frames(path)
    return io.BufferedReader(cast(io.RawIOBase, raw))


class _Frames(io.RawIOBase):
    """What zstandard frames hold, one frame after the other; its own reader takes a cut for the end of the data."""

    def __init__(self, path: Path) -> None:
        self._source = path.open("rb")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the stub has no name for a buffer
        while not self._ready:
            data = self._frame.unused_data if self._frame.eof else b""
            data = data or self._source.read(CHUNK)
            if self._frame.eof:
                self._frame, self._begun = zstandard.ZstdDecompressor().decompressobj(), False
            if not data:
                if self._begun:
                    raise EOFError("the last zstandard frame has no end")
                return 0
            self._begun = True
            self._ready = memoryview(self._frame.decompress(data))
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def close(self) -> None:
        self._source.close()
        super().close()
