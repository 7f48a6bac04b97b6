r"""What responses look like, as numbers on every step: the story that a reward curve alone does not
tell.

    story/reflection       reflective words in a response ("wait", "check", "however", 等, проверим, …)
    story/reflective       share of responses with at least one
    story/format           share that is <think>…</think><answer>…</answer>
    story/mixed            share with words of more than one script
    level/L                mean of the first reward over the rows whose column `level` is L
    eval/…                 the same of an evaluation

DeepSeek-R1-Zero's own list of reflective words is kept (Nature 645, 633, supplement: wait, mistake,
however, but, retry, error, verify, wrong, evaluate, check), with its kin in Chinese, Russian and
Arabic. Lengths and truncation are counted with the rollout (`completions/…`). Left out: judging
what the words mean; a model that says "wait" has not thought yet.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from logpi.rewards import ThinkAnswer
from logpi.rewards.language import is_mixed

if TYPE_CHECKING:
    from logpi.rollouts.responses import Answers

_WORDS = (
    "wait mistake however but retry error verify wrong evaluate check recheck double-check подожди"
    " проверим проверю однако ошибка انتظر تحقق خطأ"
)
_REFLECTIVE = re.compile(
    rf"\b(?:{'|'.join(_WORDS.split())})\b|等等|等|检查|查|然而|但是|错误|验证|重新", re.IGNORECASE
)
_FORMAT = ThinkAnswer()


def reflections(text: str) -> int:
    """Reflective words in `text`.

    >>> reflections("Wait, let me check. 等等, 13."), reflections("a checker waits")
    (3, 0)
    """
    return len(_REFLECTIVE.findall(text))


def told(texts: Sequence[str]) -> dict[str, float]:
    """The story of some responses; nothing without any.

    >>> told(["<think>wait 一 then</think><answer>7</answer>", "7"])
    {'reflection': 0.5, 'reflective': 0.5, 'format': 0.5, 'mixed': 0.5}
    """
    if not texts:
        return {}
    counts = [reflections(t) for t in texts]
    formed = _FORMAT(prompts=[""] * len(texts), completions=texts)
    return {
        "reflection": fmean(counts),
        "reflective": fmean(c > 0 for c in counts),
        "format": fmean(f or 0.0 for f in formed),
        "mixed": fmean(map(is_mixed, texts)),
    }


def by_level(rows: Iterable[tuple[Mapping[str, Any], Sequence[float | None]]]) -> dict[str, float]:
    """Mean value of the rows of each level; rows without a level, and values that are None, are
    passed over.

    >>> by_level([({"level": 2}, [1.0, 0.0]), ({"level": 3}, [0.0, None]), ({}, [1.0])])
    {'2': 0.5, '3': 0.0}
    """
    found: dict[Any, list[float]] = defaultdict(list)
    for row, values in rows:
        if row.get("level") is not None:
            found[row["level"]] += [v for v in values if v is not None]
    return {str(level): fmean(found[level]) for level in sorted(found, key=str) if found[level]}


def story(answers: Sequence[Answers]) -> dict[str, float]:
    """Of everything that was sampled in a step, kept or not."""
    numbers = {
        f"story/{k}": v for k, v in told([a.prefix + t for a in answers for t in a.texts]).items()
    }
    first = next(iter(answers[0].scores[0].parts), "") if answers and answers[0].scores else ""
    levels = by_level((a.row, [s.parts.get(first) for s in a.scores]) for a in answers)
    return numbers | {f"level/{k}": v for k, v in levels.items()}


def evaluated(samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of an evaluation's records (`evaluation/evaluator.py`, which has its own numbers by level),
    the sampled ones."""
    texts = [
        s.get("prefix", "") + t for s in samples if s["kind"] == "sampled" for t in s["completions"]
    ]
    return {f"eval/{k}": v for k, v in told(texts).items()}
