"""Real text and a real preference: a language model learns to review films kindly, in two ways, and
a scorer that neither has seen measures both.

    python benchmarks/sentiment.py --model DIR --ratings movieReviewSnippets_GroundTruth.txt --out
    DIR [--seed 0] [--only STAGE …]

The ratings are those of Hutto and Gilbert (2014): 10,605 sentences of film reviews, each with the
mean of twenty people's ratings from −4 to 4 (github.com/cjhutto/vaderSentiment, MIT). A pair is a
sentence that people liked and one that they did not, both behind "Movie review:". They train

    reward-model   a reward model (Bradley–Terry), then GRPO against it, with a small KL from the
                   initial model
    dpo            DPO on the pairs themselves, which are not the policy's samples

Both continue the first words of sentences that are in no pair. Gold is VADER's compound score in
[−1, 1], a lexicon with rules (`pip install vaderSentiment`); nothing trains on it. A second run
skips finished stages. Left out: chat.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from logpi.jobs import prefer, reward_model, rl

CUE, LENGTH = "Movie review:", 16
GOLD = """from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

analyzer = SentimentIntensityAnalyzer()


def gold(prompts, completions, **columns):
    return [analyzer.polarity_scores(c)["compound"] for c in completions]
"""
STAGES = ("reward-model", "rl", "dpo", "report")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--ratings", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reward-steps", type=int, default=40)
    parser.add_argument("--rl-steps", type=int, default=30)
    parser.add_argument("--dpo-steps", type=int, default=40)
    parser.add_argument("--openings", type=int, default=60, help="held-out ones that are measured")
    parser.add_argument("--only", nargs="*", choices=STAGES, default=STAGES)
    a = parser.parse_args()
    _data(a)
    jobs = {
        "reward-model": _reward(a),
        "rl": _rl(a),
        "dpo": _dpo(a),
    }
    for name, arguments in jobs.items():
        if name in a.only and not (arguments.out / "model" / "config.json").exists():
            start = time.perf_counter()
            arguments.run()
            (arguments.out / "seconds.json").write_text(json.dumps(time.perf_counter() - start))
    if "report" in a.only:
        _report(a)


def _data(a: argparse.Namespace) -> None:
    """Pairs of liked and disliked sentences, openings of others, and the gold scorer."""
    if (a.out / "gold.py").exists():  # written last
        return
    lines = [
        line.split("\t")
        for line in a.ratings.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    rated = [(float(x[1]), " ".join(x[2].split())) for x in lines if len(x) == 3]
    rated = [(r, t) for r, t in rated if 5 <= len(t.split()) <= 30]
    Random(a.seed).shuffle(rated)
    paired, rest = rated[:6000], rated[6000:]
    liked, disliked = [t for r, t in paired if r > 1.5], [t for r, t in paired if r < -1.5]
    pairs = [
        {"prompt": CUE, "chosen": f" {x}", "rejected": f" {y}"}
        for x, y in zip(liked, disliked, strict=False)
    ]
    _write(a.out / "pairs", pairs[200:], pairs[:200])
    openings = [{"prompt": f"{CUE} {' '.join(t.split()[:4])}"} for _, t in rest]
    _write(a.out / "openings", openings[60:], openings[:60])
    (a.out / "gold.py").write_text(GOLD)


def _write(directory: Path, train: list[dict], test: list[dict]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def _reward(a: argparse.Namespace) -> reward_model.TrainRewardModel:
    return reward_model.TrainRewardModel(
        model=a.model,
        data=str(a.out / "pairs"),
        steps=a.reward_steps,
        pairs=12,
        max_length=64,
        lr=2e-5,
        warmup=4,
        chat=False,
        eval_every=0,
        eval_items=200,
        seed=a.seed,
        save_every=1000,
        out=a.out / "reward-model",
    )


def _rl(a: argparse.Namespace) -> rl.RL:
    return rl.RL(
        model=a.model,
        task=str(a.out / "openings"),
        chat=False,
        algorithm="grpo",
        options={"beta": 0.01},
        rewards=(f"model:{a.out}/reward-model/model", f"{a.out}/gold.py:gold:0"),
        steps=a.rl_steps,
        prompts=4,
        num_generations=8,
        max_completion_length=LENGTH,
        stop=("\n",),
        lr=3e-5,
        warmup=3,
        eval_every=0,
        eval_items=8,
        seed=a.seed,
        save_every=1000,
        out=a.out / "rl",
    )


def _dpo(a: argparse.Namespace) -> prefer.Prefer:
    return prefer.Prefer(
        model=a.model,
        data=str(a.out / "pairs"),
        chat=False,
        options={"beta": 0.1},
        steps=a.dpo_steps,
        pairs=8,
        max_length=64,
        lr=3e-5,
        warmup=2,
        eval_every=0,
        eval_items=16,
        seed=a.seed,
        save_every=1000,
        out=a.out / "dpo",
    )


def _report(a: argparse.Namespace) -> None:
    """Gold and proxy before and after on the held-out openings, 4 samples each, and what was
    written."""
    from logpi.evaluation.held_out_pairs import win_rate
    from logpi.evaluation.measures import interval

    stages = {"before": a.model, "GRPO": f"{a.out}/rl/model", "DPO": f"{a.out}/dpo/model"}
    found = {name: _measure(a, path) for name, path in stages.items() if Path(path).exists()}
    print(
        f"\n{'':<8}{'gold (VADER)':>26}{'proxy':>26}{'wins by proxy':>26}   {a.openings} openings ×"
        " 4 samples"
    )
    for name, f in found.items():
        cells = [
            _cell(fmean(map(fmean, x)), interval([fmean(y) for y in x]))
            for x in (f["gold"], f["proxy"])
        ]
        rate, *bounds = win_rate(f["proxy"], found["before"]["proxy"])
        print(f"{name:<8}{cells[0]:>26}{cells[1]:>26}{_cell(rate, bounds):>26}")
    for i in range(3):
        print(f"\n{found['before']['prompts'][i]} …")
        for name, f in found.items():
            print(f"  {name:<8}{f['texts'][i][0].strip()!r}  ({f['gold'][i][0]:+.2f})")


def _cell(mean: float, bounds: Any) -> str:
    return f"{mean:.3f} ({bounds[0]:.3f} – {bounds[1]:.3f})"


def _measure(a: argparse.Namespace, path: str) -> dict[str, Any]:
    """Four samples to each held-out opening, with both scores."""
    import torch

    from logpi.engine.engine import Engine
    from logpi.engine.sampling import Request, Sampling
    from logpi.policies.causal_lm import CausalLM
    from logpi.rewards import rewards
    from logpi.rollouts.responses import ResponseSampler

    rows = [json.loads(x) for x in (a.out / "openings" / "test.jsonl").read_text().splitlines()][
        : a.openings
    ]
    policy = CausalLM.load(path)
    judged = rewards([f"model:{a.out}/reward-model/model", f"{a.out}/gold.py:gold"])
    sampler = ResponseSampler(
        policy, Engine(policy), judged, Sampling(max_tokens=LENGTH, stop=("\n",))
    )
    requests = [Request(policy.render(r["prompt"]), 4) for r in rows]
    responses, _ = sampler(rows, requests, torch.Generator().manual_seed(a.seed))
    proxy, gold = judged.names
    return {
        "prompts": [r["prompt"] for r in rows],
        "texts": [x.texts for x in responses],
        "gold": [[s.parts[gold] for s in x.scores] for x in responses],
        "proxy": [[s.parts[proxy] for s in x.scores] for x in responses],
    }


if __name__ == "__main__":
    main()
