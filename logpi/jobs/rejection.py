"""Rejection sampling: a model's own responses, judged and cleaned, become demonstrations. The
reasons for which others are dropped are counted.

    samples.jsonl   every response with its rewards and its fate: kept, or the reason why not
    train.jsonl     the kept ones, mixed with other demonstrations if there are any
    counts.json     prompts, sampled, kept, filtered by reason, mixed in

A chunk of prompts has its own seed and its own file, so a killed job resumes where it was and ends
with the same files. Each response is counted under the first rule that it fails, in the order of
`Rules`. Left out: training (`logpi sft`), and choosing by a learned score
(`pooling.best_of`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from logpi.distributed.world import current
from logpi.envs.task import Row
from logpi.errors import RunError, UserError
from logpi.evaluation.scorers import score_rows
from logpi.rewards import Rewards
from logpi.rewards.text import squeeze
from logpi.rollouts.responses import Responses
from logpi.runs import disk
from logpi.runs.metrics import write_rows

Sample = dict[str, Any]
SampleRows = Callable[[Sequence[Row], int], list[Sample]]
"""Samples and judges the responses to some rows; the integer is the seed to do it with."""
Done = Callable[[int, int], None]
"""Called with how many prompts are done, and of how many."""
CHUNK = 64  # prompts
# share of responses with the format, up to which the model does not know it
RARE = 0.02


@dataclass(frozen=True)
class Rules:
    """Which responses are kept.

    Attributes:
        least: reward → the least value of a kept response, checked in this order; the reward's name
            is the reason.
        shortest, longest: tokens, both allowed. per_prompt: kept for each prompt, those sampled
            first.
    """

    least: Mapping[str, float] = field(default_factory=dict)
    shortest: int = 1
    longest: int = 1_000_000
    per_prompt: int = 4

    def __call__(self, sample: Sample) -> str:
        """Why a response is not kept, or ""."""
        if sample["stop"] == "length":
            return "truncated"
        if not sample["completion"].strip():
            return "empty"
        for name, least in self.least.items():
            value = sample["rewards"].get(name)
            if value is None:
                return f"no verdict of {name}"
            if value < least:
                return name
        if sample["tokens"] < self.shortest:
            return "too short"
        return "too long" if sample["tokens"] > self.longest else ""


def harvest(
    path: Path,
    sample: SampleRows,
    rows: Sequence[Row],
    rewards: Rewards,
    rules: Rules,
    *,
    seed: int = 0,
    progress: Done | None = None,
    unformatted: str = "Ask for it in the prompts (--prompt-template, --system)",
) -> list[Row]:
    """Sample, judge, clean and count; all in `path`. Chunks made before a kill are not made again.

    Args:
        rows: the prompts, as many as are to be asked. rewards: judge the kept ones a second time
            (see `clean`).
        progress: called after each chunk. unformatted: what helps where no response has the format.
    Returns: the kept rows: prompt, completion and the row's other columns.
    Raises:
        UserError: nothing was kept; says what to try. Every sample is on disk.
    """
    samples = chunked(path, rows, sample, seed=seed, progress=progress)
    return current().by_first(lambda: _kept(path, samples, rewards, rules, unformatted))


def _kept(
    path: Path, samples: list[Sample], rewards: Rewards, rules: Rules, unformatted: str
) -> list[Row]:
    """Clean, count and write."""
    kept = clean(samples, rewards, rules)
    counts = _counts(samples)
    write_rows(path / "samples.jsonl", samples)
    if not kept:
        reasons = ", ".join(f"{n} {reason}" for reason, n in counts["filtered"].items())
        formless = _formless(samples, rewards, unformatted)
        # who is cut off could not finish the format: both are said
        other = "truncated" in list(counts["filtered"])[:1] or not formless
        advice = ". ".join([_advice(counts["filtered"])] * other + [formless] * bool(formless))
        raise UserError(
            f"none of {len(samples)} samples passed: {reasons}. All of them are in"
            f" {path / 'samples.jsonl'}. {advice}"
        )
    write_rows(path / "train.jsonl", kept)
    write_counts(path, counts)
    return kept


def chunked(
    path: Path,
    rows: Sequence[Row],
    make: SampleRows,
    *,
    seed: int = 0,
    progress: Done | None = None,
) -> list[Sample]:
    """The records that `make` makes of all rows, a chunk at a time with a seed of its own; each
    chunk is written whole under `path`/chunks.

    What was made before a kill is read.
    """
    world = current()
    out: list[Sample] = []
    for chunk, first in enumerate(range(0, len(rows), CHUNK)):
        place = path / "chunks" / f"{chunk:05d}.jsonl"
        if not world.by_first(place.exists):
            records = make(rows[first : first + CHUNK], seed * 1_000_003 + chunk)
            world.by_first(partial(write_rows, place, records))
        out += read_rows(place)
        if progress is not None:
            progress(min(first + CHUNK, len(rows)), len(rows))
    return out


def write_counts(path: Path, counts: Mapping[str, Any]) -> None:
    """The last file of a harvest: with it, it is whole."""
    disk.write(path / "counts.json", json.dumps(counts, indent=1).encode())


def records(answers: Responses) -> list[Sample]:
    """What is recorded of a row's responses."""
    row = {k: v for k, v in answers.row.items() if k != "completion"}
    return [
        {
            **row,
            "completion": text,
            "tokens": len(c.tokens),
            "stop": c.stop,
            "rewards": dict(s.parts),
            "errors": dict(s.errors),
        }
        for c, text, s in zip(answers.completions, answers.texts, answers.scores, strict=True)
    ]


