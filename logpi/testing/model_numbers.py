"""Laws of numbers: a model gives the same numbers however rows are laid out, sampled, saved or
loaded.

Each function's name and docstring are the law's. `NUMBERS` is their order. Left out: text
(`model_text.py`).
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from logpi.engine.engine import Engine
from logpi.engine.sampling import Request, Sampling
from logpi.policies.causal_lm import CausalLM
from logpi.policies.reward_model import RewardModel
from logpi.rollouts.collate import collate
from logpi.testing.subject import LawFinding, LawVerdict, Subject, absent, fail, holds, limited
from logpi.types import Batch, Trajectory

__all__ = ["NUMBERS"]

SHORT, LONG = 20, 90  # tokens of the two rows
TIE = 1e-3  # nats between two tokens of which either may be the likeliest


def finite(s: Subject) -> LawFinding:
    """Every weight is a number."""
    count = 0
    for name, weight in s.policy.model.named_parameters():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            return fail(f"{name} holds NaN or infinity")
        count += weight.numel()
    return holds(f"{count:,} weights")


def embeddings(s: Subject) -> LawFinding:
    """Each of the tokenizer's tokens has an embedding and, in a language model, a logit."""
    tokens, rows = len(s.tokenizer), s.policy.model.get_input_embeddings().weight.shape[0]
    logits = s.policy.vocabulary if isinstance(s.policy, CausalLM) else rows
    if min(rows, logits) < tokens:
        return fail(
            f"{tokens} tokens, {rows} embeddings, {logits} logits:"
            f" model.resize_token_embeddings({tokens}), then train them"
        )
    return holds(f"{tokens} tokens, {rows} embeddings")


def context(s: Subject) -> LawFinding:
    """Rows of the stated context length have a position for each token."""
    config = s.policy.model.config.get_text_config()
    length = getattr(config, "max_position_embeddings", None)
    tables = [
        m.num_embeddings
        for n, m in s.policy.model.named_modules()
        if isinstance(m, nn.Embedding) and _of_positions(n)
    ]
    if tables and (length is None or min(tables) < length):
        return fail(f"positions are learned up to {min(tables)}, and the config says {length}")
    stated = s.tokenizer.model_max_length
    if length and stated < length:
        return limited(f"{length} positions; the tokenizer says {stated}, which logpi ignores")
    return holds(f"{length or 'no limit of'} positions{', learned' if tables else ''}")


def _of_positions(name: str) -> bool:
    return name.rpartition(".")[2] in (
        "wpe",
        "embed_positions",
        "position_embeddings",
        "position_embedding",
    )


def head(s: Subject) -> LawFinding:
    """A reward model's head was trained."""
    if not isinstance(s.policy, RewardModel):
        return absent("a language model")
    weight = s.policy.model.score.weight
    if not bool(weight.any()):
        return fail(
            "the head is all zeros: the checkpoint has none, and every response would score 0"
        )
    return holds(f"{tuple(weight.shape)}, spread {float(weight.std()):.3g}")


def packed(s: Subject) -> LawFinding:
    """Rows without padding get the numbers of the model's own forward."""
    gap = _gap(_numbers(s, _rows(s)), _own(s, _rows(s)))
    finding = _same(s, gap, "as the model's own forward,", "differs from the model's own forward")
    if finding.verdict is LawVerdict.OK and not s.policy.packed:
        slower = "its attention cannot be exchanged, so rows are padded, and slower"
        return limited(f"{finding.detail}; {slower}")
    return finding


def neighbours(s: Subject) -> LawFinding:
    """A row alone and beside a longer one get the same numbers."""
    short, long = _rows(s)
    gap = _gap([_numbers(s, [short])[0]], [_numbers(s, [short, long])[0]])
    return _same(s, gap, "the same", "beside a longer row it moves")


def sampler(s: Subject) -> LawFinding:
    """The log-probabilities of sampled tokens are those that the learner computes."""
    if not isinstance(s.policy, CausalLM):
        return absent("a reward model samples nothing")
    prompt = _tokens(s, 8).tolist()
    completions = _engine(s.policy, Request(prompt, 4), 16)
    rows = [_row([*prompt, *c.tokens.tolist()], len(prompt), i) for i, c in enumerate(completions)]
    gap = _gap([c.logp for c in completions], _numbers(s, rows))
    return _same(s, gap, "the same, in nats,", "they differ, in nats a token,")


def _same(s: Subject, gap: float, same: str, different: str) -> LawFinding:
    """Whether two sets of numbers differ by rounding alone; a NaN is a difference."""
    if gap <= _tolerance(s):
        return holds(f"{same} up to {gap:.0e}")
    return fail(f"{different} by up to {gap:.2g}")


def greedy(s: Subject) -> LawFinding:
    """The likeliest tokens are those of the model's own `generate`."""
    if not isinstance(s.policy, CausalLM):
        return absent("a reward model samples nothing")
    prompt = s.template.plain("The answer to 2 plus 2 is") or _tokens(s, 8).tolist()
    [ours] = _engine(s.policy, Request(prompt, 1, greedy=True), 12)
    theirs = _generated(s.policy, prompt, len(ours.tokens))
    at = next(
        (i for i, (a, b) in enumerate(zip(ours.tokens.tolist(), theirs, strict=False)) if a != b),
        None,
    )
    if at is None:
        return holds(f"{len(theirs)} tokens are the same")
    row = [*prompt, *theirs[: at + 1]]
    best, other = (
        _numbers(s, [_row([*row[:-1], t], len(row) - 1, 0)])[0][-1]
        for t in (int(ours.tokens[at]), theirs[at])
    )
    if abs(float(best - other)) <= TIE:
        return holds(f"{at} tokens are the same, then two are as likely")
    return fail(f"token {at} is {int(ours.tokens[at])}, and {theirs[at]} by `generate`")


