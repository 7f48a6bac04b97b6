"""The sandbox as the rest of the library sees it: start the server once, run programs in them, be
sure they hold.

    bubblewrap   the fork server lives in namespaces of its own that hold Python and nothing else; children confine
                 themselves besides. Taken where the `bwrap` command works.
    landlock     no command and no namespaces needed (works in containers): children are confined by Landlock and seccomp.
    unsafe       limits alone, no server; only when asked for by that name.

A started sandbox proves itself on a program that tries to get out; one that does not hold is
refused. As root it first becomes an unprivileged user. Left out: what runs inside
(`fork_server.py`, `jobs.py`), remote sandboxes, and anything but Linux.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import itertools
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from logpi.sandbox.children import SLEEPERS, Child, Slots, describe
from logpi.sandbox.judge import ProgramTests, judge
from logpi.sandbox.protocol import ProgramLimits, ProgramResult, ProgramVerdict, SandboxError
from logpi.sandbox.syscalls import NUMBERS

BACKENDS = ("bubblewrap", "landlock", "unsafe")
START_SECONDS = 30.0
_INSIDE = tuple(
    "syscalls kernel plain mirrors mirror_classes operations rpc names checks counting runner tests jobs fork_server".split()
)  # in the order of their imports
_BOOT = """
import json, socket, sys, types
control = socket.socket(fileno=int(sys.argv[1]))
message = json.loads(control.recv(1 << 20))
for name, source in message["modules"]:
    module = types.ModuleType(name)
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)
    exec(compile(source, name, "exec"), module.__dict__)
sys.modules["logpi.sandbox.fork_server"].main(control.detach(), message["options"])
"""
_TRY_TO_ESCAPE = """
import os, socket, sys
def forbidden(what, *tries):
    for attempt in tries:
        try:
            attempt()
        except (OSError, PermissionError):
            continue
        print(what)
forbidden("read a file", lambda: open("/etc/passwd").read(), lambda: os.listdir("/home"), lambda: os.listdir("/proc"))
forbidden("wrote a file", lambda: open("/var/tmp/x", "w"), lambda: open("/dev/shm/x", "w"), lambda: os.chmod("/", 0o755))
forbidden("made a socket", lambda: socket.socket(), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
forbidden("handed a file to a socket", lambda: (p := socket.socketpair())[0].sendmsg([b"x"]))
forbidden("started a process", lambda: os.fork() or os._exit(0))
forbidden("signalled a process", lambda: os.kill(os.getppid(), 0))
"""


def _sources() -> list[tuple[str, str]]:
    """The modules that run inside, as text: nothing of this library has to be readable there."""
    empty = [("logpi", ""), ("logpi.sandbox", "")]
    return empty + [
        (f"logpi.sandbox.{m}", Path(__file__).with_name(f"{m}.py").read_text("utf-8"))
        for m in _INSIDE
    ]


def _python(control: int) -> list[str]:
    """The interpreter itself, not a virtual environment's link to it."""
    return [os.path.realpath(sys.executable), "-I", "-S", "-B", "-c", _BOOT, str(control)]


def _bubblewrap(bwrap: str, control: int) -> list[str]:
    prefix = os.path.realpath(sys.base_prefix)
    binds = ["--ro-bind", "/usr", "/usr"]
    for path in ("/lib", "/lib64", "/etc/ld.so.cache"):
        binds += ["--ro-bind-try", path, path]
    if not prefix.startswith("/usr"):
        binds += ["--ro-bind", prefix, prefix]
    for path in _packages(("/usr/lib", "/usr/local/lib", f"{prefix}/lib")):
        binds += ["--tmpfs", path]
    places = ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp"]
    return [
        bwrap,
        "--unshare-all",
        "--new-session",
        "--cap-drop",
        "ALL",
        *binds,
        *places,
        "--",
        *_python(control),
    ]


def _packages(places: Sequence[str]) -> list[str]:
    """The directories in which packages are installed, as in /usr/lib/python3/dist-packages."""
    return sorted(
        {
            str(p)
            for place in places
            for p in Path(place).glob("python*/*-packages")
            if p.is_dir() and not p.is_symlink()
        }
    )


@dataclass
class _ForkServer:
    """One running fork server."""

    process: subprocess.Popen
    control: socket.socket
    facts: dict[str, Any]

    def close(self) -> None:
        self.control.close()  # the fork server kills its children and leaves
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _launch(backend: str) -> _ForkServer:
    """Start a fork server. Raises SandboxError with the reason if it does not come up."""
    bwrap = shutil.which("bwrap")
    if backend == "bubblewrap" and not bwrap:
        raise SandboxError("bubblewrap is not installed (the command `bwrap`)")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = (
        _bubblewrap(bwrap, theirs.fileno())
        if bwrap and backend == "bubblewrap"
        else _python(theirs.fileno())
    )
    options = {"confine": backend != "unsafe", "need_landlock": backend == "landlock"}
    messages: list[dict[str, Any]] = [options]
    if backend == "bubblewrap" and os.geteuid() == 0:
        messages, command = [{"exec": command}, options], _python(theirs.fileno())
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={},
        cwd="/",
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
    )
    theirs.close()
    try:
        ours.settimeout(START_SECONDS)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for message in messages:
            ours.send(json.dumps({"modules": _sources(), "options": message}).encode())
        hello = json.loads(ours.recv(1 << 16) or b"{}")
    except (OSError, ValueError) as error:
        hello = {"failed": str(error)}
    server = _ForkServer(process, ours, hello)
    if "uid" not in hello:
        server.close()
        said = (
            (process.stderr.read() if process.stderr else b"")
            .decode(errors="replace")
            .strip()
            .splitlines()
        )
        raise SandboxError(hello.get("failed") or (said[-1] if said else "it ended without a word"))
    ours.settimeout(None)
    return server


