"""What the viewer may read: regular files inside the folders that it was given, up to a size.

A link is followed only where it stays inside. Nothing is opened for writing. Left out: what is in
the files.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from logpi.errors import UserError

# bytes; arguments, versions, results and pictures are far smaller
LARGEST_JSON = 64 * 2**20
LARGEST_PICTURE = 256 * 2**20


class ViewError(UserError):
    """What cannot be shown, as one line.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, text: str, status: int = 404) -> None:
        super().__init__(text)
        self.status = status


class Folders:
    """The folders that are shown.

    Attributes:
        roots: resolved paths.

    Args:
        awaited: a folder may come later.

    Raises:
        UserError: one is no folder.
    """

    def __init__(self, paths: Sequence[Path], awaited: bool = False) -> None:
        for path in paths:
            if not path.is_dir() and (path.exists() or not awaited):
                what = "is no folder" if path.exists() else "is not there"
                raise UserError(f"{path} {what}: give a run, or a folder with runs")
        self.roots = tuple(dict.fromkeys(path.resolve() for path in paths))

    def hold(self, path: Path) -> bool:
        """Whether a path, its links followed, is inside one of them."""
        real = path.resolve()
        return any(real == root or root in real.parents for root in self.roots)

    def open(self, path: Path) -> BinaryIO:
        """A regular file inside, open for reading.

        Raises:
            ViewError: there is none, or it is elsewhere (403).
        """
        return open_regular(self.real(path))

    def real(self, path: Path) -> Path:
        """The path with its links followed. Raises ViewError (403) if that is outside."""
        try:
            real = path.resolve()
        except (OSError, RuntimeError, ValueError):
            raise ViewError(f"{path.name} cannot be read") from None
        if not any(real == root or root in real.parents for root in self.roots):
            raise ViewError(f"{path.name} leads outside the folders that are shown", 403)
        return real


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading: no link, pipe or device. Raises ViewError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise ViewError(f"cannot read {path.name}: {reason}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ViewError(f"cannot read {path.name}: it is not a file", 403)
    return os.fdopen(handle, "rb")


def read_json(folders: Folders, path: Path) -> Any:
    """What a JSON file holds. Raises ViewError, also for a file that is too large or damaged."""
    with folders.open(path) as file:
        data = file.read(LARGEST_JSON + 1)
    if len(data) > LARGEST_JSON:
        raise ViewError(f"{path.name} is too large to show")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ViewError(f"{path.name} is damaged: {error}") from None