def clean(samples: Sequence[Sample], rewards: Rewards, rules: Rules) -> list[Row]:
    """The kept samples as rows. Each sample gets its `fate`: "kept", or the reason why not.

    After the rules: a response word for word like one kept for its prompt is a `duplicate`, one
    more than `per_prompt` is `surplus`. What is left is judged once more, and a response whose
    verdict was another this time is `unstable`: neither verdict can be trusted.
    """
    seen: Counter[str] = Counter()
    texts: set[tuple[str, str]] = set()
    kept = []
    for sample in samples:
        prompt = json.dumps(sample["prompt"], sort_keys=True)
        fate = rules(sample)
        if not fate and (prompt, squeeze(sample["completion"])) in texts:
            fate = "duplicate"
        if not fate and seen[prompt] >= rules.per_prompt:
            fate = "surplus"
        if not fate:
            seen[prompt] += 1
            texts.add((prompt, squeeze(sample["completion"])))
            kept.append(sample)
        sample["fate"] = fate or "kept"
    for sample, parts in zip(kept, _judged(kept, rewards), strict=True):
        if any(parts.get(name) != sample["rewards"].get(name) for name in rules.least):
            sample["fate"] = "unstable"
    return [_row(s) for s in kept if s["fate"] == "kept"]


def _row(sample: Sample) -> Row:
    """A sample without what the harvest recorded of it."""
    own = ("tokens", "stop", "rewards", "errors", "fate")
    return {k: v for k, v in sample.items() if k not in own}


def _judged(samples: Sequence[Sample], rewards: Rewards) -> list[Mapping[str, float | None]]:
    """Each sample's rewards, judged now."""
    if not samples:
        return []
    texts = [s["completion"] for s in samples]
    return [s.parts for s in score_rows(rewards, list(map(_row, samples)), texts)]


def _counts(samples: Sequence[Sample]) -> dict[str, Any]:
    fates = Counter(s["fate"] for s in samples)
    kept = fates.pop("kept", 0)
    prompts = [(json.dumps(s["prompt"], sort_keys=True), s["fate"]) for s in samples]
    return {
        "prompts": len({prompt for prompt, _ in prompts}),
        "prompts_with_one": len({prompt for prompt, fate in prompts if fate == "kept"}),
        "sampled": len(samples),
        "kept": kept,
        "filtered": dict(fates.most_common()),
    }


def mixed(kept: Sequence[Row], other: Sequence[Row], share: float, seed: int = 0) -> list[Row]:
    """Both, shuffled, `other` making up `share` of the whole (R1: a quarter); all of it where there
    is too little.

    Raises:
        ValueError: a share outside [0, 1).

    >>> len(mixed([{"prompt": "a"}] * 6, [{"prompt": "b"}] * 10, 0.25))
    8
    """
    if not 0 <= share < 1:
        raise ValueError(
            f"the share of other demonstrations lies between 0 and 1 (without 1), not {share}"
        )
    rng = Random(seed)
    count = round(len(kept) * share / (1 - share))
    rows = [*kept, *rng.sample(list(other), min(count, len(other)))]
    rng.shuffle(rows)
    return rows


