"""Environments in several processes, for those whose step costs more than a message.

    envs = ProcessVectorEnvironment(single_environments, 2)

Each process has a block of the environments and steps it as `SyncVectorEnvironment` does; the first
process is this one. A step is one short message to each other process, and one back; actions,
states and rewards are in memory that all share. Seeds are drawn here, in the order of the
environments, so the rows are those of one process, bit for bit, and a run may go on with another
number. Processes are forked: any object can be an environment, and what it changes outside itself
stays in its process. A process that dies ends the run with one line. Left out: platforms without
`fork`, an environment's own vectorised form.

Two processes, four environments; d's episode ends at the second step:

    this process (a b)                        the other (c d)
    actions of c d  →  steps a b        ‖     steps c d   →  states, rewards, over
    actions of c d  →  steps a b        ‖     steps c d   →  … d is over
    draws d's seed  →  (a b go on)      ‖     resets d    →  first state
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.spaces import Box

from logpi.envs.control.vector import (
    DIFFERS,
    NextSeed,
    SyncVectorEnvironment,
    VectorEnvironment,
    VectorStep,
    drawn,
    notices,
)
from logpi.errors import UserError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    import gymnasium as gym

Array = np.ndarray
WORTH = 1e-3
"""Seconds of CPU: from such a step of all environments on, processes pay for their messages."""


class ProcessVectorEnvironment(VectorEnvironment):
    """See the module's docstring.

    Args:
        envs: single environments. processes: from 1 to their number, this one among them.
    Raises:
        UserError: too many processes; as `SyncVectorEnvironment`; later, a process died.
    """

    seeded = True

    def __init__(self, envs: Sequence[gym.Env], processes: int) -> None:
        if not 1 <= processes <= len(envs):
            raise UserError(
                f"{len(envs)} environments can be stepped by 1 to {len(envs)} processes, not"
                f" {processes}: set --env-processes, or more environments (--envs)"
            )
        whole = SyncVectorEnvironment(envs)
        self.n, self.observation, self.action = whole.n, whole.observation, whole.action
        self.masks, self.obs = whole.masks, whole.obs
        bounds = np.linspace(0, self.n, processes + 1).astype(int).tolist()
        self._blocks: list[tuple[int, int]] = list(pairwise(bounds))
        self.processes, self._asked = processes, 0
        self._memory = _Memory.of(self)
        self._workers: list[tuple[Any, Connection]] = []
        self._own, *others = [
            _Block(SyncVectorEnvironment(envs[a:b]), self._memory.part(a, b))
            for a, b in self._blocks
        ]
        for block in others:
            self._start(block)

    def _start(self, block: _Block) -> None:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        others = [ours, *(pipe for _, pipe in self._workers)]
        worker = context.Process(target=_serve, args=(block, theirs, others), daemon=True)
        worker.start()
        theirs.close()
        self._workers.append((worker, ours))

    def begin(self, next_seed: NextSeed) -> None:
        self._next_seed = next_seed
        self._restart(drawn(next_seed, range(self.n)))

    def step(self, action: Array, active: Array | None = None) -> VectorStep:
        self._memory.action[:] = self._acted(action)
        self._memory.active[:] = True if active is None else active
        self._ask("advance", [(active is not None,)] * self.processes)
        step = VectorStep(*(getattr(self._memory, x.name).copy() for x in fields(VectorStep)))
        self.obs, over = step.after, step.terminated | step.truncated
        if over.any():
            self._restart(drawn(self._next_seed, np.flatnonzero(over).tolist()))
        return step

    def _restart(self, seeds: dict[int, int]) -> None:
        """Begin new episodes, in the blocks that have some."""
        mine = [{i - a: seed for i, seed in seeds.items() if a <= i < b} for a, b in self._blocks]
        rows = self._ask("restart", [(x,) if x else None for x in mine])
        parts = zip(self._blocks, rows, strict=True)
        self.obs = np.concatenate([self.obs[a:b] if x is None else x for (a, b), x in parts])

    def _ask(self, method: str, arguments: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        """The blocks' answers; None is not asked."""
        self._asked += 1
        own, *others = arguments
        asked = list(zip([pipe for _, pipe in self._workers], others, strict=True))
        try:
            for pipe, x in asked:
                if x is not None:
                    pipe.send((self._asked, method, x))
            # what an environment raises is a UserError
            first = None if own is None else self._own.answer(method, own)
            rest = [None if x is None else self._answer(pipe) for pipe, x in asked]
        except (EOFError, OSError):
            raise UserError(self._dead()) from None
        for error in rest:
            if isinstance(error, Exception):
                raise error
        return [first, *rest]

    def _answer(self, pipe: Connection) -> Any:
        """The answer to the last question. Those to earlier ones, which Ctrl-C left, are
        dropped."""
        while True:
            number, answer = pipe.recv()
            if number == self._asked:
                return answer

    def _dead(self) -> str:
        """Which process died, and how."""
        said = "a process of the environments ended"
        for (a, b), (worker, _) in zip(self._blocks[1:], self._workers, strict=True):
            worker.join(0.2)
            if (code := worker.exitcode) is not None:
                how = f"by signal {-code}" if code < 0 else f"with code {code}"
                said = f"the process of environments {a} to {b - 1} ended {how}"
        return f"{said}: --env-processes 1 steps them in this one, and shows why"

    def state_dict(self) -> dict[str, Any]:
        """As `SyncVectorEnvironment`'s."""
        parts = self._ask("state_dict", [()] * self.processes)
        return {
            "seeds": [seed for p in parts for seed in p["seeds"]],
            "actions": [actions for p in parts for actions in p["actions"]],
            "obs": self.obs.copy(),
        }

    def load_state_dict(self, state: dict[str, Any], next_seed: NextSeed) -> None:
        self._next_seed = next_seed
        parts = [({k: x[a:b] for k, x in state.items()},) for a, b in self._blocks]
        self.obs = np.concatenate(self._ask("replay", parts))
        if not np.array_equal(self.obs, state["obs"]):
            notices.warning(DIFFERS)
            self.begin(next_seed)

    def close(self) -> None:
        self._end()
        self._own.envs.close()

    def _end(self) -> None:
        for _, pipe in self._workers:
            # Said, too: processes of other environments may hold this end of the pipe.
            with suppress(OSError):
                pipe.send(None)
            pipe.close()
        for worker, _ in self._workers:
            worker.join(5)
            if worker.is_alive():
                worker.kill()
        self._workers = []

    # `suppress` is kept here: when Python ends, the module's names may be gone.
    def __del__(self, suppress: Any = suppress) -> None:
        with suppress(Exception):
            self._end()


