"""The decoder: prompts in, sampled token ids and their log-probabilities out, by the policy's own
weights.

Each call reads the weights as they are then. Log-probabilities are those of `policy.evaluate`
(float32: ~1e-5). `generation.py` decodes rows together. Models that keep their own attention decode
by their own `generate` (`fallback.py`), one turn a row. Left out: more than one process,
speculative decoding, replies of an environment (`rollouts/open_conversations.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from logpi.distributed.processors import has_bfloat16
from logpi.engine.cuda_graphs import Capture, CapturedSteps, cuda_graph
from logpi.engine.fallback import plain_generate
from logpi.engine.generation import Generation, Work
from logpi.engine.kv_cache import Cache
from logpi.engine.sampling import Completion, Request, Sampling, StopStrings, seeded

if TYPE_CHECKING:
    from logpi.engine.turns import OnTurnEnd
    from logpi.policies.causal_lm import CausalLM


class Engine:
    """Samples from a `CausalLM`. A `Sampler`.

    Args:
        policy: its weights are used as they are at each token.
        slots: most rows decoded at a time. The KV cache takes slots × (longest row) × layers × 2 ×
            Hkv × D numbers.
        capture: how steps are captured and replayed (default: by CUDA graphs on a GPU, elsewhere
            not at all).
        half: decode on the CPU by products of bfloat16, where a quick decoder serves the model;
            log-probabilities are then not the learner's.

    Raises:
        ValueError: fewer than one slot; `half` without a CPU that has instructions for it.
    """

    def __init__(
        self,
        policy: CausalLM,
        *,
        slots: int = 64,
        capture: Capture | None = None,
        half: bool = False,
    ) -> None:
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots}")
        if half:
            refuse_half(policy.device.type)
        self.half = half
        self.policy, self.slots = policy, slots
        self.cache = Cache()
        capture = capture or (cuda_graph if policy.device.type == "cuda" else None)
        # a captured step has no extents
        extents = policy.ropes is not None
        self.captured = CapturedSteps(slots, capture) if capture and not extents else None
        self._stops: dict[tuple[str, ...], StopStrings] = {}

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling | None = None,
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
        on_turn_end: OnTurnEnd | None = None,
    ) -> list[list[Completion]]:
        """As `Sampler.generate`.

        What a row samples depends on its seed and the weights, not on the number of slots or on
        the other requests of the call.

        Raises:
            ValueError: an empty prompt, or one that leaves no room in the model's context;
                `on_turn_end` for a model that keeps its own attention.
            MemoryError: the cache does not fit; use fewer slots.
            FloatingPointError: the model's logits are not numbers.
        """
        sampling, requests = sampling or Sampling(), seeded(requests, generator)
        limits = [token_limit(i, r, sampling, self.policy) for i, r in enumerate(requests)]
        model, was_training = self.policy.model, self.policy.model.training
        model.eval()
        try:
            seeds = torch.tensor([s for r in requests for s in r.seeds])
            if not self.policy.packed:
                return self._plain(requests, limits, sampling, seeds, progress, on_turn_end)
            finder = self._finder(sampling.stop)
            work = Work(requests, limits, sampling, seeds, finder, progress, on_turn_end)
            with torch.inference_mode():
                own = self.policy, self.cache, self.captured, self.slots, self.half
                generation = Generation(work, *own)
                generation.run()
            return generation.completions()
        except BaseException:
            # the cache may hold NaN
            self.cache = Cache()
            if self.captured is not None:
                self.captured.steps.clear()
            raise
        finally:
            model.train(was_training)

    def _plain(
        self, requests, limits, sampling, seeds, progress, on_turn_end
    ) -> list[list[Completion]]:
        """The model's own `generate`, which cannot continue a row."""
        if on_turn_end is not None:
            name = f"{type(self.policy.model).__name__} keeps its own attention"
            raise ValueError(f"{name} and cannot go on after a tool's reply: use another model")
        return plain_generate(self.policy, requests, limits, sampling, seeds, progress)

    def _finder(self, stop: tuple[str, ...]) -> StopStrings | None:
        """Finds these strings; made once, and None without strings."""
        if stop and stop not in self._stops:
            self._stops[stop] = StopStrings(stop, self.policy.tokenizer, self.policy.vocabulary)
        return self._stops.get(stop)


def refuse_half(device: str) -> None:
    """Raises ValueError where products of bfloat16 are not quicker than those of float32."""
    if device != "cpu":
        raise ValueError(
            f"the decoder's own bfloat16 is the CPU's: on {device} give all weights 16 bits, with"
            " --dtype bfloat16"
        )
    if not has_bfloat16():
        raise ValueError(
            "this CPU has no instructions for bfloat16 (AMX or AVX512-BF16), so it decodes quicker"
            " in float32: leave --sampler-dtype out"
        )


def token_limit(number: int, request: Request, sampling: Sampling, policy: CausalLM) -> int:
    """Tokens that a row of this request may sample. Raises ValueError if it cannot be sampled."""
    length, context = len(request.prompt), policy.context
    if length == 0:
        raise ValueError(
            f"prompt {number} is empty: a model needs at least one token (its BOS, say) to go on"
            " from"
        )
    if length >= context:
        raise ValueError(
            f"prompt {number} has {length} tokens, the model's context is {context}: shorten the"
            " prompt"
        )
    limit = sampling.max_tokens if request.max_tokens is None else request.max_tokens
    if limit < 1:
        raise ValueError(f"request {number} has max_tokens={limit}; ask for at least 1")
    return min(limit, policy.reach(length) - length)
