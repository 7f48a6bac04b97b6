"""Small sure steps on a file system: append a line, replace a file or a directory whole, sync,
lock.

After a kill at any instant a file or directory written through here is the old one or the new one.
Failures of the disk come out as `RunError`, one line. POSIX only (directories are synced); knows
nothing of what it writes.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from logpi.errors import RunError

if TYPE_CHECKING:
    from filelock import FileLock


def sync(path: Path) -> None:
    """Wait until a file, or a directory's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append(path: Path, data: bytes) -> None:
    """Add to a file with nothing left in this process: a kill loses nothing that was appended
    before it.

    A failure half-way (a full disk) takes back the half, so that the file still ends with a whole
    line.
    """
    with open(path, "ab", buffering=0) as file:
        before, rest = file.tell(), memoryview(data)
        try:
            while rest:
                rest = rest[file.write(rest) or 0 :]
        except OSError:
            with suppress(OSError):
                file.truncate(before)
            raise


def write(path: Path, data: bytes) -> None:
    """Replace a whole file."""
    partial = _beside(path, "partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    sync(path.parent)


@contextmanager
def replaced(directory: Path) -> Iterator[Path]:
    """Give an empty hidden sibling to fill; on a clean exit it is synced and takes the directory's
    name.

    A rename cannot replace a directory that has files in it, so an old one steps aside first;
    `settle` puts it back if the process dies between the two renames.
    """
    partial, old = _beside(directory, "partial"), _beside(directory, "old")
    _settle(directory)
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in [*partial.rglob("*"), partial]:
            sync(path)
        if directory.exists():
            directory.rename(old)
        partial.rename(directory)
    except BaseException:
        _settle(directory)
        raise
    sync(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove(directory: Path) -> None:
    """Delete a directory; a kill half-way leaves nothing that looks like a whole one."""
    directory.rename(partial := _beside(directory, "partial"))
    shutil.rmtree(partial)


def damaged_name(path: Path) -> Path:
    """A free name for a damaged file or directory: `NAME.damaged`, `NAME.damaged1`, …"""
    names = (path.with_name(f"{path.name}.damaged{n or ''}") for n in count())
    return next(name for name in names if not name.exists())


def settle(parent: Path) -> None:
    """Clear what killed writers left in `parent`: half-made things go, and one that had stepped
    aside comes back."""
    for left in [*parent.glob(".*.partial"), *parent.glob(".*.old")]:
        _settle(parent / left.stem.removeprefix("."))


def _settle(path: Path) -> None:
    partial, old = _beside(path, "partial"), _beside(path, "old")
    if partial.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    partial.unlink(missing_ok=True)
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.rename(path)


def _beside(path: Path, role: str) -> Path:
    return path.with_name(f".{path.name}.{role}")


@contextmanager
def reported(what: str, then: str = "") -> Iterator[None]:
    """Turn an error of the disk into one line: `cannot write …: No space left on device; …`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.filename and str(error.filename) not in what:
            reason += f" ({error.filename})"
        raise RunError(f"cannot {what}: {reason}" + (f"; {then}" if then else "")) from error


def refuse_unwritable(path: Path, then: str = "") -> None:
    """Raises RunError unless something can be written at `path`, which need not be there: before
    other work is done."""
    with reported(f"write {path}", then):
        if len(path.parts) > 200:  # `mkdir` would go through them one inside the other
            raise OSError(errno.ENAMETOOLONG, "too many directories in it")
        nearest = next(p for p in (path, *path.absolute().parents) if p.exists())
        if nearest != path and not nearest.is_dir():
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(nearest))
        if not os.access(nearest, os.W_OK | (os.X_OK if nearest.is_dir() else 0)):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(nearest))


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """One process of this machine at a time; the others wait. Without a lock where the file system
    has none, or nothing can be written."""
    from filelock import FileLock

    held = FileLock(path)
    with suppress(OSError, NotImplementedError):
        path.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def lock(path: Path) -> FileLock:
    """Hold `path` for this process until `release()` or until the process ends, however it ends.

    The same process may hold it more than once: a notebook's cell that failed may still hold a run
    that the next cell resumes. A forked child that outlives a killed trainer does not hold
    the run (filelock from 3.32 on).

    Raises:
        RunError: another process holds it; the message says which.
    """
    from filelock import FileLock, Timeout

    file_lock = FileLock(path, thread_local=False, is_singleton=True, fallback_to_soft=False)
    try:
        file_lock.acquire(blocking=False)
    except Timeout:
        raise RunError(
            f"{path.parent} is in use by another process{_owner(path)}; wait for it, or give"
            " another --out"
        ) from None
    except OSError as error:
        # A file system without locks: better unguarded than unusable.
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
        return file_lock
    path.write_text(f"{os.getpid()} on {platform.node()}")
    return file_lock


def _owner(path: Path) -> str:
    """ " (1234 on node-7)": who wrote into a lock's file, or nothing if nobody can say."""
    try:
        owner = re.match(r"\d+ on [\w.-]+$", path.read_text(errors="replace"))
    except OSError:
        return ""
    return f" ({owner[0]})" if owner else ""
