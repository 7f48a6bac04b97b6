"""`logpi eval` from its command line: what it leaves behind, going on after a kill, what it
refuses, what it leaves out."""

from __future__ import annotations

import json

import pytest
import torch

from logpi.envs.tasks import Addition
from logpi.errors import UserError
from logpi.jobs import evaluate
from logpi.policies.small import small_policy


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    small_policy(Addition().alphabet + "ABcd \n", width=32, layers=2, heads=2).save(path)
    return path


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    made = [{"prompt": f"{i}+{i}=", "answer": str(2 * i), "level": i % 2} for i in range(10, 16)]
    path.write_text("".join(json.dumps(r) + "\n" for r in made))
    return path


def run(model, *words):
    short = [
        "--model",
        str(model),
        "--samples",
        "2",
        "--max-completion-length",
        "4",
        "--save-every",
        "2",
    ]
    return evaluate.main([*short, *map(str, words)])


def test_what_it_leaves_behind(model, rows, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        run(model, "--task", f"rows:{rows}", "--lenient", "number", "--judge", "logp", "--out", out)
        == 0
    )
    table = capsys.readouterr().out
    assert (
        table.splitlines()[0].split()[:2] == ["6", "items"]
        and "level 0" in table
        and "pass@1 = avg@2" in table
    )
    assert (out / "results.txt").read_text().strip() == table.strip()
    results = json.loads((out / "results.json").read_text())
    assert set(results["numbers"]) >= {
        "pass@1",
        "pass@2",
        "maj@2",
        "best_of@2",
        "weighted_maj@2",
        "greedy",
        "lenient_pass@1",
    }
    assert (
        results["items"] == 6
        and set(results["levels"]) == {"0", "1"}
        and results["levels"]["0"]["pass@1"]["items"] == 3
    )
    records = [json.loads(line) for line in (out / "responses.jsonl").read_text().splitlines()]
    assert len(records) == 12 and sum(len(r["completions"]) for r in records) == 18
    assert json.loads((out / "arguments.json").read_text())["command"] == "eval"


def test_a_killed_evaluation_goes_on_and_ends_the_same(model, rows, tmp_path, capsys):
    out = tmp_path / "out"
    run(model, "--task", f"rows:{rows}", "--out", out)
    table, whole = capsys.readouterr().out, (out / "responses.jsonl").read_bytes()
    for keep in (
        0,
        700,
        len(whole) - 20,
    ):  # nothing, a torn line in the first shard, one in the last
        (out / "responses.jsonl").write_bytes(whole[:keep])
        (out / "results.json").unlink()
        assert evaluate.main(["--resume", str(out)]) == 0
        assert capsys.readouterr().out == table and (out / "responses.jsonl").read_bytes() == whole


def test_a_finished_evaluation_samples_nothing_again(model, rows, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    run(model, "--task", f"rows:{rows}", "--out", out)
    table = capsys.readouterr().out
    monkeypatch.setattr(
        "logpi.engine.engine.Engine.generate", lambda *_, **__: pytest.fail("sampled again")
    )
    assert evaluate.main(["--resume", str(out)]) == 0 and capsys.readouterr().out == table


def test_rows_whose_answer_cannot_be_read_are_named_and_left_out(model, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "1+1=", "answer": "2"}\n{"prompt": "2+1=", "answer": "three"}\n')
    assert (
        run(model, "--task", f"rows:{path}", "--rewards", "number", "--out", tmp_path / "out") == 0
    )
    assert (
        "1 of 2 items left out: reward 'number' cannot read their answers: 1 ('three')"
        in capsys.readouterr().err
    )
    assert json.loads((tmp_path / "out" / "results.json").read_text())["unreadable"] == [1]
    path.write_text('{"prompt": "2+1=", "answer": "three"}\n')
    with pytest.raises(UserError, match="cannot read the answer of any of its 1 rows"):
        run(model, "--task", f"rows:{path}", "--rewards", "number", "--out", tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_seen_items_are_listed_and_can_be_dropped(model, rows, tmp_path, capsys):
    training = tmp_path / "train.jsonl"
    training.write_text('{"text": "10 + 10 ="}\n{"text": "nothing of it"}\n')
    words = ("--task", f"rows:{rows}", "--trained-on", training)
    assert run(model, *words, "--out", tmp_path / "a") == 0
    assert "1 of 6 items stand in" in capsys.readouterr().err
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert [s["item"] for s in results["seen"]] == [0] and results["items"] == 6
    assert run(model, *words, "--drop-seen", "--out", tmp_path / "b") == 0
    assert json.loads((tmp_path / "b" / "results.json").read_text())["items"] == 5
    with pytest.raises(UserError, match="nothing is left"):
        run(
            model,
            "--task",
            f"rows:{rows}",
            "--trained-on",
            rows,
            "--drop-seen",
            "--out",
            tmp_path / "c",
        )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--pass-at", "1", "8"), "--samples 8"),
        (("--save-every", "0"), "--save-every: must be at least 1"),
    ],
)
def test_impossible_arguments_are_one_line(model, capsys, words, line):
    with pytest.raises(SystemExit) as leave:
        run(model, *words)
    assert leave.value.code == 2 and line in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("gsm9k:{0}", "no benchmark format is called 'gsm9k'"),
        ("rows:{0}.none", "no such file"),
        ("humaneval:{0}", "no column"),
    ],
)
def test_bad_files_are_one_line_before_a_model_is_loaded(rows, spec, line):
    with pytest.raises(UserError, match=line):
        run("no-such-model", "--task", spec.format(rows))


def test_an_empty_file_is_one_line(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="no rows"):
        run("no-such-model", "--task", f"rows:{tmp_path / 'empty.jsonl'}")


def test_a_judge_that_is_not_there_is_said_before_anything_is_sampled(model, rows, tmp_path):
    """It judged nothing, silently: judge_best@1 was −∞ and its interval NaN."""
    with pytest.raises(UserError, match="nowhere"):
        run(
            model,
            "--task",
            f"rows:{rows}",
            "--judge",
            f"model:{tmp_path}/nowhere",
            "--out",
            tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_a_judge_that_fails_on_every_response_is_not_a_score():
    from logpi.evaluation.scorers import PartialResponse, RewardScorer
    from logpi.rewards import Rewards, Weighted

    def broken(prompts, completions, **columns):
        raise RuntimeError("no GPU")

    judge = RewardScorer(Rewards((Weighted(broken),)))
    tokens, logp = torch.tensor([1]), torch.tensor([-1.0])
    with pytest.raises(
        UserError, match="broken failed on every one of 2 responses: raised: RuntimeError: no GPU"
    ):
        judge([PartialResponse({"prompt": "p"}, [1], tokens, logp, "x", "eos")] * 2)


def test_a_search_needs_steps(model):
    from logpi.jobs.compute import Compute

    with pytest.raises(ValueError, match="--step must say"):
        Compute(model=str(model), step="", beams=(4,))
    assert Compute(model=str(model), step="", beams=()).beams == ()
