"""Calls Linux's means to confine a process, by ctypes: namespaces, Landlock, seccomp, capabilities.

Each function changes the calling process for good, and raises OSError if the kernel refuses.
Standard library only, as the process has no packages. Left out: the choice of what to allow
(`confinement.py`, `syscalls.py`), Landlock before Linux 5.13, and machines other than x86-64 and
aarch64.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable, Sequence

from logpi.sandbox.syscalls import AUDIT_ARCH, NUMBERS, X32_BIT

_libc = ctypes.CDLL(None, use_errno=True)
CLONE_THREAD, CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x10000, 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    4096,
    16384,
    1 << 18,
)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
# the same on both machines
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_CAPSET = {"x86_64": 126, "aarch64": 91}


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int, pointer: int = 0) -> None:
    zero = ctypes.c_ulong(0)
    _check(
        _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(pointer), zero, zero),
        f"prctl {option}",
    )


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones."""
    _check(_libc.unshare(flags), "unshare")


def user_namespace(others: int) -> None:
    """Enter a new user namespace with the same user, and the `others`."""
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER | others)
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def one_arena() -> None:
    """Use one heap for all threads: the C library reserves 64 MiB of address space for each further
    heap."""
    if (mallopt := getattr(_libc, "mallopt", None)) is not None:
        mallopt(-8, 1)


def mount(
    source: str, target: str, kind: str | None = None, flags: int = 0, options: str = ""
) -> None:
    given = [x.encode() if x is not None else None for x in (source, target, kind)]
    _check(_libc.mount(*given, ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def drop_capabilities() -> None:
    """Give up all capabilities, also those in an own namespace."""
    header, nothing = struct.pack("Ii", 0x20080522, 0), bytes(24)
    _check(_libc.syscall(_CAPSET[platform.machine()], header, nothing), "capset")


# --- Landlock ---

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
# remove and make files, directories, links, …
_CHANGES = sum(1 << bit for bit in range(4, 13))
# since versions 2, 3, 5
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15


def landlock_version() -> int:
    """The kernel's Landlock version; 0 if it has none."""
    return max(0, _libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))


def landlock(
    readable: Iterable[str], writable: Iterable[str] = (), listable: Iterable[str] = ()
) -> None:
    """Allow opening these paths and their contents only; no TCP, no signal to outside processes.

    Directories that are only `listable` show their names. Landlock does not guard modes, owners,
    times, and UDP or other sockets: `seccomp` does.
    """
    version = landlock_version()
    if not version:
        raise OSError(
            "this kernel has no Landlock (Linux 5.13 with `landlock` among its security modules)"
        )
    files = _EXECUTE | _WRITE_FILE | _READ_FILE | _READ_DIR | _CHANGES
    files |= _REFER * (version >= 2) | _TRUNCATE * (version >= 3) | _IOCTL_DEV * (version >= 5)
    # files, TCP, sockets and signals
    attributes = struct.pack("QQQ", files, 3 * (version >= 4), 3 * (version >= 6))
    size = 8 + 8 * (version >= 4) + 8 * (version >= 6)
    rules = _check(
        _libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0),
        "landlock_create_ruleset",
    )
    try:
        for path in readable:
            _allow(rules, path, _EXECUTE | _READ_FILE | _READ_DIR)
        for path in listable:
            _allow(rules, path, _READ_DIR)
        for path in writable:
            _allow(rules, path, files & ~_EXECUTE & ~_IOCTL_DEV)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        _check(_libc.syscall(_LANDLOCK_RESTRICT, rules, 0), "landlock_restrict_self")
    finally:
        os.close(rules)


def _allow(rules: int, path: str, access: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    # a missing or unreadable path needs no rule
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            access &= _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
        _check(
            _libc.syscall(_LANDLOCK_ADD, rules, 1, struct.pack("=Qi", access, place), 0),
            f"landlock rule {path}",
        )
    finally:
        os.close(place)


# --- seccomp ---

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38
_NR, _ARCH, _ARGUMENTS = 0, 4, 16
# without F_SETOWN and F_SETSIG, which make the kernel send signals
_FCNTL = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    1030,
    1032,
)
# isatty, window size, readable bytes, blocking, close-on-exec
_IOCTL = (
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)
# "not implemented" makes the C library use the older call
_UNKNOWN = (
    "clone3",
    "faccessat2",
    "openat2",
    "futex_waitv",
    "epoll_pwait2",
)


def _one(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("HBBI", code, then, otherwise, value)


def _only(argument: int, values: Sequence[int], code: int = _EQUAL) -> bytes:
    """Allow a call if the low half of the argument is one of the values; else EPERM."""
    tests = b"".join(_one(code, v, 0, 1) + _one(_RETURN, _ALLOW) for v in values)
    return _one(_LOAD, _ARGUMENTS + 8 * argument) + tests + _one(_RETURN, _ERRNO | _EPERM)


def _unless(argument: int) -> bytes:
    """Allow a call if the argument, a pointer, is null; else EPERM."""
    low, high = (_one(_LOAD, _ARGUMENTS + 8 * argument + half) for half in (0, 4))
    refuse = _one(_RETURN, _ERRNO | _EPERM)
    return (
        low
        + _one(_EQUAL, 0, 1, 0)
        + refuse
        + high
        + _one(_EQUAL, 0, 1, 0)
        + refuse
        + _one(_RETURN, _ALLOW)
    )


def _program(pid: int) -> bytes:
    """The filter for this process: it may start threads, no processes, and signal itself only."""
    machine = platform.machine()
    numbers = NUMBERS[machine]
    special = {
        "clone": _only(0, [CLONE_THREAD], _ANY_BIT),
        "kill": _only(0, [pid]),
        "tgkill": _only(0, [pid]),
        "prlimit64": _only(0, [0]),
        "fcntl": _only(1, _FCNTL),
        "ioctl": _only(1, _IOCTL),
        # only to the other end of a pair: an address may name another process's socket
        "sendto": _unless(4),
        **{name: _one(_RETURN, _ERRNO | _ENOSYS) for name in _UNKNOWN},
    }
    parts = [
        _one(_LOAD, _ARCH),
        _one(_EQUAL, AUDIT_ARCH[machine], 1, 0),
        _one(_RETURN, _KILL),
        _one(_LOAD, _NR),
    ]
    if machine == "x86_64":
        parts += [_one(_AT_LEAST, X32_BIT, 0, 1), _one(_RETURN, _KILL)]
    for name, number in numbers.items():
        body = special.get(name, _one(_RETURN, _ALLOW))
        parts += [_one(_EQUAL, number, 0, len(body) // 8), body]
    return b"".join([*parts, _one(_RETURN, _ERRNO | _EPERM)])


def seccomp() -> None:
    """Allow the calls of `syscalls.py` only; the others fail with EPERM."""
    if platform.machine() not in NUMBERS:
        raise OSError(f"no list of system calls for {platform.machine()}")
    program = _program(os.getpid())
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    buffer = ctypes.create_string_buffer(header, len(header))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(buffer))


def lock_down(
    readable: Iterable[str],
    writable: Iterable[str],
    listable: Iterable[str],
    need_landlock: bool = True,
) -> None:
    """Confine files by Landlock, drop all capabilities, confine system calls by seccomp. The last
    step before a program runs."""
    if need_landlock or landlock_version():
        landlock(readable, writable, listable)
    drop_capabilities()
    prctl(PR_SET_DUMPABLE, 0)
    seccomp()
