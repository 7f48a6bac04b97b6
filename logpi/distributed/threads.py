"""How many threads PyTorch computes with on the CPU, and how they wait for one another.

    prepare(words)      `logpi COMMAND`, before torch is loaded: chooses what the user did not
    settle(4)           a job, when torch is there: so many threads from now on

Threads that spin while they wait are quick on an idle machine: nobody has to wake them. Beside a
busy neighbour they keep the core from the thread that they wait for. OpenMP reads
OMP_WAIT_POLICY once, when torch is loaded; so from Python only the number can be chosen, and the
policy by the environment that Python starts in. The user's OMP_NUM_THREADS, OMP_WAIT_POLICY and
--threads win. Left out: GPUs, and what changes while a run goes on (`runs/contention.py`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from logpi.distributed import number_of, ranks
from logpi.distributed.processors import Processors, processors

__all__ = [
    "MOST",
    "ThreadChoice",
    "choose",
    "chosen",
    "fitting",
    "own_number",
    "passive",
    "prepare",
    "settle",
    "shared",
]

# Neighbours that keep less than so much of a core busy are background noise.
QUIET = 0.5
# OpenMP's and MKL's variables of each kind: one that is set is the user's choice.
NUMBER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
POLICY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# What we chose ourselves, and why: child processes inherit it with the variables.
OURS = "LOGPI_THREADS"
# the most threads that anybody may ask for
MOST = 1024


@dataclass(frozen=True)
class ThreadChoice:
    """A choice of threads.

    Attributes:
        threads: of PyTorch. passive: they sleep while they wait. reason: in words.
    """

    threads: int
    passive: bool
    reason: str

    def environment(self) -> dict[str, str]:
        policy = {"OMP_WAIT_POLICY": "PASSIVE"} if self.passive else {}
        return {"OMP_NUM_THREADS": str(self.threads)} | policy


def choose(here: Processors, share: int = 1) -> ThreadChoice:
    """As many threads as can run at once beside the neighbours, for each of `share` processes.

    They sleep while they wait if neighbours are busy, or if a quota cuts the cores: a spinning
    thread spends the time that the others need.

        cores 2, nobody busy      2 threads, spinning
        cores 2, busy 1.0         1 thread, sleeping
        cores 8, quota 2.5        2 threads, sleeping
        cores 8, busy 0.3, share 2    4 threads each, spinning

    >>> choose(Processors(8, busy=2.9)).threads
    5
    """
    free = int(here.cores - here.busy + 0.5)
    threads = max(1, min(here.limit, free) // share)
    occupied, cut = here.busy >= QUIET, here.quota < here.cores
    facts = [f"{here.cores} cores" if here.cores > 1 else "one core"]
    facts += [f"a quota of {here.quota:.3g}"] if cut else []
    facts += [f"others keep {here.busy:.1f} busy"] if occupied else []
    facts += [f"{share} processes"] if share > 1 else []
    return ThreadChoice(threads, occupied or cut, ", ".join(facts))


def prepare(
    words: Sequence[str] = (),
    environ: MutableMapping[str, str] | None = None,
    here: Processors | None = None,
) -> None:
    """Put a choice into the environment, where the user made none; before torch is loaded.

    Args:
        words: of the command line; `--threads N` there is the user's choice.
        environ, here: for tests; default: the real ones.
    """
    env = os.environ if environ is None else environ
    if (environ is None and "torch" in sys.modules) or OURS in env:
        return
    asked = _asked(words)
    numbered, waits = (any(name in env for name in names) for names in (NUMBER, POLICY))
    if waits and (numbered or asked):
        return
    choice = choose(here or processors(), max(1, number_of("LOCAL_WORLD_SIZE", 1, env)))
    values = choice.environment()
    if asked:
        values["OMP_NUM_THREADS"] = asked
    if numbered:
        del values["OMP_NUM_THREADS"]
    if waits:
        values.pop("OMP_WAIT_POLICY", None)
    env.update(values)
    env[OURS] = _note(values, choice.reason)


def _asked(words: Sequence[str]) -> str:
    """The number after --threads, if it is one."""
    flat = [part for word in words for part in word.split("=", 1)]
    after = next((b for a, b in pairwise(flat) if a == "--threads"), "")
    return after if after.isdecimal() and 0 < int(after) <= MOST else ""


def _note(values: Mapping[str, str], reason: str) -> str:
    """The value of `OURS`: 'OMP_NUM_THREADS OMP_WAIT_POLICY|2 cores, others keep 1.0 busy'."""
    return f"{' '.join(values)}|{reason}"


def own_number(environ: Mapping[str, str] | None = None) -> bool:
    """Whether the user chose the number of threads by the environment."""
    return _own(NUMBER, os.environ if environ is None else environ)


def _own(names: Sequence[str], env: Mapping[str, str]) -> bool:
    ours = env.get(OURS, "").partition("|")[0].split()
    return any(name in env and name not in ours for name in names)


def shared(processes: int) -> dict[str, str]:
    """What to tell each of several processes of this machine; nothing if the user chose."""
    if processes == 1 or own_number():
        return {}
    choice = choose(processors(), processes)
    waits = _own(POLICY, os.environ)
    values = {k: v for k, v in choice.environment().items() if k in NUMBER or not waits}
    return values | {OURS: _note(values, choice.reason)}


def settle(threads: int) -> None:
    """PyTorch computes with so many threads from now on; 0: with as many as it does."""
    import torch

    if threads and threads != torch.get_num_threads():
        torch.set_num_threads(threads)


def chosen() -> str:
    """What was chosen and why, as a line; "" if there was nothing to choose."""
    import torch

    _, chose, reason = os.environ.get(OURS, "").partition("|")
    if not chose or ranks() > 1:
        return ""
    number, waits = torch.get_num_threads(), passive()
    threads = "1 thread"
    if number > 1:
        threads = f"{number} threads, which {'sleep' if waits else 'spin'} while they wait"
    return f"{threads} ({reason}; --threads N and OMP_WAIT_POLICY choose otherwise)"


def fitting() -> int:
    """The number that suits this machine now, where we chose one; else 0."""
    return 0 if own_number() else number_of("OMP_NUM_THREADS", 0)


def passive() -> bool:
    """Whether threads sleep while they wait."""
    return os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
