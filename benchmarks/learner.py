"""Tokens per second and peak memory of evaluate + backward beside the usual way: padded forward,
all logits, backward.

Both compute log-probabilities and entropies of the same responses, of mixed lengths, in groups that
share a prompt, and the gradient of the same loss. Speed is measured in paired, interleaved runs;
memory in a fresh process for each way (peak above the loaded model's). Tokens are those of the
responses.

    python benchmarks/learner.py
        a built-in Llama of 0.8 M parameters
    python benchmarks/learner.py --model DIR --groups 2 --group 4
    python benchmarks/learner.py --model DIR --device cuda --dtype bfloat16
        the same on one GPU; untried on a real one
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from typing import TYPE_CHECKING

from common import Place, Results, child, report, spread
from engine import load

from logpi.types import Batch

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM


def mixed_batch(policy: CausalLM, options: argparse.Namespace) -> Batch:
    """groups × group rows; prompts around --prompt tokens, responses from a quarter of --tokens up
    to it."""
    g = torch.Generator().manual_seed(0)
    rows, width = options.groups * options.group, options.prompt + options.tokens
    start = torch.randint(options.prompt // 2, options.prompt + 1, (options.groups,), generator=g)
    start = start.repeat_interleave(options.group)
    length = start + torch.randint(options.tokens // 4, options.tokens + 1, (rows,), generator=g)
    obs = torch.randint(policy.vocabulary, (rows, width), generator=g)
    prompts = obs[:: options.group].repeat_interleave(options.group, 0)
    column = torch.arange(width)
    obs = torch.where(column < start[:, None], prompts, obs).masked_fill(
        column >= length[:, None], 0
    )
    mask = (column[:-1] >= start[:, None] - 1) & (column[:-1] < length[:, None] - 1)
    zero, group = torch.zeros(mask.shape), torch.arange(rows) // options.group
    return Batch(obs, obs[:, 1:], mask, zero, torch.ones(rows, dtype=torch.bool), group, zero)


def loss(logp: torch.Tensor, entropy: torch.Tensor) -> torch.Tensor:
    return (
        -(torch.linspace(-1, 1, len(logp), device=logp.device) * logp).mean()
        - 0.01 * entropy.mean()
    )


def ours(policy: CausalLM, batch: Batch) -> torch.Tensor:
    now = policy.evaluate(batch)
    value = loss(now.logp[batch.mask], now.entropy[batch.mask])
    value.backward()
    return value


def plain(policy: CausalLM, batch: Batch) -> torch.Tensor:
    used = torch.nn.functional.pad(batch.mask, (0, 1)).flip(1).cumsum(1).flip(1) > 0
    with policy.plain_attention():
        out = policy.model(
            input_ids=batch.obs[:, :-1], attention_mask=used[:, :-1].long(), use_cache=False
        )
    logp = (out.logits.float() / policy.temperature).log_softmax(-1)
    taken = logp.gather(-1, batch.action[..., None]).squeeze(-1)
    value = loss(taken[batch.mask], -(logp.exp() * logp).sum(-1)[batch.mask])
    value.backward()
    return value


WAYS = {"ours": ours, "plain": plain}


def seconds(way, policy: CausalLM, batch: Batch, place: Place) -> float:
    policy.zero_grad(set_to_none=True)
    return place.seconds(way, policy, batch)


def own_peak(way: str, options: argparse.Namespace) -> float:
    """Peak memory of one backward pass in MB above the loaded model's, in a fresh process."""
    place = Place.of(options)
    policy = load(options.model, place)
    batch = mixed_batch(policy, options).to(policy.device)
    policy.evaluate(batch.rows(torch.tensor([0])))  # what is set up once
    before = place.loaded()
    WAYS[way](policy, batch)
    return place.peak() - before


