"""An alarm when this process's threads have to wait for a core: wall time goes by, and no work is
done.

Linux keeps for each thread how long it was ready to run and had no core, because of neighbours, of
a container's quota, or of too many threads of its own. Where the system does not say, there is no
alarm. Left out: waiting for anything else (a server, a disk, a GPU), which is no contention.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from logpi.distributed.threads import passive

TASKS = Path("/proc/self/task")


def waited(tasks: Path = TASKS) -> dict[str, float]:
    """Seconds that each thread of this process has been ready without a core.

    A thread's schedstat has nanoseconds at work, nanoseconds ready, and time slices: 55370658
    34134889 142 is 34 ms.
    """
    seconds: dict[str, float] = {}
    with suppress(OSError):
        for thread in tasks.iterdir():
            with suppress(OSError, ValueError, IndexError):
                ready = int((thread / "schedstat").read_text().split()[1])
                seconds[thread.name] = ready / 1e9
    return seconds


@dataclass
class Contention:
    """Compares the time that a thread waited for a core in a step with the step's own time: of the
    thread that waited longest, for which the others wait. Together they wait longer the more of
    them there are: 64 threads of which each waits 1 % of a step lose 1 %.

    With share 0.5 and patience 3:

        step        1     2     3     4     5
        seconds    1.0   2.5   2.4   2.6   2.5      of wall time
        waited     0.0   1.6   1.5   1.7   1.6      by the thread that waited longest
        contended        yes   yes   yes   yes
        alarm                        yes          once in a run

    Attributes:
        share: of a step's seconds. patience: contended steps in a row, together at least `least`
            seconds: short steps vary.
        clock, counter: seconds that have gone by, and that each thread has waited.
        began, before: both at the step's beginning. steps: seconds and waiting of the last
            contended ones.
    """

    share: float = 0.5
    patience: int = 3
    least: float = 5.0
    clock: Callable[[], float] = time.monotonic
    counter: Callable[[], Mapping[str, float]] = waited
    warned: bool = False
    began: float = 0.0
    before: Mapping[str, float] = field(default_factory=dict)
    steps: tuple[tuple[float, float], ...] = ()

    def start(self) -> None:
        """A step begins now."""
        if not self.warned:
            self.began, self.before = self.clock(), self.counter()

    def __call__(self, step: int) -> str | None:
        """A sentence after the step with which contention is plain, once; else None."""
        if self.warned:
            return None
        seconds = self.clock() - self.began
        waiting = max((s - self.before.get(t, 0.0) for t, s in self.counter().items()), default=0.0)
        contended = waiting > self.share * seconds
        self.steps = (*self.steps, (seconds, waiting)) if contended else ()
        whole = sum(s for s, _ in self.steps)
        if len(self.steps) < self.patience or whole < self.least:
            return None
        self.warned = True
        lost = sum(w for _, w in self.steps)
        return (
            f"step {step}: in {whole:.1f} s a thread of this process waited {lost:.1f} s for a"
            f" core: others use this machine, or the container's quota is spent. {_remedy()}"
        )


def _remedy() -> str:
    """What helps, and what it does to the numbers."""
    import torch

    if torch.get_num_threads() == 1:
        return "It computes with one thread already: only fewer neighbours help"
    fewer = "--threads 1 (the same up to rounding)"
    if passive():
        return f"Fewer threads help: stop, and resume with {fewer}"
    return (
        "Stop, and resume with OMP_WAIT_POLICY=PASSIVE in the environment (the same numbers), or"
        f" with {fewer}"
    )
