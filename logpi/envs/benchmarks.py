r"""Named benchmarks: which columns a published file has, how it is asked, and what counts as an
answer.

    gsm8k:PATH      {question, answer "… #### 42"}                             math500:PATH, aime:PATH   {problem, answer, level}
    svamp:PATH      {Body, Question, Answer, Type}                             humaneval:PATH            {prompt, entry_point, test}
    rows:PATH       any layout that `data.py` knows, all of it                 mbpp:PATH                 {text, test_list, code}

A format says what a raw row means, a template how it is put and where the answer must stand: they
are chosen apart. `strict` accuracy asks for the answer where the template demands it; `lenient`
takes it from wherever it is. A file *is* the split that it is asked for as a test; a directory has
`train.*` and `test.*`; MBPP's splits are by its published task ids. Data are the user's own files:
none are shipped. Left out: what stands around a whole prompt (`Chat`: chat templates, R1-Zero's),
what an answer is worth (`rewards/`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from logpi.envs.data import load_rows
from logpi.envs.task import Row, Split, check_split, check_template
from logpi.errors import nearest
from logpi.rewards import Rewards, Weighted
from logpi.rewards.spec import reward
from logpi.rewards.text import Completion, after, last_boxed, text_of
from logpi.rewards.weighted import FindsAnswer, ReadsRows, TriesRows


@dataclass(frozen=True)
class QuestionTemplate:
    """How a question is put.

    Attributes:
        text: with {question}. shot: what follows it in a worked example, with {working} and
            {answer}; "": it has none.
        place: takes the answer from where this template wants it; None: it wants it nowhere. stop:
            what ends a response.
        source: where it was published.
    """

    text: str
    shot: str = ""
    place: Callable[[str], str | None] | None = None
    stop: tuple[str, ...] = ()
    source: str = ""


def marked(text: str) -> str | None:
    """The line behind the last ####, or None."""
    found = after(text, "####")
    return found.partition("\n")[0].strip() if found else None


AUSTIN = (
    "You are an expert Python programmer, and here is your task: {question} Your code should pass"
    " these tests:\n\n{tests}\n[BEGIN]\n"
)
FENCED = (
    "Read the following function signature and docstring, and fully implement the function"
    " described. Your response should only contain the code for this function.\n{question}"
)
TEMPLATES = {
    "plain": QuestionTemplate("{question}"),
    "boxed": QuestionTemplate(
        "{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}.",
        place=last_boxed,
        source="Qwen2.5-Math, arXiv:2409.12122",
    ),
    "qa": QuestionTemplate(
        "Question: {question}\nAnswer:",
        " {working}\n#### {answer}\n\n",
        marked,
        ("Question:",),
        "lm-evaluation-harness, gsm8k",
    ),
    "minerva": QuestionTemplate(
        "Problem:\n{question}\n\nSolution:",
        " {working}\n\n",
        last_boxed,
        ("Problem:",),
        "Minerva, arXiv:2206.14858, appendix D",
    ),
    "complete": QuestionTemplate(
        "{question}",
        stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
        source="Codex, arXiv:2107.03374, §2.1",
    ),
    "fenced": QuestionTemplate(FENCED, source="OpenAI simple-evals, humaneval_eval.py"),
    "austin": QuestionTemplate(
        AUSTIN, "{working}\n[DONE]\n\n", None, ("[DONE]",), "MBPP, arXiv:2108.07732, §3"
    ),
}


@dataclass(frozen=True)
class BenchmarkFormat:
    """What a benchmark's raw rows mean.

    Attributes:
        shape: (raw row, its place) → columns question, answer or tests, perhaps working, level; and
            the rest.
        template: zero-shot, by name. few: with worked examples. reward: what is right, by name.
        needs: columns that every row must have. split: raw row → its published split, or None if
            files are splits.
    """

    shape: Callable[[Mapping[str, Any], str], Row]
    template: str = "boxed"
    few: str = "qa"
    reward: str = "math"
    needs: tuple[str, ...] = ("question", "answer")
    split: Callable[[Row], str] | None = None


def _columns(raw: Any, where: str, *names: str) -> dict[str, Any]:
    """The row with lower-case names, `names` among them."""
    if not isinstance(raw, Mapping):
        raise ValueError(
            f"{where}: expected an object with named columns, got {type(raw).__name__}"
        )
    row = {str(k).lower(): v for k, v in raw.items() if v is not None}
    for name in names:
        if name not in row:
            raise ValueError(f"{where}: no column {name!r}; found: {', '.join(map(str, raw))}")
    return row


