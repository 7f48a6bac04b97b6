"""A search server that misbehaves: a table of what strangers' servers do, each as what is written
to the socket after a request."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import socketserver
import struct
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

DOCUMENT = {"document": {"id": "1", "contents": "alpha"}, "score": 1.0}
GOOD = {"result": [[DOCUMENT]]}
Write = Callable[[socket.socket], None]


def http(
    body: Any = GOOD, status: str = "200 OK", *headers: str, length: int | None = None
) -> bytes:
    """A whole answer; `body` as JSON unless it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(data) if length is None else length}",
        *headers,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + data


def says(data: bytes) -> Write:
    return lambda s: s.sendall(data)


def drips(head: bytes, piece: bytes, pause: float = 0.02) -> Write:
    """For ever, unless the other side goes."""

    def write(s: socket.socket) -> None:
        s.sendall(head)
        while True:
            s.sendall(piece)
            time.sleep(pause)

    return write


def floods(head: bytes, piece: bytes) -> Write:
    return drips(head, piece * (65536 // len(piece)), 0.0)


def waits(s: socket.socket) -> None:
    """Until the other side goes."""
    s.settimeout(60)
    s.recv(1)


def resets(s: socket.socket) -> None:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def late(s: socket.socket) -> None:
    time.sleep(0.1)
    s.sendall(http())


OPEN = b"HTTP/1.1 200 OK\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BOMB = gzip.compress(b" " * (64 << 20))
TIME, LONG, JSON, ROWS = (
    "no whole answer in 0.6 s",
    "longer than 1,000,000 bytes",
    "JSONDecodeError|UnicodeDecodeError",
    "expected {'result'",
)
DOCS = "expected a document with contents"
# what it does -> (how it answers, what the error says, or None where the answer is good, how often
# it is asked)
BEHAVIOURS: dict[str, tuple[Write, str | None, int]] = {
    "answers": (says(http()), None, 1),
    "answers late": (late, None, 1),
    "answers byte by byte, in time": (
        lambda s: [s.sendall(bytes([b])) for b in http()] and None,
        None,
        1,
    ),
    "answers without a length": (says(OPEN + json.dumps(GOOD).encode()), None, 1),
    "answers in chunks": (
        says(
            CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(json.dumps(GOOD)), json.dumps(GOOD).encode())
        ),
        None,
        1,
    ),
    "a byte order mark": (says(http(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())), None, 1),
    "half a character": (
        says(http({"result": [[{"document": {"id": "\ud800", "contents": "al\ud83dpha"}}]]})),
        None,
        1,
    ),
    "a score that is no number": (
        says(http({"result": [[DOCUMENT | {"score": "best"}]]})),
        None,
        1,
    ),
    "a score that is null": (says(http({"result": [[DOCUMENT | {"score": None}]]})), None, 1),
    "an infinite score": (
        says(http(b'{"result": [[{"id": 1, "contents": "alpha", "score": 1e999}]]}')),
        None,
        1,
    ),
    "more documents than asked": (says(http({"result": [[DOCUMENT] * 1000]})), None, 1),
    "nothing found": (says(http({"result": [[]]})), None, 1),
    "never answers": (waits, TIME, 1),
    "drips its status": (drips(b"", b"H"), TIME, 1),
    "drips headers": (
        drips(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        TIME,
        1,
    ),
    "drips one header": (drips(b"HTTP/1.1 200 OK\r\nX-A: ", b"b"), TIME, 1),
    "drips its body": (drips(http(b"", length=10**9), b" "), TIME, 1),
    "drips a chunk": (drips(CHUNKED + b"ffff\r\n", b" "), TIME, 1),
    "continues for ever": (drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), TIME, 1),
    "a header without an end": (
        floods(b"HTTP/1.1 200 OK\r\nX-A: ", b"b"),
        "Receive buffer too long",
        2,
    ),
    "stops in its body": (
        lambda s: (s.sendall(http(b'{"result', length=999)), waits(s)),
        TIME,
        1,
    ),
    "an endless body": (floods(OPEN, b" "), LONG, 1),
    "an endless body of a length": (floods(http(b"", length=10**15), b"["), LONG, 1),
    "endless chunks": (floods(CHUNKED, b"1000\r\n" + b" " * 4096 + b"\r\n"), LONG, 1),
    "a chunk of all memory": (floods(CHUNKED + b"ffffffffffff\r\n", b" "), LONG, 1),
    "a body that is too long": (says(http(b" " * 1_000_001)), LONG, 1),
    "unpacks to 64 MiB": (says(http(BOMB, "200 OK", "Content-Encoding: gzip")), JSON, 2),
    "packed twice": (
        says(http(zlib.compress(BOMB), "200 OK", "Content-Encoding: deflate, gzip")),
        JSON,
        2,
    ),
    "chunks of nonsense": (
        says(CHUNKED + b"zz\r\nhello\r\n"),
        "RemoteProtocolError: illegal chunk",
        2,
    ),
    "a chunk below 0": (
        says(CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n"),
        "RemoteProtocolError: illegal chunk",
        2,
    ),
    "half a chunk": (says(CHUNKED + b"ff\r\n{"), "incomplete chunked read", 2),
    "a length below 0": (says(http(GOOD, length=-1)), "bad Content-Length", 2),
    "a length that is a word": (
        says(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + json.dumps(GOOD).encode()),
        "bad Content-Length",
        2,
    ),
    "closes at once": (lambda s: None, "Server disconnected", 2),
    "closes in its status": (says(b"HTTP/1.1"), "Server disconnected", 2),
    "closes in its body": (
        says(http(b'{"result": [[', length=999)),
        "received 13 bytes, expected 999",
        2,
    ),
    "resets": (resets, "ConnectionResetError: Connection reset by peer|Server disconnected", 2),
    "speaks another protocol": (says(b"SSH-2.0-OpenSSH_9.6\r\n"), "illegal|Server disconnected", 2),
    "speaks bytes": (
        says(bytes(range(256)) * 9),
        "illegal request line",
        2,
    ),
    "fails": (says(http(b"oops", "500 Internal Server Error")), "500 Internal Server Error", 2),
    "is busy": (says(http(b"", "503 Service Unavailable")), "503", 2),
    "has had enough": (says(http(b"", "429 Too Many Requests")), "429", 2),
    "wants a password": (says(http(b"", "401 Unauthorized")), "401 Unauthorized", 1),
    "is not there": (says(http(b"", "404 Not Found")), "404", 1),
    "has nothing to say": (says(http(b"", "204 No Content")), "204", 1),
    "a status of its own": (says(http(b"", "999 ")), "999", 2),
    "sends us elsewhere": (
        says(http(b"", "302 Found", "Location: http://169.254.169.254/secret")),
        "sends us to 'http://169.254.169.254/secret'",
        1,
    ),
    "sends us elsewhere again": (
        says(http(b"", "307 Temporary Redirect", "Location: http://127.0.0.1:9/x")),
        "sends us to",
        1,
    ),
    "sends us into a file": (
        says(http(b"", "301 Moved", "Location: file:///etc/passwd")),
        "sends us to",
        1,
    ),
    "sends us nowhere": (says(http(b"", "303 See Other")), "sends us to 'nowhere'", 1),
    "a page": (says(http(b"<html>Bad gateway</html>")), JSON, 2),
    "no UTF-8": (says(http(b'{"result": [["\xff\xfe\xfd"]]}')), JSON, 2),
    "no number": (says(http(b'{"result": NaN}')), ROWS, 2),
    "a number without an end": (
        says(http(b'{"result": ' + b"9" * 900_000 + b"}")),
        "ValueError|expected",
        2,
    ),
    "nested without an end": (says(http(b"[" * 400_000)), "RecursionError", 2),
    "a list": (says(http([])), ROWS, 2),
    "null": (says(http(None)), ROWS, 2),
    "another name": (says(http({"results": [[DOCUMENT]]})), ROWS, 2),
    "too few lists": (says(http({"result": []})), ROWS, 2),
    "too many lists": (says(http({"result": [[DOCUMENT]] * 2})), ROWS, 2),
    "no lists": (says(http({"result": [DOCUMENT]})), ROWS, 2),
    "a text for a list": (says(http({"result": ["alpha"]})), ROWS, 2),
    "a null for a document": (says(http({"result": [[None]]})), DOCS, 2),
    "a document without contents": (says(http({"result": [[{"document": {"id": 1}}]]})), DOCS, 2),
    "contents in a list": (says(http({"result": [[{"document": {"contents": ["a"]}}]]})), DOCS, 2),
    "a null for contents": (says(http({"result": [[{"document": {"contents": None}}]]})), DOCS, 2),
}


class Strange:
    """A server that answers every request in one way; `asked` counts them."""

    def __init__(self, write: Write) -> None:
        self.asked, outer = 0, self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += self.request.recv(65536)
                size = next(
                    int(h.split(b":")[1])
                    for h in head.split(b"\r\n")
                    if h.lower().startswith(b"content-length")
                )
                while len(head.split(b"\r\n\r\n", 1)[1]) < size:
                    head += self.request.recv(65536)
                outer.asked += 1
                # An error here: the client has gone.
                with contextlib.suppress(OSError):
                    write(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

            def handle_error(self, request, client_address) -> None: ...

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> Strange:
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.server.server_close()