def compare(options: argparse.Namespace) -> dict:
    """Seconds of `repeats` pairs."""
    place = Place.of(options)
    policy = load(options.model, place)
    batch = mixed_batch(policy, options).to(policy.device)
    a, b = (
        ours(policy, batch),
        plain(policy, batch),
    )  # warm up, and check that they compute the same
    near = 1e-3 if place.dtype == "float32" else 3e-2
    torch.testing.assert_close(a, b, atol=near, rtol=near)
    pairs = [
        (seconds(ours, policy, batch, place), seconds(plain, policy, batch, place))
        for _ in range(options.repeats)
    ]
    weights, unique = sum(p.numel() for p in policy.parameters()), unique_tokens(batch)
    return {
        "pairs": pairs,
        "rows": len(batch),
        "tokens": int(batch.mask.sum()),
        "unique": unique,
        "weights": weights,
    }


def unique_tokens(batch: Batch) -> int:
    """Tokens that must be forwarded: every row's own, and a prompt once for its group."""
    prompts = batch.mask.long().argmax(1) + 1
    first = batch.group != batch.group.roll(1)
    return int(batch.mask.sum() + (prompts * first).sum())


def summary(runs: dict, machine: dict) -> dict:
    timed, tokens = runs["pairs"], runs["pairs"]["tokens"]
    ours_s, plain_s = zip(*timed["pairs"], strict=True)
    least = 6 * timed["weights"] * timed["unique"] / machine["matmul_gflop_s"] / 1e9
    return {
        "rows": timed["rows"],
        "response_tokens": tokens,
        "ours_tokens_per_s": spread([tokens / x for x in ours_s]),
        "plain_tokens_per_s": spread([tokens / y for y in plain_s]),
        "ratio": spread([y / x for x, y in timed["pairs"]]),
        "share_of_machine": least / spread(ours_s)["median"],
        "ours_peak_mb": runs["memory ours"]["mb"],
        "plain_peak_mb": runs["memory plain"]["mb"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", help="directory, hub name or .gguf file (default: a built-in small model)"
    )
    parser.add_argument("--groups", type=int, default=32, help="prompts (default: 32)")
    parser.add_argument("--group", type=int, default=8, help="responses to each (default: 8)")
    parser.add_argument(
        "--prompt", type=int, default=24, help="tokens of the longest prompt (default: 24)"
    )
    parser.add_argument(
        "--tokens", type=int, default=48, help="tokens of the longest response (default: 48)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="interleaved pairs (default: 5)")
    Place.options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--resume", action="store_true", help="go on with what FILE holds")
    parser.add_argument("--side", choices=("pairs", *WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.side:
        report(
            compare(options) if options.side == "pairs" else {"mb": own_peak(options.side, options)}
        )
        return
    same = {
        k: getattr(options, k) for k in ("model", "groups", "group", "prompt", "tokens", "repeats")
    }
    same |= Place.of(options).given()
    results = Results(options.json, options.resume, same, Place.of(options))
    for key, side in (("pairs", "pairs"), *((f"memory {way}", way) for way in WAYS)):
        results.measure(key, lambda s=side: child(__file__, same | {"side": s}))
    row = results.summary = summary(results.runs, results.machine)
    results.save()
    print(f"{row['rows']} rows, {row['response_tokens']} response tokens, forward and backward")
    print(
        f"  ours  {row['ours_tokens_per_s']['median']:10,.0f} tok/s {row['ours_peak_mb']:8,.0f} MB"
    )
    print(
        f"  plain {row['plain_tokens_per_s']['median']:10,.0f} tok/s"
        f" {row['plain_peak_mb']:8,.0f} MB"
    )
    ratio = row["ratio"]
    shown = (
        f"({ratio['min']:.2f}–{ratio['max']:.2f} of {options.repeats} pairs),"
        f" {row['share_of_machine']:.0%} of the machine"
    )
    print(f"  ratio {ratio['median']:10.2f}  {shown}")


if __name__ == "__main__":
    main()
