"""Tasks from words and objects: `task("addition", digits=3)`, `task("sort(count=5)")`,
`task("my.jsonl")`, `task("gsm8k:DIR")`, `task("my.py:Maze")`, `task([{"prompt": …}, …])`.

    addition.py   copying.py   countdown.py   words.py (sort, reverse, letters)   bilingual.py
    facts.py  questions to search for     calls.py  requests as function calls
    reasoning_gym.py   a hundred generated puzzles of that package, if it is installed
    bfcl.py, toolrl.py (also openai)   recorded function calls: `task("bfcl:FILE")`,
                                       `task("bfcl(style=python):FILE")`
    questions.py (qa)  questions over a corpus, HotpotQA's among them:
                       `task("qa(corpus=wiki.jsonl):FILE")`

Left out: sampling, and rewards beyond a task's default.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from logpi.envs.benchmark_formats import FORMATS
from logpi.envs.benchmarks import Benchmark
from logpi.envs.data import RowsTask, named_columns
from logpi.envs.files import SUFFIXES
from logpi.envs.objects import is_rows, label
from logpi.envs.packages.openenv import OpenEnv
from logpi.envs.packages.verifiers import Verifiers
from logpi.envs.task import GeneratedRows, Row, Task
from logpi.envs.tasks.addition import Addition
from logpi.envs.tasks.bfcl import Bfcl
from logpi.envs.tasks.bilingual import Bilingual
from logpi.envs.tasks.calls import Calls
from logpi.envs.tasks.copying import Copying
from logpi.envs.tasks.countdown import Countdown
from logpi.envs.tasks.facts import Facts
from logpi.envs.tasks.questions import Questions
from logpi.envs.tasks.reasoning_gym import ReasoningGym
from logpi.envs.tasks.toolrl import OpenAICalls, ToolRL
from logpi.envs.tasks.words import Letters, Reverse, Sort
from logpi.errors import UserError, nearest
from logpi.rewards.workers.worker import describe
from logpi.runs.user_code import from_user_code, is_user_code
from logpi.runs.words import build, parse_call

__all__ = [
    "NAMES",
    "Addition",
    "Benchmark",
    "Bfcl",
    "Bilingual",
    "Calls",
    "Copying",
    "Countdown",
    "Facts",
    "RowsTask",
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
    "copying": Copying,
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
    "verifiers": Verifiers, "openenv": OpenEnv,
}  # fmt: skip
"""Tasks over files of a layout of their own: `NAME:PATH`, or with options
`NAME(option=value):PATH`."""
_READER = re.compile(rf"({'|'.join(READERS)})(\(.*?\))?:(.+)", re.DOTALL)


def task(source: Any, **options: Any) -> Task:
    """A task from a word or an object.

    Args:
        source: a built-in task's name; a file, directory or hub data set of rows (`owner/name`),
            perhaps with our names for its columns (`rows(prompt=THEIRS):FILE`); `FORMAT:PATH`, a
            published benchmark's file (`benchmarks.py`) or recorded function calls (`READERS`);
            `FILE.py:NAME`; or an object: a `Task`, a function or class that makes one, rows in
            memory (a list of dicts, a `datasets.Dataset`, a pandas DataFrame, a dict of these by
            split). options: of the task that is made.

    Raises:
        ValueError: an unknown name (the nearest is given), a missing file, an unknown option or one
            out of range, an object of another kind.

    >>> task("addition(digits=3)", worked=0.5)
    Addition(test_size=1000, digits=3, worked=0.5, prompt='{a}+{b}=')
    >>> task([{"prompt": "1+1=", "answer": "2"}])
    RowsTask(the list)
    """
    if not isinstance(source, str):
        return _from_object(label(source), source, options)
    reader = _READER.fullmatch(source)
    if reader:
        form, args, inline = parse_call(reader[1] + (reader[2] or ""))
        return build("task", form, READERS[form], [reader[3], *args], inline | options)
    if is_user_code(source):
        return _from_object(source, from_user_code(source), options)
    form, colon, path = source.partition(":")
    if colon and path and (form in FORMATS or (form.isidentifier() and Path(path).exists())):
        return build("task", form, Benchmark, [form, path], options)
    if named_columns(source)[1] or _is_file(source):
        return build("task", source, RowsTask, [source], options)
    if form in READERS and colon:
        raise ValueError(f"{source} names nothing: write {form}:NAME")
    name, args, inline = parse_call(source)
    if name not in NAMES:
        raise ValueError(
            f"no task is called {name!r}; {nearest(name, NAMES)} (or a file, or a hub name"
            " owner/name)"
        )
    return build("task", name, NAMES[name], args, inline | options)


def _from_object(name: str, value: Any, options: dict[str, Any]) -> Task:
    """The task that an object is, holds or makes; `name` stands in messages."""
    if _is_task(value):
        if options:
            raise ValueError(
                f"{name} is a task already: it takes no options ({', '.join(options)})"
            )
        return value
    if is_rows(value):
        source = name if is_user_code(name) else value
        return build("task", name, RowsTask, [source], options)
    if not callable(value):
        raise ValueError(
            f"{name}: a task is a word, an object with name, reward and rows(split, seed), a"
            f" function that makes one, or rows in memory, not {type(value).__name__}"
        )
    try:
        result = build("task", name, value, [], options)
    except (UserError, ValueError):
        raise
    except Exception as error:
        raise UserError(f"{name} failed: {describe(error)}") from error
    if _is_task(result):
        return result
    if is_rows(result):
        return RowsTask(result)
    raise ValueError(f"{name} returned {type(result).__name__}, neither a task nor rows")


def _is_task(value: Any) -> bool:
    """A class has a task's attributes too, but is not a task."""
    return isinstance(value, Task) and not isinstance(value, type)


def _is_file(text: str) -> bool:
    """A directory, a file, a name that ends like one of data, or a hub name."""
    suffixes = tuple(s + end for s in SUFFIXES for end in ("", ".gz"))
    return (
        text.lower().endswith(suffixes)
        or bool(re.fullmatch(r"[^()\s]*/[^()]*", text))
        or Path(text).is_dir()
        # not what happens to be called as a task is
        or (text not in NAMES and Path(text).is_file())
    )
