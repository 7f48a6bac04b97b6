"""What this process may compute with: its cores, the time that its container has, its neighbours.

Linux says it in /proc and in the control groups (version 1 and 2); another system tells the number
of cores alone. Nothing here imports torch. Left out: what to make of it (`threads.py`), and GPUs.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Processors", "allowed", "busy", "has_bfloat16", "processors", "quota"]

# seconds in which neighbours are watched
WINDOW = 0.15
PROC = Path("/proc")


@dataclass(frozen=True)
class Processors:
    """What a process may compute with.

    Attributes:
        cores: those that it may run on. quota: cores' worth of time that its control groups grant;
            infinite without a limit. busy: how many of `cores` other processes keep busy.
    """

    cores: int
    quota: float = math.inf
    busy: float = 0.0

    @property
    def limit(self) -> int:
        """Threads that can all run at once, if nobody else does."""
        return max(1, math.floor(min(self.cores, self.quota)))


def processors(proc: Path = PROC, pause: Callable[[float], object] = time.sleep) -> Processors:
    """Those of this process now. Watches the neighbours for a moment."""
    own = allowed()
    return Processors(len(own), quota(proc), busy(own, proc, pause))


def allowed() -> set[int]:
    """The numbers of the cores that this process may run on (`taskset`, a container's cpuset)."""
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def busy(
    cores: set[int], proc: Path = PROC, pause: Callable[[float], object] = time.sleep
) -> float:
    """How many of these cores are at work while this process sleeps; 0 where nobody says.

    /proc/stat counts hundredths of a second since the machine's start, for each core:

        cpu0  user nice system idle iowait irq softirq steal …
        cpu0   100    0     20  900     10   0       0     0
        cpu0   110    0     22  903     10   0       0     0     15 later: 12 at work, 0.8 cores

    Time that a hypervisor gave to others (steal) counts as work.
    """
    before = _ticks(cores, proc)
    pause(WINDOW)
    used = [now - then for now, then in zip(_ticks(cores, proc), before, strict=True)]
    work, whole = used
    return len(cores) * work / whole if whole > 0 else 0.0


def _ticks(cores: set[int], proc: Path) -> tuple[int, int]:
    """Of these cores since the machine's start: at work, in all."""
    work = whole = 0
    with suppress(OSError, ValueError):
        for line in (proc / "stat").read_text().splitlines():
            name, *numbers = line.split()
            if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores:
                spent = [int(n) for n in numbers[:8]]
                whole += sum(spent)
                work += sum(spent) - sum(spent[3:5])
    return work, whole


def has_bfloat16(proc: Path = PROC) -> bool:
    """Whether the CPU multiplies numbers of 16 bits faster than those of 32: it has AMX or
    AVX512-BF16, or Arm's instructions for it."""
    with suppress(OSError):
        for line in (proc / "cpuinfo").read_text().splitlines():
            name, _, words = line.partition(":")
            if name.strip().lower() in ("flags", "features"):
                return bool({"amx_bf16", "avx512_bf16", "bf16"} & set(words.split()))
    return False


def quota(proc: Path = PROC) -> float:
    """Cores' worth of time that the control groups of this process grant; infinite for no limit.

    A group's limit holds for all below it, so the least on the way up counts:

        /proc/self/cgroup       0::/pod/main                             its group
        /proc/self/mountinfo    … / /sys/fs/cgroup … - cgroup2 …         where groups are files
        /sys/fs/cgroup/pod/main/cpu.max     max 100000                   no limit here
        /sys/fs/cgroup/pod/cpu.max          150000 100000                150 of 100 ms: 1.5 cores
    """
    return min((_granted(place) for place in _groups(proc)), default=math.inf)


def _groups(proc: Path) -> Iterator[Path]:
    """The directories of this process's control groups of cpu time, and of all above them."""
    with suppress(OSError, ValueError):
        paths = {}
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            paths |= {name: path for name in names.split(",")}
        for line in (proc / "self" / "mountinfo").read_text().splitlines():
            first, _, last = line.partition(" - ")
            root, point = first.split()[3:5]
            kind, _, options = last.split(maxsplit=2)
            name = {"cgroup": "cpu", "cgroup2": ""}.get(kind, "none")
            if name not in paths or (name and name not in options.split(",")):
                continue
            # inside a container the mount may begin at its own group, or the path be the host's
            below = paths[name].removeprefix(root.rstrip("/")).strip("/")
            place = Path(point, below)
            yield from (p for p in (place, *place.parents) if p.is_relative_to(point))


def _granted(group: Path) -> float:
    """Cores' worth of time that one group grants."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        if (group / "cpu.max").exists():
            most, period = (group / "cpu.max").read_text().split()
        else:
            most = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        # "max" is no number, -1 no limit
        if int(most) > 0:
            return int(most) / int(period)
    return math.inf
