"""Steps of decoding that are captured once and replayed: on a GPU a small model's step is mostly
Python and the launching of kernels.

A captured step is of fixed tensors: so many rows, so many columns of the cache. Both are rounded
up, so that a few captures serve a whole run. Rows that fill up write their keys into a spare slot
of the cache, and nobody reads them; columns that are not there yet are masked. A captured step
holds while cache and weights stay where they are in memory; the next replay sees what is changed in
place.

A step is captured if its first replay gives the numbers of the step itself. Left out: sampling
from the logits, prompts and replies (their shapes seldom come twice).

`cuda_graph` is **untried**: there was no GPU. Everything else is tested on a CPU, with traced
tensor operations in its place.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache as once
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logpi.engine.kv_cache import Cache, DecodeStep
from logpi.policies.fast.probe import KERNEL, agree

if TYPE_CHECKING:
    from logpi.engine.shared_prompts import Forward
    from logpi.policies.causal_lm import CausalLM

# columns of the cache: captures are of multiples
COLUMNS = 256
# rows up to which captures are of powers of two; beyond, of multiples
FEW = 32

Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], Any], Tensor]]
"""Takes a function of tensors that stay where they are. Returns what runs it again, and the tensor
that then holds its result."""


def cuda_graph(run: Callable[[], Tensor]) -> tuple[Callable[[], Any], Tensor]:
    """A `Capture` by CUDA graphs. Before it, libraries choose kernels and make buffers in two
    runs."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # threads of tools and rewards may use the GPU meanwhile
    with torch.cuda.graph(graph, pool=_pool(), capture_error_mode="thread_local"):
        result = run()
    return graph.replay, result


# one memory for all graphs: a result is read before the next replay
_pool = once(torch.cuda.graph_pool_handle)


def again(run: Callable[[], Tensor]) -> tuple[Callable[[], Any], Tensor]:
    """A `Capture` that captures nothing: each replay runs the function."""
    result = run().clone()
    return lambda: result.copy_(run()), result


@dataclass(frozen=True)
class _CapturedStep:
    """A step that can be replayed.

    Attributes:
        token, position, slot: [rows] its inputs, to be written before a replay.
        replay: runs it. result: [rows, d] its output.
    """

    token: Tensor
    position: Tensor
    slot: Tensor
    replay: Callable[[], Any]
    result: Tensor


class CapturedSteps:
    """The captured steps of an engine.

    Args:
        slots: of the engine; the cache gets a spare one behind them. capture: see `Capture`.
    """

    def __init__(self, slots: int, capture: Capture) -> None:
        self.slots, self.capture = slots, capture
        # by rows and columns
        self.steps: dict[tuple[int, int], _CapturedStep] = {}
        self._weights: object = None
        self._cache: object = None

    def begin(self, policy: CausalLM) -> None:
        """Forget captures if weights have moved in memory, or adapters were switched."""
        weights = _addresses(policy)
        if weights != self._weights:
            self.steps.clear()
            self._weights = weights

    def hidden(self, forward: Forward, step: DecodeStep, token: Tensor, most: int) -> Tensor:
        """[n, d] as `forward.hidden` for the step's rows and their tokens [n]; to be read before
        the next call.

        most: columns that the cache will ever need.
        """
        # Three live rows, 5 slots, the longest row has 300 columns: captured are 4 rows of 512.
        #
        #     token      t0 t1 t2  ?    the last is whatever stood there
        #     position   p0 p1 p2  ?
        #     slot        0  1  2  5    slot 5 is the spare one
        rows, columns = _rows(len(token), self.slots), -(-step.length // COLUMNS) * COLUMNS
        cache = step.cache
        cache.reserve(self.slots + 1, columns, most)
        if self._cache != (cache, cache.grown):
            self.steps.clear()
            self._cache = cache, cache.grown
        captured = self.steps.get((rows, columns))
        if captured is not None:
            inputs = [captured.token, captured.position, captured.slot]
        else:
            inputs = [token.new_zeros(rows) for _ in range(3)]
        inputs[2].fill_(self.slots)
        for buffer, new in zip(inputs, (token, step.position, step.slot), strict=True):
            buffer[: len(token)] = new
        if captured is None:
            captured = self.steps[rows, columns] = self._captured(forward, cache, columns, *inputs)
        captured.replay()
        return captured.result[: len(token)]

    def _captured(
        self,
        forward: Forward,
        cache: Cache,
        columns: int,
        token: Tensor,
        position: Tensor,
        slot: Tensor,
    ) -> _CapturedStep:
        """The captured step of these inputs; where capturing fails, a step that is run each time,
        and a warning."""

        def run() -> Tensor:
            step = DecodeStep(cache, slot, position, columns, exact=False)
            return forward.hidden(step, token, position)

        try:
            expected = run().clone()
            replay, result = self.capture(run)
            replay()
            if not agree(result, expected, KERNEL):
                raise RuntimeError("a replay finds other numbers")
            return _CapturedStep(token, position, slot, replay, result)
        except RuntimeError as error:
            cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.warn(
                f"steps of this model cannot be recorded, so decoding is slower: {cause}",
                stacklevel=2,
            )
            self.capture = again
            return _CapturedStep(token, position, slot, *again(run))


def _rows(n: int, slots: int) -> int:
    """Rows of the captured step that n rows use.

    >>> [_rows(n, 100) for n in (1, 3, 32, 33, 70, 99)]
    [1, 4, 32, 64, 96, 100]
    """
    return min(slots, 1 << (n - 1).bit_length() if n <= FEW else -(-n // FEW) * FEW)


def _addresses(policy: CausalLM) -> tuple[object, ...]:
    """Where in memory the weights are, and which adapters are at work."""
    adapted: list[Any] = [m for m in policy.modules() if "lora_A" in m._modules]
    switches = [(m.disable_adapters, m.merged, *m.active_adapters) for m in adapted]
    return *(p.data_ptr() for p in policy.parameters()), *switches
