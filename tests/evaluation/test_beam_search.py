"""Scorers by hand, step-scored beam search on a model whose good answers are known, and the compute
curve of real records."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from logpi.engine.engine import Engine
from logpi.engine.sampling import Completion, Request, Sampling
from logpi.envs.tasks import Addition
from logpi.evaluation.beam_search import BeamSearch
from logpi.evaluation.scorers import (
    ContinuationScorer,
    LogP,
    PartialResponse,
    RewardScorer,
    SelfCertainty,
    extended,
    prefixes,
    scorer,
    verdicts,
)
from logpi.jobs import compute
from logpi.policies.small import small_policy
from logpi.rewards import rewards
from logpi.rollouts.collate import collate
from logpi.rollouts.responses import trajectory


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    return small_policy(Addition().alphabet, width=32, layers=2, heads=2)


def partial(policy, text: str, row=None) -> PartialResponse:
    tokens = torch.tensor(policy.tokenizer(text)["input_ids"])
    return PartialResponse(
        row or {"prompt": "1+2=", "answer": "3"},
        policy.render("1+2="),
        tokens,
        torch.zeros(len(tokens)),
        text,
    )


def test_logp_is_the_mean_over_tokens(policy):
    p = partial(policy, "1234")
    assert LogP()(
        [PartialResponse(p.row, p.prompt, p.tokens, torch.tensor([-1.0, -2.0, -3.0, -4.0]), p.text)]
    ) == [-2.5]


def test_self_certainty_is_the_divergence_from_uniform(policy):
    one, two = partial(policy, "12"), partial(policy, "7,8=4")
    found = SelfCertainty(policy)([one, two])
    for p, value in zip((one, two), found, strict=True):
        made = collate([trajectory(p.prompt, Completion(p.tokens, p.logp, "eos"), 0.0, 0, {})])
        logp = policy.distributions(made).params.detach().log_softmax(-1).double()
        u = 1 / policy.vocabulary
        expected = (u * (math.log(u) - logp)).sum(-1).mean()
        assert value == pytest.approx(float(expected), abs=1e-5) and value > 0


def test_rewards_score_responses_with_their_rows_columns(policy):
    right, wrong = (
        partial(policy, "2+1=3#3"),
        partial(policy, "#4", {"prompt": "2+2=", "answer": "5"}),
    )
    assert RewardScorer(rewards("exact"))([right, wrong]) == [1.0, 0.0]
    assert verdicts(rewards(["exact", "number:0.5"]), [right])[0].total == 1.5
    assert RewardScorer(rewards("exact"))([partial(policy, "#3", {"prompt": "?"})]) == [
        -math.inf
    ]  # no verdict, never chosen
    assert scorer("logp", policy) == LogP() and scorer("number", policy).name == "number"
    with pytest.raises(ValueError, match="did you mean number"):
        scorer("numbr", policy)


def test_a_response_is_cut_after_each_step(policy):
    whole = replace(partial(policy, "7+5=12,4+8=13#132"), stop="eos")
    found = prefixes(policy, whole, ",")
    assert [(p.text, p.stop) for p in found] == [("7+5=12,", ""), ("7+5=12,4+8=13#132", "eos")]
    assert all(p.tokens.tolist() == whole.tokens[: len(p.tokens)].tolist() for p in found)
    assert [p.text for p in prefixes(policy, whole, "1,3")] == [
        whole.text
    ]  # that never ends a step
    assert prefixes(policy, whole, "") == [whole]


class Even:
    """Right if the text has an even number of characters; no verdict on texts that hold a #."""

    name, needs = "even", ()

    def __call__(self, prompts, completions, completion_ids=None, **columns):
        return [None if "#" in c else float(len(c) % 2 == 0) for c in completions]


def test_rollouts_are_the_share_of_continuations_that_end_right(policy):
    """Of a beginning: as counted by hand on the same continuations. Of an end: its own verdict."""
    judge, row, limit = rewards(Even()), {"prompt": "1+2="}, Sampling(max_tokens=6)
    begun, ended = partial(policy, "1+", row), replace(partial(policy, "1+1", row), stop="eos")
    ask = ContinuationScorer(
        policy, Engine(policy), judge, 64, limit, torch.Generator().manual_seed(3)
    )
    share, at_end, unknown = ask([begun, ended, replace(partial(policy, "#", row), stop="eos")])
    request = Request([*begun.prompt, *begun.tokens.tolist()], 64, max_tokens=6 - len(begun.tokens))
    [again] = Engine(policy).generate([request], limit, torch.Generator().manual_seed(3))
    texts = [extended(policy, begun, c).text for c in again]
    marks = [len(t) % 2 == 0 for t in texts if "#" not in t]
    assert (
        share == sum(marks) / len(marks)
        and 0 < share < 1
        and all(t.startswith("1+") for t in texts)
    )
    assert (at_end, unknown) == (0.0, -math.inf)
    assert max(len(c.tokens) for c in again) <= 6 - len(begun.tokens)


