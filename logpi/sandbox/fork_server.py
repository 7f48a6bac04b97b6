"""The fork server: a warm Python inside the sandbox that forks a confined child for each program.

The life of one program:

    1  the main process sends one packet: the limits, and the descriptors of the child's standard
       streams, of its job and of a report pipe            control socket ─▶ fork server
    2  the fork server forks. It never reads the job, so no child has another run's code or tests in
       its memory
    3  the child mounts an empty /tmp if the kernel allows it, sets its limits, then Landlock and
       seccomp (no other process, no network). Only then it reads its job and runs it
    4  when it sleeps, the fork server reports {"asleep": true}, and another program may start
    5  when it ends, the kernel notifies the fork server, which reports
       {"code": 0, "cpu": 0.04, "late": false}. The child has no report pipe and cannot forge this
    6  if the main process closes its end of the pipe first, the fork server kills the child

Standard library only. Left out: deadlines and captured output (`children.py`), and the jobs
(`jobs.py`).
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from typing import Any

from logpi.sandbox import jobs, kernel
from logpi.sandbox.confinement import (
    confine,
    private_namespaces,
    readable,
    step_down,
    tasks_of,
)

PACKET = 200_000
# seconds between two checks for sleeping children
TICK = 0.2
# seconds of sleep after which the main process may start another program
NAP = 0.5
WARM = (
    "abc argparse array base64 bisect calendar cmath collections collections.abc copy csv"
    " dataclasses datetime decimal enum fractions functools hashlib heapq inspect io itertools json"
    " math numbers operator pprint queue random re statistics string struct textwrap threading time"
    " traceback types typing unicodedata uuid zlib"
)


def child(packet: dict[str, Any], fds: list[int], setting: dict[str, Any]) -> None:
    """Arrange the descriptors (0, 1, 2 standard, 3 the job, 4 … the job's own), confine this
    process, run the job. Never returns."""
    code = 70
    try:
        # move low descriptors first: their numbers are the targets of others
        for i, fd in enumerate(fds):
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
    """A running child.

    Attributes:
        pid: its process.
        report: the pipe to the main process, for reports.
        group: the children of a group sleep only if all of them sleep.
        limit: the seconds that its group may sleep.
        idle: the seconds that it has slept.
        late: whether it was killed for sleeping too long.
    """

    pid: int
    report: int
    group: int
    limit: float
    idle: float = 0.0
    late: bool = False

    def tell(self, facts: dict[str, Any]) -> None:
        # the pipe may be full or closed
        with contextlib.suppress(OSError):
            os.write(self.report, (json.dumps(facts) + "\n").encode())


def _asleep(pid: int) -> bool:
    """Whether all threads of a process sleep: none runs or waits for a core."""
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[0] not in (b"S", b"I", b"t", b"T"):
                    return False
        return True
    except (OSError, IndexError):
        return False


def _look(runs: dict[int, _RunningChild], seconds: float) -> None:
    """Count the sleep of each group that sleeps, report its beginning, and kill children that have
    slept too long."""
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
    """Fork a child for each packet, report its end, and kill it if its report pipe closes, until
    the main process has gone."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    # pidfd -> child
    runs: dict[int, _RunningChild] = {}
    # report pipe -> pidfd
    leashes: dict[int, int] = {}
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
            # the main process closed its end
            elif fd in leashes:
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
    # hang-ups only
    poll.register(report, 0)


def main(control_fd: int, options: dict[str, Any]) -> None:
    """Prepare, send hello to the main process, serve.

    With `exec`, only step down from root and run that command.
    """
    control = socket.socket(fileno=control_fd)
    # programs must be able to enter the directories made for them
    os.umask(0o022)
    try:
        if os.geteuid() == 0:
            step_down()
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
            "others": 2 + tasks_of(os.getuid()),
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
        # so a child's collector does not touch, and copy, the shared memory
        gc.freeze()
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
