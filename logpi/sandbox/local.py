"""This machine's sandbox: starts the fork server once, tests its confinement, runs programs in it.

    bubblewrap   the fork server lives in namespaces with Python and nothing else, and its children
                 confine themselves too. The choice of `auto` if the `bwrap` command works.
    landlock     needs no command and no namespaces (works in containers): Landlock and seccomp
                 confine the children.
    unsafe       limits without confinement; only on request by this name.

At its start the sandbox runs a program that tries to escape. If that succeeds, the sandbox is
refused. Root first becomes an unprivileged user. Left out: the code inside (`fork_server.py`,
`jobs.py`), other sandboxes (`protocol.py`), and systems other than Linux.
"""

from __future__ import annotations

import array
import atexit
import itertools
import json
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from logpi.distributed import cores
from logpi.sandbox.children import SLEEPERS, Child, ProgramQueue, describe
from logpi.sandbox.judge import ProgramTests, judge
from logpi.sandbox.launch import START_SECONDS, ForkServer, launch
from logpi.sandbox.protocol import ProgramLimits, ProgramResult, ProgramVerdict, SandboxError
from logpi.sandbox.syscalls import NUMBERS

BACKENDS = ("bubblewrap", "landlock", "unsafe")
_TRY_TO_ESCAPE = """
import os, socket, sys
def forbidden(what, *tries):
    for attempt in tries:
        try:
            attempt()
        except (OSError, PermissionError):
            continue
        print(what)
forbidden("read a file", lambda: open("/etc/passwd").read(), lambda: os.listdir("/home"),
          lambda: os.listdir("/proc"))
forbidden("wrote a file", lambda: open("/var/tmp/x", "w"), lambda: open("/dev/shm/x", "w"),
          lambda: os.chmod("/", 0o755))
forbidden("made a socket", lambda: socket.socket(),
          lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
forbidden("handed a file to a socket", lambda: (p := socket.socketpair())[0].sendmsg([b"x"]))
forbidden("started a process", lambda: os.fork() or os._exit(0))
forbidden("signalled a process", lambda: os.kill(os.getppid(), 0))
"""


