"""`logpi preferences-demo`: the lanes of learning from preferences, side by side, on a rule that is
known.

Somebody likes vowels, and dislikes the same letter twice in a row. A small model first learns to
write any letters (SFT). Then a noisy judge compares pairs of strings, and lanes learn from the same
pairs:

    reward model -> PPO against it (critic, reference, reward model in memory)        RLHF
                 -> the same without the KL penalty (no reference)                    no anchor
    DPO                            (reference log-probabilities computed once)        direct

None sees the rule, which only measures them (`gold`). Without an anchor PPO leaves the strings that
the reward model has seen: its score (the proxy) rises, and the rule's falls (`hacking.png`). The
stages are ordinary jobs chained by their run directories; the same --out resumes a stopped
demonstration. Left out: real text, and people.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from logpi.demos.chain import ChainArguments, base_model, home, judged, stage
from logpi.jobs import prefer, reward_model, rl, sft
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option
from logpi.jobs.options.model import placed
from logpi.runs.metrics import write_rows

LETTERS = "abcdefghi"
PROMPTS = tuple(f"{c}:" for c in LETTERS)  # what to begin after
LENGTH = 14  # tokens of a response
BETA = 0.1  # of the KL penalty
FREE = "ppo-no-kl"  # the lane without an anchor
GOLD_FILE = """from logpi.demos.preferences import gold


def rule(prompts, completions, **columns):
    return [gold(p, c) for p, c in zip(prompts, completions)]
