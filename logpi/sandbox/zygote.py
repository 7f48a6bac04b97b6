"""The process inside the walls: it waits with a warm Python and makes a confined child for every program.

    host ── control socket (one packet a program: limits and file descriptors) ──▶ zygote ── fork ──▶ child

The zygote never reads a program: the child reads its own job, so one run's code or tests are in no other's memory. The child
gets an empty /tmp of its own where the kernel allows it, limits, Landlock, seccomp (no process but itself, no network),
and only then its job. The zygote alone learns how it ended, from the kernel, and tells the host through a pipe that the
child does not have; when the host lets go of that pipe, the child is killed. Standard library only. Left out:
deadlines and captured output (`host.py`), what a job is (`jobs.py`).
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import sysconfig
from typing import Any

from logpi.sandbox import jobs, kernel

__all__ = ["main"]

PACKET = 200_000
TMP = "/tmp"
WARM = (
    "abc argparse array base64 bisect calendar cmath collections collections.abc copy csv dataclasses datetime decimal "
    "enum fractions functools hashlib heapq inspect io itertools json math numbers operator pprint queue random re "
    "statistics string struct textwrap threading time traceback types typing unicodedata uuid zlib"
)


def readable() -> list[str]:
    """What a Python program without packages has to read: the standard library, shared libraries, time zones."""
    own = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")} | {os.path.join(sys.base_prefix, "lib")}
    if sys.base_prefix == "/usr":
        own.discard("/usr/lib")
    libraries = {
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        "/etc/ld.so.cache",
        "/usr/share/zoneinfo",
    }
    return sorted(own | libraries | {"/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"})


def reach_python() -> None:
    """As root: show the interpreter to an unprivileged user if it lies under a private directory such as /root.

    In a mount namespace of our own the private directory is covered by an empty one that holds nothing but Python.
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
            f"Python at {sys.base_prefix} cannot be shown to an unprivileged user ({error}): run as an ordinary user, "
            "or install Python where everyone can read it"
        ) from None
    os.chdir("/")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # until the namespaces are made: /proc/self is root's without it


def _root_of_a_namespace() -> bool:
    """Whether our root is an ordinary user outside, as in a rootless container; it may have no other user to become."""
    with open("/proc/self/uid_map") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def _step_down() -> None:
    """As root: become nobody; the root of a namespace that cannot stays, and its children drop all capabilities."""
    try:
        become_nobody()
    except OSError:
        if not _root_of_a_namespace():
            raise


def private_namespaces() -> bool:
    """Mounts, IPC and network of our own, where the kernel lets an unprivileged user have them."""
    uid, gid = os.getuid(), os.getgid()
    try:
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWNET)
        for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        _mount_tmp(1 << 20)
        return True
    except OSError:
        return False


def _mount_tmp(size: int) -> None:
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("tmpfs", TMP, "tmpfs", flags, f"mode=700,size={size},nr_inodes=1024")


def confine(limits: dict[str, Any], setting: dict[str, Any]) -> None:
    """What the child does to itself before it reads its job."""
    writable = ["/dev/null"]
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if setting["private_tmp"]:
        kernel.unshare(kernel.CLONE_NEWNS)
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
        resource.RLIMIT_NPROC: setting["others"] + limits["threads"],
    }
    for which, bound in bounds.items():
        hard = resource.getrlimit(which)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(which, (bound, bound))
    if setting["confine"]:
        kernel.lock_down(setting["readable"], writable, setting["need_landlock"])


def _tasks_of(uid: int) -> int:
    """Processes and threads of a user, as far as they can be seen."""
    count = 0
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                count += len(os.listdir(f"/proc/{entry.name}/task"))
    return count


def child(packet: dict[str, Any], fds: list[int], setting: dict[str, Any]) -> None:
    """Arrange the descriptors (0, 1, 2 standard, 3 the job, 4 … the job's own), confine, run; never returns."""
    code = 70
    try:
        for i, fd in enumerate(fds):  # out of the way first: a low number may be another one's target
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


def serve(control: socket.socket, setting: dict[str, Any]) -> None:
    """Fork for every packet, tell how each child ended, kill those whose report nobody awaits; until the host is gone."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    ends: dict[int, tuple[int, int]] = {}  # pidfd -> (pid, report pipe)
    leashes: dict[int, int] = {}  # report pipe -> pidfd
    while True:
        for fd, _ in poll.poll():
            if fd == control.fileno():
                packet = _receive(control)
                if packet is None:
                    for pidfd in ends:
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    return
                _start(packet, control, setting, poll, ends, leashes)
            elif fd in ends:
                pid, report = ends.pop(fd)
                _, status, usage = os.wait4(pid, 0)
                facts = {"code": os.waitstatus_to_exitcode(status), "cpu": usage.ru_utime + usage.ru_stime}
                with contextlib.suppress(OSError):  # a full pipe or a host that no longer listens
                    os.write(report, json.dumps(facts).encode())
                poll.unregister(fd)
                if report in leashes:
                    poll.unregister(report)
                    del leashes[report]
                os.close(fd)
                os.close(report)
            elif fd in leashes:  # the host let go
                signal.pidfd_send_signal(leashes.pop(fd), signal.SIGKILL)
                poll.unregister(fd)


def _start(packet, control, setting, poll, ends, leashes) -> None:
    order, (report, *fds) = packet
    pid = os.fork()
    if pid == 0:
        control.close()
        child(order, fds, setting)
    for fd in fds:
        os.close(fd)
    pidfd = os.pidfd_open(pid)
    ends[pidfd] = (pid, report)
    leashes[report] = pidfd
    poll.register(pidfd, select.POLLIN)
    poll.register(report, 0)  # hang-ups alone


def main(control_fd: int, options: dict[str, Any]) -> None:
    """Prepare, say hello to the host, serve. With `exec`: only step down from root and hand over to that command."""
    control = socket.socket(fileno=control_fd)
    try:
        if os.geteuid() == 0:
            _step_down()
        if options.get("exec"):
            os.set_inheritable(control_fd, True)
            os.execve(options["exec"][0], options["exec"], {})
        setting = {
            "confine": options["confine"],
            "need_landlock": options["need_landlock"],
            "readable": readable(),
            "private_tmp": options["confine"] and private_namespaces(),
            "others": 2 + _tasks_of(os.getuid()),
        }
        if options["need_landlock"] and options["confine"] and not kernel.landlock_version():
            raise OSError(
                "this kernel has no Landlock (Linux 5.13 or later, with `landlock` among its security modules)"
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
    hello = {"landlock": kernel.landlock_version(), "private_tmp": setting["private_tmp"], "uid": os.getuid()}
    control.send(json.dumps(hello).encode())
    serve(control, setting)
