"""Sends and receives messages on a socket: JSON in frames of a length (4 bytes, big endian) and a
body.

Standard library only. Left out: the meaning of the messages (`rpc.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any

MAX_FRAME, MAX_DEPTH = 64 << 20, 2000
_HEADER = struct.Struct(">I")


class Gone(BaseException):
    """The other side ended. It is not an Exception, so it also ends tests that catch everything."""


@contextlib.contextmanager
def deep() -> Iterator[None]:
    """A recursion limit high enough for values of `MAX_DEPTH` levels."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 12 * MAX_DEPTH))
    try:
        yield
    finally:
        with contextlib.suppress(RecursionError):
            sys.setrecursionlimit(before)


class Wire:
    """One end of a socket.

    Args:
        fd: its descriptor.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def send(self, message: dict[str, Any]) -> None:
        with deep():
            body = json.dumps(message).encode()
        if len(body) > MAX_FRAME:
            raise ValueError(f"a message of {len(body)} bytes (at most {MAX_FRAME})")
        data = memoryview(_HEADER.pack(len(body)) + body)
        try:
            while data:
                data = data[os.write(self.fd, data) :]
        except OSError:
            raise Gone from None

    def receive(self) -> dict[str, Any]:
        (size,) = _HEADER.unpack(self._read(_HEADER.size))
        if size > MAX_FRAME:
            raise Gone
        try:
            with deep():
                message = json.loads(self._read(size))
        except (ValueError, RecursionError):
            raise Gone from None
        if not isinstance(message, dict):
            raise Gone
        return message

    def _read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            try:
                more = os.read(self.fd, min(size, 1 << 20))
            except OSError:
                more = b""
            if not more:
                raise Gone
            parts.append(more)
            size -= len(more)
        return b"".join(parts)
