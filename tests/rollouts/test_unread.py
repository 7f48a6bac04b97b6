"""Rows with characters that a model's vocabulary lacks are told once, with the first one's place;
all of them are refused."""

from __future__ import annotations

import json

import pytest

from logpi.cli import main
from logpi.envs.data import load_rows
from logpi.errors import UserError
from logpi.policies.causal_lm import CausalLM
from logpi.policies.small import small_policy
from logpi.rollouts.unread import tell_unread
from tests.families import family

ROWS = [
    {"prompt": "1+1=", "completion": "2", "answer": "two"},
    {"prompt": "1+é=", "completion": "2", "answer": "2"},
    {"prompt": "1+2=", "completion": "drei", "answer": "3"},
]


def written(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return load_rows(str(path))


def digits(**shape) -> CausalLM:
    return small_policy("0123456789+=", width=16, layers=1, heads=2, **shape)


def test_the_first_place_and_the_count(tmp_path, capsys) -> None:
    rows = written(tmp_path / "rows.jsonl", ROWS)
    tell_unread(digits(), rows, "rows", "completion")
    said = capsys.readouterr().err
    assert said.startswith("2 of 3 rows are not read whole: ") and said.count("\n") == 1
    assert "rows.jsonl, line 2: the model's vocabulary lacks 'é': it reads <unk> instead" in said
    with pytest.raises(UserError, match=r"line 2: .*lacks 'é'.*with all 2 rows .*another model"):
        tell_unread(digits(), rows[1:], "rows", "completion")
    tell_unread(digits(), rows[:1], "rows")
    tell_unread(digits(), [], "rows")
    tell_unread(CausalLM(*family("qwen2.5")), rows, "rows")
    assert capsys.readouterr().err == ""
    # reinforcement learning reads no demonstrations
    tell_unread(digits(), rows[1:], "rows")
    assert capsys.readouterr().err.startswith("1 of 2 rows are not read whole: ")


@pytest.mark.parametrize(
    "words",
    [
        "eval --task {0} --max-completion-length 2 --rewards exact",
        "rl --task {0} --steps 1 --rewards exact --algorithm reinforce --max-completion-length 2",
        "sft --task {0} --steps 1 --rows 2",
        "prefer --data {1} --steps 1 --pairs 2",
        "harvest --task {0} --rewards exact --max-completion-length 2",
    ],
)
def test_every_job_says_it(tmp_path, capsys, words: str) -> None:
    english = [{"prompt": f"{i} =", "completion": "2", "answer": "2"} for i in range(30)]
    pairs = [{"prompt": f"{i}?", "chosen": "far", "rejected": "x"} for i in range(30)]
    written(tmp_path / "rows.jsonl", english)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    digits().save(tmp_path / "m")
    line = words.format(tmp_path / "rows.jsonl", tmp_path / "pairs.jsonl")
    more = ["--model", str(tmp_path / "m"), "--out", str(tmp_path / "o")]
    assert main([*line.split(), *more]) == 2
    assert "the model's vocabulary lacks " in capsys.readouterr().err.splitlines()[-1]


def test_chat_asks_again(tmp_path, capsys, monkeypatch) -> None:
    import io

    digits().save(tmp_path / "m")
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n1+1=\n"))
    assert main(["chat", "--model", str(tmp_path / "m"), "--max-completion-length", "3"]) == 0
    said = capsys.readouterr()
    assert "lacks 'h', 'e', 'l', 'o': it reads <unk> instead; say it otherwise" in said.err
    assert said.out.count("\n") == 1
