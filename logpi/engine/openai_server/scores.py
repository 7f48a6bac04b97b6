"""Log-probabilities of prompts, as the policy itself evaluates them.

Left out: those of sampled tokens (`open_generation.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from logpi.types import Batch

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM

Top = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class PromptScore:
    """Of a prompt of P tokens.

    Attributes:
        logp: P − 1 nats, of every token but the first, which nothing precedes.
        top: the likeliest tokens there and their nats; empty tuples if none were asked for.
    """

    logp: tuple[float, ...]
    top: tuple[Top, ...]


def scores(policy: CausalLM, prompts: Sequence[Sequence[int]], top: int) -> list[PromptScore]:
    """The score of each prompt. top: likeliest tokens to report at each token.

    Raises:
        FloatingPointError: the logits are not numbers.
    """
    longer = [p for p in prompts if len(p) > 1]
    known = iter(_scores(policy, longer, top) if longer else [])
    return [next(known) if len(p) > 1 else PromptScore((), ()) for p in prompts]


@torch.no_grad()
def _scores(policy: CausalLM, prompts: Sequence[Sequence[int]], top: int) -> list[PromptScore]:
    batch, tops = _batch(prompts), [[()] * (len(p) - 1) for p in prompts]
    if not top:
        output = policy.evaluate(batch)
    else:
        ids, output = policy.likeliest(batch, top)
        assert output.others is not None
        tops = [
            [tuple(zip(i, v, strict=True)) for i, v in zip(*row, strict=True)]
            for row in zip(ids.tolist(), output.others.tolist(), strict=True)
        ]
    # of padding it is 0
    if bool(output.logp.isnan().any()):
        raise FloatingPointError("the model's logits are not numbers (NaN or infinite)")
    return [
        PromptScore(tuple(logp[: len(p) - 1]), tuple(t[: len(p) - 1]))
        for p, logp, t in zip(prompts, output.logp.tolist(), tops, strict=True)
    ]


def _batch(prompts: Sequence[Sequence[int]]) -> Batch:
    """Every token but the first is an action."""
    obs = pad_sequence([torch.tensor(list(p)) for p in prompts], batch_first=True)
    length = torch.tensor([len(p) for p in prompts])
    nothing = torch.zeros(len(prompts), obs.shape[1] - 1)
    return Batch(
        obs=obs,
        action=obs[:, 1:],
        mask=torch.arange(1, obs.shape[1]) < length[:, None],
        reward=nothing,
        logp=nothing,
        terminated=torch.ones(len(prompts), dtype=torch.bool),
        group=torch.arange(len(prompts)),
    )