class Ones:
    """Prefers beginnings with many 1s: what a search steered by it must find."""

    name = "ones"

    def __init__(self) -> None:
        self.asked: list[PartialResponse] = []

    def __call__(self, partials):
        self.asked += partials
        return [float(p.text.count("1")) for p in partials]


def beam(policy, scorer, **options):
    return BeamSearch(policy, Engine(policy), scorer, step=",", **options)


def test_the_search_follows_its_scorer(policy):
    rows, ones = Addition().rows("test")[:24], Ones()
    wide = beam(policy, ones, width=16, keep=4, max_tokens=12)(
        rows, torch.Generator().manual_seed(1)
    )
    narrow = beam(policy, Ones(), width=1, keep=1, max_tokens=12)(
        rows, torch.Generator().manual_seed(1)
    )
    assert sum(f.score for f in wide) > 1.5 * sum(f.score for f in narrow) > 0
    for found in wide:
        ended = [p for p in found.beams if p.stop in ("eos", "stop")]
        assert found.best in (ended or found.beams[:1]) and found.score == found.best.text.count(
            "1"
        )
        assert len({tuple(p.tokens.tolist()) for p in found.beams}) == len(found.beams) <= 4
        assert found.best.stop and len(found.best.tokens) <= 12
    spent = sum(f.tokens for f in wide)
    assert spent > sum(len(p.tokens) for f in wide for p in f.beams)  # abandoned beginnings count
    text = policy.tokenizer.decode
    assert all(
        text(p.tokens, skip_special_tokens=True) == p.text and len(p.logp) == len(p.tokens)
        for p in ones.asked
    )
    live = [p for p in ones.asked if not p.stop]
    assert live and all(p.text.endswith(",") for p in live)  # beginnings end where a step ends


def test_of_equal_scores_the_first_is_kept_however_often_it_was_said(policy):
    """Else what is said rarely would win every tie, and a scorer that cannot tell two apart would
    choose the worse."""
    a, b = partial(policy, "11"), partial(policy, "22")
    search = beam(policy, LogP(), width=4, keep=1)
    assert search._best([(1.0, a), (1.0, b), (1.0, a)]) == [(1.0, a)]
    assert [
        p for _, p in beam(policy, LogP(), width=4, keep=2)._best([(0.0, a), (1.0, b), (0.0, a)])
    ] == [b, a]


def test_a_beams_record_is_what_the_model_says_of_it(policy):
    """Steps are sampled apart and extended: their log-probabilities are those of the whole."""
    [found] = beam(policy, LogP(), width=8, keep=2, max_tokens=10)(
        Addition().rows("test")[:1], torch.Generator().manual_seed(0)
    )
    p = found.best
    batch = collate([trajectory(p.prompt, Completion(p.tokens, p.logp, "eos"), 0.0, 0, {})])
    with torch.no_grad():
        now = policy.evaluate(batch).logp[batch.mask]
    torch.testing.assert_close(now, p.logp, atol=1e-5, rtol=1e-5)


def test_the_search_is_the_same_for_the_same_seed_and_refuses_nonsense(policy):
    rows = Addition().rows("test")[:2]
    one, two = (
        beam(policy, LogP(), max_tokens=8)(rows, torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert [f.best.text for f in one] == [f.best.text for f in two]
    with pytest.raises(ValueError, match="between 1 and its width of 4"):
        beam(policy, LogP(), width=4, keep=5)
    with pytest.raises(ValueError, match="a step must end"):
        BeamSearch(policy, Engine(policy), LogP(), step="")


def test_compute_draws_both_models_and_goes_on_after_a_kill(policy, tmp_path, capsys):
    for name in ("a", "b"):
        policy.save(tmp_path / name / "model")
    words = [
        "--model",
        str(tmp_path / "a/model"),
        "--against",
        str(tmp_path / "b/model"),
        "--items",
        "4",
        "--samples",
        "4",
        "--beams",
        "4",
        "--step",
        ",",
        "--max-completion-length",
        "5",
        "--save-every",
        "2",
    ]
    run = tmp_path / "run"
    assert compute.main([*words, "--out", str(run)]) == 0
    table = capsys.readouterr().out
    points = json.loads((run / "compute.json").read_text())
    assert {(p["model"], p["method"]) for p in points} == {
        (m, k) for m in "ab" for k in ("greedy", "pass", "maj", "weighted_maj", "best_of", "beam")
    }
    maj = {p["k"]: p["tokens"] for p in points if p["method"] == "maj" and p["model"] == "a"}
    assert maj[4] == pytest.approx(4 * maj[1]) and (run / "compute.png").stat().st_size > 10_000
    before = {f.name: f.read_bytes() for f in run.glob("*.jsonl")}
    torn = run / "a-beam-4.jsonl"
    torn.write_bytes(torn.read_bytes()[:-40])  # as a kill in the middle of a write leaves it
    (run / "b-beam-4.jsonl").unlink()
    assert compute.main(["--resume", str(run)]) == 0
    assert capsys.readouterr().out == table
    assert {f.name: f.read_bytes() for f in run.glob("*.jsonl")} == before
