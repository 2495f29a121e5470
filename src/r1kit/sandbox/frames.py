"""The wire between us, the supervisor and the guard: a JSON head and raw blobs, lengths first.

Data only, on both sides: nothing that comes out of a sandbox is ever unpickled or evaluated.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

_LENGTHS = struct.Struct("!II")
_LARGEST_HEAD = 1 << 24


class Closed(EOFError):
    """The other side is gone."""


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view, have = memoryview(data), 0
    while have < size:
        got = sock.recv_into(view[have:])
        if not got:
            raise Closed(f"the connection ended after {have} of {size} bytes")
        have += got
    return bytes(data)


def send(sock: socket.socket, head: dict[str, Any], blobs: Sequence[bytes] = (), fds: Sequence[int] = ()) -> None:
    text = json.dumps(head | {"blobs": [len(blob) for blob in blobs]}).encode()
    start = _LENGTHS.pack(len(text), len(fds))
    if fds:
        socket.send_fds(sock, [start], list(fds))
    else:
        sock.sendall(start)
    sock.sendall(b"".join((text, *blobs)))


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[bytes], list[int]]:
    """Head, blobs, file descriptors. Closed at the end of the stream; ValueError for bytes that are no frame."""
    fds: list[int] = []
    start, fds, _, _ = socket.recv_fds(sock, _LENGTHS.size, 250)
    if not start:
        raise Closed("the connection ended")
    if len(start) < _LENGTHS.size:
        start += receive_exactly(sock, _LENGTHS.size - len(start))
    size, _ = _LENGTHS.unpack(start)
    if size > _LARGEST_HEAD:
        raise ValueError(f"a head of {size} bytes: not our wire")
    head = json.loads(receive_exactly(sock, size))
    return head, [receive_exactly(sock, length) for length in head["blobs"]], list(fds)
