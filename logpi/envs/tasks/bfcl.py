"""The Berkeley Function-Calling Leaderboard's files as a task: one turn, whose calls are matched
with possible answers.

    bfcl:BFCL_v4_simple_python.json   one category; its answers stand in possible_answer/, as
                                      published
    bfcl:DIRECTORY                    every category there that can be judged by matching

Categories: simple (also live_simple), multiple, parallel, parallel_multiple, irrelevance (right is
no call). The files are those of the package bfcl-eval or of ShishirPatil/gorilla (Apache-2.0). They
are a test: there is no training split. Left out: Java and JavaScript,
categories that run the calls, conversations of several turns, agentic ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from logpi.calls import style as style_of
from logpi.calls.schema import standard
from logpi.envs.files import read_raw
from logpi.envs.task import Row, Split, check_split
from logpi.rewards import BfclReward, Rewards, Weighted

_NAME = re.compile(r"BFCL_v\d+_(?P<category>\w+)\.jsonl?")
_JUDGED = re.compile(
    r"(?:live_)?(?:simple(?:_python)?|multiple|parallel|parallel_multiple|irrelevance)"
)


@dataclass(frozen=True)
class Bfcl:
    """Function calls in one turn.

    A row: `prompt` (messages: the style's system message, which lists the functions, then the
    question), `functions` and `possible` as published, `tools` (the functions as JSON schemas),
    `category`.

    Attributes:
        path: a file, or a directory of files. answers: file of possible answers, if it is not where
            it is published.
        style: how calls are written: "hermes" (Qwen and its kin), "xml", "python" (the
            leaderboard's own prompt), "lines".
        chat: messages for a chat template; False: one text.

    Raises:
        ValueError: a missing file, a category that cannot be judged so, an unknown style.
    """

    path: str
    answers: str = ""
    style: str = "hermes"
    chat: bool = True
    name: str = field(default="bfcl", init=False, repr=False)

    def __post_init__(self) -> None:
        style_of(self.style)
        # A missing file is an error before anything is loaded.
        _ = self._files

    @property
    def reward(self) -> Rewards:
        return Rewards((Weighted(BfclReward(self.style)),))

    def rows(self, split: Split = "test", seed: int = 0) -> list[Row]:
        check_split(split)
        if split == "train":
            raise ValueError(
                "bfcl is a test; train on other calls (toolrl:FILE, openai:FILE, or the task"
                " `calls`)"
            )
        return list(self._rows)

    @cached_property
    def _files(self) -> list[Path]:
        path = Path(self.path).expanduser()
        if path.is_dir():
            files = sorted(f for f in path.iterdir() if _JUDGED.fullmatch(_category(f)))
            if not files:
                raise ValueError(
                    f"{path}: no BFCL_v4_<category>.json of a category that is judged by matching"
                )
            return files
        if not path.is_file():
            raise ValueError(f"{path}: no such file or directory")
        if _category(path) and not _JUDGED.fullmatch(_category(path)):
            raise ValueError(
                f"{path.name}: only simple, multiple, parallel, parallel_multiple and irrelevance"
                " are judged by matching"
            )
        return [path]

    @cached_property
    def _rows(self) -> list[Row]:
        return [row for file in self._files for row in self._of(file)]

    def _of(self, file: Path) -> list[Row]:
        raw = [
            r
            for where, r in read_raw(str(file))
            if _complete(r, where, "id", "question", "function")
        ]
        category = _category(file) or "simple"
        answers = {} if "irrelevance" in category else self._possible(file)
        missing = next((r["id"] for r in raw if answers and r["id"] not in answers), None)
        if missing:
            raise ValueError(f"{file}: no possible answer for {missing}")
        return [self._row(r, category, answers.get(r["id"], [])) for r in raw]

    def _possible(self, file: Path) -> dict[str, Any]:
        path = (
            Path(self.answers).expanduser()
            if self.answers
            else file.parent / "possible_answer" / file.name
        )
        if not path.is_file():
            raise ValueError(
                f"{path}: no such file; the possible answers of {file.name} belong there, or give"
                " answers=FILE"
            )
        return {
            r["id"]: r["ground_truth"]
            for where, r in read_raw(str(path))
            if _complete(r, where, "id", "ground_truth")
        }

    def _row(self, raw: Row, category: str, possible: list[Mapping[str, Any]]) -> Row:
        tools = [{"type": "function", "function": standard(f)} for f in raw["function"]]
        messages = [dict(m) for m in raw["question"][0]]
        system = style_of(self.style).system(
            tools if self.style != "python" else [{"function": f} for f in raw["function"]]
        )
        if messages and messages[0]["role"] == "system":
            system, messages = f"{messages[0]['content']}\n\n{system}", messages[1:]
        prompt: Any = [{"role": "system", "content": system}, *messages]
        if not self.chat:
            prompt = "\n\n".join(m["content"] for m in prompt) + "\n\n"
        return {
            "prompt": prompt,
            "id": raw["id"],
            "category": category,
            "functions": raw["function"],
            "possible": possible,
            "tools": tools,
            "answer": json.dumps(possible, ensure_ascii=False),
        }


def _complete(row: Row, where: str, *names: str) -> bool:
    missing = next((n for n in names if n not in row), None)
    if missing:
        raise ValueError(
            f"{where}: no column {missing!r}, so it is no file of the leaderboard; found:"
            f" {', '.join(row)}"
        )
    return True


def _category(file: Path) -> str:
    match = _NAME.fullmatch(file.name)
    return match["category"] if match else ""
