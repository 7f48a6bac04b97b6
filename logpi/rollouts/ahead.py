"""Batches sampled ahead: while the learner learns from one, a thread collects the next ones.

    K = 1       call 1           call 2              call 3
    learner     waits │ learns 1 │ waits │ learns 2  │ …
    thread      1 ─────│ 2 ──────────────│ 3 ─────────────── …
    weights     0                1 are sent          2 are sent    while rows are being sampled
    batch 2 has tokens of the weights 0 and 1, and is learned from by the weights 1

The first token of batch n is sampled when n − 1 − K updates have been made and sent, so no token is
older than K updates where the sampler has sent what it was told to send. What is older all the same
(a sampler of one's own) is `Stale`'s choice; what is not is corrected by the objective.

Left out: two batches at a time in the sampler, how a batch is made (`text_rollout.py`), how weights
travel (`engine/vllm`), importance weights (`objectives/policy_gradient.py`).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar, final

import torch
from torch import Tensor

from logpi.distributed.world import current
from logpi.engine.sampler import IndependentSampler
from logpi.errors import UserError
from logpi.types import Batch, Collected

if TYPE_CHECKING:
    from logpi.engine.sampler import Sampler
    from logpi.types import Rollout

__all__ = ["Ahead", "Correct", "Drop", "Refuse", "Stale"]

T = TypeVar("T")


class Stale(ABC):
    """What becomes of groups with a token that was sampled more than K updates ago."""

    @abstractmethod
    def __call__(self, batch: Batch, old: Tensor) -> Batch:
        """The batch to learn from; `old` [B] is True in the rows of such groups."""


@final
@dataclass(frozen=True)
class Correct(Stale):
    """They are learned from; the objective's importance weights correct for their age too."""

    def __call__(self, batch: Batch, old: Tensor) -> Batch:
        return batch


@final
@dataclass(frozen=True)
class Drop(Stale):
    """They are not learned from: their masks are empty."""

    def __call__(self, batch: Batch, old: Tensor) -> Batch:
        mask = batch.mask & ~old[:, None]
        own = {"reward": batch.reward * mask, "logp": batch.logp * mask}
        return replace(batch, mask=mask, **own)


@final
@dataclass(frozen=True)
class Refuse(Stale):
    """An error."""

    def __call__(self, batch: Batch, old: Tensor) -> Batch:
        if bool(old.any()):
            raise UserError(
                f"{int(old.sum())} of {len(batch)} rows are of groups with tokens older than the"
                " updates that --ahead allows: a larger --ahead, or --stale correct"
            )
        return batch


@dataclass(frozen=True)
class _Ready:
    """A batch that waits to be learned from, and the rollout's state after it."""

    collected: Collected
    state: Mapping[str, Any]

    def plain(self) -> dict[str, Any]:
        """The batch as tensors and text, for a checkpoint."""
        batch, collected = vars(self.collected.batch), self.collected
        return {
            "batch": {k: v for k, v in batch.items() if v is not None},
            "metrics": dict(collected.metrics),
            "samples": json.dumps(list(collected.samples), default=str),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any], state: Mapping[str, Any]) -> _Ready:
        batch, samples = Batch(**plain["batch"]), json.loads(plain["samples"])
        return cls(Collected(batch, plain["metrics"], samples), state)