"""


@dataclass(frozen=True, kw_only=True)
class PreferencesDemo(ChainArguments):
    """Arguments of `logpi preferences-demo`."""

    sft_steps: int = option(150, help="updates of supervised fine-tuning", least=1, most=100_000)
    reward_steps: int = option(200, help="updates of the reward model", least=1, most=100_000)
    ppo_steps: int = option(60, help="updates of PPO, with KL and without", least=1, most=100_000)
    dpo_steps: int = option(200, help="updates of DPO", least=1, most=100_000)
    pairs: int = option(4000, help="comparisons that both lanes learn from", least=64, most=10**6)


def gold(prompt: str, response: str) -> float:
    """The rule: vowels less other letters less letters equal to the one before (the prompt's too),
    over 8.

    >>> gold("b:", "aeiaeiae"), gold("b:", "aaaaaaaa"), gold("b:", "bc")
    (1.0, 0.125, -0.375)
    """
    vowels = sum(1 if c in "aei" else -1 for c in response)
    walk = prompt[0] + response
    return (vowels - sum(a == b for a, b in itertools.pairwise(walk))) / 8


def main(argv: Sequence[str]) -> int:
    a = parse(PreferencesDemo, argv, "logpi preferences-demo", __doc__ or "")
    placed(a.device)
    with home(a, "preferences-demo") as chain:
        out = chain.path
        _data(a, out)
        jobs = {
            "SFT": _sft(a, out),
            "reward model": _reward(a, out),
            "PPO": _ppo(a, out, "ppo", BETA),
            "PPO without KL": _ppo(a, out, FREE, 0.0),
            "DPO": _dpo(a, out),
        }
        seconds = {name: stage(job)[1] for name, job in jobs.items()}
        lanes = ("sft", "ppo", FREE, "dpo")
        _report({name: _measure(a, out, name) for name in lanes}, seconds, out)
    return 0


def _data(a: PreferencesDemo, out: Path) -> None:
    """The untrained model, demonstrations, judged pairs, prompts and the rule."""
    from logpi.policies.small import small_policy

    if (out / "prompts").exists():  # written last
        return
    base_model(
        out / "base",
        lambda: small_policy("".join(PROMPTS), width=64, layers=2, context=64, seed=a.seed),
    )
    rng = Random(a.seed)
    texts = [{"prompt": p, "completion": _scribble(rng)} for p in PROMPTS * 200]
    pairs = [_judged(rng) for _ in range(a.pairs)]
    _write(out / "texts", texts, texts[:64])
    _write(out / "pairs", pairs, [_judged(rng) for _ in range(500)])
    (out / "gold.py").write_text(GOLD_FILE)
    prompts = [{"prompt": p} for p in PROMPTS]
    _write(out / "prompts", prompts, prompts)


def _scribble(rng: Random) -> str:
    return "".join(rng.choices(LETTERS, k=rng.randint(4, 10)))


def _judged(rng: Random) -> dict[str, str]:
    """A comparison as a noisy person makes it: better by Δ of the rule is preferred with
    probability σ(5Δ)."""
    prompt = rng.choice(PROMPTS)
    one, two = _scribble(rng), _scribble(rng)
    return judged(prompt, one, two, 5 * (gold(prompt, one) - gold(prompt, two)), rng)


def _write(
    directory: Path, train: Sequence[dict[str, str]], test: Sequence[dict[str, str]]
) -> None:
    write_rows(directory / "train.jsonl", train)
    write_rows(directory / "test.jsonl", test)


def _sft(a: PreferencesDemo, out: Path) -> sft.SFT:
    return sft.SFT(
        model=str(out / "base"),
        task=str(out / "texts"),
        steps=a.sft_steps,
        rows=64,
        lr=3e-3,
        seed=a.seed,
        save_every=1000,
        device=a.device,
        out=out / "sft",
    )


def _reward(a: PreferencesDemo, out: Path) -> reward_model.TrainRewardModel:
    return reward_model.TrainRewardModel(
        model=str(out / "sft" / "model"),
        data=str(out / "pairs"),
        steps=a.reward_steps,
        pairs=64,
        lr=1e-3,
        seed=a.seed,
        eval_every=0,
        save_every=1000,
        device=a.device,
        out=out / "reward-model",
    )


def _ppo(a: PreferencesDemo, out: Path, name: str, beta: float) -> rl.RL:
    learned = out / "reward-model" / "model"
    return rl.RL(
        model=str(out / "sft" / "model"),
        task=str(out / "prompts"),
        rewards=(f"model:{learned}", f"{out}/gold.py:rule:0"),
        algorithm="ppo",
        options={"beta": beta, "epochs": 2, "minibatches": 2, "value_clip": 0.2},
        critic=str(learned),
        steps=a.ppo_steps,
        prompts=32,
        num_generations=4,
        max_completion_length=LENGTH,
        truncation="fail",
        lr=1e-3,
        seed=a.seed,
        eval_every=20,
        eval_items=9,
        eval_samples=8,
        save_every=1000,
        device=a.device,
        out=out / name,
    )


def _dpo(a: PreferencesDemo, out: Path) -> prefer.Prefer:
    return prefer.Prefer(
        model=str(out / "sft" / "model"),
        data=str(out / "pairs"),
        options={"beta": BETA},
        steps=a.dpo_steps,
        pairs=64,
        lr=5e-4,
        seed=a.seed,
        eval_every=0,
        save_every=1000,
        device=a.device,
        out=out / "dpo",
    )


def _measure(a: PreferencesDemo, out: Path, name: str) -> dict[str, Any]:
    """Gold and proxy score, KL from the SFT model in nats a response, and two answers; 16 samples
    to each prompt."""
    import torch

    from logpi.engine.engine import Engine
    from logpi.engine.sampling import Request, Sampling
    from logpi.policies.causal_lm import CausalLM
    from logpi.rewards.model import ModelReward
    from logpi.rollouts.collate import collate
    from logpi.rollouts.responses import trajectory

    policy, reference = (CausalLM.load(out / n / "model", device=a.device) for n in (name, "sft"))
    requests = [Request(policy.render(p), 16) for p in PROMPTS]
    sampled = Engine(policy, slots=256).generate(
        requests, Sampling(max_tokens=LENGTH), torch.Generator().manual_seed(0)
    )
    flat = [(p, c) for p, group in zip(PROMPTS, sampled, strict=True) for c in group]
    texts = [policy.template.decode(c.tokens) for _, c in flat]
    batch = collate([trajectory(policy.render(p), c, 0.0, i, {}) for i, (p, c) in enumerate(flat)])
    with torch.no_grad():
        kl = (policy.evaluate(batch).logp - reference.evaluate(batch).logp).sum(1).mean()
    proxy = ModelReward(str(out / "reward-model" / "model"), device=a.device)(
        [p for p, _ in flat], texts
    )
    return {
        "gold": fmean(gold(p, t) for (p, _), t in zip(flat, texts, strict=True)),
        "proxy": fmean(x for x in proxy if x is not None),
        "kl": float(kl),
        "samples": "   ".join(p + t for (p, _), t in list(zip(flat, texts, strict=True))[::48]),
    }


def _report(measures: dict[str, dict[str, Any]], seconds: dict[str, float], out: Path) -> None:
    learned = seconds["reward model"]
    lanes = {
        "sft": ("SFT", "policy", seconds["SFT"]),
        "ppo": (
            "→ reward model → PPO",
            "policy, critic, reference, reward",
            learned + seconds["PPO"],
        ),
        FREE: (
            "→ the same without KL",
            "policy, critic, reward",
            learned + seconds["PPO without KL"],
        ),
        "dpo": ("→ DPO", "policy", seconds["DPO"]),
    }
    print(f"\n{'lane':<23}{'models in memory':<35}{'seconds':>8}{'gold':>8}{'proxy':>8}{'KL':>8}")
    for name, (lane, models, time_) in lanes.items():
        m = measures[name]
        print(
            f"{lane:<23}{models:<35}{time_:>8.0f}{m['gold']:>8.2f}{m['proxy']:>8.2f}{m['kl']:>8.2f}"
        )
    print(
        "\ngold: the rule nobody was told, 1 for eight good letters. proxy: the reward model's"
        " score."
    )
    print("KL: from the SFT model, nats a response. Three answers of each:")
    for name, (lane, _, _) in lanes.items():
        print(f"  {lane:<23}{measures[name]['samples']}")
    for name, anchor in (("ppo", "PPO with the KL penalty"), (FREE, "PPO without it")):
        print(f"\n{anchor}, on the way:\n{_on_the_way(out / name)}")
    print(f"\nproxy, gold and entropy of both: {_picture(out)}")
    print(f"scores of held-out pairs: {out}/reward-model/scores.png")


# --- reward hacking, to look at ---


def _on_the_way(run: Path, rows: int = 4) -> str:
    """Proxy, gold and three answers at a few steps of a run, from its own samples."""
    from logpi.runs.reading import RunView

    view, lines = RunView(run), []
    steps = view.sample_steps()
    count = min(rows, len(steps))
    for i in range(count):
        step = steps[i * (len(steps) - 1) // max(count - 1, 1)]
        samples = view.samples(step)
        proxy, rule = (fmean(s["rewards"][k] for s in samples) for k in ("reward-model", "rule"))
        answers = {s["prompt"]: s["completion"] for s in reversed(samples)}
        shown = "   ".join(p + text for p, text in sorted(answers.items())[:3])
        lines.append(f"  step {step:>3}  proxy {proxy:5.2f}  gold {rule:5.2f}   {shown}")
    return "\n".join(lines)


def _picture(out: Path) -> Path:
    """Proxy, gold and entropy of PPO with and without its anchor, against steps."""
    from logpi.runs.metrics import read_metrics
    from logpi.runs.plots import COLOURS, Panel, figure, save

    panels = {
        "rewards/reward-model/mean": Panel("proxy: the reward model's score", "step"),
        "rewards/rule/mean": Panel("gold: the rule nobody was told", "step"),
        "entropy": Panel("entropy, nats a token", "step"),
    }
    picture = figure(list(panels.values()))
    lanes = (("ppo", f"PPO, β = {BETA:g}", COLOURS[0]), (FREE, "PPO without KL", COLOURS[1]))
    for name, label, colour in lanes:
        records = read_metrics(out / name)
        for axes, metric in zip(picture.axes, panels, strict=True):
            points = [(r["step"], r[metric]) for r in records if metric in r]
            axes.plot(*zip(*points, strict=True), color=colour, label=label)
    return save(picture, out / "hacking.png")
