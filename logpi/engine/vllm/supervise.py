"""Keeps a command no longer alive than whoever started it: a file that is run,

    supervise.py DIRECTORIES COMMAND …

It reads its standard input, a pipe whose other end is the starter's. When that end closes, for the
starter has stopped or was killed in whatever way, the command's whole process group is ended, and
so it is when the command itself ends and leaves children behind (vLLM's engine and workers survive
a killed server). When the starter is gone, so are the directories (joined as in PATH); a byte on
the pipe before it closes keeps them. Nothing of logpi is imported. Left out: what is started, and
why (`launch.py`).
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time

# seconds that a group has to end by itself, and between looks at the command
GRACE, LOOK = 5.0, 0.2
PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """In the command: if this supervisor is killed itself, at least the command is too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Whether anybody of the group was still there."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def main(directories: str, command: list[str]) -> int:
    """Run it; its exit code."""
    word = None
    # a terminal's Ctrl-C is the starter's business
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent
    )
    while child.poll() is None:
        ready, _, _ = select.select([0], [], [], LOOK)
        if ready:
            word = os.read(0, 1)
            break
    _signal(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline:
        # a dead leader counts as one of the group until it is waited for
        child.poll()
        if not _signal(child.pid, 0):
            break
        time.sleep(LOOK)
    _signal(child.pid, signal.SIGKILL)
    code = child.wait()
    if word == b"":
        for directory in filter(None, directories.split(os.pathsep)):
            shutil.rmtree(directory, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
