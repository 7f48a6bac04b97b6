r"""Named benchmarks: which columns a published file has, how it is asked, and what counts as an answer.

    gsm8k:PATH      {question, answer "… #### 42"}                             math500:PATH, aime:PATH   {problem, answer, level}
    svamp:PATH      {Body, Question, Answer, Type}                             humaneval:PATH            {prompt, entry_point, test}
    rows:PATH       any layout that `data.py` knows, all of it                 mbpp:PATH                 {text, test_list, code}

A format says what a raw row means, a template how it is put and where the answer must stand: they are chosen apart. `strict`
accuracy asks for the answer where the template demands it; `lenient` takes it from wherever it is. A file *is* the split that
it is asked for as a test; a directory has `train.*` and `test.*`; MBPP's splits are by its published task ids. Data are the
user's own files: none are shipped. Left out: translation to a chat template (`Chat`), what an answer is worth (`rewards/`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from logpi.envs.data import load_rows
from logpi.envs.rows import Row, Split, check_split, check_template
from logpi.rewards import Rewards, Weighted
from logpi.rewards.combine import FindsAnswer
from logpi.rewards.spec import nearest, reward
from logpi.rewards.text import Completion

__all__ = ["FORMATS", "TEMPLATES", "Benchmark", "Format", "Template", "Until"]


@dataclass(frozen=True)
class Template:
    """How a question is put.

    Attributes:
        text: with {question}. shot: what follows it in a worked example, with {working} and {answer}; "": it has none.
        strict: the reward that asks for the answer where this template wants it. stop: what ends a response.
        source: where it was published.
    """

    text: str
    shot: str = ""
    strict: str = ""
    stop: tuple[str, ...] = ()
    source: str = ""


R1 = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant first thinks "
    "about the reasoning process in the mind and then provides the user with the answer. The reasoning process and answer are "
    "enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> "
    "<answer> answer here </answer>. User: {question}. Assistant:"
)
AUSTIN = "You are an expert Python programmer, and here is your task: {question} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
FENCED = (
    "Read the following function signature and docstring, and fully implement the function described. "
    "Your response should only contain the code for this function.\n{question}"
)
TEMPLATES = {
    "plain": Template("{question}"),
    "boxed": Template(
        "{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}.", strict="boxed",
        source="Qwen2.5-Math, arXiv:2409.12122",
    ),
    "r1": Template(R1, strict="tag_answer", source="DeepSeek-R1, arXiv:2501.12948, table 1"),
    "qa": Template(
        "Question: {question}\nAnswer:", " {working}\n#### {answer}\n\n", 'exact("####")', ("Question:",), "lm-evaluation-harness, gsm8k"
    ),
    "minerva": Template(
        "Problem:\n{question}\n\nSolution:", " {working}\n\n", "boxed", ("Problem:",), "Minerva, arXiv:2206.14858, appendix D"
    ),
    "complete": Template(
        "{question}", strict="code", stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint"), source="Codex, arXiv:2107.03374, §2.1"
    ),
    "fenced": Template(FENCED, strict="code", source="OpenAI simple-evals, humaneval_eval.py"),
    "austin": Template(AUSTIN, "{working}\n[DONE]\n\n", "code", ("[DONE]",), "MBPP, arXiv:2108.07732, §3"),
}  # fmt: skip


@dataclass(frozen=True)
class Format:
    """What a benchmark's raw rows mean.

    Attributes:
        shape: (raw row, its place) → columns question, answer or tests, perhaps working, level; and the rest.
        template: zero-shot, by name. few: with worked examples. lenient: the reward that finds the answer anywhere; "": none.
        needs: columns that every row must have. split: raw row → its published split, or None if files are splits.
    """

    shape: Callable[[Mapping[str, Any], str], Row]
    template: str = "boxed"
    few: str = "qa"
    lenient: str = "number"
    needs: tuple[str, ...] = ("question", "answer")
    split: Callable[[Row], str] | None = None


def _columns(raw: Any, where: str, *names: str) -> dict[str, Any]:
    """The row with lower-case names, `names` among them."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where}: expected an object with named columns, got {type(raw).__name__}")
    row = {str(k).lower(): v for k, v in raw.items() if v is not None}
    for name in names:
        if name not in row:
            raise ValueError(f"{where}: no column {name!r}; found: {', '.join(map(str, raw))}")
    return row


