"""The ranks of a run: every process holds the same batch, and they share the work on it.

    world = current()                          # alone, unless torchrun, say, started several
    results = world.split(items, work, shares) # each rank does some items; all hold every result
    world.sum(gradients)                       # in place; the same bits on every rank

There is no controller: every rank runs the same program, and what is decided is decided from the
same numbers. A world of one process does the work itself, so nobody asks how many there are.

Two groups keep a slow rank apart from a dead one. *Data* (objects, and tensors on the CPU) go over
gloo with a long time-out, for sampling takes long; *weights* go over the device's own backend
(NCCL on GPUs) with a short one. `LOGPI_DATA_TIMEOUT` and `LOGPI_WEIGHTS_TIMEOUT` set them, in
seconds.

Objects travel between the processes of one run by torch's `gather_object`, which pickles; nothing
that comes from a file or a stranger is unpickled. Left out: who starts the processes (`launch.py`,
torchrun, SLURM), which rank gets which piece (`dealing.py`), weights in shards (`sharding.py`).
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from logpi.distributed import rank, ranks
from logpi.errors import RunError, SamplerLost, UserError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

__all__ = ["TOLD", "World", "alone", "current", "is_sharded", "joined", "leave"]

T = TypeVar("T")
R = TypeVar("R")

# of an error that other ranks know of
TOLD = "told_to_all_ranks"
# Seconds until a rank is given up: six hours of sampling, ten minutes of exchanging weights.
TIMEOUTS = {"LOGPI_DATA_TIMEOUT": 6 * 3600.0, "LOGPI_WEIGHTS_TIMEOUT": 600.0}


@dataclass(frozen=True)
class _Failure:
    """What went wrong on a rank, as it is told to the others."""

    rank: int
    text: str
    code: int
    kind: type[UserError]

    def error(self) -> UserError:
        error = self.kind(f"rank {self.rank}: {self.text}")
        error.code = self.code
        return error


class World:
    """The processes of this run, as one of them sees it.

    Attributes:
        rank: this process, from 0. size: their number.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._data: Any = None  # torch's group of all ranks over gloo; None when alone

    def __repr__(self) -> str:
        return f"World(rank {self.rank} of {self.size})"

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    # --- objects ---

    def gather(self, value: T, what: str = "exchanging results") -> list[T]:
        """Everybody's value, by rank; the same list on every rank.

        Raises:
            RunError: another rank is gone, does not answer, or exchanges something else.
        """
        if self.size == 1:
            return [value]
        from torch.distributed import all_gather_object

        messages: list[Any] = [None] * self.size
        with _named(what):
            all_gather_object(messages, (what, value), group=self._data)
        for number, (other, _) in enumerate(messages):
            if other != messages[0][0]:
                raise RunError(
                    f"rank 0 is {messages[0][0]} and rank {number} is {other}: every rank must do"
                    " the same, also between the steps of a loop (did one leave it, or raise?)"
                )
        return [value for _, value in messages]

    def broadcast(self, value: T | None = None) -> T:
        """The first rank's value, on every rank."""
        if self.size == 1:
            return value  # type: ignore[return-value]
        from torch.distributed import broadcast_object_list

        values = [value if self.first else None]
        with _named("waiting for rank 0"):
            broadcast_object_list(values, src=0, group=self._data)
        return values[0]  # type: ignore[return-value]

    def together(self, work: Callable[[], R]) -> R:
        """What `work` returns here. If it raises on one rank, all ranks raise; none but `work`'s
        own exchanges may be under way then."""
        if self.size == 1:
            return work()
        failure, cause, result = None, None, None
        try:
            result = work()
        except Exception as error:
            cause, failure = error, _failure(self.rank, error)
        outcomes = self.gather(failure, "ending a piece of work")
        failures = [f for f in outcomes if f is not None]
        if failures:
            error = cause or failures[0].error()
            # the first rank says it for all
            setattr(error, TOLD, True)
            raise error
        return result  # type: ignore[return-value]

    def each(self, work: Callable[[], R]) -> list[R]:
        """What `work` returns on every rank, by rank. Errors as of `together`."""
        return self.gather(self.together(work))

    def by_first(self, work: Callable[[], R]) -> R:
        """What `work` returns on the first rank, which alone does it. Errors as of `together`."""
        result = self.together(lambda: work() if self.first else None)
        return self.broadcast(result)  # type: ignore[return-value]

    # --- numbers ---

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Add tensors up over the ranks, in place: the same bits on every rank.

        Tensors on the CPU go over gloo, others over their device's backend.
        """
        if self.size == 1 or not tensors:
            return
        import torch
        from torch.distributed import all_reduce

        # Many small tensors travel as one vector for each precision and device.
        kinds: dict[tuple[Any, ...], list[Tensor]] = {}
        for x in tensors:
            kinds.setdefault((x.dtype, x.device), []).append(x)
        for (_, device), some in kinds.items():
            flat = torch.cat([x.detach().reshape(-1) for x in some])
            with _named("adding up gradients"):
                all_reduce(flat, group=self._data if device.type == "cpu" else None)
            for x, piece in zip(some, flat.split([x.numel() for x in some]), strict=True):
                x.detach().copy_(piece.view_as(x))

    def max(self, number: float) -> float:
        """The largest of everybody's numbers."""
        return max(self.gather(number, "comparing numbers"))

    def same(self, values: Mapping[str, Iterable[Any]]) -> None:
        """Raises RunError on every rank if the ranks hold different values.

        Args:
            values: by name, tensors or what prints itself.
        """
        if self.size == 1:
            return
        mine = {name: _digest(some) for name, some in values.items()}
        digests = self.gather(mine, "comparing what it learns from")
        for number, digest in enumerate(digests):
            odd = [name for name in values if digest[name] != digests[0][name]]
            if odd:
                raise RunError(
                    f"rank {number} and rank 0 disagree about {odd[0]}, so the run would drift"
                    " apart: data, rewards and seeds must be the same on every rank"
                )

    # --- work ---

    def split(
        self,
        items: Sequence[T],
        work: Callable[[list[T]], Sequence[R]],
        shares: Sequence[Sequence[int]],
    ) -> list[R]:
        """What `work` makes of the items, one result for each, in their order, on every rank.

        Args:
            work: called once on each rank with its items (perhaps none).
            shares: the numbers of each rank's items (`dealing`).
        Raises:
            RunError: `work` raised on another rank.
        """
        mine = [items[i] for i in shares[self.rank]]
        results = self.each(lambda: list(work(mine)))
        out: list[Any] = [None] * len(items)
        for share, some in zip(shares, results, strict=True):
            for i, result in zip(share, some, strict=True):
                out[i] = result
        return out

    def channel(self) -> World:
        """The same ranks over a group of their own, for a thread that talks while another does."""
        other = World(self.rank, self.size)
        other._data = _gloo() if self.size > 1 else None
        return other

    @contextmanager
    def here(self) -> Iterator[None]:
        """In here it is the `current` world of this thread, and of no other."""
        before = getattr(_of_thread, "world", None)
        _of_thread.world = self
        try:
            yield
        finally:
            _of_thread.world = before