def _job_file(task: dict[str, Any] | bytes) -> int:
    """A sealed file in memory: the reader can neither block the writer nor change what stands
    there."""
    import fcntl  # not on every system on which this module is imported

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
    """Runs programs that nobody has read. Thread-safe; started at the first run; one for a process
    is enough (`shared`).

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
        self._slots = Slots(self.workers)
        self.threads = (1 + SLEEPERS) * self.workers  # callers that it can serve at a time
        self._lock = threading.Lock()
        self._server: _ForkServer | None = None

    def start(self) -> str:
        """Raise the server and try them; the backend's name."""
        with self._lock:
            self._start()
        return self.backend

    def _start(self) -> _ForkServer:
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
                server = _launch(backend)
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

    def _prove(self, server: _ForkServer, backend: str) -> None:
        """Run a program that tries to get out; refuse server that let it."""
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
        with self._slots.one() as leave:
            child = self.spawn("script", {"code": code}, limits, stdin=stdin, on_sleep=leave)
            return _finish(child, limits)

    def spawn(self, job: str, task: dict[str, Any], limits: ProgramLimits, **send: Any) -> Child:
        """Send a job inside (`_send` has the options); to another fork server if the last one died."""
        for attempt in (1, 2):
            with self._lock:
                server = self._start()
            try:
                return _send(server, job, task, limits, **send)
            except OSError as error:
                gone = isinstance(error, ConnectionError) or server.process.poll() is not None
                if (
                    attempt == 2 or not gone
                ):  # too many open files here are not the fork server's end, which would be waited for
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
        with self._slots.one() as leave:
            return judge(
                self.spawn,
                code,
                ProgramTests(tests, setup, entry_point, classes),
                limits or ProgramLimits(),
                leave,
            )

    def close(self) -> None:
        """Kill what runs and take the server down; the next run raises others."""
        with self._lock:
            if self._server is not None:
                self._server.close()
                self._server = None
                atexit.unregister(self.close)


def _send(
    server: _ForkServer,
    job: str,
    task: dict[str, Any],
    limits: ProgramLimits,
    stdin: str = "",
    extra: Sequence[int] = (),
    silent: bool = False,
    partner: Child | None = None,
    on_sleep: Callable[[], None] = lambda: None,
) -> Child:
    """One packet to the fork server. `silent`: what the program writes is thrown away. `partner`: they
    sleep only if both do."""
    ours: list[int] = []
    theirs: list[int] = []

    def pipe() -> None:
        mine, other = os.pipe()
        ours.append(mine)
        theirs.append(other)

    group = partner.group if partner else next(_groups)
    told = asdict(limits) | {"cpu_seconds": limits.cpu_seconds}
    packet = json.dumps({"job": job, "group": group, "limits": told}).encode()
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
    """Follow a script to its end, by itself or not."""
    start = time.monotonic()
    ended = child.follow(start + limits.seconds)
    child.let_go()
    out, err = (bytes(b).decode(errors="replace") for b in child.streams.values())
    status, code = describe(child, ended, limits)
    return ProgramResult(out, err, status, code, time.monotonic() - start)
