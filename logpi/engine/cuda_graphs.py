"""Steps of decoding that are recorded once and replayed: on a GPU a small model's step is mostly
Python and the launching of kernels.

A recording is of fixed tensors: so many rows, so many columns of the cache. Both are rounded up, so
a few recordings serve a whole run. Rows that fill up write their keys into a spare slot of the
cache and are not read; columns that are not there yet are masked. Recordings hold while cache and
weights stay where they are in memory; what is changed in place is seen by the next replay.

What can be recorded is found by trying: a first replay that finds other numbers than the step
itself is not used.

Left out: sampling from the logits, prompts and replies (their shapes seldom come twice).

`cuda_graph` is **untried**: there was no GPU. All else is tested on a CPU, with recorded tensor
operations in its place.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache as once
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logpi.engine.kv_cache import Cache, Step
from logpi.policies.fast.probe import KERNEL, agree

if TYPE_CHECKING:
    from logpi.engine.shared_prompts import Forward
    from logpi.policies.causal_lm import CausalLM

COLUMNS = 256  # of the cache: recordings are of multiples
FEW = 32  # rows up to which recordings are of powers of two; beyond, of multiples

Record = Callable[[Callable[[], Tensor]], tuple[Callable[[], Any], Tensor]]
"""Given a function of tensors that stay where they are: what runs it again, and the tensor that
then holds its result."""


def cuda_graph(run: Callable[[], Tensor]) -> tuple[Callable[[], Any], Tensor]:
    """A `Record` by CUDA graphs. Two runs before it let libraries choose their kernels and make
    their buffers."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # tools and rewards have threads of their own, which may use the GPU meanwhile
    with torch.cuda.graph(graph, pool=_pool(), capture_error_mode="thread_local"):
        result = run()
    return graph.replay, result


@once
def _pool() -> Any:
    """One memory for all recordings: a result is read before the next replay."""
    return torch.cuda.graph_pool_handle()


def again(run: Callable[[], Tensor]) -> tuple[Callable[[], Any], Tensor]:
    """A `Record` of what cannot be recorded: it is run."""
    result = run().clone()
    return lambda: result.copy_(run()), result


@dataclass(frozen=True)
class _Recording:
    """The inputs of a step, [rows] each, to be written before a replay; its result [rows, d]."""

    token: Tensor
    position: Tensor
    row: Tensor
    replay: Callable[[], Any]
    result: Tensor


class Recorded:
    """The steps of an engine.

    Args:
        slots: of the engine; the cache gets a spare one behind them. record: see `Record`.
    """

    def __init__(self, slots: int, record: Record) -> None:
        self.slots, self.record = slots, record
        self.known: dict[tuple[int, int], _Recording] = {}
        self._weights: object = None
        self._cache: object = None

    def begin(self, policy: CausalLM) -> None:
        """Forget what was recorded of weights that have moved in memory, or of adapters that were
        switched since."""
        weights = _places(policy)
        if weights != self._weights:
            self.known.clear()
            self._weights = weights

    def hidden(self, forward: Forward, step: Step, token: Tensor, most: int) -> Tensor:
        """[n, d] as `forward.hidden` for the step's rows and their tokens [n]; to be read before
        the next call.

        most: columns that the cache will ever need.
        """
        rows, columns = _rows(len(token), self.slots), -(-step.length // COLUMNS) * COLUMNS
        cache = step.cache
        cache.reserve(self.slots + 1, columns, most)
        if self._cache != (cache, cache.grown):
            self.known.clear()
            self._cache = cache, cache.grown
        made = self.known.get((rows, columns))
        inputs = (
            (made.token, made.position, made.row)
            if made
            else [token.new_zeros(rows) for _ in range(3)]
        )
        inputs[2].fill_(self.slots)
        for mine, given in zip(inputs, (token, step.position, step.row), strict=True):
            mine[: len(token)] = given
        if made is None:
            made = self.known[rows, columns] = self._made(forward, cache, columns, *inputs)
        made.replay()
        return made.result[: len(token)]

    def _made(
        self,
        forward: Forward,
        cache: Cache,
        columns: int,
        token: Tensor,
        position: Tensor,
        row: Tensor,
    ) -> _Recording:
        def run() -> Tensor:
            return forward.hidden(Step(cache, row, position, columns, exact=False), token, position)

        try:
            wanted = run().clone()
            replay, result = self.record(run)
            replay()
            if not agree(result, wanted, KERNEL):
                raise RuntimeError("a replay finds other numbers")
            return _Recording(token, position, row, replay, result)
        except RuntimeError as error:
            cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.warn(
                f"steps of this model cannot be recorded, so decoding is slower: {cause}",
                stacklevel=2,
            )
            self.record = again
            return _Recording(token, position, row, *again(run))


def _rows(n: int, slots: int) -> int:
    """Rows of the recording that n rows use.

    >>> [_rows(n, 100) for n in (1, 3, 32, 33, 70, 99)]
    [1, 4, 32, 64, 96, 100]
    """
    return min(slots, 1 << (n - 1).bit_length() if n <= FEW else -(-n // FEW) * FEW)


def _places(policy: CausalLM) -> tuple[object, ...]:
    """Where in memory the weights are, and which adapters are at work."""
    adapted: list[Any] = [m for m in policy.modules() if "lora_A" in m._modules]
    switches = [(m.disable_adapters, m.merged, *m.active_adapters) for m in adapted]
    return *(p.data_ptr() for p in policy.parameters()), *switches
