"""docs/coming_from.md: every block of ours trains, with small things in the place of named ones.

What is replaced: names of models and data sets by a tiny model and a few rows, numbers of steps
and of tokens by small ones (`SMALL`); nothing else of a block. Command lines and the file of
options are read as their command reads them. Of theirs it is checked that they are Python.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import logpi
from logpi.algorithms import names
from logpi.jobs.options.run import read
from tests.tiny import tiny_model, tiny_tokenizer

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "coming_from.md").read_text("utf-8")
SECTION = re.compile(r"^##+ (.+?)\n(.*?)(?=^##+ |\Z)", re.M | re.S)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
BLOCKS = [
    (title, language, text)
    for title, section in SECTION.findall(PAGE)
    for language, text in BLOCK.findall(section)
]
OURS = [(title, text) for title, language, text in BLOCKS if language == "python"]
THEIRS = [(title, text) for title, language, text in BLOCKS if language == "py"]
# pattern -> what stands in its place
SMALL = {
    r'"trl-lib/Capybara"': '"demonstrations.jsonl"',
    r'"trl-lib/ultrafeedback_binarized"': '"pairs.jsonl"',
    r'"openai/gsm8k:main"': '"questions.jsonl"',
    r'"Qwen/[\w.-]+"': '"tiny"',
    r'trackers="wandb"': "trackers=()",
    r"\bsteps=\d+": "steps=2, save_every=1",
    r"(\.jsonl\"|task=rows),": r"\1, eval_items=3,",
    r"max_completion_length=\d+": "max_completion_length=4",
    r"total_timesteps=[\d_]+": "total_timesteps=2 * 4 * 32, eval_episodes=2, evaluations=0",
    r"n_envs=\d+": "n_envs=4",
    r"n_steps=\d+": "n_steps=32",
}


def small(text: str) -> str:
    for pattern, instead in SMALL.items():
        text = re.sub(pattern, instead, text)
    return text


def rows(name: str, items: list[dict[str, Any]]) -> None:
    Path(name).write_text("\n".join(map(json.dumps, items)), encoding="utf-8")


@pytest.fixture(scope="module")
def small_things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model and data sets, in which the blocks run in their order."""
    here = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        tiny_model().save_pretrained("tiny")
        tiny_tokenizer().save_pretrained("tiny")
        rows("questions.jsonl", [{"prompt": f"{i}+1=", "answer": f"{i + 1}"} for i in range(40)])
        talks = [[("user", f"say {i}"), ("assistant", f"{i}")] for i in range(40)]
        talk = [[{"role": r, "content": c} for r, c in one] for one in talks]
        rows("demonstrations.jsonl", [{"messages": one} for one in talk])
        other = [{"role": "assistant", "content": "no"}]
        pairs = [{"chosen": one, "rejected": [*one[:1], *other]} for one in talk]
        rows("pairs.jsonl", pairs)
    return here


@pytest.mark.parametrize(("title", "text"), OURS, ids=[title for title, _ in OURS])
def test_ours_trains(
    title: str, text: str, small_things: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_things)
    scope: dict[str, Any] = {"__name__": "page"}
    exec(compile(small(text), title, "exec"), scope)
    metrics = scope["job"].result.metrics
    learned = metrics["grad_norm"].values
    assert len(learned) >= 1 and (learned >= 0).all()


@pytest.mark.parametrize(("title", "text"), THEIRS, ids=[title for title, _ in THEIRS])
def test_theirs_is_python_with_ours_under_the_same_heading(title: str, text: str) -> None:
    ast.parse(text)
    assert title in [t for t, _ in OURS]


def test_a_command_line_and_the_file_say_the_same(tmp_path: Path) -> None:
    text = next(text for _, language, text in BLOCKS if language == "yaml")
    file = tmp_path / "run.yaml"
    file.write_text(text)
    of_file = read(logpi.RL, ["--config", str(file)], "rl", "")
    line = next(t for title, _, t in BLOCKS if title == "verl" and t.startswith("logpi"))
    of_line = read(logpi.RL, shlex.split(line.replace("\\\n", " "))[2:], "rl", "")
    assert of_file == of_line == logpi.RL(**yaml.safe_load(text))


def test_every_name_is_on_the_page() -> None:
    named = set(re.findall(r"`([^`]+)`", PAGE[PAGE.index("<!-- names -->") :]))
    tables = (names.ROWS, names.OPTIONS, names.JOB_NAMES)
    assert {o for t in tables for o, own in t.items() if own != o} | set(names.ELSEWHERE) <= named
