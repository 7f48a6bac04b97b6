"""`logpi step-labels`: pairs of beginnings of responses, of which one leads to the right answer
more often: data for a process reward model.

    responses ─▶ cut after each step ─▶ each beginning continued `--rollouts` times ─▶ the share
    that ends right ─▶ pairs

Labels are Math-Shepherd's (arXiv:2312.08935): the policy's own continuations, judged by the task's
verifier. `logpi reward-model --data OUT` learns from the pairs with the loss of any reward model,
so that its scores of beginnings compare. `--step ""` makes pairs of whole responses: an outcome
reward model. Both models serve `logpi compute --scorer model:PATH` and `logpi eval --judge`.

    OUT/beginnings.jsonl           every beginning and its share
    OUT/train.jsonl, test.jsonl    pairs, of different prompts

Left out: labels by people, and scoring a response by the least of its steps.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from random import Random
from typing import TYPE_CHECKING, Any

from logpi.errors import UserError, as_user_errors
from logpi.jobs.common import opened, prompts_and_judge, settle_threads
from logpi.jobs.options.fields import changed, option
from logpi.jobs.options.model import ModelArguments
from logpi.jobs.options.run import RunArguments, available, read
from logpi.jobs.options.sampling import DecodingArguments

if TYPE_CHECKING:
    from torch import Generator

    from logpi.evaluation.scorers import PartialResponse
    from logpi.rewards import Rewards

TEST_SHARE = 0.1  # of the prompts


@dataclass(frozen=True, kw_only=True)
class StepLabels(ModelArguments, DecodingArguments, RunArguments):
    """Arguments of `logpi step-labels`."""

    task: str = option(
        "addition", help="prompts with answers: a built-in task, a file of rows, or a hub name"
    )
    rewards: tuple[str, ...] = option(
        (), help="the first says what is right (default: the task's own)", nargs="*"
    )
    step: str = option("\\n", help="what ends a step; an empty text: whole responses alone")
    prompts: int = option(256, help="of the task's training rows", least=1, most=2**20)
    samples: int = option(4, help="responses to each of them", least=1, most=2**16)
    rollouts: int = option(8, help="continuations of each beginning", least=1, most=2**16)
    per_prompt: int = option(8, help="pairs of one prompt at most", least=1)
    gap: float = option(0.25, help="least difference of the two shares of a pair", above=0, most=1)
    slots: int = changed(DecodingArguments, "slots", 256)


def main(argv: Sequence[str]) -> int:
    a = read(StepLabels, argv, "step-labels", "Pairs of beginnings, for a process reward model.")
    available(a)
    settle_threads(a)
    from logpi.jobs.rejection import chunked, write_rows
    from logpi.runs.progress import Progress

    with as_user_errors():
        rows, judge = prompts_and_judge(a)
        label = Labeller(a, judge)
        rows = label.prompts.check(list(rows), "prompts")
    with opened(a, "step-labels") as home, Progress(len(rows)) as progress:
        labels = chunked(
            home.path, rows, label, seed=a.seed, progress=lambda done, _: progress.step(done, {})
        )
        write_rows(home.path / "beginnings.jsonl", labels)
        train, test = pairs(labels, a.gap, a.per_prompt, a.seed)
        if not train or not test:
            raise UserError(
                f"too few of {len(labels)} beginnings differ by --gap {a.gap} from another of their"
                " prompt, so there are no pairs to learn from or none to test on: more --samples,"
                " --rollouts or --prompts, or prompts that are answered right sometimes, neither"
                " always nor never"
            )
        write_rows(home.path / "train.jsonl", train)
        write_rows(home.path / "test.jsonl", test)
    print(
        f"{len(labels)} beginnings of {len(rows)} prompts, {len(train)} pairs to learn from,"
        f" {len(test)} held out\nlearn from them: logpi reward-model --model {a.model} --data"
        f" {home.path}",
        file=sys.stderr,
    )
    return 0


class Labeller:
    """Samples responses to rows, cuts them after each step, and labels each distinct beginning with
    the share of its continuations that end right."""

    def __init__(self, a: StepLabels, judge: Rewards) -> None:
        from logpi.engine.engine import Engine
        from logpi.engine.sampling import Sampling

        self.a, self.judge = a, judge
        self.policy = a.load(temperature=a.temperature)
        self.engine = Engine(self.policy, slots=a.slots)
        self.sampling = Sampling(max_tokens=a.max_completion_length)
        self.prompts = a.prompt_filter(self.policy, a.template(self.policy))

    def __call__(self, rows: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
        """A record of each distinct beginning of the rows' responses."""
        import torch

        from logpi.evaluation.scorers import ContinuationScorer

        generator = torch.Generator().manual_seed(seed)
        beginnings = self._beginnings(rows, generator)
        scorer = ContinuationScorer(
            self.policy, self.engine, self.judge, self.a.rollouts, self.sampling, generator
        )
        return [
            {
                "prompt": p.row["prompt"],
                "answer": p.row.get("answer"),
                "beginning": p.text,
                "ended": bool(p.stop),
                "share": share,
            }
            for p, share in zip(beginnings, scorer(beginnings), strict=True)
            if share >= 0
        ]

    def _beginnings(
        self, rows: Sequence[dict[str, Any]], generator: Generator
    ) -> list[PartialResponse]:
        """The responses to each row up to each of their steps, each text once."""
        from logpi.engine.sampling import Request
        from logpi.evaluation.scorers import PartialResponse, prefixes

        step = self.a.step.replace("\\n", "\n")
        requests = [Request(self.prompts.ids(r), self.a.samples) for r in rows]
        sampled = self.engine.generate(requests, self.sampling, generator)
        distinct: dict[tuple[int, str], PartialResponse] = {}
        for i, completions in enumerate(sampled):
            for c in completions:
                text = self.policy.template.decode(c.tokens)
                prompt = requests[i].prompt
                whole = PartialResponse(rows[i], prompt, c.tokens, c.logp, text, c.stop)
                parts = prefixes(self.policy, whole, step)
                distinct |= {(i, p.text): p for p in parts if p.text.strip()}
        return list(distinct.values())