def is_sharded(tensor: Tensor) -> bool:
    """Whether this rank holds only a part of it."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


alone = World()
_current: World | None = None
_of_thread = threading.local()


def current() -> World:
    """The world of this process, or the one that this thread is in (`World.here`); the first call
    joins it.

    Raises:
        RunError: the other processes cannot be reached.
    """
    global _current
    if (world := getattr(_of_thread, "world", None)) is not None:
        return world
    if _current is None:
        _current = _join() if ranks() > 1 else alone
    return _current


def joined() -> bool:
    """Whether this process knows the others: before, all do and say the same."""
    return _current is not None


def leave() -> None:
    """End the exchange with the other ranks, as the last thing that a process does: gloo's threads
    may abort a process that ends under them."""
    global _current
    if joined() and current().size > 1:
        from torch.distributed import destroy_process_group

        with suppress(RuntimeError, ValueError):
            destroy_process_group()
    _current = None


def _join() -> World:
    import torch
    import torch.distributed as dist

    if not os.environ.get("RANK", "").isdecimal():
        raise RunError("WORLD_SIZE is set and RANK is not: start several processes with torchrun")
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        here = os.environ.get("LOCAL_RANK", "0")
        torch.cuda.set_device(int(here) % torch.cuda.device_count())
    if not dist.is_initialized():
        try:
            dist.init_process_group(backend, timeout=_timeout("LOGPI_WEIGHTS_TIMEOUT"))
        except (RuntimeError, ValueError, OSError) as error:
            where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
            raise RunError(f"the ranks cannot meet at {where}: {one_line(error)[:200]}") from None
    world = World(rank(), ranks())
    world._data = _gloo()
    return world


def _gloo() -> Any:
    from torch.distributed import new_group

    return new_group(backend="gloo", timeout=_timeout("LOGPI_DATA_TIMEOUT"))


def _timeout(name: str) -> timedelta:
    text = os.environ.get(name)
    try:
        seconds = TIMEOUTS[name] if text is None else float(text)
    except ValueError:
        raise UserError(f"{name} is a number of seconds, not {text!r}") from None
    return timedelta(seconds=seconds)


@contextmanager
def _named(what: str) -> Iterator[None]:
    """A broken connection as one line: the rank that broke it says why itself."""
    try:
        yield
    except RuntimeError as error:
        text = one_line(error)
        late = "timed out" in text.lower() or "timeout" in text.lower()
        why = (
            "does not answer in time: it hangs, or needs longer than LOGPI_DATA_TIMEOUT (for"
            " weights LOGPI_WEIGHTS_TIMEOUT) allows"
            if late
            else "is gone; its own message says more"
        )
        raise RunError(
            f"another rank {why} (this one was {what}). What was saved can be resumed: start the"
            " same command again"
        ) from error


def _failure(rank: int, error: Exception) -> _Failure:
    named = isinstance(error, UserError | OSError | ValueError)
    text = one_line(error) if named else f"{type(error).__name__}: {one_line(error)}"
    code = error.code if isinstance(error, UserError) else 2
    # the one that a loop does more about than to end
    kind = SamplerLost if isinstance(error, SamplerLost) else RunError
    return _Failure(rank, text[:500], code, kind)


def _digest(values: Iterable[Any]) -> str:
    import torch

    state = hashlib.blake2b(digest_size=16)
    for value in values:
        if isinstance(value, torch.Tensor):
            plain = value.detach().cpu().contiguous()
            state.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
            state.update(plain.view(-1).view(torch.uint8).numpy().tobytes())
        else:
            state.update(repr(value).encode())
    return state.hexdigest()