def _job_file(task: dict[str, Any] | bytes) -> int:
    """A sealed file in memory: its reader can neither block the writer nor change it."""
    # missing on other systems, where this module can still be imported
    import fcntl

    fd = os.memfd_create("job", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    data = task if isinstance(task, bytes) else json.dumps(task).encode()
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(
        fd,
        fcntl.F_ADD_SEALS,
        fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL,
    )
    return fd


_groups = itertools.count()


class LocalSandbox:
    """This machine's sandbox. It is thread-safe and starts at the first run. One a process suffices
    (`shared`).

    Args:
        backend: auto (bubblewrap if it works, else landlock) | bubblewrap | landlock | unsafe.
        workers: programs at a time; the default is the number of cores.

    Raises:
        SandboxError: (a ValueError) from `start` or the first run: no backend works here; with the
            reasons.
    """

    def __init__(self, backend: str = "auto", workers: int | None = None) -> None:
        if backend not in ("auto", *BACKENDS):
            raise ValueError(
                f"no sandbox is called {backend!r}: there are auto, {', '.join(BACKENDS)}"
            )
        self.wanted, self.backend, self.facts = backend, "", {}
        self.workers = workers or cores()
        self._queue = ProgramQueue(self.workers)
        # callers at a time
        self.threads = (1 + SLEEPERS) * self.workers
        self._lock = threading.Lock()
        self._server: ForkServer | None = None

    def start(self) -> str:
        """Start the fork server, test its confinement, and return the backend's name."""
        with self._lock:
            self._start()
        return self.backend

    def _start(self) -> ForkServer:
        if self._server is not None and self._server.process.poll() is None:
            return self._server
        if sys.platform != "linux" or platform.machine() not in NUMBERS:
            where = f"{sys.platform} {platform.machine()}"
            raise SandboxError(
                f"code is run on Linux (x86-64, aarch64) alone, this is {where}: score it elsewhere"
            )
        reasons = []
        chosen = self.backend or self.wanted
        for backend in BACKENDS[:2] if chosen == "auto" else (chosen,):
            try:
                server = launch(backend)
                self._prove(server, backend)
            except SandboxError as error:
                reasons.append(f"{backend}: {error}")
                continue
            self._server, self.backend, self.facts = server, backend, server.facts
            atexit.register(self.close)
            return server
        raise SandboxError(
            f"no sandbox holds here ({'; '.join(reasons)}). Install bubblewrap, or a kernel with"
            " Landlock; backend='unsafe' runs programs with your own rights"
        )

    def _prove(self, server: ForkServer, backend: str) -> None:
        """Run a program that tries to escape. Raises SandboxError if it does."""
        limits = ProgramLimits(seconds=START_SECONDS)
        result = _finish(_send(server, "script", {"code": _TRY_TO_ESCAPE}, limits), limits)
        if result.status != "ok" or (result.stdout and backend != "unsafe"):
            server.close()
            escaped = ", ".join(result.stdout.split("\n")[:-1])
            last = result.stderr.strip().splitlines()[-1:] or [result.status]
            raise SandboxError(
                f"does not hold: a program {escaped}"
                if escaped
                else f"does not run programs: {last[0]}"
            )

    def run(self, code: str, stdin: str = "", limits: ProgramLimits | None = None) -> ProgramResult:
        """Run `code` as a Python script in a process of its own. Its errors show in the result."""
        limits = limits or ProgramLimits()
        with self._queue.one() as leave:
            child = self.spawn("script", {"code": code}, limits, stdin=stdin, on_sleep=leave)
            return _finish(child, limits)

    def spawn(self, job: str, task: dict[str, Any], limits: ProgramLimits, **send: Any) -> Child:
        """Send a job to the fork server, or to a new one if it has died. `send`: see `_send`."""
        for attempt in (1, 2):
            with self._lock:
                server = self._start()
            try:
                return _send(server, job, task, limits, **send)
            except OSError as error:
                gone = isinstance(error, ConnectionError) or server.process.poll() is not None
                # after "too many open files" the fork server still runs: do not wait for its end
                if attempt == 2 or not gone:
                    raise
                server.process.wait()
        raise AssertionError

    def judge(
        self,
        code: str,
        tests: Sequence[str],
        setup: str = "",
        entry_point: str = "",
        limits: ProgramLimits | None = None,
        classes: Sequence[str] = (),
    ) -> ProgramVerdict:
        """Run Python `tests` (assertions, unittest's classes, pytest's functions) against the
        program `code`.

        A name that neither the tests nor the standard library define is the program's, and so is
        `entry_point`. `judge.ProgramTests` explains the arguments.
        """
        with self._queue.one() as leave:
            return judge(
                self.spawn,
                code,
                ProgramTests(tests, setup, entry_point, classes),
                limits or ProgramLimits(),
                leave,
            )

    def close(self) -> None:
        """Kill all programs and end the fork server. The next run starts another."""
        with self._lock:
            if self._server is not None:
                self._server.close()
                self._server = None
                atexit.unregister(self.close)


def _send(  # noqa: PLR0913 (one packet)
    server: ForkServer,
    job: str,
    task: dict[str, Any],
    limits: ProgramLimits,
    stdin: str = "",
    extra: Sequence[int] = (),
    silent: bool = False,
    partner: Child | None = None,
    on_sleep: Callable[[], None] = lambda: None,
) -> Child:
    """Send a job to the fork server.

    Args:
        extra: more descriptors for the job.
        silent: discard the program's output.
        partner: another child of the same group, which sleeps only if both sleep.
        on_sleep: called when the group begins to sleep.
    """
    ours: list[int] = []
    theirs: list[int] = []

    def pipe() -> None:
        mine, other = os.pipe()
        ours.append(mine)
        theirs.append(other)

    group = partner.group if partner else next(_groups)
    bounds = asdict(limits) | {"cpu_seconds": limits.cpu_seconds}
    packet = json.dumps({"job": job, "group": group, "limits": bounds}).encode()
    try:
        pipe()
        theirs.append(_job_file(stdin.encode()))
        for _ in ("stdout", "stderr"):
            theirs.append(os.open(os.devnull, os.O_WRONLY)) if silent else pipe()
        theirs.append(_job_file(task))
        fds = array.array("i", [*theirs, *extra])
        server.control.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    except OSError:
        for fd in ours:
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return Child(ours[0], ours[1:], limits.output, group, on_sleep)


def _finish(child: Child, limits: ProgramLimits) -> ProgramResult:
    """Follow a script until its end or its deadline, and return its result."""
    start = time.monotonic()
    ended = child.follow(start + limits.seconds)
    child.let_go()
    out, err = (bytes(b).decode(errors="replace") for b in child.streams.values())
    status, code = describe(child, ended, limits)
    return ProgramResult(out, err, status, code, time.monotonic() - start)