def saved(s: Subject) -> LawFinding:
    """Saved and loaded, the model gives the same numbers and ends its answers with the same token,
    in other libraries too."""
    rows = _rows(s)
    with tempfile.TemporaryDirectory() as directory:
        s.policy.save(directory)
        again = _loaded(s.policy, directory)
    other = Subject(again)
    gap = _gap(_numbers(s, rows), _numbers(other, rows))
    if gap > 1e-5:
        return fail(f"the loaded model differs by up to {gap:.2g}")
    if other.tokenizer.chat_template != s.tokenizer.chat_template:
        return fail("the chat template is lost")
    if other.template.end_id != s.template.end_id and not s.template.end:
        return fail(f"answers end with {other.template.end_text} instead of {s.template.end_text}")
    if (
        isinstance(again, CausalLM)
        and s.template.end_id is not None
        and s.template.end_id not in again.template.stops
    ):
        return fail(f"the saved generation config does not stop at {s.template.end_text}")
    return holds(f"the same up to {gap:.0e}; ends are kept")


# --- where the numbers come from ---


def _tokens(s: Subject, length: int) -> Tensor:
    size = min(len(s.tokenizer), s.policy.model.get_input_embeddings().weight.shape[0])
    return (torch.arange(length) * 7919 + 13) % size


def _row(ids: list[int], own: int, group: int) -> Trajectory:
    """A row whose tokens from `own` on are the policy's."""
    obs, blank = torch.tensor(ids), torch.zeros(len(ids) - 1)
    return Trajectory(obs, obs[1:], torch.arange(1, len(ids)) >= own, blank, blank, True, group)


def _rows(s: Subject) -> list[Trajectory]:
    """A short and a long row, with the same beginning."""
    config = s.policy.model.config.get_text_config()
    length = min(LONG, getattr(config, "max_position_embeddings", None) or LONG)
    return [
        _row(_tokens(s, n).tolist(), 5, group)
        for group, n in enumerate((min(SHORT, length), length))
    ]


@torch.no_grad()
def _numbers(s: Subject, rows: list[Trajectory]) -> list[Tensor]:
    """logpi's numbers of each row: log-probabilities of own actions, or scores."""
    batch: Batch = collate([replace(t, group=i) for i, t in enumerate(rows)])
    output = s.policy.evaluate(batch)
    if isinstance(s.policy, RewardModel):
        value = cast("Tensor", output.value)
        return [v[1 : len(t.obs)][t.mask].float().cpu() for v, t in zip(value, rows, strict=True)]
    return [p[: len(t.mask)][t.mask].float().cpu() for p, t in zip(output.logp, rows, strict=True)]


@torch.no_grad()
def _own(s: Subject, rows: list[Trajectory]) -> list[Tensor]:
    """The numbers of each row alone by the model's own forward."""
    model, numbers = s.policy.model, []
    with s.policy.plain_attention():
        for t in rows:
            ids = t.obs[None].to(s.policy.device)
            if isinstance(s.policy, RewardModel):
                hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
                numbers.append(s.policy._score(hidden)[1:].cpu()[t.mask])
            else:
                logits = model(input_ids=ids, use_cache=False).logits[0].float()
                logp = (logits / s.policy.temperature)[:-1].log_softmax(-1).cpu()
                numbers.append(logp.gather(1, t.action[:, None])[:, 0][t.mask])
    return numbers


def _gap(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest difference; NaN if a number is NaN."""
    return float(torch.cat([(x - y).abs() for x, y in zip(a, b, strict=True)]).max())


def _tolerance(s: Subject) -> float:
    """The largest difference by rounding, in 32 bits or in 16."""
    return 1e-3 if next(s.policy.model.parameters()).dtype == torch.float32 else 0.5


def _engine(policy: CausalLM, request: Request, tokens: int) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    [completions] = Engine(policy, slots=4).generate(
        [request], Sampling(max_tokens=tokens), generator
    )
    return completions


@torch.no_grad()
def _generated(policy: CausalLM, prompt: list[int], tokens: int) -> list[int]:
    """The tokens by `transformers`, without the penalties and other settings of the generation
    config."""
    kind = type(policy.model.generation_config)
    config = kind(
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=list(policy.eos_ids) or None,
        pad_token_id=0,
    )
    with policy.plain_attention():
        [row] = policy.model.generate(
            torch.tensor([prompt], device=policy.device), generation_config=config
        )
    return row[len(prompt) :].tolist()


def _loaded(policy: CausalLM | RewardModel, directory: str) -> CausalLM | RewardModel:
    dtype = str(next(policy.model.parameters()).dtype).rpartition(".")[2]
    return type(policy).load(directory, dtype=dtype, device=policy.device)


NUMBERS = (finite, embeddings, context, head, packed, neighbours, sampler, greedy, saved)
