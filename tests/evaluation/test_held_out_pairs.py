"""Best of N, votes, win rates and calibration by hand; `logpi eval` with a judge."""

from __future__ import annotations

import json
from itertools import combinations

import pytest
import torch

from logpi.evaluation.held_out_pairs import calibration, win_rate
from logpi.evaluation.pooling import best_of, vote
from logpi.jobs import evaluate
from logpi.policies.causal_lm import CausalLM
from tests.tiny import tiny_model, tiny_tokenizer


def test_best_of_n_is_the_mean_over_all_draws():
    scores, values = [0.3, 0.1, 0.9, 0.3, 0.5], [1.0, 0.0, 0.0, 0.0, 1.0]
    for n in range(1, 6):
        drawn = []
        for chosen in combinations(range(5), n):
            top = max(scores[i] for i in chosen)
            drawn.append(
                [values[i] for i in range(5) if scores[i] == top]
            )  # the two 0.3 are alike on average
        expected = sum(sum(d) / len(d) for d in drawn) / len(drawn)
        assert best_of(scores, values, n) == pytest.approx(expected)
    with pytest.raises(ValueError, match="best of 6"):
        best_of(scores, values, 6)


def test_what_has_no_verdict_is_never_the_best_of_several():
    scores = [float("-inf"), 1.0, 2.0]
    assert best_of(scores, scores, 2) == pytest.approx(5 / 3)  # not NaN: of two, one has a verdict
    assert best_of(scores, [0.0, 1.0, 0.0], 1) == pytest.approx(1 / 3)


def test_the_silent_do_not_decide_a_vote_by_their_score():
    assert vote([None, "4", "5"], [0.0, -800.0, -900.0], [False, True, False]) == 1.0


def test_a_weighted_vote_can_overrule_the_majority():
    right = [True, False, False]
    assert vote(["4", "5", "5"], [0.0, 0.0, 0.0], right) == 0.0
    assert vote(["4", "5", "5"], [2.0, 0.0, 0.0], right) == 1.0
    assert vote([None, None], [0.0, 1.0], [False, False]) == 0.0
    assert vote(["4", "5"], [1.0, 1.0], [True, False]) == 0.5


def test_win_rate_counts_ties_as_half_and_holds_itself():
    rate, low, high = win_rate([[1.0], [2.0], [0.0], [5.0]], [[0.0], [2.0], [1.0], [4.0]])
    assert rate == pytest.approx(0.625) and low <= rate <= high
    assert win_rate([[1.0, 3.0]], [[1.0, 3.0]])[0] == 0.5


def test_calibration_of_a_model_that_knows_how_sure_it_is():
    """Margins m won with probability σ(m): small error. The same margins taken ten times too
    seriously: large."""
    g = torch.Generator().manual_seed(0)
    margin = 2 * torch.randn(20_000, generator=g).abs()
    won = torch.rand(20_000, generator=g) < torch.sigmoid(margin)
    signed = torch.where(won, margin, -margin)
    assert calibration(signed).error < 0.02 < 0.15 < calibration(10 * signed).error
    assert sum(calibration(signed).count) == 20_000


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        CausalLM(tiny_model("llama", seed=seed), tiny_tokenizer(chat_template=None)).save(
            path / str(seed)
        )
    return path


def test_eval_with_a_judge(models, capsys, tmp_path):
    judge = "soft_overlong(6, cache=6)"
    code = evaluate.main(
        [
            "--model",
            str(models / "0"),
            "--items",
            "4",
            "--best-of",
            "4",
            "--judge",
            judge,
            "--against",
            str(models / "1"),
            "--max-completion-length",
            "6",
            "--json",
            "--out",
            str(tmp_path / "eval"),
        ]
    )
    assert code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["judge_best@1"] <= found["judge_best@2"] <= found["judge_best@4"]
    assert {"best_of@4", "weighted_maj@4", "pass@4"} <= found.keys()
    assert found["win_rate_low"] <= found["win_rate"] <= found["win_rate_high"]


def test_a_judge_is_asked_for(models, capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["--model", str(models / "0"), "--best-of", "4"])
    assert "need a judge" in capsys.readouterr().err
