"""`logpi harvest`: a teacher's responses, judged and cleaned, as demonstrations for `logpi sft`.

    logpi harvest --model TEACHER --task openai/gsm8k:main --out runs/harvest-1
    logpi harvest --server http://127.0.0.1:8000/v1 --task rows.jsonl --rewards math
    logpi sft --model STUDENT --task runs/harvest-1/train.jsonl

This is distillation as DeepSeek-R1 does it: the student learns from right answers of the teacher.
A teacher of another family will do, because only its texts are used. `--algorithm distill` of
`logpi rl` is the other way, on the student's own samples.

    OUT/train.jsonl     the kept responses; samples.jsonl: all, with their fate; counts.json

Left out: the chunks that make a stopped harvest go on, and the rules (`rejection.py`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.distributed.world import current
from logpi.errors import UserError, as_user_errors
from logpi.jobs.common import opened, prompts_and_judge, settle_threads
from logpi.jobs.options.fields import changed, option
from logpi.jobs.options.model import ModelArguments
from logpi.jobs.options.run import RunArguments, available, read
from logpi.jobs.options.sampling import SamplingArguments

if TYPE_CHECKING:
    from logpi.envs.task import Row
    from logpi.jobs.rejection import Sample, SampleRows
    from logpi.policies.causal_lm import CausalLM
    from logpi.rewards import Rewards
    from logpi.rollouts.chat import Chat


@dataclass(frozen=True, kw_only=True)
class Harvest(ModelArguments, SamplingArguments, RunArguments):
    """Arguments of `logpi harvest`."""

    model: str = changed(ModelArguments, "model", "", help="the teacher: a directory or a hub name")
    server: str = option(
        "", help="a teacher behind an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1"
    )
    server_model: str = option("", help="its name there (default: the only one)")
    task: str = option(
        "addition", help="prompts with answers: a built-in task, a file of rows, or a hub name"
    )
    rewards: tuple[str, ...] = option(
        (), help="what judges the responses (default: the task's own)", nargs="*"
    )
    least: tuple[float, ...] = option(
        (),
        help="least value of each reward in a kept response (default: 1 each)",
        nargs="*",
        least=-1e9,
        most=1e9,
    )
    prompts: int = option(256, help="of the task's training rows", least=1, most=2**20)
    per_prompt: int = option(4, help="responses to one prompt that are kept at most", least=1)
    shortest: int = option(1, help="tokens of a kept response at least", least=0)

    def __post_init__(self) -> None:
        if bool(self.model) == bool(self.server):
            raise ValueError("a harvest has one teacher: --model DIR or --server URL")


def main(argv: Sequence[str]) -> int:
    run(read(Harvest, argv, "harvest", "A teacher's responses, judged, as demonstrations."))
    return 0


def run(a: Harvest) -> None:
    """Ask, judge, clean and count, and say in a line what came of it.

    Raises:
        UserError: nothing was kept, or the options do not fit each other.
    """
    available(a)
    settle_threads(a)
    from logpi.jobs.rejection import harvest
    from logpi.runs.progress import Progress

    with as_user_errors():
        rows, judge = prompts_and_judge(a)
        rules = rules_of(a, judge.names)
        with Progress(len(rows)) as progress:
            sample = _teacher(a, judge, rows, progress.phase)
            with opened(a, "harvest") as home:
                harvest(
                    home.path,
                    sample,
                    rows,
                    judge,
                    rules,
                    seed=a.seed,
                    progress=lambda done, _: progress.step(done, {}),
                )
    if current().first:
        file = home.path / "train.jsonl"
        print(
            f"{in_one_line(home.path / 'counts.json', 'harvest')}\nlearn from them: logpi sft"
            f" --model STUDENT --task {file}",
            file=sys.stderr,
        )


def rules_of(a: Harvest, names: Sequence[str]) -> Any:
    """Which responses are kept. Raises UserError if `least` does not fit the rewards."""
    from logpi.jobs.rejection import Rules

    if a.least and len(a.least) != len(names):
        raise UserError(
            f"--least has {len(a.least)} values for {len(names)} rewards ({', '.join(names)})"
        )
    least = dict(zip(names, a.least or [1.0] * len(names), strict=True))
    return Rules(least, a.shortest, a.max_completion_length, a.per_prompt)


def in_one_line(path: Path, name: str) -> str:
    """The counts of a harvest in one line."""
    c = json.loads(path.read_text())
    filtered = ", ".join(f"{n} {reason}" for reason, n in c["filtered"].items()) or "none"
    general = f"; {c['general']} general rows mixed in" if "general" in c else ""
    return (
        f"{name}: {c['sampled']} sampled for {c['prompts']} prompts, {c['kept']} kept; filtered:"
        f" {filtered}{general}"
    )


def _teacher(
    a: Harvest, judge: Rewards, rows: Sequence[Row], tell: Callable[[str], None]
) -> SampleRows:
    if a.server:
        return served(a, judge)
    policy = a.load(temperature=a.temperature)
    a.fitting(rows, policy, a.template(policy))
    return sampled(lambda: policy, a.template, judge, a.samples, a.sampling(()), a.slots, tell)


def sampled(
    load: Callable[[], CausalLM],
    template: Callable[[CausalLM], Chat],
    judge: Rewards,
    samples: int,
    sampling: Any,
    slots: int,
    tell: Callable[[str], None],
) -> SampleRows:
    """Samples and judges responses of a model in this process, which is loaded when it is first
    asked."""
    import torch

    from logpi.engine.engine import Engine
    from logpi.engine.sampling import Request
    from logpi.jobs.rejection import records
    from logpi.rollouts.responses import ResponseSampler

    def sample(rows: Sequence[Row], seed: int) -> list[Sample]:
        policy = load()
        chat = template(policy)
        requests = [Request(chat(policy, r["prompt"]), samples) for r in rows]
        sampler = ResponseSampler(
            policy,
            Engine(policy, slots=slots),
            judge,
            sampling,
            progress=lambda done, total: tell(f"sampling {done}/{total}"),
        )
        responses = sampler(rows, requests, torch.Generator().manual_seed(seed))[0]
        return [record for r in responses for record in records(r)]

    return sample


def served(a: Harvest, judge: Rewards, transport: Any = None) -> SampleRows:
    """Asks a server for responses, and judges them here."""
    from logpi.engine.chat_server import ChatServer
    from logpi.evaluation.scorers import score_rows

    server = ChatServer(a.server, a.server_model, transport)
    server.served()
    settings: dict[str, Any] = {
        "temperature": a.temperature,
        "top_p": a.top_p,
        "max_tokens": a.max_completion_length,
    }
    if a.stop:
        settings["stop"] = list(a.stop)

    def sample(rows: Sequence[Row], seed: int) -> list[Sample]:
        ask = partial(server, [_messages(r["prompt"]) for r in rows], a.samples)
        answers = current().by_first(lambda: ask(**settings, seed=seed % 2**31))
        pairs = [(r, x) for r, some in zip(rows, answers, strict=True) for x in some]
        scores = score_rows(judge, [r for r, _ in pairs], [x.text for _, x in pairs])
        return [
            {
                **{k: v for k, v in row.items() if k != "completion"},
                "completion": x.text,
                "tokens": x.tokens or 1,
                "stop": x.stop,
                "rewards": dict(s.parts),
                "errors": dict(s.errors),
            }
            for (row, x), s in zip(pairs, scores, strict=True)
        ]

    return sample


def _messages(prompt: Any) -> Sequence[Mapping[str, Any]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