def probe(rows: Sequence[Row], rewards: Rewards, others: Sequence[str] = ()) -> str:
    """Whether the first reward, the verifier, accepts the rows' own answers, twice alike; a notice
    if not always, else "".

    One that reads other columns (unit tests, say) is only asked twice. others: verifiers, of which
    a mistake names those that accept every answer.

    Raises:
        UserError: it can read no row's answer, accepts none of them, or says one thing and then
            another.
    """
    name = rewards.names[0]
    texts = [f"<think>so</think> <answer>{_gold(r)}</answer>" for r in rows]
    samples = [{**r, "completion": t} for r, t in zip(rows, texts, strict=True)]
    first, again = ([p.get(name) for p in _judged(samples, rewards)] for _ in range(2))
    if first != again:
        n = sum(a != b for a, b in zip(first, again, strict=True))
        raise UserError(
            f"the verifier {name!r} disagrees with itself: asked twice, it changed {n} of"
            f" {len(rows)} verdicts. Make it deterministic (a fixed seed, no clock, a longer time"
            " limit), or choose another"
        )
    needs = getattr(rewards.parts[0].function, "needs", ())
    if needs and "answer" not in needs:
        return ""
    example = f"e.g. {str(rows[0].get('answer'))[:60]!r}"
    if all(v is None for v in first):
        raise UserError(
            f"none of the first {len(rows)} rows has an answer that {name!r} can read ({example}):"
            f" check the column `answer`, or choose another verifier{_fitting(samples, others)}"
        )
    accepted = sum((v or 0.0) >= 1.0 for v in first)
    if not accepted:
        raise UserError(
            f"{name!r} accepts none of the rows' own answers in <answer></answer> ({example}): no"
            " policy could ever be right. Choose a verifier that fits the answers"
            f"{_fitting(samples, others)}"
        )
    if accepted == len(rows):
        return ""
    return f"{name!r} accepts the own answer of only {accepted} of {len(rows)} rows"


def _fitting(samples: Sequence[Sample], others: Sequence[str]) -> str:
    """Those of `others` that accept every sample, or read other columns than `answer`."""
    from logpi.rewards import rewards

    def fits(word: str) -> bool:
        judge = rewards(word)
        needs = getattr(judge.parts[0].function, "needs", ())
        if needs and "answer" not in needs:
            return {*needs} <= {*samples[0]}
        verdicts = [p.get(judge.names[0]) for p in _judged(samples, judge)]
        return all((v or 0.0) >= 1.0 for v in verdicts)

    known = [word for word in others if fits(word)]
    return f": {', '.join(known)}" if known else ""


def _gold(row: Row) -> str:
    answer = row.get("answer")
    return str(answer[0] if isinstance(answer, list) and answer else answer)


def _formless(samples: Sequence[Sample], rewards: Rewards, unformatted: str) -> str:
    """What to say where next to no response that ended has the form that a reward asks for: then
    neither more of them nor easier prompts help. Else ""."""
    ended = [s for s in samples if s["stop"] != "length"]
    for part in rewards.parts:
        tags = getattr(part.function, "tags", ())
        well = sum((s["rewards"].get(part.name) or 0.0) > 0 for s in ended)
        if tags and ended and well <= RARE * len(ended):
            return (
                f"The model does not write the format, {' … '.join(tags)} ({well} of"
                f" {len(ended)} whole responses): more samples do not help. {unformatted}"
            )
    return ""


def _advice(filtered: Mapping[str, int]) -> str:
    reason = next(iter(filtered), "")
    if reason == "truncated":
        return "Try a larger --max-completion-length, or more steps of the stage before"
    if reason.startswith("no verdict"):
        return "The verifier said nothing: check the rows' answers, and `errors` in the samples"
    if reason == "unstable":
        return "The verifier disagrees with itself: make it deterministic"
    return (
        f"Most fell at {reason!r}: try more --samples, more steps of the stage before, or easier"
        " prompts"
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What `write_rows` wrote."""
    with disk.reported(f"read {path}"):
        try:
            return [
                json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line
            ]
        except ValueError as error:
            raise RunError(
                f"{path} is damaged: {error}; without it, its part is made again"
            ) from None