@final
class Ahead:
    """A rollout whose batches are collected up to `k` ahead. A `logpi.types.Rollout`.

    Between two calls the policy is the learner's; during a call, and in `resting`, it stands still,
    and the sampler gets its weights. Every rank makes one at the same place; its thread talks to
    those of the others over a channel of their own. `close` it at the end, or use `with`.

    Args:
        rollout: makes the batches; nobody else may call it. k: ≥ 1.
        sampler: the one that it samples by.
        updates: number of updates that the policy has had.
        stale: what becomes of groups that are older than `k` updates all the same.
        total: batches in all; none is collected beyond them. None: without end.

    Raises:
        UserError: the sampler has no weights of its own. When a batch is taken: it does not say
            which weights sampled a token. What the rollout raises in the thread is raised in the
            call that wants the batch.
    """

    def __init__(
        self,
        rollout: Rollout,
        k: int,
        sampler: Sampler,
        updates: Callable[[], int],
        *,
        stale: Stale | None = None,
        total: int | None = None,
    ) -> None:
        if k < 1:
            raise ValueError(f"batches are collected at least 1 ahead, not {k}")
        self.sampler = independent(sampler)
        self.rollout, self.k, self.updates, self.total = rollout, k, updates, total
        self.stale = stale or Correct()
        self.world = current().channel()
        self.pending: deque[Future[_Ready]] = deque()
        # the rollout's state after the last batch that was taken
        self.state: Mapping[str, Any] = rollout.state_dict()
        # who holds it may read the policy; the learner does between calls
        self.policy, self.learning = Lock(), True
        self.policy.acquire()
        self.sampler.follow(self.policy)
        self.orders: SimpleQueue[Future[_Ready] | None] = SimpleQueue()
        # A program that forgets to close it ends all the same.
        self.thread = Thread(target=self._collect, name="ahead", daemon=True)
        self.thread.start()

    def __call__(self) -> Collected:
        with self._standing_still():
            due = self.k + 1
            if self.total is not None:
                due = max(1, min(due, self.total - self.updates()))
            while len(self.pending) < due:
                self.pending.append(Future())
                self.orders.put(self.pending[-1])
            batch = self.pending[0].result()
        self.pending.popleft()
        self.state = batch.state
        return self._aged(batch.collected)

    def resting(self, work: Callable[..., T]) -> Callable[..., T]:
        """`work` (an evaluation), done when all pending batches are: it may use the policy, the
        sampler and the rewards."""

        def rested(*arguments: Any, **keywords: Any) -> T:
            with self._standing_still():
                wait(self.pending)
                return work(*arguments, **keywords)

        return rested

    def close(self) -> None:
        """End the thread; the batches under way are lost."""
        self.sampler.abort()
        if self.learning:
            # the thread may wait for it
            self.learning = False
            self.policy.release()
        # No order is taken back: on all ranks the same batch fails at the same exchange.
        self.orders.put(None)
        self.thread.join()

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """The batches that are ready, and the rollout as it was after them: what is under way is
        collected again."""
        futures = takewhile(lambda f: f.done() and f.exception() is None, [*self.pending])
        batches = [future.result() for future in futures]
        state = batches[-1].state if batches else self.state
        return {"rollout": state, "pending": [b.plain() for b in batches]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        wait(self.pending)
        self.state = state["rollout"]
        self.rollout.load_state_dict(state["rollout"])
        self.pending.clear()
        for plain in state["pending"]:
            future: Future[_Ready] = Future()
            future.set_result(_Ready.of(plain, self.state))
            self.pending.append(future)

    @contextmanager
    def _standing_still(self) -> Iterator[None]:
        """The policy does not change in here; the sampler gets its weights first."""
        current().together(self.sampler.publish)
        self.learning = False
        self.policy.release()
        try:
            yield
        finally:
            self.policy.acquire()
            self.learning = True

    def _collect(self) -> None:
        """The thread: a batch for each order. After an error there are no more batches."""
        failure: BaseException | None = None
        with self.world.here():
            while (order := self.orders.get()) is not None:
                try:
                    if failure is None:
                        order.set_result(_Ready(self.rollout(), self.rollout.state_dict()))
                except BaseException as error:
                    failure = error
                if failure is not None:
                    order.set_exception(failure)

    def _aged(self, collected: Collected) -> Collected:
        """A batch that is learned from now, with its age in updates."""
        now, metrics = self.updates(), {**collected.metrics, **self.sampler.metrics()}
        if "version/mean" not in metrics:
            raise UserError(
                "the sampler does not say which weights sampled a token (`Completion.version`), so"
                " nothing is known of a batch's age: it cannot be sampled ahead"
            )
        for ours, theirs in (("mean", "mean"), ("max", "min")):
            metrics[f"staleness/{ours}"] = now - metrics[f"version/{theirs}"]
        old = _old_groups(collected.batch, collected.samples, now - self.k)
        batch = self.stale(collected.batch, old)
        emptied = collected.batch.mask.any(1) & ~batch.mask.any(1)
        metrics["staleness/dropped"] = float(len(batch.group[emptied].unique()))
        return Collected(batch, metrics, collected.samples)


def independent(sampler: Sampler) -> IndependentSampler:
    """The sampler, if it can sample while the policy changes. Raises UserError if not."""
    if not isinstance(sampler, IndependentSampler):
        raise UserError(
            "--ahead needs a sampler with weights of its own (--sampler vllm): our own decoder's"
            " are the learner's, which change while it learns"
        )
    return sampler


def _old_groups(batch: Batch, samples: Sequence[Mapping[str, Any]], oldest: int) -> Tensor:
    """[B] bool, rows of groups with a token of weights before `oldest`."""
    old = torch.tensor([s["version"][0] < oldest for s in samples], dtype=torch.bool)
    return torch.isin(batch.group, batch.group[old])
