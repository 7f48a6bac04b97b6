"""`logpi demo`: a small language model is made, copies a few demonstrations, and learns to reason
by itself. Nothing is downloaded.

Most demonstrations of two-digit sums give a near miss at once; a few work digit by digit and are
right. Supervised fine-tuning copies both habits. Reinforcement learning sees only whether the
answer is right, and so learns to work: answers grow longer because thinking pays. The stages are
ordinary jobs (`sft`, `rl`) chained by their run directories; the same --out resumes a stopped
demo. Left out: real text, and models of a useful size (`logpi r1`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.demos.chain import ChainArguments, base_model, home, stage
from logpi.errors import as_user_errors
from logpi.jobs.options.algorithm import flags_of_algorithm
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option
from logpi.jobs.options.model import placed
from logpi.jobs.rl import RL, algorithm_of
from logpi.jobs.sft import SFT

if TYPE_CHECKING:
    from logpi.evaluation.evaluator import Evaluator
    from logpi.policies.causal_lm import CausalLM

TASK = "addition(worked=0.25)"
PROMPTS = 32  # for each update of reinforcement learning
LENGTH = 32  # tokens of a completion; a worked answer has about 18
ITEMS = 400  # held-out sums, drawn from about as many


@dataclass(frozen=True, kw_only=True)
class ReasoningDemo(ChainArguments):
    """Arguments of `logpi demo`."""

    algorithm: str = option("grpo", help="any row of `logpi algorithms` that learns from rewards")
    options: Mapping[str, Any] = option(
        {}, help="its settings, e.g. beta=0.04 epochs=2", nargs="*", flags=flags_of_algorithm
    )
    sft_steps: int = option(600, help="updates of supervised fine-tuning", least=1, most=100_000)
    steps: int = option(80, help="updates of reinforcement learning", least=1, most=100_000)
    lr: float = option(
        1e-4,
        help="learning rate of reinforcement learning; 1e-3 shows a collapse",
        least=0,
        most=10,
    )


def main(argv: Sequence[str]) -> int:
    a = parse(ReasoningDemo, argv, "logpi demo", __doc__ or "")
    placed(a.device)
    with as_user_errors():
        algorithm_of(rl(a, Path()))  # before anything is made
    start = time.perf_counter()
    with home(a, "demo") as chain:
        out = chain.path
        rows = [_measured(a, "untrained", base(a, out), 0.0)]
        rows.append(_measured(a, "SFT", *stage(sft(a, out))))
        rows.append(_measured(a, a.algorithm, *stage(rl(a, out))))
        _report(rows, out, time.perf_counter() - start)
    return 0


def base(a: ReasoningDemo, out: Path) -> Path:
    """The untrained model, as a Hugging Face directory."""
    from logpi.envs.tasks import Addition
    from logpi.policies.small import small_policy

    return base_model(out / "base", lambda: small_policy(Addition().alphabet, seed=a.seed))


def sft(a: ReasoningDemo, out: Path) -> SFT:
    """The arguments of its supervised stage."""
    return SFT(
        model=str(out / "base"),
        task=TASK,
        steps=a.sft_steps,
        rows=128,
        lr=2e-3,
        warmup=20,
        seed=a.seed,
        save_every=200,
        device=a.device,
        out=out / "sft",
    )


def rl(a: ReasoningDemo, out: Path) -> RL:
    """The arguments of its reinforcement learning."""
    from logpi.algorithms import options as known

    with as_user_errors():
        free = (
            {"beta": 0} if "beta" in {o.name for o in known(a.algorithm)} else {}
        )  # there is nothing that a reference should protect
    return RL(
        model=str(out / "sft" / "model"),
        task=TASK,
        algorithm=a.algorithm,
        options={**free, **a.options},
        steps=a.steps,
        prompts=PROMPTS,
        num_generations=8,
        max_completion_length=LENGTH,
        lr=a.lr,
        warmup=5,
        seed=a.seed,
        eval_every=20,
        eval_items=ITEMS,
        slots=256,
        device=a.device,
        out=out / "rl",
    )


def _measured(a: ReasoningDemo, stage: str, model: Path, seconds: float) -> dict[str, Any]:
    """Held-out accuracy of a stage's model, and what it answers."""
    from logpi.policies.causal_lm import CausalLM

    numbers, samples = evaluator(CausalLM.load(model, device=a.device), samples=4)()
    return {"stage": stage, "seconds": seconds, "samples": samples, **numbers}


def evaluator(policy: CausalLM, samples: int = 1) -> Evaluator:
    """Measures a policy on the held-out sums, by answers drawn and by the likeliest one."""
    from logpi.engine.engine import Engine
    from logpi.engine.sampling import Sampling
    from logpi.envs.tasks import task
    from logpi.evaluation.evaluator import Evaluator

    t = task(TASK)
    return Evaluator(
        policy,
        Engine(policy, slots=256),
        t.rows("test")[:ITEMS],
        t.reward,
        Sampling(max_tokens=LENGTH),
        samples=samples,
    )


def _report(rows: Sequence[dict[str, Any]], out: Path, seconds: float) -> None:
    print(
        f"\n{'stage':<14}{'right (sampled)':>16}{'right (greedy)':>16}{'tokens':>8}{'seconds':>9}"
    )
    for r in rows:
        print(
            f"{r['stage']:<14}{r['eval/pass@1']:>16.1%}{r['eval/greedy']:>16.1%}{r['eval/mean_length']:>8.1f}{r['seconds']:>9.0f}"
        )
    print("\nOne held-out sum, four answers from each stage:")
    for r in rows:
        s = r["samples"][1]
        answers = "   ".join(
            f"{t}{' ✓' if ok else ''}" for t, ok in zip(s["completions"], s["right"], strict=True)
        )
        print(f"  {r['stage']:<12}{s['prompt']}  {answers}")
    print(
        f"\n{seconds:.0f} s in all. curves: {out}/rl/curves.png   model: {out}/rl/model   every"
        f" sample: {out}/rl/samples/"
    )
    print(
        f"Talk to it: logpi chat --model {out}/rl/model   (type a sum, e.g. 47+85=)",
        file=sys.stdout,
    )