def _question(raw: Any, where: str) -> Row:
    """GSM8K, MATH and AIME: `data.py` reads the answer from "… #### 42" or from the solution's last box."""
    row = _columns(raw, where)
    question = next((row[n] for n in ("question", "problem", "prompt") if n in row), None)
    if question is None:
        raise ValueError(f"{where}: no column 'question' or 'problem'; found: {', '.join(map(str, raw))}")
    level = row.get("level")
    digits = "".join(c for c in str(level) if c.isdigit())  # MATH: "Level 5"
    return row | {"prompt": question, "question": question} | ({"level": int(digits)} if digits else {})


def _svamp(raw: Any, where: str) -> Row:
    row = _columns(raw, where, "body", "question", "answer")
    body = str(row["body"]).rstrip()
    question = f"{body}{'' if body.endswith(('.', '?', '!')) else '.'} {row['question']}"
    return row | {"prompt": question, "question": question, "level": row.get("type")}


def _humaneval(raw: Any, where: str) -> Row:
    row = _columns(raw, where, "prompt", "entry_point", "test")
    working = f"{row['prompt']}{row.get('canonical_solution', '')}"
    return row | {"question": row["prompt"], "working": working, "tests": [row["test"]], "setup": row["prompt"]}


def _mbpp(raw: Any, where: str) -> Row:
    row = _columns(raw, where, "test_list")
    question = row.get("text") or row.get("prompt")
    if question is None:
        raise ValueError(f"{where}: no column 'text' or 'prompt'; found: {', '.join(map(str, raw))}")
    setup = row.get("test_setup_code") or "\n".join(row.get("test_imports", []))
    code = str(row.get("code", "")).replace("\r\n", "\n")
    return row | {
        "prompt": question, "question": str(question).strip(), "tests": list(row["test_list"]), "setup": setup, "working": code,
    }  # fmt: skip


def _mbpp_split(row: Row) -> str:
    """Austin et al.: 1–10 are for prompting, 11–510 the test, 511–600 validation, 601–974 training."""
    number = int(row.get("task_id", 11))
    return "shots" if number <= 10 else "test" if number <= 510 else "validation" if number <= 600 else "train"


def _plain(raw: Any, where: str) -> Row:
    return raw


FORMATS: dict[str, Format] = {
    "gsm8k": Format(_question),
    "svamp": Format(_svamp),
    "math500": Format(_question, few="minerva"),
    "aime": Format(_question, few="minerva"),
    "humaneval": Format(_humaneval, "fenced", "complete", "", ("question", "tests")),
    "mbpp": Format(_mbpp, "austin", "austin", "", ("question", "tests"), _mbpp_split),
    "rows": Format(_plain, "plain", "plain", "number", ()),
}


