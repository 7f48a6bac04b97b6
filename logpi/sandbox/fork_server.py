"""The process inside the server: it waits with a warm Python and makes a confined child for every
program.

    main process ── control socket (one packet a program: limits and file descriptors) ──▶ fork server ── fork
    ──▶ child

The fork server never reads a program: the child reads its own job, so one run's code or tests are in no
other's memory. The child gets an empty /tmp of its own where the kernel allows it, limits,
Landlock, seccomp (no process but itself, no network), and only then its job. The fork server alone
learns how it ended, from the kernel, and tells the main process through a pipe that the child does not
have; when the main process lets go of that pipe, the child is killed. Standard library only. Left out:
deadlines and captured output (`local.py`), what a job is (`jobs.py`).
"""

from __future__ import annotations

import array
import contextlib
import gc
import glob
import json
import os
import resource
import select
import signal
import socket
import sys
import sysconfig
import threading
import time
from dataclasses import dataclass
from typing import Any

from logpi.sandbox import jobs, kernel

PACKET = 200_000
TMP = "/tmp"
TICK = 0.2  # seconds between two looks at who is asleep
NAP = 0.5  # seconds of sleep after which the main process may start another program
THREAD_STACK = 2 << 20
WARM = (
    "abc argparse array base64 bisect calendar cmath collections collections.abc copy csv"
    " dataclasses datetime decimal enum fractions functools hashlib heapq inspect io itertools json"
    " math numbers operator pprint queue random re statistics string struct textwrap threading time"
    " traceback types typing unicodedata uuid zlib"
)


