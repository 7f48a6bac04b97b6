"""`logpi inspect`: what is shown of a run, with and without colours."""

from __future__ import annotations

import json

import pytest

import logpi
from logpi.cli import main
from logpi.commands.inspect import shown
from logpi.engine.engine import Engine
from logpi.engine.sampling import Sampling
from logpi.envs.tasks import Addition
from logpi.policies.small import small_policy
from logpi.rewards import rewards
from logpi.rollouts.text_rollout import TextRollout
from logpi.runs.directory import Run
from logpi.train import complete, train
from logpi.updates.adamw import AdamW

ROW = {
    "prompt": [{"role": "user", "content": "capital?"}],
    "completion": "find\nParis",
    "answer": "Paris",
    "reward": 1.5,
    "rewards": {"qa_em": 1.0},
    "errors": {},
    "stop": "eos",
    "tokens": 9,
    "group": 0,
    "ids": list(range(9)),
    "turns": [
        {"tokens": 4, "text": "find", "shown": "\x1b[2Jdoc \u202e1", "reward": 0.5, "observed": 6},
        {"tokens": 5, "text": "Paris", "shown": "", "reward": 0.0, "observed": 0},
    ],
    "counts": {"tool_calls": 1.0},
}


def test_a_conversation_is_shown_turn_by_turn():
    text = "\n".join(shown(ROW | {"advantage": -0.25}))
    assert text.splitlines()[0] == (
        "reward 1.5   qa_em 1   stop eos   tokens 9   tool_calls 1   answer Paris   advantage -0.25"
    )
    assert (
        "user: capital?" in text
        and "── turn 1   4 tokens   reward +0.5   advantage -0.25\nfind" in text
    )
    assert (
        "── environment   6 tokens, not trained\n\ufffd[2Jdoc \ufffd1" in text
        and "\x1b" not in text
    )
    assert "advantage not known" in "\n".join(shown(ROW))


def test_tokens_are_coloured_by_mask_and_advantage():
    credit = [1.0, 1.0, 0.1, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    text = "\n".join(shown(ROW | {"advantage": credit}, list("findParis"), color=True))
    assert (
        "\x1b[38;5;46mf\x1b[0m\x1b[38;5;46mi\x1b[0m\x1b[38;5;22mn\x1b[0m\x1b[38;5;196md\x1b[0m\n"
        in text
    )
    assert "\nParis" in text and "\x1b[38;5;245m\ufffd[2Jdoc" in text


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_a_run_is_inspected(tmp_path, capsys, name):
    task, made = Addition(), logpi.algorithm(name)
    policy = small_policy(
        task.alphabet, width=16, layers=1, heads=2, critic=made.objective.needs_critic
    )
    judged = rewards(lambda prompts, completions, **_: [float(len(c) % 2) for c in completions])
    source = TextRollout(
        policy,
        Engine(policy),
        task,
        judged,
        algorithm=made,
        prompts=2,
        num_generations=4,
        sampling=Sampling(max_tokens=6),
    )
    with Run.create(tmp_path / "run", "rl", {"model": "none"}) as run:
        complete(train(source, logpi.Learner(policy, made, AdamW(lr=1e-3)), run, steps=1))
        run.save_model(policy.save)
    rows = [
        json.loads(line)
        for line in (run.path / "samples" / "step-000001.jsonl").read_text().splitlines()
    ]
    credit = [r["advantage"] for r in rows]
    assert any(isinstance(c, list) for c in credit) == (
        name == "ppo"
    )  # without a critic all tokens of a row share one
    assert all(
        len(c) == r["tokens"] for c, r in zip(credit, rows, strict=True) if isinstance(c, list)
    )
    assert all(len(r["ids"]) == r["tokens"] == len(r["logp"]) for r in rows)
    # the learner evaluates the policy before the update for the critic's sake alone
    assert all(("entropy" in r) == (name == "ppo") and "ratio" not in r for r in rows)
    assert main(["inspect", str(run.path), "--row", "3", "--color"]) == 0
    out = capsys.readouterr().out
    assert "step 1   row 3 of 8" in out and rows[3]["prompt"] in out and "advantage" in out
    assert (
        main(["inspect", str(run.path), "--row", "8"]) == 2 and "0 … 7" in capsys.readouterr().err
    )
    assert (
        main(["inspect", str(run.path), "--step", "9"]) == 2
        and "steps 1 … 1" in capsys.readouterr().err
    )
    assert main(["inspect", str(tmp_path)]) == 2 and "no run" in capsys.readouterr().err


def test_an_evaluation_is_shown_response_by_response(tmp_path, capsys):
    with Run.create(tmp_path / "run", "eval", {"model": "none"}) as run:
        item = {"item": 0, "prompt": "1+1=", "read": "tools: plus. 1+1=", "answer": "2"}
        judged = {"completions": ["2", "3"], "right": [True, False], "totals": [1.0, None]}
        rest = {"rewards": [{"exact": 1.0}, {"exact": 0.0}], "stop": ["eos"] * 2, "tokens": [1, 1]}
        line = json.dumps({"kind": "sampled"} | item | judged | rest)
        (run.path / "responses.jsonl").write_text(line + "\n")
    path = str(run.path)
    assert main(["inspect", path]) == 0
    out = capsys.readouterr().out
    assert f"{path}   evaluation   row 0 of 2" in out
    assert "reward 1   exact 1   stop eos   tokens 1   answer 2   sampled" in out
    assert "tools: plus. 1+1=\n── turn 1   1 tokens\n2" in out
    assert main(["inspect", path, "--row", "1"]) == 0
    assert "reward none" in capsys.readouterr().out
    assert main(["inspect", path, "--row", "2"]) == 2
    assert "evaluation has 2 rows: --row 0 … 1" in capsys.readouterr().err
    assert main(["inspect", path, "--step", "1"]) == 2
    assert "leave --step out" in capsys.readouterr().err


def test_a_run_without_samples_says_where_there_are_some(tmp_path, capsys):
    with Run.create(tmp_path / "r1", "r1", {}) as chain, Run.create(chain.path / "zero", "rl", {}):
        pass
    (chain.path / "zero" / "samples").mkdir(exist_ok=True)
    assert main(["inspect", str(chain.path)]) == 2
    assert f"runs in it that have some: {chain.path}/zero" in capsys.readouterr().err
    (chain.path / "samples.jsonl").write_text("")
    assert main(["inspect", str(chain.path)]) == 2
    assert f"its responses are in {chain.path}/samples.jsonl" in capsys.readouterr().err
