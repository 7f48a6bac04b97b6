"""Tasks of the package reasoning-gym (the extra `reasoning-gym`): `reasoning_gym("chain_sum",
config={"max_terms": 4})`.

The data set's own scorer judges answers, in a worker process with a deadline and a memory limit.
Data sets whose scorer executes the model's answer, or gives marks for nothing, are refused with the
reason. Left out: composite data sets and curricula.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import logpi.rewards
from logpi.envs.task import GeneratedTask, Row, check_template
from logpi.errors import install, nearest
from logpi.rewards import Failure, Rewards, Weighted
from logpi.rewards.text import last_boxed, last_tag, text_of
from logpi.rewards.workers.processes import Workers, call

_EVAL = "its scorer gives the model's answer to eval()"
_SYMPY = "its scorer gives the model's answer to sympy's parser, which executes it"
DENIED = {
    **dict.fromkeys(("binary_matrix", "n_queens", "spiral_matrix", "string_insertion"), _EVAL),
    **dict.fromkeys(
        (
            "countdown",
            "puzzle24",
            "simple_integration",
            "intermediate_integration",
            "polynomial_multiplication",
        ),
        _SYMPY,
    ),
    "game_of_life_halting": "its scorer gives full marks to any text",
    "list_functions": "its items differ from call to call",
    "composite": "it is a mixture, not a task: name its parts",
}
_EXECUTES = re.compile(r"\b(?:eval|exec|parse_expr|sympify)\s*\((?!\s*entry\b)")
_APART = Path(logpi.rewards.__file__).with_name("workers") / "reasoning.py"
LARGEST = 2**31 - 1


@lru_cache
def _worker() -> Workers:
    return Workers(str(_APART), "score", 1, memory=4 << 30)


@dataclass(frozen=True)
class ReasoningScore:
    """The data set's own score of the last <answer>…</answer> (or box; else the whole text).

    Attributes:
        partial: the score as it is, in [0, 1]. False: full marks count 1, all else 0, for many
            scorers give marks to an answer that merely contains the right one.
        seconds: for a batch, then for each of its answers.
    """

    partial: bool = False
    seconds: float = 30.0
    name: str = "reasoning_gym"
    needs: ClassVar[tuple[str, ...]] = ("source",)

    def __call__(
        self, prompts, completions, completion_ids=None, *, source, **columns
    ) -> list[float | Failure | None]:
        answers = [self.find(text_of(c)) for c in completions]
        whole = _worker().ask(call(None, answers, None, {"source": list(source)}), self.seconds)
        if "verdicts" not in whole and len(answers) > 1:
            alone = [
                call(None, [a], None, {"source": [s]}) for a, s in zip(answers, source, strict=True)
            ]
            return [self._read(r)[0] for r in _worker().map(alone, self.seconds)]
        return self._read(whole)

    def find(self, text: str) -> str:
        tagged = last_tag(text, "answer")
        boxed = last_boxed(text) if tagged is None else None
        return tagged if tagged is not None else boxed if boxed is not None else text.strip()

    def _read(self, reply: dict[str, Any]) -> list[float | Failure | None]:
        if "failed" in reply:
            return [Failure(**reply["failed"])]
        return [v if self.partial else float(v > 0.999) for v in reply["verdicts"]]


@dataclass(frozen=True)
class ReasoningGym(GeneratedTask):
    """One data set of reasoning-gym.

    Attributes:
        dataset: its name. config: its own options. prompt: with {question}.

    Raises:
        ValueError: the package is missing, an unknown name (the nearest is given), a refused one
            (with the reason), or options that the data set does not take.
    """

    dataset: str
    config: dict[str, Any] = field(default_factory=dict)
    prompt: str = "{question}\nGive the final answer inside <answer> </answer>."
    test_size: int = field(default=100, kw_only=True)
    name: str = field(default="reasoning_gym", init=False, repr=False)
    reward: Rewards = field(default=Rewards((Weighted(ReasoningScore()),)), init=False, repr=False)

    def __post_init__(self) -> None:
        check_template(self.name, self.prompt, "question")
        if self.dataset in DENIED:
            raise ValueError(f"reasoning_gym: {self.dataset!r} is refused: {DENIED[self.dataset]}")
        if find_spec("reasoning_gym") is None:
            raise ValueError(f"reasoning_gym is not installed: {install('reasoning-gym')}")
        from reasoning_gym.factory import DATASETS

        if self.dataset not in DATASETS:
            raise ValueError(
                f"reasoning_gym: no data set is called {self.dataset!r}:"
                f" {nearest(self.dataset, DATASETS)}"
            )
        if _EXECUTES.search(inspect.getsource(DATASETS[self.dataset][0].score_answer)):
            raise ValueError(
                f"reasoning_gym: {self.dataset!r} is refused: its scorer executes the model's"
                " answer"
            )
        try:
            self.source(0)
        except (TypeError, AssertionError, ValueError) as error:
            raise ValueError(
                f"reasoning_gym: {self.dataset!r} does not take {self.config}: {error}"
            ) from None

    def source(self, index: int) -> dict[str, Any]:
        """Item `index` of the data set."""
        return _dataset(self.dataset, self._options)[index]

    @property
    def _options(self) -> str:
        return json.dumps({"size": LARGEST, "seed": 0} | self.config, sort_keys=True)

    def draw(self, rng: Random) -> tuple[str, tuple[int, dict[str, Any]]]:
        index = rng.randrange(LARGEST)
        item = self.source(index)
        return item["question"], (index, item)

    def row(self, problem: tuple[int, dict[str, Any]], rng: Random) -> Row:
        index, item = problem
        return {
            "prompt": self.prompt.format(question=item["question"]),
            "answer": item["answer"] or "",
            "source": json.dumps([self.dataset, self._options, index]),
        }


@lru_cache(16)
def _dataset(name: str, options: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(name, **json.loads(options))