def _libraries() -> list[str]:
    """Where the standard library and shared libraries lie."""
    own = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")} | {
        os.path.join(sys.base_prefix, "lib")
    }
    every = own | {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"}
    return sorted({os.path.realpath(path) for path in every})


def readable(hidden: bool) -> tuple[list[str], list[str]]:
    """What a Python program without packages has to read: the standard library, shared libraries,
    time zones; and the directories of which it may see the names alone, since packages are
    installed in them and are not `hidden`."""
    files = [
        "/etc/ld.so.cache",
        "/usr/share/zoneinfo",
        "/dev/null",
        "/dev/zero",
        "/dev/urandom",
        "/dev/random",
    ]
    places = _libraries()
    if hidden:
        return places + files, []
    listed = {above for package in _packages() for p in places for above in _between(p, package)}
    shown = {os.path.join(p, name) for p in listed for name in os.listdir(p)} | set(places)
    return sorted(shown - listed - set(_packages())) + files, sorted(listed)


def _packages() -> list[str]:
    """The directories in which packages are installed, as in /usr/lib/python3/dist-packages."""
    found = set()
    for place in {
        path if os.path.basename(path).startswith("python") else f"{path}/python*"
        for path in _libraries()
    }:
        found |= {os.path.realpath(p) for p in glob.glob(f"{place}/*-packages") if os.path.isdir(p)}
    return sorted(found)


def _between(place: str, below: str) -> list[str]:
    """`place` and what lies on the way to what is `below` it."""
    if not below.startswith(f"{place}/"):
        return []
    parts = os.path.relpath(below, place).split("/")
    return [os.path.join(place, *parts[:i]) for i in range(len(parts))]


def reach_python() -> None:
    """As root: show the interpreter to an unprivileged user if it lies under a private directory
    such as /root.

    In a mount namespace of our own the private directory is covered by an empty one that holds
    nothing but Python.
    """
    prefix = os.path.realpath(sys.base_prefix)
    above = [prefix[:i] for i, c in enumerate(prefix) if c == "/" and i] + [prefix]
    private = next((p for p in above if not os.stat(p).st_mode & 0o001), None)
    if private is None:
        return
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    place = os.open(prefix, os.O_PATH)
    kernel.mount("tmpfs", private, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755,size=1m")
    os.makedirs(prefix, exist_ok=True)
    kernel.mount(f"/proc/self/fd/{place}", prefix, None, kernel.MS_BIND | kernel.MS_REC)
    os.close(place)


def become_nobody(uid: int = 65534) -> None:
    """As root: for good an unprivileged user, in a directory that it can see."""
    try:
        reach_python()
    except OSError as error:
        raise OSError(
            f"Python at {sys.base_prefix} cannot be shown to an unprivileged user ({error}): run as"
            " an ordinary user, or install Python where everyone can read it"
        ) from None
    os.chdir("/")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    kernel.prctl(
        kernel.PR_SET_DUMPABLE, 1
    )  # until the namespaces are made: /proc/self is root's without it


def _root_of_a_namespace() -> bool:
    """Whether our root is an ordinary user outside, as in a rootless container; it may have no
    other user to become."""
    with open("/proc/self/uid_map") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def _step_down() -> None:
    """As root: become nobody; the root of a namespace that cannot stays, and its children drop all
    capabilities."""
    try:
        become_nobody()
    except OSError:
        if not _root_of_a_namespace():
            raise


def private_namespaces() -> bool:
    """Mounts, IPC and network of our own, where the kernel lets an unprivileged user have them."""
    try:
        kernel.user_namespace(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWNET)
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        _mount_tmp(1 << 20)
        for path in _packages():
            kernel.mount("tmpfs", path, "tmpfs", kernel.MS_RDONLY, "mode=755,size=4k")
        return True
    except OSError:
        return False


def _mount_tmp(size: int) -> None:
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("tmpfs", TMP, "tmpfs", flags, f"mode=700,size={size},nr_inodes=1024")


def confine(limits: dict[str, Any], setting: dict[str, Any]) -> None:
    """What the child does to itself before it reads its job."""
    writable, others = ["/dev/null"], setting["others"]
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.one_arena()
    threading.stack_size(THREAD_STACK)
    if setting["private_tmp"]:
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else our own /proc/self is not ours to write
        kernel.user_namespace(
            kernel.CLONE_NEWNS
        )  # threads are counted in it: the neighbours' are not ours
        others = 1
        _mount_tmp(limits["files"])
        writable.append(TMP)
        os.chdir(TMP)
    bounds = {
        resource.RLIMIT_AS: limits["memory"],
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_FSIZE: limits["files"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_NPROC: others + limits["threads"],
    }
    for which, bound in bounds.items():
        hard = resource.getrlimit(which)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(which, (bound, bound))
    if setting["confine"]:
        kernel.lock_down(
            setting["readable"], writable, setting["listable"], setting["need_landlock"]
        )


def _tasks_of(uid: int) -> int:
    """Processes and threads of a user, as far as they can be seen."""
    count = 0
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                count += len(os.listdir(f"/proc/{entry.name}/task"))
    return count


def child(packet: dict[str, Any], fds: list[int], setting: dict[str, Any]) -> None:
    """Arrange the descriptors (0, 1, 2 standard, 3 the job, 4 … the job's own), confine, run; never
    returns."""
    code = 70
    try:
        for i, fd in enumerate(
            fds
        ):  # out of the way first: a low number may be another one's target
            fds[i] = os.dup(fd) if fd < 16 else fd
        high = [os.dup2(fd, 64 + i) for i, fd in enumerate(fds)]
        for i, fd in enumerate(high):
            os.dup2(fd, i)
        os.closerange(len(fds), 1 << 16)
        os.setsid()
        for number in (signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        confine(packet["limits"], setting)
        with open(3, "rb") as job:
            task = json.loads(job.read())
        code = jobs.run(packet["job"], task)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            os.write(2, f"sandbox: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def _receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    size = array.array("i").itemsize
    data, extra, _, _ = control.recvmsg(PACKET, socket.CMSG_SPACE(8 * size))
    fds = array.array("i")
    for _, _, body in extra:
        fds.frombytes(body[: len(body) - len(body) % size])
    return (json.loads(data), list(fds)) if data else None


@dataclass
class _RunningChild:
    """A child: its process, the pipe on which the main process awaits its end, with whom it works, and how
    long all of these slept."""

    pid: int
    report: int
    group: int
    limit: float
    idle: float = 0.0
    late: bool = False

    def tell(self, facts: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a full pipe or a main process that no longer listens
            os.write(self.report, (json.dumps(facts) + "\n").encode())


def _asleep(pid: int) -> bool:
    """Whether no thread of a process runs or would like to."""
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[0] not in (b"S", b"I", b"t", b"T"):
                    return False
        return True
    except (OSError, IndexError):
        return False


def _look(runs: dict[int, _RunningChild], seconds: float) -> None:
    """Count the sleep of those whose whole group sleeps; kill who slept too long; tell the main process who
    naps."""
    awake = {r.group for r in runs.values() if not _asleep(r.pid)}
    for pidfd, run in runs.items():
        if run.group in awake:
            continue
        before, run.idle = run.idle, run.idle + seconds
        if before < NAP <= run.idle:
            run.tell({"asleep": True})
        if run.idle > run.limit and not run.late:
            run.late = True
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def serve(control: socket.socket, setting: dict[str, Any]) -> None:
    """Fork for every packet, tell how each child ended, kill those whose report nobody awaits;
    until the main process is gone."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    runs: dict[int, _RunningChild] = {}  # pidfd -> child
    leashes: dict[int, int] = {}  # report pipe -> pidfd
    looked = time.monotonic()
    while True:
        for fd, _ in poll.poll(1000 * TICK if runs else None):
            if fd == control.fileno():
                packet = _receive(control)
                if packet is None:
                    for pidfd in runs:
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    return
                _start(packet, control, setting, poll, runs, leashes)
            elif fd in runs:
                _finish(fd, poll, runs, leashes)
            elif fd in leashes:  # the main process let go
                signal.pidfd_send_signal(leashes.pop(fd), signal.SIGKILL)
                poll.unregister(fd)
        now = time.monotonic()
        if now - looked >= TICK:
            _look(runs, min(now - looked, 2 * TICK))
            looked = now


def _finish(
    pidfd: int, poll: select.poll, runs: dict[int, _RunningChild], leashes: dict[int, int]
) -> None:
    run = runs.pop(pidfd)
    _, status, usage = os.wait4(run.pid, 0)
    spent = usage.ru_utime + usage.ru_stime
    run.tell({"code": os.waitstatus_to_exitcode(status), "cpu": spent, "late": run.late})
    poll.unregister(pidfd)
    if run.report in leashes:
        poll.unregister(run.report)
        del leashes[run.report]
    os.close(pidfd)
    os.close(run.report)


def _start(packet, control, setting, poll, runs, leashes) -> None:
    order, (report, *fds) = packet
    pid = os.fork()
    if pid == 0:
        control.close()
        child(order, fds, setting)
    for fd in fds:
        os.close(fd)
    pidfd = os.pidfd_open(pid)
    runs[pidfd] = _RunningChild(
        pid, report, order["group"], order["limits"]["idle"] or order["limits"]["seconds"]
    )
    leashes[report] = pidfd
    poll.register(pidfd, select.POLLIN)
    poll.register(report, 0)  # hang-ups alone


def main(control_fd: int, options: dict[str, Any]) -> None:
    """Prepare, say hello to the main process, serve. With `exec`: only step down from root and hand over to
    that command."""
    control = socket.socket(fileno=control_fd)
    os.umask(0o022)  # what we make for a program to stand in, it must be able to enter
    try:
        if os.geteuid() == 0:
            _step_down()
        if options.get("exec"):
            os.set_inheritable(control_fd, True)
            os.execve(options["exec"][0], options["exec"], {})
        private = options["confine"] and private_namespaces()
        shown, listed = readable(hidden=private)
        setting = {
            "confine": options["confine"],
            "need_landlock": options["need_landlock"],
            "readable": shown,
            "listable": listed,
            "private_tmp": private,
            "others": 2 + _tasks_of(os.getuid()),
        }
        if options["need_landlock"] and options["confine"] and not kernel.landlock_version():
            raise OSError(
                "this kernel has no Landlock (Linux 5.13 or later, with `landlock` among its"
                " security modules)"
            )
        for name in WARM.split():
            with contextlib.suppress(ImportError):
                __import__(name)
        gc.collect()
        gc.freeze()  # a child's collector does not touch, and so does not copy, what it shares with us
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    except Exception as error:
        control.send(json.dumps({"failed": str(error)}).encode())
        return
    hello = {
        "landlock": kernel.landlock_version(),
        "private_tmp": setting["private_tmp"],
        "uid": os.getuid(),
    }
    control.send(json.dumps(hello).encode())
    serve(control, setting)
