"""A whole GRPO step beside TRL's: same model, prompts, group size, token limit, reward, loss and
optimiser; time and memory.

    python benchmarks/grpo_step.py [--peer PYTHON]
        the small in-house model
    python benchmarks/grpo_step.py --model DIR --prompts 2 --tokens 64 --peer PYTHON
    python benchmarks/grpo_step.py --prompts 8 --prompt-tokens 512 --peer PYTHON
        prompts with examples in front
    python benchmarks/grpo_step.py --model DIR --device cuda --dtype bfloat16 --peer PYTHON
        on one GPU; untried on a real one

PYTHON is an interpreter that has trl (left out: only ours is measured). Every round is a fresh
process for each side, in turn, the first step a warm-up. A step is sampling, rewards, loss,
backward, optimiser. TRL runs as it comes for this work (`model.generate`, padded) but without
gradient checkpointing, which would cost it time; `--checkpointing` switches it on for both. Rows
end by themselves and differ in length, so times are also given for each sampled token. Memory is
the largest resident set above that of the process with the model loaded (on a GPU, of the allocated
bytes there): gradients, Adam's moments (8 bytes a weight), activations, caches. In bfloat16 TRL
trains its weights as they are, under autocast; ours keeps 32 bits beside them.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from common import Place, Results, child, report, spread

SIDES = ("logpi", "trl")
LR = 1e-6


def score(completions: list[Any], **columns: Any) -> list[float]:
    """A reward that costs nothing and differs within a group, so that no side may skip its work."""
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    return [sum(map(ord, text)) % 11 / 10 for text in texts]


def options() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--model", help="a directory (default: a fresh small model)")
    p.add_argument("--peer", help="a Python that has trl")
    p.add_argument("--prompts", type=int, default=32)
    p.add_argument("--group", type=int, default=8)
    p.add_argument("--tokens", type=int, default=32, help="most tokens of a completion")
    p.add_argument(
        "--prompt-tokens",
        type=int,
        help="put examples in front of prompts until they have so many (default: none)",
    )
    p.add_argument("--steps", type=int, default=4, help="timed steps of a process")
    p.add_argument("--rounds", type=int, default=3, help="processes for each side, in turn")
    p.add_argument("--checkpointing", action="store_true")
    p.add_argument(
        "--micro-tokens",
        type=int,
        help="ours: columns of a forward and backward (default: as it comes)",
    )
    Place.options(p)
    p.add_argument("--json", type=Path, metavar="FILE")
    p.add_argument("--resume", action="store_true", help="go on with what FILE holds")
    p.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    p.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    return p


def examples(a: argparse.Namespace, rng: random.Random) -> str:
    """Solved sums, until a prompt with them in front has `--prompt-tokens` tokens; the same ones
    for every prompt."""
    from transformers import AutoTokenizer

    tokenizer, text, question = AutoTokenizer.from_pretrained(a.model), "", "123456+654321="
    while len(tokenizer(text + question)["input_ids"]) < (a.prompt_tokens or 0):
        x, y = rng.randint(10**5, 10**6 - 1), rng.randint(10**5, 10**6 - 1)
        text += f"{x}+{y}={x + y} "
    return text


def write_rows(a: argparse.Namespace, chat: bool) -> None:
    """Sums of six digits, perhaps with examples in front; as messages for a chat model."""
    rng, head = random.Random(0), examples(a, random.Random(1))
    texts = [
        f"{head}{rng.randint(10**5, 10**6 - 1)}+{rng.randint(10**5, 10**6 - 1)}="
        for _ in range(4 * a.prompts)
    ]
    prompts = [[{"role": "user", "content": t}] for t in texts] if chat else texts
    a.rows.write_text("".join(json.dumps({"prompt": p, "answer": ""}) + "\n" for p in prompts))


def logpi_side(a: argparse.Namespace) -> dict[str, Any]:
    from logpi.algorithms import algorithm
    from logpi.engine.engine import Engine
    from logpi.engine.sampling import Sampling
    from logpi.envs.tasks import task
    from logpi.jobs.rl_parts import ROUNDING
    from logpi.learner import Learner, Trust
    from logpi.objectives.policy_gradient import PolicyGradient, TruncatedIS
    from logpi.policies.causal_lm import CausalLM
    from logpi.rewards import rewards
    from logpi.rollouts.text_rollout import TextRollout
    from logpi.updates.adamw import AdamW

    place = Place.of(a)
    policy = CausalLM.load(
        a.model, device=place.device, dtype=place.dtype, gradient_checkpointing=a.checkpointing
    )
    before, rows = place.loaded(), a.prompts * a.group
    split = {"micro_tokens": a.micro_tokens} if a.micro_tokens else {}
    made, trust = algorithm("grpo", beta=0.0, **split), Trust()
    if place.dtype != "float32":  # as `logpi rl` has it
        assert isinstance(made.objective, PolicyGradient)
        made = replace(made, objective=replace(made.objective, correction=TruncatedIS()))
        trust = Trust(sampler=False, tolerance=ROUNDING, mean=True)
    rollout = TextRollout(
        policy,
        Engine(policy, slots=rows),
        task(str(a.rows)),
        rewards([f"{__file__}:score"]),
        algorithm=made,
        prompts=a.prompts,
        num_generations=a.group,
        sampling=Sampling(max_tokens=a.tokens),
    )
    learner = Learner(policy, made, AdamW(LR, betas=(0.9, 0.999)), trust=trust)
    steps = []
    for _ in range(a.steps + 1):
        start, cpu = place.now(), time.process_time()
        collected = rollout()
        between = place.now()
        learner.update(collected.batch)
        learner.release()
        end = place.now()
        steps.append(
            {
                "seconds": end - start,
                "generate": collected.metrics["time/generate"],
                "reward": collected.metrics["time/reward"],
                "update": end - between,
                "tokens": collected.metrics["num_tokens"],
                "cpu": time.process_time() - cpu,
            }
        )
    prompt = len(policy.render(json.loads(a.rows.read_text().splitlines()[0])["prompt"]))
    weights = sum(p.numel() for p in policy.parameters())
    return {
        "steps": steps[1:],
        "above_mb": place.peak() - before,
        "loaded_mb": before,
        "weights": weights,
        "prompt": prompt,
    }


def trl_side(a: argparse.Namespace) -> dict[str, Any]:
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

    place = Place.of(a)
    model: Any = AutoModelForCausalLM.from_pretrained(a.model, dtype=place.dtype)
    model.to(place.device)
    before, begun, steps = place.loaded(), [0.0, 0.0], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            begun[:] = place.now(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps.append({"seconds": place.now() - begun[0], "cpu": time.process_time() - begun[1]})

    with tempfile.TemporaryDirectory() as out:
        arguments = GRPOConfig(
            output_dir=out,
            per_device_train_batch_size=a.prompts * a.group,
            num_generations=a.group,
            max_steps=a.steps + 1,
            max_completion_length=a.tokens,
            beta=0.0,
            temperature=1.0,
            loss_type="grpo",
            learning_rate=LR,
            lr_scheduler_type="constant",
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            bf16=place.dtype == "bfloat16",
            use_cpu=not place.gpu,
            gradient_checkpointing=a.checkpointing,
            disable_tqdm=True,
        )
        data = load_dataset("json", data_files=str(a.rows), split="train", cache_dir=out)
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=score,
            args=arguments,
            train_dataset=data,
            callbacks=[Clock()],
            processing_class=AutoTokenizer.from_pretrained(a.model),
        )
        trainer.train()
        logs = [x for x in trainer.state.log_history if "completions/mean_length" in x]
    for step, log in zip(steps, logs, strict=True):
        step["tokens"] = log["completions/mean_length"] * a.prompts * a.group
    return {"steps": steps[1:], "above_mb": place.peak() - before, "loaded_mb": before}


def limit(run: dict[str, Any], machine: dict[str, Any], a: argparse.Namespace) -> float:
    """Seconds that a step of ours takes at least on this machine: weights read and operations done,
    nothing else.

    Each sampling step reads the weights once or does its products, whichever is longer; a token is
    2 operations a weight forward and 4 backward; prompts count once.
    """
    n, tokens = run["weights"], sum(s["tokens"] for s in run["steps"]) / len(run["steps"])
    once, rate = a.prompts * run["prompt"], machine["matmul_gflop_s"] * 1e9
    sampling = (
        max(a.tokens * Place.of(a).size * n / (machine["read_gb_s"] * 1e9), 2 * n * tokens / rate)
        + 2 * n * once / rate
    )
    return sampling + 6 * n * (tokens + once) / rate


def summary(
    runs: dict[str, list[dict[str, Any]]], machine: dict[str, Any], a: argparse.Namespace
) -> dict[str, Any]:
    prompt = runs["logpi"][0]["prompt"]
    out: dict[str, Any] = {
        "prompts": a.prompts,
        "group": a.group,
        "max_tokens": a.tokens,
        "prompt_tokens": prompt,
    }
    medians: dict[str, list[tuple[float, float]]] = {}
    for side, found in runs.items():
        medians[side] = [
            (
                spread([s["seconds"] for s in r["steps"]])["median"],
                spread([s["seconds"] / s["tokens"] for s in r["steps"]])["median"],
            )
            for r in found
        ]
        every = [s for r in found for s in r["steps"]]
        out[side] = {
            "s_per_step": spread([x for x, _ in medians[side]]),
            "sampled_tokens_per_s": spread([1 / y for _, y in medians[side]]),
            "cpu_s_per_step": spread([s["cpu"] for s in every])["median"],
            "tokens_per_step": spread([s["tokens"] for s in every])["median"],
            "above_mb": spread([r["above_mb"] for r in found])["median"],
        }
    ours = runs["logpi"]
    every = [s for r in ours for s in r["steps"]]
    for part in ("generate", "update", "reward"):
        out["logpi"][f"share_{part}"] = spread([s[part] / s["seconds"] for s in every])["median"]
    out["logpi"]["share_of_machine"] = (
        limit(ours[0], machine, a) / out["logpi"]["s_per_step"]["median"]
    )
    if "trl" in runs:
        pairs = list(zip(medians["trl"], medians["logpi"], strict=True))
        out["ratio_step"] = spread([t[0] / o[0] for t, o in pairs])
        out["ratio_token"] = spread([t[1] / o[1] for t, o in pairs])
        out["ratio_cpu"] = out["trl"]["cpu_s_per_step"] / out["logpi"]["cpu_s_per_step"]
        out["ratio_memory"] = out["logpi"]["above_mb"] / out["trl"]["above_mb"]
    return out


def main() -> None:
    a = options().parse_args()
    if a.side:
        report(logpi_side(a) if a.side == "logpi" else trl_side(a))
        return
    names = ("model", "prompts", "group", "tokens", "prompt_tokens", "steps", "checkpointing")
    place = Place.of(a)
    results = Results(a.json, a.resume, {k: getattr(a, k) for k in names} | place.given(), place)
    with tempfile.TemporaryDirectory() as home:
        if a.model is None:
            from logpi.policies.small import small_policy

            small_policy("0123456789+=-*/() abcdefghijklmnopqrstuvwxyz.,?:", context=1024).save(
                Path(home) / "model"
            )
            a.model = str(Path(home) / "model")
        a.rows = Path(home) / "rows.jsonl"
        write_rows(a, chat=(Path(a.model) / "chat_template.jinja").is_file())
        same = {k: getattr(a, k) for k in (*names, "rows") if k != "prompt_tokens"} | place.given()
        runs: dict[str, list[dict[str, Any]]] = {}
        for i in range(a.rounds):
            for side in SIDES if i % 2 == 0 else SIDES[::-1]:
                if side == "trl" and not a.peer:
                    continue
                own = {"micro-tokens": a.micro_tokens} if side == "logpi" else {}
                python = sys.executable if side == "logpi" else a.peer
                run = results.measure(
                    f"{side} {i}",
                    lambda s=side, o=own, p=python: child(__file__, same | o | {"side": s}, p),
                )
                runs.setdefault(side, []).append(run)
                print(
                    f"round {i} "
                    f" {side:<6}{spread([s['seconds'] for s in run['steps']])['median']:8.2f}"
                    " s/step",
                    flush=True,
                )
    results.summary = summary(runs, results.machine, a)
    results.save()
    print(json.dumps(results.summary, indent=1))
    if not a.peer:
        print("trl: left out (give a Python that has it with --peer)")


if __name__ == "__main__":
    main()
