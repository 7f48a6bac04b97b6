"""This machine's sandbox: start the fork server once, run programs in it, prove that it holds.

    bubblewrap   the fork server lives in namespaces that hold Python and nothing else, and its
                 children confine themselves besides. Taken where the `bwrap` command works.
    landlock     needs no command and no namespaces (works in containers): Landlock and seccomp
                 confine the children.
    unsafe       limits alone, no walls; only when asked for by that name.

A started sandbox proves itself on a program that tries to get out; one that does not hold is
refused. As root it first becomes an unprivileged user. Left out: what runs inside
(`fork_server.py`, `jobs.py`), sandboxes elsewhere (`protocol.py`), and anything but Linux.
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
    # not on every system on which this module is imported
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
    """This machine's sandbox. Thread-safe; it starts at the first run; one for a process is enough
    (`shared`).

    Args:
        backend: auto (bubblewrap where it works, else landlock) | bubblewrap | landlock | unsafe.
        workers: programs at a time; the default is the number of cores.

    Raises:
        SandboxError: (a ValueError) from `start` or the first run: nothing here can hold a program,
            and why.
    """

    def __init__(self, backend: str = "auto", workers: int | None = None) -> None:
        if backend not in ("auto", *BACKENDS):
            raise ValueError(
                f"no sandbox is called {backend!r}: there are auto, {', '.join(BACKENDS)}"
            )
        self.wanted, self.backend, self.facts = backend, "", {}
        self.workers = workers or os.cpu_count() or 1
        self._queue = ProgramQueue(self.workers)
        # callers that it serves at a time
        self.threads = (1 + SLEEPERS) * self.workers
        self._lock = threading.Lock()
        self._server: ForkServer | None = None

    def start(self) -> str:
        """Start the fork server and prove that it holds; the backend's name."""
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
        for backend in (
            [self.backend or self.wanted]
            if (self.backend or self.wanted) != "auto"
            else BACKENDS[:2]
        ):
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
        """Run a program that tries to get out, and refuse a server that lets it."""
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
        """Run `code` as a Python script in a process of its own. Never raises for what the code
        does."""
        limits = limits or ProgramLimits()
        with self._queue.one() as leave:
            child = self.spawn("script", {"code": code}, limits, stdin=stdin, on_sleep=leave)
            return _finish(child, limits)

    def spawn(self, job: str, task: dict[str, Any], limits: ProgramLimits, **send: Any) -> Child:
        """Send a job inside (`_send` has the options), to another fork server if the last died."""
        for attempt in (1, 2):
            with self._lock:
                server = self._start()
            try:
                return _send(server, job, task, limits, **send)
            except OSError as error:
                gone = isinstance(error, ConnectionError) or server.process.poll() is not None
                # with too many open files here the fork server lives on, and has no end to wait for
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

        A name that neither the tests nor the standard library define is the program's;
        `entry_point` always is; `judge.ProgramTests` has the rest.
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
        """Kill what runs and end the fork server; the next run starts another."""
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
        extra: descriptors of the job's own.
        silent: whether the program's output is thrown away.
        partner: a child that it works with: they count as asleep only if both are.
        on_sleep: called when it begins to sleep.
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
    """The result of a script, which is followed until it ends or its time is over."""
    start = time.monotonic()
    ended = child.follow(start + limits.seconds)
    child.let_go()
    out, err = (bytes(b).decode(errors="replace") for b in child.streams.values())
    status, code = describe(child, ended, limits)
    return ProgramResult(out, err, status, code, time.monotonic() - start)
