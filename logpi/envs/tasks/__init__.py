"""Tasks by name, or from a file: `task("addition", digits=3)`, `task("sort(count=5)")`,
`task("my.jsonl")`, `task("gsm8k:DIR")`.

    addition.py   countdown.py   words.py (sort, reverse, letters)   bilingual.py
    facts.py  questions to search for     calls.py  requests as function calls
    reasoning_gym.py  a hundred generated puzzles of that package, if it is installed
    bfcl.py, toolrl.py (also openai)      recorded function calls: `task("bfcl:FILE")`, `task("bfcl(style=python):FILE")`
    questions.py (qa)  questions over a corpus, HotpotQA's among them: `task("qa(corpus=wiki.jsonl):FILE")`

Left out: how an answer is sampled, and what reward beyond a task's default it earns.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from logpi.envs.benchmarks import FORMATS, Benchmark
from logpi.envs.data import FileTask
from logpi.envs.files import SUFFIXES
from logpi.envs.task import GeneratedRows, Row, Task
from logpi.envs.tasks.addition import Addition
from logpi.envs.tasks.bfcl import Bfcl
from logpi.envs.tasks.bilingual import Bilingual
from logpi.envs.tasks.calls import Calls
from logpi.envs.tasks.countdown import Countdown
from logpi.envs.tasks.facts import Facts
from logpi.envs.tasks.questions import Questions
from logpi.envs.tasks.reasoning_gym import ReasoningGym
from logpi.envs.tasks.toolrl import OpenAICalls, ToolRL
from logpi.envs.tasks.words import Letters, Reverse, Sort
from logpi.errors import nearest
from logpi.rewards.spec import build, parse_call

__all__ = [
    "NAMES",
    "Addition",
    "Benchmark",
    "Bfcl",
    "Bilingual",
    "Calls",
    "Countdown",
    "Facts",
    "FileTask",
    "Letters",
    "OpenAICalls",
    "Questions",
    "ReasoningGym",
    "Reverse",
    "Row",
    "GeneratedRows",
    "Sort",
    "Task",
    "ToolRL",
    "task",
]

NAMES: dict[str, Callable[..., Task]] = {
    "addition": Addition,
    "bilingual": Bilingual,
    "countdown": Countdown,
    "sort": Sort,
    "reverse": Reverse,
    "letters": Letters,
    "reasoning_gym": ReasoningGym,
    "facts": Facts,
    "calls": Calls,
}
READERS: dict[str, Callable[..., Task]] = {
    "bfcl": Bfcl, "toolrl": ToolRL, "openai": OpenAICalls, "qa": Questions, "hotpotqa": Questions,
}  # fmt: skip
"""Tasks over files of a layout of their own: `NAME:PATH`, or with options
`NAME(option=value):PATH`."""
_READER = re.compile(rf"({'|'.join(READERS)})(\(.*?\))?:(.+)", re.DOTALL)


def task(name_or_path: str, **options: Any) -> Task:
    """A built-in task by name, a file or directory of rows, or a data set of the Hugging Face hub
    (`owner/name`).

    `FORMAT:PATH` reads a published benchmark's file (`benchmarks.py`), or recorded function calls
    (`READERS`).

    Raises:
        ValueError: an unknown name (the nearest is given), a missing file, an unknown option or one
            out of range.

    >>> task("addition(digits=3)", worked=0.5)
    Addition(digits=3, worked=0.5, prompt='{a}+{b}=', test_size=1000)
    """
    reader = _READER.fullmatch(name_or_path)
    if reader:
        form, args, inline = parse_call(reader[1] + (reader[2] or ""))
        return build("task", form, READERS[form], [reader[3], *args], inline | options)
    form, colon, path = name_or_path.partition(":")
    if colon and path and (form in FORMATS or (form.isidentifier() and Path(path).exists())):
        return build("task", form, Benchmark, [form, path], options)
    if _is_file(name_or_path):
        return build("task", name_or_path, FileTask, [name_or_path], options)
    name, args, inline = parse_call(name_or_path)
    if name not in NAMES:
        raise ValueError(
            f"no task is called {name!r}; {nearest(name, NAMES)} (or a file, or a hub name"
            " owner/name)"
        )
    return build("task", name, NAMES[name], args, inline | options)


def _is_file(text: str) -> bool:
    """A path that is there, that ends like a data file, or a hub name."""
    suffixes = tuple(s + end for s in SUFFIXES for end in ("", ".gz"))
    return (
        text.lower().endswith(suffixes)
        or bool(re.fullmatch(r"[^()\s]*/[^()]*", text))
        or Path(text).is_dir()
    )
