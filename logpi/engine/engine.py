"""The decoder: prompts in, sampled token ids and their log-probabilities out, on the policy's own
weights.

Weights are those of the moment, so the next call sees an update. Log-probabilities are those of
`policy.evaluate` (float32: ~1e-5). How rows are decoded together is in `generation.py`. Left out:
more than one process, speculative decoding, what an environment replies
(`rollouts/open_conversations.py`). Models that keep their own attention are decoded by their own
`generate` (`fallback.py`), one turn a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from logpi.engine.cuda_graphs import Capture, CapturedSteps, cuda_graph
from logpi.engine.fallback import plain_generate
from logpi.engine.generation import Generation, Work
from logpi.engine.kv_cache import Cache
from logpi.engine.sampling import Completion, Request, Sampling, StopStrings

if TYPE_CHECKING:
    from logpi.engine.turns import OnTurnEnd
    from logpi.policies.causal_lm import CausalLM

SEEDS = 2**63 - 1


class Engine:
    """Samples from a `CausalLM`. A `Sampler`.

    Args:
        policy: whose weights are used, as they are at each token.
        slots: rows that may be decoded at a time. The cache takes slots × (longest row) × layers ×
            2 × Hkv × D numbers.
        capture: how steps are captured and replayed (default: by CUDA graphs on a GPU, elsewhere
            not at all).

    Raises:
        ValueError: fewer than one slot.
    """

    def __init__(
        self, policy: CausalLM, *, slots: int = 64, capture: Capture | None = None
    ) -> None:
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots}")
        self.policy, self.slots = policy, slots
        self.cache = Cache()
        capture = capture or (cuda_graph if policy.device.type == "cuda" else None)
        # a captured step knows no extents
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
        *,
        seeds: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """As `Sampler.generate`.

        The generator gives one seed for each row (`row_seeds`). What a row samples depends on its
        seed and the weights, not on the number of slots or on the other requests of the call.

        Raises:
            ValueError: an empty prompt, or one that leaves no room in the model's context;
                `on_turn_end` for a model that keeps its own attention.
            MemoryError: the cache does not fit; use fewer slots.
            FloatingPointError: the model's logits are not numbers.
        """
        sampling = sampling or Sampling()
        limits = [token_limit(i, r, sampling, self.policy) for i, r in enumerate(requests)]
        own_seeds = row_seeds(requests, generator) if seeds is None else torch.tensor(seeds)
        model, was_training = self.policy.model, self.policy.model.training
        model.eval()
        try:
            if not self.policy.packed:
                return self._plain(requests, limits, sampling, own_seeds, progress, on_turn_end)
            finder = self._finder(sampling.stop)
            work = Work(requests, limits, sampling, own_seeds, finder, progress, on_turn_end)
            with torch.inference_mode():
                generation = Generation(work, self.policy, self.cache, self.captured, self.slots)
                generation.run()
            return generation.completions()
        except BaseException:
            # what the cache holds may not be numbers
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
        return plain_generate(self.policy, requests, limits, sampling, seeds.tolist(), progress)

    def _finder(self, stop: tuple[str, ...]) -> StopStrings | None:
        """The finder of these strings, made once; None if there are none."""
        if stop and stop not in self._stops:
            self._stops[stop] = StopStrings(stop, self.policy.tokenizer, self.policy.vocabulary)
        return self._stops.get(stop)


def row_seeds(requests: Sequence[Request], generator: torch.Generator | None) -> torch.Tensor:
    """[rows] a seed for each row, on the CPU; the next ones of the generator (None: torch's global
    one)."""
    rows = sum(r.n for r in requests)
    device = generator.device if generator is not None else "cpu"
    return torch.randint(SEEDS, (rows,), generator=generator, device=device).cpu()


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
    if request.n < 1:
        raise ValueError(f"request {number} asks for n={request.n} samples; ask for at least 1")
    limit = sampling.max_tokens if request.max_tokens is None else request.max_tokens
    if limit < 1:
        raise ValueError(f"request {number} has max_tokens={limit}; ask for at least 1")
    return min(limit, policy.reach(length) - length)