def _question(raw: Any, where: str) -> Row:
    """GSM8K, MATH and AIME: `data.py` reads the answer from "… #### 42" or from the solution's last
    box."""
    row = _columns(raw, where)
    question = next((row[n] for n in ("question", "problem", "prompt") if n in row), None)
    if question is None:
        raise ValueError(
            f"{where}: no column 'question' or 'problem'; found: {', '.join(map(str, raw))}"
        )
    level = row.get("level")
    digits = "".join(c for c in str(level) if c.isdigit())  # MATH: "Level 5"
    return (
        row
        | {"prompt": question, "question": question}
        | ({"level": int(digits)} if digits else {})
    )


def _svamp(raw: Any, where: str) -> Row:
    if "body" not in _columns(
        raw, where
    ):  # worked examples may come from a GSM8K file: SVAMP has none of its own
        return _question(raw, where)
    row = _columns(raw, where, "body", "question", "answer")
    body = str(row["body"]).rstrip()
    question = f"{body}{'' if body.endswith(('.', '?', '!')) else '.'} {row['question']}"
    return row | {"prompt": question, "question": question, "level": row.get("type")}


def _humaneval(raw: Any, where: str) -> Row:
    row = _columns(raw, where, "prompt", "entry_point", "test")
    return row | {
        "question": row["prompt"],
        "working": f"{row['prompt']}{row.get('canonical_solution', '')}",
    }


def _mbpp(raw: Any, where: str) -> Row:
    row = _columns(raw, where, "test_list")
    question = row.get("text") or row.get("prompt")
    if question is None:
        raise ValueError(
            f"{where}: no column 'text' or 'prompt'; found: {', '.join(map(str, raw))}"
        )
    setup = row.get("test_setup_code") or "\n".join(row.get("test_imports", []))
    code = str(row.get("code", "")).replace("\r\n", "\n")
    return row | {
        "prompt": question,
        "question": str(question).strip(),
        "tests": list(row["test_list"]),
        "setup": setup,
        "working": code,
    }


def _mbpp_split(row: Row) -> str:
    """Austin et al.: 1–10 are for prompting, 11–510 the test, 511–600 validation, 601–974
    training."""
    number = int(row.get("task_id", 11))
    return (
        "shots"
        if number <= 10
        else "test"
        if number <= 510
        else "validation"
        if number <= 600
        else "train"
    )


def _plain(raw: Any, where: str) -> Row:
    return raw


FORMATS: dict[str, BenchmarkFormat] = {
    "gsm8k": BenchmarkFormat(_question),
    "svamp": BenchmarkFormat(_svamp),
    "math500": BenchmarkFormat(_question, few="minerva"),
    "aime": BenchmarkFormat(_question, few="minerva"),
    "humaneval": BenchmarkFormat(_humaneval, "fenced", "complete", "code", ("question", "test")),
    "mbpp": BenchmarkFormat(_mbpp, "austin", "austin", "code", ("question", "tests"), _mbpp_split),
    "rows": BenchmarkFormat(_plain, "plain", "plain", "math", ()),
}


