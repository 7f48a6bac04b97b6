"""`logpi tools-demo` on budgets of a few updates: what the lanes share, where they differ, what is
left behind; and its demonstrations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from logpi.algorithms import algorithm
from logpi.cli import main
from logpi.demos.tools_experiments import EXPERIMENTS
from logpi.demos.tools_report import report
from logpi.envs.tasks import Calls, Facts
from logpi.envs.tasks import task as make_task
from logpi.learner import Learner
from logpi.policies.small import small_policy
from logpi.rewards import rewards
from logpi.rollouts.demonstrations import Demonstrations
from logpi.runs.metrics import read_metrics
from logpi.updates.adamw import AdamW

QUICK = ("--sft-steps", "2", "--steps", "1", "--eval-items", "4", "--seeds", "1")


def demo(experiment: str, out: Path, *more: str) -> None:
    assert main(["tools-demo", experiment, *QUICK, "--out", str(out), *more]) == 0


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tools")
    demo("mask", path)
    return path


def arguments(run: Path) -> dict:
    return json.loads((run / "arguments.json").read_text())["arguments"]


def test_both_masks_begin_with_the_same_model(out):
    home = out / "seed-0" / "search"
    on, off = arguments(home / "rl"), arguments(home / "unmasked")
    differ = {k for k in on if on[k] != off[k]}
    assert (
        differ == {"mask_observations", "out"}
        and on["mask_observations"]
        and not off["mask_observations"]
    )
    first = [read_metrics(home / name)[0] for name in ("rl", "unmasked")]
    assert (
        first[0]["eval/mean_length"] == first[1]["eval/mean_length"]
    )  # the same model on the same questions


def test_what_is_left_behind_says_every_seed(out, tmp_path, capsys):
    assert (
        "not masked" in (out / "mask.txt").read_text()
        and (out / "mask.png").stat().st_size > 10_000
    )
    run = out / "seed-0" / "search" / "unmasked"
    report("mask", EXPERIMENTS["mask"], {"not masked": [run, run]}, tmp_path)
    assert capsys.readouterr().out.count("seed by seed") == 2
    last = [r for r in read_metrics(run) if "eval/pass@1" in r][-1]
    kept = json.loads((tmp_path / "mask.json").read_text())["not masked"]
    measured = {k: v for k, v in last.items() if k in EXPERIMENTS["mask"].columns}
    assert (
        len(measured) > 2
        and [seed["RL"] for seed in kept]
        == [measured | {"mean/reward": kept[0]["RL"]["mean/reward"]}] * 2
    )


def test_what_is_done_is_not_done_again_and_experiments_share_it(out, capsys):
    before = (out / "seed-0" / "search" / "rl" / "metrics.jsonl").stat().st_mtime_ns
    demo("search", out)
    assert (out / "seed-0" / "search" / "rl" / "metrics.jsonl").stat().st_mtime_ns == before
    said = capsys.readouterr().out
    assert "documents up front" in said and "one hop" in said and "seed by seed" not in said
    closed = read_metrics(out / "seed-0" / "closed" / "rl")
    assert not any("tools/searches" in row for row in closed)  # there is nothing to search


def test_calls_are_compared_by_the_same_measures(tmp_path, capsys):
    demo("calls", tmp_path)
    home = tmp_path / "seed-0" / "calls"
    for lane in ("fine", "all", "length"):
        last = read_metrics(home / lane)[-1]
        assert {"eval/fine", "eval/all", "eval/pass@1"} <= last.keys()
    assert "eval/tool_length" in read_metrics(home / "length")[-1]
    assert capsys.readouterr().out.count(" RL ") == 3


def test_the_first_reward_of_every_lane_of_calls_is_full_just_where_all_is_right():
    task = Calls(right=0.5, thoughtful=0.5)
    rows = task.rows("test")[:50]
    columns = {name: [r[name] for r in rows] for name in ("calls",)}
    said = [r["completion"] for r in rows]
    full = []
    for lane in EXPERIMENTS["calls"].lanes:
        judge = rewards(lane.rewards)
        scores = judge.score([r["prompt"] for r in rows], said, [[0]] * len(rows), columns)
        full.append([s.parts[judge.names[0]] == 1.0 for s in scores])
    assert full[0] == full[1] == full[2] and 0 < sum(full[0]) < 50


def test_nothing_that_was_read_is_learned_from_demonstrations():
    """The own tokens are the assistant's text and the end; what is predicted elsewhere changes
    neither loss nor gradient."""
    task = Facts(searched=1)
    policy = small_policy(task.alphabet, words=task.words, width=32, layers=1)
    rollout = Demonstrations(policy, task, rows=8)
    batch = rollout().batch
    for row, told in zip(range(8), task.rows("train", 0), strict=False):
        own = policy.tokenizer.decode(batch.action[row][batch.mask[row]])
        assert (
            own.endswith("</answer><eos>")
            and "<information>" not in own
            and own.count("<search>") == told["level"]
        )
    start = policy.state_dict()
    after = []
    for changed in (batch, replace(batch, action=torch.where(batch.mask, batch.action, 5))):
        fresh = small_policy(task.alphabet, words=task.words, width=32, layers=1)
        fresh.load_state_dict(start)
        Learner(fresh, algorithm("sft"), AdamW(1e-2), total=1).update(changed)
        after.append(fresh.state_dict())
    assert all(torch.equal(after[0][k], after[1][k]) for k in start)
    assert not all(torch.equal(after[0][k], start[k]) for k in start)


def test_tasks_of_the_lanes_fit_their_models():
    for experiment in EXPERIMENTS.values():
        for lane in experiment.lanes:
            task = make_task(lane.task)
            policy = small_policy(task.alphabet, words=task.words, width=32, layers=1)  # type: ignore[attr-defined]
            rows = Demonstrations(policy, task, rows=64)().batch
            assert not (rows.obs == policy.tokenizer.unk_token_id).any()
            assert int(rows.mask.sum(1).max()) < experiment.tokens
