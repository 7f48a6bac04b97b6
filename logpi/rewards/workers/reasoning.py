"""Scores answers by reasoning-gym, in a worker process that makes the item again from its index.

Left out: the choice of data sets (`envs/tasks/reasoning_gym.py` refuses those that execute the
answer).
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import reasoning_gym


@lru_cache(16)
def _dataset(name: str, config: str) -> Any:
    return reasoning_gym.create_dataset(name, **json.loads(config))


@lru_cache(4096)
def _item(name: str, config: str, index: int) -> dict[str, Any]:
    return _dataset(name, config)[index]


def score(prompts, completions, *, source) -> list[float]:
    """The data set's score of each answer, in [0, 1]; 0 if the scorer raises."""
    return [_score(answer, *json.loads(s)) for answer, s in zip(completions, source, strict=True)]


def _score(answer: str, name: str, config: str, index: int) -> float:
    item = _item(name, config, index)
    try:
        return float(_dataset(name, config).score_answer(answer, item))
    except MemoryError:
        raise
    # several scorers raise on an answer that is not a number
    except Exception:
        return 0.0