@dataclass(frozen=True)
class AnswerExtraction:
    r"""A reward that reads only a part of a completion: what a model writes past its answer, or
    elsewhere, is not its answer.

    Attributes:
        function: the reward. stop: what ends the part. place: takes the answer out of it; None: the
            function finds it.

    >>> from logpi.rewards import Number
    >>> AnswerExtraction(Number(), ("Question:",), marked)(["?"] * 2, ["#### 7\n\nQuestion: 1", "it is 7"], answer=["7", "7"])
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
        asked = columns.get(
            "question", prompts
        )  # a program goes on from the question, not from what stands around it
        return self.function(
            asked, [self.part(text_of(c)) for c in completions], completion_ids, **columns
        )

    def find(self, text: str) -> str | None:
        """The answer in the part, if the reward can find one."""
        return (
            self.function.find(self.part(text)) if isinstance(self.function, FindsAnswer) else None
        )

    def try_rows(self, rows: Sequence[Row]) -> None:
        """As the reward does, if it does."""
        if isinstance(self.function, TriesRows):
            self.function.try_rows([r | {"prompt": r.get("question", r["prompt"])} for r in rows])

    def read_rows(self, rows: Sequence[Row]) -> None:
        """As the reward does, if it does."""
        if isinstance(self.function, ReadsRows):
            self.function.read_rows(rows)

    def part(self, text: str) -> str:
        """What the reward is given; an answer in its place as a box, which says that it is one."""
        at = [i for i in map(text.find, self.stop) if i >= 0]
        text = text[: min(at, default=len(text))]
        if self.place is None:
            return text
        found = self.place(text)
        return "" if found is None else f"\\boxed{{{found}}}"


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark's file or directory as a task.

    Attributes:
        format: a name in `FORMATS`. path: file, directory with `train.*` and `test.*`, or hub name.
        template: a name in `TEMPLATES`, or a text with {question}; default: the format's own.
        shots: worked examples in front, taken from the rows of `shots_from` (default: the
            directory's own train rows).
        seed: of their choice; the same for all items.

    Raises:
        ValueError: an unknown format or template; a file that lacks a column (with its place); too
            few rows for the shots.
    """

    format: str
    path: str
    template: str = ""
    shots: int = 0
    shots_from: str = ""
    seed: int = 0
    name: str = field(default="", init=False, repr=False)

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
        if self.shots and not self.asked.shot:
            raise ValueError(
                f"{self.format}: this template has no worked examples: leave --shots out, or choose"
                f" --template {self._format.few}"
            )
        object.__setattr__(self, "name", self.format)

    @property
    def _format(self) -> BenchmarkFormat:
        return FORMATS[self.format]

    @property
    def asked(self) -> QuestionTemplate:
        """The template in use."""
        chosen = self.template or (self._format.few if self.shots else self._format.template)
        return TEMPLATES.get(chosen) or QuestionTemplate(chosen)

    @property
    def stop(self) -> tuple[str, ...]:
        return self.asked.stop

    @property
    def lenient(self) -> str:
        """The name of the reward that takes the answer from anywhere, or "" where the template asks
        for no place."""
        return "lenient" if self.asked.place else ""

    @property
    def reward(self) -> Rewards:
        """The answer in the place that the template asks for; and, at weight 0 (measured, never
        earned), in any."""
        own = reward(self._format.reward)
        lenient = Weighted(AnswerExtraction(own.function, self.stop), 0.0, "lenient")
        if not self.asked.place:
            return Rewards((replace(lenient, weight=1.0, name=own.name),))
        return Rewards(
            (
                Weighted(
                    AnswerExtraction(own.function, self.stop, self.asked.place), 1.0, "strict"
                ),
                lenient,
            )
        )

    def rows(self, split: Split = "train", seed: int = 0) -> list[Row]:
        """A file's rows are the test; training rows need a directory, a hub name, or a published
        split. In their order."""
        check_split(split)
        found = self._all(split)
        if not found:
            raise ValueError(f"{self.path}: none of its rows is of the {split} split")
        if split == "train":
            Random(seed).shuffle(found)
        return [r | {"prompt": self._prompt(r)} for r in found]

    def _all(self, split: str) -> list[Row]:
        own = self._format.split
        if split != "test" and own is None and Path(self.path).expanduser().is_file():
            raise ValueError(
                f"{self.path} is one file, and so the test: give a directory with train.* and"
                " test.* files"
            )
        rows = self._load(self.path, "test" if own else split)
        return [r for r in rows if own(r) == split] if own else rows

    def _load(self, path: str, split: str) -> list[Row]:
        """With `question` and `working`, and without a demonstration of another template."""
        found = load_rows(
            path, split, need=("prompt", *self._format.needs), reshape=self._format.shape
        )
        out = []
        for row in found:
            working = str(row.get("working") or row.get("completion") or row.get("solution") or "")
            said = {
                "question": row.get("question") or row["prompt"],
                "working": working.partition("####")[0].strip(),
            }
            row.pop("completion", None)
            out.append(row | said)
        return out

    def _prompt(self, row: Row) -> Any:
        """Worked examples, question; messages stay as they are."""
        return (
            self._shown + _fill(self.asked.text, row)
            if isinstance(row["question"], str)
            else row["question"]
        )

    @cached_property
    def _shown(self) -> str:
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
            where = self.shots_from or self.path
            raise ValueError(
                f"{where}: {self.shots} worked examples are asked for, {len(rows)} of its rows have"
                " a working"
            )
        return "".join(
            _fill(self.asked.text + self.asked.shot, r)
            for r in Random(self.seed).sample(rows, self.shots)
        )


def _fill(template: str, row: Row) -> str:
    tests = "\n".join(map(str, row.get("tests") or ()))
    return template.format(
        question=row["question"], working=row["working"], answer=row.get("answer"), tests=tests
    )
