"""Runs as files, made by hand for the tests of the page: every number in them is chosen.

Left out: anything that trains.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

HOSTILE = "<script>window.hit=1</script><img src=x onerror=window.hit=1>" + (
    "\x1b[31mred\x00 \u202egnp.exe"
)
ARGUMENTS = {
    "algorithm": "grpo",
    "model": "m",
    "task": "addition",
    "seed": 0,
    "steps": 10,
    "lr": 1e-4,
}


def byte_tokenizer() -> Tokenizer:
    """Each byte is a token, its number the place in the sorted alphabet."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


TOKENIZER = byte_tokenizer()


def row(prompt: Any, text: str, reward: float | None, group: int, **more: Any) -> dict[str, Any]:
    """A line of samples, with a number for each token where they are asked for."""
    ids = [] if "ids" in more else TOKENIZER.encode(text).ids
    parts = {"exact": reward, "short": 0.5}
    line = {"prompt": prompt, "completion": text, "answer": "4", "reward": reward, "rewards": parts}
    line |= {"errors": {}, "stop": "eos", "tokens": len(ids), "group": group, "ids": ids}
    return line | {"advantage": 0.5} | more


def write_run(
    path: Path,
    metrics: Iterable[Mapping[str, Any]],
    samples: Mapping[str, Iterable[Mapping[str, Any]]] | None = None,
    command: str = "rl",
    **arguments: Any,
) -> Path:
    """A run's directory: arguments, versions, metrics, a tokenizer and `samples/NAME.jsonl`."""
    path.mkdir(parents=True)
    record = {"command": command, "arguments": ARGUMENTS | {"out": str(path)} | arguments}
    (path / "arguments.json").write_text(json.dumps(record))
    (path / "versions.json").write_text(json.dumps({"python": "3.11.7", "torch": "2.13.0"}))
    (path / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in metrics))
    (path / "tokenizer").mkdir()
    TOKENIZER.save(str(path / "tokenizer" / "tokenizer.json"))
    (path / "samples").mkdir()
    for name, rows in (samples or {}).items():
        lines = "".join(json.dumps(r) + "\n" for r in rows)
        (path / "samples" / f"{name}.jsonl").write_text(lines)
    return path


def records(steps: int, best: float = 1.0) -> list[dict[str, Any]]:
    """Reward from 0.1 to `best`, an evaluation with its interval at both ends."""
    each = [
        {"step": s, "reward": best * s / steps, "entropy": 1 / s, "kl": "nan" if s == 2 else 0.1}
        | {"grad_norm": 0.5, "step_time": 36.0, "rewards/exact/mean": 0.2, "special/thing": s * s}
        for s in range(1, steps + 1)
    ]
    first = {"step": 0, "eval/pass@1": 0.25, "eval/pass@1_low": 0.2, "eval/pass@1_high": 0.3}
    return [first, *each, {**first, "step": steps, "eval/pass@1": 0.75}]


def write_all(root: Path) -> Path:
    """What the page is tested on: two seeds, a broken folder, a run with all kinds of responses."""
    write_run(root / "seed-0", records(10, 0.8), seed=0)
    write_run(root / "seed-1", records(10, 0.6), seed=1)
    write_run(root / "rloo", records(10, 0.5), algorithm="rloo", lr=3e-4)
    (root / "broken").mkdir()
    (root / "broken" / "metrics.jsonl").write_text("{}\n")
    plain = [
        row(
            "2+2=",
            f"so {i} is it",
            float(i == 4),
            group=i // 4,
            advantage=[0.1 * k for k in range(10)],
        )
        for i in range(8)
    ]
    plain[5] |= {"stop": "length"}
    count = len(plain[0]["ids"])
    plain[0] |= {
        "logp": [-0.5] * count,
        "entropy": [0.25] * count,
        "ratio": [1.5] + [1.0] * (count - 1),
    }
    plain[0]["advantage"] = [-1.0, 0.0, 2.0] + [0.5] * (count - 3)
    many = [row("7*7=", f"answer number {i}", i / 400, i // 8) for i in range(400)]
    owl = "a🦉b\u2028c"
    special = [
        row(HOSTILE, HOSTILE, 1.0, 0),
        row([{"role": "user", "content": "find"}], "call it then end", 1.0, 0, turns=turns()),
        row("long", "word " * 2400, 0.0, 1, advantage=[(k % 100 - 50) / 50 for k in range(12_000)]),
        row("line", "x" * 10_000_000, None, 2, ids=None, tokens=10_000_000),
        row("owl", owl, 0.0, 3, advantage=[0.1 * k for k in range(len(TOKENIZER.encode(owl).ids))]),
    ]
    samples = {"step-000001": plain, "step-000002": many, "step-000003": special}
    write_run(root / "all", records(10), samples)
    return root


def turns() -> list[dict[str, Any]]:
    """Of "call it then end": seven tokens, an answer of a tool, nine tokens."""
    first = {
        "text": "call it",
        "shown": "<b>tool</b> says 4",
        "reward": 0.25,
        "observed": 18,
        "tokens": 7,
    }
    return [first, {"text": " then end", "shown": "", "reward": 0.75, "observed": 0, "tokens": 9}]
