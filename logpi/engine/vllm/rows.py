"""The rows of one call, and what the policy itself says of them.

Left out: where they are sampled (`sampler.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from logpi.engine.sampling import SEEDS, Completion, Request, Sampling
from logpi.types import Batch

if TYPE_CHECKING:
    from logpi.engine.vllm.client import Answer
    from logpi.engine.vllm.server import Server
    from logpi.policies.causal_lm import CausalLM

# of a stream of seeds: 2⁶⁴ divided by the golden ratio
STEP = 0x9E3779B97F4A7C15
# rows that the policy evaluates at a time
EVALUATED = 8


@dataclass
class Row:
    """A row on its way.

    Attributes:
        number, request: its own and its request's number in the call.
        seed, greedy: how it is drawn.
        ids: its prompt, turns and observations so far. own: which of them the policy sampled.
        left: tokens that it may still sample. reach: tokens that it may have in all.
        logp, versions: of the own tokens, in order. turns: that have ended. stop: why it ended.
        server: who samples it now, or None. tries: of its turn; failures: of all.
    """

    number: int
    request: int
    seed: int
    greedy: bool
    ids: list[int]
    own: list[bool]
    left: int
    reach: int
    logp: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    turns: int = 0
    stop: str = ""
    server: Server | None = None
    tries: int = 0
    failures: int = 0

    @property
    def turn_seed(self) -> int:
        """Of its next turn. A turn that is sampled again has the same."""
        return (self.seed + self.turns * STEP) % SEEDS

    def add(self, answer: Answer, versions: Sequence[int], ends: Sequence[int]) -> None:
        """A turn that was sampled. `ends`: tokens that end a text.

        Raises:
            FloatingPointError: the model's logits are not numbers.
        """
        # vLLM writes −9999 where a probability is 0 or no number
        if not all(-9000 < x <= 1e-3 for x in answer.logp):
            raise FloatingPointError(
                "the model's logits are not numbers (NaN or infinite): the weights have diverged"
            )
        self.ids += answer.tokens
        self.own += [True] * len(answer.tokens)
        self.logp += answer.logp
        self.versions += versions
        self.left -= len(answer.tokens)
        self.turns += 1
        self.stop = "eos" if answer.tokens[-1] in ends else answer.finish

    def read(self, observation: Sequence[int]) -> None:
        """What the environment said."""
        self.ids += observation
        self.own += [False] * len(observation)
        self.left = min(self.left, self.reach - len(self.ids))

    def completion(self) -> Completion:
        tokens = [t for t, own in zip(self.ids, self.own, strict=True) if own]
        logp, versions = torch.tensor(self.logp), torch.tensor(self.versions)
        return Completion(torch.tensor(tokens), logp, self.stop, versions)


def rows_of(requests: Sequence[Request], limits: Sequence[int], reach: Sequence[int]) -> list[Row]:
    """One for each sample of each request, which have seeds, numbered
    through."""
    seeds = [(i, seed) for i, r in enumerate(requests) for seed in r.seeds]
    return [
        Row(
            number,
            i,
            seed,
            requests[i].greedy,
            list(requests[i].prompt),
            [False] * len(requests[i].prompt),
            limits[i],
            reach[i],
        )
        for number, (i, seed) in enumerate(seeds)
    ]


def settings(row: Row, sampling: Sampling, policy: CausalLM) -> dict[str, Any]:
    """vLLM's sampling parameters for a row's next turn. What ends it is the policy's choice, not
    the server's."""
    temperature = 0.0 if row.greedy else sampling.temperature or policy.temperature
    return {
        "max_tokens": row.left,
        "temperature": temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": row.turn_seed,
        "logprobs": 0,
        "ignore_eos": True,
        "stop_token_ids": [i for i in policy.eos_ids if i < policy.vocabulary],
        "stop": list(sampling.stop),
        # stop strings may be spelled by special tokens, as in our own decoder
        "skip_special_tokens": False,
    }


@torch.no_grad()
def own_logp(policy: CausalLM, rows: Sequence[Row]) -> list[Tensor]:
    """[t] nats of each row's own tokens, as the policy of the moment has them."""
    out: list[Tensor] = []
    for begin in range(0, len(rows), EVALUATED):
        batch = _batch(rows[begin : begin + EVALUATED])
        logp = policy.evaluate(batch).logp.cpu().float()
        out += [values[mask] for values, mask in zip(logp, batch.mask, strict=True)]
    return out


def _batch(rows: Sequence[Row]) -> Batch:
    """The rows to be evaluated; they have no rewards."""
    obs = pad_sequence([torch.tensor(row.ids) for row in rows], batch_first=True)
    own = pad_sequence([torch.tensor(row.own) for row in rows], batch_first=True)
    nothing = torch.zeros(len(rows), obs.shape[1] - 1)
    return Batch(
        obs=obs,
        action=obs[:, 1:],
        mask=own[:, 1:],
        reward=nothing,
        logp=nothing,
        terminated=torch.ones(len(rows), dtype=torch.bool),
        group=torch.tensor([row.request for row in rows]),
    )
