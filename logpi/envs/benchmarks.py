r"""Published benchmarks as tasks: `gsm8k:PATH`, `mbpp:PATH`, … (the names in `FORMATS`).

`strict` accuracy reads the answer where the template asks for it; `lenient` finds it anywhere:

    template      "… put your final answer within \\boxed{}."
    completion    "So it is 42."             lenient right, strict wrong
    completion    "So it is \\boxed{42}."     both right

A file *is* the test split; a directory has `train.*` and `test.*`; MBPP is split by its published
task ids. The user brings the data. Left out: columns and templates (`benchmark_formats.py`), what
stands around a whole prompt (`rollouts/chat.py`), rewards (`rewards/`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any

from logpi.envs.benchmark_formats import FORMATS, TEMPLATES, BenchmarkFormat, QuestionTemplate
from logpi.envs.data import load_rows
from logpi.envs.objects import is_single, label
from logpi.envs.task import check_split, check_template
from logpi.errors import nearest
from logpi.rewards import Rewards, Weighted
from logpi.rewards.spec import reward
from logpi.rewards.text import text_of
from logpi.rewards.weighted import FindsAnswer, ReadsRows, TriesRows

if TYPE_CHECKING:
    from logpi.envs.task import Row, Split
    from logpi.rewards.text import Completion


@dataclass(frozen=True)
class AnswerExtraction:
    r"""A reward of the answer that is extracted from a completion, not of the whole completion.

    Attributes:
        function: the reward. stop: strings that end what is read. place: takes the answer out of
            it; None: the function finds the answer itself.

    >>> from logpi.envs.benchmark_formats import marked
    >>> from logpi.rewards import Number
    >>> extraction = AnswerExtraction(Number(), ("Question:",), marked)
    >>> extraction(["?"] * 2, ["#### 7\n\nQuestion: 1", "it is 7"], answer=["7", "7"])
    [1.0, 0.0]
    """

    function: Any
    stop: tuple[str, ...] = ()
    place: Callable[[str], str | None] | None = None

    @property
    def name(self) -> str:
        return self.function.name

    @property
    def needs(self) -> tuple[str, ...]:
        return self.function.needs

    def __call__(self, prompts, completions: Sequence[Completion], completion_ids=None, **columns):
        # A program continues the question, not what a template puts around it.
        questions = columns.get("question", prompts)
        texts = [self.extract(text_of(c)) for c in completions]
        return self.function(questions, texts, completion_ids, **columns)

    def find(self, text: str) -> str | None:
        """The answer, if the reward can find one."""
        if not isinstance(self.function, FindsAnswer):
            return None
        return self.function.find(self.extract(text))

    def try_rows(self, rows: Sequence[Row]) -> None:
        """As the reward does, if it is a `TriesRows`."""
        if isinstance(self.function, TriesRows):
            self.function.try_rows([r | {"prompt": r.get("question", r["prompt"])} for r in rows])

    def read_rows(self, rows: Sequence[Row]) -> None:
        """As the reward does, if it is a `ReadsRows`."""
        if isinstance(self.function, ReadsRows):
            self.function.read_rows(rows)

    def extract(self, text: str) -> str:
        r"""What the reward reads: the text up to a stop string, or the answer alone, boxed.

        stop "Question:", place `marked`:  "6*7 #### 42\n\nQuestion: 1+1"  →  "\\boxed{42}"
        """
        ends = [i for i in map(text.find, self.stop) if i >= 0]
        text = text[: min(ends, default=len(text))]
        if self.place is None:
            return text
        answer = self.place(text)
        return "" if answer is None else f"\\boxed{{{answer}}}"


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark's file or directory as a task.

    Attributes:
        format: a name in `FORMATS`. path: what `load_rows` takes: a file, a directory with
            `train.*` and `test.*`, a hub name, rows in memory.
        template: a name in `TEMPLATES`, or a text with {question}; default: the format's own.
        shots: worked examples in front, taken from the rows of `shots_from` (default: the
            directory's own train rows).
        seed: of their choice; the same for all items.

    Raises:
        ValueError: an unknown format or template; a file that lacks a column (with its place); too
            few rows for the shots.
    """

    format: str
    path: Any
    template: str = ""
    shots: int = 0
    shots_from: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(
                f"no benchmark format is called {self.format!r}; {nearest(self.format, FORMATS)}"
            )
        if self.template and "{" not in self.template and self.template not in TEMPLATES:
            raise ValueError(
                f"no template is called {self.template!r}; {nearest(self.template, TEMPLATES)} (or"
                " a text with {question})"
            )
        if "{" in self.template:
            check_template("template", self.template, "question")
        if self.shots and not self.question_template.shot:
            raise ValueError(
                f"{self.format}: this template has no worked examples: leave --shots out, or choose"
                f" --template {self._format.few}"
            )

    @property
    def name(self) -> str:
        return self.format

    @property
    def _format(self) -> BenchmarkFormat:
        return FORMATS[self.format]

    @property
    def question_template(self) -> QuestionTemplate:
        """The template in use."""
        template = self.template or (self._format.few if self.shots else self._format.template)
        return TEMPLATES.get(template) or QuestionTemplate(template)

    @property
    def stop(self) -> tuple[str, ...]:
        return self.question_template.stop

    @property
    def lenient(self) -> str:
        """The name of the reward that takes the answer from anywhere, or "" where the template asks
        for no place."""
        return "lenient" if self.question_template.place else ""

    @property
    def reward(self) -> Rewards:
        """The answer where the template asks for it; with weight 0 (measured only), anywhere."""
        own, place = reward(self._format.reward), self.question_template.place
        anywhere = AnswerExtraction(own.function, self.stop)
        if place is None:
            return Rewards((Weighted(anywhere, 1.0, own.name),))
        strict = replace(anywhere, place=place)
        return Rewards((Weighted(strict, 1.0, "strict"), Weighted(anywhere, 0.0, "lenient")))

    def rows(self, split: Split = "train", seed: int = 0) -> list[Row]:
        """A file's rows are the test; training rows need a directory, a hub name, or a published
        split."""
        check_split(split)
        rows = self._all(split)
        if not rows:
            raise ValueError(f"{label(self.path)}: none of its rows is of the {split} split")
        if split == "train":
            Random(seed).shuffle(rows)
        return [r | {"prompt": self._prompt(r)} for r in rows]

    def _all(self, split: str) -> list[Row]:
        split_of = self._format.split
        if split != "test" and split_of is None and is_single(self.path):
            raise ValueError(
                f"{label(self.path)} is one file, and so the test: give a directory with train.*"
                " and test.* files"
            )
        rows = self._load(self.path, "test" if split_of else split)
        return [r for r in rows if split_of(r) == split] if split_of else rows

    def _load(self, source: Any, split: str) -> list[Row]:
        """With `question` and `working`, and without a demonstration of another template."""
        needs = ("prompt", *self._format.needs)
        rows = []
        for row in load_rows(source, split, need=needs, reshape=self._format.shape):
            working = str(row.get("working") or row.get("completion") or row.get("solution") or "")
            columns = {
                "question": row.get("question") or row["prompt"],
                "working": working.partition("####")[0].strip(),
            }
            row.pop("completion", None)
            rows.append(row | columns)
        return rows

    def _prompt(self, row: Row) -> Any:
        """Worked examples, question; messages stay as they are."""
        if not isinstance(row["question"], str):
            return row["question"]
        return self._worked_examples + _fill(self.question_template.text, row)

    @cached_property
    def _worked_examples(self) -> str:
        """The worked examples, as text."""
        if not self.shots:
            return ""
        rows = (
            self._load(self.shots_from, "train")
            if self.shots_from
            else self._all("shots" if self._format.split else "train")
        )
        rows = [r for r in rows if r["working"]]
        if len(rows) < self.shots:
            where = self.shots_from or label(self.path)
            raise ValueError(
                f"{where}: {self.shots} worked examples are asked for, {len(rows)} of its rows have"
                " a working"
            )
        return "".join(
            _fill(self.question_template.text + self.question_template.shot, r)
            for r in Random(self.seed).sample(rows, self.shots)
        )


def _fill(template: str, row: Row) -> str:
    tests = "\n".join(map(str, row.get("tests") or ()))
    return template.format(
        question=row["question"], working=row["working"], answer=row.get("answer"), tests=tests
    )
