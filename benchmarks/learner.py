"""Tokens per second and peak memory of evaluate + backward beside the plain way: padded forward, all logits, backward.

Both compute log-probabilities and entropies of the same responses, of mixed lengths, in groups that share a prompt, and
the gradient of the same loss. Speed is measured in paired, interleaved runs; memory in a fresh process for each way
(peak above what the loaded model takes). Tokens are those of the responses: what is learned from.

    python benchmarks/learner.py                                   # a built-in Llama of 0.8 M parameters
    python benchmarks/learner.py --model DIR --groups 2 --group 4
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from engine import load  # beside this file

from logpi.policies.causal_lm import CausalLM
from logpi.types import Batch


def mixed_batch(policy: CausalLM, options: argparse.Namespace) -> Batch:
    """groups × group rows; prompts around --prompt tokens, responses from a quarter of --tokens up to it."""
    g = torch.Generator().manual_seed(0)
    rows, width = options.groups * options.group, options.prompt + options.tokens
    start = torch.randint(options.prompt // 2, options.prompt + 1, (options.groups,), generator=g)
    start = start.repeat_interleave(options.group)
    length = start + torch.randint(options.tokens // 4, options.tokens + 1, (rows,), generator=g)
    obs = torch.randint(policy.vocabulary, (rows, width), generator=g)
    prompts = obs[:: options.group].repeat_interleave(options.group, 0)
    column = torch.arange(width)
    obs = torch.where(column < start[:, None], prompts, obs).masked_fill(column >= length[:, None], 0)
    mask = (column[:-1] >= start[:, None] - 1) & (column[:-1] < length[:, None] - 1)
    zero, group = torch.zeros(mask.shape), torch.arange(rows) // options.group
    return Batch(obs, obs[:, 1:], mask, zero, torch.ones(rows, dtype=torch.bool), group, zero)


def loss(logp: torch.Tensor, entropy: torch.Tensor) -> torch.Tensor:
    return -(torch.linspace(-1, 1, len(logp)) * logp).mean() - 0.01 * entropy.mean()


def ours(policy: CausalLM, batch: Batch) -> torch.Tensor:
    now = policy.evaluate(batch)
    value = loss(now.logp[batch.mask], now.entropy[batch.mask])
    value.backward()
    return value


def plain(policy: CausalLM, batch: Batch) -> torch.Tensor:
    used = torch.nn.functional.pad(batch.mask, (0, 1)).flip(1).cumsum(1).flip(1) > 0
    with policy.plain_attention():
        out = policy.model(input_ids=batch.obs[:, :-1], attention_mask=used[:, :-1].long(), use_cache=False)
    logp = (out.logits.float() / policy.temperature).log_softmax(-1)
    taken = logp.gather(-1, batch.action[..., None]).squeeze(-1)
    value = loss(taken[batch.mask], -(logp.exp() * logp).sum(-1)[batch.mask])
    value.backward()
    return value


WAYS = {"ours": ours, "plain": plain}


def seconds(way, policy: CausalLM, batch: Batch) -> float:
    policy.zero_grad(set_to_none=True)
    begin = time.perf_counter()
    way(policy, batch)
    return time.perf_counter() - begin


def peak(way: str) -> float:
    """Peak memory of one backward pass in MB above the loaded model's, in a fresh process."""
    call = [sys.executable, __file__, *sys.argv[1:], "--memory-of", way]
    return float(subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()[-1])


def own_peak(way: str, options: argparse.Namespace) -> float:
    policy = load(options.model)
    batch = mixed_batch(policy, options)
    policy.evaluate(batch.rows(torch.tensor([0])))  # what is set up once
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark begins again at what is in use
    before = _status("VmRSS")
    WAYS[way](policy, batch)
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    """A figure of this process in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def compare(options: argparse.Namespace) -> dict:
    policy = load(options.model)
    batch = mixed_batch(policy, options)
    a, b = ours(policy, batch), plain(policy, batch)  # warm up, and check that they compute the same
    torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    pairs = [(seconds(ours, policy, batch), seconds(plain, policy, batch)) for _ in range(options.repeats)]
    tokens, ratios = int(batch.mask.sum()), sorted(y / x for x, y in pairs)
    return {
        "rows": len(batch),
        "response_tokens": tokens,
        "ours_tokens_per_s": tokens / statistics.median(x for x, _ in pairs),
        "plain_tokens_per_s": tokens / statistics.median(y for _, y in pairs),
        "ratio": statistics.median(ratios),
        "ratio_min": ratios[0],
        "ratio_max": ratios[-1],
        "ours_peak_mb": peak("ours"),
        "plain_peak_mb": peak("plain"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="directory, hub name or .gguf file (default: a built-in small model)")
    parser.add_argument("--groups", type=int, default=32, help="prompts (default: 32)")
    parser.add_argument("--group", type=int, default=8, help="responses to each (default: 8)")
    parser.add_argument("--prompt", type=int, default=24, help="tokens of the longest prompt (default: 24)")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of the longest response (default: 48)")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved pairs (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.memory_of:
        print(own_peak(options.memory_of, options))
        return
    row = compare(options)
    print(f"{row['rows']} rows, {row['response_tokens']} response tokens, forward and backward")
    print(f"  ours  {row['ours_tokens_per_s']:10,.0f} tok/s {row['ours_peak_mb']:8,.0f} MB")
    print(f"  plain {row['plain_tokens_per_s']:10,.0f} tok/s {row['plain_peak_mb']:8,.0f} MB")
    spread = f"{row['ratio_min']:.2f} to {row['ratio_max']:.2f}"
    print(f"  ratio {row['ratio']:10.2f}  (least to most of {options.repeats} pairs: {spread})")
    if options.json:
        options.json.write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
