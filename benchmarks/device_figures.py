"""Figures of one device that `make gpu-check` gathers: decoding with and without captured steps,
and two ranks that share the device.

    python benchmarks/device_figures.py decode --device cuda --dtype bfloat16
    python benchmarks/device_figures.py ranks --device cuda

`decode` samples the same rows with captured steps and without: tokens a second and the most memory.
The model is a Llama with random weights and a vocabulary of 16 tokens, so its output layer is
smaller than a real one's. `ranks` compares the gradient of GRPO's second pass over a batch on one
rank with that of two on the same device; NCCL refuses two ranks on one GPU, which is noted, and
gloo then carries the gradients. On a CPU `decode` runs captured steps without a graph, which shows
that the code runs, not what it gains. Left out: other engines (`engine.py`), learning
(`learner.py`, `grpo_step.py`).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from common import Place, report
from engine import ours, prompts_of

METHOD = "grpo"


def options() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("what", choices=("decode", "ranks"))
    p.add_argument("--batch", type=int, nargs="+", default=[1, 32, 256])
    p.add_argument("--tokens", type=int, default=128)
    p.add_argument("--prompt", type=int, default=64)
    p.add_argument("--group", type=int, default=8)
    p.add_argument("--width", type=int, default=1024)
    p.add_argument("--layers", type=int, default=16)
    Place.options(p)
    return p


def model(a: argparse.Namespace) -> Any:
    """A policy with random weights on the device, its end tokens switched off."""
    import torch

    from logpi.policies.causal_lm import CausalLM
    from logpi.policies.small import small_policy

    heads = max(2, a.width // 64)
    small = small_policy("0123456789+=", width=a.width, layers=a.layers, heads=heads, context=2048)
    small.tokenizer.eos_token = None
    config = small.model.generation_config
    config.eos_token_id, config.pad_token_id = None, 0
    return CausalLM(small.model.to(a.device, getattr(torch, a.dtype)), small.tokenizer)


def decode(a: argparse.Namespace) -> dict[str, Any]:
    """By rows: tokens a second with captured steps and without, and MB above the model."""
    from logpi.engine.cuda_graphs import again, cuda_graph
    from logpi.engine.engine import Engine

    place, policy = Place.of(a), model(a)
    out: dict[str, Any] = {"weights": sum(p.numel() for p in policy.parameters()), "rows": {}}
    for rows in a.batch:
        prompts, group = prompts_of(policy.vocabulary, rows, a), min(a.group, rows)
        line: dict[str, Any] = {}
        for name in ("captured", "plain"):
            before = place.loaded()
            engine = Engine(policy, slots=rows, capture=cuda_graph if place.gpu else again)
            if name == "plain":
                engine.captured = None
            work = (ours, policy, engine, prompts, group, a.tokens)
            # the first call captures
            place.seconds(*work)
            line[f"{name}_tokens_per_s"] = rows * a.tokens / place.seconds(*work)
            line[f"{name}_mb"] = place.peak() - before
        line["ratio"] = line["captured_tokens_per_s"] / line["plain_tokens_per_s"]
        out["rows"][str(rows)] = line
    return out


def gradient(backend: str) -> list[float]:
    """The gradient of this rank's world, which talks by `backend`."""
    import torch
    import torch.distributed as dist

    from logpi.distributed import ranks
    from tests.distributed.several import place
    from tests.distributed.test_laws import second_step, tiny_policy

    if ranks() > 1:
        dist.init_process_group(backend)
        # NCCL refuses at its first exchange
        dist.all_reduce(torch.ones(1, device=place()))
    return second_step(METHOD, tiny_policy())[0].tolist()


def ranks(a: argparse.Namespace) -> dict[str, Any]:
    """The largest difference between two ranks' gradient and one's, over its largest element."""
    import torch

    from tests.distributed.several import outcomes

    gpu = a.device != "cpu"
    os.environ["LOGPI_DEVICE"] = "cuda" if gpu else "cpu"
    one, failure = outcomes(1, gradient, "gloo")[0]
    if failure is not None:
        raise SystemExit(f"one rank: {one}")
    out: dict[str, Any] = {}
    for backend in ("nccl", "gloo") if gpu else ("gloo",):
        found = outcomes(2, gradient, backend, timeout=25, LOCAL_RANK="0")
        bad = next((str(value) for value, failed in found if failed is not None), "")
        if bad:
            out[backend] = f"refused: {bad.splitlines()[0][:200]}"
            continue
        whole = torch.tensor(one)
        gaps = [(torch.tensor(value) - whole).abs().max() / whole.abs().max() for value, _ in found]
        out[backend] = float(max(gaps))
    return out


if __name__ == "__main__":
    arguments = options().parse_args()
    report({"decode": decode, "ranks": ranks}[arguments.what](arguments))
