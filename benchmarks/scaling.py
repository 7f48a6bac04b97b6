"""The cost of decoding and learning as batch, length, group and model grow, and a model of it.

    python benchmarks/scaling.py [--quick] [--json FILE]

CPU seconds of one thread, which a busy machine stretches less than the clock. Decoding: those of a
step for several models (fresh, random), rows and prompt lengths, from the difference of two calls,
so that prompts and set-up cancel. Learning: those of forward and backward for several rows, lengths
and group sizes. To each is fitted, by non-negative least squares of relative errors,

    decoding: seconds = layers · c + bytes / bandwidth + operations / rate
              (bytes: weights, keys and values, a long prompt's once)
    learning: seconds = c + operations / rate
              (a group's prompt counted once)

and printed beside the measured seconds. The last column shows what grows faster than the model.
Left out: large vocabularies.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from common import Results

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM

SHORT, LONG = 16, 48  # tokens of the two calls
WIDTHS = (128, 512)
LEARNER = 128
ROWS = (1, 8, 64)
PROMPTS = (16, 256)
LEARN = [
    (32, 1, 32, 32),
    (64, 8, 32, 32),
    (128, 8, 32, 32),
    (64, 8, 256, 32),
    (64, 1, 256, 32),
    (64, 8, 32, 256),
]


def make(width: int) -> CausalLM:
    from logpi.policies.small import small_policy

    policy = small_policy(
        "0123456789abcdefghijklmnopqrstuvwxyz",
        width=width,
        layers=6,
        heads=width // 32,
        context=1024,
    )
    policy.tokenizer.eos_token = policy.model.generation_config.eos_token_id = None
    return policy


def decode(width: int, rows: int, prompt: int) -> dict[str, float]:
    """Seconds of a step, and what it must read and do."""
    import torch

    from logpi.engine.engine import Engine
    from logpi.engine.sampling import Request, Sampling
    from logpi.engine.shared_prompts import held_once

    policy = make(width)
    engine, ids = (
        Engine(policy, slots=rows),
        torch.randint(4, 36, (prompt,), generator=torch.Generator().manual_seed(0)).tolist(),
    )

    def seconds(tokens: int) -> float:
        start = time.process_time()
        engine.generate(
            [Request(ids, n=rows)], Sampling(max_tokens=tokens), torch.Generator().manual_seed(0)
        )
        return time.process_time() - start

    seconds(SHORT)
    took = min(seconds(LONG) for _ in range(3)) - min(seconds(SHORT) for _ in range(3))
    config, n = policy.model.config, sum(p.numel() for p in policy.parameters())
    line = (
        config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim
    )  # numbers of a token's keys and values
    once, own = held_once(prompt - 1, rows), (LONG + SHORT) / 2
    held = line * (once + rows * (prompt - once + own))
    attended = (
        line * rows * (prompt + own) * 2 * config.num_attention_heads / config.num_key_value_heads
    )
    return {
        "seconds": took / (LONG - SHORT),
        "c": config.num_hidden_layers,
        "bytes": 4 * (n + held),
        "ops": 2 * n * rows + attended,
    }


def learn(rows: int, group: int, prompt: int, tokens: int) -> dict[str, float]:
    """Seconds of forward and backward of `rows` responses, and the operations on tokens that are
    forwarded."""
    import torch

    from logpi.types import Batch

    policy, g = make(LEARNER), torch.Generator().manual_seed(0)
    obs = torch.randint(4, 36, (rows, prompt + tokens), generator=g)
    obs[:, :prompt] = obs[::group, :prompt].repeat_interleave(group, 0)
    mask = (torch.arange(prompt + tokens - 1) >= prompt - 1).expand(rows, -1)
    zero = torch.zeros(mask.shape)
    batch = Batch(
        obs,
        obs[:, 1:],
        mask,
        zero,
        torch.ones(rows, dtype=torch.bool),
        torch.arange(rows) // group,
        zero,
    )

    def seconds() -> float:
        policy.zero_grad(set_to_none=True)
        start = time.process_time()
        policy.evaluate(batch).logp[mask].mean().backward()
        return time.process_time() - start

    seconds()
    unique, n = rows // group * prompt + rows * tokens, sum(p.numel() for p in policy.parameters())
    pairs = rows * tokens * (prompt + tokens / 2) + rows // group * prompt**2 / 2
    config = policy.model.config
    return {
        "seconds": min(seconds() for _ in range(3)),
        "c": 1,
        "ops": 6 * n * unique + 12 * pairs * config.num_hidden_layers * 256,
    }


def fit(points: list[dict[str, float]], terms: tuple[str, ...]) -> dict[str, float]:
    """Coefficients ≥ 0 of the terms that make relative errors least: terms that come out negative
    are left out, worst first."""
    import torch

    kept = list(terms)
    while True:
        table = torch.tensor(
            [[p[t] / p["seconds"] for t in kept] for p in points], dtype=torch.float64
        )
        scale = table.norm(dim=0)
        found = (
            torch.linalg.lstsq(
                table / scale, torch.ones(len(points), 1, dtype=torch.float64)
            ).solution[:, 0]
            / scale
        )
        if bool((found >= 0).all()):
            return dict.fromkeys(terms, 0.0) | dict(zip(kept, found.tolist(), strict=True))
        kept.pop(int((found * scale).argmin()))


def show(
    title: str, points: dict[str, dict[str, float]], terms: tuple[str, ...]
) -> dict[str, float]:
    found = fit(list(points.values()), terms)
    said = {
        "c": f"overhead {1e6 * found['c']:.0f} µs",
        "bytes": f"{1e-9 / (found.get('bytes') or 1e-30):.1f} GB/s",
        "ops": f"{1e-9 / (found['ops'] or 1e-30):.0f} GFLOP/s",
    }
    print(f"\n{title}: " + ", ".join(said[t] for t in terms if found[t]))
    for name, p in points.items():
        guess = sum(found[t] * p[t] for t in terms)
        print(
            f"  {name:<34}{1e3 * p['seconds']:10.2f} ms{1e3 * guess:10.2f} ms by the"
            f" model{p['seconds'] / guess:8.2f}"
        )
    return found


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--quick", action="store_true", help="the smallest model and fewer points")
    p.add_argument("--json", type=Path, metavar="FILE")
    p.add_argument("--resume", action="store_true", help="go on with what FILE holds")
    a = p.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    results = Results(a.json, a.resume, {"quick": a.quick})
    widths, every = WIDTHS[: 1 if a.quick else None], slice(None, None, 2 if a.quick else 1)
    decoded = {
        f"width {w}, {r} rows, prompt {n}": (w, r, n)
        for w in widths
        for r in ROWS[every]
        for n in PROMPTS
    }
    learned = {f"{r} rows in groups of {g}, {n} + {t}": (r, g, n, t) for r, g, n, t in LEARN[every]}

    steps = {k: results.measure(k, lambda v=v: decode(*v)) for k, v in decoded.items()}
    passes = {k: results.measure(k, lambda v=v: learn(*v)) for k, v in learned.items()}
    results.summary = {
        "decoding": show("A step of decoding", steps, ("c", "bytes", "ops")),
        "learning": show("Forward and backward", passes, ("c", "ops")),
    }
    results.save()


if __name__ == "__main__":
    main()
