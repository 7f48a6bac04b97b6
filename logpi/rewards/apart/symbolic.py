r"""Symbolic equality by math-verify, as a worker process runs it: one answer a call, with a clock of its own.

The clock (a signal; this is the main thread of its process) ends what Python code runs too long and costs nothing; what
hangs below Python (`\boxed{100000000!}` where gmpy2 is installed) is killed from outside by the deadline of the caller.
math-verify's own clocks are off: they would cancel ours. Left out: finding the answer in a completion, and everything
that exact rational numbers decide.
"""

from __future__ import annotations

import logging
import signal
from functools import lru_cache
from typing import Any

import math_verify

SECONDS = 2.0
logging.getLogger("math_verify").setLevel(logging.CRITICAL)


class _Late(BaseException):
    """Not an Exception: libraries catch those."""


def _ring(*_: Any) -> None:
    raise _Late


@lru_cache(4096)
def _parse(text: str) -> list[Any]:
    return math_verify.parse(f"${text}$", parsing_timeout=None)  # pyright: ignore[reportArgumentType]


def equal(prompts: list[Any], completions: list[str | None], *, gold: list[str]) -> list[float | None]:
    """1.0 or 0.0 for each pair of answers; None where the clock rang, or where the gold answer cannot be read.

    An answer of None asks whether the gold one is mathematics at all and equals itself.
    """
    return [_one(g, c) for g, c in zip(gold, completions, strict=True)]


def _one(gold: str, answer: str | None) -> float | None:
    signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        wanted = _parse(gold)
        if not wanted:
            return None
        if answer is None and all(isinstance(w, str) for w in wanted):  # what it cannot read it compares as text
            return 0.0
        answer = gold if answer is None else answer
        return float(math_verify.verify(wanted, _parse(answer), allow_set_relation_comp=True, timeout_seconds=None))
    except _Late:
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