@dataclass(frozen=True)
class Until:
    """A reward that reads a completion up to the first stop string: what a model writes past its answer is not its answer.

    >>> from logpi.rewards import ExactAnswer
    >>> Until(ExactAnswer("####"), ("Question:",))(["?"], ["#### 7\\n\\nQuestion: 1"], answer=["7"])
    [1.0]
    """

    function: Any
    stop: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.function.name

    @property
    def needs(self) -> tuple[str, ...]:
        return self.function.needs

    def __call__(self, prompts, completions: Sequence[Completion], completion_ids=None, **columns):
        return self.function(prompts, [self._cut(c) for c in completions], completion_ids, **columns)

    def find(self, text: str) -> str | None:
        """The answer in what is read, if the reward can find one."""
        return self.function.find(self._cut(text)) if isinstance(self.function, FindsAnswer) else None

    def _cut(self, completion: Any) -> Any:
        if not isinstance(completion, str):
            return [
                m | {"content": self._cut(m["content"])} if isinstance(m.get("content"), str) else m for m in completion
            ]
        at = [i for i in map(completion.find, self.stop) if i >= 0]
        return completion[: min(at, default=len(completion))]


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark's file or directory as a task.

    Attributes:
        format: a name in `FORMATS`. path: file, directory with `train.*` and `test.*`, or hub name.
        template: a name in `TEMPLATES`, or a text with {question}; default: the format's own.
        shots: worked examples in front, taken from the rows of `shots_from` (default: the directory's own train rows).
        seed: of their choice; the same for all items.

    Raises:
        ValueError: an unknown format or template; a file that lacks a column (with its place); too few rows for the shots.
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
            raise ValueError(f"no benchmark format is called {self.format!r}: {nearest(self.format, FORMATS)}")
        if self.template and "{" not in self.template and self.template not in TEMPLATES:
            raise ValueError(
                f"no template is called {self.template!r}: {nearest(self.template, TEMPLATES)} (or a text with {{question}})"
            )
        if "{" in self.template:
            check_template("template", self.template, "question")
        if self.shots and not self.asked.shot:
            raise ValueError(
                f"{self.format}: this template has no worked examples: leave --shots out, or choose --template {self._format.few}"
            )
        object.__setattr__(self, "name", self.format)

    @property
    def _format(self) -> Format:
        return FORMATS[self.format]

    @property
    def asked(self) -> Template:
        """The template in use."""
        chosen = self.template or (self._format.few if self.shots else self._format.template)
        return TEMPLATES.get(chosen) or Template(chosen)

    @property
    def stop(self) -> tuple[str, ...]:
        return self.asked.stop

    @property
    def lenient(self) -> str:
        """The name of the reward that takes the answer from anywhere; "" if the strict one does, or there is none."""
        return self._rewards[1].name if len(self._rewards) > 1 else ""

    @property
    def reward(self) -> Rewards:
        """The strict reward, and the lenient one at weight 0: measured, never earned."""
        return Rewards(self._rewards)

    @cached_property
    def _rewards(self) -> tuple[Weighted, ...]:
        lenient = self._format.lenient
        specs = dict.fromkeys(s for s in (self.asked.strict or lenient, lenient) if s)
        made = [reward(s).function for s in specs]
        return tuple(Weighted(Until(f, self.stop) if self.stop else f, float(not i)) for i, f in enumerate(made))

    def rows(self, split: Split = "train", seed: int = 0) -> list[Row]:
        """A file's rows are the test; training rows need a directory, a hub name, or a published split. In their order."""
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
                f"{self.path} is one file, and so the test: give a directory with train.* and test.* files"
            )
        rows = self._load(self.path, "test" if own else split)
        return [r for r in rows if own(r) == split] if own else rows

    def _load(self, path: str, split: str) -> list[Row]:
        """With `question` and `working`, and without a demonstration of another template."""
        found = load_rows(path, split, need=("prompt", *self._format.needs), reshape=self._format.shape)
        out = []
        for row in found:
            working = str(row.get("working") or row.get("completion") or row.get("solution") or "")
            said = {"question": row.get("question") or row["prompt"], "working": working.partition("####")[0].strip()}
            out.append({k: v for k, v in row.items() if k != "completion"} | said)
        return out

    def _prompt(self, row: Row) -> Any:
        """Worked examples, question; messages stay as they are."""
        return self._shown + _fill(self.asked.text, row) if isinstance(row["question"], str) else row["question"]

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
                f"{where}: {self.shots} worked examples are asked for, {len(rows)} of its rows have a working"
            )
        return "".join(_fill(self.asked.text + self.asked.shot, r) for r in Random(self.seed).sample(rows, self.shots))


def _fill(template: str, row: Row) -> str:
    tests = "\n".join(map(str, row.get("tests") or ()))
    return template.format(question=row["question"], working=row["working"], answer=row.get("answer"), tests=tests)