@dataclass(frozen=True)
class _Memory:
    """What parent and processes share: the actions of a step, which environments are `active`, and
    the fields of its `VectorStep`."""

    action: Array
    active: Array
    after: Array
    reward: Array
    terminated: Array
    truncated: Array
    real: Array

    @classmethod
    def of(cls, envs: VectorEnvironment) -> _Memory:
        dtype = envs.action.dtype if isinstance(envs.action, Box) else np.int64
        flags = ("active", "terminated", "truncated", "real")
        return cls(
            action=_shared((envs.n, *(envs.action.shape or ())), dtype),
            after=_shared(envs.obs.shape, envs.obs.dtype),
            reward=_shared((envs.n,), np.float32),
            **{flag: _shared((envs.n,), bool) for flag in flags},
        )

    def part(self, a: int, b: int) -> _Memory:
        return _Memory(*(getattr(self, x.name)[a:b] for x in fields(self)))


def _shared(shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros in memory that forked processes share; it is freed with the last array on it."""
    size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.frombuffer(mmap.mmap(-1, size), dtype, int(np.prod(shape))).reshape(shape)


@dataclass(frozen=True)
class _Block:
    """The environments of one process, and their part of the memory."""

    envs: SyncVectorEnvironment
    memory: _Memory

    def answer(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """To `advance`, or to another method of the environments."""
        return getattr(self if method == "advance" else self.envs, method)(*arguments)

    def advance(self, some: bool) -> None:
        """A step of all, or of `some` that are active. Actions are recorded, so they are copied."""
        active = self.memory.active.copy() if some else None
        step = self.envs.advance(self.memory.action.copy(), active)
        for x in fields(VectorStep):
            getattr(self.memory, x.name)[:] = getattr(step, x.name)


def _serve(block: _Block, pipe: Connection, others: list[Connection]) -> None:
    """Answers until the parent has no more questions, or is gone."""
    # Ctrl-C is the parent's; the other ends would keep a dead parent's pipes open.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for other in others:
        other.close()
    with suppress(EOFError, OSError):
        while (question := pipe.recv()) is not None:
            number, method, arguments = question
            try:
                answer = block.answer(method, arguments)
            except Exception as error:
                answer = error if isinstance(error, UserError) else UserError(str(error))
            pipe.send((number, answer))
    block.envs.close()
    os._exit(0)
