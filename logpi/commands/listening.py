"""Listening on an address, and answering there until Ctrl-C; for every command that is a server.

Left out: what is answered.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from logpi.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def answering(app: Any, listener: socket.socket, idle: int = 5, most: int | None = None) -> None:
    """Answer by an ASGI application until Ctrl-C.

    Args:
        idle: seconds that a connection stays open between requests.
        most: connections at a time; others get 503.
    """
    import uvicorn

    config = uvicorn.Config(app, log_level="error", server_header=False, lifespan="off")
    config.timeout_graceful_shutdown = 1
    config.timeout_keep_alive, config.limit_concurrency = idle, most
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return


def address_of(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UserError: the port is taken, or the address is not this
    machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use: give another --port, or 0") from None
        reason = error.strerror or error
        raise UserError(f"cannot listen on {host}:{port}: {reason}; leave --host out") from None
    except UnicodeError:
        listener.close()
        raise UserError(f"{host[:60]!r} is no address: leave --host out") from None
    return listener