def pairs(
    labels: Sequence[dict[str, Any]], gap: float, per_prompt: int, seed: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Pairs to learn from and to test on: beginnings of one prompt whose shares differ by `gap` at
    least, the larger chosen.

    `margin` is the difference of the shares.

    >>> shares = {"a": 0.75, "b": 0.25, "c": 0.625}
    >>> labels = [{"prompt": "?", "beginning": b, "share": s} for b, s in shares.items()]
    >>> train, _ = pairs(labels, gap=0.25, per_prompt=8)
    >>> sorted((p["chosen"], p["rejected"], p["margin"]) for p in train)
    [('a', 'b', 0.5), ('c', 'b', 0.375)]
    """
    rng, of = Random(seed), dict[str, list[dict[str, Any]]]()
    for x in labels:
        of.setdefault(json.dumps(x["prompt"], sort_keys=True), []).append(x)
    groups: list[list[dict[str, Any]]] = []
    for some in of.values():
        every = [(x, y) for x, y in permutations(some, 2) if x["share"] - y["share"] >= gap]
        groups.append(
            [
                {
                    "prompt": x["prompt"],
                    "chosen": x["beginning"],
                    "rejected": y["beginning"],
                    "margin": x["share"] - y["share"],
                }
                for x, y in rng.sample(every, min(per_prompt, len(every)))
            ]
        )
    groups = [group for group in groups if group]
    held_out = round(len(groups) * TEST_SHARE) or int(len(groups) > 1)
    test, train = groups[:held_out], groups[held_out:]
    return [p for group in train for p in group], [p for group in test for p in group]
