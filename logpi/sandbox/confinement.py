"""Confines a process of the sandbox: chooses the readable files, becomes an unprivileged user,
makes namespaces, sets limits.

Standard library only. Left out: the calls to the kernel (`kernel.py`), and their time in a
program's life (`fork_server.py`).
"""

from __future__ import annotations

import contextlib
import glob
import os
import resource
import signal
import sys
import sysconfig
import threading
from typing import Any

from logpi.sandbox import kernel

TMP = "/tmp"
THREAD_STACK = 2 << 20


def _libraries() -> list[str]:
    """The directories of the standard library and of shared libraries."""
    own = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")} | {
        os.path.join(sys.base_prefix, "lib")
    }
    every = own | {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"}
    return sorted({os.path.realpath(path) for path in every})


def readable(hidden: bool) -> tuple[list[str], list[str]]:
    """The files that a Python program without packages must read (the standard library, shared
    libraries, time zones), and the directories whose names it may list.

    Directories with installed packages can only be listed, unless packages are `hidden`.
    """
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
    """The directories of installed packages, such as /usr/lib/python3/dist-packages."""
    places = {
        path if os.path.basename(path).startswith("python") else f"{path}/python*"
        for path in _libraries()
    }
    paths = [p for place in places for p in glob.glob(f"{place}/*-packages")]
    return sorted({os.path.realpath(p) for p in paths if os.path.isdir(p)})


def _between(place: str, below: str) -> list[str]:
    """`place` and the directories between it and the path `below`."""
    if not below.startswith(f"{place}/"):
        return []
    parts = os.path.relpath(below, place).split("/")
    return [os.path.join(place, *parts[:i]) for i in range(len(parts))]


def reach_python() -> None:
    """As root: let an unprivileged user read the interpreter, if it is in a private directory such
    as /root.

    In a new mount namespace, a directory with nothing but Python covers the private one.
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
    """As root: become an unprivileged user for good, in a directory that it can read."""
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
    # until the namespaces exist: without it /proc/self is root's
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)


def _root_of_a_namespace() -> bool:
    """Whether this root is an ordinary user outside, as in a rootless container. It may be unable
    to become another user."""
    with open("/proc/self/uid_map") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def step_down() -> None:
    """As root: become nobody. A namespace's root that cannot stays root; its children drop all
    capabilities."""
    try:
        become_nobody()
    except OSError:
        if not _root_of_a_namespace():
            raise


def private_namespaces() -> bool:
    """Make new namespaces of mounts, IPC and network; False if the kernel refuses them to an
    unprivileged user."""
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
    """Confine this process, a child, before it reads its job."""
    writable, others = ["/dev/null"], setting["others"]
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.one_arena()
    threading.stack_size(THREAD_STACK)
    if setting["private_tmp"]:
        # needed to write this process's own /proc/self
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
        # the kernel counts threads per user namespace, so other children's do not count here
        kernel.user_namespace(kernel.CLONE_NEWNS)
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


def tasks_of(uid: int) -> int:
    """The number of a user's processes and threads, as far as they are visible."""
    count = 0
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                count += len(os.listdir(f"/proc/{entry.name}/task"))
    return count
