"""`logpi view [RUN or folder …]`: runs in the browser, finished or running.

A small server on this machine reads the runs' directories and writes nothing; with `--static` the
same page becomes files that open without a server. Left out: what is served (`viewer/`).
"""

from __future__ import annotations

import secrets
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING

from logpi.commands.listening import LOOPBACK, address_of, answering, listening
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option

if TYPE_CHECKING:
    from logpi.viewer.files import Folders


@dataclass(frozen=True)
class View:
    """Arguments of `logpi view`."""

    paths: tuple[Path, ...] = option(
        (), help="runs, or folders with runs (default: runs)", positional=True, nargs="*"
    )
    port: int = option(0, help="of the server; 0: one that is free", least=0, most=65535)
    host: str = option("127.0.0.1", help="address to listen on")
    static: Path | None = option(None, help="write the page into this directory instead")
    open: bool = option(False, help="open the page in the browser")


def main(argv: Sequence[str]) -> int:
    a = parse(View, argv, "logpi view", "Runs in the browser: curves, responses, token by token.")
    from logpi.viewer.files import Folders
    from logpi.viewer.runs_index import RunsIndex

    # where nobody has trained yet there is no runs/; a path that was given must be there
    paths = a.paths or (Path("runs"),)
    folders = Folders(paths, awaited=not a.paths)
    if a.static is not None:
        from logpi.viewer.static_page import write

        print(write(folders, a.static))
        return 0
    if not RunsIndex(folders).runs():
        names = ", ".join(map(str, paths))
        print(f"logpi: no runs in {names} yet; the page shows them as they come", file=sys.stderr)
    serve(folders, a.host, a.port, a.open)
    return 0


def serve(folders: Folders, host: str, port: int, opened: bool) -> None:
    """Serve until Ctrl-C. Raises UserError: the port is taken, or the address is not this
    machine's."""
    from logpi.viewer.server import viewer_app

    token = secrets.token_urlsafe(16)
    with listening(host, port) as listener:
        address = f"{address_of(host, listener)}/?token={token}"
        print(address, flush=True)
        if host not in LOOPBACK:
            print("logpi: who knows the address and its token can read the runs", file=sys.stderr)
        if opened:
            timer = Timer(0.5, webbrowser.open, [address])
            timer.daemon = True
            timer.start()
        answering(viewer_app(folders, token, host), listener)
